"""The chunkers ``markdown`` and ``recursive``: langchain's splitter, made to give exact positions.

Belongs here: using ``RecursiveCharacterTextSplitter`` so that its pieces tile the text: no overlap, no stripping,
separators kept. Positions are then sums of lengths. (Its own ``add_start_index`` searches for the piece and finds an
earlier twin, and its overlap leaves gaps.) Overlap and trimming are added here.
Does not belong here: chunkers that work on positions from the start (packing.py and what uses it).
"""

from collections.abc import Callable, Iterator

from assets.chunks.prepared import Piece, Prepared
from assets.chunks.tokens import count_short, count_tokens
from resources.chunker_config import MarkdownChunker, RecursiveChunker

_PARAGRAPH_LINE_WORD = ["\n\n", "\n", " "]
_HEADING = r"\n#{1,6} "
_RULE = r"\n(?:\*\*\*+|---+|___+)\n"
#: Headings, rules, and the beginnings of fenced code blocks before paragraphs.
_MARKDOWN = [_HEADING, _RULE, r"\n(?=```|~~~)", *_PARAGRAPH_LINE_WORD]
# Stands for a "#" that begins a line of code: as long, one token, and not a heading to the splitter.
_MASK = "\x01"
# Longer pieces are rarely met twice.
_SHORT = 24


def split(item: Prepared, start: int, end: int, config: MarkdownChunker | RecursiveChunker) -> list[Piece]:
    """Pieces of ``text[start:end]`` of at most ``config.size`` units, overlapping by up to ``config.overlap``."""
    tokens = config.unit == "tokens"
    # What the splitter sees: as long as the text, cut at the same places, and faster to count in.
    shown = (item.tokens.shadow if tokens else item.text)[start:end]
    if config.kind == "markdown":
        shown = _mask(shown, start, item.outline.not_headings)
    length: Callable[[str], int] = _length_in_tokens if tokens else len
    pieces: list[Piece] = []
    position = start
    for size in _sizes(shown, config, length):
        tile, position = position, position + size
        text = item.text[tile:position]
        core = tile + len(text) - len(text.lstrip())
        stop = tile + len(text.rstrip())
        if core >= stop:
            continue  # white space only
        floor = pieces[-1].start + 1 if pieces else core
        begin = _reach_back(item.text, core, floor, config.overlap, length) if config.overlap else core
        pieces.append(Piece(core, begin, stop))
    if position != end:
        raise AssertionError("the splitter did not return every character of the text once")
    return pieces


def _sizes(text: str, config: MarkdownChunker | RecursiveChunker, length: Callable[[str], int]) -> Iterator[int]:
    """Lengths in characters of consecutive pieces.

    What has no space inside is left to us: cut by characters, as the splitter would with an empty last separator, but
    without making a list of them.
    """
    from langchain_text_splitters import RecursiveCharacterTextSplitter

    room = config.size - config.overlap
    splitter = RecursiveCharacterTextSplitter(
        separators=_MARKDOWN if config.kind == "markdown" else _PARAGRAPH_LINE_WORD,
        is_separator_regex=True,
        keep_separator="start",
        strip_whitespace=False,
        chunk_size=room,
        chunk_overlap=0,
        length_function=length,
    )
    for piece in splitter.split_text(text):
        whole = " " not in piece[1:] and "\n" not in piece[1:]
        if whole and len(piece) > room and length(piece) >= room:
            yield from (min(room, len(piece) - start) for start in range(0, len(piece), room))
        else:
            yield len(piece)


def _reach_back(text: str, core: int, floor: int, overlap: int, length: Callable[[str], int]) -> int:
    """The earliest word boundary at or after ``floor`` from which to ``core`` there are at most ``overlap`` units."""
    start, room = core, overlap
    while start > floor:
        before = start  # the end of the word before
        while before > floor and text[before - 1].isspace():
            before -= 1
        boundary = max(text.rfind(" ", floor, before), text.rfind("\n", floor, before)) + 1
        if boundary <= floor:
            break
        # words are counted one by one: white space stands between them, so that their counts add up
        room -= length(text[boundary:start])
        if room < 0:
            break
        start = boundary
    return start


def _mask(text: str, offset: int, not_headings: tuple[int, ...]) -> str:
    """The text with ``# comment`` lines of code changed, so that the splitter does not take them for headings."""
    parts = []
    position = 0
    for start in not_headings:
        if not offset <= start < offset + len(text):
            continue
        parts.append(text[position : start - offset])
        position = start - offset
        while text[position : position + 1] == "#":
            parts.append(_MASK)
            position += 1
    parts.append(text[position:])
    return "".join(parts) if len(parts) > 1 else text


def _length_in_tokens(piece: str) -> int:
    """The splitter's measure. White space measures 1: at 0 the splitter would repeat pieces. The empty string measures
    0: it is what the splitter puts between pieces, and at 1 every word would count twice.
    """
    return (count_short(piece) if len(piece) <= _SHORT else count_tokens(piece)) or (1 if piece else 0)
