"""Places of every kind of source, to be changed by a test: one interface over folders, repositories, stores, tables.

A document is named without ending; in the source it is ``<name>.md``.
"""

import csv
import json
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from tests.corpus_support import write
from tests.git_world import commit, make_repository


class World(Protocol):
    """A place of documents.

    Attributes:
        settings: its entry in sources.yaml, name apart.
    """

    settings: dict[str, Any]

    def apply(self, changes: Mapping[str, str | None]) -> None:
        """Write documents (None: delete)."""
        ...


class FolderWorld:
    """A folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir()
        self.settings = {"kind": "folder", "path": str(root)}

    def apply(self, changes: Mapping[str, str | None]) -> None:
        write(self.root, {f"{name}.md": text for name, text in changes.items()})


class GitWorld:
    """A repository on this machine; every change is a commit."""

    def __init__(self, root: Path) -> None:
        self.root = root
        make_repository(root, {"other/x.md": "# Elsewhere"})
        self.settings = {"kind": "git", "repository": str(root), "ref": "main", "folder": "docs"}

    def apply(self, changes: Mapping[str, str | None]) -> None:
        commit(self.root, {f"docs/{name}.md": text for name, text in changes.items()})


class RowWorld:
    """Rows of a file, written anew at each change."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.rows: dict[str, str] = {}
        self.settings = {"kind": "table", "path": str(file), "columns": {"id": "id", "text": "text"}}

    def apply(self, changes: Mapping[str, str | None]) -> None:
        for name, text in changes.items():
            self.rows.pop(name, None)
            if text is not None:
                self.rows[name] = text
        {".jsonl": self._json, ".csv": self._csv, ".parquet": self._parquet}[self.file.suffix]()

    def _json(self) -> None:
        rows = [json.dumps({"id": name, "text": text}) + "\n" for name, text in self.rows.items()]
        self.file.write_text("".join(rows))

    def _csv(self) -> None:
        with self.file.open("w", newline="") as handle:
            writer = csv.writer(handle)
            writer.writerows([("id", "text"), *self.rows.items()])

    def _parquet(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = {"id": [*self.rows], "text": [*self.rows.values()]}
        schema = pa.schema([("id", pa.string()), ("text", pa.string())])
        pq.write_table(pa.table(columns, schema=schema), self.file, row_group_size=2)


class SqliteWorld:
    """A table of SQLite; ``updated`` grows with every write."""

    def __init__(self, file: Path, *, watermark: bool) -> None:
        self.file = file
        self.clock = 0
        self.settings = {
            "kind": "sql",
            "url_env": "TEST_SOURCE_URL",
            "table": "page",
            "columns": {"id": "id", "text": "text"},
        } | ({"watermark": "updated"} if watermark else {})
        self.environment = {"TEST_SOURCE_URL": f"sqlite:///{file}"}
        self.execute("CREATE TABLE page (id text, text text, updated integer)")

    def execute(self, statement: str, values: tuple[Any, ...] = ()) -> None:
        with sqlite3.connect(self.file) as connection:
            connection.execute(statement, values)
        connection.close()

    def apply(self, changes: Mapping[str, str | None]) -> None:
        for name, text in changes.items():
            self.clock += 1
            self.execute("DELETE FROM page WHERE id = ?", (name,))
            if text is not None:
                self.execute("INSERT INTO page VALUES (?, ?, ?)", (name, text, self.clock))


class StoreWorld:
    """A bucket of an S3 server."""

    def __init__(self, endpoint: str, bucket: str) -> None:
        import boto3

        self.client = boto3.client(
            "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="k", aws_secret_access_key="s3cr3t"
        )
        self.bucket = bucket
        self.client.create_bucket(Bucket=bucket)
        self.settings = {
            "kind": "remote",
            "url": f"s3://{bucket}/docs",
            "options": {"key": "k", "secret_env": "TEST_S3_SECRET", "endpoint_url": endpoint},
            "allow_private": True,
        }
        self.environment = {"TEST_S3_SECRET": "s3cr3t"}

    def apply(self, changes: Mapping[str, str | None]) -> None:
        for name, text in changes.items():
            key = f"docs/{name}.md"
            if text is None:
                self.client.delete_object(Bucket=self.bucket, Key=key)
            else:
                self.client.put_object(Bucket=self.bucket, Key=key, Body=text.encode())
