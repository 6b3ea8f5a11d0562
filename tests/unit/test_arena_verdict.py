"""What makes a regression, what is tolerated, and what was merely not shown."""

import numpy as np
import pytest

from assets.experiments.arena_verdict import PairResult, judge, overall, too_few, verdict_of

SETTINGS = {"confidence": 0.95, "resamples": 2000, "seed": 7}


def pair(differences: list[float], margin: float = 0.02) -> PairResult:
    """Judge one pair whose base scores 0.5 everywhere."""
    base = np.full(len(differences), 0.5)
    scores = np.stack([base, base + np.array(differences)], axis=1)
    names = [f"q{number}" for number in range(len(differences))]
    return judge(scores, [(0, 1)], [True], names, margin=margin, **SETTINGS)[0]  # type: ignore[arg-type]


def test_a_loss_that_is_shown_and_larger_than_the_margin_is_a_regression() -> None:
    found = pair([-0.5] * 30 + [0.0] * 70)
    assert found.verdict == "worse"
    assert found.difference["estimate"] == pytest.approx(-0.15)
    assert found.worst[0] == ("q0", -0.5)
    assert (len(found.worst), found.changed) == (10, 30)


def test_a_loss_that_is_shown_but_smaller_than_the_margin_is_none() -> None:
    found = pair([-0.01] * 400, margin=0.05)
    assert found.p_worse < 0.001
    assert found.verdict == "within margin"


def test_a_loss_that_may_be_chance_is_not_shown_and_says_what_would_have_been() -> None:
    found = pair([-0.5] * 3 + [0.0] * 37)
    assert found.verdict == "not shown"
    assert found.p_worse == pytest.approx(1 / 8)
    assert 0.03 < found.detectable < 0.1
    assert found.needed is not None
    assert found.needed > 40


def test_no_difference_on_many_questions_is_no_worse_and_on_few_it_is_not_shown() -> None:
    assert pair([0.0] * 400).verdict == "no worse"
    assert pair([0.0] * 20).verdict == "not shown"
    assert pair([0.0] * 20).needed is None, "nothing varies: no number can be given"


def test_a_gain_is_told() -> None:
    assert pair([0.4] * 20 + [0.0] * 20).verdict == "better"


def test_pairs_that_do_not_gate_are_a_family_of_their_own() -> None:
    generator = np.random.default_rng(5)
    base = generator.uniform(size=60)
    scores = np.stack([base, base - 0.25 * (generator.uniform(size=60) < 0.16), *[base] * 6], axis=1)
    names = [str(number) for number in range(60)]
    pairs = [(0, column) for column in range(1, 8)]
    alone = judge(scores, pairs[:1], [True], names, margin=0.0, **SETTINGS)[0]  # type: ignore[arg-type]
    gated = judge(scores, pairs, [True] * 7, names, margin=0.0, **SETTINGS)[0]  # type: ignore[arg-type]
    beside = judge(scores, pairs, [True, *[False] * 6], names, margin=0.0, **SETTINGS)[0]  # type: ignore[arg-type]
    assert gated.p_worse == pytest.approx(min(1.0, 7 * alone.p_worse))
    assert beside.p_worse == alone.p_worse


def test_several_experiments_together_raise_no_more_alarms_than_one() -> None:
    base = np.full(40, 0.5)
    scores = np.stack([base, base - 0.25 * (np.arange(40) < 6)], axis=1)
    alone = judge(scores, [(0, 1)], [True], ["q"] * 40, margin=0.02, **SETTINGS)[0]  # type: ignore[arg-type]
    of_three = judge(scores, [(0, 1)], [True], ["q"] * 40, margin=0.02, families=3, **SETTINGS)[0]  # type: ignore[arg-type]
    assert of_three.p_worse == pytest.approx(3 * alone.p_worse)
    assert of_three.detectable > alone.detectable


def test_the_nominal_level_holds_where_nothing_changed() -> None:
    """False alarms of two gating pairs over 400 changes without any effect; the margin can only make them fewer."""
    generator, alarms = np.random.default_rng(11), 0
    for _ in range(400):
        base = generator.choice([0.0, 0.5, 1.0], size=60)
        scores = np.stack(
            [base, generator.permuted(np.stack([base, generator.choice([0.0, 0.5, 1.0], 60)]), axis=0)[0]]
        )
        symmetric = scores[0][:, None] + np.stack([np.zeros(60), *generator.choice([-0.5, 0.0, 0.5], size=(2, 60))]).T
        found = judge(
            symmetric, [(0, 1), (0, 2)], [True, True], ["q"] * 60, margin=0.0, confidence=0.95, resamples=1000, seed=3
        )
        alarms += any(one.verdict == "worse" for one in found)
    assert alarms / 400 <= 0.05 + 2 * (0.05 * 0.95 / 400) ** 0.5


def test_a_broken_guard_is_a_regression_and_an_open_one_leaves_it_unproven() -> None:
    fine = pair([0.0] * 400)
    guard = {"metric": "m/1", "kind": "minimum", "state": "held"}
    assert verdict_of([fine], [True], [guard]) == ("passed", "no regression")
    assert verdict_of([fine], [True], [guard | {"state": "broken"}])[0] == "regression"
    assert verdict_of([fine], [True], [guard | {"state": "open"}])[0] == "unproven"


def test_what_does_not_gate_decides_nothing() -> None:
    assert verdict_of([pair([-0.5] * 50)], [False], [])[0] == "passed"


@pytest.mark.parametrize(
    ("verdicts", "strict", "expected"),
    [
        ([], False, ("nothing to compare", 0)),
        (["passed", "unproven"], False, ("unproven", 0)),
        (["passed", "unproven"], True, ("unproven", 1)),
        (["passed", "not evaluated"], True, ("not evaluated", 2)),
        (["not evaluated", "regression"], False, ("regression", 1)),
        (["nothing to compare", "passed"], True, ("passed", 0)),
    ],
)
def test_the_worst_experiment_decides(verdicts: list, strict: bool, expected: tuple[str, int]) -> None:
    assert overall(verdicts, strict=strict) == expected


def test_questions_that_belong_together_count_once() -> None:
    assert too_few(19, None)
    assert not too_few(20, None)
    assert too_few(100, ["a", "b"] * 50)
