"""Strategies: the joint optimum is found for less than the grid, and nothing is dropped without a reason on record."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise, product
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest

from assets.experiments import strategies
from assets.experiments.strategies import (
    Found,
    Retrieved,
    Space,
    bayes,
    dominated,
    halving,
    pairwise_design,
    round_sizes,
    stratified_order,
)

QUESTIONS = 205
SEARCH = (0.60, 0.58, 0.52, 0.46, 0.42, 0.38)
PROMPT = (0.05, 0.03, 0.0, -0.06)
CONTEXT = (0.0, 0.01)
#: The second search setting and the last prompt are best together.
JOINT = (1, 3)


class Table:
    """Right and wrong answers of 48 variants on questions of differing difficulty, counting what is asked."""

    def __init__(self, seed: int, extra: int = 1) -> None:
        self.points = list(product(range(len(SEARCH)), range(len(PROMPT)), range(len(CONTEXT)), range(extra)))
        self.means = np.array([self.mean(point) for point in self.points])
        draw = np.random.default_rng(seed)
        shared = math.sqrt(0.25) * draw.normal(size=(QUESTIONS, 1))
        own = math.sqrt(0.75) * draw.normal(size=(QUESTIONS, len(self.points)))
        limits = np.array([NormalDist().inv_cdf(mean) for mean in self.means])
        self.scores = (shared + own < limits).astype(float)
        self.asked = np.zeros(self.scores.shape, dtype=bool)
        self.calls: list[tuple[int, int]] = []
        points = tuple(tuple(map(str, point)) for point in self.points)
        self.space = Space(("search", "prompt", "context", "extra"), points, self.points.index((0, 2, 0, 0)))

    @staticmethod
    def mean(point: Sequence[int]) -> float:
        search, prompt, context, extra = point
        bonus = 0.25 if (search, prompt) == JOINT else 0.0
        return SEARCH[search] + PROMPT[prompt] + CONTEXT[context] - 0.01 * extra + bonus

    def evaluate(self, variants: Sequence[int], questions: Sequence[int]) -> Any:
        self.asked[np.ix_(questions, variants)] = True
        self.calls.append((len(variants), len(questions)))
        return self.scores[np.ix_(questions, variants)]

    def winner(self, found: Found) -> tuple[int, int]:
        """Search setting and prompt of the finalist with the highest mean."""
        best = max(found.finalists, key=lambda at: self.scores[:, at].mean())
        return self.points[best][:2]  # type: ignore[return-value]

    def halving(self, seed: int = 7, **options: Any) -> Found:
        order = stratified_order([(str(at), at % 3) for at in range(QUESTIONS)], seed)
        settings: dict[str, Any] = {"eta": 3, "minimum_questions": 40, "finalists": 6, "confidence": 0.95, "seed": seed}
        return halving(self.space, range(len(self.points)), order, self.evaluate, **settings | options)

    def bayes(self, seed: int = 7, trials: int = 40) -> Found:
        return bayes(self.space, range(len(self.points)), range(QUESTIONS), self.evaluate, trials=trials, seed=seed)


def test_the_planted_optimum_is_one_a_greedy_search_misses() -> None:
    alone = {search: Table.mean((search, 2, 0, 0)) for search in range(len(SEARCH))}
    assert sorted(alone, key=alone.__getitem__)[-2] == JOINT[0]
    with_best = {prompt: Table.mean((0, prompt, 0, 0)) for prompt in range(len(PROMPT))}
    assert min(with_best, key=with_best.__getitem__) == JOINT[1]
    table = Table(0)
    assert table.points[int(table.means.argmax())][:2] == JOINT


def test_halving_finds_the_joint_optimum_for_half_of_the_grid() -> None:
    found, shares = 0, []
    for seed in range(100):
        table = Table(seed)
        found += table.winner(table.halving(seed)) == JOINT
        shares.append(table.asked.mean())
    assert found >= 95
    assert max(shares) <= 0.5


def test_bayes_finds_the_joint_optimum() -> None:
    found = 0
    for seed in range(100):
        table = Table(seed, extra=3)  # 144 variants, of which 40 are asked
        found += table.winner(table.bayes(seed)) == JOINT
        assert table.asked.any(axis=0).sum() == 40
    assert found >= 95


def test_what_halving_asks_is_bounded_whatever_the_scores() -> None:
    table = Table(0)
    table.scores[:] = 0.5  # nothing is ever shown to be worse
    found = table.halving()
    assert len(found.finalists) == 6 + 1
    assert table.asked.mean() <= 1 / 3 + (6 + 1) / 48 * 2 / 3 + 0.01
    assert {drop.shown for drop in found.dropped} == {False}


def test_no_trial_is_asked_twice_and_rounds_are_nested() -> None:
    table = Table(3)
    order = stratified_order([(str(at), at % 3) for at in range(QUESTIONS)], 7)
    seen: list[tuple[set[int], set[int]]] = []

    def evaluate(variants: Sequence[int], questions: Sequence[int]) -> Any:
        seen.append((set(variants), set(questions)))
        return table.evaluate(variants, questions)

    options: Any = {"eta": 2, "minimum_questions": 20, "finalists": 6, "confidence": 0.95, "seed": 7}
    halving(table.space, range(48), order, evaluate, **options)
    assert [len(questions) for _, questions in seen] == [26, 52, 103, 205]
    for (more, few), (fewer, many) in pairwise(seen):
        assert fewer <= more
        assert few < many


def test_champion_is_asked_everything_however_bad() -> None:
    table = Table(5)
    table.scores[:, table.space.champion] = 0.0
    assert table.space.champion in table.halving().finalists
    assert table.space.champion in table.bayes().finalists


def test_every_variant_is_a_finalist_or_dropped_with_a_reason() -> None:
    table = Table(2)
    found = table.halving(eta=2, minimum_questions=20)
    dropped = [drop.variant for drop in found.dropped]
    assert sorted([*found.finalists, *dropped]) == list(range(48))
    for drop in found.dropped:
        number = found.rounds[drop.round - 1]
        assert drop.mean == number.means[drop.variant] <= number.means[drop.best]
        assert drop.questions == number.questions
        if drop.shown:
            assert drop.difference.high < 0
    tried = table.bayes(trials=30)
    assert sorted([*tried.finalists, *tried.untried]) == list(range(48))


def test_a_variant_that_may_be_wanted_for_its_price_is_not_dropped_as_worse() -> None:
    def dropped(tolerance: float) -> set[int]:
        table = Table(2)
        return {drop.variant for drop in table.halving(finalists=48, tolerance=tolerance).dropped}

    assert dropped(0.4) < dropped(0.0)


def test_variants_that_break_a_guard_leave_room_for_those_that_hold_it() -> None:
    table = Table(6)
    joint = {at for at, point in enumerate(table.points) if point[:2] == JOINT}
    options: dict[str, Any] = {"finalists": 2}
    assert joint & {*table.halving(**options).finalists}
    found = table.halving(barred=lambda: dict.fromkeys(joint, "recall"), **options)
    assert not joint & {*found.finalists}
    assert {drop.barred for drop in found.dropped if drop.variant in joint} == {"recall"}
    assert all(drop.best not in joint for drop in found.dropped)
    everyone = table.halving(barred=lambda: dict.fromkeys(range(48), "recall"), **options)
    assert everyone.finalists == table.halving(**options).finalists


@pytest.mark.parametrize("strategy", [lambda table: table.halving(), lambda table: table.bayes()])
def test_the_same_scores_lead_the_same_way(strategy: Callable[[Table], Found]) -> None:
    """So a run that died takes it up where it was, over trials on record."""
    one, other = Table(4), Table(4)
    assert strategy(one) == strategy(other)
    assert one.calls == other.calls


def test_another_seed_draws_other_questions_and_other_variants() -> None:
    orders = [stratified_order([(str(at), 0) for at in range(50)], seed) for seed in (1, 2)]
    assert orders[0] != orders[1]
    assert Table(4).bayes(seed=1).finalists != Table(4).bayes(seed=2).finalists


def test_groups_widen_what_is_shown() -> None:
    def shown(groups: Any) -> int:
        return sum(drop.shown for drop in Table(1).halving(groups=groups, finalists=48).dropped)

    assert shown([at // 20 for at in range(QUESTIONS)]) < shown(None)


# --- questions ---------------------------------------------------------------------------------------------


def test_every_beginning_of_the_order_holds_each_stratum_in_its_share() -> None:
    strata = ["a"] * 120 + ["b"] * 60 + ["c"] * 20
    order = stratified_order([(str(at), kind) for at, kind in enumerate(strata)], 7)
    assert sorted(order) == list(range(200))
    for size in (10, 20, 50, 100):
        drawn = [strata[at] for at in order[:size]]
        for kind, share in (("a", 0.6), ("b", 0.3), ("c", 0.1)):
            assert abs(drawn.count(kind) - share * size) <= 1


def test_new_questions_do_not_shuffle_the_old_ones() -> None:
    old = [(str(at), 0) for at in range(40)]
    before = [old[at][0] for at in stratified_order(old, 7)]
    new = [("new", 0), *old]
    after = [new[at][0] for at in stratified_order(new, 7) if new[at][0] != "new"]
    assert before == after


@pytest.mark.parametrize(
    ("questions", "minimum", "eta", "sizes"),
    [
        (205, 40, 3, [69, 205]),
        (4000, 40, 3, [50, 149, 445, 1334, 4000]),
        (100, 40, 3, [40, 100]),
        (50, 40, 3, [50]),
        (20, 10, 2, [10, 20]),
        (0, 10, 2, [0]),
    ],
)
def test_sizes_of_rounds(questions: int, minimum: int, eta: int, sizes: list[int]) -> None:
    assert round_sizes(questions, minimum, eta) == sizes


# --- search settings ---------------------------------------------------------------------------------------


def retrieved(recall: float, *, precision: float = 0.3, size: float = 1000, seed: int = 0) -> Retrieved:
    draw = np.random.default_rng(seed)
    hits = (draw.random(100) < recall).astype(float)
    places = range(100)
    return Retrieved(
        dict(zip(places, hits.tolist(), strict=True)), dict.fromkeys(places, precision), dict.fromkeys(places, size)
    )


def beaten(settings: dict[str, Retrieved], **options: Any) -> set[str]:
    found = dominated(settings, **{"keep": 0.01, "champion": "champion", "confidence": 0.95, "seed": 7, **options})
    assert all(one.difference.high < -strategies.RETRIEVAL_MARGIN for one in found.values())
    return set(found)


GOOD, BAD = retrieved(0.9), retrieved(0.4, precision=0.1, seed=1)


def test_a_setting_that_another_beats_in_everything_is_dropped() -> None:
    assert beaten({"good": GOOD, "bad": BAD}) == {"bad"}


@pytest.mark.parametrize(
    "better",
    [
        retrieved(0.4, precision=0.5, seed=1),  # more precise
        retrieved(0.4, precision=0.1, size=500, seed=1),  # less to read
        retrieved(0.88, precision=0.1, seed=1),  # not far enough behind
    ],
)
def test_a_setting_with_any_advantage_stays(better: Retrieved) -> None:
    assert beaten({"good": GOOD, "other": better}) == set()


def test_finding_nothing_is_no_advantage() -> None:
    nothing = Retrieved(dict.fromkeys(range(100), 0.0), dict.fromkeys(range(100), 0.0), {})
    assert beaten({"good": GOOD, "nothing": nothing}) == {"nothing"}


def test_champion_and_the_best_share_stay() -> None:
    assert beaten({"good": GOOD, "champion": BAD}) == set()
    assert beaten({"good": GOOD, "bad": BAD}, keep=1.0) == set()
    assert beaten({"good": GOOD, "bad": BAD, "worse": retrieved(0.1, precision=0.0, seed=2)}, keep=0.6) == {"worse"}


def test_too_few_questions_show_nothing() -> None:
    def few(one: Retrieved) -> Retrieved:
        return Retrieved({0: one.quality[0]}, {0: 0.1}, {0: 1.0})

    assert beaten({"good": few(GOOD), "bad": few(BAD)}) == set()


# --- Bayesian search ---------------------------------------------------------------------------------------


def test_the_first_variants_hold_every_pair_of_values() -> None:
    table = Table(0, extra=3)
    design = pairwise_design(table.space, range(len(table.points)), 100, 7)
    assert design[0] == table.space.champion
    for one, other in ((0, 1), (0, 2), (1, 3), (2, 3)):
        wanted = {(point[one], point[other]) for point in table.points}
        assert {(table.points[at][one], table.points[at][other]) for at in design} == wanted
    assert len(design) <= 30  # 24 are the least for 6 search settings times 4 prompts


def test_a_small_grid_is_asked_whole() -> None:
    table = Table(0)
    assert len(table.bayes(trials=500).finalists) == 48
    assert not table.bayes(trials=500).untried


def test_one_variant_alone() -> None:
    space = Space((), ((),), 0)
    scores = np.ones((30, 1))

    def evaluate(variants: Sequence[int], questions: Sequence[int]) -> Any:
        return scores[np.ix_(list(questions), list(variants))]

    assert bayes(space, [0], range(30), evaluate, trials=5, seed=1).finalists == (0,)
    found = halving(space, [0], range(30), evaluate, eta=2, minimum_questions=10, finalists=2, confidence=0.95, seed=1)
    assert (found.finalists, found.dropped) == ((0,), ())


def test_a_grid_with_holes() -> None:
    """What the estimator asks for need not exist; the nearest variant stands for it."""
    table = Table(1)
    kept = [at for at, point in enumerate(table.points) if sum(point) % 2 == 0 or at == table.space.champion]
    found = bayes(table.space, kept, range(QUESTIONS), table.evaluate, trials=15, seed=3)
    assert set(found.finalists) <= set(kept)
    assert len(found.finalists) == 15


def test_optuna_says_nothing(capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder) -> None:
    Table(0).bayes(trials=30)
    told = capfd.readouterr()
    assert (told.out, told.err, [str(one.message) for one in recwarn]) == ("", "", [])
