"""scored_variants through Dagster on the real stages: what is recommended, remembered, pinned and promoted."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from assets.experiments import running
from assets.experiments.assets import build_assets
from assets.experiments.champion import current_champion, promote
from assets.governance.erasure import find_traces, forget
from resources.errors import BudgetExceededError, PermanentError
from resources.parquet_io import read_metadata, read_table
from resources.platform import Platform
from tests.experiment_support import GUARDED, USER, files, load, questions, sentence, write_documents
from tests.lifecycle import refresh, run_experiment

BEST = "main/guarded/hybrid/k1/extractive"
CHAMPION = "main/unguarded/hybrid/k1/extractive"


@pytest.fixture
def instance() -> dg.DagsterInstance:
    return dg.DagsterInstance.ephemeral()


@pytest.fixture
def platform(make_platform: Callable[..., Platform], tmp_path: Path, instance: dg.DagsterInstance) -> Platform:
    """Documents, index and questions are loaded; the experiment has not run."""
    write_documents(tmp_path / "docs")
    platform = make_platform(**files())
    load(platform, instance)
    return platform


def scored(platform: Platform, instance: dg.DagsterInstance) -> dict[str, Any]:
    return run_experiment(platform, "catalogue", instance)["scored_variants"]


def rows(platform: Platform, query: str) -> list[Any]:
    with platform.database.connect() as connection:
        return connection.execute(query).fetchall()  # type: ignore[call-overload]


def test_better_prompt_is_recommended_confirmed_and_reported(platform: Platform, instance: dg.DagsterInstance) -> None:
    told = scored(platform, instance)
    assert told["verdict"] == "promote"
    assert told["recommendation"].startswith("Promote main/guarded/hybrid/")
    assert "confirmed on 12 held-back questions" in told["recommendation"]
    assert (told["dagster/row_count"], told["trials_failed"], told["new_result"]) == (80, 0, True)
    assert told["trials_run"] == 80 + 24
    ((leaderboard, recommendation),) = rows(platform, "SELECT leaderboard, recommendation FROM experiment_result")
    assert recommendation["confirmation"]["uses"] == 1
    assert {row["variant"] for row in leaderboard["rows"] if row["champion"]} == {CHAMPION}
    evidence = rows(platform, "SELECT check_name, passed FROM evidence WHERE kind = 'experiment' ORDER BY 1")
    assert evidence == [
        ("baseline_present", True),
        ("dataset_matches_snapshot", True),
        ("decision_possible", True),
        ("judges_answered", True),
        ("judges_calibrated", True),
        ("prompts_leak_nothing", True),
        ("retrieval_not_empty", True),
        ("scores_defined", True),
        ("trials_complete", True),
    ]
    table = read_table(Path(told["trials"]))
    assert table.num_rows == 80
    assert read_metadata(Path(told["trials"]))["experiment"] == "catalogue"
    assert "kilograms" not in Path(told["trials"]).read_bytes().decode("latin-1")
    page = Path(told["report"]).read_text(encoding="utf-8")
    assert "Promote main/guarded/hybrid/" in page


def test_confirmation_cut_short_is_pending_refused_and_tried_again(
    platform: Platform, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = running.measure

    def out_of_money(experiment: Any, **options: Any) -> Any:
        if options.get("variants"):
            raise BudgetExceededError("0.01 USD would pass the budget of 0.00 USD")
        return measure(experiment, **options)

    monkeypatch.setattr(running, "measure", out_of_money)
    told = scored(platform, instance)
    assert told["verdict"] == "promote"
    assert "Not yet confirmed on held-back questions" in told["recommendation"]
    with pytest.raises(PermanentError, match="cut short"):
        promote(platform, "catalogue", BEST, USER, "tried")
    again = scored(platform, instance)
    assert (again["new_result"], again["result"]) == (False, told["result"])  # still no money: nothing new to record
    monkeypatch.setattr(running, "measure", measure)
    confirmed = scored(platform, instance)
    assert confirmed["new_result"]
    assert "confirmed on 12 held-back questions" in confirmed["recommendation"]
    assert promote(platform, "catalogue", BEST, USER, "confirmed").proven


def test_unchanged_run_repeats_nothing(platform: Platform, instance: dg.DagsterInstance) -> None:
    first = scored(platform, instance)
    Path(first["report"]).unlink()
    again = scored(platform, instance)
    assert (again["trials_run"], again["generations_paid"], again["scores_computed"]) == (0, 0, 0)
    assert (again["searches"], again["searches_remembered"]) == (0, first["searches"])
    assert (again["new_result"], again["result"]) == (False, first["result"])
    assert Path(again["report"]).exists()  # a lost file is written again from what is on record
    versions = [
        event.asset_materialization.tags["dagster/data_version"]  # type: ignore[union-attr]
        for event in instance.fetch_materializations(dg.AssetKey("scored_variants"), limit=2).records
    ]
    assert versions[0] == versions[1]


def test_erased_document_leaves_nothing_remembered(
    platform: Platform, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    scored(platform, instance)
    assert rows(platform, """SELECT count(*) > 0 FROM retrieval WHERE hits @> '[{"path": "anvil.md"}]'""") == [(True,)]
    (tmp_path / "docs" / "anvil.md").unlink()
    erasure = forget(platform, document="docs/anvil.md", by="ops")
    assert erasure.proof["retrieval"] > 0
    assert rows(platform, "SELECT count(*) FROM retrieval") == [(0,)]
    assert not find_traces(platform, sentence("anvil"))
    load(platform, instance)
    told = scored(platform, instance)
    assert told["searches"] > 0
    assert rows(platform, """SELECT count(*) FROM retrieval WHERE hits @> '[{"path": "anvil.md"}]'""") == [(0,)]


def test_result_knows_its_trials_and_those_of_its_confirmation(
    platform: Platform, instance: dg.DagsterInstance
) -> None:
    told = scored(platform, instance)
    linked = rows(platform, "SELECT result_id, count(*) FROM result_trial GROUP BY 1")
    assert linked == [(told["result"], 80 + 24)]
    scored(platform, instance)
    assert rows(platform, "SELECT result_id, count(*) FROM result_trial GROUP BY 1") == linked


def test_decision_metric_without_any_question_is_told_before_anything_is_spent(
    make_platform: Callable[..., Platform], tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    write_documents(tmp_path / "docs")
    only_unanswerable = "".join(
        line + "\n" for line in questions().splitlines() if '"answer": null' in line or "test" in line
    )
    platform = make_platform(
        **{**files(decision_metric="sacrebleu.chrf/1"), "evaluation/products.jsonl": only_unanswerable}
    )
    load(platform, instance)
    result = dg.materialize(
        build_assets(platform.config), partition_key="catalogue", resources={"platform": platform}, instance=instance,
        raise_on_error=False,
    )  # fmt: skip
    (failed,) = [
        one for one in result.get_asset_check_evaluations() if one.check_name == "decision_possible" and not one.passed
    ]
    told = " ".join(str(value.value) for value in failed.metadata.values())
    for word in ("sacrebleu.chrf/1", "products", "dev", "experiments/catalogue.yaml", "genaiops.answer_quality/1"):
        assert word in told
    assert result.get_asset_materialization_events() == []
    assert rows(platform, "SELECT (SELECT count(*) FROM trial), (SELECT count(*) FROM generation)") == [(0, 0)]


def test_held_back_questions_without_a_value_cannot_confirm(
    make_platform: Callable[..., Platform], tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    write_documents(tmp_path / "docs")
    kept = [line for line in questions().splitlines() if '"answer": null' in line or '"dev"' in line]
    platform = make_platform(
        **{
            **files(decision_metric="genaiops.recall/2", maximum_failed_share=0),
            "evaluation/products.jsonl": "".join(line + "\n" for line in kept),
        }
    )
    load(platform, instance)
    lease = platform.database.lease("experiment:catalogue", "run")
    with lease as held, running.prepared(platform, "catalogue", "run", held) as experiment:
        board = {"confidence": 0.95}
        recommendation: dict[str, Any] = {
            "champion": CHAMPION, "recommended": BEST, "champion_fingerprint": "c", "recommended_fingerprint": "r",
            "caveats": [],
        }  # fmt: skip
        assert running._confirm(experiment, board, recommendation) == (running.TrialWork(), set())
    assert "no held-back (test) questions" in recommendation["caveats"][0]


def test_edited_prompt_repeats_only_its_variants(
    platform: Platform, instance: dg.DagsterInstance, make_platform: Callable[..., Platform]
) -> None:
    scored(platform, instance)
    edited = make_platform(
        **{**files(), "prompts/guarded.yaml": {"name": "guarded", "system": f"Be brief. {GUARDED}", "user": USER}}
    )
    told = scored(edited, instance)
    assert told["new_result"]
    # two variants on twenty questions, and the one recommended on twelve held back
    assert (told["trials_run"], told["trials_reused"]) == (2 * 20 + 12, 2 * 20 + 12)
    assert rows(platform, "SELECT max(version) FROM prompt_version WHERE name = 'guarded'") == [(2,)]


def test_new_snapshot_repeats_only_what_retrieves_something_new(
    platform: Platform, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    scored(platform, instance)
    (tmp_path / "docs" / "hours.md").write_text("# Opening hours\n\nMonday to Friday.\n", encoding="utf-8")
    load(platform, instance)
    told = scored(platform, instance)
    assert (told["new_result"], told["snapshots"]) == (True, {"main": 2})
    retrieving = rows(platform, """SELECT count(*) FROM trial WHERE retrieved @> '[{"path": "hours.md"}]'""")
    assert retrieving == [(told["trials_run"],)]
    assert told["trials_run"] < 20
    assert rows(platform, "SELECT * FROM snapshot_pin") == [("main", 2, "experiment:catalogue")]


def test_promotion_rests_on_the_evidence(
    platform: Platform, instance: dg.DagsterInstance, tmp_path: Path, make_platform: Callable[..., Platform]
) -> None:
    with pytest.raises(PermanentError, match="has no result; materialize scored_variants"):
        promote(platform, "catalogue", BEST, by="ann", reason="better")
    scored(platform, instance)
    ((best,),) = rows(platform, "SELECT recommendation->>'recommended' FROM experiment_result")
    other = next(name for name in (BEST, BEST.replace("k1", "k2")) if name != best)

    def refused(message: str, variant: str = best, on: Platform = platform) -> None:
        with pytest.raises(PermanentError, match=message):
            promote(on, "catalogue", variant, by="ann", reason="better")

    refused("does not recommend it", variant=other)
    refused("did you mean", variant="main/guarded/hybrid/k1/extractiv")
    refused("experiment file was changed", on=make_platform(**files(seed=8)))
    stricter = {"name": "guarded", "system": f"Be brief. {GUARDED}", "user": USER}
    refused("was changed after result", on=make_platform(**{**files(), "prompts/guarded.yaml": stricter}))
    with platform.database.connect() as connection:
        connection.execute("UPDATE evidence SET passed = false WHERE check_name = 'scores_defined'")
    refused("check scores_defined failed")
    with platform.database.connect() as connection:
        connection.execute("DELETE FROM evidence WHERE check_name = 'scores_defined'")
    refused("no evidence of check scores_defined")
    assert rows(platform, "SELECT count(*) FROM champion") == [(0,)]


def test_promoted_variant_is_the_champion_of_the_next_run(
    platform: Platform, instance: dg.DagsterInstance, make_platform: Callable[..., Platform]
) -> None:
    scored(platform, instance)
    ((best,),) = rows(platform, "SELECT recommendation->>'recommended' FROM experiment_result")
    champion = promote(platform, "catalogue", best, by="ann", reason="refuses when it should")
    assert (champion.variant.name, champion.proven) == (best, True)
    assert promote(platform, "catalogue", best, by="ann", reason="again").champion_id == champion.champion_id
    told = scored(platform, instance)
    assert (told["verdict"], told["trials_run"], told["new_result"]) == ("keep", 0, True)
    with pytest.raises(PermanentError, match="does not recommend it"):
        promote(platform, "catalogue", CHAMPION, by="ann", reason="back")
    stricter = {"name": "guarded", "system": f"Be brief. {GUARDED}", "user": USER}
    edited = make_platform(**{**files(), "prompts/guarded.yaml": stricter})
    with edited.database.connect() as connection:
        now = current_champion(connection, edited.config, edited.models, edited.config.experiments["catalogue"])
    assert (now.variant.name, now.proven) == (best, False)
    assert "changed since" in now.reason


def test_promotion_is_refused_on_an_old_snapshot(
    platform: Platform, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    scored(platform, instance)
    ((best,),) = rows(platform, "SELECT recommendation->>'recommended' FROM experiment_result")
    (tmp_path / "docs" / "unrelated.md").write_text("# Opening hours\n\nMonday to Friday.\n", encoding="utf-8")
    refresh(platform, "docs", instance)
    with pytest.raises(PermanentError, match="snapshot 1 of main, serving is 2; materialize scored_variants again"):
        promote(platform, "catalogue", best, by="ann", reason="better")
