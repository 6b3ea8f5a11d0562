"""Judges through Dagster: calibrated, informing, deciding, or kept from it."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from click.testing import CliRunner

from assets.evaluation.judging.assets import build_assets as build_judging
from assets.evaluation.judging.labels import import_labels
from assets.experiments import judge_scores, spending, verdicts
from assets.experiments.assets import build_assets as build_experiments
from assets.experiments.champion import promote
from assets.governance.erasure import find_traces, forget
from pipelines.commands import comparing
from pipelines.commands import judges as commands
from resources.config import load_config
from resources.errors import PermanentError
from resources.platform import Platform
from tests.experiment_support import PRODUCTS, USER, files, load, sentence, write_documents
from tests.fake_openai import FakeOpenAI
from tests.judge_world import ScriptedJudge, Shown, fair, judge, models
from tests.lifecycle import run_experiment

BEST, CHAMPION = "main/guarded/hybrid/k1/extractive", "main/unguarded/hybrid/k1/extractive"
#: Labelled answers: a claim as the passage has it is grounded, one with another number is not.
LABELS = [
    {
        "id": f"{product}-{good}",
        "group": product,
        "question": f"How many kilograms does the {product} weigh?",
        "context": [sentence(product), sentence(PRODUCTS[(at + 1) % len(PRODUCTS)])],
        "answer": sentence(product if good else PRODUCTS[(at + 5) % len(PRODUCTS)]) + (" It is heavy." if good else ""),
        "labels": [0.5 if good else 0.0],
        "reference": sentence(product),
    }
    for at, product in enumerate(PRODUCTS)
    for good in (True, False)
]
CALIBRATION = {
    "labels": "labels.jsonl",
    "minimum_items": 20,
    "minimum_kappa": 0.6,
    "minimum_auc": 0.8,
    "resamples": 200,
}


def lines(items: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(item) + "\n" for item in items)


def calibrate(platform: Platform, name: str, instance: dg.DagsterInstance | None = None) -> Any:
    return dg.materialize(
        build_judging(platform.config),
        partition_key=name,
        resources={"platform": platform},
        instance=instance or dg.DagsterInstance.ephemeral(),
        raise_on_error=False,
    )


def told(result: Any) -> dict[str, Any]:
    (event,) = result.get_asset_materialization_events()
    return {label: getattr(value, "value", value) for label, value in event.materialization.metadata.items()}


def passed(result: Any) -> dict[str, bool]:
    return {one.check_name: one.passed for one in result.get_asset_check_evaluations()}


@pytest.fixture
def script() -> ScriptedJudge:
    return ScriptedJudge()


@pytest.fixture
def endpoint(script: ScriptedJudge) -> Iterator[FakeOpenAI]:
    with FakeOpenAI(answer=script) as server:
        yield server


@pytest.fixture
def make(make_platform: Callable[..., Platform], endpoint: FakeOpenAI) -> Callable[..., Platform]:
    """A platform with judges; ``judges`` are their files by name."""

    def build(judges: dict[str, dict[str, Any]], labels: list[dict[str, Any]] = LABELS, **further: Any) -> Platform:
        written = {f"judges/{name}.yaml": {**one, "name": name} for name, one in judges.items()}
        content = {"models.yaml": models(), "labels.jsonl": lines(labels), **written, **further}
        platform = make_platform(**content)
        platform.environment.update(endpoint.environment())
        return platform

    return build


def strict(**settings: Any) -> dict[str, Any]:
    return {**judge("groundedness"), "calibration": CALIBRATION, **settings}


# --- calibration -----------------------------------------------------------------------------------------------


def test_a_good_judge_passes_and_is_not_asked_twice(make: Callable[..., Platform], script: ScriptedJudge) -> None:
    platform = make({"strict": strict()})
    first = calibrate(platform, "strict")
    assert first.success
    assert passed(first) == {"judge_agrees": True, "judge_unbiased": True, "judge_consistent": True}
    facts = told(first)
    assert (facts["kappa"], facts["auc"], facts["bias"], facts["may_decide"]) == (1.0, 1.0, 0.0, True)
    assert facts["requests"] == script.calls > 0
    asked = script.calls
    again = told(calibrate(platform, "strict"))
    assert (again["reused"], again["requests"], script.calls) == (True, 0, asked)


def test_biased_inconsistent_and_position_biased_judges_fail_their_checks(
    make: Callable[..., Platform], script: ScriptedJudge
) -> None:
    def lenient(shown: Shown) -> dict[str, Any]:
        said = fair(shown)
        return {"claims": [{**claim, "verdict": "entailed"} for claim in said["claims"]]}

    def moody(shown: Shown) -> dict[str, Any]:
        said = fair(shown)
        other = {"entailed": "unsupported", "unsupported": "entailed"}
        moved = shown.body["seed"] % 2 == 0
        return {
            "claims": [{**one, "verdict": other[one["verdict"]] if moved else one["verdict"]} for one in said["claims"]]
        }

    def first_place(shown: Shown) -> dict[str, Any]:
        holders = _words_of(shown.parts("Passages")[0])
        return {
            "claims": [
                {"number": n, "verdict": "entailed" if _words_of(one) <= holders else "unsupported", "passages": []}
                for n, one in enumerate(shown.parts("Claims of the answer"), 1)
            ]
        }

    platform = make(
        {
            "lenient": strict(),
            "moody": strict(draws=3, instructions="Say so."),
            "places": strict(instructions="Judge it."),
        }
    )
    script.mind = lenient
    result = calibrate(platform, "lenient")
    assert not result.success  # judge_agrees blocks
    assert passed(result) == {"judge_agrees": False, "judge_unbiased": False, "judge_consistent": True}
    assert told(result)["bias"] == pytest.approx(0.75)
    script.mind = moody
    result = calibrate(platform, "moody")
    assert passed(result)["judge_consistent"] is False
    assert told(result)["changed_by_draw"] == 1.0
    script.mind = first_place
    result = calibrate(platform, "places")
    assert passed(result)["judge_consistent"] is False
    assert told(result)["changed_by_order"] > 0.2
    assert told(result)["may_decide"] is False


def _words_of(text: str) -> set[str]:
    return set(text.lower().replace(".", "").split())


def test_malformed_answers_are_counted_and_fail_the_judge(make: Callable[..., Platform], script: ScriptedJudge) -> None:
    platform = make({"strict": strict()})
    script.mind = lambda shown: "no" if "drum" in shown.user or "oven" in shown.user else fair(shown)
    result = calibrate(platform, "strict")
    facts = told(result)
    assert facts["failed"] > 2
    assert facts["dagster/row_count"] == len(LABELS) - facts["failed"]
    assert passed(result)["judge_agrees"] is False
    script.mind, asked = fair, script.calls
    again = calibrate(platform, "strict")  # those are asked about again, and no others
    assert (told(again)["failed"], passed(again)["judge_agrees"]) == (0, True)
    assert 0 < script.calls - asked <= 2 * facts["failed"]
    script.mind = lambda shown: "no"
    platform = make({"strict": strict(instructions="Another judge.")})
    hopeless = calibrate(platform, "strict")
    assert not hopeless.success
    assert not hopeless.get_asset_materialization_events()


def test_a_preference_judge_that_likes_the_first_place_is_found_out(
    make: Callable[..., Platform], script: ScriptedJudge
) -> None:
    pairs = [
        {
            "id": product, "question": "How heavy is it?", "reference": sentence(product),
            "answer": sentence(product) if at % 2 else "I do not know that.",
            "answer2": "I do not know that." if at % 2 else sentence(product),
            "labels": [-1.0 if at % 2 else 1.0, -0.5 if at % 2 else 1.0],
        }
        for at, product in enumerate(PRODUCTS)
    ]  # fmt: skip
    better = {**strict(measures="preference"), "calibration": {**CALIBRATION, "minimum_items": 10}}
    platform = make({"good": better, "first": {**better, "instructions": "Which one?"}}, pairs)
    result = calibrate(platform, "good")
    assert passed(result) == {"judge_agrees": True, "judge_unbiased": True, "judge_consistent": True}
    assert told(result)["two_people"]["same"] == 1.0
    script.mind = lambda shown: {"reason": "r", "better": "first"}
    result = calibrate(platform, "first")
    assert passed(result) == {"judge_agrees": False, "judge_unbiased": False, "judge_consistent": False}
    assert (told(result)["changed_by_order"], told(result)["kappa"]) == (1.0, 0.0)


def test_offline_estimators_print_the_figures_of_the_docs(
    make: Callable[..., Platform], shared_data: Path, tmp_path: Path
) -> None:
    def estimator(measures: str, metric: str, **limits: Any) -> dict[str, Any]:
        return {"measures": measures, "estimator": metric, "calibration": {"labels": f"{measures}.jsonl", **limits}}

    platform = make(
        {
            "offline-groundedness": estimator("groundedness", "genaiops.groundedness_lexical/2"),
            "offline-correctness": estimator(
                "correctness", "genaiops.correctness_lexical/1", minimum_kappa=0.35, minimum_auc=0.75,
                minimum_spearman=0.5, maximum_bias=0.15,
            ),
        }
    )  # fmt: skip
    data = platform.config.data_dir
    import_labels("begin", shared_data / "begin-dev", data / "groundedness.jsonl")
    import_labels("ragchecker", shared_data / "ragchecker-human-pref", data / "correctness.jsonl")
    result = calibrate(platform, "offline-groundedness")
    facts = told(result)
    assert facts["auc"] == pytest.approx(0.957, abs=0.005)
    assert facts["kappa"] == pytest.approx(0.772, abs=0.02)
    assert (facts["dagster/row_count"], facts["undefined"], facts["model"]) == (764, 3, "none (offline estimator)")
    assert passed(result) == {"judge_agrees": True, "judge_unbiased": True, "judge_consistent": True}
    result = calibrate(platform, "offline-correctness")
    assert told(result)["spearman"] == pytest.approx(0.603, abs=0.002)
    assert told(result)["two_people"]["same"] == pytest.approx(188 / 280)
    assert passed(result)["judge_agrees"] is True


# --- in an experiment ------------------------------------------------------------------------------------------


@pytest.fixture
def instance() -> dg.DagsterInstance:
    return dg.DagsterInstance.ephemeral()


Loaded = Callable[..., Platform]


@pytest.fixture
def loaded(make: Callable[..., Platform], tmp_path: Path, instance: dg.DagsterInstance) -> Loaded:
    """Documents, index and questions are loaded; the experiment has judges and has not run."""

    def build(judges: dict[str, dict[str, Any]], **experiment: Any) -> Platform:
        write_documents(tmp_path / "docs")
        platform = make(judges, **files(judges=list(judges), **experiment))
        load(platform, instance)
        return platform

    return build


def scored(platform: Platform, instance: dg.DagsterInstance) -> dict[str, Any]:
    return run_experiment(platform, "catalogue", instance)["scored_variants"]


def rows(platform: Platform, query: str) -> list[Any]:
    with platform.database.connect() as connection:
        return connection.execute(query).fetchall()  # type: ignore[call-overload]


def edited(platform: Platform, name: str, **settings: Any) -> Platform:
    """The platform after an edit of a judge's file."""
    path = platform.config.data_dir / "judges" / f"{name}.yaml"
    return configured(platform, **{f"judges/{name}.yaml": {**yaml.safe_load(path.read_text("utf-8")), **settings}})


def test_a_judge_informs_with_verdicts_and_is_asked_once(
    loaded: Loaded, instance: dg.DagsterInstance, script: ScriptedJudge
) -> None:
    platform = loaded({"strict": strict()})
    first = scored(platform, instance)
    assert first["verdict"] == "promote"  # what decides is no judge
    assert any("judge.strict/1 informs and decides nothing" in line for line in first["caveats"].splitlines())
    asked = script.calls
    assert asked > 0
    (shown,) = first["judges"].records
    assert (shown.data["judge"], shown.data["may_decide"], shown.data["without_verdict"]) == ("strict", False, 0)
    assert shown.data["changed_by_order"] == 0.0
    ((board,),) = rows(platform, "SELECT leaderboard FROM experiment_result")
    state = board["judges"]["judge.strict/1"]
    assert (state["failed"], state["unasked"], state["calibrated"], state["decides"]) == (0, 0, False, False)
    assert board["rows"][0]["metrics"]["judge.strict/1"]["answerable_defined"] > 0
    found = rows(
        platform,
        """SELECT v.metric, v.verdicts, t.answer, s.value, v.generations FROM trial_verdict v
           JOIN trial t ON t.fingerprint = v.trial JOIN trial_score s ON (s.trial, s.metric) = (v.trial, v.metric)
           WHERE v.verdicts ? 'items' AND NOT t.refused""",
    )
    assert {metric for metric, *_ in found} == {"judge.strict/1", "genaiops.groundedness_lexical/2"}
    for metric, said, answer, value, generations in found:
        claims = said["items"]
        assert all(0 <= claim["start"] < claim["end"] <= len(answer) for claim in claims)
        assert not {"text", "reason"} & set(claims[0])
        if metric == "judge.strict/1":
            assert value == sum(claim["verdict"] == "entailed" for claim in claims) / len(claims)
            assert len(generations) == said["calls"] > 0
            assert all(1 <= number <= 2 for claim in claims for number in claim["passages"])
    again = scored(platform, instance)
    assert (again["new_result"], again["scores_computed"], script.calls) == (False, 0, asked)
    page = Path(first["report"]).read_text(encoding="utf-8")
    assert "Groundedness (judge strict)" in page
    assert "it was never calibrated" in page


def test_an_edited_judge_recomputes_exactly_its_scores(
    loaded: Loaded, instance: dg.DagsterInstance, script: ScriptedJudge
) -> None:
    platform = loaded({"strict": strict(), "style": {**judge("fluency"), "swap": False}})
    scored(platform, instance)
    kept = "SELECT metric, md5(string_agg(fingerprint || trial, '' ORDER BY trial)) FROM trial_score GROUP BY 1"
    before, asked = dict(rows(platform, kept)), script.calls
    for change in ({"instructions": "Say it again."}, {"model": "other-judge"}, {"draws": 2}):
        platform = edited(platform, "strict", **change)
        told_again = scored(platform, instance)
        assert (told_again["scores_computed"], told_again["trials_run"]) == (80, 0), change
        after = dict(rows(platform, kept))
        assert {metric for metric in after if after[metric] != before[metric]} == {"judge.strict/1"}, change
        assert script.calls > asked
        before, asked = after, script.calls


def test_an_uncalibrated_judge_cannot_decide(
    loaded: Loaded, instance: dg.DagsterInstance, script: ScriptedJudge
) -> None:
    """The better variant is seen, and nothing is promoted by it until exactly this judge has agreed with people."""
    right = {**strict(measures="correctness"), "calibration": {**CALIBRATION, "maximum_bias": 0.6}}
    platform = loaded({"right": right}, decision_metric="judge.right/1")
    open_ = scored(platform, instance)
    assert open_["verdict"] == "inform only"
    assert "nothing is recommended" in open_["recommendation"]
    assert "genaiops judges calibrate right" in open_["recommendation"]
    ((board,),) = rows(platform, "SELECT leaderboard FROM experiment_result")
    assert board["decision_metric"] == "judge.right/1"
    assert rows(platform, "SELECT passed FROM evidence WHERE check_name = 'judges_calibrated'") == [(False,)]
    assert rows(
        platform, "SELECT count(*) FROM trial JOIN evaluation_question USING (question_id) WHERE split = 'test'"
    ) == [(0,)]
    best = board["rows"][0]["variant"]
    with pytest.raises(PermanentError) as refused:
        promote(platform, "catalogue", best, USER, "tried")
    for reason in ("does not recommend it", "judges_calibrated failed", "not calibrated: judge.right/1"):
        assert reason in str(refused.value)
    assert not rows(platform, "SELECT 1 FROM champion")


def test_a_calibrated_judge_decides_until_it_or_its_labels_are_edited(
    loaded: Loaded, instance: dg.DagsterInstance, script: ScriptedJudge
) -> None:
    script.mind = lambda shown: {"reason": "r", "rating": 5 if len(shown.text("Answer").split()) < 4 else 1}
    brief = {
        **judge("custom"), "criteria": "Is it brief?", "sees": ["question", "reference"], "draws": 2,
        "calibration": CALIBRATION,
    }  # fmt: skip
    labels = [
        {**item, "answer": answer, "id": f"{item['id']}-{good}", "labels": [float(good)]}
        for item in LABELS[::2]
        for answer, good in (("12 kilograms", True), (item["answer"], False))
    ]
    platform = loaded({"brief": brief}, decision_metric="judge.brief/1")
    platform = configured(platform, **{"labels.jsonl": lines(labels)})
    assert scored(platform, instance)["verdict"] == "inform only"
    result = calibrate(platform, "brief", instance)
    assert passed(result) == {"judge_agrees": True, "judge_unbiased": True, "judge_consistent": True}
    decided = scored(platform, instance)
    assert (decided["verdict"], decided["new_result"]) == ("promote", True)
    assert "is confirmed on 6 held-back questions" in decided["recommendation"]
    ((board,),) = rows(platform, "SELECT leaderboard FROM experiment_result ORDER BY result_id DESC LIMIT 1")
    assert board["judges"]["judge.brief/1"]["calibrated"] is True
    best = next(row["variant"] for row in board["rows"] if not row["champion"])
    path = f"judges/{'brief'}.yaml"
    with pytest.raises(PermanentError, match="judge brief was changed since the result"):
        promote(edited(platform, "brief", instructions="Rate it otherwise."), "catalogue", best, USER, "tried")
    limits = {**CALIBRATION, "minimum_items": 1000}
    with pytest.raises(PermanentError, match="has not passed judge_agrees"):
        promote(
            configured(platform, **{path: {**brief, "name": "brief", "calibration": limits}}),
            "catalogue",
            best,
            USER,
            "",
        )
    platform = configured(platform, **{path: {**brief, "name": "brief"}, "labels.jsonl": lines(labels[:-1])})
    with pytest.raises(PermanentError, match="its labels were changed since it was calibrated"):
        promote(platform, "catalogue", best, USER, "tried")
    (platform.config.data_dir / "labels.jsonl").unlink()
    with pytest.raises(PermanentError, match=r"label file labels\.jsonl is missing"):
        promote(platform, "catalogue", best, USER, "tried")
    platform = configured(platform, **{"labels.jsonl": lines(labels)})
    assert promote(platform, "catalogue", best, USER, "proven").proven


def test_a_judge_that_says_nothing_usable_is_counted_never_averaged(
    loaded: Loaded, instance: dg.DagsterInstance, script: ScriptedJudge, monkeypatch: pytest.MonkeyPatch
) -> None:
    script.mind = lambda shown: "no" if "The drum" in shown.user and "The engine" not in shown.user else fair(shown)
    platform = loaded({"strict": strict()}, maximum_failed_share=0.2)
    scored(platform, instance)
    ((board,),) = rows(platform, "SELECT leaderboard FROM experiment_result")
    state = board["judges"]["judge.strict/1"]
    assert state["failed"] > 0
    assert state["errors"] == {"ModelResponseError": state["failed"]}
    assert not rows(
        platform,
        """SELECT 1 FROM trial_score s JOIN trial_verdict v USING (trial, metric) WHERE v.error IS NOT NULL""",
    )
    asked = script.calls
    for _ in range(judge_scores.MAXIMUM_ATTEMPTS):
        scored(platform, instance)
    tried = script.calls - asked
    assert tried > 0
    given_up = script.calls
    scored(platform, instance)
    assert script.calls == given_up  # asked in vain often enough


def test_a_budget_refuses_judges_and_nothing_is_lost(
    loaded: Loaded, instance: dg.DagsterInstance, script: ScriptedJudge, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = loaded({"strict": strict()})
    priced = configured(platform, **{"models.yaml": models(price=100.0)})
    run = materialized(within(priced, 0.5), instance)
    assert not run.success
    assert (script.calls, passed(run)) == (0, {})  # refused before anything is sent
    monkeypatch.setattr(spending, "refuse_beyond_budget", lambda *anything: None)  # as if the estimate had been too low
    run = materialized(within(priced, 0.5), instance)
    assert not run.success
    assert passed(run)["judges_answered"] is False
    asked = script.calls
    assert asked > 0
    assert not rows(platform, "SELECT 1 FROM experiment_result")
    assert materialized(within(priced, 100.0), instance).success
    assert script.calls > asked
    kept = rows(platform, "SELECT count(*) FROM generation WHERE messages::text LIKE '%You judge the work%'")
    assert kept == [(script.calls,)]  # nothing was asked twice


def configured(platform: Platform, **changed: Any) -> Platform:
    """The platform after an edit of its files."""
    for name, content in changed.items():
        path = platform.config.data_dir / name
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
    other = replace(platform, config=load_config(platform.config.data_dir))
    other.environment.update(platform.environment)
    return other


def within(platform: Platform, budget: float) -> Platform:
    path = platform.config.data_dir / "experiments" / "catalogue.yaml"
    return configured(
        platform, **{"experiments/catalogue.yaml": {**yaml.safe_load(path.read_text("utf-8")), "budget": budget}}
    )


def materialized(platform: Platform, instance: dg.DagsterInstance) -> Any:
    return dg.materialize(
        build_experiments(platform.config),
        partition_key="catalogue",
        resources={"platform": platform},
        instance=instance,
        raise_on_error=False,
    )


def test_erasing_a_document_takes_what_judges_were_shown(
    loaded: Loaded, instance: dg.DagsterInstance, script: ScriptedJudge
) -> None:
    platform = loaded({"strict": strict()})
    scored(platform, instance)
    erased = forget(platform, document="docs/drum.md", by=USER)
    assert erased.proof["trial_verdict"] > 0
    assert not find_traces(platform, sentence("drum"))
    assert not rows(platform, "SELECT 1 FROM generation WHERE messages::text LIKE '%The drum weighs%'")
    assert rows(platform, "SELECT count(*) > 0 FROM trial_verdict") == [(True,)]


def test_compare_asks_a_preference_judge_and_erasure_takes_its_calls(
    loaded: Loaded, instance: dg.DagsterInstance, script: ScriptedJudge, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = loaded({"strict": strict()})
    scored(platform, instance)
    platform = configured(platform, **{"judges/pairs.yaml": {**judge("preference"), "name": "pairs"}})
    monkeypatch.setattr(comparing, "open_platform", lambda: platform)
    script.mind = lambda shown: {
        "reason": "r",
        "better": "second" if "shade" in shown.text("First answer") else "first",
    }
    before = script.calls

    def run(*arguments: str) -> Any:
        return CliRunner().invoke(comparing.compare, ["catalogue", CHAMPION, BEST, *arguments], catch_exceptions=False)

    done = run("--judge", "pairs")
    assert done.exit_code == 0
    assert "Judge pairs prefers the second answer on 20 questions, the first on 0" in done.output
    assert "sign test p = 0.0000" in done.output
    assert "It informs only: judges/pairs.yaml has no calibration" in done.output
    page = Path(done.output.strip().splitlines()[-1]).read_text(encoding="utf-8")
    assert "judge prefers: second" in page
    asked = script.calls
    assert asked > before
    run("--judge", "pairs")
    assert script.calls == asked
    with pytest.raises(PermanentError, match="no judge 'strict' that measures preference; there are: pairs"):
        run("--judge", "strict")
    calls = "SELECT generations FROM trial_verdict WHERE metric = 'judge.pairs/1'"
    linked = {call for (one,) in rows(platform, calls) for call in one}
    forget(platform, document="docs/drum.md", by=USER)
    kept = {key for (key,) in rows(platform, "SELECT fingerprint FROM generation")}
    assert 2 <= len(linked - kept) < len(linked)  # both orders of the pair about the drum, and where it was found
    assert not find_traces(platform, sentence("drum"))


def test_a_judge_that_may_be_asked_again_is_asked_by_the_next_run(
    loaded: Loaded, instance: dg.DagsterInstance, script: ScriptedJudge
) -> None:
    script.mind = lambda shown: "no" if "The drum" in shown.user and "The engine" not in shown.user else fair(shown)
    platform = loaded({"strict": strict()}, maximum_failed_share=0.2)
    for _ in range(4):
        scored(platform, instance)
    script.mind = fair
    with platform.database.connect() as connection:
        assert verdicts.try_again(connection, "strict")
    asked = script.calls
    scored(platform, instance)
    assert script.calls > asked
    ((board,),) = rows(platform, "SELECT leaderboard FROM experiment_result ORDER BY result_id DESC LIMIT 1")
    assert board["judges"]["judge.strict/1"]["failed"] == 0


def test_commands_list_import_and_retry(
    make: Callable[..., Platform], shared_data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    platform = make({"strict": strict(), "free": judge("fluency")})
    monkeypatch.setattr(commands, "open_platform", lambda: platform)

    def run(*arguments: str) -> Any:
        return CliRunner().invoke(commands.judges, list(arguments), catch_exceptions=False)

    calibrate(platform, "strict")
    listed = run("list").output
    assert "strict  judge.strict/1  groundedness by judge-model  [may decide]" in listed
    assert "kappa 1.000 [1.000, 1.000]" in listed
    assert "free  judge.free/1  fluency by judge-model  [informs only]" in listed
    found = {one["judge"]: one for one in json.loads(run("list", "--json").output)}
    assert (found["strict"]["may_decide"], found["free"]["agreement"]) == (True, None)
    target = tmp_path / "begin.jsonl"
    assert "767 labelled items written" in run("import", "begin", str(shared_data / "begin-dev"), str(target)).output
    assert len(target.read_text(encoding="utf-8").splitlines()) == 767
    assert "No judge failed on any trial." in run("retry", "strict").output
    assert "there is no judge 'strikt'" in run("retry", "strikt").output
    monkeypatch.setattr(platform, "environment", {})
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    platform.__dict__.pop("models", None)
    assert "[informs only]" in run("list").output  # a key that is missing on this machine is said, not raised
