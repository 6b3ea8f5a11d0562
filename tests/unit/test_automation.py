"""The conditions fire once per change, wait behind gates and running refreshes, and no silent source blocks them."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from pipelines.automation import build_automation_sensor
from resources.config import load_config
from tests.standins import TWO_SOURCES, Lifecycle, make, refresh


class Ticks:
    """Evaluates the conditions again and again on an ephemeral instance."""

    def __init__(self, lifecycle: Lifecycle, *, at: datetime | None = None) -> None:
        self.instance = dg.DagsterInstance.ephemeral()
        self.lifecycle = lifecycle
        self._cursor = None
        self.tick(at=at)  # the first evaluation only takes note

    def tick(self, *, at: datetime | None = None) -> dict[str, set[str]]:
        """Evaluate once; requested partitions by asset, without empty ones."""
        result = dg.evaluate_automation_conditions(
            self.lifecycle.plain, instance=self.instance, cursor=self._cursor, evaluation_time=at
        )
        self._cursor = result.cursor
        requested = {
            name: {key for key in result.get_requested_partitions(dg.AssetKey(name)) if key}
            for name in (
                "raw_documents",
                "chunks",
                "search_index",
                "evaluation_dataset",
                "scored_variants",
                "drift_report",
                "shadow_comparison",
            )
        }
        return {name: keys for name, keys in requested.items() if keys}


@pytest.fixture
def lifecycle(make_data_dir: Callable[..., Path]) -> Lifecycle:
    return Lifecycle(load_config(make_data_dir(**TWO_SOURCES)))


def test_a_change_is_requested_once(lifecycle: Lifecycle) -> None:
    ticks = Ticks(lifecycle)
    make(lifecycle, ticks.instance, "raw_documents", "docs")
    assert ticks.tick() == {"evaluation_dataset": {"quiz"}}
    assert ticks.tick() == {}


def test_the_same_data_version_requests_nothing(lifecycle: Lifecycle) -> None:
    ticks = Ticks(lifecycle)
    make(lifecycle, ticks.instance, "raw_documents", "docs")
    ticks.tick()
    make(lifecycle, ticks.instance, "raw_documents", "docs")
    assert ticks.tick() == {}
    lifecycle.versions["raw_documents"] = "2"
    make(lifecycle, ticks.instance, "raw_documents", "docs")
    assert ticks.tick() == {"evaluation_dataset": {"quiz"}}


def test_a_source_that_feeds_no_dataset_wakes_nobody(lifecycle: Lifecycle) -> None:
    ticks = Ticks(lifecycle)
    make(lifecycle, ticks.instance, "raw_documents", "wiki")
    assert ticks.tick() == {}


def test_a_source_never_loaded_does_not_block_others(make_data_dir: Callable[..., Path]) -> None:
    both = {"name": "quiz", "questions": "quiz.jsonl", "sources": ["docs", "wiki"]}
    lifecycle = Lifecycle(load_config(make_data_dir(**{**TWO_SOURCES, "evaluation/quiz.yaml": both})))
    ticks = Ticks(lifecycle)
    make(lifecycle, ticks.instance, "raw_documents", "docs")
    assert ticks.tick() == {"evaluation_dataset": {"quiz"}}


def test_a_failed_gate_holds_and_a_later_pass_releases(make_data_dir: Callable[..., Path]) -> None:
    both = {"name": "quiz", "questions": "quiz.jsonl", "sources": ["docs", "wiki"]}
    lifecycle = Lifecycle(load_config(make_data_dir(**{**TWO_SOURCES, "evaluation/quiz.yaml": both})))
    ticks = Ticks(lifecycle)
    lifecycle.failing = {"raw_documents/wiki"}
    assert not make(lifecycle, ticks.instance, "raw_documents", "wiki")
    make(lifecycle, ticks.instance, "raw_documents", "docs")
    assert ticks.tick() == {}
    assert ticks.tick() == {}
    lifecycle.failing = set()
    make(lifecycle, ticks.instance, "raw_documents", "wiki")
    assert ticks.tick() == {"evaluation_dataset": {"quiz"}}


def test_a_failed_hint_does_not_hold(lifecycle: Lifecycle) -> None:
    ticks = Ticks(lifecycle)
    lifecycle.warning = {"raw_documents/docs"}
    make(lifecycle, ticks.instance, "raw_documents", "docs")
    assert ticks.tick() == {"evaluation_dataset": {"quiz"}}


def test_a_running_refresh_holds_what_follows_it(lifecycle: Lifecycle) -> None:
    """The night refreshes every source: without this each would start an evaluation of its own."""
    ticks = Ticks(lifecycle)
    seen: list[dict[str, set[str]]] = []
    lifecycle.before_publishing = lambda asset, partition: seen.append(ticks.tick()) if asset == "embeddings" else None
    assert refresh(lifecycle, ticks.instance, "docs")
    lifecycle.before_publishing = lambda asset, partition: None
    assert seen == [{"evaluation_dataset": {"quiz"}}]  # its own upstream, raw_documents, is at rest already
    make(lifecycle, ticks.instance, "evaluation_dataset", "quiz")
    assert ticks.tick() == {"scored_variants": {"first"}}


def test_experiments_wait_for_the_index_being_made(lifecycle: Lifecycle) -> None:
    ticks = Ticks(lifecycle)
    make(lifecycle, ticks.instance, "evaluation_dataset", "quiz")
    seen: list[dict[str, set[str]]] = []
    lifecycle.before_publishing = lambda asset, partition: (
        seen.append(ticks.tick()) if asset == "search_index" else None
    )
    refresh(lifecycle, ticks.instance, "docs")
    lifecycle.before_publishing = lambda asset, partition: None
    assert "scored_variants" not in seen[0]
    assert ticks.tick()["scored_variants"] == {"first"}


def test_experiments_follow_the_index_and_the_dataset(lifecycle: Lifecycle) -> None:
    ticks = Ticks(lifecycle)
    make(lifecycle, ticks.instance, "evaluation_dataset", "quiz")
    assert ticks.tick() == {"scored_variants": {"first"}}
    make(lifecycle, ticks.instance, "search_index", "docs")
    ticks.tick()
    lifecycle.versions["search_index"] = "2"
    make(lifecycle, ticks.instance, "search_index", "docs")
    assert ticks.tick() == {"scored_variants": {"first"}}


def test_a_refresh_itself_is_never_requested_by_a_condition(lifecycle: Lifecycle) -> None:
    ticks = Ticks(lifecycle)
    lifecycle.versions["raw_documents"] = "2"
    make(lifecycle, ticks.instance, "raw_documents", "docs")
    assert set(ticks.tick()) == {"evaluation_dataset"}


def test_drift_is_requested_once_a_day_also_when_a_source_failed(lifecycle: Lifecycle) -> None:
    ticks = Ticks(lifecycle, at=datetime(2026, 3, 3, 3, 0, tzinfo=UTC))
    make(lifecycle, ticks.instance, "search_index", "docs")
    lifecycle.failing = {"search_index/wiki"}
    make(lifecycle, ticks.instance, "search_index", "wiki")
    assert "drift_report" not in ticks.tick(at=datetime(2026, 3, 3, 3, 30, tzinfo=UTC))
    assert ticks.tick(at=datetime(2026, 3, 3, 4, 1, tzinfo=UTC))["drift_report"] == {"2026-03-02"}
    assert "drift_report" not in ticks.tick(at=datetime(2026, 3, 3, 4, 2, tzinfo=UTC))
    assert ticks.tick(at=datetime(2026, 3, 4, 9, 0, tzinfo=UTC))["drift_report"] == {"2026-03-03"}


def test_live_questions_are_asked_again_once_a_day_and_by_nothing_else(lifecycle: Lifecycle) -> None:
    ticks = Ticks(lifecycle, at=datetime(2026, 3, 3, 4, 30, tzinfo=UTC))
    for asset, partition in (("search_index", "docs"), ("evaluation_dataset", "quiz"), ("scored_variants", "first")):
        make(lifecycle, ticks.instance, asset, partition)
    assert "shadow_comparison" not in ticks.tick(at=datetime(2026, 3, 3, 4, 45, tzinfo=UTC))
    assert ticks.tick(at=datetime(2026, 3, 3, 5, 1, tzinfo=UTC))["shadow_comparison"] == {"first"}
    assert "shadow_comparison" not in ticks.tick(at=datetime(2026, 3, 3, 5, 2, tzinfo=UTC))
    assert ticks.tick(at=datetime(2026, 3, 4, 9, 0, tzinfo=UTC))["shadow_comparison"] == {"first"}


def test_the_automation_sensor_is_switched_on() -> None:
    assert build_automation_sensor().default_status == dg.DefaultSensorStatus.RUNNING
