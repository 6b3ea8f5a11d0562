"""Standing checks: an hourly inventory of what is wrong, so that nothing stays wrong in silence.

Belongs here: checks over everything at once. Does not belong here: gates; nothing downstream waits for these.

They hang on an asset of their own, ``operations``, which nobody materializes: on a partitioned asset they would run
again with each of its partitions, and speak for one while looking at all.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from dagster._core.storage.partition_status_cache import AssetPartitionStatus

from assets.dagster_support import OWNERS, table
from pipelines.freshness import stale_sources
from resources.config import ProjectConfig
from resources.platform import Platform

OPERATIONS_ASSET = "operations"
STANDING_CHECKS_JOB = "standing_checks"

CHECKS = {
    "no_partition_left_failed": "No partition of any asset whose latest run failed is left unhealed.",
    "sources_fresh": "Every source that was ever indexed was refreshed within freshness_hours (policies/index.yaml).",
    "indexes_intact": "Every index still holds exactly the rows that were published.",
}


@dataclass(frozen=True)
class StandingChecks:
    """What definitions need: the asset the checks hang on, the checks, and the job that runs them."""

    asset: dg.AssetSpec
    checks: dg.AssetChecksDefinition
    job: UnresolvedAssetJobDefinition


def build_standing_checks(config: ProjectConfig, assets: Sequence[dg.AssetsDefinition]) -> StandingChecks:
    """Build the checks over all partitioned ``assets``."""
    partitions = {
        key: definition.partitions_def
        for definition in assets
        if definition.partitions_def is not None
        for key in definition.keys
    }
    asset = dg.AssetSpec(
        OPERATIONS_ASSET,
        description="The state of the whole: nothing is made here, its checks say what is wrong elsewhere.",
        group_name=OPERATIONS_ASSET,
        owners=OWNERS,
    )

    @dg.multi_asset_check(
        name="take_inventory",
        specs=[
            dg.AssetCheckSpec(name, asset=OPERATIONS_ASSET, description=description, blocking=False)
            for name, description in CHECKS.items()
        ],
    )
    def take_inventory(
        context: dg.AssetCheckExecutionContext, platform: dg.ResourceParam[Platform]
    ) -> Iterator[dg.AssetCheckResult]:
        yield _result("no_partition_left_failed", failed_partitions(context.instance, partitions))
        yield _result("sources_fresh", _stale_rows(context.instance, config))
        yield _result("indexes_intact", _audit_rows(platform))

    job = dg.define_asset_job(
        STANDING_CHECKS_JOB,
        selection=dg.AssetSelection.checks_for_assets(OPERATIONS_ASSET),
        description="Look at everything once: failed partitions, freshness, integrity of the indexes.",
        executor_def=dg.in_process_executor,
    )
    return StandingChecks(asset, take_inventory, job)


def failed_partitions(
    instance: dg.DagsterInstance, partitions: Mapping[dg.AssetKey, dg.PartitionsDefinition]
) -> list[dict[str, Any]]:
    """Partitions whose latest run failed before making them, one row each: asset, partition."""
    rows: list[dict[str, Any]] = []
    for key, definition in sorted(partitions.items(), key=lambda item: item[0].to_user_string()):
        statuses = instance.get_status_by_partition(key, definition.get_partition_keys(), definition) or {}
        rows += [
            {"asset": key.to_user_string(), "partition": partition}
            for partition, status in statuses.items()
            if status == AssetPartitionStatus.FAILED
        ]
    return rows


def damaged_documents(platform: Platform) -> list[dict[str, Any]]:
    """Documents of the newest snapshots an audit found damaged and no refresh has repaired yet.

    One row per index and source: index, source, documents, found. Where an index lost its whole list of documents, none
    is left to be marked: then there is one row with 0 documents, under the first of its sources.
    """
    with platform.database.connect() as connection:
        rows = connection.execute(
            """SELECT state.index_name, document.source, count(*), max(document.damaged_at)
               FROM index_state AS state
               JOIN index_snapshot AS snapshot ON snapshot.index_name = state.index_name AND snapshot.snapshot = state.head
               JOIN index_document AS document USING (build_id)
               WHERE document.damaged_at IS NOT NULL
                 AND document.valid_from <= state.head AND document.valid_to > state.head
               GROUP BY 1, 2
               UNION ALL
               SELECT state.index_name, (SELECT min(source) FROM jsonb_object_keys(snapshot.sources) source), 0, build.damaged_at
               FROM index_state AS state
               JOIN index_snapshot AS snapshot ON snapshot.index_name = state.index_name AND snapshot.snapshot = state.head
               JOIN index_build AS build USING (build_id)
               WHERE build.damaged_at IS NOT NULL AND NOT EXISTS (
                   SELECT 1 FROM index_document AS document
                   WHERE document.build_id = build.build_id AND document.valid_from <= state.head
                     AND document.valid_to > state.head AND document.damaged_at IS NOT NULL)
               ORDER BY 1, 2"""
        ).fetchall()
    return [
        {"index": index, "source": source, "documents": documents, "found": found.isoformat()}
        for index, source, documents, found in rows
        if index in platform.config.indexes
    ]


def _audit_rows(platform: Platform) -> list[dict[str, Any]]:
    from assets.index.audit import audit

    for index in platform.config.indexes:
        audit(platform, index)
    return damaged_documents(platform)


def _stale_rows(instance: dg.DagsterInstance, config: ProjectConfig) -> list[dict[str, Any]]:
    now = datetime.now(UTC)
    return [
        {"asset": stale.asset, "source": stale.partition, "hours": round((now - stale.last).total_seconds() / 3600, 1)}
        for stale in stale_sources(instance, config, now)
    ]


def _result(name: str, findings: Sequence[Mapping[str, Any]]) -> dg.AssetCheckResult:
    metadata: dict[str, Any] = {"findings": len(findings)}
    if findings:
        metadata["inventory"] = table(findings)
    return dg.AssetCheckResult(
        check_name=name,
        asset_key=OPERATIONS_ASSET,
        passed=not findings,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"expected none; observed {len(findings)}",
        metadata=metadata,
    )
