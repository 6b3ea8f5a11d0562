"""Derived indexes: what ``grid.index`` and ``grid.index_axes`` of ``experiments/*.yaml`` may vary of an index.

Belongs here: the shape of a patch, the indexes that patches stand for, and their names.
Does not belong here: the other axes of a grid (grid_config.py) and building an index (assets/index).

A derived index is an index like any other: it is refreshed, gated, published, erased from and retired as one. Equal
settings are one index, whichever experiments name them, and settings that an index of ``indexes/`` has already are that
index itself.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, ValidationError, model_validator

from resources.chunker_config import ChunkerConfig
from resources.config_base import Name, Strict
from resources.config_reader import check_reference
from resources.errors import ConfigError
from resources.fingerprint import fingerprint
from resources.index_config import EnrichmentConfig, HnswConfig, IndexConfig

#: Longest name of an index (config_base.Name).
MAXIMUM_NAME = 63
Label = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")]
TextSearch = Annotated[str, Field(min_length=1)]


class HnswPatch(Strict):
    """What is another graph; keys that are not named stay as the base has them."""

    m: int | None = Field(default=None, ge=2, le=100)
    ef_construction: int | None = Field(default=None, ge=4, le=1000)
    exact_below: int | None = Field(default=None, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _breadth_is_no_graph(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and "ef_search" in value:
            raise ValueError(
                "ef_search changes no row of an index, so that none has to be built for it; vary it in grid.retrieval: "
                "{name: wide, ef_search: 200}"
            )
        return value


class IndexPatch(Strict):
    """An index as another one but for the keys named; a key replaces the whole of the base's, ``hnsw`` by its own keys."""

    base: Name = Field(description="An index of indexes/.")
    label: Label | None = Field(default=None, description="The index is called BASE--LABEL; by default BASE--HASH.")
    chunker: ChunkerConfig | None = None
    enrichment: EnrichmentConfig | None = None
    embedder: Name | None = Field(default=None, description="Name of an embedding model in models.yaml.")
    vector_type: Literal["vector", "halfvec"] | None = None
    distance: Literal["cosine", "inner_product", "l2"] | None = None
    text_search: TextSearch | None = None
    hnsw: HnswPatch | None = None

    def apply(self, base: IndexConfig) -> IndexConfig:
        """The base with what this patch names in place of its own.

        Raises:
            ValidationError: the two do not go together.
        """
        named = {key: value for key in AXES if key != "hnsw" and (value := getattr(self, key)) is not None}
        if self.hnsw is not None:
            own = {key: value for key, value in self.hnsw.model_dump().items() if value is not None}
            named["hnsw"] = HnswConfig.model_validate({**base.hnsw.model_dump(), **own})
        return base.model_copy(update=named)


#: What may be varied, in the order of ``index_axes``.
AXES = ("chunker", "enrichment", "embedder", "vector_type", "distance", "text_search", "hnsw")


class IndexAxes(Strict):
    """Every combination of these values; an axis that is not named stays as the base has it."""

    base: Name = Field(description="An index of indexes/.")
    chunker: list[ChunkerConfig] = Field(default=[])
    enrichment: list[EnrichmentConfig] = Field(default=[])
    embedder: list[Name] = Field(default=[])
    vector_type: list[Literal["vector", "halfvec"]] = Field(default=[])
    distance: list[Literal["cosine", "inner_product", "l2"]] = Field(default=[])
    text_search: list[TextSearch] = Field(default=[])
    hnsw: list[HnswPatch] = Field(default=[])

    @model_validator(mode="after")
    def _says_something(self) -> "IndexAxes":
        if not any(getattr(self, axis) for axis in AXES):
            raise ValueError(f"name at least one of {', '.join(AXES)}")
        return self

    def patches(self) -> list[IndexPatch]:
        """One patch a combination, in the order of the file."""
        axes = [axis for axis in AXES if getattr(self, axis)]
        return [
            IndexPatch(base=self.base, **dict(zip(axes, point, strict=True)))
            for point in product(*(getattr(self, axis) for axis in axes))
        ]


def _kind(value: Any) -> str:
    return "patch" if isinstance(value, Mapping | IndexPatch) else "name"


#: An entry of ``grid.index``: the name of an index, or a patch of one.
IndexEntry = Annotated[Annotated[Name, Tag("name")] | Annotated[IndexPatch, Tag("patch")], Discriminator(_kind)]


@dataclass(frozen=True)
class Wish:
    """One patch of one experiment.

    Attributes:
        key: where it stands in the file.
        explicit: whether the file names it, rather than a combination of axes.
    """

    path: Path
    key: str
    patch: IndexPatch
    explicit: bool


def wishes(path: Path, entries: Sequence[str | IndexPatch], axes: IndexAxes | None) -> list[Wish | str]:
    """The entries of a grid in their order, the combinations of the axes last; a name stands for itself."""
    found: list[Wish | str] = []
    for number, entry in enumerate(entries):
        found.append(entry if isinstance(entry, str) else Wish(path, f"grid.index.{number}", entry, True))
    found += [Wish(path, "grid.index_axes", patch, False) for patch in (axes.patches() if axes else ())]
    return found


class DerivedIndexes:
    """The indexes that patches stand for.

    Args:
        configured: the indexes of ``indexes/``.

    Raises:
        ConfigError: a base does not exist, a patch changes nothing or does not fit its base, or a name would stand for two
            indexes; naming file, key and remedy.
    """

    def __init__(self, configured: Mapping[str, IndexConfig], wanted: Iterable[Wish]) -> None:
        self._configured = configured
        self._same = {}
        for name in sorted(configured, reverse=True):
            self._same[_settings(configured[name])] = name
        resolved = [(wish, self._apply(wish)) for wish in wanted]
        labels = self._labels(resolved)
        self._named: dict[str, str] = dict(self._same)
        self.indexes: dict[str, IndexConfig] = {}
        self.origin: dict[str, Wish] = {}
        for wish, index in sorted(resolved, key=lambda one: (one[0].patch.base, str(one[0].path), one[0].key)):
            settings = _settings(index)
            if settings in self._named:
                continue
            changes = _changes(configured[wish.patch.base], index)
            label = labels.get(settings)
            name = _name(wish.patch.base, label or fingerprint([wish.patch.base, changes])[:8])
            self._refuse_taken(name, wish)
            self._named[settings] = name
            self.origin[name] = wish
            self.indexes[name] = index.model_copy(update={"name": name, "description": _describe(wish, changes)})

    def name_of(self, wish: Wish) -> str:
        """What the index of a patch is called."""
        return self._named[_settings(wish.patch.apply(self._configured[wish.patch.base]))]

    def _apply(self, wish: Wish) -> IndexConfig:
        patch = wish.patch
        check_reference(wish.path, f"{wish.key}.base", patch.base, self._configured, "index of indexes/")
        base = self._configured[patch.base]
        try:
            index = patch.apply(base)
        except ValidationError as error:
            told = "; ".join(detail["msg"].removeprefix("Value error, ") for detail in error.errors())
            raise ConfigError(f"{wish.path}: {wish.key}.hnsw: with the rest of index {base.name!r}: {told}") from error
        changes = _changes(base, index)
        if not changes and wish.explicit:
            raise ConfigError(
                f"{wish.path}: {wish.key}: changes nothing of index {base.name!r}; write {base.name} itself"
            )
        if changes == {"hnsw": {"exact_below": index.hnsw.exact_below}}:
            raise ConfigError(
                f"{wish.path}: {wish.key}.hnsw.exact_below: alone it changes no row of index {base.name!r}, so that no index "
                f"has to be built for it; set it in indexes/{base.name}.yaml"
            )
        return index

    def _labels(self, resolved: Sequence[tuple[Wish, IndexConfig]]) -> dict[str, str]:
        """The label of each settings that has one."""
        found: dict[str, Wish] = {}
        for wish, index in resolved:
            if wish.patch.label is None:
                continue
            settings = _settings(index)
            if self._same.get(settings) == _name(wish.patch.base, wish.patch.label):
                continue  # it was given a file of its own (``index_file``)
            if settings in self._same:
                raise ConfigError(
                    f"{wish.path}: {wish.key}: these are the settings of index {self._same[settings]!r}; write "
                    f"{self._same[settings]} itself"
                )
            first = found.setdefault(settings, wish)
            if first.patch.label != wish.patch.label:
                raise ConfigError(
                    f"{wish.path}: {wish.key}.label: the same settings are called {first.patch.label!r} in {first.path} "
                    f"({first.key}) and {wish.patch.label!r} here, and equal settings are one index; use one label"
                )
        return {settings: str(wish.patch.label) for settings, wish in found.items()}

    def _refuse_taken(self, name: str, wish: Wish) -> None:
        if name in self._configured:
            raise ConfigError(
                f"{wish.path}: {wish.key}: would be called {name!r}, as an index of indexes/ is; give it another label"
            )
        if name in self.origin:
            other = self.origin[name]
            raise ConfigError(
                f"{wish.path}: {wish.key}: would be called {name!r}, as other settings in {other.path} ({other.key}) are; "
                "give it another label"
            )


def index_file(index: IndexConfig) -> str:
    """The YAML that makes an index, such as a derived one, an index of ``indexes/`` with the same name and settings."""
    import yaml

    told = {key for key, field in IndexConfig.model_fields.items() if getattr(index, key) != field.default}
    written = index.model_dump(mode="json", include=told)
    return yaml.safe_dump(written, sort_keys=False, allow_unicode=True, width=120)


def _settings(index: IndexConfig) -> str:
    """Hash of all that two indexes differ in but for their names."""
    return fingerprint(index.model_dump(mode="json", exclude={"name", "description"}))


def _changes(base: IndexConfig, index: IndexConfig) -> dict[str, Any]:
    """The keys in which an index differs from its base, with its own values.

    They alone decide the name, so that an edit of the base leaves the names of what is derived from it.
    """
    mine, theirs = index.model_dump(mode="json"), base.model_dump(mode="json")
    changes = {key: mine[key] for key in AXES if mine[key] != theirs[key]}
    if "hnsw" in changes:
        changes["hnsw"] = {key: value for key, value in mine["hnsw"].items() if value != theirs["hnsw"][key]}
    return changes


def _name(base: str, suffix: str) -> str:
    return f"{base[: MAXIMUM_NAME - 2 - len(suffix)]}--{suffix}"


def _describe(wish: Wish, changes: Mapping[str, Any]) -> str:
    told = "; ".join(f"{key} {json.dumps(value, ensure_ascii=False)}" for key, value in changes.items())
    return f"{wish.patch.base} with {told}"
