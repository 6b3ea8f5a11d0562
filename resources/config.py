"""Configuration as code: what the user edits under ``data/``, read and cross-checked.

Belongs here: the whole of the configuration, and references from one file to another.
Does not belong here: the shape of a file (*_config.py), reading YAML (config_reader.py), environment settings
(pipelines/settings.py), and anything that touches a database.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from resources.chunker_config import embedders_of
from resources.config_base import Name, Strict
from resources.config_reader import check_reference, holds_list, read_file, read_folder
from resources.dataset_config import DatasetConfig
from resources.errors import ConfigError
from resources.experiment_config import ExperimentConfig
from resources.grid_config import check_grid
from resources.index_config import IndexConfig
from resources.index_patches import DerivedIndexes, Wish, wishes
from resources.judge_config import JudgeConfig, check_experiment_judges, check_judge, is_commented_out
from resources.model_config import ChatModel, EmbeddingModel, ModelsFile
from resources.policy_config import Policies
from resources.prompt_config import PromptConfig
from resources.sharding import partitions, shard_of, source_of
from resources.source_config import SourceConfig, SourcesFile
from resources.synthesis_config import check_synthesis
from resources.task_config import DECISION_METRIC, check_task


class ProjectConfig(Strict):
    """Everything under the data directory, validated and cross-checked.

    ``sources`` holds one entry per partition: a source with ``shards: 3`` is in it as ``docs.0``, ``docs.1``, ``docs.2``.
    ``indexes`` holds those of indexes/, then those that experiments derive from them; ``derived`` says of each of the
    latter which one it is derived from.
    """

    data_dir: Path
    sources: dict[str, SourceConfig]
    indexes: dict[str, IndexConfig]
    derived: dict[Name, Name] = Field(default={})
    models: ModelsFile
    prompts: dict[str, PromptConfig]
    datasets: dict[str, DatasetConfig]
    experiments: dict[str, ExperimentConfig]
    policies: Policies
    judges: dict[str, JudgeConfig] = Field(default={})

    def index_sources(self, index: str) -> list[str]:
        """Partitions of the sources an index covers, in configuration order."""
        wanted = self.indexes[index].sources
        return list(self.sources) if wanted == "all" else self.expand_sources(wanted)

    def expand_sources(self, names: Iterable[str]) -> list[str]:
        """The partitions of some sources; the name of a partition stands for itself."""
        return [part for name in names for part in self.sources if name in (part, source_of(part))]

    def partition_of(self, source: str, path: str) -> str:
        """The partition that holds the document ``path`` of a source, or ``source`` itself when there is none."""
        parts = self.expand_sources([source])
        return parts[shard_of(path, len(parts))] if len(parts) > 1 else parts[0] if parts else source

    @property
    def source_names(self) -> list[str]:
        """Names of the sources as configured, without shards."""
        return list(dict.fromkeys(source_of(part) for part in self.sources))

    def indexes_of(self, source: str) -> list[IndexConfig]:
        """The indexes that cover a source."""
        return [index for name, index in self.indexes.items() if source in self.index_sources(name)]

    def embedding_model(self, name: str) -> EmbeddingModel:
        """The embedding model of that name."""
        return next(model for model in self.models.embedding if model.name == name)

    def chat_model(self, name: str) -> ChatModel:
        """The chat model of that name."""
        return next(model for model in self.models.chat if model.name == name)

    def questions_path(self, dataset: str) -> Path:
        """The first question file of a dataset as an absolute path."""
        return self.data_dir / "evaluation" / self.datasets[dataset].files[0]

    def promoted_path(self, dataset: str) -> Path:
        """Where questions promoted from live use are kept; the file need not exist."""
        return self.data_dir / "evaluation" / self.datasets[dataset].promoted

    def synthetic_path(self, dataset: str) -> Path:
        """Where accepted synthetic questions are kept; the file need not exist."""
        return self.data_dir / "evaluation" / self.datasets[dataset].synthetic_file

    def question_files(self, dataset: str) -> list[Path]:
        """All question files of a dataset as absolute paths, those of promoted and synthetic questions if they are there."""
        files = [self.data_dir / "evaluation" / name for name in self.datasets[dataset].files]
        further = (self.promoted_path(dataset), self.synthetic_path(dataset))
        return [*files, *(path for path in further if path not in files and path.is_file())]


def load_config(data_dir: Path) -> ProjectConfig:
    """Read and validate every configuration file under ``data_dir``.

    Raises:
        ConfigError: naming file, key, value, what is allowed and the nearest valid name.
    """
    data_dir = data_dir.resolve()
    if not data_dir.is_dir():
        raise ConfigError(
            f"{data_dir}: the data directory does not exist; set GENAIOPS_DATA_DIR or run from the project"
        )
    sources = read_file(SourcesFile, data_dir / "sources.yaml")
    models = _local_folders(read_file(ModelsFile, data_dir / "models.yaml"), data_dir)
    indexes = read_folder(IndexConfig, data_dir / "indexes")
    prompts = read_folder(PromptConfig, data_dir / "prompts")
    datasets = read_folder(DatasetConfig, data_dir / "evaluation", skip=holds_list)  # lists are questions
    experiments, derived = _derive(indexes, read_folder(ExperimentConfig, data_dir / "experiments"))
    judges = read_folder(JudgeConfig, data_dir / "judges", skip=is_commented_out)
    policies = Policies(
        **{
            name: read_file(field.annotation, path)
            for name, field in Policies.model_fields.items()
            if (path := data_dir / "policies" / f"{name}.yaml").exists() and field.annotation
        }
    )
    config = ProjectConfig(
        data_dir=data_dir,
        sources={part.name: part for source in sources.sources for part in _partitioned(source)},
        indexes={**{item.name: item for _, item in indexes}, **derived.indexes},
        derived={name: wish.patch.base for name, wish in derived.origin.items()},
        models=models,
        prompts={item.name: item for _, item in prompts},
        datasets={item.name: item for _, item in datasets},
        experiments={item.name: item for _, item in experiments},
        policies=policies,
        judges={item.name: item for _, item in judges},
    )
    _check_references(config, data_dir, indexes, datasets, experiments)
    for name, index in derived.indexes.items():
        _check_index(derived.origin[name].path, f"{derived.origin[name].key}.", index, config)
    for path, judge in judges:
        check_judge(path, judge, config)
    for path, experiment in experiments:
        check_experiment_judges(path, experiment, config)
    return config.model_copy(
        update={
            "datasets": {
                name: dataset.model_copy(update={"sources": config.expand_sources(dataset.sources)})
                for name, dataset in config.datasets.items()
            },
            "experiments": {
                name: _decided(experiment, config.datasets[experiment.dataset])
                for name, experiment in config.experiments.items()
            },
        }
    )


def _decided(experiment: ExperimentConfig, dataset: DatasetConfig) -> ExperimentConfig:
    """The experiment with the decision metric of its dataset's task, where it names none."""
    if dataset.task not in DECISION_METRIC or "decision_metric" in experiment.model_fields_set:
        return experiment
    return experiment.model_copy(update={"decision_metric": DECISION_METRIC[dataset.task]})


def _partitioned(source: SourceConfig) -> list[SourceConfig]:
    """A source as its partitions; each keeps all settings under a name of its own."""
    names = partitions(source.name, getattr(source, "shards", 1))
    return [source] if len(names) == 1 else [source.model_copy(update={"name": name}) for name in names]


def _local_folders(models: ModelsFile, data_dir: Path) -> ModelsFile:
    """Model folders of local providers, named relative to the data directory, as absolute paths."""

    def absolute(model: Any) -> Any:
        provider = models.providers.get(model.provider)
        if provider is None or provider.kind != "local" or not re.search(r"[/\\.~]", model.model):
            return model
        return model.model_copy(update={"model": str((data_dir / Path(model.model).expanduser()).resolve())})

    changed = {"embedding": [*map(absolute, models.embedding)], "rerank": [*map(absolute, models.rerank)]}
    return models.model_copy(update=changed)


def _derive(
    indexes: list[tuple[Path, IndexConfig]], experiments: list[tuple[Path, ExperimentConfig]]
) -> tuple[list[tuple[Path, ExperimentConfig]], DerivedIndexes]:
    """The experiments with names in place of patches of indexes, and the indexes that they name.

    Raises:
        ConfigError: as ``DerivedIndexes``; or a baseline names an index that is not among those of its grid.
    """
    entries = {path: wishes(path, item.grid.index, item.grid.index_axes) for path, item in experiments}
    wanted = [one for found in entries.values() for one in found if isinstance(one, Wish)]
    derived = DerivedIndexes({item.name: item for _, item in indexes}, wanted)
    named = []
    for path, item in experiments:
        if item.grid.derives:
            names = [derived.name_of(one) if isinstance(one, Wish) else one for one in entries[path]]
            try:
                item = item.with_indexes(names)
            except ValidationError as error:
                told = (detail["msg"].removeprefix("Value error, ") for detail in error.errors())
                raise ConfigError("\n".join(f"{path}: {one}" for one in told)) from error
        named.append((path, item))
    return named, derived


def _check_index(path: Path, prefix: str, index: IndexConfig, config: ProjectConfig) -> None:
    """Check what an index refers to; ``prefix`` leads to its keys in the file."""
    embedding = [model.name for model in config.models.embedding]
    chat = [model.name for model in config.models.chat]
    check_reference(path, f"{prefix}embedder", index.embedder, embedding, "embedding model of models.yaml")
    for key, model in embedders_of(index.chunker):
        check_reference(path, f"{prefix}chunker.{key}", model, embedding, "embedding model of models.yaml")
    if index.sources != "all":
        for source in index.sources:
            check_reference(path, f"{prefix}sources", source, config.source_names, "source of sources.yaml")
    for step in index.enrichment.steps:
        if step.model is not None:
            check_reference(
                path, f"{prefix}enrichment.steps.{step.kind}.model", step.model, chat, "chat model of models.yaml"
            )
            if config.models.providers[config.chat_model(step.model).provider].kind != "openai":
                raise ConfigError(
                    f"{path}: {prefix}enrichment.steps.{step.kind}.model: {step.model!r} is an offline model, which writes no "
                    "values; use method: offline, or a chat model of a provider of kind openai"
                )
    for key, model in index.retrieval.chat_models():
        check_reference(path, f"{prefix}retrieval.{key}", model, chat, "chat model of models.yaml")
    if (reranker := index.retrieval.rerank).kind == "cross_encoder":
        known = [model.name for model in config.models.rerank]
        check_reference(
            path, f"{prefix}retrieval.rerank.model", str(reranker.model), known, "rerank model of models.yaml"
        )


def _check_references(
    config: ProjectConfig,
    data_dir: Path,
    indexes: list[tuple[Path, IndexConfig]],
    datasets: list[tuple[Path, DatasetConfig]],
    experiments: list[tuple[Path, ExperimentConfig]],
) -> None:
    models_file = data_dir / "models.yaml"
    for model in [*config.models.embedding, *config.models.chat, *config.models.rerank]:
        check_reference(models_file, f"{model.name}.provider", model.provider, config.models.providers, "provider")
    for path, index in indexes:
        _check_index(path, "", index, config)
    for key, name in config.models.evaluation.model_dump().items():
        if name is None:
            continue
        known = [model.name for model in config.models.embedding]
        check_reference(models_file, f"evaluation.{key}", name, known, "embedding model of models.yaml")
        provider = config.models.providers[config.embedding_model(name).provider]
        if key == "bertscore" and provider.kind != "local":
            raise ConfigError(
                f"{models_file}: evaluation.bertscore: {name!r} gives no vectors of tokens; name an embedding model of a "
                "provider of kind local"
            )
    for model in config.models.chat:
        if config.models.providers[model.provider].kind == "local":
            raise ConfigError(f"{models_file}: {model.name}.provider: a local provider has no chat models")
    for model in config.models.rerank:
        if config.models.providers[model.provider].kind != "local":
            raise ConfigError(f"{models_file}: {model.name}.provider: only a provider of kind local has rerank models")
    for path, dataset in datasets:
        check_synthesis(path, dataset, config)
        for source in dataset.sources:
            check_reference(path, "sources", source, config.source_names, "source of sources.yaml")
        for name in dataset.files:
            if not (path.parent / name).is_file():
                raise ConfigError(
                    f"{path}: questions: no file {path.parent / name}; write one question per line as JSON"
                )
    named = {path.parent / name for path, dataset in datasets for name in dataset.files}
    for path in sorted((data_dir / "evaluation").glob("*.yaml")):
        if path not in named and holds_list(path):
            raise ConfigError(f"{path}: a list of questions that no dataset names; add it to 'questions' of a header")
    for path, experiment in experiments:
        check_reference(path, "dataset", experiment.dataset, config.datasets, "evaluation dataset")
        check_task(path, experiment, config)
        check_grid(path, experiment.grid, experiment.baseline, config)
