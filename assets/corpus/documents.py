"""Documents as the database holds them.

Belongs here: reading the live or any earlier committed state of a source.
Does not belong here: changing it (refresh.py).
"""

from dataclasses import dataclass
from datetime import datetime

from psycopg.sql import SQL

from resources.postgres import Connection


@dataclass(frozen=True)
class LiveDocument:
    """One document version of a committed revision; hashes are the content addresses of raw bytes and of the text."""

    document_id: int
    version_id: int
    path: str
    content_hash: bytes
    text_hash: bytes
    parser_fingerprint: str
    title: str
    language: str | None
    licence: str | None
    origin_time: datetime | None
    size: int
    media_type: str
    characters: int


@dataclass(frozen=True)
class CommittedRevision:
    """A committed state of a source.

    Attributes:
        revision: its number; 0 when nothing was committed yet.
        data_version: hash of the live documents.
        counts: what the run found; all changes are zero when it committed nothing.
        committed: whether this run committed the revision; False: it is that of an earlier run.
    """

    source: str
    revision: int
    data_version: str
    counts: dict[str, int]
    committed: bool


def live_documents(connection: Connection, source: str, revision: int | None = None) -> list[LiveDocument]:
    """The documents of a source, in order of path, now or as of an earlier revision."""
    # The partial index on live rows serves only the exact condition on rev_to.
    shown = "version.rev_to = 2147483647" if revision is None else "%(revision)s BETWEEN rev_from AND rev_to - 1"
    rows = connection.execute(
        SQL(
            """SELECT version.document_id, version.version_id, version.path, version.content_hash, version.text_hash,
                      version.parser_fingerprint, version.title, version.language, version.licence,
                      version.origin_time, version.bytes, version.media_type, document_text.characters
               FROM document_version version JOIN document_text USING (text_hash)
               WHERE version.source = %(source)s AND {shown}
               ORDER BY version.path COLLATE "C" """
        ).format(shown=SQL(shown)),
        {"source": source, "revision": revision},
    ).fetchall()
    return [LiveDocument(*row) for row in rows]


def last_revision(connection: Connection, source: str) -> tuple[int, str]:
    """Number and data version of the newest committed revision; ``(0, "")`` when there is none."""
    row = connection.execute(
        "SELECT revision, data_version FROM source_revision WHERE source = %s ORDER BY revision DESC LIMIT 1", (source,)
    ).fetchone()
    return (row[0], row[1]) if row else (0, "")
