"""Searching a grid: the strategies of strategies.py on the trials of an experiment, and the record of what they did.

Belongs here: what varies between the variants, what their search settings find, asking variants questions for a strategy, and
which variants were left out where and why.
Does not belong here: the strategies (strategies.py), measuring variants (running.py), comparing the ones that were asked
everything (leaderboard.py).

The scores of the search settings come first and ask no model but those of their own steps. A run that stops (its budget, too
many failed trials) or dies is taken up by the next one: rounds are decided by scores alone, and trials are on record.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from assets.evaluation.dataset import Question
from assets.evaluation.judging.judged_metrics import is_judged
from assets.evaluation.metrics.base import METRICS, score
from assets.evaluation.metrics.catalogue import metrics_of
from assets.experiments import guards, planning, strategies
from assets.experiments import leaderboard as boards
from assets.experiments.checks import decided_questions
from assets.experiments.records import TrialOutcome, record_of
from assets.experiments.scores import Scores
from assets.experiments.slices import groups_of, tag_values
from assets.experiments.strategies import Found, Retrieved, Space
from assets.experiments.trials import TrialWork
from resources.errors import PermanentError
from resources.experiment_config import ExperimentConfig
from resources.faults import crash_point
from resources.fingerprint import fingerprint
from resources.variants import Variant

if TYPE_CHECKING:
    import numpy as np

    from assets.experiments.running import Experiment, Measurement
    from assets.experiments.scope import Scope

#: Tag by whose values questions are drawn in their shares, beside whether they can be answered.
TYPE_TAG = "type"
#: Most names that are written out of variants that were never asked anything.
UNTRIED_SHOWN = 200


class Measure(Protocol):
    """Measures variants on questions (running.py)."""

    def __call__(
        self,
        variants: Sequence[Variant],
        scope: Scope,
        /,
        *,
        metrics: Sequence[str] | None,
        of: int,
        settled: frozenset[str],
    ) -> Measurement:
        """By some metrics or, with None, by all; as part of ``of`` trials, some of which failed before."""
        ...


Trace = dict[str, Any]


@dataclass(frozen=True)
class Searched:
    """What a search came to.

    Attributes:
        variants: those that were asked everything, in the order of the grid.
        measurement: of them on all questions; of the round that stopped, if one did.
        trace: what was left out where and why, as the leaderboard keeps it.
        rests_on: fingerprints of all trials of all rounds.
    """

    variants: tuple[Variant, ...]
    measurement: Measurement
    trace: Trace
    rests_on: frozenset[str]


def check_search(config: ExperimentConfig) -> None:
    """Refuse a retrieval metric that is none.

    Raises:
        PermanentError: it is unknown, or looks at more than what was found; the message lists what is allowed.
    """
    allowed = [
        key
        for key, metric in METRICS.items()
        if metric.looks_at <= {"question", "gold", "hits"} and metric.aggregation == "mean" and metric.higher_is_better
    ]
    named = config.search.retrieval_metric
    if named is not None and named not in allowed:
        raise PermanentError(
            f"experiment {config.name}: search.retrieval_metric {named!r} is no metric of what is found; "
            f"allowed: {', '.join(allowed)}"
        )


def search(experiment: Experiment, measure: Measure) -> Searched:
    """Find the variants that deserve all questions by the experiment's strategy, and measure them on all."""
    return _Search(experiment, measure).run()


class _StoppedError(Exception):
    """A round ended before every trial was tried."""

    def __init__(self, variants: Sequence[Variant], measurement: Measurement) -> None:
        super().__init__(measurement.work.stopped)
        self.variants, self.measurement = tuple(variants), measurement


@dataclass
class _Search:
    experiment: Experiment
    measure: Measure
    _planned: int = 0
    _barred: dict[int, str] = field(default_factory=dict)
    _left_out: list[int] = field(default_factory=list)
    _work: TrialWork = field(default_factory=TrialWork)
    _searches: int = 0
    _computed: int = 0
    _seconds: dict[str, float] = field(default_factory=dict)
    _trials: set[str] = field(default_factory=set)
    _failed: set[str] = field(default_factory=set)
    _retrievals: set[tuple[str, str]] = field(default_factory=set)

    def run(self) -> Searched:
        config, scope = self.experiment.config, self.experiment.scope
        settings = config.search
        self.variants = self.experiment.variants
        self.questions: list[Question] = decided_questions(
            config.decision_metric, scope.questions, metrics_of(self.experiment.platform.config, config)
        )
        self.groups = groups_of(self.questions, config.cluster)
        order = strategies.stratified_order(
            [(one.question_id, (one.answerable, tuple(tag_values(one, TYPE_TAG)))) for one in self.questions],
            settings.seed,
        )
        champion = [one.name for one in self.variants].index(self.experiment.champion.variant.name)
        space = _space(self.experiment, champion)
        trace: Trace = {
            "strategy": settings.strategy,
            "seed": settings.seed,
            "grid": len(self.variants),
            "questions": len(self.questions),
        }
        retrieval, out = self._retrieval(space, order)
        trace["retrieval"] = retrieval
        candidates = [at for at in range(len(self.variants)) if at not in out]
        # one variant that always fails is a small part of the whole, and must not end it in a round of few variants
        full = settings.trials if settings.strategy == "bayes" else settings.finalists
        self._planned = min(full, len(candidates)) * len(scope.questions)
        found = None
        try:
            found = self._strategy(space, candidates, order)
            chosen = [self.variants[at] for at in found.finalists]
            measurement = self._measured(chosen, scope)
        except _StoppedError as stopped:
            # of a round that ended early only what decides was scored, and nothing is concluded from it
            chosen, measurement = list(stopped.variants), replace(stopped.measurement, scores=Scores({}, 0))
            trace["stopped"] = measurement.work.stopped
        trace |= self._told(found, out)
        trace["trials"] = {"asked": len(self._trials), "grid": len(self.variants) * len(scope.questions)}
        return Searched(tuple(chosen), self._whole(measurement), trace, frozenset(self._trials))

    def _strategy(self, space: Space, candidates: Sequence[int], order: Sequence[int]) -> Found:
        config, settings = self.experiment.config, self.experiment.config.search
        if not order:
            return Found(tuple(sorted({*candidates, space.champion})), ())
        if settings.strategy == "bayes":
            everything = list(range(len(self.questions)))
            return strategies.bayes(
                space, candidates, everything, self._evaluate, trials=settings.trials, seed=settings.seed
            )
        return strategies.halving(
            space,
            candidates,
            order,
            self._evaluate,
            eta=settings.eta,
            minimum_questions=settings.minimum_questions,
            finalists=settings.finalists,
            confidence=config.confidence,
            seed=settings.seed,
            groups=self.groups,
            tolerance=config.margins.non_inferiority or 0.0,
            barred=lambda: self._barred,
        )

    # --- asking ------------------------------------------------------------------------------------------------

    def _evaluate(self, variants: Sequence[int], questions: Sequence[int]) -> np.ndarray:
        """Scores of the decision metric, shape (questions, variants)."""
        import numpy as np

        chosen = [self.variants[at] for at in variants]
        scope = replace(self.experiment.scope, questions=tuple(self.questions[at] for at in questions))
        # only what decides is scored: other metrics of a variant that is dropped would be worth nothing, and judges cost
        config = self.experiment.config
        metric = config.decision_metric
        measurement = self._measured(
            chosen, scope, list(dict.fromkeys([metric, *(one.metric for one in config.guards)]))
        )
        measured = boards.measure(chosen, scope, measurement.plan, measurement.outcomes, measurement.scores)
        columns = [[values[metric] for values in one.values] for one in measured]
        scores = self._comparable(np.array(columns, dtype=float).T.reshape(len(questions), len(variants)))
        champion = [one.variant.name for one in measured if one.variant.name == self.experiment.champion.variant.name]
        self._barred = self._breaking(variants, measured, scope) if config.guards and champion else {}
        crash_point("experiments.rung_done")
        return scores

    def _comparable(self, scores: np.ndarray) -> np.ndarray:
        """The scores with a value everywhere; counts the questions that a round is not decided by.

        A question on which a judge failed for one variant is left out for all, as ``leaderboard.decided`` has it: all are
        given the mean of the rest of the round there. So it makes no difference between any two, their order is that of the
        rest, and differences come out smaller by its share, which drops rather fewer variants than too many.

        Raises:
            PermanentError: no judge decides, too many questions would be left out, or all of them.
        """
        import numpy as np

        config = self.experiment.config
        metric = config.decision_metric
        known = np.asarray(~np.isnan(scores).any(axis=1))
        left_out = len(scores) - int(known.sum())
        if left_out and not is_judged(metric):
            raise PermanentError(
                f"experiment {config.name}: {metric} has no value on {int(np.isnan(scores).sum())} trials of questions it "
                "applies to, so that variants cannot be compared by it"
            )
        if left_out and (left_out > config.maximum_failed_share * len(scores) or not known.any()):
            raise PermanentError(
                f"experiment {config.name}: {metric} has no value for some variant on {left_out} of {len(scores)} questions of "
                f"a round, of which maximum_failed_share allows {config.maximum_failed_share:.1%}, never all, so that variants "
                "cannot be compared by it. What judges answered is kept: run it again, with `genaiops judges retry` before where "
                "they were given up, or raise maximum_failed_share"
            )
        self._left_out.append(left_out)
        return np.where(known[:, None], scores, scores[known].mean()) if left_out else scores

    def _breaking(self, variants: Sequence[int], measured: Sequence[boards.Measured], scope: Scope) -> dict[int, str]:
        """The variants that are shown to break a guard, with the guard; the champion is none of them."""
        config, name = self.experiment.config, self.experiment.champion.variant.name
        champion = next(one.values for one in measured if one.variant.name == name)
        found: dict[int, str] = {}
        for at, one in zip(variants, measured, strict=True):
            broken = [
                guards.describe(guard)
                for guard in guards.judge(config, scope.questions, one.values, champion)
                if guard["state"] == "broken" and one.variant.name != name
            ]
            if broken:
                found[at] = broken[0]
        return found

    def _measured(self, variants: Sequence[Variant], scope: Scope, metrics: Sequence[str] | None = None) -> Measurement:
        measurement = self.measure(variants, scope, metrics=metrics, of=self._planned, settled=frozenset(self._failed))
        self._failed |= {key for key, outcome in measurement.outcomes.items() if outcome.failed}
        self._count(measurement.plan)
        self._work = self._work + measurement.work
        self._computed += measurement.scores.computed
        self._trials |= {trial.fingerprint for trial in measurement.plan.trials}
        for step, seconds in measurement.seconds.items():
            self._seconds[step] = self._seconds.get(step, 0.0) + seconds
        if measurement.work.stopped:
            raise _StoppedError(variants, measurement)
        return measurement

    def _count(self, plan: planning.Plan) -> None:
        self._searches += plan.searches
        self._retrievals |= {
            (trial.variant.searching, trial.question.question) for trial in plan.trials if trial.variant.task is None
        }

    def _whole(self, measurement: Measurement) -> Measurement:
        """The measurement with the work of all rounds in place of its own."""
        work = replace(
            self._work, reused=len(self._trials) - self._work.run, stopped=measurement.work.stopped
        )  # what a later round found on record may be of an earlier one
        plan = replace(
            measurement.plan,
            searches=self._searches,
            remembered=max(0, len(self._retrievals) - self._searches),
            seconds=self._seconds.get("retrieval", 0.0),
        )
        return replace(
            measurement,
            plan=plan,
            work=work,
            scores=replace(measurement.scores, computed=self._computed),
            seconds=dict(self._seconds),
        )

    # --- search settings ---------------------------------------------------------------------------------------

    def _retrieval(self, space: Space, order: Sequence[int]) -> tuple[Trace, dict[int, str]]:
        """What the search settings find, and the variants of those that another one beats, with the reason."""
        config = self.experiment.config
        settings = config.search
        metric = settings.retrieval_metric or boards.RECALL
        by_setting: dict[str, list[int]] = {}
        for at, variant in enumerate(self.variants):
            if variant.task is None:
                by_setting.setdefault(variant.searching, []).append(at)
        if len(by_setting) < 2:
            return {"skipped": "there is one search setting, or none"}, {}
        precision = boards.PRECISION
        first = max(settings.minimum_questions, math.ceil(len(order) / settings.eta))
        found: dict[str, Retrieved] = {}
        for key, members in by_setting.items():
            variant = self.variants[members[0]]
            # a setting whose steps ask a model is paid for by the question: it is looked at on few
            asked = list(order[:first] if variant.retrieval.chat_models() else order)
            found[key] = self._found(variant, asked, metric, precision)
        if not any(one.quality for one in found.values()):
            return {"skipped": f"no question has a value of {metric}"}, {}
        champion = self.variants[space.champion].searching
        beaten = strategies.dominated(
            found,
            keep=settings.retrieval_keep,
            champion=champion,
            confidence=config.confidence,
            seed=settings.seed,
            groups=self.groups,
        )
        names = {key: self._setting_name(members[0]) for key, members in by_setting.items()}
        out: dict[int, str] = {}
        rows = []
        for key, members in by_setting.items():
            one = beaten.get(key)
            why = None
            if one is not None:
                why = (
                    f"finds less than {names[one.by]} ({METRICS[metric].title.lower()} {one.difference.estimate:+.3f} "
                    f"[{one.difference.low:+.3f}, {one.difference.high:+.3f}] on {one.questions} questions), is not more precise, "
                    "and gives no less to read"
                )
                out |= dict.fromkeys(members, why)
            rows.append(
                {
                    "setting": names[key],
                    "variants": len(members),
                    "questions": len(found[key].quality),
                    "mean": _mean(found[key].quality),
                    "precision": _mean(found[key].precision),
                    "characters": _mean(found[key].size),
                    "beaten_by": None if one is None else names[one.by],
                    "difference": None if one is None else one.difference.to_json(),
                    "why": why,
                }
            )
        return {"metric": metric, "keep": settings.retrieval_keep, "settings": rows}, out

    def _found(self, variant: Variant, questions: Sequence[int], metric: str, precision: str) -> Retrieved:
        experiment = self.experiment
        scope = replace(experiment.scope, questions=tuple(self.questions[at] for at in questions))
        plan = planning.plan_trials(
            experiment.platform.database,
            experiment.answerer.retriever,
            [variant],
            scope,
            run_id=experiment.run_id,
            lease=experiment.lease,
        )
        self._count(plan)
        self._seconds["retrieval"] = self._seconds.get("retrieval", 0.0) + plan.seconds
        records = [record_of(trial.question, trial.result.hits, _UNANSWERED) for trial in plan.trials]
        columns = score(records, [metric, precision])

        def known(values: Sequence[float | None]) -> dict[int, float]:
            return {at: value for at, value in zip(questions, values, strict=True) if value is not None}

        sizes = [float(sum(len(hit.text) for hit in trial.result.hits)) or None for trial in plan.trials]
        return Retrieved(known(columns[metric]), known(columns[precision]), known(sizes))

    def _setting_name(self, at: int) -> str:
        choice = self.experiment.config.choices()[at]
        extra = "".join(f"+{part}" for part in (choice.retrieval, choice.filters) if part)
        return f"{choice.index}/{choice.search_mode}/k{choice.k}{extra}"

    # --- what is told ------------------------------------------------------------------------------------------

    def _told(self, found: Found | None, out: Mapping[int, str]) -> Trace:
        names = [variant.name for variant in self.variants]
        dropped: list[Trace] = [
            {"variant": names[at], "where": "search setting", "round": 0, "mean": None, "why": why}
            for at, why in sorted(out.items())
        ]
        if found is None:
            return {"rounds": [], "dropped": dropped, "untried": {"count": 0, "variants": []}, "asked_all": 0}
        for one in found.dropped:
            gap = one.difference
            told = f"{gap.estimate:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}] to {names[one.best]} on {one.questions} questions"
            dropped.append(
                {
                    "variant": names[one.variant],
                    "where": f"round {one.round}",
                    "round": one.round,
                    "questions": one.questions,
                    "mean": one.mean,
                    "difference": gap.to_json(),
                    "best": names[one.best],
                    "shown": one.shown,
                    "why": self._why(one, told),
                }
            )
        return {
            "rounds": [
                {
                    "round": number,
                    "questions": one.questions,
                    "variants": len(one.means),
                    "best": names[one.best],
                    "means": {names[at]: mean for at, mean in one.means.items()},
                    **(
                        {"left_out": left_out} if left_out else {}
                    ),  # questions on which a judge failed for some variant
                }
                for number, (one, left_out) in enumerate(zip(found.rounds, self._left_out, strict=True), 1)
            ],
            "dropped": dropped,
            "untried": {"count": len(found.untried), "variants": [names[at] for at in found.untried[:UNTRIED_SHOWN]]},
            "asked_all": len(found.finalists),
        }

    def _why(self, drop: strategies.Drop, told: str) -> str:
        if drop.shown:
            return f"shown to be worse: {told}"
        first = f"it breaks a guard ({drop.barred})" if drop.barred else "others had higher means"
        return f"{first}, and only {self.experiment.config.search.finalists} went on: {told}"


#: A trial before it has an answer, for metrics that look at what was found only.
_UNANSWERED = TrialOutcome(
    status="ok", error=None, tries=0, answer="", refused=False, citations=(), usage={}, latency=None, generation=None
)


def _mean(values: Mapping[int, float]) -> float | None:
    return math.fsum(values.values()) / len(values) if values else None


def _space(experiment: Experiment, champion: int) -> Space:
    """The variants by what varies; an index counts by what it is made of."""
    indexes = experiment.platform.config.indexes
    parts: dict[str | None, dict[str, str]] = {None: {}}
    for name in experiment.config.index_names:
        settings = indexes[name].model_dump(mode="json", exclude={"name", "description"})
        made = {key: fingerprint(settings.pop(key)) for key in ("chunker", "enrichment", "embedder", "hnsw")}
        parts[name] = {**made, "index": fingerprint(settings)}
    points = []
    for choice in experiment.config.choices():
        model = choice.model if isinstance(choice.model, str) else fingerprint(choice.model.model_dump(mode="json"))
        points.append(
            {
                **parts[choice.index],
                "prompt": choice.prompt,
                "search_mode": str(choice.search_mode),
                "k": str(choice.k),
                "retrieval": choice.retrieval or "",
                "filters": choice.filters or "",
                "context": choice.context or "",
                "model": model,
            }
        )
    axes = [axis for axis in points[0] if len({point[axis] for point in points}) > 1]
    return Space(tuple(axes), tuple(tuple(point[axis] for axis in axes) for point in points), champion)
