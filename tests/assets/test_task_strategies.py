"""Strategies and guards on experiments without a search: the round of retrieval has nothing to do, and the rest works."""

from collections.abc import Callable
from typing import Any

import pytest

from resources.platform import Platform
from tests import task_world
from tests.assets.test_tasks import evaluate


@pytest.mark.parametrize(
    "search", [{"strategy": "halving", "minimum_questions": 16, "finalists": 2}, {"strategy": "bayes", "trials": 4}]
)
def test_a_strategy_finds_the_planted_variant(make_platform: Callable[..., Platform], search: dict[str, Any]) -> None:
    grid = {
        "prompt": ["shown"],
        "model": ["classifier"],
        "context": [
            {"name": "none"},
            {"name": "near", "examples": 8, "select": "similar"},
            {"name": "one", "examples": 1},
            {"name": "four", "examples": 4},
        ],
    }
    files = task_world.triage(
        grid=grid,
        search=search,
        guards=[{"metric": "genaiops.readable/1", "minimum": 0.9}],
        slices=["topic"],
    )
    platform = make_platform(**files)
    work, board, recommendation = evaluate(platform, "tickets", "triage")
    assert (recommendation["verdict"], recommendation["recommended"]) == ("promote", "shown/classifier+near")
    assert board["search"]["strategy"] == search["strategy"]
    assert work["searches"] == 0
    row = next(row for row in board["rows"] if row["variant"] == "shown/classifier+near")
    assert [guard["state"] for guard in row["guards"]] == ["held"]
