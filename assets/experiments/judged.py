"""Judged scores in an experiment: which judges it has, and whether anything may rest on them.

Belongs here: the judges of an experiment with their fingerprints and standing, and which of them decide.
Does not belong here: asking them (scores.py), calibrating them (assets/evaluation/judging), what follows from a judge that
may not decide (recommendation.py, champion.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from assets.evaluation.judging.calibrating import standing
from assets.evaluation.judging.judged_metrics import is_judged, judge_of
from assets.evaluation.judging.judges import Judge, build_judge
from assets.evaluation.metrics.catalogue import METRICS, metric_fingerprint, metrics_of
from assets.evaluation.metrics.semantic_metrics import semantic_fingerprints
from resources.config import ProjectConfig
from resources.experiment_config import ExperimentConfig
from resources.generation_memo import GenerationMemo
from resources.models import Models
from resources.postgres import Connection, Database

JudgeStates = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Judging:
    """What scoring by judges needs.

    Attributes:
        judges: by metric id.
        maximum_failed_share: of the trials of one judge; more end its work.
    """

    judges: Mapping[str, Judge]
    memo: GenerationMemo
    run_id: str
    maximum_failed_share: float = 0.05

    def of(self, metrics: Sequence[str] | None) -> "Judging | None":
        """Only the judges of some metrics, all of them with None; None when no judge is left."""
        judges = {key: judge for key, judge in self.judges.items() if metrics is None or key in metrics}
        return replace(self, judges=judges) if judges else None


def judges_of(config: ProjectConfig, models: Models, experiment: ExperimentConfig) -> dict[str, Judge]:
    """The judges an experiment names, by the id of their metric.

    Raises:
        PermanentError: the key of a judge's model is missing.
    """
    built = [build_judge(config.judges[name], models) for name in experiment.judges]
    return {judge.config.metric: judge for judge in built}


def judging_of(
    database: Database, config: ProjectConfig, models: Models, experiment: ExperimentConfig, run_id: str
) -> Judging | None:
    """What scoring by the experiment's judges needs; None when it names none.

    Raises:
        PermanentError: as ``judges_of``.
    """
    judges = judges_of(config, models, experiment)
    return Judging(judges, GenerationMemo(database), run_id, experiment.maximum_failed_share) if judges else None


def score_fingerprints(config: ProjectConfig, models: Models, experiment: ExperimentConfig) -> dict[str, str]:
    """What the scores of each metric of an experiment are kept under."""
    judges = judges_of(config, models, experiment)
    return {
        **{metric: metric_fingerprint(metric) for metric in METRICS},
        **semantic_fingerprints(models),
        **{metric: judge.fingerprint for metric, judge in judges.items()},
    }


def deciding(experiment: ExperimentConfig) -> list[str]:
    """The judged metrics that a recommendation would rest on: decision metric and guards, each once."""
    metrics = [experiment.decision_metric, *(guard.metric for guard in experiment.guards)]
    return [metric for metric in dict.fromkeys(metrics) if is_judged(metric)]


def judge_states(
    connection: Connection, config: ProjectConfig, models: Models, experiment: ExperimentConfig
) -> JudgeStates:
    """The judges of an experiment as they stand now, by metric id; JSON-able.

    Returns:
        For each: ``judge``, ``title``, ``definition``, ``model``, ``fingerprint``, ``decides`` (decision metric or guard),
        ``calibrated``, ``why``, and ``agreement`` with people (kappa, auc, spearman, bias; None where unknown).
    """
    definitions, used = metrics_of(config, experiment), deciding(experiment)
    states: JudgeStates = {}
    for metric, judge in judges_of(config, models, experiment).items():
        stands = standing(connection, config, judge.config, judge.fingerprint)
        measures = stands.measures or {}
        states[metric] = {
            "judge": judge.config.name,
            "title": definitions[metric].title,
            "definition": definitions[metric].definition,
            "model": judge.config.model,
            "fingerprint": judge.fingerprint,
            "decides": metric in used,
            "calibrated": stands.calibrated,
            "why": stands.why,
            "agreement": {name: measures.get(name) for name in ("kappa", "auc", "spearman", "bias", "n")},
        }
    return states


def not_calibrated(states: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Why nothing may be recommended: the judges that would decide and may not, in words."""
    return [
        f"{metric} (judge {state['judge']}): {state['why']}"
        for metric, state in states.items()
        if state["decides"] and not state["calibrated"]
    ]


def objections(
    connection: Connection,
    config: ProjectConfig,
    models: Models,
    experiment: ExperimentConfig,
    measured: Mapping[str, Mapping[str, Any]],
) -> list[str]:
    """What speaks against promoting on a result whose judges were ``measured`` then.

    The judges that decide must be the same to the last parameter as when they scored, and calibrated now.
    """
    used = deciding(experiment)
    unknown = [metric for metric in used if judge_of(metric) not in experiment.judges]
    if unknown or not used:
        return [f"{metric} decides, but is none of the judges of experiment {experiment.name}" for metric in unknown]
    now = judge_states(connection, config, models, experiment)
    changed = [
        f"judge {now[metric]['judge']} was changed since the result; materialize scored_variants again"
        for metric in used
        if measured.get(metric, {}).get("fingerprint") != now[metric]["fingerprint"]
    ]
    before = [
        f"judge {now[metric]['judge']} was not calibrated when the result was made; materialize scored_variants again"
        for metric in used
        if now[metric]["calibrated"] and not measured.get(metric, {}).get("calibrated")
    ]
    return [*changed, *before, *(f"not calibrated: {one}" for one in not_calibrated(now))]
