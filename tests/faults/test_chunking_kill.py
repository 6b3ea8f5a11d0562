"""A chunking process that dies: what was committed stays whole, and the next run completes the rest."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from assets.chunks.chunking import chunk_source
from resources.faults import CRASH_VARIABLE
from resources.platform import Platform
from tests.corpus_support import refresh, write

CHUNK = """
import sys
from pathlib import Path
from assets.chunks import chunking
from resources.config import load_config
from resources.platform import Platform
from resources.postgres import Database
chunking.BATCH_TEXTS = 4
chunking.chunk_source(Platform(load_config(Path(sys.argv[1])), Database(sys.argv[2]), Path(sys.argv[1])), "docs")
"""


@pytest.mark.parametrize(("point", "kept"), [("chunks.in_batch:2", 4), ("chunks.written_batch:2", 8)])
def test_killed_chunking_loses_at_most_a_batch_and_ends_complete(
    make_platform: Callable[..., Platform], tmp_path: Path, database_url: str, point: str, kept: int
) -> None:
    platform = make_platform()
    write(tmp_path / "docs", {f"{number}.md": f"# Number {number}\n\n{'words ' * 100}" for number in range(10)})
    refresh(platform)
    killed = subprocess.run(
        [sys.executable, "-c", CHUNK, str(platform.config.data_dir), database_url],
        env={**os.environ, CRASH_VARIABLE: point},
        cwd=Path(__file__).resolve().parents[2],
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    work = chunk_source(platform, "docs")
    assert (work.reused, work.texts_chunked, work.missing) == (kept, 10 - kept, 0)
    with platform.database.connect() as connection:
        broken = connection.execute(
            """SELECT count(*) FROM chunk_set
               WHERE chunks <> (SELECT count(*) FROM chunk
                                WHERE (chunk.chunker_id, chunk.text_hash) = (chunk_set.chunker_id, chunk_set.text_hash))
                  OR chunks <> (SELECT count(*) FROM chunk_input input
                                WHERE (input.chunker_id, input.text_hash) = (chunk_set.chunker_id, chunk_set.text_hash))"""
        ).fetchone()
    assert broken == (0,)
