"""Web pages: URLs in one spelling, the path a page has as a document, and what a page or a sitemap says about others.

Belongs here: pure functions on URLs, HTML and sitemap XML. Does not belong here: any request (http.py).
"""

import fnmatch
import hashlib
import mimetypes
import posixpath
import re
import unicodedata
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import quote, unquote_to_bytes, urljoin, urlsplit

from resources.network import RefusedUrlError, parse_url

#: Parameters that say where a reader came from, not what is shown.
TRACKING = ("utm_*", "gclid", "dclid", "fbclid", "msclkid", "yclid", "mc_cid", "mc_eid", "_ga", "_gl", "igshid")
_MAXIMUM_URL = 2000
_MAXIMUM_PATH = 600  # bytes
_READ_FOR_LINKS = 5_000_000  # bytes of a page; what stands behind them is still read as text
_END = re.compile(rb"</(?:html|body)\s*>", re.IGNORECASE)
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_READABLE = "-._~!$&'()*+,;=:@"

_OFFICE = "application/vnd.openxmlformats-officedocument."
#: Media type to the endings that mean it; the first is given to a page whose URL has none of them.
_ENDINGS: Mapping[str, tuple[str, ...]] = {
    "text/html": (".html", ".htm", ".xhtml"),
    "application/xhtml+xml": (".html", ".htm", ".xhtml"),
    "text/markdown": (".md", ".markdown", ".mdx"),
    "text/x-markdown": (".md", ".markdown", ".mdx"),
    "text/x-rst": (".rst",),
    "text/csv": (".csv",),
    "text/tab-separated-values": (".tsv",),
    "application/json": (".json", ".ipynb"),
    "application/x-ipynb+json": (".ipynb",),
    "application/xml": (".xml",),
    "text/xml": (".xml",),
    "message/rfc822": (".eml",),
    "application/vnd.ms-outlook": (".msg",),
    "application/pdf": (".pdf",),
    f"{_OFFICE}wordprocessingml.document": (".docx",),
    f"{_OFFICE}presentationml.presentation": (".pptx",),
    f"{_OFFICE}spreadsheetml.sheet": (".xlsx",),
    "application/msword": (".doc",),
    "application/vnd.ms-powerpoint": (".ppt",),
    "application/vnd.ms-excel": (".xls",),
    "application/vnd.oasis.opendocument.text": (".odt",),
    "application/rtf": (".rtf",),
    "text/rtf": (".rtf",),
    "application/epub+zip": (".epub",),
}
_PLAIN = (".txt", ".text")
_GENERIC = {"", "text/plain", "application/octet-stream", "binary/octet-stream", "application/x-download"}
#: Every ending a document may have.
ENDINGS = frozenset(ending for endings in _ENDINGS.values() for ending in endings) | set(_PLAIN)


def canonical_url(url: str, drop_parameters: Sequence[str] = TRACKING, ports: Collection[int] = ()) -> str | None:
    """One spelling of an http(s) URL: no fragment, default port or tracking parameter, lower-case host, no ``..``.

    None when it is not a URL that may be fetched (see network.py), or is longer than 2,000 characters.
    """
    if len(url) > _MAXIMUM_URL:
        return None
    try:
        parsed = parse_url(url.strip().replace(" ", "%20"), ports=ports).copy_with(fragment=None)
        path, _, query = parsed.raw_path.decode("ascii").partition("?")
        kept = [
            part
            for part in query.split("&")
            if part and not any(fnmatch.fnmatchcase(part.split("=", 1)[0].lower(), name) for name in drop_parameters)
        ]
        raw = _respell(path) + ("?" + _respell("&".join(kept)) if kept else "")
        again = parsed.copy_with(raw_path=raw.encode("ascii"))
        return str(parse_url(str(again), ports=ports))  # what was %2E%2E is a dot segment now
    except (RefusedUrlError, ValueError):
        return None


def _respell(text: str) -> str:
    """Percent-encoding in capitals, and none where none is needed."""

    def one(match: re.Match[str]) -> str:
        value = int(match[1], 16)
        return chr(value) if value in _UNRESERVED else f"%{value:02X}"

    return re.sub(r"%([0-9A-Fa-f]{2})", one, text)


def host_of(url: str) -> str:
    """The host of a canonical URL, with its port where that is not the usual one."""
    return urlsplit(url).netloc


def host_allowed(host: str, allowed: Collection[str]) -> bool:
    """Whether a host (without port) is one of ``allowed``: a name, or ``*.example.com`` for all below it."""
    return any(host == item or (item.startswith("*.") and host.endswith(item[1:])) for item in allowed)


# --- paths ------------------------------------------------------------------------------------------------


def ending_of(media_type: str, url: str, start: bytes = b"") -> str | None:
    """The file ending for a page, by its media type and, where that says little, by its URL; None: no document.

    Args:
        media_type: without parameters, lower case; empty when the server named none.
        start: first bytes of the content.
    """
    stated = posixpath.splitext(urlsplit(url).path)[1].lower()
    if media_type in _GENERIC:
        if stated in ENDINGS and not (media_type == "text/plain" and stated in (".html", ".htm", ".xhtml")):
            return stated
        if media_type == "text/plain":
            return _PLAIN[0]
        return ".pdf" if start.startswith(b"%PDF-") else None
    endings = _ENDINGS.get(media_type)
    if endings is None:
        guessed = (mimetypes.guess_extension(media_type) or "").lower()
        return guessed if guessed in ENDINGS else None
    return stated if stated in endings else endings[0]


def stem_of(url: str) -> str:
    """A page's path without an added ending: host, then the readable form of the URL's path and query.

    A segment whose percent-encoding can be undone and done again is shown decoded; any other stays as it is.
    """
    parts = urlsplit(url)
    segments = parts.path.lstrip("/").split("/")
    if not segments[-1]:
        segments[-1] = "index"
    readable = [_readable(segment) or "%2F" for segment in segments]
    if parts.query:
        readable[-1] += "?" + _readable(parts.query).replace("/", "%2F")
    path = "/".join([parts.netloc.replace(":", "_"), *readable])
    if len(path.encode()) > _MAXIMUM_PATH:
        path = f"{path.encode()[: _MAXIMUM_PATH - 20].decode('utf-8', 'ignore')}~{url_tag(url)}"
    return path


def path_of(url: str, ending: str, *, tagged: bool = False) -> str:
    """The path a page has as a document; ``tagged`` where another page has the plain one."""
    stem = stem_of(url)
    base, stated = posixpath.splitext(stem)
    if stated.lower() == ending:
        return f"{base}~{url_tag(url)}{stated}" if tagged else stem
    return f"{stem}~{url_tag(url)}{ending}" if tagged else stem + ending


def possible_paths(url: str) -> Iterator[str]:
    """Every path the page may have had, whatever its media type was."""
    for tagged in (False, True):
        for ending in sorted(ENDINGS):
            yield path_of(url, ending, tagged=tagged)


def url_tag(url: str) -> str:
    """Eight hexadecimal digits that tell URLs apart."""
    return hashlib.sha256(url.encode()).hexdigest()[:8]


def _readable(segment: str) -> str:
    try:
        text = unquote_to_bytes(segment).decode("utf-8")
    except UnicodeDecodeError:
        return segment
    safe = text.isprintable() and not {"/", "\\"} & set(text) and text == unicodedata.normalize("NFC", text)
    return text if safe and quote(text, safe=_READABLE) == segment else segment


# --- what a page says ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PageFacts:
    """What a page tells a crawler.

    Attributes:
        links: absolute URLs it may be followed to, in order; not yet in one spelling.
        canonical: where it says its content really lives, or None.
        index: it may be kept.
        follow: its links may be followed.
    """

    links: tuple[str, ...] = ()
    canonical: str | None = None
    index: bool = True
    follow: bool = True


def read_page(
    content: bytes, url: str, charset: str | None, headers: Mapping[str, str], agent: str, *, obey: bool = True
) -> PageFacts:
    """Read links, ``rel=canonical`` and robots directives of an HTML page and of the headers it came with.

    Args:
        agent: name of this crawler; directives addressed to another one do not count.
        obey: leave out links that must not be followed.
    """
    import lxml.etree
    import lxml.html

    index, follow = header_directives(headers, agent)
    canonical = link_header_canonical(headers, url)
    try:
        parser = lxml.html.HTMLParser(encoding=charset, no_network=True, huge_tree=False, recover=True)
    except LookupError:
        parser = lxml.html.HTMLParser(no_network=True, huge_tree=False, recover=True)
    try:
        # what stands behind </html> is part of the page to a browser, and nothing to this parser
        body = _END.sub(b"", content[:_READ_FOR_LINKS])
        tree = lxml.html.document_fromstring(body or b"<p></p>", parser=parser)
    except (lxml.etree.LxmlError, ValueError, AssertionError):
        return PageFacts((), canonical, index, follow)
    base, links = url, list[str]()
    for element in tree.iter("base", "meta", "link", "a", "area"):
        rel = (element.get("rel") or "").lower().split()
        target = element.get("href") or ""
        if element.tag == "base" and target and base == url:
            base = _joined(url, target) or url
        elif element.tag == "meta" and (element.get("name") or "").lower() in ("robots", agent.lower()):
            index, follow = _directives(element.get("content") or "", index, follow)
        elif element.tag == "link" and "canonical" in rel and target:
            canonical = canonical or _joined(base, target)
        elif element.tag in ("a", "area") and target and not (obey and "nofollow" in rel):
            links.append(_joined(base, target) or "")
    found = tuple(link for link in dict.fromkeys(links) if link)
    return PageFacts(found if follow or not obey else (), canonical, index, follow)


def header_directives(headers: Mapping[str, str], agent: str) -> tuple[bool, bool]:
    """(may be kept, links may be followed) by ``X-Robots-Tag``: ``noindex`` or ``agent: noindex, nofollow``.

    A directive after another agent's name is that agent's.
    """
    index = follow = True
    addressed = True
    for part in headers.get("x-robots-tag", "").lower().split(","):
        name, colon, rest = part.partition(":")
        if colon and name.strip() not in ("unavailable_after", "max-snippet", "max-image-preview", "max-video-preview"):
            addressed, part = name.strip() == agent.lower(), rest
        if addressed:
            index, follow = _directives(part, index, follow)
    return index, follow


def link_header_canonical(headers: Mapping[str, str], url: str) -> str | None:
    """The target of ``Link: <...>; rel="canonical"``."""
    for match in re.finditer(r"<([^<>]{1,2000})>\s*;([^<]{0,500})", headers.get("link", "")):
        if re.search(r"""\brel\s*=\s*["']?[^"';,]*\bcanonical\b""", match[2], re.IGNORECASE):
            return _joined(url, match[1])
    return None


def _directives(text: str, index: bool, follow: bool) -> tuple[bool, bool]:
    words = {word.strip() for word in text.lower().split(",")}
    return index and not words & {"noindex", "none"}, follow and not words & {"nofollow", "none"}


def _joined(base: str, target: str) -> str | None:
    try:
        joined = urljoin(base, target.strip())
    except ValueError:
        return None
    return joined if joined.lower().startswith(("http://", "https://")) else None


# --- sitemaps -----------------------------------------------------------------------------------------------


class NotASitemapError(ValueError):
    """The content is no sitemap; the message says why, without quoting it."""


@dataclass(frozen=True)
class Sitemap:
    """A sitemap: pages with the time they were last changed, if stated; or further sitemaps."""

    pages: tuple[tuple[str, datetime | None], ...]
    sitemaps: tuple[str, ...]


def read_sitemap(content: bytes, maximum_bytes: int) -> Sitemap:
    """Read an XML sitemap, a sitemap index or a list of URLs as text; any of them may be a gzip file.

    Raises:
        NotASitemapError: it is none of these, or larger than ``maximum_bytes`` when unpacked.
    """
    if content.startswith(b"\x1f\x8b"):
        content = _gunzip(content, maximum_bytes)
    head = content.lstrip(b"\xef\xbb\xbf \t\r\n")
    if not head.startswith(b"<"):
        lines = [line.strip() for line in content.decode("utf-8-sig", "replace").splitlines() if line.strip()]
        if not all(line.lower().startswith(("http://", "https://")) for line in lines):
            raise NotASitemapError("neither XML nor one URL per line")
        return Sitemap(tuple((line, None) for line in lines), ())
    return _read_xml(content)


def _read_xml(content: bytes) -> Sitemap:
    import lxml.etree as etree

    if b"<!DOCTYPE" in content[:2000].upper() or b"<!ENTITY" in content:
        raise NotASitemapError("it declares a document type, as web pages do and sitemaps must not")
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, dtd_validation=False, huge_tree=False, recover=False
    )
    try:
        root = etree.fromstring(content, parser)
    except (etree.LxmlError, ValueError) as error:
        raise NotASitemapError("the XML is not well-formed") from error
    kind = _name(root.tag)
    if kind not in ("urlset", "sitemapindex"):
        raise NotASitemapError("its outermost element is neither urlset nor sitemapindex")
    found: list[tuple[str, datetime | None]] = []
    for item in root:
        facts = {_name(child.tag): (child.text or "").strip() for child in item}
        if facts.get("loc"):
            found.append((facts["loc"], _time(facts.get("lastmod", ""))))
    if kind == "sitemapindex":
        return Sitemap((), tuple(url for url, _ in found))
    return Sitemap(tuple(found), ())


def _name(tag: object) -> str:
    return tag.rsplit("}", 1)[-1].lower() if isinstance(tag, str) else ""


def _gunzip(content: bytes, limit: int) -> bytes:
    out = bytearray()
    while content.startswith(b"\x1f\x8b"):
        decoder = zlib.decompressobj(zlib.MAX_WBITS | 16)
        try:
            out += decoder.decompress(content, limit + 1 - len(out))
        except zlib.error as error:
            raise NotASitemapError("the gzip file is damaged") from error
        if len(out) > limit:
            raise NotASitemapError(f"it has more than {limit:,} bytes when unpacked")
        if not decoder.eof:
            raise NotASitemapError("the gzip file breaks off")
        content = decoder.unused_data
    return bytes(out)


def _time(text: str) -> datetime | None:
    try:
        value = datetime.fromisoformat(text)
    except ValueError:
        return None
    return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


def http_date(text: str) -> datetime | None:
    """A point in time from an HTTP header, or None."""
    try:
        value = parsedate_to_datetime(text)
    except (ValueError, TypeError):
        return None
    return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
