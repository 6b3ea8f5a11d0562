"""The verdict of the arena: whether a change makes answers worse, by how much, and what could have been seen.

Belongs here: the paired tests of each pair of variants, and the verdict that follows. Pure functions of scores.
Does not belong here: which variants are paired (arena.py), formulas of tests (statistics.py), words for a pull request
(arena_report.py).

A pair is a *regression* when its mean is shown to be lower (one-sided sign-flip test, adjusted by Holm over the pairs that
gate, and for the number of experiments) and the loss seen is larger than the margin. A difference that was not shown is never read as equality: it is
``not shown``, with the smallest effect that would have been.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from assets.experiments.slices import MINIMUM_QUESTIONS
from assets.experiments.statistics import (
    Groups,
    deviations,
    holm,
    mean_intervals,
    minimum_detectable_effect,
    non_inferiority,
    questions_needed,
    sign_flip_p_values,
)

if TYPE_CHECKING:
    import numpy as np

#: ``worse``: a regression; ``within margin``: shown to be lower, and shown to be so by less than the margin; ``no worse``:
#: shown not to be lower by the margin; ``better``: shown to be higher; ``not shown``: none of these.
PairVerdict = Literal["worse", "within margin", "no worse", "better", "not shown"]
Verdict = Literal["regression", "passed", "unproven", "not evaluated", "nothing to compare"]
#: Exit status by verdict; ``unproven`` is a failure only where proof is asked for.
EXITS: Mapping[str, int] = {"passed": 0, "nothing to compare": 0, "unproven": 0, "regression": 1, "not evaluated": 2}
#: Questions listed that lost most.
WORST = 10


@dataclass(frozen=True)
class PairResult:
    """What the scores say of one pair.

    Attributes:
        difference: mean of head - base with its interval, as {estimate, low, high}.
        p_worse: one-sided, that the head is lower; adjusted over the pairs that gate (or over those that do not).
        p_margin: one-sided, that the head is not lower by the margin; adjusted likewise.
        detectable: the loss these questions show with a probability of 80 %.
        needed: questions that would show a loss as large as the margin so; None without a margin or variation.
        worst: ids of the questions that lost most, with their loss.
    """

    verdict: PairVerdict
    base_mean: float
    head_mean: float
    difference: Mapping[str, float]
    p_worse: float
    p_margin: float
    detectable: float
    needed: int | None
    changed: int
    worst: tuple[tuple[str, float], ...]


def judge(
    scores: np.ndarray,
    pairs: Sequence[tuple[int, int]],
    gates: Sequence[bool],
    questions: Sequence[str],
    *,
    margin: float,
    confidence: float,
    resamples: int,
    seed: int,
    groups: Groups = None,
    families: int = 1,
) -> list[PairResult]:
    """Judge pairs of variants on the questions both were asked.

    Args:
        scores: of the decision metric, shape (questions, variants), between 0 and 1.
        pairs: positions (base, head) of the variants.
        gates: which pairs decide; they are one family of tests, the others another.
        questions: ids, in the order of the rows.
        groups: what belongs together, one label a question.
        families: how many experiments judge the same change; each p-value is multiplied by it, so that all of them together
            raise a false alarm as seldom as one.
    """
    import numpy as np

    columns = np.stack([scores[:, head] - scores[:, base] for base, head in pairs], axis=1)
    settings: dict[str, Any] = {"resamples": resamples, "seed": seed, "groups": groups}
    alpha = 1 - confidence
    intervals = mean_intervals(columns, confidence=confidence, **settings)
    means = columns.mean(axis=0)
    two_sided = sign_flip_p_values(columns, **settings)
    lower = [_one_sided(p, -mean) for p, mean in zip(two_sided, means, strict=True)]
    higher = [_one_sided(p, mean) for p, mean in zip(two_sided, means, strict=True)]
    kept = [test.p for test in non_inferiority(columns, margin, alpha=alpha, groups=groups)]
    spread = deviations(columns, groups)
    results = []
    adjusted = [[min(1.0, families * p) for p in _adjusted(values, gates)] for values in (lower, higher, kept)]
    for at, (base, head) in enumerate(pairs):
        p_worse, p_better, p_margin = (values[at] for values in adjusted)
        level = min(0.99, 2 * alpha / sum(gate == gates[at] for gate in gates) / families)  # one-sided tests
        column = columns[:, at]
        order = [int(row) for row in np.argsort(column, kind="stable")[:WORST] if column[row] < 0]
        results.append(
            PairResult(
                verdict=pair_verdict(
                    float(means[at]), margin, worse=p_worse < alpha, better=p_better < alpha, kept=p_margin < alpha
                ),
                base_mean=float(scores[:, base].mean()),
                head_mean=float(scores[:, head].mean()),
                difference=intervals[at].to_json(),
                p_worse=p_worse,
                p_margin=p_margin,
                detectable=minimum_detectable_effect(spread[at], len(column), alpha=level),
                needed=questions_needed(spread[at], margin, alpha=level) if spread[at] else None,
                changed=int((column != 0).sum()),
                worst=tuple((questions[row], float(column[row])) for row in order),
            )
        )
    return results


def too_few(questions: int, groups: Groups) -> bool:
    """Whether there are too few independent questions for any verdict."""
    return (questions if groups is None else len(set(groups))) < MINIMUM_QUESTIONS


def verdict_of(
    results: Sequence[PairResult], gates: Sequence[bool], guards: Sequence[Mapping[str, Any]]
) -> tuple[Verdict, str]:
    """The verdict on one experiment and the reason for it.

    Args:
        guards: of the variant that would answer, as the leaderboard has them.
    """
    deciding = [result for result, gate in zip(results, gates, strict=True) if gate]
    worse = sum(result.verdict == "worse" for result in deciding)
    broken = [guard for guard in guards if guard["state"] == "broken"]
    if worse or broken:
        said = [f"{worse} of {len(deciding)} comparisons shown to be worse"] if worse else []
        said += [f"guard {guard['metric']} ({guard['kind']}) broken" for guard in broken]
        return "regression", "; ".join(said)
    unproven = sum(result.verdict == "not shown" for result in deciding)
    unproven += sum(guard["state"] == "open" for guard in guards)
    if unproven:
        return "unproven", f"{_no_loss(deciding)}; {unproven} not shown to stay within the margin either"
    return "passed", "no regression" if deciding else "nothing that answers was edited"


def _no_loss(deciding: Sequence[PairResult]) -> str:
    largest = max((result.detectable for result in deciding), default=0.0)
    return "no loss is shown" + (f", where one of {largest:.3f} would have been" if largest else "")


def overall(verdicts: Sequence[Verdict], *, strict: bool = False) -> tuple[Verdict, int]:
    """The verdict on the whole change and its exit status; the worst of the experiments decides."""
    order: tuple[Verdict, ...] = ("regression", "not evaluated", "unproven", "passed", "nothing to compare")
    verdict: Verdict = order[-1]
    for one in reversed(order):
        verdict = one if one in verdicts else verdict
    return verdict, 1 if strict and verdict == "unproven" else EXITS[verdict]


def _one_sided(two_sided: float, towards: float) -> float:
    """The distribution under the null hypothesis is symmetric: half of the two-sided p on the side of the mean."""
    return two_sided / 2 if towards > 0 else 1 - two_sided / 2 if towards < 0 else 1.0


def _adjusted(values: Sequence[float], gates: Sequence[bool]) -> list[float]:
    """Holm's adjustment within the pairs that gate, and within those that do not."""
    adjusted = list(values)
    for family in (True, False):
        members = [at for at, gate in enumerate(gates) if gate == family]
        for at, p in zip(members, holm([values[at] for at in members]), strict=True):
            adjusted[at] = p
    return adjusted


def pair_verdict(difference: float, margin: float, *, worse: bool, better: bool, kept: bool) -> PairVerdict:
    """What follows from the tests of one pair.

    Args:
        worse: whether it is shown to be lower; ``better``: higher; ``kept``: not lower by the margin.
    """
    if worse and difference < -margin and not kept:
        return "worse"
    if kept and worse:
        return "within margin"
    return "better" if better else "no worse" if kept else "not shown"
