"""The interaction log: every live answer, written where it was given, and what people said of it.

Belongs here: the one writer of the tables ``interaction`` and ``feedback``, and reading one interaction.
Does not belong here: reading many (assets/monitoring/interactions.py), making one a question of a dataset
(assets/evaluation/feedback.py), and giving the answer (answerer.py).
"""

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

import psycopg
from psycopg.types.json import Jsonb

from resources.erased_documents import ERASED, erased_among
from resources.errors import PermanentError
from resources.postgres import Connection, Database
from resources.variants import record_variant

if TYPE_CHECKING:
    from resources.answerer import Answer, Variant
    from resources.vector_index import SearchFilter


def log_interaction(
    database: Database,
    answer: "Answer",
    variant: "Variant",
    question: str,
    reason: str,
    *,
    filters: "SearchFilter | None" = None,
) -> uuid.UUID:
    """Record a live answer and return its id.

    Retrieved chunks are kept by document, version, character range and score, not by text: the text stays in one
    place, where it can be erased. NUL characters, which PostgreSQL refuses, are dropped from the question. Of a document
    that was erased while the answer was made, nothing is recorded, and nothing of an answer that rests on one.

    Args:
        reason: why this variant answered, e.g. ``champion 12``, ``baseline`` or ``asked for``.
        filters: what the caller could see and asked for; without it the question can never be asked again on behalf of
            the same caller.
    """
    interaction = uuid.uuid4()
    retrieved = [
        {key: value for key, value in hit.to_json().items() if key not in ("text", "heading_path")}
        for hit in answer.hits
    ]
    citations = [asdict(citation) for citation in answer.citations]
    text, generation = answer.text.replace("\0", ""), answer.generation
    with database.connect() as connection:
        shown = {document for documents in answer.supplied.get("examples", ()) for document in documents}
        erased = erased_among(connection, {hit.document_id for hit in answer.hits} | shown)
        supplied, steps = answer.supplied, answer.steps
        if erased:
            supplied, steps = {}, ()
            retrieved = [hit for hit in retrieved if hit["document_id"] not in erased]
            citations = [citation for citation in citations if citation["document_id"] not in erased]
            text, generation = ERASED, ""
        record_variant(connection, variant)
        connection.execute(
            """INSERT INTO interaction (interaction_id, question, answer, refused, citations, retrieved, index_name,
                                        snapshot, variant, variant_reason, generation, usage, latency, retrieval,
                                        supplied, steps, filters)
               VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)""",
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
                Jsonb(supplied) if supplied else None,
                Jsonb(list(steps)) if steps else None,
                None if filters is None else Jsonb(conditions(filters)),
            ),
        )
    return interaction


def conditions(filters: "SearchFilter") -> dict[str, Any]:
    """The conditions that are set, as a JSON object; none for a caller without restriction."""
    found = {field.name: getattr(filters, field.name) for field in fields(filters)}
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in found.items()
        if value is not None
    }


def caller_filter(stored: Mapping[str, Any]) -> "SearchFilter":
    """What ``conditions`` wrote.

    Raises:
        TypeError, ValueError: another version of the code wrote it.
    """
    from resources.vector_index import SearchFilter

    def read(name: str, value: Any) -> Any:
        if name in ("origin_from", "origin_before"):
            return datetime.fromisoformat(value)
        if name == "metadata":
            return tuple((key, wanted) for key, wanted in value)
        return tuple(value) if isinstance(value, list) else value

    return SearchFilter(**{name: read(name, value) for name, value in stored.items()})


Rating = Literal[-1, 0, 1]
#: An id may be given by so many of its first characters.
_SHORTEST_PREFIX = 8


@dataclass(frozen=True)
class Feedback:
    """What one person said of an answer last; ``correction`` is what it should have been."""

    rating: int
    comment: str | None
    correction: str | None
    given_by: str
    given_at: datetime


@dataclass(frozen=True)
class LoggedInteraction:
    """A live answer with what people said of it, newest first.

    Attributes:
        citations: {number, document_id, version_id, source, path, start, end} of what the answer cited.
    """

    interaction_id: str
    asked_at: datetime
    question: str
    answer: str
    refused: bool
    citations: Sequence[Mapping[str, Any]]
    index: str
    variant: str
    feedback: tuple[Feedback, ...]


def read_interaction(connection: Connection, identity: str) -> LoggedInteraction:
    """One interaction by its id, or by the first characters of it.

    Raises:
        PermanentError: there is none, or several begin like this.
    """
    given = identity.strip().lower()
    if len(given) < _SHORTEST_PREFIX or not re.fullmatch(r"[0-9a-f-]+", given):
        raise PermanentError(
            f"{identity!r} is no id of an interaction; give at least its first {_SHORTEST_PREFIX} characters, as "
            "`genaiops ask` prints it"
        )
    rows = connection.execute(
        """SELECT interaction_id::text, asked_at, question, answer, refused, citations, index_name, variant
           FROM interaction WHERE interaction_id::text LIKE %s LIMIT 2""",
        (f"{given}%",),
    ).fetchall()
    if len(rows) != 1:
        what = "several interactions begin" if rows else "there is no interaction (any more) that begins"
        raise PermanentError(f"{what} with {given!r}")
    feedback = connection.execute(
        """SELECT * FROM (SELECT DISTINCT ON (given_by) rating, comment, correction, given_by, given_at FROM feedback
                          WHERE interaction_id = %s ORDER BY given_by, feedback_id DESC) newest
           ORDER BY given_at DESC, given_by""",
        (rows[0][0],),
    ).fetchall()
    return LoggedInteraction(*rows[0], feedback=tuple(Feedback(*row) for row in feedback))


def give_feedback(
    database: Database,
    identity: str,
    rating: Rating,
    *,
    by: str,
    comment: str | None = None,
    correction: str | None = None,
) -> str:
    """Record what somebody said of a live answer and return the interaction's whole id.

    It goes with the interaction: when its time is over, and when it is erased.

    Args:
        rating: 1 good, -1 bad, 0 neither.
        correction: what the answer should have been.

    Raises:
        PermanentError: there is no such interaction, or a text is empty.
    """
    for name, text in (("comment", comment), ("correction", correction)):
        if text is not None and not text.replace("\0", "").strip():
            raise PermanentError(f"the {name} is empty; leave it out, or say something")
    texts = [None if text is None else text.replace("\0", "") for text in (comment, correction)]
    try:
        with database.connect() as connection:
            found = read_interaction(connection, identity).interaction_id
            connection.execute(
                "INSERT INTO feedback (interaction_id, rating, comment, correction, given_by) VALUES (%s, %s, %s, %s, %s)",
                (found, rating, *texts, by),
            )
    except psycopg.errors.ForeignKeyViolation:  # erased, or its time was over, between the two
        raise PermanentError(f"there is no interaction (any more) that begins with {identity!r}") from None
    return found
