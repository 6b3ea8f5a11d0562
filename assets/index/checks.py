"""Checks: what must hold before vectors are used and before a snapshot goes out.

Belongs here: thresholds and verdicts on measured facts.
Does not belong here: measuring (measuring.py, coverage.py) and publishing (publishing.py).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from assets.index.embedding import EmbeddingWork, ModelWork
from assets.index.measuring import (
    BREADTHS,
    FIRST_SAMPLE,
    Completeness,
    Freshness,
    Neighbours,
    Parity,
    breadth_of,
    choose_breadth,
    measure_change,
    measure_completeness,
    measure_neighbours,
    measure_parity,
    remember_recall,
)
from assets.index.specification import Specification
from assets.index.staging import Stage
from assets.outcomes import CheckOutcome, great_expectations_outcome
from resources.platform import Platform
from resources.policy_config import IndexPolicy
from resources.postgres import Connection
from resources.text_search import AUTO

EMBEDDING_CHECKS = {
    "embeddings_suite": "New vectors meet the suite: known model, right dimensions, finite, of a sane length, no key twice.",
    "vectors_valid": "Every vector the model returned has its dimensions, is finite and is not zero.",
    "embeddings_complete": "Every chunk of the source has its vector, for every index over the source.",
}
INDEX_CHECKS = {
    "count_parity": "Rows, documented chunks and chunks of the texts are as many.",
    "documents_complete": "The snapshot shows exactly the documents of its sources' revisions.",
    "recall_at_10": "Search finds the true ten nearest chunks often enough, measured against exact search.",
    "self_retrieval": "A chunk's own vector finds it first, or a chunk with the same text.",
    "snapshot_fresh": "Readers get the newest revision of the source, or it is not old yet.",
}
NOT_BLOCKING = ("snapshot_fresh",)
#: A delta of fewer rows is tried with a small sample first.
SMALL_DELTA = 1_000


# --- embeddings ------------------------------------------------------------------------------------------


def embedding_outcomes(work: EmbeddingWork) -> list[CheckOutcome]:
    """Judge what ``embed_source`` did."""
    return [suite_outcome(work.models), validity_outcome(work.models), coverage_outcome(work)]


def suite_outcome(models: Sequence[ModelWork]) -> CheckOutcome:
    """Great Expectations over facts on a sample of the new vectors."""
    facts = [fact for work in models for fact in work.sample]
    if not facts:
        reused = sum(work.reused for work in models)
        words = f"no new vector; {reused} were checked when they were made"
        return CheckOutcome("embeddings_suite", True, "new vectors meet the suite", words)
    import pandas as pd
    from great_expectations import expectations

    gxe: Any = expectations  # its names are not declared as exported
    frame = pd.DataFrame([vars(fact) for fact in facts])
    dimensions = sorted({work.dimensions for work in models})
    return great_expectations_outcome(
        "embeddings_suite",
        frame,
        [
            gxe.ExpectTableRowCountToBeBetween(min_value=1),
            gxe.ExpectColumnValuesToNotBeNull(column="input_hash"),
            gxe.ExpectCompoundColumnsToBeUnique(column_list=["model", "input_hash"]),
            gxe.ExpectColumnValuesToBeInSet(column="model", value_set=sorted({work.model for work in models})),
            gxe.ExpectColumnValuesToBeInSet(column="dimensions", value_set=dimensions),
            gxe.ExpectColumnValuesToBeInSet(column="finite", value_set=[True]),
            gxe.ExpectColumnValuesToBeBetween(column="norm", min_value=1e-6, max_value=1e6),
        ],
    )


def validity_outcome(models: Sequence[ModelWork]) -> CheckOutcome:
    """Whether any returned vector had to be refused."""
    rejected = {f"{work.model}: {reason}": count for work in models for reason, count in work.rejected.items()}
    computed = sum(work.computed for work in models)
    return CheckOutcome(
        "vectors_valid",
        not rejected,
        "0 refused",
        f"{sum(rejected.values())} refused of {computed + sum(rejected.values())} new",
        details={"refused": rejected} if rejected else {},
    )


def coverage_outcome(work: EmbeddingWork) -> CheckOutcome:
    """Whether anything is still missing after the work."""
    texts = sum(item.coverage.texts_without_chunks for item in work.models)
    inputs = sum(item.coverage.inputs_without_embedding for item in work.models)
    return CheckOutcome(
        "embeddings_complete",
        texts == 0 and inputs == 0,
        "0 texts without chunks, 0 inputs without vector",
        f"{texts} texts without chunks, {inputs} inputs without vector; {sum(i.coverage.chunks for i in work.models)} chunks",
    )


# --- search_index ----------------------------------------------------------------------------------------


def examine(platform: Platform, stage: Stage, specification: Specification) -> list[CheckOutcome]:
    """Measure a stage and judge it: the checks that must pass before it is published."""
    policy = platform.config.policies.index
    with platform.database.connect() as connection:
        parity = parity_outcome(measure_parity(connection, stage, specification))
        complete = completeness_outcome(measure_completeness(connection, stage))
        if specification.index.hnsw.ef_search == AUTO and breadth_of(stage, specification) is None:
            return [parity, complete, *_settle(platform, connection, stage, specification)]
        neighbours = None
        if stage.strategy == "insert" and stage.counts["rows_added"] < SMALL_DELTA:
            queries = min(policy.sample_size, FIRST_SAMPLE)
            neighbours = measure_change(platform, connection, stage, specification, queries)
        outcomes = neighbour_outcomes(neighbours, policy, stage.counts["chunks"]) if neighbours else []
        if neighbours is None or not all(outcome.passed for outcome in outcomes):
            # a few queries are too few to condemn a snapshot
            neighbours = measure_neighbours(platform, connection, stage, specification, policy.sample_size)
            outcomes = neighbour_outcomes(neighbours, policy, stage.counts["chunks"])
        if specification.index.hnsw.ef_search == AUTO and not all(outcome.passed for outcome in outcomes):
            # what was enough for the snapshot before is not for this one
            outcomes = _settle(platform, connection, stage, specification)
        else:
            remember_recall(stage, neighbours)
    return [parity, complete, *outcomes]


def _settle(
    platform: Platform, connection: Connection, stage: Stage, specification: Specification
) -> list[CheckOutcome]:
    """Choose the breadth of the graph search for a stage and leave it in its counts, where readers find it."""
    policy = platform.config.policies.index
    neighbours = choose_breadth(
        platform, connection, stage, specification, policy.sample_size, policy.minimum_recall_at_10
    )
    stage.counts["ef_search"] = neighbours.ef_search
    remember_recall(stage, neighbours)
    return neighbour_outcomes(neighbours, policy, stage.counts["chunks"])


def parity_outcome(parity: Parity) -> CheckOutcome:
    """Equal counts three ways, and no touched document with the wrong number of rows."""
    return CheckOutcome(
        "count_parity",
        parity.expected_chunks == parity.documented_chunks and parity.mismatched == 0,
        f"{parity.expected_chunks} chunks, 0 of {parity.touched} changed documents with another number of rows",
        f"{parity.documented_chunks} chunks, {parity.mismatched} of {parity.touched} with another number of rows",
    )


def completeness_outcome(completeness: Completeness) -> CheckOutcome:
    """No document missing, none too many, each in the right version."""
    return CheckOutcome(
        "documents_complete",
        completeness.missing == 0 and completeness.superfluous == 0,
        f"{completeness.expected} documents, 0 missing, 0 superfluous",
        f"{completeness.missing} missing, {completeness.superfluous} superfluous",
    )


def neighbour_outcomes(neighbours: Neighbours, policy: IndexPolicy, chunks: int) -> list[CheckOutcome]:
    """Verdicts on recall and on self retrieval.

    Args:
        chunks: what the snapshot claims to hold. Without any there is nothing to find; with some, having found none to
            ask with is a failure.
    """
    if neighbours.queries == 0:
        words = "no chunk to search for" if chunks == 0 else f"none of the {chunks} chunks was there to search for"
        return [
            CheckOutcome("recall_at_10", chunks == 0, f"at least {policy.minimum_recall_at_10}", words),
            CheckOutcome("self_retrieval", chunks == 0, f"at least {policy.minimum_self_retrieval}", words),
        ]
    how = f"HNSW with ef_search {neighbours.ef_search} against exact search"
    if neighbours.exact:
        how = "exact search, so 1 by definition"
    elif neighbours.recall < policy.minimum_recall_at_10:
        remedy = "hnsw.ef_search (or set it to auto), " if neighbours.ef_search != BREADTHS[-1] else ""
        how += f"; raise {remedy}hnsw.m or hnsw.ef_construction of the index"
    found = neighbours.found_itself / neighbours.queries
    return [
        CheckOutcome(
            "recall_at_10",
            neighbours.recall >= policy.minimum_recall_at_10,
            f"at least {policy.minimum_recall_at_10}",
            f"{neighbours.recall:.4f} over {neighbours.queries} queries ({how})"
            if not neighbours.rows_changed
            else f"{neighbours.recall:.4f} ({how}), measured for snapshot {neighbours.snapshot}; "
            f"{neighbours.rows_changed} of {chunks} rows written since",
            details={
                "recall": neighbours.recall,
                "standard_error": round(neighbours.error, 5),
                "ef_search": neighbours.ef_search,
                "seconds": round(neighbours.seconds, 3),
            },
        ),
        CheckOutcome(
            "self_retrieval",
            found >= policy.minimum_self_retrieval,
            f"at least {policy.minimum_self_retrieval}",
            f"{found:.4f}: {neighbours.found_itself} of {neighbours.queries} queries",
            details={"misses": neighbours.misses} if neighbours.misses else {},
        ),
    ]


def freshness_outcome(index: str, freshness: Freshness, freshness_hours: int) -> CheckOutcome:
    """A warning when readers have been without a committed revision for longer than the policy allows."""
    held = f"; held by {freshness.held_by}" if freshness.held_by else ""
    return CheckOutcome(
        "snapshot_fresh",
        freshness.hours_behind <= freshness_hours,
        f"behind for at most {freshness_hours} hours",
        f"{index} serves snapshot {freshness.snapshot} with revision {freshness.served} of {freshness.revision}, "
        f"behind for {freshness.hours_behind:.1f} hours{held}",
        blocking=False,
        severity="WARN",
    )


def standing_outcomes(stage: Stage, evidence: Mapping[str, Mapping[str, object]]) -> list[CheckOutcome]:
    """Outcomes for a stage that wrote nothing: the evidence its snapshot was published on still stands.

    Before the first snapshot there is none to stand, and nothing readers could get: the first shards of a source wait.
    """
    if stage.strategy == "waiting" and not stage.snapshot:
        words = f"nothing is published yet: {stage.reason}"
        return [
            CheckOutcome(name, True, "evaluated with the first snapshot", words)
            for name in INDEX_CHECKS
            if name not in NOT_BLOCKING
        ]
    outcomes = []
    for name in INDEX_CHECKS:
        if name in NOT_BLOCKING:
            continue
        known = evidence.get(name, {})
        words = f"{stage.reason}; evidence of snapshot {stage.snapshot} stands: {known.get('observed', 'none')}"
        outcomes.append(CheckOutcome(name, bool(known.get("passed")), known.get("expected", "evidence"), words))
    return outcomes


def combine(per_index: Mapping[str, Sequence[CheckOutcome]]) -> list[CheckOutcome]:
    """One outcome per check over all indexes of a source: passed when it passed for each, with a row for each."""
    combined = []
    for name in INDEX_CHECKS:
        found = {index: next((o for o in outcomes if o.name == name), None) for index, outcomes in per_index.items()}
        rows = [
            {
                "index": index,
                "passed": bool(outcome and outcome.passed),
                "expected": outcome.expected if outcome else "to be evaluated",
                "observed": outcome.observed if outcome else "not evaluated: the index could not be staged",
            }
            for index, outcome in found.items()
        ]
        failed = [str(row["index"]) for row in rows if not row["passed"]]
        combined.append(
            CheckOutcome(
                name,
                not failed,
                f"holds for {len(rows)} indexes" if len(rows) != 1 else rows[0]["expected"],
                (f"failed for {', '.join(failed)}" if failed else f"holds for {len(rows)} indexes")
                if len(rows) != 1
                else rows[0]["observed"],
                blocking=name not in NOT_BLOCKING,
                severity="WARN" if name in NOT_BLOCKING else "ERROR",
                details={"indexes": rows},
            )
        )
    return combined
