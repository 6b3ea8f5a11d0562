"""Retrieval metrics: how well retrieved character ranges cover gold character ranges.

Belongs here: precision, recall, reciprocal rank, average precision, nDCG and IoU of one ranking; pure functions.
Does not belong here: their definitions in words (retrieval_metrics.py) and the overlap rules' constants (records.py).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from assets.evaluation.metrics.records import COVERED_SHARE

#: ``(document, start, end)``; half-open, in characters.
Span = tuple[int, int, int]
#: A span that is wanted, with its grade (1 when left out); ``end`` is ``WHOLE`` when any part of the document will do.
Gold = tuple[int, int, int] | tuple[int, int, int, int]
WHOLE = -1


@dataclass(frozen=True)
class Ranking:
    """Chunks against gold spans, worked out once for all metrics and depths.

    Attributes:
        relevant: for each chunk, best first, whether it shares a character with a gold span.
        covered: for each gold span the rank (from 1) at which it became covered; ``None``: never.
        grades: of the gold spans.
    """

    chunks: Sequence[Span]
    gold: Sequence[Gold]
    relevant: list[bool]
    covered: list[int | None]
    grades: list[int]


def rank(chunks: Sequence[Span], gold: Sequence[Gold]) -> Ranking:
    """Compare a ranking with the gold spans."""
    grades = [span[3] if len(span) > 3 else 1 for span in gold]  # pyright: ignore[reportGeneralTypeIssues]
    return Ranking(chunks, gold, relevant(chunks, gold), covered_at(chunks, gold), grades)


def relevant(chunks: Sequence[Span], gold: Sequence[Gold]) -> list[bool]:
    """For each chunk, best first, whether it shares a character with a gold span of its document."""
    return [any(_touches(chunk, span) for span in gold) for chunk in chunks]


def covered_at(chunks: Sequence[Span], gold: Sequence[Gold]) -> list[int | None]:
    """For each gold span the rank (from 1) at which it became covered by the chunks so far; ``None``: never."""
    return [_covered_at(chunks, span) for span in gold]


def _covered_at(chunks: Sequence[Span], span: Gold) -> int | None:
    if span[2] == WHOLE:
        return next((rank for rank, chunk in enumerate(chunks, start=1) if chunk[0] == span[0]), None)
    needed = COVERED_SHARE * (span[2] - span[1])
    parts: list[tuple[int, int]] = []
    for rank, chunk in enumerate(chunks, start=1):
        part = _overlap(chunk, span)
        if part is not None:
            parts.append(part)
            if _union_length(parts) >= needed:
                return rank
    return None


def precision(chunks: Sequence[Span], gold: Sequence[Gold]) -> float:
    """Relevant chunks ÷ chunks; 0 without chunks."""
    return precision_of(rank(chunks, gold))


def recall(chunks: Sequence[Span], gold: Sequence[Gold]) -> float:
    """Covered spans ÷ spans."""
    return recall_of(rank(chunks, gold))


def reciprocal_rank(chunks: Sequence[Span], gold: Sequence[Gold]) -> float:
    """1 ÷ rank of the first relevant chunk; 0 without one."""
    return reciprocal_rank_of(rank(chunks, gold))


def average_precision(chunks: Sequence[Span], gold: Sequence[Gold]) -> float:
    """Mean over spans of the precision at the rank where the span became covered; 0 for a span that never is."""
    return average_precision_of(rank(chunks, gold))


def ndcg(chunks: Sequence[Span], gold: Sequence[Gold], depth: int | None = None) -> float:
    """Discounted grades of the covered spans ÷ those of one new span per rank, best grade first; at most 1.

    Gains are linear in the grade, as in trec_eval (Järvelin and Kekäläinen, 2002).

    Args:
        depth: ranks an ideal ranking may use; ``None``: as many as there are spans.
    """
    return ndcg_of(rank(chunks, gold), depth)


def iou(chunks: Sequence[Span], gold: Sequence[Gold]) -> float:
    """Gold characters retrieved ÷ (characters of all chunks, repeats included, + gold characters missed).

    The gold spans must be ranges: how long a whole document is, is not known here.
    """
    total = found = 0
    for document in {span[0] for span in gold}:
        wanted = _union([(span[1], span[2]) for span in gold if span[0] == document])
        parts = [
            part
            for start, end in wanted
            for chunk in chunks
            if (part := _overlap(chunk, (document, start, end))) is not None
        ]
        total += sum(end - start for start, end in wanted)
        found += _union_length(parts)
    return found / (sum(end - start for _, start, end in chunks) + total - found)


# --- from a ranking that was compared already; ``depth`` looks at the first chunks only -------------------------


def precision_of(ranking: Ranking, depth: int | None = None) -> float:
    """Divides by ``depth`` even when fewer chunks were retrieved, as trec_eval does."""
    size = len(ranking.chunks) if depth is None else depth
    return sum(ranking.relevant[:depth]) / size if size else 0.0


def recall_of(ranking: Ranking, depth: int | None = None) -> float:
    """Covered spans ÷ spans."""
    return sum(found is not None and (depth is None or found <= depth) for found in ranking.covered) / len(ranking.gold)


def reciprocal_rank_of(ranking: Ranking) -> float:
    """1 ÷ rank of the first relevant chunk."""
    return next((1 / place for place, hit in enumerate(ranking.relevant, start=1) if hit), 0.0)


def average_precision_of(ranking: Ranking) -> float:
    """Mean over spans of the precision where they became covered."""
    found = (place for place in ranking.covered if place is not None)
    return sum(sum(ranking.relevant[:place]) / place for place in found) / len(ranking.gold)


def ndcg_of(ranking: Ranking, depth: int | None = None) -> float:
    """Discounted grades ÷ ideal ones."""
    gain = math.fsum(
        grade / math.log2(1 + place)
        for place, grade in zip(ranking.covered, ranking.grades, strict=True)
        if place is not None and (depth is None or place <= depth)
    )
    best = sorted(ranking.grades, reverse=True)[:depth]
    ideal = math.fsum(grade / math.log2(1 + place) for place, grade in enumerate(best, start=1))
    return min(gain / ideal, 1.0)


def iou_of(ranking: Ranking) -> float | None:
    """IoU; undefined when a whole document is wanted."""
    return None if any(span[2] == WHOLE for span in ranking.gold) else iou(ranking.chunks, ranking.gold)


RANKINGS = {
    "precision": precision,
    "recall": recall,
    "mrr": reciprocal_rank,
    "map": average_precision,
    "ndcg": ndcg,
    "iou": iou,
}


def _touches(chunk: Span, span: Gold) -> bool:
    return chunk[0] == span[0] and (span[2] == WHOLE or max(chunk[1], span[1]) < min(chunk[2], span[2]))


def _overlap(chunk: Span, span: Gold) -> tuple[int, int] | None:
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
