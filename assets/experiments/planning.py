"""The plan of a run: every trial with its key, before any is run.

Belongs here: what makes two trials the same. Does not belong here: searching (retrievals.py), running what is missing
(trials.py).

A trial is known by everything that can change its answer or its scores: the variant, what the question retrieves
(texts, ranges, titles and ranks; not the number of the snapshot it was read from), the question with its gold spans,
and the version of this code. What a question retrieves decides the key and is itself remembered by snapshot
(retrievals.py); a new snapshot is searched again, but one that does not change what a question retrieves repeats nothing.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from assets.evaluation.dataset import Question
from assets.experiments.retrievals import Searcher, retrieve
from assets.experiments.scope import Scope
from resources.fingerprint import fingerprint
from resources.postgres import Database, Lease
from resources.variants import Variant
from resources.vector_index import SearchHit, SearchResult

#: Raised when a trial is run or recorded in another way; every trial is then made again.
CODE_VERSION = "1"


#: Parts of a hit that many hits have alike.
_SHARED = ("text", "title", "path", "source", "chunk_hash", "text_hash", "chunker", "language", "heading_path")


@dataclass(frozen=True, slots=True)
class Trial:
    """One variant on one question, with what was retrieved for it.

    Attributes:
        prompt_key: hash of all that can change the answer: trials that share it are asked once.
        hits_key: hash of all of what was retrieved that a prompt or a metric can see.
    """

    fingerprint: str
    variant: Variant
    question: Question
    result: SearchResult
    prompt_key: str = field(repr=False)
    hits_key: str = field(default="", repr=False)


@dataclass(frozen=True)
class Plan:
    """All trials of a run, variant by variant in the order of the questions.

    Attributes:
        searches: questions that were searched for; the others found their retrieval on record.
        remembered: retrievals that were on record.
    """

    trials: tuple[Trial, ...]
    searches: int
    seconds: float
    remembered: int = 0


def plan_trials(
    database: Database, searcher: Searcher, variants: Sequence[Variant], scope: Scope, *, run_id: str, lease: Lease
) -> Plan:
    """Retrieve for every (index, search mode, k, retrieval steps) and question, and derive the key of every trial.

    Retrieval is shared by the variants that are equal in these, and by nothing else: the first k of a longer result
    need not be the result for k, because fusion and the graph search depend on it. A question whose retrieval failed
    (a model of a step did not answer) stays in the plan and becomes a failed trial.
    """
    began = time.monotonic()
    questions = [question.question for question in scope.questions]
    settings = {_setting(variant): variant for variant in variants}
    found = {
        setting: retrieve(
            database, searcher, variant, questions, scope.snapshots.get(variant.index, 0), run_id=run_id, lease=lease
        )
        for setting, variant in settings.items()
    }
    trials = derive(database, variants, scope, {setting: one.results for setting, one in found.items()})
    searched = sum(one.searched for one in found.values())
    wanted = sum(variant.task is None for variant in settings.values()) * len(questions)
    return Plan(trials, searched, time.monotonic() - began, wanted - searched)


def derive(
    database: Database, variants: Sequence[Variant], scope: Scope, results: Mapping[str, Sequence[SearchResult]]
) -> tuple[Trial, ...]:
    """The trials of variants, in their order, on what each question retrieved.

    Args:
        results: {``Variant.searching``: one result for each question of the scope}.
    """
    _share_texts(results)
    texts = _text_hashes(database, {hit.version_id for ones in results.values() for one in ones for hit in one.hits})
    keys = {setting: [_hits_key(one.hits, texts) for one in ones] for setting, ones in results.items()}
    trials = []
    for variant in variants:
        setting = _setting(variant)
        for question, result, hits in zip(scope.questions, results[setting], keys[setting], strict=True):
            trials.append(
                Trial(
                    fingerprint=fingerprint(
                        {
                            "code": CODE_VERSION,
                            "variant": variant.fingerprint,
                            "retrieved": hits,
                            **({"failed": error} if (error := getattr(result, "error", None)) else {}),
                            "dataset": scope.dataset,
                            "question_id": question.question_id,
                            "question": question.fingerprint,
                            "gold": [[span.document_id, span.start, span.end] for span in question.gold],
                        }
                    ),
                    variant=variant,
                    question=question,
                    result=result,
                    prompt_key=fingerprint([variant.answering, question.question, hits]),
                    hits_key=hits,
                )
            )
    return tuple(trials)


def _share_texts(results: Mapping[str, Sequence[SearchResult]]) -> None:
    """Let equal texts of hits be one object: several settings find the same chunks, and a plan holds all of them."""
    pool: dict[Any, Any] = {}
    for result in (one for ones in results.values() for one in ones):
        for hit in result.hits:
            for name in _SHARED:
                value = getattr(hit, name)
                object.__setattr__(hit, name, pool.setdefault(value, value))  # an equal value: the hit stays what it is


def _setting(variant: Variant) -> str:
    """What decides what a variant retrieves."""
    return variant.searching


def _text_hashes(database: Database, versions: set[int]) -> dict[int, str]:
    with database.connect() as connection:
        rows = connection.execute(
            "SELECT version_id, text_hash FROM document_version WHERE version_id = ANY(%s)", (sorted(versions),)
        ).fetchall()
    return {version: text.hex() for version, text in rows}


def _hits_key(hits: Sequence[SearchHit], texts: Mapping[int, str]) -> str:
    """Hash of all of a result that a prompt or a metric can see; scores and snapshot numbers are not among it."""
    return fingerprint(
        [
            [
                hit.document_id,
                texts[hit.version_id],
                hit.start,
                hit.end,
                *([[hit.read_start, hit.read_end]] if hit.read_start is not None else []),
                hit.source,
                hit.path,
                hit.title,
                *hit.heading_path,
            ]
            for hit in sorted(hits, key=lambda hit: hit.rank)
        ]
    )
