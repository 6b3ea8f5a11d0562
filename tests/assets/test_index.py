"""The assets embeddings and search_index, run by Dagster in this process."""

from collections.abc import Callable
from typing import Any

import dagster as dg
import pytest
from psycopg import sql

from assets.chunks.chunking import chunk_source
from assets.index import refreshing
from assets.index.assets import build_assets
from assets.index.checks import EMBEDDING_CHECKS, INDEX_CHECKS
from assets.index.staging import Stage, stage
from resources.errors import SnapshotNotFoundError
from resources.platform import Platform
from tests.index_world import article, commit, searcher

Make = Callable[..., Platform]
TEXTS = {f"{subject}.md": article(subject) for subject in ("apple", "pear")}


def materialize(platform: Platform, texts: dict[str, str], instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    commit(platform, "docs", texts)
    chunk_source(platform, "docs")
    return dg.materialize(
        build_assets(platform.config),
        resources={"platform": platform},
        instance=instance,
        partition_key="docs",
        raise_on_error=False,
    )


def metadata(result: dg.ExecuteInProcessResult, asset: str) -> dict[str, Any]:
    (event,) = [e for e in result.get_asset_materialization_events() if e.asset_key == dg.AssetKey(asset)]
    return {key: value.value for key, value in event.materialization.metadata.items()}


def versions(result: dg.ExecuteInProcessResult) -> dict[str, str]:
    return {
        event.asset_key.to_user_string(): (event.materialization.tags or {})["dagster/data_version"]
        for event in result.get_asset_materialization_events()
        if event.asset_key
    }


def test_run_embeds_and_publishes_and_says_what_it_did(make_platform: Make) -> None:
    platform = make_platform()
    result = materialize(platform, TEXTS, dg.DagsterInstance.ephemeral())
    assert result.success
    assert metadata(result, "embeddings")["computed"] == 8
    shown = metadata(result, "search_index")
    assert (shown["dagster/row_count"], shown["rows_added"], shown["published"]) == (8, 8, 1)
    assert shown["snapshots"] == {"main": 1}
    assert searcher(platform).search("main", "apple", k=1).hits[0].path == "apple.md"
    evaluations = result.get_asset_check_evaluations()
    assert {evaluation.check_name for evaluation in evaluations} == {*EMBEDDING_CHECKS, *INDEX_CHECKS}
    assert all(evaluation.passed and evaluation.partition == "docs" for evaluation in evaluations)


def test_second_run_does_nothing_and_keeps_its_data_versions(make_platform: Make) -> None:
    platform, instance = make_platform(), dg.DagsterInstance.ephemeral()
    first = materialize(platform, TEXTS, instance)
    second = materialize(platform, TEXTS, instance)
    assert second.success
    assert versions(second) == versions(first)
    assert metadata(second, "embeddings")["computed"] == 0
    assert metadata(second, "search_index")["published"] == 0
    third = materialize(platform, {**TEXTS, "plum.md": article("plum")}, instance)
    assert all(versions(third)[name] != version for name, version in versions(first).items())


def test_failed_check_fails_the_run_and_publishes_nothing(make_platform: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    platform = make_platform()

    def sabotaged(*arguments: Any) -> Stage:
        result = stage(*arguments)
        with platform.database.connect() as connection:
            connection.execute(sql.SQL("DELETE FROM {} WHERE ordinal = 0").format(sql.Identifier(result.table)))
        return result

    monkeypatch.setattr(refreshing, "stage", sabotaged)
    result = materialize(platform, TEXTS, dg.DagsterInstance.ephemeral())
    assert not result.success
    assert list(versions(result)) == ["embeddings"]
    failed = {e.check_name for e in result.get_asset_check_evaluations() if not e.passed}
    assert failed == {"count_parity"}
    with pytest.raises(SnapshotNotFoundError):
        searcher(platform).serving("main")


def test_index_that_cannot_be_staged_is_named_and_the_other_goes_out(
    make_platform: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = make_platform(**{"indexes/other.yaml": {"name": "other", "embedder": "lexical"}})

    def broken(platform: Platform, index: str, *arguments: Any) -> Stage:
        result = stage(platform, index, *arguments)
        if index == "main":
            with platform.database.connect() as connection:
                connection.execute("SELECT * FROM nowhere")
        return result

    monkeypatch.setattr(refreshing, "stage", broken)
    result = materialize(platform, TEXTS, dg.DagsterInstance.ephemeral())
    assert not result.success
    (failure,) = [e for e in result.all_events if e.is_step_failure]
    message = str(failure.step_failure_data.user_failure_data.description)  # type: ignore[union-attr]
    assert "index main: UndefinedTable" in message
    assert searcher(platform).serving("other") == 1


def test_waiting_for_another_source_is_no_failure(make_platform: Make, tmp_path: Any) -> None:
    sources = {"sources": [{"name": name, "path": str(tmp_path)} for name in ("docs", "wiki")]}
    platform, instance = make_platform(**{"sources.yaml": sources}), dg.DagsterInstance.ephemeral()
    materialize(platform, TEXTS, instance)
    commit(platform, "wiki", {"plum.md": article("plum")})
    chunk_source(platform, "wiki")
    assets = build_assets(platform.config)
    assert dg.materialize(assets, resources={"platform": platform}, instance=instance, partition_key="wiki").success
    changed = make_platform(
        **{
            "sources.yaml": sources,
            "indexes/main.yaml": {
                "name": "main",
                "embedder": "lexical",
                "chunker": {"unit": "characters", "size": 100},
            },
        }
    )
    result = materialize(changed, TEXTS, instance)
    assert result.success
    assert metadata(result, "search_index")["published"] == 0
    (event,) = [e for e in result.get_asset_materialization_events() if e.asset_key == dg.AssetKey("search_index")]
    shown = event.materialization.metadata["indexes"]
    assert isinstance(shown, dg.TableMetadataValue)
    (row,) = shown.records
    assert row.data["strategy"] == "waiting"
    assert "wiki" in str(row.data["reason"])


def test_no_document_text_reaches_the_event_log(make_platform: Make) -> None:
    result = materialize(make_platform(), {"a.md": "Canary4711 sings in this text."}, dg.DagsterInstance.ephemeral())
    assert result.success
    assert not any("Canary4711" in str(event) for event in result.all_events)
