"""SIGKILL between and inside the rounds of a strategy: the next run takes the same way and pays for nothing twice."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from resources.platform import Platform
from tests.experiment_support import files, load, write_documents
from tests.faults.test_trials_kill import CONCURRENCY, _counts, _run

GRID = {
    "index": ["main"],
    "index_axes": {"base": "main", "chunker": [{"kind": "sentence", "size": 40}]},
    "prompt": ["guarded", "unguarded"],
    "search_mode": ["hybrid"],
    "k": [1, 2],
    "model": ["extractive"],
}
HALVING = {"strategy": "halving", "minimum_questions": 10, "eta": 2, "finalists": 2}
BAYES = {"strategy": "bayes", "trials": 6}


@pytest.fixture
def make_world(make_platform: Callable[..., Platform], tmp_path: Path) -> Callable[..., Platform]:
    write_documents(tmp_path / "docs")

    def make(search: dict[str, Any]) -> Platform:
        platform = make_platform(**files(grid=GRID, search=search))
        load(platform, dg.DagsterInstance.ephemeral())
        return platform

    return make


def _search(platform: Platform) -> Any:
    with platform.database.connect() as connection:
        return connection.execute("SELECT leaderboard -> 'search', recommendation FROM experiment_result").fetchall()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("search", "crash"),
    [
        (HALVING, "experiments.rung_done"),
        (HALVING, "experiments.trial_committed:2"),
        (BAYES, "experiments.rung_done:2"),
    ],
)
def test_killed_search_goes_on_where_it_was(
    make_world: Callable[..., Platform], tmp_path: Path, search: dict[str, Any], crash: str
) -> None:
    platform = make_world(search)
    calls = tmp_path / "calls"
    assert _run(platform, calls, crash) == -9
    killed = _counts(platform.database)
    assert killed["trial"] > 0
    assert killed["experiment_result"] == 0
    assert _run(platform, calls) == 0
    recovered, paid, found = _counts(platform.database), calls.stat().st_size, _search(platform)
    assert recovered["trial"] > killed["trial"]
    assert found[0][0]["strategy"] == search["strategy"]

    with platform.database.connect() as connection:
        connection.execute(
            "TRUNCATE trial, trial_score, generation, experiment_result, evidence, snapshot_pin, variant, holdout_use CASCADE"
        )
    undisturbed = tmp_path / "undisturbed"
    assert _run(platform, undisturbed) == 0
    assert recovered == _counts(platform.database)
    assert _search(platform)[0][0] == found[0][0]
    extra = paid - undisturbed.stat().st_size
    assert 0 <= extra <= (0 if crash.startswith("experiments.rung_done") else CONCURRENCY)
    assert "GENAIOPS_CRASH_POINT" not in os.environ
