"""Metrics: scoring trials and combining the values.

Belongs here: one way in to all metrics of the catalogue, and the rule for failed trials.
Does not belong here: the metrics (catalogue.py and the modules it lists), and statistics over variants
(assets/experiments).

A value is a finite number within the range of its metric, 0 to 1 unless the definition says otherwise, also where the
original tool reports 0 to 100 (BLEU, chrF); or ``None``, which means "undefined for this trial" and is never averaged
as a number. A trial that failed (no answer because of an error) scores the worst value wherever the metric applies to
its question.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from assets.evaluation.judging.judged_metrics import is_judged
from assets.evaluation.metrics.catalogue import GROUPS, METRICS, definition_of, group_of, metric_fingerprint
from assets.evaluation.metrics.records import (
    COVERED_SHARE,
    FIXED_DEPTHS,
    CitedPassage,
    GoldSpan,
    Group,
    MetricDefinition,
    RetrievedChunk,
    TrialRecord,
)
from assets.evaluation.metrics.semantic_metrics import is_semantic

__all__ = [
    "COVERED_SHARE",
    "FIXED_DEPTHS",
    "METRICS",
    "CitedPassage",
    "GoldSpan",
    "MetricDefinition",
    "RetrievedChunk",
    "TrialRecord",
    "aggregate",
    "definition_of",
    "metric_fingerprint",
    "score",
]


#: Told what a group prepared of a record: the group, the record's place, and what all of its metrics are computed from.
Watch = Callable[[Group, int, Any], None]


def score(
    records: Sequence[TrialRecord], metrics: Sequence[str] | None = None, *, watch: Watch | None = None
) -> dict[str, list[float | None]]:
    """Score trials by metrics; what metrics share is worked out once per trial.

    Args:
        records: the trials; values come back in this order.
        metrics: ids of ``METRICS``; all of them by default.
        watch: told what was prepared, for those who show what a value rests on.

    Returns:
        For each metric one value per record, within its range, or ``None`` where the metric is undefined.

    Raises:
        ValueError: an id is not in ``METRICS``; the message names the nearest one.
    """
    wanted = list(dict.fromkeys(METRICS if metrics is None else metrics))
    of_group = {metric: group_of(metric) for metric in wanted}
    columns: dict[str, list[float | None]] = {metric: [] for metric in wanted}
    for group in GROUPS:
        mine = [metric for metric in wanted if of_group[metric] is group]
        if mine:
            _score_group(group, mine, records, columns, watch)
    return columns


def _score_group(
    group: Group,
    metrics: Sequence[str],
    records: Sequence[TrialRecord],
    columns: dict[str, list[float | None]],
    watch: Watch | None,
) -> None:
    formulas = [(columns[metric].append, group.formulas[metric], definition_of(metric).worst) for metric in metrics]
    tasks = definition_of(metrics[0]).tasks
    for place, record in enumerate(records):
        row = group.row(record) if record.task in tasks else None
        if row is None:
            for add, _, _ in formulas:
                add(None)
        elif record.failed and not group.failed_row:
            for add, _, worst in formulas:
                add(worst)
        else:
            prepared = group.prepare(**row)
            if watch:
                watch(group, place, prepared)
            for add, formula, _ in formulas:
                add(formula(prepared))


def aggregate(metric: str, values: Iterable[float | None]) -> float | None:
    """Combine per-trial values of a metric into one number; ``None`` when none of them is defined.

    The mean, also of what judges say, except for metrics whose ``aggregation`` is ``f1``: there 2·ones ÷ (2·ones + zeros).
    """
    defined = [value for value in values if value is not None]
    if not defined:
        return None
    total = float(sum(defined))
    if not is_judged(metric) and not is_semantic(metric) and definition_of(metric).aggregation == "f1":
        return 2 * total / (total + len(defined))
    return total / len(defined)
