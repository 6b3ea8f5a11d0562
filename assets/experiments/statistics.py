"""Statistics: is one variant better than another, and how sure are we.

Belongs here: intervals, tests and power of paired per-question scores, in numpy alone, over plain arrays.
Does not belong here: which scores are compared (leaderboard.py) and what follows from them (recommendation.py).

Every function takes scores with one row per question (the unit that is resampled) and, where it says so, one column
per variant, so that a whole leaderboard shares its resamples. NaN and infinity are refused: a score that is undefined
must be left out on purpose, never averaged.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]


IntervalMethod = Literal["percentile", "bca"]

#: With at most this many non-zero differences all 2**n sign patterns are enumerated: the p-value is exact.
EXACT_LIMIT = 12
#: Power that sample sizes and detectable effects are stated for.
POWER = 0.8
_BLOCK_CELLS = 2_000_000  # resamples are drawn in blocks of at most this many cells: memory does not grow with them
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Interval:
    """A point estimate and its confidence interval."""

    estimate: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        """Plain numbers, as stored in a leaderboard."""
        return {"estimate": self.estimate, "low": self.low, "high": self.high}


def mean_intervals(
    scores: ArrayLike, *, confidence: float, resamples: int, seed: int, method: IntervalMethod = "bca"
) -> list[Interval]:
    """Bootstrap confidence interval of the mean of each column.

    The paired interval of a difference is the interval of the mean of the per-question differences: pass ``a - b``.

    Args:
        scores: shape (questions, columns); all finite.
        confidence: e.g. 0.95.
        resamples: bootstrap samples, drawn over questions and shared by all columns.
        seed: of the generator; equal seeds give equal intervals.
        method: ``percentile`` (Efron & Tibshirani, An Introduction to the Bootstrap, 1993, eq. 13.5) or ``bca``, bias
            corrected and accelerated (ibid. eq. 14.9 and 14.10, acceleration from the jackknife, eq. 14.15).

    Returns:
        One interval a column. A column without variation gets an interval of width 0.

    Raises:
        ValueError: scores are empty, not two-dimensional, or not finite.
    """

    import numpy as np

    values = _matrix(scores)
    questions = len(values)
    estimates = values.mean(axis=0)
    means = np.concatenate([block @ values for block in _weights(questions, resamples, seed)]) / questions
    # A resample that repeats the sample's own mean must count as equal to it, whatever the order of summation.
    means, centre = np.round(means, 12), np.round(estimates, 12)
    tail = (1 - confidence) / 2
    if method == "percentile":
        lows, highs = np.quantile(means, [tail, 1 - tail], axis=0)
    else:
        share_below = ((means < centre).mean(axis=0) + (means <= centre).mean(axis=0)) / 2
        bias = _quantiles_of_normal(np.clip(share_below, 0.5 / resamples, 1 - 0.5 / resamples))
        deviations = values - estimates
        squares = (deviations**2).sum(axis=0)
        acceleration = (deviations**3).sum(axis=0) / (6 * np.where(squares > 0, squares, 1.0) ** 1.5)
        bounds = []
        for quantile in (tail, 1 - tail):
            shifted = bias + _NORMAL.inv_cdf(quantile)
            level = _normal_cdf(bias + shifted / (1 - acceleration * shifted))
            bounds.append([np.quantile(means[:, column], level[column]) for column in range(values.shape[1])])
        lows, highs = np.array(bounds)
    constant = np.ptp(values, axis=0) == 0
    lows, highs = np.where(constant, estimates, lows), np.where(constant, estimates, highs)
    return [Interval(float(e), float(low), float(high)) for e, low, high in zip(estimates, lows, highs, strict=True)]


def mean_interval(
    scores: ArrayLike, *, confidence: float, resamples: int, seed: int, method: IntervalMethod = "bca"
) -> Interval:
    """Bootstrap confidence interval of one mean; see ``mean_intervals``. ``scores`` has shape (questions,)."""

    import numpy as np

    return mean_intervals(
        np.asarray(scores, dtype=float)[:, None], confidence=confidence, resamples=resamples, seed=seed, method=method
    )[0]


@dataclass(frozen=True)
class F1Interval:
    """Precision, recall and F1 of a yes/no decision; None where the denominator is zero."""

    precision: float | None
    recall: float | None
    f1: float | None
    low: float | None
    high: float | None


def f1_intervals(
    predicted: ArrayLike, actual: ArrayLike, *, confidence: float, resamples: int, seed: int
) -> list[F1Interval]:
    """Precision, recall and F1 of each column of yes/no decisions, with a percentile interval of F1.

    F1 is a score of the whole question set, not a mean over questions, so each resample of questions gets its own F1
    (percentile bootstrap as in ``mean_intervals``). Resamples without any true or predicted "yes" have no F1 and are
    left out.

    Args:
        predicted: shape (questions, columns), true where the variant said "yes" (refused).
        actual: shape (questions,), true where "yes" was right (the question is unanswerable).
    """

    import numpy as np

    said = np.asarray(predicted, dtype=bool)
    if said.ndim != 2 or not len(said):
        raise ValueError(f"expected decisions of shape (questions, columns) with a question, got {said.shape}")
    right = np.asarray(actual, dtype=bool)[:, None]
    hits, false, missed = (array.astype(float) for array in (said & right, said & ~right, ~said & right))
    samples = [[], [], []]
    for block in _weights(len(said), resamples, seed):
        for sample, values in zip(samples, (hits, false, missed), strict=True):
            sample.append(block @ values)
    resampled = _ratio(*(np.concatenate(sample) for sample in samples))
    tail = (1 - confidence) / 2
    result = []
    for column in range(said.shape[1]):
        tp, fp, fn = (float(values[:, column].sum()) for values in (hits, false, missed))
        defined = resampled[:, column][~np.isnan(resampled[:, column])]
        low, high = np.quantile(defined, [tail, 1 - tail]) if len(defined) else (None, None)
        result.append(
            F1Interval(
                precision=tp / (tp + fp) if tp + fp else None,
                recall=tp / (tp + fn) if tp + fn else None,
                f1=2 * tp / (2 * tp + fp + fn) if tp + fp + fn else None,
                low=None if low is None else float(low),
                high=None if high is None else float(high),
            )
        )
    return result


def sign_flip_p_values(differences: ArrayLike, *, resamples: int, seed: int) -> list[float]:
    """Two-sided paired permutation (sign-flip) test that the mean of each column of differences is zero.

    Under the null hypothesis a paired difference is symmetric around zero, so its sign may be flipped (Good,
    Permutation, Parametric and Bootstrap Tests of Hypotheses, 2005, section 3.2). With at most ``EXACT_LIMIT`` non-zero
    differences every sign pattern is enumerated; otherwise ``resamples`` random patterns give p = (b + 1) / (m + 1),
    which is never zero (Phipson & Smyth, Stat. Appl. Genet. Mol. Biol. 9, 2010, eq. 2).

    Args:
        differences: shape (questions, columns); all finite. Zeros do not change the statistic under any flip.

    Returns:
        One p-value a column; 1.0 when all differences are zero.
    """

    import numpy as np

    values = _matrix(differences)
    observed = np.abs(values.sum(axis=0))
    limit = observed - 1e-9 * np.abs(values).sum(axis=0)  # ties are ties, whatever the order of summation
    nonzero = (values != 0).sum(axis=0)
    sampled = np.flatnonzero(nonzero > EXACT_LIMIT)
    p_values = np.ones(values.shape[1])
    for column in np.flatnonzero((nonzero > 0) & (nonzero <= EXACT_LIMIT)):
        sizes = values[values[:, column] != 0, column]
        patterns = np.arange(2 ** len(sizes))[:, None] >> np.arange(len(sizes)) & 1
        p_values[column] = (np.abs((1 - 2 * patterns) @ sizes) >= limit[column]).mean()
    if len(sampled):
        as_extreme = np.zeros(len(sampled))
        for block in _signs(len(values), resamples, seed):
            as_extreme += (np.abs(block @ values[:, sampled]) >= limit[sampled]).sum(axis=0)
        p_values[sampled] = (as_extreme + 1) / (resamples + 1)
    return [float(p) for p in p_values]


def holm(p_values: ArrayLike) -> list[float]:
    """Adjust p-values for the number of tests by Holm's step-down method (Scand. J. Statist. 6, 1979, 65-70).

    The i-th smallest of m p-values is multiplied by m - i + 1, made monotone, and capped at 1; it controls the chance
    of any false discovery under any dependence of the tests.
    """

    import numpy as np

    raw = np.asarray(p_values, dtype=float)
    if not np.isfinite(raw).all() or ((raw < 0) | (raw > 1)).any():
        raise ValueError("p-values must be numbers between 0 and 1")
    order = np.argsort(raw, kind="stable")
    stepped = np.minimum(1.0, np.maximum.accumulate(raw[order] * (len(raw) - np.arange(len(raw)))))
    adjusted = np.empty_like(raw)
    adjusted[order] = stepped
    return [float(p) for p in adjusted]


def minimum_detectable_effect(deviation: float, questions: int, *, alpha: float, power: float = POWER) -> float:
    """Smallest true mean difference that ``questions`` paired questions show with probability ``power``.

    (z(1 - alpha / 2) + z(power)) * s / sqrt(n), the normal approximation of the two-sided paired test (Bloom,
    Evaluation Review 19, 1995, 547-556).

    Args:
        deviation: standard deviation s of the per-question differences.
        alpha: significance level of one comparison (already divided when several are made).
    """
    return _effect_multiple(alpha, power) * deviation / math.sqrt(questions)


def questions_needed(deviation: float, effect: float, *, alpha: float, power: float = POWER) -> int | None:
    """Number of paired questions that show a true mean difference ``effect`` with probability ``power``.

    The inverse of ``minimum_detectable_effect``; None when the effect is zero, which no number of questions shows.
    """
    if effect == 0:
        return None
    exact = (_effect_multiple(alpha, power) * deviation / abs(effect)) ** 2
    return max(2, math.ceil(exact * (1 - 1e-12)))


def _effect_multiple(alpha: float, power: float) -> float:
    return _NORMAL.inv_cdf(1 - alpha / 2) + _NORMAL.inv_cdf(power)


def _matrix(scores: ArrayLike) -> Floats:
    import numpy as np

    values = np.asarray(scores, dtype=float)
    if values.ndim != 2 or not len(values):
        raise ValueError(f"expected scores of shape (questions, columns) with a question, got {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"{int((~np.isfinite(values)).sum())} scores are not finite; leave undefined scores out")
    return values


def _weights(questions: int, resamples: int, seed: int) -> Iterator[Floats]:
    """How often each question is drawn in each resample: blocks of shape (resamples, questions)."""

    import numpy as np

    generator = np.random.default_rng(seed)
    for size in _block_sizes(questions, resamples):
        draws = generator.integers(0, questions, (size, questions)) + questions * np.arange(size)[:, None]
        yield np.bincount(draws.ravel(), minlength=size * questions).reshape(size, questions).astype(np.float64)


def _signs(questions: int, resamples: int, seed: int) -> Iterator[Floats]:
    import numpy as np

    generator = np.random.default_rng(seed)
    for size in _block_sizes(questions, resamples):
        yield generator.integers(0, 2, (size, questions)).astype(np.float64) * 2 - 1


def _block_sizes(questions: int, resamples: int) -> Iterator[int]:
    step = max(1, _BLOCK_CELLS // questions)
    for start in range(0, resamples, step):
        yield min(step, resamples - start)


def _ratio(hits: Floats, false: Floats, missed: Floats) -> Floats:
    import numpy as np

    denominator = 2 * hits + false + missed
    return np.divide(2 * hits, denominator, out=np.full_like(hits, np.nan), where=denominator > 0)


def _quantiles_of_normal(levels: Floats) -> Floats:
    import numpy as np

    return np.array([_NORMAL.inv_cdf(float(level)) for level in levels])


def _normal_cdf(values: Floats) -> Floats:
    import numpy as np

    return np.array([_NORMAL.cdf(float(value)) for value in values])
