"""Trials for the metric tests."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from assets.evaluation.metrics.base import GoldSpan, TrialRecord


@dataclass(frozen=True)
class Hit:
    """A retrieved chunk as far as metrics look at it."""

    document_id: int
    start: int
    end: int
    text: str = ""
    title: str = ""
    heading_path: tuple[str, ...] = ()


def hits(*spans: tuple[int, int, int]) -> tuple[Hit, ...]:
    return tuple(Hit(*span) for span in spans)


def record(
    answer: str = "",
    reference: str | None = None,
    *,
    gold: Sequence[tuple[int, int, int]] = ((1, 0, 10),),
    retrieved: Sequence[Hit] = (),
    **further: Any,
) -> TrialRecord:
    """An answerable trial if ``reference`` is given, else an unanswerable one."""
    values: dict[str, Any] = {
        "question_id": "q",
        "question": "Q?",
        "answerable": reference is not None,
        "reference": reference,
        "gold": tuple(GoldSpan(*span) for span in gold) if reference is not None else (),
        "hits": tuple(retrieved),
        "answer": answer,
        "refused": False,
        **further,
    }
    return TrialRecord(**values)
