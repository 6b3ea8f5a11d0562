"""Word: the text of a DOCX file as Markdown.

Belongs here: paragraphs, headings, lists, code, tables, notes and tracked changes of WordprocessingML.
Does not belong here: the package (office_xml.py), limits (archives.py), normalisation (text.py).

What a reader of the accepted document sees is kept: deleted text goes, inserted text stays; comments, headers and
footers go. Headings are told by outline level, also where styles inherit it, and by the name of the style where a
template has styles of its own. Paragraphs in a style of code become a fenced block, so that their lines keep their
indentation and a comment in them is no heading.
"""

import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from xml.etree.ElementTree import Element

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

_HEADING_NAME = re.compile(r"(?:heading|head|h)[ _-]?([1-9]|[a-f])(?:number|numbered|exercise)?", re.IGNORECASE)
_TITLE_NAME = re.compile(r"(?:(?:chapter|part|appendix|document|book)[ _-]?)?title", re.IGNORECASE)
_CODE_NAME = re.compile(
    r"(?:[\w ]*[ _-])?(?:html[ _-]preformatted|preformatted[ _-]text|source[ _-]?code|plain[ _-]text)"
    r"|(?:note|box|list|body)?code(?:wide|annotated|block|custom\d|single|first|last|text)?|code[ _-]block|listing",
    re.IGNORECASE,
)
_MONOSPACED = re.compile(r"courier|consolas|menlo|monaco|mono\b|lucida console|andale", re.IGNORECASE)
_LEADING_MARK = re.compile(r"(?=#{1,6}(?:\s|$)|`{3}|~{3})")
#: Content of these is not what the document says.
_SKIPPED = frozenset({"del", "moveFrom", "instrText", "delText", "delInstrText", "rPr", "pPr", "sectPr", "Fallback",
                      "commentReference", "proofErr", "rubyPr", "rt"})  # fmt: skip


@dataclass(frozen=True)
class _Style:
    name: str
    level: int | None = None  # outline level, from 1
    code: bool = False
    numbering: tuple[str, int] | None = None
    title: bool = False


@dataclass
class _Numbering:
    """Formats of list levels, and how far each list has counted."""

    formats: dict[tuple[str, int], str] = field(default_factory=dict)
    counts: dict[tuple[str, int], int] = field(default_factory=dict)

    def mark(self, number: str, level: int) -> str | None:
        """What stands before the next item; None: this list shows nothing."""
        form = self.formats.get((number, level), "bullet")
        if form == "none":
            return None
        if form == "bullet":
            return "-"
        for key in [key for key in self.counts if key[0] == number and key[1] > level]:
            del self.counts[key]
        self.counts[number, level] = self.counts.get((number, level), 0) + 1
        return f"{self.counts[number, level]}."


def read_word(archive: zipfile.ZipFile) -> tuple[str, dict[str, Any]]:
    """The text of a DOCX file as Markdown, and its core properties.

    Raises:
        ParseFailure: ``damaged``: it has no readable main part.
    """
    main = part_of_kind(related(archive, ""), "officeDocument") or "word/document.xml"
    tree = read_part(archive, main)
    body = child(tree, "body")
    if body is None:
        raise ParseFailure("damaged", "no text part in the Word file")
    relations = related(archive, main)
    reader = _Reader(_styles(_part(archive, relations, "styles")), _numbering(_part(archive, relations, "numbering")))
    for kind, note in (("footnotes", "footnote"), ("endnotes", "endnote")):
        for item in children(_part(archive, relations, kind), note):
            if attribute(item, "type") is None:
                reader.notes[note, attribute(item, "id") or ""] = item
    return reader.read(body), core_properties(archive)


def _part(archive: zipfile.ZipFile, relations: dict[str, tuple[str, str]], kind: str) -> Element | None:
    path = part_of_kind(relations, kind)
    try:
        return read_part(archive, path) if path else None
    except ParseFailure:
        return None  # without its styles or notes the text can still be read


def _styles(tree: Element | None) -> dict[str, _Style]:
    raw = {attribute(item, "styleId") or "": item for item in children(tree, "style")}
    lettered = any(_TITLE_NAME.fullmatch(_name_of(item)) for item in raw.values())
    done: dict[str, _Style] = {}

    def resolve(identity: str, seen: tuple[str, ...] = ()) -> _Style:
        if identity in done:
            return done[identity]
        item = raw.get(identity)
        if item is None or identity in seen or len(seen) > 20:
            return _Style("")
        parent_id = attribute(child(item, "basedOn"), "val")
        parent = resolve(parent_id, (*seen, identity)) if parent_id else _Style("")
        name = _name_of(item)
        level = _outline_level(child(item, "pPr")) or _level_by_name(name, lettered)
        numbering = _numbering_of(child(item, "pPr"))
        fonts = child(item, "rPr", "rFonts")
        monospaced = bool(_MONOSPACED.search(attribute(fonts, "ascii") or ""))
        paragraph = attribute(item, "type") in (None, "paragraph")
        style = _Style(
            name,
            level if level is not None else parent.level,
            # a style in a font of code alone is not enough: labels and keys are set in it as well
            paragraph and (bool(_CODE_NAME.fullmatch(name)) or parent.code or (monospaced and "code" in name.lower())),
            numbering or parent.numbering,
            bool(_TITLE_NAME.fullmatch(name)),
        )
        done[identity] = style
        return style

    for identity in raw:
        resolve(identity)
    return done


def _name_of(style: Element) -> str:
    return attribute(child(style, "name"), "val") or ""


def _level_by_name(name: str, lettered: bool) -> int | None:
    if _TITLE_NAME.fullmatch(name):
        return 1
    match = _HEADING_NAME.fullmatch(name)
    if not match:
        return None
    if match[1].isdigit():
        return int(match[1])
    # templates of publishers: A below the title of the chapter, then B, C
    return ord(match[1].lower()) - ord("a") + (2 if lettered else 1)


def _outline_level(properties: Element | None) -> int | None:
    value = attribute(child(properties, "outlineLvl"), "val")
    return int(value) + 1 if value and value.isdigit() and int(value) < 9 else None


def _numbering_of(properties: Element | None) -> tuple[str, int] | None:
    found = child(properties, "numPr")
    number = attribute(child(found, "numId"), "val")
    level = attribute(child(found, "ilvl"), "val") or "0"
    return (number, int(level)) if number and level.isdigit() else None


def _numbering(tree: Element | None) -> _Numbering:
    numbering = _Numbering()
    abstract: dict[str, dict[int, str]] = {}
    for item in children(tree, "abstractNum"):
        levels = {}
        for level in children(item, "lvl"):
            number = attribute(level, "ilvl") or ""
            if number.isdigit():
                levels[int(number)] = attribute(child(level, "numFmt"), "val") or "decimal"
        abstract[attribute(item, "abstractNumId") or ""] = levels
    for item in children(tree, "num"):
        levels = abstract.get(attribute(child(item, "abstractNumId"), "val") or "", {})
        for level, form in levels.items():
            numbering.formats[attribute(item, "numId") or "", level] = form
    return numbering


class _Reader:
    """Walks the body and writes blocks."""

    def __init__(self, styles: dict[str, _Style], numbering: _Numbering) -> None:
        self.notes: dict[tuple[str, str], Element] = {}
        self._styles = styles
        self._numbering = numbering
        self._cited: list[tuple[str, str]] = []
        self._boxes: list[Element] = []

    def read(self, body: Element) -> str:
        blocks = list(self._blocks(body))
        number = 0
        while number < len(self._cited):  # a note may cite another
            note = self.notes.get(self._cited[number])
            number += 1
            if note is not None:
                text = " ".join(" ".join(block for _, block in self._blocks(note)).split())
                if text:
                    blocks.append(("text", f"[^{number}]: {text}"))
        return _join(blocks)

    def _blocks(self, container: Element) -> Iterator[tuple[str, str]]:
        """Kind (text, item, code) and Markdown of every block in a container."""
        for item in container:
            name = local(item)
            if name == "p":
                yield from self._paragraph(item)
            elif name == "tbl":
                yield from self._table(item)
            elif name == "AlternateContent":
                choice = child(item, "Choice")
                yield from self._blocks(choice if choice is not None else item)
            elif name not in _SKIPPED and len(item):  # content controls, insertions, custom XML
                yield from self._blocks(item)

    def _paragraph(self, paragraph: Element) -> Iterator[tuple[str, str]]:
        properties = child(paragraph, "pPr")
        style = self._styles.get(attribute(child(properties, "pStyle"), "val") or "", _Style(""))
        outer, self._boxes = self._boxes, []
        raw = self._inline(paragraph)
        boxes, self._boxes = self._boxes, outer
        if style.code:
            yield ("code", raw.replace("\u00a0", " ").rstrip())
        else:
            text = _one_line(raw)
            level = _outline_level(properties) or style.level
            numbered = _numbering_of(properties) or style.numbering
            if not text:
                pass
            elif level is not None:
                yield ("text", f"{'#' * min(level, 6)} {' '.join(text.split())}")
            elif numbered and numbered[0] != "0" and (mark := self._numbering.mark(*numbered)):
                indent = "  " * numbered[1]
                yield ("item", f"{indent}{mark} {text.replace(chr(10), chr(10) + indent + '  ')}")
            elif style.name.lower().startswith("list bullet") or style.name == "ListBullet":
                yield ("item", f"- {text}")
            else:
                yield ("text", _LEADING_MARK.sub("\\\\", text, count=1) if _LEADING_MARK.match(text) else text)
        for box in boxes:
            yield from self._blocks(box)

    def _inline(self, element: Element) -> str:
        parts: list[str] = []
        for item in element:
            name = local(item)
            if name == "t":
                parts.append(item.text or "")
            elif name in ("tab", "ptab"):
                parts.append("\t")
            elif name in ("br", "cr"):
                if attribute(item, "type") not in ("page", "column"):
                    parts.append("\n")
            elif name == "noBreakHyphen":
                parts.append("-")
            elif name == "sym":
                parts.append(_symbol(attribute(item, "char")))
            elif name in ("footnoteReference", "endnoteReference"):
                parts.append(self._cite(name.removesuffix("Reference"), attribute(item, "id") or ""))
            elif name == "txbxContent":
                self._boxes.append(item)
            elif name == "AlternateContent":
                choice = child(item, "Choice")
                parts.append(self._inline(choice if choice is not None else item))
            elif name not in _SKIPPED and len(item):
                parts.append(self._inline(item))
        return "".join(parts)

    def _cite(self, kind: str, identity: str) -> str:
        if (kind, identity) not in self.notes:
            return ""
        if (kind, identity) not in self._cited:
            self._cited.append((kind, identity))
        return f"[^{self._cited.index((kind, identity)) + 1}]"

    def _table(self, table: Element) -> Iterator[tuple[str, str]]:
        rows: list[list[str]] = []
        for row in self._rows(table):
            properties = child(row, "trPr")
            if child(properties, "del") is not None:
                continue
            cells: list[str] = [""] * _count(attribute(child(properties, "gridBefore"), "val"), 0)
            for cell in self._cells(row):
                cell_properties = child(cell, "tcPr")
                merge = child(cell_properties, "vMerge")
                continued = merge is not None and attribute(merge, "val") in (None, "continue")
                text = "" if continued else " ".join(block for _, block in self._blocks(cell))
                cells += [text, *[""] * (_count(attribute(child(cell_properties, "gridSpan"), "val"), 1) - 1)]
            rows.append(cells)
        filled = [[cell for cell in row if cell.strip()] for row in rows]
        if all(len(row) <= 1 for row in filled):  # a frame rather than a table
            yield from (("text", cell) for row in filled for cell in row)
        elif text := to_markdown(rows):
            yield ("text", text)

    def _rows(self, table: Element) -> Iterator[Element]:
        for item in table:
            if local(item) == "tr":
                yield item
            elif local(item) in ("sdt", "sdtContent", "ins", "customXml"):
                yield from self._rows(item)

    def _cells(self, row: Element) -> Iterator[Element]:
        for item in row:
            if local(item) == "tc":
                yield item
            elif local(item) in ("sdt", "sdtContent", "ins", "customXml"):
                yield from self._cells(item)


def _count(value: str | None, default: int) -> int:
    """A span from an attribute; a file may claim millions of columns."""
    return min(max(int(value), default), 200) if value and value.isdigit() else default


def _symbol(code: str | None) -> str:
    try:
        number = int(code or "", 16)
    except ValueError:
        return ""
    # symbol fonts have their characters in the private area; most of them are bullets and arrows
    return "" if 0xE000 <= number <= 0xF8FF or number > 0x10FFFF else chr(number)


def _one_line(raw: str) -> str:
    """Text of a paragraph: its own line breaks are kept, other white space is not."""
    return "\n".join(" ".join(line.split()) for line in raw.split("\n")).strip()


def _join(blocks: list[tuple[str, str]]) -> str:
    """Blocks as Markdown: lists close together, neighbouring lines of code in one fence."""
    parts: list[str] = []
    number = 0
    while number < len(blocks):
        kind, text = blocks[number]
        if kind == "code":
            lines = []
            while number < len(blocks) and blocks[number][0] == "code":
                lines += blocks[number][1].split("\n")
                number += 1
            code = "\n".join(lines).strip("\n")
            if code:
                ticks = max((len(run) for run in re.findall(r"`{3,}", code)), default=2) + 1
                parts += ["\n\n", "`" * ticks, "\n", code, "\n", "`" * ticks]
            continue
        close = kind == "item" and number > 0 and blocks[number - 1][0] == "item"
        parts += ["\n" if close else "\n\n", text]
        number += 1
    return "".join(parts).strip("\n")
