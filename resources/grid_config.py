"""Grid configuration: the axes of ``experiments/*.yaml`` that span the variants.

Belongs here: the shape of each axis, one point of the grid and its readable name, references to other files.
Does not belong here: the rest of an experiment file (experiment_config.py), and making a variant of a point (variants.py).
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from resources.config_base import Grown, Name, SearchMode, Strict
from resources.config_reader import check_reference
from resources.errors import ConfigError
from resources.fingerprint import fingerprint
from resources.index_config import (
    ExpandConfig,
    FusionConfig,
    MmrConfig,
    RerankConfig,
    RetrievalConfig,
    TranslateConfig,
)
from resources.index_patches import IndexAxes, IndexEntry
from resources.prompt_config import PromptReference, check_parameters, names_label, split_reference

if TYPE_CHECKING:
    from resources.config import ProjectConfig

Passages = Annotated[int, Field(ge=1, le=100)]


class RetrievalPatch(Strict):
    """What one variant does otherwise between question and passages; what is not named stays as the index has it.

    A key replaces the whole of the index's key of that name (docs/search.md). ``mmr: none`` turns diversity off.
    """

    name: Name
    candidates: int | None = Field(default=None, ge=1, le=1000)
    fusion: FusionConfig | None = None
    translate: TranslateConfig | None = None
    rerank: RerankConfig | None = None
    mmr: MmrConfig | Literal["none"] | None = None
    expand: ExpandConfig | None = None
    deduplicate: bool | None = None
    ef_search: int | None = Field(default=None, ge=1, le=1000, description="Breadth of the graph search.")

    @property
    def changes_nothing(self) -> bool:
        """Whether the index's own retrieval stays as it is."""
        return self == RetrievalPatch(name=self.name)

    def apply(self, settings: RetrievalConfig) -> RetrievalConfig:
        """The index's settings with what this patch names in place of theirs."""
        named = {key: value for key in RetrievalConfig.model_fields if (value := getattr(self, key)) is not None}
        if self.mmr == "none":
            named["mmr"] = None
        return settings.model_copy(update=named)


class FilterConfig(Strict):
    """Which documents a variant searches; all conditions that are given must hold.

    Access labels are not among them: they are the caller's, and a variant can only narrow what a caller may see.
    """

    name: Name
    sources: list[Name] | None = Field(default=None, min_length=1)
    languages: list[str] | None = Field(default=None, min_length=1)
    licences: list[str] | None = Field(default=None, min_length=1)
    media_types: list[str] | None = Field(default=None, min_length=1)
    path_prefix: str | None = Field(default=None, min_length=1)
    title: str | None = Field(default=None, min_length=1, description="Part of the title, whatever the case.")
    metadata: dict[str, Any] | None = Field(default=None, min_length=1)

    @property
    def changes_nothing(self) -> bool:
        """Whether everything is searched."""
        return self == FilterConfig(name=self.name)


class ContextConfig(Strict):
    """What of the passages, and which worked examples, the model is shown.

    Attributes:
        max_tokens: most tokens of passages and drawn examples together, by our own count (offline_text.count_tokens);
            instructions, question and examples written into the prompt come on top.
        order: in which passages stand: best first, best last, best at both edges, or as in their documents.
        compression: ``none``: whole passages as long as they fit; ``sentences``: of all passages the sentences that
            share most with the question, as many as fit; ``deduplicate``: without sentences a better passage has.
        examples: worked examples drawn from the train questions of the experiment's dataset.
        select: the same ones for every question, or those whose questions are most alike.
        example_share: most of ``max_tokens`` they may take; what they leave goes to passages.
    """

    name: Name = "all"
    max_tokens: int | None = Field(default=None, ge=16, le=1_000_000)
    order: Literal["best_first", "best_last", "edges", "document"] = "best_first"
    compression: Literal["none", "sentences", "deduplicate"] = "none"
    examples: int = Field(default=0, ge=0, le=32)
    select: Literal["fixed", "similar"] = "fixed"
    example_share: float = Field(default=0.3, gt=0, lt=1)

    @property
    def changes_nothing(self) -> bool:
        """Whether every passage is shown whole, best first, without drawn examples."""
        return self == ContextConfig(name=self.name)

    @model_validator(mode="after")
    def _consistent(self) -> "ContextConfig":
        if self.compression == "sentences" and self.max_tokens is None:
            raise ValueError("compression: sentences needs max_tokens, the budget to compress to")
        if self.select == "similar" and not self.examples:
            raise ValueError("select: similar needs examples, the number of examples to draw")
        return self


#: Short forms of frequent parameters in the name of a variant.
_SHORT = {"temperature": "t", "top_p": "p", "max_tokens": "max", "max_completion_tokens": "max"}


class ModelChoice(Strict):
    """A chat model with parameters of its own."""

    name: Name = Field(description="Name of a chat model in models.yaml.")
    parameters: dict[str, Any] = Field(min_length=1, description="Sent with every request of the variant.")
    label: Name | None = Field(default=None, description="How the name of the variant calls the parameters.")

    @field_validator("parameters")
    @classmethod
    def _parameters(cls, value: dict[str, Any]) -> dict[str, Any]:
        return check_parameters(value)

    @property
    def short(self) -> str:
        """The parameters in few characters, for the name of a variant."""
        if self.label:
            return self.label
        return "-".join(_short(key, value) for key, value in self.parameters.items())


def _short(key: str, value: Any) -> str:
    key = _SHORT.get(key, key)
    written = str(value).lower()
    if isinstance(value, str | int | float) and re.fullmatch(r"[\w.-]{1,20}", written):
        return (
            f"{key}{written}" if isinstance(value, int | float) and not isinstance(value, bool) else f"{key}={written}"
        )
    return f"{key}~{fingerprint(value)[:4]}"


class VariantChoice(Grown):
    """One point of the grid; patches go by their names, None for none.

    A task without documents has neither index nor search mode nor k.
    """

    LATER: ClassVar[tuple[str, ...]] = ("retrieval", "filters", "context", "index", "search_mode", "k")

    index: Name | None = None
    prompt: PromptReference
    search_mode: SearchMode | None = None
    k: Passages | None = None
    model: Name | ModelChoice
    retrieval: Name | None = None
    filters: Name | None = None
    context: Name | None = None

    @model_validator(mode="after")
    def _searches_or_not(self) -> "VariantChoice":
        _all_or_none({"index": self.index, "search_mode": self.search_mode, "k": self.k})
        return self

    @property
    def model_name(self) -> str:
        """The chat model, without parameters."""
        return self.model if isinstance(self.model, str) else self.model.name

    @property
    def name(self) -> str:
        """``index/prompt/search mode/k/model``, and what differs from the index's and the model's own settings.

        ``prompt/model`` where nothing is searched.
        """
        own = self.model.short if isinstance(self.model, ModelChoice) else None
        extra = "".join(f"+{part}" for part in (self.retrieval, self.filters, self.context, own) if part)
        if self.index is None:
            return f"{self.prompt}/{self.model_name}{extra}"
        return f"{self.index}/{self.prompt}/{self.search_mode}/k{self.k}/{self.model_name}{extra}"


def _all_or_none(searching: Mapping[str, Any]) -> None:
    """Refuse half of a search setting.

    Raises:
        ValueError: naming what is missing.
    """
    missing = [key for key, value in searching.items() if not value]
    if missing and len(missing) < len(searching):
        raise ValueError(
            f"{', '.join(missing)} is missing; give {', '.join(searching)} to search an index, or none of them for a task "
            "without documents"
        )


class VariantGrid(Grown):
    """The axes an experiment spans; every combination is one variant.

    An entry of ``retrieval``, ``filters`` or ``context`` that has only a name stands for "as it is without". A task without
    documents has neither index nor search mode nor k.
    """

    LATER: ClassVar[tuple[str, ...]] = ("retrieval", "filters", "context", "index_axes")
    PATCHES: ClassVar[tuple[str, ...]] = ("retrieval", "filters", "context")

    index: list[IndexEntry] = Field(default=[], description="Names; when a file is read, patches become names, too.")
    index_axes: IndexAxes | None = Field(default=None, description="Further indexes, every combination; also resolved.")
    prompt: list[PromptReference] = Field(min_length=1)
    search_mode: list[SearchMode] = Field(default=[])
    k: list[Passages] = Field(default=[])
    model: list[Name | ModelChoice] = Field(min_length=1)
    retrieval: list[RetrievalPatch] = Field(default=[])
    filters: list[FilterConfig] = Field(default=[])
    context: list[ContextConfig] = Field(default=[])

    @model_validator(mode="after")
    def _names_differ(self) -> "VariantGrid":
        # parameters of two models are told apart by the models' names
        shorts = [f"{one.name}+{one.short}" for one in self.model if isinstance(one, ModelChoice)]
        named = [patch.name for axis in self.PATCHES for patch in getattr(self, axis) if not patch.changes_nothing]
        labels = [one.label for one in self.model if isinstance(one, ModelChoice) and one.label]
        for names, remedy in ((shorts, "give them a label"), ([*named, *labels], "rename one")):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(
                    f"several entries would be called {', '.join(twice)} in the names of variants; {remedy}"
                )
        for axis in self.PATCHES:
            plain = [patch.name for patch in getattr(self, axis) if patch.changes_nothing]
            if len(plain) > 1:
                raise ValueError(f"{axis}: {', '.join(plain)} all change nothing; keep one")
        return self

    @model_validator(mode="after")
    def _searches_or_not(self) -> "VariantGrid":
        _all_or_none({"index": self.index or self.index_axes, "search_mode": self.search_mode, "k": self.k})
        return self

    @property
    def derives(self) -> bool:
        """Whether it varies what an index is made of, so that its indexes have no names yet (index_patches.py)."""
        return self.index_axes is not None or any(not isinstance(entry, str) for entry in self.index)

    @property
    def index_names(self) -> list[str]:
        """The indexes, each once; without those that have no name yet."""
        return list(dict.fromkeys(entry for entry in self.index if isinstance(entry, str)))

    @property
    def searches(self) -> bool:
        """Whether its variants search an index; those of a task without documents do not."""
        return bool(self.search_mode)

    def choices(self) -> Iterator[VariantChoice]:
        """Every combination, in the order of the file; a value named twice counts once."""
        axes: dict[str, Iterable[Any]] = {
            "index": self.index_names or [None],
            "prompt": dict.fromkeys(self.prompt),
            "search_mode": dict.fromkeys(self.search_mode or [None]),
            "k": dict.fromkeys(self.k or [None]),
            **{axis: self.options(axis) for axis in self.PATCHES},
            "model": {_canonical(model): model for model in self.model}.values(),
        }
        for point in product(*axes.values()):
            yield VariantChoice.model_validate(dict(zip(axes, point, strict=True)))

    def options(self, axis: str) -> list[str | None]:
        """The values of an axis of patches: their names, None for the one that changes nothing."""
        return [None if patch.changes_nothing else patch.name for patch in getattr(self, axis)] or [None]

    def normal(self, choice: VariantChoice) -> VariantChoice:
        """The choice with None in place of the name of a patch that changes nothing."""
        plain = {
            axis: None
            for axis in self.PATCHES
            for patch in getattr(self, axis)
            if patch.changes_nothing and patch.name == getattr(choice, axis)
        }
        return choice.model_copy(update=plain)

    def check_choice(self, choice: VariantChoice, key: str) -> None:
        """Make sure that a choice is a point of this grid.

        Raises:
            ValueError: naming the axis and what it allows.
        """
        choice = self.normal(choice)
        for axis in ("index", "prompt", "search_mode", "k", "model"):
            value, allowed = getattr(choice, axis), getattr(self, axis)
            if value not in (allowed or [None]):
                raise ValueError(f"{key}.{axis} is {value!r}, which is not in grid.{axis} {allowed}")
        for axis in self.PATCHES:
            value, allowed = getattr(choice, axis), self.options(axis)
            if value not in allowed:
                names = [patch.name for patch in getattr(self, axis)]
                raise ValueError(
                    f"{key}.{axis} is {value!r}, which is not in grid.{axis}; it has {', '.join(names) or 'none'}"
                )

    def patch(self, axis: Literal["retrieval", "filters", "context"], name: str | None) -> Any:
        """The entry of that name.

        Raises:
            KeyError: there is none.
        """
        if name is None:
            return None
        return {patch.name: patch for patch in getattr(self, axis)}[name]

    @property
    def model_names(self) -> list[str]:
        """The chat models, without parameters, each once."""
        return list(dict.fromkeys(model if isinstance(model, str) else model.name for model in self.model))


def _canonical(model: "str | ModelChoice") -> str:
    """A key two equal choices of a model share."""
    return model if isinstance(model, str) else fingerprint(model.model_dump(mode="json"))


def check_grid(path: Path, grid: VariantGrid, baseline: VariantChoice, config: "ProjectConfig") -> None:
    """Check everything a grid refers to in other files.

    Raises:
        ConfigError: naming the file, the key, what is allowed and the nearest valid name.
    """
    chat = [model.name for model in config.models.chat]
    for index in grid.index_names:
        check_reference(path, "grid.index", index, config.indexes, "index")
    for reference in grid.prompt:
        if split_reference(reference)[1] is None:  # versions are looked up when the experiment runs
            check_reference(path, "grid.prompt", reference, config.prompts, "prompt")
    if names_label(baseline.prompt):
        raise ConfigError(
            f"{path}: baseline.prompt: {baseline.prompt!r} follows a label, and moving a label must not change who "
            "answers; name the prompt's file, or a version by its number"
        )
    for model in grid.model_names:
        check_reference(path, "grid.model", model, chat, "chat model of models.yaml")
    rerankers = [model.name for model in config.models.rerank]
    for patch in grid.retrieval:
        merged = patch.apply(RetrievalConfig())
        where = f"grid.retrieval.{patch.name}"
        for key, model in merged.chat_models():
            check_reference(path, f"{where}.{key}", model, chat, "chat model of models.yaml")
        if merged.rerank.kind == "cross_encoder":
            check_reference(
                path, f"{where}.rerank.model", str(merged.rerank.model), rerankers, "rerank model of models.yaml"
            )
    for one in grid.filters:
        for source in one.sources or ():
            check_reference(
                path, f"grid.filters.{one.name}.sources", source, config.source_names, "source of sources.yaml"
            )
    for context in grid.context:
        for reference in grid.prompt if context.examples else ():
            prompt = config.prompts.get(reference)
            if prompt is not None and not prompt.shows_examples:
                raise ConfigError(
                    f"{path}: grid.context.{context.name}.examples: the templates of prompt {reference!r} never use "
                    "'examples', so the model would not see them"
                )
