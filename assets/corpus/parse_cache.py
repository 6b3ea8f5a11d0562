"""The cache of parsing: raw bytes and parser fingerprint to text and facts.

Belongs here: looking results up, parsing what is missing, storing a batch so that one bad row costs only itself.
Does not belong here: parsing (parsing.py), policies, and which documents a source holds (refresh.py).
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import psycopg

from assets.corpus.failures import ParseFailure
from assets.corpus.parsing import Format, ParsedDocument, parse
from resources.faults import crash_point
from resources.fingerprint import canonical_json, text_hash
from resources.platform import Platform
from resources.postgres import Connection, Lease
from resources.source_config import SourceConfig

#: Content hash and parser fingerprint.
Key = tuple[bytes, str]


@dataclass(frozen=True)
class Unparsed:
    """Bytes to be parsed."""

    key: Key
    form: Format
    data: bytes


@dataclass(frozen=True)
class CachedParse:
    """What the cache knows: either a text, or a failure with its code and reason."""

    text_hash: bytes | None
    characters: int
    title: str | None
    language: str | None
    licence: str | None
    failure_code: str | None = None
    failure_reason: str | None = None


@dataclass
class ParseWork:
    """Work done so far."""

    parses: int = 0
    failures: int = 0
    seconds: float = 0.0
    batches: int = 0


def parse_all(
    platform: Platform, source: SourceConfig, batch: Sequence[Unparsed], lease: Lease, work: ParseWork
) -> Mapping[Key, CachedParse]:
    """Results for every member of a batch; only what the cache lacks is parsed and stored."""
    with platform.database.connect() as connection:
        found = read(connection, [item.key for item in batch])
    missing = {item.key: item for item in batch if item.key not in found}
    if not missing:
        return found
    results = {key: _parse_one(missing[key], source) for key in sorted(missing)}
    try:
        with platform.database.connect() as connection:
            lease.check(connection)
            store(connection, results)
    except (psycopg.DataError, UnicodeError):
        results = {key: _store_alone(platform, lease, key, result) for key, result in results.items()}
    crash_point("corpus.parsed_batch")
    work.batches += 1
    work.parses += len(results)
    work.failures += sum(isinstance(result, _Failed) for result in results.values())
    work.seconds += sum(result.seconds for result in results.values())
    return {**found, **{key: result.cached() for key, result in results.items()}}


def read(connection: Connection, keys: Sequence[Key]) -> dict[Key, CachedParse]:
    """The cached results among ``keys``."""
    rows = connection.execute(
        """SELECT wanted.content_hash, wanted.fingerprint, result.text_hash, coalesce(document_text.characters, 0),
                  result.title, result.language, result.licence, result.failure_code, result.failure_reason
           FROM unnest(%s::bytea[], %s::text[]) wanted (content_hash, fingerprint)
           JOIN parse_result result
             ON result.content_hash = wanted.content_hash AND result.parser_fingerprint = wanted.fingerprint
           LEFT JOIN document_text USING (text_hash)""",
        ([content for content, _ in keys], [fingerprint for _, fingerprint in keys]),
    ).fetchall()
    return {(row[0], row[1]): CachedParse(*row[2:]) for row in rows}


@dataclass(frozen=True)
class _Parsed:
    document: ParsedDocument
    text_hash: bytes
    seconds: float

    def cached(self) -> CachedParse:
        document = self.document
        return CachedParse(self.text_hash, len(document.text), document.title, document.language, document.licence)


@dataclass(frozen=True)
class _Failed:
    code: str
    reason: str
    seconds: float

    def cached(self) -> CachedParse:
        return CachedParse(None, 0, None, None, None, self.code, self.reason)


def store(connection: Connection, results: "Mapping[Key, _Parsed | _Failed]") -> None:
    """Insert results that are new; keys must be in order, so that two writers cannot deadlock."""
    parsed = {key: result for key, result in results.items() if isinstance(result, _Parsed)}
    texts = {result.text_hash: result.document.text for result in parsed.values()}
    hashes = sorted(texts)
    connection.execute(
        """INSERT INTO document_text (text_hash, text, characters)
           SELECT * FROM unnest(%s::bytea[], %s::text[], %s::integer[]) ON CONFLICT DO NOTHING""",
        (hashes, [texts[key] for key in hashes], [len(texts[key]) for key in hashes]),
    )
    rows = [_row(key, result) for key, result in results.items()]
    connection.execute(
        """INSERT INTO parse_result (content_hash, parser_fingerprint, text_hash, title, headings, language, licence,
                                     origin_time, metadata, failure_code, failure_reason, seconds)
           SELECT * FROM unnest(%s::bytea[], %s::text[], %s::bytea[], %s::text[], %s::jsonb[], %s::text[], %s::text[],
                                %s::timestamptz[], %s::jsonb[], %s::text[], %s::text[], %s::double precision[])
           ON CONFLICT DO NOTHING""",
        [list(column) for column in zip(*rows, strict=True)],
    )


def _row(key: Key, result: "_Parsed | _Failed") -> tuple[object, ...]:
    if isinstance(result, _Failed):
        return (*key, None, None, "[]", None, None, None, "{}", result.code, result.reason, result.seconds)
    document = result.document
    return (
        *key,
        result.text_hash,
        document.title,
        canonical_json([asdict(heading) for heading in document.headings]),
        document.language,
        document.licence,
        document.origin_time,
        canonical_json(document.metadata),
        None,
        None,
        result.seconds,
    )


def _parse_one(item: Unparsed, source: SourceConfig) -> "_Parsed | _Failed":
    """Parse one document; whatever is wrong with it stays with it."""
    started = time.perf_counter()
    try:
        document = parse(item.data, item.form, source)
        return _Parsed(document, text_hash(document.text), time.perf_counter() - started)
    except ParseFailure as failure:
        return _Failed(failure.code, failure.reason, time.perf_counter() - started)
    except MemoryError:
        raise  # says something about this machine, not about the document
    except Exception as error:  # any parser may raise anything on a damaged file; its message may quote the document
        reason = f"the parser failed with {type(error).__name__}"
        return _Failed("parse_failed", reason, time.perf_counter() - started)


def _store_alone(platform: Platform, lease: Lease, key: Key, result: "_Parsed | _Failed") -> "_Parsed | _Failed":
    """Store one row of a batch the database refused; the row it refuses becomes a failure."""
    try:
        with platform.database.connect() as connection:
            lease.check(connection)
            store(connection, {key: result})
        return result
    except (psycopg.DataError, UnicodeError) as error:
        failed = _Failed("parse_failed", f"the database refuses its text: {type(error).__name__}", result.seconds)
    with platform.database.connect() as connection:
        lease.check(connection)
        store(connection, {key: failed})
    return failed
