"""Parquet files: whole or not at all, and the same bytes for the same content."""

from pathlib import Path

import pyarrow as pa
import pytest

from resources.parquet_io import read_metadata, read_table, write_table

SCHEMA = pa.schema([("id", pa.string()), ("n", pa.int32()), ("spans", pa.list_(pa.struct([("start", pa.int32())])))])
ROWS = [{"id": "a", "n": 1, "spans": [{"start": 3}]}, {"id": "ü", "n": None}]


def test_rows_and_provenance_come_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "v1.parquet"
    size = write_table(path, ROWS, SCHEMA, {"dataset": "qa", "version": 1})
    assert size == path.stat().st_size
    assert read_table(path).to_pylist() == [ROWS[0], {"id": "ü", "n": None, "spans": None}]
    assert read_metadata(path) == {"dataset": "qa", "version": 1}


def test_same_content_gives_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_table(tmp_path / name, iter(ROWS), SCHEMA, {"b": 1, "a": 2})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_failed_write_leaves_the_old_file_and_no_remains(tmp_path: Path) -> None:
    path = tmp_path / "v1.parquet"
    write_table(path, ROWS, SCHEMA)
    before = path.read_bytes()
    with pytest.raises(pa.ArrowInvalid):
        write_table(path, [{"id": "a", "n": "no number"}], SCHEMA)
    with pytest.raises(ValueError, match="JSON compliant"):
        write_table(path, ROWS, SCHEMA, {"share": float("nan")})
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["v1.parquet"]


def test_write_that_breaks_in_the_middle_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "v1.parquet"
    write_table(path, ROWS, SCHEMA)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_table(path, ROWS[:1], SCHEMA)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["v1.parquet"]


def test_file_without_provenance_reads_as_empty(tmp_path: Path) -> None:
    write_table(tmp_path / "x", ROWS, SCHEMA)
    assert read_metadata(tmp_path / "x") == {}
