"""Rows as documents: what the kinds ``table`` and ``sql`` share.

Belongs here: which columns make a document, its path, and its Markdown. Does not belong here: where rows come from.

A row becomes Markdown: its facts as front matter, which the parser of Markdown reads, and below it the text column or
what the template makes of the row.
"""

import difflib
import hashlib
import json
import re
import unicodedata
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from functools import cached_property
from typing import Any
from urllib.parse import quote
from uuid import UUID

from pydantic import Field, model_validator

from resources.config_base import Strict
from resources.errors import ConfigError
from resources.fingerprint import canonical_json, fingerprint
from resources.sources.base import (
    DocumentRefusedError,
    DocumentTooLargeError,
    PathFilter,
    RefusedEntry,
    SourceEntry,
    SourceSettings,
)

#: Raised by hand when the same row would become other bytes.
CODE_VERSION = "1"
#: The parser reads front matter up to this length.
_MAXIMUM_FACTS = 60_000
#: More bad rows than this, and more than there are good ones, and the configuration is wrong rather than the rows.
_MAXIMUM_BAD_ROWS = 1000
_MARKDOWN = (".md", ".markdown")
_DIGEST_BYTES = 16

_UNFIT_IDS = (bool, float, bytes, bytearray, memoryview, Mapping, list, tuple, set)

Row = Mapping[str, Any]


class BadRowError(Exception):
    """A row that cannot become a document; the message says why, without its values."""


class RowColumns(Strict):
    """Which columns hold what."""

    id: str | list[str] = Field(description="Names a row for ever; several columns together may.")
    text: str | None = Field(default=None, description="Column with the document's text, as Markdown.")
    title: str | None = Field(default=None, description="Column with its title.")
    language: str | None = Field(default=None, description="Column with its language code.")
    licence: str | None = Field(default=None, description="Column with its licence.")
    modified: str | None = Field(default=None, description="When the row says it was last changed.")
    metadata: list[str] = Field(default=[], description="Further columns kept with the document.")


class RowSettings(SourceSettings):
    """Fields of every kind whose documents are rows."""

    columns: RowColumns = Field(description="Which columns hold the id, the text and the facts of a document.")
    template: str | None = Field(
        default=None, description="Jinja2 in place of columns.text; columns by name, or all of them as `row`."
    )
    extension: str = Field(default=".md", pattern=r"^\.[a-z0-9]{1,8}$", description="Decides how the text is parsed.")

    @model_validator(mode="after")
    def _consistent(self) -> "RowSettings":
        if (self.columns.text is None) == (self.template is None):
            raise ValueError("say either columns.text or template")
        if not self.columns.id:
            raise ValueError("columns.id: name at least one column")
        if self.extension not in _MARKDOWN:
            stated = [name for name in ("title", "language", "licence", "modified", "metadata") if self._facts(name)]
            if stated:
                raise ValueError(f"columns.{stated[0]} needs extension .md, where facts stand before the text")
        if self.template is not None:
            RowWriter(self).check_template()
        return self

    def _facts(self, name: str) -> Any:
        return getattr(self.columns, name)


class RowWriter:
    """Makes documents of rows by the settings of a source."""

    def __init__(self, settings: RowSettings) -> None:
        self._settings = settings
        columns = settings.columns
        self._ids = [columns.id] if isinstance(columns.id, str) else columns.id

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything beside the row that decides over its bytes."""
        settings = self._settings
        return fingerprint([CODE_VERSION, settings.columns.fingerprint(), settings.template, settings.extension])

    @property
    def ids(self) -> Sequence[str]:
        """The columns that name a row."""
        return self._ids

    @cached_property
    def needed(self) -> Sequence[str] | None:
        """Every column a document is made of, or None: the template asks for all of them."""
        columns = self._settings.columns
        named = [columns.text, columns.title, columns.language, columns.licence, columns.modified]
        needed = [*self._ids, *(name for name in named if name), *columns.metadata]
        if self._settings.template is not None:
            from jinja2 import meta

            used = meta.find_undeclared_variables(self._environment.parse(self._settings.template))
            if "row" in used:
                return None
            needed += sorted(used)
        return list(dict.fromkeys(needed))

    def check_columns(self, present: Iterable[str], place: str) -> None:
        """Make sure that every needed column is there.

        Raises:
            ConfigError: naming the column, those there are, and the nearest.
        """
        known = list(present)
        for name in self.needed or self._ids:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
                hint = f" Did you mean {close[0]!r}?" if close else ""
                shown = ", ".join(known[:40]) + (", ..." if len(known) > 40 else "")
                raise ConfigError(
                    f"sources.yaml: source {self._settings.name!r}: {place} has no column {name!r}; it has: {shown}.{hint}"
                )

    def check_template(self) -> None:
        """Raise ``ValueError`` when the template is no Jinja2."""
        from jinja2 import TemplateSyntaxError

        try:
            self._environment.parse(self._settings.template or "")
        except TemplateSyntaxError as error:
            raise ValueError(f"template: line {error.lineno}: {error.message}") from error

    def path(self, row: Row) -> str:
        """The path of a row's document.

        Raises:
            BadRowError: a column that names it is empty, or cannot name anything.
        """
        parts = []
        for name in self._ids:
            value = row.get(name)
            if isinstance(value, _UNFIT_IDS):
                raise BadRowError(f"the column {name!r}, which names the row, is a {type(value).__name__}")
            if value is None or not (text := str(value).strip()):
                raise BadRowError(f"the column {name!r}, which names the row, is empty")
            parts.append(quote_id(text))
        return "/".join(parts) + self._settings.extension

    def check(self, row: Row) -> None:
        """Raise ``BadRowError`` when the row cannot become a document, as far as that is known without making it."""
        if self._settings.columns.text is not None:
            value = row.get(self._settings.columns.text)
            if value is None:
                raise BadRowError(f"the column {self._settings.columns.text!r} is missing or null")
            if not isinstance(value, str):
                raise BadRowError(f"the column {self._settings.columns.text!r} is no text but {type(value).__name__}")

    def write(self, row: Row, limit: int | None = None) -> bytes:
        """The document of a row.

        Raises:
            DocumentRefusedError: the template fails on this row, or its facts are too long.
            DocumentTooLargeError: it has more bytes than ``limit``.
        """
        try:
            facts = self._front_matter(row)
            text = self._text(row)
            data = (facts + text).encode("utf-8")
        except BadRowError as error:
            raise DocumentRefusedError("bad_row", str(error)) from error
        except UnicodeEncodeError as error:
            raise DocumentRefusedError("bad_row", "the row holds half a character (a lone surrogate)") from error
        if limit is not None and len(data) > limit:
            raise DocumentTooLargeError(len(data))
        return data

    def digest(self, row: Row) -> bytes:
        """Hash of everything in a row that decides over its document."""
        needed = self.needed
        values = {str(name): canonical(value) for name, value in row.items() if needed is None or name in needed}
        text = f"{self.fingerprint}{canonical_json(values)}"
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES).digest()

    def raw_digest(self, data: bytes) -> bytes:
        """Hash of a row's bytes as they stand in a file."""
        return hashlib.blake2b(data, digest_size=_DIGEST_BYTES, key=self.fingerprint.encode()).digest()

    @cached_property
    def _environment(self) -> Any:
        from jinja2 import StrictUndefined
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        return ImmutableSandboxedEnvironment(autoescape=False, undefined=StrictUndefined, keep_trailing_newline=True)

    @cached_property
    def _template(self) -> Any:
        return self._environment.from_string(self._settings.template)

    def _text(self, row: Row) -> str:
        if self._settings.columns.text is not None:
            self.check(row)
            return row[self._settings.columns.text]
        from jinja2 import UndefinedError

        named = {str(name): "" if value is None else value for name, value in row.items()}
        try:
            return self._template.render({**named, "row": named})
        except UndefinedError as error:
            raise BadRowError(f"template: {error.message}") from error
        except Exception as error:  # whatever a filter raises on a value; its message may quote the value
            raise BadRowError(f"template: {type(error).__name__}") from error

    def _front_matter(self, row: Row) -> str:
        columns = self._settings.columns
        facts = {name: _fact(row.get(name)) for name in columns.metadata}
        stated = {
            "title": columns.title, "language": columns.language, "licence": columns.licence, "updated": columns.modified
        }  # fmt: skip
        for key, name in stated.items():
            if name is not None:
                facts.pop(key, None)
                facts[key] = _fact(row.get(name))
        facts = {key: value for key, value in facts.items() if value not in (None, "")}
        if not facts:
            return ""
        import yaml

        text = yaml.safe_dump(facts, allow_unicode=True, sort_keys=True, width=1_000_000)
        if len(text) > _MAXIMUM_FACTS:
            raise BadRowError(f"the metadata of the row has {len(text):,} characters, allowed are {_MAXIMUM_FACTS:,}")
        return f"---\n{text}---\n"


def quote_id(value: str) -> str:
    """An id as one part of a path: different ids never give the same, and none leads anywhere else.

    Letters and digits of any script and ``-_.~ `` stay; anything else is percent-encoded, as is a dot at the beginning.
    A long one is cut, with a hash in place of the rest.
    """
    composed = unicodedata.normalize("NFC", value) == value
    quoted = "".join(
        character
        if (character.isascii() and (character.isalnum() or character in "-_.~"))
        or (composed and not character.isascii() and character.isalnum())
        else quote(character.encode("utf-8", "surrogatepass"), safe="")
        for character in value
    )
    if not composed or unicodedata.normalize("NFC", quoted) != quoted:
        quoted = quote(value.encode("utf-8", "surrogatepass"), safe="-_.~")
    if quoted.startswith("."):
        quoted = f"%2E{quoted[1:]}"
    if len(quoted.encode()) > 200:
        digest = hashlib.blake2b(value.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        quoted = f"{quoted.encode()[:150].decode('utf-8', 'ignore')}-{digest}"
    return quoted


def _fact(value: Any) -> Any:
    """A value as front matter can hold it."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | datetime | date) or value is None:
        return value
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    if isinstance(value, Decimal | UUID | time):
        return str(value)
    if isinstance(value, list | tuple) and all(isinstance(item, str | int | float) for item in value):
        return list(value)[:100]
    if isinstance(value, Mapping | list | tuple):
        return json.dumps(canonical(value), ensure_ascii=False, sort_keys=True)
    raise BadRowError(f"a metadata column holds a {type(value).__name__}")


def canonical(value: Any) -> Any:
    """A value as JSON, so that equal values give equal text and different ones do not."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if abs(value) < float("inf") else {"float": str(value)}
    if isinstance(value, datetime | date | time):
        return {type(value).__name__: value.isoformat()}
    if isinstance(value, bytes | bytearray | memoryview):
        return {"bytes": bytes(value).hex()}
    if isinstance(value, Mapping):
        return {"map": [[canonical(key), canonical(item)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return [canonical(item) for item in value]
    return {type(value).__name__: str(value)}


class RowIndex:
    """Where the rows of a listing are, in little memory: about 150 bytes for a row, its path included.

    Rows are added with their path and a digest; two rows of the same path are both refused, since nobody can say which
    of them is the document.
    """

    def __init__(self, settings: RowSettings) -> None:
        self._filter = PathFilter(settings)
        self._name = settings.name
        self.paths: list[str] = []
        self.sizes = array("Q")
        self._digests = bytearray()
        self._known: dict[str, int] = {}
        self._twice: dict[str, list[int]] = {}
        self._refused: dict[str, RefusedEntry] = {}
        self.skipped = 0

    def __len__(self) -> int:
        return len(self.paths)

    def add(self, path: str, digest: bytes, size: int) -> bool:
        """Add a row; False: it is not included, and has no place in the index."""
        if self._filter.excludes_above(path) or not self._filter.includes(path):
            self.skipped += 1
            return False
        first = self._known.setdefault(path, len(self.paths))
        if first != len(self.paths):
            self._twice.setdefault(path, [first]).append(len(self.paths))
        self.paths.append(path)
        self.sizes.append(size)
        self._digests += digest.ljust(_DIGEST_BYTES, b"\x00")
        return True

    def refuse(self, path: str, code: str, reason: str) -> None:
        """A row that cannot become a document.

        Raises:
            ConfigError: so many cannot that the configuration must be wrong.
        """
        self._refused[path] = RefusedEntry(path, code, reason)
        if len(self._refused) > max(_MAXIMUM_BAD_ROWS, len(self.paths)):
            raise ConfigError(
                f"sources.yaml: source {self._name!r}: {len(self._refused):,} rows cannot become documents and "
                f"{len(self.paths):,} can; the last one, {path}: {reason}"
            )

    def digest(self, number: int) -> bytes:
        """The digest of a row."""
        return bytes(self._digests[number * _DIGEST_BYTES : (number + 1) * _DIGEST_BYTES])

    def finish(
        self, entry: Callable[[int], SourceEntry], where: Callable[[int], str]
    ) -> tuple[Sequence[SourceEntry], Sequence[RefusedEntry]]:
        """The entries in order of row, made as they are asked for, and what was refused; ``where`` names a row."""
        dropped = set()
        for path, rows in self._twice.items():
            dropped.update(rows)
            places = " and ".join(where(row) for row in rows[:3])
            more = f" and {len(rows) - 3} more" if len(rows) > 3 else ""
            self.refuse(path, "duplicate_id", f"{places}{more} have the same id; nobody can say which one counts")
        self._known.clear()
        self._twice.clear()
        kept = array("Q", (number for number in range(len(self.paths)) if number not in dropped))
        return RowEntries(kept, entry), [self._refused[path] for path in sorted(self._refused)]


class RowEntries(Sequence[SourceEntry]):
    """Entries that are made when they are asked for."""

    def __init__(self, rows: "array[int]", entry: Callable[[int], SourceEntry]) -> None:
        self._rows = rows
        self._entry = entry

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return [self._entry(row) for row in self._rows[number]]
        return self._entry(self._rows[number])

    def __iter__(self) -> Iterator[SourceEntry]:
        return map(self._entry, self._rows)


def column_name(value: str) -> str:
    """A header cell as the name of a column."""
    return re.sub(r"\s+", " ", value).strip()
