"""Calibration: how far scores agree with what people said.

Belongs here: agreement, bias and their intervals, from plain arrays; numpy and scipy inside the functions.
Does not belong here: making the scores (calibrating.py), and what agreement is asked for (checks.py).

Items of one group (answers to one question, say) do not err independently: groups are what is drawn in the bootstrap, left
out in the jackknife, and held out when the threshold of a decision is chosen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Measure = Callable[[NDArray[np.int64]], float | None]

FOLDS = 10
CONFIDENCE = 0.95
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Estimate:
    """A measure with its interval; the interval is None where too few groups allow one."""

    estimate: float
    low: float | None
    high: float | None

    def to_json(self) -> dict[str, float | None]:
        """Plain numbers."""
        return {"estimate": self.estimate, "low": self.low, "high": self.high}


@dataclass(frozen=True)
class Ceiling:
    """How far two people agree with each other: what a judge can be asked for at most.

    Attributes:
        kappa: of their decisions; ``same``: share of equal decisions; ``spearman``: of their labels.
    """

    items: int
    kappa: float | None
    same: float
    spearman: float | None


@dataclass(frozen=True)
class Calibration:
    """How far scores agree with people.

    Attributes:
        n: items with a score; ``undefined``: items without one, which are left out.
        groups: independent ones among them.
        threshold: from which score on an answer is taken for good, median over the folds; 0 for pairs.
        kappa: Cohen's, of decisions whose threshold was chosen without the item's group.
        auc: area under the ROC curve of the scores.
        bias: mean score less mean label; for pairs, of the signs: how much oftener the second answer is preferred than
            people do.
        spearman: rank correlation of scores and labels.
        accuracy: share of right decisions.
        by_class: {label: {"n", "right"}}: items people call so, and the share of them the decision is right on.
        ceiling: agreement of two people, where two labelled.
    """

    n: int
    undefined: int
    groups: int
    pairs: bool
    threshold: float | None
    kappa: Estimate | None
    auc: Estimate | None
    bias: Estimate | None
    spearman: Estimate | None
    accuracy: Estimate | None
    by_class: dict[str, dict[str, float | int | None]]
    ceiling: Ceiling | None

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, as they are stored."""
        measured = {
            name: one.to_json() if (one := getattr(self, name)) else None
            for name in ("kappa", "auc", "bias", "spearman", "accuracy")
        }
        plain = {name: getattr(self, name) for name in ("n", "undefined", "groups", "pairs", "threshold", "by_class")}
        return {**plain, **measured, "ceiling": vars(self.ceiling) if self.ceiling else None}


def calibrate(
    scores: Sequence[float | None],
    labels: Sequence[Sequence[float]],
    groups: Sequence[Hashable],
    seed: int,
    *,
    pairs: bool = False,
    resamples: int = 2000,
) -> Calibration:
    """Compare scores with labels.

    What people say of an item is the mean of their labels; they call it good from one half on, of a pair the second
    answer better above 0. Pairs that people call equal have no class: they count for the rank correlation alone.
    A single answer is called good from a threshold on that maximises kappa on all groups but those of its own fold (of
    ``FOLDS``), so that no item helps to choose the threshold it is judged by. Intervals are BCa over groups (Efron &
    Tibshirani, An Introduction to the Bootstrap, 1993, eq. 14.9, 14.10 and 14.15).

    Args:
        scores: one an item, None where there is none; of a pair the second answer's less the first's.
        labels: for each item one label a person, 0 to 1; of pairs -1 to 1.
        groups: what belongs together, one an item.
        seed: of folds and resamples.

    Raises:
        ValueError: lengths differ, or a score is not finite.
    """

    import numpy as np

    if not len(scores) == len(labels) == len(groups):
        raise ValueError(f"{len(scores)} scores, {len(labels)} labels and {len(groups)} groups")
    if any(score is not None and not math.isfinite(score) for score in scores):
        raise ValueError("a score is not finite; an item without a score is None")
    kept = [place for place, score in enumerate(scores) if score is not None]
    values = np.array([scores[place] for place in kept], dtype=float)
    means = np.array([math.fsum(labels[place]) / len(labels[place]) for place in kept], dtype=float)
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups[place] for place in kept))}
    codes = np.array([numbers[groups[place]] for place in kept], dtype=np.int64)
    classed = np.flatnonzero(means != 0) if pairs else np.arange(len(kept))
    good = means > 0 if pairs else means >= 0.5
    if pairs:
        thresholds, threshold = np.zeros(len(kept)), 0.0
    else:
        thresholds, threshold = _thresholds(values, good, codes, len(numbers), seed)
    said = values > thresholds if pairs else values >= thresholds
    if pairs:  # neither answer preferred: a decision for neither, right for no class
        said = np.where(values == 0, False, said)
    right = said == good
    if pairs:
        right = np.where(values == 0, False, right)
    shifts = np.sign(values) - np.sign(means) if pairs else values - means

    def estimate(measure: Measure) -> Estimate | None:
        return _interval(measure, codes, len(numbers), resamples, seed)

    of_class = np.zeros(len(kept), dtype=bool)
    of_class[classed] = True
    both = len(classed) > 0 and 0 < good[classed].sum() < len(classed)
    tied = values == 0
    return Calibration(
        n=len(kept),
        undefined=len(scores) - len(kept),
        groups=len(numbers),
        pairs=pairs,
        threshold=threshold if both else None,
        kappa=estimate(lambda w: _kappa(said, good, np.where(of_class, w, 0), tied if pairs else None))
        if both
        else None,
        auc=estimate(lambda w: _auc(values, good, np.where(of_class, w, 0))) if both else None,
        bias=estimate(lambda w: _mean(shifts, w)) if kept else None,
        spearman=estimate(lambda w: _spearman(values, means, w)) if len(kept) > 2 else None,
        accuracy=estimate(lambda w: _mean(right.astype(float), np.where(of_class, w, 0))) if len(classed) else None,
        by_class={
            name: {
                "n": int(mine.sum()),
                "right": float(right[mine].mean()) if mine.any() else None,
            }
            for name, mine in (
                ("second better" if pairs else "good", good & of_class),
                ("first better" if pairs else "bad", ~good & of_class),
            )
        },
        ceiling=_ceiling([labels[place] for place in kept], pairs),
    )


def mean_estimate(
    values: Sequence[float], groups: Sequence[Hashable], seed: int, *, resamples: int = 2000
) -> Estimate | None:
    """The mean of one value an item, with its BCa interval over groups; None without an item."""

    import numpy as np

    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    codes = np.array([numbers[group] for group in groups], dtype=np.int64)
    column = np.array(values, dtype=float)
    return (
        _interval(lambda weights: _mean(column, weights), codes, len(numbers), resamples, seed) if len(column) else None
    )


def _thresholds(
    values: Floats, good: NDArray[np.bool_], codes: NDArray[np.int64], groups: int, seed: int
) -> tuple[Floats, float]:
    """The threshold each item is judged by, and their median."""

    import numpy as np

    order = np.random.default_rng(seed).permutation(groups)
    folds = min(FOLDS, groups)
    fold_of = np.empty(groups, dtype=np.int64)
    fold_of[order] = np.arange(groups) % max(1, folds)
    fold = fold_of[codes] if groups else codes
    found = np.zeros(len(values))
    chosen = []
    for number in range(folds):
        others = fold != number
        one = _best_threshold(values[others], good[others]) if others.any() else _best_threshold(values, good)
        found[fold == number] = one
        chosen.append(one)
    return found, float(np.median(chosen)) if chosen else 0.5


def _best_threshold(values: Floats, good: NDArray[np.bool_]) -> float:
    """The threshold with the highest kappa; halfway between two scores, so that it does not rest on one item."""

    import numpy as np

    distinct = np.unique(values)
    if len(distinct) < 2:
        return float(distinct[0]) if len(distinct) else 0.5
    candidates = (distinct[1:] + distinct[:-1]) / 2
    order = np.argsort(values, kind="stable")
    below = np.searchsorted(values[order], candidates, side="left")
    positives = np.concatenate([[0], np.cumsum(good[order])])
    n, total = len(values), int(good.sum())
    hits = total - positives[below]
    called = n - below
    agreed = (hits + (n - called) - (total - hits)) / n
    chance = (called * total + (n - called) * (n - total)) / n**2
    kappas = np.where(chance < 1, (agreed - chance) / np.where(chance < 1, 1 - chance, 1), 0)
    return float(candidates[int(np.argmax(np.round(kappas, 12)))])


# --- measures: of items that count ``weights`` times -----------------------------------------------------------


def _mean(values: Floats, weights: NDArray[np.int64]) -> float | None:
    total = int(weights.sum())
    return float((values * weights).sum() / total) if total else None


def _kappa(
    said: NDArray[np.bool_], good: NDArray[np.bool_], weights: NDArray[np.int64], tied: NDArray[np.bool_] | None
) -> float | None:
    """Cohen's kappa (Educ. Psychol. Meas. 20, 1960, 37-46); a tie of a pair is a class of its own."""
    n = int(weights.sum())
    if not n:
        return None
    open_ = tied if tied is not None else said & ~said
    first, second = int(weights[said & ~open_].sum()), int(weights[~said & ~open_].sum())
    yes = int(weights[good].sum())
    agreed = int(weights[(said == good) & ~open_].sum()) / n
    chance = (first * yes + second * (n - yes)) / n**2
    return (agreed - chance) / (1 - chance) if chance < 1 else None


def _auc(values: Floats, good: NDArray[np.bool_], weights: NDArray[np.int64]) -> float | None:
    """Chance that a good item scores above a bad one, a tie counting one half."""

    import numpy as np

    _, ranks = np.unique(values, return_inverse=True)
    high = np.bincount(ranks, weights=np.where(good, weights, 0))
    low = np.bincount(ranks, weights=np.where(good, 0, weights))
    pairs = high.sum() * low.sum()
    if not pairs:
        return None
    below = np.concatenate([[0.0], np.cumsum(low)[:-1]])
    return float((high * (below + low / 2)).sum() / pairs)


def _spearman(values: Floats, labels: Floats, weights: NDArray[np.int64]) -> float | None:
    """Pearson's correlation of the ranks, ties at their middle."""

    import numpy as np

    total = weights.sum()
    if total < 3:
        return None
    one, other = _ranks(values, weights), _ranks(labels, weights)
    one, other = one - (one * weights).sum() / total, other - (other * weights).sum() / total
    norm = math.sqrt(float((weights * one**2).sum() * (weights * other**2).sum()))
    return float(np.clip((weights * one * other).sum() / norm, -1, 1)) if norm else None


def _ranks(values: Floats, weights: NDArray[np.int64]) -> Floats:
    import numpy as np

    _, places = np.unique(values, return_inverse=True)
    counts = np.bincount(places, weights=weights)
    return (np.cumsum(counts) - (counts - 1) / 2)[places]


def _ceiling(labels: Sequence[Sequence[float]], pairs: bool) -> Ceiling | None:
    """Agreement of the first two people of every item that two labelled."""

    import numpy as np

    both = [one for one in labels if len(one) > 1]
    if not both:
        return None
    first, second = (np.array([one[place] for one in both], dtype=float) for place in (0, 1))
    ones = np.ones(len(both), dtype=np.int64)
    if pairs:
        mine, theirs = np.sign(first), np.sign(second)
        classes = (-1.0, 0.0, 1.0)
    else:
        mine, theirs = (first >= 0.5).astype(float), (second >= 0.5).astype(float)
        classes = (0.0, 1.0)
    same = float((mine == theirs).mean())
    chance = sum(float((mine == one).mean() * (theirs == one).mean()) for one in classes)
    kappa = (same - chance) / (1 - chance) if chance < 1 else None
    return Ceiling(len(both), kappa, same, _spearman(first, second, ones))


# --- intervals -------------------------------------------------------------------------------------------------


def _interval(measure: Measure, codes: NDArray[np.int64], groups: int, resamples: int, seed: int) -> Estimate | None:
    """The measure with its BCa interval over groups; resamples on which it is undefined are left out."""

    import numpy as np

    own = measure(np.ones(len(codes), dtype=np.int64))
    if own is None:
        return None
    if groups < 5:
        return Estimate(own, None, None)
    generator = np.random.default_rng(seed)
    drawn = (
        measure(np.bincount(generator.integers(0, groups, groups), minlength=groups)[codes]) for _ in range(resamples)
    )
    found = np.sort(np.round([one for one in drawn if one is not None], 12))
    if len(found) < resamples / 2:
        return Estimate(own, None, None)
    left_out = [measure((codes != group).astype(np.int64)) for group in range(groups)]
    influence = np.array([one for one in left_out if one is not None])
    centre = influence.mean() - influence if len(influence) else np.zeros(1)
    squares = float((centre**2).sum())
    acceleration = float((centre**3).sum()) / (6 * squares**1.5) if squares > 1e-24 else 0.0
    middle = round(own, 12)
    share = float(((found < middle).mean() + (found <= middle).mean()) / 2)
    bias = _NORMAL.inv_cdf(min(max(share, 0.5 / len(found)), 1 - 0.5 / len(found)))
    tail = (1 - CONFIDENCE) / 2
    bounds = []
    for quantile in (tail, 1 - tail):
        shifted = bias + _NORMAL.inv_cdf(quantile)
        bounds.append(float(np.quantile(found, _NORMAL.cdf(bias + shifted / (1 - acceleration * shifted)))))
    return Estimate(own, bounds[0], bounds[1])
