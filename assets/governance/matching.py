"""Matching: rows and files whose words fit a pattern, found by the server's own regular expressions.

Belongs here: running a pattern over tables and texts, within a time limit. Does not belong here: what is done with what
was found (erasure.py), and which columns hold words (holdings.py).

PostgreSQL's engine does it, for files too: one meaning of a pattern everywhere, and a pattern that would take for ever
is stopped by ``statement_timeout``.
"""

import contextlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from assets.governance.holdings import HOLDINGS
from resources.erased_documents import ERASED
from resources.errors import ConfigError, PermanentError
from resources.postgres import Connection

_BATCH_BYTES = 4_000_000
_SPECIAL = re.compile(r"([\\.*+?()\[\]{}|^$])")


def literal_pattern(text: str) -> str:
    """The pattern of a text as a person means it: any case, any white space between its words.

    Raises:
        ConfigError: there is nothing in it.
    """
    words = text.split()
    if not words:
        raise ConfigError("the text to forget is empty")
    return "(?i)" + r"\s+".join(_SPECIAL.sub(r"\\\1", word) for word in words)


class Matcher:
    """Finds a pattern in one transaction.

    Args:
        pattern: a PostgreSQL regular expression; ``(?i)`` in front ignores case, ``\\m`` and ``\\M`` are word boundaries.
        seconds: for each statement.

    Raises:
        ConfigError: it is no valid expression, or fits everything.
    """

    def __init__(self, connection: Connection, pattern: str, seconds: float) -> None:
        self._connection = connection
        self._pattern = pattern
        self._seconds = seconds
        if self.fits([""])[0]:
            raise ConfigError("the pattern fits an empty text, so it would erase everything; write a stricter one")

    @contextlib.contextmanager
    def _limited(self) -> Iterator[None]:
        """Errors never repeat the pattern or a row: the server's own messages do."""
        try:
            with self._connection.transaction():
                self._connection.execute(
                    "SELECT set_config('statement_timeout', %s, true)", (f"{max(int(self._seconds * 1000), 1)}ms",)
                )
                yield
                self._connection.execute("SELECT set_config('statement_timeout', '0', true)")
        except psycopg.errors.InvalidRegularExpression:
            raise ConfigError(
                "the pattern is not a valid regular expression of PostgreSQL, or it is too complex"
            ) from None
        except psycopg.errors.QueryCanceled:
            raise PermanentError(
                f"the pattern needs more than {self._seconds:g} s for one table; write it simpler, without nested "
                "repetitions, or allow more with --time-limit. Nothing was erased."
            ) from None

    def rows(self, table: str, columns: Sequence[str], key: Sequence[str]) -> list[tuple[Any, ...]]:
        """Keys of the rows of a table with a match in one of ``columns``, distinct."""
        types = dict(
            self._connection.execute(
                """SELECT column_name, data_type FROM information_schema.columns
                   WHERE table_schema = 'genaiops' AND table_name = %s""",
                (table,),
            ).fetchall()
        )
        conditions = [_condition(column, types[column]) for column in columns if column in types]
        if not conditions:
            return []
        query = sql.SQL("SELECT DISTINCT {} FROM {} WHERE {}").format(
            sql.SQL(", ").join(map(sql.Identifier, key)), sql.Identifier(table), sql.SQL(" OR ").join(conditions)
        )
        with self._limited():
            return self._connection.execute(query, {"pattern": self._pattern}).fetchall()

    def fits(self, texts: Sequence[str]) -> list[bool]:
        """Whether each of these texts has a match."""
        found: list[bool] = []
        for batch in _batches(texts):
            with self._limited():
                rows = self._connection.execute(
                    "SELECT words ~ %s FROM unnest(%s::text[]) WITH ORDINALITY given (words, number) ORDER BY number",
                    (self._pattern, [text.replace("\0", " ") for text in batch]),
                ).fetchall()
            found += [row[0] for row in rows]
        return found

    def scrub(self, table: str) -> int:
        """Replace what matches in a table whose rows stay: a whole text, a string inside JSON; returns rows changed."""
        holding = HOLDINGS[table]
        keys = self.rows(table, holding.words, holding.key)
        condition = sql.SQL(" AND ").join(sql.SQL("{} = %s").format(sql.Identifier(name)) for name in holding.key)
        columns = sql.SQL(", ").join(map(sql.Identifier, holding.words))
        for key in keys:
            query = sql.SQL("SELECT {} FROM {} WHERE {} FOR UPDATE")
            row = self._connection.execute(query.format(columns, sql.Identifier(table), condition), key).fetchone()
            assert row is not None
            clean = [self._clean(value) for value in row]
            values = [Jsonb(value) if isinstance(value, dict | list) else value for value in clean]
            changes = sql.SQL(", ").join(sql.SQL("{} = %s").format(sql.Identifier(name)) for name in holding.words)
            update = sql.SQL("UPDATE {} SET {} WHERE {}").format(sql.Identifier(table), changes, condition)
            self._connection.execute(update, (*values, *key))
        return len(keys)

    def _clean(self, value: Any) -> Any:
        """A value without the words that match; numbers may be among them, for example a telephone number."""
        words = list(dict.fromkeys(scalars(value)))
        bad = {word for word, fits in zip(words, self.fits(words), strict=True) if fits}
        return _replaced(value, bad)


def scalars(value: Any) -> Iterator[str]:
    """Every string, number and key inside a value."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield str(key)
            yield from scalars(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from scalars(item)
    elif value is not None and not isinstance(value, bool):
        yield str(value)


def _replaced(value: Any, bad: set[str]) -> Any:
    if isinstance(value, dict):
        return {(ERASED if str(key) in bad else key): _replaced(item, bad) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_replaced(item, bad) for item in value]
    if value is None or isinstance(value, bool):
        return value
    return ERASED if str(value) in bad else value


def _condition(column: str, kind: str) -> sql.Composed:
    name = sql.Identifier(column)
    if kind == "jsonb":
        return sql.SQL(
            """EXISTS (SELECT FROM jsonb_path_query({0}, 'strict $.**') item
                       WHERE jsonb_typeof(item) NOT IN ('object', 'array') AND item #>> '{{}}' ~ %(pattern)s)
               OR EXISTS (SELECT FROM jsonb_path_query({0}, 'strict $.** ? (@.type() == "object").keyvalue().key') item
                          WHERE item #>> '{{}}' ~ %(pattern)s)"""
        ).format(name)
    if kind == "ARRAY":
        return sql.SQL("EXISTS (SELECT FROM unnest({}) item WHERE item ~ %(pattern)s)").format(name)
    return sql.SQL("{} ~ %(pattern)s").format(name)


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
