"""A process that dies while it enriches: paid calls are lost for one window at most, and the next run completes the rest."""

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
from tests.enrichment_support import answering, index, models, passage_of, with_server
from tests.fake_openai import FakeOpenAI
from tests.index_world import commit

CHUNK = """
import sys
from pathlib import Path
from assets.chunks.chunking import chunk_source
from resources.config import load_config
from resources.platform import Platform
from resources.postgres import Database
chunk_source(Platform(load_config(Path(sys.argv[1])), Database(sys.argv[2]), Path(sys.argv[1])), "docs", run_id="killed")
"""
#: Two threads with four calls each.
WINDOW = 8


@pytest.mark.parametrize(
    ("point", "kept"),
    [
        ("chunks.in_values:2", WINDOW),  # answered and paid for, not committed
        ("chunks.stored_values:2", 2 * WINDOW),
        ("chunks.enriched_batch", 20),
    ],
)
def test_killed_enrichment_loses_one_window_of_calls_at_most(
    make_platform: Callable[..., Platform], database_url: str, point: str, kept: int
) -> None:
    step = {"kind": "keywords", "method": "model", "model": "writer"}
    with FakeOpenAI(answer=answering(lambda passage: [passage.split()[-1]])) as server:
        platform = with_server(
            make_platform(**{"models.yaml": models(), "indexes/main.yaml": index("main", [step])}), server
        )
        commit(platform, "docs", {f"{number}.md": f"# Number {number}\n\nWord{number}" for number in range(20)})
        killed = subprocess.run(
            [sys.executable, "-c", CHUNK, str(platform.config.data_dir), database_url],
            env={**os.environ, **server.environment(), CRASH_VARIABLE: point},
            cwd=Path(__file__).resolve().parents[2],
            check=False,
        )
        assert killed.returncode == -signal.SIGKILL
        sent = len(server.requests)
        work = chunk_source(platform, "docs")
        assert (work.steps[0].reused, work.steps[0].computed, work.inputs_missing) == (kept, 20 - kept, 0)
        assert sent - kept <= WINDOW
        asked = [passage_of(request.body) for request in server.requests]
        assert len(asked) - len(set(asked)) == sent - kept
    with platform.database.connect() as connection:
        broken = connection.execute(
            """SELECT count(*) FROM chunk_set WHERE chunks <> (
                   SELECT count(*) FROM chunk_input input
                   WHERE (input.chunker_id, input.text_hash) = (chunk_set.chunker_id, chunk_set.text_hash))"""
        ).fetchone()
    assert broken == (0,)
