"""YAML lists: an entry more, or one less, in a file that people wrote, with all of their comments.

Belongs here: changing the text. Does not belong here: what is changed (adding.py).

The text is changed where the entry stands and nowhere else; a change that would read as anything but the old content and the
entry is refused.
"""

import re
from collections.abc import Mapping
from typing import Any

import yaml

from resources.errors import PermanentError


def add_entry(text: str, key: str, entry: Mapping[str, Any], *, file: str) -> str:
    """The text with one more entry at the end of the list ``key``.

    Raises:
        PermanentError: the list is not written in a form that can be added to; says what to write by hand.
    """
    lines = text.split("\n")
    node = _node(text, key)
    block = _dump(entry)
    if node is None:
        changed = text.rstrip("\n") + f"\n\n{key}:\n" + _indented(block, 2) + "\n"
    elif isinstance(node, yaml.SequenceNode) and not node.flow_style and node.value:
        at = _last_line(lines, node) + 1
        changed = "\n".join([*lines[:at], *_indented(block, node.start_mark.column).split("\n"), *lines[at:]])
    elif _is_empty(node):
        line = node.start_mark.line
        head = re.sub(r"(:)\s*(\[\s*\]|~|null)?(\s*(?:#.*)?)$", r"\1\3", lines[line])
        changed = "\n".join([*lines[:line], head, *_indented(block, 2).split("\n"), *lines[line + 1 :]])
    else:
        changed = text
    before, after = _load(text, file) or {}, _try(changed) or {}
    if after != {**before, key: [*(before.get(key) or []), dict(entry)]}:
        raise PermanentError(
            f"{file}: {key} is written in a form that is not changed by a program; add to it:\n{block}"
        )
    return changed


def remove_entry(text: str, key: str, name: str, *, file: str) -> str:
    """The text without the entry of that ``name`` in the list ``key``; as it is when there is none.

    Raises:
        PermanentError: the list is not written in a form that can be taken from.
    """
    before = _load(text, file) or {}
    entries = before.get(key) or []
    left = [entry for entry in entries if entry.get("name") != name]
    if len(left) == len(entries):
        return text
    node, lines, changed = _node(text, key), text.split("\n"), text
    if isinstance(node, yaml.SequenceNode) and not node.flow_style:
        for item, entry in zip(node.value, entries, strict=True):
            if entry.get("name") == name:
                first, last = item.start_mark.line, _last_line(lines, item)
                lines = lines[:first] + lines[last + 1 :]
                if not left:
                    head = node.start_mark.line - 1
                    while not re.match(rf"\s*{key}\s*:", lines[head]):
                        head -= 1
                    lines[head] = re.sub(r":", ": []", lines[head], count=1)
                changed = "\n".join(lines)
    if (_try(changed) or {}) != {**before, key: left}:
        raise PermanentError(f"{file}: take the entry {name!r} out of {key} by hand")
    return changed


def add_key(text: str, key: str, name: str, value: Mapping[str, Any], *, file: str) -> str:
    """The text with one more key in the mapping ``key``.

    Raises:
        PermanentError: the mapping is not written in a form that can be added to.
    """
    lines, node, changed = text.split("\n"), _node(text, key), text
    block = yaml.safe_dump({name: dict(value)}, sort_keys=False).rstrip("\n")
    if isinstance(node, yaml.MappingNode) and not node.flow_style and node.value:
        at = _last_line(lines, node) + 1
        changed = "\n".join([*lines[:at], *_indented(block, node.start_mark.column).split("\n"), *lines[at:]])
    before = _load(text, file) or {}
    if (_try(changed) or {}) != {**before, key: {**(before.get(key) or {}), name: dict(value)}}:
        raise PermanentError(
            f"{file}: {key} is written in a form that is not changed by a program; add to it:\n{block}"
        )
    return changed


def _node(text: str, key: str) -> yaml.Node | None:
    """The value of a key at the top."""
    root = yaml.compose(text)
    if not isinstance(root, yaml.MappingNode):
        return None
    return next((value for name, value in root.value if name.value == key), None)


def _is_empty(node: yaml.Node) -> bool:
    return (isinstance(node, yaml.SequenceNode) and not node.value) or (
        isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"
    )


def _last_line(lines: list[str], node: yaml.Node) -> int:
    """The last line of a block that holds something of it; blank lines and comments below belong to what follows."""
    at = min(node.end_mark.line, len(lines) - 1)
    if at > node.start_mark.line and node.end_mark.column == 0:
        at -= 1
    while at > node.start_mark.line and (not lines[at].strip() or lines[at].lstrip().startswith("#")):
        at -= 1
    if at > node.start_mark.line and at == node.end_mark.line and not lines[at][: node.end_mark.column].strip():
        at -= 1
        while at > node.start_mark.line and (not lines[at].strip() or lines[at].lstrip().startswith("#")):
            at -= 1
    return at


def _dump(entry: Mapping[str, Any]) -> str:
    body = yaml.safe_dump(dict(entry), sort_keys=False, allow_unicode=True, width=1000).rstrip("\n").split("\n")
    return "\n".join(("- " if number == 0 else "  ") + line for number, line in enumerate(body))


def _indented(block: str, columns: int) -> str:
    return "\n".join(" " * columns + line for line in block.split("\n"))


def _load(text: str, file: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise PermanentError(f"{file}: not valid YAML; mend it first: genaiops validate") from error


def _try(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return None
