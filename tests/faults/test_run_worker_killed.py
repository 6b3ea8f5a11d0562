"""SIGKILL through the real queue: of a run worker, of everything, of a command; the next run ends it well.

A real ``genaiops dev`` (webserver, daemon, code server) launches the runs. Nobody cleans up for it: run monitoring,
run retries, leases and ``fail_abandoned_runs`` have to.
"""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import psutil
import pytest

from resources.faults import CRASH_VARIABLE, PAUSE_VARIABLE
from resources.platform import Platform
from resources.postgres import Database
from tests.deployment import SECONDS, UNDERWAY, Deployment, instance_of, retry_of, status, until, worker
from tests.lifecycle import corpus_state, found, index_state, refresh

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

QUESTIONS = ["How often is the chain oiled?"]
PAGES = {
    "chain.md": "# Chain\n\nOil the chain every 250 km.\n\n## Wear\n\nReplace the chain at 0.75 percent elongation.\n",
    "brakes.md": "# Brakes\n\nThe pads last about 3,000 km.\n\n## Bleeding\n\nBleed the brakes once a year.\n",
    "bell.md": "# Bell\n\nThe bell rings at 90 dB.\n",
}


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
