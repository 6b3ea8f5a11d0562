"""Refusal metrics: whether unanswerable questions, and only those, are refused.

Belongs here: values of one trial; pure functions.
Does not belong here: combining them over trials (``aggregate`` in base.py).
"""


def accuracy(refused: bool, unanswerable: bool) -> float | None:
    """1 if refusing and being unanswerable agree."""
    return float(refused == unanswerable)


def precision(refused: bool, unanswerable: bool) -> float | None:
    """1 for a right refusal, 0 for a wrong one; undefined without a refusal."""
    return float(unanswerable) if refused else None


def recall(refused: bool, unanswerable: bool) -> float | None:
    """1 if the unanswerable question was refused, else 0; undefined for answerable ones."""
    return float(refused) if unanswerable else None


def f1(refused: bool, unanswerable: bool) -> float | None:
    """1 for a right refusal, 0 for a wrong or a missing one; undefined for an answered answerable question."""
    return float(refused and unanswerable) if refused or unanswerable else None


REFUSALS = {"refusal_accuracy": accuracy, "refusal_precision": precision, "refusal_recall": recall, "refusal_f1": f1}
