"""Statistics: nominal error rates, agreement with scipy, and refusal of what has no meaning."""

from typing import Any

import numpy as np
import pytest

from assets.experiments.statistics import (
    IntervalMethod,
    f1_intervals,
    holm,
    mean_interval,
    mean_intervals,
    minimum_detectable_effect,
    questions_needed,
    sign_flip_p_values,
)

SETTINGS: dict[str, Any] = {"confidence": 0.95, "resamples": 2000, "seed": 1}


def test_identical_variants_differ_by_zero_with_p_one() -> None:
    nothing = np.zeros(30)
    interval = mean_interval(nothing, **SETTINGS)
    assert (interval.estimate, interval.low, interval.high) == (0, 0, 0)
    assert sign_flip_p_values(nothing[:, None], resamples=1000, seed=1) == [1.0]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_undefined_scores_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="1 scores are not finite"):
        mean_interval([0.5, bad], **SETTINGS)
    with pytest.raises(ValueError, match="1 scores are not finite"):
        sign_flip_p_values([[0.5], [bad]], resamples=1000, seed=1)


def test_no_questions_are_refused() -> None:
    with pytest.raises(ValueError, match="with a question"):
        mean_intervals(np.zeros((0, 2)), **SETTINGS)
    with pytest.raises(ValueError, match="with a question"):
        f1_intervals(np.zeros((0, 2)), [], **SETTINGS)


@pytest.mark.parametrize("questions", [8, 40])
def test_false_alarm_rate_is_nominal(questions: int) -> None:
    """Eight questions are enumerated exactly, forty are sampled."""
    differences = np.random.default_rng(5).normal(size=(questions, 1000))
    rejected = np.mean(np.array(sign_flip_p_values(differences, resamples=999, seed=2)) <= 0.05)
    assert 0.03 <= rejected <= 0.07


def test_test_has_power() -> None:
    differences = np.random.default_rng(5).normal(0.5, 1, size=(40, 400))
    rejected = np.mean(np.array(sign_flip_p_values(differences, resamples=999, seed=2)) <= 0.05)
    assert 0.8 <= rejected <= 0.95  # a t-test has 0.87


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_interval_covers_the_true_mean_as_often_as_it_says(method: IntervalMethod) -> None:
    samples = np.random.default_rng(3).normal(0.4, 0.3, size=(60, 600))
    intervals = mean_intervals(samples, method=method, **SETTINGS)
    assert 0.92 <= np.mean([interval.low <= 0.4 <= interval.high for interval in intervals]) <= 0.975


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_interval_agrees_with_scipy(method: IntervalMethod) -> None:
    from scipy.stats import bootstrap

    sample = np.random.default_rng(4).exponential(size=25)
    ours = mean_interval(sample, confidence=0.9, resamples=40_000, seed=1, method=method)
    theirs = bootstrap(
        (sample,),
        np.mean,
        confidence_level=0.9,
        n_resamples=40_000,
        method="BCa" if method == "bca" else "percentile",
        rng=np.random.default_rng(2),
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.015)


def test_exact_p_value_agrees_with_scipy() -> None:
    from scipy.stats import permutation_test

    generator = np.random.default_rng(6)
    for _ in range(5):
        a, b = generator.normal(size=9).round(1), generator.normal(0.5, size=9).round(1)
        theirs = permutation_test(
            (a, b), lambda x, y, axis: np.mean(x - y, axis=axis), permutation_type="samples", n_resamples=10_000
        ).pvalue
        assert sign_flip_p_values((a - b)[:, None], resamples=1000, seed=1)[0] == pytest.approx(theirs)


def test_sampled_p_value_agrees_with_the_exact_one() -> None:
    """Thirteen differences are sampled; their exact p-value is known by enumeration."""
    differences = np.random.default_rng(8).normal(0.3, size=13)
    patterns = 1 - 2 * (np.arange(2**13)[:, None] >> np.arange(13) & 1)
    exact = np.mean(np.abs(patterns @ differences) >= abs(differences.sum()) - 1e-12)
    assert sign_flip_p_values(differences[:, None], resamples=50_000, seed=1)[0] == pytest.approx(exact, abs=0.01)


def test_sampled_p_value_is_never_zero() -> None:
    assert sign_flip_p_values(np.ones((60, 1)), resamples=1000, seed=1) == [pytest.approx(1 / 1001)]


def test_columns_do_not_influence_each_other() -> None:
    values = np.random.default_rng(9).normal(size=(30, 3))
    alone = mean_interval(values[:, 1], **SETTINGS)
    together = mean_intervals(values, **SETTINGS)[1]
    assert (alone.low, alone.high) == pytest.approx((together.low, together.high))
    assert sign_flip_p_values(values, resamples=1000, seed=1)[1] == sign_flip_p_values(
        values[:, 1:2], resamples=1000, seed=1
    )[0]  # fmt: skip


def test_equal_seeds_give_equal_intervals() -> None:
    values = np.random.default_rng(9).normal(size=30)
    assert mean_interval(values, **SETTINGS) == mean_interval(values, **SETTINGS)
    assert mean_interval(values, **SETTINGS) != mean_interval(values, **{**SETTINGS, "seed": 2})


def test_holm_follows_the_textbook() -> None:
    """Example of Wright, Biometrics 48 (1992): p = .01, .04, .03, .005."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_keeps_the_chance_of_any_false_discovery() -> None:
    p_values = np.random.default_rng(10).uniform(size=(1000, 20))
    assert np.mean([min(holm(row)) <= 0.05 for row in p_values]) <= 0.07


def test_refusal_f1_is_of_the_whole_set() -> None:
    actual = [True] * 4 + [False] * 6
    perfect, never, mixed = f1_intervals(
        np.array([actual, [False] * 10, [True, True, False, False, True] + [False] * 5]).T, actual, **SETTINGS
    )
    assert (perfect.precision, perfect.recall, perfect.f1, perfect.low, perfect.high) == (1, 1, 1, 1, 1)
    assert (never.precision, never.recall, never.f1, never.high) == (None, 0, 0, 0)
    assert (mixed.precision, mixed.recall) == (pytest.approx(2 / 3), 0.5)
    assert mixed.f1 == pytest.approx(4 / 7)
    assert mixed.low is not None
    assert mixed.high is not None
    assert mixed.low < 4 / 7 < mixed.high


def test_refusal_f1_without_any_refusal_is_undefined() -> None:
    (nothing,) = f1_intervals(np.zeros((5, 1)), [False] * 5, **SETTINGS)
    assert (nothing.f1, nothing.low, nothing.high) == (None, None, None)


def test_detectable_effect_and_needed_questions_are_inverse() -> None:
    effect = minimum_detectable_effect(0.4, 50, alpha=0.05)
    assert effect == pytest.approx(0.1585, abs=1e-4)  # (1.95996 + 0.84162) * 0.4 / sqrt(50)
    assert questions_needed(0.4, effect, alpha=0.05) == 50
    assert questions_needed(0.4, 0.0, alpha=0.05) is None
    assert questions_needed(0.0, 0.3, alpha=0.05) == 2
