"""The cache of enrichment values: a step is done once per distinct chunk, whichever index, chunker or source has it.

Belongs here: reading and writing the values, what is missing, what was given up, what nothing uses any more.
Does not belong here: making values (enrichment_steps.py, enrichment_models.py) and composing inputs from them.

A value is found by the step's fingerprint, the content of the chunk and, where the step sees headings, the heading
path. A value that is NULL was given up: it counts as done, adds nothing, and is shown by a check.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg.types.json import Jsonb

from assets.chunks.enrichment_steps import Value
from resources.index_config import EnrichmentStep
from resources.models import Usage
from resources.postgres import Connection

NO_CONTEXT = b""


@dataclass(frozen=True)
class StepRow:
    """A step with its id in the database."""

    key: int
    step: EnrichmentStep


@dataclass(frozen=True)
class Subject:
    """What a step is done for: the characters of a chunk and, if the step sees it, the heading path."""

    chunk_hash: bytes
    text: str
    heading_path: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What came of one subject: a value, or the reason why it was given up."""

    subject: Subject
    value: Value | None
    failure: str | None = None
    usage: Usage | None = None
    seconds: float = 0.0

    def usage_json(self) -> dict[str, Any] | None:
        """Usage of the calls and their seconds, as stored; None where no model was asked."""
        return {**self.usage.to_json(), "seconds": round(self.seconds, 3)} if self.usage else None


def context_hash(step: EnrichmentStep, heading_path: Sequence[str]) -> bytes:
    """The second part of a value's key; equal to ``heading_context`` in the database, empty for most steps."""
    if not step.sees_headings:
        return NO_CONTEXT
    return hashlib.sha256("\x1f".join(heading_path).encode()).digest()[:16]


def subject_key(step: EnrichmentStep, subject: Subject) -> tuple[bytes, bytes]:
    """The key of a subject's value within its step."""
    return subject.chunk_hash, context_hash(step, subject.heading_path)


def known_values(
    connection: Connection, row: StepRow, keys: Iterable[tuple[bytes, bytes]]
) -> dict[tuple[bytes, bytes], Value | None]:
    """The values there are for some keys; one that was given up is there as None."""
    wanted = list(dict.fromkeys(keys))
    rows = connection.execute(
        """SELECT chunk_hash, context_hash, value FROM enrichment_value JOIN unnest(%s::bytea[], %s::bytea[])
               wanted (chunk_hash, context_hash) USING (chunk_hash, context_hash) WHERE step_id = %s""",
        ([key[0] for key in wanted], [key[1] for key in wanted], row.key),
    ).fetchall()
    return {(bytes(chunk), bytes(context)): value for chunk, context, value in rows}


def values_of(
    connection: Connection, rows: Sequence[StepRow], chunks: Sequence[tuple[bytes, Sequence[str]]]
) -> list[list[Value | None] | None]:
    """The values of all steps for chunks given as (hash, heading path); None for a chunk that lacks one.

    A step whose value is used nowhere has None here, and nothing lacks it.
    """
    columns = []
    for row in rows:
        if not row.step.use:
            columns.append([(True, None)] * len(chunks))
            continue
        keys = [(key, context_hash(row.step, path)) for key, path in chunks]
        known = known_values(connection, row, keys)
        columns.append([(key in known, known.get(key)) for key in keys])
    found: list[list[Value | None] | None] = []
    for number in range(len(chunks)):
        cells = [column[number] for column in columns]
        found.append([value for _, value in cells] if all(there for there, _ in cells) else None)
    return found


def store_values(connection: Connection, row: StepRow, outcomes: Sequence[Outcome], run_id: str) -> None:
    """Keep outcomes, in key order so that two runs cannot deadlock; what another run stored first stays."""
    lines = sorted(
        (
            (
                *subject_key(row.step, item.subject),
                None if item.value is None else Jsonb(item.value),
                item.failure,
                Jsonb(usage) if (usage := item.usage_json()) else None,
            )
            for item in outcomes
        ),
        key=lambda line: line[:2],
    )
    connection.execute(
        """INSERT INTO enrichment_value (step_id, chunk_hash, context_hash, value, failure, usage, run_id)
           SELECT %s, chunk_hash, context_hash, value, failure, usage, %s
           FROM unnest(%s::bytea[], %s::bytea[], %s::jsonb[], %s::text[], %s::jsonb[])
               new (chunk_hash, context_hash, value, failure, usage)
           ON CONFLICT DO NOTHING""",
        (row.key, run_id, *([line[part] for line in lines] for part in range(5))),
    )


@dataclass(frozen=True)
class StepCoverage:
    """What the live chunks of a source have of one step.

    Attributes:
        chunks: distinct chunks (with their headings, where the step sees them).
        missing: those without a value.
        given_up: those whose value was given up.
    """

    chunks: int = 0
    missing: int = 0
    given_up: int = 0


def step_coverage(connection: Connection, row: StepRow, source: str, chunker_ids: Sequence[int]) -> StepCoverage:
    """Count the live chunks of a source under some chunkers, and what they have of a step; one statement."""
    found = connection.execute(
        """SELECT count(*), count(*) FILTER (WHERE v.step_id IS NULL),
                  count(*) FILTER (WHERE v.step_id IS NOT NULL AND v.value IS NULL)
           FROM (SELECT DISTINCT c.chunk_hash,
                        CASE WHEN %(context)s THEN heading_context(c.heading_path) ELSE '\\x'::bytea END AS context_hash
                 FROM (SELECT DISTINCT text_hash FROM document_version
                       WHERE source = %(source)s AND rev_to = 2147483647) live
                 CROSS JOIN LATERAL (SELECT chunk_hash, heading_path FROM chunk
                                     WHERE chunker_id = ANY(%(chunkers)s) AND text_hash = live.text_hash OFFSET 0) c
                ) needed
           LEFT JOIN enrichment_value v ON v.step_id = %(step)s AND v.chunk_hash = needed.chunk_hash
                AND v.context_hash = needed.context_hash""",
        {
            "context": row.step.sees_headings,
            "source": source,
            "chunkers": list(chunker_ids),
            "step": row.key,
        },
    ).fetchone()
    assert found is not None
    return StepCoverage(*found)


def languages_of(connection: Connection, row: StepRow, source: str, chunker_ids: Sequence[int]) -> dict[str, int]:
    """Distinct live chunks of a source by the language the step found, the most frequent first."""
    return dict(
        connection.execute(
            """SELECT v.value #>> '{}', count(DISTINCT c.chunk_hash)
               FROM (SELECT DISTINCT text_hash FROM document_version
                     WHERE source = %s AND rev_to = 2147483647) live
               CROSS JOIN LATERAL (SELECT chunk_hash FROM chunk
                                   WHERE chunker_id = ANY(%s) AND text_hash = live.text_hash OFFSET 0) c
               JOIN enrichment_value v ON v.step_id = %s AND v.chunk_hash = c.chunk_hash
               GROUP BY 1 ORDER BY 2 DESC, 1""",
            (source, list(chunker_ids), row.key),
        ).fetchall()
    )


def cost_of_run(connection: Connection, run_id: str) -> Usage:
    """What the model calls of one run cost so far, as far as their values are stored."""
    rows = connection.execute(
        "SELECT usage FROM enrichment_value WHERE run_id = %s AND usage IS NOT NULL", (run_id,)
    ).fetchall()
    fields = Usage().to_json()
    return sum((Usage(**{name: row[0][name] for name in fields}) for row in rows), Usage())


def measured_seconds(connection: Connection, row: StepRow) -> float | None:
    """Mean seconds of a model call of a step over the newest thousand values; None where none was made."""
    found = connection.execute(
        """SELECT sum((usage ->> 'seconds')::float8) / nullif(sum((usage ->> 'requests')::integer), 0)
           FROM (SELECT usage FROM enrichment_value WHERE step_id = %s AND usage IS NOT NULL
                 ORDER BY created_at DESC LIMIT 1000) newest""",
        (row.key,),
    ).fetchone()
    return found[0] if found else None


def remove_unused(connection: Connection, chunk_hashes: Sequence[bytes] | None = None) -> int:
    """Delete values that no chunk uses any more, because of its text or of its headings; returns how many.

    Args:
        chunk_hashes: look at these chunks only, as an erasure does after it has deleted rows of ``chunk``.
    """
    return connection.execute(
        """DELETE FROM enrichment_value v
           WHERE (%(all)s OR v.chunk_hash = ANY(%(hashes)s::bytea[]))
             AND NOT EXISTS (SELECT FROM chunk c WHERE c.chunk_hash = v.chunk_hash AND v.context_hash
                             IN ('\\x'::bytea, heading_context(c.heading_path)))""",
        {"all": chunk_hashes is None, "hashes": list(chunk_hashes or ())},
    ).rowcount
