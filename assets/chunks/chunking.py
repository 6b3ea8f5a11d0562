"""Chunking: every live text of a source has its chunks, under every chunker that an index of it uses.

Belongs here: finding what lacks chunks, measuring new chunks before they are written, writing them.
Does not belong here: how a text is cut (chunkers.py), what can be wrong with chunks (problems.py) and which
measurements block (checks.py).

Chunks are content-addressed: a text is cut once per chunker, whichever documents and sources it belongs to.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import LiteralString

from assets.background import in_background
from assets.chunks.chunkers import Chunk, ChunkTools, chunk_texts
from assets.chunks.enriching import StepWork, make_missing_values
from assets.chunks.enrichment import Values, embedding_input, search_text, title_of
from assets.chunks.enrichment_cache import StepRow, values_of
from assets.chunks.problems import (
    coverage_problems,
    heading_problems,
    overlap_problems,
    parent_problems,
    size_problems,
)
from assets.chunks.rows import CHUNK_COLUMNS, INPUT_COLUMNS, chunk_row, input_row, stream
from assets.chunks.spending import affordable_models
from assets.corpus.documents import last_revision
from resources.chunk_config import (
    chunker_fingerprint,
    chunker_id,
    enrichment_fingerprint,
    enrichment_id,
    step_fingerprint,
    step_id,
)
from resources.faults import crash_point
from resources.fingerprint import fingerprint, text_hash
from resources.index_config import ChunkerConfig, EnrichmentConfig, IndexConfig
from resources.models import Models, Usage
from resources.platform import Platform
from resources.postgres import Connection

#: A batch ends at this many texts or characters: it bounds memory, and what a kill costs.
BATCH_TEXTS = 500
BATCH_CHARACTERS = 4_000_000
_ENRICHMENT_LOCKS = 726_342


@dataclass(frozen=True)
class ChunkedText:
    """A text and its new chunks."""

    text_hash: bytes
    text: str
    chunks: Sequence[Chunk]


@dataclass(frozen=True)
class ChunkBatch:
    """New chunks before they are written."""

    chunker: ChunkerConfig
    texts: Sequence[ChunkedText]


@dataclass
class ChunkWork:
    """What ``chunk_source`` did.

    Attributes:
        revision: of the source whose live texts were chunked.
        data_version: hash of what the chunks are made from and how.
        texts: live distinct texts.
        chunkers: fingerprints of the chunkers in use.
        chunks: chunks of the live texts, over all chunkers in use.
        texts_chunked: chunk sets made now; chunks_written and inputs_written: their rows.
        reused: chunk sets that were there before.
        missing: chunk sets still lacking at the end.
        refused: whether ``gate`` refused a batch; nothing of that batch was written.
        windows: windows of sentences embedded to find semantic cuts; windows_usage: what that took.
        inputs_missing: chunk sets that lack the inputs of an enrichment at the end.
        steps: what was done for each enrichment step of the indexes over the source.
        maximum_given_up_share: what the policy allows.
    """

    source: str
    revision: int
    data_version: str
    texts: int = 0
    chunkers: list[str] = field(default_factory=list)
    chunks: int = 0
    texts_chunked: int = 0
    chunks_written: int = 0
    inputs_written: int = 0
    reused: int = 0
    missing: int = 0
    refused: bool = False
    windows: int = 0
    windows_usage: Usage = field(default_factory=Usage)
    inputs_missing: int = 0
    steps: list[StepWork] = field(default_factory=list)
    maximum_given_up_share: float = 0.0
    seconds: float = 0.0

    @property
    def usage(self) -> Usage:
        """What models were asked for enrichment in this run."""
        return sum((step.usage for step in self.steps), Usage())


def chunk_source(
    platform: Platform,
    source: str,
    *,
    run_id: str = "",
    gate: Callable[[ChunkBatch], bool] = lambda batch: not batch_problems(batch),
) -> ChunkWork:
    """Chunk every live text of a source that lacks chunks, enrich its chunks, and compose the embedding inputs.

    Idempotent and insert-only: two runs at once do the same work twice at worst. A killed run loses the batch at hand and
    the one being written.

    Args:
        run_id: recorded with the values that enrichment steps made.
        gate: asked about each batch before it is written; at False the batch is dropped and the work ends.

    Raises:
        BudgetExceededError: the models would cost more than ``policies/enrichment.yaml`` allows; see spending.py.
        TransientError, PermanentError: a model did not answer, or refused for good.
    """
    started = time.perf_counter()
    indexes = platform.config.indexes_of(source)
    models = platform.models
    recipes = _recipes(indexes, models)
    with platform.database.connect() as connection:
        revision, version = last_revision(connection, source)
        work = ChunkWork(source, revision, data_version(version, indexes, models))
        work.texts = _count_texts(connection, source)
        work.chunkers = [chunker_fingerprint(chunker, models) for chunker, _ in recipes]
        ids = [
            (
                chunker_id(connection, chunker, models),
                [_enrichment(connection, item, models) for item in enrichments],
            )
            for chunker, enrichments in recipes
        ]
        rows, work.steps = _steps(connection, indexes, models)
        work.maximum_given_up_share = platform.config.policies.enrichment.maximum_given_up_share
    models = affordable_models(platform, source, run_id)
    for (chunker, _), (chunker_key, enrichments) in zip(recipes, ids, strict=True):
        if not _chunk_missing(platform, models, work, chunker, chunker_key, enrichments, gate):
            work.refused = True
            break
    if not work.refused:
        for row, step in zip(rows, work.steps, strict=True):
            make_missing_values(platform, source, row, step, models, run_id, _batches)
        for chunker_key, enrichments in ids:
            for enrichment in enrichments:
                _enrich_missing(platform, work, chunker_key, enrichment)
    with platform.database.connect() as connection:
        for key, enrichments in ids:
            sets, chunks = _count_sets(connection, source, key)
            work.missing += work.texts - sets
            work.chunks += chunks
            work.inputs_missing += sum(
                len(_sets_without_inputs(connection, source, key, enrichment.key)) for enrichment in enrichments
            )
    work.reused = work.texts * len(recipes) - work.missing - work.texts_chunked
    work.seconds = time.perf_counter() - started
    return work


def data_version(source_version: str, indexes: Sequence[IndexConfig], models: Models | None = None) -> str:
    """Hash of what the chunks of a source are made from (its data version) and how (chunkers, enrichments, all steps)."""
    recipes = {
        (chunker_fingerprint(item.chunker, models), enrichment_fingerprint(item.enrichment, models)) for item in indexes
    }
    recorded = sorted(
        {step_fingerprint(step, models) for item in indexes for step in item.enrichment.steps if not step.use}
    )
    return fingerprint([source_version, sorted(recipes), *recorded])


def batch_problems(batch: ChunkBatch) -> list[str]:
    """Everything wrong with new chunks, in words that name texts by their hash only; see problems.py."""
    return [
        f"text {item.text_hash.hex()}: {problem}"
        for item in batch.texts
        for problem in (
            *coverage_problems(item.text, item.chunks, batch.chunker),
            *size_problems(item.text, item.chunks, batch.chunker),
            *overlap_problems(item.text, item.chunks, batch.chunker),
            *heading_problems(item.text, item.chunks, batch.chunker),
            *parent_problems(item.text, item.chunks, batch.chunker),
        )
    ]


# --- which, and writing -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Enrichment:
    """An enrichment and its steps with their ids in the database."""

    key: int
    config: EnrichmentConfig
    steps: Sequence[StepRow]

    @property
    def composed_later(self) -> bool:
        """Whether the inputs need values, which are made when the chunks are there."""
        return any(step.use for step in self.config.steps)


def _recipes(indexes: Sequence[IndexConfig], models: Models) -> list[tuple[ChunkerConfig, list[EnrichmentConfig]]]:
    """Each distinct chunker with the distinct enrichments it is used with."""
    recipes: dict[str, tuple[ChunkerConfig, dict[str, EnrichmentConfig]]] = {}
    for index in indexes:
        _, enrichments = recipes.setdefault(chunker_fingerprint(index.chunker, models), (index.chunker, {}))
        enrichments[enrichment_fingerprint(index.enrichment, models)] = index.enrichment
    return [(chunker, list(enrichments.values())) for chunker, enrichments in recipes.values()]


def _enrichment(connection: Connection, config: EnrichmentConfig, models: Models) -> _Enrichment:
    steps = [StepRow(step_id(connection, step, models), step) for step in config.steps]
    return _Enrichment(enrichment_id(connection, config, models), config, steps)


def _steps(
    connection: Connection, indexes: Sequence[IndexConfig], models: Models
) -> tuple[list[StepRow], list[StepWork]]:
    """Each distinct step of the indexes, with the chunkers whose chunks need it."""
    rows: dict[int, StepRow] = {}
    works: dict[int, StepWork] = {}
    for index in indexes:
        for step in index.enrichment.steps:
            key = step_id(connection, step, models)
            rows.setdefault(key, StepRow(key, step))
            work = works.setdefault(key, StepWork(step))
            work.indexes.append(index.name)
            if (chunker := chunker_id(connection, index.chunker, models)) not in work.chunker_ids:
                work.chunker_ids.append(chunker)
    return list(rows.values()), list(works.values())


def _count_texts(connection: Connection, source: str) -> int:
    row = connection.execute(
        "SELECT count(DISTINCT text_hash) FROM document_version WHERE source = %s AND rev_to = 2147483647", (source,)
    ).fetchone()
    assert row is not None
    return row[0]


def _count_sets(connection: Connection, source: str, chunker_key: int) -> tuple[int, int]:
    """How many live texts have a chunk set, and how many chunks these say they hold."""
    row = connection.execute(
        """SELECT count(*), coalesce(sum(chunks), 0) FROM chunk_set
           WHERE chunker_id = %s
             AND text_hash IN (SELECT text_hash FROM document_version WHERE source = %s AND rev_to = 2147483647)""",
        (chunker_key, source),
    ).fetchone()
    assert row is not None
    return row[0], int(row[1])


def _missing_sets(connection: Connection, source: str, chunker_key: int) -> list[tuple[bytes, int]]:
    """Live texts without a chunk set, with their lengths, in order of hash."""
    return connection.execute(
        """SELECT text_hash, characters FROM document_text
           WHERE text_hash IN (SELECT text_hash FROM document_version WHERE source = %s AND rev_to = 2147483647)
             AND NOT EXISTS (SELECT FROM chunk_set
                             WHERE chunk_set.chunker_id = %s AND chunk_set.text_hash = document_text.text_hash)
           ORDER BY text_hash""",
        (source, chunker_key),
    ).fetchall()


def _chunk_missing(
    platform: Platform,
    models: Models,
    work: ChunkWork,
    chunker: ChunkerConfig,
    chunker_key: int,
    enrichments: Sequence[_Enrichment],
    gate: Callable[[ChunkBatch], bool],
) -> bool:
    with platform.database.connect() as connection:
        missing = _missing_sets(connection, work.source, chunker_key)
    writing: Future[None] | None = None
    try:
        for hashes in _batches(missing):
            batch = _cut(platform, models, work, chunker, hashes)
            good = gate(batch)
            if writing:
                writing.result()
            writing = None
            if not good:
                return False
            # The server takes about as long to write a batch as it takes to cut and judge the next one.
            writing = in_background(partial(_write_batch, platform, work, chunker_key, enrichments, batch))
    except BaseException:
        if writing:
            writing.exception()  # nobody should find it still writing
        raise
    if writing:
        writing.result()
    return True


def _cut(
    platform: Platform, models: Models, work: ChunkWork, chunker: ChunkerConfig, hashes: Sequence[bytes]
) -> ChunkBatch:
    tools = ChunkTools(models)
    with platform.database.connect() as connection:
        texts = connection.execute(
            "SELECT text_hash, text FROM document_text WHERE text_hash = ANY(%s) ORDER BY text_hash", (list(hashes),)
        ).fetchall()
    cut = chunk_texts([text for _, text in texts], chunker, tools)
    batch = ChunkBatch(chunker, [ChunkedText(key, text, new) for (key, text), new in zip(texts, cut, strict=True)])
    work.windows, work.windows_usage = work.windows + tools.windows, work.windows_usage + tools.usage
    return batch


def _write_batch(
    platform: Platform, work: ChunkWork, chunker_key: int, enrichments: Sequence[_Enrichment], batch: ChunkBatch
) -> None:
    with platform.database.connect() as connection:
        _write(connection, work, chunker_key, enrichments, batch)
        crash_point("chunks.in_batch")
    crash_point("chunks.written_batch")


def _batches(missing: Sequence[tuple[bytes, int]]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    characters = 0
    for key, length in missing:
        batch.append(key)
        characters += length
        if len(batch) >= BATCH_TEXTS or characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _write(
    connection: Connection, work: ChunkWork, chunker_key: int, enrichments: Sequence[_Enrichment], batch: ChunkBatch
) -> None:
    """Write the sets nobody else wrote meanwhile; whoever inserts a set's row first writes its chunks and inputs."""
    counts = {item.text_hash: len(item.chunks) for item in batch.texts}
    hashes = sorted(counts)
    inserted = connection.execute(
        """INSERT INTO chunk_set (chunker_id, text_hash, chunks)
           SELECT %s, text_hash, chunks FROM unnest(%s::bytea[], %s::integer[]) new (text_hash, chunks)
           ON CONFLICT DO NOTHING RETURNING text_hash""",
        (chunker_key, hashes, [counts[key] for key in hashes]),
    ).fetchall()
    ours = {row[0] for row in inserted}
    texts = [item for item in batch.texts if item.text_hash in ours]
    _copy(
        connection,
        "chunk",
        CHUNK_COLUMNS,
        (chunk_row(chunker_key, item.text_hash, chunk) for item in texts for chunk in item.chunks),
    )
    for enrichment in enrichments:
        if enrichment.composed_later:
            continue
        inputs = (
            Composed(
                item.text_hash, chunk.ordinal, chunk.heading_path, item.text[chunk.start : chunk.end], chunk.hash, title
            )
            for item, title in ((item, _title(item.text, enrichment.config)) for item in texts)
            for chunk in item.chunks
        )
        work.inputs_written += _write_inputs(connection, chunker_key, enrichment, inputs)
    work.texts_chunked += len(texts)
    work.chunks_written += sum(len(item.chunks) for item in texts)


@dataclass(frozen=True)
class Composed:
    """All that the inputs of a chunk are composed from: its text and the hash of it, and what it stands in.

    ``values`` are in the order of the enrichment's steps.
    """

    text_hash: bytes
    ordinal: int
    heading_path: Sequence[str]
    text: str
    hash: bytes
    title: str
    values: Values = ()


def _title(text: str, config: EnrichmentConfig) -> str:
    return title_of(text) if config.title else ""


def _write_inputs(connection: Connection, chunker_key: int, enrichment: _Enrichment, chunks: Iterable[Composed]) -> int:
    """Write the hashes of what is embedded, and what full-text search sees where that is not the default."""
    written = 0

    def rows() -> Iterator[bytes]:
        nonlocal written
        for item in chunks:
            parts = (item.heading_path, item.text, enrichment.config)
            embedded = embedding_input(*parts, title=item.title, values=item.values)
            input_hash = item.hash if embedded is item.text else text_hash(embedded)
            searched = search_text(*parts, title=item.title, values=item.values)
            yield input_row(enrichment.key, chunker_key, item.text_hash, item.ordinal, input_hash, searched)
            written += 1

    _copy(connection, "chunk_input", INPUT_COLUMNS, rows())
    return written


def _copy(connection: Connection, table: LiteralString, columns: LiteralString, rows: Iterable[bytes]) -> None:
    with (
        connection.cursor() as cursor,
        cursor.copy(f"COPY {table} ({columns}) FROM STDIN WITH (FORMAT BINARY)") as copy,
    ):
        for block in stream(rows):
            copy.write(block)


def _enrich_missing(platform: Platform, work: ChunkWork, chunker_key: int, enrichment: _Enrichment) -> None:
    """Compose the inputs of live chunk sets that have none yet: those made before this enrichment was configured, and
    all that wait for values of its steps."""
    with platform.database.connect() as connection:
        missing = _sets_without_inputs(connection, work.source, chunker_key, enrichment.key)
    for hashes in _batches(missing):
        with platform.database.connect() as connection:
            # One writer at a time: rows of a set are written together, and COPY cannot skip what exists.
            connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", (_ENRICHMENT_LOCKS, enrichment.key))
            still = {key for key, _ in _sets_without_inputs(connection, work.source, chunker_key, enrichment.key)}
            wanted = [key for key in hashes if key in still]
            texts = dict(
                connection.execute(
                    "SELECT text_hash, text FROM document_text WHERE text_hash = ANY(%s)", (wanted,)
                ).fetchall()
            )
            titles = {key: _title(text, enrichment.config) for key, text in texts.items()}
            chunks = connection.execute(
                """SELECT text_hash, ordinal, heading_path, start_char, end_char, chunk_hash FROM chunk
                   WHERE chunker_id = %s AND text_hash = ANY(%s) ORDER BY text_hash, ordinal""",
                (chunker_key, wanted),
            ).fetchall()
            values = values_of(connection, enrichment.steps, [(bytes(row[5]), row[2]) for row in chunks])
            lacking = {chunk[0] for chunk, found in zip(chunks, values, strict=True) if found is None}
            inputs = (
                Composed(key, ordinal, path, texts[key][start:end], chunk_hash, titles[key], found or ())
                for (key, ordinal, path, start, end, chunk_hash), found in zip(chunks, values, strict=True)
                if key not in lacking  # a value was refused for its length: the check says so
            )
            work.inputs_written += _write_inputs(connection, chunker_key, enrichment, inputs)
        crash_point("chunks.enriched_batch")


def _sets_without_inputs(
    connection: Connection, source: str, chunker_key: int, enrichment_key: int
) -> list[tuple[bytes, int]]:
    """Live chunk sets without inputs under an enrichment, with the lengths of their texts."""
    return connection.execute(
        # a set's inputs are written in one transaction, so that the first one stands for all
        """SELECT text_hash, characters FROM document_text JOIN chunk_set USING (text_hash)
           WHERE chunker_id = %s AND chunks > 0
             AND text_hash IN (SELECT text_hash FROM document_version WHERE source = %s AND rev_to = 2147483647)
             AND NOT EXISTS (SELECT FROM chunk_input input
                             WHERE input.enrichment_id = %s AND input.chunker_id = chunk_set.chunker_id
                               AND input.text_hash = chunk_set.text_hash AND input.ordinal = 0)
           ORDER BY text_hash""",
        (chunker_key, source, enrichment_key),
    ).fetchall()
