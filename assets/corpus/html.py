"""HTML: what of a page is content.

Belongs here: cutting a page down to its content before it is rendered, and reading the facts of its head.
Does not belong here: rendering to text (parsing.py).
"""

import html
import re
from dataclasses import dataclass
from html.parser import HTMLParser

_BOILERPLATE = frozenset({"nav", "aside", "form", "script", "style", "template", "noscript"})
_PAGE_ONLY = frozenset({"header", "footer"})  # boilerplate of the page, but content inside an article
_BOILERPLATE_ROLES = frozenset({"navigation", "banner", "contentinfo", "complementary", "search"})
_TRACKED = _BOILERPLATE | _PAGE_ONLY | {"main", "article", "head"}
_MODIFIED = ("article:modified_time", "last-modified", "dcterms.modified", "article:published_time", "date")


@dataclass(frozen=True)
class Page:
    """A page reduced to its content: ``body`` is HTML, the rest are facts the page states, or None."""

    body: str
    title: str | None
    language: str | None
    licence: str | None
    modified: str | None


def reduce_html(page: str) -> Page:
    """Cut the head, navigation, asides, forms, and the page's header and footer; keep only ``<main>`` where it exists.

    An element without an end tag is kept, so that a forgotten ``</nav>`` does not take the page with it; and where
    nothing would be left, the page is kept as it is.
    """
    outline = _Outline(page)
    # Ranges are half open and may lie inside each other.
    begin, end = outline.main or (0, len(page))
    body = _without(page, begin, end, outline.boilerplate)
    if not _has_text(body):
        body = _without(page, 0, len(page), outline.heads)
    facts = outline.facts
    return Page(
        body=body,
        title=" ".join(html.unescape("".join(outline.title)).split()) or None,
        language=outline.language,
        licence=facts.get("license") or facts.get("dcterms.license") or facts.get("dc.rights.license"),
        modified=next((facts[name] for name in _MODIFIED if name in facts), None),
    )


def _without(page: str, begin: int, end: int, ranges: list[tuple[int, int]]) -> str:
    parts = []
    position = begin
    for start, stop in sorted(ranges):
        if stop <= position or start >= end:
            continue
        parts.append(page[position : max(position, start)])
        position = min(stop, end)
    parts.append(page[position:end])
    return "".join(parts)


def _has_text(body: str) -> bool:
    return bool(re.search(r"\w", html.unescape(re.sub(r"<[^<>]*>", " ", body))))


class _Outline(HTMLParser):
    """Positions of the elements that matter, and the facts of the head."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.boilerplate: list[tuple[int, int]] = []
        self.heads: list[tuple[int, int]] = []
        self.main: tuple[int, int] | None = None
        self.title: list[str] = []
        self.language: str | None = None
        self.facts: dict[str, str] = {}
        self._in_title = False
        self._open: list[tuple[str, int, bool]] = []  # tag, start, whether it is boilerplate
        self._line_starts = [0, *(match.end() for match in re.finditer("\n", page))]
        self._page = page
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {name: value or "" for name, value in attrs}
        if tag == "html" and named.get("lang"):
            self.language = self.language or named["lang"]
        elif tag == "title":
            self._in_title = not self.title and not any(name == "svg" for name, _, _ in self._open)
        elif tag == "meta":
            name = (named.get("name") or named.get("property") or named.get("http-equiv") or "").lower()
            if name and named.get("content"):
                self.facts.setdefault(name, named["content"])
        elif tag == "link" and "license" in named.get("rel", "").lower().split() and named.get("href"):
            self.facts.setdefault("license", named["href"])
        role = named.get("role", "").lower()
        if tag in _TRACKED or tag == "svg" or role in _BOILERPLATE_ROLES or role == "main":
            name = "main" if role == "main" else tag
            inside = any(other in ("main", "article") for other, _, _ in self._open)
            unwanted = tag in _BOILERPLATE or tag == "head" or role in _BOILERPLATE_ROLES
            self._open.append((name, self._position(), unwanted or (tag in _PAGE_ONLY and not inside)))

    def handle_endtag(self, tag: str) -> None:
        if tag == "title":
            self._in_title = False
        for depth in range(len(self._open) - 1, -1, -1):
            name, start, unwanted = self._open[depth]
            if name != tag:
                continue
            del self._open[depth:]
            end = self._page.find(">", self._position()) + 1 or len(self._page)
            if unwanted:
                self.boilerplate.append((start, end))
                if name == "head":
                    self.heads.append((start, end))
            elif name == "main" and self.main is None:
                self.main = (start, end)
            return

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.title.append(data)

    def _position(self) -> int:
        line, column = self.getpos()
        return self._line_starts[line - 1] + column
