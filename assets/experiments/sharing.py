"""Sharing: how much of the work variants need they have in common.

Belongs here: counting, from a plan and what is on record, what each variant would need alone and what really differs.
Does not belong here: the sharing itself, which is the keys of each step (chunks and embeddings of an index, retrievals.py,
the memo of model calls, scores.py).
"""

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from psycopg import sql

from assets.evaluation.metrics.records import MetricDefinition
from assets.experiments.planning import Plan, Trial
from assets.experiments.records import TrialOutcome
from assets.experiments.scope import Scope
from resources.config import ProjectConfig
from resources.postgres import Connection
from resources.variants import Variant


@dataclass(frozen=True)
class Shared:
    """One kind of work.

    Attributes:
        needed: units the variants need, each counted alone.
        made: units of them that differ, which is what has to be made in all.
        this_run: how many this run made; the others were on record. None where runs of experiments make none.
    """

    needed: int
    made: int
    this_run: int | None = None

    @property
    def ratio(self) -> float | None:
        """Share of the needed units that another variant's stands for; None when nothing is needed."""
        return 1 - self.made / self.needed if self.needed else None

    def to_json(self) -> dict[str, Any]:
        """The counts and the ratio as a JSON object."""
        return {**asdict(self), "ratio": self.ratio}


@dataclass(frozen=True)
class Sharing:
    """The work of an experiment, by kind.

    Attributes:
        embeddings: vectors of the chunks that the variants search.
        chunks: these chunks.
        searches: questions searched for; a variant that answers without an index searches nothing.
        generations: model calls for answers, steps of chains included.
        scores: formulas computed for a trial; metrics that do not look at what differs give both trials one value.
    """

    embeddings: Shared
    chunks: Shared
    searches: Shared
    generations: Shared
    scores: Shared

    @property
    def kinds(self) -> dict[str, Shared]:
        """The parts by name."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @property
    def ratio(self) -> float | None:
        """Mean of the ratios, every kind counting the same; None when nothing is needed."""
        ratios = [one.ratio for one in self.kinds.values() if one.ratio is not None]
        return sum(ratios) / len(ratios) if ratios else None

    def to_json(self) -> dict[str, Any]:
        """The kinds and the ratio as a JSON object."""
        return {"ratio": self.ratio, **{name: one.to_json() for name, one in self.kinds.items()}}


def measure_sharing(
    connection: Connection,
    config: ProjectConfig,
    scope: Scope,
    plan: Plan,
    outcomes: Mapping[str, TrialOutcome],
    definitions: Mapping[str, MetricDefinition],
    *,
    generations: int,
    scores: int,
) -> Sharing:
    """Count what the variants of a plan share; nothing is computed again.

    Args:
        definitions: the metrics that were scored, by id.
        generations: model calls this run made.
        scores: (trial, metric) pairs this run computed.
    """
    by_variant: dict[str, list[Trial]] = defaultdict(list)
    for trial in plan.trials:
        by_variant[trial.variant.fingerprint].append(trial)
    variants = [trials[0].variant for trials in by_variant.values()]
    searching = [variant for variant in variants if variant.index in scope.snapshots]
    embeddings, chunks = _corpus(connection, config, searching, scope.snapshots)
    asked = {(variant.searching, len(by_variant[variant.fingerprint])) for variant in searching}
    calls = {(trial.variant.model, trial.prompt_key): _calls(trial.variant) for trial in plan.trials}
    return Sharing(
        embeddings=embeddings,
        chunks=chunks,
        searches=Shared(
            sum(len(by_variant[variant.fingerprint]) for variant in searching),
            sum(questions for _, questions in asked),
            plan.searches,
        ),
        generations=Shared(sum(_calls(trial.variant) for trial in plan.trials), sum(calls.values()), generations),
        scores=Shared(
            len(plan.trials) * len(definitions), _formulas(plan.trials, outcomes, list(definitions.values())), scores
        ),
    )


def _calls(variant: Variant) -> int:
    """Model calls one answer takes."""
    return 1 + len(variant.prompt.chain)


def _corpus(
    connection: Connection, config: ProjectConfig, variants: Sequence[Variant], snapshots: Mapping[str, int]
) -> tuple[Shared, Shared]:
    """Vectors and chunks: needed by each variant, and different ones. Indexes that cut alike share their chunks."""
    counts: dict[str, int] = {}
    tables: dict[str, list[tuple[str, int]]] = defaultdict(list)
    cut: dict[tuple[str, ...], int] = {}
    for name in sorted({variant.index for variant in variants}):
        row = connection.execute(
            """SELECT b.table_name, (s.counts ->> 'chunks')::bigint FROM index_snapshot s JOIN index_build b USING (build_id)
               WHERE s.index_name = %s AND s.snapshot = %s""",
            (name, snapshots[name]),
        ).fetchone()
        if row is None or row[1] is None or name not in config.indexes:
            continue
        index = config.indexes[name]
        counts[name] = row[1]
        tables[index.embedder].append((row[0], snapshots[name]))
        key = (index.chunker.fingerprint(), *sorted(config.index_sources(name)))
        cut[key] = max(cut.get(key, 0), row[1])
    needed = sum(counts.get(variant.index, 0) for variant in variants)
    vectors = sum(_distinct_inputs(connection, shown) for shown in tables.values())
    return Shared(needed, vectors), Shared(needed, sum(cut.values()))


def _distinct_inputs(connection: Connection, tables: Sequence[tuple[str, int]]) -> int:
    """How many different texts one model embedded for these snapshots."""
    parts = [
        sql.SQL("SELECT input_hash FROM {} WHERE valid_from <= {} AND valid_to > {}").format(
            sql.Identifier(table), sql.Literal(snapshot), sql.Literal(snapshot)
        )
        for table, snapshot in tables
    ]
    row = connection.execute(
        sql.SQL("SELECT count(DISTINCT input_hash) FROM ({}) shown").format(sql.SQL(" UNION ALL ").join(parts))
    ).fetchone()
    return row[0] if row else 0


def _formulas(
    trials: Sequence[Trial], outcomes: Mapping[str, TrialOutcome], definitions: Sequence[MetricDefinition]
) -> int:
    """How many values differ in what their metric looks at."""
    together: dict[frozenset[str], int] = defaultdict(int)
    for definition in definitions:
        together[frozenset(definition.looks_at)] += 1
    made = 0
    for parts, metrics in together.items():
        look = [_LOOK.get(part, _whole) for part in sorted(parts)]
        seen = {
            (outcome.failed, *(one(trial, outcome) for one in look))
            for trial in trials
            if (outcome := outcomes.get(trial.fingerprint)) is not None
        }
        made += len(seen) * metrics
    return made


def _question(trial: Trial, outcome: TrialOutcome) -> Hashable:
    return trial.question.question_id


def _whole(trial: Trial, outcome: TrialOutcome) -> Hashable:
    """Of a part nothing is known of here, each trial has its own."""
    return trial.fingerprint


_LOOK: dict[str, Callable[[Trial, TrialOutcome], Hashable]] = {
    "question": _question,
    "gold": _question,
    "reference": _question,
    "hits": lambda trial, outcome: (trial.question.question_id, trial.hits_key, outcome.supplied),
    "answer": lambda trial, outcome: outcome.answer,
    "refusal": lambda trial, outcome: outcome.refused,
    "citations": lambda trial, outcome: outcome.citations,
}
