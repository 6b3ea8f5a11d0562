"""Records of trials: what is on record about one, and how metrics see it.

Belongs here: reading table ``trial``. Does not belong here: writing it (trials.py), scoring (scores.py).
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from assets.evaluation.dataset import Question
from assets.evaluation.metrics.base import TrialRecord
from assets.experiments.planning import Plan, Trial
from assets.experiments.retrievals import read_range
from resources.answerer import Citation, strip_citations
from resources.postgres import Database
from resources.vector_index import SearchHit


@dataclass(frozen=True)
class TrialOutcome:
    """What is on record about a trial, beside its question and what it retrieved (see ``Trial``).

    Attributes:
        usage: {requests, input_tokens, output_tokens, cost, currency} of the call that produced the answer, also when
            the memo had it; empty for a failed trial.
        supplied: of the hits what the prompt held, as (number of the hit from 1, start, end in its document); None when
            it held all that was found.
        latency: seconds from question to answer: retrieval, and the model call that was really made once.
    """

    status: str
    error: str | None
    tries: int
    answer: str
    refused: bool
    citations: tuple[Citation, ...]
    usage: Mapping[str, Any]
    latency: float | None
    generation: str | None
    supplied: tuple[tuple[int, int, int], ...] | None = None

    @property
    def failed(self) -> bool:
        """Whether the trial ended without an answer."""
        return self.status == "failed"


def read_outcomes(database: Database, plan: Plan) -> dict[str, TrialOutcome]:
    """The records of the plan's trials by fingerprint; a trial that was never run is missing."""
    with database.connect() as connection:
        rows = connection.execute(
            """SELECT fingerprint, status, error, tries, answer, refused, citations, usage,
                      retrieval_latency + generation_latency, generation, supplied -> 'passages'
               FROM trial WHERE fingerprint = ANY(%s)""",
            (sorted({trial.fingerprint for trial in plan.trials}),),
        ).fetchall()
    return {
        key: TrialOutcome(
            status=status,
            error=error,
            tries=tries,
            answer=answer or "",
            refused=bool(refused),
            citations=tuple(Citation(**citation) for citation in citations),
            usage=usage,
            latency=latency,
            generation=generation,
            supplied=supplied_ranges(passages),
        )
        for key, status, error, tries, answer, refused, citations, usage, latency, generation, passages in rows
    }


def supplied_ranges(passages: Sequence[Sequence[int]] | None) -> tuple[tuple[int, int, int], ...] | None:
    """``TrialOutcome.supplied`` from the column of that name."""
    return None if passages is None else tuple((number, start, end) for number, start, end in passages)


def to_record(trial: Trial, outcome: TrialOutcome) -> TrialRecord:
    """The trial as metrics see it."""
    return record_of(trial.question, trial.result.hits, outcome)


def record_of(question: Question, hits: Sequence[SearchHit], outcome: TrialOutcome) -> TrialRecord:
    """A trial as metrics see it, from what is on record about it."""
    return TrialRecord(
        question_id=question.question_id,
        question=question.question,
        answerable=question.answerable,
        reference=question.answer,
        references=question.references,
        gold=question.gold,
        hits=tuple(_as_read(hit) for hit in hits),
        answer=strip_citations(outcome.answer),
        refused=outcome.refused,
        citations=outcome.citations,
        failed=outcome.failed,
        supplied=None if outcome.supplied is None else _supplied(hits, outcome.supplied),
    )


def _supplied(hits: Sequence[SearchHit], ranges: Sequence[tuple[int, int, int]]) -> tuple[SearchHit, ...]:
    """The hits as the prompt held them, with the text that was left of each."""
    by_number: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for number, start, end in ranges:
        by_number[number].append((start, end))
    found = []
    for number, parts in by_number.items():
        hit = hits[number - 1]
        base, _ = read_range(hit)
        text = " ".join(hit.text[start - base : end - base] for start, end in parts)
        found.append(replace(hit, start=parts[0][0], end=parts[-1][1], text=text))
    return tuple(found)


def _as_read(hit: SearchHit) -> SearchHit:
    """The hit with the range of what was read of it, as metrics judge it; a citation keeps the chunk's own."""
    start, end = read_range(hit)
    return hit if (start, end) == (hit.start, hit.end) else replace(hit, start=start, end=end)
