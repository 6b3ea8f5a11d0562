"""The interaction log: every live answer, written where it was given.

Belongs here: the one writer of table ``interaction``.
Does not belong here: reading it (assets/monitoring/interactions.py) and giving the answer (answerer.py).
"""

import uuid
from dataclasses import asdict
from typing import TYPE_CHECKING

from psycopg.types.json import Jsonb

from resources.erased_documents import ERASED, erased_among
from resources.postgres import Database

if TYPE_CHECKING:
    from resources.answerer import Answer, Variant


def log_interaction(database: Database, answer: "Answer", variant: "Variant", question: str, reason: str) -> uuid.UUID:
    """Record a live answer and return its id.

    Retrieved chunks are kept by document, version, character range and score, not by text: the text stays in one
    place, where it can be erased. NUL characters, which PostgreSQL refuses, are dropped from the question. Of a document
    that was erased while the answer was made, nothing is recorded, and nothing of an answer that rests on one.

    Args:
        reason: why this variant answered, e.g. ``champion 12``, ``baseline`` or ``asked for``.
    """
    interaction = uuid.uuid4()
    retrieved = [
        {key: value for key, value in hit.to_json().items() if key not in ("text", "heading_path")}
        for hit in answer.hits
    ]
    citations = [asdict(citation) for citation in answer.citations]
    text, generation = answer.text.replace("\0", ""), answer.generation
    with database.connect() as connection:
        erased = erased_among(connection, (hit.document_id for hit in answer.hits))
        if erased:
            retrieved = [hit for hit in retrieved if hit["document_id"] not in erased]
            citations = [citation for citation in citations if citation["document_id"] not in erased]
            text, generation = ERASED, ""
        connection.execute(
            "INSERT INTO variant (fingerprint, name, config) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
            (variant.fingerprint, variant.name, Jsonb(variant.to_json())),
        )
        connection.execute(
            """INSERT INTO interaction (interaction_id, question, answer, refused, citations, retrieved, index_name,
                                        snapshot, variant, variant_reason, generation, usage, latency, retrieval)
               VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)""",
            (
                interaction,
                question.replace("\0", ""),
                text,
                answer.refused,
                Jsonb(citations),
                Jsonb(retrieved),
                variant.index,
                answer.snapshot,
                variant.fingerprint,
                reason,
                generation,
                Jsonb(answer.usage.to_json()),
                answer.retrieval_latency + answer.generation_latency,
                Jsonb(answer.retrieval),
            ),
        )
    return interaction
