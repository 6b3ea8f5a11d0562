"""Retention: removes snapshots beyond the policy, and rows and cached work that nothing needs any more.

Belongs here: which snapshots stay, and what goes with the others.
Does not belong here: the numbers (data/policies/index.yaml), erasure on request (assets/governance).

A snapshot stays when it is one of the newest ``keep_snapshots``, younger than ``keep_days``, the head, served, or
pinned. A retained snapshot can be searched: its rows hold text and vector themselves.

An index that left the configuration (an experiment derives others now, or its file is gone) is retired as a whole once
``unconfigured_days`` have passed and nobody holds it: no pin, no champion, no answer given from it meanwhile. Its name
keeps its numbers, so that a snapshot published under it later is never taken for an earlier one.
"""

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from psycopg import sql

from assets.chunks.enrichment_cache import remove_unused
from assets.index import tables
from assets.index.specification import specify
from assets.index.staging import discard_leftovers
from assets.outcomes import CheckOutcome, record_evidence
from resources.config import ProjectConfig
from resources.errors import LeaseHeldError
from resources.platform import Platform
from resources.postgres import FOREVER, Connection, Lease


@dataclass(frozen=True)
class IndexRetention:
    """What retention did to one index; ``skipped`` says why it did nothing."""

    index: str
    snapshots_kept: int = 0
    snapshots_removed: int = 0
    rows_removed: int = 0
    documents_removed: int = 0
    builds_dropped: int = 0
    skipped: str = ""


@dataclass(frozen=True)
class Retirement:
    """An index that is not configured any more.

    Attributes:
        days: since when that is known.
        retired: whether it was removed now; ``kept_by`` says why not.
    """

    index: str
    days: float
    retired: bool
    kept_by: str = ""
    snapshots_removed: int = 0
    builds_dropped: int = 0


@dataclass(frozen=True)
class CacheRetention:
    """What retention removed from the caches; ``skipped`` says why it did nothing."""

    document_versions: int = 0
    chunk_sets: int = 0
    embeddings: int = 0
    parse_results: int = 0
    texts: int = 0
    enrichment_values: int = 0
    skipped: str = ""


@dataclass(frozen=True)
class Retention:
    """What ``apply_retention`` did."""

    indexes: tuple[IndexRetention, ...]
    caches: CacheRetention
    unconfigured: tuple[Retirement, ...] = ()


def apply_retention(
    platform: Platform,
    run_id: str | None = None,
    *,
    wait_seconds: float = 30,
    holder_is_dead: Callable[[str], bool] = lambda holder: False,
) -> Retention:
    """Apply ``policies/index.yaml`` to every index there is, retire those that left the configuration, then prune the caches.

    An index or source that is being written is left for the next time; the result says so.
    """
    holder = run_id or f"cli:{os.getpid()}"
    with platform.database.connect() as connection:
        names = [name for (name,) in connection.execute("SELECT index_name FROM index_state ORDER BY 1")]
    indexes = []
    for name in names:
        try:
            with platform.database.lease(
                f"index:{name}", holder, wait_seconds=wait_seconds, holder_is_dead=holder_is_dead
            ) as lease:
                indexes.append(_retain_index(platform, name, lease))
        except LeaseHeldError as error:
            indexes.append(IndexRetention(name, skipped=str(error)))
    unconfigured = retire_unconfigured(platform, holder, wait_seconds=wait_seconds, holder_is_dead=holder_is_dead)
    caches = _retain_caches(platform, names, holder, wait_seconds, holder_is_dead)
    return Retention(tuple(indexes), caches, unconfigured)


# --- indexes that left the configuration -------------------------------------------------------------------

#: Evidence of whether an index is in the configuration; its newest row says since when.
CONFIGURED_KIND, CONFIGURED_CHECK = "index", "configured"


def retire_unconfigured(
    platform: Platform,
    run_id: str,
    *,
    wait_seconds: float = 30,
    holder_is_dead: Callable[[str], bool] = lambda holder: False,
) -> tuple[Retirement, ...]:
    """Remove the indexes that left the configuration ``unconfigured_days`` ago and that nobody holds.

    Since when is written down as evidence the first time an index is found missing, and anew when it came back. A pin of
    an experiment that left the configuration itself holds nothing any more: it would hold its indexes for ever.
    """
    with platform.database.connect() as connection:
        since = _note_unconfigured(connection, platform.config, run_id)
    done = []
    for index, days in since.items():
        if days < platform.config.policies.index.unconfigured_days:
            done.append(
                Retirement(index, days, retired=False, kept_by=f"it left the configuration {days:.1f} days ago")
            )
            continue
        try:
            with platform.database.lease(
                f"index:{index}", run_id, wait_seconds=wait_seconds, holder_is_dead=holder_is_dead
            ) as lease:
                done.append(_retire(platform, index, days, lease, run_id))
        except LeaseHeldError as error:
            done.append(Retirement(index, days, retired=False, kept_by=str(error)))
    return tuple(done)


def _note_unconfigured(connection: Connection, config: ProjectConfig, run_id: str) -> dict[str, float]:
    """Days since each published index is known to be out of the configuration, by name."""
    known = {
        index: (passed, days)
        for index, passed, days in connection.execute(
            """SELECT DISTINCT ON (subject) subject, passed, extract(epoch FROM now() - created_at)::float8 / 86400
               FROM evidence WHERE kind = %s AND check_name = %s ORDER BY subject, evidence_id DESC""",
            (CONFIGURED_KIND, CONFIGURED_CHECK),
        )
    }
    published = connection.execute(
        """SELECT index_name, extract(epoch FROM now() - max(published_at))::float8 / 86400
           FROM index_snapshot GROUP BY 1 ORDER BY 1"""
    ).fetchall()
    since: dict[str, float] = {}
    for index, age in published:
        configured, (passed, days) = index in config.indexes, known.get(index, (True, 0.0))
        days = min(days, age)  # what was published later was configured then
        if configured != passed:
            outcome = CheckOutcome(
                CONFIGURED_CHECK,
                configured,
                expected="the index in the configuration",
                observed="there" if configured else "not there",
                blocking=False,
            )
            record_evidence(connection, CONFIGURED_KIND, index, "", [outcome], run_id)
            days = 0.0
        if not configured:
            since[index] = days
    return since


def _retire(platform: Platform, index: str, days: float, lease: Lease, run_id: str) -> Retirement:
    with platform.database.connect() as connection:
        lease.check(connection)
        state = connection.execute(
            "SELECT serving FROM index_state WHERE index_name = %s FOR UPDATE", (index,)
        ).fetchone()
        assert state is not None
        connection.execute(
            """DELETE FROM snapshot_pin WHERE index_name = %s AND split_part(pinned_by, ':', 1) = 'experiment'
               AND split_part(pinned_by, ':', 2) <> ALL(%s)""",
            (index, list(platform.config.experiments)),
        )
        holder = _held_by(connection, index, platform.config.policies.index.unconfigured_days)
        if holder:
            return Retirement(index, days, retired=False, kept_by=holder)
        removed = connection.execute("DELETE FROM index_snapshot WHERE index_name = %s", (index,)).rowcount
        builds = connection.execute(
            "SELECT build_id, table_name FROM index_build WHERE index_name = %s AND state <> 'dropped'", (index,)
        ).fetchall()
        for build_id, table in builds:
            tables.drop_build(connection, build_id, table)
        connection.execute(
            """UPDATE index_state SET serving = 0, held_by = NULL, held_reason = NULL, updated_at = now()
               WHERE index_name = %s""",
            (index,),
        )
        connection.execute(
            """INSERT INTO serving_move (index_name, from_snapshot, to_snapshot, moved_by, reason)
               VALUES (%s, %s, 0, %s, %s)""",
            (index, state[0], f"run {run_id}", f"retired: not configured for {days:.0f} days"),
        )
    return Retirement(index, days, retired=True, snapshots_removed=removed, builds_dropped=len(builds))


def _held_by(connection: Connection, index: str, days: int) -> str:
    """Who needs an index: a pin, a champion, or somebody who was answered from it; empty when nobody does."""
    pins = connection.execute(
        "SELECT DISTINCT pinned_by FROM snapshot_pin WHERE index_name = %s ORDER BY 1", (index,)
    ).fetchall()
    if pins:
        return f"pinned by {', '.join(pin for (pin,) in pins)}"
    champions = connection.execute(
        """SELECT experiment FROM (
               SELECT DISTINCT ON (experiment) experiment, variant FROM champion ORDER BY experiment, champion_id DESC) c
           JOIN variant ON variant.fingerprint = c.variant WHERE variant.config ->> 'index' = %s ORDER BY 1""",
        (index,),
    ).fetchall()
    if champions:
        return f"the champion of {', '.join(name for (name,) in champions)} searches it"
    answered = connection.execute(
        """SELECT max(asked_at)::date::text FROM interaction
           WHERE index_name = %s AND asked_at > now() - make_interval(days => %s)""",
        (index, days),
    ).fetchone()
    return f"it answered on {answered[0]}" if answered and answered[0] else ""


def _retain_index(platform: Platform, index: str, lease: Lease) -> IndexRetention:
    policy = platform.config.policies.index
    discard_leftovers(platform, index, lease)
    with platform.database.connect() as connection:
        lease.check(connection)
        # Locks the pointers: a rollback to a snapshot that is about to go waits, and then finds it gone.
        connection.execute("SELECT 1 FROM index_state WHERE index_name = %s FOR UPDATE", (index,))
        removed = connection.execute(
            """DELETE FROM index_snapshot s USING index_state i
               WHERE i.index_name = %(index)s AND s.index_name = i.index_name AND s.snapshot NOT IN (i.head, i.serving)
                 AND s.published_at < now() - make_interval(days => %(days)s)
                 AND s.snapshot NOT IN (SELECT snapshot FROM index_snapshot WHERE index_name = %(index)s
                                        ORDER BY snapshot DESC LIMIT %(keep)s)
                 AND NOT EXISTS (SELECT 1 FROM snapshot_pin p
                                 WHERE p.index_name = s.index_name AND p.snapshot = s.snapshot)""",
            {"index": index, "days": policy.keep_days, "keep": policy.keep_snapshots},
        ).rowcount
        builds = connection.execute(
            """SELECT b.build_id, b.table_name, array_agg(s.snapshot) FILTER (WHERE s.snapshot IS NOT NULL)
               FROM index_build b LEFT JOIN index_snapshot s USING (build_id)
               WHERE b.index_name = %s AND b.state <> 'dropped' GROUP BY 1, 2 ORDER BY 1""",
            (index,),
        ).fetchall()
        rows = documents = dropped = 0
        shrunk: list[str] = []
        for build_id, table, snapshots in builds:
            if snapshots is None:
                tables.drop_build(connection, build_id, table)
                dropped += 1
                continue
            deleted_rows, deleted_documents = _delete_unneeded(connection, build_id, table, snapshots)
            rows, documents = rows + deleted_rows, documents + deleted_documents
            if deleted_rows:
                shrunk.append(table)
    with platform.database.dedicated() as connection:
        for table in shrunk:
            connection.execute(sql.SQL("VACUUM (ANALYZE) {}").format(sql.Identifier(table)))
        if documents or dropped:
            connection.execute("VACUUM (ANALYZE) index_document")
    kept = sum(len(snapshots or []) for _, _, snapshots in builds)
    return IndexRetention(index, kept, removed, rows, documents, dropped)


def _delete_unneeded(connection: Connection, build_id: int, table: str, snapshots: list[int]) -> tuple[int, int]:
    """Delete the rows of a build that no retained snapshot shows: (chunk rows, document rows).

    Only documents are looked at that have an ended row in ``index_document``, or one that begins after the last
    retained snapshot (in a build that a newer one has replaced): no other has an unneeded chunk row.
    """
    names = {"build": build_id, "snapshots": snapshots, "last": max(snapshots), "forever": FOREVER}
    unneeded = sql.SQL(
        """NOT EXISTS (SELECT 1 FROM unnest(%(snapshots)s::integer[]) kept
                       WHERE kept >= {0}.valid_from AND kept < {0}.valid_to)"""
    )
    rows = connection.execute(
        sql.SQL(
            """DELETE FROM {table} c WHERE {unneeded} AND c.document_id IN (
                   SELECT document_id FROM index_document
                   WHERE build_id = %(build)s AND (valid_to < %(forever)s OR valid_from > %(last)s))"""
        ).format(table=sql.Identifier(table), unneeded=unneeded.format(sql.Identifier("c"))),
        names,
    ).rowcount
    if rows:
        tables.merge_words(connection, table, snapshots)
    documents = connection.execute(
        sql.SQL("DELETE FROM index_document d WHERE d.build_id = %(build)s AND {}").format(
            unneeded.format(sql.Identifier("d"))
        ),
        names,
    ).rowcount
    connection.execute(
        "UPDATE index_build SET dead_rows = greatest(0, dead_rows - %s) WHERE build_id = %s", (rows, build_id)
    )
    return rows, documents


# --- caches ------------------------------------------------------------------------------------------------


def _retain_caches(
    platform: Platform, indexes: list[str], holder: str, wait_seconds: float, holder_is_dead: Callable[[str], bool]
) -> CacheRetention:
    """Prune the caches while nothing is being refreshed: what a run has just put there is not referred to yet."""
    with platform.database.connect() as connection:
        sources = [
            name
            for (name,) in connection.execute(
                "SELECT source FROM document UNION SELECT source FROM quarantine ORDER BY 1"
            )
        ]
    resources = [
        *(f"source:{name}" for name in sorted({*sources, *platform.config.sources})),
        *(f"index:{name}" for name in sorted({*indexes, *platform.config.indexes})),
    ]
    try:
        with ExitStack() as stack:
            leases = [
                stack.enter_context(
                    platform.database.lease(resource, holder, wait_seconds=wait_seconds, holder_is_dead=holder_is_dead)
                )
                for resource in resources
            ]
            return _prune(platform, leases)
    except LeaseHeldError as error:
        return CacheRetention(skipped=str(error))


def _prune(platform: Platform, leases: list[Lease]) -> CacheRetention:
    """Delete from the caches, dependents first, what neither a live document nor a retained snapshot refers to."""
    configured = [specify(platform, name) for name in platform.config.indexes]
    shown_by = [(name, source) for name in platform.config.indexes for source in platform.config.index_sources(name)]
    names = {
        "indexes": [index for index, _ in shown_by],
        "sources": [source for _, source in shown_by],
        "forever": FOREVER,
        "chunkers": [item.chunker for item in configured],
        "enrichments": [item.enrichment for item in configured],
        "embedders": [item.embedder for item in configured],
    }
    with platform.database.connect() as connection:
        for lease in leases:
            lease.check(connection)
        versions = connection.execute(
            # An index may still be brought to any revision newer than the one its head shows: those stay whole.
            """DELETE FROM document_version v WHERE v.rev_to < %(forever)s
               AND NOT EXISTS (SELECT 1 FROM index_document d WHERE d.version_id = v.version_id)
               AND NOT EXISTS (
                   SELECT 1 FROM unnest(%(indexes)s::text[], %(sources)s::text[]) c (index_name, source)
                   LEFT JOIN index_state i ON i.index_name = c.index_name
                   LEFT JOIN index_snapshot s ON s.index_name = i.index_name AND s.snapshot = i.head
                   WHERE c.source = v.source AND v.rev_to > coalesce((s.sources ->> v.source)::integer, 0) + 1)""",
            names,
        ).rowcount
        chunk_sets = connection.execute(
            """DELETE FROM chunk_set s
               WHERE NOT EXISTS (SELECT 1 FROM document_version v WHERE v.text_hash = s.text_hash)
                  OR s.chunker_id NOT IN (
                      SELECT chunker_id FROM chunker WHERE fingerprint = ANY(%(chunkers)s::text[]) OR fingerprint IN (
                          SELECT config ->> 'chunker' FROM index_build WHERE state <> 'dropped'))""",
            names,
        ).rowcount
        connection.execute(
            """DELETE FROM chunk_input WHERE enrichment_id NOT IN (
                   SELECT enrichment_id FROM enrichment WHERE fingerprint = ANY(%(enrichments)s::text[]) OR fingerprint IN (
                       SELECT config ->> 'enrichment' FROM index_build WHERE state <> 'dropped'))""",
            names,
        )
        values = connection.execute(
            """DELETE FROM enrichment_value WHERE step_id NOT IN (
                   SELECT step_id FROM enrichment_part JOIN enrichment USING (enrichment_id)
                   WHERE fingerprint = ANY(%(enrichments)s::text[]) OR fingerprint IN (
                       SELECT config ->> 'enrichment' FROM index_build WHERE state <> 'dropped'))""",
            names,
        ).rowcount
        values += remove_unused(connection)
        embeddings = connection.execute(
            """DELETE FROM embedding e
               WHERE NOT EXISTS (SELECT 1 FROM chunk_input i WHERE i.input_hash = e.input_hash)
                  OR e.embedder_id NOT IN (
                      SELECT embedder_id FROM embedder WHERE fingerprint = ANY(%(embedders)s::text[]) OR fingerprint IN (
                          SELECT config -> 'embedder' ->> 'fingerprint' FROM index_build WHERE state <> 'dropped'))""",
            names,
        ).rowcount
        parse_results = connection.execute(
            """DELETE FROM parse_result p
               WHERE NOT EXISTS (SELECT 1 FROM document_version v WHERE v.content_hash = p.content_hash)
                 AND NOT EXISTS (SELECT 1 FROM quarantine q WHERE q.content_hash = p.content_hash)""",
        ).rowcount
        for table in ("screening_result", "screening_verdict"):
            connection.execute(
                sql.SQL(
                    """DELETE FROM {} s
                       WHERE NOT EXISTS (SELECT 1 FROM document_version v WHERE v.content_hash = s.content_hash)
                         AND NOT EXISTS (SELECT 1 FROM quarantine q WHERE q.content_hash = s.content_hash)"""
                ).format(sql.Identifier(table))
            )
        connection.execute(
            """DELETE FROM near_duplicate_sketch s
               WHERE NOT EXISTS (SELECT 1 FROM document_version v WHERE v.text_hash = s.text_hash)
                 AND NOT EXISTS (SELECT 1 FROM parse_result p WHERE p.text_hash = s.text_hash)"""
        )
        texts = connection.execute(
            """DELETE FROM document_text t
               WHERE NOT EXISTS (SELECT 1 FROM document_version v WHERE v.text_hash = t.text_hash)
                 AND NOT EXISTS (SELECT 1 FROM parse_result p WHERE p.text_hash = t.text_hash)
                 AND NOT EXISTS (SELECT 1 FROM chunk_set s WHERE s.text_hash = t.text_hash)""",
        ).rowcount
    return CacheRetention(versions, chunk_sets, embeddings, parse_results, texts, values)
