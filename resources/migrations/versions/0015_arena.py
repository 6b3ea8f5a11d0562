"""Live traffic answered a second time: what it was asked with, and what came out."""

from alembic import op

revision = "0015"
down_revision = "0014"

SCHEMA = """
ALTER TABLE interaction
    ADD filters jsonb;                          -- what the caller could see and asked for; NULL: not written down then
CREATE TABLE shadow_result (                    -- champion and candidate on live questions: numbers, and no id of any
    result_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    experiment   text NOT NULL,
    champion     text NOT NULL,                 -- fingerprints of the variants
    challenger   text NOT NULL,
    interactions integer NOT NULL,              -- questions that both answered
    report       jsonb NOT NULL,                -- means, differences, tests; see comparing.py
    run_id       text NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX shadow_result_experiment ON shadow_result (experiment, result_id);
CREATE INDEX trial_shadow ON trial (question_id) WHERE starts_with(dataset, 'interactions:');
"""


def upgrade() -> None:
    """Add it."""
    op.execute(SCHEMA)
