"""The leaderboard: every variant with its scores, their uncertainty, and what they cost.

Belongs here: averaging scores over questions, and comparing each variant with the champion.
Does not belong here: formulas of intervals and tests (statistics.py), what to do about it (recommendation.py), how it
looks (report.py).

Answerable and unanswerable questions are averaged apart, because a good value means opposite things on them; only the
decision metric, which is defined for both, is averaged over all. Undefined values are counted, never averaged.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from assets.evaluation.judging.judged_metrics import is_judged
from assets.evaluation.metrics import task_metrics
from assets.evaluation.metrics.base import METRICS, MetricDefinition, aggregate
from assets.evaluation.metrics.catalogue import metrics_of
from assets.experiments import guards, pareto, slices, task_board
from assets.experiments.planning import Plan
from assets.experiments.records import TrialOutcome
from assets.experiments.scope import Scope
from assets.experiments.scores import Scores
from assets.experiments.statistics import (
    Groups,
    deviations,
    equivalence,
    f1_intervals,
    holm,
    mean_intervals,
    non_inferiority,
    sign_flip_p_values,
)
from resources.answerer import Variant
from resources.config import ProjectConfig
from resources.errors import PermanentError
from resources.experiment_config import ExperimentConfig
from resources.models import Models

if TYPE_CHECKING:
    import numpy as np

CODE_VERSION = "2"
#: Of the JSON; without the key it is that of version 1, which readers bring to this one (``upgraded``).
SCHEMA = 2


def _newest(name: str) -> str:
    """The metric of that name as it is defined now; empty when the catalogue has none."""
    versions = [int(key.rpartition("/")[2]) for key in METRICS if key.rpartition("/")[0] == name]
    return f"{name}/{max(versions)}" if versions else ""


RECALL = _newest("genaiops.recall")
PRECISION = _newest("genaiops.precision")
COMPLETENESS = _newest("msft.completeness_lexical") or RECALL
UTILIZATION = _newest("msft.utilization_lexical")
GROUNDEDNESS = _newest("genaiops.groundedness_lexical")
TOKEN_F1 = _newest("squad.f1")
CORRECTNESS = _newest("genaiops.correctness_lexical") or TOKEN_F1
SIMILARITY = _newest("sacrebleu.chrf")
#: What a reader sees first; the leaderboard holds all metrics.
HEADLINE = (
    _newest("genaiops.answer_quality"),
    RECALL,
    _newest("genaiops.ndcg"),
    _newest("squad.exact_match"),
    TOKEN_F1,
    _newest("rouge.rougeL"),
    SIMILARITY,
    _newest("nltk.meteor_exact_stem"),
    GROUNDEDNESS,
)
_DECIDING = {
    "all questions",
    "questions whose right answer is known",
    "answerable questions",
    "answerable questions with evidence passages",
    "answerable questions with a reference answer",
    task_metrics.CLASSIFIED,
    task_metrics.EXTRACTED,
    task_metrics.READ,
}

Leaderboard = dict[str, Any]
Row = dict[str, Any]


def check_decision_metric(
    experiment: ExperimentConfig, task: str = "rag", metrics: Mapping[str, MetricDefinition] = METRICS
) -> None:
    """Refuse a decision metric that cannot be compared question by question, and guards that cannot be tested.

    Args:
        task: of the dataset; what is defined for other tasks only is refused.
        metrics: the built-in ones and those of the experiment's judges.

    Raises:
        PermanentError: it is unknown, no mean over questions, or defined for some variants only (such as
            groundedness, which a refusal does not have), or a guard names a metric that is unknown, no mean, or not
            between 0 (bad) and 1 (good); the message lists what is allowed.
    """
    allowed = [
        key
        for key, metric in metrics.items()
        if metric.aggregation == "mean" and metric.applies_to in _DECIDING and task in metric.tasks
    ]
    if experiment.decision_metric not in allowed:
        name = experiment.decision_metric.rpartition("/")[0]
        newer = [key for key in allowed if name and key.rpartition("/")[0] == name]
        hint = f"; its definition was changed, so that it is called {newer[-1]} now" if newer else ""
        raise PermanentError(
            f"experiment {experiment.name}: decision_metric {experiment.decision_metric!r} is not a metric that every "
            f"variant has on the same questions{hint}; allowed: {', '.join(allowed)}"
        )
    guardable = [
        key
        for key, metric in metrics.items()
        if metric.aggregation == "mean" and metric.higher_is_better and metric.range == (0.0, 1.0)
        and task in metric.tasks
    ]  # fmt: skip
    for number, guard in enumerate(experiment.guards):
        if guard.metric not in guardable:
            near = difflib.get_close_matches(guard.metric, guardable, n=1)
            raise PermanentError(
                f"experiment {experiment.name}: guards[{number}].metric: {guard.metric!r} is not a mean between 0 (bad) and "
                f"1 (good){f'; did you mean {near[0]!r}?' if near else ''}; allowed: {', '.join(guardable)}"
            )


def check_decisions(config: ProjectConfig, experiments: Sequence[str]) -> None:
    """Check what decides in some experiments, before anything is run.

    Raises:
        PermanentError: as ``check_decision_metric``.
    """
    for name in experiments:
        experiment = config.experiments[name]
        task = config.datasets[experiment.dataset].task_spec
        check_decision_metric(experiment, task.kind if task else "rag", metrics_of(config, experiment))


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


def decided(measured: Sequence[Measured], metric: str) -> list[int]:
    """Positions of the questions that the decision metric has a value for.

    A question on which a judge failed for one variant is left out for all: the others would be compared with nothing.
    """
    columns = [[values[metric] for values in one.values] for one in measured]
    known = all if is_judged(metric) else any
    return [at for at, row in enumerate(zip(*columns, strict=True)) if known(value is not None for value in row)]


def decision_scores(measured: Sequence[Measured], metric: str) -> np.ndarray:
    """Scores of the decision metric, shape (questions, variants), for the questions it applies to.

    Raises:
        ValueError: it is undefined for some variants on a question and defined for others.
    """

    import numpy as np

    kept = [[one.values[at][metric] for one in measured] for at in decided(measured, metric)]
    if any(value is None for row in kept for value in row):
        raise ValueError(f"{metric} is undefined for some variants on a question that others have a value for")
    return np.array(kept, dtype=float).reshape(len(kept), len(measured))


def compare(
    experiment: ExperimentConfig, scores: np.ndarray, champion: int, groups: Groups = None
) -> list[dict[str, Any]]:
    """Everything that is decided by scores alone.

    Args:
        scores: shape (questions, variants), the best variant first.
        champion: position of the one the others are compared with.
        groups: what belongs together, one label a question.

    Returns:
        For each variant: ``decision`` (mean with interval); ``difference`` to the champion with interval, sign-flip ``p``
        and Holm's adjustment ``p_adjusted``; ``difference_deviation`` (allowing for groups) and ``difference_spread``
        (not); ``non_inferiority`` and ``equivalence`` to the champion, and ``to_best``, the difference to the best variant
        with its non-inferiority. Tests are None for the variant that is compared with, and where no margin is set. Each
        kind of test is a family of its own, adjusted over the variants it is made for.
    """

    import numpy as np

    settings: dict[str, Any] = {"resamples": experiment.resamples, "seed": experiment.seed, "groups": groups}
    alpha, margins = 1 - experiment.confidence, experiment.margins
    differences, behind = scores - scores[:, [champion]], scores - scores[:, [0]]
    width = scores.shape[1]
    intervals = mean_intervals(
        np.concatenate([scores, differences, behind], axis=1), confidence=experiment.confidence, **settings
    )
    means, gaps, gaps_to_best = intervals[:width], intervals[width : 2 * width], intervals[2 * width :]
    p_values = sign_flip_p_values(differences, **settings)
    spread, plain = deviations(differences, groups), deviations(differences)
    others = [at for at in range(width) if at != champion]

    def family(values: np.ndarray, margin: float | None, reference: int) -> dict[int, dict[str, float]]:
        if margin is None:
            return {}
        tested = [at for at in range(width) if at != reference]
        tests = non_inferiority(values, margin, alpha=alpha, groups=groups)
        adjusted = holm([tests[at].p for at in tested])
        return {
            at: {"margin": margin, "p": tests[at].p, "p_adjusted": p, "low": tests[at].low}
            for at, p in zip(tested, adjusted, strict=True)
        }

    not_worse = family(differences, margins.non_inferiority, champion)
    not_worse_than_best = family(behind, margins.non_inferiority, 0)
    equal: dict[int, dict[str, float]] = {}
    if margins.equivalence is not None:
        tests = equivalence(differences, margins.equivalence, alpha=alpha, groups=groups)
        for at, p in zip(others, holm([tests[at].estimate for at in others]), strict=True):
            one = tests[at]
            equal[at] = {
                "margin": margins.equivalence, "p": one.estimate, "p_adjusted": p, "low": one.low, "high": one.high,
            }  # fmt: skip
    adjusted = dict(zip(others, holm([p_values[at] for at in others]), strict=True))
    return [
        {
            "decision": means[at].to_json(),
            "difference": gaps[at].to_json() if at != champion else None,
            "difference_deviation": spread[at],
            "difference_spread": plain[at],
            "p": p_values[at] if at != champion else None,
            "p_adjusted": adjusted.get(at),
            "non_inferiority": not_worse.get(at),
            "equivalence": equal.get(at),
            "to_best": {"difference": gaps_to_best[at].to_json(), "non_inferiority": not_worse_than_best.get(at)}
            if at
            else None,
        }
        for at in range(width)
    ]


def build(
    experiment: ExperimentConfig,
    scope: Scope,
    measured: Sequence[Measured],
    *,
    champion: str,
    prompt_versions: Mapping[str, int],
    models: Models,
    metrics: Iterable[str] = METRICS,
) -> Leaderboard:
    """Compare all variants with the champion.

    Args:
        champion: name of the variant the others are compared with; one of ``measured``.
        metrics: those that were measured.

    Returns:
        A JSON-able leaderboard: facts common to all rows, and ``rows`` sorted best first, each with what ``compare``
        says of it, its guards, means of all metrics, and cost.
    """

    import numpy as np

    metric = experiment.decision_metric
    asked = [scope.questions[at] for at in decided(measured, metric)]
    groups = slices.groups_of(asked, experiment.cluster)
    scores, costs = decision_scores(measured, metric), [_costs(one) for one in measured]
    order = sorted(range(len(measured)), key=lambda at: _rank(scores[:, at], costs[at], measured[at].variant.name))
    measured, costs, scores = [measured[at] for at in order], [costs[at] for at in order], scores[:, order]
    names = [one.variant.name for one in measured]
    reference = names.index(champion)
    compared = compare(experiment, scores, reference, groups)
    unanswerable = [not question.answerable for question in scope.questions]
    refusals = f1_intervals(
        np.array([_refused(one, unanswerable) for one in measured]).T,
        unanswerable,
        confidence=experiment.confidence,
        resamples=experiment.resamples,
        seed=experiment.seed,
        groups=slices.groups_of(scope.questions, experiment.cluster),
    )
    rows = [
        {
            **_describe(one.variant, scope, prompt_versions, models),
            "champion": position == reference,
            "n": len(one.outcomes),
            "failed": sum(outcome.failed for outcome in one.outcomes),
            "given_up": sum(outcome.given_up for outcome in one.outcomes),
            **compared[position],
            "guards": guards.judge(experiment, scope.questions, one.values, measured[reference].values),
            "metrics": _averages(one, unanswerable, metrics),
            "refusal": vars(refusals[position]),
            "utilization": _utilization(one, unanswerable),
            **task_board.describe(
                scope.questions,
                one.outcomes,
                confidence=experiment.confidence,
                resamples=experiment.resamples,
                seed=experiment.seed,
                groups=slices.groups_of(scope.questions, experiment.cluster),
            ),
            **costs[position],
            **_energy(costs[position], one.variant, models),
        }
        for position, one in enumerate(measured)
    ]
    front = pareto.dominated_by([_point(row) for row in rows])
    return {
        "schema": SCHEMA,
        "experiment": experiment.name,
        "dataset": scope.dataset,
        "dataset_version": scope.version,
        "task": task_board.task_of(scope.questions),
        "split": scope.split,
        "snapshots": dict(scope.snapshots),
        "questions": {
            "answerable": unanswerable.count(False),
            "unanswerable": unanswerable.count(True),
            "compared": len(scores),
            "groups": len(scores) if groups is None else len(set(groups)),
            "stale": len(scope.stale),
        },
        "cluster": None if groups is None else experiment.cluster or "group",
        "decision_metric": experiment.decision_metric,
        "confidence": experiment.confidence,
        "resamples": experiment.resamples,
        "seed": experiment.seed,
        "margins": experiment.margins.model_dump(),
        "comparisons": len(rows) - 1,
        "champion": champion,
        "slices": slices.compare(experiment, asked, scores, names, reference),
        "rows": [{**row, "dominated_by": front[row["variant"]]} for row in rows],
    }


def upgraded(board: Leaderboard) -> Leaderboard:
    """A leaderboard on record in the present schema; what was not measured then is None or empty."""
    if board.get("schema") == SCHEMA:
        return board
    unknown: Row = dict.fromkeys(
        (
            "non_inferiority",
            "equivalence",
            "to_best",
            "dominated_by",
            "latency_p95",
            "cost_per_1000",
            "tokens_per_answer",
            "energy_wh_per_1000",
            "energy_source",
        )
    )
    return {
        **board,
        "questions": {"groups": board["questions"]["compared"], **board["questions"]},
        "cluster": None,
        "margins": {},
        "slices": [],
        "rows": [
            {**unknown, "guards": [], "given_up": 0, "difference_spread": row.get("difference_deviation"), **row}
            for row in board["rows"]
        ],
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
        "snapshot": scope.snapshots.get(variant.index),
        "prompt": variant.prompt.name,
        "prompt_version": prompt_versions[variant.prompt_reference],
        "search_mode": variant.search_mode,
        "k": variant.k,
        "model": variant.model,
        "offline": offline,
        "label": f"{variant.model} (offline stand-in)" if offline else variant.model,
    }


def _averages(
    one: Measured, unanswerable: Sequence[bool], metrics: Iterable[str]
) -> dict[str, dict[str, float | int | None]]:
    result: dict[str, dict[str, float | int | None]] = {}
    for metric in metrics:
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
    paid = [usage for usage in usages if usage]  # a failed trial has none and must not make a variant look cheap
    latencies = [outcome.latency for outcome in one.outcomes if outcome.latency is not None]
    return {
        "input_tokens": sum(usage.get("input_tokens", 0) for usage in usages),
        "output_tokens": sum(usage.get("output_tokens", 0) for usage in usages),
        "cost": sum(usage.get("cost", 0.0) for usage in usages),
        "currency": next((usage["currency"] for usage in usages if usage.get("cost")), "USD"),
        "cost_per_1000": 1000 * sum(usage.get("cost", 0.0) for usage in paid) / len(paid) if paid else None,
        "answers": len(paid),
        "tokens_per_answer": sum(usage.get("input_tokens", 0) + usage.get("output_tokens", 0) for usage in paid)
        / len(paid)
        if paid
        else None,
        "latency_median": median(latencies) if latencies else None,
        "latency_p95": sorted(latencies)[math.ceil(0.95 * len(latencies)) - 1] if latencies else None,
    }


def _energy(costs: Row, variant: Variant, models: Models) -> Row:
    """Watt hours of 1000 answers by what the answering model states (models.yaml); None where it states nothing."""
    stated = models.energy(variant.model)
    if stated is None or not costs["answers"]:
        return {"energy_wh_per_1000": None, "energy_source": None}
    read, written = (costs[key] / costs["answers"] / 1000 for key in ("input_tokens", "output_tokens"))
    return {
        "energy_wh_per_1000": read * stated.input_wh_per_million + written * stated.output_wh_per_million,
        "energy_source": f"{variant.model}: {stated.source}",
    }


def _point(row: Row) -> pareto.Point:
    """Money where any is paid; tokens break the tie of models that cost nothing."""
    return pareto.Point(
        row["variant"],
        round(row["decision"]["estimate"], 12),
        row["cost_per_1000"] or (math.inf if row["tokens_per_answer"] is None else row["tokens_per_answer"] * 1e-12),
        row["latency_p95"],
        row["energy_wh_per_1000"],
    )
