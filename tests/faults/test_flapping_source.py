"""A folder that comes and goes, and clocks that lie: no document is lost by it, and no edit overlooked."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest

from resources.errors import TransientError
from resources.platform import Platform
from resources.postgres import Database
from resources.sources import folder as folder_source
from tests import corpus_support
from tests.lifecycle import corpus_state, found, index_state, refresh

QUESTIONS = ["How often is part 3 oiled?", "the new lamp"]
FULL: dict[str, str | bytes | None] = {
    f"{'deep' if number % 2 else 'flat'}/part{number}.md": f"# Part {number}\n\nPart {number} is oiled every {number}0 km.\n"
    for number in range(10)
}


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


class Flapping:
    """A folder of which some or all can be taken away, and what it should hold."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.away, self.monkeypatch = folder, folder.with_name("away"), monkeypatch
        corpus_support.write(folder, FULL)

    def take(self, how: str) -> None:
        if how == "missing":
            self.folder.rename(self.away)
        elif how == "empty":
            self.folder.rename(self.away)
            self.folder.mkdir()
        elif how == "half":
            self.folder.rename(self.away)
            shutil.copytree(self.away / "flat", self.folder / "flat")
        elif how == "unlistable":
            real = os.scandir

            def scan(path: Path) -> "os._ScandirIterator[str]":
                if Path(path).name == "deep":
                    raise OSError(5, "Input/output error")
                return real(path)

            self.monkeypatch.setattr(folder_source.os, "scandir", scan)

    def give_back(self) -> None:
        self.monkeypatch.undo()
        if self.away.exists():
            shutil.rmtree(self.folder, ignore_errors=True)
            self.away.rename(self.folder)


def revisions(platform: Platform) -> int:
    with platform.database.connect() as connection:
        row = connection.execute("SELECT count(*) FROM source_revision").fetchone()
    assert row is not None
    return row[0]


@pytest.mark.slow
def test_a_source_that_flaps_over_twenty_refreshes_loses_nothing(
    make_platform: Callable[..., Platform],
    make_database: Callable[[], Database],
    instance: dg.DagsterInstance,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    platform = make_platform()
    folder = Flapping(tmp_path / "docs", monkeypatch)
    refresh(platform, "docs", instance)
    expected, identities, edits = corpus_state(platform), corpus_support.identities(platform), 0
    for number, how in enumerate(
        ("empty", "full", "missing", "half", "full", "unlistable", "half", "empty", "full") * 2
    ):
        if how == "full":
            # an honest edit gets through between two failures
            edits += 1
            corpus_support.write(
                folder.folder,
                {
                    "flat/part0.md": f"# Part 0\n\nEdit {number}.\n",
                    f"new{number}.md": f"# New {number}\n\nA new lamp.\n",
                },
            )
            work = refresh(platform, "docs", instance)
            assert (work["raw_documents"]["added"], work["raw_documents"]["changed"]) == (1, 1)
            assert work["raw_documents"]["deleted"] == 0
            assert corpus_state(platform) != expected
            expected = corpus_state(platform)
            continue
        folder.take(how)
        shown = found(platform, "main", QUESTIONS)
        if how == "unlistable":
            # the step would wait for its retry, so this is asked of what it calls
            with pytest.raises(TransientError, match="deep cannot be listed"):
                corpus_support.refresh(platform)
        else:
            refresh(platform, "docs", instance, raise_on_error=False)
        folder.give_back()
        assert corpus_state(platform) == expected, f"refresh {number} ({how}) changed the corpus"
        assert found(platform, "main", QUESTIONS) == shown
        assert revisions(platform) == 1 + edits
    now = corpus_support.identities(platform)
    assert {path: now[path] for path in identities} == identities
    refresh(platform, "docs", instance)
    fresh = Platform(platform.config, make_database(), tmp_path / "fresh")
    refresh(fresh, "docs", instance)
    assert len(corpus_state(platform)) == len(FULL) + edits
    assert corpus_state(platform) == corpus_state(fresh)
    assert index_state(platform, "main") == index_state(fresh, "main")
    assert found(platform, "main", QUESTIONS) == found(fresh, "main", QUESTIONS)


# seconds of the epoch: before it, its begin, the day before the first refresh, far ahead
@pytest.mark.parametrize("moment", [-86_400, 0, 1_000_000_000, 4_000_000_000])
def test_an_edit_is_found_whatever_the_clock_says(
    make_platform: Callable[..., Platform], tmp_path: Path, moment: int
) -> None:
    platform = make_platform()
    docs = tmp_path / "docs"
    corpus_support.write(docs, {"a.md": "# A\n\nThe lamp is red.\n", "b.md": "# B\n\nStays as it is.\n"})
    corpus_support.refresh(platform)
    corpus_support.write(docs, {"a.md": "# A\n\nThe lamp is blue.\n"})
    os.utime(docs / "a.md", (moment, moment))
    plan, revision = corpus_support.refresh(platform)
    assert corpus_support.changes(revision) == {"changed": 1}
    # touched, but not edited: in whichever direction the clock went, nothing changed
    for other in (moment + 86_400, moment - 86_400):
        for name in ("a.md", "b.md"):
            os.utime(docs / name, (other, other))
        plan, revision = corpus_support.refresh(platform)
        assert (plan.changes, revision.revision) == (False, 2)


@pytest.mark.slow
def test_an_edit_that_keeps_size_and_time_is_found_in_every_stage(
    make_platform: Callable[..., Platform],
    make_database: Callable[[], Database],
    instance: dg.DagsterInstance,
    tmp_path: Path,
) -> None:
    platform = make_platform()
    docs = tmp_path / "docs"
    corpus_support.write(docs, {"a.md": "# A\n\nThe lamp is red.\n", "b.md": "# B\n\nThe bell is old.\n"})
    refresh(platform, "docs", instance)
    before = (docs / "a.md").stat()
    corpus_support.write(docs, {"a.md": "# A\n\nThe lamp is dim.\n"})
    os.utime(docs / "a.md", ns=(before.st_atime_ns, before.st_mtime_ns))
    after = (docs / "a.md").stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    work = refresh(platform, "docs", instance)
    assert (work["raw_documents"]["changed"], work["raw_documents"]["parsed"]) == (1, 1)
    # two files change places: sizes and times are those of the listing before, path by path
    first, second = ((docs / name).read_bytes() for name in ("a.md", "b.md"))
    times = [(docs / name).stat().st_mtime_ns for name in ("a.md", "b.md")]
    assert len(first) == len(second)
    corpus_support.write(docs, {"a.md": second, "b.md": first})
    for name, moment in zip(("a.md", "b.md"), times, strict=True):
        os.utime(docs / name, ns=(moment, moment))
    work = refresh(platform, "docs", instance)
    assert (work["raw_documents"]["changed"], work["raw_documents"]["parsed"]) == (2, 0)
    fresh = Platform(platform.config, make_database(), tmp_path / "fresh")
    refresh(fresh, "docs", instance)
    assert corpus_state(platform) == corpus_state(fresh)
    assert index_state(platform, "main") == index_state(fresh, "main")
    assert found(platform, "main", QUESTIONS) == found(fresh, "main", QUESTIONS)
