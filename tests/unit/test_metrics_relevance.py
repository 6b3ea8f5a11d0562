"""Question, chunks, answer and reference against each other, and correctness: hand-made cases and people's judgements."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.evaluation.metrics.base import score
from assets.evaluation.metrics.correctness import correctness
from assets.evaluation.metrics.relevance import context_precision, intents
from tests.unit.metric_records import Hit, record

COMPLETENESS, FALSE = "msft.completeness_lexical/1", "genaiops.false_retrieval_lexical/1"
PRECISION, RECALL = "ragas.context_precision_lexical/1", "ragas.context_recall_lexical/1"
RAGAS, DEEPEVAL = "ragas.answer_relevance_lexical/1", "deepeval.answer_relevancy_lexical/1"
CITED = "genaiops.citation_share/1"

BATTERY = Hit(1, 0, 9, "The B500 battery lasts about 80 km on flat ground. Charging it takes 4.5 hours.", "Heron 3")
FRAME = Hit(2, 0, 9, "The frame of the bicycle is made of steel and painted by Mara Lind.", "Frame")
SHOP = Hit(3, 0, 9, "The shop in Lindau sells helmets in three sizes.", "Shop")


def value(metric: str, question: str, *chunks: Hit, answerable: bool = True) -> float | None:
    one = record("", "x" if answerable else None, question=question, retrieved=chunks)
    return score([one], [metric])[metric][0]


@pytest.mark.parametrize(
    ("question", "number"),
    [
        ("How long does the battery last?", 1),
        ("How long does the battery last and who painted the frame?", 2),
        ("What is the frame made of? Where is the shop; and when does it open?", 3),
        ("Which colours and sizes are there?", 1),
        ("?", 1),
    ],
)
def test_intents_are_the_clauses_that_ask(question: str, number: int) -> None:
    assert len(intents(question)) == number


def test_completeness_is_the_squared_share_of_answered_intents() -> None:
    both = "How long does the battery last and who painted the frame?"
    assert value(COMPLETENESS, both, BATTERY, FRAME) == 1
    assert value(COMPLETENESS, both, BATTERY, SHOP) == 0.25
    assert value(COMPLETENESS, both, SHOP) == 0
    assert value(COMPLETENESS, both) == 0


def test_a_passage_without_what_is_asked_for_does_not_answer() -> None:
    where = Hit(1, 0, 9, "The B500 battery lasts long on flat ground.")
    assert value(COMPLETENESS, "How long does the battery last on flat ground?", where) == 0
    assert value(COMPLETENESS, "How long does the battery last on flat ground?", BATTERY) == 1


def test_unanswerable_questions_are_scored_apart_and_zero_is_best() -> None:
    question = "How much does the trailer of the tandem weigh?"
    assert value(FALSE, question, BATTERY, SHOP, answerable=False) == 0
    assert value(FALSE, "How long does the battery last?", BATTERY, answerable=False) == 1
    assert value(FALSE, question, BATTERY) is None
    assert value(COMPLETENESS, question, BATTERY, answerable=False) is None


def test_context_precision_follows_its_formula() -> None:
    assert context_precision([(True, False, True)], 3) == pytest.approx((1 + 2 / 3) / 2)
    assert context_precision([(False, True), (False, False)], 2) == pytest.approx(0.5)
    assert context_precision([(False,)], 1) == 0


def test_context_metrics_find_the_reference_in_the_chunks() -> None:
    question, reference = "How long does the battery last?", "The B500 battery lasts about 80 km on flat ground."
    records = [
        record("", reference, question=question, retrieved=(SHOP, BATTERY)),
        record("", "80 km", question=question, retrieved=(SHOP, BATTERY)),
        record("", "90 km", question=question, retrieved=(SHOP, BATTERY)),
        record("", "90 km", question=question, retrieved=(SHOP, BATTERY), references=("80 km",)),
        record("", f"{reference} It is painted green by robots in Hamburg.", question=question, retrieved=(BATTERY,)),
        record("", None, question=question, retrieved=(BATTERY,)),
    ]
    found = score(records, [PRECISION, RECALL])
    assert found[PRECISION] == [0.5, 0.5, 0, 0.5, 1, None]
    assert found[RECALL] == [1, 1, 0, 1, 0.5, None]


def test_relevant_statements_are_told_from_others() -> None:
    question = "How long does the battery of the Heron last?"
    answers = [
        "The battery of the Heron lasts 80 km.",
        "80 km",
        "Helmets come in three sizes.",
        "The battery of the Heron lasts 80 km. Helmets come in three sizes.",
    ]
    found = score([record(answer, "x", question=question) for answer in answers], [RAGAS, DEEPEVAL])
    assert found[DEEPEVAL] == [1, 1, 0, 0.5]
    full, fragment, other, mixed = (one or 0.0 for one in found[RAGAS])
    assert full > 0.6
    assert fragment == 1
    assert other == 0
    assert mixed == pytest.approx(full / 2)


def test_a_fragment_of_another_kind_than_asked_for_is_beside_the_point() -> None:
    found = score([record("green paint", "x", question="How many gears are there?")], [DEEPEVAL])
    assert found[DEEPEVAL] == [0]


def test_refusals_have_no_relevance_and_failures_the_worst() -> None:
    records = [record("no", "x", refused=True), record("", "x", failed=True), record("...", "x")]
    assert score(records, [RAGAS, DEEPEVAL]) == {RAGAS: [None, 0, 0], DEEPEVAL: [None, 0, None]}


def test_citation_share_counts_each_cited_chunk_once() -> None:
    cited = record("80 km", "x", retrieved=(BATTERY, SHOP), citations=(BATTERY, BATTERY))
    records = [
        cited,
        record("80 km", "x", retrieved=(BATTERY, SHOP)),
        record("80 km", "x"),
        record("", "x", refused=True),
    ]
    assert score(records, [CITED])[CITED] == [0.5, 0, None, None]


def test_correctness_orders_answers_as_a_reader_would() -> None:
    reference = ["The battery lasts 80 km on flat ground."]
    right = correctness("On flat ground the battery lasts 80 km.", reference)
    wordy = correctness("On flat ground the battery lasts 80 km, and helmets come in three sizes.", reference)
    wrong = correctness("On flat ground the battery lasts 90 km.", reference)
    beside = correctness("Helmets come in three sizes.", reference)
    assert right > wordy > wrong > beside
    assert correctness(reference[0], reference) == 1
    assert correctness("80 km", ["miles away", "80 km"]) == 1
    assert correctness("", reference) == 0


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=40), st.text(max_size=40), st.text(max_size=40), st.booleans())
def test_every_value_lies_in_its_range(question: str, answer: str, reference: str, answerable: bool) -> None:
    one = record(answer, reference if answerable else None, question=question, retrieved=(BATTERY, FRAME))
    for metric, (found,) in score([one]).items():
        assert found is None or 0 <= found <= 1, metric


def test_correctness_agrees_with_people_at_least_as_token_f1_does(shared_data: Path) -> None:
    """ragchecker-human-pref: token F1 reaches a Spearman correlation of 0.583 with the mean of both annotators."""
    from scipy.stats import spearmanr

    lines = (shared_data / "ragchecker-human-pref" / "examples.jsonl").read_text(encoding="utf-8").splitlines()
    pairs = [json.loads(line) for line in lines]
    records = [record(pair[name], pair["reference_answer"]) for pair in pairs for name in ("answer1", "answer2")]
    column = score(records, ["genaiops.correctness_lexical/1"])["genaiops.correctness_lexical/1"]
    numbers = [value or 0.0 for value in column]
    differences = [second - first for first, second in zip(numbers[::2], numbers[1::2], strict=True)]
    people = [sum(label["overall"] for label in pair["labels"]) for pair in pairs]
    assert float(spearmanr(differences, people)[0]) > 0.59  # pyright: ignore[reportArgumentType]
