"""Gold texts for parsers: how much of what a document says is in what was made of it."""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from assets.corpus.failures import ParseFailure
from assets.corpus.parsing import ParseSettings, format_of, parse

_WORD = re.compile(r"\w+")
_MARKUP = re.compile(r"\]\([^)\s]*\)|<[^<>]*>|^\|(?: --- \|)+$|\\(?=[|#])", re.MULTILINE)


@dataclass(frozen=True)
class Similarity:
    """Overlap of words as multisets, and of runs of three words, which only text in the right order shares.

    Attributes:
        precision: share of the parsed words that the gold has.
        recall: share of the gold's words that were parsed.
        ordered: share of the parsed runs of three words that the gold has.
    """

    precision: float
    recall: float
    ordered: float

    @property
    def f1(self) -> float:
        total = self.precision + self.recall
        return 2 * self.precision * self.recall / total if total else 0.0


def similarity(parsed: str, gold: str) -> Similarity:
    """Compare two texts without their markup."""
    left, right = (_WORD.findall(_MARKUP.sub(" ", text).lower()) for text in (parsed, gold))

    def runs(words: Sequence[str], length: int) -> Counter[tuple[str, ...]]:
        return Counter(zip(*(words[start:] for start in range(length)), strict=False))

    def share(of: Counter[tuple[str, ...]], others: Counter[tuple[str, ...]]) -> float:
        return (of & others).total() / of.total() if of else 1.0

    return Similarity(
        share(runs(left, 1), runs(right, 1)), share(runs(right, 1), runs(left, 1)), share(runs(left, 3), runs(right, 3))
    )


def headings(markdown: str) -> list[tuple[int, str]]:
    """Level and plain words of the ATX headings outside of fenced code."""
    bare = re.sub(r"^(`{3,}|~{3,}).*?^\1[ \t]*$", "", markdown, flags=re.DOTALL | re.MULTILINE)
    found = re.findall(r"^(#{1,6})[ \t]+(.*)$", bare, re.MULTILINE)
    return [(len(marks), " ".join(_WORD.findall(title.lower()))) for marks, title in found]


def manifest(folder: Path) -> Iterator[dict]:
    """The rows of a data set's manifest."""
    with (folder / "manifest.jsonl").open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def parsed_text(path: Path, settings: ParseSettings | None = None) -> str:
    """Normalised text of a file; empty where it is refused."""
    form = format_of(path.name)
    assert form is not None
    try:
        return parse(path.read_bytes(), form, settings or ParseSettings(language="und")).text
    except ParseFailure:
        return ""


@dataclass(frozen=True)
class Chapter:
    """A Word file against its Markdown."""

    name: str
    words: Similarity
    headings: int
    headings_found: int
    levels_right: int
    tables: int
    tables_found: int


def word_chapters(folder: Path) -> list[Chapter]:
    """All chapters of docx-book."""
    chapters = []
    for row in manifest(folder):
        parsed = parsed_text(folder / row["docx"])
        gold = (folder / row["gold"]).read_text(encoding="utf-8")
        wanted, found = headings(gold), headings(parsed)
        by_title = {title: level for level, title in found}
        chapters.append(
            Chapter(
                row["name"],
                similarity(parsed, gold),
                len(wanted),
                sum(title in by_title for _, title in wanted),
                sum(by_title.get(title) == level for level, title in wanted),
                row["tables"],
                len(re.findall(r"^\|(?: --- \|)+$", parsed, re.MULTILINE)),
            )
        )
    return chapters


@dataclass(frozen=True)
class Workbook:
    """Cells of a workbook against the CSV files Excel wrote: equal as text, or at least equal as a value."""

    name: str
    format: str
    cells: int
    equal: int
    same_value: int


def workbooks(folder: Path) -> list[Workbook]:
    """All workbooks of spreadsheets."""
    results = []
    for row in manifest(folder):
        parsed = parsed_text(folder / row["path"])
        have = Counter(
            cell.replace("\\|", "|").strip()
            for line in parsed.split("\n")
            if line.startswith("|")
            for cell in re.split(r"(?<!\\)\|", line)[1:-1]
        )
        wanted: Counter[str] = Counter()
        for name in row["expected"]:
            text = _decoded((folder / name).read_bytes())
            wanted.update(
                " ".join(cell.split()) for line in csv.reader(io.StringIO(text)) for cell in line if cell.strip()
            )
        # Excel writes ### where a column is too narrow, and _ for what its code page lacks: no parser can find those.
        wanted = Counter({cell: count for cell, count in wanted.items() if not re.search(r"^#+$|_", cell)})
        equal = (have & wanted).total()
        values_have, values_wanted = (
            Counter(key for cell, count in cells.items() for key in [_value(cell)] * count) for cells in (have, wanted)
        )
        results.append(
            Workbook(row["path"], row["format"], wanted.total(), equal, (values_have & values_wanted).total())
        )
    return results


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def _value(cell: str) -> str:
    """A cell as a value: numbers without grouping, currency and rounding, dates as ISO dates."""
    date = re.fullmatch(r"(\d{1,2})/(\d{1,2})/(\d{2})(.*)", cell)
    if date:
        return f"20{date[3]}-{int(date[1]):02}-{int(date[2]):02}"
    if re.match(r"\d{4}-\d\d-\d\d\b", cell):
        return cell[:10]
    bare = re.sub(r"[$€£,\s]", "", cell)
    percent = bare.endswith("%")
    try:
        return f"{float(bare.rstrip('%')) / (100 if percent else 1):.4g}"
    except ValueError:
        return cell.casefold()


@dataclass(frozen=True)
class WebPage:
    """A web page against its expected article: whole as parsed by default, and as main content."""

    name: str
    whole: Similarity
    article: Similarity


def web_pages(folder: Path) -> list[WebPage]:
    """All pages of html-main-content."""
    import lxml.html

    pages = []
    for row in manifest(folder):
        source = folder / row["dir"] / "source.html"
        gold = str(
            lxml.html.fromstring((folder / row["dir"] / "expected.html").read_text(encoding="utf-8")).text_content()
        )
        pages.append(
            WebPage(
                row["name"],
                similarity(parsed_text(source), gold),
                similarity(parsed_text(source, ParseSettings(language="und", main_content=True)), gold),
            )
        )
    return pages
