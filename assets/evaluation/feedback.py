"""Feedback into questions: a live question becomes one of a dataset, by a person, with its origin.

Belongs here: which live answers people judged, and promoting one. Does not belong here: logging answers and feedback
(resources/interaction_log.py).

A promotion writes one line to ``evaluation/DATASET.promoted.jsonl``, which is read with the dataset's other files and
belongs under version control like them, and one row of who did it. Nothing is promoted by itself.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from assets.evaluation.anchoring import find_exact, find_normalised
from assets.evaluation.leakage import Item, duplicates
from assets.evaluation.question_writing import append_lines
from assets.evaluation.questions import QuestionSpec, load_questions
from resources.answerer import strip_citations
from resources.config import ProjectConfig
from resources.errors import PermanentError
from resources.faults import crash_point
from resources.interaction_log import LoggedInteraction, read_interaction
from resources.platform import Platform
from resources.postgres import FOREVER, Connection
from resources.sharding import source_of
from resources.task_config import TaskSpec
from resources.task_output import read_fields, read_label


@dataclass(frozen=True)
class JudgedInteraction:
    """A live answer somebody judged; ``datasets`` has promoted it already."""

    interaction_id: str
    asked_at: datetime
    question: str
    refused: bool
    good: int
    bad: int
    corrected: bool
    datasets: tuple[str, ...]


def judged(
    connection: Connection,
    indexes: Sequence[str] | None = None,
    *,
    rating: Literal["good", "bad"] | None = None,
    limit: int = 50,
) -> list[JudgedInteraction]:
    """Live answers with feedback, those with the most recent first; of each person the last word counts.

    Args:
        indexes: only answers from these.
        rating: only those that somebody found good, or bad.
    """
    rows = connection.execute(
        """SELECT i.interaction_id::text, i.asked_at, i.question, i.refused,
                  count(*) FILTER (WHERE rating > 0) AS good, count(*) FILTER (WHERE rating < 0) AS bad,
                  bool_or(correction IS NOT NULL),
                  ARRAY(SELECT dataset FROM question_promotion p WHERE p.interaction_id = i.interaction_id ORDER BY 1)
           FROM (SELECT DISTINCT ON (interaction_id, given_by) * FROM feedback
                 ORDER BY interaction_id, given_by, feedback_id DESC) f JOIN interaction i USING (interaction_id)
           WHERE %(indexes)s::text[] IS NULL OR i.index_name = ANY(%(indexes)s)
           GROUP BY i.interaction_id
           HAVING %(rating)s::text IS NULL OR bool_or(CASE %(rating)s WHEN 'good' THEN rating > 0 ELSE rating < 0 END)
           ORDER BY max(f.given_at) DESC, i.interaction_id LIMIT %(limit)s""",
        {"indexes": None if indexes is None else list(indexes), "rating": rating, "limit": limit},
    ).fetchall()
    return [JudgedInteraction(*row[:-1], datasets=tuple(row[-1])) for row in rows]


def promote_interaction(
    platform: Platform,
    identity: str,
    dataset: str,
    *,
    by: str,
    reason: str,
    split: Literal["train", "dev", "test"] = "dev",
    question: str | None = None,
    answer: str | None = None,
    unanswerable: bool = False,
    quotes: Sequence[tuple[str, str]] = (),
    tags: dict[str, Any] | None = None,
) -> QuestionSpec:
    """Make a live question one of a dataset and return its line.

    Args:
        reason: why; kept with the line.
        question: other words for it, for example without a name; by default as it was asked. A dataset for a task without
            documents keeps its line breaks.
        answer: the reference; by default the newest correction, else the answer given if its newest rating is good.
        unanswerable: the documents do not tell; then there is neither answer nor quote.
        quotes: (``source/path``, text copied from it) of the evidence; by default what the answer given cited.

    Raises:
        PermanentError: there is no such interaction; it was promoted before; the dataset has the question already; there
            is no answer to take; or a quote does not stand in its document as it is now.
    """
    config = platform.config
    if not reason.strip():
        raise PermanentError("say why the question is promoted; the reason is kept with it")
    if unanswerable and (answer is not None or quotes):
        raise PermanentError("an unanswerable question has neither an answer nor quotes; leave one of them out")
    task = config.datasets[dataset].task_spec
    if task is not None and (unanswerable or quotes):
        raise PermanentError(
            f"{dataset} is for {task.kind} and has no documents; every input has an answer, and none quotes"
        )
    path = config.promoted_path(dataset)
    with (
        platform.database.lease(f"dataset:{dataset}", f"cli:{os.getpid()}", wait_seconds=30) as lease,
        platform.database.connect() as connection,
    ):
        lease.check(connection)
        logged = read_interaction(connection, identity)
        # an erasure of it waits until the line is written, and then names the line
        connection.execute("SELECT 1 FROM interaction WHERE interaction_id = %s FOR SHARE", (logged.interaction_id,))
        key = f"asked-{logged.interaction_id[:13]}"
        existing = load_questions(config.question_files(dataset), config.datasets[dataset])
        recorded = next((item for item in existing if item.id == key), None)
        if recorded is not None:
            _record(connection, dataset, logged, recorded, by, reason)  # a kill may have come between file and row
            connection.commit()
            raise PermanentError(f"this interaction is question {key} of {dataset} already; edit its line in {path}")
        if not unanswerable and answer is None:
            answer = _known_answer(logged, cited=task is None)
        evidence = [] if unanswerable or task else _evidence(connection, config, dataset, logged, quotes)
        asked = question or logged.question
        spec = _spec(
            {
                "id": key,
                "question": " ".join(asked.split()) if task is None else asked.strip(),
                "answer": answer if answer is None or task is None else _answer_of(task, answer),
                "evidence": evidence,
                "split": split,
                "tags": tags or {},
                "provenance": {
                    "kind": "production",
                    "interaction": logged.interaction_id,
                    "asked_at": logged.asked_at.astimezone(UTC).isoformat(timespec="seconds"),
                    "variant": logged.variant,
                    "promoted_by": by,
                    "promoted_at": datetime.now(UTC).isoformat(timespec="seconds"),
                    "reason": reason,
                },
            },
            task,
        )
        items = [Item(item.id, item.question, item.answer) for item in existing]
        for pair in duplicates([*items, Item(key, spec.question, spec.answer)]):
            if key in pair:
                other = pair[0] if pair[1] == key else pair[1]
                raise PermanentError(f"{dataset} asks this already: question {other}")
        _record(connection, dataset, logged, spec, by, reason)
        append_lines(path, [spec.model_dump(mode="json", exclude_defaults=True) | {"answer": spec.answer}])
        crash_point("evaluation.promoted_file")
    return spec


def _record(
    connection: Connection, dataset: str, logged: LoggedInteraction, spec: QuestionSpec, by: str, reason: str
) -> None:
    connection.execute(
        """INSERT INTO question_promotion (dataset, question_id, interaction_id, promoted_by, reason)
           VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING""",
        (dataset, spec.id, logged.interaction_id, by, reason),
    )


def _answer_of(task: TaskSpec, said: str) -> str:
    """The reference that an answer to a task stands for: the label alone, or the object with all fields.

    Raises:
        PermanentError: it has not the form of one.
    """
    label = read_label(said, task.labels) if task.kind == "classification" else None
    if label is not None:
        return label[0]
    found = read_fields(said, task.fields) if task.kind == "extraction" else None
    return said if found is None else json.dumps(found, ensure_ascii=False)


def _spec(fields: dict[str, Any], task: TaskSpec | None) -> QuestionSpec:
    from pydantic import ValidationError

    try:
        return QuestionSpec.model_validate(fields, context={"task": task})
    except ValidationError as error:
        first = error.errors()[0]  # its text would repeat what was asked
        where = ".".join(map(str, first["loc"])) or "the question"
        raise PermanentError(f"{where}: {first['msg'].removeprefix('Value error, ')}") from None


def _known_answer(logged: LoggedInteraction, *, cited: bool) -> str:
    corrected = next((one.correction for one in logged.feedback if one.correction), None)
    if corrected is not None:
        return corrected
    if logged.feedback and logged.feedback[0].rating > 0 and not logged.refused:
        return strip_citations(logged.answer) if cited else logged.answer
    raise PermanentError(
        "nobody said what the right answer is: there is no correction, and the answer given was not rated good last; "
        "give --answer, or --unanswerable if the documents do not tell"
    )


def _evidence(
    connection: Connection,
    config: ProjectConfig,
    dataset: str,
    logged: LoggedInteraction,
    quotes: Sequence[tuple[str, str]],
) -> list[dict[str, str]]:
    """Quotes that stand in the documents as they are now, each in the document's own words."""
    given = list(quotes)
    if not given:
        for citation in logged.citations:
            row = connection.execute(
                """SELECT substr(text, %s, %s) FROM document_version JOIN document_text USING (text_hash)
                   WHERE version_id = %s""",
                (citation["start"] + 1, citation["end"] - citation["start"], citation["version_id"]),
            ).fetchone()
            if row is not None:
                given.append((f"{source_of(citation['source'])}/{citation['path']}", row[0].strip()))
        given = list(dict.fromkeys(given))
    if not given:
        raise PermanentError(
            "the answer given cited nothing that is still there; say with --quote where the answer stands"
        )
    evidence: list[dict[str, str]] = []
    for document, quote in given:
        source, _, path = document.partition("/")
        part = config.partition_of(source, path)
        if part not in config.datasets[dataset].sources:
            raise PermanentError(f"dataset {dataset} does not list the source of {document}; add it to its header")
        row = connection.execute(
            """SELECT text FROM document_version JOIN document_text USING (text_hash)
               WHERE source = %s AND path = %s AND rev_to = %s""",
            (part, path, FOREVER),
        ).fetchone()
        anchor = None if row is None else find_exact(row[0], quote) or find_normalised(row[0], quote)
        if row is None or anchor is None:
            what = "there is no such document (any more)" if row is None else "it does not hold that quote"
            raise PermanentError(f"{document}: {what}; quote with --quote where the answer stands now")
        evidence.append({"document": document, "quote": row[0][anchor.start : anchor.end]})
    return evidence
