"""The shape of ``synthetic:`` in ``evaluation/*.yaml``: questions made from the documents, and their review.

Belongs here: what can be configured about it, and references to other files. Does not belong here: making questions
(assets/evaluation/synthesis).
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, field_validator, model_validator

from resources.chunker_config import ChunkerConfig, FixedChunker, embedders_of
from resources.config_base import Name, Strict
from resources.config_reader import check_reference
from resources.errors import ConfigError

if TYPE_CHECKING:
    from resources.config import ProjectConfig
    from resources.dataset_config import DatasetConfig

#: What a question asks for: one fact; facts of two places; which of two; something the documents do not tell; a fact in
#: other words than theirs; a fact as hurried people type.
QuestionKind = Literal["fact", "multi_hop", "comparison", "unanswerable", "paraphrase", "noisy"]
#: In this order they are made.
KINDS: tuple[QuestionKind, ...] = ("fact", "multi_hop", "comparison", "unanswerable", "paraphrase", "noisy")
OFFLINE = "offline"


class SynthesisConfig(Strict):
    """How questions are made for a dataset; see docs/synthetic-questions.md."""

    file: str | None = Field(
        default=None,
        pattern=r"^[^/\\]+\.jsonl$",
        description="Where accepted questions are written, beside the header; by default NAME.synthetic.jsonl.",
    )
    chunker: ChunkerConfig = Field(
        default=FixedChunker(unit="characters", size=900),
        description="How documents are cut into passages; must differ from every index the dataset is used with.",
    )
    kinds: dict[QuestionKind, Annotated[int, Field(ge=0, le=10_000)]] = Field(
        default={"fact": 40, "multi_hop": 10, "comparison": 10, "unanswerable": 20, "paraphrase": 10, "noisy": 10},
        description="How many questions of each kind shall pass the filters.",
    )
    writer: Name = Field(
        default=OFFLINE,
        description="offline: rules, labelled so; else a chat model of models.yaml (an openai provider).",
    )
    reader: Name = Field(
        default=OFFLINE, description="Who has to find the answer again: offline, or a chat model of models.yaml."
    )
    response_format: Literal["json_schema", "json_object", "none"] = Field(
        default="json_schema", description="How the form of its answers is asked of a model; all are checked."
    )
    seed: int = 7
    k: int = Field(default=5, ge=1, le=50, description="The passage has to be among so many when it is searched for.")
    review_share: float = Field(default=0.2, ge=0, le=1, description="Share that is put before a person.")
    minimum_acceptance: float = Field(
        default=0.7, ge=0, le=1, description="A smaller share accepted as made stops generating and writing."
    )
    minimum_reviewed: int = Field(default=30, ge=1, description="From so many reviewed on acceptance decides.")
    include: Literal["accepted", "unreviewed"] = Field(
        default="accepted",
        description="What `genaiops questions accept` writes: what people accepted; or also what nobody looked at.",
    )
    budget: float | None = Field(default=None, ge=0, description="Most that one run may spend on models.")
    currency: str = "USD"

    @field_validator("kinds")
    @classmethod
    def _something(cls, value: dict[QuestionKind, int]) -> dict[QuestionKind, int]:
        if not any(value.values()):
            raise ValueError("ask for at least one question of some kind")
        return value

    @model_validator(mode="after")
    def _unreviewed_are_vouched_for(self) -> "SynthesisConfig":
        if self.include == "unreviewed" and self.review_share == 0:
            raise ValueError(
                "include: unreviewed needs a review_share above 0: what nobody reviews is judged by the rest"
            )
        return self

    @property
    def wanted(self) -> dict[QuestionKind, int]:
        """Kinds asked for, in the order they are made."""
        return {kind: self.kinds[kind] for kind in KINDS if self.kinds.get(kind)}


def check_synthesis(path: Path, dataset: "DatasetConfig", config: "ProjectConfig") -> None:
    """Check the references of a ``synthetic:`` block.

    Raises:
        ConfigError: naming file, key and remedy.
    """
    synthesis = dataset.synthetic
    if synthesis is None:
        return
    if dataset.task not in ("rag", "retrieval"):
        raise ConfigError(
            f"{path}: synthetic: questions are made from documents, and task: {dataset.task} has none; remove it"
        )
    chat = {model.name: config.models.providers.get(model.provider) for model in config.models.chat}
    for key in ("writer", "reader"):
        name = getattr(synthesis, key)
        if name == OFFLINE:
            continue
        check_reference(path, f"synthetic.{key}", name, [OFFLINE, *chat], "chat model of models.yaml")
        provider = chat[name]
        if provider is not None and provider.kind != "openai":
            raise ConfigError(
                f"{path}: synthetic.{key}: {name!r} is an offline model, which writes no questions; use offline, or a chat "
                "model of a provider of kind openai"
            )
    embedding = [model.name for model in config.models.embedding]
    for key, model in embedders_of(synthesis.chunker):
        check_reference(path, f"synthetic.chunker.{key}", model, embedding, "embedding model of models.yaml")
    file = dataset.synthetic_file
    if file in (*dataset.files, dataset.promoted):
        raise ConfigError(
            f"{path}: synthetic.file: {file} holds other questions of the dataset; give accepted ones a file of their own"
        )
