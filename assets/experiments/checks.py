"""Checks of scored_variants: whether an experiment was carried out well enough to be believed.

Belongs here: the names shown in the UI, and each check as a pure function of plain numbers.
Does not belong here: running the experiment (running.py), and whether a variant is good (recommendation.py).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from assets.evaluation.dataset import Question
from assets.evaluation.leakage import Item, leaks, worked_examples
from assets.evaluation.metrics import task_metrics
from assets.evaluation.metrics.base import METRICS, GoldSpan, MetricDefinition
from assets.experiments.judge_scores import Judged
from assets.experiments.judged import JudgeStates, not_calibrated
from assets.experiments.planning import Plan
from assets.experiments.records import TrialOutcome
from assets.experiments.scope import Scope
from assets.experiments.slices import tag_values
from assets.experiments.trials import TrialWork
from assets.outcomes import CheckOutcome
from resources.experiment_config import ExperimentConfig
from resources.prompt_config import PromptConfig

CHECKS: dict[str, str] = {
    "baseline_present": "The champion is among the variants, so that there is something to be better than.",
    "dataset_matches_snapshot": "Few questions had to be left out because a snapshot shows another text of their evidence.",
    "decision_possible": "The decision metric has a value on some question of the split.",
    "prompts_leak_nothing": "No prompt shows the model a question that is scored or held back as a worked example.",
    "trials_complete": "Every variant has a trial on every question, and few of them failed.",
    "scores_defined": "Every metric has a finite value on every trial it applies to.",
    "retrieval_not_empty": "Retrieval found something for nearly every question.",
    "judges_answered": "Every judge gave a usable verdict on nearly every trial.",
    "judges_calibrated": "Every judge that the decision rests on has shown how far it agrees with people.",
}
#: A result that a judge informs is recorded whether or not it may decide; nothing can be promoted on it (champion.py).
NOT_BLOCKING = ("judges_calibrated",)
MAXIMUM_STALE_SHARE = 0.2
#: Full-text search rightly finds nothing for a question that shares no word with any document; a broken index finds
#: nothing for most questions.
MAXIMUM_EMPTY_SHARE = 0.2


def _supports(span: GoldSpan) -> bool:
    return span.stance == "supports"


def _task(question: Question) -> str:
    return "rag" if question.task is None else question.task.kind


#: By ``applies_to`` of a metric: whether it must have a value on every trial of a question.
QUESTION_DECIDES: dict[str, Callable[[Question], bool]] = {
    "all questions": lambda question: True,
    "questions whose right answer is known": lambda question: not question.answerable or question.answer is not None,
    "answerable questions": lambda question: question.answerable and any(_supports(span) for span in question.gold),
    "answerable questions with evidence passages": lambda question: (
        question.answerable
        and any(_supports(span) for span in question.gold)
        and all(span.kind == "span" for span in question.gold if _supports(span))
    ),
    "answerable questions with a reference answer": lambda question: (
        question.answerable and question.answer is not None
    ),
    "unanswerable questions": lambda question: not question.answerable,
    task_metrics.CLASSIFIED: lambda question: _task(question) == "classification",
    task_metrics.EXTRACTED: lambda question: _task(question) == "extraction",
    task_metrics.READ: lambda question: _task(question) in ("classification", "extraction"),
}
#: ``applies_to`` of metrics that the answer decides on: they may lack a value anywhere.
ANSWER_DECIDES = {
    "refused trials",
    "refused trials and unanswerable questions",
    "answers that are no refusal",
    task_metrics.PROBABILITIES,
    task_metrics.TEXTS,
}


def baseline_present(champion: str, variants: Sequence[str]) -> CheckOutcome:
    """The champion is one of the variants that are compared."""
    return CheckOutcome(
        "baseline_present",
        champion in variants,
        expected=f"{champion} among the variants",
        observed=f"{len(variants)} variants, {'with' if champion in variants else 'without'} it",
    )


def dataset_matches_snapshot(scope: Scope) -> CheckOutcome:
    """At most a fifth of the questions are stale for the snapshots, and some question is left."""
    return CheckOutcome(
        "dataset_matches_snapshot",
        bool(scope.questions) and scope.stale_share <= MAXIMUM_STALE_SHARE,
        expected=f"questions left, and at most {MAXIMUM_STALE_SHARE:.0%} of them stale",
        observed=f"{len(scope.questions)} questions left; {len(scope.stale)} stale ({scope.stale_share:.1%})",
        details={
            "stale_questions": list(scope.stale),
            "snapshots": dict(scope.snapshots),
            "dataset_version": scope.version,
            "remedy": "refresh the sources, then the indexes, then evaluation_dataset",
        },
    )


def decided_questions(
    metric: str, questions: Sequence[Question], metrics: Mapping[str, MetricDefinition] = METRICS
) -> list[Question]:
    """The questions on which the decision metric has a value, whatever a variant answers.

    Args:
        metrics: the built-in ones and those of the experiment's judges.
    """
    definition = metrics[metric]
    decide = QUESTION_DECIDES[definition.applies_to]
    return [question for question in questions if _task(question) in definition.tasks and decide(question)]


def decision_possible(
    experiment: ExperimentConfig, scope: Scope, metrics: Mapping[str, MetricDefinition] = METRICS
) -> CheckOutcome:
    """Some question has a value of the decision metric; told before anything is spent on trials.

    Tags that the experiment reads questions by (cluster, slices, guards) must be there too: a misspelt one would silently take
    every question for independent, or leave a guard open for ever.
    """
    metric = metrics[experiment.decision_metric]
    decided = decided_questions(metric.id, scope.questions, metrics)
    absent = _absent_tags(experiment, decided)
    if decided and absent:
        known = sorted({key for question in decided for key in question.tags})
        return CheckOutcome(
            "decision_possible",
            False,
            expected=f"questions of {scope.dataset}/{scope.split} with the tags that experiments/{experiment.name}.yaml names",
            observed=f"no question has {', '.join(absent)}",
            details={
                "absent": absent,
                "remedy": f"correct experiments/{experiment.name}.yaml, or tag the questions; they have {', '.join(known) or 'no tags'}",
            },
        )
    return CheckOutcome(
        "decision_possible",
        bool(decided),
        expected=f"questions of {scope.dataset}/{scope.split} that {metric.id} applies to ({metric.applies_to})",
        observed=f"{len(decided)} of {len(scope.questions)} questions",
        details={}
        if decided
        else {
            "decision_metric": metric.id,
            "dataset": scope.dataset,
            "split": scope.split,
            "remedy": f"add {metric.applies_to} to split {scope.split} of dataset {scope.dataset}, or choose another "
            f"decision_metric in experiments/{experiment.name}.yaml; genaiops.answer_quality/1 applies to all questions",
        },
    )


def _absent_tags(experiment: ExperimentConfig, questions: Sequence[Question]) -> list[str]:
    """Tags named by the experiment that no question has, as they are written in its file."""
    keys = [*([experiment.cluster] if experiment.cluster else []), *experiment.slices]
    absent = [key for key in keys if not any(tag_values(question, key) for question in questions)]
    for guard in experiment.guards:
        key, _, value = (guard.tag or "").partition("=")
        if guard.tag and not any(value in tag_values(question, key) for question in questions):
            absent.append(guard.tag)
    return list(dict.fromkeys(absent))


def prompts_leak_nothing(questions: Sequence[Question], prompts: Mapping[str, PromptConfig]) -> CheckOutcome:
    """No worked example of a prompt gives a question away.

    ``evaluation_dataset`` asks the same when its questions change; a prompt may be edited without that.

    Args:
        questions: those of the dev and test splits.
        prompts: of the variants, by name.
    """
    shown, contexts = worked_examples(prompts.values())
    found = leaks([Item(one.question_id, one.question, one.answer) for one in questions], shown, contexts)
    return CheckOutcome(
        "prompts_leak_nothing",
        not found,
        expected=f"none of {len(questions)} questions among the {len(shown)} worked examples of {len(prompts)} prompts",
        observed=f"{len({leak.question_id for leak in found})} questions given away"
        + (f", first {found[0].question_id} by {found[0].leaked_by}" if found else ""),
        details={"leaks": [{"question": one.question_id, "by": one.leaked_by, "how": one.how} for one in found[:20]]}
        if found
        else {},
    )


def trials_complete(
    experiment: ExperimentConfig, plan: Plan, outcomes: Mapping[str, TrialOutcome], work: TrialWork
) -> CheckOutcome:
    """Every trial is on record, and the failed share is within the experiment's limit."""
    missing = sum(trial.fingerprint not in outcomes for trial in plan.trials)
    failed = [trial for trial in plan.trials if trial.fingerprint in outcomes and outcomes[trial.fingerprint].failed]
    share = len(failed) / max(1, len(plan.trials))
    errors: dict[str, int] = {}
    for trial in failed:
        error = outcomes[trial.fingerprint].error or "unknown"
        errors[error] = errors.get(error, 0) + 1
    details: dict[str, Any] = {"failed": len(failed), "missing": missing, "errors": errors}
    if work.stopped:
        details["stopped"] = work.stopped
    given_up = sum(outcomes[trial.fingerprint].given_up for trial in failed)
    if given_up:
        details |= {"given_up": given_up, "remedy": f"genaiops trials retry {experiment.name}"}
    return CheckOutcome(
        "trials_complete",
        bool(plan.trials) and not missing and share <= experiment.maximum_failed_share,
        expected=f"{len(plan.trials)} trials, at most {experiment.maximum_failed_share:.1%} failed",
        observed=f"{len(plan.trials) - missing} trials, {share:.1%} failed"
        + (f"; {work.stopped}" if work.stopped else ""),
        details=details,
    )


def scores_defined(plan: Plan, values: Mapping[str, Mapping[str, float | None]]) -> CheckOutcome:
    """No metric lacks a value on a trial whose question it applies to, and no value is NaN or infinite.

    Judges the trials on record; whether one is missing is the business of ``trials_complete``.
    """
    undefined: dict[str, int] = {}
    checked = 0
    for trial in plan.trials:
        scores = values.get(trial.fingerprint)
        if scores is None:
            continue
        for metric, definition in METRICS.items():
            value = scores.get(metric)
            decide = QUESTION_DECIDES.get(definition.applies_to)
            asked = _task(trial.question) in definition.tasks
            applies = asked and decide is not None and decide(trial.question)
            checked += applies
            if (value is None and applies) or (value is not None and not math.isfinite(value)):
                undefined[metric] = undefined.get(metric, 0) + 1
    return CheckOutcome(
        "scores_defined",
        bool(checked) and not undefined,
        expected="a finite value wherever a metric applies",
        observed=f"{sum(undefined.values())} of {checked} values undefined",
        details={"undefined": undefined} if undefined else {},
    )


def retrieval_not_empty(plan: Plan) -> CheckOutcome:
    """No search setting comes back empty for more than a fifth of the questions; where nothing is searched, none does."""
    if plan.trials and all(trial.variant.task is not None for trial in plan.trials):
        return CheckOutcome("retrieval_not_empty", True, expected="nothing to search", observed="nothing was searched")
    settings: dict[str, list[bool]] = {}
    for trial in plan.trials:
        variant = trial.variant
        settings.setdefault(f"{variant.index}/{variant.search_mode}/k{variant.k}", []).append(not trial.result.hits)
    shares = {name: sum(empty) / len(empty) for name, empty in settings.items()}
    worst = max(shares, key=lambda name: shares[name], default=None)
    return CheckOutcome(
        "retrieval_not_empty",
        worst is not None and shares[worst] <= MAXIMUM_EMPTY_SHARE,
        expected=f"at most {MAXIMUM_EMPTY_SHARE:.0%} of searches empty in every search setting",
        observed=f"{shares[worst]:.1%} in {worst}" if worst else "no searches",
        details={"empty_share": shares},
    )


def judges_answered(experiment: ExperimentConfig, judged: Mapping[str, Judged]) -> CheckOutcome:
    """Every judge was asked about every trial, and few of its answers were unusable; without judges there is nothing to ask."""
    shares = {
        metric: (len(one.failed) + one.unasked) / max(1, one.scored + len(one.failed) + one.unasked)
        for metric, one in judged.items()
    }
    worst = max(shares, key=lambda metric: shares[metric], default=None)
    stopped = {metric: one.stopped for metric, one in judged.items() if one.stopped}
    return CheckOutcome(
        "judges_answered",
        not stopped and all(share <= experiment.maximum_failed_share for share in shares.values()),
        expected=f"a usable verdict of every judge on all but {experiment.maximum_failed_share:.1%} of the trials",
        observed=f"{shares[worst]:.1%} without one from {worst}" if worst else "no judges",
        details={
            **({"judges": {metric: one.to_json() for metric, one in judged.items()}} if judged else {}),
            **(
                {"remedy": "genaiops judges retry asks again where a judge was given up"}
                if any(shares.values())
                else {}
            ),
        },
    )


def judges_calibrated(states: JudgeStates) -> CheckOutcome:
    """Every judge that decides is calibrated, as it is configured now; judges that only inform need not be."""
    deciding = {metric: state for metric, state in states.items() if state["decides"]}
    missing = not_calibrated(states)
    return CheckOutcome(
        "judges_calibrated",
        not missing,
        expected="judges of the decision metric and of guards have passed their calibration",
        observed="; ".join(missing)
        or (f"{len(deciding)} deciding, all calibrated" if deciding else "no judge decides"),
        blocking=False,
        details={
            "judges": {metric: {"judge": state["judge"], "why": state["why"]} for metric, state in deciding.items()}
        }
        if deciding
        else {},
    )
