"""Configuration as code: what the user edits under ``data/``, read and cross-checked.

Belongs here: the whole of the configuration, and references from one file to another.
Does not belong here: the shape of a file (*_config.py), reading YAML (config_reader.py), environment settings
(pipelines/settings.py), and anything that touches a database.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from resources.chunker_config import embedders_of
from resources.config_base import Strict
from resources.config_reader import check_reference, holds_list, read_file, read_folder
from resources.dataset_config import DatasetConfig
from resources.errors import ConfigError
from resources.experiment_config import ExperimentConfig
from resources.grid_config import check_grid
from resources.index_config import IndexConfig
from resources.model_config import ChatModel, EmbeddingModel, ModelsFile
from resources.policy_config import Policies
from resources.prompt_config import PromptConfig
from resources.sharding import partitions, shard_of, source_of
from resources.source_config import SourceConfig, SourcesFile


class ProjectConfig(Strict):
    """Everything under the data directory, validated and cross-checked.

    ``sources`` holds one entry per partition: a source with ``shards: 3`` is in it as ``docs.0``, ``docs.1``, ``docs.2``.
    """

    data_dir: Path
    sources: dict[str, SourceConfig]
    indexes: dict[str, IndexConfig]
    models: ModelsFile
    prompts: dict[str, PromptConfig]
    datasets: dict[str, DatasetConfig]
    experiments: dict[str, ExperimentConfig]
    policies: Policies

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

    def question_files(self, dataset: str) -> list[Path]:
        """All question files of a dataset as absolute paths, that of promoted questions among them if there is one."""
        files = [self.data_dir / "evaluation" / name for name in self.datasets[dataset].files]
        promoted = self.promoted_path(dataset)
        return files if promoted in files or not promoted.is_file() else [*files, promoted]


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
    experiments = read_folder(ExperimentConfig, data_dir / "experiments")
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
        indexes={item.name: item for _, item in indexes},
        models=models,
        prompts={item.name: item for _, item in prompts},
        datasets={item.name: item for _, item in datasets},
        experiments={item.name: item for _, item in experiments},
        policies=policies,
    )
    _check_references(config, data_dir, indexes, datasets, experiments)
    return config.model_copy(
        update={
            "datasets": {
                name: dataset.model_copy(update={"sources": config.expand_sources(dataset.sources)})
                for name, dataset in config.datasets.items()
            }
        }
    )


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


def _check_references(
    config: ProjectConfig,
    data_dir: Path,
    indexes: list[tuple[Path, IndexConfig]],
    datasets: list[tuple[Path, DatasetConfig]],
    experiments: list[tuple[Path, ExperimentConfig]],
) -> None:
    embedding = [model.name for model in config.models.embedding]
    chat = [model.name for model in config.models.chat]
    models_file = data_dir / "models.yaml"
    for model in [*config.models.embedding, *config.models.chat, *config.models.rerank]:
        check_reference(models_file, f"{model.name}.provider", model.provider, config.models.providers, "provider")
    for path, index in indexes:
        check_reference(path, "embedder", index.embedder, embedding, "embedding model of models.yaml")
        for key, model in embedders_of(index.chunker):
            check_reference(path, f"chunker.{key}", model, embedding, "embedding model of models.yaml")
        if index.sources != "all":
            for source in index.sources:
                check_reference(path, "sources", source, config.source_names, "source of sources.yaml")
        for step in index.enrichment.steps:
            if step.model is not None:
                check_reference(
                    path, f"enrichment.steps.{step.kind}.model", step.model, chat, "chat model of models.yaml"
                )
                if config.models.providers[config.chat_model(step.model).provider].kind != "openai":
                    raise ConfigError(
                        f"{path}: enrichment.steps.{step.kind}.model: {step.model!r} is an offline model, which writes no "
                        "values; use method: offline, or a chat model of a provider of kind openai"
                    )
        for key, model in index.retrieval.chat_models():
            check_reference(path, f"retrieval.{key}", model, chat, "chat model of models.yaml")
        if (reranker := index.retrieval.rerank).kind == "cross_encoder":
            known = [model.name for model in config.models.rerank]
            check_reference(path, "retrieval.rerank.model", str(reranker.model), known, "rerank model of models.yaml")
    for model in config.models.chat:
        if config.models.providers[model.provider].kind == "local":
            raise ConfigError(f"{models_file}: {model.name}.provider: a local provider has no chat models")
    for model in config.models.rerank:
        if config.models.providers[model.provider].kind != "local":
            raise ConfigError(f"{models_file}: {model.name}.provider: only a provider of kind local has rerank models")
    for path, dataset in datasets:
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
        check_grid(path, experiment.grid, experiment.baseline, config)
