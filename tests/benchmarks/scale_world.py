"""The corpus of the scale benchmark: real texts made as many as wanted, and vectors with neighbourhoods.

Belongs here: what is fed into the product's own schema and stages, a bounded piece at a time, the same in every run.
Does not belong here: measuring (scale_watch.py, scale_clients.py) and the order of things (test_scale.py).

Texts are SQuAD 2.0 paragraphs, xquad paragraphs in eight languages, SciFact abstracts and PEPs, in that order as one
long text cut into documents. When it is used up it is used again, and each time one word in five is exchanged for
another of the corpus and one in two hundred for a new word, so that no chunk is like another and the vocabulary goes on
growing. Vectors have the spectrum of MiniLM over the same kinds of text (variance of dimension i: 1 / (1 + i / 12),
measured on 1 000 of them) and three levels: the topic, which some documents share, the document, the chunk.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from psycopg import sql
from psycopg.types.json import Jsonb

from assets.index.embedding import store
from assets.index.specification import Specification, cache_ids
from resources.chunk_config import chunker_id, enrichment_id
from resources.fingerprint import content_hash, text_hash
from resources.platform import Platform
from resources.postgres import FOREVER, Connection

if TYPE_CHECKING:
    from numpy.typing import NDArray

DIMENSIONS, CHUNK = 384, 700
#: Words of a document, and chunks the chunker makes of it on average (for the number of documents only).
WORDS, CHUNKS_PER_DOCUMENT = 2_300, 36
#: Documents of a topic: a million chunks are in four thousand topics.
DOCUMENTS_PER_TOPIC = 7
#: Shares of a vector's variance: chunks of a document have a cosine of about 0.5, those of a topic 0.35; the last share
#: is larger or smaller by up to so much, by document.
TOPIC_SHARE, DOCUMENT_SHARE, CHUNK_SHARE, UNEVEN = 0.35, 0.15, 0.5, 0.6
#: Documents committed at a time, texts whose vectors are stored at a time, and vectors of one transaction.
DOCUMENTS_AT_ONCE, TEXTS_AT_ONCE, VECTORS_AT_ONCE = 200, 150, 4_096
#: One document in so many belongs to the source with a label, one in so many to each value of metadata "team".
LABELLED, TEAMS = 50, 100
LABEL = "staff"
SYLLABLES = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]

FILES: dict[str, Any] = {
    "models.yaml": {
        "providers": {"offline": {"kind": "offline"}},
        "embedding": [
            {"name": "lexical", "provider": "offline", "model": "lexical-hash", "dimensions": DIMENSIONS},
        ],
        "chat": [{"name": "extractive", "provider": "offline", "model": "extractive"}],
    },
    **{
        f"indexes/{kind}.yaml": {
            "name": kind,
            "embedder": "lexical",
            "chunker": {"kind": "recursive", "unit": "characters", "size": CHUNK},
            "enrichment": {"context": "none"},
            "vector_type": kind,
        }
        for kind in ("halfvec", "vector")
    },
}


def sources_file(folder: Path) -> dict[str, Any]:
    """``sources.yaml`` with an open source and one with a label; the folders only have to exist."""
    for name in ("docs", "restricted"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return {
        "sources": [
            {"name": "docs", "path": str(folder / "docs")},
            {"name": "restricted", "path": str(folder / "restricted"), "label": LABEL},
        ]
    }


def source_of_document(number: int) -> str:
    """The source of a document."""
    return "restricted" if number % LABELLED == LABELLED - 1 else "docs"


# --- texts ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Question:
    """A real question, the document its paragraph is in, and a character in the middle of that paragraph."""

    text: str
    document: int
    character: int


class Corpus:
    """Documents by number, without end; holds the real texts (20 MB) as numbers of words."""

    def __init__(self, data: Path) -> None:
        numbers: dict[str, int] = {}
        self._paragraphs: dict[str, tuple[int, int]] = {}
        words: list[int] = []
        for key, text in _real_texts(data):
            first = len(words)
            words += [numbers.setdefault(word, len(numbers)) for word in (text + "\n\n").split(" ")]
            self._paragraphs[key] = (first, len(words))
        self._words: NDArray[np.int32] = np.array(words, dtype=np.int32)
        self._vocabulary: NDArray[np.object_] = np.array(list(numbers), dtype=object)
        self._data = data

    def document(self, number: int, edition: int = 0) -> str:
        """The text of a document; another edition has other words in all of its chunks."""
        place = np.arange(number * WORDS, (number + 1) * WORDS)
        words = self._vocabulary[self._words[place % len(self._words)]]
        chance = np.random.default_rng((7, number, edition))
        repeated = (place >= len(self._words)) | (edition > 0)
        exchanged = repeated & (chance.random(WORDS) < 0.2)
        drawn = chance.integers(0, len(self._words), int(exchanged.sum()))
        words[exchanged] = self._vocabulary[self._words[drawn]]
        new = repeated & (chance.random(WORDS) < 0.005)
        words[new] = [_new_word(int(rank)) for rank in chance.zipf(1.25, int(new.sum())) % 2**40]
        return " ".join(words.tolist())

    def questions(self, number: int) -> list[Question]:
        """``number`` answerable SQuAD 2.0 questions, evenly over the paragraphs."""
        asked = [
            line
            for line in _lines(self._data / "squad2" / "questions.jsonl")
            if not line["is_impossible"] and len(line["question"]) < 500
        ]
        result = []
        for line in asked[:: max(1, len(asked) // number)][:number]:
            first, last = self._paragraphs[line["paragraph_id"]]
            document, word = divmod((first + last) // 2, WORDS)
            begin = document * WORDS
            before = self._vocabulary[self._words[begin : begin + word]].tolist()
            result.append(Question(line["question"], document, len(" ".join(before)) + 1))
        return result


def _real_texts(data: Path) -> Iterator[tuple[str, str]]:
    for line in _lines(data / "squad2" / "paragraphs.jsonl"):
        yield line["paragraph_id"], line["text"]
    for line in _lines(data / "xquad" / "paragraphs.jsonl"):
        yield f"xquad {line['paragraph_id']}", line["text"]
    for line in _lines(data / "scifact" / "corpus.jsonl"):
        yield f"scifact {line['_id']}", f"{line['title']}\n{line['text']}"
    for path in sorted((data / "peps-history" / "base").rglob("*.rst")):
        yield f"peps {path.name}", path.read_text(encoding="utf-8")


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as handle:
        yield from map(json.loads, handle)


def _new_word(rank: int) -> str:
    word = ""
    while True:
        rank, rest = divmod(rank, len(SYLLABLES))
        word += SYLLABLES[rest]
        if not rank:
            return f"{word}x"


# --- documents -------------------------------------------------------------------------------------------------


def committed_documents(platform: Platform) -> int:
    """How many documents there are; those of one batch are there together."""
    with platform.database.connect() as connection:
        row = connection.execute("SELECT count(*) FROM document_version WHERE rev_to = %s", (FOREVER,)).fetchone()
    assert row is not None
    return row[0]


def commit_documents(platform: Platform, corpus: Corpus, documents: int) -> tuple[float, int]:
    """Write the first revision of both sources in the schema of the corpus; goes on where a run was broken off.

    Returns:
        Seconds (the texts are made meanwhile), and characters written.
    """
    started, characters = time.perf_counter(), 0
    for first in range(committed_documents(platform), documents, DOCUMENTS_AT_ONCE):
        numbers = range(first, min(first + DOCUMENTS_AT_ONCE, documents))
        texts = [corpus.document(number) for number in numbers]
        characters += sum(map(len, texts))
        with platform.database.connect() as connection:
            keys = [
                key
                for (key,) in connection.execute(
                    """INSERT INTO document (source) SELECT s FROM unnest(%s::text[]) WITH ORDINALITY u (s, n) ORDER BY n
                       RETURNING document_id""",
                    ([source_of_document(number) for number in numbers],),
                )
            ]
            _write_versions(connection, list(zip(keys, numbers, texts, strict=True)), 1)
    _write_revision(platform, ["docs", "restricted"], 1)
    with platform.database.connect() as connection:
        connection.execute("ANALYZE document_version, document_text, document")
    return time.perf_counter() - started, characters


def edit_documents(platform: Platform, corpus: Corpus, documents: int) -> list[int]:
    """Give one document in a hundred of source ``docs`` another text, as its next revision; returns their numbers."""
    with platform.database.connect() as connection:
        row = connection.execute("SELECT max(revision) FROM source_revision WHERE source = 'docs'").fetchone()
    assert row is not None
    revision = row[0] + 1
    # number % 50 == 49 is the other source
    edited = [number for number in range(revision % 40, documents, 100) if source_of_document(number) == "docs"]
    for first in range(0, len(edited), DOCUMENTS_AT_ONCE):
        numbers = edited[first : first + DOCUMENTS_AT_ONCE]
        texts = [corpus.document(number, revision) for number in numbers]
        with platform.database.connect() as connection:
            known = dict(
                connection.execute(
                    """UPDATE document_version SET rev_to = %s WHERE source = 'docs' AND rev_to = %s AND path = ANY(%s)
                       RETURNING path, document_id""",
                    (revision, FOREVER, [_path(number) for number in numbers]),
                ).fetchall()
            )
            keys = [known[_path(number)] for number in numbers]
            _write_versions(connection, list(zip(keys, numbers, texts, strict=True)), revision)
    _write_revision(platform, ["docs"], revision)
    return edited


def _path(number: int) -> str:
    return f"{number:08}.txt"


def _write_versions(connection: Connection, rows: Sequence[tuple[int, int, str]], revision: int) -> None:
    with connection.cursor() as cursor, cursor.copy("COPY document_text FROM STDIN WITH (FORMAT BINARY)") as copy:
        copy.set_types(["bytea", "text", "int4"])
        for _, _, text in rows:
            copy.write_row((text_hash(text), text, len(text)))
    with (
        connection.cursor() as cursor,
        cursor.copy(
            """COPY document_version (document_id, source, path, content_hash, text_hash, parser_fingerprint, title,
                   headings, language, licence, bytes, media_type, metadata, run_id, rev_from)
               FROM STDIN WITH (FORMAT BINARY)"""
        ) as copy,
    ):
        types = "int8 text text bytea bytea text text jsonb text text int8 text jsonb text int4"
        copy.set_types(types.split())
        for key, number, text in rows:
            content = text.encode()
            metadata = {"team": f"t{number % TEAMS}", "half": number % 2}
            described = ("p", f"Document {number}", Jsonb([]), "en", "CC0", len(content), "text/plain", Jsonb(metadata))
            place = (key, source_of_document(number), _path(number), content_hash(content), text_hash(text))
            copy.write_row((*place, *described, "scale", revision))


def _write_revision(platform: Platform, sources: Sequence[str], revision: int) -> None:
    with platform.database.connect() as connection:
        for source in sources:
            connection.execute(
                """INSERT INTO source_revision (source, revision, run_id, counts, data_version)
                   VALUES (%s, %s, 'scale', '{}', %s) ON CONFLICT DO NOTHING""",
                (source, revision, f"{source}@{revision}"),
            )


# --- vectors ---------------------------------------------------------------------------------------------------


def vectors_of(key: bytes, chunks: int, topics: int) -> NDArray[np.float32]:
    """The vectors of a text's chunks, of unit length; shape (chunks, DIMENSIONS)."""
    spread = (1 + np.arange(DIMENSIONS) / 12) ** -0.5
    chance = np.random.default_rng(int.from_bytes(key[:8], "big"))
    topic = np.random.default_rng((3, int.from_bytes(key[8:12], "big") % topics)).standard_normal(DIMENSIONS)
    subject = TOPIC_SHARE**0.5 * topic + DOCUMENT_SHARE**0.5 * chance.standard_normal(DIMENSIONS)
    share = CHUNK_SHARE * chance.uniform(1 - UNEVEN, 1 + UNEVEN)
    result = spread * (subject + share**0.5 * chance.standard_normal((chunks, DIMENSIONS)))
    return (result / np.linalg.norm(result, axis=1, keepdims=True)).astype(np.float32)


def store_vectors(
    platform: Platform, specification: Specification, documents: int, edited: Sequence[bytes] | None = None
) -> tuple[float, int]:
    """Put a vector for every input of every chunked text, or of some texts, into the cache as a refresh does.

    Returns:
        Seconds inside ``store`` with its commit (making the vectors is not in them), and vectors stored.
    """
    with platform.database.connect() as connection:
        connection.execute(
            """INSERT INTO embedder (fingerprint, config, dimensions) VALUES (%s, '{}', %s) ON CONFLICT DO NOTHING""",
            (specification.embedder, DIMENSIONS),
        )
        ids = cache_ids(connection, specification)
        assert ids.embedder is not None
    seconds, stored = 0.0, 0
    keys: list[bytes] = []
    vectors: list[NDArray[np.float32]] = []

    def flush() -> None:
        nonlocal seconds, stored, keys, vectors
        started = time.perf_counter()
        with platform.database.connect() as connection:
            store(connection, ids.embedder or 0, keys, np.concatenate(vectors), "scale")
        seconds += time.perf_counter() - started
        stored += len(keys)
        keys, vectors = [], []

    for texts in _texts(platform, specification, edited):
        with platform.database.connect() as connection:
            rows = connection.execute(
                """SELECT text_hash, array_agg(input_hash ORDER BY ordinal) FROM chunk_input
                   WHERE enrichment_id = %s AND chunker_id = %s AND text_hash = ANY(%s) GROUP BY 1 ORDER BY 1""",
                (ids.enrichment, ids.chunker, texts),
            ).fetchall()
        for key, inputs in rows:
            keys += inputs
            vectors.append(vectors_of(key, len(inputs), max(1, documents // DOCUMENTS_PER_TOPIC)))
        if len(keys) >= VECTORS_AT_ONCE:
            flush()
    if keys:
        flush()
    if edited is None:
        with platform.database.connect() as connection:
            connection.execute("ANALYZE embedding")
    return seconds, stored


def _texts(
    platform: Platform, specification: Specification, edited: Sequence[bytes] | None
) -> Iterator[Sequence[bytes]]:
    if edited is not None:
        yield from (edited[first : first + TEXTS_AT_ONCE] for first in range(0, len(edited), TEXTS_AT_ONCE))
        return
    last = b""
    while True:
        with platform.database.connect() as connection:
            chunker = chunker_id(connection, specification.index.chunker)
            texts = [
                key
                for (key,) in connection.execute(
                    "SELECT text_hash FROM chunk_set WHERE chunker_id = %s AND text_hash > %s ORDER BY 1 LIMIT %s",
                    (chunker, last, TEXTS_AT_ONCE),
                )
            ]
        if not texts:
            return
        yield texts
        last = texts[-1]


def question_vectors(
    platform: Platform, specification: Specification, corpus: Corpus, questions: Sequence[Question]
) -> NDArray[np.float32]:
    """A vector near that of the paragraph each question is about (cosine about 0.9); shape (questions, DIMENSIONS)."""
    with platform.database.connect() as connection:
        ids = cache_ids(connection, specification)
        assert ids.enrichment == enrichment_id(connection, specification.index.enrichment)
        found = []
        for question in questions:
            row = connection.execute(
                """SELECT e.embedding FROM chunk c JOIN chunk_input i USING (chunker_id, text_hash, ordinal)
                   JOIN embedding e ON e.embedder_id = %s AND e.input_hash = i.input_hash
                   WHERE c.chunker_id = %s AND i.enrichment_id = %s AND c.text_hash = %s
                     AND c.start_char <= %s AND c.end_char > %s LIMIT 1""",
                (
                    *(ids.embedder, ids.chunker, ids.enrichment),
                    *(text_hash(corpus.document(question.document)), question.character, question.character),
                ),
            ).fetchone()
            assert row is not None, question
            found.append(row[0].to_numpy() if hasattr(row[0], "to_numpy") else np.asarray(row[0]))
    vectors = np.array(found, dtype=np.float32)
    noise = np.random.default_rng(5).standard_normal(vectors.shape) * (1 + np.arange(DIMENSIONS) / 12) ** -0.5
    vectors += 0.5 * (noise / np.linalg.norm(noise, axis=1, keepdims=True)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def drop_indexes(platform: Platform) -> None:
    """Forget every index, so that a run on a kept corpus builds as the first one did."""
    with platform.database.connect() as connection:
        for build, table in connection.execute("SELECT build_id, table_name FROM index_build").fetchall():
            words = table.replace("chunks_", "words_", 1)
            connection.execute(
                sql.SQL("DROP TABLE IF EXISTS {}, {}").format(sql.Identifier(table), sql.Identifier(words))
            )
            connection.execute("DELETE FROM index_document WHERE build_id = %s", (build,))
        for table in ("index_snapshot", "index_state", "index_build", "serving_move", "evidence"):
            connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(table)))
