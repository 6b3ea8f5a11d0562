"""What a preview says halving will ask, against what halving then asks."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from assets.experiments.spending import Range, halving_share
from assets.experiments.strategies import Space, halving
from resources.experiment_config import SearchConfig


def config(eta: int) -> SearchConfig:
    return SearchConfig(strategy="halving", minimum_questions=40, eta=eta, finalists=6)


def asked(variants: int, questions: int, eta: int, scores: Any) -> float:
    """The share of the trials that halving asks."""
    seen = np.zeros((questions, variants), dtype=bool)

    def evaluate(chosen: Sequence[int], among: Sequence[int]) -> Any:
        seen[np.ix_(list(among), list(chosen))] = True
        return scores[np.ix_(list(among), list(chosen))]

    space = Space(("a",), tuple((str(at),) for at in range(variants)), 0)
    options: Any = {"eta": eta, "minimum_questions": 40, "finalists": 6, "confidence": 0.95, "seed": 1}
    halving(space, range(variants), range(questions), evaluate, **options)
    return float(seen.mean())


SETTINGS = [(60, 100, 3), (24, 300, 3), (60, 300, 3), (60, 1000, 3), (40, 500, 2)]


@pytest.mark.parametrize(("variants", "questions", "eta"), SETTINGS)
def test_share_of_halving_is_what_it_asks(variants: int, questions: int, eta: int) -> None:
    told = halving_share(variants, questions, questions, config(eta))
    shares = []
    for spread in (0.02, 0.05, 0.1):  # alike, so that few are shown to be worse, to different
        for seed in range(3):
            draw = np.random.default_rng(seed)
            means = np.clip(draw.normal(0.6, spread, variants), 0.05, 0.95)
            shares.append(asked(variants, questions, eta, (draw.random((questions, variants)) < means).astype(float)))
    assert told.low - 1e-9 <= min(shares) <= max(shares) <= told.high + 1e-9
    assert told.likely == pytest.approx(np.mean(shares), rel=0.15)


@pytest.mark.parametrize(("variants", "questions", "eta"), SETTINGS)
def test_high_end_is_what_is_asked_when_nothing_is_shown(variants: int, questions: int, eta: int) -> None:
    told = halving_share(variants, questions, questions, config(eta))
    assert asked(variants, questions, eta, np.full((questions, variants), 0.5)) == pytest.approx(told.high)


def test_low_end_holds_where_one_variant_beats_all_others() -> None:
    scores = np.zeros((1000, 60))
    scores[:, 0] = 1.0
    told = halving_share(60, 1000, 1000, config(3))
    assert told.low <= asked(60, 1000, 3, scores) <= 1.02 * told.low


def test_questions_that_do_not_decide_are_asked_of_finalists_only() -> None:
    # 60 variants on 40 questions, then 7 on the other 60 that decide and the 100 that do not
    share = (60 * 40 + 7 * 60 + 7 * 100) / (60 * 200)
    assert halving_share(60, 200, 100, config(3)) == Range(share, share, share)


def test_one_round_or_none_asks_everything() -> None:
    assert halving_share(60, 50, 50, config(3)) == Range(1.0, 1.0, 1.0)
    assert halving_share(60, 50, 0, config(3)) == Range(1.0, 1.0, 1.0)
