"""Interactions: the live answers, read back for monitoring, and removed when their time is over.

Belongs here: readers and the retention of table ``interaction``.
Does not belong here: the writer (resources/interaction_log.py, which the gateway may import), statistics (questions.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from resources.postgres import Connection, Database


@dataclass(frozen=True)
class Interaction:
    """What monitoring needs of a live answer.

    Attributes:
        score: retrieval score of the first hit; None when nothing was retrieved.
        variant: fingerprint of the variant that answered.
    """

    interaction_id: str
    question: str
    refused: bool
    score: float | None
    index: str
    variant: str


@dataclass(frozen=True)
class Window:
    """Interactions of whole UTC days, ``first`` to ``last`` inclusive."""

    first: date
    last: date
    interactions: tuple[Interaction, ...]


def day_bounds(first: date, last: date | None = None) -> tuple[datetime, datetime]:
    """Half-open range of time of the UTC days ``first`` to ``last`` (default: that one day)."""
    start = datetime(first.year, first.month, first.day, tzinfo=UTC)
    end = last or first
    return start, datetime(end.year, end.month, end.day, tzinfo=UTC) + timedelta(days=1)


def read_days(connection: Connection, first: date, last: date, indexes: Sequence[str]) -> tuple[Interaction, ...]:
    """Interactions of the UTC days ``first`` to ``last`` answered from one of ``indexes``, oldest first."""
    start, end = day_bounds(first, last)
    rows = connection.execute(
        """SELECT interaction_id::text, question, refused, (retrieved -> 0 ->> 'score')::double precision, index_name, variant
           FROM interaction WHERE asked_at >= %s AND asked_at < %s AND index_name = ANY(%s)
           ORDER BY asked_at, interaction_id""",
        (start, end, list(indexes)),
    ).fetchall()
    return tuple(Interaction(*row) for row in rows)


def trailing_window(
    connection: Connection, day: date, indexes: Sequence[str], *, minimum: int, maximum_days: int
) -> Window:
    """The shortest run of whole days ending with ``day`` that holds ``minimum`` interactions, at most ``maximum_days``."""
    earliest = day - timedelta(days=maximum_days - 1)
    start, end = day_bounds(earliest, day)
    counts = dict(
        connection.execute(
            """SELECT (asked_at AT TIME ZONE 'UTC')::date, count(*) FROM interaction
               WHERE asked_at >= %s AND asked_at < %s AND index_name = ANY(%s) GROUP BY 1""",
            (start, end, list(indexes)),
        ).fetchall()
    )
    first, held = day, counts.get(day, 0)
    while held < minimum and first > earliest:
        first -= timedelta(days=1)
        held += counts.get(first, 0)
    return Window(first, day, read_days(connection, first, day, indexes))


def purge(database: Database, days: int, *, now: datetime | None = None) -> int:
    """Delete interactions older than ``days`` (``policies.retention.interaction_days``) and return how many."""
    with database.connect() as connection:
        return connection.execute(
            "DELETE FROM interaction WHERE asked_at < %s", ((now or datetime.now(UTC)) - timedelta(days=days),)
        ).rowcount
