"""The metrics as Hugging Face ``evaluate`` metrics, for use beside those of others.

Belongs here: one ``evaluate.Metric`` subclass per metric id. Does not belong here: formulas, which trials reach them,
and scoring itself (base.py), which does without the way through Arrow; both give the same values.

``evaluate`` and ``datasets`` take seconds to import, so the classes are made on first use. Instances are not
thread-safe: every computation makes its own.
"""

import os
import re
import tempfile
from functools import cache
from typing import TYPE_CHECKING, Any

from assets.evaluation.metrics.base import aggregate
from assets.evaluation.metrics.catalogue import definition_of, group_of

if TYPE_CHECKING:
    import evaluate


@cache
def metric_class(metric: str) -> "type[evaluate.Metric]":
    """The ``evaluate.Metric`` subclass of a metric id; its instances can go into ``evaluate.combine``.

    ``compute`` takes the inputs that the metric's group makes of a trial (see its ``row``) and returns
    ``{"score": aggregate or None, "values": [one per row]}``.

    Raises:
        ValueError: there is no such metric.
    """
    for variable in ("HF_EVALUATE_OFFLINE", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        os.environ.setdefault(variable, "1")
    import datasets
    import evaluate

    definition, group = definition_of(metric), group_of(metric)
    features = datasets.Features(
        {name: kind for name, kind in group.features(datasets).items() if name not in _left_out(metric)}
    )

    class RecordMetric(evaluate.Metric):
        def __init__(self) -> None:
            # the cache stays empty with keep_in_memory, but evaluate insists on creating a folder for it
            super().__init__(keep_in_memory=True, cache_dir=_cache_folder())

        def _info(self) -> evaluate.MetricInfo:
            return evaluate.MetricInfo(
                description=f"{definition.id}: {definition.definition}",
                citation="",
                inputs_description=f"Applies to {definition.applies_to}.",
                features=features,
            )

        def _compute(self, *, predictions: Any = None, references: Any = None, **further: Any) -> dict[str, Any]:
            given = {"predictions": predictions, "references": references, **further}
            columns = {name: column for name, column in given.items() if column is not None}
            rows = zip(*columns.values(), strict=True)
            values = [group.formulas[metric](group.prepare(**dict(zip(columns, row, strict=True)))) for row in rows]
            return {"score": aggregate(metric, values), "values": values}

    RecordMetric.__name__ = "".join(part.capitalize() for part in re.split(r"[^A-Za-z0-9]+", definition.id)[:-1])
    RecordMetric.__doc__ = definition.definition
    return RecordMetric


def _left_out(metric: str) -> set[str]:
    """Inputs that only another metric of the group needs."""
    return {"refused"} if metric.startswith("squad.") else set()


@cache
def _cache_folder() -> str:
    """A writable folder, whatever HF_HOME is."""
    folder = os.path.join(tempfile.gettempdir(), f"genaiops-metrics-{os.getuid()}")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    return folder
