"""The asset ``scored_variants``: every variant of an experiment, measured, compared and recommended or not.

Belongs here: Dagster's view of the stage. Does not belong here: how it is done (running.py and what it calls).
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from assets.dagster_support import (
    OWNERS,
    check_results,
    check_specs,
    errors_by_kind,
    experiments_of_datasets,
    experiments_of_sources,
    image,
    not_evaluated,
    run_is_over,
    table,
)
from assets.experiments import checks, report, running
from assets.experiments.leaderboard import HEADLINE, Leaderboard
from assets.experiments.planning import CODE_VERSION
from assets.experiments.trials import Progress
from assets.experiments.variants import shown_prompts
from assets.outcomes import blocked
from resources.config import ProjectConfig
from resources.fingerprint import fingerprint
from resources.platform import Platform

GROUP = "experiments"
COLUMNS = dg.TableSchema(
    columns=[
        dg.TableColumn("trial", "string", description="fingerprint of variant, retrieved texts, question and code",
                       constraints=dg.TableColumnConstraints(nullable=False, unique=True)),
        dg.TableColumn("variant", "string", description="index/prompt/search mode/k/model"),
        dg.TableColumn("question_id", "string"),
        dg.TableColumn("status", "string", description="ok or failed"),
        dg.TableColumn("retrieved", "json", description="chunks with ranks and scores"),
        dg.TableColumn("generation", "string", description="the memoised model call: rendered prompt and answer"),
        dg.TableColumn("answer", "string"),
        dg.TableColumn("refused", "bool"),
        dg.TableColumn("citations", "json"),
        dg.TableColumn("usage", "json", description="tokens and cost"),
        dg.TableColumn("scores", "float", description="one per metric; NULL where a metric is undefined"),
    ]
)  # fmt: skip


def _configuration(config: ProjectConfig) -> str:
    """Hash of experiments, prompts and chat models, so that editing one is seen as a change of code."""
    parts = [*config.experiments.values(), *config.prompts.values(), *config.models.chat]
    return fingerprint([part.fingerprint() for part in parts])[:12]


def build_assets(config: ProjectConfig) -> list[dg.AssetsDefinition]:
    """The assets of this stage; none when no experiment is configured."""
    if not config.experiments:
        return []
    partitions = dg.StaticPartitionsDefinition(list(config.experiments))

    @dg.asset(
        partitions_def=partitions,
        deps=[
            dg.AssetDep("evaluation_dataset", partition_mapping=experiments_of_datasets(config)),
            dg.AssetDep("search_index", partition_mapping=experiments_of_sources(config)),
        ],
        check_specs=check_specs("scored_variants", checks.CHECKS, partitions_def=partitions),
        output_required=False,
        group_name=GROUP,
        kinds={"postgres", "numpy"},
        owners=OWNERS,
        tags={"genaiops/stage": GROUP},
        code_version=f"{CODE_VERSION}.{_configuration(config)}",
        pool="chat_model",
        metadata={"dagster/column_schema": COLUMNS},
    )
    def scored_variants(
        context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]
    ) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult]:
        """Every variant of an experiment on every question, scored and compared with the champion.

        One partition per experiment file. Trials are remembered by everything that can change them: a re-run repeats
        nothing, and an edited prompt repeats only its own variants. Ends with a recommendation, or with what is
        missing for one; nobody becomes champion by it.
        """
        name = context.partition_key
        over = run_is_over(context.instance)
        with (
            errors_by_kind(),
            platform.database.lease(f"experiment:{name}", context.run_id, holder_is_dead=over) as lease,
            running.prepared(platform, name, context.run_id, lease) as experiment,
        ):
            outcomes = [
                checks.baseline_present(
                    experiment.champion.variant.name, [variant.name for variant in experiment.variants]
                ),
                checks.dataset_matches_snapshot(experiment.scope),
                checks.decision_possible(experiment.config, experiment.scope),
                checks.prompts_leak_nothing(
                    running.scored_questions(experiment),
                    shown_prompts(experiment.variants),
                ),
            ]
            measurement = None
            if not blocked(outcomes):
                measurement = running.measure(experiment, progress=_log_progress(context))
                outcomes += [
                    checks.trials_complete(experiment.config, measurement.plan, measurement.outcomes, measurement.work),
                    checks.scores_defined(measurement.plan, measurement.scores.values),
                    checks.retrieval_not_empty(measurement.plan),
                ]
            outcomes += not_evaluated(list(checks.CHECKS), outcomes, "an earlier check forbids spending on trials")
            yield from check_results(outcomes)
            if measurement is None or blocked(outcomes):
                return
            result = running.conclude(experiment, measurement, outcomes)
            yield dg.MaterializeResult(
                data_version=dg.DataVersion(result.fingerprint), metadata=_metadata(experiment, measurement, result)
            )

    return [scored_variants]


def _log_progress(context: dg.AssetExecutionContext) -> Progress:
    """Tell the run's log about every tenth of the trials."""
    told = -1

    def tell(done: int, total: int) -> None:
        nonlocal told
        tenth = 10 * done // max(1, total)
        if tenth > told:
            told = tenth
            context.log.info("%d of %d trials on record", done, total)

    return tell


def _metadata(
    experiment: running.Experiment, measurement: running.Measurement, result: running.Result
) -> dict[str, Any]:
    board, recommendation = result.leaderboard, result.recommendation
    work, paid = measurement.work + result.confirmation_work, running.spent(experiment)
    return {
        "recommendation": dg.MetadataValue.md(recommendation["text"]),
        "verdict": recommendation["verdict"],
        "leaderboard": table(_table_rows(board)),
        "figure": image(report.figure(board), "scores of the variants with intervals"),
        "front": image(report.front_figure(board), "quality of the variants over their cost"),
        **(
            {"slices": image(png, "differences to the champion by slice")}
            if (png := report.slices_figure(board))
            else {}
        ),
        "uncertain": dg.MetadataValue.md("\n".join(f"- {one}" for one in recommendation.get("uncertain", []))),
        "next_steps": dg.MetadataValue.md(
            "\n".join(f"- {one['try']}: `{one['change']}`" for one in recommendation.get("next", []))
        ),
        "caveats": dg.MetadataValue.md("\n".join(f"- {caveat}" for caveat in recommendation["caveats"])),
        "diagnosis": dg.MetadataValue.json(recommendation["diagnosis"]),
        "dagster/row_count": len(measurement.plan.trials),
        "trials_run": work.run,
        "trials_reused": work.reused,
        "trials_failed": work.failed,
        "searches": measurement.plan.searches,
        "searches_remembered": measurement.plan.remembered,
        "generations_paid": work.generations,
        "scores_computed": measurement.scores.computed,
        "tokens": paid.input_tokens + paid.output_tokens,
        "input_tokens": paid.input_tokens,
        "output_tokens": paid.output_tokens,
        "cost": paid.cost,
        "currency": paid.currency,
        "new_result": result.new,
        "result": result.result_id,
        "dataset_version": board["dataset_version"],
        "snapshots": dg.MetadataValue.json(board["snapshots"]),
        "report": dg.MetadataValue.path(str(result.files["report"])),
        "trials": dg.MetadataValue.path(str(result.files["trials"])),
        **{f"seconds_{step}": round(seconds, 3) for step, seconds in measurement.seconds.items()},
    }


def _table_rows(board: Leaderboard) -> list[dict[str, Any]]:
    """The leaderboard as the UI shows it: the headline metrics, each on the half of the questions it is read on."""
    return [
        {
            "variant": row["variant"],
            "model": row["label"],
            "champion": row["champion"],
            "n": row["n"],
            "failed": row["failed"],
            board["decision_metric"]: _round(row["decision"]["estimate"]),
            "low": _round(row["decision"]["low"]),
            "high": _round(row["decision"]["high"]),
            "difference": _round(row["difference"] and row["difference"]["estimate"]),
            "difference_low": _round(row["difference"] and row["difference"]["low"]),
            "difference_high": _round(row["difference"] and row["difference"]["high"]),
            "p_holm": _round(row["p_adjusted"]),
            **{
                f"{metric} (answerable)": _round(row["metrics"][metric]["answerable"])
                for metric in HEADLINE
                if metric != board["decision_metric"]
            },
            "refusal_f1": _round(row["refusal"]["f1"]),
            "input_tokens": row["input_tokens"],
            "output_tokens": row["output_tokens"],
            "cost": row["cost"],
            "latency_ms": _round(row["latency_median"] and row["latency_median"] * 1000),
        }
        for row in board["rows"]
    ]


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
