"""Judge configuration: the shape of ``judges/*.yaml``.

Belongs here: what a judge measures, how it is asked, and how it has to prove itself. Does not belong here: asking it, and
comparing it with people (assets/evaluation/judging).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator, model_validator

from resources.config_base import Name, Strict
from resources.config_reader import check_reference
from resources.errors import ConfigError

if TYPE_CHECKING:
    from resources.config import ProjectConfig
    from resources.experiment_config import ExperimentConfig

Measure = Literal[
    "groundedness",
    "completeness",
    "utilization",
    "relevance",
    "correctness",
    "coherence",
    "fluency",
    "context_precision",
    "context_recall",
    "preference",
    "custom",
]
#: Measures that are one number on a scale, not a verdict on each part.
RATINGS: frozenset[str] = frozenset({"coherence", "fluency", "custom"})
Seen = Literal["question", "passages", "reference"]


class CalibrationConfig(Strict):
    """How far a judge has to agree with people before anything may rest on it.

    Each limit is compared with the end of the 95 % interval that speaks against the judge, not with the estimate.
    """

    labels: str = Field(description="File of labelled answers (JSONL), relative to the data directory.")
    minimum_items: int = Field(default=100, ge=10)
    minimum_kappa: float | None = Field(default=0.6, gt=-1, lt=1, description="Cohen's; null: not asked for.")
    minimum_auc: float | None = Field(default=0.85, gt=0, lt=1, description="Null: not asked for.")
    minimum_spearman: float | None = Field(default=None, gt=-1, lt=1)
    maximum_bias: float = Field(default=0.1, gt=0, le=1, description="Most that scores may lie above or below labels.")
    maximum_inconsistency: float = Field(
        default=0.1, gt=0, le=1, description="Most of the verdicts that may change with the order or the draw."
    )
    maximum_failed_share: float = Field(default=0.05, ge=0, lt=1, description="Of items without a usable verdict.")
    budget: float | None = Field(default=None, ge=0, description="Most money one calibration may spend.")
    seed: int = 7
    resamples: int = Field(default=2000, ge=200, le=100_000)


class JudgeConfig(Strict):
    """A judge: a chat model with a task, or a metric of the catalogue that stands in for one."""

    name: Name
    description: str = ""
    measures: Measure
    model: Name | None = Field(default=None, description="Chat model of models.yaml; not one whose answers it judges.")
    estimator: str | None = Field(
        default=None, description="Instead of a model: id of a built-in metric, to measure how far that agrees."
    )
    parameters: dict[str, Any] = Field(default={}, description="Sent with every request; they win over the model's.")
    draws: int = Field(default=1, ge=1, le=9, description="How often it is asked the same; the majority counts.")
    swap: bool = Field(default=True, description="Ask in both orders of passages, claims and candidates.")
    form: Literal["json_schema", "json_object", "instructed"] = Field(
        default="json_schema", description="How the server is told to answer in JSON; the words say it as well."
    )
    instructions: str | None = Field(default=None, min_length=1, description="Instead of the built-in task.")
    criteria: str | None = Field(default=None, min_length=1, description="Of a custom judge: what is good.")
    sees: list[Seen] = Field(default=["question"], description="Of a custom judge, beside the answer.")
    scale: int = Field(default=5, ge=2, le=10, description="Ratings run from 1 to this.")
    allow_same_model: bool = Field(default=False, description="Let a model judge its own answers.")
    calibration: CalibrationConfig | None = None

    @field_validator("parameters")
    @classmethod
    def _own(cls, value: dict[str, Any]) -> dict[str, Any]:
        reserved = sorted({"model", "messages", "stream", "n", "seed", "response_format"} & set(value))
        if reserved:
            raise ValueError(f"{', '.join(reserved)}: set by the judge itself; use model, draws and form")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> "JudgeConfig":
        if (self.model is None) == (self.estimator is None):
            raise ValueError("give either model (a chat model that judges) or estimator (a built-in metric)")
        if self.estimator is not None:
            idle = {"parameters", "draws", "swap", "form", "instructions", "criteria", "sees", "scale"}
            if set_idle := sorted(idle & self.model_fields_set):
                raise ValueError(f"{', '.join(set_idle)}: only a model is asked so; an estimator has none of it")
            if self.calibration is None:
                raise ValueError("calibration: an estimator is named here to be calibrated; give its labels")
        elif (self.criteria is None) == (self.measures == "custom"):
            raise ValueError("criteria: a custom judge needs them, any other has its own (instructions replaces them)")
        if self.measures != "custom" and "sees" in self.model_fields_set:
            raise ValueError(f"sees: only for measures: custom; what {self.measures} looks at is fixed")
        if self.measures not in RATINGS and "scale" in self.model_fields_set:
            raise ValueError(f"scale: {self.measures} is no rating; only {', '.join(sorted(RATINGS))} have a scale")
        return self

    @property
    def metric(self) -> str:
        """Id of the metric whose values it gives."""
        return self.estimator or f"judge.{self.name}/1"

    @property
    def scores_trials(self) -> bool:
        """Whether it can be one of the ``judges`` of an experiment."""
        return self.model is not None and self.measures != "preference"

    def labels_path(self, data_dir: Path) -> Path:
        """The label file as an absolute path.

        Raises:
            ValueError: it has no calibration.
        """
        if self.calibration is None:
            raise ValueError(f"judge {self.name} has no calibration")
        return (data_dir / Path(self.calibration.labels).expanduser()).resolve()


def is_commented_out(path: Path) -> bool:
    """Whether a file holds nothing but comments, as an example that was not switched on."""
    with path.open(encoding="utf-8-sig", errors="replace") as lines:
        return all(not line.strip() or line.lstrip().startswith(("#", "---")) for line in lines)


def check_judge(path: Path, judge: JudgeConfig, config: "ProjectConfig") -> None:
    """Check what a judge names.

    Raises:
        ConfigError: naming file, key and remedy.
    """
    if judge.model is None:
        return
    check_reference(
        path, "model", judge.model, [model.name for model in config.models.chat], "chat model of models.yaml"
    )
    if config.models.providers[config.chat_model(judge.model).provider].kind == "offline":
        raise ConfigError(
            f"{path}: model: {judge.model!r} is an offline model, which cannot judge; use a chat model of a provider of kind "
            "openai, or estimator: with a built-in metric"
        )


def check_experiment_judges(path: Path, experiment: "ExperimentConfig", config: "ProjectConfig") -> None:
    """Check the judges an experiment names: that they exist, score trials, and do not judge their own answers.

    Raises:
        ConfigError: naming file, key and remedy.
    """
    for name in experiment.judges:
        check_reference(path, "judges", name, config.judges, "judge (judges/*.yaml)")
        judge = config.judges[name]
        if not judge.scores_trials:
            why = "compares two answers" if judge.estimator is None else f"is {judge.estimator}, which is always scored"
            raise ConfigError(
                f"{path}: judges: {name!r} {why}; only judges with a model that score one answer are named"
            )
        own = _same_model(judge, experiment.model_names, config)
        if own and not judge.allow_same_model:
            raise ConfigError(
                f"{path}: judges: {name!r} would judge its own answers: {judge.model!r} is the same model as {own!r} of "
                f"the grid, and models favour what they said themselves; give judges/{name}.yaml another model, or "
                "allow_same_model: true"
            )


def _same_model(judge: JudgeConfig, answering: list[str], config: "ProjectConfig") -> str | None:
    """The answering model that is the judge's under the same or another name."""

    def place(name: str) -> tuple[str, str]:
        model = config.chat_model(name)
        return model.provider, model.model

    assert judge.model is not None
    known = {model.name for model in config.models.chat}
    return next((name for name in answering if name in known and place(name) == place(judge.model)), None)


def calibrated_judges(judges: Mapping[str, JudgeConfig]) -> list[str]:
    """Names of the judges that have labels to be compared with, in the order of their files."""
    return [name for name, judge in judges.items() if judge.calibration is not None]
