"""Rounds of a strategy that a judge decides, where the judge failed on some trials."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from assets.experiments import searching
from assets.experiments.strategies import Space, halving
from resources.errors import PermanentError

QUESTIONS, VARIANTS = 100, 12


def search(metric: str = "judge.strict/1", share: float = 0.05) -> Any:
    config = SimpleNamespace(name="catalogue", decision_metric=metric, maximum_failed_share=share)
    return searching._Search(SimpleNamespace(config=config), None)  # type: ignore[arg-type]


def scores(*failed: tuple[int, int]) -> Any:
    drawn = np.random.default_rng(3).random((QUESTIONS, VARIANTS)) < np.linspace(0.2, 0.9, VARIANTS)
    values = drawn.astype(float)
    for at in failed:
        values[at] = np.nan
    return values


def test_a_question_on_which_a_judge_failed_makes_no_difference_to_any_variant() -> None:
    one, given = search(), scores((4, 0), (4, 7), (50, 2))
    found = one._comparable(given)
    kept = np.delete(given, [4, 50], axis=0)
    assert found.shape == given.shape
    assert not np.isnan(found).any()
    assert np.ptp(found[[4, 50]], axis=1).tolist() == [0, 0]
    assert np.array_equal(np.delete(found, [4, 50], axis=0), kept)
    # the order is that of the rest, and differences shrink by what was left out
    assert (
        np.argsort(-found.mean(axis=0), kind="stable").tolist()
        == np.argsort(-kept.mean(axis=0), kind="stable").tolist()
    )
    gaps, full = (values.mean(axis=0) - values.mean(axis=0)[0] for values in (found, kept))
    assert gaps == pytest.approx(full * 98 / 100)
    assert one._left_out == [2]


def test_scores_with_a_value_everywhere_are_as_they_were() -> None:
    one, given = search(), scores()
    assert one._comparable(given) is given
    assert one._left_out == [0]


@pytest.mark.parametrize(("failed", "share"), [(6, 0.05), (1, 0.0), (QUESTIONS, 1.0)])
def test_too_many_questions_left_out_name_the_remedy(failed: int, share: float) -> None:
    given = scores(*((at, at % VARIANTS) for at in range(failed)))
    with pytest.raises(PermanentError, match=rf"on {failed} of 100 questions .* `genaiops judges retry`"):
        search(share=share)._comparable(given)
    if failed < QUESTIONS:
        search(share=failed / QUESTIONS)._comparable(given)


def test_a_metric_that_is_no_judge_has_to_have_a_value_everywhere() -> None:
    with pytest.raises(PermanentError, match="has no value on 1 trials of questions it applies to"):
        search("genaiops.recall/2")._comparable(scores((4, 0)))


def test_halving_goes_the_way_it_goes_without_the_question() -> None:
    one, given = search(), scores((0, 5))
    space = Space(("a",), tuple((str(at),) for at in range(VARIANTS)), 0)
    options: Any = {"eta": 3, "minimum_questions": 30, "finalists": 10, "confidence": 0.95, "seed": 1}

    def evaluate(variants: Any, questions: Any) -> Any:
        return one._comparable(given[np.ix_(list(questions), list(variants))])

    found = halving(space, range(VARIANTS), range(QUESTIONS), evaluate, **options)
    without = halving(space, range(VARIANTS), range(1, QUESTIONS), evaluate, **options)
    assert [number.questions for number in found.rounds] == [34, 100]
    assert [number.questions for number in without.rounds] == [33, 99]
    assert one._left_out[:2] == [1, int(5 in found.finalists)]  # a variant that is dropped is no reason any more
    assert found.finalists == without.finalists
    assert [drop.variant for drop in found.dropped] == [drop.variant for drop in without.dropped]
    assert [drop.shown for drop in found.dropped] == [drop.shown for drop in without.dropped]
    assert any(drop.shown for drop in found.dropped)
    for drop, other in zip(found.dropped, without.dropped, strict=True):
        assert drop.difference.estimate == pytest.approx(other.difference.estimate * 33 / 34)
