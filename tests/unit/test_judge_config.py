"""judges/*.yaml: strict, with errors that name file, key and remedy; and what an experiment may name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from assets.evaluation.metrics.base import METRICS
from assets.evaluation.metrics.catalogue import metrics_of
from assets.experiments.leaderboard import check_decision_metric
from resources.config import load_config
from resources.errors import ConfigError, PermanentError
from tests.judge_world import judge, models
from tests.unit.experiment_world import EXPERIMENT
from tests.unit.experiment_world import files as world_files

Load = Callable[..., Any]


@pytest.fixture
def load(make_data_dir: Callable[..., Path]) -> Load:
    def build(experiment: dict[str, Any] | None = None, **judges: Any) -> Any:
        written = {
            f"judges/{name}.yaml": one if isinstance(one, str) else {**one, "name": name}
            for name, one in judges.items()
        }
        files = {**world_files(**(experiment or {})), "models.yaml": models(), **written}
        return load_config(make_data_dir(**files))

    return build


def test_judges_are_loaded_and_absent_without_a_folder(load: Load) -> None:
    assert load().judges == {}
    config = load(strict=judge(), commented="# name: x\n\n  # measures: groundedness\n")
    assert list(config.judges) == ["strict"]
    assert config.judges["strict"].metric == "judge.strict/1"


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"measures": "grounded"}, "measures"),
        (
            {"model": "judge-modell"},
            r"model: there is no chat model of models\.yaml named 'judge-modell'.*Did you mean",
        ),
        ({"model": "extractive"}, "model: 'extractive' is an offline model, which cannot judge"),
        ({"model": None}, "give either model"),
        ({"estimator": "squad.f1/1"}, "give either model"),
        ({"measures": "custom"}, "criteria: a custom judge needs them"),
        ({"criteria": "Be kind."}, "criteria: a custom judge needs them, any other has its own"),
        ({"sees": ["passages"]}, "sees: only for measures: custom"),
        ({"scale": 7}, "scale: groundedness is no rating"),
        ({"parameters": {"seed": 3}}, "seed: set by the judge itself"),
        ({"draws": 0}, "draws"),
        (
            {"calibration": {"labels": "x.jsonl", "minimum_kapa": 0.5}},
            "minimum_kapa: unknown key.*Did you mean 'minimum_kappa'",
        ),
        ({"temperature": 0}, "temperature: unknown key"),
    ],
)
def test_wrong_judges_are_refused_with_file_and_key(load: Load, settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=rf"(?s)judges/strict\.yaml: .*{problem}"):
        load(strict={key: value for key, value in {**judge(), **settings}.items() if value is not None})


def test_an_estimator_has_no_model_and_needs_labels(load: Load) -> None:
    offline = {"measures": "groundedness", "estimator": "genaiops.groundedness_lexical/2"}
    with pytest.raises(ConfigError, match="calibration: an estimator is named here to be calibrated"):
        load(offline=offline)
    with pytest.raises(ConfigError, match="draws, swap: only a model is asked so"):
        load(offline={**offline, "calibration": {"labels": "x.jsonl"}, "draws": 1, "swap": True})
    config = load(offline={**offline, "calibration": {"labels": "x.jsonl"}})
    assert list(metrics_of(config)) == list(METRICS)  # it is in the catalogue already


def test_experiments_name_judges_that_can_score_and_do_not_judge_themselves(load: Load) -> None:
    with pytest.raises(
        ConfigError, match=r"trial-run\.yaml: judges: there is no judge .*'strickt'.*Did you mean 'strict'"
    ):
        load({"judges": ["strickt"]}, strict=judge())
    with pytest.raises(ConfigError, match="judges: 'pairs' compares two answers"):
        load({"judges": ["pairs"]}, pairs=judge("preference"))
    grid = {**EXPERIMENT["grid"], "model": ["extractive", "judge-model"]}
    with pytest.raises(
        ConfigError, match="judges: 'strict' would judge its own answers: 'judge-model' is the same model"
    ):
        load({"judges": ["strict"], "grid": grid}, strict=judge())
    assert load({"judges": ["strict"], "grid": grid}, strict=judge(allow_same_model=True)).judges
    assert load({"judges": ["strict", "strict"], "grid": grid}, strict=judge(model="other-judge")).experiments[
        "trial-run"
    ].judges == ["strict"]


def test_judged_metrics_enter_the_catalogue_of_experiments_that_name_them(load: Load) -> None:
    config = load({"judges": ["right"]}, right=judge("correctness"), strict=judge())
    experiment = config.experiments["trial-run"]
    assert list(metrics_of(config)) == [*METRICS, "judge.right/1", "judge.strict/1"]
    mine = metrics_of(config, experiment)
    assert list(mine) == [*METRICS, "judge.right/1"]
    assert (mine["judge.right/1"].estimator, mine["judge.right/1"].range) == ("judge", (0.0, 1.0))
    deciding = experiment.model_copy(update={"decision_metric": "judge.right/1"})
    check_decision_metric(deciding, metrics=mine)
    for metric in ("judge.strict/1", "judge.wrong/1"):  # not named by the experiment, or by nobody
        with pytest.raises(PermanentError, match=r"allowed: .*judge\.right/1"):
            check_decision_metric(experiment.model_copy(update={"decision_metric": metric}), metrics=mine)
    refused = load({"judges": ["strict"]}, strict=judge())  # a refusal has no groundedness: it cannot decide
    with pytest.raises(PermanentError, match="not a metric that every variant has"):
        check_decision_metric(
            experiment.model_copy(update={"decision_metric": "judge.strict/1"}),
            metrics=metrics_of(refused, refused.experiments["trial-run"]),
        )


def test_a_file_without_judges_keeps_its_fingerprint(load: Load) -> None:
    plain = load().experiments["trial-run"]
    assert "judges" not in plain.model_dump(mode="json")
    assert load({"judges": []}).experiments["trial-run"].fingerprint() == plain.fingerprint()
    assert load({"judges": ["strict"]}, strict=judge()).experiments["trial-run"].fingerprint() != plain.fingerprint()
