"""Everything of the first release: corpus, chunks, indexes, evaluation, experiments, monitoring, operations."""

from alembic import op

revision = "0001"
down_revision = None

# Content addresses are 16-byte BLAKE2b (bytea); the hash of raw file bytes is SHA-256, as auditors compute it.
# Half-open ranges [rev_from, rev_to) and [valid_from, valid_to): 2147483647 means "still".
SCHEMA = """
CREATE TABLE lease (
    resource     text PRIMARY KEY,              -- 'source:NAME' or 'index:NAME'
    token        bigint NOT NULL,               -- grows with every acquisition; a write with an older one is refused
    holder       text NOT NULL,                 -- Dagster run id, or 'cli:PID'
    session      integer NOT NULL,              -- server process of the holder's session, which a takeover ends
    acquired_at  timestamptz NOT NULL DEFAULT now()
);

-- corpus ------------------------------------------------------------------------------------------------
CREATE TABLE document_text (                    -- content-addressed: one row per distinct normalised text
    text_hash    bytea PRIMARY KEY,
    text         text NOT NULL,
    characters   integer NOT NULL
);
CREATE TABLE parse_result (                     -- cache of parsing: raw bytes x parser fingerprint
    content_hash        bytea NOT NULL,
    parser_fingerprint  text NOT NULL,
    text_hash           bytea REFERENCES document_text,   -- NULL when parsing failed
    title               text,
    headings            jsonb NOT NULL DEFAULT '[]',      -- [{level, text, start}]
    language            text,
    licence             text,
    origin_time         timestamptz,
    metadata            jsonb NOT NULL DEFAULT '{}',
    failure_code        text,
    failure_reason      text,
    seconds             double precision NOT NULL,
    PRIMARY KEY (content_hash, parser_fingerprint)
);
CREATE TABLE document (                         -- identity; survives edits and renames
    document_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source       text NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE source_revision (                  -- committed states of a source
    source        text NOT NULL,
    revision      integer NOT NULL,
    run_id        text NOT NULL,
    committed_at  timestamptz NOT NULL DEFAULT now(),
    counts        jsonb NOT NULL,               -- {listed, added, changed, renamed, deleted, unchanged, quarantined}
    data_version  text NOT NULL,                -- hash of the live (path, content, text) set
    PRIMARY KEY (source, revision)
);
CREATE TABLE document_version (
    version_id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    document_id         bigint NOT NULL REFERENCES document,
    source              text NOT NULL,
    path                text NOT NULL,          -- POSIX path inside the source
    content_hash        bytea NOT NULL,
    text_hash           bytea NOT NULL REFERENCES document_text,
    parser_fingerprint  text NOT NULL,
    title               text NOT NULL,
    headings            jsonb NOT NULL,
    language            text,
    licence             text,
    origin_time         timestamptz,
    bytes               bigint NOT NULL,
    media_type          text NOT NULL,
    metadata            jsonb NOT NULL,
    run_id              text NOT NULL,
    created_at          timestamptz NOT NULL DEFAULT now(),
    rev_from            integer NOT NULL,
    rev_to              integer NOT NULL DEFAULT 2147483647
);
CREATE UNIQUE INDEX document_version_live_path ON document_version (source, path) WHERE rev_to = 2147483647;
CREATE UNIQUE INDEX document_version_live_document ON document_version (document_id) WHERE rev_to = 2147483647;
CREATE INDEX document_version_document ON document_version (document_id);
CREATE INDEX document_version_revision ON document_version (source, rev_to, rev_from);
CREATE INDEX document_version_text ON document_version (text_hash);
CREATE TABLE quarantine (                       -- what was listed but may not enter, with the reason and a way back
    source        text NOT NULL,
    path          text NOT NULL,
    content_hash  bytea,
    code          text NOT NULL,                -- 'parse_failed', 'empty', 'too_large', 'licence', 'forgotten', ...
    reason        text NOT NULL,
    bytes         bigint,
    run_id        text NOT NULL,
    first_seen    timestamptz NOT NULL DEFAULT now(),
    last_seen     timestamptz NOT NULL DEFAULT now(),
    released_by   text,                         -- set by `genaiops quarantine release`: this content may enter
    PRIMARY KEY (source, path)
);
CREATE TABLE forgotten (                        -- erased on request; refused when seen again
    source        text NOT NULL,
    path          text NOT NULL,
    content_hash  bytea,                        -- one row per content it had; NULL: another document has the same bytes
    erasure_id    bigint NOT NULL,
    UNIQUE NULLS NOT DISTINCT (source, path, content_hash)
);
CREATE INDEX forgotten_content ON forgotten (content_hash);

-- chunks ------------------------------------------------------------------------------------------------
CREATE TABLE chunker (
    chunker_id   integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    fingerprint  text NOT NULL UNIQUE,
    config       jsonb NOT NULL
);
CREATE TABLE chunk_set (                        -- a text is chunked once per chunker
    chunker_id  integer NOT NULL REFERENCES chunker,
    text_hash   bytea NOT NULL REFERENCES document_text ON DELETE CASCADE,
    chunks      integer NOT NULL,
    PRIMARY KEY (chunker_id, text_hash)
);
CREATE TABLE chunk (
    chunker_id    integer NOT NULL,
    text_hash     bytea NOT NULL,
    ordinal       integer NOT NULL,
    start_char    integer NOT NULL,
    end_char      integer NOT NULL,
    chunk_hash    bytea NOT NULL,               -- of text[start_char:end_char]
    heading_path  text[] NOT NULL,
    tokens        integer NOT NULL,
    PRIMARY KEY (chunker_id, text_hash, ordinal),
    FOREIGN KEY (chunker_id, text_hash) REFERENCES chunk_set ON DELETE CASCADE
);
CREATE TABLE enrichment (
    enrichment_id  integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    fingerprint    text NOT NULL UNIQUE,
    config         jsonb NOT NULL
);
CREATE TABLE chunk_input (                      -- what is embedded for a chunk under an enrichment
    enrichment_id  integer NOT NULL REFERENCES enrichment,
    chunker_id     integer NOT NULL,
    text_hash      bytea NOT NULL,
    ordinal        integer NOT NULL,
    input_hash     bytea NOT NULL,
    PRIMARY KEY (enrichment_id, chunker_id, text_hash, ordinal),
    FOREIGN KEY (chunker_id, text_hash) REFERENCES chunk_set ON DELETE CASCADE
);

-- embeddings and indexes ----------------------------------------------------------------------------------
CREATE TABLE embedder (
    embedder_id  integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    fingerprint  text NOT NULL UNIQUE,
    config       jsonb NOT NULL,
    dimensions   integer NOT NULL
);
CREATE TABLE embedding (                        -- content-addressed: a text is embedded once per embedder
    embedder_id  integer NOT NULL REFERENCES embedder,
    input_hash   bytea NOT NULL,
    embedding    vector NOT NULL,
    run_id       text NOT NULL,
    PRIMARY KEY (embedder_id, input_hash)
);
ALTER TABLE embedding ALTER embedding SET STATISTICS 0;   -- large, and of no use to the planner
CREATE TABLE index_build (                      -- one physical table per build, 'chunks_<build_id>'
    build_id     integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    index_name   text NOT NULL,
    fingerprint  text NOT NULL,                 -- of the index configuration, embedder included
    config       jsonb NOT NULL,
    table_name   text NOT NULL,
    run_id       text NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    state        text NOT NULL CHECK (state IN ('loading', 'ready', 'dropped')),
    dead_rows    integer NOT NULL DEFAULT 0,    -- retired rows still in the table, as of the newest snapshot
    damaged_at   timestamptz                    -- set by the audit; the next refresh loads a new build
);
CREATE TABLE index_document (                   -- which document version an index shows, by snapshot
    build_id     integer NOT NULL REFERENCES index_build ON DELETE CASCADE,
    document_id  bigint NOT NULL,
    version_id   bigint NOT NULL,
    source       text NOT NULL,
    valid_from   integer NOT NULL,
    valid_to     integer NOT NULL DEFAULT 2147483647,
    chunks       integer NOT NULL,
    lexemes      integer NOT NULL,              -- distinct words of its chunks, for the average length BM25 needs
    digest       numeric NOT NULL,              -- sum of row digests, for the audit
    damaged_at   timestamptz,                   -- set by the audit; the next refresh writes the document anew
    PRIMARY KEY (build_id, document_id, valid_from)
);
CREATE INDEX index_document_version ON index_document (version_id);
CREATE INDEX index_document_from ON index_document (build_id, valid_from);
CREATE INDEX index_document_to ON index_document (build_id, valid_to);
CREATE INDEX index_document_damaged ON index_document (build_id) WHERE damaged_at IS NOT NULL;
CREATE TABLE index_snapshot (
    index_name    text NOT NULL,
    snapshot      integer NOT NULL,
    build_id      integer NOT NULL REFERENCES index_build,
    run_id        text NOT NULL,
    published_at  timestamptz NOT NULL DEFAULT now(),
    counts        jsonb NOT NULL,               -- {documents, chunks, rows_added, rows_retired, ...}
    sources       jsonb NOT NULL,               -- {source: revision}
    evidence      jsonb NOT NULL,               -- check results it was published on
    PRIMARY KEY (index_name, snapshot)
);
CREATE TABLE index_state (
    index_name   text PRIMARY KEY,
    head         integer NOT NULL DEFAULT 0,    -- newest published snapshot; 0: none yet
    serving      integer NOT NULL DEFAULT 0,    -- what readers get by default
    held_by      text,                          -- set by rollback: publishing goes on, serving stays
    held_reason  text,
    updated_at   timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE serving_move (                     -- every change of what readers get: published, rolled back, released
    move_id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    index_name     text NOT NULL,
    from_snapshot  integer NOT NULL,            -- 0: nothing was served before
    to_snapshot    integer NOT NULL,
    moved_by       text NOT NULL,
    reason         text NOT NULL,
    moved_at       timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE snapshot_pin (                     -- what a release or a report pins is never vacuumed
    index_name  text NOT NULL,
    snapshot    integer NOT NULL,
    pinned_by   text NOT NULL,
    PRIMARY KEY (index_name, snapshot, pinned_by)
);

-- evaluation ----------------------------------------------------------------------------------------------
CREATE TABLE evaluation_dataset (
    dataset       text NOT NULL,
    version       integer NOT NULL,
    content_hash  text NOT NULL,                -- equal to the newest version's: no new version
    corpus        jsonb NOT NULL,               -- {source: revision} the evidence was resolved against
    counts        jsonb NOT NULL,
    file          text NOT NULL,                -- Parquet
    run_id        text NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (dataset, version)
);
CREATE TABLE evaluation_question (
    dataset      text NOT NULL,
    version      integer NOT NULL,
    question_id  text NOT NULL,
    question     text NOT NULL,
    answer       text,                          -- NULL: unanswerable
    split        text NOT NULL,
    tags         jsonb NOT NULL,
    status       text NOT NULL CHECK (status IN ('active', 'stale')),
    reason       text,
    fingerprint  text NOT NULL,                 -- of question, answer and evidence texts
    PRIMARY KEY (dataset, version, question_id),
    FOREIGN KEY (dataset, version) REFERENCES evaluation_dataset ON DELETE CASCADE
);
CREATE TABLE evaluation_evidence (
    dataset      text NOT NULL,
    version      integer NOT NULL,
    question_id  text NOT NULL,
    ordinal      integer NOT NULL,
    declared     text NOT NULL,                 -- fingerprint of the evidence as the question file has it
    document_id  bigint NOT NULL,
    text_hash    bytea NOT NULL,
    start_char   integer NOT NULL,
    end_char     integer NOT NULL,
    quote        text NOT NULL,
    PRIMARY KEY (dataset, version, question_id, ordinal),
    FOREIGN KEY (dataset, version, question_id) REFERENCES evaluation_question ON DELETE CASCADE
);

-- prompts, variants, trials ---------------------------------------------------------------------------------
CREATE TABLE prompt_version (
    name         text NOT NULL,
    version      integer NOT NULL,
    fingerprint  text NOT NULL,
    config       jsonb NOT NULL,
    run_id       text NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (name, version),
    UNIQUE (name, fingerprint)
);
CREATE TABLE variant (
    fingerprint  text PRIMARY KEY,
    name         text NOT NULL,
    config       jsonb NOT NULL                 -- the complete answerer configuration
);
CREATE TABLE generation (                       -- memo of model calls: rendered messages x model x parameters
    fingerprint  text PRIMARY KEY,
    model        jsonb NOT NULL,
    messages     jsonb NOT NULL,
    text         text NOT NULL,
    usage        jsonb NOT NULL,                -- {input_tokens, output_tokens, cost, currency}
    latency      double precision NOT NULL,     -- seconds, of the call that was really made
    run_id       text NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE trial (
    fingerprint          text PRIMARY KEY,      -- variant x snapshot x question (gold included) x code
    experiment           text NOT NULL,
    variant              text NOT NULL REFERENCES variant,
    index_name           text NOT NULL,
    snapshot             integer NOT NULL,
    dataset              text NOT NULL,
    dataset_version      integer NOT NULL,
    question_id          text NOT NULL,
    status               text NOT NULL CHECK (status IN ('ok', 'failed')),
    error                text,
    tries                integer NOT NULL DEFAULT 1,
    retrieved            jsonb NOT NULL,        -- [{rank, score, document_id, version_id, source, path, ordinal, start, end, text, ...}]
    generation           text,                  -- fingerprint in generation; its messages are what was rendered
    answer               text,
    refused              boolean,
    citations            jsonb NOT NULL DEFAULT '[]',
    usage                jsonb NOT NULL DEFAULT '{}',
    retrieval_latency    double precision,      -- seconds
    generation_latency   double precision,      -- seconds
    run_id               text NOT NULL,
    created_at           timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX trial_variant ON trial (experiment, variant);
CREATE TABLE trial_score (
    trial      text NOT NULL REFERENCES trial ON DELETE CASCADE,
    metric     text NOT NULL,                   -- namespaced, versioned id
    value      double precision,                -- NULL: undefined for this trial; never NaN
    PRIMARY KEY (trial, metric),
    CHECK (value = value AND value <> 'NaN')
);
CREATE TABLE experiment_result (
    result_id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    experiment       text NOT NULL,
    fingerprint      text NOT NULL,             -- of everything compared
    dataset_version  integer NOT NULL,
    snapshots        jsonb NOT NULL,            -- {index: snapshot}
    leaderboard      jsonb NOT NULL,
    recommendation   jsonb NOT NULL,
    run_id           text NOT NULL,
    created_at       timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE champion (                         -- the variant that answers; every change is kept
    champion_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    experiment   text NOT NULL,
    variant      text NOT NULL REFERENCES variant,
    result_id    bigint REFERENCES experiment_result,
    reason       text NOT NULL,
    set_by       text NOT NULL,
    set_at       timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE evidence (                         -- persisted check results, re-read by whatever publishes or promotes
    evidence_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind         text NOT NULL,                 -- 'index_stage', 'evaluation_dataset', 'experiment', ...
    subject      text NOT NULL,                 -- e.g. 'handbook' or 'handbook@12'
    fingerprint  text NOT NULL,                 -- exactly what was checked
    check_name   text NOT NULL,
    passed       boolean NOT NULL,
    blocking     boolean NOT NULL,
    details      jsonb NOT NULL,
    run_id       text NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX evidence_subject ON evidence (kind, subject, fingerprint);

-- monitoring and operations ---------------------------------------------------------------------------------
CREATE TABLE interaction (
    interaction_id  uuid PRIMARY KEY,
    asked_at        timestamptz NOT NULL DEFAULT now(),
    question        text NOT NULL,
    answer          text NOT NULL,
    refused         boolean NOT NULL,
    citations       jsonb NOT NULL,
    retrieved       jsonb NOT NULL,
    index_name      text NOT NULL,
    snapshot        integer NOT NULL,
    variant         text NOT NULL REFERENCES variant,
    variant_reason  text NOT NULL,              -- why this variant: champion 12, baseline, or asked for
    generation      text NOT NULL,              -- fingerprint in generation: the rendered prompt and the model's words
    usage           jsonb NOT NULL,
    latency         double precision NOT NULL   -- seconds
);
CREATE INDEX interaction_asked_at ON interaction (asked_at);
CREATE TABLE drift_result (
    day         date NOT NULL,
    subject     text NOT NULL,                  -- 'documents:INDEX' or 'questions:DATASET'
    verdict     text NOT NULL CHECK (verdict IN ('none', 'warn', 'alert', 'not enough data')),
    details     jsonb NOT NULL,
    file        text,
    run_id      text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (day, subject)
);
CREATE TABLE alert (
    alert_key     text PRIMARY KEY,             -- what is failing, e.g. 'check:raw_documents/volume_drop:handbook'
    state         text NOT NULL CHECK (state IN ('failing', 'recovered')),
    title         text NOT NULL,
    body          text NOT NULL,
    since         timestamptz NOT NULL DEFAULT now(),
    told_failing  boolean NOT NULL DEFAULT false,
    told_recovered boolean NOT NULL DEFAULT false,
    tries         integer NOT NULL DEFAULT 0,
    delivered     jsonb NOT NULL DEFAULT '{}',  -- {target: 'failing' | 'recovered'}: what each target accepted last
    updated_at    timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE erasure (
    erasure_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    requested_by  text NOT NULL,
    selector      text NOT NULL,
    requested_at  timestamptz NOT NULL DEFAULT now(),
    proof         jsonb NOT NULL                -- {table or file: rows removed}
);
"""


def upgrade() -> None:
    """Create the schema."""
    op.execute(SCHEMA)
