"""Packing: from places where a cut is possible to pieces of a size.

Belongs here: measuring between tokens, dividing by levels of cuts, and the cuts every text has: sentences, clauses,
words, characters that belong together, tokens.
Does not belong here: where the blocks of a text are (structure.py, code_structure.py).

Everything works on token numbers. A piece is tokens [first, last), so that it begins and ends with a character that is
no white space, and consecutive pieces leave out nothing else.
"""

import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from assets.chunks.prepared import Prepared
from assets.chunks.sentences import sentence_starts
from assets.chunks.tokens import Tokens
from resources.chunker_config import Unit

if TYPE_CHECKING:
    import numpy as np

#: Token numbers inside (first, last), in order, before which a cut is possible.
Cuts = Callable[[int, int], "np.ndarray"]

_CLAUSE = re.compile(r"[,;:，、；：،؛|][\"'”’»)\]}]*+\s++|[，、；：]|(?<=\s)[-–—]\s")
_STATEMENT = re.compile(r"[;{}]+")


class Measure:
    """How large a run of tokens is, in units."""

    def __init__(self, tokens: Tokens, unit: Unit) -> None:
        self._tokens = tokens
        self._characters = unit == "characters"

    def size(self, first: int, last: int) -> int:
        """Size of tokens [first, last), in units; white space at either end does not count."""
        if self._characters:
            return int(self._tokens.ends[last - 1] - self._tokens.starts[first])
        return last - first

    def sizes(self, edges: "np.ndarray") -> "np.ndarray":
        """Size of each run between two neighbouring edges."""
        if self._characters:
            return self._tokens.ends[edges[1:] - 1] - self._tokens.starts[edges[:-1]]
        return edges[1:] - edges[:-1]

    def reach(self, first: int, size: int) -> int:
        """The last token number ``last`` for which tokens [first, last) have at most ``size`` units."""
        if self._characters:
            return int(self._tokens.ends.searchsorted(self._tokens.starts[first] + size, side="right"))
        return min(first + size, len(self._tokens))

    def reach_back(self, last: int, size: int) -> int:
        """The first token number ``first`` for which tokens [first, last) have at most ``size`` units."""
        if self._characters:
            return int(self._tokens.starts.searchsorted(self._tokens.ends[last - 1] - size))
        return max(last - size, 0)


def divide(measure: Measure, first: int, last: int, levels: Sequence[Cuts], size: int) -> list[tuple[int, int]]:
    """Tile tokens [first, last) with runs of at most ``size`` units, cut at the best level that will do.

    What fits stays whole. What does not is cut at the first level that has cuts in it; parts that are still too large
    are cut at the next level, neighbours that fit together are put together, evenly rather than leaving a small rest.
    """
    if first >= last:
        return []
    if measure.size(first, last) <= size:
        return [(first, last)]
    import numpy as np

    number, inner = next(
        (number, inner) for number, cuts in enumerate(levels) if len(inner := cuts(first, last))
    )  # the last level cuts everywhere
    edges = np.concatenate([[first], inner, [last]])
    large = np.flatnonzero(measure.sizes(edges) > size).tolist()
    bounds = edges.tolist()
    pieces: list[tuple[int, int]] = []
    position = 0
    for big in [*large, len(bounds) - 1]:
        if position < big:
            pieces += _fill(measure, bounds[position : big + 1], size)
        if big < len(bounds) - 1:
            pieces += divide(measure, bounds[big], bounds[big + 1], levels[number + 1 :], size)
        position = big + 1
    return pieces


def _fill(measure: Measure, bounds: Sequence[int], size: int) -> list[tuple[int, int]]:
    """Put neighbours together, each run between two bounds being small enough by itself."""
    pieces = []
    at, end = 0, len(bounds) - 1
    while at < end:
        left = measure.size(bounds[at], bounds[end])
        reach = bisect_left(bounds, measure.reach(bounds[at], size) + 1, at + 1) - 1
        if left > size:
            # as many pieces as needed, of about the same size
            even = -(-left // -(-left // size))
            wanted = bisect_left(bounds, measure.reach(bounds[at], even), at + 1)
            reach = min(reach, wanted)
        reach = max(min(reach, end), at + 1)
        pieces.append((bounds[at], bounds[reach]))
        at = reach
    return pieces


def fixed_cuts(item: Prepared, positions: Sequence[int]) -> Cuts:
    """Cuts known beforehand, as character positions in order."""
    import numpy as np

    tokens = item.tokens
    numbers = np.unique(tokens.starts.searchsorted(np.asarray(positions, np.int64)))

    def inside(first: int, last: int) -> "np.ndarray":
        return numbers[numbers.searchsorted(first, side="right") : numbers.searchsorted(last)]

    return inside


def sentence_cuts(item: Prepared) -> Cuts:
    """Cuts between sentences; in code there are none."""

    def inside(first: int, last: int) -> "np.ndarray":
        start, end = item.tokens.span(first, last)
        return _numbers(item, first, last, sentence_starts(item.text, start, end))

    return inside


def prose_cuts(item: Prepared) -> list[Cuts]:
    """Sentences (or statements, in code), clauses (or cells), words, characters that belong together, tokens."""
    tokens = item.tokens
    structure = item.structure

    def sentences(first: int, last: int) -> "np.ndarray":
        start, end = tokens.span(first, last)
        if structure.in_code(start):
            return _numbers(item, first, last, [match.end() for match in _STATEMENT.finditer(item.text, start, end)])
        return _numbers(item, first, last, sentence_starts(item.text, start, end))

    return [sentences, *clause_cuts(item)]


def clause_cuts(item: Prepared) -> list[Cuts]:
    """Clauses (or cells), words, characters that belong together, tokens: what cuts a sentence that is too large."""
    tokens = item.tokens

    def clauses(first: int, last: int) -> "np.ndarray":
        start, end = tokens.span(first, last)
        return _numbers(item, first, last, [match.end() for match in _CLAUSE.finditer(item.text, start, end)])

    return [clauses, *word_cuts(tokens)]


def word_cuts(tokens: Tokens) -> list[Cuts]:
    """Words, characters that belong together, tokens."""
    import numpy as np

    def words(first: int, last: int) -> "np.ndarray":
        return np.flatnonzero(tokens.after_space[first + 1 : last]) + first + 1

    def together(first: int, last: int) -> "np.ndarray":
        return np.flatnonzero(~tokens.joined(first + 1, last)) + first + 1

    def every(first: int, last: int) -> "np.ndarray":
        return np.arange(first + 1, last)

    return [words, together, every]


def _numbers(item: Prepared, first: int, last: int, positions: Sequence[int]) -> "np.ndarray":
    import numpy as np

    numbers = np.unique(item.tokens.starts.searchsorted(np.asarray(positions, np.int64)))
    return numbers[(numbers > first) & (numbers < last)]
