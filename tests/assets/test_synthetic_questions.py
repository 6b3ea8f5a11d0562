"""synthetic_questions through Dagster: drafts and metadata, and gates that stop it before anything is made."""

from collections.abc import Callable
from typing import Any

import dagster as dg
import pytest

from assets.evaluation.synthesis.assets import build_assets
from assets.evaluation.synthesis.checks import CHECKS
from assets.evaluation.synthesis.review import decide
from pipelines.definitions import build_defs
from pipelines.jobs import SYNTHESIS_JOB
from pipelines.settings import load_settings
from resources.config import load_config
from resources.platform import Platform
from tests.evaluation_support import put_document
from tests.synthesis_world import KINDS, drafts, load_handbook, synthesis_files

CHOICE = {"index": "main", "prompt": "plain", "search_mode": "vector", "k": 1, "model": "extractive"}
EXPERIMENT = {
    "name": "first",
    "dataset": "qa",
    "baseline": CHOICE,
    "grid": {axis: [one] for axis, one in CHOICE.items()},
}
PROMPT = {"name": "plain", "system": "s", "user": "{{ question }}{{ passages }}"}


def materialize(platform: Platform, instance: dg.DagsterInstance | None = None) -> dg.ExecuteInProcessResult:
    return dg.materialize(
        build_assets(platform.config),
        resources={"platform": platform},
        instance=instance or dg.DagsterInstance.ephemeral(),
        partition_key="qa",
        raise_on_error=False,
    )


def outcomes(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    return {one.check_name: one.passed for one in result.get_asset_check_evaluations()}


def metadata(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    (event,) = result.asset_materializations_for_node("synthetic_questions")
    return {key: value.value for key, value in event.metadata.items()}


def version(result: dg.ExecuteInProcessResult) -> str:
    (event,) = result.asset_materializations_for_node("synthetic_questions")
    return (event.tags or {})["dagster/data_version"]


def test_drafts_are_made_reported_and_made_once(make_platform: Callable[..., Platform]) -> None:
    platform = make_platform(**synthesis_files())
    load_handbook(platform)
    first = materialize(platform)
    assert first.success
    assert outcomes(first) == dict.fromkeys(CHECKS, True)
    told = metadata(first)
    assert told["dagster/row_count"] == sum(KINDS.values())
    assert told["made"] == len(drafts(platform))
    filters = (
        [record.data for record in told["filters"].records] if hasattr(told["filters"], "records") else told["filters"]
    )
    assert len(filters) == 6
    assert told["waiting_for_review"] == len(drafts(platform, "queued")) > 0
    shown = str(first.get_asset_check_evaluations()) + str(told)
    assert not any(one.line["question"] in shown for one in drafts(platform) if one.line), "questions are no metadata"

    again = materialize(platform)
    assert version(again) == version(first)
    assert metadata(again)["made"] == 0


def test_documents_too_few_for_all_kinds_are_a_warning(make_platform: Callable[..., Platform]) -> None:
    platform = make_platform(**synthesis_files())
    with platform.database.connect() as connection:
        put_document(
            connection,
            "one.md",
            "# One\n\nThe red bicycle of the Kestrel company weighs 14 kilograms without its battery.\n",
        )
    result = materialize(platform)
    assert result.success
    assert outcomes(result) == {"chunking_differs": True, "review_acceptance": True, "filters_passed": False}
    (failed,) = [one for one in result.get_asset_check_evaluations() if not one.passed]
    assert failed.severity == dg.AssetCheckSeverity.WARN


def test_chunking_of_an_index_under_test_blocks(make_platform: Callable[..., Platform]) -> None:
    chunker = {"kind": "markdown", "unit": "characters", "size": 400}
    platform = make_platform(
        **synthesis_files(chunker=chunker), **{"prompts/plain.yaml": PROMPT, "experiments/first.yaml": EXPERIMENT}
    )
    load_handbook(platform, ("safety",))
    result = materialize(platform)
    assert outcomes(result) == {"chunking_differs": False, "review_acceptance": True, "filters_passed": False}
    (failed,) = [one for one in result.get_asset_check_evaluations() if one.check_name == "chunking_differs"]
    assert failed.severity == dg.AssetCheckSeverity.ERROR
    assert "index main of experiment first" in str(failed.description)
    assert not result.asset_materializations_for_node("synthetic_questions")
    assert not drafts(platform)


def test_what_people_keep_rejecting_is_not_made_any_more(make_platform: Callable[..., Platform]) -> None:
    platform = make_platform(**synthesis_files(minimum_reviewed=6, review_share=1.0))
    load_handbook(platform)
    materialize(platform)
    queued = drafts(platform, "queued")
    for number, one in enumerate(queued[:6]):
        decide(platform, "qa", one.draft_id, "accept" if number < 4 else "reject", by="ada")
        if number < 5:
            assert outcomes(materialize(platform))["review_acceptance"], f"{number + 1} reviewed are too few to decide"
    blocked = materialize(platform)  # 4 of 6 are 67 %
    assert outcomes(blocked) == {"chunking_differs": True, "review_acceptance": False, "filters_passed": False}
    assert not blocked.asset_materializations_for_node("synthetic_questions")
    with platform.database.connect() as connection:
        row = connection.execute(
            """SELECT passed, blocking FROM evidence WHERE kind = 'synthetic_questions' AND check_name = 'review_acceptance'
               ORDER BY evidence_id DESC LIMIT 1"""
        ).fetchone()
    assert row == (False, True)


def test_definitions_hold_it_where_a_dataset_asks_for_it(
    make_data_dir: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make_data_dir(**synthesis_files())
    monkeypatch.setenv("GENAIOPS_DATA_DIR", str(data))
    defs = build_defs(load_settings())
    graph = defs.resolve_asset_graph()
    key = dg.AssetKey("synthetic_questions")
    assert graph.get(key).parent_keys == {dg.AssetKey("raw_documents")}
    assert graph.get(key).automation_condition is not None
    assert defs.resolve_job_def(SYNTHESIS_JOB)
    blocking = {one.name for one in graph.asset_check_keys if one.asset_key == key and graph.get(one).blocking}
    assert blocking == {"chunking_differs", "review_acceptance"}
    assert build_assets(load_config(data).model_copy(update={"datasets": {}})) == []
