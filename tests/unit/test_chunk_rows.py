"""Rows of chunks for COPY: what PostgreSQL reads back is what was written, value by value."""

import struct

import pytest

from assets.chunks.chunkers import Chunk
from assets.chunks.chunking import _copy
from assets.chunks.rows import CHUNK_COLUMNS, INPUT_COLUMNS, chunk_row, input_row, stream
from resources.postgres import Database

HASH, OTHER = bytes(range(16)), bytes(range(240, 256))
CHUNKS = [
    Chunk(0, 0, 1, OTHER, (), 1),
    Chunk(1, 5, 2_147_483_647, HASH, ("Größe", "", '日本 \\ " {,} NULL', "\U0001f600"), 300, (0, 7)),
    Chunk(2, 9, 11, OTHER, ("Größe",), 2, (9, 2_147_483_647)),
]


def test_every_value_comes_back(database: Database) -> None:
    inputs = [(3, 7, HASH, 0, OTHER, None), (3, 7, HASH, 1, HASH, "Größe \\N \t\n 日本"), (3, 7, HASH, 2, HASH, "")]
    with database.connect() as connection:
        connection.execute("CREATE TEMP TABLE some_chunks (LIKE chunk)")
        connection.execute("CREATE TEMP TABLE some_inputs (LIKE chunk_input)")
        _copy(connection, "some_chunks", CHUNK_COLUMNS, (chunk_row(7, HASH, chunk) for chunk in CHUNKS))
        _copy(connection, "some_inputs", INPUT_COLUMNS, (input_row(*item) for item in inputs))
        chunks = connection.execute(f"SELECT {CHUNK_COLUMNS} FROM some_chunks ORDER BY ordinal").fetchall()  # type: ignore[arg-type]
        found = connection.execute(f"SELECT {INPUT_COLUMNS} FROM some_inputs ORDER BY ordinal").fetchall()  # type: ignore[arg-type]
    assert found == inputs
    assert chunks == [
        (7, HASH, item.ordinal, item.start, item.end, item.hash, list(item.heading_path), item.tokens)
        + (item.parent or (None, None))
        for item in CHUNKS
    ]


def test_many_rows_come_in_blocks_and_none_is_lost(database: Database) -> None:
    rows = [input_row(1, 1, HASH, number, HASH, "x" * 1000) for number in range(2_000)]
    blocks = list(stream(rows))
    assert 7 <= len(blocks) <= 9
    assert max(map(len, blocks)) < 300_000
    with database.connect() as connection:
        connection.execute("CREATE TEMP TABLE some_inputs (LIKE chunk_input)")
        _copy(connection, "some_inputs", INPUT_COLUMNS, rows)
        _copy(connection, "some_inputs", INPUT_COLUMNS, [])
        row = connection.execute("SELECT count(*), count(DISTINCT ordinal), sum(length(search_text)) FROM some_inputs")
        assert row.fetchone() == (2_000, 2_000, 2_000_000)


def test_a_number_that_does_not_fit_is_refused() -> None:
    with pytest.raises(struct.error):
        chunk_row(1, HASH, Chunk(0, 0, 2_147_483_648, HASH, (), 1))
