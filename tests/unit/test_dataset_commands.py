"""The commands on datasets and feedback say what they did, and refuse what makes no sense."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from assets.evaluation.dataset import newest_version, resolve, write_dataset
from pipelines.cli import main
from resources.platform import Platform
from tests.evaluation_support import dataset_files, line, put_document

Run = Callable[..., str]
FACT = "The Heron runs eighty kilometres on one charge."
IDENTITY = "12345678-1234-1234-1234-123456789012"


@pytest.fixture
def platform(make_platform: Callable[..., Platform], monkeypatch: pytest.MonkeyPatch) -> Platform:
    platform = make_platform(
        **dataset_files(
            line("q1", "How far?", "eighty kilometres", quote=FACT),
            line("q2", "Colour?", "blue", quote="It was blue once upon a time, they say."),
            line("u1", "Price?", split="test"),
        )
    )
    monkeypatch.setattr("pipelines.commands.datasets.open_platform", lambda: platform)
    with platform.database.connect() as connection:
        put_document(connection, "a.md", f"# Heron\n\n{FACT}\n")
        connection.execute("INSERT INTO variant (fingerprint, name, config) VALUES ('v', 'variant', '{}')")
        connection.execute(
            """INSERT INTO interaction (interaction_id, question, answer, refused, citations, retrieved, index_name, snapshot,
                   variant, variant_reason, generation, usage, latency)
               VALUES (%s, 'Is it quick?', 'No.', false, '[]', '[]', 'main', 1, 'v', 'baseline', 'none', '{}', 0.1)""",
            (IDENTITY,),
        )
    return platform


@pytest.fixture
def run(platform: Platform) -> Run:
    def call(*words: str, code: int = 0) -> str:
        result = CliRunner().invoke(main, list(words))
        assert result.exit_code == code, result.output
        return result.output

    return call


def build(platform: Platform) -> None:
    with platform.database.lease("dataset:qa", "run") as lease, platform.database.connect() as connection:
        resolved = resolve(connection, platform.config, "qa", newest_version(connection, "qa"))
        write_dataset(connection, resolved, artifacts=platform.artifacts, run_id="run", lease=lease)


def test_datasets_are_listed_with_their_state(platform: Platform, run: Run) -> None:
    assert "qa: rag, never built; run `genaiops evaluate`" in run("dataset", "list")
    build(platform)
    assert "qa: rag, version 1, 1 dev, 1 test; 1 unanswerable, 1 stale" in run("dataset", "list")
    (row,) = json.loads(run("dataset", "list", "--json"))
    assert (row["version"], row["splits"], row["held_back_uses"]) == (1, {"train": 0, "dev": 1, "test": 1}, 0)


def test_stale_questions_are_listed_with_the_reason(platform: Platform, run: Run) -> None:
    assert "has no version yet" in run("dataset", "stale", "qa", code=1)
    build(platform)
    output = run("dataset", "stale", "qa")
    assert "q2  dev  docs/a.md: the quoted passage is gone" in output
    assert "1 of 3 questions of version 1 are stale." in output
    assert json.loads(run("dataset", "stale", "qa", "--json"))[0]["question"] == "q2"
    assert "there is no dataset 'qu'; there are: qa" in run("dataset", "stale", "qu", code=2)


def test_export_names_its_files_and_its_use_of_held_back_questions(
    platform: Platform, run: Run, tmp_path: Path
) -> None:
    build(platform)
    output = run("dataset", "export", "qa", "jsonl", str(tmp_path / "out"))
    assert "2 questions of version 1 written" in output
    assert str(tmp_path / "out" / "qa.jsonl") in output
    assert "1 held-back questions are among them" in output
    uses = run("dataset", "uses", "qa")
    assert "1 questions  export" in uses
    assert "have judged 0 choices" in uses
    assert json.loads(run("dataset", "uses", "qa", "--json"))["record"][0]["purpose"] == "export"


def test_import_says_what_it_took_over_and_what_to_do_next(run: Run, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("Frage\nWie weit?\n", encoding="utf-8")
    arguments = ("dataset", "import", "csv", str(table), str(tmp_path / "out"), "--name", "lib")
    output = run(*arguments, "--column", "Frage=question")
    assert "csv: 0 documents, 1 questions, 1 unanswerable written to" in output
    assert "add a source 'lib'" in output
    assert "write THEIRS=OURS" in run(*arguments, "--column", "Frage", code=2)
    assert "--language is for squad" in run(*arguments, "--language", "de", code=2)


def test_feedback_leads_to_a_question(platform: Platform, run: Run) -> None:
    assert "say --good or --bad" in run("feedback", IDENTITY[:8], code=2)
    assert f"Recorded for interaction {IDENTITY}." in run("feedback", IDENTITY[:8], "--correct", "Eighty kilometres.")
    listed = run("feedback", "--list")
    assert f"{IDENTITY}  0 good, 1 bad, corrected\n   Is it quick?" in listed  # who corrects, finds it wrong
    assert "0 judged answers." in run("feedback", "--list", "--good")
    promote = ("dataset", "promote", IDENTITY, "qa", "--reason", "often asked")
    assert "cited nothing that is still there; say with --quote" in run(*promote, code=1)
    output = run(*promote, "--quote", "docs/a.md", FACT, "--tag", "topic=speed")
    assert f"asked-{IDENTITY[:13]} (dev) was added to {platform.config.promoted_path('qa')}" in output
    assert "write KEY=VALUE" in run(*promote, "--tag", "speed", code=2)
    assert json.loads(run("feedback", "--list", "--json"))[0]["datasets"] == ["qa"]


def test_feedback_without_an_answer_named_is_refused(run: Run) -> None:
    assert "name the interaction" in run("feedback", "--good", code=2)
    assert "there is no interaction" in run("feedback", "99999999", "--bad", code=1)
