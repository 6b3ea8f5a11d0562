"""Two real processes at once on one source, or on one index: one waits, nothing interleaves, nothing is lost."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, LiteralString

import dagster as dg
import pytest

from resources.config import load_config
from resources.faults import PAUSE_VARIABLE
from resources.platform import Platform
from resources.postgres import Database
from tests.lifecycle import corpus_state, found, index_state, refresh

ROOT = Path(__file__).resolve().parents[2]
QUESTIONS = ["How often is the chain oiled?", "How long do the pads last?"]
PAUSE = 3
SECONDS = 420


def write(folder: Path, pages: dict[str, str]) -> None:
    folder.mkdir(exist_ok=True)
    for name, text in pages.items():
        (folder / name).write_text(text, encoding="utf-8")


DOCS = {
    "chain.md": "# Chain\n\nOil the chain every 250 km.\n\n## Wear\n\nReplace the chain at 0.75 percent elongation.\n",
    "brakes.md": "# Brakes\n\nThe pads last about 3,000 km.\n\n## Bleeding\n\nBleed the brakes once a year.\n",
}
WIKI = {
    "bell.md": "# Bell\n\nThe bell rings at 90 dB.\n",
    "chain.md": "# Chain\n\nOil the chain every 250 km.\n",  # the same text in both sources
}


class Race:
    """Starts command-line processes on one state and one database, and ends them."""

    def __init__(self, data: Path, state: Path, url: str) -> None:
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("GENAIOPS_", "DAGSTER_"))},
            "GENAIOPS_DATA_DIR": str(data),
            "GENAIOPS_STATE_DIR": str(state),
            "GENAIOPS_DATABASE_URL": url,
        }
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, source: str, *, pause: str | None = None) -> subprocess.Popen[str]:
        """``genaiops refresh SOURCE``, pausing at a named point for ``PAUSE`` seconds."""
        environment = self.environment | ({PAUSE_VARIABLE: f"{pause}:{PAUSE}"} if pause else {})
        process = subprocess.Popen(
            [sys.executable, "-m", "pipelines.cli", "refresh", source],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.processes.append(process)
        return process

    def finish(self) -> list[tuple[int, str]]:
        """Wait for all; ``(exit code, output)`` of each in the order they were started."""
        return [(process.wait(), output) for process in self.processes for output in [_output(process)]]

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.communicate()


def _output(process: subprocess.Popen[str]) -> str:
    return process.communicate(timeout=SECONDS)[0]


@pytest.fixture
def race(make_data_dir: Callable[..., Path], tmp_path: Path, database_url: str) -> Iterator[Race]:
    sources = [{"name": name, "path": str(tmp_path / name)} for name in ("docs", "wiki")]
    race = Race(make_data_dir(**{"sources.yaml": {"sources": sources}}), tmp_path / "state", database_url)
    write(tmp_path / "docs", DOCS)
    write(tmp_path / "wiki", WIKI)
    yield race
    race.close()


@pytest.fixture
def raced(race: Race, database: Database, tmp_path: Path) -> Platform:
    """What the two processes write to, seen from here."""
    config = load_config(Path(race.environment["GENAIOPS_DATA_DIR"]))
    return Platform(config=config, database=database, artifacts=tmp_path / "artifacts")


@pytest.fixture
def undisturbed(make_database: Callable[[], Database], raced: Platform, tmp_path: Path) -> Platform:
    """A second database over the same data directory."""
    return Platform(config=raced.config, database=make_database(), artifacts=tmp_path / "calm")


def wait_for(platform: Platform, query: LiteralString) -> None:
    """Until a query gives a row."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        with platform.database.connect() as connection:
            if connection.execute(query).fetchone():
                return
        time.sleep(0.1)
    raise AssertionError(f"never happened: {query}")


def numbers(platform: Platform) -> dict[str, Any]:
    """Revisions of each source, and the snapshots of the index with the sources each one shows."""
    with platform.database.connect() as connection:
        revisions = connection.execute("SELECT source, revision FROM source_revision ORDER BY 1, 2").fetchall()
        snapshots = connection.execute(
            "SELECT snapshot, (SELECT count(*) FROM jsonb_object_keys(sources)) FROM index_snapshot ORDER BY 1"
        ).fetchall()
        doubled = connection.execute(
            "SELECT path FROM document_version WHERE rev_to = 2147483647 GROUP BY source, path HAVING count(*) > 1"
        ).fetchall()
        left = connection.execute(
            "SELECT count(*) FROM index_document d, index_state s WHERE d.valid_from > s.head"
        ).fetchone()
    assert doubled == [], "a document is live twice"
    assert left == (0,), "something staged was left behind"
    return {"revisions": revisions, "snapshots": snapshots}


def assert_equal(raced: Platform, undisturbed: Platform, sources: list[str]) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        for source in sources:
            refresh(undisturbed, source, instance)
    assert corpus_state(raced) == corpus_state(undisturbed)
    assert index_state(raced, "main") == index_state(undisturbed, "main")
    assert found(raced, "main", QUESTIONS) == found(undisturbed, "main", QUESTIONS)


# corpus.before_commit: the source's lease is held; chunks.in_batch: no lease, equal rows inserted by both in open
# transactions; index.before_publish: the index's lease is held, everything is staged
@pytest.mark.slow
@pytest.mark.parametrize("point", ["corpus.before_commit", "chunks.in_batch", "index.before_publish"])
def test_two_refreshes_of_one_source_make_one_revision_and_one_snapshot(
    race: Race, raced: Platform, undisturbed: Platform, point: str
) -> None:
    race.start("docs", pause=point)
    race.start("docs", pause=point)
    for code, output in race.finish():
        assert code == 0, output
    assert numbers(raced) == {"revisions": [("docs", 1)], "snapshots": [(1, 1)]}
    assert_equal(raced, undisturbed, ["docs"])


@pytest.mark.slow
def test_a_refresh_that_waited_sees_what_changed_meanwhile(
    race: Race, raced: Platform, undisturbed: Platform, tmp_path: Path
) -> None:
    race.start("docs", pause="corpus.before_commit")
    wait_for(raced, "SELECT 1 FROM lease WHERE resource = 'source:docs'")
    time.sleep(1)  # let the first one read the folder
    write(
        tmp_path / "docs", {"chain.md": DOCS["chain.md"].replace("250 km", "300 km"), "lamp.md": "# Lamp\n\n80 lux.\n"}
    )
    race.start("docs")
    for code, output in race.finish():
        assert code == 0, output
    seen = numbers(raced)
    assert [revision for _, revision in seen["revisions"]] == list(range(1, len(seen["revisions"]) + 1))
    assert [number for number, _ in seen["snapshots"]] == list(range(1, len(seen["snapshots"]) + 1))
    assert_equal(raced, undisturbed, ["docs"])


# index.build_created: both would make the first build; index.publishing: inside the publishing transaction
@pytest.mark.slow
@pytest.mark.parametrize("point", ["index.build_created", "index.publishing"])
def test_two_sources_of_one_index_both_get_into_it(
    race: Race, raced: Platform, undisturbed: Platform, point: str
) -> None:
    race.start("docs", pause=point)
    race.start("wiki", pause=point)
    for code, output in race.finish():
        assert code == 0, output
    seen = numbers(raced)
    assert seen["revisions"] == [("docs", 1), ("wiki", 1)]
    assert [number for number, _ in seen["snapshots"]] == list(range(1, len(seen["snapshots"]) + 1))
    assert seen["snapshots"][-1][1] == 2, "the newest snapshot shows one source only"
    assert_equal(raced, undisturbed, ["docs", "wiki"])
