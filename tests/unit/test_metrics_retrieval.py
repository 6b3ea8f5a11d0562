"""Retrieval metrics against hand-computed cases, sklearn, and each other."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.evaluation.metrics.base import GoldSpan, score
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

#: References are met to nine places.
approx = partial(pytest.approx, rel=0, abs=1e-9)

DEPTHS = [f"genaiops.{name}@{depth}/2" for name in ("recall", "precision", "ndcg") for depth in (1, 3, 5)]
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
    assert average_precision(chunks, GOLD) == approx((1 / 2 + 2 / 4) / 2)
    expected = (1 / math.log2(3) + 1 / math.log2(5)) / (1 + 1 / math.log2(3))
    assert ndcg(chunks, GOLD) == approx(expected)
    assert iou(chunks, GOLD) == approx(30 / (5 + 40 + 4 + 30))


def test_iou_counts_overlapping_chunks_every_time_and_gold_once() -> None:
    gold = [(1, 10, 20), (1, 15, 30)]  # 20 characters
    assert iou([(1, 10, 30)], gold) == 1
    assert iou([(1, 10, 30), (1, 10, 30)], gold) == 0.5
    assert iou([(1, 0, 20)], gold) == approx(10 / (20 + 10))
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
    assert ndcg(chunks, gold) == approx(reference)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.booleans(), min_size=2, max_size=12).filter(any))
def test_average_precision_equals_sklearn_with_one_chunk_per_span(pattern: list[bool]) -> None:
    from sklearn.metrics import average_precision_score

    gold = [(rank, 0, 10) for rank, good in enumerate(pattern) if good]
    chunks = [(rank, 0, 10) for rank in range(len(pattern))]
    reference = average_precision_score(pattern, [-rank for rank in range(len(pattern))])
    assert average_precision(chunks, gold) == approx(reference)


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
        assert ranking(distinct, distinct) == approx(1), name


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
    assert values["genaiops.precision@3/2"] == approx(2 / 3)
    assert values["genaiops.precision@10/2"] == approx(2 / 10)
    assert (values["genaiops.recall@1/2"], values["genaiops.recall@3/2"], values["genaiops.recall/2"]) == (0, 1, 1)
    assert values["genaiops.ndcg@1/2"] == 0
    assert values["genaiops.ndcg@3/2"] == approx((1 / math.log2(3) + 1 / 2) / (1 + 1 / math.log2(3)))


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


# --- whole documents, grades, conflicting evidence ---------------------------------------------------------------


def test_a_whole_document_is_found_by_any_chunk_of_it() -> None:
    gold = (GoldSpan(1, 0, 5000, kind="document"),)
    one = replace(record("a", "a", retrieved=hits((2, 0, 9), (1, 4000, 4010), (1, 0, 100))), gold=gold)
    values = {metric: column[0] for metric, column in score([one]).items()}
    assert values["genaiops.recall/2"] == 1
    assert values["genaiops.recall@1/2"] == 0
    assert values["genaiops.mrr/2"] == 0.5
    assert values["genaiops.precision/2"] == approx(2 / 3)
    assert values["genaiops.ndcg/2"] == approx(1 / math.log2(3))
    assert values["genaiops.iou/2"] is None  # nothing says how long it is


def test_conflicting_evidence_is_neither_asked_for_nor_relevant() -> None:
    supports, conflicts = GoldSpan(1, 0, 10), GoldSpan(2, 0, 10, stance="conflicts")
    one = replace(record("a", "a", retrieved=hits((2, 0, 10), (1, 0, 10))), gold=(supports, conflicts))
    values = {metric: column[0] for metric, column in score([one]).items()}
    assert (values["genaiops.recall/2"], values["genaiops.precision/2"], values["genaiops.mrr/2"]) == (1, 0.5, 0.5)
    none = replace(one, gold=(conflicts,))
    assert score([none], ["genaiops.recall/2"])["genaiops.recall/2"] == [None]


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(st.integers(0, 9), st.integers(1, 3), min_size=1, max_size=6),
    st.permutations(range(10)).map(lambda order: order[:8]),
    st.sampled_from([1, 3, 5, 10]),
)
def test_graded_ndcg_equals_the_one_of_relevance_judgements(
    grades: dict[int, int], order: list[int], depth: int
) -> None:
    from tests.retrieval_data import ndcg as reference

    gold = tuple(GoldSpan(document, 0, 9, kind="document", grade=grade) for document, grade in grades.items())
    one = replace(record("a", "a", retrieved=hits(*((document, 0, 5) for document in order))), gold=gold)
    (value,) = score([one], [f"genaiops.ndcg@{depth}/2"])[f"genaiops.ndcg@{depth}/2"]
    expected = reference([str(one) for one in order], {str(key): grade for key, grade in grades.items()}, depth)
    assert value == approx(expected)


@settings(max_examples=200, deadline=None)
@given(SPANS, SPANS.filter(bool))
def test_depths_of_one_comparison_equal_a_comparison_of_the_first_chunks(
    chunks: list[tuple[int, int, int]], gold: list[tuple[int, int, int]]
) -> None:
    one = record("a", "a", gold=gold, retrieved=hits(*chunks))
    values = {metric: column[0] for metric, column in score([one], DEPTHS).items()}
    for depth in (1, 3, 5):
        first = chunks[:depth]
        assert values[f"genaiops.recall@{depth}/2"] == approx(recall(first, gold))
        assert values[f"genaiops.precision@{depth}/2"] == approx(sum(relevant(first, gold)) / depth)
        assert values[f"genaiops.ndcg@{depth}/2"] == approx(ndcg(first, gold, depth))
