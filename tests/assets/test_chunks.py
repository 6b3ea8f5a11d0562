"""chunks through Dagster."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg

from assets.chunks.assets import build_assets as build_chunks
from assets.chunks.checks import CHECKS
from assets.corpus.assets import build_assets as build_corpus
from resources.platform import Platform
from tests.corpus_support import write


def run(platform: Platform, *, documents: bool = True) -> Any:
    made = [*build_corpus(platform.config), *build_chunks(platform.config)]
    return dg.materialize(
        made,
        selection=None if documents else [dg.AssetKey("chunks")],
        resources={"platform": platform},
        instance=dg.DagsterInstance.ephemeral(),
        partition_key="docs",
        raise_on_error=False,
    )


def metadata(result: Any) -> dict[str, Any]:
    event = result.asset_materializations_for_node("chunks")[0]
    return {key: getattr(value, "value", value) for key, value in event.metadata.items()}


def test_new_texts_are_chunked_and_checked_once(make_platform: Callable[..., Platform], tmp_path: Path) -> None:
    platform = make_platform()
    write(tmp_path / "docs", {"a.md": "# A\n\n" + "Some words. " * 60, "b.md": "# B"})
    first = metadata(run(platform))
    assert (first["texts_chunked"], first["reused"], first["chunks_written"]) == (2, 0, first["dagster/row_count"])
    result = run(platform)
    second = metadata(result)
    assert (second["texts_chunked"], second["chunks_written"], second["reused"]) == (0, 0, 2)
    assert second["dagster/row_count"] == first["dagster/row_count"]
    found = {
        item.check_name: item for item in result.get_asset_check_evaluations() if item.asset_key.path == ["chunks"]
    }
    assert list(found) == list(CHECKS)
    assert "no new chunks" in (found["coverage"].description or "")
    with platform.database.connect() as connection:
        kept = connection.execute("SELECT check_name FROM evidence WHERE kind = 'chunks'").fetchall()
    assert sorted(row[0] for row in kept) == sorted(CHECKS)


def test_chunks_without_documents_are_refused(make_platform: Callable[..., Platform], tmp_path: Path) -> None:
    platform = make_platform()
    result = run(platform, documents=False)
    assert not result.success
    assert [item.check_name for item in result.get_asset_check_evaluations() if not item.passed] == [
        "chunk_sets_complete"
    ]
