"""Models: batching, limits, budgets, usage and configuration errors. Failing endpoints: tests/faults."""

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from resources.errors import BudgetExceededError, PermanentError
from resources.model_config import ModelsFile
from resources.models import BATCH_TOKENS, Budget, Clock, Models, Usage
from tests.fake_openai import Changed, FakeOpenAI, FastClock, Status

QUESTION = [{"role": "user", "content": "a question"}]


def config(embedding: dict[str, Any] | None = None, chat: dict[str, Any] | None = None, **provider: Any) -> ModelsFile:
    return ModelsFile.model_validate(
        {
            "providers": {"openai": {"kind": "openai", **provider}, "offline": {"kind": "offline"}},
            "embedding": [
                {"name": "e", "provider": "openai", "model": "embed-1", "dimensions": 8, **(embedding or {})},
                {"name": "lexical", "provider": "offline", "model": "lexical-hash", "dimensions": 64},
            ],
            "chat": [
                {"name": "c", "provider": "openai", "model": "chat-1", **(chat or {})},
                {"name": "extractive", "provider": "offline", "model": "extractive"},
            ],
        }
    )


def models(server: FakeOpenAI, clock: Clock | None = None, **entries: Any) -> Models:
    return Models(config(**entries), environment=server.environment(), clock=clock or FastClock())


# --- batching -------------------------------------------------------------------------------------------


def test_texts_are_sent_in_batches_and_come_back_in_order() -> None:
    texts = [f"text {number}" for number in range(25)]
    with FakeOpenAI() as server:
        batch = models(server, embedding={"batch_size": 4}).embedder("e").embed(texts)
        np.testing.assert_array_equal(batch.vectors, np.stack([server.vector(text) for text in texts]))
        assert sorted(len(request.texts) for request in server.requests) == [1, 4, 4, 4, 4, 4, 4]
    assert batch.vectors.dtype == np.float32
    assert batch.usage == Usage(requests=7, input_tokens=250)


def test_a_batch_is_also_bounded_by_its_tokens() -> None:
    texts = [f"{number} " + "word " * (BATCH_TOKENS // 3) for number in range(5)]
    with FakeOpenAI() as server:
        models(server, embedding={"max_input_tokens": BATCH_TOKENS}).embedder("e").embed(texts)
        assert sorted(len(request.texts) for request in server.requests) == [1, 2, 2]


def test_equal_texts_are_sent_once() -> None:
    with FakeOpenAI() as server:
        batch = models(server).embedder("e").embed(["a", "b", "a", "a"])
        assert [request.texts for request in server.requests] == [["a", "b"]]
        np.testing.assert_array_equal(batch.vectors[[0, 2, 3]], np.stack([server.vector("a")] * 3))


def test_no_texts_cost_no_request() -> None:
    with FakeOpenAI() as server:
        batch = models(server).embedder("e").embed([])
        assert server.requests == []
    assert batch.vectors.shape == (0, 8)
    assert batch.usage == Usage()


def test_an_empty_text_is_sent_as_a_blank_because_servers_refuse_it() -> None:
    with FakeOpenAI() as server:
        models(server).embedder("e").embed([""])
        assert server.requests[0].texts == [" "]


def test_a_text_that_cannot_fit_is_refused_before_anything_is_sent() -> None:
    with FakeOpenAI() as server:
        embedder = models(server, embedding={"max_input_tokens": 10}).embedder("e")
        with pytest.raises(PermanentError, match="number 1 has 11 words, more than max_input_tokens 10"):
            embedder.embed(["short", "word " * 11])
        assert server.requests == []


def test_the_dimension_is_only_asked_for_when_configured() -> None:
    with FakeOpenAI() as server:
        models(server).embedder("e").embed(["a"])
        models(server, embedding={"send_dimensions": True}).embedder("e").embed(["a"])
        assert [request.body.get("dimensions") for request in server.requests] == [None, 8]


def test_chat_parameters_are_sent_as_they_are() -> None:
    with FakeOpenAI() as server:
        chat = models(server, chat={"parameters": {"temperature": 0, "top_k": 5}}).chat("c")
        result = chat.complete(QUESTION)
        assert server.requests[0].body == {"model": "chat-1", "messages": QUESTION, "temperature": 0, "top_k": 5}
    assert (result.text, result.model, result.finish_reason) == ("An answer. [1]", "chat-1-0001", "stop")
    assert 0 < result.latency < 60


def test_parameters_of_one_request_win_and_stay_with_it() -> None:
    with FakeOpenAI() as server:
        chat = models(server, chat={"parameters": {"temperature": 0, "max_tokens": 10}}).chat("c")
        chat.complete(QUESTION, extra={"temperature": 1, "seed": 3})
        chat.complete(QUESTION)
        first, second = (request.body for request in server.requests)
        assert (first["temperature"], first["seed"], first["max_tokens"]) == (1, 3, 10)
        assert second["temperature"] == 0
        assert "seed" not in second
        assert chat.estimate(QUESTION, extra={"max_tokens": 50}).output_tokens == 50
        with pytest.raises(PermanentError, match="must not contain 'n'"):
            chat.complete(QUESTION, extra={"n": 2})
        assert len(server.requests) == 2


def test_parameters_must_not_replace_what_is_set_here() -> None:
    with FakeOpenAI() as server:
        with pytest.raises(PermanentError, match=r"chat model 'c': parameters must not contain 'stream'"):
            models(server, chat={"parameters": {"stream": True}}).chat("c")


# --- usage, cost, budgets -------------------------------------------------------------------------------


PRICE = {"price": {"currency": "EUR", "input_per_million": 10.0, "output_per_million": 1000.0}}


def test_usage_and_cost_follow_what_the_server_reports() -> None:
    with FakeOpenAI() as server:
        result = models(server, chat=PRICE).chat("c").complete(QUESTION)
    assert replace(result.usage, cost=0.0) == Usage(1, 100, 7, 0.0, "EUR")
    assert result.usage.cost == pytest.approx(0.001 + 0.007)


def test_usage_is_estimated_when_the_server_reports_none() -> None:
    with FakeOpenAI(fault=lambda request: Changed(lambda answer: answer.pop("usage"))) as server:
        m = models(server)
        assert m.chat("c").complete(QUESTION).usage.output_tokens > 0
        assert m.embedder("e").embed(["some words here"]).usage.input_tokens > 0


def test_usages_of_different_currencies_do_not_add_up() -> None:
    assert Usage(1, 2, 3, 0.0) + Usage(1, 2, 3, 0.5, "EUR") == Usage(2, 4, 6, 0.5, "EUR")
    with pytest.raises(ValueError, match="EUR"):
        sum([Usage(cost=1.0, currency="EUR")], Usage(cost=1.0, currency="USD"))


def test_a_budget_of_money_refuses_before_the_call() -> None:
    with FakeOpenAI() as server:
        budget = Budget(money=0.02, currency="EUR")
        entry = {**PRICE, "parameters": {"max_tokens": 10}}
        chat = models(server, chat=entry).within(budget).chat("c")
        estimate = chat.estimate(QUESTION).cost
        chat.complete(QUESTION)
        assert estimate > 0.01
        assert budget.spent.cost == pytest.approx(0.008)
        chat.complete(QUESTION)
        with pytest.raises(BudgetExceededError, match=r"would cost about 0\.01.* EUR; 0\.0160 .* Nothing was sent"):
            chat.complete(QUESTION)
        assert len(server.requests) == 2


def test_a_budget_of_calls_counts_retries_and_refuses_all_batches_or_none() -> None:
    with FakeOpenAI() as server:
        budget = Budget(calls=3)
        embedder = models(server, embedding={"batch_size": 1}).within(budget).embedder("e")
        with pytest.raises(BudgetExceededError, match="budget of 3 calls"):
            embedder.embed(["a", "b", "c", "d"])
        assert server.requests == []
        server.script([Status(500), Status(500), Status(500)])
        with pytest.raises(BudgetExceededError):
            embedder.embed(["a"])
        assert len(server.requests) == 3
        assert budget.spent.requests == 3


def test_a_failed_embedding_gives_its_reserved_budget_back() -> None:
    with FakeOpenAI() as server:
        budget = Budget(calls=10)
        embedder = (
            models(server, embedding={"batch_size": 1, "limits": {"concurrency": 2}}).within(budget).embedder("e")
        )
        server.script([Status(401)] * 8)
        with pytest.raises(PermanentError):
            embedder.embed([str(number) for number in range(8)])
        sent = len(server.requests)
        assert budget.spent.requests == sent
        server.script([])
        embedder.embed([str(number) for number in range(10 - sent)])
        assert budget.spent.requests == 10


def test_a_budget_in_another_currency_refuses() -> None:
    with FakeOpenAI() as server:
        chat = models(server, chat=PRICE).within(Budget(money=1000)).chat("c")
        with pytest.raises(BudgetExceededError, match="USD but the model's price in EUR"):
            chat.complete(QUESTION)
        assert server.requests == []


def test_an_estimate_sends_nothing_and_counts_equal_texts_once() -> None:
    with FakeOpenAI() as server:
        embedder = models(server, embedding={"batch_size": 2}).embedder("e")
        assert embedder.estimate(["aaaa", "bbbb", "cccc", "aaaa"]) == Usage(2, 3)
        assert server.requests == []


# --- rate limits ----------------------------------------------------------------------------------------


class StillClock(FastClock):
    """Time passes only by sleeping."""

    def monotonic(self) -> float:
        return 1000.0 + self._offset


def times_of(clock: FastClock, m: Models, calls: int) -> list[float]:
    times = []
    for _ in range(calls):
        m.chat("c").complete(QUESTION)
        times.append(clock.monotonic() - 1000.0)
    return times


@pytest.mark.parametrize("limit", [1, 7, 24])
def test_requests_never_pass_the_limit_in_any_minute_and_use_most_of_it(limit: int) -> None:
    clock = StillClock()
    with FakeOpenAI() as server:
        times = times_of(clock, models(server, clock, chat={"limits": {"requests_per_minute": limit}}), 3 * limit)
    for begin in times:
        assert sum(begin <= at < begin + 59.999 for at in times) <= limit
    assert times[-1] <= 60 * 3.3


def test_tokens_per_minute_are_kept_even_by_requests_larger_than_the_burst() -> None:
    clock = StillClock()
    entry = {"limits": {"tokens_per_minute": 1200}, "parameters": {"max_tokens": 600}}
    with FakeOpenAI() as server:
        m = models(server, clock, chat=entry)
        tokens = sum(getattr(m.chat("c").estimate(QUESTION), name) for name in ("input_tokens", "output_tokens"))
        times = times_of(clock, m, 7)
    assert 6 * tokens / times[-1] <= 1.2 * 1200 / 60


def test_limits_are_shared_by_all_views_of_the_models() -> None:
    clock = StillClock()
    with FakeOpenAI() as server:
        first = models(server, clock, chat={"limits": {"requests_per_minute": 1}})
        first.chat("c").complete(QUESTION)
        first.within(Budget()).chat("c").complete(QUESTION)
    assert sum(clock.sleeps) == pytest.approx(60)


# --- configuration --------------------------------------------------------------------------------------


def test_a_missing_key_names_the_variable_and_the_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(PermanentError, match=r"models\.yaml: embedding model 'e': provider 'openai' .* MY_KEY"):
        Models(config(api_key_env="MY_KEY")).embedder("e")


def test_a_missing_base_url_of_ones_own_never_falls_back_to_another_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://elsewhere.invalid/v1")
    with pytest.raises(PermanentError, match="MY_URL"):
        Models(config(base_url_env="MY_URL"), environment={"OPENAI_API_KEY": "k"}).chat("c")


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"OPENAI_API_KEY": "sk-canary key"}, "OPENAI_API_KEY is not a key"),
        ({"OPENAI_API_KEY": "sk-canary-é"}, "OPENAI_API_KEY is not a key"),
        ({"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": "localhost:11434/sk-canary"}, "OPENAI_BASE_URL is not a URL"),
    ],
)
def test_odd_values_are_refused_without_being_shown(environment: dict[str, str], words: str) -> None:
    with pytest.raises(PermanentError, match=words) as caught:
        Models(config(), environment=environment).chat("c")
    assert "sk-canary" not in str(caught.value)


def test_the_environment_given_wins_and_a_trailing_newline_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "process")
    with FakeOpenAI() as server:
        Models(config(), environment={**server.environment(), "OPENAI_API_KEY": "given\n"}).chat("c").complete(QUESTION)
        assert server.requests[0].headers["authorization"] == "Bearer given"


def test_unknown_names_are_answered_with_those_that_exist() -> None:
    with pytest.raises(PermanentError, match="no chat model named 'd'; it has: c, extractive"):
        Models(config()).chat("d")
    with pytest.raises(PermanentError, match="no embedding model named 'x'; it has: e, lexical"):
        Models(config()).embedder("x")


def test_fingerprints_cover_what_changes_a_result_and_nothing_else() -> None:
    def embedding(**changes: Any) -> str:
        return Models(config(embedding=changes), environment={"OPENAI_API_KEY": "k"}).embedder("e").fingerprint

    def chat(**changes: Any) -> str:
        return Models(config(chat=changes), environment={"OPENAI_API_KEY": "k"}).chat("c").fingerprint

    same = [embedding(), embedding(batch_size=3), embedding(limits={"max_tries": 1}), embedding(**PRICE)]
    assert len(set(same)) == 1
    others = [embedding(model="x"), embedding(dimensions=9), embedding(send_dimensions=True)]
    assert len({*same, *others}) == 4
    assert chat() == chat(limits={"concurrency": 9})
    assert len({chat(), chat(model="x"), chat(parameters={"seed": 1}), chat(parameters={"seed": 2})}) == 4


def test_one_model_name_at_two_servers_is_two_models() -> None:
    environment = {"OPENAI_API_KEY": "k", "OTHER_URL": "http://127.0.0.1:9/v1"}
    providers = config().model_dump()["providers"]
    providers["other"] = {"kind": "openai", "base_url_env": "OTHER_URL"}
    settings = config().model_dump() | {"providers": providers}
    for kind, name in (("embedding", "e"), ("chat", "c")):
        here = next(item for item in settings[kind] if item["name"] == name)
        settings[kind].append({**here, "name": "there", "provider": "other"})
    models = Models(ModelsFile.model_validate(settings), environment=environment)
    assert models.embedder("e").fingerprint != models.embedder("there").fingerprint
    assert models.chat("c").fingerprint != models.chat("there").fingerprint


def test_models_are_built_once_per_name() -> None:
    m = Models(config())
    assert m.embedder("lexical") is m.embedder("lexical")
    assert m.within(Budget()).embedder("lexical") is not m.embedder("lexical")


def test_offline_models_go_through_the_same_client_and_say_that_they_are_offline() -> None:
    m = Models(config())
    batch = m.embedder("lexical").embed(["a cargo bike", "a tax form"])
    assert batch.vectors.shape == (2, 64)
    assert batch.usage.requests == 1
    assert batch.usage.cost == 0
    result = m.chat("extractive").complete(QUESTION)
    assert result.model == "extractive (offline)"
    assert m.embedder("lexical").offline
    assert m.chat("extractive").offline


def test_a_model_the_offline_provider_lacks_is_refused_with_the_one_it_has() -> None:
    file = config()
    wrong = file.model_copy(update={"embedding": [file.embedding[1].model_copy(update={"model": "lexical-hashes"})]})
    with pytest.raises(PermanentError, match="has no model 'lexical-hashes'; it has 'lexical-hash'"):
        Models(wrong).embedder("lexical")


def test_clock_sleeps_for_real() -> None:
    clock = Clock()
    began = time.monotonic()
    clock.sleep(0.01)
    assert time.monotonic() - began >= 0.01
    assert 0 <= clock.random() < 1
