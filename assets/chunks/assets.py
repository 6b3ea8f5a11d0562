"""The chunks asset.

Belongs here: configuration in, the stage's modules, metadata out. Does not belong here: cutting, measuring, writing.
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from assets.chunks.checks import CHECKS, ChunkGate, chunk_checks
from assets.chunks.chunking import ChunkWork, chunk_source
from assets.chunks.enriching import StepWork
from assets.chunks.enrichment_checks import NOT_BLOCKING
from assets.dagster_support import OWNERS, check_results, check_specs, errors_by_kind, source_partitions, table
from assets.outcomes import blocked, passed_checks, record_evidence
from resources.chunk_config import CHUNKER_CODE_VERSION, ENRICHMENT_CODE_VERSION
from resources.config import ProjectConfig
from resources.platform import Platform

_COLUMNS = dg.TableSchema(
    columns=[
        dg.TableColumn("chunker_id", "integer", description="which chunker; see its fingerprint and configuration"),
        dg.TableColumn("text_hash", "bytea", description="content address of the normalised text"),
        dg.TableColumn("ordinal", "integer", description="position in the text, from 0"),
        dg.TableColumn("start_char", "integer", description="first character"),
        dg.TableColumn("end_char", "integer", description="one after the last character"),
        dg.TableColumn("chunk_hash", "bytea", description="content address of exactly these characters"),
        dg.TableColumn("heading_path", "text[]", description="titles of the sections it begins in, outermost first"),
        dg.TableColumn("tokens", "integer", description="words and punctuation marks"),
        dg.TableColumn("parent_start", "integer", description="first character of the parent it is read in, if any"),
        dg.TableColumn("parent_end", "integer", description="one after the last character of the parent"),
    ]
)


def build_assets(config: ProjectConfig) -> list[dg.AssetsDefinition]:
    """The assets of this stage."""
    partitions = source_partitions(config)

    @dg.asset(
        name="chunks",
        partitions_def=partitions,
        deps=["raw_documents"],
        group_name="chunks",
        kinds={"python", "postgres"},
        owners=OWNERS,
        tags={"genaiops/stage": "chunks"},
        code_version=f"{CHUNKER_CODE_VERSION}.{ENRICHMENT_CODE_VERSION}",
        output_required=False,
        check_specs=check_specs("chunks", CHECKS, partitions_def=partitions, not_blocking=NOT_BLOCKING),
        metadata={"dagster/column_schema": _COLUMNS},
    )
    def chunks(
        context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]
    ) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult]:
        """Exact character ranges of every live text, under every chunker an index uses.

        A text is cut once per chunker, whichever documents have it, and never again. New chunks are checked before
        they are written; each knows the headings it stands under, and what is embedded for it. Enrichment steps are done
        once per distinct chunk, whichever indexes ask for them.
        """
        source = context.partition_key
        gate = ChunkGate()
        with errors_by_kind():
            work = chunk_source(platform, source, run_id=context.run_id, gate=gate)
            outcomes = chunk_checks(work, gate)
            yield from check_results(outcomes)
            if blocked(outcomes):
                return
            with platform.database.connect() as connection:
                known = passed_checks(connection, "chunks", source, work.data_version)
                if work.texts_chunked or work.inputs_written or not known.issuperset(CHECKS):
                    record_evidence(connection, "chunks", source, work.data_version, outcomes, context.run.run_id)
        yield dg.MaterializeResult(data_version=dg.DataVersion(work.data_version), metadata=_metadata(work))

    return [chunks]


def _metadata(work: ChunkWork) -> dict[str, Any]:
    metadata = {
        "dagster/row_count": work.chunks,
        "revision": work.revision,
        "texts": work.texts,
        "chunkers": len(work.chunkers),
        "texts_chunked": work.texts_chunked,
        "chunks_written": work.chunks_written,
        "inputs_written": work.inputs_written,
        "reused": work.reused,
        "seconds": round(work.seconds, 3),
    }
    if work.windows:
        metadata |= {
            "semantic_windows": work.windows,
            "semantic_tokens": work.windows_usage.input_tokens,
            "semantic_cost": work.windows_usage.cost,
            "semantic_currency": work.windows_usage.currency,
        }
    if work.steps:
        metadata |= {
            "enrichment": table([_step_row(step) for step in work.steps]),
            "enrichment_calls": work.usage.requests,
            "enrichment_tokens": work.usage.input_tokens + work.usage.output_tokens,
            "enrichment_cost": work.usage.cost,
            "enrichment_currency": work.usage.currency,
        }
    return metadata


def _step_row(work: StepWork) -> dict[str, Any]:
    return {
        "step": work.name,
        "used for": " and ".join(work.step.use) or "the record only",
        "indexes": ", ".join(work.indexes),
        "chunks": work.coverage.chunks,
        "computed": work.computed,
        "reused": work.reused,
        "given up": work.coverage.given_up,
        "calls": work.usage.requests,
        "tokens": work.usage.input_tokens + work.usage.output_tokens,
        "cost": work.usage.cost,
        "seconds": round(work.seconds, 3),
        "languages": ", ".join(f"{code} {count}" for code, count in work.languages.items()),
    }
