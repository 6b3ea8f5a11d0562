"""The evaluation stage in Dagster.

Belongs here: configuration in, checks and metadata out.
Does not belong here: resolving questions (dataset.py), what the checks compute (checks.py).
"""

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import dagster as dg

from assets.dagster_support import (
    OWNERS,
    check_results,
    check_specs,
    datasets_of_sources,
    errors_by_kind,
    run_is_over,
    table,
)
from assets.evaluation import checks
from assets.evaluation.dataset import (
    CODE_VERSION,
    ResolvedDataset,
    WrittenDataset,
    newest_version,
    resolve,
    write_dataset,
)
from assets.outcomes import blocked, passed_checks, record_evidence
from resources.config import ProjectConfig
from resources.faults import crash_point
from resources.fingerprint import content_hash, fingerprint
from resources.platform import Platform

GROUP = "evaluation"
KIND = "evaluation_dataset"  # of its evidence
_SHOWN = 100  # stale questions listed in the UI
COLUMNS = dg.TableSchema(
    columns=[
        dg.TableColumn("question_id", "string", constraints=dg.TableColumnConstraints(nullable=False, unique=True)),
        dg.TableColumn("question", "string", constraints=dg.TableColumnConstraints(nullable=False)),
        dg.TableColumn("answer", "string", description="NULL: the documents do not answer it"),
        dg.TableColumn("split", "string", description="train, dev or test"),
        dg.TableColumn("status", "string", description="active, or stale: its evidence vanished"),
        dg.TableColumn("reason", "string", description="why it is stale"),
        dg.TableColumn("tags", "json"),
        dg.TableColumn("fingerprint", "string", description="of question, answer, evidence and its positions"),
        dg.TableColumn(
            "evidence", "list", description="{document_id, text_hash, start, end, quote, kind, grade, stance}"
        ),
        dg.TableColumn("answers", "list", description="every accepted answer"),
        dg.TableColumn("answerable", "bool", description="whether the documents answer it"),
        dg.TableColumn("group", "string", description="of questions that are no independent observations"),
        dg.TableColumn("provenance", "json", description="where the question comes from"),
    ]
)


def _configuration(config: ProjectConfig) -> str:
    """Hash of the dataset files and their questions, so that editing one is seen as a change of code."""
    files = [path.read_bytes() for name in config.datasets for path in config.question_files(name)]
    settings = [dataset.fingerprint() for dataset in config.datasets.values()]
    return fingerprint([settings, [content_hash(data).hex() for data in files]])[:12]


def build_assets(config: ProjectConfig) -> list[dg.AssetsDefinition]:
    """The assets of this stage; none when no dataset is configured."""
    if not config.datasets:
        return []
    partitions = dg.StaticPartitionsDefinition(list(config.datasets))

    @dg.asset(
        partitions_def=partitions,
        deps=[dg.AssetDep("raw_documents", partition_mapping=datasets_of_sources(config))],
        check_specs=check_specs(
            "evaluation_dataset", checks.CHECKS, partitions_def=partitions, not_blocking=checks.NOT_BLOCKING
        ),
        output_required=False,
        group_name=GROUP,
        kinds={"postgres", "parquet"},
        owners=OWNERS,
        tags={"genaiops/stage": GROUP},
        code_version=f"{CODE_VERSION}.{_configuration(config)}",
        metadata={"dagster/column_schema": COLUMNS},
    )
    def evaluation_dataset(
        context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]
    ) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult]:
        """Questions with the exact places of their evidence in the current documents.

        One partition per dataset. Evidence is followed through edits and renames; a question whose evidence vanished
        is set aside with the reason. The same content keeps its version; other content becomes the next one.
        """
        started = time.perf_counter()
        name = context.partition_key
        over = run_is_over(context.instance)
        with (
            errors_by_kind(),
            platform.database.lease(f"dataset:{name}", context.run_id, holder_is_dead=over) as lease,
        ):
            with platform.database.connect() as connection:
                # one state of the documents for all questions, whatever a refresh commits meanwhile
                connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                resolved = resolve(connection, platform.config, name, newest_version(connection, name))
                # the worked examples of prompts are no part of the dataset, so leakage has evidence of its own
                leakage = checks.leakage_key(resolved, platform.config.prompts)
                standing = passed_checks(connection, KIND, name, resolved.content_hash) - {"few_shot_leakage"}
                standing |= passed_checks(connection, KIND, name, leakage)
                promoted = checks.promoted_questions(connection, name)
            outcomes = checks.evaluate_checks(
                resolved,
                platform.config.datasets[name],
                platform.config.prompts,
                standing=standing,
                promoted=promoted,
            )
            yield from check_results(outcomes)
            crash_point("evaluation.checked")
            with platform.database.connect() as connection:
                lease.check(connection)
                # a failure is evidence too: a prompt may have begun to leak a version that passed before
                record_evidence(connection, KIND, name, resolved.content_hash, outcomes, context.run_id)
                leaks = [outcome for outcome in outcomes if outcome.name == "few_shot_leakage"]
                record_evidence(connection, KIND, name, leakage, leaks, context.run_id)
                if blocked(outcomes):
                    return
                written = write_dataset(
                    connection, resolved, artifacts=platform.artifacts, run_id=context.run_id, lease=lease
                )
            crash_point("evaluation.committed")
        yield dg.MaterializeResult(
            data_version=dg.DataVersion(resolved.content_hash),
            metadata={
                **_metadata(resolved, written, time.perf_counter() - started),
                "licence": platform.config.datasets[name].licence or "not stated",
            },
        )

    return [evaluation_dataset]


def _metadata(resolved: ResolvedDataset, written: WrittenDataset, seconds: float) -> dict[str, Any]:
    counts = resolved.counts()
    types = Counter(
        (item.spec.split, str(item.spec.tags.get("type", "")), item.spec.is_answerable, item.status)
        for item in resolved.questions
    )
    return {
        "version": written.version,
        "new_version": written.created,
        "dagster/row_count": counts["questions"],
        "active": counts["active"],
        "stale": counts["stale"],
        "unanswerable": counts["unanswerable"],
        "questions": table(
            [
                {"split": split, "type": kind, "answerable": answerable, "status": status, "questions": number}
                for (split, kind, answerable, status), number in sorted(types.items())
            ]
        ),
        "evidence": dg.MetadataValue.json(counts["evidence"]),
        "stale_questions": table(
            [{"question": item.spec.id, "reason": item.reason} for item in resolved.stale[:_SHOWN]]
        ),
        "sources": dg.MetadataValue.json(resolved.corpus),
        "file": dg.MetadataValue.path(str(written.file)),
        "rows_written": written.rows,
        "seconds": round(seconds, 3),
    }
