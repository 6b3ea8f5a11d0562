"""Experiment configuration: the shape of ``experiments/*.yaml``.

Belongs here: what an experiment compares, and what decides. Does not belong here: running it (assets/experiments).
"""

from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from resources.config_base import Grown, Name, Strict
from resources.grid_config import VariantChoice, VariantGrid

__all__ = ["ExperimentConfig", "Guard", "Margins", "VariantChoice", "VariantGrid"]


class Margins(Strict):
    """How far a mean may lie from the champion's and still be taken for as good. Set before anybody looks at scores."""

    non_inferiority: float | None = Field(
        default=None, gt=0, lt=1, description="Most a cheaper variant's mean may be lower to take the champion's place."
    )
    equivalence: float | None = Field(
        default=None, gt=0, lt=1, description="Most two means may differ, either way, to be called equal."
    )
    minimum_saving: float = Field(
        default=0.1, gt=0, lt=1, description="Least share of the champion's cost that makes a variant a cheaper one."
    )


class Guard(Strict):
    """What a variant must be shown to keep, beside the decision metric, to be recommended."""

    metric: str
    tag: str | None = Field(
        default=None, pattern=r"^[^=]+=.+$", description="KEY=VALUE: only questions with this tag; all by default."
    )
    minimum: float | None = Field(default=None, gt=0, lt=1, description="The mean is above this.")
    maximum_drop: float | None = Field(
        default=None, gt=0, lt=1, description="The mean is not lower than the champion's by this much."
    )

    @model_validator(mode="after")
    def _says_something(self) -> "Guard":
        if self.minimum is None and self.maximum_drop is None:
            raise ValueError(f"guard of {self.metric}: give minimum, maximum_drop, or both")
        return self


class ExperimentConfig(Grown):
    """Which variants are compared on which questions, and what decides."""

    LATER: ClassVar[tuple[str, ...]] = ("margins", "guards", "slices", "cluster", "variants")

    name: Name
    description: str = ""
    dataset: Name
    split: Literal["train", "dev"] = "dev"
    grid: VariantGrid
    variants: list[VariantChoice] = Field(
        default=[], description="Only these points of the grid are compared; every combination by default."
    )
    baseline: VariantChoice = Field(description="The champion until another one is promoted.")
    decision_metric: str = Field(default="genaiops.answer_quality/1", description="Metric id the tests are run on.")
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    resamples: int = Field(default=10_000, ge=1000, le=1_000_000)
    seed: int = 7
    maximum_failed_share: float = Field(default=0.05, ge=0, le=1)
    budget: float | None = Field(default=None, ge=0, description="Most money one run may spend.")
    margins: Margins = Margins()
    guards: list[Guard] = Field(default=[])
    slices: list[str] = Field(default=[], description="Tag keys by whose values the comparison is shown apart.")
    cluster: str | None = Field(
        default=None, description="Tag key of questions that belong together, such as those of one paragraph."
    )

    @field_validator("split", mode="before")
    @classmethod
    def _held_back(cls, value: object) -> object:
        if value == "test":
            raise ValueError(
                "the test split is held back: it is asked once, to confirm a variant that was recommended on dev; "
                "compare on split: dev"
            )
        return value

    @field_validator("slices")
    @classmethod
    def _once(cls, value: list[str]) -> list[str]:
        return list(dict.fromkeys(value))

    @model_validator(mode="after")
    def _baseline_is_compared(self) -> "ExperimentConfig":
        self.grid.check_choice(self.baseline, "baseline")
        for number, choice in enumerate(self.variants):
            self.grid.check_choice(choice, f"variants[{number}]")
        if self.variants and self.grid.normal(self.baseline) not in self.choices():
            raise ValueError(f"variants: the baseline {self.baseline.name} is not among them; add it")
        return self

    def choices(self) -> list[VariantChoice]:
        """The points of the grid that are compared, in the order of the file, each once."""
        if not self.variants:
            return list(self.grid.choices())
        return list({choice.name: choice for choice in map(self.grid.normal, self.variants)}.values())

    @property
    def index_names(self) -> list[str]:
        """The indexes that are searched, each once."""
        return list(dict.fromkeys(choice.index for choice in self.choices()))

    @property
    def model_names(self) -> list[str]:
        """The chat models that answer, without parameters, each once."""
        return list(dict.fromkeys(choice.model_name for choice in self.choices()))
