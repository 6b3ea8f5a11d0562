"""Drift statistics: exact formulas, and tests that hold their nominal false-alarm rate and see what they must."""

import math
from collections import Counter

import numpy as np
import pytest
from scipy import stats

from assets.monitoring.drift_statistics import (
    SMOOTHING,
    PermutationTest,
    bin_counts,
    category_test,
    holm,
    js_divergence,
    ks_test,
    mmd_test,
    psi,
    quantile_edges,
    term_counts,
    vocabulary_test,
)
from assets.monitoring.signals import planned_permutations
from resources.policy_config import DriftPolicy


def clustered(rng: np.random.Generator, size: int, topics: int = 12, dimensions: int = 32) -> np.ndarray:
    """Unit vectors around ``topics`` fixed centres, like embeddings of texts on several subjects."""
    centres = np.random.default_rng(1).normal(size=(topics, dimensions))
    vectors = centres[rng.integers(topics, size=size)] + rng.normal(size=(size, dimensions))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def rejections(p_values: list[float]) -> int:
    return sum(p <= 0.05 for p in p_values)


def test_psi_is_the_symmetrised_divergence_of_smoothed_shares() -> None:
    p, q = (10 + SMOOTHING) / (40 + 2 * SMOOTHING), (30 + SMOOTHING) / (40 + 2 * SMOOTHING)
    assert psi([10, 30], [30, 10]) == pytest.approx(2 * (q - p) * math.log(q / p))


def test_psi_of_an_empty_bin_is_finite_and_large() -> None:
    assert 0.25 < psi([50, 50], [100, 0]) < 10


def test_psi_of_equal_shares_is_zero() -> None:
    assert psi([10, 20, 30], [10, 20, 30]) == 0


def test_quantile_bins_hold_equal_shares_of_the_reference() -> None:
    reference = np.arange(1000.0)
    assert set(bin_counts(reference, quantile_edges(reference))) == {100}


def test_values_beyond_the_reference_fall_into_the_outer_bins() -> None:
    edges = quantile_edges(np.arange(100.0))
    counts = bin_counts([-5.0, 1e9], edges)
    assert (counts[0], counts[-1], counts.sum()) == (1, 1, 2)


def test_a_constant_reference_still_tells_other_values_apart() -> None:
    edges = quantile_edges([7.0] * 50)
    assert psi(bin_counts([7.0] * 50, edges), bin_counts([9.0] * 50, edges)) > 0.25


@pytest.mark.parametrize(("p", "q", "expected"), [([1, 1], [2, 2], 0.0), ([1, 0], [0, 1], 1.0)])
def test_jensen_shannon_goes_from_zero_to_one_bit(p: list[int], q: list[int], expected: float) -> None:
    assert js_divergence(p, q) == pytest.approx(expected)


def test_holm_matches_the_worked_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_ks_statistic_matches_scipy_with_ties() -> None:
    rng = np.random.default_rng(2)
    first, second = rng.integers(0, 12, 80).astype(float), rng.integers(2, 15, 60).astype(float)
    test = ks_test(first, second, permutations=99, rng=rng)
    expected, _ = stats.ks_2samp(first, second)
    assert test.statistic == pytest.approx(expected)


def test_mmd_statistic_matches_the_plain_formula() -> None:
    rng = np.random.default_rng(3)
    first, second = clustered(rng, 30), (clustered(rng, 20) + 0.05).astype(np.float32)
    pooled = np.concatenate([first, second]).astype(float)
    squared = ((pooled[:, None] - pooled[None]) ** 2).sum(-1)
    scale = np.median(squared[np.triu_indices(50, 1)])
    kernel = np.exp(-squared / scale)
    expected = (
        (kernel[:30, :30].sum() - 30) / (30 * 29)
        + (kernel[30:, 30:].sum() - 20) / (20 * 19)
        - 2 * kernel[:30, 30:].mean()
    )
    result = mmd_test(first, second, permutations=99, rng=rng)
    assert result.test.statistic == pytest.approx(expected, abs=1e-6)
    assert result.bandwidth == pytest.approx(math.sqrt(scale / 2), rel=1e-5)


def test_mmd_of_equal_vectors_says_nothing_moved() -> None:
    same = np.ones((40, 8), dtype=np.float32)
    assert mmd_test(same, same, permutations=99, rng=np.random.default_rng(0)).test.p_value == 1.0


def test_mmd_of_the_same_sample_twice_says_nothing_moved() -> None:
    sample = clustered(np.random.default_rng(4), 100)
    assert mmd_test(sample, sample, permutations=199, rng=np.random.default_rng(0)).test.p_value > 0.9


def test_same_seed_gives_the_same_p_value() -> None:
    rng = np.random.default_rng(5)
    first, second = clustered(rng, 50), clustered(rng, 50)
    p_values = {mmd_test(first, second, permutations=199, rng=np.random.default_rng(9)).test.p_value for _ in range(2)}
    assert len(p_values) == 1


def test_p_value_is_never_zero() -> None:
    test = ks_test(np.zeros(50), np.ones(50), permutations=99, rng=np.random.default_rng(0))
    assert test.p_value == pytest.approx(0.01)


class TestCalibration:
    """Uncalibrated drift tests fire always or never; 200 null trials must stay within the binomial bounds of 5 %."""

    TRIALS = 200

    def within_bounds(self, p_values: list[float]) -> None:
        low, high = stats.binom.ppf([0.0005, 0.9995], self.TRIALS, 0.05)
        assert low <= rejections(p_values) <= high
        assert stats.kstest(p_values, "uniform").pvalue > 1e-4, "p-values are not uniform"

    def test_mmd(self) -> None:
        rng = np.random.default_rng(6)
        self.within_bounds(
            [
                mmd_test(clustered(rng, 60), clustered(rng, 40), permutations=99, rng=rng).test.p_value
                for _ in range(self.TRIALS)
            ]
        )

    def test_ks(self) -> None:
        rng = np.random.default_rng(7)
        self.within_bounds(
            [
                ks_test(rng.lognormal(size=60), rng.lognormal(size=40), permutations=99, rng=rng).p_value
                for _ in range(self.TRIALS)
            ]
        )

    def test_vocabulary(self) -> None:
        rng = np.random.default_rng(8)
        shares = 1 / np.arange(1, 201)
        words = [f"w{i}" for i in range(200)]

        def units(size: int) -> list[Counter[str]]:
            """Units repeat their words, as texts do: tokens are not independent, units are."""
            return [Counter({words[i]: 3 for i in rng.choice(200, 12, p=shares / shares.sum())}) for _ in range(size)]

        self.within_bounds(
            [vocabulary_test(units(40), units(30), permutations=99, rng=rng).test.p_value for _ in range(self.TRIALS)]
        )

    def test_categories_reject_at_most_nominally(self) -> None:
        rng = np.random.default_rng(9)
        p_values = [
            category_test(
                rng.choice(["en", "de"], 60, p=[0.8, 0.2]).tolist(),
                rng.choice(["en", "de"], 40, p=[0.8, 0.2]).tolist(),
                permutations=99,
                rng=rng,
            ).p_value
            for _ in range(self.TRIALS)
        ]
        assert rejections(p_values) <= stats.binom.ppf(0.9995, self.TRIALS, 0.05)


class TestPower:
    def test_mmd_sees_a_foreign_topic_mixed_in(self) -> None:
        rng = np.random.default_rng(10)
        found = []
        for _ in range(20):
            current = clustered(rng, 200)
            current[:50] = -clustered(rng, 50, topics=1)
            found.append(mmd_test(clustered(rng, 200), current, permutations=99, rng=rng).test.p_value)
        assert rejections(found) >= 18

    def test_ks_sees_longer_documents(self) -> None:
        rng = np.random.default_rng(11)
        found = [
            ks_test(rng.lognormal(size=100), rng.lognormal(mean=0.8, size=100), permutations=99, rng=rng).p_value
            for _ in range(20)
        ]
        assert rejections(found) >= 18

    def test_categories_see_another_language(self) -> None:
        test = category_test(["en"] * 100, ["en"] * 80 + ["de"] * 20, permutations=199, rng=np.random.default_rng(12))
        assert test.p_value <= 0.01
        assert test.statistic > 0.25


def test_terms_are_words_without_case_and_numbers() -> None:
    assert term_counts("The E-Bike's belt, the 12 V BELT") == {"the": 2, "e-bike's": 1, "belt": 2, "v": 1}


def test_vocabulary_names_the_terms_that_moved() -> None:
    reference = [Counter({"belt": 5, "brake": 3}) for _ in range(30)]
    current = [Counter({"belt": 1, "brake": 3, "battery": 4}) for _ in range(30)]
    shift = vocabulary_test(reference, current, permutations=99, rng=np.random.default_rng(0))
    assert [change.term for change in shift.risen] == ["battery"]
    assert [change.term for change in shift.fallen] == ["belt"]
    assert shift.test.p_value == pytest.approx(0.01)


def test_a_term_of_few_documents_is_never_shown() -> None:
    reference = [Counter({"belt": 1}) for _ in range(30)]
    current = [Counter({"belt": 1}) for _ in range(28)] + [Counter({"annaschmidt": 500}) for _ in range(2)]
    shift = vocabulary_test(reference, current, permutations=99, rng=np.random.default_rng(0))
    assert shift.risen == ()


@pytest.mark.parametrize("subjects", [1, 3, 20])
def test_permutations_suffice_for_the_correction(subjects: int) -> None:
    policy = DriftPolicy()
    tests = 5 * subjects
    smallest = 1 / (planned_permutations(policy, subjects) + 1)
    assert holm([smallest] + [1.0] * (tests - 1))[0] <= policy.alpha


def test_null_statistics_are_kept_for_the_figure() -> None:
    test = ks_test([1.0, 2.0, 3.0], [2.0, 3.0, 4.0], permutations=300, rng=np.random.default_rng(0))
    assert isinstance(test, PermutationTest)
    assert test.null.shape == (300,)
