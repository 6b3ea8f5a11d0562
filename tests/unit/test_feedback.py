"""Feedback and promotion: a person makes a live question one of a dataset, with its origin; erasure takes it all along."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from assets.evaluation.checks import promoted_questions, provenance_complete
from assets.evaluation.dataset import newest_version, read_dataset, resolve, write_dataset
from assets.evaluation.feedback import judged, promote_interaction
from assets.evaluation.holdout import record_use
from assets.evaluation.questions import QuestionSpec, load_questions
from assets.governance.erasure import find_traces, forget
from assets.monitoring.interactions import purge
from resources.errors import LeaseHeldError, PermanentError
from resources.interaction_log import give_feedback, read_interaction
from resources.platform import Platform
from tests.evaluation_support import dataset_files, line
from tests.seeded_corpus import SeededCorpus

FACT = "The Heron runs eighty kilometres on one charge of its battery."
OTHER = "The Otter has a lamp of sixty lux and two brakes."
ASKED = "How far does the Heron of Mrs Miller go?"
Make = Callable[..., Platform]


@pytest.fixture
def platform(make_platform: Make) -> Platform:
    return make_platform(**dataset_files(line("q1", "Which lamp?", "sixty lux", quote=OTHER, document="docs/otter.md")))


@pytest.fixture
def corpus(platform: Platform) -> SeededCorpus:
    corpus = SeededCorpus(platform)
    corpus.document("docs", "heron.md", f"# Heron\n\n{FACT}\nIt is blue.\n")
    corpus.document("docs", "otter.md", f"# Otter\n\n{OTHER}\n")
    with platform.database.connect() as connection:
        connection.execute(
            "INSERT INTO source_revision (source, revision, run_id, counts, data_version) VALUES ('docs', 1, 'r', '{}', 'v')"
        )
    return corpus


def asked(corpus: SeededCorpus, question: str = ASKED, *, path: str = "heron.md", text: str = FACT) -> str:
    """Log an answer that cites ``text``; return its id."""
    database = corpus.platform.database
    with database.connect() as connection:
        row = connection.execute(
            """SELECT document_id, version_id, position(%s IN text) - 1 FROM document_version JOIN document_text USING (text_hash)
               WHERE path = %s""",
            (text, path),
        ).fetchone()
        assert row is not None
        citation = {
            "number": 1, "document_id": row[0], "version_id": row[1], "source": "docs", "path": path,
            "start": row[2], "end": row[2] + len(text),
        }  # fmt: skip
        added = connection.execute(
            """INSERT INTO interaction (interaction_id, question, answer, refused, citations, retrieved, index_name, snapshot,
                   variant, variant_reason, generation, usage, latency)
               VALUES (gen_random_uuid(), %s, 'Eighty kilometres. [1]', false, %s, '[]', 'main', 1, %s, 'baseline', 'none',
                   '{}', 0.1) RETURNING interaction_id::text""",
            (question, Jsonb([citation]), corpus.variant()),
        ).fetchone()
    assert added is not None
    return added[0]


def promote(corpus: SeededCorpus, identity: str, **more: Any) -> QuestionSpec:
    return promote_interaction(corpus.platform, identity, "qa", by="ada", reason="asked often", **more)


def build(platform: Platform) -> None:
    with platform.database.lease("dataset:qa", "run") as lease, platform.database.connect() as connection:
        resolved = resolve(connection, platform.config, "qa", newest_version(connection, "qa"))
        assert not resolved.stale
        write_dataset(connection, resolved, artifacts=platform.artifacts, run_id="run", lease=lease)


def count(platform: Platform, table: str) -> int:
    with platform.database.connect() as connection:
        row = connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # type: ignore[arg-type]
    assert row is not None
    return row[0]


# --- feedback -------------------------------------------------------------------------------------------


def test_the_last_word_of_each_person_counts(corpus: SeededCorpus) -> None:
    database, identity = corpus.platform.database, asked(corpus)
    give_feedback(database, identity, -1, by="ada", correction="Ninety.")
    give_feedback(database, identity[:8].upper(), 1, by="ada", comment="now I see")
    give_feedback(database, identity, -1, by="bob")
    with database.connect() as connection:
        logged = read_interaction(connection, identity)
        (found,) = judged(connection)
        assert judged(connection, ["other"]) == []
        assert [one.interaction_id for one in judged(connection, rating="bad")] == [identity]
    assert [(one.given_by, one.rating, one.correction) for one in logged.feedback] == [
        ("bob", -1, None),
        ("ada", 1, None),
    ]
    assert (found.good, found.bad, found.corrected, found.datasets) == (1, 1, False, ())


@pytest.mark.parametrize(
    ("identity", "more", "message"),
    [
        ("0000000", {}, "at least its first 8 characters"),
        ("drop table", {}, "is no id of an interaction"),
        ("00000000", {}, "there is no interaction"),
        ("", {"comment": " \0"}, "the comment is empty"),
    ],
)
def test_feedback_on_nothing_is_refused(
    corpus: SeededCorpus, identity: str, more: dict[str, Any], message: str
) -> None:
    with pytest.raises(PermanentError, match=message):
        give_feedback(corpus.platform.database, identity or asked(corpus), 1, by="ada", **more)
    assert count(corpus.platform, "feedback") == 0


def test_feedback_goes_with_its_interaction_when_its_time_is_over(corpus: SeededCorpus) -> None:
    give_feedback(corpus.platform.database, asked(corpus), 1, by="ada", comment="fine")
    purge(corpus.platform.database, -1)
    assert count(corpus.platform, "feedback") == 0


# --- promotion ------------------------------------------------------------------------------------------


def test_answer_rated_good_becomes_a_question_with_what_it_cited(corpus: SeededCorpus) -> None:
    platform, identity = corpus.platform, asked(corpus)
    give_feedback(platform.database, identity, 1, by="bob")
    spec = promote(corpus, identity, split="test", question="How far does the Heron go?", tags={"topic": "range"})
    assert (spec.id, spec.answer, spec.split) == (f"asked-{identity[:13]}", "Eighty kilometres.", "test")
    path = platform.config.promoted_path("qa")
    assert load_questions(path) == [spec]
    assert spec.provenance["interaction"] == identity
    assert (spec.provenance["promoted_by"], spec.provenance["reason"]) == ("ada", "asked often")
    assert "Miller" not in path.read_text(encoding="utf-8")
    build(platform)
    with platform.database.connect() as connection:
        stored = next(item for item in read_dataset(connection, "qa").questions if item.question_id == spec.id)
        assert promoted_questions(connection, "qa") == {spec.id}
        assert [one.datasets for one in judged(connection)] == [("qa",)]
    assert stored.gold[0].end - stored.gold[0].start == len(FACT)
    assert stored.provenance == spec.provenance


def test_a_correction_is_the_answer_unless_another_is_given(corpus: SeededCorpus) -> None:
    first, second = asked(corpus), asked(corpus, "And its colour?")
    for identity in (first, second):
        give_feedback(corpus.platform.database, identity, -1, by="bob", correction="About eighty kilometres")
    assert promote(corpus, first).answer == "About eighty kilometres"
    spec = promote(corpus, second, answer="blue", quotes=[("docs/heron.md", "It  is *blue*.")])
    assert [one.quote for one in spec.evidence] == ["It is blue."]  # in the document's own words
    assert len(load_questions(corpus.platform.config.promoted_path("qa"))) == 2


def test_question_the_documents_do_not_answer_is_promoted_as_such(corpus: SeededCorpus) -> None:
    spec = promote(corpus, asked(corpus, "Who owns the shop?"), unanswerable=True)
    assert (spec.answer, spec.evidence, spec.is_answerable) == (None, (), False)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({}, "nobody said what the right answer is"),
        ({"answer": "80", "quotes": [("docs/heron.md", "It runs ninety.")]}, "does not hold that quote"),
        ({"answer": "80", "quotes": [("docs/gone.md", "x")]}, "there is no such document"),
        ({"answer": "80", "quotes": [("other/a.md", "x")]}, "does not list the source of other/a.md"),
        ({"answer": "80", "unanswerable": True}, "has neither an answer nor quotes"),
        ({"answer": " "}, "answer: the text is empty"),
        ({"answer": "sixty lux", "question": "which LAMP?"}, "qa asks this already: question q1"),
    ],
)
def test_promotion_that_would_not_hold_is_refused_and_writes_nothing(
    corpus: SeededCorpus, more: dict[str, Any], message: str
) -> None:
    with pytest.raises(PermanentError, match=message):
        promote(corpus, asked(corpus), **more)
    assert not corpus.platform.config.promoted_path("qa").exists()
    assert count(corpus.platform, "question_promotion") == 0


def test_a_second_promotion_is_refused_and_mends_a_lost_record(corpus: SeededCorpus) -> None:
    platform, identity = corpus.platform, asked(corpus)
    promote(corpus, identity, answer="80")
    with platform.database.connect() as connection:
        connection.execute("DELETE FROM question_promotion")  # as if killed between file and commit
    with pytest.raises(PermanentError, match=r"is question asked-.* of qa already"):
        promote(corpus, identity, answer="80")
    assert count(platform, "question_promotion") == 1
    assert len(load_questions(platform.config.promoted_path("qa"))) == 1


def test_nothing_is_promoted_while_the_dataset_is_written(
    corpus: SeededCorpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = corpus.platform.database
    lease = type(database).lease
    monkeypatch.setattr(
        type(database), "lease", lambda self, *names, **more: lease(self, *names, **{**more, "wait_seconds": 0.2})
    )
    with lease(database, "dataset:qa", "another run"), pytest.raises(LeaseHeldError):
        promote(corpus, asked(corpus), answer="80")


def test_promoted_question_whose_origin_was_removed_is_told(corpus: SeededCorpus) -> None:
    platform = corpus.platform
    spec = promote(corpus, asked(corpus), answer="80")
    path = platform.config.promoted_path("qa")
    bare = {key: value for key, value in json.loads(path.read_text(encoding="utf-8")).items() if key != "provenance"}
    path.write_text(json.dumps(bare) + "\n", encoding="utf-8")
    with platform.database.connect() as connection:
        resolved = resolve(connection, platform.config, "qa", None)
        outcome = provenance_complete(resolved, promoted_questions(connection, "qa"))
    assert not outcome.passed
    assert spec.id in str(outcome.observed)


# --- erasure --------------------------------------------------------------------------------------------


def test_erasing_the_document_leaves_no_word_of_question_answer_or_feedback(corpus: SeededCorpus) -> None:
    platform, identity = corpus.platform, asked(corpus)
    give_feedback(platform.database, identity, -1, by="bob", comment=f"it says: {FACT}", correction=FACT)
    elsewhere = asked(corpus, "Which lamp has it?", path="otter.md", text=OTHER)
    give_feedback(platform.database, elsewhere, 1, by="bob", comment=f"compare: {FACT}")
    give_feedback(platform.database, elsewhere, 1, by="eve", comment="right")
    spec = promote(corpus, identity)
    # cites the erased document, but quotes another one
    mixed = promote(corpus, asked(corpus, "Heron or Otter?"), answer="Otter", quotes=[("docs/otter.md", OTHER)])
    build(platform)
    with platform.database.connect() as connection:
        record_use(
            connection, "qa", read_dataset(connection, "qa").questions,
            experiment="e", champion="a", challenger="b", run_id="r",
        )  # fmt: skip
    erasure = forget(platform, document="docs/heron.md", by="ada")
    assert find_traces(platform, FACT) == {}
    assert find_traces(platform, "Eighty kilometres") == {
        "interaction.answer": 1
    }  # what was said from the other document
    assert count(platform, "feedback") == 1  # that of eve
    assert count(platform, "question_promotion") == 0
    expected = {"feedback": 2, "question_promotion": 2, "evaluation_question": 2, "holdout_use": 1}
    assert {table: erasure.proof[table] for table in expected} == expected
    with platform.database.connect() as connection:
        assert [item.question_id for item in read_dataset(connection, "qa").questions] == ["q1"]
        row = connection.execute("SELECT cardinality(questions) FROM holdout_use").fetchone()
    assert row == (1,)
    assert erasure.user_files == {"evaluation/qa.promoted.jsonl": 2}  # the user's own lines: named, not edited
    assert {spec.id, mixed.id} <= {one.id for one in load_questions(platform.config.question_files("qa"))}


def test_erasing_a_name_finds_it_in_every_new_column(corpus: SeededCorpus) -> None:
    platform, identity = corpus.platform, asked(corpus)
    give_feedback(platform.database, identity, 1, by="bob", comment="Mrs Miller was glad")
    promote_interaction(platform, identity, "qa", by="ada", reason="Mrs Miller asked", question="How far?")
    other = asked(corpus, "What else?")
    give_feedback(platform.database, other, 1, by="bob", comment="tell Mrs Miller")
    build(platform)
    forget(platform, text="Mrs Miller", by="ada")
    assert find_traces(platform, "Miller") == {}
    assert count(platform, "interaction") == 1
    assert count(platform, "feedback") == 0


def test_promoted_file_is_found_by_an_erasure_of_a_name(corpus: SeededCorpus) -> None:
    platform = corpus.platform
    promote(corpus, asked(corpus), answer="80")
    erasure = forget(platform, text="Mrs Miller", by="ada")
    assert erasure.user_files == {"evaluation/qa.promoted.jsonl": 1}


def test_question_files_of_every_kind_are_named_by_an_erasure(corpus: SeededCorpus) -> None:
    folder = corpus.platform.config.data_dir / "evaluation"
    (folder / "more.yaml").write_text(
        "- id: q7\n  evidence:\n  - {document: docs/heron.md, quote: x}\n  - document: docs/heron.md.bak\n",
        encoding="utf-8",
    )
    (folder / "table.csv").write_text("id,document\nq8,docs/heron.md\nq9,docs/otter.md\n", encoding="utf-8")
    erasure = forget(corpus.platform, document="docs/heron.md", by="ada")
    assert erasure.user_files == {"evaluation/more.yaml": 1, "evaluation/table.csv": 1}


def test_line_is_whole_or_not_there(corpus: SeededCorpus, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*names: Any) -> None:
        raise PermissionError("read only")

    monkeypatch.setattr("assets.evaluation.feedback.os.replace", fail)
    with pytest.raises(PermanentError, match="cannot be written"):
        promote(corpus, asked(corpus), answer="80")
    folder: Path = corpus.platform.config.promoted_path("qa").parent
    assert sorted(path.name for path in folder.iterdir()) == ["qa.jsonl", "qa.yaml"]
    assert count(corpus.platform, "question_promotion") == 0
