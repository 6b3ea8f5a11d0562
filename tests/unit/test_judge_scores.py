"""Judge scores: asked once, kept where a run is cut off, counted where a judge fails, and gone with their trial."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from assets.evaluation.metrics.base import METRICS, metric_fingerprint
from assets.experiments import judge_scores, judged, verdicts
from assets.experiments import scores as scoring
from assets.experiments.judged import (
    Judging,
    deciding,
    judge_states,
    judging_of,
    objections,
    score_fingerprints,
)
from assets.experiments.planning import Plan
from assets.experiments.records import read_outcomes
from assets.experiments.scores import Scores, score_trials
from resources.experiment_config import ExperimentConfig, Guard
from resources.platform import Platform
from tests.fake_openai import FakeOpenAI
from tests.judge_world import ScriptedJudge, fair, judge, models
from tests.unit.experiment_world import ScriptedAnswerer, World, files, variant

STRICT = "judge.strict/1"
VARIANTS = [variant("plain", k=1), variant("plain", k=2)]
FACTS = {"range": "80 km", "frame": "steel", "weight": "14 kg", "bell": "brass", "saddle": "leather", "lamp": "glass"}


class Court:
    """A world whose trials are run, with a judge."""

    def __init__(self, world: World, script: ScriptedJudge, server: FakeOpenAI) -> None:
        self.world, self.script, self.server = world, script, server
        for part, what in FACTS.items():
            world.write(f"{part}.txt", f"The {part} of the bicycle is made of {what}.")
        world.publish()
        world.ask({f"What is the {part} made of?": (what, f"{part}.txt") for part, what in FACTS.items()})
        self.plan, _ = world.run(VARIANTS, ScriptedAnswerer(world.database))
        self.run_id = "run"

    @property
    def judging(self) -> Judging:
        config = self.world.platform.config
        found = judging_of(self.world.database, config, self.world.platform.models, self.world.experiment, self.run_id)
        assert found is not None
        return found

    def score(self, plan: Plan | None = None, **options: Any) -> Scores:
        plan = plan or self.plan
        outcomes = read_outcomes(self.world.database, plan)
        return score_trials(self.world.database, plan, outcomes, [], judging=self.judging, **options)

    def rows(self, query: str) -> list[Any]:
        with self.world.database.connect() as connection:
            return connection.execute(query).fetchall()  # type: ignore[call-overload]


@pytest.fixture
def court(make_platform: Callable[..., Platform]) -> Iterator[Court]:
    script = ScriptedJudge()
    with FakeOpenAI(answer=script) as server:
        platform = make_platform(
            **{**files(judges=["strict"]), "models.yaml": models(), "judges/strict.yaml": judge(swap=False)}
        )
        platform.environment.update(server.environment())
        yield Court(World(platform), script, server)


def test_every_trial_is_judged_within_the_limit_of_the_model_and_kept(court: Court) -> None:
    first = court.score()
    assert first.computed == len(court.plan.trials) == 12
    assert {values[STRICT] for values in first.values.values()} == {1.0}
    assert first.judged[STRICT].scored == 12
    assert first.stopped is None
    assert court.server.most_running <= 2
    asked = court.script.calls
    again = court.score()
    assert (again.computed, court.script.calls) == (0, asked)
    assert again.values == first.values
    kept = court.rows("SELECT DISTINCT fingerprint, error, attempts, run_id FROM trial_verdict")
    assert kept == [(court.judging.judges[STRICT].fingerprint, None, 1, "run")]


def test_a_run_that_is_cut_off_goes_on_without_asking_again(court: Court, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge_scores, "BLOCK", 2)

    def cut(point: str) -> None:
        if point == "experiments.judged" and court.script.calls >= 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(judge_scores, "crash_point", cut)
    with pytest.raises(KeyboardInterrupt):
        court.score()
    kept = court.rows("SELECT count(*) FROM trial_score")[0][0]
    asked = court.script.calls
    assert 0 < kept < 12
    monkeypatch.setattr(judge_scores, "crash_point", lambda point: None)
    done = court.score()
    assert done.computed == 12 - kept
    sent = {shown.user for shown in court.script.seen}
    assert court.script.calls == len(sent) > asked  # no request was sent twice


def test_a_failed_judge_leaves_no_score_is_tried_again_and_then_given_up(court: Court) -> None:
    court.script.mind = lambda shown: "no" if "bell" in shown.user else fair(shown)
    for run in range(1, judge_scores.MAXIMUM_ATTEMPTS + 2):
        court.run_id = f"run {run}"
        found = court.score()
        failed = found.judged[STRICT].failed
        assert len(failed) > 0
        assert all(found.values[key][STRICT] is None for key in failed)
        attempts = min(run, judge_scores.MAXIMUM_ATTEMPTS)
        assert court.rows("SELECT DISTINCT error, attempts FROM trial_verdict WHERE error IS NOT NULL") == [
            ("ModelResponseError", attempts)
        ]
        asked = court.script.calls
        assert set(court.score().judged[STRICT].failed) == set(failed)  # as in a further round of a strategy
        assert court.script.calls == asked
    court.run_id = "run"
    failed = court.score().judged[STRICT].failed
    assert set(failed.values()) == {"given up"}
    assert not court.rows("SELECT 1 FROM trial_score WHERE value = 0 OR value = 'NaN'")
    court.script.mind = fair
    asked = court.script.calls
    assert court.score().judged[STRICT].failed  # given up: not asked, though it would answer now
    assert court.script.calls == asked
    with court.world.database.connect() as connection:
        assert verdicts.try_again(connection, "strict") == len(failed)
    assert not court.score().judged[STRICT].failed
    assert not court.rows("SELECT 1 FROM trial_verdict WHERE error IS NOT NULL")


def test_a_judge_that_never_answers_is_stopped_early(court: Court, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge_scores, "BLOCK", 1)
    monkeypatch.setattr(judge_scores, "_FAILURES_TO_STOP", 2)
    court.script.mind = lambda shown: "no"
    found = court.score()
    judged = found.judged[STRICT]
    assert (len(judged.failed) < 12, judged.unasked > 0) == (True, True)
    assert judged.stopped is not None
    assert found.stopped == f"{STRICT}: {judged.stopped}"
    assert judged.to_json()["errors"] == {"ModelResponseError": len(judged.failed)}


def test_verdicts_of_an_erased_trial_are_not_written(court: Court) -> None:
    gone = court.plan.trials[0].fingerprint
    outcomes = read_outcomes(court.world.database, court.plan)
    with court.world.database.connect() as connection:
        connection.execute("DELETE FROM trial WHERE fingerprint = %s", (gone,))
    score_trials(court.world.database, court.plan, outcomes, list(METRICS), judging=court.judging)
    assert gone not in {
        trial for (trial,) in court.rows("SELECT trial FROM trial_verdict UNION SELECT trial FROM trial_score")
    }


def test_offline_verdicts_are_kept_and_made_up_for_older_scores(court: Court) -> None:
    outcomes = read_outcomes(court.world.database, court.plan)

    def score() -> int:
        return score_trials(court.world.database, court.plan, outcomes, [verdicts.OFFLINE, "squad.f1/1"]).computed

    assert score() == 24
    found = court.rows(
        "SELECT v.fingerprint, v.verdicts, t.answer FROM trial_verdict v JOIN trial t ON t.fingerprint = v.trial"
    )
    assert len(found) == 12
    for fingerprint, verdict, answer in found:
        assert fingerprint == metric_fingerprint(verdicts.OFFLINE)
        (claim,) = verdict["items"]
        assert answer[claim["start"] : claim["end"]] == answer
        assert (claim["verdict"], claim["passages"]) == ("entailed", [1])
        assert claim["score"] > 0.5
    assert score() == 0
    with court.world.database.connect() as connection:
        connection.execute("DELETE FROM trial_verdict")  # scored before verdicts were kept
    assert score() == 12
    assert score() == 0


def test_passages_have_the_numbers_the_answer_cites_them_by() -> None:
    assert verdicts.passage_numbers(None, 3) == [1, 2, 3]
    assert verdicts.passage_numbers([(3, 0, 5), (1, 0, 9), (3, 9, 12)], 2) == [3, 1]


def test_a_guard_makes_a_judge_decide_and_promotion_objects(court: Court) -> None:
    platform = court.world.platform
    guarded = court.world.experiment.model_copy(update={"guards": [Guard(metric=STRICT, maximum_drop=0.1)]})
    assert deciding(court.world.experiment) == []
    assert deciding(guarded) == [STRICT]
    unnamed = guarded.model_copy(update={"judges": []})
    with court.world.database.connect() as connection:
        states = judge_states(connection, platform.config, platform.models, guarded)

        def object_to(experiment: ExperimentConfig, measured: Any) -> list[str]:
            return objections(connection, platform.config, platform.models, experiment, measured)

        assert object_to(court.world.experiment, {}) == []
        (why,) = object_to(guarded, states)
        assert why.startswith(f"not calibrated: {STRICT} (judge strict): judges/strict.yaml has no calibration")
        changed, _ = object_to(guarded, {})  # scored by another judge, or before it was one
        assert changed == "judge strict was changed since the result; materialize scored_variants again"
        assert object_to(unnamed, states) == [f"{STRICT} decides, but is none of the judges of experiment trial-run"]
    assert judged.not_calibrated(states)
    assert not judged.not_calibrated({STRICT: {**states[STRICT], "decides": False}})


def test_states_and_fingerprints_of_an_experiments_judges(court: Court) -> None:
    platform, experiment = court.world.platform, court.world.experiment
    with court.world.database.connect() as connection:
        states = judge_states(connection, platform.config, platform.models, experiment)
    assert list(states) == [STRICT]
    assert (states[STRICT]["decides"], states[STRICT]["calibrated"]) == (False, False)
    assert "has no calibration" in states[STRICT]["why"]
    prints = score_fingerprints(platform.config, platform.models, experiment)
    assert prints[STRICT] == states[STRICT]["fingerprint"]
    assert prints["squad.f1/1"] == scoring.metric_fingerprint("squad.f1/1")
