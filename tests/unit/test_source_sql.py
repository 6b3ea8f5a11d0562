"""The kind ``sql``: incremental by a watermark, in full without one, read-only, on SQLite and PostgreSQL."""

import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pydantic import ValidationError

from resources.errors import ConfigError, TransientError
from resources.platform import Platform
from resources.postgres import Database
from resources.sources.base import DocumentRefusedError, Listing, SourceContext
from resources.sources.sql import SqlRows, SqlSource
from tests.corpus_support import changes, identities, quarantined, refresh
from tests.source_worlds import SqliteWorld

COLUMNS = {"id": "id", "text": "text"}


def open_sql(tmp_path: Path, url: str | None, **settings: Any) -> SqlRows:
    read = SqlSource.model_validate({"name": "docs", "url_env": "SOURCE_URL", "columns": COLUMNS, **settings})
    return SqlRows(SourceContext(tmp_path, tmp_path / "state", {"SOURCE_URL": url} if url else {}), read)


def contents(listing: Listing) -> dict[str, bytes]:
    if listing.prefetch:
        listing.prefetch(listing.entries)
    return {entry.path: entry.fetch() for entry in listing.entries}


@pytest.fixture
def postgres(database: Database) -> str:
    """URL of a PostgreSQL with the schema ``shop`` and a table of three pages."""
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA shop")
        connection.execute(
            """CREATE TABLE shop.page (region text, id bigint, title text, body text, price numeric(8, 2),
                                       data jsonb, updated_at timestamptz NOT NULL)"""
        )
        connection.execute(
            """INSERT INTO shop.page VALUES
                   ('eu', 1, 'One', 'Body of one.', 1.50, '{"a": 1}', '2024-01-01T00:00:00Z'),
                   ('eu', 2, 'Two', 'Body of two.', NULL, NULL, '2024-01-02T00:00:00Z'),
                   ('us', 1, 'Uno', 'Body at 10:30 for 50 %.', 2, NULL, '2024-01-03T00:00:00Z')"""
        )
    return database.url


def pages(tmp_path: Path, url: str, **settings: Any) -> SqlRows:
    columns = {"id": ["region", "id"], "text": "body", "title": "title", "metadata": ["price", "data"]}
    return open_sql(tmp_path, url, **{"table": "shop.page", "columns": columns, **settings})


# --- PostgreSQL


def test_a_table_of_postgresql_is_listed_and_read(tmp_path: Path, postgres: str) -> None:
    listing = pages(tmp_path, postgres, watermark="updated_at").list()
    found = contents(listing)
    assert sorted(found) == ["eu/1.md", "eu/2.md", "us/1.md"]
    assert (
        found["eu/1.md"].decode()
        == """---\ndata: '{"map": [["a", 1]]}'\nprice: '1.50'\ntitle: One\n---\nBody of one."""
    )
    entry = next(entry for entry in listing.entries if entry.path == "us/1.md")
    assert entry.modified == datetime(2024, 1, 3, tzinfo=UTC)
    assert entry.provenance == {"kind": "sql", "table": "shop.page"}
    assert entry.confirm
    assert entry.confirm()


def test_a_query_may_hold_colons_percents_and_comments(tmp_path: Path, postgres: str) -> None:
    query = """-- pages; with prices
        SELECT region || ':' || id::text AS id, body AS text FROM shop.page
        WHERE body LIKE '%10:30%' AND '50 %' <> 'x' -- last
        ;"""
    assert contents(open_sql(tmp_path, postgres, query=query).list()) == {
        "us%3A1.md": b"Body at 10:30 for 50 %."
    }  # fmt: skip


def test_unchanged_rows_are_listed_and_not_fetched(
    postgres: str, make_platform: Callable[..., Platform], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_URL", postgres)
    source = {
        "name": "docs", "kind": "sql", "url_env": "SHOP_URL", "table": "shop.page", "watermark": "updated_at",
        "columns": {"id": ["region", "id"], "text": "body"},
    }  # fmt: skip
    platform = make_platform(**{"sources.yaml": {"sources": [source]}})
    refresh(platform)
    before = identities(platform)
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("UPDATE shop.page SET body = 'New.', updated_at = now() WHERE region = 'us'")
        connection.execute(
            "UPDATE shop.page SET body = 'Not seen: the watermark stayed.' WHERE region = 'eu' AND id = 1"
        )
        connection.execute("DELETE FROM shop.page WHERE region = 'eu' AND id = 2")
    plan, revision = refresh(platform)
    assert (changes(revision), plan.fetches) == ({"changed": 1, "deleted": 1}, 1)
    assert identities(platform) == {path: before[path] for path in ("eu/1.md", "us/1.md")}


def test_transactions_cannot_write(tmp_path: Path, postgres: str) -> None:
    source = pages(tmp_path, postgres)
    source.list()
    with source._reading() as connection:
        assert connection.exec_driver_sql("SHOW transaction_read_only").scalar() == "on"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(
            """CREATE FUNCTION shop.sly() RETURNS TABLE (id text, text text) LANGUAGE sql VOLATILE AS
               'DELETE FROM shop.page RETURNING region, body'"""
        )
    with pytest.raises(ConfigError, match="25006"):  # read_only_sql_transaction
        open_sql(tmp_path, postgres, query="SELECT * FROM shop.sly()").list()


def test_a_listing_sees_one_state_of_the_database(tmp_path: Path, postgres: str) -> None:
    source = pages(tmp_path, postgres)
    with source._reading() as connection:
        rows = source._stream(connection, ["id"])
        next(rows)
        with psycopg.connect(postgres, autocommit=True) as other:
            other.execute("DELETE FROM shop.page")
        assert len([*rows]) == 2


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"table": "shop.pages"}, ConfigError, "there is no table 'shop.pages'"),
        ({"table": "shop.page", "columns": {"id": "id", "text": "bodi"}}, ConfigError, "Did you mean 'body'"),
        ({"table": "shop.page", "watermark": "changed"}, ConfigError, "watermark: there is no column 'changed'"),
        ({"table": None, "query": "SELECT * FROM nowhere"}, ConfigError, 'relation "nowhere" does not exist'),
        ({"table": None, "query": "SELECT 1 +"}, ConfigError, "refuses the query"),
        ({"table": None, "query": "SELECT 'hunter2'::int AS id, '' AS text"}, ConfigError, "22P02"),
    ],
)
def test_mistakes_are_named_and_values_are_not_shown(
    tmp_path: Path, postgres: str, settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    given = {"columns": {"id": "id", "text": "body"}, "table": "shop.page", **settings}
    with pytest.raises(error) as caught:
        open_sql(tmp_path, postgres, **{key: value for key, value in given.items() if value}).list()
    assert message in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_database_that_cannot_be_reached_is_transient_and_hides_its_password(tmp_path: Path) -> None:
    source = open_sql(tmp_path, "postgresql://me:hunter2@127.0.0.1:9/x?connect_timeout=2", table="t")
    for ask in (source.list, source.fingerprint):
        with pytest.raises(TransientError, match="cannot be read just now") as caught:
            ask()
        assert "hunter2" not in str(caught.value)
        assert caught.value.__cause__ is None


def test_a_statement_that_takes_too_long_is_ended(tmp_path: Path, postgres: str) -> None:
    query = "SELECT '1' AS id, pg_sleep(30)::text AS text"
    with pytest.raises(TransientError, match="57014"):
        open_sql(tmp_path, postgres, query=query, query_seconds=0.3).list()


@pytest.mark.slow
def test_keys_come_in_portions_and_texts_in_batches(tmp_path: Path, database: Database) -> None:
    import tracemalloc

    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute(
            """CREATE TABLE page AS SELECT n AS id, repeat('x', 10000) || n AS text, now() AS at
               FROM generate_series(1, 8000) n"""
        )
    for watermark in ({"watermark": "at"}, {}):
        source = open_sql(tmp_path, database.url, table="page", **watermark)
        tracemalloc.start()
        listing = source.list()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(listing.entries) == 8000
        assert peak < 45_000_000  # the texts are 80 MB
    assert listing.prefetch
    listing.prefetch(listing.entries[100:164])
    assert listing.entries[130].fetch().startswith(b"xxx")


# --- SQLite


@pytest.fixture
def sqlite(tmp_path: Path) -> SqliteWorld:
    world = SqliteWorld(tmp_path / "a.db", watermark=True)
    world.apply({"a": "# A", "b": "# B"})
    return world


def local(tmp_path: Path, world: SqliteWorld, **settings: Any) -> SqlRows:
    return open_sql(tmp_path, f"sqlite:///{world.file}", **{"table": "page", **settings})


def test_a_null_watermark_vouches_for_nothing(tmp_path: Path, sqlite: SqliteWorld) -> None:
    sqlite.execute("UPDATE page SET updated = NULL WHERE id = 'a'")
    entries = {entry.path: entry for entry in local(tmp_path, sqlite, watermark="updated").list().entries}
    assert entries["a.md"].identity is None
    assert entries["b.md"].identity is not None


def test_a_row_that_changed_after_it_was_listed_is_not_confirmed(tmp_path: Path, sqlite: SqliteWorld) -> None:
    for settings in ({"watermark": "updated"}, {}):
        entry = next(e for e in local(tmp_path, sqlite, **settings).list().entries if e.path == "a.md")
        sqlite.apply({"a": f"# A, changed with {settings}"})
        assert entry.confirm
        assert entry.fetch().startswith(b"# A, changed")
        assert not entry.confirm()


def test_a_row_deleted_after_it_was_listed_was_never_there(
    sqlite: SqliteWorld, make_platform: Callable[..., Platform], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_SOURCE_URL", sqlite.environment["TEST_SOURCE_URL"])
    platform = make_platform(**{"sources.yaml": {"sources": [{"name": "docs", **sqlite.settings}]}})
    refresh(platform)
    sqlite.apply({"a": "# A 2"})
    list_rows = SqlRows.list

    def list_then_delete(self: SqlRows) -> Listing:
        listing = list_rows(self)
        sqlite.apply({"a": None})
        return listing

    monkeypatch.setattr(SqlRows, "list", list_then_delete)
    _, revision = refresh(platform)
    assert (changes(revision), quarantined(platform)) == ({"deleted": 1}, {})


def test_another_query_or_template_is_another_identity(tmp_path: Path, sqlite: SqliteWorld) -> None:
    template = {"columns": {"id": "id"}, "template": "{{ text }}"}
    seen = {
        local(tmp_path, sqlite, watermark="updated", **more).list().entries[0].identity
        for more in ({}, template, {"table": None, "query": "SELECT * FROM page"}, {"table": None, "query": "SELECT * FROM page "},
                     {"table": None, "query": "SELECT id, upper(text) AS text, updated FROM page"})
    }  # fmt: skip
    assert len(seen) == 5


def test_rows_without_an_id_and_rows_of_the_same_id_are_refused(tmp_path: Path, sqlite: SqliteWorld) -> None:
    sqlite.execute("INSERT INTO page VALUES (NULL, 'x', 9), ('b', 'again', 10), ('c', NULL, 11)")
    listing = local(tmp_path, sqlite).list()
    assert [entry.path for entry in listing.entries] == ["a.md"]
    assert {item.path: item.code for item in listing.refused} == {
        "b.md": "duplicate_id",
        "row 3": "bad_row",
        "row 5": "bad_row",
    }
    entry = next(e for e in local(tmp_path, sqlite, watermark="updated").list().entries if e.path == "c.md")
    with pytest.raises(DocumentRefusedError, match="'text' is missing or null"):
        entry.fetch()


def test_a_missing_file_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="names no file of SQLite"):
        open_sql(tmp_path, f"sqlite:///{tmp_path}/none.db", table="page").list()
    assert not (tmp_path / "none.db").exists()


def test_sqlite_is_read_only(tmp_path: Path, sqlite: SqliteWorld) -> None:
    source = local(tmp_path, sqlite)
    from sqlalchemy import text

    with pytest.raises((ConfigError, TransientError)):
        with source._reading() as connection:
            connection.execute(text("DELETE FROM page"))
    with sqlite3.connect(sqlite.file) as connection:
        assert connection.execute("SELECT count(*) FROM page").fetchone() == (2,)
    connection.close()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (None, "the environment variable SOURCE_URL is not set"),
        ("hunter2", "is not a database URL"),
        ("klingon://hunter2@x/y", "begins with a dialect that is not installed"),
        ("mysql+pymysql://me:hunter2@x/y", "pip install pymysql"),
    ],
)
def test_a_url_that_cannot_work_is_named_by_its_variable(tmp_path: Path, url: str | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        open_sql(tmp_path, url, table="page").list()
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "say either table or query"),
        ({"table": "a", "query": "SELECT 1"}, "say either table or query"),
        ({"query": "DELETE FROM a"}, "write one SELECT"),
        ({"query": "SELECT 1; DELETE FROM a"}, "write one SELECT"),
        ({"query": "/* x */ DROP TABLE a"}, "write one SELECT"),
    ],
)
def test_settings_that_could_do_harm_are_refused(settings: dict[str, str], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SqlSource.model_validate({"name": "docs", "url_env": "U", "columns": COLUMNS, **settings})


def test_a_url_in_the_file_is_refused_without_showing_it(make_data_dir: Callable[..., Path]) -> None:
    from resources.config import load_config

    source = {"name": "docs", "kind": "sql", "url_env": "postgresql://me:hunter2@x/y", "table": "t", "columns": COLUMNS}
    with pytest.raises(ConfigError, match="name an environment variable") as caught:
        load_config(make_data_dir(**{"sources.yaml": {"sources": [source]}}))
    assert "hunter2" not in str(caught.value)
