"""Datasets of tasks without documents: versions, checks, examples, import and export."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from assets.evaluation import checks
from assets.evaluation.dataset import ResolvedDataset, newest_version, read_dataset, resolve, write_dataset
from assets.evaluation.exporters import export_dataset
from assets.evaluation.feedback import promote_interaction
from assets.evaluation.importers.inputs import convert_inputs
from assets.evaluation.questions import load_questions
from assets.experiments.examples import draw
from assets.experiments.variants import expand
from pipelines.asking import answer_question
from pipelines.commands.datasets import _TASKS, dataset_import
from resources.config import load_config
from resources.dataset_config import DatasetConfig
from resources.errors import ConfigError, PermanentError
from resources.grid_config import ContextConfig
from resources.interaction_log import give_feedback
from resources.platform import Platform
from resources.task_config import TASKS
from tests import task_world


def store(platform: Platform, dataset: str) -> ResolvedDataset:
    """Resolve and write a dataset, as its asset does after the checks."""
    with platform.database.lease(f"dataset:{dataset}", "run") as lease, platform.database.connect() as connection:
        resolved = resolve(connection, platform.config, dataset, newest_version(connection, dataset))
        write_dataset(connection, resolved, artifacts=platform.artifacts, run_id="run", lease=lease)
    return resolved


@pytest.mark.parametrize(
    ("files", "dataset"),
    [(task_world.triage, "tickets"), (task_world.translations, "phrases"), (task_world.fields, "orders")],
)
def test_a_version_knows_its_task_and_survives_an_export(
    make_platform: Callable[..., Platform], tmp_path: Path, files: Callable[[], dict[str, Any]], dataset: str
) -> None:
    platform = make_platform(**files())
    first = store(platform, dataset)
    with platform.database.connect() as connection:
        read = read_dataset(connection, dataset)
    assert read.task == platform.config.datasets[dataset].task_spec
    assert read.corpus == {}
    assert all(question.task == read.task and question.answerable for question in read.questions)
    exported = export_dataset(platform, dataset, tmp_path / "out", "jsonl", run_id="run")
    path = platform.config.data_dir / "evaluation" / f"{dataset}.jsonl"
    path.write_text(exported.files[0].read_text(encoding="utf-8"), encoding="utf-8")
    assert store(platform, dataset).content_hash == first.content_hash
    for format in ("parquet", "hf"):
        assert export_dataset(platform, dataset, tmp_path / format, format, run_id="run").questions == len(
            read.questions
        )
    with pytest.raises(PermanentError, match="BEIR is for datasets that search some"):
        export_dataset(platform, dataset, tmp_path / "beir", "beir", run_id="run")


def test_another_label_is_another_version(make_platform: Callable[..., Platform]) -> None:
    files = task_world.triage()
    first = store(make_platform(**files), "tickets")
    files["evaluation/tickets.yaml"]["labels"].append("sales")
    second = store(make_platform(**files), "tickets")
    assert second.content_hash != first.content_hash
    assert [one.fingerprint for one in second.questions] == [one.fingerprint for one in first.questions]


def test_the_checks_of_a_dataset_without_documents(make_platform: Callable[..., Platform]) -> None:
    files = task_world.triage()
    rows = task_world.tickets()
    long = {"id": "long", "question": "x", "answer": "billing", "split": "dev"}
    rows.append({**long, "question": " ".join(f"word{number}" for number in range(2000))})
    files["evaluation/tickets.jsonl"] = task_world.lines(rows)
    platform = make_platform(**files)
    resolved = store(platform, "tickets")
    config = platform.config.datasets["tickets"]
    outcomes = {one.name: one for one in checks.evaluate_checks(resolved, config, platform.config.prompts)}
    assert [name for name, one in outcomes.items() if not one.passed] == []
    assert list(outcomes) == list(checks.CHECKS)


def test_a_split_without_a_label_is_named(make_platform: Callable[..., Platform]) -> None:
    files = task_world.triage()
    rows = [row for row in task_world.tickets() if row["split"] != "test" or row["answer"] != "account"]
    files["evaluation/tickets.jsonl"] = task_world.lines(rows)
    platform = make_platform(**files)
    outcome = checks.split_balance(store(platform, "tickets"), platform.config.datasets["tickets"])
    assert not outcome.passed
    assert not outcome.blocking
    assert outcome.observed == "test: no account"


def test_an_input_among_the_examples_is_a_leak(make_platform: Callable[..., Platform]) -> None:
    files = task_world.triage()
    shown = next(row for row in task_world.tickets() if row["split"] == "test")
    files["prompts/shown.yaml"] = {
        **task_world.PROMPTS["shown"],
        "examples": [{"question": shown["question"], "answer": shown["answer"]}],
    }
    platform = make_platform(**files)
    outcome = checks.few_shot_leakage(store(platform, "tickets"), platform.config.prompts)
    assert not outcome.passed
    assert shown["id"] in str(outcome.details["leaks"])


def test_examples_are_drawn_label_by_label(make_platform: Callable[..., Platform]) -> None:
    platform = make_platform(**task_world.triage())
    store(platform, "tickets")
    with platform.database.connect() as connection:
        six = draw(connection, "tickets", ContextConfig(name="c", examples=6))
        pool = draw(connection, "tickets", ContextConfig(name="c", examples=6, select="similar"))
    short = task_world.lines(task_world.tickets(train=8))
    platform.config.question_files("tickets")[0].write_text(short, encoding="utf-8")
    store(platform, "tickets")
    few = ContextConfig(name="c", examples=32)
    with (
        platform.database.connect() as connection,
        pytest.raises(PermanentError, match="c wants 32 worked examples, but dataset tickets has 8 train inputs"),
    ):
        draw(connection, "tickets", few)
    labels = list(task_world.TOPICS)
    assert [one.answer for one in six] == [*labels, *labels[:2]]
    assert len(pool) == 40
    assert pool[:6] == six
    assert all(one.context == "" and one.documents == () for one in pool)


def test_a_drawn_pool_is_part_of_the_variant(make_platform: Callable[..., Platform]) -> None:
    platform = make_platform(**task_world.triage())
    store(platform, "tickets")
    with platform.database.connect() as connection:
        plain, near = expand(platform.config, platform.models, platform.config.experiments["triage"], connection)
    assert (plain.name, near.name) == ("shown/classifier", "shown/classifier+near")
    assert plain.examples == ()
    assert len(near.examples) == 40
    assert near.task == plain.task == platform.config.datasets["tickets"].task_spec


# --- from live use ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "experiment", "text", "correction", "answer"),
    [
        (task_world.triage, "triage", "Where is my\nparcel?", "Delivery.", "delivery"),
        (task_world.triage, "triage", "Bill me again", None, "billing"),
        (task_world.fields, "fields", "Order A-12345", None, '{"order_number": "A-12345", "due_date": null, "gate": null}'),
        (task_world.translations, "translations", "The new clock", "Die neue Uhr", "Die neue Uhr"),
    ],
)  # fmt: skip
def test_a_live_input_becomes_one_of_the_dataset(
    make_platform: Callable[..., Platform],
    files: Callable[[], dict[str, Any]],
    experiment: str,
    text: str,
    correction: str | None,
    answer: str,
) -> None:
    made = files()
    settings = made[f"experiments/{experiment}.yaml"]
    settings["grid"] = {"prompt": [settings["baseline"]["prompt"]], "model": settings["grid"]["model"]}
    platform, dataset = make_platform(**made), settings["dataset"]
    store(platform, dataset)
    reply = answer_question(platform, text, experiment=experiment)
    with pytest.raises(PermanentError, match="nobody said what the right answer is"):
        promote_interaction(platform, reply.interaction, dataset, by="me", reason="new")
    give_feedback(platform.database, reply.interaction, -1 if correction else 1, by="me", correction=correction)
    with pytest.raises(PermanentError, match="has no documents"):
        promote_interaction(platform, reply.interaction, dataset, by="me", reason="new", quotes=[("docs/a.md", "x")])
    spec = promote_interaction(platform, reply.interaction, dataset, by="me", reason="new")
    assert (spec.question, spec.answer) == (text, answer)
    again = load_questions(platform.config.question_files(dataset), platform.config.datasets[dataset])
    assert again[-1] == spec


def test_a_correction_that_is_no_label_is_refused(make_platform: Callable[..., Platform]) -> None:
    files = task_world.triage()
    files["experiments/triage.yaml"]["grid"] = {"prompt": ["shown"], "model": ["classifier"]}
    platform = make_platform(**files)
    store(platform, "tickets")
    reply = answer_question(platform, "Where is my parcel?", experiment="triage")
    give_feedback(platform.database, reply.interaction, -1, by="me", correction="post")
    with pytest.raises(PermanentError, match="'post' is not among the labels of the header: billing, delivery"):
        promote_interaction(platform, reply.interaction, "tickets", by="me", reason="new")


# --- tables -------------------------------------------------------------------------------------------------


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_table_of_inputs_and_answers(tmp_path: Path) -> None:
    rows = "".join(f'"Message {n}, with a comma.\nAnd a line.",{"yes" if n % 3 else "no"}\n' for n in range(60))
    report = convert_inputs(
        write(tmp_path / "t.csv", "input,answer\n" + rows + '"Message 1, with a comma.\nAnd a line.",yes\n'),
        tmp_path / "out", name="mails", task="classification",
    )  # fmt: skip
    assert (report.questions, len(report.skipped)) == (60, 1)
    header = DatasetConfig.model_validate(yaml.safe_load((tmp_path / "out/dataset.yaml").read_text()))
    assert (header.task, header.labels, header.sources) == ("classification", ["no", "yes"], [])
    lines = [json.loads(line) for line in (tmp_path / "out/questions.jsonl").read_text().splitlines()]
    assert {line["split"] for line in lines} == {"train", "dev", "test"}
    assert lines[0]["question"] == "Message 0, with a comma.\nAnd a line."
    assert lines[0]["provenance"] == {"kind": "import", "format": "csv", "from": "t.csv"}
    assert not (tmp_path / "out/documents").exists()


def test_an_imported_table_is_a_dataset(tmp_path: Path, make_data_dir: Callable[..., Path]) -> None:
    table = write(tmp_path / "t.csv", 'Text;answer;split;tags.kind\n"Order 7";"{""n"": ""7"", ""due"": null}";dev;a\n')
    result = CliRunner().invoke(
        dataset_import,
        [
            "csv",
            str(table),
            str(tmp_path / "out"),
            "--name",
            "mails",
            "--task",
            "extraction",
            "--column",
            "Text=question",
        ],
    )
    assert result.exit_code == 0, result.output
    files = task_world.triage()
    files["evaluation/mails.yaml"] = (tmp_path / "out/dataset.yaml").read_text()
    files["evaluation/questions.jsonl"] = (tmp_path / "out/questions.jsonl").read_text()
    config = load_config(make_data_dir(**files))
    assert config.datasets["mails"].fields == ["n", "due"]
    (one,) = load_questions(config.question_files("mails"), config.datasets["mails"])
    assert (one.question, one.answer, one.split, one.tags) == (
        "Order 7",
        '{"n": "7", "due": null}',
        "dev",
        {"kind": "a"},
    )


@pytest.mark.parametrize(
    ("table", "task", "words"),
    [
        ("input,answer\na,\nb,x\nc,y\n", "classification", "t.csv:2: answer: this cell is empty"),
        ("text,answer\na,x\nb,y\n", "classification", "t.csv:2: input: this cell is empty, or there is no such column"),
        ("input,answer\na,x\n", "classification", "t.csv: task: classification needs labels, a list of at least two"),
        ("input,answer\na,x\n", "extraction", "t.csv: task: extraction needs fields"),
        ('input,answer\na,"{""n"": 1}"\nb,"{""m"": 1}"\n', "extraction", "t.csv:2: answer: field 'm' is missing"),
        ("input,answer\na,x\n", "translation", "needs languages: {from: en, to: de}"),
        ("input,answer,split\na,x,late\n", "summarization", "t.csv:2: split"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(tmp_path: Path, table: str, task: Any, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        convert_inputs(write(tmp_path / "t.csv", table), tmp_path / "out", name="mails", task=task)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [["squad", "--task", "classification"], ["csv", "--languages", "en:de"], ["csv", "--task", "translation"]],
)
def test_options_that_do_not_belong_together(tmp_path: Path, options: list[str]) -> None:
    table = write(tmp_path / "t.csv", "input,answer\na,x\n")
    result = CliRunner().invoke(dataset_import, [options[0], str(table), str(tmp_path / "out"), *options[1:]])
    assert result.exit_code == 2
    assert "--task" in result.output


def test_the_command_knows_all_tasks() -> None:
    assert _TASKS == TASKS
