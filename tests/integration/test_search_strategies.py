"""Strategies on the real handbook: the same best variant as the whole grid, for part of its trials, over derived indexes."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from resources.config import load_config
from resources.platform import Platform
from resources.postgres import Database
from tests.lifecycle import build_dataset, refresh, run_experiment

DATA = Path(__file__).resolve().parents[2] / "data"
GRID: dict[str, Any] = {
    "index": ["handbook-small"],
    "index_axes": {"base": "handbook-small", "chunker": [{"kind": "layout", "size": 250}]},
    "prompt": ["concise", "exact", "unguarded"],
    "search_mode": ["vector", "hybrid"],
    "k": [3],
    "retrieval": [{"name": "as-is"}, {"name": "reranked", "rerank": {"kind": "lexical"}}],
    "context": [{"name": "all"}, {"name": "short", "max_tokens": 200, "compression": "sentences"}],
    "model": ["extractive"],
}
VARIANTS = 48
BASELINE = {"index": "handbook-small", "prompt": "unguarded", "search_mode": "vector", "k": 3, "model": "extractive"}
STRATEGIES: dict[str, dict[str, Any]] = {
    "halving": {"strategy": "halving"},
    "bayes": {"strategy": "bayes", "trials": 20},
    "grid": {},
}


@pytest.fixture
def handbook(tmp_path: Path, make_database: Callable[[], Database]) -> Platform:
    """The sample project with one experiment a strategy, over the same 48 variants."""
    data = tmp_path / "data"
    shutil.copytree(DATA, data)
    for name, search in STRATEGIES.items():
        experiment = {
            "name": name, "dataset": "handbook", "grid": GRID, "baseline": BASELINE, "resamples": 2000,
            **({"search": search} if search else {}),
        }  # fmt: skip
        (data / "experiments" / f"{name}.yaml").write_text(yaml.safe_dump(experiment), encoding="utf-8")
    return Platform(load_config(data), make_database(), tmp_path / "artifacts")


@pytest.mark.slow
def test_strategies_agree_with_the_grid_on_real_documents(handbook: Platform) -> None:
    (derived,) = handbook.config.derived
    with dg.DagsterInstance.ephemeral() as instance:
        loaded = refresh(handbook, "handbook", instance)
        assert loaded["search_index"]["snapshots"][derived] == 1
        build_dataset(handbook, "handbook", instance)
        told = {name: run_experiment(handbook, name, instance)["scored_variants"] for name in STRATEGIES}
    with handbook.database.connect() as connection:
        boards = dict(connection.execute("SELECT experiment, leaderboard FROM experiment_result").fetchall())
    means = {row["variant"]: row["decision"]["estimate"] for row in boards["grid"]["rows"]}
    best = max(means.values())
    assert len(means) == VARIANTS
    for name in ("halving", "bayes"):
        search, rows = boards[name]["search"], boards[name]["rows"]
        found = max(row["decision"]["estimate"] for row in rows)
        share = search["trials"]["asked"] / search["trials"]["grid"]
        assert found >= best - 0.01
        assert share <= 0.5
        assert {row["variant"] for row in rows} <= set(means)
        assert all(row["decision"]["estimate"] == means[row["variant"]] for row in rows)
        left_out = {one["variant"] for one in search["dropped"]} | set(search["untried"]["variants"])
        assert left_out | {row["variant"] for row in rows} == set(means)
        assert "Selected on these questions" in told[name]["recommendation"]
    assert any(row["variant"].startswith(f"{derived}/") for name in STRATEGIES for row in boards[name]["rows"])
