"""Parsing one batch while the one before is stored: nothing is parsed twice, lost, or kept that should not be."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from assets.background import in_background
from assets.corpus import parse_cache
from assets.corpus.refresh import plan_refresh
from resources.platform import Platform
from tests.corpus_support import corpus_content, refresh, write


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    return tmp_path / "docs"


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The bytes that were parsed, in order; batches are of two documents."""
    monkeypatch.setattr("assets.corpus.refresh.BATCH_DOCUMENTS", 2)
    seen: list[bytes] = []
    parse = parse_cache.parse

    def watched(data: bytes, *arguments: object) -> object:
        seen.append(data)
        return parse(data, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(parse_cache, "parse", watched)
    return seen


def test_equal_documents_of_neighbouring_batches_are_parsed_once(
    make_platform: Callable[..., Platform], docs: Path, parsed: list[bytes]
) -> None:
    platform = make_platform()
    write(docs, {f"{name}.md": f"# {title}" for name, title in zip("abcdefgh", "XYXYZXZZ", strict=True)})
    plan, _ = refresh(platform)
    assert sorted(parsed) == [b"# X", b"# Y", b"# Z"]
    assert (plan.work.parses, len(plan.planned)) == (3, 8)
    assert [document[4] for document in corpus_content(platform)[0]] == [f"# {title}" for title in "XYXYZXZZ"]


def test_what_an_interrupted_refresh_stored_is_not_parsed_again(
    make_platform: Callable[..., Platform], docs: Path, parsed: list[bytes]
) -> None:
    platform = make_platform()
    write(docs, {f"{number}.md": f"# Page {number}" for number in range(7)})
    with platform.database.lease("source:docs", "first") as lease:
        plan_refresh(platform, "docs", "first", lease)  # never committed
    assert len(parsed) == 7
    plan, revision = refresh(platform)
    assert (len(parsed), plan.work.parses, revision.counts["added"]) == (7, 0, 7)


def test_a_failure_to_store_stops_the_refresh_and_what_was_parsed_ahead_is_dropped(
    make_platform: Callable[..., Platform], docs: Path, parsed: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = make_platform()
    write(docs, {f"{number}.md": f"# Page {number}" for number in range(8)})
    store, calls = parse_cache.store, []

    def failing(*arguments: object) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise OSError("the disk is gone")
        store(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(parse_cache, "store", failing)
    with pytest.raises(OSError, match="the disk is gone"):
        refresh(platform)
    monkeypatch.setattr(parse_cache, "store", store)
    with platform.database.connect() as connection:
        assert connection.execute("SELECT count(*) FROM parse_result").fetchone() == (2,)
    plan, _ = refresh(platform)
    assert (plan.work.parses, len(plan.planned)) == (6, 8)


def test_a_parser_that_runs_out_of_memory_is_heard_of(
    make_platform: Callable[..., Platform], docs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = make_platform()
    write(docs, {"a.md": "# A"})

    def hungry(*arguments: object) -> None:
        raise MemoryError

    monkeypatch.setattr(parse_cache, "parse", hungry)
    with pytest.raises(MemoryError):
        refresh(platform)


def test_background_work_has_a_result_or_an_exception_and_keeps_nobody() -> None:
    assert in_background(lambda: threading.current_thread().daemon).result(5)

    def fail() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        in_background(fail).result(5)
