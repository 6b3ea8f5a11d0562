"""Git states: the data directory as a commit has it, read without touching the work tree.

Belongs here: finding the repository of the data directory, naming commits, unpacking a commit's files into a folder.
Does not belong here: what is made of them (arena.py).
"""

import os
import re
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from resources.errors import PermanentError

#: Git must not refresh the index file while it looks, nor ask anybody for a password.
_ENVIRONMENT = {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
_CREDENTIALS = re.compile(r"(?<=://)[^/\s@]+@")
#: Largest file of a commit that is unpacked, in bytes; configuration is far smaller.
MAXIMUM_BYTES = 256 << 20


@dataclass(frozen=True)
class Repository:
    """The repository a data directory is in.

    Attributes:
        root: its work tree.
        prefix: the data directory in it, with ``/`` at the end; empty when it is the whole work tree.
    """

    root: Path
    prefix: str

    @property
    def _paths(self) -> list[str]:
        return [f":(top,literal){self.prefix}"] if self.prefix else []

    def commit(self, reference: str) -> str:
        """The commit a branch, tag or hash means.

        Raises:
            PermanentError: there is none; in a shallow clone the message says how to get it.
        """
        name = reference.strip()
        if not name or name.startswith("-"):
            raise PermanentError(f"{reference!r} names no commit; give a branch, a tag or a hash")
        found = _run(self.root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
        if found.returncode == 0:
            return found.stdout.decode().strip()
        shallow = _run(self.root, "rev-parse", "--is-shallow-repository").stdout.decode().strip() == "true"
        remedy = (
            "this clone is shallow: fetch all of it first (git fetch --unshallow, or fetch-depth: 0 of actions/checkout)"
            if shallow
            else f"fetch it first (git fetch origin {name.removeprefix('origin/')}), or name another one"
        )
        raise PermanentError(f"there is no commit {name!r} in {self.root}; {remedy}")

    def head(self) -> str | None:
        """The commit the work tree stands on; None before the first one."""
        found = _run(self.root, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
        return found.stdout.decode().strip() or None

    def uncommitted(self) -> int:
        """How many files of the data directory differ from the commit the work tree stands on."""
        found = _run(
            self.root, "status", "--porcelain", "-z", "--no-renames", "--untracked-files=all", "--", *self._paths
        )
        return len([line for line in found.stdout.split(b"\0") if line])

    def missing_commits(self, base: str) -> int:
        """How many commits of ``base`` that touch the data directory the work tree does not stand on."""
        found = _run(self.root, "rev-list", "--count", f"HEAD..{base}", "--", *self._paths)
        return int(found.stdout or 0) if found.returncode == 0 else 0

    def changed(self, base: str) -> list[str]:
        """Tracked files of the data directory that differ between a commit and the work tree, below that directory."""
        found = _run(self.root, "diff", "--name-only", "-z", "--no-renames", "--no-ext-diff", base, "--", *self._paths)
        names = [name.decode("utf-8", "surrogateescape") for name in found.stdout.split(b"\0") if name]
        return [name.removeprefix(self.prefix) for name in names]

    def unpack(self, commit: str, target: Path) -> Path:
        """Write the data directory of a commit below ``target`` and return it.

        Raises:
            PermanentError: the commit has none, or holds a path or link that leads out of it.
        """
        arguments = ["git", "-C", str(self.root), "archive", "--format=tar", commit, *self._paths]
        with subprocess.Popen(
            arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **_ENVIRONMENT}
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            problem: Exception | None = None
            try:
                unpack_tar(process.stdout, target)
            except (PermanentError, tarfile.TarError) as error:
                problem = error
                process.kill()
            said = process.stderr.read().decode("utf-8", "replace")
        if isinstance(problem, PermanentError):
            raise problem
        if process.returncode != 0 and "did not match any" in said:
            raise PermanentError(
                f"{commit[:12]} has no {self.prefix}: there is no configuration to compare with; name a base that has one"
            )
        if problem or process.returncode != 0:
            raise PermanentError(f"git archive {commit[:12]} failed: {_first_line(said) or problem}")
        return target / self.prefix


def find_repository(data_dir: Path) -> Repository:
    """The repository a data directory is in.

    Raises:
        PermanentError: git is not installed, or the directory is in no work tree.
    """
    found = _run(data_dir, "rev-parse", "--show-toplevel", "--show-prefix")
    if found.returncode != 0:
        said = _first_line(found.stderr.decode("utf-8", "replace"))
        remedy = (
            f"run: git config --global --add safe.directory {data_dir}"
            if "dubious ownership" in said
            else "the arena compares with a commit, so the configuration has to be under version control"
        )
        raise PermanentError(f"{data_dir} is in no git repository ({said}); {remedy}")
    root, _, prefix = found.stdout.decode("utf-8", "surrogateescape").rstrip("\n").partition("\n")
    return Repository(Path(root), prefix)


def unpack_tar(stream: IO[bytes], target: Path) -> None:
    """Write the files of a tar stream below a new folder.

    Links are made last, so that no file is written through one, and judged when all are there. The folder is removed
    when one of them leads out.

    Raises:
        PermanentError: a name is absolute or climbs, a link leads out, or a member is neither file, folder nor link.
        tarfile.TarError: the stream is no archive.
    """
    target.mkdir(parents=True, exist_ok=True)
    root = target.resolve()
    links: list[tuple[Path, str]] = []
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            name = PurePosixPath(member.name)
            place = root.joinpath(*name.parts)
            if name.is_absolute() or ".." in name.parts or "\0" in member.name or "\\" in member.name:
                raise PermanentError(f"the archive of the base holds the path {member.name!r}, which leads out of it")
            if member.isdir():
                place.mkdir(parents=True, exist_ok=True)
            elif member.issym():
                links.append((place, member.linkname))
            elif not member.isreg():
                raise PermanentError(f"the archive of the base holds {member.name!r}, which is neither file nor folder")
            elif member.size > MAXIMUM_BYTES:
                raise PermanentError(f"{member.name!r} of the base has {member.size} bytes, more than {MAXIMUM_BYTES}")
            else:
                place.parent.mkdir(parents=True, exist_ok=True)
                content = archive.extractfile(member)
                assert content is not None
                with place.open("xb") as file:
                    while block := content.read(1 << 20):
                        file.write(block)
    try:
        for place, leads in links:
            # A link below a link would be made wherever that one leads.
            if os.path.isabs(leads) or not _ends_below(place.parent, place.parent):
                raise _leads_out(place, root)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(leads)
        # Only now: where a link leads depends on those made after it.
        for place, _ in links:
            if not _ends_below(place, root):
                raise _leads_out(place, root)
    except PermanentError:
        shutil.rmtree(root)
        raise


def _ends_below(place: Path, folder: Path) -> bool:
    """Whether a path with all its links followed is in a folder; one that goes in circles is nowhere."""
    try:
        return place.resolve().is_relative_to(folder)
    except (OSError, RuntimeError):
        return False


def _leads_out(place: Path, root: Path) -> PermanentError:
    return PermanentError(
        f"the archive of the base holds the link {str(place.relative_to(root))!r}, which leads out of it; commit the file "
        "itself, or a relative link to a file of the same commit"
    )


def _run(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[bytes]":
    try:
        return subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, check=False, env={**os.environ, **_ENVIRONMENT}
        )
    except FileNotFoundError:
        raise PermanentError("git is not installed, or not on the PATH; install it to compare with a commit") from None


def _first_line(said: str) -> str:
    return _CREDENTIALS.sub("", said.strip().partition("\n")[0])
