"""Enrichment steps, each cached on its own."""

from alembic import op

revision = "0005"
down_revision = "0004"

SCHEMA = """
"""


def upgrade() -> None:
    """Add it."""
    if SCHEMA.strip():
        op.execute(SCHEMA)
