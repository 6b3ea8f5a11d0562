"""Refresh: what a source holds now against what was committed last, and the commit of the difference.

Belongs here: change detection and the one transaction that makes a new revision of a source.
Does not belong here: listing (resources/document_sources.py), parsing and its cache, policies (quarantine.py), and the
judgement whether a change is plausible (checks.py).

The committed state is a function of the source's content and of the configuration: it never depends on modification
times or on the order in which changes arrived.
"""

import posixpath
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, Literal

from psycopg.types.json import Jsonb

from assets.background import in_background
from assets.corpus import parse_cache, quarantine, source_memory
from assets.corpus.documents import CommittedRevision, LiveDocument, last_revision, live_documents
from assets.corpus.parse_cache import CachedParse, Failed, Key, Parsed, ParseWork, Unparsed
from assets.corpus.parsing import Format, format_of, parser_fingerprint, title_from_path
from assets.corpus.quarantine import Quarantined, QuarantineState
from assets.corpus.screening import near_duplicates
from assets.corpus.screening.near_duplicates import Candidate, Duplicate
from assets.corpus.screening.stage import Screened, Screening, ScreenWork, Verdict
from assets.corpus.source_memory import MemoryChange, Remembered
from assets.outcomes import CheckOutcome, record_evidence
from resources.document_sources import (
    DocumentRefusedError,
    DocumentTooLargeError,
    DocumentUnreadableError,
    DocumentVanishedError,
    Listing,
    SourceEntry,
    open_source,
)
from resources.errors import TransientError
from resources.faults import crash_point
from resources.fingerprint import canonical_json, content_hash, fingerprint
from resources.platform import Platform
from resources.policy_config import CorpusPolicy
from resources.postgres import Connection, Lease
from resources.source_config import SourceConfig

#: A batch of parsing ends at this many documents or bytes: it bounds memory, and what a kill costs.
BATCH_DOCUMENTS = 64
BATCH_BYTES = 8_000_000


@dataclass(frozen=True)
class PlannedDocument:
    """A document version that the commit will open.

    Attributes:
        change: why.
        document_id: the identity it continues, or None: it gets a new one.
        replaces: the version it closes, or None.
        previous_path: of a renamed document.
        provenance: where this content was found, e.g. a commit; kept with the version's metadata.
    """

    change: Literal["added", "changed", "renamed"]
    path: str
    content_hash: bytes
    text_hash: bytes
    parser_fingerprint: str
    title: str
    language: str | None
    licence: str | None
    size: int
    media_type: str
    characters: int
    document_id: int | None = None
    replaces: int | None = None
    previous_path: str | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RefreshPlan:
    """The difference between a source and its last revision; nothing of it is visible before ``commit``.

    Attributes:
        base_revision: what the plan was made against; 0: nothing was committed yet.
        base_data_version: of that revision.
        before: how many documents that revision has.
        listed: how many files the source holds, refused ones included.
        planned: versions to open.
        deleted: versions to close that nothing replaces.
        withdrawn: how many of these are still in the source but may no longer enter.
        unchanged: versions that stay.
        quarantined: everything listed that may not enter.
        released: path to content of what entered by a release.
        skipped: files left out on purpose, by reason.
        bytes_read: of all files that were read.
        seconds: wall time of planning.
        shards: how many the source has; the documents are those of one of them.
        screened: path to the verdict under the present policy, of documents that enter and of those it refused.
        screening_fingerprint: of that policy and its detectors.
        duplicates: documents that share most of their text with an older one.
        forgotten: how many paths of the source were erased on request.
        fetches: how many documents were fetched from the source.
        memory: what to remember, so that the next refresh need not fetch what the source vouches for.
    """

    source: str
    run_id: str
    base_revision: int
    base_data_version: str
    before: int
    listed: int
    planned: tuple[PlannedDocument, ...]
    deleted: tuple[LiveDocument, ...]
    withdrawn: int
    unchanged: tuple[LiveDocument, ...]
    quarantined: tuple[Quarantined, ...]
    released: Mapping[str, bytes]
    skipped: Mapping[str, int]
    bytes_read: int
    work: ParseWork
    seconds: float
    shards: int = 1
    fetches: int = 0
    memory: MemoryChange = field(default_factory=MemoryChange)
    screened: Mapping[str, Verdict] = field(default_factory=dict)
    screening_fingerprint: str = ""
    screen_work: ScreenWork = field(default_factory=ScreenWork)
    duplicates: tuple[Duplicate, ...] = ()
    forgotten: int = 0

    @property
    def expired(self) -> int:
        """How many documents leave because the source keeps none so old."""
        old = {item.path for item in self.quarantined if item.code == "expired"}
        return sum(item.path in old for item in self.deleted)

    @property
    def may_be_empty(self) -> bool:
        """Whether having no documents is as it should be: they were erased on request, or are older than is kept."""
        old = any(item.code == "expired" for item in self.quarantined)
        return bool(self.forgotten or old) and all(item.code in quarantine.EXPECTED for item in self.quarantined)

    @property
    def changes(self) -> bool:
        """Whether a new revision is needed.

        Documents erased since the last revision are no difference to the source, but they are one to that revision.
        """
        if self.planned or self.deleted or not self.base_revision:
            return True
        return self.data_version != self.base_data_version

    @cached_property
    def documents(self) -> list[LiveDocument | PlannedDocument]:
        """What the source's corpus will be after the commit, in order of path."""
        return sorted([*self.unchanged, *self.planned], key=lambda item: item.path)

    @property
    def counts(self) -> dict[str, int]:
        """Counts by kind of change, as stored with the revision."""
        kinds = [item.change for item in self.planned]
        return {
            "listed": self.listed,
            "documents": len(self.unchanged) + len(self.planned),
            "added": kinds.count("added"),
            "changed": kinds.count("changed"),
            "renamed": kinds.count("renamed"),
            "deleted": len(self.deleted),
            "withdrawn": self.withdrawn,
            "unchanged": len(self.unchanged),
            "quarantined": len(self.quarantined),
            "shards": self.shards,
        }

    @cached_property
    def data_version(self) -> str:
        """Hash of the documents after the commit; equal content gives an equal version, whatever the history."""
        documents = [
            [item.path, item.content_hash.hex(), item.text_hash.hex(), item.parser_fingerprint]
            for item in self.documents
        ]
        return fingerprint(documents if self.shards == 1 else [self.shards, documents])


def plan_refresh(platform: Platform, source: str, run_id: str, lease: Lease) -> RefreshPlan:
    """List, read and hash a source and find what changed; parse new content into the cache.

    Every document is read, since neither a size nor a modification time proves that content is unchanged, unless the
    source vouches for it (``SourceEntry.identity``). Memory holds two batches of contents at a time (one is parsed while
    the one before is stored), and a few hundred bytes of facts for each document.

    Raises:
        ConfigError: the source's place does not exist.
        TransientError: it cannot be listed completely.
        StaleLeaseError: another run took the source over.
    """
    started = time.perf_counter()
    with platform.database.connect() as connection:
        revision, data_version = last_revision(connection, source)
        live = {item.path: item for item in live_documents(connection, source)}
        state = quarantine.read_state(connection, source)
        memory = source_memory.read(connection, source)
        oldest = _oldest(connection, platform.config.sources[source].keep_days)
    listing = open_source(platform.config, source).list()
    screening = Screening(platform, platform.config.sources[source], run_id, lease, live.values())
    reading = _Reading(platform, platform.config.sources[source], lease, live, state, screening, memory.entries)
    reading.oldest = oldest
    reading.run(listing)
    for refused in listing.refused:
        reading.quarantined[refused.path] = Quarantined(refused.path, refused.code, refused.reason)
    if listing.kept is not None:
        reading.keep(listing.kept)
    with platform.database.connect() as connection:
        reading.expire(connection)
    duplicates = reading.compare()
    present = {*reading.unchanged, *reading.accepted, *reading.quarantined}
    gone = [item for path, item in live.items() if path not in present]
    with platform.database.connect() as connection:
        planned, deleted = _compare(
            connection, source, live, reading.accepted, gone, lambda: _moves(listing, memory.state)
        )
    withdrawn = [item for path, item in live.items() if path in reading.quarantined]
    return RefreshPlan(
        source=source,
        run_id=run_id,
        base_revision=revision,
        base_data_version=data_version,
        before=len(live),
        listed=len(present),
        planned=tuple(planned),
        deleted=tuple(sorted([*deleted, *withdrawn], key=lambda item: item.path)),
        withdrawn=len(withdrawn),
        unchanged=tuple(reading.unchanged.values()),
        quarantined=tuple(reading.quarantined[path] for path in sorted(reading.quarantined)),
        released=reading.released,
        skipped=listing.skipped,
        bytes_read=reading.bytes_read,
        work=reading.work,
        seconds=time.perf_counter() - started,
        shards=getattr(platform.config.sources[source], "shards", 1),
        fetches=reading.fetches,
        memory=source_memory.difference(memory, reading.remembered, listing.state),
        screened=reading.screened,
        screening_fingerprint=screening.fingerprint,
        screen_work=screening.work,
        duplicates=tuple(duplicates),
        forgotten=len(state.forgotten_paths),
    )


def commit(
    platform: Platform, plan: RefreshPlan, lease: Lease, outcomes: Sequence[CheckOutcome] = ()
) -> CommittedRevision:
    """Commit a plan as the next revision, in one transaction; without any change the last revision stands.

    Args:
        outcomes: the check results it is committed on, kept as evidence for the revision's data version.

    Raises:
        StaleLeaseError: another run took the source over.
        TransientError: the source was committed by another run since the plan was made.
    """
    crash_point("corpus.before_commit")
    with platform.database.connect() as connection:
        lease.check(connection)
        revision, data_version = last_revision(connection, plan.source)
        if revision != plan.base_revision:
            raise TransientError(
                f"source {plan.source!r} is at revision {revision}, the refresh was planned on {plan.base_revision}; run it again"
            )
        quarantine.write(connection, plan.source, plan.run_id, plan.quarantined, plan.released)
        source_memory.write(connection, plan.source, plan.memory)
        if plan.changes:
            revision, data_version = revision + 1, plan.data_version
            _write_versions(connection, plan, revision)
            connection.execute(
                "INSERT INTO source_revision (source, revision, run_id, counts, data_version) VALUES (%s, %s, %s, %s, %s)",
                (plan.source, revision, plan.run_id, Jsonb(plan.counts), data_version),
            )
            record_evidence(connection, "documents", plan.source, data_version, outcomes, plan.run_id)
        crash_point("corpus.in_commit")
    crash_point("corpus.committed")
    return CommittedRevision(plan.source, revision, data_version, plan.counts, committed=plan.changes)


# --- reading ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Accepted:
    """A document that may enter."""

    entry: SourceEntry
    form: Format
    content_hash: bytes
    parser_fingerprint: str
    size: int
    parsed: CachedParse
    verdict: Verdict | None = None


@dataclass(frozen=True)
class _Listed:
    """A document that may have to be fetched; ``known``: what it holds, by the word of its source."""

    entry: SourceEntry
    form: Format
    parser_fingerprint: str
    known: Remembered | None


@dataclass
class _Reading:
    """One pass over a source: every listed document ends unchanged, accepted, quarantined, or vanished."""

    platform: Platform
    source: SourceConfig
    lease: Lease
    live: Mapping[str, LiveDocument]
    state: QuarantineState
    screening: Screening
    memory: Mapping[str, Remembered] = field(default_factory=dict)
    unchanged: dict[str, LiveDocument] = field(default_factory=dict)
    accepted: dict[str, _Accepted] = field(default_factory=dict)
    quarantined: dict[str, Quarantined] = field(default_factory=dict)
    released: dict[str, bytes] = field(default_factory=dict)
    remembered: dict[str, Remembered] = field(default_factory=dict)
    screened: dict[str, Verdict] = field(default_factory=dict)
    work: ParseWork = field(default_factory=ParseWork)
    fetches: int = 0
    bytes_read: int = 0
    oldest: datetime | None = None

    def run(self, listing: Listing) -> None:
        """Look at everything; while one batch is screened and stored, the next one is read and parsed."""
        before: list[tuple[SourceEntry, Unparsed]] = []
        parsing: Future[dict[Key, Parsed | Failed]] | None = None
        for batch in self._batches(listing):
            parsed = parsing.result() if parsing else {}
            parsing = self._parse_ahead(batch, {item.key for _, item in before})
            self._parse(before, parsed)
            before = batch
        self._parse(before, parsing.result() if parsing else {})

    def _parse_ahead(
        self, batch: Sequence[tuple[SourceEntry, Unparsed]], under_way: Collection[Key]
    ) -> "Future[dict[Key, Parsed | Failed]] | None":
        """Start parsing what was never parsed, and is not being stored just now."""
        fresh = self.screening.unseen([item for _, item in batch if item.key not in under_way])
        if not fresh:
            return None
        return in_background(lambda: parse_cache.parse_ahead(self.platform, self.source, fresh))

    def _batches(self, listing: Listing) -> Iterator[list[tuple[SourceEntry, Unparsed]]]:
        """What needs a parser or a detector, in batches; the rest is settled on the way."""
        batch: list[tuple[SourceEntry, Unparsed]] = []
        size = 0
        for item, data in self._read(listing):
            entry, key = item.entry, item.parser_fingerprint
            content = content_hash(data)
            if content in self.state.forgotten_contents:
                self._refuse(_forgotten(entry.path))
                continue
            if entry.identity is not None and (entry.confirm is None or entry.confirm()):
                self.remembered[entry.path] = Remembered(entry.identity, content, len(data))
            too_large = quarantine.judge_size(entry.path, len(data), self._policy, content)
            if too_large and not self.state.is_released(entry.path, content):
                self._refuse(too_large)
                continue
            known = self.live.get(entry.path)
            if known and known.content_hash == content and self._stands(known, key):
                self._admit(entry.path, len(data), content, known.characters, known.licence, known)
                continue
            batch.append((entry, Unparsed((content, key), item.form, data)))
            size += len(data)
            if len(batch) >= BATCH_DOCUMENTS or size >= BATCH_BYTES:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    @cached_property
    def _policy(self) -> CorpusPolicy:
        policy = self.platform.config.policies.corpus
        if self.source.maximum_bytes is None:
            return policy
        return policy.model_copy(update={"maximum_bytes": self.source.maximum_bytes})

    def _read(self, listing: Listing) -> Iterator[tuple[_Listed, bytes]]:
        """Yield what is to be looked at, with its bytes; refuse what needs no reading."""
        fingerprints: dict[Format, str] = {}
        waiting: list[_Listed] = []
        for entry in listing.entries:
            form = format_of(entry.path, self.source)
            if entry.path in self.state.forgotten_paths:
                self._refuse(_forgotten(entry.path))
            elif entry.path not in self.state.released and (
                old := quarantine.judge_age(entry.path, [entry.modified], self.oldest)
            ):
                self._refuse(old)
            elif form is None:
                ending = posixpath.splitext(entry.path)[1]
                reason = f"no parser for {ending} files; exclude them, or convert them"
                self._refuse(Quarantined(entry.path, "unsupported", reason, entry.size))
            elif (
                too_large := quarantine.judge_size(entry.path, entry.size, self._policy)
            ) and entry.path not in self.state.released:
                self._refuse(too_large)
            else:
                if form not in fingerprints:
                    fingerprints[form] = parser_fingerprint(self.source, form)
                item = _Listed(entry, form, fingerprints[form], self._known(entry))
                if item.known and self._settle(item, item.known):
                    continue
                waiting.append(item)
                if len(waiting) >= BATCH_DOCUMENTS or sum(item.entry.size for item in waiting) >= BATCH_BYTES:
                    yield from self._fetch(listing, waiting)
                    waiting = []
        yield from self._fetch(listing, waiting)

    def _known(self, entry: SourceEntry) -> Remembered | None:
        """What the document holds, if its source vouches that it is what was read last."""
        remembered = self.memory.get(entry.path)
        return remembered if remembered and entry.identity == remembered.identity else None

    def _settle(self, item: _Listed, known: Remembered) -> bool:
        """Decide about a document of known content without fetching it; False: its parse result is needed."""
        path, content = item.entry.path, known.content_hash
        if content is not None and content in self.state.forgotten_contents:
            self._refuse(_forgotten(path))
            return True
        self.remembered[path] = known
        if content is None:
            code, reason = known.refusal or ("unreadable", "unknown")
            self._refuse(Quarantined(path, code, reason, known.size))
            return True
        live = self.live.get(path)
        if live and live.content_hash == content and self._stands(live, item.parser_fingerprint):
            self._admit(path, known.size, content, live.characters, live.licence, live)
            return True
        return False

    def _fetch(self, listing: Listing, batch: Sequence[_Listed]) -> Iterator[tuple[_Listed, bytes]]:
        """Yield the bytes of a batch, but for those whose content is known and was parsed before."""
        keys = {
            ((content, item.parser_fingerprint), self.state.is_released(item.entry.path, content))
            for item in batch
            if item.known and (content := item.known.content_hash)
        }
        results = self.screening.known(keys)
        wanted: list[_Listed] = []
        judged: list[_Accepted] = []
        for item in batch:
            content = item.known.content_hash if item.known else None
            free = bool(content) and self.state.is_released(item.entry.path, content)
            answer = results.get(((content, item.parser_fingerprint), free)) if content else None
            if item.known and content and answer:
                judged.append(_accepted(item.entry, item.form, content, item.known.size, answer))
            else:
                wanted.append(item)
        self._judge(judged)
        if wanted and listing.prefetch:
            listing.prefetch([item.entry for item in wanted])
        for item in wanted:
            data = self._fetch_one(item.entry)
            if data is not None:
                yield item, data

    def _fetch_one(self, entry: SourceEntry) -> bytes | None:
        """The bytes of one document, or None: it is refused, or gone."""
        limit = None if entry.path in self.state.released else self._policy.maximum_bytes
        self.fetches += 1
        try:
            data = entry.fetch(limit)
        except DocumentVanishedError:
            return None
        except DocumentTooLargeError as error:
            reason = f"at least {error.size:,} bytes, allowed are {self._policy.maximum_bytes:,}"
            self._refuse(Quarantined(entry.path, "too_large", reason, error.size))
            return None
        except DocumentUnreadableError as error:
            self._refuse(Quarantined(entry.path, "unreadable", str(error), entry.size))
            return None
        except DocumentRefusedError as error:
            self._refuse(Quarantined(entry.path, error.code, str(error), entry.size))
            if entry.identity is not None:
                refusal = (error.code, str(error))
                self.remembered[entry.path] = Remembered(entry.identity, None, entry.size, refusal)
            return None
        self.bytes_read += len(data)
        return data

    def _parse(self, batch: Sequence[tuple[SourceEntry, Unparsed]], parsed: "Mapping[Key, Parsed | Failed]") -> None:
        if not batch:
            return
        for free in (False, True):
            part = [(entry, item) for entry, item in batch if self.state.is_released(entry.path, item.key[0]) is free]
            keys = {item.key for _, item in part}
            results = self.screening.screen([item for _, item in part], keys if free else set(), self.work, parsed)
            self._judge(
                [
                    _accepted(entry, item.form, item.key[0], len(item.data), results[item.key, free])
                    for entry, item in part
                ]
            )

    def _judge(self, batch: Sequence[_Accepted]) -> None:
        """Refuse what has no text, and let the rest in unless policy refuses it."""
        for new in batch:
            path, parsed = new.entry.path, new.parsed
            if new.verdict:
                self.screened[path] = new.verdict
            if parsed.text_hash is None:
                code, reason = parsed.failure_code or "parse_failed", parsed.failure_reason or "unknown"
                self._refuse(Quarantined(path, code, reason, new.size, new.content_hash))
                continue
            live = self.live.get(path)
            same = live and (live.content_hash, live.parser_fingerprint) == (new.content_hash, new.parser_fingerprint)
            document = live if live and same else new
            self._admit(path, new.size, new.content_hash, parsed.characters, parsed.licence, document)

    def _stands(self, live: LiveDocument, parser_fingerprint: str) -> bool:
        """Whether a live document of known content needs neither parser nor detector."""
        released = self.state.is_released(live.path, live.content_hash)
        verdict = self.screening.standing(live, parser_fingerprint, released=released)
        if verdict:
            self.screened[live.path] = verdict
        return verdict is not None

    def _admit(
        self,
        path: str,
        size: int,
        content: bytes,
        characters: int,
        licence: str | None,
        document: LiveDocument | _Accepted,
    ) -> None:
        """Let a readable document in, unless policy refuses it and nobody released it."""
        refused = quarantine.judge_document(path, size, content, characters, licence, self._policy)
        refused = refused or quarantine.judge_size(path, size, self._policy, content)
        if refused and not self.state.is_released(path, content):
            self._refuse(refused)
            return
        if path in self.state.released and self.state.is_released(path, content):
            self.released[path] = content
        if isinstance(document, LiveDocument):
            self.unchanged[path] = document
        else:
            self.accepted[path] = document

    def keep(self, may_be_there: Callable[[str], bool]) -> None:
        """Leave documents alone that were not listed, because part of the source could not be looked at."""
        for path, document in self.live.items():
            if path in self.unchanged or path in self.accepted or path in self.quarantined or not may_be_there(path):
                continue
            self.unchanged[path] = document
            self._stands_unseen(document)
            if self.state.is_released(path, document.content_hash):
                self.released[path] = document.content_hash
            if path in self.memory:
                self.remembered[path] = self.memory[path]

    def expire(self, connection: Connection) -> None:
        """Refuse what says of itself that it is older than the source keeps."""
        if self.oldest is None:
            return
        stated = {path: item.origin_time for path, item in self.unchanged.items()}
        new = list(self.accepted.items())
        rows = connection.execute(
            """SELECT new.path, result.origin_time
               FROM unnest(%s::text[], %s::bytea[], %s::text[]) new (path, content_hash, fingerprint)
               JOIN parse_result result
                 ON result.content_hash = new.content_hash AND result.parser_fingerprint = new.fingerprint""",
            (
                [path for path, _ in new],
                [item.content_hash for _, item in new],
                [item.parser_fingerprint for _, item in new],
            ),
        ).fetchall()
        for path, moment in (stated | dict(rows)).items():
            document = self.unchanged.get(path) or self.accepted[path]
            old = quarantine.judge_age(path, [moment], self.oldest)
            if old is None:
                continue
            if self.state.is_released(path, document.content_hash):
                self.released[path] = document.content_hash
                continue
            self.unchanged.pop(path, None)
            self.accepted.pop(path, None)
            self._refuse(old)

    def _stands_unseen(self, live: LiveDocument) -> None:
        """Note the verdict on a document that could not be looked at; ``screening_complete`` reports if there is none."""
        key = parser_fingerprint(self.source, form) if (form := format_of(live.path, self.source)) else ""
        self._stands(live, key)

    def compare(self) -> list[Duplicate]:
        """Find what shares most of its text with an older document, and refuse it where the policy says so."""
        rule = self.platform.config.policies.screening.near_duplicate
        if not rule.enabled:
            return []
        candidates = [Candidate(path, item.text_hash, item.document_id) for path, item in self.unchanged.items()]
        for path, item in self.accepted.items():
            former = self.live.get(path)
            text = item.parsed.text_hash or b""
            candidates.append(Candidate(path, text, former.document_id if former else None))
        new = {item.parsed.text_hash for item in self.accepted.values() if item.parsed.text_hash}
        duplicates = near_duplicates.compare(self.platform, self.source.name, candidates, new, self.lease)
        if rule.action != "quarantine":
            return duplicates
        for item in duplicates:
            document = self.unchanged.get(item.path) or self.accepted[item.path]
            if self.state.is_released(item.path, document.content_hash):
                self.released[item.path] = document.content_hash
                continue
            self.unchanged.pop(item.path, None)
            self.accepted.pop(item.path, None)
            reason = (
                f"{item.similarity:.0%} the same as {item.of}, which is older; policies/screening.yaml says quarantine"
            )
            self._refuse(
                Quarantined(item.path, "screening:near_duplicate", reason, document.size, document.content_hash)
            )
        return duplicates

    def _refuse(self, item: Quarantined) -> None:
        self.quarantined[item.path] = item


def _accepted(entry: SourceEntry, form: Format, content: bytes, size: int, answer: Screened) -> _Accepted:
    return _Accepted(entry, form, content, answer.fingerprint, size, answer.parsed, answer.verdict)


def _oldest(connection: Connection, keep_days: int | None) -> datetime | None:
    """What was last changed before this leaves; by the database's clock, which all machines share."""
    if keep_days is None:
        return None
    row = connection.execute("SELECT now() - make_interval(days => %s)", (keep_days,)).fetchone()
    assert row is not None
    return row[0]


def _forgotten(path: str) -> Quarantined:
    # Neither size nor hash is kept: after an erasure nothing about the content is.
    return Quarantined(path, "forgotten", "erased on request; delete it at its source")


# --- comparing --------------------------------------------------------------------------------------------


def _compare(
    connection: Connection,
    source: str,
    live: Mapping[str, LiveDocument],
    accepted: Mapping[str, _Accepted],
    gone: Sequence[LiveDocument],
    moves: Callable[[], Mapping[str, str]],
) -> tuple[list[PlannedDocument], list[LiveDocument]]:
    """What to open, in order of path, and which vanished versions nothing replaces.

    ``moves`` is asked only when there is something that it could pair.
    """
    new_paths = [path for path in sorted(accepted) if path not in live]
    renamed = match_renames({path: accepted[path].content_hash for path in new_paths}, gone)
    if len(renamed) < min(len(new_paths), len(gone)):
        renamed |= match_moves([path for path in new_paths if path not in renamed], moves(), renamed, gone)
    restored = _former_documents(connection, source, [path for path in new_paths if path not in renamed])
    planned = []
    for path in sorted(accepted):
        item = accepted[path]
        before = live.get(path) or renamed.get(path)
        planned.append(
            PlannedDocument(
                change="changed" if path in live else "renamed" if before else "added",
                path=path,
                content_hash=item.content_hash,
                text_hash=item.parsed.text_hash or b"",
                parser_fingerprint=item.parser_fingerprint,
                title=item.parsed.title or title_from_path(path),
                language=item.parsed.language,
                licence=item.parsed.licence,
                size=item.size,
                media_type=item.form.media_type,
                characters=item.parsed.characters,
                document_id=before.document_id if before else restored.get(path),
                replaces=before.version_id if before else None,
                previous_path=before.path if before and before.path != path else None,
                provenance=item.entry.provenance,
            )
        )
    taken = {item.version_id for item in renamed.values()}
    return planned, [item for item in gone if item.version_id not in taken]


def match_renames(new: Mapping[str, bytes], gone: Sequence[LiveDocument]) -> dict[str, LiveDocument]:
    """Pair new paths with vanished documents of the same content.

    Where several fit, an equal file name decides first, then the order of paths: the result depends on nothing else.
    """
    candidates: dict[bytes, list[LiveDocument]] = {}
    for item in sorted(gone, key=lambda item: item.path):
        candidates.setdefault(item.content_hash, []).append(item)
    pairs: dict[str, LiveDocument] = {}
    for by_name in (True, False):
        for path in sorted(new):
            fitting = [
                item
                for item in candidates.get(new[path], [])
                if not by_name or posixpath.basename(item.path) == posixpath.basename(path)
            ]
            if path not in pairs and fitting:
                pairs[path] = fitting[0]
                candidates[new[path]].remove(fitting[0])
    return pairs


def match_moves(
    new: Sequence[str], moves: Mapping[str, str], renamed: Mapping[str, LiveDocument], gone: Sequence[LiveDocument]
) -> dict[str, LiveDocument]:
    """Pair new paths with vanished documents that, by the word of the source, moved there and were edited."""
    free = {item.path: item for item in gone}
    for item in renamed.values():
        del free[item.path]
    return {path: free.pop(moves[path]) for path in sorted(new) if moves.get(path) in free}


def _moves(listing: Listing, state: str | None) -> Mapping[str, str]:
    return listing.renames_since(state) if listing.renames_since and state else {}


def _former_documents(connection: Connection, source: str, paths: Sequence[str]) -> dict[str, int]:
    """The identity a path had before it left the corpus, so that a document that returns is the same one.

    A document that lives on elsewhere is not taken back, and one that had several of the paths goes to the last.
    """
    if not paths:
        return {}
    rows = connection.execute(
        """SELECT DISTINCT ON (document_id) path, document_id
           FROM (SELECT DISTINCT ON (path) path, document_id, version_id FROM document_version
                 WHERE source = %s AND path = ANY(%s) ORDER BY path, version_id DESC) former
           WHERE NOT EXISTS (SELECT FROM document_version live
                             WHERE live.document_id = former.document_id AND live.rev_to = 2147483647)
           ORDER BY document_id, version_id DESC""",
        (source, list(paths)),
    ).fetchall()
    return dict(rows)


# --- committing -------------------------------------------------------------------------------------------


def _write_versions(connection: Connection, plan: RefreshPlan, revision: int) -> None:
    closed = [item.version_id for item in plan.deleted] + [item.replaces for item in plan.planned if item.replaces]
    connection.execute("UPDATE document_version SET rev_to = %s WHERE version_id = ANY(%s)", (revision, sorted(closed)))
    fresh = sum(item.document_id is None for item in plan.planned)
    ids = iter(
        sorted(
            row[0]
            for row in connection.execute(
                "INSERT INTO document (source) SELECT %s FROM generate_series(1, %s) RETURNING document_id",
                (plan.source, fresh),
            )
        )
    )
    documents = [item.document_id if item.document_id is not None else next(ids) for item in plan.planned]
    written = connection.execute(
        """INSERT INTO document_version (document_id, source, path, content_hash, text_hash, parser_fingerprint, title,
                                         headings, language, licence, origin_time, bytes, media_type, metadata, run_id,
                                         rev_from)
           SELECT new.document_id, %s, new.path, result.content_hash, result.text_hash, result.parser_fingerprint,
                  new.title, result.headings, result.language, result.licence, result.origin_time, new.bytes,
                  new.media_type, result.metadata || new.provenance, %s, %s
           FROM unnest(%s::bigint[], %s::text[], %s::bytea[], %s::text[], %s::text[], %s::bigint[], %s::text[],
                       %s::jsonb[])
                WITH ORDINALITY new (document_id, path, content_hash, fingerprint, title, bytes, media_type,
                                     provenance, number)
           JOIN parse_result result
             ON result.content_hash = new.content_hash AND result.parser_fingerprint = new.fingerprint
           ORDER BY new.number""",
        (
            plan.source,
            plan.run_id,
            revision,
            documents,
            [item.path for item in plan.planned],
            [item.content_hash for item in plan.planned],
            [item.parser_fingerprint for item in plan.planned],
            [item.title for item in plan.planned],
            [item.size for item in plan.planned],
            [item.media_type for item in plan.planned],
            [canonical_json({"provenance": item.provenance} if item.provenance else {}) for item in plan.planned],
        ),
    ).rowcount
    if written != len(plan.planned):
        # Somebody erased content while this refresh ran; the next one plans without it.
        raise TransientError(
            f"source {plan.source!r}: {len(plan.planned) - written} parse results disappeared before the commit; run it again"
        )
