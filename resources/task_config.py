"""Tasks without documents: classification, summarization, translation, extraction.

Belongs here: what a task asks of the header of a dataset, and what its prompts and grids may hold.
Does not belong here: reading what a model said (task_output.py), scoring it (assets/evaluation/metrics/task_metrics.py).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from pydantic import Field, field_validator, model_validator

from resources.config_base import Grown
from resources.errors import ConfigError
from resources.prompt_config import split_reference

if TYPE_CHECKING:
    from resources.config import ProjectConfig
    from resources.experiment_config import ExperimentConfig

TaskKind = Literal["classification", "summarization", "translation", "extraction"]
TASKS: tuple[str, ...] = get_args(TaskKind)
#: What a task is decided on when the experiment names no metric.
DECISION_METRIC: dict[str, str] = {
    "classification": "sklearn.accuracy/1",
    "summarization": "rouge.rougeL/1",
    "translation": "sacrebleu.chrf/1",
    "extraction": "genaiops.extraction_f1/1",
}


class TaskSpec(Grown):
    """What every prompt of a dataset's task is given, and what its answers are read and scored by.

    Attributes:
        labels: of a classification, in the order in which prompts show them.
        fields: of an extraction: the keys of the JSON object that is asked for.
        languages: of a translation: codes or names, by ``from`` and ``to``.
    """

    LATER: ClassVar[tuple[str, ...]] = ("labels", "fields", "languages")

    kind: TaskKind
    labels: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    languages: dict[Literal["from", "to"], str] = Field(default={})

    def __hash__(self) -> int:
        """Of all of it; the languages are a mapping, which has no hash of its own."""
        return hash((self.kind, self.labels, self.fields, *sorted(self.languages.items())))

    @field_validator("labels", "fields")
    @classmethod
    def _single_lines(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            if value != " ".join(value.split()) or not value:
                raise ValueError(f"{value!r} is empty, or has spaces around it or line breaks in it")
        folded = [value.casefold() for value in values]
        if twice := sorted({value for value in folded if folded.count(value) > 1}):
            raise ValueError(f"{', '.join(twice)} is there twice; upper and lower case are not told apart")
        return values

    @model_validator(mode="after")
    def _fits(self) -> "TaskSpec":
        if self.kind == "classification" and len(self.labels) < 2:
            raise ValueError("task: classification needs labels, a list of at least two")
        if self.kind == "extraction" and not self.fields:
            raise ValueError("task: extraction needs fields, the names of what is extracted")
        if self.kind == "translation" and (
            set(self.languages) != {"from", "to"} or not all(value.strip() for value in self.languages.values())
        ):
            raise ValueError("task: translation needs languages: {from: en, to: de}")
        for key, kind in (("labels", "classification"), ("fields", "extraction"), ("languages", "translation")):
            if getattr(self, key) and self.kind != kind:
                raise ValueError(f"{key} belongs to task: {kind}, not to {self.kind}; remove it")
        return self


def texts_of_yaml(values: Any, key: str) -> Any:
    """Refuse list entries that YAML read as something else than text, such as ``yes`` and ``404``.

    Raises:
        ValueError: naming the entry.
    """
    if isinstance(values, list | tuple):
        for value in values:
            if not isinstance(value, str):
                raise ValueError(f"{key}: YAML reads an entry as {value!r}, not as text; put it in quotes")
    return values


def check_task(path: Path, experiment: "ExperimentConfig", config: "ProjectConfig") -> None:
    """Check that grid, baseline and prompts of an experiment are those its dataset's task asks for.

    Raises:
        ConfigError: naming the file, the key and the remedy.
    """
    dataset = config.datasets[experiment.dataset]
    performs = dataset.task_spec is not None
    grid = experiment.grid
    searching: Mapping[str, Any] = {
        "index": grid.index, "search_mode": grid.search_mode, "k": grid.k, "retrieval": grid.retrieval,
        "filters": grid.filters,
    }  # fmt: skip
    if performs:
        for key, values in searching.items():
            if values:
                raise ConfigError(
                    f"{path}: grid.{key}: dataset {dataset.name} is for {dataset.task}, which searches nothing; "
                    "remove index, search_mode, k, retrieval and filters from grid and baseline"
                )
        for context in grid.context:
            shown = {"order", "compression"} & context.model_fields_set
            if shown:
                raise ConfigError(
                    f"{path}: grid.context.{context.name}.{min(shown)}: {dataset.task} is shown no passages; a context of "
                    "it has examples, select, max_tokens and example_share"
                )
    elif not grid.searches:
        raise ConfigError(
            f"{path}: grid: dataset {dataset.name} is for {dataset.task}; give index, search_mode and k in grid and "
            "baseline, or name a dataset of another task"
        )
    for reference in grid.prompt:
        name, version = split_reference(reference)
        if version is not None or name not in config.prompts:  # versions are looked up when the experiment runs
            continue
        if problem := misfit(config.prompts[name].performs, performs, dataset.task):
            raise ConfigError(f"{path}: grid.prompt: {name!r} {problem}")


def misfit(prompt_performs: bool, performs: bool, task: str) -> str | None:
    """What is wrong with using a prompt for a dataset's task, to follow its name; None: nothing."""
    if prompt_performs == performs:
        return None
    if performs:
        return f"is a prompt about retrieved passages; for {task} its user template has to use 'input'"
    return f"is a prompt about one input; for {task} its user template has to use 'question' and 'passages'"
