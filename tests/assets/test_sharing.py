"""Sharing: what variants have in common is counted once, and told with the result."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from assets.evaluation.metrics.base import METRICS
from assets.experiments.sharing import Shared, Sharing
from resources.platform import Platform
from tests.experiment_support import files, load, write_documents
from tests.lifecycle import run_experiment


def ran(make_platform: Callable[..., Platform], tmp_path: Path, **more: Any) -> tuple[Platform, dict[str, Any]]:
    instance = dg.DagsterInstance.ephemeral()
    write_documents(tmp_path / "docs")
    platform = make_platform(**(files() | more))
    load(platform, instance)
    return platform, run_experiment(platform, "catalogue", instance)["scored_variants"]


def test_shared_work_is_counted(make_platform: Callable[..., Platform], tmp_path: Path) -> None:
    platform, told = ran(make_platform, tmp_path)
    shared = told["sharing"]
    # two prompts x two k, 20 questions, 16 chunks in one index
    assert shared["searches"] == {"needed": 80, "made": 40, "this_run": 40, "ratio": 0.5}
    assert shared["chunks"] == {"needed": 64, "made": 16, "this_run": None, "ratio": 0.75}
    assert shared["embeddings"] == {"needed": 64, "made": 16, "this_run": None, "ratio": 0.75}
    assert shared["generations"]["needed"] == 80
    with platform.database.connect() as connection:
        board = connection.execute("SELECT leaderboard -> 'sharing' FROM experiment_result").fetchone()
        memo = connection.execute("SELECT count(*) FROM generation").fetchone()
        metrics = connection.execute("SELECT count(DISTINCT metric) FROM trial_score").fetchone()
    assert board is not None
    assert board[0] == shared
    assert memo is not None
    assert shared["generations"]["made"] == 80  # one prompt, one k and one question each
    assert memo[0] >= shared["generations"]["this_run"] == 80
    assert metrics == (len(METRICS),)
    scores = shared["scores"]
    assert scores["needed"] == scores["this_run"] == 80 * len(METRICS)
    assert 40 * len(METRICS) <= scores["made"] < scores["needed"]  # retrieval is the same for both prompts
    ratios = [one["ratio"] for one in shared.values() if isinstance(one, dict)]
    assert shared["ratio"] == pytest.approx(sum(ratios) / 5)
    page = Path(told["report"]).read_text(encoding="utf-8")
    assert "<h2>Shared work</h2>" in page
    assert "<td>searches</td><td>80</td><td>40</td>" in page


def test_models_and_indexes_that_differ_share_less(make_platform: Callable[..., Platform], tmp_path: Path) -> None:
    main = {"embedder": "lexical", "chunker": {"kind": "markdown", "unit": "characters", "size": 400}}
    experiment = files()["experiments/catalogue.yaml"]
    experiment["grid"] |= {"index": ["main", "twin", "short"], "k": [1], "prompt": ["guarded", "unguarded"]}
    _, told = ran(
        make_platform,
        tmp_path,
        **{
            "indexes/main.yaml": {"name": "main", **main},
            "indexes/twin.yaml": {"name": "twin", **main, "hnsw": {"ef_search": 50}},
            "indexes/short.yaml": {"name": "short", **main, "chunker": {"kind": "markdown", "unit": "characters", "size": 30}},
            "experiments/catalogue.yaml": experiment,
        },
    )  # fmt: skip
    shared = told["sharing"]
    assert shared["searches"]["made"] == 60  # three indexes, whatever they share underneath
    chunks, vectors = shared["chunks"], shared["embeddings"]
    short = (chunks["needed"] - 4 * 16) // 2  # chunks of the index that cuts finer
    assert short > 16
    assert chunks["made"] == 16 + short  # main and twin cut alike
    assert 16 < vectors["made"] <= 16 + short


def test_nothing_needed_has_no_ratio() -> None:
    nothing = Shared(0, 0, 0)
    assert nothing.ratio is None
    assert Sharing(nothing, nothing, nothing, nothing, nothing).ratio is None
    assert Sharing(nothing, nothing, nothing, Shared(10, 4, 0), nothing).ratio == pytest.approx(0.6)
