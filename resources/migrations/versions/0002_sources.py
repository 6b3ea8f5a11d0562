"""What sources need beside a listing: what was read last, and under which identity."""

from alembic import op

revision = "0002"
down_revision = "0001"

SCHEMA = """
CREATE TABLE source_entry (                     -- what was read last at a path whose source vouches for equal content
    source          text NOT NULL,
    path            text NOT NULL,
    identity        text NOT NULL,              -- a git blob, an ETag, the hash of a row: the source's own word
    content_hash    bytea,                      -- SHA-256 of what was read; NULL: the source refused to hand it out
    bytes           bigint NOT NULL,
    refusal_code    text,                       -- with refusal_reason, when content_hash is NULL
    refusal_reason  text,
    PRIMARY KEY (source, path),
    CHECK ((content_hash IS NULL) = (refusal_code IS NOT NULL AND refusal_reason IS NOT NULL))
);
CREATE INDEX source_entry_content ON source_entry (content_hash);
CREATE TABLE source_state (                     -- the listing a source's newest revision was made from, e.g. a commit
    source  text PRIMARY KEY,
    state   text NOT NULL
);
"""


def upgrade() -> None:
    """Add it."""
    if SCHEMA.strip():
        op.execute(SCHEMA)
