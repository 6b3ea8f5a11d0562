"""Loading the definitions against importing Dagster alone, in fresh processes, alternating."""

import statistics

import pytest

from tests.benchmarks.measuring import fresh_process, show

ROUNDS = 5
CODE = """
import json, sys, time
wall, cpu = time.perf_counter(), time.process_time()
__import__({module!r})
seconds = {{"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}}
print(json.dumps({{**seconds, "loaded": sorted({{name.split(".")[0] for name in sys.modules}})}}))
"""
HEAVY = {
    "numpy", "pandas", "great_expectations", "evaluate", "datasets", "openai", "sklearn", "scipy", "nltk", "kreuzberg",
    "matplotlib", "langchain_text_splitters", "pyarrow", "sacrebleu", "rouge_score", "apprise", "rich", "jinja2.sandbox",
}  # fmt: skip


@pytest.mark.benchmark
def test_import() -> None:
    modules = {"dagster": "dagster", "definitions": "pipelines.definitions"}
    codes = {name: CODE.format(module=module) for name, module in modules.items()}
    for code in codes.values():
        fresh_process(code)  # fills the byte-code cache and the page cache
    runs = {name: [] for name in modules}
    for _ in range(ROUNDS):
        for name, code in codes.items():
            runs[name].append(fresh_process(code))
    seconds = {
        name: {clock: statistics.median(run[clock] for run in of) for clock in ("cpu", "wall")}
        for name, of in runs.items()
    }
    show(
        f"Import, median of {ROUNDS} fresh processes (target: at most 1.5 times dagster)",
        ["", "dagster (s)", "pipelines.definitions (s)", "ratio"],
        [
            [clock, seconds["dagster"][clock], seconds["definitions"][clock],
             seconds["definitions"][clock] / seconds["dagster"][clock]]
            for clock in ("cpu", "wall")
        ],
    )  # fmt: skip
    assert not HEAVY & set(runs["definitions"][0]["loaded"])
