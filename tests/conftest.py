"""Fixtures every tier shares: one embedded server per session, one fresh database per test."""

import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from filelock import FileLock
from psycopg import sql

from resources.config import load_config
from resources.platform import Platform
from resources.postgres import Database, migrate, start_embedded, stop_embedded

for _name in ("HF_EVALUATE_OFFLINE", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
    os.environ[_name] = "1"
os.environ["GX_ANALYTICS_ENABLED"] = "false"

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets beside the checkout."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real data sets (../shared/data) are not on this machine")
    return SHARED_DATA


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    """URL of an embedded server with a migrated template database, one for all workers of the session.

    Its folder is not below pytest's: every pytest session closes those to others, and as root the server runs under
    a user of its own.
    """
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID") or uuid.uuid4().hex
    root = Path(tempfile.gettempdir()) / f"genaiops-tests-{run[:12]}"
    root.mkdir(mode=0o755, exist_ok=True)
    directory, users = root / "pg", root / "users"
    with FileLock(str(root / "lock")):
        url = start_embedded(directory)
        with psycopg.connect(url, autocommit=True) as connection:
            exists = connection.execute("SELECT 1 FROM pg_database WHERE datname = 'template_genaiops'").fetchone()
            if not exists:
                # No test cuts the power: waiting for the disk would only make every new database slow.
                for setting in ("fsync", "full_page_writes", "synchronous_commit"):
                    connection.execute(sql.SQL("ALTER SYSTEM SET {} = off").format(sql.Identifier(setting)))
                connection.execute("SELECT pg_reload_conf()")
                connection.execute("CREATE DATABASE template_genaiops")
                migrate(url.replace("/postgres?", "/template_genaiops?"))
        with users.open("a") as handle:
            handle.write("x")
    yield url
    with FileLock(str(root / "lock")):
        left = users.read_text()[1:]
        users.write_text(left)
        if not left:
            stop_embedded(directory)
            shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def make_database(server_url: str) -> Iterator[Callable[[], Database]]:
    """Make fresh, migrated databases; dropped at the end of the test."""
    made: list[tuple[str, Database]] = []

    def make() -> Database:
        name = f"test_{uuid.uuid4().hex[:12]}"
        with psycopg.connect(server_url, autocommit=True) as connection:
            create = sql.SQL("CREATE DATABASE {} TEMPLATE template_genaiops STRATEGY file_copy")
            connection.execute(create.format(sql.Identifier(name)))
        made.append((name, Database(server_url.replace("/postgres?", f"/{name}?"))))
        return made[-1][1]

    yield make
    for name, database in made:
        database.close()
        with psycopg.connect(server_url, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def database(make_database: Callable[[], Database]) -> Database:
    """A fresh, migrated database."""
    return make_database()


@pytest.fixture
def database_url(database: Database) -> str:
    """URL of a fresh, migrated database."""
    return database.url


MODELS: dict[str, Any] = {
    "providers": {"offline": {"kind": "offline"}},
    "embedding": [{"name": "lexical", "provider": "offline", "model": "lexical-hash", "dimensions": 384}],
    "chat": [{"name": "extractive", "provider": "offline", "model": "extractive"}],
}


@pytest.fixture
def make_data_dir(tmp_path: Path) -> Callable[..., Path]:
    """Write a small data directory: one folder source ``docs``, one index ``main``, offline models.

    Keyword arguments replace whole files: ``make_data_dir(**{"indexes/main.yaml": {...}})``; a string is written as is.
    """

    def make(**files: Any) -> Path:
        data = tmp_path / "data"
        (tmp_path / "docs").mkdir(exist_ok=True)
        content: dict[str, Any] = {
            "sources.yaml": {"sources": [{"name": "docs", "path": str(tmp_path / "docs")}]},
            "models.yaml": MODELS,
            "indexes/main.yaml": {
                "name": "main",
                "embedder": "lexical",
                "chunker": {"kind": "markdown", "unit": "characters", "size": 400},
            },
            **files,
        }
        for name, value in content.items():
            path = data / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(
                value if isinstance(value, str) else yaml.safe_dump(value, sort_keys=False), encoding="utf-8"
            )
        return data

    return make


@pytest.fixture
def make_platform(database: Database, tmp_path: Path, make_data_dir: Callable[..., Path]) -> Callable[..., Platform]:
    """Build a platform on a fresh database and a small data directory (see ``make_data_dir``)."""

    def make(**files: Any) -> Platform:
        return Platform(config=load_config(make_data_dir(**files)), database=database, artifacts=tmp_path / "artifacts")

    return make
