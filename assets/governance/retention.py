"""Retention of records: trials, remembered searches and model calls, results of checks, versions of datasets, drafts.

Belongs here: what of them nothing needs any more, and removing it. Does not belong here: the numbers
(data/policies/retention.yaml), retention of snapshots and caches (assets/index/retention.py), of interactions
(assets/monitoring/interactions.py), and erasure on request (erasure.py).

Results of experiments are never removed: they are a few numbers, and the uses of held-back questions are counted on
them. A result is *kept whole*, with its trials, dataset version and evidence, when it is the newest of its experiment,
when a promotion rests on it, or when it is younger than ``trial_days``. So what ``promote`` asks for, the champion's
record and a re-run of what ran last stay as they are. What goes is listed in the database and deleted in batches; a
kill between two leaves nothing half done.
"""

import os
import re
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, LiteralString

from psycopg import sql

from assets.governance.erasure_files import settle_journal
from resources.errors import LeaseHeldError
from resources.faults import crash_point
from resources.platform import Platform
from resources.postgres import Connection, Lease

#: Rows deleted in one transaction.
BATCH_ROWS = 2_000
#: No batch is begun later than this after the first, so that whoever waits for a lease gets it; the next night goes on.
MAXIMUM_SECONDS = 300.0

_KEPT_RESULTS: LiteralString = """
CREATE TEMP TABLE kept_result AS
SELECT result_id, experiment, fingerprint, dataset_version, leaderboard ->> 'dataset' AS dataset
FROM experiment_result r
WHERE created_at >= now() - make_interval(days => %(trial_days)s)
   OR EXISTS (SELECT FROM champion c WHERE c.result_id = r.result_id)
   OR result_id IN (SELECT max(result_id) FROM experiment_result GROUP BY experiment)
"""

#: A result of a version that did not write down its trials keeps all trials of its variants on its dataset.
_TRIALS: LiteralString = """
SELECT fingerprint FROM trial t
WHERE created_at < now() - make_interval(days => %(trial_days)s)
  AND NOT EXISTS (SELECT FROM result_trial JOIN kept_result USING (result_id) WHERE trial = t.fingerprint)
  AND (t.variant, t.dataset) NOT IN (
      SELECT row ->> 'fingerprint', kept.dataset
      FROM kept_result kept JOIN experiment_result USING (result_id)
      CROSS JOIN LATERAL jsonb_array_elements(leaderboard -> 'rows') row
      WHERE NOT EXISTS (SELECT FROM result_trial link WHERE link.result_id = kept.result_id)
        AND row ->> 'fingerprint' IS NOT NULL AND kept.dataset IS NOT NULL)
"""

_SEARCHES: LiteralString = "SELECT key FROM retrieval WHERE created_at < now() - make_interval(days => %(trial_days)s)"

#: Calls are referred to by answers, by steps of retrieval, and by what judges said of answers.
_GENERATIONS: LiteralString = """
SELECT fingerprint FROM generation
WHERE created_at < now() - make_interval(days => %(generation_days)s)
EXCEPT SELECT generation FROM trial
EXCEPT SELECT generation FROM interaction
EXCEPT SELECT jsonb_array_elements_text(steps) FROM trial WHERE steps IS NOT NULL
EXCEPT SELECT jsonb_array_elements_text(steps) FROM interaction WHERE steps IS NOT NULL
EXCEPT SELECT jsonb_array_elements_text(generations) FROM trial_verdict
EXCEPT SELECT item #>> '{}' FROM (
    SELECT retrieval FROM trial UNION ALL SELECT retrieval FROM interaction UNION ALL SELECT trace FROM retrieval
) traces (trace)
CROSS JOIN LATERAL (
    SELECT jsonb_path_query(trace, '$.queries[*].generation')
    UNION ALL SELECT jsonb_path_query(trace, '$.steps[*].generations[*]')
) items (item)
"""

#: Worked examples drawn from documents are on record with a variant: they stay as long as anything refers to it.
_VARIANTS: LiteralString = """
SELECT fingerprint FROM variant WHERE config ? 'examples'
EXCEPT SELECT variant FROM trial
EXCEPT SELECT variant FROM interaction
EXCEPT SELECT variant FROM champion
"""

#: Of a stage only the snapshot it became refers to its evidence. Of everything else the newest decides.
_EVIDENCE: LiteralString = """
SELECT evidence_id FROM evidence e
WHERE created_at < now() - make_interval(days => %(evidence_days)s)
  AND (EXISTS (SELECT FROM evidence newer
               WHERE (newer.kind, newer.subject, newer.fingerprint, newer.check_name)
                   = (e.kind, e.subject, e.fingerprint, e.check_name) AND newer.evidence_id > e.evidence_id)
    OR CASE e.kind
         WHEN 'index_stage' THEN NOT EXISTS (
             SELECT FROM index_snapshot s WHERE s.index_name || '@' || s.snapshot = e.subject)
         WHEN 'experiment' THEN NOT EXISTS (
             SELECT FROM kept_result k WHERE k.experiment = e.subject AND k.fingerprint = e.fingerprint)
         ELSE (e.kind, e.subject, e.fingerprint) NOT IN (
             SELECT DISTINCT ON (kind, subject, check_name) kind, subject, fingerprint FROM evidence
             ORDER BY kind, subject, check_name, evidence_id DESC)
       END)
"""

_DATASETS: LiteralString = """
SELECT dataset, version FROM (
    SELECT *, row_number() OVER (PARTITION BY dataset ORDER BY version DESC) AS place FROM evaluation_dataset
) numbered
WHERE place > %(keep_dataset_versions)s AND created_at < now() - make_interval(days => %(dataset_days)s)
  AND (dataset, version) NOT IN (
      SELECT dataset, dataset_version FROM kept_result WHERE dataset IS NOT NULL)
"""

#: What people accepted, and what waits for them, stays. What was rejected may be made, and paid for, again afterwards.
_DRAFTS: LiteralString = """
SELECT draft_id FROM question_draft
WHERE state = 'rejected' AND coalesce(decided_at, created_at) < now() - make_interval(days => %(draft_days)s)
"""


#: What candidates did on live questions: a few numbers, of which the newest stays.
_SHADOWS: LiteralString = """
SELECT result_id FROM shadow_result
WHERE created_at < now() - make_interval(days => %(trial_days)s)
  AND result_id NOT IN (SELECT max(result_id) FROM shadow_result GROUP BY experiment)
"""


@dataclass(frozen=True)
class RecordRetention:
    """What was removed, in rows and files.

    Attributes:
        unfinished: there was more than fits into one night.
        skipped: why nothing was removed.
    """

    trials: int = 0
    searches: int = 0
    generations: int = 0
    evidence: int = 0
    dataset_versions: int = 0
    drafts: int = 0
    files: int = 0
    unfinished: bool = False
    skipped: str = ""


def retain_records(
    platform: Platform,
    run_id: str | None = None,
    *,
    wait_seconds: float = 30,
    holder_is_dead: Callable[[str], bool] = lambda holder: False,
) -> RecordRetention:
    """Apply ``policies/retention.yaml`` to the records of evaluation and experiments, configured or not.

    While an experiment, a dataset or an erasure is being written nothing is removed: what a run is about to refer to
    cannot be told yet. The next night tries again.
    """
    holder = run_id or f"cli:{os.getpid()}"
    try:
        with ExitStack() as stack:
            leases = [
                stack.enter_context(
                    platform.database.lease(resource, holder, wait_seconds=wait_seconds, holder_is_dead=holder_is_dead)
                )
                for resource in _resources(platform)
            ]
            return _retain(platform, leases)
    except LeaseHeldError as error:
        return RecordRetention(skipped=str(error))


def finish_erasure(
    platform: Platform,
    run_id: str | None = None,
    *,
    wait_seconds: float = 30,
    holder_is_dead: Callable[[str], bool] = lambda holder: False,
) -> dict[str, Any]:
    """Put the files of an erasure in place that was committed and then killed, or throw its copies away.

    Returns:
        ``erasure_finished``: its number, or None; ``skipped``: why nothing was looked at, an erasure that runs.
    """
    holder = run_id or f"cli:{os.getpid()}"
    try:
        with (
            platform.database.lease("erasure", holder, wait_seconds=wait_seconds, holder_is_dead=holder_is_dead),
            platform.database.connect() as connection,
        ):
            return {"erasure_finished": settle_journal(platform.artifacts, connection), "skipped": ""}
    except LeaseHeldError as error:
        return {"erasure_finished": None, "skipped": str(error)}


def _resources(platform: Platform) -> list[str]:
    """Who writes what is removed here, in the order an erasure takes the leases."""
    with platform.database.connect() as connection:
        datasets = connection.execute("SELECT DISTINCT dataset FROM evaluation_dataset").fetchall()
        experiments = connection.execute(
            "SELECT experiment FROM trial UNION SELECT experiment FROM experiment_result"
        ).fetchall()
    return [
        "erasure",
        *(f"dataset:{name}" for name in sorted({*platform.config.datasets, *(row[0] for row in datasets)})),
        *(f"experiment:{name}" for name in sorted({*platform.config.experiments, *(row[0] for row in experiments)})),
    ]


def _retain(platform: Platform, leases: Sequence[Lease]) -> RecordRetention:
    policy = platform.config.policies.retention.model_dump()
    with platform.database.dedicated() as connection:
        connection.execute(_KEPT_RESULTS, policy)
        with connection.transaction():
            for lease in leases:
                lease.check(connection)
            connection.execute("DELETE FROM result_trial WHERE result_id NOT IN (SELECT result_id FROM kept_result)")

        work = _Work(connection, leases, policy, time.monotonic() + MAXIMUM_SECONDS)
        trials = work.remove("trial", ("fingerprint",), _TRIALS)
        searches = work.remove("retrieval", ("key",), _SEARCHES)
        # an answer that is being logged may refer to a call since it was listed
        generations = work.remove(
            "generation",
            ("fingerprint",),
            _GENERATIONS,
            """NOT EXISTS (SELECT FROM interaction i WHERE i.generation = t.fingerprint)
               AND NOT EXISTS (SELECT FROM interaction i WHERE i.steps IS NOT NULL AND i.steps ? t.fingerprint)""",
        )
        work.remove(
            "variant",
            ("fingerprint",),
            _VARIANTS,
            """NOT EXISTS (SELECT FROM interaction i WHERE i.variant = t.fingerprint)
               AND NOT EXISTS (SELECT FROM trial WHERE trial.variant = t.fingerprint)
               AND NOT EXISTS (SELECT FROM champion c WHERE c.variant = t.fingerprint)""",
        )
        evidence = work.remove("evidence", ("evidence_id",), _EVIDENCE)
        versions = work.remove("evaluation_dataset", ("dataset", "version"), _DATASETS)
        drafts = work.remove("question_draft", ("draft_id",), _DRAFTS, "t.state = 'rejected'")
        work.remove("shadow_result", ("result_id",), _SHADOWS)
        crash_point("governance.records_removed")
        files = _remove_files(platform, connection)
    return RecordRetention(trials, searches, generations, evidence, versions, drafts, files, work.unfinished)


@dataclass
class _Work:
    """One night's deletions; ``until`` in seconds of time.monotonic()."""

    connection: Connection
    leases: Sequence[Lease]
    policy: dict[str, Any]
    until: float
    unfinished: bool = False

    def remove(self, table: str, keys: tuple[str, ...], doomed: LiteralString, still: LiteralString = "true") -> int:
        """List what goes, then delete it ``BATCH_ROWS`` at a time; returns rows deleted.

        Args:
            still: a condition on the row ``t``, asked again when it is deleted.
        """
        columns = sql.SQL(", ").join(map(sql.Identifier, keys))
        self.connection.execute("DROP TABLE IF EXISTS pg_temp.doomed")
        self.connection.execute(sql.SQL("CREATE TEMP TABLE doomed AS ") + sql.SQL(doomed), self.policy)
        match = sql.SQL(" AND ").join(sql.SQL("t.{0} = batch.{0}").format(sql.Identifier(key)) for key in keys)
        query = sql.SQL(
            """WITH batch AS (DELETE FROM pg_temp.doomed
                              WHERE ctid = ANY (ARRAY(SELECT ctid FROM pg_temp.doomed LIMIT {rows})) RETURNING {columns}),
                    gone AS (DELETE FROM {table} t USING batch WHERE {match} AND {still} RETURNING 1)
               SELECT (SELECT count(*) FROM batch), (SELECT count(*) FROM gone)"""
        ).format(
            rows=sql.Literal(BATCH_ROWS),
            columns=columns,
            table=sql.Identifier("genaiops", table),
            match=match,
            still=sql.SQL(still),
        )
        removed = 0
        while True:
            if time.monotonic() > self.until:
                left = self.connection.execute("SELECT EXISTS (SELECT FROM pg_temp.doomed)").fetchone()
                self.unfinished |= bool(left and left[0])
                return removed
            with self.connection.transaction():
                for lease in self.leases:
                    lease.check(self.connection)
                row = self.connection.execute(query).fetchone()
            assert row is not None
            removed += row[1]
            if not row[0]:
                return removed


def _remove_files(platform: Platform, connection: Connection) -> int:
    """Remove the Parquet files of dataset versions that are gone, and of results whose trials went; reports stay, the
    side-by-side pages of those trials do not.

    A file with a higher number than the newest on record belongs to a run that has not committed yet.
    """
    versions = connection.execute("SELECT dataset, version FROM evaluation_dataset").fetchall()
    results = connection.execute("SELECT experiment, result_id FROM kept_result").fetchall()
    removed = 0
    for folder, pattern, kept in (("evaluation", r"v(\d+)", versions), ("experiments", r"(\d+)", results)):
        numbers: dict[str, set[int]] = {}
        for name, number in kept:
            numbers.setdefault(name, set()).add(number)
        for name, known in sorted(numbers.items()):
            place = platform.artifacts / folder / name
            for path in sorted([*place.glob("*.parquet"), *place.glob("compare/*.html")]):
                found = re.fullmatch(pattern, path.stem.partition("-")[0])
                if found and int(found[1]) < max(known) and int(found[1]) not in known:
                    path.unlink(missing_ok=True)
                    removed += 1
    return removed
