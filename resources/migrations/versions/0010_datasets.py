"""Evaluation datasets from other formats and from production."""

from alembic import op

revision = "0010"
down_revision = "0009"

SCHEMA = """
ALTER TABLE evaluation_question
    ADD answers    jsonb,                       -- every accepted answer; NULL: as `answer` says (older versions)
    ADD answerable boolean,                     -- NULL: whether there is an answer
    ADD group_name text,                        -- questions that are no independent observations
    ADD provenance jsonb NOT NULL DEFAULT '{}';
ALTER TABLE evaluation_evidence
    ADD kind   text NOT NULL DEFAULT 'span' CHECK (kind IN ('span', 'document')),
    ADD grade  integer NOT NULL DEFAULT 1,
    ADD stance text NOT NULL DEFAULT 'supports' CHECK (stance IN ('supports', 'conflicts'));
CREATE TABLE feedback (                         -- what people said of live answers; the newest of a person counts
    feedback_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    interaction_id uuid NOT NULL REFERENCES interaction ON DELETE CASCADE,
    rating         smallint NOT NULL CHECK (rating IN (-1, 0, 1)),
    comment        text,
    correction     text,                        -- what the answer should have been
    given_by       text NOT NULL,
    given_at       timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX feedback_interaction ON feedback (interaction_id);
CREATE TABLE question_promotion (               -- who made a live question a question of a dataset, and why
    dataset        text NOT NULL,
    question_id    text NOT NULL,
    interaction_id uuid NOT NULL,               -- no reference: the interaction may be gone by its retention
    promoted_by    text NOT NULL,
    reason         text NOT NULL,
    promoted_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (dataset, question_id)
);
CREATE TABLE holdout_use (                      -- which choices the held-back questions have judged
    use_id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    dataset        text NOT NULL,
    questions      text[] NOT NULL,             -- hashes of the questions as asked, without where their evidence stands
    questions_hash text NOT NULL,
    purpose        text NOT NULL CHECK (purpose IN ('confirmation', 'export')),
    experiment     text NOT NULL,
    champion       text NOT NULL,               -- fingerprints of the variants; empty for an export
    challenger     text NOT NULL,
    run_id         text NOT NULL,
    used_at        timestamptz NOT NULL DEFAULT now(),
    UNIQUE (dataset, questions_hash, purpose, champion, challenger)
);
"""


def upgrade() -> None:
    """Add it."""
    op.execute(SCHEMA)
