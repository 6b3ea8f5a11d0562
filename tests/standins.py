"""Stand-in assets with the names, partitions and gates of the real ones, steered by a test."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import dagster as dg

from assets.dagster_support import (
    datasets_of_sources,
    experiments_of_datasets,
    experiments_of_sources,
    source_partitions,
)
from pipelines.alerts import build_alert_sensor
from pipelines.automation import automation_conditions, build_automation_sensor
from pipelines.freshness import apply_policies, freshness_policies
from pipelines.jobs import build_jobs
from pipelines.maintenance import build_maintenance
from pipelines.schedules import build_schedules
from pipelines.sensors import build_sensors
from pipelines.standing_checks import build_standing_checks
from resources.config import ProjectConfig
from resources.platform import Platform

#: Two sources, a dataset and an experiment on the first, one index over both.
TWO_SOURCES: dict[str, Any] = {
    "sources.yaml": {"sources": [{"name": "docs", "path": "docs"}, {"name": "wiki", "path": "wiki"}]},
    "indexes/main.yaml": {"name": "main", "embedder": "lexical", "sources": ["docs"]},
    "prompts/plain.yaml": {"name": "plain", "system": "s", "user": "{{ question }} {{ passages }}"},
    "evaluation/quiz.yaml": {"name": "quiz", "questions": "quiz.jsonl", "sources": ["docs"]},
    "evaluation/quiz.jsonl": "",
    "experiments/first.yaml": {
        "name": "first",
        "dataset": "quiz",
        "grid": {"index": ["main"], "prompt": ["plain"], "search_mode": ["hybrid"], "k": [5], "model": ["extractive"]},
        "baseline": {"index": "main", "prompt": "plain", "search_mode": "hybrid", "k": 5, "model": "extractive"},
    },
}


@dataclass
class Lifecycle:
    """The stand-ins and the switches of a test.

    Attributes:
        versions: data version an asset gives next, by ``asset/partition`` or by asset; ``"1"`` if absent.
        failing: gates (``asset/partition``) that fail; the asset then publishes nothing.
        warning: likewise for the WARN check, which blocks nothing.
        broken: assets (``asset/partition``) that raise.
    """

    config: ProjectConfig
    versions: dict[str, str] = field(default_factory=dict)
    failing: set[str] = field(default_factory=set)
    warning: set[str] = field(default_factory=set)
    broken: set[str] = field(default_factory=set)
    before_publishing: Callable[[str, str], None] = lambda asset, partition: None

    @cached_property
    def plain(self) -> dg.Definitions:
        """Definitions to run jobs with; the switches act on them too."""
        return self.definitions()

    def assets(self) -> list[dg.AssetsDefinition]:
        """All eight assets."""
        sources = source_partitions(self.config)
        datasets = dg.StaticPartitionsDefinition(list(self.config.datasets))
        experiments = dg.StaticPartitionsDefinition(list(self.config.experiments))
        return [
            self._asset("raw_documents", sources, []),
            self._asset("chunks", sources, [dg.AssetDep("raw_documents")]),
            self._asset("embeddings", sources, [dg.AssetDep("chunks")]),
            self._asset("search_index", sources, [dg.AssetDep("embeddings")]),
            self._asset(
                "evaluation_dataset",
                datasets,
                [dg.AssetDep("raw_documents", partition_mapping=datasets_of_sources(self.config))],
            ),
            self._asset(
                "scored_variants",
                experiments,
                [
                    dg.AssetDep("evaluation_dataset", partition_mapping=experiments_of_datasets(self.config)),
                    dg.AssetDep("search_index", partition_mapping=experiments_of_sources(self.config)),
                ],
            ),
            self._asset(
                "shadow_comparison",
                experiments,
                [dg.AssetDep("scored_variants", partition_mapping=dg.IdentityPartitionMapping())],
            ),
            self._asset("drift_report", dg.DailyPartitionsDefinition("2026-01-01"), [dg.AssetDep("search_index")]),
        ]

    def _asset(self, name: str, partitions: dg.PartitionsDefinition, deps: list[dg.AssetDep]) -> dg.AssetsDefinition:
        @dg.asset(
            name=name,
            partitions_def=partitions,
            deps=deps,
            output_required=False,
            code_version="1",
            check_specs=[
                dg.AssetCheckSpec("gate", asset=name, blocking=True, partitions_def=partitions),
                dg.AssetCheckSpec("hint", asset=name, blocking=False, partitions_def=partitions),
            ],
        )
        def standin(context: dg.AssetExecutionContext) -> Iterator[Any]:
            here = f"{name}/{context.partition_key}"
            if here in self.broken:
                raise RuntimeError("broken on purpose")
            gate = here not in self.failing
            yield dg.AssetCheckResult(check_name="gate", passed=gate, description="expected all; observed less")
            yield dg.AssetCheckResult(
                check_name="hint", passed=here not in self.warning, severity=dg.AssetCheckSeverity.WARN
            )
            self.before_publishing(name, context.partition_key)
            if gate:
                version = self.versions.get(here, self.versions.get(name, "1"))
                yield dg.MaterializeResult(data_version=dg.DataVersion(version))

        return standin

    def definitions(self, platform: Any = None, *, timezone: str = "UTC", **sensors: Any) -> dg.Definitions:
        """Everything put together as in production."""
        made = self.assets()
        standing = build_standing_checks(self.config, made)
        jobs = build_jobs(self.config)
        return dg.Definitions(
            assets=[
                *apply_policies(
                    made, automation_conditions(self.config, timezone=timezone), freshness_policies(self.config)
                ),
                standing.asset,
            ],
            asset_checks=[standing.checks],
            jobs=[*jobs, *build_maintenance(self.config), standing.job],
            schedules=build_schedules(self.config, timezone=timezone),
            sensors=[
                *build_sensors(self.config, jobs, fingerprint_of=sensors.get("fingerprint_of")),
                build_automation_sensor(),
                build_alert_sensor(
                    self.config, **{key: sensors[key] for key in ("notifier_of", "clock") if key in sensors}
                ),
            ],
            resources={"platform": platform if platform is not None else Nothing()},
            executor=dg.in_process_executor,
        )


class Nothing:
    """A platform for definitions that are only looked at."""


def run(
    defs: dg.Definitions, instance: dg.DagsterInstance, job: str, partition: str | None, **options: Any
) -> dg.ExecuteInProcessResult:
    """Execute a job in this process; a failed run is returned, not raised."""
    return defs.resolve_job_def(job).execute_in_process(
        instance=instance, partition_key=partition, raise_on_error=False, **options
    )


def make(lifecycle: Lifecycle, instance: dg.DagsterInstance, asset: str, partition: str) -> bool:
    """Materialize one asset partition alone; whether the run succeeded."""
    jobs = {"evaluation_dataset": "build_dataset", "scored_variants": "run_experiment", "drift_report": "watch_drift"}
    job = jobs.get(asset, "refresh_source")
    return run(lifecycle.plain, instance, job, partition, asset_selection=[dg.AssetKey(asset)]).success


def refresh(lifecycle: Lifecycle, instance: dg.DagsterInstance, source: str) -> bool:
    """Refresh one source as its job does; whether the run succeeded."""
    return run(lifecycle.plain, instance, "refresh_source", source).success


def damage(platform: Platform) -> None:
    """An index ``main`` whose newest snapshot shows one document of ``docs`` that an audit marked as damaged."""
    with platform.database.connect() as connection:
        connection.execute(
            """INSERT INTO index_build (index_name, fingerprint, config, table_name, run_id, state)
               VALUES ('main', 'f', '{}', 'chunks_1', 'r', 'ready')"""
        )
        connection.execute(
            """INSERT INTO index_document (build_id, document_id, version_id, source, valid_from, chunks, lexemes, digest, damaged_at)
               SELECT build_id, 1, 1, 'docs', 1, 1, 0, 0, now() FROM index_build"""
        )
        connection.execute(
            """INSERT INTO index_snapshot (index_name, snapshot, build_id, run_id, counts, sources, evidence)
               SELECT 'main', 1, build_id, 'r', '{}', '{}', '[]' FROM index_build"""
        )
        connection.execute("INSERT INTO index_state (index_name, head, serving) VALUES ('main', 1, 1)")
