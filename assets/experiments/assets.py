"""The asset ``scored_variants``: every variant of an experiment, measured, compared and recommended or not.

Belongs here: Dagster's view of the stage. Does not belong here: how it is done (running.py and what it calls).
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from assets.dagster_support import (
    OWNERS,
    check_results,
    check_specs,
    errors_by_kind,
    experiments_of_datasets,
    experiments_of_judges,
    experiments_of_sources,
    image,
    not_evaluated,
    run_is_over,
    table,
)
from assets.evaluation.metrics.catalogue import metrics_of
from assets.experiments import checks, early_out, export, report, running, spending, task_board
from assets.experiments.leaderboard import HEADLINE, Leaderboard
from assets.experiments.planning import CODE_VERSION
from assets.experiments.recommendation import Recommendation
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
    """Hash of experiments, prompts, judges and chat models, so that editing one is seen as a change of code."""
    parts = [*config.experiments.values(), *config.prompts.values(), *config.judges.values(), *config.models.chat]
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
            *(
                [dg.AssetDep("judge_calibration", partition_mapping=judges)]
                if (judges := experiments_of_judges(config)) is not None
                else []
            ),
        ],
        check_specs=check_specs(
            "scored_variants",
            {**checks.CHECKS, **export.CHECKS},
            partitions_def=partitions,
            not_blocking=[*checks.NOT_BLOCKING, *export.CHECKS],
        ),
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
        yield from evaluate(context, platform)
        yield from check_results([export.exported(platform, context.partition_key)])

    def evaluate(
        context: dg.AssetExecutionContext, platform: Platform
    ) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult]:
        name = context.partition_key
        over = run_is_over(context.instance)
        began = time.monotonic()
        with errors_by_kind(), platform.database.lease(f"experiment:{name}", context.run_id, holder_is_dead=over):
            stored = early_out.find(platform, name)
        if stored is not None:
            context.log.info("result %d still stands: nothing it was computed from has changed", stored.result_id)
            yield from check_results(stored.outcomes)
            yield dg.MaterializeResult(
                data_version=dg.DataVersion(stored.fingerprint),
                metadata=_metadata_found(stored, time.monotonic() - began),
            )
            return
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
                checks.decision_possible(
                    experiment.config, experiment.scope, metrics_of(platform.config, experiment.config)
                ),
                checks.prompts_leak_nothing(
                    running.scored_questions(experiment),
                    shown_prompts(experiment.variants),
                ),
            ]
            measurement = None
            if not blocked(outcomes):
                spending.refuse_beyond_budget(platform, name, lease)
                measurement = running.measure(experiment, progress=_log_progress(context))
                outcomes += [
                    checks.trials_complete(experiment.config, measurement.plan, measurement.outcomes, measurement.work),
                    checks.scores_defined(measurement.plan, measurement.scores.values),
                    checks.retrieval_not_empty(measurement.plan),
                    checks.judges_answered(experiment.config, measurement.scores.judged),
                    checks.judges_calibrated(running.judges_as_they_stand(experiment)),
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
    work, paid = measurement.work + result.confirmation_work, running.spent(experiment)
    board = result.leaderboard
    return {
        **_shown(board, result.recommendation, report.figures_of(result.files["report"])),
        "dagster/row_count": len(measurement.plan.trials),
        "trials_run": work.run,
        "trials_reused": work.reused,
        "trials_failed": work.failed,
        "trials_given_up": work.given_up,
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
        **_files(result.files),
        **{f"seconds_{step}": round(seconds, 3) for step, seconds in measurement.seconds.items()},
    }


def _metadata_found(stored: early_out.StoredResult, seconds: float) -> dict[str, Any]:
    """The metadata of a run that found its result on record: what the result says, and that nothing was done."""
    nothing = (
        "trials_run", "trials_failed", "searches", "searches_remembered", "generations_paid", "scores_computed", "tokens",
        "input_tokens", "output_tokens",
    )  # fmt: skip
    return {
        **_shown(stored.leaderboard, stored.recommendation, report.figures_of(stored.files["report"])),
        "dagster/row_count": stored.trials,
        "trials_reused": stored.trials,
        "trials_given_up": sum(row.get("given_up", 0) for row in stored.leaderboard["rows"]),
        **dict.fromkeys(nothing, 0),
        "cost": 0.0,
        "currency": "USD",
        "new_result": False,
        "result": stored.result_id,
        **_files(stored.files),
        "seconds_found": round(seconds, 3),
    }


def _shown(board: Leaderboard, recommendation: Recommendation, figures: Sequence[bytes | None]) -> dict[str, Any]:
    """What a result says, whether it was found now or before."""
    captions = (
        ("figure", "scores of the variants with intervals"),
        ("front", "quality of the variants over their cost"),
        ("slices", "differences to the champion by slice"),
    )
    return {
        "recommendation": dg.MetadataValue.md(recommendation["text"]),
        "verdict": recommendation["verdict"],
        "leaderboard": table(_table_rows(board)),
        **{key: image(png, caption) for (key, caption), png in zip(captions, figures, strict=False) if png},
        "uncertain": dg.MetadataValue.md("\n".join(f"- {one}" for one in recommendation.get("uncertain", []))),
        "next_steps": dg.MetadataValue.md(
            "\n".join(f"- {one['try']}: `{one['change']}`" for one in recommendation.get("next", []))
        ),
        "caveats": dg.MetadataValue.md("\n".join(f"- {caveat}" for caveat in recommendation["caveats"])),
        "diagnosis": dg.MetadataValue.json(recommendation["diagnosis"]),
        "dataset_version": board["dataset_version"],
        "snapshots": dg.MetadataValue.json(board["snapshots"]),
        **({"judges": table(_judge_rows(board))} if board.get("judges") else {}),
        **({"sharing": dg.MetadataValue.json(board["sharing"])} if board.get("sharing") else {}),
        **({"search": dg.MetadataValue.json(board["search"])} if board.get("search") else {}),
    }


def _files(files: Mapping[str, Path]) -> dict[str, Any]:
    return {
        "report": dg.MetadataValue.path(str(files["report"])),
        "trials": dg.MetadataValue.path(str(files["trials"])),
    }


def _judge_rows(board: Leaderboard) -> list[dict[str, Any]]:
    """What the judges did, and whether anything rests on them."""
    return [
        {
            "judge": state["judge"],
            "metric": metric,
            "model": state["model"],
            "decides": state["decides"],
            "may_decide": state["calibrated"],
            "why": state["why"],
            "judged": state["scored"],
            "without_verdict": state["failed"] + state["unasked"],
            "changed_by_order": _round(state["swap"]),
            "changed_by_draw": _round(state["unsteady"]),
        }
        for metric, state in board["judges"].items()
    ]


def _table_rows(board: Leaderboard) -> list[dict[str, Any]]:
    """The leaderboard as the UI shows it: the headline metrics, each on the half of the questions it is read on."""
    return [
        {
            "variant": row["variant"],
            "model": row["label"],
            "champion": row["champion"],
            "n": row["n"],
            "failed": row["failed"],
            "given_up": row.get("given_up", 0),
            board["decision_metric"]: _round(row["decision"]["estimate"]),
            "low": _round(row["decision"]["low"]),
            "high": _round(row["decision"]["high"]),
            "difference": _round(row["difference"] and row["difference"]["estimate"]),
            "difference_low": _round(row["difference"] and row["difference"]["low"]),
            "difference_high": _round(row["difference"] and row["difference"]["high"]),
            "p_holm": _round(row["p_adjusted"]),
            **(_task_columns(board, row) if board.get("task") else _document_columns(board, row)),
            "input_tokens": row["input_tokens"],
            "output_tokens": row["output_tokens"],
            "cost": row["cost"],
            "latency_ms": _round(row["latency_median"] and row["latency_median"] * 1000),
        }
        for row in board["rows"]
    ]


def _document_columns(board: Leaderboard, row: dict[str, Any]) -> dict[str, Any]:
    return {
        **{
            f"{metric} (answerable)": _round(row["metrics"][metric]["answerable"])
            for metric in HEADLINE
            if metric != board["decision_metric"]
        },
        "refusal_f1": _round(row["refusal"]["f1"]),
    }


def _task_columns(board: Leaderboard, row: dict[str, Any]) -> dict[str, Any]:
    return {
        **{
            metric: _round(row["metrics"][metric]["answerable"])
            for metric in task_board.headline(board) or ()
            if metric != board["decision_metric"]
        },
        **{key: _round(one["estimate"]) for key, one in row["whole_set"].items()},
        "unreadable": row["unreadable"],
    }


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
