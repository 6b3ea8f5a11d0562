"""Holdings: which columns of which tables may hold words of documents or of people, and what an erasure does there.

Belongs here: the register. A test fails when a table or column that can hold text is not in it, so that a new table
cannot be forgotten. Does not belong here: the erasure itself (erasure.py) and the search (matching.py).
"""

import re
from dataclasses import dataclass
from typing import Literal

#: What happens to a row whose words match a pattern: ``document``: its document is erased, and the row with it;
#: ``row``: it is deleted; ``scrub``: it stays, the matching words are replaced.
Action = Literal["document", "row", "scrub"]


@dataclass(frozen=True)
class Holding:
    """The text columns of a table.

    Attributes:
        words: columns that may hold words, searched for patterns: text, text arrays and JSON (every string and key).
        plain: columns that hold none: configured names, fingerprints, hashes of what is erased with the row, states,
            users that acted, counts.
        key: columns that identify a row.
    """

    words: tuple[str, ...] = ()
    plain: tuple[str, ...] = ()
    key: tuple[str, ...] = ()
    action: Action = "row"


HOLDINGS: dict[str, Holding] = {
    "lease": Holding(plain=("resource", "holder")),
    "schema_version": Holding(plain=("version_num",)),
    # corpus
    "document_text": Holding(("text",), ("text_hash",), ("text_hash",), "document"),
    "parse_result": Holding(
        ("title", "headings", "licence", "metadata", "failure_reason"),
        ("content_hash", "parser_fingerprint", "text_hash", "language", "failure_code"),
        ("content_hash", "parser_fingerprint"),
        "document",
    ),
    "document": Holding(plain=("source",)),
    "source_revision": Holding(plain=("source", "run_id", "counts", "data_version")),
    "document_version": Holding(
        ("path", "title", "headings", "licence", "metadata"),
        ("source", "content_hash", "text_hash", "parser_fingerprint", "language", "media_type", "run_id"),
        ("document_id",),
        "document",
    ),
    "quarantine": Holding(
        ("path", "reason", "released_reason"),
        ("source", "content_hash", "code", "run_id", "released_by"),
        ("source", "path"),
        "document",
    ),
    "forgotten": Holding(plain=("source", "path", "content_hash")),  # what keeps it from coming back
    "source_entry": Holding(
        ("path", "identity", "refusal_reason"), ("source", "content_hash", "refusal_code"), ("source", "path"), "document"
    ),
    "source_state": Holding(plain=("source", "state")),
    # screening: kinds and positions, no words
    "screening_result": Holding(
        plain=("content_hash", "parser_fingerprint", "text_hash", "detectors", "counts", "findings", "run_id")
    ),
    "screening_verdict": Holding(
        plain=(
            "content_hash", "parser_fingerprint", "screening_fingerprint", "action", "code", "reason",
            "result_fingerprint", "summary", "run_id",
        )
    ),
    "near_duplicate_sketch": Holding(plain=("text_hash", "sketch", "version")),
    "near_duplicate_band": Holding(plain=("text_hash",)),
    "near_duplicate": Holding(plain=("first", "second")),
    # chunks
    "chunker": Holding(plain=("fingerprint", "config")),
    "chunk_set": Holding(plain=("text_hash",)),
    "chunk": Holding(("heading_path",), ("text_hash", "chunk_hash"), ("text_hash",), "document"),
    "enrichment": Holding(plain=("fingerprint", "config")),
    "enrichment_step": Holding(plain=("fingerprint", "config")),
    "enrichment_value": Holding(
        ("value", "failure"), ("chunk_hash", "context_hash", "usage", "run_id"), ("chunk_hash",), "document"
    ),
    "chunk_input": Holding(("search_text",), ("text_hash", "input_hash"), ("text_hash",), "document"),
    # indexes; the tables of the builds themselves are in BUILD_TABLES
    "embedder": Holding(plain=("fingerprint", "config")),
    "embedding": Holding(plain=("input_hash", "run_id")),
    "index_build": Holding(plain=("index_name", "fingerprint", "config", "table_name", "run_id", "state")),
    "index_document": Holding(plain=("source",)),
    "index_snapshot": Holding(
        ("evidence",), ("index_name", "run_id", "counts", "sources"), ("index_name", "snapshot"), "scrub"
    ),
    "index_state": Holding(("held_reason",), ("index_name", "held_by"), ("index_name",), "scrub"),
    "serving_move": Holding(("reason",), ("index_name", "moved_by"), ("move_id",), "scrub"),
    "snapshot_pin": Holding(plain=("index_name", "pinned_by")),
    # evaluation
    "evaluation_dataset": Holding(plain=("dataset", "content_hash", "corpus", "counts", "file", "run_id")),
    "evaluation_question": Holding(
        ("question", "answer", "tags", "reason", "answers", "group_name", "provenance"),
        ("dataset", "question_id", "split", "status", "fingerprint"),
        ("dataset", "question_id"),
    ),
    "evaluation_evidence": Holding(
        ("quote",), ("dataset", "question_id", "declared", "text_hash", "kind", "stance"), ("dataset", "question_id")
    ),
    "question_promotion": Holding(("reason",), ("dataset", "question_id", "promoted_by"), ("dataset", "question_id"), "scrub"),
    "question_draft": Holding(
        ("question", "reason"),
        ("dataset", "question_id", "type", "generator", "generator_fingerprint", "chunker_fingerprint", "document_ids",
         "text_hashes", "scores", "state", "decided_by", "run_id", "content_hash"),
        ("draft_id",),
    ),
    # hashes of questions; those of erased questions are taken out
    "holdout_use": Holding(
        plain=("dataset", "questions", "questions_hash", "purpose", "experiment", "champion", "challenger", "run_id")
    ),
    # prompts and answers
    # worked examples that were drawn from documents go by document before anything is scrubbed
    "prompt_version": Holding(
        ("config", "rationale"), ("name", "fingerprint", "run_id", "author"), ("name", "version"), "scrub"
    ),
    "prompt_label": Holding(("reason",), ("name", "label", "kind", "set_by"), ("move_id",), "scrub"),
    "variant": Holding(("config",), ("fingerprint", "name"), ("fingerprint",), "scrub"),
    "generation": Holding(("messages", "text"), ("fingerprint", "model", "usage", "run_id"), ("fingerprint",)),
    "trial": Holding(
        ("error", "retrieved", "answer", "citations", "retrieval"),
        ("fingerprint", "experiment", "variant", "index_name", "dataset", "question_id", "status", "generation", "usage",
         "supplied", "steps", "versions", "run_id"),
        ("fingerprint",),
    ),
    "trial_score": Holding(plain=("trial", "metric", "fingerprint")),
    # ranges, verdicts and numbers of passages; they go with their trial
    "trial_verdict": Holding(plain=("trial", "metric", "fingerprint", "verdicts", "generations", "error", "run_id")),
    # scores by place in the label file, which stays with its owner
    "judge_calibration": Holding(plain=("judge", "fingerprint", "labels", "scores", "measures", "run_id")),
    "retrieval": Holding(("hits", "trace"), ("key", "index_name", "run_id"), ("key",)),  # any erasure empties it
    "experiment_result": Holding(
        ("leaderboard", "recommendation", "outcomes"),
        ("experiment", "fingerprint", "inputs", "snapshots", "run_id"),
        ("result_id",),
        "scrub",
    ),
    "result_trial": Holding(plain=("trial",)),
    "champion": Holding(("reason",), ("experiment", "variant", "set_by"), ("champion_id",), "scrub"),
    "evidence": Holding(
        ("details",), ("kind", "subject", "fingerprint", "check_name", "run_id"), ("evidence_id",), "scrub"
    ),
    "interaction": Holding(
        ("question", "answer", "citations", "retrieved", "retrieval", "filters"),
        ("index_name", "variant", "variant_reason", "generation", "usage", "supplied", "steps"),
        ("interaction_id",),
    ),
    "feedback": Holding(("comment", "correction"), ("given_by",), ("feedback_id",)),
    # names of variants and metrics, and numbers
    "shadow_result": Holding(plain=("experiment", "champion", "challenger", "report", "run_id")),
    # monitoring and operations
    "drift_result": Holding(("details",), ("subject", "verdict", "file", "run_id"), ("day", "subject"), "scrub"),
    "alert": Holding(("title", "body"), ("alert_key", "state", "delivered"), ("alert_key",), "scrub"),
    "erasure": Holding(plain=("requested_by", "selector", "proof")),  # the record itself
}  # fmt: skip

#: Tables a build has of its own. The rows go by document; a table of words counts what the rows hold.
BUILD_TABLES = re.compile(r"(chunks|words)_\d+")
