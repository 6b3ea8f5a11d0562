"""SQuAD 2.0 as corpus and evaluation set: converted, loaded, scored; the unanswerable half is reported apart."""

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from assets.evaluation.importers.squad import convert_squad
from assets.evaluation.metrics.base import METRICS
from resources.platform import Platform
from tests.lifecycle import build_dataset, refresh, run_experiment

#: Enough for stable means, few enough for a test; chosen by hash, so every run has the same ones.
QUESTIONS = 300
K = 5
PROMPT = Path(__file__).resolve().parents[2] / "data" / "prompts" / "exact.yaml"
#: Least recall@K: 0.94 and 0.95 were measured on the 83 answerable questions of the dev split, less three standard errors.
FLOORS = {"hybrid": 0.86, "full_text": 0.88}
#: Least token F1 (0.26 was measured) and refusal F1 (0.39) of the offline answerer, likewise.
MINIMUM_F1 = 0.13
MINIMUM_REFUSAL_F1 = 0.2


def thin(path: Path, count: int) -> list[dict[str, Any]]:
    """Keep ``count`` questions of a file, chosen by the hash of their ids."""
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    kept = sorted(lines, key=lambda line: hashlib.sha256(line["id"].encode()).hexdigest())[:count]
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in kept), encoding="utf-8")
    return kept


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def squad(shared_data: Path, tmp_path: Path, make_platform: Callable[..., Platform]) -> Platform:
    """A project whose source, questions and experiment are SQuAD 2.0's."""
    report = convert_squad(shared_data / "squad2", tmp_path / "squad", name="squad")
    assert (report.documents, report.questions, report.unanswerable) == (10, 4025, 1997)
    thin(tmp_path / "squad" / "questions.jsonl", QUESTIONS)
    choice = {"index": "squad", "prompt": "exact", "search_mode": "hybrid", "k": K, "model": "extractive"}
    return make_platform(
        **{
            "sources.yaml": {"sources": [{"name": "squad", "path": str(tmp_path / "squad" / "documents")}]},
            "indexes/main.yaml": {
                "name": "squad",
                "embedder": "lexical",
                "chunker": {"kind": "markdown", "unit": "characters", "size": 800},
            },
            "prompts/exact.yaml": PROMPT.read_text(encoding="utf-8"),
            "evaluation/squad.yaml": {
                "name": "squad",
                "questions": str(tmp_path / "squad" / "questions.jsonl"),
                "sources": ["squad"],
                "licence": "CC-BY-SA-4.0",
            },
            "experiments/squad.yaml": {
                "name": "squad",
                "dataset": "squad",
                "split": "dev",
                "grid": {**{axis: [value] for axis, value in choice.items()}, "search_mode": ["hybrid", "full_text"]},
                "baseline": choice,
                "resamples": 2000,
            },
        }
    )


@pytest.mark.slow
def test_squad2_is_scored_with_its_unanswerable_half_apart(squad: Platform, instance: dg.DagsterInstance) -> None:
    corpus = refresh(squad, "squad", instance)
    assert corpus["raw_documents"]["added"] == 10
    assert corpus["raw_documents"]["quarantined"] == 0
    build_dataset(squad, "squad", instance)
    with squad.database.connect() as connection:
        statuses = dict(
            connection.execute("SELECT status, count(*) FROM evaluation_question GROUP BY status").fetchall()
        )
        moved = connection.execute(
            "SELECT count(*) FROM evaluation_evidence e JOIN document_text t USING (text_hash) "
            "WHERE substr(t.text, e.start_char + 1, e.end_char - e.start_char) <> e.quote"
        ).fetchone()
    assert statuses == {"active": QUESTIONS}, "a question of SQuAD lost its evidence"
    assert moved == (0,), "a span does not stand on its answer"

    run_experiment(squad, "squad", instance)
    with squad.database.connect() as connection:
        row = connection.execute("SELECT leaderboard FROM experiment_result").fetchone()
    assert row is not None
    board = row[0]
    halves = board["questions"]
    assert halves["stale"] == 0
    assert halves["answerable"] + halves["unanswerable"] == halves["compared"]
    assert min(halves["answerable"], halves["unanswerable"]) > QUESTIONS / 6, "a half is missing from the dev split"

    assert {entry["search_mode"] for entry in board["rows"]} == set(FLOORS)
    for entry in board["rows"]:
        report(entry, halves)
        assert entry["failed"] == 0
        check_metrics(entry["metrics"], halves)
        assert entry["metrics"][f"genaiops.recall@{K}/2"]["answerable"] > FLOORS[entry["search_mode"]]
        assert entry["metrics"]["squad.f1/1"]["answerable"] > MINIMUM_F1
        assert entry["refusal"]["f1"] > MINIMUM_REFUSAL_F1
        halved = entry["metrics"]["genaiops.answer_quality/1"]
        both = halved["answerable"] * halves["answerable"] + halved["unanswerable"] * halves["unanswerable"]
        assert entry["decision"]["estimate"] == pytest.approx(both / halves["compared"])


def check_metrics(metrics: dict[str, dict[str, Any]], halves: dict[str, int]) -> None:
    """Every value is finite; what applies to answerable questions is undefined on the others, and defined on them."""
    for name, values in metrics.items():
        for half in ("answerable", "unanswerable"):
            value, defined = values[half], values[f"{half}_defined"]
            assert (value is None) == (defined == 0), f"{name} on {half}: {value} over {defined} values"
            assert value is None or math.isfinite(value)
        applies_to = METRICS[name].applies_to
        if applies_to in ("all questions", "answerable questions", "answerable questions with a reference answer"):
            assert values["answerable_defined"] == halves["answerable"], f"{name} is missing on answerable questions"
        if applies_to == "all questions":
            assert values["unanswerable_defined"] == halves["unanswerable"]
        if applies_to.startswith("answerable"):
            assert values["unanswerable"] is None, f"{name} has a value on questions without an answer"


def report(entry: dict[str, Any], halves: dict[str, int]) -> None:
    """Print the scores of a variant, half by half."""
    print(f"\n{entry['variant']}: {halves['answerable']} answerable, {halves['unanswerable']} unanswerable questions")
    for name, values in entry["metrics"].items():
        shown = [
            "undefined" if values[half] is None else f"{values[half]:.3f}" for half in ("answerable", "unanswerable")
        ]
        print(f"  {name:40} {shown[0]:>10} {shown[1]:>10}")
    print(f"  refusal: {entry['refusal']}")
