"""Schedules: what starts by the clock.

Belongs here: cron times and the runs they ask for.
Does not belong here: what starts because something changed (sensors.py, automation.py).

Evaluation is not scheduled: it follows a refresh that changed something (automation.py). Drift is daily and stands
there too, because it waits for the nightly refreshes to end.
"""

from collections.abc import Iterator

import dagster as dg

from pipelines.jobs import REFRESH_JOB, refresh_request
from pipelines.maintenance import MAINTENANCE_JOB
from pipelines.standing_checks import STANDING_CHECKS_JOB
from resources.config import ProjectConfig

REFRESH_CRON = "0 2 * * *"
MAINTENANCE_CRON = "30 4 * * *"
STANDING_CHECKS_CRON = "17 * * * *"


def build_schedules(config: ProjectConfig, *, timezone: str = "UTC") -> list[dg.ScheduleDefinition]:
    """The schedules, all switched on; times are in ``timezone`` (IANA name)."""

    @dg.schedule(
        name="nightly_refresh",
        job_name=REFRESH_JOB,
        cron_schedule=REFRESH_CRON,
        execution_timezone=timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="One refresh per source, also where the sensor saw no change: heals what a sensor cannot see.",
    )
    def nightly_refresh(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest]:
        when = context.scheduled_execution_time.isoformat()
        for source in config.sources:
            yield refresh_request(source, run_key=f"{source}/{when}", origin="nightly_refresh")

    return [
        nightly_refresh,
        dg.ScheduleDefinition(
            name="nightly_maintenance",
            job_name=MAINTENANCE_JOB,
            cron_schedule=MAINTENANCE_CRON,
            execution_timezone=timezone,
            default_status=dg.DefaultScheduleStatus.RUNNING,
            description="Retention of snapshots, caches, interactions and Dagster's event log.",
        ),
        dg.ScheduleDefinition(
            name="hourly_standing_checks",
            job_name=STANDING_CHECKS_JOB,
            cron_schedule=STANDING_CHECKS_CRON,
            execution_timezone=timezone,
            default_status=dg.DefaultScheduleStatus.RUNNING,
            description="Audit of every index, freshness of every source, inventory of failed partitions.",
        ),
    ]
