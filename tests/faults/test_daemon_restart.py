"""SIGKILL to the daemon or the code server at any point of a change's way: it arrives once, and none is lost.

Daemon and code server are processes of their own, as in a deployment of several containers, with every sensor on;
only their clocks are faster (tests/quick_location.py). Edits go on while they are down.
"""

import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.scheduler.instigation import TickStatus

from assets.index.audit import audit
from pipelines.instance import make_pools
from pipelines.jobs import FINGERPRINT_TAG, ORIGIN_TAG
from pipelines.sensors import SOURCE_CHANGES, SourceState, read_states
from resources.document_sources import open_source
from resources.faults import PAUSE_VARIABLE
from resources.platform import Platform
from resources.postgres import Database, dagster_url
from tests.deployment import ROOT, SECONDS, Deployment, instance_of, status, until, worker
from tests.lifecycle import corpus_state, found, index_state, refresh

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

#: What changes while something is down; so few documents that a deletion without an addition looks like a loss.
LATER: dict[str, str | None] = {
    "brakes": "# Brakes\n\nThe pads last about 5,000 km.\n",
    "tyres": "# Tyres\n\nThe tyre pressure is 4 bar.\n",
    "bell": None,
}
QUESTIONS = ["How often is the chain oiled?", "brakes", "tyre pressure"]
PAGES = {
    "chain.md": "# Chain\n\nOil the chain every 250 km.\n\n## Wear\n\nReplace the chain at 0.75 percent elongation.\n",
    "brakes.md": "# Brakes\n\nThe pads last about 3,000 km.\n\n## Bleeding\n\nBleed the brakes once a year.\n",
    "bell.md": "# Bell\n\nThe bell rings at 90 dB.\n",
}


class Parts(Deployment):
    """Code server and daemon, each started and killed on its own."""

    def __init__(self, root: Path, data: Path, database: Database) -> None:
        super().__init__(root, data, database)
        home = root / "state" / "dagster"
        home.mkdir(parents=True)
        settings = yaml.safe_load((ROOT / "dagster.yaml").read_text(encoding="utf-8"))
        settings["run_monitoring"] |= {"start_timeout_seconds": 25, "poll_interval_seconds": 3}
        (home / "dagster.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        server = {"host": "127.0.0.1", "port": self.port, "location_name": "genaiops"}
        self.workspace = root / "workspace.yaml"
        self.workspace.write_text(yaml.safe_dump({"load_from": [{"grpc_server": server}]}), encoding="utf-8")
        self.environment |= {
            "DAGSTER_HOME": str(home),
            "GENAIOPS_DAGSTER_URL": dagster_url(database.url),
            "GX_ANALYTICS_ENABLED": "false",
        }

    def spawn(self, *arguments: str, **environment: str) -> "subprocess.Popen[bytes]":
        """A Python module with arguments, in a session of its own."""
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=ROOT,
                env=self.environment | environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self.started.append(process)
        return process

    def code_server(self, **environment: str) -> "subprocess.Popen[bytes]":
        """The code server, once it listens; what it starts inherits the environment."""
        where = ("-h", "127.0.0.1", "-p", str(self.port), "-d", str(ROOT), "--location-name", "genaiops")
        process = self.spawn(
            "dagster", "api", "grpc", "-m", "tests.quick_location", "-a", "defs", *where, **environment
        )

        def answers() -> bool:
            assert process.poll() is None, f"the code server ended:\n{self.output()[-3000:]}"
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0

        until("the code server listens", answers)
        return process

    def daemon(self, die_at: str = "") -> "subprocess.Popen[bytes]":
        """The daemon; it kills itself at a point of tests/dying_daemon.py, if one is named."""
        return self.spawn("tests.dying_daemon", "run", "-w", str(self.workspace), GENAIOPS_TEST_DIE_AT=die_at)

    def edit(self, **pages: str | None) -> None:
        """Write or delete pages."""
        for name, text in pages.items():
            path = self.root / "docs" / f"{name}.md"
            if text is None:
                path.unlink()
            else:
                path.write_text(text, encoding="utf-8")


def kill(process: "subprocess.Popen[bytes]") -> None:
    """SIGKILL to this process alone."""
    process.send_signal(signal.SIGKILL)
    assert process.wait(SECONDS) == -signal.SIGKILL


@pytest.fixture
def parts(make_data_dir: Callable[..., Path], tmp_path: Path, database: Database) -> Iterator[Parts]:
    data = make_data_dir()
    for name, text in PAGES.items():
        (tmp_path / "docs" / name).write_text(text, encoding="utf-8")
    parts = Parts(tmp_path, data, database)
    try:
        yield parts
    finally:
        parts.close()


@pytest.fixture
def instance(parts: Parts) -> Iterator[dg.DagsterInstance]:
    with instance_of(parts) as instance:
        make_pools(instance)
        yield instance


def sensor_state(instance: dg.DagsterInstance) -> SourceState:
    """What the sensor remembers of the source."""
    for state in instance.all_instigator_state():
        if state.name == SOURCE_CHANGES and state.instigator_data is not None:
            cursor: Any = getattr(state.instigator_data, "cursor", None)
            return read_states(cursor).get("docs", SourceState())
    return SourceState()


def at_rest(parts: Parts, instance: dg.DagsterInstance) -> bool:
    """Whether the sensor has seen and requested what there is now, and every run or its last retry has succeeded."""
    look = open_source(parts.platform.config, "docs").fingerprint()
    last = {run.tags.get("dagster/root_run_id", run.run_id): run.status for run in reversed(instance.get_runs())}
    return sensor_state(instance).fingerprint == look and set(last.values()) == {dg.DagsterRunStatus.SUCCESS}


def assert_each_change_arrived_once(
    parts: Parts, instance: dg.DagsterInstance, fresh_database: Database, *, changes: Collection[int], runs: int
) -> None:
    """The state is that of a fresh build, made in so many revisions, by at most so many runs that were asked for."""
    until("everything rests, and no run failed for good", lambda: at_rest(parts, instance))
    # a schedule may come due meanwhile, and what it starts is not asked for because of a change
    by_sensor = [run for run in instance.get_runs() if run.tags.get(ORIGIN_TAG) == SOURCE_CHANGES]
    asked = [run for run in by_sensor if "dagster/parent_run_id" not in run.tags]
    keys = [run.tags["dagster/run_key"] for run in asked]
    assert len(set(keys)) == len(keys), "a request was made into two runs"
    assert len({run.tags[FINGERPRINT_TAG] for run in asked}) == len(asked), "a state of the source was asked for twice"
    assert len(asked) <= runs
    platform = parts.platform
    with platform.database.connect() as connection:
        versions = [v for (v,) in connection.execute("SELECT data_version FROM source_revision ORDER BY revision")]
    assert len(versions) in changes
    assert len(set(versions)) == len(versions), "a change was committed twice"
    numbers = parts.numbers()
    assert numbers["revisions"] == list(range(1, len(versions) + 1))
    # a run that lost its lease after it committed a revision never publishes that one: the next snapshot holds the newest
    assert numbers["snapshots"] in [list(range(1, count + 1)) for count in {min(changes), len(versions)}]
    fresh = Platform(platform.config, fresh_database, parts.root / "calm")
    with dg.DagsterInstance.ephemeral() as calm:
        refresh(fresh, "docs", calm)
    assert corpus_state(platform) == corpus_state(fresh)
    assert index_state(platform, "main") == index_state(fresh, "main")
    assert found(platform, "main", QUESTIONS) == found(fresh, "main", QUESTIONS)
    assert audit(platform, "main") == []


def test_both_killed_between_an_edit_and_the_tick_that_would_have_asked_for_it(
    parts: Parts, instance: dg.DagsterInstance, make_database: Callable[[], Database]
) -> None:
    server, daemon = parts.code_server(), parts.daemon()
    until("the first refresh is over", lambda: parts.numbers()["snapshots"] == [1] and at_rest(parts, instance))
    parts.edit(chain="# Chain\n\nOil the chain every 200 km.\n")
    until("the sensor saw it, and waits until it rests", lambda: sensor_state(instance).pending)
    kill(daemon)
    kill(server)
    assert parts.numbers()["revisions"] == [1], "the kill came too late to show anything"
    parts.edit(**LATER)

    parts.code_server()
    parts.daemon()
    assert_each_change_arrived_once(parts, instance, make_database(), changes=[2], runs=2)


#: Where the daemon dies, and what has become of the first request by then.
REQUESTED = {
    "RUN_IDS_RESERVED": [],
    "RUN_CREATED": [dg.DagsterRunStatus.NOT_STARTED],
    "RUN_LAUNCHED": [dg.DagsterRunStatus.QUEUED],
    "DEQUEUED": [dg.DagsterRunStatus.STARTING],
}


@pytest.mark.parametrize(("point", "days"), [*((point, 0) for point in REQUESTED), ("RUN_CREATED", 2)])
def test_the_daemon_killed_after_a_run_was_requested_and_before_it_began(
    parts: Parts, instance: dg.DagsterInstance, make_database: Callable[[], Database], point: str, days: int
) -> None:
    parts.code_server()
    assert parts.daemon(die_at=point).wait(SECONDS) == -signal.SIGKILL
    assert [run.status for run in instance.get_runs()] == REQUESTED[point]
    parts.edit(**LATER)
    if days:
        age(parts, instance, days)

    parts.daemon()
    # what was asked for before the edit finds the edit already; what is asked for after it changes nothing
    assert_each_change_arrived_once(parts, instance, make_database(), changes=[1], runs=2)


def age(parts: Parts, instance: dg.DagsterInstance, days: int) -> None:
    """Let the interrupted tick and its run be as old as after a long outage: Dagster takes up neither any more."""
    (state,) = [state for state in instance.all_instigator_state() if state.name == SOURCE_CHANGES]
    tick = instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=1)[0]
    assert tick.status == TickStatus.STARTED
    old = tick.timestamp - days * 86_400
    data = tick.tick_data.with_status(TickStatus.STARTED, timestamp=old)
    instance.update_tick(tick._replace(tick_data=data))
    with parts.platform.database.connect() as connection:
        connection.execute(
            "UPDATE dagster.runs SET create_timestamp = create_timestamp - make_interval(days => %s)", (days,)
        )


def test_the_daemon_killed_while_the_run_is_going(
    parts: Parts, instance: dg.DagsterInstance, make_database: Callable[[], Database]
) -> None:
    # the run has read the documents and sleeps before it commits them
    parts.code_server(**{PAUSE_VARIABLE: "corpus.before_commit:6"})
    daemon = parts.daemon()
    until("the run holds the lease", lambda: parts.lease_holder("source:docs"))
    until("it has read the documents", lambda: parsed(parts) == len(PAGES))
    kill(daemon)
    parts.edit(**LATER)
    parts.daemon()
    assert_each_change_arrived_once(parts, instance, make_database(), changes=[2], runs=2)


@pytest.mark.parametrize("with_its_run", [True, False])
def test_the_code_server_killed_while_the_run_is_going(
    parts: Parts, instance: dg.DagsterInstance, make_database: Callable[[], Database], with_its_run: bool
) -> None:
    server = parts.code_server(**{PAUSE_VARIABLE: "corpus.before_commit:20"})
    parts.daemon()
    first = until("the run holds the lease", lambda: parts.lease_holder("source:docs"))
    until("it has read the documents", lambda: parsed(parts) == len(PAGES))
    parts.tree(server)
    if with_its_run:
        worker(instance, first)
        parts.kill_tree(server)
    else:
        kill(server)
    assert status(instance, first) == dg.DagsterRunStatus.STARTED
    parts.edit(**LATER)

    parts.code_server()  # at the same address: it answers, and knows nothing of that run
    until("the run is given up", lambda: status(instance, first) == dg.DagsterRunStatus.FAILURE, 120)
    # a run that outlived its server may commit what it had read until its retry takes the lease; then no more
    allowed = [1] if with_its_run else [1, 2]
    assert_each_change_arrived_once(parts, instance, make_database(), changes=allowed, runs=2)
    assert parts.committed_by() != first


def parsed(parts: Parts) -> int:
    with parts.platform.database.connect() as connection:
        row = connection.execute("SELECT count(*) FROM parse_result").fetchone()
    return row[0] if row else 0
