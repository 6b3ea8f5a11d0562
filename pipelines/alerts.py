"""Alerts: tells people once what fails and once that it recovered.

Belongs here: gathering what fails now, remembering what was told (table ``alert``), deciding what to tell next.
Does not belong here: how a message travels (resources/notifier.py).

One polling sensor compares *levels*, not events: what fails now against what was told. An event stream with a cursor
loses what happened while it was down or passes a row before it is filled in; a level is the same after a restart.
A failure is told once, however often it repeats; its recovery is told once, after it held for a while, so that a
check that flaps is one message and not many. What a target accepted is recorded per target only after it accepted,
so an outage delays messages and loses none; a crash between acceptance and record repeats one.

| alert key | fails while |
| --- | --- |
| check:ASSET/CHECK[:PARTITION] | the latest result of the check did not pass (blocking or not, WARN or ERROR) |
| run:WHAT[:PARTITION] | the latest finished run failed, and no later one made the same |
| partition:ASSET:PARTITION | it was left failed by a run too old to be told as a run |
| freshness:ASSET[:PARTITION] | it was last made too long ago |
| index:NAME | the last audit found damaged documents |
| source:NAME | the source cannot be looked at |
| tick:NAME | the latest evaluation of a sensor or schedule failed |
| daemon:TYPE | a daemon of Dagster that was alive has no heartbeat, or reports errors |
| alerts:WHAT | one of the above could not be read |
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
from dagster._core.definitions.assets.graph.base_asset_graph import BaseAssetGraph
from dagster._core.definitions.freshness import FreshnessState
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.event_api import PartitionKeyFilter
from dagster._core.scheduler.instigation import InstigatorStatus, TickStatus
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus as CheckStatus

from pipelines.freshness import stale_sources
from pipelines.jobs import REFRESH_ASSETS
from pipelines.sensors import SOURCE_CHANGES, read_states
from pipelines.standing_checks import OPERATIONS_ASSET, damaged_documents, failed_partitions
from resources.config import ProjectConfig
from resources.erased_documents import ERASED
from resources.faults import crash_point
from resources.notifier import Message, Notifier, Target, build_notifier
from resources.platform import Platform
from resources.postgres import Connection

ALERTS = "alerts"

#: A recovery is told after it held this long; a relapse before that is the same failure.
SETTLE_SECONDS = 120
#: Runs older than this are no longer looked at; an alert about one stays until a later run succeeds.
RUN_DAYS = 30
#: A target that refused is asked again after this many seconds, doubling up to the maximum.
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 30, 1800
#: More new messages than this for one target become one digest.
DIGEST_ABOVE = 5
#: Seconds one tick may spend on telling; the rest waits for the next tick.
TICK_SECONDS = 25.0
_DIGEST_LINES = 50
_RUN_LIMIT = 2000
_PARTITION_TAG = "dagster/partition"
_WILL_RETRY_TAG = "dagster/will_retry"


@dataclass(frozen=True)
class Failure:
    """Something that fails now. ``run_id`` is the run to look at."""

    key: str
    title: str
    body: str
    run_id: str | None = None
    causes_run_failure: bool = False


@dataclass
class Gathered:
    """What one look found.

    Attributes:
        failing: by alert key.
        unknown: keys, and prefixes of keys, that could not be judged: their alerts neither start nor recover.
        recent_partitions: partitions with a finished run that was looked at.
    """

    failing: dict[str, Failure] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    recent_partitions: set[str] = field(default_factory=set)

    def add(self, failure: Failure) -> None:
        """Record a failure."""
        self.failing[failure.key] = failure

    def judged(self, key: str) -> bool:
        """Whether the state of ``key`` is known."""
        return not any(key == prefix or (prefix.endswith(":") and key.startswith(prefix)) for prefix in self.unknown)


@dataclass(frozen=True)
class World:
    """What the gatherers look at.

    Attributes:
        jobs: the assets each job makes.
        automations: names of the defined sensors and schedules.
        suspects: daemons found in trouble at the last tick; kept from tick to tick.
    """

    instance: dg.DagsterInstance
    graph: BaseAssetGraph
    jobs: Mapping[str, frozenset[dg.AssetKey]]
    automations: frozenset[str]
    platform: Platform
    now: datetime
    suspects: set[str]

    def has(self, asset: dg.AssetKey, partition: str | None) -> bool:
        """Whether the asset, and the partition of it, is still defined: a removed source is no news any more."""
        if not self.graph.has(asset):
            return False
        definition = self.graph.get(asset).partitions_def
        return partition is None or (definition is not None and definition.has_partition_key(partition))


def build_alert_sensor(
    config: ProjectConfig,
    *,
    notifier_of: Callable[[Platform], Notifier] | None = None,
    clock: Callable[[], float] = time.time,
) -> dg.SensorDefinition:
    """The sensor ``alerts``, switched on, every 30 seconds; it never raises and never waits for long.

    Args:
        config: everything under the data directory.
        notifier_of: replaces the notifier made from the environment.
        clock: seconds since the epoch, for back-off and settling.
    """
    build = notifier_of or (lambda platform: build_notifier(platform.artifacts, {**os.environ, **platform.environment}))
    made: list[Notifier] = []  # kept between ticks: it knows which service is still hanging
    suspects: set[str] = set()

    @dg.sensor(
        name=ALERTS,
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tells failed checks, failed runs, missed freshness and damage: once each, and their recovery.",
        target=None,
    )
    def alerts(context: dg.SensorEvaluationContext, platform: dg.ResourceParam[Platform]) -> dg.SensorResult:
        try:
            if not made:
                made.append(build(platform))
            for problem in made[0].problems:
                context.log.error(problem)
            world = _world(context, platform, datetime.fromtimestamp(clock(), UTC), suspects)
            gathered = gather(world, context.log.error)
            synchronise(platform, gathered, clock())
            waits = read_waits(context.cursor)
            told = deliver(platform, made[0].targets, waits, clock)
            return dg.SensorResult(
                skip_reason=f"{len(gathered.failing)} failing; {told} messages accepted"
                + "".join(f"; {problem}" for problem in made[0].problems),
                cursor=json.dumps({label: asdict(wait) for label, wait in waits.items()}, sort_keys=True),
            )
        except Exception as error:  # the alarm must go on ringing: the next tick tries again
            context.log.error(f"alerts could not be told: {type(error).__name__}")
            return dg.SensorResult(skip_reason=f"alerts could not be told: {type(error).__name__}")

    return alerts


def _world(context: dg.SensorEvaluationContext, platform: Platform, now: datetime, suspects: set[str]) -> World:
    repository = context.repository_def
    assert repository is not None
    return World(
        instance=context.instance,
        graph=repository.asset_graph,
        jobs={job.name: frozenset(job.asset_layer.executable_asset_keys) for job in repository.get_all_jobs()},
        automations=frozenset(item.name for item in [*repository.sensor_defs, *repository.schedule_defs]),
        platform=platform,
        now=now,
        suspects=suspects,
    )


# --- what fails now -------------------------------------------------------------------------------------


def gather(world: World, log: Callable[[str], Any]) -> Gathered:
    """Look at everything. A part that cannot be read is itself an alert, and leaves the others alone."""
    gathered = Gathered()
    for name, look, prefixes in _GATHERERS:
        try:
            look(world, gathered)
        except Exception as error:  # the other parts are still worth telling
            log(f"alerts: {name} cannot be read: {type(error).__name__}")
            gathered.unknown.update(prefixes)
            gathered.add(
                Failure(
                    f"alerts:{name}",
                    f"Alerts are blind for {name}",
                    f"{name} cannot be read ({type(error).__name__}). Nothing of this kind is told until it can.",
                )
            )
    _drop_explained(gathered)
    return gathered


def _gather_checks(world: World, gathered: Gathered) -> None:
    storage = world.instance.event_log_storage
    keys = sorted(
        # what the standing checks list is told one by one, at once and not hourly
        (key for key in world.graph.asset_check_keys if key.asset_key.to_user_string() != OPERATIONS_ASSET),
        key=lambda key: key.to_user_string(),
    )
    for info in storage.get_asset_check_partition_info(keys):
        key = info.check_key
        partition = info.partition_key
        alert_key = _named(f"check:{key.asset_key.to_user_string()}/{key.name}", partition)
        if info.latest_execution_status == CheckStatus.SUCCEEDED or not world.has(key.asset_key, partition):
            continue
        # The newest row may be a mere plan (running, or a run that died): the newest *evaluated* one decides.
        evaluated = storage.get_asset_check_execution_history(
            key,
            limit=1,
            status={CheckStatus.FAILED, CheckStatus.SUCCEEDED},
            partition_filter=PartitionKeyFilter(key=partition),
        )
        if not evaluated or evaluated[0].status == CheckStatus.SUCCEEDED:
            continue
        event = evaluated[0].event
        evaluation = event.asset_check_evaluation if event else None
        severity = evaluation.severity.value if evaluation else "ERROR"
        described = (evaluation.description if evaluation else None) or "did not pass"
        gathered.add(
            Failure(
                alert_key,
                f"Check {key.name} of {_named(key.asset_key.to_user_string(), partition, ' · ')}: {severity}",
                described,
                evaluated[0].run_id,
                causes_run_failure=bool(evaluation and evaluation.blocking and severity == "ERROR"),
            )
        )


def _gather_runs(world: World, gathered: Gathered) -> None:
    """Failed runs that no later one made good: the same job and partition, or one that makes all of its assets."""
    records = world.instance.get_run_records(
        dg.RunsFilter(
            statuses=[dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE],
            updated_after=world.now - timedelta(days=RUN_DAYS),
        ),
        limit=_RUN_LIMIT,
    )
    succeeded: list[tuple[str, str | None, frozenset[dg.AssetKey]]] = []
    seen: set[str] = set()
    for record in sorted(records, key=lambda item: item.end_time or 0.0, reverse=True):
        run = record.dagster_run
        partition = run.tags.get(_PARTITION_TAG)
        assets = frozenset(run.asset_selection or world.jobs.get(run.job_name, frozenset()))
        key = _run_key(world, run, partition)
        if partition:
            gathered.recent_partitions.add(partition)
        if not _still_defined(world, run.job_name, assets, partition):
            continue
        if run.status == dg.DagsterRunStatus.SUCCESS:
            succeeded.append((run.job_name, partition, assets))
            seen.add(key)
            continue
        if key in seen or run.tags.get(_WILL_RETRY_TAG) == "true":
            continue
        seen.add(key)
        if any(
            partition == other_partition and (assets <= other_assets if assets else run.job_name == job)
            for job, other_partition, other_assets in succeeded
        ):
            continue
        steps = world.instance.get_run_step_stats(run.run_id)
        failed = [step.step_key for step in steps if step.status and step.status.value == "FAILURE"]
        gathered.add(
            Failure(
                key,
                f"Run failed: {_named(key.removeprefix('run:').split(':')[0], partition, ' · ')}",
                f"failed steps: {', '.join(failed)}" if failed else "the run ended before any step failed (killed?)",
                run.run_id,
            )
        )
    # What was not seen failing is recovered only if something is known about it: else its alert stays.
    gathered.unknown |= {
        key for key in _open_keys(world.platform, "run:") if not _is_settled(world, key, seen, succeeded)
    }


def _still_defined(world: World, job: str, assets: frozenset[dg.AssetKey], partition: str | None) -> bool:
    if assets:
        return all(world.has(asset, partition) for asset in assets)
    return job in world.jobs


def _is_settled(
    world: World,
    key: str,
    seen: set[str],
    succeeded: Sequence[tuple[str, str | None, frozenset[dg.AssetKey]]],
) -> bool:
    """Whether a run alert's state is known: its runs were seen, what they make was made since, or exists no more."""
    if key in seen:
        return True
    what, _, partition = key.removeprefix("run:").partition(":")
    assets = _assets_of(what, world)
    if not _still_defined(world, what, assets, partition or None):
        return True
    return bool(assets) and any(
        (partition or None) == other_partition and assets <= other_assets
        for _, other_partition, other_assets in succeeded
    )


def _assets_of(what: str, world: World) -> frozenset[dg.AssetKey]:
    if what.startswith("["):
        return frozenset(dg.AssetKey.from_user_string(name) for name in what.strip("[]").split(","))
    return world.jobs.get(what, frozenset())


def _run_key(world: World, run: dg.DagsterRun, partition: str | None) -> str:
    """One key for what is made, whether a job or automation started the run."""
    if not run.asset_selection:
        return _named(f"run:{run.job_name}", partition)
    for job, assets in world.jobs.items():
        if assets == run.asset_selection and not job.startswith("__"):
            return _named(f"run:{job}", partition)
    names = sorted(key.to_user_string() for key in run.asset_selection)
    return _named(f"run:[{','.join(names)}]", partition)


def _gather_partitions(world: World, gathered: Gathered) -> None:
    definitions = {
        key: definition
        for key in world.graph.materializable_asset_keys
        if (definition := world.graph.get(key).partitions_def) is not None
    }
    for row in failed_partitions(world.instance, definitions):
        if row["partition"] not in gathered.recent_partitions:
            gathered.add(
                Failure(
                    f"partition:{row['asset']}:{row['partition']}",
                    f"Left failed: {row['asset']} · {row['partition']}",
                    f"its latest run failed more than {RUN_DAYS} days ago and nothing made it since",
                )
            )


def _gather_freshness(world: World, gathered: Gathered) -> None:
    partitioned: set[str] = set()
    for stale in stale_sources(world.instance, world.platform.config, world.now):
        partitioned.add(stale.asset)
        hours = (world.now - stale.last).total_seconds() / 3600
        gathered.add(
            Failure(
                f"freshness:{stale.asset}:{stale.partition}",
                f"Not fresh: {stale.asset} · {stale.partition}",
                f"last made {hours:.0f} hours ago; the limit is {stale.limit.total_seconds() / 3600:.0f} hours",
            )
        )
    watched = [key for key in world.graph.get_all_asset_keys() if world.graph.get(key).freshness_policy]
    records = world.instance.get_freshness_state_records(watched) if watched else {}
    for key, record in records.items():
        name = key.to_user_string()
        if record.freshness_state != FreshnessState.FAIL:
            continue
        if partitioned and name in REFRESH_ASSETS:
            gathered.unknown.add(f"freshness:{name}")  # the silent sources above say it better
        else:
            gathered.add(Failure(f"freshness:{name}", f"Not fresh: {name}", "its freshness policy is missed"))


def _gather_index(world: World, gathered: Gathered) -> None:
    by_index: dict[str, list[str]] = {}
    for row in damaged_documents(world.platform):
        by_index.setdefault(row["index"], []).append(f"{row['documents']} of {row['source']}")
    for index, sources in by_index.items():
        gathered.add(
            Failure(
                f"index:{index}",
                f"Index {index} is damaged",
                f"rows were lost or altered; damaged documents: {', '.join(sources)}. A refresh writes them anew.",
            )
        )


def _gather_ticks(world: World, gathered: Gathered) -> None:
    if world.instance.schedule_storage is None:  # an ephemeral instance evaluates nothing by itself
        return
    for state in world.instance.all_instigator_state():
        name = state.instigator_name
        if state.status == InstigatorStatus.STOPPED or name == ALERTS or name not in world.automations:
            continue
        ticks = world.instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=3)
        finished = next((tick for tick in ticks if tick.status != TickStatus.STARTED), None)
        if finished and finished.status == TickStatus.FAILURE:
            kind = "Schedule" if state.instigator_type == InstigatorType.SCHEDULE else "Sensor"
            gathered.add(
                Failure(
                    f"tick:{name}",
                    f"{kind} {name} fails",
                    f"its latest evaluation failed; see {world.platform.ui_url}/automation",
                )
            )
        if name == SOURCE_CHANGES:
            cursor = getattr(state.instigator_data, "cursor", None)
            for source, seen in read_states(cursor).items():
                if seen.error and source in world.platform.config.sources:
                    gathered.add(
                        Failure(
                            f"source:{source}",
                            f"Source {source} cannot be looked at",
                            f"{seen.error}; changes of this source are not noticed",
                        )
                    )


def _gather_daemons(world: World, gathered: Gathered) -> None:
    heartbeats = world.instance.get_daemon_heartbeats()
    troubled = {
        name
        for name, status in world.instance.get_daemon_statuses().items()
        if status.required and status.healthy is False and name in heartbeats
    }
    for name in troubled & world.suspects:  # twice in a row: right after a restart heartbeats are old
        errors = len(heartbeats[name].errors or [])
        body = f"it reports {errors} errors" if errors else "it has no heartbeat"
        gathered.add(Failure(f"daemon:{name}", f"Daemon {name} is in trouble", body))
    world.suspects.clear()
    world.suspects.update(troubled)


_GATHERERS: list[tuple[str, Callable[[World, Gathered], None], tuple[str, ...]]] = [
    ("checks", _gather_checks, ("check:",)),
    ("runs", _gather_runs, ("run:",)),
    ("partitions", _gather_partitions, ("partition:",)),
    ("freshness", _gather_freshness, ("freshness:",)),
    ("indexes", _gather_index, ("index:",)),
    ("sensors and schedules", _gather_ticks, ("tick:", "source:")),
    ("daemons", _gather_daemons, ("daemon:",)),
]


def _drop_explained(gathered: Gathered) -> None:
    """Tell a cause, not its echo: a run that failed because of a blocking check is told as that check."""
    causes = {failure.run_id for failure in gathered.failing.values() if failure.causes_run_failure}
    for key, failure in list(gathered.failing.items()):
        if key.startswith("run:") and failure.run_id in causes:
            del gathered.failing[key]


def _named(name: str, partition: str | None, separator: str = ":") -> str:
    return name if partition is None else f"{name}{separator}{partition}"


# --- what was told --------------------------------------------------------------------------------------


def _open_keys(platform: Platform, prefix: str) -> list[str]:
    with platform.database.connect() as connection:
        rows = connection.execute(
            "SELECT alert_key FROM alert WHERE state = 'failing' AND starts_with(alert_key, %s)", (prefix,)
        ).fetchall()
    return [row[0] for row in rows]


def synchronise(platform: Platform, gathered: Gathered, now: float) -> None:
    """Bring table ``alert`` in line with what fails now, in one transaction."""
    moment = datetime.fromtimestamp(now, UTC)
    with platform.database.connect() as connection:
        rows = connection.execute(
            "SELECT alert_key, state, told_recovered FROM alert WHERE state = 'failing' OR alert_key = ANY(%s) FOR UPDATE",
            (list(gathered.failing),),
        ).fetchall()
        known = {key: (state, told_recovered) for key, state, told_recovered in rows}
        for key, failure in gathered.failing.items():
            body = _body(platform, failure)
            failure, body = _without_erased(connection, failure, body)
            state, told_recovered = known.get(key, (None, False))
            if state is None or (state == "recovered" and told_recovered):
                connection.execute(
                    """INSERT INTO alert (alert_key, state, title, body, since, updated_at)
                       VALUES (%(key)s, 'failing', %(title)s, %(body)s, %(now)s, %(now)s)
                       ON CONFLICT (alert_key) DO UPDATE SET state = 'failing', title = %(title)s, body = %(body)s,
                           since = %(now)s, updated_at = %(now)s, told_failing = false, told_recovered = false,
                           tries = 0, delivered = '{}'""",
                    {"key": key, "title": failure.title, "body": body, "now": moment},
                )
            elif state == "recovered":  # a relapse before the recovery was told: the same failure
                connection.execute(
                    "UPDATE alert SET state = 'failing', title = %s, body = %s, updated_at = %s WHERE alert_key = %s",
                    (failure.title, body, moment, key),
                )
            else:
                connection.execute(
                    "UPDATE alert SET title = %s, body = %s WHERE alert_key = %s AND (title, body) <> (%s, %s)",
                    (failure.title, body, key, failure.title, body),
                )
        healed = [
            key
            for key, (state, _) in known.items()
            if state == "failing" and key not in gathered.failing and gathered.judged(key)
        ]
        connection.execute(
            "UPDATE alert SET state = 'recovered', updated_at = %s WHERE alert_key = ANY(%s)", (moment, healed)
        )


def _without_erased(connection: Connection, failure: Failure, body: str) -> tuple[Failure, str]:
    """Dagster's log still names a document that was erased; an alert made from it does not."""
    row = connection.execute(
        "SELECT 1 FROM forgotten WHERE position(path IN %s) > 0 OR position(path IN %s) > 0 LIMIT 1",
        (failure.title, body),
    ).fetchone()
    return (failure, body) if row is None else (replace(failure, title=failure.key), ERASED)


def _body(platform: Platform, failure: Failure) -> str:
    link = f"{platform.ui_url}/runs/{failure.run_id}" if failure.run_id else platform.ui_url
    return f"{failure.body}\n{link}"


# --- telling --------------------------------------------------------------------------------------------


@dataclass
class Wait:
    """Back-off of one target: refusals in a row, and when to ask again (seconds since the epoch)."""

    refusals: int = 0
    until: float = 0.0


@dataclass(frozen=True)
class _Pending:
    """One alert a target has not accepted yet."""

    key: str
    stage: str  # what to tell: 'failing' or 'recovered'
    title: str
    body: str


def read_waits(cursor: str | None) -> dict[str, Wait]:
    """Decode the cursor of ``alerts``."""
    return {label: Wait(**wait) for label, wait in json.loads(cursor or "{}").items()}


def deliver(platform: Platform, targets: Sequence[Target], waits: dict[str, Wait], clock: Callable[[], float]) -> int:
    """Tell each target what it has not accepted yet; return the number of messages accepted.

    Targets are independent: one that is down delays nobody and is asked again with growing pauses.
    """
    labels = [target.label for target in targets]
    deadline = time.monotonic() + TICK_SECONDS
    accepted = 0
    for label in set(waits) - set(labels):
        del waits[label]
    for target in targets:
        wait = waits.setdefault(target.label, Wait())
        for message, pending in _messages(platform, target.label, clock()):
            if clock() < wait.until or time.monotonic() > deadline:
                break
            if target.send(message):
                crash_point("alerts.accepted")
                _record(platform, target.label, pending)
                wait.refusals, wait.until = 0, 0.0
                accepted += 1
            else:
                wait.refusals += 1
                wait.until = clock() + min(FIRST_WAIT_SECONDS * 2 ** (wait.refusals - 1), LONGEST_WAIT_SECONDS)
                _count_try(platform, pending)
    _close(platform, labels)
    return accepted


def _messages(platform: Platform, label: str, now: float) -> Iterator[tuple[Message, list[_Pending]]]:
    """What to tell one target now, failures before recoveries; many at once become one digest."""
    for stage, kind in (("failing", "failure"), ("recovered", "recovered")):
        pending = _pending(platform, label, stage, now)
        if len(pending) > DIGEST_ABOVE:
            yield _digest(kind, pending), pending
        else:
            for item in pending:
                title, body = item.title, item.body
                if kind == "recovered":
                    title, body = f"Recovered: {title}", f"It was: {body}"
                yield Message(kind, title, body, (item.key,)), [item]  # pyright: ignore[reportArgumentType]


def _pending(platform: Platform, label: str, stage: str, now: float) -> list[_Pending]:
    settled = datetime.fromtimestamp(now - SETTLE_SECONDS, UTC)
    if stage == "failing":
        condition = "NOT told_failing AND NOT delivered ? %(label)s"
    else:
        condition = "state = 'recovered' AND NOT told_recovered AND delivered->>%(label)s = 'failing' AND updated_at <= %(settled)s"
    with platform.database.connect() as connection:
        rows = connection.execute(
            f"SELECT alert_key, title, body FROM alert WHERE {condition} ORDER BY since, alert_key",
            {"label": label, "settled": settled},
        ).fetchall()
    return [_Pending(key, stage, title, body) for key, title, body in rows]


def _digest(kind: str, pending: Sequence[_Pending]) -> Message:
    lines = [f"- {item.title}: {item.body.splitlines()[-1]}" for item in pending[:_DIGEST_LINES]]
    if len(pending) > _DIGEST_LINES:
        lines.append(f"... and {len(pending) - _DIGEST_LINES} more; `genaiops status` lists them all")
    title = f"{len(pending)} new failures" if kind == "failure" else f"{len(pending)} failures recovered"
    return Message(kind, title, "\n".join(lines), tuple(item.key for item in pending))  # pyright: ignore[reportArgumentType]


def _record(platform: Platform, label: str, pending: Sequence[_Pending]) -> None:
    with platform.database.connect() as connection:
        connection.execute(
            "UPDATE alert SET delivered = delivered || jsonb_build_object(%s::text, %s::text) WHERE alert_key = ANY(%s)",
            (label, pending[0].stage, [item.key for item in pending]),
        )


def _count_try(platform: Platform, pending: Sequence[_Pending]) -> None:
    with platform.database.connect() as connection:
        connection.execute(
            "UPDATE alert SET tries = tries + 1 WHERE alert_key = ANY(%s)", ([item.key for item in pending],)
        )


def _close(platform: Platform, labels: Sequence[str]) -> None:
    """Mark as told what every present target accepted; a target added later is not told old news."""
    with platform.database.connect() as connection:
        connection.execute(
            "UPDATE alert SET told_failing = true WHERE NOT told_failing AND delivered ?& %s", (list(labels),)
        )
        connection.execute(
            """UPDATE alert SET told_recovered = true
               WHERE state = 'recovered' AND told_failing AND NOT told_recovered AND NOT EXISTS (
                   SELECT 1 FROM jsonb_each_text(delivered) AS told(label, stage)
                   WHERE stage = 'failing' AND label = ANY(%s))""",
            (list(labels),),
        )
