"""The clock: every source each night, once; schedules on and in the configured time zone."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import dagster as dg
import pytest

from resources.config import load_config
from tests.standins import TWO_SOURCES, Lifecycle


@pytest.fixture
def lifecycle(make_data_dir: Callable[..., Path]) -> Lifecycle:
    return Lifecycle(load_config(make_data_dir(**TWO_SOURCES)))


def nightly(lifecycle: Lifecycle, when: datetime) -> list[dg.RunRequest]:
    repository = lifecycle.definitions().get_repository_def()
    schedule = repository.get_schedule_def("nightly_refresh")
    context = dg.build_schedule_context(
        instance=dg.DagsterInstance.ephemeral(), scheduled_execution_time=when, repository_def=repository
    )
    return list(schedule.evaluate_tick(context).run_requests or [])


def test_every_source_is_refreshed_once_a_night(lifecycle: Lifecycle) -> None:
    night = datetime(2026, 3, 3, 2, tzinfo=ZoneInfo("UTC"))
    requests = nightly(lifecycle, night)
    assert [(request.partition_key, request.tags["genaiops/source"]) for request in requests] == [
        ("docs", "docs"),
        ("wiki", "wiki"),
    ]
    assert [request.run_key for request in requests] == [request.run_key for request in nightly(lifecycle, night)]
    assert {request.run_key for request in requests}.isdisjoint(
        request.run_key for request in nightly(lifecycle, datetime(2026, 3, 4, 2, tzinfo=ZoneInfo("UTC")))
    )


def test_all_schedules_are_on_and_use_the_time_zone(lifecycle: Lifecycle) -> None:
    schedules = lifecycle.definitions(timezone="Europe/Berlin").get_repository_def().schedule_defs
    assert {schedule.name for schedule in schedules} == {
        "nightly_refresh", "nightly_maintenance", "hourly_standing_checks",
    }  # fmt: skip
    for schedule in schedules:
        assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
        assert schedule.execution_timezone == "Europe/Berlin"


def test_the_freshness_policies_reach_the_assets(lifecycle: Lifecycle) -> None:
    graph = lifecycle.definitions().resolve_asset_graph()
    with_policy = {key.to_user_string() for key in graph.get_all_asset_keys() if graph.get(key).freshness_policy}
    assert with_policy == {"raw_documents", "chunks", "embeddings", "search_index", "drift_report"}
