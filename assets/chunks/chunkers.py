"""Chunkers: from a text to the exact character ranges of its chunks.

Belongs here: pure functions on one text.
Does not belong here: the database and batching (chunking.py), and what is embedded for a chunk (enrichment.py).

The splitter is langchain's ``RecursiveCharacterTextSplitter``, used so that its pieces tile the text: no overlap, no
stripping, separators kept. Positions are then sums of lengths. (Its own ``add_start_index`` searches for the piece
and finds an earlier twin, and its overlap leaves gaps.) Overlap and trimming are added here.
"""

import re
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass

from assets.corpus.headings import Outline, paths_at, scan
from resources.fingerprint import text_hash
from resources.index_config import ChunkerConfig

#: A token is a run of up to 16 letters or digits, or one other character that is no white space; characters of
#: scripts written without spaces (Chinese, Japanese, Korean, Thai) are tokens of their own. Deterministic, offline and
#: independent of a model; a model's own tokenizer gives about 1.3 tokens for each of these in English.
_UNSPACED = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_TOKEN = re.compile(rf"(?:(?![{_UNSPACED}])[^\W_]){{1,16}}|\S")
_ASCII_CLASSES = bytes(
    ord("w") if chr(code).isalnum() else ord(" ") if chr(code).isspace() else ord(".") for code in range(128)
).ljust(256)
_LONG_WORD = b"w" * 17
_PARAGRAPH_LINE_WORD = ["\n\n", "\n", " ", ""]
_HEADING = r"\n#{1,6} "
_RULE = r"\n(?:\*\*\*+|---+|___+)\n"
#: Headings, rules, and the beginnings of fenced code blocks before paragraphs.
_MARKDOWN = [_HEADING, _RULE, r"\n(?=```|~~~)", *_PARAGRAPH_LINE_WORD]
# Stands for a "#" that begins a line of code: as long, one token, and not a heading to the splitter.
_MASK = "\x01"


@dataclass(frozen=True)
class Chunk:
    """One chunk: ``text[start:end]`` of its text, without white space at either end.

    Attributes:
        hash: content address of those characters.
        heading_path: titles of the sections it begins in, outermost first.
        tokens: how many, as ``count_tokens`` counts.
    """

    ordinal: int
    start: int
    end: int
    hash: bytes
    heading_path: tuple[str, ...]
    tokens: int


def chunk_text(text: str, config: ChunkerConfig) -> list[Chunk]:
    """Cut a normalised text into chunks of at most ``config.size`` units.

    Together the chunks hold every character that is not white space. With an overlap a chunk begins up to
    ``config.overlap`` units before the end of the one before it, at a word boundary.
    """
    outline = scan(text)
    paths = paths_at(outline.headings)
    starts = [start for start, _ in paths]
    chunks: list[Chunk] = []
    for core, start, end in _ranges(text, outline, config):
        section = bisect_right(starts, core) - 1
        shown = text[start:end]
        chunks.append(
            Chunk(
                ordinal=len(chunks),
                start=start,
                end=end,
                hash=text_hash(shown),
                heading_path=paths[section][1] if section >= 0 else (),
                tokens=count_tokens(shown),
            )
        )
    return chunks


def count_tokens(text: str) -> int:
    """Number of tokens of a text; see the definition above."""
    if text.isascii():
        # Counting is what chunking by tokens costs: this is ten times as fast as the pattern, with the same result.
        classes = text.encode("ascii").translate(_ASCII_CLASSES)
        if _LONG_WORD not in classes:
            return classes.count(b".") + classes.count(b" w") + classes.count(b".w") + classes.startswith(b"w")
    return len(_TOKEN.findall(text))


def length_in(config: ChunkerConfig, text: str) -> int:
    """Length of a text in the unit of the configuration."""
    return len(text) if config.unit == "characters" else count_tokens(text)


def _ranges(text: str, outline: Outline, config: ChunkerConfig) -> list[tuple[int, int, int]]:
    """(beginning of what is new, start, end) of every chunk; the first two differ by the overlap."""
    from langchain_text_splitters import RecursiveCharacterTextSplitter

    length = _length_function(config)
    pieces = RecursiveCharacterTextSplitter(
        separators=_MARKDOWN if config.kind == "markdown" else _PARAGRAPH_LINE_WORD,
        is_separator_regex=True,
        keep_separator="start",
        strip_whitespace=False,
        chunk_size=config.size - config.overlap,
        chunk_overlap=0,
        length_function=length,
    ).split_text(_mask(text, outline) if config.kind == "markdown" else text)
    ranges: list[tuple[int, int, int]] = []
    position = 0
    for piece in pieces:
        tile, position = position, position + len(piece)
        shown = text[tile:position]
        core = tile + len(shown) - len(shown.lstrip())
        end = tile + len(shown.rstrip())
        if core >= end:
            continue  # white space only
        floor = ranges[-1][1] + 1 if ranges else core
        start = _reach_back(text, core, floor, config.overlap, length) if config.overlap else core
        ranges.append((core, start, end))
    if position != len(text):
        raise AssertionError("the splitter did not return every character of the text once")
    return ranges


def _reach_back(text: str, core: int, floor: int, overlap: int, length: Callable[[str], int]) -> int:
    """The earliest word boundary at or after ``floor`` from which to ``core`` there are at most ``overlap`` units."""
    start = core
    while start > floor:
        before = len(text[floor:start].rstrip())  # the end of the word before, relative to floor
        boundary = max(text.rfind(" ", floor, floor + before), text.rfind("\n", floor, floor + before)) + 1
        if boundary <= floor or length(text[boundary:core]) > overlap:
            break
        start = boundary
    return start


def _mask(text: str, outline: Outline) -> str:
    """The text with ``# comment`` lines of code changed, so that the splitter does not take them for headings."""
    if not outline.not_headings:
        return text
    parts = []
    position = 0
    for start in outline.not_headings:
        parts.append(text[position:start])
        position = start
        while text[position : position + 1] == "#":
            parts.append(_MASK)
            position += 1
    parts.append(text[position:])
    return "".join(parts)


def _length_function(config: ChunkerConfig) -> Callable[[str], int]:
    """The splitter's measure. White space measures 1 as well: at 0 the splitter would repeat pieces."""
    return len if config.unit == "characters" else lambda piece: count_tokens(piece) or 1
