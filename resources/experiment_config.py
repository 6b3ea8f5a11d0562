"""Experiment configuration: the shape of ``experiments/*.yaml``.

Belongs here: what an experiment compares, and what decides. Does not belong here: running it (assets/experiments).
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from resources.config_base import Name, SearchMode, Strict


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
