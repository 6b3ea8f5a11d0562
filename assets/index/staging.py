"""Staging: brings an index to what its sources say, under the next snapshot number, where no reader looks yet.

Belongs here: what an index should contain, the difference to what it contains, and writing that difference.
Does not belong here: making embeddings (embedding.py), deciding whether the stage may go out (checks.py), and making
it visible (publishing.py).

Readers search snapshots up to the head. A stage writes rows that begin at head + 1 and ends rows at head + 1, so it
changes nothing for them, and a stage that died is taken back by the next one. A small difference is written into the
head's build; a first load, a changed configuration, a large difference or too many dead rows give a new build: a table
of its own, loaded first and indexed then, because inserting into a live graph is several times slower.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from psycopg import sql
from psycopg.types.json import Jsonb

from assets.index import tables
from assets.index.coverage import Coverage, measure_coverage, newest_revision
from assets.index.specification import CacheIds, Specification, cache_ids, specify
from resources.errors import PermanentError
from resources.faults import crash_point
from resources.fingerprint import fingerprint, text_hash
from resources.platform import Platform
from resources.postgres import FOREVER, Connection, Lease
from resources.sharding import source_of
from resources.text_search import AUTO, analysis_fingerprint, configuration_sql, words_sql
from resources.vector_index import View, words_name

Strategy = Literal["nothing", "waiting", "insert", "new build"]

#: Smaller deltas are always inserted, whatever share of the index they are.
REBUILD_MINIMUM_ROWS = 5_000
#: Texts fetched at a time while chunks are cut out of them.
_TEXTS_AT_ONCE = 8


@dataclass(frozen=True)
class Head:
    """The newest published snapshot of an index; snapshot 0 and no build before the first."""

    snapshot: int
    build_id: int | None = None
    table: str = ""
    fingerprint: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, int] = field(default_factory=dict)
    counts: dict[str, Any] = field(default_factory=dict)
    dead_rows: int = 0
    damaged: bool = False


@dataclass(frozen=True)
class Stage:
    """A staged snapshot, or the reason why there is none.

    Attributes:
        snapshot: the number it will be published under: head + 1; the head itself when nothing is staged.
        build_id, table: where its rows are.
        strategy: ``nothing``: the head shows everything already; ``waiting``: for the sources in ``waiting_for``, whose
            chunks or embeddings do not exist under a changed configuration; otherwise how rows were written.
        reason: why this strategy, in words.
        sources: revision of each source it shows.
        counts: documents, chunks, lexemes (words), by_source, languages (with text_search auto), rows_added, rows_retired,
            documents_changed, repaired, strategy, and what the gates found: ef_search and recall.
        fingerprint: of exactly what is staged; evidence refers to it.
        seconds: wall time; ``index_seconds`` of it went into building indexes.
    """

    index: str
    source: str
    snapshot: int
    build_id: int
    table: str
    strategy: Strategy
    reason: str
    sources: dict[str, int]
    counts: dict[str, Any]
    fingerprint: str
    config: dict[str, Any] = field(default_factory=dict)
    waiting_for: tuple[str, ...] = ()
    seconds: float = 0.0
    index_seconds: float = 0.0

    @property
    def staged(self) -> bool:
        """Whether there is something to check and publish."""
        return self.strategy in ("insert", "new build")

    @property
    def subject(self) -> str:
        """How evidence names it."""
        return f"{self.index}@{self.snapshot}"


def stage(platform: Platform, index: str, source: str, run_id: str, lease: Lease) -> Stage:
    """Stage the next snapshot of ``index`` with ``source`` at its newest revision.

    Other sources stay at the revision the head shows. What a dead stage left behind is discarded first.

    Raises:
        StaleLeaseError: another run took the index over.
        PermanentError: chunks or embeddings of the source are missing, or a cache is damaged.
    """
    started = time.perf_counter()
    specification = specify(platform, index)
    head = discard_leftovers(platform, index, lease)
    with platform.database.connect() as connection:
        ids = cache_ids(connection, specification)
        wanted = _wanted_sources(platform, connection, specification, ids, head, index, source)
        analysis = analysis_fingerprint(connection, specification.index.text_search)
    if isinstance(wanted, Stage):
        return replace(wanted, seconds=time.perf_counter() - started)
    config = {**specification.to_json(), "analysis": analysis}
    why = _why_new_build(head, specification, analysis, platform.config.policies.index.compact_dead_share)
    unchanged = head.fingerprint == specification.fingerprint and head.config.get("analysis") == analysis
    if unchanged and head.sources == wanted and not _damaged(platform, head):
        return _nothing(head, index, source, wanted, "no source has changed", time.perf_counter() - started)

    if not why:
        result = _stage_in_place(platform, specification, ids, head, index, source, wanted, run_id, lease)
        if isinstance(result, Stage):
            return replace(result, seconds=time.perf_counter() - started)
        why = result
    result = _stage_new_build(platform, specification, ids, head, index, source, wanted, run_id, lease, why, config)
    crash_point("index.staged")
    return replace(result, seconds=time.perf_counter() - started)


def staged_view(stage: Stage, graph: bool) -> View:
    """The stage as a search sees it."""
    return View.of(stage.index, stage.snapshot, stage.build_id, stage.table, stage.config, stage.counts, graph)


def read_head(connection: Connection, index: str) -> Head:
    """The newest published snapshot of an index."""
    row = connection.execute(
        """SELECT i.head, s.build_id, b.table_name, b.fingerprint, b.config, s.sources, s.counts, b.dead_rows,
                  b.damaged_at IS NOT NULL
           FROM index_state i LEFT JOIN index_snapshot s ON s.index_name = i.index_name AND s.snapshot = i.head
           LEFT JOIN index_build b ON b.build_id = s.build_id WHERE i.index_name = %s""",
        (index,),
    ).fetchone()
    if row is None or row[1] is None:
        return Head(row[0] if row else 0)
    return Head(*row)


def discard_leftovers(platform: Platform, index: str, lease: Lease) -> Head:
    """Take back what a stage that was never published wrote, and return the head.

    The work is proportional to what is left: documents are found through ``index_document``, which a stage writes in
    the same transaction as the rows.
    """
    with platform.database.connect() as connection:
        lease.check(connection)
        connection.execute("INSERT INTO index_state (index_name) VALUES (%s) ON CONFLICT DO NOTHING", (index,))
        head = read_head(connection, index)
        for build_id, table in connection.execute(
            """SELECT build_id, table_name FROM index_build b WHERE index_name = %s AND state <> 'dropped'
               AND NOT EXISTS (SELECT 1 FROM index_snapshot s WHERE s.build_id = b.build_id)""",
            (index,),
        ).fetchall():
            tables.end_other_writers(connection, table)
            tables.drop_build(connection, build_id, table)
        if head.build_id is None:
            return head
        names: dict[str, Any] = {"build": head.build_id, "head": head.snapshot, "forever": FOREVER}
        touched = [
            document
            for (document,) in connection.execute(
                """SELECT document_id FROM index_document WHERE build_id = %(build)s AND valid_from > %(head)s
                   UNION SELECT document_id FROM index_document
                   WHERE build_id = %(build)s AND valid_to > %(head)s AND valid_to < %(forever)s""",
                names,
            )
        ]
        if touched:
            names["touched"] = touched
            table = sql.Identifier(head.table)
            for statement in (
                sql.SQL("DELETE FROM {} WHERE document_id = ANY(%(touched)s) AND valid_from > %(head)s").format(table),
                sql.SQL(
                    """UPDATE {} SET valid_to = %(forever)s WHERE document_id = ANY(%(touched)s)
                       AND valid_to > %(head)s AND valid_to < %(forever)s"""
                ).format(table),
                sql.SQL("DELETE FROM {} WHERE valid_from > %(head)s").format(sql.Identifier(words_name(head.table))),
                sql.SQL("DELETE FROM index_document WHERE build_id = %(build)s AND valid_from > %(head)s"),
                sql.SQL(
                    """UPDATE index_document SET valid_to = %(forever)s WHERE build_id = %(build)s
                       AND valid_to > %(head)s AND valid_to < %(forever)s"""
                ),
            ):
                connection.execute(statement, names)
        return head


# --- what the index should show ------------------------------------------------------------------------


def _wanted_sources(
    platform: Platform,
    connection: Connection,
    specification: Specification,
    ids: CacheIds,
    head: Head,
    index: str,
    source: str,
) -> "dict[str, int] | Stage":
    """The revision of each source to show, or a stage that says why none can be shown.

    Of this source: the newest revision that has its chunks and embeddings (a newer one may have been committed since
    they were made; its own run will bring it). Of the others: what the head shows. Under a changed configuration the
    others, too, may only be complete at a newer revision, because chunks are made for live documents only. The shards of
    a source are shown together: none before all are complete, also when there is another number of them than before.
    """
    unchanged = head.fingerprint == specification.fingerprint
    wanted: dict[str, int] = {}
    waiting: list[str] = []
    covered = platform.config.index_sources(index)
    # sources whose shards readers do not have, or have in another number
    joining = {source_of(name) for name in head.sources if name not in covered}
    if any(name not in head.sources for name in covered if source_of(name) == source_of(source)):
        joining.add(source_of(source))
    for name in covered:
        shown = head.sources.get(name)
        first = _first_revision(connection, name, covered)
        if name == source:
            revision = newest_revision(connection, name)
            if revision == 0:
                raise PermanentError(f"source {name!r} was never committed; materialize raw_documents first")
            if unchanged and revision == shown:
                wanted[name] = revision
                continue
            oldest = max((shown or 0) + unchanged, first)
            known = shown or 0 if unchanged else 0
            complete, lacking = _newest_complete(connection, ids, name, revision, oldest, known)
            if complete is None:
                raise PermanentError(
                    f"index {index!r}: source {name!r} at revision {revision} lacks the chunks of "
                    f"{lacking.texts_without_chunks} texts and {lacking.inputs_without_embedding} embeddings; "
                    "materialize chunks and embeddings of this source first"
                )
            wanted[name] = complete
        elif shown is not None and unchanged and source_of(name) not in joining:
            wanted[name] = shown
        elif shown is not None or source_of(name) in joining:
            usable = shown is not None and source_of(name) not in joining and ids.complete
            if shown is not None and usable and measure_coverage(connection, ids, name, shown).complete:
                wanted[name] = shown
                continue
            oldest = max(shown or 0, first)
            complete, _ = _newest_complete(connection, ids, name, newest_revision(connection, name), oldest)
            if complete is None:
                waiting.append(name)
            else:
                wanted[name] = complete
    if waiting:
        why = "" if unchanged or head.build_id is None else "the configuration changed; "
        return replace(
            _nothing(head, index, source, wanted, f"{why}waiting for source {', '.join(waiting)}"),
            strategy="waiting",
            waiting_for=tuple(waiting),
        )
    return wanted


def _first_revision(connection: Connection, partition: str, covered: Sequence[str]) -> int:
    """The oldest revision of a partition made since its source has as many shards as now.

    An older one holds documents that are in another shard today, or lacks some that were in another then.
    """
    shards = sum(source_of(name) == source_of(partition) for name in covered)
    row = connection.execute(
        """SELECT coalesce(max(revision), 0) + 1 FROM source_revision
           WHERE source = %s AND coalesce((counts ->> 'shards')::integer, 1) <> %s""",
        (partition, shards),
    ).fetchone()
    assert row is not None
    return row[0]


def _newest_complete(
    connection: Connection, ids: CacheIds, source: str, newest: int, oldest: int, known: int = 0
) -> tuple[int | None, Coverage]:
    """The newest revision from ``oldest`` to ``newest`` that is complete, and what the newest lacks.

    Args:
        known: an earlier revision that lacked nothing.
    """
    lacking = Coverage()
    for revision in range(newest, max(oldest, 1) - 1, -1):
        coverage = measure_coverage(connection, ids, source, revision, since=known)
        if coverage.complete:
            return revision, coverage
        if revision == newest:
            lacking = coverage
    return None, lacking


def _damaged(platform: Platform, head: Head) -> bool:
    if head.damaged:
        return True
    with platform.database.connect() as connection:
        row = connection.execute(
            """SELECT EXISTS (SELECT 1 FROM index_document
                              WHERE build_id = %s AND valid_to = %s AND damaged_at IS NOT NULL)""",
            (head.build_id, FOREVER),
        ).fetchone()
        return bool(row and row[0])


def _why_new_build(head: Head, specification: Specification, analysis: str, compact_dead_share: float) -> str:
    if head.build_id is None:
        return "first load"
    if head.fingerprint != specification.fingerprint:
        return "the configuration changed"
    if head.config.get("analysis") != analysis:
        return "the server makes other words of a text than before"
    if head.damaged:
        return "the audit found rows that belong to no document"
    if head.dead_rows > compact_dead_share * (head.dead_rows + head.counts["chunks"]):
        return f"compaction: {head.dead_rows} of {head.dead_rows + head.counts['chunks']} rows are dead"
    return ""


def _nothing(head: Head, index: str, source: str, sources: dict[str, int], reason: str, seconds: float = 0.0) -> Stage:
    return Stage(
        index=index,
        source=source,
        snapshot=head.snapshot,
        build_id=head.build_id or 0,
        table=head.table,
        strategy="nothing",
        reason=reason,
        sources=sources,
        counts={**head.counts, "rows_added": 0, "rows_retired": 0, "documents_changed": 0, "strategy": "nothing"},
        fingerprint="",
        config=head.config,
        seconds=seconds,
    )


def _recall_before(head: Head, changes: int) -> dict[str, Any] | None:
    """The last recall that was measured, and the rows written since; None: it has to be measured."""
    known = head.counts.get("recall")
    return {**known, "rows_changed": known["rows_changed"] + changes} if known else None


# --- writing ---------------------------------------------------------------------------------------------


def _stage_in_place(
    platform: Platform,
    specification: Specification,
    ids: CacheIds,
    head: Head,
    index: str,
    source: str,
    wanted: dict[str, int],
    run_id: str,
    lease: Lease,
) -> "Stage | str":
    """Write the difference into the head's build; or say why a new build is better."""
    assert head.build_id is not None
    number = head.snapshot + 1
    policy = platform.config.policies.index
    with platform.database.connect() as connection:
        lease.check(connection)
        changed = _find_changes(connection, specification, head.build_id, wanted)
        if not changed["documents"]:
            # as after an erasure; the head shows the newer revision just as well, and must not be called stale
            connection.execute(
                "UPDATE index_snapshot SET sources = %s WHERE index_name = %s AND snapshot = %s",
                (Jsonb(wanted), index, head.snapshot),
            )
            return _nothing(head, index, source, wanted, "no document of the index has changed")
        _find_wanted_rows(connection, ids)
        names = {"number": number, "forever": FOREVER, "build": head.build_id}
        kept = sql.SQL(
            """EXISTS (SELECT 1 FROM wanted w WHERE w.document_id = c.document_id AND w.ordinal = c.ordinal
                       AND w.start_char = c.start_char AND w.end_char = c.end_char AND w.chunk_hash = c.chunk_hash
                       AND w.input_hash = c.input_hash AND w.heading_path = c.heading_path
                       AND w.configuration = c.configuration)"""
        )
        retired = connection.execute(
            sql.SQL(
                """UPDATE {table} c SET valid_to = %(number)s FROM change
                   WHERE c.document_id = change.document_id AND change.rewrite AND c.valid_to = %(forever)s
                     AND (change.damaged OR NOT {kept})"""
            ).format(table=sql.Identifier(head.table), kept=kept),
            names,
        ).rowcount
        connection.execute(
            sql.SQL(
                """DELETE FROM wanted w USING {table} c
                   WHERE c.document_id = w.document_id AND c.ordinal = w.ordinal AND c.valid_to = %(forever)s"""
            ).format(table=sql.Identifier(head.table)),
            names,
        )
        row = connection.execute("SELECT count(*) FROM wanted").fetchone()
        added = row[0] if row else 0
        if max(added, retired) > max(REBUILD_MINIMUM_ROWS, policy.rebuild_share * head.counts["chunks"]):
            connection.rollback()
            return f"the difference is large: {added} rows to add and {retired} to retire of {head.counts['chunks']}"
        _insert_rows(connection, specification, ids, head.table, number, added)
        (tables.recount_words if changed["damaged"] else tables.add_changed_words)(connection, head.table, number)
        _write_documents(connection, head.table, names)
        index_seconds = 0.0
        counts = _count(connection, specification, head.build_id, number)
        if counts["chunks"] >= specification.index.hnsw.exact_below and not tables.has_graph(connection, head.table):
            index_seconds = _add_graph(platform, connection, specification, head.table, counts["chunks"])
        counts |= {
            "rows_added": added,
            "rows_retired": retired,
            "documents_changed": changed["documents"],
            "repaired": changed["damaged"],
            "strategy": "insert",
            # good enough for the head, and checked again before this goes out
            "ef_search": head.counts.get("ef_search"),
            "recall": _recall_before(head, added + retired),
        }
    crash_point("index.staged")
    words = f"{changed['documents']} documents differ, {added} rows to add and {retired} to retire"
    return _result(
        head.config, index, source, number, head.build_id, head.table, "insert", words, wanted, counts, index_seconds
    )


def _stage_new_build(
    platform: Platform,
    specification: Specification,
    ids: CacheIds,
    head: Head,
    index: str,
    source: str,
    wanted: dict[str, int],
    run_id: str,
    lease: Lease,
    why: str,
    config: dict[str, Any],
) -> Stage:
    number = head.snapshot + 1
    with platform.database.connect() as connection:
        lease.check(connection)
        row = connection.execute(
            """INSERT INTO index_build (index_name, fingerprint, config, table_name, run_id, state)
               VALUES (%s, %s, %s, '', %s, 'loading') RETURNING build_id""",
            (index, specification.fingerprint, Jsonb(config), run_id),
        ).fetchone()
        assert row is not None
        build_id, table = row[0], f"chunks_{row[0]}"
        connection.execute("UPDATE index_build SET table_name = %s WHERE build_id = %s", (table, build_id))
        tables.create_table(connection, table, specification)
    crash_point("index.build_created")
    with platform.database.connect() as connection:
        # No lock on the lease during the load, so that a takeover need not wait for it; it is checked at the end.
        # The server ends the load within seconds when this process dies.
        connection.execute("SET LOCAL client_connection_check_interval = '2s'")
        changed = _find_changes(connection, specification, build_id, wanted)
        added = _find_wanted_rows(connection, ids)
        _insert_rows(connection, specification, ids, table, number, added)
        begin = time.perf_counter()
        tables.add_keys(connection, table)
        tables.add_first_words(connection, table, number)
        index_seconds = time.perf_counter() - begin
        _write_documents(connection, table, {"number": number, "forever": FOREVER, "build": build_id})
        counts = _count(connection, specification, build_id, number)
        if counts["chunks"] >= specification.index.hnsw.exact_below:
            index_seconds += _add_graph(platform, connection, specification, table, counts["chunks"])
        connection.execute(
            sql.SQL("ANALYZE {}, {}, index_document").format(sql.Identifier(table), sql.Identifier(words_name(table)))
        )
        lease.check(connection)
        connection.execute("UPDATE index_build SET state = 'ready' WHERE build_id = %s", (build_id,))
        counts |= {
            "rows_added": added,
            "rows_retired": 0,
            "documents_changed": changed["documents"],
            "repaired": 0,
            "strategy": "new build",
        }
    return _result(config, index, source, number, build_id, table, "new build", why, wanted, counts, index_seconds)


def _result(
    config: dict[str, Any],
    index: str,
    source: str,
    number: int,
    build_id: int,
    table: str,
    strategy: Strategy,
    reason: str,
    wanted: dict[str, int],
    counts: dict[str, Any],
    index_seconds: float,
) -> Stage:
    return Stage(
        index=index,
        source=source,
        snapshot=number,
        build_id=build_id,
        table=table,
        strategy=strategy,
        reason=reason,
        sources=wanted,
        counts=counts,
        fingerprint=fingerprint(
            {
                "index": index,
                "snapshot": number,
                "build": [build_id, fingerprint(config)],
                "sources": wanted,
                "content": {name: item["content"] for name, item in counts["by_source"].items()},
            }
        ),
        config=config,
        index_seconds=index_seconds,
    )


def _find_changes(
    connection: Connection, specification: Specification, build_id: int, wanted: Mapping[str, int]
) -> dict[str, int]:
    """Fill the temporary table ``change`` with the documents whose shown version differs or that are damaged.

    ``rewrite`` marks those whose rows may differ: a rename or an edit of metadata writes no row, another language does
    where it decides how full text is read.
    """
    text_search = specification.index.text_search
    connection.execute(
        sql.SQL("""CREATE TEMP TABLE change ON COMMIT DROP AS
           SELECT coalesce(w.document_id, h.document_id) AS document_id, coalesce(w.source, h.source) AS source,
                  coalesce(w.path, '') AS path, w.version_id AS new_version, w.text_hash AS text_hash,
                  h.damaged_at IS NOT NULL AS damaged,
                  {new} AS configuration,
                  h.damaged_at IS NOT NULL OR w.text_hash IS DISTINCT FROM o.text_hash OR {new} <> {old} AS rewrite
           FROM (SELECT v.document_id, v.version_id, v.source, v.path, v.text_hash, v.language
                 FROM unnest(%(sources)s::text[], %(revisions)s::integer[]) s (source, revision)
                 JOIN document_version v ON v.source = s.source AND v.rev_from <= s.revision AND v.rev_to > s.revision) w
           FULL JOIN (SELECT document_id, version_id, source, damaged_at FROM index_document
                      WHERE build_id = %(build)s AND valid_to = %(forever)s) h USING (document_id)
           LEFT JOIN document_version o ON o.version_id = h.version_id
           WHERE w.version_id IS DISTINCT FROM h.version_id OR h.damaged_at IS NOT NULL""").format(
            new=configuration_sql(text_search, "w.language"), old=configuration_sql(text_search, "o.language")
        ),
        {
            "sources": list(wanted),
            "revisions": list(wanted.values()),
            "build": build_id,
            "forever": FOREVER,
        },
    )
    row = connection.execute("SELECT count(*), count(*) FILTER (WHERE damaged) FROM change").fetchone()
    assert row is not None
    return {"documents": row[0], "damaged": row[1]}


def _find_wanted_rows(connection: Connection, ids: CacheIds) -> int:
    """Fill ``wanted`` with every row the changed documents should have."""
    connection.execute("ANALYZE change")
    wanted = connection.execute(
        """CREATE TEMP TABLE wanted ON COMMIT DROP AS
           SELECT change.document_id, change.source, change.path, change.text_hash, change.configuration, c.ordinal, c.start_char, c.end_char,
                  c.chunk_hash, i.input_hash, c.heading_path, i.search_text
           FROM change
           CROSS JOIN LATERAL (SELECT * FROM chunk WHERE chunker_id = %(chunker)s
                               AND text_hash = change.text_hash OFFSET 0) c
           JOIN chunk_input i ON i.enrichment_id = %(enrichment)s AND i.chunker_id = c.chunker_id
                AND i.text_hash = c.text_hash AND i.ordinal = c.ordinal
           WHERE change.rewrite""",
        {"chunker": ids.chunker, "enrichment": ids.enrichment},
    ).rowcount
    connection.execute("ANALYZE wanted")
    return wanted


def _insert_rows(
    connection: Connection, specification: Specification, ids: CacheIds, table: str, number: int, expected: int
) -> None:
    """Insert the rows of ``wanted``: chunk texts are cut here and sent, vectors never leave the server."""
    if expected == 0:
        return
    connection.execute("CREATE TEMP TABLE cut (text_hash bytea, ordinal integer, content text) ON COMMIT DROP")
    for rows in _cut_chunks(connection):
        with connection.cursor() as cursor, cursor.copy("COPY cut FROM STDIN WITH (FORMAT BINARY)") as copy:
            copy.set_types(["bytea", "int4", "text"])
            for row in rows:
                copy.write_row(row)
    connection.execute("ANALYZE cut")
    connection.execute("SET LOCAL work_mem = '64MB'")  # the rows are sorted with their vectors
    searchable = "cut.content"
    if specification.index.enrichment.context == "headings":
        searchable = "array_to_string(w.heading_path, ' ') || E'\\n' || cut.content"
    if specification.index.enrichment.title or specification.index.enrichment.steps_for("search"):
        searchable = f"coalesce(w.search_text, {searchable})"
    inserted = connection.execute(
        sql.SQL(
            """INSERT INTO {table} (document_id, digest, ordinal, start_char, end_char, valid_from, chunk_hash, input_hash,
                                    source, heading_path, content, tsv, embedding, configuration, words)
               SELECT r.document_id, {digest}, r.ordinal, r.start_char, r.end_char, {number}, r.chunk_hash, r.input_hash,
                      r.source, r.heading_path, r.content, r.tsv, r.embedding, r.configuration, r.words
               FROM (SELECT t.*, (SELECT coalesce(sum(cardinality(positions)), 0)::integer FROM unnest(t.tsv)) AS words
                     FROM (SELECT w.*, cut.content, {tsv} AS tsv, e.embedding::{type} AS embedding
                           FROM wanted w
                           JOIN cut ON cut.text_hash = w.text_hash AND cut.ordinal = w.ordinal
                           JOIN embedding e ON e.embedder_id = {embedder} AND e.input_hash = w.input_hash
                           ORDER BY w.source, w.path, w.ordinal OFFSET 0) t OFFSET 0) r"""
        ).format(
            table=sql.Identifier(table),
            digest=tables.row_digest("r", specification.index.vector_type),
            number=sql.Literal(number),
            tsv=words_sql(specification.index.text_search, "w.configuration", searchable),
            type=sql.SQL(specification.column_type),  # type: ignore[arg-type]
            embedder=sql.Literal(ids.embedder),
        )
    ).rowcount
    if inserted != expected:
        raise PermanentError(
            f"{expected - inserted} of {expected} rows have no embedding or text any more; materialize embeddings again"
        )


def _cut_chunks(connection: Connection) -> Iterator[list[tuple[bytes, int, str]]]:
    """Cut the wanted chunks out of their texts, a few texts at a time.

    Cutting on the server would unpack the whole text for every chunk of it, which is quadratic in long documents.
    """
    with connection.cursor(name="cut_chunks") as cursor:
        cursor.itersize = _TEXTS_AT_ONCE
        cursor.execute(
            """SELECT w.text_hash, t.text, w.ordinals, w.starts, w.ends, w.hashes
               FROM (SELECT text_hash, array_agg(ordinal) AS ordinals, array_agg(start_char) AS starts,
                            array_agg(end_char) AS ends, array_agg(chunk_hash) AS hashes
                     FROM (SELECT DISTINCT text_hash, ordinal, start_char, end_char, chunk_hash FROM wanted) rows
                     GROUP BY text_hash) w
               JOIN document_text t USING (text_hash)"""
        )
        while texts := cursor.fetchmany(_TEXTS_AT_ONCE):
            rows = []
            for key, text, ordinals, starts, ends, hashes in texts:
                for ordinal, start, end, expected in zip(ordinals, starts, ends, hashes, strict=True):
                    content = text[start:end]
                    if text_hash(content) != expected:
                        raise PermanentError(
                            f"chunk {ordinal} of text {key.hex()} is not at characters {start} to {end} of it; "
                            "the chunk cache is damaged: delete this text's rows in chunk_set and refresh"
                        )
                    rows.append((key, ordinal, content))
            yield rows


def _write_documents(connection: Connection, table: str, names: Mapping[str, Any]) -> None:
    """Let ``index_document`` follow the rows; where no row was written, sums are taken over from the version before."""
    connection.execute(
        """CREATE TEMP TABLE before ON COMMIT DROP AS
           SELECT d.document_id, d.chunks, d.lexemes, d.digest FROM index_document d JOIN change USING (document_id)
           WHERE d.build_id = %(build)s AND d.valid_to = %(forever)s""",
        names,
    )
    connection.execute(
        """UPDATE index_document d SET valid_to = %(number)s FROM change
           WHERE d.document_id = change.document_id AND d.build_id = %(build)s AND d.valid_to = %(forever)s""",
        names,
    )
    connection.execute(
        sql.SQL(
            """INSERT INTO index_document (build_id, document_id, version_id, source, valid_from, chunks, lexemes, digest)
               SELECT %(build)s, change.document_id, change.new_version, change.source, %(number)s,
                      coalesce(sums.chunks, before.chunks, 0), coalesce(sums.lexemes, before.lexemes, 0),
                      coalesce(sums.digest, before.digest, 0)
               FROM change
               LEFT JOIN before ON before.document_id = change.document_id AND NOT change.rewrite
               LEFT JOIN (SELECT c.document_id, count(*) AS chunks, sum(c.words) AS lexemes, sum(c.digest) AS digest
                          FROM {} c JOIN change x ON x.document_id = c.document_id AND x.rewrite
                          WHERE c.valid_to = %(forever)s GROUP BY 1) sums ON sums.document_id = change.document_id
               WHERE change.new_version IS NOT NULL ORDER BY change.document_id"""
        ).format(sql.Identifier(table)),
        names,
    )


def _count(connection: Connection, specification: Specification, build_id: int, number: int) -> dict[str, Any]:
    """Totals at a snapshot number, and per source a fingerprint of all it shows."""
    by_source = {
        source: {
            "documents": documents,
            "chunks": chunks,
            "lexemes": lexemes,
            "content": fingerprint([specification.fingerprint, documents, chunks, str(digest), str(versions)]),
        }
        for source, documents, chunks, lexemes, digest, versions in connection.execute(
            """SELECT source, count(*), sum(chunks), sum(lexemes), sum(digest), sum(hashint8extended(version_id, 0)::numeric)
               FROM index_document WHERE build_id = %(build)s AND valid_from <= %(number)s AND valid_to > %(number)s
               GROUP BY source ORDER BY source""",
            {"build": build_id, "number": number},
        )
    }
    totals = {key: int(sum(item[key] for item in by_source.values())) for key in ("documents", "chunks", "lexemes")}
    counts = {**totals, "by_source": by_source}
    if specification.index.text_search == AUTO:
        counts["languages"] = {
            name: int(chunks)
            for name, chunks in connection.execute(
                sql.SQL(
                    """SELECT {} AS name, sum(d.chunks) FROM index_document d JOIN document_version v USING (version_id)
                       WHERE d.build_id = %(build)s AND d.valid_from <= %(number)s AND d.valid_to > %(number)s
                         AND d.chunks > 0 GROUP BY 1 ORDER BY 1"""
                ).format(configuration_sql(AUTO, "v.language")),
                {"build": build_id, "number": number},
            )
        }
    return counts


def _add_graph(
    platform: Platform, connection: Connection, specification: Specification, table: str, rows: int
) -> float:
    begin = time.perf_counter()
    tables.add_graph(
        connection,
        table,
        rows,
        specification.model.dimensions,
        specification.index.vector_type,
        specification.index.distance,
        specification.index.hnsw,
        platform.config.policies.index.graph_memory_mb,
    )
    return time.perf_counter() - begin
