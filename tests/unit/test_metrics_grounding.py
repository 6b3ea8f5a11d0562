"""Lexical groundedness: supported claims, invented ones, and the traps between them."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.evaluation.metrics.base import score
from assets.evaluation.metrics.grounding import analyse_chunk, claims, groundedness, support
from tests.unit.metric_records import Hit, record

CONTEXT = (
    "# Heron 3\n\nThe B500 battery lasts about 80 km on flat ground. Charging takes 4.5 hours with the C2 charger. "
    "The frame does not carry trailers. Mara Lind designed it in 1,200 hours.\n"
)


@pytest.mark.parametrize(
    "answer",
    [
        "The B500 battery lasts about 80 km on flat ground.",
        "On flat ground the battery lasts about 80 kilometres [1].",
        "Yes, charging with the C2 charger takes 4.5 hours.",
        "80 km",
        "Mara Lind designed it in 1200 hours.",
        "The frame does not carry trailers.",
        "The Heron 3 frame doesn't carry trailers.",
    ],
)
def test_claim_of_the_context_is_entailed(answer: str) -> None:
    assert groundedness(answer, [CONTEXT]) == 1


@pytest.mark.parametrize(
    "answer",
    [
        "The B500 battery lasts about 90 km on flat ground.",
        "The B500 battery lasts about 80 miles per week on the moon.",
        "The B500 battery lasts about 80 minutes on flat ground.",
        "The B750 battery lasts about 80 km on flat ground.",
        "The frame carries trailers.",
        "The battery does not last 80 km on flat ground.",
        "In 1200 hours Peter Lind designed it.",
        "Send your bike to the warehouse for inspection.",
    ],
)
def test_claim_with_another_number_unit_name_or_sense_is_not(answer: str) -> None:
    assert groundedness(answer, [CONTEXT]) == 0


def test_value_is_the_share_of_claims() -> None:
    answer = "The B500 battery lasts about 80 km on flat ground. It was painted green by robots."
    assert groundedness(answer, [CONTEXT]) == 0.5


def test_words_scattered_over_chunks_do_not_support_a_claim() -> None:
    assert (
        groundedness("The pump inflates tyres quickly.", ["The pump is red.", "Tyres wear.", "He inflates quickly."])
        == 0
    )


def test_headings_belong_to_the_sentences_below_them() -> None:
    one = Hit(1, 0, 9, "It lasts about 80 km.", title="Heron 3", heading_path=("Battery range",))
    found = score([record("The battery range of the Heron 3 is about 80 km.", "80 km", retrieved=(one,))])
    assert found["genaiops.groundedness_lexical/1"] == [1]


def test_refusals_and_answers_without_claims_are_undefined_and_no_context_supports_nothing() -> None:
    records = [
        record("The documents do not say.", "x", refused=True),
        record("[1] ...", "x"),
        record("It lasts 80 km.", "x"),
        record("", "x", failed=True),
    ]
    assert score(records, ["genaiops.groundedness_lexical/1"])["genaiops.groundedness_lexical/1"] == [None, None, 0, 0]


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60), st.lists(st.text(max_size=60), max_size=3))
def test_value_is_a_share_or_undefined(answer: str, chunks: list[str]) -> None:
    value = groundedness(answer, chunks)
    assert value is None or 0 <= value <= 1


def test_support_separates_attributed_answers_as_people_label_them(shared_data: Path) -> None:
    """On BEGIN, plain word overlap reaches an area under the curve of 0.947."""
    from sklearn.metrics import roc_auc_score

    lines = (shared_data / "begin-dev" / "examples.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["grounded"] is not None]
    values = []
    for row in rows:
        found = claims(row["answer"])
        chunk = analyse_chunk(row["context"])
        values.append(sum(support(claim, [chunk]) for claim in found) / len(found) if found else 0)
    assert roc_auc_score([row["grounded"] for row in rows], values) > 0.947
