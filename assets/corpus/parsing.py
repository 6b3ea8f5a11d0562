"""Parsing: from the bytes of one document to its normalised text, title, headings and other facts.

Belongs here: which format is read how, and the assembly of what its reader found.
Does not belong here: the readers of larger formats (word.py, workbook.py, pdf.py, mail.py, html.py), kreuzberg
(extraction.py), the processes this runs in (parse_pool.py), the database (parse_cache.py), policies (quarantine.py).

Markdown, plain text and reStructuredText are read as they stand: kreuzberg would re-render Markdown and lose words of
it. Word files, workbooks, mail and separated values have readers here because kreuzberg loses what matters in them
(docs/parsing.md has the figures); it reads the rest.
"""

import json
import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime, time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from assets.corpus.archives import is_encrypted_ole, is_ole, is_zip, open_archive, unpack_gzip
from assets.corpus.extraction import extract, extractor_version
from assets.corpus.failures import ParseFailure
from assets.corpus.headings import Heading, scan
from assets.corpus.html import has_text, main_content, reduce_html
from assets.corpus.mail import Attachment, read_mail
from assets.corpus.pdf import render_pages
from assets.corpus.recognisers import describe, recogniser
from assets.corpus.tables import from_separated, to_markdown
from assets.corpus.text import decode, detect_language, language_code, mend, normalise
from assets.corpus.word import read_word
from assets.corpus.workbook import read_workbook
from resources.disk import is_full
from resources.faults import crash_point
from resources.fingerprint import fingerprint

if TYPE_CHECKING:
    from resources.source_config import SourceConfig

#: Raised by hand when this module, or one it uses, would make something else of the same bytes.
CODE_VERSION = "2"
#: A longer text is refused: it would not fit what reads it, and no document is that long.
MAXIMUM_CHARACTERS = 200_000_000
#: Larger files are parsed in a process of their own whatever their format.
IN_PROCESS_BYTES = 1_000_000

_FRONT_MATTER = re.compile(r"---[ \t]*\r?\n(.{0,65536}?)^(?:---|\.\.\.)[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)
_SPDX = re.compile(r"SPDX-License-Identifier:[ \t]*([\w.+\-() ]{1,100}\w\)?)")
_FIELD = re.compile(r"([A-Z][\w-]{0,40}): *(\S.*)?")
_OFFICE = "application/vnd.openxmlformats-officedocument."
_GZIP_MAGIC = b"\x1f\x8b"
_MOST_ATTACHMENTS = 20


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
        metadata: further facts, JSON-able. ``modality``: ``text``, ``table``, ``ocr`` or ``caption``; ``pages``: number
            and first character of every page or slide, in order, of formats that have them.
    """

    text: str
    title: str | None = None
    headings: tuple[Heading, ...] = ()
    language: str | None = None
    licence: str | None = None
    origin_time: datetime | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """This document as JSON values."""
        return asdict(self) | {"origin_time": self.origin_time.isoformat() if self.origin_time else None}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "ParsedDocument":
        """The document that ``to_json`` wrote."""
        moment = value["origin_time"]
        return cls(
            **{
                **value,
                "headings": tuple(Heading(**item) for item in value["headings"]),
                "origin_time": datetime.fromisoformat(moment) if moment else None,
            }
        )


@dataclass(frozen=True)
class ParseSettings:
    """What a source says about parsing its documents.

    Attributes:
        language: of all documents, or None: detect it.
        licence: of documents that state none.
        main_content: take the article of a web page instead of the whole page.
        recognise: names of recognisers to read pictures with.
    """

    language: str | None = None
    licence: str | None = None
    main_content: bool = False
    recognise: tuple[str, ...] = ()


def settings_of(source: "SourceConfig") -> ParseSettings:
    """The part of a source's configuration that parsing depends on."""
    return ParseSettings(
        language=source.language,
        licence=source.licence,
        main_content=bool(getattr(source, "main_content", False)),
        recognise=tuple(getattr(source, "recognise", None) or ()),
    )


@dataclass
class _Raw:
    """What a reader found; ``parse`` completes it. With ``pages`` the text is theirs."""

    text: str = ""
    title: str | None = None
    fallback_title: str | None = None
    language: str | None = None
    licence: str | None = None
    origin_time: datetime | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    pages: Sequence[tuple[int, str]] = ()
    modality: str = "text"
    why_empty: tuple[str, str] = ("empty", "the file holds no text")


_Reader = Callable[[bytes, "Format", ParseSettings], _Raw]


@dataclass(frozen=True)
class Format:
    """A media type and the reader of it.

    Attributes:
        extension: the usual ending of its files, by which a format is found again.
        with_kreuzberg: kreuzberg has a part in reading it.
        structured: whether ``# x`` in the reader's text is a heading.
        isolated: it is parsed in a process that can be killed.
        packed: the file is a gzip of it.
    """

    extension: str
    media_type: str
    reader: _Reader = field(repr=False)
    with_kreuzberg: bool = True
    structured: bool = True
    isolated: bool = True
    packed: bool = False

    @property
    def key(self) -> str:
        """A file name ending that ``format_of`` makes this format of."""
        return self.extension + (".gz" if self.packed else "")


def format_of(path: str, source: "SourceConfig | None" = None) -> Format | None:
    """The format of a document by its file name, or None when this project cannot read it.

    Args:
        path: of the document.
        source: where it comes from: pictures are read only where it has a recogniser.
    """
    name = posixpath.basename(path)
    stem, extension = posixpath.splitext(name)
    if extension.lower() == ".gz":
        inner = _by_name(stem, source is not None and bool(settings_of(source).recognise))
        return replace(inner, packed=True, isolated=True) if inner and posixpath.splitext(stem)[1] else None
    return _by_name(name, source is not None and bool(settings_of(source).recognise))


def _by_name(name: str, pictures: bool) -> Format | None:
    extension = posixpath.splitext(name)[1].lower()
    found = _FORMATS.get(extension) if extension else _FORMATS[".txt"]
    return found or (_PICTURES.get(extension) if pictures else None)


def parser_fingerprint(source: "SourceConfig", form: Format) -> str:
    """Hash of everything, beside its bytes, that can change what is made of a document.

    Limits of time and memory are no part of it: they decide whether there is a result, not which.

    Raises:
        ConfigError: the source names a recogniser that is not installed.
    """
    settings = settings_of(source)
    facts: dict[str, Any] = {
        "code": CODE_VERSION,
        "kreuzberg": extractor_version() if form.with_kreuzberg else None,
        "media_type": form.media_type,
        "language": settings.language,
        "licence": settings.licence,
    }
    if form.packed:
        facts["packed"] = True
    if settings.main_content and form.media_type in ("text/html", "message/rfc822"):
        facts["main_content"] = _version("trafilatura")
    if settings.recognise and form.isolated:
        facts["recognise"] = describe(settings.recognise)
    if form.extension not in _AS_IT_STANDS:
        facts["mend"] = _version("ftfy")
    if settings.language is None:
        facts["language_model"] = _version("py3langid")
    return fingerprint(facts)


def parse(data: bytes, form: Format, source: "SourceConfig | ParseSettings") -> ParsedDocument:
    """Read one document.

    Raises:
        ParseFailure: it cannot be read, or holds no text.
    """
    settings = source if isinstance(source, ParseSettings) else settings_of(source)
    if not data:
        raise ParseFailure("empty", "the file has no bytes")
    if form.packed:
        data = unpack_gzip(data)
        if not data:
            raise ParseFailure("empty", "the compressed file has no bytes")
    form = _actual_format(data, form)
    raw = form.reader(data, form, settings)
    text, pages = _assemble(raw, form)
    if not text.strip() and settings.recognise and _recognisable(form):
        raw = _recognised(data, form, settings, raw)
        text, pages = _assemble(raw, form)
    if not text.strip():
        raise ParseFailure(*raw.why_empty)
    if len(text) > MAXIMUM_CHARACTERS:
        raise ParseFailure("too_large_inside", f"{len(text):,} characters, allowed are {MAXIMUM_CHARACTERS:,}")
    headings = scan(text).headings if form.structured else ()
    first = next((heading.text for heading in headings if heading.level == 1), None)
    spdx = _SPDX.search(text[:4096])
    return ParsedDocument(
        text=text,
        title=_line(raw.title) or _line(first) or _line(raw.fallback_title),
        headings=headings,
        language=language_code(settings.language) or language_code(raw.language) or detect_language(text),
        licence=_line(raw.licence) or (spdx[1].strip() if spdx else None) or settings.licence,
        origin_time=raw.origin_time,
        metadata=_storable(raw.metadata) | {"modality": raw.modality} | ({"pages": pages} if pages else {}),
    )


def answer(header: dict[str, Any], data: bytes) -> dict[str, Any]:
    """Parse in a parser process: what ``request`` asked for, as JSON values."""
    form = format_of("x" + header["format"]) or _PICTURES[header["format"]]
    settings = ParseSettings(**{**header["settings"], "recognise": tuple(header["settings"]["recognise"])})
    crash_point("corpus.parsing")
    try:
        return {"document": parse(data, form, settings).to_json()}
    except ParseFailure as failure:
        return {"failed": [failure.code, failure.reason]}


def request(form: Format, source: "SourceConfig") -> dict[str, Any]:
    """The header of a task for a parser process; see ``answer``."""
    return {"format": form.key, "settings": asdict(settings_of(source))}


def title_from_path(path: str) -> str:
    """The title of a document that states none: its file name without the ending."""
    name = posixpath.basename(path)
    stem = posixpath.splitext(name)[0] or name
    return " ".join(re.split(r"[-_\s]+", stem)).strip() or name


def _assemble(raw: _Raw, form: Format) -> tuple[str, list[list[int]]]:
    """The normalised text, and number and first character of every page in it.

    Pages are normalised one by one and joined by an empty line, so that their positions hold in the normal form. An
    empty page begins where the next one does.
    """
    repair = mend if form.extension not in _AS_IT_STANDS else str
    if not raw.pages:
        return normalise(repair(raw.text)), []
    parts: list[str] = []
    starts: list[list[int]] = []
    position = 0
    for number, text in raw.pages:
        text = normalise(repair(text)).strip()
        begin = position + (2 if parts else 0)
        starts.append([number, begin])
        if text:
            parts.append(text)
            position = begin + len(text)
    return "\n\n".join(parts), [[number, min(start, position)] for number, start in starts]


def _actual_format(data: bytes, form: Format) -> Format:
    """The format that the first bytes state, where a file has the wrong ending.

    Raises:
        ParseFailure: ``password``: an encrypted office file, whatever its ending.
    """
    if form.extension in _TEXT_INSIDE:
        return form
    if is_ole(data):
        if is_encrypted_ole(data):
            raise ParseFailure("password", "the file is encrypted; supply a copy without a password")
        return _FORMATS[_OLDER.get(form.extension, form.extension)]
    if is_zip(data):
        if form.extension in _ZIPPED:
            return form
        names = set(open_archive(data).namelist())
        for part, extension in _PARTS.items():
            if part in names:
                return _FORMATS[extension]
        return form
    start = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n")
    if start.startswith(b"%PDF-"):
        return _FORMATS[".pdf"]
    if start.startswith(b"{\\rtf"):
        return _FORMATS[".rtf"]
    if form.extension in (".doc", ".xls") and re.match(rb"<(?:!doctype html|html|table)", start, re.IGNORECASE):
        return _FORMATS[".html"]  # what many web applications call a Word or Excel export
    return form


# --- readers --------------------------------------------------------------------------------------------


def _read_plain(data: bytes, form: Format, settings: ParseSettings) -> _Raw:
    text, encoding = decode(data)
    return _Raw(text, metadata={"encoding": encoding})


def _read_markdown(data: bytes, form: Format, settings: ParseSettings) -> _Raw:
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


def _read_rst(data: bytes, form: Format, settings: ParseSettings) -> _Raw:
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


def _read_html(data: bytes, form: Format, settings: ParseSettings) -> _Raw:
    declared = re.search(rb"""<meta[^>]{0,200}charset\s*=\s*["']?\s*([\w.:-]+)""", data[:4096], re.IGNORECASE)
    text, encoding = decode(data, declared[1].decode("ascii") if declared else None)
    raw = _from_page(text, settings)
    raw.metadata["encoding"] = encoding
    return raw


def _from_page(text: str, settings: ParseSettings) -> _Raw:
    text = text.replace("\x00", "")
    page = reduce_html(text)
    article = main_content(text, page) if settings.main_content else None
    if article:
        return _Raw(
            article.text,
            fallback_title=article.title or page.title,
            language=article.language,
            licence=article.licence,
            origin_time=_time(page.modified) or _time(article.date),
            metadata={"main_content": True} | ({"author": article.author} if article.author else {}),
        )
    content = extract(page.body.encode("utf-8", "replace"), "text/html").text
    if not content.strip() and has_text(page.body):
        raise ParseFailure("damaged", "the page has words, but nested too deeply to be read")
    return _Raw(
        content,
        fallback_title=page.title,
        language=page.language,
        licence=page.licence,
        origin_time=_time(page.modified),
        metadata={"main_content": False} if settings.main_content else {},
    )


def _read_separated(data: bytes, form: Format, settings: ParseSettings) -> _Raw:
    text, encoding = decode(data)
    rows = from_separated(text.replace("\x00", ""), "\t" if form.extension == ".tsv" else None)
    return _Raw(to_markdown(rows), metadata={"encoding": encoding, "rows": len(rows)}, modality="table")


def _read_decoded(data: bytes, form: Format, settings: ParseSettings) -> _Raw:
    """Formats that are text inside: kreuzberg takes them as UTF-8 only and replaces what is not, silently."""
    text, encoding = decode(data)
    found = extract(text.encode("utf-8", "replace"), form.media_type)
    return _from_facts(found.text, found.facts, {"encoding": encoding})


def _read_binary(data: bytes, form: Format, settings: ParseSettings) -> _Raw:
    if is_zip(data):
        open_archive(data).close()
    found = extract(data, form.media_type)
    return _from_facts(found.text, found.facts, {})


def _read_slides(data: bytes, form: Format, settings: ParseSettings) -> _Raw:
    media = False
    if is_zip(data):
        with open_archive(data) as archive:
            media = _has_pictures(archive.namelist())
    found = extract(data, form.media_type, slides=True)
    raw = _from_facts(found.text, found.facts, {})
    raw.pages = [(number, _slide(text)) for number, text in found.pages]
    raw.text = _slide(raw.text)
    raw.why_empty = _why_empty(media)
    return raw


def _read_word(data: bytes, form: Format, settings: ParseSettings) -> _Raw:
    """Word files by the reader here; by kreuzberg where that fails or finds nothing."""
    with open_archive(data) as archive:
        media = _has_pictures(archive.namelist())
        damage: ParseFailure | None = None
        try:
            text, facts = read_word(archive)
        except ParseFailure as failure:
            text, facts, damage = "", {}, failure
        except RecursionError:
            text, facts, damage = "", {}, ParseFailure("damaged", "elements are nested too deeply")
    if not text:
        found = extract(data, form.media_type)
        text, facts = found.text, {**facts, **found.facts}
        if damage and not text.strip():
            raise damage
    raw = _from_facts(text, {**facts, "format_type": "docx"}, {})
    raw.why_empty = _why_empty(media)
    return raw


def _read_workbook(data: bytes, form: Format, settings: ParseSettings) -> _Raw:
    """Workbooks by the reader here where they are XML; by kreuzberg otherwise."""
    if is_zip(data):
        with open_archive(data) as archive:
            if "xl/workbook.bin" not in archive.NameToInfo:
                text, facts = read_workbook(archive)
                kept = {key: facts[key] for key in ("sheet_names", "hidden_sheets") if key in facts}
                raw = _from_facts(text, facts, kept)
                raw.modality = "table"
                return raw
    found = extract(data, form.media_type)
    names = found.facts.get("sheet_names")
    raw = _from_facts(_CELL_TIME.sub("", found.text), found.facts, {"sheet_names": names} if names else {})
    raw.modality = "table"
    return raw


def _read_pdf(data: bytes, form: Format, settings: ParseSettings) -> _Raw:
    found = extract(data, form.media_type, structure=True)
    count = found.facts.get("page_count")
    count = count if isinstance(count, int) else 0
    raw = _from_facts(found.text, found.facts, {"page_count": count} if count else {})
    raw.pages = render_pages(found.nodes, min(count, 1_000_000))
    if not count and not found.text.strip():
        raise ParseFailure("damaged", "no readable page in the PDF")
    if not any(text.strip() for _, text in raw.pages) and not found.text.strip():
        pictures = extract(data, form.media_type, images=True).images or b"/Image" in data or b"BI" in data
        if pictures:
            raw.why_empty = (
                "no_text",
                f"{_counted(count, 'page')} without text, as in a scan; recognise its text first",
            )
        else:
            raw.why_empty = ("empty", f"{_counted(count, 'page')} without text or pictures")
    elif not any(text.strip() for _, text in raw.pages):
        raw.pages = ()
    if settings.recognise and raw.pages and any(not text.strip() for _, text in raw.pages):
        _fill_pages(data, form, settings, raw)
    return raw


def _read_mail(data: bytes, form: Format, settings: ParseSettings) -> _Raw:
    mail = read_mail(data)
    body = mail.plain
    if body is None and mail.html is not None:
        try:
            body = _from_page(mail.html, settings).text
        except ParseFailure:
            body = ""
    parts = ["\n".join(f"{name}: {value}" for name, value in mail.headers.items()), body or ""]
    listed = []
    for item in mail.attachments[:_MOST_ATTACHMENTS]:
        text, outcome = _attached(item, settings)
        listed.append({"name": item.name, "bytes": len(item.data), "outcome": outcome})
        if text:
            parts.append(f"Attachment: {item.name}\n\n{text}")
    if not (body or "").strip() and len(parts) == 2 and not mail.headers.get("Subject"):
        parts = []  # bare addresses are no text
    return _Raw(
        "\n\n".join(part.strip() for part in parts if part.strip()),
        fallback_title=mail.headers.get("Subject"),
        origin_time=_time(mail.headers.get("Date")),
        metadata={"attachments": listed} if listed else {},
    )


def _attached(item: Attachment, settings: ParseSettings) -> tuple[str, str]:
    """Text of an attached file, and ``parsed`` or why there is none. Mail in mail and packed files stay closed."""
    form = _by_name(item.name, bool(settings.recognise)) if posixpath.splitext(item.name)[1] else None
    if form is None or form.extension in (".eml", ".msg"):
        return "", "unsupported"
    try:
        return parse(item.data, form, replace(settings, language=settings.language or "und")).text, "parsed"
    except ParseFailure as failure:
        return "", failure.code


def _read_picture(data: bytes, form: Format, settings: ParseSettings) -> _Raw:
    return _Raw(why_empty=("no_text", "a picture; no recogniser found text in it"))


def _from_facts(content: str, facts: Mapping[str, Any], metadata: dict[str, Any]) -> _Raw:
    author = facts.get("author") or ", ".join(str(name) for name in facts.get("authors") or ())
    return _Raw(
        content,
        fallback_title=_scalar(facts.get("title") or facts.get("subject")),
        language=_scalar(facts.get("language")) if facts.get("format_type") in ("docx", "epub", "pdf") else None,
        origin_time=_first_time(facts, "modified_at", "created_at"),
        metadata=metadata | ({"author": author[:300]} if author else {}),
    )


# --- recognising --------------------------------------------------------------------------------------------


def _recognisable(form: Format) -> bool:
    return form.extension == ".pdf" or form.extension in _PICTURES


def _recognised(data: bytes, form: Format, settings: ParseSettings, raw: _Raw) -> _Raw:
    """What the first recogniser that finds anything reads in a document without text."""
    for name in settings.recognise:
        pages = _recognise(name, data, form)
        if any(text.strip() for _, text in pages):
            modality = "ocr" if "ocr" in recogniser(name).modalities else "caption"
            metadata = raw.metadata | {"recogniser": f"{recogniser(name).name} {recogniser(name).version}"}
            return replace(raw, pages=pages, modality=modality, metadata=metadata)
    return raw


def _fill_pages(data: bytes, form: Format, settings: ParseSettings, raw: _Raw) -> None:
    """Give recognised text to the pages that have none of their own; the rest stays as the document has it."""
    found = _recognised(data, form, settings, raw)
    if found is raw or not any(text.strip() for _, text in raw.pages):
        return
    read = dict(found.pages)
    filled = [number for number, text in raw.pages if not text.strip() and read.get(number, "").strip()]
    if filled:
        raw.pages = [(number, text if text.strip() else read.get(number, "")) for number, text in raw.pages]
        raw.metadata |= {"recogniser": found.metadata["recogniser"], f"{found.modality}_pages": filled}


def _recognise(name: str, data: bytes, form: Format) -> list[tuple[int, str]]:
    try:
        pages = [(int(page), str(text)) for page, text in recogniser(name).recognise(data, form.media_type)]
    except MemoryError:
        raise
    except Exception as error:  # a plug-in may raise anything, and its message may quote the document
        if is_full(error):
            raise  # of the disk with its temporary files: no fault of the document
        raise ParseFailure("parse_failed", f"the recogniser {name} failed with {type(error).__name__}") from error
    if [page for page, _ in pages] != sorted({page for page, _ in pages}) or any(page < 1 for page, _ in pages):
        raise ParseFailure("parse_failed", f"the recogniser {name} did not number its pages in order")
    return pages


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


def _slide(text: str) -> str:
    """A slide without rules; of its pictures what somebody wrote about them."""
    described = _SLIDE_PICTURE.sub(lambda match: "" if _NO_DESCRIPTION.fullmatch(match[1]) else match[1], text)
    return _SLIDE_RULE.sub("", described)


def _why_empty(pictures: bool) -> tuple[str, str]:
    if pictures:
        return ("no_text", "pictures but no text; supply the text, or a PDF that can be recognised")
    return ("empty", "the file holds no text")


def _has_pictures(names: Sequence[str]) -> bool:
    return any(
        re.match(r"(?:word|ppt)/media/.+\.(?:png|jpe?g|gif|tiff?|bmp|emf|wmf)", name, re.IGNORECASE) for name in names
    )


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)


#: Rules that kreuzberg writes between parts of a slide, and links to pictures inside of the file with their description.
_SLIDE_RULE = re.compile(r"^-{3,}[ \t]*$", re.MULTILINE)
_SLIDE_PICTURE = re.compile(r"\\?!\[([^\]\n]*)\]\([^)\s]*media/[^)\n]*\)")
_NO_DESCRIPTION = re.compile(r"\s*(?:(?:picture|image|img|bild|grafik|photo)?[ _-]*\d*|\S+\.\w{3,4})\s*", re.IGNORECASE)
#: A date is stored with the midnight it begins with.
_CELL_TIME = re.compile(r"(?<=\d\d\d\d-\d\d-\d\d) 00:00:00(?= \|)")
#: Formats whose bytes are text; a wrong ending shows up as an encoding that does not fit.
_TEXT_INSIDE = frozenset({".md", ".txt", ".rst", ".html", ".csv", ".tsv", ".json", ".ipynb", ".xml", ".eml"})
#: Written by people who care for every character, and where wrong ones stand they may be meant.
_AS_IT_STANDS = frozenset({".md", ".rst", ".ipynb"})
_ZIPPED = frozenset({".docx", ".pptx", ".xlsx", ".odt", ".epub"})
#: Modern formats whose older version has the same users and, often enough, the wrong ending.
_OLDER = {".docx": ".doc", ".pptx": ".ppt", ".xlsx": ".xls"}
_PARTS = {
    "word/document.xml": ".docx",
    "ppt/presentation.xml": ".pptx",
    "xl/workbook.xml": ".xlsx",
    "META-INF/container.xml": ".epub",
    "content.xml": ".odt",
}

_FORMATS: dict[str, Format] = {
    **dict.fromkeys(
        (".md", ".markdown", ".mdx"), Format(".md", "text/markdown", _read_markdown, False, isolated=False)
    ),
    **dict.fromkeys((".txt", ".text"), Format(".txt", "text/plain", _read_plain, False, isolated=False)),
    ".rst": Format(".rst", "text/x-rst", _read_rst, False, isolated=False),
    **dict.fromkeys((".html", ".htm", ".xhtml"), Format(".html", "text/html", _read_html)),
    ".csv": Format(".csv", "text/csv", _read_separated, False, structured=False, isolated=False),
    ".tsv": Format(".tsv", "text/tab-separated-values", _read_separated, False, structured=False, isolated=False),
    ".json": Format(".json", "application/json", _read_decoded),
    ".ipynb": Format(".ipynb", "application/x-ipynb+json", _read_decoded),
    ".xml": Format(".xml", "application/xml", _read_binary),
    ".eml": Format(".eml", "message/rfc822", _read_mail, structured=False),
    ".msg": Format(".msg", "application/vnd.ms-outlook", _read_binary, structured=False),
    ".pdf": Format(".pdf", "application/pdf", _read_pdf),
    ".docx": Format(".docx", f"{_OFFICE}wordprocessingml.document", _read_word),
    ".pptx": Format(".pptx", f"{_OFFICE}presentationml.presentation", _read_slides),
    **dict.fromkeys((".xlsx", ".xlsm"), Format(".xlsx", f"{_OFFICE}spreadsheetml.sheet", _read_workbook)),
    ".doc": Format(".doc", "application/msword", _read_binary),
    ".ppt": Format(".ppt", "application/vnd.ms-powerpoint", _read_slides),
    ".xls": Format(".xls", "application/vnd.ms-excel", _read_workbook),
    ".odt": Format(".odt", "application/vnd.oasis.opendocument.text", _read_binary),
    ".rtf": Format(".rtf", "application/rtf", _read_binary),
    ".epub": Format(".epub", "application/epub+zip", _read_binary),
}

_PICTURES: dict[str, Format] = {
    extension: Format(extension, f"image/{kind}", _read_picture, False)
    for extension, kind in {
        ".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".tif": "tiff", ".tiff": "tiff", ".gif": "gif",
        ".webp": "webp", ".bmp": "bmp",
    }.items()
}  # fmt: skip
