"""What experiments retrieved, remembered; which trials a result rests on."""

from alembic import op

revision = "0008"
down_revision = "0007"

SCHEMA = """
CREATE TABLE retrieval (                        -- memo of the searches of experiments
    key         text PRIMARY KEY,               -- of snapshot (with its content), question, settings and code
    index_name  text NOT NULL,
    snapshot    integer NOT NULL,
    hits        jsonb NOT NULL,                 -- as in trial.retrieved, without the text of the chunks
    trace       jsonb NOT NULL,
    latency     double precision NOT NULL,      -- seconds, of the search that was really made
    run_id      text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    FOREIGN KEY (index_name, snapshot) REFERENCES index_snapshot ON DELETE CASCADE
);
CREATE INDEX retrieval_snapshot ON retrieval (index_name, snapshot);
CREATE TABLE result_trial (                     -- what a result rests on, until retention lets the result go
    result_id  bigint NOT NULL REFERENCES experiment_result ON DELETE CASCADE,
    trial      text NOT NULL REFERENCES trial ON DELETE CASCADE,
    PRIMARY KEY (result_id, trial)
);
CREATE INDEX result_trial_trial ON result_trial (trial);
CREATE INDEX trial_generation ON trial (generation);
CREATE INDEX interaction_generation ON interaction (generation);
"""


def upgrade() -> None:
    """Add it."""
    op.execute(SCHEMA)
