"""Embedding: computes the vectors a source still lacks, each distinct input once per embedding model.

Belongs here: finding what is missing, rebuilding the input texts, validating and storing vectors.
Does not belong here: calling the provider (resources/models.py), putting vectors into an index (staging.py).

A batch is one transaction, stored while the next one is made: a kill loses at most these two.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from psycopg.types.json import Jsonb

from assets.background import in_background
from assets.chunks.enrichment import embedding_input, title_of
from assets.chunks.enrichment_cache import StepRow, values_of
from assets.chunks.spending import affordable_models
from assets.index.coverage import Coverage, known_revision, measure_coverage, newest_revision
from assets.index.specification import CacheIds, Specification, cache_ids, specify
from resources.binary_copy import keyed_vectors
from resources.chunk_config import step_id
from resources.errors import PermanentError
from resources.faults import crash_point
from resources.fingerprint import text_hash
from resources.models import Models, Usage
from resources.platform import Platform
from resources.postgres import FOREVER, Connection

if TYPE_CHECKING:
    import numpy as np

#: Inputs looked up at a time; sorted by length inside, so that a request holds texts of one size.
WINDOW = 4096
#: So many new vectors make the planner's statistics stale.
MANY = 1_000
#: Shorter vectors are zero in half precision; larger numbers do not fit it.
SMALLEST_NORM, LARGEST_NUMBER = 1e-6, 65504.0
#: Vectors kept for the statistics of the suite.
SAMPLE = 1000


@dataclass(frozen=True)
class VectorFacts:
    """What is known of one vector without showing it."""

    input_hash: str
    model: str
    dimensions: int
    norm: float
    finite: bool


@dataclass
class ModelWork:
    """What was done for one specification of chunker, enrichment and embedding model.

    Attributes:
        model: name of the embedding model.
        indexes: names of the indexes that share it.
        computed: vectors made and stored in this run.
        rejected: vectors that were refused and not stored, with the reason counted.
        sample: facts on some of the vectors made in this run, refused ones included.
        lacking: chunks that had no vector when the work began.
    """

    model: str
    indexes: list[str]
    dimensions: int
    computed: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    batches: int = 0
    usage: Usage = field(default_factory=Usage)
    sample: list[VectorFacts] = field(default_factory=list)
    coverage: Coverage = field(default_factory=Coverage)
    lacking: int = 0

    @property
    def reused(self) -> int:
        """Chunks whose vector was there already."""
        return self.coverage.chunks - self.lacking


@dataclass(frozen=True)
class EmbeddingWork:
    """What ``embed_source`` did.

    Attributes:
        revision: the source's revision it was done for.
        seconds: wall time.
    """

    source: str
    revision: int
    models: list[ModelWork]
    seconds: float

    @property
    def computed(self) -> int:
        """Vectors made in this run."""
        return sum(work.computed for work in self.models)

    @property
    def reused(self) -> int:
        """Chunks whose vector was there already."""
        return sum(work.reused for work in self.models)

    @property
    def usage(self) -> Usage:
        """What the provider charged."""
        return sum((work.usage for work in self.models), Usage())


@dataclass(frozen=True)
class _Missing:
    input_hash: bytes
    text_hash: bytes
    ordinal: int
    start: int
    end: int
    heading_path: list[str]
    chunk_hash: bytes


def embed_source(platform: Platform, source: str, run_id: str) -> EmbeddingWork:
    """Make every vector the indexes over ``source`` need for its newest revision and do not have.

    Raises:
        BudgetExceededError: what is missing would cost more than ``policies/enrichment.yaml`` allows; nothing was sent.
        PermanentError: a cached chunk does not fit its text; or the provider refused for good.
        TransientError: the provider did not answer.
    """
    started = time.perf_counter()
    works: list[ModelWork] = []
    models = affordable_models(platform, source, run_id)
    for specification, indexes in _distinct(platform, source):
        embedder_id = _register(platform, specification)
        with platform.database.connect() as connection:
            ids = cache_ids(connection, specification)
            revision = newest_revision(connection, source)
        assert ids.embedder == embedder_id
        work = ModelWork(specification.model.name, indexes, specification.model.dimensions)
        with platform.database.connect() as connection:
            known = known_revision(connection, indexes, specification, source)
            work.coverage = measure_coverage(connection, ids, source, revision, since=known)
            if known and work.coverage.complete:
                # nothing new to make: the moment to find out whether something old was lost
                known = 0
                work.coverage = measure_coverage(connection, ids, source, revision)
        work.lacking = work.coverage.chunks_without_embedding
        if work.lacking:
            held: dict[bytes, str] = {}
            for window in _missing(platform, ids, source, known):
                _hold_texts(platform, window, held)
                _embed_window(platform, models, specification, embedder_id, window, held, work, run_id)
            with platform.database.connect() as connection:
                if work.computed >= MANY:
                    connection.execute("ANALYZE embedding")
                work.coverage = measure_coverage(connection, ids, source, revision, since=known)
        works.append(work)
    with platform.database.connect() as connection:
        revision = newest_revision(connection, source)
    return EmbeddingWork(source, revision, works, time.perf_counter() - started)


def _distinct(platform: Platform, source: str) -> list[tuple[Specification, list[str]]]:
    """The indexes over the source, those with the same chunker, enrichment and embedder together."""
    groups: dict[tuple[str, str, str], tuple[Specification, list[str]]] = {}
    for index in platform.config.indexes_of(source):
        specification = specify(platform, index.name)
        key = (specification.chunker, specification.enrichment, specification.embedder)
        groups.setdefault(key, (specification, []))[1].append(index.name)
    return list(groups.values())


def _register(platform: Platform, specification: Specification) -> int:
    with platform.database.connect() as connection:
        connection.execute(
            """INSERT INTO embedder (fingerprint, config, dimensions) SELECT %(fingerprint)s, %(config)s, %(dimensions)s
               WHERE NOT EXISTS (SELECT 1 FROM embedder WHERE fingerprint = %(fingerprint)s)
               ON CONFLICT DO NOTHING""",
            {
                "fingerprint": specification.embedder,
                "config": Jsonb(specification.to_json()["embedder"]),
                "dimensions": specification.model.dimensions,
            },
        )
        row = connection.execute(
            "SELECT embedder_id FROM embedder WHERE fingerprint = %s", (specification.embedder,)
        ).fetchone()
        assert row is not None
        return row[0]


def _missing(platform: Platform, ids: CacheIds, source: str, known: int) -> Iterator[list[_Missing]]:
    """The chunks of live documents newer than revision ``known`` that have no vector, a bounded window at a time.

    Texts that lack any are listed once; each is then read once, a long one in parts.
    """
    names = {
        "source": source,
        "forever": FOREVER,
        "known": known,
        "enrichment": ids.enrichment,
        "chunker": ids.chunker,
        "embedder": ids.embedder,
    }
    with platform.database.connect() as connection:
        texts = connection.execute(
            """SELECT live.text_hash, count(*), min(i.ordinal), max(i.ordinal)
               FROM (SELECT DISTINCT text_hash FROM document_version
                     WHERE source = %(source)s AND rev_to = %(forever)s AND rev_from > %(known)s) live
               CROSS JOIN LATERAL (
                   SELECT input_hash, ordinal FROM chunk_input WHERE enrichment_id = %(enrichment)s
                   AND chunker_id = %(chunker)s AND text_hash = live.text_hash OFFSET 0) i
               WHERE NOT EXISTS (SELECT 1 FROM embedding e
                                 WHERE e.embedder_id = %(embedder)s AND e.input_hash = i.input_hash)
               GROUP BY 1 ORDER BY 1""",
            names,
        ).fetchall()
    for keys, first, last in _windows(texts):
        with platform.database.connect() as connection:
            rows = connection.execute(
                """SELECT i.input_hash, i.text_hash, i.ordinal, c.start_char, c.end_char, c.heading_path, c.chunk_hash
                   FROM unnest(%(keys)s::bytea[]) wanted (text_hash)
                   CROSS JOIN LATERAL (
                       SELECT * FROM chunk_input WHERE enrichment_id = %(enrichment)s AND chunker_id = %(chunker)s
                       AND text_hash = wanted.text_hash AND ordinal BETWEEN %(first)s AND %(last)s OFFSET 0) i
                   JOIN chunk c ON c.chunker_id = i.chunker_id AND c.text_hash = i.text_hash AND c.ordinal = i.ordinal
                   WHERE NOT EXISTS (SELECT 1 FROM embedding e
                                     WHERE e.embedder_id = %(embedder)s AND e.input_hash = i.input_hash)
                   ORDER BY i.text_hash, i.ordinal""",
                {**names, "keys": keys, "first": first, "last": last},
            ).fetchall()
        if rows:  # equal inputs of an earlier window have their vector by now
            yield list({row[0]: _Missing(*row) for row in rows}.values())


def _windows(texts: Iterable[tuple[bytes, int, int, int]]) -> Iterator[tuple[list[bytes], int, int]]:
    """Texts to read together, and the first and last ordinal of each to read.

    Args:
        texts: (text, missing chunks, first and last ordinal of these).
    """
    together: list[bytes] = []
    waiting = 0
    for key, count, first, last in texts:
        if count > WINDOW:
            for start in range(first, last + 1, WINDOW):
                yield [key], start, start + WINDOW - 1
            continue
        if waiting + count > WINDOW:
            yield together, 0, FOREVER
            together, waiting = [], 0
        together.append(key)
        waiting += count
    if together:
        yield together, 0, FOREVER


def _embed_window(
    platform: Platform,
    models: Models,
    specification: Specification,
    embedder_id: int,
    window: list[_Missing],
    texts: Mapping[bytes, str],
    work: ModelWork,
    run_id: str,
) -> None:
    embedder = models.embedder(specification.model.name)
    inputs = sorted(_inputs(platform, specification, window, texts), key=lambda item: (-len(item[1]), item[0]))
    size = specification.model.batch_size * specification.model.limits.concurrency
    storing: Future[None] | None = None
    try:
        for first in range(0, len(inputs), size):
            batch = inputs[first : first + size]
            result = embedder.embed([text for _, text in batch])
            work.usage = work.usage + result.usage
            usable = validate([key for key, _ in batch], result.vectors, work)
            _wait_for(storing)  # one batch is stored while the next one is embedded
            storing = in_background(
                partial(_store, platform, embedder_id, [batch[i][0] for i in usable], result.vectors[usable], run_id)
            )
            work.computed += len(usable)
            work.batches += 1
    finally:
        _wait_for(storing)  # paid for, whatever became of the next one


def _wait_for(storing: Future[None] | None) -> None:
    if storing is not None:
        storing.result()
        crash_point("index.embedded_batch")


def _store(platform: Platform, embedder_id: int, keys: Sequence[bytes], vectors: np.ndarray, run_id: str) -> None:
    if keys:
        with platform.database.connect() as connection:
            store(connection, embedder_id, keys, vectors, run_id)


def _hold_texts(platform: Platform, window: list[_Missing], held: dict[bytes, str]) -> None:
    """Make ``held`` the document texts of a window; one that is read in parts is fetched once."""
    needed = {item.text_hash for item in window}
    for key in held.keys() - needed:
        del held[key]
    with platform.database.connect() as connection:
        held |= connection.execute(
            "SELECT text_hash, text FROM document_text WHERE text_hash = ANY(%s)", (list(needed - held.keys()),)
        ).fetchall()


def _inputs(
    platform: Platform, specification: Specification, window: list[_Missing], texts: Mapping[bytes, str]
) -> list[tuple[bytes, str]]:
    """The texts to embed, rebuilt from the chunks and the cached values of enrichment steps, and verified."""
    enrichment = specification.index.enrichment
    with platform.database.connect() as connection:
        rows = [StepRow(step_id(connection, step, platform.models), step) for step in enrichment.steps]
        values = values_of(connection, rows, [(item.chunk_hash, item.heading_path) for item in window])
    titles = {key: title_of(text) for key, text in texts.items()} if enrichment.title else {}
    inputs = []
    for item, known in zip(window, values, strict=True):
        chunk = texts[item.text_hash][item.start : item.end]
        title = titles.get(item.text_hash, "")
        text = embedding_input(item.heading_path, chunk, enrichment, title=title, values=known or ())
        if text_hash(text) != item.input_hash:
            raise PermanentError(
                f"chunk {item.ordinal} of text {item.text_hash.hex()} does not give the input it claims; "
                "the chunk cache is damaged: delete this text's rows in chunk_set and refresh"
            )
        inputs.append((item.input_hash, text))
    return inputs


def validate(keys: Sequence[bytes], vectors: np.ndarray, work: ModelWork) -> list[int]:
    """Positions of the usable vectors; the others are counted in ``work.rejected`` and stay out of the cache.

    A vector is usable when it has the model's dimensions, is finite, fits half precision and is not zero: pgvector
    takes a zero vector and then leaves it out of the graph without a word.
    """

    import numpy as np

    right_shape = vectors.ndim == 2 and vectors.shape == (len(keys), work.dimensions)
    if not right_shape:
        work.rejected["dimensions"] = work.rejected.get("dimensions", 0) + len(keys)
        found = vectors.shape[1] if vectors.ndim == 2 else 0
        work.sample += [
            VectorFacts(key.hex(), work.model, found, 0.0, False) for key in keys[: SAMPLE - len(work.sample)]
        ]
        return []
    finite = np.asarray(np.isfinite(vectors).all(axis=1))
    numbers = np.where(finite[:, None], vectors, 0).astype(np.float64)
    norms, largest = np.linalg.norm(numbers, axis=1), np.abs(numbers).max(axis=1)
    usable = finite & (norms >= SMALLEST_NORM) & (largest <= LARGEST_NUMBER)
    for reason, bad in (
        ("not finite", ~finite),
        ("zero", finite & (norms < SMALLEST_NORM)),
        ("too large", finite & (largest > LARGEST_NUMBER)),
    ):
        if np.any(bad):
            work.rejected[reason] = work.rejected.get(reason, 0) + int(np.sum(bad))
    good, refused = np.flatnonzero(usable).tolist(), np.flatnonzero(~usable).tolist()
    for i in (refused + good)[: SAMPLE - len(work.sample)]:
        facts = VectorFacts(keys[i].hex(), work.model, vectors.shape[1], float(norms[i]), bool(np.all(finite[i])))
        work.sample.append(facts)
    return good


def store(connection: Connection, embedder_id: int, keys: Sequence[bytes], vectors: np.ndarray, run_id: str) -> None:
    """Add vectors to the cache by binary COPY, in key order so that two runs cannot deadlock; what is there stays.

    Args:
        keys: of the inputs; ``vectors`` has shape (len(keys), dimensions).
    """
    connection.execute("CREATE TEMP TABLE arrived (input_hash bytea, embedding vector) ON COMMIT DROP")
    with connection.cursor() as cursor, cursor.copy("COPY arrived FROM STDIN WITH (FORMAT BINARY)") as copy:
        copy.write(keyed_vectors(keys, vectors))
    connection.execute(
        """INSERT INTO embedding (embedder_id, input_hash, embedding, run_id)
           SELECT %s, input_hash, embedding, %s FROM arrived ORDER BY input_hash ON CONFLICT DO NOTHING""",
        (embedder_id, run_id),
    )
