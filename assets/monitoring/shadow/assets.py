"""The asset ``shadow_comparison``: champion and candidate on the questions people really asked.

Belongs here: Dagster's view. Does not belong here: how it is done (comparing.py).
"""

from collections.abc import Iterator

import dagster as dg

from assets.dagster_support import OWNERS, check_results, check_specs, errors_by_kind, run_is_over, table
from assets.monitoring.shadow import checks
from assets.monitoring.shadow.comparing import CODE_VERSION, compare_on_traffic
from resources.config import ProjectConfig
from resources.platform import Platform


def build_assets(config: ProjectConfig) -> list[dg.AssetsDefinition]:
    """The asset; none when no experiment answers from documents."""
    answering = [name for name, experiment in config.experiments.items() if experiment.index_names]
    if not answering:
        return []
    partitions = dg.StaticPartitionsDefinition(answering)

    @dg.asset(
        partitions_def=partitions,
        deps=[dg.AssetDep("scored_variants", partition_mapping=dg.IdentityPartitionMapping())],
        check_specs=check_specs(
            "shadow_comparison", checks.CHECKS, partitions_def=partitions, not_blocking=checks.NOT_BLOCKING
        ),
        group_name="monitoring",
        kinds={"postgres", "numpy"},
        owners=OWNERS,
        tags={"genaiops/stage": "monitoring"},
        code_version=CODE_VERSION,
        output_required=False,
        pool="chat_model",
    )
    def shadow_comparison(
        context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]
    ) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult]:
        """The newest live questions asked again, of the champion and of the variant that might replace it.

        Nobody is answered by it and nothing of it is logged as live use. Only metrics that need no reference answer are
        read. A question is asked on behalf of its caller: with the labels and filters it came with.
        """
        name = context.partition_key
        over = run_is_over(context.instance)
        with (
            errors_by_kind(),
            platform.database.lease(f"experiment:{name}", context.run_id, holder_is_dead=over) as lease,
        ):
            shadow = compare_on_traffic(platform, name, context.run_id, lease)
        outcomes = checks.shadow_checks(shadow)
        yield from check_results(outcomes)
        rows = outcomes[0].details.get("metrics", [])
        yield dg.MaterializeResult(
            data_version=dg.DataVersion(shadow.fingerprint),
            metadata={
                "verdict": shadow.verdict,
                "reason": shadow.reason,
                "champion": shadow.champion,
                "candidate": shadow.candidate or "none",
                "questions": len(shadow.traffic.questions),
                "repeated": shadow.traffic.repeated,
                "left_out": shadow.traffic.unknown,
                **({"metrics": table(rows)} if rows else {}),
                "trials_run": shadow.work.run,
                "trials_reused": shadow.work.reused,
                "generations_paid": shadow.work.generations,
                "tokens": shadow.spent.input_tokens + shadow.spent.output_tokens,
                "cost": shadow.spent.cost,
                "currency": shadow.spent.currency,
            },
        )

    return [shadow_comparison]
