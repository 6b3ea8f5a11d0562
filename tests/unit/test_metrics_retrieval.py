"""Retrieval metrics against hand-computed cases, sklearn, and each other."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.evaluation.metrics.base import score
from assets.evaluation.metrics.retrieval import (
    RANKINGS,
    average_precision,
    covered_at,
    iou,
    ndcg,
    precision,
    recall,
    reciprocal_rank,
    relevant,
)
from tests.unit.metric_records import hits, record

GOLD = [(1, 100, 120), (2, 0, 10)]


def test_chunk_is_relevant_from_one_shared_character_of_the_same_document() -> None:
    chunks = [(1, 119, 200), (1, 120, 200), (3, 100, 120), (1, 0, 101)]
    assert relevant(chunks, GOLD) == [True, False, False, True]


def test_span_is_covered_from_half_of_its_characters_in_all_chunks_together() -> None:
    assert covered_at([(1, 0, 109)], GOLD) == [None, None]
    assert covered_at([(1, 0, 110)], GOLD) == [1, None]
    assert covered_at([(1, 0, 105), (2, 5, 9), (1, 103, 106), (1, 115, 200)], GOLD) == [4, None]


def test_hand_computed_ranking() -> None:
    chunks = [(9, 0, 5), (1, 90, 130), (9, 5, 9), (2, 0, 30)]  # relevant at ranks 2 and 4
    assert precision(chunks, GOLD) == 0.5
    assert recall(chunks, GOLD) == 1
    assert reciprocal_rank(chunks, GOLD) == 0.5
    assert average_precision(chunks, GOLD) == pytest.approx((1 / 2 + 2 / 4) / 2)
    expected = (1 / math.log2(3) + 1 / math.log2(5)) / (1 + 1 / math.log2(3))
    assert ndcg(chunks, GOLD) == pytest.approx(expected)
    assert iou(chunks, GOLD) == pytest.approx(30 / (5 + 40 + 4 + 30))


def test_iou_counts_overlapping_chunks_every_time_and_gold_once() -> None:
    gold = [(1, 10, 20), (1, 15, 30)]  # 20 characters
    assert iou([(1, 10, 30)], gold) == 1
    assert iou([(1, 10, 30), (1, 10, 30)], gold) == 0.5
    assert iou([(1, 0, 20)], gold) == pytest.approx(10 / (20 + 10))
    assert iou([], gold) == 0


def test_one_chunk_with_two_spans_is_a_perfect_ranking() -> None:
    gold = [(1, 0, 10), (1, 20, 30)]
    chunks = [(1, 0, 30), (2, 0, 30)]
    assert ndcg(chunks, gold) == 1
    assert average_precision(chunks, gold) == 1


@settings(max_examples=100, deadline=None)
@given(st.lists(st.booleans(), min_size=2, max_size=12).filter(any))
def test_ndcg_equals_sklearn_with_one_chunk_per_span(pattern: list[bool]) -> None:
    from sklearn.metrics import ndcg_score

    gold = [(rank, 0, 10) for rank, good in enumerate(pattern) if good]
    chunks = [(rank, 0, 10) for rank in range(len(pattern))]
    reference = ndcg_score(np.array([pattern], dtype=float), np.array([[-rank for rank in range(len(pattern))]]))
    assert ndcg(chunks, gold) == pytest.approx(reference)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.booleans(), min_size=2, max_size=12).filter(any))
def test_average_precision_equals_sklearn_with_one_chunk_per_span(pattern: list[bool]) -> None:
    from sklearn.metrics import average_precision_score

    gold = [(rank, 0, 10) for rank, good in enumerate(pattern) if good]
    chunks = [(rank, 0, 10) for rank in range(len(pattern))]
    reference = average_precision_score(pattern, [-rank for rank in range(len(pattern))])
    assert average_precision(chunks, gold) == pytest.approx(reference)


SPANS = st.lists(
    st.tuples(st.integers(1, 2), st.integers(0, 30), st.integers(1, 15)).map(lambda s: (s[0], s[1], s[1] + s[2])),
    max_size=6,
)


@settings(max_examples=200, deadline=None)
@given(SPANS, SPANS.filter(bool))
def test_every_value_lies_between_0_and_1(chunks: list[tuple[int, int, int]], gold: list[tuple[int, int, int]]) -> None:
    for name, ranking in RANKINGS.items():
        assert 0 <= ranking(chunks, gold) <= 1, name


@settings(max_examples=100, deadline=None)
@given(SPANS.filter(bool))
def test_retrieving_exactly_the_gold_is_perfect(gold: list[tuple[int, int, int]]) -> None:
    distinct = [(document, 100 * index, 100 * index + 5) for index, (document, _, _) in enumerate(gold)]
    for name, ranking in RANKINGS.items():
        assert ranking(distinct, distinct) == pytest.approx(1), name


def test_fixed_depths_look_at_the_first_chunks_only() -> None:
    one = record("a", "a", gold=GOLD, retrieved=hits((9, 0, 5), (1, 100, 120), (2, 0, 10)))
    values = {
        metric: score([one], [metric])[metric][0]
        for metric in (
            "genaiops.precision@1/2", "genaiops.precision@3/2", "genaiops.precision@10/2", "genaiops.recall@1/2",
            "genaiops.recall@3/2", "genaiops.recall/2", "genaiops.ndcg@1/2", "genaiops.ndcg@3/2",
        )
    }  # fmt: skip
    assert values["genaiops.precision@1/2"] == 0
    assert values["genaiops.precision@3/2"] == pytest.approx(2 / 3)
    assert values["genaiops.precision@10/2"] == pytest.approx(2 / 10)
    assert (values["genaiops.recall@1/2"], values["genaiops.recall@3/2"], values["genaiops.recall/2"]) == (0, 1, 1)
    assert values["genaiops.ndcg@1/2"] == 0
    assert values["genaiops.ndcg@3/2"] == pytest.approx((1 / math.log2(3) + 1 / 2) / (1 + 1 / math.log2(3)))


def test_unanswerable_questions_have_no_retrieval_value_and_failures_the_worst() -> None:
    found = hits((1, 0, 10))
    records = [
        record("a", "a", retrieved=found),
        record("a", None, retrieved=found),
        record("", "a", retrieved=found, failed=True),
        record("a", "a", retrieved=()),
    ]
    for metric, values in score(records, ["genaiops.precision/2", "genaiops.iou/2", "genaiops.mrr/2"]).items():
        assert values == [1, None, 0, 0], metric
