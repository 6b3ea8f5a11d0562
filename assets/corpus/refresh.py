"""Refresh: what a source holds now against what was committed last, and the commit of the difference.

Belongs here: change detection and the one transaction that makes a new revision of a source.
Does not belong here: listing (resources/document_sources.py), parsing and its cache, policies (quarantine.py), and the
judgement whether a change is plausible (checks.py).

The committed state is a function of the source's content and of the configuration: it never depends on modification
times or on the order in which changes arrived.
"""

import posixpath
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from psycopg.types.json import Jsonb

from assets.corpus import quarantine
from assets.corpus.documents import CommittedRevision, LiveDocument, last_revision, live_documents
from assets.corpus.parse_cache import CachedParse, ParseWork, Unparsed, parse_all
from assets.corpus.parsing import Format, format_of, parser_fingerprint, title_from_path
from assets.corpus.quarantine import Quarantined, QuarantineState
from assets.outcomes import CheckOutcome, record_evidence
from resources.document_sources import DocumentUnreadableError, DocumentVanishedError, SourceEntry, open_source
from resources.errors import TransientError
from resources.faults import crash_point
from resources.fingerprint import content_hash, fingerprint
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
        }

    @cached_property
    def data_version(self) -> str:
        """Hash of the documents after the commit; equal content gives an equal version, whatever the history."""
        return fingerprint(
            [
                [item.path, item.content_hash.hex(), item.text_hash.hex(), item.parser_fingerprint]
                for item in self.documents
            ]
        )


def plan_refresh(platform: Platform, source: str, run_id: str, lease: Lease) -> RefreshPlan:
    """List, read and hash a source and find what changed; parse new content into the cache.

    Every file is read, since neither a size nor a modification time proves that content is unchanged. Memory holds
    one batch of contents at a time, and a few hundred bytes of facts for each document.

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
    listing = open_source(platform.config, source).list()
    reading = _Reading(platform, platform.config.sources[source], lease, live, state)
    reading.run(listing.entries)
    for refused in listing.refused:
        reading.quarantined[refused.path] = Quarantined(refused.path, refused.code, refused.reason)
    present = {*reading.unchanged, *reading.accepted, *reading.quarantined}
    gone = [item for path, item in live.items() if path not in present]
    with platform.database.connect() as connection:
        planned, deleted = _compare(connection, source, live, reading.accepted, gone)
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


@dataclass
class _Reading:
    """One pass over a source: every listed document ends unchanged, accepted, quarantined, or vanished."""

    platform: Platform
    source: SourceConfig
    lease: Lease
    live: Mapping[str, LiveDocument]
    state: QuarantineState
    unchanged: dict[str, LiveDocument] = field(default_factory=dict)
    accepted: dict[str, _Accepted] = field(default_factory=dict)
    quarantined: dict[str, Quarantined] = field(default_factory=dict)
    released: dict[str, bytes] = field(default_factory=dict)
    work: ParseWork = field(default_factory=ParseWork)
    bytes_read: int = 0

    def run(self, entries: Iterable[SourceEntry]) -> None:
        fingerprints: dict[str, str] = {}
        batch: list[tuple[SourceEntry, Unparsed]] = []
        for entry, form, data in self._read(entries):
            key = fingerprints.setdefault(form.media_type, parser_fingerprint(self.source, form))
            content = content_hash(data)
            if content in self.state.forgotten_contents:
                self._refuse(_forgotten(entry.path))
                continue
            too_large = quarantine.judge_size(entry.path, len(data), self._policy, content)
            if too_large and not self.state.is_released(entry.path, content):
                self._refuse(too_large)
                continue
            known = self.live.get(entry.path)
            if known and known.content_hash == content and known.parser_fingerprint == key:
                self._admit(entry.path, len(data), content, known.characters, known.licence, known)
                continue
            batch.append((entry, Unparsed((content, key), form, data)))
            if len(batch) >= BATCH_DOCUMENTS or sum(len(item.data) for _, item in batch) >= BATCH_BYTES:
                self._parse(batch)
                batch = []
        self._parse(batch)

    @property
    def _policy(self) -> CorpusPolicy:
        return self.platform.config.policies.corpus

    def _read(self, entries: Iterable[SourceEntry]) -> Iterator[tuple[SourceEntry, Format, bytes]]:
        """Yield what is to be looked at, with its bytes; refuse what needs no reading."""
        for entry in entries:
            form = format_of(entry.path)
            if entry.path in self.state.forgotten_paths:
                self._refuse(_forgotten(entry.path))
            elif form is None:
                ending = posixpath.splitext(entry.path)[1]
                reason = f"no parser for {ending} files; exclude them, or convert them"
                self._refuse(Quarantined(entry.path, "unsupported", reason, entry.size))
            elif (
                too_large := quarantine.judge_size(entry.path, entry.size, self._policy)
            ) and entry.path not in self.state.released:
                self._refuse(too_large)
            else:
                try:
                    data = entry.fetch()
                except DocumentVanishedError:
                    continue
                except DocumentUnreadableError as error:
                    self._refuse(Quarantined(entry.path, "unreadable", str(error), entry.size))
                    continue
                self.bytes_read += len(data)
                yield entry, form, data

    def _parse(self, batch: Sequence[tuple[SourceEntry, Unparsed]]) -> None:
        if not batch:
            return
        results = parse_all(self.platform, self.source, [item for _, item in batch], self.lease, self.work)
        for entry, item in batch:
            content, key = item.key
            parsed = results[item.key]
            if parsed.text_hash is None:
                code, reason = parsed.failure_code or "parse_failed", parsed.failure_reason or "unknown"
                self._refuse(Quarantined(entry.path, code, reason, len(item.data), content))
                continue
            new = _Accepted(entry, item.form, content, key, len(item.data), parsed)
            self._admit(entry.path, len(item.data), content, parsed.characters, parsed.licence, new)

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

    def _refuse(self, item: Quarantined) -> None:
        self.quarantined[item.path] = item


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
) -> tuple[list[PlannedDocument], list[LiveDocument]]:
    """What to open, in order of path, and which vanished versions nothing replaces."""
    new_paths = [path for path in sorted(accepted) if path not in live]
    renamed = match_renames({path: accepted[path].content_hash for path in new_paths}, gone)
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
                  new.media_type, result.metadata, %s, %s
           FROM unnest(%s::bigint[], %s::text[], %s::bytea[], %s::text[], %s::text[], %s::bigint[], %s::text[])
                WITH ORDINALITY new (document_id, path, content_hash, fingerprint, title, bytes, media_type, number)
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
        ),
    ).rowcount
    if written != len(plan.planned):
        # Somebody erased content while this refresh ran; the next one plans without it.
        raise TransientError(
            f"source {plan.source!r}: {len(plan.planned) - written} parse results disappeared before the commit; run it again"
        )
