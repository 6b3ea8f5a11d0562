"""PDF: pages of text with their headings and tables as Markdown.

Belongs here: rendering what kreuzberg (pdfium) found on the pages, page by page.
Does not belong here: calling it (extraction.py), normalisation (text.py).

The blocks of a page are rendered here rather than taken from kreuzberg's own Markdown, because every block knows its
page. That is what lets a citation name it; their words are the same.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from assets.corpus.tables import to_markdown

#: A line break where pdfium saw a hyphen that only divides a word.
_SOFT_HYPHEN = re.compile("[\x02\u00ad]\\s*")
_LINE = re.compile(r"[ \t]*(?:\r\n?|\n)[ \t]*")
_LETTERS = re.compile(r"[^\W\d_]{2}")
_CJK = "\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef"
_CJK_BREAK = re.compile(f"(?<=[{_CJK}])\n(?=[{_CJK}])")
_LEADING_MARK = re.compile(r"(?=#{1,6}(?:\s|$)|`{3}|~{3})")
_HEADING_WORDS, _HEADING_CHARACTERS = 16, 120
#: More words than this share of a longer document in headings: they are none.
_LAYOUT_SHARE, _LAYOUT_WORDS = 0.2, 100
#: Fewer filled cells than this share: not a table but words that happen to stand apart.
_TABLE_SHARE = 0.6


def render_pages(nodes: Sequence[Mapping[str, Any]], page_count: int) -> list[tuple[int, str]]:
    """Page number and Markdown of every page, empty ones included.

    Args:
        nodes: blocks in reading order, as kreuzberg's document structure has them.
        page_count: of the document.
    """
    blocks: dict[int, list[str]] = {}
    current = 1
    with_headings = _has_headings(nodes)
    for node in nodes:
        content = node.get("content") or {}
        current = max(current, int(node.get("page") or current))
        text = _block(content, with_headings)
        if text:
            blocks.setdefault(current, []).append(text)
    last = max([page_count, *blocks], default=0)
    return [(page, _joined(blocks.get(page, []))) for page in range(1, last + 1)]


def _has_headings(nodes: Sequence[Mapping[str, Any]]) -> bool:
    """Whether font sizes tell sections apart; where a good part of the words stands out, they are mere layout."""
    words = {True: 0, False: 0}
    for node in nodes:
        content = node.get("content") or {}
        if content.get("node_type") != "group":
            heading = content.get("node_type") == "heading" and _is_heading(_unwrapped(str(content.get("text") or "")))
            words[heading] += len(str(content.get("text") or "").split())
    total = words[True] + words[False]
    return total < _LAYOUT_WORDS or words[True] <= _LAYOUT_SHARE * total


def _block(content: Mapping[str, Any], with_headings: bool) -> str:
    kind = content.get("node_type")
    if kind == "heading" and with_headings:
        text = _unwrapped(str(content.get("text") or ""))
        return f"{'#' * min(max(int(content.get('level') or 1), 1), 6)} {text}" if _is_heading(text) else _escaped(text)
    if kind == "table":
        return _table(content.get("grid") or {})
    if kind == "code":
        text = str(content.get("text") or "").replace("\r\n", "\n").strip("\n")
        return f"```\n{text}\n```" if text.strip() and "```" not in text else text
    if kind == "list_item":
        text = _unwrapped(str(content.get("text") or ""))
        return f"- {text.lstrip('•·▪◦‣- ')}" if text.strip("•·▪◦‣- ") else ""
    if kind in ("group", "page_break", "list"):
        return ""
    return _escaped(_unwrapped(str(content.get("text") or "")))


def _is_heading(text: str) -> bool:
    """Whether a line that stands out by its font reads like a heading rather than a formula or half a sentence."""
    return (
        0 < len(text) <= _HEADING_CHARACTERS
        and len(text.split()) <= _HEADING_WORDS
        and bool(_LETTERS.search(text))
        and not text.endswith((",", ";", "."))
        and not text[0].islower()
    )


def _unwrapped(text: str) -> str:
    lines = _LINE.sub("\n", _SOFT_HYPHEN.sub("", text)).strip()
    lines = re.sub(r"(?<=\w-)\n(?=\w)", "", _CJK_BREAK.sub("", lines))
    return " ".join(lines.split())


def _escaped(text: str) -> str:
    return f"\\{text}" if _LEADING_MARK.match(text) else text


def _table(grid: Mapping[str, Any]) -> str:
    cells = grid.get("cells") or []
    rows, columns = int(grid.get("rows") or 0), int(grid.get("cols") or 0)
    if not cells or not 0 < rows * columns <= 1_000_000:
        return " ".join(_unwrapped(str(cell.get("content") or "")) for cell in cells)
    table = [[""] * columns for _ in range(rows)]
    for cell in cells:
        if cell.get("row", rows) < rows and cell.get("col", columns) < columns:
            table[cell["row"]][cell["col"]] = _unwrapped(str(cell.get("content") or ""))
    filled = sum(bool(cell) for row in table for cell in row)
    if columns < 2 or rows < 2 or filled < _TABLE_SHARE * rows * columns:
        return "\n".join(line for row in table if (line := " ".join(cell for cell in row if cell)))
    return to_markdown(table)


def _joined(blocks: Sequence[str]) -> str:
    parts: list[str] = []
    for number, block in enumerate(blocks):
        close = number > 0 and block.startswith("- ") and blocks[number - 1].startswith("- ")
        parts += ["\n" if close else "\n\n", block] if number else [block]
    return "".join(parts)
