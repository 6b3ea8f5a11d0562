"""Labels and reasons of prompt versions; what of the passages an answer was shown, and the steps of a chain."""

from alembic import op

revision = "0011"
down_revision = "0010"

SCHEMA = """
ALTER TABLE prompt_version ADD rationale text, ADD author text;
CREATE TABLE prompt_label (                     -- append-only: the moves of the labels of prompts
    move_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name       text NOT NULL,
    label      text NOT NULL,
    version    integer NOT NULL,
    kind       text NOT NULL CHECK (kind IN ('set', 'rollback')),  -- a rollback takes back the newest set that stands
    set_by     text NOT NULL,
    reason     text NOT NULL,
    set_at     timestamptz NOT NULL DEFAULT now(),
    FOREIGN KEY (name, version) REFERENCES prompt_version
);
CREATE INDEX prompt_label_name ON prompt_label (name, label, move_id);
ALTER TABLE trial ADD supplied jsonb, ADD steps jsonb;
ALTER TABLE interaction ADD supplied jsonb, ADD steps jsonb;
CREATE INDEX trial_steps ON trial USING gin (steps) WHERE steps IS NOT NULL;
CREATE INDEX interaction_steps ON interaction USING gin (steps) WHERE steps IS NOT NULL;
"""


def upgrade() -> None:
    """Add it."""
    op.execute(SCHEMA)
