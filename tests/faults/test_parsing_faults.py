"""Files that cannot be read, parsers that break, and a process that dies: one document, or one batch, is the price."""

import gzip
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from assets.corpus import parse_cache
from assets.corpus.failures import ParseLimits
from assets.corpus.parse_pool import ParsePool
from assets.corpus.parsing import ParsedDocument
from resources.document_sources import LocalFolder
from resources.faults import CRASH_VARIABLE, PAUSE_VARIABLE
from resources.platform import Platform
from tests.corpus_support import changes, corpus_content, identities, quarantined, refresh, write
from tests.office_files import packed, paragraph, pdf, word


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    return tmp_path / "docs"


@pytest.fixture
def platform(make_platform: Callable[..., Platform]) -> Platform:
    return make_platform()


def test_files_of_every_bad_kind_end_in_quarantine_or_are_read(platform: Platform, docs: Path) -> None:
    write(
        docs,
        {
            "empty.md": b"",
            "blank.md": b" \n \n",
            "latin.md": "# Größe\n\nÄpfel".encode("latin-1"),
            "nul.md": b"# Title\x00\n\nwords\x00 here and there",
            "binary.md": bytes(range(256)) * 8,
            "broken.pdf": b"%PDF-1.7\nbroken",
            "broken.docx": b"PK\x03\x04broken",
            "folder.md/inside.md": b"# Inside",
            "unknown.xyz": b"?",
        },
    )
    refresh(platform)
    assert sorted(identities(platform)) == ["folder.md/inside.md", "latin.md", "nul.md"]
    assert quarantined(platform) == {
        "empty.md": "empty",
        "blank.md": "empty",
        "binary.md": "encoding",
        "broken.pdf": "damaged",
        "broken.docx": "damaged",
        "unknown.xyz": "unsupported",
    }
    with platform.database.connect() as connection:
        texts = dict(
            connection.execute(
                "SELECT path, text FROM document_version JOIN document_text USING (text_hash)"
            ).fetchall()
        )
    assert texts["latin.md"] == "# Größe\n\nÄpfel"
    assert texts["nul.md"] == "# Title\n\nwords here and there"


def test_failed_parsing_is_remembered_not_repeated(platform: Platform, docs: Path) -> None:
    write(docs, {"a.md": "# A", "broken.pdf": b"%PDF-1.7\nbroken"})
    refresh(platform)
    plan, _ = refresh(platform)
    assert plan.work.parses == 0
    assert quarantined(platform) == {"broken.pdf": "damaged"}


def test_a_raising_parser_costs_one_document_and_its_message_is_not_kept(
    platform: Platform, docs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parse = parse_cache.parse

    def poisoned(data: bytes, *arguments: Any) -> ParsedDocument:
        if b"poison" in data:
            raise RuntimeError(f"cannot digest {data!r}")
        return parse(data, *arguments)

    monkeypatch.setattr(parse_cache, "parse", poisoned)
    write(docs, {f"{number:03}.md": f"# Number {number}" for number in range(100)} | {"050.md": "# poison secret"})
    plan, revision = refresh(platform)
    assert (changes(revision), plan.work.failures) == ({"added": 99}, 1)
    with platform.database.connect() as connection:
        rows = connection.execute("SELECT path, code, reason FROM quarantine").fetchall()
    assert rows == [("050.md", "parse_failed", "the parser failed with RuntimeError")]


@pytest.mark.parametrize("poison", ["a\x00b", "lone \ud800 surrogate"])
def test_a_row_the_database_refuses_costs_one_document(
    platform: Platform, docs: Path, monkeypatch: pytest.MonkeyPatch, poison: str
) -> None:
    parse = parse_cache.parse

    def careless(data: bytes, *arguments: Any) -> ParsedDocument:
        return ParsedDocument(poison) if b"poison" in data else parse(data, *arguments)

    monkeypatch.setattr(parse_cache, "parse", careless)
    write(docs, {f"{number:03}.md": f"# Number {number}" for number in range(100)} | {"050.md": "# poison"})
    _, revision = refresh(platform)
    assert changes(revision) == {"added": 99}
    assert quarantined(platform) == {"050.md": "parse_failed"}


def test_a_file_that_vanishes_between_listing_and_reading_was_never_there(
    platform: Platform, docs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(docs, {"a.md": "# A", "b.md": "# B"})
    refresh(platform)
    list_folder = LocalFolder.list

    def list_then_delete(self: LocalFolder) -> Any:
        listing = list_folder(self)
        (docs / "a.md").unlink(missing_ok=True)
        return listing

    monkeypatch.setattr(LocalFolder, "list", list_then_delete)
    _, revision = refresh(platform)
    assert changes(revision) == {"deleted": 1}
    assert quarantined(platform) == {}


def test_an_unreadable_file_is_quarantined_and_comes_back(
    platform: Platform, docs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(docs, {"a.md": "# A", "b.md": "# B"})
    refresh(platform)
    before = identities(platform)
    open_file = os.open

    def locked(path: Any, *arguments: Any, **more: Any) -> int:
        if str(path).endswith("a.md"):
            raise PermissionError(13, "Permission denied")
        return open_file(path, *arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", locked)
        refresh(platform)
        assert quarantined(platform) == {"a.md": "unreadable"}
    refresh(platform)
    assert (identities(platform), quarantined(platform)) == (before, {})


def test_a_file_that_grows_over_the_limit_after_listing_is_refused(
    make_platform: Callable[..., Platform], docs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = make_platform(**{"policies/corpus.yaml": {"maximum_bytes": 100}})
    write(docs, {"a.md": "# A", "b.md": "# B"})
    list_folder = LocalFolder.list

    def list_then_grow(self: LocalFolder) -> Any:
        listing = list_folder(self)
        (docs / "a.md").write_text("x" * 1000)
        return listing

    monkeypatch.setattr(LocalFolder, "list", list_then_grow)
    refresh(platform)
    assert quarantined(platform) == {"a.md": "too_large"}


REFRESH = """
import sys
from pathlib import Path
import assets.corpus.refresh as refresh_module
from resources.config import load_config
from resources.platform import Platform
from resources.postgres import Database
from tests.corpus_support import refresh
refresh_module.BATCH_DOCUMENTS = 4
refresh(Platform(load_config(Path(sys.argv[1])), Database(sys.argv[2]), Path(sys.argv[1])), run_id="killed")
"""


@pytest.mark.parametrize(
    ("point", "kept"),
    [
        ("corpus.parsed_batch:2", 8),
        ("corpus.before_commit", 10),
        ("corpus.in_commit", 10),
        ("corpus.committed", 10),
    ],
)
def test_a_killed_refresh_leaves_the_old_state_or_the_new_and_loses_at_most_a_batch(
    platform: Platform, docs: Path, database_url: str, point: str, kept: int
) -> None:
    write(docs, {f"{number}.md": f"# Number {number}" for number in range(10)})
    killed = subprocess.run(
        [sys.executable, "-c", REFRESH, str(platform.config.data_dir), database_url],
        env={**os.environ, CRASH_VARIABLE: point},
        cwd=Path(__file__).resolve().parents[2],
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    committed = point == "corpus.committed"
    assert len(identities(platform)) == (10 if committed else 0)
    plan, revision = refresh(platform)
    assert plan.work.parses == 10 - kept
    assert revision.committed is not committed
    assert len(corpus_content(platform)[0]) == 10
    assert revision.revision == 1


# --- documents that break or stop their parser --------------------------------------------------------------


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """A pool of this test's own, so that its processes have this test's environment; call it for a fresh one."""
    made: list[ParsePool] = []

    def renew() -> None:
        made.append(ParsePool())
        monkeypatch.setattr(parse_cache, "shared_pool", lambda: made[-1])

    renew()
    yield renew
    for item in made:
        item.close()


def _limits(monkeypatch: pytest.MonkeyPatch, seconds: float = 60.0, memory: int = 2 << 30) -> None:
    monkeypatch.setattr(parse_cache, "limits_of", lambda *_: ParseLimits(seconds, memory))


def test_a_document_that_takes_too_long_is_tried_again_only_under_a_higher_limit(
    platform: Platform, docs: Path, monkeypatch: pytest.MonkeyPatch, pool: Callable[[], None]
) -> None:
    write(docs, {"a.md": "# A", "slow.html": "<p>slow words</p>"})
    monkeypatch.setenv(PAUSE_VARIABLE, "corpus.parsing:30")
    _limits(monkeypatch, seconds=0.3)
    plan, revision = refresh(platform)
    assert (changes(revision), plan.work.failures) == ({"added": 1}, 1)
    assert quarantined(platform) == {"slow.html": "timeout"}
    for seconds in (0.3, 0.2):
        _limits(monkeypatch, seconds=seconds)
        plan, _ = refresh(platform)
        assert plan.work.parses == 0
    _limits(monkeypatch, seconds=0.4)
    plan, _ = refresh(platform)
    assert plan.work.parses == 1
    monkeypatch.delenv(PAUSE_VARIABLE)
    pool()
    plan, _ = refresh(platform)
    assert plan.work.parses == 0
    _limits(monkeypatch, seconds=20.0)
    _, revision = refresh(platform)
    assert changes(revision) == {"added": 1}
    assert quarantined(platform) == {}


def test_a_document_that_takes_too_much_memory_is_tried_again_only_under_a_higher_limit(
    platform: Platform, docs: Path, monkeypatch: pytest.MonkeyPatch, pool: Callable[[], None]
) -> None:
    write(docs, {"a.md": "# A", "deep.xml": "<a>" * 100_000 + "x" + "</a>" * 100_000})
    _limits(monkeypatch, memory=400 << 20)
    refresh(platform)
    assert quarantined(platform) == {"deep.xml": "memory"}
    plan, _ = refresh(platform)
    assert plan.work.parses == 0
    _limits(monkeypatch, memory=500 << 20)
    plan, _ = refresh(platform)
    assert plan.work.parses == 1


def test_a_parser_killed_from_outside_costs_one_refresh(
    platform: Platform, docs: Path, monkeypatch: pytest.MonkeyPatch, pool: Callable[[], None]
) -> None:
    write(docs, {"a.md": "# A", "b.html": "<p>words</p>"})
    monkeypatch.setenv(CRASH_VARIABLE, "corpus.parsing")
    _, revision = refresh(platform)
    assert changes(revision) == {"added": 1}
    assert quarantined(platform) == {"b.html": "crashed"}
    monkeypatch.delenv(CRASH_VARIABLE)
    pool()
    _, revision = refresh(platform)
    assert changes(revision) == {"added": 1}
    assert quarantined(platform) == {}


def test_bombs_and_scans_end_in_quarantine_with_their_reason(platform: Platform, docs: Path) -> None:
    zeros = bytes(80_000_000)
    write(
        docs,
        {
            "bomb.docx": packed({"word/document.xml": zeros, "_rels/.rels": b"<x/>"}),
            "bomb.txt.gz": gzip.compress(zeros, 9),
            "escape.xlsx": packed({"../../evil": b"x"}),
            "scan.pdf": pdf([None]),
            "fine.docx": word(paragraph("Words")),
            "fine.txt.gz": gzip.compress(b"packed words"),
        },
    )
    refresh(platform)
    assert quarantined(platform) == {
        "bomb.docx": "too_large_inside",
        "bomb.txt.gz": "too_large_inside",
        "escape.xlsx": "unsafe_archive",
        "scan.pdf": "no_text",
    }
    assert sorted(identities(platform)) == ["fine.docx", "fine.txt.gz"]


def test_where_nothing_needs_it_no_parser_process_is_started(
    platform: Platform, docs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never() -> ParsePool:
        raise AssertionError("a pool was asked for")

    monkeypatch.setattr(parse_cache, "shared_pool", never)
    write(docs, {"a.md": "# A", "b.txt": "b", "c.rst": "c\n=\n", "d.csv": "e,f\n1,2\n"})
    _, revision = refresh(platform)
    assert changes(revision) == {"added": 4}


def test_results_are_the_same_whatever_process_made_them(make_platform: Callable[..., Platform], docs: Path) -> None:
    files = {f"{number:02}.html": f"<h1>Page {number}</h1><p>words</p>" for number in range(40)}
    platform = make_platform()
    write(docs, files)
    refresh(platform)
    with platform.database.connect() as connection:
        rows = connection.execute(
            "SELECT path, text FROM document_version JOIN document_text USING (text_hash) ORDER BY path"
        ).fetchall()
    assert rows == [(f"{number:02}.html", f"# Page {number}\n\nwords") for number in range(40)]


def test_a_file_of_500_megabytes_is_refused_before_it_is_read(platform: Platform, docs: Path) -> None:
    write(docs, {"a.md": "# A", "huge.txt": b""})
    with (docs / "huge.txt").open("wb") as file:
        file.truncate(500_000_000)
    plan, revision = refresh(platform)
    assert changes(revision) == {"added": 1}
    assert quarantined(platform) == {"huge.txt": "too_large"}
    assert plan.bytes_read == 3
