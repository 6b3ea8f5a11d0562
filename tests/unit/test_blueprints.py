"""Blueprints: what is added is valid and complete, nothing is overwritten, and all of it can be taken out again."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from assets.evaluation.questions import load_questions
from pipelines.blueprints import adding
from pipelines.blueprints.adding import add, remove, started_project
from pipelines.blueprints.catalogue import FOLDER, blueprints, find
from pipelines.blueprints.yaml_lists import add_entry, add_key, remove_entry
from resources.config import load_config
from resources.errors import ConfigError, PermanentError

ROOT = Path(__file__).resolve().parents[2]
KINDS = ["extraction", "faq", "policy", "summarization", "translation", "triage"]


def content(folder: Path) -> dict[str, bytes | None]:
    """Everything in a folder, empty folders as well."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A copy of the sample's data directory."""
    return Path(shutil.copytree(ROOT / "data", tmp_path / "data"))


# --- the catalogue ------------------------------------------------------------------------------------------


def test_catalogue_has_the_six_kinds_and_the_nearest_is_named() -> None:
    assert [blueprint.kind for blueprint in blueprints()] == KINDS
    with pytest.raises(PermanentError, match="Did you mean 'triage'"):
        find("triag")


@pytest.mark.parametrize("kind", KINDS)
def test_blueprint_is_a_whole_experiment(data: Path, kind: str) -> None:
    added = add(data, kind, "my-own")
    config = load_config(data)
    dataset, experiment = config.datasets["my-own"], config.experiments["my-own"]
    questions = load_questions(config.question_files("my-own"), dataset)
    assert len(questions) >= 30
    splits = Counter(question.split for question in questions)
    assert set(splits) == {"train", "dev", "test"}
    assert splits["dev"] >= 15
    assert splits["test"] >= 10
    assert dataset.licence == "Apache-2.0"
    assert 3 <= len(experiment.choices()) <= 5  # the baseline and two to four others
    assert all(
        config.models.providers[config.chat_model(name).provider].kind == "offline" for name in experiment.model_names
    )
    for file in added.files:
        text = (data / file).read_text(encoding="utf-8")
        assert not any(word in text for word in ("__name__", "__chat__", "__embedder__")), file
    if added.blueprint.has_documents:
        assert dataset.task == "rag"
        assert sum(not question.is_answerable for question in questions) >= 0.2 * len(questions)
        for question in questions:
            for evidence in question.evidence:
                source, _, path = evidence.document.partition("/")
                assert source == "my-own"
                assert evidence.quote
                assert evidence.quote in (data / "corpus" / "my-own" / path).read_text(encoding="utf-8")
    else:
        assert dataset.task == {"triage": "classification"}.get(kind, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_added_can_be_taken_out_to_the_last_byte(data: Path, kind: str) -> None:
    before = content(data)
    added = add(data, kind, "my-own")
    after = content(data)
    assert {name for name in before if after[name] != before[name]} <= {"sources.yaml", "models.yaml"}
    assert {f"{name}" for name, one in after.items() if name not in before and one is not None} == {
        *added.files, "blueprints/my-own.json",
    }  # fmt: skip
    assert set(remove(data, "my-own")) == set(added.files)
    assert content(data) == before


def test_every_file_is_packaged() -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"][
        "pipelines.blueprints"
    ]
    packaged = {path for pattern in patterns for path in FOLDER.glob(pattern)}
    assert {path for path in FOLDER.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")} == packaged


def test_two_kinds_live_side_by_side_and_share_a_model(data: Path) -> None:
    first, second = add(data, "triage", "first"), add(data, "triage", "second")
    assert first.entries == {"models.yaml": ("chat.classifier",)}
    assert second.entries == {}
    remove(data, "first")  # the model that came with it stays, since the second one uses it
    assert load_config(data).chat_model("classifier").model == "classifier"
    remove(data, "second")
    assert "second" not in load_config(data).experiments


def test_names_of_models_that_mean_something_else_are_left_alone(data: Path) -> None:
    models = data / "models.yaml"
    models.write_text(
        models.read_text(encoding="utf-8").replace("name: openai-mini", "name: classifier"), encoding="utf-8"
    )
    added = add(data, "triage", "support")
    assert added.entries == {"models.yaml": ("chat.offline-classifier",)}
    config = load_config(data)
    assert config.experiments["support"].model_names == ["offline-classifier"]
    assert config.chat_model("classifier").model == "gpt-4.1-mini"


def test_provider_is_added_where_no_offline_one_is(data: Path) -> None:
    (data / "experiments" / "handbook-answers.yaml").unlink()
    (data / "experiments" / "handbook-chunks.yaml").unlink()
    for path in (data / "indexes").glob("*.yaml"):
        path.write_text(
            path.read_text(encoding="utf-8").replace("embedder: lexical", "embedder: small"), encoding="utf-8"
        )
    (data / "models.yaml").write_text(
        "# ours\nproviders:\n  house: {kind: openai}   # the gateway\nembedding:\n- {name: small, provider: house, model: e, dimensions: 8}\n"
        "chat:\n- {name: big, provider: house, model: c}\n",
        encoding="utf-8",
    )
    added = add(data, "faq", "help")
    assert added.entries["models.yaml"] == ("providers.offline", "chat.extractive", "embedding.lexical")
    config = load_config(data)
    assert config.models.providers["offline"].kind == "offline"
    assert config.indexes["help-sections"].embedder == "lexical"
    text = (data / "models.yaml").read_text(encoding="utf-8")
    assert text.startswith("# ours\nproviders:\n  house: {kind: openai}   # the gateway\n  offline:\n")


def test_index_over_all_sources_is_told(data: Path) -> None:
    index = data / "indexes" / "handbook-large.yaml"
    index.write_text(index.read_text(encoding="utf-8").replace("sources: [handbook]", "sources: all"), encoding="utf-8")
    assert add(data, "faq", "help").covers == ("handbook-large",)
    assert add(data, "triage", "support").covers == ()


# --- refusals and rolling back ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "Upper", "1st", "a b", "../up", "x" * 41, "über"])
def test_bad_name_is_refused(data: Path, name: str) -> None:
    before = content(data)
    with pytest.raises(PermanentError, match="cannot be a name"):
        add(data, "triage", name)
    assert content(data) == before


@pytest.mark.parametrize(
    ("file", "text", "says"),
    [
        ("prompts/help-open.yaml", "mine", "not valid|expected keys"),
        ("corpus/help/fees.md", "mine", "nothing is overwritten.*corpus/help/fees.md"),
        ("prompts/mine.yaml", "{name: help-open, system: a, user: '{{ question }} {{ passages }}'}", "already a prompt named 'help-open'"),
        ("evaluation/help.jsonl", "", "nothing is overwritten.*evaluation/help.jsonl"),
    ],
)  # fmt: skip
def test_what_is_there_is_never_overwritten(data: Path, file: str, text: str, says: str) -> None:
    path = data / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    before = content(data)
    with pytest.raises((PermanentError, ConfigError), match=says):
        add(data, "faq", "help")
    assert content(data) == before


def test_name_of_a_source_is_taken(data: Path) -> None:
    sources = data / "sources.yaml"
    more = "  - {name: rules, path: corpus/handbook, include: ['*.nothing']}\n"
    sources.write_text(sources.read_text(encoding="utf-8") + more, encoding="utf-8")
    with pytest.raises(PermanentError, match="already a source named 'rules'"):
        add(data, "policy", "rules")


def test_line_ends_of_other_systems_stay(data: Path) -> None:
    for name in ("sources.yaml", "models.yaml"):
        (data / name).write_bytes((data / name).read_bytes().replace(b"\n", b"\r\n"))
    before = content(data)
    add(data, "faq", "help")
    add(data, "triage", "support")
    for name in ("sources.yaml", "models.yaml"):
        text = (data / name).read_bytes()
        assert text.count(b"\n") == text.count(b"\r\n")
    remove(data, "help")
    remove(data, "support")
    assert content(data) == before


def test_second_time_says_how_to_take_out_the_first(data: Path) -> None:
    add(data, "triage", "support")
    with pytest.raises(PermanentError, match="genaiops new --remove support"):
        add(data, "faq", "support")


@pytest.mark.parametrize("step", ["load_config", "_check_questions", "_replace"])
def test_failure_at_any_step_leaves_the_folder_as_it_was(
    data: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content(data)
    real: Callable[..., Any] = getattr(adding, step)
    calls = 0

    def fail_last(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == {"load_config": 2, "_check_questions": 1, "_replace": 2}[step]:
            raise OSError(28, "No space left on device")
        return real(*arguments)

    monkeypatch.setattr(adding, step, fail_last)
    with pytest.raises(OSError, match="No space"):
        add(data, "faq", "help")
    assert content(data) == before


@pytest.mark.parametrize("point", ["blueprints.noted", "blueprints.files_written"])
def test_killed_half_way_is_found_and_taken_out(data: Path, point: str) -> None:
    before = content(data)
    program = f"from pathlib import Path; from pipelines.blueprints.adding import add; add(Path({str(data)!r}), 'faq', 'help')"
    environment = {**os.environ, "GENAIOPS_CRASH_POINT": point}
    killed = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    (data / "prompts" / "help-open.yaml").unlink(missing_ok=True)  # as if it had got no further
    for path in (data / "indexes", data / "experiments"):
        for file in path.glob("help*.yaml"):
            file.unlink()
    load_config(data) if point == "blueprints.noted" else None
    with pytest.raises((PermanentError, ConfigError)):
        add(data, "faq", "help")
    if point == "blueprints.noted":
        with pytest.raises(PermanentError, match="cut short"):
            add(data, "faq", "help")
    remove(data, "help")
    assert content(data) == before


def test_edited_files_are_not_removed_unless_forced(data: Path) -> None:
    add(data, "triage", "support")
    prompt = data / "prompts" / "support-labels.yaml"
    prompt.write_text(prompt.read_text(encoding="utf-8") + "# mine\n", encoding="utf-8")
    before = content(data)
    with pytest.raises(PermanentError, match=r"prompts/support-labels\.yaml.*--force"):
        remove(data, "support")
    assert content(data) == before
    remove(data, "support", force=True)
    assert not prompt.exists()


def test_documents_that_were_added_since_stay(data: Path) -> None:
    add(data, "faq", "help")
    own = data / "corpus" / "help" / "own.md"
    own.write_text("# Ours\n", encoding="utf-8")
    remove(data, "help")
    assert own.read_text(encoding="utf-8") == "# Ours\n"


def test_what_others_use_is_not_removed(data: Path) -> None:
    add(data, "faq", "help")
    index = data / "indexes" / "handbook-large.yaml"
    index.write_text(index.read_text(encoding="utf-8").replace("[handbook]", "[handbook, help]"), encoding="utf-8")
    before = content(data)
    with pytest.raises(PermanentError, match="something else uses"):
        remove(data, "help")
    assert content(data) == before
    with pytest.raises(PermanentError, match="there are: help"):
        remove(data, "other")


# --- projects of their own ----------------------------------------------------------------------------------


def test_project_of_its_own_begins_valid_and_a_failure_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "fresh"
    with pytest.raises(PermanentError, match="cannot be a name"), started_project(folder / "data"):
        add(folder / "data", "triage", "Bad Name")
    assert not folder.exists()
    with started_project(folder / "data"):
        add(folder / "data", "triage", "support")
    config = load_config(folder / "data")
    assert list(config.experiments) == ["support"]
    assert config.source_names == ["documents"]


def test_folder_with_something_else_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("Dear Ada")
    with pytest.raises(PermanentError, match="neither empty nor a data directory"), started_project(tmp_path):
        pytest.fail("it began")
    assert [path.name for path in tmp_path.iterdir()] == ["letters.txt"]


def run(*arguments: str, **environment: str) -> Any:
    from pipelines.cli import main

    return CliRunner().invoke(main, ["new", *arguments], env=environment, catch_exceptions=False)


def test_command_lists_adds_and_removes(data: Path, tmp_path: Path) -> None:
    environment = {"GENAIOPS_DATA_DIR": str(data), "GENAIOPS_STATE_DIR": str(tmp_path / "state")}
    listed = run("--list", **environment)
    assert [line.split()[0] for line in listed.output.splitlines()[: len(KINDS)]] == KINDS
    before = content(data)
    made = run("faq", "help", **environment)
    assert made.exit_code == 0
    assert "genaiops refresh help" in made.output
    assert "genaiops evaluate help" in made.output
    assert "export" not in made.output
    gone = run("--remove", "help", **environment)
    assert gone.exit_code == 0
    assert content(data) == before
    refused = run("faq", "Help", **environment)
    assert refused.exit_code == 1
    assert refused.output.startswith("error: 'Help' cannot be a name")
    assert run("faq", **environment).exit_code == 2
    assert not (tmp_path / "state").exists()


def test_command_says_which_project_its_commands_are_for(tmp_path: Path) -> None:
    environment = {"GENAIOPS_STATE_DIR": str(tmp_path / "state"), "GENAIOPS_DATA_DIR": str(ROOT / "data")}
    own = run("triage", "support", "--own", **environment)
    assert own.exit_code == 0, own.output
    assert "genaiops --project support evaluate support" in own.output
    assert (tmp_path / "state" / "projects" / "support" / "data" / "experiments" / "support.yaml").exists()
    into = run("triage", "support", "--into", str(tmp_path / "with space"), **environment)
    assert f"export GENAIOPS_DATA_DIR='{tmp_path}/with space/data'" in into.output
    again = run("faq", "help", "--into", str(tmp_path / "with space"), **environment)  # a project that is there
    assert again.exit_code == 0, again.output
    assert set(load_config(tmp_path / "with space" / "data").experiments) == {"help", "support"}
    assert run("faq", "x", "--own", "--into", str(tmp_path), **environment).exit_code == 2


# --- lists in YAML ------------------------------------------------------------------------------------------

ENTRY = {"name": "new", "path": "corpus/new", "include": ["**/*.md"]}


@pytest.mark.parametrize(
    "text",
    [
        "sources:\n  - name: a\n    path: x\n",
        "sources:\n- name: a\n  path: x   # why\n",
        "# head\nsources:   # these\n  - {name: a, path: x}\n\n# tail\n",
        "sources:\n    - name: a\n      include:\n      - one\n      # inside\n      - two\n\n\n# end of file",
        "sources:\n  - name: a\n    note: |\n      several\n      lines\nother: 1\n",
        "sources:\n  - name: a\n    path: x\n    # - name: commented\n    #   path: y\nother:\n  - 1\n",
        "sources: []\n",
        "sources: []   # none yet\nother: 1\n",
        "sources:\nother: 1\n",
        "other: 1\n",
        "sources:\n  - name: a\n    path: 'x'",
    ],
)
def test_entry_is_added_and_everything_else_stays(text: str) -> None:
    before = yaml.safe_load(text)
    changed = add_entry(text, "sources", ENTRY, file="f")
    assert yaml.safe_load(changed) == {**before, "sources": [*(before.get("sources") or []), ENTRY]}
    kept = [line for line in text.split("\n") if line.strip() and not line.startswith("sources:")]
    lines = iter(changed.split("\n"))
    assert all(line in lines for line in kept)  # all of them, in their order
    if before.get("sources"):
        assert remove_entry(changed, "sources", "new", file="f") == text
    else:
        assert not yaml.safe_load(remove_entry(changed, "sources", "new", file="f"))["sources"]


@pytest.mark.parametrize(
    "text", ["sources: [{name: a}]\n", "{sources: [{name: a}]}\n", "sources: &x\n  - name: a\nmore: *x\n"]
)
def test_form_that_no_program_changes_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(PermanentError, match=r"(?s)sources\.yaml: sources .*- name: new"):
        add_entry(text, "sources", ENTRY, file="sources.yaml")


def test_entry_is_removed_wherever_it_stands() -> None:
    text = "sources:\n  - name: a\n    path: x\n  # about b\n  - name: b\n    path: y\n  - name: c\n"
    assert (
        remove_entry(text, "sources", "b", file="f") == "sources:\n  - name: a\n    path: x\n  # about b\n  - name: c\n"
    )
    assert remove_entry(text, "sources", "d", file="f") == text
    assert (
        json.dumps(yaml.safe_load(add_key("a:\n  b: 1\n", "a", "c", {"d": 2}, file="f")))
        == '{"a": {"b": 1, "c": {"d": 2}}}'
    )
    with pytest.raises(PermanentError, match="not changed by a program"):
        add_key("a: {b: 1}\n", "a", "c", {"d": 2}, file="f")
