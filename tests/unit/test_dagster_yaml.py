"""dagster.yaml and workspace.yaml work as shipped, on a real PostgreSQL, and agree with pyproject.toml."""

import os
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy
import yaml

from pipelines.instance import POOLS, make_pools
from pipelines.maintenance import slim_event_log
from resources.postgres import dagster_url

ROOT = Path(__file__).resolve().parents[2]
PARTS = dg.StaticPartitionsDefinition(["a", "b"])


@dg.asset(partitions_def=PARTS)
def thing() -> dg.MaterializeResult:
    return dg.MaterializeResult(data_version=dg.DataVersion("1"))


@dg.op
def nothing() -> None:
    """Does nothing."""


@dg.job(executor_def=dg.in_process_executor)
def idle() -> None:
    nothing()


@pytest.fixture
def instance(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    home = tmp_path / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_bytes((ROOT / "dagster.yaml").read_bytes())
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    monkeypatch.setenv("GENAIOPS_DAGSTER_URL", dagster_url(database_url))
    with dg.DagsterInstance.get() as instance:
        yield instance


def storage(instance: dg.DagsterInstance) -> Any:
    return instance.event_log_storage


def test_a_job_runs_on_postgres_through_psycopg2(instance: dg.DagsterInstance) -> None:
    result = idle.execute_in_process(instance=instance)
    assert result.success
    stored = instance.get_run_by_id(result.run_id)
    assert stored is not None
    assert stored.status == dg.DagsterRunStatus.SUCCESS
    with storage(instance).index_connection() as connection:
        assert connection.dialect.name == "postgresql"
        assert connection.dialect.driver == "psycopg2"
        schemas = connection.execute(
            sqlalchemy.text(
                "SELECT DISTINCT table_schema FROM information_schema.tables WHERE table_name = 'event_logs'"
            )
        ).all()
    assert schemas == [("dagster",)]


def test_limits_monitoring_retries_and_retention_are_read(instance: dg.DagsterInstance) -> None:
    queue = instance.get_concurrency_config()
    assert queue.run_queue_config is not None
    assert queue.run_queue_config.max_concurrent_runs == 4
    assert list(queue.run_queue_config.tag_concurrency_limits) == [
        {"key": "genaiops/source", "value": {"applyLimitPerUniqueValue": True}, "limit": 1}
    ]
    assert queue.pool_config.pool_granularity is not None
    assert queue.pool_config.pool_granularity.value == "op"
    assert instance.run_monitoring_enabled
    assert instance.run_retries_enabled
    assert instance.run_retries_max_retries == 2
    assert not instance.run_retries_retry_on_asset_or_op_failure
    assert not instance.telemetry_enabled
    assert not instance.nux_enabled


def test_pools_have_a_limit_before_any_run_and_follow_the_default(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    def limits() -> dict[str, tuple[int, bool]]:
        return {pool.name: (pool.limit, pool.from_default) for pool in storage(instance).get_pool_limits()}

    make_pools(instance)
    make_pools(instance)
    assert limits() == dict.fromkeys(POOLS, (2, True))
    storage(instance).set_concurrency_slots("chat_model", 7)
    monkeypatch.setattr(type(instance), "global_op_concurrency_default_limit", 3)
    make_pools(instance)
    assert limits() == {"chat_model": (7, False), "embedding_model": (3, True)}


@pytest.mark.slow
def test_files_stay_below_dagster_home(instance: dg.DagsterInstance) -> None:
    run_id = idle.execute_in_process(instance=instance).run_id
    home = Path(os.environ["DAGSTER_HOME"])
    assert any(run_id in path.parts for path in home.rglob("*"))


def test_an_unset_address_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_bytes((ROOT / "dagster.yaml").read_bytes())
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.delenv("GENAIOPS_DAGSTER_URL", raising=False)
    with pytest.raises(Exception, match="GENAIOPS_DAGSTER_URL"):
        dg.DagsterInstance.get()


def test_workspace_and_pyproject_name_the_same_location() -> None:
    workspace = yaml.safe_load((ROOT / "workspace.yaml").read_text(encoding="utf-8"))
    (entry,) = workspace["load_from"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["dg"]["project"]
    assert entry["python_module"] == {
        "module_name": project["code_location_target_module"],
        "location_name": project["code_location_name"],
        "attribute": "defs",
        "working_directory": ".",
    }


# --- slimming the event log -----------------------------------------------------------------------------


def events(instance: dg.DagsterInstance, run_id: str) -> int:
    with storage(instance).index_connection() as connection:
        return connection.execute(
            sqlalchemy.text("SELECT count(*) FROM event_logs WHERE run_id = :run"), {"run": run_id}
        ).scalar_one()


def produce(instance: dg.DagsterInstance, partition: str) -> str:
    return dg.materialize([thing], partition_key=partition, instance=instance).run_id


@pytest.mark.slow
def test_old_runs_go_but_newest_materializations_stay(instance: dg.DagsterInstance) -> None:
    superseded, newest, other, idle_run = (
        produce(instance, "a"),
        produce(instance, "a"),
        produce(instance, "b"),
        idle.execute_in_process(instance=instance).run_id,
    )
    before = events(instance, newest)
    slimmed = slim_event_log(instance, datetime.now(UTC) + timedelta(minutes=1))
    assert slimmed.runs_deleted == 2
    assert slimmed.runs_slimmed == 2
    assert instance.get_run_by_id(superseded) is None
    assert instance.get_run_by_id(idle_run) is None
    assert events(instance, idle_run) == 0
    assert 0 < events(instance, newest) < before
    for partition, run_id in (("a", newest), ("b", other)):
        (record,) = instance.fetch_materializations(
            dg.AssetRecordsFilter(thing.key, asset_partitions=[partition]), limit=1
        ).records
        assert record.run_id == run_id
        assert record.asset_materialization is not None
        assert (record.asset_materialization.tags or {})["dagster/data_version"] == "1"
    assert instance.get_materialized_partitions(thing.key) == {"a", "b"}
    assert slim_event_log(instance, datetime.now(UTC) + timedelta(minutes=1)).events_deleted == 0


@pytest.mark.slow
def test_runs_within_the_policy_are_left_alone(instance: dg.DagsterInstance) -> None:
    run_id = produce(instance, "a")
    produce(instance, "a")
    before = events(instance, run_id)
    slimmed = slim_event_log(instance, datetime.now(UTC) - timedelta(days=1))
    assert (slimmed.runs_deleted, slimmed.runs_slimmed) == (0, 0)
    assert events(instance, run_id) == before
