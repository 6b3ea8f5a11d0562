"""Structure of code: where functions and classes begin, by indentation and by the words that introduce them.

Belongs here: cuts inside code in any common language, the names of what is defined, and telling code from prose.
Does not belong here: Markdown (structure.py) and choosing cuts for a size (packing.py).

Code is read by its layout, not parsed: it need not be complete or correct. What is minified to one line has cuts at
the ends of statements only (packing.py).
"""

import re
from collections.abc import Iterator

from assets.corpus.headings import Heading

#: Levels relative to the best cut in code: an outermost definition, a part after a blank line, then the same one and
#: two steps deeper, then any line.
_DEFINITION, _PART, _LINE = 0, 1, 6
_DEEPEST = 2
_TAB = 4
_MODIFIERS = (
    r"(?:(?:export|default|public|private|protected|internal|static|final|abstract|async|override|virtual|sealed|open"
    r"|suspend|inline|unsafe|const|extern(?:\s+\"[^\"]{0,20}\")?|pub(?:\([^)]{0,40}\))?|local|partial|data|case)\s+){0,6}"
)
_DEFINITION_LINE = re.compile(
    rf"""{_MODIFIERS}(?:
        (?:def|class|fn|struct|enum|trait|impl|mod|interface|namespace|module|func|fun|function|object|record|protocol
          |extension|defmodule|defp|sub|proc|procedure|package|contract|message|service|union|macro_rules!|type)\b[\s*(<]*[\w"'&(\[]
      | (?:create|CREATE)\s+\w
      | (?:let|var|const)\s+\w{{1,80}}\s*=\s*(?:async\s*)?(?:function\b|\()
      | (?:export\s+)?(?:const|let|var)\s+\w{{1,80}}\s*=\s*(?:async\s*)?(?:function\b|\(.{{0,200}}=>)
    )""",
    re.VERBOSE,
)
_CONTROL = re.compile(
    r"(?:if|for|foreach|while|switch|match|return|catch|with|else|do|try|throw|new|await|yield|case)\b"
)
_CLOSER = re.compile(r"[)}\]>]|(?:else|elif|except|finally|catch|end|endif|fi|done|esac|rescue|ensure|then)\b")
_LEAD = re.compile(r"@\w|\#!?\[|//|/\*|\*|\#|--(?:\s|$)|;;|template\s*<")
_NAME = re.compile(r"[^({;=\n]{1,120}")
_LONG_STRING = re.compile(r'"""(?:[^"]|"(?!""))*+"""')

_CODE_LINE = re.compile(
    r"""\s*(?:
        (?:from\s+[\w.]+\s+)?import\s+[\w.*{"'(]  |  (?:async\s+)?def\s+\w+\s*\(  |  class\s+\w+.*[:{]\s*$  |  @\w+
      | (?:if|for|while|with|elif|except|try|else|finally)\b.*:\s*$  |  return\b.*[\w)\]'"]\s*$  |  self\.\w
      | [\w.\[\]"']+\s*(?:[-+*/|&]?=)\s\S.*  |  (?:raise|assert|yield|pass|break|continue)\b[^.]*$
      | (?:\#include|\#define|\#ifn?def|\#endif|package\s+[\w.]+|use\s+[\w:{}*,\s]+;|using\s+[\w.]+;)
      | (?:pub\s+)?(?:fn|struct|enum|impl|trait|mod)\s+\w  |  (?:func|type|var|const|let)\s+[\w({\[]+
      | [\])}]+[;,)]*\s*$  |  //.*  |  /\*.*  |  \*/.*  |  [\w.]+\(.*\)\s*$
      | .*[;{(\[]\s*$  |  .*=>.*  |  \s+[\w"'(\[{*].*[,:)\]}]\s*$
    )""",
    re.VERBOSE,
)
_PROSE_LINE = re.compile(r"\s*(?:[-*+]\s+\w|\d+[.)]\s|>|\|)|.*[a-z]{2,}[.?!]\s+[A-Z]\w")
_SAMPLE = 300
_CODE_SHARE = 0.5
_LEAST_LINES = 3


def code_cuts(text: str, start: int, end: int, definitions: list[Heading]) -> Iterator[tuple[int, int]]:
    """Yield (level, position) of every line of code before which a cut is possible, in order of position per level.

    Comments, decorators and attributes belong to the definition below them. Text inside Python's long strings and in
    block comments is passed over.

    Args:
        definitions: filled with what is defined, as headings whose level is the depth.
    """
    previous_blank = True
    lead: tuple[int, bool, int] | None = None  # position, whether a blank line came before, indent
    inside: str | None = None  # what ends the string or comment we are in
    header = -1  # indent of a definition that had no line of its body yet
    step = 0
    position = start
    for line in text[start:end].split("\n"):
        at, position = position, position + len(line) + 1
        stripped = line.lstrip()
        if inside is not None:
            if inside in line:
                inside = None
            if at > start:
                yield _LINE, at
            previous_blank = False
            continue
        if not stripped:
            if lead is not None:
                yield from _part(lead, start, step)
                lead = None
            previous_blank = True
            continue
        indent = len(line[: len(line) - len(stripped)].expandtabs(_TAB))
        if indent and (not step or indent < step):
            step = indent
        inside = _opens(stripped)
        if _LEAD.match(stripped) and not stripped.startswith("#include"):
            if at > start and lead is not None:
                yield _LINE, at
            lead = lead or (at, previous_blank, indent)
            previous_blank = False
            continue
        cut, blank = (lead[0], lead[1] or previous_blank) if lead is not None else (at, previous_blank)
        if lead is not None:
            yield _LINE, at
        lead = None
        defined = _is_definition(stripped)
        depth = min(indent // step if step else 0, _DEEPEST)
        if cut > start:
            if _CLOSER.match(stripped) or 0 <= header < indent:
                yield _LINE, cut
            elif defined:
                yield _DEFINITION + 2 * depth, cut
            elif blank:
                yield _PART + 2 * depth, cut
            else:
                yield _LINE, cut
        header = -1
        if defined:
            header = indent
            name = _NAME.match(stripped)
            if name and name[0].strip(" :<"):
                definitions.append(Heading(indent + 1, " ".join(name[0].strip(" :<").split()), cut))
        previous_blank = False
    if lead is not None:
        yield from _part(lead, start, step)


def looks_like_code(text: str) -> bool:
    """Whether a text is code as a whole, judged by its first lines; a text with fenced blocks is not."""
    sample = _LONG_STRING.sub("", text[: _SAMPLE * 200])
    lines = [line for line in sample.split("\n") if line.strip()][:_SAMPLE]
    if len(lines) < _LEAST_LINES or any(line.lstrip()[:3] in ("```", "~~~") for line in lines):
        return False
    code = sum(_CODE_LINE.match(line[:300]) is not None for line in lines)
    prose = sum(_PROSE_LINE.match(line[:300]) is not None for line in lines)
    neutral = sum(line.lstrip()[:1] in ("#", "*") or line.strip()[:2] == "--" for line in lines)
    return code - prose >= _CODE_SHARE * max(len(lines) - neutral, 1) and code >= _LEAST_LINES


def _part(lead: tuple[int, bool, int], start: int, step: int) -> Iterator[tuple[int, int]]:
    """A comment that stands alone."""
    position, blank, indent = lead
    if position > start:
        yield (_PART + 2 * min(indent // step if step else 0, _DEEPEST) if blank else _LINE), position


def _is_definition(line: str) -> bool:
    look = line[:500]
    if _DEFINITION_LINE.match(look):
        return True
    return look.endswith("{") and _is_signature(look)


def _is_signature(line: str) -> bool:
    """C, C++, Java, C#, methods of JavaScript: a name, parentheses, and a brace at the end of the line."""
    opened, closed = line.find("("), line.rfind(")")
    if not 0 < opened < closed or _CONTROL.match(line) or "=>" in line or "=" in line[:opened]:
        return False
    name = line[:opened].rstrip()
    return (name[-1:].isalnum() or name[-1:] in "_>") and not set(line[closed + 1 : -1]) & set("\"';(")


def _opens(line: str) -> str | None:
    """What ends the long string or block comment that begins in this line and does not end in it."""
    for mark in ('"""', "'''"):
        if line.count(mark) % 2:
            return mark
    opened = line.rfind("/*")
    if opened >= 0 and line.find("*/", opened) < 0 and (opened == 0 or line[opened - 1] in " \t"):
        return "*/"
    return None
