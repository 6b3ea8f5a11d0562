"""Reading task outputs: what is understood, and what is unreadable and stays so."""

from typing import Any

import pytest

from resources.task_output import field_values, read_fields, read_label

LABELS = ("billing", "Delivery", "no answer")


@pytest.mark.parametrize(
    "text",
    ["billing", " Billing.\n", '"billing"', "**billing**", "Label: billing", "label:  'Billing'.", "billing\nIt is about money.",
     '{"label": "billing"}', '```json\n{"Label": "BILLING", "why": "money"}\n```'],
)  # fmt: skip
def test_a_label_is_read(text: str) -> None:
    assert read_label(text, LABELS) == ("billing", None)


def test_a_label_is_spelt_as_in_the_header() -> None:
    assert read_label("DELIVERY", LABELS) == ("Delivery", None)
    assert read_label("The label: no answer", LABELS) == ("no answer", None)


@pytest.mark.parametrize(
    "text",
    ["", "refund", "This is not billing", "billing or Delivery", "billing, I think", "It is about\nbilling", "[]", "null",
     '{"label": "refund"}', '{"label": null}', '{"label": ["billing"]}', '{"answer": "billing"}', '{"label": "billing"'],
)  # fmt: skip
def test_nothing_is_guessed(text: str) -> None:
    assert read_label(text, LABELS) is None


def test_probabilities_are_read() -> None:
    text = '{"label": "billing", "probabilities": {"billing": 0.7, "delivery": 0.29}}'
    label, probabilities = read_label(text, LABELS) or ("", None)
    assert label == "billing"
    assert probabilities == pytest.approx({"billing": 0.7 / 0.99, "Delivery": 0.29 / 0.99, "no answer": 0.0})
    assert read_label('{"probabilities": {"billing": 0.2, "delivery": 0.8}}', LABELS) == (
        "Delivery",
        {"billing": 0.2, "Delivery": 0.8, "no answer": 0.0},
    )


@pytest.mark.parametrize(
    "probabilities", ['{"billing": 0.7}', '{"billing": 1.5, "delivery": -0.5}', '{"billing": 0.5, "refund": 0.5}', '{"billing": "1"}',
                      '{"billing": true}', '{"billing": NaN}', "[1]", "{}"]
)  # fmt: skip
def test_probabilities_that_are_none_are_left_out(probabilities: str) -> None:
    assert read_label(f'{{"label": "billing", "probabilities": {probabilities}}}', LABELS) == ("billing", None)
    assert read_label(f'{{"probabilities": {probabilities}}}', LABELS) is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"a": 1, "B": "x"}', {"a": 1, "b": "x"}),
        ('Here it is:\n{"a": null, "other": 3}\nDone.', {"a": None, "b": None}),
        ('```\n{"b": ["x", "y"]}\n```', {"a": None, "b": ["x", "y"]}),
        ('{"other": 3}', None),
        ("[1, 2]", None),
        ("a: 1", None),
        ("", None),
        ('{"a": 1', None),
    ],
)
def test_fields_are_read(text: str, found: dict[str, Any] | None) -> None:
    assert read_fields(text, ("a", "b")) == found


@pytest.mark.parametrize(
    ("value", "same"),
    [(12, "12.0"), ("  A  b ", "a B"), (True, "true"), (None, ""), (["b", "a"], ["b", "a"]), ([], None), (0.5, "0.50")],
)
def test_values_are_compared_by_what_they_say(value: Any, same: Any) -> None:
    assert field_values(value) == field_values(same)


@pytest.mark.parametrize(("value", "other"), [("0012", "12"), ("12a", "12"), (["a"], ["a", "a"]), ("1,5", "1.5")])
def test_values_that_differ(value: Any, other: Any) -> None:
    assert field_values(value) != field_values(other)
