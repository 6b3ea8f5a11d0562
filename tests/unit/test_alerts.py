"""Each failure is told once, its recovery once, whatever kind it is and however often it repeats."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest

from pipelines.alerts import DIGEST_ABOVE, SETTLE_SECONDS, build_alert_sensor
from resources.notifier import Message, Notifier
from resources.platform import Platform
from tests.standins import TWO_SOURCES, Lifecycle, damage, make, refresh, run

CHECK = "check:raw_documents/gate:docs"


@dataclass
class Recorder:
    """A target that records what it accepts."""

    label: str = "recorder"
    up: bool = True
    messages: list[Message] = field(default_factory=list)
    asked: int = 0

    def send(self, message: Message) -> bool:
        self.asked += 1
        if self.up:
            self.messages.append(message)
        return self.up

    def take(self) -> list[tuple[str, str]]:
        """Kind and keys of what came since the last call."""
        taken = [(message.kind, " ".join(message.keys)) for message in self.messages]
        self.messages.clear()
        return taken


class Alarm:
    """The alert sensor, ticked by hand, with a clock of its own."""

    def __init__(self, platform: Platform, *targets: Recorder) -> None:
        self.platform = platform
        self.lifecycle = Lifecycle(platform.config)
        self.instance = dg.DagsterInstance.ephemeral()
        self.targets = targets
        self.now = datetime.now(UTC).timestamp()
        self.cursor: str | None = None
        self.restart()

    def restart(self) -> None:
        """As if the process had been started anew."""
        self.sensor = build_alert_sensor(
            self.platform.config, notifier_of=lambda platform: Notifier(self.targets), clock=lambda: self.now
        )

    def tick(self, *, after: float = 30) -> str:
        """One evaluation; the skip reason."""
        self.now += after
        context = dg.build_sensor_context(
            instance=self.instance,
            cursor=self.cursor,
            definitions=self.lifecycle.plain,
            resources={"platform": self.platform},
        )
        result: Any = self.sensor(context)
        self.cursor = result.cursor or self.cursor
        return str(result.skip_reason.skip_message)

    def settle(self) -> None:
        """Time passes until a recovery counts."""
        self.tick()
        self.tick(after=SETTLE_SECONDS + 1)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def alarm(make_platform: Callable[..., Platform], recorder: Recorder) -> Alarm:
    return Alarm(make_platform(**TWO_SOURCES), recorder)


def test_a_failed_gate_is_told_once_and_its_recovery_once(alarm: Alarm, recorder: Recorder) -> None:
    alarm.lifecycle.failing = {"raw_documents/docs"}
    assert not refresh(alarm.lifecycle, alarm.instance, "docs")
    alarm.tick()
    alarm.tick()
    refresh(alarm.lifecycle, alarm.instance, "docs")  # fails again: still the same failure
    alarm.tick()
    assert recorder.take() == [("failure", CHECK)]  # and not also the run it failed
    alarm.lifecycle.failing = set()
    assert refresh(alarm.lifecycle, alarm.instance, "docs")
    alarm.settle()
    alarm.settle()
    assert recorder.take() == [("recovered", CHECK)]
    alarm.lifecycle.failing = {"raw_documents/docs"}
    refresh(alarm.lifecycle, alarm.instance, "docs")
    alarm.tick()
    assert recorder.take() == [("failure", CHECK)]  # a new failure is news again


def test_a_warning_that_blocks_nothing_is_told(alarm: Alarm, recorder: Recorder) -> None:
    alarm.lifecycle.warning = {"chunks/wiki"}
    assert refresh(alarm.lifecycle, alarm.instance, "wiki")
    alarm.tick()
    assert "WARN" in recorder.messages[0].title
    assert recorder.take() == [("failure", "check:chunks/hint:wiki")]


def test_partitions_are_told_apart(alarm: Alarm, recorder: Recorder) -> None:
    alarm.lifecycle.failing = {"raw_documents/docs"}
    refresh(alarm.lifecycle, alarm.instance, "docs")
    refresh(alarm.lifecycle, alarm.instance, "wiki")  # passing, and later: must not hide the failure of docs
    alarm.tick()
    assert recorder.take() == [("failure", CHECK)]


def test_the_message_links_to_the_run(alarm: Alarm, recorder: Recorder) -> None:
    alarm.lifecycle.broken = {"embeddings/docs"}
    result = run(alarm.lifecycle.plain, alarm.instance, "refresh_source", "docs")
    alarm.tick()
    assert recorder.messages[0].body.endswith(f"http://127.0.0.1:3000/runs/{result.run_id}")
    assert "embeddings" in recorder.messages[0].body
    assert "broken on purpose" not in recorder.messages[0].body


def test_a_failed_run_recovers_with_a_later_success_of_the_same(alarm: Alarm, recorder: Recorder) -> None:
    alarm.lifecycle.broken = {"embeddings/docs"}
    refresh(alarm.lifecycle, alarm.instance, "docs")
    refresh(alarm.lifecycle, alarm.instance, "wiki")
    alarm.settle()
    assert recorder.take() == [("failure", "run:refresh_source:docs")]
    alarm.lifecycle.broken = set()
    refresh(alarm.lifecycle, alarm.instance, "docs")
    alarm.settle()
    assert recorder.take() == [("recovered", "run:refresh_source:docs")]


def test_a_failed_partial_run_recovers_with_a_run_that_makes_all_of_it(alarm: Alarm, recorder: Recorder) -> None:
    alarm.lifecycle.broken = {"chunks/docs"}
    run(alarm.lifecycle.plain, alarm.instance, "refresh_source", "docs", asset_selection=[dg.AssetKey("chunks")])
    alarm.tick()
    assert recorder.take() == [("failure", "run:[chunks]:docs")]
    make(alarm.lifecycle, alarm.instance, "raw_documents", "docs")
    alarm.settle()
    assert recorder.take() == []
    alarm.lifecycle.broken = set()
    refresh(alarm.lifecycle, alarm.instance, "docs")
    alarm.settle()
    assert recorder.take() == [("recovered", "run:[chunks]:docs")]


def test_the_same_work_is_one_failure_whoever_started_it(alarm: Alarm, recorder: Recorder) -> None:
    alarm.lifecycle.broken = {"evaluation_dataset/quiz"}
    run(alarm.lifecycle.plain, alarm.instance, "build_dataset", "quiz")
    selection = [dg.AssetKey("evaluation_dataset")]
    run(alarm.lifecycle.plain, alarm.instance, "build_dataset", "quiz", asset_selection=selection)
    alarm.tick()
    assert recorder.take() == [("failure", "run:build_dataset:quiz")]


def test_a_run_that_will_be_retried_is_not_told(alarm: Alarm, recorder: Recorder) -> None:
    run_of = alarm.instance.create_run_for_job(
        alarm.lifecycle.plain.resolve_job_def("refresh_source"),
        status=dg.DagsterRunStatus.FAILURE,
        tags={"dagster/partition": "docs", "dagster/will_retry": "true"},
    )
    alarm.tick()
    assert recorder.take() == []
    alarm.instance.add_run_tags(run_of.run_id, {"dagster/will_retry": "false"})
    alarm.tick()
    assert recorder.take() == [("failure", "run:refresh_source:docs")]


def test_a_running_check_neither_hides_nor_ends_a_failure(alarm: Alarm, recorder: Recorder) -> None:
    alarm.lifecycle.failing = {"raw_documents/docs"}
    refresh(alarm.lifecycle, alarm.instance, "docs")
    alarm.tick()
    recorder.take()
    alarm.lifecycle.before_publishing = lambda asset, partition: None
    alarm.lifecycle.broken = {"raw_documents/docs"}  # dies before any check is evaluated
    refresh(alarm.lifecycle, alarm.instance, "docs")
    alarm.settle()
    assert ("recovered", CHECK) not in recorder.take()


def test_a_silent_source_is_told_although_another_is_fresh(alarm: Alarm, recorder: Recorder) -> None:
    refresh(alarm.lifecycle, alarm.instance, "docs")
    alarm.tick(after=timedelta(hours=37).total_seconds())
    assert recorder.take() == [("failure", "freshness:search_index:docs")]
    alarm.now = datetime.now(UTC).timestamp()
    refresh(alarm.lifecycle, alarm.instance, "docs")
    alarm.settle()
    alarm.settle()
    assert recorder.take() == [("recovered", "freshness:search_index:docs")]


def test_flapping_is_one_message(alarm: Alarm, recorder: Recorder) -> None:
    for _ in range(4):
        alarm.lifecycle.failing = {"raw_documents/docs"}
        refresh(alarm.lifecycle, alarm.instance, "docs")
        alarm.tick()
        alarm.lifecycle.failing = set()
        refresh(alarm.lifecycle, alarm.instance, "docs")
        alarm.tick()
    assert recorder.take() == [("failure", CHECK)]
    alarm.settle()
    assert recorder.take() == [("recovered", CHECK)]


def test_many_at_once_are_one_digest(alarm: Alarm, recorder: Recorder) -> None:
    alarm.lifecycle.warning = {
        f"{asset}/{source}"
        for asset in ("raw_documents", "chunks", "embeddings", "search_index")
        for source in ("docs", "wiki")
    }
    refresh(alarm.lifecycle, alarm.instance, "docs")
    refresh(alarm.lifecycle, alarm.instance, "wiki")
    alarm.tick()
    alarm.tick()
    assert len(recorder.messages) == 1
    assert len(recorder.messages[0].keys) == 8 > DIGEST_ABOVE
    assert recorder.messages[0].title == "8 new failures"


def test_one_target_that_is_down_delays_only_itself(make_platform: Callable[..., Platform]) -> None:
    up, down = Recorder("up"), Recorder("down", up=False)
    alarm = Alarm(make_platform(**TWO_SOURCES), down, up)
    alarm.lifecycle.warning = {"chunks/wiki"}
    refresh(alarm.lifecycle, alarm.instance, "wiki")
    alarm.tick()
    alarm.lifecycle.warning = set()
    refresh(alarm.lifecycle, alarm.instance, "wiki")
    alarm.settle()
    alarm.settle()
    assert [kind for kind, _ in up.take()] == ["failure", "recovered"]
    down.up = True
    alarm.tick(after=4000)
    alarm.tick()
    assert [kind for kind, _ in down.take()] == ["failure", "recovered"]  # late, complete and in order
    assert up.take() == []


def test_a_target_that_refuses_is_asked_with_growing_pauses(alarm: Alarm, recorder: Recorder) -> None:
    recorder.up = False
    alarm.lifecycle.warning = {"chunks/wiki"}
    refresh(alarm.lifecycle, alarm.instance, "wiki")
    for _ in range(25):
        alarm.tick(after=60)
    assert 4 <= recorder.asked <= 6  # after 30, 60, 120, 240, 480 ... seconds


def test_a_target_added_later_is_not_told_old_news(make_platform: Callable[..., Platform]) -> None:
    first, second = Recorder("first"), Recorder("second")
    alarm = Alarm(make_platform(**TWO_SOURCES), first)
    alarm.lifecycle.warning = {"chunks/wiki"}
    refresh(alarm.lifecycle, alarm.instance, "wiki")
    alarm.tick()
    alarm.targets = (first, second)
    alarm.restart()
    alarm.lifecycle.warning = set()
    refresh(alarm.lifecycle, alarm.instance, "wiki")
    alarm.settle()
    assert second.take() == []
    assert [kind for kind, _ in first.take()] == ["failure", "recovered"]


def test_a_part_that_cannot_be_read_is_told_and_recovers_nothing_by_mistake(
    alarm: Alarm, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    alarm.lifecycle.warning = {"chunks/wiki"}
    refresh(alarm.lifecycle, alarm.instance, "wiki")
    alarm.tick()
    recorder.take()

    def unreadable(*args: object, **kwargs: object) -> None:
        raise ConnectionError("secret address")

    storage = type(alarm.instance.event_log_storage)
    with monkeypatch.context() as patch:
        patch.setattr(storage, "get_asset_check_partition_info", unreadable)
        alarm.settle()
    assert recorder.take() == [("failure", "alerts:checks")]
    alarm.settle()
    assert recorder.take() == [("recovered", "alerts:checks")]


def test_an_unreachable_database_does_not_raise_out_of_the_tick(alarm: Alarm, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*args: object, **kwargs: object) -> None:
        raise ConnectionError("password=hunter2")

    monkeypatch.setattr(alarm.platform.database, "connect", gone)
    said = alarm.tick()
    assert "could not be told" in said
    assert "hunter2" not in said


def test_what_is_no_longer_configured_is_no_news(make_platform: Callable[..., Platform]) -> None:
    recorder = Recorder()
    alarm = Alarm(make_platform(**TWO_SOURCES), recorder)
    alarm.lifecycle.failing = {"raw_documents/wiki"}
    alarm.lifecycle.broken = {"chunks/wiki"}
    refresh(alarm.lifecycle, alarm.instance, "wiki")
    alarm.tick()
    recorder.take()
    one = {"sources": [{"name": "docs", "path": "docs"}]}
    alarm.platform = make_platform(**{**TWO_SOURCES, "sources.yaml": one})
    alarm.lifecycle = Lifecycle(alarm.platform.config)
    alarm.restart()
    alarm.settle()
    assert recorder.take() == [("recovered", "check:raw_documents/gate:wiki")]


def test_damage_found_by_the_audit_is_told(alarm: Alarm, recorder: Recorder) -> None:
    damage(alarm.platform)
    alarm.tick()
    assert recorder.take() == [("failure", "index:main")]
