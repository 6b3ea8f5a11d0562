"""The metrics as Hugging Face ``evaluate`` metrics, and trials as their inputs.

Belongs here: one ``evaluate.Metric`` subclass per metric id, and the rule which trials reach it.
Does not belong here: formulas (retrieval.py, answers.py, refusals.py, grounding.py).

``evaluate`` and ``datasets`` take seconds to import, so the classes are made on first use. Instances are not
thread-safe: every computation makes its own.
"""

import os
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from assets.evaluation.metrics import answers, grounding, refusals, retrieval
from assets.evaluation.metrics.base import WORST, MetricDefinition, TrialRecord, aggregate, definition_of

if TYPE_CHECKING:
    import evaluate


@dataclass(frozen=True)
class _Kind:
    """How a group of metrics is fed.

    Attributes:
        features: Arrow schema of one row; builds on the ``datasets`` module it is given.
        row: what one trial contributes to each feature; ``None`` when the metric does not apply to its question.
    """

    features: Callable[[Any], dict[str, Any]]
    row: Callable[[TrialRecord], dict[str, Any] | None]


def _retrieval_row(record: TrialRecord) -> dict[str, Any] | None:
    if not record.answerable or not record.gold:
        return None
    return {
        "predictions": [[hit.document_id, hit.start, hit.end] for hit in record.hits],
        "references": [[span.document_id, span.start, span.end] for span in record.gold],
    }


def _said(record: TrialRecord) -> str:
    return "" if record.refused or record.failed else record.answer


def _reference_row(record: TrialRecord) -> dict[str, Any] | None:
    if not record.answerable or record.reference is None:
        return None
    return {"predictions": _said(record), "references": [record.reference]}


def _squad_row(record: TrialRecord) -> dict[str, Any] | None:
    return _reference_row(record) if record.answerable else {"predictions": _said(record), "references": []}


def _quality_row(record: TrialRecord) -> dict[str, Any] | None:
    row = _squad_row(record)
    return row and {**row, "refused": record.refused}


def _refusal_row(record: TrialRecord) -> dict[str, Any]:
    wrong = record.answerable  # a failed trial counts as the wrong one of refusing and answering
    return {"predictions": wrong if record.failed else record.refused, "references": not record.answerable}


def _grounding_row(record: TrialRecord) -> dict[str, Any] | None:
    if record.refused and not record.failed:
        return None
    contexts = [
        "\n".join([*(f"# {heading}" for heading in (hit.title, *hit.heading_path)), hit.text]) for hit in record.hits
    ]
    return {"predictions": record.answer, "references": contexts}


def _spans(datasets: Any) -> dict[str, Any]:
    spans = datasets.Sequence(datasets.Sequence(datasets.Value("int64")))
    return {"predictions": spans, "references": spans}


def _texts(datasets: Any) -> dict[str, Any]:
    return {"predictions": datasets.Value("string"), "references": datasets.Sequence(datasets.Value("string"))}


_RETRIEVAL = _Kind(_spans, _retrieval_row)
_REFERENCE = _Kind(_texts, _reference_row)
_SQUAD = _Kind(_texts, _squad_row)
_QUALITY = _Kind(lambda datasets: {**_texts(datasets), "refused": datasets.Value("bool")}, _quality_row)
_REFUSAL = _Kind(
    lambda datasets: {"predictions": datasets.Value("bool"), "references": datasets.Value("bool")}, _refusal_row
)
_GROUNDING = _Kind(_texts, _grounding_row)

#: Metrics beside retrieval and refusals: how they are fed, and the value of one row.
_VALUES: dict[str, tuple[_Kind, Callable[..., float | None]]] = {
    "genaiops.answer_quality/1": (_QUALITY, answers.answer_quality),
    "squad.exact_match/1": (_SQUAD, answers.exact_match),
    "squad.f1/1": (_SQUAD, answers.token_f1),
    "sacrebleu.bleu/1": (_REFERENCE, answers.bleu),
    "sacrebleu.chrf/1": (_REFERENCE, answers.chrf),
    "rouge.rouge1/1": (_REFERENCE, partial(answers.rouge, "rouge1")),
    "rouge.rouge2/1": (_REFERENCE, partial(answers.rouge, "rouge2")),
    "rouge.rougeL/1": (_REFERENCE, partial(answers.rouge, "rougeL")),
    "nltk.meteor_exact_stem/1": (_REFERENCE, answers.meteor),
    "genaiops.groundedness_lexical/1": (_GROUNDING, grounding.groundedness),
}


def _formula(definition: MetricDefinition) -> tuple[_Kind, Callable[..., float | None]]:
    name = re.split(r"[./@]", definition.id)[1]
    if definition.family == "retrieval":
        return _RETRIEVAL, lambda chunks, gold: retrieval.at_depth(name, chunks, gold, definition.depth)
    if definition.family == "refusal":
        return _REFUSAL, refusals.REFUSALS[name]
    return _VALUES[definition.id]


@cache
def metric_class(metric: str) -> "type[evaluate.Metric]":
    """The ``evaluate.Metric`` subclass of a metric id; its instances can go into ``evaluate.combine``.

    ``compute`` takes ``predictions`` and ``references`` (see ``_Kind`` above for their shapes) and returns
    ``{"score": aggregate or None, "values": [one per row]}``.

    Raises:
        ValueError: there is no such metric.
    """
    for variable in ("HF_EVALUATE_OFFLINE", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        os.environ.setdefault(variable, "1")
    import datasets
    import evaluate

    definition = definition_of(metric)
    kind, value = _formula(definition)
    features = datasets.Features(kind.features(datasets))

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
            columns = [predictions, references, *further.values()]
            values = [value(*row) for row in zip(*columns, strict=True)]
            return {"score": aggregate(definition.id, values), "values": values}

    RecordMetric.__name__ = "".join(part.capitalize() for part in re.split(r"[^A-Za-z0-9]+", definition.id)[:-1])
    RecordMetric.__doc__ = definition.definition
    return RecordMetric


@cache
def _cache_folder() -> str:
    """A writable folder, whatever HF_HOME is."""
    folder = os.path.join(tempfile.gettempdir(), f"genaiops-metrics-{os.getuid()}")
    os.makedirs(folder, mode=0o700, exist_ok=True)
    return folder


def compute(definition: MetricDefinition, records: Sequence[TrialRecord]) -> list[float | None]:
    """Values of one metric, in the order of ``records``; see ``base.score``."""
    kind, _ = _formula(definition)
    values: list[float | None] = [None] * len(records)
    positions: list[int] = []
    rows: list[dict[str, Any]] = []
    for position, record in enumerate(records):
        row = kind.row(record)
        if row is not None and record.failed and definition.family != "refusal":
            values[position] = WORST
        elif row is not None:
            positions.append(position)
            rows.append(row)
    if rows:
        metric = metric_class(definition.id)()
        result = metric.compute(**{name: [row[name] for row in rows] for name in rows[0]}) or {}
        for position, found in zip(positions, result["values"], strict=True):
            values[position] = found
    return values
