"""``genaiops evaluate`` and the sensor build what an experiment derives; ``genaiops maintain`` removes what it leaves behind."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from pipelines.definitions import build_defs
from pipelines.jobs import build_jobs
from pipelines.sensors import build_reconcile
from pipelines.settings import Settings
from resources.platform import Platform
from tests.integration.test_cli import Shell, open_shell
from tests.unit.test_derived_indexes import FINE, build, refresh


@pytest.fixture
def shell(server_url: str, tmp_path: Path) -> Iterator[Shell]:
    yield from open_shell(server_url, tmp_path)


def derive(shell: Shell, *chunkers: dict[str, Any]) -> None:
    """Let the experiment search further indexes."""
    path = shell.root / "data" / "experiments" / "answers.yaml"
    written = yaml.safe_load(path.read_text(encoding="utf-8"))
    written["grid"] |= {"index": ["main", *({"base": "main", **one} for one in chunkers)], "search_mode": ["hybrid"]}
    path.write_text(yaml.safe_dump(written), encoding="utf-8")


@pytest.mark.slow
def test_evaluate_builds_what_is_missing_and_maintain_removes_what_left(shell: Shell) -> None:
    derive(shell, {"label": "fine", "chunker": FINE})
    told = shell.ok("validate")
    assert "2 indexes" in told
    assert "main--fine: main with chunker" in told
    assert "(derived by answers)" in told
    shell.ok("evaluate")  # nothing was ever loaded: this refreshes, too
    assert shell.rows("SELECT count(*) FROM experiment_result") == [(1,)]
    assert shell.rows("SELECT index_name, head FROM index_state ORDER BY 1") == [("main", 1), ("main--fine", 1)]
    found = shell.rows("SELECT DISTINCT split_part(name, '/', 1) FROM variant ORDER BY 1")
    assert found == [("main",), ("main--fine",)]
    assert "main--fine" in shell.ok("status")

    derive(shell, {"label": "finer", "chunker": {"kind": "sentence", "size": 16}})
    shell.ok("evaluate", "answers")
    assert shell.rows("SELECT index_name, head FROM index_state ORDER BY 1")[-1] == ("main--finer", 1)
    (shell.root / "data" / "policies" / "index.yaml").write_text("unconfigured_days: 0\n", encoding="utf-8")
    shell.ok("maintain")
    assert shell.rows("SELECT DISTINCT index_name FROM index_snapshot ORDER BY 1") == [("main",), ("main--finer",)]
    assert "main--fine:" not in shell.ok("status")
    assert shell.rows("SELECT count(*) FROM index_build WHERE index_name = 'main--fine' AND state <> 'dropped'") == [
        (0,)
    ]


def requested(platform: Platform) -> list[tuple[str | None, str | None, str | None]]:
    config = platform.config
    sensor = build_reconcile(config, build_jobs(config))
    defs = build_defs(
        Settings(data_dir=config.data_dir, state_dir=config.data_dir / "state", database_url="postgresql://unused")
    )
    context = dg.build_sensor_context(
        instance=dg.DagsterInstance.ephemeral(), definitions=defs, resources={"platform": platform}
    )
    found: Any = sensor(context)
    return [(one.job_name, one.partition_key, one.run_key) for one in found if isinstance(one, dg.RunRequest)]


def test_the_sensor_asks_once_for_an_index_that_an_experiment_derived(make_platform: Callable[..., Platform]) -> None:
    refresh(build(make_platform))
    platform = build(make_platform, {"label": "fine", "chunker": FINE})
    first, again = requested(platform), requested(platform)
    assert [(job, source) for job, source, _ in first] == [("refresh_source", "docs")]
    assert first == again  # the same run key: Dagster starts it once
    assert "unbuilt-" in (first[0][2] or "")
    refresh(platform)
    assert requested(platform) == []


def test_the_sensor_leaves_sources_alone_that_were_never_loaded(make_platform: Callable[..., Platform]) -> None:
    assert requested(build(make_platform, {"label": "fine", "chunker": FINE})) == []
