"""Model endpoints that fail: a real HTTP server plays the faults, resources/models.py must answer for them."""

import logging
import traceback
from email.utils import formatdate
from typing import Any

import numpy as np
import pytest

from resources.errors import GenaiopsError, ModelResponseError, PermanentError, TransientError
from resources.model_config import ModelsFile
from resources.models import LONGEST_PAUSE, Chat, Clock, Embedder, Models
from tests.fake_openai import (
    Changed,
    Component,
    Dimensions,
    FakeOpenAI,
    FastClock,
    Fault,
    FloatLists,
    HangUp,
    Html,
    Missing,
    RateLimited,
    Raw,
    Request,
    Shuffled,
    Slow,
    Status,
    Trickle,
    Zeros,
)

KEY = "sk-canary-0123456789abcdef"


@pytest.fixture
def clock() -> FastClock:
    return FastClock()


def models_of(server: FakeOpenAI, clock: Clock, key: str = KEY, **limits: Any) -> Models:
    entry = {"provider": "openai", "limits": {"max_tries": 3, "timeout_seconds": 5, **limits}}
    config = {
        "providers": {"openai": {"kind": "openai"}},
        "embedding": [{"name": "e", "model": "embed-1", "dimensions": server.dimensions, "batch_size": 2, **entry}],
        "chat": [{"name": "c", "model": "chat-1", **entry}],
    }
    return Models(ModelsFile.model_validate(config), environment=server.environment(key), clock=clock)


def embedder_of(server: FakeOpenAI, clock: Clock, **limits: Any) -> Embedder:
    return models_of(server, clock, **limits).embedder("e")


def chat_of(server: FakeOpenAI, clock: Clock, **limits: Any) -> Chat:
    return models_of(server, clock, **limits).chat("c")


def ask(chat: Chat) -> str:
    return chat.complete([{"role": "user", "content": "a question"}]).text


def assert_right(server: FakeOpenAI, texts: list[str], vectors: np.ndarray) -> None:
    np.testing.assert_array_equal(vectors, np.stack([server.vector(text) for text in texts]))


# --- trouble that passes --------------------------------------------------------------------------------


def test_retry_after_in_seconds_is_honoured(clock: FastClock) -> None:
    with FakeOpenAI() as server:
        server.script([RateLimited(after="7")])
        batch = embedder_of(server, clock).embed(["a", "b"])
        assert_right(server, ["a", "b"], batch.vectors)
        assert len(server.requests) == batch.usage.requests == 2
    assert 7 <= sum(clock.sleeps) < 8.5


def test_retry_after_as_a_date_is_honoured(clock: FastClock) -> None:
    with FakeOpenAI() as server:
        server.script([RateLimited(after=formatdate(clock.time() + 30, usegmt=True))])
        embedder_of(server, clock).embed(["a"])
    assert 28 <= sum(clock.sleeps) < 32


def test_one_rate_limit_holds_every_thread_back(clock: FastClock) -> None:
    with FakeOpenAI() as server:
        server.script([RateLimited(after="20")])
        models = models_of(server, clock, concurrency=1)
        ask(models.chat("c"))
        assert sum(clock.sleeps) >= 20
        clock.sleeps.clear()
        ask(models.chat("c"))
    assert sum(clock.sleeps) == 0


def test_a_pause_longer_than_we_wait_is_reported_at_once(clock: FastClock) -> None:
    with FakeOpenAI() as server:
        server.script([RateLimited(after=str(int(LONGEST_PAUSE) + 1))])
        with pytest.raises(GenaiopsError, match="asks for a pause of 301 s"):
            ask(chat_of(server, clock))
        assert len(server.requests) == 1
    assert clock.sleeps == []


def test_used_up_quota_is_not_retried_although_it_is_a_429(clock: FastClock) -> None:
    with FakeOpenAI() as server:
        server.script([RateLimited(code="insufficient_quota")])
        with pytest.raises(PermanentError, match="insufficient_quota"):
            ask(chat_of(server, clock))
        assert len(server.requests) == 1


@pytest.mark.parametrize("fault", [Status(500), Status(503), Status(408), HangUp(), Html(), Raw(b"{")])
def test_passing_trouble_is_retried(clock: FastClock, fault: Fault) -> None:
    with FakeOpenAI() as server:
        server.script([fault])
        models = models_of(server, clock)
        assert_right(server, ["a"], models.embedder("e").embed(["a"]).vectors)
        assert len(server.requests) == 2
        server.script([fault])
        assert ask(models.chat("c")) == "An answer. [1]"


def test_waits_grow_with_each_try_and_have_full_jitter(clock: FastClock) -> None:
    with FakeOpenAI(fault=lambda request: Status(500)) as server:
        with pytest.raises(TransientError):
            ask(chat_of(server, clock, max_tries=5))
    assert clock.sleeps == [0.25, 0.5, 1.0, 2.0]


def test_lasting_errors_end_after_the_allowed_tries_and_name_the_model(clock: FastClock) -> None:
    with FakeOpenAI(fault=lambda request: Status(500)) as server:
        with pytest.raises(TransientError, match=r"embedding model 'e' \(embed-1\): HTTP 500.*gave up after 3 tries"):
            embedder_of(server, clock).embed(["a"])
        assert len(server.requests) == 3


@pytest.mark.parametrize("fault", [Slow(1.0), Trickle(0.02)])
def test_a_slow_answer_times_out_even_when_bytes_keep_coming(clock: FastClock, fault: Fault) -> None:
    with FakeOpenAI(fault=lambda request: fault) as server:
        with pytest.raises(TransientError, match=r"no complete answer within 0\.2 s; gave up after 2 tries"):
            embedder_of(server, clock, timeout_seconds=0.2, max_tries=2).embed(["a"])
        assert len(server.requests) == 2


def test_a_refused_connection_is_retried_and_reported(clock: FastClock) -> None:
    with FakeOpenAI() as server:
        embedder = embedder_of(server, clock)
    with pytest.raises(TransientError, match=r"no connection \(ConnectError\).*gave up after 3 tries"):
        embedder.embed(["a"])
    assert len(clock.sleeps) == 2


# --- trouble that stays -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "words"), [(400, "HTTP 400"), (401, "key was refused"), (403, "key was refused"), (404, "not found")]
)
def test_refusals_are_not_retried(clock: FastClock, status: int, words: str) -> None:
    with FakeOpenAI(fault=lambda request: Status(status)) as server:
        models = models_of(server, clock)
        with pytest.raises(PermanentError, match=words):
            models.embedder("e").embed(["a"])
        with pytest.raises(PermanentError, match=words):
            ask(models.chat("c"))
        assert len(server.requests) == 2
    assert clock.sleeps == []


# --- answers that cannot be used --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Missing(), "1 vectors for 2 texts"),
        (Dimensions(5), r"shape \(5,\) instead of 8 dimensions"),
        (Component(float("nan")), "NaN or infinity"),
        (Component(float("inf")), "NaN or infinity"),
        (Zeros(), "all zeros"),
        (Changed(lambda answer: answer["data"][0].update(index=1)), "indices"),
        (Changed(lambda answer: answer["data"][0].pop("index")), "indices"),
        (Changed(lambda answer: answer["data"][0].update(embedding="???")), "cannot be decoded"),
        (Changed(lambda answer: answer["data"][0].update(embedding=[None] * 8)), "NaN or infinity|cannot be decoded"),
        (Changed(lambda answer: answer["data"][0].update(embedding=[[1.0]] * 8)), "shape"),
        (Changed(lambda answer: answer["data"][0].update(embedding=[1e300] * 8)), "NaN or infinity"),
        (Changed(lambda answer: answer.pop("data")), "no list 'data'"),
        (Raw(b"[1, 2]"), "no list 'data'"),
        (Raw(b'{"data": [NaN'), "not JSON"),
        (Html(), r"not JSON \(text/html\)"),
    ],
)
def test_unusable_vectors_are_retried_then_reported(clock: FastClock, fault: Fault, words: str) -> None:
    with FakeOpenAI(fault=lambda request: fault) as server:
        with pytest.raises(ModelResponseError, match=rf"embedding model 'e' \(embed-1\).*({words}).*after 3 tries"):
            embedder_of(server, clock).embed(["a", "b"])
        assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Changed(lambda answer: answer["choices"].clear()), "no choices"),
        (Changed(lambda answer: answer["choices"][0].pop("message")), "no message"),
        (Changed(lambda answer: answer["choices"][0]["message"].update(content=" \n")), "no text"),
        (
            Changed(lambda answer: answer["choices"][0]["message"].update(content=None)),
            r"no text \(finish reason stop\)",
        ),
        (Html(), r"not JSON \(text/html\)"),
        (Raw(b'"a string"'), "no choices"),
    ],
)
def test_unusable_chat_answers_are_retried_then_reported(clock: FastClock, fault: Fault, words: str) -> None:
    with FakeOpenAI(fault=lambda request: fault) as server:
        with pytest.raises(ModelResponseError, match=rf"chat model 'c' \(chat-1\).*({words}).*after 3 tries"):
            ask(chat_of(server, clock))
        assert len(server.requests) == 3


def test_vectors_are_put_in_order_by_index(clock: FastClock) -> None:
    texts = ["a", "b", "c", "d", "e"]
    with FakeOpenAI(fault=lambda request: Shuffled()) as server:
        assert_right(server, texts, embedder_of(server, clock).embed(texts).vectors)
        assert len(server.requests) == 3


def test_float_lists_are_understood(clock: FastClock) -> None:
    with FakeOpenAI(fault=lambda request: FloatLists()) as server:
        assert_right(server, ["a", "b", "c"], embedder_of(server, clock).embed(["a", "b", "c"]).vectors)


def test_only_the_failed_batch_is_sent_again(clock: FastClock) -> None:
    failed: list[Request] = []

    def fault(request: Request) -> Fault | None:
        if "c" in request.texts and len(failed) < 2:
            failed.append(request)
            return Status(500)
        return None

    texts = ["a", "b", "c", "d", "e"]
    with FakeOpenAI(fault=fault) as server:
        assert_right(server, texts, embedder_of(server, clock).embed(texts).vectors)
        sent = sorted(tuple(request.texts) for request in server.requests)
    assert sent == [("a", "b"), ("c", "d"), ("c", "d"), ("c", "d"), ("e",)]


def test_after_a_permanent_error_nothing_more_is_sent(clock: FastClock) -> None:
    with FakeOpenAI(fault=lambda request: Status(401)) as server:
        with pytest.raises(PermanentError):
            embedder_of(server, clock, concurrency=2).embed([str(number) for number in range(100)])
        assert len(server.requests) <= 4


def test_concurrency_stays_within_the_limit(clock: FastClock) -> None:
    with FakeOpenAI(fault=lambda request: Slow(0.03)) as server:
        embedder = embedder_of(server, clock, concurrency=3)
        embedder.embed([str(number) for number in range(24)])
        assert 2 <= server.most_running <= 3


# --- secrets and documents ----------------------------------------------------------------------------------


def test_neither_key_nor_text_is_repeated_when_the_server_echoes_them(
    clock: FastClock, caplog: pytest.LogCaptureFixture
) -> None:
    secret_text = "the-patient-is-called-Zaphod"
    echo = {"message": f"bad key {KEY} for {secret_text}", "code": KEY, "type": KEY[3:-3], "param": secret_text}
    faults = [
        Fault(status=401, error=echo, headers={"x-request-id": KEY}),
        Fault(status=400, error=echo),
        Fault(status=500, error=echo),
        Raw(f"{KEY} {secret_text}".encode(), f"text/{KEY}"),
        Changed(lambda answer: answer.update(data=KEY)),
    ]
    with FakeOpenAI() as server, caplog.at_level(logging.INFO):
        models = models_of(server, clock, max_tries=1)
        embedder = models.embedder("e")
        for fault in faults:
            server.script([fault])
            with pytest.raises(GenaiopsError) as caught:
                embedder.embed([secret_text])
            error = caught.value
            seen = "".join(traceback.format_exception(error)) + repr(error)
            assert error.__cause__ is None
            assert error.__context__ is None
            assert KEY[3:-3] not in seen
            assert secret_text not in seen
        assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"
        assert KEY not in repr(models) + repr(embedder) + repr(models.chat("c")) + embedder.fingerprint
    assert KEY not in caplog.text
    assert secret_text not in caplog.text
