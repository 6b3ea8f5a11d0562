"""Megabytes per second of one core: parsing and chunking, beside the bare libraries.

Prints the table of time in docs/parsing.md; test_chunking_eval.py has the kinds of chunkers. Seconds are seconds of
processors, of all threads and of the parser processes too, so that other load on the machine changes them little; each
is the best of three passes.
"""

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from assets.chunks.chunkers import chunk_text
from assets.corpus.failures import ParseFailure
from assets.corpus.parse_pool import ParsePool, Task
from assets.corpus.parsing import Format, ParseSettings, format_of, parse, request
from resources.chunker_config import chunker_config
from resources.source_config import FolderSource
from tests.benchmarks.measuring import show
from tests.benchmarks.peers import load
from tests.histories import start

PASSES = 3
SIZE = 1_000
SETTINGS = ParseSettings(language="en")
SOURCE = FolderSource(name="docs", path="docs", language="en")
CHUNKER = chunker_config(kind="recursive", unit="characters", size=SIZE)

#: A file's bytes and its format.
Document = tuple[bytes, Format]


@pytest.fixture(autouse=True)
def frozen() -> Iterator[None]:
    """The libraries of the test session are not looked through for garbage, as in a step process (pipelines/preload.py)."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.benchmark
def test_parsing_and_chunking_beside_kreuzberg_and_langchain(shared_data: Path, tmp_path: Path) -> None:
    from langchain_text_splitters import RecursiveCharacterTextSplitter

    splitter = RecursiveCharacterTextSplitter(chunk_size=SIZE, chunk_overlap=0)
    rows: list[tuple[Any, ...]] = []
    for name, documents in _families(shared_data, tmp_path).items():
        size = sum(len(data) for data, _ in documents) / 1e6

        def theirs(documents: Sequence[Document] = documents) -> list[str]:
            return [_bare(data, form) for data, form in documents]

        def ours(documents: Sequence[Document] = documents) -> list[str]:
            return [_own(data, form) for data, form in documents]

        read, known = theirs(), ours()
        bare, own = _seconds(theirs), _seconds(ours)
        bare_cut = _seconds(lambda read=read: [splitter.split_text(text) for text in read])
        own_cut = _seconds(lambda known=known: [chunk_text(text, CHUNKER) for text in known])
        pooled = _pooled(documents)
        rows.append(
            (
                name, len(documents), size, size / bare, size / own, own / bare, size / pooled[0], size / pooled[1],
                size / (bare + bare_cut), size / (own + own_cut), (own + own_cut) / (bare + bare_cut),
            )
        )  # fmt: skip
        assert sum(map(len, known)) > 0.5 * sum(map(len, read)), "much less text than the bare library finds"
    show(
        f"MB of files per second of a core, chunks of {SIZE} characters; {load()}",
        (
            "files", "number", "MB", "kreuzberg", "ours", "time ratio", "pool, per core", "pool of 2, wall",
            "kreuzberg + langchain", "ours, parsed and cut", "time ratio",
        ),
        rows,
    )  # fmt: skip


def _families(shared_data: Path, tmp_path: Path) -> dict[str, list[Document]]:
    files = shared_data / "parser-files" / "files"
    start(shared_data / "peps-history", tmp_path / "peps")
    paths: dict[str, list[Path]] = {
        "Markdown, text, rst": [
            *sorted((shared_data / "rust-book-history" / "base").rglob("*.md")),
            *sorted((tmp_path / "peps").rglob("*.rst"))[:200],
        ],
        "HTML": [*sorted(files.rglob("*.html")), *sorted((shared_data / "html-main-content").rglob("source.html"))],
        "DOCX": [*sorted((shared_data / "docx-book" / "docx").glob("*.docx")), *sorted(files.rglob("*.docx"))],
        "PDF": sorted(files.rglob("*.pdf")),
        "PPTX": sorted(files.rglob("*.pptx")),
        "XLSX": [*sorted((shared_data / "spreadsheets").rglob("*.xlsx")), *sorted(files.rglob("*.xlsx"))],
        "CSV": sorted(files.rglob("*.csv")),
    }
    return {
        name: [(path.read_bytes(), form) for path in found if (form := format_of(path.name))]
        for name, found in paths.items()
    }


def _bare(data: bytes, form: Format) -> str:
    """kreuzberg alone, as its documentation shows it; only its cache and OCR are off."""
    from kreuzberg import ExtractionConfig, KreuzbergError, extract_bytes_sync

    try:
        options: dict[str, Any] = {"use_cache": False, "disable_ocr": True, "output_format": "markdown"}
        return extract_bytes_sync(data, form.media_type, config=ExtractionConfig(**options)).content
    except KreuzbergError:
        return ""


def _own(data: bytes, form: Format) -> str:
    try:
        return parse(data, form, SETTINGS).text
    except ParseFailure:
        return ""


def _seconds(work: Callable[[], object]) -> float:
    passes = []
    for _ in range(PASSES):
        started = time.process_time()
        work()
        passes.append(time.process_time() - started)
    return min(passes)


def _pooled(documents: Sequence[Document]) -> tuple[float, float]:
    """Seconds of processors, in this process and in the parsers, and of wall with two parsers, once they are warm."""
    import psutil

    pool = ParsePool(size=2)
    tasks = [Task(request(form, SOURCE), data) for data, form in documents]

    def work() -> None:
        for future in [pool.submit(task) for task in tasks]:
            future.result(300)

    def spent() -> float:
        return sum(sum(psutil.Process(pid).cpu_times()[:2]) for pid in pool.process_ids)

    try:
        work()
        processor, wall = [], []
        for _ in range(PASSES):
            before = spent()
            started, here = time.perf_counter(), time.process_time()
            work()
            wall.append(time.perf_counter() - started)
            processor.append(time.process_time() - here + spent() - before)
        return min(processor), min(wall)
    finally:
        pool.close()
