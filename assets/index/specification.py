"""Specification: everything that decides what an index contains, resolved to fingerprints and to rows of the caches.

Belongs here: fingerprints of an index configuration, and the ids of its chunker, enrichment and embedder.
Does not belong here: chunking, embedding, staging; each resolves the specification and does its own work.
"""

from dataclasses import dataclass
from typing import Any

from resources.chunk_config import chunker_fingerprint, enrichment_fingerprint
from resources.errors import PermanentError
from resources.index_config import IndexConfig
from resources.model_config import EmbeddingModel
from resources.platform import Platform
from resources.postgres import Connection
from resources.vector_index import LAYOUT, index_fingerprint

#: Most dimensions pgvector builds an HNSW graph for.
MAXIMUM_DIMENSIONS = {"vector": 2000, "halfvec": 4000}


@dataclass(frozen=True)
class Specification:
    """A resolved index configuration.

    Attributes:
        fingerprint: of all that can change a row of the index; another one means a new build.
        chunker, enrichment, embedder: fingerprints, keys of the tables of these names.
    """

    index: IndexConfig
    model: EmbeddingModel
    provider: dict[str, Any]
    chunker: str
    enrichment: str
    embedder: str
    fingerprint: str

    @property
    def column_type(self) -> str:
        """SQL type of the vectors, e.g. ``halfvec(384)``."""
        return f"{self.index.vector_type}({self.model.dimensions})"

    def to_json(self) -> dict[str, Any]:
        """What a build records about itself; enough to search it after the configuration has changed."""
        return {
            "layout": LAYOUT,
            "index": self.index.model_dump(mode="json"),
            "chunker": self.chunker,
            "enrichment": self.enrichment,
            "embedder": {
                "fingerprint": self.embedder,
                "model": self.model.model_dump(mode="json"),
                "provider": self.provider,
            },
        }


@dataclass(frozen=True)
class CacheIds:
    """Ids in the caches; None where nothing was ever made with that fingerprint."""

    chunker: int | None
    enrichment: int | None
    embedder: int | None

    @property
    def complete(self) -> bool:
        """Whether all three have been used."""
        return None not in (self.chunker, self.enrichment, self.embedder)


def specify(platform: Platform, index: str) -> Specification:
    """Resolve the configuration of an index.

    Raises:
        PermanentError: the vectors are too long for an HNSW graph.
    """
    config = platform.config
    settings = config.indexes[index]
    model = config.embedding_model(settings.embedder)
    limit = MAXIMUM_DIMENSIONS[settings.vector_type]
    if model.dimensions > limit:
        remedy = "use vector_type halfvec or fewer dimensions" if model.dimensions <= 4000 else "use fewer dimensions"
        raise PermanentError(
            f"index {index!r}: {model.name!r} makes vectors of {model.dimensions} dimensions; an HNSW graph of "
            f"{settings.vector_type} takes at most {limit}: {remedy}"
        )
    return Specification(
        index=settings,
        model=model,
        provider=config.models.providers[model.provider].model_dump(mode="json"),
        chunker=chunker_fingerprint(settings.chunker, platform.models),
        enrichment=enrichment_fingerprint(settings.enrichment, platform.models),
        embedder=platform.models.embedder(settings.embedder).fingerprint,
        fingerprint=index_fingerprint(config, platform.models, index),
    )


def cache_ids(connection: Connection, specification: Specification) -> CacheIds:
    """Look up the ids of a specification's chunker, enrichment and embedder."""
    row = connection.execute(
        """SELECT (SELECT chunker_id FROM chunker WHERE fingerprint = %s),
                  (SELECT enrichment_id FROM enrichment WHERE fingerprint = %s),
                  (SELECT embedder_id FROM embedder WHERE fingerprint = %s)""",
        (specification.chunker, specification.enrichment, specification.embedder),
    ).fetchone()
    assert row is not None
    return CacheIds(*row)
