"""Parsing: from the bytes of one document to its normalised text, title, headings and other facts.

Belongs here: which format is read how, and one parser per family of formats.
Does not belong here: the database and batching (refresh.py), policies (quarantine.py), Unicode (text.py).

Markdown, plain text and reStructuredText are read as they stand. kreuzberg would re-render Markdown and lose words of
it (nested lists, raw HTML); it reads HTML, office formats, PDF, mail and tables, where nothing stands to be kept.
"""

import json
import posixpath
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from email.utils import parsedate_to_datetime
from functools import cache
from importlib.metadata import version
from typing import Any

from assets.corpus.failures import ParseFailure
from assets.corpus.headings import Heading, scan
from assets.corpus.html import reduce_html
from assets.corpus.text import decode, detect_language, language_code, normalise
from resources.fingerprint import fingerprint
from resources.source_config import SourceConfig

#: Raised by hand when this module, or one it uses, would make something else of the same bytes.
CODE_VERSION = "1"

_FRONT_MATTER = re.compile(r"---[ \t]*\r?\n(.{0,65536}?)^(?:---|\.\.\.)[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)
_SPDX = re.compile(r"SPDX-License-Identifier:[ \t]*([\w.+\-() ]{1,100}\w\)?)")
_FIELD = re.compile(r"([A-Z][\w-]{0,40}): *(\S.*)?")
_OFFICE = "application/vnd.openxmlformats-officedocument."


@dataclass(frozen=True)
class ParsedDocument:
    """What parsing makes of a document.

    Attributes:
        text: normalised; never empty. All positions count its characters.
        title: as the document states it, or None.
        headings: where its sections begin.
        language: two- or three-letter code, or None.
        licence: as the document states it, else the source's default, or None.
        origin_time: when the document says it was last changed, or made.
        metadata: further facts, JSON-able.
    """

    text: str
    title: str | None = None
    headings: tuple[Heading, ...] = ()
    language: str | None = None
    licence: str | None = None
    origin_time: datetime | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass
class _Raw:
    """What a parser found; ``parse`` completes it."""

    text: str
    title: str | None = None
    fallback_title: str | None = None
    language: str | None = None
    licence: str | None = None
    origin_time: datetime | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Format:
    """A media type and the parser that reads it."""

    media_type: str
    parser: "Callable[[bytes, str], _Raw]"
    with_kreuzberg: bool
    structured: bool = True  # whether ``# x`` in the parser's text is a heading


def format_of(path: str) -> Format | None:
    """The format of a document by its file name, or None when this project cannot read it."""
    name = posixpath.basename(path)
    extension = posixpath.splitext(name)[1].lower()
    return _FORMATS.get(extension) if extension else _FORMATS[".txt"]


def parser_fingerprint(source: SourceConfig, form: Format) -> str:
    """Hash of everything, beside its bytes, that can change what is made of a document."""
    return fingerprint(
        {
            "code": CODE_VERSION,
            "kreuzberg": _kreuzberg_version() if form.with_kreuzberg else None,
            "media_type": form.media_type,
            "language": source.language,
            "licence": source.licence,
        }
    )


def parse(data: bytes, form: Format, source: SourceConfig) -> ParsedDocument:
    """Read one document.

    Raises:
        ParseFailure: it cannot be read, or holds no text.
    """
    if not data:
        raise ParseFailure("empty", "the file has no bytes")
    raw = form.parser(data, form.media_type)
    text = normalise(raw.text)
    if not text.strip():
        raise ParseFailure("empty", _WHY_EMPTY.get(form.media_type, "the file holds no text"))
    headings = scan(text).headings if form.structured else ()
    first = next((heading.text for heading in headings if heading.level == 1), None)
    spdx = _SPDX.search(text[:4096])
    return ParsedDocument(
        text=text,
        title=_line(raw.title) or _line(first) or _line(raw.fallback_title),
        headings=headings,
        language=language_code(source.language) or language_code(raw.language) or detect_language(text),
        licence=_line(raw.licence) or (spdx[1].strip() if spdx else None) or source.licence,
        origin_time=raw.origin_time,
        metadata=_storable(raw.metadata),
    )


def title_from_path(path: str) -> str:
    """The title of a document that states none: its file name without the ending."""
    name = posixpath.basename(path)
    stem = posixpath.splitext(name)[0] or name
    return " ".join(re.split(r"[-_\s]+", stem)).strip() or name


# --- parsers --------------------------------------------------------------------------------------------


def _parse_plain(data: bytes, media_type: str) -> _Raw:
    text, encoding = decode(data)
    return _Raw(text, metadata={"encoding": encoding})


def _parse_markdown(data: bytes, media_type: str) -> _Raw:
    text, encoding = decode(data)
    facts, text = _split_front_matter(text)
    return _Raw(
        text,
        title=_scalar(facts.get("title")),
        language=_scalar(facts.get("language") or facts.get("lang")),
        licence=_scalar(facts.get("licence") or facts.get("license")),
        origin_time=_first_time(facts, "updated", "last_updated", "lastmod", "modified", "date", "created"),
        metadata={"encoding": encoding} | ({"front_matter": facts} if facts else {}),
    )


def _parse_rst(data: bytes, media_type: str) -> _Raw:
    text, encoding = decode(data)
    fields: dict[str, str] = {}  # a header block as PEPs have it
    for line in text[:4096].splitlines():
        match = _FIELD.fullmatch(line.rstrip())
        if match:
            fields.setdefault(match[1].lower(), (match[2] or "").strip())
        elif not line.startswith(" "):
            break
    return _Raw(
        text,
        title=fields.get("title"),
        origin_time=_first_time(fields, "last-modified", "created"),
        metadata={"encoding": encoding},
    )


def _parse_html(data: bytes, media_type: str) -> _Raw:
    declared = re.search(rb"""<meta[^>]{0,200}charset\s*=\s*["']?\s*([\w.:-]+)""", data[:4096], re.IGNORECASE)
    text, encoding = decode(data, declared[1].decode("ascii") if declared else None)
    page = reduce_html(text.replace("\x00", ""))
    content, _ = _kreuzberg(page.body.encode("utf-8", "replace"), "text/html")
    return _Raw(
        content,
        fallback_title=page.title,
        language=page.language,
        licence=page.licence,
        origin_time=_time(page.modified),
        metadata={"encoding": encoding},
    )


def _parse_decoded(data: bytes, media_type: str) -> _Raw:
    """Formats that are text inside: kreuzberg takes them as UTF-8 only and replaces what is not, silently."""
    text, encoding = decode(data)
    content, facts = _kreuzberg(text.encode("utf-8", "replace"), media_type)
    return _from_facts(content, facts, {"encoding": encoding})


def _parse_binary(data: bytes, media_type: str) -> _Raw:
    content, facts = _kreuzberg(data, media_type)
    return _from_facts(content, facts, {})


def _from_facts(content: str, facts: Mapping[str, Any], metadata: dict[str, Any]) -> _Raw:
    pages = facts.get("page_count") or facts.get("slide_count") or facts.get("sheet_count")
    return _Raw(
        content,
        fallback_title=_scalar(facts.get("title") or facts.get("subject")),
        language=_scalar(facts.get("language")) if facts.get("format_type") in ("docx", "epub", "pdf") else None,
        origin_time=_first_time(facts, "modified_at", "created_at"),
        metadata=metadata | ({"pages": pages} if isinstance(pages, int) and pages else {}),
    )


def _kreuzberg(data: bytes, media_type: str) -> tuple[str, dict[str, Any]]:
    """Content as Markdown, and metadata. One document a call: its batch function returns errors as content."""
    from kreuzberg import ExtractionConfig, KreuzbergError, extract_bytes_sync

    try:
        # Its cache would keep the content of documents in the user's home in clear.
        result = extract_bytes_sync(
            data, media_type, config=ExtractionConfig(use_cache=False, output_format="markdown")
        )
    except KreuzbergError as error:
        # The first two clauses of its message name the fault; later ones may quote the document.
        reason = ":".join(str(error).split(":")[:2])[:160]
        raise ParseFailure(
            "parse_failed", f"{type(error).__name__}: {reason.removeprefix('ParsingError: ')}"
        ) from error
    return result.content, dict(result.metadata)


def _split_front_matter(text: str) -> tuple[dict[str, Any], str]:
    """YAML between ``---`` lines at the top, and the text after it; no front matter when it is not a YAML mapping."""
    match = _FRONT_MATTER.match(text)
    if not match:
        return {}, text
    import yaml

    try:
        facts = yaml.safe_load(match[1].replace("\x00", ""))
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}, text
    if not isinstance(facts, dict):
        return {}, text
    kept = {str(key).lower(): value for key, value in facts.items() if _is_simple(value)}
    return kept, text[match.end() :]


# --- small conversions ------------------------------------------------------------------------------------


def _is_simple(value: Any) -> bool:
    scalar = (str, int, float, bool, date, datetime)
    return isinstance(value, scalar) or (
        isinstance(value, list) and len(value) <= 100 and all(isinstance(item, scalar) for item in value)
    )


def _scalar(value: Any) -> str | None:
    return str(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else None


def _line(value: str | None) -> str | None:
    """One line without controls, at most 300 characters."""
    return " ".join(normalise(value or "").split())[:300].strip() or None


def _first_time(facts: Mapping[str, Any], *keys: str) -> datetime | None:
    return next((found for key in keys if (found := _time(facts.get(key)))), None)


def _time(value: Any) -> datetime | None:
    """A point in time from what formats write: ISO 8601, RFC 2822, PDF (``D:2024...``), ``01-Jul-2001``; else None."""
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, time())
    if isinstance(value, str):
        value = _parse_time(value.strip())
    if not isinstance(value, datetime) or not 1 < value.year < 9999:
        return None
    return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


def _parse_time(value: str) -> datetime | None:
    pdf = re.match(r"D:(\d{4})(\d\d)?(\d\d)?", value)
    if pdf:
        value = f"{pdf[1]}-{pdf[2] or '01'}-{pdf[3] or '01'}"
    # ISO with nanoseconds, as OpenDocument writes it, is more than Python reads
    value = re.sub(r"(\.\d{6})\d+", r"\1", value)
    for read in (
        datetime.fromisoformat,
        lambda text: datetime.strptime(text, "%d-%b-%Y"),
        parsedate_to_datetime,
    ):
        try:
            return read(value)
        except (ValueError, TypeError, IndexError, OverflowError):
            continue
    return None


def _storable(metadata: dict[str, Any]) -> dict[str, Any]:
    """Metadata as JSON that PostgreSQL accepts: no NUL, no NaN, no lone surrogate."""

    def clean(value: Any) -> Any:
        if isinstance(value, str):
            return normalise(value)
        if isinstance(value, dict):
            return {normalise(str(key)): clean(item) for key, item in value.items()}
        if isinstance(value, list):
            return [clean(item) for item in value]
        if isinstance(value, float) and not abs(value) < float("inf"):
            return None
        return value if isinstance(value, int | float) else str(value)

    return json.loads(json.dumps(clean(metadata)))


@cache
def _kreuzberg_version() -> str:
    return version("kreuzberg")


_WHY_EMPTY = {"application/pdf": "no text in the PDF, as in a scan; recognise its text first"}

_FORMATS: dict[str, Format] = {
    **dict.fromkeys((".md", ".markdown", ".mdx"), Format("text/markdown", _parse_markdown, False)),
    **dict.fromkeys((".txt", ".text"), Format("text/plain", _parse_plain, False)),
    ".rst": Format("text/x-rst", _parse_rst, False),
    **dict.fromkeys((".html", ".htm", ".xhtml"), Format("text/html", _parse_html, True)),
    ".csv": Format("text/csv", _parse_decoded, True, structured=False),
    ".tsv": Format("text/tab-separated-values", _parse_decoded, True, structured=False),
    ".json": Format("application/json", _parse_decoded, True),
    ".ipynb": Format("application/x-ipynb+json", _parse_decoded, True),
    ".xml": Format("application/xml", _parse_binary, True),
    ".eml": Format("message/rfc822", _parse_binary, True, structured=False),
    ".msg": Format("application/vnd.ms-outlook", _parse_binary, True, structured=False),
    ".pdf": Format("application/pdf", _parse_binary, True),
    ".docx": Format(f"{_OFFICE}wordprocessingml.document", _parse_binary, True),
    ".pptx": Format(f"{_OFFICE}presentationml.presentation", _parse_binary, True),
    ".xlsx": Format(f"{_OFFICE}spreadsheetml.sheet", _parse_binary, True),
    ".doc": Format("application/msword", _parse_binary, True),
    ".ppt": Format("application/vnd.ms-powerpoint", _parse_binary, True),
    ".xls": Format("application/vnd.ms-excel", _parse_binary, True),
    ".odt": Format("application/vnd.oasis.opendocument.text", _parse_binary, True),
    ".rtf": Format("application/rtf", _parse_binary, True),
    ".epub": Format("application/epub+zip", _parse_binary, True),
}
