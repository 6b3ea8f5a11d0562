"""Variants: complete answerer configurations.

Belongs here: what a variant is and what its fingerprint covers, making one of a point of a grid, and restoring one that is
only on record. Does not belong here: answering (answerer.py), expanding a grid and recording variants
(assets/experiments/variants.py).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from psycopg.types.json import Jsonb
from pydantic import ValidationError

from resources import context as contexts
from resources.config import ProjectConfig
from resources.erased_documents import erased_among
from resources.errors import GenaiopsError, PermanentError
from resources.fingerprint import fingerprint
from resources.grid_config import (
    ContextConfig,
    FilterConfig,
    ModelChoice,
    RetrievalPatch,
    VariantChoice,
    VariantGrid,
)
from resources.index_config import RetrievalConfig
from resources.models import Models
from resources.postgres import Connection
from resources.prompt_config import FewShot, PromptConfig
from resources.prompt_store import examples_fingerprint, prompt_fingerprint
from resources.task_config import TaskSpec, misfit

if TYPE_CHECKING:
    from resources.vector_index import SearchFilter

#: Covers how passages are numbered and answers are read; part of every variant fingerprint.
CODE_VERSION = "1"
#: Covers how the steps of a chain are asked and what they hand on; part of the fingerprint of variants with a chain.
CHAIN_VERSION = "1"
#: Covers how an input is shown and an answer is kept; part of the fingerprint of variants for tasks without documents.
TASK_VERSION = "1"

#: The prompt a reference such as ``concise@3`` stands for.
Prompts = Callable[[str], PromptConfig]
#: The worked examples drawn for a context.
Examples = Callable[[ContextConfig], tuple[FewShot, ...]]


@dataclass(frozen=True)
class Variant:
    """A complete answerer configuration.

    Attributes:
        name: for people: ``index/prompt/search mode/k/model`` and what differs from their own settings; ``prompt/model``
            for a task without documents.
        ef_search: breadth of the graph search; below ``exact_below`` rows search is exact.
        retrieval: the steps between question and passages, with the weights of the fusion written out.
        retrieval_fingerprint: of these steps with their prompts and models (retrieval.py).
        filters: what is searched; None: everything the caller may see.
        context: what of the passages is shown, and how many drawn examples.
        parameters: of the model, for every request of this variant; they win over the prompt's and the model's.
        examples: the worked examples the shown ones are drawn from; empty when the context draws none.
        task: of a dataset without documents; such a variant searches nothing: ``index`` and ``search_mode`` are empty and
            ``k`` is 0.
    """

    name: str
    index: str
    index_fingerprint: str
    prompt: PromptConfig
    search_mode: str
    k: int
    model: str
    model_fingerprint: str
    ef_search: int | str = 0
    exact_below: int = 0
    retrieval: RetrievalConfig = field(default_factory=RetrievalConfig)
    retrieval_fingerprint: str = ""
    filters: FilterConfig | None = None
    context: ContextConfig = field(default_factory=ContextConfig)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    examples: tuple[FewShot, ...] = ()
    task: TaskSpec | None = None

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything that can change an answer, and of the names of index, prompt and model."""
        return fingerprint(
            {
                "code": CODE_VERSION,
                "index": self.index,
                "index_fingerprint": self.index_fingerprint,
                "ef_search": self.ef_search,
                "exact_below": self.exact_below,
                "prompt": prompt_fingerprint(self.prompt),
                "search_mode": self.search_mode,
                "k": self.k,
                "model": self.model,
                "model_fingerprint": self.model_fingerprint,
                "retrieval": self.retrieval_fingerprint,
                **self._filtering,
                **self._showing,
            }
        )

    @cached_property
    def searching(self) -> str:
        """Hash of everything that can change what is retrieved: variants that share it search once."""
        return fingerprint(
            {
                "index": self.index,
                "index_fingerprint": self.index_fingerprint,
                "mode": self.search_mode,
                "k": self.k,
                "graph": [self.ef_search, self.exact_below],
                "steps": self.retrieval_fingerprint,
                **self._filtering,
            }
        )

    @cached_property
    def answering(self) -> str:
        """Hash of everything that can change the answer to what was retrieved."""
        return fingerprint(
            {"prompt": prompt_fingerprint(self.prompt), "model": self.model_fingerprint, **self._showing}
        )

    # Settings at their defaults are left out, so that fingerprints from before they existed stay as they were. Names of
    # patches are left out too: they change nothing.
    @property
    def _filtering(self) -> dict[str, Any]:
        filters = self.filters
        return {} if filters is None else {"filters": filters.model_dump(mode="json", exclude={"name"})}

    @property
    def _showing(self) -> dict[str, Any]:
        shown: dict[str, Any] = {}
        if not self.context.changes_nothing:
            settings = self.context.model_dump(mode="json", exclude={"name"})
            shown["context"] = [contexts.CODE_VERSION, settings]
        if self.parameters:
            shown["parameters"] = dict(self.parameters)
        if self.examples:
            shown["examples"] = examples_fingerprint(self.examples)
        if self.prompt.chain:
            shown["chain"] = CHAIN_VERSION
        if self.task is not None:
            shown["task"] = [TASK_VERSION, self.task.model_dump(mode="json")]
        return shown

    @property
    def prompt_reference(self) -> str:
        """How the grid names the prompt: ``concise``, ``concise@3`` or ``concise@production``."""
        return self.name.split("/")[1 if self.task is None else 0]

    @property
    def request_parameters(self) -> dict[str, Any] | None:
        """Parameters beside those of models.yaml: the prompt's, and over them the variant's own."""
        return {**self.prompt.parameters, **self.parameters} or None

    @property
    def search_options(self) -> dict[str, Any]:
        """What a search is told beside mode, k and retrieval settings; nothing when all is as the index has it."""
        options: dict[str, Any] = {"filters": search_filter(self.filters)} if self.filters is not None else {}
        return options | ({"ef_search": self.ef_search} if isinstance(self.ef_search, int) and self.ef_search else {})

    def to_json(self) -> dict[str, Any]:
        """The configuration as a JSON object, with its fingerprint; settings at their defaults are left out."""
        return {
            "name": self.name,
            "fingerprint": self.fingerprint,
            "index": self.index,
            "index_fingerprint": self.index_fingerprint,
            "ef_search": self.ef_search,
            "exact_below": self.exact_below,
            "prompt": self.prompt.model_dump(mode="json"),
            "search_mode": self.search_mode,
            "k": self.k,
            "model": self.model,
            "model_fingerprint": self.model_fingerprint,
            "retrieval": self.retrieval.model_dump(mode="json"),
            "retrieval_fingerprint": self.retrieval_fingerprint,
            **({"filters": self.filters.model_dump(mode="json")} if self.filters is not None else {}),
            **({"context": self.context.model_dump(mode="json")} if not self.context.changes_nothing else {}),
            **({"parameters": dict(self.parameters)} if self.parameters else {}),
            **({"examples": [example.model_dump(mode="json") for example in self.examples]} if self.examples else {}),
            **({"task": self.task.model_dump(mode="json")} if self.task is not None else {}),
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "Variant":
        """The variant ``to_json`` wrote; what is missing has its default.

        Raises:
            ValidationError, TypeError, KeyError: it was written by another version of the code.
        """
        settings = dict(stored)
        settings.pop("fingerprint", None)
        readers: dict[str, Callable[[Any], Any]] = {
            "prompt": PromptConfig.model_validate,
            "retrieval": RetrievalConfig.model_validate,
            "filters": FilterConfig.model_validate,
            "context": ContextConfig.model_validate,
            "examples": lambda examples: tuple(map(FewShot.model_validate, examples)),
            "task": TaskSpec.model_validate,
        }
        return cls(**settings | {key: read(settings[key]) for key, read in readers.items() if key in settings})


def search_filter(filters: FilterConfig | None) -> "SearchFilter":
    """The conditions as a search takes them."""
    from resources.vector_index import SearchFilter

    if filters is None:
        return SearchFilter()

    def several(names: list[str] | None) -> tuple[str, ...] | None:
        return None if names is None else tuple(names)

    metadata = filters.metadata
    return SearchFilter(
        sources=several(filters.sources),
        languages=several(filters.languages),
        licences=several(filters.licences),
        media_types=several(filters.media_types),
        path_prefix=filters.path_prefix,
        title=filters.title,
        metadata=None if metadata is None else tuple(sorted(metadata.items())),
    )


def narrowed(filters: FilterConfig | None, caller: "SearchFilter | None") -> "SearchFilter | None":
    """What both a variant and its caller allow; a variant never widens what the caller may see.

    Raises:
        PermanentError: both ask for a part of the title, and neither part holds the other.
    """
    from resources.sharding import source_of

    if filters is None:
        return caller
    own = search_filter(filters)
    if caller is None:
        return own
    changed: dict[str, Any] = {}
    for key in ("languages", "licences", "media_types"):
        mine, theirs = getattr(own, key), getattr(caller, key)
        if mine is not None:
            changed[key] = mine if theirs is None else tuple(value for value in mine if value in theirs)
    if own.sources is not None:
        changed["sources"] = own.sources
        if caller.sources is not None:  # the name of a source stands for all of its shards
            both = [*own.sources, *caller.sources]
            covered = [
                name
                for name in dict.fromkeys(both)
                if all(name in names or source_of(name) in names for names in (own.sources, caller.sources))
            ]
            changed["sources"] = tuple(covered)
    for key in ("path_prefix", "title"):
        mine, theirs = getattr(own, key), getattr(caller, key)
        if mine is None or theirs is None:
            changed[key] = theirs if mine is None else mine
            continue
        one, other = (mine, theirs) if key == "path_prefix" else (mine.casefold(), theirs.casefold())
        joined = one.startswith(other) if key == "path_prefix" else other in one
        backwards = other.startswith(one) if key == "path_prefix" else one in other
        if joined or backwards:
            changed[key] = mine if joined else theirs
        elif key == "path_prefix":
            changed["sources"] = ()  # no path begins with both
        else:
            raise PermanentError(f"the variant searches titles with {mine!r} only; leave the condition on titles out")
    if own.metadata is not None:
        pairs = [*own.metadata, *(caller.metadata or ())]
        values = dict(own.metadata)
        if any(key in values and values[key] != value for key, value in caller.metadata or ()):
            changed["sources"] = ()  # no document has two values
        changed["metadata"] = tuple(dict(pairs).items())
    return replace(caller, **changed)


def build_variant(
    config: ProjectConfig,
    models: Models,
    choice: VariantChoice,
    grid: VariantGrid | None = None,
    *,
    prompts: Prompts | None = None,
    examples: Examples | None = None,
    task: TaskSpec | None = None,
) -> Variant:
    """The variant a point of a grid stands for.

    Args:
        grid: holds the patches the choice names; not needed when it names none.
        prompts: finds versions of prompts; by default only the files of prompts/ are known.
        examples: draws worked examples; not needed when the context draws none.
        task: of a dataset without documents; None: the variant searches an index.

    Raises:
        PermanentError: a model's key is missing, or there is no such version of a prompt, or nothing to draw examples
            from, or the prompt or the choice is for another kind of task.
    """
    if grid is not None:
        choice = grid.normal(choice)
    context = (grid.patch("context", choice.context) if grid else None) or ContextConfig()
    prompt = config.prompts[choice.prompt] if prompts is None else prompts(choice.prompt)
    if context.examples and not prompt.shows_examples:
        raise PermanentError(
            f"{choice.name}: the templates of the prompt never use 'examples', so the model would not see those of "
            f"context {context.name}"
        )
    if context.examples and examples is None:
        raise PermanentError(f"{choice.name}: there is nothing to draw worked examples from")
    if problem := misfit(prompt.performs, task is not None, task.kind if task else "retrieved passages"):
        raise PermanentError(f"{choice.name}: the prompt {problem}")
    answering: dict[str, Any] = {
        "name": choice.name,
        "prompt": prompt,
        "model": choice.model_name,
        "model_fingerprint": models.chat(choice.model_name).fingerprint,
        "context": context,
        "parameters": choice.model.parameters if isinstance(choice.model, ModelChoice) else {},
        "examples": examples(context) if examples is not None and context.examples else (),
    }
    if task is not None:
        if choice.index is not None:
            raise PermanentError(f"{choice.name}: {task.kind} searches nothing, but the variant names an index")
        return Variant(index="", index_fingerprint="", search_mode="", k=0, task=task, **answering)
    if choice.index is None or choice.search_mode is None or choice.k is None:
        raise PermanentError(f"{choice.name}: the variant names no index, search mode and k")
    return Variant(
        index=choice.index,
        search_mode=choice.search_mode,
        k=choice.k,
        filters=grid.patch("filters", choice.filters) if grid else None,
        **_searching(config, models, choice.index, grid.patch("retrieval", choice.retrieval) if grid else None),
        **answering,
    )


def _searching(config: ProjectConfig, models: Models, name: str, patch: RetrievalPatch | None) -> dict[str, Any]:
    """What a variant takes over from its index, with the settings a patch replaces."""
    from resources.retrieval import resolved, retrieval_fingerprint
    from resources.vector_index import index_fingerprint

    index = config.indexes[name]
    settings = patch.apply(index.retrieval) if patch else index.retrieval
    retrieval = resolved(settings, lexical=models.embedder(index.embedder).offline)
    return {
        "index_fingerprint": index_fingerprint(config, models, name),
        "ef_search": (patch.ef_search if patch else None) or index.hnsw.ef_search,
        "exact_below": index.hnsw.exact_below,
        "retrieval": retrieval,
        "retrieval_fingerprint": retrieval_fingerprint(retrieval, models),
    }


def record_variant(connection: Connection, variant: Variant) -> None:
    """Put a variant on record, so that its fingerprint can be traced back to a configuration.

    The row stays locked until the transaction ends, so that it is still there for what refers to it. Worked examples
    from a document that was erased meanwhile are left out, and the row says so.
    """
    stored = variant.to_json()
    examples = (*variant.prompt.examples, *variant.examples)
    erased = erased_among(connection, (document for example in examples for document in example.documents))
    if erased:
        stored |= {"erased": True}
        for holder in (stored, stored["prompt"]):
            holder["examples"] = [
                one for one in holder.get("examples", ()) if not erased & set(one.get("documents", ()))
            ]
    connection.execute(
        """INSERT INTO variant AS known (fingerprint, name, config) VALUES (%s, %s, %s)
           ON CONFLICT (fingerprint) DO UPDATE SET name = known.name""",
        (variant.fingerprint, variant.name, Jsonb(stored)),
    )


@dataclass(frozen=True)
class Restored:
    """A variant as it is on record.

    Attributes:
        snapshot: the retained snapshot that fits it when the serving one does not; None: the serving one fits.
    """

    variant: Variant
    snapshot: int | None


def restore_variant(
    connection: Connection, config: ProjectConfig, models: Models, stored: Mapping[str, Any]
) -> Restored:
    """Build a variant from what was put on record, whatever the configuration says now, so that it answers as it did.

    Args:
        stored: column ``config`` of table ``variant``.

    Raises:
        PermanentError: it cannot answer as it did; the message says what is gone, to follow the variant's name.
    """
    from resources.retrieval import retrieval_fingerprint

    if stored.get("erased"):
        raise PermanentError("was shown worked examples of a document that was erased since")
    if "retrieval" not in stored:
        raise PermanentError("was put on record by an earlier version of the code")
    try:
        variant = Variant.from_json(stored)
    except (ValidationError, TypeError, KeyError):
        variant = None
    if variant is None or variant.fingerprint != stored["fingerprint"]:
        raise PermanentError("was put on record by another version of the code")
    try:
        model = models.chat(variant.model).fingerprint
    except GenaiopsError:
        raise PermanentError(f"needs the chat model {variant.model!r}, which models.yaml no longer has") from None
    if model != variant.model_fingerprint:
        raise PermanentError(f"needs the chat model {variant.model!r} as it was; models.yaml has changed it")
    if variant.task is not None:
        return Restored(variant, None)
    try:
        retrieval = retrieval_fingerprint(variant.retrieval, models)
    except GenaiopsError:
        retrieval = None
    if retrieval != variant.retrieval_fingerprint:
        raise PermanentError("needs a model or prompt for retrieval that has changed since")
    hnsw = config.indexes[variant.index].hnsw if variant.index in config.indexes else None
    # a breadth of the variant's own is handed to every search; how many rows are searched exactly is the index's
    if (
        hnsw is None
        or hnsw.exact_below != variant.exact_below
        or not (isinstance(variant.ef_search, int) or hnsw.ef_search == variant.ef_search)
    ):
        raise PermanentError(f"searches index {variant.index!r} with another ef_search or exact_below")
    row = connection.execute(
        """SELECT s.snapshot, s.snapshot = i.serving FROM index_state i JOIN index_snapshot s USING (index_name)
           JOIN index_build b USING (build_id)
           WHERE i.index_name = %s AND b.fingerprint = %s ORDER BY s.snapshot = i.serving DESC, s.snapshot DESC LIMIT 1""",
        (variant.index, variant.index_fingerprint),
    ).fetchone()
    if row is None:
        raise PermanentError(f"needs index {variant.index!r} as it was, and no such snapshot is retained")
    return Restored(variant, None if row[1] else row[0])
