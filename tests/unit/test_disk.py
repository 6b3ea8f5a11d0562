"""A full disk is told from other trouble, is not tried again, and what is said of it names the remedy."""

import errno
import os
from pathlib import Path

import dagster as dg
import psycopg
import pytest

from assets.dagster_support import errors_by_kind
from resources.disk import REMEDY, disk_full, is_full
from resources.postgres import Database, describe_error, may_pass


def refused(database: Database, message: str, code: str = "53100") -> psycopg.Error:
    """An error as the server sends it."""
    with pytest.raises(psycopg.Error) as caught, database.connect() as connection:
        connection.execute(f"DO $$ BEGIN RAISE EXCEPTION '{message}' USING ERRCODE = '{code}'; END $$")  # type: ignore[arg-type]
    return caught.value


@pytest.mark.parametrize(
    ("message", "code", "full", "passes"),
    [
        ('could not extend file "base/5/1": No space left on device', "53100", True, False),
        ("could not resize shared memory segment: No space left on device", "53100", False, True),
        ("out of memory", "53200", False, True),
        ("terminating connection due to administrator command", "57P01", False, True),
        ("division by zero", "22012", False, False),
    ],
)
def test_errors_of_the_database(database: Database, message: str, code: str, full: bool, passes: bool) -> None:
    error = refused(database, message, code)
    assert (is_full(error), may_pass(error)) == (full, passes)
    assert message in describe_error(error)
    assert (REMEDY in describe_error(error)) == full


def test_a_lost_connection_is_no_full_disk() -> None:
    error = psycopg.OperationalError("server closed the connection")
    assert (is_full(error), may_pass(error)) == (False, True)
    assert describe_error(error) == "OperationalError: connection lost"


def test_errors_of_the_operating_system() -> None:
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/reports/a.html")
    assert is_full(error)
    assert is_full(OSError(errno.EDQUOT, ""))
    assert not is_full(PermissionError(errno.EACCES, ""))
    assert (
        str(disk_full(error))
        == f"a disk of this machine is full (No space left on device at /reports/a.html). {REMEDY}"
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_step_that_finds_no_room_fails_once_and_says_so() -> None:
    tried: list[int] = []

    @dg.asset
    def writes() -> None:
        with errors_by_kind(max_retries=2, wait_seconds=0), open("/dev/full", "w") as file:
            tried.append(1)
            file.write("report")

    with pytest.raises(dg.Failure, match=f"a disk of this machine is full .*{REMEDY}"):
        dg.materialize([writes], instance=dg.DagsterInstance.ephemeral())
    assert tried == [1]
