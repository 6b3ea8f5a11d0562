"""Running the lifecycle's assets in a test, through Dagster, in this process."""

from typing import Any

import dagster as dg

from assets.chunks.assets import build_assets as build_chunks
from assets.corpus.assets import build_assets as build_corpus
from assets.evaluation.assets import build_assets as build_evaluation
from assets.experiments.assets import build_assets as build_experiments
from assets.index.assets import build_assets as build_index
from resources.platform import Platform
from resources.postgres import FOREVER

Work = dict[str, dict[str, Any]]


def refresh(platform: Platform, source: str, instance: dg.DagsterInstance, *, raise_on_error: bool = True) -> Work:
    """Materialize the four refresh assets of one source; return ``{asset: {label: value}}``."""
    config = platform.config
    assets = [*build_corpus(config), *build_chunks(config), *build_index(config)]
    return _materialize(assets, platform, source, instance, raise_on_error)


def build_dataset(platform: Platform, dataset: str, instance: dg.DagsterInstance) -> Work:
    """Materialize one evaluation dataset."""
    return _materialize(build_evaluation(platform.config), platform, dataset, instance, True)


def run_experiment(platform: Platform, experiment: str, instance: dg.DagsterInstance) -> Work:
    """Materialize the scored variants of one experiment."""
    return _materialize(build_experiments(platform.config), platform, experiment, instance, True)


def _materialize(
    assets: list[Any], platform: Platform, partition: str, instance: dg.DagsterInstance, raise_on_error: bool
) -> Work:
    result = dg.materialize(
        assets,
        partition_key=partition,
        resources={"platform": platform},
        instance=instance,
        raise_on_error=raise_on_error,
    )
    return {
        event.materialization.asset_key.to_user_string(): {
            label: getattr(value, "value", value) for label, value in event.materialization.metadata.items()
        }
        for event in result.get_asset_materialization_events()
    }


def corpus_state(platform: Platform) -> list[tuple[Any, ...]]:
    """Live documents without their ids: (source, path, content hash, text hash, title)."""
    with platform.database.connect() as connection:
        return connection.execute(
            "SELECT source, path, content_hash, text_hash, title FROM document_version WHERE rev_to = %s ORDER BY 1, 2",
            (FOREVER,),
        ).fetchall()


def index_state(platform: Platform, index: str, snapshot: int | None = None) -> list[tuple[Any, ...]]:
    """What a snapshot shows, without row ids: (source, path, ordinal, range, headings, content, vector)."""
    from psycopg import sql

    with platform.database.connect() as connection:
        row = connection.execute(
            """SELECT b.table_name, b.build_id, s.snapshot FROM index_snapshot s JOIN index_build b USING (build_id)
               JOIN index_state t ON t.index_name = s.index_name
               WHERE s.index_name = %s AND s.snapshot = coalesce(%s, t.head)""",
            (index, snapshot),
        ).fetchone()
        assert row is not None, f"{index} has no snapshot {snapshot}"
        table, build, number = row
        return connection.execute(
            sql.SQL(
                """SELECT c.source, v.path, c.ordinal, c.start_char, c.end_char, c.heading_path, c.content, c.embedding::text
                   FROM {table} c
                   JOIN index_document d ON d.build_id = %(build)s AND d.document_id = c.document_id
                        AND d.valid_from <= %(number)s AND d.valid_to > %(number)s
                   JOIN document_version v USING (version_id)
                   WHERE c.valid_from <= %(number)s AND c.valid_to > %(number)s
                   ORDER BY 1, 2, 3, 4"""
            ).format(table=sql.Identifier("genaiops", table)),
            {"build": build, "number": number},
        ).fetchall()


def found(
    platform: Platform, index: str, questions: list[str], snapshot: int | None = None
) -> list[list[tuple[Any, ...]]]:
    """Search results without ids, by every mode: (path, range, score rounded to 1e-6)."""
    from resources.vector_index import VectorIndex

    search = VectorIndex(platform.database, platform.config, platform.models)
    return [
        [(hit.source, hit.path, hit.start, hit.end, round(hit.score, 6)) for hit in result.hits]
        for mode in ("vector", "full_text", "hybrid")
        for result in search.search_many(index, questions, mode=mode, k=10, snapshot=snapshot)
    ]
