"""The shape of ``policies/*.yaml``: what may enter, what blocks, what is kept, what counts as drift.

Belongs here: one model per file. Does not belong here: the judgements made by them (each stage's checks.py).
"""

from typing import Literal

from pydantic import Field

from resources.config_base import Strict


class CorpusPolicy(Strict):
    """``policies/corpus.yaml``: what may enter, and what blocks a refresh."""

    maximum_bytes: int = Field(default=50_000_000, ge=1)
    minimum_characters: int = Field(default=1, ge=0)
    allowed_licences: list[str] | Literal["any"] = "any"
    maximum_document_drop: float = Field(default=0.3, ge=0, le=1, description="Larger drop blocks the refresh.")
    maximum_quarantine_share: float = Field(default=0.2, ge=0, le=1)


class IndexPolicy(Strict):
    """``policies/index.yaml``: the gates before a snapshot and how long snapshots live."""

    minimum_recall_at_10: float = Field(default=0.95, ge=0, le=1)
    minimum_self_retrieval: float = Field(default=0.95, ge=0, le=1)
    sample_size: int = Field(default=100, ge=1)
    keep_snapshots: int = Field(default=10, ge=1)
    keep_days: int = Field(default=30, ge=0)
    rebuild_share: float = Field(default=0.3, ge=0, le=1, description="A larger delta is loaded as a new build.")
    compact_dead_share: float = Field(default=0.5, ge=0, le=1)
    freshness_hours: int = Field(default=36, ge=1)


class DriftPolicy(Strict):
    """``policies/drift.yaml``: reference, tests and verdict."""

    reference_days: int = Field(default=7, ge=1, description="Compare with the newest snapshot at least this old.")
    psi_warn: float = Field(default=0.1, gt=0)
    psi_alert: float = Field(default=0.25, gt=0)
    alpha: float = Field(default=0.05, gt=0, lt=1)
    permutations: int = Field(default=500, ge=99)
    sample_size: int = Field(default=1000, ge=20)
    minimum_questions: int = Field(default=30, ge=2)


class RetentionPolicy(Strict):
    """``policies/retention.yaml``: how long operational records live."""

    interaction_days: int = Field(default=365, ge=1)
    run_days: int = Field(default=90, ge=1, description="Dagster runs and their events.")


class Policies(Strict):
    """All files under ``policies/``; a missing file means the defaults."""

    corpus: CorpusPolicy = CorpusPolicy()
    index: IndexPolicy = IndexPolicy()
    drift: DriftPolicy = DriftPolicy()
    retention: RetentionPolicy = RetentionPolicy()
