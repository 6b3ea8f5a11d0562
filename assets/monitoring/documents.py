"""Document drift: what an index serves at the end of a day against what it served earlier.

Belongs here: choosing the two snapshots and reading samples of their documents.
Does not belong here: measuring them (measuring.py), verdicts (signals.py), questions (questions.py).

The unit of every test is the document: the chunks of one document resemble each other, so dealing chunks anew would
call two collections of the same kind different. A document's vector is the mean of its chunks' vectors, at length 1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from psycopg import sql

from assets.monitoring.drift_statistics import term_counts
from assets.monitoring.interactions import day_bounds
from assets.monitoring.measuring import Measuring
from assets.monitoring.signals import MINIMUM_UNITS, Comparison, Signal, Verdict, rng_seed
from resources.platform import Platform
from resources.postgres import Connection

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CODE_VERSION = "1"

#: A change of documents, chunks or characters by this share is worth a word; a drop beyond
#: policies.corpus.maximum_document_drop is an alert.
VOLUME_WARN = 0.1
_TEXT_BATCH = 100


@dataclass(frozen=True)
class Snapshot:
    """A published state of an index."""

    snapshot: int
    build_id: int
    published_at: datetime
    fingerprint: str
    table: str

    def words(self) -> str:
        """For people: number and day."""
        return f"snapshot {self.snapshot} of {self.published_at:%Y-%m-%d}"


@dataclass(frozen=True)
class Document:
    """A document as one snapshot shows it."""

    document_id: int
    version_id: int
    source: str
    text_hash: bytes
    characters: int
    language: str
    chunks: int


def choose_snapshots(
    connection: Connection, index: str, day: date, reference_days: int
) -> tuple[Snapshot | None, Snapshot | None, str]:
    """The snapshot served at the day's end, the one to compare it with, and why there is none.

    The reference is what was served ``reference_days`` before the day's end, else the oldest snapshot that is
    retained. Current and reference are the same when readers got nothing else for that long. While a rollback holds
    them, later snapshots are not what they get.
    """
    end = day_bounds(day)[1]
    retained = [
        Snapshot(*row)
        for row in connection.execute(
            """SELECT s.snapshot, s.build_id, s.published_at, b.fingerprint, b.table_name
               FROM index_snapshot s JOIN index_build b USING (build_id)
               WHERE s.index_name = %s AND s.published_at < %s AND b.state = 'ready' ORDER BY s.snapshot""",
            (index, end),
        ).fetchall()
    ]
    if not retained:
        return None, None, f"Index '{index}' had no published snapshot at the end of {day}."
    moves = connection.execute(
        "SELECT moved_at, to_snapshot FROM serving_move WHERE index_name = %s AND moved_at < %s ORDER BY move_id DESC",
        (index, end),
    ).fetchall()
    current = _served(retained, moves, end) or retained[-1]
    reference = _served(retained, moves, end - timedelta(days=reference_days)) or retained[0]
    if reference == current and len(retained) == 1:
        return current, None, f"Index '{index}' has only {current.words()}; a comparison needs an earlier one."
    return current, reference, ""


def _served(retained: Sequence[Snapshot], moves: Sequence[tuple[datetime, int]], moment: datetime) -> Snapshot | None:
    """What readers got just before ``moment``; the newest published by then where that is no longer retained.

    Args:
        moves: when and to which snapshot readers were moved, newest first.
    """
    wanted = next((snapshot for moved_at, snapshot in moves if moved_at < moment), None)
    exactly = [snapshot for snapshot in retained if snapshot.snapshot == wanted]
    published = [snapshot for snapshot in retained if snapshot.published_at < moment]
    return next(iter([*exactly, *published[-1:]]), None)


def compare_documents(platform: Platform, index: str, day: date, permutations: int) -> Comparison:
    """Compare what ``index`` served at the end of ``day`` with its reference (see ``choose_snapshots``)."""

    import numpy as np

    policy = platform.config.policies.drift
    subject = f"documents:{index}"
    with platform.database.connect() as connection:
        # one state of all tables, whatever is published meanwhile
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        current, reference, reason = choose_snapshots(connection, index, day, policy.reference_days)
        inputs = {
            "current": [current.snapshot, current.build_id] if current else None,
            "reference": [reference.snapshot, reference.build_id] if reference else None,
            "code": CODE_VERSION,
        }
        said = Comparison(
            subject, reference.words() if reference else "", current.words() if current else "", inputs, reason=reason
        )
        if current is None or reference is None:
            return said
        if current.snapshot == reference.snapshot:
            words = f"Nothing else was served since {current.words()}; the documents are the same."
            return Comparison(subject, said.reference, said.current, inputs, reason=words, unchanged=True)
        before, after = (_documents(connection, snapshot) for snapshot in (reference, current))
        rng = np.random.default_rng(rng_seed(day.isoformat(), subject))
        first, second = (_sample(documents, policy.sample_size, rng) for documents in (before, after))
        known = {document.version_id for document in before}
        new = [document for document in after if document.version_id not in known]
        # Shared documents are no evidence of a difference: where enough is new, only that is tested (measuring.py).
        arrived = _sample(new, policy.sample_size, rng) if MINIMUM_UNITS <= len(new) < len(after) else None
        tested = second if arrived is None else arrived
        counts = _term_counts(connection, {document.text_hash for document in (*first, *second, *tested)})
        same_vectors = reference.fingerprint == current.fingerprint
        nothing = np.zeros((0, 1), dtype=np.float32)
        vectors = [
            _vectors(connection, snapshot, documents) if same_vectors else nothing
            for snapshot, documents in ((reference, first), (current, tested))
        ]

    measuring = Measuring(permutations, rng)
    measuring.signals.append(_volume(before, after, platform.config.policies.corpus.maximum_document_drop))

    def sides(value: Callable[[Document], Any]) -> dict[str, Any]:
        return {
            "reference": [value(document) for document in first],
            "current": [value(document) for document in second],
            "arrived": None if arrived is None else [value(document) for document in arrived],
        }

    measuring.scalar("length", "document length", "characters", **sides(lambda document: float(document.characters)))
    measuring.shares("language", "languages", **sides(lambda document: document.language))
    measuring.vocabulary(**sides(lambda document: counts[document.text_hash]))
    measuring.vectors(
        "embedding",
        "embeddings" if arrived is None else "embeddings of what came in",
        vectors[0],
        vectors[1],
        why_not="" if same_vectors else "the index configuration changed in between, so vectors cannot be compared",
    )
    return Comparison(
        subject,
        said.reference,
        said.current,
        inputs,
        signals=tuple(measuring.signals),
        risen=measuring.risen,
        fallen=measuring.fallen,
        figure=measuring.figure,
        new_share=len(new) / max(len(after), 1),
    )


def _volume(before: Sequence[Document], after: Sequence[Document], maximum_drop: float) -> Signal:
    totals = {
        "documents": (len(before), len(after)),
        "chunks": (sum(d.chunks for d in before), sum(d.chunks for d in after)),
        "characters": (sum(d.characters for d in before), sum(d.characters for d in after)),
    }
    changes = {name: (new - old) / max(old, 1) for name, (old, new) in totals.items()}
    effect = min(changes.values()) if min(changes.values()) <= -maximum_drop else max(changes.values(), key=abs)
    verdict: Verdict = "none"
    if effect <= -maximum_drop:
        verdict = "alert"
    elif abs(effect) >= VOLUME_WARN:
        verdict = "warn"
    sources = {
        name: [sum(d.source == name for d in before), sum(d.source == name for d in after)]
        for name in sorted({d.source for d in (*before, *after)})
    }
    said = (
        f"{totals[name][0]:,} → {totals[name][1]:,} {name} ({changes[name]:+.0%})"
        for name in ("documents", "characters")
    )
    return Signal(
        "volume",
        "volume",
        "change",
        effect,
        None,
        (len(before), len(after)),
        ", ".join(said),
        verdict=verdict,
        facts={**{name: list(pair) for name, pair in totals.items()}, "documents_by_source": sources},
    )


def _documents(connection: Connection, snapshot: Snapshot) -> list[Document]:
    return [
        Document(*row)
        for row in connection.execute(
            """SELECT d.document_id, d.version_id, v.source, v.text_hash, t.characters, coalesce(v.language, 'unknown'), d.chunks
               FROM index_document d JOIN document_version v USING (version_id) JOIN document_text t USING (text_hash)
               WHERE d.build_id = %s AND d.valid_from <= %s AND d.valid_to > %s ORDER BY d.document_id""",
            (snapshot.build_id, snapshot.snapshot, snapshot.snapshot),
        ).fetchall()
    ]


def _sample(documents: Sequence[Document], size: int, rng: np.random.Generator) -> list[Document]:
    import numpy as np

    if len(documents) <= size:
        return list(documents)
    return [documents[i] for i in np.sort(rng.choice(len(documents), size, replace=False))]


def _term_counts(connection: Connection, hashes: set[bytes]) -> dict[bytes, Counter[str]]:
    """Terms of each text; texts are read in batches, so memory is bounded by the sample's vocabulary."""
    wanted = sorted(hashes)
    counts: dict[bytes, Counter[str]] = {}
    for start in range(0, len(wanted), _TEXT_BATCH):
        for key, text in connection.execute(
            "SELECT text_hash, text FROM document_text WHERE text_hash = ANY(%s)",
            (wanted[start : start + _TEXT_BATCH],),
        ):
            counts[bytes(key)] = term_counts(text)
    return counts


def _vectors(connection: Connection, snapshot: Snapshot, documents: Sequence[Document]) -> NDArray[np.float32]:
    """Mean chunk vector of each document at length 1, float32 (documents with chunks, dimensions)."""

    import numpy as np

    query = sql.SQL(
        """SELECT document_id, avg(embedding)::vector FROM {} WHERE valid_from <= %s AND valid_to > %s
           AND document_id = ANY(%s) GROUP BY document_id ORDER BY document_id"""
    ).format(sql.Identifier(snapshot.table))
    cursor = connection.cursor(binary=True)
    rows = cursor.execute(
        query, (snapshot.snapshot, snapshot.snapshot, [document.document_id for document in documents])
    ).fetchall()
    if not rows:
        return np.zeros((0, 1), dtype=np.float32)
    vectors = np.stack([row[1].to_numpy() for row in rows]).astype(np.float32)
    lengths = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12).astype(np.float32)
    return vectors / lengths
