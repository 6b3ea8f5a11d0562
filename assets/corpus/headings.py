"""Headings: where the sections of a normalised text begin.

Belongs here: the scan for Markdown and reStructuredText headings; it depends on the text alone, so that equal texts
have equal headings wherever they come from.
Does not belong here: reading files (parsing.py) and cutting texts (assets/chunks).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

_ATX = re.compile(r"(#{1,6})(?:[ \t](.*))?", re.DOTALL)
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})(.*)")
_ADORNMENT = re.compile(r"([=\-~^\"'`#*+.:_<>])\1+")
_RAW_HTML = re.compile(r" {0,3}<(pre|script|style|textarea)\b", re.IGNORECASE)
_NOT_A_TITLE = re.compile(r"\s|[-*+>|] |\d+[.)] |[|<]|\.\. |:[\w-]+:")
_LINK = re.compile(r"!?\[([^\]]*)\](?:\([^)]*\)|\[[^\]]*\])")
_TAG_OR_ANCHOR = re.compile(r"<[^<>]+>| ?\{[#:.][^{}]*\}$")
_ESCAPE = re.compile(r"\\([!-/:-@\[-`{-~])")
#: Of a longer line only the beginning is a title; it also bounds the work of the patterns below.
_TITLE_CHARACTERS = 500
_CODE = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)")
_ROLE = re.compile(r":[\w:+.-]+:`([^`<]+?)(?:\s*<[^`>]*>)?`")


@dataclass(frozen=True)
class Heading:
    """A heading: ``level`` 1 is the topmost, ``start`` the character position of its first line."""

    level: int
    text: str
    start: int


@dataclass(frozen=True)
class Outline:
    """What a scan found.

    Attributes:
        headings: in order of position.
        not_headings: positions of ``#`` characters that look like a heading but stand in code.
    """

    headings: tuple[Heading, ...]
    not_headings: tuple[int, ...]


def scan(text: str) -> Outline:
    """Find the headings of a text: ATX (``# Title``), setext, and reStructuredText with over- and underlines.

    Fenced code, HTML comments and raw HTML blocks are passed over. As in CommonMark an unclosed fence reaches to the
    end. Underlined headings get the levels 1 (``=``) and 2 (``-``) where the text also has ATX headings; elsewhere
    levels follow the order in which their styles appear, as in reStructuredText.
    """
    lines = text.split("\n")
    atx: list[Heading] = []
    underlined: list[tuple[str, str, int]] = []  # style, title, start
    not_headings: list[int] = []
    closing: re.Pattern[str] | None = None  # what ends the block we are inside of
    position = 0
    for number, line in enumerate(lines):
        start, position = position, position + len(line) + 1
        if closing is not None:
            if line.startswith("#"):
                not_headings.append(start)
            if closing.search(line):
                closing = None
            continue
        first = line[:1]
        if first == "#":
            match = _ATX.fullmatch(line)
            if match:
                title = plain(_without_closing_sequence(match[2] or ""))
                if title:
                    atx.append(Heading(len(match[1]), title, start))
                continue
        if first and first in "=-~^\"'`#*+.:_<>" and (found := _underlined(lines, number)):
            title, overlined = found
            begin = start - len(lines[number - 1]) - 1
            if overlined:
                begin -= len(lines[number - 2]) + 1
            underlined.append((first + ("^" if overlined else ""), title, begin))
            continue
        if first and first in " `~<":
            closing = _opens(line)
    return Outline(
        tuple(sorted([*atx, *_levels(underlined, bool(atx))], key=lambda item: item.start)), tuple(not_headings)
    )


def plain(markup: str) -> str:
    """The text of a heading without inline markup: links, emphasis, code, anchors, roles, escapes."""
    line = " ".join(markup[:_TITLE_CHARACTERS].split())
    parts = _CODE.split(_LINK.sub(r"\1", _ROLE.sub(r"\1", line)))
    # code stands at 2, 5, ... after its backticks at 1, 4, ...
    for number in range(0, len(parts), 3):
        parts[number] = _ESCAPE.sub(r"\1", _TAG_OR_ANCHOR.sub("", parts[number]).replace("**", ""))
    return " ".join("".join(part for number, part in enumerate(parts) if number % 3 != 1).split())


def paths_at(headings: Sequence[Heading]) -> list[tuple[int, tuple[str, ...]]]:
    """For every heading its start and the path of titles that holds from there on; starts increase."""
    stack: list[Heading] = []
    paths = []
    for heading in headings:
        while stack and stack[-1].level >= heading.level:
            stack.pop()
        stack.append(heading)
        paths.append((heading.start, tuple(item.text for item in stack)))
    return paths


def _without_closing_sequence(title: str) -> str:
    """``A #`` and ``A ##`` end in a closing sequence, ``C#`` does not."""
    kept = title.rstrip().rstrip("#")
    return kept if not kept or kept[-1] in " \t" else title


def _underlined(lines: Sequence[str], number: int) -> tuple[str, bool] | None:
    """Title and whether it is overlined, if line ``number`` underlines the line before it."""
    line = lines[number].rstrip()
    if number == 0 or not _ADORNMENT.fullmatch(line):
        return None
    title, before = lines[number - 1].rstrip(), lines[number - 2].rstrip() if number > 1 else ""
    if not title or _ADORNMENT.fullmatch(title):
        return None
    overlined = before == line and len(line) >= len(title)
    if overlined:
        return (plain(title.strip()), True) if plain(title) else None
    if before or _NOT_A_TITLE.match(title):
        return None
    if len(line) < len(title) and line[0] not in "=-":
        return None
    return (plain(title), False) if plain(title) else None


def _opens(line: str) -> re.Pattern[str] | None:
    """The pattern that ends the block which ``line`` opens, or None when it opens none."""
    fence = _FENCE.fullmatch(line)
    if fence and not (fence[1][0] == "`" and "`" in fence[2]):
        return re.compile(rf" {{0,3}}{re.escape(fence[1][0])}{{{len(fence[1])},}}\s*$")
    if line.lstrip().startswith("<!--") and "-->" not in line:
        return re.compile("-->")
    raw = _RAW_HTML.match(line)
    if raw and f"</{raw[1].lower()}" not in line.lower():
        return re.compile(rf"</{raw[1]}", re.IGNORECASE)
    return None


def _levels(underlined: Sequence[tuple[str, str, int]], with_atx: bool) -> list[Heading]:
    order: dict[str, int] = {"=": 1, "-": 2} if with_atx else {}
    return [Heading(order.setdefault(style, len(order) + 1), title, start) for style, title, start in underlined]
