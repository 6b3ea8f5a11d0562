"""Halving and Bayesian search decided by a judge that gives no usable verdict on some answers, on the real stages."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from assets.experiments.assets import build_assets as build_experiments
from resources.platform import Platform
from tests.experiment_support import files, load, write_documents
from tests.fake_openai import FakeOpenAI
from tests.judge_world import ScriptedJudge, Shown, fair, judge, models

SEARCHES = [
    {"strategy": "halving", "eta": 2, "minimum_questions": 10, "finalists": 2, "retrieval_keep": 1},
    {"strategy": "bayes", "trials": 4, "retrieval_keep": 1},
]


@pytest.fixture
def script() -> ScriptedJudge:
    return ScriptedJudge()


@pytest.fixture
def endpoint(script: ScriptedJudge) -> Iterator[FakeOpenAI]:
    with FakeOpenAI(answer=script) as server:
        yield server


@pytest.fixture
def loaded(
    make_platform: Callable[..., Platform], endpoint: FakeOpenAI, tmp_path: Path
) -> Callable[[dict[str, Any], float], Platform]:
    """A judge ranks the variants; documents, index and questions are loaded, the experiment has not run."""

    def build(search: dict[str, Any], share: float) -> Platform:
        write_documents(tmp_path / "docs")
        experiment = files(judges=["right"], decision_metric="judge.right/1", search=search, maximum_failed_share=share)
        right = judge("correctness", name="right")
        platform = make_platform(**{"models.yaml": models(), "judges/right.yaml": right, **experiment})
        platform.environment.update(endpoint.environment())
        load(platform, dg.DagsterInstance.ephemeral())
        return platform

    return build


def silent_about_the_drum(shown: Shown) -> dict[str, Any] | str:
    """No usable verdict on answers to the question about the drum."""
    return "no" if "the drum weigh?" in shown.user else fair(shown)


def run(platform: Platform) -> Any:
    return dg.materialize(
        build_experiments(platform.config),
        partition_key="catalogue",
        resources={"platform": platform},
        instance=dg.DagsterInstance.ephemeral(),
        raise_on_error=False,
    )


def rows(platform: Platform, query: str) -> list[Any]:
    with platform.database.connect() as connection:
        return connection.execute(query).fetchall()  # type: ignore[call-overload]


@pytest.mark.parametrize("search", SEARCHES)
def test_a_judge_that_fails_on_few_answers_does_not_end_the_search(
    loaded: Callable[..., Platform], script: ScriptedJudge, search: dict[str, Any]
) -> None:
    platform = loaded(search, 0.3)
    script.mind = silent_about_the_drum
    assert run(platform).success
    assert rows(platform, "SELECT count(*) > 0 FROM trial_verdict WHERE error IS NOT NULL") == [(True,)]
    ((board,),) = rows(platform, "SELECT leaderboard FROM experiment_result")
    assert board["search"]["asked_all"] > 0
    # ten questions can be answered, one is about the drum
    assert {one["questions"] for one in board["search"]["rounds"]} == {10}
    assert {one["left_out"] for one in board["search"]["rounds"]} == {1}


def test_a_judge_that_fails_on_many_answers_ends_it_with_the_remedy(
    loaded: Callable[..., Platform], script: ScriptedJudge
) -> None:
    platform = loaded(SEARCHES[0], 0.0)
    script.mind = silent_about_the_drum
    found = run(platform)
    assert not found.success
    (failure,) = [event for event in found.all_events if event.is_step_failure]
    assert "genaiops judges retry" in str(failure.step_failure_data)
    assert not rows(platform, "SELECT 1 FROM experiment_result")
