"""A run whose process or code server is gone is reported as failed; one that still lives is left alone."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import dagster as dg
import psutil
import pytest

from pipelines.recovery import PROCESS_TAG, fail_abandoned_runs, process_is_gone, this_process

SERVER_TAG = ".dagster/grpc_info"
UNDERWAY = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def identity(process: int, *, created: float | None = None, host: str | None = None) -> str:
    created = psutil.Process(process).create_time() if created is None else created
    return f"{host or socket.gethostname()}:{process}:{created:.0f}"


def finished_process() -> str:
    """Identity of a process that is over."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        name = identity(child.pid)
    return name


def add_run(
    instance: dg.DagsterInstance,
    tags: dict[str, str],
    status: dg.DagsterRunStatus = dg.DagsterRunStatus.STARTED,
) -> str:
    @dg.op
    def step() -> None: ...

    @dg.job
    def work() -> None:
        step()

    return instance.create_run_for_job(work, status=status, tags=tags).run_id


def status(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRunStatus:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run.status


def test_this_process_is_not_gone() -> None:
    assert not process_is_gone(this_process())


def test_a_process_that_ended_is_gone() -> None:
    assert process_is_gone(finished_process())


def test_a_process_nobody_collected_is_gone() -> None:
    # in a container without an init, a killed process stays in the table as a zombie
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    name = identity(child.pid)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    try:
        assert psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE
        assert process_is_gone(name)
    finally:
        child.communicate()


def test_a_recycled_process_id_is_another_process() -> None:
    assert process_is_gone(identity(os.getpid(), created=psutil.Process().create_time() - 3600))


@pytest.mark.parametrize("shift", [-1.0, 1.0])
def test_a_correction_of_the_clock_does_not_end_a_process(shift: float) -> None:
    # the kernel's boot time, to which start times are added, moves when the clock is set
    assert not process_is_gone(identity(os.getpid(), created=psutil.Process().create_time() + shift))


def test_a_process_of_another_host_is_not_judged() -> None:
    assert not process_is_gone(identity(os.getpid(), created=0, host="elsewhere"))


def test_a_host_name_may_hold_colons(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "fe80::1")
    assert not process_is_gone(this_process())
    assert process_is_gone(identity(os.getpid(), created=1))


@pytest.mark.parametrize("state", UNDERWAY)
def test_a_run_of_a_dead_process_is_reported_failed(instance: dg.DagsterInstance, state: dg.DagsterRunStatus) -> None:
    run_id = add_run(instance, {PROCESS_TAG: finished_process()}, state)
    assert fail_abandoned_runs(instance) == [run_id]
    assert status(instance, run_id) == dg.DagsterRunStatus.FAILURE
    messages = [entry.message for entry in instance.all_logs(run_id)]
    assert any("the process that made it is gone" in message for message in messages)
    assert fail_abandoned_runs(instance) == [], "it was reported twice"


def test_a_run_of_a_live_process_goes_on(instance: dg.DagsterInstance) -> None:
    run_id = add_run(instance, {PROCESS_TAG: this_process()})
    assert fail_abandoned_runs(instance) == []
    assert status(instance, run_id) == dg.DagsterRunStatus.STARTED


@pytest.mark.parametrize("answers", [True, False])
def test_a_run_of_the_queue_lives_as_long_as_its_code_server(instance: dg.DagsterInstance, answers: bool) -> None:
    address = {"host": "localhost", "socket": "/run/code.sock"}
    run_id = add_run(instance, {SERVER_TAG: json.dumps(address)})
    asked: list[dict[str, object]] = []

    def server_answers(place: dict[str, object]) -> bool:
        asked.append(place)
        return answers

    assert fail_abandoned_runs(instance, server_answers=server_answers) == ([] if answers else [run_id])
    assert asked == [address]
    expected = dg.DagsterRunStatus.STARTED if answers else dg.DagsterRunStatus.FAILURE
    assert status(instance, run_id) == expected


@pytest.mark.parametrize(
    ("state", "gone"),
    [
        (dg.DagsterRunStatus.STARTED, True),
        (dg.DagsterRunStatus.STARTING, False),  # it may be just handing the run over; the start has a time limit
        (dg.DagsterRunStatus.CANCELING, False),
    ],
)
def test_another_code_server_at_the_same_address_does_not_know_the_run(
    instance: dg.DagsterInstance, state: dg.DagsterRunStatus, gone: bool
) -> None:
    address = {"host": "code", "port": 4000}
    run_id = add_run(instance, {SERVER_TAG: json.dumps(address)}, state)
    failed = fail_abandoned_runs(instance, server_answers=lambda place: True, server_knows=lambda place, run: False)
    assert failed == ([run_id] if gone else [])


def test_a_run_that_ends_while_its_server_is_asked_stays_as_it_ended(instance: dg.DagsterInstance) -> None:
    run_id = add_run(instance, {SERVER_TAG: json.dumps({"host": "code", "port": 4000})})

    def server_knows(place: dict[str, object], run: str) -> bool:
        ended = instance.get_run_by_id(run)
        assert ended is not None
        instance.report_run_canceled(ended)
        return False

    assert fail_abandoned_runs(instance, server_answers=lambda place: True, server_knows=server_knows) == []
    assert status(instance, run_id) == dg.DagsterRunStatus.CANCELED


def test_a_code_server_nobody_listens_for_is_gone(instance: dg.DagsterInstance) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: nobody else can open it meanwhile
        address = {"host": "127.0.0.1", "port": taken.getsockname()[1]}
        run_id = add_run(instance, {SERVER_TAG: json.dumps(address)})
        assert fail_abandoned_runs(instance) == [run_id]


@pytest.mark.parametrize("state", [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.NOT_STARTED])
def test_a_run_that_is_not_underway_is_left_alone(instance: dg.DagsterInstance, state: dg.DagsterRunStatus) -> None:
    run_id = add_run(instance, {PROCESS_TAG: finished_process()}, state)
    assert fail_abandoned_runs(instance) == []
    assert status(instance, run_id) == state


def test_a_run_without_a_known_maker_is_left_alone(instance: dg.DagsterInstance) -> None:
    run_id = add_run(instance, {})
    assert fail_abandoned_runs(instance) == []
    assert status(instance, run_id) == dg.DagsterRunStatus.STARTED
