"""Rows of a corpus and its indexes, written by plain SQL: for stages that only read them, without running the others."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from psycopg import sql
from psycopg.types.json import Jsonb

from resources.fingerprint import content_hash, text_hash
from resources.platform import Platform
from resources.postgres import FOREVER

DIMENSIONS = 8


class SeededCorpus:
    """Writes documents, chunks, builds and snapshots of one database; every document is one chunk."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self._places: dict[int, tuple[int, str, str]] = {}  # document -> version, source, text
        with platform.database.connect() as connection:
            for table, values in (
                ("chunker", "(fingerprint, config) VALUES ('c', '{}')"),
                ("enrichment", "(fingerprint, config) VALUES ('e', '{}')"),
                ("embedder", f"(fingerprint, config, dimensions) VALUES ('m', '{{}}', {DIMENSIONS})"),
            ):
                connection.execute(sql.SQL(f"INSERT INTO {table} {values}"))  # pyright: ignore[reportArgumentType]

    def document(
        self,
        source: str,
        path: str,
        text: str,
        *,
        language: str = "en",
        document_id: int | None = None,
        revision: int = 1,
    ) -> int:
        """Add a document, or a new version of ``document_id``, with everything the caches hold of it."""
        key, content = text_hash(text), content_hash(text.encode())
        with self.platform.database.connect() as connection:
            if document_id is None:
                row = connection.execute(
                    "INSERT INTO document (source) VALUES (%s) RETURNING document_id", (source,)
                ).fetchone()
                assert row is not None
                document_id = int(row[0])
            connection.execute(
                "UPDATE document_version SET rev_to = %s WHERE document_id = %s AND rev_to = %s",
                (revision, document_id, FOREVER),
            )
            connection.execute(
                "INSERT INTO document_text (text_hash, text, characters) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
                (key, text, len(text)),
            )
            connection.execute(
                """INSERT INTO parse_result (content_hash, parser_fingerprint, text_hash, title, seconds)
                   VALUES (%s, 'p', %s, 'Title', 0.1) ON CONFLICT DO NOTHING""",
                (content, key),
            )
            row = connection.execute(
                """INSERT INTO document_version (document_id, source, path, content_hash, text_hash, parser_fingerprint, title,
                       headings, language, bytes, media_type, metadata, run_id, rev_from)
                   VALUES (%s, %s, %s, %s, %s, 'p', 'Title', '[]', %s, %s, 'text/markdown', '{}', 'run', %s) RETURNING version_id""",
                (document_id, source, path, content, key, language, len(text), revision),
            ).fetchone()
            assert row is not None
            for statement in (
                "INSERT INTO chunk_set (chunker_id, text_hash, chunks) VALUES (1, %(text)s, 1) ON CONFLICT DO NOTHING",
                """INSERT INTO chunk (chunker_id, text_hash, ordinal, start_char, end_char, chunk_hash, heading_path, tokens)
                   VALUES (1, %(text)s, 0, 0, %(size)s, %(text)s, '{}', 1) ON CONFLICT DO NOTHING""",
                """INSERT INTO chunk_input (enrichment_id, chunker_id, text_hash, ordinal, input_hash)
                   VALUES (1, 1, %(text)s, 0, %(text)s) ON CONFLICT DO NOTHING""",
                """INSERT INTO embedding (embedder_id, input_hash, embedding, run_id)
                   VALUES (1, %(text)s, %(vector)s, 'run') ON CONFLICT DO NOTHING""",
            ):
                vector = np.ones(DIMENSIONS, dtype=np.float32)
                connection.execute(statement, {"text": key, "size": len(text), "vector": vector})
        self._places[document_id] = (int(row[0]), source, text)
        return document_id

    def build(self, index: str, *, fingerprint: str = "f", state: str = "ready") -> int:
        """Add an empty build with its table and return its id."""
        with self.platform.database.connect() as connection:
            row = connection.execute(
                """INSERT INTO index_build (index_name, fingerprint, config, table_name, run_id, state)
                   VALUES (%s, %s, '{}', '', 'run', %s) RETURNING build_id""",
                (index, fingerprint, state),
            ).fetchone()
            assert row is not None
            table = f"chunks_{row[0]}"
            connection.execute("UPDATE index_build SET table_name = %s WHERE build_id = %s", (table, row[0]))
            connection.execute(
                sql.SQL(
                    """CREATE TABLE {} (document_id bigint, ordinal integer, valid_from integer, valid_to integer,
                                        content text, tsv tsvector, embedding halfvec({}))"""
                ).format(sql.Identifier(table), sql.Literal(DIMENSIONS))
            )
        return int(row[0])

    def show(
        self,
        build: int,
        documents: Sequence[int],
        vectors: np.ndarray | None = None,
        *,
        start: int = 1,
        end: int = FOREVER,
    ) -> None:
        """Make a build show the newest version of each document from snapshot ``start`` on (until ``end``)."""
        with self.platform.database.connect() as connection:
            for position, document in enumerate(documents):
                version, source, text = self._places[document]
                vector = vectors[position] if vectors is not None else np.ones(DIMENSIONS)
                connection.execute(
                    """INSERT INTO index_document (build_id, document_id, version_id, source, valid_from, valid_to, chunks, lexemes, digest)
                       VALUES (%s, %s, %s, %s, %s, %s, 1, 3, 1)""",
                    (build, document, version, source, start, end),
                )
                connection.execute(
                    sql.SQL("INSERT INTO {} VALUES (%s, 0, %s, %s, %s, to_tsvector('english', %s), %s)").format(
                        sql.Identifier(f"chunks_{build}")
                    ),
                    (document, start, end, text, text, np.asarray(vector, dtype=np.float32)),
                )

    def retire(self, build: int, documents: Sequence[int], *, end: int) -> None:
        """Make a build show the documents no longer from snapshot ``end`` on."""
        with self.platform.database.connect() as connection:
            for table in ("index_document", f"chunks_{build}"):
                connection.execute(
                    sql.SQL("UPDATE {} SET valid_to = %s WHERE document_id = ANY(%s)").format(sql.Identifier(table)),
                    (end, list(documents)),
                )

    def publish(self, index: str, build: int, snapshot: int, day: str) -> None:
        """Record a published snapshot at noon (UTC) of ``day`` with the counts of what it shows."""
        with self.platform.database.connect() as connection:
            connection.execute(
                """INSERT INTO index_snapshot (index_name, snapshot, build_id, run_id, published_at, counts, sources, evidence)
                   SELECT %(index)s, %(snapshot)s, %(build)s, 'run', %(at)s, jsonb_build_object(
                              'documents', count(*), 'chunks', coalesce(sum(chunks), 0), 'lexemes', coalesce(sum(lexemes), 0)),
                          '{}', '{}'
                   FROM index_document WHERE build_id = %(build)s AND valid_from <= %(snapshot)s AND valid_to > %(snapshot)s""",
                {"index": index, "snapshot": snapshot, "build": build, "at": noon(day)},
            )

    def counts(self, index: str, snapshot: int) -> dict[str, Any]:
        """The recorded counts of a snapshot."""
        with self.platform.database.connect() as connection:
            row = connection.execute(
                "SELECT counts FROM index_snapshot WHERE index_name = %s AND snapshot = %s", (index, snapshot)
            ).fetchone()
        assert row is not None
        return row[0]

    def dataset(self, name: str, questions: Sequence[str], *, evidence: int | None = None, quote: str = "") -> None:
        """Add version 1 of an evaluation dataset; with ``evidence``, the first question quotes that document."""
        with self.platform.database.connect() as connection:
            connection.execute(
                """INSERT INTO evaluation_dataset (dataset, version, content_hash, corpus, counts, file, run_id)
                   VALUES (%s, 1, 'h', '{}', '{}', '', 'run')""",
                (name,),
            )
            for number, question in enumerate(questions):
                connection.execute(
                    """INSERT INTO evaluation_question (dataset, version, question_id, question, answer, split, tags, status, fingerprint)
                       VALUES (%s, 1, %s, %s, 'yes', 'dev', '{}', 'active', 'f')""",
                    (name, f"q{number:03}", question),
                )
            if evidence is not None:
                connection.execute(
                    """INSERT INTO evaluation_evidence (dataset, version, question_id, ordinal, declared, document_id, text_hash,
                           start_char, end_char, quote) VALUES (%s, 1, 'q000', 0, 'd', %s, %s, 0, 5, %s)""",
                    (name, evidence, text_hash(self._places[evidence][2]), quote),
                )

    def variant(self, fingerprint: str = "v") -> str:
        """Add a variant, unless it is there, and return its fingerprint."""
        with self.platform.database.connect() as connection:
            connection.execute(
                "INSERT INTO variant (fingerprint, name, config) VALUES (%s, 'variant', '{}') ON CONFLICT DO NOTHING",
                (fingerprint,),
            )
        return fingerprint

    def interaction(
        self, question: str, day: str, *, hit: dict[str, Any] | None = None, refused: bool = False, index: str = "main"
    ) -> None:
        """Log an answer given at noon (UTC) of ``day``."""
        with self.platform.database.connect() as connection:
            connection.execute(
                """INSERT INTO interaction (interaction_id, asked_at, question, answer, refused, citations, retrieved, index_name,
                       snapshot, variant, variant_reason, generation, usage, latency)
                   VALUES (gen_random_uuid(), %s, %s, 'answer', %s, '[]', %s, %s, 1, %s, 'baseline', 'none', '{}', 0.1)""",
                (noon(day), question, refused, Jsonb([hit or {"rank": 1, "score": 0.5}]), index, self.variant()),
            )

    def trial(
        self, fingerprint: str, question_id: str, hit: dict[str, Any], *, dataset: str = "quiz", refused: bool = False
    ) -> None:
        """Record a trial with its generation ``g-FINGERPRINT`` and one score."""
        with self.platform.database.connect() as connection:
            connection.execute(
                """INSERT INTO generation (fingerprint, model, messages, text, usage, latency, run_id)
                   VALUES (%s, '{}', %s, 'answer', '{}', 0.1, 'run')""",
                (f"g-{fingerprint}", Jsonb([{"role": "user", "content": hit.get("text", "nothing")}])),
            )
            connection.execute(
                """INSERT INTO trial (fingerprint, experiment, variant, index_name, snapshot, dataset, dataset_version, question_id,
                       status, retrieved, generation, answer, refused, run_id)
                   VALUES (%s, 'first', %s, 'main', 1, %s, 1, %s, 'ok', %s, %s, 'answer', %s, 'run')""",
                (fingerprint, self.variant(), dataset, question_id, Jsonb([hit]), f"g-{fingerprint}", refused),
            )
            connection.execute("INSERT INTO trial_score (trial, metric, value) VALUES (%s, 'm/1', 1)", (fingerprint,))


def noon(day: str) -> datetime:
    """Noon (UTC) of an ISO day."""
    return datetime.fromisoformat(day).replace(hour=12, tzinfo=UTC)
