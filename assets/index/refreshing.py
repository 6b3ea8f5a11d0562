"""Refreshing: stage, check and publish each index over a source, one after the other.

Belongs here: the order of the steps, and that one index failing does not stop the others.
Does not belong here: the steps themselves (staging.py, checks.py, publishing.py) and anything of Dagster.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psycopg

from assets.index.checks import examine, freshness_outcome, standing_outcomes
from assets.index.measuring import measure_freshness
from assets.index.publishing import EVIDENCE_KIND, Publication, publish
from assets.index.specification import specify
from assets.index.staging import Stage, read_head, stage
from assets.outcomes import CheckOutcome, blocked, record_evidence
from resources.errors import GenaiopsError, TransientError
from resources.faults import crash_point
from resources.fingerprint import fingerprint
from resources.platform import Platform
from resources.postgres import describe_error, may_pass


@dataclass(frozen=True)
class IndexRefresh:
    """What happened to one index.

    Attributes:
        stage: None when the index could not be staged; ``error`` says why.
        publication: None when nothing was staged or a check forbade it.
        outcomes: of its checks.
        content: fingerprint of what the head shows of the source; None when nothing was ever published.
    """

    index: str
    stage: Stage | None
    publication: Publication | None
    outcomes: list[CheckOutcome]
    content: str | None
    error: str | None = None
    transient: bool = False

    @property
    def failed(self) -> bool:
        """Whether the index could not be brought up to date."""
        return self.error is not None or bool(blocked(self.outcomes))


@dataclass(frozen=True)
class SourceRefresh:
    """What happened to all indexes over a source."""

    source: str
    indexes: list[IndexRefresh] = field(default_factory=list)

    @property
    def failed(self) -> list[IndexRefresh]:
        """The indexes that could not be brought up to date."""
        return [item for item in self.indexes if item.failed]

    @property
    def data_version(self) -> str:
        """Hash of what the heads show of this source; a publish for another source does not change it."""
        return fingerprint({item.index: item.content for item in self.indexes})


def refresh_indexes(
    platform: Platform, source: str, run_id: str, holder_is_dead: Callable[[str], bool] = lambda holder: False
) -> SourceRefresh:
    """Bring every index over ``source`` up to date; each is staged, checked and published on its own."""
    refresh = SourceRefresh(source)
    for index in platform.config.indexes_of(source):
        try:
            item = refresh_index(platform, index.name, source, run_id, holder_is_dead)
        except (GenaiopsError, psycopg.Error) as error:
            # recorded with the index's name and raised by the asset once the other indexes had their turn
            transient = may_pass(error) if isinstance(error, psycopg.Error) else isinstance(error, TransientError)
            message = f"{type(error).__name__}: {error}" if isinstance(error, GenaiopsError) else describe_error(error)
            item = IndexRefresh(index.name, None, None, [], None, message, transient)
        refresh.indexes.append(item)
    return refresh


def refresh_index(
    platform: Platform,
    index: str,
    source: str,
    run_id: str,
    holder_is_dead: Callable[[str], bool] = lambda holder: False,
) -> IndexRefresh:
    """Stage, check and publish one index, holding its lease.

    Raises:
        LeaseHeldError: another live run keeps the index for longer than we wait.
        PermanentError: see ``stage`` and ``publish``.
    """
    specification = specify(platform, index)
    database = platform.database
    with database.lease(f"index:{index}", run_id, holder_is_dead=holder_is_dead) as lease:
        staged = stage(platform, index, source, run_id, lease)
        publication = None
        if staged.staged:
            outcomes = examine(platform, staged, specification)
            with database.connect() as connection:
                lease.check(connection)
                record_evidence(connection, EVIDENCE_KIND, staged.subject, staged.fingerprint, outcomes, run_id)
            if not blocked(outcomes):
                crash_point("index.before_publish")
                publication = publish(platform, staged, run_id, lease)
        else:
            outcomes = standing_outcomes(staged, _evidence(platform, index, staged.snapshot))
        with database.connect() as connection:
            freshness = measure_freshness(connection, index, source)
            head = read_head(connection, index)
    outcomes.append(freshness_outcome(index, freshness, platform.config.policies.index.freshness_hours))
    content = head.counts.get("by_source", {}).get(source, {}).get("content") if head.build_id else None
    return IndexRefresh(index, staged, publication, outcomes, content)


def index_rows(refresh: SourceRefresh) -> list[dict[str, Any]]:
    """One row per index for the UI: what was staged, published and measured."""
    rows = []
    for item in refresh.indexes:
        staged, published = item.stage, item.publication
        recall = next((o.details.get("recall") for o in item.outcomes if o.name == "recall_at_10"), None)
        row: dict[str, Any] = {"index": item.index}
        if staged is None:
            rows.append(row | {"strategy": "failed", "reason": item.error})
            continue
        row |= {
            "snapshot": published.snapshot
            if published
            else staged.snapshot
            if not staged.staged
            else staged.snapshot - 1,
            "serving": published.serving if published else None,
            "strategy": staged.strategy
            if not (staged.staged and not published)
            else f"{staged.strategy}, not published",
            "reason": staged.reason
            + (f"; readers are held by {published.held_by}" if published and published.held_by else ""),
            "documents": staged.counts.get("documents", 0),
            "chunks": staged.counts.get("chunks", 0),
            "documents_changed": staged.counts.get("documents_changed", 0),
            "rows_added": staged.counts.get("rows_added", 0),
            "rows_retired": staged.counts.get("rows_retired", 0),
            "stage_seconds": round(staged.seconds, 3),
            "index_build_seconds": round(staged.index_seconds, 3),
            "publish_milliseconds": round(published.milliseconds, 2) if published else None,
            "recall_at_10": recall,
        }
        rows.append(row)
    return rows


def _evidence(platform: Platform, index: str, snapshot: int) -> dict[str, dict[str, object]]:
    with platform.database.connect() as connection:
        row = connection.execute(
            "SELECT evidence FROM index_snapshot WHERE index_name = %s AND snapshot = %s", (index, snapshot)
        ).fetchone()
        return row[0] if row else {}
