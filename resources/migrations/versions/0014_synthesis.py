"""Drafts of evaluation questions and their review."""

from alembic import op

revision = "0014"
down_revision = "0013"

SCHEMA = """
CREATE TABLE question_draft (
    draft_id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    dataset               text NOT NULL,
    question_id           text NOT NULL,           -- what the question is called once it is accepted
    question              jsonb NOT NULL,          -- the line of a question file
    type                  text NOT NULL,
    generator             text NOT NULL,
    generator_fingerprint text NOT NULL,           -- of the generator, the model it asks and the chunking, see synthesis/recipe
    chunker_fingerprint   text NOT NULL,
    document_ids          bigint[] NOT NULL,       -- documents its words are from
    text_hashes           bytea[] NOT NULL,        -- the texts these documents had, in the same order
    scores                jsonb NOT NULL DEFAULT '{}',  -- what the filters measured: numbers and names, no words
    state                 text NOT NULL DEFAULT 'generated'
                          CHECK (state IN ('generated', 'filtered', 'queued', 'accepted', 'edited', 'rejected')),
    reason                text,                    -- why it was rejected
    decided_by            text,                    -- a person, or `filter:NAME`
    decided_at            timestamptz,
    run_id                text NOT NULL,
    created_at            timestamptz NOT NULL DEFAULT now(),
    content_hash          bytea NOT NULL,          -- of what it was made from and by; the same is not made twice
    UNIQUE (dataset, content_hash)
);
CREATE INDEX question_draft_documents ON question_draft USING gin (document_ids);
"""


def upgrade() -> None:
    """Add it."""
    op.execute(SCHEMA)
