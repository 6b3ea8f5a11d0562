"""Task metrics: equal to scikit-learn, sacrebleu and rouge-score, and the worst for what cannot be read."""

import json
import math
import random
from typing import Any

import numpy as np
import pytest

from assets.evaluation.metrics import tasks, whole_set
from assets.evaluation.metrics.base import METRICS, TrialRecord, score
from assets.evaluation.metrics.catalogue import group_of
from assets.evaluation.metrics.hugging_face import metric_class
from assets.evaluation.metrics.whole_set import Answered, contributions
from assets.experiments import task_board
from resources.task_config import TaskSpec

LABELS = ("a", "b", "c", "d")
CLASSES = TaskSpec(kind="classification", labels=LABELS)
FIELDS = TaskSpec(kind="extraction", fields=("x", "y", "z"))
TRANSLATION = TaskSpec(kind="translation", languages={"from": "en", "to": "de"})


def record(
    answer: str, reference: str, task: Any = "classification", *, failed: bool = False, **more: Any
) -> TrialRecord:
    given = {
        "labels": LABELS if task == "classification" else (),
        "fields": FIELDS.fields if task == "extraction" else (),
        **more,
    }
    return TrialRecord(
        question_id="q", question="The input has these words.", answerable=True, reference=reference, gold=(), hits=(),
        answer=answer, refused=False, failed=failed, task=task, **given,
    )  # fmt: skip


def labelled(seed: int = 1, size: int = 300) -> tuple[list[str], list[str], list[list[float]]]:
    """True labels, labels said ('' for an unreadable answer) and probabilities; nothing is of label d."""
    rng = random.Random(seed)
    true = [rng.choice("abc") for _ in range(size)]
    said = [label if rng.random() < 0.6 else rng.choice(["a", "b", "c", "d", ""]) for label in true]
    raw = [[rng.random() ** 3 for _ in LABELS] for _ in true]
    return true, said, [[value / sum(row) for value in row] for row in raw]


def test_accuracy_is_that_of_scikit_learn() -> None:
    from sklearn.metrics import accuracy_score

    true, said, _ = labelled()
    values = score([record(answer, label) for answer, label in zip(said, true, strict=True)], ["sklearn.accuracy/1"])
    assert np.array(values["sklearn.accuracy/1"], float).mean() == pytest.approx(accuracy_score(true, said), abs=1e-9)


def test_log_loss_is_that_of_scikit_learn() -> None:
    from sklearn.metrics import log_loss

    true, _, probabilities = labelled()
    probabilities[0] = [0.0, 0.5, 0.5, 0.0]
    true[0] = "a"  # no probability at all
    said = [json.dumps({"probabilities": dict(zip(LABELS, row, strict=True))}) for row in probabilities]
    values = score([record(text, label) for text, label in zip(said, true, strict=True)], ["sklearn.log_loss/1"])
    expected = log_loss(true, probabilities, labels=list(LABELS))
    assert np.array(values["sklearn.log_loss/1"], float).mean() == pytest.approx(expected, abs=1e-9)
    assert values["sklearn.log_loss/1"][0] == tasks.WORST_LOG_LOSS == METRICS["sklearn.log_loss/1"].worst


@pytest.mark.parametrize("seed", range(5))
def test_macro_values_are_those_of_scikit_learn(seed: int) -> None:
    from sklearn import metrics

    of_library: Any = metrics.precision_recall_fscore_support
    true, said, _ = labelled(seed, 80)
    answered = [Answered(answer, (label,)) for answer, label in zip(said, true, strict=True)]
    (part,) = contributions(CLASSES, answered)
    values = [float(metric.value(part.rows.sum(axis=0, keepdims=True))[0]) for metric in part.metrics]
    expected = of_library(true, said, labels=sorted(set(true)), average="macro", zero_division=0)
    assert values == pytest.approx(list(expected[:3]), abs=1e-9)


def test_macro_f1_is_no_mean_of_means() -> None:
    """One label with many inputs does not hide that another is never found."""
    answered = [Answered("a", ("a",))] * 98 + [Answered("a", ("b",))] * 2
    (part,) = contributions(CLASSES, answered)
    f1 = part.metrics[2].value(part.rows.sum(axis=0, keepdims=True))[0]
    assert f1 == pytest.approx((2 * 98 / 198 + 0) / 2)


def test_field_f1_is_that_of_scikit_learn() -> None:
    """Each (field, value) as a class of its own: per input, and micro-averaged over all inputs."""
    from sklearn import metrics, preprocessing

    f1_score: Any = metrics.f1_score

    def several(value: Any) -> list[str]:
        return value if isinstance(value, list) else [value] if value else []

    rng = random.Random(4)
    objects = [{field: rng.choice([None, "v1", "v2", ["v1", "v3"]]) for field in FIELDS.fields} for _ in range(400)]
    wanted, said = objects[:200], objects[200:]
    pairs = [
        [{(field, value) for field in one for value in several(one[field])} for one in side] for side in (wanted, said)
    ]
    binary = preprocessing.MultiLabelBinarizer().fit(pairs[0] + pairs[1])
    transformed: Any = [binary.transform(side) for side in pairs]
    true, predicted = transformed
    records = [record(json.dumps(a), json.dumps(w), "extraction") for a, w in zip(said, wanted, strict=True)]
    values = score(records, ["genaiops.extraction_f1/1"])["genaiops.extraction_f1/1"]
    expected = [f1_score(t, p, zero_division=1.0) for t, p in zip(true, predicted, strict=True)]
    assert values == pytest.approx(expected, abs=1e-9)
    (part,) = contributions(
        FIELDS, [Answered(json.dumps(a), (json.dumps(w),)) for a, w in zip(said, wanted, strict=True)]
    )
    micro = part.metrics[0].value(part.rows.sum(axis=0, keepdims=True))[0]
    assert micro == pytest.approx(f1_score(true, predicted, average="micro"), abs=1e-9)


def test_corpus_scores_are_those_of_sacrebleu() -> None:
    import sacrebleu

    rng = random.Random(2)
    words = ["der", "die", "das", "Haus", "Baum", "steht", "grün", "am", "alten", "Weg", "und", "nicht", "weit"]
    said = [" ".join(rng.choices(words, k=rng.randint(3, 9))) for _ in range(60)]
    wanted = [" ".join(rng.choices(words, k=rng.randint(3, 9))) for _ in range(60)]
    more = [" ".join(rng.choices(words, k=6)) if rng.random() < 0.5 else None for _ in range(60)]
    answered = [
        Answered(text, (first,) if second is None else (first, second))
        for text, first, second in zip(said, wanted, more, strict=True)
    ]
    values = [
        part.metrics[0].value(part.rows.sum(axis=0, keepdims=True))[0] for part in contributions(TRANSLATION, answered)
    ]
    streams: Any = [wanted, more]
    expected = [sacrebleu.corpus_bleu(said, streams).score / 100, sacrebleu.corpus_chrf(said, streams).score / 100]
    assert values == pytest.approx(expected, abs=1e-9)


def test_summaries_and_translations_have_the_values_of_the_references() -> None:
    import sacrebleu
    from rouge_score import rouge_scorer

    answer, reference = "The tram line cut its night service.", "Its night service was cut by the tram line in May."
    values = score([record(answer, reference, "summarization")])
    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    for name, expected in scorer.score(reference, answer).items():
        assert values[f"rouge.{name}/1"] == [pytest.approx(expected.fmeasure, abs=1e-9)]
    assert values["sacrebleu.chrf/1"] == [
        pytest.approx(sacrebleu.sentence_chrf(answer, [reference]).score / 100, abs=1e-9)
    ]
    bleu = sacrebleu.sentence_bleu(answer, [reference]).score / 100
    assert values["sacrebleu.bleu/1"] == [pytest.approx(bleu, abs=1e-9)]
    assert values["genaiops.length_ratio/1"] == [pytest.approx(7 / 11)]
    assert values["genaiops.kept_share/1"] == [1.0]  # longer than its input of five words
    assert score([record("The input", reference, "summarization")])["genaiops.copied_share/1"] == [1.0]


@pytest.mark.parametrize("task", ["classification", "summarization", "translation", "extraction"])
def test_what_is_about_something_else_is_undefined(task: Any) -> None:
    """Retrieval, groundedness and refusal say nothing of a task without documents, and must not read 0."""
    reference = {"classification": "a", "extraction": json.dumps({"x": 1, "y": None, "z": None})}.get(task, "A text.")
    for one in (record("a", reference, task), record("", reference, task, failed=True)):
        for metric, values in score([one]).items():
            if task not in METRICS[metric].tasks:
                assert values == [None], metric
    mine = {metric for metric, definition in METRICS.items() if task in definition.tasks}
    assert not any(metric.startswith(("genaiops.recall", "genaiops.refusal", "ragas.", "msft.")) for metric in mine)


@pytest.mark.parametrize(("text", "failed"), [("I cannot tell.", False), ("", True)])
def test_what_cannot_be_read_is_the_worst_and_counted(text: str, failed: bool) -> None:
    values = score([record(text, "a", failed=failed)])
    assert values["sklearn.accuracy/1"] == [0.0]
    assert values["sklearn.log_loss/1"] == [pytest.approx(36.0436533891)]
    assert values["genaiops.readable/1"] == [0.0]
    found = score([record(text, json.dumps({"x": 1, "y": 2, "z": None}), "extraction", failed=failed)])
    assert (found["genaiops.extraction_f1/1"], found["genaiops.extraction_exact/1"]) == ([0.0], [0.0])
    assert whole_set.unreadable(CLASSES, [Answered(text, ("a",)), Answered("a", ("a",))]) == 1


def test_a_label_without_probabilities_has_no_log_loss() -> None:
    values = score([record("a", "a"), record("b", "a")])
    assert values["sklearn.log_loss/1"] == [None, None]
    assert values["sklearn.accuracy/1"] == [1.0, 0.0]
    assert values["genaiops.readable/1"] == [1.0, 1.0]


def test_several_accepted_answers() -> None:
    values = score([record("b", "a", references=("a", "b"))])
    assert values["sklearn.accuracy/1"] == [1.0]
    assert whole_set.confusions(CLASSES, [Answered("b", ("a", "b")), Answered("c", ("a", "b")), Answered("?", ("a",))]) == [
        {"label": "a", "said": "c", "count": 1}, {"label": "a", "said": "", "count": 1}, {"label": "b", "said": "b", "count": 1},
    ]  # fmt: skip
    objects = ('{"x": 1, "y": 2, "z": null}', '{"x": 1, "y": 3, "z": null}')
    found = score([record('{"x": "1", "y": 3}', objects[0], "extraction", references=objects)])
    assert found["genaiops.extraction_exact/1"] == [1.0]


def test_a_wrong_value_counts_twice() -> None:
    """It is too much, and what was wanted is missing; a value nobody wanted is only too much."""
    assert tasks.field_counts({"x": "1", "y": "2"}, {"x": "1", "y": "3", "z": None}) == (1, 1, 1)
    assert tasks.field_counts({"z": "2"}, {"x": None, "z": None}) == (0, 1, 0)
    assert tasks.field_f1((0, 0, 0)) == 1.0
    assert tasks.field_counts({"x": ["b", "a", "a"]}, {"x": ["a", "b", "b"]}) == (2, 1, 1)


def test_hugging_face_metrics_give_the_values_of_score() -> None:
    records = {
        "classification": [record("a", "a"), record('{"probabilities": {"a": 0.2, "b": 0.8}}', "a"), record("?", "b")],
        "extraction": [record('{"x": 1}', '{"x": 1, "y": 2, "z": null}', "extraction"), record("?", '{"x": 1, "y": 2, "z": null}', "extraction")],
        "summarization": [record("The words.", "Some words.", "summarization")],
    }  # fmt: skip
    for metric, definition in METRICS.items():
        if "rag" in definition.tasks:
            continue
        for task, ones in records.items():
            if task in definition.tasks:
                rows: list[Any] = [group_of(metric).row(one) for one in ones]
                tool: Any = metric_class(metric)()
                computed = tool.compute(**{name: [row[name] for row in rows] for name in tool.info.features})
                assert computed["values"] == [pytest.approx(value) for value in score(ones, [metric])[metric]], metric


def test_every_task_metric_says_what_it_is() -> None:
    for metric, definition in METRICS.items():
        if "rag" not in definition.tasks:
            assert math.isfinite(definition.worst), metric
            assert metric in task_board.HEADLINES["summarization"] + task_board.HEADLINES["classification"] + task_board.HEADLINES["extraction"]  # fmt: skip
