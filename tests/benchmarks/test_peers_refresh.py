"""Building and refreshing real documents: ours against cocoindex doing the same job, in one run on one server."""

import importlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from resources.models import Embedder, EmbeddingBatch, Usage
from resources.platform import Platform
from resources.policy_config import DETECTORS
from resources.postgres import Database
from tests.benchmarks.measuring import show
from tests.benchmarks.peers import load, peer, require
from tests.benchmarks.peers_driver import vector_of
from tests.benchmarks.refresh_work import STEPS, Seconds, refresh_once
from tests.histories import start

SIZE = 400
STAGES = ("full build", "nothing changed", "1 % edited", "edit of equal size and time")
ADDITION = "\nOne more paragraph, which no version of this document had before.\n"


@pytest.mark.benchmark
def test_refresh_against_cocoindex(
    shared_data: Path,
    tmp_path: Path,
    make_platform: Callable[..., Platform],
    make_database: Callable[[], Database],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    version = require("cocoindex")["cocoindex"]
    importlib.import_module("pipelines.preload")  # as in every step; the peer's imports are not counted either
    folder = tmp_path / "docs"
    start(shared_data / "peps-history", folder)
    monkeypatch.setattr(Embedder, "embed", _embed)
    platform = make_platform(
        **{
            "indexes/main.yaml": {
                "name": "main",
                "embedder": "lexical",
                "chunker": {"kind": "recursive", "unit": "characters", "size": SIZE},
                "enrichment": {"context": "none"},
            },
            "policies/screening.yaml": {name: {"enabled": False} for name in DETECTORS},
            # hashed vectors have no neighbourhoods; recall is not what is measured here
            "policies/index.yaml": {"minimum_recall_at_10": 0.0, "minimum_self_retrieval": 0.0, "sample_size": 20},
        }
    )
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    plain, graph = make_database().url, make_database().url

    ours: list[tuple[Seconds, dict[str, int]]] = []
    theirs: dict[bool, list[dict[str, float]]] = {False: [], True: []}
    for stage in STAGES:
        if stage == "1 % edited":
            for path in files[:: len(files) // (len(files) // 100 + 1)][: len(files) // 100 + 1]:
                path.write_text(path.read_text(encoding="utf-8") + ADDITION, encoding="utf-8")
        elif stage == "edit of equal size and time":
            _edit_unseen(files[50])
        ours.append(refresh_once(platform, stage))
        for with_graph, url in ((False, plain), (True, graph)):
            state = str(tmp_path / f"cocoindex-{with_graph}")
            arguments = {"folder": str(folder), "state": state, "size": SIZE, "graph": with_graph}
            theirs[with_graph].append(peer("cocoindex", url=url, **arguments))

    size = sum(path.stat().st_size for path in files) / 1e6
    walls = [sum(wall for wall, _ in seconds.values()) for seconds, _ in ours]
    vectors = [sum(seconds[step][0] for step in STEPS[:3]) for seconds, _ in ours]
    show(
        f"{len(files)} documents, {size:.1f} MB, chunks of at most {SIZE}: seconds; {load()}",
        ["", *STAGES],
        [
            ["ours: all, with graph, full text, checks", *walls],
            ["ours: up to the stored vectors", *vectors],
            *([f"ours: {step}", *(seconds[step][0] for seconds, _ in ours)] for step in STEPS),
            [f"cocoindex {version}: table only", *(done["seconds"] for done in theirs[False])],
            [f"cocoindex {version}: table with graph", *(done["seconds"] for done in theirs[True])],
            ["cocoindex, table only / ours, all", *_ratios(theirs[False], walls)],
            ["cocoindex, with graph / ours, all", *_ratios(theirs[True], walls)],
            ["cocoindex, table only / ours, up to vectors", *_ratios(theirs[False], vectors)],
        ],
    )
    print("  (target: the full build at least 5 times faster, the others faster)")
    show(
        "What was done", ["", *STAGES],
        [
            ["ours: documents parsed", *(counts["parsed"] for _, counts in ours)],
            ["ours: chunks written", *(counts["chunks written"] for _, counts in ours)],
            ["ours: texts embedded", *(counts["embeddings"] for _, counts in ours)],
            ["ours: index rows added", *(counts["rows added"] for _, counts in ours)],
            ["cocoindex: texts embedded", *(done["embedded"] for done in theirs[False])],
            ["cocoindex: rows in all", *(done["rows"] for done in theirs[False])],
        ],
    )  # fmt: skip

    full, idle, edited, unseen = (counts for _, counts in ours)
    assert full["parsed"] == len(files)
    assert not any(idle.values())
    assert edited["parsed"] == len(files) // 100 + 1
    assert unseen["parsed"] == 1, "an edit that keeps size and time was missed"
    assert unseen["rows added"] == unseen["rows retired"] == 1


def _embed(embedder: Embedder, texts: Sequence[str], *, query: bool = False) -> EmbeddingBatch:
    """The driver's embedder in place of ours: a model's speed is not what is compared."""
    return EmbeddingBatch(np.array([vector_of(text) for text in texts], np.float32), Usage())


def _edit_unseen(path: Path) -> None:
    """Change one character; the size and the time of the last change stay."""
    before = path.stat()
    content = path.read_bytes()
    middle = next(at for at in range(len(content) // 2, len(content)) if content[at : at + 1].isalpha())
    letter = b"x" if content[middle : middle + 1] != b"x" else b"y"
    path.write_bytes(content[:middle] + letter + content[middle + 1 :])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _ratios(theirs: list[dict[str, float]], ours: list[float]) -> list[float]:
    return [done["seconds"] / own for done, own in zip(theirs, ours, strict=True)]
