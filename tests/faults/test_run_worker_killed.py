"""SIGKILL through the real queue: of a run worker, of everything, of a command; the next run ends it well.

A real ``genaiops dev`` (webserver, daemon, code server) launches the runs. Nobody cleans up for it: run monitoring,
run retries, leases and ``fail_abandoned_runs`` have to.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest

from pipelines.jobs import REFRESH_JOB, SOURCE_TAG
from resources.config import load_config
from resources.faults import CRASH_VARIABLE, PAUSE_VARIABLE
from resources.platform import Platform
from resources.postgres import Database, dagster_url
from tests.lifecycle import corpus_state, found, index_state, refresh

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 240
UNDERWAY = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
QUESTIONS = ["How often is the chain oiled?"]
PAGES = {
    "chain.md": "# Chain\n\nOil the chain every 250 km.\n\n## Wear\n\nReplace the chain at 0.75 percent elongation.\n",
    "brakes.md": "# Brakes\n\nThe pads last about 3,000 km.\n\n## Bleeding\n\nBleed the brakes once a year.\n",
    "bell.md": "# Bell\n\nThe bell rings at 90 dB.\n",
}


def until(what: str, condition: Callable[[], Any], seconds: float = SECONDS) -> Any:
    """Wait until the condition holds, and return what it gave."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.2)
    raise AssertionError(f"not within {seconds:.0f} s: {what}")


class Deployment:
    """Processes of this project on one small state, and the look into what they recorded."""

    def __init__(self, root: Path, data: Path, database: Database) -> None:
        self.root = root
        self.platform = Platform(load_config(data), database, root / "artifacts")
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("GENAIOPS_", "DAGSTER_"))},
            "GENAIOPS_DATA_DIR": str(data),
            "GENAIOPS_STATE_DIR": str(root / "state"),
            "GENAIOPS_DATABASE_URL": database.url,
        }
        self.log = root / "processes.log"
        self.started: list[subprocess.Popen[bytes]] = []
        self.seen: dict[int, psutil.Process] = {}

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        """A command of the project, in a session of its own, its output in the log."""
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "pipelines.cli", *arguments],
                cwd=ROOT,
                env=self.environment | environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self.started.append(process)
        return process

    def dev(self, **environment: str) -> tuple[subprocess.Popen[bytes], int]:
        """``genaiops dev`` on a free port, once it answers."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        process = self.start("dev", "--port", str(port), **environment)

        def answers() -> bool:
            assert process.poll() is None, f"the server ended:\n{self.output()[-3000:]}"
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        until("the webserver listens", answers)
        return process, port

    def launch(self, port: int) -> str:
        """Put a refresh of ``docs`` into the queue; its run id."""
        from dagster_graphql import DagsterGraphQLClient

        client = DagsterGraphQLClient("127.0.0.1", port_number=port)
        return client.submit_job_execution(REFRESH_JOB, tags={"dagster/partition": "docs", SOURCE_TAG: "docs"})

    def tree(self, process: subprocess.Popen[bytes]) -> list[psutil.Process]:
        """A process and everything below it."""
        try:
            parent = psutil.Process(process.pid)
            found = [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []
        self.seen |= {item.pid: item for item in found}
        return found

    def kill_tree(self, process: subprocess.Popen[bytes]) -> None:
        """SIGKILL to a process and everything below it, parents first, so that nobody can tidy up."""
        for item in self.tree(process):
            with_suppressed_absence(item.kill)
        process.wait(SECONDS)

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def close(self) -> None:
        """End what is left of every process that was started here."""
        for process in self.started:
            self.tree(process)
        for item in self.seen.values():
            with_suppressed_absence(item.kill)  # psutil refuses if the id is another process by now
        for process in self.started:
            process.wait(SECONDS)

    def lease_holder(self, resource: str) -> str | None:
        with self.platform.database.connect() as connection:
            row = connection.execute("SELECT holder FROM lease WHERE resource = %s", (resource,)).fetchone()
        return row[0] if row else None

    def committed_by(self) -> str:
        """The run that made the newest revision."""
        with self.platform.database.connect() as connection:
            row = connection.execute("SELECT run_id FROM source_revision ORDER BY revision DESC LIMIT 1").fetchone()
        assert row is not None
        return row[0]

    def numbers(self) -> dict[str, list[int]]:
        """Revisions of the source and snapshots of the index."""
        with self.platform.database.connect() as connection:
            return {
                "revisions": [n for (n,) in connection.execute("SELECT revision FROM source_revision ORDER BY 1")],
                "snapshots": [n for (n,) in connection.execute("SELECT snapshot FROM index_snapshot ORDER BY 1")],
            }


def with_suppressed_absence(action: Callable[[], Any]) -> None:
    try:
        action()
    except psutil.NoSuchProcess:
        return


@pytest.fixture
def deployment(make_data_dir: Callable[..., Path], tmp_path: Path, database: Database) -> Iterator[Deployment]:
    data = make_data_dir()
    for name, text in PAGES.items():
        (tmp_path / "docs" / name).write_text(text, encoding="utf-8")
    deployment = Deployment(tmp_path, data, database)
    try:
        yield deployment
    finally:
        deployment.close()


@contextmanager
def instance_of(deployment: Deployment) -> Iterator[dg.DagsterInstance]:
    """The instance the processes record in; they must have made its home."""
    os.environ["GENAIOPS_DAGSTER_URL"] = dagster_url(deployment.platform.database.url)
    try:
        with dg.DagsterInstance.from_config(str(deployment.root / "state" / "dagster")) as instance:
            yield instance
    finally:
        del os.environ["GENAIOPS_DAGSTER_URL"]


def status(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRunStatus:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run.status


def retry_of(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRun | None:
    runs = instance.get_runs(dg.RunsFilter(tags={"dagster/parent_run_id": run_id}))
    return runs[0] if runs else None


def worker(instance: dg.DagsterInstance, run_id: str) -> psutil.Process:
    """The run worker, as the run's own events name it; the steps run in children of it."""
    for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT):
        event = entry.dagster_event
        if event and event.step_key is None and "pid" in event.engine_event_data.metadata:
            return psutil.Process(int(str(event.engine_event_data.metadata["pid"].value)))
    raise AssertionError("no event names the worker")


def assert_slots_free(instance: dg.DagsterInstance) -> None:
    info = instance.event_log_storage.get_concurrency_info("embedding_model")
    assert info.claimed_slots == []
    assert info.pending_steps == []


def assert_equals_fresh_build(deployment: Deployment, fresh_database: Database) -> None:
    platform = deployment.platform
    fresh = Platform(platform.config, fresh_database, deployment.root / "calm")
    with dg.DagsterInstance.ephemeral() as instance:
        refresh(fresh, "docs", instance)
    assert corpus_state(platform) == corpus_state(fresh)
    assert index_state(platform, "main") == index_state(fresh, "main")
    assert found(platform, "main", QUESTIONS) == found(fresh, "main", QUESTIONS)


def test_a_killed_run_worker_is_retried_and_its_orphaned_step_writes_nothing_twice(
    deployment: Deployment, make_database: Callable[[], Database]
) -> None:
    # the step sleeps while it holds the source's lease; its worker is killed, the step itself lives on as an orphan
    server, port = deployment.dev(**{PAUSE_VARIABLE: "corpus.before_commit:25"})
    with instance_of(deployment) as instance:
        run_id = deployment.launch(port)
        until("the step holds the lease", lambda: deployment.lease_holder("source:docs") == run_id)
        killed = worker(instance, run_id)
        orphans = [child for child in killed.children(recursive=True) if child.is_running()]
        deployment.seen |= {child.pid: child for child in orphans}
        assert orphans, "the step does not run in a process of its own"
        killed.send_signal(signal.SIGKILL)

        until("the run is failed", lambda: status(instance, run_id) == dg.DagsterRunStatus.FAILURE)
        retry = until("the run is retried", lambda: retry_of(instance, run_id))
        until("the retry took the lease over", lambda: deployment.lease_holder("source:docs") == retry.run_id)
        outlived = any(orphan.is_running() and orphan.status() != psutil.STATUS_ZOMBIE for orphan in orphans)
        until(
            "the retry is over", lambda: status(instance, retry.run_id) not in (*UNDERWAY, dg.DagsterRunStatus.QUEUED)
        )
        assert status(instance, retry.run_id) == dg.DagsterRunStatus.SUCCESS
        assert retry_of(instance, retry.run_id) is None
        assert_slots_free(instance)
    assert deployment.numbers() == {"revisions": [1], "snapshots": [1]}
    if outlived:  # always, unless this machine needs longer for a retry than the step sleeps
        assert deployment.committed_by() == retry.run_id, "the orphan wrote although its lease was taken over"
    assert_equals_fresh_build(deployment, make_database())
    deployment.kill_tree(server)


def test_everything_killed_in_the_middle_of_a_run_is_made_good_by_the_next_start(
    deployment: Deployment, make_database: Callable[[], Database]
) -> None:
    # in the middle of embedding, holding a place in the pool of the embedding model
    server, port = deployment.dev(**{PAUSE_VARIABLE: "index.embedded_batch:60"})
    with instance_of(deployment) as instance:
        run_id = deployment.launch(port)
        pool = "embedding_model"
        until(
            "the step has its place in the pool",
            lambda: instance.event_log_storage.get_concurrency_info(pool).claimed_slots,
        )
        until("something is embedded", lambda: embedded(deployment))
        worker(instance, run_id)
        deployment.kill_tree(server)
        assert status(instance, run_id) == dg.DagsterRunStatus.STARTED, "somebody was left to tidy up"

        server, port = deployment.dev()
        assert status(instance, run_id) == dg.DagsterRunStatus.FAILURE
        assert "1 run(s) of a killed process were reported as failed; they are retried." in deployment.output()
        reasons = [entry.message for entry in instance.all_logs(run_id)]
        assert any("the code server that launched it is gone" in reason for reason in reasons)
        retry = until("the run is retried", lambda: retry_of(instance, run_id))
        until("the retry is over", lambda: status(instance, retry.run_id) == dg.DagsterRunStatus.SUCCESS)
        assert_slots_free(instance)
    assert deployment.numbers() == {"revisions": [1], "snapshots": [1]}
    assert_equals_fresh_build(deployment, make_database())
    deployment.kill_tree(server)


def test_a_killed_command_is_reported_failed_and_the_next_one_succeeds(
    deployment: Deployment, make_database: Callable[[], Database]
) -> None:
    killed = deployment.start("refresh", "docs", **{CRASH_VARIABLE: "index.embedded_batch"})
    assert killed.wait(SECONDS) == -signal.SIGKILL
    with instance_of(deployment) as instance:
        (run,) = instance.get_runs()
        assert run.status == dg.DagsterRunStatus.STARTED
        assert instance.event_log_storage.get_concurrency_info("embedding_model").claimed_slots

        assert deployment.start("refresh", "docs").wait(SECONDS) == 0, deployment.output()
        assert status(instance, run.run_id) == dg.DagsterRunStatus.FAILURE
        assert_slots_free(instance)
    assert deployment.numbers() == {"revisions": [1], "snapshots": [1]}
    assert_equals_fresh_build(deployment, make_database())


def embedded(deployment: Deployment) -> int:
    with deployment.platform.database.connect() as connection:
        row = connection.execute("SELECT count(*) FROM embedding").fetchone()
    return row[0] if row else 0
