"""Writing: the folder every importer makes.

Belongs here: documents, question file, a header to start from, and the report. Does not belong here: any format.

``TARGET/documents/`` is a source, ``TARGET/questions.jsonl`` the questions about it, ``TARGET/dataset.yaml`` a header
for ``data/evaluation``.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from assets.corpus.text import normalise
from resources.errors import ConfigError

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,119}")
_SHOWN = 5


@dataclass
class ImportReport:
    """What an import wrote.

    Attributes:
        evidence: pieces of evidence.
        skipped: (id, why) of what could not be taken over.
    """

    documents: int = 0
    questions: int = 0
    unanswerable: int = 0
    evidence: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)

    def describe(self) -> str:
        """One line for a person."""
        counts = f"{self.documents} documents, {self.questions} questions, {self.unanswerable} unanswerable"
        if not self.skipped:
            return counts
        shown = "; ".join(f"{name}: {why}" for name, why in self.skipped[:_SHOWN])
        more = f" and {len(self.skipped) - _SHOWN} more" if len(self.skipped) > _SHOWN else ""
        return f"{counts}, {len(self.skipped)} skipped ({shown}{more})"


class Target:
    """The folder an importer writes; questions go to disk as they come.

    Args:
        name: name of the source the documents will be loaded as.
        form, source: the format and where it was read from; every question says so in its provenance.
    """

    def __init__(self, folder: Path, name: str, form: str, source: Path) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", name):
            raise ConfigError(f"{name!r} cannot be the name of a source: small letters, digits, - and _, at most 63")
        self.folder = folder
        self.name = name
        self.report = ImportReport()
        self._origin = {"kind": "import", "format": form, "from": source.resolve().name}
        self._documents = folder / "documents"
        self._documents.mkdir(parents=True, exist_ok=True)
        self._ids: set[str] = set()
        self._lines = (folder / "questions.jsonl").open("w", encoding="utf-8", newline="\n")

    def __enter__(self) -> "Target":
        return self

    def __exit__(self, *problem: object) -> None:
        self._lines.close()

    def document(self, path: str, text: str) -> str:
        """Write a document and return its text as the corpus will have it: positions must hold in that."""
        text = normalise(text)
        file = self._documents / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n", encoding="utf-8", newline="\n")
        self.report.documents += 1
        return text

    def place(self, path: str) -> str:
        """How evidence names a document."""
        return f"{self.name}/{path}"

    def question(self, line: dict[str, Any]) -> None:
        """Write a question; a second one of the same id is skipped."""
        if line["id"] in self._ids:
            self.skip(line["id"], "the id is used twice")
            return
        self._ids.add(line["id"])
        self._lines.write(
            json.dumps({**line, "provenance": line.get("provenance") or self._origin}, ensure_ascii=False)
        )
        self._lines.write("\n")
        self.report.questions += 1
        self.report.unanswerable += not line["evidence"]
        self.report.evidence += len(line["evidence"])

    def skip(self, identity: str, why: str) -> None:
        """Report what could not be taken over."""
        self.report.skipped.append((identity, why))

    def header(self, **settings: Any) -> None:
        """Write the header to start from."""
        header = {"name": self.name, "questions": "questions.jsonl", "sources": [self.name], **settings}
        text = yaml.safe_dump(header, sort_keys=False, allow_unicode=True)
        (self.folder / "dataset.yaml").write_text(text, encoding="utf-8", newline="\n")


def halves(key: str) -> str:
    """``dev`` or ``test``: everything under one key is in one of them, and stays there."""
    return "dev" if hashlib.sha256(key.encode()).digest()[0] % 2 else "test"


def file_name(identity: str, suffix: str) -> str:
    """A name for the file of a document with a foreign id: the id where that is a plain name, else a hash of it."""
    if _PLAIN_NAME.fullmatch(identity):
        return f"{identity}{suffix}"
    return f"{hashlib.sha256(identity.encode()).hexdigest()[:24]}{suffix}"


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of each line.

    Raises:
        ConfigError: naming file and line.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ConfigError(f"{path}:{number}: expected an object")
                yield number, row
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: the file is missing") from error
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}: not valid JSON: {error.msg} at column {error.colno} of a line") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text at byte {error.start}") from error


def field_of(row: dict[str, Any], name: str, where: str) -> Any:
    """A field that has to be there.

    Raises:
        ConfigError: it is not.
    """
    if name not in row:
        raise ConfigError(f"{where}: field {name!r} is missing")
    return row[name]
