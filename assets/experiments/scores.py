"""Scores: every metric of every trial, computed once and kept.

Belongs here: finding the (trial, metric) pairs without a value, computing and storing them.
Does not belong here: what a metric means (assets/evaluation/metrics), and averaging (leaderboard.py).
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from assets.evaluation.metrics.base import METRICS, Family, score
from assets.experiments.retrievals import read_range
from assets.experiments.trials import Plan, Trial, TrialOutcome, to_record
from resources.postgres import Connection, Database

#: Trials scored in one call: memory is bounded by it, and the fixed cost of a metric is paid once for many.
BATCH_SIZE = 5000

Values = dict[str, float | None]


@dataclass(frozen=True)
class Scores:
    """Scores of trials.

    Attributes:
        values: {trial fingerprint: {metric id: value, or None where the metric is undefined}}.
        computed: (trial, metric) pairs that had no value yet.
    """

    values: Mapping[str, Values]
    computed: int


def score_trials(
    database: Database, plan: Plan, outcomes: Mapping[str, TrialOutcome], metrics: Sequence[str]
) -> Scores:
    """Read the scores of all trials on record, computing and storing those that are missing."""
    trials = {trial.fingerprint: trial for trial in plan.trials if trial.fingerprint in outcomes}
    with database.connect() as connection:
        values = _read(connection, list(trials), metrics)
    missing: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for key in trials:
        lacking = tuple(metric for metric in metrics if metric not in values[key])
        if lacking:
            missing[lacking].append(key)
    computed = 0
    for lacking, keys in missing.items():
        for start in range(0, len(keys), BATCH_SIZE):
            batch = keys[start : start + BATCH_SIZE]
            families: dict[Family, list[str]] = defaultdict(list)
            for metric in lacking:
                families[METRICS[metric].family].append(metric)
            for family, wanted in families.items():
                _score(family, wanted, {key: trials[key] for key in batch}, outcomes, values)
            with database.connect() as connection:
                _write(connection, [(key, metric, values[key][metric]) for key in batch for metric in lacking])
            computed += len(batch) * len(lacking)
    return Scores(values, computed)


def _score(
    family: Family,
    metrics: Sequence[str],
    trials: Mapping[str, Trial],
    outcomes: Mapping[str, TrialOutcome],
    values: Mapping[str, Values],
) -> None:
    """Add the scores of one family of metrics to ``values``, computing trials that look alike to it once."""
    alike: dict[tuple[Any, ...], list[str]] = defaultdict(list)
    for key, trial in trials.items():
        alike[_seen_by(family, trial, outcomes[key])].append(key)
    columns = score([to_record(trials[keys[0]], outcomes[keys[0]]) for keys in alike.values()], metrics)
    for metric, column in columns.items():
        for keys, value in zip(alike.values(), column, strict=True):
            for key in keys:
                values[key][metric] = value


def _seen_by(family: Family, trial: Trial, outcome: TrialOutcome) -> tuple[Any, ...]:
    """All of a trial that a family of metrics looks at; the range that is read of a hit stands for its text."""
    found = tuple((hit.version_id, *read_range(hit)) for hit in trial.result.hits)
    said = (outcome.answer, outcome.refused, outcome.failed)
    match family:
        case "retrieval":
            return (trial.question.question_id, found, outcome.failed)
        case "answer" | "refusal":
            return (trial.question.question_id, said)
        case "grounding":
            return (trial.question.question_id, found, said)


def _read(connection: Connection, trials: Sequence[str], metrics: Sequence[str]) -> dict[str, Values]:
    values: dict[str, Values] = {trial: {} for trial in trials}
    for trial, metric, value in connection.execute(
        "SELECT trial, metric, value FROM trial_score WHERE trial = ANY(%s) AND metric = ANY(%s)",
        (list(trials), list(metrics)),
    ):
        values[trial][metric] = value
    return values


def _write(connection: Connection, rows: Sequence[tuple[str, str, float | None]]) -> None:
    """Add scores; the order of keys is that of every other writer, so that two cannot wait for each other."""
    connection.execute("CREATE TEMP TABLE new_score (trial text, metric text, value double precision) ON COMMIT DROP")
    with connection.cursor() as cursor:
        with cursor.copy("COPY new_score (trial, metric, value) FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)
    connection.execute(
        """INSERT INTO trial_score (trial, metric, value)
           SELECT trial, metric, value FROM new_score ORDER BY trial, metric ON CONFLICT DO NOTHING"""
    )
