"""Every check of raw_documents fails on bad data, and then nothing is committed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from assets.corpus.assets import build_assets
from assets.corpus.checks import (
    CHECKS,
    document_ids_unique,
    duplicate_content,
    listing_not_empty,
    quarantine_share,
    validate_documents,
    volume_drop,
)
from assets.corpus.quarantine import Quarantined
from assets.dagster_support import source_partitions
from resources.platform import Platform
from tests.corpus_support import identities, write

GOOD = {
    "document_id": pd.array([1, 2, None], dtype="Int64"),
    "path": ["a", "b", "c"],
    "title": ["A", "B", "C"],
    "text_hash": ["0" * 32, "1" * 32, "1" * 32],
    "characters": [10, 20, 30],
    "bytes": [10, 0, 30],
    "language": ["en", "de", None],
}


def test_good_documents_pass_the_suite() -> None:
    assert validate_documents(pd.DataFrame(GOOD), 10).passed


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("document_id", pd.array([1, 1, None], dtype="Int64")),
        ("path", ["a", "a", "c"]),
        ("path", ["a", None, "c"]),
        ("title", ["A", None, "C"]),
        ("title", ["A", "", "C"]),
        ("text_hash", ["0" * 32, None, "1" * 32]),
        ("text_hash", ["0" * 32, "short", "1" * 32]),
        ("characters", [10, 9, 30]),
        ("bytes", [10, -1, 30]),
        ("language", ["en", "English", None]),
    ],
)
def test_each_expectation_fails_on_bad_documents(column: str, values: Any) -> None:
    outcome = validate_documents(pd.DataFrame({**GOOD, column: values}), 10)
    assert not outcome.passed
    failed = [row for row in outcome.details["expectations"] if not row["passed"]]
    assert all(f"({column})" in row["expectation"] for row in failed)


def test_no_documents_fail_the_suite() -> None:
    assert not validate_documents(pd.DataFrame(GOOD).iloc[:0], 10).passed


@pytest.mark.parametrize(("before", "listed", "passed"), [(5, 0, False), (5, 1, True), (0, 0, True)])
def test_listing_not_empty(before: int, listed: int, passed: bool) -> None:
    assert listing_not_empty(before, listed).passed is passed


@pytest.mark.parametrize(
    ("before", "after", "passed"), [(10, 7, True), (10, 6, False), (10, 20, True), (0, 0, True), (1, 0, False)]
)
def test_volume_drop(before: int, after: int, passed: bool) -> None:
    assert volume_drop(before, after, 0.3).passed is passed


def test_quarantine_share_counts_trouble_and_not_what_is_expected() -> None:
    bad = [Quarantined("a", "parse_failed", "why"), Quarantined("b", "unsupported", "why")]
    assert quarantine_share(4, bad, 0.2).passed
    failed = quarantine_share(3, bad, 0.2)
    assert not failed.passed
    assert failed.details["quarantined"] == [{"path": "a", "code": "parse_failed", "reason": "why"}]
    assert failed.details["codes"] == {"parse_failed": 1, "unsupported": 1}


def test_document_ids_unique() -> None:
    assert document_ids_unique({"a": 1, "b": 2, "c": None, "d": None}).passed
    outcome = document_ids_unique({"a": 1, "b": 1, "c": None})
    assert not outcome.passed
    assert outcome.observed == "document 1: a, b"


def test_duplicate_content_warns_and_never_blocks() -> None:
    assert duplicate_content([("a", b"1"), ("b", b"2")]).passed
    outcome = duplicate_content([("a", b"1"), ("b", b"1"), ("c", b"2")])
    assert (outcome.passed, outcome.blocking, outcome.severity) == (False, False, "WARN")
    assert outcome.details["equal"] == [{"paths": "a, b"}]


def _run(platform: Platform) -> tuple[bool, bool, list[str], list[str]]:
    """Success, whether a downstream asset ran, names of failed checks, names of all reported."""
    ran = []

    @dg.asset(deps=["raw_documents"], partitions_def=source_partitions(platform.config))
    def downstream() -> None:
        ran.append(True)

    result = dg.materialize(
        [*build_assets(platform.config), downstream],
        resources={"platform": platform},
        instance=dg.DagsterInstance.ephemeral(),
        partition_key="docs",
        raise_on_error=False,
    )
    evaluated = result.get_asset_check_evaluations()
    failed = [item.check_name for item in evaluated if not item.passed]
    return result.success, bool(ran), failed, [item.check_name for item in evaluated]


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        ({f"{n}.md": None for n in range(10)}, ["documents_suite", "listing_not_empty", "volume_drop"]),
        ({f"{n}.md": None for n in range(4)}, ["volume_drop"]),
        ({f"bad{n}.pdf": b"%PDF broken" for n in range(4)}, ["quarantine_share"]),
    ],
    ids=["nothing listed", "a third missing", "many unreadable"],
)
def test_blocked_refresh_commits_nothing_and_stops_what_depends_on_it(
    make_platform: Callable[..., Platform], tmp_path: Path, change: dict[str, Any], failed: list[str]
) -> None:
    platform = make_platform()
    docs = tmp_path / "docs"
    write(docs, {f"{number}.md": f"# Number {number}" for number in range(10)})
    assert _run(platform)[:3] == (True, True, [])
    before = identities(platform)
    write(docs, change)
    success, downstream, found, reported = _run(platform)
    assert (success, downstream, found, reported) == (False, False, failed, list(CHECKS))
    with platform.database.connect() as connection:
        assert connection.execute("SELECT max(revision) FROM source_revision").fetchone() == (1,)
        assert connection.execute("SELECT count(*) FROM quarantine").fetchone() == (0,)
    assert identities(platform) == before


def test_a_warning_does_not_stop_the_refresh(make_platform: Callable[..., Platform], tmp_path: Path) -> None:
    platform = make_platform()
    write(tmp_path / "docs", {"a.md": "# Same", "b.md": "# Same"})
    assert _run(platform)[:3] == (True, True, ["duplicate_content"])
    assert len(identities(platform)) == 2
