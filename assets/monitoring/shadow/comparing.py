"""Shadow: the champion and the candidate on the questions people really asked.

Belongs here: which live questions are asked again, on whose behalf, by whom, and the paired comparison of the answers.
Does not belong here: Dagster's view (assets.py), the checks (checks.py), forgetting (interactions.py), and who is champion:
no result of a shadow changes that.

Nobody wrote down what is right for a live question, so only metrics that need no reference are read, and whether an answer
was given to questions that what was retrieved seems to answer (refusing the others is right). A question is asked again with the conditions of its caller, labels among them; one of which these were
not written down is left out. Nothing is logged as an interaction; the trials carry the interaction's id and go with it.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from psycopg.types.json import Jsonb

from assets.evaluation.dataset import Question
from assets.evaluation.metrics.base import METRICS, metric_fingerprint
from assets.evaluation.metrics.grounding import analyse_chunk
from assets.evaluation.metrics.grounding_metrics import texts_of
from assets.evaluation.metrics.relevance import answered_share
from assets.experiments.arena_verdict import judge, pair_verdict, too_few
from assets.experiments.champion import Champion, answering_champion, experiment_config
from assets.experiments.planning import CODE_VERSION as TRIAL_VERSION
from assets.experiments.planning import Plan, Trial
from assets.experiments.records import TrialOutcome, read_outcomes
from assets.experiments.scope import Scope
from assets.experiments.scores import Values, score_trials
from assets.experiments.statistics import holm
from assets.experiments.trials import TrialWork, run_trials
from assets.experiments.variants import expand, register_variants
from assets.monitoring.interactions import forget_shadows, shadow_dataset
from resources.answerer import Answerer
from resources.config import ProjectConfig
from resources.errors import BudgetExceededError, PermanentError
from resources.experiment_config import ExperimentConfig
from resources.fingerprint import fingerprint
from resources.interaction_log import caller_filter
from resources.models import Budget, Usage
from resources.platform import Platform
from resources.postgres import Connection, Lease
from resources.prompt_labels import CANDIDATE, find_prompt
from resources.variants import Variant, narrowed
from resources.vector_index import SearchFilter, SearchHit, SearchResult, VectorIndex

CODE_VERSION = "1"
#: Most questions asked again in one run.
MAXIMUM_QUESTIONS = 500
#: Largest loss that is taken for none where the experiment sets no margin.
MARGIN = 0.02
ANSWERED = "answered"


def _newest(name: str) -> list[str]:
    versions = [int(key.rpartition("/")[2]) for key in METRICS if key.rpartition("/")[0] == name]
    return [f"{name}/{max(versions)}"] if versions else []


#: Read beside whether an answer was given; a regression in any of these is one.
DECIDING = (*_newest("genaiops.groundedness_lexical"), *_newest("ragas.answer_relevance_lexical"))
_NO_REFERENCE = "answers that are no refusal"


def metrics_without_reference() -> list[str]:
    """Ids of the metrics that need neither evidence nor a reference answer."""
    return [
        key
        for key, metric in METRICS.items()
        if metric.applies_to == _NO_REFERENCE
        and metric.aggregation == "mean"
        and metric.range == (0.0, 1.0)
        and metric.higher_is_better
        and not metric.looks_at & {"gold", "reference"}
    ]


@dataclass(frozen=True)
class LiveQuestion:
    """A question as it was asked; ``caller`` is what the caller could see and asked for."""

    interaction_id: str
    question: str
    index: str
    caller: SearchFilter


@dataclass(frozen=True)
class Traffic:
    """The newest live questions, each once.

    Attributes:
        unknown: interactions left out because the conditions they were asked with are not on record.
        repeated: interactions left out because a newer one asks the same on the same conditions.
    """

    questions: tuple[LiveQuestion, ...]
    unknown: int
    repeated: int


@dataclass(frozen=True)
class Shadow:
    """What one run found.

    Attributes:
        report: JSON-able numbers without an id of an interaction; see ``compare``. None: there was nothing to compare.
        verdict: ``no candidate``, ``too little traffic``, ``incomplete``, ``worse`` or ``no worse shown``.
        reason: of the verdict, in words.
    """

    verdict: str
    reason: str
    champion: str
    candidate: str | None
    traffic: Traffic
    report: Mapping[str, Any] | None
    work: TrialWork
    spent: Usage

    @property
    def fingerprint(self) -> str:
        """Of what was found; the data version of the asset."""
        return fingerprint([CODE_VERSION, self.verdict, self.champion, self.candidate, self.report])


def compare_on_traffic(platform: Platform, name: str, run_id: str, lease: Lease) -> Shadow:
    """Ask the newest live questions again, and compare champion and candidate on them.

    Raises:
        PermanentError: there is no such experiment, or no champion can be made.
    """
    config = experiment_config(platform.config, name)
    currencies = {platform.config.chat_model(model).price.currency for model in config.model_names}
    budget = Budget(config.budget, currency=min(currencies) if len(currencies) == 1 else "USD")
    models = platform.models.within(budget)
    with platform.database.connect() as connection:
        lease.check(connection)
        forget_shadows(connection)
        champion = answering_champion(connection, platform.config, models, config)
        candidate, why = find_candidate(connection, platform.config, models, config, champion)
        traffic = read_traffic(connection, config.index_names)
        if candidate is not None:
            register_variants(connection, [champion.variant, candidate], run_id)

    def found(
        verdict: str, reason: str, report: Mapping[str, Any] | None = None, work: TrialWork | None = None
    ) -> Shadow:
        shown = None if candidate is None else candidate.name
        return Shadow(verdict, reason, champion.variant.name, shown, traffic, report, work or TrialWork(), budget.spent)

    if candidate is None:
        return found("no candidate", why)
    if not traffic.questions:
        return found("too little traffic", "no live question that can be asked again")
    index = VectorIndex(platform.database, platform.config, models)
    answerer = Answerer(platform.database, platform.config, models, index)
    snapshots = {one: index.serving(one) for one in dict.fromkeys([champion.variant.index, candidate.index])}
    if champion.snapshot is not None:
        snapshots[champion.variant.index] = champion.snapshot
    scope = _scope(name, traffic, snapshots)
    try:
        with _pinned(platform, f"shadow:{name}:running", snapshots, lease):
            plan = _plan(answerer, [champion.variant, candidate], scope, traffic, run_id)
            work = run_trials(
                platform.database, answerer, platform.config, config, scope, plan, run_id=run_id, lease=lease
            )
    except BudgetExceededError as error:  # in a step of retrieval
        return found("incomplete", str(error))
    outcomes = read_outcomes(platform.database, plan)
    scores = score_trials(platform.database, plan, outcomes, metrics_without_reference())
    with platform.database.connect() as connection:
        lease.check(connection)
        forget_shadows(connection)  # of interactions that went meanwhile
    if work.stopped or any(trial.fingerprint not in outcomes for trial in plan.trials):
        return found("incomplete", work.stopped or "an interaction went while its question was asked", work=work)
    report = compare(config, plan, outcomes, scores.values)
    if report["verdict"] != "too little traffic":
        _record(platform, lease, name, champion.variant, candidate, report, run_id)
    return found(report["verdict"], report["reason"], report, work)


# --- who and what -----------------------------------------------------------------------------------------


def find_candidate(
    connection: Connection, config: ProjectConfig, models: Any, experiment: ExperimentConfig, champion: Champion
) -> tuple[Variant | None, str]:
    """Who might replace the champion: the variant recommended last, else the champion with the candidate of its prompt.

    Returns:
        The variant, or None and why there is none.
    """
    row = connection.execute(
        """SELECT recommendation ->> 'recommended' FROM experiment_result
           WHERE experiment = %s ORDER BY result_id DESC LIMIT 1""",
        (experiment.name,),
    ).fetchone()
    if row and row[0]:
        try:
            named = {variant.name: variant for variant in expand(config, models, experiment, connection)}
        except PermanentError:  # another variant of the grid cannot be made any more
            named = {}
        recommended = named.get(row[0])
        if recommended is not None and recommended.fingerprint != champion.variant.fingerprint:
            return recommended, f"recommended by the newest result of {experiment.name}"
    reference = f"{champion.variant.prompt.name}@{CANDIDATE}"
    try:
        prompt = find_prompt(connection, config.prompts, reference)
    except PermanentError:
        return None, f"nothing is recommended, and no version of {champion.variant.prompt.name} is labelled {CANDIDATE}"
    name = champion.variant.name.replace(champion.variant.prompt_reference, reference, 1)
    labelled = replace(champion.variant, prompt=prompt, name=name)
    if labelled.fingerprint == champion.variant.fingerprint:
        return None, f"nothing is recommended, and the {CANDIDATE} of {prompt.name} is what answers already"
    return labelled, f"{reference} in place of the champion's prompt"


def read_traffic(connection: Connection, indexes: Sequence[str], limit: int = MAXIMUM_QUESTIONS) -> Traffic:
    """The newest questions answered from one of ``indexes``, each once for each set of conditions of a caller."""
    rows = connection.execute(
        """WITH asked AS (
               SELECT interaction_id, question, index_name, filters, asked_at,
                      row_number() OVER (PARTITION BY lower(regexp_replace(btrim(question), '\\s+', ' ', 'g')), filters
                                         ORDER BY asked_at DESC, interaction_id) AS place
               FROM interaction WHERE index_name = ANY(%(indexes)s) AND filters IS NOT NULL)
           SELECT interaction_id::text, question, index_name, filters FROM asked WHERE place = 1
           ORDER BY asked_at DESC, interaction_id LIMIT %(limit)s""",
        {"indexes": list(indexes), "limit": limit},
    ).fetchall()
    counts = connection.execute(
        """SELECT count(*) FILTER (WHERE filters IS NULL), count(*) FILTER (WHERE filters IS NOT NULL),
                  count(DISTINCT (lower(regexp_replace(btrim(question), '\\s+', ' ', 'g')), filters))
                      FILTER (WHERE filters IS NOT NULL)
           FROM interaction WHERE index_name = ANY(%s)""",
        (list(indexes),),
    ).fetchone()
    assert counts is not None
    questions, unreadable = [], 0
    for identity, question, index, stored in rows:
        try:
            questions.append(LiveQuestion(identity, question, index, caller_filter(stored)))
        except (TypeError, ValueError):
            unreadable += 1
    return Traffic(tuple(questions), counts[0] + unreadable, counts[1] - counts[2])


def _scope(name: str, traffic: Traffic, snapshots: Mapping[str, int]) -> Scope:
    questions = tuple(
        Question(
            question_id=one.interaction_id,
            question=one.question,
            answer=None,
            answerable=True,  # not known; no metric that is read looks at it
            split="live",
            tags={},
            status="active",
            reason=None,
            fingerprint=fingerprint([one.question]),
            gold=(),
        )
        for one in traffic.questions
    )
    return Scope(shadow_dataset(name), 0, "live", questions, (), dict(snapshots))


# --- asking -----------------------------------------------------------------------------------------------


def _plan(answerer: Answerer, variants: Sequence[Variant], scope: Scope, traffic: Traffic, run_id: str) -> Plan:
    """Retrieve for every variant on behalf of every caller.

    Not through the memo of searches: its keys know nothing of callers, and what one may see another may not.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for at, one in enumerate(traffic.questions):
        groups[repr(one.caller)].append(at)
    found: dict[str, list[SearchResult]] = {}
    for variant in variants:
        if variant.searching in found:
            continue
        results: dict[int, SearchResult] = {}
        for members in groups.values():
            caller = traffic.questions[members[0]].caller
            options: dict[str, Any] = {**variant.search_options, "filters": narrowed(variant.filters, caller)}
            answers = answerer.retriever.retrieve_many(
                variant.index,
                [traffic.questions[at].question for at in members],
                mode=variant.search_mode,  # type: ignore[arg-type]
                k=variant.k,
                settings=variant.retrieval,
                snapshot=scope.snapshots[variant.index],
                run_id=run_id,
                **options,
            )
            results |= dict(zip(members, answers, strict=True))
        found[variant.searching] = [results[at] for at in range(len(traffic.questions))]
    trials = [
        _trial(scope, variant, question, result)
        for variant in variants
        for question, result in zip(scope.questions, found[variant.searching], strict=True)
    ]
    return Plan(tuple(trials), searches=len(found) * len(scope.questions), seconds=0.0)


def _trial(scope: Scope, variant: Variant, question: Question, result: SearchResult) -> Trial:
    hits = [_seen(hit) for hit in sorted(result.hits, key=lambda hit: hit.rank)]
    error = getattr(result, "error", None)
    key = {
        "code": ["shadow", CODE_VERSION, TRIAL_VERSION],
        "variant": variant.fingerprint,
        "retrieved": hits,
        "failed": error,
        "dataset": scope.dataset,
        "question_id": question.question_id,
        "question": question.fingerprint,
    }
    return Trial(fingerprint(key), variant, question, result, fingerprint([variant.answering, question.question, hits]))


def _seen(hit: SearchHit) -> list[Any]:
    return [
        hit.document_id, hit.version_id, hit.start, hit.end, hit.read_start, hit.read_end, hit.source, hit.path, hit.title,
        *hit.heading_path,
    ]  # fmt: skip


@contextmanager
def _pinned(platform: Platform, pinned_by: str, snapshots: Mapping[str, int], lease: Lease) -> Iterator[None]:
    """Keep retention away from the snapshots while questions are asked on them."""
    with platform.database.connect() as connection:
        lease.check(connection)
        connection.execute("DELETE FROM snapshot_pin WHERE pinned_by = %s", (pinned_by,))
        for index, snapshot in snapshots.items():
            connection.execute(
                "INSERT INTO snapshot_pin (index_name, snapshot, pinned_by) VALUES (%s, %s, %s)",
                (index, snapshot, pinned_by),
            )
    try:
        yield
    finally:
        with platform.database.connect() as connection:
            connection.execute("DELETE FROM snapshot_pin WHERE pinned_by = %s", (pinned_by,))


# --- comparing --------------------------------------------------------------------------------------------


def compare(
    experiment: ExperimentConfig,
    plan: Plan,
    outcomes: Mapping[str, TrialOutcome],
    values: Mapping[str, Values],
) -> dict[str, Any]:
    """Compare the second half of a plan's trials (the candidate's) with the first, question by question.

    Each metric is read on the questions that both have a value for; whether an answer was given, on those that the chunks of
    either seem to answer, which no answer decides. That and the metrics of ``DECIDING`` are one family of one-sided tests; ``worse``: shown to be lower, by more than the margin.

    Returns:
        ``verdict``, ``reason``, ``margin``, ``questions``, and ``metrics``: one entry a metric with means, difference with
        interval, adjusted p-values and its own verdict.
    """
    import numpy as np

    half = len(plan.trials) // 2
    pairs = list(zip(plan.trials[:half], plan.trials[half:], strict=True))
    margin, alpha = experiment.margins.non_inferiority or MARGIN, 1 - experiment.confidence
    columns = {
        ANSWERED: [
            tuple(float(_answered(outcomes[one.fingerprint])) for one in pair)
            for pair in pairs
            if _seem_to_answer(pair)
        ]
    }
    for metric in metrics_without_reference():
        both = [tuple(values[one.fingerprint].get(metric) for one in pair) for pair in pairs]
        columns[metric] = [pair for pair in both if None not in pair]  # type: ignore[misc]
    rows = []
    for metric, scores in columns.items():
        row: dict[str, Any] = {
            "metric": metric,
            "fingerprint": None if metric == ANSWERED else metric_fingerprint(metric),
            "deciding": metric == ANSWERED or metric in DECIDING,
            "questions": len(scores),
            "verdict": "too little traffic",
        }
        if not too_few(len(scores), None):
            result = judge(
                np.array(scores, dtype=float),
                [(0, 1)],
                [True],
                [""] * len(scores),
                margin=margin,
                confidence=experiment.confidence,
                resamples=experiment.resamples,
                seed=experiment.seed,
            )[0]
            row |= {
                "champion": result.base_mean, "candidate": result.head_mean, "difference": dict(result.difference),
                "p_worse": result.p_worse, "p_margin": result.p_margin, "detectable": result.detectable,
            }  # fmt: skip
        rows.append(row)
    deciding = [row for row in rows if row["deciding"] and "p_worse" in row]
    for key in ("p_worse", "p_margin"):
        for row, p in zip(deciding, holm([row[key] for row in deciding]), strict=True):
            row[key] = p
    for row in rows:
        if "p_worse" in row:
            worse, kept = row["p_worse"] < alpha, row["p_margin"] < alpha
            change = row["difference"]["estimate"]
            row["verdict"] = pair_verdict(change, margin, worse=worse, better=False, kept=kept)
    return {"margin": margin, "questions": half, "metrics": rows, **_verdict(half, deciding)}


def _answered(outcome: TrialOutcome) -> bool:
    return not (outcome.refused or outcome.failed)


def _seem_to_answer(pair: tuple[Trial, Trial]) -> bool:
    """Whether the chunks that either variant retrieved seem to answer most of what is asked."""
    first, second = pair
    texts = list(dict.fromkeys([*texts_of(first.result.hits), *texts_of(second.result.hits)]))
    return answered_share(first.question.question, [analyse_chunk(text) for text in texts]) > 0.5


def _verdict(questions: int, deciding: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    worse = [row["metric"] for row in deciding if row["verdict"] == "worse"]
    if not deciding:
        return {"verdict": "too little traffic", "reason": f"{questions} live questions are too few for any test"}
    if worse:
        return {"verdict": "worse", "reason": f"the candidate is shown to be worse in {', '.join(worse)}"}
    largest = max(row["detectable"] for row in deciding)
    return {
        "verdict": "no worse shown",
        "reason": f"no loss is shown on {questions} live questions, which would show one of {largest:.3f}",
    }


def _record(
    platform: Platform,
    lease: Lease,
    name: str,
    champion: Variant,
    candidate: Variant,
    report: Mapping[str, Any],
    run_id: str,
) -> None:
    """Keep the result, unless the newest one says the same."""
    with platform.database.connect() as connection:
        lease.check(connection)
        newest = connection.execute(
            "SELECT champion, challenger, report FROM shadow_result WHERE experiment = %s ORDER BY result_id DESC LIMIT 1",
            (name,),
        ).fetchone()
        stored = json.loads(json.dumps(report))
        if newest == (champion.fingerprint, candidate.fingerprint, stored):
            return
        connection.execute(
            """INSERT INTO shadow_result (experiment, champion, challenger, interactions, report, run_id)
               VALUES (%s, %s, %s, %s, %s, %s)""",
            (name, champion.fingerprint, candidate.fingerprint, report["questions"], Jsonb(stored), run_id),
        )
