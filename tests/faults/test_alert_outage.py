"""The notification service is down, slow, failing, then up again: every failure arrives exactly once."""

import time
from collections.abc import Callable
from typing import Any

import dagster as dg
import pytest

from pipelines.alerts import SETTLE_SECONDS, build_alert_sensor
from resources.notifier import build_notifier
from resources.platform import Platform
from tests.standins import TWO_SOURCES, Lifecycle, refresh, run
from tests.webhook import Webhook

CANARY = "c4n4ry-s3cr3t"
GATE = "Check gate of raw_documents · docs: ERROR"
HINT = "Check hint of chunks · wiki: WARN"


class Station:
    """The alert sensor on one instance and one database, restartable, against a real HTTP service."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.lifecycle = Lifecycle(platform.config)
        self.instance = dg.DagsterInstance.ephemeral()
        self.now = 1_800_000_000.0
        self.cursor: str | None = None
        self.said: list[str] = []
        self.start("json://127.0.0.1:9/nobody")

    def start(self, *urls: str) -> None:
        """(Re)start with these services."""
        environment = {"GENAIOPS_NOTIFY_URLS": " ".join(urls)}
        self.sensor = build_alert_sensor(
            self.platform.config,
            notifier_of=lambda platform: build_notifier(platform.artifacts, environment),
            clock=lambda: self.now,
        )

    def tick(self, *, after: float = 30) -> None:
        """One evaluation; its cursor is committed, as Dagster does."""
        self.now += after
        context = dg.build_sensor_context(
            instance=self.instance,
            cursor=self.cursor,
            definitions=self.lifecycle.plain,
            resources={"platform": self.platform},
        )
        result: Any = self.sensor(context)
        self.cursor = result.cursor or self.cursor
        self.said += [str(result.skip_reason.skip_message), str(self.cursor)]

    def later(self) -> None:
        """Long enough for back-off and settling to pass."""
        self.tick(after=4000)
        self.tick(after=SETTLE_SECONDS + 1)


@pytest.fixture
def station(make_platform: Callable[..., Platform], monkeypatch: pytest.MonkeyPatch) -> Station:
    monkeypatch.setattr("resources.notifier._DEADLINE_SECONDS", 0.5)
    station = Station(make_platform(**TWO_SOURCES))
    station.now = time.time()
    station.lifecycle.failing = {"raw_documents/docs"}
    station.lifecycle.warning = {"chunks/wiki"}
    assert not refresh(station.lifecycle, station.instance, "docs")
    assert refresh(station.lifecycle, station.instance, "wiki")
    return station


def test_nothing_is_lost_or_doubled_by_an_outage(station: Station) -> None:
    """Down, answering 500, hanging, up: blocking ERROR and non-blocking WARN arrive once each."""
    station.tick()
    with Webhook(status=500) as hook:
        station.start(hook.url)
        station.tick(after=4000)
        station.tick(after=4000)
        assert hook.titles == []
        hook.status = 200
        station.later()
        station.later()
        assert sorted(hook.titles) == [GATE, HINT]


def test_a_failure_that_came_and_went_during_the_outage_is_told_with_its_recovery(station: Station) -> None:
    station.tick()
    station.lifecycle.failing, station.lifecycle.warning = set(), set()
    refresh(station.lifecycle, station.instance, "docs")
    refresh(station.lifecycle, station.instance, "wiki")
    station.later()
    with Webhook() as hook:
        station.start(hook.url)
        station.later()
        station.later()
        assert sorted(hook.titles) == sorted([GATE, HINT, f"Recovered: {GATE}", f"Recovered: {HINT}"])
        assert hook.titles.index(GATE) < hook.titles.index(f"Recovered: {GATE}")


def test_a_restart_tells_nothing_again(station: Station) -> None:
    with Webhook() as hook:
        station.start(hook.url)
        station.tick()
        station.cursor = None  # even with the cursor lost
        station.start(hook.url)
        station.later()
        assert sorted(hook.titles) == [GATE, HINT]


def test_a_hanging_service_delays_nobody_else(station: Station) -> None:
    with Webhook() as slow, Webhook() as quick:
        slow.hold.clear()
        station.start(slow.url.replace("/hook", "/slow"), quick.url)
        station.tick()
        assert sorted(quick.titles) == [GATE, HINT]
        assert slow.requests == 1
        station.tick()
        assert slow.requests == 1
        slow.hold.set()


def test_a_secret_in_the_url_is_found_nowhere(
    station: Station, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture
) -> None:
    with caplog.at_level("DEBUG"), Webhook(status=500) as hook:
        url = hook.url.replace("json://", f"json://bot:{CANARY}@") + f"/{CANARY}?+X-Token={CANARY}"
        station.start(url, f"unknown://{CANARY}")
        station.later()
        hook.status = 200
        station.later()
        assert len(hook.titles) == 2
    with station.platform.database.connect() as connection:
        rows = connection.execute("SELECT to_jsonb(alert)::text FROM alert").fetchall()
    printed = capfd.readouterr()
    ticks = "".join(station.said)
    assert "unknown://" in ticks  # the unusable entry is named, without what it holds
    for place, text in {
        "table": str(rows),
        "logs": caplog.text,
        "output": printed.out + printed.err,
        "ticks": ticks,
        "messages": str(hook.received),
    }.items():
        assert CANARY not in text, place


def test_a_killed_run_is_told_once(station: Station) -> None:
    """A run whose process died has no failed step: run monitoring marks it failed."""
    job = station.lifecycle.plain.resolve_job_def("run_experiment")
    dead = station.instance.create_run_for_job(
        job, status=dg.DagsterRunStatus.STARTED, tags={"dagster/partition": "first"}
    )
    with Webhook() as hook:
        station.start(hook.url)
        station.tick()
        station.instance.report_run_failed(dead)
        station.tick()
        station.tick()
        assert hook.titles.count("Run failed: run_experiment · first") == 1
        assert run(station.lifecycle.plain, station.instance, "run_experiment", "first").success
        station.later()
        station.later()
        assert hook.titles.count("Recovered: Run failed: run_experiment · first") == 1
