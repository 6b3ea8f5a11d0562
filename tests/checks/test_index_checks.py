"""Each check of the index stage is fed bad data and keeps the snapshot, or the vectors, from going out."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from psycopg import sql

from assets.index import refreshing
from assets.index.checks import (
    combine,
    completeness_outcome,
    coverage_outcome,
    embedding_outcomes,
    freshness_outcome,
    neighbour_outcomes,
    parity_outcome,
    suite_outcome,
)
from assets.index.coverage import Coverage
from assets.index.embedding import EmbeddingWork, ModelWork, VectorFacts, embed_source, validate
from assets.index.measuring import Completeness, Freshness, Neighbours, Parity, measure_freshness
from assets.index.publishing import rollback
from assets.index.refreshing import refresh_index, refresh_indexes
from assets.index.staging import Stage, stage
from assets.outcomes import CheckOutcome, blocked
from resources.errors import SnapshotNotFoundError
from resources.models import EmbeddingBatch, Usage
from resources.platform import Platform
from resources.policy_config import IndexPolicy
from resources.search_statements import Shape
from tests.index_world import article, prepare, refresh, searcher

Make = Callable[..., Platform]
TEXTS = {f"{subject}.md": article(subject) for subject in ("apple", "pear", "plum")}

#: What goes wrong between staging and the gates, and which gate must see it.
SABOTAGE = {
    "count_parity": "DELETE FROM {table} WHERE ordinal = 1",
    "documents_complete": "DELETE FROM index_document WHERE document_id = (SELECT min(document_id) FROM index_document)",
    "self_retrieval": """UPDATE {table} a SET embedding = b.embedding FROM {table} b
                         WHERE b.document_id = a.document_id AND b.ordinal = (a.ordinal + 1) %% 4""",
}


@pytest.mark.parametrize("check", SABOTAGE)
def test_sabotaged_stage_is_not_published(make_platform: Make, monkeypatch: pytest.MonkeyPatch, check: str) -> None:
    platform = make_platform()
    refresh(platform, "docs", {"apple.md": TEXTS["apple.md"]})
    prepare(platform, "docs", TEXTS)

    def sabotaged(*arguments: Any) -> Stage:
        result = stage(*arguments)
        with platform.database.connect() as connection:
            statement = sql.SQL(SABOTAGE[check].replace("%%", "%")).format(table=sql.Identifier(result.table))  # type: ignore[arg-type]
            connection.execute(statement)
        return result

    monkeypatch.setattr(refreshing, "stage", sabotaged)
    item = refresh_index(platform, "main", "docs", "run")
    assert check in {outcome.name for outcome in blocked(item.outcomes)}
    assert item.publication is None
    assert item.failed
    assert [info.snapshot for info in searcher(platform).snapshots("main")] == [1]


def test_low_recall_is_not_published(make_platform: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search that walks the wrong way: its candidates are the farthest rows."""
    platform = make_platform(
        **{
            "indexes/main.yaml": {
                "name": "main",
                "embedder": "lexical",
                "chunker": {"unit": "characters", "size": 200},
                "hnsw": {"exact_below": 5},
            }
        }
    )
    prepare(platform, "docs", TEXTS)
    from resources import vector_index

    real = vector_index.statement

    def reversed_walk(shape: Shape) -> str:
        return real(shape).replace("<=> %(vector)s) LIMIT", "<=> %(vector)s) DESC LIMIT")

    monkeypatch.setattr(vector_index, "statement", reversed_walk)
    item = refresh_index(platform, "main", "docs", "run")
    failed = {outcome.name: outcome for outcome in blocked(item.outcomes)}
    assert "recall_at_10" in failed
    assert "ef_search 1000" in failed["recall_at_10"].observed
    assert "raise hnsw.m or hnsw.ef_construction" in failed["recall_at_10"].observed
    assert item.publication is None
    with pytest.raises(SnapshotNotFoundError):
        searcher(platform).serving("main")


def test_one_failing_index_does_not_stop_the_others(make_platform: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    platform = make_platform(**{"indexes/other.yaml": {"name": "other", "embedder": "lexical"}})
    prepare(platform, "docs", TEXTS)

    def sabotaged(platform: Platform, index: str, *arguments: Any) -> Stage:
        result = stage(platform, index, *arguments)
        if index == "main":
            with platform.database.connect() as connection:
                connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(result.table)))
        return result

    monkeypatch.setattr(refreshing, "stage", sabotaged)
    result = refresh_indexes(platform, "docs", "run")
    assert [item.index for item in result.failed] == ["main"]
    assert searcher(platform).serving("other") == 1
    with pytest.raises(SnapshotNotFoundError):
        searcher(platform).serving("main")
    combined = {outcome.name: outcome for outcome in combine({i.index: i.outcomes for i in result.indexes})}
    assert not combined["count_parity"].passed
    assert combined["count_parity"].observed == "failed for main"


# --- verdicts on numbers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "passed"),
    [
        (parity_outcome(Parity(10, 10, 3, 0)), True),
        (parity_outcome(Parity(10, 9, 3, 0)), False),
        (parity_outcome(Parity(10, 10, 3, 1)), False),
        (completeness_outcome(Completeness(5, 0, 0)), True),
        (completeness_outcome(Completeness(5, 1, 0)), False),
        (completeness_outcome(Completeness(5, 0, 1)), False),
        (freshness_outcome("main", Freshness(3, 7, 6, 35.9, None), 36), True),
        (freshness_outcome("main", Freshness(3, 7, 6, 36.1, "ana"), 36), False),
        (
            coverage_outcome(_work := EmbeddingWork("docs", 1, [ModelWork("m", ["i"], 4, coverage=Coverage(3, 9))], 0)),
            True,
        ),
        (
            coverage_outcome(
                EmbeddingWork("docs", 1, [ModelWork("m", ["i"], 4, coverage=Coverage(3, 9, texts_without_chunks=1))], 0)
            ),
            False,
        ),
        (
            coverage_outcome(
                EmbeddingWork(
                    "docs",
                    1,
                    [
                        ModelWork(
                            "m",
                            ["i"],
                            4,
                            coverage=Coverage(3, 9, chunks_without_embedding=2, inputs_without_embedding=1),
                        )
                    ],
                    0,
                )
            ),
            False,
        ),
    ],
)
def test_verdict(outcome: CheckOutcome, passed: bool) -> None:
    assert outcome.passed is passed


@pytest.mark.parametrize(
    ("neighbours", "chunks", "failed"),
    [
        (Neighbours(100, 0.95, 95, False), 200, []),
        (Neighbours(100, 0.949, 95, False), 200, ["recall_at_10"]),
        (Neighbours(100, 1.0, 94, True), 200, ["self_retrieval"]),
        (Neighbours(0, 1.0, 0, True), 0, []),
        (Neighbours(0, 1.0, 0, True), 200, ["recall_at_10", "self_retrieval"]),
    ],
)
def test_thresholds_are_those_of_the_policy(neighbours: Neighbours, chunks: int, failed: list[str]) -> None:
    assert [o.name for o in neighbour_outcomes(neighbours, IndexPolicy(), chunks) if not o.passed] == failed


def test_index_whose_rows_are_gone_is_not_published(make_platform: Make) -> None:
    """A deletion alone asks the counts of no other document, and finds no chunk to search with."""
    platform = make_platform()
    refresh(platform, "docs", TEXTS)
    with platform.database.connect() as connection:
        connection.execute("DELETE FROM chunks_1")
    item = refresh(platform, "docs", dict(list(TEXTS.items())[1:]))
    assert item.publication is None
    assert {o.name for o in item.outcomes if not o.passed} >= {"recall_at_10", "self_retrieval"}


def test_freshness_warns_while_a_rollback_keeps_readers_behind(make_platform: Make) -> None:
    platform = make_platform()
    refresh(platform, "docs", {"apple.md": TEXTS["apple.md"]})
    refresh(platform, "docs", TEXTS)
    rollback(platform.database, "main", by="ana", reason="x")
    with platform.database.connect() as connection:
        connection.execute("UPDATE source_revision SET committed_at = now() - interval '40 hours' WHERE revision = 2")
        freshness = measure_freshness(connection, "main", "docs")
    assert (freshness.served, freshness.revision, freshness.held_by) == (1, 2, "ana")
    outcome = freshness_outcome("main", freshness, 36)
    assert (outcome.passed, outcome.blocking, outcome.severity) == (False, False, "WARN")


# --- embeddings --------------------------------------------------------------------------------------------


def test_unusable_vectors_are_refused_and_counted() -> None:
    work = ModelWork("m", ["i"], 3)
    vectors = np.array([[1, 0, 0], [np.nan, 0, 0], [0, 0, 0], [np.inf, 1, 1], [1e6, 0, 0], [0, 2, 0]], dtype=np.float32)
    assert validate([bytes([i]) for i in range(6)], vectors, work) == [0, 5]
    assert work.rejected == {"not finite": 2, "zero": 1, "too large": 1}
    assert validate([b"a"], np.ones((1, 4), np.float32), work) == []
    assert work.rejected["dimensions"] == 1


@pytest.mark.parametrize(
    ("bad", "expectation"),
    [
        (VectorFacts("aa", "m", 3, 0.0, True), "norm"),
        (VectorFacts("ab", "m", 4, 1.0, True), "dimensions"),
        (VectorFacts("ac", "m", 3, 1.0, False), "finite"),
        (VectorFacts("ad", "stranger", 3, 1.0, True), "model"),
        (VectorFacts("ff", "m", 3, 1.0, True), "unique"),
    ],
)
def test_suite_names_the_expectation_that_fails(bad: VectorFacts, expectation: str) -> None:
    work = ModelWork("m", ["i"], 3, sample=[VectorFacts("ff", "m", 3, 1.0, True), bad])
    outcome = suite_outcome([work])
    assert not outcome.passed
    assert expectation in outcome.observed
    assert suite_outcome([ModelWork("m", ["i"], 3, sample=work.sample[:1])]).passed


@dataclass
class BrokenModels:
    """Embedding models of which one returns a zero vector for every text about pears."""

    real: Any
    sent: list[str] = field(default_factory=list)
    broken: bool = True

    def embedder(self, name: str) -> Any:
        real, models = self.real.embedder(name), self

        class Embedder:
            config, dimensions, offline, fingerprint = real.config, real.dimensions, real.offline, real.fingerprint

            def embed(self, texts: list[str]) -> EmbeddingBatch:
                models.sent += texts
                vectors = real.embed(texts).vectors.copy()
                for i, text in enumerate(texts):
                    if models.broken and "pear" in text:
                        vectors[i] = 0
                return EmbeddingBatch(vectors, Usage(requests=1))

        return Embedder()


def test_refused_vectors_block_and_only_they_are_asked_for_again(make_platform: Make) -> None:
    platform = make_platform()
    models = BrokenModels(platform.models)
    platform.__dict__["models"] = models
    work = prepare(platform, "docs", TEXTS)
    failed = {outcome.name for outcome in blocked(embedding_outcomes(work))}
    assert failed == {"embeddings_suite", "vectors_valid", "embeddings_complete"}
    assert work.computed == 8
    models.broken, models.sent = False, []
    again = embed_source(platform, "docs", "again")
    assert (again.computed, again.reused) == (4, 8)
    assert all("pear" in text for text in models.sent)
    assert blocked(embedding_outcomes(again)) == []
