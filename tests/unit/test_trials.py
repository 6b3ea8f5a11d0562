"""Trials: asked once, repeated only when something that matters changed, and never silently dropped."""

from collections.abc import Callable

import pytest

from assets.experiments.planning import plan_trials
from assets.experiments.records import read_outcomes
from assets.experiments.scores import score_trials
from resources.errors import BudgetExceededError, PermanentError, StaleLeaseError, TransientError
from resources.platform import Platform
from tests.unit.experiment_world import FakeSearch, ScriptedAnswerer, World, files, variant, with_config

QUESTIONS = {
    "which colour has the bell?": ("red", "bell.md"),
    "which colour has the saddle?": ("black", "saddle.md"),
    "who invented the wheel?": (None, None),
}


@pytest.fixture
def world(make_platform: Callable[..., Platform]) -> World:
    world = World(make_platform(**files(maximum_failed_share=1.0)))
    world.write("bell.md", "the bell is red")
    world.write("saddle.md", "the saddle is black")
    world.publish()
    world.ask(QUESTIONS)
    return world


def test_second_run_repeats_nothing(world: World) -> None:
    answerer = ScriptedAnswerer(world.database)
    _, first = world.run([variant(), variant(k=2)], answerer)
    assert (first.run, first.reused, first.generations) == (6, 0, answerer.calls)
    calls = answerer.calls
    _, second = world.run([variant(), variant(k=2)], answerer, run_id="again")
    assert (second.run, second.reused, second.generations, answerer.calls) == (0, 6, 0, calls)


def test_snapshot_that_changes_no_result_repeats_nothing(world: World) -> None:
    answerer = ScriptedAnswerer(world.database)
    world.run([variant()], answerer)
    world.write("zebra.md", "nothing in common")
    world.publish()
    _, work = world.run([variant()], answerer)
    assert (work.run, work.reused) == (0, 3)


def test_edited_document_repeats_only_the_questions_that_retrieve_it(world: World) -> None:
    answerer = ScriptedAnswerer(world.database)
    world.run([variant()], answerer)
    world.write("saddle.md", "the saddle is black now")
    world.publish()
    world.ask(QUESTIONS)
    _, work = world.run([variant()], answerer)
    assert (work.run, work.reused) == (1, 2)


@pytest.mark.parametrize(
    "changed",
    [variant(prompt="Other words."), variant(k=2), variant(mode="full_text"), variant(model="m2")],
    ids=["prompt", "k", "mode", "model"],
)
def test_changed_variant_shares_no_trial(world: World, changed: object) -> None:
    """The classic defect of this field: a cache key without one of these."""
    answerer = ScriptedAnswerer(world.database)
    world.run([variant(), variant("strict", prompt="Only that.")], answerer)
    _, work = world.run([changed, variant("strict", prompt="Only that.")], answerer)  # type: ignore[list-item]
    assert (work.run, work.reused) == (3, 3)


def test_edited_question_repeats_only_itself(world: World) -> None:
    answerer = ScriptedAnswerer(world.database)
    world.run([variant()], answerer)
    world.ask({**QUESTIONS, "which colour has the bell?": ("dark red", "bell.md")})
    _, work = world.run([variant()], answerer)
    assert (work.run, work.reused) == (1, 2)
    assert work.generations == 0  # the rendered prompt is the same, so nothing is paid


def test_same_prompt_is_paid_once_for_several_variants(world: World) -> None:
    """Search modes that retrieve the same render the same prompt; threads must not pay for it twice."""
    answerer = ScriptedAnswerer(world.database)
    _, work = world.run([variant(mode=mode) for mode in ("vector", "full_text", "hybrid")], answerer)
    assert (work.run, work.generations, answerer.calls) == (9, 3, 3)


def test_retrieval_is_shared_only_by_equal_settings(world: World) -> None:
    search = FakeSearch(world)
    variants = [variant(), variant("strict"), variant(k=2), variant(mode="hybrid")]
    with world.database.lease("experiment:trial-run", "run") as lease:
        plan = plan_trials(world.database, search, variants, world.scope(), run_id="run", lease=lease)
    assert search.searches == [("main", "vector", 1), ("main", "vector", 2), ("main", "hybrid", 1)]
    assert plan.searches == 9


def test_passing_trouble_is_tried_again(world: World) -> None:
    answerer = ScriptedAnswerer(world.database, lambda question, call: TransientError("busy") if call < 3 else None)
    plan, work = world.run([variant()], answerer)
    assert (work.run, work.failed) == (3, 0)
    assert {outcome.tries for outcome in read_outcomes(world.database, plan).values()} == {3}


def test_failed_trial_is_recorded_without_the_prompt_and_tried_again_next_time(world: World) -> None:
    def refuse(question: str, call: int) -> Exception | None:
        return PermanentError(f"cannot answer {question}") if "bell" in question else None

    plan, work = world.run([variant()], ScriptedAnswerer(world.database, refuse))
    assert (work.run, work.failed) == (3, 1)
    (failed,) = [outcome for outcome in read_outcomes(world.database, plan).values() if outcome.failed]
    assert (failed.error, failed.tries) == ("PermanentError", 1)
    _, again = world.run([variant()], ScriptedAnswerer(world.database))
    assert (again.run, again.reused, again.failed) == (1, 2, 0)
    assert not any(outcome.failed for outcome in read_outcomes(world.database, plan).values())


def test_lasting_trouble_ends_after_three_tries(world: World) -> None:
    answerer = ScriptedAnswerer(world.database, lambda question, call: TransientError("busy"))
    _, work = world.run([variant()], answerer)
    assert (work.failed, answerer.calls) == (3, 9)


def test_failed_trial_scores_worst_and_success_replaces_the_score(world: World) -> None:
    metric = ["genaiops.answer_quality/1"]
    plan, _ = world.run([variant()], ScriptedAnswerer(world.database, lambda question, call: PermanentError("no")))
    scores = score_trials(world.database, plan, read_outcomes(world.database, plan), metric)
    assert [scores.values[trial.fingerprint][metric[0]] for trial in plan.trials] == [0, 0, 0]
    world.run([variant()], ScriptedAnswerer(world.database))
    scores = score_trials(world.database, plan, read_outcomes(world.database, plan), metric)
    assert scores.computed == 3
    assert max(scores.values[trial.fingerprint][metric[0]] or 0 for trial in plan.trials) > 0


def test_scores_are_computed_once(world: World) -> None:
    plan, _ = world.run([variant()], ScriptedAnswerer(world.database))
    outcomes = read_outcomes(world.database, plan)
    assert score_trials(world.database, plan, outcomes, ["squad.f1/1"]).computed == 3
    both = score_trials(world.database, plan, outcomes, ["squad.f1/1", "squad.exact_match/1"])
    assert both.computed == 3
    assert score_trials(world.database, plan, outcomes, ["squad.f1/1"]).values == {
        key: {"squad.f1/1": value["squad.f1/1"]} for key, value in both.values.items()
    }


def test_run_ends_when_too_much_failed(world: World) -> None:
    answerer = ScriptedAnswerer(world.database, lambda question, call: PermanentError("no key"))
    variants = [variant(f"p{number}", prompt=f"Prompt {number}") for number in range(60)]
    _, work = with_config(world, maximum_failed_share=0.05).run(variants, answerer)
    assert work.stopped is not None
    assert "maximum_failed_share" in work.stopped
    assert 9 < work.failed < 180


def test_run_ends_before_the_budget_is_passed_and_keeps_what_it_has(world: World) -> None:
    def poor(question: str, call: int) -> Exception | None:
        return BudgetExceededError("nothing was sent") if "saddle" in question else None

    plan, work = world.run([variant()], ScriptedAnswerer(world.database, poor))
    assert work.stopped == "nothing was sent"
    assert work.failed == 0
    outcomes = read_outcomes(world.database, plan)
    assert work.run == len(outcomes) < 3


def test_defect_is_raised_not_recorded_as_a_failed_trial(world: World) -> None:
    answerer = ScriptedAnswerer(world.database, lambda question, call: KeyError("defect"))
    with pytest.raises(KeyError):
        world.run([variant()], answerer)


def test_run_that_was_taken_over_writes_nothing(world: World) -> None:
    def lose_lease(question: str, call: int) -> None:
        with world.database.connect() as connection:
            connection.execute("UPDATE lease SET token = token + 1, holder = 'other'")

    with pytest.raises(StaleLeaseError):
        world.run([variant()], ScriptedAnswerer(world.database, lose_lease))  # type: ignore[arg-type]
    with world.database.connect() as connection:
        assert connection.execute("SELECT count(*) FROM trial").fetchone() == (0,)


def test_progress_counts_trials_on_record(world: World) -> None:
    seen: list[tuple[int, int]] = []
    world.run([variant()], ScriptedAnswerer(world.database))
    world.run([variant(), variant(k=2)], ScriptedAnswerer(world.database), progress=lambda *now: seen.append(now))
    assert seen[0] == (3, 6)
    assert seen[-1] == (6, 6)


def test_question_whose_evidence_moved_on_is_left_out_and_counted(world: World) -> None:
    """The dataset still refers to the old text of the saddle."""
    world.write("saddle.md", "the saddle is brown")
    world.publish()
    scope = world.scope()
    assert [question.question_id for question in scope.questions] == [
        "which colour has the bell",
        "who invented the wheel",
    ]
    assert scope.stale == ("which colour has the saddle",)
    assert scope.stale_share == pytest.approx(1 / 3)


def test_question_whose_evidence_the_snapshot_does_not_show_is_left_out(world: World) -> None:
    """The dataset is ahead of the index: the document is known, but not published."""
    world.write("basket.md", "the basket is green")
    world.ask({**QUESTIONS, "which colour has the basket?": ("green", "basket.md")})
    assert world.scope().stale == ("which colour has the basket",)


def test_stale_and_foreign_questions_are_not_asked(world: World) -> None:
    world.ask(QUESTIONS, stale=["which colour has the bell?"])
    assert len(world.scope().questions) == 2
    world.ask(QUESTIONS, split="test")
    assert world.scope().questions == ()
    assert len(world.scope(split="test").questions) == 3


def test_train_questions_are_never_scored(world: World) -> None:
    with pytest.raises(PermanentError, match="never scored"):
        world.scope(split="train")


def test_missing_dataset_is_explained(make_platform: Callable[..., Platform]) -> None:
    world = World(make_platform(**files()))
    with pytest.raises(PermanentError, match="materialize evaluation_dataset"):
        world.scope()
