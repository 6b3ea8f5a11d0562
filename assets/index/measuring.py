"""Measuring: the facts about a staged snapshot that its gates judge.

Belongs here: SQL and searches that observe a stage. Does not belong here: thresholds and verdicts (checks.py).

The work follows the change: rows are counted for the documents a stage touched, totals come from ``index_document``.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from psycopg import sql

from assets.index.coverage import newest_revision
from assets.index.specification import Specification, cache_ids
from assets.index.staging import Stage, staged_view
from assets.index.tables import has_graph
from resources.binary_copy import read_vectors
from resources.platform import Platform
from resources.postgres import Connection
from resources.search_statements import OPERATORS, similarity
from resources.vector_index import DEFAULT_EF_SEARCH, VectorIndex, View

if TYPE_CHECKING:
    import numpy as np

#: Queries a small delta is tried with before the whole sample is asked for.
FIRST_SAMPLE = 20
#: Share of the chunks that may be written before recall is measured again: less cannot move it by more than it.
REMEASURE_SHARE = 0.01
#: Rows whose vectors are read at a time.
_ROWS_AT_ONCE = 8192
#: Neighbours recall is counted over.
NEIGHBOURS = 10
#: How differently two programs may compute one score, relative to its size where that is more than 1.
ROUNDING = 1e-5
#: Scores this close are the same, relative to their size where that is more than 1: halfvec keeps eleven bits.
TOLERANCE = 1e-3
#: Breadths of the graph search that are tried, cheapest first.
BREADTHS = (20, 30, 40, 60, 80, 120, 160, 240, 320, 480, 640, 1000)
#: Standard errors the mean recall of a breadth must lie above the policy's minimum to be chosen: with this margin a
#: breadth whose true recall is at the minimum is chosen in one case of twenty.
MARGIN = 1.645


@dataclass(frozen=True)
class Parity:
    """Rows against what they should be.

    Attributes:
        expected_chunks: of the texts shown, by their chunk sets.
        documented_chunks: by ``index_document``.
        touched: documents the stage changed; ``mismatched`` of them have another number of visible rows than chunks.
    """

    expected_chunks: int
    documented_chunks: int
    touched: int
    mismatched: int


@dataclass(frozen=True)
class Completeness:
    """Documents of the sources' revisions against documents shown."""

    expected: int
    missing: int
    superfluous: int


@dataclass(frozen=True)
class Neighbours:
    """Neighbours found, over a sample of stored vectors.

    Attributes:
        recall: mean share of the true ten nearest that the search returned; 1 when search is exact.
        found_itself: queries whose own chunk, or one with the same text, came first; with the inner product one that is
            at least as near, because a longer vector may be nearer to a vector than it is to itself.
        misses: the first queries that did not, as document id and ordinal.
        ef_search: breadth of the graph search they were asked with; None: exact.
        error: standard error of the recall.
        snapshot: the snapshot the recall was measured for; ``rows_changed`` since then.
    """

    queries: int
    recall: float
    found_itself: int
    exact: bool
    seconds: float = 0.0
    misses: list[str] = field(default_factory=list)
    ef_search: int | None = None
    error: float = 0.0
    snapshot: int = 0
    rows_changed: int = 0


@dataclass(frozen=True)
class Freshness:
    """What readers get against what the source has.

    Attributes:
        revision: newest revision of the source; ``served`` is the one the serving snapshot shows, 0 for none.
        hours_behind: since the oldest revision that is not served was committed; 0 when the newest is.
    """

    snapshot: int
    revision: int
    served: int
    hours_behind: float
    held_by: str | None


def measure_parity(connection: Connection, stage: Stage, specification: Specification) -> Parity:
    """Count chunks expected, documented and really there."""
    ids = cache_ids(connection, specification)
    row = connection.execute(
        sql.SQL(
            """WITH shown AS (SELECT d.document_id, d.chunks, d.valid_from, v.text_hash
                              FROM index_document d LEFT JOIN document_version v USING (version_id)
                              WHERE d.build_id = %(build)s AND d.valid_from <= %(number)s AND d.valid_to > %(number)s),
                    touched AS (SELECT document_id FROM index_document
                                WHERE build_id = %(build)s AND (valid_from = %(number)s OR valid_to = %(number)s)
                                GROUP BY 1),
                    rows AS (SELECT c.document_id, count(*) AS rows FROM {} c JOIN touched USING (document_id)
                             WHERE c.valid_from <= %(number)s AND c.valid_to > %(number)s GROUP BY 1)
               SELECT coalesce((SELECT sum(s.chunks) FROM shown JOIN chunk_set s
                       ON s.chunker_id = %(chunker)s AND s.text_hash = shown.text_hash), 0),
                      coalesce((SELECT sum(chunks) FROM shown), 0),
                      (SELECT count(*) FROM touched),
                      (SELECT count(*) FROM touched LEFT JOIN rows USING (document_id) LEFT JOIN shown USING (document_id)
                       LEFT JOIN chunk_set s ON s.chunker_id = %(chunker)s AND s.text_hash = shown.text_hash
                       WHERE coalesce(rows.rows, 0) <> coalesce(s.chunks, 0))"""
        ).format(sql.Identifier(stage.table)),
        {"build": stage.build_id, "number": stage.snapshot, "chunker": ids.chunker},
    ).fetchone()
    assert row is not None
    return Parity(*map(int, row))


def measure_completeness(connection: Connection, stage: Stage) -> Completeness:
    """Compare documents shown with the documents of the staged revisions."""
    row = connection.execute(
        """WITH expected AS (SELECT v.document_id, v.version_id
                             FROM unnest(%(sources)s::text[], %(revisions)s::integer[]) s (source, revision)
                             JOIN document_version v ON v.source = s.source
                                  AND v.rev_from <= s.revision AND v.rev_to > s.revision),
                shown AS (SELECT document_id, version_id FROM index_document
                          WHERE build_id = %(build)s AND valid_from <= %(number)s AND valid_to > %(number)s)
           SELECT (SELECT count(*) FROM expected),
                  (SELECT count(*) FROM (SELECT * FROM expected EXCEPT ALL SELECT * FROM shown) m),
                  (SELECT count(*) FROM (SELECT * FROM shown EXCEPT ALL SELECT * FROM expected) s)""",
        {
            "sources": list(stage.sources),
            "revisions": list(stage.sources.values()),
            "build": stage.build_id,
            "number": stage.snapshot,
        },
    ).fetchone()
    assert row is not None
    return Completeness(*row)


def measure_neighbours(
    platform: Platform, connection: Connection, stage: Stage, specification: Specification, queries: int
) -> Neighbours:
    """Search the stage with vectors of its own chunks, taken from the embedding cache and not from the index.

    Half of the sample are chunks the stage wrote, half are any; both by a hash, so that a second run asks the same.
    """
    return _Trial.of(platform, connection, stage, specification, queries).run(
        connection, breadth_of(stage, specification)
    )


def measure_change(
    platform: Platform, connection: Connection, stage: Stage, specification: Specification, queries: int
) -> Neighbours | None:
    """Like ``measure_neighbours`` for a stage that changes little: its chunks are looked for, its recall is the last one.

    Knowing the true neighbours costs a look at every vector, whatever the size of the change. None when that has to be
    done: recall was not measured with this breadth, or more than ``REMEASURE_SHARE`` of the chunks were written since.
    """
    trial = _Trial.of(platform, connection, stage, specification, queries)
    if trial.exact:
        return trial.run(connection, None, recall=False)
    known = stage.counts.get("recall")
    if not known or known["rows_changed"] > REMEASURE_SHARE * stage.counts["chunks"]:
        return None
    found = trial.run(connection, breadth_of(stage, specification), recall=False)
    return replace(found, **known) if found.ef_search == known["ef_search"] else None


def remember_recall(stage: Stage, found: Neighbours) -> None:
    """Leave a measured recall in the counts of the stage, for the small changes that follow."""
    if found.queries and not found.exact and not found.rows_changed:
        stage.counts["recall"] = {
            "recall": found.recall,
            "error": found.error,
            "ef_search": found.ef_search,
            "snapshot": stage.snapshot,
            "rows_changed": 0,
        }


def choose_breadth(
    platform: Platform,
    connection: Connection,
    stage: Stage,
    specification: Specification,
    queries: int,
    minimum_recall: float,
) -> Neighbours:
    """The neighbours found with the smallest breadth whose recall is above the minimum by ``MARGIN`` standard errors.

    Where none is, with the largest. The true neighbours are computed once for all breadths.
    """
    trial = _Trial.of(platform, connection, stage, specification, queries)
    started = time.perf_counter()
    found = trial.run(connection, BREADTHS[0])
    for breadth in BREADTHS[1:]:
        if found.exact or not found.queries or found.recall - MARGIN * found.error >= minimum_recall:
            break
        found = trial.run(connection, breadth)
    return replace(found, seconds=time.perf_counter() - started)


def breadth_of(stage: Stage, specification: Specification) -> int | None:
    """The breadth a stage will be searched with; None: it is to be found, for the stage or the snapshot it follows."""
    configured = specification.index.hnsw.ef_search
    return configured if isinstance(configured, int) else stage.counts.get("ef_search")


class _Trial:
    """A sample of chunks, and their true neighbours once they were computed."""

    def __init__(self, index: VectorIndex, view: View, exact: bool, sample: list[_Asked]) -> None:
        self.exact = exact
        self._index, self._view, self._sample = index, view, sample
        self._limits: np.ndarray | None = None

    @classmethod
    def of(
        cls, platform: Platform, connection: Connection, stage: Stage, specification: Specification, queries: int
    ) -> _Trial:
        view = staged_view(stage, has_graph(connection, stage.table))
        return cls(
            VectorIndex(platform.database, platform.config, platform.models),
            view,
            not view.graph or view.chunks < specification.index.hnsw.exact_below,
            _sample(connection, stage, specification, queries),
        )

    def run(self, connection: Connection, breadth: int | None, *, recall: bool = True) -> Neighbours:
        """Ask the sample with a breadth; None: the default.

        Args:
            recall: compare with the true neighbours, where search is not exact.
        """
        import numpy as np

        started = time.perf_counter()
        recalls: list[float] = []
        misses: list[str] = []
        cosine = self._view.config["index"]["distance"] != "inner_product"
        for number, asked in enumerate(self._sample):
            hits = self._nearest(connection, asked.vector, breadth)
            if not hits or not _is_itself(hits[0], asked, nearest_to_itself=cosine):
                misses.append(f"{asked.document_id}/{asked.ordinal}")
            if recall and not self.exact:
                recalls.append(_recall(hits, self._limit(connection, number), self._view.chunks))
        return Neighbours(
            queries=len(self._sample),
            recall=1.0 if self.exact or not recalls else float(np.mean(recalls)),
            found_itself=len(self._sample) - len(misses),
            exact=self.exact,
            seconds=time.perf_counter() - started,
            misses=misses[:10],
            ef_search=None if self.exact else breadth or DEFAULT_EF_SEARCH,
            error=float(np.std(recalls) / np.sqrt(len(recalls))) if recalls else 0.0,
        )

    def _nearest(self, connection: Connection, vector: np.ndarray, breadth: int | None = None) -> list[_Found]:
        from resources.fingerprint import text_hash

        hits = self._index.search_view(
            connection, self._view, "", vector, mode="vector", k=NEIGHBOURS, exact=None, ef_search=breadth
        )
        return [_Found(hit.document_id, hit.ordinal, text_hash(hit.text), hit.score) for hit in hits]

    def _limit(self, connection: Connection, number: int) -> float:
        """Score of the last true neighbour of a query."""
        if self._limits is None:
            vectors = [asked.vector for asked in self._sample]
            self._limits = _last_true_scores(connection, self._view, vectors)
        return float(self._limits[number])


def _last_true_scores(connection: Connection, view: View, queries: Sequence[np.ndarray]) -> np.ndarray:
    """Score of the last of the ten nearest vectors of each query, by comparing it with every visible one.

    All queries share one pass over the vectors, and numpy compares a block of them at a time: a statement for each
    query would read the table as often.
    """
    import numpy as np

    kind, distance = view.config["index"]["vector_type"], view.config["index"]["distance"]
    asked = np.array(queries, np.float32)
    if kind == "halfvec":
        asked = asked.astype(np.float16).astype(np.float32)
    if distance == "l2":
        asked = asked.astype(np.float64)  # squares of near vectors cancel
    best = np.full((len(asked), NEIGHBOURS), -np.inf)
    connection.execute("SET LOCAL statement_timeout = 0")  # searches before it left theirs, and this reads every row
    statement = sql.SQL(
        "COPY (SELECT embedding FROM {} WHERE valid_from <= {} AND valid_to > {}) TO STDOUT (FORMAT BINARY)"
    )
    snapshot = sql.Literal(view.snapshot)
    with connection.cursor() as cursor:
        with cursor.copy(statement.format(sql.Identifier(view.table), snapshot, snapshot)) as copy:
            for vectors in read_vectors(copy, asked.shape[1], kind, _ROWS_AT_ONCE):
                scores = np.concatenate([best, _scores(asked, vectors, distance)], axis=1)
                best = np.partition(scores, scores.shape[1] - NEIGHBOURS, axis=1)[:, -NEIGHBOURS:]
    finite = np.where(np.isfinite(best), best, np.inf)  # fewer rows than neighbours
    return finite.min(axis=1)


def _scores(asked: np.ndarray, vectors: np.ndarray, distance: str) -> np.ndarray:
    """Scores as a search gives them, shape (queries, vectors); larger is nearer."""
    import numpy as np

    products = asked @ vectors.T.astype(asked.dtype)
    if distance == "inner_product":
        return products
    if distance == "cosine":
        norms = np.linalg.norm(asked, axis=1)[:, None] * np.linalg.norm(vectors, axis=1)[None]
        return products / np.maximum(norms, np.finfo(np.float32).tiny)
    squares = np.square(asked).sum(axis=1)[:, None] + np.square(vectors.astype(asked.dtype)).sum(axis=1)[None]
    return -np.sqrt(np.maximum(squares - 2 * products, 0))


def measure_freshness(connection: Connection, index: str, source: str) -> Freshness:
    """Compare what readers get with the newest revision of the source."""
    revision = newest_revision(connection, source)
    row = connection.execute(
        """SELECT i.serving, coalesce((s.sources ->> %(source)s)::integer, 0), i.held_by,
                  coalesce(extract(epoch FROM now() - (
                      SELECT min(r.committed_at) FROM source_revision r WHERE r.source = %(source)s
                      AND r.revision > coalesce((s.sources ->> %(source)s)::integer, 0))), 0) / 3600
           FROM index_state i LEFT JOIN index_snapshot s ON s.index_name = i.index_name AND s.snapshot = i.serving
           WHERE i.index_name = %(index)s""",
        {"index": index, "source": source},
    ).fetchone()
    if row is None:
        return Freshness(0, revision, 0, 0.0, None)
    return Freshness(row[0], revision, row[1], float(row[3]), row[2])


@dataclass(frozen=True)
class _Found:
    document_id: int
    ordinal: int
    chunk_hash: bytes
    score: float


@dataclass(frozen=True)
class _Asked:
    """A chunk of the index with the vector of its input.

    Attributes:
        score: of the vector the index holds, asked with this one.
        turned: cosine distance between the two; more than a rounding error means that the index holds another vector.
    """

    document_id: int
    ordinal: int
    chunk_hash: bytes
    vector: np.ndarray
    score: float
    turned: float


def _is_itself(first: _Found, asked: _Asked, *, nearest_to_itself: bool) -> bool:
    """Whether the first hit is the chunk asked with, has its text, or is as near as it (another text, same vector).

    Args:
        nearest_to_itself: no other vector can be nearer to a vector than itself; not so with the inner product.
    """
    if (first.document_id, first.ordinal) == (asked.document_id, asked.ordinal):
        return asked.turned <= TOLERANCE or nearest_to_itself
    if first.chunk_hash == asked.chunk_hash:
        return True
    tolerance = TOLERANCE * max(1.0, abs(asked.score))
    if nearest_to_itself:
        return first.score - asked.score <= tolerance
    return asked.turned <= TOLERANCE and asked.score - first.score <= tolerance


def _recall(found: list[_Found], limit: float, chunks: int) -> float:
    """Share of the true neighbours found: of ``NEIGHBOURS``, or of as many as there are chunks.

    A hit as near as the farthest true neighbour counts as true, whichever of equals it is.

    Args:
        limit: score of the farthest true neighbour.
    """
    true = min(NEIGHBOURS, chunks)
    limit -= ROUNDING * max(1.0, abs(limit))
    return min(1.0, sum(hit.score >= limit for hit in found) / true) if true else 1.0


def _sample(connection: Connection, stage: Stage, specification: Specification, queries: int) -> list[_Asked]:
    ids = cache_ids(connection, specification)
    distance, column = specification.index.distance, specification.column_type
    nearness = f"(c.embedding {OPERATORS[distance]} e.embedding::{column})"
    rows = (
        connection.cursor(binary=True)
        .execute(
            sql.SQL(
                """WITH shown AS (SELECT document_id, chunks, valid_from FROM index_document
                              WHERE build_id = %(build)s AND valid_from <= %(number)s AND valid_to > %(number)s
                                AND chunks > 0),
                    documents AS (
                        (SELECT document_id, chunks FROM shown WHERE valid_from = %(number)s
                         ORDER BY hashint8extended(document_id, 1) LIMIT %(half)s)
                        UNION
                        (SELECT document_id, chunks FROM shown ORDER BY hashint8extended(document_id, 2) LIMIT %(half)s)),
                    chosen AS (
                        SELECT document_id, slot AS ordinal
                        FROM documents, generate_series(0, least(chunks, %(queries)s) - 1) slot
                        ORDER BY row_number() OVER (PARTITION BY document_id
                                                    ORDER BY hashint8extended(document_id, slot)), document_id
                        LIMIT %(queries)s)
               SELECT c.document_id, c.ordinal, c.chunk_hash, e.embedding, {score}, c.embedding <=> e.embedding::{type}
               FROM chosen JOIN {table} c ON c.document_id = chosen.document_id AND c.ordinal = chosen.ordinal
                    AND c.valid_from <= %(number)s AND c.valid_to > %(number)s
               JOIN embedding e ON e.embedder_id = %(embedder)s AND e.input_hash = c.input_hash
               ORDER BY c.document_id, c.ordinal"""
            ).format(
                score=sql.SQL(similarity(distance, nearness)),  # type: ignore[arg-type]
                type=sql.SQL(column),  # type: ignore[arg-type]
                table=sql.Identifier(stage.table),
            ),
            {
                "build": stage.build_id,
                "number": stage.snapshot,
                "half": (queries + 1) // 2,
                "queries": queries,
                "embedder": ids.embedder,
            },
        )
        .fetchall()
    )
    return [_Asked(row[0], row[1], bytes(row[2]), row[3].to_numpy(), row[4], row[5]) for row in rows]
