"""Rows of scores: a mapping like any other, that tells undefined from not yet computed, in little memory."""

import math
import sys

import pytest

from assets.experiments import score_rows
from assets.experiments.score_rows import ScoreRow


def test_it_behaves_like_a_dict() -> None:
    row = ScoreRow([("a/1", 0.5), ("b/1", None)])
    assert row == {"a/1": 0.5, "b/1": None}
    assert dict(row) == row
    assert (len(row), "b/1" in row, "c/1" in row, row.get("c/1", "none")) == (2, True, False, "none")
    row["c/1"] = 1
    row["a/1"] = 0.0
    assert dict(row) == {"a/1": 0.0, "b/1": None, "c/1": 1.0}
    del row["b/1"]
    assert list(row) == ["a/1", "c/1"]
    for metric in ("b/1", "never/1"):
        with pytest.raises(KeyError, match=metric):
            row[metric]
    assert repr(row) == "ScoreRow({'a/1': 0.0, 'c/1': 1.0})"


def test_rows_do_not_share_values() -> None:
    first, second = ScoreRow([("a/1", 0.25)]), ScoreRow()
    assert "a/1" not in second
    second["later/1"] = 0.75
    assert "later/1" not in first
    assert len(first) == 1


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_score_is_infinite_or_nan(value: float) -> None:
    row = ScoreRow()
    with pytest.raises(ValueError, match="a/1"):
        row["a/1"] = value


def test_it_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_rows, "_PLACES", {})  # other tests have metrics of their own
    names = [f"m{number}/1" for number in range(50)]
    row = ScoreRow((name, 0.1) for name in names)
    assert sys.getsizeof(row) + sys.getsizeof(row._numbers) < sys.getsizeof(dict.fromkeys(names)) / 2
