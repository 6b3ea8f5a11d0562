"""Sensors: what starts because something changed, and what heals a change that was missed.

Belongs here: ``source_changes`` (the world outside) and ``reconcile`` (what was lost inside).
Does not belong here: alerts (alerts.py), the clock (schedules.py), conditions between assets (automation.py).
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import dagster as dg
from dagster._core.definitions.assets.graph.base_asset_graph import BaseAssetGraph
from dagster._core.definitions.partitions.context import partition_loading_context
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster._core.storage.dagster_run import IN_PROGRESS_RUN_STATUSES

from pipelines.jobs import (
    DATASET_ASSET,
    DATASET_JOB,
    EXPERIMENT_ASSET,
    EXPERIMENT_JOB,
    FINGERPRINT_TAG,
    JUDGE_ASSET,
    ORIGIN_TAG,
    REFRESH_ASSETS,
    REFRESH_JOB,
    SOURCE_TAG,
    SYNTHESIS_ASSET,
    SYNTHESIS_JOB,
    refresh_request,
)
from pipelines.recovery import fail_abandoned_runs
from pipelines.standing_checks import damaged_documents
from resources.config import ProjectConfig
from resources.fingerprint import fingerprint
from resources.platform import Platform
from resources.sharding import source_of

SOURCE_CHANGES = "source_changes"
RECONCILE = "reconcile"

#: A source that never rests (a log folder) is refreshed every so many ticks anyway: ten minutes.
UNSETTLED_TICKS = 20
#: For so long the shards of a source believe one look at it: less than a tick.
SHARED_SECONDS = 20.0
_WAITING = [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.QUEUED]

#: Cheap fingerprint of what a source holds now: ``source name -> text``.
FingerprintOf = Callable[[str], str]


@dataclass(frozen=True)
class SourceState:
    """What the sensor remembers of one source.

    Attributes:
        fingerprint: what the last refresh was requested for; None before the first request.
        sequence: how many refreshes were requested; in the run key, so that A, B, A are three runs.
        pending: a differing fingerprint seen at the last tick.
        waited: ticks since the source began to differ.
        error: why the source could not be looked at, for alerts.
    """

    fingerprint: str | None = None
    sequence: int = 0
    pending: str | None = None
    waited: int = 0
    error: str | None = None


def read_states(cursor: str | None) -> dict[str, SourceState]:
    """Decode the cursor of ``source_changes``."""
    return {source: SourceState(**state) for source, state in json.loads(cursor or "{}").items()}


def next_state(state: SourceState, now: str) -> tuple[SourceState, bool]:
    """Advance one source by one tick on which it looks like ``now``; say whether to request a refresh.

    A change is requested when it looks the same on two ticks in a row, because a folder that is just being copied
    looks different each time; or after ``UNSETTLED_TICKS`` ticks of unrest.
    """
    if now == state.fingerprint:
        return replace(state, pending=None, waited=0, error=None), False
    if now == state.pending or state.waited + 1 >= UNSETTLED_TICKS:
        return SourceState(now, state.sequence + 1), True
    return replace(state, pending=now, waited=state.waited + 1, error=None), False


def build_sensors(
    config: ProjectConfig,
    jobs: Sequence[UnresolvedAssetJobDefinition],
    *,
    fingerprint_of: FingerprintOf | None = None,
) -> list[dg.SensorDefinition]:
    """The sensors, all switched on; ``jobs`` are those of ``build_jobs``.

    ``fingerprint_of`` replaces looking at the real sources.
    """
    return [build_source_changes(config, fingerprint_of), build_reconcile(config, jobs)]


# --- source_changes -------------------------------------------------------------------------------------


def build_source_changes(config: ProjectConfig, fingerprint_of: FingerprintOf | None = None) -> dg.SensorDefinition:
    """Requests one refresh per settled change of a source.

    The cursor moves together with the request, and the run key ``source/sequence/fingerprint`` is derived from it: a
    crash between the two repeats the same key, which Dagster recognises. The sensor only ever asks for a refresh;
    that an empty listing deletes nothing is decided by the refresh and its checks.
    """
    look = fingerprint_of or _look_at(config)

    @dg.sensor(
        name=SOURCE_CHANGES,
        job_name=REFRESH_JOB,
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Refreshes a source when its cheap fingerprint changed and is settled (the same on two ticks).",
    )
    def source_changes(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        known = read_states(context.cursor)
        states: dict[str, SourceState] = {}
        requests: list[dg.RunRequest] = []
        for source in config.sources:
            state = known.get(source, SourceState())
            try:
                now = look(source)
            except Exception as error:  # one source that cannot be reached must not silence the others
                context.log.error(f"source {source} cannot be looked at: {type(error).__name__}")
                states[source] = replace(state, error=type(error).__name__)
                continue
            advanced, wanted = next_state(state, now)
            if wanted and _is_waiting(context.instance, source, now):
                states[source] = replace(state, pending=now, error=None)  # that run will see this; look again then
                continue
            states[source] = advanced
            if wanted:
                requests.append(
                    refresh_request(
                        source,
                        run_key=f"{source}/{advanced.sequence}/{now}",
                        origin=SOURCE_CHANGES,
                        fingerprint=now,
                    )
                )
        cursor = json.dumps({source: asdict(state) for source, state in states.items()}, sort_keys=True)
        return dg.SensorResult(
            run_requests=requests, cursor=cursor, skip_reason=None if requests else _why_nothing(states)
        )

    return source_changes


def _look_at(config: ProjectConfig) -> FingerprintOf:
    seen: dict[str, tuple[float, str]] = {}  # the shards of a source share one look

    def look(source: str) -> str:
        from resources.document_sources import open_source

        name = source_of(source)
        when, found = seen.get(name, (-math.inf, ""))
        if name == source or time.monotonic() - when > SHARED_SECONDS:
            found = open_source(config, source).fingerprint()
            seen[name] = (time.monotonic(), found)
        return found

    return look


def _is_waiting(instance: dg.DagsterInstance, source: str, now: str) -> bool:
    return bool(
        instance.get_run_records(
            dg.RunsFilter(job_name=REFRESH_JOB, statuses=_WAITING, tags={SOURCE_TAG: source, FINGERPRINT_TAG: now}),
            limit=1,
        )
    )


def _why_nothing(states: dict[str, SourceState]) -> str:
    unreachable = [source for source, state in states.items() if state.error]
    settling = [source for source, state in states.items() if state.pending and not state.error]
    reasons = []
    if unreachable:
        reasons.append(f"cannot be looked at: {', '.join(unreachable)}")
    if settling:
        reasons.append(f"changed, waiting until settled: {', '.join(settling)}")
    return "; ".join(reasons) or "no source changed"


# --- reconcile ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Behind:
    """A partition that was made from older versions than its upstreams have now; ``state`` names those versions."""

    job: str
    asset: str
    partition: str
    state: str


def build_reconcile(config: ProjectConfig, jobs: Sequence[UnresolvedAssetJobDefinition]) -> dg.SensorDefinition:
    """Requests what is behind its upstreams although nothing asks for it any more.

    An automation condition loses an update that falls between the same two ticks as a request or as the end of an
    older run, and a refresh that was killed for good leaves its later assets behind. This compares recorded
    versions instead of events, so whatever the reason was, it converges. Each state is requested once: the run key
    names the upstream versions, so that a run that fails for good is not requested for ever (it is alerted).
    """

    @dg.sensor(
        name=RECONCILE,
        jobs=[job for job in jobs if job.name in (REFRESH_JOB, DATASET_JOB, SYNTHESIS_JOB, EXPERIMENT_JOB)],
        minimum_interval_seconds=300,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Makes what is behind its upstreams, repairs damaged documents (once per state), ends lost runs.",
    )
    def reconcile(
        context: dg.SensorEvaluationContext, platform: dg.ResourceParam[Platform]
    ) -> Iterator[dg.RunRequest | dg.SkipReason]:
        assert context.repository_def is not None
        fail_abandoned_runs(context.instance)  # they are retried, and no longer count as running below
        found = [
            *find_behind(context.instance, context.repository_def.asset_graph, config),
            *_damaged(platform),
            *_unbuilt(platform),
        ]
        requested: set[tuple[str, str]] = set()
        for item in found:
            if (item.job, item.partition) not in requested and not _is_running(context.instance, item):
                requested.add((item.job, item.partition))
                yield _request(item)
        if not requested:
            yield dg.SkipReason("nothing is behind" if not found else "what is behind is being made")

    return reconcile


def find_behind(instance: dg.DagsterInstance, graph: BaseAssetGraph, config: ProjectConfig) -> list[Behind]:
    """Partitions that are behind, upstream first; nothing downstream of one that is itself behind."""
    found: list[Behind] = []
    pending: set[tuple[str, str]] = set()
    jobs = {
        **dict.fromkeys(REFRESH_ASSETS[1:], REFRESH_JOB),
        DATASET_ASSET: DATASET_JOB,
        SYNTHESIS_ASSET: SYNTHESIS_JOB,
        EXPERIMENT_ASSET: EXPERIMENT_JOB,
    }
    present = graph.get_all_asset_keys()
    for asset, job in jobs.items():
        key = dg.AssetKey(asset)
        if key not in present:
            continue
        for partition in _partitions(config, asset):
            upstreams = _upstreams(graph, key, partition)
            if any((parent.to_user_string(), name) in pending for parent, names in upstreams for name in names):
                pending.add((asset, partition))
                continue
            state = _state_if_behind(instance, graph, key, partition, upstreams)
            if state:
                pending.add((asset, partition))
                found.append(Behind(job, asset, partition, state))
    return found


def _state_if_behind(
    instance: dg.DagsterInstance,
    graph: BaseAssetGraph,
    key: dg.AssetKey,
    partition: str,
    upstreams: Sequence[tuple[dg.AssetKey, list[str]]],
) -> str | None:
    mine = _newest(instance, key, partition)
    behind = mine is None
    versions: dict[str, dict[str, str]] = {}
    for parent, names in upstreams:
        made = {name: record for name in sorted(names) if (record := _newest(instance, parent, name))}
        if not made or _gate_failed(instance, graph, parent, list(made)):
            if parent.to_user_string() == JUDGE_ASSET:
                continue  # a judge may inform without having been compared with people
            return None  # nothing to be made from yet, or held by a gate
        current = {name: _version(record) for name, record in made.items()}
        versions[parent.to_user_string()] = current
        if mine and not behind:
            tags = _tags(mine)
            seen = tags.get(f"dagster/input_data_version/{parent.to_user_string()}")
            joined = "".join(current.values())
            if seen not in (hashlib.sha256(joined.encode()).hexdigest(), joined) or any(
                _changed_during(instance, mine, parent, name, record) for name, record in made.items()
            ):
                behind = True
    return fingerprint(versions) if behind and versions else None


def _changed_during(
    instance: dg.DagsterInstance, mine: dg.EventLogRecord, parent: dg.AssetKey, name: str, newest: dg.EventLogRecord
) -> bool:
    """Whether the upstream got its version after the run that made ``mine`` had begun to read.

    Dagster notes the upstream versions when a step *ends*; a step that read the old version meanwhile is noted with
    the new one.
    """
    if newest.run_id == mine.run_id:
        return False
    run = instance.get_run_record_by_id(mine.run_id)
    if run is None or run.start_time is None or newest.timestamp <= run.start_time:
        return False
    before = instance.fetch_materializations(
        dg.AssetRecordsFilter(parent, asset_partitions=[name], before_timestamp=run.start_time), limit=1
    ).records
    return not before or _version(before[0]) != _version(newest)


def _gate_failed(instance: dg.DagsterInstance, graph: BaseAssetGraph, parent: dg.AssetKey, names: list[str]) -> bool:
    keys = [key for key in graph.asset_check_keys if key.asset_key == parent and graph.get(key).blocking]
    return any(
        info.latest_execution_status == AssetCheckExecutionRecordStatus.FAILED
        for info in instance.event_log_storage.get_asset_check_partition_info(keys, partition_keys=names)
    )


def _upstreams(graph: BaseAssetGraph, key: dg.AssetKey, partition: str) -> list[tuple[dg.AssetKey, list[str]]]:
    """The upstream partitions of one partition, by the mappings of the asset graph."""
    node = graph.get(key)
    upstreams: list[tuple[dg.AssetKey, list[str]]] = []
    for parent in sorted(node.parent_keys, key=lambda item: item.to_user_string()):
        definition = graph.get(parent).partitions_def
        if definition is None:
            continue
        with partition_loading_context():
            mapped = graph.get_partition_mapping(key, parent).get_upstream_mapped_partitions_result_for_partitions(
                node.partitions_def.subset_with_partition_keys([partition]), node.partitions_def, definition
            )
            names = list(mapped.partitions_subset.get_partition_keys())
        if names:
            upstreams.append((parent, names))
    return upstreams


def _partitions(config: ProjectConfig, asset: str) -> list[str]:
    if asset == DATASET_ASSET:
        return list(config.datasets)
    if asset == SYNTHESIS_ASSET:
        return [name for name, dataset in config.datasets.items() if dataset.synthetic is not None]
    return list(config.experiments if asset == EXPERIMENT_ASSET else config.sources)


def _damaged(platform: Platform) -> list[Behind]:
    """Sources with documents an audit found damaged; their refresh writes those documents anew."""
    return [
        Behind(REFRESH_JOB, REFRESH_ASSETS[-1], row["source"], f"damaged-{row['index']}-{row['found']}")
        for row in damaged_documents(platform)
        if row["source"] in platform.config.sources
    ]


def _unbuilt(platform: Platform) -> list[Behind]:
    """Loaded sources that an index of an experiment does not show yet: an experiment derived it since their last refresh.

    Asked once for each set of indexes and their settings; the experiment follows when the index has changed.
    """
    from assets.experiments.readiness import unbuilt_sources

    config = platform.config
    with platform.database.connect() as connection:
        loaded = {source for (source,) in connection.execute("SELECT DISTINCT source FROM source_revision")}
        wanted = unbuilt_sources(connection, platform, list(config.experiments))
    return [
        Behind(REFRESH_JOB, REFRESH_ASSETS[-1], source, f"unbuilt-{state}")
        for source, state in wanted.items()
        if source in loaded
    ]


def _is_running(instance: dg.DagsterInstance, item: Behind) -> bool:
    return bool(
        instance.get_run_records(
            dg.RunsFilter(statuses=list(IN_PROGRESS_RUN_STATUSES), tags={"dagster/partition": item.partition}), limit=1
        )
    )


def _request(item: Behind) -> dg.RunRequest:
    run_key = f"{item.asset}/{item.partition}/{item.state}"
    if item.job == REFRESH_JOB:
        return refresh_request(item.partition, run_key=run_key, origin=RECONCILE)
    return dg.RunRequest(run_key=run_key, job_name=item.job, partition_key=item.partition, tags={ORIGIN_TAG: RECONCILE})


def _newest(instance: dg.DagsterInstance, key: dg.AssetKey, partition: str) -> dg.EventLogRecord | None:
    records = instance.fetch_materializations(dg.AssetRecordsFilter(key, asset_partitions=[partition]), limit=1).records
    return records[0] if records else None


def _tags(record: dg.EventLogRecord) -> dict[str, str]:
    materialization = record.asset_materialization
    return dict(materialization.tags or {}) if materialization else {}


def _version(record: dg.EventLogRecord) -> str:
    return _tags(record).get("dagster/data_version", "")
