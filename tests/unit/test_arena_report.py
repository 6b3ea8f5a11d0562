"""The report for a pull request: nothing that a pull request may choose is markup in it."""

from typing import Any

import pytest

from assets.experiments.arena_report import escape, render, summary

HOSTILE = "a|b\n# <img src=x onerror=1> [click](http://evil.example) `code` **b** @everyone $x$"


def report(**changes: Any) -> dict[str, Any]:
    pair = {
        "kind": "answers", "base": "b", "head": "h", "shown": ("old", "new"), "parts": ("prompt x",), "gates": True, "note": "",
        "verdict": "worse", "base_mean": 0.5, "head_mean": 0.4, "difference": {"estimate": -0.1, "low": -0.2, "high": -0.05},
        "p_worse": 0.01, "p_margin": 0.9, "detectable": 0.03, "needed": 50, "changed": 7, "worst": [("q1", -1.0)],
        "changes": ["prompt x: system (+1 -1 lines)"],
    }  # fmt: skip
    one = {
        "name": "exp", "verdict": "regression", "reason": "1 of 1", "champion": "old, the baseline", "notes": [], "pairs": [pair],
        "guards": [], "dataset": {"name": "d", "version": 3, "content_hash": "c" * 32}, "snapshots": {"i": 2},
        "metric": "m/1", "questions": 30, "groups": 30, "confidence": 0.95, "result": 1,
        "variants": {
            "h": {
                "fingerprint": "f" * 32, "offline": True, "failed": 0, "cost": 0.5, "currency": "USD", "prompt_version": 2,
                "prompt": {"name": "x", "fingerprint": "a" * 32}, "model": {"name": "m", "fingerprint": "b" * 32},
            }
        },
        "spent": {"cost": 1.5, "currency": "USD", "tokens": 9, "trials_run": 4, "trials_reused": 5, "generations_paid": 3},
    }  # fmt: skip
    return {
        "verdict": "regression", "exit_code": 1, "base": {"reference": "origin/main", "commit": "1" * 40},
        "head": {"commit": "2" * 40, "uncommitted": 0}, "margin": 0.02, "strict": False, "experiments": [one | changes],
        "notes": [], "error": None,
    }  # fmt: skip


def test_verdict_table_lineage_and_cost_are_told() -> None:
    text = render(report())
    assert text.startswith("## Arena: regression\n")
    assert "`222222222222` against base origin/main `111111111111`; margin 0.02; exit status 1." in text
    row = next(line for line in text.splitlines() if line.startswith("| who answers"))
    assert row.count("|") == 9
    assert "-0.100 (-0.200 to -0.050)" in row
    for part in (
        "version 3, content `cccccccccccccccc`",
        "prompt version 2",
        "offline stand-in",
        "q1 (-1.00)",
        "1.5000 USD",
    ):
        assert part in text, part


@pytest.mark.parametrize(
    "where", ["name", "reason", "champion", "worst", "parts", "notes", "error", "reference", "metric"]
)
def test_a_hostile_name_is_no_markup_anywhere(where: str) -> None:
    hostile = report()
    one = hostile["experiments"][0]
    if where == "worst":
        one["pairs"][0]["worst"] = [(HOSTILE, -1.0)]
    elif where == "parts":
        one["pairs"][0]["parts"] = (HOSTILE,)
    elif where == "notes":
        one["notes"] = [HOSTILE]
    elif where == "error":
        hostile["error"] = HOSTILE
    elif where == "reference":
        hostile["base"]["reference"] = HOSTILE
    else:
        one[where] = HOSTILE
    text = render(hostile)
    assert "<img" not in text.replace("\\<img", "")
    assert "](http" not in text
    assert "http://evil" not in text
    assert " @everyone" not in text
    for line in text.splitlines():
        assert not line.startswith("# "), "a heading of its own"
        if line.startswith("| "):
            assert line.replace("\\|", "").count("|") == 9


def test_a_long_message_is_cut_and_stays_on_one_line() -> None:
    shown = escape("x\u2028y\r\n" + "z" * 5000)
    assert "\n" not in shown
    assert "\u2028" not in shown
    assert len(shown) < 500


def test_an_experiment_without_numbers_has_no_table() -> None:
    text = render(report(pairs=[], verdict="not evaluated", reason="budget"))
    assert "| compared |" not in text
    assert "not evaluated" in text
    assert any(
        "not evaluated: budget" in line for line in summary(report(pairs=[], verdict="not evaluated", reason="budget"))
    )
