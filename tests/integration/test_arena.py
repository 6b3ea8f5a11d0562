"""The arena on a throw-away repository: what a pull request edits decides the exit status, and nothing else is touched."""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from pipelines.arena import Outcome, run_arena
from pipelines.settings import Settings
from resources.postgres import migrate
from tests.arena_world import GUARDED_CHOICE, HARMFUL, NEUTRAL, ArenaWorld, make_world
from tests.experiment_support import ELSEWHERE, PRODUCTS, UNGUARDED, sentence
from tests.git_world import git

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def production_url(server_url: str) -> Iterator[str]:
    """A database of the project, and beside it the arena's own when it is made."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    url = server_url.replace("/postgres?", f"/{name}?")
    migrate(url)
    yield url
    with psycopg.connect(server_url, autocommit=True) as connection:
        for one in (name, f"{name}_arena"):
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(one)))


@pytest.fixture(scope="module")
def shared_world(tmp_path_factory: pytest.TempPathFactory) -> ArenaWorld:
    return make_world(tmp_path_factory.mktemp("arena") / "project")


@pytest.fixture
def world(shared_world: ArenaWorld) -> Iterator[ArenaWorld]:
    yield shared_world
    shared_world.reset()


@pytest.fixture(scope="module")
def settings(shared_world: ArenaWorld, production_url: str, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(shared_world.data, tmp_path_factory.mktemp("arena-state"), production_url)


def compared(settings: Settings, world: ArenaWorld, **options: Any) -> Outcome:
    """Run the arena against the first commit; the work tree stays as it is."""
    before, environment = world.state(), dict(os.environ)
    outcome = run_arena(settings, world.base, **options)
    assert world.state() == before
    assert dict(os.environ) == environment
    return outcome


def only(outcome: Outcome) -> dict[str, Any]:
    assert outcome.report["error"] is None
    (experiment,) = outcome.report["experiments"]
    return experiment


def test_without_an_edit_there_is_nothing_to_compare(settings: Settings, world: ArenaWorld) -> None:
    outcome = compared(settings, world)
    assert (outcome.exit_code, outcome.verdict) == (0, "nothing to compare")
    assert not (settings.state_dir / "arena").exists(), "nothing had to be built for that"


def test_an_edit_that_changes_no_answer_is_nothing_to_compare_either(settings: Settings, world: ArenaWorld) -> None:
    world.edit("prompts/guarded.yaml", description="Another description.")
    world.edit("indexes/main.yaml", description="Another description.")
    assert compared(settings, world).verdict == "nothing to compare"


def test_a_harmful_prompt_is_a_regression_and_the_report_says_what_was_compared(
    settings: Settings, world: ArenaWorld
) -> None:
    world.prompt("guarded", HARMFUL)
    outcome = compared(settings, world)
    assert (outcome.exit_code, outcome.verdict) == (1, "regression")
    (pair,) = only(outcome)["pairs"]
    assert (pair["kind"], pair["parts"], pair["verdict"]) == ("answers", ("prompt guarded",), "worse")
    assert pair["base"] == "main/guarded--base/hybrid/k2/extractive"
    assert pair["head"] == "main/guarded/hybrid/k2/extractive"
    assert pair["difference"]["estimate"] < -0.3
    assert {name for name, _ in pair["worst"]} <= {f"else-{number}" for number in range(10)}
    markdown = outcome.markdown
    assert "## Arena: regression" in markdown
    assert "`" + world.base[:12] + "`" in markdown
    assert "with 1 uncommitted files" in markdown
    assert "genaiops.answer\\_quality/1 on 20 questions of products" in markdown
    assert f"content `{only(outcome)['dataset']['content_hash'][:16]}`" in markdown
    assert "snapshots main 1" in markdown
    assert "edited: prompt guarded: system \\(\\+1 \\-1 lines\\)" in markdown
    assert "else\\-0 (-1.00)" in markdown
    for part in ("prompt guarded", "index main", "model extractive"):
        assert part in markdown, part
    said = markdown + json.dumps(outcome.report)
    for text in (*ELSEWHERE, *map(sentence, PRODUCTS), HARMFUL[:30], str(settings.database_url)):
        assert text not in said, "no word of a question, a document or a prompt, and no address"


def test_a_neutral_prompt_passes_and_what_is_remembered_is_not_asked_again(
    settings: Settings, world: ArenaWorld
) -> None:
    world.prompt("guarded", NEUTRAL)
    first = compared(settings, world)
    assert first.exit_code == 0
    assert only(first)["pairs"][0]["changed"] == 0
    again = compared(settings, world)
    assert again.exit_code == 0
    assert only(again)["spent"]["trials_run"] == 0
    assert only(again)["spent"]["generations_paid"] == 0
    strict = compared(settings, world, strict=True)  # 20 questions cannot show that 0.02 are kept
    assert (strict.exit_code, strict.verdict) == (1, "unproven")
    assert compared(settings, world, strict=True, margin=0.5).exit_code == 0


def test_a_committed_edit_is_compared_with_the_branch_it_left(settings: Settings, world: ArenaWorld) -> None:
    world.prompt("guarded", HARMFUL)
    head = world.commit()
    outcome = compared(settings, world)
    assert outcome.exit_code == 1
    assert outcome.report["head"] == {"commit": head, "uncommitted": 0}
    assert outcome.report["base"]["commit"] == world.base


def test_an_edited_variant_that_nobody_answers_with_is_compared_with_itself_before(
    settings: Settings, world: ArenaWorld
) -> None:
    world.prompt("unguarded", f"{UNGUARDED} Be brief.")
    outcome = compared(settings, world)
    (pair,) = only(outcome)["pairs"]
    assert (pair["kind"], pair["parts"]) == ("edited", ("prompt unguarded",))
    assert pair["base"] == "main/unguarded--base/hybrid/k2/extractive", "the variant that is nearest to the champion"
    assert outcome.exit_code == 0


def test_an_index_that_is_cut_otherwise_is_built_beside_the_base_s(settings: Settings, world: ArenaWorld) -> None:
    world.edit("indexes/main.yaml", chunker={"kind": "fixed", "unit": "characters", "size": 16, "overlap": 0})
    outcome = compared(settings, world)
    (pair,) = only(outcome)["pairs"]
    assert pair["parts"] == ("index main",)
    assert pair["changes"] == ["index main: chunker"]
    assert set(only(outcome)["snapshots"]) == {"main", "main--base"}
    assert pair["base_mean"] - pair["head_mean"] == pytest.approx(0.1), "three answers are cut in two"
    assert (outcome.exit_code, pair["verdict"]) == (0, "not shown"), "three of twenty may be chance"
    assert pair["detectable"] > 0.1


def test_documents_that_vanish_with_a_change_stop_it_at_the_gate(settings: Settings, world: ArenaWorld) -> None:
    for product in PRODUCTS[:12]:
        world.write(f"docs/{product}.md", None)
    world.prompt("guarded", NEUTRAL)
    outcome = compared(settings, world)
    assert outcome.exit_code == 1, only(outcome)["reason"]
    assert only(outcome)["reason"].startswith("blocking checks failed: ")
    assert only(outcome)["pairs"] == []
    assert any("12 other files of the data directory changed" in note for note in outcome.report["notes"])


def test_a_new_prompt_is_told_of_and_does_not_decide(settings: Settings, world: ArenaWorld) -> None:
    world.prompt("careless", HARMFUL)
    experiment = (world.data / "experiments" / "catalogue.yaml").read_text()
    world.write("experiments/catalogue.yaml", experiment.replace("- unguarded", "- unguarded\n  - careless", 1))
    outcome = compared(settings, world)
    (pair,) = only(outcome)["pairs"]
    assert (pair["kind"], pair["gates"], pair["verdict"]) == ("new", False, "worse")
    assert outcome.exit_code == 0
    assert "new variant (does not decide)" in outcome.markdown


def test_a_promoted_champion_is_defended_not_the_baseline(settings: Settings, world: ArenaWorld) -> None:
    name = "main/unguarded/hybrid/k1/extractive"
    with psycopg.connect(str(settings.database_url), options="-csearch_path=genaiops,public") as connection:
        connection.execute("INSERT INTO variant (fingerprint, name, config) VALUES ('f', %s, '{}')", (name,))
        connection.execute(
            """INSERT INTO judge_calibration (judge, fingerprint, labels, items, scores, measures, passed, run_id)
               VALUES ('j', 'f', 'l', 2, '[0.5, null]', '{"auc": 0.9}', true, 'r')"""
        )
        connection.execute(
            "INSERT INTO champion (experiment, variant, result_id, reason, set_by) VALUES ('catalogue', 'f', NULL, 'r', 't')"
        )
    try:
        world.prompt("guarded", HARMFUL)
        outcome = compared(settings, world)
        pairs = {pair["kind"]: pair for pair in only(outcome)["pairs"]}
        assert only(outcome)["champion"] == f"{name}, promoted"
        assert set(pairs) == {"edited"}, "who answers was not edited, what was edited is compared all the same"
        assert outcome.exit_code == 1
        own = str(settings.database_url).replace("?", "_arena?", 1)
        with psycopg.connect(own, options="-csearch_path=genaiops,public") as connection:
            known = connection.execute("SELECT judge, scores, measures, passed FROM judge_calibration").fetchall()
        assert known == [("j", [0.5, None], {"auc": 0.9}, True)], "what judges have shown comes along"
        world.reset()
        world.prompt("unguarded", f"{UNGUARDED} Be brief.")
        (pair,) = only(compared(settings, world))["pairs"]
        assert (pair["kind"], pair["shown"]) == ("answers", (name, name))
    finally:
        with psycopg.connect(str(settings.database_url), options="-csearch_path=genaiops,public") as connection:
            connection.execute("DELETE FROM champion")
            connection.execute("DELETE FROM variant")
            connection.execute("DELETE FROM judge_calibration")


def test_production_is_only_read(settings: Settings, world: ArenaWorld) -> None:
    with psycopg.connect(str(settings.database_url), options="-csearch_path=genaiops,public") as connection:
        for table in ("document", "index_state", "experiment_result", "trial", "generation", "champion"):
            count = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))).fetchone()
            assert count == (0,), table
        database = connection.execute("SELECT current_database()").fetchone()
        assert database is not None
        made = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (f"{database[0]}_arena",)).fetchone()
        assert made == (1,)


def test_a_guard_that_is_broken_is_a_regression(settings: Settings, world: ArenaWorld) -> None:
    guards = [{"metric": "genaiops.refusal_accuracy/1", "minimum": 0.9}]
    world.edit("experiments/catalogue.yaml", guards=guards)
    world.prompt("guarded", HARMFUL)
    outcome = compared(settings, world, margin=0.9)
    assert outcome.exit_code == 1
    assert "guard genaiops.refusal_accuracy/1 (minimum) broken" in only(outcome)["reason"]
    assert any("edits the rules it is judged by (guards)" in note for note in only(outcome)["notes"])


def test_a_change_that_breaks_a_blocking_check_is_a_regression(settings: Settings, world: ArenaWorld) -> None:
    question = json.loads((world.data / "evaluation" / "products.jsonl").read_text().splitlines()[0])
    leak = {"question": question["question"], "context": "c", "answer": question["answer"]}
    system = HARMFUL + "{% for one in examples %}{{ one.question }} {{ one.answer }}{% endfor %}"
    world.prompt("guarded", system)
    world.edit("prompts/guarded.yaml", examples=[leak])
    outcome = compared(settings, world)
    assert outcome.exit_code == 1
    assert "prompts_leak_nothing" in only(outcome)["reason"] or "leak" in only(outcome)["reason"]
    assert question["question"] not in outcome.markdown


def test_too_few_questions_are_not_evaluated(settings: Settings, world: ArenaWorld) -> None:
    lines = (world.data / "evaluation" / "products.jsonl").read_text().splitlines()
    kept = [line for line in lines if json.loads(line)["split"] == "test"] + lines[:10]
    world.write("evaluation/products.jsonl", "\n".join(kept) + "\n")
    world.prompt("guarded", HARMFUL)
    outcome = compared(settings, world)
    assert (outcome.exit_code, outcome.verdict) == (2, "not evaluated")
    assert "10 independent questions are too few; they would show a loss of" in only(outcome)["reason"]


def test_a_removed_experiment_is_for_a_person_to_decide(settings: Settings, world: ArenaWorld) -> None:
    world.write("experiments/catalogue.yaml", None)
    outcome = compared(settings, world)
    assert outcome.exit_code == 2
    assert "removes this experiment" in only(outcome)["reason"]


def test_a_renamed_prompt_is_compared_by_who_would_answer(settings: Settings, world: ArenaWorld) -> None:
    world.write("prompts/guarded.yaml", None)
    world.prompt("careful", HARMFUL)
    experiment = (world.data / "experiments" / "catalogue.yaml").read_text()
    world.write(
        "experiments/catalogue.yaml", experiment.replace("guarded\n", "careful\n").replace("uncareful", "unguarded")
    )
    outcome = compared(settings, world)
    (pair,) = only(outcome)["pairs"]
    assert pair["kind"] == "answers"
    assert pair["shown"] == ("main/guarded/hybrid/k2/extractive", "main/careful/hybrid/k2/extractive")
    assert pair["note"] == "the change names another baseline"
    assert outcome.exit_code == 1


@pytest.mark.parametrize("side", ["head", "base"])
def test_broken_configuration_on_either_side_is_not_evaluated(
    side: str, settings: Settings, world: ArenaWorld, tmp_path: Path
) -> None:
    if side == "head":
        world.write("prompts/guarded.yaml", "name: [guarded\n")
        outcome = compared(settings, world)
    else:
        broken = make_world(tmp_path / "other", {"prompts/guarded.yaml": "name: guarded\nsytem: x\n"})
        broken.prompt("guarded", HARMFUL)
        outcome = run_arena(replace(settings, data_dir=broken.data), broken.base)
        assert "data/prompts/guarded.yaml" in outcome.report["error"]
        assert "/tmp" not in outcome.report["error"].replace(str(tmp_path), ""), "where it was unpacked says nothing"
    assert outcome.exit_code == 2
    assert outcome.report["error"].startswith(f"the configuration of the {side}")
    assert "**Not evaluated:**" in outcome.markdown


def test_an_unknown_base_a_shallow_clone_and_no_git_are_not_evaluated(
    settings: Settings, world: ArenaWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "fetch it first" in run_arena(settings, "no-such-branch").report["error"]
    assert "names no commit" in run_arena(settings, "--output=/tmp/x").report["error"]
    world.prompt("guarded", NEUTRAL)
    world.commit()
    git(tmp_path, "clone", "--quiet", "--depth", "1", f"file://{world.root}", "shallow")
    shallow = run_arena(replace(settings, data_dir=tmp_path / "shallow" / "data"), world.base)
    assert shallow.exit_code == 2
    assert "fetch-depth: 0" in shallow.report["error"]
    (tmp_path / "plain").mkdir()
    plain = run_arena(replace(settings, data_dir=tmp_path / "plain"), "main")
    assert "in no git repository" in plain.report["error"]
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "git is not installed" in run_arena(settings, "main").report["error"]


def test_killed_in_mid_run_and_run_again_repeats_nothing(settings: Settings, world: ArenaWorld) -> None:
    world.prompt("guarded", HARMFUL + " Cite every sentence.")
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from resources import faults\n"
        "from assets.experiments import trials\n"
        "from pipelines.arena import run_arena\n"
        "from pipelines.settings import Settings\n"
        "def crash(point):\n"
        "    if point == 'experiments.trial_committed':\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "trials.crash_point = crash\n"
        "trials.COMMIT_SIZE = 5\n"
        "run_arena(Settings(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]), sys.argv[4])\n"
    )
    arguments = [str(settings.data_dir), str(settings.state_dir), str(settings.database_url), world.base]
    killed = subprocess.run([sys.executable, "-c", program, *arguments], cwd=ROOT, capture_output=True, check=False)
    assert killed.returncode == -9, killed.stderr.decode()
    outcome = compared(settings, world)
    assert outcome.exit_code == 1
    spent = only(outcome)["spent"]
    assert spent["trials_reused"] >= 5
    assert spent["trials_run"] + spent["trials_reused"] == 40
    assert GUARDED_CHOICE["prompt"] in outcome.markdown
