"""SIGKILL in the middle of an experiment: the next run completes it and pays for nothing twice."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from resources.platform import Platform
from resources.postgres import Database
from tests.experiment_support import files, load, write_documents

CONCURRENCY = 4
_WORKER = """
import sys
from pathlib import Path
import dagster as dg
from resources import models
from resources.config import load_config
from resources.platform import Platform
from resources.postgres import Database
from tests.lifecycle import run_experiment

data, url, artifacts, calls = sys.argv[1:]
complete = models.Chat.complete
def counted(self, messages, **options):
    with open(calls, "a") as file:
        file.write("x")
    return complete(self, messages, **options)
models.Chat.complete = counted
platform = Platform(load_config(Path(data)), Database(url), Path(artifacts))
run_experiment(platform, "catalogue", dg.DagsterInstance.ephemeral())
"""


@pytest.fixture
def platform(make_platform: Callable[..., Platform], tmp_path: Path) -> Platform:
    write_documents(tmp_path / "docs")
    platform = make_platform(**files())
    load(platform, dg.DagsterInstance.ephemeral())
    return platform


def _run(platform: Platform, calls: Path, crash: str | None = None) -> int:
    """Run the experiment in a process of its own; return its exit code."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    if crash:
        environment["GENAIOPS_CRASH_POINT"] = crash
    arguments = [platform.config.data_dir, platform.database.url, platform.artifacts, calls]
    return subprocess.run(
        [sys.executable, "-c", _WORKER, *map(str, arguments)], env=environment, capture_output=True, check=False
    ).returncode


def _counts(database: Database) -> dict[str, int]:
    with database.connect() as connection:
        return {
            table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # type: ignore
            for table in ("trial", "generation", "trial_score", "experiment_result", "snapshot_pin")
        }


@pytest.mark.slow
def test_killed_experiment_is_completed_without_paying_twice(platform: Platform, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    assert _run(platform, calls, "experiments.trial_committed") == -signal.SIGKILL
    killed = _counts(platform.database)
    assert killed["trial"] > 0
    assert killed["experiment_result"] == 0
    assert _run(platform, calls) == 0
    recovered, paid = _counts(platform.database), calls.stat().st_size

    with platform.database.connect() as connection:
        connection.execute(
            "TRUNCATE trial, trial_score, generation, experiment_result, evidence, snapshot_pin, variant CASCADE"
        )
    undisturbed_calls = tmp_path / "undisturbed"
    assert _run(platform, undisturbed_calls) == 0
    assert recovered == _counts(platform.database)
    assert 0 <= paid - undisturbed_calls.stat().st_size <= CONCURRENCY  # calls in flight when the process died


@pytest.mark.slow
def test_result_of_a_run_killed_before_its_report_is_kept_and_reported(platform: Platform, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    assert _run(platform, calls, "experiments.result_committed") == -signal.SIGKILL
    killed = _counts(platform.database)
    folder = platform.artifacts / "experiments" / "catalogue"
    assert killed["experiment_result"] == 1
    assert not list(folder.glob("*.html"))
    paid = calls.stat().st_size
    assert _run(platform, calls) == 0
    assert calls.stat().st_size == paid
    after = _counts(platform.database)
    assert {**after, "snapshot_pin": 0} == {**killed, "snapshot_pin": 0}
    assert after["snapshot_pin"] == 1  # the killed run's own pin is gone
    assert sorted(path.suffix for path in folder.iterdir()) == [".html", ".parquet"]
