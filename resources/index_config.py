"""The shape of ``indexes/*.yaml``: how texts are cut, enriched, embedded and searched.

Belongs here: configuration models of an index. Does not belong here: identity of what they make (chunk_config.py).
"""

from typing import Literal

from pydantic import Field, model_validator

from resources.config_base import Name, Strict


class ChunkerConfig(Strict):
    """How a document text is cut into chunks; every chunk is an exact character range."""

    kind: Literal["recursive", "markdown"] = "markdown"
    unit: Literal["characters", "tokens"] = "tokens"
    size: int = Field(default=200, ge=16, le=8192, description="Largest chunk, in units.")
    overlap: int = Field(default=0, ge=0, description="Overlap of neighbours, in units.")

    @model_validator(mode="after")
    def _overlap_below_size(self) -> "ChunkerConfig":
        if self.overlap >= self.size:
            raise ValueError(f"overlap {self.overlap} must be smaller than size {self.size}")
        return self


class EnrichmentConfig(Strict):
    """What is added to a chunk before it is embedded; the original chunk is what is returned and cited."""

    context: Literal["none", "headings"] = Field(
        default="headings", description="Prefix the heading path of the chunk."
    )


class HnswConfig(Strict):
    """Parameters of the HNSW graph and of searching it."""

    m: int = Field(default=16, ge=2, le=100)
    ef_construction: int = Field(default=64, ge=4, le=1000)
    ef_search: int = Field(default=80, ge=1, le=1000)
    exact_below: int = Field(
        default=10_000, ge=0, description="Below this many rows search is exact: as fast, and recall is 1."
    )

    @model_validator(mode="after")
    def _construction(self) -> "HnswConfig":
        if self.ef_construction < 2 * self.m:
            raise ValueError(f"ef_construction {self.ef_construction} must be at least 2 * m = {2 * self.m}")
        return self


class IndexConfig(Strict):
    """One search index: {sources, chunker, enrichment, embedder, distance, HNSW}."""

    name: Name
    description: str = ""
    sources: list[Name] | Literal["all"] = "all"
    chunker: ChunkerConfig = ChunkerConfig()
    enrichment: EnrichmentConfig = EnrichmentConfig()
    embedder: Name = Field(description="Name of an embedding model in models.yaml.")
    vector_type: Literal["vector", "halfvec"] = "halfvec"
    distance: Literal["cosine"] = "cosine"
    text_search: str = Field(default="english", description="PostgreSQL text search configuration.")
    hnsw: HnswConfig = HnswConfig()
