"""The recommendation: words that follow from the numbers, and silence where the numbers do not suffice."""

from typing import Any

import numpy as np
import pytest

from assets.evaluation.metrics.base import METRICS
from assets.experiments.recommendation import confirm, diagnose, recommend


def row(name: str, mean: float, **values: Any) -> dict[str, Any]:
    """A leaderboard row; without ``difference`` it is the champion."""
    difference = values.pop("difference", None)
    metrics = values.pop("metrics", {})
    return {
        "variant": name,
        "fingerprint": f"fingerprint of {name}",
        "model": "extractive",
        "offline": False,
        "champion": difference is None,
        "failed": 0,
        "decision": {"estimate": mean, "low": mean - 0.05, "high": mean + 0.05},
        "difference": difference and dict(zip(("estimate", "low", "high"), difference, strict=True)),
        "difference_deviation": 0.4,
        "p_adjusted": None if difference is None else 0.001,
        "p_against_best": 0.001,
        "metrics": {metric: {"answerable": metrics.get(metric)} for metric in METRICS},
        "utilization": None,
        "input_tokens": 1000,
        "output_tokens": 100,
        "cost": 1.0,
        "latency_median": 0.5,
        **values,
    }


def board(*rows: dict[str, Any], **values: Any) -> dict[str, Any]:
    return {
        "experiment": "e",
        "dataset": "facts",
        "decision_metric": "genaiops.answer_quality/1",
        "confidence": 0.95,
        "resamples": 1000,
        "seed": 1,
        "comparisons": sum(not one["champion"] for one in rows),
        "questions": {"answerable": 40, "unanswerable": 10, "compared": 50, "stale": 0},
        "rows": sorted(rows, key=lambda one: -one["decision"]["estimate"]),
        **values,
    }


CHAMPION = row("old", 0.5)


def test_proven_variant_is_recommended_with_its_numbers() -> None:
    result = recommend(board(CHAMPION, row("new", 0.7, difference=(0.2, 0.1, 0.3))))
    assert (result["verdict"], result["recommended"]) == ("promote", "new")
    assert result["recommended_fingerprint"] == "fingerprint of new"
    for part in ("Promote new", "0.700 [0.650, 0.750]", "+0.200 [+0.100, +0.300]", "p = 0.0010", "50 questions"):
        assert part in result["text"]


def test_best_of_several_proven_variants_is_recommended() -> None:
    result = recommend(
        board(CHAMPION, row("a", 0.6, difference=(0.1, 0.01, 0.2)), row("b", 0.8, difference=(0.3, 0.2, 0.4)))
    )
    assert result["recommended"] == "b"


@pytest.mark.parametrize(
    "challenger",
    [
        row("new", 0.6, difference=(0.1, 0.02, 0.18), p_adjusted=0.06),
        row("new", 0.6, difference=(0.1, -0.001, 0.2), p_adjusted=0.01),
    ],
    ids=["p-value", "interval"],
)
def test_either_sign_of_chance_is_not_enough_evidence(challenger: dict[str, Any]) -> None:
    result = recommend(board(CHAMPION, challenger))
    assert (result["verdict"], result["recommended"]) == ("not enough evidence", None)
    power = result["power"]
    # (1.95996 + 0.84162) * 0.4 / sqrt(50) and ((1.95996 + 0.84162) * 0.4 / 0.1) ** 2
    assert power["minimum_detectable_effect"] == pytest.approx(0.158, abs=0.001)
    assert (power["questions_needed"], power["questions_missing"]) == (126, 76)
    assert "about 76 more would be needed" in result["text"]


def test_many_comparisons_ask_for_more_questions() -> None:
    few = recommend(board(CHAMPION, row("new", 0.6, difference=(0.1, -0.1, 0.2), p_adjusted=0.5)))
    many = recommend(board(CHAMPION, row("new", 0.6, difference=(0.1, -0.1, 0.2), p_adjusted=0.5), comparisons=47))
    assert many["power"]["questions_needed"] > 1.5 * few["power"]["questions_needed"]


def test_champion_ahead_is_kept() -> None:
    result = recommend(board(CHAMPION, row("new", 0.4, difference=(-0.1, -0.2, 0.0), p_adjusted=0.9)))
    assert (result["verdict"], result["recommended"]) == ("keep", None)


def test_worse_variant_is_never_recommended_however_significant() -> None:
    result = recommend(board(CHAMPION, row("new", 0.1, difference=(-0.4, -0.5, -0.3), p_adjusted=0.0001)))
    assert result["verdict"] == "keep"


def test_champion_alone_is_kept() -> None:
    assert "no other variant" in recommend(board(CHAMPION))["text"]


def test_cheaper_and_faster_equals_are_mentioned() -> None:
    best = row("best", 0.80, difference=(0.3, 0.2, 0.4), p_against_best=1.0)
    cheap = row("cheap", 0.79, difference=(0.29, 0.2, 0.4), p_against_best=0.6, cost=0.25)
    fast = row("fast", 0.78, difference=(0.28, 0.2, 0.4), p_against_best=0.4, latency_median=0.1)
    other = row("other", 0.60, difference=(0.1, 0.01, 0.2), p_against_best=0.01, cost=0.01, latency_median=0.01)
    result = recommend(board(CHAMPION, best, cheap, fast, other))
    assert result["recommended"] == "best"
    assert {item["kind"]: item["variant"] for item in result["alternatives"]} == {"cheaper": "cheap", "faster": "fast"}
    assert "75% less money" in result["text"]


def test_free_models_are_compared_by_tokens() -> None:
    best = row("best", 0.80, difference=(0.3, 0.2, 0.4), p_against_best=1.0, cost=0.0)
    short = row("short", 0.79, difference=(0.3, 0.2, 0.4), p_against_best=0.6, cost=0.0, input_tokens=450)
    assert "50% fewer tokens" in recommend(board(CHAMPION, best, short))["text"]


@pytest.mark.parametrize(
    ("recall", "used", "grounded", "correct", "similar", "advice"),
    [
        (0.5, 0.9, 0.9, 0.6, 0.6, "raise k"),
        (0.9, 0.2, 0.9, 0.6, 0.6, "lower k"),
        (0.9, 0.9, 0.9, 0.2, 0.6, "source is wrong"),
        (0.9, 0.9, 0.9, 0.6, 0.2, "paraphrase"),
        (0.9, 0.9, 0.9, 0.9, 0.9, None),
        (None, None, None, None, None, None),
    ],
)
def test_symptoms_lead_to_advice(
    recall: float | None, used: float | None, grounded: float | None, correct: float | None, similar: float | None,
    advice: str | None,
) -> None:  # fmt: skip
    metrics = {
        "genaiops.recall/2": recall,
        "genaiops.groundedness_lexical/1": grounded,
        "squad.f1/1": correct,
        "sacrebleu.chrf/1": similar,
    }
    found = diagnose(row("new", 0.5, utilization=used, metrics=metrics))
    assert [advice in item["advice"] for item in found] == ([True] if advice else [])  # type: ignore[operator]


def test_offline_failed_and_stale_are_caveats() -> None:
    result = recommend(
        board(
            row("old", 0.5, offline=True, failed=2),
            questions={"answerable": 40, "unanswerable": 0, "compared": 40, "stale": 3},
        )
    )
    caveats = " ".join(result["caveats"])
    for part in ("offline stand-in", "2 trials failed", "3 questions left out", "No unanswerable questions"):
        assert part in caveats


@pytest.mark.parametrize(("gain", "outcome"), [(0.3, "confirmed"), (0.01, "not contradicted"), (-0.2, "contradicted")])
def test_held_back_questions_confirm_or_contradict(gain: float, outcome: str) -> None:
    noise = np.random.default_rng(1).normal(0, 0.1, 30)
    noise -= noise.mean()
    found = board(CHAMPION, row("new", 0.7, difference=(0.2, 0.1, 0.3)))
    result = confirm(found, recommend(found), [0.5] * 30, list(0.5 + gain + noise), uses=1)
    assert result["outcome"] == outcome
    assert result["difference"]["estimate"] == pytest.approx(gain)
    assert "30 held-back questions" in result["text"]


def test_worn_out_split_is_pointed_out() -> None:
    found = board(CHAMPION, row("new", 0.7, difference=(0.2, 0.1, 0.3)))
    assert "renew it" in confirm(found, recommend(found), [0.0, 0.0], [1.0, 1.0], uses=6)["text"]
    assert "used once." in confirm(found, recommend(found), [0.0, 0.0], [1.0, 1.0], uses=1)["text"]
