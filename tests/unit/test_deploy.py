"""deploy/: the files load, say the same as dagster.yaml beside the launcher, and hold no secret."""

import importlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster._config import process_config

ROOT = Path(__file__).resolve().parents[2]
#: What may differ from the root's file: where runs go, and how many and how long that takes.
OWN = {
    "ray": {"run_launcher": None, "max_concurrent_runs": 16, "start_timeout_seconds": 600},
    "kubernetes": {"run_launcher": None, "max_concurrent_runs": 32},
}
ENVIRONMENT = {
    "ray": ["RAY_DASHBOARD_ADDRESS"],
    "kubernetes": ["GENAIOPS_SERVICE_ACCOUNT", "GENAIOPS_NAMESPACE", "GENAIOPS_INSTANCE_CONFIG_MAP", "GENAIOPS_IMAGE"],
}
SECRETS = {"GENAIOPS_DATABASE_URL", "GENAIOPS_DAGSTER_URL", "OPENAI_API_KEY"}


def load(path: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


@pytest.mark.parametrize("where", list(OWN))
def test_only_the_launcher_differs(where: str) -> None:
    ours, base = load(f"deploy/{where}/dagster.yaml"), load("dagster.yaml")
    launcher = ours.pop("run_launcher")
    assert launcher["config"]
    base["concurrency"]["runs"]["max_concurrent_runs"] = OWN[where]["max_concurrent_runs"]
    if "start_timeout_seconds" in OWN[where]:
        base["run_monitoring"]["start_timeout_seconds"] = OWN[where]["start_timeout_seconds"]
    assert ours == base


@pytest.mark.parametrize("where", list(OWN))
def test_the_launcher_accepts_its_configuration(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(f"deploy/{where}/dagster.yaml")["run_launcher"]
    module = pytest.importorskip(settings["module"], reason=f"the extra genaiops[{where}] is not installed")
    for name in ENVIRONMENT[where]:
        monkeypatch.setenv(name, "http://127.0.0.1:8265" if where == "ray" else "name")
    launcher = getattr(importlib.import_module(module.__name__), settings["class"])
    result = process_config(launcher.config_type(), settings["config"])
    assert result.success, [error.message for error in result.errors or []]


@pytest.mark.parametrize("where", list(OWN))
def test_no_secret_is_handed_over_in_clear(where: str) -> None:
    config = load(f"deploy/{where}/dagster.yaml")["run_launcher"]["config"]
    handed = {entry.partition("=")[0] for entry in config.get("ray", config)["env_vars"]}
    assert handed
    assert not handed & SECRETS


def test_chart_values_agree_with_dagster_yaml() -> None:
    values, base = load("deploy/kubernetes/values.yaml"), load("dagster.yaml")
    daemon = values["dagsterDaemon"]
    queue = daemon["runCoordinator"]["config"]["queuedRunCoordinator"]
    assert queue["tagConcurrencyLimits"] == base["concurrency"]["runs"]["tag_concurrency_limits"]
    assert queue["dequeueIntervalSeconds"] == base["run_queue"]["dequeue_interval_seconds"]
    assert daemon["runRetries"]["maxRetries"] == base["run_retries"]["max_retries"]
    for name, theirs in {
        "start_timeout_seconds": "startTimeoutSeconds",
        "max_runtime_seconds": "maxRuntimeSeconds",
        "poll_interval_seconds": "pollIntervalSeconds",
    }.items():
        assert daemon["runMonitoring"][theirs] == base["run_monitoring"][name]
    assert values["postgresql"]["postgresqlScheme"] == "postgresql+psycopg2"
    (code,) = values["dagster-user-deployments"]["deployments"]
    assert code["dagsterApiGrpcArgs"][1] == "pipelines.definitions"
    assert not {entry["name"] for entry in code["env"]} & SECRETS
