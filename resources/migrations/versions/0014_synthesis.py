"""Drafts of evaluation questions and their review."""

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Nothing yet."""
