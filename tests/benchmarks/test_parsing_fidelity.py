"""Parsing: how much of the gold is kept, against kreuzberg alone.

Prints the tables of docs/parsing.md.
"""

import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from assets.corpus.failures import KilledParse
from assets.corpus.parse_pool import ParsePool, Task
from assets.corpus.parsing import Format, format_of, request
from assets.corpus.text import detect_language
from resources.source_config import FolderSource
from tests.benchmarks.measuring import show
from tests.parsing_gold import headings, manifest, similarity, web_pages, word_chapters, workbooks

SOURCE = FolderSource(name="docs", path="docs")


def _bare(data: bytes, form: Format) -> str:
    """kreuzberg alone, as its documentation shows it; only its cache and OCR are off."""
    from kreuzberg import ExtractionConfig, KreuzbergError, extract_bytes_sync

    try:
        options: dict[str, Any] = {"use_cache": False, "disable_ocr": True, "output_format": "markdown"}
        config = ExtractionConfig(**options)
        return extract_bytes_sync(data, form.media_type, config=config).content
    except KreuzbergError:
        return ""


@pytest.mark.benchmark
def test_every_file_ends_parsed_or_with_a_reason(shared_data: Path) -> None:
    pool = ParsePool()
    counts: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for name in ("parser-files", "malformed-pdf"):
        futures = []
        for row in manifest(shared_data / name):
            form = format_of(row["path"])
            assert form is not None
            task = Task(request(form, SOURCE), (shared_data / name / row["path"]).read_bytes())
            futures.append((row["format"], pool.submit(task)))
        for form_name, future in futures:
            outcome = future.result(120)
            code = outcome.code if isinstance(outcome, KilledParse) else outcome.get("failed", ["parsed"])[0]
            counts[name, form_name][code] += 1
    pool.close()
    codes = sorted({code for counter in counts.values() for code in counter} - {"parsed"})
    rows = [
        (name, form_name, counter.total(), counter["parsed"], *(counter[code] for code in codes))
        for (name, form_name), counter in sorted(counts.items())
    ]
    show("files by outcome", ("data", "format", "files", "parsed", *codes), rows)
    assert sum(counter.total() for counter in counts.values()) == 616


@pytest.mark.benchmark
def test_word_files_against_their_gold(shared_data: Path) -> None:
    folder = shared_data / "docx-book"
    ours = word_chapters(folder)
    rows = []
    for chapter, row in zip(ours, manifest(folder), strict=True):
        form = format_of(row["docx"])
        assert form is not None
        gold = (folder / row["gold"]).read_text(encoding="utf-8")
        markdown = _bare((folder / row["docx"]).read_bytes(), form)
        theirs, found = similarity(markdown, gold), {title for _, title in headings(markdown)}
        rows.append(
            (
                chapter.name,
                chapter.words.precision, theirs.precision, chapter.words.recall, theirs.recall,
                chapter.words.ordered, theirs.ordered,
                f"{chapter.headings_found}/{chapter.headings}",
                f"{sum(title in found for _, title in headings(gold))}/{chapter.headings}",
                f"{chapter.tables_found}/{chapter.tables}",
            )
        )  # fmt: skip
    show(
        "docx-book: share of our words in the gold, of the gold's in ours, of runs of three words; then kreuzberg's",
        ("chapter", "words", "kreuzberg", "gold", "kreuzberg", "runs", "kreuzberg", "headings", "kreuzberg", "tables"),
        rows,
    )
    assert sum(chapter.words.precision for chapter in ours) / len(ours) > 0.98


@pytest.mark.benchmark
def test_workbooks_against_what_excel_saved(shared_data: Path) -> None:
    books = workbooks(shared_data / "spreadsheets")
    rows = []
    for form in ("xls", "xlsx", "xlsm"):
        for label, odd in (("ordinary", False), ("torture tests", True)):
            some = [
                book for book in books
                if book.format == form and any(word in book.name for word in ("LONumbers", "BlankSheet")) is odd
            ]  # fmt: skip
            cells = sum(book.cells for book in some)
            if cells:
                equal, same = (sum(getattr(book, name) for book in some) / cells for name in ("equal", "same_value"))
                rows.append((form, label, len(some), cells, equal, same))
    show("spreadsheets: cells as displayed", ("format", "kind", "books", "cells", "equal text", "equal value"), rows)
    assert rows


@pytest.mark.benchmark
def test_web_pages_against_their_articles(shared_data: Path) -> None:
    pages = web_pages(shared_data / "html-main-content")
    rows: list[tuple[Any, ...]] = [(page.name, page.whole.f1, page.article.f1, page.article.ordered) for page in pages]
    count = len(rows)
    means = [sum(figures) / count for figures in zip(*(row[1:] for row in rows), strict=True)]
    rows.append(("mean", *means))
    show("html-main-content: F1 of words", ("page", "whole page", "main content", "runs of three"), rows)
    assert count == 22


@pytest.mark.benchmark
def test_languages_are_told_of_long_and_short_texts(shared_data: Path) -> None:
    import json

    def read(name: str, key: str) -> list[tuple[str, str]]:
        lines = (shared_data / "xquad" / name).read_text(encoding="utf-8").splitlines()
        return [(row["lang"], row[key]) for row in map(json.loads, lines)]

    paragraphs, questions = read("paragraphs.jsonl", "text"), read("questions.jsonl", "question")
    rows = []
    for name, texts in (
        ("paragraphs", paragraphs),
        ("their first 100 characters", [(language, text[:100]) for language, text in paragraphs]),
        ("questions", questions),
    ):
        started = time.perf_counter()
        told = [(language, detect_language(text)) for language, text in texts]
        each = (time.perf_counter() - started) / len(texts) * 1e6
        right = sum(language == found for language, found in told) / len(told)
        wrong = sum(found is not None and language != found for language, found in told) / len(told)
        rows.append((name, len(texts), right, wrong, 1 - right - wrong, each))
    show("xquad, 8 languages", ("texts", "number", "right", "wrong", "left open", "µs each"), rows)
    assert all(row[2] > 0.95 for row in rows)
