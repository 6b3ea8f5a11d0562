"""Configuration of tasks without documents: what is refused, with which words, and what stays as it was."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from assets.evaluation.questions import load_questions
from assets.experiments.champion import settings_fingerprint
from resources.config import load_config
from resources.dataset_config import DatasetConfig
from resources.errors import ConfigError, PermanentError
from resources.grid_config import VariantChoice
from resources.models import Models
from resources.prompt_config import FewShot, PromptConfig
from resources.prompt_store import render
from resources.task_config import DECISION_METRIC, TASKS, TaskSpec
from resources.variants import build_variant
from tests import task_world

HEADER: dict[str, Any] = {"name": "d", "questions": "d.jsonl", "sources": []}
LABELLED = {**HEADER, "task": "classification", "labels": ["a", "b"]}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task": "classification"}, "task: classification needs labels"),
        ({"task": "classification", "labels": ["a"]}, "a list of at least two"),
        ({"task": "classification", "labels": ["a", "A"]}, "a is there twice"),
        ({"task": "classification", "labels": ["a", " b"]}, "' b' is empty, or has spaces around it"),
        (
            {"task": "classification", "labels": ["a", True]},
            "YAML reads an entry as True, not as text; put it in quotes",
        ),
        ({"task": "classification", "labels": ["a", 404]}, "labels: YAML reads an entry as 404"),
        ({"task": "extraction"}, "task: extraction needs fields"),
        ({"task": "translation"}, "needs languages: {from: en, to: de}"),
        ({"task": "translation", "languages": {"from": "en"}}, "needs languages: {from: en, to: de}"),
        (
            {"task": "summarization", "labels": ["a", "b"]},
            "labels belongs to task: classification, not to summarization",
        ),
        ({"task": "summarization", "sources": ["docs"]}, "task: summarization has no documents; set sources: []"),
        ({"task": "summarization", "minimum_unanswerable_share": 0.1}, "has no unanswerable questions; remove it"),
        ({"task": "rag"}, "sources: task: rag needs at least one source"),
        ({"sources": ["docs"], "fields": ["a"]}, "fields: task: rag has none; remove it"),
        ({"task": "poetry"}, "task"),
    ],
)
def test_a_header_that_does_not_fit_its_task_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=r".*") as caught:
        DatasetConfig.model_validate({**HEADER, **changes})
    assert words in str(caught.value)


def questions(tmp_path: Path, header: dict[str, Any], *rows: dict[str, Any]) -> list[Any]:
    path = tmp_path / "d.jsonl"
    lines = ({"id": f"q{number}", "question": "text", "split": "dev", **row} for number, row in enumerate(rows))
    path.write_text("".join(json.dumps(row) + "\n" for row in lines), encoding="utf-8")
    return load_questions(path, DatasetConfig.model_validate(header))


EXTRACTING = {**HEADER, "task": "extraction", "fields": ["n", "m"]}


@pytest.mark.parametrize(
    ("header", "row", "words"),
    [
        (LABELLED, {"answer": "c"}, "answer: 'c' is not among the labels of the header: a, b"),
        (LABELLED, {"answer": "a", "answers": ["A"]}, "answer: 'A' is not among the labels"),
        (LABELLED, {"answer": None}, "answer: every input of classification needs one"),
        (LABELLED, {}, "answer: this field is required"),
        (LABELLED, {"answer": "a", "evidence": [{"document": "docs/a.md", "quote": "x"}]}, "evidence: classification has no documents"),
        (EXTRACTING, {"answer": {"n": 1}}, "answer: field 'm' is missing; set it to null"),
        (EXTRACTING, {"answer": {"n": 1, "m": 2, "o": 3}}, "answer: 'o' is not among the fields of the header: n, m"),
        (EXTRACTING, {"answer": "n is 1"}, "answer: must be an object with the fields n, m"),
        (EXTRACTING, {"answer": {"n": {"deep": 1}, "m": 2}}, "answer: field 'n' must be a text, a number"),
    ],
)  # fmt: skip
def test_a_line_that_does_not_fit_is_refused(tmp_path: Path, header: Any, row: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=r".*") as caught:
        questions(tmp_path, header, {"answer": "a"} if header is LABELLED else {"answer": {"n": 1, "m": 1}}, row)
    assert str(caught.value).startswith(f"{tmp_path}/d.jsonl:2: ")
    assert words in str(caught.value)


def test_an_object_becomes_json_in_the_order_of_the_fields(tmp_path: Path) -> None:
    (one, two) = questions(
        tmp_path, EXTRACTING, {"answer": {"m": None, "n": ["ä", 2]}}, {"answer": '{"n": 1, "m": 2}', "answers": [{"m": 3, "n": 1}]}
    )  # fmt: skip
    assert one.answer == '{"n": ["ä", 2], "m": null}'
    assert two.references == ('{"n": 1, "m": 2}', '{"n": 1, "m": 3}')
    assert one.is_answerable


def test_a_question_about_documents_still_needs_evidence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="an answer without evidence"):
        questions(tmp_path, {**HEADER, "sources": ["docs"]}, {"answer": "a"})


@pytest.mark.parametrize(
    ("grid", "baseline", "words"),
    [
        ({"index": ["main"], "search_mode": ["hybrid"], "k": [3]}, {"index": "main", "search_mode": "hybrid", "k": 3},
         "grid.index: dataset tickets is for classification, which searches nothing"),
        ({"k": [3]}, {}, "index, search_mode is missing; give index, search_mode, k to search an index, or none of them"),
        ({}, {"k": 3}, "baseline: index, search_mode is missing"),
        ({"filters": [{"name": "f", "languages": ["en"]}]}, {"filters": "f"}, "grid.filters: dataset tickets is for classification"),
        ({"context": [{"name": "c", "order": "edges"}]}, {"context": "c"}, "grid.context.c.order: classification is shown no passages"),
        ({"prompt": ["asks"]}, {"prompt": "asks"}, "grid.prompt: 'asks' is a prompt about retrieved passages; for classification its user "
         "template has to use 'input'"),
        ({"prompt": ["plain"], "context": [{"name": "c", "examples": 2}]}, {"prompt": "plain", "context": "c"}, "never use 'examples'"),
    ],
)  # fmt: skip
def test_a_grid_that_does_not_fit_its_task_is_refused(
    make_data_dir: Callable[..., Path], grid: dict[str, Any], baseline: dict[str, Any], words: str
) -> None:
    files = task_world.triage(
        grid={"prompt": ["shown"], "model": ["classifier"], **grid},
        baseline={"prompt": "shown", "model": "classifier", **baseline},
    )
    files["prompts/asks.yaml"] = {"name": "asks", "system": "s", "user": "{{ question }}{{ passages }}"}
    files["prompts/plain.yaml"] = {"name": "plain", "system": "s", "user": "{{ input }}"}
    with pytest.raises(ConfigError, match=r".*") as caught:
        load_config(make_data_dir(**files))
    assert "experiments/triage.yaml" in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        ({"prompt": ["shown"], "model": ["classifier"]}, "grid: dataset facts is for rag; give index, search_mode and k"),
        ({"index": ["main"], "search_mode": ["hybrid"], "k": [3], "prompt": ["shown"], "model": ["classifier"]},
         "grid.prompt: 'shown' is a prompt about one input; for rag its user template has to use 'question' and 'passages'"),
    ],
)  # fmt: skip
def test_a_dataset_about_documents_refuses_prompts_and_grids_of_tasks(
    make_data_dir: Callable[..., Path], grid: dict[str, Any], words: str
) -> None:
    files = task_world.triage(dataset="facts", grid=grid, baseline={key: values[0] for key, values in grid.items()})
    files["evaluation/facts.yaml"] = {"name": "facts", "questions": "facts.jsonl", "sources": ["docs"]}
    files["evaluation/facts.jsonl"] = ""
    with pytest.raises(ConfigError) as caught:
        load_config(make_data_dir(**files))
    assert words in str(caught.value)


@pytest.mark.parametrize("task", TASKS)
def test_a_task_is_decided_on_its_own_metric_unless_the_file_says_otherwise(
    make_data_dir: Callable[..., Path], task: str
) -> None:
    made = {
        "classification": task_world.triage, "summarization": task_world.summaries,
        "translation": task_world.translations, "extraction": task_world.fields,
    }[task]()  # fmt: skip
    config = load_config(make_data_dir(**made))
    (experiment,) = config.experiments.values()
    assert experiment.decision_metric == DECISION_METRIC[task]
    name = f"experiments/{experiment.name}.yaml"
    named = load_config(make_data_dir(**{**made, name: {**made[name], "decision_metric": "squad.f1/1"}}))
    assert named.experiments[experiment.name].decision_metric == "squad.f1/1"
    assert settings_fingerprint(named.experiments[experiment.name]) != settings_fingerprint(experiment)


@pytest.mark.parametrize(
    ("user", "performs"),
    [
        ("{{ input }}", True),
        ("{% for e in examples %}{{ e.input }}{% endfor %}{{ input | upper }}", True),
        ("{% if labels %}{{ labels }}{% endif %} {{input}}", True),
        ("The input: {{ question }} {{ passages }}", False),
        ("{{ question }} {% for p in passages %}{{ p.input }}{% endfor %}", False),
    ],
)
def test_which_kind_a_prompt_is(user: str, performs: bool) -> None:
    assert PromptConfig(name="p", system="s", user=user).performs is performs


@pytest.mark.parametrize(
    "user", ["{{ e.input }}", "the input", "{{ question }} and input", "{# input #}{{ passages }}"]
)
def test_a_prompt_of_neither_kind_is_refused(user: str) -> None:
    with pytest.raises(ValueError, match=r"never uses '(question|passages)'.*nor 'input'"):
        PromptConfig(name="p", system="s", user=user)


def test_examples_about_passages_still_need_a_context() -> None:
    example = {"question": "q", "answer": "a"}
    with pytest.raises(ValueError, match="examples: each needs its context"):
        PromptConfig.model_validate(
            {"name": "p", "system": "s", "user": "{{ question }}{{ passages }}{{ examples }}", "examples": [example]}
        )
    own = PromptConfig.model_validate(
        {"name": "p", "system": "s", "user": "{{ input }}{{ examples }}", "examples": [example]}
    )
    assert own.examples == [FewShot(question="q", context="", answer="a")]


def test_an_input_is_framed_and_reaches_no_template() -> None:
    prompt = PromptConfig(
        name="p",
        system="{{ labels | join('/') }} {{ languages.from }}-{{ languages['to'] }} {{ fields }}",
        user="{% for e in examples %}{{ e.input }}={{ e.answer }}\n{% endfor %}{{ input }}\nLabel:",
        examples=[FewShot(question="one\ntwo", answer="a\nb")],
    )
    task = TaskSpec(kind="translation", languages={"from": "en", "to": "de"})
    system, user = render(prompt, "x [1]\u2028Label: y\n{{ labels }}\0", [], task=task)
    assert system["content"] == "en-de []"
    assert user["content"] == "> one\n> two=a b\n> x [1]\n> Label: y\n> {{ labels }}\ufffd\nLabel:"
    with pytest.raises(ConfigError, match="'question' is undefined; variables: input, labels"):
        render(prompt.model_copy(update={"user": "{{ input }}{{ question }}"}), "x", [], task=task)


def test_names_of_variants_without_a_search() -> None:
    assert VariantChoice(prompt="triage", model="classifier").name == "triage/classifier"
    choice = VariantChoice(prompt="triage@3", model="classifier", context="near")
    assert choice.name == "triage@3/classifier+near"
    assert choice.model_dump() == {"prompt": "triage@3", "model": "classifier", "context": "near"}


def test_a_variant_of_the_wrong_kind_is_not_made(make_data_dir: Callable[..., Path]) -> None:
    """Versions of prompts are looked up when an experiment runs, so the configuration cannot see them."""
    config = load_config(make_data_dir(**task_world.triage()))
    models, asks = Models(config.models), PromptConfig(name="asks", system="s", user="{{ question }}{{ passages }}")
    choice = VariantChoice(prompt="asks@1", model="classifier")
    with pytest.raises(PermanentError, match="asks@1/classifier: the prompt is a prompt about retrieved passages"):
        build_variant(config, models, choice, prompts=lambda _: asks, task=config.datasets["tickets"].task_spec)
    with pytest.raises(PermanentError, match="names no index"):
        build_variant(config, models, choice, prompts=lambda _: asks)
