"""Chunks that are read in a larger parent."""

from alembic import op

revision = "0004"
down_revision = "0003"

# Both NULL: the chunk has no parent. The parent is characters [parent_start, parent_end) of the same text.
SCHEMA = """
ALTER TABLE chunk
    ADD parent_start integer,
    ADD parent_end   integer,
    ADD CONSTRAINT chunk_parent CHECK (
        num_nulls(parent_start, parent_end) = 2
        OR (num_nulls(parent_start, parent_end) = 0 AND parent_start <= start_char AND end_char <= parent_end)
    );
"""


def upgrade() -> None:
    """Add it."""
    if SCHEMA.strip():
        op.execute(SCHEMA)
