"""SIGKILL at every named point of the lifecycle, then a re-run: the result equals an undisturbed one."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from resources.config import load_config
from resources.faults import CRASH_VARIABLE
from resources.platform import Platform
from resources.postgres import Database
from tests.lifecycle import build_dataset, corpus_state, found, index_state, refresh, run_experiment

PAGES = {
    "brakes.md": "# Brakes\n\nThe brake pads last about 3,000 km.\n\n## Bleeding\n\nBleed the brakes once a year with mineral oil.\n",
    "battery.md": "# Battery\n\nThe battery holds 750 Wh.\n\n## Storage\n\nStore the battery at 10 to 20 degrees, half charged.\n",
    "chain.md": "# Chain\n\nOil the chain every 250 km.\n\n## Wear\n\nReplace the chain at 0.75 percent elongation.\n",
    "lights.html": "<html><head><title>Lights</title></head><body><h1>Lights</h1><p>The front light gives 80 lux.</p></body></html>",
}
EDITED = {"chain.md": PAGES["chain.md"].replace("250 km", "300 km"), "bell.md": "# Bell\n\nThe bell rings at 90 dB.\n"}
QUESTIONS = [
    ("How often is the chain oiled?", "every 250 km", [("docs/chain.md", "Oil the chain every")], "dev"),
    (
        "How long do brake pads last?",
        "about 3,000 km",
        [("docs/brakes.md", "The brake pads last about 3,000 km.")],
        "dev",
    ),
    ("How much energy does the battery hold?", "750 Wh", [("docs/battery.md", "The battery holds 750 Wh.")], "dev"),
    (
        "When is a chain replaced?",
        "at 0.75 percent",
        [("docs/chain.md", "Replace the chain at 0.75 percent elongation.")],
        "test",
    ),
    ("Which colour is the saddle?", None, [], "dev"),
    ("Who designed the logo?", None, [], "test"),
]
POINTS = [
    "corpus.parsed_batch", "corpus.before_commit", "corpus.in_commit", "corpus.committed",
    "chunks.in_batch", "chunks.written_batch",
    "index.embedded_batch", "index.build_created", "index.staged", "index.before_publish", "index.publishing", "index.after_publish",
    "evaluation.checked", "evaluation.written_file", "evaluation.committed",
    "experiments.trial_committed", "experiments.result_committed",
]  # fmt: skip


@pytest.fixture
def data_dir(make_data_dir: Callable[..., Path], tmp_path: Path) -> Path:
    lines = [
        {
            "id": f"q{number}",
            "question": question,
            "answer": answer,
            "evidence": [{"document": document, "quote": quote} for document, quote in evidence],
            "split": split,
            "tags": {},
        }
        for number, (question, answer, evidence, split) in enumerate(QUESTIONS)
    ]
    prompt = {
        "name": "plain",
        "system": "Answer in one sentence. If the passages do not contain the answer, say: {{ refusal }}",
        "user": "{% for passage in passages %}[{{ passage.number }}] {{ passage.text }}\n{% endfor %}Question: {{ question }}",
    }
    choice = {"index": "main", "prompt": "plain", "search_mode": "hybrid", "k": 3, "model": "extractive"}
    data = make_data_dir(
        **{
            "prompts/plain.yaml": prompt,
            "evaluation/pages.yaml": {
                "name": "pages",
                "questions": "pages.jsonl",
                "sources": ["docs"],
                "minimum_questions": 3,
            },
            "evaluation/pages.jsonl": "\n".join(json.dumps(line) for line in lines),
            "experiments/answers.yaml": {
                "name": "answers",
                "dataset": "pages",
                "grid": {
                    **{axis: [value] for axis, value in choice.items()},
                    "search_mode": ["hybrid", "vector"],
                    "k": [1, 3],
                },
                "baseline": choice,
                "resamples": 1000,
            },
        }
    )
    _write(tmp_path / "docs", PAGES)
    return data


@pytest.fixture
def new_platform(make_database: Callable[[], Database], data_dir: Path, tmp_path: Path) -> Callable[[str], Platform]:
    """Build platforms on fresh databases over one data directory."""
    return lambda label: Platform(load_config(data_dir), make_database(), tmp_path / label)


def _write(folder: Path, pages: dict[str, str]) -> None:
    folder.mkdir(exist_ok=True)
    for name, text in pages.items():
        (folder / name).write_text(text, encoding="utf-8")


def lifecycle(platform: Platform) -> None:
    """One pass over everything, each asset through Dagster."""
    with dg.DagsterInstance.ephemeral() as instance:
        refresh(platform, "docs", instance)
        build_dataset(platform, "pages", instance)
        run_experiment(platform, "answers", instance)


def killed(platform: Platform, point: str) -> bool:
    """Run the lifecycle in a forked process that dies at ``point``; whether it did die there."""
    child = os.fork()
    if child == 0:
        os.environ[CRASH_VARIABLE] = point
        try:
            lifecycle(Platform(platform.config, Database(platform.database.url), platform.artifacts))
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def state(platform: Platform) -> dict[str, Any]:
    """Everything a user can see, without ids."""
    with platform.database.connect() as connection:
        return {
            "documents": corpus_state(platform),
            "chunks": index_state(platform, "main"),
            "search": found(platform, "main", [question for question, *_ in QUESTIONS]),
            "dataset": connection.execute(
                """SELECT question_id, status, start_char, end_char, quote FROM evaluation_question
                   LEFT JOIN evaluation_evidence USING (dataset, version, question_id)
                   WHERE version = (SELECT max(version) FROM evaluation_dataset) ORDER BY 1, 3"""
            ).fetchall(),
            "scores": connection.execute(
                """SELECT v.name, t.question_id, s.metric, s.value FROM trial t JOIN variant v ON v.fingerprint = t.variant
                   JOIN trial_score s ON s.trial = t.fingerprint ORDER BY 1, 2, 3"""
            ).fetchall(),
            "embeddings": connection.execute("SELECT count(*) FROM embedding").fetchone(),
            "generations": connection.execute("SELECT count(*) FROM generation").fetchone(),
            "staged": connection.execute(
                "SELECT count(*) FROM index_document d JOIN index_state s ON s.index_name = 'main' WHERE d.valid_from > s.head"
            ).fetchone(),
        }


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
def test_killed_run_leaves_nothing_behind(new_platform: Callable[[str], Platform], tmp_path: Path, point: str) -> None:
    undisturbed, disturbed = new_platform("calm"), new_platform("killed")
    lifecycle(undisturbed)
    undisturbed.database.close()
    disturbed.database.close()
    assert killed(disturbed, point), f"the lifecycle never passes {point}"
    lifecycle(disturbed)
    assert state(disturbed) == state(undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize(
    "point", ["corpus.in_commit", "chunks.written_batch", "index.staged", "index.before_publish", "index.publishing"]
)
def test_killed_refresh_leaves_the_served_state_wholly_old(
    new_platform: Callable[[str], Platform], tmp_path: Path, point: str
) -> None:
    platform = new_platform("served")
    lifecycle(platform)
    before = {key: value for key, value in state(platform).items() if key in ("chunks", "search")}
    _write(tmp_path / "docs", EDITED)
    platform.database.close()
    assert killed(platform, point)
    assert {key: value for key, value in state(platform).items() if key in ("chunks", "search")} == before
    lifecycle(platform)
    fresh = new_platform("anew")
    lifecycle(fresh)
    assert index_state(platform, "main") == index_state(fresh, "main")
    assert state(platform)["search"] == state(fresh)["search"]
