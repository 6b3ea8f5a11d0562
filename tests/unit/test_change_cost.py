"""What a small change costs: vectors move in blocks, what is known is not looked at again, and damage still heals."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from psycopg import sql

from assets.index import embedding, measuring
from assets.index.coverage import known_revision, measure_coverage
from assets.index.embedding import embed_source
from assets.index.measuring import NEIGHBOURS, _last_true_scores
from assets.index.refreshing import IndexRefresh, refresh_index
from assets.index.specification import cache_ids, specify
from resources.binary_copy import KEY_BYTES, keyed_vectors, read_vectors
from resources.errors import PermanentError
from resources.platform import Platform
from resources.search_statements import OPERATORS, similarity
from tests.index_world import prepare, refresh, searcher

Make = Callable[..., Platform]
TEXTS = {f"{n}.md": f"# Page {n}\n\nText number {n} about subject{n % 7} and thing{n}.\n" for n in range(120)}


def with_graph(**index: Any) -> dict[str, Any]:
    """An index of which every snapshot has a graph."""
    settings = {"name": "main", "embedder": "lexical", "chunker": {"kind": "markdown", "size": 400}}
    return {"indexes/main.yaml": settings | {"hnsw": {"exact_below": 10, "ef_search": 80}} | index}


# --- blocks of vectors -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["vector", "halfvec"])
@pytest.mark.parametrize("count", [0, 1, 2, 7, 8, 9, 64])
def test_vectors_go_to_the_server_and_come_back(make_platform: Make, kind: str, count: int) -> None:
    vectors = np.random.default_rng(count).normal(size=(count, 5)).astype(np.float32)
    keys = [number.to_bytes(KEY_BYTES, "big") for number in range(count)]
    with make_platform().database.connect() as connection:
        connection.execute(sql.SQL("CREATE TEMP TABLE kept (key bytea, v {})").format(sql.SQL(kind)))  # type: ignore[arg-type]
        connection.execute("CREATE TEMP TABLE sent (key bytea, v vector)")
        with connection.cursor() as cursor, cursor.copy("COPY sent FROM STDIN WITH (FORMAT BINARY)") as copy:
            copy.write(keyed_vectors(keys, vectors))
        stored = connection.execute("SELECT key, v FROM sent ORDER BY key").fetchall()
        assert [row[0] for row in stored] == keys
        assert np.array_equal(np.array([row[1].to_numpy() for row in stored]).reshape(count, 5), vectors)
        connection.execute(sql.SQL("INSERT INTO kept SELECT key, v::{} FROM sent").format(sql.SQL(kind)))  # type: ignore[arg-type]
        with connection.cursor() as cursor:
            with cursor.copy("COPY (SELECT v FROM kept ORDER BY key) TO STDOUT (FORMAT BINARY)") as copy:
                blocks = list(read_vectors(copy, 5, kind, rows=8))
    assert [len(block) for block in blocks] == [8] * (count // 8) + ([count % 8] if count % 8 else [])
    expected = vectors if kind == "vector" else vectors.astype(np.float16).astype(np.float32)
    assert np.array_equal(np.concatenate(blocks) if blocks else np.empty((0, 5)), expected)


def test_texts_are_read_together_up_to_a_window_and_long_ones_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "WINDOW", 10)
    texts = [(b"a", 4, 0, 3), (b"b", 6, 2, 9), (b"c", 25, 1, 24), (b"d", 1, 5, 5)]
    everything = 2**31 - 1
    assert list(embedding._windows(texts)) == [
        ([b"c"], 1, 10), ([b"c"], 11, 20), ([b"c"], 21, 30), ([b"a", b"b"], 0, everything), ([b"d"], 0, everything),
    ]  # fmt: skip


# --- recall ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("distance", ["cosine", "inner_product", "l2"])
@pytest.mark.parametrize("kind", ["vector", "halfvec"])
def test_true_neighbours_are_those_of_the_server(make_platform: Make, distance: str, kind: str) -> None:
    platform = make_platform(**with_graph(distance=distance, vector_type=kind))
    refresh(platform, "docs", TEXTS)
    refresh(platform, "docs", {name: text for name, text in TEXTS.items() if name != "3.md"})
    view_of = searcher(platform)
    with platform.database.connect() as connection:
        view = view_of._view(connection, "main", None)
        rng = np.random.default_rng(7)
        queries = [(3 * rng.normal(size=384)).astype(np.float32) for _ in range(5)]
        connection.execute("SET LOCAL statement_timeout = '30s'")
        found = _last_true_scores(connection, view, queries)
        assert connection.execute("SHOW statement_timeout").fetchone() == ("0",), "the limit of a search stays"
        for query, score in zip(queries, found, strict=True):
            near = f"(embedding {OPERATORS[distance]} %(query)s::{kind})"
            rows = connection.execute(
                sql.SQL("SELECT {} FROM {} WHERE valid_to > {} ORDER BY 1 DESC OFFSET %(last)s LIMIT 1").format(
                    sql.SQL(similarity(distance, near)),  # type: ignore[arg-type]
                    sql.Identifier(view.table),
                    sql.Literal(view.snapshot),
                ),
                {"query": query, "last": NEIGHBOURS - 1},
            ).fetchone()
            assert rows is not None
            assert score == pytest.approx(rows[0], abs=measuring.ROUNDING, rel=measuring.ROUNDING)


def recall(item: IndexRefresh) -> str:
    """What the check of recall observed."""
    return next(str(outcome.observed) for outcome in item.outcomes if outcome.name == "recall_at_10")


def test_a_small_change_looks_for_its_own_chunks_and_not_at_every_vector(
    make_platform: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans: list[int] = []
    real = measuring._last_true_scores
    monkeypatch.setattr(measuring, "_last_true_scores", lambda *a: (scans.append(1), real(*a))[1])
    monkeypatch.setattr(measuring, "REMEASURE_SHARE", 0.05)  # 6 of 120 rows
    platform = make_platform(**with_graph())
    assert "measured for" not in recall(refresh(platform, "docs", TEXTS))
    assert len(scans) == 1
    edited = dict(TEXTS)
    for number in range(1, 4):  # 2 rows each: one begins, one ends
        edited[f"{number}.md"] = TEXTS[f"{number}.md"].replace("Text", "Prose")
        item = refresh(platform, "docs", edited)
        assert item.publication is not None
        assert f"measured for snapshot 1; {2 * number} of 120 rows written since" in recall(item)
    assert len(scans) == 1
    edited["4.md"] = TEXTS["4.md"].replace("Text", "Prose")
    assert "measured for" not in recall(refresh(platform, "docs", edited))
    assert len(scans) == 2
    counts = searcher(platform).snapshots("main")[0].counts["recall"]
    assert (counts["snapshot"], counts["rows_changed"]) == (5, 0)


def test_recall_known_for_another_breadth_does_not_count(make_platform: Make) -> None:
    refresh(make_platform(**with_graph()), "docs", TEXTS)
    platform = make_platform(**with_graph(hnsw={"exact_below": 10, "ef_search": 40}))
    item = refresh(platform, "docs", TEXTS | {"new.md": "# New\n\nOne page more.\n"})
    assert item.stage is not None
    assert item.stage.strategy == "insert"
    assert "measured for" not in recall(item)
    assert "ef_search 40" in recall(item)


def test_a_chunk_that_is_not_found_stops_a_small_change(make_platform: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    platform = make_platform(**with_graph())
    refresh(platform, "docs", TEXTS)
    monkeypatch.setattr(measuring._Trial, "_nearest", lambda *arguments: [])
    item = refresh(platform, "docs", TEXTS | {"new.md": "# New\n\nOne page more.\n"})
    assert item.publication is None
    assert not next(outcome.passed for outcome in item.outcomes if outcome.name == "self_retrieval")


# --- caches ------------------------------------------------------------------------------------------------


def test_coverage_looks_only_at_what_came_after_the_published_revision(make_platform: Make) -> None:
    platform = make_platform()
    refresh(platform, "docs", TEXTS)
    specification = specify(platform, "main")
    with platform.database.connect() as connection:
        known = known_revision(connection, ["main"], specification, "docs")
        assert known == 1
        assert known_revision(connection, ["main"], specification, "other") == 0
        assert known_revision(connection, ["other"], specification, "docs") == 0
        connection.execute("DELETE FROM embedding")
        ids = cache_ids(connection, specification)
        assert measure_coverage(connection, ids, "docs", 1, since=known).complete
        everything = measure_coverage(connection, ids, "docs", 1)
    assert (everything.documents, everything.chunks, everything.chunks_without_embedding) == (120, 120, 120)


def test_vectors_lost_from_the_cache_are_made_again(make_platform: Make) -> None:
    platform = make_platform()
    refresh(platform, "docs", TEXTS)
    with platform.database.connect() as connection:
        connection.execute("DELETE FROM embedding WHERE ctid IN (SELECT ctid FROM embedding LIMIT 30)")
    # a change is embedded and published without a look at the rest
    more = TEXTS | {"new.md": "# New\n\nOne page more.\n"}
    assert prepare(platform, "docs", more).computed == 1
    item = refresh_index(platform, "main", "docs", "run")
    assert item.stage is not None
    assert item.stage.strategy == "insert"
    # a new build needs everything, and says what to do
    with platform.database.connect() as connection:
        connection.execute("UPDATE index_build SET damaged_at = now()")
    with pytest.raises(PermanentError, match=r"30 of 121 rows have no embedding .* materialize embeddings again"):
        refresh_index(platform, "main", "docs", "run")
    assert embed_source(platform, "docs", "run").computed == 30
    item = refresh_index(platform, "main", "docs", "run")
    assert item.publication is not None
