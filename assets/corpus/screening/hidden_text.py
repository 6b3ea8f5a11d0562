"""Hidden text: what a model reads and a reader does not see.

Belongs here: invisible characters in the text, and hidden elements and comments of HTML and Word files.
Does not belong here: whether what is hidden is an instruction (injection.py is asked).

Legitimate uses must not fire: joiners between the letters of scripts that need them and inside emoji, direction marks
beside letters written from right to left, variation selectors after emoji and ideographs, soft hyphens, the flags of
England, Scotland and Wales (an emoji spelt in tag characters).
"""

import html
import re
import unicodedata
import zlib
from collections.abc import Iterator
from html.parser import HTMLParser

from assets.corpus.failures import ParseFailure
from assets.corpus.screening import injection
from assets.corpus.screening.findings import IN_MARKUP, Detector, Finding, View, words_of
from assets.corpus.text import decode
from resources.fingerprint import fingerprint
from resources.policy_config import HiddenTextRule

VERSION = "2"
_NAME = "hidden_text"

_TAGS = re.compile("[\U000e0000-\U000e007f]+")
_FLAG = re.compile("\U0001f3f4[\U000e0061-\U000e007a\U000e0030-\U000e0039]{2,6}\U000e007f")
_SELECTORS = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]+")
_OVERRIDES = re.compile("[\u202a-\u202e\u2066-\u2069]")
_ZERO_WIDTH = re.compile("[\u200b-\u200f\u2060-\u2064\u206a-\u206f\u180e\u061c\u115f\u1160\u3164\uffa0\ufeff]+")
_SUSPICIOUS = re.compile(
    "[\u200b-\u200f\u202a-\u202e\u2060-\u206f\u180e\u061c\u115f\u1160\u3164\uffa0\ufeff\ufe00-\ufe0f\U000e0000-\U000e01ef]"
)
#: Scripts whose spelling needs joiners and non-joiners (and Mongolian its vowel separator).
_JOINING = re.compile(
    "[\u0600-\u08ff\ufb50-\ufdff\ufe70-\ufefc\u0900-\u0dff\u0e00-\u109f\u1780-\u17ff\u1800-\u18af\u1a00-\u1aff\U00011000-\U000119ff]"
)
_RIGHT_TO_LEFT = ("R", "AL", "AN")
_LINE = 500  # characters on either side that count as the line of a control
_MINIMUM_HIDDEN = 12  # letters; less than this hides nothing that matters

_HTML_TYPES = ("text/html", "application/xhtml+xml")
_HTML_START = re.compile(rb"\s*(?:<!--.{0,500}?-->\s*)?<(?:!doctype\s+html|html)\b", re.IGNORECASE | re.DOTALL)
_HIDING = re.compile(
    r"display\s*:\s*none|visibility\s*:\s*hidden|font-size\s*:\s*0(?:\.0*)?(?:px|pt|em|rem|%)?\s*(?:;|$|!)|opacity\s*:\s*0(?:\.0*)?\s*(?:;|$|!)"
    r"|text-indent\s*:\s*-\d{3,}|(?:left|top|right|bottom)\s*:\s*-\d{4,}px|clip(?:-path)?\s*:\s*(?:rect\(\s*0|inset\(\s*(?:50|100)%)"
    r"|(?:max-)?(?:height|width)\s*:\s*0(?:px)?\s*(?:;|$|!).{0,80}overflow\s*:\s*hidden",
    re.IGNORECASE,
)
_COLOUR = re.compile(r"(?<![\w-])color\s*:\s*([^;!]{1,40})", re.IGNORECASE)
_BACKGROUND = re.compile(r"background(?:-color)?\s*:\s*([^;!]{1,60})", re.IGNORECASE)
_WHITE = re.compile(r"\s*(?:white|#fff(?:fff)?|#fefefe|rgba?\(\s*255\s*,\s*255\s*,\s*255\b[^)]*\))\s*", re.IGNORECASE)
_TRANSPARENT = re.compile(r"\s*(?:transparent|rgba\([^)]*,\s*0(?:\.0*)?\s*\))\s*", re.IGNORECASE)
_VOID = words_of("area base br col embed hr img input link meta param source track wbr")
_NOT_TEXT = frozenset({"script", "style", "template", "noscript", "head", "title", "svg"})
#: Hidden by everybody and meant for readers all the same: menus that open, skip links, texts for screen readers.
_USUAL = re.compile(
    r"sr-only|visually-hidden|screen-reader|skip|menu|nav|dropdown|modal|tooltip|tab|collaps|print|cookie|lightbox|mwe-math|noprint",
    re.IGNORECASE,
)


def detector(rule: HiddenTextRule) -> Detector:
    """The detector; its rule has no settings that change what it finds."""
    return Detector(_NAME, fingerprint([_NAME, VERSION, injection.VERSION, unicodedata.unidata_version]), find)


def find(view: View) -> list[Finding]:
    """Hidden characters in the text of a view, and hidden text in the markup it came from."""
    found = list(_characters(view.text)) if not view.text.isascii() and _SUSPICIOUS.search(view.text) else []
    raw = _unpacked(view.raw)
    if raw.startswith(b"PK"):  # whatever its name says
        found += _of_word(raw, view.text)
    elif raw and (view.media_type in _HTML_TYPES or _HTML_START.match(raw[:1000])):
        found += _of_html(_decoded(raw), view.text)
    return sorted(set(found))


def _finding(entity: str, start: int, end: int, score: float) -> Finding:
    return Finding(start, end, _NAME, entity, score)


# --- characters -------------------------------------------------------------------------------------------


def _characters(text: str) -> Iterator[Finding]:
    flags = {match.start() + 1 for match in _FLAG.finditer(text)}
    for match in _TAGS.finditer(text):
        if match.start() not in flags:
            yield _finding("TAG_CHARACTERS", match.start(), match.end(), 0.95)
    for match in _SELECTORS.finditer(text):
        # One after a character is a matter of its looks; a row of them carries data.
        if match.end() - match.start() >= 3:
            yield _finding("VARIATION_SELECTORS", match.start(), match.end(), 0.95)
    yield from _directions(text)
    yield from _zero_width(text)


def _directions(text: str) -> Iterator[Finding]:
    """Embeddings, overrides and isolates where nothing nearby is written from right to left."""
    end, right_to_left = -1, False
    for match in _OVERRIDES.finditer(text):
        if match.start() > end:
            begin = text.rfind("\n", 0, match.start()) + 1
            stop = text.find("\n", match.start())
            end = min(stop if stop >= 0 else len(text), match.start() + _LINE)
            line = text[max(begin, match.start() - _LINE) : end]
            right_to_left = any(unicodedata.bidirectional(character) in _RIGHT_TO_LEFT for character in set(line))
        override = match[0] in "\u202d\u202e"
        score = (0.6 if override else 0.1) if right_to_left else (0.9 if override else 0.6)
        yield _finding("BIDI_CONTROL", match.start(), match.end(), score)


def _zero_width(text: str) -> Iterator[Finding]:
    for match in _ZERO_WIDTH.finditer(text):
        start, end = match.span()
        before, after = text[start - 1 : start], text[end : end + 1]
        run = match[0]
        if len(run) >= 8:
            yield _finding("ZERO_WIDTH", start, end, 0.95)  # bits written in invisible characters
            continue
        if len(run) <= 2 and _is_legitimate(run, before, after):
            continue
        inside = before.isalpha() and after.isalpha()
        latin = inside and "LATIN" in unicodedata.name(before, "") and "LATIN" in unicodedata.name(after, "")
        score = 0.6 if latin and set(run) - {"\u200b", "\ufeff", "\u2060"} else 0.55 if len(run) >= 4 else 0.3
        yield _finding("ZERO_WIDTH", start, end, score)


def _is_legitimate(run: str, before: str, after: str) -> bool:
    for character in run:
        if character in "\u200c\u200d":
            emoji = unicodedata.category(before or " ") in ("So", "Sk", "Mn") or "\ufe00" <= before <= "\ufe0f"
            if not (emoji or _JOINING.match(before or " ") or _JOINING.match(after or " ")):
                return False
        elif character in "\u200e\u200f\u061c":
            around = {unicodedata.bidirectional(other) for other in (before, after) if other}
            if not around & {"R", "AL", "AN", "EN", "ES", "ET", "CS", "ON", "WS", "B"}:
                return False
        elif character in "\u115f\u1160\u3164\uffa0":
            if not any(
                "\u1100" <= other <= "\u11ff" or "\uac00" <= other <= "\ud7a3" or "\u3130" <= other <= "\u318f"
                for other in (before, after)
                if other
            ):
                return False
        elif character == "\u180e":
            if not ("\u1800" <= before <= "\u18af"):
                return False
        else:
            return False  # zero-width spaces break lines in scripts without spaces, but seldom; low score, not silence
    return True


# --- HTML -------------------------------------------------------------------------------------------------


def _unpacked(raw: bytes) -> bytes:
    """The bytes, or the beginning of what a gzip file holds."""
    if not raw.startswith(b"\x1f\x8b"):
        return raw
    try:
        return zlib.decompressobj(wbits=31).decompress(raw, _MAXIMUM_XML)
    except zlib.error:
        return b""


def _decoded(raw: bytes) -> str:
    try:
        return decode(raw)[0]
    except ParseFailure:  # an encoding that only the page itself declares: markup is ASCII all the same
        return raw.decode("utf-8", "replace")


def _of_html(page: str, text: str) -> Iterator[Finding]:
    if "<" not in page:
        return
    parser = _Hidden(page)
    for comment in parser.comments:
        if injection.score_of(comment) >= 0.5:
            yield from _placed("COMMENT_INSTRUCTION", comment, text, 0.8)
    for content, certain in parser.hidden:
        if sum(map(str.isalnum, content)) < _MINIMUM_HIDDEN:
            continue
        if injection.score_of(content) >= 0.5:
            yield from _placed("HIDDEN_INSTRUCTION", content, text, 0.95)
        else:
            yield from _placed("HIDDEN_ELEMENT", content, text, 0.6 if certain else 0.3)


def _placed(entity: str, content: str, text: str, score: float) -> Iterator[Finding]:
    """A finding where the content stands in the text, or in the markup when it is not found there as it is."""
    words = content.split()
    pattern = r"\s+".join(re.escape(word) for word in words[:200])
    match = re.search(pattern, text) if words else None
    yield _finding(entity, *(match.span() if match else (IN_MARKUP, IN_MARKUP)), score)


class _Hidden(HTMLParser):
    """Comments, and the text of elements a browser does not show."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.comments: list[str] = []
        self.hidden: list[tuple[str, bool]] = []
        self._open: list[tuple[str, bool]] = []  # tag, whether it begins what is hidden
        self._depth = 0  # of hidden elements around
        self._silent = 0  # of elements that hold no text
        self._parts: list[str] = []
        self._certain = False
        self.feed(page)
        self.close()
        self._flush()

    def handle_comment(self, data: str) -> None:
        if len(data) >= _MINIMUM_HIDDEN:
            self.comments.append(data[:5000])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in _VOID:
            return
        named = {name: value or "" for name, value in attrs}
        how = _how_hidden(tag, named) if not self._depth else None
        if len(self._open) >= 2000:  # nesting that deep is an attack on parsers; what follows counts as shown
            return
        self._open.append((tag, how is not None))
        if tag in _NOT_TEXT:
            self._silent += 1
        if how is not None:
            self._depth += 1
            self._certain = how

    def handle_endtag(self, tag: str) -> None:
        for depth in range(len(self._open) - 1, max(-1, len(self._open) - 200), -1):
            if self._open[depth][0] != tag:
                continue
            for name, hides in self._open[depth:]:
                self._silent -= name in _NOT_TEXT
                if hides:
                    self._depth -= 1
                    self._flush()
            del self._open[depth:]
            return

    def handle_data(self, data: str) -> None:
        if self._depth and not self._silent:
            self._parts.append(data)

    def _flush(self) -> None:
        content = " ".join("".join(self._parts).split())
        if content:
            self.hidden.append((html.unescape(content)[:5000], self._certain))
        self._parts = []


def _how_hidden(tag: str, named: dict[str, str]) -> bool | None:
    """None: shown. True: hidden on purpose. False: hidden as menus and texts for screen readers are."""
    style = named.get("style", "")
    names = f"{named.get('class', '')} {named.get('id', '')} {named.get('role', '')}"
    hidden = "hidden" in named and named["hidden"] != "until-found"
    if style:
        hidden = hidden or bool(_HIDING.search(style))
        colour = _COLOUR.search(style)
        if colour and not hidden:
            background = _BACKGROUND.search(style)
            white = _WHITE.fullmatch(colour[1]) and (not background or _WHITE.fullmatch(background[1]))
            same = background and colour[1].strip().lower() == background[1].strip().lower()
            hidden = bool(white or same or _TRANSPARENT.fullmatch(colour[1]))
    if tag == "font" and _WHITE.fullmatch(named.get("color", "")):
        hidden = True
    return None if not hidden else not _USUAL.search(names)


# --- Word -------------------------------------------------------------------------------------------------

_RUN_XML = re.compile(r"<w:r[ >].{0,200000}?</w:r>", re.DOTALL)
_RUN_HIDES = re.compile(
    r"<w:vanish(?:/>| w:val=\"(?:1|true|on)\"/>)|<w:color [^>]{0,200}w:val=\"(?:FFFFFF|ffffff|FEFEFE)\"|<w:sz w:val=\"[0-3]\"/>"
)
_RUN_SHADED = re.compile(
    r"<w:(?:shd|highlight) [^>]{0,200}w:(?:fill|val)=\"(?!FFFFFF|ffffff|auto|none|clear|white)\w+\""
)
_RUN_TEXT = re.compile(r"<w:t(?: [^>]{0,100})?>([^<]*)</w:t>")
_MAXIMUM_XML = 50_000_000


def _of_word(raw: bytes, text: str) -> Iterator[Finding]:
    """Runs that are marked hidden, white on white, or below two points."""
    for content in _hidden_runs(raw):
        if sum(map(str.isalnum, content)) < _MINIMUM_HIDDEN:
            continue
        instruction = injection.score_of(content) >= 0.5
        entity, score = ("HIDDEN_INSTRUCTION", 0.95) if instruction else ("HIDDEN_ELEMENT", 0.6)
        yield from _placed(entity, content, text, score)


def _hidden_runs(raw: bytes) -> list[str]:
    import io
    import zipfile

    from assets.corpus.archives import read_entry
    from assets.corpus.office_xml import part_of_kind, related

    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            # named by the package, as for the parser: another name must not hide it from here
            main = part_of_kind(related(archive, ""), "officeDocument") or "word/document.xml"
            body = (read_entry(archive, main) or b"")[:_MAXIMUM_XML].decode("utf-8", "replace")
    except (zipfile.BadZipFile, ParseFailure):
        return []  # the parser has refused it
    if not _RUN_HIDES.search(body):
        return []
    found, parts, last = [], [], -1
    for match in _RUN_XML.finditer(body):
        run = match[0]
        properties = run[: run.find("<w:t")] if "<w:t" in run else run
        if not _RUN_HIDES.search(properties) or _RUN_SHADED.search(properties):
            continue
        if parts and body.find("</w:p>", last, match.start()) >= 0:
            found.append("".join(parts))
            parts = []
        parts += [html.unescape(piece) for piece in _RUN_TEXT.findall(run)]
        last = match.end()
    return [*found, "".join(parts)] if parts else found
