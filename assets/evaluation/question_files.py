"""Question files: JSON lines, YAML and CSV, read into one raw object per question with the place it stands.

Belongs here: the formats. Does not belong here: what a question may hold (questions.py).
"""

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from resources.errors import ConfigError

#: Columns of a CSV file; ``tags.NAME`` and ``provenance.NAME`` beside them.
QUESTION_COLUMNS = ("id", "question", "answer", "answers", "answerable", "split", "group")
EVIDENCE_COLUMNS = ("document", "quote", "start", "end", "kind", "grade", "stance")
_PREFIXES = ("tags.", "provenance.")
_DELIMITERS = ",;\t"


@dataclass(frozen=True)
class RawQuestion:
    """A question as the file has it; ``line`` counts from 1."""

    path: Path
    line: int
    fields: Any

    @property
    def where(self) -> str:
        """File and line, for messages."""
        return f"{self.path}:{self.line}"


def read_question_file(path: Path, mistakes: list[str]) -> list[RawQuestion]:
    """Read a file by its ending: ``.yaml``, ``.yml``, ``.csv``, ``.tsv``, anything else as JSON lines.

    Args:
        mistakes: what is wrong with single lines is added here.

    Raises:
        ConfigError: the file is missing, no UTF-8, or cannot be read as a whole.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: the file is missing; write one question per line as JSON") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text at byte {error.start}; save the file as UTF-8") from error
    match path.suffix.lower():
        case ".yaml" | ".yml":
            return _read_yaml(path, text)
        case ".csv" | ".tsv":
            return read_csv(path, text, mistakes)
        case _:
            return _read_json_lines(path, text, mistakes)


def _read_json_lines(path: Path, text: str, mistakes: list[str]) -> list[RawQuestion]:
    found: list[RawQuestion] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            found.append(RawQuestion(path, number, json.loads(line)))
        except json.JSONDecodeError as error:
            mistakes.append(
                f"{path}:{number}: not valid JSON at column {error.colno}: {error.msg}; one object per line"
            )
    return found


class _Loader(yaml.SafeLoader):
    """YAML whose dates stay texts: a tag ``since: 2024-05-01`` means these characters."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _read_yaml(path: Path, text: str) -> list[RawQuestion]:
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return []
        if not isinstance(node, yaml.SequenceNode):
            raise ConfigError(f"{path}: expected a list of questions at the top; begin each with '- id:'")
        lines = [item.start_mark.line + 1 for item in node.value]
        return [
            RawQuestion(path, line, fields) for line, fields in zip(lines, loader.construct_document(node), strict=True)
        ]
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{path}: not valid YAML{where}: {getattr(error, 'problem', 'unreadable')}") from error
    finally:
        loader.dispose()


def read_csv(
    path: Path, text: str, mistakes: list[str], *, columns: Mapping[str, str] | None = None
) -> list[RawQuestion]:
    """Rows of a table; further rows of an id add a piece of evidence each and may leave everything else empty.

    ``answers`` is a JSON list, or texts with ``|`` between them. Commas, semicolons and tabs separate columns.

    Args:
        columns: ``{name in the file: name here}`` for files with names of their own; columns that are neither named
            here nor known are then left out instead of being refused.

    Raises:
        ConfigError: the table has no head, or a column twice or (without ``columns``) an unknown one.
    """
    head = text.split("\n", 1)[0]
    if not head.strip():
        raise ConfigError(f"{path}: the first line must name the columns, e.g. id,question,answer,document,quote")
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=max(_DELIMITERS, key=head.count), strict=True)
    found: dict[str, RawQuestion] = {}
    try:
        names = [(columns or {}).get(name.strip(), name.strip()) for name in next(rows)]
        _check_columns(path, names, lenient=columns is not None)
        before = rows.line_num
        for cells in rows:
            line, before = before + 1, rows.line_num
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(names):
                mistakes.append(
                    f"{path}:{line}: {len(cells)} columns, the head has {len(names)}; quote cells with commas"
                )
                continue
            row = {name: cell for name, cell in zip(names, cells, strict=True) if cell.strip() and _known(name)}
            _add_row(RawQuestion(path, line, _fields(row, names)), found, mistakes)
    except csv.Error as error:
        raise ConfigError(f"{path}:{rows.line_num}: not a valid table: {error}") from error
    return list(found.values())


def _known(name: str) -> bool:
    return name in (*QUESTION_COLUMNS, *EVIDENCE_COLUMNS) or name.startswith(_PREFIXES)


def _check_columns(path: Path, names: list[str], *, lenient: bool) -> None:
    known = [name for name in names if _known(name)]
    if twice := sorted({name for name in known if known.count(name) > 1}):
        raise ConfigError(f"{path}:1: column {twice[0]!r} is there twice")
    unknown = [name for name in names if not _known(name)]
    if unknown and not lenient:
        allowed = ", ".join((*QUESTION_COLUMNS, *EVIDENCE_COLUMNS, "tags.NAME", "provenance.NAME"))
        raise ConfigError(f"{path}:1: unknown column {unknown[0]!r}; allowed: {allowed}")


def _fields(row: Mapping[str, str], names: list[str]) -> dict[str, Any]:
    fields: dict[str, Any] = {name: row[name] for name in QUESTION_COLUMNS if name in row and name != "answers"}
    if "answer" in names:
        fields.setdefault("answer", None)
    if "answers" in row:
        fields["answers"] = _list(row["answers"])
    for prefix in _PREFIXES:
        values = {name.removeprefix(prefix): value for name, value in row.items() if name.startswith(prefix)}
        if values:
            fields[prefix[:-1]] = values
    evidence = {name: row[name] for name in EVIDENCE_COLUMNS if name in row}
    if evidence:
        fields["evidence"] = [evidence]
    return fields


def _list(cell: str) -> list[Any]:
    if cell.lstrip().startswith("["):
        try:
            value = json.loads(cell)
        except json.JSONDecodeError:
            value = None
        if isinstance(value, list):
            return value
    return [part.strip() for part in cell.split("|") if part.strip()]


def _add_row(raw: RawQuestion, found: dict[str, RawQuestion], mistakes: list[str]) -> None:
    """A new question, or further evidence of one above."""
    key = str(raw.fields.get("id", f"(line {raw.line})"))
    first = found.get(key)
    if first is None:
        found[key] = raw
        return
    stated = {name: value for name, value in raw.fields.items() if name not in ("id", "evidence") and value is not None}
    other = sorted(name for name, value in stated.items() if first.fields.get(name) != value)
    if other:
        mistakes.append(
            f"{raw.where}: {other[0]}: differs from line {first.line}, which has the same id; leave it empty in rows "
            "that only add evidence, or give the row an id of its own"
        )
    elif "evidence" not in raw.fields:
        mistakes.append(f"{raw.where}: id: {key!r} is already used in line {first.line}")
    else:
        evidence = [*first.fields.get("evidence", []), *raw.fields["evidence"]]
        found[key] = RawQuestion(first.path, first.line, {**first.fields, "evidence": evidence})
