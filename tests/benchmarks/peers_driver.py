"""What the peers do in the benchmarks against them; run as a script by an interpreter that has the peers installed.

Belongs here: one function per job, each timing only the peer's own work; the last line of output is its result as JSON.
Does not belong here: our side of the comparison (test_peers_*.py). Nothing of the project is imported here, since the
interpreter of the peers has not got it.
"""

# pyright: reportMissingImports=false

import asyncio
import hashlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

DIMENSIONS = 384
BATCH = 1_000
DISTRIBUTIONS = ("langchain-postgres", "llama-index-vector-stores-postgres", "cocoindex")
HNSW = {"m": 16, "ef_construction": 64}


def vector_of(text: str) -> np.ndarray:
    """A unit vector made of a hash of the text: float32, 384 dimensions; a few microseconds whatever the text."""
    numbers = np.frombuffer(hashlib.shake_256(text.encode()).digest(DIMENSIONS), np.uint8).astype(np.float32) - 127.5
    return numbers / np.linalg.norm(numbers)


def versions() -> dict[str, str]:
    """The peers this interpreter has."""
    found = {}
    for name in DISTRIBUTIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _rows(folder: str, limit: int) -> tuple[list[str], list[list[float]]]:
    texts = json.loads((Path(folder) / "texts.json").read_text(encoding="utf-8"))[:limit]
    return texts, np.load(Path(folder) / "vectors.npy")[:limit].tolist()


def _driver(url: str, name: str) -> str:
    return url.replace("postgresql://", f"postgresql+{name}://", 1)


def langchain(url: str, folder: str, rows: int) -> dict[str, float]:
    """LangChain's PGVector with vectors at hand, 1 000 rows a call."""
    from langchain_core.embeddings import DeterministicFakeEmbedding
    from langchain_postgres import PGVector

    texts, vectors = _rows(folder, rows)
    unused = DeterministicFakeEmbedding(size=DIMENSIONS)
    store = PGVector(unused, connection=_driver(url, "psycopg"), embedding_length=DIMENSIONS, collection_name="peer")
    started = time.perf_counter()
    for first in range(0, rows, BATCH):
        store.add_embeddings(texts[first : first + BATCH], vectors[first : first + BATCH])
    return {"seconds": time.perf_counter() - started, "rows": rows}


def langchain_v2(url: str, folder: str, rows: int) -> dict[str, float]:
    """LangChain's second store, PGVectorStore, with vectors at hand."""
    from langchain_core.embeddings import DeterministicFakeEmbedding
    from langchain_postgres import PGEngine, PGVectorStore

    texts, vectors = _rows(folder, rows)
    engine = PGEngine.from_connection_string(_driver(url, "psycopg"))
    engine.init_vectorstore_table("peer_v2", DIMENSIONS)
    store = PGVectorStore.create_sync(engine, DeterministicFakeEmbedding(size=DIMENSIONS), "peer_v2")
    started = time.perf_counter()
    for first in range(0, rows, BATCH):
        store.add_embeddings(texts[first : first + BATCH], vectors[first : first + BATCH])
    return {"seconds": time.perf_counter() - started, "rows": rows}


def llama_index(url: str, folder: str, rows: int) -> dict[str, float]:
    """LlamaIndex's PGVectorStore with nodes that carry their vectors, 1 000 a call; making the nodes is not counted."""
    from llama_index.core.schema import TextNode
    from llama_index.vector_stores.postgres import PGVectorStore

    texts, vectors = _rows(folder, rows)
    store = PGVectorStore.from_params(
        connection_string=_driver(url, "psycopg2"),
        async_connection_string=_driver(url, "asyncpg"),
        table_name="peer",
        embed_dim=DIMENSIONS,
        use_jsonb=True,
    )
    nodes = [TextNode(text=text, embedding=vector) for text, vector in zip(texts, vectors, strict=True)]
    store.add(nodes[:1])  # makes the table
    started = time.perf_counter()
    for first in range(1, rows, BATCH):
        store.add(nodes[first : first + BATCH])
    return {"seconds": time.perf_counter() - started, "rows": rows - 1}


def cocoindex(url: str, folder: str, state: str, size: int, graph: bool) -> dict[str, float]:
    """One update of a flow: files of a folder, chunks of ``size`` bytes, hashed vectors, a pgvector table.

    Args:
        state: folder cocoindex remembers in what it did before.
        graph: declare an HNSW index of the parameters ours has.
    """
    os.environ |= {"COCOINDEX_DB": state, "COCOINDEX_DISABLE_USAGE_TRACKING": "1"}
    import asyncpg
    import cocoindex as coco
    from cocoindex.connectors import localfs, postgres
    from cocoindex.ops.text import RecursiveSplitter
    from cocoindex.resources.schema import VectorSchema

    database: Any = coco.ContextKey("database")
    splitter = RecursiveSplitter()
    embedded = 0

    @dataclass
    class Row:
        path: str
        start: int
        content: str
        embedding: Annotated[NDArray[np.float32], VectorSchema(np.dtype(np.float32), DIMENSIONS)]

    @coco.lifespan
    async def lifespan(builder: Any) -> AsyncIterator[None]:
        async with asyncpg.create_pool(url) as pool:
            builder.provide(database, pool)
            yield

    @coco.fn(memo=True)
    async def index_file(file: Any, table: Any) -> None:
        nonlocal embedded
        for chunk in splitter.split(await file.read_text(), size):
            embedded += 1
            table.declare_row(
                row=Row(file.file_path.path.as_posix(), chunk.start.char_offset, chunk.text, vector_of(chunk.text))
            )

    @coco.fn
    async def main(root: Path) -> None:
        schema = await postgres.TableSchema.from_class(Row, primary_key=["path", "start"])
        table = await postgres.mount_table_target(database, "peer_chunk", schema)
        if graph:
            table.declare_vector_index(column="embedding", method="hnsw", **HNSW)
        await coco.mount_each(index_file, localfs.walk_dir(root, recursive=True).items(), table)

    app = coco.App(coco.AppConfig(name="peer"), main, Path(folder))
    started = time.perf_counter()
    app.update_blocking()
    seconds = time.perf_counter() - started

    async def count() -> int:
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetchval("SELECT count(*) FROM peer_chunk")
        finally:
            await connection.close()

    return {"seconds": seconds, "embedded": embedded, "rows": asyncio.run(count())}


JOBS: dict[str, Callable[..., Any]] = {
    job.__name__: job for job in (versions, langchain, langchain_v2, llama_index, cocoindex)
}

if __name__ == "__main__":
    print(json.dumps(JOBS[sys.argv[1]](**json.loads(sys.argv[2]))))
