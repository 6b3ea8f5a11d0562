"""Search: exact values, one total order, filters, snapshots, and errors that say what to do."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from resources.config import load_config
from resources.errors import PermanentError, SnapshotNotFoundError
from resources.fusion import Fusion
from resources.platform import Platform
from resources.vector_index import BM25_B, BM25_K1, SearchFilter, SearchHit, index_fingerprint
from tests.index_world import article, order, refresh, searcher, temporary_platform

SUBJECTS = ("apple", "pear", "plum", "cherry", "walnut", "quince")


@pytest.fixture(scope="module")
def shared_orchard(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """One index for all tests that only read it."""
    with temporary_platform(server_url, tmp_path_factory.mktemp("orchard")) as platform:
        yield _plant(platform)


@pytest.fixture
def orchard(make_platform: Callable[..., Platform]) -> Platform:
    """An index of one's own."""
    return _plant(make_platform())


def _plant(platform: Platform) -> Platform:
    texts = {f"fruit/{subject}.md": article(subject) for subject in SUBJECTS}
    texts["nuts/german.md"] = article("haselnuss")
    refresh(platform, "docs", texts, languages={"nuts/german.md": "de"})
    return platform


@pytest.mark.parametrize("mode", ["vector", "full_text", "hybrid"])
def test_each_mode_finds_the_document_that_speaks_of_it(shared_orchard: Platform, mode: str) -> None:
    result = searcher(shared_orchard).search("main", "Tell me about the quince", mode=mode, k=4)  # type: ignore[arg-type]
    assert [hit.path for hit in result.hits] == ["fruit/quince.md"] * 4
    assert [hit.rank for hit in result.hits] == [1, 2, 3, 4]
    assert result.snapshot == 1


def test_hit_is_the_exact_character_range(shared_orchard: Platform) -> None:
    hit = searcher(shared_orchard).search("main", "plum", k=1).hits[0]
    assert hit.text == article("plum")[hit.start : hit.end]
    assert hit.heading_path[0] == "About plum"


def test_vector_score_is_the_cosine_and_order_is_exact(shared_orchard: Platform) -> None:
    question = "walnut4 walnut7 apple2"
    result = searcher(shared_orchard).search("main", question, mode="vector", k=20)
    embedder = shared_orchard.models.embedder("lexical")
    with shared_orchard.database.connect() as connection:
        rows = connection.execute("SELECT document_id, ordinal, embedding FROM chunks_1").fetchall()
    query = embedder.embed([question]).vectors[0]
    true = {(row[0], row[1]): _cosine(query, row[2].to_numpy()) for row in rows}
    best = sorted(true.values(), reverse=True)[:20]
    assert [hit.score for hit in result.hits] == pytest.approx(best, abs=1e-5)
    assert all(true[hit.document_id, hit.ordinal] == pytest.approx(hit.score, abs=1e-5) for hit in result.hits)


def _cosine(question: np.ndarray, stored: np.ndarray) -> float:
    """As the server computes it: the question, too, in half precision."""
    left, right = question.astype(np.float16).astype(np.float64), stored.astype(np.float64)
    return float(left @ right / (np.linalg.norm(left) * np.linalg.norm(right)))


def test_full_text_score_is_bm25(make_platform: Callable[..., Platform]) -> None:
    """Occurrences come out of ts_rank by inverting its series; here they are counted by hand, as is the length."""
    platform = make_platform()
    texts = {f"{count}.txt": " ".join(["zebra"] * count + ["lion"] * (count % 3)) for count in range(1, 41)}
    refresh(platform, "docs", texts)
    hits = searcher(platform).search("main", "zebra and lion", mode="full_text", k=100).hits
    counts = {hit.path: (hit.text.count("zebra"), hit.text.count("lion")) for hit in hits}
    assert len(hits) == len(counts) == 40
    frequency = [40, sum(lion > 0 for _, lion in counts.values())]
    lengths = {path: zebra + lion for path, (zebra, lion) in counts.items()}
    average = sum(lengths.values()) / 40
    for hit in hits:
        norm = BM25_K1 * (1 - BM25_B + BM25_B * lengths[hit.path] / average)
        expected = sum(
            math.log(1 + (40 - df + 0.5) / (df + 0.5)) * (BM25_K1 + 1) * tf / (tf + norm)
            for df, tf in zip(frequency, counts[hit.path], strict=True)
        )
        assert hit.score == pytest.approx(expected, abs=1e-8)


def test_hybrid_is_the_reciprocal_rank_sum_of_both_lists(shared_orchard: Platform) -> None:
    question = "cherry3 and plum5"
    index = searcher(shared_orchard)
    ranks = {
        mode: {(hit.path, hit.ordinal): hit.rank for hit in index.search("main", question, mode=mode, k=50).hits}
        for mode in ("vector", "full_text")
    }
    for hit in index.search("main", question, mode="hybrid", k=10, fusion=Fusion("rrf", 1, 1, 60)).hits:
        assert hit.vector_rank == ranks["vector"].get((hit.path, hit.ordinal))
        assert hit.text_rank == ranks["full_text"].get((hit.path, hit.ordinal))
        assert hit.score == pytest.approx(sum(1 / (60 + rank) for rank in (hit.vector_rank, hit.text_rank) if rank))


def test_equal_scores_are_ordered_by_path(make_platform: Callable[..., Platform]) -> None:
    platform = make_platform()
    refresh(platform, "docs", {f"{name}.md": "The very same words." for name in ["zebra", "ant", "mole", "cat", "dog"]})
    for mode in ("vector", "full_text", "hybrid"):
        hits = searcher(platform).search("main", "same words", mode=mode, k=3).hits
        assert [hit.path for hit in hits] == ["ant.md", "cat.md", "dog.md"]


@pytest.mark.parametrize("mode", ["vector", "full_text", "hybrid"])
@pytest.mark.parametrize(
    ("filters", "paths"),
    [
        (SearchFilter(path_prefix="nuts/"), {"nuts/german.md"}),
        (SearchFilter(languages=("de",)), {"nuts/german.md"}),
        (SearchFilter(sources=("other",)), set()),
        (SearchFilter(licences=("CC0",), languages=("de", "fr")), {"nuts/german.md"}),
        (SearchFilter(licences=()), set()),
    ],
)
def test_filters_hold_for_every_hit(
    shared_orchard: Platform, mode: str, filters: SearchFilter, paths: set[str]
) -> None:
    result = searcher(shared_orchard).search("main", "part of haselnuss and apple", mode=mode, k=5, filters=filters)  # type: ignore[arg-type]
    assert {hit.path for hit in result.hits} == paths


def test_filter_cannot_be_injected(shared_orchard: Platform) -> None:
    filters = SearchFilter(path_prefix="' OR true --", languages=("'; DROP TABLE lease; --",))
    assert searcher(shared_orchard).search("main", "apple", filters=filters).hits == ()


@pytest.mark.parametrize(
    "question", ["", "the of and", "' | ! & ( :*", "\\'; drop", "zzzzqqq", "a" * 3000, "apple\0pear", "%s %(k)s {x}"]
)
@pytest.mark.parametrize("mode", ["full_text", "hybrid"])
def test_odd_questions_are_answered(shared_orchard: Platform, question: str, mode: str) -> None:
    searcher(shared_orchard).search("main", question, mode=mode, k=3)  # type: ignore[arg-type]


def test_graph_search_agrees_with_exact_search(make_platform: Callable[..., Platform]) -> None:
    platform = make_platform(
        **{
            "indexes/main.yaml": {
                "name": "main",
                "embedder": "lexical",
                "chunker": {"kind": "markdown", "unit": "characters", "size": 100},
                "hnsw": {"exact_below": 50},
            }
        }
    )
    item = refresh(platform, "docs", {f"{s}.md": article(s, paragraphs=8) for s in SUBJECTS})
    assert item.stage is not None
    assert item.stage.counts["chunks"] >= 100
    index = searcher(platform)
    with platform.database.connect() as connection:
        view = index._view(connection, "main", None)
        assert view.graph
        vector = platform.models.embedder("lexical").embed(["plum3 plum6"]).vectors[0]
        plan = index.search_view(connection, view, "", vector, mode="vector", k=10, exact=False)
        exact = index.search_view(connection, view, "", vector, mode="vector", k=10, exact=True)
        assert [hit.score for hit in plan] == pytest.approx([hit.score for hit in exact], abs=1e-6)


def test_graph_search_finds_the_few_rows_that_pass_a_filter(make_platform: Callable[..., Platform]) -> None:
    """A filter that leaves less than the graph walk visits must not leave the list short."""
    platform = make_platform(
        **{"indexes/main.yaml": {"name": "main", "embedder": "lexical", "hnsw": {"exact_below": 0, "ef_search": 1}}}
    )
    texts = {f"{subject}{number}.md": article(subject, 1) for subject in SUBJECTS for number in range(20)}
    refresh(platform, "docs", texts | {"rare/one.md": article("medlar", 1)})
    hits = searcher(platform).search("main", "apple3", mode="vector", filters=SearchFilter(path_prefix="rare/")).hits
    assert {hit.path for hit in hits} == {"rare/one.md"}


def test_questions_searched_together_give_what_each_gives_alone(shared_orchard: Platform) -> None:
    index = searcher(shared_orchard)
    questions = ["apple and pear", "cherry", "what about the plum"]
    together = index.search_many("main", questions, mode="hybrid", k=4)
    assert [order(result) for result in together] == [order(index.search("main", q, k=4)) for q in questions]


def test_older_snapshot_shows_the_title_and_path_of_its_time(orchard: Platform) -> None:
    texts = {f"fruit/{subject}.md": article(subject) for subject in SUBJECTS}
    texts["fruit/quittenbaum.md"] = texts.pop("fruit/quince.md")
    refresh(orchard, "docs", texts, renames={"fruit/quince.md": "fruit/quittenbaum.md"})
    index = searcher(orchard)
    assert index.search("main", "quince", k=1).hits[0].path == "fruit/quittenbaum.md"
    old = index.search("main", "quince", k=1, snapshot=1).hits[0]
    assert (old.path, old.title) == ("fruit/quince.md", "fruit/quince.md")


def test_hit_survives_json(shared_orchard: Platform) -> None:
    hit = searcher(shared_orchard).search("main", "plum", k=1).hits[0]
    assert SearchHit.from_json(hit.to_json()) == hit


def test_unknown_index_is_answered_with_the_nearest_name(shared_orchard: Platform) -> None:
    with pytest.raises(PermanentError, match=r"no index named 'mian'; there are: main\. Did you mean 'main'\?"):
        searcher(shared_orchard).search("mian", "apple")


def test_snapshot_that_is_not_retained_is_refused_with_those_that_are(shared_orchard: Platform) -> None:
    with pytest.raises(SnapshotNotFoundError, match=r"snapshot 9 .* not retained; retained: 1"):
        searcher(shared_orchard).search("main", "apple", snapshot=9)


def test_index_without_snapshot_says_what_to_do(make_platform: Callable[..., Platform]) -> None:
    platform = make_platform()
    with pytest.raises(PermanentError, match="main"):
        searcher(platform).search("main", "apple")
    assert_refused = pytest.raises(PermanentError, match="mode")
    with assert_refused:
        searcher(platform).search("main", "apple", mode="fuzzy")  # type: ignore[arg-type]


def test_snapshots_lists_what_each_shows(orchard: Platform) -> None:
    with orchard.database.connect() as connection:
        connection.execute("INSERT INTO snapshot_pin VALUES ('main', 1, 'report 7')")
    (info,) = searcher(orchard).snapshots("main")
    assert (info.snapshot, info.sources, info.is_serving, info.is_head) == (1, {"docs": 1}, True, True)
    assert info.pinned == ("report 7",)
    assert info.counts["documents"] == 7


def test_question_is_embedded_with_the_model_of_the_rows(
    orchard: Platform, make_data_dir: Callable[..., object]
) -> None:
    """After the configured model changes, the old snapshot must not be asked with vectors of the new one."""
    before = order(searcher(orchard).search("main", "cherry5", mode="vector", k=3))
    models = {
        "providers": {"offline": {"kind": "offline"}},
        "embedding": [{"name": "lexical", "provider": "offline", "model": "lexical-hash", "dimensions": 96}],
        "chat": [{"name": "extractive", "provider": "offline", "model": "extractive"}],
    }
    changed = replace(orchard, config=load_config(make_data_dir(**{"models.yaml": models})))  # type: ignore[arg-type]
    assert order(searcher(changed).search("main", "cherry5", mode="vector", k=3)) == before


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({"description": "x"}, True),
        ({"hnsw": {"ef_search": 200, "exact_below": 5}}, True),
        ({"sources": ["docs"]}, True),
        ({"hnsw": {"m": 8}}, False),
        ({"text_search": "simple"}, False),
        ({"vector_type": "vector"}, False),
        ({"enrichment": {"context": "none"}}, False),
        ({"chunker": {"size": 100}}, False),
    ],
)
def test_fingerprint_follows_what_can_change_a_result(
    make_platform: Callable[..., Platform], change: dict[str, object], same: bool
) -> None:
    base = {"name": "main", "embedder": "lexical"}
    prints = []
    for settings in (base, base | change):
        platform = make_platform(**{"indexes/main.yaml": settings})
        prints.append(index_fingerprint(platform.config, platform.models, "main"))
    assert (prints[0] == prints[1]) is same
