"""Distances, fusion, the breadth of the graph search, round trips and limits of a search."""

import re
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import psycopg
import pytest

from assets.index.checks import neighbour_outcomes
from assets.index.measuring import BREADTHS, MARGIN, Neighbours
from assets.index.publishing import rollback
from assets.index.refreshing import refresh_index
from assets.index.retention import apply_retention
from assets.outcomes import blocked
from resources.errors import TransientError
from resources.fusion import Fusion
from resources.models import EmbeddingBatch, Usage
from resources.platform import Platform
from resources.policy_config import IndexPolicy
from resources.postgres import Database
from resources.vector_index import SearchHit, VectorIndex
from tests.index_world import article, order, prepare, refresh, searcher

Make = Callable[..., Platform]
SUBJECTS = ("apple", "pear", "plum", "cherry", "walnut", "quince")
TEXTS = {f"{subject}{number}.md": article(f"{subject}{number}", 1) for subject in SUBJECTS for number in range(15)}


def index_with(**settings: Any) -> dict[str, Any]:
    chunker = {"kind": "recursive", "unit": "characters", "size": 400}
    return {"indexes/main.yaml": {"name": "main", "embedder": "lexical", "chunker": chunker, **settings}}


class Stretched:
    """The offline model with vectors of very different lengths."""

    def __init__(self, real: Any) -> None:
        self.real = real

    def embedder(self, name: str) -> Any:
        real = self.real.embedder(name)

        class Embedder:
            config, dimensions, offline, fingerprint = real.config, real.dimensions, real.offline, real.fingerprint

            def embed(self, texts: list[str], *, query: bool = False) -> EmbeddingBatch:
                lengths = np.array([0.5 + sum(map(ord, text)) % 7 for text in texts], dtype=np.float32)
                return EmbeddingBatch(real.embed(texts, query=query).vectors * lengths[:, None], Usage(requests=1))

        return Embedder()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


def score(distance: str, left: np.ndarray, right: np.ndarray) -> float:
    if distance == "cosine":
        return float(left @ right / (np.linalg.norm(left) * np.linalg.norm(right)))
    return float(left @ right) if distance == "inner_product" else -float(np.linalg.norm(left - right))


@pytest.mark.parametrize("vector_type", ["vector", "halfvec"])
@pytest.mark.parametrize("distance", ["cosine", "inner_product", "l2"])
def test_distances_score_as_documented_exactly_and_in_the_graph(
    make_platform: Make, distance: str, vector_type: str
) -> None:
    """Vectors of different lengths pass the gates with each distance, and the order is that of the definition."""
    platform = make_platform(**index_with(distance=distance, vector_type=vector_type, hnsw={"exact_below": 5}))
    platform.__dict__["models"] = Stretched(platform.models)
    item = refresh(platform, "docs", TEXTS)
    assert item.publication is not None, [outcome.observed for outcome in blocked(item.outcomes)]
    index = searcher(platform)
    question = platform.models.embedder("lexical").embed(["plum3 plum6 walnut2"]).vectors[0]
    kind = np.float16 if vector_type == "halfvec" else np.float32
    with platform.database.connect() as connection:
        rows = connection.execute("SELECT document_id, ordinal, embedding FROM chunks_1").fetchall()
        (method,) = connection.execute(
            """SELECT opcname FROM pg_index JOIN pg_opclass ON pg_opclass.oid = indclass[0]
               WHERE indexrelid = 'chunks_1_embedding'::regclass"""
        ).fetchone() or ("",)
        view = index._view(connection, "main", None)
        exact = index.search_view(connection, view, "", question, mode="vector", k=10, exact=True)
        graph = index.search_view(connection, view, "", question, mode="vector", k=10, exact=False, ef_search=200)
    assert method == f"{vector_type}_{ {'cosine': 'cosine', 'inner_product': 'ip', 'l2': 'l2'}[distance] }_ops"
    true = {
        (row[0], row[1]): score(
            distance, question.astype(kind).astype(np.float64), np.asarray(_numbers(row[2]), dtype=np.float64)
        )
        for row in rows
    }
    best = sorted(true.values(), reverse=True)[:10]
    assert [hit.score for hit in exact] == pytest.approx(best, rel=1e-3, abs=1e-3)
    assert [hit.score for hit in graph] == pytest.approx(best, rel=1e-3, abs=1e-3)
    assert all(hit.vector_score == hit.score for hit in exact)


def _numbers(value: Any) -> Any:
    return value.to_numpy() if hasattr(value, "to_numpy") else value


def test_altered_vector_is_seen_with_the_inner_product(make_platform: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """There a vector need not be nearest to itself, yet it must be the one of its text."""
    from assets.index import refreshing
    from assets.index.staging import stage

    platform = make_platform(**index_with(distance="inner_product"))
    platform.__dict__["models"] = Stretched(platform.models)
    prepare(platform, "docs", TEXTS)

    def swapped(*arguments: Any) -> Any:
        result = stage(*arguments)
        with platform.database.connect() as connection:
            connection.execute(
                """UPDATE chunks_1 a SET embedding = b.embedding FROM chunks_1 b
                   WHERE b.document_id = a.document_id % 90 + 1 AND b.ordinal = a.ordinal"""
            )
        return result

    monkeypatch.setattr(refreshing, "stage", swapped)
    item = refresh_index(platform, "main", "docs", "run")
    assert "self_retrieval" in {outcome.name for outcome in blocked(item.outcomes)}


# --- fusion --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.15, 0.5, 1.0])
def test_weighted_fusion_is_the_combination_of_both_scores(make_platform: Make, share: float) -> None:
    """Also of chunks that only one of the lists has: what is missing from a list is not zero."""
    platform = make_platform(**index_with())
    prepare(platform, "docs", TEXTS)
    _embedded(platform, 90, 384)  # vectors that agree with no word: the lists have little in common
    assert refresh_index(platform, "main", "docs", "run").publication is not None
    index, question = searcher(platform), "plum3 cherry7 plum5 and the part"
    everything = {
        mode: {(hit.path, hit.ordinal): hit.score for hit in index.search("main", question, mode=mode, k=500).hits}  # type: ignore[arg-type]
        for mode in ("vector", "full_text")
    }
    hits = index.search("main", question, k=20, depth=4, fusion=Fusion("weighted", share, 1 - share)).hits
    ideal = _ideal(platform, question)
    assert len(hits) > 4
    for hit in hits:
        vector, text = (everything[mode].get((hit.path, hit.ordinal), 0.0) for mode in ("vector", "full_text"))
        assert hit.vector_score == pytest.approx(vector, abs=1e-6)
        assert hit.text_score == pytest.approx(text, abs=1e-6)
        assert hit.score == pytest.approx(share * vector + (1 - share) * text / ideal, abs=1e-6)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert {hit.vector_rank for hit in hits} >= {1, 2, 3, 4}
    assert any(hit.vector_rank is None for hit in hits)


def _ideal(platform: Platform, question: str) -> float:
    """What BM25 would give without end of every word the index has."""
    with platform.database.connect() as connection:
        row = connection.execute(
            """SELECT sum(ln(1 + (n - f + 0.5) / (f + 0.5)) * 1.9)
               FROM (SELECT (SELECT count(*) FROM chunks_1) AS n, sum(change) AS f FROM words_1
                     WHERE word = ANY(tsvector_to_array(to_tsvector('english', %s))) GROUP BY word) words""",
            (question,),
        ).fetchone()
    assert row is not None
    return float(row[0])


def test_weights_of_reciprocal_ranks(make_platform: Make) -> None:
    platform = make_platform(**index_with())
    refresh(platform, "docs", TEXTS)
    for hit in searcher(platform).search("main", "plum3 cherry7", k=10, fusion=Fusion("rrf", 2.0, 0.5, 10)).hits:
        expected = (2 / (10 + hit.vector_rank) if hit.vector_rank else 0) + (
            0.5 / (10 + hit.text_rank) if hit.text_rank else 0
        )
        assert hit.score == pytest.approx(expected)


def test_question_without_words_is_answered_by_the_vectors(make_platform: Make) -> None:
    """Stop words alone, with each fusion."""
    platform = make_platform(**index_with())
    refresh(platform, "docs", TEXTS)
    for fusion in (Fusion("rrf", 1, 1, 60), Fusion("weighted", 0.5, 0.5)):
        hits = searcher(platform).search("main", "zzzz unheard of", k=5, fusion=fusion).hits
        assert [hit.text_score or 0.0 for hit in hits] == [0.0] * len(hits)


# --- breadth of the graph search --------------------------------------------------------------------------------


def _embedded(platform: Platform, rows: int, dimensions: int, seed: int = 5) -> None:
    """Replace the vectors in the cache by random ones, the hardest case for a graph."""
    generator = np.random.default_rng(seed)
    with platform.database.connect() as connection:
        keys = connection.execute("SELECT embedder_id, input_hash FROM embedding ORDER BY 2").fetchall()
        vectors = generator.standard_normal((len(keys), dimensions)).astype(np.float32)
        with connection.cursor() as cursor:
            cursor.executemany(
                "UPDATE embedding SET embedding = %s WHERE embedder_id = %s AND input_hash = %s",
                [(vector, *key) for vector, key in zip(vectors, keys, strict=True)],
            )
    assert len(keys) >= rows


def test_breadth_is_the_smallest_that_suffices_and_readers_use_it(
    make_platform: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = make_platform(**index_with(hnsw={"exact_below": 10, "m": 4, "ef_construction": 16}))
    # a table this small would be read in full by the planner's choice
    database = Database(f"{platform.database.url}&options=-cenable_seqscan%3Doff")
    platform = replace(platform, database=database)
    texts = {f"{n}.md": f"Text number {n} about {SUBJECTS[n % 6]}{n}." for n in range(900)}
    prepare(platform, "docs", texts)
    _embedded(platform, 900, 384)
    item = refresh_index(platform, "main", "docs", "run")
    assert item.publication is not None, [outcome.observed for outcome in blocked(item.outcomes)]
    chosen = searcher(platform).snapshots("main")[0].counts["ef_search"]
    assert chosen in BREADTHS[1:], "random vectors in a thin graph need more than the smallest"
    recall = next(outcome for outcome in item.outcomes if outcome.name == "recall_at_10")
    assert recall.details["ef_search"] == chosen
    assert recall.details["recall"] - MARGIN * recall.details["standard_error"] >= 0.95
    with platform.database.connect() as connection:
        index = searcher(platform)
        view = index._view(connection, "main", None)
        assert view.ef_search == chosen
        vector = platform.models.embedder("lexical").embed(["apple"]).vectors[0]
        plan = index._plan(view, "", vector, "vector", 10, None, None, None, None)
    assert plan.settings["hnsw.ef_search"] == str(chosen)

    # a small delta takes it over; when it is not enough any more, another is looked for
    from assets.index import checks

    tried: list[int | None] = []
    real = checks.choose_breadth

    def watched(*arguments: Any) -> Neighbours:
        tried.append(None)
        return real(*arguments)

    monkeypatch.setattr(checks, "choose_breadth", watched)
    refresh(platform, "docs", texts | {"new.md": "One more."})
    assert (searcher(platform).snapshots("main")[0].counts["ef_search"], tried) == (chosen, [])
    with platform.database.connect() as connection:
        connection.execute("UPDATE index_snapshot SET counts = counts || '{\"ef_search\": 1}'")
    refresh(platform, "docs", texts | {"new.md": "One more.", "newer.md": "And another."})
    assert tried == [None]
    assert searcher(platform).snapshots("main")[0].counts["ef_search"] in BREADTHS
    database.close()


def test_configured_breadth_is_used_as_it_is(make_platform: Make) -> None:
    platform = make_platform(**index_with(hnsw={"exact_below": 10, "ef_search": 33}))
    item = refresh(platform, "docs", TEXTS)
    assert item.publication is not None
    with platform.database.connect() as connection:
        index = searcher(platform)
        view = index._view(connection, "main", None)
        vector = platform.models.embedder("lexical").embed(["apple"]).vectors[0]
        assert index._plan(view, "", vector, "vector", 5, None, None, None, None).settings["hnsw.ef_search"] == "33"
    assert "ef_search 33" in next(o for o in item.outcomes if o.name == "recall_at_10").observed


@pytest.mark.parametrize(
    ("ef_search", "remedy"),
    [(1000, "raise hnsw.m or hnsw.ef_construction"), (80, r"raise hnsw.ef_search \(or set it to auto\), hnsw.m or")],
)
def test_low_recall_says_what_to_raise(ef_search: int, remedy: str) -> None:
    outcome = neighbour_outcomes(Neighbours(100, 0.9, 100, False, ef_search=ef_search), IndexPolicy(), 500)[0]
    assert not outcome.passed
    assert re.search(remedy, outcome.observed)


# --- one round trip, and what may happen meanwhile ---------------------------------------------------------------


def test_a_search_is_one_batch(make_platform: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Look-up, settings and the search itself travel in one pipeline; the first search alone looks up before it."""
    platform = make_platform(**index_with())
    refresh(platform, "docs", TEXTS)
    index = searcher(platform)
    index.search("main", "apple")
    batches: list[int] = []
    real = psycopg.Connection.pipeline

    def counted(self: Any) -> Any:
        batches.append(1)
        return real(self)

    statements: list[bool] = []
    execute = psycopg.Connection.execute

    def watched(self: Any, *arguments: Any, **options: Any) -> Any:
        statements.append(self._pipeline is not None)
        return execute(self, *arguments, **options)

    monkeypatch.setattr(psycopg.Connection, "pipeline", counted)
    monkeypatch.setattr(psycopg.Connection, "execute", watched)
    index.search("main", "pear and plum", mode="hybrid")
    assert (len(batches), statements) == (1, [True] * 4)


def test_a_remembered_snapshot_gives_way_to_the_one_that_is_served(make_platform: Make) -> None:
    """Publishing, rolling back and dropping a build are seen by the next search of a process that searched before."""
    platform = make_platform(**index_with(), **{"policies/index.yaml": {"keep_snapshots": 1, "keep_days": 0}})
    refresh(platform, "docs", {"a.md": "apple one"})
    index = searcher(platform)
    assert index.search("main", "apple").snapshot == 1
    refresh(platform, "docs", {"a.md": "apple two"})
    assert [hit.text for hit in index.search("main", "apple").hits] == ["apple two"]
    rollback(platform.database, "main", by="ana", reason="x")
    assert [hit.text for hit in index.search("main", "apple").hits] == ["apple one"]
    assert index.search("main", "apple", snapshot=2).snapshot == 2
    changed = platform.config.indexes["main"].model_copy(update={"text_search": "simple"})
    other = replace(platform, config=platform.config.model_copy(update={"indexes": {"main": changed}}))
    refresh_index(other, "main", "docs", "run")
    from assets.index.publishing import roll_forward

    roll_forward(platform.database, "main", "ana")
    apply_retention(platform)
    with platform.database.connect() as connection:
        assert connection.execute(
            "SELECT to_regclass('genaiops.chunks_1'), to_regclass('genaiops.words_1')"
        ).fetchone() == (
            None,
            None,
        )
    assert index.search("main", "apple").snapshot == 3


def test_many_threads_find_what_one_finds(make_platform: Make) -> None:
    platform = make_platform(**index_with())
    refresh(platform, "docs", TEXTS)
    index = searcher(platform)
    questions = [f"{subject}{number}" for subject in SUBJECTS for number in range(6)]
    expected = {question: order(index.search("main", question)) for question in questions}
    fresh, wrong = searcher(platform), []

    def ask(part: list[str]) -> None:
        wrong.extend(question for question in part if order(fresh.search("main", question)) != expected[question])

    threads = [threading.Thread(target=ask, args=(questions[first::6],)) for first in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_search_that_takes_too_long_is_given_up(make_platform: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    platform = make_platform(**index_with(search_timeout=0.2))
    refresh(platform, "docs", TEXTS)
    from resources import vector_index

    real = vector_index.statement
    monkeypatch.setattr(
        vector_index, "statement", lambda shape: real(shape).replace("WHERE true", "WHERE pg_sleep(5) IS NOT NULL")
    )
    with pytest.raises(TransientError, match=r"given up after 0\.2 s.*search_timeout"):
        searcher(platform).search("main", "apple")
    monkeypatch.undo()
    assert searcher(platform).search("main", "apple0").hits


@pytest.mark.parametrize("mode", ["full_text", "hybrid"])
@pytest.mark.parametrize("setting", ["english", "auto"])
def test_huge_and_foreign_questions(make_platform: Make, mode: Any, setting: str) -> None:
    platform = make_platform(**index_with(text_search=setting))
    refresh(platform, "docs", TEXTS)
    index = searcher(platform)
    for question in (
        "apple0 " * 15_000,
        "".join(chr(0x4E00 + n) for n in range(20_000)),
        "ا" * 9_000,
        "\0" * 500,
        "🙂" * 3_000,
    ):
        index.search("main", question, mode=mode, k=3)
    assert index.search("main", "apple0 " * 15_000, mode="full_text", k=1).hits[0].path == "apple0.md"


def test_hits_of_earlier_versions_are_read() -> None:
    """Rows that were stored before there were pages, and by a version that knows more than this one."""
    old = {
        "rank": 1, "score": 0.5, "document_id": 1, "version_id": 2, "source": "docs", "path": "a.md", "title": "A",
        "ordinal": 0, "start": 0, "end": 4, "text": "text", "heading_path": ["A"], "vector_rank": 1, "text_rank": None,
    }  # fmt: skip
    hit = SearchHit.from_json(old)
    assert (hit.page, hit.chunker, hit.heading_path) == (None, "", ("A",))
    assert SearchHit.from_json({**hit.to_json(), "colour": "red"}) == hit


def test_reader_without_configuration_of_the_index(make_platform: Make) -> None:
    """An index that was taken out of the configuration is still searched, as its build was configured."""
    platform = make_platform(**index_with(hnsw={"exact_below": 10}))
    refresh(platform, "docs", TEXTS)
    bare = replace(platform, config=platform.config.model_copy(update={"indexes": {}}))
    assert (
        VectorIndex(bare.database, bare.config, bare.models).search("main", "apple0", k=1).hits[0].path == "apple0.md"
    )
