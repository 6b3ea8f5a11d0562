"""Definitions: the one function that assembles everything Dagster loads.

Belongs here: assembly, used alike by production, tests and notebooks.
Does not belong here: any logic; loading this module touches no network and no database and imports nothing heavy.
"""
# ruff: noqa: E402

import gc
from collections.abc import Mapping
from typing import Any

import dagster as dg

# Every process that loads this has just made some hundred thousand objects that live as long as it does. Set apart,
# they are not searched for garbage again, neither by the imports below nor by what runs later.
gc.freeze()

from assets.chunks.assets import build_assets as build_chunks
from assets.corpus.assets import build_assets as build_corpus
from assets.evaluation.assets import build_assets as build_evaluation
from assets.evaluation.judging.assets import build_assets as build_judging
from assets.evaluation.synthesis.assets import build_assets as build_synthesis
from assets.experiments.assets import build_assets as build_experiments
from assets.index.assets import build_assets as build_index
from assets.monitoring.assets import build_assets as build_monitoring
from assets.monitoring.shadow.assets import build_assets as build_shadow
from pipelines.alerts import build_alert_sensor
from pipelines.automation import automation_conditions, build_automation_sensor
from pipelines.freshness import apply_policies, freshness_policies
from pipelines.jobs import build_jobs, default_executor
from pipelines.maintenance import build_maintenance
from pipelines.schedules import build_schedules
from pipelines.sensors import build_sensors
from pipelines.settings import Settings, load_settings
from pipelines.standing_checks import build_standing_checks


def build_defs(settings: Settings | None = None, resource_overrides: Mapping[str, Any] | None = None) -> dg.Definitions:
    """Assemble assets, checks, jobs, schedules, sensors and resources.

    Args:
        settings: where data and state are; from the environment by default.
        resource_overrides: replaces resources by key, e.g. ``{"platform": platform}`` in tests.

    Raises:
        ConfigError: a file under the data directory is wrong.
    """
    settings = settings or load_settings()
    resources = dict(resource_overrides or {})
    platform = resources.setdefault("platform", None) or settings.platform()
    resources["platform"] = platform
    config = platform.config
    made = [
        asset
        for build in (
            build_corpus,
            build_chunks,
            build_index,
            build_evaluation,
            build_judging,
            build_synthesis,
            build_experiments,
            build_monitoring,
            build_shadow,
        )
        for asset in build(config)
    ]
    standing = build_standing_checks(config, made)
    assets = apply_policies(made, automation_conditions(config, timezone=settings.timezone), freshness_policies(config))
    jobs = build_jobs(config)
    return dg.Definitions(
        assets=[*assets, standing.asset],
        asset_checks=[standing.checks],
        jobs=[*jobs, *build_maintenance(config), standing.job],
        schedules=build_schedules(config, timezone=settings.timezone),
        sensors=[*build_sensors(config, jobs), build_automation_sensor(), build_alert_sensor(config)],
        resources=resources,
        executor=default_executor(),
    )


defs = build_defs()
