"""Binary copy: vectors to and from PostgreSQL in its COPY format, a block of rows at a time.

Belongs here: the layout of COPY's binary format and of pgvector's two types in it.
Does not belong here: which rows are sent or read. Row by row the same work costs a client ten times as much.

The format: PostgreSQL's documentation of COPY, "Binary Format"; numbers are big-endian. pgvector sends a ``vector``
and a ``halfvec`` as two 16-bit numbers, the dimensions and 0, and then the components.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER = b"\xff\xff"
#: Bytes of a key: a BLAKE2b-128 digest.
KEY_BYTES = 16
_COMPONENTS = {"vector": ">f4", "halfvec": ">f2"}


def keyed_vectors(keys: Sequence[bytes], vectors: np.ndarray) -> bytes:
    """Rows of a key (``bytea``) and a ``vector``, complete with header and end.

    Args:
        keys: ``KEY_BYTES`` bytes each.
        vectors: shape (len(keys), dimensions).
    """
    import numpy as np

    dimensions = vectors.shape[1]
    rows = np.zeros(len(keys), _row(dimensions, "vector", key=True))
    rows["fields"] = 2
    rows["key_bytes"] = KEY_BYTES
    rows["key"] = np.frombuffer(b"".join(keys), f"V{KEY_BYTES}")
    rows["bytes"] = 4 + 4 * dimensions
    rows["dimensions"] = dimensions
    rows["components"] = vectors
    return _HEADER + rows.tobytes() + _TRAILER


def read_vectors(
    blocks: Iterable[bytes | bytearray | memoryview], dimensions: int, kind: str, rows: int
) -> Iterator[np.ndarray]:
    """The vectors of a COPY of a single column, at most ``rows`` at a time.

    Args:
        blocks: what the server sends.
        kind: ``vector`` or ``halfvec``.

    Yields:
        Arrays of shape (n, dimensions), float32.
    """
    import numpy as np

    layout = _row(dimensions, kind, key=False)
    waiting, skip = bytearray(), len(_HEADER)
    for block in blocks:
        waiting += block
        if skip and len(waiting) >= skip:
            del waiting[:skip]
            skip = 0
        if not skip and len(waiting) >= rows * layout.itemsize + len(_TRAILER):
            yield np.frombuffer(bytes(waiting), layout, rows)["components"].astype(np.float32)
            del waiting[: rows * layout.itemsize]
    count = (len(waiting) - len(_TRAILER)) // layout.itemsize
    if count > 0:
        yield np.frombuffer(bytes(waiting), layout, count)["components"].astype(np.float32)


def _row(dimensions: int, kind: str, *, key: bool) -> np.dtype:
    import numpy as np

    prefix = [("key_bytes", ">i4"), ("key", f"V{KEY_BYTES}")] if key else []
    vector = [("bytes", ">i4"), ("dimensions", ">i2"), ("zero", ">i2"), ("components", _COMPONENTS[kind], dimensions)]
    return np.dtype([("fields", ">i2"), *prefix, *vector])
