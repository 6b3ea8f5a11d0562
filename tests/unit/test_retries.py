"""A step is tried again only where that may help."""

import dagster as dg
import pytest

from assets.dagster_support import errors_by_kind
from resources.errors import PermanentError, TransientError


@pytest.mark.parametrize(
    ("error", "tries"), [(TransientError("busy"), 3), (PermanentError("no such model"), 1), (ValueError("defect"), 1)]
)
def test_only_transient_errors_are_tried_again(error: Exception, tries: int) -> None:
    tried: list[int] = []

    @dg.asset(retry_policy=None)
    def fails() -> None:
        with errors_by_kind(max_retries=2, wait_seconds=0):
            tried.append(1)
            raise error

    result = dg.materialize([fails], raise_on_error=False, instance=dg.DagsterInstance.ephemeral())
    assert not result.success
    assert len(tried) == tries


def test_a_step_that_recovers_succeeds() -> None:
    tried: list[int] = []

    @dg.asset
    def recovers() -> None:
        with errors_by_kind(max_retries=2, wait_seconds=0):
            tried.append(1)
            if len(tried) < 3:
                raise TransientError("busy")

    assert dg.materialize([recovers], instance=dg.DagsterInstance.ephemeral()).success
