"""Maintenance: what keeps the stores from growing without bound.

Belongs here: retention of snapshots, caches, records, interactions, alerts and Dagster's event log.
Does not belong here: the policies' numbers (data/policies/), how snapshots are dropped (assets/index/retention.py) and
how records are (assets/governance/retention.py).
"""

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import dagster as dg

from assets.dagster_support import run_is_over
from resources.config import ProjectConfig
from resources.platform import Platform

MAINTENANCE_JOB = "maintain"

#: Recovered alerts are kept this long, so that ``genaiops status`` can show what happened lately.
ALERT_DAYS = 90
_RUNS_PER_NIGHT = 5000
_RUNS_PER_BATCH = 200
_FINISHED = ("SUCCESS", "FAILURE", "CANCELED")


@dataclasses.dataclass(frozen=True)
class SlimmedEvents:
    """What ``slim_event_log`` removed.

    Attributes:
        runs_deleted: old runs that nothing newer depends on, removed with all their events.
        runs_slimmed: old runs kept because they hold the newest record of some partition or check.
        events_deleted: log and engine events removed from the kept ones.
    """

    runs_deleted: int = 0
    runs_slimmed: int = 0
    events_deleted: int = 0


def build_maintenance(config: ProjectConfig) -> list[dg.JobDefinition]:
    """The maintenance job; its ops do not depend on each other, so that one failing does not stop the rest."""

    @dg.op(description="Drop snapshots, builds and cached rows beyond policies/index.yaml; what is pinned stays.")
    def retain_snapshots(context: dg.OpExecutionContext, platform: dg.ResourceParam[Platform]) -> None:
        from assets.index.retention import apply_retention

        retention = apply_retention(platform, context.run_id, holder_is_dead=run_is_over(context.instance))
        context.add_output_metadata({"retention": dg.MetadataValue.json(dataclasses.asdict(retention))})

    @dg.op(description="Remove interactions beyond policies/retention.yaml and alerts long recovered.")
    def purge_records(context: dg.OpExecutionContext, platform: dg.ResourceParam[Platform]) -> None:
        context.add_output_metadata(purge_old_records(platform, config.policies.retention.interaction_days))

    @dg.op(
        description="Remove trials, remembered searches and model calls, check results and dataset versions beyond "
        "policies/retention.yaml; what the newest or a promoted result rests on stays."
    )
    def retain_experiment_records(context: dg.OpExecutionContext, platform: dg.ResourceParam[Platform]) -> None:
        from assets.governance.retention import retain_records

        kept = retain_records(platform, context.run_id, holder_is_dead=run_is_over(context.instance))
        context.add_output_metadata(dataclasses.asdict(kept))

    @dg.op(description="Finish an erasure that was killed after its commit, while its files waited.")
    def finish_erasures(context: dg.OpExecutionContext, platform: dg.ResourceParam[Platform]) -> None:
        from assets.governance.retention import finish_erasure

        done = finish_erasure(platform, context.run_id, holder_is_dead=run_is_over(context.instance))
        context.add_output_metadata({name: value for name, value in done.items() if value is not None})

    @dg.op(description="Remove old runs and log events from Dagster's storage; newest materializations stay.")
    def slim_events(context: dg.OpExecutionContext) -> None:
        before = datetime.now(UTC) - timedelta(days=config.policies.retention.run_days)
        context.add_output_metadata(dataclasses.asdict(slim_event_log(context.instance, before)))

    @dg.job(
        name=MAINTENANCE_JOB,
        executor_def=dg.in_process_executor,
        description="Retention of snapshots, caches, records, interactions, alerts and Dagster's event log.",
    )
    def maintain() -> None:
        retain_snapshots()
        purge_records()
        retain_experiment_records()
        finish_erasures()
        slim_events()

    return [maintain]


def purge_old_records(platform: Platform, interaction_days: int) -> dict[str, int]:
    """Delete interactions older than ``interaction_days`` and alerts recovered ``ALERT_DAYS`` ago; rows deleted."""
    from assets.monitoring.interactions import purge

    interactions = purge(platform.database, interaction_days)
    with platform.database.connect() as connection:
        alerts = connection.execute(
            """DELETE FROM alert WHERE state = 'recovered' AND told_recovered
               AND updated_at < now() - make_interval(days => %s)""",
            (ALERT_DAYS,),
        ).rowcount
    return {"interactions_deleted": interactions, "alerts_deleted": alerts}


def slim_event_log(instance: dg.DagsterInstance, before: datetime) -> SlimmedEvents:
    """Shrink what Dagster keeps of runs that ended before ``before``; PostgreSQL storage only.

    A run that holds the newest materialization (or plan) of a partition, or the newest result of a check, is never
    deleted: deleting it would make the partition look missing, and automation would build it again. Such runs
    only lose their log and engine events; their page still shows status, assets and checks.
    """
    import sqlalchemy

    with instance.event_log_storage.index_connection() as connection:  # pyright: ignore[reportAttributeAccessIssue]
        if connection.dialect.name != "postgresql":
            return SlimmedEvents()
        old = [
            row[0]
            for row in connection.execute(
                sqlalchemy.text(
                    "SELECT run_id FROM runs WHERE status = ANY(:finished) AND end_time < :before ORDER BY id LIMIT :most"
                ),
                {"finished": list(_FINISHED), "before": before.timestamp(), "most": _RUNS_PER_NIGHT},
            )
        ]
        newest = {row[0] for row in connection.execute(sqlalchemy.text(_NEWEST_HOLDERS))}
    deletable = [run_id for run_id in old if run_id not in newest]
    for run_id in deletable:
        instance.delete_run(run_id)
        instance.compute_log_manager.delete_logs(prefix=[run_id])
    kept = [run_id for run_id in old if run_id in newest]
    events = 0
    for batch in _batches(kept):
        with instance.event_log_storage.index_connection() as connection:  # pyright: ignore[reportAttributeAccessIssue]
            events += connection.execute(sqlalchemy.text(_SLIM), {"runs": batch}).rowcount
    for batch in _batches(deletable):
        with instance.event_log_storage.index_connection() as connection:  # pyright: ignore[reportAttributeAccessIssue]
            connection.execute(
                sqlalchemy.text("DELETE FROM asset_check_executions WHERE run_id = ANY(:runs)"), {"runs": batch}
            )
    return SlimmedEvents(len(deletable), len(kept), events)


_NEWEST_HOLDERS = """
SELECT run_id FROM (
    SELECT DISTINCT ON (asset_key, partition, dagster_event_type) run_id FROM event_logs
    WHERE dagster_event_type IN ('ASSET_MATERIALIZATION', 'ASSET_OBSERVATION', 'ASSET_MATERIALIZATION_PLANNED')
    ORDER BY asset_key, partition, dagster_event_type, id DESC
) AS made
UNION
SELECT run_id FROM (
    SELECT DISTINCT ON (asset_key, check_name, partition, execution_status) run_id FROM asset_check_executions
    ORDER BY asset_key, check_name, partition, execution_status, id DESC
) AS checked
"""

_SLIM = """
DELETE FROM event_logs
WHERE run_id = ANY(:runs) AND asset_key IS NULL
  AND coalesce(dagster_event_type, '') NOT IN ('PIPELINE_START', 'PIPELINE_SUCCESS', 'PIPELINE_FAILURE', 'PIPELINE_CANCELED')
"""


def _batches(items: Sequence[str]) -> list[list[str]]:
    return [list(items[start : start + _RUNS_PER_BATCH]) for start in range(0, len(items), _RUNS_PER_BATCH)]
