"""Derived indexes built: what is shared, what is missing, and when they are removed."""

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from assets.chunks.chunking import chunk_source
from assets.experiments import running
from assets.experiments.readiness import unbuilt_sources
from assets.governance.erasure import find_traces, forget
from assets.index.embedding import EmbeddingWork, embed_source
from assets.index.publishing import rollback
from assets.index.refreshing import refresh_index
from assets.index.retention import Retirement, apply_retention, retire_unconfigured
from resources.errors import SnapshotNotFoundError
from resources.platform import Platform
from resources.vector_index import VectorIndex
from tests.index_world import article, commit, searcher
from tests.unit.experiment_world import EXPERIMENT, files

Make = Callable[..., Platform]
FINE, COARSE = {"kind": "sentence", "size": 24}, {"kind": "sentence", "size": 400}
TEXTS = {f"{name}.md": article(name) for name in ("apple", "pear", "plum", "quince", "fig")}


def build(make_platform: Make, *entries: dict[str, Any], days: int = 0, axes: Any = None, **more: Any) -> Platform:
    grid = {**EXPERIMENT["grid"], "index": ["main", *({"base": "main", **entry} for entry in entries)]}
    if axes:
        grid["index_axes"] = {"base": "main", **axes}
    return make_platform(
        **{**files(grid=grid), "policies/index.yaml": {"unconfigured_days": days, "keep_days": 0}, **more}
    )


def refresh(platform: Platform, texts: dict[str, str] | None = None, source: str = "docs") -> EmbeddingWork:
    """Bring every index over a source up to date; what was embedded."""
    commit(platform, source, texts or TEXTS)
    chunk_source(platform, source)
    work = embed_source(platform, source, "test")
    for index in platform.config.indexes_of(source):
        refresh_index(platform, index.name, source, "test")
    return work


def found(platform: Platform, index: str) -> list[str]:
    return [hit.text for hit in searcher(platform).search(index, "about plum", mode="full_text", k=3).hits]


def rows(platform: Platform, query: str, *values: Any) -> list[Any]:
    with platform.database.connect() as connection:
        return connection.execute(query, values).fetchall()  # type: ignore[call-overload]


# --- sharing -----------------------------------------------------------------------------------------------


def test_indexes_with_the_same_chunks_and_embedder_embed_once(make_platform: Make) -> None:
    """Three graphs over one chunking: as many vectors as for one."""
    platform = build(make_platform, axes={"hnsw": [{"m": 16}, {"m": 8}, {"m": 32}]})
    work = refresh(platform)
    inputs = rows(platform, "SELECT count(DISTINCT input_hash) FROM chunk_input")[0][0]
    assert len(platform.config.derived) == 2
    assert len(platform.config.indexes) == 3
    assert work.computed == inputs == rows(platform, "SELECT count(*) FROM embedding")[0][0]
    assert {name: found(platform, name) for name in platform.config.derived} == dict.fromkeys(
        platform.config.derived, found(platform, "main")
    )


def test_one_document_of_five_is_embedded_again_once_for_all_that_share_it(make_platform: Make) -> None:
    platform = build(make_platform, axes={"hnsw": [{"m": 16}, {"m": 8}], "chunker": [FINE, COARSE]})
    refresh(platform)
    assert len(platform.config.derived) == 4
    changed = {**TEXTS, "fig.md": article("figs", words=41)}
    work = refresh(platform, changed)
    new = rows(
        platform,
        """SELECT count(DISTINCT input_hash) FROM chunk_input
           WHERE text_hash = (SELECT text_hash FROM document_version WHERE path = 'fig.md' AND rev_to > 1000)""",
    )[0][0]
    assert 0 < work.computed <= new
    again = refresh(platform, changed)
    assert again.computed == 0


def test_a_new_derived_index_computes_only_what_differs(make_platform: Make) -> None:
    refresh(build(make_platform))
    before = rows(build(make_platform), "SELECT count(*) FROM embedding")[0][0]
    platform = build(make_platform, {"label": "fine", "chunker": FINE}, {"label": "dense", "hnsw": {"m": 8}})
    work = refresh(platform)
    after = rows(platform, "SELECT count(*) FROM embedding")[0][0]
    assert work.computed == after - before > 0  # those of the finer chunks; the other graph needs none
    assert rows(platform, "SELECT index_name, head FROM index_state ORDER BY 1") == [
        ("main", 1), ("main--dense", 1), ("main--fine", 1),
    ]  # fmt: skip


def test_an_erased_document_is_gone_from_derived_indexes_too(make_platform: Make) -> None:
    platform = build(make_platform, {"label": "fine", "chunker": FINE})
    refresh(platform)
    assert found(platform, "main--fine")
    sentence = TEXTS["plum.md"].splitlines()[4]
    assert find_traces(platform, sentence[:60])
    forget(platform, document="docs/plum.md", by="ops")
    assert find_traces(platform, sentence[:60]) == {}
    assert found(platform, "main--fine") == []


# --- not built yet -----------------------------------------------------------------------------------------


def prepare(platform: Platform) -> None:
    with platform.database.lease("experiment:trial-run", "run") as lease:
        with running.prepared(platform, "trial-run", "run", lease):
            pass


def test_an_index_that_was_never_built_is_named_with_the_remedy(make_platform: Make) -> None:
    refresh(build(make_platform))
    platform = build(make_platform, {"label": "fine", "chunker": FINE})
    with pytest.raises(SnapshotNotFoundError) as told:
        prepare(platform)
    assert "main--fine (derived from main) as it is configured lacks docs" in str(told.value)
    assert "genaiops refresh docs" in str(told.value)
    assert "main lacks" not in str(told.value)
    with platform.database.connect() as connection:
        assert list(unbuilt_sources(connection, platform, ["trial-run"])) == ["docs"]
    refresh(platform)
    with platform.database.connect() as connection:
        assert unbuilt_sources(connection, platform, ["trial-run"]) == {}


def test_an_index_that_was_built_with_other_settings_counts_as_not_built(make_platform: Make) -> None:
    refresh(build(make_platform, {"label": "fine", "chunker": FINE}))
    edited = build(make_platform, {"label": "fine", "chunker": COARSE})
    with pytest.raises(SnapshotNotFoundError, match=r"main--fine \(derived from main\) as it is configured lacks docs"):
        prepare(edited)
    with edited.database.connect() as connection:
        assert list(unbuilt_sources(connection, edited, ["trial-run"])) == ["docs"]
    refresh(edited)
    with edited.database.connect() as connection:
        assert unbuilt_sources(connection, edited, ["trial-run"]) == {}


def test_indexes_of_different_documents_are_not_compared(make_platform: Make, tmp_path: Any) -> None:
    sources: dict[str, Any] = {
        "sources.yaml": {"sources": [{"name": name, "path": str(tmp_path / "docs")} for name in ("docs", "notes")]}
    }
    base = build(make_platform, **sources)
    refresh(base)
    refresh(base, {"extra.md": article("extra")}, source="notes")
    platform = build(make_platform, {"label": "fine", "chunker": FINE}, **sources)
    commit(platform, "docs", TEXTS)
    chunk_source(platform, "docs")
    embed_source(platform, "docs", "test")
    refresh_index(platform, "main--fine", "docs", "test")
    with pytest.raises(
        SnapshotNotFoundError,
        match=r"main--fine \(derived from main\) as it is configured lacks notes; run genaiops refresh notes",
    ):
        prepare(platform)


def test_a_source_that_was_never_loaded_holds_nothing_up(make_platform: Make, tmp_path: Any) -> None:
    sources: dict[str, Any] = {
        "sources.yaml": {"sources": [{"name": name, "path": str(tmp_path / "docs")} for name in ("docs", "later")]}
    }
    platform = build(make_platform, {"label": "fine", "chunker": FINE}, **sources)
    refresh(platform)
    with platform.database.connect() as connection:
        assert unbuilt_sources(connection, platform, ["trial-run"]) == {}


def test_the_state_of_what_is_unbuilt_changes_with_its_settings(make_platform: Make) -> None:
    """So the sensor asks once for each, not for ever."""
    refresh(build(make_platform))
    states = []
    for chunker in (FINE, FINE, COARSE):
        platform = build(make_platform, {"label": "fine", "chunker": chunker})
        with platform.database.connect() as connection:
            states.append(unbuilt_sources(connection, platform, ["trial-run"])["docs"])
    assert states[0] == states[1] != states[2]


# --- retirement --------------------------------------------------------------------------------------------


@pytest.fixture
def left(make_platform: Make) -> Platform:
    """Index ``main--fine`` was built, and has left the configuration; 14 days later."""
    refresh(build(make_platform, {"label": "fine", "chunker": FINE}))
    platform = build(make_platform, days=14)
    assert [(one.retired, one.kept_by) for one in retire_unconfigured(platform, "first")] == [
        (False, "it left the configuration 0.0 days ago")
    ]
    pass_days(platform, 15)
    return platform


def pass_days(platform: Platform, days: int) -> None:
    with platform.database.connect() as connection:
        connection.execute("UPDATE evidence SET created_at = created_at - make_interval(days => %s)", (days,))
        connection.execute("UPDATE index_snapshot SET published_at = published_at - make_interval(days => %s)", (days,))


def retired(platform: Platform) -> Retirement:
    (one,) = retire_unconfigured(platform, "run")
    return one


def test_an_index_that_left_is_removed_after_its_days_and_leaves_nothing(left: Platform) -> None:
    tables = rows(left, "SELECT table_name FROM index_build WHERE index_name = 'main--fine'")
    result = apply_retention(left)
    assert [(one.index, one.retired, one.builds_dropped) for one in result.unconfigured] == [("main--fine", True, 1)]
    assert rows(left, "SELECT to_regclass('genaiops.' || %s)", tables[0][0]) == [(None,)]
    assert rows(left, "SELECT DISTINCT index_name FROM index_snapshot") == [("main",)]
    assert rows(left, "SELECT to_snapshot, reason FROM serving_move ORDER BY move_id DESC LIMIT 1") == [
        (0, "retired: not configured for 15 days")
    ]
    with pytest.raises(SnapshotNotFoundError, match="no published snapshot yet"):
        found(left, "main--fine")
    assert found(left, "main")
    assert retire_unconfigured(left, "again") == ()
    assert apply_retention(left).caches.skipped == ""


def test_its_embeddings_go_with_the_caches(left: Platform) -> None:
    before = rows(left, "SELECT count(*) FROM embedding")[0][0]
    assert apply_retention(left).caches.embeddings > 0
    assert rows(left, "SELECT count(*) FROM embedding")[0][0] < before


def test_a_name_that_comes_back_goes_on_counting(left: Platform, make_platform: Make) -> None:
    """Evidence about snapshot 1 must never be read as evidence about another index of that name."""
    apply_retention(left)
    platform = build(make_platform, {"label": "fine", "chunker": COARSE})
    refresh(platform)
    assert rows(platform, "SELECT head, serving FROM index_state WHERE index_name = 'main--fine'") == [(2, 2)]
    assert len(VectorIndex(platform.database, platform.config, platform.models).snapshots("main--fine")) == 1


def test_days_count_from_when_it_left_and_again_when_it_left_again(left: Platform, make_platform: Make) -> None:
    back = build(make_platform, {"label": "fine", "chunker": FINE}, days=14)
    assert retire_unconfigured(back, "back") == ()
    gone = retired(build(make_platform, days=14))
    assert (gone.retired, gone.kept_by) == (False, "it left the configuration 0.0 days ago")


def test_what_was_published_since_counts_as_configured_then(left: Platform, make_platform: Make) -> None:
    refresh(build(make_platform, {"label": "fine", "chunker": FINE}), {"new.md": article("new")})
    assert not retired(build(make_platform, days=14)).retired


def hold(platform: Platform, kind: str) -> None:
    with platform.database.connect() as connection:
        connection.execute(
            "INSERT INTO variant (fingerprint, name, config) VALUES ('v', 'v', %s)", (Jsonb({"index": "main--fine"}),)
        )
        if kind == "pin":
            connection.execute("INSERT INTO snapshot_pin VALUES ('main--fine', 1, 'release 7')")
        elif kind == "result":
            connection.execute("INSERT INTO snapshot_pin VALUES ('main--fine', 1, 'experiment:trial-run')")
        elif kind == "champion":
            row = connection.execute(
                """INSERT INTO experiment_result
                       (experiment, fingerprint, dataset_version, snapshots, leaderboard, recommendation, run_id)
                   VALUES ('trial-run', 'f', 1, '{}', '{}', '{}', 'r') RETURNING result_id"""
            ).fetchone()
            assert row is not None
            connection.execute(
                """INSERT INTO champion (experiment, variant, result_id, reason, set_by)
                   VALUES ('trial-run', 'v', %s, 'better', 'ann')""",
                row,
            )
        else:
            connection.execute(
                """INSERT INTO interaction (interaction_id, question, answer, refused, citations, retrieved, index_name,
                       snapshot, variant, variant_reason, generation, usage, latency)
                   VALUES (%s, 'q', 'a', false, '[]', '[]', 'main--fine', 1, 'v', 'asked for', 'g', '{}', 0)""",
                (uuid.uuid4(),),
            )


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("pin", "pinned by release 7"),
        ("result", "pinned by experiment:trial-run"),
        ("champion", "the champion of trial-run searches it"),
        ("answer", "it answered on "),
    ],
)
def test_an_index_that_somebody_needs_stays(left: Platform, kind: str, why: str) -> None:
    hold(left, kind)
    kept = retired(left)
    assert not kept.retired
    assert kept.kept_by.startswith(why)
    assert found(left, "main--fine")


def test_a_pin_of_an_experiment_that_left_too_holds_nothing(left: Platform) -> None:
    with left.database.connect() as connection:
        connection.execute("INSERT INTO snapshot_pin VALUES ('main--fine', 1, 'experiment:gone')")
        connection.execute("INSERT INTO snapshot_pin VALUES ('main', 1, 'experiment:gone')")
    assert retired(left).retired
    assert rows(left, "SELECT index_name FROM snapshot_pin") == [("main",)]  # what is configured keeps its pins


def test_an_index_that_is_being_written_is_left_for_the_next_time(left: Platform) -> None:
    with left.database.lease("index:main--fine", "other run"):
        (kept,) = retire_unconfigured(left, "run", wait_seconds=0)
    assert not kept.retired
    assert "other run" in kept.kept_by
    assert retired(left).retired


def test_a_held_index_is_retired_with_its_hold(left: Platform, make_platform: Make) -> None:
    rollback(left.database, "main--fine", to=1, by="ana", reason="x")
    assert retired(left).retired
    refresh(build(make_platform, {"label": "fine", "chunker": FINE}))
    assert rows(left, "SELECT serving, held_by FROM index_state WHERE index_name = 'main--fine'") == [(2, None)]
