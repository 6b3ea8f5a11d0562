"""Dataset configuration: the shape of ``evaluation/*.yaml``.

Belongs here: the header of an evaluation dataset. Does not belong here: its questions (assets/evaluation).
"""

from pydantic import Field

from resources.config_base import Name, Strict


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
