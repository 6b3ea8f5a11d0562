"""Runner: executes the lifecycle's jobs in this process, recorded in Dagster's instance.

Belongs here: running jobs for the command line and following their progress.
Does not belong here: launching through the queue; that is the daemon's and the UI's business.
"""

import logging
import re
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import dagster as dg

from pipelines.instance import opened_instance
from pipelines.jobs import DATASET_JOB, DRIFT_JOB, EXPERIMENT_JOB, REFRESH_JOB, SOURCE_TAG
from pipelines.maintenance import MAINTENANCE_JOB
from pipelines.recovery import PROCESS_TAG, this_process
from pipelines.settings import Settings, prepare_home
from pipelines.standing_checks import STANDING_CHECKS_JOB
from resources.config import ProjectConfig


@dataclass(frozen=True)
class Task:
    """One run to make: a job, its partition and what it is called on screen."""

    job: str
    partition: str | None
    title: str
    tags: dict[str, str] = field(default_factory=dict)


@dataclass
class TaskResult:
    """What came of a task.

    Attributes:
        metadata: ``{asset: {label: value}}`` of the materializations made.
        failures: one line per failed step or check, naming what was expected and observed.
        seconds: ``{asset: seconds}`` spent inside the steps.
    """

    task: Task
    run_id: str
    success: bool
    metadata: dict[str, dict[str, Any]]
    failures: list[str]
    seconds: dict[str, float]


#: Called with (task, step, state): "running", "done", "failed", "skipped", or what the step last said of itself.
Progress = Callable[[Task, str, str], None]

#: Rows of a failed check's table that are printed.
ROWS_SHOWN = 5

# The display shows what happens and the report what failed; all of the log is in the instance.
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


def lifecycle(config: ProjectConfig, *, day: date) -> list[Task]:
    """The runs that make the whole lifecycle once, in order."""
    return [
        *refresh_tasks(list(config.sources)),
        *evaluation_tasks(config, list(config.experiments)),
        Task(DRIFT_JOB, day.isoformat(), "drift"),
    ]


def refresh_tasks(sources: Sequence[str]) -> list[Task]:
    """One refresh run per source."""
    return [Task(REFRESH_JOB, name, name, {SOURCE_TAG: name}) for name in sources]


def evaluation_tasks(config: ProjectConfig, experiments: Sequence[str]) -> list[Task]:
    """The datasets of some experiments, then the experiments."""
    datasets = dict.fromkeys(config.experiments[name].dataset for name in experiments)
    return [
        *(Task(DATASET_JOB, name, name) for name in datasets),
        *(Task(EXPERIMENT_JOB, name, name) for name in experiments),
    ]


def maintenance_tasks() -> list[Task]:
    """Retention, then the standing checks."""
    return [Task(MAINTENANCE_JOB, None, "retention"), Task(STANDING_CHECKS_JOB, None, "standing checks")]


@contextmanager
def opened(settings: Settings) -> Iterator[tuple[dg.Definitions, dg.DagsterInstance]]:
    """Prepare the home, load the definitions and open the instance."""
    prepare_home(settings)
    from pipelines.definitions import build_defs

    with opened_instance(settings) as (instance, _):
        yield build_defs(settings), instance


def run(defs: dg.Definitions, instance: dg.DagsterInstance, task: Task, progress: Progress | None = None) -> TaskResult:
    """Execute one task in this process; never raises for a failed run."""
    run_id = str(uuid.uuid4())
    job = defs.resolve_job_def(task.job)
    stop = threading.Event()
    follower = None
    if progress:
        follower = threading.Thread(target=_follow, args=(instance, run_id, task, progress, stop), daemon=True)
        follower.start()
    try:
        result = job.execute_in_process(
            instance=instance,
            partition_key=task.partition,
            raise_on_error=False,
            run_id=run_id,
            run_config=_QUIET,
            tags={PROCESS_TAG: this_process(), **task.tags},
        )
    finally:
        stop.set()
        if follower:
            follower.join()
    return TaskResult(
        task=task,
        run_id=run_id,
        success=result.success,
        metadata=_metadata(result),
        failures=_failures(result),
        seconds=_seconds(result),
    )


def _follow(instance: dg.DagsterInstance, run_id: str, task: Task, progress: Progress, stop: threading.Event) -> None:
    states = {"STEP_START": "running", "STEP_SUCCESS": "done", "STEP_FAILURE": "failed", "STEP_SKIPPED": "skipped"}
    cursor = None
    while True:
        last = stop.is_set()
        connection = instance.get_records_for_run(run_id, cursor=cursor)
        cursor = connection.cursor
        for record in connection.records:
            entry = record.event_log_entry
            event, step = entry.dagster_event, entry.step_key
            if step and event is None and entry.level == logging.INFO:
                progress(task, step, entry.user_message)
            elif step and event and event.event_type_value in states:
                progress(task, step, states[event.event_type_value])
        if last:
            return
        stop.wait(0.3)


def _metadata(result: dg.ExecuteInProcessResult) -> dict[str, dict[str, Any]]:
    return {
        materialization.asset_key.to_user_string(): {
            label: getattr(value, "value", value) for label, value in materialization.metadata.items()
        }
        for event in result.get_asset_materialization_events()
        if (materialization := event.materialization)
    }


def _failures(result: dg.ExecuteInProcessResult) -> list[str]:
    lines = []
    for evaluation in result.get_asset_check_evaluations():
        if not evaluation.passed:
            name = f"{evaluation.asset_key.to_user_string()}/{evaluation.check_name}"
            kind = "check" if evaluation.severity == dg.AssetCheckSeverity.ERROR else "warning"
            lines.append(f"{kind} {name}: {evaluation.description}")
            lines += [line for value in evaluation.metadata.values() for line in _table_lines(value)]
    for event in result.all_events:
        if event.is_step_failure and event.step_failure_data.error:
            error = event.step_failure_data.error
            cause = error.cause or error
            if cause.cls_name != "DagsterAssetCheckFailedError":
                # the message of a traceback starts with the error's name, and with its module unless it is built in
                message = re.sub(rf"^[\w.]*\b{cause.cls_name}\b(: )?", "", cause.message.strip())
                lines.append(f"step {event.step_key}: {cause.cls_name}: {message}")
    return lines


def _table_lines(value: dg.MetadataValue) -> list[str]:
    """The first rows of a table in a check's details, one line each."""
    if not isinstance(value, dg.TableMetadataValue):
        return []
    rows = ["    " + "  ".join(str(cell) for cell in record.data.values()) for record in value.records]
    more = len(rows) - ROWS_SHOWN
    return rows[:ROWS_SHOWN] + ([f"    and {more} more; see the check in the UI"] if more > 0 else [])


def _seconds(result: dg.ExecuteInProcessResult) -> dict[str, float]:
    return {
        event.step_key: event.step_success_data.duration_ms / 1000
        for event in result.all_events
        if event.is_step_success and event.step_key
    }
