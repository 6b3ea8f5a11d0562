"""Experiment files: later settings leave the fingerprints of older files alone, and what cannot be meant is refused."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from assets.experiments.champion import settings_fingerprint
from resources.config import load_config
from resources.experiment_config import ExperimentConfig
from tests.unit.experiment_world import EXPERIMENT

DATA = Path(__file__).resolve().parents[2] / "data"


def made(**settings: Any) -> ExperimentConfig:
    return ExperimentConfig(**{**EXPERIMENT, **settings})


@pytest.mark.parametrize(
    ("name", "settings", "file"),
    [
        ("handbook-answers", "eaba30493877d8fd9583d73ad25dd5b6", "3d80fd84948e112f8c74c58cf145d613"),
        ("handbook-chunks", "dd1e0c65fdb53162cbeb57b81be358c5", "f8f8a07858060a311602ef0328c7fc84"),
    ],
)
def test_fingerprints_of_files_without_later_settings_stay(name: str, settings: str, file: str) -> None:
    """Champions rest on results that carry the first, materializations on the second; both were taken before."""
    data = load_config(DATA).experiments[name]
    known = data.model_copy(update={"margins": made().margins, "guards": [], "slices": [], "cluster": None})
    assert (settings_fingerprint(known), known.fingerprint()) == (settings, file)


@pytest.mark.parametrize(
    "changed",
    [
        {"margins": {"non_inferiority": 0.02}},
        {"margins": {"equivalence": 0.02}},
        {"margins": {"minimum_saving": 0.2}},
        {"guards": [{"metric": "squad.f1/1", "minimum": 0.5}]},
        {"slices": ["topic"]},
        {"cluster": "paragraph"},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_every_setting_that_decides_is_in_the_fingerprint(changed: dict[str, Any]) -> None:
    """A margin that could be changed after looking without a trace would be no margin."""
    assert settings_fingerprint(made(**changed)) != settings_fingerprint(made())


def test_held_back_questions_cannot_be_compared_on() -> None:
    with pytest.raises(ValidationError, match="the test split is held back"):
        made(split="test")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"guards": [{"metric": "squad.f1/1"}]}, "give minimum, maximum_drop, or both"),
        ({"guards": [{"metric": "squad.f1/1", "minimum": 0.5, "tag": "fact"}]}, "guards.0.tag"),
        ({"margins": {"non_inferiority": 0}}, "margins.non_inferiority"),
        ({"margins": {"non_inferiorty": 0.1}}, "non_inferiorty"),
    ],
)
def test_what_cannot_be_meant_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        made(**settings)
