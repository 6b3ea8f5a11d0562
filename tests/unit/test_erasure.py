"""Erasure: afterwards a sentence of the document is found nowhere, what others share is still there, and it is proven."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from psycopg import sql
from psycopg.types.json import Jsonb

from assets.governance.erasure import find_traces, forget
from assets.outcomes import CheckOutcome, record_evidence
from resources.errors import ConfigError, LeaseHeldError, PermanentError
from resources.parquet_io import read_table, write_table
from resources.platform import Platform
from tests.seeded_corpus import SeededCorpus

CANARY = 'The "canary" sleeps in crate number seven behind the green door until Tuesday night.'
OTHER = "Every bicycle leaves the workshop with a charged battery and a printed manual in its bag."
SECRET = f"# Birds\n\n{CANARY}\nIt eats seeds.\n"
QUIZ: dict[str, Any] = {
    "evaluation/quiz.yaml": {"name": "quiz", "questions": "quiz.jsonl", "sources": ["docs"]},
    "evaluation/quiz.jsonl": json.dumps({"id": "q000", "evidence": [{"document": "docs/birds.md"}]}) + "\n",
}


def hit(document: int, path: str, text: str) -> dict[str, Any]:
    return {"rank": 1, "score": 0.5, "document_id": document, "source": "docs", "path": path, "text": text}


@pytest.fixture
def platform(make_platform: Callable[..., Platform]) -> Platform:
    return make_platform(**QUIZ)


@pytest.fixture
def corpus(platform: Platform) -> SeededCorpus:
    """Two documents, one with the canary, and a trace of both in every table and kind of file."""
    corpus = SeededCorpus(platform)
    birds = corpus.document("docs", "old/birds.md", SECRET + "An older line of text.")
    birds = corpus.document("docs", "birds.md", SECRET, document_id=birds, revision=2)
    bikes = corpus.document("docs", "bikes.md", OTHER)
    build = corpus.build("main")
    corpus.show(build, [birds, bikes])
    for snapshot, day in ((1, "2026-02-01"), (2, "2026-02-02")):
        corpus.publish("main", build, snapshot, day)
    staged = corpus.build("main", state="loading")
    corpus.show(staged, [birds], start=3)
    corpus.dataset("quiz", ["Where does the canary sleep?", "What is in the bag?"], evidence=birds, quote=CANARY)
    corpus.trial("t-birds", "q001", hit(birds, "birds.md", CANARY))
    corpus.trial("t-asked", "q000", hit(bikes, "bikes.md", OTHER))
    corpus.trial("t-bikes", "q001", hit(bikes, "bikes.md", OTHER))
    corpus.interaction(CANARY, "2026-02-01", hit=hit(birds, "birds.md", CANARY))
    corpus.interaction("What is in the bag?", "2026-02-01", hit=hit(bikes, "bikes.md", OTHER))
    with platform.database.connect() as connection:
        connection.execute(
            """INSERT INTO generation (fingerprint, model, messages, text, usage, latency, run_id)
               VALUES ('g-asked', '{}', %s, 'answer', '{}', 0.1, 'run')""",
            (Jsonb([{"role": "user", "content": f"[1] {CANARY.replace(' ', chr(10), 3)} Question: where?"}]),),
        )
        connection.execute(
            """INSERT INTO quarantine (source, path, content_hash, code, reason, run_id)
               VALUES ('docs', 'birds.md', '\\x01', 'licence', 'r', 'run')"""
        )
    write_files(platform.artifacts, birds, bikes)
    return corpus


def write_files(artifacts: Path, birds: int, bikes: int) -> None:
    import pyarrow as pa

    evidence = pa.list_(pa.struct([("document_id", pa.int64()), ("quote", pa.string())]))
    write_table(
        artifacts / "evaluation" / "quiz" / "v1.parquet",
        [
            {"question_id": "q000", "evidence": [{"document_id": birds, "quote": CANARY}]},
            {"question_id": "q001", "evidence": [{"document_id": bikes, "quote": OTHER}]},
        ],
        pa.schema([("question_id", pa.string()), ("evidence", evidence)]),
        {"dataset": "quiz"},
    )
    columns = [
        ("trial", pa.string()),
        ("dataset", pa.string()),
        ("question_id", pa.string()),
        ("paths", pa.list_(pa.string())),
    ]
    write_table(
        artifacts / "experiments" / "first" / "1.parquet",
        [
            {"trial": "t-birds", "dataset": "quiz", "question_id": "q001", "paths": ["docs/birds.md"]},
            {"trial": "t-asked", "dataset": "quiz", "question_id": "q000", "paths": ["docs/bikes.md"]},
            {"trial": "t-bikes", "dataset": "quiz", "question_id": "q001", "paths": ["docs/bikes.md"]},
        ],
        pa.schema(columns),
    )
    folder = artifacts / "experiments" / "first"
    (folder / "1.html").write_text(f"<p>{CANARY.replace(chr(34), '&quot;')}</p>")
    (folder / "2.html").write_text(f"<p>{OTHER}</p>")
    (folder / "export.jsonl").write_text(json.dumps({"text": CANARY}) + "\n" + json.dumps({"text": OTHER}) + "\n")
    (folder / ".3.parquet.x.tmp").write_text(CANARY)


def count(platform: Platform, table: str) -> int:
    with platform.database.connect() as connection:
        row = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))).fetchone()
    assert row is not None
    return row[0]


def test_traces_are_found_in_every_table_and_file_before(corpus: SeededCorpus) -> None:
    assert set(find_traces(corpus.platform, CANARY)) == {
        "document_text.text", "chunks_1.content", "chunks_2.content", "evaluation_evidence.quote", "trial.retrieved",
        "generation.messages", "interaction.question", "interaction.retrieved",
        "file:evaluation/quiz/v1.parquet", "file:experiments/first/1.html", "file:experiments/first/export.jsonl",
        "file:experiments/first/.3.parquet.x.tmp",
    }  # fmt: skip


def test_a_forgotten_document_leaves_no_trace(corpus: SeededCorpus) -> None:
    forget(corpus.platform, document="docs/birds.md", by="ada")
    assert find_traces(corpus.platform, CANARY) == {}
    assert find_traces(corpus.platform, "An older line of text.") == {}


def test_the_path_survives_in_the_tombstone_and_the_record_alone(corpus: SeededCorpus) -> None:
    forget(corpus.platform, document="docs/birds.md", by="ada")
    assert set(find_traces(corpus.platform, "birds.md")) == {"forgotten.path", "erasure.selector"}


def test_other_documents_keep_everything(corpus: SeededCorpus) -> None:
    before = find_traces(corpus.platform, OTHER)
    forget(corpus.platform, document="docs/birds.md", by="ada")
    after = find_traces(corpus.platform, OTHER)
    lost = {"trial.retrieved": 1, "generation.messages": 1}  # the trial whose question quoted the erased document
    assert {key: value - after.get(key, 0) for key, value in before.items() if after.get(key, 0) != value} == lost


def test_the_proof_counts_rows_and_holds_no_text(corpus: SeededCorpus) -> None:
    erasure = forget(corpus.platform, document="docs/birds.md", by="ada")
    assert erasure.documents == 1
    assert erasure.proof == {
        "document": 1, "document_version": 2, "document_text": 2, "parse_result": 2, "quarantine": 1,
        "chunk_set": 2, "chunk": 2, "chunk_input": 2, "embedding": 2, "index_document": 2, "chunks_1": 1, "chunks_2": 1,
        "evaluation_question": 1, "evaluation_evidence": 1, "trial": 2, "trial_score": 2, "generation": 3, "interaction": 1,
        "file:evaluation/quiz/v1.parquet": 1, "file:experiments/first/1.parquet": 2, "file:experiments/first/1.html": 1,
        "file:experiments/first/export.jsonl": 1, "file:experiments/first/.3.parquet.x.tmp": 1,
    }  # fmt: skip
    with corpus.platform.database.connect() as connection:
        row = connection.execute("SELECT requested_by, selector, proof FROM erasure").fetchone()
    assert row == ("ada", "document:docs/birds.md", erasure.proof)


def test_the_selector_is_hashed_where_asked(corpus: SeededCorpus) -> None:
    erasure = forget(corpus.platform, document="docs/birds.md", by="ada", hide_path=True)
    assert erasure.selector.startswith("sha256:")
    assert set(find_traces(corpus.platform, "birds.md")) == {"forgotten.path"}


def test_snapshot_counts_follow(corpus: SeededCorpus) -> None:
    forget(corpus.platform, document="docs/birds.md", by="ada")
    assert [corpus.counts("main", snapshot) for snapshot in (1, 2)] == [{"documents": 1, "chunks": 1, "lexemes": 3}] * 2


def test_dataset_counts_follow(corpus: SeededCorpus) -> None:
    forget(corpus.platform, document="docs/birds.md", by="ada")
    with corpus.platform.database.connect() as connection:
        row = connection.execute("SELECT counts FROM evaluation_dataset").fetchone()
    assert row == ({"questions": 1, "active": 1, "stale": 0, "unanswerable": 0, "splits": {"dev": 1}},)


def test_the_rewritten_parquet_keeps_its_metadata_and_other_rows(corpus: SeededCorpus) -> None:
    forget(corpus.platform, document="docs/birds.md", by="ada")
    table = read_table(corpus.platform.artifacts / "evaluation" / "quiz" / "v1.parquet")
    assert table.column("question_id").to_pylist() == ["q001"]
    assert json.loads(table.schema.metadata[b"genaiops"]) == {"dataset": "quiz"}


def test_a_second_call_finds_nothing_left(corpus: SeededCorpus) -> None:
    forget(corpus.platform, document="docs/birds.md", by="ada")
    second = forget(corpus.platform, document="docs/birds.md", by="ada")
    assert (second.erasure_id, second.proof) == (None, {})
    assert count(corpus.platform, "erasure") == 1


def test_a_late_answer_is_removed_by_a_second_call(corpus: SeededCorpus) -> None:
    forget(corpus.platform, document="docs/birds.md", by="ada")
    corpus.interaction(CANARY, "2026-02-03", hit=hit(1, "birds.md", CANARY))
    assert forget(corpus.platform, document="docs/birds.md", by="ada").proof == {"interaction": 1}


def test_every_content_the_document_had_is_refused(corpus: SeededCorpus) -> None:
    forget(corpus.platform, document="docs/birds.md", by="ada")
    with corpus.platform.database.connect() as connection:
        rows = connection.execute("SELECT path, content_hash IS NULL FROM forgotten ORDER BY path, 2").fetchall()
    assert rows == [("birds.md", False), ("birds.md", False), ("old/birds.md", False)]


def test_text_another_document_shares_stays(platform: Platform) -> None:
    corpus = SeededCorpus(platform)
    corpus.document("docs", "a.md", SECRET)
    kept = corpus.document("docs", "b.md", SECRET)
    forget(platform, document="docs/a.md", by="ada")
    with platform.database.connect() as connection:
        row = connection.execute(
            """SELECT count(*) FROM document_version JOIN document_text USING (text_hash) JOIN chunk USING (text_hash)
                   JOIN chunk_input USING (text_hash) JOIN embedding USING (input_hash) WHERE document_id = %s""",
            (kept,),
        ).fetchone()
        tombstone = connection.execute("SELECT path, content_hash FROM forgotten").fetchall()
    assert row == (1,)
    assert tombstone == [("a.md", None)], "the same bytes must still be allowed at the other path"


def test_boilerplate_of_other_documents_is_no_quotation(platform: Platform) -> None:
    corpus = SeededCorpus(platform)
    corpus.document("docs", "a.md", f"{OTHER} {CANARY}")
    corpus.document("docs", "b.md", f"{OTHER} Nothing else.")
    (platform.artifacts / "experiments").mkdir(parents=True)
    (platform.artifacts / "experiments" / "report.html").write_text(OTHER)
    forget(platform, document="docs/a.md", by="ada")
    assert (platform.artifacts / "experiments" / "report.html").exists()


def test_a_path_another_document_has_now_is_not_forgotten(platform: Platform) -> None:
    corpus = SeededCorpus(platform)
    moved = corpus.document("docs", "here.md", SECRET)
    corpus.document("docs", "there.md", SECRET, document_id=moved, revision=2)
    corpus.document("docs", "here.md", OTHER, revision=3)
    forget(platform, document="docs/there.md", by="ada")
    with platform.database.connect() as connection:
        paths = connection.execute("SELECT path FROM forgotten").fetchall()
    assert paths == [("there.md",)]
    assert count(platform, "document") == 1


def test_a_quarantined_document_can_be_forgotten(platform: Platform) -> None:
    with platform.database.connect() as connection:
        connection.execute(
            "INSERT INTO quarantine (source, path, content_hash, code, reason, run_id) VALUES ('docs', 'q.md', '\\x01', 'pii', 'r', 'run')"
        )
    assert forget(platform, document="docs/q.md", by="ada").proof == {"quarantine": 1}
    assert count(platform, "forgotten") == 1


def test_a_whole_source_is_forgotten(corpus: SeededCorpus) -> None:
    forget(corpus.platform, source="docs", by="ada")
    assert find_traces(corpus.platform, CANARY) == {}
    assert find_traces(corpus.platform, OTHER) == {}
    assert corpus.counts("main", 2) == {"documents": 0, "chunks": 0, "lexemes": 0}


def test_the_users_own_files_are_named_not_edited(corpus: SeededCorpus) -> None:
    assert forget(corpus.platform, document="docs/birds.md", by="ada").user_files == {"evaluation/quiz.jsonl": 1}


def test_an_unknown_document_is_refused(platform: Platform) -> None:
    with pytest.raises(PermanentError, match=r"nothing is known of docs/none\.md"):
        forget(platform, document="docs/none.md", by="ada")


@pytest.mark.parametrize("arguments", [{}, {"document": "docs/a.md", "source": "docs"}, {"document": "birds.md"}])
def test_what_to_forget_must_be_clear(platform: Platform, arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        forget(platform, by="ada", **arguments)


@pytest.mark.parametrize("resource", ["source:docs", "index:main", "dataset:quiz", "drift:2026-05-01"])
def test_nothing_is_erased_while_another_run_writes(corpus: SeededCorpus, resource: str) -> None:
    with corpus.platform.database.lease(resource, "another run"), pytest.raises(LeaseHeldError):
        forget(corpus.platform, document="docs/birds.md", by="ada", wait_seconds=0.2)
    assert find_traces(corpus.platform, CANARY)


def test_a_failure_on_the_way_leaves_the_tables_untouched(
    corpus: SeededCorpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **more: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("assets.governance.erasure.clean_files", fail)
    with pytest.raises(OSError, match="disk full"):
        forget(corpus.platform, document="docs/birds.md", by="ada")
    assert count(corpus.platform, "document") == 2
    assert count(corpus.platform, "forgotten") == 0


def test_evidence_of_a_check_no_longer_names_the_document(corpus: SeededCorpus) -> None:
    outcome = CheckOutcome(
        "duplicate_content", True, "few", "1 of 20", details={"equal": [{"paths": "a.md, birds.md"}]}
    )
    with corpus.platform.database.connect() as connection:
        record_evidence(connection, "documents", "docs", "f", [outcome], "run")
    erasure = forget(corpus.platform, document="docs/birds.md", by="ada")
    assert erasure.proof["evidence"] == 1
    assert find_traces(corpus.platform, "birds.md").keys() == {"forgotten.path", "erasure.selector"}
    with corpus.platform.database.connect() as connection:
        row = connection.execute("SELECT passed, details FROM evidence WHERE kind = 'documents'").fetchone()
    assert row == (True, {"expected": "few", "observed": "1 of 20"})
