"""Refusal metrics: right, wrong and missing refusals, and the F1 that is no mean."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.evaluation.metrics.base import aggregate, score
from tests.unit.metric_records import record

IDS = [f"genaiops.refusal_{name}/1" for name in ("accuracy", "precision", "recall", "f1")]


def values(*, answerable: bool, refused: bool, failed: bool = False) -> list[float | None]:
    one = record("text", "80 km" if answerable else None, refused=refused, failed=failed)
    return [score([one], [metric])[metric][0] for metric in IDS]


def test_each_outcome_counts_where_it_belongs() -> None:
    assert values(answerable=False, refused=True) == [1, 1, 1, 1]
    assert values(answerable=False, refused=False) == [0, None, 0, 0]
    assert values(answerable=True, refused=True) == [0, 0, None, 0]
    assert values(answerable=True, refused=False) == [1, None, None, None]


def test_failed_trial_is_an_error_whatever_the_question() -> None:
    for refused in (True, False):
        assert values(answerable=False, refused=refused, failed=True) == [0, None, 0, 0]
        assert values(answerable=True, refused=refused, failed=True) == [0, 0, None, 0]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_aggregates_equal_sklearn(pairs: list[tuple[bool, bool]]) -> None:
    from sklearn import metrics as sklearn_metrics

    reference: Any = sklearn_metrics  # its zero_division is declared as str

    records = [record("x", None if unanswerable else "y", refused=refused) for unanswerable, refused in pairs]
    truth, said = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    scores = score(records, IDS)
    found = [aggregate(metric, scores[metric]) for metric in IDS]
    expected = [
        reference.accuracy_score(truth, said),
        reference.precision_score(truth, said, zero_division=0) if any(said) else None,
        reference.recall_score(truth, said, zero_division=0) if any(truth) else None,
        reference.f1_score(truth, said, zero_division=0) if any(truth) or any(said) else None,
    ]
    for one, other in zip(found, expected, strict=True):
        assert one == (None if other is None else pytest.approx(other))
