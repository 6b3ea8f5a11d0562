"""The command: exit statuses and files, whatever happens inside."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import pipelines.arena
from assets.experiments.arena import Contest
from pipelines.arena import Outcome
from pipelines.cli import main
from pipelines.runner import Task, TaskResult

REPORT: dict[str, Any] = {"verdict": "passed", "exit_code": 0, "error": None, "experiments": [], "notes": ["a note"]}


def command(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["arena", *arguments])


def answering(monkeypatch: pytest.MonkeyPatch, answer: Any) -> list[dict[str, Any]]:
    """Let the arena answer or raise; returns what it was called with."""
    calls: list[dict[str, Any]] = []

    def run(settings: Any, reference: str, **options: Any) -> Any:
        calls.append({"reference": reference, **options})
        if isinstance(answer, BaseException):
            raise answer
        return answer

    monkeypatch.setattr(pipelines.arena, "run_arena", run)
    return calls


def test_the_report_is_written_and_the_exit_status_is_the_verdict_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = answering(
        monkeypatch, Outcome("regression", 1, {**REPORT, "verdict": "regression", "exit_code": 1}, "## M\n")
    )
    out, as_json = tmp_path / "deep" / "a.md", tmp_path / "a.json"
    done = command(
        "--base", "main", "--experiment", "x", "--margin", "0.1", "--strict", "--out", str(out), "--json", str(as_json)
    )
    assert done.exit_code == 1
    assert out.read_text() == "## M\n"
    assert json.loads(as_json.read_text())["verdict"] == "regression"
    assert calls[0]["reference"] == "main"
    assert (calls[0]["experiments"], calls[0]["margin"], calls[0]["strict"]) == (("x",), 0.1, True)
    assert done.stdout.splitlines()[0] == "Arena: regression (exit status 1)"


@pytest.mark.parametrize("error", [RuntimeError("a defect"), KeyboardInterrupt(), OSError("no space left")])
def test_whatever_goes_wrong_is_not_taken_for_a_regression(
    error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, error)
    assert command("--base", "main").exit_code == 2


def test_settings_that_are_wrong_are_not_taken_for_one_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENAIOPS_PROJECT", "there-is-none")
    done = command("--base", "main")
    assert done.exit_code == 2
    assert "there is no project" in done.stderr


@pytest.mark.parametrize("arguments", [[], ["--base", "x", "--margin", "1"], ["--base", "x", "--margin", "-0.1"]])
def test_wrong_arguments_are_refused(arguments: list[str]) -> None:
    assert command(*arguments).exit_code == 2


@pytest.mark.parametrize(
    ("failures", "verdict", "said"),
    [
        (["check raw_documents/volume_drop: expected x; observed y.md"], "regression", "raw_documents/volume_drop"),
        (
            ["check scored_variants/trials_complete: expected; observed; the budget of 1 USD"],
            "not evaluated",
            "trials_complete",
        ),
        (["check search_index/recall: observed main--base at 0.8"], "not evaluated", "failed for the base"),
        (
            [
                "check search_index/recall: observed main--base at 0.8",
                "check search_index/recall_of: observed main at 0.8",
            ],
            "regression",
            "search_index/recall_of",
        ),
        (
            ["step scored_variants: TransientError: the model did not answer"],
            "not evaluated",
            "TransientError: the model",
        ),
        (["check chunks/size: expected; observed", "step embeddings: OSError: x"], "not evaluated", "OSError"),
        (
            [
                "check scored_variants/prompts_leak_nothing: expected none; observed 1 question given away",
                "check scored_variants/trials_complete: expected to be evaluated; observed not evaluated: an earlier check",
            ],
            "regression",
            "prompts_leak_nothing",
        ),
        ([], "not evaluated", "no result"),
    ],
)
def test_a_failed_gate_speaks_against_the_change_and_an_error_says_nothing_of_it(
    failures: list[str], verdict: str, said: str
) -> None:
    contest = Contest("catalogue", "x, the baseline", ())
    found = pipelines.arena._stopped(contest, TaskResult(Task("job", "docs", "docs"), "run", False, {}, failures, {}))
    assert found["verdict"] == verdict
    assert said in found["reason"]
    assert "y.md" not in found["reason"], "a check may name documents"
