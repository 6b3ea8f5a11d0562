"""Enrichment steps as a cache: each value is made once, whoever needs it, and only what is new is made."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, LiteralString

import pytest

from assets.chunks.chunking import ChunkWork, chunk_source
from assets.chunks.enrichment import embedding_input, title_of
from assets.chunks.enrichment_steps import as_text, offline_value
from assets.governance.erasure import find_traces, forget
from assets.index.audit import audit
from assets.index.embedding import embed_source
from assets.index.refreshing import refresh_index
from assets.index.retention import apply_retention
from resources.fingerprint import text_hash
from resources.index_config import EnrichmentStep
from resources.platform import Platform
from resources.postgres import Database
from tests.enrichment_support import index
from tests.index_world import article, commit, refresh, searcher, visible_rows

Make = Callable[..., Platform]
KEYWORDS = {"kind": "keywords", "count": 3}
SUMMARY = {"kind": "summary", "use": ["search"]}
TEXTS = {"apple.md": article("apple"), "pear.md": article("pear")}


def done(work: ChunkWork) -> dict[str, tuple[int, int]]:
    """{step: (computed, reused)}."""
    return {step.step.kind: (step.computed, step.reused) for step in work.steps}


def rows(platform: Platform, query: LiteralString) -> list[Any]:
    with platform.database.connect() as connection:
        return connection.execute(query).fetchall()


def distinct_chunks(platform: Platform) -> int:
    return rows(platform, "SELECT count(DISTINCT chunk_hash) FROM chunk")[0][0]


def test_a_step_is_done_once_for_all_indexes_and_chunkers(make_platform: Make) -> None:
    wide = {"kind": "markdown", "unit": "characters", "size": 4000}
    platform = make_platform(
        **{
            "indexes/main.yaml": index("main", [KEYWORDS]),
            "indexes/search.yaml": index("search", [{**KEYWORDS, "use": ["search"]}], context="none"),
            "indexes/wide.yaml": index("wide", [KEYWORDS, SUMMARY], chunker=wide),
        }
    )
    commit(platform, "docs", TEXTS)
    work = chunk_source(platform, "docs")
    assert [step.step.kind for step in work.steps] == ["keywords", "summary"]
    assert work.steps[0].indexes == ["main", "search", "wide"]
    wide_chunks = rows(platform, "SELECT count(DISTINCT chunk_hash) FROM chunk WHERE chunker_id = 2")[0][0]
    assert done(work) == {"keywords": (distinct_chunks(platform), 0), "summary": (wide_chunks, 0)}
    assert rows(platform, "SELECT count(*) FROM enrichment_value") == [(distinct_chunks(platform) + wide_chunks,)]
    assert work.inputs_missing == 0
    assert done(chunk_source(platform, "docs")) == {
        "keywords": (0, distinct_chunks(platform)),
        "summary": (0, wide_chunks),
    }


def test_only_the_new_chunks_of_an_edited_document_are_enriched(make_platform: Make) -> None:
    platform = make_platform(**{"indexes/main.yaml": index("main", [KEYWORDS, SUMMARY])})
    commit(platform, "docs", TEXTS)
    chunk_source(platform, "docs")
    before = distinct_chunks(platform)
    edited = TEXTS["apple.md"].replace("## Part 3 of apple", "## Part 3 of apple\n\nA new sentence stands here.", 1)
    commit(platform, "docs", {**TEXTS, "apple.md": edited})
    work = chunk_source(platform, "docs")
    new = distinct_chunks(platform) - before
    assert 0 < new < work.chunks / 3
    assert {computed for computed, _ in done(work).values()} == {new}


def test_equal_texts_in_two_documents_and_sources_are_enriched_once(make_platform: Make, tmp_path: Path) -> None:
    sources = {"sources": [{"name": name, "path": str(tmp_path)} for name in ("docs", "wiki")]}
    platform = make_platform(**{"sources.yaml": sources, "indexes/main.yaml": index("main", [KEYWORDS])})
    commit(platform, "docs", {"a.md": article("apple"), "copy.md": article("apple")})
    commit(platform, "wiki", {"b.md": article("apple")})
    first = chunk_source(platform, "docs")
    assert done(first) == {"keywords": (distinct_chunks(platform), 0)}
    assert done(chunk_source(platform, "wiki")) == {"keywords": (0, distinct_chunks(platform))}


def test_switching_a_step_off_and_on_reuses_its_values_and_vectors(make_platform: Make) -> None:
    def configured(*steps: dict[str, Any]) -> Platform:
        return make_platform(**{"indexes/main.yaml": index("main", list(steps))})

    commit(configured(KEYWORDS), "docs", TEXTS)
    with_step = chunk_source(configured(KEYWORDS), "docs")
    first = embed_source(configured(KEYWORDS), "docs", "test")
    without = chunk_source(configured(), "docs")
    embed_source(configured(), "docs", "test")
    again = chunk_source(configured(KEYWORDS), "docs")
    assert done(with_step)["keywords"][0] > 0
    assert without.steps == []
    assert done(again) == {"keywords": (0, distinct_chunks(configured()))}
    assert again.inputs_written == 0
    assert first.computed > 0
    assert embed_source(configured(KEYWORDS), "docs", "test").computed == 0


def test_editing_one_step_recomputes_only_that_step(make_platform: Make) -> None:
    platform = make_platform(**{"indexes/main.yaml": index("main", [KEYWORDS, SUMMARY])})
    commit(platform, "docs", TEXTS)
    chunk_source(platform, "docs")
    count = distinct_chunks(platform)
    changed = make_platform(**{"indexes/main.yaml": index("main", [{**KEYWORDS, "count": 4}, SUMMARY])})
    assert done(chunk_source(changed, "docs")) == {"keywords": (count, 0), "summary": (0, count)}
    # where a value goes is no part of it
    moved = make_platform(**{"indexes/main.yaml": index("main", [KEYWORDS, {**SUMMARY, "use": ["embed"]}])})
    work = chunk_source(moved, "docs")
    assert done(work) == {"keywords": (0, count), "summary": (0, count)}
    assert work.inputs_written == work.chunks


SAME = "The brake is a device that slows a bike down."
#: Too small for a heading and the sentence together.
NARROW = {"kind": "markdown", "unit": "characters", "size": 52}


def test_a_step_that_sees_headings_has_a_value_for_each_place(make_platform: Make) -> None:
    platform = make_platform(**{"indexes/main.yaml": index("main", [{"kind": "questions"}, KEYWORDS], chunker=NARROW)})
    commit(platform, "docs", {"a.md": f"# Otter\n\n{SAME}\n\n# Heron\n\n{SAME}"})
    assert chunk_source(platform, "docs").inputs_missing == 0
    with platform.database.connect() as connection:
        values = connection.execute(
            """SELECT config ->> 'kind', value FROM enrichment_value JOIN enrichment_step USING (step_id)
               WHERE chunk_hash = %s ORDER BY value::text""",
            (text_hash(SAME),),
        ).fetchall()
    assert [value for kind, value in values if kind == "questions"] == [
        ["What about Heron?", "What is the brake?"],
        ["What about Otter?", "What is the brake?"],
    ]
    assert sum(kind == "keywords" for kind, _ in values) == 1


def test_embedding_input_holds_the_values_and_the_stored_hash_is_verified(make_platform: Make) -> None:
    steps = [{"kind": "clean"}, KEYWORDS, {"kind": "summary", "use": ["search"]}]
    platform = make_platform(**{"indexes/main.yaml": index("main", steps, title=True)})
    commit(platform, "docs", {"a.md": "# Bike\n\n## Parts\n\nThe **brake** stops the bike. See [this](x.md)."})
    chunk_source(platform, "docs")
    enrichment = platform.config.indexes["main"].enrichment
    found = rows(
        platform,
        """SELECT c.heading_path, substr(t.text, c.start_char + 1, c.end_char - c.start_char), t.text, i.input_hash,
                  i.search_text
           FROM chunk c JOIN chunk_input i USING (chunker_id, text_hash, ordinal) JOIN document_text t USING (text_hash)""",
    )
    assert found
    for path, chunk, text, input_hash, searched in found:
        values = [offline_value(step, chunk, path) for step in enrichment.steps]
        shown = embedding_input(path, chunk, enrichment, title=title_of(text), values=values)
        assert text_hash(shown) == input_hash
        assert "**" not in shown
        assert "this" in shown
        assert as_text(values[2]) in searched
    assert embed_source(platform, "docs", "test").computed == len(found)


def test_full_text_search_sees_what_is_for_search_and_hits_show_the_original(make_platform: Make) -> None:
    settings = {"context": "none", "chunker": NARROW}
    platform = make_platform(
        **{
            "indexes/main.yaml": index("main", [{"kind": "questions", "use": ["search"]}], **settings),
            "indexes/plain.yaml": index("plain", **settings),
        }
    )
    prepared = {"a.md": f"# Otter\n\n{SAME}"}
    refresh(platform, "docs", prepared)
    refresh(platform, "docs", prepared, index="plain")

    def found(name: str) -> list[str]:
        return [hit.text for hit in searcher(platform).search(name, "otter", mode="full_text").hits]

    assert sorted(found("main")) == ["# Otter", SAME]
    assert found("plain") == ["# Otter"]


def test_no_search_text_is_stored_where_it_is_the_default(make_platform: Make) -> None:
    platform = make_platform(**{"indexes/main.yaml": index("main", [{**KEYWORDS, "use": ["embed"]}])})
    commit(platform, "docs", TEXTS)
    assert chunk_source(platform, "docs").inputs_written > 0
    assert rows(platform, "SELECT count(*) FROM chunk_input WHERE search_text IS NOT NULL") == [(0,)]


def test_recorded_only_values_are_made_and_change_no_fingerprint(make_platform: Make) -> None:
    platform = make_platform()
    refresh(platform, "docs", TEXTS)
    plain = platform.config.indexes["main"]
    recorded = make_platform(
        **{
            "indexes/main.yaml": {
                "name": "main",
                "embedder": "lexical",
                "chunker": {"kind": "markdown", "unit": "characters", "size": 400},
                "enrichment": {"steps": [{"kind": "language", "use": []}]},
            }
        }
    )
    work = chunk_source(recorded, "docs")
    assert recorded.config.indexes["main"].chunker == plain.chunker
    assert work.inputs_written == 0
    assert sum(work.steps[0].languages.values()) == distinct_chunks(platform) == work.steps[0].computed
    assert refresh_index(recorded, "main", "docs", "test").publication is None


def test_refreshes_equal_a_fresh_build(make_platform: Make, make_database: Callable[[], Database]) -> None:
    steps = [{"kind": "clean"}, KEYWORDS, {"kind": "questions"}, SUMMARY, {"kind": "entities", "use": ["search"]}]
    platform = make_platform(**{"indexes/main.yaml": index("main", steps, title=True)})
    refresh(platform, "docs", TEXTS)
    refresh(platform, "docs", {**TEXTS, "plum.md": article("plum")})
    renamed = TEXTS["apple.md"].replace("# About apple", "# All about apples", 1)
    final = {"apple.md": renamed, "plum.md": article("plum") + "\nOne more line, from Berlin in May 2024.\n"}
    refresh(platform, "docs", final)
    fresh = Platform(config=platform.config, database=make_database(), artifacts=platform.artifacts)
    refresh(fresh, "docs", final)
    assert visible_rows(platform, "main") == visible_rows(fresh, "main")
    assert audit(platform, "main") == []


def test_values_that_no_chunk_uses_are_removed_and_the_others_stay(make_platform: Make) -> None:
    policy = {"policies/index.yaml": {"keep_snapshots": 1}}
    platform = make_platform(**{"indexes/main.yaml": index("main", [KEYWORDS, {"kind": "questions"}]), **policy})
    refresh(platform, "docs", TEXTS)
    refresh(platform, "docs", {"pear.md": TEXTS["pear.md"]})
    with platform.database.connect() as connection:
        connection.execute("UPDATE index_snapshot SET published_at = now() - interval '1 year'")
    live = rows(
        platform,
        """SELECT count(DISTINCT chunk_hash) + count(DISTINCT (chunk_hash, heading_path)) FROM chunk
           WHERE text_hash IN (SELECT text_hash FROM document_version WHERE rev_to = 2147483647)""",
    )[0][0]
    before = rows(platform, "SELECT count(*) FROM enrichment_value")[0][0]
    result = apply_retention(platform)
    assert result.caches.enrichment_values == before - live > 0
    assert rows(platform, "SELECT count(*) FROM enrichment_value") == [(live,)]
    work = chunk_source(platform, "docs")
    assert all(step.computed == 0 and step.coverage.missing == 0 for step in work.steps)
    without = make_platform(**{"indexes/main.yaml": index("main", [KEYWORDS]), **policy})
    refresh(without, "docs", {"pear.md": TEXTS["pear.md"]})
    with platform.database.connect() as connection:
        connection.execute("UPDATE index_snapshot SET published_at = now() - interval '1 year'")
    apply_retention(without)
    assert rows(
        platform, "SELECT DISTINCT config ->> 'kind' FROM enrichment_value JOIN enrichment_step USING (step_id)"
    ) == [("keywords",)]


def test_values_refused_for_their_length_are_not_stored_and_fail_the_check(
    make_platform: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from assets.chunks import enriching
    from assets.chunks.enrichment_checks import enrichment_complete, enrichment_values

    def too_long(step: EnrichmentStep, text: str, path: Any) -> Any:
        return ["x" * (step.max_characters + 1)]

    platform = make_platform(**{"indexes/main.yaml": index("main", [KEYWORDS])})
    commit(platform, "docs", TEXTS)
    with monkeypatch.context() as patch:
        patch.setattr(enriching, "offline_value", too_long)
        work = chunk_source(platform, "docs")
    assert not enrichment_values(work).passed
    assert not enrichment_complete(work).passed
    assert work.inputs_missing > 0
    assert rows(platform, "SELECT count(*) FROM enrichment_value") == [(0,)]
    healed = chunk_source(platform, "docs")
    assert enrichment_values(healed).passed
    assert enrichment_complete(healed).passed


def test_erased_documents_leave_no_value_behind_and_shared_ones_stay(make_platform: Make) -> None:
    steps = [KEYWORDS, {"kind": "questions"}, {"kind": "entities", "use": ["search"]}]
    platform = make_platform(**{"indexes/main.yaml": index("main", steps, chunker=NARROW)})
    shared = f"\n\n{SAME}"
    texts = {"a.md": f"# Canary4711\n\nMrs Abernathy7 lives there.{shared}", "b.md": f"# Otter{shared}"}
    refresh(platform, "docs", texts)
    assert {"enrichment_value.value", "chunk_input.search_text"} <= set(find_traces(platform, "Abernathy7"))
    assert "enrichment_value.value" in find_traces(platform, "Canary4711")
    proof = forget(platform, document="docs/a.md", by="test").proof
    assert proof["enrichment_value"] > 0
    assert find_traces(platform, "Abernathy7") == {}
    # the sentence both share keeps its values, but not the question made from the erased heading above it
    assert not [name for name in find_traces(platform, "Canary4711") if name.startswith(("enrichment", "chunk"))]
    work = chunk_source(platform, "docs")
    assert all((step.computed, step.coverage.missing) == (0, 0) for step in work.steps)
