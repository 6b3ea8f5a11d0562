"""Which definition a score was computed with."""

from alembic import op

revision = "0009"
down_revision = "0008"

SCHEMA = """
ALTER TABLE trial_score
    ADD fingerprint text NOT NULL DEFAULT '';   -- of the metric's definition and code; another one: computed again
"""


def upgrade() -> None:
    """Add it."""
    op.execute(SCHEMA)
