"""Tuning: which weights of a hybrid search suit an index, measured on an evaluation dataset.

Belongs here: fusing the two lists of each question for every share, choosing one, and saying how sure that is.
Does not belong here: the fusion of a search (resources/search_statements.py), and changing any configuration: what is
recommended is printed, and the user writes it into the index's file.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from assets.evaluation.dataset import read_dataset
from assets.evaluation.metrics.retrieval import Span, ndcg
from assets.experiments.statistics import Interval, mean_intervals
from resources.errors import PermanentError
from resources.fusion import Fusion, resolve_fusion
from resources.platform import Platform
from resources.vector_index import VectorIndex

if TYPE_CHECKING:
    import numpy as np

#: Shares of the vector list that are tried; 0 is full text alone, 1 vectors alone.
SHARES = tuple(round(0.05 * step, 2) for step in range(21))
DEPTH = 10
#: A share is only recommended on at least so many questions.
LEAST_QUESTIONS = 30
CONFIDENCE, RESAMPLES, SEED = 0.95, 10_000, 7


@dataclass(frozen=True)
class Lists:
    """What both searches found for one question, in a stable order.

    Attributes:
        spans: of the chunks in either list.
        vector: similarity of each, as the weighted fusion takes it; ``text``: BM25 ÷ the most the question could give.
        gold: evidence spans.
    """

    question_id: str
    spans: tuple[Span, ...]
    vector: tuple[float, ...]
    text: tuple[float, ...]
    gold: tuple[Span, ...]

    def score(self, share: float) -> float:
        """nDCG@10 of the fusion with this share of the vector list."""
        order = sorted(
            range(len(self.spans)),
            key=lambda number: (-round(share * self.vector[number] + (1 - share) * self.text[number], 9), number),
        )
        return ndcg([self.spans[number] for number in order[:DEPTH]], self.gold, DEPTH)


@dataclass(frozen=True)
class Tuning:
    """What was found; nothing was changed.

    Attributes:
        share: recommended weight of the vector list; the text list gets what is left to 1.
        scores: nDCG@10 by share.
        recommended, current: nDCG@10 with its confidence interval; current: with the weights in force.
        best_part: the better of ``vector`` and ``full_text`` alone.
        over_best_part: recommended - best part, paired by question.
        held_out: the same difference when the share is chosen on one half of the questions and measured on the other,
            both ways: what to expect on questions that were not tuned on.
    """

    index: str
    snapshot: int
    dataset: str
    split: str
    questions: int
    share: float
    scores: dict[float, float]
    recommended: Interval
    current_share: float | None
    current: Interval
    best_part: str
    best_part_score: Interval
    over_best_part: Interval
    held_out: Interval

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "index": self.index,
            "snapshot": self.snapshot,
            "dataset": self.dataset,
            "split": self.split,
            "questions": self.questions,
            "recommended": {"vector_weight": self.share, "text_weight": round(1 - self.share, 2)},
            "ndcg@10": self.recommended.to_json(),
            "in_force": {"vector_weight": self.current_share, "ndcg@10": self.current.to_json()},
            "best_part": {"mode": self.best_part, "ndcg@10": self.best_part_score.to_json()},
            "over_best_part": self.over_best_part.to_json(),
            "over_best_part_held_out": self.held_out.to_json(),
            "ndcg@10_by_vector_weight": {f"{share:.2f}": score for share, score in self.scores.items()},
        }


def tune_fusion(
    platform: Platform, index: str, dataset: str, split: Literal["train", "dev"] = "dev", *, snapshot: int | None = None
) -> Tuning:
    """Recommend the weights of a hybrid search; each question is searched once.

    Args:
        split: ``train`` or ``dev``; the test split stays held back for experiments.

    Raises:
        PermanentError: another split, no such dataset, or fewer than ``LEAST_QUESTIONS`` answerable questions in it.
        SnapshotNotFoundError: nothing is published.
    """
    if split not in ("train", "dev"):
        raise PermanentError(f"weights are tuned on the train or dev split, not on {split}: it is held back")
    config = platform.config
    with platform.database.connect() as connection:
        read = read_dataset(connection, dataset)
    questions = [question for question in read.split(split) if question.answerable and question.gold]
    if len(questions) < LEAST_QUESTIONS:
        raise PermanentError(
            f"dataset {dataset!r} has {len(questions)} answerable questions in split {split}; "
            f"tuning needs at least {LEAST_QUESTIONS}"
        )
    searcher = VectorIndex(platform.database, config, platform.models)
    depth = max(config.indexes[index].retrieval.candidates, 5 * DEPTH)
    found = searcher.search_many(
        index,
        [question.question for question in questions],
        mode="hybrid",
        k=2 * depth,
        snapshot=snapshot,
        fusion=Fusion("weighted", 0.5, 0.5),
        depth=depth,
    )
    distance = config.indexes[index].distance
    lists = []
    for question, result in zip(questions, found, strict=True):
        hits = sorted(result.hits, key=lambda hit: (hit.chunk_hash, hit.source, hit.path, hit.ordinal))
        vector = [_bounded(hit.vector_score, distance) for hit in hits]
        lists.append(
            Lists(
                question.question_id,
                tuple((hit.document_id, hit.start, hit.end) for hit in hits),
                tuple(vector),
                tuple(2 * hit.score - similarity for hit, similarity in zip(hits, vector, strict=True)),
                tuple((span.document_id, span.start, span.end) for span in question.gold),
            )
        )
    settings = config.indexes[index]
    fusion = resolve_fusion(settings.retrieval.fusion, lexical=platform.models.embedder(settings.embedder).offline)
    current = fusion.vector_weight if fusion.method == "weighted" else None
    return judge(index, found[0].snapshot, dataset, split, lists, current)


def _bounded(score: float | None, distance: str) -> float:
    """A vector score as the weighted fusion takes it."""
    if score is None:
        return 0.0
    return 1 / (1 - score) if distance == "l2" else score


def judge(index: str, snapshot: int, dataset: str, split: str, lists: Sequence[Lists], current: float | None) -> Tuning:
    """Choose a share on lists that were found, and measure it.

    Args:
        current: share in force, None when the search fuses by ranks; it is then measured as the recommended one.
    """
    import numpy as np

    shares: list[float] = sorted({*SHARES, *([] if current is None else [current])})
    table = np.array([[one.score(share) for share in shares] for one in lists])
    tried = [number for number, share in enumerate(shares) if share in SHARES]
    chosen = choose(table, shares, tried)
    text, vector = shares.index(0.0), shares.index(1.0)
    part = text if table[:, text].mean() >= table[:, vector].mean() else vector
    now = shares.index(current) if current is not None else chosen
    halves = np.array([_half(one.question_id) for one in lists])
    held_out = np.zeros(len(lists))
    for half in (0, 1):
        here = halves == half
        if here.all() or not here.any():
            continue
        other = table[~here]
        best = choose(other, shares, tried)
        best_part = text if other[:, text].mean() >= other[:, vector].mean() else vector
        held_out[here] = table[here, best] - table[here, best_part]
    columns = [table[:, chosen], table[:, now], table[:, part], table[:, chosen] - table[:, part], held_out]
    intervals = mean_intervals(np.stack(columns, axis=1), confidence=CONFIDENCE, resamples=RESAMPLES, seed=SEED)
    return Tuning(
        index=index,
        snapshot=snapshot,
        dataset=dataset,
        split=split,
        questions=len(lists),
        share=shares[chosen],
        scores={shares[number]: float(table[:, number].mean()) for number in tried},
        recommended=intervals[0],
        current_share=current,
        current=intervals[1],
        best_part="full_text" if part == text else "vector",
        best_part_score=intervals[2],
        over_best_part=intervals[3],
        held_out=intervals[4],
    )


def choose(table: "np.ndarray", shares: Sequence[float], tried: Sequence[int]) -> int:
    """Position of the share to recommend: the middle of the run around the best whose means are as good.

    As good: within a quarter of the standard error of the difference from the best. The optimum is flat, and the middle
    of it generalises better than its edge.
    """
    import numpy as np

    means = table.mean(axis=0)
    best = max(tried, key=lambda number: (means[number], -number))
    errors = (table - table[:, [best]]).std(axis=0) / np.sqrt(len(table))
    good = {number for number in tried if means[best] - means[number] <= errors[number] / 4 + 1e-12}
    at = tried.index(best)
    low = high = at
    while low > 0 and tried[low - 1] in good:
        low -= 1
    while high < len(tried) - 1 and tried[high + 1] in good:
        high += 1
    return tried[(low + high) // 2]


def _half(question_id: str) -> int:
    return hashlib.blake2b(question_id.encode(), digest_size=1).digest()[0] % 2


def describe(tuning: Tuning) -> str:
    """The finding in words."""

    def shown(interval: Interval) -> str:
        return f"{interval.estimate:.4f} [{interval.low:.4f}, {interval.high:.4f}]"

    lines = [
        f"{tuning.index}, snapshot {tuning.snapshot}; {tuning.questions} answerable questions of {tuning.dataset}/"
        f"{tuning.split}; nDCG@{DEPTH} with {CONFIDENCE:.0%} intervals",
        f"  recommended  vector_weight {tuning.share:.2f}, text_weight {1 - tuning.share:.2f}   {shown(tuning.recommended)}",
        f"  in force     {'by ranks' if tuning.current_share is None else f'vector_weight {tuning.current_share:.2f}'}"
        + ("" if tuning.current_share is None else f"   {shown(tuning.current)}"),
        f"  best part    {tuning.best_part} alone   {shown(tuning.best_part_score)}",
        f"  recommended - best part   {shown(tuning.over_best_part)}; on questions not tuned on {shown(tuning.held_out)}",
        "  by vector_weight: " + "  ".join(f"{share:.2f} {score:.4f}" for share, score in tuning.scores.items()),
    ]
    if tuning.held_out.low <= 0:
        lines.append(
            "  The gain over the best part is not proven on questions that were not tuned on; more questions would tell."
        )
    lines.append(
        f"Nothing was changed. To use it, write into data/indexes/{tuning.index}.yaml:\n"
        f"retrieval:\n  fusion: {{method: weighted, vector_weight: {tuning.share:.2f}, text_weight: {1 - tuning.share:.2f}}}"
    )
    return "\n".join(lines)
