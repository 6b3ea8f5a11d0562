"""The standing checks list what is wrong everywhere, once an hour; they gate nothing. Maintenance keeps house."""

import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import dagster as dg
import pytest

from pipelines.freshness import stale_partitions
from pipelines.maintenance import purge_old_records
from pipelines.standing_checks import CHECKS
from resources.platform import Platform
from tests.standins import TWO_SOURCES, Lifecycle, refresh, run


@pytest.fixture
def platform(make_platform: Callable[..., Platform], monkeypatch: pytest.MonkeyPatch) -> Platform:
    audited: list[str] = []
    module = SimpleNamespace(audit=lambda platform, index: audited.append(index), audited=audited)
    monkeypatch.setitem(sys.modules, "assets.index.audit", module)  # pyright: ignore[reportArgumentType]
    return make_platform(**TWO_SOURCES)


def findings(lifecycle: Lifecycle, platform: Platform, instance: dg.DagsterInstance) -> dict[str, int]:
    """Run the standing checks; findings by check."""
    result = run(lifecycle.definitions(platform), instance, "standing_checks", None)
    assert result.success  # a finding is a failed check, never a failed run
    evaluations = result.get_asset_check_evaluations()
    assert {item.check_name for item in evaluations} == set(CHECKS)
    assert all(item.passed == (item.metadata["findings"].value == 0) and not item.blocking for item in evaluations)
    return {item.check_name: int(str(item.metadata["findings"].value)) for item in evaluations}


def test_a_partition_left_failed_is_listed_until_it_is_healed(platform: Platform) -> None:
    lifecycle, instance = Lifecycle(platform.config), dg.DagsterInstance.ephemeral()
    assert findings(lifecycle, platform, instance) == dict.fromkeys(CHECKS, 0)
    lifecycle.failing = {"chunks/docs"}
    refresh(lifecycle, instance, "docs")
    refresh(lifecycle, instance, "wiki")
    found = findings(lifecycle, platform, instance)
    assert found["no_partition_left_failed"] >= 1
    lifecycle.failing = set()
    refresh(lifecycle, instance, "docs")
    assert findings(lifecycle, platform, instance)["no_partition_left_failed"] == 0
    assert sys.modules["assets.index.audit"].audited == ["main"] * 3


def test_a_stale_source_is_seen_beside_a_fresh_one() -> None:
    now = datetime(2026, 3, 3, tzinfo=UTC)
    made = {"search_index": {"docs": now - timedelta(hours=37), "wiki": now - timedelta(hours=36)}}
    stale = stale_partitions(made, timedelta(hours=36), now)
    assert [(item.asset, item.partition) for item in stale] == [("search_index", "docs")]


def test_old_interactions_and_old_recovered_alerts_are_removed(platform: Platform) -> None:
    with platform.database.connect() as connection:
        connection.execute("INSERT INTO variant (fingerprint, name, config) VALUES ('v', 'v', '{}')")
        for number, age in enumerate((1, 400)):
            connection.execute(
                """INSERT INTO interaction (interaction_id, asked_at, question, answer, refused, citations, retrieved,
                       index_name, snapshot, variant, variant_reason, generation, usage, latency)
                   VALUES (%s, now() - make_interval(days => %s), 'q', 'a', false, '[]', '[]', 'main', 1, 'v', 'r', 'g', '{}', 0)""",
                (f"00000000-0000-0000-0000-00000000000{number}", age),
            )
        for key, state, told in (("a", "recovered", True), ("b", "failing", False), ("c", "recovered", False)):
            connection.execute(
                """INSERT INTO alert (alert_key, state, title, body, told_recovered, updated_at)
                   VALUES (%s, %s, 't', 'b', %s, now() - interval '100 days')""",
                (key, state, told),
            )
    assert purge_old_records(platform, 365) == {"interactions_deleted": 1, "alerts_deleted": 1}
    with platform.database.connect() as connection:
        left = connection.execute("SELECT alert_key FROM alert ORDER BY 1").fetchall()
    assert [row[0] for row in left] == ["b", "c"]


def test_one_failing_chore_does_not_stop_the_others(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object, **options: object) -> None:
        raise RuntimeError("no retention today")

    monkeypatch.setitem(sys.modules, "assets.index.retention", SimpleNamespace(apply_retention=broken))  # pyright: ignore[reportArgumentType]
    result = run(Lifecycle(platform.config).definitions(platform), dg.DagsterInstance.ephemeral(), "maintain", None)
    assert not result.success
    done = {event.step_key for event in result.all_events if event.is_step_success}
    assert done == {"purge_records", "slim_events", "retain_experiment_records", "finish_erasures"}
