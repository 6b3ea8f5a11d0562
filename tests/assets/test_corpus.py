"""raw_documents through Dagster."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from assets.corpus import checks
from assets.corpus.assets import build_assets
from assets.corpus.checks import CHECKS
from resources.platform import Platform
from tests.corpus_support import identities, write


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    return tmp_path / "docs"


def run(platform: Platform) -> Any:
    return dg.materialize(
        build_assets(platform.config),
        resources={"platform": platform},
        instance=dg.DagsterInstance.ephemeral(),
        partition_key="docs",
        raise_on_error=False,
    )


def materialization(result: Any) -> dg.AssetMaterialization:
    return result.get_asset_materialization_events()[0].materialization


def observed(result: Any) -> dict[str, Any]:
    return {item.check_name: item for item in result.get_asset_check_evaluations()}


def test_documents_are_committed_with_counts_and_a_sample(make_platform: Callable[..., Platform], docs: Path) -> None:
    platform = make_platform()
    write(docs, {"a.md": "# A\n\nSecret words.", "b.md": "# B", "c.png": b"\x89PNG"})
    result = run(platform)
    assert result.success
    metadata = {key: getattr(value, "value", value) for key, value in materialization(result).metadata.items()}
    assert (metadata["dagster/row_count"], metadata["added"], metadata["parsed"], metadata["quarantined"]) == (
        2,
        2,
        2,
        1,
    )
    sample = [record.data for record in materialization(result).metadata["sample"].records]  # pyright: ignore[reportAttributeAccessIssue]
    assert sample[0] == {"path": "a.md", "title": "A", "language": "", "characters": 18}
    assert list(observed(result)) == list(CHECKS)
    assert all(item.passed and item.partition == "docs" for item in observed(result).values())


def test_document_text_is_in_no_event(make_platform: Callable[..., Platform], docs: Path) -> None:
    platform = make_platform()
    write(docs, {"a.md": "# A\n\nThe canary is 7f3c9e.", "broken.pdf": b"%PDF-1.7 canary 7f3c9e"})
    result = run(platform)
    assert not [event for event in result.all_events if "7f3c9e" in f"{event.message}{event.event_specific_data}"]
    with platform.database.connect() as connection:
        assert "7f3c9e" not in json.dumps(connection.execute("SELECT details FROM evidence").fetchall())


def test_unchanged_source_keeps_its_data_version_and_its_evidence(
    make_platform: Callable[..., Platform], docs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = make_platform()
    write(docs, {"a.md": "# A"})
    first = run(platform)
    monkeypatch.setattr(
        checks, "documents_suite", lambda *arguments: pytest.fail("the suite ran although nothing changed")
    )
    second = run(platform)
    assert second.success
    versions = [(materialization(result).tags or {})["dagster/data_version"] for result in (first, second)]
    assert versions[0] == versions[1]
    assert "evidence of that revision stands" in (observed(second)["documents_suite"].description or "")


def test_the_suite_runs_again_where_its_evidence_is_missing(make_platform: Callable[..., Platform], docs: Path) -> None:
    platform = make_platform()
    write(docs, {"a.md": "# A"})
    run(platform)
    with platform.database.connect() as connection:
        connection.execute("DELETE FROM evidence")
    assert "expectations on 1 rows" in (observed(run(platform))["documents_suite"].description or "")


def test_missing_folder_fails_the_run_and_keeps_the_documents(
    make_platform: Callable[..., Platform], docs: Path
) -> None:
    platform = make_platform()
    write(docs, {"a.md": "# A"})
    run(platform)
    (docs / "a.md").unlink()
    docs.rmdir()
    assert not run(platform).success
    assert list(identities(platform)) == ["a.md"]
