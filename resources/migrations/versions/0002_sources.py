"""What sources need beside a listing: what was read last, and under which identity."""

from alembic import op

revision = "0002"
down_revision = "0001"

SCHEMA = """
"""


def upgrade() -> None:
    """Add it."""
    if SCHEMA.strip():
        op.execute(SCHEMA)
