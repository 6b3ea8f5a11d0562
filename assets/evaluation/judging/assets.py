"""Judges in Dagster: the asset ``judge_calibration``.

Belongs here: configuration in, checks and metadata out. Does not belong here: asking and comparing (calibrating.py), what the
checks compute (checks.py).
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from assets.dagster_support import OWNERS, check_results, check_specs, errors_by_kind, run_is_over, table
from assets.evaluation.judging import checks
from assets.evaluation.judging.calibrating import Calibrated, calibrate_judge, evidence_key
from assets.evaluation.judging.labels import file_hash
from assets.evaluation.judging.prompts import task
from resources.config import ProjectConfig
from resources.fingerprint import fingerprint
from resources.judge_config import calibrated_judges
from resources.platform import Platform

GROUP = "evaluation"
CODE_VERSION = "1"
_SHOWN = ("kappa", "auc", "spearman", "bias", "accuracy")


def _configuration(config: ProjectConfig) -> str:
    """Hash of judges, their tasks, their models and their labels, so that editing one is seen as a change of code."""
    judges = [config.judges[name] for name in calibrated_judges(config.judges)]
    models = [model.fingerprint() for model in config.models.chat if model.name in {judge.model for judge in judges}]
    parts = [[judge.fingerprint(), task(judge), file_hash(judge.labels_path(config.data_dir))] for judge in judges]
    return fingerprint([parts, models])[:12]


def build_assets(config: ProjectConfig) -> list[dg.AssetsDefinition]:
    """The assets of this room; none when no judge has labels."""
    names = calibrated_judges(config.judges)
    if not names:
        return []
    partitions = dg.StaticPartitionsDefinition(names)

    @dg.asset(
        partitions_def=partitions,
        check_specs=check_specs(
            "judge_calibration", checks.CHECKS, partitions_def=partitions, not_blocking=checks.NOT_BLOCKING
        ),
        group_name=GROUP,
        kinds={"postgres", "numpy"},
        owners=OWNERS,
        tags={"genaiops/stage": GROUP},
        code_version=f"{CODE_VERSION}.{_configuration(config)}",
        pool="chat_model",
    )
    def judge_calibration(
        context: dg.AssetExecutionContext, platform: dg.ResourceParam[Platform]
    ) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult]:
        """How far each judge agrees with people: kappa, AUC, rank correlation, bias and consistency, with intervals.

        One partition per judge with labels, those without a model included. A judge that fails a check may still inform;
        nothing rests on it. The same judge on the same labels is never asked twice.
        """
        name = context.partition_key
        over = run_is_over(context.instance)
        told = -1

        def progress(done: int, total: int) -> None:
            nonlocal told
            if (tenth := 10 * done // max(1, total)) > told:
                told = tenth
                context.log.info("%d of %d labelled answers judged", done, total)

        with (
            errors_by_kind(),
            platform.database.lease(f"judge:{name}", context.run_id, holder_is_dead=over) as lease,
        ):
            done = calibrate_judge(platform, name, context.run_id, lease, progress=progress)
        # first what was measured: a failed check stops what follows, not the record of it
        yield dg.MaterializeResult(
            data_version=dg.DataVersion(
                fingerprint([evidence_key(platform.config.judges[name], done.fingerprint, done.labels), done.passed])
            ),
            metadata=_metadata(platform.config, done),
            check_results=list(check_results(done.outcomes)),
        )

    return [judge_calibration]


def _metadata(config: ProjectConfig, done: Calibrated) -> dict[str, Any]:
    judge, measures = config.judges[done.judge], done.measures
    ceiling = measures["ceiling"]
    return {
        "judge": judge.metric,
        "model": judge.model or "none (offline estimator)",
        "may_decide": done.passed,
        "agreement": table([{"measure": name, **(measures[name] or {})} for name in _SHOWN]),
        "by_class": table([{"people say": name, **numbers} for name, numbers in measures["by_class"].items()]),
        **({"two_people": dg.MetadataValue.json(ceiling)} if ceiling else {}),
        **{name: round(measures[name]["estimate"], 4) for name in _SHOWN if measures[name]},
        **{
            f"changed_by_{name}": round(measures[key]["estimate"], 4)
            for name, key in (("order", "swap"), ("draw", "draws"))
            if measures[key]
        },
        "dagster/row_count": measures["n"],
        "undefined": measures["undefined"],
        "failed": sum(measures["failed"].values()),
        "reused": done.reused,
        "requests": done.paid["requests"],
        "tokens": done.paid["input_tokens"] + done.paid["output_tokens"],
        "cost": done.paid["cost"],
        "currency": done.paid["currency"],
        "fingerprint": done.fingerprint,
    }
