"""A step is tried again only where that may help."""

import json

import dagster as dg
import psycopg
import pytest

from assets.dagster_support import errors_by_kind
from resources.errors import PermanentError, TransientError
from resources.postgres import Database


@pytest.mark.parametrize(
    ("error", "tries"),
    [
        (TransientError("busy"), 3),
        (PermanentError("no such model"), 1),
        (ValueError("defect"), 1),
        (psycopg.OperationalError("server closed the connection"), 3),
        (psycopg.ProgrammingError("no such column"), 1),
    ],
)
def test_only_transient_errors_are_tried_again(error: Exception, tries: int) -> None:
    tried: list[int] = []

    @dg.asset(retry_policy=None)
    def fails() -> None:
        with errors_by_kind(max_retries=2, wait_seconds=0):
            tried.append(1)
            raise error

    result = dg.materialize([fails], raise_on_error=False, instance=dg.DagsterInstance.ephemeral())
    assert not result.success
    assert len(tried) == tries


def test_what_a_database_error_quotes_of_a_row_reaches_no_event(database: Database) -> None:
    @dg.asset
    def fails() -> None:
        with errors_by_kind(), database.connect() as connection:
            connection.execute("INSERT INTO document_text VALUES ('a', 'canary-7f3', NULL)")

    instance = dg.DagsterInstance.ephemeral()
    result = dg.materialize([fails], raise_on_error=False, instance=instance)
    told = json.dumps([dg.serialize_value(entry) for entry in instance.all_logs(result.run_id)])
    assert "NotNullViolation" in told
    assert "canary-7f3" not in told


def test_a_step_that_recovers_succeeds() -> None:
    tried: list[int] = []

    @dg.asset
    def recovers() -> None:
        with errors_by_kind(max_retries=2, wait_seconds=0):
            tried.append(1)
            if len(tried) < 3:
                raise TransientError("busy")

    assert dg.materialize([recovers], instance=dg.DagsterInstance.ephemeral()).success
