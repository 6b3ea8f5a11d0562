"""Loading an index against a bare binary COPY of the same rows with the same index build, in one run."""

import time
from collections.abc import Callable

import numpy as np
import pytest
from pgvector import HalfVector
from psycopg import sql

from assets.chunks.enrichment import embedding_input
from assets.index import tables
from assets.index.embedding import store
from assets.index.refreshing import refresh_index
from assets.index.specification import Specification, specify
from resources.chunk_config import chunker_id, enrichment_id
from resources.fingerprint import text_hash
from resources.platform import Platform
from tests.index_world import commit

DOCUMENTS, CHUNKS, LENGTH, DIMENSIONS = 1_000, 30, 375, 384
ROWS = DOCUMENTS * CHUNKS
BATCH = 1_024


@pytest.mark.benchmark
def test_load_against_bare_copy(make_platform: Callable[..., Platform]) -> None:
    # random vectors have no neighbourhoods, the hardest case for a graph; recall is not what is measured here
    platform = make_platform(**{"policies/index.yaml": {"minimum_recall_at_10": 0.0, "sample_size": 20}})
    specification = specify(platform, "main")
    generator = np.random.default_rng(7)
    vectors = generator.standard_normal((ROWS, DIMENSIONS), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    words = np.array([f"word{number}" for number in range(20_000)])
    texts = {f"{number:04}.txt": _text(generator, words) for number in range(DOCUMENTS)}
    commit(platform, "docs", texts)
    inputs = _chunks(platform, specification, texts)
    assert len(inputs) == ROWS

    started = time.perf_counter()
    with platform.database.connect() as connection:
        row = connection.execute(
            "INSERT INTO embedder (fingerprint, config, dimensions) VALUES (%s, '{}', %s) RETURNING embedder_id",
            (specification.embedder, DIMENSIONS),
        ).fetchone()
        assert row is not None
    for first in range(0, ROWS, BATCH):
        with platform.database.connect() as connection:
            store(connection, row[0], inputs[first : first + BATCH], vectors[first : first + BATCH], "run")
    cached = time.perf_counter() - started
    item = refresh_index(platform, "main", "docs", "run")
    assert item.stage is not None
    assert item.publication is not None
    staged, indexed = item.stage.seconds, item.stage.index_seconds

    bare_copy, bare_index = _bare(platform, specification, item.stage.table)
    ours, bare = cached + staged, bare_copy + bare_index
    with platform.database.connect() as connection:
        count = connection.execute(
            sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(item.stage.table))
        ).fetchone()
    assert count == (ROWS,)
    print(
        f"\n{ROWS} rows of {DIMENSIONS} dimensions"
        f"\n  ours: cache {cached:.2f} s, rows {staged - indexed:.2f} s, indexes {indexed:.2f} s, "
        f"publish {item.publication.milliseconds:.1f} ms = {ROWS / ours:.0f} rows/s"
        f"\n  bare: copy {bare_copy:.2f} s, indexes {bare_index:.2f} s = {ROWS / bare:.0f} rows/s"
        f"\n  ratio {bare / ours:.2f} (target 0.5)"
        f"\n  {item.outcomes[2].observed}"
    )


def _text(generator: np.random.Generator, words: np.ndarray) -> str:
    needed = CHUNKS * LENGTH
    return " ".join(generator.choice(words, needed // 8 + 200))[:needed]


def _chunks(platform: Platform, specification: Specification, texts: dict[str, str]) -> list[bytes]:
    """Cut every text into equal pieces, so that only loading is measured; returns the input hashes."""
    inputs: list[bytes] = []
    with platform.database.connect() as connection:
        chunker = chunker_id(connection, specification.index.chunker)
        enrichment = enrichment_id(connection, specification.index.enrichment)
        for text in texts.values():
            key = text_hash(text)
            connection.execute("INSERT INTO chunk_set VALUES (%s, %s, %s)", (chunker, key, CHUNKS))
            pieces = [text[i * LENGTH : (i + 1) * LENGTH] for i in range(CHUNKS)]
            hashes = [text_hash(embedding_input([], piece, specification.index.enrichment)) for piece in pieces]
            connection.execute(
                """INSERT INTO chunk SELECT %s, %s, o, o * %s, (o + 1) * %s, h, '{}', 90
                   FROM unnest(%s::bytea[]) WITH ORDINALITY u (h, n), LATERAL (SELECT (n - 1)::integer AS o) x""",
                (chunker, key, LENGTH, LENGTH, [text_hash(piece) for piece in pieces]),
            )
            connection.execute(
                """INSERT INTO chunk_input SELECT %s, %s, %s, (n - 1)::integer, h
                   FROM unnest(%s::bytea[]) WITH ORDINALITY u (h, n)""",
                (enrichment, chunker, key, hashes),
            )
            inputs += hashes
    return inputs


def _bare(platform: Platform, specification: Specification, table: str) -> tuple[float, float]:
    """Seconds of one binary COPY of the finished rows (words already split) and of building the same indexes."""
    columns = (
        "document_id, digest, ordinal, start_char, end_char, valid_from, valid_to, chunk_hash, input_hash, source, "
        "heading_path, content, tsv, embedding"
    )
    types = ["int8", "int8", "int4", "int4", "int4", "int4", "int4", "bytea", "bytea", "text", "text[]", "text"]
    with platform.database.connect() as connection:
        rows = (
            connection.cursor(binary=True)
            .execute(
                sql.SQL("SELECT {} FROM {}").format(
                    sql.SQL(columns.replace(", tsv", "")),  # type: ignore[arg-type]
                    sql.Identifier(table),
                )
            )
            .fetchall()
        )
        rows = [(*row[:-1], HalfVector(row[-1].to_numpy())) for row in rows]
        tables.create_table(connection, "bare", specification)
        connection.execute("ALTER TABLE bare ALTER tsv DROP NOT NULL")
        started = time.perf_counter()
        with connection.cursor() as cursor:
            statement = sql.SQL("COPY bare ({}) FROM STDIN WITH (FORMAT BINARY)").format(
                sql.SQL(columns.replace(", tsv", ""))  # type: ignore[arg-type]
            )
            with cursor.copy(statement) as copy:
                copy.set_types([*types, "halfvec"])
                for row in rows:
                    copy.write_row(row)
        connection.commit()
        copied = time.perf_counter() - started
        # the words of full-text search cost the server the same work either way and belong to building the index
        started = time.perf_counter()
        connection.execute(
            sql.SQL("UPDATE bare SET tsv = to_tsvector({}, content)").format(
                sql.Literal(specification.index.text_search)
            )
        )
        words = time.perf_counter() - started
        connection.execute("CREATE TABLE bare_packed AS SELECT * FROM bare")
        connection.execute("DROP TABLE bare")
        connection.execute("ALTER TABLE bare_packed RENAME TO bare")
        started = time.perf_counter()
        tables.add_keys(connection, "bare")
        tables.add_graph(
            connection,
            "bare",
            ROWS,
            DIMENSIONS,
            specification.index.vector_type,
            specification.index.distance,
            specification.index.hnsw,
            platform.config.policies.index.graph_memory_mb,
        )
        built = time.perf_counter() - started
    print(f"\n  (splitting words alone: {words:.2f} s, not counted for the bare load)")
    return copied, built
