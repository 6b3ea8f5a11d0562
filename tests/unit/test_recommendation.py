"""The recommendation: words that follow from the numbers, and silence where the numbers do not suffice."""

from typing import Any

import numpy as np
import pytest

from assets.evaluation.metrics.base import METRICS
from assets.experiments.diagnosis import ESTIMATORS, diagnose
from assets.experiments.recommendation import confirm, recommend


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
        "difference_spread": 0.4,
        "p_adjusted": None if difference is None else 0.001,
        "non_inferiority": None,
        "equivalence": None,
        "to_best": None,
        "guards": [],
        "k": 3,
        "search_mode": "vector",
        "metrics": {metric: {"answerable": metrics.get(metric)} for metric in METRICS},
        "utilization": None,
        "cost_per_1000": 1.0,
        "tokens_per_answer": 1100.0,
        "currency": "EUR",
        "latency_median": 0.4,
        "latency_p95": 0.5,
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
        "questions": {"answerable": 40, "unanswerable": 10, "compared": 50, "groups": 50, "stale": 0},
        "cluster": None,
        "split": "dev",
        "margins": {"non_inferiority": None, "equivalence": None, "minimum_saving": 0.1},
        "slices": [],
        "rows": [
            {**one, "to_best": (one["to_best"] or behind(-0.5, 1.0)) if place else None}
            for place, one in enumerate(sorted(rows, key=lambda one: -one["decision"]["estimate"]))
        ],
        **values,
    }


CHAMPION = row("old", 0.5)
MARGINS = {"non_inferiority": 0.05, "equivalence": 0.05, "minimum_saving": 0.1}


def behind(estimate: float, p: float | None = None) -> dict[str, Any]:
    """The difference to the best variant, with its non-inferiority when a margin was set."""
    gap = {"estimate": estimate, "low": estimate - 0.04, "high": estimate + 0.04}
    return {
        "difference": gap,
        "non_inferiority": p and {"margin": 0.05, "p": p, "p_adjusted": p, "low": estimate - 0.04},
    }


def shown(p: float) -> dict[str, float]:
    """A margin test."""
    return {"margin": 0.05, "p": p, "p_adjusted": p, "low": -0.03, "high": 0.03}


def guard(state: str) -> dict[str, Any]:
    return {
        "metric": "squad.f1/1", "tag": "type=fact", "kind": "maximum_drop", "bound": -0.05, "estimate": -0.08, "low": -0.1,
        "questions": 40, "state": state,
    }  # fmt: skip


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


def test_cheaper_and_faster_variants_shown_to_be_no_worse_are_mentioned() -> None:
    best = row("best", 0.80, difference=(0.3, 0.2, 0.4))
    cheap = row("cheap", 0.79, difference=(0.29, 0.2, 0.4), to_best=behind(-0.01, 0.01), cost_per_1000=0.25)
    fast = row("fast", 0.78, difference=(0.28, 0.2, 0.4), to_best=behind(-0.02, 0.04), latency_p95=0.1)
    unproven = row(
        "unproven", 0.79, difference=(0.29, 0.2, 0.4), to_best=behind(-0.01, 0.06), cost_per_1000=0.01, latency_p95=0.01
    )
    result = recommend(board(CHAMPION, best, cheap, fast, unproven, margins=MARGINS))
    assert result["recommended"] == "best"
    assert {one["kind"]: one["variant"] for one in result["alternatives"]} == {"cheaper": "cheap", "faster": "fast"}
    assert "saves 75% money" in result["text"]
    assert "shown to be less than 0.05" in result["text"]


def test_without_a_margin_a_cheaper_variant_is_told_but_not_called_as_good() -> None:
    """p >= alpha is no evidence of equality, so nothing is claimed of it."""
    best = row("best", 0.80, difference=(0.3, 0.2, 0.4), cost_per_1000=0.0)
    short = row(
        "short", 0.79, difference=(0.3, 0.2, 0.4), to_best=behind(-0.01), cost_per_1000=0.0, tokens_per_answer=550
    )
    champion = row("old", 0.5, cost_per_1000=0.0)
    text = recommend(board(champion, best, short))["text"]
    assert "short saves 50% of the tokens" in text
    assert "no margin was set" in text
    assert "was not tested" in text
    assert "told apart" not in text


def test_cheaper_variant_shown_to_be_no_worse_takes_the_champions_place() -> None:
    cheap = row("cheap", 0.49, difference=(-0.01, -0.04, 0.02), non_inferiority=shown(0.01), cost_per_1000=0.6)
    dear = row("dear", 0.49, difference=(-0.01, -0.04, 0.02), non_inferiority=shown(0.01), cost_per_1000=0.95)
    result = recommend(board(CHAMPION, cheap, dear, margins=MARGINS))
    assert (result["verdict"], result["recommended"]) == ("promote cheaper", "cheap")
    assert result["cost"]["saving"] == pytest.approx(0.4)
    assert "0.6000 EUR per 1000 answers instead of 1.0000 (-40%)" in result["text"]
    unproven = {**cheap, "non_inferiority": shown(0.06)}
    assert recommend(board(CHAMPION, unproven, dear, margins=MARGINS))["verdict"] == "keep"


def test_better_variant_goes_before_a_cheaper_one() -> None:
    better = row("better", 0.7, difference=(0.2, 0.1, 0.3), cost_per_1000=9.0)
    cheap = row(
        "cheap",
        0.5,
        difference=(0.0, -0.02, 0.02),
        non_inferiority=shown(0.01),
        cost_per_1000=0.1,
        to_best=behind(-0.2, 1.0),
    )
    assert recommend(board(CHAMPION, better, cheap, margins=MARGINS))["recommended"] == "better"


def test_equal_needs_every_variant_shown_equal_or_worse() -> None:
    equal = row("equal", 0.51, difference=(0.01, -0.02, 0.03), p_adjusted=0.4, equivalence=shown(0.01))
    worse = row("worse", 0.2, difference=(-0.3, -0.4, -0.2), equivalence=shown(1.0))
    vague = row("vague", 0.4, difference=(-0.1, -0.3, 0.1), p_adjusted=0.4, equivalence=shown(0.9))
    result = recommend(board(CHAMPION, equal, worse, margins=MARGINS))
    assert (result["verdict"], result["recommended"]) == ("equal", None)
    assert "less than 0.05" in result["text"]
    assert recommend(board(CHAMPION, equal, vague, margins=MARGINS))["verdict"] == "not enough evidence"


@pytest.mark.parametrize(
    ("state", "verdict"), [("held", "promote"), ("open", "not enough evidence"), ("broken", "keep")]
)
def test_better_variant_has_to_hold_its_guards(state: str, verdict: str) -> None:
    result = recommend(board(CHAMPION, row("new", 0.7, difference=(0.2, 0.1, 0.3), guards=[guard(state)])))
    assert result["verdict"] == verdict
    if state != "held":
        assert f"squad.f1/1 on type=fact must be at most 0.05 below the champion: {state}, -0.080" in result["text"]


def test_second_best_is_recommended_when_the_best_breaks_a_guard() -> None:
    best = row("best", 0.8, difference=(0.3, 0.2, 0.4), guards=[guard("broken")])
    safe = row("safe", 0.7, difference=(0.2, 0.1, 0.3), guards=[guard("held")])
    result = recommend(board(CHAMPION, best, safe))
    assert result["recommended"] == "safe"
    assert "best has a higher mean, but" in result["text"]


def test_of_many_variants_that_break_a_guard_a_few_are_named() -> None:
    unsafe = [
        row(f"bad{number}", 0.8 + number / 100, difference=(0.3, 0.2, 0.4), guards=[guard("broken")])
        for number in range(9)
    ]
    safe = row("safe", 0.7, difference=(0.2, 0.1, 0.3), guards=[guard("held")])
    for text, more in (
        (recommend(board(CHAMPION, *unsafe, safe))["text"], "So with 7 more variants"),
        (recommend(board(CHAMPION, *unsafe))["text"], "and 7 more variants"),
    ):
        assert text.count("squad.f1/1 on type=fact must be") == 2
        assert more in text


def test_slice_that_gets_worse_is_told() -> None:
    slices = [
        {"tag": "language", "value": "de", "questions": 40, "groups": 40, "variants": {
            "old": {"mean": 0.5},
            "new": {"mean": 0.3, "difference": {"estimate": -0.2, "low": -0.3, "high": -0.1}, "p": 0.001, "p_adjusted": 0.01},
        }},
    ]  # fmt: skip
    result = recommend(board(CHAMPION, row("new", 0.7, difference=(0.2, 0.1, 0.3)), slices=slices))
    assert result["verdict"] == "promote"
    assert any("On language=de it is worse than the champion" in one for one in result["uncertain"])


def test_groups_of_questions_are_counted_and_few_are_warned_of() -> None:
    weak = row("new", 0.6, difference=(0.1, -0.1, 0.2), p_adjusted=0.5, difference_deviation=0.8)
    questions = {"answerable": 40, "unanswerable": 10, "compared": 50, "groups": 10, "stale": 0}
    result = recommend(board(CHAMPION, weak, questions=questions, cluster="paragraph"))
    power = result["power"]
    assert power["design_effect"] == pytest.approx(4)
    assert power["questions_needed"] == 503  # four times what independent questions need
    assert power["groups_missing"] == 91
    assert "50 questions in 10 groups" in result["text"].lower()
    assert any("10 independent groups" in one for one in result["uncertain"])
    assert any("10 groups (paragraph)" in one for one in result["caveats"])
    assert "(91 groups)" in result["next"][0]["try"]


def test_power_curve_rises_with_the_effect() -> None:
    curve = recommend(board(CHAMPION, row("new", 0.6, difference=(0.1, -0.1, 0.2), p_adjusted=0.5)))["power"]["curve"]
    assert list(curve.values()) == sorted(curve.values())
    assert curve["0.1"] == pytest.approx(0.424, abs=0.001)  # Phi(0.1 * sqrt(50) / 0.4 - 1.95996)


def test_next_steps_name_what_to_edit() -> None:
    metrics = {ESTIMATORS["completeness"]: 0.5}
    result = recommend(board(row("old", 0.5, metrics=metrics | {ESTIMATORS["utilization"]: 0.9}, utilization=0.9)))
    (step, *_) = result["next"]
    assert "grid.k: add 6" in step["change"]
    assert "grid.search_mode: add hybrid and full_text" in step["change"]


@pytest.mark.parametrize(
    ("recall", "used", "grounded", "correct", "similar", "advice"),
    [
        (0.5, 0.9, 0.9, 0.6, 0.6, "raise k"),
        (0.9, 0.2, 0.9, 0.6, 0.6, "lower k"),
        (0.9, 0.9, 0.9, 0.2, 0.6, "source is wrong"),
        (0.9, 0.9, 0.9, 0.6, 0.2, "paraphrase"),
        (0.9, 0.9, 0.3, 0.6, 0.6, "passages alone"),
        (0.9, 0.9, 0.9, 0.9, 0.9, None),
        (None, None, None, None, None, None),
    ],
)
def test_symptoms_lead_to_advice(
    recall: float | None, used: float | None, grounded: float | None, correct: float | None, similar: float | None,
    advice: str | None,
) -> None:  # fmt: skip
    values = {
        "completeness": recall, "utilization": used, "groundedness": grounded, "correctness": correct, "similarity": similar,
    }  # fmt: skip
    metrics = {ESTIMATORS[name]: value for name, value in values.items()}
    found = diagnose(row("new", 0.5, utilization=used, metrics=metrics))
    for item in found:
        for name, fact in item["because"].items():
            assert fact["value"] == values[name]
            assert (fact["value"] >= fact["threshold"]) == (fact["level"] == "high")
    assert [advice in item["advice"] for item in found] == ([True] if advice else [])  # type: ignore[operator]


def test_offline_failed_and_stale_are_caveats() -> None:
    result = recommend(
        board(
            row("old", 0.5, offline=True, failed=2),
            questions={"answerable": 40, "unanswerable": 0, "compared": 40, "groups": 40, "stale": 3},
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


@pytest.mark.parametrize(("gap", "outcome"), [(0.0, "confirmed"), (-0.04, "not contradicted"), (-0.2, "contradicted")])
def test_cheaper_variant_is_confirmed_by_its_margin(gap: float, outcome: str) -> None:
    """Held-back questions must show that it is not worse by the margin, not that it is better."""
    cheap = row("cheap", 0.49, difference=(-0.01, -0.04, 0.02), non_inferiority=shown(0.01), cost_per_1000=0.6)
    found = board(CHAMPION, cheap, margins=MARGINS)
    noise = np.random.default_rng(1).normal(0, 0.1, 200)
    noise -= noise.mean()
    result = confirm(found, recommend(found), [0.5] * 200, list(0.5 + gap + noise), uses=1)
    assert result["outcome"] == outcome
    assert "not 0.05 worse" in result["text"]


def test_confirmation_allows_for_groups() -> None:
    """Forty copies of each of five questions prove no more than the five."""
    found = board(CHAMPION, row("new", 0.7, difference=(0.2, 0.1, 0.3)))
    gains = np.repeat([0.4, 0.3, 0.2, 0.1, -0.1], 40)
    groups = list(np.repeat(range(5), 40))
    alone = confirm(found, recommend(found), [0.0] * 200, list(gains), uses=1)
    together = confirm(found, recommend(found), [0.0] * 200, list(gains), uses=1, groups=groups)
    assert (alone["outcome"], together["outcome"]) == ("confirmed", "not contradicted")
    assert together["groups"] == 5
