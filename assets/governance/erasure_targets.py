"""Targets: what an erasure has to remove, worked out from what was asked for.

Belongs here: the selector, the documents it means, everything that identifies them, and what counts as a mention of them.
Does not belong here: removing anything (erasure_tables.py, erasure_files.py) and the order of it all (erasure.py).
"""

import contextlib
import hashlib
import json
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from assets.governance.holdings import HOLDINGS
from assets.governance.matching import Matcher, literal_pattern
from resources.errors import ConfigError
from resources.postgres import Connection
from resources.sharding import source_of

#: So many consecutive words, found again elsewhere, count as a quotation.
QUOTED_WORDS = 8
#: For each statement that runs a pattern.
PATTERN_SECONDS = 60.0
_WORD = re.compile(r"\w+")
_ROWS = 200  # texts read at a time


@dataclass(frozen=True)
class Selector:
    """What is to be forgotten: exactly one of a document, a source, and a pattern."""

    source: str | None = None
    path: str | None = None
    pattern: str | None = None
    seconds: float = PATTERN_SECONDS

    @property
    def words(self) -> str:
        """For the record; a pattern may be personal data itself and is kept as a salted hash."""
        if self.pattern is None:
            return f"document:{self.source}/{self.path}" if self.path is not None else f"source:{self.source}"
        salt = secrets.token_hex(8)
        hashed = hashlib.sha256(f"{salt}:{self.pattern}".encode()).hexdigest()
        return f"pattern:sha256:{salt}:{hashed}" + (f" in {self.source}" if self.source else "")

    @property
    def shown(self) -> str:
        """The same with the pattern as it is."""
        return f"pattern:{self.pattern}" if self.pattern is not None else self.words


@dataclass
class Found:
    """What the selector says itself, before anything derived from it is looked for."""

    documents: set[int] = field(default_factory=set)
    places: set[tuple[str, str]] = field(default_factory=set)  # (source, path) known without a document
    texts: set[bytes] = field(default_factory=set)  # cached texts that no document has
    contents: set[bytes] = field(default_factory=set)
    rows: dict[str, list[tuple[Any, ...]]] = field(default_factory=dict)  # keys of rows that go on their own

    def __bool__(self) -> bool:
        return bool(self.documents or self.places or self.texts or self.contents or any(self.rows.values()))


@dataclass
class Target:
    """Everything that identifies what must go."""

    keys: set[tuple[str, str]]  # (source, path), every path the documents ever had
    documents: list[int]
    contents: list[bytes]  # hashes of raw bytes, of versions and of quarantined files
    texts: list[bytes] = field(default_factory=list)  # hashes of texts no other document shares
    quotations: set[int] = field(default_factory=set)  # hashes of runs of QUOTED_WORDS words of those texts
    trials: set[str] = field(default_factory=set)
    questions: set[tuple[str, str]] = field(default_factory=set)  # (dataset, question_id)
    interactions: set[Any] = field(default_factory=set)
    generations: set[str] = field(default_factory=set)
    retrievals: set[str] = field(default_factory=set)
    feedback: set[int] = field(default_factory=set)
    drafts: set[int] = field(default_factory=set)
    promoted: set[str] = field(default_factory=set)  # interactions, as lines of promoted questions name them

    @property
    def names(self) -> set[str]:
        """``source/path`` of every key; of a shard also with the source's own name, as answers cite it."""
        return {f"{name}/{path}" for source, path in self.keys for name in (source, source_of(source))}


def make_selector(
    *,
    document: str | None = None,
    source: str | None = None,
    pattern: str | None = None,
    text: str | None = None,
    seconds: float = PATTERN_SECONDS,
) -> Selector:
    """Read what is to be forgotten.

    Args:
        document: ``source/path``.
        source: all documents of it; with a pattern, only those that match.
        pattern: a PostgreSQL regular expression.
        text: literal words instead; any case and any white space between them.

    Raises:
        ConfigError: it is not clear what is meant.
    """
    if (pattern is not None) + (text is not None) + (document is not None) > 1 or (document and source):
        raise ConfigError("say only one of: which document, which source, which pattern, which text")
    if text is not None:
        pattern = literal_pattern(text)
    if pattern is not None:
        if not pattern:
            raise ConfigError("the pattern to forget is empty")
        if "\0" in pattern:
            raise ConfigError("a pattern cannot hold NUL")
        return Selector(source=source, pattern=pattern, seconds=seconds)
    if (document is None) == (source is None):
        raise ConfigError("say either which document ('source/path') or which source to forget")
    if source is not None:
        return Selector(source=source)
    name, slash, path = str(document).partition("/")
    if not (name and slash and path):
        raise ConfigError(f"{document!r} is not a document; write source/path, e.g. handbook/setup/unboxing.md")
    return Selector(source=name, path=path)


#: Rows of a source: it, and its shards, also those of another number of shards.
OF_SOURCE = "(%(source)s::text IS NULL OR source = %(source)s OR split_part(source, '.', 1) = %(source)s)"


def find(connection: Connection, selector: Selector) -> Found:
    if selector.pattern is not None:
        return _find_matches(connection, selector)
    parameters = {"source": selector.source, "path": selector.path}
    found = Found()
    found.documents = {
        row[0]
        for row in connection.execute(
            f"""SELECT document_id FROM (
                    SELECT DISTINCT ON (document_id) document_id, path FROM document_version
                    WHERE {OF_SOURCE} ORDER BY document_id, rev_from DESC, version_id DESC) latest
                WHERE %(path)s::text IS NULL OR path = %(path)s""",  # pyright: ignore[reportArgumentType]
            parameters,
        ).fetchall()
    }
    for table in ("quarantine", "source_entry", "forgotten"):
        query = f"SELECT source, path FROM {table} WHERE {OF_SOURCE} AND (%(path)s::text IS NULL OR path = %(path)s)"
        found.places |= set(connection.execute(query, parameters).fetchall())  # pyright: ignore[reportArgumentType]
    return found


def _find_matches(connection: Connection, selector: Selector) -> Found:
    """Documents of which any version, or anything made of one, fits the pattern; and rows that fit on their own."""
    assert selector.pattern is not None
    matcher = Matcher(connection, selector.pattern, selector.seconds)
    found = Found()
    for table, holding in HOLDINGS.items():
        keys = matcher.rows(table, holding.words, holding.key) if holding.action != "scrub" and holding.words else []
        if holding.action == "row":
            if selector.source is None:
                found.rows[table] = keys
        elif table == "document_version":
            found.documents |= {key[0] for key in keys}
        elif table in ("quarantine", "source_entry"):
            found.places |= set(keys)
        elif table == "parse_result":
            found.contents |= {bytes(key[0]) for key in keys}
        elif table == "enrichment_value":
            rows = connection.execute(
                "SELECT DISTINCT text_hash FROM chunk WHERE chunk_hash = ANY(%s)", ([key[0] for key in keys],)
            )
            found.texts |= {bytes(row[0]) for row in rows}
        else:  # tables keyed by text
            found.texts |= {bytes(key[0]) for key in keys}
    for _, table in build_tables(connection):
        columns = connection.execute(
            """SELECT column_name FROM information_schema.columns
               WHERE table_schema = 'genaiops' AND table_name = %s AND data_type IN ('text', 'ARRAY', 'jsonb')""",
            (table,),
        ).fetchall()
        found.documents |= {key[0] for key in matcher.rows(table, [row[0] for row in columns], ["document_id"])}
    found.documents |= {
        row[0]
        for row in connection.execute(
            "SELECT document_id FROM document_version WHERE text_hash = ANY(%s) OR content_hash = ANY(%s)",
            (sorted(found.texts), sorted(found.contents)),
        ).fetchall()
    }
    found.places |= set(
        connection.execute(
            """SELECT source, path FROM quarantine WHERE content_hash = ANY(%(contents)s)
               UNION SELECT source, path FROM source_entry WHERE content_hash = ANY(%(contents)s)""",
            {"contents": sorted(found.contents)},
        ).fetchall()
    )
    if selector.source is not None:
        _keep_to_source(connection, found, selector.source)
    return found


def _keep_to_source(connection: Connection, found: Found, source: str) -> None:
    last = last_places(connection, found.documents)
    found.documents = {document for document, place in last.items() if source_of(place[0]) == source_of(source)}
    found.places = {place for place in found.places if source_of(place[0]) == source_of(source)}
    found.texts, found.contents = set(), set()  # what its documents had is found from them


def last_places(connection: Connection, documents: Iterable[int]) -> dict[int, tuple[str, str]]:
    """Source and path each document had last."""
    rows = connection.execute(
        """SELECT DISTINCT ON (document_id) document_id, source, path FROM document_version
           WHERE document_id = ANY(%s) ORDER BY document_id, rev_from DESC, version_id DESC""",
        (sorted(documents),),
    ).fetchall()
    return {document: (source, path) for document, source, path in rows}


def make_target(connection: Connection, found: Found) -> tuple[Target, set[tuple[str, str, bytes | None]]]:
    """Everything the documents had, and the tombstones (source, path, content hash) that keep them out.

    A path a document had earlier and another one has now is not a name of it; its content is remembered under the
    path it had last.
    """
    documents = sorted(found.documents)
    last = last_places(connection, documents)
    places = sorted(found.places)
    seen = connection.execute(
        """WITH place AS (SELECT * FROM unnest(%(sources)s::text[], %(paths)s::text[]) p (source, path))
           SELECT document_id, source, path, content_hash FROM document_version WHERE document_id = ANY(%(ids)s)
           UNION SELECT NULL, source, path, content_hash FROM quarantine WHERE (source, path) IN (SELECT * FROM place)
           UNION SELECT NULL, source, path, content_hash FROM source_entry WHERE (source, path) IN (SELECT * FROM place)""",
        {"ids": documents, "sources": [place[0] for place in places], "paths": [place[1] for place in places]},
    ).fetchall()
    everywhere = [(row[1], row[2]) for row in seen]
    others = set(
        connection.execute(
            """SELECT DISTINCT source, path FROM document_version
               WHERE (source, path) IN (SELECT * FROM unnest(%s::text[], %s::text[])) AND document_id <> ALL(%s)""",
            ([place[0] for place in everywhere], [place[1] for place in everywhere], documents),
        ).fetchall()
    ) - set(last.values())
    contents = sorted({bytes(row[3]) for row in seen if row[3] is not None} | found.contents)
    shared = {
        bytes(row[0])
        for row in connection.execute(
            "SELECT content_hash FROM document_version WHERE content_hash = ANY(%s) AND document_id <> ALL(%s)",
            (contents, documents),
        ).fetchall()
    }
    target = Target(
        keys={(row[1], row[2]) for row in seen if (row[1], row[2]) not in others} | found.places,
        documents=documents,
        contents=[content for content in contents if content not in shared],
    )
    target.texts = [
        bytes(row[0])
        for row in connection.execute(
            """(SELECT text_hash FROM document_version WHERE document_id = ANY(%(ids)s)
                UNION SELECT text_hash FROM parse_result WHERE content_hash = ANY(%(contents)s) AND text_hash IS NOT NULL
                UNION SELECT text_hash FROM document_text WHERE text_hash = ANY(%(texts)s))
               EXCEPT SELECT text_hash FROM document_version WHERE document_id <> ALL(%(ids)s)
               ORDER BY 1""",
            {"ids": documents, "contents": target.contents, "texts": sorted(found.texts)},
        ).fetchall()
    ]
    target.quotations = _own_quotations(connection, target)
    target.trials = {key[0] for key in found.rows.get("trial", ())}
    target.generations = {key[0] for key in found.rows.get("generation", ())}
    target.interactions = {key[0] for key in found.rows.get("interaction", ())}
    target.retrievals = {key[0] for key in found.rows.get("retrieval", ())}
    target.feedback = {key[0] for key in found.rows.get("feedback", ())}
    target.drafts = {key[0] for key in found.rows.get("question_draft", ())}
    for table in ("evaluation_question", "evaluation_evidence"):
        target.questions |= {(key[0], key[1]) for key in found.rows.get(table, ())}
    # Identical bytes that another document keeps must not be refused there: only the path is remembered then.
    tombstones: set[tuple[str, str, bytes | None]] = set()
    for document, source, path, content in seen:
        kept_at = (source, path) if (source, path) not in others or document is None else last[document]
        known = bytes(content) if content is not None else None
        tombstones.add((kept_at[0], kept_at[1], None if known in shared else known))
    return target, tombstones


def _own_quotations(connection: Connection, target: Target) -> set[int]:
    """Quotations of the erased texts that no remaining document contains: boilerplate proves nothing."""
    own: set[int] = set()
    for text in target.texts:
        for row in connection.execute("SELECT text FROM document_text WHERE text_hash = %s", (text,)):
            own |= quotations(row[0])
    if own:
        with connection.cursor(name="remaining") as cursor:
            cursor.itersize = _ROWS
            cursor.execute(
                """SELECT text FROM document_text t WHERE EXISTS (
                       SELECT FROM document_version v WHERE v.text_hash = t.text_hash AND v.document_id <> ALL(%s))""",
                (target.documents,),
            )
            for row in cursor:
                own -= quotations(row[0])
    return own


def quotations(text: str) -> set[int]:
    """Hashes of every run of ``QUOTED_WORDS`` words of a text, whatever stands between the words; a shorter text counts whole."""
    words = _WORD.findall(text.casefold())
    if not words:
        return set()
    return {hash(tuple(words[i : i + QUOTED_WORDS])) for i in range(max(1, len(words) - QUOTED_WORDS + 1))}


def mentions(value: Any, target: Target, *, documents_matter: bool) -> bool:
    """Whether a JSON-like value names or quotes an erased document.

    Args:
        documents_matter: ``document_id`` fields are ids of this database.
    """
    if isinstance(value, dict):
        if documents_matter and value.get("document_id") in target.documents:
            return True
        if (value.get("source"), value.get("path")) in target.keys:
            return True
        return any(mentions(item, target, documents_matter=documents_matter) for item in value.values())
    if isinstance(value, list | tuple):
        return any(mentions(item, target, documents_matter=documents_matter) for item in value)
    if not isinstance(value, str) or not value:
        return False
    if value in target.names:
        return True
    if value[0] in "[{":
        with contextlib.suppress(json.JSONDecodeError):
            return mentions(json.loads(value), target, documents_matter=documents_matter)
    return not target.quotations.isdisjoint(quotations(value))


def build_tables(connection: Connection) -> list[tuple[int, str]]:
    """Number and table of every build that still has its table, staged ones included."""
    return connection.execute(
        """SELECT build_id, table_name FROM index_build
           WHERE state <> 'dropped' AND to_regclass(quote_ident(table_name)) IS NOT NULL"""
    ).fetchall()
