"""Held-back questions: how often they have already judged a choice.

Belongs here: recording a use of the test split, and counting uses. Does not belong here: deciding by them
(assets/experiments).

Each look at held-back questions makes them a little less held back. A use is counted by the questions it saw, not by the
name of the dataset: a question is known by its words and accepted answers, so it stays the same through edits of the
documents and of other questions. Of a use that saw half of the questions half is counted, and the sum is rounded up, so
that renewing some questions does not make all of them fresh, and renewing all of them does.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from assets.evaluation.dataset import Question
from resources.fingerprint import fingerprint
from resources.postgres import Connection

Purpose = Literal["confirmation", "export"]


@dataclass(frozen=True)
class HoldoutUse:
    """One use on record.

    Attributes:
        questions: how many it saw.
        champion, challenger: fingerprints of the variants that were compared; empty for an export.
    """

    dataset: str
    purpose: str
    questions: int
    experiment: str
    champion: str
    challenger: str
    used_at: datetime


def question_hash(question: str, references: Iterable[str]) -> str:
    """What a held-back question is known by."""
    return fingerprint([question, sorted(references)])


def hashes_of(questions: Sequence[Question]) -> list[str]:
    """The hashes of some questions, sorted."""
    return sorted({question_hash(item.question, item.references) for item in questions})


def record_use(
    connection: Connection,
    dataset: str,
    questions: Sequence[Question],
    *,
    experiment: str,
    champion: str,
    challenger: str,
    purpose: Purpose = "confirmation",
    run_id: str,
) -> int:
    """Record that these questions judge a choice, and return their uses so far, this one included.

    The same choice on the same questions is one use, however often it is repeated.

    Args:
        champion, challenger: fingerprints of the variants that are compared.
    """
    hashes = hashes_of(questions)
    connection.execute(
        """INSERT INTO holdout_use (dataset, questions, questions_hash, purpose, experiment, champion, challenger, run_id)
           VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING""",
        (dataset, hashes, fingerprint(hashes), purpose, experiment, champion, challenger, run_id),
    )
    return count_uses(connection, dataset, questions)


def count_uses(connection: Connection, dataset: str, questions: Sequence[Question]) -> int:
    """How many different choices these questions have judged, on any dataset that held them; rounded up.

    Confirmations of results that are older than this record are counted by the name of the dataset.
    """
    hashes = hashes_of(questions)
    if not hashes:
        return 0
    seen = connection.execute(
        """SELECT coalesce(sum(shared), 0) FROM (
               SELECT max(cardinality(ARRAY(SELECT unnest(questions) INTERSECT SELECT unnest(%s::text[])))) AS shared
               FROM holdout_use WHERE purpose = 'confirmation' AND questions && %s::text[]
               GROUP BY champion, challenger) choices""",
        (hashes, hashes),
    ).fetchone()
    older = connection.execute(
        """SELECT count(DISTINCT (recommendation->'confirmation'->>'champion', recommendation->'confirmation'->>'recommended'))
           FROM experiment_result result
           WHERE recommendation->'confirmation'->>'dataset' = %s AND NOT EXISTS (
               SELECT FROM holdout_use WHERE purpose = 'confirmation'
                   AND champion = recommendation->'confirmation'->>'champion'
                   AND challenger = recommendation->'confirmation'->>'recommended')""",
        (dataset,),
    ).fetchone()
    assert seen is not None
    assert older is not None
    return -(-int(seen[0]) // len(hashes)) + int(older[0])


def list_uses(connection: Connection, dataset: str) -> list[HoldoutUse]:
    """Every use on record under the name of a dataset, newest first."""
    rows = connection.execute(
        """SELECT dataset, purpose, cardinality(questions), experiment, champion, challenger, used_at FROM holdout_use
           WHERE dataset = %s ORDER BY use_id DESC""",
        (dataset,),
    ).fetchall()
    return [HoldoutUse(*row) for row in rows]
