"""What a result was made of, and when a trial is given up."""

from alembic import op

revision = "0013"
down_revision = "0012"

SCHEMA = """
ALTER TABLE trial
    ADD attempts     integer NOT NULL DEFAULT 0,   -- tries over all runs since somebody last asked to retry it
    ADD given_up_at  timestamptz,                  -- failed too often: counted as failed, not tried again
    ADD versions     jsonb;                        -- of code, prompt, index and model, and the parameters that were sent
UPDATE trial SET attempts = tries WHERE status = 'failed';
CREATE INDEX trial_failed ON trial (experiment) WHERE status = 'failed';
ALTER TABLE experiment_result
    ADD inputs    text,                            -- hash of all it was computed from; the same again: nothing to do
    ADD outcomes  jsonb;                           -- its checks as they were reported, and how many trials it rests on
"""


def upgrade() -> None:
    """Add it."""
    op.execute(SCHEMA)
