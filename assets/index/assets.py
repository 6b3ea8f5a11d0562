"""Assets of the index stage: embeddings and search_index, both partitioned by source.

Belongs here: what Dagster shows and schedules. Does not belong here: the work (embedding.py, refreshing.py).
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from assets.dagster_support import (
    OWNERS,
    check_results,
    check_specs,
    errors_by_kind,
    run_is_over,
    source_partitions,
    table,
)
from assets.index import checks
from assets.index.checks import EMBEDDING_CHECKS, INDEX_CHECKS, NOT_BLOCKING
from assets.index.embedding import EmbeddingWork, embed_source
from assets.index.refreshing import index_rows, refresh_indexes
from assets.index.specification import specify
from assets.outcomes import blocked
from resources.config import ProjectConfig
from resources.errors import PermanentError, TransientError
from resources.fingerprint import fingerprint
from resources.platform import Platform
from resources.vector_index import CODE_VERSION

Events = Iterator[dg.AssetCheckResult | dg.MaterializeResult]

EMBEDDING_COLUMNS = dg.TableSchema(
    columns=[
        dg.TableColumn("embedder_id", "integer", description="Embedding model, by fingerprint in table embedder."),
        dg.TableColumn("input_hash", "bytea", description="BLAKE2b-128 of the text that was embedded."),
        dg.TableColumn("embedding", "vector", description="As the model returned it."),
        dg.TableColumn("run_id", "text", description="Run that computed it."),
    ]
)
INDEX_COLUMNS = dg.TableSchema(
    columns=[
        dg.TableColumn("document_id", "bigint", description="Document the chunk is of."),
        dg.TableColumn("source", "text", description="Source of the document."),
        dg.TableColumn("ordinal", "integer", description="Position of the chunk in its document, from 0."),
        dg.TableColumn("start_char", "integer", description="First character in the document text."),
        dg.TableColumn("end_char", "integer", description="One past the last character."),
        dg.TableColumn("chunk_hash", "bytea", description="BLAKE2b-128 of the chunk."),
        dg.TableColumn("input_hash", "bytea", description="BLAKE2b-128 of what was embedded."),
        dg.TableColumn("heading_path", "text[]", description="Headings above the chunk, outermost first."),
        dg.TableColumn("content", "text", description="The chunk."),
        dg.TableColumn("tsv", "tsvector", description="What full-text search sees."),
        dg.TableColumn("embedding", "halfvec or vector", description="What vector search sees."),
        dg.TableColumn("valid_from", "integer", description="First snapshot that shows the row."),
        dg.TableColumn("valid_to", "integer", description="First snapshot that no longer does; 2147483647: none yet."),
    ]
)


def build_assets(config: ProjectConfig) -> list[dg.AssetsDefinition]:
    """The two assets of this stage."""
    partitions = source_partitions(config)

    @dg.asset(
        name="embeddings",
        group_name="index",
        partitions_def=partitions,
        deps=["chunks"],
        pool="embedding_model",
        kinds={"python", "postgres"},
        owners=OWNERS,
        tags={"genaiops/stage": "index"},
        code_version=CODE_VERSION,
        metadata={"dagster/column_schema": EMBEDDING_COLUMNS},
        output_required=False,
        check_specs=check_specs("embeddings", EMBEDDING_CHECKS, partitions_def=partitions),
    )
    def embeddings(context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]) -> Events:
        """One vector per distinct chunk input and embedding model; a text that was embedded once is never sent again."""
        with errors_by_kind():
            work = embed_source(platform, context.partition_key, context.run_id)
        outcomes = checks.embedding_outcomes(work)
        yield from check_results(outcomes)
        if blocked(outcomes):
            return
        yield dg.MaterializeResult(
            data_version=dg.DataVersion(_embedding_version(platform, work)), metadata=_embedding_metadata(work)
        )

    @dg.asset(
        name="search_index",
        group_name="index",
        partitions_def=partitions,
        deps=["embeddings"],
        kinds={"python", "postgres", "pgvector"},
        owners=OWNERS,
        tags={"genaiops/stage": "index"},
        code_version=CODE_VERSION,
        metadata={"dagster/column_schema": INDEX_COLUMNS},
        output_required=False,
        check_specs=check_specs("search_index", INDEX_CHECKS, partitions_def=partitions, not_blocking=NOT_BLOCKING),
    )
    def search_index(context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]) -> Events:
        """The searchable snapshots of every index over a source: staged, checked, then published at one stroke."""
        source = context.partition_key
        refresh = refresh_indexes(platform, source, context.run_id, run_is_over(context.instance))
        transient = [item for item in refresh.indexes if item.transient]
        if transient:
            with errors_by_kind():
                raise TransientError("; ".join(f"index {item.index}: {item.error}" for item in transient))
        outcomes = checks.combine({item.index: item.outcomes for item in refresh.indexes})
        yield from check_results(outcomes)
        for item in refresh.failed:
            context.log.error(f"index {item.index} was not published: {item.error or 'a blocking check failed'}")
        if any(item.error for item in refresh.indexes):
            with errors_by_kind():
                raise PermanentError(
                    "; ".join(f"index {item.index}: {item.error}" for item in refresh.failed if item.error)
                )
        if blocked(outcomes):
            return
        rows = index_rows(refresh)
        yield dg.MaterializeResult(
            data_version=dg.DataVersion(refresh.data_version),
            metadata={
                "indexes": table(rows),
                "dagster/row_count": sum(row["chunks"] for row in rows),
                "rows_added": sum(row["rows_added"] for row in rows),
                "rows_retired": sum(row["rows_retired"] for row in rows),
                "published": sum(item.publication is not None for item in refresh.indexes),
                "snapshots": dg.MetadataValue.json({row["index"]: row["snapshot"] for row in rows}),
                "seconds": round(sum(row["stage_seconds"] for row in rows), 3),
            },
        )

    return [embeddings, search_index]


def _embedding_version(platform: Platform, work: EmbeddingWork) -> str:
    """Changes when anything the index shows of the source may change: its documents, or how they are embedded."""
    with platform.database.connect() as connection:
        row = connection.execute(
            "SELECT data_version FROM source_revision WHERE source = %s AND revision = %s", (work.source, work.revision)
        ).fetchone()
    specifications = [specify(platform, index.name) for index in platform.config.indexes_of(work.source)]
    how = sorted({(item.chunker, item.enrichment, item.embedder) for item in specifications})
    return fingerprint([row[0] if row else None, how])


def _embedding_metadata(work: EmbeddingWork) -> dict[str, Any]:
    return {
        "models": table(
            [
                {
                    "model": item.model,
                    "indexes": ", ".join(item.indexes),
                    "dimensions": item.dimensions,
                    "chunks": item.coverage.chunks,
                    "computed": item.computed,
                    "reused": item.reused,
                    "batches": item.batches,
                    "tokens": item.usage.input_tokens,
                    "cost": item.usage.cost,
                }
                for item in work.models
            ]
        ),
        "dagster/row_count": sum(item.coverage.chunks for item in work.models),
        "computed": work.computed,
        "reused": work.reused,
        "revision": work.revision,
        "requests": work.usage.requests,
        "tokens": work.usage.input_tokens,
        "cost": work.usage.cost,
        "currency": work.usage.currency,
        "seconds": round(work.seconds, 3),
    }
