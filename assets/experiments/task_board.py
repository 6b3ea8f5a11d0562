"""The task's part of a leaderboard: whole-set metrics with bootstrap intervals, unreadable answers, confusions.

Belongs here: what a row says beside means when a dataset asks for labels, fields, summaries or translations, and which metrics
are shown first. Does not belong here: the metrics (assets/evaluation/metrics/whole_set.py), comparing variants (leaderboard.py).

None of this decides: the comparison with the champion is on the decision metric, input by input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from assets.evaluation.dataset import Question
from assets.evaluation.metrics import whole_set
from assets.experiments.statistics import Groups, resampled_sums

if TYPE_CHECKING:
    from assets.experiments.records import TrialOutcome

#: Resamples of a metric that is computed one by one.
COSTLY_RESAMPLES = 1000
#: What a reader sees first, by task.
HEADLINES: dict[str, tuple[str, ...]] = {
    "classification": ("sklearn.accuracy/1", "sklearn.log_loss/1", "genaiops.readable/1"),
    "extraction": ("genaiops.extraction_f1/1", "genaiops.extraction_exact/1", "genaiops.readable/1"),
    "summarization": (
        "rouge.rougeL/1", "rouge.rouge1/1", "rouge.rouge2/1", "sacrebleu.chrf/1", "nltk.meteor_exact_stem/1",
        "genaiops.length_ratio/1", "genaiops.kept_share/1", "genaiops.copied_share/1",
    ),
    "translation": (
        "sacrebleu.chrf/1", "sacrebleu.bleu/1", "nltk.meteor_exact_stem/1", "squad.f1/1", "genaiops.length_ratio/1",
        "genaiops.copied_share/1",
    ),
}  # fmt: skip


def task_of(questions: Sequence[Question]) -> dict[str, Any] | None:
    """The task of the questions as a leaderboard holds it; None for those about documents."""
    task = questions[0].task if questions else None
    return None if task is None else task.model_dump(mode="json")


def describe(
    questions: Sequence[Question],
    outcomes: Sequence[TrialOutcome],
    *,
    confidence: float,
    resamples: int,
    seed: int,
    groups: Groups = None,
) -> dict[str, Any]:
    """What a row says of a task: ``{"whole_set": {id: {title, definition, estimate, low, high}}, "unreadable": n}``.

    Intervals are percentiles of bootstrap resamples of the inputs (of their groups, where they are in some). Of a
    classification there is also ``confusions``. Empty for questions about documents.
    """
    task = questions[0].task if questions else None
    if task is None:
        return {}
    answered = [
        whole_set.Answered("" if outcome.failed else outcome.answer, question.references)
        for question, outcome in zip(questions, outcomes, strict=True)
    ]
    found: dict[str, Any] = {}
    for part in whole_set.contributions(task, answered):
        drawn: dict[int, Any] = {}
        total = part.rows.sum(axis=0, keepdims=True)
        for metric in part.metrics:
            times = min(resamples, COSTLY_RESAMPLES) if metric.costly else resamples
            if times not in drawn:
                drawn[times] = resampled_sums(part.rows, resamples=times, seed=seed, groups=groups)
            estimate = float(metric.value(total)[0])
            found[metric.id] = {
                "title": metric.title,
                "definition": metric.definition,
                **_interval(estimate, metric.value(drawn[times]), confidence),
            }
    described = {"whole_set": found, "unreadable": whole_set.unreadable(task, answered)}
    if task.kind == "classification":
        described["confusions"] = whole_set.confusions(task, answered)
    return described


def _interval(estimate: float, values: Any, confidence: float) -> dict[str, float | None]:
    """Undefined resamples are left out; without an estimate there is no interval."""
    import numpy as np

    defined = values[~np.isnan(values)]
    if np.isnan(estimate) or not len(defined):
        return {"estimate": None, "low": None, "high": None}
    tail = (1 - confidence) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return {"estimate": estimate, "low": float(low), "high": float(high)}


def headline(board: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The metrics a reader of this leaderboard sees first; None for one about documents."""
    task = board.get("task")
    return HEADLINES[task["kind"]] if task else None


def noun(board: Mapping[str, Any]) -> str:
    """What the questions of a leaderboard are called."""
    return "inputs" if board.get("task") else "questions"
