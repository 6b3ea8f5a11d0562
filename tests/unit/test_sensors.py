"""source_changes asks once per settled change and never loses or doubles one; reconcile heals what events lost."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from pipelines.jobs import build_jobs
from pipelines.sensors import UNSETTLED_TICKS, build_reconcile, build_source_changes, find_behind, read_states
from resources.config import load_config
from resources.platform import Platform
from tests.standins import TWO_SOURCES, Lifecycle, damage, make, refresh, run


class Folder:
    """Two pretended sources and the sensor that watches them."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        self.looks: dict[str, str | Exception] = {"docs": "A", "wiki": "W"}
        self.instance = dg.DagsterInstance.ephemeral()
        self.cursor: str | None = None
        self.sensor = build_source_changes(lifecycle.config, self._look)

    def _look(self, source: str) -> str:
        value = self.looks[source]
        if isinstance(value, Exception):
            raise value
        return value

    def evaluate(self) -> dg.SensorResult:
        """One tick whose cursor is not committed."""
        result: Any = self.sensor(dg.build_sensor_context(instance=self.instance, cursor=self.cursor))
        return result

    def tick(self) -> list[str]:
        """One tick; the run keys requested."""
        result = self.evaluate()
        self.cursor = result.cursor
        return [str(request.run_key) for request in result.run_requests or []]

    def settle(self) -> list[str]:
        """Two ticks: what was requested on them."""
        return self.tick() + self.tick()


@pytest.fixture
def lifecycle(make_data_dir: Callable[..., Path]) -> Lifecycle:
    return Lifecycle(load_config(make_data_dir(**TWO_SOURCES)))


@pytest.fixture
def folder(lifecycle: Lifecycle) -> Folder:
    return Folder(lifecycle)


def test_a_source_never_loaded_is_requested_once_settled(folder: Folder) -> None:
    assert folder.tick() == []
    assert folder.tick() == ["docs/1/A", "wiki/1/W"]
    assert folder.settle() == []


def test_the_first_sight_of_a_loaded_source_requests_one_refresh(lifecycle: Lifecycle, folder: Folder) -> None:
    # Nobody knows whether it was edited since it was loaded; looking costs one refresh without changes.
    make(lifecycle, folder.instance, "raw_documents", "docs")
    assert folder.settle() == ["docs/1/A", "wiki/1/W"]
    assert folder.settle() == []


def test_there_and_back_again_are_three_runs(folder: Folder) -> None:
    folder.settle()
    keys = []
    for look in ("B", "A", "B"):
        folder.looks["docs"] = look
        keys += folder.settle()
    assert keys == ["docs/2/B", "docs/3/A", "docs/4/B"]


def test_a_crash_before_the_cursor_is_committed_repeats_the_same_key(folder: Folder) -> None:
    folder.settle()
    folder.looks["docs"] = "B"
    folder.tick()
    lost = [request.run_key for request in folder.evaluate().run_requests or []]  # requested, cursor lost
    assert lost == ["docs/2/B"]
    assert folder.tick() == lost  # Dagster knows this key: no second run
    assert folder.settle() == []


def test_a_folder_being_copied_is_not_refreshed_until_it_rests(folder: Folder) -> None:
    folder.settle()
    for look in ("B1", "B2", "B3"):
        folder.looks["docs"] = look
        assert folder.tick() == []
    assert folder.tick() == ["docs/2/B3"]


def test_a_source_that_never_rests_is_refreshed_anyway(folder: Folder) -> None:
    folder.settle()
    keys: list[str] = []
    for number in range(UNSETTLED_TICKS):
        folder.looks["docs"] = f"B{number}"
        keys += folder.tick()
    assert keys == [f"docs/2/B{UNSETTLED_TICKS - 1}"]


def test_a_change_taken_back_before_it_settled_requests_nothing(folder: Folder) -> None:
    folder.settle()
    folder.looks["docs"] = "B"
    folder.tick()
    folder.looks["docs"] = "A"
    assert folder.settle() == []
    folder.looks["docs"] = "B"
    assert folder.tick() == []  # the earlier sight of B is forgotten


def test_one_unreachable_source_does_not_stop_the_others(folder: Folder) -> None:
    folder.settle()
    folder.looks = {"docs": PermissionError("/secret/place"), "wiki": "W2"}
    assert folder.settle() == ["wiki/2/W2"]
    result = folder.evaluate()
    assert result.skip_reason is not None
    assert "docs" in str(result.skip_reason.skip_message)
    assert "secret" not in f"{result.skip_reason.skip_message}{result.cursor}"
    assert read_states(folder.cursor)["docs"].error == "PermissionError"


def test_a_source_is_not_forgotten_while_unreachable(folder: Folder) -> None:
    folder.settle()
    folder.looks["docs"] = OSError()
    folder.settle()
    folder.looks["docs"] = "A"
    assert folder.settle() == []
    assert read_states(folder.cursor)["docs"].error is None


def test_a_listing_that_became_empty_is_requested_like_any_change(folder: Folder) -> None:
    folder.settle()
    folder.looks["docs"] = "empty"
    assert folder.settle() == ["docs/2/empty"]


def test_nothing_is_requested_while_the_same_is_queued(lifecycle: Lifecycle, folder: Folder) -> None:
    folder.settle()
    tags = {"genaiops/source": "docs", "genaiops/fingerprint": "B"}
    queued = folder.instance.create_run_for_job(
        lifecycle.plain.resolve_job_def("refresh_source"), status=dg.DagsterRunStatus.NOT_STARTED, tags=tags
    )
    folder.looks["docs"] = "B"
    assert folder.settle() == []
    folder.instance.delete_run(queued.run_id)
    assert folder.settle() == ["docs/2/B"]


def test_requests_carry_partition_and_tags(folder: Folder) -> None:
    folder.tick()
    request = (folder.evaluate().run_requests or [])[0]
    assert request.partition_key == "docs"
    assert request.tags["genaiops/source"] == "docs"
    assert request.tags["genaiops/fingerprint"] == "A"


def test_a_source_removed_from_the_configuration_leaves_the_cursor(lifecycle: Lifecycle, folder: Folder) -> None:
    folder.cursor = json.dumps({"gone": {"fingerprint": "G"}})
    folder.tick()
    assert set(read_states(folder.cursor)) == {"docs", "wiki"}


# --- reconcile ------------------------------------------------------------------------------------------


def behind(lifecycle: Lifecycle, instance: dg.DagsterInstance) -> list[str]:
    graph = lifecycle.plain.resolve_asset_graph()
    return [f"{item.job}:{item.asset}/{item.partition}" for item in find_behind(instance, graph, lifecycle.config)]


def whole(lifecycle: Lifecycle) -> dg.DagsterInstance:
    """An instance on which everything was made once."""
    instance = dg.DagsterInstance.ephemeral()
    defs = lifecycle.plain
    for job, partition in (("refresh_source", "docs"), ("build_dataset", "quiz"), ("run_experiment", "first")):
        assert run(defs, instance, job, partition).success
    return instance


def test_nothing_is_behind_after_everything_ran(lifecycle: Lifecycle) -> None:
    assert behind(lifecycle, whole(lifecycle)) == []


def test_nothing_is_behind_when_nothing_was_ever_made(lifecycle: Lifecycle) -> None:
    assert behind(lifecycle, dg.DagsterInstance.ephemeral()) == []


def test_an_unchanged_refresh_leaves_nothing_behind(lifecycle: Lifecycle) -> None:
    instance = whole(lifecycle)
    assert refresh(lifecycle, instance, "docs")
    assert behind(lifecycle, instance) == []


def test_a_refresh_that_died_half_way_is_behind(lifecycle: Lifecycle) -> None:
    instance = whole(lifecycle)
    lifecycle.versions["raw_documents"] = "2"
    make(lifecycle, instance, "raw_documents", "docs")
    assert behind(lifecycle, instance) == ["refresh_source:chunks/docs", "build_dataset:evaluation_dataset/quiz"]


def test_a_lost_update_is_behind_until_made(lifecycle: Lifecycle) -> None:
    instance = whole(lifecycle)
    lifecycle.versions["evaluation_dataset"] = "2"
    make(lifecycle, instance, "evaluation_dataset", "quiz")
    assert behind(lifecycle, instance) == ["run_experiment:scored_variants/first"]
    make(lifecycle, instance, "scored_variants", "first")
    assert behind(lifecycle, instance) == []


def test_an_update_during_the_run_that_missed_it_is_behind(lifecycle: Lifecycle) -> None:
    """Dagster notes upstream versions when a step ends, so the tag alone says the new version was read."""
    instance = whole(lifecycle)

    def update(asset: str, partition: str) -> None:
        if asset == "scored_variants":
            lifecycle.versions["search_index"] = "2"
            make(lifecycle, instance, "search_index", "docs")

    lifecycle.before_publishing = update
    assert make(lifecycle, instance, "scored_variants", "first")
    lifecycle.before_publishing = lambda asset, partition: None
    assert behind(lifecycle, instance) == ["run_experiment:scored_variants/first"]


def test_the_same_version_made_again_during_a_run_is_not_behind(lifecycle: Lifecycle) -> None:
    instance = whole(lifecycle)

    def again(asset: str, partition: str) -> None:
        if asset == "scored_variants":
            make(lifecycle, instance, "search_index", "docs")

    lifecycle.before_publishing = again
    assert make(lifecycle, instance, "scored_variants", "first")
    assert behind(lifecycle, instance) == []


def test_what_a_gate_holds_is_not_requested(lifecycle: Lifecycle) -> None:
    instance = whole(lifecycle)
    lifecycle.versions["evaluation_dataset"] = "2"
    make(lifecycle, instance, "evaluation_dataset", "quiz")
    lifecycle.failing = {"search_index/docs"}
    make(lifecycle, instance, "search_index", "docs")
    assert behind(lifecycle, instance) == []


def test_each_state_is_requested_once_and_not_while_running(
    make_platform: Callable[..., Platform], lifecycle: Lifecycle
) -> None:
    platform = make_platform(**TWO_SOURCES)
    instance = whole(lifecycle)
    lifecycle.versions["evaluation_dataset"] = "2"
    make(lifecycle, instance, "evaluation_dataset", "quiz")
    sensor = build_reconcile(lifecycle.config, build_jobs(lifecycle.config))

    def tick() -> list[Any]:
        context = dg.build_sensor_context(
            instance=instance, definitions=lifecycle.plain, resources={"platform": platform}
        )
        found: Any = sensor(context)
        return [item for item in found if isinstance(item, dg.RunRequest)]

    first, second = tick(), tick()
    assert [request.job_name for request in first] == ["run_experiment"]
    assert [request.run_key for request in first] == [request.run_key for request in second]
    lifecycle.versions["evaluation_dataset"] = "3"
    make(lifecycle, instance, "evaluation_dataset", "quiz")
    assert tick()[0].run_key != first[0].run_key
    instance.create_run_for_job(
        lifecycle.plain.resolve_job_def("run_experiment"),
        status=dg.DagsterRunStatus.STARTED,
        tags={"dagster/partition": "first"},
    )
    assert tick() == []


def test_damaged_documents_request_a_refresh_of_their_source(
    make_platform: Callable[..., Platform], lifecycle: Lifecycle
) -> None:
    platform = make_platform(**TWO_SOURCES)
    damage(platform)
    sensor = build_reconcile(lifecycle.config, build_jobs(lifecycle.config))
    context = dg.build_sensor_context(
        instance=dg.DagsterInstance.ephemeral(),
        definitions=lifecycle.plain,
        resources={"platform": platform},
    )
    found: Any = sensor(context)
    requests = list(found)
    assert [(request.job_name, request.partition_key) for request in requests] == [("refresh_source", "docs")]


def test_the_sensors_are_switched_on(lifecycle: Lifecycle) -> None:
    for sensor in lifecycle.plain.get_repository_def().sensor_defs:
        assert sensor.default_status == dg.DefaultSensorStatus.RUNNING, sensor.name
