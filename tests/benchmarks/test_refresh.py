"""A refresh with nothing changed, and with one edited document, against the full build, on a real corpus."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from assets.chunks.assets import build_assets as build_chunks
from assets.corpus.assets import build_assets as build_corpus
from assets.index.assets import build_assets as build_index
from resources.platform import Platform
from tests.benchmarks.measuring import show
from tests.benchmarks.refresh_work import COUNTS, STEPS, Seconds, refresh_once
from tests.histories import start


@pytest.mark.benchmark
def test_refresh(shared_data: Path, tmp_path: Path, make_platform: Callable[..., Platform]) -> None:
    folder = tmp_path / "docs"
    start(shared_data / "peps-history", folder)
    index = {
        "name": "main",
        "embedder": "lexical",
        "chunker": {"kind": "markdown", "unit": "tokens", "size": 200},
    }
    platform = make_platform(**{"indexes/main.yaml": index})
    documents = sum(path.is_file() for path in folder.rglob("*"))

    full, built = refresh_once(platform, "full")
    idle, nothing = refresh_once(platform, "idle")
    edited = sorted(folder.rglob("*.rst"))[100]
    with edited.open("a", encoding="utf-8") as file:
        file.write("\nOne more paragraph, which no version of this document had before.\n")
    edit, one = refresh_once(platform, "edit")
    orchestrated = _orchestrated(platform)

    show(
        f"Work of a refresh, {documents} documents: wall seconds (CPU seconds of this process)",
        ["step", "full build", "nothing changed", "one document edited"],
        [
            *([step, *(f"{run[step][0]:.3f} ({run[step][1]:.3f})" for run in (full, idle, edit))] for step in STEPS),
            ["together", *(f"{_wall(run):.3f} ({_cpu(run):.3f})" for run in (full, idle, edit))],
            ["of the full build", "100 %", *(f"{_wall(run) / _wall(full):.2%} ({_cpu(run) / _cpu(full):.2%})" for run in (idle, edit))],
        ],
    )  # fmt: skip
    print("  (target: nothing changed takes less than 2 % of the full build)")
    show(
        "What was done", ["count", "full build", "nothing changed", "one document edited"],
        [[name, built[name], nothing[name], one[name]] for name in COUNTS],
    )  # fmt: skip
    show(
        "The refresh with nothing changed, through Dagster in one process (ephemeral instance): seconds",
        ["", "wall", "CPU"],
        [
            ["inside assets", orchestrated["inside"], ""],
            ["orchestration (all the rest)", orchestrated["wall"] - orchestrated["inside"], ""],
            ["together", orchestrated["wall"], orchestrated["cpu"]],
        ],
    )

    assert built["parsed"] == documents
    assert not any(nothing.values())
    assert one["parsed"] == one["texts chunked"] == 1
    assert one["embeddings"] <= 2
    assert one["rows added"] <= one["chunks written"]
    assert one["chunks written"] < built["chunks written"] / 100


def _wall(run: Seconds) -> float:
    return sum(wall for wall, _ in run.values())


def _cpu(run: Seconds) -> float:
    return sum(cpu for _, cpu in run.values())


def _orchestrated(platform: Platform) -> dict[str, float]:
    """Materialize the four assets when nothing changed; the second time, so that Dagster's own imports are done."""
    config = platform.config
    assets = [*build_corpus(config), *build_chunks(config), *build_index(config)]
    measured: dict[str, Any] = {}
    with dg.DagsterInstance.ephemeral() as instance:
        for _ in range(2):
            wall, cpu = time.perf_counter(), time.process_time()
            result = dg.materialize(assets, partition_key="docs", resources={"platform": platform}, instance=instance)
            measured = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
            measured["inside"] = sum(
                event.step_success_data.duration_ms / 1000 for event in result.all_events if event.is_step_success
            )
    return measured
