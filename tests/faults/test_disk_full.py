"""A disk runs full in the middle: the run fails once and says what to do, readers keep what they have, and with space
again the next refresh completes it.

The disk is a real small file system (tests/small_disk.py) that is filled to the last byte at a named point of the work.
"""

import contextlib
import os
import pwd
import random
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest
from psycopg import sql

from assets.corpus.parse_pool import ParsePool, Task
from assets.index import staging
from assets.index.audit import audit
from resources.errors import DiskFullError
from resources.parquet_io import read_table
from resources.platform import Platform
from resources.postgres import Database, migrate, start_embedded, stop_embedded
from tests import corpus_support, lifecycle
from tests.evaluation_support import dataset_files, line, put_document
from tests.faults.test_database_restart import (
    LOST,
    QUESTIONS,
    Strike,
    install,
    numbers,
    policy,
    run,
    state,
    undisturbed,
)
from tests.loopback import Server
from tests.small_disk import SmallDisk, small_disk, wait_until_gone

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

#: Small enough for the 64 MiB of a container's /dev/shm.
MEGABYTES = 48
REMEDY = "Free space there, then run again; nothing has to be cleaned up by hand"


def essay(subject: str, words: int = 2_500) -> str:
    """A text that does not compress, so that it takes room; with a word of its own to find it by."""
    draw = random.Random(subject)
    parts = [f"# About {subject}\n"]
    for part in range(words // 100):
        sentence = " ".join(f"{draw.getrandbits(40):x}" for _ in range(100))
        parts.append(f"## Part {part} of {subject}\n\n{subject} {sentence}.\n")
    return "\n".join(parts)


BEFORE = {f"{subject}.md": essay(subject, 400) for subject in ("apple", "pear", "plum")}
CHANGES: dict[str, str | bytes | None] = {
    "pear.md": essay("birne"),
    "plum.md": None,
    **{f"new{number}.md": essay(f"quince{number}") for number in range(8)},
}


@pytest.fixture(scope="module")
def server_user() -> str | None:
    """Whom the embedded server runs as: not root."""
    return "pgserver" if os.geteuid() == 0 else None


@pytest.fixture(scope="module")
def own_server() -> Iterator[str]:
    """A server of these tests' own, with a migrated template; its own files, and its log of changes, have all the room."""
    with tempfile.TemporaryDirectory(prefix="genaiops-full-", ignore_cleanup_errors=True) as root:
        os.chmod(root, 0o755)
        url = start_embedded(Path(root) / "pg")
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CREATE DATABASE template_genaiops")
        migrate(url.replace("/postgres?", "/template_genaiops?"))
        yield url
        stop_embedded(Path(root) / "pg")


@pytest.fixture
def disk(own_server: str, server_user: str | None) -> Iterator[SmallDisk]:
    """A small disk that the server, too, can write to."""
    with small_disk(MEGABYTES, server_user) as found:
        if found is None:
            pytest.skip("no small file system can be made here: no mount, no user namespace, no small /dev/shm")
        print(f"the small disk is {found.way}")
        yield found


@pytest.fixture
def database_on_disk(disk: SmallDisk, own_server: str, server_user: str | None) -> Iterator[Database]:
    """A database all of whose tables are on the small disk."""
    place = disk.path / "tables"
    place.mkdir(mode=0o700)
    if server_user:
        shutil.chown(place, server_user)
    name = f"full_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(own_server, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE TABLESPACE {} LOCATION {}").format(sql.Identifier(name), str(place)))
        create = "CREATE DATABASE {0} TEMPLATE template_genaiops TABLESPACE {0} STRATEGY file_copy"
        connection.execute(sql.SQL(create).format(sql.Identifier(name)))
    database = Database(own_server.replace("/postgres?", f"/{name}?"))
    yield database
    database.close()
    disk.empty()
    with psycopg.connect(own_server, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
        connection.execute(sql.SQL("DROP TABLESPACE {}").format(sql.Identifier(name)))


@dataclass(frozen=True)
class Failure:
    """How a run of Dagster failed.

    Attributes:
        messages: of its failed steps.
        retried: how many steps asked to be tried again.
    """

    messages: list[str]
    retried: int


def fail(platform: Platform) -> Failure:
    """Refresh through Dagster, as production does, and expect it to fail."""
    with dg.DagsterInstance.ephemeral() as instance:
        lifecycle.refresh(platform, "docs", instance, raise_on_error=False)
        (run_made,) = instance.get_runs()
        assert run_made.status == dg.DagsterRunStatus.FAILURE
        events = [entry.dagster_event for entry in instance.all_logs(run_made.run_id) if entry.dagster_event]
    failed = [event.step_failure_data for event in events if event.is_step_failure]
    retried = sum(event.is_step_up_for_retry for event in events)
    return Failure([str(item.user_failure_data and item.user_failure_data.description) for item in failed], retried)


#: Where the disk runs full, and the newest revision of the corpus after that.
REVISION_AT = {
    "start": 1,
    "corpus.committed": 2,
    "chunks.written_batch": 2,
    "index.loading": 2,
    "index.graph": 2,
}


@pytest.mark.parametrize(
    ("point", "rebuild"), [*((point, False) for point in REVISION_AT), ("index.loading", True), ("index.graph", True)]
)
def test_the_disk_of_the_database_runs_full(
    make_platform: Callable[..., Platform],
    make_database: Callable[[], Database],
    database_on_disk: Database,
    disk: SmallDisk,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    point: str,
    rebuild: bool,
) -> None:
    index = {
        "name": "main", "embedder": "lexical", "chunker": {"kind": "markdown", "unit": "characters", "size": 400},
        "hnsw": {"exact_below": 100},
    }  # fmt: skip
    platform = replace(make_platform(**policy(rebuild), **{"indexes/main.yaml": index}), database=database_on_disk)
    if rebuild:
        monkeypatch.setattr(staging, "REBUILD_MINIMUM_ROWS", 0)
    corpus_support.write(tmp_path / "docs", BEFORE)
    run(platform)
    corpus_support.write(tmp_path / "docs", CHANGES)
    before = state(platform)
    found_meanwhile: list[Any] = []

    def fill() -> None:
        disk.fill()
        found_meanwhile.append(state(platform)[2])

    strike = Strike(fill)
    install(monkeypatch, strike)
    add_graph = staging._add_graph
    monkeypatch.setattr(staging, "_add_graph", lambda *given: (strike("index.graph"), add_graph(*given))[1])
    strike.arm(point)
    strike("start")
    failure = fail(platform)
    assert strike.point is None, f"{point} was never passed"

    assert failure.retried == 0, "writing the same again does not make room"
    assert len(failure.messages) == 1
    assert "No space left on device" in failure.messages[0]
    assert REMEDY in failure.messages[0]
    revisions, snapshots, serving, _ = numbers(platform)
    assert (revisions[-1], snapshots, serving) == (REVISION_AT[point], [1], 1)
    assert state(platform)[1:] == before[1:]
    assert found_meanwhile == [before[2]]

    disk.empty()
    run(platform)
    now, calm = state(platform), state(undisturbed(platform, make_database()))
    assert now[:2] == calm[:2]
    exact = slice(len(QUESTIONS), 2 * len(QUESTIONS)) if point == "index.graph" else slice(None)  # full text; all
    assert now[2][exact] == calm[2][exact]
    assert numbers(platform) == ([1, 2], [1, 2], 2, 0)
    assert builds_left(platform) == 0
    assert audit(platform, "main") == []


def builds_left(platform: Platform) -> int:
    """Builds of an index that no snapshot shows and nobody dropped."""
    with platform.database.connect() as connection:
        row = connection.execute(
            """SELECT count(*) FROM index_build b WHERE state <> 'dropped'
               AND NOT EXISTS (SELECT FROM index_snapshot s WHERE s.build_id = b.build_id)"""
        ).fetchone()
    assert row is not None
    return row[0]


# --- the log of changes -------------------------------------------------------------------------------------------


@pytest.fixture
def server_on_disk(disk: SmallDisk, server_user: str | None) -> Iterator[Path]:
    """A server whose log of changes is on the small disk, as all of it is where it shares one with everything else."""
    with tempfile.TemporaryDirectory(prefix="genaiops-wal-", ignore_cleanup_errors=True) as root:
        os.chmod(root, 0o755)
        directory, place = Path(root) / "pg", disk.path / "wal"
        start_embedded(directory)
        stop_embedded(directory)
        shutil.copytree(directory / "pg_wal", place)
        shutil.rmtree(directory / "pg_wal")
        (directory / "pg_wal").symlink_to(place)
        if server_user:
            for item in (place, *place.rglob("*")):
                shutil.chown(item, server_user, pwd.getpwnam(server_user).pw_gid)
        place.chmod(0o700)
        yield directory
        disk.empty()
        with contextlib.suppress(Exception):
            stop_embedded(directory)


def fill_log(url: str) -> None:
    """Ask for new pieces of the log until the server falls over a full disk."""
    with psycopg.connect(url, autocommit=True) as connection:
        for number in range(20):
            connection.execute("CREATE TABLE IF NOT EXISTS filler (n integer)")
            connection.execute("INSERT INTO filler VALUES (%s)", (number,))
            connection.execute("SELECT pg_switch_wal()")


@pytest.mark.parametrize("point", ["corpus.in_commit", "index.loading", "index.publishing"])
def test_the_disk_of_the_log_of_changes_runs_full(
    make_platform: Callable[..., Platform],
    make_database: Callable[[], Database],
    server_on_disk: Path,
    disk: SmallDisk,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    point: str,
) -> None:
    """Such a server stops at once, and cannot start before there is room; what it had said yes to is kept."""
    database = Database(start_embedded(server_on_disk))
    platform = replace(make_platform(**policy(True)), database=database)
    monkeypatch.setattr(staging, "REBUILD_MINIMUM_ROWS", 0)
    corpus_support.write(tmp_path / "docs", BEFORE)
    run(platform)
    corpus_support.write(tmp_path / "docs", CHANGES)
    before = state(platform)

    def fill() -> None:
        disk.fill()
        with pytest.raises(psycopg.Error):
            fill_log(database.url)

    strike = Strike(fill)
    install(monkeypatch, strike)
    strike.arm(point)
    with pytest.raises(LOST):
        run(platform)
    assert strike.point is None, f"{point} was never passed"
    if wait_until_gone(server_on_disk / "postmaster.pid"):
        with pytest.raises(DiskFullError, match=f"its disk is full .* {REMEDY}"):
            start_embedded(server_on_disk)

    disk.empty()
    assert start_embedded(server_on_disk) == database.url
    assert state(platform)[1:] == before[1:]
    assert numbers(platform)[1:3] == ([1], 1)
    run(platform)
    assert state(platform) == state(undisturbed(platform, make_database()))
    assert numbers(platform) == ([1, 2], [1, 2], 2, 0)
    assert builds_left(platform) == 0
    assert audit(platform, "main") == []
    database.close()


def test_a_server_is_not_started_on_a_full_disk_and_is_not_harmed(server_user: str | None) -> None:
    with small_disk(160, server_user) as disk:
        if disk is None or not disk.plain:
            pytest.skip("no small file system that a whole server fits on can be made here")
        directory = disk.path / "pg"
        url = start_embedded(directory)
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 1 AS n")
        stop_embedded(directory)
        disk.fill()
        for _ in range(2):
            with pytest.raises(DiskFullError, match=f"its disk is full .* {REMEDY}"):
                start_embedded(directory)
        disk.empty()
        assert start_embedded(directory) == url
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT n FROM kept").fetchone() == (1,)
            assert connection.execute("SHOW maintenance_work_mem").fetchone() == ("512MB",), "the settings were lost"
        stop_embedded(directory)


# --- files --------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder_disk() -> Iterator[SmallDisk]:
    """A small disk for files of this process."""
    with small_disk(8) as found:
        if found is None:
            pytest.skip("no small file system can be made here: no mount, no user namespace, no small /dev/shm")
        yield found


FACTS = [f"Bicycle {number} has lamp {random.Random(number).getrandbits(400):x}." for number in range(300)]


def test_the_disk_of_the_artifacts_runs_full(make_platform: Callable[..., Platform], folder_disk: SmallDisk) -> None:
    asked = [line(f"q{n}", f"Which lamp has bicycle {n}?", fact, quote=fact) for n, fact in enumerate(FACTS)]
    asked += [line(f"u{n}", f"Who sells umbrella {random.Random(n).getrandbits(60):x}?") for n in range(60)]
    platform = replace(
        make_platform(**dataset_files(*asked, minimum_questions=4, maximum_stale_share=0.9)),
        artifacts=folder_disk.path / "artifacts",
    )
    text = "# Bicycles\n\n" + " ".join(FACTS)

    def publish(text: str) -> None:
        with platform.database.connect() as connection:
            put_document(connection, "a.md", text)
        with dg.DagsterInstance.ephemeral() as instance:
            lifecycle.build_dataset(platform, "qa", instance)

    def files() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in platform.artifacts.rglob("*") if path.is_file()}

    def versions() -> list[int]:
        with platform.database.connect() as connection:
            return [number for (number,) in connection.execute("SELECT version FROM evaluation_dataset ORDER BY 1")]

    publish(text)
    before = files()
    assert before
    assert versions() == [1]
    changed = text.replace("# Bicycles", "# Bicycles and tricycles")
    folder_disk.fill(leave=8_192)
    with pytest.raises(dg.Failure, match=f"a disk of this machine is full .*No space left on device.* {REMEDY}"):
        publish(changed)
    assert files() == before, "the old file is whole, and nothing lies beside it"
    assert versions() == [1]

    folder_disk.empty()
    publish(changed)
    assert versions() == [1, 2]
    now = files()
    assert set(before) < set(now)
    assert {path: now[path] for path in before} == before
    assert all(read_table(path).num_rows == len(asked) for path in now if path.suffix == ".parquet")


def test_the_disk_of_temporary_files_runs_full_while_pages_are_read(
    make_platform: Callable[..., Platform], folder_disk: SmallDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"/{number}" for number in range(12)]
    with Server() as site:
        source = {
            "name": "docs", "kind": "http", "allow_private": True, "ports": [site.port], "requests_per_second": 1000,
            "tries": 1, "urls": [site.url(name) for name in names],
        }  # fmt: skip
        platform = make_platform(**{"sources.yaml": {"sources": [source]}})
        for name in names:
            site.page(name, f"<html><body><main><p>{essay('page' + name, 400)}</p></main></body></html>")
        run(platform)
        before = state(platform)
        for name in names:
            site.page(name, f"<html><body><main><p>{essay('other' + name, 3_000)}</p></main></body></html>")
        monkeypatch.setattr(tempfile, "tempdir", str(folder_disk.path))
        folder_disk.fill(leave=150_000)
        failure = fail(platform)
        assert failure.retried == 0
        assert len(failure.messages) == 1
        assert "a disk of this machine is full (No space left on device" in failure.messages[0]
        assert REMEDY in failure.messages[0]
        assert state(platform) == before
        assert corpus_support.quarantined(platform) == {}

        folder_disk.empty()
        run(platform)
        assert numbers(platform) == ([1, 2], [1, 2], 2, 0)
        assert len(state(platform)[0]) == len(names)
        assert state(platform)[0] != before[0]


def test_a_parser_without_room_for_its_temporary_files_fails_the_run_and_not_the_document(
    folder_disk: SmallDisk,
) -> None:
    target = folder_disk.path / "temporary"
    task = Task({}, f"write {target}".encode())
    pool = ParsePool("tests.bad_parsers:handle")
    try:
        folder_disk.fill()
        with pytest.raises(DiskFullError, match=REMEDY):
            pool.submit(task).result(30)
        folder_disk.empty()
        assert pool.submit(task).result(30)["text"] == str(target)  # type: ignore[index]
    finally:
        pool.close()
