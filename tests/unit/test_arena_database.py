"""The arena's own database: whatever way the configured one is named, it is another one, and nothing secret is told."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from pipelines.arena import _own_database, _with_database, arena_settings
from pipelines.settings import Settings
from resources.errors import ConfigError, PermanentError
from resources.postgres import dagster_url


@pytest.mark.parametrize(
    ("url", "own"),
    [
        ("postgresql://h/prod", "postgresql://h/prod_arena"),
        ("postgres://u:p@h:5432/prod?sslmode=require", "postgres://u:p@h:5432/prod_arena?sslmode=require"),
        ("postgresql://h:5432?dbname=prod&user=u", "postgresql://h:5432/prod_arena?user=u"),
        ("postgresql://h/other?user=u&dbname=x&dbname=prod", "postgresql://h/prod_arena?user=u"),
        ("postgresql://h/other?%64bname=prod", "postgresql://h/prod_arena"),
        ("postgresql://?host=h&dbname=prod", "postgresql:///prod_arena?host=h"),
        ("postgresql:///prod?host=/run/pg", "postgresql:///prod_arena?host=/run/pg"),
        ("postgresql:///?service=live", "postgresql:///prod_arena?service=live"),
        ("postgresql://h", "postgresql://h/prod_arena"),
        ("postgresql://h/pr%6Fd", "postgresql://h/prod_arena"),
        ("postgresql://u:a?b#c@h1:1,[::1]:2/prod?user=u", "postgresql://u:a?b#c@h1:1,[::1]:2/prod_arena?user=u"),
    ],
)
def test_the_database_is_replaced_wherever_a_url_states_it(url: str, own: str) -> None:
    assert _with_database(url, "prod_arena") == own
    before, after = conninfo_to_dict(url), conninfo_to_dict(own)
    assert after == {**before, "dbname": "prod_arena"}, "nothing else changes"


@pytest.mark.parametrize(
    "name", ["a/b_arena", "a b?dbname=prod&x#_arena", "dbname=prod_arena", "100%_arena", "ä_arena"]
)
def test_a_name_with_special_characters_stays_one_name(name: str) -> None:
    assert conninfo_to_dict(_with_database("postgresql://h/x?user=u", name)) == {
        "host": "h",
        "user": "u",
        "dbname": name,
    }


@pytest.mark.parametrize(
    "value",
    [
        "host=h dbname=prod password=s3cr3t",
        "host=h dbname=prod password=a://s3cr3t",
        "s3cr3t",
        "mysql://u:s3cr3t@h/prod",
        "postgresql+psycopg2://u:s3cr3t@h/prod",
        "postgresql://u:s3cr3t@h/prod?unknown=1",
        "postgresql://u:s3cr3t%zz@h/prod",
        "postgresql://u:s3cr3t@h/prod?user",
    ],
)
def test_what_is_no_url_is_refused_before_anything_is_connected_to_and_never_shown(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psycopg, "connect", lambda *_, **__: pytest.fail("it was connected to"))
    with pytest.raises(ConfigError, match=r"GENAIOPS_DATABASE_URL.* write it as postgresql://user@host") as refused:
        arena_settings(Settings(tmp_path, tmp_path, value))
    assert "s3cr3t" not in str(refused.value)
    assert refused.value.__cause__ is None


@pytest.fixture
def databases(server_url: str) -> Iterator[Callable[[str], str]]:
    """Make an empty database of a name; dropped at the end, with what the arena made beside it."""
    made: list[str] = []

    def make(name: str) -> str:
        with psycopg.connect(server_url, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        made.append(name)
        return name

    yield make
    with psycopg.connect(server_url, autocommit=True) as connection:
        for name in made:
            for one in (name, f"{name}_arena"):
                connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(one)))


def connected(url: str) -> str:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT current_database()").fetchone()
    assert row is not None
    return row[0]


def test_no_way_to_name_the_database_leads_into_it(
    server_url: str, databases: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = databases(f"test_{uuid.uuid4().hex[:12]}")
    service = tmp_path / "service.conf"
    service.write_text(f"[live]\ndbname={name}\n")
    monkeypatch.setenv("PGSERVICEFILE", str(service))
    server = server_url.replace("/postgres?", "/?")
    for url in (
        server_url.replace("/postgres?", f"/{name}?"),
        f"{server_url}&dbname={name}",
        f"{server}&dbname={name}",
        f"{server}&service=live",
    ):
        assert connected(url) == name
        own = _own_database(url)
        assert connected(own) == f"{name}_arena"
        assert connected(dagster_url(own).replace("+psycopg2", "")) == f"{name}_arena"
    monkeypatch.setenv("PGDATABASE", name)
    assert connected(_own_database(server)) == f"{name}_arena"


def test_a_name_of_several_words_and_letters_is_kept(server_url: str, databases: Callable[[str], str]) -> None:
    name = databases(f"a/b ä?{uuid.uuid4().hex[:12]}")
    assert connected(_own_database(_with_database(server_url, name))) == f"{name}_arena"


def test_a_name_whose_arena_would_be_itself_is_refused(server_url: str, databases: Callable[[str], str]) -> None:
    name = databases(uuid.uuid4().hex.ljust(57, "x") + "_arena")
    with pytest.raises(
        PermanentError, match=r"_arena would be the one GENAIOPS_DATABASE_URL names, which is only read"
    ):
        _own_database(_with_database(server_url, name))
