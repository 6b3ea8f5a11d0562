"""The kind ``git``: the files of a repository at a branch, tag or commit.

Belongs here: asking ``git`` for a tree and its blobs, from a repository on this machine or from a mirror of another one.
Does not belong here: authentication beyond a token over HTTPS and ssh with keys that are already set up.

Nothing of the repository runs and nothing is checked out: no hooks, filters, submodules or helpers, and no configuration
of the user's. A blob id is the hash of the content, so what is unchanged is never read again.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import signal
import subprocess
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property, partial
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from resources.errors import ConfigError, TransientError
from resources.fingerprint import fingerprint
from resources.sources.base import (
    Collector,
    DocumentRefusedError,
    DocumentTooLargeError,
    DocumentUnreadableError,
    Listing,
    SourceContext,
    SourceEntry,
    SourceKind,
    SourceSettings,
    safe_path,
)

#: A fetch that leaves more packs than this in a mirror is followed by a repack.
_MAXIMUM_PACKS = 20
_LOCAL_SECONDS = 600.0
#: What of the environment a git process gets: where programs, keys and certificates are, and the way through a proxy.
_PASSED = re.compile(
    r"PATH|HOME|USER|TMPDIR|SSH_AUTH_SOCK|SSL_CERT_(FILE|DIR)|GIT_SSL_CAINFO|(?i:https?_proxy|no_proxy|all_proxy)"
)
_LFS = b"version https://git-lfs.github.com/spec/"
_SCP = re.compile(r"(?:(?P<user>[\w.+-]+)@)?(?P<host>[A-Za-z0-9][\w.-]*):(?P<path>[^:/\\][^:]*|/[^:]*)")
_NOT_THERE = re.compile(
    r"couldn't find remote ref|not our ref|repository .* not found|does not appear to be a git repository"
    r"|not found in upstream|authentication failed|could not read (username|password)|permission denied|access denied"
    r"|invalid username|terminal prompts disabled|unable to update url base from redirection"
    r"|transport '\w+' not allowed|error: (30.|401|403|404)|host key verification failed",
    re.IGNORECASE,
)


class GitSource(SourceSettings):
    """A git repository: on this machine, or at an ``https://`` or ``ssh://`` URL."""

    DESCRIPTIVE: ClassVar[frozenset[str]] = SourceSettings.DESCRIPTIVE | {"token_env", "user_env", "fetch_seconds"}

    kind: Literal["git"] = "git"
    repository: str = Field(min_length=1, description="Folder (relative to the data directory or absolute) or URL.")
    ref: str = Field(default="HEAD", description="Branch, tag or commit.")
    folder: str | None = Field(default=None, description="Only what is below this folder; paths start there.")
    commit_times: bool = Field(
        default=False, description="Find the last commit of each document; needs the whole history, of a URL too."
    )
    user_env: str | None = Field(default=None, description="Environment variable with the user name, for HTTPS.")
    token_env: str | None = Field(default=None, description="Environment variable with a password or token, for HTTPS.")
    allow_private: bool = Field(default=False, description="The URL may lead into a private network.")
    fetch_seconds: float = Field(default=600.0, gt=0, le=86_400, description="Limit for one fetch from a URL.")

    # Checked as a whole: a message about one field would show its value, which may hold a password.
    @model_validator(mode="after")
    def _safe(self) -> "GitSource":
        url = self.repository
        if "\x00" in url + self.ref or re.search(r"[\r\n]", url + self.ref):
            raise ValueError("repository and ref may not hold control characters")
        if re.match(r"[a-z][a-z0-9+.-]*::", url, re.IGNORECASE):
            raise ValueError("repository: remote helpers (name::address) are not supported; use https:// or ssh://")
        if scheme := re.match(r"([a-z][a-z0-9+.-]*)://", url, re.IGNORECASE):
            name = scheme[1].lower()
            if name == "file":
                raise ValueError("repository: write the path of the folder itself, without file://")
            if name not in ("https", "http", "ssh"):
                raise ValueError(f"repository: the scheme {name} is not supported; use https or ssh")
            authority = url.split("://", 1)[1].split("/", 1)[0]
            if "@" in authority and (name != "ssh" or ":" in authority.rpartition("@")[0]):
                raise ValueError(
                    "repository: credentials do not belong in this file; put them into environment variables and name "
                    "these in user_env and token_env"
                )
        elif url.startswith("-"):
            raise ValueError("repository: may not begin with '-'; write ./ before it")
        if (self.token_env or self.user_env) and not url.lower().startswith("https://"):
            raise ValueError("token_env and user_env are for https:// repositories; ssh uses the keys of this account")
        if self.user_env and not self.token_env:
            raise ValueError("user_env needs token_env")
        if not _is_safe_ref(self.ref):
            raise ValueError(f"ref: {self.ref!r} is not the name of a branch, a tag or a commit")
        if self.folder is not None and (safe_path(self.folder.rstrip("/"))[1] or ":" in self.folder):
            raise ValueError(f"folder: {self.folder!r} is not a path inside the repository")
        return self


def _is_safe_ref(ref: str) -> bool:
    """The rules of git-check-ref-format, and no revision syntax (``~``, ``^``, ``@{``, ``:``)."""
    return bool(
        re.fullmatch(r"[^\s\x00-\x1f\x7f~^:?*\[\\-][^\s\x00-\x1f\x7f~^:?*\[\\]*", ref)
        and not re.search(r"\.\.|@\{|//|/\.|\.lock(/|$)|^\.|^/|[/.]$", ref)
    )


class GitRepository:
    """One tree of a repository. Symbolic links and submodules are skipped, hidden files as in a folder."""

    def __init__(self, context: SourceContext, settings: GitSource) -> None:
        self._context = context
        self._settings = settings
        url = settings.repository
        scp = None if "://" in url else _SCP.fullmatch(url)
        self._remote = "://" in url or (scp is not None and not context.path(url).exists())
        if self._remote:
            digest = hashlib.sha256(url.encode()).hexdigest()[:16]
            self._folder = context.state_dir / "sources" / settings.name / f"git-{digest}"
        else:
            self._folder = context.path(url)
        self._fetched: dict[str, bytes] = {}

    # --- the interface

    def list(self) -> Listing:
        """See ``DocumentSource.list``; for a URL, brings the mirror up to date first."""
        commit = self._update()
        tree = self._tree(commit)
        collector = Collector(self._settings, "symlinks", "submodules")
        times = self._commit_times(commit) if self._settings.commit_times else {}
        place = self._public_url
        for raw, mode, blob, size in self._entries(tree):
            if mode == "120000":
                collector.skip("symlinks")
            elif mode == "160000":
                collector.skip("submodules")
            elif (path := collector.accept(raw)) is not None:
                stated = times.get(raw)
                changed = {} if stated is None else {"changed_in": stated[0]}
                collector.add(
                    SourceEntry(
                        path=path,
                        size=size,
                        fetch=partial(self._fetch, blob, size),
                        mark=blob,
                        modified=None if stated is None else datetime.fromtimestamp(stated[1], UTC),
                        provenance={"kind": "git", "repository": place, "commit": commit, "blob": blob, **changed},
                        identity=f"git:{blob}",
                    )
                )
        return collector.listing(
            prefetch=self._prefetch, state=commit, renames_since=partial(self._renames_since, tree)
        )

    def fingerprint(self) -> str:
        """See ``DocumentSource.fingerprint``: the commit the ref names now; a URL is asked without fetching."""
        return fingerprint([self._settings.fingerprint(), self._remote_commit() if self._remote else self._commit()])

    # --- where the repository is

    @cached_property
    def _public_url(self) -> str:
        """The repository as it may be shown."""
        return re.sub(r"//[^/@]*@", "//", self._settings.repository)

    def _update(self) -> str:
        if not self._remote:
            return self._commit()
        with self._locked():
            try:
                self._fetch_ref()
                return self._commit("refs/genaiops/now")
            except _DamagedMirror:
                shutil.rmtree(self._folder)  # it holds nothing that cannot be fetched again
                self._fetch_ref()
                return self._commit("refs/genaiops/now")

    def _commit(self, ref: str | None = None) -> str:
        """The commit a ref names in the repository on this machine."""
        if not self._folder.is_dir():
            raise ConfigError(self._message("repository", f"{self._folder} does not exist, or is not a folder"))
        done = self._git("rev-parse", "--git-dir", check=False)
        if done.returncode:
            hint = "; for a part of a repository, name its top here and the part in `folder`"
            raise ConfigError(self._message("repository", f"{self._folder} is not a git repository{hint}"))
        done = self._git(
            "rev-parse",
            "--verify",
            "--quiet",
            "--end-of-options",
            f"{ref or self._settings.ref}^{{commit}}",
            check=False,
        )
        if done.returncode and ref:
            raise _DamagedMirror
        if done.returncode:
            known = self._git("for-each-ref", "--count=8", "--format=%(refname:short)", "refs/heads", "refs/tags")
            names = ", ".join(known.stdout.decode("utf-8", "replace").split()) or "none, the repository is empty"
            raise ConfigError(
                self._message("ref", f"there is no branch, tag or commit {self._settings.ref!r}; there are: {names}")
            )
        return done.stdout.decode().strip()

    def _tree(self, commit: str) -> str:
        folder = (self._settings.folder or "").strip("/")
        done = self._git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{commit}:{folder}", check=False)
        tree = done.stdout.decode().strip()
        if done.returncode or self._git("cat-file", "-t", tree).stdout.strip() != b"tree":
            raise ConfigError(self._message("folder", f"commit {commit[:12]} has no folder {folder!r}"))
        return tree

    # --- fetching from a URL

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """One fetch at a time into a mirror; the lock outlives this process as long as its git does."""
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        with open(f"{self._folder}.lock", "w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            self._lock = handle.fileno()
            for left in self._folder.rglob("*.lock"):
                left.unlink(missing_ok=True)  # of a git that was killed: nobody else is here
            yield
        del self._lock

    def _fetch_ref(self) -> None:
        if not (self._folder / "HEAD").exists():
            shutil.rmtree(self._folder, ignore_errors=True)
            self._run(["git", "init", "--quiet", "--bare", "--template=", str(self._folder)], _LOCAL_SECONDS)
        shallow = (self._folder / "shallow").exists()
        depth = ["--depth=1"] if not self._settings.commit_times else ["--unshallow"] if shallow else []
        previous = self._git("rev-parse", "--verify", "--quiet", "refs/genaiops/now", check=False)
        done = self._git(
            "fetch", "--quiet", "--force", "--no-tags", "--no-recurse-submodules", "--no-auto-maintenance",
            "--no-write-fetch-head", *depth, "--end-of-options", self._settings.repository,
            f"{self._settings.ref}:refs/genaiops/now",
            check=False, network=True,
        )  # fmt: skip
        if done.returncode:
            raise self._failure("fetched", done)
        if previous.returncode == 0:  # so that a repack keeps what renames are found by
            self._git("update-ref", "refs/genaiops/before", previous.stdout.decode().strip(), check=False)
        if len([*self._folder.glob("objects/pack/*.pack")]) > _MAXIMUM_PACKS:
            self._git("gc", "--quiet", "--prune=now", check=False)

    def _remote_commit(self) -> str:
        if re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", self._settings.ref):
            return self._settings.ref
        self._context.state_dir.mkdir(parents=True, exist_ok=True)
        command = ["git", *_OPTIONS, "ls-remote", "--quiet", "--end-of-options", self._settings.repository]
        patterns = [self._settings.ref, f"{self._settings.ref}^{{}}"]
        done = self._run([*command, *patterns], self._settings.fetch_seconds, network=True)
        if done.returncode:
            raise self._failure("asked", done)
        found = [line.split("\t") for line in done.stdout.decode("utf-8", "replace").splitlines()]
        if not found:
            raise ConfigError(self._message("ref", f"the repository has no {self._settings.ref!r}"))
        return fingerprint(sorted(found))

    def _failure(self, what: str, done: "subprocess.CompletedProcess[bytes]") -> Exception:
        lines = self._redacted(done.stderr.decode("utf-8", "replace")).splitlines()
        reasons = [line for line in lines if line.startswith(("fatal:", "error:"))] or lines[-1:]
        reason = " ".join(reasons)[:300] or f"git ended with {done.returncode}"
        if _NOT_THERE.search(" ".join(lines)):
            return ConfigError(self._message("repository", f"it cannot be {what}: {reason}"))
        return TransientError(f"source {self._settings.name!r}: the repository cannot be {what} just now: {reason}")

    def _redacted(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return re.sub(r"//[^/\s@]*@", "//", text)

    # --- reading

    def _entries(self, tree: str) -> Iterator[tuple[bytes, str, str, int]]:
        """Path, mode, object and size of everything in a tree, folders apart."""
        listed = self._git("ls-tree", "-r", "-z", "-l", "--full-tree", "--end-of-options", tree).stdout
        start = 0
        while (end := listed.find(b"\x00", start)) > 0:
            facts, _, path = listed[start:end].partition(b"\t")
            mode, _, blob, size = facts.decode().split()
            yield path, mode, blob, int(size) if size.isdigit() else 0  # "-": a submodule, "BAD": the object is missing
            start = end + 1

    def _prefetch(self, entries: Sequence[SourceEntry]) -> None:
        """Read the blobs of a batch by one process."""
        self._fetched = {}
        blobs = [entry.mark for entry in entries]
        data = self._git("cat-file", "--batch", stdin="".join(f"{blob}\n" for blob in blobs).encode()).stdout
        start = 0
        for blob in blobs:
            end = data.index(b"\n", start)
            header = data[start:end].split()
            start = end + 1
            if len(header) == 3 and header[1] == b"blob":
                self._fetched[blob] = data[start : start + int(header[2])]
                start += int(header[2]) + 1

    def _fetch(self, blob: str, size: int, limit: int | None = None) -> bytes:
        if limit is not None and size > limit:
            raise DocumentTooLargeError(size)
        data = self._fetched.pop(blob, None)
        if data is None:
            done = self._git("cat-file", "blob", blob, check=False)
            if done.returncode:
                raise DocumentUnreadableError("the repository lacks this object; repair it with git fsck")
            data = done.stdout
        if data.startswith(_LFS) and len(data) < 1024:
            raise DocumentRefusedError(
                "lfs_pointer", "the repository holds a Git LFS pointer in its place; use another kind for such files"
            )
        return data

    def _renames_since(self, tree: str, state: str) -> Mapping[str, str]:
        """Files that moved and were edited since a commit, at least half of them equal."""
        folder = (self._settings.folder or "").strip("/")
        before = f"{state}:{folder}"
        done = self._git(
            "diff-tree", "-r", "-z", "--raw", "--no-ext-diff", "--no-textconv", "--find-renames=50%", "-l5000",
            "--diff-filter=R", "--end-of-options", before, tree, check=False,
        )  # fmt: skip
        if done.returncode:
            return {}  # the commit is gone, as after a force push
        parts = done.stdout.split(b"\x00")
        pairs = {}
        for number in range(0, len(parts) - 2, 3):
            (old, _), (new, _) = safe_path(parts[number + 1]), safe_path(parts[number + 2])
            pairs[new] = old
        return pairs

    def _commit_times(self, commit: str) -> dict[bytes, tuple[str, int]]:
        """Path to the newest commit of the first-parent history that changed it, and its time."""
        folder = (self._settings.folder or "").strip("/")
        command = ["log", "-z", "-m", "--first-parent", "--no-renames", "--name-only", "--format=%x01%H %ct"]
        relative = [f"--relative={folder}/"] if folder else []
        output = self._git(*command, *relative, "--end-of-options", commit, "--", *([f"{folder}/"] if folder else []))
        times: dict[bytes, tuple[str, int]] = {}
        current = ("", 0)
        for part in output.stdout.split(b"\x00"):
            part = part.removeprefix(b"\n")
            if part.startswith(b"\x01"):
                identifier, seconds = part[1:].split()[:2]
                current = (identifier.decode(), int(seconds))
            elif part:
                times.setdefault(part, current)
        return times

    # --- running git

    def _git(
        self, *arguments: str, stdin: bytes | None = None, check: bool = True, network: bool = False
    ) -> "subprocess.CompletedProcess[bytes]":
        seconds = self._settings.fetch_seconds if network else _LOCAL_SECONDS
        command = ["git", *_OPTIONS, "-C", str(self._folder), *arguments]
        done = self._run(command, seconds, stdin=stdin, network=network)
        if check and done.returncode:
            reason = self._redacted(done.stderr.decode("utf-8", "replace")).strip()[-300:]
            raise TransientError(f"source {self._settings.name!r}: git {arguments[0]} failed: {reason}")
        return done

    def _run(
        self, command: Sequence[str], seconds: float, *, stdin: bytes | None = None, network: bool = False
    ) -> "subprocess.CompletedProcess[bytes]":
        lock: int | None = getattr(self, "_lock", None)
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=self._environment(network),
                start_new_session=True,  # so that its helpers can be ended with it
                pass_fds=() if lock is None else (lock,),
            )
        except FileNotFoundError as error:
            raise ConfigError(f"source {self._settings.name!r}: the program git is not installed") from error
        try:
            output, errors = process.communicate(stdin, timeout=seconds)
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            if isinstance(error, subprocess.TimeoutExpired):
                raise TransientError(
                    f"source {self._settings.name!r}: git took longer than {seconds:.0f} s (fetch_seconds)"
                ) from None
            raise
        return subprocess.CompletedProcess(command, process.returncode, output, errors)

    def _environment(self, network: bool) -> dict[str, str]:
        """The environment of one git: nothing of the user's configuration, no prompts, credentials outside argv."""
        environment = {name: value for name, value in os.environ.items() if _PASSED.fullmatch(name)}
        environment |= {
            "LC_ALL": "C",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "true",
            "SSH_ASKPASS": "true",
            "GIT_SSH_COMMAND": "ssh -oBatchMode=yes -oStrictHostKeyChecking=yes -oConnectTimeout=30",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_CEILING_DIRECTORIES": str(self._folder.parent),
            "GIT_ALLOW_PROTOCOL": "none",
            "GIT_PROTOCOL_FROM_USER": "0",
        }
        settings = [("safe.directory", "*")]  # read as data: whose it is does not matter
        if network:
            settings += self._network_settings(environment)
        environment["GIT_CONFIG_COUNT"] = str(len(settings))
        for number, (key, value) in enumerate(settings):
            environment[f"GIT_CONFIG_KEY_{number}"], environment[f"GIT_CONFIG_VALUE_{number}"] = key, value
        return environment

    def _network_settings(self, environment: dict[str, str]) -> Sequence[tuple[str, str]]:
        from resources.network import check_url

        url = self._settings.repository
        scp = _SCP.fullmatch(url) if "://" not in url else None
        checked = f"ssh://{scp['host']}/" if scp else url
        scheme = checked.split("://", 1)[0].lower()
        port = re.match(r"[^/]*?:(\d+)(?:/|$)", checked.split("://", 1)[1])
        stated = int(port[1]) if port else {"https": 443, "http": 80, "ssh": 22}[scheme]
        place = check_url(
            checked, self._settings.allow_private, schemes=("https", "http", "ssh"), ports=(stated,), allow_user=True
        )
        environment["GIT_ALLOW_PROTOCOL"] = scheme
        if scheme == "ssh":
            return []
        # git connects to the addresses that were checked, whatever the name is resolved to by then
        pinned = ",".join(f"[{item}]" if ":" in item else item for item in place.addresses)
        settings = [("http.followRedirects", "false"), ("http.curloptResolve", f"{place.host}:{stated}:{pinned}")]
        if self._settings.token_env:
            token = self._context.secret(self._settings.name, "token_env", self._settings.token_env)
            user = self._context.secret(self._settings.name, "user_env", self._settings.user_env)
            login = b64encode(f"{user or 'x-access-token'}:{token}".encode()).decode()
            settings.append((f"http.{url}.extraHeader", f"Authorization: Basic {login}"))
        return settings

    @property
    def _secrets(self) -> Sequence[str]:
        names = (self._settings.token_env, self._settings.user_env)
        values = [value for name in names if name and (value := self._context.environment.get(name))]
        return [*values, *(b64encode(value.encode()).decode() for value in values)]

    def _message(self, key: str, text: str) -> str:
        return f"sources.yaml: source {self._settings.name!r}: {key}: {text}"


class _DamagedMirror(Exception):
    """The mirror lacks what was just fetched."""


#: Whatever a repository's own configuration says.
_OPTIONS = (
    "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "core.pager=cat", "-c", "gc.auto=0",
    "-c", "protocol.ext.allow=never", "-c", "protocol.file.allow=never", "-c", "submodule.recurse=false",
    "-c", "credential.helper=", "-c", "core.quotePath=false", "-c", "core.sshCommand=",
)  # fmt: skip


def _open(context: SourceContext, settings: Any) -> GitRepository:
    return GitRepository(context, settings)


KIND = SourceKind(GitSource, _open)
