"""evaluation_dataset through Dagster: versions, metadata, and gates that keep a bad dataset from being published."""

from collections.abc import Callable
from typing import Any

import dagster as dg
import pytest

from assets.evaluation.assets import build_assets
from assets.evaluation.checks import CHECKS
from assets.evaluation.dataset import read_dataset
from resources.platform import Platform
from tests.evaluation_support import dataset_files, delete_document, jsonl, line, put_document

MakePlatform = Callable[..., Platform]
FACTS = (
    "The battery lasts 80 km.",
    "The belt is renewed after 20000 km.",
    "The lamp has 60 lux.",
    "The lock weighs 2 kg.",
)
TEXT = "# Bike\n\n" + " ".join(FACTS) + "\n"


def questions() -> list[dict[str, Any]]:
    asked = [
        line(
            f"q{number}",
            f"What is known of the {fact.split()[1]}?",
            fact,
            quote=fact,
            split=("dev", "test")[number % 2],
        )
        for number, fact in enumerate(FACTS)
    ]
    return [*asked, line("u1", "Who sells umbrellas?"), line("u2", "Which moon is nearest?", split="test")]


@pytest.fixture
def platform(make_platform: MakePlatform) -> Platform:
    platform = make_platform(**dataset_files(*questions(), minimum_questions=4, maximum_stale_share=0.4))
    with platform.database.connect() as connection:
        put_document(connection, "bike.md", "# Other\n")
        put_document(connection, "a.md", TEXT)
    return platform


def materialize(platform: Platform, instance: dg.DagsterInstance | None = None) -> dg.ExecuteInProcessResult:
    return dg.materialize(
        build_assets(platform.config),
        resources={"platform": platform},
        instance=instance or dg.DagsterInstance.ephemeral(),
        partition_key="qa",
        raise_on_error=False,
    )


def metadata(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    events = result.asset_materializations_for_node("evaluation_dataset")
    return {key: value.value for key, value in events[0].metadata.items()}


def data_version(result: dg.ExecuteInProcessResult) -> str:
    return (result.asset_materializations_for_node("evaluation_dataset")[0].tags or {})["dagster/data_version"]


def versions(platform: Platform) -> list[int]:
    with platform.database.connect() as connection:
        return [row[0] for row in connection.execute("SELECT version FROM evaluation_dataset ORDER BY version")]


def test_dataset_is_published_with_checks_file_and_evidence(platform: Platform) -> None:
    result = materialize(platform)
    assert result.success
    assert {one.check_name for one in result.get_asset_check_evaluations() if one.passed} == set(CHECKS)
    assert {one.partition for one in result.get_asset_check_evaluations()} == {"qa"}
    shown = metadata(result)
    assert (shown["version"], shown["new_version"], shown["dagster/row_count"], shown["stale"]) == (1, True, 6, 0)
    with platform.database.connect() as connection:
        stored = read_dataset(connection, "qa")
        evidence = connection.execute(
            "SELECT check_name, passed FROM evidence WHERE kind = 'evaluation_dataset' AND subject = 'qa' AND fingerprint = %s",
            (stored.content_hash,),
        ).fetchall()
    assert dict(evidence) == dict.fromkeys(CHECKS, True)
    assert data_version(result) == stored.content_hash


def test_unchanged_documents_and_questions_keep_version_and_data_version(platform: Platform) -> None:
    first, second = materialize(platform), materialize(platform)
    assert data_version(first) == data_version(second)
    assert versions(platform) == [1]
    assert metadata(second)["rows_written"] == 0
    stands = [one.check_name for one in second.get_asset_check_evaluations() if "stands" in (one.description or "")]
    assert sorted(stands) == ["duplicate_questions", "few_shot_leakage", "questions_suite"]


def test_vanished_evidence_is_shown_with_question_and_reason(platform: Platform) -> None:
    materialize(platform)
    with platform.database.connect() as connection:
        put_document(connection, "a.md", TEXT.replace(FACTS[3], ""))
    result = materialize(platform)
    assert result.success
    shown = metadata(result)
    assert (shown["version"], shown["stale"]) == (2, 1)
    rows = [record.data for record in shown["stale_questions"].records]
    assert rows == [{"question": "q3", "reason": "docs/a.md: the quoted passage is gone"}]


def test_too_many_stale_questions_leave_the_published_version_and_stop_downstream(platform: Platform) -> None:
    assert materialize(platform).success
    with platform.database.connect() as connection:
        put_document(connection, "a.md", "# Bike\n\nAll was rewritten.\n")

    @dg.asset(deps=["evaluation_dataset"], partitions_def=dg.StaticPartitionsDefinition(["qa"]))
    def downstream() -> None: ...

    result = dg.materialize(
        [*build_assets(platform.config), downstream],
        resources={"platform": platform},
        instance=dg.DagsterInstance.ephemeral(),
        partition_key="qa",
        raise_on_error=False,
    )
    assert not result.success
    assert not result.get_asset_materialization_events()
    failed = {one.check_name for one in result.get_asset_check_evaluations() if not one.passed}
    assert {"stale_share", "dataset_size"} <= failed
    assert versions(platform) == [1]
    with platform.database.connect() as connection:
        row = connection.execute(
            "SELECT count(*) FROM evidence WHERE check_name = 'stale_share' AND NOT passed"
        ).fetchone()
    assert row == (1,)


def test_one_sided_split_only_warns(platform: Platform) -> None:
    platform.config.questions_path("qa").write_text(jsonl(*questions()[:5]), encoding="utf-8")
    result = materialize(platform)
    assert result.success
    failed = [one for one in result.get_asset_check_evaluations() if not one.passed]
    assert [(one.check_name, one.severity) for one in failed] == [("split_balance", dg.AssetCheckSeverity.WARN)]


def test_broken_question_file_fails_the_run_and_keeps_the_version(platform: Platform) -> None:
    materialize(platform)
    platform.config.questions_path("qa").write_text("{", encoding="utf-8")
    result = materialize(platform)
    assert not result.success
    assert versions(platform) == [1]


def test_renamed_document_neither_loses_evidence_nor_wakes_downstream(platform: Platform) -> None:
    first = materialize(platform)
    with platform.database.connect() as connection:
        row = connection.execute("SELECT document_id FROM document_version WHERE path = 'a.md'").fetchone()
        assert row
        delete_document(connection, row[0])
        put_document(connection, "new/name.md", TEXT, document_id=row[0])
    second = materialize(platform)
    assert second.success
    assert data_version(second) == data_version(first)


def test_questions_stay_out_of_metadata_and_check_results(platform: Platform) -> None:
    result = materialize(platform)
    events = [*result.get_asset_check_evaluations(), *result.asset_materializations_for_node("evaluation_dataset")]
    assert "umbrella" not in repr(events)


def test_no_dataset_means_no_asset(make_platform: MakePlatform) -> None:
    assert build_assets(make_platform().config) == []
