"""Lexical groundedness: supported claims, invented ones, and the traps between them."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.evaluation.metrics.base import score
from assets.evaluation.metrics.grounding import ENTAILED, analyse_chunk, assess, claims, groundedness, support
from tests.hard_claims import KINDS, hard_claims
from tests.unit.metric_records import Hit, record

GROUNDEDNESS, SUPPORT, UTILIZATION = (
    "genaiops.groundedness_lexical/2",
    "genaiops.support_lexical/1",
    "msft.utilization_lexical/1",
)
CONTEXT = (
    "# Heron 3\n\nThe B500 battery lasts about 80 km on flat ground. Charging takes 4.5 hours with the C2 charger. "
    "The frame does not carry trailers. Mara Lind designed it in 1,200 hours. All wheels are tested before delivery. "
    "Falkenrad bought Heron Works in 2019.\n"
)


def value(answer: str, *chunks: str) -> float:
    found = groundedness(answer, chunks or (CONTEXT,))
    assert found is not None
    return found


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
        "Every wheel is tested before delivery.",
        "In 2019 Falkenrad bought Heron Works.",
        "Heron Works was bought by Falkenrad in 2019.",
    ],
)
def test_claim_of_the_context_is_entailed(answer: str) -> None:
    assert value(answer) > ENTAILED


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
        "Some wheels are tested before delivery.",
        "All wheels are tested after delivery.",
        "In 2019 Heron Works bought Falkenrad.",
    ],
)
def test_claim_with_another_number_unit_name_or_sense_is_not(answer: str) -> None:
    assert value(answer) < ENTAILED / 2


def test_value_is_the_mean_over_claims() -> None:
    claim, other = "The B500 battery lasts about 80 km on flat ground.", "It was painted green by robots."
    assert value(f"{claim} {other}") == pytest.approx((value(claim) + value(other)) / 2)


def test_words_scattered_over_chunks_do_not_support_a_claim() -> None:
    assert value("The pump inflates tyres quickly.", "The pump is red.", "Tyres wear.", "He inflates quickly.") < 0.25


def test_headings_belong_to_the_sentences_below_them() -> None:
    one = Hit(1, 0, 9, "It lasts about 80 km.", title="Heron 3", heading_path=("Battery range",))
    found = score([record("The battery range of the Heron 3 is about 80 km.", "80 km", retrieved=(one,))])
    assert found[SUPPORT] == [1]
    (grounded,) = found[GROUNDEDNESS]
    assert grounded is not None
    assert grounded > ENTAILED


def test_refusals_and_answers_without_claims_are_undefined_and_no_context_supports_nothing() -> None:
    records = [
        record("The documents do not say.", "x", refused=True),
        record("[1] ...", "x"),
        record("It lasts 80 km.", "x"),
        record("", "x", failed=True),
    ]
    found = score(records, [GROUNDEDNESS, SUPPORT])
    assert found == {GROUNDEDNESS: [None, None, 0, 0], SUPPORT: [None, None, 0, 0]}


def test_utilization_is_the_share_of_chunks_that_entail_a_claim() -> None:
    used, unused = Hit(1, 0, 9, CONTEXT), Hit(2, 0, 9, "Helmets come in three sizes and two colours.")
    answer = "Charging takes 4.5 hours with the C2 charger."
    records = [record(answer, "x", retrieved=hits) for hits in ((used, unused), (used,), (unused,), ())]
    assert score(records, [UTILIZATION])[UTILIZATION] == [0.5, 1, 0, None]


def test_what_the_prompt_held_counts_not_what_was_found() -> None:
    found, shown = Hit(1, 0, 9, CONTEXT), Hit(1, 0, 9, "Helmets come in three sizes.")
    answer = "Charging takes 4.5 hours with the C2 charger."
    whole, cut = score(
        [record(answer, "x", retrieved=(found,)), record(answer, "x", retrieved=(found,), supplied=(shown,))], [SUPPORT]
    )[SUPPORT]
    assert (whole, cut) == (1, 0)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=60), st.lists(st.text(max_size=60), max_size=3))
def test_value_is_a_share_or_undefined(answer: str, chunks: list[str]) -> None:
    found = groundedness(answer, chunks)
    assert found is None or 0 <= found <= 1
    for one in assess(answer, chunks):
        assert 0 <= one.share <= 1
        assert len(one.entailed) == len(chunks)


def begin(shared_data: Path) -> tuple[list[dict[str, str]], list[bool]]:
    lines = (shared_data / "begin-dev" / "examples.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["grounded"] is not None]
    return rows, [row["grounded"] for row in rows]


def test_groundedness_as_delivered_agrees_with_people_better_than_overlap(shared_data: Path) -> None:
    """BEGIN: plain word overlap reaches an AUC of 0.9525 here; ours was 0.956 on groups it had not seen."""
    from sklearn.metrics import roc_auc_score

    rows, labels = begin(shared_data)
    records = [record(row["answer"], "x", retrieved=(Hit(1, 0, 9, row["context"]),)) for row in rows]
    found = score(records, [GROUNDEDNESS, SUPPORT])
    auc = {metric: roc_auc_score(labels, [one or 0.0 for one in column]) for metric, column in found.items()}
    assert auc[GROUNDEDNESS] > 0.955
    assert auc[SUPPORT] > 0.947


def test_coefficients_are_those_of_the_script_and_hold_out_of_fold(shared_data: Path) -> None:
    import numpy as np
    from sklearn.metrics import roc_auc_score

    from assets.evaluation.metrics import grounding
    from tests.benchmarks import fit_grounding as fitting

    examples = fitting.read(shared_data)
    rows, labels = [fitting.looks(row) for row in examples], np.array([row["grounded"] for row in examples])
    theta = fitting.fit(rows, labels)
    assert theta == pytest.approx([grounding.INTERCEPT, *grounding.COEFFICIENTS], abs=2e-3)
    values = fitting.out_of_fold(rows, labels, [row["group"] for row in examples], grounding.FEATURES, seed=0)
    assert roc_auc_score(labels, values) > 0.953


def test_changed_facts_are_seen_where_overlap_is_not_enough(shared_data: Path) -> None:
    """Claims made from squad2 paragraphs, on which nothing was fitted."""
    from sklearn.metrics import roc_auc_score

    made = hard_claims(shared_data)
    assert {kind for one in made for kind in [one.kind]} == {"", *KINDS}
    overlap = [plain_overlap(one.claim, one.context) for one in made]
    ours = [value(one.claim, one.context) for one in made]
    labels = [one.grounded for one in made]
    assert 0.5 < roc_auc_score(labels, overlap) < 0.75
    assert roc_auc_score(labels, ours) > 0.85


def plain_overlap(claim: str, context: str) -> float:
    found, held = {w for one in claims(claim) for w in one.content}, analyse_chunk(context)
    present = {word for one in held.sentences for word in one.content}
    return len(found & present) / len(found) if found else 0.0


def test_support_separates_attributed_answers_as_people_label_them(shared_data: Path) -> None:
    """On BEGIN, plain word overlap reaches an area under the curve of 0.947 (as the anchors measured it)."""
    from sklearn.metrics import roc_auc_score

    rows, labels = begin(shared_data)
    values = []
    for row in rows:
        found = claims(row["answer"])
        chunk = analyse_chunk(row["context"])
        values.append(sum(support(claim, [chunk]) for claim in found) / len(found) if found else 0)
    assert roc_auc_score(labels, values) > 0.947
