"""Great Expectations as one check: expected against observed, no raw values, nothing left behind."""

# pyright: reportPrivateImportUsage=false

import tempfile
from pathlib import Path

import pandas as pd
import pytest

from assets.outcomes import blocked, great_expectations_outcome


@pytest.fixture
def frame() -> pd.DataFrame:
    return pd.DataFrame({"id": ["canary-a", "canary-a", "canary-b"], "size": [1, 2, 3]})


def test_failed_expectation_names_column_and_count(frame: pd.DataFrame) -> None:
    import great_expectations.expectations as gxe

    outcome = great_expectations_outcome(
        "ids", frame, [gxe.ExpectTableRowCountToBeBetween(min_value=1), gxe.ExpectColumnValuesToBeUnique(column="id")]
    )
    assert blocked([outcome]) == [outcome]
    assert "expect_column_values_to_be_unique(id): 2 of 3 unexpected" in outcome.observed
    assert [row["passed"] for row in outcome.details["expectations"]] == [True, False]


def test_raw_values_never_appear(frame: pd.DataFrame) -> None:
    import great_expectations.expectations as gxe

    outcome = great_expectations_outcome("ids", frame, [gxe.ExpectColumnValuesToBeUnique(column="id")])
    assert "canary" not in repr(outcome)


def test_expectation_that_cannot_be_evaluated_fails(frame: pd.DataFrame) -> None:
    import great_expectations.expectations as gxe

    outcome = great_expectations_outcome(
        "sizes", frame, [gxe.ExpectColumnValuesToBeBetween(column="nope", min_value=0)]
    )
    assert not outcome.passed
    assert "could not be evaluated" in outcome.observed


def test_no_temporary_folder_is_left(frame: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import great_expectations.expectations as gxe

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    great_expectations_outcome("sizes", frame, [gxe.ExpectColumnValuesToNotBeNull(column="size")])
    assert list(tmp_path.iterdir()) == []
