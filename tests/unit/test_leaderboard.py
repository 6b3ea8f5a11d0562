"""The leaderboard: averages without undefined values, halves kept apart, comparisons paired with the champion."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from assets.evaluation.dataset import Question
from assets.evaluation.metrics.base import METRICS, GoldSpan, score
from assets.experiments import report
from assets.experiments.leaderboard import (
    GROUNDEDNESS,
    HEADLINE,
    build,
    check_decision_metric,
    decision_scores,
    measure,
    upgraded,
)
from assets.experiments.planning import Plan, Trial
from assets.experiments.recommendation import recommend
from assets.experiments.records import TrialOutcome, to_record
from assets.experiments.scope import Scope
from assets.experiments.scores import Scores
from resources.config import load_config
from resources.errors import PermanentError
from resources.experiment_config import ExperimentConfig
from resources.model_config import Energy
from resources.models import Models
from resources.vector_index import SearchHit, SearchResult
from tests.unit.experiment_world import EXPERIMENT, files, variant

Answers = dict[str, Sequence[str | None]]  # {variant: one answer per question; None: refused, "!": failed}
QUESTIONS = [f"question {number}" for number in range(20)]


def _question(name: str, answer: str | None, tags: dict[str, Any] | None = None) -> Question:
    return Question(
        question_id=name, question=name, answer=answer, answerable=answer is not None, split="dev", tags=tags or {},
        status="active", reason=None, fingerprint=name, gold=(GoldSpan(1, 0, 10),) if answer else (),
    )  # fmt: skip


def _outcome(answer: str | None, tokens: int, latency: float) -> TrialOutcome:
    failed = answer == "!"
    return TrialOutcome(
        status="failed" if failed else "ok",
        error="TransientError" if failed else None,
        tries=1,
        answer="" if failed or answer is None else answer,
        refused=answer is None,
        citations=(),
        usage={} if failed else {"input_tokens": tokens, "output_tokens": 1, "cost": tokens / 1e6, "currency": "EUR"},
        latency=None if failed else latency,
        generation=None if failed else "g",
    )


@pytest.fixture
def board(make_data_dir: Callable[..., Path]) -> Callable[..., dict[str, Any]]:
    """Build a leaderboard of scripted answers; half of the questions are answerable, with the answer ``right``."""
    config = load_config(make_data_dir(**files()))

    def make(
        answers: Answers,
        *,
        champion: str = "old",
        tokens: dict[str, int] | None = None,
        answerable: int = 10,
        tags: Callable[[int], dict[str, Any]] = lambda number: {},
        energy: Energy | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        chat = [model.model_copy(update={"energy": energy}) for model in config.models.chat]
        models = Models(config.models.model_copy(update={"chat": chat}))
        experiment = ExperimentConfig(**{**EXPERIMENT, **options})
        count = len(next(iter(answers.values())))
        questions = tuple(
            _question(f"q{number:03}", "right" if number < answerable else None, tags(number))
            for number in range(count)
        )
        scope = Scope("facts", 3, "dev", questions, ("stale-one",), {"main": 7})
        hit = SearchHit(1, 1.0, 1, 1, "docs", "a.md", "a", 0, 0, 10, "right thing", (), 1, None)
        variants = [variant(name, prompt=name) for name in answers]
        trials, outcomes = [], {}
        for one in variants:
            for question, answer in zip(questions, answers[one.prompt.name], strict=True):
                key = f"{one.prompt.name}/{question.question_id}"
                trials.append(Trial(key, one, question, SearchResult("main", 7, "vector", (hit,), 0.001), key))
                outcomes[key] = _outcome(answer, (tokens or {}).get(one.prompt.name, 100), 0.01)
        plan = Plan(tuple(trials), 0, 0.0)
        columns = score([to_record(trial, outcomes[trial.fingerprint]) for trial in trials])
        values = {
            trial.fingerprint: {metric: columns[metric][place] for metric in METRICS}
            for place, trial in enumerate(trials)
        }
        measured = measure(variants, scope, plan, outcomes, Scores(values, 0))
        result = build(
            experiment, scope, measured, champion=variant(champion).name,
            prompt_versions=dict.fromkeys(answers, 1), models=models,
        )  # fmt: skip
        return {**result, "settings": "s"}

    return make


def _row(board: dict[str, Any], name: str) -> dict[str, Any]:
    return next(row for row in board["rows"] if row["prompt"] == name)


GOOD: list[str | None] = ["right"] * 10 + [None] * 10
BAD: list[str | None] = ["wrong"] * 20


def test_rows_are_ranked_and_compared_with_the_champion(board: Callable[..., dict[str, Any]]) -> None:
    result = board({"old": BAD, "new": GOOD})
    assert [row["prompt"] for row in result["rows"]] == ["new", "old"]
    new, old = result["rows"]
    assert (new["decision"]["estimate"], old["decision"]["estimate"]) == (1, 0)
    assert new["difference"]["estimate"] == 1
    assert new["p"] == pytest.approx(1 / 1001)
    assert (old["difference"], old["p"], old["champion"]) == (None, None, True)


def test_answerable_and_unanswerable_questions_are_averaged_apart(board: Callable[..., dict[str, Any]]) -> None:
    row = _row(board({"old": ["right"] * 20}), "old")
    quality = row["metrics"]["genaiops.answer_quality/1"]
    assert (quality["answerable"], quality["unanswerable"]) == (1, 0)
    assert row["decision"]["estimate"] == 0.5


def test_energy_is_what_the_model_states_or_nothing(board: Callable[..., dict[str, Any]]) -> None:
    stated = Energy(input_wh_per_million=50, output_wh_per_million=600, source="a measurement")
    shown = board({"old": [*GOOD[:19], "!"]}, tokens={"old": 2000}, energy=stated)
    row = _row(shown, "old")
    assert row["energy_wh_per_1000"] == pytest.approx(2000 * 50 / 1000 + 1 * 600 / 1000), "of the answers there are"
    assert row["energy_source"] == "extractive: a measurement"
    assert "Wh per 1000" in report.page(1, shown, recommend(shown), b"")
    plain = board({"old": GOOD})
    assert "Wh per 1000" not in report.page(1, plain, recommend(plain), b"")
    silent = _row(plain, "old")
    assert (silent["energy_wh_per_1000"], silent["energy_source"]) == (None, None)


def test_undefined_values_are_counted_not_averaged(board: Callable[..., dict[str, Any]]) -> None:
    """A refusal has no groundedness; the others keep their mean."""
    row = _row(board({"old": ["right thing"] * 4 + [None] * 6 + [None] * 10}), "old")
    grounded = row["metrics"][GROUNDEDNESS]
    assert grounded["answerable_defined"] == 4
    assert grounded["answerable"] > 0.8  # 0.36 if the six refusals counted as 0
    assert grounded["unanswerable"] is None


def test_failed_trials_count_against_the_variant(board: Callable[..., dict[str, Any]]) -> None:
    row = _row(board({"old": ["right"] * 5 + ["!"] * 5 + [None] * 5 + ["!"] * 5}), "old")
    assert (row["n"], row["failed"]) == (20, 10)
    assert row["decision"]["estimate"] == 0.5
    assert (row["refusal"]["precision"], row["refusal"]["recall"]) == (0.5, 0.5)


def test_refusal_precision_recall_and_f1(board: Callable[..., dict[str, Any]]) -> None:
    refusal = _row(board({"old": ["right"] * 8 + [None] * 2 + [None] * 4 + ["made up"] * 6}), "old")["refusal"]
    assert refusal["precision"] == pytest.approx(4 / 6)
    assert refusal["recall"] == pytest.approx(0.4)
    assert refusal["f1"] == pytest.approx(0.5)
    assert refusal["low"] < 0.5 < refusal["high"]


def test_identical_variants_differ_by_nothing(board: Callable[..., dict[str, Any]]) -> None:
    row = _row(board({"old": GOOD, "twin": GOOD}), "twin")
    assert row["difference"] == {"estimate": 0, "low": 0, "high": 0}
    assert (row["p"], row["p_adjusted"]) == (1, 1)


def test_p_values_are_adjusted_for_all_comparisons(board: Callable[..., dict[str, Any]]) -> None:
    slightly = [*GOOD[:5], *(["wrong"] * 5), *([None] * 10)]
    alone = _row(board({"old": slightly, "new": GOOD}), "new")
    crowd = board({"old": slightly, "new": GOOD, **{f"x{number}": slightly for number in range(9)}})
    assert alone["p_adjusted"] == alone["p"] == pytest.approx(2 / 2**5)
    assert _row(crowd, "new")["p_adjusted"] == pytest.approx(10 * 2 / 2**5)
    assert crowd["comparisons"] == 10


def test_equal_means_are_ranked_by_cost(board: Callable[..., dict[str, Any]]) -> None:
    result = board({"old": BAD, "dear": GOOD, "cheap": GOOD}, tokens={"dear": 900, "cheap": 90})
    assert [row["prompt"] for row in result["rows"]] == ["cheap", "dear", "old"]
    assert result["rows"][1]["cost"] == pytest.approx(900 * 20 / 1e6)
    assert result["rows"][1]["currency"] == "EUR"


def test_every_row_says_what_it_was_measured_on(board: Callable[..., dict[str, Any]]) -> None:
    result = board({"old": GOOD})
    row = result["rows"][0]
    assert (result["dataset_version"], row["snapshot"], row["offline"]) == (3, 7, True)
    assert row["fingerprint"] == variant("old", prompt="old").fingerprint
    assert row["label"] == "extractive (offline stand-in)"
    assert result["questions"] == {"answerable": 10, "unanswerable": 10, "compared": 20, "groups": 20, "stale": 1}


def test_metric_of_answerable_questions_decides_on_those_only(board: Callable[..., dict[str, Any]]) -> None:
    result = board({"old": GOOD, "new": BAD}, decision_metric="genaiops.recall/2")
    assert result["questions"]["compared"] == 10


@pytest.mark.parametrize("metric", [GROUNDEDNESS, "genaiops.refusal_f1/1", "genaiops.qualty/1"])
def test_metric_without_a_value_per_question_cannot_decide(metric: str) -> None:
    with pytest.raises(PermanentError, match=r"decision_metric .* allowed: .*genaiops.answer_quality/1"):
        check_decision_metric(ExperimentConfig(**{**EXPERIMENT, "decision_metric": metric}))


def test_decision_metric_of_an_earlier_version_is_told_its_name() -> None:
    with pytest.raises(PermanentError, match=r"it is called genaiops.recall@5/2 now"):
        check_decision_metric(ExperimentConfig(**{**EXPERIMENT, "decision_metric": "genaiops.recall@5/1"}))


def test_default_decision_metric_can_decide() -> None:
    check_decision_metric(ExperimentConfig(**EXPERIMENT))


def test_half_defined_decision_scores_are_refused() -> None:
    class One:
        def __init__(self, *values: float | None) -> None:
            self.values = [{"m": value} for value in values]

    with pytest.raises(ValueError, match="undefined for some variants"):
        decision_scores([One(1.0, 0.5), One(1.0, None)], "m")  # type: ignore[list-item]
    assert decision_scores([One(1.0, None), One(0.5, None)], "m").tolist() == [[1.0, 0.5]]  # type: ignore[list-item]


def test_page_is_self_contained_and_escaped(board: Callable[..., dict[str, Any]]) -> None:
    result = board({"old": BAD, "new": GOOD})
    result["experiment"] = "<script>alert(1)</script>"
    recommendation = recommend(result)
    png = report.figure(result)
    assert png.startswith(b"\x89PNG")
    page = report.page(5, result, recommendation, png)
    assert "<script" not in page
    assert "http" not in page
    assert "&lt;script&gt;" in page
    assert "Promote main/new/vector/k1/extractive" in page
    assert "data:image/png;base64," in page


def test_groups_of_questions_weigh_as_one(board: Callable[..., dict[str, Any]]) -> None:
    """Twenty questions about four paragraphs are four observations: too few for what twenty would show."""
    paragraphs: Callable[[int], dict[str, Any]] = lambda number: {"paragraph": number // 5}  # noqa: E731
    alone = _row(board({"old": BAD, "new": GOOD}), "new")
    result = board({"old": BAD, "new": GOOD}, tags=paragraphs, cluster="paragraph")
    together = _row(result, "new")
    assert (result["questions"]["groups"], result["cluster"]) == (4, "paragraph")
    assert together["difference"]["estimate"] == alone["difference"]["estimate"]
    assert alone["p"] < 0.05
    assert together["p"] == pytest.approx(2 / 2**4)


def test_margins_are_tested_against_champion_and_best(board: Callable[..., dict[str, Any]]) -> None:
    many, worse = ["right"] * 200, ["right"] * 160 + ["wrong"] * 40
    result = board(
        {"old": worse, "new": many, "twin": many}, answerable=200, margins={"non_inferiority": 0.1, "equivalence": 0.05}
    )
    new = _row(result, "new")
    assert new["non_inferiority"]["p_adjusted"] < 0.001
    assert new["equivalence"]["p_adjusted"] == 1  # better by more than the margin
    best, second, old = result["rows"]
    assert best["to_best"] is None
    assert second["to_best"]["non_inferiority"]["p_adjusted"] < 0.05
    assert old["to_best"]["non_inferiority"]["p_adjusted"] > 0.5
    assert (old["non_inferiority"], old["equivalence"]) == (None, None)
    assert _row(board({"old": GOOD, "new": GOOD}), "new")["non_inferiority"] is None


def test_twins_are_called_equal_once_there_are_questions_enough(board: Callable[..., dict[str, Any]]) -> None:
    """With 20 equal answers a loss of 5 points cannot be ruled out, with 200 it can."""
    few = recommend(board({"old": GOOD, "twin": GOOD}, margins={"equivalence": 0.05}))
    many = recommend(board({"old": GOOD * 10, "twin": GOOD * 10}, answerable=200, margins={"equivalence": 0.05}))
    assert (few["verdict"], many["verdict"]) == ("keep", "equal")


def test_guards_are_judged_on_their_slice(board: Callable[..., dict[str, Any]]) -> None:
    """A variant that is better on the whole, and worse on the questions of one kind."""
    kinds: Callable[[int], dict[str, Any]] = lambda number: {"type": "rare" if number < 40 else "common"}  # noqa: E731
    old = ["right"] * 40 + ["wrong"] * 160
    new = ["wrong"] * 40 + ["right"] * 160
    guards = [
        {"metric": "squad.f1/1", "tag": "type=rare", "maximum_drop": 0.2},
        {"metric": "squad.f1/1", "tag": "type=common", "minimum": 0.8},
        {"metric": "squad.f1/1", "tag": "type=absent", "minimum": 0.8},
    ]
    result = board({"old": old, "new": new}, answerable=200, tags=kinds, guards=guards)
    assert [guard["state"] for guard in _row(result, "new")["guards"]] == ["broken", "held", "open"]
    assert [guard["questions"] for guard in _row(result, "new")["guards"]] == [40, 160, 0]
    assert [guard["state"] for guard in _row(result, "old")["guards"]] == ["held", "broken", "open"]
    recommendation = recommend(result)
    assert (recommendation["verdict"], recommendation["recommended"]) == ("keep", None)
    assert "does not pass its guards" in recommendation["text"]


def test_guard_on_too_few_questions_stays_open(board: Callable[..., dict[str, Any]]) -> None:
    rows = board(
        {"old": GOOD[:15], "new": GOOD[:15]}, guards=[{"metric": "genaiops.answer_quality/1", "minimum": 0.01}]
    )
    assert {guard["state"] for row in rows["rows"] for guard in row["guards"]} == {"open"}


@pytest.mark.parametrize("metric", ["genaiops.refusal_f1/1", "squad.f/1"])
def test_guard_needs_a_metric_with_a_mean(metric: str) -> None:
    options = {**EXPERIMENT, "guards": [{"metric": metric, "minimum": 0.5}]}
    with pytest.raises(PermanentError, match=r"guards\[0\].metric: .* allowed: .*squad.f1/1"):
        check_decision_metric(ExperimentConfig(**options))


def test_slices_have_a_family_of_their_own_and_a_least_size(board: Callable[..., dict[str, Any]]) -> None:
    tags: Callable[[int], dict[str, Any]] = lambda number: {  # noqa: E731
        "topic": "big" if number < 25 else "half" if number < 50 else "small", "kind": ["a", "b"] if number % 2 else ["a"],
    }  # fmt: skip
    answers = {"old": ["wrong"] * 60, "new": [*(["right"] * 25), *(["wrong"] * 35)], "x": ["wrong"] * 60}
    result = board(answers, answerable=60, tags=tags, slices=["topic", "kind"])
    found = {(entry["tag"], entry["value"]): entry for entry in result["slices"]}
    assert {key: entry["questions"] for key, entry in found.items()} == {
        ("topic", "big"): 25, ("topic", "half"): 25, ("topic", "small"): 10, ("kind", "a"): 60, ("kind", "b"): 30,
    }  # fmt: skip
    assert found["topic", "small"]["variants"] == {}
    new = variant("new", prompt="new").name
    big = found["topic", "big"]["variants"][new]
    assert big["difference"]["estimate"] == 1
    # of four slices and two challengers only kind=b, with twelve differences and an exact p, lies below it
    assert big["p_adjusted"] == pytest.approx(7 * big["p"])
    assert found["topic", "half"]["variants"][new]["p"] == 1
    assert "p" not in found["topic", "big"]["variants"][variant("old", prompt="old").name]
    assert _row(result, "new")["p_adjusted"] == pytest.approx(2 * _row(result, "new")["p"])  # slices are no part of it
    png = report.slices_figure(result)
    assert png is not None
    assert png.startswith(b"\x89PNG")
    assert "topic=small" in report.page(5, result, recommend(result), b"")


def test_group_without_enough_members_is_no_slice(board: Callable[..., dict[str, Any]]) -> None:
    """Thirty questions about three paragraphs are three observations."""
    tags: Callable[[int], dict[str, Any]] = lambda number: {"topic": "all", "paragraph": number // 10}  # noqa: E731
    result = board(
        {"old": ["right"] * 30, "new": ["wrong"] * 30}, answerable=30, tags=tags, slices=["topic"], cluster="paragraph"
    )
    assert [(entry["groups"], entry["variants"]) for entry in result["slices"]] == [(3, {})]


def test_variant_beaten_in_everything_is_named(board: Callable[..., dict[str, Any]]) -> None:
    result = board({"old": BAD, "dear": GOOD, "cheap": GOOD}, tokens={"dear": 900, "cheap": 90})
    beaten = {row["prompt"]: row["dominated_by"] for row in result["rows"]}
    cheap = variant("cheap", prompt="cheap").name
    assert beaten == {"cheap": None, "dear": cheap, "old": cheap}
    assert report.front_figure(result).startswith(b"\x89PNG")


def test_failed_trials_do_not_make_a_variant_look_cheap(board: Callable[..., dict[str, Any]]) -> None:
    row = _row(board({"old": ["right"] * 5 + ["!"] * 15}), "old")
    assert row["cost_per_1000"] == pytest.approx(1000 * 100 / 1e6)
    assert row["tokens_per_answer"] == pytest.approx(101)


def test_result_of_the_first_schema_is_still_shown(board: Callable[..., dict[str, Any]]) -> None:
    """Rows and recommendations on record have none of the later keys, and metrics in earlier versions."""
    result = board({"old": BAD, "new": GOOD})
    recommendation = recommend(result)
    later = {"schema", "cluster", "margins", "slices"}
    new_keys = {
        "difference_spread", "non_inferiority", "equivalence", "to_best", "dominated_by", "guards", "latency_p95",
        "cost_per_1000", "tokens_per_answer",
    }  # fmt: skip
    first = {key: value for key, value in result.items() if key not in later}
    first["questions"] = {key: value for key, value in first["questions"].items() if key != "groups"}
    first["rows"] = [
        {
            **{key: value for key, value in row.items() if key not in new_keys},
            "p_against_best": 1.0,
            "metrics": {key.replace("squad.f1/1", "squad.f1/0"): value for key, value in row["metrics"].items()},
        }
        for row in result["rows"]
    ]
    said = {key: recommendation[key] for key in ("verdict", "recommended", "text", "alternatives", "power", "caveats")}
    page = report.page(5, first, {**said, "diagnosis": [], "confirmation": None}, report.figure(first))
    assert "Promote main/new/vector/k1/extractive" in page
    assert "squad.f1/0" in page
    assert report.front_figure(first).startswith(b"\x89PNG")
    assert report.slices_figure(first) is None
    assert upgraded(result) is result


def test_headline_metrics_are_in_the_catalogue() -> None:
    assert set(HEADLINE) <= set(METRICS)
