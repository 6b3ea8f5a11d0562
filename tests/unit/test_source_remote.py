"""The kind ``remote`` against an S3 server, and against fsspec's own memory and file system."""

import threading
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import fsspec
import pytest
from pydantic import ValidationError

from resources.errors import ConfigError, TransientError
from resources.platform import Platform
from resources.sources.base import (
    DocumentTooLargeError,
    DocumentUnreadableError,
    DocumentVanishedError,
    Listing,
    SourceContext,
)
from resources.sources.remote import RemoteFolder, RemoteSource
from tests.corpus_support import changes, identities, quarantined, refresh
from tests.source_worlds import StoreWorld


def open_remote(tmp_path: Path, environment: dict[str, str] | None = None, **settings: Any) -> RemoteFolder:
    read = RemoteSource.model_validate({"name": "docs", **settings})
    return RemoteFolder(SourceContext(tmp_path, tmp_path / "state", environment or {}), read)


def paths(listing: Listing) -> list[str]:
    return [entry.path for entry in listing.entries]


class Proxy:
    """Stands before the S3 server: counts requests, and fails those that ``fails`` chooses.

    Attributes:
        requests: method, and path with query, of what went through.
        fails: given the same, the status and error code to answer with, or None.
        page: so many keys are listed at a time.
    """

    def __init__(self, target: str) -> None:
        self.requests: list[str] = []
        self.fails: Callable[[str], tuple[int, str] | None] = lambda request: None
        self.page = 1000
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                request = f"{self.command} {self.path}"
                proxy.requests.append(request)
                failure = proxy.fails(request)
                if failure:
                    body = f"<Error><Code>{failure[1]}</Code><Message>hunter2</Message></Error>".encode()
                    self._answer(failure[0], {"Content-Type": "application/xml"}, body)
                    return
                headers = {key: value for key, value in self.headers.items() if key.lower() != "connection"}
                page = f"&max-keys={proxy.page}" if "list-type=2" in self.path else ""
                try:
                    with urlopen(Request(target + self.path + page, headers=headers, method=self.command)) as answer:
                        self._answer(answer.status, dict(answer.headers), answer.read())
                except OSError as error:
                    self._answer(getattr(error, "code", 500), dict(getattr(error, "headers", {})), error.read())  # type: ignore[attr-defined]

            do_HEAD = do_GET

            def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                        self.send_header(name, value)
                length = headers.get("Content-Length", len(body)) if self.command == "HEAD" else len(body)
                self.send_header("Content-Length", str(length))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def proxy(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
    made = Proxy(endpoint)
    yield made
    made.close()


@pytest.fixture
def store(endpoint: str, proxy: Proxy) -> StoreWorld:
    """A bucket with three documents; the source reaches it through the proxy."""
    world = StoreWorld(endpoint, f"b{uuid.uuid4().hex[:12]}")
    world.apply({"a": "# A", "deep/b": "# B", "empty": ""})
    world.settings["options"] = {
        **world.settings["options"],
        "endpoint_url": proxy.url,
        "config_kwargs": {"retries": {"max_attempts": 0}},
    }
    return world


def s3(tmp_path: Path, store: StoreWorld, **settings: Any) -> RemoteFolder:
    return open_remote(tmp_path, store.environment, **{**store.settings, **settings})


# --- S3


def test_lists_a_prefix_and_nothing_beside_it(tmp_path: Path, store: StoreWorld) -> None:
    for key in ("docs2/x.md", "docs.md", "docs/.hidden.md", "docs/folder/", "docs/deep/"):
        store.client.put_object(Bucket=store.bucket, Key=key, Body=b"")
    listing = s3(tmp_path, store).list()
    assert (paths(listing), listing.skipped["hidden"]) == (["a.md", "deep/b.md", "empty.md"], 1)
    assert [entry.fetch(100) for entry in listing.entries] == [b"# A", b"# B", b""]
    assert listing.entries[1].provenance == {"kind": "remote", "url": f"s3://{store.bucket}/docs/deep/b.md"}
    assert listing.entries[0].modified


def test_a_bucket_can_be_a_source_as_a_whole(tmp_path: Path, store: StoreWorld) -> None:
    listing = s3(tmp_path, store, url=f"s3://{store.bucket}", include=["docs/*.md"]).list()
    assert paths(listing) == ["docs/a.md", "docs/empty.md"]


def test_keys_that_could_lead_out_of_a_folder_are_refused(tmp_path: Path, store: StoreWorld) -> None:
    for key in ("docs/../../etc/x.md", "docs//x.md", "docs/a\\b.md", "docs/./y.md", f"docs/{'l' * 1000}.md"):
        store.client.put_object(Bucket=store.bucket, Key=key, Body=b"x")
    listing = s3(tmp_path, store).list()
    assert len(listing.entries) == 3
    assert [item.code for item in listing.refused] == ["file_name"] * 5


def test_a_long_listing_is_complete_or_an_error(tmp_path: Path, store: StoreWorld, proxy: Proxy) -> None:
    """Two pages; when the second fails there is no listing."""
    proxy.page = 2
    assert len(s3(tmp_path, store).list().entries) == 3
    assert len(proxy.requests) == 2
    proxy.fails = lambda request: (500, "InternalError") if "continuation-token" in request else None
    with pytest.raises(TransientError, match="cannot be read just now"):
        s3(tmp_path, store).list()


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (500, "InternalError", TransientError),
        (503, "SlowDown", TransientError),
        (503, "", TransientError),
        (403, "AccessDenied", ConfigError),
        (403, "InvalidAccessKeyId", ConfigError),
        (404, "NoSuchBucket", ConfigError),
    ],
)
def test_a_server_that_refuses_is_no_empty_store(
    tmp_path: Path, store: StoreWorld, proxy: Proxy, status: int, code: str, error: type[Exception]
) -> None:
    proxy.fails = lambda request: (status, code)
    for ask in ("list", "fingerprint"):
        with pytest.raises(error, match=f"s3://{store.bucket}") as caught:
            getattr(s3(tmp_path, store), ask)()
        assert "s3cr3t" not in str(caught.value)
        assert "hunter2" not in str(caught.value)


def test_a_prefix_without_objects_is_an_error(tmp_path: Path, store: StoreWorld) -> None:
    with pytest.raises(ConfigError, match="there is nothing at"):
        s3(tmp_path, store, url=f"s3://{store.bucket}/dox").list()
    with pytest.raises(ConfigError, match="there is nothing at"):
        s3(tmp_path, store, url="s3://no-such-bucket-here").list()


def test_a_server_that_is_down_is_transient(tmp_path: Path, store: StoreWorld, proxy: Proxy) -> None:
    proxy.close()
    with pytest.raises(TransientError):
        s3(tmp_path, store).list()


def test_documents_that_may_not_be_read_are_told_from_a_server_in_trouble(
    tmp_path: Path, store: StoreWorld, proxy: Proxy
) -> None:
    entries = s3(tmp_path, store).list().entries
    proxy.fails = lambda request: (403, "AccessDenied")
    with pytest.raises(DocumentUnreadableError, match="denies access"):
        entries[0].fetch()
    proxy.fails = lambda request: (500, "InternalError")
    with pytest.raises(TransientError):
        entries[0].fetch()
    proxy.fails = lambda request: None
    store.apply({"a": None})
    with pytest.raises(DocumentVanishedError):
        entries[0].fetch()


def test_an_object_that_grew_is_read_up_to_the_limit(tmp_path: Path, store: StoreWorld) -> None:
    entries = s3(tmp_path, store).list().entries
    store.apply({"a": "x" * 1000})
    with pytest.raises(DocumentTooLargeError):
        entries[0].fetch(10)
    assert entries[0].fetch(2000) == b"x" * 1000
    assert entries[0].confirm
    assert not entries[0].confirm()  # it is not what was listed


def test_nothing_changed_is_one_request(
    store: StoreWorld, proxy: Proxy, make_platform: Callable[..., Platform], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_S3_SECRET", "s3cr3t")
    platform = make_platform(**{"sources.yaml": {"sources": [{"name": "docs", **store.settings}]}})
    refresh(platform)
    before = identities(platform)
    proxy.requests.clear()
    refresh(platform)
    assert [request.split("?")[0] for request in proxy.requests] == [f"GET /{store.bucket}"]

    store.apply({"a": None, "moved/a": "# A", "deep/b": "# B 2"})
    proxy.requests.clear()
    _, revision = refresh(platform)
    assert changes(revision) == {"renamed": 1, "changed": 1}
    assert sum(request.startswith("GET /") and "/docs/" in request.split("?")[0] for request in proxy.requests) == 2
    assert identities(platform) == {"moved/a.md": before["a.md"], "deep/b.md": before["deep/b.md"]}


def test_what_changed_between_listing_and_reading_is_read_again(
    store: StoreWorld, make_platform: Callable[..., Platform], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The content that was read is not kept under the ETag that was listed."""
    monkeypatch.setenv("TEST_S3_SECRET", "s3cr3t")
    platform = make_platform(**{"sources.yaml": {"sources": [{"name": "docs", **store.settings}]}})
    refresh(platform)
    store.apply({"a": "# Two"})
    list_objects = RemoteFolder.list

    def list_then_write(self: RemoteFolder) -> Listing:
        listing = list_objects(self)
        store.apply({"a": "# Three"})
        return listing

    with monkeypatch.context() as patch:
        patch.setattr(RemoteFolder, "list", list_then_write)
        refresh(platform)
    store.apply({"a": "# Two"})
    refresh(platform)
    with platform.database.connect() as connection:
        row = connection.execute(
            "SELECT text FROM document_version JOIN document_text USING (text_hash) WHERE path = 'a.md' AND rev_to = 2147483647"
        ).fetchone()
    assert row
    assert row[0].strip() == "# Two"


def test_a_document_that_is_denied_is_quarantined_and_returns(
    store: StoreWorld, proxy: Proxy, make_platform: Callable[..., Platform], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_S3_SECRET", "s3cr3t")
    platform = make_platform(**{"sources.yaml": {"sources": [{"name": "docs", **store.settings}]}})
    proxy.fails = lambda request: (403, "AccessDenied") if "/docs/a.md" in request else None
    refresh(platform)
    assert quarantined(platform) == {"a.md": "unreadable", "empty.md": "empty"}
    proxy.fails = lambda request: None
    refresh(platform)
    assert quarantined(platform) == {"empty.md": "empty"}


def test_without_trust_everything_is_fetched(tmp_path: Path, store: StoreWorld) -> None:
    assert [entry.identity for entry in s3(tmp_path, store, trust_identity=False).list().entries] == [None] * 3


def test_an_unwatched_store_is_not_listed_by_the_sensor(tmp_path: Path, store: StoreWorld, proxy: Proxy) -> None:
    source = s3(tmp_path, store, watch=False)
    before = source.fingerprint()
    store.apply({"new": "# New"})
    assert (source.fingerprint(), proxy.requests) == (before, [])


def test_a_store_in_a_private_network_must_be_meant(tmp_path: Path, store: StoreWorld, proxy: Proxy) -> None:
    for options in (store.settings["options"], {"client_kwargs": {"endpoint_url": proxy.url}}):
        with pytest.raises(ConfigError, match="allow_private"):
            s3(tmp_path, store, allow_private=False, options=options).list()
    assert proxy.requests == []
    with pytest.raises(ConfigError, match="allow_private"):
        open_remote(tmp_path, url="sftp://127.0.0.1/docs").list()


# --- other protocols


@pytest.fixture
def memory() -> Iterator[str]:
    root = f"memory://{uuid.uuid4().hex}"
    system = fsspec.filesystem("memory")
    system.pipe({f"{root}/a.md": b"# A", f"{root}/deep/er/b.md": b"# B"})
    yield root
    system.rm(root, recursive=True)


def test_a_place_that_vouches_for_nothing_is_read_in_full(memory: str, make_platform: Callable[..., Platform]) -> None:
    platform = make_platform(**{"sources.yaml": {"sources": [{"name": "docs", "kind": "remote", "url": memory}]}})
    refresh(platform)
    assert sorted(identities(platform)) == ["a.md", "deep/er/b.md"]
    fsspec.filesystem("memory").pipe(f"{memory}/a.md", b"# a")  # the same size
    plan, revision = refresh(platform)
    assert (changes(revision), plan.fetches) == ({"changed": 1}, 2)


def test_a_folder_below_that_cannot_be_listed_is_not_left_out(
    tmp_path: Path, memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fsspec's own walk would, whatever it is told."""
    from fsspec.implementations.memory import MemoryFileSystem

    ls = MemoryFileSystem.ls

    def flaky(self: Any, path: str, **more: Any) -> Any:
        if path.endswith("er"):
            raise OSError(5, "connection lost")
        return ls(self, path, **more)

    monkeypatch.setattr(MemoryFileSystem, "ls", flaky)
    with pytest.raises(TransientError):
        open_remote(tmp_path, url=memory).list()


def test_links_are_skipped_whatever_they_lead_to(tmp_path: Path) -> None:
    (tmp_path / "docs" / "in").mkdir(parents=True)
    (tmp_path / "docs" / "in" / "a.md").write_text("# A")
    (tmp_path / "docs" / "loop").symlink_to(tmp_path / "docs")
    (tmp_path / "docs" / "out.md").symlink_to("/etc/passwd")
    listing = open_remote(tmp_path, url=f"file://{tmp_path}/docs").list()
    assert (paths(listing), listing.skipped["symlinks"]) == (["in/a.md"], 2)


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is nothing at"):
        open_remote(tmp_path, url=f"file://{tmp_path}/none").list()
    (tmp_path / "empty").mkdir()
    assert paths(open_remote(tmp_path, url=f"file://{tmp_path}/empty").list()) == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("gs://bucket/x", r"pip install 'genaiops\[gcs\]'"),
        ("az://bucket/x", r"pip install 'genaiops\[azure\]'"),
        ("klingon://x/y", "'klingon' or its options are not known; protocols: .*s3"),
    ],
)
def test_a_protocol_that_is_not_installed_says_what_to_install(tmp_path: Path, url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_remote(tmp_path, url=url).list()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "https://example.com/x"}, "use kind: http"),
        ({"url": "github://a:b@c/d"}, "use kind: git"),
        ({"url": "simplecache::s3://b/x"}, "chained URLs"),
        ({"url": "reference://b/x"}, "cannot be a source"),
        ({"url": "/srv/docs"}, "write protocol://"),
        ({"url": "sftp://me:hunter2@host/x"}, "passwords do not belong"),
        ({"url": "s3://b", "options": {"secret": "hunter2"}}, "write secret_env"),
        (
            {"url": "s3://b", "options": {"client_kwargs": {"aws_session_token": "hunter2"}}},
            "write aws_session_token_env",
        ),
        ({"url": "az://b", "options": {"account_key": "hunter2"}}, "write account_key_env"),
    ],
)
def test_settings_that_could_do_harm_are_refused_without_showing_secrets(
    make_data_dir: Callable[..., Path], settings: dict[str, Any], message: str
) -> None:
    from resources.config import load_config

    with pytest.raises(ValidationError):
        RemoteSource.model_validate({"name": "docs", **settings})
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(make_data_dir(**{"sources.yaml": {"sources": [{"name": "docs", "kind": "remote", **settings}]}}))
    assert "hunter2" not in str(caught.value)
