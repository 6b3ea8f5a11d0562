"""Running an experiment: from its file to a recorded result, in the order the asset calls it.

Belongs here: what one run holds together (snapshots, questions, variants, budget), and the transaction of the result.
Does not belong here: each step's own work (trials.py, scores.py, leaderboard.py, recommendation.py, report.py).
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from psycopg.types.json import Jsonb

from assets.evaluation.dataset import Question, read_dataset
from assets.evaluation.holdout import record_use
from assets.evaluation.metrics.base import METRICS, metric_fingerprint
from assets.experiments import leaderboard as boards
from assets.experiments import planning, report, trials
from assets.experiments import recommendation as recommendations
from assets.experiments.champion import (
    EVIDENCE_KIND,
    Champion,
    current_champion,
    experiment_config,
    settings_fingerprint,
)
from assets.experiments.checks import CHECKS, decided_questions
from assets.experiments.leaderboard import Leaderboard
from assets.experiments.planning import Plan
from assets.experiments.recommendation import Recommendation
from assets.experiments.records import TrialOutcome, read_outcomes
from assets.experiments.scope import Scope, resolve_scope
from assets.experiments.scores import Scores, score_trials
from assets.experiments.slices import groups_of
from assets.experiments.trials import Progress, TrialWork
from assets.experiments.variants import expand, register_variants
from assets.outcomes import CheckOutcome, record_evidence
from resources.answerer import Answerer, Variant
from resources.errors import BudgetExceededError
from resources.experiment_config import ExperimentConfig
from resources.faults import crash_point
from resources.fingerprint import fingerprint
from resources.models import Budget, Models, Usage
from resources.platform import Platform
from resources.postgres import Connection, Lease
from resources.prompt_labels import CANDIDATE, set_label
from resources.vector_index import VectorIndex


@dataclass(frozen=True)
class Experiment:
    """One run of an experiment, before any trial.

    Attributes:
        models: the platform's models, charging every request to ``budget``.
        scope: questions and snapshots, the same for all trials of the run.
    """

    config: ExperimentConfig
    platform: Platform
    run_id: str
    lease: Lease
    models: Models
    budget: Budget
    index: VectorIndex
    answerer: Answerer
    variants: tuple[Variant, ...]
    prompt_versions: Mapping[str, int]
    champion: Champion
    scope: Scope


@dataclass(frozen=True)
class Measurement:
    """The trials of a run with their records and scores; ``seconds`` by step."""

    plan: Plan
    work: TrialWork
    outcomes: Mapping[str, TrialOutcome]
    scores: Scores
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class Result:
    """What an experiment found.

    Attributes:
        fingerprint: of everything that was compared; the data version of the asset.
        new: false when the newest result on record is this one.
        files: report (HTML) and trial records (Parquet).
    """

    result_id: int
    fingerprint: str
    leaderboard: Leaderboard
    recommendation: Recommendation
    new: bool
    files: Mapping[str, Path]
    confirmation_work: TrialWork


@contextmanager
def prepared(platform: Platform, name: str, run_id: str, lease: Lease) -> Iterator[Experiment]:
    """Fix what the run is about: variants, champion, budget, questions, and the serving snapshot of each index.

    The snapshots stay pinned while the block runs, so that no retention job removes them under a trial.

    Raises:
        PermanentError: the experiment cannot be run as it is configured, or its dataset was never built.
        SnapshotNotFoundError: an index was never published.
    """
    config = experiment_config(platform.config, name)
    boards.check_decision_metric(config)
    currencies = {platform.config.chat_model(model).price.currency for model in config.model_names}
    budget = Budget(config.budget, currency=min(currencies) if len(currencies) == 1 else "USD")
    models = platform.models.within(budget)
    index = VectorIndex(platform.database, platform.config, models)
    with platform.database.connect() as connection:
        variants = tuple(expand(platform.config, models, config, connection))
    snapshots = {one: index.serving(one) for one in config.index_names}
    pin = f"experiment:{name}:running"
    with platform.database.connect() as connection:
        lease.check(connection)
        _pin(connection, pin, snapshots)
        versions = register_variants(connection, variants, run_id)
        champion = current_champion(connection, platform.config, models, config)
        scope = resolve_scope(connection, platform.config, config, snapshots)
    try:
        yield Experiment(
            config=config,
            platform=platform,
            run_id=run_id,
            lease=lease,
            models=models,
            budget=budget,
            index=index,
            answerer=Answerer(platform.database, platform.config, models, index),
            variants=variants,
            prompt_versions=versions,
            champion=champion,
            scope=scope,
        )
    finally:
        with platform.database.connect() as connection:
            _pin(connection, pin, {})


def scored_questions(experiment: Experiment) -> list[Question]:
    """The active questions of the dev and test splits: those a prompt must not give away."""
    with experiment.platform.database.connect() as connection:
        dataset = read_dataset(connection, experiment.scope.dataset, experiment.scope.version)
    return [*dataset.split("dev"), *dataset.split("test")]


def measure(
    experiment: Experiment,
    *,
    variants: Sequence[Variant] | None = None,
    scope: Scope | None = None,
    progress: Progress = lambda done, total: None,
) -> Measurement:
    """Run and score the trials that are missing, of all variants on the experiment's questions by default."""
    database, scope = experiment.platform.database, scope or experiment.scope
    retriever = experiment.answerer.retriever
    plan = planning.plan_trials(
        database,
        retriever,
        variants or experiment.variants,
        scope,
        run_id=experiment.run_id,
        lease=experiment.lease,
    )
    began = time.monotonic()
    work = trials.run_trials(
        database,
        experiment.answerer,
        experiment.platform.config,
        experiment.config,
        scope,
        plan,
        run_id=experiment.run_id,
        lease=experiment.lease,
        progress=progress,
    )
    ran = time.monotonic()
    outcomes = read_outcomes(database, plan)
    scores = score_trials(database, plan, outcomes, list(METRICS))
    return Measurement(
        plan=plan,
        work=work,
        outcomes=outcomes,
        scores=scores,
        seconds={"retrieval": plan.seconds, "trials": ran - began, "scores": time.monotonic() - ran},
    )


def spent(experiment: Experiment) -> Usage:
    """What the run really paid so far, question embeddings included."""
    return experiment.budget.spent


def conclude(experiment: Experiment, measurement: Measurement, outcomes: Sequence[CheckOutcome]) -> Result:
    """Record leaderboard, recommendation and evidence, unless the newest result already says the same.

    Args:
        outcomes: the checks the result rests on; none of them blocking it.
    """
    key = _result_fingerprint(experiment, measurement)
    folder = experiment.platform.artifacts / "experiments" / experiment.config.name
    with experiment.platform.database.connect() as connection:
        newest = connection.execute(
            """SELECT result_id, fingerprint, leaderboard, recommendation FROM experiment_result
               WHERE experiment = %s ORDER BY result_id DESC LIMIT 1""",
            (experiment.config.name,),
        ).fetchone()
    confirmation_work = TrialWork()
    rests_on = {trial.fingerprint for trial in measurement.plan.trials}
    stands = bool(newest and newest[1] == key)
    if newest and stands and not recommendations.is_pending(newest[3]):
        result_id, _, board, recommendation = newest
    else:
        measured = boards.measure(
            experiment.variants, experiment.scope, measurement.plan, measurement.outcomes, measurement.scores
        )
        board = {
            **boards.build(
                experiment.config,
                experiment.scope,
                measured,
                champion=experiment.champion.variant.name,
                prompt_versions=experiment.prompt_versions,
                models=experiment.models,
            ),
            "champion_reason": experiment.champion.reason,
            "settings": settings_fingerprint(experiment.config),
        }
        recommendation = recommendations.recommend(board)
        if recommendation["recommended"] and experiment.config.split == "dev":
            confirmation_work, confirmed = _confirm(experiment, board, recommendation)
            rests_on |= confirmed
        if newest and stands and recommendations.is_pending(recommendation):
            result_id, _, board, recommendation = newest  # still not confirmed: nothing new to record
        else:
            stands = False
            result_id = _record(experiment, key, board, recommendation, outcomes, rests_on)
            crash_point("experiments.result_committed")
    files = report.write(
        folder, result_id, board, recommendation, measurement.plan, measurement.outcomes, measurement.scores
    )
    return Result(
        result_id=result_id,
        fingerprint=key,
        leaderboard=board,
        recommendation=recommendation,
        new=not stands,
        files=files,
        confirmation_work=confirmation_work,
    )


def _confirm(experiment: Experiment, board: Leaderboard, recommendation: Recommendation) -> tuple[TrialWork, set[str]]:
    """Ask champion and recommended variant the held-back questions, and add what comes out to the recommendation.

    A confirmation that was cut short is pending: it is no evidence, and the next run tries again.

    Returns:
        The work it took, and the trials a finished confirmation rests on.
    """
    with experiment.platform.database.connect() as connection:
        scope = resolve_scope(
            connection, experiment.platform.config, experiment.config, experiment.scope.snapshots, split="test"
        )
    if not decided_questions(experiment.config.decision_metric, scope.questions):
        recommendation["caveats"].append("The dataset has no held-back (test) questions to confirm the choice on.")
        return TrialWork(), set()
    by_name = {variant.name: variant for variant in experiment.variants}
    pair = [by_name[recommendation["champion"]], by_name[recommendation["recommended"]]]
    try:
        measurement = measure(experiment, variants=pair, scope=scope)
    except BudgetExceededError as error:
        recommendations.leave_pending(recommendation, str(error))
        return TrialWork(), set()
    if measurement.work.stopped:
        recommendations.leave_pending(recommendation, measurement.work.stopped)
        return measurement.work, set()
    measured = boards.measure(pair, scope, measurement.plan, measurement.outcomes, measurement.scores)
    scores = boards.decision_scores(measured, experiment.config.decision_metric)
    asked = [scope.questions[at] for at in boards.decided(measured, experiment.config.decision_metric)]
    with experiment.platform.database.connect() as connection:
        uses = record_use(
            connection,
            experiment.config.dataset,
            scope.questions,
            experiment=experiment.config.name,
            champion=recommendation["champion_fingerprint"],
            challenger=recommendation["recommended_fingerprint"],
            run_id=experiment.run_id,
        )
    confirmation = recommendations.confirm(
        board,
        recommendation,
        scores[:, 0].tolist(),
        scores[:, 1].tolist(),
        uses=uses,
        groups=groups_of(asked, experiment.config.cluster),
    )
    recommendation["confirmation"] = confirmation
    recommendation["text"] += " " + confirmation["text"]
    return measurement.work, {trial.fingerprint for trial in measurement.plan.trials}


def _result_fingerprint(experiment: Experiment, measurement: Measurement) -> str:
    return fingerprint(
        {
            "code": [
                planning.CODE_VERSION, boards.CODE_VERSION, recommendations.CODE_VERSION, report.CODE_VERSION,
            ],
            "settings": settings_fingerprint(experiment.config),
            "dataset_version": experiment.scope.version,
            "snapshots": dict(experiment.scope.snapshots),
            "champion": experiment.champion.variant.fingerprint,
            "metrics": [metric_fingerprint(metric) for metric in METRICS],
            "checks": list(CHECKS),  # a promotion asks for the evidence of each
            "trials": [
                [trial.fingerprint, measurement.outcomes[trial.fingerprint].status] for trial in measurement.plan.trials
            ],
        }
    )  # fmt: skip


def _record(
    experiment: Experiment,
    key: str,
    board: Leaderboard,
    recommendation: Recommendation,
    outcomes: Sequence[CheckOutcome],
    rests_on: set[str],
) -> int:
    """Write the result with its evidence and trials, and move the pins to its snapshots, in one transaction."""
    name = experiment.config.name
    with experiment.platform.database.connect() as connection:
        experiment.lease.check(connection)
        row = connection.execute(
            """INSERT INTO experiment_result
                   (experiment, fingerprint, dataset_version, snapshots, leaderboard, recommendation, run_id)
               VALUES (%s, %s, %s, %s, %s, %s, %s) RETURNING result_id""",
            (
                name,
                key,
                experiment.scope.version,
                Jsonb(dict(experiment.scope.snapshots)),
                Jsonb(board),
                Jsonb(recommendation),
                experiment.run_id,
            ),
        ).fetchone()
        assert row is not None
        connection.execute(
            "INSERT INTO result_trial (result_id, trial) SELECT %s, unnest(%s::text[])", (row[0], sorted(rests_on))
        )
        record_evidence(connection, EVIDENCE_KIND, name, key, outcomes, experiment.run_id)
        recommended = [one for one in experiment.variants if one.name == recommendation["recommended"]]
        for variant in recommended:
            set_label(
                connection,
                variant.prompt.name,
                CANDIDATE,
                experiment.prompt_versions[variant.prompt_reference],
                by=f"experiment {name}",
                reason=f"result {row[0]} recommends {variant.name}",
            )
        _pin(connection, f"experiment:{name}", experiment.scope.snapshots)
    return row[0]


def _pin(connection: Connection, pinned_by: str, snapshots: Mapping[str, int]) -> None:
    """Make ``snapshots`` the ones pinned under this name, and no others."""
    connection.execute("DELETE FROM snapshot_pin WHERE pinned_by = %s", (pinned_by,))
    for index, snapshot in sorted(snapshots.items()):
        connection.execute(
            "INSERT INTO snapshot_pin (index_name, snapshot, pinned_by) VALUES (%s, %s, %s)",
            (index, snapshot, pinned_by),
        )
