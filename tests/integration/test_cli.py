"""The command line: what each command prints, changes and refuses, on one small project.

The commands run in this process (``CliRunner``), on the state of a module-scoped project; tests that change it for
good stand last. ``demo`` runs in processes of its own, because that is what `make demo` does.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString

import click
import psycopg
import pytest
import yaml
from click.testing import CliRunner, Result
from psycopg import sql

from pipelines.cli import main
from resources.postgres import stop_embedded
from tests.conftest import MODELS

ROOT = Path(__file__).resolve().parents[2]
CANARY = "The spare key hangs behind the canary cage of Mrs Abernathy."
PAGES = {
    "brakes.md": "# Brakes\n\nThe brake pads last about 3,000 km.\n\n## Bleeding\n\nBleed the brakes once a year with mineral oil.\n",
    "battery.md": "# Battery\n\nThe battery holds 750 Wh.\n\n## Storage\n\nStore the battery at 10 to 20 degrees, half charged.\n",
    "chain.md": "# Chain\n\nOil the chain every 250 km.\n\n## Wear\n\nReplace the chain at 0.75 percent elongation.\n",
    "lights.md": "# Lights\n\nThe front light gives 80 lux.\n",
    "keys.md": f"# Keys\n\nEvery lock comes with two keys.\n\n{CANARY}\n",
    "tyres.md": "# Tyres\n\nPump the tyres to 3.5 bar every two weeks.\n",
    "stub.md": "Soon.\n",  # shorter than the policy allows: quarantined
}
QUESTIONS = [
    ("How often is the chain oiled?", "every 250 km", "chain.md", "Oil the chain every 250 km."),
    ("How long do brake pads last?", "about 3,000 km", "brakes.md", "The brake pads last about 3,000 km."),
    ("How much energy does the battery hold?", "750 Wh", "battery.md", "The battery holds 750 Wh."),
    ("How bright is the front light?", "80 lux", "lights.md", "The front light gives 80 lux."),
    ("Which colour is the saddle?", None, None, None),
]
CHOICE = {"index": "main", "prompt": "exact", "search_mode": "hybrid", "k": 3, "model": "extractive"}


def write_project(root: Path) -> Path:
    """A data directory with one source, index, prompt, dataset and experiment, and its documents in ``root/docs``."""
    lines = [
        {
            "id": f"q{number}",
            "question": question,
            "answer": answer,
            "evidence": [{"document": f"docs/{page}", "quote": quote}] if page else [],
            "split": "dev",
            "tags": {},
        }
        for number, (question, answer, page, quote) in enumerate(QUESTIONS)
    ]
    files: dict[str, Any] = {
        "sources.yaml": {"sources": [{"name": "docs", "path": str(root / "docs")}]},
        "models.yaml": MODELS,
        "indexes/main.yaml": {
            "name": "main",
            "embedder": "lexical",
            "chunker": {"kind": "markdown", "unit": "characters", "size": 400},
        },
        "prompts/exact.yaml": (ROOT / "data" / "prompts" / "exact.yaml").read_text(encoding="utf-8"),
        "policies/corpus.yaml": {"minimum_characters": 20, "maximum_quarantine_share": 0.5},
        "evaluation/quiz.yaml": {
            "name": "quiz",
            "questions": "quiz.jsonl",
            "sources": ["docs"],
            "minimum_questions": 3,
            "maximum_stale_share": 0.5,
        },
        "evaluation/quiz.jsonl": "\n".join(json.dumps(line) for line in lines),
        "experiments/answers.yaml": {
            "name": "answers",
            "dataset": "quiz",
            "grid": {**{axis: [value] for axis, value in CHOICE.items()}, "search_mode": ["hybrid", "full_text"]},
            "baseline": CHOICE,
            "resamples": 1000,
        },
    }
    for name, value in files.items():
        path = root / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(value if isinstance(value, str) else yaml.safe_dump(value, sort_keys=False), encoding="utf-8")
    (root / "docs").mkdir()
    for name, text in PAGES.items():
        (root / "docs" / name).write_text(text, encoding="utf-8")
    return root / "data"


@dataclass
class Shell:
    """Runs commands on one project."""

    root: Path
    environment: dict[str, str]

    def __call__(self, *arguments: str) -> Result:
        """Run one command in this process, with nothing of its environment left behind."""
        kept = dict(os.environ)
        os.environ.update(self.environment)
        try:
            return CliRunner().invoke(main, list(arguments))
        finally:
            os.environ.clear()
            os.environ.update(kept)

    def ok(self, *arguments: str) -> str:
        """Run a command that must succeed; its output."""
        result = self(*arguments)
        assert result.exit_code == 0, f"{arguments}: {result.output}"
        return result.output

    def refused(self, *arguments: str, code: int = 1) -> str:
        """Run a command that must fail with a message and no traceback; the message."""
        result = self(*arguments)
        assert result.exit_code == code, f"{arguments} ended with {result.exit_code}: {result.output}"
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return " ".join(result.output.split())

    def process(self, *arguments: str) -> tuple[int, str]:
        """Run a command in a process of its own; its exit code and its words, however they were wrapped."""
        done = subprocess.run(
            [sys.executable, "-m", "pipelines.cli", *arguments],
            cwd=ROOT,
            env={**os.environ, **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        return done.returncode, " ".join(done.stdout.split())

    def rows(self, query: LiteralString, *parameters: object) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.environment["GENAIOPS_DATABASE_URL"]) as connection:
            connection.execute("SET search_path = genaiops, public")
            return connection.execute(query, parameters).fetchall()


def open_shell(server_url: str, root: Path) -> Iterator[Shell]:
    """A project with a database of its own, dropped afterwards."""
    name = f"cli_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template_genaiops").format(sql.Identifier(name)))
    environment = {
        "GENAIOPS_DATA_DIR": str(write_project(root)),
        "GENAIOPS_STATE_DIR": str(root / "state"),
        "GENAIOPS_DATABASE_URL": server_url.replace("/postgres?", f"/{name}?"),
    }
    yield Shell(root, environment)
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture(scope="module")
def shell(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """The shared project, refreshed twice, so that there are two snapshots, and evaluated."""
    for shell in open_shell(server_url, tmp_path_factory.mktemp("cli")):
        shell.ok("refresh")
        (shell.root / "docs" / "lights.md").write_text(
            PAGES["lights.md"] + "\nThe rear light blinks.\n", encoding="utf-8"
        )
        shell.ok("refresh", "docs")
        shell.ok("evaluate")
        yield shell


@pytest.fixture
def empty(server_url: str, tmp_path: Path) -> Iterator[Shell]:
    """A project in which nothing ran yet."""
    yield from open_shell(server_url, tmp_path)


# --- help and names --------------------------------------------------------------------------------------


def commands(group: click.Group = main, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        yield (*prefix, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*prefix, name))


@pytest.mark.parametrize("command", [(), *commands()], ids=lambda command: " ".join(command) or "genaiops")
def test_every_command_explains_itself(command: tuple[str, ...]) -> None:
    result = CliRunner().invoke(main, [*command, "--help"])
    assert result.exit_code == 0
    usage, _, text = result.output.partition("\n\n")
    assert usage.startswith("Usage:")
    assert len(text.partition("Options:")[0].split()) >= 3, "no word of what it does"
    options = click.Context(main).command if not command else _command(command)
    for option in options.params:
        if isinstance(option, click.Option):
            assert option.help, f"{option.opts} says nothing"


def _command(path: tuple[str, ...]) -> click.Command:
    found: click.Command = main
    for name in path:
        assert isinstance(found, click.Group)
        found = found.commands[name]
    return found


def test_help_needs_neither_database_nor_heavy_libraries() -> None:
    program = "import sys, pipelines.cli; print(sorted({'dagster', 'psycopg', 'pandas', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "nearest"),
    [
        (("refresh", "dosc"), "docs"),
        (("evaluate", "answer"), "answers"),
        (("ask", "How?", "--source", "doc"), "docs"),
        (("search", "How?", "--source", "doc"), "docs"),
        (("search", "How?", "--index", "mian"), "main"),
        (("snapshots", "mian"), "main"),
        (("rollback", "mian", "--reason", "test"), "main"),
        (("forward", "mian"), "main"),
        (("promote", "answer", "x", "--reason", "test"), "answers"),
        (("ask", "How?", "--experiment", "answer"), "answers"),
        (("ask", "How?", "--variant", "main/exact/hybrid/k4/extractive"), "main/exact/hybrid/k3/extractive"),
        (("quarantine", "list", "--source", "doc"), "docs"),
        (("quarantine", "release", "docs/stab.md"), "stub.md"),
        (("forget", "--document", "docs/key.md", "--yes"), "docs/keys.md"),
        (("forget", "--source", "doc", "--yes"), "docs"),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, tuple) else None,
)
def test_an_unknown_name_is_answered_with_the_nearest(shell: Shell, arguments: tuple[str, ...], nearest: str) -> None:
    result = shell(*arguments)
    assert result.exit_code in (1, 2), result.output
    assert isinstance(result.exception, SystemExit), result.exception
    assert f"Did you mean '{nearest}'?" in " ".join(result.output.split())


def test_an_unknown_project_lists_the_known_ones(shell: Shell) -> None:
    message = shell.refused("--project", "nowhere", "status")
    assert "there is no project 'nowhere'" in message
    assert "genaiops demo --source DIR" in message


# --- validate --------------------------------------------------------------------------------------------


def test_validate_counts_what_is_configured(shell: Shell) -> None:
    output = shell.ok("validate")
    assert "1 sources, 1 indexes, 1 prompts, 1 evaluation datasets, 1 experiments. All valid." in output


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        (
            "indexes/main.yaml",
            {"name": "main", "embedder": "lexcial", "chunker": {"kind": "markdown", "unit": "characters", "size": 400}},
            ("indexes/main.yaml: embedder:", "'lexcial'", "allowed: lexical", "Did you mean 'lexical'?"),
        ),
        (
            "indexes/main.yaml",
            {"name": "main", "embedder": "lexical", "chunkr": {}},
            ("indexes/main.yaml: chunkr: unknown key", "Did you mean 'chunker'?"),
        ),
        (
            "experiments/answers.yaml",
            {
                "name": "answers",
                "dataset": "quiz",
                "grid": {**{axis: [value] for axis, value in CHOICE.items()}, "search_mode": ["hybird"]},
                "baseline": CHOICE,
            },
            ("experiments/answers.yaml: grid.search_mode.0:", "'hybird'", "Did you mean 'hybrid'?"),
        ),
        ("sources.yaml", "sources: [", ("sources.yaml: not valid YAML at line ",)),
    ],
    ids=["reference", "key", "choice", "syntax"],
)
def test_validate_names_file_key_and_the_nearest_allowed(
    shell: Shell, tmp_path: Path, file: str, content: Any, words: tuple[str, ...]
) -> None:
    broken = tmp_path / "data"
    shutil.copytree(shell.environment["GENAIOPS_DATA_DIR"], broken)
    (broken / file).write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
    message = Shell(tmp_path, shell.environment | {"GENAIOPS_DATA_DIR": str(broken)}).refused("validate")
    for word in words:
        assert word in message


# --- reading ---------------------------------------------------------------------------------------------


def test_ask_answers_with_a_citation(shell: Shell) -> None:
    output = shell.ok("ask", "How often is the chain oiled?")
    assert "250 km" in output.splitlines()[0]
    assert "[1] docs/chain.md [" in output
    assert "snapshot 2" in output
    assert "baseline of answers: nothing was promoted yet" in output


def test_ask_json_holds_what_an_auditor_needs(shell: Shell) -> None:
    reply = json.loads(shell.ok("ask", "How much energy does the battery hold?", "--json"))
    assert "750 Wh" in reply["answer"]
    citation = reply["citations"][0]
    text = shell.rows(
        "SELECT text FROM document_text JOIN document_version USING (text_hash) WHERE version_id = %s",
        citation["version_id"],
    )
    assert "750 Wh" in text[0][0][citation["start"] : citation["end"]]
    logged = shell.rows("SELECT question FROM interaction WHERE interaction_id = %s", reply["interaction"])
    assert logged == [("How much energy does the battery hold?",)]


def test_ask_refuses_what_the_documents_do_not_say(shell: Shell) -> None:
    reply = json.loads(shell.ok("ask", "Which opera did the founder compose in Lisbon?", "--json"))
    assert reply["refused"]
    assert reply["citations"] == []


def test_ask_can_read_an_older_snapshot(shell: Shell) -> None:
    assert json.loads(shell.ok("ask", "How bright is the front light?", "--snapshot", "1", "--json"))["snapshot"] == 1
    assert "9" in shell.refused("ask", "How bright is the front light?", "--snapshot", "9")


def test_ask_and_search_as_a_caller(shell: Shell) -> None:
    assert "250 km" in shell.ok("ask", "How often is the chain oiled?", "--public")  # no source has a label
    assert "docs/chain.md" in shell.ok("search", "oil the chain", "--public")
    unknown = shell("ask", "How often is the chain oiled?", "--label", "secret")
    assert unknown.exit_code == 2
    assert "there is no label 'secret'" in unknown.output


def test_an_empty_question_is_refused(shell: Shell) -> None:
    assert "the question is empty" in shell.refused("ask", "  ")


@pytest.mark.parametrize("mode", ["hybrid", "vector", "full_text"])
def test_search_shows_rank_score_and_place(shell: Shell, mode: str) -> None:
    output = shell.ok("search", "oil the chain", "--mode", mode, "-k", "2")
    assert output.startswith(f"main, snapshot 2, {mode}, ")
    assert "1. docs/chain.md [" in output
    assert "3. " not in output


def test_status_shows_the_whole_state(shell: Shell) -> None:
    output = shell.ok("status")
    assert "docs: revision 2, 6 documents, 1 quarantined" in output
    assert "main: serving 2 of 2, 6 documents" in output
    assert "quiz: version 1" in output
    report = json.loads(shell.ok("status", "--json"))
    assert report["sources"][0]["documents"] == 6
    assert report["indexes"][0]["serving"] == 2
    assert report["failing"] == []


def test_status_of_a_new_project_says_what_to_do(empty: Shell) -> None:
    assert "nothing loaded yet; run `genaiops demo` or `genaiops refresh`" in empty.ok("status")
    assert "no published snapshot" in empty.refused("ask", "How often is the chain oiled?")


# --- changing --------------------------------------------------------------------------------------------


def test_a_blocked_check_exits_1_and_shows_expected_against_observed(empty: Shell) -> None:
    empty.ok("refresh")
    for path in (empty.root / "docs").iterdir():
        path.unlink()
    message = empty.refused("refresh", "docs")
    assert "check raw_documents/listing_not_empty: expected" in message
    assert "; observed" in message
    assert "docs failed; run " in message
    assert "main: serving 1 of 1, 6 documents" in empty.ok("status"), "an empty listing deleted documents"


def test_rollback_holds_readers_until_forward(shell: Shell) -> None:
    assert [line.split()[0] for line in shell.ok("snapshots", "main").splitlines()] == ["2", "1"]
    assert "main now serves snapshot 1" in shell.ok("rollback", "main", "--reason", "the rear light is wrong")
    try:
        assert json.loads(shell.ok("ask", "How bright is the front light?", "--json"))["snapshot"] == 1
        assert "HELD by" in shell.ok("status")
        assert "the rear light is wrong" in shell.ok("status")
        assert "no earlier one is retained" in shell.refused("rollback", "main", "--reason", "further")
        assert "snapshot 7 of index 'main' is not retained" in shell.refused(
            "rollback", "main", "--to", "7", "--reason", "further"
        )
    finally:
        assert "main now serves snapshot 2" in shell.ok("forward", "main")
    moves = shell.rows("SELECT from_snapshot, to_snapshot, reason FROM serving_move ORDER BY 1, 2")
    assert (2, 1, "rollback: the rear light is wrong") in moves


def test_rollback_asks_for_a_reason(shell: Shell) -> None:
    assert "--reason" in shell.refused("rollback", "main", code=2)


def test_promote_is_refused_without_evidence(shell: Shell) -> None:
    message = shell.refused("promote", "answers", "main/exact/full_text/k3/extractive", "--reason", "I like it")
    assert "cannot become champion of answers" in message
    assert "does not recommend it" in message
    assert shell.rows("SELECT * FROM champion") == []


def test_import_converts_squad2(shell: Shell, tmp_path: Path) -> None:
    source = tmp_path / "squad"
    (source / "documents").mkdir(parents=True)
    text = "Chains\n\nA chain has 110 links."
    (source / "documents" / "Chains.md").write_text(text, encoding="utf-8")
    start = text.index("A chain")
    paragraph = {"paragraph_id": "p", "document": "documents/Chains.md", "char_start": start, "char_end": len(text)}
    question = {"id": "1", "question": "How many links?", "article": "Chains", "paragraph_id": "p"}
    lines = [
        {**question, "is_impossible": False, "answers": [{"text": "110", "start": 12}]},
        {**question, "id": "2", "is_impossible": True, "answers": []},
    ]
    (source / "paragraphs.jsonl").write_text(json.dumps(paragraph), encoding="utf-8")
    (source / "questions.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    target = tmp_path / "out"
    output = shell.ok("import", "squad2", str(source), str(target))
    assert "1 documents, 2 questions, 1 unanswerable written to" in output
    assert f"genaiops demo --source {target / 'documents'} --questions {target / 'questions.jsonl'}" in output
    assert "this is not a SQuAD 2.0 folder" in shell.refused("import", "squad2", str(target), str(tmp_path / "x"))


def test_quarantine_is_listed_released_and_entered(shell: Shell) -> None:
    assert "docs/stub.md  " in shell.ok("quarantine", "list")
    assert "docs/stub.md is released; run `genaiops refresh docs`." in shell.ok("quarantine", "release", "docs/stub.md")
    shell.ok("refresh", "docs")
    assert "7 documents, 0 quarantined" in shell.ok("status")
    assert "released by" in shell.ok("quarantine", "list")


def test_forget_erases_a_sentence_for_good(shell: Shell) -> None:
    assert "canary cage" in shell.ok("search", "where is the spare key of Mrs Abernathy")
    shell.ok("ask", "Where does the spare key hang?")
    proof = json.loads(shell.ok("forget", "--document", "docs/keys.md", "--yes"))
    assert proof["document_version"] == 1
    assert CANARY not in everything(shell)
    shell.ok("refresh", "docs")  # the file is still in the folder
    assert CANARY not in everything(shell)
    assert "docs/keys.md  " in shell.ok("quarantine", "list")
    assert "canary cage" not in shell.ok("search", "where is the spare key of Mrs Abernathy")
    for row in shell.rows("SELECT snapshot FROM index_snapshot"):
        assert "canary cage" not in shell.ok("search", "spare key Mrs Abernathy", "--snapshot", str(row[0]))


def everything(shell: Shell) -> str:
    """All rows of all tables of both schemas, as text, and all files of the state directory."""
    text: list[str] = []
    with psycopg.connect(shell.environment["GENAIOPS_DATABASE_URL"]) as connection:
        tables = connection.execute(
            "SELECT schemaname, tablename FROM pg_tables WHERE schemaname IN ('genaiops', 'dagster')"
        ).fetchall()
        for table in tables:
            query = sql.SQL("SELECT t::text FROM {} t").format(sql.Identifier(*table))
            text += [row for (row,) in connection.execute(query)]
    for path in (shell.root / "state").rglob("*"):
        if path.is_file():
            text.append(path.read_bytes().decode("utf-8", "replace"))
    return "\n".join(text)


def test_forget_asks_first(shell: Shell) -> None:
    before = shell.rows("SELECT count(*) FROM document_version")
    kept = CliRunner().invoke(main, ["forget", "--help"])
    assert "cannot be undone" in " ".join(kept.output.split())
    assert shell("forget", "--document", "docs/tyres.md").exit_code == 1  # nobody answers the question
    assert shell.rows("SELECT count(*) FROM document_version") == before
    assert "give either --document SOURCE/PATH or --source NAME" in shell.refused("forget", code=2)


# --- demo ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_second_demo_has_nothing_to_do(empty: Shell) -> None:
    code, output = empty.process("demo")
    assert code == 0, output
    assert "Source docs: 6 documents, 1 quarantined (revision 1)" in output
    assert "Recommendation:" in output
    assert "Work done: 7 documents parsed" in output
    assert "Open the UI: genaiops dev, then" in output, "it names a project, but this is none"
    code, output = empty.process("demo")
    assert code == 0, output
    assert "Nothing had changed:" in output
    assert "Work done" not in output


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[Shell]:
    """A project without a configured database: each state directory gets a server of its own."""
    # not below pytest's folders: as root the server runs under a user of its own, which must get there
    state = Path(tempfile.mkdtemp(prefix="genaiops-cli-"))
    environment = {"GENAIOPS_DATA_DIR": str(write_project(tmp_path)), "GENAIOPS_STATE_DIR": str(state)}
    try:
        yield Shell(tmp_path, environment)
    finally:
        for server in state.rglob("postmaster.pid"):
            stop_embedded(server.parent)
        shutil.rmtree(state, ignore_errors=True)


@pytest.mark.slow
def test_demo_of_ones_own_folder_makes_a_project(embedded: Shell) -> None:
    folder = embedded.root / "My Manuals"
    folder.mkdir()
    for name, text in PAGES.items():
        (folder / name).write_text(text, encoding="utf-8")
    for number in range(6):  # enough headings for a smoke set
        sections = "".join(
            f"## Adjusting the {name} of part {number}\n\nTurn the {name} of part {number} by {size} degrees.\n\n"
            for size, name in enumerate(("saddle", "handlebar", "pedal", "spoke"), start=10)
        )
        (folder / f"part-{number}.md").write_text(f"# Part {number}\n\n{sections}", encoding="utf-8")
    code, output = embedded.process("demo", "--source", str(folder))
    assert code == 0, output
    assert "questions were made from headings" in output
    assert "Recommendation:" in output
    assert "genaiops --project my-manuals dev" in output

    state = Path(embedded.environment["GENAIOPS_STATE_DIR"])
    project = state / "projects" / "my-manuals"
    sources = yaml.safe_load((project / "data" / "sources.yaml").read_text(encoding="utf-8"))["sources"]
    assert sources == [{"name": "my-manuals", "path": str(folder)}]
    code, output = embedded.process("--project", "my-manuals", "status")
    assert code == 0, output
    assert "my-manuals: revision 1, 13 documents" in output
    code, output = embedded.process("--project", "my-manuals", "ask", "By how much is the spoke of part 3 turned?")
    assert code == 0, output
    assert "13 degrees" in output
    assert "[1] my-manuals/part-3.md [" in output
    code, output = embedded.process("status")
    assert code == 0, output
    assert "nothing loaded yet" in output, "the project's documents are in the sample's database"
    server = project / "state" / "postgres"
    assert embedded.process("--project", "my-manuals", "stop") == (0, f"PostgreSQL in {server} is stopped.")
    assert not (server / "postmaster.pid").exists()
    assert (state / "postgres" / "postmaster.pid").exists(), "it stopped another project's server"
