"""The monitoring asset: drift_report.

Belongs here: configuration in, the stage's modules, metadata out. Does not belong here: statistics and verdicts.
"""

import json
import time
from collections.abc import Iterator
from datetime import date
from typing import Any

import dagster as dg
from psycopg.types.json import Jsonb

from assets.dagster_support import OWNERS, check_results, check_specs, errors_by_kind, image, run_is_over, table
from assets.monitoring import documents, drift_statistics, measuring, questions, report, signals
from assets.monitoring.checks import CHECKS, NOT_BLOCKING, drift_checks
from assets.outcomes import blocked
from resources.config import ProjectConfig
from resources.faults import crash_point
from resources.fingerprint import fingerprint
from resources.platform import Platform

#: First day a report can be made for.
START_DATE = "2026-01-01"
#: One partition per UTC day, today included: a report of today covers what happened so far.
DAYS = dg.DailyPartitionsDefinition(start_date=START_DATE, end_offset=1)
#: Subjects drawn in the UI, worst first; the HTML page shows all.
FIGURE_SUBJECTS = 4

CODE_VERSION = ".".join(
    module.CODE_VERSION for module in (documents, questions, measuring, drift_statistics, signals, report)
)

_COLUMNS = dg.TableSchema(
    columns=[
        dg.TableColumn("day", "date", description="UTC day"),
        dg.TableColumn("subject", "string", description="documents:INDEX or questions:DATASET"),
        dg.TableColumn("verdict", "string", description="none, warn, alert or not enough data"),
        dg.TableColumn("details", "json", description="signals with sizes, p-values and sample sizes; terms; figure"),
        dg.TableColumn("file", "string", description="HTML page, relative to the artifacts folder"),
    ]
)


def build_assets(config: ProjectConfig) -> list[dg.AssetsDefinition]:
    """The assets of this stage."""
    subjects = [f"documents:{index}" for index in config.indexes]
    subjects += [f"questions:{dataset}" for dataset in config.datasets]

    @dg.asset(
        name="drift_report",
        partitions_def=DAYS,
        deps=[
            dg.AssetDep("search_index", partition_mapping=dg.AllPartitionMapping()),
            dg.AssetDep("evaluation_dataset", partition_mapping=dg.AllPartitionMapping()),
        ],
        group_name="monitoring",
        kinds={"python", "postgres"},
        owners=OWNERS,
        tags={"genaiops/stage": "monitoring"},
        code_version=CODE_VERSION,
        output_required=False,
        check_specs=check_specs("drift_report", CHECKS, partitions_def=DAYS, not_blocking=NOT_BLOCKING),
        metadata={"dagster/column_schema": _COLUMNS},
    )
    def drift_report(
        context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]
    ) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult]:
        """How far documents and questions have moved by the end of a day.

        For every index, the documents served against those served `reference_days` earlier; for every evaluation
        dataset, the questions people asked against those it tests. Volume, length, language, vocabulary and embeddings
        are compared; verdicts are calibrated by permutation and corrected for the number of tests (docs/drift.md).
        """
        started = time.perf_counter()
        day = context.partition_key
        policy = platform.config.policies.drift
        permutations = signals.planned_permutations(policy, len(subjects))
        on = date.fromisoformat(day)
        over = run_is_over(context.instance)
        with errors_by_kind(), platform.database.lease(f"drift:{day}", context.run_id, holder_is_dead=over) as lease:
            comparisons = [documents.compare_documents(platform, index, on, permutations) for index in config.indexes]
            comparisons += [questions.compare_questions(platform, name, on, permutations) for name in config.datasets]
            comparisons = signals.judge(comparisons, policy)

            outcomes = drift_checks(comparisons, subjects)
            yield from check_results(outcomes)
            if blocked(outcomes):
                return

            details = [comparison.details() for comparison in comparisons]
            settings = {**policy.model_dump(), "permutations": permutations}
            page = report.render_html(day, details, settings)
            with platform.database.connect() as connection:
                lease.check(connection)
                connection.execute("DELETE FROM drift_result WHERE day = %s", (day,))
                # the page takes its place under the lease's row lock, so that it is the one of these rows
                file = report.write_page(platform.artifacts, day, page)
                crash_point("monitoring.page_written")
                for comparison, detail in zip(comparisons, details, strict=True):
                    connection.execute(
                        """INSERT INTO drift_result (day, subject, verdict, details, file, run_id)
                           VALUES (%s, %s, %s, %s, %s, %s)""",
                        (day, comparison.subject, comparison.verdict, Jsonb(detail), file, context.run_id),
                    )
        yield dg.MaterializeResult(
            data_version=dg.DataVersion(_data_version(day, comparisons, settings)),
            metadata=_metadata(platform, file, details, permutations, time.perf_counter() - started),
        )

    return [drift_report]


def _data_version(day: str, comparisons: list[signals.Comparison], settings: dict[str, Any]) -> str:
    inputs = {comparison.subject: comparison.inputs for comparison in comparisons}
    return fingerprint({"day": day, "inputs": inputs, "settings": settings, "code": CODE_VERSION})


def _metadata(
    platform: Platform, file: str, details: list[dict[str, Any]], permutations: int, seconds: float
) -> dict[str, Any]:
    rows = [
        {
            "subject": detail["subject"],
            "signal": signal["title"],
            "verdict": signal["verdict"],
            "observed": signal["statement"],
            "measure": signal["measure"],
            "size": signal["effect"],
            "p": signal["p_value"],
            "p_adjusted": signal["p_adjusted"],
            "samples": json.dumps(signal["samples"]),
        }
        for detail in details
        for signal in detail["signals"]
    ]
    shown = [detail for detail in report.worst_first(details) if detail["signals"]][:FIGURE_SUBJECTS]
    metadata: dict[str, Any] = {
        "dagster/row_count": len(details),
        "verdicts": table([{"subject": d["subject"], "verdict": d["verdict"], "words": d["words"]} for d in details]),
        "report": dg.MetadataValue.path(str(platform.artifacts / file)),
        "permutations": permutations,
        "seconds": round(seconds, 3),
    }
    if rows:
        metadata["signals"] = table(rows)
    if shown:
        metadata["figure"] = image(report.draw(shown), "drift: reference against current")
    return metadata
