"""Dead letters: a trial is tried a bounded number of times, given up, counted as failed, and can be asked for again."""

from collections.abc import Callable

import pytest

from assets.experiments.checks import trials_complete
from assets.experiments.records import read_outcomes
from assets.experiments.trials import MAXIMUM_ATTEMPTS, MAXIMUM_TRIES, TrialWork, retry
from resources.errors import PermanentError, TransientError
from resources.platform import Platform
from tests.unit.experiment_world import ScriptedAnswerer, World, files, variant, with_config

QUESTIONS = {
    "which colour has the bell?": ("red", "bell.md"),
    "which colour has the saddle?": ("black", "saddle.md"),
    "who invented the wheel?": (None, None),
}
POISON = "which colour has the bell?"


@pytest.fixture
def world(make_platform: Callable[..., Platform]) -> World:
    world = World(make_platform(**files(maximum_failed_share=1.0)))
    world.write("bell.md", "the bell is red")
    world.write("saddle.md", "the saddle is black")
    world.publish()
    world.ask(QUESTIONS)
    return world


def always(error: type[Exception]) -> Callable[[str, int], Exception | None]:
    return lambda question, call: error("no") if question == POISON else None


def state(world: World) -> dict[str, tuple[str, int, int, bool]]:
    with world.database.connect() as connection:
        rows = connection.execute("SELECT question_id, status, tries, attempts, given_up_at IS NOT NULL FROM trial")
        return {row[0]: row[1:] for row in rows.fetchall()}


def test_trouble_that_never_passes_is_given_up_after_nine_tries_over_runs(world: World) -> None:
    answerer = ScriptedAnswerer(world.database, always(TransientError))
    works = [world.run([variant()], answerer, run_id=f"run-{number}")[1] for number in range(5)]
    assert answerer.tries[POISON] == MAXIMUM_ATTEMPTS == 3 * MAXIMUM_TRIES
    assert [(work.run, work.failed, work.given_up) for work in works] == [
        (3, 1, 0),
        (1, 1, 0),
        (1, 1, 0),
        (0, 0, 1),
        (0, 0, 1),
    ]
    assert [work.reused for work in works] == [0, 2, 2, 2, 2]
    assert works[-1].stopped is None
    assert state(world)["which colour has the bell"] == ("failed", 9, 9, True)


def test_lasting_trouble_and_passing_trouble_together_never_pass_the_maximum(world: World) -> None:
    errors = [PermanentError("no"), *[TransientError("no")] * 50]
    calls: list[str] = []

    def trouble(question: str, call: int) -> Exception | None:
        if question != POISON:
            return None
        calls.append(question)
        return errors[len(calls) - 1]

    answerer = ScriptedAnswerer(world.database, trouble)
    for number in range(6):
        world.run([variant()], answerer, run_id=f"run-{number}")
    assert len(calls) == MAXIMUM_ATTEMPTS  # 1 + 3 + 3 + 2


def test_given_up_trial_still_counts_as_failed(world: World) -> None:
    answerer = ScriptedAnswerer(world.database, always(TransientError))
    for number in range(4):
        plan, _ = world.run([variant()], answerer, run_id=f"run-{number}")
    outcomes = read_outcomes(world.database, plan)
    failed = [outcomes[trial.fingerprint] for trial in plan.trials if trial.question.question == POISON]
    assert [(one.failed, one.given_up, one.error) for one in failed] == [(True, True, "TransientError")]
    assert failed[0].state == "given up"
    told = trials_complete(world.experiment, plan, outcomes, TrialWork())
    assert (told.details["failed"], told.details["given_up"]) == (1, 1)
    assert told.details["remedy"] == "genaiops trials retry trial-run"


def test_retry_tries_again_and_success_clears_it(world: World) -> None:
    healthy = [False]
    answerer = ScriptedAnswerer(
        world.database,
        lambda question, call: TransientError("no") if question == POISON and not healthy[0] else None,
    )
    for number in range(4):
        world.run([variant()], answerer, run_id=f"run-{number}")
    healthy[0] = True
    assert world.run([variant()], answerer, run_id="still")[1].run == 0
    assert retry(world.database, "trial-run", variant="another") == []
    assert retry(world.database, "trial-run") == [(variant().name, "which colour has the bell", 9)]
    assert retry(world.database, "another experiment") == []
    shared = {"dataset": "facts", "variants": [variant().fingerprint]}
    assert retry(world.database, "another experiment", **{**shared, "dataset": "others"}) == []
    assert len(retry(world.database, "another experiment", **shared)) == 1
    _, work = world.run([variant()], answerer, run_id="asked")
    assert (work.run, work.failed, work.given_up) == (1, 0, 0)
    assert state(world)["which colour has the bell"] == ("ok", 10, 1, False)


def test_another_fingerprint_is_another_trial(world: World) -> None:
    answerer = ScriptedAnswerer(world.database, always(TransientError))
    for number in range(4):
        world.run([variant()], answerer, run_id=f"run-{number}")
    _, work = world.run([variant(prompt="An edited prompt.")], answerer, run_id="edited")
    assert (work.run, work.failed, work.given_up) == (3, 1, 0)


def test_given_up_trials_count_against_what_the_experiment_accepts(world: World) -> None:
    answerer = ScriptedAnswerer(world.database, always(TransientError))
    for number in range(4):
        world.run([variant()], answerer, run_id=f"run-{number}")
    strict = with_config(world, maximum_failed_share=0.0)
    answerer.trouble = lambda question, call: PermanentError("no")
    edited = [variant(prompt=f"Edited prompt {number}.") for number in range(30)]
    _, work = strict.run([variant(), *edited], answerer, run_id="strict")
    assert work.stopped is not None
    assert "1 of them were given up in earlier runs" in work.stopped


def test_trial_says_what_it_was_made_with(world: World) -> None:
    world.run([variant()], ScriptedAnswerer(world.database))
    with world.database.connect() as connection:
        rows = connection.execute("SELECT DISTINCT versions FROM trial").fetchall()
    assert len(rows) == 1
    versions = rows[0][0]
    assert versions["model"] == {"name": "extractive", "asked_for": "extractive", "fingerprint": "m1", "parameters": {}}
    assert versions["index"] == "index-1"
    assert set(versions["code"]) == {"genaiops", "trial", "answer", "context"}
