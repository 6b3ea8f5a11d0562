"""Halving and Bayesian search of scored_variants through Dagster, with derived indexes, on the real stages."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from assets.experiments import running
from assets.experiments.assets import build_assets
from assets.experiments.champion import promote
from assets.experiments.trials import TrialWork
from resources.answerer import Answerer
from resources.errors import PermanentError
from resources.platform import Platform
from tests import task_world
from tests.experiment_support import files, load, questions, write_documents
from tests.lifecycle import build_dataset, run_experiment

AXES: dict[str, Any] = {
    "index": ["main"],
    "index_axes": {"base": "main", "chunker": [{"kind": "sentence", "size": 40}, {"kind": "fixed", "size": 16}]},
    "prompt": ["guarded", "unguarded"],
    "search_mode": ["hybrid", "vector"],
    "k": [1, 2],
    "model": ["extractive"],
}
HALVING = {"strategy": "halving", "minimum_questions": 10, "eta": 2, "finalists": 3}
BAYES = {"strategy": "bayes", "trials": 12}
CHAMPION = "main/unguarded/hybrid/k1/extractive"


@pytest.fixture
def instance() -> dg.DagsterInstance:
    return dg.DagsterInstance.ephemeral()


@pytest.fixture
def make_world(
    make_platform: Callable[..., Platform], tmp_path: Path, instance: dg.DagsterInstance
) -> Callable[..., Platform]:
    """Documents, indexes and questions are loaded; experiment ``catalogue`` with 24 variants has not run."""
    write_documents(tmp_path / "docs")

    def make(**experiment: Any) -> Platform:
        platform = make_platform(**files(**{"grid": AXES, **experiment}))
        load(platform, instance)
        return platform

    return make


def scored(platform: Platform, instance: dg.DagsterInstance) -> dict[str, Any]:
    return run_experiment(platform, "catalogue", instance)["scored_variants"]


def rows(platform: Platform, query: str) -> list[Any]:
    with platform.database.connect() as connection:
        return connection.execute(query).fetchall()  # type: ignore[call-overload]


def result(platform: Platform) -> tuple[dict[str, Any], dict[str, Any]]:
    return rows(platform, "SELECT leaderboard, recommendation FROM experiment_result ORDER BY result_id DESC LIMIT 1")[
        0
    ]


@pytest.mark.parametrize(("strategy", "full"), [(HALVING, 4), (BAYES, 12)])
def test_a_strategy_ends_in_a_recommendation_with_everything_left_out_on_record(
    make_world: Callable[..., Platform], instance: dg.DagsterInstance, strategy: dict[str, Any], full: int
) -> None:
    platform = make_world(search=strategy)
    told = scored(platform, instance)
    board, recommendation = result(platform)
    search = board["search"]
    assert told["verdict"] == "promote"
    assert recommendation["recommended"].split("/")[1] == "guarded"
    assert (search["grid"], search["asked_all"], len(board["rows"])) == (24, full, full)
    assert CHAMPION in {row["variant"] for row in board["rows"]}
    assert board["comparisons"] == full - 1  # the family of Holm is what was asked everything
    left_out = [one["variant"] for one in search["dropped"]] + search["untried"]["variants"]
    assert len(left_out) == len(set(left_out)) == 24 - full
    assert not {row["variant"] for row in board["rows"]} & set(left_out)
    assert all(one["where"] and one["why"] for one in search["dropped"])
    # 20 questions to choose by, and what the confirmation asks: two variants on 12
    assert search["trials"]["asked"] == told["trials_run"] - 24 <= search["trials"]["grid"] == 480
    assert f"Selected on these questions by {strategy['strategy']}" in told["recommendation"]
    assert "confirmed on 12 held-back questions" in told["recommendation"]
    assert told["search"] == search
    page = Path(told["report"]).read_text(encoding="utf-8")
    assert "How the variants were selected" in page
    assert all(name in page for name in left_out)
    assert promote(platform, "catalogue", recommendation["recommended"], by="ann", reason="confirmed").proven
    with platform.database.connect() as connection:
        linked = connection.execute("SELECT count(*) FROM result_trial").fetchone()
    assert linked == (search["trials"]["asked"] + 24,)  # trials of rounds are kept as long as the result


def test_halving_asks_half_of_what_the_grid_would(
    make_world: Callable[..., Platform], instance: dg.DagsterInstance
) -> None:
    platform = make_world(search=HALVING)
    scored(platform, instance)
    search = result(platform)[0]["search"]
    assert [(one["questions"], one["variants"]) for one in search["rounds"]] == [(10, 24), (20, 4)]
    assert search["trials"]["asked"] == 24 * 10 + 4 * 10
    shown = [one for one in search["dropped"] if one["shown"]]
    assert {one["variant"].split("/")[1] for one in shown} == {"unguarded"}
    assert all(one["difference"]["high"] < 0 for one in shown)
    again = scored(platform, instance)
    assert "seconds_found" in again  # the early way out sees that nothing has changed
    assert again["search"] == search


@pytest.mark.parametrize("strategy", [HALVING, BAYES])
def test_an_unchanged_run_repeats_nothing_and_reaches_the_same_result(
    make_world: Callable[..., Platform],
    instance: dg.DagsterInstance,
    strategy: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    platform = make_world(search=strategy)
    first = scored(platform, instance)
    monkeypatch.setattr("assets.experiments.early_out.find", lambda platform, name: None)
    again = scored(platform, instance)
    assert (again["trials_run"], again["generations_paid"], again["searches"], again["scores_computed"]) == (0, 0, 0, 0)
    assert (again["new_result"], again["result"]) == (False, first["result"])
    assert again["trials_reused"] == first["trials_run"] - 24


def test_a_grid_result_after_a_strategy_reuses_its_trials(
    make_world: Callable[..., Platform], instance: dg.DagsterInstance, make_platform: Callable[..., Platform]
) -> None:
    platform = make_world(search=HALVING)
    scored(platform, instance)
    told = scored(make_platform(**files(grid=AXES)), instance)
    assert 200 <= told["trials_run"] <= 200 + 24  # a confirmation of another variant may be due
    assert told["trials_reused"] >= 280
    assert "search" not in result(platform)[0]


def test_not_contradicted_is_not_enough_for_what_a_strategy_selected(
    make_platform: Callable[..., Platform], instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    """Two held-back questions cannot confirm anything."""
    write_documents(tmp_path / "docs")
    lines = [json.loads(line) for line in questions().splitlines()]
    few = [line for line in lines if line["split"] == "dev"] + [line for line in lines if line["split"] == "test"][:2]
    few[-2]["split"] = few[-1]["split"] = "test"
    platform = make_platform(
        **{
            **files(grid=AXES, search=HALVING),
            "evaluation/products.jsonl": "".join(json.dumps(one) + "\n" for one in few),
        }
    )
    load(platform, instance)
    told = scored(platform, instance)
    assert "not contradicted" in told["recommendation"]
    _, recommendation = result(platform)
    with pytest.raises(PermanentError, match=r"selected by halving .* held-back questions have to confirm it"):
        promote(platform, "catalogue", recommendation["recommended"], by="ann", reason="better")
    assert rows(platform, "SELECT count(*) FROM champion") == [(0,)]


def test_a_run_that_stops_in_a_round_concludes_nothing_and_is_taken_up(
    make_world: Callable[..., Platform], instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = make_world(search=HALVING)
    run_trials, rounds = running.trials.run_trials, []

    def out_of_money(*arguments: Any, **options: Any) -> Any:
        rounds.append(len(arguments[5].trials))
        return run_trials(*arguments, **options) if len(rounds) == 1 else TrialWork(stopped="the budget is spent")

    with monkeypatch.context() as patched:
        patched.setattr(running.trials, "run_trials", out_of_money)
        stopped = dg.materialize(
            build_assets(platform.config), partition_key="catalogue", resources={"platform": platform},
            instance=instance, raise_on_error=False,
        )  # fmt: skip
    assert rounds == [240, 80]
    (failed,) = [
        one for one in stopped.get_asset_check_evaluations() if one.check_name == "trials_complete" and not one.passed
    ]
    assert "the budget is spent" in str(failed.description)
    assert rows(platform, "SELECT (SELECT count(*) FROM experiment_result), (SELECT count(*) FROM trial)") == [(0, 240)]
    told = scored(platform, instance)
    assert told["trials_run"] == 40 + 24
    assert result(platform)[0]["search"]["trials"]["asked"] == 280


def test_a_variant_that_always_fails_does_not_end_the_search(
    make_world: Callable[..., Platform], instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be 20 of 80 trials in its batch, and is 20 of the 240 of the whole."""
    platform = make_world(search=BAYES, maximum_failed_share=0.1)
    generate = Answerer.generate

    def refuse(self: Answerer, variant: Any, *arguments: Any, **options: Any) -> Any:
        if variant.name == CHAMPION:
            raise PermanentError("no")
        return generate(self, variant, *arguments, **options)

    monkeypatch.setattr(Answerer, "generate", refuse)
    told = scored(platform, instance)
    board, _ = result(platform)
    tries = rows(platform, "SELECT DISTINCT tries FROM trial WHERE status = 'failed'")
    assert tries == [(1,)]  # what failed in one round is not tried again in the next ones
    assert told["trials_failed"] >= 20
    (champion,) = [row for row in board["rows"] if row["champion"]]
    assert (champion["failed"], champion["decision"]["estimate"]) == (20, 0)


def test_variants_that_break_a_guard_make_room(
    make_world: Callable[..., Platform], instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("assets.experiments.guards.MINIMUM_QUESTIONS", 4)
    grid = {key: value for key, value in AXES.items() if key != "index_axes"}
    grid["filters"] = [{"name": "everything"}, {"name": "bells", "path_prefix": "bells/"}]
    platform = make_world(
        grid=grid,
        guards=[{"metric": "genaiops.recall/2", "minimum": 0.9}],
        margins={"non_inferiority": 0.5},  # so that finding nothing is not yet too much worse
        search={**HALVING, "retrieval_keep": 1.0},
    )
    scored(platform, instance)
    board, _ = result(platform)
    dropped = {one["variant"]: one["why"] for one in board["search"]["dropped"]}
    barred = [
        name for name, why in dropped.items() if why.startswith("it breaks a guard (genaiops.recall/2 must be above")
    ]
    assert barred
    assert all(name.endswith("+bells") for name in barred)
    assert not [row["variant"] for row in board["rows"] if row["variant"].endswith("+bells")]


@pytest.mark.parametrize("search", [{"strategy": "halving", "minimum_questions": 10, "eta": 2}, {"strategy": "bayes"}])
def test_tasks_without_documents_are_searched_too(
    make_platform: Callable[..., Platform], instance: dg.DagsterInstance, search: dict[str, Any]
) -> None:
    world = task_world.triage()
    (path,) = [name for name in world if name.startswith("experiments/")]
    platform = make_platform(**{**world, path: {**world[path], "search": search}})
    build_dataset(platform, "tickets", instance)
    told = run_experiment(platform, "triage", instance)["scored_variants"]
    board, recommendation = result(platform)
    assert board["search"]["retrieval"] == {"skipped": "there is one search setting, or none"}
    assert (told["verdict"], recommendation["recommended"]) == ("promote", "shown/classifier+near")


def test_a_retrieval_metric_that_is_none_is_refused(
    make_world: Callable[..., Platform], instance: dg.DagsterInstance
) -> None:
    platform = make_world(search={**HALVING, "retrieval_metric": "squad.f1/1"})
    with pytest.raises(
        dg.Failure, match=r"search.retrieval_metric 'squad.f1/1' is no metric of what is found; allowed: "
    ):
        scored(platform, instance)


def test_a_search_setting_that_finds_less_is_dropped_before_any_model_is_asked(
    make_world: Callable[..., Platform], instance: dg.DagsterInstance
) -> None:
    grid = {
        **AXES, "index_axes": None, "search_mode": ["hybrid"], "k": [1],
        "filters": [{"name": "everything"}, {"name": "bells", "path_prefix": "bells/"}],
    }  # fmt: skip
    del grid["index_axes"]
    platform = make_world(grid=grid, search={**HALVING, "retrieval_keep": 0.1})
    scored(platform, instance)
    board, _ = result(platform)
    settings = {one["setting"]: one for one in board["search"]["retrieval"]["settings"]}
    bells = settings["main/hybrid/k1+bells"]
    assert (settings["main/hybrid/k1"]["beaten_by"], bells["beaten_by"], bells["mean"]) == (None, "main/hybrid/k1", 0)
    assert "finds less than main/hybrid/k1 (recall -1.000" in bells["why"]
    (dropped,) = [
        one for one in board["search"]["dropped"] if one["variant"] == "main/guarded/hybrid/k1/extractive+bells"
    ]
    assert (dropped["where"], dropped["why"]) == ("search setting", bells["why"])
    assert rows(platform, "SELECT count(*) FROM trial JOIN variant ON variant.fingerprint = trial.variant "
                          "WHERE variant.name LIKE '%+bells'") == [(0,)]  # fmt: skip
    assert rows(platform, "SELECT count(*) > 0 FROM retrieval") == [(True,)]
