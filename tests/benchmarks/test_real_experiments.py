"""Whole experiments on real data sets: SQuAD 2.0, SciFact, XQuAD in eight languages, the chunking evaluation.

Run with ``make bench``; docs/benchmarks.md holds the tables. What is asserted does not depend on the machine: every
question arrives, the halves and languages are apart, and a search that is known to be better is found to be.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from assets.evaluation.importers.beir import convert_beir
from assets.evaluation.importers.excerpts import convert_excerpts
from assets.evaluation.importers.squad import convert_squad
from resources.platform import Platform
from tests.benchmarks.measuring import show
from tests.lifecycle import build_dataset, refresh, run_experiment

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(3600)]

PROMPT = Path(__file__).resolve().parents[2] / "data" / "prompts" / "exact.yaml"
LANGUAGES = ["ar", "de", "en", "es", "hi", "ru", "tr", "zh"]
CHUNKER = {"kind": "markdown", "unit": "characters", "size": 800}
#: Cut sizes in characters, of the chunking evaluation.
SIZES = [400, 800, 1600]


def run(
    make_platform: Callable[..., Platform], folder: Path, **experiment: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Load an imported set, run an experiment on it, and return its leaderboard with what the run reported.

    Args:
        folder: what an importer wrote.
        experiment: of the experiment's file; ``indexes`` are settings by index name.
    """
    header = yaml.safe_load((folder / "dataset.yaml").read_text(encoding="utf-8"))
    indexes = experiment.pop("indexes", {"main": {}})
    choice = {"index": next(iter(indexes)), "prompt": "exact", "search_mode": "hybrid", "k": 5, "model": "extractive"}
    grid = {axis: [value] for axis, value in choice.items()} | {"index": list(indexes)} | experiment.pop("grid", {})
    baseline = {axis: grid[axis][0] for axis in choice} | experiment.pop("baseline", {})
    platform = make_platform(
        **{
            "sources.yaml": {"sources": [{"name": "documents", "path": str(folder / "documents")}]},
            **{
                # the fixture has a file main.yaml, so that one of them must replace it
                f"indexes/{'main' if at == 0 else name}.yaml": {
                    "name": name, "embedder": "lexical", "chunker": CHUNKER, **settings,
                }
                for at, (name, settings) in enumerate(indexes.items())
            },
            "prompts/exact.yaml": PROMPT.read_text(encoding="utf-8"),
            "evaluation/real.yaml": {**header, "name": "real", "questions": str(folder / "questions.jsonl")},
            "experiments/real.yaml": {
                "name": "real", "dataset": "real", "split": "dev", "grid": grid, "baseline": baseline, "resamples": 2000,
                **experiment,
            },
        }
    )  # fmt: skip
    with dg.DagsterInstance.ephemeral() as instance:
        refresh(platform, "documents", instance)
        build_dataset(platform, "real", instance)
        began = time.monotonic()
        work = run_experiment(platform, "real", instance)["scored_variants"]
        work["seconds"] = time.monotonic() - began
    with platform.database.connect() as connection:
        row = connection.execute("SELECT leaderboard FROM experiment_result").fetchone()
        counts = connection.execute("SELECT counts FROM evaluation_dataset").fetchone()
    assert row is not None
    assert counts is not None
    assert counts[0]["stale"] == 0
    assert all(entry["failed"] == 0 for entry in row[0]["rows"])
    return row[0], work


def tell(title: str, board: dict[str, Any], work: dict[str, Any], metrics: list[str]) -> None:
    """Print a leaderboard with its times."""
    halves = board["questions"]
    rows = [
        [
            entry["variant"],
            *(entry["metrics"][metric]["answerable"] for metric in metrics),
            entry["refusal"]["f1"],
            "" if entry["difference"] is None else round(entry["difference"]["estimate"], 4),
            "" if entry["p_adjusted"] is None else round(entry["p_adjusted"], 4),
        ]
        for entry in board["rows"]
    ]
    trials, seconds = work["dagster/row_count"], work["seconds"]
    show(
        f"{title}: {halves['answerable']} answerable and {halves['unanswerable']} unanswerable questions; {trials} trials in "
        f"{seconds:.1f} s ({trials / seconds:.0f}/s)",
        ["variant", *metrics, "refusal F1", "difference", "p (Holm)"],
        rows,
    )


def test_squad2(shared_data: Path, tmp_path: Path, make_platform: Callable[..., Platform]) -> None:
    """Every question of the dev half, the answerable and the unanswerable apart."""
    report = convert_squad(shared_data / "squad2", tmp_path / "set", name="documents")
    assert (report.questions, report.unanswerable) == (4025, 1997)
    board, work = run(make_platform, tmp_path / "set", grid={"search_mode": ["vector", "full_text", "hybrid"]})
    tell("SQuAD 2.0", board, work, ["genaiops.recall@5/2", "squad.f1/1", "genaiops.answer_quality/1"])
    halves = board["questions"]
    assert halves["compared"] == halves["answerable"] + halves["unanswerable"] > 1500
    assert min(halves["answerable"], halves["unanswerable"]) > 700


def test_scifact(shared_data: Path, tmp_path: Path, make_platform: Callable[..., Platform]) -> None:
    """Claims without answers: search alone is compared, on relevance judgements."""
    report = convert_beir(shared_data / "scifact", tmp_path / "set", name="documents")
    assert (report.documents, report.questions) == (5183, 300)
    board, work = run(
        make_platform,
        tmp_path / "set",
        decision_metric="genaiops.ndcg@10/2",
        grid={"search_mode": ["vector", "full_text", "hybrid"], "k": [10]},
    )
    tell("SciFact", board, work, ["genaiops.ndcg@10/2", "genaiops.recall@10/2", "genaiops.mrr/2"])
    (better,) = [entry for entry in board["rows"] if entry["search_mode"] == "full_text"]
    assert better["p_adjusted"] < 0.05, "full text is far better than hashed words on this set"


def test_xquad_in_eight_languages(shared_data: Path, tmp_path: Path, make_platform: Callable[..., Platform]) -> None:
    """Translations of the same paragraphs are one group; each language is a slice; words are those of the language or not."""
    report = convert_squad(shared_data / "xquad", tmp_path / "set", name="documents")
    assert report.questions == 8 * 726
    board, work = run(
        make_platform,
        tmp_path / "set",
        indexes={"english": {}, "auto": {"text_search": "auto"}},
        grid={"search_mode": ["full_text", "hybrid"]},
        decision_metric="sacrebleu.chrf/1",  # SQuAD's F1 splits at spaces, which Chinese does not set
        slices=["language"],
    )
    tell("XQuAD", board, work, ["genaiops.recall@5/2", "squad.f1/1", "sacrebleu.chrf/1"])
    slices = {one["value"]: one for one in board["slices"] if one["tag"] == "language"}
    assert set(slices) == set(LANGUAGES)
    show(
        "XQuAD by language: chrF, and what it differs from the champion's (p by Holm over languages and variants)",
        ["language", "questions", *(entry["variant"] for entry in board["rows"])],
        [
            [
                language,
                slices[language]["questions"],
                *(_shown(slices[language]["variants"][entry["variant"]]) for entry in board["rows"]),
            ]
            for language in LANGUAGES
        ],
    )


def _shown(row: dict[str, Any]) -> str:
    if "p_adjusted" not in row:
        return f"{row['mean']:.3f}"
    return f"{row['mean']:.3f} ({row['difference']['estimate']:+.3f}, p {row['p_adjusted']:.3f})"


def test_chunking_evaluation(shared_data: Path, tmp_path: Path, make_platform: Callable[..., Platform]) -> None:
    """Sizes of cut compared by how much of what is read is the excerpt that answers."""
    report = convert_excerpts(shared_data / "chunking-eval", tmp_path / "set", name="documents")
    assert report.questions == 472
    board, work = run(
        make_platform,
        tmp_path / "set",
        decision_metric="genaiops.iou/2",
        indexes={
            f"cut-{size}": {"chunker": {"kind": "recursive", "unit": "characters", "size": size}} for size in SIZES
        },
    )
    tell("Chunking evaluation", board, work, ["genaiops.iou/2", "genaiops.recall/2", "genaiops.precision/2"])
    assert {entry["index"] for entry in board["rows"]} == {f"cut-{size}" for size in SIZES}
