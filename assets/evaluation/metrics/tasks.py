"""Task formulas: labels, probabilities, fields and lengths, one trial at a time. Pure functions of what was read.

Belongs here: the value of one trial. Does not belong here: reading an output (resources/task_output.py), metrics as people
read them (task_metrics.py), and values of a whole set of trials, which are no means (whole_set.py).
"""

import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from assets.evaluation.metrics.words import words
from resources.task_output import field_values

#: The least probability that is told from 0; as in scikit-learn, the machine epsilon of a double.
EPSILON = sys.float_info.epsilon
#: Log loss of a label that was given no probability at all: the largest there is.
WORST_LOG_LOSS = -math.log(EPSILON)


def log_loss(probability: float) -> float:
    """-ln of the probability of the right label, held between ``EPSILON`` and 1 - ``EPSILON``; 0 to 36.04."""
    return -math.log(min(max(probability, EPSILON), 1 - EPSILON))


def best_probability(probabilities: Mapping[str, float], accepted: Sequence[str]) -> float:
    """That of the accepted label which is thought the likeliest."""
    return max(probabilities.get(label, 0.0) for label in accepted)


def field_counts(said: Mapping[str, Any], wanted: Mapping[str, Any]) -> tuple[int, int, int]:
    """(right, too much, missing) values over all fields; a wrong value is too much and missing at once.

    A value is right when its field is expected to hold it, without regard to case, spacing and how a number is written; in
    a list each value counts, in any order.
    """
    right = extra = missing = 0
    for field, value in wanted.items():
        have, want = Counter(field_values(said.get(field))), Counter(field_values(value))
        shared = (have & want).total()
        right, extra, missing = right + shared, extra + have.total() - shared, missing + want.total() - shared
    return right, extra, missing


def field_f1(counts: tuple[int, int, int]) -> float:
    """2·right ÷ (2·right + too much + missing); 1 when nothing was to be found and nothing was given."""
    right, extra, missing = counts
    return 2 * right / (2 * right + extra + missing) if right or extra or missing else 1.0


def length_ratio(answer: str, reference: str) -> float | None:
    """Words of the answer ÷ words of the reference; None for a reference without words."""
    length = len(words(reference))
    return len(words(answer)) / length if length else None


def kept_share(answer: str, text: str) -> float | None:
    """Words of the answer ÷ words of the input, at most 1; None for an input without words."""
    length = len(words(text))
    return min(1.0, len(words(answer)) / length) if length else None


def copied_share(answer: str, text: str) -> float:
    """Share of the answer's word types of three letters and more that the input has as well; 0 for none."""
    said = {word for word in words(answer) if len(word) > 2}
    return len(said & set(words(text))) / len(said) if said else 0.0
