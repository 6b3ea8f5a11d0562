"""Judge scores: asking the judges of an experiment about its trials, each thing once.

Belongs here: finding what a judge was not asked yet, asking it within the limits of its model, and keeping score, verdicts
and failures. Does not belong here: what a judge says (assets/evaluation/judging), metrics without a judge (scores.py).

A judge that gives no usable answer leaves no score: neither 0 nor a number of any kind, and the trial is counted. It is
asked again by the next runs, ``MAXIMUM_ATTEMPTS`` times in all, then no more (``genaiops judges retry``).
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

from assets.evaluation.judging.judged_metrics import definition
from assets.evaluation.judging.judges import Judge, Judgement
from assets.evaluation.metrics.records import Part, TrialRecord
from assets.experiments import verdicts
from assets.experiments.judged import Judging
from assets.experiments.records import TrialOutcome
from resources.errors import BudgetExceededError, PermanentError, TransientError
from resources.faults import crash_point
from resources.postgres import Connection, Database, Lease

#: Judged between two commits; what was answered is safe in the memo of model calls whatever happens.
BLOCK = 100
#: Runs in which a judge is asked about a trial it failed on.
MAXIMUM_ATTEMPTS = 3
#: A judge is given up for a run by more failures than this, and than the share the experiment accepts.
_FAILURES_TO_STOP = 10

Values = MutableMapping[str, float | None]
Write = Callable[[Connection, Mapping[str, Values], str, str], None]


class Scorable(Protocol):
    """What judging needs of a trial on record."""

    @property
    def outcome(self) -> TrialOutcome: ...

    def record(self) -> TrialRecord:
        """The trial as metrics see it."""
        ...

    def seen(self, part: Part) -> Hashable:
        """All that metrics look at of one part."""
        ...


@dataclass(frozen=True)
class Judged:
    """What a judge did to the trials of a run.

    Attributes:
        scored: trials with a score or found undefined; ``failed``: those it said nothing usable on, by trial the class of
            error; ``unasked``: those it was not asked about, because it was stopped or the budget refused.
        stopped: why it was not asked about all of them.
        spread, unsteady, swap: means over the trials that show them; see ``measures.Vote``.
    """

    scored: int = 0
    failed: Mapping[str, str] = field(default_factory=dict)
    unasked: int = 0
    stopped: str | None = None
    spread: float | None = None
    unsteady: float | None = None
    swap: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Counts, as they stand in a leaderboard."""
        errors = list(self.failed.values())
        return {
            "scored": self.scored,
            "failed": len(self.failed),
            "errors": {error: errors.count(error) for error in sorted(set(errors))},
            "unasked": self.unasked,
            "stopped": self.stopped,
            "spread": self.spread,
            "unsteady": self.unsteady,
            "swap": self.swap,
        }


def judge_trials(
    database: Database,
    judging: Judging,
    trials: Mapping[str, Scorable],
    values: Mapping[str, Values],
    *,
    read: Callable[[Connection, Sequence[str], str, str], Mapping[str, Values]],
    write: Write,
    lease: Lease | None = None,
) -> tuple[int, dict[str, Judged]]:
    """Add the scores of all judges to ``values``, asking only what is not on record.

    Args:
        read, write: scores of (trials, metric, fingerprint).

    Returns:
        Number of (trial, metric) pairs that were missing and have a score now, and what each judge did.
    """
    computed = 0
    done: dict[str, Judged] = {}
    refused: str | None = None
    for metric, judge in judging.judges.items():
        work = _Work(database, judging, judge, metric, trials, read, write, lease, refused)
        work.run()
        computed += work.computed
        refused = work.refused
        for key in trials:
            values[key][metric] = work.values.get(key)
        done[metric] = work.result()
    return computed, done


@dataclass
class _Work:
    """One judge on all trials."""

    database: Database
    judging: Judging
    judge: Judge
    metric: str
    trials: Mapping[str, Scorable]
    read: Callable[[Connection, Sequence[str], str, str], Mapping[str, Values]]
    write: Write
    lease: Lease | None
    refused: str | None
    values: dict[str, float | None] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    stopped: str | None = None
    computed: int = 0

    def run(self) -> None:
        """Ask what is missing, block by block."""
        keys = list(self.trials)
        with self.database.connect() as connection:
            known = self.read(connection, keys, self.metric, self.judge.fingerprint)
            in_vain = verdicts.in_vain(connection, keys, self.metric, self.judge.fingerprint)
        self.values = {key: row[self.metric] for key, row in known.items() if self.metric in row}
        missing = [key for key in keys if key not in self.values]
        # rounds of a strategy judge the same trials: what failed in this run is not asked again in it
        for key in missing:
            attempts, run, error = in_vain.get(key, (0, "", ""))
            if attempts >= MAXIMUM_ATTEMPTS or run == self.judging.run_id:
                self.failed[key] = error if run == self.judging.run_id else "given up"
        groups = self._alike([key for key in missing if key not in self.failed])
        self.stopped = self.refused
        if not groups or self.stopped:
            return
        most = max(_FAILURES_TO_STOP, self.judging.maximum_failed_share * len(keys))
        workers = self.judge.chat.config.limits.concurrency
        with ThreadPoolExecutor(workers, thread_name_prefix=f"judge-{self.judge.config.name}") as pool:
            for start in range(0, len(groups), BLOCK):
                block = groups[start : start + BLOCK]
                said = list(pool.map(self._ask, block))
                self._keep(block, said)
                crash_point("experiments.judged")
                if self.refused:
                    self.stopped = self.refused
                    return
                if len(self.failed) > most:
                    self.stopped = f"it gave no usable verdict on {len(self.failed)} trials"
                    return

    def _alike(self, keys: Sequence[str]) -> list[list[str]]:
        """Trials that the judge cannot tell apart: one answer serves them all."""
        parts = sorted(definition(self.judge.config).looks_at)
        alike: dict[tuple[Hashable, ...], list[str]] = defaultdict(list)
        for key in keys:
            trial = self.trials[key]
            alike[(trial.outcome.failed, *(trial.seen(part) for part in parts))].append(key)
        return list(alike.values())

    def _ask(self, keys: Sequence[str]) -> Judgement | str | None:
        """A judgement, the class of an error, or None when the budget refused."""
        if self.refused:
            return None
        try:
            return self.judge.judge(self.trials[keys[0]].record(), self.judging.memo, self.judging.run_id)
        except BudgetExceededError as error:
            self.refused = str(error)
            return None
        except (PermanentError, TransientError) as error:
            return type(error).__name__  # the message may quote what a server said

    def _keep(self, block: Sequence[Sequence[str]], said: Sequence[Judgement | str | None]) -> None:
        scores: dict[str, Values] = {}
        rows: list[verdicts.TrialVerdicts] = []
        for keys, one in zip(block, said, strict=True):
            for key in keys:
                if isinstance(one, str):
                    self.failed[key] = one
                    rows.append(verdicts.TrialVerdicts(key, self.metric, self.judge.fingerprint, {}, error=one))
                elif one is not None:
                    scores[key] = {self.metric: one.value}
                    parts = len(one.sheet.passages) if one.sheet else 0
                    numbers = verdicts.passage_numbers(self.trials[key].outcome.supplied, parts)
                    found = verdicts.of_judgement(one, numbers)
                    rows.append(
                        verdicts.TrialVerdicts(key, self.metric, self.judge.fingerprint, found, one.generations)
                    )
        with self.database.connect() as connection:
            if self.lease:
                self.lease.check(connection)
            verdicts.write(connection, rows, self.judging.run_id)
            if scores:
                self.write(connection, scores, self.metric, self.judge.fingerprint)
        self.values |= {key: row[self.metric] for key, row in scores.items()}
        self.computed += len(scores)

    def result(self) -> Judged:
        """What was done."""
        with self.database.connect() as connection:
            stored = verdicts.read(connection, list(self.values), self.metric, self.judge.fingerprint)
        asked = [one for one in stored.values() if one.get("calls")]
        draws = self.judge.config.draws > 1
        return Judged(
            scored=len(self.values),
            failed=self.failed,
            unasked=len(self.trials) - len(self.values) - len(self.failed),
            stopped=self.stopped,
            spread=_mean([one["spread"] for one in asked]) if draws else None,
            unsteady=_mean([one["unsteady"] for one in asked]) if draws else None,
            swap=_mean([one["swap"] for one in asked if one["swap"] is not None]),
        )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
