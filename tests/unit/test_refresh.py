"""Change detection and commit of a source's revisions."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from assets.corpus import parse_cache
from assets.corpus.documents import LiveDocument, live_documents
from assets.corpus.quarantine import list_quarantined, release
from assets.corpus.refresh import commit, match_renames, plan_refresh
from resources.errors import ConfigError, PermanentError, StaleLeaseError, TransientError
from resources.platform import Platform
from tests.corpus_support import changes, corpus_content, identities, quarantined, refresh, write
from tests.histories import apply, start


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    return tmp_path / "docs"


@pytest.fixture
def platform(make_platform: Callable[..., Platform]) -> Platform:
    return make_platform()


def test_every_kind_of_change_is_told_apart(platform: Platform, docs: Path) -> None:
    write(docs, {"keep.md": "# Keep", "edit.md": "# Edit", "old/name.md": "# Name", "drop.md": "# Drop"})
    _, first = refresh(platform)
    assert (changes(first), first.revision) == ({"added": 4}, 1)
    before = identities(platform)

    write(docs, {"edit.md": "# Edited", "old/name.md": None, "new/name.md": "# Name", "drop.md": None, "add.md": "# A"})
    plan, second = refresh(platform)

    assert changes(second) == {"added": 1, "changed": 1, "renamed": 1, "deleted": 1}
    assert (second.counts["unchanged"], second.counts["documents"], second.revision) == (1, 4, 2)
    after = identities(platform)
    assert after["edit.md"] == before["edit.md"]
    assert after["new/name.md"] == before["old/name.md"]
    assert plan.work.parses == 2


def test_nothing_changed_commits_nothing(platform: Platform, docs: Path) -> None:
    write(docs, {"a.md": "# A", "b.md": "# B"})
    _, first = refresh(platform)
    plan, second = refresh(platform)
    assert not second.committed
    assert changes(second) == {}
    assert (second.revision, second.data_version) == (1, first.data_version)
    assert (plan.work.parses, plan.work.batches) == (0, 0)


def test_content_decides_not_the_modification_time(platform: Platform, docs: Path) -> None:
    write(docs, {"a.md": "# One", "b.md": "# Two"})
    os.utime(docs / "a.md", ns=(5, 5))
    refresh(platform)
    write(docs, {"a.md": "# Uno"})  # same size
    os.utime(docs / "a.md", ns=(5, 5))
    os.utime(docs / "b.md", ns=(9, 9))
    _, revision = refresh(platform)
    assert changes(revision) == {"changed": 1}


def test_documents_of_equal_content_are_two_and_are_parsed_once(platform: Platform, docs: Path) -> None:
    write(docs, {"a.md": "# Same", "b.md": "# Same"})
    plan, revision = refresh(platform)
    assert changes(revision) == {"added": 2}
    assert len(set(identities(platform).values())) == 2
    assert plan.work.parses == 1


def test_equal_bytes_of_two_formats_are_parsed_apart(platform: Platform, docs: Path) -> None:
    write(docs, {"a.md": "---\ntitle: T\n---\ntext", "a.txt": "---\ntitle: T\n---\ntext"})
    refresh(platform)
    with platform.database.connect() as connection:
        assert {item.path: item.title for item in live_documents(connection, "docs")} == {"a.md": "T", "a.txt": "a"}


def test_swapped_contents_are_two_changes_not_renames(platform: Platform, docs: Path) -> None:
    write(docs, {"a.md": "# A", "b.md": "# B"})
    refresh(platform)
    before = identities(platform)
    write(docs, {"a.md": "# B", "b.md": "# A"})
    plan, revision = refresh(platform)
    assert changes(revision) == {"changed": 2}
    assert identities(platform) == before
    assert plan.work.parses == 0


def _live(path: str, content: bytes, number: int) -> LiveDocument:
    return LiveDocument(number, number, path, content, b"", "", "", None, None, None, 0, "", 0)


def test_renames_prefer_the_same_file_name_then_the_order_of_paths() -> None:
    gone = [_live("z/x.md", b"1", 1), _live("a/y.md", b"1", 2), _live("b/other.md", b"2", 3)]
    new = {"n/y.md": b"1", "n/a.md": b"1", "n/b.md": b"1", "n/other.md": b"3"}
    for order in (gone, gone[::-1]):
        pairs = match_renames(dict(sorted(new.items(), reverse=order is gone)), order)
        assert {path: item.path for path, item in pairs.items()} == {"n/y.md": "a/y.md", "n/a.md": "z/x.md"}


def test_a_document_that_returns_is_the_same_document(platform: Platform, docs: Path) -> None:
    write(docs, {"a.md": "# A", "b.md": "# B"})
    refresh(platform)
    before = identities(platform)
    write(docs, {"a.md": None})
    refresh(platform)
    write(docs, {"a.md": "# A, revised"})
    _, revision = refresh(platform)
    assert changes(revision) == {"added": 1}
    assert identities(platform) == before


def test_a_renamed_document_is_not_taken_back_by_its_old_path(platform: Platform, docs: Path) -> None:
    write(docs, {"a.md": "# A"})
    refresh(platform)
    first = identities(platform)["a.md"]
    write(docs, {"a.md": None, "b.md": "# A"})
    refresh(platform)
    write(docs, {"a.md": "# New"})
    refresh(platform)
    now = identities(platform)
    assert now["b.md"] == first
    assert now["a.md"] != first
    write(docs, {"a.md": None, "b.md": None, "c.md": "# C"})
    refresh(platform)
    write(docs, {"a.md": "# New 2", "b.md": "# A 2"})
    refresh(platform)
    assert identities(platform) == {**now, "c.md": identities(platform)["c.md"]}


def test_earlier_revisions_can_be_read(platform: Platform, docs: Path) -> None:
    write(docs, {"a.md": "# One", "b.md": "# B"})
    refresh(platform)
    write(docs, {"a.md": "# Two", "b.md": None, "c.md": "# C"})
    refresh(platform)
    with platform.database.connect() as connection:
        assert [(d.path, d.title) for d in live_documents(connection, "docs", 1)] == [("a.md", "One"), ("b.md", "B")]
        assert [d.path for d in live_documents(connection, "docs", 2)] == ["a.md", "c.md"]
        assert live_documents(connection, "docs", 2) == live_documents(connection, "docs")


def test_a_changed_parser_parses_everything_again(
    platform: Platform, docs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(docs, {"a.md": "# A", "b.html": "<p>b</p>"})
    refresh(platform)
    before = identities(platform)
    monkeypatch.setattr("assets.corpus.parsing.CODE_VERSION", "next")
    plan, revision = refresh(platform)
    assert (changes(revision), plan.work.parses) == ({"changed": 2}, 2)
    assert identities(platform) == before


def test_missing_folder_stops_the_refresh_and_keeps_the_documents(platform: Platform, docs: Path) -> None:
    write(docs, {"a.md": "# A"})
    refresh(platform)
    (docs / "a.md").unlink()
    docs.rmdir()
    with pytest.raises(ConfigError, match="does not exist"):
        refresh(platform)
    assert list(identities(platform)) == ["a.md"]


# --- policies and quarantine


@pytest.fixture
def strict(make_platform: Callable[..., Platform]) -> Platform:
    policy = {"maximum_bytes": 200, "minimum_characters": 5, "allowed_licences": ["MIT", "CC-BY-4.0"]}
    return make_platform(**{"policies/corpus.yaml": policy})


MIT = "SPDX-License-Identifier: MIT\n"


def test_policies_send_documents_to_quarantine_with_the_reason(strict: Platform, docs: Path) -> None:
    write(
        docs,
        {
            "good.md": f"{MIT}# Good",
            "either.md": "SPDX-License-Identifier: GPL-3.0-only OR MIT\ntext",
            "both.md": "SPDX-License-Identifier: GPL-3.0-only AND MIT\ntext",
            "none.md": "no licence at all",
            "long.md": MIT + "x" * 200,
            "tiny.md": "ab",
            "photo.png": b"\x89PNG",
            "empty.md": "",
        },
    )
    _, revision = refresh(strict)
    assert sorted(identities(strict)) == ["either.md", "good.md"]
    assert quarantined(strict) == {
        "both.md": "licence",
        "none.md": "licence",
        "long.md": "too_large",
        "tiny.md": "too_short",
        "photo.png": "unsupported",
        "empty.md": "empty",
    }
    assert revision.counts["quarantined"] == 6
    with strict.database.connect() as connection:
        reasons = {row.path: row.reason for row in list_quarantined(connection, "docs")}
    assert "229 bytes, allowed are 200" in reasons["long.md"]
    assert "no licence is stated" in reasons["none.md"]


def test_a_large_file_is_refused_before_it_is_read(
    strict: Platform, docs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(docs, {"big.md": "x" * 1000, "good.md": f"{MIT}# Good"})
    open_file = os.open
    monkeypatch.setattr(
        os,
        "open",
        lambda path, *more, **named: pytest.fail("read") if "big" in str(path) else open_file(path, *more, **named),
    )
    plan, _ = refresh(strict)
    assert quarantined(strict) == {"big.md": "too_large"}
    assert plan.bytes_read < 200


def test_a_document_that_breaks_policy_leaves_the_corpus_and_returns_as_itself(strict: Platform, docs: Path) -> None:
    write(docs, {"a.md": f"{MIT}# A", "b.md": f"{MIT}# B"})
    refresh(strict)
    before = identities(strict)
    write(docs, {"a.md": "no licence any more"})
    _, revision = refresh(strict)
    assert (changes(revision), revision.counts["withdrawn"]) == ({"deleted": 1}, 1)
    assert sorted(identities(strict)) == ["b.md"]
    write(docs, {"a.md": f"{MIT}# A again"})
    refresh(strict)
    assert (identities(strict), quarantined(strict)) == (before, {})


def test_released_content_enters_and_only_that_content(strict: Platform, docs: Path) -> None:
    write(docs, {"good.md": f"{MIT}# Good", "a.md": "no licence", "big.md": MIT + "x" * 300})
    refresh(strict)
    with strict.database.connect() as connection:
        release(connection, "docs", "a.md", by="me")
        release(connection, "docs", "big.md", by="me")
    for _ in range(2):  # a release lasts
        refresh(strict)
        assert sorted(identities(strict)) == ["a.md", "big.md", "good.md"]
    write(docs, {"a.md": "other content", "big.md": MIT + "y" * 300})
    refresh(strict)
    assert sorted(identities(strict)) == ["good.md"]
    assert quarantined(strict) == {"a.md": "licence", "big.md": "too_large"}


def test_a_release_that_is_no_longer_needed_is_forgotten(strict: Platform, docs: Path) -> None:
    write(docs, {"good.md": f"{MIT}# Good", "a.md": "no licence"})
    refresh(strict)
    with strict.database.connect() as connection:
        release(connection, "docs", "a.md", by="me")
    write(docs, {"a.md": f"{MIT}# A"})
    refresh(strict)
    assert quarantined(strict) == {}


@pytest.mark.parametrize(("path", "message"), [("empty.md", "cannot be released"), ("emty.md", "mean 'empty.md'")])
def test_release_says_why_it_cannot(strict: Platform, docs: Path, path: str, message: str) -> None:
    write(docs, {"empty.md": ""})
    refresh(strict)
    with pytest.raises(PermanentError, match=message), strict.database.connect() as connection:
        release(connection, "docs", path, by="me")


def test_forgotten_documents_are_refused_by_path_and_by_content(platform: Platform, docs: Path) -> None:
    write(docs, {"a.md": "# Person", "b.md": "# B"})
    refresh(platform)
    with platform.database.connect() as connection:
        connection.execute(
            """INSERT INTO forgotten (source, path, content_hash, erasure_id)
               SELECT source, path, content_hash, 1 FROM document_version WHERE path = 'a.md'"""
        )
    write(docs, {"a.md": "# Person, edited", "copy.md": "# Person"})
    refresh(platform)
    assert list(identities(platform)) == ["b.md"]
    assert quarantined(platform) == {"a.md": "forgotten", "copy.md": "forgotten"}


def test_an_erased_document_makes_a_new_revision(platform: Platform, docs: Path) -> None:
    write(docs, {"a.md": "# A", "b.md": "# B"})
    _, first = refresh(platform)
    (docs / "a.md").unlink()
    with platform.database.connect() as connection:
        connection.execute("DELETE FROM document_version WHERE path = 'a.md'")
    _, second = refresh(platform)
    assert second.committed
    assert second.data_version != first.data_version


# --- leases and concurrency


def test_a_refresh_whose_lease_was_taken_over_commits_nothing(platform: Platform, docs: Path) -> None:
    write(docs, {"a.md": "# A"})
    with platform.database.lease("source:docs", "orphan") as lease:
        plan = plan_refresh(platform, "docs", "orphan", lease)
        with platform.database.lease("source:docs", "new", holder_is_dead=lambda holder: True):
            with pytest.raises(StaleLeaseError):
                commit(platform, plan, lease)
    assert identities(platform) == {}


def test_a_plan_made_on_another_revision_is_refused(platform: Platform, docs: Path) -> None:
    write(docs, {"a.md": "# A"})
    with platform.database.lease("source:docs", "run") as lease:
        plan = plan_refresh(platform, "docs", "run", lease)
        commit(platform, plan, lease)
        with pytest.raises(TransientError, match="is at revision 1, the refresh was planned on 0"):
            commit(platform, plan, lease)


# --- batches


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("assets.corpus.refresh.BATCH_DOCUMENTS", 3)


@pytest.mark.usefixtures("small_batches")
def test_batches_bound_what_is_parsed_at_once(platform: Platform, docs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    store = parse_cache.store
    monkeypatch.setattr(
        parse_cache, "store", lambda connection, results: (sizes.append(len(results)), store(connection, results))[1]
    )
    write(docs, {f"{number}.md": f"# Number {number}" for number in range(8)})
    plan, _ = refresh(platform)
    assert sizes == [3, 3, 2]
    assert plan.work.parses == 8


# --- real edits


@pytest.mark.slow
def test_a_real_history_counts_as_its_commits_say_and_ends_like_a_fresh_build(
    platform: Platform, make_platform: Callable[..., Platform], docs: Path, shared_data: Path
) -> None:
    steps = start(shared_data / "rust-book-history", docs)
    refresh(platform)
    names = {"add": "added", "modify": "changed", "rename": "renamed", "delete": "deleted"}
    for step in steps[:25]:
        apply(step, docs)
        plan, revision = refresh(platform)
        expected: dict[str, int] = {}
        for change in step.changes:
            expected[names[change["op"]]] = expected.get(names[change["op"]], 0) + 1
        assert changes(revision) == expected, step.number
        assert plan.work.parses <= len(step.changes)
    incremental = corpus_content(platform)
    with platform.database.connect() as connection:
        connection.execute("TRUNCATE document, document_version, parse_result, source_revision, document_text CASCADE")
    refresh(platform)
    assert corpus_content(platform) == incremental
