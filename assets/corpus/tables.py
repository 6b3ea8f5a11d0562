"""Tables: rows of cells as a Markdown table, and separated values as rows.

Belongs here: the one way in which tables are written into texts.
Does not belong here: finding tables in documents (word.py, workbook.py, pdf.py).
"""

import csv
import re
import sys
from collections.abc import Sequence

from assets.corpus.failures import ParseFailure

_SPACE = re.compile(r"\s+")


def to_markdown(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose header is the first row; empty rows and empty outer columns are left out.

    Cells are one line each: ``|`` is escaped, line breaks become spaces.
    """
    cleaned = [[_cell(cell) for cell in row] for row in rows]
    cleaned = [row for row in cleaned if any(row)]
    if not cleaned:
        return ""
    first = min(next(number for number, cell in enumerate(row) if cell) for row in cleaned)
    last = max(max(number for number, cell in enumerate(row) if cell) for row in cleaned) + 1
    width = last - first
    lines = []
    for number, row in enumerate(cleaned):
        cells = row[first:last]
        lines.append("| " + " | ".join([*cells, *[""] * (width - len(cells))]) + " |")
        if number == 0:
            lines.append("| " + " | ".join(["---"] * width) + " |")
    return "\n".join(lines)


def from_separated(text: str, separator: str | None = None) -> list[list[str]]:
    """Rows of a text of separated values; without ``separator`` the most even of comma, semicolon, tab and bar is used.

    Raises:
        ParseFailure: ``damaged``: it cannot be read as rows.
    """
    lines = [line for line in text[:64_000].splitlines()[:200] if line.strip()]
    csv.field_size_limit(min(sys.maxsize, 1 << 30))
    try:
        return list(csv.reader(text.splitlines(keepends=True), delimiter=separator or _separator(lines)))
    except csv.Error as error:
        raise ParseFailure("damaged", "cannot be read as separated values") from error


def _separator(lines: Sequence[str]) -> str:
    """What cuts most lines into the same number of cells, more than one."""

    def evenness(separator: str) -> tuple[float, int]:
        widths = [len(row) for row in csv.reader(lines, delimiter=separator)]
        usual = max(set(widths), key=lambda width: (widths.count(width), width), default=1)
        return (widths.count(usual) / len(widths) if usual > 1 else 0.0, usual)

    return max(",;\t|", key=lambda separator: (*evenness(separator), -",;\t|".index(separator))) if lines else ","


def _cell(text: str) -> str:
    return _SPACE.sub(" ", text).strip().replace("|", "\\|")
