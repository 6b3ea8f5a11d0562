"""A web site through the refresh: what the server says of its pages is what happens to the documents."""

from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from resources.errors import TransientError
from resources.platform import Platform
from tests.corpus_support import changes, identities, quarantined, refresh
from tests.loopback import Server

TEXT = "<html><body><main><h1>{name}</h1><p>{name} leaves the workshop with a charged battery and a manual.</p></main></body></html>"


@pytest.fixture
def site() -> Iterator[Server]:
    with Server() as site:
        for name in "abcdef":
            site.page(f"/{name}", TEXT.format(name=name), etag=f'"{name}1"')
        yield site


@pytest.fixture
def make_web(make_platform: Callable[..., Platform], site: Server) -> Callable[..., Platform]:
    def make(**settings: Any) -> Platform:
        source = {
            "name": "docs", "kind": "http", "allow_private": True, "ports": [site.port], "requests_per_second": 1000,
            "tries": 1, **settings,
        }  # fmt: skip
        return make_platform(**{"sources.yaml": {"sources": [source]}})

    return make


@pytest.fixture
def platform(make_web: Callable[..., Platform], site: Server) -> Platform:
    return make_web(urls=[site.url(f"/{name}") for name in "abcdef"])


def down(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(500)
    handler.send_header("Content-Length", "0")
    handler.end_headers()


def documents(platform: Platform) -> list[str]:
    return sorted(path.split("/")[-1] for path in identities(platform))


def test_pages_become_documents_with_their_provenance(platform: Platform, site: Server) -> None:
    _, revision = refresh(platform)
    assert changes(revision) == {"added": 6}
    assert documents(platform) == [f"{name}.html" for name in "abcdef"]
    with platform.database.connect() as connection:
        row = connection.execute(
            "SELECT text, title FROM document_version JOIN document_text USING (text_hash)"
        ).fetchone()
    assert row is not None
    assert "charged battery" in row[0]


def test_unchanged_pages_are_neither_sent_nor_read_nor_parsed(platform: Platform, site: Server) -> None:
    refresh(platform)
    site.seen.clear()
    plan, revision = refresh(platform)
    assert not revision.committed
    assert (plan.work.parses, plan.bytes_read) == (0, 0)
    assert all("if-none-match" in headers for path, headers in site.seen if path != "/robots.txt")
    site.page("/a", TEXT.format(name="new"), etag='"a2"')
    plan, revision = refresh(platform)
    assert changes(revision) == {"changed": 1}
    assert plan.work.parses == 1


def test_a_page_that_is_gone_is_deleted_and_one_that_fails_is_not(platform: Platform, site: Server) -> None:
    refresh(platform)
    del site.pages["/a"]
    site.pages["/b"] = down
    _, revision = refresh(platform)
    assert changes(revision) == {"deleted": 1}
    assert documents(platform) == [f"{name}.html" for name in "bcdef"]
    assert quarantined(platform) == {}
    before = identities(platform)
    site.page("/b", TEXT.format(name="b"), etag='"b1"')
    plan, revision = refresh(platform)
    assert (changes(revision), identities(platform)) == ({}, before)
    assert plan.bytes_read == 0, "what it holds was not forgotten meanwhile"


def test_a_site_that_is_down_deletes_nothing(platform: Platform, site: Server) -> None:
    refresh(platform)
    for path in list(site.pages):
        site.pages[path] = down
    with pytest.raises(TransientError, match="6 of 6 pages"):
        refresh(platform)
    assert len(documents(platform)) == 6


def test_a_page_that_moved_is_the_same_document(platform: Platform, site: Server) -> None:
    refresh(platform)
    before = identities(platform)
    site.page("/better/a", TEXT.format(name="a"), etag='"x"')
    site.answer("/a", status=301, Location="/better/a")
    _, revision = refresh(platform)
    assert changes(revision) == {"renamed": 1}
    after = identities(platform)
    (moved,) = after.keys() - before.keys()
    (old,) = before.keys() - after.keys()
    assert moved.endswith("better/a.html")
    assert after[moved] == before[old]


def test_a_crawl_deletes_what_is_no_longer_linked_only_when_it_saw_everything(
    make_web: Callable[..., Platform], site: Server
) -> None:
    def links(*names: str) -> str:
        return TEXT.format(name="links") + "".join(f'<a href="/{name}">x</a>' for name in names)

    site.page("/", links(*"abcde"))
    site.page("/a", links("f"))
    platform = make_web(crawl=site.url("/"))
    refresh(platform)
    assert len(documents(platform)) == 7

    working = site.pages["/a"]
    site.pages["/a"] = down
    _, revision = refresh(platform)
    assert (changes(revision), len(documents(platform))) == ({}, 7), "f is only linked from the page that failed"

    site.pages["/a"] = working
    site.page("/a", links())
    _, revision = refresh(platform)
    assert changes(revision) == {"changed": 1, "deleted": 1}


def test_a_released_page_stays_released_while_it_cannot_be_reached(
    make_platform: Callable[..., Platform], site: Server
) -> None:
    from assets.corpus.quarantine import release

    urls = [site.url(f"/{name}") for name in "abcdef"]
    source = {
        "name": "docs", "kind": "http", "allow_private": True, "ports": [site.port], "requests_per_second": 1000,
        "tries": 1, "urls": urls,
    }  # fmt: skip
    site.page("/a", "<p>Hi.</p>")
    policy = {"minimum_characters": 20}
    platform = make_platform(**{"sources.yaml": {"sources": [source]}, "policies/corpus.yaml": policy})
    refresh(platform)
    (path,) = quarantined(platform)
    with platform.database.connect() as connection:
        release(connection, "docs", path, by="ada")
    refresh(platform)
    assert len(documents(platform)) == 6
    working = site.pages["/a"]
    site.pages["/a"] = down
    refresh(platform)
    site.pages["/a"] = working
    refresh(platform)
    assert len(documents(platform)) == 6
