"""Interactions: the live answers, read back for monitoring, and removed when their time is over.

Belongs here: readers and the retention of table ``interaction``.
Does not belong here: the writer (resources/interaction_log.py, which the gateway may import), statistics (questions.py).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from resources.postgres import Connection, Database

#: Of the names trials on live questions stand under; migration 0015 has an index on it.
SHADOW_PREFIX = "interactions:"


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


#: Answered from one of some indexes; or from none, by a variant that has trials on a dataset (a task without documents).
_WANTED = "(index_name = ANY(%s) OR index_name = '' AND variant IN (SELECT variant FROM trial WHERE dataset = %s))"


def read_days(
    connection: Connection, first: date, last: date, indexes: Sequence[str], dataset: str | None = None
) -> tuple[Interaction, ...]:
    """Interactions of the UTC days ``first`` to ``last`` answered from one of ``indexes``, oldest first.

    Args:
        dataset: of a task without documents: also the inputs given to a variant that was measured on it.
    """
    start, end = day_bounds(first, last)
    rows = connection.execute(
        f"""SELECT interaction_id::text, question, refused, (retrieved -> 0 ->> 'score')::double precision, index_name, variant
            FROM interaction WHERE asked_at >= %s AND asked_at < %s AND {_WANTED}
            ORDER BY asked_at, interaction_id""",
        (start, end, list(indexes), dataset),
    ).fetchall()
    return tuple(Interaction(*row) for row in rows)


def trailing_window(
    connection: Connection,
    day: date,
    indexes: Sequence[str],
    *,
    minimum: int,
    maximum_days: int,
    dataset: str | None = None,
) -> Window:
    """The shortest run of whole days ending with ``day`` that holds ``minimum`` interactions, at most ``maximum_days``.

    Args:
        indexes, dataset: which interactions, see ``read_days``.
    """
    earliest = day - timedelta(days=maximum_days - 1)
    start, end = day_bounds(earliest, day)
    counts = dict(
        connection.execute(
            f"""SELECT (asked_at AT TIME ZONE 'UTC')::date, count(*) FROM interaction
                WHERE asked_at >= %s AND asked_at < %s AND {_WANTED} GROUP BY 1""",
            (start, end, list(indexes), dataset),
        ).fetchall()
    )
    first, held = day, counts.get(day, 0)
    while held < minimum and first > earliest:
        first -= timedelta(days=1)
        held += counts.get(first, 0)
    return Window(first, day, read_days(connection, first, day, indexes, dataset))


def purge(database: Database, days: int, *, now: datetime | None = None) -> int:
    """Delete interactions older than ``days`` (``policies.retention.interaction_days``) and return how many.

    What was answered to their questions a second time goes with them.
    """
    with database.connect() as connection:
        purged = connection.execute(
            "DELETE FROM interaction WHERE asked_at < %s", ((now or datetime.now(UTC)) - timedelta(days=days),)
        ).rowcount
        forget_shadows(connection)
    return purged


def shadow_dataset(experiment: str) -> str:
    """Under which name the trials on live questions stand; their question ids are ids of interactions."""
    return f"{SHADOW_PREFIX}{experiment}"


def forget_shadows(connection: Connection) -> Counter[str]:
    """Remove trials on live questions whose interaction is gone, and the model calls nothing else refers to.

    Returns:
        Rows removed by table.
    """
    gone = connection.execute(
        """DELETE FROM trial WHERE starts_with(dataset, 'interactions:')
             AND NOT EXISTS (SELECT FROM interaction WHERE interaction_id::text = trial.question_id)
           RETURNING generation, steps, (SELECT count(*) FROM trial_score WHERE trial = fingerprint)"""
    ).fetchall()
    calls = {row[0] for row in gone if row[0]} | {step for row in gone for step in row[1] or ()}
    removed = connection.execute(
        """DELETE FROM generation WHERE fingerprint = ANY(%(calls)s)
             AND NOT EXISTS (SELECT FROM trial WHERE trial.generation = generation.fingerprint)
             AND NOT EXISTS (SELECT FROM interaction WHERE interaction.generation = generation.fingerprint)
             AND NOT EXISTS (SELECT FROM trial WHERE steps IS NOT NULL AND steps ? generation.fingerprint)
             AND NOT EXISTS (SELECT FROM interaction WHERE steps IS NOT NULL AND steps ? generation.fingerprint)""",
        {"calls": sorted(calls)},
    ).rowcount
    return Counter(trial=len(gone), trial_score=sum(row[2] for row in gone), generation=removed)
