"""Several shards on a Ray cluster: a node dies in the middle, all finish, and the result equals one machine's.

A Ray head without CPUs and worker nodes are real ``ray start`` processes; a real ``genaiops dev`` with
deploy/ray/dagster.yaml puts the runs on them. Nothing but run monitoring and run retries makes the loss good.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest

from resources.faults import PAUSE_VARIABLE
from resources.platform import Platform
from resources.postgres import Database, dagster_url
from tests.deployment import ROOT, Deployment, instance_of, retry_of, status, until, with_suppressed_absence
from tests.lifecycle import corpus_state, found, index_state, refresh

pytest.importorskip("ray", reason="the extra genaiops[ray] is not installed")
pytest.importorskip("dagster_ray", reason="the extra genaiops[ray] is not installed")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SHARDS = 4
QUESTIONS = ["How heavy is crate 7?"]
FAILURE = dg.DagsterRunStatus.FAILURE
OVER = (dg.DagsterRunStatus.SUCCESS, FAILURE, dg.DagsterRunStatus.CANCELED)


class Cluster:
    """A Ray cluster of processes on this machine."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        self.ports = dict(zip(("gcs", "dashboard", "client"), free_ports(3), strict=True))
        self.nodes: list[subprocess.Popen[bytes]] = []
        self.folder = Path(tempfile.mkdtemp(prefix="ray-"))  # Ray's sockets allow no long path

    @property
    def dashboard(self) -> str:
        return f"http://127.0.0.1:{self.ports['dashboard']}"

    def start_head(self) -> None:
        self.start(
            "--head",
            f"--port={self.ports['gcs']}",
            f"--dashboard-port={self.ports['dashboard']}",
            f"--ray-client-server-port={self.ports['client']}",
            "--dashboard-host=127.0.0.1",
            "--num-cpus=0",
            f"--temp-dir={self.folder}",
        )

        def answers() -> bool:
            assert self.nodes[0].poll() is None, f"the head ended:\n{self.deployment.output()[-3000:]}"
            return listens(self.ports["dashboard"])

        until("the dashboard answers", answers)

    def start_node(self, name: str, **environment: str) -> subprocess.Popen[bytes]:
        """A worker node; its name is a custom resource, for whoever looks at the dashboard."""
        return self.start(
            f"--address=127.0.0.1:{self.ports['gcs']}",
            "--num-cpus=4",
            f'--resources={{"{name}": 1}}',
            **environment,
        )

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[bytes]:
        """``ray start`` in a session of its own, with what every node has to know and Ray must not show."""
        secret = {"GENAIOPS_DAGSTER_URL": dagster_url(self.deployment.platform.database.url)}
        quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_enable_open_telemetry": "0", "RAY_DISABLE_IMPORT_WARNING": "1"}
        quiet |= {"RAY_health_check_period_ms": "1000", "RAY_health_check_failure_threshold": "3"}  # notice a loss soon
        path = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        command = [str(Path(sys.executable).parent / "ray"), "start", "--block", "--disable-usage-stats"]
        with self.deployment.log.open("ab") as log:
            node = subprocess.Popen(
                [*command, "--object-store-memory=80000000", *arguments],
                cwd=self.deployment.root,
                env=self.deployment.environment | secret | quiet | path | environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self.nodes.append(node)
        self.deployment.started.append(node)
        return node

    def kill(self, node: subprocess.Popen[bytes]) -> None:
        """The machine is gone: the node, its workers, and the runs on them."""
        for process in reversed(self.deployment.tree(node)):
            with_suppressed_absence(lambda process=process: process.send_signal(signal.SIGKILL))
        node.wait(30)


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def deployment(make_data_dir: Callable[..., Path], tmp_path: Path, database: Database) -> Iterator[Deployment]:
    data = make_data_dir(
        **{"sources.yaml": {"sources": [{"name": "docs", "path": str(tmp_path / "docs"), "shards": SHARDS}]}}
    )
    for number in range(24):
        text = f"# Crate {number}\n\nCrate {number} weighs {number + 30} kilograms.\n\n## Contents\n\nApples, {number} of them.\n"
        (tmp_path / "docs" / f"crate-{number}.md").write_text(text, encoding="utf-8")
    deployment = Deployment(tmp_path, data, database)
    try:
        yield deployment
    finally:
        deployment.close()


@pytest.fixture
def cluster(deployment: Deployment) -> Iterator[Cluster]:
    cluster = Cluster(deployment)
    try:
        cluster.start_head()
        yield cluster
    finally:
        deployment.close()
        shutil.rmtree(cluster.folder, ignore_errors=True)


def test_shards_finish_although_a_node_dies_and_equal_one_machine(
    cluster: Cluster, deployment: Deployment, make_database: Callable[[], Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    doomed = cluster.start_node(
        "doomed", **{PAUSE_VARIABLE: "corpus.before_commit:600"}
    )  # its runs are underway for long
    shipped = (ROOT / "deploy/ray/dagster.yaml").read_text(encoding="utf-8")
    configured = deployment.root / "dagster.yaml"
    sooner = {
        "poll_interval_seconds: 30": "poll_interval_seconds: 3",
        "start_timeout_seconds: 600": "start_timeout_seconds: 90",
    }
    for usual, now in sooner.items():
        assert usual in shipped
        shipped = shipped.replace(usual, now)
    configured.write_text(shipped, encoding="utf-8")
    server, port = deployment.dev(GENAIOPS_DAGSTER_YAML=str(configured), RAY_DASHBOARD_ADDRESS=cluster.dashboard)
    partitions = list(deployment.platform.config.sources)
    monkeypatch.setenv("RAY_DASHBOARD_ADDRESS", cluster.dashboard)
    with instance_of(deployment) as instance:
        lost = [deployment.launch(port, part) for part in partitions[:2]]
        until(
            "two runs hold their leases on the node that will die",
            lambda: [deployment.lease_holder(f"source:{part}") for part in partitions[:2]] == lost,
        )
        cluster.start_node("spare")
        cluster.kill(doomed)
        rest = [deployment.launch(port, part) for part in partitions[2:]]
        for run_id in lost:
            until("the lost run is failed", lambda run_id=run_id: status(instance, run_id) == FAILURE)
        for run_id in (*lost, *rest):
            await_success(instance, run_id)
    platform = deployment.platform
    assert sum(deployment.numbers()["revisions"]) == SHARDS  # each shard was committed once
    one_machine = Platform(platform.config, make_database(), deployment.root / "calm")
    with dg.DagsterInstance.ephemeral() as calm:
        for part in partitions:
            refresh(one_machine, part, calm)
    assert corpus_state(platform) == corpus_state(one_machine)
    assert index_state(platform, "main") == index_state(one_machine, "main")
    assert found(platform, "main", QUESTIONS) == found(one_machine, "main", QUESTIONS)
    deployment.kill_tree(server)


def await_success(instance: dg.DagsterInstance, run_id: str) -> None:
    """Wait for a run, or for the retries it is given: Ray may have put it on the node before it noticed the loss."""
    until("the run is over", lambda: status(instance, run_id) in OVER)
    if status(instance, run_id) == FAILURE:
        retry = until("the failed run is retried", lambda: retry_of(instance, run_id), 60)
        return await_success(instance, retry.run_id)
    events = "\n".join(entry.message for entry in instance.all_logs(run_id)[-20:])
    assert status(instance, run_id) == dg.DagsterRunStatus.SUCCESS, events
    return None
