"""The catalogue: every metric there is, and the fingerprint its scores are kept under.

Belongs here: the list of modules with metrics, those that judges of the configuration add, and looking one up.
Does not belong here: any definition or formula.
"""

import difflib
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

from assets.evaluation.judging import judged_metrics
from assets.evaluation.metrics import (
    answer_metrics,
    grounding_metrics,
    refusal_metrics,
    retrieval_metrics,
    semantic_metrics,
    task_metrics,
)
from assets.evaluation.metrics.code_version import code_version
from assets.evaluation.metrics.records import Group, MetricDefinition
from resources.fingerprint import fingerprint

if TYPE_CHECKING:
    from resources.config import ProjectConfig
    from resources.experiment_config import ExperimentConfig

#: Groups in the order of the catalogue; a new module of metrics is added here.
GROUPS: tuple[Group, ...] = (
    *retrieval_metrics.GROUPS,
    *answer_metrics.GROUPS,
    *refusal_metrics.GROUPS,
    *grounding_metrics.GROUPS,
    *task_metrics.GROUPS,
)
METRICS: dict[str, MetricDefinition] = {
    definition.id: definition for group in GROUPS for definition in group.definitions
}
_GROUP_OF: dict[str, Group] = {definition.id: group for group in GROUPS for definition in group.definitions}


def metrics_of(config: "ProjectConfig", experiment: "ExperimentConfig | None" = None) -> Mapping[str, MetricDefinition]:
    """The built-in metrics, those with a model of their own, then those of the judges an experiment names (all without one)."""
    names = list(config.judges) if experiment is None else experiment.judges
    judges = [config.judges[name] for name in names if config.judges[name].scores_trials]
    return {
        **METRICS,
        **semantic_metrics.configured(config.models),
        **{judge.metric: judged_metrics.definition(judge) for judge in judges},
    }


def definition_of(metric: str) -> MetricDefinition:
    """The definition of a metric id.

    Raises:
        ValueError: there is no such metric; the message names the nearest one.
    """
    definition = METRICS.get(metric)
    if definition is None:
        close = difflib.get_close_matches(metric, METRICS, n=1, cutoff=0.4)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"there is no metric {metric!r}; allowed: {', '.join(METRICS)}.{hint}")
    return definition


def group_of(metric: str) -> Group:
    """The group that computes a metric.

    Raises:
        ValueError: as ``definition_of``.
    """
    return _GROUP_OF[definition_of(metric).id]


@cache
def metric_fingerprint(metric: str) -> str:
    """Hash of all that decides a metric's values: its id, its depth, the code it runs and the libraries it calls.

    A score is kept under it: when a formula changes, its scores, and no others, are computed again.

    Raises:
        ValueError: as ``definition_of``.
    """
    definition, group = definition_of(metric), group_of(metric)
    used = (group.row, group.prepare, group.formulas[metric])
    return fingerprint(
        {
            "id": metric,
            "code": [definition.code, code_version(*used, libraries=group.libraries)],
            "worst": definition.worst,
            "failed_row": group.failed_row,
            **({"tasks": sorted(definition.tasks)} if definition.tasks != {"rag"} else {}),
        }
    )
