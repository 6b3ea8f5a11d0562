"""The offline demo on the sample data, twice on one fresh state: time inside assets against all the time there is."""

from pathlib import Path
from typing import Any

import pytest

from resources.postgres import stop_embedded
from tests.benchmarks.measuring import fresh_process, show

CODE = """
import json, os, time
wall, cpu = time.perf_counter(), time.process_time()
from pipelines import demo, runner
from pipelines.settings import load_settings

done = []
plain = demo.run

def run(defs, instance, task, progress=None):
    started, used = time.perf_counter(), time.process_time()
    result = plain(defs, instance, task, progress)
    done.append((task.title, time.perf_counter() - started, time.process_time() - used, result))
    return result

demo.run = run
success = demo.run_demo(load_settings())
print(json.dumps({
    "success": success,
    "wall": time.perf_counter() - wall,
    "cpu": time.process_time() - cpu,
    "runs": [[title, took, used, result.seconds] for title, took, used, result in done],
    "work": demo.work_done([result for *_, result in done]),
}))
"""


@pytest.mark.benchmark
def test_demo_overhead(tmp_path_factory: pytest.TempPathFactory) -> None:
    state = tmp_path_factory.mktemp("state")
    try:
        first, second = (_demo(state) for _ in range(2))
    finally:
        stop_embedded(state / "postgres")
    rows: list[list[Any]] = []
    for before, after in zip(first["runs"], second["runs"], strict=True):
        rows += [
            [f"{before[0]}: {step}", seconds, after[3].get(step, 0.0), after[3].get(step, 0.0) / seconds]
            for step, seconds in before[3].items()
        ]
    show(
        "The demo, seconds inside each step (as Dagster counts them)",
        ["step", "first run", "second run", "ratio"],
        rows,
    )
    parts = [
        ("inside assets", *(_inside(run) for run in (first, second))),
        ("runs, outside assets", *(sum(item[1] for item in run["runs"]) - _inside(run) for run in (first, second))),
        ("import, start, report", *(run["wall"] - sum(item[1] for item in run["runs"]) for run in (first, second))),
        ("together (wall)", first["wall"], second["wall"]),
        ("together (CPU of this process)", first["cpu"], second["cpu"]),
        ("outside assets per run", *((sum(i[1] for i in run["runs"]) - _inside(run)) / len(run["runs"]) for run in (first, second))),
    ]  # fmt: skip
    show("The demo, seconds", ["", "first run", "second run", "ratio"], [[*part, part[2] / part[1]] for part in parts])
    show("What was done", ["count", "first run", "second run"], [[name, first["work"][name], second["work"][name]] for name in first["work"]])  # fmt: skip
    assert first["success"]
    assert second["success"]
    assert first["work"]["trials run"]
    assert not any(second["work"].values())


def _demo(state: Path) -> dict[str, Any]:
    return fresh_process(CODE, environment={"GENAIOPS_STATE_DIR": str(state)})


def _inside(run: dict[str, Any]) -> float:
    return sum(sum(seconds.values()) for *_, seconds in run["runs"])
