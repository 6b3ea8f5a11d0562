"""Git repositories for tests: made by the git program, and served over HTTP by its own backend."""

import base64
import os
import ssl
import subprocess
import threading
from collections.abc import Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.corpus_support import write


def git(folder: Path, *arguments: str, **environment: str) -> str:
    """Run git in a folder, apart from the user's configuration."""
    return subprocess.run(
        ["git", "-C", str(folder), *arguments],
        check=True,
        capture_output=True,
        text=True,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_AUTHOR_NAME": "A",
            "GIT_AUTHOR_EMAIL": "a@example.com",
            "GIT_COMMITTER_NAME": "A",
            "GIT_COMMITTER_EMAIL": "a@example.com",
            "GIT_AUTHOR_DATE": "2024-01-01T00:00:00Z",
            "GIT_COMMITTER_DATE": "2024-01-01T00:00:00Z",
            **environment,
        },
    ).stdout.strip()


def make_repository(folder: Path, files: Mapping[str, str | bytes | None]) -> str:
    """A new repository with one commit on ``main``; returns the commit."""
    folder.mkdir(parents=True, exist_ok=True)
    git(folder, "init", "--quiet", "--initial-branch=main")
    return commit(folder, files)


def commit(folder: Path, files: Mapping[str, str | bytes | None], *, day: int = 1) -> str:
    """Write files (None: delete) and commit everything."""
    write(folder, files)
    git(folder, "add", "--all", "--force")
    when = f"2024-02-{day:02}T00:00:00Z"
    git(folder, "commit", "--quiet", "--allow-empty", "-m", "x", GIT_AUTHOR_DATE=when, GIT_COMMITTER_DATE=when)
    return git(folder, "rev-parse", "HEAD")


class GitServer:
    """Serves the repositories below a folder by ``git http-backend``.

    Attributes:
        requests: what was asked for: method, path and query.
        login: ``user:password`` that is asked for, or None.
        status: when set, every request is answered with it.
        redirect: when set, every request is redirected there.
    """

    def __init__(self, root: Path) -> None:
        self.requests: list[str] = []
        self.login: str | None = None
        self.status: int | None = None
        self.redirect: str | None = None
        world = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                world.requests.append(f"{self.command} {self.path}")
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                wanted = base64.b64encode((world.login or "").encode()).decode()
                if world.redirect:
                    self._answer(302, [("Location", world.redirect + self.path)], b"")
                elif world.status:
                    self._answer(world.status, [], b"")
                elif world.login and self.headers.get("Authorization") != f"Basic {wanted}":
                    self._answer(401, [("WWW-Authenticate", 'Basic realm="x"')], b"")
                else:
                    self._backend(body)

            do_POST = do_GET

            def _backend(self, body: bytes) -> None:
                url = urlsplit(self.path)
                done = subprocess.run(
                    ["git", "-c", "safe.directory=*", "http-backend"],
                    input=body,
                    capture_output=True,
                    check=False,
                    env={
                        "PATH": os.environ["PATH"],
                        "GIT_PROJECT_ROOT": str(root),
                        "GIT_HTTP_EXPORT_ALL": "1",
                        "GIT_CONFIG_GLOBAL": os.devnull,
                        "PATH_INFO": url.path,
                        "QUERY_STRING": url.query,
                        "REQUEST_METHOD": self.command,
                        "CONTENT_TYPE": self.headers.get("Content-Type") or "",
                        "CONTENT_LENGTH": str(len(body)),
                        "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding") or "",
                        "GIT_PROTOCOL": self.headers.get("Git-Protocol") or "",
                        "REMOTE_ADDR": "127.0.0.1",
                    },
                )
                head, _, content = done.stdout.partition(b"\r\n\r\n")
                headers = [line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line]
                status = next((int(value.split()[0]) for name, value in headers if name == "Status"), 200)
                self._answer(status, [(name, value) for name, value in headers if name != "Status"], content)

            def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
                self.send_response(status)
                for name, value in headers:
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def secure(self, folder: Path) -> Path:
        """Go on by TLS as ``localhost``; returns the certificate to be trusted."""
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder(name, name, key.public_key(), 7, now - timedelta(days=1), now + timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        form = serialization.Encoding.PEM
        private = key.private_bytes(form, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (folder / "key.pem").write_bytes(private)
        (folder / "cert.pem").write_bytes(certificate.public_bytes(form))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://localhost:{self._server.server_port}"
        return folder / "cert.pem"

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def serving(root: Path) -> Any:
    """A ``GitServer`` for the time of a block."""
    server = GitServer(root)
    try:
        yield server
    finally:
        server.close()
