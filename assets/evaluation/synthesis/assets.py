"""The asset ``synthetic_questions``: drafts of questions, made from the documents and waiting for people.

Belongs here: configuration in, checks and metadata out. Does not belong here: how it is done (generating.py), review.
"""

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import dagster as dg

from assets.dagster_support import (
    OWNERS,
    check_results,
    check_specs,
    errors_by_kind,
    not_evaluated,
    run_is_over,
    synthetic_datasets_of_sources,
    table,
)
from assets.outcomes import CheckOutcome, blocked, record_evidence
from resources.config import ProjectConfig
from resources.fingerprint import fingerprint
from resources.platform import Platform
from resources.postgres import Connection
from resources.synthesis_config import OFFLINE

if TYPE_CHECKING:
    from assets.evaluation.synthesis.generating import Generated
    from assets.evaluation.synthesis.review import AcceptanceReport

GROUP = "evaluation"
KIND = "synthetic_questions"  # of its evidence
#: Raised by hand when filters or review would decide otherwise about the same drafts.
CODE_VERSION = "1"


def _configuration(config: ProjectConfig) -> str:
    """Hash of everything configured about making questions, so that editing it is seen as a change of code."""
    from assets.evaluation.synthesis.offline_writer import GENERATORS

    parts: list[Any] = [list(GENERATORS)]
    for name, dataset in config.datasets.items():
        if dataset.synthetic is not None:
            models = [
                config.chat_model(one).fingerprint()
                for one in (dataset.synthetic.writer, dataset.synthetic.reader)
                if one != OFFLINE
            ]
            parts.append([name, dataset.sources, dataset.synthetic.fingerprint(), models])
    return fingerprint(parts)[:12]


def build_assets(config: ProjectConfig) -> list[dg.AssetsDefinition]:
    """The asset; none when no dataset makes questions."""
    names = [name for name, dataset in config.datasets.items() if dataset.synthetic is not None]
    if not names:
        return []
    # here, so that projects without it do not load it with every process
    from assets.evaluation.synthesis import checks
    from assets.evaluation.synthesis.generating import generate, recipe_of
    from assets.evaluation.synthesis.review import acceptance

    partitions = dg.StaticPartitionsDefinition(names)

    @dg.asset(
        partitions_def=partitions,
        deps=[dg.AssetDep("raw_documents", partition_mapping=synthetic_datasets_of_sources(config))],
        check_specs=check_specs(
            "synthetic_questions", checks.CHECKS, partitions_def=partitions, not_blocking=checks.NOT_BLOCKING
        ),
        output_required=False,
        group_name=GROUP,
        kinds={"postgres"},
        owners=OWNERS,
        pool="chat_model",
        tags={"genaiops/stage": GROUP},
        code_version=f"{CODE_VERSION}.{_configuration(config)}",
    )
    def synthetic_questions(
        context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]
    ) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult]:
        """Drafts of evaluation questions, made from the documents by rules or a model, filtered, and waiting for people.

        One partition per dataset with a `synthetic` block. Drafts are no questions yet: `genaiops questions` reviews them,
        and `genaiops questions accept` writes those that people accepted to the dataset's file. A share is drawn for review.
        """
        started = time.perf_counter()
        name = context.partition_key
        over = run_is_over(context.instance)
        with (
            errors_by_kind(),
            platform.database.lease(f"dataset:{name}", context.run_id, holder_is_dead=over) as lease,
        ):
            recipe = recipe_of(platform.config, name, platform.models)
            with platform.database.connect() as connection:
                report = acceptance(connection, name, recipe)
            outcomes = [
                checks.chunking_differs(platform.config, name, platform.models),
                checks.review_acceptance(platform.config, name, report),
            ]
            if blocked(outcomes):
                _record(platform, name, recipe, outcomes, context.run_id)
                yield from check_results(outcomes)
                why = ", ".join(outcome.name for outcome in blocked(outcomes)) + " failed"
                yield from check_results(not_evaluated(list(checks.CHECKS), outcomes, why))
                return
            work = generate(platform, name, run_id=context.run_id, lease=lease)
            outcomes.append(checks.filters_passed(work))
            _record(platform, name, recipe, outcomes, context.run_id)
            yield from check_results(outcomes)
            with platform.database.connect() as connection:
                version = _data_version(connection, name, recipe)
        yield dg.MaterializeResult(
            data_version=dg.DataVersion(version),
            metadata=_metadata(work, report, time.perf_counter() - started),
        )

    return [synthetic_questions]


def _record(platform: Platform, name: str, recipe: str, outcomes: list[CheckOutcome], run_id: str) -> None:
    with platform.database.connect() as connection:
        record_evidence(connection, KIND, name, recipe, outcomes, run_id)


def _data_version(connection: Connection, dataset: str, recipe: str) -> str:
    """Hash of the drafts that passed; what people decide about them does not change it."""
    from assets.evaluation.synthesis import store

    drafts = store.read(connection, dataset, recipe=recipe)
    passed = sorted(
        one.question_id
        for one in drafts
        if one.state not in ("generated", "rejected") or (one.state == "rejected" and one.reviewed)
    )
    return fingerprint([recipe, passed])


def _metadata(work: "Generated", report: "AcceptanceReport", seconds: float) -> dict[str, Any]:
    return {
        "dagster/row_count": sum(work.delivered.values()),
        "made": work.made,
        "generators": table(work.generators),
        "filters": table(work.filters),
        "states": dg.MetadataValue.json(work.states),
        "acceptance": table([one.to_json() for one in [*report.rows, report.total]]),
        "waiting_for_review": work.states.get("queued", 0),
        "stale": work.stale,
        "superseded": work.superseded,
        "documents": work.documents,
        "documents_left_out": work.left_out,
        "passages": work.passages,
        "model_calls": work.usage.requests,
        "cost": work.usage.cost,
        "recipe": work.recipe,
        "seconds": round(seconds, 3),
    }
