"""A real MLflow server on this machine: its own process, SQLite, a free port of the loopback interface.

Belongs here: starting it, and looking into what it holds. Does not belong here: assertions.
"""

import contextlib
import importlib.util
import os
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

#: What the server needs beside the client of the extra [mlflow].
NEEDED = ("mlflow", "flask", "flask_cors", "graphene", "huey")


@dataclass(frozen=True)
class MlflowServer:
    """A running server and its files."""

    uri: str
    folder: Path

    def client(self) -> Any:
        """The library's own client, to read back what was sent."""
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        from mlflow import MlflowClient

        return MlflowClient(self.uri)

    def runs(self, experiment: str, kind: str) -> list[Any]:
        """All runs of a kind (``result`` or ``variant``) of an experiment."""
        client = self.client()
        found = client.get_experiment_by_name(experiment)
        return (
            [] if found is None else list(client.search_runs([found.experiment_id], f"tags.`genaiops.kind` = '{kind}'"))
        )

    def holds(self, text: str) -> list[str]:
        """Where a text stands: tables and columns of the database, and artifacts; also inside Parquet."""
        places = []
        with contextlib.closing(sqlite3.connect(self.folder / "mlflow.db")) as connection:
            tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            for (table,) in tables:
                for column in [row[1] for row in connection.execute(f'PRAGMA table_info("{table}")')]:
                    query = f'SELECT count(*) FROM "{table}" WHERE instr(CAST("{column}" AS TEXT), ?) > 0'
                    if connection.execute(query, (text,)).fetchone()[0]:
                        places.append(f"{table}.{column}")
        for path in sorted((self.folder / "artifacts").rglob("*")):
            if path.is_file() and text in _readable(path):
                places.append(path.relative_to(self.folder).as_posix())
        return places


def _readable(path: Path) -> str:
    if path.suffix == ".parquet":
        from resources.parquet_io import read_table

        return str(read_table(path).to_pylist())
    return path.read_text(encoding="utf-8", errors="replace")


@contextlib.contextmanager
def mlflow_server(folder: Path) -> Iterator[MlflowServer]:
    """Start a server with its database and artifacts in ``folder``; skips the test when it cannot run here."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"a local MLflow server needs {', '.join(missing)} (extras [mlflow] and [dev])")
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = (folder / "server.log").open("wb")
    process = subprocess.Popen(
        [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
            "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--artifacts-destination", str(folder / "artifacts"),
        ],
        stdout=log, stderr=log, start_new_session=True, cwd=folder,
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")},
            "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        },
    )  # fmt: skip
    try:
        uri = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 180
        while True:
            try:
                with urllib.request.urlopen(f"{uri}/health", timeout=1):
                    break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((folder / "server.log").read_text(errors="replace")[-2000:]) from None
                time.sleep(0.2)
        yield MlflowServer(uri, folder)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 15)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()
        log.close()
