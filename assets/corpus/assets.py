"""The corpus asset: raw_documents.

Belongs here: configuration in, the stage's modules, metadata out. Does not belong here: detection, parsing, policies.
"""

import time
from collections.abc import Iterator
from typing import Any

import dagster as dg

from assets.corpus.checks import (
    CHECKS,
    NOT_BLOCKING,
    corpus_checks,
    earlier_shares,
    quarantine_rows,
    screening_rows,
)
from assets.corpus.documents import CommittedRevision
from assets.corpus.parsing import CODE_VERSION
from assets.corpus.refresh import RefreshPlan, commit, plan_refresh
from assets.dagster_support import (
    OWNERS,
    check_results,
    check_specs,
    errors_by_kind,
    run_is_over,
    source_partitions,
    table,
)
from assets.outcomes import blocked, passed_checks
from resources.config import ProjectConfig
from resources.platform import Platform

_SAMPLE_ROWS = 5
_CHANGE_ROWS = 20

_COLUMNS = dg.TableSchema(
    columns=[
        dg.TableColumn("document_id", "bigint", description="identity; survives edits and renames"),
        dg.TableColumn("version_id", "bigint", description="one content of the document"),
        dg.TableColumn("path", "text", description="POSIX path inside the source"),
        dg.TableColumn("title", "text", description="as stated, else the first heading, else from the file name"),
        dg.TableColumn("headings", "jsonb", description="[{level, text, start}]; start counts characters of the text"),
        dg.TableColumn("language", "text", description="two- or three-letter code, null when undecided"),
        dg.TableColumn("licence", "text", description="as stated, else the source's default"),
        dg.TableColumn("origin_time", "timestamptz", description="when the document says it was last changed"),
        dg.TableColumn("content_hash", "bytea", description="SHA-256 of the raw bytes"),
        dg.TableColumn("text_hash", "bytea", description="BLAKE2b-128 of the normalised text"),
        dg.TableColumn("bytes", "bigint", description="size of the raw file"),
        dg.TableColumn("media_type", "text", description="by the file name"),
    ]
)


def build_assets(config: ProjectConfig) -> list[dg.AssetsDefinition]:
    """The assets of this stage."""
    partitions = source_partitions(config)

    @dg.asset(
        name="raw_documents",
        partitions_def=partitions,
        group_name="corpus",
        kinds={"python", "postgres"},
        owners=OWNERS,
        tags={"genaiops/stage": "corpus"},
        code_version=CODE_VERSION,
        output_required=False,
        check_specs=check_specs("raw_documents", CHECKS, partitions_def=partitions, not_blocking=NOT_BLOCKING),
        metadata={"dagster/column_schema": _COLUMNS},
    )
    def raw_documents(
        context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]
    ) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult]:
        """The documents of a source: text, title, headings, language, licence and identity of each.

        A refresh reads every file and compares content: added, changed, renamed and deleted documents make the next
        revision of the source, in one transaction; what is unchanged is not parsed again. What is new is screened for
        personal data, secrets, injected instructions and more before its text is stored. What cannot be read, or
        breaks a policy, goes to quarantine with the reason.
        """
        started = time.perf_counter()
        source = context.partition_key
        with (
            errors_by_kind(),
            platform.database.lease(
                f"source:{source}", context.run.run_id, holder_is_dead=run_is_over(context.instance)
            ) as lease,
        ):
            plan = plan_refresh(platform, source, context.run.run_id, lease)
            with platform.database.connect() as connection:
                stands = not plan.changes and "documents_suite" in passed_checks(
                    connection, "documents", source, plan.base_data_version
                )
                before = earlier_shares(connection, source)
            outcomes = corpus_checks(plan, platform.config.policies, evidence_stands=stands, before=before)
            yield from check_results(outcomes)
            if blocked(outcomes):
                return
            revision = commit(platform, plan, lease, outcomes)
        yield dg.MaterializeResult(
            data_version=dg.DataVersion(revision.data_version),
            metadata={
                **_metadata(plan, revision, time.perf_counter() - started),
                "source_owner": platform.config.sources[source].owner or "not stated",
            },
        )

    return [raw_documents]


def _metadata(plan: RefreshPlan, revision: CommittedRevision, seconds: float) -> dict[str, Any]:
    documents = plan.documents
    metadata: dict[str, Any] = {
        "dagster/row_count": len(documents),
        "revision": revision.revision,
        "committed": revision.committed,
        **revision.counts,
        "skipped": dg.MetadataValue.json(dict(plan.skipped)),
        "parsed": plan.work.parses,
        "parse_seconds": round(plan.work.seconds, 3),
        "screened": plan.screen_work.screened,
        "screen_seconds": round(sum(plan.screen_work.seconds.values()), 3),
        "screening": table(screening_rows(plan.screened)),
        "bytes": sum(document.size for document in documents),
        "bytes_read": plan.bytes_read,
        "seconds": round(seconds, 3),
    }
    changes = [
        *({"change": item.change, "path": item.path, "from": item.previous_path or ""} for item in plan.planned),
        *({"change": "deleted", "path": item.path, "from": ""} for item in plan.deleted),
    ]
    if changes:
        metadata["changes"] = table(changes[:_CHANGE_ROWS])
    if plan.quarantined:
        metadata["in_quarantine"] = table(quarantine_rows(plan.quarantined))
    if documents:
        # a sample shows what was understood, never the text itself
        metadata["sample"] = table(
            [
                {"path": d.path, "title": d.title, "language": d.language or "", "characters": d.characters}
                for d in documents[:_SAMPLE_ROWS]
            ]
        )
    return metadata
