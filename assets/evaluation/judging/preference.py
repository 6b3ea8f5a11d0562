"""Preference: which of two answers a judge finds better, whatever their order.

Belongs here: asking for both orders and what follows from the two. Does not belong here: one answer at a time (judges.py).
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

from assets.evaluation.judging.claims import Claim
from assets.evaluation.judging.judges import Judge
from assets.evaluation.judging.measures import Sheet
from assets.evaluation.judging.schemas import Reply
from resources.generation_memo import GenerationMemo

_VALUES = {"first": -1, "equal": 0, "second": 1}


@dataclass(frozen=True)
class Preferred:
    """A judge's preference.

    Attributes:
        value: -1 the first answer, 1 the second, 0 neither; also 0 when the two orders disagree.
        consistent: whether both orders say the same; None when only one was asked.
        unsteady: whether draws in the same order differ.
    """

    value: int
    consistent: bool | None
    unsteady: bool
    generations: tuple[str, ...]


def prefer(
    judge: Judge, memo: GenerationMemo, run_id: str, *, question: str, reference: str | None, first: str, second: str,
    documents: Collection[int] = (),
) -> Preferred:  # fmt: skip
    """Compare two answers; the question and the reference are shown with them.

    Raises:
        GenaiopsError: as ``Judge.judge``.
    """
    if first.strip() == second.strip():
        return Preferred(0, None, False, ())  # nothing to choose: nothing is paid
    sheet = Sheet(
        question=question,
        reference=(Claim(0, len(reference), reference),) if reference else (),
        candidates=(first, second),
    )
    plain, swapped, generations = judge.ask(sheet, memo, run_id, documents)
    votes = [_vote(order) for order in (plain, swapped) if order]
    agreed = len(set(votes)) == 1
    return Preferred(
        value=votes[0] if agreed else 0,
        consistent=agreed if swapped else None,
        unsteady=any(one.better != other.better for order in (plain, swapped) for one, other in pairwise(order)),
        generations=tuple(dict.fromkeys(generations)),
    )


def _vote(replies: Sequence[Reply]) -> int:
    """What most draws say; without a majority, neither."""
    ((best, times), *others) = Counter(reply.better for reply in replies).most_common()
    return 0 if best is None or any(count == times for _, count in others) else _VALUES[best]
