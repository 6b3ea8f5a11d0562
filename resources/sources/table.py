"""The kind ``table``: files of documents, one row each: JSONL, CSV, TSV, Parquet.

Belongs here: going through such files row by row, and finding a row again. Does not belong here: what a row becomes
(rows.py), and a CSV file that is itself a document (kind ``folder``).

A listing reads every file in full, a row at a time, and keeps the place and the hash of each row; only rows whose hash is
new are read again.
"""

import csv
import glob
import io
import json
import os
from array import array
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Literal

from pydantic import Field, model_validator

from resources.errors import ConfigError, TransientError
from resources.fingerprint import fingerprint
from resources.sources.base import DocumentVanishedError, Listing, SourceContext, SourceEntry, SourceKind
from resources.sources.rows import BadRowError, Row, RowIndex, RowSettings, RowWriter, column_name

#: A row may be as long as this; the file is never held as a whole.
MAXIMUM_ROW_BYTES = 64_000_000
_PARQUET_ROWS = 256
_FORMATS = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "tsv", ".tab": "tsv", ".parquet": "parquet",
    ".pq": "parquet",
}  # fmt: skip


class TableSource(RowSettings):
    """Files whose rows are documents."""

    kind: Literal["table"] = "table"
    path: str = Field(min_length=1, description="File or glob pattern, relative to the data directory or absolute.")
    format: Literal["auto", "jsonl", "csv", "tsv", "parquet"] = Field(
        default="auto", description="auto: by the ending of the file."
    )
    encoding: str = Field(default="utf-8", description="Of JSONL, CSV and TSV.")
    delimiter: str | None = Field(default=None, min_length=1, max_length=1, description="Of CSV, when not a comma.")

    @model_validator(mode="after")
    def _known_encoding(self) -> "TableSource":
        try:
            fitting = "a\n".encode(self.encoding) == b"a\n"
        except LookupError:
            fitting = False
        if not fitting:
            raise ValueError(f"encoding: {self.encoding!r} is not an encoding in which lines can be told apart")
        return self


class TableFiles:
    """Files of documents."""

    def __init__(self, context: SourceContext, settings: TableSource) -> None:
        self._settings = settings
        self._pattern = str(context.path(settings.path))
        self._writer = RowWriter(settings)
        self._encoding = (
            "utf-8-sig" if settings.encoding.lower().replace("_", "-") in ("utf-8", "utf8") else settings.encoding
        )
        self._files: Sequence[Path] = ()
        self._headers: dict[int, Sequence[str]] = {}
        self._cursor: _ParquetCursor | None = None

    def list(self) -> Listing:
        """See ``DocumentSource.list``."""
        self._files = self._find()
        self._headers = {}
        index = RowIndex(self._settings)
        files, positions, lengths, lines = array("I"), array("Q"), array("Q"), array("Q")
        for number, file in enumerate(self._files):
            before = self._status(file)
            for position, length, line, digest, row in self._rows(number, file):
                try:
                    if isinstance(row, BadRowError):
                        raise row
                    path = self._writer.path(row)
                    self._writer.check(row)
                except BadRowError as error:
                    index.refuse(f"{self._shown(file)}:{line}", "bad_row", f"{self._unit(file)} {line}: {error}")
                    continue
                if index.add(path, digest, length):
                    files.append(number)
                    positions.append(position)
                    lengths.append(length)
                    lines.append(line)
            if self._status(file) != before:
                raise TransientError(f"source {self._settings.name!r}: {file} changed while it was read; run it again")

        # the same bytes are another row under another header
        reading = [self._writer.fingerprint, self._settings.encoding, self._settings.delimiter]
        salts = [
            fingerprint([*reading, self._format(file), self._headers.get(number)])[:16]
            for number, file in enumerate(self._files)
        ]

        def entry(row: int) -> SourceEntry:
            file, digest = files[row], index.digest(row)
            where = {"file": self._shown(self._files[file]), self._unit(self._files[file]): lines[row]}
            return SourceEntry(
                path=index.paths[row],
                size=index.sizes[row],
                fetch=partial(self._fetch, file, positions[row], lengths[row], digest),
                provenance={"kind": "table", **where},
                identity=f"row:{digest.hex()}:{salts[file]}",
            )

        def where(row: int) -> str:
            file = self._files[files[row]]
            return f"{self._shown(file)} {self._unit(file)} {lines[row]}"

        entries, refused = index.finish(entry, where)
        return Listing(entries, refused, {"not included": index.skipped})

    def fingerprint(self) -> str:
        """See ``DocumentSource.fingerprint``; from configuration and names, sizes and modification times of the files."""
        return fingerprint([self._settings.fingerprint(), [[str(file), *self._status(file)] for file in self._find()]])

    # --- files

    def _find(self) -> Sequence[Path]:
        if glob.has_magic(self._pattern):
            found = sorted(Path(name) for name in glob.glob(self._pattern, recursive=True) if Path(name).is_file())
        else:
            found = [Path(self._pattern)] if Path(self._pattern).is_file() else []
        if not found:
            raise ConfigError(f"sources.yaml: source {self._settings.name!r}: path: there is no file {self._pattern}")
        for file in found:
            self._format(file)
        return found

    def _format(self, file: Path) -> str:
        if self._settings.format != "auto":
            return self._settings.format
        if file.suffix.lower() not in _FORMATS:
            known = ", ".join(_FORMATS)
            raise ConfigError(
                f"sources.yaml: source {self._settings.name!r}: path: {file.name} has none of the endings {known}; "
                "name its format"
            )
        return _FORMATS[file.suffix.lower()]

    def _shown(self, file: Path) -> str:
        """A file as it is named in messages: relative to the part of the pattern without wildcards."""
        parts = Path(self._pattern).parts
        fixed = next((number for number, part in enumerate(parts) if glob.has_magic(part)), len(parts) - 1)
        return Path(*file.parts[fixed:]).as_posix()

    def _unit(self, file: Path) -> str:
        return "row" if self._format(file) == "parquet" else "line"

    def _status(self, file: Path) -> tuple[int, int]:
        try:
            status = file.stat()
        except OSError as error:
            raise self._unreadable(file, error) from error
        return status.st_size, status.st_mtime_ns

    def _unreadable(self, file: Path, error: OSError) -> Exception:
        return TransientError(f"source {self._settings.name!r}: {file} cannot be read: {type(error).__name__}")

    # --- rows

    def _rows(self, number: int, file: Path) -> Iterator[tuple[int, int, int, bytes, Row | BadRowError]]:
        """Position, length, line, digest and values of each row."""
        form = self._format(file)
        if form == "parquet":
            for row, values in _parquet_rows(file, self._writer, self._shown(file)):
                size = sum(len(value) for value in values.values() if isinstance(value, str))
                yield row, size, row + 1, self._writer.digest(values), values
            return
        try:
            with file.open("rb") as stream:
                end = os.fstat(stream.fileno()).st_size  # a file that grows as fast as it is read has an end too
                if form == "jsonl":
                    yield from self._json_rows(stream, end)
                else:
                    yield from self._csv_rows(number, file, _Lines(stream, self._encoding, end))
        except OSError as error:
            raise self._unreadable(file, error) from error

    def _json_rows(self, stream: BinaryIO, end: int) -> Iterator[tuple[int, int, int, bytes, Row | BadRowError]]:
        position = line = 0
        while position < end and (raw := stream.readline(MAXIMUM_ROW_BYTES + 1)):
            line += 1
            start, length = position, len(raw)
            position += length
            if length > MAXIMUM_ROW_BYTES and not raw.endswith(b"\n"):
                while (rest := stream.readline(1 << 20)) and not rest.endswith(b"\n"):
                    position += len(rest)
                position += len(rest)
                yield start, length, line, b"", BadRowError(f"longer than {MAXIMUM_ROW_BYTES:,} bytes")
            elif raw.strip(b"\xef\xbb\xbf \t\r\n"):
                yield start, length, line, self._writer.raw_digest(raw.strip()), self._json(raw)

    def _json(self, raw: bytes) -> Row | BadRowError:
        try:
            row = json.loads(raw.decode(self._encoding))
        except json.JSONDecodeError as error:
            return BadRowError(f"not JSON at column {error.colno}: {error.msg}")
        except UnicodeDecodeError as error:
            return BadRowError(f"not {self._settings.encoding} at byte {error.start}")
        except (RecursionError, ValueError) as error:
            return BadRowError(f"not JSON: {type(error).__name__}")
        return row if isinstance(row, dict) else BadRowError("not a JSON object")

    def _csv_rows(self, number: int, file: Path, lines: "_Lines") -> Iterator[tuple[int, int, int, bytes, Any]]:
        reader = self._reader(file, lines)
        header: list[str] | None = None
        while True:
            start, line = lines.position, lines.line + 1
            lines.hash_from(self._writer)
            try:
                cells = next(reader)
            except StopIteration:
                break
            except UnicodeDecodeError as error:
                raise self._broken(file, line, f"it is not {self._settings.encoding}") from error
            except csv.Error as error:
                raise self._broken(file, line, str(error)) from error
            if header is None:
                header = [column_name(cell) for cell in cells]
                if len(set(header)) != len(header):
                    raise self._broken(file, line, "two columns have the same name")
                self._writer.check_columns(header, self._shown(file))
                self._headers[number] = header
            elif cells:
                length = lines.position - start
                if len(cells) == len(header):
                    row: Row | BadRowError = dict(zip(header, cells, strict=True))
                elif lines.line > line:
                    # a quote that is not closed swallows the rows after it, which would look deleted
                    raise self._broken(file, line, f"{len(cells)} cells over several lines in place of {len(header)}")
                else:
                    row = BadRowError(f"{len(cells)} cells in place of {len(header)}")
                yield start, length, line, lines.digest(), row
        if header is None:
            raise self._broken(file, 1, "it has no header")

    def _reader(self, file: Path, lines: Any) -> Any:
        csv.field_size_limit(MAXIMUM_ROW_BYTES)
        delimiter = self._settings.delimiter or ("\t" if self._format(file) == "tsv" else ",")
        return csv.reader(lines, delimiter=delimiter, strict=True)

    def _broken(self, file: Path, line: int, why: str) -> ConfigError:
        return ConfigError(
            f"sources.yaml: source {self._settings.name!r}: {file} cannot be read from line {line} on: {why}"
        )

    # --- one row again

    def _fetch(self, number: int, position: int, length: int, digest: bytes, limit: int | None = None) -> bytes:
        file = self._files[number]
        if self._format(file) == "parquet":
            if self._cursor is None or not self._cursor.reaches(file, position):
                self._cursor = _ParquetCursor(file, position, self._writer, self._shown(file))
            row: Any = self._cursor.row(position)
            same = bool(row) and self._writer.digest(row) == digest
        else:
            try:
                with file.open("rb") as stream:
                    stream.seek(position)
                    raw = stream.read(length)
            except FileNotFoundError as error:
                raise DocumentVanishedError(f"{file} was deleted while the source was read") from error
            except OSError as error:
                raise self._unreadable(file, error) from error
            jsonl = self._format(file) == "jsonl"
            same = self._writer.raw_digest(raw.strip() if jsonl else raw) == digest
            row = self._json(raw) if jsonl else None
            if same and not jsonl:
                text = io.StringIO(raw.decode(self._settings.encoding), newline="")
                row = dict(zip(self._headers[number], next(self._reader(file, text)), strict=True))
        if not same:
            raise TransientError(f"source {self._settings.name!r}: {file} changed while it was read; run it again")
        return self._writer.write(row, limit)


class _Lines:
    """Lines of a file as text, counting bytes, so that a row of CSV can be found again."""

    def __init__(self, stream: BinaryIO, encoding: str, end: int) -> None:
        self._stream = stream
        self._end = end
        self._encoding = encoding
        self._pieces: list[bytes] = []
        self._writer: RowWriter | None = None
        self.position = 0
        self.line = 0

    def hash_from(self, writer: RowWriter) -> None:
        """Begin a row."""
        self._writer, self._pieces = writer, []

    def digest(self) -> bytes:
        """Hash of the row's bytes."""
        assert self._writer is not None
        return self._writer.raw_digest(b"".join(self._pieces))

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        raw = self._stream.readline(MAXIMUM_ROW_BYTES + 1) if self.position < self._end else b""
        if not raw:
            raise StopIteration
        if len(raw) > MAXIMUM_ROW_BYTES or sum(map(len, self._pieces)) > MAXIMUM_ROW_BYTES:
            raise csv.Error(f"a row is longer than {MAXIMUM_ROW_BYTES:,} bytes; is a quote not closed?")
        self._pieces.append(raw)
        first = self.position == 0
        self.position += len(raw)
        self.line += 1
        return raw.decode(self._encoding if first else self._encoding.removesuffix("-sig"))


def _parquet_rows(file: Path, writer: RowWriter, shown: str, start: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number and values of each row from ``start`` on, a small batch at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False) as table:
            names = table.schema_arrow.names
            writer.check_columns(names, shown)
            needed = writer.needed
            columns = None if needed is None else [name for name in names if name in needed]
            first = 0
            for group in range(table.num_row_groups):
                rows = table.metadata.row_group(group).num_rows
                if first + rows > start:
                    number = first
                    for batch in table.iter_batches(batch_size=_PARQUET_ROWS, row_groups=[group], columns=columns):
                        if number + batch.num_rows > start:
                            for values in batch.to_pylist():
                                if number >= start:
                                    yield number, values
                                number += 1
                        else:
                            number += batch.num_rows
                first += rows
    except pa.ArrowInvalid as error:
        raise ConfigError(f"{file} is not a Parquet file, or is damaged") from error
    except OSError as error:
        raise TransientError(f"{file} cannot be read: {type(error).__name__}") from error


class _ParquetCursor:
    """Rows of a Parquet file in ascending order: a row is decoded once, however many are asked for."""

    def __init__(self, file: Path, start: int, writer: RowWriter, shown: str) -> None:
        self._file = file
        self._next = start
        self._rows = _parquet_rows(file, writer, shown, start)

    def reaches(self, file: Path, number: int) -> bool:
        return file == self._file and number >= self._next

    def row(self, number: int) -> dict[str, Any] | None:
        for found, values in self._rows:
            self._next = found + 1
            if found == number:
                return values
        return None


def _open(context: SourceContext, settings: Any) -> TableFiles:
    return TableFiles(context, settings)


KIND = SourceKind(TableSource, _open)
