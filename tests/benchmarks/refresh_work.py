"""One refresh as the four assets do it, without Dagster; imported by fresh processes too, so it stays light."""

import time

from assets.chunks.checks import ChunkGate, chunk_checks
from assets.chunks.chunking import chunk_source
from assets.corpus.checks import corpus_checks
from assets.corpus.refresh import commit, plan_refresh
from assets.index.checks import embedding_outcomes
from assets.index.embedding import embed_source
from assets.index.refreshing import refresh_index
from assets.outcomes import blocked, passed_checks
from resources.platform import Platform

STEPS = ("raw_documents", "chunks", "embeddings", "search_index")
COUNTS = ("parsed", "texts chunked", "chunks written", "embeddings", "rows added", "rows retired")
#: Wall and CPU seconds of each step.
Seconds = dict[str, tuple[float, float]]


def refresh_once(platform: Platform, run_id: str) -> tuple[Seconds, dict[str, int]]:
    """Refresh source ``docs`` and index ``main``, checks included; return seconds by step and counts of work."""
    seconds: Seconds = {}
    last = (time.perf_counter(), time.process_time())

    def lap(step: str) -> None:
        nonlocal last
        now = (time.perf_counter(), time.process_time())
        seconds[step] = (now[0] - last[0], now[1] - last[1])
        last = now

    database = platform.database
    with database.lease("source:docs", run_id) as lease:
        plan = plan_refresh(platform, "docs", run_id, lease)
        with database.connect() as connection:
            stands = not plan.changes and "documents_suite" in passed_checks(
                connection, "documents", "docs", plan.base_data_version
            )
        outcomes = corpus_checks(plan, platform.config.policies, evidence_stands=stands)
        assert not blocked(outcomes)
        commit(platform, plan, lease, outcomes)
    lap("raw_documents")
    gate = ChunkGate()
    chunked = chunk_source(platform, "docs", gate=gate)
    assert not blocked(chunk_checks(chunked, gate))
    lap("chunks")
    embedded = embed_source(platform, "docs", run_id)
    assert not blocked(embedding_outcomes(embedded))
    lap("embeddings")
    item = refresh_index(platform, "main", "docs", run_id)
    assert not item.failed, [(one.name, one.observed) for one in blocked(item.outcomes)]
    assert item.stage is not None
    lap("search_index")
    rows = item.stage.counts if item.stage.staged else {}
    work = (
        plan.work.parses,
        chunked.texts_chunked,
        chunked.chunks_written,
        embedded.computed,
        rows.get("rows_added", 0),
        rows.get("rows_retired", 0),
    )
    return seconds, dict(zip(COUNTS, work, strict=True))
