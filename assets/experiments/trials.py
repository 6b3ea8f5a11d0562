"""Trials: one variant on one question, run once and remembered.

Belongs here: running what is missing, and writing the records of it.
Does not belong here: which questions are asked (scope.py), what makes two trials the same (planning.py), reading the
records (records.py), scoring (scores.py), the memo of model calls (resources/answerer.py), judging (statistics.py).
"""

import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any, Protocol

from psycopg.types.json import Jsonb

from assets.experiments.planning import CODE_VERSION, Plan, Trial
from assets.experiments.scope import Scope
from resources.answerer import Answer
from resources.config import ProjectConfig
from resources.context import CODE_VERSION as CONTEXT_VERSION
from resources.errors import BudgetExceededError, PermanentError, TransientError
from resources.experiment_config import ExperimentConfig
from resources.faults import crash_point
from resources.postgres import Connection, Database, Lease
from resources.prompt_store import prompt_fingerprint
from resources.variants import CODE_VERSION as ANSWER_VERSION
from resources.variants import Variant
from resources.vector_index import SearchResult

#: How often a trial is tried in one run when the model's trouble may pass; the next run tries again.
MAXIMUM_TRIES = 3
#: How often it is tried over all runs; then it is given up: it counts as failed, and is left alone until ``retry`` or until
#: something that makes it another trial is changed.
MAXIMUM_ATTEMPTS = 9
#: Finished trials are committed this often, in transactions of at most so many. Their answers are already safe in the
#: memo of model calls, so that a kill loses no paid call, and of the trials only those in flight and the last few.
COMMIT_SECONDS, COMMIT_SIZE = 0.2, 50

Progress = Callable[[int, int], None]


class Generator(Protocol):
    """What trials need of resources.answerer.Answerer."""

    def generate(self, variant: Variant, question: str, result: SearchResult, *, run_id: str) -> Answer:
        """Answer from what was retrieved."""
        ...


@dataclass(frozen=True)
class TrialWork:
    """What a run did, in counts of distinct trials.

    Attributes:
        run: trials answered or given up in this run.
        reused: trials already on record.
        failed: trials of this run that ended without an answer.
        given_up: failed trials on record that were not tried again.
        generations: model calls that were made and remembered; the other trials found theirs in the memo.
        stopped: why the run ended before every trial was tried, if it did.
    """

    run: int = 0
    reused: int = 0
    failed: int = 0
    generations: int = 0
    stopped: str | None = None
    given_up: int = 0

    def __add__(self, other: "TrialWork") -> "TrialWork":
        """Add the counts of two parts of one run."""
        return TrialWork(
            run=self.run + other.run,
            reused=self.reused + other.reused,
            failed=self.failed + other.failed,
            generations=self.generations + other.generations,
            stopped=self.stopped or other.stopped,
            given_up=self.given_up + other.given_up,
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
    settled: frozenset[str] = frozenset(),
) -> TrialWork:
    """Run the trials of ``plan`` that are neither answered nor given up, and commit each as it finishes.

    Trials that render the same prompt for the same model run one after the other, so that the first pays and the
    others find its answer in the memo; different ones run in as many threads as the model's limit allows. A trial
    that fails is tried again while the trouble may pass, then recorded as failed; the next run tries it again, until it
    was tried ``MAXIMUM_ATTEMPTS`` times and is given up. The run stops early when the budget refuses the next call, or
    when more trials failed than the experiment accepts, those given up earlier among them.

    Args:
        settled: trials that failed in this run already: they are not tried again in it.

    Raises:
        Exception: what is no error of a model (a wrong template, a defect, a lost database), after committing what was
            finished.
    """
    trials = {trial.fingerprint: trial for trial in plan.trials}
    record = on_record(database, list(trials))
    done = record.answered | record.given_up | (settled & trials.keys())
    groups: dict[tuple[str, str], list[Trial]] = defaultdict(list)
    for trial in trials.values():
        if trial.fingerprint not in done:
            groups[(trial.variant.model, trial.prompt_key)].append(trial)
    progress(len(done), len(trials))
    if not groups:
        return TrialWork(reused=len(record.answered), given_up=len(record.given_up))
    before = _generations(database, run_id)
    run = _Run(
        database=database,
        generator=generator,
        config=config,
        experiment=experiment,
        scope=scope,
        run_id=run_id,
        lease=lease,
        maximum_failed=int(experiment.maximum_failed_share * len(trials)),
        record=record,
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
        reused=len(record.answered),
        failed=run.failed,
        generations=_generations(database, run_id) - before,
        stopped=None if complete else run.stopped,
        given_up=len(record.given_up),
    )


def retry(
    database: Database,
    experiment: str,
    *,
    dataset: str = "",
    variants: Sequence[str] = (),
    variant: str | None = None,
    question: str | None = None,
) -> list[tuple[str, str, int]]:
    """Let the next run try the failed trials of an experiment again, those given up included.

    Args:
        dataset, variants: of the experiment, by fingerprint: a trial it shares with another one may be on record as that
            one's.
        variant: only those of the variant of that name.
        question: only those on the question of that id.

    Returns:
        (variant, question, attempts so far) of each; the count starts again at 0.
    """
    with database.connect() as connection:
        rows = connection.execute(
            """UPDATE trial SET attempts = 0, given_up_at = NULL
               FROM (SELECT fingerprint AS key, attempts AS made FROM trial
                     WHERE (experiment = %(experiment)s OR (dataset = %(dataset)s AND variant = ANY(%(variants)s)))
                           AND status = 'failed'
                     ORDER BY fingerprint FOR UPDATE) before, variant
               WHERE trial.fingerprint = before.key AND variant.fingerprint = trial.variant
                 AND (%(variant)s::text IS NULL OR variant.name = %(variant)s)
                 AND (%(question)s::text IS NULL OR question_id = %(question)s)
               RETURNING variant.name, question_id, before.made""",
            {
                "experiment": experiment,
                "dataset": dataset,
                "variants": list(variants),
                "variant": variant,
                "question": question,
            },
        ).fetchall()
    return sorted(rows)


@dataclass(frozen=True)
class OnRecord:
    """What is on record of a plan's trials; ``attempts`` of those that failed."""

    answered: frozenset[str]
    given_up: frozenset[str]
    attempts: Mapping[str, int]


@dataclass
class _Run:
    """What the threads of one run share; only the thread that started them writes trials."""

    database: Database
    generator: Generator
    config: ProjectConfig
    experiment: ExperimentConfig
    scope: Scope
    run_id: str
    lease: Lease
    maximum_failed: int
    record: OnRecord
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
                failed = self.failed + len(self.record.given_up)
            if failed > self.maximum_failed:
                self.stop(
                    f"{failed} trials failed, more than the {self.maximum_failed} that maximum_failed_share allows"
                    + (
                        f"; {given_up} of them were given up in earlier runs"
                        if (given_up := len(self.record.given_up))
                        else ""
                    )
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
        tries, most = 0, min(MAXIMUM_TRIES, MAXIMUM_ATTEMPTS - self.record.attempts.get(trial.fingerprint, 0))
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
                if isinstance(error, PermanentError) or tries >= most:
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
            "maximum": MAXIMUM_ATTEMPTS,
            "retrieved": Jsonb([hit.to_json() for hit in trial.result.hits]),
            "generation": answer.generation if answer else None,
            "answer": answer.text if answer else None,
            "refused": answer.refused if answer else None,
            "citations": Jsonb([asdict(citation) for citation in answer.citations] if answer else []),
            "usage": Jsonb(answer.usage.to_json() if answer else {}),
            "retrieval": Jsonb(getattr(trial.result, "trace", {})),
            "supplied": Jsonb(answer.supplied) if answer and answer.supplied else None,
            "steps": Jsonb(list(answer.steps)) if answer and answer.steps else None,
            "versions": Jsonb(_versions(self.config, trial.variant)),
            "retrieval_latency": trial.result.latency,
            "generation_latency": answer.generation_latency if answer else None,
            "run_id": self.run_id,
        }


def _versions(config: ProjectConfig, variant: Variant) -> dict[str, Any]:
    """What a trial was made with that nothing else on record says."""
    model = config.chat_model(variant.model)
    return {
        "code": {"genaiops": _release(), "trial": CODE_VERSION, "answer": ANSWER_VERSION, "context": CONTEXT_VERSION},
        "prompt": prompt_fingerprint(variant.prompt),
        "index": variant.index_fingerprint,
        "model": {
            "name": variant.model,
            "asked_for": model.model,
            "fingerprint": variant.model_fingerprint,
            "parameters": {**model.parameters, **(variant.request_parameters or {})},
        },
    }


@cache
def _release() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("genaiops")
    except PackageNotFoundError:  # a checkout that was never installed
        return "unknown"


_INSERT = """
INSERT INTO trial AS known (fingerprint, experiment, variant, index_name, snapshot, dataset, dataset_version, question_id,
    status, error, tries, attempts, retrieved, generation, answer, refused, citations, usage, retrieval, supplied, steps,
    versions, retrieval_latency, generation_latency, run_id)
VALUES (%(fingerprint)s, %(experiment)s, %(variant)s, %(index_name)s, %(snapshot)s, %(dataset)s, %(dataset_version)s,
    %(question_id)s, %(status)s, %(error)s, %(tries)s, %(tries)s, %(retrieved)s, %(generation)s, %(answer)s,
    %(refused)s, %(citations)s, %(usage)s, %(retrieval)s, %(supplied)s, %(steps)s, %(versions)s, %(retrieval_latency)s,
    %(generation_latency)s, %(run_id)s)
ON CONFLICT (fingerprint) DO UPDATE SET
    status = EXCLUDED.status, error = EXCLUDED.error, tries = known.tries + EXCLUDED.tries,
    attempts = known.attempts + EXCLUDED.attempts,
    given_up_at = CASE WHEN EXCLUDED.status = 'failed' AND known.attempts + EXCLUDED.attempts >= %(maximum)s THEN now() END,
    generation = EXCLUDED.generation, answer = EXCLUDED.answer, refused = EXCLUDED.refused,
    citations = EXCLUDED.citations, usage = EXCLUDED.usage, retrieval = EXCLUDED.retrieval,
    supplied = EXCLUDED.supplied, steps = EXCLUDED.steps, versions = EXCLUDED.versions,
    retrieval_latency = EXCLUDED.retrieval_latency, generation_latency = EXCLUDED.generation_latency, run_id = EXCLUDED.run_id, created_at = now()
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


def on_record(database: Database, fingerprints: Sequence[str]) -> OnRecord:
    """Which of the trials need not be run, and how often the failed ones were tried."""
    with database.connect() as connection:
        rows = connection.execute(
            """SELECT fingerprint, status = 'ok', given_up_at IS NOT NULL, attempts
               FROM trial WHERE fingerprint = ANY(%s)""",
            (list(fingerprints),),
        ).fetchall()
    return OnRecord(
        answered=frozenset(key for key, answered, _, _ in rows if answered),
        given_up=frozenset(key for key, _, given_up, _ in rows if given_up),
        attempts={key: attempts for key, answered, _, attempts in rows if not answered},
    )


def _generations(database: Database, run_id: str) -> int:
    with database.connect() as connection:
        row = connection.execute("SELECT count(*) FROM generation WHERE run_id = %s", (run_id,)).fetchone()
    return row[0] if row else 0
