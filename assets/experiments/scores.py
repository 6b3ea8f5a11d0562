"""Scores: every metric of every trial, computed once and kept with the fingerprint of the metric.

Belongs here: finding the (trial, metric) pairs without a value of today's definition, computing and storing them; for
the trials of a run, and for those on record (``rescore``).
Does not belong here: what a metric means (assets/evaluation/metrics), asking judges (judge_scores.py), and averaging
(leaderboard.py).

A score whose metric has another fingerprint now counts as missing and is replaced; no trial is run for it.
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from assets.evaluation.dataset import Question, read_dataset
from assets.evaluation.judging.judged_metrics import is_judged
from assets.evaluation.metrics.base import METRICS, TrialRecord, definition_of, metric_fingerprint, score
from assets.evaluation.metrics.records import Group, Part
from assets.evaluation.metrics.semantic_metrics import SemanticMetric, is_semantic
from assets.experiments import verdicts
from assets.experiments.judge_scores import Judged, judge_trials
from assets.experiments.judged import Judging
from assets.experiments.planning import Plan
from assets.experiments.records import TrialOutcome, record_of, supplied_ranges
from assets.experiments.retrievals import read_range
from assets.experiments.score_rows import ScoreRow
from resources.answerer import Citation
from resources.errors import PermanentError
from resources.platform import Platform
from resources.postgres import Connection, Database, Lease
from resources.vector_index import SearchHit

#: Trials scored and stored at once: memory is bounded by it.
BATCH_SIZE = 2000

Values = MutableMapping[str, float | None]


@dataclass(frozen=True)
class Scores:
    """Scores of trials.

    Attributes:
        values: {trial fingerprint: {metric id: value, or None where the metric is undefined}}.
        computed: (trial, metric) pairs that had no value of today's definition yet.
        judged: by metric of a judge, what it did; a trial it failed on has None in ``values`` and is counted there.
    """

    values: Mapping[str, Values]
    computed: int
    judged: Mapping[str, Judged] = field(default_factory=dict)

    @property
    def stopped(self) -> str | None:
        """Why a judge was not asked about all trials, if one was not."""
        found = [f"{metric}: {one.stopped}" for metric, one in self.judged.items() if one.stopped]
        return found[0] if found else None


@dataclass(frozen=True)
class Rescored:
    """What ``rescore`` did.

    Attributes:
        trials: trials on record that were looked at.
        computed: (trial, metric) pairs that were missing, or had a value of another definition.
        skipped: trials that cannot be scored, because their version of the dataset is gone.
    """

    trials: int = 0
    computed: int = 0
    skipped: int = 0

    def __add__(self, other: "Rescored") -> "Rescored":
        """Add the counts of two parts."""
        return Rescored(self.trials + other.trials, self.computed + other.computed, self.skipped + other.skipped)


@dataclass(frozen=True)
class _Scorable:
    """A trial on record, before it is one for metrics."""

    question: Question
    hits: Sequence[SearchHit]
    outcome: TrialOutcome

    def record(self) -> TrialRecord:
        return record_of(self.question, self.hits, self.outcome)

    def seen(self, part: Part) -> Hashable:
        """All that metrics look at of one part; the range that is read of a hit stands for its text."""
        outcome = self.outcome
        match part:
            case "question" | "gold" | "reference":
                return self.question.question_id, self.question.fingerprint
            case "hits":
                return tuple((hit.version_id, *read_range(hit)) for hit in self.hits), outcome.supplied
            case "answer":
                return outcome.answer
            case "refusal":
                return outcome.refused
            case "citations":
                return outcome.citations


def score_trials(
    database: Database,
    plan: Plan,
    outcomes: Mapping[str, TrialOutcome],
    metrics: Sequence[str],
    *,
    judging: Judging | None = None,
    semantic: Mapping[str, SemanticMetric] | None = None,
    lease: Lease | None = None,
) -> Scores:
    """Read the scores of all trials on record, computing and storing those that are missing.

    Args:
        metrics: ids; those of judges are scored by ``judging``, those with a model of their own by ``semantic``, and by
            nothing without it.
    """
    trials = {trial.fingerprint: trial for trial in plan.trials if trial.fingerprint in outcomes}
    metrics = [metric for metric in metrics if not is_judged(metric) and not is_semantic(metric)]
    with database.connect() as connection:
        values = _read(connection, list(trials), metrics)

    def load(keys: Sequence[str]) -> dict[str, _Scorable]:
        return {key: _Scorable(trials[key].question, trials[key].result.hits, outcomes[key]) for key in keys}

    computed = sum(
        _score_missing(database, list(trials)[start : start + BATCH_SIZE], metrics, values, load, lease)
        for start in range(0, len(trials), BATCH_SIZE)
    )
    for one in (semantic or {}).values():
        for start in range(0, len(trials), BATCH_SIZE):
            computed += _score_semantic(database, list(trials)[start : start + BATCH_SIZE], one, values, load, lease)
    if judging is None:
        return Scores(values, computed)
    by_judges, judged = judge_trials(
        database, judging, load(list(trials)), values, read=_read_judged, write=_write_judged, lease=lease
    )
    return Scores(values, computed + by_judges, judged)


def _score_semantic(
    database: Database,
    keys: Sequence[str],
    metric: SemanticMetric,
    values: Mapping[str, Values],
    load: Callable[[Sequence[str]], Mapping[str, _Scorable]],
    lease: Lease | None,
) -> int:
    """Read the scores of a metric with a model of its own, computing and storing those that are missing."""
    name = metric.definition.id
    with database.connect() as connection:
        known = _read(connection, keys, [name], [metric.fingerprint])
    missing = [key for key in keys if name not in known[key]]
    if missing:
        alike: dict[tuple[Any, ...], list[str]] = defaultdict(list)
        trials = load(missing)
        for key, trial in trials.items():
            seen = (trial.seen(part) for part in sorted(metric.definition.looks_at))
            alike[(trial.question.task, trial.outcome.failed, *seen)].append(key)
        records = [trials[group[0]].record() for group in alike.values()]
        for group, value in zip(alike.values(), metric.score(records), strict=True):
            for key in group:
                known[key][name] = value
        with database.connect() as connection:
            if lease:
                lease.check(connection)
            _write(connection, [name], {key: known[key] for key in trials}, [metric.fingerprint])
    for key in keys:
        values[key][name] = known[key].get(name)
    return len(missing)


def _read_judged(connection: Connection, keys: Sequence[str], metric: str, fingerprint: str) -> dict[str, Values]:
    return _read(connection, keys, [metric], [fingerprint])


def _write_judged(connection: Connection, rows: Mapping[str, Values], metric: str, fingerprint: str) -> None:
    _write(connection, [metric], rows, [fingerprint])


def rescore(
    platform: Platform,
    run_id: str,
    *,
    experiment: str | None = None,
    metrics: Sequence[str] | None = None,
    wait_seconds: float = 30,
    progress: Callable[[str, Rescored], None] = lambda experiment, done: None,
) -> Rescored:
    """Score all trials on record by today's metrics; no model is called and nothing is searched.

    Only what is missing, or was computed by another definition or code, is computed. The boards of experiments
    follow when they are evaluated next, which then only reads the scores.

    Args:
        experiment: only trials of this one.
        metrics: ids; all of the catalogue by default.
        progress: told after each batch of an experiment what was done of it so far.

    Raises:
        ValueError: a metric is unknown; the message names the nearest.
        PermanentError: the experiment has no trial on record.
        LeaseHeldError: the experiment is running or being erased from.
    """
    wanted = [definition_of(metric).id for metric in (METRICS if metrics is None else dict.fromkeys(metrics))]
    with platform.database.connect() as connection:
        known = [row[0] for row in connection.execute("SELECT DISTINCT experiment FROM trial ORDER BY 1").fetchall()]
    if experiment is not None and experiment not in known:
        raise PermanentError(
            f"there is no trial of experiment {experiment} on record; there are trials of: {', '.join(known) or 'none'}"
        )
    total = Rescored()
    for name in known if experiment is None else [experiment]:
        with platform.database.lease(f"experiment:{name}", run_id, wait_seconds=wait_seconds) as lease:
            done = Rescored()
            for part in _rescore(platform.database, name, wanted, lease):
                done += part
                progress(name, done)
            total += done
    return total


def _rescore(database: Database, experiment: str, metrics: Sequence[str], lease: Lease) -> Iterator[Rescored]:
    with database.connect() as connection:
        versions = connection.execute(
            """SELECT dataset, dataset_version, array_agg(fingerprint ORDER BY fingerprint),
                      EXISTS (SELECT FROM evaluation_dataset d WHERE (d.dataset, d.version) = (t.dataset, dataset_version))
               FROM trial t WHERE experiment = %s AND NOT starts_with(dataset, 'interactions:')  -- live questions have no dataset
               GROUP BY 1, 2 ORDER BY 1, 2""",
            (experiment,),
        ).fetchall()
    for dataset, version, keys, readable in versions:
        if not readable:
            yield Rescored(len(keys), 0, len(keys))
            continue
        with database.connect() as connection:
            questions = {
                question.question_id: question for question in read_dataset(connection, dataset, version).questions
            }
        for start in range(0, len(keys), BATCH_SIZE):
            batch = keys[start : start + BATCH_SIZE]
            with database.connect() as connection:
                values = _read(connection, batch, metrics)

            def load(wanted: Sequence[str], questions: Mapping[str, Question] = questions) -> dict[str, _Scorable]:
                return _load(database, wanted, questions)

            computed = _score_missing(database, batch, metrics, values, load, lease)
            missing = sum(len(values[key]) < len(metrics) for key in batch)
            yield Rescored(len(batch), computed, missing)


def _load(database: Database, keys: Sequence[str], questions: Mapping[str, Question]) -> dict[str, _Scorable]:
    """Trials from their rows; one whose question is gone is left out."""
    with database.connect() as connection:
        rows = connection.execute(
            """SELECT fingerprint, question_id, retrieved, status, answer, refused, citations, supplied -> 'passages'
               FROM trial WHERE fingerprint = ANY(%s)""",
            (list(keys),),
        ).fetchall()
    return {
        key: _Scorable(
            questions[question],
            [SearchHit.from_json(hit) for hit in retrieved],
            TrialOutcome(
                status=status,
                error=None,
                tries=0,
                answer=answer or "",
                refused=bool(refused),
                citations=tuple(Citation(**citation) for citation in citations),
                usage={},
                latency=None,
                generation=None,
                supplied=supplied_ranges(passages),
            ),
        )
        for key, question, retrieved, status, answer, refused, citations, passages in rows
        if question in questions
    }


def _score_missing(
    database: Database,
    keys: Sequence[str],
    metrics: Sequence[str],
    values: dict[str, Values],
    load: Callable[[Sequence[str]], Mapping[str, _Scorable]],
    lease: Lease | None = None,
) -> int:
    """Compute and store what is missing of a batch, adding it to ``values``; returns the number of pairs."""
    missing: dict[tuple[str, ...], list[str]] = defaultdict(list)
    bare = _without_verdicts(database, keys, values) if verdicts.OFFLINE in metrics else set[str]()
    for key in keys:
        lacking = tuple(
            metric for metric in metrics if metric not in values[key] or (metric == verdicts.OFFLINE and key in bare)
        )
        if lacking:
            missing[lacking].append(key)
    computed = 0
    for lacking, wanted in missing.items():
        trials = load(wanted)
        rests_on = _score(lacking, trials, values)
        with database.connect() as connection:
            if lease:
                lease.check(connection)
            _write(connection, lacking, {key: values[key] for key in trials})
            verdicts.write(connection, rests_on, "offline")
        computed += len(trials) * len(lacking)
    return computed


def _without_verdicts(database: Database, keys: Sequence[str], values: Mapping[str, Values]) -> set[str]:
    """Trials scored before what a score rests on was kept."""
    scored = [key for key in keys if values[key].get(verdicts.OFFLINE) is not None]
    with database.connect() as connection:
        found = verdicts.present(connection, scored, verdicts.OFFLINE, metric_fingerprint(verdicts.OFFLINE))
    return set(scored) - found


def _score(
    metrics: Sequence[str], trials: Mapping[str, _Scorable], values: Mapping[str, Values]
) -> list[verdicts.TrialVerdicts]:
    """Add scores to ``values``, computing trials that look alike to a metric once; returns what groundedness rests on."""
    together: dict[frozenset[Part], list[str]] = defaultdict(list)
    for metric in metrics:
        together[METRICS[metric].looks_at].append(metric)
    records = {key: trial.record() for key, trial in trials.items()}
    offline = metric_fingerprint(verdicts.OFFLINE) if verdicts.OFFLINE in metrics else ""
    rests_on = [
        verdicts.TrialVerdicts(key, verdicts.OFFLINE, offline, {})  # a failed trial claims nothing
        for key, trial in trials.items()
        if offline and trial.outcome.failed
    ]
    for parts, mine in together.items():
        ordered = sorted(parts)
        alike: dict[tuple[Any, ...], list[str]] = defaultdict(list)
        for key, trial in trials.items():
            alike[(trial.question.task, trial.outcome.failed, *(trial.seen(part) for part in ordered))].append(key)
        groups = list(alike.values())

        def watch(group: Group, place: int, prepared: Any, groups: list[list[str]] = groups) -> None:
            if verdicts.OFFLINE not in group.formulas or not prepared[0]:
                return
            assessed, chunks = prepared
            for key in groups[place]:
                numbers = verdicts.passage_numbers(trials[key].outcome.supplied, chunks)
                found = verdicts.of_assessed(records[key].answer, assessed, numbers)
                rests_on.append(verdicts.TrialVerdicts(key, verdicts.OFFLINE, offline, found))

        columns = score([records[keys[0]] for keys in groups], mine, watch=watch if verdicts.OFFLINE in mine else None)
        for metric, column in columns.items():
            for keys, value in zip(groups, column, strict=True):
                for key in keys:
                    values[key][metric] = value
    return rests_on


def _read(
    connection: Connection, trials: Sequence[str], metrics: Sequence[str], fingerprints: Sequence[str] | None = None
) -> dict[str, Values]:
    """Scores of today's definitions; of judges ``fingerprints`` says which those are."""
    values: dict[str, Values] = {trial: ScoreRow() for trial in trials}
    for trial, found, numbers in connection.execute(
        """SELECT trial, array_agg(metric), array_agg(value)
           FROM trial_score JOIN unnest(%s::text[], %s::text[]) AS wanted (metric, fingerprint) USING (metric, fingerprint)
           WHERE trial = ANY(%s) GROUP BY trial""",
        (list(metrics), list(fingerprints or map(metric_fingerprint, metrics)), list(trials)),
    ):
        values[trial] = ScoreRow(zip(found, numbers, strict=True))
    return values


def _write(
    connection: Connection,
    metrics: Sequence[str],
    rows: Mapping[str, Values],
    fingerprints: Sequence[str] | None = None,
) -> None:
    """Add scores, replacing those of other definitions; a trial that was erased meanwhile gets none.

    The order of keys is that of every other writer, so that two cannot wait for each other.
    """
    connection.execute("CREATE TEMP TABLE new_score (trial text, numbers double precision[]) ON COMMIT DROP")
    with connection.cursor() as cursor:
        with cursor.copy("COPY new_score (trial, numbers) FROM STDIN") as copy:
            for trial, values in rows.items():
                numbers = [None if (value := values[metric]) is None else float(value) for metric in metrics]
                copy.write_row((trial, numbers))  # an array of int and float is none for psycopg
    connection.execute(
        """INSERT INTO trial_score (trial, metric, value, fingerprint)
           SELECT trial, metric, number, scored.fingerprint
           FROM new_score JOIN trial ON trial.fingerprint = new_score.trial
           CROSS JOIN LATERAL unnest(%s::text[], %s::text[], numbers) AS scored (metric, fingerprint, number)
           ORDER BY trial, metric
           ON CONFLICT (trial, metric) DO UPDATE SET value = EXCLUDED.value, fingerprint = EXCLUDED.fingerprint
           WHERE trial_score.fingerprint <> EXCLUDED.fingerprint""",
        (list(metrics), list(fingerprints or map(metric_fingerprint, metrics))),
    )
    connection.execute("DROP TABLE new_score")
