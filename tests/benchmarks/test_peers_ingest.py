"""Rows a second into pgvector: ours, a bare binary COPY, LangChain and LlamaIndex, in one run on one server."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pgvector import HalfVector
from psycopg import sql

from assets.index.embedding import store
from assets.index.refreshing import refresh_index
from assets.index.specification import specify
from resources.platform import Platform
from resources.postgres import Database
from tests.benchmarks.measuring import show
from tests.benchmarks.peers import load, peer, require
from tests.benchmarks.test_index_load import CHUNKS, DIMENSIONS, LENGTH, _chunks
from tests.index_world import commit

VARIABLE = "GENAIOPS_PEERS_ROWS"
#: As a refresh stores vectors: a batch is one transaction.
BATCH = 1_024
#: One row per statement takes long, and its speed does not depend on how many there are.
SLOW_ROWS = 5_000
TARGET = 20
JOBS = {
    "langchain-postgres": {"LangChain PGVector": "langchain", "LangChain PGVectorStore (v2)": "langchain_v2"},
    "llama-index-vector-stores-postgres": {"LlamaIndex PGVectorStore": "llama_index"},
}


@pytest.mark.benchmark
def test_ingest_against_peers(
    shared_data: Path,
    tmp_path: Path,
    make_platform: Callable[..., Platform],
    make_database: Callable[[], Database],
) -> None:
    versions = require(*JOBS)
    documents = -(-int(os.environ.get(VARIABLE, "20000")) // CHUNKS)
    rows = documents * CHUNKS
    pieces = _pieces(shared_data, rows)
    vectors = np.random.default_rng(7).standard_normal((rows, DIMENSIONS), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    (tmp_path / "texts.json").write_text(json.dumps(pieces), encoding="utf-8")
    np.save(tmp_path / "vectors.npy", vectors)

    speeds: dict[str, float] = {}
    bare = make_database()
    speeds["bare COPY, vector"] = rows / _bare(bare, pieces, list(vectors), "vector")
    copied = _bare(bare, pieces, [HalfVector(row) for row in vectors], "halfvec")
    speeds["bare COPY, halfvec"] = rows / copied
    speeds["the same, then words split for full text"] = rows / (copied + _words(bare))

    cached, loaded, indexed = _ours(make_platform, pieces, vectors)
    speeds["ours: index rows"] = rows / loaded
    speeds["ours: cache, then index rows"] = rows / (cached + loaded)
    speeds["ours: all, with building the indexes"] = rows / (cached + loaded + indexed)

    theirs: dict[str, float] = {}
    for distribution in versions:
        for name, job in JOBS[distribution].items():
            count = min(rows, SLOW_ROWS) if job == "langchain_v2" else rows
            done = peer(job, url=make_database().url, folder=str(tmp_path), rows=count)
            theirs[f"{name} {versions[distribution]}"] = done["rows"] / done["seconds"]
    fastest = max(theirs.values())

    copy = speeds["bare COPY, halfvec"]
    show(
        f"{rows} rows of {DIMENSIONS} dimensions with texts of {LENGTH} characters; {load()}",
        ["way in", "rows/s", "of bare COPY (halfvec)", "times the faster peer"],
        [[name, round(speed), speed / copy, speed / fastest] for name, speed in (speeds | theirs).items()],
    )
    print(f"  (target: ours at least {TARGET} times the faster peer; no peer builds an index here)")
    assert set(versions) <= set(JOBS)


def _pieces(shared_data: Path, count: int) -> list[str]:
    """Distinct runs of ``LENGTH`` characters of real text; after the first pass they overlap earlier ones."""
    files = [
        *sorted((shared_data / "squad2" / "documents").glob("*.md")),
        *sorted((shared_data / "peps-history" / "base").rglob("*.rst")),
    ]
    texts = [path.read_text(encoding="utf-8") for path in files]
    pieces: dict[str, None] = {}
    for offset in range(0, LENGTH, 41):
        for text in texts:
            for first in range(offset, len(text) - LENGTH, LENGTH):
                pieces[text[first : first + LENGTH]] = None
            if len(pieces) >= count:
                return list(pieces)[:count]
    raise AssertionError(f"{len(pieces)} distinct pieces are too few for {count} rows; lower {VARIABLE}")


def _bare(database: Database, pieces: list[str], vectors: list, kind: str) -> float:
    """Seconds of one binary COPY, rows made in Python, into a table with a primary key."""
    name = sql.Identifier(f"bare_{kind}")
    with database.connect() as connection:
        connection.execute(
            sql.SQL("CREATE TABLE {} (id bigint PRIMARY KEY, content text, embedding {}({}))").format(
                name, sql.SQL("halfvec" if kind == "halfvec" else "vector"), sql.Literal(DIMENSIONS)
            )
        )
        connection.commit()
        started = time.perf_counter()
        with connection.cursor() as cursor:
            with cursor.copy(sql.SQL("COPY {} FROM STDIN WITH (FORMAT BINARY)").format(name)) as copy:
                copy.set_types(["int8", "text", kind])
                for number, row in enumerate(zip(pieces, vectors, strict=True)):
                    copy.write_row((number, *row))
        connection.commit()
        return time.perf_counter() - started


def _words(database: Database) -> float:
    """Seconds the server takes to write the copied rows once more with their words, which no peer does here."""
    with database.connect() as connection:
        started = time.perf_counter()
        connection.execute("CREATE TABLE bare_words AS SELECT *, to_tsvector('english', content) tsv FROM bare_halfvec")
        connection.commit()
        return time.perf_counter() - started


def _ours(make_platform: Callable[..., Platform], pieces: list[str], vectors: np.ndarray) -> tuple[float, float, float]:
    """Seconds of filling the embedding cache, of loading the index table from it, and of building its indexes."""
    # random vectors have no neighbourhoods, the hardest case for a graph; recall is not what is measured here
    platform = make_platform(**{"policies/index.yaml": {"minimum_recall_at_10": 0.0, "sample_size": 20}})
    specification = specify(platform, "main")
    texts = {
        f"{first // CHUNKS:05}.txt": "".join(pieces[first : first + CHUNKS]) for first in range(0, len(pieces), CHUNKS)
    }
    commit(platform, "docs", texts)
    inputs = _chunks(platform, specification, texts)
    started = time.perf_counter()
    with platform.database.connect() as connection:
        row = connection.execute(
            "INSERT INTO embedder (fingerprint, config, dimensions) VALUES (%s, '{}', %s) RETURNING embedder_id",
            (specification.embedder, DIMENSIONS),
        ).fetchone()
    assert row is not None
    for first in range(0, len(inputs), BATCH):
        with platform.database.connect() as connection:
            store(connection, row[0], inputs[first : first + BATCH], vectors[first : first + BATCH], "run")
    cached = time.perf_counter() - started
    item = refresh_index(platform, "main", "docs", "run")
    assert item.stage is not None
    assert item.stage.counts["rows_added"] == len(pieces)
    return cached, item.stage.seconds - item.stage.index_seconds, item.stage.index_seconds
