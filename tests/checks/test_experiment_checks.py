"""Checks of scored_variants: each fails on bad data, and a failed one leaves no result behind."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from assets.evaluation.dataset import Question
from assets.evaluation.metrics.base import METRICS, GoldSpan
from assets.experiments import checks
from assets.experiments.assets import build_assets
from assets.experiments.judge_scores import Judged
from assets.experiments.planning import Plan, Trial
from assets.experiments.records import TrialOutcome
from assets.experiments.scope import Scope
from assets.experiments.trials import TrialWork
from assets.outcomes import CheckOutcome
from resources.answerer import Answerer
from resources.errors import TransientError
from resources.experiment_config import ExperimentConfig
from resources.platform import Platform
from resources.vector_index import SearchHit, SearchResult
from tests.experiment_support import PRODUCTS, files, load, write_documents
from tests.lifecycle import refresh
from tests.unit.experiment_world import EXPERIMENT, variant

QUESTION = Question("q", "question", "answer", True, "dev", {}, "active", None, "f", (GoldSpan(1, 0, 5),))
HIT = SearchHit(1, 1.0, 1, 1, "docs", "a.md", "a", 0, 0, 5, "text", (), 1, None)
TRIALS = tuple(
    Trial(f"t{number}", variant(), QUESTION, SearchResult("main", 1, "vector", (HIT,), 0.0), "p")
    for number in range(10)
)
PLAN = Plan(TRIALS, 10, 0.0)
GOOD = TrialOutcome("ok", None, 1, "answer", False, (), {}, 0.1, "g")
BAD = replace(GOOD, status="failed", error="TransientError")
OUTCOMES = {trial.fingerprint: GOOD for trial in TRIALS}
VALUES: dict[str, dict[str, float | None]] = {trial.fingerprint: dict.fromkeys(METRICS, 0.5) for trial in TRIALS}
CONFIG = ExperimentConfig(**{**EXPERIMENT, "maximum_failed_share": 0.1})


def _scope(stale: int, left: int) -> Scope:
    return Scope("facts", 1, "dev", (QUESTION,) * left, tuple(f"s{number}" for number in range(stale)), {"main": 1})


def test_all_checks_pass_on_good_data() -> None:
    outcomes = [
        checks.baseline_present("a", ["a", "b"]),
        checks.dataset_matches_snapshot(_scope(2, 8)),
        checks.decision_possible(CONFIG, _scope(0, 1)),
        checks.prompts_leak_nothing([QUESTION], {"plain": variant().prompt}),
        checks.trials_complete(CONFIG, PLAN, {**OUTCOMES, "t0": BAD}, TrialWork()),
        checks.scores_defined(PLAN, VALUES),
        checks.retrieval_not_empty(PLAN),
        checks.judges_answered(CONFIG, {}),
        checks.judges_calibrated({}),
    ]
    assert [outcome.name for outcome in outcomes] == list(checks.CHECKS)
    assert all(outcome.passed for outcome in outcomes)
    assert [outcome.name for outcome in outcomes if not outcome.blocking] == list(checks.NOT_BLOCKING)


def test_missing_champion_is_seen() -> None:
    assert not checks.baseline_present("a", ["b"]).passed


@pytest.mark.parametrize(("stale", "left"), [(3, 7), (0, 0), (5, 0)])
def test_dataset_of_another_text_is_seen(stale: int, left: int) -> None:
    assert not checks.dataset_matches_snapshot(_scope(stale, left)).passed


@pytest.mark.parametrize(
    ("metric", "question", "passed"),
    [
        ("genaiops.answer_quality/1", replace(QUESTION, answer=None, answerable=False, gold=()), True),
        ("genaiops.recall/2", replace(QUESTION, gold=()), False),
        ("genaiops.recall/2", QUESTION, True),
        ("rouge.rougeL/1", replace(QUESTION, answer=None), False),
    ],
)
def test_decision_metric_without_a_value_is_seen(metric: str, question: Question, passed: bool) -> None:
    config = CONFIG.model_copy(update={"decision_metric": metric})
    outcome = checks.decision_possible(config, replace(_scope(0, 0), questions=(question,)))
    assert outcome.passed is passed
    if not passed:
        assert (outcome.details["decision_metric"], outcome.details["dataset"]) == (metric, "facts")
        assert "experiments/trial-run.yaml" in outcome.details["remedy"]


@pytest.mark.parametrize(
    "settings",
    [
        {"cluster": "paragraf"},
        {"slices": ["topic", "langauge"]},
        {"guards": [{"metric": "squad.f1/1", "minimum": 0.5, "tag": "topic=beam"}]},
    ],
)
def test_tag_that_no_question_has_is_seen(settings: dict[str, Any]) -> None:
    """A misspelt cluster would take dependent questions for independent ones without a word."""
    tagged = replace(QUESTION, tags={"topic": ["beams", "loads"], "paragraph": 3})
    right = {
        "cluster": "paragraph",
        "slices": ["topic"],
        "guards": [{"metric": "squad.f1/1", "minimum": 0.5, "tag": "topic=loads"}],
    }
    scope = replace(_scope(0, 0), questions=(tagged,))
    assert checks.decision_possible(ExperimentConfig(**{**EXPERIMENT, **right}), scope).passed
    outcome = checks.decision_possible(ExperimentConfig(**{**EXPERIMENT, **settings}), scope)
    assert not outcome.passed
    assert "paragraph, topic" in outcome.details["remedy"]
    assert outcome.details["absent"][0] in str(outcome.observed)


@pytest.mark.parametrize(
    "outcomes",
    [{}, dict.fromkeys(list(OUTCOMES)[1:], GOOD), {**OUTCOMES, "t0": BAD, "t1": BAD}],
    ids=["nothing ran", "one is missing", "too many failed"],
)
def test_incomplete_trials_are_seen(outcomes: dict[str, TrialOutcome]) -> None:
    outcome = checks.trials_complete(CONFIG, PLAN, outcomes, TrialWork(stopped="the budget is used up"))
    assert not outcome.passed
    assert "the budget is used up" in str(outcome.observed)


def test_experiment_without_trials_is_no_success() -> None:
    empty = Plan((), 0, 0.0)
    assert not checks.trials_complete(CONFIG, empty, {}, TrialWork()).passed
    assert not checks.scores_defined(empty, {}).passed
    assert not checks.retrieval_not_empty(empty).passed


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_undefined_score_is_seen(value: float | None) -> None:
    values = {**VALUES, "t3": {**VALUES["t3"], "squad.f1/1": value}}
    outcome = checks.scores_defined(PLAN, values)
    assert not outcome.passed
    assert outcome.details["undefined"] == {"squad.f1/1": 1}


def test_metric_that_does_not_apply_may_be_undefined() -> None:
    """A refusal has no groundedness, an answerable question no refusal recall."""
    undefined = {"genaiops.groundedness_lexical/2": None, "genaiops.refusal_recall/1": None}
    assert checks.scores_defined(PLAN, {key: {**row, **undefined} for key, row in VALUES.items()}).passed


def test_every_metric_has_a_known_field_of_application() -> None:
    """A new wording of ``applies_to`` would silently leave a metric unchecked."""
    known = {*checks.QUESTION_DECIDES, *checks.ANSWER_DECIDES}
    assert {metric.applies_to for metric in METRICS.values()} <= known


def test_empty_retrieval_is_seen() -> None:
    empty = tuple(replace(trial, result=replace(trial.result, hits=())) for trial in TRIALS[:3])
    outcome = checks.retrieval_not_empty(Plan((*empty, *TRIALS[3:]), 10, 0.0))
    assert not outcome.passed
    assert outcome.details["empty_share"] == {"main/vector/k1": 0.3}


@pytest.fixture
def platform(make_platform: Callable[..., Platform], tmp_path: Path) -> Platform:
    write_documents(tmp_path / "docs")
    platform = make_platform(**files())
    load(platform, dg.DagsterInstance.ephemeral())
    return platform


def _run(platform: Platform) -> tuple[bool, set[str], int]:
    """Whether the run succeeded, which checks failed, and how many results there are."""
    result = dg.materialize(
        build_assets(platform.config),
        partition_key="catalogue",
        resources={"platform": platform},
        instance=dg.DagsterInstance.ephemeral(),
        raise_on_error=False,
    )
    failed = {one.check_name for one in result.get_asset_check_evaluations() if not one.passed}
    assert bool(result.get_asset_materialization_events()) == result.success
    with platform.database.connect() as connection:
        row = connection.execute("SELECT count(*) FROM experiment_result").fetchone()
    assert row is not None
    return result.success, failed, row[0]


def test_failing_model_leaves_no_result(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(*arguments: Any, **options: Any) -> Any:
        raise TransientError("busy")

    with monkeypatch.context() as patched:
        patched.setattr(Answerer, "generate", busy)
        success, failed, results = _run(platform)
    assert (success, failed, results) == (False, {"trials_complete"}, 0)
    assert _run(platform) == (True, set(), 1)


def test_dataset_behind_the_index_spends_nothing_and_leaves_no_result(platform: Platform, tmp_path: Path) -> None:
    for product in PRODUCTS[:8]:
        (tmp_path / "docs" / f"{product}.md").write_text(f"# {product}\n\nNo longer made.\n", encoding="utf-8")
    refresh(platform, "docs", dg.DagsterInstance.ephemeral())
    success, failed, results = _run(platform)
    assert (success, results) == (False, 0)
    assert "dataset_matches_snapshot" in failed
    with platform.database.connect() as connection:
        assert connection.execute("SELECT count(*) FROM generation").fetchone() == (0,)
        assert connection.execute("SELECT count(*) FROM snapshot_pin").fetchone() == (0,)


def test_prompt_that_gives_a_held_back_question_away_spends_nothing_and_leaves_no_result(
    platform: Platform, make_platform: Callable[..., Platform]
) -> None:
    """The dataset was built before the prompt was edited, so its own check has nothing to say."""
    ask = {"question": "How many kilograms does a pulley weigh?", "context": "", "answer": "25 kilograms"}
    content = files()
    edited = make_platform(
        **{**content, "prompts/guarded.yaml": {**content["prompts/guarded.yaml"], "examples": [ask]}}
    )
    success, failed, results = _run(edited)
    assert (success, results) == (False, 0)
    assert "prompts_leak_nothing" in failed
    with platform.database.connect() as connection:
        assert connection.execute("SELECT count(*) FROM generation").fetchone() == (0,)


def test_judges_must_answer_on_nearly_every_trial() -> None:
    def outcome(**done: Any) -> CheckOutcome:
        return checks.judges_answered(CONFIG, {"judge.a/1": Judged(scored=100), "judge.b/1": Judged(**done)})

    assert outcome(scored=98, failed={"t1": "ModelResponseError", "t2": "ModelResponseError"}).passed
    many = outcome(scored=80, failed={f"t{number}": "ModelResponseError" for number in range(20)})
    assert (many.passed, many.blocking) == (False, True)
    assert many.observed == "20.0% without one from judge.b/1"
    assert many.details["judges"]["judge.b/1"]["errors"] == {"ModelResponseError": 20}
    assert not outcome(scored=99, unasked=1, stopped="the budget refused").passed


def test_only_judges_that_decide_have_to_be_calibrated() -> None:
    def state(decides: bool, calibrated: bool) -> dict[str, Any]:
        return {"judge": "a", "decides": decides, "calibrated": calibrated, "why": "it was never calibrated"}

    assert checks.judges_calibrated({"judge.a/1": state(False, False)}).passed
    assert checks.judges_calibrated({"judge.a/1": state(True, True)}).passed
    refused = checks.judges_calibrated({"judge.a/1": state(True, False), "judge.b/1": state(True, True)})
    assert not refused.passed
    assert refused.observed == "judge.a/1 (judge a): it was never calibrated"
