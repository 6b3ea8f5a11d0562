"""The leaderboard: every variant with its scores, their uncertainty, and what they cost.

Belongs here: averaging scores over questions, and comparing each variant with the champion.
Does not belong here: formulas of intervals and tests (statistics.py), what to do about it (recommendation.py), how it
looks (report.py).

Answerable and unanswerable questions are averaged apart, because a good value means opposite things on them; only the
decision metric, which is defined for both, is averaged over all. Undefined values are counted, never averaged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from assets.evaluation.metrics.base import METRICS, aggregate
from assets.experiments.scores import Scores
from assets.experiments.statistics import f1_intervals, holm, mean_intervals, sign_flip_p_values
from assets.experiments.trials import Plan, Scope, TrialOutcome
from resources.answerer import Variant
from resources.errors import PermanentError
from resources.experiment_config import ExperimentConfig
from resources.models import Models

if TYPE_CHECKING:
    import numpy as np

CODE_VERSION = "1"

RECALL = "genaiops.recall/2"
GROUNDEDNESS = "genaiops.groundedness_lexical/1"
TOKEN_F1 = "squad.f1/1"
SIMILARITY = "sacrebleu.chrf/1"
#: What a reader sees first; the leaderboard holds all metrics.
HEADLINE = (
    "genaiops.answer_quality/1",
    RECALL,
    "genaiops.ndcg/2",
    "squad.exact_match/1",
    TOKEN_F1,
    "rouge.rougeL/1",
    SIMILARITY,
    "nltk.meteor_exact_stem/1",
    GROUNDEDNESS,
)
_DECIDING = {"all questions", "answerable questions", "answerable questions with a reference answer"}

Leaderboard = dict[str, Any]
Row = dict[str, Any]


def check_decision_metric(experiment: ExperimentConfig) -> None:
    """Refuse a decision metric that cannot be compared question by question.

    Raises:
        PermanentError: it is unknown, no mean over questions, or defined for some variants only (such as
            groundedness, which a refusal does not have); the message lists what is allowed.
    """
    allowed = [
        key for key, metric in METRICS.items() if metric.aggregation == "mean" and metric.applies_to in _DECIDING
    ]
    if experiment.decision_metric not in allowed:
        name = experiment.decision_metric.rpartition("/")[0]
        newer = [key for key in allowed if name and key.rpartition("/")[0] == name]
        hint = f"; its definition was changed, so that it is called {newer[-1]} now" if newer else ""
        raise PermanentError(
            f"experiment {experiment.name}: decision_metric {experiment.decision_metric!r} is not a metric that every "
            f"variant has on the same questions{hint}; allowed: {', '.join(allowed)}"
        )


@dataclass(frozen=True)
class Measured:
    """One variant with its records, in the order of the scope's questions."""

    variant: Variant
    outcomes: tuple[TrialOutcome, ...]
    values: tuple[Mapping[str, float | None], ...]
    retrieved: tuple[int, ...]  # number of hits per question


def measure(
    variants: Sequence[Variant], scope: Scope, plan: Plan, outcomes: Mapping[str, TrialOutcome], scores: Scores
) -> list[Measured]:
    """Arrange records by variant and question. Every trial of the plan must be on record."""
    width = len(scope.questions)
    return [
        Measured(
            variant=variant,
            outcomes=tuple(outcomes[trial.fingerprint] for trial in trials),
            values=tuple(scores.values[trial.fingerprint] for trial in trials),
            retrieved=tuple(len(trial.result.hits) for trial in trials),
        )
        for position, variant in enumerate(variants)
        if (trials := plan.trials[position * width : (position + 1) * width])
    ]


def decision_scores(measured: Sequence[Measured], metric: str) -> np.ndarray:
    """Scores of the decision metric, shape (questions, variants), for the questions it applies to.

    Raises:
        ValueError: it is undefined for some variants on a question and defined for others.
    """

    import numpy as np

    columns = [[values[metric] for values in one.values] for one in measured]
    kept = [row for row in zip(*columns, strict=True) if any(value is not None for value in row)]
    if any(value is None for row in kept for value in row):
        raise ValueError(f"{metric} is undefined for some variants on a question that others have a value for")
    return np.array(kept, dtype=float).reshape(len(kept), len(columns))


def build(
    experiment: ExperimentConfig,
    scope: Scope,
    measured: Sequence[Measured],
    *,
    champion: str,
    prompt_versions: Mapping[str, int],
    models: Models,
) -> Leaderboard:
    """Compare all variants with the champion.

    Args:
        champion: name of the variant the others are compared with; one of ``measured``.

    Returns:
        A JSON-able leaderboard: facts common to all rows, and ``rows`` sorted best first. The difference to the
        champion has the bootstrap interval of paired differences, a sign-flip p-value, and Holm's adjustment over all
        comparisons made here.
    """

    import numpy as np

    metric, confidence = experiment.decision_metric, experiment.confidence
    settings: dict[str, Any] = {"resamples": experiment.resamples, "seed": experiment.seed}
    scores, costs = decision_scores(measured, metric), [_costs(one) for one in measured]
    order = sorted(range(len(measured)), key=lambda at: _rank(scores[:, at], costs[at], measured[at].variant.name))
    measured, costs, scores = [measured[at] for at in order], [costs[at] for at in order], scores[:, order]
    reference = [one.variant.name for one in measured].index(champion)
    differences = scores - scores[:, [reference]]
    means = mean_intervals(scores, confidence=confidence, **settings)
    gaps = mean_intervals(differences, confidence=confidence, **settings)
    p_values = sign_flip_p_values(differences, **settings)
    p_against_best = sign_flip_p_values(scores - scores[:, [0]], **settings)
    others = [position for position in range(len(measured)) if position != reference]
    adjusted = dict(zip(others, holm([p_values[position] for position in others]), strict=True))
    unanswerable = [not question.answerable for question in scope.questions]
    refused = np.array([_refused(one, unanswerable) for one in measured]).T
    refusals = f1_intervals(refused, unanswerable, confidence=confidence, **settings)
    rows = []
    for position, one in enumerate(measured):
        compared = position != reference
        rows.append(
            {
                **_describe(one.variant, scope, prompt_versions, models),
                "champion": not compared,
                "n": len(one.outcomes),
                "failed": sum(outcome.failed for outcome in one.outcomes),
                "decision": means[position].to_json(),
                "difference": gaps[position].to_json() if compared else None,
                "difference_deviation": float(np.std(differences[:, position], ddof=1)) if len(scores) > 1 else 0.0,
                "p": p_values[position] if compared else None,
                "p_adjusted": adjusted.get(position),
                "p_against_best": p_against_best[position],
                "metrics": _averages(one, unanswerable),
                "refusal": vars(refusals[position]),
                "utilization": _utilization(one, unanswerable),
                **costs[position],
            }
        )
    return {
        "experiment": experiment.name,
        "dataset": scope.dataset,
        "dataset_version": scope.version,
        "split": scope.split,
        "snapshots": dict(scope.snapshots),
        "questions": {
            "answerable": unanswerable.count(False),
            "unanswerable": unanswerable.count(True),
            "compared": len(scores),
            "stale": len(scope.stale),
        },
        "decision_metric": experiment.decision_metric,
        "confidence": experiment.confidence,
        "resamples": experiment.resamples,
        "seed": experiment.seed,
        "comparisons": len(others),
        "champion": champion,
        "rows": rows,
    }


def _rank(scores: np.ndarray, costs: Row, name: str) -> tuple[float, float, int, str]:
    """Best mean first; of equal means the cheaper, then the shorter, then by name, so that the order never wavers."""
    return (
        -round(float(scores.mean()), 12),
        costs["cost"],
        costs["input_tokens"] + costs["output_tokens"],
        name,
    )


def _describe(variant: Variant, scope: Scope, prompt_versions: Mapping[str, int], models: Models) -> Row:
    offline = models.chat(variant.model).offline
    return {
        "variant": variant.name,
        "fingerprint": variant.fingerprint,
        "index": variant.index,
        "snapshot": scope.snapshots[variant.index],
        "prompt": variant.prompt.name,
        "prompt_version": prompt_versions[variant.prompt.name],
        "search_mode": variant.search_mode,
        "k": variant.k,
        "model": variant.model,
        "offline": offline,
        "label": f"{variant.model} (offline stand-in)" if offline else variant.model,
    }


def _averages(one: Measured, unanswerable: Sequence[bool]) -> dict[str, dict[str, float | int | None]]:
    result: dict[str, dict[str, float | int | None]] = {}
    for metric in METRICS:
        halves: dict[str, float | int | None] = {}
        for half, wanted in (("answerable", False), ("unanswerable", True)):
            values = [
                row[metric] for row, no_answer in zip(one.values, unanswerable, strict=True) if no_answer is wanted
            ]
            halves[half] = aggregate(metric, values)
            halves[f"{half}_defined"] = sum(value is not None for value in values)
        result[metric] = halves
    return result


def _refused(one: Measured, unanswerable: Sequence[bool]) -> list[bool]:
    """Which questions were refused; a failed trial counts as whichever of refusing and answering is wrong."""
    return [
        (not no_answer) if outcome.failed else outcome.refused
        for outcome, no_answer in zip(one.outcomes, unanswerable, strict=True)
    ]


def _utilization(one: Measured, unanswerable: Sequence[bool]) -> float | None:
    """Mean share of the supplied chunks that the answer cites, over answered answerable questions.

    An estimate without a judge: a chunk counts as used when it is cited.
    """
    shares = [
        len({citation.number for citation in outcome.citations}) / hits
        for outcome, hits, no_answer in zip(one.outcomes, one.retrieved, unanswerable, strict=True)
        if hits and not no_answer and not outcome.refused and not outcome.failed
    ]
    return sum(shares) / len(shares) if shares else None


def _costs(one: Measured) -> Row:
    usages = [outcome.usage for outcome in one.outcomes]
    latencies = [outcome.latency for outcome in one.outcomes if outcome.latency is not None]
    return {
        "input_tokens": sum(usage.get("input_tokens", 0) for usage in usages),
        "output_tokens": sum(usage.get("output_tokens", 0) for usage in usages),
        "cost": sum(usage.get("cost", 0.0) for usage in usages),
        "currency": next((usage["currency"] for usage in usages if usage.get("cost")), "USD"),
        "latency_median": median(latencies) if latencies else None,
    }
