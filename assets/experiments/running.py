"""Running an experiment: from its file to a recorded result, in the order the asset calls it.

Belongs here: what one run holds together (snapshots, questions, variants, budget), and the transaction of the result.
Does not belong here: each step's own work (trials.py, scores.py, leaderboard.py, recommendation.py, report.py).
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from psycopg.types.json import Jsonb

from assets.evaluation.dataset import Question, read_dataset
from assets.evaluation.holdout import record_use
from assets.evaluation.metrics.base import METRICS, metric_fingerprint
from assets.evaluation.metrics.catalogue import metrics_of
from assets.evaluation.metrics.semantic_metrics import semantic_fingerprints, semantic_metrics
from assets.experiments import early_out, planning, report, searching, trials
from assets.experiments import leaderboard as boards
from assets.experiments import recommendation as recommendations
from assets.experiments.champion import (
    EVIDENCE_KIND,
    Champion,
    current_champion,
    experiment_config,
    settings_fingerprint,
)
from assets.experiments.checks import CHECKS, decided_questions
from assets.experiments.judged import JudgeStates, Judging, judge_states, judging_of
from assets.experiments.leaderboard import Leaderboard
from assets.experiments.planning import Plan
from assets.experiments.readiness import refuse_unbuilt
from assets.experiments.recommendation import Recommendation
from assets.experiments.records import TrialOutcome, read_outcomes
from assets.experiments.scope import Scope, resolve_scope
from assets.experiments.scores import Scores, score_trials
from assets.experiments.sharing import Sharing, measure_sharing
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
        judging: the judges that score every trial; None without any.
        inputs: hash of all the result is computed from (early_out.py), as it was when the run began.
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
    judging: Judging | None = None
    inputs: str = ""


@dataclass(frozen=True)
class Measurement:
    """The trials of a run with their records and scores; ``seconds`` by step.

    Attributes:
        variants: those of the plan, in its order.
        search: what a strategy left out where and why; None when every variant of the grid was asked everything.
        earlier: fingerprints of trials of rounds before, beside those of the plan.
    """

    plan: Plan
    work: TrialWork
    outcomes: Mapping[str, TrialOutcome]
    scores: Scores
    seconds: Mapping[str, float]
    variants: tuple[Variant, ...] = ()
    search: Mapping[str, Any] | None = None
    earlier: frozenset[str] = frozenset()

    @property
    def rests_on(self) -> set[str]:
        """Fingerprints of all trials that a result of it rests on."""
        return {trial.fingerprint for trial in self.plan.trials} | self.earlier


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

    @property
    def sharing(self) -> Mapping[str, Any]:
        """What the variants have in common (``Sharing.to_json``); empty in results of earlier versions."""
        return self.leaderboard.get("sharing") or {}


@contextmanager
def prepared(platform: Platform, name: str, run_id: str, lease: Lease) -> Iterator[Experiment]:
    """Fix what the run is about: variants, champion, budget, questions, and the serving snapshot of each index.

    The snapshots stay pinned while the block runs, so that no retention job removes them under a trial.

    Raises:
        PermanentError: the experiment cannot be run as it is configured, or its dataset was never built.
        SnapshotNotFoundError: an index was never built, or not from all sources that another one shows.
    """
    config = experiment_config(platform.config, name)
    boards.check_decisions(platform.config, [name])
    searching.check_search(config)
    currencies = {platform.config.chat_model(model).price.currency for model in config.model_names}
    budget = Budget(config.budget, currency=min(currencies) if len(currencies) == 1 else "USD")
    models = platform.models.within(budget)
    index = VectorIndex(platform.database, platform.config, models)
    with platform.database.connect() as connection:
        variants = tuple(expand(platform.config, models, config, connection))
    judging = judging_of(platform.database, platform.config, models, config, run_id)
    with platform.database.connect() as connection:
        refuse_unbuilt(connection, platform, name, config.index_names)
    snapshots = {one: index.serving(one) for one in config.index_names}
    pin = f"experiment:{name}:running"
    with platform.database.connect() as connection:
        lease.check(connection)
        _pin(connection, pin, snapshots)
        versions = register_variants(connection, variants, run_id)
        champion = current_champion(connection, platform.config, models, config)
        scope = resolve_scope(connection, platform.config, config, snapshots)
        # as they are now, not when the run ends: what changes meanwhile is not in the result, and has to wake the next run
        inputs = early_out.inputs_fingerprint(connection, platform, config, variants, champion.variant, snapshots)
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
            judging=judging,
            inputs=inputs,
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
    """Run and score the trials that are missing: by default as the strategy of the experiment has it (``search``)."""
    if variants is None and scope is None and experiment.config.search.strategy != "grid":
        found = searching.search(experiment, partial(_measure, experiment, progress=progress))
        return replace(found.measurement, variants=found.variants, search=found.trace, earlier=found.rests_on)
    return _measure(experiment, variants or experiment.variants, scope or experiment.scope, progress=progress)


def _measure(
    experiment: Experiment,
    variants: Sequence[Variant],
    scope: Scope,
    *,
    progress: Progress,
    metrics: Sequence[str] | None = None,
    of: int | None = None,
    settled: frozenset[str] = frozenset(),
) -> Measurement:
    """Run and score the trials of every variant on every question that are missing.

    Args:
        metrics: ids; all by default.
        of: so many trials ``maximum_failed_share`` is a share of, where these are a part of them.
        settled: trials that failed in this run already.
    """
    database, retriever = experiment.platform.database, experiment.answerer.retriever
    config = experiment.config
    if of is not None:
        share = config.maximum_failed_share * max(1.0, of / max(1, len(variants) * len(scope.questions)))
        config = config.model_copy(update={"maximum_failed_share": min(1.0, share)})
    plan = planning.plan_trials(
        database,
        retriever,
        variants,
        scope,
        run_id=experiment.run_id,
        lease=experiment.lease,
    )
    began = time.monotonic()
    work = trials.run_trials(
        database,
        experiment.answerer,
        experiment.platform.config,
        config,
        scope,
        plan,
        run_id=experiment.run_id,
        lease=experiment.lease,
        progress=progress,
        settled=settled,
    )
    ran = time.monotonic()
    outcomes = read_outcomes(database, plan)
    judging = experiment.judging and experiment.judging.of(metrics)
    wanted = list(METRICS if metrics is None else metrics)
    semantic = semantic_metrics(experiment.models)
    semantic = {key: one for key, one in semantic.items() if metrics is None or key in metrics}
    scores = score_trials(database, plan, outcomes, wanted, judging=judging, semantic=semantic, lease=experiment.lease)
    return Measurement(
        plan=plan,
        work=replace(work, stopped=work.stopped or scores.stopped),
        outcomes=outcomes,
        scores=scores,
        variants=tuple(variants),
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
    states = judges_as_they_stand(experiment)
    key = _result_fingerprint(experiment, measurement, states)
    folder = early_out.folder_of(experiment.platform, experiment.config.name)
    with experiment.platform.database.connect() as connection:
        newest = connection.execute(
            """SELECT result_id, fingerprint, leaderboard, recommendation FROM experiment_result
               WHERE experiment = %s ORDER BY result_id DESC LIMIT 1""",
            (experiment.config.name,),
        ).fetchone()
    confirmation_work = TrialWork()
    rests_on = measurement.rests_on
    stands = bool(newest and newest[1] == key)
    if newest and stands and not recommendations.is_pending(newest[3]):
        result_id, _, board, recommendation = newest
        _renew_inputs(experiment, result_id, measurement, outcomes)
    else:
        measured = boards.measure(
            measurement.variants, experiment.scope, measurement.plan, measurement.outcomes, measurement.scores
        )
        board = {
            **boards.build(
                experiment.config,
                experiment.scope,
                measured,
                champion=experiment.champion.variant.name,
                prompt_versions=experiment.prompt_versions,
                models=experiment.models,
                metrics=metrics_of(experiment.platform.config, experiment.config),
            ),
            "champion_reason": experiment.champion.reason,
            "settings": settings_fingerprint(experiment.config),
            "sharing": _sharing(experiment, measurement).to_json(),
            **({"search": measurement.search} if measurement.search is not None else {}),
            **({"judges": _judges(states, measurement)} if states else {}),
        }
        recommendation = recommendations.recommend(board)
        if recommendation["recommended"] and experiment.config.split == "dev":
            confirmation_work, confirmed = _confirm(experiment, board, recommendation)
            rests_on |= confirmed
        if newest and stands and recommendations.is_pending(recommendation):
            result_id, _, board, recommendation = newest  # still not confirmed: nothing new to record
        else:
            stands = False
            planned = len(measurement.plan.trials)
            result_id = _record(experiment, key, board, recommendation, outcomes, rests_on, planned)
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


def judges_as_they_stand(experiment: Experiment) -> JudgeStates:
    """The judges of a run, and whether they may decide; empty without any."""
    if experiment.judging is None:
        return {}
    with experiment.platform.database.connect() as connection:
        return judge_states(connection, experiment.platform.config, experiment.models, experiment.config)


def _judges(states: JudgeStates, measurement: Measurement) -> dict[str, Any]:
    """What the leaderboard says of the judges: how they stand, and what they did to the trials."""
    return {metric: {**state, **measurement.scores.judged[metric].to_json()} for metric, state in states.items()}


def _sharing(experiment: Experiment, measurement: Measurement) -> Sharing:
    with experiment.platform.database.connect() as connection:
        return measure_sharing(
            connection,
            experiment.platform.config,
            experiment.scope,
            measurement.plan,
            measurement.outcomes,
            metrics_of(experiment.platform.config, experiment.config),
            generations=measurement.work.generations,
            scores=measurement.scores.computed,
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
    metrics = metrics_of(experiment.platform.config, experiment.config)
    if not decided_questions(experiment.config.decision_metric, scope.questions, metrics):
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


def _result_fingerprint(experiment: Experiment, measurement: Measurement, states: JudgeStates) -> str:
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
                [trial.fingerprint, measurement.outcomes[trial.fingerprint].state] for trial in measurement.plan.trials
            ],
            **({"search": measurement.search} if measurement.search is not None else {}),
            **({"judges": _judges(states, measurement)} if states else {}),
            **({"semantic": semantic} if (semantic := semantic_fingerprints(experiment.models)) else {}),
        }
    )  # fmt: skip


def _record(
    experiment: Experiment,
    key: str,
    board: Leaderboard,
    recommendation: Recommendation,
    outcomes: Sequence[CheckOutcome],
    rests_on: set[str],
    planned: int,
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
        _describe_inputs(connection, experiment, row[0], outcomes, planned)
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


def _renew_inputs(
    experiment: Experiment, result_id: int, measurement: Measurement, outcomes: Sequence[CheckOutcome]
) -> None:
    """Write down what a result that still stands was found from this time."""
    with experiment.platform.database.connect() as connection:
        experiment.lease.check(connection)
        _describe_inputs(connection, experiment, result_id, outcomes, len(measurement.plan.trials))


def _describe_inputs(
    connection: Connection, experiment: Experiment, result_id: int, outcomes: Sequence[CheckOutcome], planned: int
) -> None:
    """Write down what a result was computed from, so that the next run can tell whether it has anything to do."""
    counts = connection.execute(
        """SELECT count(*), count(*) FILTER (WHERE status = 'failed')
           FROM result_trial JOIN trial ON trial.fingerprint = result_trial.trial WHERE result_id = %s""",
        (result_id,),
    ).fetchone()
    assert counts is not None
    connection.execute(
        "UPDATE experiment_result SET inputs = %s, outcomes = %s WHERE result_id = %s",
        (
            experiment.inputs,
            Jsonb(early_out.described(outcomes, trials=planned, rests_on=counts[0], failed=counts[1])),
            result_id,
        ),
    )


def _pin(connection: Connection, pinned_by: str, snapshots: Mapping[str, int]) -> None:
    """Make ``snapshots`` the ones pinned under this name, and no others."""
    connection.execute("DELETE FROM snapshot_pin WHERE pinned_by = %s", (pinned_by,))
    for index, snapshot in sorted(snapshots.items()):
        connection.execute(
            "INSERT INTO snapshot_pin (index_name, snapshot, pinned_by) VALUES (%s, %s, %s)",
            (index, snapshot, pinned_by),
        )
