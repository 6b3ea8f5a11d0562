"""Parquet files: tables written whole or not at all, with their provenance in the schema metadata.

Belongs here: atomic, deterministic writing, and reading back.
Does not belong here: what a table means; its stage says which columns and metadata it has.
"""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resources.fingerprint import canonical_json

if TYPE_CHECKING:
    import pyarrow as pa

#: Key of our entry in the schema metadata; other tools keep theirs beside it.
METADATA_KEY = b"genaiops"


def write_table(
    path: Path,
    records: Iterable[Mapping[str, Any]],
    schema: "pa.Schema",
    metadata: Mapping[str, Any] | None = None,
) -> int:
    """Write records as one Parquet file (zstd) and return its size in bytes.

    A reader sees the old file or the new one: the new one is written beside it, flushed to disk and renamed. The same
    records, schema and metadata give the same bytes.

    Args:
        path: file to write; missing folders are made.
        records: one mapping per row; a missing key is null.
        schema: column names and types.
        metadata: JSON-able provenance, kept in the schema metadata under ``genaiops``.

    Raises:
        pyarrow.ArrowInvalid: a value does not fit its column.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pylist([dict(record) for record in records], schema=schema)
    if metadata is not None:
        table = table.replace_schema_metadata(
            {**(table.schema.metadata or {}), METADATA_KEY: canonical_json(dict(metadata)).encode()}
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            pq.write_table(table, file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    _flush_folder(path.parent)
    return size


def read_table(path: Path) -> "pa.Table":
    """Read a whole Parquet file."""
    import pyarrow.parquet as pq

    return pq.ParquetFile(path).read()


def read_metadata(path: Path) -> dict[str, Any]:
    """The provenance a file was written with; empty when it has none."""
    import pyarrow.parquet as pq

    return json.loads((pq.read_schema(path).metadata or {}).get(METADATA_KEY, b"{}"))


def _flush_folder(folder: Path) -> None:
    """Make the rename itself survive a power loss."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
