"""Leases: one writer at a time, and a late write of an orphan is refused."""

import pytest

from resources.errors import LeaseHeldError, StaleLeaseError
from resources.postgres import Database, dagster_url


def test_second_run_is_told_who_holds_the_lease(database: Database) -> None:
    with database.lease("source:docs", "run-1"), pytest.raises(LeaseHeldError, match=r"source:docs .* run-1"):
        with database.lease("source:docs", "run-2", wait_seconds=0.3):
            pass


def test_lease_of_another_resource_is_free(database: Database) -> None:
    with database.lease("source:docs", "run-1"), database.lease("source:wiki", "run-2", wait_seconds=0):
        pass


def test_late_write_of_an_orphan_is_refused(database: Database) -> None:
    with database.lease("index:main", "dead-run") as orphan:
        with database.lease("index:main", "new-run", holder_is_dead=lambda holder: holder == "dead-run") as lease:
            with database.connect() as connection:
                lease.check(connection)
            with pytest.raises(StaleLeaseError, match="taken over by new-run"), database.connect() as connection:
                orphan.check(connection)


def test_run_that_has_the_lock_but_has_not_signed_yet_is_not_cut_off(database: Database) -> None:
    with database.lease("index:main", "dead-run"):
        pass
    with database.dedicated() as starting:
        starting.execute("SELECT pg_advisory_lock(726341, hashtext('index:main'))")
        with (
            pytest.raises(LeaseHeldError),
            database.lease("index:main", "new-run", wait_seconds=0.3, holder_is_dead=lambda holder: True),
        ):
            pass
        assert starting.execute("SELECT 1").fetchone() == (1,)


def test_tokens_grow(database: Database) -> None:
    with database.lease("source:docs", "a") as first:
        pass
    with database.lease("source:docs", "b") as second:
        assert second.token > first.token


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://u:p@h:5432/db", "postgresql+psycopg2://u:p@h:5432/db?options=-csearch_path%3Ddagster%2Cpublic"),
        (
            "postgresql://postgres:@/x?host=/s",
            "postgresql+psycopg2://postgres:@/x?host=/s&options=-csearch_path%3Ddagster%2Cpublic",
        ),
    ],
)
def test_dagster_storage_names_psycopg2(url: str, expected: str) -> None:
    assert dagster_url(url) == expected
