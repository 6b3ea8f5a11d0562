"""Recovery: runs whose processes are gone are told to be over.

Belongs here: finding such runs. Does not belong here: cleaning up after them; leases refuse their late writes and the
next run discards what they staged.

A run launched by the daemon is watched by run monitoring while its code server lives. When a whole process tree was
killed nobody watches: the run would stay STARTED, and hold its place in the queue, until ``max_runtime_seconds``.
"""

import json
import os
import socket
from collections.abc import Callable

import dagster as dg

#: Run tag of runs made by the command line: host, process id and start time of the process.
PROCESS_TAG = "genaiops/process"
_GRPC_TAG = ".dagster/grpc_info"
#: Start times are counted from the boot time, which moves when the clock is set; a process id returns much later.
_CLOCK_SECONDS = 5
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
    instance: dg.DagsterInstance, *, server_answers: Callable[[dict[str, object]], bool] | None = None
) -> list[str]:
    """Report every run as failed whose process, or whose code server, is gone; return their ids.

    Safe even if a worker of such a run still lives: its lease is lost with the run, and its writes are refused.
    """
    server_answers = server_answers or _server_answers
    failed = []
    for run in instance.get_runs(dg.RunsFilter(statuses=_UNDERWAY)):
        if PROCESS_TAG in run.tags:
            gone, what = process_is_gone(run.tags[PROCESS_TAG]), "the process that made it"
        elif _GRPC_TAG in run.tags:
            gone, what = not server_answers(json.loads(run.tags[_GRPC_TAG])), "the code server that launched it"
        else:
            continue
        if gone:
            instance.report_run_failed(run, f"{what} is gone; the run was abandoned")
            # Without this a killed step would keep its place in a pool until the daemon looks, or for ever without one.
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
            failed.append(run.run_id)
    return failed


def _server_answers(address: dict[str, object]) -> bool:
    from dagster._grpc.client import DagsterGrpcClient

    port, path = address.get("port"), address.get("socket")
    client = DagsterGrpcClient(
        host=str(address.get("host") or "localhost"),
        port=int(str(port)) if port else None,
        socket=str(path) if path else None,
    )
    try:
        client.ping("alive")
    except Exception:  # any failure to answer is the answer
        return False
    return True
