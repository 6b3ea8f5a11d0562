"""Rows: chunks and their inputs as COPY takes them, in PostgreSQL's binary format.

Belongs here: the bytes of a row, and of the stream around the rows. Does not belong here: what is written (chunking.py).

There are a hundred rows in a page of text: to put them together here, with the few values that vary, takes a fifth of
the time that a general driver needs to look at each value. The format is described under COPY in PostgreSQL's manual.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from struct import Struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from assets.chunks.chunkers import Chunk

CHUNK_COLUMNS = (
    "chunker_id, text_hash, ordinal, start_char, end_char, chunk_hash, heading_path, tokens, parent_start, parent_end"
)
INPUT_COLUMNS = "enrichment_id, chunker_id, text_hash, ordinal, input_hash, search_text"

#: Bytes of an address of content.
_HASH = 16
# Signature, flags, length of the extension; a row begins with the number of its fields, and -1 ends the stream.
_BEGINNING = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_END = b"\xff\xff"
_LENGTH = Struct("!i")
_NULL = _LENGTH.pack(-1)
_TEXT_TYPE = 25  # its number in pg_type
#: Every field is preceded by its length.
_CHUNK = Struct(f"!h ii i{_HASH}s ii ii ii i{_HASH}s")
_TOKENS = Struct("!ii")
_PARENT = Struct("!ii ii")
_INPUT = Struct(f"!h ii ii i{_HASH}s ii i{_HASH}s")
_ARRAY = Struct("!iii")
_DIMENSION = Struct("!ii")
#: What is handed over at once.
_BLOCK = 1 << 18


def stream(rows: Iterable[bytes]) -> Iterator[bytes]:
    """A complete stream of rows, in blocks of about 256 KiB."""
    block = [_BEGINNING]
    size = 0
    for row in rows:
        block.append(row)
        size += len(row)
        if size >= _BLOCK:
            yield b"".join(block)
            block, size = [], 0
    yield b"".join([*block, _END])


def chunk_row(chunker_key: int, text_hash: bytes, chunk: "Chunk") -> bytes:
    """A row of ``chunk``, with the columns of ``CHUNK_COLUMNS``.

    Raises:
        struct.error: a number does not fit its column.
    """
    fixed = _CHUNK.pack(
        10, 4, chunker_key, _HASH, text_hash, 4, chunk.ordinal, 4, chunk.start, 4, chunk.end, _HASH, chunk.hash
    )
    parent = _NULL + _NULL if chunk.parent is None else _PARENT.pack(4, chunk.parent[0], 4, chunk.parent[1])
    return fixed + _text_array(tuple(chunk.heading_path)) + _TOKENS.pack(4, chunk.tokens) + parent


def input_row(
    enrichment_key: int, chunker_key: int, text_hash: bytes, ordinal: int, input_hash: bytes, search_text: str | None
) -> bytes:
    """A row of ``chunk_input``, with the columns of ``INPUT_COLUMNS``."""
    fixed = _INPUT.pack(6, 4, enrichment_key, 4, chunker_key, _HASH, text_hash, 4, ordinal, _HASH, input_hash)
    return fixed + (_NULL if search_text is None else _field(search_text.encode()))


def _field(value: bytes) -> bytes:
    return _LENGTH.pack(len(value)) + value


@lru_cache(maxsize=1024)
def _text_array(items: Sequence[str]) -> bytes:
    """A field of type text[]; consecutive chunks mostly have the same one."""
    if not items:
        return _field(_ARRAY.pack(0, 0, _TEXT_TYPE))
    dimension = _DIMENSION.pack(len(items), 1)
    return _field(_ARRAY.pack(1, 0, _TEXT_TYPE) + dimension + b"".join(_field(item.encode()) for item in items))
