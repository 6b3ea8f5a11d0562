"""The kind ``folder``: a folder on this machine.

Belongs here: walking and reading it without leaving it. Does not belong here: parsing and policies (assets/corpus).

A folder vouches for nothing (see ``SourceEntry.identity``): neither size nor modification time proves that content is
unchanged, so each refresh reads every file.
"""

import errno
import os
import stat
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import Field

from resources.errors import ConfigError, TransientError
from resources.fingerprint import fingerprint
from resources.sources.base import (
    Collector,
    DocumentTooLargeError,
    DocumentUnreadableError,
    DocumentVanishedError,
    Listing,
    PathFilter,
    SourceContext,
    SourceEntry,
    SourceKind,
    SourceSettings,
    read_limited,
    safe_path,
)


class FolderSource(SourceSettings):
    """A local folder of documents."""

    kind: Literal["folder"] = "folder"
    path: str = Field(min_length=1, description="Folder, relative to the data directory or absolute.")
    follow_symlinks: bool = Field(default=False, description="Links must stay inside the folder.")


class LocalFolder:
    """A folder on this machine.

    Hidden files and folders are skipped. Symbolic links are skipped unless ``follow_symlinks``; a followed link must
    stay inside the folder, and a loop is entered once.
    """

    def __init__(self, name: str, root: Path, settings: FolderSource) -> None:
        self._name = name
        self._root = root
        self._settings = settings
        self._filter = PathFilter(settings)

    def list(self) -> Listing:
        """See ``DocumentSource.list``."""
        if not self._root.is_dir():
            what = "is not a folder" if self._root.exists() else "does not exist"
            raise ConfigError(f"sources.yaml: source {self._name!r}: path: {self._root} {what}")
        collector = Collector(self._settings, "symlinks")
        root = self._root.resolve()
        self._walk(self._root, "", (root,), collector)
        return collector.listing()

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

    def _walk(self, folder: Path, prefix: str, ancestors: tuple[Path, ...], collector: Collector) -> None:
        """Collect everything included below ``folder``; ``ancestors`` are real paths, against loops."""
        for item in self._scan(folder):
            if item.name.startswith("."):
                collector.skip("hidden")
                continue
            name = os.fsencode(item.name).decode("utf-8", "backslashreplace")
            path = unicodedata.normalize("NFC", prefix + name)
            linked = item.is_symlink()
            if linked and not self._settings.follow_symlinks:
                collector.skip("symlinks")
                continue
            if self._filter.excludes(path):
                collector.skip("not included")
                continue
            try:
                status = item.stat()
                real = Path(item.path).resolve() if linked else Path(item.path)
            except (OSError, RuntimeError) as error:
                if isinstance(error, FileNotFoundError) and not linked:
                    continue  # deleted since the folder was read
                collector.refuse(path, "unreadable", f"{type(error).__name__} when its status was read")
                continue
            if linked and not real.is_relative_to(ancestors[0]):
                collector.refuse(path, "outside_source", "the symbolic link leads out of the source's folder")
            elif stat.S_ISDIR(status.st_mode):
                real = real.resolve()
                if real not in ancestors:
                    self._walk(Path(item.path), f"{path}/", (*ancestors, real), collector)
            elif not self._filter.includes(path):
                collector.skip("not included")
            elif not stat.S_ISREG(status.st_mode):
                collector.refuse(path, "not_a_file", "a device, pipe or socket, not a regular file")
            else:
                shown, reason = safe_path(item.name if not prefix else prefix + item.name)
                if reason:
                    collector.refuse(shown, "file_name", reason)
                else:
                    collector.add(_entry(shown, Path(item.path), status, ancestors[0]))

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


def _entry(path: str, file: Path, status: os.stat_result, root: Path) -> SourceEntry:
    return SourceEntry(
        path=path,
        size=status.st_size,
        fetch=partial(read_file, path, file, root),
        mark=str(status.st_mtime_ns),
        modified=datetime.fromtimestamp(status.st_mtime, UTC),
    )


def read_file(path: str, file: Path, root: Path, limit: int | None = None) -> bytes:
    """Read one file below ``root``, whatever it was replaced by since it was listed; see ``Fetch``."""
    try:
        # A folder on the way may have become a link; opening without blocking keeps a pipe from stopping everything.
        with open(os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
            status = os.fstat(stream.fileno())
            if stat.S_ISDIR(status.st_mode):
                raise IsADirectoryError(errno.EISDIR, "is a directory")
            if not stat.S_ISREG(status.st_mode) or not _is_below(stream.fileno(), file, root):
                raise DocumentUnreadableError("it was replaced by a link or a device while the source was read")
            if limit is not None and status.st_size > limit:
                raise DocumentTooLargeError(status.st_size)
            return read_limited(stream, limit)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DocumentVanishedError(f"{path} was deleted while the source was read") from error
    except OSError as error:
        raise DocumentUnreadableError(f"{type(error).__name__} when the file was read") from error


def _is_below(descriptor: int, file: Path, root: Path) -> bool:
    """Whether the file that is open lies below ``root``, whichever way led to it."""
    try:
        real = os.readlink(f"/proc/self/fd/{descriptor}")  # of the open file itself, so that nothing can come between
    except OSError:
        real = os.path.realpath(file)
    return real.startswith(os.path.join(root, ""))


def _open(context: SourceContext, settings: FolderSource) -> LocalFolder:
    return LocalFolder(settings.name, context.path(settings.path).resolve(), settings)


KIND = SourceKind(FolderSource, _open)
