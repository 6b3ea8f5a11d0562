"""A model endpoint for tests: a real HTTP server on the loopback that speaks the OpenAI protocol and fails on demand.

Belongs here: the server and the faults it can play. Does not belong here: any assertion.

    with FakeOpenAI(dimensions=4) as server:
        server.script([RateLimited(after="2"), Status(500)])    # the first two requests fail, later ones succeed
        ... base URL is server.url, server.requests are what was received ...

A vector depends on its text alone (``server.vector(text)``), so a test can see which text a vector belongs to.
"""

import base64
import json
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from hashlib import blake2b
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from resources.models import Clock


class FastClock(Clock):
    """A clock whose sleeps take no time and are remembered; chance is always one half."""

    def __init__(self) -> None:
        self.sleeps: list[float] = []
        self._offset = 0.0
        self._lock = threading.Lock()

    def monotonic(self) -> float:
        return super().monotonic() + self._offset

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self.sleeps.append(seconds)
            self._offset += seconds

    def random(self) -> float:
        return 0.5


@dataclass(frozen=True)
class Request:
    """One request received."""

    path: str
    body: dict[str, Any]
    headers: dict[str, str]

    @property
    def texts(self) -> list[str]:
        """The texts of an embedding request."""
        return self.body["input"]


@dataclass(frozen=True)
class Fault:
    """What the server does with one request instead of, or on top of, the right answer.

    Attributes:
        status: HTTP status; the body is an OpenAI error object when it is not 200.
        body: raw body to send instead.
        change: alters the right answer before it is sent.
        delay: seconds before the answer.
        trickle: seconds between single bytes of the body.
        hang_up: close the connection without an answer.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    content_type: str = "application/json"
    error: dict[str, Any] | None = None
    change: Callable[[dict[str, Any]], None] | None = None
    delay: float = 0.0
    trickle: float = 0.0
    hang_up: bool = False


def Status(status: int, **error: Any) -> Fault:
    """An HTTP error with an OpenAI error object."""
    return Fault(status=status, error={"message": "scripted", "type": "server_error", "code": None, **error})


def RateLimited(after: str | None = None, **error: Any) -> Fault:
    """HTTP 429, with ``Retry-After`` if given."""
    fault = Status(429, **{"type": "rate_limit", "code": "rate_limit_exceeded", **error})
    return Fault(status=429, headers={"Retry-After": after} if after else {}, error=fault.error)


def Slow(seconds: float) -> Fault:
    """The right answer, late."""
    return Fault(delay=seconds)


def Trickle(seconds: float) -> Fault:
    """The right answer, byte by byte."""
    return Fault(trickle=seconds)


def Raw(body: bytes, content_type: str = "application/json") -> Fault:
    """HTTP 200 with any body."""
    return Fault(body=body, content_type=content_type)


def Html() -> Fault:
    """HTTP 200 with a web page, as proxies and wrong base URLs give."""
    return Raw(b"<html><body>Please log in</body></html>", "text/html; charset=utf-8")


def HangUp() -> Fault:
    """The connection closes without an answer."""
    return Fault(hang_up=True)


def Changed(change: Callable[[dict[str, Any]], None]) -> Fault:
    """The right answer, altered in place."""
    return Fault(change=change)


def Missing(count: int = 1) -> Fault:
    """Fewer vectors than texts."""
    return Changed(lambda answer: answer["data"].__delitem__(slice(0, count)))


def Shuffled() -> Fault:
    """All vectors with their right index, in reverse order: correct, if the client looks at the index."""
    return Changed(lambda answer: answer["data"].reverse())


def Component(value: float) -> Fault:
    """One component of the first vector replaced, e.g. by NaN."""

    def change(answer: dict[str, Any]) -> None:
        vector = np.frombuffer(base64.b64decode(answer["data"][0]["embedding"]), "<f4").copy()
        vector[0] = value
        answer["data"][0]["embedding"] = _encode(vector)

    return Changed(change)


def Dimensions(dimensions: int) -> Fault:
    """Vectors of another length."""

    def change(answer: dict[str, Any]) -> None:
        for item in answer["data"]:
            item["embedding"] = _encode(np.ones(dimensions, "<f4"))

    return Changed(change)


def Zeros() -> Fault:
    """First vector all zeros."""

    def change(answer: dict[str, Any]) -> None:
        size = len(base64.b64decode(answer["data"][0]["embedding"])) // 4
        answer["data"][0]["embedding"] = _encode(np.zeros(size, "<f4"))

    return Changed(change)


def FloatLists() -> Fault:
    """Vectors as lists of numbers although base64 was asked for, as several servers do."""

    def change(answer: dict[str, Any]) -> None:
        for item in answer["data"]:
            item["embedding"] = np.frombuffer(base64.b64decode(item["embedding"]), "<f4").tolist()

    return Changed(change)


def _encode(vector: np.ndarray) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


class FakeOpenAI:
    """The server; use it as a context manager.

    Args:
        dimensions: length of the vectors.
        answer: what a chat request is answered with; a function gets the request body.
        fault: decides per request, after the script is used up; None means the right answer.
    """

    def __init__(
        self,
        dimensions: int = 8,
        answer: str | Callable[[dict[str, Any]], str] = "An answer. [1]",
        fault: Callable[[Request], Fault | None] = lambda request: None,
    ) -> None:
        self.dimensions = dimensions
        self.requests: list[Request] = []
        self.running = 0
        self.most_running = 0
        self._answer = answer
        self._fault = fault
        self._script: list[Fault | None] = []
        self._lock = threading.Lock()
        self._server: ThreadingHTTPServer | None = None

    def script(self, faults: Iterable[Fault | None]) -> None:
        """Set what the next requests meet, in the order they arrive; None is the right answer."""
        with self._lock:
            self._script = list(faults)

    @property
    def url(self) -> str:
        """The base URL."""
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def environment(self, key: str = "test-key") -> dict[str, str]:
        """The variables that make ``models.yaml``'s default openai provider use this server."""
        return {"OPENAI_BASE_URL": self.url, "OPENAI_API_KEY": key}

    def vector(self, text: str) -> np.ndarray:
        """The vector of a text."""
        seed = int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")
        return np.random.default_rng(seed).standard_normal(self.dimensions).astype("<f4")

    def __enter__(self) -> "FakeOpenAI":
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                outer._handle(self)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False  # a handler may still be in a scripted delay

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # a client that gave up closes the connection under a handler

        self._server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["content-length"])))
        request = Request(handler.path, body, {name.lower(): value for name, value in handler.headers.items()})
        with self._lock:
            self.requests.append(request)
            self.running += 1
            self.most_running = max(self.most_running, self.running)
            fault = self._script.pop(0) if self._script else self._fault(request)
        try:
            self._send(handler, request, fault or Fault())
        finally:
            with self._lock:
                self.running -= 1

    def _send(self, handler: BaseHTTPRequestHandler, request: Request, fault: Fault) -> None:
        if fault.delay:
            time.sleep(fault.delay)
        if fault.hang_up:
            handler.close_connection = True
            handler.connection.close()
            return
        if fault.body is not None:
            payload = fault.body
        elif fault.status != 200:
            payload = json.dumps({"error": fault.error}).encode()
        else:
            answer = (
                self._embeddings(request.body) if request.path.endswith("/embeddings") else self._chat(request.body)
            )
            if fault.change:
                fault.change(answer)
            payload = json.dumps(answer).encode()
        handler.send_response(fault.status)
        for name, value in {"Content-Type": fault.content_type, **fault.headers}.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(payload)))
        handler.end_headers()
        if not fault.trickle:
            handler.wfile.write(payload)
            return
        for byte in payload:
            handler.wfile.write(bytes([byte]))
            handler.wfile.flush()
            time.sleep(fault.trickle)

    def _embeddings(self, body: dict[str, Any]) -> dict[str, Any]:
        texts = body["input"]
        return {
            "object": "list",
            "model": body["model"],
            "data": [
                {"object": "embedding", "index": index, "embedding": _encode(self.vector(text))}
                for index, text in enumerate(texts)
            ],
            "usage": {"prompt_tokens": 10 * len(texts), "total_tokens": 10 * len(texts)},
        }

    def _chat(self, body: dict[str, Any]) -> dict[str, Any]:
        text = self._answer if isinstance(self._answer, str) else self._answer(body)
        return {
            "id": "chat-1",
            "object": "chat.completion",
            "created": 0,
            "model": f"{body['model']}-0001",
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 7, "total_tokens": 107},
        }
