"""The kind ``remote``: object stores and remote folders, by fsspec.

Belongs here: listing and reading below one URL (``s3://``, ``gs://``, ``az://``, ``sftp://`` and further ones).
Does not belong here: web pages (http.py), and files of rows (table.py).

Object stores say with an ETag which content an object has, so what is unchanged is not fetched again. Remote folders
say nothing of the kind and are read in full.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, partial
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from resources.errors import ConfigError, GenaiopsError, TransientError
from resources.fingerprint import fingerprint
from resources.sources.base import (
    Collector,
    DocumentTooLargeError,
    DocumentUnreadableError,
    DocumentVanishedError,
    Listing,
    SourceContext,
    SourceEntry,
    SourceKind,
    SourceSettings,
)

#: Stores whose ETag changes with every write.
_VOUCHING = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "oss"})
_FLAT = frozenset({"s3", "s3a"})  # listed by prefix, without a request for each folder
_HOSTED = {"sftp": 22, "ssh": 22, "ftp": 21, "smb": 445}
_EXTRAS = {
    "s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs", "az": "azure", "abfs": "azure", "abfss": "azure", "sftp": "sftp",
    "ssh": "sftp",
}  # fmt: skip
_OTHER_KINDS = {"http": "http", "https": "http", "git": "git", "github": "git"}
#: They wrap another place, or hold no documents.
_UNFIT = frozenset({
    "reference", "filecache", "simplecache", "blockcache", "cached", "dir", "zip", "tar", "libarchive", "data", "generic",
    "dask", "async_wrapper", "asyncwrapper", "jupyter", "jlab", "pyscript",
})  # fmt: skip
_SECRET = re.compile(r"secret|passw|passphrase|token|account_key|sas|connection_string|credential|private_key|pkey")
_NO_SECRETS = frozenset({"anon", "cloud", "google_default"})
#: Errors of the libraries behind fsspec that no second try helps.
_PERMANENT = frozenset({
    "NoCredentialsError", "PartialCredentialsError", "ParamValidationError", "ProfileNotFound", "AuthenticationException",
    "BadHostKeyException", "ClientAuthenticationError", "DefaultCredentialsError",
})  # fmt: skip
_THREADS = 8
_MAXIMUM_DEPTH = 100


class RemoteSource(SourceSettings):
    """A folder that fsspec can reach."""

    DESCRIPTIVE: ClassVar[frozenset[str]] = SourceSettings.DESCRIPTIVE | {"watch"}

    kind: Literal["remote"] = "remote"
    url: str = Field(min_length=1, description="E.g. s3://bucket/folder.")
    options: dict[str, Any] = Field(
        default={}, description="Of fsspec's file system; a key with _env behind it names an environment variable."
    )
    trust_identity: bool = Field(default=True, description="False: fetch every document at each refresh.")
    allow_private: bool = Field(default=False, description="The server may be in a private network.")
    watch: bool = Field(
        default=True, description="False: list at refreshes alone, not every half minute; listings may cost money."
    )

    # Checked as a whole: a message about one field would show its value, which may hold a secret.
    @model_validator(mode="after")
    def _safe(self) -> "RemoteSource":
        match = re.match(r"([a-z][a-z0-9+_-]*)://", self.url)
        if not match or "::" in self.url or re.search(r"[\x00-\x1f\x7f]", self.url):
            raise ValueError("url: write protocol://place/folder; chained URLs (a::b) are not supported")
        if other := _OTHER_KINDS.get(match[1]):
            raise ValueError(f"url: for {match[1]} use kind: {other}")
        if match[1] in _UNFIT:
            raise ValueError(f"url: the protocol {match[1]} cannot be a source")
        if ":" in urlsplit(self.url).netloc.rpartition("@")[0]:
            raise ValueError("url: passwords do not belong in this file; name an environment variable in options")
        for key in _literal_secrets(self.options):
            raise ValueError(f"options: {key}: secrets do not belong in this file; write {key}_env: NAME_OF_A_VARIABLE")
        return self


def _literal_secrets(options: Mapping[str, Any]) -> Iterator[str]:
    for key, value in options.items():
        if isinstance(value, Mapping):
            yield from _literal_secrets(value)
        elif isinstance(value, str) and _SECRET.search(key.lower()) and value not in _NO_SECRETS:
            yield from () if key.endswith("_env") else (key,)


@dataclass(frozen=True)
class _Read:
    """What was read of an object, and the identity it had right after."""

    data: bytes
    identity: str | None


class RemoteFolder:
    """A folder behind fsspec. Hidden files are skipped, as are links, whatever the protocol calls them."""

    def __init__(self, context: SourceContext, settings: RemoteSource) -> None:
        self._context = context
        self._settings = settings
        self._protocol = settings.url.split("://", 1)[0]
        self._read: dict[str, _Read | Exception] = {}

    def list(self) -> Listing:
        """See ``DocumentSource.list``."""
        collector = Collector(self._settings, "symlinks")
        for raw, info in self._objects():
            kind = info.get("type")
            if kind == "link" or info.get("islink"):
                collector.skip("symlinks")
            elif (path := collector.accept(raw)) is None:
                continue
            elif kind != "file":
                collector.refuse(path, "not_a_file", "neither a file nor a folder")
            else:
                collector.add(self._entry(path, info))
        return collector.listing(prefetch=self._prefetch)

    def fingerprint(self) -> str:
        """See ``DocumentSource.fingerprint``; from configuration, names, sizes, ETags and times of everything listed."""
        if not self._settings.watch:
            return self._settings.fingerprint()
        listing = self.list()
        return fingerprint(
            [
                self._settings.fingerprint(),
                [[entry.path, entry.size, entry.mark] for entry in listing.entries],
                [[entry.path, entry.code] for entry in listing.refused],
            ]
        )

    # --- listing

    def _objects(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Path below the source, and facts, of everything that is no folder."""
        root = self._root
        found = False
        try:
            for info in self._flat(root) if self._protocol in _FLAT else self._walk(root):
                found = True
                name = str(info["name"])
                relative = name[len(root) :] if name.startswith(root) else name
                yield relative.removeprefix("/") or name.rpartition("/")[2], info
            there = found or self._is_there(root)
        except GenaiopsError:
            raise
        except Exception as error:  # every protocol raises its own
            raise self._explained(error) from None  # its message may quote credentials
        if not there:
            raise ConfigError(self._message("url", f"there is nothing at {self._shown}"))

    def _flat(self, root: str) -> Iterator[Mapping[str, Any]]:
        found = self._system.find(root, detail=True)
        for name in sorted(found):
            info = found.pop(name)
            if not name.endswith("/"):  # an empty object that some tools make for a folder
                yield info

    def _walk(self, root: str) -> Iterator[Mapping[str, Any]]:
        """Everything below a folder. fsspec's own ``walk`` leaves out what it cannot list, below the first level always."""
        folders = [(root, 0)]
        while folders:
            folder, depth = folders.pop()
            if depth > _MAXIMUM_DEPTH:
                raise ConfigError(
                    self._message("url", f"folders are nested more than {_MAXIMUM_DEPTH} deep; is it a loop?")
                )
            for info in sorted(self._system.ls(folder, detail=True), key=lambda info: str(info["name"])):
                name = str(info["name"]).rstrip("/")
                if info.get("type") != "directory" or info.get("islink"):
                    yield info
                elif name != folder.rstrip("/"):
                    folders.append((name, depth + 1))

    def _is_there(self, root: str) -> bool:
        # In an object store a folder without objects does not exist, but a bucket does.
        return root.rstrip("/").count("/") == 0 if self._protocol in _FLAT else bool(self._system.isdir(root))

    def _entry(self, path: str, info: Mapping[str, Any]) -> SourceEntry:
        identity = self._identity(info)
        modified = _modified(info)
        version = info.get("VersionId") or info.get("version_id") or info.get("generation")
        return SourceEntry(
            path=path,
            size=int(info.get("size") or 0),
            fetch=partial(self._fetch, str(info["name"]), int(info.get("size") or 0)),
            mark=identity or (modified.isoformat() if modified else ""),
            modified=modified,
            provenance={"kind": "remote", "url": f"{self._shown.rstrip('/')}/{path}"}
            | ({"version": str(version)} if version and version != "null" else {}),
            identity=identity if self._settings.trust_identity else None,
            confirm=partial(self._confirm, str(info["name"]), identity),
        )

    def _identity(self, info: Mapping[str, Any]) -> str | None:
        etag = info.get("ETag") or info.get("etag") or info.get("md5Hash")
        if self._protocol not in _VOUCHING or not isinstance(etag, str) or etag.startswith("W/"):
            return None
        return f"etag:{etag.strip(chr(34))}:{int(info.get('size') or 0)}:{self._salt}"

    @cached_property
    def _salt(self) -> str:
        """Part of every identity: the same ETag says nothing about another place."""
        return fingerprint([self._settings.url, *sorted(_endpoints(self._settings.options))])[:12]

    # --- reading

    def _prefetch(self, entries: Sequence[SourceEntry]) -> None:
        """Read a batch at once, where the protocol can; sizes are those of the listing, so memory is bounded by it."""
        self._read = {}
        if not getattr(self._system, "async_impl", False) or len(entries) < 2:
            return
        with ThreadPoolExecutor(_THREADS) as threads:
            calls = [entry.fetch for entry in entries]
            objects = [(call.args[0], call.args[1]) for call in calls if isinstance(call, partial)]
            for (name, _), read in zip(objects, threads.map(lambda item: self._try(*item), objects), strict=True):
                self._read[name] = read

    def _try(self, name: str, size: int) -> _Read | Exception:
        try:
            return self._read_one(name, size, size)
        except Exception as error:
            return error

    def _fetch(self, name: str, size: int, limit: int | None = None) -> bytes:
        read = self._read.pop(name, None)
        if read is None or isinstance(read, DocumentTooLargeError):  # grown since it was listed: is it too large?
            read = self._read_one(name, size, limit)
        if isinstance(read, Exception):
            raise read
        if limit is not None and len(read.data) > limit:
            raise DocumentTooLargeError(len(read.data))
        self._read[name] = _Read(b"", read.identity)
        return read.data

    def _read_one(self, name: str, size: int, limit: int | None) -> _Read:
        try:
            # A range of an empty object is an error.
            ranged = {"start": 0, "end": limit + 1} if limit is not None and size > 0 else {}
            data = self._system.cat_file(name, **ranged)
            if limit is not None and len(data) > limit:
                raise DocumentTooLargeError(len(data))
            identity = self._identity(self._system.info(name, **({"refresh": True} if self._flat_info else {})))
        except (FileNotFoundError, NotADirectoryError) as error:
            raise DocumentVanishedError("it was deleted while the source was read") from error
        except PermissionError:
            raise DocumentUnreadableError("the server denies access to it") from None
        except IsADirectoryError:
            raise DocumentUnreadableError("it is a folder now") from None
        except GenaiopsError:
            raise
        except Exception as error:
            raise self._explained(error) from None
        return _Read(bytes(data), identity)

    def _confirm(self, name: str, identity: str | None) -> bool:
        """Whether what was read is what was listed."""
        read = self._read.pop(name, None)
        return isinstance(read, _Read) and read.identity == identity

    # --- the file system

    @property
    def _flat_info(self) -> bool:
        return self._protocol in _FLAT

    @cached_property
    def _root(self) -> str:
        return str(self._system._strip_protocol(self._settings.url)).rstrip("/") or "/"

    @cached_property
    def _shown(self) -> str:
        """The URL as it may be shown."""
        return re.sub(r"//[^/@]*@", "//", self._settings.url)

    @cached_property
    def _system(self) -> Any:
        import fsspec
        from fsspec.registry import known_implementations

        options = self._resolved(self._settings.options, "options")
        self._check_places(options)
        try:
            system = fsspec.get_filesystem_class(self._protocol)
            inferred = system._get_kwargs_from_urls(self._settings.url)
            inferred.pop("path", None)
            return system(**{"skip_instance_cache": True, "use_listings_cache": False, **inferred, **options})
        except ImportError:
            extra = _EXTRAS.get(self._protocol)
            said = known_implementations.get(self._protocol, {}).get("err", "install the package that brings it")
            remedy = f"pip install 'genaiops[{extra}]'" if extra else str(said)
            raise ConfigError(self._message("url", f"{self._protocol}:// needs a package: {remedy}")) from None
        except ValueError:
            known = ", ".join(sorted({*known_implementations} - _UNFIT - {*_OTHER_KINDS}))
            raise ConfigError(
                self._message(
                    "url", f"the protocol {self._protocol!r} or its options are not known; protocols: {known}"
                )
            ) from None
        except TypeError:
            raise ConfigError(
                self._message("options", f"{self._protocol} does not know one of these options")
            ) from None
        except Exception as error:
            raise self._explained(error) from None

    def _resolved(self, options: Mapping[str, Any], key: str) -> dict[str, Any]:
        """The options with the values of the environment variables they name."""
        found: dict[str, Any] = {}
        for name, value in options.items():
            if isinstance(value, Mapping):
                found[name] = self._resolved(value, f"{key}.{name}")
            elif name.endswith("_env") and isinstance(value, str):
                found[name.removesuffix("_env")] = self._context.secret(self._settings.name, f"{key}.{name}", value)
            else:
                found[name] = value
        return found

    def _check_places(self, options: Mapping[str, Any]) -> None:
        """Refuse servers in a private network unless they are meant."""
        from resources.network import check_host, check_url

        for endpoint in _endpoints(options):
            port = urlsplit(endpoint).port
            check_url(endpoint, self._settings.allow_private, ports=() if port is None else (port,))
        if self._protocol in _HOSTED:
            parts = urlsplit(self._settings.url)
            host = options.get("host") or parts.hostname
            if host:
                check_host(str(host), parts.port or _HOSTED[self._protocol], self._settings.allow_private)

    def _explained(self, error: Exception) -> Exception:
        kind = type(error).__name__
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            return ConfigError(self._message("url", f"there is nothing at {self._shown}"))
        if isinstance(error, PermissionError) or kind in _PERMANENT:
            return ConfigError(
                self._message("url", f"{self._shown} may not be read ({kind}); check the credentials and their rights")
            )
        return TransientError(f"source {self._settings.name!r}: {self._shown} cannot be read just now ({kind})")

    def _message(self, key: str, text: str) -> str:
        return f"sources.yaml: source {self._settings.name!r}: {key}: {text}"


def _endpoints(options: Mapping[str, Any]) -> Sequence[str]:
    """URLs of servers named in options, at any depth."""
    found = []
    for value in options.values():
        if isinstance(value, Mapping):
            found.extend(_endpoints(value))
        elif isinstance(value, str) and re.match(r"https?://", value):
            found.append(value)
    return found


def _modified(info: Mapping[str, Any]) -> datetime | None:
    for key in ("LastModified", "last_modified", "updated", "mtime", "modified"):
        value = info.get(key)
        if isinstance(value, int | float):
            return datetime.fromtimestamp(value, UTC)
        if isinstance(value, str):
            try:
                value = datetime.fromisoformat(value)
            except ValueError:
                continue
        if isinstance(value, datetime):
            return value if value.tzinfo else value.replace(tzinfo=UTC)
    return None


def _open(context: SourceContext, settings: Any) -> RemoteFolder:
    return RemoteFolder(context, settings)


KIND = SourceKind(RemoteSource, _open)
