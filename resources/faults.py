"""Crash points: named places in the code path where a test can kill the process.

Belongs here: the switch. Does not belong here: any behaviour when the switch is off.
"""

import os
import signal
import time

#: Environment variable of the form ``name`` or ``name:count`` (kill at the count-th passage, default 1).
CRASH_VARIABLE = "GENAIOPS_CRASH_POINT"
#: Environment variable of the form ``name:seconds``: sleep there, to widen a race.
PAUSE_VARIABLE = "GENAIOPS_PAUSE_POINT"

_passages: dict[str, int] = {}


def crash_point(name: str) -> None:
    """Kill this process with SIGKILL if ``GENAIOPS_CRASH_POINT`` names this point; otherwise do nothing."""
    wanted = os.environ.get(CRASH_VARIABLE)
    if wanted:
        point, _, count = wanted.partition(":")
        if point == name:
            _passages[name] = _passages.get(name, 0) + 1
            if _passages[name] >= int(count or 1):
                os.kill(os.getpid(), signal.SIGKILL)
    paused = os.environ.get(PAUSE_VARIABLE)
    if paused:
        point, _, seconds = paused.partition(":")
        if point == name:
            time.sleep(float(seconds or 1))
