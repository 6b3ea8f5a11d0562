"""Tuning of hybrid search: the recommended weights, how sure they are, and that nothing is changed."""

from collections.abc import Callable
from pathlib import Path

import dagster as dg
import numpy as np
import pytest

from assets.experiments import tuning
from assets.experiments.tuning import Lists, choose, describe, judge, tune_fusion
from resources.errors import PermanentError
from resources.fusion import Fusion
from resources.platform import Platform
from tests.experiment_support import files, load, write_documents
from tests.index_world import searcher


def lists(number: int) -> Lists:
    """The gold chunk is second in both lists, behind another one each time: only a mixture puts it first."""
    spans = ((1, 0, 10), (2, 0, 10), (3, 0, 10))
    return Lists(f"q{number}", spans, vector=(0.9, 0.8, 0.0), text=(0.0, 0.8, 0.9), gold=((2, 0, 10),))


def test_a_mixture_that_beats_both_parts_is_recommended_and_proven() -> None:
    found = judge("main", 1, "facts", "dev", [lists(number) for number in range(40)], current=0.95)
    assert found.scores[0.0] == found.scores[1.0] == pytest.approx(1 / np.log2(3))
    assert found.scores[0.5] == 1
    assert found.share == 0.5, "the middle of the shares that do as well"
    assert found.recommended.estimate == 1
    assert found.over_best_part.low > 0.3
    assert found.held_out.low > 0.3
    assert found.current.estimate < 1
    text = describe(found)
    assert "vector_weight: 0.50, text_weight: 0.50" in text
    assert "not proven" not in text


def test_no_gain_is_said_to_be_none() -> None:
    same = [Lists(f"q{n}", ((1, 0, 5), (2, 0, 5)), (0.9, 0.1), (0.9, 0.1), ((1, 0, 5),)) for n in range(40)]
    found = judge("main", 1, "facts", "dev", same, current=None)
    assert found.over_best_part.estimate == 0
    assert "not proven" in describe(found)
    assert "by ranks" in describe(found)


def test_the_middle_of_a_flat_top_is_chosen() -> None:
    shares = [round(0.1 * step, 1) for step in range(11)]
    table = np.full((200, 11), 0.5) + np.random.default_rng(7).normal(0, 0.2, (200, 1))
    table[:, 3:8] += 0.1
    table[:2, 7] += [0.05, -0.045]  # a hair above, by chance
    assert shares[choose(table, shares, list(range(11)))] == 0.5


def test_an_index_is_tuned_on_its_dataset_and_stays_as_it_was(
    make_platform: Callable[..., Platform], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_documents(tmp_path / "docs")
    platform = make_platform(**files())
    with dg.DagsterInstance.ephemeral() as instance:
        load(platform, instance)
    with pytest.raises(PermanentError, match="10 answerable questions in split dev; tuning needs at least 30"):
        tune_fusion(platform, "main", "products")
    with pytest.raises(PermanentError, match="held back"):
        tune_fusion(platform, "main", "products", "test")  # type: ignore[arg-type]
    monkeypatch.setattr(tuning, "LEAST_QUESTIONS", 5)
    before = counts(platform)
    found = tune_fusion(platform, "main", "products")
    assert counts(platform) == before, "tuning stores nothing"
    assert (found.questions, found.snapshot, found.current_share) == (10, 1, 0.15)
    assert found.to_json()["recommended"] == {"vector_weight": found.share, "text_weight": round(1 - found.share, 2)}
    # what is measured is what a search gives
    for share in (0.0, 0.15, 1.0):
        fusion = Fusion("weighted", share, 1 - share)
        hits = searcher(platform).search("main", "How many kilograms does the anvil weigh?", k=1, fusion=fusion).hits
        assert hits[0].path == "anvil.md"
    assert found.scores[0.15] == 1


def counts(platform: Platform) -> list[tuple[str, int]]:
    with platform.database.connect() as connection:
        return [
            (table, connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # type: ignore[index, arg-type]
            for table in ("generation", "trial", "experiment_result", "evidence", "champion", "interaction")
        ]
