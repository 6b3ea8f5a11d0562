"""HTML: what of a page is content.

Belongs here: cutting a page down to its content before it is rendered, finding its article, and the facts of its head.
Does not belong here: rendering whole pages to text (parsing.py).
"""

import html
import re
from collections import Counter
from dataclasses import dataclass

_BOILERPLATE = frozenset({"nav", "aside", "form", "script", "style", "template", "noscript"})
_PAGE_ONLY = frozenset({"header", "footer"})  # boilerplate of the page, but content inside an article
_BOILERPLATE_ROLES = frozenset({"navigation", "banner", "contentinfo", "complementary", "search"})
_TRACKED = _BOILERPLATE | _PAGE_ONLY | {"main", "article", "head"}
#: Elements whose attributes or ends are looked at.
_WATCHED = _TRACKED | {"svg", "html", "title", "meta", "link"}
_TAG = re.compile(r"""<(/?)([a-zA-Z][^\s/>]*)((?>[^"'>]+|"[^"]*"|'[^']*')*+)>""")
_ATTRIBUTE = re.compile(r"""([^\s"'>/=]+)(?:\s*=\s*("[^"]*"|'[^']*'|[^\s"'>]+))?""")
_RAW = {tag: re.compile(f"</{tag}", re.IGNORECASE) for tag in ("script", "style")}
_TITLE_END = re.compile("</title", re.IGNORECASE)
#: Beyond these a page is no page any more: a longer tag, more tags that never end, or more elements inside each other.
_LONGEST_TAG, _MOST_BROKEN, _DEEPEST = 65_536, 200, 2_000
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
    if not has_text(body):
        body = _without(page, 0, len(page), outline.heads)
    facts = outline.facts
    return Page(
        body=body,
        title=" ".join(html.unescape(outline.title).split()) or None,
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


def has_text(body: str) -> bool:
    """Whether HTML holds any word outside of its tags."""
    return bool(re.search(r"\w", html.unescape(re.sub(r"<[^<>]*>", " ", body))))


class _Outline:
    """Positions of the elements that matter, and the facts of the head.

    A scan for tags rather than a parser: it looks at the attributes of few elements only, and takes time in proportion
    to the page also where quotes, comments or scripts never end.
    """

    def __init__(self, page: str) -> None:
        self.boilerplate: list[tuple[int, int]] = []
        self.heads: list[tuple[int, int]] = []
        self.main: tuple[int, int] | None = None
        self.title = ""
        self.language: str | None = None
        self.facts: dict[str, str] = {}
        self._open: list[tuple[str, int, bool]] = []  # tag, start, whether it is boilerplate
        self._names: Counter[str] = Counter()  # of the open ones
        self._has_title = False
        self._page = page
        self._scan()

    def _scan(self) -> None:
        page = self._page
        position = broken = 0
        comments_end = True
        while (start := page.find("<", position)) >= 0:
            if page.startswith("<!--", start) and comments_end:
                end = page.find("-->", start + 4)
                comments_end = end >= 0  # otherwise it is text, and no later one ends either
                position = end + 3 if comments_end else start + 4
                continue
            match = _TAG.match(page, start, start + _LONGEST_TAG)
            if match is None:
                next_is_tag = page[start + 1 : start + 3].lstrip("/")[:1].isalpha()
                broken += next_is_tag
                if broken > _MOST_BROKEN:
                    return
                position = start + 1
                continue
            position = match.end()
            tag = match[2].lower()
            if match[1]:
                if self._names[tag]:
                    self._end(tag, position)
                continue
            attributes = match[3]
            if tag in _WATCHED or "role" in attributes.lower():
                self._start(tag, attributes, start, position)
                if attributes.endswith("/"):
                    if self._names[tag]:
                        self._end(tag, position)
                    continue
            if tag in _RAW:
                end = _RAW[tag].search(page, position)
                if end is None:
                    return
                position = end.start()

    def _start(self, tag: str, attributes: str, start: int, end: int) -> None:
        named: dict[str, str] = {}
        for match in _ATTRIBUTE.finditer(attributes):
            named.setdefault(match[1].lower(), html.unescape((match[2] or "").strip("\"'")))
        if tag == "html" and named.get("lang"):
            self.language = self.language or named["lang"]
        elif tag == "title":
            if not self._has_title and not self._names["svg"]:
                close = _TITLE_END.search(self._page, end, end + _LONGEST_TAG)
                self.title = self._page[end : close.start()] if close else ""
                self._has_title = bool(self.title.strip()) or close is None
        elif tag == "meta":
            name = (named.get("name") or named.get("property") or named.get("http-equiv") or "").lower()
            if name and named.get("content"):
                self.facts.setdefault(name, named["content"])
        elif tag == "link" and "license" in named.get("rel", "").lower().split() and named.get("href"):
            self.facts.setdefault("license", named["href"])
        role = named.get("role", "").lower()
        if tag in _TRACKED or tag == "svg" or role in _BOILERPLATE_ROLES or role == "main":
            name = "main" if role == "main" else tag
            inside = self._names["main"] or self._names["article"]
            unwanted = tag in _BOILERPLATE or tag == "head" or role in _BOILERPLATE_ROLES
            if len(self._open) < _DEEPEST:
                self._open.append((name, start, unwanted or (tag in _PAGE_ONLY and not inside)))
                self._names[name] += 1

    def _end(self, tag: str, end: int) -> None:
        for depth in range(len(self._open) - 1, -1, -1):
            name, start, unwanted = self._open[depth]
            if name != tag:
                continue
            self._names.subtract(other for other, _, _ in self._open[depth:])
            del self._open[depth:]
            if unwanted:
                self.boilerplate.append((start, end))
                if name == "head":
                    self.heads.append((start, end))
            elif name == "main" and self.main is None:
                self.main = (start, end)
            return


@dataclass(frozen=True)
class Article:
    """The main content of a page: ``text`` is Markdown, the rest are facts it states, or None."""

    text: str
    title: str | None
    author: str | None
    language: str | None
    date: str | None
    licence: str | None


#: Less than this share of the words outside navigation: the wrong part of the page was taken for its content.
_ARTICLE_SHARE = 0.25
_WORD = re.compile(r"\w+")


def main_content(page: str, reduced: Page) -> Article | None:
    """The article of a page without what surrounds it, by trafilatura; None where it finds no convincing one.

    Args:
        page: HTML.
        reduced: what ``reduce_html`` made of it; a much smaller article is not believed.
    """
    from trafilatura import extract
    from trafilatura.metadata import extract_metadata
    from trafilatura.utils import load_html

    text = extract(
        page,
        output_format="markdown",
        include_comments=False,
        include_tables=True,
        include_formatting=True,
        include_links=False,
        favor_recall=True,
        with_metadata=False,
    )
    visible = re.sub(r"<[^<>]*>", " ", reduced.body)
    if not text or len(_WORD.findall(text)) < _ARTICLE_SHARE * len(_WORD.findall(html.unescape(visible))):
        return None
    facts = None
    tree = load_html(page)
    if tree is not None:
        # a fixed last day: by default today's date decides which dates are believed
        facts = extract_metadata(
            tree,  # type: ignore[arg-type]
            date_config={"extensive_search": False, "original_date": True, "max_date": "2099-12-31"},
            extensive=False,
        )
    return Article(
        text=text,
        title=facts.title if facts else None,
        author=facts.author if facts else None,
        language=(facts.language if facts else None) or reduced.language,
        date=facts.date if facts else None,
        licence=reduced.licence,
    )
