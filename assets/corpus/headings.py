"""Headings: where the sections of a normalised text begin.

Belongs here: the scan for Markdown and reStructuredText headings; it depends on the text alone, so that equal texts
have equal headings wherever they come from.
Does not belong here: reading files (parsing.py) and cutting texts (assets/chunks).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

_ATX = re.compile(r"(#{1,6})(?:[ \t](.*))?", re.DOTALL)
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})(.*)")
_ADORNMENT = re.compile(r"([=\-~^\"'`#*+.:_<>])\1+")
_COMMENT_END = re.compile("-->")
_RAW_HTML = re.compile(r" {0,3}<(pre|script|style|textarea)\b", re.IGNORECASE)
_NOT_A_TITLE = re.compile(r"\s|[-*+>|] |\d+[.)] |[|<]|\.\. |:[\w-]+:")
_LINK = re.compile(r"!?\[([^\]]*)\](?:\([^)]*\)|\[[^\]]*\])")
_TAG_OR_ANCHOR = re.compile(r"<[^<>]+>| ?\{[#:.][^{}]*\}$")
_ESCAPE = re.compile(r"\\([!-/:-@\[-`{-~])")
#: The line ends after which something may begin: few lines need a closer look, and finding them so costs a tenth of
#: looking at each.
_NOTABLE = re.compile(
    r"""\n(?=\#                                              # ATX
         | ([=\-~^"'`\#*+.:_<>])\1++[^\S\n]*+(?:\n|\Z)     # an adornment
         | \ {0,3}+(?:`{3}|~{3}|<[pPsSſtT])                # a fence, raw HTML
         | (?:\ [^\S\n]*+)?<!--)""",
    re.VERBOSE,
)
#: What may be markup in a title.
_MARKUP = re.compile(r"[`\[<*\\{:]")
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
    atx: list[Heading] = []
    underlined: list[tuple[str, str, int]] = []  # style, title, start
    not_headings: list[int] = []
    end_of_block = 0
    # as if the text began with a line end, so that its first line is like the others
    for match in _NOTABLE.finditer("\n" + text):
        start = match.start()
        if start < end_of_block:
            continue
        line = _line_at(text, start)
        first = line[0]
        if first == "#":
            atx_match = _ATX.fullmatch(line)
            if atx_match:
                title = plain(_without_closing_sequence(atx_match[2] or ""))
                if title:
                    atx.append(Heading(len(atx_match[1]), title, start))
                continue
        if first in "=-~^\"'`#*+.:_<>" and (found := _underlined(text, line, start)):
            title, overlined, begin = found
            underlined.append((first + ("^" if overlined else ""), title, begin))
            continue
        if first in " `~<" and (closing := _opens(line)):
            inside = start + len(line) + 1
            closed = closing.search(text, inside) if inside <= len(text) else None
            end_of_block = len(text) + 1 if closed is None else _end_of_line(text, closed.start()) + 1
            not_headings += _hashes(text, inside, end_of_block)
    return Outline(
        tuple(sorted([*atx, *_levels(underlined, bool(atx))], key=lambda item: item.start)), tuple(not_headings)
    )


def plain(markup: str) -> str:
    """The text of a heading without inline markup: links, emphasis, code, anchors, roles, escapes."""
    line = " ".join(markup[:_TITLE_CHARACTERS].split())
    if not _MARKUP.search(line):
        return line
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


def _underlined(text: str, underline: str, start: int) -> tuple[str, bool, int] | None:
    """Title, whether it is overlined, and where it begins, if the line at ``start`` underlines the line before it."""
    line = underline.rstrip()
    if start == 0 or not _ADORNMENT.fullmatch(line):
        return None
    title_start = text.rfind("\n", 0, start - 1) + 1
    before_start = text.rfind("\n", 0, title_start - 1) + 1 if title_start else 0
    title = text[title_start : start - 1].rstrip()
    before = text[before_start : title_start - 1].rstrip() if title_start else ""
    if not title or _ADORNMENT.fullmatch(title):
        return None
    if before == line and len(line) >= len(title):
        shown = plain(title.strip())
        return (shown, True, before_start) if shown else None
    if before or _NOT_A_TITLE.match(title):
        return None
    if len(line) < len(title) and line[0] not in "=-":
        return None
    shown = plain(title)
    return (shown, False, title_start) if shown else None


def _opens(line: str) -> re.Pattern[str] | None:
    """What ends the block which ``line`` opens, to be searched for in the lines after it; None when it opens none."""
    fence = _FENCE.fullmatch(line)
    if fence and not (fence[1][0] == "`" and "`" in fence[2]):
        return _closing_fence(fence[1][0], len(fence[1]))
    if line.lstrip().startswith("<!--") and "-->" not in line:
        return _COMMENT_END
    raw = _RAW_HTML.match(line)
    if raw and f"</{raw[1].lower()}" not in line.lower():
        return _closing_tag(raw[1].lower())
    return None


@lru_cache(maxsize=64)
def _closing_fence(character: str, length: int) -> re.Pattern[str]:
    return re.compile(rf"(?<!{character}){character}{{{length},}}+[^\S\n]*+$", re.MULTILINE)


@lru_cache(maxsize=64)
def _closing_tag(name: str) -> re.Pattern[str]:
    return re.compile(rf"</{name}", re.IGNORECASE)


def _line_at(text: str, start: int) -> str:
    return text[start : _end_of_line(text, start)]


def _end_of_line(text: str, position: int) -> int:
    end = text.find("\n", position)
    return len(text) if end < 0 else end


def _hashes(text: str, start: int, end: int) -> list[int]:
    """Beginnings of the lines between two positions that begin with ``#``."""
    found = [start] if text.startswith("#", start) and start < end else []
    position = text.find("\n#", start, end)
    while position >= 0:
        found.append(position + 1)
        position = text.find("\n#", position + 1, end)
    return found


def _levels(underlined: Sequence[tuple[str, str, int]], with_atx: bool) -> list[Heading]:
    order: dict[str, int] = {"=": 1, "-": 2} if with_atx else {}
    return [Heading(order.setdefault(style, len(order) + 1), title, start) for style, title, start in underlined]
