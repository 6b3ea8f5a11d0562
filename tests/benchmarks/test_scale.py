"""A million chunks in the schema as it is: loading, building, searching, and searching while others write.

    GENAIOPS_SCALE_ROWS=1000000 GENAIOPS_SCALE_STATE=/path/with/room \
        pytest -s -p no:cacheprovider tests/benchmarks/test_scale.py

Variables: ``GENAIOPS_SCALE_ROWS`` (chunks, default 100 000; documents are made until about so many), ``GENAIOPS_SCALE_STATE``
(a folder that keeps the server with texts, chunks and vectors: the next run starts at the indexes), ``GENAIOPS_SCALE_INDEXES``
(``halfvec,vector``), ``GENAIOPS_SCALE_SEARCHES`` (of each kind and client, default 200).

The server is one of its own with the settings of the product (it waits for the disk, unlike the server of the tests).
Nothing here fails because of a time; what is asserted is that the work was done and that searches find what they should.
"""

import json
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from psycopg import sql

from assets.chunks.chunking import chunk_source
from assets.index.refreshing import refresh_index
from assets.index.specification import specify
from resources.config import load_config
from resources.platform import Platform
from resources.postgres import Database, start_embedded, stop_embedded
from tests.benchmarks import scale_world as world
from tests.benchmarks.measuring import show
from tests.benchmarks.scale_clients import KINDS, MODES, Clients, writer
from tests.benchmarks.scale_watch import MB, Watched, build_sizes, cache_sizes, watching
from tests.index_world import searcher

ROWS = int(os.environ.get("GENAIOPS_SCALE_ROWS", "100000"))
INDEXES = os.environ.get("GENAIOPS_SCALE_INDEXES", "halfvec,vector").split(",")
SEARCHES = int(os.environ.get("GENAIOPS_SCALE_SEARCHES", "200"))
QUESTIONS, JUDGED, CLIENTS = 200, 50, 4
#: Searches of one kind in a row while somebody writes, of each client.
IN_A_ROW = 25
#: Parts in which the searches of a kind are made.
ROUNDS = 4


@dataclass
class Run:
    """What the parts of the benchmark hand to each other, and the lines of the last table."""

    platform: Platform
    url: str
    data: Path
    shared: Path
    corpus: world.Corpus
    chunks: int = 0
    documents: int = 0
    latencies: dict[tuple[str, str, str], list[float]] = field(default_factory=dict)
    facts: list[list[Any]] = field(default_factory=list)

    def fact(self, name: str, value: Any, per_chunk: Any) -> None:
        """Remember a line of the last table."""
        self.facts.append([name, value, per_chunk])


@pytest.fixture
def run(tmp_path: Path, make_data_dir: Callable[..., Path], shared_data: Path) -> Iterator[Run]:
    """A platform on a server of its own, thrown away afterwards unless its folder is named."""
    kept = os.environ.get("GENAIOPS_SCALE_STATE")
    # not below pytest's folder: as root the server runs under a user of its own and must reach it
    root = Path(kept) if kept else Path(tempfile.gettempdir()) / f"genaiops-scale-{uuid.uuid4().hex[:8]}"
    root.mkdir(mode=0o755, parents=True, exist_ok=True)
    try:
        url = _database(start_embedded(root / "pg"), f"scale_{ROWS}")
        data = make_data_dir(**{"sources.yaml": world.sources_file(tmp_path), **world.FILES})
        (data / "indexes" / "main.yaml").unlink()
        platform = Platform(load_config(data), Database(url), tmp_path / "artifacts")
        try:
            yield Run(platform, url, data, shared_data, world.Corpus(shared_data))
        finally:
            platform.database.close()
    finally:
        stop_embedded(root / "pg")
        if not kept:
            shutil.rmtree(root, ignore_errors=True)


def _database(server: str, name: str) -> str:
    """URL of a database of this name, which is made where there is none."""
    with psycopg.connect(server, autocommit=True) as connection:
        if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone():
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    url = server.replace("/postgres?", f"/{name}?")
    assert url != server
    return url


@pytest.mark.benchmark
@pytest.mark.timeout(0)
def test_scale(run: Run, tmp_path: Path) -> None:
    started = time.perf_counter()
    try:
        _measure(run, tmp_path)
    finally:  # also of a run that was broken off
        _report_searches(run)
        run.fact("whole benchmark", f"{time.perf_counter() - started:.0f} s", "")
        show("for docs/scale.md", ["", "measured", "a chunk, or of the vector p95"], run.facts)


def _measure(run: Run, tmp_path: Path) -> None:
    world.drop_indexes(run.platform)
    _load(run)
    questions = run.corpus.questions(QUESTIONS)
    vectors = world.question_vectors(run.platform, specify(run.platform, INDEXES[0]), run.corpus, questions)
    file = tmp_path / "questions.npz"
    np.savez(file, texts=np.array([question.text for question in questions]), vectors=vectors)

    first, *others = INDEXES
    _build(run, first)
    _recall(run, first, questions, vectors)
    _change(run, first, "alone")
    _nothing_changed(run, first)
    with Clients(CLIENTS, run.data, run.url, file) as clients:
        _search(run, clients, first, "1 client", list(KINDS), 1)
        _search(run, clients, first, f"{CLIENTS} clients", [*MODES, *list(KINDS)[-3:]], CLIENTS)
        _change(run, first, "beside searches", clients)
        for name in others:
            _build(run, name, clients, first)
            _recall(run, name, questions, vectors)
            _search(run, clients, name, "1 client", list(KINDS), 1)


# --- load ------------------------------------------------------------------------------------------------------------


def _load(run: Run) -> None:
    """Documents, chunks and vectors; what a kept folder has already is not made again."""
    documents = max(50, ROWS // world.CHUNKS_PER_DOCUMENT)
    run.documents = documents
    platform, specification = run.platform, specify(run.platform, INDEXES[0])
    before = world.committed_documents(platform)
    rows: list[list[Any]] = []

    def phase(name: str, watched: Watched, seconds: float, what: str, number: int) -> None:
        rate = f"{number / seconds:.0f}" if number else "kept from before"
        rows.append([name, f"{number} {what}", round(seconds, 1), rate, *_memory(watched), round(watched.log_mb)])

    with watching(run.url) as watched:
        seconds, characters = world.commit_documents(platform, run.corpus, documents)
    phase("documents", watched, seconds, "documents", documents - before)
    with watching(run.url) as watched:
        works = [chunk_source(platform, source) for source in ("docs", "restricted")]
    written = sum(work.chunks_written for work in works)
    run.chunks = sum(work.chunks for work in works)
    phase("chunks (cut and written)", watched, watched.seconds, "chunks", written)
    if written:
        run.fact("chunks: cut and written", f"{written / watched.seconds:.0f} /s", watched.log_mb * MB / written)
    with watching(run.url) as watched:
        with platform.database.connect() as connection:
            lacking = connection.execute(
                "SELECT (SELECT count(DISTINCT input_hash) FROM chunk_input) - (SELECT count(*) FROM embedding)"
            ).fetchone()
        seconds, stored = (0.0, 0)
        if lacking is None or lacking[0] > 0:
            seconds, stored = world.store_vectors(platform, specification, documents)
    phase("vectors into the cache", watched, seconds, "vectors", stored)
    if stored:
        run.fact("vectors into the cache", f"{stored / seconds:.0f} /s", watched.log_mb * MB / stored)
    show(
        f"Load of {documents} documents, {characters / MB:.0f} MB written now; load {os.getloadavg()[0]:.1f}",
        ["step", "made", "seconds", "a second", "this process MB", "server MB", "log MB"],
        rows,
    )
    with platform.database.connect() as connection:
        connection.execute("ANALYZE chunk, chunk_input, chunk_set")
        sizes = cache_sizes(connection)
    assert run.chunks > 0.8 * ROWS
    run.fact("chunks", run.chunks, "")
    if characters:
        run.fact("characters of a chunk", f"{characters / run.chunks:.0f}", "")
    show(
        "What the stages before an index keep",
        ["table", "MB", "bytes a chunk"],
        [[name, round(size / MB, 1), size / run.chunks] for name, size in sizes.items() if name != "index_document"],
    )
    kept = sum(size for name, size in sizes.items() if name != "index_document")
    run.fact("disk: texts, chunks, inputs, cached vectors", f"{kept / MB:.0f} MB", kept / run.chunks)


def _memory(watched: Watched) -> list[str]:
    return ["?" if value is None else f"{value:.0f}" for value in (watched.client, watched.server)]


# --- build -----------------------------------------------------------------------------------------------------------


#: Seconds below which a part is not worth a line.
LEAST = 0.2


def _build(run: Run, name: str, clients: Clients | None = None, searched: str = "") -> None:
    """Build an index over both sources; with clients, they search another index meanwhile."""
    with run.platform.database.dedicated() as connection:
        connection.execute("CHECKPOINT")
    # the small source first: an index shows a source from that source's own refresh on
    refresh_index(run.platform, name, "restricted", "scale")
    with watching(run.url) as watched:
        done = _meanwhile(
            run, clients, searched, f"a build of {name} runs", ["build", str(run.data), run.url, name, "docs"]
        )
    assert done["strategy"] == "new build", done["reason"]
    assert abs(done["rows"] - run.chunks) < 0.02 * run.chunks  # one document in a hundred may have changed since
    load, rows = done["stage"] - done["indexes"], done["rows"]
    recall = done["checks"]["recall_at_10"]
    table = [
        [part, round(seconds, 1), rows / seconds]
        for part, seconds in sorted(watched.parts.items(), key=lambda item: -item[1])
    ]
    beside = " while a client searches" if clients else ""
    show(
        f"{name}: new build of {rows} chunks{beside}; load {os.getloadavg()[0]:.1f}",
        ["part (seen from the server)", "seconds", "rows a second"],
        [
            *(row for row in table if float(row[1]) >= max(LEAST, 0.01 * watched.seconds)),
            ["rows, as the stage counts", round(load, 1), rows / load],
            ["keys, words and graph, as the stage counts", round(done["indexes"], 1), rows / done["indexes"]],
            ["stage together", round(done["stage"], 1), rows / done["stage"]],
            ["checks and publishing", round(done["seconds"] - done["stage"], 1), ""],
        ],
    )
    show(
        f"{name}: memory, log, recall",
        ["", ""],
        [
            ["building process, peak MB", _one(watched.child)],
            ["server, peak MB", _one(watched.server)],
            ["write-ahead log, MB", round(watched.log_mb)],
            ["temporary files, MB", round(watched.temporary_mb)],
            ["publish, ms", round(done["publish_ms"], 1)],
            ["ef_search found", recall["ef_search"]],
            ["recall@10 of the gate", recall["recall"]],
        ],
    )
    with run.platform.database.connect() as connection:
        sizes = build_sizes(connection, done["table"])
        sizes["index_document"] = cache_sizes(connection)["index_document"] // len(run_builds(run))
        vocabulary = connection.execute(
            sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(done["table"].replace("chunks_", "words_")))
        ).fetchone()
    assert vocabulary is not None
    show(
        f"{name}: disk; {vocabulary[0]} distinct words",
        ["part", "MB", "bytes a chunk"],
        [[part, round(size / MB, 1), size / rows] for part, size in sizes.items()],
    )
    started = time.perf_counter()
    with run.platform.database.dedicated() as connection:  # as the server does by itself within minutes
        connection.execute(sql.SQL("VACUUM {}").format(sql.Identifier(done["table"])))
    run.fact(f"{name}: first vacuum", f"{time.perf_counter() - started:.1f} s", "")
    run.fact(f"{name}: rows written", f"{rows / load:.0f} /s", "")
    for part in ("keys", "GIN", "words", "graph"):
        if watched.parts.get(part, 0) > LEAST:
            run.fact(
                f"{name}: {part} built{' beside searches' if clients else ''}",
                f"{rows / watched.parts[part]:.0f} rows/s",
                "",
            )
    run.fact(f"{name}: stage together", f"{done['stage']:.0f} s", "")
    run.fact(f"{name}: checks and publishing", f"{done['seconds'] - done['stage']:.0f} s", "")
    for part, size in sizes.items():
        run.fact(f"{name}: disk, {part}", f"{size / MB:.0f} MB", size / rows)
    run.fact(f"{name}: log of a build", f"{watched.log_mb:.0f} MB", watched.log_mb * MB / rows)
    run.fact(f"{name}: server, peak", f"{_one(watched.server)} MB", "")
    run.fact(f"{name}: building process, peak", f"{_one(watched.child)} MB", "")
    run.fact(f"{name}: ef_search, recall of the gate", f"{recall['ef_search']}, {recall['recall']:.4f}", "")
    run.fact(f"{name}: distinct words", vocabulary[0], "")


def run_builds(run: Run) -> list[int]:
    """The builds there are."""
    with run.platform.database.connect() as connection:
        return [build for (build,) in connection.execute("SELECT build_id FROM index_build WHERE state <> 'dropped'")]


def _one(value: float | None) -> str:
    return "?" if value is None else f"{value:.0f}"


# --- searches ----------------------------------------------------------------------------------------------------------


def _recall(run: Run, name: str, questions: list[world.Question], vectors: np.ndarray) -> None:
    """Recall@10 for vectors of questions, against comparing with every vector; and whether the paragraph is found."""
    index = searcher(run.platform)
    view = index._read_view(name, None)
    asked = range(0, len(questions), max(1, len(questions) // JUDGED))
    found, own = [], 0
    with run.platform.database.connect() as connection:
        for number in asked:
            question, vector = questions[number], vectors[number]
            fast, true = (
                index.search_view(connection, view, question.text, vector, mode="vector", k=10, exact=exact)
                for exact in (None, True)
            )
            limit = true[-1].score - 1e-6
            found.append(sum(hit.score >= limit for hit in fast) / len(true))
            own += any(
                hit.start <= question.character < hit.end and hit.path == f"{question.document:08}.txt" for hit in fast
            )
    run.fact(f"{name}: recall@10 of {len(found)} questions", f"{np.mean(found):.4f}", "")
    run.fact(f"{name}: own paragraph among the ten", f"{own} of {len(found)}", "")
    assert own > 0.5 * len(found)


def _search(run: Run, clients: Clients, index: str, when: str, kinds: list[str], number: int) -> None:
    """Each kind in ``ROUNDS`` parts that take turns, so that what else the machine does meets all alike."""
    for turn in range(ROUNDS):
        for kind in kinds:
            found = clients.ask(index, kind, clients=number, searches=SEARCHES // ROUNDS, warm=not turn)
            run.latencies.setdefault((index, when, kind), []).extend(found)


def _meanwhile(run: Run, clients: Clients | None, index: str, when: str, arguments: list[str]) -> dict[str, Any]:
    """What a writer process reports; clients search for as long as it runs."""
    process = writer(arguments)
    while clients and process.poll() is None:
        for kind in MODES:
            if process.poll() is None:
                # one client: two processors are shared with the writer
                searched = clients.ask(index, kind, searches=IN_A_ROW, warm=False)
                run.latencies.setdefault((index, when, kind), []).extend(searched)
    output, _ = process.communicate()
    assert process.returncode == 0, f"{arguments[0]} failed; its error is above"
    return json.loads(output.strip().splitlines()[-1])


def _report_searches(run: Run) -> None:
    for index in dict.fromkeys(key[0] for key in run.latencies):
        for when in dict.fromkeys(key[1] for key in run.latencies if key[0] == index):
            found = {key[2]: values for key, values in run.latencies.items() if key[:2] == (index, when)}
            base = float(np.percentile(found["vector"], 95)) if "vector" in found else float("nan")
            rows = []
            for kind, values in found.items():
                p50, p95, p99 = (float(np.percentile(values, level)) for level in (50, 95, 99))
                rows.append([kind, len(values), round(p50, 1), round(p95, 1), round(p99, 1), round(p95 / base, 1)])
                run.fact(f"{index}, {when}: {kind}", f"{p50:.1f}, {p95:.1f} ms", round(p95 / base, 1))
            show(
                f"{index}, {when}: milliseconds of a search, k = 10",
                ["search", "searches", "p50", "p95", "p99", "p95 / vector p95"],
                rows,
            )


def _change(run: Run, name: str, when: str, clients: Clients | None = None) -> None:
    """Another text for one document in a hundred, through every stage, in another process."""
    arguments = ["change", str(run.data), run.url, str(run.shared), str(run.documents), name]
    with watching(run.url) as watched:
        done = _meanwhile(run, clients, name, "a publish of 1 % runs", arguments)
    show(
        f"1 % changed, {when}; load {os.getloadavg()[0]:.1f}",
        ["", ""],
        [
            *([step, round(value, 4) if isinstance(value, float) else value] for step, value in done.items()),
            ["write-ahead log, MB", round(watched.log_mb)],
            ["server, peak MB", _one(watched.server)],
        ],
    )
    run.fact(
        f"1 % changed, {when}: chunks, vectors, index",
        f"{done['chunks']:.1f}, {done['vectors']:.1f}, {done['index']:.1f} s",
        "",
    )
    written = done["rows added"] / done["stage"]
    run.fact(f"1 % changed, {when}: rows written, of the stage", f"{written:.0f} /s", "")
    run.fact(f"1 % changed, {when}: rows added, retired", f"{done['rows added']}, {done['rows retired']}", "")
    run.fact(f"1 % changed, {when}: log of a row added", "", watched.log_mb * MB / done["rows added"])
    run.fact(f"1 % changed, {when}: publish", f"{done['publish_ms']:.1f} ms", "")
    run.fact(f"1 % changed, {when}: recall, ef_search", f"{done['recall']:.4f}, {done['ef_search']}", "")


def _nothing_changed(run: Run, name: str) -> None:
    started = time.perf_counter()
    chunk_source(run.platform, "docs")
    chunked = time.perf_counter()
    item = refresh_index(run.platform, name, "docs", "scale")
    assert item.stage is not None
    assert item.stage.strategy == "nothing"
    run.fact("nothing changed: chunks, index", f"{chunked - started:.2f}, {time.perf_counter() - chunked:.2f} s", "")
