"""Retention of a source: documents that are older than it keeps leave, by the database's clock and within the gate."""

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from assets.corpus.checks import corpus_checks, volume_drop
from assets.corpus.quarantine import release
from assets.outcomes import blocked
from resources.platform import Platform
from tests.corpus_support import changes, identities, quarantined, refresh, write

NOW = datetime.now(UTC)


def aged(folder: Path, path: str, days: int, text: str = "") -> None:
    """Write a file that was last changed so many days ago."""
    write(folder, {path: text or f"# Document {path}\n\nSome words about {path}.\n"})
    at = (NOW - timedelta(days=days)).timestamp()
    os.utime(folder / path, (at, at))


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    return tmp_path / "docs"


@pytest.fixture
def make(make_platform: Callable[..., Platform], docs: Path) -> Callable[..., Platform]:
    def build(**settings: Any) -> Platform:
        return make_platform(**{"sources.yaml": {"sources": [{"name": "docs", "path": str(docs), **settings}]}})

    return build


def outcome_of(plan: Any, platform: Platform) -> list[str]:
    return [item.name for item in blocked(corpus_checks(plan, platform.config.policies, evidence_stands=False))]


def test_old_documents_leave_and_say_why(make: Callable[..., Platform], docs: Path) -> None:
    for number in range(8):
        aged(docs, f"{number}.md", 10)
    aged(docs, "old.md", 99)
    refresh(make())
    platform = make(keep_days=30)
    aged(docs, "never.md", 50)
    plan, revision = refresh(platform)
    assert (changes(revision), revision.counts["withdrawn"]) == ({"deleted": 1}, 1)
    assert quarantined(platform) == {"old.md": "expired", "never.md": "expired"}
    assert plan.expired == 1, "never.md was no document"
    assert outcome_of(plan, platform) == [], "leaving by age is no trouble"
    with platform.database.connect() as connection:
        row = connection.execute("SELECT reason, content_hash FROM quarantine WHERE path = 'old.md'").fetchone()
    assert row == (f"last changed on {NOW - timedelta(days=99):%Y-%m-%d}; the source keeps less (keep_days)", None)


def test_what_a_document_says_of_itself_counts_although_its_copy_is_new(
    make: Callable[..., Platform], docs: Path
) -> None:
    old = (NOW - timedelta(days=400)).date().isoformat()
    aged(docs, "a.md", 1, f"---\nupdated: {old}\n---\n# Old\n\nWords.\n")
    aged(docs, "b.md", 1, "# New\n\nOther words.\n")
    refresh(make())
    platform = make(keep_days=365)
    refresh(platform)
    assert list(identities(platform)) == ["b.md"]
    assert quarantined(platform) == {"a.md": "expired"}


def test_a_document_without_any_time_and_one_from_the_future_stay(make: Callable[..., Platform], docs: Path) -> None:
    from assets.corpus.quarantine import judge_age

    assert judge_age("a.md", [None, None], NOW) is None
    aged(docs, "future.md", -999)
    platform = make(keep_days=30)
    refresh(platform)
    assert list(identities(platform)) == ["future.md"]


def test_a_changed_document_returns_as_itself(make: Callable[..., Platform], docs: Path) -> None:
    aged(docs, "a.md", 99)
    aged(docs, "b.md", 1)
    refresh(make())
    before = identities(make())
    platform = make(keep_days=30)
    refresh(platform)
    aged(docs, "a.md", 0, "# Document a.md\n\nRevised.\n")
    refresh(platform)
    assert identities(platform) == before


def test_a_legal_hold_keeps_a_document(make: Callable[..., Platform], docs: Path) -> None:
    aged(docs, "a.md", 99)
    aged(docs, "b.md", 1)
    platform = make(keep_days=30)
    refresh(platform)
    with platform.database.connect() as connection:
        release(connection, "docs", "a.md", by="ada")
    for _ in range(2):
        refresh(platform)
        assert sorted(identities(platform)) == ["a.md", "b.md"]


def test_a_wrong_clock_empties_nothing(
    make: Callable[..., Platform], docs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database's clock decides, not this machine's; and if that one is wrong, the gate holds."""
    for number in range(10):
        aged(docs, f"{number}.md", 5)
    platform = make(keep_days=30)
    refresh(platform)
    plan, revision = refresh(platform)
    assert changes(revision) == {}

    from assets.corpus import refresh as module

    monkeypatch.setattr(module, "_oldest", lambda connection, days: NOW + timedelta(days=365))
    with platform.database.lease("source:docs", "run") as lease:
        plan = module.plan_refresh(platform, "docs", "run", lease)
    assert plan.expired == 10
    assert "volume_drop" in outcome_of(plan, platform)


@pytest.mark.parametrize(
    ("before", "after", "expired", "passed"),
    [(100, 50, 25, True), (100, 45, 25, True), (100, 44, 25, False), (100, 60, 40, False), (100, 70, 30, True),
     (0, 0, 0, True)],
)  # fmt: skip
def test_losses_and_age_are_judged_apart(before: int, after: int, expired: int, passed: bool) -> None:
    assert volume_drop(before, after, 0.3, expired=expired).passed is passed


def test_a_source_whose_documents_are_all_old_may_be_empty(make: Callable[..., Platform], docs: Path) -> None:
    aged(docs, "a.md", 99)
    platform = make(keep_days=30)
    plan, _ = refresh(platform)
    assert outcome_of(plan, platform) == []


def test_a_source_without_documents_for_no_reason_is_not(make: Callable[..., Platform], docs: Path) -> None:
    write(docs, {"photo.png": b"\x89PNG"})
    platform = make()
    plan, _ = refresh(platform)
    assert outcome_of(plan, platform) == ["documents_suite"]
