"""A set without answers, end to end: BEIR in, whole documents as evidence, search modes compared by nDCG."""

import json
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest
import yaml

from assets.evaluation.importers.beir import convert_beir
from resources.platform import Platform
from tests.lifecycle import build_dataset, refresh, run_experiment

QUERIES, DISTRACTORS = 60, 120
PROMPT = {"name": "plain", "system": "Answer. Else: {{ refusal }}", "user": "{{ passages }} {{ question }}"}


def part_of_scifact(source: Path, folder: Path) -> Path:
    """Some queries with their documents, and others that are relevant for none of them."""
    rows = (source / "qrels.tsv").read_text(encoding="utf-8").splitlines()
    queries = {
        row["_id"]: row for row in map(json.loads, (source / "queries.jsonl").read_text(encoding="utf-8").splitlines())
    }
    kept = dict(list(queries.items())[:QUERIES])
    judged = [row for row in rows[1:] if row.split("\t")[0] in kept]
    wanted = {row.split("\t")[1] for row in judged}
    folder.mkdir()
    others = 0
    with (folder / "corpus.jsonl").open("w", encoding="utf-8") as out:
        for line in (source / "corpus.jsonl").read_text(encoding="utf-8").splitlines():
            relevant = json.loads(line)["_id"] in wanted
            others += not relevant
            if relevant or others <= DISTRACTORS:
                out.write(line + "\n")
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, kept.values())), encoding="utf-8")
    (folder / "qrels.tsv").write_text("\n".join([rows[0], *judged]), encoding="utf-8")
    return folder


@pytest.mark.slow
def test_search_modes_are_compared_on_a_set_without_answers(
    shared_data: Path, tmp_path: Path, make_platform: Callable[..., Platform]
) -> None:
    source = part_of_scifact(shared_data / "scifact", tmp_path / "part")
    report = convert_beir(source, tmp_path / "set", name="docs")
    assert (report.questions, report.skipped) == (QUERIES, [])
    header = yaml.safe_load((tmp_path / "set" / "dataset.yaml").read_text(encoding="utf-8"))
    choice = {"index": "main", "prompt": "plain", "search_mode": "vector", "k": 10, "model": "extractive"}
    platform = make_platform(
        **{
            "sources.yaml": {"sources": [{"name": "docs", "path": str(tmp_path / "set" / "documents")}]},
            "prompts/plain.yaml": PROMPT,
            "evaluation/claims.yaml": {**header, "name": "claims", "questions": "claims.jsonl"},
            "evaluation/claims.jsonl": (tmp_path / "set" / "questions.jsonl").read_text(encoding="utf-8"),
            "experiments/search.yaml": {
                "name": "search",
                "dataset": "claims",
                "decision_metric": "genaiops.ndcg@10/2",
                "grid": {**{axis: [value] for axis, value in choice.items()}, "search_mode": ["vector", "full_text"]},
                "baseline": choice,
                "resamples": 2000,
            },
        }
    )
    with dg.DagsterInstance.ephemeral() as instance:
        refresh(platform, "docs", instance)
        build_dataset(platform, "claims", instance)
        run_experiment(platform, "search", instance)
    with platform.database.connect() as connection:
        row = connection.execute("SELECT leaderboard FROM experiment_result").fetchone()
        counts = connection.execute("SELECT counts FROM evaluation_dataset").fetchone()
    assert row is not None
    assert counts is not None
    assert (counts[0]["active"], counts[0]["stale"], counts[0]["unanswerable"]) == (QUERIES, 0, 0)
    means = {
        entry["variant"].split("/")[2]: entry["metrics"]["genaiops.ndcg@10/2"]["answerable"] for entry in row[0]["rows"]
    }
    assert means["full_text"] > 0.7
    assert means["full_text"] > means["vector"] > 0.3
    missing = [entry["metrics"].get("squad.f1/1", {}).get("answerable") for entry in row[0]["rows"]]
    assert missing == [None, None]  # there is no answer to compare with: undefined, not zero
