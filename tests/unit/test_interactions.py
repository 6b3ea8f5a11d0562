"""Interactions: what `ask` logs is what monitoring reads, day by day, and no longer than policy says."""

from datetime import UTC, date, datetime
from typing import Any

import pytest

from assets.monitoring.interactions import day_bounds, purge, read_days
from resources.answerer import Answer, Citation, Variant
from resources.interaction_log import log_interaction
from resources.models import Usage
from resources.postgres import Database
from resources.prompt_config import PromptConfig
from resources.vector_index import SearchHit

TEXT = "The rear light is charged over a cable."
TODAY = datetime.now(UTC).date()


@pytest.fixture
def variant() -> Variant:
    prompt = PromptConfig(name="plain", system="s", user="{{ question }} {{ passages }}")
    return Variant("main/plain/hybrid/k1/extractive", "main", "i", prompt, "hybrid", 1, "extractive", "m")


@pytest.fixture
def answer(database: Database) -> Answer:
    with database.connect() as connection:  # of a document that does not exist any more nothing is recorded
        connection.execute("INSERT INTO document (document_id, source) OVERRIDING SYSTEM VALUE VALUES (7, 'docs')")
    hit = SearchHit(
        rank=1, score=0.25, document_id=7, version_id=8, source="docs", path="light.md", title="Light", ordinal=0,
        start=0, end=len(TEXT), text=TEXT, heading_path=("Light",), vector_rank=1, text_rank=None,
    )  # fmt: skip
    return Answer(
        text="Over a cable. [1]", refused=False, citations=(Citation(1, 7, 8, "docs", "light.md", 0, len(TEXT)),),
        hits=(hit,), messages=[], usage=Usage(requests=1, input_tokens=5), retrieval_latency=0.5,
        generation_latency=1.0, snapshot=3, generation="g",
    )  # fmt: skip


def stored(database: Database) -> dict[str, Any]:
    with database.connect() as connection:
        cursor = connection.execute("SELECT * FROM interaction")
        row = cursor.fetchone()
        assert row is not None
        assert cursor.description is not None
        return dict(zip([column.name for column in cursor.description], row, strict=True))


def test_a_logged_answer_is_read_back(database: Database, answer: Answer, variant: Variant) -> None:
    identity = log_interaction(database, answer, variant, "How is the light charged?", "champion 12")
    with database.connect() as connection:
        (read,) = read_days(connection, TODAY, TODAY, ["main"])
    assert (read.interaction_id, read.question) == (str(identity), "How is the light charged?")
    assert (read.refused, read.score, read.variant) == (False, 0.25, variant.fingerprint)


def test_everything_a_lineage_question_needs_is_kept(database: Database, answer: Answer, variant: Variant) -> None:
    log_interaction(database, answer, variant, "How?", "baseline")
    row = stored(database)
    assert (row["snapshot"], row["variant_reason"], row["latency"]) == (3, "baseline", 1.5)
    assert row["citations"][0]["version_id"] == 8
    assert row["usage"]["input_tokens"] == 5
    assert {row["retrieved"][0][key] for key in ("document_id", "start")} == {7, 0}


def test_the_text_of_documents_is_not_copied_into_the_log(database: Database, answer: Answer, variant: Variant) -> None:
    log_interaction(database, answer, variant, "How?", "baseline")
    assert TEXT not in str(stored(database))


def test_a_question_with_nul_is_logged_without_it(database: Database, answer: Answer, variant: Variant) -> None:
    log_interaction(database, answer, variant, "How\0?", "baseline")
    assert stored(database)["question"] == "How?"


def test_the_same_variant_is_stored_once(database: Database, answer: Answer, variant: Variant) -> None:
    for _ in range(2):
        log_interaction(database, answer, variant, "How?", "baseline")
    with database.connect() as connection:
        assert connection.execute("SELECT count(*) FROM variant").fetchone() == (1,)


def test_days_are_utc_and_half_open(database: Database, answer: Answer, variant: Variant) -> None:
    log_interaction(database, answer, variant, "How?", "baseline")
    day = date(2026, 2, 20)
    with database.connect() as connection:
        for moment, expected in (("00:00:00", 1), ("23:59:59.999999", 1), ("24:00:00", 0)):
            connection.execute("UPDATE interaction SET asked_at = %s", (f"2026-02-20 {moment}+00",))
            assert len(read_days(connection, day, day, ["main"])) == expected
    assert [moment.isoformat() for moment in day_bounds(day)] == [
        "2026-02-20T00:00:00+00:00",
        "2026-02-21T00:00:00+00:00",
    ]


def test_interactions_of_other_indexes_are_left_out(database: Database, answer: Answer, variant: Variant) -> None:
    log_interaction(database, answer, variant, "How?", "baseline")
    with database.connect() as connection:
        assert read_days(connection, TODAY, TODAY, ["other"]) == ()


def test_old_interactions_are_purged_and_young_ones_stay(database: Database, answer: Answer, variant: Variant) -> None:
    for _ in range(2):
        log_interaction(database, answer, variant, "How?", "baseline")
    with database.connect() as connection:
        connection.execute(
            """UPDATE interaction SET asked_at = now() - interval '366 days'
               WHERE interaction_id = (SELECT min(interaction_id::text)::uuid FROM interaction)"""
        )
    assert purge(database, 365) == 1
    with database.connect() as connection:
        assert len(read_days(connection, TODAY, TODAY, ["main"])) == 1
