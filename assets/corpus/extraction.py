"""Extraction: the one place that calls kreuzberg.

Belongs here: its configuration, what its errors mean, and undoing what its Markdown does to plain words.
Does not belong here: which formats it reads (parsing.py), and guarding against it (parse_pool.py).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Any

from assets.corpus.failures import ParseFailure

#: Stands where a new page or slide begins, in characters that no document means anything by.
_PAGE_MARK = "\ue0f0\ue0f1{page_num}\ue0f2"
_PAGE = re.compile("\\s*\ue0f0\ue0f1(\\d{1,7})\ue0f2\\s*")
_FENCED = re.compile(r"(^(`{3,}|~{3,}).*?^\2[ \t]*$|`[^`\n]+`)", re.DOTALL | re.MULTILINE)
#: Escapes that stand for themselves in the middle of words; ``\\|``, ``\\#``, ``\\*`` and the like keep theirs.
_ESCAPED = re.compile(r"\\([!\"$%&'(),./:;<=>?@\[\]^_{}~])")
_TAB = re.compile("&#9;")


@dataclass(frozen=True)
class Extracted:
    """What kreuzberg made of a document.

    Attributes:
        text: Markdown.
        facts: its metadata.
        pages: number and Markdown of each page or slide, where the format has them.
        nodes: blocks in reading order, where asked for.
        images: how many pictures it found, where asked for.
    """

    text: str
    facts: Mapping[str, Any]
    pages: Sequence[tuple[int, str]] = ()
    nodes: Sequence[Mapping[str, Any]] = ()
    images: int = 0


def extract(
    data: bytes, media_type: str, *, slides: bool = False, structure: bool = False, images: bool = False
) -> Extracted:
    """Read one document; one a call, since its batch function returns errors as content.

    Nothing is recognised in pictures, nothing is fetched, and nothing is cached: its cache would keep the content of
    documents in the user's home in clear.

    Args:
        slides: mark where slides begin.
        structure: blocks with their pages.
        images: count pictures.

    Raises:
        ParseFailure: ``password``, ``damaged``, ``unsupported`` or ``parse_failed``.
    """
    from kreuzberg import (
        ConcurrencyConfig,
        ExtractionConfig,
        ImageExtractionConfig,
        KreuzbergError,
        PageConfig,
        extract_bytes_sync,
    )

    options: dict[str, Any] = {"disable_ocr": True}  # its type stubs do not know this one
    if slides:
        options["pages"] = PageConfig(insert_page_markers=True, marker_format=f"\n\n{_PAGE_MARK}\n\n")
    if images:
        options["images"] = ImageExtractionConfig(extract_images=True, max_image_dimension=64, auto_adjust_dpi=False)
    config = ExtractionConfig(
        use_cache=False,
        output_format="markdown",
        include_document_structure=structure,
        concurrency=ConcurrencyConfig(max_threads=1),  # the pool keeps the processors busy
        **options,
    )
    try:
        result = extract_bytes_sync(data, media_type, config=config)
    except KreuzbergError as error:
        raise _failure(error, media_type) from error
    pages = _split(result.content) if slides else []
    document = result.document if structure else None
    return Extracted(
        text="\n\n".join(text for _, text in pages) if pages else plain_words(result.content),
        facts=dict(result.metadata),
        pages=pages,
        nodes=document.get("nodes", ()) if isinstance(document, dict) else (),
        images=len(result.images or ()) if images else 0,
    )


def plain_words(markdown: str) -> str:
    """Take away backslashes that only a Markdown renderer needs: ``snake\\_case`` is not found as ``snake_case``."""
    if "\\" not in markdown and "&#" not in markdown:
        return markdown
    parts = _FENCED.split(markdown)
    # between the parts stand code (1, 4, ...) and its fence (2, 5, ...)
    for number in range(0, len(parts), 3):
        parts[number] = _TAB.sub("\t", _ESCAPED.sub(r"\1", parts[number]))
    return "".join(part for number, part in enumerate(parts) if number % 3 != 2)


def _split(content: str) -> list[tuple[int, str]]:
    """Pages of a text with marks; none where the marks make no sense."""
    parts = _PAGE.split(content)
    numbers = [int(number) for number in parts[1::2]]
    if not numbers or numbers != sorted(set(numbers)):
        return []
    texts = [plain_words(text) for text in parts[2::2]]
    if parts[0].strip():
        texts[0] = f"{plain_words(parts[0])}\n\n{texts[0]}"
    return list(zip(numbers, texts, strict=True))


_PASSWORD = re.compile(r"password|encrypt", re.IGNORECASE)
_UNSUPPORTED = re.compile(r"unsupported|not supported", re.IGNORECASE)
_DAMAGED = re.compile(
    r"invalid|failed to (?:parse|open|read)|corrupt|malformed|FormatError|not a valid|unexpected|missing|truncated"
    r"|bad (?:magic|zip)|wrong magic|FileError|PageError",
    re.IGNORECASE,
)


def _failure(error: Exception, media_type: str) -> ParseFailure:
    # The first two clauses of its message name the fault; later ones may quote the document.
    clauses = ":".join(str(error).split(":")[:2])[:160].removeprefix("ParsingError: ")
    kind = type(error).__name__
    if _PASSWORD.search(clauses):
        return ParseFailure("password", "the file is encrypted; supply a copy without a password")
    if _UNSUPPORTED.search(clauses):
        return ParseFailure("unsupported", f"{kind}: {clauses}")
    if kind == "ParsingError" or _DAMAGED.search(clauses):
        return ParseFailure("damaged", f"not readable as {_NAMES.get(media_type, media_type)}: {clauses}")
    return ParseFailure("parse_failed", f"{kind}: {clauses}")


_NAMES = {"application/pdf": "PDF", "application/msword": "a Word file", "text/html": "HTML"}


@cache
def extractor_version() -> str:
    """The version of kreuzberg, which is in the fingerprint of every format it reads."""
    return version("kreuzberg")
