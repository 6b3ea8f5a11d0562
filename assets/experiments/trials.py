"""Trials: one variant on one question, run once and remembered.

Belongs here: which questions are asked on which snapshots, running what is missing, and the records of it.
Does not belong here: scoring (scores.py), the memo of model calls (resources/answerer.py), judging (statistics.py).

A trial is known by everything that can change its answer or its scores: the variant, what the question retrieves
(texts, ranges, titles and ranks; not the number of the snapshot it was read from), the question with its gold spans,
and the version of this code. What a question retrieves decides the key and is itself remembered by snapshot
(retrievals.py); a new snapshot is searched again, but one that does not change what a question retrieves repeats nothing.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol

from psycopg.types.json import Jsonb

from assets.evaluation.dataset import Question, read_dataset
from assets.evaluation.metrics.base import TrialRecord
from assets.experiments.retrievals import Searcher, read_range, retrieve
from resources.answerer import Answer, Citation, Variant, strip_citations
from resources.config import ProjectConfig
from resources.errors import BudgetExceededError, PermanentError, TransientError
from resources.experiment_config import ExperimentConfig
from resources.faults import crash_point
from resources.fingerprint import fingerprint
from resources.postgres import Connection, Database, Lease
from resources.vector_index import SearchHit, SearchResult

CODE_VERSION = "1"
#: How often a trial is tried in one run when the model's trouble may pass; the next run tries again.
MAXIMUM_TRIES = 3
#: Finished trials are committed this often, in transactions of at most so many. Their answers are already safe in the
#: memo of model calls, so that a kill loses no paid call, and of the trials only those in flight and the last few.
COMMIT_SECONDS, COMMIT_SIZE = 0.2, 50

Progress = Callable[[int, int], None]


class Generator(Protocol):
    """What trials need of resources.answerer.Answerer."""

    def generate(self, variant: Variant, question: str, result: SearchResult, *, run_id: str) -> Answer:
        """Answer from what was retrieved."""
        ...


# --- what is compared ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scope:
    """The questions and snapshots every variant of one run is measured on.

    Attributes:
        questions: active questions of the split whose gold spans fit the snapshots.
        stale: ids of active questions left out, because a snapshot shows another text of their evidence.
        snapshots: the snapshot of each index, the same for all trials of the run.
    """

    dataset: str
    version: int
    split: str
    questions: tuple[Question, ...]
    stale: tuple[str, ...]
    snapshots: Mapping[str, int]

    @property
    def stale_share(self) -> float:
        """Share of the split's active questions that had to be left out."""
        return len(self.stale) / max(1, len(self.stale) + len(self.questions))


def resolve_scope(
    connection: Connection,
    config: ProjectConfig,
    experiment: ExperimentConfig,
    snapshots: Mapping[str, int],
    *,
    split: str | None = None,
) -> Scope:
    """Choose the questions of an experiment's split that can be scored on the given snapshots.

    A gold span is a range of one text. Where a snapshot shows the evidence document with another text, or no longer
    shows it, the range means nothing there, and the question is left out of all variants, so that they stay paired.
    Evidence in a source that an index does not cover stays in: not finding it is that index's own choice.

    Raises:
        PermanentError: the split is kept for few-shot examples, or the dataset was never built.
    """
    split = split or experiment.split
    if split == "train":
        raise PermanentError(
            f"experiment {experiment.name}: the train split is for few-shot examples and is never scored; set split to dev"
        )
    dataset = read_dataset(connection, experiment.dataset)
    active = dataset.split(split)
    stale: set[str] = set()
    for index, snapshot in sorted(snapshots.items()):
        rows = connection.execute(
            """SELECT DISTINCT evidence.question_id
               FROM evaluation_evidence evidence
               JOIN document USING (document_id)
               LEFT JOIN (SELECT shown.document_id, version.text_hash
                          FROM index_snapshot published
                          JOIN index_document shown ON shown.build_id = published.build_id
                               AND shown.valid_from <= published.snapshot AND shown.valid_to > published.snapshot
                          JOIN document_version version USING (version_id)
                          WHERE published.index_name = %s AND published.snapshot = %s) shown USING (document_id)
               WHERE evidence.dataset = %s AND evidence.version = %s AND document.source = ANY(%s)
                 AND shown.text_hash IS DISTINCT FROM evidence.text_hash""",
            (index, snapshot, dataset.dataset, dataset.version, config.index_sources(index)),
        ).fetchall()
        stale.update(row[0] for row in rows)
    questions = tuple(question for question in active if question.question_id not in stale)
    return Scope(
        dataset=dataset.dataset,
        version=dataset.version,
        split=split,
        questions=questions,
        stale=tuple(sorted(question.question_id for question in active if question.question_id in stale)),
        snapshots=dict(snapshots),
    )


# --- the plan: every trial with its key ------------------------------------------------------------------


@dataclass(frozen=True)
class Trial:
    """One variant on one question, with what was retrieved for it."""

    fingerprint: str
    variant: Variant
    question: Question
    result: SearchResult
    prompt_key: str = field(repr=False)


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
            database, searcher, variant, questions, scope.snapshots[variant.index], run_id=run_id, lease=lease
        )
        for setting, variant in settings.items()
    }
    results = {setting: one.results for setting, one in found.items()}
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
                )
            )
    searched = sum(one.searched for one in found.values())
    return Plan(tuple(trials), searched, time.monotonic() - began, len(settings) * len(questions) - searched)


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


# --- running what is missing ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrialWork:
    """What a run did, in counts of distinct trials.

    Attributes:
        run: trials answered or given up in this run.
        reused: trials already on record.
        failed: trials of this run that ended without an answer.
        generations: model calls that were made and remembered; the other trials found theirs in the memo.
        stopped: why the run ended before every trial was tried, if it did.
    """

    run: int = 0
    reused: int = 0
    failed: int = 0
    generations: int = 0
    stopped: str | None = None

    def __add__(self, other: "TrialWork") -> "TrialWork":
        """Add the counts of two parts of one run."""
        return TrialWork(
            run=self.run + other.run,
            reused=self.reused + other.reused,
            failed=self.failed + other.failed,
            generations=self.generations + other.generations,
            stopped=self.stopped or other.stopped,
        )


def run_trials(
    database: Database,
    generator: Generator,
    config: ProjectConfig,
    experiment: ExperimentConfig,
    scope: Scope,
    plan: Plan,
    *,
    run_id: str,
    lease: Lease,
    progress: Progress = lambda done, total: None,
) -> TrialWork:
    """Run the trials of ``plan`` that have no successful record yet, and commit each as it finishes.

    Trials that render the same prompt for the same model run one after the other, so that the first pays and the
    others find its answer in the memo; different ones run in as many threads as the model's limit allows. A trial
    that fails is tried again while the trouble may pass, then recorded as failed; the next run tries it again. The run
    stops early when the budget refuses the next call, or when more trials failed than the experiment accepts.

    Raises:
        Exception: what is no error of a model (a wrong template, a defect, a lost database), after committing what was
            finished.
    """
    trials = {trial.fingerprint: trial for trial in plan.trials}
    done = _answered(database, list(trials))
    groups: dict[tuple[str, str], list[Trial]] = defaultdict(list)
    for trial in trials.values():
        if trial.fingerprint not in done:
            groups[(trial.variant.model, trial.prompt_key)].append(trial)
    progress(len(done), len(trials))
    if not groups:
        return TrialWork(reused=len(done))
    before = _generations(database, run_id)
    run = _Run(
        database, generator, experiment, scope, run_id, lease, int(experiment.maximum_failed_share * len(trials))
    )
    with ExitStack() as stack:
        pools = {
            model: ThreadPoolExecutor(config.chat_model(model).limits.concurrency, thread_name_prefix=f"trials-{model}")
            for model in sorted({model for model, _ in groups})
        }
        stack.callback(run.commit)  # the last to run: whatever happens, what was answered is kept
        for pool in pools.values():
            stack.callback(pool.shutdown, wait=True, cancel_futures=True)
        stack.callback(run.stop, "interrupted")
        waiting = {pools[model].submit(run.answer, group) for (model, _), group in groups.items()}
        while waiting:
            finished, waiting = wait(waiting, timeout=COMMIT_SECONDS, return_when=FIRST_EXCEPTION)
            run.commit()
            progress(len(done) + run.committed, len(trials))
            for future in finished:
                future.result()
        complete = run.committed == len(trials) - len(done)
    return TrialWork(
        run=run.committed,
        reused=len(done),
        failed=run.failed,
        generations=_generations(database, run_id) - before,
        stopped=None if complete else run.stopped,
    )


@dataclass
class _Run:
    """What the threads of one run share; only the thread that started them writes trials."""

    database: Database
    generator: Generator
    experiment: ExperimentConfig
    scope: Scope
    run_id: str
    lease: Lease
    maximum_failed: int
    committed: int = 0
    failed: int = 0
    stopped: str | None = None
    _ready: list[dict[str, Any]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def stop(self, reason: str) -> None:
        """Let the trials in flight end and start no further one; the first reason stands."""
        with self._lock:
            self.stopped = self.stopped or reason

    def answer(self, group: Sequence[Trial]) -> None:
        """Answer trials one after the other and queue their rows."""
        for trial in group:
            row = None if self.stopped else self._try(trial)
            if row is None:
                return
            with self._lock:
                self._ready.append(row)
                self.failed += row["status"] == "failed"
                too_many = self.failed > self.maximum_failed
            if too_many:
                self.stop(
                    f"{self.failed} trials failed, more than the {self.maximum_failed} that maximum_failed_share allows"
                )

    def commit(self) -> None:
        """Write the queued rows, a few in each transaction."""
        while True:
            with self._lock:
                rows, self._ready = self._ready[:COMMIT_SIZE], self._ready[COMMIT_SIZE:]
            if not rows:
                return
            with self.database.connect() as connection:
                self.lease.check(connection)
                _write(connection, rows)
            self.committed += len(rows)
            crash_point("experiments.trial_committed")

    def _try(self, trial: Trial) -> dict[str, Any] | None:
        if (failed := getattr(trial.result, "error", None)) is not None:
            return self._row(trial, 1, None, failed)
        tries = 0
        while True:
            tries += 1
            try:
                answer = self.generator.generate(
                    trial.variant, trial.question.question, trial.result, run_id=self.run_id
                )
                return self._row(trial, tries, answer, None)
            except BudgetExceededError as error:
                self.stop(str(error))
                return None
            except (PermanentError, TransientError) as error:
                if isinstance(error, PermanentError) or tries == MAXIMUM_TRIES:
                    return self._row(trial, tries, None, type(error).__name__)

    def _row(self, trial: Trial, tries: int, answer: Answer | None, error: str | None) -> dict[str, Any]:
        """The columns of table trial. Of an error only the class is kept: its message may quote a prompt."""
        return {
            "fingerprint": trial.fingerprint,
            "experiment": self.experiment.name,
            "variant": trial.variant.fingerprint,
            "index_name": trial.variant.index,
            "snapshot": trial.result.snapshot,
            "dataset": self.scope.dataset,
            "dataset_version": self.scope.version,
            "question_id": trial.question.question_id,
            "status": "failed" if answer is None else "ok",
            "error": error,
            "tries": tries,
            "retrieved": Jsonb([hit.to_json() for hit in trial.result.hits]),
            "generation": answer.generation if answer else None,
            "answer": answer.text if answer else None,
            "refused": answer.refused if answer else None,
            "citations": Jsonb([asdict(citation) for citation in answer.citations] if answer else []),
            "usage": Jsonb(answer.usage.to_json() if answer else {}),
            "retrieval": Jsonb(getattr(trial.result, "trace", {})),
            "supplied": Jsonb(answer.supplied) if answer and answer.supplied else None,
            "steps": Jsonb(list(answer.steps)) if answer and answer.steps else None,
            "retrieval_latency": trial.result.latency,
            "generation_latency": answer.generation_latency if answer else None,
            "run_id": self.run_id,
        }


_INSERT = """
INSERT INTO trial AS known (fingerprint, experiment, variant, index_name, snapshot, dataset, dataset_version, question_id,
    status, error, tries, retrieved, generation, answer, refused, citations, usage, retrieval, supplied, steps,
    retrieval_latency, generation_latency, run_id)
VALUES (%(fingerprint)s, %(experiment)s, %(variant)s, %(index_name)s, %(snapshot)s, %(dataset)s, %(dataset_version)s,
    %(question_id)s, %(status)s, %(error)s, %(tries)s, %(retrieved)s, %(generation)s, %(answer)s, %(refused)s,
    %(citations)s, %(usage)s, %(retrieval)s, %(supplied)s, %(steps)s, %(retrieval_latency)s, %(generation_latency)s,
    %(run_id)s)
ON CONFLICT (fingerprint) DO UPDATE SET
    status = EXCLUDED.status, error = EXCLUDED.error, tries = known.tries + EXCLUDED.tries,
    generation = EXCLUDED.generation, answer = EXCLUDED.answer, refused = EXCLUDED.refused,
    citations = EXCLUDED.citations, usage = EXCLUDED.usage, retrieval = EXCLUDED.retrieval,
    supplied = EXCLUDED.supplied, steps = EXCLUDED.steps, retrieval_latency = EXCLUDED.retrieval_latency,
    generation_latency = EXCLUDED.generation_latency, run_id = EXCLUDED.run_id, created_at = now()
WHERE known.status = 'failed'
"""


def _write(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    """Insert trials; one that failed earlier is replaced, and its scores go."""
    rows = sorted(rows, key=lambda row: row["fingerprint"])
    connection.execute(
        """DELETE FROM trial_score USING trial
           WHERE trial_score.trial = trial.fingerprint AND trial.status = 'failed' AND trial.fingerprint = ANY(%s)""",
        ([row["fingerprint"] for row in rows],),
    )
    with connection.cursor() as cursor:
        cursor.executemany(_INSERT, rows)


def _answered(database: Database, fingerprints: Sequence[str]) -> set[str]:
    with database.connect() as connection:
        rows = connection.execute(
            "SELECT fingerprint FROM trial WHERE status = 'ok' AND fingerprint = ANY(%s)", (list(fingerprints),)
        ).fetchall()
    return {row[0] for row in rows}


def _generations(database: Database, run_id: str) -> int:
    with database.connect() as connection:
        row = connection.execute("SELECT count(*) FROM generation WHERE run_id = %s", (run_id,)).fetchone()
    return row[0] if row else 0


# --- reading the records ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrialOutcome:
    """What is on record about a trial, beside its question and what it retrieved (see ``Trial``).

    Attributes:
        usage: {requests, input_tokens, output_tokens, cost, currency} of the call that produced the answer, also when
            the memo had it; empty for a failed trial.
        supplied: of the hits what the prompt held, as (number of the hit from 1, start, end in its document); None when
            it held all that was found.
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

    @property
    def failed(self) -> bool:
        """Whether the trial ended without an answer."""
        return self.status == "failed"


def read_outcomes(database: Database, plan: Plan) -> dict[str, TrialOutcome]:
    """The records of the plan's trials by fingerprint; a trial that was never run is missing."""
    with database.connect() as connection:
        rows = connection.execute(
            """SELECT fingerprint, status, error, tries, answer, refused, citations, usage,
                      retrieval_latency + generation_latency, generation, supplied -> 'passages'
               FROM trial WHERE fingerprint = ANY(%s)""",
            (sorted({trial.fingerprint for trial in plan.trials}),),
        ).fetchall()
    return {
        key: TrialOutcome(
            status=status,
            error=error,
            tries=tries,
            answer=answer or "",
            refused=bool(refused),
            citations=tuple(Citation(**citation) for citation in citations),
            usage=usage,
            latency=latency,
            generation=generation,
            supplied=supplied_ranges(passages),
        )
        for key, status, error, tries, answer, refused, citations, usage, latency, generation, passages in rows
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
        answer=strip_citations(outcome.answer),
        refused=outcome.refused,
        citations=outcome.citations,
        failed=outcome.failed,
        supplied=None if outcome.supplied is None else _supplied(hits, outcome.supplied),
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
