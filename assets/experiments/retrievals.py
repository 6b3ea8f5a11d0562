"""Retrievals: what a question found in a snapshot, searched for once and remembered.

Belongs here: the keys, the one reader and writer of table ``retrieval``, and searching for what is not in it.
Does not belong here: the search itself (resources/retrieval.py) and what is done with the hits (planning.py).

A key covers everything that can change what is found: the snapshot with its build and all of its counts (the content
fingerprints of its sources among them), the search settings, the retrieval steps with their prompts and models, the
code, the versions of the server and of pgvector, and the question. Nothing of it needs a search, so that a re-run on
the same snapshot searches nothing. After a refresh everything is searched again: a new chunk may enter any list, and
the frequency of a word is that of the whole snapshot. Only what found something else then becomes a new trial.

The text of a chunk is not kept twice: it is read from the document version that was found, and a row whose words are
no longer there, or are others, counts as unknown.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from psycopg.types.json import Jsonb

from resources.answerer import Variant, no_search
from resources.erased_documents import erased_among
from resources.fingerprint import fingerprint, text_hash
from resources.index_config import RetrievalConfig
from resources.models import Usage
from resources.postgres import Connection, Database, Lease
from resources.retrieval import Retrieved
from resources.vector_index import SearchFilter, SearchHit, SearchResult

CODE_VERSION = "1"
#: Documents whose text is in memory at once.
_TEXTS = 50


class Searcher(Protocol):
    """What is needed of resources.retrieval.Retriever."""

    def retrieve_many(
        self,
        index: str,
        questions: Sequence[str],
        *,
        mode: Any,
        k: int,
        settings: RetrievalConfig,
        snapshot: int | None = None,
        filters: SearchFilter | None = None,
        ef_search: int | None = None,
        run_id: str,
    ) -> Sequence[SearchResult]:
        """Retrieve from a snapshot for each question, in order."""
        ...


@dataclass(frozen=True)
class Found:
    """What the questions found, in their order; ``searched`` of them were not on record."""

    results: tuple[SearchResult, ...]
    searched: int


def retrieve(
    database: Database,
    searcher: Searcher,
    variant: Variant,
    questions: Sequence[str],
    snapshot: int,
    *,
    run_id: str,
    lease: Lease,
) -> Found:
    """What each question finds with the search settings of ``variant``, from the records where they have it.

    A retrieval that failed, or of which a step was skipped because of trouble, is not remembered: the next run tries
    again.

    A variant for a task without documents finds nothing, without a search.

    Raises:
        As ``Retriever.retrieve_many``. StaleLeaseError: another run took the experiment over.
    """
    if variant.task is not None:
        return Found((no_search(),) * len(questions), 0)
    with database.connect() as connection:
        base = _base(connection, variant, snapshot)
        keys = [fingerprint([base, question]) for question in questions]
        known = _recall(connection, variant.index, snapshot, variant.search_mode, keys)
    missing = {key: question for key, question in zip(keys, questions, strict=True) if key not in known}
    if missing:
        results = searcher.retrieve_many(
            variant.index,
            list(missing.values()),
            mode=variant.search_mode,
            k=variant.k,
            settings=variant.retrieval,
            snapshot=snapshot,
            run_id=run_id,
            **variant.search_options,
        )
        new = dict(zip(missing, results, strict=True))
        with database.connect() as connection:
            lease.check(connection)
            _remember(connection, new, snapshot, run_id)
        known |= new
    return Found(tuple(known[key] for key in keys), len(missing))


def remembered(
    database: Database, variant: Variant, questions: Sequence[str], snapshot: int
) -> list[SearchResult | None]:
    """What is on record of the retrievals of ``variant``, in the order of the questions; None where nothing is."""
    if variant.task is not None:
        return [no_search()] * len(questions)
    with database.connect() as connection:
        base = _base(connection, variant, snapshot)
        keys = [fingerprint([base, question]) for question in questions]
        known = _recall(connection, variant.index, snapshot, variant.search_mode, keys)
    return [known.get(key) for key in keys]


def read_range(hit: SearchHit) -> tuple[int, int]:
    """The characters a model reads of a hit: its chunk, or what retrieval widened it to."""
    if hit.read_start is None or hit.read_end is None:
        return hit.start, hit.end
    return hit.read_start, hit.read_end


def _base(connection: Connection, variant: Variant, snapshot: int) -> str:
    """Hash of all that decides what a question finds, but the question."""
    row = connection.execute(
        """SELECT b.build_id, b.fingerprint, b.config, s.counts, current_setting('server_version_num'),
                  (SELECT extversion FROM pg_extension WHERE extname = 'vector')
           FROM index_snapshot s JOIN index_build b USING (build_id) WHERE s.index_name = %s AND s.snapshot = %s""",
        (variant.index, snapshot),
    ).fetchone()
    return fingerprint(
        {
            "code": CODE_VERSION,
            "index": [variant.index, snapshot, variant.index_fingerprint],
            "built": list(row) if row else None,
            "mode": variant.search_mode,
            "k": variant.k,
            "graph": [variant.ef_search, variant.exact_below],
            "steps": variant.retrieval_fingerprint,
            **({"filters": variant.filters.model_dump(mode="json", exclude={"name"})} if variant.filters else {}),
        }
    )


def _recall(
    connection: Connection, index: str, snapshot: int, mode: str, keys: Sequence[str]
) -> dict[str, SearchResult]:
    """The retrievals on record, with the texts of their hits; one of which a text is gone is left out."""
    rows = connection.execute(
        "SELECT key, hits, trace, latency FROM retrieval WHERE key = ANY(%s)", (list(keys),)
    ).fetchall()
    hits = {key: [SearchHit.from_json({**hit, "text": ""}) for hit in found] for key, found, _, _ in rows}
    texts = _texts(connection, {_place(hit) for found in hits.values() for hit in found})
    known: dict[str, SearchResult] = {}
    for key, _, trace, latency in rows:
        found = [replace(hit, text=texts.get(_place(hit), "")) for hit in hits[key]]
        if all(_is_whole(hit) for hit in found):
            usage = Usage(**trace.get("usage", {}))
            known[key] = Retrieved(index, snapshot, mode, tuple(found), latency, usage, trace)
    return known


def _place(hit: SearchHit) -> tuple[int, int, int]:
    """The version and the characters that are read."""
    return hit.version_id, *read_range(hit)


def _is_whole(hit: SearchHit) -> bool:
    """Whether the text that was read now is what was found then."""
    start, end = read_range(hit)
    if len(hit.text) != end - start:
        return False
    own = hit.text[hit.start - start : hit.end - start]
    return not hit.chunk_hash or text_hash(own).hex() == hit.chunk_hash


def _texts(connection: Connection, places: Iterable[tuple[int, int, int]]) -> dict[tuple[int, int, int], str]:
    by_version: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for version, start, end in places:
        by_version[version].append((start, end))
    versions = sorted(by_version)
    texts: dict[tuple[int, int, int], str] = {}
    for first in range(0, len(versions), _TEXTS):
        for version, text in connection.execute(
            """SELECT version_id, text FROM document_version JOIN document_text USING (text_hash)
               WHERE version_id = ANY(%s)""",
            (versions[first : first + _TEXTS],),
        ):
            texts |= {(version, start, end): text[start:end] for start, end in by_version[version]}
    return texts


def _remember(connection: Connection, results: Mapping[str, SearchResult], snapshot: int, run_id: str) -> None:
    """Keep what was found, unless a document of it was erased meanwhile."""
    rows = {key: result for key, result in results.items() if _is_final(result)}
    seen = {key: _documents(result) for key, result in rows.items()}
    erased = erased_among(connection, {document for documents in seen.values() for document in documents})
    with connection.cursor() as cursor:
        cursor.executemany(
            """INSERT INTO retrieval (key, index_name, snapshot, hits, trace, latency, run_id)
               VALUES (%s, %s, %s, %s, %s, %s, %s)
               ON CONFLICT (key) DO UPDATE SET hits = EXCLUDED.hits, trace = EXCLUDED.trace, latency = EXCLUDED.latency,
                   run_id = EXCLUDED.run_id, created_at = now()""",
            [
                (
                    key,
                    result.index,
                    snapshot,
                    Jsonb([_without_text(hit) for hit in result.hits]),
                    Jsonb(getattr(result, "trace", {})),
                    result.latency,
                    run_id,
                )
                for key, result in sorted(rows.items())
                if not erased & seen[key]
            ],
        )


def _is_final(result: SearchResult) -> bool:
    """Whether another try would find the same."""
    trace = getattr(result, "trace", {})
    return getattr(result, "error", None) is None and not any("skipped" in step for step in trace.get("steps", ()))


def _documents(result: SearchResult) -> set[int]:
    return {hit.document_id for hit in result.hits} | set(getattr(result, "trace", {}).get("documents", ()))


def _without_text(hit: SearchHit) -> dict[str, Any]:
    value = hit.to_json()
    del value["text"]
    return value
