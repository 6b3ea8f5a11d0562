"""Publishing: makes a staged delta visible as the next snapshot of an index, and moves what readers get.

Belongs here: the one transaction that assigns a snapshot number, rollback and roll forward.
Does not belong here: computing the delta (staging.py), deciding whether it may go out (checks.py).
"""

import time
from dataclasses import dataclass

from psycopg.types.json import Jsonb

from assets.index.staging import Stage
from resources.errors import PermanentError, SnapshotNotFoundError
from resources.faults import crash_point
from resources.platform import Platform
from resources.postgres import Connection, Database, Lease

#: ``evidence.kind`` of the checks on a stage.
EVIDENCE_KIND = "index_stage"
#: Checks without whose passed evidence nothing is published, whoever asks.
REQUIRED_CHECKS = ("count_parity", "documents_complete", "recall_at_10", "self_retrieval")


class EvidenceError(PermanentError):
    """The stage has no evidence that it passed every required check; it was not published."""


@dataclass(frozen=True)
class Publication:
    """A published snapshot.

    Attributes:
        serving: what readers get now; the new snapshot unless a rollback holds them.
        held_by: who holds them, or None.
        milliseconds: the publishing transaction, commit included.
    """

    index: str
    snapshot: int
    serving: int
    held_by: str | None
    milliseconds: float


def publish(platform: Platform, stage: Stage, run_id: str, lease: Lease) -> Publication:
    """Make a stage the head of its index, in one short transaction.

    Raises:
        EvidenceError: a required check has no passed evidence for exactly this stage.
        StaleLeaseError: another run took the index over.
        PermanentError: nothing is staged, or the head has moved.
    """
    if not stage.staged:
        raise PermanentError(f"index {stage.index!r}: nothing is staged ({stage.reason})")
    started = time.perf_counter()
    with platform.database.connect() as connection:
        lease.check(connection)
        head, before, held_by = _state(connection, stage.index)
        if head != stage.snapshot - 1:
            raise PermanentError(
                f"index {stage.index!r}: snapshot {stage.snapshot} was staged on {stage.snapshot - 1}, but the head is {head}"
            )
        evidence = _require_evidence(connection, stage)
        connection.execute(
            """INSERT INTO index_snapshot (index_name, snapshot, build_id, run_id, counts, sources, evidence)
               VALUES (%s, %s, %s, %s, %s, %s, %s)""",
            (
                stage.index,
                stage.snapshot,
                stage.build_id,
                run_id,
                Jsonb(stage.counts),
                Jsonb(stage.sources),
                Jsonb(evidence),
            ),
        )
        connection.execute(
            "UPDATE index_build SET dead_rows = dead_rows + %s WHERE build_id = %s",
            (stage.counts["rows_retired"], stage.build_id),
        )
        if stage.strategy == "new build":
            # what the audit marked in earlier builds is written anew here
            connection.execute(
                """UPDATE index_document d SET damaged_at = NULL FROM index_build b
                   WHERE d.damaged_at IS NOT NULL AND b.build_id = d.build_id AND b.index_name = %s AND b.build_id <> %s""",
                (stage.index, stage.build_id),
            )
        serving = before if held_by else stage.snapshot
        connection.execute(
            "UPDATE index_state SET head = %s, serving = %s, updated_at = now() WHERE index_name = %s",
            (stage.snapshot, serving, stage.index),
        )
        if not held_by:
            _record_move(connection, stage.index, before, serving, f"run {run_id}", "published")
        crash_point("index.publishing")
    milliseconds = (time.perf_counter() - started) * 1000
    crash_point("index.after_publish")
    return Publication(stage.index, stage.snapshot, serving, held_by, milliseconds)


def rollback(database: Database, index: str, *, to: int | None = None, by: str, reason: str) -> int:
    """Serve an earlier retained snapshot and hold it: later publishes advance the head, readers stay.

    Args:
        to: the snapshot; by default the newest retained one before what is served now.
        by, reason: who and why, kept in ``serving_move`` and shown until ``roll_forward``.

    Returns:
        The snapshot that is served now.

    Raises:
        SnapshotNotFoundError: the snapshot is not retained, or there is none before the serving one.
    """
    with database.connect() as connection:
        head, before, _ = _state(connection, index)
        _refuse_unpublished(index, head)
        retained = [
            snapshot
            for (snapshot,) in connection.execute(
                "SELECT snapshot FROM index_snapshot WHERE index_name = %s ORDER BY snapshot", (index,)
            )
        ]
        names = ", ".join(map(str, retained)) or "none"
        target = to
        if target is None:
            earlier = [snapshot for snapshot in retained if snapshot < before]
            if not earlier:
                raise SnapshotNotFoundError(
                    f"index {index!r} serves snapshot {before}; no earlier one is retained: {names}"
                )
            target = earlier[-1]
        elif target not in retained:
            raise SnapshotNotFoundError(f"snapshot {target} of index {index!r} is not retained; retained: {names}")
        connection.execute(
            """UPDATE index_state SET serving = %s, held_by = %s, held_reason = %s, updated_at = now()
               WHERE index_name = %s""",
            (target, by, reason, index),
        )
        _record_move(connection, index, before, target, by, f"rollback: {reason}")
        return target


def roll_forward(database: Database, index: str, by: str) -> int:
    """Release a rollback: serve the head again. Returns the snapshot that is served now.

    Raises:
        SnapshotNotFoundError: nothing was published yet.
    """
    with database.connect() as connection:
        head, before, held_by = _state(connection, index)
        _refuse_unpublished(index, head)
        connection.execute(
            """UPDATE index_state SET serving = head, held_by = NULL, held_reason = NULL, updated_at = now()
               WHERE index_name = %s""",
            (index,),
        )
        if held_by or before != head:
            _record_move(connection, index, before, head, by, "rolled forward")
        return head


def _state(connection: Connection, index: str) -> tuple[int, int, str | None]:
    """Head, serving and holder, locked until the transaction ends."""
    row = connection.execute(
        "SELECT head, serving, held_by FROM index_state WHERE index_name = %s FOR UPDATE", (index,)
    ).fetchone()
    return row if row is not None else (0, 0, None)  # pyright: ignore[reportReturnType]


def _refuse_unpublished(index: str, head: int) -> None:
    if head == 0:
        raise SnapshotNotFoundError(f"index {index!r} has no published snapshot yet; materialize search_index")


def _require_evidence(connection: Connection, stage: Stage) -> dict[str, dict[str, object]]:
    """The newest outcome of each check for exactly this stage; refuses when a required or blocking one did not pass."""
    rows = connection.execute(
        """SELECT DISTINCT ON (check_name) check_name, passed, blocking, details FROM evidence
           WHERE kind = %s AND subject = %s AND fingerprint = %s ORDER BY check_name, evidence_id DESC""",
        (EVIDENCE_KIND, stage.subject, stage.fingerprint),
    ).fetchall()
    found = {name: passed for name, passed, _, _ in rows}
    missing = [name for name in REQUIRED_CHECKS if name not in found]
    failed = [name for name, passed, blocking, _ in rows if not passed and (blocking or name in REQUIRED_CHECKS)]
    if missing or failed:
        raise EvidenceError(
            f"{stage.subject} was not published: no evidence of {', '.join(missing) or 'nothing'}; "
            f"failed: {', '.join(failed) or 'nothing'}"
        )
    return {
        name: {"passed": passed, "expected": details.get("expected"), "observed": details.get("observed")}
        for name, passed, _, details in rows
    }


def _record_move(connection: Connection, index: str, before: int, after: int, by: str, reason: str) -> None:
    connection.execute(
        """INSERT INTO serving_move (index_name, from_snapshot, to_snapshot, moved_by, reason)
           VALUES (%s, %s, %s, %s, %s)""",
        (index, before, after, by, reason),
    )
