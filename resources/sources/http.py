"""The kind ``http``: web pages and files by a list of URLs, by a sitemap, or by a crawl of one site.

Belongs here: which pages there are and what each request says. Does not belong here: which addresses may be reached
(resources/network.py), robots.txt and pace (robots.py), URLs and HTML (web_pages.py), the text of a page (assets/corpus).

A listing asks for every page, because only the server knows what changed. What a page had last time (``pages.json.gz``
in the state folder: validators and links, no text) turns that into a conditional request, which most servers answer
with 304 and no content. Without that file everything is fetched in full and the result is the same.

What is known of a page decides about its document: 200 it is there, 404 and 410 it is gone, anything that may pass
(5xx, 429, no answer) says nothing: as long as one page is in that state, documents that were not listed stay as they
are (``Listing.kept``), and if too many are, the listing fails.
"""

import gzip
import json
import os
import tempfile
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from resources.errors import ConfigError, TransientError
from resources.fingerprint import fingerprint
from resources.network import (
    RefusedUrlError,
    Resolver,
    Response,
    ResponseError,
    ResponseTooLargeError,
    SafeClient,
    check_host,
    origin_of,
    shown,
)
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
)
from resources.sources.robots import ROBOTS_BYTES, Pace, Robots
from resources.sources.web_pages import (
    TRACKING,
    NotASitemapError,
    PageFacts,
    canonical_url,
    ending_of,
    header_directives,
    host_allowed,
    http_date,
    path_of,
    possible_paths,
    read_page,
    read_sitemap,
    stem_of,
)

#: A response larger than this is not read where no source says otherwise.
MAXIMUM_BYTES = 50_000_000
_SITEMAP_BYTES = 52_428_800  # the protocol's own limit, unpacked
_SITEMAPS = 1000
_LONGEST_PAUSE = 120.0  # seconds a server may ask us to wait; more means: not now
_STRONG_AFTER = timedelta(seconds=60)  # RFC 9110, 8.8.2.2: a date this much older than the answer cannot hide an edit
_HTML = ("text/html", "application/xhtml+xml")
_GONE = (404, 410)
_STATE_VERSION = 1


class HttpSource(SourceSettings):
    """Pages and files of the web: exactly one of ``urls``, ``sitemap`` and ``crawl``."""

    kind: Literal["http"] = "http"
    urls: list[str] = Field(default=[], description="Exactly these.")
    sitemap: str | None = Field(default=None, description="URL of a sitemap or a sitemap index; .gz may be.")
    crawl: str | None = Field(default=None, description="URL to start from; links are followed inside the site.")
    depth: int = Field(default=3, ge=0, le=20, description="Links followed one after another, of a crawl.")
    maximum_pages: int = Field(default=1000, ge=1, le=1_000_000, description="Pages of a crawl or a sitemap.")
    hosts: list[str] = Field(
        default=[], description="Hosts that belong to the site, beside those of its URLs; *.example.com for all below."
    )
    drop_parameters: list[str] = Field(
        default=list(TRACKING), description="Query parameters that do not change a page; * stands for any letters."
    )
    respect_robots: bool = Field(
        default=True, description="robots.txt, noindex and nofollow; false only for a site of your own."
    )
    user_agent: str = Field(
        default="genaiops", pattern=r"^[A-Za-z][A-Za-z_-]{0,49}$", description="Name robots.txt knows this crawler by."
    )
    contact: str | None = Field(
        default=None, pattern=r"^[ -~]{1,200}$", description="URL or mail address, sent with the user agent."
    )
    requests_per_second: float = Field(default=2.0, gt=0, le=1000, description="To one host.")
    concurrency: int = Field(default=4, ge=1, le=32, description="Requests under way at once.")
    request_seconds: float = Field(default=120.0, gt=0, le=3600, description="For one request, redirects included.")
    tries: int = Field(default=3, ge=1, le=10, description="Of one page, where trying again may help.")
    maximum_failed_share: float = Field(
        default=0.2, ge=0, le=1, description="If more pages cannot be reached, the refresh fails instead."
    )
    trust: Literal["strong_etag", "any_validator", "nothing"] = Field(
        default="strong_etag",
        description="What proves that a page is unchanged: a strong ETag; also a weak one or Last-Modified; or nothing.",
    )
    check_minutes: int = Field(default=1440, ge=1, description="How often the sensor asks for a refresh.")
    allow_private: bool = Field(default=False, description="Private and loopback addresses may be reached: intranets.")
    ports: list[int] = Field(default=[], description="Allowed beside 80, 443, 8080 and 8443.")
    ca_file: str | None = Field(default=None, description="PEM of a certificate authority of your own.")
    authorization_env: str | None = Field(
        default=None,
        description="Environment variable with the value of the Authorization header, e.g. 'Bearer ...'; sent to the "
        "origins of the configured URLs alone.",
    )
    maximum_total_bytes: int = Field(default=20_000_000_000, ge=1, description="Disk one listing may use meanwhile.")
    main_content: bool = True

    @field_validator("urls")
    @classmethod
    def _checked_list(cls, value: list[str]) -> list[str]:
        for url in value:
            _checked(url)
        return value

    @field_validator("sitemap", "crawl")
    @classmethod
    def _checked_one(cls, value: str | None) -> str | None:
        return _checked(value) if value is not None else None

    @field_validator("ports")
    @classmethod
    def _checked_ports(cls, value: list[int]) -> list[int]:
        if any(not 1 <= port <= 65535 for port in value):
            raise ValueError("a port is a number from 1 to 65535")
        return value

    @model_validator(mode="after")
    def _one_mode(self) -> "HttpSource":
        if sum((bool(self.urls), self.sitemap is not None, self.crawl is not None)) != 1:
            raise ValueError("set exactly one of urls, sitemap and crawl")
        return self

    @property
    def starts(self) -> list[str]:
        """The URLs the configuration names."""
        return self.urls or [url for url in (self.sitemap, self.crawl) if url is not None]


def _checked(url: str) -> str:
    """Refuse what can be refused without the network; ports are checked when they are all known."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{shown(url)!r} is not an http or https URL")
    if parts.username or parts.password:
        raise ValueError(f"{shown(url)!r} holds credentials; name an environment variable in authorization_env")
    return url


@dataclass(frozen=True)
class _Page:
    """A page that was there.

    Attributes:
        url: where it is; permanent redirects count, temporary ones do not.
        ending: of its file name; None: nothing this project could read.
        size: bytes; None: it was not sent, because it is unchanged, or is too large.
        offset: in the spool, when it was sent.
        validator: what names this content, or None: see ``HttpSource.trust``.
    """

    requested: str
    url: str
    ending: str | None
    media_type: str
    size: int | None
    offset: int | None
    mark: str
    facts: PageFacts
    etag: str | None
    last_modified: str | None
    validator: str | None
    hops: tuple[dict[str, Any], ...] = ()
    too_large: bool = False


@dataclass(frozen=True)
class _Not:
    """A page that is no document, and why.

    Attributes:
        kind: ``gone``, the server said so; ``left out``, on purpose; ``refused``, never to be had as things are;
            ``unknown``, not to be had this time.
    """

    requested: str
    kind: Literal["gone", "left out", "refused", "unknown"]
    reason: str


class _LeftOut(Exception):
    """A URL that is not asked for."""


@dataclass
class _Known:
    """What is remembered of a page: where it was, what names its content, and what it said."""

    url: str
    ending: str | None
    media_type: str
    etag: str | None
    last_modified: str | None
    validator: str | None
    facts: PageFacts


@dataclass
class _Outcome:
    """What a listing found."""

    pages: dict[str, _Page] = field(default_factory=dict)  # by URL
    others: list[_Not] = field(default_factory=list)
    beyond: int = 0

    def add(self, found: "_Page | _Not") -> None:
        if isinstance(found, _Not):
            self.others.append(found)
        elif found.url not in self.pages or found.requested == found.url:  # rather asked for than redirected to
            self.pages[found.url] = found


class HttpPlace:
    """Pages of the web as a source; see the module for what a listing does."""

    def __init__(
        self,
        settings: HttpSource,
        *,
        state_file: Path | None = None,
        authorization: str | None = None,
        ca_file: str | None = None,
        resolve: Resolver | None = None,
        pace: Pace | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._settings = settings
        self._state_file = state_file
        self._now = now
        self._filter = PathFilter(settings)
        self._pace = pace or Pace(settings.requests_per_second)
        self._limit = settings.maximum_bytes or MAXIMUM_BYTES
        self._ca_file = ca_file
        self._authorization = authorization
        self._resolve = resolve
        self._lock = threading.Lock()
        self._client: SafeClient | None = None
        self._robots: Robots | None = None
        self._spool: Any = None
        self._spooled = 0
        self._known: dict[str, _Known] = {}
        self._hosts: list[str] = []

    def fingerprint(self) -> str:
        """See ``DocumentSource.fingerprint``: changes every ``check_minutes``, without asking the site anything.

        A sensor looks every half minute; no site wants to be asked that often.
        """
        seconds = self._now().timestamp() + int(sha256(self._settings.name.encode()).hexdigest()[:4], 16)
        return fingerprint([self._settings.fingerprint(), int(seconds // (60 * self._settings.check_minutes))])

    def list(self) -> Listing:
        """See ``DocumentSource.list``; asks for every page, and holds those that changed in a file without a name."""
        settings = self._settings
        self._open()
        self._known = _read_state(self._state_file)
        starts = [self._start(url) for url in settings.starts]
        self._hosts = [*(host.removeprefix("www.") for host in settings.hosts), *(_bare(url) for url in starts)]
        self._refuse_forbidden_starts(starts)
        with ThreadPoolExecutor(settings.concurrency, thread_name_prefix="http") as threads:
            try:
                if settings.urls:
                    outcome = self._visit_all(threads, dict.fromkeys(starts))
                elif settings.sitemap is not None:
                    outcome = self._visit_sitemap(threads, starts[0])
                else:
                    outcome = self._crawl(threads, starts[0])
            except BaseException:
                threads.shutdown(wait=False, cancel_futures=True)
                raise
        self._refuse_if_too_few(outcome)
        pages = [*outcome.pages.values()]
        listing = self._listing(outcome)
        _write_state(self._state_file, pages)
        return listing

    # --- which pages ----------------------------------------------------------------------------------------

    def _start(self, url: str) -> str:
        found = canonical_url(url, self._settings.drop_parameters, self._settings.ports)
        if found is None:
            raise ConfigError(
                f"sources.yaml: source {self._settings.name!r}: {shown(url)} may not be fetched; is its port named in "
                "`ports`, and its host written as a name?"
            )
        return found

    def _refuse_forbidden_starts(self, starts: Sequence[str]) -> None:
        """A configured host at a forbidden address is a mistake in the configuration, not a fault of a page."""
        settings = self._settings
        for host, port in sorted({_host_and_port(url) for url in starts}):
            try:
                check_host(host, port, settings.allow_private, resolve=self._resolve)
            except RefusedUrlError as error:
                raise ConfigError(f"sources.yaml: source {settings.name!r}: {error}") from error
            except TransientError:
                continue  # its pages will say so

    def _visit_all(self, threads: ThreadPoolExecutor, urls: Iterable[str]) -> _Outcome:
        outcome = _Outcome()
        for found in threads.map(self._visit, urls):
            outcome.add(found)
        return outcome

    def _visit_sitemap(self, threads: ThreadPoolExecutor, start: str) -> _Outcome:
        waiting, read = [start], set[str]()
        urls: dict[str, None] = {}
        beyond = 0
        while waiting:
            url = waiting.pop(0)
            if url in read:
                continue
            read.add(url)
            if len(read) > _SITEMAPS:
                raise ConfigError(f"{shown(start)}: more than {_SITEMAPS} sitemaps; split them over several sources")
            try:
                sitemap = read_sitemap(self._get_whole(url, _SITEMAP_BYTES), _SITEMAP_BYTES)
            except NotASitemapError as error:
                # a maintenance page comes with status 200, too; taking it for an empty sitemap would delete everything
                raise TransientError(f"{shown(url)} is not a sitemap: {error}") from error
            waiting += [found for item in sitemap.sitemaps if (found := self._in_site(item))]
            for item, _ in sitemap.pages:
                found = self._in_site(item)
                if found is None or found in urls:
                    continue
                if len(urls) < self._settings.maximum_pages:
                    urls[found] = None
                else:
                    beyond += 1
        outcome = self._visit_all(threads, urls)
        outcome.beyond = beyond
        self._settle_canonical(threads, outcome)
        return outcome

    def _crawl(self, threads: ThreadPoolExecutor, start: str) -> _Outcome:
        """Breadth first, a depth at a time, in the order links stand on the pages: the result depends on the site alone."""
        settings = self._settings
        outcome = _Outcome()
        seen, level = {start}, [start]
        visited = 0
        for depth in range(settings.depth + 1):
            allowed = level[: settings.maximum_pages - visited]
            outcome.beyond += len(level) - len(allowed)
            visited += len(allowed)
            following: dict[str, None] = {}
            for found in threads.map(self._visit, allowed):
                if depth == 0 and isinstance(found, _Not):
                    self._start_failed(found)
                outcome.add(found)
                if isinstance(found, _Page):
                    seen.add(found.url)
                    following |= dict.fromkeys(link for link in found.facts.links if link not in seen)
            level = [url for url in following if url not in seen]
            seen |= following.keys()
            if not level:
                break
        self._settle_canonical(threads, outcome)
        return outcome

    def _settle_canonical(self, threads: ThreadPoolExecutor, outcome: _Outcome) -> None:
        """A page that says its content lives elsewhere on the site gives way to that page, if it is there."""
        copies = {
            page.url: target
            for page in outcome.pages.values()
            if (target := page.facts.canonical) and target != page.url
        }
        missing = [url for url in dict.fromkeys(copies.values()) if url not in outcome.pages]
        asked = {item.requested for item in outcome.others}
        for found in threads.map(self._visit, [url for url in missing if url not in asked]):
            if isinstance(found, _Page) and found.facts.canonical in (None, found.url):
                outcome.add(found)
        for url, target in copies.items():
            kept = outcome.pages.get(target)
            if kept is not None and kept.facts.canonical in (None, target) and kept.facts.index:
                del outcome.pages[url]
                outcome.others.append(_Not(url, "left out", "a copy of another page"))

    def _start_failed(self, found: _Not) -> None:
        message = f"sources.yaml: source {self._settings.name!r}: {shown(found.requested)}: {found.reason}"
        raise TransientError(message) if found.kind == "unknown" else ConfigError(message)

    def _in_site(self, url: str) -> str | None:
        found = canonical_url(url, self._settings.drop_parameters, self._settings.ports)
        return found if found is not None and host_allowed(_bare(found), self._hosts) else None

    # --- one page -------------------------------------------------------------------------------------------

    def _visit(self, url: str) -> _Page | _Not:
        """Ask for one page; never raises about the page itself."""
        if self._filter.excludes_above(stem_of(url)):
            return _Not(url, "left out", "not included")
        known = self._known.get(url) if self._settings.trust != "nothing" else None
        headers: dict[str, str] = {}
        if known and known.validator and known.etag:
            headers["If-None-Match"] = known.etag
        elif known and known.validator and known.last_modified:
            headers["If-Modified-Since"] = known.last_modified
        try:
            response = self._ask(url, headers)
            if response.status == 304:
                page = self._unchanged(url, response, known)
                if page is not None:
                    return page
                response = self._ask(url, {})
            return self._answered(url, response)
        except _LeftOut as reason:
            return self._not(url, "left out", str(reason))
        except ResponseTooLargeError:
            return self._too_large(url)
        except (RefusedUrlError, ResponseError) as error:
            return _Not(url, "refused", str(error))
        except TransientError as error:
            return _Not(url, "unknown", str(error))

    def _not(self, url: str, kind: Literal["left out"], reason: str) -> _Not:
        # what a person named by its URL must not disappear without a trace
        return _Not(url, "refused" if self._settings.urls and reason != "not included" else kind, reason)

    def _unchanged(self, url: str, response: Response, known: _Known | None) -> _Page | None:
        """The page as it was, or None: the 304 is not about what is known."""
        effective, hops = self._effective(response)
        if known is None or known.validator is None or known.url != effective:
            return None
        etag = response.headers.get("etag")
        if etag is not None and known.etag is not None and etag != known.etag:
            return None
        return _Page(
            url, effective, known.ending, known.media_type, None, None, known.validator, known.facts, known.etag,
            known.last_modified, known.validator, hops,
        )  # fmt: skip

    def _answered(self, url: str, response: Response) -> _Page | _Not:
        status = response.status
        if status in _GONE:
            return _Not(url, "gone", f"HTTP {status}")
        if status != 200:
            return _Not(url, "refused", f"the server answers HTTP {status}")
        effective, hops = self._effective(response)
        media_type, charset = _content_type(response.headers.get("content-type", ""))
        ending = ending_of(media_type, effective, response.content[:8])
        facts = self._facts(response, effective, media_type, charset)
        etag, modified = response.headers.get("etag"), response.headers.get("last-modified")
        wanted = ending is not None and (facts.index or not self._settings.respect_robots)
        offset = self._keep(response.content) if wanted else None
        return _Page(
            url, effective, ending, media_type, len(response.content), offset, sha256(response.content).hexdigest(), facts,
            etag, modified, self._validator(effective, response.headers), hops,
        )  # fmt: skip

    def _too_large(self, url: str) -> _Page:
        """Listed, so that quarantine shows it and a person can release it; it is not read now."""
        ending = ending_of("", url) or ".html"
        return _Page(url, url, ending, "", None, None, "too large", PageFacts(), None, None, None, (), True)

    def _facts(self, response: Response, url: str, media_type: str, charset: str | None) -> PageFacts:
        agent = self._settings.user_agent
        if media_type in _HTML:
            obey = self._settings.respect_robots
            facts = read_page(response.content, response.url, charset, response.headers, agent, obey=obey)
        else:
            index, follow = header_directives(response.headers, agent)
            facts = PageFacts((), None, index, follow)
        links = dict.fromkeys(found for link in facts.links if self._settings.crawl and (found := self._in_site(link)))
        canonical = self._in_site(facts.canonical) if facts.canonical and not self._settings.urls else None
        return PageFacts(tuple(links), None if canonical == url else canonical, facts.index, facts.follow)

    def _effective(self, response: Response) -> tuple[str, tuple[dict[str, Any], ...]]:
        """Where a page lives: permanent redirects say that it moved, at the first temporary one it stays."""
        hops = tuple({"url": shown(hop.url), "status": hop.status} for hop in response.redirects)
        for hop in response.redirects:
            if hop.status not in (301, 308):
                return self._spelt(hop.url), hops
        return self._spelt(response.url), hops

    def _spelt(self, url: str) -> str:
        return canonical_url(url, self._settings.drop_parameters, self._settings.ports) or url

    def _validator(self, url: str, headers: Any) -> str | None:
        """What names exactly this content at this URL, by what the configuration trusts."""
        trust, etag = self._settings.trust, headers.get("etag", "")
        if trust == "nothing" or len(etag) > 200:
            return None
        if etag.startswith('"') or (etag and trust == "any_validator"):
            return f"etag {etag} {fingerprint(url)}"
        modified, date = http_date(headers.get("last-modified", "")), http_date(headers.get("date", ""))
        if trust == "any_validator" and modified and date and date - modified >= _STRONG_AFTER:
            return f"modified {modified.isoformat()} {fingerprint(url)}"
        return None

    # --- requests -------------------------------------------------------------------------------------------

    def _open(self) -> None:
        settings = self._settings
        if self._client is None:
            self._client = SafeClient(
                allow_private=settings.allow_private,
                ports=settings.ports,
                user_agent=f"{settings.user_agent}/1" + (f" (+{settings.contact})" if settings.contact else ""),
                maximum_bytes=self._limit,
                total_seconds=settings.request_seconds,
                connections=settings.concurrency,
                authorization=self._authorization,
                authorized_origins=[origin_of(self._start(url)) for url in settings.starts],
                ca_file=self._ca_file,
                resolve=self._resolve,
            )
            weakref.finalize(self, self._client.close)
        self._robots = Robots(self._get_robots, settings.user_agent, self._pace)
        self._spool = tempfile.TemporaryFile()  # noqa: SIM115  entries read from it later; a kill leaves nothing behind
        self._spooled = 0

    def _ask(self, url: str, headers: dict[str, str], limit: int | None = None) -> Response:
        """GET at the host's pace, trying again where that may help; a status that may pass is a ``TransientError``."""
        assert self._client is not None
        tries = 0
        while True:
            tries += 1
            pause: float | None = None
            try:
                response = self._client.get(url, headers=headers, approve=self._approve, maximum_bytes=limit)
                if response.status < 500 and response.status not in (408, 425, 429):
                    return response
                pause = _retry_after(response.headers.get("retry-after", ""), self._now())
                failure = TransientError(f"{shown(url)} answers HTTP {response.status}")
            except TransientError as error:
                failure = error
            if tries >= self._settings.tries or (pause or 0) > _LONGEST_PAUSE:
                raise failure
            self._pace.pause(tries, pause)

    def _approve(self, url: str) -> None:
        """Asked before every request and every redirect."""
        assert self._robots is not None
        host = urlsplit(url).netloc
        if not host_allowed(_bare(url), self._hosts):
            raise _LeftOut(f"leads to another site; name {host} in `hosts` where that is meant")
        if self._settings.respect_robots and not self._robots.allows(url):
            raise _LeftOut("not allowed by robots.txt")
        self._pace.wait(host)

    def _get_robots(self, url: str) -> Response:
        assert self._client is not None
        return self._client.get(
            url, maximum_bytes=ROBOTS_BYTES, approve=lambda hop: self._pace.wait(urlsplit(hop).netloc)
        )

    def _get_whole(self, url: str, limit: int) -> bytes:
        """A page without which nothing is known, such as a sitemap."""
        try:
            response = self._ask(url, {}, limit)
        except _LeftOut as reason:
            raise ConfigError(f"{shown(url)}: {reason}") from None
        except ResponseError as error:
            raise ConfigError(str(error)) from error
        if response.status != 200:
            error = ConfigError if url == self._start(self._settings.starts[0]) else TransientError
            raise error(f"{shown(url)} answers HTTP {response.status}")
        return response.content

    # --- the listing ----------------------------------------------------------------------------------------

    def _refuse_if_too_few(self, outcome: _Outcome) -> None:
        unknown = [item for item in outcome.others if item.kind == "unknown"]
        total = len(outcome.pages) + len(unknown)
        if unknown and len(unknown) > self._settings.maximum_failed_share * total:
            raise TransientError(
                f"source {self._settings.name!r}: {len(unknown)} of {total} pages cannot be reached, first {unknown[0].reason}"
            )

    def _listing(self, outcome: _Outcome) -> Listing:
        collector = Collector(self._settings)
        if self._settings.respect_robots:
            for url in [url for url, page in outcome.pages.items() if not page.facts.index]:
                outcome.others.append(self._not(url, "left out", "noindex"))
                outcome.pages.pop(url)
        for path, page in _paths(outcome.pages.values()):
            if page.ending is None and not self._settings.urls:
                collector.skip("no parser for this kind of content")
                continue
            accepted = collector.accept(path)
            if accepted is None:
                continue
            if page.ending is None:
                collector.refuse(accepted, "unsupported", f"no parser for {page.media_type or 'untyped content'}")
            else:
                collector.add(self._entry(accepted, page))
        out = Counter[str]()
        denied: set[str] = set()
        unknown = False
        for item in outcome.others:
            if item.kind == "unknown":
                unknown = True
                out["not reachable this time"] += 1
                continue
            denied.update(possible_paths(item.requested))
            if item.requested in self._known:
                before = self._known[item.requested]
                denied.update(path_of(before.url, before.ending, tagged=t) for t in (False, True) if before.ending)
            if item.kind == "refused" and (accepted := collector.accept(path_of(item.requested, ".html"))):
                collector.refuse(accepted, "unreadable", item.reason)
            elif item.kind != "refused":
                out["gone (404 or 410)" if item.kind == "gone" else item.reason] += 1
        if outcome.beyond:
            out["beyond maximum_pages"] = outcome.beyond
        for reason, count in sorted(out.items()):
            collector.skip(reason, count)
        return collector.listing(kept=(lambda path: path not in denied) if unknown else None)

    def _entry(self, path: str, page: _Page) -> SourceEntry:
        provenance: dict[str, Any] = {"url": page.url}
        if page.requested != page.url:
            provenance["requested"] = page.requested
        if page.hops:
            provenance["redirects"] = [*page.hops]
        for name, value in (("etag", page.etag), ("last_modified", page.last_modified)):
            if value:
                provenance[name] = value
        size = self._limit + 1 if page.too_large else page.size or 0
        modified = http_date(page.last_modified) if page.last_modified else None
        if page.offset is not None and page.size is not None:
            fetch = partial(_read_spool, self._spool, page.offset, page.size)
            return SourceEntry(path, size, fetch, page.mark, modified, provenance, page.validator)
        later = _Later(self, page)
        return SourceEntry(path, size, later.fetch, page.mark, modified, provenance, page.validator, later.confirm)

    def _keep(self, content: bytes) -> int:
        with self._lock:
            offset = self._spooled
            self._spooled += len(content)
            if self._spooled > self._settings.maximum_total_bytes:
                raise ConfigError(
                    f"sources.yaml: source {self._settings.name!r}: more than maximum_total_bytes "
                    f"({self._settings.maximum_total_bytes:,}) changed at once; raise it, or split the source"
                )
        position = 0
        while position < len(content):
            position += os.pwrite(self._spool.fileno(), content[position : position + (1 << 24)], offset + position)
        return offset


class _Later:
    """A page whose content the server did not send, fetched only if it is needed after all."""

    def __init__(self, place: HttpPlace, page: _Page) -> None:
        self._place = place
        self._page = page
        self._confirmed = False

    def fetch(self, limit: int | None = None) -> bytes:
        """See ``Fetch``."""
        place = self._place
        try:
            response = place._ask(self._page.requested, {}, limit or 20 * MAXIMUM_BYTES)
        except ResponseTooLargeError as error:
            raise DocumentTooLargeError((limit or 20 * MAXIMUM_BYTES) + 1) from error
        except (RefusedUrlError, ResponseError, _LeftOut) as error:
            raise DocumentUnreadableError(str(error)) from error
        if response.status in _GONE:
            raise DocumentVanishedError(f"{shown(self._page.requested)} is gone")
        if response.status != 200:
            raise DocumentUnreadableError(f"the server answers HTTP {response.status}")
        effective, _ = place._effective(response)
        self._confirmed = place._validator(effective, response.headers) == self._page.validator
        return response.content

    def confirm(self) -> bool:
        """See ``SourceEntry.confirm``."""
        return self._confirmed


def _read_spool(spool: Any, offset: int, size: int, limit: int | None = None) -> bytes:
    if limit is not None and size > limit:
        raise DocumentTooLargeError(size)
    pieces: list[bytes] = []
    while size > 0:
        piece = os.pread(spool.fileno(), min(size, 1 << 24), offset)
        if not piece:
            raise TransientError("the file that holds fetched pages is shorter than it should be; is the disk full?")
        pieces.append(piece)
        offset, size = offset + len(piece), size - len(piece)
    return b"".join(pieces)


def _paths(pages: Iterable[_Page]) -> Iterator[tuple[str, _Page]]:
    """Each page with its path. Where two would have one, the page whose URL is spelt like the path has it."""
    wanted: dict[str, list[_Page]] = {}
    for page in pages:
        path = path_of(page.url, page.ending) if page.ending else stem_of(page.url)
        wanted.setdefault(path, []).append(page)
    for path, rivals in sorted(wanted.items()):
        first = min(rivals, key=lambda page: (stem_of(page.url) != path, page.url.endswith("/"), page.url))
        for page in rivals:
            plain = page is first
            yield path if plain else path_of(page.url, page.ending or "", tagged=True), page


def _bare(url: str) -> str:
    """The host of a canonical URL without port; ``www.`` is no other site."""
    return (urlsplit(url).hostname or "").removeprefix("www.")


def _host_and_port(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


def _content_type(header: str) -> tuple[str, str | None]:
    """Media type and charset."""
    media_type, *parameters = (part.strip() for part in header.lower().split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "charset":
            return media_type, value.strip("\"' ") or None
    return media_type, None


def _retry_after(header: str, now: datetime) -> float | None:
    """Seconds a server asks us to wait, or None."""
    if header.isascii() and header.isdigit():
        return float(header)
    when = http_date(header) if header else None
    return max((when - now).total_seconds(), 0.0) if when else None


# --- state --------------------------------------------------------------------------------------------------


def _read_state(file: Path | None) -> dict[str, _Known]:
    """What was known of each page, by the URL that was asked for; nothing where the file is missing or damaged."""
    if file is None:
        return {}
    try:
        state = json.loads(gzip.decompress(file.read_bytes()))
        if state["version"] != _STATE_VERSION:
            return {}
        urls: list[str] = state["urls"]
        return {
            urls[asked]: _Known(
                urls[url], ending, media_type, etag, modified, validator,
                PageFacts(tuple(urls[link] for link in links), None if canonical is None else urls[canonical], index, follow),
            )
            for asked, url, ending, media_type, etag, modified, validator, links, canonical, index, follow in state["pages"]
        }  # fmt: skip
    except (OSError, EOFError, ValueError, KeyError, TypeError, IndexError):
        return {}


def _write_state(file: Path | None, pages: Iterable[_Page]) -> None:
    """Remember validators and links; every URL is written once."""
    if file is None:
        return
    numbers: dict[str, int] = {}

    def number(url: str) -> int:
        return numbers.setdefault(url, len(numbers))

    rows: Sequence[Any] = [
        [
            number(page.requested), number(page.url), page.ending, page.media_type, page.etag, page.last_modified,
            page.validator, [number(link) for link in page.facts.links],
            None if page.facts.canonical is None else number(page.facts.canonical), page.facts.index, page.facts.follow,
        ]
        for page in pages
        if not page.too_large
    ]  # fmt: skip
    content = gzip.compress(
        json.dumps({"version": _STATE_VERSION, "urls": [*numbers], "pages": rows}).encode(), compresslevel=5, mtime=0
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        temporary.write_bytes(content)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def _open(context: SourceContext, settings: HttpSource) -> HttpPlace:
    return HttpPlace(
        settings,
        state_file=context.state_dir / "sources" / settings.name / "pages.json.gz",
        authorization=context.secret(settings.name, "authorization_env", settings.authorization_env),
        ca_file=str(context.path(settings.ca_file)) if settings.ca_file else None,
    )


KIND = SourceKind(HttpSource, _open)
