"""URLs in one spelling, paths of pages, and what pages, headers and sitemaps say."""

import gzip
from datetime import UTC, datetime
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from resources.sources.base import safe_path
from resources.sources.web_pages import (
    NotASitemapError,
    canonical_url,
    ending_of,
    header_directives,
    host_allowed,
    link_header_canonical,
    path_of,
    possible_paths,
    read_page,
    read_sitemap,
    stem_of,
)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("HTTP://Example.COM:80/a/../b/./c#part", "http://example.com/b/c"),
        ("https://example.com:443", "https://example.com/"),
        ("http://example.com/%7euser/%c3%bc", "http://example.com/~user/%C3%BC"),
        ("http://example.com/ü?q=ä", "http://example.com/%C3%BC?q=%C3%A4"),
        ("http://example.com/a?utm_source=x&b=1&fbclid=2", "http://example.com/a?b=1"),
        ("http://example.com/a?UTM_Medium=x", "http://example.com/a"),
        ("http://example.com/a?", "http://example.com/a"),
        ("http://example.com/%2e%2e/x", "http://example.com/x"),
        ("http://example.com/a b", "http://example.com/a%20b"),
        ("http://bücher.example/", "http://xn--bcher-kva.example/"),
        ("http://me:pw@example.com/", None),
        ("mailto:me@example.com", None),
        ("javascript:alert(1)", None),
        ("http://example.com:22/", None),
        ("http://2130706433/", None),
        ("http://example.com/" + "x" * 2000, None),
    ],
)
def test_one_spelling(url: str, expected: str | None) -> None:
    assert canonical_url(url) == expected


def test_parameters_that_matter_are_a_matter_of_configuration() -> None:
    assert canonical_url("http://e.com/?session=1&id=2", ["session"]) == "http://e.com/?id=2"
    assert canonical_url("http://e.com/?utm_source=1", []) == "http://e.com/?utm_source=1"


_urls = st.builds(
    lambda segments, query: "http://example.com/" + "/".join(quote(s, safe="") for s in segments) + query,
    st.lists(st.text(max_size=12), max_size=4),
    st.one_of(st.just(""), st.text(min_size=1, max_size=12).map(lambda text: "?q=" + quote(text))),
)


@given(_urls)
def test_the_spelling_is_stable_and_the_path_is_safe(url: str) -> None:
    once = canonical_url(url)
    assert once is not None
    assert canonical_url(once) == once
    path = path_of(once, ".html")
    assert safe_path(path) == (path, None)
    assert path in set(possible_paths(once))


@given(_urls, _urls)
@example("http://example.com/0?q=0", "http://example.com//0?q=0")
def test_urls_of_one_depth_share_a_path_only_by_an_added_ending(first: str, second: str) -> None:
    one, two = canonical_url(first), canonical_url(second)
    assert one is not None
    assert two is not None
    if one != two and stem_of(one) == stem_of(two):
        empty_segment = any("//" in url.removeprefix("http://") for url in (one, two))
        assert empty_segment or "index" in stem_of(one) or "%2F" in stem_of(one)
        assert path_of(one, ".html", tagged=True) != path_of(two, ".html", tagged=True)


@pytest.mark.parametrize(
    ("url", "ending", "path"),
    [
        ("http://example.com/", ".html", "example.com/index.html"),
        ("http://example.com/guide/", ".html", "example.com/guide/index.html"),
        ("http://example.com/guide", ".html", "example.com/guide.html"),
        ("http://example.com/guide.htm", ".htm", "example.com/guide.htm"),
        ("http://example.com/Guide.PDF", ".pdf", "example.com/Guide.PDF"),
        ("http://example.com/v1.2", ".html", "example.com/v1.2.html"),
        ("http://example.com/page.php?id=3", ".html", "example.com/page.php?id=3.html"),
        ("http://example.com/get?file=a/b.pdf", ".pdf", "example.com/get?file=a%2Fb.pdf"),
        ("http://example.com:8080/%C3%BCber%20uns", ".html", "example.com_8080/über uns.html"),
        ("http://example.com/a%2Fb", ".html", "example.com/a%2Fb.html"),
        ("http://example.com/%FF", ".html", "example.com/%FF.html"),
    ],
)  # fmt: skip
def test_paths_can_be_read(url: str, ending: str, path: str) -> None:
    assert path_of(url, ending) == path


def test_a_very_long_url_has_a_path_of_its_own() -> None:
    paths = {path_of("http://example.com/" + "ü" * 150 + "x" * number, ".html") for number in range(900, 905)}
    assert len(paths) == 5
    assert all(len(path.encode()) < 700 for path in paths)


@pytest.mark.parametrize(
    ("media_type", "url", "start", "ending"),
    [
        ("text/html", "http://e/a", b"", ".html"),
        ("text/html", "http://e/a.pdf", b"<h", ".html"),
        ("text/html", "http://e/a.xhtml", b"", ".xhtml"),
        ("application/pdf", "http://e/get?id=1", b"", ".pdf"),
        ("application/octet-stream", "http://e/a.docx", b"PK", ".docx"),
        ("application/octet-stream", "http://e/download", b"%PDF-1.7", ".pdf"),
        ("application/octet-stream", "http://e/setup.exe", b"MZ", None),
        ("text/plain", "http://e/README.md", b"", ".md"),
        ("text/plain", "http://e/page.html", b"", ".txt"),
        ("text/plain", "http://e/licence", b"", ".txt"),
        ("image/png", "http://e/a.png", b"", None),
        ("text/css", "http://e/a.css", b"", None),
        ("", "http://e/a.html", b"", ".html"),
    ],
)
def test_the_ending_says_how_the_page_is_read(media_type: str, url: str, start: bytes, ending: str | None) -> None:
    assert ending_of(media_type, url, start) == ending


PAGE = b"""<html><head><base href="/docs/"><link rel="Canonical" href="one">
<meta name="robots" content="max-snippet:3, nofollow"></head><body>
<a href="two">2</a> <a href="two">2 again</a> <a rel="x nofollow" href="three">3</a> <a href="mailto:x@y">m</a>
<a href="//other.example/x">o</a> <a href="javascript:1">j</a> <area href="../four?a=1&amp;b=2"> <a>none</a> <a href="http://[">bad</a></body>"""


def test_a_page_says_where_to_go_and_what_may_be_kept() -> None:
    facts = read_page(PAGE.replace(b"nofollow", b"all", 1), "http://e.com/x/y", None, {}, "genaiops")
    assert facts.links == ("http://e.com/docs/two", "http://other.example/x", "http://e.com/four?a=1&b=2")
    assert (facts.canonical, facts.index, facts.follow) == ("http://e.com/docs/one", True, True)
    assert read_page(PAGE, "http://e.com/x/y", None, {}, "genaiops").links == ()


def test_links_behind_the_end_of_a_page_count() -> None:
    assert read_page(b"<html><body>x</body></html>\n<a href='/x'>x</a>", "http://e/", None, {}, "g").links == (
        "http://e/x",
    )


@pytest.mark.parametrize(
    ("name", "content", "index", "follow"),
    [
        ("robots", "noindex", False, True),
        ("ROBOTS", "NoIndex, NoFollow", False, False),
        ("robots", "none", False, False),
        ("genaiops", "noindex", False, True),
        ("googlebot", "noindex", True, True),
    ],
)
def test_meta_directives(name: str, content: str, index: bool, follow: bool) -> None:
    page = f'<meta name="{name}" content="{content}"><a href="/x">x</a>'.encode()
    facts = read_page(page, "http://e/", "utf-8", {}, "genaiops")
    assert (facts.index, facts.follow) == (index, follow)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("noindex", (False, True)),
        ("noindex, nofollow", (False, False)),
        ("googlebot: noindex", (True, True)),
        ("googlebot: noindex, genaiops: nofollow", (True, False)),
        ("unavailable_after: 25 Jun 2010 15:00:00 PST", (True, True)),
        ("", (True, True)),
    ],
)
def test_header_directives(header: str, expected: tuple[bool, bool]) -> None:
    assert header_directives({"x-robots-tag": header}, "genaiops") == expected


def test_canonical_in_a_header() -> None:
    header = {"link": '</a>; rel="next", </b>; rel="canonical"'}
    assert link_header_canonical(header, "http://e/x") == "http://e/b"
    assert link_header_canonical({"link": '</a>; rel="next"'}, "http://e/x") is None


@pytest.mark.parametrize("content", [b"", b"\x00\xff", b"<" * 5000, b"<a href=" * 20000, b"<!--" * 20000])
def test_no_page_breaks_the_reader(content: bytes) -> None:
    assert read_page(content, "http://e/", "no-such-charset", {}, "genaiops").canonical is None


def test_hosts() -> None:
    assert host_allowed("docs.e.com", ["*.e.com"])
    assert not host_allowed("e.com", ["*.e.com"])
    assert not host_allowed("evil-e.com", ["*.e.com", "e.com"])


URLSET = b"""<?xml version="1.0" encoding="UTF-8"?>
<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">
<!-- c --><url><loc> http://e/a </loc><lastmod>2024-05-01</lastmod></url><url><loc>http://e/b?x=1&amp;y=2</loc></url><url/></urlset>"""
INDEX = b"<sitemapindex><sitemap><loc>http://e/s1.xml.gz</loc></sitemap></sitemapindex>"


def test_sitemaps() -> None:
    pages = (("http://e/a", datetime(2024, 5, 1, tzinfo=UTC)), ("http://e/b?x=1&y=2", None))
    assert read_sitemap(URLSET, 10_000).pages == pages
    assert read_sitemap(gzip.compress(URLSET), 10_000).pages == pages
    assert read_sitemap(INDEX, 10_000).sitemaps == ("http://e/s1.xml.gz",)
    assert read_sitemap(b"\xef\xbb\xbfhttp://e/a\nhttps://e/b\n\n", 100).pages == (
        ("http://e/a", None),
        ("https://e/b", None),
    )


BOMB = b"""<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><urlset><url><loc>&b;</loc></url></urlset>"""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html><body>Down for maintenance</body></html>", "outermost"),
        (b"<!doctype html><p>Down", "document type"),
        (BOMB, "document type"),
        (b"<urlset><url>", "well-formed"),
        (b"Down for maintenance", "one URL per line"),
        (gzip.compress(b"<" + b" " * 1_000_000), "more than 10,000 bytes"),
        (gzip.compress(URLSET)[:-9], "breaks off"),
        (b"\x1f\x8bnonsense", "damaged"),
    ],
)
def test_what_is_no_sitemap_is_said_and_never_taken_for_an_empty_one(content: bytes, message: str) -> None:
    with pytest.raises(NotASitemapError, match=message):
        read_sitemap(content, 10_000)
