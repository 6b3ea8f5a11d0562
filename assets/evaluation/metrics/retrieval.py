"""Retrieval metrics: how well retrieved character ranges cover gold character ranges.

Belongs here: precision, recall, reciprocal rank, average precision, nDCG and IoU of one ranking; pure functions.
Does not belong here: their definitions in words and the overlap rules' constants (base.py).
"""

import math
from collections.abc import Callable, Sequence

from assets.evaluation.metrics.base import COVERED_SHARE

#: ``(document, start, end)``; half-open, in characters.
Span = tuple[int, int, int]
Ranking = Callable[[Sequence[Span], Sequence[Span]], float]


def relevant(chunks: Sequence[Span], gold: Sequence[Span]) -> list[bool]:
    """For each chunk, best first, whether it shares a character with a gold span of its document."""
    return [any(_overlap(chunk, span) is not None for span in gold) for chunk in chunks]


def covered_at(chunks: Sequence[Span], gold: Sequence[Span]) -> list[int | None]:
    """For each gold span the rank (from 1) at which it became covered by the chunks so far; ``None``: never."""
    return [_covered_at(chunks, span) for span in gold]


def _covered_at(chunks: Sequence[Span], span: Span) -> int | None:
    needed = COVERED_SHARE * (span[2] - span[1])
    parts: list[tuple[int, int]] = []
    for rank, chunk in enumerate(chunks, start=1):
        part = _overlap(chunk, span)
        if part is not None:
            parts.append(part)
            if _union_length(parts) >= needed:
                return rank
    return None


def precision(chunks: Sequence[Span], gold: Sequence[Span]) -> float:
    """Relevant chunks ÷ chunks; 0 without chunks."""
    return sum(relevant(chunks, gold)) / len(chunks) if chunks else 0.0


def recall(chunks: Sequence[Span], gold: Sequence[Span]) -> float:
    """Covered spans ÷ spans."""
    return sum(rank is not None for rank in covered_at(chunks, gold)) / len(gold)


def reciprocal_rank(chunks: Sequence[Span], gold: Sequence[Span]) -> float:
    """1 ÷ rank of the first relevant chunk; 0 without one."""
    return next((1 / rank for rank, hit in enumerate(relevant(chunks, gold), start=1) if hit), 0.0)


def average_precision(chunks: Sequence[Span], gold: Sequence[Span]) -> float:
    """Mean over spans of the precision at the rank where the span became covered; 0 for a span that never is."""
    hits = relevant(chunks, gold)
    return sum(sum(hits[:rank]) / rank for rank in covered_at(chunks, gold) if rank is not None) / len(gold)


def ndcg(chunks: Sequence[Span], gold: Sequence[Span], depth: int | None = None) -> float:
    """Discounted gain of the covered spans ÷ that of one new span per rank, at most 1.

    Args:
        depth: ranks an ideal ranking may use; ``None``: as many as there are spans.
    """
    gain = sum(1 / math.log2(1 + rank) for rank in covered_at(chunks, gold) if rank is not None)
    ideal = sum(1 / math.log2(1 + rank) for rank in range(1, min(len(gold), depth or len(gold)) + 1))
    return min(gain / ideal, 1.0)


def iou(chunks: Sequence[Span], gold: Sequence[Span]) -> float:
    """Gold characters retrieved ÷ (characters of all chunks, repeats included, + gold characters missed)."""
    total = found = 0
    for document in {span[0] for span in gold}:
        wanted = _union([span[1:] for span in gold if span[0] == document])
        parts = [
            part
            for start, end in wanted
            for chunk in chunks
            if (part := _overlap(chunk, (document, start, end))) is not None
        ]
        total += sum(end - start for start, end in wanted)
        found += _union_length(parts)
    return found / (sum(end - start for _, start, end in chunks) + total - found)


def at_depth(name: str, chunks: Sequence[Span], gold: Sequence[Span], depth: int | None) -> float:
    """The metric ``name`` over the first ``depth`` chunks, or over all of them.

    Precision divides by ``depth`` even when fewer chunks were retrieved, as trec_eval does.
    """
    if depth is None:
        return RANKINGS[name](chunks, gold)
    first = chunks[:depth]
    if name == "precision":
        return sum(relevant(first, gold)) / depth
    if name == "ndcg":
        return ndcg(first, gold, depth)
    return RANKINGS[name](first, gold)


RANKINGS: dict[str, Ranking] = {
    "precision": precision,
    "recall": recall,
    "mrr": reciprocal_rank,
    "map": average_precision,
    "ndcg": ndcg,
    "iou": iou,
}


def _overlap(chunk: Span, span: Span) -> tuple[int, int] | None:
    if chunk[0] != span[0]:
        return None
    start, end = max(chunk[1], span[1]), min(chunk[2], span[2])
    return (start, end) if start < end else None


def _union(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _union_length(ranges: Sequence[tuple[int, int]]) -> int:
    return sum(end - start for start, end in _union(ranges))
