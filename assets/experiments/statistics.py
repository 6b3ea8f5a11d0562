"""Statistics: is one variant better than another, and how sure are we.

Belongs here: intervals, tests and power of paired per-question scores, in numpy alone, over plain arrays.
Does not belong here: which scores are compared (leaderboard.py) and what follows from them (recommendation.py).

Every function takes scores with one row per question (the unit that is resampled) and, where it says so, one column
per variant, so that a whole leaderboard shares its resamples. NaN and infinity are refused: a score that is undefined
must be left out on purpose, never averaged.

Questions about one paragraph, or made from one another, do not err independently. With ``groups`` (one label a question)
the group is what is resampled, flipped and counted; without, every question is a group of its own. What the means are of
stays the same: every question weighs equally.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]

Groups = Sequence[Hashable] | None

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
    scores: ArrayLike,
    *,
    confidence: float,
    resamples: int,
    seed: int,
    method: IntervalMethod = "bca",
    groups: Groups = None,
) -> list[Interval]:
    """Bootstrap confidence interval of the mean of each column.

    A bootstrap of few questions is too narrow: it spreads by sqrt((n - 1) / n) too little and knows no Student's t. The tails
    are moved out by as much (the expanded interval of Hesterberg, Am. Statist. 69, 2015, 371-386, section 5.3).

    The paired interval of a difference is the interval of the mean of the per-question differences: pass ``a - b``.

    Args:
        scores: shape (questions, columns); all finite.
        confidence: e.g. 0.95.
        resamples: bootstrap samples, drawn over questions (or groups of them) and shared by all columns.
        seed: of the generator; equal seeds give equal intervals.
        method: ``percentile`` (Efron & Tibshirani, An Introduction to the Bootstrap, 1993, eq. 13.5) or ``bca``, bias
            corrected and accelerated (ibid. eq. 14.9 and 14.10, acceleration from the influence of each question or
            group, eq. 14.15 and 22.30).
        groups: what belongs together, one label a question (Field & Welsh, J. R. Statist. Soc. B 69, 2007, 369-390).

    Returns:
        One interval a column. A column without variation gets an interval of width 0.

    Raises:
        ValueError: scores are empty, not two-dimensional, or not finite.
    """

    import numpy as np

    values = _matrix(scores)
    estimates = values.mean(axis=0)
    sums, sizes = _by_group(values, groups)
    means = np.concatenate([block @ sums / (block @ sizes)[:, None] for block in _weights(len(sums), resamples, seed)])
    # A resample that repeats the sample's own mean must count as equal to it, whatever the order of summation.
    means, centre = np.sort(np.round(means, 12), axis=0), np.round(estimates, 12)
    tail = _expanded_tail(confidence, len(sums))
    if method == "percentile":
        lows, highs = np.quantile(means, [tail, 1 - tail], axis=0)
    else:
        share_below = ((means < centre).mean(axis=0) + (means <= centre).mean(axis=0)) / 2
        bias = _quantiles_of_normal(np.clip(share_below, 0.5 / resamples, 1 - 0.5 / resamples))
        deviations = sums - np.outer(sizes, estimates)
        squares = (deviations**2).sum(axis=0)
        acceleration = (deviations**3).sum(axis=0) / (6 * np.where(squares > 0, squares, 1.0) ** 1.5)
        bounds = []
        for quantile in (tail, 1 - tail):
            shifted = bias + _NORMAL.inv_cdf(quantile)
            bounds.append(_quantiles(means, _normal_cdf(bias + shifted / (1 - acceleration * shifted))))
        lows, highs = np.array(bounds)
    constant = np.ptp(values, axis=0) == 0
    lows, highs = np.where(constant, estimates, lows), np.where(constant, estimates, highs)
    return [Interval(float(e), float(low), float(high)) for e, low, high in zip(estimates, lows, highs, strict=True)]


def mean_interval(
    scores: ArrayLike,
    *,
    confidence: float,
    resamples: int,
    seed: int,
    method: IntervalMethod = "bca",
    groups: Groups = None,
) -> Interval:
    """Bootstrap confidence interval of one mean; see ``mean_intervals``. ``scores`` has shape (questions,)."""

    import numpy as np

    return mean_intervals(
        np.asarray(scores, dtype=float)[:, None],
        confidence=confidence,
        resamples=resamples,
        seed=seed,
        method=method,
        groups=groups,
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
    predicted: ArrayLike,
    actual: ArrayLike,
    *,
    confidence: float,
    resamples: int,
    seed: int,
    groups: Groups = None,
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
    hits, false, missed = (
        _by_group(array.astype(float), groups)[0] for array in (said & right, said & ~right, ~said & right)
    )
    samples = [[], [], []]
    for block in _weights(len(hits), resamples, seed):
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


def sign_flip_p_values(differences: ArrayLike, *, resamples: int, seed: int, groups: Groups = None) -> list[float]:
    """Two-sided paired permutation (sign-flip) test that the mean of each column of differences is zero.

    Under the null hypothesis a paired difference is symmetric around zero, so its sign may be flipped (Good,
    Permutation, Parametric and Bootstrap Tests of Hypotheses, 2005, section 3.2). With at most ``EXACT_LIMIT`` non-zero
    differences every sign pattern is enumerated; otherwise ``resamples`` random patterns give p = (b + 1) / (m + 1),
    which is never zero (Phipson & Smyth, Stat. Appl. Genet. Mol. Biol. 9, 2010, eq. 2).

    Args:
        differences: shape (questions, columns); all finite. Zeros do not change the statistic under any flip.
        groups: what belongs together, one label a question; the differences of a group keep their signs to each other,
            and are flipped together (Winkler et al., NeuroImage 123, 2015, 253-268: whole-block exchangeability).

    Returns:
        One p-value a column; 1.0 when all differences are zero.
    """

    import numpy as np

    values, _ = _by_group(_matrix(differences), groups)
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


@dataclass(frozen=True)
class MarginTest:
    """A one-sided test that a mean lies above a bound.

    Attributes:
        p: the smallest level at which it does.
        low: lower confidence bound of the mean at the level asked for.
    """

    p: float
    low: float


def exceeds(values: ArrayLike, bound: float, *, worst: float, alpha: float, groups: Groups = None) -> list[MarginTest]:
    """Test for each column whether its mean lies above ``bound``.

    The lower confidence bound is m - t * s, with t of Student's distribution at (groups - 1) degrees of freedom, m the
    mean and s its standard error over groups, both after z**2 / 2 groups of average size with the worst value were added
    (Agresti & Coull, Am. Statist. 52, 1998, 119-126, who add as many failures to a proportion). Without them a sample
    that happens to hold no loss would prove that there are none: with 100 equal answers a loss on 3 questions in 100
    is still possible. p is the level at which the bound reaches ``bound``.

    Args:
        values: shape (questions, columns), none below ``worst``.
        worst: smallest possible value: -1 for differences of scores between 0 and 1, 0 for such scores.
        alpha: level of ``low``; p does not depend on it.
    """

    matrix = _matrix(values)
    if (matrix < worst - 1e-9).any():
        raise ValueError(f"a value is below {worst}, which was given as the worst possible")
    sums, sizes = _by_group(matrix, groups)
    count, questions = len(sizes), float(sizes.sum())
    if count == 1:
        return [MarginTest(1.0, worst)] * matrix.shape[1]
    size, own = questions / count, float((sizes**2).sum())
    tests: list[MarginTest] = []
    moments = sums.sum(axis=0), (sums**2).sum(axis=0), sizes @ sums
    for total, squares, crossed in zip(*(moment.tolist() for moment in moments), strict=True):

        def bounded(z: float, total: float = total, squares: float = squares, crossed: float = crossed) -> float:
            added = max(0.0, z) ** 2 / 2
            everything = questions + added * size
            mean = (total + added * size * worst) / everything
            spread = squares - 2 * mean * crossed + mean**2 * own + added * (size * (worst - mean)) ** 2
            error = math.sqrt(max(0.0, spread) * (count + added) / (count + added - 1)) / everything
            return mean - _student(z, count - 1) * error if error else mean

        tests.append(MarginTest(p=_level(bounded, bound), low=bounded(_NORMAL.inv_cdf(1 - alpha))))
    return tests


def non_inferiority(differences: ArrayLike, margin: float, *, alpha: float, groups: Groups = None) -> list[MarginTest]:
    """Test for each column of differences of scores between 0 and 1 that its mean is not lower than ``-margin``."""
    return exceeds(differences, -margin, worst=-1.0, alpha=alpha, groups=groups)


def equivalence(differences: ArrayLike, margin: float, *, alpha: float, groups: Groups = None) -> list[Interval]:
    """Two one-sided tests that the mean of each column of differences lies within ``margin`` of zero.

    Schuirmann, J. Pharmacokinet. Biopharm. 15, 1987, 657-680: the means are equivalent when both are.

    Returns:
        For each column p as ``estimate`` (the larger one), and the interval that has to lie within the margins:
        from one lower bound to the other, so at confidence 1 - 2 * alpha.
    """

    import numpy as np

    values = np.asarray(differences, dtype=float)
    below = non_inferiority(values, margin, alpha=alpha, groups=groups)
    above = non_inferiority(-values, margin, alpha=alpha, groups=groups)
    return [Interval(max(one.p, other.p), one.low, -other.low) for one, other in zip(below, above, strict=True)]


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


def deviations(differences: ArrayLike, groups: Groups = None) -> list[float]:
    """Standard deviation of each column as it counts for its mean: standard error * sqrt(questions).

    Without groups the usual one (n - 1). With groups the standard error is that of a ratio of group sums (Cochran,
    Sampling Techniques, 1977, eq. 6.13), so that what is computed from it allows for their dependence. The square of
    the ratio of the two is Kish's design effect. 0 with a single question or group.
    """

    import numpy as np

    values = _matrix(differences)
    sums, sizes = _by_group(values, groups)
    if len(sums) == 1:
        return [0.0] * values.shape[1]
    squares = ((sums - np.outer(sizes, values.mean(axis=0))) ** 2).sum(axis=0)
    return [float(one) for one in np.sqrt(squares * len(sums) / (len(sums) - 1) / len(values))]


def power_of(effect: float, deviation: float, questions: int, *, alpha: float) -> float:
    """Probability that ``questions`` paired questions show a true mean difference ``effect``.

    The inverse of ``minimum_detectable_effect`` in ``power``; 1 when nothing varies.
    """
    if not deviation:
        return 1.0 if effect else alpha
    shift, limit = abs(effect) * math.sqrt(questions) / deviation, _NORMAL.inv_cdf(1 - alpha / 2)
    return _NORMAL.cdf(shift - limit) + _NORMAL.cdf(-shift - limit)


def minimum_detectable_effect(deviation: float, questions: int, *, alpha: float, power: float = POWER) -> float:
    """Smallest true mean difference that ``questions`` paired questions show with probability ``power``.

    (z(1 - alpha / 2) + z(power)) * s / sqrt(n), the normal approximation of the two-sided paired test (Bloom,
    Evaluation Review 19, 1995, 547-556).

    Args:
        deviation: standard deviation s of the per-question differences; of grouped ones as ``deviations`` has it.
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


def _by_group(values: Floats, groups: Groups) -> tuple[Floats, Floats]:
    """Sums and sizes of the groups, in the order of their first questions: shapes (groups, columns) and (groups,)."""

    import numpy as np

    if groups is None:
        return values, np.ones(len(values))
    if len(groups) != len(values):
        raise ValueError(f"{len(groups)} groups for {len(values)} questions")
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    codes = np.array([numbers[group] for group in groups])
    sums = np.zeros((len(numbers), values.shape[1]))
    np.add.at(sums, codes, values)
    return sums, np.bincount(codes, minlength=len(numbers)).astype(float)


def _expanded_tail(confidence: float, count: int) -> float:
    """The share of resamples to leave out on each side, so that ``count`` questions or groups cover as often as told."""
    tail = (1 - confidence) / 2
    if count < 3:
        return tail
    return _NORMAL.cdf(_student(_NORMAL.inv_cdf(tail), count - 1) * math.sqrt(count / (count - 1)))


def _student(z: float, freedom: float) -> float:
    """The quantile of Student's t that corresponds to the normal one ``z`` (Abramowitz & Stegun 26.7.5)."""
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )


def _level(bounded: Callable[[float], float], bound: float) -> float:
    """The level at which a lower confidence bound, which falls with z, reaches ``bound``."""
    low, high = -8.0, 8.0
    if bounded(low) <= bound:
        return 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if bounded(middle) > bound else (low, middle)
    return 1 - _NORMAL.cdf(low)


def resampled_sums(rows: Floats, *, resamples: int, seed: int, groups: Groups = None) -> Floats:
    """Column sums of bootstrap resamples of the rows (of their groups): shape (resamples, columns).

    For values of a whole set that are no mean, and are computed from such sums.
    """

    import numpy as np

    summed, _ = _by_group(rows, groups)
    return np.concatenate([block @ summed for block in _weights(len(summed), resamples, seed)])


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


def _quantiles(ordered: Floats, levels: Floats) -> Floats:
    """The quantile of each sorted column at a level of its own, between neighbours linearly as ``numpy.quantile`` has it."""

    import numpy as np

    places = levels * (len(ordered) - 1)
    below = np.floor(places).astype(int)
    above = np.minimum(below + 1, len(ordered) - 1)
    columns = np.arange(ordered.shape[1])
    low, high = ordered[below, columns], ordered[above, columns]
    return low + (high - low) * (places - below)


def _quantiles_of_normal(levels: Floats) -> Floats:
    import numpy as np

    return np.array([_NORMAL.inv_cdf(float(level)) for level in levels])


def _normal_cdf(values: Floats) -> Floats:
    import numpy as np

    return np.array([_NORMAL.cdf(float(value)) for value in values])
