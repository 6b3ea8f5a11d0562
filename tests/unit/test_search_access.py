"""Filters and labels: what a caller may not see is never returned, in any mode, snapshot or rank; what he may see is."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import product
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from assets.index.refreshing import refresh_index
from resources.fusion import Fusion
from resources.platform import Platform
from resources.vector_index import SearchFilter
from tests.index_world import article, prepare, refresh, searcher, temporary_platform

MODES: list[Any] = ["vector", "full_text", "hybrid"]
FUSIONS = [Fusion("rrf", 1.0, 1.0, 60), Fusion("weighted", 0.5, 0.5)]
SOURCES = {"docs": None, "board": "board", "staff": "internal"}


def labelled(folder: str, **labels: str | None) -> dict[str, Any]:
    sources = []
    for name, label in labels.items():
        sources.append({"name": name, "path": folder} | ({"label": label} if label else {}))
    return {"sources.yaml": {"sources": sources}}


@pytest.fixture(scope="module", params=["exact", "graph"])
def company(
    server_url: str, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Platform]:
    """Three sources that say the same of the same things, in one index; the graph makes every search walk it."""
    folder = tmp_path_factory.mktemp(f"company-{request.param}")
    hnsw = {"exact_below": 0 if request.param == "graph" else 10_000, "ef_search": 10}
    files: dict[str, Any] = {
        **labelled(str(folder), **SOURCES),
        "indexes/main.yaml": {
            "name": "main",
            "embedder": "lexical",
            "chunker": {"kind": "recursive", "unit": "characters", "size": 400},
            "hnsw": hnsw,
        },
        # recall is not what is tested here
        "policies/index.yaml": {"minimum_recall_at_10": 0.0, "minimum_self_retrieval": 0.0},
    }
    with temporary_platform(server_url, folder, **files) as platform:
        for name in SOURCES:
            texts = {f"{subject}.md": article(subject, 2) for subject in ("salary", "merger", "canteen")}
            texts |= {f"note{number}.md": article(f"note{number}", 2) for number in range(25)}
            refresh(platform, name, texts)
        yield platform


@pytest.mark.parametrize(("mode", "fusion"), list(product(MODES, FUSIONS)))
@pytest.mark.parametrize(
    ("labels", "visible"),
    [
        (None, {"docs", "board", "staff"}),
        ((), {"docs"}),
        (("internal",), {"docs", "staff"}),
        (("board", "internal"), {"docs", "board", "staff"}),
        (("BOARD", "board ", "unknown"), {"docs"}),
    ],
)
def test_only_labels_of_the_caller_are_retrieved(
    company: Platform, mode: Any, fusion: Fusion, labels: tuple[str, ...] | None, visible: set[str]
) -> None:
    """The same text is in every source, so that a tie would bring the others; k is more than the caller may see."""
    index = searcher(company)
    for k in (3, 500):
        result = index.search(
            "main", "salary and merger", mode=mode, k=k, filters=SearchFilter(labels=labels), fusion=fusion, depth=k
        )
        assert {hit.source for hit in result.hits} <= visible
        assert len(result.hits) >= 3
        if k == 500:
            assert {hit.source for hit in result.hits} == visible


@pytest.mark.parametrize("mode", MODES)
def test_ranks_do_not_tell_that_there_is_more(company: Platform, mode: Any) -> None:
    """Ranks in the lists are counted among what the caller may see: no gap shows a hit that is not his."""
    hits = searcher(company).search("main", "merger", mode=mode, k=20, filters=SearchFilter(labels=())).hits
    assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))
    for ranks in ([hit.vector_rank for hit in hits], [hit.text_rank for hit in hits]):
        known = sorted(rank for rank in ranks if rank)
        assert not known or max(known) <= 28 * 4


@pytest.mark.parametrize("mode", MODES)
def test_labels_hold_in_every_retained_snapshot_and_for_other_filters(company: Platform, mode: Any) -> None:
    index = searcher(company)
    for info in index.snapshots("main"):
        for filters in (
            SearchFilter(labels=()),
            SearchFilter(labels=(), path_prefix="salary"),
            SearchFilter(labels=(), sources=("board", "docs")),
            SearchFilter(labels=(), languages=("en",), title="SALARY"),
        ):
            hits = index.search("main", "salary", mode=mode, k=50, snapshot=info.snapshot, filters=filters).hits
            assert {hit.source for hit in hits} == {"docs"}
    assert index.search("main", "salary", mode=mode, filters=SearchFilter(labels=(), sources=("board",))).hits == ()


@pytest.mark.parametrize("mode", MODES)
def test_a_changed_label_holds_at_once_and_a_removed_source_is_gone(company: Platform, mode: Any) -> None:
    """Labels are read from the configuration, not from the index: no refresh is needed."""

    def visible(labels: tuple[str, ...], **sources: str | None) -> set[str]:
        kept = {
            name: company.config.sources[name].model_copy(update={"label": label}) for name, label in sources.items()
        }
        other = replace(company, config=company.config.model_copy(update={"sources": kept}))
        hits = searcher(other).search("main", "salary", mode=mode, k=500, filters=SearchFilter(labels=labels)).hits
        return {hit.source for hit in hits}

    assert visible((), docs="secret", board=None, staff=None) == {"board", "staff"}
    assert visible(("internal",), docs=None, staff="internal") == {"docs", "staff"}
    assert visible(("board", "internal"), docs=None) == {"docs"}


def test_the_few_a_caller_may_see_are_found_among_many(make_platform: Callable[..., Platform], tmp_path: Any) -> None:
    """Two of 2 002 chunks: neither the graph walk nor the cap on frequent words may leave the list short."""
    platform = make_platform(
        **labelled(str(tmp_path), docs="secret", open=None),
        **{
            "indexes/main.yaml": {
                "name": "main",
                "embedder": "lexical",
                "chunker": {"kind": "recursive", "unit": "characters", "size": 400},
                "hnsw": {"exact_below": 0, "ef_search": 10},
            },
            "policies/index.yaml": {"minimum_recall_at_10": 0.0, "minimum_self_retrieval": 0.0, "sample_size": 5},
        },
    )
    refresh(platform, "docs", {f"{n:03}.md": " ".join([f"secret{n} plan"] * 40) * 10 for n in range(200)})
    refresh(platform, "open", {"one.md": "The open plan.", "two.md": "Another plan."})
    for mode in MODES:
        hits = searcher(platform).search("main", "plan", mode=mode, k=5, filters=SearchFilter(labels=())).hits
        assert sorted(hit.path for hit in hits) == ["one.md", "two.md"]


@pytest.fixture(scope="module")
def library(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """Documents with all kinds of properties."""
    with temporary_platform(server_url, tmp_path_factory.mktemp("library")) as platform:
        prepare(platform, "docs", {f"{name}.md": article(name, 2) for name in ("alpha", "beta", "gamma")})
        with platform.database.connect() as connection:
            for path, media_type, day, metadata in (
                (
                    "alpha.md",
                    "application/pdf",
                    1,
                    {"team": "red", "year": 2020, "pages": [[7, 0], [8, 120], [9, 5000]]},
                ),
                ("beta.md", "text/html", 15, {"team": "blue", "year": 2020}),
                ("gamma.md", "text/html", None, {"team": "red", "tags": ["a", "b"]}),
            ):
                connection.execute(
                    "UPDATE document_version SET media_type = %s, origin_time = %s, metadata = %s, title = %s WHERE path = %s",
                    (media_type, day and datetime(2024, 1, day, tzinfo=UTC), Jsonb(metadata), f"About {path}", path),
                )
        refresh_index(platform, "main", "docs", "run")
        yield platform


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("filters", "paths"),
    [
        (SearchFilter(media_types=("application/pdf",)), {"alpha.md"}),
        (SearchFilter(media_types=("application/pdf", "text/html")), {"alpha.md", "beta.md", "gamma.md"}),
        (SearchFilter(title="BETA"), {"beta.md"}),
        (SearchFilter(title="%"), set()),
        (SearchFilter(origin_from=datetime(2024, 1, 2, tzinfo=UTC)), {"beta.md"}),
        (SearchFilter(origin_before=datetime(2024, 1, 15, tzinfo=UTC)), {"alpha.md"}),
        (SearchFilter(metadata=(("team", "red"),)), {"alpha.md", "gamma.md"}),
        (SearchFilter(metadata=(("team", "red"), ("year", 2020))), {"alpha.md"}),
        (SearchFilter(metadata=(("year", "2020"),)), set()),
        (SearchFilter(metadata=(("nothing", None),)), set()),
        (SearchFilter(metadata=(("team", "red"),), media_types=("text/html",), sources=("docs",)), {"gamma.md"}),
    ],
)
def test_conditions_on_documents(library: Platform, mode: Any, filters: SearchFilter, paths: set[str]) -> None:
    hits = searcher(library).search("main", "alpha beta gamma part", mode=mode, k=50, filters=filters).hits
    assert {hit.path for hit in hits} == paths


def test_hit_knows_its_pages_and_its_chunk(library: Platform) -> None:
    hits = searcher(library).search("main", "alpha", k=50, filters=SearchFilter(path_prefix="alpha")).hits
    starts = [(7, 0), (8, 120), (9, 5000)]
    for hit in hits:
        assert hit.page == max(page for page, start in starts if start <= hit.start)
        assert hit.last_page == max(page for page, start in starts if start <= hit.end - 1)
    assert {hit.page for hit in hits} == {7, 8}
    others = searcher(library).search("main", "beta", k=1, filters=SearchFilter(path_prefix="beta")).hits
    assert [(hit.page, hit.last_page) for hit in others] == [(None, None)]
    with library.database.connect() as connection:
        for hit in hits:
            row = connection.execute(
                """SELECT c.start_char, c.end_char, encode(c.chunk_hash, 'hex') FROM chunk c JOIN chunker USING (chunker_id)
                   WHERE fingerprint = %s AND text_hash = decode(%s, 'hex') AND ordinal = %s""",
                (hit.chunker, hit.text_hash, hit.ordinal),
            ).fetchone()
            assert row == (hit.start, hit.end, hit.chunk_hash)
