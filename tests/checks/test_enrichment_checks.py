"""Every check of enrichment fails on bad facts."""

import dataclasses

from assets.chunks.chunking import ChunkWork
from assets.chunks.enriching import StepWork
from assets.chunks.enrichment_cache import StepCoverage
from assets.chunks.enrichment_checks import (
    CHECKS,
    NOT_BLOCKING,
    enrichment_complete,
    enrichment_values,
    given_up,
    given_up_share,
    outcomes,
)
from resources.index_config import EnrichmentStep

ASKED = EnrichmentStep(kind="summary", method="model", model="writer")


def work(coverage: StepCoverage, **facts: object) -> ChunkWork:
    step = StepWork(ASKED, ["main"], [1], coverage=coverage)
    base = ChunkWork("docs", 1, "", texts=1, chunkers=["a"], steps=[step], maximum_given_up_share=0.05)
    return dataclasses.replace(base, **facts)  # type: ignore[arg-type]


def test_all_declared_checks_are_reported_in_order() -> None:
    found = outcomes(ChunkWork("docs", 1, ""))
    assert [outcome.name for outcome in found] == list(CHECKS)
    assert all(outcome.passed for outcome in found)
    assert [outcome.name for outcome in found if not outcome.blocking] == list(NOT_BLOCKING)


def test_enrichment_complete() -> None:
    assert enrichment_complete(work(StepCoverage(100))).passed
    assert not enrichment_complete(work(StepCoverage(100, missing=1))).passed
    assert not enrichment_complete(work(StepCoverage(100), inputs_missing=1)).passed
    assert enrichment_complete(work(StepCoverage(100, missing=100), refused=True)).passed


def test_enrichment_values() -> None:
    bad = work(StepCoverage(100))
    assert enrichment_values(bad).passed
    bad.steps[0].problems.append({"chunk": "00", "step": "summary", "problem": "500 characters, allowed are 400"})
    assert not enrichment_values(bad).passed


def test_given_up_warns_and_a_large_share_blocks() -> None:
    few, many = work(StepCoverage(100, given_up=5)), work(StepCoverage(100, given_up=6))
    assert given_up(work(StepCoverage(100))).passed
    assert not given_up(few).passed
    assert not given_up(few).blocking
    assert given_up_share(few).passed
    assert not given_up_share(many).passed
    assert given_up_share(many).blocking
