"""Drift checks: each fails on what it is there for, and only a report that was not computed blocks."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import dagster as dg
import pytest

from assets.monitoring import documents
from assets.monitoring.assets import build_assets
from assets.monitoring.checks import drift_checks, drift_computed, drift_outcome
from assets.monitoring.signals import Comparison, Signal, Verdict, judge, not_measured
from assets.outcomes import blocked
from resources.platform import Platform
from resources.policy_config import DriftPolicy

POLICY = DriftPolicy()


def signal(name: str, effect: float, p_value: float | None, measure: str = "PSI") -> Signal:
    return Signal(name, name, measure, effect, p_value, (100, 100), "a → b")


def comparison(*signals: Signal, subject: str = "documents:main") -> Comparison:
    return Comparison(subject, "snapshot 1", "snapshot 2", {}, signals=signals)


def verdict(*signals: Signal) -> Verdict:
    return judge([comparison(*signals)], POLICY)[0].verdict


@pytest.mark.parametrize(
    ("effect", "p_value", "expected"),
    [
        (0.05, 0.001, "none"),  # significant but small
        (0.15, 0.001, "warn"),
        (0.30, 0.001, "alert"),
        (0.30, 0.200, "none"),  # large, but so is chance in a small sample
    ],
)
def test_psi_needs_size_and_significance(effect: float, p_value: float, expected: Verdict) -> None:
    assert verdict(signal("length", effect, p_value)) == expected


def test_a_distribution_test_alone_warns() -> None:
    assert (
        verdict(signal("embedding", 0.01, 0.002, "MMD²"), signal("vocabulary", 0.01, 0.5, "Jensen-Shannon")) == "warn"
    )


def test_words_and_meaning_together_alert() -> None:
    moved = signal("vocabulary", 0.1, 0.002, "Jensen-Shannon")
    assert verdict(signal("embedding", 0.01, 0.002, "MMD²"), moved) == "alert"


def test_a_few_foreign_documents_among_many_only_warn() -> None:
    moved = signal("vocabulary", 0.1, 0.002, "Jensen-Shannon"), signal("embedding", 0.01, 0.002, "MMD²")
    assert judge([replace(comparison(*moved), new_share=0.02)], POLICY)[0].verdict == "warn"


def test_the_tests_of_all_subjects_are_one_family() -> None:
    alone = [comparison(signal("length", 0.3, 0.02))]
    others = [comparison(signal("length", 0.3, 0.9), subject=f"documents:i{number}") for number in range(5)]
    assert judge(alone, POLICY)[0].verdict == "alert"
    assert judge(alone + others, POLICY)[0].verdict == "none"


def test_nothing_measured_is_not_called_no_drift() -> None:
    result = judge([comparison(not_measured("length", "length", "3 against 4"))], POLICY)[0]
    assert result.verdict == "not enough data"
    assert "3 against 4" in result.words


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        ([], "documents:main: no result"),
        ([comparison(), comparison()], "more than one result"),
        ([comparison()], "no verdict and no reason"),
        ([replace(comparison(not_measured("x", "x", "")), verdict="none")], "not measured without a reason: x"),
        ([replace(comparison(signal("x", math.nan, 0.5)), verdict="none")], "not a finite number: x"),
    ],
)
def test_a_report_with_holes_blocks(found: list[Comparison], problem: str) -> None:
    outcome = drift_computed(found, ["documents:main"])
    assert problem in outcome.observed
    assert blocked([outcome])


def test_a_stated_reason_is_a_result() -> None:
    told = judge([replace(comparison(), reason="Index 'main' has only snapshot 1.")], POLICY)
    assert drift_computed(told, ["documents:main"]).passed


@pytest.mark.parametrize(("given", "severity"), [("warn", "WARN"), ("alert", "ERROR")])
def test_drift_fails_its_check_without_blocking(given: Verdict, severity: str) -> None:
    moved = replace(comparison(signal("length", 0.3, 0.01)), verdict=given, words="Length: a → b.")
    outcome = drift_outcome("document_drift", "documents:", [moved])
    assert (outcome.passed, outcome.severity) == (False, severity)
    assert "Length: a → b." in outcome.observed
    assert not blocked(drift_checks([moved], ["documents:main"]))


def test_question_drift_does_not_fail_the_document_check() -> None:
    moved = replace(comparison(signal("length", 0.3, 0.01), subject="questions:quiz"), verdict="alert", words="moved")
    passed = {outcome.name: outcome.passed for outcome in drift_checks([moved], ["questions:quiz"])}
    assert passed == {"drift_computed": True, "document_drift": True, "question_drift": False}


def test_a_broken_report_is_not_published(
    make_platform: Callable[..., Platform], monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = make_platform()

    def broken(*arguments: Any) -> Comparison:
        return comparison(signal("length", math.nan, 0.5))

    monkeypatch.setattr(documents, "compare_documents", broken)
    result = dg.materialize(
        build_assets(platform.config),
        resources={"platform": platform},
        instance=dg.DagsterInstance.ephemeral(),
        partition_key="2026-02-20",
        raise_on_error=False,
    )
    assert not result.success
    assert not result.get_asset_materialization_events()
    assert not (platform.artifacts / "drift").exists()
    with platform.database.connect() as connection:
        assert connection.execute("SELECT count(*) FROM drift_result").fetchone() == (0,)
