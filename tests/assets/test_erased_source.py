"""A source that was erased on request is empty by right: its refreshes, and those of what rests on it, go on."""

from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from assets.governance.erasure import forget
from resources.platform import Platform
from tests.corpus_support import write
from tests.lifecycle import index_state, refresh


@pytest.mark.parametrize("deleted_at_its_place", [False, True])
def test_a_source_that_was_erased_goes_on(
    make_platform: Callable[..., Platform], tmp_path: Path, deleted_at_its_place: bool
) -> None:
    platform = make_platform()
    docs = tmp_path / "docs"
    files = {
        "birds.md": "# Birds\n\nThe canary sleeps in crate seven.\n",
        "bikes.md": "# Bikes\n\nA charged battery.\n",
    }
    write(docs, files)
    with dg.DagsterInstance.ephemeral() as instance:
        work = refresh(platform, "docs", instance)
        assert set(work) == {"raw_documents", "chunks", "embeddings", "search_index"}
        forget(platform, source="docs", by="ada")
        if deleted_at_its_place:
            write(docs, dict.fromkeys(files))
        for _ in range(2):
            refresh(platform, "docs", instance)
        assert index_state(platform, "main") == []
        checks = failed_checks(instance)
        assert checks == {}

        write(docs, {"new.md": "# New\n\nA letter about lamps.\n"})
        refresh(platform, "docs", instance)
        assert [row[1] for row in index_state(platform, "main")] == ["new.md"]
        assert failed_checks(instance) == {}


def failed_checks(instance: dg.DagsterInstance) -> dict[str, str | None]:
    """Blocking checks whose newest result is a failure, with what they observed."""
    failed: dict[str, str | None] = {}
    for record in instance.get_run_records(limit=1):
        for entry in instance.all_logs(record.dagster_run.run_id):
            event = entry.dagster_event
            if event is not None and event.event_type_value == "ASSET_CHECK_EVALUATION":
                evaluation = event.asset_check_evaluation_data
                if not evaluation.passed and evaluation.severity == dg.AssetCheckSeverity.ERROR:
                    failed[evaluation.check_name] = evaluation.description
    return failed
