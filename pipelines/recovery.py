"""Recovery: runs whose processes are gone are told to be over.

Belongs here: finding such runs. Does not belong here: cleaning up after them; leases refuse their late writes and the
next run discards what they staged.

A run launched by the daemon is watched by the code server that started its process. When that server was killed nobody
watches: the run would stay STARTED, and hold its place in the queue, until ``max_runtime_seconds``. Each command looks
when it starts, and the sensor ``reconcile`` at every tick.
"""

import json
import os
import socket
import time
from collections.abc import Callable
from typing import Any

import dagster as dg

#: Run tag of runs made by the command line: host, process id and start time of the process.
PROCESS_TAG = "genaiops/process"
_GRPC_TAG = ".dagster/grpc_info"
#: Start times are counted from the boot time, which moves when the clock is set; a process id returns much later.
_CLOCK_SECONDS = 5
_TRIES, _PAUSE_SECONDS = 3, 1.0
_UNDERWAY = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


def this_process() -> str:
    """Identity of this process, for ``PROCESS_TAG``."""
    import psutil

    return f"{socket.gethostname()}:{os.getpid()}:{psutil.Process().create_time():.0f}"


def process_is_gone(identity: str) -> bool:
    """Whether the process of that identity ran on this host and is over."""
    import psutil

    host, number, created = identity.rsplit(":", 2)
    if host != socket.gethostname():
        return False
    try:
        process = psutil.Process(int(number))
        if process.status() == psutil.STATUS_ZOMBIE:
            return True  # killed, and in a container without an init never collected
        return abs(process.create_time() - float(created)) > _CLOCK_SECONDS
    except psutil.NoSuchProcess:
        return True


def fail_abandoned_runs(
    instance: dg.DagsterInstance,
    *,
    server_answers: Callable[[dict[str, object]], bool] | None = None,
    server_knows: Callable[[dict[str, object], str], bool] | None = None,
) -> list[str]:
    """Report every run as failed whose process, or whose code server, is gone; return their ids.

    Another server at the same address, as after a restart of its container, does not know the run.

    Safe even if a worker of such a run still lives: its lease is lost with the run, and its writes are refused.
    """
    server_answers = server_answers or _server_answers
    server_knows = server_knows or _server_knows
    failed = []
    for run in instance.get_runs(dg.RunsFilter(statuses=_UNDERWAY)):
        if PROCESS_TAG in run.tags:
            gone, what = process_is_gone(run.tags[PROCESS_TAG]), "the process that made it"
        elif _GRPC_TAG in run.tags:
            address, what = json.loads(run.tags[_GRPC_TAG]), "the code server that launched it"
            started = run.status == dg.DagsterRunStatus.STARTED
            gone = not server_answers(address) or (started and not server_knows(address, run.run_id))
        else:
            continue
        now = instance.get_run_by_id(run.run_id) if gone else None
        if now and now.status in _UNDERWAY:  # it may have ended while that was found out
            instance.report_run_failed(now, f"{what} is gone; the run was abandoned")
            # Without this a killed step would keep its place in a pool until the daemon looks, or for ever without one.
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
            failed.append(run.run_id)
    return failed


def _client(address: dict[str, object]) -> Any:
    from dagster._grpc.client import DagsterGrpcClient

    port, path = address.get("port"), address.get("socket")
    return DagsterGrpcClient(
        host=str(address.get("host") or "localhost"),
        port=int(str(port)) if port else None,
        socket=str(path) if path else None,
        use_ssl=bool(address.get("use_ssl")),
    )


def _server_answers(address: dict[str, object]) -> bool:
    for attempt in range(_TRIES):
        try:
            _client(address).ping("alive")
            return True
        except Exception:  # any failure to answer is the answer; one that is just restarting gets a moment
            time.sleep(_PAUSE_SECONDS if attempt + 1 < _TRIES else 0)
    return False


def _server_knows(address: dict[str, object], run_id: str) -> bool:
    from dagster._grpc.types import GetCurrentRunsResult
    from dagster._serdes import deserialize_value

    try:
        current = deserialize_value(_client(address).get_current_runs(), GetCurrentRunsResult).current_runs
    except Exception:  # the proxy of "dagster dev" cannot say; the servers behind it may well know
        return True
    return run_id in current
