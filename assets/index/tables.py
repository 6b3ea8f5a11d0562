"""Tables: the physical layout of an index, one table per build.

Belongs here: creating, indexing and dropping a build's table, and the digest of a row.
Does not belong here: which rows go in (staging.py), and the search statements (resources/vector_index.py).

One table per build, because several configurations in one HNSW graph behind a filter lose recall, and dropping a
table is instant where deleting rows from a graph takes minutes.
"""

import contextlib

import psycopg
from psycopg import sql

from assets.index.specification import Specification
from resources.index_config import HnswConfig
from resources.postgres import FOREVER, Connection
from resources.vector_index import graph_name

#: Most memory one graph build asks for; a graph that does not fit is built several times slower.
MAXIMUM_BUILD_MEMORY = 2 * 1024**3


def row_digest(alias: str, vector_type: str) -> sql.Composed:
    """SQL of the digest of one row: the first 8 bytes of SHA-256 over everything a search can return or rank by.

    Text and numbers go in by their portable binary forms, so that a dump restored elsewhere has the same digests.
    """
    return sql.SQL(
        """('x' || encode(substr(sha256(
               int4send({0}.ordinal) || int4send({0}.start_char) || int4send({0}.end_char) || {0}.chunk_hash || {0}.input_hash
               || convert_to(array_to_string({0}.heading_path, E'\\x1f') || E'\\x1e' || {0}.content, 'UTF8')
               || tsvectorsend({0}.tsv) || {1}({0}.embedding)), 1, 8), 'hex'))::bit(64)::bigint"""
    ).format(sql.Identifier(alias), sql.Identifier(f"{vector_type}_send"))


def create_table(connection: Connection, table: str, specification: Specification) -> None:
    """Create the bare table of a build; keys and indexes come after the load."""
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
                   chunk_hash    bytea NOT NULL,
                   input_hash    bytea NOT NULL,
                   source        text NOT NULL,
                   heading_path  text[] NOT NULL,
                   content       text NOT NULL,
                   tsv           tsvector NOT NULL,
                   embedding     {type} NOT NULL)"""
        ).format(
            table=sql.Identifier(table),
            forever=sql.Literal(FOREVER),
            type=sql.SQL(specification.column_type),  # type: ignore[arg-type]
        )
    )
    # Statistics of these two are large and of no use to the planner.
    connection.execute(
        sql.SQL("ALTER TABLE {} ALTER embedding SET STATISTICS 0, ALTER tsv SET STATISTICS 0").format(
            sql.Identifier(table)
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


def has_graph(connection: Connection, table: str) -> bool:
    """Whether the build has an HNSW graph."""
    row = connection.execute("SELECT to_regclass('genaiops.' || %s::text) IS NOT NULL", (graph_name(table),)).fetchone()
    return bool(row and row[0])


def add_graph(
    connection: Connection, table: str, rows: int, dimensions: int, vector_type: str, hnsw: HnswConfig
) -> None:
    """Build the HNSW graph over all rows; readers go on meanwhile, writers wait.

    The memory is set to what the graph needs: too little makes the build five times slower with a mere NOTICE, and a
    parallel build reserves all of it in shared memory. Where the server has too little shared memory (containers
    often have 64 MB) the graph is built without parallel workers.
    """
    statement = sql.SQL("CREATE INDEX {} ON {} USING hnsw (embedding {}) WITH (m = {}, ef_construction = {})").format(
        sql.Identifier(graph_name(table)),
        sql.Identifier(table),
        sql.Identifier(f"{vector_type}_cosine_ops"),
        sql.Literal(hnsw.m),
        sql.Literal(hnsw.ef_construction),
    )
    width = dimensions * (2 if vector_type == "halfvec" else 4)
    needed = int(rows * (width + 24 * hnsw.m * 2 + 512) * 1.2) + 64 * 1024**2
    kilobytes = min(needed, MAXIMUM_BUILD_MEMORY) // 1024
    connection.execute("SELECT set_config('maintenance_work_mem', %s, true)", (f"{kilobytes}kB",))
    try:
        with connection.transaction():
            connection.execute(statement)
    except (psycopg.errors.DiskFull, psycopg.errors.OutOfMemory):
        connection.execute("SET LOCAL max_parallel_maintenance_workers = 0")
        connection.execute(statement)


def drop_build(connection: Connection, build_id: int, table: str) -> None:
    """Drop a build's table and what it says about documents; its row in ``index_build`` stays as history."""
    connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(table)))
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
