"""The store of drafts: table ``question_draft``.

Belongs here: writing, reading and deciding about its rows. Does not belong here: what decides (filters.py, review.py).

A draft goes from ``generated`` to ``filtered`` (it passed every filter) or ``rejected``; of those that passed a share is
``queued`` for people, who make it ``accepted``, ``edited`` or ``rejected``.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, LiteralString

from psycopg.types.json import Jsonb

from assets.evaluation.synthesis.drafts import Draft, Task
from resources.erased_documents import erased_among
from resources.postgres import Connection

State = Literal["generated", "filtered", "queued", "accepted", "edited", "rejected"]
#: Not yet decided by a person.
PENDING: tuple[State, ...] = ("generated", "filtered", "queued")
ACCEPTED: tuple[State, ...] = ("accepted", "edited")
#: Who decided, where it was no person: ``filter:NAME``.
FILTER = "filter:"
#: Drafts that passed but whose documents have changed, or whose settings have.
STALE, SUPERSEDED = f"{FILTER}stale", f"{FILTER}superseded"


@dataclass(frozen=True)
class StoredDraft:
    """A row.

    Attributes:
        line: of a question file; ``{}`` where a model gave nothing usable.
        checked_by: what the filters have to know, see ``Draft.checked_by``.
        recipe: fingerprint of generator, model, seed and chunking.
    """

    draft_id: int
    question_id: str
    line: dict[str, Any]
    checked_by: dict[str, Any]
    kind: str
    generator: str
    recipe: str
    document_ids: tuple[int, ...]
    text_hashes: tuple[bytes, ...]
    scores: dict[str, Any]
    state: State
    reason: str | None
    decided_by: str | None
    decided_at: Any

    @property
    def reviewed(self) -> bool:
        """Whether a person decided."""
        return self.decided_by is not None and not self.decided_by.startswith(FILTER)


def known_keys(connection: Connection, dataset: str) -> set[bytes]:
    """Keys of the tasks that were carried out."""
    rows = connection.execute("SELECT content_hash FROM question_draft WHERE dataset = %s", (dataset,)).fetchall()
    return {bytes(row[0]) for row in rows}


def add(
    connection: Connection,
    dataset: str,
    made: Iterable[tuple[Task, Draft | str]],
    *,
    writer: str,
    recipe: str,
    chunker: str,
    run_id: str,
) -> int:
    """Store drafts, and what a model gave that cannot be used, as rejected; returns new rows.

    Nothing is stored of a document that was erased meanwhile.
    """
    added = 0
    for task, draft in made:
        documents = list(dict.fromkeys((one.document_id, one.text_hash) for one in task.passages))
        if erased_among(connection, [document for document, _ in documents]):
            continue
        line = {} if isinstance(draft, str) else draft.line(recipe)
        content = {} if isinstance(draft, str) else {"line": line, "checked_by": draft.checked_by()}
        failed = isinstance(draft, str)
        added += connection.execute(
            """INSERT INTO question_draft (dataset, question_id, question, type, generator, generator_fingerprint,
                   chunker_fingerprint, document_ids, text_hashes, scores, state, reason, decided_by, decided_at, run_id,
                   content_hash)
               VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, CASE WHEN %s THEN now() END, %s, %s)
               ON CONFLICT (dataset, content_hash) DO NOTHING""",
            (
                dataset, line.get("id", ""), Jsonb(content), task.kind, task.generator, recipe, chunker,
                [document for document, _ in documents], [digest for _, digest in documents],
                Jsonb({"filter": "form"} if failed else {}), "rejected" if failed else "generated",
                draft if failed else None, f"{FILTER}form" if failed else None, failed, run_id, task.key(writer),
            ),
        ).rowcount  # fmt: skip
    return added


_COLUMNS: LiteralString = """draft_id, question_id, question -> 'line', question -> 'checked_by', type, generator,
    generator_fingerprint, document_ids, text_hashes, scores, state, reason, decided_by, decided_at"""


def read(
    connection: Connection,
    dataset: str,
    *,
    states: Sequence[State] | None = None,
    recipe: str | None = None,
    kind: str | None = None,
    ids: Sequence[int] | None = None,
    lock: bool = False,
) -> list[StoredDraft]:
    """Drafts of a dataset in the order they were made."""
    query: LiteralString = (
        f"SELECT {_COLUMNS} FROM question_draft"
        """ WHERE dataset = %(dataset)s AND (%(states)s::text[] IS NULL OR state = ANY(%(states)s))
              AND (%(recipe)s::text IS NULL OR generator_fingerprint = %(recipe)s)
              AND (%(kind)s::text IS NULL OR type = %(kind)s)
              AND (%(ids)s::bigint[] IS NULL OR draft_id = ANY(%(ids)s)) ORDER BY draft_id"""
    ) + (" FOR UPDATE" if lock else "")
    rows = connection.execute(
        query,
        {
            "dataset": dataset, "states": None if states is None else list(states), "recipe": recipe, "kind": kind,
            "ids": None if ids is None else list(ids),
        },
    ).fetchall()  # fmt: skip
    return [
        StoredDraft(
            draft_id, question_id, line or {}, checked_by or {}, own, generator, made_by, tuple(documents),
            tuple(bytes(one) for one in hashes), scores, state, reason, decided_by, decided_at,
        )
        for (
            draft_id, question_id, line, checked_by, own, generator, made_by, documents, hashes, scores, state, reason,
            decided_by, decided_at,
        ) in rows
    ]  # fmt: skip


def judged(
    connection: Connection,
    draft_id: int,
    *,
    failed: str | None,
    reason: str | None,
    scores: dict[str, Any],
    queued: bool = False,
) -> None:
    """Write what the filters said of a draft; a person's decision is never overwritten."""
    state = "rejected" if failed else "queued" if queued else "filtered"
    by = f"{FILTER}{failed}" if failed else None
    connection.execute(
        """UPDATE question_draft SET state = %s, reason = %s, decided_by = %s, scores = scores || %s,
               decided_at = CASE WHEN %s THEN now() END
           WHERE draft_id = %s AND state = ANY(%s)""",
        (state, reason, by, Jsonb(scores), failed is not None, draft_id, list(PENDING)),
    )


def delivered(connection: Connection, dataset: str, recipe: str) -> dict[str, int]:
    """How many drafts of a recipe passed the filters, by kind, whatever people said of them."""
    rows = connection.execute(
        """SELECT type, count(*) FROM question_draft WHERE dataset = %s AND generator_fingerprint = %s
               AND (state IN ('filtered', 'queued', 'accepted', 'edited')
                    OR state = 'rejected' AND NOT starts_with(decided_by, 'filter:')) GROUP BY type""",
        (dataset, recipe),
    ).fetchall()
    return dict(rows)


def counts(connection: Connection, dataset: str) -> list[tuple[str, str, str, str, str, int]]:
    """(kind, generator, recipe, state, who or which filter decided, rows)."""
    return connection.execute(
        """SELECT type, generator, generator_fingerprint, state,
                  CASE WHEN starts_with(decided_by, 'filter:') THEN decided_by WHEN decided_by IS NULL THEN '' ELSE 'person' END,
                  count(*)
           FROM question_draft WHERE dataset = %s GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5""",
        (dataset,),
    ).fetchall()
