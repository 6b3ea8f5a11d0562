"""Verdicts of judges on trials, and how far each judge agrees with people."""

from alembic import op

revision = "0012"
down_revision = "0011"

SCHEMA = """
CREATE TABLE trial_verdict (
    trial       text NOT NULL REFERENCES trial ON DELETE CASCADE,
    metric      text NOT NULL,
    fingerprint text NOT NULL,                  -- of the metric, as in trial_score
    verdicts    jsonb NOT NULL DEFAULT '{}',    -- ranges of the answer, verdicts, numbers of passages, spread: no words
    generations jsonb NOT NULL DEFAULT '[]',    -- the remembered model calls it rests on
    error       text,                           -- class of the error when the judge gave no usable answer
    attempts    integer NOT NULL DEFAULT 1,     -- how often it was asked in vain
    run_id      text NOT NULL,
    PRIMARY KEY (trial, metric)
);
CREATE INDEX trial_verdict_generations ON trial_verdict USING gin (generations);
CREATE TABLE judge_calibration (
    judge       text NOT NULL,
    fingerprint text NOT NULL,                  -- of the judge: prompt, form, model, parameters, draws, order, code
    labels      text NOT NULL,                  -- hash of what people said of what, and of the code that compares
    items       integer NOT NULL,
    scores      jsonb NOT NULL,                 -- of the items in the order of the label file, null where there is none
    measures    jsonb NOT NULL,                 -- agreement, bias and consistency with intervals
    passed      boolean NOT NULL,
    run_id      text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (judge, fingerprint, labels)
);
"""


def upgrade() -> None:
    """Add it."""
    op.execute(SCHEMA)
