"""Screening: findings per parsed content, verdicts per policy, sketches for near duplicates."""

from alembic import op

revision = "0003"
down_revision = "0002"

# None of these tables holds a character of a document: kinds, positions, hashes and sketches only.
SCHEMA = """
CREATE TABLE screening_result (                 -- what the detectors found in a parsed content; knows no policy
    content_hash        bytea NOT NULL,
    parser_fingerprint  text NOT NULL,          -- of the text that was looked at, before any masking
    text_hash           bytea NOT NULL,         -- of that text; no reference: a masked or refused text is not kept
    detectors           jsonb NOT NULL,         -- {detector: fingerprint} of those that looked
    counts              jsonb NOT NULL,         -- {detector: {entity: findings}}, of all findings
    findings            jsonb NOT NULL,         -- [[detector, entity, start, end, score]]; start -1: in the markup
    complete            boolean NOT NULL,       -- false: of some entity only the first findings are listed
    seconds             double precision NOT NULL,
    run_id              text NOT NULL,
    screened_at         timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (content_hash, parser_fingerprint)
);
CREATE TABLE screening_verdict (                -- what a policy makes of it
    content_hash           bytea NOT NULL,
    parser_fingerprint     text NOT NULL,
    screening_fingerprint  text NOT NULL,       -- of the policy and of all detectors
    action                 text NOT NULL CHECK (action IN ('allow', 'mask', 'quarantine')),
    code                   text,                -- of the quarantine, e.g. 'screening:pii'
    reason                 text,
    result_fingerprint     text,                -- of the parse result that may enter; NULL: none
    summary                jsonb NOT NULL,      -- {detector: {entity: [findings at or above the threshold, action]}}
    run_id                 text NOT NULL,
    judged_at              timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (content_hash, parser_fingerprint, screening_fingerprint)
);
CREATE TABLE near_duplicate_sketch (            -- MinHash of a text that entered
    text_hash  bytea NOT NULL,
    sketch     bytea NOT NULL,                  -- little-endian uint32 values
    shingles   integer NOT NULL,                -- distinct runs of words
    version    text NOT NULL,                   -- of the method
    PRIMARY KEY (text_hash)
);
CREATE TABLE near_duplicate_band (              -- equal bands: two texts worth comparing
    band       bigint NOT NULL,
    text_hash  bytea NOT NULL REFERENCES near_duplicate_sketch ON DELETE CASCADE,
    PRIMARY KEY (band, text_hash)
);
CREATE INDEX near_duplicate_band_text ON near_duplicate_band (text_hash);
CREATE TABLE near_duplicate (                   -- verified pairs of texts, in order of their hashes
    first       bytea NOT NULL REFERENCES near_duplicate_sketch (text_hash) ON DELETE CASCADE,
    second      bytea NOT NULL REFERENCES near_duplicate_sketch (text_hash) ON DELETE CASCADE,
    similarity  real NOT NULL,                  -- Jaccard, of the runs of words themselves
    PRIMARY KEY (first, second)
);
CREATE INDEX near_duplicate_second ON near_duplicate (second);
ALTER TABLE quarantine ADD COLUMN released_reason text;   -- why a person let it in
"""


def upgrade() -> None:
    """Add it."""
    if SCHEMA.strip():
        op.execute(SCHEMA)
