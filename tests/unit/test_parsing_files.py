"""Real files of every format: each is parsed or refused for the right reason, and what is parsed holds the gold."""

from collections import Counter
from pathlib import Path

import pytest

from assets.corpus.failures import FAILURES, KilledParse
from assets.corpus.parse_pool import ParsePool, Task
from assets.corpus.parsing import ParsedDocument, format_of, request
from assets.corpus.text import normalise
from resources.source_config import FolderSource
from tests.parsing_gold import manifest, web_pages, word_chapters, workbooks

SOURCE = FolderSource(name="docs", path="docs")

#: What cannot be read of parser-files and malformed-pdf, by format and reason.
REFUSED = {
    "parser-files": {
        ("csv", "empty"): 1, ("csv", "encoding"): 1, ("docx", "empty"): 10, ("eml", "empty"): 1,
        ("eml", "password"): 1, ("pdf", "damaged"): 1, ("pdf", "no_text"): 9, ("pdf", "password"): 9,
        ("pptx", "empty"): 20, ("pptx", "no_text"): 10, ("txt", "empty"): 1, ("xlsx", "empty"): 1,
        ("xlsx", "password"): 1,
    },
    "malformed-pdf": {("pdf", "damaged"): 23, ("pdf", "empty"): 15, ("pdf", "no_text"): 3, ("pdf", "password"): 1},
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("name", "parsed"), [("parser-files", 456), ("malformed-pdf", 52)])
def test_every_real_file_is_parsed_or_refused_for_the_right_reason(
    shared_data: Path, name: str, parsed: int, capfd: pytest.CaptureFixture[str]
) -> None:
    pool = ParsePool()
    rows = list(manifest(shared_data / name))
    futures = []
    for row in rows:
        form = format_of(row["path"])
        assert form is not None
        futures.append(pool.submit(Task(request(form, SOURCE), (shared_data / name / row["path"]).read_bytes())))
    refused: Counter[tuple[str, str]] = Counter()
    for row, future in zip(rows, futures, strict=True):
        outcome = future.result(120)
        assert not isinstance(outcome, KilledParse), (row["path"], outcome)
        if "failed" in outcome:
            code, reason = outcome["failed"]
            assert code in FAILURES
            assert reason
            refused[row["format"], code] += 1
            continue
        document = ParsedDocument.from_json(outcome["document"])
        assert document.text == normalise(document.text)
        assert document.text.strip()
        assert "Tesseract" not in document.text
        assert all(document.text[heading.start] not in "\n " for heading in document.headings)
        starts = [start for _, start in document.metadata.get("pages", [])]
        assert starts == sorted(starts)
        assert all(0 <= start <= len(document.text) for start in starts)
    pool.close()
    assert dict(refused) == REFUSED[name]
    assert len(rows) - refused.total() == parsed
    seen = capfd.readouterr()
    assert seen.out + seen.err == ""


@pytest.mark.slow
def test_word_files_hold_their_gold(shared_data: Path) -> None:
    chapters = word_chapters(shared_data / "docx-book")
    assert len(chapters) == 13
    for chapter in chapters:
        assert chapter.words.precision >= 0.98, chapter
        assert chapter.words.ordered >= 0.95, chapter
        assert chapter.tables_found == chapter.tables, chapter
    wanted = sum(chapter.headings for chapter in chapters)
    assert sum(chapter.headings_found for chapter in chapters) >= 0.96 * wanted
    assert sum(chapter.levels_right for chapter in chapters) >= 0.96 * wanted


@pytest.mark.slow
def test_workbooks_hold_the_values_that_are_displayed(shared_data: Path) -> None:
    #: A torture test of number formats on numbers they were not made for, and a book of macro sheets.
    odd = ("LONumbers", "BlankSheetTypes")
    books = [
        book for book in workbooks(shared_data / "spreadsheets") if not book.name.removeprefix("files/").startswith(odd)
    ]
    for form, equal, same in (("xlsx", 0.96, 0.97), ("xls", 0.94, 0.98)):
        ours = [book for book in books if book.format == form]
        cells = sum(book.cells for book in ours)
        assert sum(book.equal for book in ours) >= equal * cells
        assert sum(book.same_value for book in ours) >= same * cells


@pytest.mark.slow
def test_the_article_of_a_web_page_is_found(shared_data: Path) -> None:
    pages = web_pages(shared_data / "html-main-content")
    assert sum(page.whole.f1 for page in pages) / len(pages) >= 0.94
    assert sum(page.article.f1 for page in pages) / len(pages) >= 0.95
    real = [page for page in pages if page.name in ("wikipedia", "wikipedia-3", "mozilla-2", "firefox-nightly-blog")]
    assert all(page.article.precision >= 0.89 for page in real)
