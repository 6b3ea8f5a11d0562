"""Peak memory of a refresh of N and of ten times N documents, each in a fresh process on a fresh database."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from resources.postgres import Database
from tests.benchmarks.measuring import fresh_process, show

DOCUMENTS, FACTOR, CHARACTERS = 300, 10, 4_000
CODE = """
import json, pathlib, resource, sys

import great_expectations, kreuzberg, numpy, openai, pandas

def peak():
    # not ru_maxrss: a child inherits its parent's
    try:
        lines = pathlib.Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

from resources.config import load_config
from resources.platform import Platform
from resources.postgres import Database
from tests.benchmarks.refresh_work import refresh_once

imported = peak()
data, url = sys.argv[1:]
platform = Platform(load_config(pathlib.Path(data)), Database(url), pathlib.Path(data) / "artifacts")
_, counts = refresh_once(platform, "run")
platform.database.close()
print(json.dumps({"imported": imported, "peak": peak(), **counts}))
"""


@pytest.mark.benchmark
def test_memory(tmp_path: Path, make_data_dir: Callable[..., Path], make_database: Callable[[], Database]) -> None:
    # words drawn at random have no neighbourhoods, the hardest case for a graph; recall is not what is measured here
    data = make_data_dir(
        **{
            "policies/index.yaml": {"minimum_recall_at_10": 0.0, "sample_size": 20},
            "indexes/main.yaml": {
                "name": "main",
                "embedder": "lexical",
                "chunker": {"kind": "markdown", "unit": "characters", "size": 1_000},
            },
        }
    )
    folder = tmp_path / "docs"
    runs = []
    for count in (DOCUMENTS, DOCUMENTS * FACTOR):
        _write(folder, count)
        runs.append(fresh_process(CODE, str(data), make_database().url))
    small, large = runs
    rows = [("peak (MB)", *(run["peak"] for run in runs)), ("before any work (MB)", *(run["imported"] for run in runs))]
    rows.append(("growth by the work (MB)", *(run["peak"] - run["imported"] for run in runs)))
    show(
        f"Peak memory of one process that builds everything (target: the peak grows by less than half for {FACTOR} times the documents)",
        ["", f"{DOCUMENTS} documents", f"{DOCUMENTS * FACTOR} documents", "ratio"],
        [
            *((name, round(one), round(ten), ten / one) for name, one, ten in rows),
            *((name, small[name], large[name], large[name] / small[name]) for name in ("parsed", "chunks written", "embeddings")),
        ],
    )  # fmt: skip
    assert (small["parsed"], large["parsed"]) == (DOCUMENTS, DOCUMENTS * FACTOR)


def _write(folder: Path, count: int) -> None:
    """Documents of equal size from one vocabulary, none like another, the same in every run."""
    generator = random.Random(11)
    vocabulary = [
        "".join(generator.choices("abcdefghijklmnopqrstuvwxyz", k=generator.randint(3, 10))) for _ in range(5_000)
    ]
    for number in range(count):
        path = folder / f"{number // 100:03}" / f"{number:05}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        parts, length = [f"# Document {number}"], 0
        while length < CHARACTERS:
            parts.append(" ".join(generator.choices(vocabulary, k=60)) + ".")
            length += len(parts[-1])
        path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
