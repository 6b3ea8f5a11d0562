"""Refusal metrics as metrics: their ids, definitions and inputs.

Belongs here: what they are called and which trials they apply to. Does not belong here: formulas (refusals.py).
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from assets.evaluation.metrics import refusals
from assets.evaluation.metrics.records import Aggregation, Group, MetricDefinition, Part, TrialRecord

LOOKS_AT: frozenset[Part] = frozenset({"question", "refusal"})

_FAILED = " A failed trial counts as an error."
_DESCRIBED: tuple[tuple[str, str, str, str, Aggregation], ...] = (
    (
        "refusal_accuracy", "Refusal accuracy",
        "1 if an unanswerable question was refused or an answerable one was answered, else 0.", "all questions", "mean",
    ),
    (
        "refusal_precision", "Refusal precision",
        "Of the refusals, the share that was right: 1 if the question is unanswerable, else 0.", "refused trials", "mean",
    ),
    (
        "refusal_recall", "Refusal recall", "Of the unanswerable questions, the share that was refused.",
        "unanswerable questions", "mean",
    ),
    (
        "refusal_f1", "Refusal F1",
        "F1 of refusing the unanswerable. Per trial: 1 for a right refusal, 0 for a wrong or a missing one, undefined for "
        "an answered answerable question; over trials 2·right ÷ (2·right + wrong + missing), which is no mean.",
        "refused trials and unanswerable questions", "f1",
    ),
)  # fmt: skip


def _row(record: TrialRecord) -> dict[str, Any]:
    wrong = record.answerable  # a failed trial counts as the wrong one of refusing and answering
    return {"predictions": wrong if record.failed else record.refused, "references": not record.answerable}


def _features(datasets: Any) -> dict[str, Any]:
    return {"predictions": datasets.Value("bool"), "references": datasets.Value("bool")}


def _prepare(predictions: bool, references: bool) -> tuple[bool, bool]:
    return bool(predictions), bool(references)


def _of_pair(function: Callable[[bool, bool], float | None], prepared: tuple[bool, bool]) -> float | None:
    return function(*prepared)


GROUPS = (
    Group(
        definitions=tuple(
            MetricDefinition(f"genaiops.{name}/1", title, text + _FAILED, applies_to, LOOKS_AT, aggregation=aggregation)
            for name, title, text, applies_to, aggregation in _DESCRIBED
        ),
        row=_row,
        features=_features,
        prepare=_prepare,
        formulas={f"genaiops.{name}/1": partial(_of_pair, function) for name, function in refusals.REFUSALS.items()},
        failed_row=True,
    ),
)
