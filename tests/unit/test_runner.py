"""The runner executes a job in this process and says, in a line each, what failed and what had been expected."""

from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import dagster as dg
import pytest

from assets.dagster_support import errors_by_kind
from pipelines.jobs import DATASET_JOB, DRIFT_JOB, EXPERIMENT_JOB, REFRESH_JOB, SOURCE_TAG
from pipelines.recovery import PROCESS_TAG, this_process
from pipelines.runner import Task, evaluation_tasks, lifecycle, refresh_tasks, run
from resources.config import load_config
from resources.errors import LeaseHeldError, PermanentError
from tests.standins import TWO_SOURCES, Lifecycle


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def standins(make_data_dir: Callable[..., Path]) -> Lifecycle:
    return Lifecycle(load_config(make_data_dir(**TWO_SOURCES)))


DOCS = Task(REFRESH_JOB, "docs", "docs", {SOURCE_TAG: "docs"})


def test_a_good_run_is_recorded_with_its_partition_and_its_process(
    standins: Lifecycle, instance: dg.DagsterInstance
) -> None:
    result = run(standins.plain, instance, DOCS)
    assert result.success
    assert result.failures == []
    assert set(result.seconds) == {"raw_documents", "chunks", "embeddings", "search_index"}
    assert set(result.metadata) == set(result.seconds)
    recorded = instance.get_run_by_id(result.run_id)
    assert recorded is not None
    assert recorded.status == dg.DagsterRunStatus.SUCCESS
    assert recorded.tags["dagster/partition"] == "docs"
    assert recorded.tags[SOURCE_TAG] == "docs"
    assert recorded.tags[PROCESS_TAG] == this_process()


def test_a_blocked_check_is_one_line_with_expected_against_observed(
    standins: Lifecycle, instance: dg.DagsterInstance
) -> None:
    standins.failing.add("chunks/docs")
    result = run(standins.plain, instance, DOCS)
    assert not result.success
    assert result.failures == ["check chunks/gate: expected all; observed less"], "more, or less, than what went wrong"
    assert "embeddings" not in result.seconds, "a step after the gate ran"
    assert "chunks" not in result.metadata


def test_a_warning_is_shown_and_fails_nothing(standins: Lifecycle, instance: dg.DagsterInstance) -> None:
    standins.warning.add("search_index/docs")
    result = run(standins.plain, instance, DOCS)
    assert result.success
    assert [line.split(":")[0] for line in result.failures] == ["warning search_index/hint"]


def test_an_exception_is_returned_as_a_line_naming_step_and_cause(
    standins: Lifecycle, instance: dg.DagsterInstance
) -> None:
    standins.broken.add("embeddings/docs")
    result = run(standins.plain, instance, DOCS)
    assert not result.success
    assert result.failures == ["step embeddings: RuntimeError: broken on purpose"]


def test_an_error_of_ours_is_named_once_without_its_module(instance: dg.DagsterInstance) -> None:
    @dg.op
    def permanent() -> None:
        with errors_by_kind():
            raise PermanentError("no model 'x': see models.yaml")

    @dg.op
    def transient() -> None:
        with errors_by_kind(max_retries=0):
            raise LeaseHeldError("index:main is being written by run r")

    @dg.job
    def work() -> None:
        permanent()
        transient()

    result = run(dg.Definitions(jobs=[work]), instance, Task("work", None, "work"))
    assert sorted(result.failures) == [
        "step permanent: PermanentError: no model 'x': see models.yaml",
        "step transient: LeaseHeldError: index:main is being written by run r",
    ]


def test_progress_hears_of_every_step_in_order(standins: Lifecycle, instance: dg.DagsterInstance) -> None:
    standins.broken.add("embeddings/docs")
    heard: list[tuple[str, str]] = []
    run(standins.plain, instance, DOCS, lambda task, step, state: heard.append((step, state)))
    assert [item for item in heard if item[1] in ("running", "done", "failed", "skipped")] == [
        ("raw_documents", "running"),
        ("raw_documents", "done"),
        ("chunks", "running"),
        ("chunks", "done"),
        ("embeddings", "running"),
        ("embeddings", "failed"),
    ]


def test_the_lifecycle_refreshes_then_evaluates_then_watches(make_data_dir: Callable[..., Path]) -> None:
    config = load_config(make_data_dir(**TWO_SOURCES))
    assert [(task.job, task.partition) for task in lifecycle(config, day=date(2026, 5, 4))] == [
        (REFRESH_JOB, "docs"),
        (REFRESH_JOB, "wiki"),
        (DATASET_JOB, "quiz"),
        (EXPERIMENT_JOB, "first"),
        (DRIFT_JOB, "2026-05-04"),
    ]


def test_a_dataset_of_two_experiments_is_built_once(make_data_dir: Callable[..., Path]) -> None:
    second = {**TWO_SOURCES["experiments/first.yaml"], "name": "second"}
    config = load_config(make_data_dir(**TWO_SOURCES, **{"experiments/second.yaml": second}))
    tasks = evaluation_tasks(config, ["first", "second"])
    assert [task.job for task in tasks] == [DATASET_JOB, EXPERIMENT_JOB, EXPERIMENT_JOB]


def test_refreshes_carry_the_tag_the_queue_limits_by() -> None:
    assert [task.tags for task in refresh_tasks(["docs", "wiki"])] == [{SOURCE_TAG: "docs"}, {SOURCE_TAG: "wiki"}]
