"""Screening: findings and verdicts per text."""

from alembic import op

revision = "0003"
down_revision = "0002"

SCHEMA = """
"""


def upgrade() -> None:
    """Add it."""
    if SCHEMA.strip():
        op.execute(SCHEMA)
