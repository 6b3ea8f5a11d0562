"""Strategies: which variants are asked which questions, so that the best of a grid is found for less than the whole grid.

Belongs here: successive halving, Bayesian search, and which search settings need not be asked any model. Pure functions of
scores, which a callback provides.
Does not belong here: running trials (searching.py, running.py), and judging the variants that were asked everything
(leaderboard.py, recommendation.py).

All of them look at whole variants, never at one axis with the others held fixed: a setting that is second by itself and a
prompt that is last by itself may be best together. Everything is decided by seeds and scores alone, so that a run that died
takes the same way again, over trials that are on record.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any

from assets.experiments.statistics import Groups, Interval, mean_intervals
from resources.errors import PermanentError
from resources.fingerprint import fingerprint

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

#: Raised when the same scores would lead another way.
CODE_VERSION = "1"
#: A search setting is dropped when it finds this much less than another one, beyond chance.
RETRIEVAL_MARGIN = 0.05
#: Texts this much shorter are an advantage of a search setting; less is the same.
SHORTER = 0.05
#: Most of the trials of ``bayes`` that go into trying every two values of two axes together.
DESIGN_SHARE = 0.75
#: Variants ``bayes`` asks at once, chosen by the same knowledge.
BATCH = 4
#: Resamples of intervals that only decide who goes on.
RESAMPLES = 2000

#: Scores of some variants on some questions, shape (questions, variants); both are given as positions.
Evaluate = Callable[[Sequence[int], Sequence[int]], "Floats"]


@dataclass(frozen=True)
class Space:
    """The variants to choose from.

    Attributes:
        axes: names of what varies.
        points: of each variant its value on each axis.
        champion: position of the variant that is asked everything whatever it scores.
    """

    axes: tuple[str, ...]
    points: tuple[tuple[str, ...], ...]
    champion: int


@dataclass(frozen=True)
class Round:
    """Variants that were asked the same questions.

    Attributes:
        questions: number of questions, those of earlier rounds included.
        means: of each variant, best first.
    """

    questions: int
    means: Mapping[int, float]

    @property
    def best(self) -> int:
        """The variant with the highest mean."""
        return next(iter(self.means))


@dataclass(frozen=True)
class Drop:
    """A variant that was not asked everything.

    Attributes:
        round: number of the round, from 1, after which it was dropped.
        mean: in that round.
        difference: to ``best``, the best variant of the round.
        shown: whether it is shown to be worse; otherwise others went before it and there was no room.
        barred: why others went before it whatever their means; empty when nothing barred it.
    """

    variant: int
    round: int
    questions: int
    mean: float
    best: int
    difference: Interval
    shown: bool
    barred: str = ""


@dataclass(frozen=True)
class Found:
    """What a strategy did.

    Attributes:
        finalists: variants that were asked everything, in their own order.
        untried: variants that were asked nothing.
    """

    finalists: tuple[int, ...]
    rounds: tuple[Round, ...]
    dropped: tuple[Drop, ...] = ()
    untried: tuple[int, ...] = ()


# --- questions -------------------------------------------------------------------------------------------------


def stratified_order(questions: Sequence[tuple[str, Hashable]], seed: int) -> list[int]:
    """Positions of the questions in an order of which every beginning holds each stratum in its share.

    Args:
        questions: (id, stratum) of each. The order of two questions depends on their ids and the seed, not on which
            others there are.
    """
    drawn = sorted(range(len(questions)), key=lambda at: fingerprint([seed, questions[at][0]]))
    drawn.sort(key=lambda at: repr(questions[at][1]))
    place: dict[int, float] = {}
    for _, members in groupby(drawn, key=lambda at: repr(questions[at][1])):
        inside = list(members)
        place |= {at: (rank + 0.5) / len(inside) for rank, at in enumerate(inside)}
    return sorted(place, key=lambda at: (place[at], fingerprint([seed, questions[at][0]])))


def round_sizes(questions: int, minimum: int, eta: int) -> list[int]:
    """Questions of each round of ``halving``, the last one all of them.

    Counted from the end, so that with few finalists a run asks little more than 1 / eta of the grid.
    """
    sizes = [questions]
    while (smaller := math.ceil(sizes[0] / eta)) >= minimum:
        sizes.insert(0, smaller)
    if len(sizes) == 1 and 3 * minimum <= 2 * questions:
        sizes.insert(0, minimum)
    return sizes


# --- search settings -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Retrieved:
    """What a search setting finds, by position of the question.

    Attributes:
        quality: the retrieval metric, where it has a value.
        precision: share of what is found that is evidence, likewise.
        size: characters that are read, where anything was found: finding nothing is no advantage.
    """

    quality: Mapping[int, float]
    precision: Mapping[int, float]
    size: Mapping[int, float]


@dataclass(frozen=True)
class Beaten:
    """A search setting that another one beats in everything.

    Attributes:
        difference: of the retrieval metric, to ``by``.
    """

    by: str
    questions: int
    difference: Interval


def dominated(
    settings: Mapping[str, Retrieved],
    *,
    keep: float,
    champion: str,
    confidence: float,
    seed: int,
    groups: Groups = None,
) -> dict[str, Beaten]:
    """The search settings that no model needs to be asked about.

    A setting is dropped when another one that stays finds more by ``RETRIEVAL_MARGIN`` beyond chance (the paired interval
    of the difference lies below it), is as precise, and gives as little to read. So k = 3 is never dropped for k = 6,
    which has more to read. The best ``keep`` of them, and the champion's, stay whatever they find.

    Args:
        settings: by a key of each; compared on the questions that both have a value for.
        groups: of questions that belong together, one label a question.
    """
    means = {key: _mean(one.quality.values()) for key, one in settings.items()}
    order = sorted(settings, key=lambda key: (-means[key], key))
    protected = {champion, *order[: math.ceil(keep * len(order))]}
    staying: list[str] = []
    found: dict[str, Beaten] = {}
    for key in order:
        beaten = None
        if key not in protected:
            beaten = next(
                (
                    one
                    for other in staying
                    if (one := _beats(settings, other, key, confidence, seed, groups)) is not None
                ),
                None,
            )
        if beaten is None:
            staying.append(key)
        else:
            found[key] = beaten
    return found


def _beats(
    settings: Mapping[str, Retrieved], one: str, other: str, confidence: float, seed: int, groups: Groups
) -> Beaten | None:
    import numpy as np

    better, worse = settings[one], settings[other]
    both = sorted(better.quality.keys() & worse.quality.keys())
    if len(both) < 2:
        return None

    def mean(values: Mapping[int, float], at: Collection[int]) -> float:
        return _mean([values[place] for place in at])

    if mean(worse.precision, both) > mean(better.precision, both) + 1e-12:
        return None
    sized = sorted(better.size.keys() & worse.size.keys())
    if sized and mean(worse.size, sized) < (1 - SHORTER) * mean(better.size, sized):
        return None
    differences = np.array([worse.quality[at] - better.quality[at] for at in both])
    if differences.mean() >= -RETRIEVAL_MARGIN:
        return None
    (gap,) = mean_intervals(
        differences[:, None], confidence=confidence, resamples=RESAMPLES, seed=seed, groups=_of(groups, both)
    )
    return Beaten(one, len(both), gap) if gap.high < -RETRIEVAL_MARGIN else None


def _mean(values: Collection[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0


def _of(groups: Groups, at: Sequence[int]) -> Groups:
    return None if groups is None else [groups[place] for place in at]


# --- successive halving ----------------------------------------------------------------------------------------


def halving(
    space: Space,
    candidates: Sequence[int],
    order: Sequence[int],
    evaluate: Evaluate,
    *,
    eta: int,
    minimum_questions: int,
    finalists: int,
    confidence: float,
    seed: int,
    groups: Groups = None,
    tolerance: float = 0.0,
    barred: Callable[[], Mapping[int, str]] = dict,
) -> Found:
    """Ask all candidates a few questions, those that may be best more, and the last ones all.

    Each round asks the questions of the one before and further ones, so that nothing is asked twice and all comparisons
    are paired. After a round a variant is dropped when it is shown to be worse than the best of the round (the paired
    BCa interval of the difference lies below ``-tolerance``) and is not among the best 1 / eta. Into the last round, of
    all questions, go the ``finalists`` highest means of the round before: without that limit variants that cannot be
    told apart would all be asked everything. The champion stays throughout.

    Jamieson & Talwalkar, AISTATS 2016 (successive halving); Maron & Moore, NIPS 1993 (dropping what is shown to be
    worse).

    Args:
        candidates: positions of variants; the champion is added.
        order: positions of the questions, a beginning of which is a fair sample (``stratified_order``).
        tolerance: a variant that is at most this much worse may still be wanted (because it is cheaper).
        barred: told after each round: variants that could not be chosen however good they are (they break a guard), with the
            reason. The others are compared with the best of themselves, and go before them.
    """
    alive = sorted({*candidates, space.champion})
    rounds: list[Round] = []
    dropped: list[Drop] = []
    sizes = round_sizes(len(order), minimum_questions, eta)
    for number, size in enumerate(sizes, 1):
        asked = list(order[:size])
        scores = evaluate(alive, asked)
        rounds.append(_round(alive, scores))
        if size == sizes[-1]:
            break
        reasons = barred()
        ranked = sorted(rounds[-1].means, key=lambda one: one in reasons)  # by mean within each half: sorting is stable
        best = ranked[0]
        gaps = mean_intervals(
            scores - scores[:, [alive.index(best)]],
            confidence=confidence, resamples=RESAMPLES, seed=seed, groups=_of(groups, asked),
        )  # fmt: skip
        difference = dict(zip(alive, gaps, strict=True))
        top = {space.champion, *ranked[: math.ceil(len(ranked) / eta)]}
        worse = [one for one in ranked if one not in top and difference[one].high < -tolerance]
        left = [one for one in ranked if one not in worse]
        crowded = [one for one in left if one != space.champion][finalists:] if number == len(sizes) - 1 else []
        dropped += [
            Drop(one, number, size, rounds[-1].means[one], best, difference[one], one in worse, reasons.get(one, ""))
            for one in ranked
            if one in worse or one in crowded
        ]
        alive = sorted(set(left) - set(crowded))
    return Found(tuple(alive), tuple(rounds), tuple(dropped))


def _round(variants: Sequence[int], scores: Floats) -> Round:
    means = scores.mean(axis=0)
    ranked = sorted(range(len(variants)), key=lambda at: (-round(float(means[at]), 12), variants[at]))
    return Round(len(scores), {variants[at]: float(means[at]) for at in ranked})


# --- Bayesian search -------------------------------------------------------------------------------------------


def pairwise_design(space: Space, candidates: Sequence[int], most: int, seed: int) -> list[int]:
    """Few candidates among which every two values of two axes occur together, as far as ``most`` of them allow.

    Greedy: each time the candidate that adds most pairs (Cohen et al., IEEE Trans. Softw. Eng. 23, 1997, 437-444), ties
    by a draw. The champion is the first.
    """
    pairs = {
        at: {
            (one, other, space.points[at][one], space.points[at][other])
            for one in range(len(space.axes))
            for other in range(one + 1, len(space.axes))
        }
        for at in candidates
    }
    drawn = sorted(candidates, key=lambda at: fingerprint([seed, list(space.points[at])]))
    design, covered = [space.champion], set(pairs[space.champion])
    while len(design) < most:
        best = max((at for at in drawn if at not in design), key=lambda at: len(pairs[at] - covered), default=None)
        if best is None or pairs[best] <= covered:
            break
        design.append(best)
        covered |= pairs[best]
    return design


@dataclass
class _Proposals:
    """What to ask next, by the tree-structured Parzen estimator over all axes at once."""

    space: Space
    candidates: Sequence[int]
    seed: int
    startup: int
    tried: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        optuna = _optuna()
        values = [list(dict.fromkeys(self.space.points[at][axis] for at in self.candidates)) for axis in self._axes]
        self._distributions: dict[str, Any] = {
            self.space.axes[axis]: optuna.distributions.CategoricalDistribution(options)
            for axis, options in zip(self._axes, values, strict=True)
        }
        # fixed liars off: a batch is chosen by what is known before it, whatever the order in which it is answered
        sampler = optuna.samplers.TPESampler(
            multivariate=True, seed=self.seed, n_startup_trials=self.startup, constant_liar=False
        )
        self._study = optuna.create_study(direction="maximize", sampler=sampler)
        self._optuna = optuna

    @property
    def _axes(self) -> list[int]:
        """Axes on which the candidates differ."""
        return [
            axis
            for axis in range(len(self.space.axes))
            if len({self.space.points[at][axis] for at in self.candidates}) > 1
        ]

    def propose(self, chosen: Collection[int]) -> int:
        """The candidate that is neither tried nor chosen and nearest to what the estimator asks for."""
        trial = self._study.ask(self._distributions)
        wanted = dict(trial.params)
        self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)  # its value is told with the point itself

        def distance(at: int) -> tuple[int, str]:
            apart = sum(self.space.points[at][axis] != wanted[self.space.axes[axis]] for axis in self._axes)
            return apart, fingerprint([self.seed, list(self.space.points[at])])

        return min((at for at in self.candidates if at not in self.tried and at not in chosen), key=distance)

    def learn(self, at: int, mean: float) -> None:
        """Take a mean into account."""
        self.tried[at] = mean
        if not self._distributions:
            return
        parameters = {self.space.axes[axis]: self.space.points[at][axis] for axis in self._axes}
        self._study.add_trial(
            self._optuna.trial.create_trial(params=parameters, distributions=self._distributions, value=mean)
        )


def bayes(
    space: Space,
    candidates: Sequence[int],
    questions: Sequence[int],
    evaluate: Evaluate,
    *,
    trials: int,
    seed: int,
) -> Found:
    """Ask some of the candidates all questions, each batch chosen by what those before it scored.

    First come candidates among which every two values of two axes occur together, as far as ``DESIGN_SHARE`` of the trials
    allows; the champion is the first of them. So two values that are only good together are seen together. The estimator (Bergstra et al., NIPS 2011; optuna's TPESampler with ``multivariate``) models good variants as whole
    points, so that axes that only work together are found together. A point it asks for again, or that is none of the
    candidates, stands for the nearest one that was not tried.

    Raises:
        PermanentError: optuna is not installed.
    """
    candidates = sorted({*candidates, space.champion})
    limit = min(trials, len(candidates))
    design = pairwise_design(space, candidates, max(BATCH, math.floor(DESIGN_SHARE * limit)), seed)
    proposals = _Proposals(space, candidates, seed, startup=len(design))
    rounds: list[Round] = []
    while len(proposals.tried) < limit:
        room = min(BATCH, limit - len(proposals.tried))
        batch = design[len(proposals.tried) :][:room]
        while len(batch) < room:
            batch.append(proposals.propose(batch))
        rounds.append(_round(batch, evaluate(batch, list(questions))))
        for at in batch:
            proposals.learn(at, rounds[-1].means[at])
    tried = tuple(sorted(proposals.tried))
    return Found(tried, tuple(rounds), untried=tuple(at for at in candidates if at not in proposals.tried))


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise PermanentError("search.strategy: bayes needs the package optuna: pip install optuna") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna
