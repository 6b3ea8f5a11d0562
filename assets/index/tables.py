"""Tables: the physical layout of an index, one table per build.

Belongs here: creating, indexing and dropping a build's tables, the digest of a row, and how often words occur.
Does not belong here: which rows go in (staging.py), and the search statements (resources/vector_index.py).

One table per build, because several configurations in one HNSW graph behind a filter lose recall, and dropping a
table is instant where deleting rows from a graph takes minutes.
"""

import contextlib
from collections.abc import Sequence

import psycopg
from psycopg import sql

from assets.index.specification import Specification
from resources.index_config import HnswConfig
from resources.postgres import FOREVER, Connection
from resources.search_statements import OPERATOR_CLASSES
from resources.vector_index import LAYOUT, graph_name, words_name

#: Bytes a graph takes in memory while it is built, beside the vector of each row: for the row, and for each of its
#: ``hnsw.m`` connections. Measured: 714 bytes with m 16, from the notice of a server whose memory was too small.
_GRAPH_ROW_BYTES, _GRAPH_LINK_BYTES = 240, 32
#: Rows up to here stay whole in their page: a search reads the words of thousands of them, and what lies outside the
#: page or is compressed costs several times as much. Longer vectors than the second number go outside, because one
#: row a page would be left.
INLINE_BYTES, SHORT_VECTOR = 8_160, 2_000


#: Bytes of one dimension.
BYTES = {"vector": 4, "halfvec": 2}


def _width(specification: Specification) -> int:
    return specification.model.dimensions * BYTES[specification.index.vector_type]


def row_digest(alias: str, vector_type: str, layout: int = LAYOUT) -> sql.Composed:
    """SQL of the digest of one row: the first 8 bytes of SHA-256 over everything a search can return or rank by.

    Text and numbers go in by their portable binary forms, so that a dump restored elsewhere has the same digests.
    """
    words = sql.SQL("int4send({0}.words) || " if layout >= 2 else "").format(sql.Identifier(alias))
    return sql.SQL(
        """('x' || encode(substr(sha256(
               {2}int4send({0}.ordinal) || int4send({0}.start_char) || int4send({0}.end_char) || {0}.chunk_hash || {0}.input_hash
               || convert_to(array_to_string({0}.heading_path, E'\\x1f') || E'\\x1e' || {0}.content, 'UTF8')
               || tsvectorsend({0}.tsv) || {1}({0}.embedding)), 1, 8), 'hex'))::bit(64)::bigint"""
    ).format(sql.Identifier(alias), sql.Identifier(f"{vector_type}_send"), words)


def create_table(connection: Connection, table: str, specification: Specification) -> None:
    """Create the bare tables of a build; keys and indexes come after the load.

    What ranking reads of thousands of rows stands first in a row: to reach a column costs a step over each before it.
    """
    connection.execute(
        sql.SQL(
            """CREATE TABLE {table} (
                   document_id   bigint NOT NULL,
                   digest        bigint NOT NULL,
                   ordinal       integer NOT NULL,
                   start_char    integer NOT NULL,
                   end_char      integer NOT NULL,
                   valid_from    integer NOT NULL,
                   valid_to      integer NOT NULL DEFAULT {forever},
                   words         integer NOT NULL,
                   chunk_hash    bytea NOT NULL,
                   input_hash    bytea NOT NULL,
                   source        text NOT NULL,
                   tsv           tsvector NOT NULL,
                   embedding     {type} NOT NULL,
                   heading_path  text[] NOT NULL,
                   content       text NOT NULL,
                   configuration text NOT NULL) WITH (toast_tuple_target = {inline})"""
        ).format(
            table=sql.Identifier(table),
            inline=sql.Literal(INLINE_BYTES if _width(specification) <= SHORT_VECTOR else INLINE_BYTES // 2),
            forever=sql.Literal(FOREVER),
            type=sql.SQL(specification.column_type),  # type: ignore[arg-type]
        )
    )
    # Statistics of these two are large and of no use to the planner. The words are read several times for every chunk
    # that is ranked: they are moved out of the row, or compressed, last of all.
    connection.execute(
        sql.SQL(
            """ALTER TABLE {} ALTER embedding SET STATISTICS 0, ALTER tsv SET STATISTICS 0, ALTER tsv SET STORAGE MAIN"""
        ).format(sql.Identifier(table))
    )
    connection.execute(
        sql.SQL("CREATE TABLE {} (word text NOT NULL, valid_from integer NOT NULL, change integer NOT NULL)").format(
            sql.Identifier(words_name(table))
        )
    )


def add_keys(connection: Connection, table: str) -> None:
    """Add the primary key and the full-text index.

    The full-text index takes new words at once (no pending list): a small delta costs little, and no search pays for it.
    """
    connection.execute(
        sql.SQL("ALTER TABLE {} ADD PRIMARY KEY (document_id, ordinal, valid_from)").format(sql.Identifier(table))
    )
    connection.execute(
        sql.SQL("CREATE INDEX {} ON {} USING gin (tsv) WITH (fastupdate = off)").format(
            sql.Identifier(f"{table}_tsv"), sql.Identifier(table)
        )
    )


# --- word frequencies ---------------------------------------------------------------------------------------
# 'words_<build>' says for every word in how many more (or fewer) chunks it is from a snapshot on: those at a snapshot
# are the sum of all changes up to it. It follows from the rows alone.


def add_first_words(connection: Connection, table: str, number: int) -> None:
    """Count the words of a new build, all of whose rows begin at ``number``."""
    words = sql.Identifier(words_name(table))
    connection.execute(
        sql.SQL("INSERT INTO {} SELECT word, {}, ndoc FROM ts_stat({})").format(
            words, sql.Literal(number), sql.Literal(_vectors(table, sql.SQL("true")))
        )
    )
    connection.execute(sql.SQL("ALTER TABLE {} ADD PRIMARY KEY (word, valid_from)").format(words))


def add_changed_words(connection: Connection, table: str, number: int) -> None:
    """Count the words of the rows that begin or end at ``number``, of the documents in the temporary ``change``."""
    changed = "document_id IN (SELECT document_id FROM change) AND {} = {}"
    begun, ended = (
        _vectors(table, sql.SQL(changed).format(sql.Identifier(column), sql.Literal(number)))
        for column in ("valid_from", "valid_to")
    )
    connection.execute(
        sql.SQL(
            """INSERT INTO {} SELECT word, {}, sum(change) FROM (
                   SELECT word, ndoc AS change FROM ts_stat({}) UNION ALL SELECT word, -ndoc FROM ts_stat({})) changes
               GROUP BY word HAVING sum(change) <> 0"""
        ).format(
            sql.Identifier(words_name(table)),
            sql.Literal(number),
            sql.Literal(begun),
            sql.Literal(ended),
        )
    )


def recount_words(connection: Connection, table: str, number: int) -> None:
    """Make the words at ``number`` those of the visible rows, whatever was counted before; after damage."""
    connection.execute(
        sql.SQL(
            """INSERT INTO {words} SELECT word, {number}, coalesce(found.ndoc, 0) - coalesce(counted.chunks, 0)
               FROM ts_stat({visible}) found
               FULL JOIN (SELECT word, sum(change) AS chunks FROM {words} WHERE valid_from < {number} GROUP BY 1) counted
                    USING (word)
               WHERE coalesce(found.ndoc, 0) <> coalesce(counted.chunks, 0)"""
        ).format(
            words=sql.Identifier(words_name(table)),
            number=sql.Literal(number),
            visible=sql.Literal(_vectors(table, _visible(number))),
        )
    )


def miscounted_words(connection: Connection, table: str, number: int) -> int:
    """How many words are counted otherwise than the rows visible at ``number`` have them."""
    row = connection.execute(
        sql.SQL(
            """SELECT count(*) FROM ts_stat({visible}) found
               FULL JOIN (SELECT word, sum(change) AS chunks FROM {words} WHERE valid_from <= {number} GROUP BY 1
                          HAVING sum(change) <> 0) counted USING (word)
               WHERE found.ndoc IS DISTINCT FROM counted.chunks"""
        ).format(
            words=sql.Identifier(words_name(table)),
            number=sql.Literal(number),
            visible=sql.Literal(_vectors(table, _visible(number))),
        )
    ).fetchone()
    return row[0] if row else 0


def merge_words(connection: Connection, table: str, snapshots: Sequence[int], *, later: bool = False) -> None:
    """Keep what retained snapshots need: each change moves to the first of them that sees it, and what cancels out goes.

    So the words of rows that retention or an erasure deleted do not stay behind.

    Args:
        later: keep changes after the last of them, too: a stage that is not published yet.
    """
    words = sql.Identifier(words_name(table))
    connection.execute(
        sql.SQL(
            """CREATE TEMP TABLE merged ON COMMIT DROP AS
               SELECT w.word, kept.snapshot, sum(w.change) AS change
               FROM {} w JOIN LATERAL (
                   SELECT coalesce(min(s), CASE WHEN %(later)s THEN w.valid_from END) AS snapshot
                   FROM unnest(%(kept)s::integer[]) s WHERE s >= w.valid_from) kept ON kept.snapshot IS NOT NULL
               GROUP BY 1, 2 HAVING sum(w.change) <> 0"""
        ).format(words),
        {"kept": list(snapshots), "later": later},
    )
    connection.execute(sql.SQL("DELETE FROM {}").format(words))
    connection.execute(sql.SQL("INSERT INTO {} SELECT * FROM merged").format(words))
    connection.execute("DROP TABLE merged")


def forget_words(connection: Connection, table: str, documents: Sequence[int]) -> None:
    """Take the words of documents off every snapshot; before their rows are deleted for good."""
    words = words_name(table)
    if connection.execute("SELECT to_regclass(quote_ident(%s))", (words,)).fetchone() == (None,):
        return
    connection.execute(
        sql.SQL(
            """WITH gone AS (
                   SELECT lexeme AS word, at.snapshot, sum(at.change) AS change
                   FROM {table} c CROSS JOIN LATERAL unnest(c.tsv) CROSS JOIN LATERAL (
                       VALUES (c.valid_from, -1), (c.valid_to, 1)) at (snapshot, change)
                   WHERE c.document_id = ANY(%s) AND at.snapshot < {forever} GROUP BY 1, 2)
               INSERT INTO {words} AS w SELECT * FROM gone
               ON CONFLICT (word, valid_from) DO UPDATE SET change = w.change + EXCLUDED.change"""
        ).format(table=sql.Identifier(table), words=sql.Identifier(words), forever=sql.Literal(FOREVER)),
        (list(documents),),
    )
    kept = [
        snapshot
        for (snapshot,) in connection.execute(
            "SELECT s.snapshot FROM index_snapshot s JOIN index_build b USING (build_id) WHERE b.table_name = %s",
            (table,),
        )
    ]
    merge_words(connection, table, kept, later=True)


def _visible(number: int) -> sql.Composed:
    return sql.SQL("valid_from <= {0} AND valid_to > {0}").format(sql.Literal(number))


def _vectors(table: str, condition: sql.Composable) -> str:
    """The query ``ts_stat`` reads: it takes one as text."""
    return sql.SQL("SELECT tsv FROM {} WHERE {}").format(sql.Identifier(table), condition).as_string(None)


# --- graph ------------------------------------------------------------------------------------------------


def has_graph(connection: Connection, table: str) -> bool:
    """Whether the build has an HNSW graph."""
    row = connection.execute("SELECT to_regclass('genaiops.' || %s::text) IS NOT NULL", (graph_name(table),)).fetchone()
    return bool(row and row[0])


def add_graph(
    connection: Connection,
    table: str,
    rows: int,
    dimensions: int,
    vector_type: str,
    distance: str,
    hnsw: HnswConfig,
    memory_mb: int,
) -> None:
    """Build the HNSW graph over all rows; readers go on meanwhile, writers wait.

    The memory is set to what the graph needs: too little makes the build five times slower with a mere NOTICE, and a
    parallel build reserves all of it in shared memory. Where the server has too little shared memory (containers
    often have 64 MB) the graph is built without parallel workers.

    Args:
        memory_mb: most to ask for; a graph that does not fit is built several times slower.
    """
    statement = sql.SQL("CREATE INDEX {} ON {} USING hnsw (embedding {}) WITH (m = {}, ef_construction = {})").format(
        sql.Identifier(graph_name(table)),
        sql.Identifier(table),
        sql.Identifier(f"{vector_type}_{OPERATOR_CLASSES[distance]}"),
        sql.Literal(hnsw.m),
        sql.Literal(hnsw.ef_construction),
    )
    width = dimensions * BYTES[vector_type]
    needed = int(rows * (width + _GRAPH_LINK_BYTES * hnsw.m + _GRAPH_ROW_BYTES) * 1.1) + 64 * 1024**2
    kilobytes = min(needed, memory_mb * 1024**2) // 1024
    connection.execute("SELECT set_config('maintenance_work_mem', %s, true)", (f"{kilobytes}kB",))
    try:
        with connection.transaction():
            connection.execute(statement)
    except (psycopg.errors.DiskFull, psycopg.errors.OutOfMemory):
        connection.execute("SET LOCAL max_parallel_maintenance_workers = 0")
        connection.execute(statement)


def drop_build(connection: Connection, build_id: int, table: str) -> None:
    """Drop a build's table and what it says about documents; its row in ``index_build`` stays as history."""
    connection.execute(
        sql.SQL("DROP TABLE IF EXISTS {}, {}").format(sql.Identifier(table), sql.Identifier(words_name(table)))
    )
    connection.execute("DELETE FROM index_document WHERE build_id = %s", (build_id,))
    connection.execute("UPDATE index_build SET state = 'dropped', dead_rows = 0 WHERE build_id = %s", (build_id,))


def end_other_writers(connection: Connection, table: str) -> None:
    """End the sessions that hold locks on a table nobody may use any more: the loads of dead runs.

    The caller holds the lease on the index, so whoever still writes to an unpublished build lost it.
    """
    with contextlib.suppress(psycopg.errors.UndefinedTable):
        with connection.transaction():
            connection.execute(
                """SELECT pg_terminate_backend(pid, 10000) FROM (SELECT DISTINCT pid FROM pg_locks
                   WHERE relation = ('genaiops.' || %s::text)::regclass AND pid <> pg_backend_pid()) others""",
                (table,),
            )
