"""Whole-set metrics: values of all trials of a variant together that are no mean of the values of single ones.

Belongs here: what each input contributes, as numbers that add up, and the value of such sums; so that a bootstrap resamples
the inputs and not the values. Does not belong here: drawing the resamples (assets/experiments/task_board.py).

A macro F1 is no mean over inputs, and a corpus BLEU no mean over sentences: both are computed from sums.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from assets.evaluation.metrics.tasks import field_counts
from resources.task_config import TaskSpec
from resources.task_output import read_fields, read_label

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

CODE_VERSION = "1"


@dataclass(frozen=True)
class SetMetric:
    """A whole-set metric.

    Attributes:
        value: from sums, shape (samples, width), to values of shape (samples,); NaN where it is undefined.
        costly: computed sample by sample, so that a bootstrap should do with fewer resamples.
    """

    id: str
    title: str
    definition: str
    value: Callable[[Floats], Floats]
    costly: bool = False


@dataclass(frozen=True)
class Answered:
    """What was said to one input; a failed trial says nothing."""

    text: str
    accepted: tuple[str, ...]


@dataclass(frozen=True)
class Contributions:
    """What each input adds, shape (inputs, width), and the metrics that are computed from the sums of these."""

    rows: Floats
    metrics: tuple[SetMetric, ...]


def contributions(task: TaskSpec, answered: Sequence[Answered]) -> list[Contributions]:
    """What the answers to the inputs of a task add to its whole-set metrics; none for a task without any."""
    match task.kind:
        case "classification":
            return [_of_labels(task.labels, answered)]
        case "extraction":
            return [_of_fields(task.fields, answered)]
        case "translation":
            return _of_texts(answered)
        case _:
            return []


def unreadable(task: TaskSpec, answered: Sequence[Answered]) -> int:
    """Answers without the form that was asked for; failed trials are among them."""
    if task.kind == "classification":
        return sum(read_label(one.text, task.labels) is None for one in answered)
    if task.kind == "extraction":
        return sum(read_fields(one.text, task.fields) is None for one in answered)
    return 0


def confusions(task: TaskSpec, answered: Sequence[Answered]) -> list[dict[str, Any]]:
    """How often each label was taken for each: {label, said, count}, the right ones among them; '' is unreadable."""
    counts: dict[tuple[str, str], int] = {}
    for one in answered:
        pair = _label_pair(task.labels, one)
        counts[pair] = counts.get(pair, 0) + 1
    order = [*task.labels, ""]
    return [
        {"label": true, "said": said, "count": counts[true, said]}
        for true in order
        for said in order
        if (true, said) in counts
    ]


# --- classification -------------------------------------------------------------------------------------


def _label_pair(labels: Sequence[str], one: Answered) -> tuple[str, str]:
    """The right label and the one that was said, '' for none. Of several right ones the one that was said."""
    read = read_label(one.text, labels)
    said = read[0] if read else ""
    return said if said in one.accepted else one.accepted[0], said


def _of_labels(labels: Sequence[str], answered: Sequence[Answered]) -> Contributions:
    """Columns: right, said and true, each once for every label."""
    import numpy as np

    place = {label: number for number, label in enumerate(labels)}
    rows = np.zeros((len(answered), 3 * len(labels)))
    for at, one in enumerate(answered):
        true, said = _label_pair(labels, one)
        rows[at, 2 * len(labels) + place[true]] = 1
        if said:
            rows[at, len(labels) + place[said]] = 1
            rows[at, place[said]] = said == true
    return Contributions(rows, _MACRO)


def _macro(kind: str) -> Callable[[Floats], Floats]:
    def value(sums: Floats) -> Floats:
        import numpy as np

        right, said, true = np.split(sums, 3, axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            of_label = {
                "precision": np.where(said > 0, right / said, 0.0),
                "recall": right / true,
                "f1": 2 * right / (said + true),
            }[kind]
            return np.nansum(np.where(true > 0, of_label, np.nan), axis=1) / (true > 0).sum(axis=1)

    return value


_AVERAGED = " averaged over the labels that some input has, each counting as much; an unreadable answer names no label."
_MACRO = (
    SetMetric(
        "sklearn.precision_macro/1", "Macro precision",
        f"Inputs of a label that were called so ÷ inputs that were called so (0 for none),{_AVERAGED}", _macro("precision"),
    ),
    SetMetric(
        "sklearn.recall_macro/1", "Macro recall", f"Inputs of a label that were called so ÷ inputs of it,{_AVERAGED}",
        _macro("recall"),
    ),
    SetMetric(
        "sklearn.f1_macro/1", "Macro F1",
        f"2·right ÷ (inputs of a label + inputs that were called so),{_AVERAGED}", _macro("f1"),
    ),
)  # fmt: skip


# --- extraction -----------------------------------------------------------------------------------------


def _of_fields(fields: Sequence[str], answered: Sequence[Answered]) -> Contributions:
    """Columns: right, too much and missing, each once for every field."""
    import numpy as np

    rows = np.zeros((len(answered), 3 * len(fields)))
    for at, one in enumerate(answered):
        said = read_fields(one.text, fields) or {}
        # against the accepted object that fits best as a whole
        counted = [_by_field(fields, said, json.loads(accepted)) for accepted in one.accepted]
        best = max(counted, key=lambda counts: sum(right for right, _, _ in counts))
        for place, counts in enumerate(best):
            rows[at, place :: len(fields)] = counts
    metrics = [
        SetMetric("genaiops.extraction_f1_micro/1", "Micro field F1", _MICRO, _micro(range(len(fields)), len(fields)))
    ]
    metrics += [
        SetMetric(
            f"genaiops.extraction_f1_field/1[{field}]", f"F1 of {field}", "Field F1 of this field over all inputs.",
            _micro([place], len(fields)),
        )
        for place, field in enumerate(fields)
    ]  # fmt: skip
    return Contributions(rows, tuple(metrics))


_MICRO = "2·right ÷ (2·right + too much + missing) values over all fields of all inputs; a failed or unreadable answer gives none."


def _by_field(fields: Sequence[str], said: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[tuple[int, int, int]]:
    return [field_counts({field: said.get(field)}, {field: wanted.get(field)}) for field in fields]


def _micro(places: Sequence[int], width: int) -> Callable[[Floats], Floats]:
    def value(sums: Floats) -> Floats:
        import numpy as np

        right, extra, missing = (sums[:, [place + part * width for place in places]].sum(axis=1) for part in range(3))
        with np.errstate(invalid="ignore", divide="ignore"):
            return 2 * right / (2 * right + extra + missing)

    return value


# --- translation ----------------------------------------------------------------------------------------


def _of_texts(answered: Sequence[Answered]) -> list[Contributions]:
    """What sacrebleu counts of each sentence; its corpus scores are computed from the sums of these."""
    import numpy as np
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    most = max((len(one.accepted) for one in answered), default=0)
    said = [one.text for one in answered]
    streams: Any = [[one.accepted[n] if n < len(one.accepted) else None for one in answered] for n in range(most)]
    found = []
    for tool, identity, title in (
        (BLEU(force=True), "sacrebleu.corpus_bleu/1", "Corpus BLEU"),
        (CHRF(), "sacrebleu.corpus_chrf/1", "Corpus chrF"),
    ):
        rows = np.array(tool._extract_corpus_statistics(said, streams), dtype=float)  # what its own bootstrap uses

        def value(sums: Floats, tool: Any = tool) -> Floats:
            scores = [tool._compute_score_from_stats(row.tolist()).score / 100 for row in sums]
            return np.minimum(np.array(scores), 1.0)  # identical texts give 1.0000000000000004

        text = f"{title.removeprefix('Corpus ')} of all answers together (sacrebleu, its defaults) ÷ 100."
        found.append(Contributions(rows, (SetMetric(identity, title, text, value, costly=True),)))
    return found
