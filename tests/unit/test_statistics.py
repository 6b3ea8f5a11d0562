"""Statistics: nominal error rates, agreement with scipy, and refusal of what has no meaning."""

from typing import Any

import numpy as np
import pytest

from assets.experiments.statistics import (
    IntervalMethod,
    deviations,
    equivalence,
    exceeds,
    f1_intervals,
    holm,
    mean_interval,
    mean_intervals,
    minimum_detectable_effect,
    non_inferiority,
    power_of,
    questions_needed,
    sign_flip_p_values,
)
from tests.benchmarks.simulated_experiments import error_rates, verdicts

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
    from scipy.stats import bootstrap, norm, t

    sample = np.random.default_rng(4).exponential(size=25)
    ours = mean_interval(sample, confidence=0.9, resamples=40_000, seed=1, method=method)
    theirs = bootstrap(  # scipy does not move the tails of small samples out
        (sample,),
        np.mean,
        confidence_level=1 - 2 * float(norm.cdf(t.ppf(0.05, 24) * np.sqrt(25 / 24))),
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


# --- groups of questions that belong together -----------------------------------------------------------------


def test_groups_of_one_change_nothing() -> None:
    values = np.random.default_rng(11).normal(size=(40, 2))
    alone = list(range(40))
    for ours, plain in zip(
        mean_intervals(values, groups=alone, **SETTINGS), mean_intervals(values, **SETTINGS), strict=True
    ):
        assert (ours.low, ours.high) == pytest.approx((plain.low, plain.high))
    flips: dict[str, Any] = {"resamples": 1000, "seed": 1}
    assert sign_flip_p_values(values, groups=alone, **flips) == sign_flip_p_values(values, **flips)
    assert deviations(values, alone) == pytest.approx(deviations(values))
    assert deviations(values) == pytest.approx(list(values.std(axis=0, ddof=1)))


def test_grouped_p_value_is_that_of_the_group_sums() -> None:
    """scipy flips the sums of groups; with groups of unequal size the questions still weigh equally."""
    from scipy.stats import permutation_test

    generator = np.random.default_rng(12)
    groups = list(np.repeat(range(8), [1, 2, 3, 4, 5, 6, 7, 8]))
    values = generator.normal(0.2, 1, size=36).round(2)
    sums = np.bincount(groups, weights=values)
    theirs = permutation_test(
        (sums, np.zeros(8)), lambda x, y, axis: np.sum(x - y, axis=axis), permutation_type="samples", n_resamples=10_000
    ).pvalue
    ours = sign_flip_p_values(values[:, None], resamples=1000, seed=1, groups=groups)
    assert ours[0] == pytest.approx(theirs)
    assert ours[0] != sign_flip_p_values(values[:, None], resamples=1000, seed=1)[0]


def test_copies_of_a_question_are_no_further_evidence() -> None:
    """Every question four times: with groups the same answer as for the questions once."""
    once = np.random.default_rng(13).normal(0.1, 1, size=(25, 1))
    four, groups = once.repeat(4, axis=0), list(np.repeat(range(25), 4))
    flips: dict[str, Any] = {"resamples": 2000, "seed": 3}
    assert sign_flip_p_values(four, groups=groups, **flips) == sign_flip_p_values(once, **flips)
    (ours,), (theirs,) = mean_intervals(four, groups=groups, **SETTINGS), mean_intervals(once, **SETTINGS)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high))
    assert deviations(four, groups)[0] == pytest.approx(2 * deviations(once)[0])  # four questions count as one
    assert non_inferiority(four.clip(-1, 1), 0.2, alpha=0.05, groups=groups)[0].p == pytest.approx(
        non_inferiority(once.clip(-1, 1), 0.2, alpha=0.05)[0].p
    )


def test_standard_error_of_groups_agrees_with_the_bootstrap() -> None:
    generator = np.random.default_rng(14)
    sizes = generator.integers(1, 8, 60)
    groups = list(np.repeat(range(60), sizes))
    values = generator.normal(size=60).repeat(sizes) + generator.normal(size=len(groups))
    interval = mean_interval(values, confidence=0.6827, resamples=20_000, seed=1, method="percentile", groups=groups)
    assert (interval.high - interval.low) / 2 * np.sqrt(len(groups)) == pytest.approx(
        deviations(values[:, None], groups)[0], rel=0.06
    )


def test_groups_must_fit_the_questions() -> None:
    with pytest.raises(ValueError, match="3 groups for 4 questions"):
        mean_intervals(np.zeros((4, 1)), groups=[1, 2, 3], **SETTINGS)


def test_refusal_f1_of_groups_is_resampled_by_group() -> None:
    actual, groups = [True] * 20 + [False] * 20, list(np.repeat(range(8), 5))
    said = np.array([[True] * 15 + [False] * 20 + [True] * 5]).T
    alone = f1_intervals(said, actual, **SETTINGS)[0]
    together = f1_intervals(said, actual, groups=groups, **SETTINGS)[0]
    assert alone.f1 == together.f1
    assert together.low is not None
    assert alone.low is not None
    assert together.low < alone.low


# --- margins ------------------------------------------------------------------------------------------------


def test_margin_p_value_agrees_with_the_t_test_when_there_are_many_questions() -> None:
    from scipy.stats import ttest_1samp

    values = np.random.default_rng(15).normal(0, 0.2, size=(20_000, 1)).clip(-1, 1)
    ours = non_inferiority(values, 0.002, alpha=0.05)[0]
    theirs: Any = ttest_1samp(values[:, 0], -0.002, alternative="greater")
    assert ours.p == pytest.approx(theirs.pvalue, abs=0.01)
    assert ours.low == pytest.approx(theirs.confidence_interval(0.95).low, abs=2e-4)


def test_margin_test_is_the_t_test_with_losses_added() -> None:
    """At the level of its p-value the bound is scipy's on the sample with z**2 / 2 losses beside it."""
    from scipy.stats import norm, t

    values = np.random.default_rng(16).normal(0, 0.3, size=50).clip(-1, 1)
    test = non_inferiority(values[:, None], 0.2, alpha=0.05)[0]
    for level, bound in ((test.p, -0.2), (0.05, test.low)):
        added = norm.isf(level) ** 2 / 2
        count = 50 + added
        mean = (values.sum() - added) / count
        error = np.sqrt((((values - mean) ** 2).sum() + added * (1 + mean) ** 2) / (count - 1) / count)
        assert mean - t.isf(level, 49) * error == pytest.approx(bound, abs=1e-4)


@pytest.mark.parametrize(("questions", "shown"), [(50, False), (150, False), (170, True)])
def test_equal_answers_prove_equality_only_of_questions_enough(questions: int, shown: bool) -> None:
    """No loss seen in n questions leaves a loss on 3 / n possible (rule of three): 150 for a margin of 0.02."""
    test = equivalence(np.zeros((questions, 1)), 0.02, alpha=0.05)[0]
    assert (test.estimate < 0.05, test.low > -0.02) == (shown, shown)
    assert test.low == -test.high


def test_rare_losses_do_not_pass_for_none() -> None:
    """A loss on 5 questions in 100 and nothing else: the shape that fools a test which trusts its sample's spread."""
    losses = -(np.random.default_rng(17).random((100, 4000)) < 0.05).astype(float)
    passed = np.mean([test.p < 0.05 for test in non_inferiority(losses, 0.05, alpha=0.05)])
    naive = losses.mean(axis=0) - 1.66 * losses.std(axis=0, ddof=1) / 10 > -0.05
    assert passed <= 0.06
    assert naive.mean() > 0.1


def test_equivalence_needs_both_sides() -> None:
    generator = np.random.default_rng(18)
    better = generator.normal(0.2, 0.1, size=(200, 1)).clip(-1, 1)
    assert non_inferiority(better, 0.05, alpha=0.05)[0].p < 0.001
    assert equivalence(better, 0.05, alpha=0.05)[0].estimate > 0.99


def test_value_below_the_worst_is_refused() -> None:
    with pytest.raises(ValueError, match="below 0"):
        exceeds([[0.5], [-0.1]], 0.4, worst=0.0, alpha=0.05)


def test_single_question_proves_nothing() -> None:
    assert exceeds([[1.0]], 0.5, worst=0.0, alpha=0.05)[0].p == 1
    assert deviations([[1.0]]) == [0.0]


def test_power_and_detectable_effect_are_inverse() -> None:
    effect = minimum_detectable_effect(0.4, 50, alpha=0.05)
    assert power_of(effect, 0.4, 50, alpha=0.05) == pytest.approx(0.8, abs=1e-4)
    assert power_of(0.0, 0.4, 50, alpha=0.05) == pytest.approx(0.05)
    assert power_of(0.1, 0.0, 50, alpha=0.05) == 1


# --- simulated experiments; many more of them in tests/benchmarks/test_statistics.py ---------------------------


@pytest.mark.parametrize(("questions", "size"), [(30, 3), (100, 1)])
def test_nominal_rates_hold_for_skewed_scores(questions: int, size: int) -> None:
    rates = error_rates("skewed", questions, size, experiments=1000, resamples=999)
    assert 0.03 <= rates.alarm <= 0.075
    assert 0.92 <= rates.coverage <= 0.975
    assert rates.no_worse <= 0.07
    assert size == 1 or rates.ignoring_groups > 0.1  # what taking the questions of a group for independent would do


def test_recommendation_keeps_the_family_wise_rate_and_finds_a_lead() -> None:
    equal = verdicts("right or wrong", 0.0, 60, 1, challengers=10, experiments=60)
    assert equal.get("promote", 0) <= 0.1
    assert verdicts("right or wrong", 0.2, 400, 1, challengers=3, experiments=10)["promote"] == 1
