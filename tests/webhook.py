"""A real HTTP server on the loopback that plays a notification service: up, down, slow or failing."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Webhook:
    """Accepts apprise's ``json://`` posts.

    Attributes:
        status: what it answers; may be changed while it runs.
        hold: while clear, requests are received and not answered.
        received: bodies of the requests answered with success.
        requests: all requests, whatever the answer.
    """

    def __init__(self, *, status: int = 200, port: int = 0) -> None:
        self.status = status
        self.hold = threading.Event()
        self.hold.set()
        self.received: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.requests = 0
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                hook.requests += 1
                hook.headers.append(dict(self.headers) | {"path": self.path})
                hook.hold.wait()
                if 200 <= hook.status < 300:
                    hook.received.append(body)
                self.send_response(hook.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Stay silent."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        """Its apprise URL."""
        return f"json://127.0.0.1:{self.port}/hook"

    @property
    def titles(self) -> list[str]:
        """Titles of what was accepted, in order."""
        return [item["title"] for item in self.received]

    def __enter__(self) -> "Webhook":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.hold.set()
        self._server.shutdown()
        self._server.server_close()
