"""Peak memory of a refresh of N documents and of many times as many, each in a fresh process on a fresh database.

``GENAIOPS_MEMORY_FACTOR`` (default ``10``; ``10,100`` for a hundred times as well, half an hour on two cores) and
``GENAIOPS_MEMORY_DOCUMENTS`` (default 300). One document in ``HTML`` is HTML, so that parser processes work, too.
"""

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from resources.postgres import Database
from tests.benchmarks.measuring import fresh_process, show

DOCUMENTS = int(os.environ.get("GENAIOPS_MEMORY_DOCUMENTS", "300"))
FACTORS = [int(factor) for factor in os.environ.get("GENAIOPS_MEMORY_FACTOR", "10").split(",")]
CHARACTERS, HTML = 4_000, 10
CODE = """
import json, pathlib, resource, sys, threading

import great_expectations, kreuzberg, numpy, openai, pandas, psutil

def peak(process="self"):
    # not ru_maxrss: a child inherits its parent's
    try:
        lines = pathlib.Path(f"/proc/{process}/status").read_text().splitlines()
        return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0) / 1024
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 if process == "self" else 0

children, over = {}, threading.Event()

def watch():
    # a parser process lives for some seconds after its last document: its peak is seen before it ends
    while not over.wait(0.2):
        for child in psutil.Process().children(recursive=True):
            children[child.pid] = max(children.get(child.pid, 0), peak(child.pid))

watcher = threading.Thread(target=watch)
watcher.start()

from resources.config import load_config
from resources.platform import Platform
from resources.postgres import Database
from tests.benchmarks.refresh_work import refresh_once

imported = peak()
data, url = sys.argv[1:]
platform = Platform(load_config(pathlib.Path(data)), Database(url), pathlib.Path(data) / "artifacts")
_, counts = refresh_once(platform, "run")
platform.database.close()
over.set()
watcher.join()
parsers = {"parsers": len(children), "parser": max(children.values(), default=0)}
print(json.dumps({"imported": imported, "peak": peak(), **parsers, **counts}))
"""


@pytest.mark.benchmark
@pytest.mark.timeout(0)
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
    counts = [DOCUMENTS, *(DOCUMENTS * factor for factor in FACTORS)]
    for count in counts:
        _write(folder, count)
        runs.append(fresh_process(CODE, str(data), make_database().url, timeout=7_200))
    rows: list[tuple[str, list[float]]] = [
        ("peak (MB)", [run["peak"] for run in runs]),
        ("before any work (MB)", [run["imported"] for run in runs]),
        ("growth by the work (MB)", [run["peak"] - run["imported"] for run in runs]),
        ("largest parser process (MB)", [run["parser"] for run in runs]),
        *((name, [run[name] for run in runs]) for name in ("parsers", "parsed", "chunks written", "embeddings")),
    ]
    show(
        "Peak memory of one process that builds everything (target: the peak grows by less than half)",
        ["", *(f"{count} documents" for count in counts), *(f"ratio, {factor} times" for factor in FACTORS)],
        [
            [name, *(round(value) for value in values), *(value / values[0] for value in values[1:])]
            for name, values in rows
        ],
    )
    assert [run["parsed"] for run in runs] == counts
    assert all(run["parsers"] for run in runs)


def _write(folder: Path, count: int) -> None:
    """Documents of equal size from one vocabulary, none like another, the same in every run."""
    generator = random.Random(11)
    vocabulary = [
        "".join(generator.choices("abcdefghijklmnopqrstuvwxyz", k=generator.randint(3, 10))) for _ in range(5_000)
    ]
    for number in range(count):
        path = folder / f"{number // 100:03}" / f"{number:05}{'.md' if number % HTML else '.html'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        parts, length = [], 0
        while length < CHARACTERS:
            parts.append(" ".join(generator.choices(vocabulary, k=60)) + ".")
            length += len(parts[-1])
        title = f"Document {number}"
        if number % HTML:
            text = "\n\n".join([f"# {title}", *parts])
        else:
            body = "".join(f"<p>{part}</p>\n" for part in parts)
            text = (
                f"<!doctype html><html><head><title>{title}</title></head><body><h1>{title}</h1>\n{body}</body></html>"
            )
        path.write_text(text + "\n", encoding="utf-8")
