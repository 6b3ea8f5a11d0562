"""What was read last from a source that vouches for its documents, so that it need not be read again.

Belongs here: the tables ``source_entry`` and ``source_state``, and the difference to be written.
Does not belong here: when a source's word is believed (refresh.py), and what it vouches with (resources/sources/).

A row says: under this identity, the document at this path had this content. It is written with the revision that the
content was read for and goes with the document. It holds a hash of the document, so an erasure removes it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from resources.postgres import Connection


@dataclass(frozen=True, slots=True)
class Remembered:
    """What was read at a path.

    Attributes:
        identity: the source's word for the content.
        content_hash: SHA-256 of what was read; None: the source refused to hand it out, with ``refusal``.
        size: bytes.
        refusal: code and reason.
    """

    identity: str
    content_hash: bytes | None
    size: int
    refusal: tuple[str, str] | None = None


@dataclass(frozen=True)
class SourceMemory:
    """What is remembered of a source.

    Attributes:
        entries: by path.
        state: names the listing of the newest revision, where the source has such a name.
    """

    entries: Mapping[str, Remembered] = field(default_factory=dict)
    state: str | None = None


@dataclass(frozen=True)
class MemoryChange:
    """What a commit writes: rows that are new or differ, paths whose rows go, and the listing's name."""

    put: Mapping[str, Remembered] = field(default_factory=dict)
    drop: tuple[str, ...] = ()
    state: str | None = None


def read(connection: Connection, source: str) -> SourceMemory:
    """Everything remembered of a source."""
    rows = connection.execute(
        "SELECT path, identity, content_hash, bytes, refusal_code, refusal_reason FROM source_entry WHERE source = %s",
        (source,),
    )
    entries = {
        path: Remembered(identity, content, size, None if code is None else (code, reason))
        for path, identity, content, size, code, reason in rows
    }
    row = connection.execute("SELECT state FROM source_state WHERE source = %s", (source,)).fetchone()
    return SourceMemory(entries, row[0] if row else None)


def difference(before: SourceMemory, now: Mapping[str, Remembered], state: str | None) -> MemoryChange:
    """What to write so that ``now`` is remembered."""
    put = {path: item for path, item in now.items() if before.entries.get(path) != item}
    return MemoryChange(put, tuple(path for path in before.entries if path not in now), state)


def write(connection: Connection, source: str, change: MemoryChange) -> None:
    """Write a change; work in proportion to it."""
    if change.drop:
        connection.execute("DELETE FROM source_entry WHERE source = %s AND path = ANY(%s)", (source, list(change.drop)))
    if change.put:
        items = sorted(change.put.items())
        connection.execute(
            """INSERT INTO source_entry (source, path, identity, content_hash, bytes, refusal_code, refusal_reason)
               SELECT %s, * FROM unnest(%s::text[], %s::text[], %s::bytea[], %s::bigint[], %s::text[], %s::text[])
               ON CONFLICT (source, path) DO UPDATE SET
                   identity = EXCLUDED.identity, content_hash = EXCLUDED.content_hash, bytes = EXCLUDED.bytes,
                   refusal_code = EXCLUDED.refusal_code, refusal_reason = EXCLUDED.refusal_reason""",
            (
                source,
                [path for path, _ in items],
                [item.identity for _, item in items],
                [item.content_hash for _, item in items],
                [item.size for _, item in items],
                [item.refusal[0] if item.refusal else None for _, item in items],
                [item.refusal[1] if item.refusal else None for _, item in items],
            ),
        )
    if change.state is None:
        connection.execute("DELETE FROM source_state WHERE source = %s", (source,))
    else:
        connection.execute(
            """INSERT INTO source_state (source, state) VALUES (%s, %s)
               ON CONFLICT (source) DO UPDATE SET state = EXCLUDED.state WHERE source_state.state <> EXCLUDED.state""",
            (source, change.state),
        )
