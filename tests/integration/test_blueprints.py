"""Every blueprint from an empty folder to a verdict, by the commands it prints, as somebody would type them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

KINDS = ("extraction", "faq", "policy", "summarization", "translation", "triage")


def shell(script: str, folder: Path, **variables: str) -> str:
    """Run a script as in a new terminal: no variable of this project is set but those given."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("GENAIOPS_", "DAGSTER_"))}
    path = f"{Path(sys.executable).parent}:{inherited.get('PATH', '')}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder, env={**inherited, "PATH": path, **variables}, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def printed_commands(output: str) -> list[str]:
    """The commands below ``Next:``, with what is said of them, as they would be pasted."""
    lines = output.split("Next:\n")[1].splitlines()
    return [line.strip() for line in lines if line.startswith("  ")]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_printed_commands_lead_to_a_verdict(kind: str, tmp_path: Path, database_url: str) -> None:
    made = shell(f"genaiops new {kind} my-{kind} --into .", tmp_path)
    commands = printed_commands(made)
    assert [command.split("=")[0].split(" my")[0] for command in commands[:1]] == ["export GENAIOPS_DATA_DIR"]
    assert any(command.startswith(f"genaiops evaluate my-{kind}") for command in commands)
    # the embedded server is left out: it has tests of its own, and a tenth of them would be its start
    said = shell("\n".join(commands), tmp_path, GENAIOPS_DATABASE_URL=database_url)
    assert ("[1]" in said) == (kind in ("faq", "policy"))  # those that answer questions were asked one
    state: dict[str, Any] = json.loads(
        shell(f"{commands[0]}\ngenaiops status --json", tmp_path, GENAIOPS_DATABASE_URL=database_url)
    )
    assert not state["failing"]
    (report,) = (tmp_path / ".genaiops" / "artifacts" / "experiments" / f"my-{kind}").glob("*.html")
    page = report.read_text(encoding="utf-8")
    assert ("Not enough evidence" if kind == "summarization" else "Promote my-") in page
