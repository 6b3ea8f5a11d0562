"""Enrichment steps, each cached on its own."""

from alembic import op

revision = "0005"
down_revision = "0004"

SCHEMA = """
CREATE TABLE enrichment_step (
    step_id      integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    fingerprint  text NOT NULL UNIQUE,          -- of all that decides a value: kind, parameters, model, code
    config       jsonb NOT NULL
);
CREATE TABLE enrichment_part (                  -- which steps an enrichment has
    enrichment_id  integer NOT NULL REFERENCES enrichment ON DELETE CASCADE,
    step_id        integer NOT NULL REFERENCES enrichment_step ON DELETE CASCADE,
    PRIMARY KEY (enrichment_id, step_id)
);
CREATE TABLE enrichment_value (                 -- content-addressed: a step is done once per distinct chunk
    step_id       integer NOT NULL REFERENCES enrichment_step ON DELETE CASCADE,
    chunk_hash    bytea NOT NULL,
    context_hash  bytea NOT NULL,               -- heading_context(heading_path) where the step sees headings, else empty
    value         jsonb,                        -- NULL: given up after bounded tries
    failure       text,                         -- why, without a word of the document or of the answer
    usage         jsonb,                        -- of the model calls, failed ones included; NULL: none were made
    run_id        text NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (step_id, chunk_hash, context_hash)
);
CREATE INDEX enrichment_value_chunk ON enrichment_value (chunk_hash);
CREATE INDEX enrichment_value_failed ON enrichment_value (step_id, chunk_hash) WHERE value IS NULL;
CREATE FUNCTION heading_context(heading_path text[]) RETURNS bytea LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN substr(sha256(convert_to(array_to_string(heading_path, E'\\x1f'), 'UTF8')), 1, 16);
ALTER TABLE chunk_input ADD search_text text;   -- what full-text search sees; NULL: headings as configured, and the chunk
"""


def upgrade() -> None:
    """Add it."""
    if SCHEMA.strip():
        op.execute(SCHEMA)
