"""Structure: the blocks of a text, and how little it costs to cut before each of their lines.

Belongs here: sections, paragraphs, lists, tables, quotations and fenced code of Markdown and reStructuredText, found
in one pass over the lines; code itself is read by code_structure.py.
Does not belong here: choosing cuts for a size (packing.py).
"""

import re
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import NamedTuple

from assets.chunks.code_structure import code_cuts
from assets.corpus.headings import Heading, Outline, plain

#: Levels of cuts, best first. Before 6: headings by their level.
HEADINGS = 6
BLOCK = 6
#: Items of a list, rows of a table, what a line ending in a colon introduces, outermost definitions of code.
ITEM = 7
#: Nested items; code: parts between blank lines, inner definitions and so on, see code_structure.py.
NESTED = 9
LINE = 13
#: After sentences: a heading right below another one.
SUBHEADING = 14
LEVELS = 15

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})(.*)")
_ITEM = re.compile(r"([ \t]*)(?:[-*+•‣◦]|\d{1,9}[.)]|[a-zA-Z][.)])[ \t]+\S")
_DELIMITER = re.compile(r"[ \t]{0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*")
_GRID = re.compile(r"[ \t]*\+[-=+]{2,}\+[ \t]*")
_GRID_HEADER_END = re.compile(r"[ \t]*\+[=+]{2,}\+[ \t]*")
_ADORNMENT = re.compile(r"[ \t]*([=\-~^\"'`#*+.:_])\1{2,}[ \t]*")
_CELL = re.compile(r"(?<!\\)\|")
_LINE_END = ".!?:;。！？؟।…"
#: Of the header of a wide table only the beginning is repeated for its later parts.
_HEADER_CHARACTERS = 300
#: A line is looked at no further than this to tell what it begins.
_LOOK = 2_000


class Table(NamedTuple):
    """A table; ``body`` is where its second row begins: a chunk from there on lacks the header."""

    start: int
    end: int
    body: int
    header: str


@dataclass
class Structure:
    """Where cuts cost little.

    Attributes:
        cuts: per level the positions before which to cut, in order.
        tables: in order.
        code: ranges of code, in order.
        definitions: of code, as headings: a class and the functions in it.
    """

    cuts: list[list[int]] = field(default_factory=lambda: [[] for _ in range(LEVELS)])
    tables: list[Table] = field(default_factory=list)
    code: list[tuple[int, int]] = field(default_factory=list)
    definitions: list[Heading] = field(default_factory=list)

    def in_code(self, position: int) -> bool:
        """Whether a character stands in code."""
        number = bisect_right(self.code, (position, 1 << 62)) - 1
        return number >= 0 and position < self.code[number][1]

    def header_at(self, position: int) -> tuple[str, ...]:
        """The header of the table whose later rows begin at ``position``."""
        number = bisect_right(self.tables, (position, 1 << 62)) - 1
        if number < 0:
            return ()
        table = self.tables[number]
        return (table.header,) if table.header and table.body <= position < table.end else ()


def analyse(text: str, outline: Outline, code: str = "fenced") -> Structure:
    """Find the blocks of a normalised text; linear in its length.

    Args:
        code: ``fenced``: only fenced blocks are code; ``whole``: the text is code, its outline is not used.
    """
    if code == "whole":
        structure = Structure()
        _add_code(structure, text, 0, len(text))
        structure.code.append((0, len(text)))
        return structure
    return _Scan(text, outline).run()


class _Scan:
    """One pass over the lines of a text."""

    def __init__(self, text: str, outline: Outline) -> None:
        self.text = text
        self.lines = text.split("\n")
        self.found = Structure()
        self.headings = {heading.start: heading.level for heading in outline.headings}
        self.blank = True  # whether the line before is blank
        self.before = ""  # the last line that is not
        self.fresh = False  # whether nothing but headings came since the last heading
        self.list_indent: int | None = None  # of the outermost items of the list we are in

    def run(self) -> Structure:
        lines, position, number = self.lines, 0, 0
        while number < len(lines):
            line = lines[number]
            if not line or line.isspace():
                self.blank = True
                position += len(line) + 1
                number += 1
                continue
            taken = self._heading(number, position) or self._fence(number, position) or self._table(number, position)
            if not taken:
                self._text_line(line, position)
                taken = 1
            position += sum(map(len, lines[number : number + taken])) + taken
            number += taken
            self.before = lines[number - 1]
            self.blank = False
        return self.found

    def _cut(self, level: int, position: int) -> None:
        if position:
            self.found.cuts[level].append(position)

    def _block(self, position: int) -> None:
        """A block begins; it stays with its heading, and as far as it can with a colon that introduces it."""
        if not self.fresh:
            self._cut(ITEM if self.before.rstrip().endswith((":", "：")) else BLOCK, position)
        self.fresh = False

    def _heading(self, number: int, position: int) -> int:
        level = self.headings.get(position)
        if level is None:
            return 0
        # a heading right below another one is its first subsection
        self._cut(SUBHEADING if self.fresh else min(level, HEADINGS) - 1, position)
        self.fresh, self.list_indent = True, None
        if self.lines[number].startswith("#"):
            return 1
        overlined = _ADORNMENT.fullmatch(self.lines[number]) is not None
        return min(3 if overlined else 2, len(self.lines) - number)

    def _fence(self, number: int, position: int) -> int:
        fence = _FENCE.fullmatch(self.lines[number])
        if fence is None or (fence[1][0] == "`" and "`" in fence[2]):
            return 0
        self._block(position)
        mark, length = fence[1][0], len(fence[1])
        last = number + 1
        end = position + len(self.lines[number]) + 1
        inside = end
        while last < len(self.lines):
            line = self.lines[last]
            last += 1
            stripped = line.strip()
            if stripped[:1] == mark and len(stripped) >= length and not stripped.strip(mark):
                break
            end += len(line) + 1
        end = min(end, len(self.text))
        if inside < end:
            _add_code(self.found, self.text, inside, end)
            self.found.code.append((inside, end))
        return last - number

    def _table(self, number: int, position: int) -> int:
        line = self.lines[number][:_LOOK]
        following = self.lines[number + 1] if number + 1 < len(self.lines) else ""
        if _GRID.fullmatch(line) and following.lstrip().startswith("|"):
            return self._grid(number, position)
        headed = "|" in line and "|" in following and _DELIMITER.fullmatch(following) is not None
        if not headed and not line.lstrip().startswith("|"):
            return 0
        self._block(position)
        last = number
        at, body = position, -1
        first_row = number + (2 if headed else 0)
        while last < len(self.lines) and "|" in self.lines[last]:
            if last > first_row:
                self._cut(ITEM, at)
                body = at if body < 0 else body
            at += len(self.lines[last]) + 1
            last += 1
        if body >= 0:
            header = _header(self.lines[number]) if headed else ""
            self.found.tables.append(Table(position, at, body, header))
        return last - number

    def _grid(self, number: int, position: int) -> int:
        self._block(position)
        last, at, body, header_end = number, position, -1, -1
        header = ""
        while last < len(self.lines) and self.lines[last].lstrip()[:1] in ("|", "+"):
            line = self.lines[last]
            if header_end < 0 and _GRID_HEADER_END.fullmatch(line):
                header_end = last
                header = _header(self.lines[number + 1])
            elif _GRID.fullmatch(line) and last > number:
                closing = last + 1 >= len(self.lines) or self.lines[last + 1].lstrip()[:1] != "|"
                if not closing and last > header_end + 1:
                    self._cut(ITEM, at)
                    body = at if body < 0 and header_end >= 0 else body
            at += len(line) + 1
            last += 1
        if body >= 0:
            self.found.tables.append(Table(position, at, body, header))
        return last - number

    def _text_line(self, line: str, position: int) -> None:
        look = line[:_LOOK]
        item = _ITEM.match(look)
        if item:
            indent = len(item[1].expandtabs(4))
            if self.list_indent is None:
                self.list_indent = indent
                self._block(position)
            else:
                self._cut(ITEM if indent <= self.list_indent + 1 else min(NESTED + (indent - 1) // 4, LINE), position)
            self.fresh = False
            return
        indented = look[:1] in " \t"
        if self.blank and not (indented and self.list_indent is not None):
            self.list_indent = None
            self._block(position)
        elif self.blank:
            self._cut(NESTED, position)  # a further paragraph of an item
        elif self.before.rstrip()[-1:] in _LINE_END and not _ADORNMENT.fullmatch(look):
            self._cut(LINE, position)  # elsewhere a line goes on: the text is wrapped
        self.fresh = False


def _add_code(structure: Structure, text: str, start: int, end: int) -> None:
    for level, position in code_cuts(text, start, end, structure.definitions):
        structure.cuts[min(ITEM + level, LINE)].append(position)


def _header(line: str) -> str:
    """The titles of a table's columns, with the marks of Markdown removed."""
    cells = [plain(cell) for cell in _CELL.split(line[:_LOOK].strip().strip("|"))]
    if not any(cells):
        return ""
    shown = " | ".join(cells)
    return shown if len(shown) <= _HEADER_CHARACTERS else shown[:_HEADER_CHARACTERS].rsplit(" | ", 1)[0]
