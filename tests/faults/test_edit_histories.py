"""Any history of edits, refreshes and rollbacks ends where a fresh build starts, and old snapshots keep their answers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from assets.chunks.chunking import chunk_source
from assets.index import staging
from assets.index.audit import audit
from assets.index.embedding import embed_source
from assets.index.publishing import roll_forward, rollback
from assets.index.refreshing import IndexRefresh, refresh_index
from resources.config import load_config
from resources.platform import Platform
from resources.postgres import Database
from tests import corpus_support
from tests.lifecycle import corpus_state, found, index_state

SOURCES = ("docs", "wiki")
#: Two names occur in several folders: a rename may be a move, and a deleted path comes back with other content.
PATHS = ("a.md", "b.md", "c.md", "sub/a.md", "sub/b.md", "other/a.md")
QUESTIONS = ["How often is the chain oiled?", "pads of the brake and the bell"]
#: Short texts, two of which share most words, so that results tie; two of more than one chunk.
TEXTS = (
    "# Chain\n\nOil the chain every 250 km.\n",
    "# Chain\n\nOil the chain every 300 km.\n",
    "# Brakes\n\nThe pads of the brake last about 3,000 km.\n\n## Bleeding\n\nBleed the brake once a year.\n",
    "# Bell\n\nThe bell rings at 90 dB.\n",
    "Plain words about a bell, a brake and a chain.\n",
    "# Wheel\n\n" + "\n\n".join(f"Spoke {number} of the wheel is held by its nipple." for number in range(12)) + "\n",
    "# Saddle\n\nHeight: inseam times 0.883.\n\n# Saddle\n\nHeight: inseam times 0.883.\n",
)

Edit = tuple[Literal["put", "delete", "move", "copy", "refresh", "rollback", "forward"], int, int, int]


def _edits() -> st.SearchStrategy[list[Edit]]:
    number = st.integers(0, 59)
    # puts and refreshes more often than the others: a history should have something to lose, and publish it
    kinds = st.sampled_from(
        ("put", "put", "put", "move", "move", "copy", "delete", "refresh", "refresh", "refresh", "rollback", "forward")
    )
    return st.lists(st.tuples(kinds, number, number, number), min_size=12, max_size=20)


class History:
    """Two folders, the platform that follows them, and what each snapshot answered when it was published."""

    def __init__(self, platform: Platform, folders: dict[str, Path]) -> None:
        self.platform = platform
        self.folders = folders
        self.holds: dict[str, dict[str, str]] = {source: {} for source in SOURCES}
        self.answers: dict[int, Any] = {}
        self.rows: dict[int, Any] = {}
        self.held: int | None = None

    def apply(self, edit: Edit) -> None:
        kind, first, second, third = edit
        source, other = SOURCES[first % 2], SOURCES[second % 2]
        path = PATHS[third % len(PATHS)]
        present = sorted(self.holds[source])
        if kind == "put":
            self.write(source, path, TEXTS[second % len(TEXTS)])
        elif kind == "refresh":
            self.refresh(source)
        elif kind == "rollback":
            self.rollback(first)
        elif kind == "forward":
            self.forward()
        elif present:
            old = present[third % len(present)]
            text = self.holds[source][old]
            if kind != "copy":
                self.remove(source, old)
            if kind != "delete":
                self.write(other, PATHS[first % len(PATHS)], text)

    def write(self, source: str, path: str, text: str) -> None:
        corpus_support.write(self.folders[source], {path: text})
        self.holds[source][path] = text

    def remove(self, source: str, path: str) -> None:
        corpus_support.write(self.folders[source], {path: None})
        del self.holds[source][path]

    def refresh(self, source: str) -> None:
        """Refresh one source; a published snapshot is noted, and a second refresh has nothing to do."""
        done = refresh_source(self.platform, source)
        assert not done.failed, [done.error, done.outcomes]
        if done.publication is not None:
            assert done.publication.serving == (self.held or done.publication.snapshot)
            self.note(done.publication.snapshot)
        plan, revision = corpus_support.refresh(self.platform, source)
        assert (plan.changes, plan.work.parses, revision.committed) == (False, 0, False)
        again = refresh_index(self.platform, "main", source, "again")
        assert again.publication is None
        self.look()

    def note(self, snapshot: int) -> None:
        self.answers[snapshot] = found(self.platform, "main", QUESTIONS, snapshot)
        self.rows[snapshot] = index_state(self.platform, "main", snapshot)

    def rollback(self, number: int) -> None:
        if self.answers:
            to = sorted(self.answers)[number % len(self.answers)]
            self.held = rollback(self.platform.database, "main", to=to, by="somebody", reason="a test")
            self.look()

    def forward(self) -> None:
        if self.answers:
            assert roll_forward(self.platform.database, "main", "somebody") == max(self.answers)
            self.held = None
            self.look()

    def look(self) -> None:
        """Readers get what the served snapshot answered when it was published."""
        if self.answers:
            assert found(self.platform, "main", QUESTIONS) == self.answers[self.held or max(self.answers)]


def refresh_source(platform: Platform, source: str) -> IndexRefresh:
    """All stages of one source, without the gates on how much of a source may change at once."""
    corpus_support.refresh(platform, source)
    chunk_source(platform, source)
    embed_source(platform, source, "run")
    return refresh_index(platform, "main", source, "run")


# rebuild_share 0: every change of rows is loaded as a new build; 1: most are a delta on the build before
@pytest.mark.slow
@settings(
    max_examples=12,
    phases=[Phase.generate, Phase.shrink],
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(rebuild_share=st.sampled_from((1.0, 0.3, 0.0)), edits=_edits())
def test_any_history_ends_in_the_state_of_a_fresh_build(
    make_data_dir: Callable[..., Path],
    make_database: Callable[[], Database],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    rebuild_share: float,
    edits: list[Edit],
) -> None:
    monkeypatch.setattr(staging, "REBUILD_MINIMUM_ROWS", 0)  # else a small index never gets a second build
    root = tmp_path_factory.mktemp("history")
    folders = {source: root / source for source in SOURCES}
    files = {
        "sources.yaml": {"sources": [{"name": name, "path": str(folder)} for name, folder in folders.items()]},
        "policies/index.yaml": {"rebuild_share": rebuild_share},
    }
    for folder in folders.values():
        folder.mkdir()
    config = load_config(make_data_dir(**files))
    history = History(Platform(config, make_database(), root / "artifacts"), folders)
    history.write("docs", "first.md", "# First\n\nWhat is always there.\n")
    for edit in edits:
        history.apply(edit)
    for source in SOURCES:
        history.refresh(source)
    history.forward()

    fresh = Platform(config, make_database(), root / "fresh")
    for source in SOURCES:
        assert not refresh_source(fresh, source).failed
    platform = history.platform
    live = {(source, path) for source, files in history.holds.items() for path in files}
    assert {row[:2] for row in corpus_state(platform)} == live
    assert corpus_support.corpus_content(platform) == corpus_support.corpus_content(fresh)
    assert index_state(platform, "main") == index_state(fresh, "main")
    assert found(platform, "main", QUESTIONS) == found(fresh, "main", QUESTIONS)
    assert {snapshot: found(platform, "main", QUESTIONS, snapshot) for snapshot in history.answers} == history.answers
    assert {snapshot: index_state(platform, "main", snapshot) for snapshot in history.rows} == history.rows
    assert audit(platform, "main") == []
    for finished in (platform.database, fresh.database):
        finished.close()
