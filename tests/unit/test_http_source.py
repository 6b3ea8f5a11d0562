"""The kind http against a real site on the loopback: lists, sitemaps, crawls, validators, faults and politeness."""

import contextlib
import gzip
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from resources.errors import ConfigError, TransientError
from resources.sources.base import (
    DocumentTooLargeError,
    DocumentVanishedError,
    Listing,
    SourceContext,
    SourceEntry,
)
from resources.sources.http import KIND, HttpPlace, HttpSource
from resources.sources.robots import Pace
from tests.loopback import Server

HOST = "site.example"
AT = "http://site.example:{port}"


class Site(Server):
    """A server that goes by a name, and a source that reads it."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.sleeps: list[float] = []

    def at(self, path: str, host: str = HOST) -> str:
        return self.url(path, host)

    def place(self, **settings: Any) -> HttpPlace:
        """A place without pauses; ``resolve`` sends every name here."""
        resolve = settings.pop("resolve", lambda host, port: ["127.0.0.1"])
        pace = settings.pop("pace", None)
        base = {"name": "web", "allow_private": True, "ports": [self.port], "requests_per_second": 1000, "tries": 1}
        return HttpPlace(
            HttpSource(**(base | settings)),
            state_file=self.folder / "state" / "pages.json.gz",
            resolve=resolve,
            pace=pace or Pace(1000, sleep=self.sleeps.append),
        )

    def look(self, **settings: Any) -> Listing:
        return self.place(**settings).list()

    def path(self, name: str) -> str:
        return f"{HOST}_{self.port}/{name}"

    def statuses(self) -> list[tuple[str, bool]]:
        """(path, conditional) of what was asked for, since the last call."""
        seen = [
            (path, "if-none-match" in headers or "if-modified-since" in headers)
            for path, headers in self.seen
            if path != "/robots.txt"
        ]
        self.seen.clear()
        return sorted(seen)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Site(tmp_path) as site:
        yield site


def contents(listing: Listing) -> dict[str, bytes]:
    return {entry.path.split("/", 1)[1]: entry.fetch() for entry in listing.entries}


def names(listing: Listing) -> list[str]:
    return [entry.path.split("/", 1)[1] for entry in listing.entries]


def one(listing: Listing) -> SourceEntry:
    (entry,) = listing.entries
    return entry


def link(*targets: str) -> str:
    return "<p>text</p>" + "".join(f'<a href="{target}">x</a>' for target in targets)


# --- a list of URLs


def test_a_list_of_urls(site: Site) -> None:
    site.page("/a", "<p>A</p>", modified="Wed, 01 May 2024 10:00:00 GMT")
    site.page("/doc.pdf?v=2", b"%PDF-1.7", content_type="application/pdf")
    listing = site.look(urls=[site.at("/a#top"), site.at("/doc.pdf?v=2&utm_source=mail"), site.at("/a")])
    assert contents(listing) == {"a.html": b"<p>A</p>", "doc.pdf?v=2.pdf": b"%PDF-1.7"}
    first = listing.entries[0]
    assert first.modified == datetime(2024, 5, 1, 10, tzinfo=UTC)
    assert first.provenance == {"url": site.at("/a"), "last_modified": "Wed, 01 May 2024 10:00:00 GMT"}
    assert listing.kept is None


def test_what_a_person_listed_never_disappears_silently(site: Site) -> None:
    site.page("/ok", "x")
    site.answer("/robots.txt", b"User-agent: *\nDisallow: /closed")
    site.page("/closed", "x")
    site.page("/hidden", "x", **{"X-Robots-Tag": "noindex"})
    site.page("/tool.exe", b"MZ", content_type="application/x-msdownload")
    site.answer("/login", status=403)
    site.answer("/away", status=302, Location="http://elsewhere.example/")
    urls = [site.at(f"/{name}") for name in ("ok", "closed", "hidden", "tool.exe", "login", "away", "none")]
    listing = site.look(urls=urls)
    assert names(listing) == ["ok.html"]
    assert {item.path.split("/", 1)[1]: (item.code, item.reason.split(";")[0]) for item in listing.refused} == {
        "closed.html": ("unreadable", "not allowed by robots.txt"),
        "hidden.html": ("unreadable", "noindex"),
        "tool.exe": ("unsupported", "no parser for application/x-msdownload"),
        "login.html": ("unreadable", "the server answers HTTP 403"),
        "away.html": ("unreadable", "leads to another site"),
    }
    assert listing.skipped["gone (404 or 410)"] == 1


def test_the_same_page_at_two_urls_is_listed_once_and_different_ones_never_share_a_path(site: Site) -> None:
    for path in ("/a/", "/a/index.html", "/a/index"):
        site.page(path, path)
    site.answer("/old", status=301, Location="/a/")
    urls = [site.at(path) for path in ("/old", "/a/", "/a/index", "/a/index.html")]
    listing = site.look(urls=urls)
    assert len({entry.path for entry in listing.entries}) == 3
    assert contents(listing)["a/index.html"] == b"/a/index.html", "the URL spelt like the path has it"
    assert names(site.look(urls=urls[::-1])) == names(listing)


# --- validators


def test_an_unchanged_page_with_a_strong_etag_is_not_sent_again(site: Site) -> None:
    site.page("/a", "<p>A</p>", etag='"1"')
    settings = {"urls": [site.at("/a")]}
    first = one(site.look(**settings))
    assert first.identity is not None
    second = one(site.look(**settings))
    assert site.statuses() == [("/a", False), ("/a", True)]
    assert (second.path, second.identity) == (first.path, first.identity)
    assert second.confirm is not None

    # what it holds may be needed all the same: another parser, or a database that lost it
    assert second.fetch() == b"<p>A</p>"
    assert second.confirm()

    third = one(site.look(**settings))
    site.page("/a", "<p>B</p>", etag='"2"')
    assert third.fetch() == b"<p>B</p>"
    assert third.confirm is not None
    assert not third.confirm(), "what was fetched is not what the identity names"
    assert one(site.look(**settings)).identity != first.identity


def test_the_identity_holds_without_what_was_remembered(site: Site) -> None:
    """A pod without a disk: everything is sent again, and is still known to be unchanged."""
    site.page("/a", "<p>A</p>", etag='"1"')
    first = one(site.look(urls=[site.at("/a")]))
    (site.folder / "state" / "pages.json.gz").write_bytes(b"damaged")
    second = one(site.look(urls=[site.at("/a")]))
    assert site.statuses() == [("/a", False), ("/a", False)]
    assert second.identity == first.identity


@pytest.mark.parametrize(
    ("validators", "trust", "trusted"),
    [
        ({"etag": '"1"'}, "strong_etag", True),
        ({"etag": 'W/"1"'}, "strong_etag", False),
        ({"etag": 'W/"1"'}, "any_validator", True),
        ({"modified": "Wed, 01 May 2024 10:00:00 GMT"}, "strong_etag", False),
        ({"modified": "Wed, 01 May 2024 10:00:00 GMT"}, "any_validator", True),
        ({"etag": '"1"', "modified": "Wed, 01 May 2024 10:00:00 GMT"}, "nothing", False),
        ({}, "any_validator", False),
    ],
)
def test_what_proves_that_a_page_is_unchanged(
    site: Site, validators: dict[str, str], trust: str, trusted: bool
) -> None:
    site.page("/a", "<p>A</p>", **validators)  # pyright: ignore[reportArgumentType]
    for _ in range(2):
        entry = one(site.look(urls=[site.at("/a")], trust=trust))
        assert (entry.identity is not None) == trusted
    assert site.statuses() == [("/a", False), ("/a", trusted)]


def test_a_page_that_was_just_changed_is_not_trusted_by_its_date(site: Site) -> None:
    """Last-Modified counts seconds: a second edit within the same one would not show."""
    now = datetime.now(UTC) - timedelta(seconds=5)
    site.page("/a", "<p>A</p>", modified=now.strftime("%a, %d %b %Y %H:%M:%S GMT"))
    assert one(site.look(urls=[site.at("/a")], trust="any_validator")).identity is None


def test_an_etag_of_another_place_proves_nothing(site: Site) -> None:
    """The page moved to where, by chance, another content has the same ETag."""
    site.page("/one", "<p>1</p>", etag='"1"')
    site.page("/two", "<p>2</p>", etag='"1"')
    site.answer("/a", status=302, Location="/one")
    first = one(site.look(urls=[site.at("/a")]))
    site.answer("/a", status=301, Location="/two")
    second = one(site.look(urls=[site.at("/a")]))
    assert second.identity != first.identity
    assert second.fetch() == b"<p>2</p>"


# --- redirects


def test_permanent_redirects_move_a_document_and_temporary_ones_do_not(site: Site) -> None:
    site.page("/new", "x")
    site.answer("/moved", status=301, Location="/new")
    assert one(site.look(urls=[site.at("/moved")])).provenance == {
        "url": site.at("/new"),
        "requested": site.at("/moved"),
        "redirects": [{"url": site.at("/moved"), "status": 301}],
    }
    site.answer("/latest", status=302, Location="/new")
    assert names(site.look(urls=[site.at("/latest")])) == ["latest.html"]


@pytest.mark.parametrize(
    "target", ["http://169.254.169.254/latest/meta-data/iam/", "http://[fd00:ec2::254]/", "http://inside.example/"]
)
def test_a_redirect_to_a_forbidden_address_is_refused(site: Site, target: str) -> None:
    site.page("/ok", "x")
    site.answer("/go", status=302, Location=target)
    names_of = {HOST: "127.0.0.1", "inside.example": "169.254.169.254"}
    listing = site.look(
        urls=[site.at("/ok"), site.at("/go")],
        hosts=["inside.example", "169.254.169.254", "fd00:ec2::254"],
        resolve=lambda host, port: [names_of[host]],
        respect_robots=False,
    )
    (refused,) = listing.refused
    assert "never fetched" in refused.reason


def test_redirects_without_end_are_refused(site: Site) -> None:
    site.answer("/loop", status=302, Location="/loop")
    (refused,) = site.look(urls=[site.at("/loop")]).refused
    assert "more than 5 redirects" in refused.reason


def test_a_name_that_changes_to_a_private_address_is_not_followed(site: Site) -> None:
    """DNS rebinding between the check of the configuration and the request."""
    site.page("/a", "secret of the intranet")
    answers = iter([["93.184.215.14"]])
    listing = site.look(
        urls=[site.at("/a")], allow_private=False, respect_robots=False,
        resolve=lambda host, port: next(answers, ["127.0.0.1"]),
    )  # fmt: skip
    assert not listing.entries
    assert "a private address" in listing.refused[0].reason
    assert site.paths == []


def test_a_private_address_in_the_configuration_is_a_mistake_there(site: Site) -> None:
    with pytest.raises(ConfigError, match=r"source 'web': .*allow_private: true"):
        site.look(urls=[site.at("/a")], allow_private=False)
    with pytest.raises(ConfigError, match="port"):
        site.look(urls=[site.at("/a")], ports=[])


# --- faults


def broken(status: int, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def send(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return send


@pytest.mark.parametrize("status", [500, 503, 429, 408])
def test_a_page_that_cannot_be_reached_says_nothing_about_any_document(site: Site, status: int) -> None:
    for number in range(5):
        site.page(f"/{number}", str(number))
    site.pages["/down"] = broken(status)
    listing = site.look(urls=[site.at(f"/{name}") for name in (0, 1, 2, 3, 4, "down", "gone")])
    assert len(listing.entries) == 5
    assert listing.skipped["not reachable this time"] == 1
    assert listing.kept is not None
    assert listing.kept(site.path("down.html"))
    assert listing.kept(site.path("elsewhere.pdf")), "it may have moved there"
    assert not listing.kept(site.path("gone.html")), "the server said that this one is gone"


def test_too_many_pages_that_cannot_be_reached_fail_the_listing(site: Site) -> None:
    site.page("/a", "x")
    site.pages["/b"] = broken(500)
    with pytest.raises(TransientError, match=r"1 of 2 pages cannot be reached, first http://site\.example.*HTTP 500"):
        site.look(urls=[site.at("/a"), site.at("/b")])


def test_trying_again_helps_and_waits_as_long_as_asked(site: Site) -> None:
    answers = [broken(503, Retry_After="7"), broken(429)]

    def flaky(handler: BaseHTTPRequestHandler) -> None:
        if answers:
            answers.pop(0)(handler)
        else:
            good(handler)

    site.page("/a", "<p>A</p>")
    good = site.pages["/a"]
    site.pages["/a"] = flaky
    assert contents(site.look(urls=[site.at("/a")], tries=3, respect_robots=False)) == {"a.html": b"<p>A</p>"}
    pauses = [seconds for seconds in site.sleeps if seconds > 0.1]
    assert pauses[0] == 7
    assert 2 <= pauses[1] <= 4


def test_nobody_waits_for_an_hour(site: Site) -> None:
    site.pages["/a"] = broken(503, Retry_After="3600")
    with pytest.raises(TransientError):
        site.look(urls=[site.at("/a")], tries=5)
    assert site.paths == ["/a"]


def test_a_decompression_bomb_and_an_oversized_page_are_shown_not_read(site: Site) -> None:
    bomb = gzip.compress(b"\0" * 50_000_000)
    site.answer("/bomb", bomb, Content_Type="text/html", Content_Encoding="gzip")
    site.page("/big", "x" * 10_001)
    site.page("/fits", "x" * 10_000)
    listing = site.look(urls=[site.at(path) for path in ("/bomb", "/big", "/fits")], maximum_bytes=10_000)
    assert {entry.path.split("/", 1)[1]: entry.size for entry in listing.entries} == {
        "bomb.html": 10_001, "big.html": 10_001, "fits.html": 10_000,
    }  # fmt: skip
    by_name = {entry.path.split("/", 1)[1]: entry for entry in listing.entries}
    for name in ("bomb.html", "big.html"):
        with pytest.raises(DocumentTooLargeError):
            by_name[name].fetch(10_000)
    assert len(by_name["big.html"].fetch(None)) == 10_001, "a person may release it"


def test_a_page_that_drips_is_given_up(site: Site) -> None:
    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        with contextlib.suppress(OSError):
            for _ in range(100):
                handler.wfile.write(b"x")
                handler.wfile.flush()
                time.sleep(0.05)

    site.pages["/slow"] = drip
    started = time.monotonic()
    with pytest.raises(TransientError, match="longer than allowed"):
        site.look(urls=[site.at("/slow")], request_seconds=0.4)
    assert time.monotonic() - started < 2


def test_a_page_that_vanishes_between_listing_and_reading(site: Site) -> None:
    site.page("/a", "x", etag='"1"')
    site.look(urls=[site.at("/a")])
    entry = one(site.look(urls=[site.at("/a")]))
    del site.pages["/a"]
    with pytest.raises(DocumentVanishedError):
        entry.fetch()


# --- robots and pace


def test_robots_are_asked_once_and_speak_to_us_by_name(site: Site) -> None:
    site.answer("/robots.txt", b"User-agent: genaiops\nDisallow: /b\n\nUser-agent: *\nDisallow: /\n")
    for path in ("/a", "/b", "/c"):
        site.page(path, "x")
    listing = site.look(urls=[site.at(path) for path in ("/a", "/b", "/c")])
    assert names(listing) == ["a.html", "c.html"]
    assert [path for path, _ in site.seen].count("/robots.txt") == 1
    assert site.seen[0][1]["user-agent"] == "genaiops/1"
    everything = site.look(urls=[site.at("/b")], respect_robots=False)
    assert names(everything) == ["b.html"]


@pytest.mark.parametrize(("status", "allowed"), [(404, True), (403, True), (500, False), (503, False)])
def test_robots_that_cannot_be_read(site: Site, status: int, allowed: bool) -> None:
    site.page("/a", "x")
    site.pages["/robots.txt"] = broken(status)
    if allowed:
        assert names(site.look(urls=[site.at("/a")])) == ["a.html"]
    else:
        with pytest.raises(TransientError, match=r"robots\.txt"):
            site.look(urls=[site.at("/a")])
        assert site.paths == []


class FakeTime:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize(("robots", "seconds"), [(b"", 2.5), (b"User-agent: *\nCrawl-delay: 4", 20.0)])
def test_requests_keep_their_pace_and_the_site_may_ask_for_a_slower_one(
    site: Site, robots: bytes, seconds: float
) -> None:
    site.answer("/robots.txt", robots)
    for number in range(5):
        site.page(f"/{number}", "x")
    clock = FakeTime()
    pace = Pace(2, clock.monotonic, clock.sleep)
    site.look(urls=[site.at(f"/{number}") for number in range(5)], pace=pace, concurrency=1)
    # robots.txt and five pages: the last starts five intervals after the first, whose delay was not yet known
    assert clock.now - 100 == pytest.approx(seconds if not robots else 0.5 + 4 * 4)


def test_hosts_wait_for_themselves_alone() -> None:
    clock = FakeTime()
    pace = Pace(1, clock.monotonic, clock.sleep)
    for host in ("a", "b", "a", "b"):
        pace.wait(host)
    assert clock.now == 101


# --- sitemaps


def sitemap(*urls: str) -> bytes:
    return ("<urlset>" + "".join(f"<url><loc>{url}</loc></url>" for url in urls) + "</urlset>").encode()


def index(*urls: str) -> bytes:
    return (
        "<sitemapindex>" + "".join(f"<sitemap><loc>{url}</loc></sitemap>" for url in urls) + "</sitemapindex>"
    ).encode()


def test_sitemaps_and_their_indexes(site: Site) -> None:
    site.answer("/sitemap.xml", index(site.at("/1.xml"), site.at("/2.xml.gz"), "http://elsewhere.example/3.xml"))
    site.answer("/1.xml", sitemap(site.at("/a"), site.at("/b"), "http://elsewhere.example/x"))
    site.answer("/2.xml.gz", gzip.compress(sitemap(site.at("/c?utm_source=x"), site.at("/a"), site.at("/pic.png"))))
    for path in ("/a", "/b", "/c"):
        site.page(path, path)
    site.page("/pic.png", b"PNG", content_type="image/png")
    listing = site.look(sitemap=site.at("/sitemap.xml"))
    assert contents(listing) == {"a.html": b"/a", "b.html": b"/b", "c.html": b"/c"}
    assert listing.skipped["no parser for this kind of content"] == 1


def test_a_sitemap_that_cannot_be_read_is_no_empty_one(site: Site) -> None:
    site.page("/sitemap.xml", "<html>Down for maintenance</html>")
    with pytest.raises(TransientError, match="is not a sitemap"):
        site.look(sitemap=site.at("/sitemap.xml"))
    site.pages["/sitemap.xml"] = broken(503)
    with pytest.raises(TransientError, match="HTTP 503"):
        site.look(sitemap=site.at("/sitemap.xml"))
    with pytest.raises(ConfigError, match="HTTP 404"):
        site.look(sitemap=site.at("/other.xml"))
    site.answer("/sitemap.xml", index(site.at("/1.xml"), site.at("/2.xml")))
    site.answer("/1.xml", sitemap(site.at("/a")))
    with pytest.raises(TransientError, match=r"2\.xml answers HTTP 404"):
        site.look(sitemap=site.at("/sitemap.xml"))


def test_a_sitemap_is_read_up_to_the_configured_number_of_pages(site: Site) -> None:
    site.answer("/s.xml", sitemap(*(site.at(f"/{number}") for number in range(9)), site.at("/s.xml")))
    for number in range(9):
        site.page(f"/{number}", "x")
    listing = site.look(sitemap=site.at("/s.xml"), maximum_pages=4)
    assert names(listing) == ["0.html", "1.html", "2.html", "3.html"]
    assert listing.skipped["beyond maximum_pages"] == 6


def test_a_sitemap_that_names_itself_ends(site: Site) -> None:
    site.answer("/s.xml", index(site.at("/s.xml"), site.at("/t.xml")))
    site.answer("/t.xml", index(site.at("/s.xml")))
    assert not site.look(sitemap=site.at("/s.xml")).entries


# --- crawls


def test_a_crawl_follows_links_inside_the_site_to_its_depth(site: Site) -> None:
    site.page("/", link("/a", "b#part", "http://elsewhere.example/", "/pic.png", "mailto:x@y", "?utm_source=1"))
    site.page("/a", link("/deep"))
    site.page("/b", link("/a", "/missing"))
    site.page("/deep", link("/deeper"))
    site.page("/deeper", "x")
    site.page("/pic.png", b"PNG", content_type="image/png")
    listing = site.look(crawl=site.at("/"), depth=2)
    assert names(listing) == ["a.html", "b.html", "deep.html", "index.html"]
    assert sorted(site.paths) == ["/", "/a", "/b", "/deep", "/missing", "/pic.png"]
    assert listing.skipped["gone (404 or 410)"] == 1
    assert names(site.look(crawl=site.at("/"), depth=0)) == ["index.html"]


def test_a_crawl_of_unchanged_pages_asks_and_is_sent_nothing(site: Site) -> None:
    site.page("/", link("/a", "/b"), etag='"0"')
    site.page("/a", link("/c"), etag='"1"')
    site.page("/b", "x", etag='"2"')
    site.page("/c", "x", etag='"3"')
    first = site.look(crawl=site.at("/"))
    site.statuses()
    second = site.look(crawl=site.at("/"))
    assert site.statuses() == [("/", True), ("/a", True), ("/b", True), ("/c", True)]
    assert [(e.path, e.identity) for e in second.entries] == [(e.path, e.identity) for e in first.entries]
    site.page("/a", link("/d"), etag='"9"')
    site.page("/d", "new")
    assert names(site.look(crawl=site.at("/"))) == ["a.html", "b.html", "d.html", "index.html"]


def test_pages_say_what_may_be_kept_and_followed(site: Site) -> None:
    site.page("/", link("/noindex", "/nofollow", "/header") + '<a rel="nofollow" href="/secret">x</a>')
    site.page("/noindex", '<meta name="robots" content="noindex">' + link("/behind"))
    site.page("/nofollow", '<meta name="robots" content="nofollow">' + link("/unseen"))
    site.page("/header", b"%PDF-", content_type="application/pdf", **{"X-Robots-Tag": "noindex"})
    for path in ("/secret", "/unseen", "/behind"):
        site.page(path, "x")
    listing = site.look(crawl=site.at("/"))
    assert names(listing) == ["behind.html", "index.html", "nofollow.html"]
    assert listing.skipped["noindex"] == 2
    everything = site.look(crawl=site.at("/"), respect_robots=False)
    assert set(names(everything)) >= {"noindex.html", "unseen.html", "header.pdf", "secret.html"}


def test_copies_give_way_to_the_page_they_name(site: Site) -> None:
    canonical = '<link rel="canonical" href="/page">'
    site.page("/", link("/page?sort=1", "/page?sort=2", "/lonely"))
    site.page("/page?sort=1", canonical)
    site.page("/page?sort=2", canonical)
    site.page("/page", "the page" + canonical)
    site.page("/lonely", '<link rel="canonical" href="/never-there">')
    listing = site.look(crawl=site.at("/"))
    assert names(listing) == ["index.html", "lonely.html", "page.html"]
    assert listing.skipped["a copy of another page"] == 2


def test_a_trap_for_crawlers_ends_at_the_page_limit(site: Site) -> None:
    def endless(handler: BaseHTTPRequestHandler) -> None:
        body = link(*(f"{handler.path.rstrip('/')}/{number}" for number in range(50))).encode()
        handler.send_response(200)
        handler.send_header("Content-Type", "text/html")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    class Everything(dict[str, Any]):
        def get(self, key: str, default: Any = None) -> Any:
            return endless if key != "/robots.txt" else default

    site.pages = Everything()
    listing = site.look(crawl=site.at("/"), maximum_pages=60, depth=20)
    assert len(listing.entries) == 60
    assert listing.skipped["beyond maximum_pages"] > 0
    again = site.look(crawl=site.at("/"), maximum_pages=60, depth=20)
    assert names(again) == names(listing), "what is cut off does not depend on which answer came first"


def test_a_start_page_that_fails_is_an_error_and_no_empty_site(site: Site) -> None:
    site.pages["/"] = broken(500)
    with pytest.raises(TransientError, match="HTTP 500"):
        site.look(crawl=site.at("/"))
    del site.pages["/"]
    with pytest.raises(ConfigError, match="HTTP 404"):
        site.look(crawl=site.at("/"))


def test_a_page_in_the_middle_that_fails_keeps_what_lies_behind_it(site: Site) -> None:
    site.page("/", link("/a", "/b", "/c", "/d", "/e"))
    for path in ("/b", "/c", "/d", "/e"):
        site.page(path, "x")
    site.pages["/a"] = broken(500)
    listing = site.look(crawl=site.at("/"))
    assert listing.kept is not None
    assert listing.kept(site.path("behind-a.html"))


def test_exclusion_saves_the_request_and_inclusion_does_not_stop_the_crawl(site: Site) -> None:
    site.page("/", link("/private/a", "/list"))
    site.page("/list", link("/docs/one"))
    site.page("/docs/one", "x")
    site.page("/private/a", "x")
    listing = site.look(crawl=site.at("/"), include=["**/docs/**"], exclude=["*/private"])
    assert names(listing) == ["docs/one.html"]
    assert "/private/a" not in site.paths


def test_a_site_that_moved_to_www_is_still_the_site(site: Site) -> None:
    site.answer("/old", status=301, Location=f"http://www.{HOST}:{site.port}/")
    site.page("/", link("/a"))
    site.page("/a", "x")
    assert len(site.look(crawl=site.at("/old")).entries) == 2


# --- configuration


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "exactly one"),
        ({"urls": ["http://a.example/"], "crawl": "http://a.example/"}, "exactly one"),
        ({"urls": ["ftp://a.example/"]}, "not an http or https URL"),
        ({"crawl": "http://me:secret@a.example/"}, "credentials"),
        ({"crawl": "http://a.example/", "ports": [0]}, "port"),
        ({"crawl": "http://a.example/", "user_agent": "a/1"}, "user_agent"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message) as caught:
        HttpSource(name="web", **settings)
    assert "secret" not in "".join(error["msg"] for error in caught.value.errors())


def test_the_main_content_is_the_default() -> None:
    assert HttpSource(name="web", crawl="http://a.example/").main_content


def test_the_token_comes_from_the_environment_and_goes_to_the_site_alone(site: Site, tmp_path: Path) -> None:
    site.page("/a", "x")
    settings = HttpSource(
        name="web", urls=[site.url("/a")], allow_private=True, ports=[site.port], authorization_env="WEB_TOKEN"
    )
    with pytest.raises(ConfigError, match="WEB_TOKEN is not set"):
        KIND.open(SourceContext(tmp_path, tmp_path, {}), settings)
    KIND.open(SourceContext(tmp_path, tmp_path, {"WEB_TOKEN": "Bearer t"}), settings).list()
    assert site.seen[-1][1]["authorization"] == "Bearer t"
    assert (tmp_path / "sources" / "web" / "pages.json.gz").exists()


def test_the_sensor_asks_the_site_nothing(site: Site) -> None:
    times = [datetime(2024, 5, 1, tzinfo=UTC) + timedelta(minutes=minutes) for minutes in (0, 1, 60, 120)]
    marks = [
        HttpPlace(HttpSource(name="web", crawl=site.at("/"), check_minutes=60), now=lambda at=at: at).fingerprint()
        for at in times
    ]
    assert site.seen == []
    assert marks[0] == marks[1]
    assert len(set(marks)) == 3
