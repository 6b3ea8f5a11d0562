"""The kind ``sql``: rows of a database table or of a query as documents.

Belongs here: asking a database through SQLAlchemy, in transactions that read only.
Does not belong here: what a row becomes (rows.py), and the database this project keeps its own state in.

Every listing asks for all keys, so that a deleted row is seen. With a ``watermark`` column it asks for nothing else, and
a row is fetched when its watermark differs from the one it was read under; without one, whole rows are read and hashed.
"""

import contextlib
import hashlib
import re
from array import array
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from resources.errors import ConfigError, TransientError
from resources.fingerprint import canonical_json, fingerprint
from resources.sources.base import (
    DocumentVanishedError,
    Listing,
    SourceContext,
    SourceEntry,
    SourceKind,
)
from resources.sources.rows import BadRowError, Row, RowIndex, RowSettings, RowWriter, canonical

if TYPE_CHECKING:
    import sqlalchemy as sa

_LISTED_ROWS = 2000
#: Rows of whole documents are asked for so many at a time.
_FETCHED_ROWS = 64
#: Errors whose message names a table or a column and no value: (SQLSTATE or beginning of the message).
_NAMING_STATES = frozenset({"42P01", "42703", "42601", "42501", "3F000", "42883", "42702"})
_NAMING_MESSAGES = ("no such table", "no such column", 'near "', "ambiguous column name")
_EXTRAS = {
    "mysql": "pymysql",
    "mariadb": "pymysql",
    "oracle": "oracledb",
    "mssql": "pyodbc",
    "snowflake": "snowflake-sqlalchemy",
}


class SqlSource(RowSettings):
    """A table or a query of a database."""

    DESCRIPTIVE: ClassVar[frozenset[str]] = RowSettings.DESCRIPTIVE | {"query_seconds"}

    kind: Literal["sql"] = "sql"
    url_env: str = Field(description="Environment variable with the database's URL, as SQLAlchemy has it.")
    table: str | None = Field(default=None, description="Table or view, with its schema before a dot where it has one.")
    query: str | None = Field(default=None, description="One SELECT, in place of table.")
    watermark: str | None = Field(
        default=None, description="Column that differs whenever the row does, e.g. updated_at or a version number."
    )
    query_seconds: float = Field(default=600.0, gt=0, le=86_400, description="Limit for one statement, on PostgreSQL.")

    @model_validator(mode="after")
    def _one_of_two(self) -> "SqlSource":
        if (self.table is None) == (self.query is None):
            raise ValueError("say either table or query")
        if "://" in self.url_env:
            raise ValueError("url_env: name an environment variable here and put the URL into that")
        if self.query is not None:
            text = re.sub(r"--[^\n]*|/\*.*?\*/", " ", self.query, flags=re.DOTALL).strip().rstrip(";")
            if not re.match(r"(select|with|values|table)\b", text, re.IGNORECASE) or ";" in text:
                raise ValueError("query: write one SELECT")
        return self


class SqlRows:
    """Rows of a table or a query."""

    def __init__(self, context: SourceContext, settings: SqlSource) -> None:
        self._context = context
        self._settings = settings
        self._writer = RowWriter(settings)
        self._fetched: dict[tuple[Any, ...], list[Row]] = {}

    def list(self) -> Listing:
        """See ``DocumentSource.list``."""
        watermark, ids = self._settings.watermark, self._writer.ids
        index = RowIndex(self._settings)
        keys: list[tuple[Any, ...]] = []
        marks: list[Any] = []
        numbers = array("Q")
        with self._reading() as connection:
            wanted = [*ids, watermark] if watermark else self._columns
            for number, row in enumerate(self._stream(connection, wanted), 1):
                try:
                    path = self._writer.path(row)
                    if watermark is None:
                        self._writer.check(row)
                except BadRowError as error:
                    index.refuse(f"row {number}", "bad_row", f"row {number} of the query: {error}")
                    continue
                if watermark:
                    digest, size = self._watermark_digest(row), 0
                else:
                    digest = self._writer.digest(row)
                    size = sum(len(value) for value in row.values() if isinstance(value, str))
                if index.add(path, digest, size):
                    keys.append(tuple(row[name] for name in ids))
                    marks.append(row[watermark] if watermark else None)
                    numbers.append(number)

        salt = self._salt

        def entry(number: int) -> SourceEntry:
            digest = index.digest(number)
            missing = watermark is not None and marks[number] is None
            return SourceEntry(
                path=index.paths[number],
                size=index.sizes[number],
                fetch=partial(self._fetch, keys[number]),
                mark=str(number),
                modified=_time(marks[number]),
                provenance={"kind": "sql", "table": self._settings.table or "query"},
                identity=None if missing else f"row:{digest.hex()}:{salt}",
                confirm=partial(self._confirm, keys[number], digest),
            )

        def prefetch(entries: Sequence[SourceEntry]) -> None:
            self._load([keys[int(entry.mark)] for entry in entries])

        entries, refused = index.finish(entry, lambda number: f"row {numbers[number]} of the query")
        return Listing(entries, refused, {"not included": index.skipped}, prefetch=prefetch)

    def fingerprint(self) -> str:
        """See ``DocumentSource.fingerprint``; the number of rows and the greatest watermark.

        Without a watermark an edit that keeps the number of rows is not seen here, only by the next listing.
        """
        import sqlalchemy as sa

        with self._reading() as connection:
            table = self._selectable
            asked: Any = [sa.func.count()]
            if self._settings.watermark:
                asked.append(sa.func.max(table.c[self._settings.watermark]))
            row = connection.execute(sa.select(*asked).select_from(table)).one()
        return fingerprint([self._settings.fingerprint(), [canonical(value) for value in row]])

    # --- rows

    def _stream(self, connection: "sa.Connection", columns: Sequence[str]) -> Iterator[Row]:
        import sqlalchemy as sa

        statement = sa.select(*(self._selectable.c[name] for name in columns))
        options = {"stream_results": True, "yield_per": _LISTED_ROWS}
        with connection.execution_options(**options).execute(statement) as result:
            for partition in result.partitions():
                for row in partition:
                    yield dict(zip(columns, row, strict=True))

    def _load(self, keys: Sequence[tuple[Any, ...]]) -> None:
        """Read the whole rows of some keys."""
        self._fetched = {}
        with self._reading() as connection:
            for start in range(0, len(keys), _FETCHED_ROWS):
                self._load_some(connection, keys[start : start + _FETCHED_ROWS])

    def _load_some(self, connection: "sa.Connection", keys: Sequence[tuple[Any, ...]]) -> None:
        import sqlalchemy as sa

        table, ids = self._selectable, self._writer.ids
        if len(ids) == 1:
            condition = table.c[ids[0]].in_([key[0] for key in keys])
        else:
            condition = sa.or_(*(sa.and_(*(table.c[n] == v for n, v in zip(ids, key, strict=True))) for key in keys))
        extra = [self._settings.watermark] if self._settings.watermark else []
        columns = list(dict.fromkeys([*self._columns, *extra]))
        for row in connection.execute(sa.select(*(table.c[name] for name in columns)).where(condition)):
            values = dict(zip(columns, row, strict=True))
            self._fetched.setdefault(tuple(values[name] for name in ids), []).append(values)

    def _row(self, key: tuple[Any, ...]) -> Row:
        if key not in self._fetched:
            self._load([key])
        rows = self._fetched.get(key, [])
        if len(rows) != 1:
            raise DocumentVanishedError("the row was deleted while the source was read")
        return rows[0]

    def _fetch(self, key: tuple[Any, ...], limit: int | None = None) -> bytes:
        return self._writer.write(self._row(key), limit)

    def _confirm(self, key: tuple[Any, ...], digest: bytes) -> bool:
        """Whether the row that was fetched is the one that was listed."""
        row = self._fetched.pop(key, [None])[0]
        if row is None:
            return False
        return (self._watermark_digest(row) if self._settings.watermark else self._writer.digest(row)) == digest

    @cached_property
    def _salt(self) -> str:
        """Part of every identity: the same watermark says nothing about another query, or another database."""
        settings, place = self._settings, self._engine.url.render_as_string(hide_password=True)
        asked = [settings.table, settings.query, settings.watermark, *self._columns]
        return fingerprint([self._writer.fingerprint, place, asked])[:16]

    def _watermark_digest(self, row: Row) -> bytes:
        names = [*self._writer.ids, self._settings.watermark or ""]
        text = canonical_json([canonical(row[name]) for name in names])
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()

    # --- the database

    @cached_property
    def _engine(self) -> "sa.Engine":
        import sqlalchemy as sa
        from sqlalchemy import exc

        name = self._settings.name
        stated = self._context.secret(name, "url_env", self._settings.url_env) or ""
        where = f"sources.yaml: source {name!r}: url_env: the value of {self._settings.url_env}"
        try:
            url = sa.make_url(re.sub(r"^postgres://", "postgresql://", stated))
            if url.drivername in ("postgresql", "postgresql+psycopg2"):
                url = url.set(drivername="postgresql+psycopg")
            if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
                raise ConfigError(f"{where} names no file of SQLite")
            return sa.create_engine(url, poolclass=sa.NullPool, hide_parameters=True)
        except exc.NoSuchModuleError:
            raise ConfigError(f"{where} begins with a dialect that is not installed") from None
        except exc.ArgumentError:
            raise ConfigError(f"{where} is not a database URL such as postgresql://user@host/database") from None
        except ModuleNotFoundError as error:
            dialect = re.match(r"\w*", stated)
            package = _EXTRAS.get(dialect[0] if dialect else "", error.name)
            raise ConfigError(f"{where} needs a driver: pip install {package}") from None

    @contextlib.contextmanager
    def _reading(self) -> Iterator["sa.Connection"]:
        """A transaction that cannot write, and whose errors say whether trying again may help."""
        import sqlalchemy as sa
        from sqlalchemy import exc

        try:
            with self._engine.connect() as connection:
                if connection.dialect.name == "postgresql":
                    connection = connection.execution_options(
                        isolation_level="REPEATABLE READ", postgresql_readonly=True
                    )
                    milliseconds = int(self._settings.query_seconds * 1000)
                    connection.execute(sa.text(f"SET LOCAL statement_timeout = {milliseconds}"))
                elif connection.dialect.name == "sqlite":
                    connection.execute(sa.text("PRAGMA query_only = ON"))
                elif connection.dialect.name in ("mysql", "mariadb"):
                    connection.execute(sa.text("SET SESSION TRANSACTION READ ONLY"))
                    connection.rollback()
                yield connection
                connection.rollback()
        except exc.SQLAlchemyError as error:
            raise self._explained(error) from None  # its cause may show values

    def _explained(self, error: Exception) -> Exception:
        from sqlalchemy import exc

        original = getattr(error, "orig", None) or error
        kind, state = type(original).__name__, getattr(original, "sqlstate", None)
        message = str(original).strip().split("\n")[0]
        name = self._settings.name
        if state in _NAMING_STATES or message.startswith(_NAMING_MESSAGES):
            return ConfigError(f"sources.yaml: source {name!r}: the database refuses the query: {message[:200]}")
        shown = f"{kind}{f' ({state})' if state else ''}"
        if state and state.startswith("28"):
            return ConfigError(f"sources.yaml: source {name!r}: url_env: the database refuses the login: {shown}")
        if isinstance(error, exc.NoSuchTableError):
            return ConfigError(f"sources.yaml: source {name!r}: table: there is no table {self._settings.table!r}")
        if isinstance(error, exc.OperationalError | exc.InterfaceError | exc.TimeoutError):
            return TransientError(f"source {name!r}: the database cannot be read just now: {shown}")
        return ConfigError(f"sources.yaml: source {name!r}: the database cannot be read: {shown}")

    @cached_property
    def _selectable(self) -> Any:
        """The table, or the query as one, with its columns."""
        import sqlalchemy as sa

        if self._settings.table is not None:
            schema, _, table = self._settings.table.rpartition(".")
            with self._engine.connect() as connection:
                found: Any = sa.Table(table, sa.MetaData(), schema=schema or None, autoload_with=connection)
        else:
            # colons are part of SQL here (::text, '10:30'), never parameters
            query = str(self._settings.query).strip().rstrip(";").replace(":", "\\:")
            with self._engine.connect() as connection:
                probe = connection.execute(sa.text(f"SELECT * FROM ({query}\n) rows_of_query WHERE 1 = 0"))
                names = list(probe.keys())
            found = sa.text(query).columns(*(sa.column(name) for name in names)).subquery("rows_of_query")
        watermark = [self._settings.watermark] if self._settings.watermark else []
        self._writer.check_columns([column.name for column in found.c], self._settings.table or "the query")
        for name in watermark:
            if name not in found.c:
                raise ConfigError(
                    f"sources.yaml: source {self._settings.name!r}: watermark: there is no column {name!r}; there are: "
                    f"{', '.join(column.name for column in found.c)}"
                )
        return found

    @cached_property
    def _columns(self) -> Sequence[str]:
        needed = self._writer.needed
        return [column.name for column in self._selectable.c if needed is None or column.name in needed]


def _time(value: Any) -> datetime | None:
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    return None


def _open(context: SourceContext, settings: Any) -> SqlRows:
    return SqlRows(context, settings)


KIND = SourceKind(SqlSource, _open)
