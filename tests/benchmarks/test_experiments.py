"""What the experiment engine costs: trials a second, a run with everything on record, shared work, memory, the preview's error.

A grid of 24 variants on SQuAD 2.0 with the offline models; the preview against a paid endpoint on the loopback.

Run with ``make bench``; prints, and asserts ratios and counts, no time. GENAIOPS_BENCH_QUESTIONS sets the number of questions.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from assets.evaluation.importers.squad import convert_squad
from assets.experiments import running
from assets.experiments.spending import pilot, preview_experiment
from resources.platform import Platform
from tests.assets.test_experiment_preview import PRICE, billed, errors, paid
from tests.benchmarks.measuring import show
from tests.conftest import MODELS
from tests.fake_openai import FakeOpenAI
from tests.lifecycle import build_dataset, refresh, run_experiment

pytestmark = pytest.mark.benchmark
QUESTIONS = int(os.environ.get("GENAIOPS_BENCH_QUESTIONS", "400"))
PROMPTS = Path(__file__).resolve().parents[2] / "data" / "prompts"
#: Targets: share of the first run that a run with everything on record may take; least share of the work that is shared.
CACHED_SHARE, SHARED = 0.03, 0.5
#: Most memory over what a process has anyway, for 24 variants on 2 000 questions.
MEMORY = 300e6


def squad(
    make_platform: Callable[..., Platform],
    shared_data: Path,
    tmp_path: Path,
    server: FakeOpenAI | None = None,
    questions: int = 160,
    **grid: Any,
) -> Platform:
    """SQuAD 2.0 with some of its questions, chosen by hash, loaded and indexed."""
    folder = tmp_path / "squad"
    convert_squad(shared_data / "squad2", folder, name="squad")
    path = folder / "questions.jsonl"
    lines = [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]
    kept = sorted(lines, key=lambda line: hashlib.sha256(line["id"].encode()).hexdigest())[:questions]
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in kept), encoding="utf-8")
    axes = {
        "index": ["squad"],
        "prompt": ["exact", "concise"],
        "search_mode": ["vector", "full_text", "hybrid"],
        "k": [3, 5],
        "context": [{"name": "all"}, {"name": "short", "max_tokens": 300}],
        "model": ["extractive"],
        **grid,
    }
    first = {axis: axes[axis][0] for axis in ("index", "prompt", "search_mode", "k", "model")}
    platform = make_platform(
        **{
            "sources.yaml": {"sources": [{"name": "squad", "path": str(folder / "documents")}]},
            "models.yaml": {
                **MODELS,
                "providers": {**MODELS["providers"], "openai": {"kind": "openai"}},
                "chat": [*MODELS["chat"], {"name": "paid", "provider": "openai", "model": "gpt-test", "price": PRICE}],
            },
            "indexes/main.yaml": {
                "name": "squad",
                "embedder": "lexical",
                "chunker": {"kind": "markdown", "unit": "characters", "size": 800},
            },
            "prompts/exact.yaml": (PROMPTS / "exact.yaml").read_text("utf-8"),
            "prompts/concise.yaml": (PROMPTS / "concise.yaml").read_text("utf-8"),
            "evaluation/squad.yaml": {"name": "squad", "questions": str(path), "sources": ["squad"]},
            "experiments/squad.yaml": {
                "name": "squad", "dataset": "squad", "grid": axes, "baseline": first, "resamples": 2000,
            },
        }
    )  # fmt: skip
    if server:
        platform.environment.update(server.environment())
    instance = dg.DagsterInstance.ephemeral()
    refresh(platform, "squad", instance)
    build_dataset(platform, "squad", instance)
    return platform


def run(platform: Platform) -> tuple[dict[str, Any], float]:
    """Metadata, and seconds inside Dagster."""
    began = time.perf_counter()
    told = run_experiment(platform, "squad", dg.DagsterInstance.ephemeral())["scored_variants"]
    return told, time.perf_counter() - began


def count(platform: Platform, table: str) -> int:
    with platform.database.connect() as connection:
        row = connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # type: ignore[arg-type]
    assert row is not None
    return row[0]


def resident() -> int:
    """Bytes of memory this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_grid_of_24_variants(make_platform: Callable[..., Platform], shared_data: Path, tmp_path: Path) -> None:
    platform = squad(make_platform, shared_data, tmp_path, questions=QUESTIONS)
    embedded = count(platform, "embedding")
    first, seconds = run(platform)
    assert count(platform, "variant") == 24
    assert count(platform, "embedding") == embedded  # once, by the refresh
    shared = first["sharing"]
    assert shared["embeddings"]["made"] == embedded
    again, early = run(platform)
    assert again["new_result"] is False
    with platform.database.connect() as connection:
        connection.execute("UPDATE experiment_result SET inputs = NULL")
    before = resident()
    planned, cached = run(platform)
    grown = resident() - before
    assert (planned["trials_run"], planned["searches"], planned["scores_computed"]) == (0, 0, 0)
    trials = first["dagster/row_count"]
    show(
        f"24 variants on {trials // 24} questions of SQuAD 2.0 (of {QUESTIONS} imported), offline",
        ("", "figure"),
        [
            ("trials", trials),
            ("first run, s", seconds),
            ("of it retrieval, s", first["seconds_retrieval"]),
            ("of it trials, s", first["seconds_trials"]),
            ("of it scores, s", first["seconds_scores"]),
            ("trials a second, searches and scores included", trials / seconds),
            ("trials a second while they run", trials / max(0.001, first["seconds_trials"])),
            ("nothing changed, s", early),
            ("of it finding the result, s", again["seconds_found"]),
            ("share of the first run", early / seconds),
            ("planned over everything on record, s", cached),
            ("share of the first run", cached / seconds),
            ("memory grown by it, MB", grown / 1e6),
            *((f"shared: {kind}, {one['made']} of {one['needed']}", one["ratio"]) for kind, one in shared.items() if isinstance(one, dict)),
            ("sharing ratio", shared["ratio"]),
        ],
    )  # fmt: skip
    assert shared["searches"]["made"] * 4 == shared["searches"]["needed"]  # two prompts and two contexts search alike
    assert shared["ratio"] >= SHARED
    assert early / seconds < CACHED_SHARE * max(1.0, 40 / seconds)  # a short first run says little about fixed costs


def test_memory_of_a_plan(make_platform: Callable[..., Platform], shared_data: Path, tmp_path: Path) -> None:
    """Planned over and over with the questions there are, as if they were more: what a plan of 24 x 2 000 holds."""
    platform = squad(make_platform, shared_data, tmp_path)
    run(platform)
    import gc

    with (
        platform.database.lease("experiment:squad", "bench") as lease,
        running.prepared(platform, "squad", "bench", lease) as experiment,
    ):
        warm = running.measure(experiment)
        trials = len(warm.plan.trials)
        gc.collect()
        kept, before = [], resident()
        rounds = max(2, 12_000 // trials)
        for _ in range(rounds):
            kept.append(running.measure(experiment))
        gc.collect()
        each = (resident() - before) / (rounds * trials)
    show(
        "Memory of plan, records and scores",
        ("", "figure"),
        [("trials measured", rounds * trials), ("bytes a trial", each), ("24 x 2 000 trials, MB", 48_000 * each / 1e6)],
    )
    assert len(kept) == rounds
    assert 48_000 * each < MEMORY


def test_preview_error(make_platform: Callable[..., Platform], shared_data: Path, tmp_path: Path) -> None:
    def said(body: dict[str, Any]) -> str:
        """Some words of the first passage: more for the concise prompt, nothing for every fifth question."""
        system, user = body["messages"][0]["content"], body["messages"][-1]["content"]
        number = int(hashlib.sha256(user.encode()).hexdigest(), 16)
        lines = [line.removeprefix("> ") for line in user.splitlines() if line.startswith("> ")]
        words = " ".join(lines).split()
        return (
            "The documents do not say."
            if number % 5 == 0
            else " ".join(words[: 6 + number % (20 + len(system) % 30)]) + " [1]"
        )

    rows = []
    with FakeOpenAI(answer=said, fault=billed) as server:
        platform = squad(
            make_platform, shared_data, tmp_path, server, model=["paid"], search_mode=["full_text", "hybrid"]
        )
        blind = preview_experiment(platform, "squad")
        for trials in (24, 96):
            pilot(platform, "squad", trials, f"pilot-{trials}")
            found, before = preview_experiment(platform, "squad"), paid(platform)
            rows.append((f"after a pilot, {trials} trials", found, before))
        assert preview_experiment(platform, "squad").calls < blind.calls
        run(platform)
        after = paid(platform)
    nothing = dict.fromkeys(after, 0.0)
    wrong = [(name, errors(found, before, after)) for name, found, before in rows]
    show(
        f"Error of the preview, {blind.trials} trials, a tokenizer of 15 % more tokens",
        ("", "calls", "tokens", "money"),
        [
            (name, one["calls"], one["tokens"], one["cost"])
            for name, one in [("nothing on record", errors(blind, nothing, after)), *wrong]
        ],
    )
    assert max(max(one.values()) for _, one in wrong) < 0.10
