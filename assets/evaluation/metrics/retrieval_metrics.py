"""Retrieval metrics as metrics: their ids, definitions and inputs.

Belongs here: what they are called and which trials they apply to. Does not belong here: formulas (retrieval.py).
"""

from collections.abc import Iterable
from functools import partial
from typing import Any

from assets.evaluation.metrics import retrieval
from assets.evaluation.metrics.records import FIXED_DEPTHS, Group, MetricDefinition, Part, TrialRecord

LOOKS_AT: frozenset[Part] = frozenset({"question", "gold", "hits"})

#: Version 1 looked at the chunks that were found, also where the model read more around them.
_READ = "A chunk counts with all that is read of it: where retrieval expands it, the range it was expanded to."
_RELEVANT = "A chunk is relevant when it shares at least one character with a gold span of its document."
_COVERED = (
    "A span is covered when at least half of its characters lie inside the chunks retrieved so far; evidence that is a "
    "whole document is covered by any chunk of it."
)
_ANSWERABLE = "answerable questions"


def _define() -> Iterable[tuple[MetricDefinition, Any]]:
    described = {
        "precision": (
            "Precision", f"Relevant chunks ÷ chunks. {_RELEVANT} 0 when nothing was retrieved.",
            retrieval.precision_of, True,
        ),
        "recall": ("Recall", f"Covered gold spans ÷ gold spans. {_COVERED}", retrieval.recall_of, True),
        "mrr": (
            "Reciprocal rank", f"1 ÷ rank of the first relevant chunk, 0 without one. {_RELEVANT}",
            retrieval.reciprocal_rank_of, False,
        ),
        "map": (
            "Average precision",
            "Mean over gold spans of the precision at the rank where the span became covered, 0 for a span that never "
            f"is. With one chunk per span this is classic average precision. {_RELEVANT} {_COVERED}",
            retrieval.average_precision_of, False,
        ),
        "ndcg": (
            "nDCG",
            "Sum over covered gold spans of grade ÷ log2(1 + rank where it became covered), ÷ the sum of an ideal ranking "
            "with one span per rank, best grade first; at most 1. The grade is 1 unless the evidence has another. With one "
            f"chunk per span this is the classic nDCG with linear gains. {_COVERED}",
            retrieval.ndcg_of, True,
        ),
        "iou": (
            "Character IoU",
            "Gold characters retrieved (each once) ÷ (characters of all retrieved chunks, overlaps counted every time, "
            "+ gold characters missed); as in the chunking evaluation of Smith and Troynikov (2024). Undefined where the "
            "evidence is a whole document.",
            retrieval.iou_of, False,
        ),
    }  # fmt: skip
    for name, (title, formula, function, at_depths) in described.items():
        definition = f"{formula} {_READ}"
        applies_to = "answerable questions with evidence passages" if name == "iou" else _ANSWERABLE
        target = (0.8, 1.0) if name == "recall" else None
        yield (
            MetricDefinition(f"genaiops.{name}/2", title, definition, applies_to, LOOKS_AT, target=target),
            function,
        )
        for depth in FIXED_DEPTHS if at_depths else ():
            missing = f" Over the first {depth} chunks; ranks a variant does not fill count as not relevant."
            yield (
                MetricDefinition(
                    f"genaiops.{name}@{depth}/2", f"{title}@{depth}", definition + missing, _ANSWERABLE, LOOKS_AT,
                    depth=depth,
                ),
                partial(function, depth=depth),
            )  # fmt: skip


def _row(record: TrialRecord) -> dict[str, Any] | None:
    gold = [span for span in record.gold if span.stance == "supports"]
    if not record.answerable or not gold:
        return None
    return {
        "predictions": [(hit.document_id, hit.start, hit.end) for hit in record.hits],
        "references": [
            (span.document_id, span.start, retrieval.WHOLE if span.kind == "document" else span.end, span.grade)
            for span in gold
        ],
    }


def _features(datasets: Any) -> dict[str, Any]:
    spans = datasets.Sequence(datasets.Sequence(datasets.Value("int64")))
    return {"predictions": spans, "references": spans}


def _prepare(predictions: Any, references: Any) -> retrieval.Ranking:
    return retrieval.rank(predictions, references)


_DEFINED = list(_define())
GROUPS = (
    Group(
        definitions=tuple(definition for definition, _ in _DEFINED),
        row=_row,
        features=_features,
        prepare=_prepare,
        formulas={definition.id: function for definition, function in _DEFINED},
    ),
)
