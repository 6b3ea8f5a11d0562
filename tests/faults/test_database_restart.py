"""The database goes away in the middle: the run fails as transient, nothing half-done shows, the next run completes it.

A loss between two transactions costs nothing but the lease's session: the run goes on, unless another took its place.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from assets.chunks import chunking
from assets.chunks.chunking import chunk_source
from assets.corpus import parse_cache
from assets.corpus import refresh as corpus
from assets.index import embedding, publishing, refreshing, staging
from assets.index.audit import audit
from assets.index.embedding import embed_source
from assets.index.refreshing import refresh_index
from resources.errors import StaleLeaseError, TransientError
from resources.platform import Platform
from resources.postgres import Database, start_embedded, stop_embedded
from tests import corpus_support
from tests.index_world import article
from tests.lifecycle import corpus_state, found, index_state

BEFORE = {f"{subject}.md": article(subject) for subject in ("apple", "pear", "plum")}
CHANGES: dict[str, str | bytes | None] = {
    "pear.md": article("birne"),
    "plum.md": None,
    "quince.md": article("quince"),
    "copy.md": BEFORE["apple.md"],
}
QUESTIONS = ["apple3", "pear and birne", "quince part 2", "plum5"]
#: What a caller may try again: see ``errors_by_kind`` of assets/dagster_support.py.
LOST = (psycopg.OperationalError, TransientError)
MODULES = (corpus, parse_cache, chunking, embedding, staging, refreshing, publishing)


class Strike:
    """Calls ``blow`` once, when the code first passes a named point after ``arm``."""

    def __init__(self, blow: Callable[[], None]) -> None:
        self.blow = blow
        self.point: str | None = None

    def arm(self, point: str) -> None:
        self.point = point

    def __call__(self, name: str) -> None:
        if name == self.point:
            self.point = None
            self.blow()


def end_all_sessions(url: str) -> None:
    """End every session of a database but the one that does it, as a restart or a failover does."""
    with psycopg.connect(url, autocommit=True) as connection:
        ended = connection.execute(
            """SELECT pid FROM pg_stat_activity
               WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"""
        ).fetchall()
        assert ended, "there was no session to end"
        for (process,) in ended:
            # waits until it is gone
            assert connection.execute("SELECT pg_terminate_backend(%s, 10000)", (process,)).fetchone() == (True,)


def install(monkeypatch: pytest.MonkeyPatch, strike: Strike) -> None:
    """Make the strike's points out of the crash points, and one in the middle of the index load."""
    for module in MODULES:
        monkeypatch.setattr(module, "crash_point", strike)
    cut = staging._cut_chunks

    def cut_and_strike(connection: Any) -> Iterator[list[tuple[bytes, int, str]]]:
        for number, rows in enumerate(cut(connection)):
            yield rows
            if number == 1:
                strike("index.loading")  # two batches of texts were sent

    monkeypatch.setattr(staging, "_TEXTS_AT_ONCE", 1)
    monkeypatch.setattr(staging, "_cut_chunks", cut_and_strike)


def run(platform: Platform) -> None:
    """One refresh, from the folder to the published snapshot."""
    corpus_support.refresh(platform)
    chunk_source(platform, "docs")
    embed_source(platform, "docs", "run")
    refreshed = refresh_index(platform, "main", "docs", "run")
    assert not refreshed.failed, refreshed.error


def state(platform: Platform) -> tuple[Any, Any, Any]:
    return corpus_state(platform), index_state(platform, "main"), found(platform, "main", QUESTIONS)


def numbers(platform: Platform) -> tuple[list[int], list[int], int, int]:
    """Revisions; snapshots; what readers are served; documents staged for no published snapshot."""
    with platform.database.connect() as connection:
        revisions = connection.execute("SELECT revision FROM source_revision ORDER BY 1").fetchall()
        snapshots = connection.execute("SELECT snapshot FROM index_snapshot ORDER BY 1").fetchall()
        serving = connection.execute("SELECT serving FROM index_state WHERE index_name = 'main'").fetchone()
        left = connection.execute(
            """SELECT count(*) FROM index_document d JOIN index_build b USING (build_id), index_state s
               WHERE d.valid_from > s.head AND b.state <> 'loading'"""
        ).fetchone()
    assert serving is not None
    assert left is not None
    return [n for (n,) in revisions], [n for (n,) in snapshots], serving[0], left[0]


def undisturbed(platform: Platform, database: Database) -> Platform:
    """The same data directory in another database, built at once."""
    calm = replace(platform, database=database)
    run(calm)
    return calm


def prepare(platform: Platform, folder: Path, rebuild: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Publish a first snapshot, and edit the folder."""
    if rebuild:
        monkeypatch.setattr(staging, "REBUILD_MINIMUM_ROWS", 0)
    corpus_support.write(folder, BEFORE)
    run(platform)
    corpus_support.write(folder, CHANGES)


def policy(rebuild: bool) -> dict[str, Any]:
    """A change is loaded as a new build, or into the one before."""
    return {"policies/index.yaml": {"rebuild_share": 0.0 if rebuild else 1.0}}


# what there is after the loss: the newest revision of the corpus
INSIDE = {"corpus.in_commit": 1, "chunks.in_batch": 2, "index.loading": 2, "index.publishing": 2}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("point", "rebuild"),
    [*((point, False) for point in INSIDE), *((point, True) for point in INSIDE if point.startswith("index."))],
)
def test_a_connection_lost_inside_a_transaction_leaves_the_old_and_the_next_refresh_completes_it(
    make_platform: Callable[..., Platform],
    make_database: Callable[[], Database],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    point: str,
    rebuild: bool,
) -> None:
    platform = make_platform(**policy(rebuild))
    prepare(platform, tmp_path / "docs", rebuild, monkeypatch)
    before = state(platform)
    strike = Strike(lambda: end_all_sessions(platform.database.url))
    install(monkeypatch, strike)
    strike.arm(point)
    with pytest.raises(LOST):
        run(platform)
    assert strike.point is None, f"{point} was never passed"

    revisions, snapshots, serving, _ = numbers(platform)
    assert (revisions[-1], snapshots, serving) == (INSIDE[point], [1], 1)
    after = state(platform)
    assert (after[0] == before[0]) == (INSIDE[point] == 1)
    assert after[1:] == before[1:]

    run(platform)
    assert state(platform) == state(undisturbed(platform, make_database()))
    assert numbers(platform) == ([1, 2], [1, 2], 2, 0)
    assert audit(platform, "main") == []


@pytest.mark.slow
def test_connections_lost_again_and_again_between_transactions_change_nothing(
    make_platform: Callable[..., Platform],
    make_database: Callable[[], Database],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    platform = make_platform(**policy(False))
    prepare(platform, tmp_path / "docs", False, monkeypatch)
    points = {
        "corpus.parsed_batch",
        "corpus.before_commit",
        "corpus.committed",
        "chunks.written_batch",
        "index.embedded_batch",
        "index.staged",
        "index.before_publish",
        "index.after_publish",
    }
    struck: list[str] = []

    def strike(name: str) -> None:
        if name in points:
            struck.append(name)
            end_all_sessions(platform.database.url)

    for module in MODULES:
        monkeypatch.setattr(module, "crash_point", strike)
    run(platform)
    assert set(struck) == points
    monkeypatch.undo()
    assert state(platform) == state(undisturbed(platform, make_database()))
    assert numbers(platform) == ([1, 2], [1, 2], 2, 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("point", "resource"), [("corpus.before_commit", "source:docs"), ("index.before_publish", "index:main")]
)
def test_a_run_whose_lease_was_taken_while_it_was_cut_off_writes_nothing(
    make_platform: Callable[..., Platform], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str, resource: str
) -> None:
    platform = make_platform()
    prepare(platform, tmp_path / "docs", False, monkeypatch)
    before = state(platform)

    def lose_to_another() -> None:
        end_all_sessions(platform.database.url)
        with platform.database.lease(resource, "another", wait_seconds=10):
            pass

    strike = Strike(lose_to_another)
    install(monkeypatch, strike)
    strike.arm(point)
    with pytest.raises(StaleLeaseError, match="another"):
        run(platform)
    assert numbers(platform)[1:3] == ([1], 1)
    assert state(platform)[1:] == before[1:]
    run(platform)
    assert numbers(platform) == ([1, 2], [1, 2], 2, 0)


@pytest.fixture
def own_server() -> Iterator[Path]:
    """A folder for a server of the test's own, which it may stop; not below pytest's, as in conftest."""
    with tempfile.TemporaryDirectory(prefix="genaiops-restart-", ignore_cleanup_errors=True) as root:
        os.chmod(root, 0o755)
        yield Path(root) / "pg"
        stop_embedded(Path(root) / "pg")


@pytest.mark.slow
@pytest.mark.parametrize("point", ["index.loading", "index.publishing"])
def test_a_server_that_is_stopped_in_the_middle_and_started_again_lost_nothing(
    make_platform: Callable[..., Platform],
    make_database: Callable[[], Database],
    own_server: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    point: str,
) -> None:
    database = Database(start_embedded(own_server))
    platform = replace(make_platform(**policy(True)), database=database)
    prepare(platform, tmp_path / "docs", True, monkeypatch)
    before = state(platform)
    strike = Strike(lambda: stop_embedded(own_server))
    install(monkeypatch, strike)
    strike.arm(point)
    with pytest.raises(LOST):
        run(platform)
    assert not (own_server / "postmaster.pid").exists()
    assert start_embedded(own_server) == database.url

    assert state(platform)[1:] == before[1:]
    assert numbers(platform)[:3] == ([1, 2], [1], 1)
    run(platform)
    assert state(platform) == state(undisturbed(platform, make_database()))
    assert numbers(platform) == ([1, 2], [1, 2], 2, 0)
    assert audit(platform, "main") == []
    database.close()
