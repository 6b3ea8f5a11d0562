"""Shared by the benchmarks against peers: finding an interpreter that has them, and running their driver in it.

Belongs here: the subprocess. Does not belong here: what a peer does (peers_driver.py), since it runs elsewhere.
"""

import json
import os
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest

VARIABLE = "GENAIOPS_PEERS_PYTHON"
DRIVER = Path(__file__).with_name("peers_driver.py")


def peer(job: str, **arguments: Any) -> dict[str, Any]:
    """Run one job of the driver and return its result; skip the test where there is no interpreter with peers."""
    python = os.environ.get(VARIABLE)
    if not python:
        pytest.skip(f"{VARIABLE} is not set: name a Python with the peers installed (docs/peers.md)")
    if not Path(python).is_file():
        pytest.skip(f"{VARIABLE} names {python}, which is no file")
    done = subprocess.run(
        [python, str(DRIVER), job, json.dumps(arguments)],
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": ""},
        capture_output=True,
        text=True,
        timeout=550,
    )
    assert done.returncode == 0, f"{job}: {done.stderr[-4000:]}"
    return json.loads(done.stdout.strip().splitlines()[-1])


@cache
def installed() -> dict[str, str]:
    """Versions of the peers that interpreter has."""
    return peer("versions")


def require(*names: str) -> dict[str, str]:
    """Versions of those of ``names`` that are there; skip the test when none is."""
    there = {name: version for name, version in installed().items() if name in names}
    if not there:
        pytest.skip(f"the Python of {VARIABLE} has none of: {', '.join(names)}")
    return there


def load() -> str:
    """How busy the machine is, for the heading of a table."""
    return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
