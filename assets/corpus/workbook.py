"""Workbooks: the sheets of an XLSX file as headed Markdown tables.

Belongs here: cells, shared strings, and number formats of SpreadsheetML: values as a reader of the sheet sees them.
Does not belong here: the package (office_xml.py), limits (archives.py), older formats (parsing.py).

A date stored as 41796 says nothing to a reader, nor does 0.45 shown as 45 %: the common number formats are applied,
and a value under a format that is not understood stays as it is stored. Hidden sheets are read like the others, since
formulas of the visible ones rest on them, and named in the metadata.
"""

import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation
from functools import lru_cache
from typing import Any

from assets.corpus.failures import ParseFailure
from assets.corpus.office_xml import (
    attribute,
    child,
    children,
    core_properties,
    local,
    part_of_kind,
    read_part,
    related,
)
from assets.corpus.tables import to_markdown

#: Number formats that files refer to without stating them (ECMA-376 part 1, 18.8.30).
_BUILT_IN = {
    1: "0", 2: "0.00", 3: "#,##0", 4: "#,##0.00", 9: "0%", 10: "0.00%", 11: "0.00E+00", 12: "# ?/?", 13: "# ??/??",
    14: "m/d/yy", 15: "d-mmm-yy", 16: "d-mmm", 17: "mmm-yy", 18: "h:mm AM/PM", 19: "h:mm:ss AM/PM", 20: "h:mm",
    21: "h:mm:ss", 22: "m/d/yy h:mm", 37: "#,##0 ;(#,##0)", 38: "#,##0 ;(#,##0)", 39: "#,##0.00;(#,##0.00)",
    40: "#,##0.00;(#,##0.00)", 45: "mm:ss", 46: "[h]:mm:ss", 47: "mm:ss.0", 48: "##0.0E+0", 49: "@",
}  # fmt: skip
_CELL = re.compile(r"\$?([A-Z]{1,3})\$?(\d{1,7})")
_ESCAPED = re.compile(r"_x([0-9A-Fa-f]{4})_")
_QUOTED = re.compile(r'"([^"]*)"|\\(.)|_.|\*.|\[\$([^\]-]*)[^\]]*\]|\[[^\]]*\]')
_DATE_PART = re.compile(r"[ymdhsYMDHS]")
#: Text of a workbook beyond this many cells helps nobody and would not fit a text column.
MAXIMUM_CELLS = 5_000_000
_WIDEST_GAP = 64
#: Stand for the quoted parts of a number format while it is taken apart.
_LITERAL = 0xE000
_LITERALS = re.compile("[\ue000-\ue400]")


@dataclass(frozen=True)
class Sheet:
    """A sheet: ``rows`` of displayed values."""

    name: str
    rows: list[list[str]] = field(repr=False)


def read_workbook(archive: zipfile.ZipFile) -> tuple[str, dict[str, Any]]:
    """The sheets of an XLSX file as Markdown, and facts about it.

    Raises:
        ParseFailure: ``damaged`` or ``too_large_inside``.
    """
    sheets, hidden = read_sheets(archive)
    parts = [f"## {sheet.name}\n\n{table}" for sheet in sheets if (table := to_markdown(sheet.rows))]
    facts = core_properties(archive) | {"sheet_names": [sheet.name for sheet in sheets]}
    return "\n\n".join(parts), facts | ({"hidden_sheets": hidden} if hidden else {})


def read_sheets(archive: zipfile.ZipFile) -> tuple[list[Sheet], list[str]]:
    """The sheets in their order, and the names of the hidden ones.

    Raises:
        ParseFailure: ``damaged`` or ``too_large_inside``.
    """
    main = part_of_kind(related(archive, ""), "officeDocument") or "xl/workbook.xml"
    workbook = read_part(archive, main)
    if child(workbook, "sheets") is None:
        raise ParseFailure("damaged", "no list of sheets in the workbook")
    relations = related(archive, main)
    reader = _Reader(
        _shared_strings(archive, part_of_kind(relations, "sharedStrings")),
        *_formats(archive, part_of_kind(relations, "styles")),
        from_1904=attribute(child(workbook, "workbookPr"), "date1904") in ("1", "true"),
    )
    sheets, hidden = [], []
    for item in children(child(workbook, "sheets"), "sheet"):
        name = " ".join((attribute(item, "name") or "Sheet").split())
        kind, path = relations.get(attribute(item, "id") or "", ("", ""))
        if kind != "worksheet":
            continue  # charts and old macro sheets have no cells to read
        if attribute(item, "state") in ("hidden", "veryHidden"):
            hidden.append(name)
        tree = read_part(archive, path)
        if tree is not None:
            sheets.append(Sheet(name, list(reader.rows(tree))))
    return sheets, hidden


def _shared_strings(archive: zipfile.ZipFile, path: str | None) -> list[str]:
    tree = read_part(archive, path) if path else None
    return [_text(item) for item in children(tree, "si")]


def _text(item: Any) -> str:
    """Text of a string item: of its runs, without phonetic hints."""
    parts = []
    for part in item:
        if local(part) == "t":
            parts.append(part.text or "")
        elif local(part) == "r":
            parts += [run.text or "" for run in children(part, "t")]
    return _unescape("".join(parts))


def _unescape(text: str) -> str:
    """``_x000D_`` stands for a character that XML cannot hold."""
    return _ESCAPED.sub(lambda match: chr(int(match[1], 16)), text) if "_x" in text else text


def _formats(archive: zipfile.ZipFile, path: str | None) -> tuple[list[int], dict[int, str]]:
    """Number format of every cell style, and the formats the file states."""
    tree = read_part(archive, path) if path else None
    stated = {}
    for item in children(child(tree, "numFmts"), "numFmt"):
        number = attribute(item, "numFmtId") or ""
        if number.isdigit():
            stated[int(number)] = attribute(item, "formatCode") or "General"
    styles = []
    for item in children(child(tree, "cellXfs"), "xf"):
        number = attribute(item, "numFmtId") or "0"
        styles.append(int(number) if number.isdigit() else 0)
    return styles, stated


class _Reader:
    def __init__(self, strings: list[str], styles: list[int], formats: dict[int, str], *, from_1904: bool) -> None:
        self._strings = strings
        self._styles = styles
        self._formats = formats
        self._epoch = datetime(1904, 1, 1) if from_1904 else datetime(1899, 12, 30)
        self._cells = 0

    def rows(self, sheet: Any) -> Iterator[list[str]]:
        """Rows with something in them; a cell stands at its column, but no gap is wider than some columns."""
        taken: list[tuple[int, str]]
        rows: list[list[tuple[int, str]]] = []
        columns: set[int] = set()
        for row in children(child(sheet, "sheetData"), "row"):
            taken, following = [], 0
            for cell in children(row, "c"):
                match = _CELL.fullmatch(attribute(cell, "r") or "")
                column = _column(match[1]) if match else following
                following = column + 1
                value = self._value(cell)
                if value.strip():
                    taken.append((column, value))
                    columns.add(column)
                    self._cells += 1
                    if self._cells > MAXIMUM_CELLS:
                        raise ParseFailure("too_large_inside", f"more than {MAXIMUM_CELLS:,} cells with a value")
            if taken:
                rows.append(taken)
        place, position, before = {}, -1, -1
        for column in sorted(columns):  # columns empty in every row count up to a bound only
            position += min(column - before, _WIDEST_GAP) if before >= 0 else 1
            place[column], before = position, column
        for taken in rows:
            cells = [""] * (max(place[column] for column, _ in taken) + 1)
            for column, value in taken:
                cells[place[column]] = value
            yield cells

    def _value(self, cell: Any) -> str:
        kind = attribute(cell, "t") or "n"
        if kind == "inlineStr":
            inline = child(cell, "is")
            return _text(inline) if inline is not None else ""
        raw = child(cell, "v")
        text = (raw.text or "") if raw is not None else ""
        if kind == "s":
            return self._strings[int(text)] if text.isdigit() and int(text) < len(self._strings) else ""
        if kind == "b":
            return {"1": "TRUE", "0": "FALSE"}.get(text.strip(), text)
        if kind in ("str", "e"):
            return _unescape(text)
        if kind == "d":
            return text.replace("T00:00:00", "").replace("T", " ")
        return self._number(text.strip(), attribute(cell, "s"))

    def _number(self, text: str, style: str | None) -> str:
        number = int(style) if style and style.isdigit() else 0
        identity = self._styles[number] if number < len(self._styles) else 0
        form = self._formats.get(identity) or _BUILT_IN.get(identity, "General")
        return display(text, form, self._epoch)


def _column(letters: str) -> int:
    number = 0
    for letter in letters:
        number = number * 26 + ord(letter) - 64
    return number - 1


@dataclass(frozen=True)
class _Format:
    """A section of a number format that is understood."""

    kind: str  # number, date, text
    prefix: str = ""
    suffix: str = ""
    decimals: int = 0
    integers: int = 0
    grouped: bool = False
    percent: bool = False
    scale: int = 0
    optional: int = 0  # decimals shown only where not zero
    date: bool = False
    time: bool = False
    seconds: bool = False
    elapsed: bool = False


def display(text: str, form: str, epoch: datetime = datetime(1899, 12, 30)) -> str:
    """A stored number as a reader sees it.

    Dates are written as ISO dates whatever their order in the sheet, so that they mean the same everywhere.

    Args:
        text: the number as stored.
        form: a number format code such as ``#,##0.00`` or ``d.m.yyyy``.
        epoch: day 0 of the workbook.

    Returns:
        The displayed value; the number itself, in its shortest form, where the format is not understood.
    """
    try:
        value = Decimal(text)
    except InvalidOperation:
        return text
    if not value.is_finite():
        return text
    sections = _sections(form)
    section = sections[0]
    negated = False
    if value < 0 and len(sections) > 1:
        section, negated = sections[1], True
    elif value == 0 and len(sections) > 2:
        section = sections[2]
    found = _understand(section)
    if found is None:
        return _plain(value)
    if found.kind == "date":
        return _date(float(value), found, epoch) or _plain(value)
    return _formatted(abs(value) if negated else value, found)


@lru_cache(maxsize=4_096)
def _sections(form: str) -> tuple[str, ...]:
    parts, current, quoted = [], "", False
    for character in form:
        quoted ^= character == '"'
        if character == ";" and not quoted and not current.endswith("\\"):
            parts.append(current)
            current = ""
        else:
            current += character
    return (*parts, current)


@lru_cache(maxsize=4_096)
def _understand(section: str) -> _Format | None:
    """The meaning of one section of a format; None: show the value as stored."""
    if section.strip().lower() in ("", "general", "@") or re.search(r"\[[<>=]", section):
        return None
    literals: list[str] = []

    def keep(match: re.Match[str]) -> str:
        literal = match[1] if match[1] is not None else match[2] if match[2] is not None else match[3] or ""
        if match[0].startswith(("_", "*")) or (match[0].startswith("[") and match[3] is None):
            return "[e]" if re.fullmatch(r"\[[hms]+\]", match[0], re.IGNORECASE) else ""
        literals.append(literal)
        return chr(_LITERAL + len(literals) - 1)  # no character of a format

    bare = _QUOTED.sub(keep, section)
    if len(literals) > 1_000:
        return None
    numbers = _LITERALS.sub("", bare)
    if "general" in numbers.lower():
        return None
    if "[e]" in numbers or _DATE_PART.search(numbers.replace("E+", "").replace("E-", "")):
        lowered = re.sub(r"am/pm|a/p", "", numbers.lower())
        time_part = "h" in lowered or "s" in lowered or "[e]" in lowered
        date_part = "y" in lowered or "d" in lowered or ("m" in lowered and not time_part)
        return _Format("date", date=date_part, time=time_part, seconds="s" in lowered, elapsed="[e]" in lowered)
    match = re.search(r"[#0?][#0?,.]*|\.[#0?]+", bare)
    if not match or "E" in numbers or "/" in numbers:
        return None
    tail = _LITERALS.sub("", bare[match.end() :])
    if re.search(r"[#0?]", tail):
        return None  # digits around literals, as in telephone numbers
    whole, _, fraction = match[0].partition(".")
    scale = len(whole) - len(whole.rstrip(",")) if not fraction else len(fraction) - len(fraction.rstrip(","))
    whole, fraction = whole.rstrip(","), fraction.rstrip(",")

    def literal_text(part: str) -> str:
        return _LITERALS.sub(lambda found: literals[ord(found[0]) - _LITERAL], part)

    return _Format(
        "number",
        prefix=literal_text(bare[: match.start()]),
        suffix=literal_text(bare[match.end() :]),
        decimals=sum(fraction.count(mark) for mark in "0#?"),
        optional=len(fraction) - len(fraction.rstrip("#?")),
        integers=whole.count("0"),
        grouped="," in whole,
        percent="%" in numbers,
        scale=scale,
    )


def _formatted(value: Decimal, form: _Format) -> str:
    if form.percent:
        value *= 100
    value = value.scaleb(-3 * form.scale)
    if form.decimals > 30 or abs(value) >= Decimal(10) ** 28:
        return _plain(value)
    try:
        rounded = abs(value).quantize(Decimal(1).scaleb(-form.decimals), rounding=ROUND_HALF_UP)
    except InvalidOperation:
        return _plain(value)
    whole, _, fraction = f"{rounded:f}".partition(".")
    if form.optional:
        kept = fraction[: len(fraction) - form.optional]
        fraction = kept + fraction[len(kept) :].rstrip("0")
    whole = whole.lstrip("0").rjust(form.integers, "0")
    if form.grouped and whole:
        whole = f"{int(whole):,}".rjust(len(whole), "0") if form.integers <= 1 else f"{int(whole):,}"
    sign = "-" if value < 0 and rounded != 0 else ""
    number = f"{whole}.{fraction}" if fraction else whole
    return f"{sign}{form.prefix}{number}{form.suffix}".strip()


def _plain(value: Decimal) -> str:
    """As Excel shows a number under General: in at most eleven characters."""
    size = abs(value)
    if value == value.to_integral_value() and size < Decimal(10) ** 15:
        return f"{value.to_integral_value():f}"
    if not Decimal("1e-9") <= size < Decimal(10) ** 11:
        return f"{float(value):.5E}"
    text = f"{float(value):.{max(0, 10 - len(str(int(size))) if size >= 1 else 9)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _date(value: float, form: _Format, epoch: datetime) -> str | None:
    if not -1 < value < 2_958_466:  # Excel ends with the year 9999
        return None
    if form.elapsed:
        seconds = round(value * 86_400)
        text = f"{seconds // 3600}:{seconds // 60 % 60:02}"
        return f"{text}:{seconds % 60:02}" if form.seconds else text
    try:
        moment = epoch + timedelta(seconds=round(value * 86_400))
    except OverflowError:
        return None
    clock = moment.strftime("%H:%M:%S" if form.seconds else "%H:%M")
    if not form.date:
        return clock
    return f"{moment:%Y-%m-%d} {clock}" if form.time else f"{moment:%Y-%m-%d}"
