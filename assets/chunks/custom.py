"""The chunker ``custom``: calls a user's function and judges what it returns.

Belongs here: turning the function's ranges into pieces, and refusing wrong ones with a message that names the function.
Does not belong here: finding the function (resources/chunker_plugins.py).
"""

from assets.chunks.prepared import Piece, Prepared
from assets.chunks.tokens import count_tokens
from resources.chunker_config import CustomChunker
from resources.chunker_plugins import find_function
from resources.errors import PermanentError


def custom_pieces(item: Prepared, start: int, end: int, config: CustomChunker) -> list[Piece]:
    """Ranges of characters [start, end), white space at their ends left out.

    Raises:
        ConfigError: there is no such function.
        PermanentError: it raised, or what it returned is no list of ranges in order that covers the text within the
            size; the message names the function and positions, never the text.
    """
    function = find_function(config.function)
    text = item.text[start:end]
    try:
        ranges = list(function(text, dict(config.parameters)))
    except Exception as error:
        # the function's own words may quote the document
        raise PermanentError(f"chunker function {config.function!r} raised {type(error).__name__}") from None
    pieces: list[Piece] = []
    covered = 0
    for number, found in enumerate(ranges):
        first, last = _range(found, number, len(text), config)
        if pieces and first <= pieces[-1].start - start:
            raise _wrong(config, f"range {number} begins at {first}, not after the range before it")
        shown = text[first:last]
        first, last = first + len(shown) - len(shown.lstrip()), last - len(shown) + len(shown.rstrip())
        if first >= last:
            continue
        size = last - first if config.unit == "characters" else count_tokens(text[first:last])
        if size > config.size:
            raise _wrong(config, f"range {number} has {size} {config.unit}, size allows {config.size}")
        if not config.partial and text[covered:first].strip():
            raise _wrong(config, f"characters [{covered}, {first}) are in no range; set partial: true to allow that")
        pieces.append(Piece(start + min(max(first, covered), last - 1), start + first, start + last))
        covered = max(covered, last)
    if not config.partial and text[covered:].strip():
        raise _wrong(config, f"characters [{covered}, {len(text)}) are in no range; set partial: true to allow that")
    return pieces


def _range(found: object, number: int, length: int, config: CustomChunker) -> tuple[int, int]:
    if not (isinstance(found, tuple | list) and len(found) == 2 and all(type(value) is int for value in found)):
        raise _wrong(config, f"item {number} is no pair of whole numbers (start, end)")
    first, last = found
    if not 0 <= first < last <= length:
        raise _wrong(config, f"range {number} is [{first}, {last}), which is not inside a text of {length} characters")
    return first, last


def _wrong(config: CustomChunker, what: str) -> PermanentError:
    return PermanentError(f"chunker function {config.function!r} returned unusable ranges: {what}")
