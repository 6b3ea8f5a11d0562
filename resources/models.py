"""Models: every call to an embedding or chat model goes through here, in the OpenAI protocol.

Belongs here: clients, batching, concurrency, rate limits, retries, time-outs, validation of what comes back, usage,
cost and budgets. Does not belong here: what is asked (prompt_store.py, the index stage), memos of answers
(answerer.py, the embedding table) and how the offline models think (offline_models.py).

The offline models and the local ones are reached by the same client through an in-process transport, so that there is
one code path; only a reranker, for which the protocol has no request, is called directly.

Nothing a provider says is repeated word for word in an exception: servers echo keys and document text. Status, error
code and request id are enough to look a failure up on the provider's side.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import os
import random
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from resources import local_models, offline_models
from resources.errors import BudgetExceededError, GenaiopsError, ModelResponseError, PermanentError, TransientError
from resources.fingerprint import fingerprint
from resources.model_config import (
    ChatModel,
    EmbeddingModel,
    Energy,
    ModelsFile,
    Price,
    Provider,
    RateLimit,
    RerankModel,
)

if TYPE_CHECKING:
    import numpy as np

#: Most tokens sent in one embedding request; OpenAI refuses more than 300 000, and our count is an estimate.
BATCH_TOKENS = 200_000
#: Assumed length of an answer when the parameters set no limit; used for budgets and token rate limits.
ANSWER_TOKENS = 1024
#: A server that asks for a longer pause is down for this run: waiting would only hold the worker.
LONGEST_PAUSE = 300.0
_BACKOFF_BASE, _BACKOFF_CAP = 0.5, 30.0
_DEFAULT_BASE_URL_ENV, _DEFAULT_BASE_URL = "OPENAI_BASE_URL", "https://api.openai.com/v1"
_RETRIED_STATUS = frozenset({408, 409, 425, 429})
_PERMANENT_CODES = frozenset({"insufficient_quota", "billing_hard_limit_reached"})
_IDENTIFIER = re.compile(r"(?=.{1,40}$)[a-z]+(?:_[a-z]+)*")  # such as context_length_exceeded; no key or text looks so


@dataclass(frozen=True)
class Usage:
    """What calls consumed: requests sent (retries included), tokens, and money in ``currency``."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: float = 0.0
    currency: str = "USD"

    def __add__(self, other: Usage) -> Usage:
        """Add two usages; one that cost nothing takes the currency of the other.

        Raises:
            ValueError: both cost money, in different currencies.
        """
        if self.cost and other.cost and self.currency != other.currency:
            raise ValueError(f"cannot add {self.currency} to {other.currency}; give the models prices in one currency")
        return Usage(
            requests=self.requests + other.requests,
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cost=self.cost + other.cost,
            currency=other.currency if other.cost and not self.cost else self.currency,
        )

    def to_json(self) -> dict[str, Any]:
        """The fields as a JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class EmbeddingBatch:
    """Vectors in the order of the texts.

    Attributes:
        vectors: float32, shape (number of texts, dimensions); finite, no zero vector.
        usage: what the call consumed.
    """

    vectors: np.ndarray
    usage: Usage


@dataclass(frozen=True)
class ChatResult:
    """One answer.

    Attributes:
        text: what the model said, never empty.
        latency: seconds of the request that succeeded, without waiting for limits or retries.
        model: the model name the server reported.
        finish_reason: ``stop``, ``length``, … as reported.
    """

    text: str
    usage: Usage
    latency: float
    model: str
    finish_reason: str


class Clock:
    """Time, sleep and chance, in one place so that tests can replace them."""

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back."""
        return time.monotonic()

    def time(self) -> float:
        """Seconds since 1970, to read HTTP dates."""
        return time.time()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)

    def random(self) -> float:
        """A number in [0, 1)."""
        return random.random()


class Budget:
    """A ceiling on money and calls, shared by all threads that use it; it refuses before a request is sent.

    Args:
        money: most that may be spent, or None for no ceiling.
        calls: most requests that may be sent, retries included, or None.
        currency: currency of ``money``; a model priced in another one is refused.
    """

    def __init__(self, money: float | None = None, calls: int | None = None, currency: str = "USD") -> None:
        self.money, self.calls, self.currency = money, calls, currency
        self._lock = threading.Lock()
        self._spent = Usage(currency=currency)
        self._held: list[Usage] = []

    @property
    def spent(self) -> Usage:
        """What was really consumed so far."""
        with self._lock:
            return self._spent

    def hold(self, estimates: Sequence[Usage]) -> None:
        """Set the estimated usage of coming requests aside, all of them or none.

        Raises:
            BudgetExceededError: spent, held and estimated usage together would pass the ceiling.
        """
        with self._lock:
            cost = self._spent.cost + math.fsum(item.cost for item in self._held)
            calls = self._spent.requests + sum(item.requests for item in self._held)
            more_cost = math.fsum(item.cost for item in estimates)
            more_calls = sum(item.requests for item in estimates)
            for item in estimates:
                if self.money is not None and item.cost and item.currency != self.currency:
                    raise BudgetExceededError(
                        f"the budget is in {self.currency} but the model's price in {item.currency}; use one currency"
                    )
            if self.money is not None and more_cost and cost + more_cost > self.money:
                raise BudgetExceededError(
                    f"the next {more_calls} request(s) would cost about {more_cost:.4f} {self.currency}; {cost:.4f} of the "
                    f"budget of {self.money:.4f} is already spent or reserved. Nothing was sent: raise the budget or ask less."
                )
            if self.calls is not None and calls + more_calls > self.calls:
                raise BudgetExceededError(
                    f"the next {more_calls} request(s) would pass the budget of {self.calls} calls ({calls} used or "
                    "reserved). Nothing was sent: raise the budget or ask less."
                )
            self._held.extend(estimates)

    def settle(self, estimate: Usage, actual: Usage) -> None:
        """Replace one held estimate by what was really used; ``Usage()`` when the request was not sent."""
        with self._lock:
            self._held.remove(estimate)
            self._spent = self._spent + actual


class Models:
    """The models of ``models.yaml`` by name.

    Args:
        config: the validated file.
        environment: values that win over the process environment when keys and base URLs are looked up.
        clock: replaced in tests.
    """

    def __init__(
        self, config: ModelsFile, *, environment: Mapping[str, str] | None = None, clock: Clock | None = None
    ) -> None:
        self.config = config
        self._environment = dict(environment or {})
        self._clock = clock or Clock()
        self._budget: Budget | None = None
        self._lock = threading.RLock()
        self._endpoints: dict[tuple[str, str], _Endpoint] = {}
        self._embedders: dict[str, Embedder] = {}
        self._chats: dict[str, Chat] = {}
        self._rerankers: dict[str, Reranker] = {}

    def __repr__(self) -> str:
        names = [model.name for model in (*self.config.embedding, *self.config.chat)]
        return f"Models({', '.join(names)})"

    def within(self, budget: Budget) -> Models:
        """The same models, clients and rate limits, with every request charged to ``budget``."""
        other = Models.__new__(Models)
        other.__dict__.update(self.__dict__)
        other._budget, other._embedders, other._chats = budget, {}, {}
        return other

    def embedder(self, name: str) -> Embedder:
        """The embedding model of that name.

        Raises:
            PermanentError: no such model, its key is missing, or an offline provider does not have it.
        """
        with self._lock:
            if name not in self._embedders:
                config = _named(self.config.embedding, name, "embedding")
                self._embedders[name] = Embedder(config, self._endpoint("embedding", config), self._budget)
            return self._embedders[name]

    def former_embedder(self, config: EmbeddingModel, provider: Provider) -> Embedder:
        """An embedding model that may have left ``models.yaml``, by its whole configuration: what an older snapshot needs.

        Raises:
            PermanentError: its key is missing, or an offline provider does not have it.
        """
        with self._lock:
            key = ("embedding", fingerprint([config.model_dump(mode="json"), provider.model_dump(mode="json")]))
            if key not in self._endpoints:
                self._endpoints[key] = _Endpoint("embedding", config, provider, self._environment, self._clock)
            return Embedder(config, self._endpoints[key], self._budget)

    def token_embedder(self, name: str) -> local_models.SentenceEmbedder:
        """The embedding model of that name, of a local provider, for the vectors of single tokens.

        Raises:
            PermanentError: no such model.
            ConfigError: the extra [local] is not installed, or there is no such folder.
        """
        config = _named(self.config.embedding, name, "embedding")
        folder = local_models.find_model("embedding", name, config.model)
        return local_models.shared_embedder(folder, config.dimensions, config.send_dimensions, config.precision)

    def chat(self, name: str) -> Chat:
        """The chat model of that name.

        Raises:
            PermanentError: no such model, its key is missing, or an offline provider does not have it.
        """
        with self._lock:
            if name not in self._chats:
                config = _named(self.config.chat, name, "chat")
                self._chats[name] = Chat(config, self._endpoint("chat", config), self._budget)
            return self._chats[name]

    def energy(self, name: str) -> Energy | None:
        """What the chat model of that name states about its energy."""
        return _named(self.config.chat, name, "chat").energy

    def reranker(self, name: str) -> Reranker:
        """The rerank model of that name.

        Raises:
            PermanentError: no such model.
            ConfigError: the extra [local] is not installed, or there is no such folder.
        """
        with self._lock:
            if name not in self._rerankers:
                if not self.config.rerank:
                    raise PermanentError(
                        f"models.yaml has no rerank models, so none is named {name!r}; add one under rerank"
                    )
                self._rerankers[name] = Reranker(_named(self.config.rerank, name, "rerank"))
            return self._rerankers[name]

    def close(self) -> None:
        """Close the connections to all providers."""
        with self._lock:
            for endpoint in self._endpoints.values():
                endpoint.close()
            self._endpoints.clear()
            self._embedders.clear()
            self._chats.clear()
            self._rerankers.clear()

    def _endpoint(self, what: str, config: EmbeddingModel | ChatModel) -> _Endpoint:
        key = (what, config.name)
        if key not in self._endpoints:
            provider = self.config.providers[config.provider]
            self._endpoints[key] = _Endpoint(what, config, provider, self._environment, self._clock)
        return self._endpoints[key]


class Embedder:
    """An embedding model.

    Attributes:
        dimensions: length of every vector.
        offline: True for the built-in models, which must be labelled as such wherever a score is shown.
        fingerprint: of everything that can change a vector; batch size, limits and price cannot.
    """

    def __init__(self, config: EmbeddingModel, endpoint: _Endpoint, budget: Budget | None) -> None:
        self.config = config
        self.dimensions = config.dimensions
        self.offline = endpoint.offline
        self.fingerprint = fingerprint(
            {
                "provider": endpoint.place,
                # a folder may stand anywhere: what is in it counts
                "model": endpoint.folder.fingerprint if endpoint.folder else config.model,
                "dimensions": config.dimensions,
                "send_dimensions": config.send_dimensions,
                "code": endpoint.code_version,
                **({"query_prefix": config.query_prefix} if config.query_prefix else {}),
                **({"document_prefix": config.document_prefix} if config.document_prefix else {}),
                **({"precision": config.precision} if endpoint.folder else {}),
            }
        )
        self._endpoint = endpoint
        self._budget = budget

    def __repr__(self) -> str:
        return f"Embedder({self.config.name}: {self.config.model}, {self.dimensions} dimensions)"

    def estimate(self, texts: Sequence[str]) -> Usage:
        """What ``embed(texts)`` would use, by our own token count; nothing is sent."""
        return sum((self._estimate(tokens) for _, tokens in self._batches(list(dict.fromkeys(texts)))), Usage())

    def embed(self, texts: Sequence[str], *, query: bool = False) -> EmbeddingBatch:
        """Embed texts, each distinct one once, in concurrent batches.

        Args:
            query: the texts are questions; they get the model's query prefix instead of its document prefix.

        Returns:
            Vectors of shape (len(texts), dimensions) in the order of ``texts``; an empty list costs no request.

        Raises:
            PermanentError: the request can never succeed (key, unknown model, a text that is too long).
            BudgetExceededError: the texts together do not fit the budget; nothing was sent.
            TransientError: the provider did not answer within the allowed tries.
            ModelResponseError: it answered, but with unusable vectors, within the allowed tries.
        """

        import numpy as np

        if isinstance(texts, str):
            raise TypeError("embed takes a sequence of texts, not one text")
        if not texts:
            return EmbeddingBatch(
                np.zeros((0, self.dimensions), np.float32), Usage(currency=self.config.price.currency)
            )
        if prefix := self.config.query_prefix if query else self.config.document_prefix:
            texts = [prefix + text for text in texts]
        position: dict[str, int] = {}
        inverse = np.fromiter((position.setdefault(text, len(position)) for text in texts), np.int64, len(texts))
        distinct = list(position)
        self._refuse_long(distinct)
        sized = list(self._batches(distinct))
        batches = [batch for batch, _ in sized]
        estimates = [self._estimate(tokens) for _, tokens in sized]
        if self._budget:
            self._budget.hold(estimates)
        vectors = np.empty((len(distinct), self.dimensions), np.float32)
        starts = np.cumsum([0, *map(len, batches)])
        usages: list[Usage] = []
        stop = threading.Event()

        def one(number: int) -> None:
            if stop.is_set():
                if self._budget:
                    self._budget.settle(estimates[number], Usage())
                return
            rows, usage = self._request(batches[number], estimates[number])
            vectors[starts[number] : starts[number + 1]] = rows
            usages.append(usage)

        # Models in this process use its cores already: threads would only wait for each other.
        workers = 1 if self._endpoint.in_process else min(self.config.limits.concurrency, len(batches))
        if workers == 1:
            _run_in_order(one, len(batches), stop)
        else:
            _run_in_threads(one, len(batches), workers, stop)
        total = sum(usages, Usage(currency=self.config.price.currency))
        return EmbeddingBatch(vectors if len(distinct) == len(texts) else vectors[inverse], total)

    def _refuse_long(self, texts: list[str]) -> None:
        limit = self.config.max_input_tokens
        for number, text in enumerate(texts):
            # A word is at least one token in every tokenizer, so this never refuses a text that would have fitted.
            if len(text) > limit and (words := len(text.split())) > limit:
                raise PermanentError(
                    f"embedding model {self.config.name!r}: distinct text number {number} has {words} words, more than "
                    f"max_input_tokens {limit}; make the chunks smaller"
                )

    def _batches(self, texts: list[str]) -> Iterator[tuple[list[str], int]]:
        limit = min(BATCH_TOKENS, self.config.limits.tokens_per_minute or BATCH_TOKENS)
        batch: list[str] = []
        tokens = 0
        for text in texts:
            size = offline_models.count_tokens(text)
            if batch and (len(batch) == self.config.batch_size or tokens + size > limit):
                yield batch, tokens
                batch, tokens = [], 0
            batch.append(text)
            tokens += size
        if batch:
            yield batch, tokens

    def _estimate(self, tokens: int) -> Usage:
        return _priced(self.config.price, 1, tokens, 0)

    def _request(self, batch: list[str], estimate: Usage) -> tuple[np.ndarray, Usage]:
        body: dict[str, Any] = {
            "model": self.config.model,
            # Servers refuse the empty string; a blank means the same to a model.
            "input": [text or " " for text in batch],
            "encoding_format": "base64",
        }
        if self.config.send_dimensions:
            body["dimensions"] = self.config.dimensions

        def read(answer: Any) -> np.ndarray:
            return _read_vectors(answer, len(batch), self.dimensions)

        reply = self._endpoint.call(body, read, estimate, self._budget)
        return reply.value, reply.usage


class Chat:
    """A chat model.

    Attributes:
        offline: True for the built-in models, which must be labelled as such wherever a score is shown.
        fingerprint: of everything that can change an answer except the messages.
    """

    def __init__(self, config: ChatModel, endpoint: _Endpoint, budget: Budget | None) -> None:
        _refuse_reserved(config.name, config.parameters)
        self.config = config
        self.offline = endpoint.offline
        self.fingerprint = fingerprint(
            {
                "provider": endpoint.place,
                "model": config.model,
                "parameters": config.parameters,
                "code": offline_models.code_version(config.model) if endpoint.offline else None,
            }
        )
        self._endpoint = endpoint
        self._budget = budget

    def __repr__(self) -> str:
        return f"Chat({self.config.name}: {self.config.model})"

    def estimate(self, messages: Sequence[Mapping[str, str]], *, extra: Mapping[str, Any] | None = None) -> Usage:
        """What ``complete`` would use at most, by our own token count; nothing is sent."""
        tokens = sum(offline_models.count_tokens(message["content"]) + 4 for message in messages)
        parameters = {**self.config.parameters, **(extra or {})}
        limit = parameters.get("max_completion_tokens") or parameters.get("max_tokens")
        return _priced(self.config.price, 1, tokens, int(limit or ANSWER_TOKENS))

    def complete(self, messages: Sequence[Mapping[str, str]], *, extra: Mapping[str, Any] | None = None) -> ChatResult:
        """Ask for one answer.

        Args:
            messages: ``{"role": ..., "content": ...}`` in order.
            extra: parameters of this request alone, such as ``response_format`` or ``seed``; they win over the model's.

        Raises:
            PermanentError: the request can never succeed (key, unknown model, context too long).
            BudgetExceededError: it might cost more than the budget leaves; nothing was sent.
            TransientError: the provider did not answer within the allowed tries.
            ModelResponseError: it answered, but with nothing usable, within the allowed tries.
        """
        _refuse_reserved(self.config.name, extra or {})
        estimate = self.estimate(messages, extra=extra)
        if self._budget:
            self._budget.hold([estimate])
        body = {
            "model": self.config.model,
            "messages": [dict(message) for message in messages],
            # As extra body, parameters that only some servers know pass through as they are.
            "extra_body": {**self.config.parameters, **(extra or {})},
        }
        reply = self._endpoint.call(body, _read_answer, estimate, self._budget)
        text, model, finish_reason = reply.value
        return ChatResult(text, reply.usage, reply.seconds, model or self.config.model, finish_reason)


def _refuse_reserved(model: str, parameters: Mapping[str, Any]) -> None:
    for reserved in ("model", "messages", "stream", "n"):
        if reserved in parameters:
            raise PermanentError(
                f"models.yaml: chat model {model!r}: parameters must not contain {reserved!r}; it is set here"
            )


class Reranker:
    """A cross-encoder on this machine, which reads a question and a passage together.

    Attributes:
        fingerprint: of everything that can change a score.
    """

    def __init__(self, config: RerankModel) -> None:
        folder = local_models.find_model("rerank", config.name, config.model)
        self.config = config
        self.fingerprint = fingerprint(
            {
                "provider": ["local"],
                "model": folder.fingerprint,
                "max_input_tokens": config.max_input_tokens,
                "precision": config.precision,
                "code": local_models.CODE_VERSION,
            }
        )
        self._encoder = local_models.CrossEncoder(
            folder, max_input_tokens=config.max_input_tokens, precision=config.precision
        )

    def __repr__(self) -> str:
        return f"Reranker({self.config.name}: {self.config.model})"

    def score(self, question: str, passages: Sequence[str]) -> tuple[list[float], Usage]:
        """One score for each passage, larger is better, and what the call used.

        Raises:
            ConfigError: the model cannot be loaded.
            ModelResponseError: it gave a score that is not finite.
        """
        if not passages:
            return [], Usage()
        scores, tokens = self._encoder.score(question, passages)
        if not all(map(math.isfinite, scores)):
            raise ModelResponseError(f"rerank model {self.config.name!r}: unusable answer: a score is NaN or infinite")
        return [float(score) for score in scores], Usage(requests=1, input_tokens=tokens)


# --- what comes back ----------------------------------------------------------------------------------


class _Unusable(Exception):
    """A reply that breaks the protocol; the text says how and quotes nothing of it."""


def _read_vectors(answer: Any, count: int, dimensions: int) -> np.ndarray:
    """Validate an embedding reply and return its vectors in the order of the request."""

    import numpy as np

    data = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(data, list) or not all(isinstance(item, dict) for item in data):
        raise _Unusable("it has no list 'data'")
    if len(data) != count:
        raise _Unusable(f"{len(data)} vectors for {count} texts")
    if sorted(item["index"] if type(item.get("index")) is int else -1 for item in data) != list(range(count)):
        raise _Unusable(f"the indices of the vectors are not 0 to {count - 1}")
    vectors = np.empty((count, dimensions), np.float32)
    for item in data:
        vectors[item["index"]] = _read_vector(item.get("embedding"), dimensions)
    if not np.isfinite(vectors).all():
        raise _Unusable("a vector contains NaN or infinity")
    if not np.square(vectors, dtype=np.float64).sum(axis=1).all():
        raise _Unusable("a vector is all zeros")
    return vectors


def _read_vector(value: Any, dimensions: int) -> np.ndarray:
    """Decode one vector: base64 as asked, or a list of numbers from servers that ignore ``encoding_format``."""

    import numpy as np

    try:
        if isinstance(value, str):
            vector = np.frombuffer(base64.b64decode(value, validate=True), "<f4")
        elif isinstance(value, list):
            with np.errstate(over="ignore"):
                vector = np.asarray(value, np.float64).astype(np.float32)
        else:
            raise _Unusable("a vector is neither base64 nor a list of numbers")
    except (binascii.Error, ValueError, TypeError) as error:
        raise _Unusable(f"a vector cannot be decoded ({type(error).__name__})") from None
    if vector.shape != (dimensions,):
        raise _Unusable(f"a vector of shape {vector.shape} instead of {dimensions} dimensions")
    return vector


def _read_answer(answer: Any) -> tuple[str, str, str]:
    """Validate a chat reply and return (text, model, finish reason)."""
    choices = answer.get("choices") if isinstance(answer, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise _Unusable("it has no choices")
    choice = choices[0]
    message = choice.get("message")
    reason = choice.get("finish_reason")
    reason = reason if isinstance(reason, str) and _IDENTIFIER.fullmatch(reason) else "unknown"
    if not isinstance(message, dict):
        raise _Unusable("its first choice has no message")
    content = message.get("content") or message.get("refusal")
    if not isinstance(content, str) or not content.strip():
        raise _Unusable(f"its message has no text (finish reason {reason})")
    model = answer.get("model")
    return content, model if isinstance(model, str) else "", reason


def _priced(price: Price, requests: int, input_tokens: int, output_tokens: int) -> Usage:
    cost = (input_tokens * price.input_per_million + output_tokens * price.output_per_million) / 1e6
    return Usage(requests, input_tokens, output_tokens, cost, price.currency)


def _reported_tokens(answer: Any, field: str) -> int | None:
    usage = answer.get("usage") if isinstance(answer, dict) else None
    value = usage.get(field) if isinstance(usage, dict) else None
    return value if type(value) is int and value >= 0 else None


# --- sending --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Reply:
    value: Any
    usage: Usage
    seconds: float


@dataclass(frozen=True)
class _Failure:
    """Why one try failed, described without quoting the server."""

    error: type[GenaiopsError]
    reason: str
    retry_after: float | None = None
    billed: Usage = Usage()


class _Bucket:
    """A token bucket; a request larger than the bucket is let through and paid off by those after it.

    Unit-sized requests never exceed ``per_minute`` in any 60 seconds: the burst is a twelfth of it, and the refill
    is what is left.
    """

    def __init__(self, per_minute: int, now: float) -> None:
        self._capacity = max(1.0, per_minute / 12)
        self._rate = (per_minute - (self._capacity - 1)) / 60
        self._level = self._capacity
        self._at = now

    def take(self, amount: float, now: float) -> float:
        """Take ``amount`` and return how many seconds to wait before using it."""
        self._level = min(self._capacity, self._level + max(0.0, now - self._at) * self._rate)
        self._at = max(now, self._at)
        missing = min(amount, self._capacity) - self._level
        self._level -= amount
        return max(0.0, missing / self._rate)


class _Limiter:
    """Rate limits and concurrency of one model, shared by all threads of the process."""

    def __init__(self, limits: RateLimit, clock: Clock) -> None:
        now = clock.monotonic()
        self._clock = clock
        self._lock = threading.Lock()
        self._requests = _Bucket(limits.requests_per_minute, now) if limits.requests_per_minute else None
        self._tokens = _Bucket(limits.tokens_per_minute, now) if limits.tokens_per_minute else None
        self._paused_until = -math.inf
        self.slots = threading.BoundedSemaphore(limits.concurrency)

    def pause(self, seconds: float) -> None:
        """Hold every thread back: the server told one of them to come later."""
        with self._lock:
            self._paused_until = max(self._paused_until, self._clock.monotonic() + seconds)

    def wait(self, tokens: int) -> None:
        """Sleep until a request of ``tokens`` may be sent."""
        with self._lock:
            now = self._clock.monotonic()
            delay = max(
                0.0,
                self._paused_until - now,
                self._requests.take(1, now) if self._requests else 0.0,
                self._tokens.take(tokens, now) if self._tokens else 0.0,
            )
        if delay > 0:
            self._clock.sleep(delay)


class _Endpoint:
    """One model at one provider: the client, its limits and the retry loop."""

    def __init__(
        self,
        what: str,
        config: EmbeddingModel | ChatModel,
        provider: Provider,
        environment: Mapping[str, str],
        clock: Clock,
    ) -> None:
        # Two servers may give one name to different models. Which server, not its address of today: moving it changes
        # no result.
        self.place = [provider.kind, provider.base_url_env] if provider.kind == "openai" else [provider.kind]
        self.offline = provider.kind == "offline"
        self.in_process = provider.kind != "openai"
        self.folder: local_models.ModelFolder | None = None
        self.code_version: str | None = None
        self.label = f"{what} model {config.name!r} ({config.model})"
        self._what, self._config, self._clock = what, config, clock
        self._limiter = _Limiter(config.limits, clock)
        self._opening = threading.Lock()
        self._opened: Any
        # In-process clients are made when they are first asked: a refresh with nothing to embed loads no library.
        if self.offline:
            offline_models.check_model(what, config.name, config.model)
            self.code_version = offline_models.CODE_VERSION
            self._opened = None
        elif provider.kind == "local":
            if what == "chat":
                raise PermanentError(f"models.yaml: chat model {config.name!r}: a local provider has no chat models")
            self.folder = local_models.find_model(what, config.name, config.model)
            self.code_version = local_models.CODE_VERSION
            self._opened = None
        else:
            self._opened = _http_client(what, config, provider, environment, clock)

    @property
    def _client(self) -> Any:
        with self._opening:
            if self._opened is None:
                self._opened = _in_process_client(self._config, self.folder)
            return self._opened

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()

    def call(self, body: dict[str, Any], read: Any, estimate: Usage, budget: Budget | None) -> _Reply:
        """Send ``body`` until ``read`` accepts the reply, at most ``max_tries`` times.

        The caller has already held ``estimate`` in the budget for the first try; each further try holds it again.
        """
        tries = self._config.limits.max_tries
        used = Usage(currency=self._config.price.currency)
        for number in range(1, tries + 1):
            if number > 1 and budget:
                budget.hold([estimate])
            charged = Usage()
            try:
                with self._limiter.slots:
                    self._limiter.wait(estimate.input_tokens + estimate.output_tokens)
                    charged = Usage(requests=1, currency=used.currency)
                    outcome = self._try(body, read, estimate)
                charged = outcome.usage if isinstance(outcome, _Reply) else charged + outcome.billed
            finally:
                if budget:
                    budget.settle(estimate, charged)
            used = used + charged
            if isinstance(outcome, _Reply):
                return _Reply(outcome.value, used, outcome.seconds)
            if issubclass(outcome.error, PermanentError) or number == tries:
                break
            self._back_off(outcome, number)
        # Raised outside any except block: the provider's own error, which may quote a key or a document, must not
        # travel along as the cause.
        raise outcome.error(
            f"{self.label}: {outcome.reason}" + (f"; gave up after {number} tries" if number > 1 else "")
        )

    def _back_off(self, failure: _Failure, number: int) -> None:
        if failure.retry_after is not None:
            # The pause holds all threads back; the little extra keeps them from returning in the same instant.
            self._limiter.pause(failure.retry_after + self._clock.random() * min(1.0, failure.retry_after / 10))
        else:
            self._clock.sleep(self._clock.random() * min(_BACKOFF_CAP, _BACKOFF_BASE * 2 ** (number - 1)))

    def _try(self, body: dict[str, Any], read: Any, estimate: Usage) -> _Reply | _Failure:
        import openai

        started = self._clock.monotonic()
        try:
            if self._what == "embedding":
                raw = self._client.embeddings.with_raw_response.create(**body)
            else:
                raw = self._client.chat.completions.with_raw_response.create(**body)
        except openai.APIStatusError as error:
            return self._status_failure(error)
        except openai.APITimeoutError:
            return _Failure(TransientError, f"no complete answer within {self._config.limits.timeout_seconds:g} s")
        except openai.APIConnectionError as error:
            if self.in_process:
                if isinstance(error.__cause__, GenaiopsError):
                    raise error.__cause__ from None
                raise  # a defect of ours, not of a network
            cause = type(error.__cause__).__name__ if error.__cause__ else "unknown cause"
            return _Failure(TransientError, f"no connection ({cause}); check the base URL and the network")
        seconds = self._clock.monotonic() - started
        try:
            answer = json.loads(raw.text)
        except ValueError:
            kind = raw.headers.get("content-type", "no content type").partition(";")[0]
            return _Failure(
                ModelResponseError,
                f"the answer is not JSON ({kind if re.fullmatch(r'[a-z/+.-]{1,40}', kind) else 'odd content type'})",
            )
        usage = _priced(
            self._config.price,
            1,
            _or(_reported_tokens(answer, "prompt_tokens"), estimate.input_tokens),
            0 if self._what == "embedding" else _or(_reported_tokens(answer, "completion_tokens"), 0),
        )
        try:
            value = read(answer)
        except _Unusable as error:
            billed = Usage(0, usage.input_tokens, usage.output_tokens, usage.cost, usage.currency)
            return _Failure(ModelResponseError, f"unusable answer: {error}", billed=billed)
        if self._what == "chat" and _reported_tokens(answer, "completion_tokens") is None:
            usage = _priced(self._config.price, 1, usage.input_tokens, offline_models.count_tokens(value[0]))
        return _Reply(value, usage, seconds)

    def _status_failure(self, error: Any) -> _Failure:
        status = error.status_code
        details = [
            f"{name} {value}"
            for name, value in (("code", error.code), ("type", error.type))
            if isinstance(value, str) and _IDENTIFIER.fullmatch(value) and not self._is_secret(value)
        ]
        request_id = error.response.headers.get("x-request-id", "")
        if re.fullmatch(r"[A-Za-z0-9_-]{1,80}", request_id) and not self._is_secret(request_id):
            details.append(f"request {request_id}")
        reason = f"HTTP {status}" + (f" ({', '.join(details)})" if details else "")
        if status in (401, 403):
            return _Failure(PermanentError, f"{reason}: the key was refused; check the provider's api_key_env")
        if status == 404:
            return _Failure(PermanentError, f"{reason}: not found; check the model name and the base URL")
        if error.code in _PERMANENT_CODES or not (status in _RETRIED_STATUS or status >= 500):
            return _Failure(PermanentError, reason)
        retry_after = _retry_after(error.response.headers, self._clock.time())
        if retry_after is not None and retry_after > LONGEST_PAUSE:
            return _Failure(
                PermanentError,
                f"{reason}: the server asks for a pause of {retry_after:.0f} s, longer than the {LONGEST_PAUSE:.0f} s we wait",
            )
        return _Failure(TransientError, reason, retry_after)

    def _is_secret(self, value: str) -> bool:
        key = self._client.api_key
        return bool(key) and (value in key or key in value)


def _or(value: int | None, default: int) -> int:
    return default if value is None else value


def _retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds the server asks us to wait: ``Retry-After`` as seconds or HTTP date, or ``retry-after-ms``."""
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name, "").strip()
        if re.fullmatch(r"\d{1,9}(\.\d+)?", value):
            return float(value) * scale
    try:
        date = parsedate_to_datetime(headers.get("retry-after", ""))
    except ValueError:
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max(0.0, date.timestamp() - now)


# --- clients --------------------------------------------------------------------------------------------


def _in_process_client(config: EmbeddingModel | ChatModel, folder: local_models.ModelFolder | None) -> Any:
    import httpx2
    import openai

    if folder is not None and isinstance(config, EmbeddingModel):
        embedder = local_models.SentenceEmbedder(
            folder, config.dimensions, shorten=config.send_dimensions, precision=config.precision
        )
        transport = local_models.transport(embedder)
    else:
        transport = offline_models.transport(config.dimensions if isinstance(config, EmbeddingModel) else 0)
    http = httpx2.Client(transport=transport, trust_env=False)
    return openai.OpenAI(base_url="http://offline.invalid/v1", api_key="none", max_retries=0, http_client=http)


def _http_client(
    what: str, config: EmbeddingModel | ChatModel, provider: Provider, environment: Mapping[str, str], clock: Clock
) -> Any:
    import openai

    entry = f"models.yaml: {what} model {config.name!r}: provider {config.provider!r}"

    def look_up(name: str) -> str:
        return (environment.get(name) or os.environ.get(name) or "").strip()

    key = look_up(provider.api_key_env)
    if not key:
        raise PermanentError(
            f"{entry} needs the environment variable {provider.api_key_env} (api_key_env), which is not set; "
            "for a server without keys set it to any word"
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise PermanentError(f"{entry}: the value of {provider.api_key_env} is not a key: it has odd characters")
    url = look_up(provider.base_url_env)
    if not url and provider.base_url_env == _DEFAULT_BASE_URL_ENV:
        url = _DEFAULT_BASE_URL
    if not url:
        # Falling back to another host would send documents to somebody the user did not choose.
        raise PermanentError(
            f"{entry} needs the environment variable {provider.base_url_env} (base_url_env), which is not set"
        )
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise PermanentError(
            f"{entry}: the value of {provider.base_url_env} is not a URL such as https://host/v1 (scheme and host)"
        )
    timeout = config.limits.timeout_seconds
    http = openai.DefaultHttpxClient(event_hooks=_deadline_hooks(timeout))
    return openai.OpenAI(base_url=url, api_key=key, max_retries=0, timeout=timeout, http_client=http)


def _deadline_hooks(timeout: float) -> dict[str, list[Any]]:
    """Hooks that bound a whole exchange: the client's own time-out starts anew with every byte that trickles in."""
    import httpx2

    class Deadline(httpx2.SyncByteStream):
        def __init__(self, stream: Any, request: Any) -> None:
            self._stream, self._request = stream, request

        def __iter__(self) -> Iterator[bytes]:
            for part in self._stream:
                if time.monotonic() > self._request.extensions["genaiops.deadline"]:
                    raise httpx2.ReadTimeout("the whole answer took too long", request=self._request)
                yield part

        def close(self) -> None:
            self._stream.close()

    def started(request: Any) -> None:
        request.extensions = {**request.extensions, "genaiops.deadline": time.monotonic() + timeout}

    def answered(response: Any) -> None:
        response.stream = Deadline(response.stream, response.request)

    return {"request": [started], "response": [answered]}


# --- helpers --------------------------------------------------------------------------------------------


def _named(models: Sequence[Any], name: str, what: str) -> Any:
    for model in models:
        if model.name == name:
            return model
    allowed = ", ".join(sorted(model.name for model in models))
    raise PermanentError(f"models.yaml has no {what} model named {name!r}; it has: {allowed}")


def _run_in_order(task: Any, count: int, stop: threading.Event) -> None:
    error: BaseException | None = None
    for number in range(count):
        try:
            task(number)
        except BaseException as raised:
            error = error or raised
            stop.set()
    if error:
        raise error


def _run_in_threads(task: Any, count: int, workers: int, stop: threading.Event) -> None:
    """Run ``task(0..count-1)``; after the first error nothing new is sent, and that error is raised."""
    with ThreadPoolExecutor(workers, thread_name_prefix="embed") as pool:
        futures = [pool.submit(task, number) for number in range(count)]
        try:
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            stop.set()
        for future in futures:
            if future in done and (error := future.exception()):
                raise error
