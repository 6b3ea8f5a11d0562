"""What a source vouches for: when its word is believed, when it is not, and what is remembered of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from assets.corpus.quarantine import release
from assets.corpus.refresh import commit, plan_refresh
from resources.errors import TransientError
from resources.platform import Platform
from resources.sources.base import (
    DocumentRefusedError,
    DocumentUnreadableError,
    DocumentVanishedError,
    Listing,
    SourceEntry,
)
from tests.corpus_support import changes, identities, quarantined, refresh

Content = bytes | Exception


@dataclass
class Place:
    """A source whose every word the test decides.

    Attributes:
        documents: path to (identity, content or the error its fetch raises).
        fetched: paths, in order.
        prefetched: the batches it was told of.
        confirms: what it says after a fetch.
        moves: given a state, paths now to paths then.
    """

    documents: dict[str, tuple[str | None, Content]] = field(default_factory=dict)
    fetched: list[str] = field(default_factory=list)
    prefetched: list[list[str]] = field(default_factory=list)
    confirms: bool = True
    state: str | None = None
    moves: dict[str, dict[str, str]] = field(default_factory=dict)

    def list(self) -> Listing:
        entries = [
            SourceEntry(path, 10, partial(self._fetch, path), identity=identity, confirm=lambda: self.confirms)
            for path, (identity, _) in sorted(self.documents.items())
        ]
        return Listing(
            entries, prefetch=self._prefetch, state=self.state, renames_since=lambda state: self.moves.get(state, {})
        )

    def fingerprint(self) -> str:
        return str(self.documents)

    def _prefetch(self, entries: Sequence[SourceEntry]) -> None:
        self.prefetched.append([entry.path for entry in entries])

    def _fetch(self, path: str, limit: int | None = None) -> bytes:
        self.fetched.append(path)
        content = self.documents[path][1]
        if isinstance(content, Exception):
            raise content
        return content


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Place:
    made = Place()
    monkeypatch.setattr("assets.corpus.refresh.open_source", lambda config, source: made)
    return made


@pytest.fixture
def platform(make_platform: Callable[..., Platform]) -> Platform:
    return make_platform(**{"policies/corpus.yaml": {"allowed_licences": ["MIT"]}, "policies/screening.yaml": {}})


MIT = b"SPDX-License-Identifier: MIT\n"


def rows(platform: Platform) -> dict[str, str]:
    with platform.database.connect() as connection:
        return dict(connection.execute("SELECT path, identity FROM source_entry").fetchall())


def test_what_is_vouched_for_is_fetched_once(platform: Platform, place: Place) -> None:
    place.documents = {"a.md": ("1", MIT + b"a"), "b.md": (None, MIT + b"b")}
    refresh(platform)
    refresh(platform)
    assert place.fetched == ["a.md", "b.md", "b.md"]
    assert place.prefetched == [["a.md", "b.md"], ["b.md"]]
    assert rows(platform) == {"a.md": "1"}


def test_the_word_of_a_source_counts_at_its_path_alone(platform: Platform, place: Place) -> None:
    place.documents = {"a.md": ("1", MIT + b"a"), "b.md": ("2", MIT + b"b")}
    refresh(platform)
    before = identities(platform)
    place.documents = {"a.md": ("2", MIT + b"not b"), "b.md": ("1", MIT + b"not a")}
    _, revision = refresh(platform)
    assert (changes(revision), identities(platform)) == ({"changed": 2}, before)


def test_another_identity_of_the_same_content_is_learnt(platform: Platform, place: Place) -> None:
    place.documents = {"a.md": ("1", MIT + b"a")}
    refresh(platform)
    place.documents = {"a.md": ("2", MIT + b"a")}
    _, revision = refresh(platform)
    assert (revision.committed, rows(platform)) == (False, {"a.md": "2"})
    place.fetched.clear()
    refresh(platform)
    assert place.fetched == []


def test_what_was_not_confirmed_is_not_remembered(platform: Platform, place: Place) -> None:
    place.documents, place.confirms = {"a.md": ("1", MIT + b"a")}, False
    refresh(platform)
    refresh(platform)
    assert (place.fetched, rows(platform)) == (["a.md", "a.md"], {})


def test_nothing_is_remembered_before_the_commit(platform: Platform, place: Place) -> None:
    place.documents, place.state = {"a.md": ("1", MIT + b"a")}, "s1"
    with platform.database.lease("source:docs", "run") as lease:
        plan = plan_refresh(platform, "docs", "run", lease)
        assert rows(platform) == {}
        commit(platform, plan, lease)
        with pytest.raises(TransientError):
            commit(platform, plan, lease)
    assert rows(platform) == {"a.md": "1"}


def test_what_leaves_the_source_is_not_remembered(platform: Platform, place: Place) -> None:
    place.documents, place.state = {"a.md": ("1", MIT + b"a"), "b.md": ("1", MIT + b"b")}, "s1"
    refresh(platform)
    place.documents, place.state = {"b.md": ("1", MIT + b"b")}, None
    refresh(platform)
    assert rows(platform) == {"b.md": "1"}
    with platform.database.connect() as connection:
        assert connection.execute("SELECT count(*) FROM source_state").fetchone() == (0,)


def test_a_place_that_vouches_no_more_is_read_again(platform: Platform, place: Place) -> None:
    place.documents = {"a.md": ("1", MIT + b"a")}
    refresh(platform)
    place.documents = {"a.md": (None, MIT + b"changed")}
    _, revision = refresh(platform)
    assert (changes(revision), rows(platform)) == ({"changed": 1}, {})


# --- quarantine


def test_what_is_in_quarantine_is_not_fetched_again(platform: Platform, place: Place) -> None:
    place.documents = {"bad.md": ("1", b"no licence"), "empty.md": ("1", b""), "ok.md": ("1", MIT)}
    refresh(platform)
    place.fetched.clear()
    refresh(platform)
    assert (place.fetched, quarantined(platform)) == ([], {"bad.md": "licence", "empty.md": "empty"})


def test_a_released_document_enters_without_being_fetched(platform: Platform, place: Place) -> None:
    place.documents = {"bad.md": ("1", b"no licence"), "ok.md": ("1", MIT)}
    refresh(platform)
    with platform.database.connect() as connection:
        release(connection, "docs", "bad.md", by="me")
    place.fetched.clear()
    _, revision = refresh(platform)
    assert (changes(revision), place.fetched) == ({"added": 1}, [])


def test_a_refusal_for_its_content_lasts_until_the_content_changes(platform: Platform, place: Place) -> None:
    place.documents = {"a.md": ("1", DocumentRefusedError("lfs_pointer", "a pointer")), "ok.md": ("1", MIT)}
    refresh(platform)
    place.fetched.clear()
    refresh(platform)
    assert (place.fetched, quarantined(platform)) == ([], {"a.md": "lfs_pointer"})
    place.documents["a.md"] = ("2", MIT + b"a")
    refresh(platform)
    assert (place.fetched, quarantined(platform)) == (["a.md"], {})


def test_what_could_not_be_read_is_tried_again(platform: Platform, place: Place) -> None:
    place.documents = {"a.md": ("1", DocumentUnreadableError("locked")), "ok.md": ("1", MIT)}
    refresh(platform)
    assert (quarantined(platform), rows(platform)) == ({"a.md": "unreadable"}, {"ok.md": "1"})
    place.documents["a.md"] = ("1", MIT + b"a")
    refresh(platform)
    assert quarantined(platform) == {}


def test_what_vanished_was_never_there(platform: Platform, place: Place) -> None:
    place.documents = {"a.md": ("1", DocumentVanishedError("gone")), "ok.md": ("1", MIT)}
    _, revision = refresh(platform)
    assert (changes(revision), quarantined(platform), rows(platform)) == ({"added": 1}, {}, {"ok.md": "1"})


def test_trouble_of_the_place_stops_the_refresh(platform: Platform, place: Place) -> None:
    place.documents = {"a.md": ("1", MIT + b"a"), "ok.md": ("1", MIT)}
    refresh(platform)
    place.documents["a.md"] = ("2", TransientError("connection lost"))
    with pytest.raises(TransientError, match="connection lost"):
        refresh(platform)
    assert sorted(identities(platform)) == ["a.md", "ok.md"]


# --- erasure


def test_forgotten_content_is_refused_without_being_fetched(platform: Platform, place: Place) -> None:
    place.documents = {"a.md": ("1", MIT + b"a"), "copy.md": ("1", MIT + b"a"), "ok.md": ("1", MIT)}
    refresh(platform)
    with platform.database.connect() as connection:
        connection.execute(
            """INSERT INTO forgotten (source, path, content_hash, erasure_id)
               SELECT source, path, content_hash, 1 FROM document_version WHERE path = 'a.md'"""
        )
    place.fetched.clear()
    refresh(platform)
    assert place.fetched == []
    assert quarantined(platform) == {"a.md": "forgotten", "copy.md": "forgotten"}
    assert rows(platform) == {"ok.md": "1"}  # nothing of the erased content is kept


def test_a_lost_parse_result_is_made_again_from_the_source(platform: Platform, place: Place) -> None:
    place.documents = {"bad.md": ("1", b"no licence"), "ok.md": ("1", MIT)}
    refresh(platform)
    with platform.database.connect() as connection:
        connection.execute(
            "DELETE FROM parse_result WHERE content_hash = (SELECT content_hash FROM quarantine WHERE path = 'bad.md')"
        )
    place.fetched.clear()
    refresh(platform)
    assert (place.fetched, quarantined(platform)) == (["bad.md"], {"bad.md": "licence"})


# --- renames


def test_a_move_the_source_knows_of_keeps_the_document(platform: Platform, place: Place) -> None:
    place.documents, place.state = {"a.md": ("1", MIT + b"a"), "b.md": ("1", MIT + b"b")}, "s1"
    refresh(platform)
    before = identities(platform)
    place.documents, place.state = {"c.md": ("1", MIT + b"c"), "d.md": ("1", MIT + b"d")}, "s2"
    place.moves = {"s1": {"c.md": "b.md", "d.md": "nowhere.md"}}
    plan, revision = refresh(platform)
    assert changes(revision) == {"renamed": 1, "added": 1, "deleted": 1}
    assert identities(platform)["c.md"] == before["b.md"]
    assert {item.path: item.previous_path for item in plan.planned} == {"c.md": "b.md", "d.md": None}


def test_equal_content_decides_before_the_word_of_the_source(platform: Platform, place: Place) -> None:
    place.documents, place.state = {"a.md": ("1", MIT + b"a"), "b.md": ("1", MIT + b"b")}, "s1"
    refresh(platform)
    before = identities(platform)
    place.documents = {"c.md": ("1", MIT + b"b"), "d.md": ("1", MIT + b"d")}
    place.moves = {"s1": {"d.md": "b.md", "c.md": "a.md"}}
    _, revision = refresh(platform)
    assert identities(platform)["c.md"] == before["b.md"]
    assert identities(platform)["d.md"] not in before.values()
    assert changes(revision) == {"renamed": 1, "added": 1, "deleted": 1}


# --- shards


def test_shards_keep_what_a_listing_offers(make_platform: Callable[..., Platform], tmp_path: Path) -> None:
    from tests.git_world import commit as commit_files
    from tests.git_world import make_repository

    text = "".join(f"Line {number} of a text that is long enough.\n" for number in range(30))
    make_repository(tmp_path / "repo", {f"{number}.md": f"{number} {text}" for number in range(8)})
    source = {"name": "docs", "kind": "git", "repository": str(tmp_path / "repo"), "shards": 2}
    platform = make_platform(**{"sources.yaml": {"sources": [source]}})
    for shard in ("docs.0", "docs.1"):
        refresh(platform, shard)
    before = identities(platform)
    assert len(before) == 8
    commit_files(tmp_path / "repo", {"0.md": None, "sub/0.md": f"0 {text}edited"})
    fetches = [refresh(platform, shard)[0].fetches for shard in ("docs.0", "docs.1")]
    assert sorted(fetches) == [0, 1]
    assert len(identities(platform)) == 8
