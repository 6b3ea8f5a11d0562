"""Chunking: every live text of a source has its chunks, under every chunker that an index of it uses.

Belongs here: finding what lacks chunks, measuring new chunks before they are written, writing them.
Does not belong here: how a text is cut (chunkers.py) and which measurements block (checks.py).

Chunks are content-addressed: a text is cut once per chunker, whichever documents and sources it belongs to.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from assets.chunks.chunkers import Chunk, chunk_text, length_in
from assets.chunks.enrichment import embedding_input
from assets.corpus.documents import last_revision
from resources.chunk_config import chunker_fingerprint, chunker_id, enrichment_fingerprint, enrichment_id
from resources.faults import crash_point
from resources.fingerprint import fingerprint, text_hash
from resources.index_config import ChunkerConfig, EnrichmentConfig, IndexConfig
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
    seconds: float = 0.0


def chunk_source(
    platform: Platform, source: str, *, gate: Callable[[ChunkBatch], bool] = lambda batch: not batch_problems(batch)
) -> ChunkWork:
    """Chunk every live text of a source that lacks chunks, and compose the embedding inputs.

    Idempotent and insert-only: two runs at once do the same work twice at worst. A killed run loses the batch at hand.

    Args:
        gate: asked about each batch before it is written; at False the batch is dropped and the work ends.
    """
    started = time.perf_counter()
    recipes = _recipes(platform.config.indexes_of(source))
    with platform.database.connect() as connection:
        revision, version = last_revision(connection, source)
        work = ChunkWork(source, revision, data_version(version, platform.config.indexes_of(source)))
        work.texts = _count_texts(connection, source)
        work.chunkers = [chunker_fingerprint(chunker) for chunker, _ in recipes]
        ids = [
            (
                chunker_id(connection, chunker),
                [_Enrichment(enrichment_id(connection, item), item) for item in enrichments],
            )
            for chunker, enrichments in recipes
        ]
    for (chunker, _), (chunker_key, enrichments) in zip(recipes, ids, strict=True):
        if not _chunk_missing(platform, work, chunker, chunker_key, enrichments, gate):
            work.refused = True
            break
        for enrichment in enrichments:
            _enrich_missing(platform, work, chunker_key, enrichment)
    with platform.database.connect() as connection:
        for key, _ in ids:
            sets, chunks = _count_sets(connection, source, key)
            work.missing += work.texts - sets
            work.chunks += chunks
    work.reused = work.texts * len(recipes) - work.missing - work.texts_chunked
    work.seconds = time.perf_counter() - started
    return work


def data_version(source_version: str, indexes: Sequence[IndexConfig]) -> str:
    """Hash of what the chunks of a source are made from (its data version) and how (chunkers, enrichments)."""
    recipes = {(chunker_fingerprint(item.chunker), enrichment_fingerprint(item.enrichment)) for item in indexes}
    return fingerprint([source_version, sorted(recipes)])


def batch_problems(batch: ChunkBatch) -> list[str]:
    """Everything wrong with new chunks, in words that name texts by their hash only; see ``text_problems``."""
    return [
        f"text {item.text_hash.hex()}: {problem}"
        for item in batch.texts
        for problem in (
            *coverage_problems(item.text, item.chunks),
            *size_problems(item.text, item.chunks, batch.chunker),
        )
    ]


def coverage_problems(text: str, chunks: Sequence[Chunk]) -> list[str]:
    """Where chunks do not reproduce the text they claim, or leave out characters other than white space."""
    problems = []
    covered = 0
    for number, chunk in enumerate(chunks):
        shown = text[chunk.start : chunk.end]
        if chunk.ordinal != number:
            problems.append(f"chunk {number} has ordinal {chunk.ordinal}")
        if not 0 <= chunk.start < chunk.end <= len(text):
            problems.append(f"chunk {number}: range [{chunk.start}, {chunk.end}) is not inside the text")
        elif text_hash(shown) != chunk.hash:
            problems.append(f"chunk {number}: its hash is not that of characters [{chunk.start}, {chunk.end})")
        elif not shown.strip():
            problems.append(f"chunk {number} is white space only")
        if chunk.start > covered and text[covered : chunk.start].strip():
            problems.append(f"characters [{covered}, {chunk.start}) are in no chunk")
        covered = max(covered, chunk.end)
    if text[covered:].strip():
        problems.append(f"characters [{covered}, {len(text)}) are in no chunk")
    return problems


def size_problems(text: str, chunks: Sequence[Chunk], config: ChunkerConfig) -> list[str]:
    """Which chunks are larger than configured."""
    return [
        f"chunk {chunk.ordinal} has {size} {config.unit}, allowed are {config.size}"
        for chunk in chunks
        if (size := length_in(config, text[chunk.start : chunk.end])) > config.size
    ]


# --- which, and writing -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Enrichment:
    """An enrichment and its id in the database."""

    key: int
    config: EnrichmentConfig


def _recipes(indexes: Sequence[IndexConfig]) -> list[tuple[ChunkerConfig, list[EnrichmentConfig]]]:
    """Each distinct chunker with the distinct enrichments it is used with."""
    recipes: dict[str, tuple[ChunkerConfig, dict[str, EnrichmentConfig]]] = {}
    for index in indexes:
        _, enrichments = recipes.setdefault(chunker_fingerprint(index.chunker), (index.chunker, {}))
        enrichments[enrichment_fingerprint(index.enrichment)] = index.enrichment
    return [(chunker, list(enrichments.values())) for chunker, enrichments in recipes.values()]


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
    work: ChunkWork,
    chunker: ChunkerConfig,
    chunker_key: int,
    enrichments: Sequence[_Enrichment],
    gate: Callable[[ChunkBatch], bool],
) -> bool:
    with platform.database.connect() as connection:
        missing = _missing_sets(connection, work.source, chunker_key)
    for hashes in _batches(missing):
        with platform.database.connect() as connection:
            texts = connection.execute(
                "SELECT text_hash, text FROM document_text WHERE text_hash = ANY(%s) ORDER BY text_hash", (hashes,)
            ).fetchall()
        batch = ChunkBatch(chunker, [ChunkedText(key, text, chunk_text(text, chunker)) for key, text in texts])
        if not gate(batch):
            return False
        with platform.database.connect() as connection:
            _write(connection, work, chunker_key, enrichments, batch)
            crash_point("chunks.in_batch")
        crash_point("chunks.written_batch")
    return True


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
    columns = "chunker_id, text_hash, ordinal, start_char, end_char, chunk_hash, heading_path, tokens"
    with connection.cursor() as cursor, cursor.copy(f"COPY chunk ({columns}) FROM STDIN WITH (FORMAT BINARY)") as copy:
        copy.set_types(["int4", "bytea", "int4", "int4", "int4", "bytea", "text[]", "int4"])
        for item in texts:
            for chunk in item.chunks:
                path = list(chunk.heading_path)
                copy.write_row(
                    (chunker_key, item.text_hash, chunk.ordinal, chunk.start, chunk.end, chunk.hash, path, chunk.tokens)
                )
    for enrichment in enrichments:
        inputs = (
            (item.text_hash, chunk.ordinal, chunk.heading_path, item.text[chunk.start : chunk.end])
            for item in texts
            for chunk in item.chunks
        )
        work.inputs_written += _write_inputs(connection, chunker_key, enrichment, inputs)
    work.texts_chunked += len(texts)
    work.chunks_written += sum(len(item.chunks) for item in texts)


def _write_inputs(
    connection: Connection,
    chunker_key: int,
    enrichment: _Enrichment,
    chunks: Iterable[tuple[bytes, int, Sequence[str], str]],
) -> int:
    """Write the embedding inputs of chunks given as (text hash, ordinal, heading path, text); returns how many."""
    columns = "enrichment_id, chunker_id, text_hash, ordinal, input_hash"
    written = 0
    with (
        connection.cursor() as cursor,
        cursor.copy(f"COPY chunk_input ({columns}) FROM STDIN WITH (FORMAT BINARY)") as copy,
    ):
        copy.set_types(["int4", "int4", "bytea", "int4", "bytea"])
        for key, ordinal, path, text in chunks:
            input_hash = text_hash(embedding_input(path, text, enrichment.config))
            copy.write_row((enrichment.key, chunker_key, key, ordinal, input_hash))
            written += 1
    return written


def _enrich_missing(platform: Platform, work: ChunkWork, chunker_key: int, enrichment: _Enrichment) -> None:
    """Compose the inputs of live chunk sets that have none yet: those made before this enrichment was configured."""
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
            rows = connection.execute(
                """SELECT text_hash, ordinal, heading_path, start_char, end_char FROM chunk
                   WHERE chunker_id = %s AND text_hash = ANY(%s) ORDER BY text_hash, ordinal""",
                (chunker_key, wanted),
            ).fetchall()
            inputs = ((key, ordinal, path, texts[key][start:end]) for key, ordinal, path, start, end in rows)
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
