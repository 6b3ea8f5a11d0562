"""The shape of ``indexes/*.yaml``: how texts are cut, enriched, embedded and searched.

Belongs here: configuration models of an index. Does not belong here: identity of what they make (chunk_config.py).
"""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from resources.chunker_config import ChunkerConfig, MarkdownChunker
from resources.config_base import Name, Strict

StepKind = Literal["clean", "keywords", "entities", "summary", "questions", "language"]
Use = Literal["embed", "search"]

#: Kinds of steps a chat model can do; the others are rules, and a model would only make them worse or dearer.
MODEL_STEPS = ("keywords", "entities", "summary", "questions")


class EnrichmentStep(Strict):
    """One value made for every chunk, cached by the content of the chunk and by everything that decides the value."""

    kind: StepKind
    method: Literal["offline", "model"] = "offline"
    model: Name | None = Field(default=None, description="Name of a chat model in models.yaml, for method: model.")
    use: tuple[Use, ...] = Field(
        default=("embed", "search"),
        description="Where the value goes: what is embedded, what full-text search sees; empty: recorded only.",
    )
    count: int = Field(default=5, ge=1, le=20, description="Most keywords, entities or questions.")
    max_characters: int = Field(
        default=400, ge=40, le=4000, description="Longest value; of a list, all items together."
    )
    headings: bool | None = Field(
        default=None, description="Whether the step sees the heading path; by default only questions do."
    )
    tries: int = Field(default=3, ge=1, le=10, description="Model calls for one chunk before it is given up.")

    @field_validator("use")
    @classmethod
    def _use_once(cls, value: tuple[Use, ...]) -> tuple[Use, ...]:
        if len(set(value)) < len(value):
            raise ValueError("each of embed and search at most once")
        return tuple(sorted(value))

    @model_validator(mode="after")
    def _consistent(self) -> "EnrichmentStep":
        if self.method == "model" and self.kind not in MODEL_STEPS:
            raise ValueError(f"{self.kind} has no method model; only {', '.join(MODEL_STEPS)} do: use method offline")
        if self.method == "model" and self.model is None:
            raise ValueError(f"{self.kind} with method model needs the key model: a chat model of models.yaml")
        if self.method == "offline" and self.model is not None:
            raise ValueError(f"{self.kind} names the model {self.model!r} but has method offline; say method: model")
        if self.headings and self.method == "offline" and self.kind != "questions":
            raise ValueError(f"{self.kind} with method offline cannot see headings; leave the key headings out")
        return self

    @property
    def sees_headings(self) -> bool:
        """Whether the value depends on the heading path beside the chunk."""
        return self.kind == "questions" if self.headings is None else self.headings


class EnrichmentConfig(Strict):
    """What is added to a chunk for embedding and full-text search; the original chunk is what is returned and cited."""

    context: Literal["none", "headings"] = Field(
        default="headings", description="Prefix the heading path of the chunk."
    )
    title: bool = Field(default=False, description="Prefix the title of the text: its first heading.")
    steps: tuple[EnrichmentStep, ...] = Field(default=(), description="In the order in which their values are added.")

    @field_validator("steps")
    @classmethod
    def _kinds_once(cls, value: tuple[EnrichmentStep, ...]) -> tuple[EnrichmentStep, ...]:
        kinds = [step.kind for step in value]
        twice = sorted({kind for kind in kinds if kinds.count(kind) > 1})
        if twice:
            raise ValueError(f"each kind of step at most once; twice: {', '.join(twice)}")
        return value

    def step(self, kind: StepKind) -> EnrichmentStep | None:
        """The step of a kind, if there is one."""
        return next((step for step in self.steps if step.kind == kind), None)

    def steps_for(self, use: Use) -> tuple[EnrichmentStep, ...]:
        """The steps whose values go into what is embedded, or into what full-text search sees."""
        return tuple(step for step in self.steps if use in step.use)


class HnswConfig(Strict):
    """Parameters of the HNSW graph and of searching it."""

    m: int = Field(default=16, ge=2, le=100)
    ef_construction: int = Field(default=64, ge=4, le=1000)
    ef_search: Annotated[int, Field(ge=1, le=1000)] | Literal["auto"] = Field(
        default="auto",
        description="Breadth of the graph search; auto: the smallest that reaches minimum_recall_at_10, by snapshot.",
    )
    exact_below: int = Field(
        default=10_000, ge=0, description="Below this many rows search is exact: as fast, and recall is 1."
    )

    @model_validator(mode="after")
    def _construction(self) -> "HnswConfig":
        if self.ef_construction < 2 * self.m:
            raise ValueError(f"ef_construction {self.ef_construction} must be at least 2 * m = {2 * self.m}")
        return self


class FusionConfig(Strict):
    """How the vector list and the text list of a hybrid search become one.

    ``weighted``: vector weight * cosine + text weight * BM25 / (the most BM25 could give for this question). ``rrf``:
    reciprocal ranks, each with its weight. Without weights they follow the embedding model: see docs/search.md.
    """

    method: Literal["weighted", "rrf"] = "weighted"
    vector_weight: float | None = Field(default=None, ge=0, le=1000, description="Weight of the vector list.")
    text_weight: float | None = Field(default=None, ge=0, le=1000, description="Weight of the text list.")
    rrf_k: int = Field(default=60, ge=1, le=1000, description="Constant of reciprocal ranks.")

    @model_validator(mode="after")
    def _both_weights(self) -> "FusionConfig":
        if (self.vector_weight is None) != (self.text_weight is None):
            raise ValueError("give vector_weight and text_weight, or neither")
        if self.vector_weight is not None and not self.vector_weight + (self.text_weight or 0):
            raise ValueError("vector_weight and text_weight must not both be 0")
        return self


OnFailure = Literal["error", "skip"]


class TranslateConfig(Strict):
    """What is searched for beside the question itself; the lists found are fused by reciprocal ranks.

    Attributes:
        multi_query: further wordings by the chat model, at most so many.
        decompose: parts of a question that asks several things: by rules (splits "A and B?"), or by the chat model.
        hyde: search the vectors with a passage the chat model makes up (Gao et al., 2022).
        feedback: words taken from so many of the first hits, without a model (RM3-like, pseudo-relevance feedback).
    """

    multi_query: int = Field(default=0, ge=0, le=8)
    decompose: Literal["none", "rules", "model"] = "none"
    hyde: bool = False
    feedback: int = Field(default=0, ge=0, le=20)
    feedback_terms: int = Field(default=10, ge=1, le=50)
    weight: float = Field(default=0.5, gt=0, le=10, description="Of a translated list; the question's own has 1.")
    model: Name | None = Field(default=None, description="Name of a chat model in models.yaml.")
    on_failure: OnFailure = Field(default="error", description="Fail the question, or search without and say so.")

    @property
    def uses_model(self) -> bool:
        """Whether a chat model is asked."""
        return bool(self.multi_query or self.hyde or self.decompose == "model")

    @property
    def active(self) -> bool:
        """Whether anything beside the question is searched for."""
        return self.uses_model or self.decompose != "none" or self.feedback > 0

    @model_validator(mode="after")
    def _model_where_needed(self) -> "TranslateConfig":
        if self.uses_model and self.model is None:
            raise ValueError("multi_query, hyde and decompose: model need a chat model; name it in model")
        if self.model is not None and not self.uses_model:
            raise ValueError(f"nothing asks the model {self.model!r}; set multi_query, hyde or decompose: model")
        return self


class RerankConfig(Strict):
    """A second look at the best candidates.

    Attributes:
        kind: ``lexical``: how many of the question's words stand how near to each other, by rules; ``cross_encoder``:
            a rerank model of models.yaml (extra [local]); ``model``: a chat model judges the passages.
        candidates: how many are looked at; those after them keep their order.
        weight: share of the reranker's score against the search score; 1 lets the reranker alone decide.
    """

    kind: Literal["none", "lexical", "cross_encoder", "model"] = "none"
    model: Name | None = Field(default=None, description="Rerank or chat model of models.yaml.")
    candidates: int = Field(default=20, ge=2, le=100)
    weight: float = Field(default=1.0, gt=0, le=1)
    on_failure: OnFailure = Field(default="error", description="Fail the question, or keep the order and say so.")

    @model_validator(mode="after")
    def _model_where_needed(self) -> "RerankConfig":
        if (self.kind in ("cross_encoder", "model")) != (self.model is not None):
            raise ValueError("kind cross_encoder and kind model need a model, the other kinds have none")
        return self


class MmrConfig(Strict):
    """Maximal marginal relevance (Carbonell and Goldstein, 1998) over the candidates."""

    relevance: float = Field(ge=0, le=1, description="Lambda: 1 is relevance alone, 0 is difference alone.")
    candidates: int = Field(default=30, ge=2, le=200)


class ExpandConfig(Strict):
    """What the model reads around a hit: nothing, its parent, or chunks before and after it, of the same document."""

    kind: Literal["none", "parent", "neighbours"] = "none"
    neighbours: int = Field(default=1, ge=1, le=10, description="Chunks on each side.")
    max_characters: int = Field(default=8000, ge=200, le=200_000, description="Most that is read for one hit.")


class RetrievalConfig(Strict):
    """What happens between a question and the passages: translate, search, fuse, rerank, diversify, expand."""

    candidates: int = Field(default=50, ge=1, le=1000, description="Depth of each list that is fused.")
    fusion: FusionConfig = FusionConfig()
    translate: TranslateConfig = TranslateConfig()
    rerank: RerankConfig = RerankConfig()
    mmr: MmrConfig | None = None
    expand: ExpandConfig = ExpandConfig()
    deduplicate: bool = Field(default=False, description="Show a text that several documents share only once.")

    def chat_models(self) -> list[tuple[str, str]]:
        """The chat models that are asked: (key that names it, name)."""
        named = []
        if self.translate.model is not None:
            named.append(("translate.model", self.translate.model))
        if self.rerank.kind == "model" and self.rerank.model is not None:
            named.append(("rerank.model", self.rerank.model))
        return named


class IndexConfig(Strict):
    """One search index: {sources, chunker, enrichment, embedder, distance, HNSW}."""

    name: Name
    description: str = ""
    sources: list[Name] | Literal["all"] = "all"
    chunker: ChunkerConfig = MarkdownChunker()
    enrichment: EnrichmentConfig = EnrichmentConfig()
    embedder: Name = Field(description="Name of an embedding model in models.yaml.")
    vector_type: Literal["vector", "halfvec"] = "halfvec"
    distance: Literal["cosine", "inner_product", "l2"] = "cosine"
    text_search: str = Field(
        default="english",
        min_length=1,
        description="PostgreSQL text search configuration, or auto: by the language of each document.",
    )
    search_timeout: float = Field(default=30.0, gt=0, le=3600, description="Seconds until a search is given up.")
    hnsw: HnswConfig = HnswConfig()
    retrieval: RetrievalConfig = RetrievalConfig()
