"""Search: vector, full-text and hybrid retrieval from one published snapshot of an index.

Belongs here: reading an index at a snapshot, ranking, filters, and which snapshots there are.
Does not belong here: writing an index (assets/index), and what is done with the hits (answerer.py).

Every search is one read-only transaction with one database snapshot, so a publish or a retention that runs beside it
is seen wholly or not at all. Results have one total order (score, then chunk hash, source, path, ordinal; never row
ids), so that an index that grew by refreshes answers like one that was built at once.
"""

import difflib
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from resources.chunk_config import chunker_fingerprint, enrichment_fingerprint
from resources.config import EmbeddingModel, ProjectConfig, Provider
from resources.config_base import SearchMode
from resources.errors import PermanentError, SnapshotNotFoundError
from resources.fingerprint import fingerprint
from resources.postgres import Connection, Database

if TYPE_CHECKING:
    import numpy as np

    from resources.models import Embedder, Models

#: Of the rows of an index (columns, the text that full-text search sees, digests) and of ranking.
CODE_VERSION = "1"

#: Reciprocal-rank fusion: score = sum over lists of 1 / (RRF_K + rank) (Cormack, Clarke, Büttcher, SIGIR 2009).
RRF_K = 60
#: BM25 as Anserini sets it for passages.
BM25_K1, BM25_B = 0.9, 0.4
#: Occurrences of a question word are counted up to here; a more frequent word weighs as if it occurred so often.
FREQUENCY_CAP = 5_000
#: Chunks that are ranked by BM25: those with the rarest words of the question, up to about this many.
CANDIDATE_CAP = 10_000
#: Words of a question that take part in full-text search, rarest first.
MAXIMUM_WORDS = 32
#: Questions whose vectors a VectorIndex keeps, so that asking them again costs no request.
REMEMBERED_QUESTIONS = 4_096


@dataclass(frozen=True)
class SearchFilter:
    """Conditions on documents; None means no condition, and all that are given must hold."""

    sources: tuple[str, ...] | None = None
    languages: tuple[str, ...] | None = None
    licences: tuple[str, ...] | None = None
    path_prefix: str | None = None

    @property
    def empty(self) -> bool:
        """Whether nothing is filtered."""
        return self == SearchFilter()


@dataclass(frozen=True)
class SearchHit:
    """One chunk found.

    Attributes:
        rank: 1 is best.
        score: vector: cosine similarity; full_text: BM25; hybrid: the reciprocal-rank sum. Larger is better.
        version_id: the document version the snapshot shows; ``path`` and ``title`` are that version's.
        start: first character of the chunk in the document text; ``end`` is one past the last.
        text: the chunk itself, without what was added to it for embedding.
        vector_rank: rank in the vector list, None when it is not in it; ``text_rank`` likewise.
    """

    rank: int
    score: float
    document_id: int
    version_id: int
    source: str
    path: str
    title: str
    ordinal: int
    start: int
    end: int
    text: str
    heading_path: tuple[str, ...]
    vector_rank: int | None
    text_rank: int | None

    def to_json(self) -> dict[str, Any]:
        """The fields as a JSON object."""
        return {**asdict(self), "heading_path": list(self.heading_path)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "SearchHit":
        """The inverse of ``to_json``."""
        return cls(**{**value, "heading_path": tuple(value["heading_path"])})


@dataclass(frozen=True)
class SearchResult:
    """The hits of one question.

    Attributes:
        snapshot: the snapshot that was searched.
        latency: seconds, with embedding the question.
    """

    index: str
    snapshot: int
    mode: str
    hits: tuple[SearchHit, ...]
    latency: float


@dataclass(frozen=True)
class SnapshotInfo:
    """A retained snapshot.

    Attributes:
        counts: documents, chunks, rows_added, rows_retired, strategy and more, as published.
        sources: revision of each source it shows.
        pinned: by whom, in alphabetical order; a pinned snapshot is never removed.
    """

    index: str
    snapshot: int
    build_id: int
    published_at: datetime
    run_id: str
    counts: dict[str, Any]
    sources: dict[str, int]
    is_serving: bool
    is_head: bool
    pinned: tuple[str, ...]


@dataclass(frozen=True)
class View:
    """What a search reads: one snapshot number of one build, published or still staged.

    Attributes:
        config: of the build: ``index`` (IndexConfig), ``embedder`` ({fingerprint, model, provider}) and fingerprints.
        chunks: chunks visible at the snapshot.
        lexemes: distinct words per chunk, summed over these chunks; for the average length BM25 needs.
        graph: whether the build has an HNSW graph; without one every search is exact.
    """

    index: str
    snapshot: int
    build_id: int
    table: str
    config: dict[str, Any]
    chunks: int
    lexemes: int
    graph: bool


def index_fingerprint(config: ProjectConfig, models: "Models", index: str) -> str:
    """Hash of everything in the configuration of an index that can change what it contains or returns.

    Sources, description, ``ef_search`` and ``exact_below`` are left out: the first shows in the snapshot, the others
    change no row.
    """
    settings = config.indexes[index]
    return fingerprint(
        {
            "chunker": chunker_fingerprint(settings.chunker),
            "enrichment": enrichment_fingerprint(settings.enrichment),
            "embedder": models.embedder(settings.embedder).fingerprint,
            "vector_type": settings.vector_type,
            "distance": settings.distance,
            "text_search": settings.text_search,
            "hnsw": {"m": settings.hnsw.m, "ef_construction": settings.hnsw.ef_construction},
            "code": CODE_VERSION,
        }
    )


def graph_name(table: str) -> str:
    """Name of the HNSW index of a build's table."""
    return f"{table}_embedding"


class VectorIndex:
    """Searches the indexes of a project.

    Args:
        database: where the indexes are.
        config: for ``ef_search`` and ``exact_below``; everything that must fit the rows comes from the build itself.
        models: embeds the questions.
    """

    def __init__(self, database: Database, config: ProjectConfig, models: "Models") -> None:
        self._database = database
        self._config = config
        self._models = models
        self._embedded: dict[tuple[str, str], tuple[np.ndarray, float]] = {}

    def search(
        self,
        index: str,
        question: str,
        *,
        mode: SearchMode = "hybrid",
        k: int = 5,
        snapshot: int | None = None,
        filters: SearchFilter | None = None,
    ) -> SearchResult:
        """Find the ``k`` best chunks for a question in the serving snapshot, or in the one given.

        Raises:
            PermanentError: there is no such index, or no embedding model fits the snapshot.
            SnapshotNotFoundError: nothing was published yet, or the snapshot is not retained.
        """
        return self.search_many(index, [question], mode=mode, k=k, snapshot=snapshot, filters=filters)[0]

    def search_many(
        self,
        index: str,
        questions: Sequence[str],
        *,
        mode: SearchMode = "hybrid",
        k: int = 5,
        snapshot: int | None = None,
        filters: SearchFilter | None = None,
    ) -> list[SearchResult]:
        """Search several questions in one snapshot; they are embedded together, in batches.

        Raises:
            As ``search``.
        """
        if mode not in ("vector", "full_text", "hybrid"):
            raise PermanentError(f"there is no search mode {mode!r}; allowed: vector, full_text, hybrid")
        if k < 1:
            raise PermanentError(f"k must be at least 1, not {k}")
        if not questions:
            return []
        vectors: list[tuple[np.ndarray | None, float]] = [(None, 0.0)] * len(questions)
        embedded_by = None
        for _ in range(3):
            started = time.perf_counter()
            embedder = self._embedder(self._read_view(index, snapshot)) if mode != "full_text" else None
            shared = (time.perf_counter() - started) / len(questions)
            if embedder and embedded_by != embedder.fingerprint:
                vectors = self._embed(embedder, questions)
                embedded_by = embedder.fingerprint
            try:
                with self._database.connect() as connection:
                    connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
                    view = self._view(connection, index, snapshot)
                    if mode != "full_text" and view.config["embedder"]["fingerprint"] != embedded_by:
                        continue  # published with another embedding model since the questions were embedded
                    results = []
                    for question, (vector, embedding) in zip(questions, vectors, strict=True):
                        begin = time.perf_counter()
                        hits = self.search_view(connection, view, question, vector, mode=mode, k=k, filters=filters)
                        latency = time.perf_counter() - begin + shared + embedding
                        results.append(SearchResult(index, view.snapshot, mode, hits, latency))
                    return results
            except psycopg.errors.UndefinedTable:
                continue  # retention dropped the build between the look-up and the search: look up again
        raise SnapshotNotFoundError(f"index {index!r} changed its build three times during one search; search again")

    def search_view(
        self,
        connection: Connection,
        view: View,
        question: str,
        vector: "np.ndarray | None",
        *,
        mode: SearchMode,
        k: int,
        filters: SearchFilter | None = None,
        exact: bool | None = None,
    ) -> tuple[SearchHit, ...]:
        """Search one view in the surrounding transaction; the gates use it on a snapshot that is only staged.

        Args:
            question: used by full_text and hybrid.
            vector: embedding of the question, used by vector and hybrid.
            exact: compare with every vector (True) or walk the graph (False); None lets the number of rows decide.
        """
        filters = filters if filters and not filters.empty else None
        settings = view.config["index"]
        current = self._config.indexes.get(view.index)
        hnsw = current.hnsw.model_dump() if current else settings["hnsw"]
        depth = max(50, 5 * k) if mode == "hybrid" else k
        names: dict[str, Any] = {
            "build": view.build_id,
            "snapshot": view.snapshot,
            "depth": depth,
            "k": k,
            **_filter_parameters(filters),
        }
        with_vector = mode != "full_text" and vector is not None and bool(vector.any())
        visible = view.chunks
        if with_vector:
            if filters and exact is None and view.graph:
                visible = _count_filtered(connection, filters, names)
            if exact is None:
                exact = not view.graph or visible < max(hnsw["exact_below"], depth)
            names["vector"] = _vector_parameter(vector, settings["vector_type"])
        words: list[tuple[str, float]] = []
        if mode != "vector":
            words, candidates = _weigh_words(connection, view, question)
            names["candidates"] = candidates
            names["average"] = view.lexemes / view.chunks if view.chunks else 1.0
            for position, (word, weight) in enumerate(words):
                names[f"word{position}"], names[f"weight{position}"] = word, weight
        connection.execute(
            """SELECT set_config('plan_cache_mode', 'force_custom_plan', true), set_config('hnsw.ef_search', %s, true),
                      set_config('hnsw.iterative_scan', 'strict_order', true)""",
            (str(min(1000, max(hnsw["ef_search"], depth))),),
        )
        statement = _statement(view, filters, vector=with_vector, exact=bool(exact), words=len(words))
        if statement is None:
            return ()
        rows = connection.execute(statement, names).fetchall()
        if with_vector and not exact and (not rows or rows[0][13] < min(depth, visible)):
            # the graph walk gave up before it met enough rows that are visible and pass the filter
            statement = _statement(view, filters, vector=True, exact=True, words=len(words))
            assert statement is not None
            rows = connection.execute(statement, names).fetchall()
        return tuple(_hit(rank, *row[:13]) for rank, row in enumerate(rows, 1))

    def serving(self, index: str) -> int:
        """The snapshot readers get by default.

        Raises:
            SnapshotNotFoundError: nothing was published yet.
        """
        return self._read_view(index, None).snapshot

    def snapshots(self, index: str) -> list[SnapshotInfo]:
        """The retained snapshots, newest first.

        Raises:
            PermanentError: there is no such index.
        """
        with self._database.connect() as connection:
            if connection.execute("SELECT 1 FROM index_state WHERE index_name = %s", (index,)).fetchone() is None:
                self._refuse_unknown(connection, index)
            rows = connection.execute(
                """SELECT s.index_name, s.snapshot, s.build_id, s.published_at, s.run_id, s.counts, s.sources,
                          s.snapshot = i.serving, s.snapshot = i.head,
                          array(SELECT pinned_by FROM snapshot_pin p
                                WHERE p.index_name = s.index_name AND p.snapshot = s.snapshot ORDER BY 1)
                   FROM index_snapshot s JOIN index_state i USING (index_name)
                   WHERE s.index_name = %s ORDER BY s.snapshot DESC""",
                (index,),
            ).fetchall()
        return [_snapshot_info(*row) for row in rows]

    def _embed(self, embedder: "Embedder", questions: Sequence[str]) -> "list[tuple[np.ndarray | None, float]]":
        """Vectors of questions and the seconds each took; an experiment asks the same ones in many settings.

        A question that is remembered costs no request, yet counts the seconds it once took, so that latencies of
        different settings compare.
        """
        remembered = {question: self._embedded.get((embedder.fingerprint, question)) for question in questions}
        missing = [question for question, known in remembered.items() if known is None]
        if missing:
            started = time.perf_counter()
            vectors = embedder.embed(missing).vectors
            seconds = (time.perf_counter() - started) / len(missing)
            if len(self._embedded) + len(missing) > REMEMBERED_QUESTIONS:
                self._embedded = {}
            for question, vector in zip(missing, vectors, strict=True):
                remembered[question] = (vector, seconds)
                if len(self._embedded) < REMEMBERED_QUESTIONS:
                    self._embedded[embedder.fingerprint, question] = (vector, seconds)
        return [remembered[question] or (None, 0.0) for question in questions]

    def _read_view(self, index: str, snapshot: int | None) -> View:
        with self._database.connect() as connection:
            return self._view(connection, index, snapshot)

    def _view(self, connection: Connection, index: str, snapshot: int | None) -> View:
        row: Any = connection.execute(
            """SELECT s.snapshot, s.build_id, b.table_name, b.config, s.counts,
                      to_regclass('genaiops.' || b.table_name || '_embedding') IS NOT NULL
               FROM index_state i
               LEFT JOIN index_snapshot s ON s.index_name = i.index_name AND s.snapshot = coalesce(%s, i.serving)
               LEFT JOIN index_build b ON b.build_id = s.build_id
               WHERE i.index_name = %s""",
            (snapshot, index),
        ).fetchone()
        if row is None:
            self._refuse_unknown(connection, index)
        if row is None or row[0] is None:
            if snapshot is None:
                raise SnapshotNotFoundError(f"index {index!r} has no published snapshot yet; materialize search_index")
            retained = [
                str(other)
                for (other,) in connection.execute(
                    "SELECT snapshot FROM index_snapshot WHERE index_name = %s ORDER BY 1", (index,)
                )
            ]
            raise SnapshotNotFoundError(
                f"snapshot {snapshot} of index {index!r} is not retained; retained: {', '.join(retained) or 'none'}"
            )
        counts = row[4]
        return View(index, row[0], row[1], row[2], row[3], counts["chunks"], counts["lexemes"], row[5])

    def _refuse_unknown(self, connection: Connection, index: str) -> None:
        known = {name for (name,) in connection.execute("SELECT index_name FROM index_state")} | set(
            self._config.indexes
        )
        if index in known:
            return
        nearest = difflib.get_close_matches(index, sorted(known), n=1, cutoff=0.5)
        hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
        raise PermanentError(f"there is no index named {index!r}; there are: {', '.join(sorted(known))}.{hint}")

    def _embedder(self, view: View) -> "Embedder":
        """The embedding model the rows of the view were made with, even when the configuration has moved on."""
        wanted = view.config["embedder"]
        made_with = EmbeddingModel.model_validate(wanted["model"])
        for model in self._config.models.embedding:
            if (model.model, model.dimensions) == (made_with.model, made_with.dimensions):
                embedder = self._models.embedder(model.name)
                if embedder.fingerprint == wanted["fingerprint"]:
                    return embedder
        former = self._models.former_embedder(made_with, Provider.model_validate(wanted["provider"]))
        if former.fingerprint != wanted["fingerprint"]:
            raise PermanentError(
                f"snapshot {view.snapshot} of index {view.index!r} was embedded with {made_with.model} "
                f"({wanted['fingerprint'][:8]}), which this version of the code no longer has; "
                "search a newer snapshot or refresh the index"
            )
        return former


def _hit(rank: int, score: float, *columns: Any) -> SearchHit:
    *before, heading_path, vector_rank, text_rank = columns
    return SearchHit(rank, score, *before, tuple(heading_path), vector_rank, text_rank)  # pyright: ignore[reportCallIssue]


def _snapshot_info(*columns: Any) -> SnapshotInfo:
    *before, pinned = columns
    return SnapshotInfo(*before, tuple(pinned))  # pyright: ignore[reportCallIssue]


# --- statements -----------------------------------------------------------------------------------------


def _vector_parameter(vector: "np.ndarray | None", vector_type: str) -> Any:
    from pgvector import HalfVector, Vector

    assert vector is not None
    return HalfVector(vector) if vector_type == "halfvec" else Vector(vector)


def _filter_parameters(filters: SearchFilter | None) -> dict[str, Any]:
    if filters is None:
        return {}
    return {
        "sources": list(filters.sources) if filters.sources is not None else None,
        "languages": list(filters.languages) if filters.languages is not None else None,
        "licences": list(filters.licences) if filters.licences is not None else None,
        "path_prefix": filters.path_prefix,
    }


def _filtered_documents(filters: SearchFilter) -> sql.Composable:
    conditions = []
    if filters.sources is not None:
        conditions.append(sql.SQL("d.source = ANY(%(sources)s)"))
    if filters.languages is not None:
        conditions.append(sql.SQL("v.language = ANY(%(languages)s)"))
    if filters.licences is not None:
        conditions.append(sql.SQL("v.licence = ANY(%(licences)s)"))
    if filters.path_prefix is not None:
        conditions.append(sql.SQL("starts_with(v.path, %(path_prefix)s)"))
    return sql.SQL(
        """FROM index_document d JOIN document_version v USING (version_id)
           WHERE d.build_id = %(build)s AND d.valid_from <= %(snapshot)s AND d.valid_to > %(snapshot)s AND {}"""
    ).format(sql.SQL(" AND ").join(conditions))


def _count_filtered(connection: Connection, filters: SearchFilter, names: dict[str, Any]) -> int:
    row = connection.execute(
        sql.SQL("SELECT coalesce(sum(d.chunks), 0) {}").format(_filtered_documents(filters)), names
    ).fetchone()
    return int(row[0]) if row else 0


def _weigh_words(connection: Connection, view: View, question: str) -> tuple[list[tuple[str, float]], str]:
    """The words of a question with their BM25 weights, and the query that selects the chunks to be ranked.

    Chunks with any of the rarest words are ranked, as many words as fit ``CANDIDATE_CAP``; a chunk that has only the
    more frequent ones could not come first. When every word is frequent, a chunk must have all of them.
    """
    rows = connection.execute(
        sql.SQL(
            """SELECT w.query, (SELECT count(*) FROM (SELECT FROM {table} c WHERE c.tsv @@ w.query::tsquery
                                AND c.valid_from <= %(snapshot)s AND c.valid_to > %(snapshot)s LIMIT {cap}) seen)
               FROM (SELECT '''' || replace(replace(lexeme, '\\', '\\\\'), '''', '''''') || '''' AS query
                     FROM unnest(to_tsvector(%(configuration)s::regconfig, %(question)s))) w"""
        ).format(table=sql.Identifier(view.table), cap=sql.Literal(FREQUENCY_CAP)),
        {
            "snapshot": view.snapshot,
            "configuration": view.config["index"]["text_search"],
            "question": question.replace("\0", " "),
        },
    ).fetchall()
    words = sorted(((query, count) for query, count in rows if count), key=lambda item: (item[1], item[0]))
    words = words[:MAXIMUM_WORDS]
    selective, total = [], 0
    for query, count in words:
        if count >= FREQUENCY_CAP or total + count > CANDIDATE_CAP:
            break
        selective.append(query)
        total += count
    weights = [(query, math.log(1 + (view.chunks - count + 0.5) / (count + 0.5))) for query, count in words]
    return weights, " | ".join(selective) if selective else " & ".join(query for query, _ in words)


def _statement(
    view: View, filters: SearchFilter | None, *, vector: bool, exact: bool, words: int
) -> sql.Composed | None:
    """One statement for the whole search; None when there is nothing to search with."""
    parts: dict[str, sql.Composable] = {
        "table": sql.Identifier(view.table),
        "filter": sql.SQL("AND c.document_id IN (SELECT d.document_id {})").format(_filtered_documents(filters))
        if filters
        else sql.SQL(""),
        "shown": sql.SQL(
            """CROSS JOIN LATERAL (
                   SELECT version_id FROM index_document WHERE build_id = %(build)s AND document_id = c.document_id
                     AND valid_from <= %(snapshot)s AND valid_to > %(snapshot)s OFFSET 0) d
               JOIN document_version v ON v.version_id = d.version_id"""
        ),
    }
    lists = []
    if vector:
        lists.append(_vector_list(parts, exact))
    if words:
        lists.append(_text_list(parts, words))
    if not lists:
        return None
    if vector and words:
        fused = sql.SQL(
            """SELECT document_id, ordinal, valid_from, a.rank AS vector_rank, b.rank AS text_rank,
                      coalesce(1.0::float8 / ({k} + a.rank), 0) + coalesce(1.0::float8 / ({k} + b.rank), 0) AS score
               FROM vector_list a FULL JOIN text_list b USING (document_id, ordinal, valid_from)"""
        ).format(k=sql.Literal(RRF_K))
    elif vector:
        fused = sql.SQL(
            """SELECT document_id, ordinal, valid_from, rank AS vector_rank, NULL::bigint AS text_rank,
                      1 - distance AS score FROM vector_list"""
        )
    else:
        fused = sql.SQL(
            "SELECT document_id, ordinal, valid_from, NULL::bigint AS vector_rank, rank AS text_rank, score FROM text_list"
        )
    return sql.SQL(
        """WITH {lists}, fused AS ({fused})
           SELECT f.score, c.document_id, d.version_id, c.source, v.path, v.title, c.ordinal, c.start_char, c.end_char,
                  c.content, c.heading_path, f.vector_rank, f.text_rank, {found}
           FROM fused f JOIN {table} c USING (document_id, ordinal, valid_from) {shown}
           ORDER BY f.score DESC, c.chunk_hash, c.source, v.path, c.ordinal LIMIT %(k)s"""
    ).format(
        lists=sql.SQL(", ").join(lists),
        fused=fused,
        table=parts["table"],
        shown=parts["shown"],
        found=sql.SQL("(SELECT count(*) FROM vector_list)" if vector else "0"),
    )


def _vector_list(parts: dict[str, sql.Composable], exact: bool) -> sql.Composable:
    # Adding zero keeps the planner from the graph. WITH TIES brings every row that could take the last place,
    # so that the tie is broken by the same keys everywhere.
    nearest = (
        sql.SQL("ORDER BY distance, c.chunk_hash FETCH FIRST %(depth)s ROWS WITH TIES")
        if exact
        else sql.SQL("ORDER BY c.embedding <=> %(vector)s LIMIT %(depth)s")
    )
    return sql.SQL(
        """nearest AS MATERIALIZED (
               SELECT c.document_id, c.ordinal, c.valid_from, c.chunk_hash, c.source,
                      (c.embedding <=> %(vector)s){zero} AS distance
               FROM {table} c WHERE c.valid_from <= %(snapshot)s AND c.valid_to > %(snapshot)s {filter} {nearest}),
           vector_list AS MATERIALIZED (
               SELECT c.document_id, c.ordinal, c.valid_from, c.distance,
                      row_number() OVER (ORDER BY c.distance, c.chunk_hash, c.source, v.path, c.ordinal) AS rank
               FROM nearest c {shown} ORDER BY rank LIMIT %(depth)s)"""
    ).format(**parts, nearest=nearest, zero=sql.SQL(" + 0" if exact else ""))


def _text_list(parts: dict[str, sql.Composable], words: int) -> sql.Composable:
    """BM25 (Robertson and Zaragoza, 2009): sum of idf * (k1 + 1) * tf / (tf + K), K = k1 * (1 - b + b * length / average).

    ``ts_rank`` of a single word is 0.1 * (1 + 1/4 + ... + 1/tf²) / 1.64493406685, and what the series lacks to its
    limit is within 0.05 / tf³ of 1 / (tf + 1/2); so the number of occurrences comes out of it exactly, at a tenth of
    the price of unnesting the vector. Length is counted in distinct words.
    """
    terms = [
        sql.SQL(
            """{weight}::float8 * {gain} * (1 - norm.k / (norm.k +
               round(1 / (1.6449340668482264 - ts_rank(c.tsv, {word}::tsquery)::float8 * 16.449340668482264) - 0.5)))"""
        ).format(
            weight=sql.Placeholder(f"weight{position}"),
            word=sql.Placeholder(f"word{position}"),
            gain=sql.Literal(BM25_K1 + 1),
        )
        for position in range(words)
    ]
    norm = sql.SQL("{} + {} * length(c.tsv) / %(average)s::float8").format(
        sql.Literal(BM25_K1 * (1 - BM25_B)), sql.Literal(BM25_K1 * BM25_B)
    )
    return sql.SQL(
        """matching AS MATERIALIZED (
               SELECT c.document_id, c.ordinal, c.valid_from, c.chunk_hash, c.source,
                      round(({score})::numeric, 9)::float8 AS score
               FROM {table} c CROSS JOIN LATERAL (SELECT {norm} AS k) norm
               WHERE c.tsv @@ %(candidates)s::tsquery
                 AND c.valid_from <= %(snapshot)s AND c.valid_to > %(snapshot)s {filter}
               ORDER BY score DESC, c.chunk_hash FETCH FIRST %(depth)s ROWS WITH TIES),
           text_list AS MATERIALIZED (
               SELECT c.document_id, c.ordinal, c.valid_from, c.score,
                      row_number() OVER (ORDER BY c.score DESC, c.chunk_hash, c.source, v.path, c.ordinal) AS rank
               FROM matching c {shown} ORDER BY rank LIMIT %(depth)s)"""
    ).format(**parts, score=sql.SQL(" + ").join(terms), norm=norm)
