"""Enrichment: what is embedded for a chunk, and what full-text search sees of it.

Belongs here: composing both from a chunk, its context and the values of the steps.
Does not belong here: the chunk that is returned and cited, which is always the original text; making the values
(enrichment_steps.py, enrichment_models.py) and keeping them (enrichment_cache.py).
"""

from collections.abc import Sequence

from assets.chunks.enrichment_steps import Value, as_text
from assets.corpus.headings import scan
from resources.index_config import EnrichmentConfig, Use

#: A title is looked for in this many characters at the beginning of a text.
TITLE_WITHIN = 10_000
#: Values by position in ``EnrichmentConfig.steps``; None or empty where a step has none for a chunk.
Values = Sequence[Value | None]


def title_of(text: str) -> str:
    """The title of a text: its first heading; empty where it has none near its beginning.

    A function of the text alone, not of the file's name or the parser's metadata: two documents with the same text share
    their chunks, and so must share what is embedded for them.
    """
    headings = scan(text[:TITLE_WITHIN]).headings
    return headings[0].text if headings else ""


def embedding_input(
    heading_path: Sequence[str], text: str, config: EnrichmentConfig, *, title: str = "", values: Values = ()
) -> str:
    """The text to embed for a chunk: context on a line of its own, the chunk (cleaned, if so configured), the values.

    Args:
        title: of the text, as ``title_of`` gives it; left out where the heading path begins with it.
        values: of ``config.steps``; may be left out where no step is used for embedding.
    """
    body, added = _body(text, config, values, "embed")
    context = _context(heading_path, config, title)
    shown = f"{' > '.join(context)}\n\n{body}" if context else body
    return "\n\n".join([shown, *added])


def search_text(
    heading_path: Sequence[str], text: str, config: EnrichmentConfig, *, title: str = "", values: Values = ()
) -> str | None:
    """What full-text search sees of a chunk, or None where that is the headings as configured, and the chunk."""
    body, added = _body(text, config, values, "search")
    context = _context(heading_path, config, title)
    headings = heading_path if config.context == "headings" else ()
    if body == text and not added and list(context) == list(headings):
        return None
    return "\n".join([" ".join(context), body, *added])


def _context(heading_path: Sequence[str], config: EnrichmentConfig, title: str) -> list[str]:
    headings = list(heading_path) if config.context == "headings" else []
    named = config.title and title and title not in headings[:1]
    return [title, *headings] if named else headings


def _body(text: str, config: EnrichmentConfig, values: Values, use: Use) -> tuple[str, list[str]]:
    """The chunk itself or its cleaned form, and what is added after it."""
    body = text
    added = []
    for step, value in zip(config.steps, values, strict=False):
        if use not in step.use:
            continue
        shown = as_text(value)
        if step.kind == "clean":
            body = shown or text
        elif shown:
            added.append(shown)
    return body, added
