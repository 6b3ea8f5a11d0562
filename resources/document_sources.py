"""Document sources: where documents are listed and fetched from.

Belongs here: the interface every kind of source implements, and the local folder.
Does not belong here: parsing, policies, and the comparison with what is already known (assets/corpus).

A further kind (git, HTTP, an object store) is one class that implements ``DocumentSource``, one configuration model
in resources/config.py, and one line in ``_KINDS``.
"""

import os
import re
import stat
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from resources.config import ProjectConfig
from resources.errors import ConfigError, GenaiopsError, TransientError
from resources.fingerprint import fingerprint
from resources.source_config import FolderSource, SourceConfig


class DocumentVanishedError(GenaiopsError):
    """The document was listed but is gone: to be treated as never listed."""


class DocumentUnreadableError(GenaiopsError):
    """The document exists but cannot be fetched; the message says why, without its content."""


@dataclass(frozen=True)
class SourceEntry:
    """One document as a source lists it.

    Attributes:
        path: its name inside the source: POSIX separators, Unicode NFC, relative, stable.
        size: bytes, as listed; the fetched content may differ when the source changes meanwhile.
        fetch: returns the raw bytes; raises ``DocumentVanishedError`` or ``DocumentUnreadableError``.
        mark: changes when the content may have changed, e.g. mtime_ns, an ETag or a blob id. Only ever a hint: the
            refresh compares content hashes.
        modified: when the source says it was last changed, if it says so.
        provenance: where exactly it came from, e.g. a URL or a commit; JSON-able.
    """

    path: str
    size: int
    fetch: Callable[[], bytes]
    mark: str
    modified: datetime | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RefusedEntry:
    """Something listed that can never be fetched, so that it is shown in quarantine instead of being ignored."""

    path: str
    code: str
    reason: str


@dataclass(frozen=True)
class Listing:
    """What a source holds now, in order of path.

    Attributes:
        entries: what can be fetched; paths are unique.
        refused: what cannot; paths are unique and none is in ``entries``.
        skipped: how many files were left out on purpose, by reason.
    """

    entries: list[SourceEntry]
    refused: list[RefusedEntry]
    skipped: dict[str, int]


class DocumentSource(Protocol):
    """A place documents come from."""

    def list(self) -> Listing:
        """List everything the configuration includes.

        Raises:
            ConfigError: the place does not exist. It is never reported as empty: that would delete its documents.
            TransientError: it cannot be listed completely just now.
        """
        ...

    def fingerprint(self) -> str:
        """A cheap hash that changes when the listing may have changed; for sensors. Raises like ``list``."""
        ...


def open_source(config: ProjectConfig, source: str) -> DocumentSource:
    """Open a configured source by name.

    Raises:
        ConfigError: no source of that name is configured.
    """
    if source not in config.sources:
        raise ConfigError(f"there is no source named {source!r}; configured: {', '.join(config.sources)}")
    settings = config.sources[source]
    return _KINDS[settings.kind](config, settings)


class LocalFolder:
    """A folder on this machine.

    Hidden files and folders are skipped. Symbolic links are skipped unless ``follow_symlinks``; a followed link must
    stay inside the folder, and a loop is entered once.
    """

    def __init__(self, name: str, root: Path, settings: FolderSource) -> None:
        self._name = name
        self._root = root
        self._settings = settings
        self._include = [_glob(pattern) for pattern in settings.include]
        self._exclude = [_glob(pattern) for pattern in settings.exclude]

    def list(self) -> Listing:
        """See ``DocumentSource.list``."""
        if not self._root.is_dir():
            what = "is not a folder" if self._root.exists() else "does not exist"
            raise ConfigError(f"sources.yaml: source {self._name!r}: path: {self._root} {what}")
        entries: dict[str, SourceEntry] = {}
        refused: dict[str, RefusedEntry] = {}
        skipped = {"hidden": 0, "symlinks": 0, "not included": 0}
        for path, item in self._walk(self._root, "", (self._root.resolve(),), skipped):
            if isinstance(item, RefusedEntry):
                refused[path] = item
            elif path in entries:
                refused[f"{path} (2)"] = RefusedEntry(
                    f"{path} (2)", "file_name", "another file has the same name in another Unicode form"
                )
            else:
                entries[path] = item
        return Listing(
            [entries[path] for path in sorted(entries)], [refused[path] for path in sorted(refused)], skipped
        )

    def fingerprint(self) -> str:
        """See ``DocumentSource.fingerprint``; from configuration, paths, sizes and modification times."""
        listing = self.list()
        return fingerprint(
            [
                self._settings.fingerprint(),
                [[entry.path, entry.size, entry.mark] for entry in listing.entries],
                [[entry.path, entry.code] for entry in listing.refused],
            ]
        )

    def _walk(
        self, folder: Path, prefix: str, ancestors: tuple[Path, ...], skipped: dict[str, int]
    ) -> Iterator[tuple[str, SourceEntry | RefusedEntry]]:
        """Yield (path, entry) for everything included below ``folder``; ``ancestors`` are real paths, against loops."""
        for item in self._scan(folder):
            if item.name.startswith("."):
                skipped["hidden"] += 1
                continue
            path = prefix + _readable_name(item.name)
            linked = item.is_symlink()
            if linked and not self._settings.follow_symlinks:
                skipped["symlinks"] += 1
                continue
            if any(pattern.fullmatch(path) for pattern in self._exclude):
                skipped["not included"] += 1
                continue
            try:
                status = item.stat()
                real = Path(item.path).resolve() if linked else Path(item.path)
            except (OSError, RuntimeError) as error:
                if isinstance(error, FileNotFoundError) and not linked:
                    continue  # deleted since the folder was read
                yield path, RefusedEntry(path, "unreadable", f"{type(error).__name__} when its status was read")
                continue
            if linked and not real.is_relative_to(ancestors[0]):
                yield path, RefusedEntry(path, "outside_source", "the symbolic link leads out of the source's folder")
            elif stat.S_ISDIR(status.st_mode):
                real = real.resolve()
                if real not in ancestors:
                    yield from self._walk(Path(item.path), f"{path}/", (*ancestors, real), skipped)
            elif not any(pattern.fullmatch(path) for pattern in self._include):
                skipped["not included"] += 1
            elif not stat.S_ISREG(status.st_mode):
                yield path, RefusedEntry(path, "not_a_file", "a device, pipe or socket, not a regular file")
            elif _readable_name(item.name) != unicodedata.normalize("NFC", item.name):
                yield path, RefusedEntry(path, "file_name", "the file name is not valid UTF-8; rename the file")
            else:
                yield path, _entry(path, Path(item.path), status)

    def _scan(self, folder: Path) -> Sequence[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as items:
                return sorted(items, key=lambda item: item.name)
        except FileNotFoundError:
            if folder == self._root:
                raise
            return []  # deleted since its parent was read
        except OSError as error:
            # Not an empty folder: that would take the documents below it for deleted.
            raise TransientError(
                f"source {self._name!r}: the folder {folder} cannot be listed ({type(error).__name__}); "
                "give this user the right to read it, or exclude it"
            ) from error


def _entry(path: str, file: Path, status: os.stat_result) -> SourceEntry:
    def fetch() -> bytes:
        try:
            return file.read_bytes()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise DocumentVanishedError(f"{path} was deleted while the source was read") from error
        except OSError as error:
            raise DocumentUnreadableError(f"{type(error).__name__} when the file was read") from error

    return SourceEntry(
        path=path,
        size=status.st_size,
        fetch=fetch,
        mark=str(status.st_mtime_ns),
        modified=datetime.fromtimestamp(status.st_mtime, UTC),
        provenance={"kind": "folder"},
    )


def _readable_name(name: str) -> str:
    """A file name as NFC text; bytes that are not UTF-8 are shown as ``\\xNN``."""
    return unicodedata.normalize("NFC", os.fsencode(name).decode("utf-8", "backslashreplace"))


@cache
def _glob(pattern: str) -> re.Pattern[str]:
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


def _open_folder(config: ProjectConfig, settings: SourceConfig) -> DocumentSource:
    return LocalFolder(settings.name, config.source_path(settings), settings)


_KINDS: dict[str, Callable[[ProjectConfig, SourceConfig], DocumentSource]] = {"folder": _open_folder}
