"""Instance: opens Dagster's instance so that many processes may do so at once on a database that is new to it.

Belongs here: what must be there before the first run. Does not belong here: the definitions (definitions.py) and
Dagster's own configuration (dagster.yaml).

Dagster makes its tables and the rows of its pools where they are first needed. Two processes that meet there collide:
in PostgreSQL the statement it falls back on runs in a transaction that has already failed, and the step is lost with
it. So both are made here, one process after the other.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
import psycopg

from pipelines.recovery import fail_abandoned_runs
from pipelines.settings import Settings

#: Pools of the assets; a test compares them with the definitions.
POOLS = ("chat_model", "embedding_model")
_LOCK = 726_343


@contextmanager
def opened_instance(settings: Settings) -> Iterator[tuple[dg.DagsterInstance, list[str]]]:
    """The instance of a prepared home, and the ids of abandoned runs that were told to be over."""
    with psycopg.connect(settings.database_address(), autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
        instance = dg.DagsterInstance.get()
        try:
            make_pools(instance)
            abandoned = fail_abandoned_runs(instance)
        except BaseException:
            instance.__exit__(None, None, None)
            raise
        # the session lock goes with the connection
    with instance:
        yield instance, abandoned


def make_pools(instance: dg.DagsterInstance) -> None:
    """Give every pool its default limit; one whose limit was set by hand keeps it."""
    storage = instance.event_log_storage
    default = instance.global_op_concurrency_default_limit
    known = {pool.name: pool for pool in storage.get_pool_limits()}
    for name in POOLS:
        pool = known.get(name)
        if pool and pool.from_default and pool.limit != default:
            storage.delete_concurrency_limit(name)  # for the reason above Dagster cannot change it in PostgreSQL
            pool = None
        if pool is None:
            storage.initialize_concurrency_limit_to_default(name)
