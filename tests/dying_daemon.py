"""Dagster's daemon, which kills itself with SIGKILL at the point of its work that ``GENAIOPS_TEST_DIE_AT`` names.

| point | what is on record then |
| --- | --- |
| RUN_IDS_RESERVED | a sensor asked for a run; nothing was made |
| RUN_CREATED | the run, which is not in the queue |
| RUN_LAUNCHED | the run in the queue; the sensor's tick is not over |
| DEQUEUED | the run taken out of the queue; nobody started it |
"""

import os
import signal
from typing import Any

import dagster._daemon.sensor as sensor
from dagster._core.launcher.default_run_launcher import DefaultRunLauncher
from dagster._daemon.cli import main

POINT = os.environ.get("GENAIOPS_TEST_DIE_AT")


def _die_at(flags: Any, point: str) -> None:
    if point == POINT:
        os.kill(os.getpid(), signal.SIGKILL)


_launch_run = DefaultRunLauncher.launch_run


def _launch(self: DefaultRunLauncher, context: Any) -> None:
    _die_at(None, "DEQUEUED")
    _launch_run(self, context)


sensor.check_for_debug_crash = _die_at  # pyright: ignore[reportPrivateImportUsage]
DefaultRunLauncher.launch_run = _launch

if __name__ == "__main__":
    main()
