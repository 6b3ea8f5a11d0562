"""Retrieval: from a question to the passages a model reads, by the steps an index is configured for.

Belongs here: the order of the steps (translate, search, fuse, deduplicate, rerank, diversify, expand), what a failing
step means, and the trace of what was done.
Does not belong here: searching one list (vector_index.py), making queries (query_translation.py), scoring candidates
(rerankers.py), and answering (answerer.py).

All lists of a question are read from one snapshot and under the caller's filter; what is expanded comes from the very
version of the document that was found. So no step can bring in what the caller may not see.
"""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

import psycopg
from psycopg import sql

from resources import query_translation as translation
from resources import rerankers
from resources.errors import BudgetExceededError, ConfigError, GenaiopsError, SnapshotNotFoundError
from resources.fingerprint import fingerprint
from resources.fusion import Fusion, resolve_fusion
from resources.generation_memo import GenerationMemo
from resources.index_config import RetrievalConfig
from resources.models import Models, Usage
from resources.postgres import Connection, Database
from resources.prompt_store import printable, prompt_fingerprint, render
from resources.query_translation import Query
from resources.vector_index import SearchFilter, SearchHit, SearchResult

if TYPE_CHECKING:
    import numpy as np

#: Covers this module: order of steps, fusing of several queries' lists, diversity, what is expanded.
CODE_VERSION = "1"
#: Constant of reciprocal ranks when the lists of several queries are fused.
QUERIES_K = 60

Mode = Any  # SearchMode; the searches of a trial carry it as text


class Searcher(Protocol):
    """What retrieval needs of resources.vector_index.VectorIndex."""

    def search_many(
        self,
        index: str,
        questions: Sequence[str],
        *,
        mode: Mode,
        k: int,
        snapshot: int | None = None,
        filters: SearchFilter | None = None,
        fusion: Fusion | None = None,
        depth: int | None = None,
        ef_search: int | None = None,
    ) -> list[SearchResult]:
        """Search a snapshot for each question, in order."""
        ...


@dataclass(frozen=True)
class Retrieved(SearchResult):
    """What was retrieved for a question.

    Attributes:
        latency: seconds; a model call found in the memo counts what it once took, so that settings compare.
        usage: of the model calls of translation and reranking, as they were really made.
        trace: what was done, in JSON; see ``Retriever``.
        error: class of the error that ended the retrieval; there are no hits then.
    """

    usage: Usage = field(default_factory=Usage)
    trace: dict[str, Any] = field(default_factory=dict)
    error: str | None = None


def resolved(settings: RetrievalConfig, *, lexical: bool) -> RetrievalConfig:
    """The settings with the weights of the fusion written out, as they are put on record with a variant.

    Args:
        lexical: the embedding model is the built-in one that compares words.
    """
    return settings.model_copy(update={"fusion": resolve_fusion(settings.fusion, lexical=lexical).to_config()})


def retrieval_fingerprint(settings: RetrievalConfig, models: Models) -> str:
    """Hash of everything in a retrieval configuration that can change what is retrieved.

    Raises:
        PermanentError: a model it names does not exist, or its key is missing.
        ConfigError: a rerank model's folder or the extra [local] is missing.
    """
    translate, rerank = settings.translate, settings.rerank
    prompts = [translation.MULTI_QUERY, translation.DECOMPOSE, translation.HYDE] if translate.uses_model else []
    prompts += [rerankers.MODEL_PROMPT] if rerank.kind == "model" else []
    return fingerprint(
        {
            "code": CODE_VERSION,
            "settings": settings.model_dump(mode="json"),
            "translation": translation.CODE_VERSION if translate.active else None,
            "rerankers": rerankers.CODE_VERSION if rerank.kind != "none" else None,
            "prompts": [prompt_fingerprint(prompt) for prompt in prompts],
            "models": {key: models.chat(name).fingerprint for key, name in settings.chat_models()},
            "reranker": models.reranker(str(rerank.model)).fingerprint if rerank.kind == "cross_encoder" else None,
        }
    )


@dataclass
class _Work:
    """One question on its way through the steps."""

    question: str
    queries: list[Query]
    lists: list[SearchResult] = field(default_factory=list)
    hits: list[SearchHit] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    model_seconds: float = 0.0
    own_seconds: float = 0.0
    steps: list[dict[str, Any]] = field(default_factory=list)
    documents: set[int] = field(default_factory=set)
    error: GenaiopsError | None = None

    def pay(self, usage: Usage, seconds: float) -> None:
        self.usage, self.model_seconds = self.usage + usage, self.model_seconds + seconds


class Retriever:
    """Runs the steps of retrieval for one question or for many; safe to use from several threads.

    The trace of a question:

    * ``queries``: everything that was searched for: {text, kind, by, weight, generation};
    * ``fusion``: how vector list and text list became one, in a hybrid search;
    * ``lists``: when there were several queries, or a later step: what each found, [[document_id, ordinal, score]];
    * ``steps``: {step, kind, seconds, ...} in the order they ran, with scores; ``skipped`` names the class of the error
      of a step that failed and was configured to be skipped;
    * ``documents``: ids of documents whose words became part of a query;
    * ``usage`` and ``model_seconds`` of model calls.

    It holds words of the question and of documents (feedback, made-up passages), but no passage.
    """

    def __init__(
        self,
        database: Database,
        models: Models,
        index: Searcher,
        memo: GenerationMemo | None = None,
    ) -> None:
        self._database = database
        self._models = models
        self._index = index
        self._memo = memo or GenerationMemo(database)

    def retrieve(
        self,
        index: str,
        question: str,
        *,
        mode: Mode,
        k: int,
        settings: RetrievalConfig | None = None,
        snapshot: int | None = None,
        filters: SearchFilter | None = None,
        ef_search: int | None = None,
        run_id: str,
    ) -> Retrieved:
        """The ``k`` best passages for a question, from the serving snapshot unless one is given.

        Args:
            ef_search: breadth of the graph search in place of the index's own.

        Raises:
            PermanentError, SnapshotNotFoundError: as ``VectorIndex.search``.
            GenaiopsError: a model of a step did not answer, and the step is not configured to be skipped.
        """
        settings = self._resolved(index, settings, mode, snapshot)
        (work,) = self._run(index, [question], mode, k, settings, snapshot, filters, ef_search, run_id)
        if work.error is not None:
            raise work.error
        return _retrieved(index, mode, work, settings)

    def retrieve_many(
        self,
        index: str,
        questions: Sequence[str],
        *,
        mode: Mode,
        k: int,
        settings: RetrievalConfig | None = None,
        snapshot: int | None = None,
        filters: SearchFilter | None = None,
        ef_search: int | None = None,
        run_id: str,
    ) -> list[Retrieved]:
        """The same for several questions, in one snapshot; a question whose retrieval failed carries ``error``.

        Raises:
            PermanentError, SnapshotNotFoundError: as ``VectorIndex.search``.
            BudgetExceededError: the budget refuses the next model call.
        """
        settings = self._resolved(index, settings, mode, snapshot)
        return [
            _retrieved(index, mode, work, settings)
            for work in self._run(index, questions, mode, k, settings, snapshot, filters, ef_search, run_id)
        ]

    def _resolved(
        self, index: str, settings: RetrievalConfig | None, mode: Mode, snapshot: int | None
    ) -> RetrievalConfig:
        settings = settings or RetrievalConfig()
        if mode != "hybrid" or settings.fusion.vector_weight is not None:
            return settings
        with self._database.connect() as connection:
            row = connection.execute(
                """SELECT b.config->'embedder'->'provider'->>'kind' FROM index_state i
                   JOIN index_snapshot s ON s.index_name = i.index_name AND s.snapshot = coalesce(%s, i.serving)
                   JOIN index_build b USING (build_id) WHERE i.index_name = %s""",
                (snapshot, index),
            ).fetchone()
        # without such a snapshot the search itself says what is wrong
        return resolved(settings, lexical=row is not None and row[0] == "offline")

    def _run(
        self,
        index: str,
        questions: Sequence[str],
        mode: Mode,
        k: int,
        settings: RetrievalConfig,
        snapshot: int | None,
        filters: SearchFilter | None,
        ef_search: int | None,
        run_id: str,
    ) -> list[_Work]:
        for attempt in range(3):
            try:
                return self._attempt(index, questions, mode, k, settings, snapshot, filters, ef_search, run_id)
            except (SnapshotNotFoundError, psycopg.errors.UndefinedTable):
                # between two reads the snapshot that was serving was removed: begin again with the one after it
                if snapshot is not None or attempt == 2:
                    raise
        raise AssertionError("unreachable")

    def _attempt(
        self,
        index: str,
        questions: Sequence[str],
        mode: Mode,
        k: int,
        settings: RetrievalConfig,
        snapshot: int | None,
        filters: SearchFilter | None,
        ef_search: int | None,
        run_id: str,
    ) -> list[_Work]:
        works = [_Work(text, [Query(text, "question")]) for text in map(printable, questions)]
        if not works:
            return []
        self._each(works, self._translation(settings, run_id), self._concurrency(settings.translate.model))
        needed = _needed(settings, k)
        search = _Search(
            self._index, index, settings, needed, max(settings.candidates, 5 * k, needed), filters, ef_search
        )
        passages = [(work, query) for work in works for query in work.queries if query.kind == "passage"]
        snapshot = search.run(
            [(work, query) for work in works if not work.error for query in work.queries if query.kind != "passage"],
            mode,
            snapshot,
        )
        search.run(passages, "vector" if mode != "full_text" else mode, snapshot)
        if settings.translate.feedback:
            search.run(list(_feedback(works, settings)), "vector" if mode == "vector" else "full_text", snapshot)
        for work in works:
            if not work.error:
                _timed(work, _fuse) if len(work.lists) > 1 else _fuse(work)
                if settings.deduplicate:
                    _timed(work, _deduplicate)
        if settings.rerank.kind != "none":
            name = settings.rerank.model if settings.rerank.kind == "model" else None
            self._each(works, self._reranking(settings, k, run_id), self._concurrency(name))
        if settings.mmr or settings.expand.kind != "none":
            with self._database.connect() as connection:
                connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
                build = _build(connection, index, snapshot)
                for work in works:
                    if settings.mmr:
                        _timed(work, lambda work: _diversify(connection, build, work, settings, k))
                    if settings.expand.kind != "none":
                        _timed(work, lambda work: _expand(connection, build, work, settings, k))
        for work in works:
            work.hits = [replace(hit, rank=rank) for rank, hit in enumerate(work.hits[:k], 1)]
        return works

    def _concurrency(self, model: str | None) -> int:
        return self._models.chat(model).config.limits.concurrency if model else 1

    def _each(self, works: Sequence[_Work], step: Callable[[_Work], None] | None, workers: int) -> None:
        """Run a step on every question that has not failed; the error of one question stays with it."""
        if step is None:
            return

        def one(work: _Work) -> None:
            try:
                step(work)
            except (BudgetExceededError, ConfigError):
                raise
            except GenaiopsError as error:
                work.error = error
                work.hits = []

        todo = [work for work in works if not work.error]
        if workers == 1 or len(todo) < 2:
            for work in todo:
                one(work)
            return
        with ThreadPoolExecutor(min(workers, len(todo)), thread_name_prefix="retrieval") as pool:
            futures = [pool.submit(one, work) for work in todo]
            try:
                for future in futures:
                    future.result()
            finally:
                for future in futures:
                    future.cancel()

    def _translation(self, settings: RetrievalConfig, run_id: str) -> Callable[[_Work], None] | None:
        config = settings.translate
        if not config.active:
            return None

        def translate(work: _Work) -> None:
            if config.decompose == "rules":
                parts = translation.split_question(work.question)
                work.queries += [Query(part, "part", "rules", config.weight) for part in parts]
            if not config.uses_model:
                return
            before = len(work.queries)
            try:
                if config.multi_query:
                    self._ask_queries(work, settings, "rewording", config.multi_query, run_id)
                if config.decompose == "model":
                    self._ask_queries(work, settings, "part", translation.MAXIMUM_PARTS, run_id)
                if config.hyde:
                    self._ask_passage(work, settings, run_id)
            except GenaiopsError as error:
                if config.on_failure == "error" or isinstance(error, BudgetExceededError | ConfigError):
                    raise
                del work.queries[before:]
                work.steps.append({"step": "translate", "kind": "model", "skipped": type(error).__name__})

        return translate

    def _ask_queries(self, work: _Work, settings: RetrievalConfig, kind: Any, limit: int, run_id: str) -> None:
        config = settings.translate
        prompt = translation.with_limit(
            translation.MULTI_QUERY if kind == "rewording" else translation.DECOMPOSE, limit
        )
        chat = self._models.chat(str(config.model))
        key, said = self._memo.complete(
            chat,
            render(prompt, work.question, []),
            run_id,
            read=lambda text: translation.read_queries(text, limit),
        )
        work.pay(said.usage, said.latency)
        known = {query.text.casefold() for query in work.queries}
        for text in translation.read_queries(said.text, limit):
            if text.casefold() not in known:
                known.add(text.casefold())
                work.queries.append(Query(text, kind, chat.config.name, config.weight, key))

    def _ask_passage(self, work: _Work, settings: RetrievalConfig, run_id: str) -> None:
        config = settings.translate
        chat = self._models.chat(str(config.model))
        key, said = self._memo.complete(
            chat, render(translation.HYDE, work.question, []), run_id, read=translation.read_passage
        )
        work.pay(said.usage, said.latency)
        passage = translation.read_passage(said.text)
        work.queries.append(Query(passage, "passage", chat.config.name, config.weight, key))

    def _reranking(self, settings: RetrievalConfig, k: int, run_id: str) -> Callable[[_Work], None]:
        config = settings.rerank
        score: rerankers.Rerank
        if config.kind == "lexical":
            score = rerankers.by_rules
        elif config.kind == "cross_encoder":
            score = rerankers.by_cross_encoder(self._models, str(config.model))
        else:
            score = rerankers.by_model(self._memo, self._models.chat(str(config.model)))

        def rerank(work: _Work) -> None:
            began = perf_counter()
            looked_at, others = work.hits[: max(config.candidates, k)], work.hits[max(config.candidates, k) :]
            candidates = [
                rerankers.Candidate(hit.text, hit.title, hit.heading_path, hit.document_id) for hit in looked_at
            ]
            step: dict[str, Any] = {"step": "rerank", "kind": config.kind, "model": config.model}
            try:
                found = score(work.question, candidates, run_id)
            except GenaiopsError as error:
                if config.on_failure == "error" or isinstance(error, BudgetExceededError | ConfigError):
                    raise
                work.steps.append({**step, "skipped": type(error).__name__})
                return
            work.hits = _reordered(looked_at, found.scores, config.weight) + others
            # a model call counts what it took when it was made, whether now or before
            seconds = found.seconds if found.generations else perf_counter() - began
            work.pay(found.usage, seconds)
            work.steps.append(
                {
                    **step,
                    "seconds": seconds,
                    "scores": [
                        [hit.document_id, hit.ordinal, score]
                        for hit, score in zip(looked_at, found.scores, strict=True)
                    ],
                    "generations": found.generations,
                }
            )

        return rerank


# --- search and fuse --------------------------------------------------------------------------------------


@dataclass
class _Search:
    """The searches of a retrieval; all of them under the caller's filter."""

    searcher: Searcher
    index: str
    settings: RetrievalConfig
    k: int
    depth: int
    filters: SearchFilter | None
    ef_search: int | None = None

    def run(self, queries: "Sequence[tuple[_Work, Query]]", mode: Mode, snapshot: int | None) -> int | None:
        """Search for all queries in one snapshot and give each work its lists; returns the snapshot's number."""
        if not queries:
            return snapshot
        found = self.searcher.search_many(
            self.index,
            [query.text for _, query in queries],
            mode=mode,
            k=self.k,
            snapshot=snapshot,
            filters=self.filters,
            fusion=resolve_fusion(self.settings.fusion, lexical=False) if mode == "hybrid" else None,
            depth=self.depth,
            **({"ef_search": self.ef_search} if self.ef_search else {}),
        )
        for (work, query), result in zip(queries, found, strict=True):
            # lists stand in the order of the queries that were searched for
            work.queries.remove(query)
            work.queries.insert(len(work.lists), query)
            work.lists.append(result)
        return found[0].snapshot


def _needed(settings: RetrievalConfig, k: int) -> int:
    """How many hits of each search the later steps need."""
    needed = k
    if settings.rerank.kind != "none":
        needed = max(needed, settings.rerank.candidates)
    if settings.mmr:
        needed = max(needed, settings.mmr.candidates)
    if settings.translate.active or settings.deduplicate or settings.expand.kind != "none":
        needed = max(needed, settings.candidates)
    return needed


def _feedback(works: Iterable[_Work], settings: RetrievalConfig) -> "Iterable[tuple[_Work, Query]]":
    config = settings.translate
    for work in works:
        if work.error or not work.lists:
            continue
        first = work.lists[0].hits[: config.feedback]
        text = translation.feedback_query(work.question, [hit.text for hit in first], config.feedback_terms)
        if text is not None:
            query = Query(text, "feedback", "rules", config.weight)
            work.queries.append(query)
            work.documents |= {hit.document_id for hit in first}
            yield work, query


def _fuse(work: _Work) -> None:
    """One list of all: as it is when there is one, else the weighted sum of reciprocal ranks."""
    if len(work.lists) == 1:
        work.hits = list(work.lists[0].hits)
        return
    scores: dict[tuple[int, int], float] = {}
    best: dict[tuple[int, int], SearchHit] = {}
    for query, found in zip(work.queries, work.lists, strict=True):
        for hit in found.hits:
            key = (hit.document_id, hit.ordinal)
            scores[key] = scores.get(key, 0.0) + query.weight / (QUERIES_K + hit.rank)
            best.setdefault(key, hit)
    ordered = sorted(
        best, key=lambda key: (-round(scores[key], 12), best[key].source, best[key].path, best[key].ordinal)
    )
    work.hits = [replace(best[key], rank=rank, score=scores[key]) for rank, key in enumerate(ordered, 1)]


def _deduplicate(work: _Work) -> None:
    seen: set[str] = set()
    kept = []
    for hit in work.hits:
        if hit.text not in seen:
            seen.add(hit.text)
            kept.append(hit)
    work.steps.append({"step": "deduplicate", "dropped": len(work.hits) - len(kept)})
    work.hits = kept


def _reordered(hits: Sequence[SearchHit], scores: Sequence[float], weight: float) -> list[SearchHit]:
    """Hits by the reranker's score, mixed with the search score when it has a weight; ties keep their order."""
    if weight < 1:
        ours, theirs = _scaled([hit.score for hit in hits]), _scaled(scores)
        scores = [weight * their + (1 - weight) * our for our, their in zip(ours, theirs, strict=True)]
    order = sorted(range(len(hits)), key=lambda number: (-scores[number], number))
    return [replace(hits[number], score=float(scores[number])) for number in order]


def _scaled(values: Sequence[float]) -> list[float]:
    """Values between 0 (least) and 1 (largest); all 1 when they are equal."""
    low, high = min(values, default=0.0), max(values, default=0.0)
    return [(value - low) / (high - low) if high > low else 1.0 for value in values]


# --- diversity --------------------------------------------------------------------------------------------


def mmr_order(relevance: Sequence[float], vectors: "np.ndarray", weight: float, k: int) -> list[int]:
    """The order in which maximal marginal relevance takes ``k`` of the candidates (Carbonell and Goldstein, 1998).

    Each next one has the largest weight * relevance - (1 - weight) * (largest cosine with one already taken); the
    first of equals.

    Args:
        relevance: of each candidate, between 0 and 1.
        vectors: shape (candidates, dimensions).
        weight: lambda; 1 is relevance alone.
    """
    import numpy as np

    wanted = np.asarray(relevance, np.float64)
    vectors = np.asarray(vectors, np.float64)
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    nearest = np.full(len(wanted), -np.inf)
    left = np.ones(len(wanted), bool)
    order: list[int] = []
    while len(order) < min(k, len(wanted)):
        gain = weight * wanted - (1 - weight) * (nearest if order else np.zeros_like(wanted))
        gain[~left] = -np.inf
        # rounded, so that noise in the last digit decides nothing
        chosen = int(np.argmax(np.round(gain, 9)))
        order.append(chosen)
        left[chosen] = False
        nearest = np.maximum(nearest, unit @ unit[chosen])
    return order


@dataclass(frozen=True)
class _Build:
    """Where the chunks of the snapshot are."""

    build_id: int
    snapshot: int
    table: str
    chunker: str


def _build(connection: Connection, index: str, snapshot: int | None) -> _Build:
    row = connection.execute(
        """SELECT b.build_id, s.snapshot, b.table_name, b.config->>'chunker'
           FROM index_snapshot s JOIN index_build b USING (build_id) WHERE s.index_name = %s AND s.snapshot = %s""",
        (index, snapshot),
    ).fetchone()
    if row is None:
        raise SnapshotNotFoundError(f"snapshot {snapshot} of index {index!r} is no longer retained; ask again")
    return _Build(*row)


def _diversify(connection: Connection, build: _Build, work: _Work, settings: RetrievalConfig, k: int) -> None:
    import numpy as np

    assert settings.mmr is not None
    candidates = work.hits[: max(settings.mmr.candidates, k)]
    if not candidates:
        return
    rows = connection.execute(
        sql.SQL(
            """SELECT document_id, ordinal, embedding::real[] FROM {table}
               WHERE (document_id, ordinal) IN (SELECT * FROM unnest(%(documents)s::bigint[], %(ordinals)s::int[]))
                 AND valid_from <= %(snapshot)s AND valid_to > %(snapshot)s"""
        ).format(table=sql.Identifier(build.table)),
        {
            "documents": [hit.document_id for hit in candidates],
            "ordinals": [hit.ordinal for hit in candidates],
            "snapshot": build.snapshot,
        },
    ).fetchall()
    vectors = {(document, ordinal): vector for document, ordinal, vector in rows}
    stacked = np.array([vectors[hit.document_id, hit.ordinal] for hit in candidates], np.float64)
    # every candidate stays, in the new order: a later step may drop some
    order = mmr_order(_scaled([hit.score for hit in candidates]), stacked, settings.mmr.relevance, len(candidates))
    work.steps.append({"step": "mmr", "relevance": settings.mmr.relevance, "order": order[:k]})
    work.hits = [candidates[number] for number in order]


# --- expansion --------------------------------------------------------------------------------------------


def _expand(connection: Connection, build: _Build, work: _Work, settings: RetrievalConfig, k: int) -> None:
    """Give each hit the text the model reads around it; a hit that an earlier one already shows is passed over."""
    spans = _parents(connection, build, work.hits) if settings.expand.kind == "parent" else None
    if spans is None:
        spans = _neighbours(connection, build, work.hits, settings.expand.neighbours)
    taken: list[tuple[SearchHit, int, int]] = []
    passed = 0
    for hit in work.hits:
        start, end = _bounded(hit, *spans.get((hit.document_id, hit.ordinal), (hit.start, hit.end)), settings)
        if any(other.version_id == hit.version_id and begin <= start and end <= until for other, begin, until in taken):
            passed += 1
            continue
        taken.append((hit, start, end))
        if len(taken) == k:
            break
    rows = connection.execute(
        """SELECT wanted.number, substr(t.text, wanted.start_char + 1, wanted.end_char - wanted.start_char)
           FROM unnest(%s::bigint[], %s::int[], %s::int[]) WITH ORDINALITY wanted (version_id, start_char, end_char, number)
           JOIN document_version v USING (version_id) JOIN document_text t USING (text_hash)""",
        ([hit.version_id for hit, _, _ in taken], [start for _, start, _ in taken], [end for _, _, end in taken]),
    ).fetchall()
    texts: dict[int, str] = dict(rows)
    work.hits = [
        replace(hit, text=texts[number], read_start=start, read_end=end)
        if (start, end) != (hit.start, hit.end)
        else hit
        for number, (hit, start, end) in enumerate(taken, 1)
    ]
    work.steps.append(
        {
            "step": "expand",
            "kind": settings.expand.kind,
            "read": [[hit.document_id, hit.ordinal, start, end] for hit, start, end in taken],
            "passed_over": passed,
        }
    )


def _parents(
    connection: Connection, build: _Build, hits: Sequence[SearchHit]
) -> dict[tuple[int, int], tuple[int, int]]:
    rows = connection.execute(
        """SELECT wanted.document_id, wanted.ordinal, chunk.parent_start, chunk.parent_end
           FROM unnest(%(documents)s::bigint[], %(versions)s::bigint[], %(ordinals)s::int[])
                AS wanted (document_id, version_id, ordinal)
           JOIN document_version version USING (version_id)
           JOIN chunker ON chunker.fingerprint = %(chunker)s
           JOIN chunk ON chunk.chunker_id = chunker.chunker_id AND chunk.text_hash = version.text_hash
                AND chunk.ordinal = wanted.ordinal
           WHERE chunk.parent_start IS NOT NULL""",
        {
            "documents": [hit.document_id for hit in hits],
            "versions": [hit.version_id for hit in hits],
            "ordinals": [hit.ordinal for hit in hits],
            "chunker": build.chunker,
        },
    ).fetchall()
    return {(document, ordinal): (start, end) for document, ordinal, start, end in rows}


def _neighbours(
    connection: Connection, build: _Build, hits: Sequence[SearchHit], count: int
) -> dict[tuple[int, int], tuple[int, int]]:
    rows = connection.execute(
        sql.SQL(
            """SELECT wanted.document_id, wanted.ordinal, min(c.start_char), max(c.end_char)
               FROM unnest(%(documents)s::bigint[], %(ordinals)s::int[]) AS wanted (document_id, ordinal)
               JOIN {table} c ON c.document_id = wanted.document_id
                    AND c.ordinal BETWEEN wanted.ordinal - %(count)s AND wanted.ordinal + %(count)s
                    AND c.valid_from <= %(snapshot)s AND c.valid_to > %(snapshot)s
               GROUP BY 1, 2"""
        ).format(table=sql.Identifier(build.table)),
        {
            "documents": [hit.document_id for hit in hits],
            "ordinals": [hit.ordinal for hit in hits],
            "count": count,
            "snapshot": build.snapshot,
        },
    ).fetchall()
    return {(document, ordinal): (start, end) for document, ordinal, start, end in rows}


def _bounded(hit: SearchHit, start: int, end: int, settings: RetrievalConfig) -> tuple[int, int]:
    """The span, cut to ``max_characters`` around the chunk; the chunk itself always stays whole."""
    start, end = min(start, hit.start), max(end, hit.end)
    room = max(0, settings.expand.max_characters - (hit.end - hit.start))
    if end - start - (hit.end - hit.start) <= room:
        return start, end
    before = min(hit.start - start, max(room // 2, room - (end - hit.end)))
    return hit.start - before, hit.end + min(end - hit.end, room - before)


# --- the record -------------------------------------------------------------------------------------------


def _timed(work: _Work, step: Callable[[_Work], None]) -> None:
    if work.error:
        return
    began, steps = perf_counter(), len(work.steps)
    step(work)
    seconds = perf_counter() - began
    work.own_seconds += seconds
    for entry in work.steps[steps:]:
        entry["seconds"] = seconds


def _retrieved(index: str, mode: Mode, work: _Work, settings: RetrievalConfig) -> Retrieved:
    several = len(work.lists) > 1 or bool(work.steps)
    trace: dict[str, Any] = {
        "mode": mode,
        "queries": [query.to_json() for query in work.queries],
        **({"fusion": settings.fusion.model_dump(mode="json")} if mode == "hybrid" else {}),
        **(
            {
                "lists": [
                    [[hit.document_id, hit.ordinal, hit.score] for hit in found.hits[: settings.candidates]]
                    for found in work.lists
                ]
            }
            if several
            else {}
        ),
        "steps": work.steps,
        "documents": sorted(work.documents),
        "usage": work.usage.to_json(),
        "model_seconds": work.model_seconds,
    }
    return Retrieved(
        index=index,
        snapshot=work.lists[0].snapshot if work.lists else 0,
        mode=mode,
        hits=() if work.error else tuple(work.hits),
        latency=sum(found.latency for found in work.lists) + work.model_seconds + work.own_seconds,
        usage=work.usage,
        trace=trace,
        error=type(work.error).__name__ if work.error else None,
    )
