"""Ten thousand tiny files, and one of 500 MB: every file ends in the corpus or in quarantine, and memory is bounded."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from resources.platform import Platform
from resources.sources import folder as folder_source
from tests import corpus_support

FILES = 10_000
LARGE = 500_000_000
MEGABYTE = 1_000_000


class Peak:
    """The most resident memory of this process and its children, beyond what they had at the begin, in bytes."""

    def __init__(self) -> None:
        self.process = psutil.Process()
        self.begin = self.most = self.now()

    def now(self) -> int:
        total = 0
        for process in (self.process, *self.process.children(recursive=True)):
            try:
                # private memory counts once however many processes share the rest
                total += process.memory_info().rss - (process.memory_info().shared if process != self.process else 0)
            except psutil.NoSuchProcess:
                continue
        return total

    @property
    def growth(self) -> int:
        return self.most - self.begin


@contextmanager
def watched() -> Iterator[Peak]:
    """Sample memory every 20 ms while the block runs."""
    peak, done = Peak(), threading.Event()

    def sample() -> None:
        while not done.wait(0.02):
            peak.most = max(peak.most, peak.now())

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()
        peak.most = max(peak.most, peak.now())


def tiny(number: int) -> str:
    return f"# Note {number}\n\nBox {number} of shelf {number % 97} holds {number * 7} screws.\n"


@pytest.mark.slow
def test_ten_thousand_tiny_files_enter_and_cost_only_what_changes(
    make_platform: Callable[..., Platform], tmp_path: Path
) -> None:
    platform = make_platform()
    docs = tmp_path / "docs"
    corpus_support.write(docs, {"warm.md": "# Warm\n\nWhat is loaded once is loaded now.\n"})
    corpus_support.refresh(platform)
    corpus_support.write(docs, {f"shelf{n % 97}/note{n}.md": tiny(n) for n in range(FILES)})
    with watched() as first:
        plan, revision = corpus_support.refresh(platform)
    assert corpus_support.changes(revision) == {"added": FILES}
    assert (plan.work.parses, plan.listed, plan.quarantined) == (FILES, FILES + 1, ())
    identities = corpus_support.identities(platform)
    assert len(set(identities.values())) == len(identities) == FILES + 1
    assert first.growth < 400 * MEGABYTE, f"{first.growth / MEGABYTE:.0f} MB"

    edits: dict[str, str | bytes | None] = {
        "shelf0/note0.md": "# Note 0\n\nEmptied.\n",
        "shelf1/note1.md": None,
        "shelf2/note2.md": None,
        "moved/note2.md": tiny(2),
    }
    corpus_support.write(docs, edits)
    with watched() as second:
        plan, revision = corpus_support.refresh(platform)
    assert corpus_support.changes(revision) == {"changed": 1, "renamed": 1, "deleted": 1}
    assert (plan.work.parses, len(plan.unchanged), plan.fetches) == (1, FILES - 2, FILES)
    assert corpus_support.identities(platform)["moved/note2.md"] == identities["shelf2/note2.md"]
    assert second.growth < 200 * MEGABYTE, f"{second.growth / MEGABYTE:.0f} MB"


@pytest.mark.slow
def test_a_file_of_500_megabytes_is_refused_without_being_read(
    make_platform: Callable[..., Platform], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = make_platform()
    docs = tmp_path / "docs"
    corpus_support.write(docs, {"small.md": "# Small\n\nFits.\n", "grows.md": "# Grows\n\nStill fits.\n"})
    corpus_support.refresh(platform)
    with (docs / "large.md").open("wb") as file:
        file.truncate(LARGE)  # takes no place on the disk, and 500 MB of memory if it were read
    entry = folder_source._entry

    def listed_before_it_grew(path: str, file: Path, status: os.stat_result, root: Path) -> Any:
        made = entry(path, file, status, root)
        if path == "grows.md":
            os.truncate(file, LARGE)
        return made

    with watched() as peak:
        plan, _ = corpus_support.refresh(platform)
    assert corpus_support.quarantined(platform) == {"large.md": "too_large"}
    assert plan.bytes_read < 1000
    assert sorted(corpus_support.identities(platform)) == ["grows.md", "small.md"]
    assert peak.growth < 100 * MEGABYTE, f"{peak.growth / MEGABYTE:.0f} MB"

    # the size that was listed is believed by nobody
    monkeypatch.setattr(folder_source, "_entry", listed_before_it_grew)
    with watched() as peak:
        plan, _ = corpus_support.refresh(platform)
    assert corpus_support.quarantined(platform) == {"large.md": "too_large", "grows.md": "too_large"}
    assert plan.bytes_read < 1000
    assert peak.growth < 100 * MEGABYTE, f"{peak.growth / MEGABYTE:.0f} MB"
    for name in ("large.md", "grows.md"):
        (docs / name).unlink()
