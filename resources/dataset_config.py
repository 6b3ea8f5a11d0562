"""Dataset configuration: the shape of ``evaluation/*.yaml``.

Belongs here: the header of an evaluation dataset. Does not belong here: its questions (assets/evaluation).
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from resources.config_base import Grown, Name


class DatasetConfig(Grown):
    """An evaluation dataset: a header file beside its questions."""

    LATER: ClassVar[tuple[str, ...]] = ("task", "split_by", "split_shares")

    name: Name
    description: str = ""
    questions: str | list[str] = Field(
        description="Files with the questions (JSONL, YAML, CSV), relative to this file; one, or a list."
    )
    sources: list[Name] = Field(min_length=1)
    licence: str | None = None
    task: Literal["rag", "retrieval"] = Field(
        default="rag", description="rag: answers are scored; retrieval: only what is found, so answers may be missing."
    )
    split_by: Literal["group"] | None = Field(
        default=None,
        description="How lines without a split get one: by the hash of their group, else of their first document, else "
        "of their id. Without it every line names its split.",
    )
    split_shares: dict[Literal["train", "dev", "test"], Annotated[float, Field(ge=0)]] = Field(
        default={"dev": 0.5, "test": 0.5}, description="Shares of the splits that split_by gives; need not add up to 1."
    )
    minimum_questions: int = Field(default=20, ge=1)
    minimum_unanswerable_share: float = Field(default=0.1, ge=0, le=1, description="0 by default for task: retrieval.")
    maximum_stale_share: float = Field(default=0.2, ge=0, le=1)

    @model_validator(mode="before")
    @classmethod
    def _retrieval_needs_no_refusals(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("task") == "retrieval":
            return {"minimum_unanswerable_share": 0.0, **data}
        return data

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

    @property
    def files(self) -> list[str]:
        """The question files as written."""
        return [self.questions] if isinstance(self.questions, str) else self.questions

    @property
    def promoted(self) -> str:
        """The file that holds questions promoted from live use; it is read when it is there."""
        return f"{self.name}.promoted.jsonl"
