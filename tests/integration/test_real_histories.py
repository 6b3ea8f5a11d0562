"""Real edit histories replayed: the incremental state equals a fresh build, and work follows the change."""

from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest

from resources.platform import Platform
from resources.postgres import Database
from tests.histories import apply, start
from tests.lifecycle import corpus_state, found, index_state, refresh

QUESTIONS = [
    "How does ownership work?",
    "What is a trait object?",
    "cargo new project layout",
    "Why does the borrow checker reject a mutable reference?",
    "channel to send messages between threads",
    "What does the question mark operator do with errors?",
]
SINGLE_STEPS = 40
BIG_STEP = 22


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.mark.slow
def test_rust_book_replayed_equals_a_fresh_build(
    shared_data: Path,
    tmp_path: Path,
    make_platform: Callable[..., Platform],
    make_database: Callable[[], Database],
    instance: dg.DagsterInstance,
) -> None:
    folder = tmp_path / "docs"
    steps = start(shared_data / "rust-book-history", folder)
    platform = make_platform(**{"policies/index.yaml": {"keep_snapshots": 20, "keep_days": 0}})
    work = [refresh(platform, "docs", instance)]
    answers: dict[int, list[list[tuple[object, ...]]]] = {}

    for position, step in enumerate(steps):
        apply(step, folder)
        if position < SINGLE_STEPS or (position - SINGLE_STEPS) % BIG_STEP == BIG_STEP - 1 or step is steps[-1]:
            work.append(refresh(platform, "docs", instance))
            head = _head(platform)
            answers[head] = found(platform, "main", QUESTIONS[:2], head)
        if position < SINGLE_STEPS:
            counts, changed = work[-1]["raw_documents"], len(step.changes)
            assert counts["parsed"] <= changed, (
                f"step {step.number} parsed {counts['parsed']} documents for {changed} changes"
            )
            assert work[-1]["chunks"]["texts_chunked"] <= changed

    fresh = Platform(platform.config, make_database(), tmp_path / "fresh")
    refresh(fresh, "docs", instance)
    assert corpus_state(platform) == corpus_state(fresh)
    assert index_state(platform, "main") == index_state(fresh, "main")
    assert found(platform, "main", QUESTIONS) == found(fresh, "main", QUESTIONS)

    with platform.database.connect() as connection:
        (distinct,) = connection.execute("SELECT count(*) FROM embedding").fetchone() or (0,)
    assert sum(item["embeddings"]["computed"] for item in work) == distinct, "a text was embedded twice"

    for snapshot, then in answers.items():
        assert found(platform, "main", QUESTIONS[:2], snapshot) == then, f"snapshot {snapshot} changed after the fact"


@pytest.mark.slow
def test_rust_book_retained_snapshots_survive_retention(
    shared_data: Path, tmp_path: Path, make_platform: Callable[..., Platform], instance: dg.DagsterInstance
) -> None:
    from assets.index.retention import apply_retention
    from resources.errors import SnapshotNotFoundError

    folder = tmp_path / "docs"
    steps = start(shared_data / "rust-book-history", folder)
    platform = make_platform(**{"policies/index.yaml": {"keep_snapshots": 3, "keep_days": 0}})
    refresh(platform, "docs", instance)
    shown = {}
    for step in steps[:12]:
        apply(step, folder)
        refresh(platform, "docs", instance)
        head = _head(platform)
        shown[head] = index_state(platform, "main", head)
    apply_retention(platform)
    retained = sorted(shown)[-3:]
    for snapshot in retained:
        assert index_state(platform, "main", snapshot) == shown[snapshot]
        assert found(platform, "main", QUESTIONS[:1], snapshot)[0]
    with pytest.raises(SnapshotNotFoundError):
        found(platform, "main", QUESTIONS[:1], sorted(shown)[0])


def _head(platform: Platform) -> int:
    with platform.database.connect() as connection:
        row = connection.execute("SELECT head FROM index_state WHERE index_name = 'main'").fetchone()
    assert row is not None
    return row[0]
