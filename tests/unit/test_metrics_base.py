"""The catalogue of metrics: complete, undefined in the right places, batched, and free of the network."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from assets.evaluation.metrics.base import METRICS, aggregate, score
from assets.evaluation.metrics.catalogue import group_of
from assets.evaluation.metrics.hugging_face import metric_class
from tests.unit.metric_records import Hit, hits, record

BEST_OF = [
    "genaiops.answer_quality/1", "squad.exact_match/1", "squad.f1/1", "sacrebleu.bleu/1", "sacrebleu.chrf/1", "rouge.rouge1/1",
    "rouge.rougeL/1", "nltk.meteor_exact_stem/1", "genaiops.correctness_lexical/1",
]  # fmt: skip


def test_every_metric_scores_every_kind_of_trial() -> None:
    found = (Hit(1, 0, 10, "The range is 80 km.", "Range"),)
    records = [
        record("80 km", "80 km", retrieved=found),
        record("no idea", "80 km", refused=True),
        record("The documents do not say.", None, refused=True),
        record("80 km", None, retrieved=found),
        record("", "80 km", failed=True),
        record("", None, failed=True),
    ]
    scores = score(records)
    assert list(scores) == list(METRICS)
    for metric, values in scores.items():
        assert len(values) == len(records)
        assert any(value is not None for value in values) is ("rag" in METRICS[metric].tasks), metric
        assert all(value is None or 0 <= value <= 1 for value in values), metric


def test_ids_are_namespaced_and_versioned_and_tell_their_definition() -> None:
    for metric, definition in METRICS.items():
        assert metric == definition.id
        assert metric.split("/")[1].isdigit()
        assert "." in metric
        assert definition.definition
        assert definition.applies_to


def test_no_trials_give_no_values() -> None:
    assert all(values == [] for values in score([]).values())


def test_value_does_not_depend_on_the_other_trials() -> None:
    chunk = Hit(1, 0, 40, "The range is 80 km. Charging takes four hours.")
    records = [record(f"The range is {n} km.", "80 km", retrieved=(chunk,)) for n in (80, 70, 60)]
    together, alone = score(records), [score([one]) for one in records]
    assert {metric: [one[metric][0] for one in alone] for metric in METRICS} == together


def test_unknown_metric_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"no metric 'genaiops.recal/2'.*Did you mean 'genaiops.recall/2'"):
        score([], ["genaiops.recal/2"])


def test_aggregate_leaves_undefined_values_out() -> None:
    assert aggregate("genaiops.recall/2", [1, None, 0, None]) == 0.5
    assert aggregate("genaiops.recall/2", [None, None]) is None
    assert aggregate("genaiops.recall/2", []) is None
    assert aggregate("genaiops.refusal_f1/1", [1, 1, 0, None]) == pytest.approx(4 / 5)


def test_each_metric_is_a_hugging_face_metric_of_its_own() -> None:
    import evaluate

    classes = {metric: metric_class(metric) for metric in METRICS}
    assert len({one.__name__ for one in classes.values()}) == len(METRICS)
    assert all(issubclass(one, evaluate.Metric) for one in classes.values())
    both = evaluate.combine({"em": classes["squad.exact_match/1"](), "f1": classes["squad.f1/1"]()}, force_prefix=True)
    result: Any = both.compute(predictions=["80 km", "red"], references=[["80 km"], ["red green"]])
    assert (result["em_score"], result["f1_values"]) == (0.5, [1, pytest.approx(2 / 3)])


def test_hugging_face_metrics_give_the_values_of_score() -> None:
    found = (Hit(1, 0, 10, "The range is 80 km on flat ground.", "Range"), Hit(2, 0, 5, "Steel frame."))
    records = [
        record("The range is 80 km [1].", "about 80 km", retrieved=found, references=("80 kilometres",)),
        record("red", "80 km", retrieved=found[1:], question="How far does it go?"),
        record("80 km", None, retrieved=found),
    ]
    scores = score(records)
    for metric, column in scores.items():
        group = group_of(metric)
        rows = [(row, value) for one, value in zip(records, column, strict=True) if (row := group.row(one)) is not None]
        features: Any = metric_class(metric)().info.features
        inputs = features.keys()
        columns = {name: [row[name] for row, _ in rows] for name in inputs}
        computed: Any = metric_class(metric)().compute(**columns)
        assert computed["values"] == [pytest.approx(value) for _, value in rows], metric


def test_failed_trials_get_the_worst_value_whichever_end_that_is() -> None:
    lower = "genaiops.false_retrieval_lexical/1"
    assert not METRICS[lower].higher_is_better
    assert score([record("", None, failed=True)], [lower])[lower] == [1]
    assert score([record("", "80 km", failed=True)], ["squad.f1/1"])["squad.f1/1"] == [0]


def test_the_best_accepted_answer_counts() -> None:
    one = record("four hours", "4 h", references=("about four hours", "four hours"))
    for metric, values in score([one, record("four hours", "4 h")], BEST_OF).items():
        best, alone = values
        assert best is not None
        assert alone is not None
        assert best > alone, metric
    assert score([one], ["squad.exact_match/1"])["squad.exact_match/1"] == [1]


def test_answerable_questions_without_a_written_answer_have_no_answer_score() -> None:
    one = record("80 km", "x", retrieved=hits((1, 0, 10)))
    one = replace(one, reference=None)
    scores = score([one])
    assert scores["genaiops.recall/2"] == [1]
    for metric, (value,) in scores.items():
        if "reference" in METRICS[metric].looks_at:
            assert value is None, metric


def test_values_depend_on_what_a_metric_looks_at_and_on_nothing_else() -> None:
    """Trials that are equal in ``looks_at`` are scored once: what it leaves out must not matter."""
    chunk, other = (
        Hit(1, 0, 40, "The range is 80 km. Charging takes four hours.", "R"),
        Hit(2, 5, 9, "Steel frame.", "S"),
    )
    full = record("The range is 80 km.", "80 km", retrieved=(chunk, other), question="What is the range?")
    changes: dict[str, dict[str, Any]] = {
        "hits": {"hits": (other,)},
        "answer": {"answer": "Steel [2]."},
        "citations": {"citations": (other,)},
    }
    moved = set()
    for part, change in changes.items():
        before, after = score([full]), score([replace(full, **change)])
        for metric, definition in METRICS.items():
            if before[metric] != after[metric]:
                moved.add(metric)
                assert part in definition.looks_at, (metric, part)
    assert len(moved) > 30


def test_scoring_needs_neither_network_nor_a_writable_cache(tmp_path: Path) -> None:
    locked = tmp_path / "file"
    locked.write_text("a file where HF_HOME should be a folder")
    code = (
        "import socket\n"
        "def refuse(*a, **k): raise AssertionError('network')\n"
        "socket.socket.connect = refuse\n"
        "from tests.unit.metric_records import record\n"
        "from assets.evaluation.metrics.base import score\n"
        "print(score([record('80 km', '80 km')])['rouge.rougeL/1'])\n"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, "HF_HOME": str(locked / "cache"), "TMPDIR": str(tmp_path)},
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout.strip() == "[1.0]", run.stderr


def test_catalogue_loads_without_heavy_libraries() -> None:
    code = (
        "import sys, assets.evaluation.metrics.base, assets.evaluation.metrics.hugging_face\n"
        "print([name for name in ('evaluate', 'datasets', 'nltk', 'pandas', 'sacrebleu', 'rouge_score') if name in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == "[]"
