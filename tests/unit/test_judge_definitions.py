"""Judges in the code location: the asset is there, an edit wakes it, and it holds no experiment back."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from assets.dagster_support import experiments_of_judges
from pipelines import sensors
from pipelines.automation import automation_conditions
from pipelines.definitions import build_defs
from pipelines.freshness import apply_policies
from pipelines.instance import POOLS
from resources.config import ProjectConfig, load_config
from resources.platform import Platform
from tests.judge_world import judge, models
from tests.standins import TWO_SOURCES

LABEL = '{"id": "a", "answer": "It is red.", "context": ["It is red."], "labels": [1]}\n'
CALIBRATED = {**judge(), "calibration": {"labels": "labels.jsonl"}}
FILES: dict[str, Any] = {
    **TWO_SOURCES,
    "models.yaml": models(),
    "judges/strict.yaml": CALIBRATED,
    "judges/free.yaml": {**judge("fluency"), "name": "free"},
    "labels.jsonl": LABEL,
    "experiments/first.yaml": {**TWO_SOURCES["experiments/first.yaml"], "judges": ["strict", "free"]},
    "experiments/second.yaml": {**TWO_SOURCES["experiments/first.yaml"], "name": "second"},
}
JUDGE, EXPERIMENT = dg.AssetKey("judge_calibration"), dg.AssetKey("scored_variants")


def code_version(platform: Platform, asset: dg.AssetKey) -> str | None:
    return build_defs(resource_overrides={"platform": platform}).resolve_asset_graph().get(asset).code_version


def test_the_asset_has_a_partition_a_judge_with_labels_and_feeds_its_experiments(
    make_platform: Callable[..., Platform],
) -> None:
    defs = build_defs(resource_overrides={"platform": make_platform(**FILES)})
    graph = defs.resolve_asset_graph()
    node = graph.get(JUDGE)
    assert node.partitions_def is not None
    assert node.partitions_def.get_partition_keys() == ["strict"]
    assert set(node.pools or ()) <= set(POOLS)
    assert {key.name: graph.get(key).blocking for key in graph.asset_check_keys if key.asset_key == JUDGE} == {
        "judge_agrees": True, "judge_unbiased": False, "judge_consistent": False,
    }  # fmt: skip
    assert JUDGE in graph.get(EXPERIMENT).parent_keys
    assert "calibrate_judge" in {job.name for job in defs.get_repository_def().get_all_jobs()}


def test_without_judges_nothing_is_added(make_platform: Callable[..., Platform]) -> None:
    platform = make_platform(**TWO_SOURCES)
    defs = build_defs(resource_overrides={"platform": platform})
    assert JUDGE not in defs.resolve_asset_graph().get_all_asset_keys()
    assert "calibrate_judge" not in {job.name for job in defs.get_repository_def().get_all_jobs()}
    assert experiments_of_judges(platform.config) is None


@pytest.mark.parametrize(
    "edit",
    [
        {"judges/strict.yaml": {**CALIBRATED, "draws": 3}},
        {"judges/strict.yaml": {**CALIBRATED, "instructions": "Judge otherwise."}},
        {"judges/strict.yaml": {**CALIBRATED, "calibration": {"labels": "labels.jsonl", "minimum_kappa": 0.7}}},
        {"labels.jsonl": LABEL + LABEL.replace('"a"', '"b"')},
        {"models.yaml": models(price=2.0)},
    ],
    ids=["draws", "instructions", "limits", "labels", "model"],
)
def test_an_edit_marks_the_calibration_as_out_of_date(
    make_platform: Callable[..., Platform], edit: dict[str, Any]
) -> None:
    before = make_platform(**FILES)
    judged, experiment = code_version(before, JUDGE), code_version(before, EXPERIMENT)
    after = make_platform(**{**FILES, **edit})
    assert code_version(after, JUDGE) != judged
    if "labels.jsonl" not in edit:
        assert code_version(after, EXPERIMENT) != experiment


@pytest.fixture
def config(make_data_dir: Callable[..., Path]) -> ProjectConfig:
    return load_config(make_data_dir(**FILES))


def standins(config: ProjectConfig, *, agrees: bool, version: str = "1") -> dg.Definitions:
    """A calibration and the experiments, with the conditions of the real ones."""
    judges = dg.StaticPartitionsDefinition(["strict"])

    @dg.asset(
        partitions_def=judges,
        code_version=version,
        check_specs=[
            dg.AssetCheckSpec("judge_agrees", asset="judge_calibration", blocking=True, partitions_def=judges)
        ],
    )
    def judge_calibration(context: dg.AssetExecutionContext) -> Iterator[Any]:
        yield dg.MaterializeResult(
            data_version=dg.DataVersion(f"{agrees}"),
            check_results=[dg.AssetCheckResult(check_name="judge_agrees", passed=agrees)],
        )

    @dg.asset(
        partitions_def=dg.StaticPartitionsDefinition(list(config.experiments)),
        deps=[dg.AssetDep("judge_calibration", partition_mapping=experiments_of_judges(config))],
        code_version="1",
    )
    def scored_variants(context: dg.AssetExecutionContext) -> None: ...

    return dg.Definitions(
        assets=apply_policies([judge_calibration, scored_variants], automation_conditions(config), {})
    )


def requested(result: Any) -> dict[str, set[str | None]]:
    found = {key.path[0]: set(result.get_requested_partitions(key)) for key in (JUDGE, EXPERIMENT)}
    return {name: keys for name, keys in found.items() if keys}


def test_an_edited_judge_is_calibrated_once_and_a_calibration_wakes_its_experiments(config: ProjectConfig) -> None:
    for agrees in (True, False):  # one that fails informs: it holds nothing back
        instance = dg.DagsterInstance.ephemeral()
        defs = standins(config, agrees=agrees)
        first = dg.evaluate_automation_conditions(defs, instance=instance)
        assert requested(first) == {}
        edited = standins(config, agrees=agrees, version="2")
        second = dg.evaluate_automation_conditions(edited, instance=instance, cursor=first.cursor)
        assert requested(second) == {"judge_calibration": {"strict"}}
        dg.materialize(
            [edited.get_assets_def("judge_calibration")],
            partition_key="strict",
            instance=instance,
            raise_on_error=False,
        )
        third = dg.evaluate_automation_conditions(edited, instance=instance, cursor=second.cursor)
        assert requested(third) == {"scored_variants": {"first"}}
        again = dg.evaluate_automation_conditions(edited, instance=instance, cursor=third.cursor)
        assert requested(again) == {}


def test_a_judge_never_calibrated_does_not_keep_an_experiment_from_being_caught_up(
    make_platform: Callable[..., Platform],
) -> None:
    graph = build_defs(resource_overrides={"platform": make_platform(**FILES)}).resolve_asset_graph()
    instance = dg.DagsterInstance.ephemeral()
    upstreams = sensors._upstreams(graph, EXPERIMENT, "first")
    assert (JUDGE, ["strict"]) in upstreams
    assert sensors._state_if_behind(instance, graph, EXPERIMENT, "first", upstreams) is None  # nothing to be made from
    for asset, partition in (("search_index", "docs"), ("evaluation_dataset", "quiz")):
        event = dg.AssetMaterialization(asset, partition=partition, tags={"dagster/data_version": "1"})
        instance.report_runless_asset_event(event)
    behind = sensors._state_if_behind(instance, graph, EXPERIMENT, "first", upstreams)
    assert behind is not None
    calibrated = dg.AssetMaterialization(JUDGE, partition="strict", tags={"dagster/data_version": "1"})
    instance.report_runless_asset_event(calibrated)
    assert sensors._state_if_behind(instance, graph, EXPERIMENT, "first", upstreams) not in (None, behind)
