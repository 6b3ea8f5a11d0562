"""Loading definitions is light, touches nothing, and agrees with what the files beside it say."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HEAVY = [
    "pandas",
    "great_expectations",
    "evaluate",
    "datasets",
    "openai",
    "sklearn",
    "scipy",
    "nltk",
    "kreuzberg",
    "matplotlib",
]


def test_loading_definitions_imports_nothing_heavy_and_starts_no_database(tmp_path: Path) -> None:
    program = f"""
import json, sys, os
os.environ["GENAIOPS_STATE_DIR"] = {str(tmp_path / "state")!r}
import pipelines.definitions
print(json.dumps(sorted(set({HEAVY!r}) & set(sys.modules))))
"""
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert json.loads(result.stdout.splitlines()[-1]) == []
    assert not (tmp_path / "state").exists()


def test_assets_jobs_schedules_and_sensors_are_the_documented_ones() -> None:
    from pipelines.definitions import defs

    repository = defs.get_repository_def()
    keys = {key.to_user_string() for key in repository.asset_graph.get_all_asset_keys()}
    assert keys == {
        "raw_documents", "chunks", "embeddings", "search_index", "evaluation_dataset", "scored_variants",
        "drift_report", "shadow_comparison", "operations",
    }  # fmt: skip
    jobs = {job.name for job in repository.get_all_jobs()} - {"__ASSET_JOB"}
    assert jobs == {
        "refresh_source",
        "build_dataset",
        "run_experiment",
        "watch_drift",
        "shadow_traffic",
        "maintain",
        "standing_checks",
    }
    assert {schedule.name for schedule in repository.schedule_defs} == {
        "nightly_refresh", "nightly_maintenance", "hourly_standing_checks",
    }  # fmt: skip


def test_every_asset_says_who_owns_it_and_what_it_is() -> None:
    from pipelines.definitions import defs

    for key in defs.resolve_asset_graph().get_all_asset_keys():
        node = defs.resolve_asset_graph().get(key)
        assert node.description, key
        assert node.owners, key
        assert node.group_name != "default", key


def test_every_pool_is_made_before_the_first_run() -> None:
    from pipelines.definitions import defs
    from pipelines.instance import POOLS

    graph = defs.resolve_asset_graph()
    used = {pool for key in graph.get_all_asset_keys() for pool in graph.get(key).pools or ()}
    assert used == set(POOLS)


def test_every_gated_asset_has_blocking_checks() -> None:
    from pipelines.definitions import defs

    graph = defs.resolve_asset_graph()
    blocking = {key.asset_key.to_user_string() for key in graph.asset_check_keys if graph.get(key).blocking}
    assert {
        "raw_documents",
        "chunks",
        "embeddings",
        "search_index",
        "evaluation_dataset",
        "scored_variants",
        "drift_report",
    } <= blocking
