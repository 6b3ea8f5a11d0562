"""Records of trials: what is on record about one, and how metrics see it.

Belongs here: reading table ``trial``. Does not belong here: writing it (trials.py), scoring (scores.py).
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from assets.evaluation.dataset import Question
from assets.evaluation.metrics.base import TrialRecord
from assets.experiments.planning import Plan, Trial
from assets.experiments.retrievals import read_range
from resources.answerer import Citation, strip_citations
from resources.errors import PermanentError
from resources.postgres import Connection, Database
from resources.vector_index import SearchHit


@dataclass(frozen=True, slots=True)
class TrialOutcome:
    """What is on record about a trial, beside its question and what it retrieved (see ``Trial``).

    Attributes:
        usage: {requests, input_tokens, output_tokens, cost, currency} of the call that produced the answer, also when
            the memo had it; empty for a failed trial.
        supplied: of the hits what the prompt held, as (number of the hit from 1, start, end in its document); None when
            it held all that was found.
        given_up: failed so often that no run tries it again (``trials.MAXIMUM_ATTEMPTS``).
        latency: seconds from question to answer: retrieval, and the model call that was really made once.
    """

    status: str
    error: str | None
    tries: int
    answer: str
    refused: bool
    citations: tuple[Citation, ...]
    usage: Mapping[str, Any]
    latency: float | None
    generation: str | None
    supplied: tuple[tuple[int, int, int], ...] | None = None
    given_up: bool = False

    @property
    def state(self) -> str:
        """``ok``, ``failed`` or ``given up``."""
        return "given up" if self.given_up else self.status

    @property
    def failed(self) -> bool:
        """Whether the trial ended without an answer."""
        return self.status == "failed"


def read_outcomes(database: Database, plan: Plan) -> dict[str, TrialOutcome]:
    """The records of the plan's trials by fingerprint; a trial that was never run is missing."""
    with database.connect() as connection:
        rows = connection.execute(
            """SELECT fingerprint, status, error, tries, answer, refused, citations, usage,
                      retrieval_latency + generation_latency, generation, supplied -> 'passages',
                      given_up_at IS NOT NULL
               FROM trial WHERE fingerprint = ANY(%s)""",
            (sorted({trial.fingerprint for trial in plan.trials}),),
        ).fetchall()
    pool: dict[Any, Any] = {}  # variants answer alike and cite the same: what is equal is held once

    def shared(value: Any) -> Any:
        return pool.setdefault(value, value)

    return {
        shared(key): TrialOutcome(
            status=shared(status),
            error=shared(error),
            tries=tries,
            answer=shared(answer or ""),
            refused=bool(refused),
            citations=shared(tuple(shared(Citation(**citation)) for citation in citations)),
            usage=pool.setdefault(("usage", *usage.items()), usage),  # apart from other things that are empty
            latency=latency,
            generation=shared(generation),
            supplied=shared(supplied_ranges(passages)),
            given_up=given_up,
        )
        for key, status, error, tries, answer, refused, citations, usage, latency, generation, passages, given_up in rows
    }


def supplied_ranges(passages: Sequence[Sequence[int]] | None) -> tuple[tuple[int, int, int], ...] | None:
    """``TrialOutcome.supplied`` from the column of that name."""
    return None if passages is None else tuple((number, start, end) for number, start, end in passages)


def to_record(trial: Trial, outcome: TrialOutcome) -> TrialRecord:
    """The trial as metrics see it."""
    return record_of(trial.question, trial.result.hits, outcome)


def record_of(question: Question, hits: Sequence[SearchHit], outcome: TrialOutcome) -> TrialRecord:
    """A trial as metrics see it, from what is on record about it."""
    return TrialRecord(
        question_id=question.question_id,
        question=question.question,
        answerable=question.answerable,
        reference=question.answer,
        references=question.references,
        gold=question.gold,
        hits=tuple(_as_read(hit) for hit in hits),
        answer=strip_citations(outcome.answer) if question.task is None else outcome.answer,
        refused=outcome.refused,
        citations=outcome.citations,
        failed=outcome.failed,
        supplied=None if outcome.supplied is None else _supplied(hits, outcome.supplied),
        task="rag" if question.task is None else question.task.kind,
        labels=() if question.task is None else question.task.labels,
        fields=() if question.task is None else question.task.fields,
    )


def _supplied(hits: Sequence[SearchHit], ranges: Sequence[tuple[int, int, int]]) -> tuple[SearchHit, ...]:
    """The hits as the prompt held them, with the text that was left of each."""
    by_number: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for number, start, end in ranges:
        by_number[number].append((start, end))
    found = []
    for number, parts in by_number.items():
        hit = hits[number - 1]
        base, _ = read_range(hit)
        text = " ".join(hit.text[start - base : end - base] for start, end in parts)
        found.append(replace(hit, start=parts[0][0], end=parts[-1][1], text=text))
    return tuple(found)


def _as_read(hit: SearchHit) -> SearchHit:
    """The hit with the range of what was read of it, as metrics judge it; a citation keeps the chunk's own."""
    start, end = read_range(hit)
    return hit if (start, end) == (hit.start, hit.end) else replace(hit, start=start, end=end)


# --- all there is about one trial ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class FullRecord:
    """Everything on record about a trial, as it was made; JSON-able.

    Attributes:
        state: ``ok``, ``failed`` or ``given up``; ``tries`` over all runs, ``attempts`` since it was last asked to be retried.
        question: text, reference answers, gold evidence and tags, of the version of the dataset it was asked from; without
            the words when that version is no longer kept.
        retrieved: the hits in their order, with document version, range, text, ranks and scores.
        supplied: what of them the prompt held: number of the hit, range and text, in the order of the prompt.
        retrieval: the steps between question and hits.
        calls: the model calls, steps of a chain first, the answer's last: rendered messages, what was said, usage, seconds.
        claims: verdicts by metric: each part that was judged with its words, and the numbers of the passages for it.
        scores: by metric, with the fingerprint of its definition.
        usage: of all calls that the answer rests on; ``latency`` in seconds.
        seeds: what chance was fixed by: the model's, and that of the statistics of the results it is in.
        versions: of code, prompt, index and snapshot, dataset, model and its parameters, metrics.
        results: ids of the results that rest on it.
    """

    trial: str
    experiment: str
    variant: dict[str, Any]
    state: str
    error: str | None
    tries: int
    attempts: int
    given_up_at: str | None
    created_at: str
    run_id: str
    question: dict[str, Any]
    retrieved: list[dict[str, Any]]
    supplied: list[dict[str, Any]]
    retrieval: dict[str, Any]
    calls: list[dict[str, Any]]
    answer: str | None
    refused: bool | None
    citations: list[dict[str, Any]]
    claims: dict[str, dict[str, Any]]
    scores: dict[str, dict[str, Any]]
    usage: dict[str, Any]
    latency: dict[str, float | None]
    seeds: dict[str, Any]
    versions: dict[str, Any]
    results: list[int]

    def to_json(self) -> dict[str, Any]:
        """The fields as a JSON object."""
        return asdict(self)


def find_trials(connection: Connection, experiment: str, question: str, variant: str | None = None) -> dict[str, str]:
    """The newest trial of each variant of an experiment on a question: {name of the variant: trial}.

    Raises:
        PermanentError: there is none; the message names what there is.
    """
    rows = connection.execute(
        """SELECT DISTINCT ON (v.name) v.name, t.fingerprint FROM trial t JOIN variant v ON v.fingerprint = t.variant
           WHERE t.experiment = %s AND t.question_id = %s ORDER BY v.name, t.created_at DESC, t.fingerprint""",
        (experiment, question),
    ).fetchall()
    found = dict(rows)
    if not found:
        known = connection.execute(
            "SELECT count(DISTINCT question_id), min(question_id) FROM trial WHERE experiment = %s", (experiment,)
        ).fetchone()
        assert known is not None
        hint = f"it has trials on {known[0]} questions, such as {known[1]!r}" if known[0] else "it has none at all"
        raise PermanentError(f"experiment {experiment} has no trial on question {question!r}; {hint}")
    if variant is not None and variant not in found:
        raise PermanentError(
            f"{variant} has no trial on question {question!r} of {experiment}; variants that have: {', '.join(found)}"
        )
    return found if variant is None else {variant: found[variant]}


def full_record(connection: Connection, trial: str) -> FullRecord:
    """Everything on record about a trial.

    Raises:
        PermanentError: there is no such trial.
    """
    row = connection.execute(
        """SELECT t.experiment, t.status, t.error, t.tries, t.attempts, t.given_up_at::text, t.created_at::text, t.run_id,
                  t.dataset, t.dataset_version, t.question_id, t.retrieved, t.supplied, t.retrieval, t.steps, t.generation,
                  t.answer, t.refused, t.citations, t.usage, t.retrieval_latency, t.generation_latency, t.versions,
                  t.index_name, t.snapshot, v.fingerprint, v.name, v.config
           FROM trial t JOIN variant v ON v.fingerprint = t.variant WHERE t.fingerprint = %s""",
        (trial,),
    ).fetchone()
    if row is None:
        raise PermanentError(f"there is no trial {trial}")
    (
        experiment, status, error, tries, attempts, given_up_at, created_at, run_id, dataset, dataset_version, question_id,
        retrieved, supplied, retrieval, steps, generation, answer, refused, citations, usage, retrieval_latency,
        generation_latency, versions, index_name, snapshot, variant, name, config,
    ) = row  # fmt: skip
    question = _question(connection, dataset, dataset_version, question_id)
    versions = dict(versions or {})
    scores = {
        metric: {"value": value, "fingerprint": key}
        for metric, value, key in connection.execute(
            "SELECT metric, value, fingerprint FROM trial_score WHERE trial = %s ORDER BY metric", (trial,)
        ).fetchall()
    }
    results = connection.execute(
        """SELECT result_id, leaderboard -> 'seed' FROM result_trial JOIN experiment_result USING (result_id)
           WHERE trial = %s ORDER BY result_id""",
        (trial,),
    ).fetchall()
    calls = _calls(connection, [*(steps or ()), *([generation] if generation else [])])
    parameters = versions.get("model", {}).get("parameters", {})
    return FullRecord(
        trial=trial,
        experiment=experiment,
        variant={"name": name, "fingerprint": variant, "config": config},
        state="given up" if given_up_at else status,
        error=error,
        tries=tries,
        attempts=attempts,
        given_up_at=given_up_at,
        created_at=created_at,
        run_id=run_id,
        question=question,
        retrieved=retrieved,
        supplied=_shown(retrieved, supplied),
        retrieval=retrieval,
        calls=calls,
        answer=answer,
        refused=refused,
        citations=citations,
        claims=_claims(connection, trial, strip_citations(answer or ""), question.get("answer") or "", retrieved),
        scores=scores,
        usage=usage,
        latency={"retrieval": retrieval_latency, "generation": generation_latency},
        seeds={
            "model": parameters.get("seed"),
            "statistics": sorted({seed for _, seed in results if seed is not None}),
        },
        versions={
            **versions,
            "prompt": _prompt_version(connection, config["prompt"]["name"], versions.get("prompt")),
            "dataset": {"name": dataset, "version": dataset_version},
            "index": {"name": index_name, "fingerprint": versions.get("index"), "snapshot": snapshot},
            "metrics": {metric: one["fingerprint"] for metric, one in scores.items()},
            "reported_model": calls[-1]["model"] if calls else None,
        },
        results=[result for result, _ in results],
    )


def _question(connection: Connection, dataset: str, version: int, question_id: str) -> dict[str, Any]:
    place = {"id": question_id, "dataset": dataset, "dataset_version": version}
    row = connection.execute(
        """SELECT question, answer, answers, coalesce(answerable, answer IS NOT NULL), split, tags, fingerprint
           FROM evaluation_question WHERE (dataset, version, question_id) = (%s, %s, %s)""",
        (dataset, version, question_id),
    ).fetchone()
    if row is None:
        return {**place, "text": None}
    names = ("text", "answer", "answers", "answerable", "split", "tags", "fingerprint")
    gold = connection.execute(
        """SELECT document_id, start_char, end_char, quote, kind, grade, stance FROM evaluation_evidence
           WHERE (dataset, version, question_id) = (%s, %s, %s) ORDER BY ordinal""",
        (dataset, version, question_id),
    ).fetchall()
    spans = ("document_id", "start", "end", "quote", "kind", "grade", "stance")
    return {**place, **dict(zip(names, row, strict=True)), "gold": [dict(zip(spans, one, strict=True)) for one in gold]}


def _calls(connection: Connection, keys: Sequence[str]) -> list[dict[str, Any]]:
    """The model calls in their order; one that is no longer kept has only its key."""
    rows = connection.execute(
        "SELECT fingerprint, model, messages, text, usage, latency, created_at::text FROM generation WHERE fingerprint = ANY(%s)",
        (list(keys),),
    ).fetchall()
    names = ("model", "messages", "text", "usage", "latency", "created_at")
    found = {key: dict(zip(names, values, strict=True)) for key, *values in rows}
    return [{"generation": key, **found.get(key, {"model": None})} for key in keys]


def _shown(retrieved: Sequence[Mapping[str, Any]], supplied: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """What of the hits the prompt held, with its words; all of them when nothing was left out."""
    hits = [SearchHit.from_json(dict(hit)) for hit in retrieved]
    passages = (supplied or {}).get("passages")
    if passages is None:
        ranges = [(number, *read_range(hit)) for number, hit in enumerate(hits, 1)]
    else:
        order = {number: place for place, number in enumerate((supplied or {}).get("order", ()))}
        ranges = sorted(map(tuple, passages), key=lambda one: (order.get(one[0], len(order)), one[1]))
    shown = []
    for number, start, end in ranges:
        base, _ = read_range(hits[number - 1])
        text = hits[number - 1].text[start - base : end - base]
        shown.append({"number": number, "start": start, "end": end, "text": text})
    return shown


def _claims(
    connection: Connection, trial: str, answer: str, reference: str, retrieved: Sequence[Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """The verdicts with the words they are about, which are read from the answer, the reference and the hits."""
    rows = connection.execute(
        "SELECT metric, fingerprint, verdicts, error, attempts FROM trial_verdict WHERE trial = %s ORDER BY metric",
        (trial,),
    ).fetchall()
    words = {"claim": answer, "reference": reference}
    found: dict[str, dict[str, Any]] = {}
    for metric, key, verdicts, error, attempts in rows:
        items = []
        for item in verdicts.get("items", ()):
            text = words.get(item["of"])
            said = None if text is None or item.get("start") is None else text[item["start"] : item["end"]]
            items.append({**item, "words": said})
        found[metric] = {
            **verdicts,
            "items": items,
            "fingerprint": key,
            **({"error": error, "attempts": attempts} if error else {}),
        }
    return found


def _prompt_version(connection: Connection, name: str, key: str | None) -> dict[str, Any]:
    row = connection.execute(
        "SELECT version FROM prompt_version WHERE name = %s AND fingerprint = %s", (name, key)
    ).fetchone()
    return {"name": name, "fingerprint": key, "version": row[0] if row else None}
