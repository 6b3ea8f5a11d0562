"""An erasure whose process dies: everything is as before, or it is committed and the next call finishes its files."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from assets.governance.erasure import find_traces, forget
from assets.governance.erasure_files import JOURNAL, WAITING
from resources.faults import CRASH_VARIABLE
from resources.parquet_io import read_table, write_table
from resources.platform import Platform
from tests.seeded_corpus import SeededCorpus

CANARY = "The canary sleeps in crate number seven behind the green door until Tuesday night."
OTHER = "Every bicycle leaves the workshop with a charged battery and a printed manual in its bag."

FORGET = """
import sys
from pathlib import Path
from assets.governance.erasure import forget
from resources.config import load_config
from resources.platform import Platform
from resources.postgres import Database
forget(Platform(load_config(Path(sys.argv[1])), Database(sys.argv[2]), Path(sys.argv[3])), document="docs/birds.md", by="ada")
"""


@pytest.fixture
def corpus(make_platform: Callable[..., Platform]) -> SeededCorpus:
    import pyarrow as pa

    corpus = SeededCorpus(make_platform())
    birds = corpus.document("docs", "birds.md", CANARY)
    bikes = corpus.document("docs", "bikes.md", OTHER)
    build = corpus.build("main")
    corpus.show(build, [birds, bikes])
    corpus.publish("main", build, 1, "2026-02-01")
    corpus.interaction(
        "Where?", "2026-02-01", hit={"rank": 1, "document_id": birds, "source": "docs", "path": "birds.md"}
    )
    folder = corpus.platform.artifacts / "experiments"
    write_table(folder / "1.parquet", [{"text": CANARY}, {"text": OTHER}], pa.schema([("text", pa.string())]))
    (folder / "1.html").write_text(f"<p>{CANARY}</p>")
    (folder / "out.jsonl").write_text(json.dumps({"text": CANARY}) + "\n" + json.dumps({"text": OTHER}) + "\n")
    state = corpus.platform.config.data_dir.parent / ".genaiops" / "sources" / "docs"
    state.mkdir(parents=True)
    (state / "clone").write_text(CANARY)
    return corpus


def files(platform: Platform) -> dict[str, bytes]:
    roots = (platform.artifacts, platform.config.data_dir.parent / ".genaiops")
    return {str(path): path.read_bytes() for root in roots for path in sorted(root.rglob("*")) if path.is_file()}


def readable(found: dict[str, Any]) -> dict[str, bytes]:
    """Files a reader takes notice of: not the copies that wait, and their journal."""
    return {name: content for name, content in found.items() if not name.endswith((WAITING, JOURNAL))}


def tables(platform: Platform) -> dict[str, int]:
    return {name: count for name, count in find_traces(platform, CANARY).items() if not name.startswith("file:")}


@pytest.mark.parametrize(
    ("point", "committed"),
    [
        ("governance.found", False),
        ("governance.tables_cleaned", False),
        ("governance.before_commit", False),
        ("governance.committed", True),
    ],
)
def test_a_killed_erasure_is_wholly_before_or_wholly_after(
    corpus: SeededCorpus, database_url: str, point: str, committed: bool
) -> None:
    platform = corpus.platform
    before, held = files(platform), tables(platform)
    arguments = [str(platform.config.data_dir), database_url, str(platform.artifacts)]
    killed = subprocess.run(
        [sys.executable, "-c", FORGET, *arguments],
        env={**os.environ, CRASH_VARIABLE: point},
        cwd=Path(__file__).resolve().parents[2],
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    assert readable(files(platform)) == before, "no file changes before the tables did"
    assert tables(platform) == ({} if committed else held)

    again = forget(platform, document="docs/birds.md", by="ada", wait_seconds=30)
    assert (again.completed is not None) == committed
    assert (again.erasure_id is None) == committed
    assert find_traces(platform, CANARY) == {}
    after = files(platform)
    assert readable(after) == after, "nothing is left waiting"
    assert not [name for name in after if ".genaiops" in name]
    assert read_table(platform.artifacts / "experiments" / "1.parquet").to_pylist() == [{"text": OTHER}]
    with platform.database.connect() as connection:
        ((proof,),) = connection.execute("SELECT proof FROM erasure").fetchall()
    assert {name: count for name, count in proof.items() if name.startswith("file:")} == {
        "file:experiments/1.parquet": 1, "file:experiments/1.html": 1, "file:experiments/out.jsonl": 1, "file:sources/docs": 1,
    }  # fmt: skip
    assert proof["interaction"] == 1


def test_files_that_are_half_put_in_place_are_finished(corpus: SeededCorpus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between two renames: what is done stays done."""
    from assets.governance import erasure_files

    def half(cleaned: Any) -> None:
        path, copy = cleaned.changes[0]
        copy.replace(path) if copy else path.unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(erasure_files, "put_in_place", half)
        with pytest.raises(KeyboardInterrupt):
            forget(corpus.platform, document="docs/birds.md", by="ada")
    assert find_traces(corpus.platform, CANARY)
    forget(corpus.platform, document="docs/birds.md", by="ada")
    assert find_traces(corpus.platform, CANARY) == {}


def test_maintenance_finishes_what_was_killed_after_its_commit(corpus: SeededCorpus, database_url: str) -> None:
    """Nobody has to think of running the command again."""
    import dagster as dg

    from pipelines.maintenance import build_maintenance

    platform = corpus.platform
    killed = subprocess.run(
        [sys.executable, "-c", FORGET, str(platform.config.data_dir), database_url, str(platform.artifacts)],
        env={**os.environ, CRASH_VARIABLE: "governance.committed"},
        cwd=Path(__file__).resolve().parents[2],
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    assert find_traces(platform, CANARY), "files still hold it"
    maintain = build_maintenance(platform.config)[0]
    assert maintain.execute_in_process(
        resources={"platform": platform}, instance=dg.DagsterInstance.ephemeral()
    ).success
    assert find_traces(platform, CANARY) == {}
    after = files(platform)
    assert readable(after) == after, "nothing is left waiting"
