"""Freshness: how old an asset may be before it is news.

Belongs here: Dagster's freshness policies, and the same question asked per partition.
Does not belong here: telling anybody (alerts.py) and showing it as a check (standing_checks.py).

Dagster judges freshness per asset: while one source is refreshed, all the others may be silent for weeks unseen.
Hence ``stale_partitions``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import dagster as dg

from pipelines.jobs import DRIFT_ASSET, REFRESH_ASSETS
from resources.config import ProjectConfig

#: Drift is reported once a day; half a day late is late.
DRIFT_HOURS = 36


@dataclass(frozen=True)
class Stale:
    """A partition that was made once, but too long ago."""

    asset: str
    partition: str
    last: datetime
    limit: timedelta


def freshness_policies(config: ProjectConfig) -> dict[dg.AssetKey, dg.FreshnessPolicy]:
    """Policy of every asset that is remade on a rhythm.

    The evaluation assets have none: they follow changes, and an unchanged corpus needs no new evaluation.
    """
    source = dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=config.policies.index.freshness_hours))
    drift = dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=DRIFT_HOURS))
    return {**{dg.AssetKey(name): source for name in REFRESH_ASSETS}, dg.AssetKey(DRIFT_ASSET): drift}


def apply_policies(
    assets: Sequence[dg.AssetsDefinition],
    conditions: Mapping[dg.AssetKey, dg.AutomationCondition],
    policies: Mapping[dg.AssetKey, dg.FreshnessPolicy],
) -> list[dg.AssetsDefinition]:
    """Give each asset its automation condition and freshness policy."""

    def with_policies(spec: dg.AssetSpec) -> dg.AssetSpec:
        if spec.key in conditions:
            spec = spec.replace_attributes(automation_condition=conditions[spec.key])
        if spec.key in policies:
            spec = spec.replace_attributes(freshness_policy=policies[spec.key])
        return spec

    return list(dg.map_asset_specs(with_policies, assets))


def stale_partitions(last_made: Mapping[str, Mapping[str, datetime]], limit: timedelta, now: datetime) -> list[Stale]:
    """Partitions last made longer ago than ``limit``: ``{asset: {partition: time}}`` in, oldest first out.

    A partition that was never made is not stale: the failed or missing first run of a new source is seen as such.
    """
    stale = [
        Stale(asset, partition, last, limit)
        for asset, partitions in last_made.items()
        for partition, last in partitions.items()
        if now - last > limit
    ]
    return sorted(stale, key=lambda item: (item.last, item.asset, item.partition))


def stale_sources(instance: dg.DagsterInstance, config: ProjectConfig, now: datetime | None = None) -> list[Stale]:
    """Sources whose search_index was last made, changed or not, longer ago than ``freshness_hours``."""
    asset = REFRESH_ASSETS[-1]
    last: dict[str, datetime] = {}
    for source in config.sources:
        records = instance.fetch_materializations(
            dg.AssetRecordsFilter(dg.AssetKey(asset), asset_partitions=[source]), limit=1
        ).records
        if records:
            last[source] = datetime.fromtimestamp(records[0].timestamp, UTC)
    return stale_partitions(
        {asset: last}, timedelta(hours=config.policies.index.freshness_hours), now or datetime.now(UTC)
    )
