"""Scores: kept under the fingerprint of their metric, computed again by it, for a run's trials and for old ones."""

from pathlib import Path
from typing import Any

import pytest

from assets.evaluation.metrics import catalogue
from assets.evaluation.metrics.base import METRICS, score
from assets.experiments import scores as scoring
from assets.experiments.records import read_outcomes, to_record
from assets.experiments.scores import Rescored, rescore, score_trials
from resources.errors import LeaseHeldError, PermanentError
from tests.unit.experiment_world import ScriptedAnswerer, World, files, variant

F1, RECALL, EXACT = "squad.f1/1", "genaiops.recall/2", "squad.exact_match/1"
VARIANTS = [variant("plain", k=1), variant("plain", k=2)]


@pytest.fixture
def world(make_platform: Any) -> World:
    world = World(make_platform(**files()))
    world.write("range.txt", "The range of the bicycle is 80 km.")
    world.write("frame.txt", "The frame is made of steel.")
    world.publish()
    world.ask({"What is the range?": ("80 km", "range.txt"), "What is the frame made of?": ("steel", "frame.txt")})
    return world


@pytest.fixture
def another_code(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make a metric's code another one."""

    def change(metric: str) -> None:
        original = catalogue.metric_fingerprint

        def changed(asked: str) -> str:
            return "another" if asked == metric else original(asked)

        monkeypatch.setattr(scoring, "metric_fingerprint", changed)

    return change


def stored(world: World) -> dict[tuple[str, str], float | None]:
    with world.database.connect() as connection:
        rows = connection.execute("SELECT trial, metric, value FROM trial_score").fetchall()
    return {(trial, metric): value for trial, metric, value in rows}


def test_scores_are_computed_once_and_equal_the_metrics(world: World) -> None:
    plan, _ = world.run(VARIANTS, ScriptedAnswerer(world.database))
    outcomes = read_outcomes(world.database, plan)
    first = score_trials(world.database, plan, outcomes, list(METRICS))
    again = score_trials(world.database, plan, outcomes, list(METRICS))
    assert first.computed == len(plan.trials) * len(METRICS)
    assert again.computed == 0
    assert again.values == first.values
    direct = score([to_record(trial, outcomes[trial.fingerprint]) for trial in plan.trials])
    for place, trial in enumerate(plan.trials):
        assert first.values[trial.fingerprint] == {metric: column[place] for metric, column in direct.items()}


def test_a_metric_with_other_code_computes_its_own_scores_again_and_no_others(world: World, another_code: Any) -> None:
    answerer = ScriptedAnswerer(world.database)
    plan, _ = world.run(VARIANTS, answerer)
    outcomes = read_outcomes(world.database, plan)
    score_trials(world.database, plan, outcomes, [F1, RECALL, EXACT])
    with world.database.connect() as connection:
        connection.execute("UPDATE trial_score SET value = 0.25")  # as if all had been computed otherwise
    another_code(F1)
    calls = answerer.calls
    found = score_trials(world.database, plan, outcomes, [F1, RECALL, EXACT])
    assert found.computed == len(plan.trials)
    assert answerer.calls == calls
    for (trial, metric), value in stored(world).items():
        assert found.values[trial][metric] == value
        assert (value == 0.25) == (metric != F1)


def test_old_trials_are_scored_by_a_new_metric_without_running_them(world: World) -> None:
    answerer = ScriptedAnswerer(world.database)
    plan, _ = world.run(VARIANTS, answerer)
    outcomes = read_outcomes(world.database, plan)
    score_trials(world.database, plan, outcomes, [F1])
    world.write("range.txt", "The range of the bicycle is 90 km now.")  # the trials' snapshot is no longer served
    world.publish()
    world.ask({"What is the range?": ("90 km", "range.txt")})
    calls, told = answerer.calls, []
    done = rescore(world.platform, "rescue", progress=lambda name, part: told.append((name, part)))
    assert done == Rescored(4, 4 * (len(METRICS) - 1), 0)
    assert told == [("trial-run", done)]
    assert answerer.calls == calls
    direct = score([to_record(trial, outcomes[trial.fingerprint]) for trial in plan.trials])
    found = stored(world)
    for place, trial in enumerate(plan.trials):
        for metric, column in direct.items():
            assert found[(trial.fingerprint, metric)] == column[place], metric
    assert rescore(world.platform, "again").computed == 0


def test_rescoring_goes_by_batches_and_can_be_limited(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, _ = world.run(VARIANTS, ScriptedAnswerer(world.database))
    monkeypatch.setattr(scoring, "BATCH_SIZE", 3)
    told: list[int] = []
    done = rescore(
        world.platform, "r", experiment="trial-run", metrics=[RECALL], progress=lambda _, part: told.append(part.trials)
    )
    assert done == Rescored(4, 4, 0)
    assert told == [3, 4]
    assert {metric for _, metric in stored(world)} == {RECALL}
    assert len(plan.trials) == 4


def test_rescoring_that_was_cut_short_goes_on_where_it_was(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.run(VARIANTS, ScriptedAnswerer(world.database))
    monkeypatch.setattr(scoring, "BATCH_SIZE", 1)

    def interrupt(name: str, done: Rescored) -> None:
        if done.trials == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rescore(world.platform, "r", metrics=[F1], progress=interrupt)
    assert len(stored(world)) == 3
    assert rescore(world.platform, "again", metrics=[F1]) == Rescored(4, 1, 0)


def test_trials_whose_questions_are_gone_are_left_out_and_counted(world: World) -> None:
    world.run(VARIANTS, ScriptedAnswerer(world.database))
    with world.database.connect() as connection:
        connection.execute("DELETE FROM evaluation_evidence WHERE question_id = 'What is the range'")
        connection.execute("DELETE FROM evaluation_question WHERE question_id = 'What is the range'")
    assert rescore(world.platform, "r", metrics=[F1]) == Rescored(4, 2, 2)
    with world.database.connect() as connection:
        connection.execute("DELETE FROM evaluation_evidence")
        connection.execute("DELETE FROM evaluation_question")
        connection.execute("DELETE FROM evaluation_dataset")
    assert rescore(world.platform, "r", metrics=[F1]) == Rescored(4, 0, 4)


def test_what_cannot_be_rescored_is_said(world: World) -> None:
    world.run(VARIANTS, ScriptedAnswerer(world.database))
    with pytest.raises(ValueError, match=r"Did you mean 'squad.f1/1'"):
        rescore(world.platform, "r", metrics=["squad.f2/1"])
    with pytest.raises(PermanentError, match=r"no trial of experiment other .*trials of: trial-run"):
        rescore(world.platform, "r", experiment="other")
    with world.database.lease("experiment:trial-run", "a run"), pytest.raises(LeaseHeldError):
        rescore(world.platform, "r", wait_seconds=0)


def test_scores_go_with_their_trial(world: World) -> None:
    plan, _ = world.run(VARIANTS, ScriptedAnswerer(world.database))
    outcomes = read_outcomes(world.database, plan)
    gone = plan.trials[0].fingerprint
    with world.database.connect() as connection:
        connection.execute("DELETE FROM trial WHERE fingerprint = %s", (gone,))  # erased since it was read
    score_trials(world.database, plan, outcomes, [F1])
    assert {trial for trial, _ in stored(world)} == {trial.fingerprint for trial in plan.trials} - {gone}


def test_grounding_reads_what_the_prompt_held(world: World) -> None:
    plan, _ = world.run([variant("plain", k=2)], ScriptedAnswerer(world.database))
    trial = plan.trials[0]
    with world.database.connect() as connection:
        connection.execute("""UPDATE trial SET supplied = '{"passages": [[2, 4, 9]]}'""")
    outcome = read_outcomes(world.database, plan)[trial.fingerprint]
    record = to_record(trial, outcome)
    (shown,) = record.read
    assert shown.text == trial.result.hits[1].text[4:9]
    assert (shown.start, shown.end) == (4, 9)
    assert len(record.hits) == 2  # retrieval is judged by what was found


def test_command_scores_old_trials(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from click.testing import CliRunner

    from pipelines.commands import experiments

    world.run(VARIANTS, ScriptedAnswerer(world.database))
    monkeypatch.setattr(experiments, "open_platform", lambda: world.platform)
    done = CliRunner().invoke(experiments.rescore, ["--metric", F1])
    assert done.exit_code == 0, done.output
    assert "4 trials on record, 4 scores computed." in done.output
    wrong = CliRunner().invoke(experiments.rescore, ["--metric", "squad.f3/1"])
    assert wrong.exit_code == 2
    assert "Did you mean 'squad.f1/1'" in wrong.output
