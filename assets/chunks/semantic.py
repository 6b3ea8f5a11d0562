"""The chunker ``semantic``: cuts where the sentences before and after mean different things.

Belongs here: which windows of sentences are embedded, their distances, and the cuts that follow from them.
Does not belong here: the embedding model (resources/models.py) and finding sentences (sentences.py).

Before every sentence but the first, the window of sentences that ends there is compared with the window that begins
there. Each window is embedded once: the one before a cut is the one that began ``window`` sentences earlier. Only the
vectors of ``window`` sentences are kept, so that memory does not grow with the text.
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from assets.chunks.packing import Measure, clause_cuts, divide, sentence_cuts
from assets.chunks.prepared import Piece, Prepared
from resources.chunker_config import SemanticChunker

if TYPE_CHECKING:
    import numpy as np

#: Windows sent to the embedding model at once; its own batches are smaller.
WINDOWS = 1_024
#: Distances are rounded, so that the last digits of a sum do not decide a cut.
_DIGITS = 6

Embed = Callable[[Sequence[str]], "np.ndarray"]


def semantic_pieces(
    jobs: Sequence[tuple[Prepared, int, int]], config: SemanticChunker, embed: Embed
) -> list[list[Piece]]:
    """Cut characters [start, end) of texts; the windows of all of them share the batches of the embedding model."""
    units = [_units(item, start, end, config) for item, start, end in jobs]
    distances = _distances([job[0] for job in jobs], units, config, embed)
    results = []
    for (item, _, _), edges, values in zip(jobs, units, distances, strict=True):
        measure = Measure(item.tokens, config.unit)
        cuts = _choose(measure, edges, values, config)
        pieces = []
        for first, last in pairwise(cuts):
            start, end = item.tokens.span(first, last)
            pieces.append(Piece(start, start, end))
        results.append(pieces)
    return results


def _units(item: Prepared, start: int, end: int, config: SemanticChunker) -> list[int]:
    """Edges of the sentences, as token numbers; a sentence larger than a chunk is cut to size."""
    first, last = item.tokens.at(start), item.tokens.at(end)
    if first >= last:
        return []
    measure = Measure(item.tokens, config.unit)
    edges = [first, *sentence_cuts(item)(first, last).tolist(), last]
    levels = clause_cuts(item)
    result = [first]
    for one, two in pairwise(edges):
        result += [stop for _, stop in divide(measure, one, two, levels, config.size)]
    return result


def _windows(item: Prepared, edges: Sequence[int], config: SemanticChunker) -> Iterator[str]:
    """The windows of one text: those that end before sentences 1 to ``window`` - 1, then one beginning at each.

    A window holds at most ``config.size`` units, as a chunk does: what a model accepts as a chunk it accepts here.
    """
    measure = Measure(item.tokens, config.unit)
    count = len(edges) - 1
    for stop in range(1, min(config.window, count)):
        first = bisect_left(edges, measure.reach_back(edges[stop], config.size))
        yield _text(item, edges[min(first, stop - 1)], edges[stop])
    for begin in range(count):
        stop = min(begin + config.window, count)
        while stop > begin + 1 and measure.size(edges[begin], edges[stop]) > config.size:
            stop -= 1
        yield _text(item, edges[begin], edges[stop])


def _text(item: Prepared, first: int, last: int) -> str:
    start, end = item.tokens.span(first, last)
    return item.text[start:end]


def _distances(
    items: Sequence[Prepared], units: Sequence[Sequence[int]], config: SemanticChunker, embed: Embed
) -> list["np.ndarray"]:
    """Per text the cosine distance at each inner edge, shape (sentences - 1,); a text of one sentence has none."""
    import numpy as np

    results = [np.zeros(max(len(edges) - 2, 0)) for edges in units]
    waiting: list[tuple[int, int, str]] = []
    kept: dict[tuple[int, int], np.ndarray] = {}

    def flush() -> None:
        vectors = np.asarray(embed([text for _, _, text in waiting]), np.float64)
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        for (number, place, _), vector in zip(waiting, vectors, strict=True):
            early = min(config.window, len(units[number]) - 1) - 1
            kept[number, place] = vector
            sentence = place - early
            if sentence < 1:
                continue
            # the windows before sentences 1 .. window - 1 come first; later ones began `window` sentences earlier
            before = sentence - 1 if sentence <= early else early + sentence - config.window
            results[number][sentence - 1] = round(1.0 - float(kept.pop((number, before)) @ vector), _DIGITS)
        waiting.clear()

    for number, (item, edges) in enumerate(zip(items, units, strict=True)):
        if len(edges) < 3:
            continue
        for place, text in enumerate(_windows(item, edges, config)):
            waiting.append((number, place, text))
            if len(waiting) >= WINDOWS:
                flush()
        if len(waiting) == 0:
            kept.clear()
    if waiting:
        flush()
    return results


def _choose(measure: Measure, edges: Sequence[int], distances: "np.ndarray", config: SemanticChunker) -> list[int]:
    """The edges to cut at: distant enough, or needed because of the size; both neighbours keep the minimum."""
    import numpy as np

    if len(edges) < 3:
        return list(edges)
    threshold = float(np.percentile(distances, config.percentile))
    chosen = [edges[0], edges[-1]]
    # the greatest distance first; among equals the earlier one
    for number in np.argsort(-distances, kind="stable").tolist():
        edge = edges[number + 1]
        after = bisect_left(chosen, edge)
        left, right = chosen[after - 1], chosen[after]
        if distances[number] < threshold and measure.size(left, right) <= config.size:
            continue
        if min(measure.size(left, edge), measure.size(edge, right)) >= config.minimum:
            insort(chosen, edge)
    result = [chosen[0]]
    for left, right in pairwise(chosen):
        inner = np.asarray(edges[bisect_left(edges, left) + 1 : bisect_left(edges, right)], np.int64)
        result += [stop for _, stop in divide(measure, left, right, [_inside(inner)], config.size)]
    return result


def _inside(numbers: "np.ndarray") -> Callable[[int, int], "np.ndarray"]:
    return lambda first, last: numbers[numbers.searchsorted(first, side="right") : numbers.searchsorted(last)]
