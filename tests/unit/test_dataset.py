"""Evaluation datasets: question files, evidence followed through changes, versions, files and generated questions."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from assets.evaluation.dataset import (
    EvaluationDataset,
    ResolvedDataset,
    WrittenDataset,
    dataset_file,
    newest_version,
    read_dataset,
    resolve,
    write_dataset,
)
from assets.evaluation.heading_questions import LIMIT, SectionedDocument, generate, make_questions
from assets.evaluation.metrics.base import GoldSpan
from assets.evaluation.questions import load_questions
from resources.config import load_config
from resources.errors import ConfigError, PermanentError, StaleLeaseError
from resources.parquet_io import read_metadata, read_table
from resources.platform import Platform
from tests.evaluation_support import dataset_files, delete_document, jsonl, line, put_document

TEXT = "# Range\n\nThe battery lasts about 80 km on flat ground. Cold shortens that.\n"
ASKED = line("q1", "How far?", "about 80 km", quote="The battery lasts about 80 km on flat ground.")
MakePlatform = Callable[..., Platform]


def store(platform: Platform, run_id: str = "run") -> tuple[ResolvedDataset, WrittenDataset]:
    with platform.database.lease("dataset:qa", run_id) as lease, platform.database.connect() as connection:
        resolved = resolve(connection, platform.config, "qa", newest_version(connection, "qa"))
        return resolved, write_dataset(connection, resolved, artifacts=platform.artifacts, run_id=run_id, lease=lease)


def read(platform: Platform, version: int | None = None) -> EvaluationDataset:
    with platform.database.connect() as connection:
        return read_dataset(connection, "qa", version)


def put(platform: Platform, path: str, text: str, **further: Any) -> int:
    with platform.database.connect() as connection:
        return put_document(connection, path, text, **further)


def rewrite(platform: Platform, *lines: dict[str, Any]) -> None:
    platform.config.questions_path("qa").write_text(jsonl(*lines), encoding="utf-8")


# --- question files -----------------------------------------------------------------------------------


def test_questions_are_read_in_order_without_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text("\ufeff" + jsonl(ASKED) + "\n" + jsonl(line("q0", "Price?\u2028Now?")), encoding="utf-8")
    questions = load_questions(path)
    assert [question.id for question in questions] == ["q1", "q0"]
    assert questions[0].evidence[0].source == "docs"
    assert questions[0].evidence[0].path == "a.md"


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("{", "q.jsonl:2: not valid JSON"),
        ("[]", "q.jsonl:2: \\(line\\)"),
        ('{"id": "x", "question": "?", "split": "dev"}', "answer: this field is required .null"),
        (jsonl(line("q1", "Again?")), "q.jsonl:2: id: 'q1' is already used in line 1"),
        (jsonl(line("q2", " ")), "question: the text is empty"),
        (jsonl({**line("q2", "Q?"), "split": "tset"}), "split: must be one of train, dev, test"),
        (jsonl({**line("q2", "Q?"), "spilt": "dev"}), "spilt: unknown field; allowed: .*split"),
        (jsonl(line("q2", "Q?", "A")), "an answer without evidence"),
        (jsonl(line("q2", "Q?", None, quote="x")), "evidence without an answer"),
        (jsonl(line("q2", "Q?", "A", quote=" ")), "evidence.0: the quote is empty"),
        (jsonl(line("q2", "Q?", "A", quote="x", document="a.md")), "evidence.0.document: must be <source>/<path"),
        (jsonl(line("q2", "Q?", "A", evidence=[{"document": "docs/a.md"}])), "either 'quote', or both"),
        (jsonl(line("q2", "Q?", "A", evidence=[{"document": "docs/a.md", "start": 5, "end": 5}])), "must be smaller"),
        (jsonl(line("q2", "Q?", "A", evidence=[{"document": "docs/a.md", "quote": "x", "end": 5}])), "either 'quote'"),
    ],
)
def test_mistake_is_told_with_file_line_field_and_remedy(tmp_path: Path, bad: str, message: str) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text(jsonl(ASKED) + bad, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        load_questions(path)


def test_all_bad_lines_are_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text("{\n" + jsonl(ASKED) + "]\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"(?s)q.jsonl:1: .*q.jsonl:3: "):
        load_questions(path)


# --- following evidence -------------------------------------------------------------------------------


def test_quote_becomes_a_span_of_the_live_document(make_platform: MakePlatform) -> None:
    platform = make_platform(**dataset_files(ASKED, line("q2", "Price?")))
    document = put(platform, "a.md", TEXT)
    resolved, written = store(platform)
    assert resolved.found == {"exact": 1}
    assert (written.version, written.created) == (1, True)
    asked, unanswerable = read(platform).questions
    start = TEXT.index("The battery")
    assert asked.gold == (GoldSpan(document, start, start + len("The battery lasts about 80 km on flat ground.")),)
    assert asked.answerable
    assert (unanswerable.answer, unanswerable.answerable, unanswerable.gold) == (None, False, ())
    assert read(platform).corpus == {"docs": 1}


def test_nothing_changed_keeps_the_version(make_platform: MakePlatform) -> None:
    platform = make_platform(**dataset_files(ASKED))
    put(platform, "a.md", TEXT)
    store(platform)
    put(platform, "b.md", "another document")
    _, written = store(platform)
    assert (written.version, written.created, written.rows) == (1, False, 0)


def test_evidence_moves_with_an_edit_above_it(make_platform: MakePlatform) -> None:
    platform = make_platform(**dataset_files(ASKED))
    put(platform, "a.md", TEXT)
    store(platform)
    put(platform, "a.md", "A new paragraph.\n\n" + TEXT)
    _, written = store(platform)
    assert written.version == 2
    before, after = read(platform, 1).questions[0], read(platform, 2).questions[0]
    assert after.gold[0].start - before.gold[0].start == len("A new paragraph.\n\n")
    assert after.fingerprint != before.fingerprint


def test_evidence_is_reanchored_after_an_edit_inside_it_and_again_after_the_next(make_platform: MakePlatform) -> None:
    platform = make_platform(**dataset_files(ASKED))
    put(platform, "a.md", TEXT)
    store(platform)
    for old, new in (("flat ground", "level ground"), ("The battery lasts", "The battery will last")):
        with platform.database.connect() as connection:
            row = connection.execute("SELECT text FROM document_text ORDER BY ctid DESC LIMIT 1").fetchone()
        assert row
        put(platform, "a.md", row[0].replace(old, new))
        resolved, _ = store(platform)
        assert resolved.found == {"re-anchored": 1}
    assert resolved.questions[0].evidence[0].quote == "The battery will last about 80 km on level ground."
    _, again = store(platform)
    assert not again.created


def test_edit_that_takes_the_answer_away_makes_the_question_stale(make_platform: MakePlatform) -> None:
    platform = make_platform(**dataset_files(ASKED))
    put(platform, "a.md", TEXT)
    store(platform)
    put(platform, "a.md", TEXT.replace("80 km", "95 km"))
    resolved, _ = store(platform)
    assert resolved.found == {"lost": 1}
    assert "no longer holds the answer" in (resolved.stale[0].reason or "")


def test_edit_elsewhere_in_a_long_answer_keeps_the_question_unless_a_number_changes(
    make_platform: MakePlatform,
) -> None:
    sentence = "The battery of the Heron lasts about 80 km on flat ground in summer."
    platform = make_platform(**dataset_files(line("q1", "How far?", sentence, quote=sentence)))
    put(platform, "a.md", sentence)
    store(platform)
    put(platform, "a.md", sentence.replace("flat", "level"))
    assert not store(platform)[0].stale
    put(platform, "a.md", sentence.replace("80", "60"))
    assert store(platform)[0].stale


def test_passage_that_moved_to_another_document_is_found_there(make_platform: MakePlatform) -> None:
    platform = make_platform(**dataset_files(ASKED))
    document = put(platform, "a.md", TEXT)
    store(platform)
    put(platform, "a.md", "# Range\n\nSee the other page.\n")
    new = put(platform, "b.md", "# Details\n\n" + TEXT.replace("about 80", "about\n80"))
    resolved, _ = store(platform)
    assert resolved.found == {"moved": 1}
    assert resolved.questions[0].evidence[0].document_id == new != document
    put(platform, "c.md", TEXT)  # a copy does not pull it away again
    resolved, written = store(platform)
    assert resolved.questions[0].evidence[0].document_id == new
    assert not written.created


def test_passage_that_stands_in_two_other_documents_is_not_guessed(make_platform: MakePlatform) -> None:
    platform = make_platform(**dataset_files(ASKED))
    put(platform, "b.md", TEXT)
    put(platform, "c.md", "Copy. " + TEXT)
    assert len(store(platform)[0].stale) == 1


def test_renamed_document_is_followed_by_its_id(make_platform: MakePlatform) -> None:
    platform = make_platform(**dataset_files(ASKED))
    document = put(platform, "a.md", TEXT)
    store(platform)
    put(platform, "moved/b.md", TEXT, document_id=document)
    put(platform, "a.md", "Something else took the old name.")
    resolved, written = store(platform)
    assert not resolved.stale
    assert not written.created  # same document, same span: nothing that is scored has changed


def test_vanished_evidence_is_set_aside_and_comes_back(make_platform: MakePlatform) -> None:
    span = line("q3", "Cold?", "Cold shortens that", evidence=[{"document": "docs/a.md", "start": 55, "end": 75}])
    platform = make_platform(**dataset_files(ASKED, line("q2", "Price?"), span))
    document = put(platform, "a.md", TEXT)
    store(platform)
    with platform.database.connect() as connection:
        delete_document(connection, document)
    resolved, _ = store(platform)
    assert [(item.spec.id, item.reason) for item in resolved.stale] == [
        ("q1", "docs/a.md: no such document (any more)"),
        ("q3", "docs/a.md: no such document (any more)"),
    ]
    assert [question.question_id for question in read(platform).split("dev")] == ["q2"]
    assert all(question.gold == () for question in read(platform).questions)
    put(platform, "a.md", "New first line.\n" + TEXT)
    resolved, written = store(platform)
    assert not resolved.stale
    assert written.version == 3
    assert resolved.questions[2].evidence[0].quote == TEXT[55:75]


def test_passage_that_was_removed_is_told_as_the_reason(make_platform: MakePlatform) -> None:
    platform = make_platform(**dataset_files(ASKED))
    put(platform, "a.md", "# Range\n\nWrite to us.\n")
    resolved, _ = store(platform)
    assert resolved.stale[0].reason == "docs/a.md: the quoted passage is gone"
    assert resolved.counts()["stale"] == 1


def test_ambiguous_quote_keeps_its_place(make_platform: MakePlatform) -> None:
    platform = make_platform(**dataset_files(line("q1", "Q?", "Press it", quote="Press it.")))
    put(platform, "a.md", "Press it. Then wait.")
    store(platform)
    put(platform, "a.md", "Before all: Press it. Hello there. And now: Press it. Then wait.")
    resolved, _ = store(platform)
    assert resolved.found == {"ambiguous": 1}
    assert resolved.questions[0].evidence[0].start == len("Before all: ")


def test_quote_is_found_without_its_markup(make_platform: MakePlatform) -> None:
    platform = make_platform(**dataset_files(line("q1", "Q?", "press it", quote='Press the "Go" button')))
    put(platform, "a.md", "Now **Press**\nthe “Go” button.")
    resolved, _ = store(platform)
    assert resolved.found == {"normalised": 1}
    assert resolved.questions[0].evidence[0].quote == "Press**\nthe “Go” button"


def test_character_range_becomes_a_quote_that_is_followed(make_platform: MakePlatform) -> None:
    start = TEXT.index("Cold")
    spec = {"document": "docs/a.md", "start": start, "end": start + 20}
    platform = make_platform(**dataset_files(line("q1", "Q?", "Cold shortens", evidence=[spec])))
    put(platform, "a.md", TEXT)
    store(platform)
    put(platform, "a.md", "Longer now.\n" + TEXT)
    resolved, _ = store(platform)
    assert resolved.questions[0].evidence[0].start == start + len("Longer now.\n")
    moved = {"document": "docs/a.md", "start": 0, "end": 6}
    rewrite(platform, line("q1", "Q?", "Longer", evidence=[moved]))
    resolved, _ = store(platform)
    assert resolved.questions[0].evidence[0].quote == "Longer"  # the file was edited: its range is taken afresh


def test_range_outside_the_text_is_stale(make_platform: MakePlatform) -> None:
    spec = {"document": "docs/a.md", "start": 5, "end": 5000}
    platform = make_platform(**dataset_files(line("q1", "Q?", "A", evidence=[spec])))
    put(platform, "a.md", TEXT)
    resolved, _ = store(platform)
    assert "characters 5 to 5000 are outside" in (resolved.stale[0].reason or "")


def test_source_outside_the_dataset_is_told(make_platform: MakePlatform) -> None:
    platform = make_platform(**dataset_files(line("q1", "Q?", "A", quote="A", document="wiki/a.md")))
    put(platform, "a.md", TEXT)
    resolved, _ = store(platform)
    assert "does not list source 'wiki'" in (resolved.stale[0].reason or "")


def test_source_that_was_never_loaded_is_told(make_platform: MakePlatform) -> None:
    with pytest.raises(PermanentError, match="docs was never loaded; materialize raw_documents"):
        store(make_platform(**dataset_files(ASKED)))


# --- several answers, whole documents, conflicts ----------------------------------------------------------


def test_question_is_stale_when_the_last_of_its_accepted_answers_goes(make_platform: MakePlatform) -> None:
    sentence = "The battery lasts about 80 km, eighty kilometres, on flat ground all summer."
    asked = line("q1", "How far?", "80 km", answers=["eighty kilometres"], quote=sentence)
    platform = make_platform(**dataset_files(asked))
    put(platform, "a.md", sentence)
    store(platform)
    put(platform, "a.md", sentence.replace("80 km, ", ""))
    assert not store(platform)[0].stale
    assert read(platform).questions[0].references == ("80 km", "eighty kilometres")
    put(platform, "a.md", sentence.replace("80 km, eighty kilometres", "90 km or so"))
    assert store(platform)[0].stale


def test_whole_document_is_followed_by_its_id_and_keeps_no_text(make_platform: MakePlatform) -> None:
    whole = [{"document": "docs/a.md", "kind": "document", "grade": 2}]
    asked = line("q1", "Range?", answerable=True, evidence=whole)
    platform = make_platform(**dataset_files(asked, task="retrieval"))
    document = put(platform, "a.md", TEXT)
    store(platform)
    (before,) = read(platform).questions
    assert before.gold == (GoldSpan(document, 0, 0, "document", 2),)
    assert (before.answerable, before.answer, before.references) == (True, None, ())
    put(platform, "moved.md", TEXT + "More of it.\n", document_id=document)
    _, written = store(platform)
    (after,) = read(platform).questions
    assert (after.fingerprint, after.gold) == (before.fingerprint, before.gold)  # no trial is repeated for the edit
    assert written.created  # yet the version says which text it was resolved against
    with platform.database.connect() as connection:
        row = connection.execute("SELECT quote, end_char FROM evaluation_evidence WHERE version = 2").fetchone()
        assert row == ("", len(TEXT) + len("More of it.\n"))
        delete_document(connection, document)
    resolved, _ = store(platform)
    assert "no such document" in (resolved.stale[0].reason or "")
    put(platform, "moved.md", TEXT, document_id=document)
    assert not store(platform)[0].stale


def test_conflicting_evidence_is_kept_apart_and_must_keep_standing(make_platform: MakePlatform) -> None:
    evidence = [
        {"document": "docs/a.md", "quote": "The battery lasts about 80 km on flat ground."},
        {"document": "docs/b.md", "quote": "It lasts 60 km.", "stance": "conflicts"},
    ]
    platform = make_platform(**dataset_files(line("q1", "How far?", "80 km", evidence=evidence)))
    put(platform, "a.md", TEXT)
    other = put(platform, "b.md", "It lasts 60 km.\n")
    store(platform)
    assert [span.stance for span in read(platform).questions[0].gold] == ["supports", "conflicts"]
    with platform.database.connect() as connection:
        delete_document(connection, other)
    assert len(store(platform)[0].stale) == 1


def test_several_files_and_promoted_questions_are_one_dataset(make_platform: MakePlatform) -> None:
    header = {"name": "qa", "questions": ["a.jsonl", "b.yaml"], "sources": ["docs"]}
    platform = make_platform(
        **{
            "evaluation/qa.yaml": header,
            "evaluation/a.jsonl": jsonl(ASKED),
            "evaluation/b.yaml": '- {id: u1, question: "Price?", answer: null, split: test, group: money}\n',
            "evaluation/qa.promoted.jsonl": jsonl(line("p1", "Colour?")),
        }
    )
    put(platform, "a.md", TEXT)
    store(platform)
    questions = read(platform).questions
    assert [item.question_id for item in questions] == ["p1", "q1", "u1"]
    assert questions[2].group == "money"


def test_versions_of_before_the_new_columns_read_as_they_were(make_platform: MakePlatform) -> None:
    platform = make_platform(**dataset_files(ASKED, line("u1", "Price?")))
    put(platform, "a.md", TEXT)
    store(platform)
    new = read(platform)
    with platform.database.connect() as connection:
        connection.execute("UPDATE evaluation_question SET answers = NULL, answerable = NULL")
    assert read(platform) == new


# --- versions and files -------------------------------------------------------------------------------


def test_content_that_returns_becomes_the_newest_version_again(make_platform: MakePlatform) -> None:
    platform = make_platform(**dataset_files(ASKED))
    put(platform, "a.md", TEXT)
    first, _ = store(platform)
    rewrite(platform, ASKED, line("q2", "Price?"))
    store(platform)
    rewrite(platform, ASKED)
    third, written = store(platform)
    assert written.version == 3
    assert third.content_hash == first.content_hash
    assert [question.question_id for question in read(platform).questions] == ["q1"]


def test_file_holds_the_version_and_its_provenance(make_platform: MakePlatform) -> None:
    platform = make_platform(**dataset_files(ASKED, line("q2", "Price?", tags={"type": "price"})))
    put(platform, "a.md", TEXT)
    resolved, written = store(platform)
    assert written.file == dataset_file(platform.artifacts, "qa", 1) == platform.artifacts / "evaluation/qa/v1.parquet"
    assert read_metadata(written.file) == {
        "dataset": "qa",
        "version": 1,
        "content_hash": resolved.content_hash,
        "corpus": {"docs": 1},
    }
    rows = read_table(written.file).to_pylist()
    assert [(row["question_id"], len(row["evidence"])) for row in rows] == [("q1", 1), ("q2", 0)]
    assert rows[0]["evidence"][0]["quote"] == "The battery lasts about 80 km on flat ground."


def test_lost_file_is_written_again(make_platform: MakePlatform) -> None:
    platform = make_platform(**dataset_files(ASKED))
    put(platform, "a.md", TEXT)
    _, written = store(platform)
    content = written.file.read_bytes()
    written.file.unlink()
    put(platform, "b.md", "moves the revision of the source on")
    store(platform)
    assert written.file.read_bytes() == content


def test_late_write_of_an_orphan_is_refused(make_platform: MakePlatform) -> None:
    platform = make_platform(**dataset_files(ASKED))
    put(platform, "a.md", TEXT)
    with platform.database.lease("dataset:qa", "dead") as orphan, platform.database.connect() as connection:
        resolved = resolve(connection, platform.config, "qa", None)
        with platform.database.lease("dataset:qa", "new", holder_is_dead=lambda holder: holder == "dead"):
            pass
        with pytest.raises(StaleLeaseError):
            write_dataset(connection, resolved, artifacts=platform.artifacts, run_id="dead", lease=orphan)
    assert not platform.artifacts.exists()


def test_reading_what_does_not_exist_says_what_to_do(make_platform: MakePlatform) -> None:
    platform = make_platform(**dataset_files(ASKED))
    with pytest.raises(PermanentError, match="has no version yet; materialize evaluation_dataset"):
        read(platform)
    put(platform, "a.md", TEXT)
    store(platform)
    with pytest.raises(PermanentError, match="has no version 7"):
        read(platform, 7)


# --- generated questions --------------------------------------------------------------------------------


def sectioned(path: str, *sections: tuple[str, str]) -> SectionedDocument:
    text, headings = f"# {path.title()}\n\n", []
    for heading, body in sections:
        headings.append({"level": 2, "text": heading, "start": len(text)})
        text += f"## {heading}\n\n{body}\n\n"
    return SectionedDocument("docs", path, path.title(), text, headings)


def test_heading_questions_quote_the_first_sentence_of_their_section() -> None:
    document = sectioned(
        "guide",
        ("Charging", "Charge the **battery** to eighty percent. Not more."),
        ("Numbers", "| a | b |\n|---|---|"),
        ("Empty", ""),
        ("Short", "Too few words."),
    )
    lines = make_questions([document])
    answerable = [one for one in lines if one["answer"]]
    assert [one["question"] for one in answerable] == ["What does “Guide” say about Charging?"]
    assert answerable[0]["evidence"][0]["quote"] == "Charge the **battery** to eighty percent."
    assert answerable[0]["answer"] == "Charge the battery to eighty percent."
    assert all(one["tags"]["type"] == "synthetic-heading" for one in lines)
    assert any(one["answer"] is None for one in lines)


def test_topics_of_the_corpus_are_never_called_unanswerable() -> None:
    document = sectioned("birds", ("Penguins", "Breeding penguins walk to the ice; whales pass by."))
    asked = " ".join(one["question"].lower() for one in make_questions([document]) if one["answer"] is None)
    assert asked
    assert "penguin" not in asked
    assert "whale" not in asked


def test_heading_questions_are_bounded_and_the_same_every_time() -> None:
    documents = [
        sectioned(
            f"guide {number}", *((f"Part {part}", f"This part {part} of {number} tells a lot.") for part in range(9))
        )
        for number in range(30)
    ]
    lines = make_questions(documents)
    assert len(lines) == LIMIT
    assert lines == make_questions(list(reversed(documents)))
    assert sum(one["answer"] is None for one in lines) == 15
    titles = {one["evidence"][0]["document"] for one in lines if one["answer"]}
    assert len(titles) == 30  # documents take turns


def test_generated_file_resolves_against_the_documents_it_was_made_from(make_platform: MakePlatform) -> None:
    platform = make_platform(**dataset_files())
    document = sectioned("guide", ("Charging", "Charge the battery to eighty percent. Not more."))
    put(platform, "guide.md", document.text, headings=document.headings)
    path = platform.config.questions_path("qa")
    with platform.database.connect() as connection:
        count = generate(connection, platform.config, "qa", path)
    assert count == len(load_questions(path)) > 1
    resolved, _ = store(platform)
    assert not resolved.stale


def test_sample_questions_load() -> None:
    config = load_config(Path(__file__).resolve().parents[2] / "data")
    for dataset in config.datasets:
        assert load_questions(config.questions_path(dataset))
