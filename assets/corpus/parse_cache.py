"""The cache of parsing: raw bytes and parser fingerprint to text and facts.

Belongs here: looking results up, having parsed what is missing, storing a batch so that one bad row costs only itself.
Does not belong here: parsing (parsing.py) and its processes (parse_pool.py), policies, and which documents a source
holds (refresh.py).

A failure is remembered like a text, so that it costs nothing the next time. Two kinds are not final: what met a limit of
time or memory is tried again once that limit is higher than the one it met, and what was killed from outside is not
remembered at all.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import psycopg

from assets.corpus.failures import KilledParse, ParseFailure, ParseLimits
from assets.corpus.parse_pool import Outcome, Task, shared_pool
from assets.corpus.parsing import IN_PROCESS_BYTES, Format, ParsedDocument, parse, request
from resources.disk import is_full
from resources.faults import crash_point
from resources.fingerprint import canonical_json, text_hash
from resources.platform import Platform
from resources.policy_config import CorpusPolicy
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


def limits_of(source: SourceConfig, policy: CorpusPolicy) -> ParseLimits:
    """What one document of a source may cost: as the source says, else as the policy does, else the defaults."""
    default = ParseLimits()
    seconds = getattr(source, "timeout_seconds", None) or getattr(policy, "timeout_seconds", None)
    memory = getattr(source, "memory_bytes", None) or getattr(policy, "memory_bytes", None)
    return ParseLimits(seconds or default.timeout_seconds, memory or default.memory_bytes)


def parse_all(
    platform: Platform,
    source: SourceConfig,
    batch: Sequence[Unparsed],
    lease: Lease,
    work: ParseWork,
    screen: "Callable[[Mapping[Key, Parsed]], Mapping[Key, Parsed]] | None" = None,
    ahead: "Mapping[Key, Parsed | Failed] | None" = None,
) -> Mapping[Key, CachedParse]:
    """Results for every member of a batch; only what the cache lacks is parsed and stored.

    Args:
        screen: what of the documents parsed now may be stored, and under which keys; the answers have those too.
        ahead: what ``parse_ahead`` made of some of them.

    Raises:
        TransientError: no parser process can be started.
        DiskFullError: a parser found no room for its temporary files.
    """
    limits = limits_of(source, platform.config.policies.corpus)
    with platform.database.connect() as connection:
        found = read(connection, [item.key for item in batch], limits)
    missing = {item.key: item for item in batch if item.key not in found}
    if not missing:
        return found
    ahead = ahead or {}
    results = _parse_missing({key: item for key, item in missing.items() if key not in ahead}, source, limits)
    results = dict(sorted((results | {key: ahead[key] for key in missing if key in ahead}).items()))
    kept = {key: result for key, result in results.items() if not (isinstance(result, Failed) and result.transient)}
    if screen:
        failures = {key: result for key, result in kept.items() if isinstance(result, Failed)}
        texts = screen({key: result for key, result in kept.items() if isinstance(result, Parsed)})
        kept = dict(sorted({**failures, **texts}.items()))
        results = {**results, **kept}
    try:
        with platform.database.connect() as connection:
            lease.check(connection)
            store(connection, kept)
    except (psycopg.DataError, UnicodeError):
        results |= {key: _store_alone(platform, lease, key, result) for key, result in kept.items()}
    crash_point("corpus.parsed_batch")
    parsed = [results[key] for key in missing]
    work.batches += 1
    work.parses += len(parsed)
    work.failures += sum(isinstance(result, Failed) for result in parsed)
    work.seconds += sum(result.seconds for result in parsed)
    return {**found, **{key: result.cached() for key, result in results.items()}}


def parse_ahead(platform: Platform, source: SourceConfig, batch: Sequence[Unparsed]) -> "dict[Key, Parsed | Failed]":
    """Parse a batch of which nothing is known, for a later call of ``parse_all``; does not touch the database."""
    limits = limits_of(source, platform.config.policies.corpus)
    return _parse_missing({item.key: item for item in batch}, source, limits)


def read(connection: Connection, keys: Sequence[Key], limits: ParseLimits | None = None) -> dict[Key, CachedParse]:
    """The cached results among ``keys``; failures at a limit below ``limits`` are left out."""
    limits = limits or ParseLimits(0, 0)
    rows = connection.execute(
        """SELECT wanted.content_hash, wanted.fingerprint, result.text_hash, coalesce(document_text.characters, 0),
                  result.title, result.language, result.licence, result.failure_code, result.failure_reason
           FROM unnest(%s::bytea[], %s::text[]) wanted (content_hash, fingerprint)
           JOIN parse_result result
             ON result.content_hash = wanted.content_hash AND result.parser_fingerprint = wanted.fingerprint
           LEFT JOIN document_text USING (text_hash)
           WHERE NOT (result.text_hash IS NULL AND (
                     coalesce((result.metadata #>> '{limit,timeout_seconds}')::float8 < %s, false)
                     OR coalesce((result.metadata #>> '{limit,memory_bytes}')::float8 < %s, false)))""",
        (
            [content for content, _ in keys],
            [fingerprint for _, fingerprint in keys],
            limits.timeout_seconds,
            limits.memory_bytes,
        ),
    ).fetchall()
    return {(row[0], row[1]): CachedParse(*row[2:]) for row in rows}


@dataclass(frozen=True)
class Parsed:
    """A document that could be parsed."""

    document: ParsedDocument
    text_hash: bytes
    seconds: float

    def cached(self) -> CachedParse:
        document = self.document
        return CachedParse(self.text_hash, len(document.text), document.title, document.language, document.licence)


@dataclass(frozen=True)
class Failed:
    """A document that could not be parsed, and why."""

    code: str
    reason: str
    seconds: float
    limit: dict[str, Any] = field(default_factory=dict)
    transient: bool = False

    def cached(self) -> CachedParse:
        return CachedParse(None, 0, None, None, None, self.code, self.reason)


def store(connection: Connection, results: "Mapping[Key, Parsed | Failed]") -> None:
    """Insert results that are new, or follow a failure at a limit.

    Keys must be in order, so that two writers cannot deadlock.
    """
    if not results:
        return
    parsed = {key: result for key, result in results.items() if isinstance(result, Parsed)}
    texts = {result.text_hash: result.document.text for result in parsed.values()}
    hashes = sorted(texts)
    connection.execute(
        # in binary: as a literal every text would have to be quoted here and parsed there
        """INSERT INTO document_text (text_hash, text, characters)
           SELECT * FROM unnest(%b::bytea[], %b::text[], %s::integer[]) ON CONFLICT DO NOTHING""",
        (hashes, [texts[key] for key in hashes], [len(texts[key]) for key in hashes]),
    )
    rows = [_row(key, result) for key, result in results.items()]
    connection.execute(
        """INSERT INTO parse_result (content_hash, parser_fingerprint, text_hash, title, headings, language, licence,
                                     origin_time, metadata, failure_code, failure_reason, seconds)
           SELECT * FROM unnest(%s::bytea[], %s::text[], %s::bytea[], %s::text[], %b::text[]::jsonb[], %s::text[], %s::text[],
                                %s::timestamptz[], %s::jsonb[], %s::text[], %s::text[], %s::double precision[])
           ON CONFLICT (content_hash, parser_fingerprint) DO UPDATE SET
               text_hash = EXCLUDED.text_hash, title = EXCLUDED.title, headings = EXCLUDED.headings,
               language = EXCLUDED.language, licence = EXCLUDED.licence, origin_time = EXCLUDED.origin_time,
               metadata = EXCLUDED.metadata, failure_code = EXCLUDED.failure_code,
               failure_reason = EXCLUDED.failure_reason, seconds = EXCLUDED.seconds
           WHERE parse_result.text_hash IS NULL AND parse_result.metadata ? 'limit'""",
        [list(column) for column in zip(*rows, strict=True)],
    )


def _row(key: Key, result: "Parsed | Failed") -> tuple[object, ...]:
    if isinstance(result, Failed):
        facts = canonical_json({"limit": result.limit} if result.limit else {})
        return (*key, None, None, "[]", None, None, None, facts, result.code, result.reason, result.seconds)
    document = result.document
    return (
        *key,
        result.text_hash,
        document.title,
        canonical_json([{"level": item.level, "text": item.text, "start": item.start} for item in document.headings]),
        document.language,
        document.licence,
        document.origin_time,
        canonical_json(document.metadata),
        None,
        None,
        result.seconds,
    )


def _parse_missing(
    missing: Mapping[Key, Unparsed], source: SourceConfig, limits: ParseLimits
) -> "dict[Key, Parsed | Failed]":
    """Parse what the cache lacks, by key in order: cheap formats here, the rest in processes at the same time.

    A small text file is parsed in less time than it takes to hand it over, and its parser cannot run away.
    """
    isolated = {key: item for key, item in missing.items() if item.form.isolated or len(item.data) > IN_PROCESS_BYTES}
    futures: dict[Key, Future[Outcome]] = {}
    if isolated:
        pool = shared_pool()
        trusting = bool(getattr(source, "recognise", None))
        for key in sorted(isolated, key=lambda key: (-len(isolated[key].data), key)):  # the longest does not come last
            item = isolated[key]
            futures[key] = pool.submit(Task(request(item.form, source), item.data, limits, trusting))
    results = {key: _parse_one(missing[key], source) for key in sorted(missing) if key not in isolated}
    results |= {key: _received(futures[key]) for key in sorted(futures)}
    return {key: results[key] for key in sorted(results)}


def _received(future: "Future[Outcome]") -> "Parsed | Failed":
    """What a parser process answered, or how it ended."""
    outcome, seconds = future.result(), 0.0
    if isinstance(outcome, KilledParse):
        return Failed(outcome.code, outcome.reason, seconds, outcome.limit, outcome.transient)
    seconds = float(outcome.get("seconds", 0.0))
    if "failed" in outcome:
        code, reason = outcome["failed"]
        return Failed(code, reason, seconds)
    document = ParsedDocument.from_json(outcome["document"])
    return Parsed(document, text_hash(document.text), seconds)


def _parse_one(item: Unparsed, source: SourceConfig) -> "Parsed | Failed":
    """Parse one document in this process; whatever is wrong with it stays with it."""
    started = time.perf_counter()
    try:
        document = parse(item.data, item.form, source)
        return Parsed(document, text_hash(document.text), time.perf_counter() - started)
    except ParseFailure as failure:
        return Failed(failure.code, failure.reason, time.perf_counter() - started)
    except MemoryError:
        raise  # says something about this machine, not about the document
    except Exception as error:  # any parser may raise anything on a damaged file; its message may quote the document
        if is_full(error):
            raise  # of this machine, too
        reason = f"the parser failed with {type(error).__name__}"
        return Failed("parse_failed", reason, time.perf_counter() - started)


def _store_alone(platform: Platform, lease: Lease, key: Key, result: "Parsed | Failed") -> "Parsed | Failed":
    """Store one row of a batch the database refused; the row it refuses becomes a failure."""
    try:
        with platform.database.connect() as connection:
            lease.check(connection)
            store(connection, {key: result})
        return result
    except (psycopg.DataError, UnicodeError) as error:
        failed = Failed("parse_failed", f"the database refuses its text: {type(error).__name__}", result.seconds)
    with platform.database.connect() as connection:
        lease.check(connection)
        store(connection, {key: failed})
    return failed
