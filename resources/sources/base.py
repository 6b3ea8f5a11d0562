"""What every kind of source is made of: settings, entries, listings, and the rules about paths.

Belongs here: the interface, and helpers that keep a kind to one file.
Does not belong here: any one kind, and finding a kind by its name (registry.py).

A kind is a ``SourceKind``: a model of its settings and a function that opens it. docs/sources.md has a complete example.
"""

import os
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Protocol

from pydantic import Field

from resources.config_base import Name, Strict
from resources.errors import ConfigError, GenaiopsError
from resources.fingerprint import fingerprint

#: Longer paths do not fit into the database's index over them.
MAXIMUM_PATH_BYTES = 1000

# --- settings ---------------------------------------------------------------------------------------------


class SourceSettings(Strict):
    """What every source says about itself, whatever its kind; a kind adds its own fields."""

    #: Fields that cannot change what is read or made of it.
    DESCRIPTIVE: ClassVar[frozenset[str]] = frozenset({"owner", "permission", "label", "shards"})

    kind: str
    name: Name
    include: list[str] = Field(default=["**/*"], min_length=1, description="Glob patterns of paths that are read.")
    exclude: list[str] = Field(default=[], description="Glob patterns that win over include.")
    licence: str | None = Field(default=None, description="Licence of documents that do not state their own.")
    permission: str | None = Field(
        default=None, description="Why these documents may be used: a contract, a licence, a decision; for audits."
    )
    owner: str | None = Field(default=None, description="Who is asked when a document is wrong.")
    label: str | None = Field(
        default=None,
        pattern=r"^[a-z][a-z0-9_-]{0,62}$",
        description="Confidentiality; a caller without this label never sees its documents. None: everybody may.",
    )
    language: str | None = Field(default=None, description="Language code where detection is not wanted.")
    maximum_bytes: int | None = Field(
        default=None, ge=1, description="Larger documents go to quarantine; in place of policies/corpus.yaml."
    )
    keep_days: int | None = Field(
        default=None,
        ge=1,
        description="Documents that were last changed earlier than so many days ago leave the corpus.",
    )
    shards: int = Field(default=1, ge=1, le=256, description="Partitions, each refreshed by a run of its own.")
    main_content: bool = Field(
        default=False, description="Of HTML, keep the article alone, without navigation and boilerplate."
    )
    recognise: list[str] = Field(
        default=[], description="Installed recognisers that read pictures and pages without text (docs/parsing.md)."
    )
    timeout_seconds: float = Field(
        default=60.0, gt=0, le=3600, description="For parsing one document; then it goes to quarantine."
    )

    def fingerprint(self) -> str:
        """Hash of the fields that can change a document, or which documents there are."""
        return fingerprint(self.model_dump(mode="json", exclude=set(self.DESCRIPTIVE)))


# --- what a source lists ------------------------------------------------------------------------------------


class DocumentVanishedError(GenaiopsError):
    """The document was listed but is gone: to be treated as never listed."""


class DocumentUnreadableError(GenaiopsError):
    """The document exists but cannot be fetched just now; the message says why, without its content."""


class DocumentRefusedError(GenaiopsError):
    """The document's content, as it is, can never enter; the message says why, without quoting it.

    In contrast to ``DocumentUnreadableError`` this holds until the content changes, so it is remembered.
    """

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class DocumentTooLargeError(GenaiopsError):
    """Reading stopped, because the document is longer than the limit.

    Attributes:
        size: bytes known of; at least one more than the limit.
    """

    def __init__(self, size: int) -> None:
        super().__init__(f"at least {size:,} bytes")
        self.size = size


class Fetch(Protocol):
    """Returns the raw bytes of one document."""

    def __call__(self, limit: int | None = None) -> bytes:
        """Read it.

        Args:
            limit: stop after so many bytes: a document may have grown since it was listed.

        Raises:
            DocumentVanishedError, DocumentUnreadableError, DocumentRefusedError, DocumentTooLargeError: about this one.
            TransientError: the place cannot be reached just now; nothing is known about the document.
        """
        ...


@dataclass(frozen=True, slots=True)
class SourceEntry:
    """One document as a source lists it.

    Attributes:
        path: its name inside the source: relative, POSIX separators, Unicode NFC, stable; see ``safe_path``.
        size: bytes, as listed; 0 where that is not known before reading. The content may differ.
        fetch: returns the raw bytes.
        mark: changes when the content may have changed, e.g. mtime_ns; for ``fingerprint`` of the source only.
        modified: when the source says it was last changed, if it says so.
        provenance: where exactly it came from, e.g. a URL or a commit; JSON-able, without credentials. Kept with the
            document version.
        identity: when not None, the source vouches that equal identity at an equal path means equal content (a git
            blob, a strong ETag, the hash of a row), so that it need not be fetched again.
        confirm: asked after ``fetch``: whether what was fetched is what ``identity`` names. None: it always is.
    """

    path: str
    size: int
    fetch: Fetch
    mark: str = ""
    modified: datetime | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    identity: str | None = None
    confirm: Callable[[], bool] | None = None


@dataclass(frozen=True, slots=True)
class RefusedEntry:
    """Something listed that can never be fetched, so that it is shown in quarantine instead of being ignored."""

    path: str
    code: str
    reason: str


@dataclass(frozen=True)
class Listing:
    """What a source holds now.

    Attributes:
        entries: what can be fetched, in an order that is cheap to read; paths are unique. Gone through once, so it may
            make its members as they are asked for.
        refused: what cannot; paths are unique and none is in ``entries``.
        skipped: how many files were left out on purpose, by reason.
        prefetch: told which entries are fetched next, a batch at a time, to get them in one request.
        state: names this listing, e.g. a commit; remembered when the refresh commits.
        renames_since: given the ``state`` of the last commit, paths now to paths then of documents that moved *and*
            changed. Only a hint; pairs of equal content are found without it.
        kept: when not None, part of the place could not be looked at: whether a document of this path, which is not
            listed, may still be there; it stays as it is. None: what is not listed is gone.
    """

    entries: Sequence[SourceEntry]
    refused: Sequence[RefusedEntry] = ()
    skipped: Mapping[str, int] = field(default_factory=dict)
    prefetch: Callable[[Sequence[SourceEntry]], None] | None = None
    state: str | None = None
    renames_since: Callable[[str], Mapping[str, str]] | None = None
    kept: Callable[[str], bool] | None = None


class DocumentSource(Protocol):
    """A place documents come from."""

    def list(self) -> Listing:
        """List everything the configuration includes.

        Raises:
            ConfigError: the place does not exist, or may not be read. It is never reported as empty: that would delete
                its documents.
            TransientError: it cannot be listed completely just now.
        """
        ...

    def fingerprint(self) -> str:
        """A cheap hash that changes when the listing may have changed; for sensors. Raises like ``list``."""
        ...


@dataclass(frozen=True)
class SourceContext:
    """What a kind is opened with, beside its settings.

    Attributes:
        data_dir: relative paths in the configuration start here.
        state_dir: for what a kind keeps between refreshes and could make again; below ``sources/NAME``.
        environment: where secrets are: the configuration holds only names of variables.
    """

    data_dir: Path
    state_dir: Path
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)

    def path(self, value: str) -> Path:
        """A path of the configuration as an absolute one."""
        return (self.data_dir / Path(value).expanduser()).absolute()

    def secret(self, source: str, key: str, variable: str | None) -> str | None:
        """The value of an environment variable the configuration names at ``key``; None when it names none.

        Raises:
            ConfigError: the variable is not set.
        """
        if variable is None:
            return None
        if not self.environment.get(variable):
            raise ConfigError(f"sources.yaml: source {source!r}: {key}: the environment variable {variable} is not set")
        return self.environment[variable]


@dataclass(frozen=True)
class SourceKind:
    """A kind of source: what an entry point of the group ``genaiops.sources`` names.

    Attributes:
        settings: its configuration model.
        open: opens one source of this kind; does not touch the place yet, so that its absence is an error of ``list``.
    """

    settings: type[SourceSettings]
    open: Callable[[SourceContext, Any], DocumentSource]


# --- paths --------------------------------------------------------------------------------------------------

_HIDING = frozenset("\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")


def safe_path(raw: str | bytes) -> tuple[str, str | None]:
    """A name as a source has it, made fit for a path, and why it is not, if it is not.

    Returns:
        The path in Unicode NFC, printable also when it is refused, and the reason or None.
    """
    if isinstance(raw, str):
        raw = raw.encode("utf-8", "surrogateescape" if not _has_lone_surrogate(raw) else "surrogatepass")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return _printable(raw.decode("utf-8", "backslashreplace")), "the name is not valid UTF-8; rename it"
    path = unicodedata.normalize("NFC", text)
    segments = path.split("/")
    reason = None
    if not path.isprintable() and any(
        unicodedata.category(character) == "Cc" or character in _HIDING for character in path
    ):
        reason = "the name holds control characters; rename it"
    elif "\\" in path:
        reason = "the name holds a backslash, which some systems take for a folder; rename it"
    elif not path or path.startswith("/") or re.match(r"[A-Za-z]:(/|$)", path):
        reason = "the name is not relative to the source"
    elif any(segment in ("", ".", "..") for segment in segments):
        reason = "the name has an empty, '.' or '..' part, which could lead out of the source"
    elif len(path.encode()) > MAXIMUM_PATH_BYTES:
        reason = f"the name is longer than {MAXIMUM_PATH_BYTES} bytes; shorten it"
    return (path if reason is None else _printable(path)), reason


def _has_lone_surrogate(text: str) -> bool:
    """Whether it holds surrogates other than those that stand for undecodable bytes."""
    return any("\ud800" <= character <= "\udfff" and not "\udc80" <= character <= "\udcff" for character in text)


def _printable(text: str) -> str:
    shown = "".join(
        character.encode("unicode_escape").decode()
        if unicodedata.category(character) in ("Cc", "Cs") or character in _HIDING
        else character
        for character in text
    )
    if len(shown.encode()) > MAXIMUM_PATH_BYTES:
        shown = f"{shown[:200]}... ({fingerprint(shown)})"
    return shown or "(no name)"


@cache
def compile_glob(pattern: str) -> re.Pattern[str]:
    """Compile a glob: ``*`` and ``?`` stay inside a path segment, ``**`` spans segments, ``[abc]`` is a class."""
    pattern = unicodedata.normalize("NFC", pattern).removeprefix("./").rstrip("/")
    parts: list[str] = []
    position = 0
    while position < len(pattern):
        character = pattern[position]
        if pattern.startswith("**/", position):
            parts.append("(?:[^/]+/)*")
            position += 3
            continue
        if pattern.startswith("**", position):
            parts.append(".*")
            position += 2
            continue
        closing = pattern.find("]", position + 2) if character == "[" else -1
        if closing > 0:
            members = pattern[position + 1 : closing]
            negated = members.startswith("!")
            parts.append(f"[{'^/' if negated else ''}{re.escape(members[negated:]).replace(chr(92) + '-', '-')}]")
            position = closing + 1
            continue
        parts.append({"*": "[^/]*", "?": "[^/]"}.get(character) or re.escape(character))
        position += 1
    return re.compile("".join(parts), re.DOTALL)


class PathFilter:
    """The include and exclude patterns of a source."""

    def __init__(self, settings: SourceSettings) -> None:
        self._include = [compile_glob(pattern) for pattern in settings.include]
        self._exclude = [compile_glob(pattern) for pattern in settings.exclude]
        self._everything = settings.include == ["**/*"]

    def excludes(self, path: str) -> bool:
        """Whether a file or a folder is left out, with everything below it."""
        return any(pattern.fullmatch(path) for pattern in self._exclude)

    def excludes_above(self, path: str) -> bool:
        """Whether a file or any folder it is in is left out."""
        if not self._exclude:
            return False
        ends = [position for position, character in enumerate(path) if character == "/"]
        return any(self.excludes(path[:end]) for end in (*ends, len(path)))

    def includes(self, path: str) -> bool:
        """Whether a file is wanted, exclusion apart."""
        return self._everything or any(pattern.fullmatch(path) for pattern in self._include)


class Collector:
    """Gathers what a place holds into a ``Listing``: patterns, hidden files, safe paths, names that collide.

    For kinds whose places list all their files at once. ``accept`` says whether a file is wanted and under which path;
    then ``add`` it, or ``refuse`` it.
    """

    def __init__(self, settings: SourceSettings, *skipped: str) -> None:
        self._filter = PathFilter(settings)
        self._entries: dict[str, SourceEntry] = {}
        self._refused: dict[str, RefusedEntry] = {}
        self._skipped = dict.fromkeys(("hidden", *skipped, "not included"), 0)

    def accept(self, raw: str | bytes) -> str | None:
        """The path of a file, or None: it is not wanted, or was refused for its name."""
        path, reason = safe_path(raw)
        if any(segment.startswith(".") and segment.strip(".") for segment in path.split("/")):
            self.skip("hidden")
        elif self._filter.excludes_above(path) or not self._filter.includes(path):
            self.skip("not included")
        elif reason:
            self.refuse(path, "file_name", reason)
        else:
            return path
        return None

    def add(self, entry: SourceEntry) -> None:
        """List a document; a second one of the same path is refused."""
        if entry.path in self._entries:
            self.refuse(entry.path, "file_name", "another file has the same name in another Unicode form")
        else:
            self._entries[entry.path] = entry

    def refuse(self, path: str, code: str, reason: str) -> None:
        """List something that can never be fetched."""
        number, free = 1, path
        while free in self._refused or free in self._entries:
            number += 1
            free = f"{path} ({number})"
        self._refused[free] = RefusedEntry(free, code, reason)

    def skip(self, reason: str, count: int = 1) -> None:
        """Count what is left out on purpose."""
        self._skipped[reason] = self._skipped.get(reason, 0) + count

    def listing(self, **more: Any) -> Listing:
        """Everything gathered, in order of path; ``more``: further attributes of the listing."""
        entries = [self._entries.pop(path) for path in sorted(self._entries)]
        return Listing(entries, [self._refused[path] for path in sorted(self._refused)], self._skipped, **more)


# --- reading ------------------------------------------------------------------------------------------------


def read_limited(stream: BinaryIO, limit: int | None) -> bytes:
    """Read a stream to its end, but never more than ``limit`` bytes and one.

    Raises:
        DocumentTooLargeError: it is longer.
    """
    if limit is None:
        return stream.read()
    pieces: list[bytes] = []
    left = limit + 1
    while left > 0 and (piece := stream.read(min(left, 1 << 20))):
        pieces.append(piece)
        left -= len(piece)
    if left <= 0:
        raise DocumentTooLargeError(limit + 1)
    return b"".join(pieces)
