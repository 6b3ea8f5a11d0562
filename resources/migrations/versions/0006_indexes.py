"""What richer search needs."""

from alembic import op

revision = "0006"
down_revision = "0005"

SCHEMA = """
"""


def upgrade() -> None:
    """Add it."""
    if SCHEMA.strip():
        op.execute(SCHEMA)
