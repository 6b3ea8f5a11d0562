"""Search: vector, full-text and hybrid retrieval from one published snapshot of an index.

Belongs here: reading an index at a snapshot, filters and labels, and which snapshots there are.
Does not belong here: writing an index (assets/index), the SQL of a search (search_statements.py), what is searched for
and what is done with the hits (retrieval.py, answerer.py).

Every search is one read-only transaction with one database snapshot, so a publish or a retention that runs beside it
is seen wholly or not at all. Results have one total order (score, then chunk hash, source, path, ordinal; never row
ids), so that an index that grew by refreshes answers like one that was built at once.
"""

import difflib
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

import psycopg
from psycopg.types.json import Jsonb
from psycopg.types.numeric import Int8

from resources.chunk_config import chunker_fingerprint, enrichment_fingerprint
from resources.config import ProjectConfig
from resources.config_base import SearchMode
from resources.errors import PermanentError, SnapshotNotFoundError, TransientError
from resources.fingerprint import fingerprint
from resources.fusion import Fusion, resolve_fusion
from resources.index_config import EnrichmentConfig, RetrievalConfig
from resources.model_config import EmbeddingModel, Provider
from resources.postgres import Connection, Database
from resources.query_cleaning import clean_query
from resources.search_statements import BM25_B as BM25_B
from resources.search_statements import BM25_K1 as BM25_K1
from resources.search_statements import CONDITIONS, READ_ALL_BELOW, Shape, statement
from resources.sharding import source_of
from resources.text_search import AUTO, MAXIMUM_CHARACTERS, configuration_of, present_configurations

if TYPE_CHECKING:
    import numpy as np

    from resources.models import Embedder, Models

#: Of the rows of an index (columns, the text that full-text search sees, digests) and of ranking.
CODE_VERSION = "2"
#: Layout of the rows this version writes; builds of layout 1 lack the columns ``words`` and ``configuration``.
LAYOUT = 2

#: Breadth of the graph search where neither the configuration nor the snapshot names one.
DEFAULT_EF_SEARCH = 80
#: Questions whose vectors a VectorIndex keeps, so that asking them again costs no request.
REMEMBERED_QUESTIONS = 4_096
#: Seconds after which the server gives a search up, where the index is not configured any more.
DEFAULT_TIMEOUT = 30.0


@dataclass(frozen=True)
class SearchFilter:
    """Conditions on documents; None means no condition, and all that are given must hold.

    Attributes:
        sources: by name; the name of a source stands for all of its shards.
        path_prefix: of the path inside the source.
        title: part of the title, whatever the case.
        media_types: such as ``application/pdf``.
        origin_from, origin_before: when the document was last changed where it comes from; documents of which that is
            unknown pass neither.
        metadata: (key, value) pairs of the document's metadata; values compare as JSON.
        labels: what the caller may see beside sources without a label. None is a caller without restriction
            (operators, evaluation). Labels come from the current configuration, so that they hold for every retained
            snapshot at once; a source that is not configured any more is invisible to a caller with labels.
    """

    sources: tuple[str, ...] | None = None
    languages: tuple[str, ...] | None = None
    licences: tuple[str, ...] | None = None
    path_prefix: str | None = None
    title: str | None = None
    media_types: tuple[str, ...] | None = None
    origin_from: datetime | None = None
    origin_before: datetime | None = None
    metadata: tuple[tuple[str, Any], ...] | None = None
    labels: tuple[str, ...] | None = None

    @property
    def empty(self) -> bool:
        """Whether nothing is filtered."""
        return self == SearchFilter()


@dataclass(frozen=True)
class SearchHit:
    """One chunk found.

    Attributes:
        rank: 1 is best.
        score: larger is better. vector: the cosine, the inner product or the negated Euclidean distance, by the
            index; full_text: BM25; hybrid: what its fusion gives.
        version_id: the document version the snapshot shows; ``path`` and ``title`` are that version's.
        start: first character of the chunk in the document text; ``end`` is one past the last.
        text: the chunk itself, without what was added to it for embedding.
        vector_rank: rank in the vector list, None when it is not in it; ``text_rank`` likewise.
        page: page of the first character, of a document with pages; ``last_page`` that of the last.
        chunk_hash: content address of the chunk, ``text_hash`` of the document text, both hexadecimal.
        chunker: fingerprint of the chunker; with ``text_hash`` and ``ordinal`` the key of the chunk in ``chunk``.
        language: of the document, None when unknown.
        vector_score, text_score: scores of the two searches, where they were computed.
        read_start: first character of ``text`` when retrieval widened it beyond the chunk, else None; ``read_end``
            likewise.
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
    page: int | None = None
    last_page: int | None = None
    chunk_hash: str = ""
    text_hash: str = ""
    chunker: str = ""
    language: str | None = None
    vector_score: float | None = None
    text_score: float | None = None
    read_start: int | None = None
    read_end: int | None = None

    def to_json(self) -> dict[str, Any]:
        """The fields as a JSON object."""
        return {**asdict(self), "heading_path": list(self.heading_path)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "SearchHit":
        """The inverse of ``to_json``; also of what another version of this class wrote."""
        known = {name: value[name] for name in _HIT_FIELDS if name in value}
        return cls(**{**known, "heading_path": tuple(value["heading_path"])})


_HIT_FIELDS = tuple(item.name for item in fields(SearchHit))


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
        lexemes: words of these chunks, for the average length BM25 needs.
        graph: whether the build has an HNSW graph; without one every search is exact.
        sources: chunks by partition.
        configurations: text search configurations a question is read with.
        ef_search: breadth of the graph search that was found to be enough for this snapshot; None: none was looked for.
    """

    index: str
    snapshot: int
    build_id: int
    table: str
    config: dict[str, Any]
    chunks: int
    lexemes: int
    graph: bool
    sources: Mapping[str, int]
    configurations: tuple[str, ...]
    ef_search: int | None = None

    @classmethod
    def of(
        cls,
        index: str,
        snapshot: int,
        build_id: int,
        table: str,
        config: dict[str, Any],
        counts: dict[str, Any],
        graph: bool,
    ) -> "View":
        """The view of a snapshot with these counts."""
        return cls(
            index,
            snapshot,
            build_id,
            table,
            config,
            counts["chunks"],
            counts["lexemes"],
            graph,
            {name: int(item["chunks"]) for name, item in counts.get("by_source", {}).items()},
            present_configurations(config["index"]["text_search"], counts),
            counts.get("ef_search"),
        )


def index_fingerprint(config: ProjectConfig, models: "Models", index: str) -> str:
    """Hash of everything in the configuration of an index that can change what it contains or returns.

    Sources, description, ``ef_search`` and ``exact_below`` are left out: the first shows in the snapshot, the others
    change no row.
    """
    settings = config.indexes[index]
    return fingerprint(
        {
            "chunker": chunker_fingerprint(settings.chunker, models),
            "enrichment": enrichment_fingerprint(settings.enrichment, models),
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


def words_name(table: str) -> str:
    """Name of the table of word frequencies beside a build's table."""
    return table.replace("chunks_", "words_", 1)


class VectorIndex:
    """Searches the indexes of a project.

    Args:
        database: where the indexes are.
        config: for ``ef_search``, ``exact_below``, the time limit and the labels of sources; everything that must fit the
            rows comes from the build itself.
        models: embeds the questions.

    Safe to use from several threads: what is remembered is replaced, never changed.
    """

    def __init__(self, database: Database, config: ProjectConfig, models: "Models") -> None:
        self._database = database
        self._config = config
        self._models = models
        self._embedded: dict[tuple[str, str], tuple[np.ndarray, float]] = {}
        self._views: dict[tuple[str, int | None], View] = {}

    def search(
        self,
        index: str,
        question: str,
        *,
        mode: SearchMode = "hybrid",
        k: int = 5,
        snapshot: int | None = None,
        filters: SearchFilter | None = None,
        fusion: Fusion | None = None,
        depth: int | None = None,
    ) -> SearchResult:
        """Find the ``k`` best chunks for a question in the serving snapshot, or in the one given.

        Args:
            fusion: of the two lists of a hybrid search; by default as the index is configured (``retrieval.fusion``).
            depth: length of the lists that are fused; by default 5 * k and at least ``retrieval.candidates``.

        Raises:
            PermanentError: there is no such index, or no embedding model fits the snapshot.
            SnapshotNotFoundError: nothing was published yet, or the snapshot is not retained.
            TransientError: the search took longer than ``search_timeout`` of the index.
        """
        found = self.search_many(
            index, [question], mode=mode, k=k, snapshot=snapshot, filters=filters, fusion=fusion, depth=depth
        )
        return found[0]

    def search_many(
        self,
        index: str,
        questions: Sequence[str],
        *,
        mode: SearchMode = "hybrid",
        k: int = 5,
        snapshot: int | None = None,
        filters: SearchFilter | None = None,
        fusion: Fusion | None = None,
        depth: int | None = None,
        ef_search: int | None = None,
    ) -> list[SearchResult]:
        """Search several questions in one snapshot; they are embedded together, in batches.

        A search makes one round trip: the look-up of the snapshot, the settings and the statement go out together,
        made for the snapshot that was found last time; when the look-up answers with another, the search is repeated.

        Args:
            ef_search: breadth of the graph search in place of what the configuration or the snapshot says.

        Raises:
            As ``search``.
        """
        if mode not in ("vector", "full_text", "hybrid"):
            raise PermanentError(f"there is no search mode {mode!r}; allowed: vector, full_text, hybrid")
        if k < 1 or (depth is not None and depth < 1):
            raise PermanentError(f"k and depth must be at least 1, not {k} and {depth}")
        if not questions:
            return []
        questions = [question[:MAXIMUM_CHARACTERS] for question in questions]
        vectors: list[tuple[np.ndarray | None, float]] = [(None, 0.0)] * len(questions)
        embedded_by = None
        for _ in range(5):
            started = time.perf_counter()
            view = self._views.get((index, snapshot)) or self._read_view(index, snapshot)
            embedder = self._embedder(view) if mode != "full_text" else None
            shared = (time.perf_counter() - started) / len(questions)
            if embedder and embedded_by != _embedded_with(view):
                vectors = self._embed(embedder, [clean_query(question, _enrichment(view)) for question in questions])
                embedded_by = _embedded_with(view)
            try:
                with self._database.connect() as connection:
                    results = []
                    for question, (vector, embedding) in zip(questions, vectors, strict=True):
                        begin = time.perf_counter()
                        search = self._plan(view, question, vector, mode, k, filters, None, fusion, depth, ef_search)
                        if not results:
                            now = self._begin(connection, search, index, snapshot)
                            if now != view:
                                break  # published, rolled back or erased since this snapshot was looked up
                        hits = self._finish(connection, search)
                        latency = time.perf_counter() - begin + shared + embedding
                        results.append(SearchResult(index, view.snapshot, mode, hits, latency))
                    else:
                        return results
                    self._remember(index, snapshot, now)
            except psycopg.errors.UndefinedTable:
                # retention dropped the build since the snapshot was looked up: look up again
                self._views.pop((index, snapshot), None)
            except psycopg.errors.QueryCanceled as error:
                raise TransientError(
                    f"a search of index {index!r} was given up after {self._timeout(index):g} s; "
                    "ask for less, or raise search_timeout of the index"
                ) from error
        raise SnapshotNotFoundError(f"index {index!r} changed again and again during one search; search again")

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
        fusion: Fusion | None = None,
        depth: int | None = None,
        ef_search: int | None = None,
    ) -> tuple[SearchHit, ...]:
        """Search one view in the surrounding transaction; the gates use it on a snapshot that is only staged.

        Args:
            question: used by full_text and hybrid.
            vector: embedding of the question, used by vector and hybrid.
            exact: compare with every vector (True) or walk the graph (False); None lets the number of rows decide.
            ef_search: breadth of the graph search in place of what the configuration or the snapshot says.
        """
        search = self._plan(view, question, vector, mode, k, filters, exact, fusion, depth, ef_search)
        return self._finish(connection, search)

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
            vectors = embedder.embed(missing, query=True).vectors
            seconds = (time.perf_counter() - started) / len(missing)
            if len(self._embedded) + len(missing) > REMEMBERED_QUESTIONS:
                self._embedded = {}
            for question, vector in zip(missing, vectors, strict=True):
                remembered[question] = (vector, seconds)
                if len(self._embedded) < REMEMBERED_QUESTIONS:
                    self._embedded[embedder.fingerprint, question] = (vector, seconds)
        return [remembered[question] or (None, 0.0) for question in questions]

    def _plan(
        self,
        view: View,
        question: str,
        vector: "np.ndarray | None",
        mode: SearchMode,
        k: int,
        filters: SearchFilter | None,
        exact: bool | None,
        fusion: Fusion | None,
        depth: int | None,
        ef_search: int | None = None,
    ) -> "_Search":
        """Everything a search needs, decided without the database."""
        filters = filters or SearchFilter()
        settings = view.config["index"]
        current = self._config.indexes.get(view.index)
        retrieval = current.retrieval if current else RetrievalConfig.model_validate(settings.get("retrieval", {}))
        if fusion is None:
            lexical = view.config["embedder"]["provider"]["kind"] == "offline"
            fusion = resolve_fusion(retrieval.fusion, lexical=lexical)
        hnsw = current.hnsw.model_dump() if current else settings["hnsw"]
        depth = max(
            depth or (max(retrieval.candidates, 5 * k) if mode == "hybrid" else k), k if mode != "hybrid" else 1
        )
        with_vector = mode != "full_text" and vector is not None and bool(vector.any())
        permitted = self._permitted(view, filters)
        chunks = view.chunks if permitted is None else sum(view.sources[name] for name in permitted)
        exact_below = max(hnsw["exact_below"], depth)
        conditions = tuple(name for name in CONDITIONS if getattr(filters, name) is not None)
        if permitted is not None and chunks < max(exact_below, READ_ALL_BELOW):
            conditions = ("permitted", *conditions)
        if exact is None and (not view.graph or not conditions):
            exact = not view.graph or chunks < exact_below
        shape = Shape(
            table=view.table,
            words=words_name(view.table),
            counted=view.config.get("layout", 1) >= 2,
            text_search=settings["text_search"] if mode != "vector" else None,
            distance=settings["distance"] if with_vector else None,
            exact=exact,
            conditions=conditions,
            sources=permitted is not None,
            depth=depth,
            k=k,
            fusion=fusion.method,
        )
        configured: int | str = hnsw["ef_search"]
        breadth = ef_search or (view.ef_search or DEFAULT_EF_SEARCH if configured == AUTO else int(configured))
        parameters: dict[str, Any] = {
            "build": Int8(view.build_id),
            "snapshot": Int8(view.snapshot),
            "chunks": Int8(chunks),
            "total": Int8(view.chunks),
            "exact_below": Int8(exact_below),
            "average": float(view.lexemes / view.chunks) if view.chunks and view.lexemes else 1.0,
            "question": clean_query(question[:MAXIMUM_CHARACTERS], _enrichment(view), "search").replace("\0", " "),
            "configuration": view.configurations[0],
            "configurations": _configurations(view, filters),
            "vector": _vector_parameter(vector, settings["vector_type"]) if with_vector else None,
            "vector_weight": float(fusion.vector_weight),
            "text_weight": float(fusion.text_weight),
            "rrf_k": float(fusion.k),
            "sources": permitted,
            **_condition_parameters(filters),
        }
        # nothing to search with, or nothing the caller may see
        empty = (permitted is not None and not chunks) or not (shape.distance or shape.text_search)
        return _Search(
            view=view,
            shape=shape,
            parameters=parameters,
            settings={
                "plan_cache_mode": "force_generic_plan",
                "jit": "off",
                "hnsw.ef_search": str(min(1000, max(breadth, depth))),
                "hnsw.iterative_scan": "strict_order",
                "statement_timeout": f"{int(self._timeout(view.index) * 1000)}ms",
            },
            empty=empty,
        )

    def _begin(self, connection: Connection, search: "_Search", index: str, snapshot: int | None) -> View:
        """Look the snapshot up and search it in one round trip; returns the snapshot there is."""
        with connection.pipeline():
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            row = connection.execute(_VIEW, (snapshot, index))
            if not search.empty:
                search.send(connection)
        return self._view_of(connection, row.fetchone(), index, snapshot)

    def _finish(self, connection: Connection, search: "_Search") -> tuple[SearchHit, ...]:
        """The hits of a search that was sent, or is sent now."""
        if search.empty:
            return ()
        if search.cursor is None:
            with connection.pipeline():
                search.send(connection)
        assert search.cursor is not None
        rows = search.cursor.fetchall()
        depth, exact_below = search.shape.depth, int(search.parameters["exact_below"])
        walked = search.shape.distance is not None and not search.shape.exact
        found, reach = (rows[0][-2], rows[0][-1]) if rows else (0, exact_below)
        if walked and (search.shape.exact is False or reach >= exact_below) and found < min(depth, reach):
            # the graph walk gave up before it met enough rows that are visible and pass the filter
            return self._finish(connection, search.exactly())
        chunker = search.view.config.get("chunker", "")
        return tuple(_hit(rank, chunker, *row[:-2]) for rank, row in enumerate(rows, 1))

    def _permitted(self, view: View, filters: SearchFilter) -> list[str] | None:
        """The partitions of the snapshot a search may read; None: all of them."""
        if filters.sources is None and filters.labels is None:
            return None
        names = [
            name
            for name in view.sources
            if filters.sources is None or name in filters.sources or source_of(name) in filters.sources
        ]
        if filters.labels is not None:
            labels = {source_of(name): source.label for name, source in self._config.sources.items()}
            names = [
                name
                for name in names
                if source_of(name) in labels and labels[source_of(name)] in (None, *filters.labels)
            ]
        return sorted(names)

    def _timeout(self, index: str) -> float:
        current = self._config.indexes.get(index)
        return current.search_timeout if current else DEFAULT_TIMEOUT

    def _remember(self, index: str, snapshot: int | None, view: View) -> None:
        if len(self._views) >= REMEMBERED_QUESTIONS:
            self._views = {}
        self._views[index, snapshot] = view

    def _read_view(self, index: str, snapshot: int | None) -> View:
        with self._database.connect() as connection:
            view = self._view(connection, index, snapshot)
        self._remember(index, snapshot, view)
        return view

    def _view(self, connection: Connection, index: str, snapshot: int | None) -> View:
        return self._view_of(connection, connection.execute(_VIEW, (snapshot, index)).fetchone(), index, snapshot)

    def _view_of(self, connection: Connection, row: Any, index: str, snapshot: int | None) -> View:
        if row is None:
            self._refuse_unknown(connection, index)
        if row is None or row[0] is None:
            self._views.pop((index, snapshot), None)
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
        return View.of(index, *row)

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


def _enrichment(view: View) -> EnrichmentConfig:
    """The enrichment the build was made with; its questions are cleaned as its chunks were."""
    return EnrichmentConfig.model_validate(view.config["index"].get("enrichment", {}))


def _embedded_with(view: View) -> tuple[str, bool]:
    """What decides the vector of a question."""
    step = _enrichment(view).step("clean")
    return view.config["embedder"]["fingerprint"], step is not None and "embed" in step.use


_VIEW = """SELECT s.snapshot, s.build_id, b.table_name, b.config, s.counts,
                  to_regclass('genaiops.' || b.table_name || '_embedding') IS NOT NULL
           FROM index_state i
           LEFT JOIN index_snapshot s ON s.index_name = i.index_name AND s.snapshot = coalesce(%s, i.serving)
           LEFT JOIN index_build b ON b.build_id = s.build_id
           WHERE i.index_name = %s"""


@dataclass
class _Search:
    """One search: what is sent, and where its rows arrive."""

    view: View
    shape: Shape
    parameters: dict[str, Any]
    settings: dict[str, str]
    empty: bool
    cursor: "psycopg.Cursor[Any] | None" = None

    def send(self, connection: Connection) -> None:
        """Send settings and statement; in a pipeline they travel together."""
        calls = ", ".join("set_config(%s, %s, true)" for _ in self.settings)
        values = [part for setting in self.settings.items() for part in setting]
        connection.execute(cast(Any, f"SELECT {calls}"), values)
        self.cursor = connection.execute(cast(Any, statement(self.shape)), self.parameters, prepare=True)

    def exactly(self) -> "_Search":
        """The same search by comparing with every vector."""
        return replace(self, shape=replace(self.shape, exact=True), cursor=None)


def _hit(rank: int, chunker: str, score: float, *columns: Any) -> SearchHit:
    values = dict(zip(_ROW_FIELDS, columns, strict=True))
    values["heading_path"] = tuple(values["heading_path"])
    return SearchHit(rank=rank, score=score, chunker=chunker, **values)


#: Fields of a hit in the order of the statement's columns, after the score.
_ROW_FIELDS = tuple(name for name in _HIT_FIELDS if name not in ("rank", "score", "chunker", "read_start", "read_end"))


def _snapshot_info(*columns: Any) -> SnapshotInfo:
    *before, pinned = columns
    return SnapshotInfo(*before, tuple(pinned))  # pyright: ignore[reportCallIssue]


def _vector_parameter(vector: "np.ndarray | None", vector_type: str) -> Any:
    from pgvector import HalfVector, Vector

    assert vector is not None
    return HalfVector(vector) if vector_type == "halfvec" else Vector(vector)


def _configurations(view: View, filters: SearchFilter) -> list[str]:
    """What the question is read with: every configuration of the snapshot, or those of the languages asked for."""
    wanted = {configuration_of(language) for language in filters.languages or ()}
    return [name for name in view.configurations if name in wanted] or list(view.configurations)


def _condition_parameters(filters: SearchFilter) -> dict[str, Any]:
    return {
        "languages": list(filters.languages) if filters.languages is not None else None,
        "licences": list(filters.licences) if filters.licences is not None else None,
        "path_prefix": filters.path_prefix,
        "title": filters.title,
        "media_types": list(filters.media_types) if filters.media_types is not None else None,
        "origin_from": filters.origin_from,
        "origin_before": filters.origin_before,
        "metadata": Jsonb(dict(filters.metadata)) if filters.metadata is not None else None,
    }
