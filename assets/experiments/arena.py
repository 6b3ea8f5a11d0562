"""The arena: which variants two states of the configuration have to be compared by, and one configuration that holds both.

Belongs here: who answers before and after a change, what else was edited, and merging the two states. Pure functions of
two configurations.
Does not belong here: where the states come from and running the comparison (pipelines/arena.py), what the scores mean
(arena_verdict.py), how it is told (arena_report.py).

Both sides are measured with the code, the documents and the questions of the head: what differs between them is only what
the change edited. A part of the base that the head has otherwise stands beside it under its name with ``--base``.
"""

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ValidationError

from resources.config import ProjectConfig
from resources.errors import PermanentError
from resources.experiment_config import ExperimentConfig
from resources.fingerprint import fingerprint
from resources.grid_config import ContextConfig, FilterConfig, ModelChoice, RetrievalPatch, VariantChoice, VariantGrid
from resources.model_config import ModelsFile
from resources.models import Models
from resources.prompt_config import PromptConfig, split_reference
from resources.prompt_store import prompt_fingerprint
from resources.vector_index import index_fingerprint

#: What a part of the base is called beside the head's part of the same name.
SUFFIX = "--base"
#: Keys of a model that change what an answer costs or when it comes, not the answer.
_NO_ANSWER = {"name", "provider", "limits", "price", "batch_size", "energy"}
#: Most variants compared beside those that answer, of each kind.
MAXIMUM_FURTHER = 4

#: ``answers``: who answers people; ``edited``: another variant before and after; ``new``: one the base does not have,
#: against the champion.
PairKind = Literal["answers", "edited", "new"]
Finder = Callable[[str], PromptConfig]


@dataclass(frozen=True)
class Side:
    """One state of the project: its configuration, models and how versions of prompts are found."""

    config: ProjectConfig
    models: Models
    find_prompt: Finder

    def prompt(self, reference: str) -> PromptConfig:
        """The prompt a grid means: a file, or a version on record."""
        name, version = split_reference(reference)
        if version is not None:
            return self.find_prompt(reference)
        return self.config.prompts[name]


@dataclass(frozen=True)
class Pair:
    """A variant before the change and one after it.

    Attributes:
        base: name of the variant in the merged experiment; ``head`` likewise.
        shown: the names as the two states have them.
        parts: what differs between them, e.g. ``prompt exact``.
        gates: whether a regression of this pair speaks against the change.
        note: what a reader should know about the choice.
    """

    kind: PairKind
    base: str
    head: str
    shown: tuple[str, str]
    parts: tuple[str, ...]
    gates: bool
    note: str = ""


@dataclass(frozen=True)
class Contest:
    """What is compared for one experiment; nothing when there are no pairs.

    Attributes:
        champion: who answers before the change, and why, in words.
        experiment: with exactly the variants of the pairs; None without pairs.
        notes: edits that are not compared, and changed rules.
    """

    name: str
    champion: str
    pairs: tuple[Pair, ...]
    experiment: ExperimentConfig | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Merged:
    """The configuration that holds both states.

    Attributes:
        sources: partitions whose documents are needed; none for tasks without documents.
    """

    config: ProjectConfig
    contests: list[Contest]
    sources: list[str]


def merge(
    base: Side,
    head: Side,
    experiments: Sequence[str],
    *,
    promoted: Mapping[str, str] | None = None,
) -> Merged:
    """Set up the contests of some experiments, and the configuration to run them on.

    Args:
        experiments: names both states have.
        promoted: {experiment: name of the variant promoted last}; of the others the baseline answers.

    Raises:
        PermanentError: a state cannot be built: a version of a prompt is not on record, a model has no key, an index of
            the base covers no source that is left.
    """
    builder = _Merger(base, head)
    contests = [builder.contest(name, (promoted or {}).get(name)) for name in experiments]
    config, sources = builder.merged(contests)
    return Merged(config, contests, sources)


def unused_edits(base: ProjectConfig, head: ProjectConfig, experiments: Iterable[str]) -> list[str]:
    """Edited, new or removed prompts and indexes that no experiment of either state uses, in words."""
    used: dict[str, set[str]] = {"prompt": set(), "index": set()}
    for config in (base, head):
        for name in experiments:
            for choice in config.experiments[name].choices() if name in config.experiments else ():
                used["prompt"].add(split_reference(choice.prompt)[0])
                used["index"] |= {choice.index} if choice.index else set()
    found = []
    for kind, before, after in (("prompt", base.prompts, head.prompts), ("index", base.indexes, head.indexes)):
        for name in sorted({*before, *after} - used[kind]):
            one, other = before.get(name), after.get(name)
            if one != other:
                found.append(f"{'new' if one is None else 'removed' if other is None else 'edited'} {kind} {name}")
    return found


def fingerprints(config: ProjectConfig, models: Models, row: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """What a variant of a leaderboard was made of: {part: {name, fingerprint}}; no words of a prompt.

    Args:
        row: with ``prompt``, ``model`` and ``index``, None where nothing is searched.
    """
    prompt, model, index = row["prompt"], row["model"], row.get("index")
    parts = {"model": {"name": model, "fingerprint": models.chat(model).fingerprint}}
    if prompt in config.prompts:
        parts["prompt"] = {"name": prompt, "fingerprint": prompt_fingerprint(config.prompts[prompt])}
    if index:
        parts["index"] = {"name": index, "fingerprint": index_fingerprint(config, models, index)}
    return parts


def changes(config: ProjectConfig, before: VariantChoice, after: VariantChoice) -> list[str]:
    """In what two variants of the merged configuration differ: keys and numbers of lines, no words of either."""
    found = []
    models = _by_name(config.models, "chat")
    parts: list[tuple[str, Any, Any]] = [
        ("prompt", config.prompts[before.prompt], config.prompts[after.prompt]),
        ("model", models[before.model_name], models[after.model_name]),
    ]
    if before.index and after.index:
        parts.append(("index", config.indexes[before.index], config.indexes[after.index]))
    for kind, one, other in parts:
        keys = [key for key in type(one).model_fields if key != "name" and getattr(one, key) != getattr(other, key)]
        if keys:
            found.append(
                f"{kind} {other.name}: " + ", ".join(_edit(key, getattr(one, key), getattr(other, key)) for key in keys)
            )
        elif one.name != other.name and kind != "index":
            found.append(f"{kind} {one.name} became {other.name}")
    for name in ("search_mode", "k", "model", *VariantGrid.PATCHES):
        one, other = getattr(before, name), getattr(after, name)
        if one != other and not (name == "model" and isinstance(one, str) and isinstance(other, str)):
            found.append(f"{name.replace('_', ' ')} {_shown(one)} became {_shown(other)}")
    return found


def _edit(key: str, before: Any, after: Any) -> str:
    """A key with the number of lines that were added and taken away, where it holds text."""
    if not isinstance(before, str) or not isinstance(after, str):
        return key
    lines = list(difflib.ndiff(before.splitlines(), after.splitlines()))
    added, removed = (sum(line.startswith(mark) for line in lines) for mark in ("+ ", "- "))
    return f"{key} (+{added} -{removed} lines)"


def _shown(value: Any) -> str:
    return value.short if isinstance(value, ModelChoice) else str(value)


class _Merger:
    """Collects what the contests need of the base, each part once and under one name."""

    def __init__(self, base: Side, head: Side) -> None:
        self.base, self.head = base, head
        self._prompts: dict[str, PromptConfig] = {}
        self._indexes: dict[str, Any] = {}
        self._models: dict[str, dict[str, Any]] = {"embedding": {}, "chat": {}, "rerank": {}}
        self._providers: dict[str, Any] = {}
        self._before, self._after = _Identities(base), _Identities(head)

    # --- choosing ---------------------------------------------------------------------------------------

    def contest(self, name: str, promoted: str | None) -> Contest:
        old, new = self.base.config.experiments[name], self.head.config.experiments[name]
        before, why = _answering(old, promoted)
        after, note = _successor(new, before, was_promoted=promoted is not None and before.name == promoted)
        pairs: list[Pair] = []
        notes = _changed_rules(old, new)
        if self._signature(self.base, old, before) != self._signature(self.head, new, after):
            parts = self._differences(old, before, new, after)
            pairs.append(self._pair("answers", old, before, new, after, parts, note))
        covered = {*self._parts_of(self._before, old, before)} & {*self._parts_of(self._after, new, after)}
        edited = self._edited(old, new, before, covered)
        pairs += [self._pair("edited", old, one, new, other, parts) for one, other, parts in edited[:MAXIMUM_FURTHER]]
        fresh = self._new(old, new, after)
        pairs += [
            self._pair("new", old, before, new, other, parts, gates=False) for other, parts in fresh[:MAXIMUM_FURTHER]
        ]
        left = [", ".join(one[-1]) for one in (*edited[MAXIMUM_FURTHER:], *fresh[MAXIMUM_FURTHER:])]
        if left:
            notes.append(f"not compared, because there are more than {MAXIMUM_FURTHER}: {'; '.join(left)}")
        if not pairs:
            return Contest(name, why, (), None, tuple(notes))
        return Contest(name, why, tuple(pairs), self._experiment(old, new, pairs), tuple(notes))

    def _edited(
        self, old: ExperimentConfig, new: ExperimentConfig, champion: VariantChoice, covered: set[str]
    ) -> list[tuple[VariantChoice, VariantChoice, tuple[str, ...]]]:
        """For every edited part that the champion does not use: the variant that is nearest to the champion."""
        after = {choice.name: choice for choice in new.choices()}
        shared = [choice for choice in old.choices() if choice.name in after]
        found: dict[str, tuple[VariantChoice, VariantChoice, tuple[str, ...]]] = {}
        for choice in sorted(shared, key=lambda choice: _distance(choice, champion)):
            other = after[choice.name]
            if self._signature(self.base, old, choice) == self._signature(self.head, new, other):
                continue
            parts = self._differences(old, choice, new, other)
            fresh = [part for part in parts if part not in covered and part not in found]
            if fresh:
                found |= dict.fromkeys(fresh, (choice, other, parts))
        return list({one[0].name: one for one in found.values()}.values())

    def _new(
        self, old: ExperimentConfig, new: ExperimentConfig, champion: VariantChoice
    ) -> list[tuple[VariantChoice, tuple[str, ...]]]:
        """For every value of an axis that the base does not have: the variant that is nearest to the champion."""
        known = {part for choice in [*old.choices(), champion] for part in _values(choice)}
        found: dict[str, VariantChoice] = {}
        for choice in sorted(new.choices(), key=lambda choice: _distance(choice, champion)):
            for part in _values(choice):
                if part not in known:
                    found.setdefault(part, choice)
        fresh: dict[str, tuple[VariantChoice, list[str]]] = {}
        for part, choice in found.items():
            fresh.setdefault(choice.name, (choice, []))[1].append(part)
        return [(choice, tuple(parts)) for choice, parts in fresh.values()]

    def _pair(
        self,
        kind: PairKind,
        old: ExperimentConfig,
        before: VariantChoice,
        new: ExperimentConfig,
        after: VariantChoice,
        parts: tuple[str, ...],
        note: str = "",
        *,
        gates: bool = True,
    ) -> Pair:
        return Pair(
            kind,
            self._from_base(old, before, new).name,
            self._from_head(after).name,
            (before.name, after.name),
            parts,
            gates,
            note,
        )

    # --- what differs -----------------------------------------------------------------------------------

    def _signature(self, side: Side, experiment: ExperimentConfig, choice: VariantChoice) -> str:
        """Hash of everything that can change an answer of a variant; needs no key of a model, as forks have none."""
        known = self._before if side is self.base else self._after
        sources = sorted(self._sources(side, choice.index)) if choice.index else []
        return fingerprint([self._parts_of(known, experiment, choice), sources])

    def _sources(self, side: Side, index: str) -> list[str]:
        wanted = side.config.indexes[index].sources
        return self.head.config.source_names if wanted == "all" else list(wanted)

    def _differences(
        self, old: ExperimentConfig, before: VariantChoice, new: ExperimentConfig, after: VariantChoice
    ) -> tuple[str, ...]:
        """The parts in which two variants differ, in words."""
        one, other = self._parts_of(self._before, old, before), self._parts_of(self._after, new, after)
        changed = [part for part, value in other.items() if part not in one or one[part] != value]
        changed += [
            part for part in one if part not in other and part.split()[0] not in {p.split()[0] for p in changed}
        ]
        return tuple(changed) or ("the configuration",)

    def _parts_of(self, known: "_Identities", experiment: ExperimentConfig, choice: VariantChoice) -> dict[str, str]:
        parts = {
            f"prompt {choice.prompt}": known.prompt(choice.prompt),
            f"model {_model_key(choice)}": known.chat(choice),
        }
        if choice.index is not None:
            parts |= {
                f"index {choice.index}": known.index(choice.index),
                f"search mode {choice.search_mode}": "",
                f"k {choice.k}": "",
            }
        for axis in VariantGrid.PATCHES:
            patch = experiment.grid.patch(axis, getattr(choice, axis))  # type: ignore[arg-type]
            if patch is not None:
                parts[f"{axis} {patch.name}"] = fingerprint(patch.model_dump(mode="json", exclude={"name"}))
        return parts

    # --- one configuration ------------------------------------------------------------------------------

    def _experiment(self, old: ExperimentConfig, new: ExperimentConfig, pairs: Sequence[Pair]) -> ExperimentConfig:
        """The head's experiment with exactly the variants of the pairs; the champion of the base is the baseline."""
        before = {choice.name: choice for choice in [*old.choices(), old.baseline]}
        after = {choice.name: choice for choice in [*new.choices(), new.baseline]}
        mine = {pair.base: self._from_base(old, before[pair.shown[0]], new) for pair in pairs}
        theirs = {pair.head: self._from_head(after[pair.shown[1]]) for pair in pairs}
        choices = list({**mine, **theirs}.values())
        patches: dict[str, dict[str, Any]] = {axis: {} for axis in VariantGrid.PATCHES}
        for pair in pairs:
            for axis in VariantGrid.PATCHES:
                for grid, choice, target in (
                    (old.grid, before[pair.shown[0]], mine[pair.base]),
                    (new.grid, after[pair.shown[1]], theirs[pair.head]),
                ):
                    patch = grid.patch(axis, getattr(choice, axis))  # type: ignore[arg-type]
                    if patch is not None:
                        name = getattr(target, axis)
                        patches[axis][name] = self._patch(patch, own=grid is old.grid).model_copy(update={"name": name})
        data = new.model_dump(mode="json", exclude_unset=True)
        data.pop("search", None)  # a handful of named variants: all are measured on all questions
        data |= {
            "decision_metric": new.decision_metric,  # of a task it may come from its dataset
            "grid": _grid(choices, patches),
            "variants": [choice.model_dump(mode="json") for choice in choices],
            "baseline": choices[0].model_dump(mode="json"),
        }
        try:
            return ExperimentConfig.model_validate(data)
        except ValidationError as error:  # two states that cannot stand beside each other
            raise PermanentError(
                f"experiment {new.name}: base and head cannot be put into one grid: {error.errors()[0]['msg']}"
            ) from error

    def _from_base(self, old: ExperimentConfig, choice: VariantChoice, new: ExperimentConfig) -> VariantChoice:
        """The choice as it is called in the merged configuration; what it names is added to that."""
        model: Any = self._model("chat", choice.model_name)
        if isinstance(choice.model, ModelChoice):
            known = [one for one in new.grid.model if isinstance(one, ModelChoice) and one.label == choice.model.label]
            label = choice.model.label
            if label and any(one.parameters != choice.model.parameters for one in known):
                label = _renamed(label, ())
            model = choice.model.model_copy(update={"name": model, "label": label})
        changed: dict[str, Any] = {"prompt": self._prompt(self.base, choice.prompt), "model": model}
        if choice.index is not None:
            changed["index"] = self._index(choice.index)
        for axis in VariantGrid.PATCHES:
            name = getattr(choice, axis)
            if name is not None:
                mine, theirs = old.grid.patch(axis, name), _patch_of(new.grid, axis, name)  # type: ignore[arg-type]
                changed[axis] = name if theirs is None or mine == theirs else _renamed(name, ())
        return choice.model_copy(update=changed)

    def _from_head(self, choice: VariantChoice) -> VariantChoice:
        return choice.model_copy(update={"prompt": self._prompt(self.head, choice.prompt)})

    def _prompt(self, side: Side, reference: str) -> str:
        """Name of the file that holds the prompt in the merged configuration."""
        name, version = split_reference(reference)
        prompt = side.prompt(reference)
        if version is not None:
            name = _renamed(name, (), suffix=f"--v{version}" if isinstance(version, int) else f"--{version}")
        theirs = self.head.config.prompts.get(name)
        if theirs is not None and prompt_fingerprint(theirs) == prompt_fingerprint(
            prompt.model_copy(update={"name": name})
        ):
            return name
        if theirs is not None:
            name = _renamed(name, {*self.head.config.prompts})
        self._prompts[name] = prompt.model_copy(update={"name": name})
        return name

    def _index(self, name: str) -> str:
        if self.head.config.indexes.get(name) is not None and self._before.index(name) == self._after.index(name):
            return name
        index = self.base.config.indexes[name]
        target = _renamed(name, {*self.head.config.indexes}) if name in self.head.config.indexes else name
        if target not in self._indexes:
            sources = index.sources
            if sources != "all":
                sources = [one for one in sources if one in self.head.config.source_names]
                if not sources:
                    raise PermanentError(
                        f"index {name} of the base covers {', '.join(index.sources)}, and sources.yaml has none of them any "
                        "more: there is nothing to compare on"
                    )
            settings = self._rename_models(index.model_dump(mode="json", exclude_unset=True))
            settings |= {"name": target, "sources": sources}
            self._indexes[target] = type(index).model_validate(settings)
        return target

    def _patch(self, patch: Any, *, own: bool) -> Any:
        if not own or not isinstance(patch, RetrievalPatch):
            return patch
        return RetrievalPatch.model_validate(self._rename_models(patch.model_dump(mode="json", exclude_unset=True)))

    def _rename_models(self, settings: Any, key: str = "", kind: str = "") -> Any:
        """Settings of the base with the names its models have in the merged configuration."""
        if isinstance(settings, dict):
            reranks = "rerank" if settings.get("kind") == "cross_encoder" else "chat"
            return {name: self._rename_models(value, name, reranks) for name, value in settings.items()}
        if isinstance(settings, list):
            return [self._rename_models(value) for value in settings]
        if isinstance(settings, str) and key == "embedder":
            return self._model("embedding", settings)
        if isinstance(settings, str) and key == "model":
            return self._model(kind, settings)
        return settings

    def _model(self, kind: str, name: str) -> str:
        before, after = (_by_name(side.config.models, kind) for side in (self.base, self.head))
        if name in after and self._before.model(kind, name) == self._after.model(kind, name):
            return name
        target = _renamed(name, {*after}) if name in after else name
        if target not in self._models[kind]:
            own = before[name]
            provider = own.provider
            mine, theirs = (side.config.models.providers.get(provider) for side in (self.base, self.head))
            if theirs is not None and mine != theirs:
                provider = _renamed(provider, {*self.head.config.models.providers})
            if provider not in self.head.config.models.providers:
                self._providers[provider] = mine
            self._models[kind][target] = own.model_copy(update={"name": target, "provider": provider})
        return target

    def merged(self, contests: Sequence[Contest]) -> tuple[ProjectConfig, list[str]]:
        """The head's configuration reduced to what the contests use, the base's parts beside it, and the sources it needs."""
        config = self.head.config
        experiments = {one.name: one.experiment for one in contests if one.experiment is not None}
        known = {**config.indexes, **self._indexes}
        indexes = {name: known[name] for one in experiments.values() for name in one.index_names}
        datasets = {one.dataset: config.datasets[one.dataset] for one in experiments.values()}
        whole = any(index.sources == "all" for index in indexes.values())
        wanted = {
            name
            for part in (*indexes.values(), *datasets.values())
            if part.sources != "all"
            for name in config.expand_sources(part.sources)
        }
        sources = {name: one for name, one in config.sources.items() if whole or name in wanted}
        merged = config.model_copy(
            update={
                "sources": sources or config.sources,
                "indexes": indexes or config.indexes,
                "datasets": datasets,
                "experiments": experiments,
                "prompts": {**config.prompts, **self._prompts},
                "models": config.models.model_copy(
                    update={
                        "providers": {**config.models.providers, **self._providers},
                        **{kind: [*getattr(config.models, kind), *new.values()] for kind, new in self._models.items()},
                    }
                ),
            }
        )
        return merged, list(sources)


class _Identities:
    """What decides the work of each part of a state: two parts with the same one do the same."""

    def __init__(self, side: Side) -> None:
        self._side = side

    def prompt(self, reference: str) -> str:
        return prompt_fingerprint(self._side.prompt(reference).model_copy(update={"name": "any"}))

    def chat(self, choice: VariantChoice) -> str:
        return self.model("chat", choice.model_name)

    def model(self, kind: str, name: str) -> str:
        model = _by_name(self._side.config.models, kind)[name]
        provider = self._side.config.models.providers[model.provider]
        if kind == "embedding" and provider.kind == "local":
            return self._side.models.embedder(name).fingerprint  # a folder may stand anywhere: what is in it counts
        settings = model.model_dump(mode="json", exclude=_NO_ANSWER)
        return fingerprint([settings, provider.model_dump(mode="json")])

    def index(self, name: str) -> str:
        index = self._side.config.indexes[name]
        settings = index.model_dump(mode="json", exclude={"name", "description", "search_timeout"})
        return fingerprint(self._resolve(settings))

    def _resolve(self, settings: Any, key: str = "", kind: str = "") -> Any:
        if isinstance(settings, dict):
            reranks = "rerank" if settings.get("kind") == "cross_encoder" else "chat"
            return {name: self._resolve(value, name, reranks) for name, value in settings.items()}
        if isinstance(settings, list):
            return [self._resolve(value) for value in settings]
        if isinstance(settings, str) and key == "embedder":
            return self.model("embedding", settings)
        if isinstance(settings, str) and key == "model":
            return self.model(kind, settings)
        return settings


# --- small rules ----------------------------------------------------------------------------------------------


def _answering(experiment: ExperimentConfig, promoted: str | None) -> tuple[VariantChoice, str]:
    """Who answers in a state, and why."""
    by_name = {choice.name: choice for choice in experiment.choices()}
    if promoted in by_name:
        return by_name[promoted], f"{promoted}, promoted"
    baseline = experiment.grid.normal(experiment.baseline)
    gone = f"; the promoted {promoted} is not in its grid" if promoted else ""
    return baseline, f"{baseline.name}, the baseline{gone}"


def _successor(experiment: ExperimentConfig, before: VariantChoice, *, was_promoted: bool) -> tuple[VariantChoice, str]:
    """Who would answer after the change: a promoted variant stays as long as the grid has it, else the baseline does."""
    by_name = {choice.name: choice for choice in experiment.choices()}
    baseline = experiment.grid.normal(experiment.baseline)
    if was_promoted and before.name in by_name:
        return by_name[before.name], ""
    if was_promoted:
        return baseline, f"{before.name} is not in the head's grid any more, so its baseline would answer"
    return baseline, "" if baseline.name == before.name else "the change names another baseline"


def _changed_rules(old: ExperimentConfig, new: ExperimentConfig) -> list[str]:
    """Rules of the comparison that the change itself edits: the head's are used, and a reader must know."""
    rules = (
        "dataset", "split", "decision_metric", "confidence", "maximum_failed_share", "margins", "guards", "cluster", "budget",
    )  # fmt: skip
    changed = [rule for rule in rules if getattr(old, rule) != getattr(new, rule)]
    return (
        [f"the change edits the rules it is judged by ({', '.join(changed)}); the head's were used"] if changed else []
    )


def _values(choice: VariantChoice) -> list[str]:
    parts = [("index", choice.index), ("prompt", choice.prompt), ("search mode", choice.search_mode), ("k", choice.k)]
    parts += [("model", _model_key(choice)), *((axis, getattr(choice, axis)) for axis in VariantGrid.PATCHES)]
    return [f"{name} {value}" for name, value in parts if value is not None]


def _model_key(choice: VariantChoice) -> str:
    return f"{choice.model_name}+{choice.model.short}" if isinstance(choice.model, ModelChoice) else choice.model_name


def _distance(choice: VariantChoice, other: VariantChoice) -> int:
    """In how many axes two choices differ."""
    return len(set(_values(choice)) ^ set(_values(other)))


def _by_name(models: ModelsFile, kind: str) -> dict[str, Any]:
    return {model.name: model for model in getattr(models, kind)}


def _patch_of(grid: VariantGrid, axis: str, name: str) -> Any:
    return next((patch for patch in getattr(grid, axis) if patch.name == name), None)


def _renamed(name: str, taken: Iterable[str], *, suffix: str = SUFFIX) -> str:
    """A name of at most 63 characters that nothing else has."""
    taken, number, end = set(taken), 1, suffix
    while (candidate := name[: 63 - len(end)] + end) in taken:
        number += 1
        end = f"{suffix}{number}"
    return candidate


def _grid(choices: Sequence[VariantChoice], patches: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The smallest grid that has all of the choices among its points."""

    def once(values: Iterable[Any]) -> list[Any]:
        return list({fingerprint(value): value for value in values if value is not None}.values())

    dumped = [choice.model_dump(mode="json") for choice in choices]
    grid = {axis: once(one.get(axis) for one in dumped) for axis in ("index", "prompt", "search_mode", "k", "model")}
    plain = {"retrieval": RetrievalPatch, "filters": FilterConfig, "context": ContextConfig}
    for axis, named in patches.items():
        if named:
            entries: list[Any] = [patch.model_dump(mode="json", exclude_unset=True) for patch in named.values()]
            if any(getattr(choice, axis) is None for choice in choices):
                entries.append(plain[axis](name="as-it-is").model_dump(mode="json", exclude_unset=True))
            grid[axis] = entries
    return {axis: values for axis, values in grid.items() if values}
