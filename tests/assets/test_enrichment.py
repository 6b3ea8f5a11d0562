"""Enrichment through Dagster: what the chunks asset shows, warns of and refuses."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from assets.chunks.enrichment_checks import CHECKS
from resources.platform import Platform
from tests.assets.test_chunks import metadata, run
from tests.corpus_support import write
from tests.enrichment_support import answering, index, models, passage_of, with_server
from tests.fake_openai import FakeOpenAI

Make = Callable[..., Platform]
CANARY = "Canary4711"
STEP = {"kind": "summary", "method": "model", "model": "writer", "tries": 1}


def answer(body: dict[str, Any]) -> str:
    return "no JSON" if "Thing 3" in passage_of(body) else answering(lambda passage: f"A summary of {CANARY}.")(body)


@pytest.fixture
def server() -> Iterator[FakeOpenAI]:
    with FakeOpenAI(answer=answer) as server:
        yield server


def configured(make_platform: Make, server: FakeOpenAI, share: float) -> Platform:
    files = {
        "models.yaml": models(),
        "indexes/main.yaml": index("main", [STEP, {"kind": "language", "use": []}]),
        "policies/enrichment.yaml": {"maximum_given_up_share": share},
    }
    return with_server(make_platform(**files), server)


def checks(result: Any) -> dict[str, dg.AssetCheckEvaluation]:
    return {item.check_name: item for item in result.get_asset_check_evaluations() if item.asset_key.path == ["chunks"]}


def steps(result: Any) -> list[dict[str, Any]]:
    """The rows of the table of steps."""
    (event,) = result.asset_materializations_for_node("chunks")
    return [dict(record.data) for record in event.metadata["enrichment"].records]


def test_run_shows_what_was_computed_reused_and_paid(make_platform: Make, server: FakeOpenAI, tmp_path: Path) -> None:
    platform = configured(make_platform, server, 0.5)
    write(tmp_path / "docs", {f"{number}.md": f"# Thing {number}\n\nThe {CANARY} is here." for number in range(10)})
    result = run(platform)
    assert result.success
    shown = metadata(result)
    summary, language = steps(result)
    assert (summary["step"], summary["computed"], summary["given up"], summary["calls"]) == (
        "summary (writer)",
        9,
        1,
        10,
    )
    assert (language["used for"], language["computed"]) == ("the record only", 10)
    assert language["languages"].startswith("en ")
    assert (shown["enrichment_calls"], shown["enrichment_currency"]) == (10, "USD")
    assert shown["enrichment_cost"] > 0
    found = checks(result)
    assert set(CHECKS) <= set(found)
    assert not found["given_up"].passed
    assert found["given_up"].severity == dg.AssetCheckSeverity.WARN
    assert found["given_up_share"].passed
    again = run(platform)
    summary, _ = steps(again)
    assert (summary["computed"], summary["reused"], summary["calls"]) == (0, 9, 0)
    for event in [*result.all_events, *again.all_events]:
        assert CANARY not in str(event)


def test_too_many_chunks_without_a_value_block(make_platform: Make, server: FakeOpenAI, tmp_path: Path) -> None:
    platform = configured(make_platform, server, 0.05)
    write(tmp_path / "docs", {f"{number}.md": f"# Thing {number}\n\nText." for number in range(10)})
    result = run(platform)
    assert not result.success
    assert not checks(result)["given_up_share"].passed
    assert not result.asset_materializations_for_node("chunks")


def test_over_budget_fails_without_a_call_and_without_retries(
    make_platform: Make, server: FakeOpenAI, tmp_path: Path
) -> None:
    files = {
        "models.yaml": models(),
        "indexes/main.yaml": index("main", [STEP]),
        "policies/enrichment.yaml": {"calls_per_refresh": 1},
    }
    platform = with_server(make_platform(**files), server)
    write(tmp_path / "docs", {f"{number}.md": f"# Thing {number}\n\nText." for number in range(3)})
    result = run(platform)
    assert not result.success
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert "more than calls_per_refresh 1" in str(failure.step_failure_data.user_failure_data.description)  # type: ignore[union-attr]
    assert server.requests == []
