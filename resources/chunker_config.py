"""The shape of ``chunker:`` in ``indexes/*.yaml``: one model for each way of cutting a text.

Belongs here: what can be configured about a chunker, and which settings fit together.
Does not belong here: cutting (assets/chunks) and the identity of what is cut (chunk_config.py).

``ChunkerConfig`` is the union of all kinds, told apart by ``kind``; without ``kind`` a chunker is ``markdown``.
"""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, TypeAdapter, model_validator

from resources.config_base import Name, Strict

Unit = Literal["characters", "tokens"]
_Size = Annotated[int, Field(ge=16, le=8192, description="Largest chunk, in units.")]


class _Sized(Strict):
    """A chunker with a largest size; see ``count_tokens`` in assets/chunks/tokens.py for what a token is."""

    unit: Unit = "tokens"
    size: _Size = 200


class _Overlapping(_Sized):
    """A chunker whose chunks may begin before the end of the one before."""

    overlap: int = Field(default=0, ge=0, description="Overlap of neighbours, in units.")

    @model_validator(mode="after")
    def _overlap_below_size(self) -> "_Overlapping":
        if self.overlap >= self.size:
            raise ValueError(f"overlap {self.overlap} must be smaller than size {self.size}")
        return self


class MarkdownChunker(_Overlapping):
    """Headings, rules and code blocks first, then paragraphs, lines, words."""

    kind: Literal["markdown"] = "markdown"


class RecursiveChunker(_Overlapping):
    """Paragraphs, then lines, then words; knows nothing of headings."""

    kind: Literal["recursive"] = "recursive"


class FixedChunker(_Overlapping):
    """Windows of equal size; a cut falls between two tokens and nowhere else in particular."""

    kind: Literal["fixed"] = "fixed"


class SentenceChunker(_Sized):
    """As many whole sentences as fit."""

    kind: Literal["sentence"] = "sentence"
    overlap_sentences: int = Field(
        default=0, ge=0, le=20, description="Sentences of the chunk before that are repeated, as far as they fit."
    )


class LayoutChunker(_Sized):
    """Sections, then blocks: tables cut between rows only, lists and code blocks kept whole where they fit."""

    kind: Literal["layout"] = "layout"


class CodeChunker(_Sized):
    """Code cut between functions and classes; the prose around it is cut as by ``layout``."""

    kind: Literal["code"] = "code"
    text: Literal["auto", "code", "prose"] = Field(
        default="auto",
        description="What a text is outside of fenced blocks; auto: code when its lines look like code.",
    )


class SemanticChunker(_Sized):
    """Cut where the meaning of neighbouring sentences differs most."""

    kind: Literal["semantic"] = "semantic"
    minimum: int = Field(default=40, ge=1, description="Smallest chunk, in units, where the text allows it.")
    window: int = Field(default=3, ge=1, le=20, description="Sentences on either side of a cut that are compared.")
    percentile: float = Field(
        default=80.0, ge=0, le=100, description="Cut where the distance is at least this percentile of the text's."
    )
    embedder: Name = Field(default="lexical", description="Name of an embedding model in models.yaml.")

    @model_validator(mode="after")
    def _minimum_well_below_size(self) -> "SemanticChunker":
        if 2 * self.minimum > self.size:
            raise ValueError(f"minimum {self.minimum} must be at most half of size {self.size}")
        return self


class CustomChunker(_Sized):
    """A function of yours, found by its name among the entry points ``genaiops.chunkers``."""

    kind: Literal["custom"] = "custom"
    function: str = Field(min_length=1, max_length=200, description="Name of the entry point.")
    parameters: dict[str, Any] = Field(default={}, description="Handed to the function as they are.")
    partial: bool = Field(default=False, description="The function may leave out parts of a text.")


def _kind(value: Any) -> str:
    """The kind of raw configuration or of a model; an unknown or missing one is for the union to judge."""
    return str(value.get("kind", "markdown") if isinstance(value, dict) else getattr(value, "kind", "markdown"))


_Flat = (
    Annotated[MarkdownChunker, Tag("markdown")]
    | Annotated[RecursiveChunker, Tag("recursive")]
    | Annotated[FixedChunker, Tag("fixed")]
    | Annotated[SentenceChunker, Tag("sentence")]
    | Annotated[LayoutChunker, Tag("layout")]
    | Annotated[CodeChunker, Tag("code")]
    | Annotated[SemanticChunker, Tag("semantic")]
    | Annotated[CustomChunker, Tag("custom")]
)
#: A chunker that cuts a text by itself.
FlatChunker = Annotated[_Flat, Discriminator(_kind)]


class ParentChildChunker(Strict):
    """Small chunks to search, each inside a larger parent to read."""

    kind: Literal["parent_child"] = "parent_child"
    parent: FlatChunker = Field(default=LayoutChunker(size=800), description="Cuts the text into parents.")
    child: FlatChunker = Field(default=SentenceChunker(size=120), description="Cuts each parent into chunks.")

    @model_validator(mode="after")
    def _nested(self) -> "ParentChildChunker":
        for role, item in (("parent", self.parent), ("child", self.child)):
            if isinstance(item, CustomChunker) and item.partial:
                raise ValueError(f"{role}.partial must be false: parents and children cover the whole text")
        if getattr(self.parent, "overlap", 0) or getattr(self.parent, "overlap_sentences", 0):
            raise ValueError("parent: parents must not overlap, or their children would be there twice")
        if self.parent.unit == self.child.unit and self.child.size >= self.parent.size:
            raise ValueError(f"child.size {self.child.size} must be smaller than parent.size {self.parent.size}")
        return self

    @property
    def unit(self) -> Unit:
        """Unit of the chunks."""
        return self.child.unit

    @property
    def size(self) -> int:
        """Largest chunk, in units."""
        return self.child.size


#: How a document text is cut into chunks; every chunk is an exact character range.
ChunkerConfig = Annotated[_Flat | Annotated[ParentChildChunker, Tag("parent_child")], Discriminator(_kind)]

_ADAPTER: TypeAdapter[ChunkerConfig] = TypeAdapter(ChunkerConfig)


def chunker_config(**values: Any) -> ChunkerConfig:
    """Validate the keys of one ``chunker:``.

    Raises:
        pydantic.ValidationError: naming the key and what is allowed.
    """
    return _ADAPTER.validate_python(values)


def embedders_of(config: ChunkerConfig) -> list[tuple[str, str]]:
    """The embedding models that cutting needs, as (key below ``chunker``, name)."""
    items = [(f"{role}.", getattr(config, role)) for role in ("parent", "child") if hasattr(config, role)]
    return [
        (f"{prefix}embedder", item.embedder)
        for prefix, item in items or [("", config)]
        if isinstance(item, SemanticChunker)
    ]


def without_models(config: ChunkerConfig) -> ChunkerConfig:
    """A chunker that makes about as many chunks and asks no model: what a cost preview cuts with."""
    if isinstance(config, SemanticChunker):
        return SentenceChunker(unit=config.unit, size=max(16, (config.minimum + config.size) // 2))
    if isinstance(config, ParentChildChunker):
        child, parent = without_models(config.child), without_models(config.parent)
        return config.model_copy(update={"child": child, "parent": parent})
    return config


def is_partial(config: ChunkerConfig) -> bool:
    """Whether chunks may leave out parts of a text."""
    return isinstance(config, CustomChunker) and config.partial
