"""Enrichment: what is embedded for a chunk.

Belongs here: composing the embedding input from a chunk and its context.
Does not belong here: the chunk that is returned and cited, which is always the original text.
"""

from collections.abc import Sequence

from resources.index_config import EnrichmentConfig


def embedding_input(heading_path: Sequence[str], text: str, config: EnrichmentConfig) -> str:
    """The text to embed for a chunk: with ``headings``, its heading path on a line of its own goes before it."""
    if config.context == "none" or not heading_path:
        return text
    return f"{' > '.join(heading_path)}\n\n{text}"
