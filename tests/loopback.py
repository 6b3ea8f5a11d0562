"""A web site for tests: a real HTTP server on the loopback whose pages a test writes and changes.

Belongs here: the server. Does not belong here: any assertion.

    with Server() as server:
        server.page("/a.html", "<p>text</p>", etag='"1"')
        ... server.url("/a.html"), server.paths are what was asked for, server.seen with the headers ...
"""

import contextlib
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

Handler = Callable[[BaseHTTPRequestHandler], None]


class _Quiet(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is part of many tests."""


class Server:
    """Answers are functions of the request, by path with query; anything else is 404."""

    def __init__(self) -> None:
        self.pages: dict[str, Handler] = {}
        self.seen: list[tuple[str, dict[str, str]]] = []
        outer = self

        class Requests(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
                with contextlib.suppress(OSError):
                    outer.pages.get(self.path, _not_found)(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = _Quiet(("127.0.0.1", 0), Requests)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def paths(self) -> list[str]:
        """What was asked for, in order, without robots.txt."""
        return [path for path, _ in self.seen if path != "/robots.txt"]

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        """The URL of a path; other host names need a resolver that sends them here."""
        return f"http://{host}:{self.port}{path}"

    def answer(self, path: str, body: bytes = b"", status: int = 200, **headers: str) -> None:
        """Answer a path always the same; ``_`` in a header's name is ``-``."""

        def send(handler: BaseHTTPRequestHandler) -> None:
            _send(handler, status, body, headers)

        self.pages[path] = send

    def page(
        self,
        path: str,
        body: str | bytes,
        *,
        etag: str | None = None,
        modified: str | None = None,
        content_type: str = "text/html; charset=utf-8",
        **headers: str,
    ) -> None:
        """A page as good servers have it: with validators, and 304 to whoever knows them."""
        content = body.encode() if isinstance(body, str) else body
        validators = {name: value for name, value in (("ETag", etag), ("Last-Modified", modified)) if value}

        def send(handler: BaseHTTPRequestHandler) -> None:
            known = handler.headers.get("If-None-Match"), handler.headers.get("If-Modified-Since")
            if (etag and known[0] == etag) or (not etag and modified and known[1] == modified):
                _send(handler, 304, None, validators)
            else:
                _send(handler, 200, content, {"Content-Type": content_type, **validators, **headers})

        self.pages[path] = send

    def secure(self, context: ssl.SSLContext) -> None:
        """Speak TLS from now on."""
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)


def _send(handler: BaseHTTPRequestHandler, status: int, body: bytes | None, headers: dict[str, str]) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    if body is not None:
        handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    if body:
        handler.wfile.write(body)


def _not_found(handler: BaseHTTPRequestHandler) -> None:
    _send(handler, 404, b"not here", {})
