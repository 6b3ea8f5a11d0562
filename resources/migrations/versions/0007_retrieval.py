"""What retrieval did for a trial and for a live answer."""

from alembic import op

revision = "0007"
down_revision = "0006"

# Queries, lists with scores, steps, usage; see resources/retrieval.py. NULL in rows of earlier versions.
SCHEMA = """
ALTER TABLE trial ADD retrieval jsonb;
ALTER TABLE interaction ADD retrieval jsonb;
"""


def upgrade() -> None:
    """Add it."""
    if SCHEMA.strip():
        op.execute(SCHEMA)
