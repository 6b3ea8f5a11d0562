"""kill -9 at every dangerous place of the index stage: readers see the old or the new, and a re-run equals a fresh build."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from assets.index.audit import audit
from assets.index.embedding import embed_source
from assets.index.refreshing import refresh_index
from resources.faults import CRASH_VARIABLE
from resources.platform import Platform
from tests.index_world import article, order, prepare, refresh, searcher, visible_rows

ROOT = Path(__file__).resolve().parents[2]
CHILD = """
import json, sys
from pathlib import Path
from assets.index.embedding import embed_source
from assets.index.refreshing import refresh_index
from resources.config import load_config
from resources.platform import Platform
from resources.postgres import Database
data, url = sys.argv[1:]
platform = Platform(config=load_config(Path(data)), database=Database(url), artifacts=Path(data))
embed_source(platform, "docs", "killed")
refresh_index(platform, "main", "docs", "killed")
print("survived")
"""
BEFORE = {f"{subject}.md": article(subject) for subject in ("apple", "pear", "plum")}
AFTER = {
    **{k: v for k, v in BEFORE.items() if k != "plum.md"},
    "pear.md": article("birne"),
    "quince.md": article("quince"),
}
QUESTIONS = ("apple3", "pear and birne", "quince part 2", "plum5")


def kill_at(point: str, platform: Platform, database_url: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", CHILD, str(platform.config.data_dir), database_url],
        cwd=ROOT,
        env={**os.environ, CRASH_VARIABLE: point, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == -signal.SIGKILL, f"not killed at {point}: {result.stdout} {result.stderr[-2000:]}"


def answers(platform: Platform, index: str) -> list[Any]:
    found = searcher(platform)
    return [
        order(found.search(index, question, mode=mode, k=8))  # type: ignore[arg-type]
        for question in QUESTIONS
        for mode in ("vector", "full_text", "hybrid")
    ]


def fresh_build(platform: Platform) -> tuple[list[Any], list[Any]]:
    main = platform.config.indexes["main"]
    indexes = {"main": main, "twin": main.model_copy(update={"name": "twin"})}
    other = replace(platform, config=platform.config.model_copy(update={"indexes": indexes}))
    refresh_index(other, "twin", "docs", "fresh")
    return visible_rows(other, "twin"), answers(other, "twin")


@pytest.mark.slow
@pytest.mark.parametrize("point", ["staged", "before_publish", "publishing", "after_publish"])
def test_killed_refresh_leaves_the_old_or_the_new_and_the_next_completes_it(
    make_platform: Callable[..., Platform], database_url: str, point: str
) -> None:
    platform = make_platform()
    refresh(platform, "docs", BEFORE)
    old = answers(platform, "main")
    prepare(platform, "docs", AFTER)
    kill_at(f"index.{point}", platform, database_url)
    new = fresh_build(platform)
    assert answers(platform, "main") == (new[1] if point == "after_publish" else old)
    refresh_index(platform, "main", "docs", "again")
    assert (visible_rows(platform, "main"), answers(platform, "main")) == new
    assert [info.snapshot for info in searcher(platform).snapshots("main")] == [2, 1]
    assert audit(platform, "main") == []


@pytest.mark.slow
@pytest.mark.parametrize("point", ["build_created", "staged", "before_publish"])
def test_killed_first_load_leaves_nothing_behind(
    make_platform: Callable[..., Platform], database_url: str, point: str
) -> None:
    platform = make_platform()
    prepare(platform, "docs", AFTER)
    kill_at(f"index.{point}", platform, database_url)
    refresh_index(platform, "main", "docs", "again")
    with platform.database.connect() as connection:
        builds = connection.execute("SELECT table_name, state FROM index_build ORDER BY build_id").fetchall()
        tables = connection.execute(
            "SELECT relname FROM pg_class WHERE relname LIKE 'chunks\\_%' AND relkind = 'r'"
        ).fetchall()
    assert builds == [("chunks_1", "dropped"), ("chunks_2", "ready")]
    assert tables == [("chunks_2",)]
    assert (visible_rows(platform, "main"), answers(platform, "main")) == fresh_build(platform)


@pytest.mark.slow
def test_kill_while_embedding_loses_at_most_one_batch(
    make_platform: Callable[..., Platform], database_url: str
) -> None:
    models = {
        "providers": {"offline": {"kind": "offline"}},
        "embedding": [
            {
                "name": "lexical",
                "provider": "offline",
                "model": "lexical-hash",
                "dimensions": 384,
                "batch_size": 5,
                "limits": {"concurrency": 1},
            }
        ],
        "chat": [{"name": "extractive", "provider": "offline", "model": "extractive"}],
    }
    platform = make_platform(**{"models.yaml": models})
    from assets.chunks.chunking import chunk_source
    from tests.index_world import commit

    commit(platform, "docs", AFTER)
    chunk_source(platform, "docs")
    kill_at("index.embedded_batch:2", platform, database_url)
    work = embed_source(platform, "docs", "again")
    assert (work.reused, work.computed) == (10, 2)
    with platform.database.connect() as connection:
        runs = connection.execute("SELECT run_id, count(*) FROM embedding GROUP BY 1 ORDER BY 1").fetchall()
    assert json.dumps(runs) == json.dumps([["again", 2], ["killed", 10]])
