"""The early way out: an unchanged experiment is found on record, and whatever matters sends it through the whole run."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from assets.experiments import early_out, planning, running
from assets.experiments.champion import promote
from assets.governance.erasure import forget
from resources.errors import BudgetExceededError, PermanentError
from resources.platform import Platform
from tests.experiment_support import files, load, write_documents
from tests.lifecycle import run_experiment

BEST = "main/guarded/hybrid/k1/extractive"


@pytest.fixture
def instance() -> dg.DagsterInstance:
    return dg.DagsterInstance.ephemeral()


@pytest.fixture
def platform(make_platform: Callable[..., Platform], tmp_path: Path, instance: dg.DagsterInstance) -> Platform:
    """The experiment has run once."""
    write_documents(tmp_path / "docs")
    platform = make_platform(**files())
    load(platform, instance)
    return platform


def scored(platform: Platform, instance: dg.DagsterInstance) -> dict[str, Any]:
    return run_experiment(platform, "catalogue", instance)["scored_variants"]


def execute(platform: Platform, *statements: str) -> None:
    with platform.database.connect() as connection:
        for statement in statements:
            connection.execute(statement)  # type: ignore[call-overload]


def with_experiment(platform: Platform, **changed: Any) -> Platform:
    experiment = platform.config.experiments["catalogue"].model_copy(update=changed)
    config = platform.config.model_copy(update={"experiments": {"catalogue": experiment}})
    return replace(platform, config=config)


def with_prompt(platform: Platform, **changed: Any) -> Platform:
    prompts = platform.config.prompts
    edited = prompts["guarded"].model_copy(update=changed)
    return replace(platform, config=platform.config.model_copy(update={"prompts": {**prompts, "guarded": edited}}))


def with_models(platform: Platform, **changed: Any) -> Platform:
    models = platform.config.models
    chat = [models.chat[0].model_copy(update=changed)]
    config = platform.config.model_copy(update={"models": models.model_copy(update={"chat": chat})})
    return replace(platform, config=config)


def test_unchanged_run_finds_its_result_without_planning(
    platform: Platform, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = scored(platform, instance)
    monkeypatch.setattr(planning, "plan_trials", None)
    monkeypatch.setattr(running, "prepared", None)
    again = scored(platform, instance)
    assert again["seconds_found"] < 2
    same = ("recommendation", "verdict", "leaderboard", "figure", "front", "result", "report", "trials", "dagster/row_count",
            "uncertain", "next_steps", "caveats", "diagnosis", "dataset_version", "snapshots")  # fmt: skip
    assert {key: again[key] for key in same} == {key: first[key] for key in same}
    assert {key for key in first if not key.startswith("seconds_")} == {
        key for key in again if not key.startswith("seconds_")
    }
    assert (again["new_result"], again["trials_run"], again["trials_reused"], again["cost"]) == (False, 0, 80, 0.0)
    key = dg.AssetKey("scored_variants")
    versions = {
        record.asset_materialization.tags["dagster/data_version"]  # type: ignore[union-attr]
        for record in instance.fetch_materializations(key, limit=2).records
    }
    assert len(versions) == 1
    for check in ("baseline_present", "trials_complete", "scores_defined", "prompts_leak_nothing"):
        history = instance.event_log_storage.get_asset_check_execution_history(dg.AssetCheckKey(key, check), limit=2)
        now, before = (record.event.dagster_event.event_specific_data for record in history)  # type: ignore[union-attr]
        assert (now.passed, now.description, now.metadata) == (before.passed, before.description, before.metadata)  # type: ignore[union-attr]


def test_what_changed_while_a_run_was_going_wakes_the_next(
    platform: Platform, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    conclude = running.conclude

    def meanwhile(experiment: running.Experiment, *arguments: Any, **named: Any) -> running.Result:
        execute(
            platform,
            """CREATE TEMP TABLE newer AS SELECT * FROM evaluation_dataset ORDER BY version DESC LIMIT 1""",
            "UPDATE newer SET version = version + 1, content_hash = 'another'",
            "INSERT INTO evaluation_dataset SELECT * FROM newer",
            "DROP TABLE newer",
        )
        return conclude(experiment, *arguments, **named)

    monkeypatch.setattr(running, "conclude", meanwhile)
    scored(platform, instance)
    assert early_out.find(platform, "catalogue") is None


def test_a_search_that_was_cut_short_is_made_again(platform: Platform, instance: dg.DagsterInstance) -> None:
    scored(platform, instance)
    execute(
        platform,
        """UPDATE trial SET retrieval = retrieval || '{"steps": [{"step": "rerank", "skipped": "TransientError"}]}'
           WHERE fingerprint = (SELECT min(trial) FROM result_trial)""",
    )
    assert early_out.find(platform, "catalogue") is None


def test_whatever_is_configured_otherwise_is_seen(platform: Platform, instance: dg.DagsterInstance) -> None:
    scored(platform, instance)
    assert early_out.find(platform, "catalogue") is not None
    assert early_out.find(with_experiment(platform, description="Other words.", budget=5.0), "catalogue") is not None
    grid = platform.config.experiments["catalogue"].grid
    changed = {
        "resamples": with_experiment(platform, resamples=3000),
        "decision metric": with_experiment(platform, decision_metric="squad.f1/1"),
        "k": with_experiment(platform, grid=grid.model_copy(update={"k": [1, 3]})),
        "one more k": with_experiment(platform, grid=grid.model_copy(update={"k": [1, 2, 3]})),
        "search mode": with_experiment(platform, grid=grid.model_copy(update={"search_mode": ["hybrid", "vector"]})),
        "prompt": with_prompt(platform, system="Answer."),
        "refusal": with_prompt(platform, refusal="No."),
        "parameters": with_models(platform, parameters={"temperature": 0.5}),
        "price": with_models(platform, price=platform.config.models.chat[0].price.model_copy(update={"input_per_million": 1.0})),
    }  # fmt: skip
    assert [name for name, other in changed.items() if early_out.find(other, "catalogue") is not None] == []
    assert early_out.find(platform, "catalogue") is not None
    with pytest.raises(PermanentError, match="no experiment"):
        early_out.find(platform, "another")


def test_code_that_was_edited_is_seen(
    platform: Platform, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = scored(platform, instance)
    monkeypatch.setattr(early_out, "_code", lambda: ["another"])
    assert early_out.find(platform, "catalogue") is None
    again = scored(platform, instance)  # the ordinary run finds everything on record and writes down today's inputs
    assert (again["new_result"], again["result"], again["searches_remembered"] > 0) == (False, first["result"], True)
    assert early_out.find(platform, "catalogue") is not None


def test_code_covers_the_files_that_compute_a_result() -> None:
    root = Path(early_out.__file__).resolve().parents[2]
    covered = {path.name for folder in early_out._CODE for path in (root / folder).rglob("*.py")}
    assert {"statistics.py", "leaderboard.py", "trials.py", "answers.py", "retrieval.py", "answerer.py"} <= covered


def test_new_documents_and_questions_are_seen(platform: Platform, instance: dg.DagsterInstance, tmp_path: Path) -> None:
    scored(platform, instance)
    (tmp_path / "docs" / "zither.md").write_text("# Zither\n\nA zither has strings.\n", encoding="utf-8")
    load(platform, instance)
    assert early_out.find(platform, "catalogue") is None
    scored(platform, instance)
    assert early_out.find(platform, "catalogue") is not None
    execute(platform, "UPDATE evaluation_question SET tags = '{\"a\": \"b\"}' WHERE question_id = 'weight-anvil'")
    assert early_out.find(platform, "catalogue") is None


def test_another_champion_is_seen(platform: Platform, instance: dg.DagsterInstance) -> None:
    scored(platform, instance)
    promote(platform, "catalogue", BEST, "ops", "better")
    assert early_out.find(platform, "catalogue") is None
    assert scored(platform, instance)["new_result"]
    assert early_out.find(platform, "catalogue") is not None


def test_erased_document_is_seen(platform: Platform, instance: dg.DagsterInstance, tmp_path: Path) -> None:
    scored(platform, instance)
    (tmp_path / "docs" / "anvil.md").unlink()
    forget(platform, document="docs/anvil.md", by="ops")
    assert early_out.find(platform, "catalogue") is None


@pytest.mark.parametrize(
    "trouble",
    [
        "DELETE FROM trial WHERE fingerprint = (SELECT min(trial) FROM result_trial)",
        "UPDATE trial SET status = 'failed', given_up_at = now() WHERE fingerprint = (SELECT min(trial) FROM result_trial)",
        "UPDATE experiment_result SET inputs = NULL",
        "INSERT INTO judge_calibration VALUES ('j', 'f', 'l', 1, '[]', '{}', true, 'r')",
        "UPDATE index_snapshot SET counts = counts || '{\"chunks\": 1}'",
        "INSERT INTO trial_verdict (trial, metric, fingerprint, error, run_id) "
        "SELECT min(trial), 'm', 'f', 'ModelResponseError', 'r' FROM result_trial",
    ],
)  # fmt: skip
def test_what_happened_to_the_records_is_seen(platform: Platform, instance: dg.DagsterInstance, trouble: str) -> None:
    scored(platform, instance)
    execute(platform, trouble)
    assert early_out.find(platform, "catalogue") is None


@pytest.mark.parametrize("kind", ["report", "trials"])
def test_lost_file_is_written_again(platform: Platform, instance: dg.DagsterInstance, kind: str) -> None:
    first = scored(platform, instance)
    Path(first[kind]).unlink()
    assert early_out.find(platform, "catalogue") is None
    assert Path(scored(platform, instance)[kind]).exists()
    assert early_out.find(platform, "catalogue") is not None


def test_pending_confirmation_is_tried_again(
    platform: Platform, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = running.measure

    def out_of_money(experiment: Any, **options: Any) -> Any:
        if options.get("variants"):
            raise BudgetExceededError("0.01 USD would pass the budget of 0.00 USD")
        return measure(experiment, **options)

    monkeypatch.setattr(running, "measure", out_of_money)
    scored(platform, instance)
    assert early_out.find(platform, "catalogue") is None
    monkeypatch.setattr(running, "measure", measure)
    assert scored(platform, instance)["new_result"]
    assert early_out.find(platform, "catalogue") is not None
