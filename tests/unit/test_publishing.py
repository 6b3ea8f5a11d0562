"""Staging, publishing, rollback, retention and audit: the invariants of a snapshot."""

import random
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from assets.index import staging
from assets.index.audit import audit
from assets.index.checks import examine
from assets.index.embedding import embed_source
from assets.index.publishing import EVIDENCE_KIND, EvidenceError, publish, roll_forward, rollback
from assets.index.refreshing import refresh_index, refresh_indexes
from assets.index.retention import apply_retention
from assets.index.specification import specify
from assets.index.staging import stage
from assets.outcomes import record_evidence
from pipelines.standing_checks import damaged_documents
from resources.errors import LeaseHeldError, PermanentError, SnapshotNotFoundError, StaleLeaseError
from resources.platform import Platform
from tests.index_world import (
    article,
    commit,
    order,
    prepare,
    refresh,
    searcher,
    visible_rows,
)

QUESTIONS = ("apple3 and pear", "what about part 2 of plum", "cherry", "walnut5 quince2")
MODES = ("vector", "full_text", "hybrid")
Make = Callable[..., Platform]


def corpus(*subjects: str) -> dict[str, str]:
    return {f"{subject}.md": article(subject) for subject in subjects}


def answers(platform: Platform, snapshot: int | None = None) -> list[Any]:
    index = searcher(platform)
    return [
        order(index.search("main", question, mode=mode, k=8, snapshot=snapshot))  # type: ignore[arg-type]
        for question in QUESTIONS
        for mode in MODES
    ]


def fresh_build(platform: Platform) -> tuple[list[Any], list[Any]]:
    """Rows and answers of an index built at once from what the source shows now."""
    config = platform.config
    twin = config.indexes["main"].model_copy(update={"name": "twin"})
    other = replace(
        platform, config=config.model_copy(update={"indexes": {"main": config.indexes["main"], "twin": twin}})
    )
    embed_source(other, "docs", "fresh")
    refresh_index(other, "twin", "docs", "fresh")
    index = searcher(other)
    found = [
        order(index.search("twin", question, mode=mode, k=8))  # type: ignore[arg-type]
        for question in QUESTIONS
        for mode in MODES
    ]
    return visible_rows(other, "twin"), found


# --- difference -------------------------------------------------------------------------------------------


def test_an_edit_writes_the_rows_that_differ_and_no_other(make_platform: Make) -> None:
    platform = make_platform()
    texts = corpus("apple", "pear", "plum")
    refresh(platform, "docs", texts)
    texts["pear.md"] = texts["pear.md"].replace("Part 3 of pear", "Part 9 of pear")
    item = refresh(platform, "docs", texts)
    assert item.stage is not None
    assert item.stage.counts["rows_added"] == item.stage.counts["rows_retired"] == 1
    assert item.stage.counts["documents_changed"] == 1


def test_a_rename_writes_no_row(make_platform: Make) -> None:
    platform = make_platform()
    refresh(platform, "docs", corpus("apple", "pear"))
    texts = corpus("apple", "pear")
    texts["birne.md"] = texts.pop("pear.md")
    item = refresh(platform, "docs", texts, renames={"pear.md": "birne.md"})
    assert item.stage is not None
    assert item.publication is not None
    assert (item.stage.counts["rows_added"], item.stage.counts["rows_retired"]) == (0, 0)
    assert searcher(platform).search("main", "pear", k=1).hits[0].path == "birne.md"


def test_nothing_changed_publishes_nothing_and_keeps_the_data_version(make_platform: Make) -> None:
    platform = make_platform()
    prepare(platform, "docs", corpus("apple", "pear"))
    first = refresh_indexes(platform, "docs", "one")
    second = refresh_indexes(platform, "docs", "two")
    assert second.indexes[0].stage is not None
    assert second.indexes[0].stage.strategy == "nothing"
    assert second.data_version == first.data_version
    assert [info.snapshot for info in searcher(platform).snapshots("main")] == [1]
    assert all("evidence of snapshot 1 stands" in o.observed for o in second.indexes[0].outcomes if o.blocking)


def test_data_version_of_a_source_ignores_a_publish_for_another(make_platform: Make, tmp_path: Any) -> None:
    platform = make_platform(**{"sources.yaml": two_sources(tmp_path)})
    prepare(platform, "docs", corpus("apple"))
    first = refresh_indexes(platform, "docs", "one").data_version
    prepare(platform, "wiki", corpus("pear"))
    wiki = refresh_indexes(platform, "wiki", "two")
    assert wiki.indexes[0].publication is not None
    assert refresh_indexes(platform, "docs", "three").data_version == first != wiki.data_version


def test_many_random_edits_equal_a_fresh_build_and_every_snapshot_stays_searchable(make_platform: Make) -> None:
    platform = make_platform()
    choose = random.Random(5)
    subjects = [f"{fruit}{number}" for fruit in ("apple", "pear", "plum", "cherry", "walnut") for number in range(3)]
    texts = {f"{subject}.md": article(subject, 3) for subject in subjects[:8]}
    recorded: dict[int, tuple[list[Any], list[Any]]] = {}
    for _ in range(12):
        for _ in range(choose.randint(1, 3)):
            subject = choose.choice(subjects)
            path = f"{subject}.md"
            if path in texts and choose.random() < 0.3 and len(texts) > 1:
                del texts[path]
            else:
                texts[path] = article(subject, choose.randint(1, 5), choose.randint(5, 60))
        item = refresh(platform, "docs", texts)
        if item.publication:
            recorded[item.publication.snapshot] = (visible_rows(platform, "main"), answers(platform))
    assert len(recorded) > 8
    for snapshot, (rows, found) in recorded.items():
        assert visible_rows(platform, "main", snapshot) == rows
        assert answers(platform, snapshot) == found
    newest = recorded[max(recorded)]
    assert fresh_build(platform) == newest
    assert audit(platform, "main") == []


def two_sources(folder: Any) -> dict[str, Any]:
    return {"sources": [{"name": name, "path": str(folder)} for name in ("docs", "wiki")]}


def test_source_dropped_from_the_configuration_leaves_the_index(make_platform: Make, tmp_path: Any) -> None:
    platform = make_platform(**{"sources.yaml": two_sources(tmp_path)})
    refresh(platform, "docs", corpus("apple"))
    refresh(platform, "wiki", corpus("pear"))
    assert {row[0] for row in visible_rows(platform, "main")} == {"docs", "wiki"}
    smaller = make_platform(**{"indexes/main.yaml": load_index(platform) | {"sources": ["docs"]}})
    item = refresh_index(smaller, "main", "docs", "run")
    assert item.publication is not None
    assert {row[0] for row in visible_rows(smaller, "main")} == {"docs"}


def load_index(platform: Platform) -> dict[str, Any]:
    return platform.config.indexes["main"].model_dump(mode="json")


def test_stage_refuses_when_chunks_or_embeddings_are_missing(make_platform: Make) -> None:
    platform = make_platform()
    commit(platform, "docs", corpus("apple"))
    with pytest.raises(PermanentError, match=r"lacks the chunks of 1 texts .* materialize chunks and embeddings"):
        refresh_index(platform, "main", "docs", "run")


def test_revision_committed_after_the_embeddings_is_left_to_its_own_run(make_platform: Make) -> None:
    platform = make_platform()
    refresh(platform, "docs", corpus("apple"))
    prepare(platform, "docs", corpus("apple", "pear"))
    commit(platform, "docs", corpus("apple", "pear", "plum"))
    item = refresh_index(platform, "main", "docs", "run")
    assert item.stage is not None
    assert item.stage.sources == {"docs": 2}
    assert {row[1] for row in visible_rows(platform, "main")} == {"apple.md", "pear.md"}


# --- configuration ------------------------------------------------------------------------------------------


def test_changed_configuration_waits_for_every_source_and_the_last_one_publishes(
    make_platform: Make, tmp_path: Any
) -> None:
    platform = make_platform(**{"sources.yaml": two_sources(tmp_path)})
    refresh(platform, "docs", corpus("apple"))
    refresh(platform, "wiki", corpus("pear"))
    before = answers(platform)
    changed = make_platform(
        **{
            "sources.yaml": two_sources(tmp_path),
            "indexes/main.yaml": load_index(platform) | {"chunker": {"unit": "characters", "size": 150}},
        }
    )
    prepare(changed, "docs", corpus("apple"))
    waiting = refresh_index(changed, "main", "docs", "run")
    assert waiting.stage is not None
    assert (waiting.stage.strategy, waiting.stage.waiting_for, waiting.publication) == ("waiting", ("wiki",), None)
    assert not waiting.failed
    assert answers(changed) == before
    prepare(changed, "wiki", corpus("pear"))
    item = refresh_index(changed, "main", "wiki", "run")
    assert item.stage is not None
    assert (item.stage.strategy, item.stage.snapshot) == ("new build", 3)
    assert {row[0] for row in visible_rows(changed, "main")} == {"docs", "wiki"}
    assert max(row[5] - row[4] for row in visible_rows(changed, "main")) <= 150
    assert answers(changed, 2) == before


def test_large_difference_is_loaded_as_a_new_build(make_platform: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "REBUILD_MINIMUM_ROWS", 3)
    platform = make_platform()
    refresh(platform, "docs", corpus("apple", "pear"))
    item = refresh(platform, "docs", corpus("apple", "pear", "plum", "cherry"))
    assert item.stage is not None
    assert item.stage.strategy == "new build"
    assert item.stage.reason.startswith("the difference is large")
    assert (visible_rows(platform, "main"), answers(platform)) == fresh_build(platform)


def test_dead_rows_are_compacted_away(make_platform: Make) -> None:
    platform = make_platform(**{"policies/index.yaml": {"compact_dead_share": 0.6}})
    for number in range(3):
        refresh(platform, "docs", {"apple.md": article(f"apple{number}")})
    item = refresh(platform, "docs", {"apple.md": article("apple9")})
    assert item.stage is not None
    assert item.stage.reason.startswith("compaction: 8 of 12 rows are dead")
    assert len(answers(platform, 1)) == len(answers(platform, 4))


def test_graph_is_built_once_there_are_enough_rows(make_platform: Make) -> None:
    platform = make_platform(
        **{
            "indexes/main.yaml": {
                "name": "main",
                "embedder": "lexical",
                "chunker": {"unit": "characters", "size": 400},
                "hnsw": {"exact_below": 10},
            }
        }
    )
    index = searcher(platform)
    for texts, expected in ((corpus("apple", "pear"), False), (corpus("apple", "pear", "plum"), True)):
        item = refresh(platform, "docs", texts)
        assert item.publication is not None
        with platform.database.connect() as connection:
            assert index._view(connection, "main", None).graph is expected


def test_too_many_dimensions_for_the_vector_type_are_explained(make_platform: Make) -> None:
    platform = make_platform(
        **{
            "indexes/main.yaml": {"name": "main", "embedder": "wide", "vector_type": "vector"},
            "models.yaml": {
                "providers": {"offline": {"kind": "offline"}},
                "embedding": [{"name": "wide", "provider": "offline", "model": "lexical-hash", "dimensions": 3072}],
                "chat": [{"name": "extractive", "provider": "offline", "model": "extractive"}],
            },
        }
    )
    with pytest.raises(PermanentError, match=r"3072 dimensions; .* vector takes at most 2000: use vector_type halfvec"):
        specify(platform, "main")


# --- publishing ---------------------------------------------------------------------------------------------


def test_readers_never_see_a_mixture(make_platform: Make) -> None:
    """Each version of the corpus says its number in every chunk; every answer must carry one number only."""
    platform = make_platform()

    def version(number: int) -> dict[str, str]:
        return {f"{i}.md": f"Common words here, edition{number} of document {i}.\n" * 6 for i in range(6)}

    refresh(platform, "docs", version(0))
    stop, seen, wrong = threading.Event(), set(), []

    def read() -> None:
        index = searcher(platform)
        while not stop.is_set():
            for mode in MODES:
                hits = index.search("main", "common words edition", mode=mode, k=60).hits  # type: ignore[arg-type]
                numbers = {word for hit in hits for word in hit.text.split() if word.startswith("edition")}
                seen.update(numbers)
                if len(numbers) != 1 or {hit.path for hit in hits} != {f"{i}.md" for i in range(6)}:
                    wrong.append(numbers)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        for number in range(1, 7):
            refresh(platform, "docs", version(number))
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    assert wrong == []
    assert len(seen) > 1


def test_staged_rows_are_invisible_until_published(make_platform: Make) -> None:
    platform = make_platform()
    refresh(platform, "docs", corpus("apple", "pear"))
    before = (visible_rows(platform, "main"), answers(platform))
    prepare(platform, "docs", corpus("apple", "plum"))
    with platform.database.lease("index:main", "run") as lease:
        staged = stage(platform, "main", "docs", "run", lease)
        assert staged.strategy == "insert"
        assert (visible_rows(platform, "main"), answers(platform)) == before


def test_publish_without_evidence_is_refused(make_platform: Make) -> None:
    platform = make_platform()
    prepare(platform, "docs", corpus("apple"))
    with platform.database.lease("index:main", "run") as lease:
        staged = stage(platform, "main", "docs", "run", lease)
        with pytest.raises(EvidenceError, match=r"main@1 was not published: no evidence of count_parity"):
            publish(platform, staged, "run", lease)


def test_publish_with_a_failed_check_is_refused_and_passes_once_it_passed(make_platform: Make) -> None:
    platform = make_platform()
    prepare(platform, "docs", corpus("apple"))
    with platform.database.lease("index:main", "run") as lease:
        staged = stage(platform, "main", "docs", "run", lease)
        outcomes = examine(platform, staged, specify(platform, "main"))
        failed = [replace(o, passed=o.name != "recall_at_10") for o in outcomes]
        for recorded, refused in ((failed, True), (outcomes, False)):
            with platform.database.connect() as connection:
                record_evidence(connection, EVIDENCE_KIND, staged.subject, staged.fingerprint, recorded, "run")
            if refused:
                with pytest.raises(EvidenceError, match="failed: recall_at_10"):
                    publish(platform, staged, "run", lease)
        assert publish(platform, staged, "run", lease).serving == 1


def test_late_publish_of_an_orphan_is_refused(make_platform: Make) -> None:
    platform = make_platform()
    refresh(platform, "docs", corpus("apple"))
    prepare(platform, "docs", corpus("apple", "pear"))
    with platform.database.lease("index:main", "dead") as orphan:
        staged = stage(platform, "main", "docs", "dead", orphan)
        outcomes = examine(platform, staged, specify(platform, "main"))
        with platform.database.connect() as connection:
            record_evidence(connection, EVIDENCE_KIND, staged.subject, staged.fingerprint, outcomes, "dead")
        new = refresh_index(platform, "main", "docs", "new", holder_is_dead=lambda holder: holder == "dead")
        assert new.publication is not None
        with pytest.raises(StaleLeaseError):
            publish(platform, staged, "dead", orphan)
        with pytest.raises(StaleLeaseError):
            stage(platform, "main", "docs", "dead", orphan)
    assert [info.run_id for info in searcher(platform).snapshots("main")] == ["new", "test"]


def test_stage_that_was_never_published_is_taken_back(make_platform: Make) -> None:
    platform = make_platform()
    refresh(platform, "docs", corpus("apple", "pear"))
    before = (visible_rows(platform, "main"), answers(platform))
    prepare(platform, "docs", corpus("apple", "plum"))
    with platform.database.lease("index:main", "run") as lease:
        stage(platform, "main", "docs", "run", lease)
    prepare(platform, "docs", corpus("apple", "pear"))
    item = refresh_index(platform, "main", "docs", "later")
    assert item.publication is None or item.publication.snapshot == 2
    assert (visible_rows(platform, "main"), answers(platform)) == before
    with platform.database.connect() as connection:
        left = connection.execute("SELECT count(*) FROM chunks_1 WHERE content LIKE '%plum%'").fetchone()
    assert left == (0,)


def test_two_stages_at_once_wait_for_each_other(make_platform: Make, tmp_path: Any) -> None:
    platform = make_platform(**{"sources.yaml": two_sources(tmp_path)})
    prepare(platform, "docs", corpus("apple"))
    prepare(platform, "wiki", corpus("pear"))
    threads = [
        threading.Thread(target=refresh_index, args=(platform, "main", source, f"run-{source}"))
        for source in ("docs", "wiki")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert searcher(platform).snapshots("main")[0].sources == {"docs": 1, "wiki": 1}
    assert {row[0] for row in visible_rows(platform, "main")} == {"docs", "wiki"}


def test_second_writer_is_told_who_writes(make_platform: Make) -> None:
    platform = make_platform()
    with platform.database.lease("index:main", "run-1"):
        with (
            pytest.raises(LeaseHeldError, match="run-1"),
            platform.database.lease("index:main", "run-2", wait_seconds=0),
        ):
            pass


# --- rollback ----------------------------------------------------------------------------------------------


def test_rollback_serves_the_previous_snapshot_and_holds_it(make_platform: Make) -> None:
    platform = make_platform()
    refresh(platform, "docs", corpus("apple"))
    first = answers(platform)
    refresh(platform, "docs", corpus("apple", "pear"))
    assert rollback(platform.database, "main", by="ana", reason="wrong prices") == 1
    assert answers(platform) == first
    item = refresh(platform, "docs", corpus("apple", "pear", "plum"))
    assert item.publication is not None
    assert (item.publication.snapshot, item.publication.serving, item.publication.held_by) == (3, 1, "ana")
    assert answers(platform) == first
    assert roll_forward(platform.database, "main", "ana") == 3
    assert answers(platform) == answers(platform, 3) != first
    with platform.database.connect() as connection:
        moves = connection.execute(
            "SELECT from_snapshot, to_snapshot, moved_by, reason FROM serving_move ORDER BY move_id"
        ).fetchall()
    assert moves == [
        (0, 1, "run test", "published"),
        (1, 2, "run test", "published"),
        (2, 1, "ana", "rollback: wrong prices"),
        (1, 3, "ana", "rolled forward"),
    ]


def test_rollback_to_what_is_not_there_is_refused(make_platform: Make) -> None:
    platform = make_platform()
    with pytest.raises(SnapshotNotFoundError, match="no published snapshot"):
        rollback(platform.database, "main", by="ana", reason="x")
    refresh(platform, "docs", corpus("apple"))
    with pytest.raises(SnapshotNotFoundError, match="no earlier one is retained: 1"):
        rollback(platform.database, "main", by="ana", reason="x")
    with pytest.raises(SnapshotNotFoundError, match=r"snapshot 7 .* retained: 1"):
        rollback(platform.database, "main", to=7, by="ana", reason="x")


# --- retention ---------------------------------------------------------------------------------------------


def age(platform: Platform, days: int) -> None:
    with platform.database.connect() as connection:
        connection.execute("UPDATE index_snapshot SET published_at = published_at - %s", (timedelta(days=days),))


def test_retention_keeps_policy_serving_head_and_pins_and_all_of_them_answer_as_before(make_platform: Make) -> None:
    platform = make_platform(**{"policies/index.yaml": {"keep_snapshots": 2, "keep_days": 10}})
    found: dict[int, list[Any]] = {}
    for number in range(1, 8):
        refresh(
            platform, "docs", {**corpus("apple"), "n.md": article(f"pear{number}"), f"{number}.md": f"Plum {number}."}
        )
        found[number] = answers(platform, number)
    with platform.database.connect() as connection:
        connection.execute("INSERT INTO snapshot_pin VALUES ('main', 2, 'release 1')")
    rollback(platform.database, "main", to=4, by="ana", reason="x")
    age(platform, 11)
    result = apply_retention(platform)
    assert [info.snapshot for info in searcher(platform).snapshots("main")] == [7, 6, 4, 2]
    assert result.indexes[0].snapshots_removed == 3
    assert result.indexes[0].rows_removed > 0
    for number in (2, 4, 6, 7):
        assert answers(platform, number) == found[number]
    with platform.database.connect() as connection:
        tables = connection.execute(
            "SELECT table_name FROM index_build WHERE state = 'ready' ORDER BY build_id"
        ).fetchall()
        stored = {
            content
            for (table,) in tables
            for (content,) in connection.execute(f"SELECT content FROM {table} WHERE content LIKE 'Plum%'")  # type: ignore[arg-type]
        }
        dead = connection.execute(
            """SELECT b.dead_rows FROM index_build b JOIN index_snapshot s USING (build_id)
               JOIN index_state i ON i.index_name = s.index_name AND i.head = s.snapshot"""
        ).fetchone()
        counted = connection.execute(
            f"SELECT count(*) FROM {tables[-1][0]} WHERE valid_to < 2147483647"  # type: ignore[arg-type]
        ).fetchone()
    assert stored == {f"Plum {number}." for number in (2, 4, 6, 7)}
    assert dead == counted
    assert apply_retention(platform).indexes[0].rows_removed == 0


def test_young_snapshots_stay_whatever_their_number(make_platform: Make) -> None:
    platform = make_platform(**{"policies/index.yaml": {"keep_snapshots": 1, "keep_days": 10}})
    for number in range(3):
        refresh(platform, "docs", {"a.md": f"Apple {number}."})
    assert apply_retention(platform).indexes[0].snapshots_kept == 3


def test_build_without_snapshots_is_dropped_and_caches_are_pruned(make_platform: Make) -> None:
    policy = {"keep_snapshots": 1, "keep_days": 0}
    platform = make_platform(**{"policies/index.yaml": policy})
    refresh(platform, "docs", corpus("apple", "pear"))
    changed = make_platform(
        **{
            "policies/index.yaml": policy,
            "indexes/main.yaml": load_index(platform) | {"chunker": {"unit": "characters", "size": 150}},
        }
    )
    refresh(changed, "docs", corpus("apple"))
    before = answers(changed)
    result = apply_retention(changed)
    assert result.indexes[0].builds_dropped == 1
    assert result.caches.texts == 1
    assert result.caches.document_versions == 1
    with changed.database.connect() as connection:
        assert connection.execute("SELECT to_regclass('genaiops.chunks_1')").fetchone() == (None,)
        assert connection.execute("SELECT count(*) FROM chunk_set").fetchone() == (1,)
        unused = connection.execute(
            "SELECT count(*) FROM embedding WHERE input_hash NOT IN (SELECT input_hash FROM chunk_input)"
        ).fetchone()
    assert unused == (0,)
    assert answers(changed) == before
    assert refresh(changed, "docs", corpus("apple")).publication is None


def test_retention_keeps_every_document_of_a_revision_the_index_may_still_be_brought_to(make_platform: Make) -> None:
    platform = make_platform(**{"policies/index.yaml": {"keep_snapshots": 1, "keep_days": 0}})
    pear = article("pear")
    refresh(platform, "docs", {"apple.md": article("apple"), "pear.md": pear})
    prepare(platform, "docs", {"apple.md": article("cherry"), "pear.md": pear})  # its index run failed
    commit(platform, "docs", {"apple.md": article("plum"), "pear.md": pear})  # and this was not embedded yet
    assert apply_retention(platform).caches.document_versions == 0
    item = refresh_index(platform, "main", "docs", "test")
    assert item.stage is not None
    assert (item.stage.sources, item.stage.counts["documents"]) == ({"docs": 2}, 2)


def test_revision_without_any_changed_document_does_not_make_the_index_stale(make_platform: Make) -> None:
    """As after an erasure: the documents left the index before the source noticed."""
    platform = make_platform()
    refresh(platform, "docs", corpus("apple"))
    with platform.database.connect() as connection:
        connection.execute(
            "INSERT INTO source_revision VALUES ('docs', 2, 'test', now() - interval '9 days', '{}', 'v')"
        )
    item = refresh_index(platform, "main", "docs", "test")
    assert item.publication is None
    assert [o.name for o in item.outcomes if not o.passed] == []
    assert searcher(platform).snapshots("main")[0].sources == {"docs": 2}


def test_retention_leaves_an_index_that_is_being_written(make_platform: Make) -> None:
    platform = make_platform()
    refresh(platform, "docs", corpus("apple"))
    with platform.database.lease("index:main", "run-1"):
        result = apply_retention(platform, wait_seconds=0)
    assert "run-1" in result.indexes[0].skipped
    assert "run-1" in result.caches.skipped


# --- audit -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "repair"),
    [
        ("DELETE FROM chunks_1 WHERE ordinal = 2 AND content LIKE '%pear%'", "insert"),
        ("UPDATE chunks_1 SET content = 'Free of charge.' WHERE ordinal = 1 AND content LIKE '%pear%'", "insert"),
        (
            """UPDATE chunks_1 c SET embedding = (SELECT embedding FROM chunks_1 WHERE content LIKE '%apple%' LIMIT 1)
               WHERE ordinal = 1 AND content LIKE '%pear%'""",
            "insert",
        ),
        ("UPDATE chunks_1 SET tsv = '' WHERE ordinal = 3 AND content LIKE '%pear%'", "insert"),
        ("UPDATE chunks_1 SET words = 0 WHERE ordinal = 3 AND content LIKE '%pear%'", "insert"),
        ("UPDATE chunks_1 SET heading_path = '{}' WHERE ordinal = 3 AND content LIKE '%pear%'", "insert"),
        ("UPDATE words_1 SET change = change + 7 WHERE word = (SELECT min(word) FROM words_1)", "new build"),
        ("DELETE FROM words_1 WHERE word = (SELECT max(word) FROM words_1)", "new build"),
        (
            """INSERT INTO chunks_1 SELECT 4711, digest, ordinal, start_char, end_char, valid_from, valid_to, words,
               chunk_hash, input_hash, source, tsv, embedding, heading_path, 'Planted.', configuration FROM chunks_1
               WHERE ordinal = 1""",
            "new build",
        ),
        (
            """DELETE FROM index_document WHERE version_id = (SELECT version_id FROM document_version WHERE path = 'pear.md')""",
            "new build",
        ),
    ],
)
def test_damage_is_found_and_the_next_refresh_repairs_it(make_platform: Make, damage: str, repair: str) -> None:
    platform = make_platform()
    refresh(platform, "docs", corpus("apple", "pear"))
    before = (visible_rows(platform, "main"), answers(platform))
    with platform.database.connect() as connection:
        # two planted rows would clash on their key
        connection.execute(damage if "4711" not in damage else damage + " AND content LIKE '%pear%'")  # type: ignore[arg-type]
    assert len(audit(platform, "main")) >= 1
    item = refresh_index(platform, "main", "docs", "repair")
    assert item.stage is not None
    assert item.publication is not None
    assert item.stage.strategy == repair
    assert (visible_rows(platform, "main"), answers(platform)) == before
    assert audit(platform, "main") == []
    assert refresh_index(platform, "main", "docs", "again").publication is None


def test_an_index_that_lost_its_list_of_documents_is_damaged_until_the_next_refresh(make_platform: Make) -> None:
    platform = make_platform()
    refresh(platform, "docs", corpus("apple", "pear"))
    before = answers(platform)
    with platform.database.connect() as connection:
        connection.execute("DELETE FROM index_document")
    audit(platform, "main")
    found = [(row["index"], row["source"], row["documents"]) for row in damaged_documents(platform)]
    assert found == [("main", "docs", 0)]
    refresh(platform, "docs", corpus("apple", "pear"))
    assert damaged_documents(platform) == []
    assert answers(platform) == before
