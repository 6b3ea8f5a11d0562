"""The preview of an experiment against what a provider then bills, whose tokenizer is not ours."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from zlib import crc32

import dagster as dg
import pytest

from assets.experiments.spending import (
    ExperimentPreview,
    Item,
    Range,
    pilot,
    preview_experiment,
    refuse_beyond_budget,
    worst_tries,
)
from pipelines.experiment_preview import describe, show
from resources.errors import BudgetExceededError, PermanentError, TransientError
from resources.offline_models import count_tokens
from resources.platform import Platform
from tests import task_world
from tests.conftest import MODELS
from tests.experiment_support import files, load, write_documents
from tests.fake_openai import Changed, FakeOpenAI, FastClock, Fault, Request, Status
from tests.lifecycle import build_dataset, run_experiment

PRICE = {"input_per_million": 2.0, "output_per_million": 8.0}
#: Their tokens for one of ours.
RATIO = 1.15
BASELINE = {"index": "main", "prompt": "unguarded", "search_mode": "hybrid", "k": 1, "model": "paid"}


def tokens(text: str) -> int:
    """Another tokenizer: 15 % more than ours, give or take some by text."""
    return max(1, round(count_tokens(text) * (RATIO + (crc32(text.encode()) % 100 - 50) / 1000)))


def billed(request: Request) -> Fault | None:
    """Bills a chat request by that tokenizer."""
    if not request.path.endswith("/chat/completions"):
        return None
    sent = sum(tokens(message["content"]) + 3 for message in request.body["messages"])

    def change(answer: dict[str, Any]) -> None:
        received = tokens(answer["choices"][0]["message"]["content"])
        answer["usage"] = {"prompt_tokens": sent, "completion_tokens": received, "total_tokens": sent + received}

    return Changed(change)


def said(body: dict[str, Any]) -> str:
    """Some sentences of the prompt, how many depends on it; JSON where a step of retrieval asks for it."""
    system, user = body["messages"][0]["content"], body["messages"][-1]["content"]
    if "wordings" in system:
        return json.dumps({"queries": [f"{user.split()[-2]} in kilograms", "how heavy it is"]})
    if "Grade every passage" in system:
        return json.dumps({"grades": dict.fromkeys(sorted(set(re.findall(r"\[(\d+)\]", user))), 5)})
    sentences = re.findall(r"The \w+ weighs[^.]*\.", user)
    more = "It is what the documents say about it. " * (crc32(user.encode()) % 4)
    return f"{more}{' '.join(sentences)} [1]" if "words" not in system else f"{(sentences or ['No.'])[0]} [1]"


@pytest.fixture
def server() -> Iterator[FakeOpenAI]:
    with FakeOpenAI(answer=said, fault=billed) as server:
        yield server


@pytest.fixture
def make(make_platform: Callable[..., Platform], tmp_path: Path, server: FakeOpenAI) -> Callable[..., Platform]:
    """A platform whose experiment asks the server; documents, index and questions are there."""

    def make(models: dict[str, Any] | None = None, index: dict[str, Any] | None = None, **experiment: Any) -> Platform:
        write_documents(tmp_path / "docs")
        paid = {"provider": "openai", "model": "gpt-test", "price": PRICE}
        known: dict[str, Any] = {
            **MODELS,
            "providers": {**MODELS["providers"], "openai": {"kind": "openai"}},
            "chat": [*MODELS["chat"], {"name": "paid", **paid}, {"name": "other", **paid, "model": "gpt-other"}],
            **(models or {}),
        }
        grid = {
            "index": ["main"],
            "prompt": ["guarded", "unguarded"],
            "search_mode": ["hybrid"],
            "k": [1, 2],
            "model": ["paid"],
        }
        written = files(**{"grid": grid, "baseline": BASELINE, **experiment})
        if index:
            written["indexes/main.yaml"] = {"name": "main", "embedder": "lexical", **index}
        platform = make_platform(**written, **{"models.yaml": known})
        platform.environment.update(server.environment())
        load(platform, dg.DagsterInstance.ephemeral())
        server.requests.clear()
        return platform

    return make


def run(platform: Platform) -> dict[str, Any]:
    return run_experiment(platform, "catalogue", dg.DagsterInstance.ephemeral())["scored_variants"]


def changed(platform: Platform, **settings: Any) -> Platform:
    experiment = platform.config.experiments["catalogue"]
    if "k" in settings:
        settings["grid"] = experiment.grid.model_copy(update={"k": settings.pop("k")})
    config = platform.config.model_copy(update={"experiments": {"catalogue": experiment.model_copy(update=settings)}})
    return replace(platform, config=config)


def paid(platform: Platform) -> dict[str, float]:
    """What the answers to the questions that are compared have cost so far, as billed."""
    with platform.database.connect() as connection:
        row = connection.execute(
            """SELECT count(*), coalesce(sum((usage ->> 'input_tokens')::int + (usage ->> 'output_tokens')::int), 0),
                      coalesce(sum((usage ->> 'cost')::float), 0)
               FROM generation WHERE fingerprint IN (
                   SELECT generation FROM trial JOIN evaluation_question USING (dataset, question_id) WHERE split = 'dev')"""
        ).fetchone()
    assert row is not None
    return dict(zip(("calls", "tokens", "cost"), map(float, row), strict=True))


def errors(found: ExperimentPreview, before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """Errors of the preview as shares of what was then spent."""
    guessed = {
        "calls": found.calls,
        "tokens": found.tokens.likely,
        "cost": sum(amount.likely for amount in found.money.values()),
    }
    return {key: abs(guessed[key] / (after[key] - before[key]) - 1) for key in guessed}


def test_preview_with_history_is_within_a_tenth_of_the_bill(make: Callable[..., Platform], server: FakeOpenAI) -> None:
    platform = make()
    run(platform)
    more = changed(platform, k=[1, 2, 3, 5])
    server.requests.clear()
    found = preview_experiment(more, "catalogue")
    assert not server.requests
    (answers,) = [item for item in found.items if item.kind == "answers"]
    # hits of k 3 and 5 are new; those of k 1 and 2 are on record
    assert (found.trials, found.on_record, answers.needed, answers.calls) == (160, 80, 160, 80)
    assert "past calls of the same prompt" in answers.basis
    before = paid(platform)
    run(more)
    wrong = errors(found, before, paid(platform))
    assert max(wrong.values()) < 0.10, wrong
    assert wrong["calls"] == 0
    assert answers.money.low < answers.money.likely < answers.money.high < 1.3 * answers.money.low


def test_preview_after_a_pilot_is_within_a_tenth_of_the_bill(make: Callable[..., Platform], server: FakeOpenAI) -> None:
    platform = make()
    blind = preview_experiment(platform, "catalogue")
    assert not server.requests
    work = pilot(platform, "catalogue", 22, "pilot")
    assert (work.run, work.failed, len(server.requests)) == (22, 0, 22)
    found = preview_experiment(platform, "catalogue")
    assert (found.trials, found.on_record, found.calls) == (80, 22, 58)
    spent = paid(platform)
    told = run(platform)
    assert told["trials_reused"] == 22  # nothing of the pilot is wasted
    wrong = errors(found, spent, paid(platform))
    assert max(wrong.values()) < 0.10, wrong
    assert wrong["calls"] == 0
    (before,), (after,) = ([item for item in one.items if item.kind == "answers"] for one in (blind, found))
    assert "the reference answers" in before.basis
    width = [(item.money.high - item.money.low) / item.money.likely for item in (before, after)]
    assert width[1] < width[0] / 3
    assert blind.money["USD"].low < paid(platform)["cost"] < blind.money["USD"].high


def test_what_is_on_record_costs_nothing(make: Callable[..., Platform], server: FakeOpenAI) -> None:
    platform = make()
    run(platform)
    server.requests.clear()
    found = preview_experiment(platform, "catalogue")
    assert (found.calls, found.tokens.likely, found.on_record) == (0, 0.0, 80)
    assert all(amount.likely == 0 for amount in found.money.values())  # another pair might be confirmed
    assert found.cached == 80
    assert not server.requests


def test_translation_reranking_and_paid_vectors_are_items_of_their_own(
    make: Callable[..., Platform], server: FakeOpenAI
) -> None:
    retrieval = {
        "translate": {"multi_query": 2, "model": "other"},
        "rerank": {"kind": "model", "model": "other", "candidates": 10},
    }
    platform = make(index={"retrieval": retrieval})  # fmt: skip
    found = preview_experiment(platform, "catalogue")
    assert not server.requests
    by_name = {item.what: item for item in found.items if item.certain}
    assert set(by_name) == {"answers of paid", "query translation by other", "reranking by other"}
    assert by_name["query translation by other"].calls == 20  # a question is translated once for both k
    told = run(platform)
    asked = [request.body["messages"][0]["content"] for request in server.requests]
    translated = sum("wordings" in one for one in asked)
    confirmed = [item for item in found.items if item.kind == "confirmation"]
    assert translated == 20 + sum(item.calls for item in confirmed if "translation" in item.what)
    graded = sum("Grade every passage" in one for one in asked)
    assert abs(by_name["reranking by other"].calls - graded) <= 24  # the confirmation's
    assert errors(found, dict.fromkeys(paid(platform), 0.0), paid(platform))["calls"] < 2
    assert found.money["USD"].low < told["cost"] < found.money["USD"].high


def test_questions_embedded_by_a_paid_model_are_counted_and_not_sent(
    make: Callable[..., Platform], server: FakeOpenAI
) -> None:
    small = {"name": "small", "provider": "openai", "model": "embed", "dimensions": 8, "batch_size": 8,
             "price": {"input_per_million": 0.1}}  # fmt: skip
    platform = make(models={"embedding": [*MODELS["embedding"], small]}, index={"embedder": "small"})
    found = preview_experiment(platform, "catalogue")
    assert not server.requests
    (vectors,) = [item for item in found.items if item.kind == "question vectors"]
    assert (vectors.needed, vectors.calls) == (20, 3)
    assert 0 < vectors.money.likely < 1e-4
    answers = next(item for item in found.items if item.kind == "answers")
    assert answers.calls == 80
    run(platform)
    assert sum(request.path.endswith("/embeddings") for request in server.requests) == 3 + 2  # and the confirmation's


def test_confirmation_is_an_upper_bound_of_its_own(make: Callable[..., Platform]) -> None:
    found = preview_experiment(make(), "catalogue")
    (confirmation,) = [item for item in found.items if item.kind == "confirmation"]
    assert (confirmation.calls, confirmation.certain) == (24, False)
    certain = [item for item in found.items if item.certain]
    assert found.calls == sum(item.calls for item in certain)
    assert found.money["USD"].likely == pytest.approx(sum(item.money.likely for item in certain))
    assert found.money["USD"].high == pytest.approx(sum(item.money.high for item in found.items))
    data = json.loads(json.dumps(found.to_json()))
    assert data["calls"] == found.calls
    assert data["money"]["USD"]["likely"] == pytest.approx(found.money["USD"].likely)


def test_strategy_asks_a_part_and_at_most_the_grid(make: Callable[..., Platform]) -> None:
    platform = make(search={"strategy": "bayes", "trials": 2}, grid={
        "index": ["main"], "prompt": ["guarded", "unguarded"], "search_mode": ["hybrid"], "k": [1, 2, 3, 4], "model": ["paid"],
    })  # fmt: skip
    found = preview_experiment(platform, "catalogue")
    answers = next(item for item in found.items if item.kind == "answers")
    assert answers.calls == 160  # the whole grid
    assert answers.share.likely == pytest.approx(2 / 8)
    assert found.calls == 40
    assert found.money["USD"].likely == pytest.approx(answers.money.likely / 4)


def test_halving_is_previewed_by_the_rounds_it_then_asks(make: Callable[..., Platform]) -> None:
    grid = {"index": ["main"], "prompt": ["guarded", "unguarded"], "search_mode": ["hybrid"], "k": [1, 2, 3, 4], "model": ["paid"]}  # fmt: skip
    search = {"strategy": "halving", "minimum_questions": 10, "eta": 2, "finalists": 2, "retrieval_keep": 1}
    platform = make(search=search, grid=grid)
    answers = next(item for item in preview_experiment(platform, "catalogue").items if item.kind == "answers")
    assert answers.share == Range(*[(8 * 10 + 3 * 10) / (8 * 20)] * 3)  # 8 variants on 10 questions, 3 on all 20
    asked = run(platform)["search"]["trials"]
    assert asked["asked"] / asked["grid"] == answers.share.likely


def test_offline_models_cost_nothing(make_platform: Callable[..., Platform], tmp_path: Path) -> None:
    write_documents(tmp_path / "docs")
    platform = make_platform(**files())
    instance = dg.DagsterInstance.ephemeral()
    load(platform, instance)
    found = preview_experiment(platform, "catalogue")
    assert [(item.what, item.needed, item.cached, item.calls) for item in found.items] == [
        ("answers of extractive (offline)", 80, 0, 0)
    ]
    assert (found.calls, found.money) == (0, {})
    run_experiment(platform, "catalogue", instance)
    assert preview_experiment(platform, "catalogue").items[0].cached == 80


def test_run_that_would_pass_its_budget_is_refused_up_front(make: Callable[..., Platform], server: FakeOpenAI) -> None:
    platform = make(budget=0.01)
    with pytest.raises(dg.Failure) as refused:
        run(platform)
    told = str(refused.value.description)
    assert "would likely cost" in told
    assert "genaiops evaluate catalogue --preview" in told
    assert "raise the budget" in told
    assert not server.requests
    enough = changed(platform, budget=5.0)
    assert run(enough)["trials_run"] >= 80
    # what is on record costs nothing: the small budget is enough now
    with platform.database.lease("experiment:catalogue", "test") as lease:
        assert refuse_beyond_budget(platform, "catalogue", lease) is not None
        assert refuse_beyond_budget(changed(platform, budget=None), "catalogue", lease) is None
        with pytest.raises(BudgetExceededError):
            refuse_beyond_budget(changed(platform, k=[7, 8]), "catalogue", lease)


def test_judges_are_an_item_of_their_own(make: Callable[..., Platform], server: FakeOpenAI) -> None:
    judge = {"name": "grounded", "measures": "groundedness", "model": "other", "draws": 2}
    platform = make()
    from resources.judge_config import JudgeConfig

    config = platform.config.model_copy(update={"judges": {"grounded": JudgeConfig(**judge)}})
    judged = changed(replace(platform, config=config), judges=["grounded"])
    found = preview_experiment(judged, "catalogue")
    (item,) = [item for item in found.items if item.kind == "judges"]
    # two draws; both orders where the lists are longer than one; a refusal is not judged
    assert 40 * 2 <= item.calls <= 40 * 2 * 2
    assert item.money.likely > 0
    assert item.what == "judge grounded, asking other"
    assert not server.requests


def test_worst_case_of_requests_is_bounded_and_told(make: Callable[..., Platform], server: FakeOpenAI) -> None:
    limits = {"max_tries": 2}
    down = {"name": "paid", "provider": "openai", "model": "gpt-test", "price": PRICE, "limits": limits}
    platform = make(models={"chat": [*MODELS["chat"], down]}, maximum_failed_share=1.0)
    assert worst_tries(platform, platform.config.experiments["catalogue"]) == (3 * 2, 9 * 2)
    assert worst_tries(platform, platform.config.experiments["catalogue"], steps=3) == (18, 54)
    server._fault = lambda request: Status(500)
    platform.models._clock = FastClock()
    requests = []
    for _ in range(5):
        told = run(platform)
        requests.append(len(server.requests))
    assert requests == [80 * 6, 80 * 12, 80 * 18, 80 * 18, 80 * 18]  # 80 trials, then all of them are given up
    assert (told["trials_given_up"], told["trials_failed"]) == (80, 0)
    assert preview_experiment(platform, "catalogue").worst_tries == (6, 18)


def test_pilot_needs_a_trial_and_a_known_experiment(
    make: Callable[..., Platform], monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = make()
    with pytest.raises(ValueError, match="at least one"):
        pilot(platform, "catalogue", 0, "pilot")
    with pytest.raises(PermanentError, match="no experiment"):
        preview_experiment(platform, "another")
    monkeypatch.setattr("assets.experiments.spending.LEASE_SECONDS", 0.2)
    with platform.database.lease("experiment:catalogue", "somebody"), pytest.raises(TransientError, match="somebody"):
        preview_experiment(platform, "catalogue")


def test_preview_is_shown(make: Callable[..., Platform], capsys: pytest.CaptureFixture[str]) -> None:
    platform = make()
    show(platform, ["catalogue"], pilot=4, yes=True, as_json=True)
    said = capsys.readouterr()
    assert "pilot of 4 trials" in said.err
    assert json.loads(said.out)[0]["on_record"] == 4
    show(changed(platform, budget=0.0001), ["catalogue"], pilot=None, yes=False, as_json=False)
    told = capsys.readouterr().out
    assert "4 variants on 20 questions: 80 trials, 4 on record" in told
    assert "it would be refused" in told
    assert "only if a variant is recommended" in told


def test_ranges_and_totals(capsys: pytest.CaptureFixture[str]) -> None:
    assert Range(1, 2, 3) + Range(1, 1, 1) == Range(2, 3, 4)
    assert Range(1, 2, 3).times(Range(0.5, 1, 2)) == Range(0.5, 2, 6)
    item = Item("a", "answers", "m", 10, 4, 6, Range(1, 2, 3), Range(1, 1, 1), Range(1, 2, 3), "EUR", 6.0)
    maybe = replace(item, certain=False)
    found = ExperimentPreview("e", 1, 10, 10, 4, (item, maybe), None, (15, 45))
    assert (found.calls, found.cached, found.seconds) == (6, 4, 6.0)
    assert found.tokens == Range(2, 3, 8)
    assert found.money == {"EUR": Range(1, 2, 6)}
    describe(found)
    assert "Likely 6 calls, 3 tokens (2 to 8) and 2.0000 EUR (1.0000 to 6.0000)" in capsys.readouterr().out


def test_task_without_documents_is_previewed_and_found_again(make_platform: Callable[..., Platform]) -> None:
    platform = make_platform(**task_world.triage())
    instance = dg.DagsterInstance.ephemeral()
    build_dataset(platform, "tickets", instance)
    found = preview_experiment(platform, "triage")
    assert found.trials == found.variants * found.questions > 0
    assert found.calls == 0
    assert {item.kind for item in found.items} == {"answers"}
    first = run_experiment(platform, "triage", instance)["scored_variants"]
    assert first["sharing"]["searches"] == {"needed": 0, "made": 0, "this_run": 0, "ratio": None}
    again = run_experiment(platform, "triage", instance)["scored_variants"]
    assert "seconds_found" in again
    assert (again["recommendation"], again["trials_run"]) == (first["recommendation"], 0)
