"""Chunks that are read in a larger parent."""

from alembic import op

revision = "0004"
down_revision = "0003"

SCHEMA = """
"""


def upgrade() -> None:
    """Add it."""
    if SCHEMA.strip():
        op.execute(SCHEMA)
