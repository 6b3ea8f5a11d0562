"""The workflow file: what it may do, and every command in it carried out in a throw-away clone with stand-ins for GitHub."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from resources.postgres import stop_embedded
from tests.arena_world import HARMFUL, ArenaWorld, make_world
from tests.git_world import git

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / ".github" / "workflows" / "arena.yml"


def workflow() -> dict[str, Any]:
    # YAML 1.1 reads the key "on" as true
    return {
        "on" if key is True else key: value for key, value in yaml.safe_load(FILE.read_text(encoding="utf-8")).items()
    }


def steps() -> list[dict[str, Any]]:
    return workflow()["jobs"]["arena"]["steps"]


def test_a_pull_request_from_anywhere_gets_no_right_and_no_secret() -> None:
    found = workflow()
    assert found["on"] == "pull_request"
    assert found["permissions"] == {"contents": "read"}
    assert "secrets." not in FILE.read_text(encoding="utf-8")
    assert "permissions" not in found["jobs"]["arena"]
    assert found["concurrency"]["cancel-in-progress"] is True
    checkout = steps()[0]
    assert checkout["uses"].startswith("actions/checkout@v")
    assert checkout["with"] == {"fetch-depth": 0, "persist-credentials": False}


def test_no_command_holds_an_expression_that_a_pull_request_could_write_into() -> None:
    for step in steps():
        assert "${{" not in step.get("run", ""), step
    assert set(workflow()["jobs"]["arena"]["env"]) == {"BASE"}


def test_every_action_is_one_of_github_s_own_and_pinned_to_a_version() -> None:
    used = [step["uses"] for step in steps() if "uses" in step]
    assert len(used) == 5
    for name in used:
        owner, _, version = name.partition("@")
        assert owner.startswith("actions/")
        assert version.startswith("v")


def test_what_is_remembered_and_the_report_are_kept_when_the_comparison_fails() -> None:
    by_name = {step.get("name") or step["uses"].partition("@")[0]: step for step in steps()}
    for name in ("actions/cache/save", "Show the report", "actions/upload-artifact"):
        assert by_name[name]["if"] == "always()", name
    assert by_name["actions/cache/restore"]["with"]["path"] == by_name["actions/cache/save"]["with"]["path"]
    assert by_name["actions/cache/restore"]["with"]["key"] == by_name["actions/cache/save"]["with"]["key"]


def stand_in(world: ArenaWorld, clone: Path) -> dict[str, str]:
    """What the actions would have set up: a clone on the pull request's commit, a Python, an environment that is ready."""
    git(clone.parent, "clone", "--quiet", f"file://{world.root}", clone.name)
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, clone / name)
    programs = clone / ".venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "python").symlink_to(sys.executable)
    (programs / "genaiops").write_text(f'#!/bin/sh\ncd "{ROOT}" && exec "{sys.executable}" -m pipelines.cli "$@"\n')
    (programs / "genaiops").chmod(0o755)
    (clone / ".venv" / ".ready").touch()
    return {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "HOME": str(clone),
        "BASE": "origin/main",
        "GITHUB_STEP_SUMMARY": str(clone / "summary.md"),
        "GENAIOPS_DATA_DIR": str(clone / "data"),
        "GENAIOPS_STATE_DIR": str(clone / ".genaiops"),
    }


@pytest.mark.slow
def test_every_command_runs_and_the_job_fails_on_a_harmful_prompt(tmp_path: Path) -> None:
    world = make_world(tmp_path / "project")
    git(world.root, "checkout", "--quiet", "-b", "change")
    world.prompt("guarded", HARMFUL)
    world.commit()
    clone = tmp_path / "clone"
    environment = stand_in(world, clone)
    statuses = {}
    try:
        for step in steps():
            if "run" not in step or (1 in statuses.values() and step.get("if") != "always()"):
                continue
            # the stand-in works in the checkout of the code, so that paths of the clone are written out
            command = step["run"].replace("arena.md", f"{clone}/arena.md").replace("arena.json", f"{clone}/arena.json")
            done = subprocess.run(
                ["bash", "-e", "-o", "pipefail", "-c", command],
                cwd=clone, env=environment, capture_output=True, text=True, check=False,
            )  # fmt: skip
            statuses[step["name"]] = done.returncode
            assert done.returncode in (0, 1), done.stderr
    finally:
        stop_embedded(clone / ".genaiops" / "arena" / "postgres")
    assert statuses == {"Set up the environment": 0, "Compare with the base": 1, "Show the report": 0}
    summary = (clone / "summary.md").read_text(encoding="utf-8")
    assert summary.startswith("## Arena: regression")
    assert "against base origin/main" in summary
    assert (clone / "arena.json").is_file()
    assert (clone / ".genaiops" / "arena" / "postgres" / "PG_VERSION").is_file()
    assert not (clone / ".genaiops" / "arena" / "postgres" / "postmaster.pid").exists(), "a live database is no cache"
    assert not (clone / ".genaiops" / "postgres").exists(), "the project's own database was not even started"
    assert git(clone, "status", "--porcelain", "data") == ""
