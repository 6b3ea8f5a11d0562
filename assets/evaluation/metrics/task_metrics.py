"""Task metrics as metrics: an answer to an input without documents; their ids, definitions and inputs.

Belongs here: what they are called, which trials they apply to, and that an unreadable answer is the worst one.
Does not belong here: formulas (tasks.py), reading an answer (resources/task_output.py), and what is computed over a whole set
(whole_set.py). Summaries and translations are compared with references by the metrics of answer_metrics.py.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from assets.evaluation.metrics import tasks
from assets.evaluation.metrics.records import Group, MetricDefinition, Part, Task, TrialRecord
from resources.task_output import read_fields, read_label

LOOKS_AT: frozenset[Part] = frozenset({"question", "reference", "answer"})
#: ``applies_to`` of these metrics; each is defined on every trial of its tasks but for log loss.
CLASSIFIED, EXTRACTED, TEXTS, READ = (
    "classified inputs", "inputs with fields to extract", "inputs with a reference text", "inputs with a form of answer",
)  # fmt: skip
PROBABILITIES = "classified inputs whose answer gives probabilities"
_UNREADABLE = " An answer in no known form counts as the worst, and so does a failed trial."
_CLASSIFICATION: frozenset[Task] = frozenset({"classification"})
_EXTRACTION: frozenset[Task] = frozenset({"extraction"})
_FORMS: frozenset[Task] = frozenset({"classification", "extraction"})
_TEXTS: frozenset[Task] = frozenset({"summarization", "translation"})


@dataclass(frozen=True)
class _Classified:
    right: bool
    loss: float | None


def _label_row(record: TrialRecord) -> dict[str, Any] | None:
    if not record.accepted or not record.labels:
        return None
    return {"predictions": record.answer, "references": record.accepted, "labels": list(record.labels)}


def _classify(predictions: str, references: Sequence[str], labels: Sequence[str]) -> _Classified:
    read = read_label(predictions, list(labels))
    if read is None:
        return _Classified(False, tasks.WORST_LOG_LOSS)
    label, probabilities = read
    accepted = list(references)
    loss = None if probabilities is None else tasks.log_loss(tasks.best_probability(probabilities, accepted))
    return _Classified(label in accepted, loss)


def _accuracy(read: _Classified) -> float:
    return float(read.right)


def _loss(read: _Classified) -> float | None:
    return read.loss


def _fields_row(record: TrialRecord) -> dict[str, Any] | None:
    if not record.accepted or not record.fields:
        return None
    return {"predictions": record.answer, "references": record.accepted, "fields": list(record.fields)}


def _count(predictions: str, references: Sequence[str], fields: Sequence[str]) -> tuple[int, int, int] | None:
    """The counts against the accepted object that fits best; None: unreadable."""
    said = read_fields(predictions, list(fields))
    if said is None:
        return None
    return max((tasks.field_counts(said, json.loads(wanted)) for wanted in references), key=tasks.field_f1)


def _field_f1(counts: tuple[int, int, int] | None) -> float:
    return 0.0 if counts is None else tasks.field_f1(counts)


def _all_fields(counts: tuple[int, int, int] | None) -> float:
    return 0.0 if counts is None else float(counts[1] == counts[2] == 0)


def _form_row(record: TrialRecord) -> dict[str, Any] | None:
    if not record.labels and not record.fields:
        return None
    return {"predictions": record.answer, "labels": list(record.labels), "fields": list(record.fields)}


def _form(predictions: str, labels: Sequence[str], fields: Sequence[str]) -> bool:
    if len(labels):
        return read_label(predictions, list(labels)) is not None
    return read_fields(predictions, list(fields)) is not None


def _text_row(record: TrialRecord) -> dict[str, Any] | None:
    if record.task not in _TEXTS or record.failed or not record.accepted:
        return None
    return {"predictions": record.answer, "references": record.accepted, "question": record.question}


def _texts(predictions: str, references: Sequence[str], question: str) -> tuple[str, str, str]:
    return predictions, references[0], question


def _length(texts: tuple[str, str, str]) -> float | None:
    return tasks.length_ratio(texts[0], texts[1])


def _kept(texts: tuple[str, str, str]) -> float | None:
    return tasks.kept_share(texts[0], texts[2])


def _copied(texts: tuple[str, str, str]) -> float:
    return tasks.copied_share(texts[0], texts[2])


def _features(*further: str) -> Any:
    def features(datasets: Any) -> dict[str, Any]:
        many = datasets.Sequence(datasets.Value("string"))
        return {"predictions": datasets.Value("string"), "references": many, **dict.fromkeys(further, many)}

    return features


def _form_features(datasets: Any) -> dict[str, Any]:
    many = datasets.Sequence(datasets.Value("string"))
    return {"predictions": datasets.Value("string"), "labels": many, "fields": many}


def _text_features(datasets: Any) -> dict[str, Any]:
    return {
        "predictions": datasets.Value("string"),
        "references": datasets.Sequence(datasets.Value("string")),
        "question": datasets.Value("string"),
    }


_define = partial(MetricDefinition, looks_at=LOOKS_AT)

GROUPS = (
    Group(
        definitions=(
            _define(
                "sklearn.accuracy/1",
                "Accuracy",
                f"1 if the label of the answer is an accepted one, else 0.{_UNREADABLE}",
                CLASSIFIED,
                tasks=_CLASSIFICATION,
            ),
            _define(
                "sklearn.log_loss/1",
                "Log loss",
                "-ln of the probability that the answer gives the accepted label (cross-entropy, as scikit-learn's log_loss "
                "with probabilities held at the machine epsilon, so that it is 36.04 at most). Undefined for an answer without "
                f"probabilities.{_UNREADABLE}",
                PROBABILITIES,
                higher_is_better=False,
                range=(0.0, tasks.WORST_LOG_LOSS),
                tasks=_CLASSIFICATION,
            ),
        ),
        row=_label_row,
        features=_features("labels"),
        prepare=_classify,
        formulas={"sklearn.accuracy/1": _accuracy, "sklearn.log_loss/1": _loss},
    ),
    Group(
        definitions=(
            _define(
                "genaiops.extraction_f1/1",
                "Field F1",
                "2·right ÷ (2·right + too much + missing) values over the fields; 1 when there is nothing to find and nothing "
                f"is given. Case, spacing and the way a number is written do not count.{_UNREADABLE}",
                EXTRACTED,
                tasks=_EXTRACTION,
            ),
            _define(
                "genaiops.extraction_exact/1",
                "All fields exact",
                f"1 if every field holds what it should, and no more, else 0.{_UNREADABLE}",
                EXTRACTED,
                tasks=_EXTRACTION,
            ),
        ),
        row=_fields_row,
        features=_features("fields"),
        prepare=_count,
        formulas={"genaiops.extraction_f1/1": _field_f1, "genaiops.extraction_exact/1": _all_fields},
    ),
    Group(
        definitions=(
            _define(
                "genaiops.readable/1",
                "Readable answers",
                "1 if the answer has the form that was asked for (a label, or an object with fields), else 0.",
                READ,
                tasks=_FORMS,
            ),
        ),
        row=_form_row,
        features=_form_features,
        prepare=_form,
        formulas={"genaiops.readable/1": float},
    ),
    Group(
        definitions=(
            _define(
                "genaiops.length_ratio/1",
                "Length ratio",
                "Words of the answer ÷ words of the reference: 1 is as long, neither more nor less is better. Undefined for a "
                "failed trial.",
                TEXTS,
                range=(0.0, float("inf")),
                target=(0.7, 1.3),
                tasks=_TEXTS,
            ),
            _define(
                "genaiops.kept_share/1",
                "Kept share",
                "Words of the answer ÷ words of the input, at most 1: how little was condensed. Undefined for a failed trial.",
                TEXTS,
                higher_is_better=False,
                tasks=_TEXTS,
            ),
            _define(
                "genaiops.copied_share/1",
                "Copied share",
                "Share of the answer's different words of three letters and more that stand in the input: near 1 for an "
                "extractive summary, and for a translation that was left undone. Undefined for a failed trial.",
                TEXTS,
                higher_is_better=False,
                tasks=_TEXTS,
            ),
        ),
        row=_text_row,
        features=_text_features,
        prepare=_texts,
        formulas={
            "genaiops.length_ratio/1": _length,
            "genaiops.kept_share/1": _kept,
            "genaiops.copied_share/1": _copied,
        },
    ),
)
