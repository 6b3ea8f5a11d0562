"""Other processes of the scale benchmark: clients that search, and a writer that refreshes meanwhile.

    python -m tests.benchmarks.scale_clients search DATA URL QUESTIONS.npz
    python -m tests.benchmarks.scale_clients change DATA URL REAL_DATA DOCUMENTS INDEX
    python -m tests.benchmarks.scale_clients build DATA URL INDEX SOURCE

A client reads one JSON object a line (what to ask, how many times) and answers with one (milliseconds of each search).
The writers say when they begin, do one thing and print one JSON object. Belongs here: what runs beside the benchmark's own process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from resources.config import load_config
from resources.fusion import Fusion
from resources.platform import Platform
from resources.postgres import Database
from resources.vector_index import SearchFilter, VectorIndex
from tests.benchmarks import measuring
from tests.benchmarks.scale_watch import CLIENT

#: What is asked: name, arguments of ``search``.
KINDS: dict[str, dict[str, Any]] = {
    "vector": {"mode": "vector"},
    "full text (BM25)": {"mode": "full_text"},
    "hybrid, weighted": {"mode": "hybrid", "fusion": Fusion("weighted", 0.4, 0.6)},
    "hybrid, reciprocal ranks": {"mode": "hybrid", "fusion": Fusion("rrf", 1, 1, 60)},
    "vector, metadata 1 % pass": {"mode": "vector", "filters": SearchFilter(metadata=(("team", "t5"),))},
    "vector, metadata 50 % pass": {"mode": "vector", "filters": SearchFilter(metadata=(("half", 1),))},
    "vector, labels (98 % visible)": {"mode": "vector", "filters": SearchFilter(labels=())},
    "hybrid, metadata 1 % pass": {"filters": SearchFilter(metadata=(("team", "t5"),))},
    "hybrid, metadata 50 % pass": {"filters": SearchFilter(metadata=(("half", 1),))},
    "hybrid, labels (98 % visible)": {"filters": SearchFilter(labels=())},
}
MODES = tuple(KINDS)[:3]


class Clients:
    """Some client processes, ready to search; a context manager."""

    def __init__(self, number: int, data: Path, url: str, questions: Path) -> None:
        command = [sys.executable, "-m", "tests.benchmarks.scale_clients", "search", str(data), url, str(questions)]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        environment = {**os.environ, "PGAPPNAME": CLIENT}
        self._asked = 0
        self._processes = [
            subprocess.Popen(command, cwd=measuring.ROOT, env=environment, **pipes) for _ in range(number)
        ]

    def __enter__(self) -> Clients:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in self._processes:
            process.wait(60)

    def ask(self, index: str, kind: str, *, clients: int = 1, searches: int = 200, warm: bool = True) -> list[float]:
        """Milliseconds of ``searches`` searches of each of so many clients at once; warm: after as many that do not
        count."""
        chosen = self._processes[:clients]
        for number, process in enumerate(chosen):
            assert process.stdin is not None
            order = {
                "index": index,
                "kind": kind,
                "searches": searches,
                "warm": warm,
                "offset": self._asked + number * 37,
            }
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()
        found: list[float] = []
        for process in chosen:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, "a client died; its error is above"
            found += json.loads(line)
        self._asked += searches
        return found


def writer(arguments: Sequence[str]) -> subprocess.Popen[str]:
    """Start a writer process, and return when it begins to write; it prints one JSON object at the end."""
    command = [sys.executable, "-m", "tests.benchmarks.scale_clients", *arguments]
    process = subprocess.Popen(command, cwd=measuring.ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def _platform(data: str, url: str) -> Platform:
    return Platform(load_config(Path(data)), Database(url), Path(data) / "artifacts")


def _search(data: str, url: str, questions: str) -> None:
    platform = _platform(data, url)
    index = VectorIndex(platform.database, platform.config, platform.models)
    with np.load(questions, allow_pickle=False) as file:
        texts, vectors = file["texts"].tolist(), file["vectors"]
    asked = dict(zip(texts, vectors, strict=True))
    # the question's vector is at hand, so that no model is measured
    index._embed = lambda embedder, questions: [(asked[text], 0.0) for text in questions]
    for line in sys.stdin:
        order = json.loads(line)
        options = {"mode": "hybrid", "fusion": Fusion("weighted", 0.4, 0.6), **KINDS[order["kind"]]}
        options |= {"fusion": None} if options["mode"] != "hybrid" else {}
        seconds: list[float] = []
        for _ in range(1 + order["warm"]):
            seconds = []
            for number in range(order["searches"]):
                question = texts[(order["offset"] + number) % len(texts)]
                started = time.perf_counter()
                index.search(order["index"], question, k=10, **options)
                seconds.append((time.perf_counter() - started) * 1000)
        print(json.dumps([round(value, 3) for value in seconds]), flush=True)
    platform.database.close()


def _change(data: str, url: str, folder: str, documents: str, name: str) -> None:
    """Edit one document in a hundred and publish; seconds by step."""
    from assets.chunks.chunking import chunk_source
    from assets.index.refreshing import refresh_index
    from assets.index.specification import specify
    from resources.fingerprint import text_hash
    from tests.benchmarks.scale_world import Corpus, edit_documents, store_vectors

    platform = _platform(data, url)
    corpus = Corpus(Path(folder))
    print("begins", flush=True)
    seconds: dict[str, Any] = {}
    last = time.perf_counter()

    def lap(step: str) -> None:
        nonlocal last
        seconds[step], last = round(time.perf_counter() - last, 3), time.perf_counter()

    edited = edit_documents(platform, corpus, int(documents))
    with platform.database.connect() as connection:
        row = connection.execute("SELECT max(revision) FROM source_revision WHERE source = 'docs'").fetchone()
    assert row is not None
    keys = [text_hash(corpus.document(number, row[0])) for number in edited]
    lap("commit")
    work = chunk_source(platform, "docs")
    lap("chunks")
    store_vectors(platform, specify(platform, name), int(documents), keys)
    lap("vectors")
    item = refresh_index(platform, name, "docs", "scale-change")
    lap("index")
    assert item.publication is not None, item.outcomes
    assert item.stage is not None
    seconds |= {
        "stage": item.stage.seconds,
        "publish_ms": item.publication.milliseconds,
        "documents": len(edited),
        "chunks written": work.chunks_written,
        "rows added": item.stage.counts["rows_added"],
        "rows retired": item.stage.counts["rows_retired"],
        "strategy": item.stage.strategy,
        "ef_search": item.stage.counts.get("ef_search"),
        "recall": next(o.details.get("recall") for o in item.outcomes if o.name == "recall_at_10"),
    }
    print(json.dumps(seconds), flush=True)
    platform.database.close()


def _build(data: str, url: str, name: str, source: str) -> None:
    """Build (or refresh) an index over a source and publish it."""
    from assets.index.refreshing import refresh_index

    platform = _platform(data, url)
    print("begins", flush=True)
    started = time.perf_counter()
    item = refresh_index(platform, name, source, "scale-build")
    assert item.publication is not None, item.outcomes
    assert item.stage is not None
    result = {
        "seconds": time.perf_counter() - started,
        "stage": item.stage.seconds,
        "indexes": item.stage.index_seconds,
        "publish_ms": item.publication.milliseconds,
        "rows": item.stage.counts["rows_added"],
        "table": item.stage.table,
        "ef_search": item.stage.counts.get("ef_search"),
        "checks": {outcome.name: outcome.details for outcome in item.outcomes},
        "strategy": item.stage.strategy,
        "reason": item.stage.reason,
    }
    print(json.dumps(result, default=str), flush=True)
    platform.database.close()


if __name__ == "__main__":
    {"search": _search, "change": _change, "build": _build}[sys.argv[1]](*sys.argv[2:])
