"""Automation: which asset follows which change, and why.

Belongs here: named conditions, each saying which storm or which silence it prevents.
Does not belong here: the clock (schedules.py), the world outside (sensors.py), and healing what a condition lost
(``reconcile`` in sensors.py): a condition drops an update that falls between the same two ticks as a request.

The conditions react to *edges* (a data version changed) and remember them as a *level* (until handled), so that a
change waits behind a gate or a running refresh instead of being forgotten.
"""

import dagster as dg

from pipelines.jobs import (
    DATASET_ASSET,
    DRIFT_ASSET,
    EXPERIMENT_ASSET,
    JUDGE_ASSET,
    ORIGIN_TAG,
    SHADOW_ASSET,
    SYNTHESIS_ASSET,
)
from resources.config import ProjectConfig
from resources.judge_config import calibrated_judges

DRIFT_CRON = "0 4 * * *"
SHADOW_CRON = "0 5 * * *"

_AC = dg.AutomationCondition


def when_upstream_changed() -> dg.AutomationCondition:
    """Once per change of an upstream's data version, when its gates hold and its sources are at rest.

    Why not ``eager()``: it fires whenever an upstream is materialized again, so that every nightly refresh without
    any change would evaluate everything again; and it waits until *no* upstream partition is missing, so that one
    source that was never loaded would silence evaluation for ever.
    """
    return (
        (upstream_data_changed() | configuration_changed()).since_last_handled()
        & no_upstream_gate_failed()
        & nothing_in_progress()
    ).with_label("when_upstream_changed")


def upstream_data_changed() -> dg.AutomationCondition:
    """Edge: an upstream partition has another data version than at the last tick.

    A refresh that found nothing new keeps its data version, and so wakes nobody.
    """
    return _AC.any_deps_match(_AC.data_version_changed()).with_label("upstream_data_changed")


def configuration_changed() -> dg.AutomationCondition:
    """Edge: a file under the data directory that this asset is made from was edited.

    An edited prompt or question changes no upstream asset; it changes the asset's code version, which covers the
    configuration. What the edit does not touch is remembered and not made again.
    """
    return _AC.code_version_changed().with_label("configuration_changed")


def when_configuration_changed() -> dg.AutomationCondition:
    """Once per edit of what the asset is made from: a judge, its model, its labels. It has no upstream asset."""
    return (configuration_changed().since_last_handled() & nothing_in_progress()).with_label(
        "when_configuration_changed"
    )


def no_upstream_gate_failed() -> dg.AutomationCondition:
    """Level: no blocking check of a mapped upstream partition has failed on its latest evaluation.

    The gate between runs: inside one run Dagster stops by itself, across runs only this does. Asked as "none failed"
    and not as ``all_deps_blocking_checks_passed()``, because a source that was never loaded has no passed check
    either and would block the others. A later pass releases what was held, even with an unchanged data version.
    A judge that does not agree with people holds nothing: it may inform, and the experiment itself lets it decide nothing.
    """
    failed = _AC.any_deps_match(_AC.any_checks_match(_AC.check_failed(), blocking_only=True))
    return (~failed.ignore(dg.AssetSelection.assets(JUDGE_ASSET))).with_label("no_upstream_gate_failed")


def nothing_in_progress() -> dg.AutomationCondition:
    """Level: neither this partition nor an upstream one is being made.

    The night refreshes every source; without this each would start an evaluation of its own, and all but the last
    would measure a corpus that is about to change.
    """
    return (~_AC.in_progress() & ~_AC.any_deps_in_progress()).with_label("nothing_in_progress")


def daily_after_refresh(cron: str, timezone: str) -> dg.AutomationCondition:
    """Once a day for the newest daily partition, after the nightly refreshes are over.

    Why not ``on_cron()``: it waits until *every* upstream was updated since the tick, so that the night one source
    fails, drift, which is then most wanted, would not be reported.
    """
    return (
        _AC.in_latest_time_window() & _AC.cron_tick_passed(cron, timezone).since_last_handled() & nothing_in_progress()
    ).with_label("daily_after_refresh")


def daily(cron: str, timezone: str) -> dg.AutomationCondition:
    """Once a day for every partition, when nothing upstream is being made.

    Live questions change no upstream asset, so that only the clock can ask for a look at them.
    """
    return (_AC.cron_tick_passed(cron, timezone).since_last_handled() & nothing_in_progress()).with_label("daily")


def automation_conditions(config: ProjectConfig, *, timezone: str = "UTC") -> dict[dg.AssetKey, dg.AutomationCondition]:
    """The condition of every asset that has one. The assets of a refresh have none: their run is requested whole."""
    conditions = {dg.AssetKey(DRIFT_ASSET): daily_after_refresh(DRIFT_CRON, timezone)}
    if config.datasets:
        conditions[dg.AssetKey(DATASET_ASSET)] = when_upstream_changed()
    if any(dataset.synthetic for dataset in config.datasets.values()):
        conditions[dg.AssetKey(SYNTHESIS_ASSET)] = when_upstream_changed()
    if calibrated_judges(config.judges):
        conditions[dg.AssetKey(JUDGE_ASSET)] = when_configuration_changed()
    if config.experiments:
        conditions[dg.AssetKey(EXPERIMENT_ASSET)] = when_upstream_changed()
        conditions[dg.AssetKey(SHADOW_ASSET)] = daily(SHADOW_CRON, timezone)
    return conditions


def build_automation_sensor() -> dg.AutomationConditionSensorDefinition:
    """Evaluates the conditions every 30 seconds. Declared, because Dagster's own default sensor starts switched off."""
    return dg.AutomationConditionSensorDefinition(
        "automation",
        target=dg.AssetSelection.all(),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=30,
        run_tags={ORIGIN_TAG: "automation"},
    )
