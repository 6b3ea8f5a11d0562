"""Dataset configuration: the shape of ``evaluation/*.yaml``.

Belongs here: the header of an evaluation dataset. Does not belong here: its questions (assets/evaluation).
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from resources.config_base import Grown, Name
from resources.synthesis_config import SynthesisConfig
from resources.task_config import TASKS, TaskKind, TaskSpec, texts_of_yaml


class DatasetConfig(Grown):
    """An evaluation dataset: a header file beside its questions."""

    LATER: ClassVar[tuple[str, ...]] = (
        "task",
        "split_by",
        "split_shares",
        "labels",
        "languages",
        "fields",
        "synthetic",
    )

    name: Name
    description: str = ""
    questions: str | list[str] = Field(
        description="Files with the questions (JSONL, YAML, CSV), relative to this file; one, or a list."
    )
    sources: list[Name] = Field(
        default=[], description="Sources of its documents; none for tasks other than rag and retrieval."
    )
    licence: str | None = None
    task: Literal["rag", "retrieval"] | TaskKind = Field(
        default="rag",
        description="rag: answers are scored; retrieval: only what is found, so answers may be missing. The others have "
        "one text as input and no documents (docs/tasks.md).",
    )
    labels: list[str] = Field(default=[], description="Of a classification, in the order in which prompts show them.")
    languages: dict[Literal["from", "to"], str] = Field(default={}, description="Of a translation: {from: en, to: de}.")
    fields: list[str] = Field(default=[], description="Of an extraction: the keys of the object that is asked for.")
    split_by: Literal["group"] | None = Field(
        default=None,
        description="How lines without a split get one: by the hash of their group, else of their first document, else "
        "of their id. Without it every line names its split.",
    )
    split_shares: dict[Literal["train", "dev", "test"], Annotated[float, Field(ge=0)]] = Field(
        default={"dev": 0.5, "test": 0.5}, description="Shares of the splits that split_by gives; need not add up to 1."
    )
    minimum_questions: int = Field(default=20, ge=1)
    minimum_unanswerable_share: float = Field(default=0.1, ge=0, le=1, description="0 by default except for task: rag.")
    maximum_stale_share: float = Field(default=0.2, ge=0, le=1)
    synthetic: SynthesisConfig | None = Field(default=None, description="Questions made from the documents.")

    @model_validator(mode="before")
    @classmethod
    def _retrieval_needs_no_refusals(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("task") in ("retrieval", *TASKS):
            return {"minimum_unanswerable_share": 0.0, **data}
        return data

    @field_validator("labels", "fields", mode="before")
    @classmethod
    def _texts(cls, value: Any, info: ValidationInfo) -> Any:
        return texts_of_yaml(value, str(info.field_name))

    @field_validator("questions")
    @classmethod
    def _some_files(cls, value: str | list[str]) -> str | list[str]:
        files = [value] if isinstance(value, str) else value
        if not files or not all(file.strip() for file in files):
            raise ValueError("name at least one file with questions")
        if len(set(files)) < len(files):
            raise ValueError("a file is named twice")
        return value

    @model_validator(mode="after")
    def _shares_make_sense(self) -> "DatasetConfig":
        if sum(self.split_shares.values()) <= 0:
            raise ValueError("split_shares: at least one share must be above 0")
        if self.split_by is None and "split_shares" in self.model_fields_set:
            raise ValueError("split_shares has an effect only with split_by: group; add it, or remove the shares")
        return self

    @model_validator(mode="after")
    def _task_makes_sense(self) -> "DatasetConfig":
        if self.task in TASKS:
            if self.sources:
                raise ValueError(f"task: {self.task} has no documents; set sources: []")
            if self.minimum_unanswerable_share:
                raise ValueError(
                    f"minimum_unanswerable_share: task: {self.task} has no unanswerable questions; remove it"
                )
            try:
                assert self.task_spec is not None
            except ValidationError as error:
                raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None
        elif not self.sources:
            raise ValueError(f"sources: task: {self.task} needs at least one source of documents")
        else:
            for key in ("labels", "fields", "languages"):
                if getattr(self, key):
                    raise ValueError(f"{key}: task: {self.task} has none; remove it, or set the task it is for")
        return self

    @property
    def task_spec(self) -> TaskSpec | None:
        """What the task is about; None for those about documents, rag and retrieval."""
        if self.task == "rag" or self.task == "retrieval":
            return None
        return TaskSpec(kind=self.task, labels=tuple(self.labels), fields=tuple(self.fields), languages=self.languages)

    @property
    def files(self) -> list[str]:
        """The question files as written."""
        return [self.questions] if isinstance(self.questions, str) else self.questions

    @property
    def promoted(self) -> str:
        """The file that holds questions promoted from live use; it is read when it is there."""
        return f"{self.name}.promoted.jsonl"

    @property
    def synthetic_file(self) -> str:
        """The file that holds accepted synthetic questions; it is read when it is there."""
        return (self.synthetic and self.synthetic.file) or f"{self.name}.synthetic.jsonl"
