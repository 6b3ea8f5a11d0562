"""A real deployment for tests: webserver, daemon and commands as processes of their own, on one small state."""

import os
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

from pipelines.jobs import REFRESH_JOB, SOURCE_TAG
from resources.config import load_config
from resources.platform import Platform
from resources.postgres import Database, dagster_url

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 240
UNDERWAY = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


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

    def launch(self, port: int, partition: str = "docs") -> str:
        """Put a refresh of a partition into the queue; its run id."""
        from dagster_graphql import DagsterGraphQLClient

        client = DagsterGraphQLClient("127.0.0.1", port_number=port)
        return client.submit_job_execution(REFRESH_JOB, tags={"dagster/partition": partition, SOURCE_TAG: partition})

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
