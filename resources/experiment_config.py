"""Experiment configuration: the shape of ``experiments/*.yaml``.

Belongs here: what an experiment compares, and what decides. Does not belong here: running it (assets/experiments).
"""

from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from resources.config_base import Grown, Name, Strict
from resources.grid_config import VariantChoice, VariantGrid

__all__ = ["ExperimentConfig", "Guard", "Margins", "SearchConfig", "VariantChoice", "VariantGrid"]


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


class SearchConfig(Strict):
    """How the best point of the grid is looked for.

    Attributes:
        strategy: ``grid``: every variant on every question; ``halving``: all on a few questions, the better ones on more,
            the last on all; ``bayes``: some variants on all questions, each chosen by what the others before it scored.
        seed: of what is drawn: questions of the rounds, the first variants.
        trials: variants that ``bayes`` asks all questions.
        eta: a round of ``halving`` has so many times the questions of the one before.
        minimum_questions: of the first round.
        finalists: most variants, the champion not counted, that ``halving`` asks all questions.
        retrieval_keep: share of the search settings that go on whatever they find; of the others those that another one beats
            in everything are dropped before anything is asked of a model. 1 keeps all.
        retrieval_metric: id of what search settings are compared by; by default the newest ``genaiops.recall``.
    """

    USED_BY: ClassVar[dict[str, tuple[str, ...]]] = {
        "grid": (),
        "halving": ("seed", "eta", "minimum_questions", "finalists", "retrieval_keep", "retrieval_metric"),
        "bayes": ("seed", "trials", "retrieval_keep", "retrieval_metric"),
    }

    strategy: Literal["grid", "halving", "bayes"] = "grid"
    seed: int = Field(default=7, ge=0, lt=2**32)
    trials: int = Field(default=40, ge=2, le=10_000)
    eta: int = Field(default=3, ge=2, le=10)
    minimum_questions: int = Field(default=40, ge=10)
    finalists: int = Field(default=6, ge=2)
    retrieval_keep: float = Field(default=0.5, gt=0, le=1)
    retrieval_metric: str | None = None

    @model_validator(mode="after")
    def _used(self) -> "SearchConfig":
        unused = sorted(self.model_fields_set - {"strategy", *self.USED_BY[self.strategy]})
        if unused:
            users = {name: [one for one, keys in self.USED_BY.items() if name in keys] for name in unused}
            told = "; ".join(f"{name} is for strategy {' or '.join(users[name])}" for name in unused)
            raise ValueError(f"strategy {self.strategy} has no {', '.join(unused)}: {told}")
        return self


class ExperimentConfig(Grown):
    """Which variants are compared on which questions, and what decides."""

    LATER: ClassVar[tuple[str, ...]] = ("margins", "guards", "slices", "cluster", "variants", "search", "judges")

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
    search: SearchConfig = SearchConfig()
    judges: list[Name] = Field(
        default=[], description="Judges (judges/*.yaml) that score every trial; their calls cost money."
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

    @field_validator("slices", "judges")
    @classmethod
    def _once(cls, value: list[str]) -> list[str]:
        return list(dict.fromkeys(value))

    @model_validator(mode="after")
    def _baseline_is_compared(self) -> "ExperimentConfig":
        if self.grid.derives:
            return self  # checked when its indexes have names (``with_indexes``)
        self.grid.check_choice(self.baseline, "baseline")
        for number, choice in enumerate(self.variants):
            self.grid.check_choice(choice, f"variants[{number}]")
        if self.variants and self.grid.normal(self.baseline) not in self.choices():
            raise ValueError(f"variants: the baseline {self.baseline.name} is not among them; add it")
        return self

    def with_indexes(self, names: list[str]) -> "ExperimentConfig":
        """The experiment with the names of its indexes in place of patches.

        Raises:
            ValidationError: the baseline, or a point it names, is not in the grid.
        """
        grid = self.grid.model_copy(update={"index": list(dict.fromkeys(names)), "index_axes": None})
        return type(self).model_validate({**{key: getattr(self, key) for key in self.model_fields_set}, "grid": grid})

    def choices(self) -> list[VariantChoice]:
        """The points of the grid that are compared, in the order of the file, each once."""
        if not self.variants:
            return list(self.grid.choices())
        return list({choice.name: choice for choice in map(self.grid.normal, self.variants)}.values())

    @property
    def index_names(self) -> list[str]:
        """The indexes that are searched, each once; none for a task without documents."""
        return list(dict.fromkeys(choice.index for choice in self.choices() if choice.index is not None))

    @property
    def model_names(self) -> list[str]:
        """The chat models that answer, without parameters, each once."""
        return list(dict.fromkeys(choice.model_name for choice in self.choices()))
