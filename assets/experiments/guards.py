"""Guards: what a variant must be shown to keep, beside the decision metric.

Belongs here: judging each guard of an experiment for each variant. Does not belong here: the tests (statistics.py), and
what a broken guard means for a recommendation (recommendation.py).

A guard is ``held`` when the data show that its condition is met, ``broken`` when they show that it is not, and ``open`` when
there are too few questions to show either. Only held guards let a variant through, so a guard needs no adjustment for the
number of guards: a variant passes wrongly only if every single test errs.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Literal

from assets.evaluation.dataset import Question
from assets.experiments.slices import MINIMUM_QUESTIONS, groups_of, tag_values
from assets.experiments.statistics import exceeds
from resources.experiment_config import ExperimentConfig, Guard

State = Literal["held", "open", "broken"]
Values = Sequence[Mapping[str, float | None]]


def judge(
    experiment: ExperimentConfig, questions: Sequence[Question], values: Values, champion: Values
) -> list[dict[str, Any]]:
    """Judge all guards of an experiment for one variant.

    Args:
        values: {metric: value or None} of each question, the variant's; ``champion`` likewise.

    Returns:
        JSON-able, one entry a condition: ``metric``, ``tag``, ``kind`` (``minimum`` or ``maximum_drop``), ``bound``, ``estimate``
        (mean, or difference to the champion; None without a question), ``low`` (its lower confidence bound),
        ``questions`` (with a value) and ``state``.
    """
    found = []
    for guard in experiment.guards:
        asked = [at for at, question in enumerate(questions) if _concerns(guard, question)]
        if guard.minimum is not None:
            column = [(at, value) for at in asked if (value := values[at].get(guard.metric)) is not None]
            found.append(_judged(experiment, questions, guard, "minimum", guard.minimum, column, worst=0.0))
        if guard.maximum_drop is not None:
            column = [
                (at, value - other)
                for at in asked
                if (value := values[at].get(guard.metric)) is not None
                and (other := champion[at].get(guard.metric)) is not None
            ]
            found.append(_judged(experiment, questions, guard, "maximum_drop", -guard.maximum_drop, column, worst=-1.0))
    return found


def held(guards: Sequence[Mapping[str, Any]]) -> bool:
    """Whether every guard is shown to be met."""
    return all(guard["state"] == "held" for guard in guards)


def describe(guard: Mapping[str, Any]) -> str:
    """A guard with its finding in words."""
    where = f" on {guard['tag']}" if guard["tag"] else ""
    limit = (
        f"above {guard['bound']:g}" if guard["kind"] == "minimum" else f"at most {-guard['bound']:g} below the champion"
    )
    if guard["estimate"] is None:
        return f"{guard['metric']}{where} must be {limit}: {guard['questions']} questions, too few to say"
    sign = "" if guard["kind"] == "minimum" else "+"
    return (
        f"{guard['metric']}{where} must be {limit}: {guard['state']}, {guard['estimate']:{sign}.3f} "
        f"(lower bound {guard['low']:{sign}.3f}) on {guard['questions']} questions"
    )


def _concerns(guard: Guard, question: Question) -> bool:
    if guard.tag is None:
        return True
    key, _, value = guard.tag.partition("=")
    return value in tag_values(question, key)


def _judged(
    experiment: ExperimentConfig,
    questions: Sequence[Question],
    guard: Guard,
    kind: str,
    bound: float,
    column: Sequence[tuple[int, float]],
    *,
    worst: float,
) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "metric": guard.metric, "tag": guard.tag, "kind": kind, "bound": bound, "estimate": None, "low": None,
        "questions": len(column), "state": "open",
    }  # fmt: skip
    if len(column) < MINIMUM_QUESTIONS:
        return entry
    alpha = 1 - experiment.confidence
    groups: list[Hashable] | None = groups_of([questions[at] for at, _ in column], experiment.cluster)
    values = [[value] for _, value in column]
    above = exceeds(values, bound, worst=worst, alpha=alpha, groups=groups)[0]
    below = exceeds([[-value] for [value] in values], -bound, worst=-1.0, alpha=alpha, groups=groups)[0]
    state: State = "held" if above.p < alpha else "broken" if below.p < alpha else "open"
    return entry | {"estimate": sum(value for _, value in column) / len(column), "low": above.low, "state": state}
