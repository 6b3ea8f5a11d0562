"""Verdicts: what a score of an answer rests on, claim by claim.

Belongs here: the one reader and writer of table ``trial_verdict``, and the form of its JSON, which holds places and no words.
Does not belong here: making verdicts (assets/evaluation), the scores themselves (scores.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg.types.json import Jsonb

from assets.evaluation.judging.claims import located_claims
from assets.evaluation.judging.judges import Judgement
from assets.evaluation.metrics.grounding import ENTAILED, Assessed
from resources.postgres import Connection

#: The estimator whose verdicts are kept beside those of judges.
OFFLINE = "genaiops.groundedness_lexical/2"
_SINGULAR = {"claims": "claim", "passages": "passage", "reference": "reference", "intents": "intent"}

Verdicts = dict[str, Any]


@dataclass(frozen=True)
class TrialVerdicts:
    """A row of ``trial_verdict``.

    Attributes:
        verdicts: ``items``: for each part that was judged ``of`` (claim, reference, passage or intent), ``start`` and ``end``
            (characters of the answer without its citation marks, or of the reference; None for other parts),
            ``verdict``, ``passages`` (numbers of the hits, as an answer cites them); ``spread``, ``unsteady``, ``swap``
            (see ``measures.Vote``) and ``calls``. Empty when the judge gave no usable answer.
        error: class of the judge's error.
    """

    trial: str
    metric: str
    fingerprint: str
    verdicts: Verdicts
    generations: tuple[str, ...] = ()
    error: str | None = None


def passage_numbers(supplied: Sequence[tuple[int, int, int]] | None, parts: int) -> list[int]:
    """The number an answer cites each of the ``parts`` judged passages by.

    Args:
        supplied: see ``TrialOutcome.supplied``.
    """
    read = list(dict.fromkeys(number for number, _, _ in supplied or ()))
    return read if supplied is not None and len(read) == parts else [*range(1, parts + 1)]


def of_judgement(said: Judgement, numbers: Sequence[int]) -> Verdicts:
    """A judge's verdicts as they are stored; ``numbers`` of the passages it was shown."""
    if said.sheet is None:
        return {}
    places = {"claims": said.sheet.claims, "reference": said.sheet.reference}
    items = []
    for item in said.items:
        place = places[item.of][item.number - 1] if item.of in places else None
        own = [item.number] if item.of == "passages" else item.passages
        items.append(
            {
                "of": _SINGULAR[item.of],
                "start": place and place.start,
                "end": place and place.end,
                "verdict": item.verdict,
                "passages": [numbers[number - 1] for number in own],
            }
        )
    return {
        "items": items,
        "spread": round(said.spread, 6),
        "unsteady": round(said.unsteady, 6),
        "swap": None if said.swapped is None else round(said.swapped, 6),
        "calls": len(said.generations),
    }


def of_assessed(answer: str, assessed: Sequence[Assessed], numbers: Sequence[int]) -> Verdicts:
    """The offline estimator's verdicts as they are stored; it does not tell contradicted from unsupported."""
    claims = located_claims(answer)
    located = claims if len(claims) == len(assessed) else [None] * len(assessed)
    items = []
    for claim, one in zip(located, assessed, strict=True):
        items.append(
            {
                "of": "claim",
                "start": claim and claim.start,
                "end": claim and claim.end,
                "verdict": "entailed" if one.probability >= ENTAILED else "unsupported",
                "passages": [numbers[place] for place, value in enumerate(one.entailed) if value >= ENTAILED],
                "score": round(one.probability, 4),
            }
        )
    return {"items": items, "spread": 0.0, "unsteady": 0.0, "swap": None, "calls": 0}


def write(connection: Connection, rows: Sequence[TrialVerdicts], run_id: str) -> None:
    """Add verdicts, replacing earlier ones; of a trial that was erased meanwhile none is kept.

    Failures of the same judge on the same trial are counted, those of one run once.
    """
    with connection.cursor() as cursor:
        cursor.executemany(
            """INSERT INTO trial_verdict AS known (trial, metric, fingerprint, verdicts, generations, error, run_id)
               SELECT fingerprint, %s, %s, %s, %s, %s, %s FROM trial WHERE fingerprint = %s
               ON CONFLICT (trial, metric) DO UPDATE SET
                   fingerprint = EXCLUDED.fingerprint, verdicts = EXCLUDED.verdicts, generations = EXCLUDED.generations,
                   error = EXCLUDED.error, run_id = EXCLUDED.run_id,
                   attempts = CASE WHEN known.fingerprint = EXCLUDED.fingerprint AND known.error IS NOT NULL
                                   THEN known.attempts + (known.run_id <> EXCLUDED.run_id)::integer ELSE 1 END""",
            [
                (
                    row.metric, row.fingerprint, Jsonb(row.verdicts), Jsonb(list(row.generations)), row.error, run_id,
                    row.trial,
                )
                for row in sorted(rows, key=lambda row: (row.trial, row.metric))
            ],
        )  # fmt: skip


def link(
    connection: Connection, calls: Mapping[str, Sequence[str]], metric: str, fingerprint: str, run_id: str
) -> None:
    """Note which remembered calls hold what trials answered, beside those noted before, so that they go together."""
    with connection.cursor() as cursor:
        cursor.executemany(
            """INSERT INTO trial_verdict AS known (trial, metric, fingerprint, generations, run_id)
               SELECT fingerprint, %s, %s, %s, %s FROM trial WHERE fingerprint = %s
               ON CONFLICT (trial, metric) DO UPDATE SET
                   fingerprint = EXCLUDED.fingerprint, run_id = EXCLUDED.run_id,
                   generations = (SELECT coalesce(jsonb_agg(DISTINCT call), '[]')
                                  FROM jsonb_array_elements(known.generations || EXCLUDED.generations) call)""",
            [(metric, fingerprint, Jsonb(list(made)), run_id, trial) for trial, made in sorted(calls.items()) if made],
        )


def read(connection: Connection, trials: Sequence[str], metric: str, fingerprint: str) -> dict[str, Verdicts]:
    """The verdicts of trials under one fingerprint; those of a judge that failed are left out."""
    rows = connection.execute(
        """SELECT trial, verdicts FROM trial_verdict
           WHERE metric = %s AND fingerprint = %s AND error IS NULL AND trial = ANY(%s)""",
        (metric, fingerprint, list(trials)),
    ).fetchall()
    return dict(rows)


def present(connection: Connection, trials: Sequence[str], metric: str, fingerprint: str) -> set[str]:
    """The trials that have verdicts under a fingerprint."""
    rows = connection.execute(
        """SELECT trial FROM trial_verdict
           WHERE metric = %s AND fingerprint = %s AND error IS NULL AND trial = ANY(%s)""",
        (metric, fingerprint, list(trials)),
    ).fetchall()
    return {row[0] for row in rows}


def in_vain(
    connection: Connection, trials: Sequence[str], metric: str, fingerprint: str
) -> dict[str, tuple[int, str, str]]:
    """Of each trial a judge failed on: in how many runs, the newest of them, and the class of its error."""
    rows = connection.execute(
        """SELECT trial, attempts, run_id, error FROM trial_verdict
           WHERE metric = %s AND fingerprint = %s AND error IS NOT NULL AND trial = ANY(%s)""",
        (metric, fingerprint, list(trials)),
    ).fetchall()
    return {trial: (attempts, run, error) for trial, attempts, run, error in rows}


def try_again(connection: Connection, judge: str | None = None) -> int:
    """Forget on which trials a judge (or any) failed, so that it is asked again; returns their number."""
    gone = connection.execute(
        """DELETE FROM trial_verdict WHERE error IS NOT NULL AND (%(metric)s::text IS NULL OR metric = %(metric)s)
           RETURNING trial""",
        {"metric": judge and f"judge.{judge}/1"},
    ).fetchall()
    connection.execute(  # what was found without these verdicts no longer stands
        """UPDATE experiment_result SET inputs = NULL
           WHERE result_id IN (SELECT result_id FROM result_trial WHERE trial = ANY(%s))""",
        ([trial for (trial,) in gone],),
    )
    return len(gone)
