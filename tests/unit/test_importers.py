"""Importers: every answer, excerpt and judgement stands where the data set says; what does not is reported."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from assets.evaluation.importers.beir import convert_beir
from assets.evaluation.importers.excerpts import convert_excerpts
from assets.evaluation.importers.squad import convert_squad
from assets.evaluation.importers.tabular import convert_csv
from assets.evaluation.questions import QuestionSpec, load_questions
from resources.dataset_config import DatasetConfig
from resources.errors import ConfigError


def imported(target: Path) -> tuple[list[QuestionSpec], dict[str, str]]:
    """Questions, checked with the header that was written, and documents by path."""
    header = DatasetConfig.model_validate(yaml.safe_load((target / "dataset.yaml").read_text(encoding="utf-8")))
    root = target / "documents"
    texts = {
        path.relative_to(root).as_posix(): path.read_text(encoding="utf-8")
        for path in root.rglob("*")
        if path.is_file()
    }
    return load_questions(target / "questions.jsonl", header), texts


def spans(questions: list[QuestionSpec], texts: dict[str, str]) -> dict[str, list[str]]:
    """The text each piece of evidence is a range of, by question."""
    return {item.id: [texts[one.path][one.start : one.end] for one in item.evidence] for item in questions}


def one_split_per_group(questions: list[QuestionSpec]) -> bool:
    splits: dict[str, set[str]] = {}
    for item in questions:
        splits.setdefault(item.group or item.id, set()).add(item.split)
    return all(len(found) == 1 for found in splits.values())


# --- real data ------------------------------------------------------------------------------------------


def test_squad2_keeps_every_answer_and_no_span_is_off(shared_data: Path, tmp_path: Path) -> None:
    report = convert_squad(shared_data / "squad2", tmp_path)
    assert (report.documents, report.questions, report.unanswerable, report.skipped) == (10, 4025, 1997, [])
    questions, texts = imported(tmp_path)
    rows = [
        json.loads(row) for row in (shared_data / "squad2" / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    for item, row in zip(questions, rows, strict=True):
        assert (item.id, item.is_answerable) == (row["id"], not row["is_impossible"])
        assert list(item.references) == list(dict.fromkeys(one["text"].strip() for one in row["answers"]))
    found = spans(questions, texts)
    assert all(found[item.id] == ([item.answer] if item.answer else []) for item in questions)
    assert sum(len(item.references) > 1 for item in questions) == sum(
        len({one["text"].strip() for one in row["answers"]}) > 1 for row in rows
    )
    assert {item.split for item in questions} == {"dev", "test"}
    assert one_split_per_group(questions)


def test_official_json_and_folder_of_squad2_are_the_same_questions(shared_data: Path, tmp_path: Path) -> None:
    """The official file is rebuilt from the folder: the same answers must be found at the same words."""
    source = shared_data / "squad2"
    paragraphs: dict[str, dict[str, Any]] = {}
    articles: dict[str, dict[str, Any]] = {}
    for row in map(json.loads, (source / "paragraphs.jsonl").read_text(encoding="utf-8").splitlines()):
        paragraphs[row["paragraph_id"]] = {"context": row["text"], "qas": []}
        article = articles.setdefault(row["article"], {"title": row["article"], "paragraphs": []})
        article["paragraphs"].append(paragraphs[row["paragraph_id"]])
    for row in map(json.loads, (source / "questions.jsonl").read_text(encoding="utf-8").splitlines()):
        answers = [{"text": one["text"], "answer_start": one["start"]} for one in row["answers"]]
        asked = {key: row[key] for key in ("id", "question", "is_impossible")}
        paragraphs[row["paragraph_id"]]["qas"].append({**asked, "answers": answers})
    official = tmp_path / "dev-v2.0.json"
    official.write_text(json.dumps({"version": "v2.0", "data": list(articles.values())}), encoding="utf-8")
    report = convert_squad(official, tmp_path / "official")
    assert (report.documents, report.questions, report.unanswerable, report.skipped) == (10, 4025, 1997, [])
    convert_squad(source, tmp_path / "folder")
    first, texts = imported(tmp_path / "official")
    second, others = imported(tmp_path / "folder")
    ours, theirs = spans(first, texts), spans(second, others)
    assert ours == theirs
    assert {item.id: item.references for item in first} == {item.id: item.references for item in second}
    assert one_split_per_group(first)


def test_xquad_in_eight_languages_has_no_span_off_and_keeps_translations_together(
    shared_data: Path, tmp_path: Path
) -> None:
    report = convert_squad(shared_data / "xquad", tmp_path)
    assert (report.documents, report.questions, report.unanswerable, report.skipped) == (224, 8 * 726, 0, [])
    questions, texts = imported(tmp_path)
    found = spans(questions, texts)
    assert all(found[item.id] == [item.answer] for item in questions)
    assert one_split_per_group(questions)
    stems: dict[str, set[str]] = {}
    for item in questions:
        stems.setdefault(item.id.rpartition(".")[0], set()).add(str(item.group))
    assert len(stems) == 726
    assert all(len(groups) == 1 for groups in stems.values())
    assert convert_squad(shared_data / "xquad", tmp_path / "de", language="de").questions == 726
    assert {item.tags["language"] for item in imported(tmp_path / "de")[0]} == {"de"}


def test_scifact_loses_no_query_and_no_judgement(shared_data: Path, tmp_path: Path) -> None:
    report = convert_beir(shared_data / "scifact", tmp_path)
    assert (report.documents, report.questions, report.evidence, report.skipped) == (5183, 300, 339, [])
    questions, texts = imported(tmp_path)
    assert all(item.is_answerable and item.answer is None for item in questions)
    assert all(one.kind == "document" and one.path in texts for item in questions for one in item.evidence)
    assert {item.split for item in questions} == {"dev", "test"}


def test_excerpts_of_the_chunking_set_stand_where_they_should(shared_data: Path, tmp_path: Path) -> None:
    report = convert_excerpts(shared_data / "chunking-eval", tmp_path)
    assert (report.documents, report.questions, report.evidence, report.skipped) == (5, 472, 790, [])
    questions, texts = imported(tmp_path)
    found = spans(questions, texts)
    rows = (shared_data / "chunking-eval" / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    for row in map(json.loads, rows):
        wanted = [" ".join(one["content"].split()) for one in row["references"]]
        assert [" ".join(text.split()) for text in found[row["id"]]] == wanted


# --- small sets -----------------------------------------------------------------------------------------


def squad_file(path: Path, *qas: dict[str, Any], context: str = "Chains have 110 links. Belts have none.") -> Path:
    data = {"data": [{"title": "Chains/and belts", "paragraphs": [{"context": context, "qas": list(qas)}]}]}
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


def test_squad1_has_no_unanswerable_half_and_ids_get_their_language(tmp_path: Path) -> None:
    qas = {"id": "1", "question": "How many\u00a0links?", "answers": [{"text": "110", "answer_start": 12}] * 2}
    report = convert_squad(squad_file(tmp_path / "s.json", qas), tmp_path / "out", language="en")
    assert (report.questions, report.unanswerable) == (1, 0)
    (question,), texts = imported(tmp_path / "out")
    assert (question.id, question.question, question.references) == ("1.en", "How many links?", ("110",))
    assert spans([question], texts) == {"1.en": ["110"]}
    assert question.tags["language"] == "en"
    assert question.provenance == {"kind": "import", "format": "squad", "from": "s.json"}


def test_answer_that_is_not_in_its_paragraph_is_skipped_and_reported(tmp_path: Path) -> None:
    good = {
        "id": "1",
        "question": "Q?",
        "answers": [{"text": "120", "answer_start": 0}, {"text": "110", "answer_start": 3}],
    }
    bad = {"id": "2", "question": "Q?", "answers": [{"text": "999", "answer_start": 0}]}
    twice = {"id": "1", "question": "Again?", "answers": [{"text": "110", "answer_start": 12}]}
    report = convert_squad(squad_file(tmp_path / "s.json", good, bad, twice), tmp_path / "out")
    assert report.questions == 1
    assert report.skipped == [
        ("1", "an answer is not in its paragraph"),
        ("2", "an answer is not in its paragraph"),
        ("2", "it is answerable, but no answer stands in its paragraph"),
        ("1", "the id is used twice"),
    ]
    assert "4 skipped (1: an answer is not" in report.describe()


def test_answer_is_looked_for_in_its_own_paragraph_only(tmp_path: Path) -> None:
    paragraphs = [
        {"context": "It has 7 gears.", "qas": []},
        {
            "context": "It has 9 gears.",
            "qas": [{"id": "1", "question": "Q?", "answers": [{"text": "7", "answer_start": 7}]}],
        },
        {
            "context": "It\u0301 has 7 gears.",
            "qas": [{"id": "2", "question": "Q?", "answers": [{"text": "7", "answer_start": 8}]}],
        },
    ]
    (tmp_path / "s.json").write_text(json.dumps({"data": [{"title": "t", "paragraphs": paragraphs}]}), encoding="utf-8")
    report = convert_squad(tmp_path / "s.json", tmp_path / "out")
    assert [name for name, _ in report.skipped] == ["1", "1"]
    (question,), texts = imported(tmp_path / "out")
    start = question.evidence[0].start
    assert start == texts[question.evidence[0].path].rindex("7")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "no list 'data'"),
        ('{"data": [{"title": "t"}]}', "data.0: field 'paragraphs' is missing"),
    ],
)
def test_file_that_is_no_squad_is_told(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "s.json").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        convert_squad(tmp_path / "s.json", tmp_path / "out")


def test_folder_that_is_no_squad_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"not a SQuAD 2\.0 folder"):
        convert_squad(tmp_path, tmp_path / "out")


def beir(folder: Path, **qrels: str) -> Path:
    (folder / "qrels").mkdir(parents=True)
    documents = [
        {"_id": "d/1", "title": "Birds", "text": "They fly."},
        {"_id": "d2", "title": "", "text": "# They swim."},
    ]
    queries = [{"_id": f"q{number}", "text": f"Question  {number}"} for number in range(1, 5)]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, documents)), encoding="utf-8")
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)), encoding="utf-8")
    for split, rows in qrels.items():
        (folder / "qrels" / f"{split}.tsv").write_text(rows.replace(" ", "\t"), encoding="utf-8")
    return folder


def test_beir_keeps_grades_and_splits_and_reports_what_is_missing(tmp_path: Path) -> None:
    test = "query-id corpus-id score\nq1 d/1 2\nq1 d2 1\nq2 d2 0\nq9 d2 1\n"
    source = beir(
        tmp_path / "in", train="q3 0 d/1 1\n", dev="query-id corpus-id score\nq4 gone 1\nq4 d2 3\n", test=test
    )
    report = convert_beir(source, tmp_path / "out", name="lib")
    assert dict(report.skipped) == {
        "q4": "document gone is not in the corpus", "q2": "no document is relevant", "q9": "the query is missing or empty",
    }  # fmt: skip
    questions, texts = imported(tmp_path / "out")
    by_id = {item.id: item for item in questions}
    assert {key: item.split for key, item in by_id.items()} == {"q1": "test", "q3": "train", "q4": "dev"}
    assert [one.grade for one in by_id["q1"].evidence] == [2, 1]
    assert by_id["q4"].evidence[0].grade == 3
    path = by_id["q3"].evidence[0].path
    assert texts[path] == "# Birds\n\nThey fly.\n"
    assert texts["d2.txt"] == "# They swim.\n"


@pytest.mark.parametrize(
    ("qrels", "message"),
    [
        ({"test": "q1 d2\n"}, r"test.tsv:1: expected query-id, corpus-id and a whole number"),
        ({"all": "q1 d2 1\n"}, "must be a split"),
        ({"dev": "q1 d2 1\n", "test": "q1 d2 1\n"}, "query q1 is in two splits"),
        ({"test": "q1 d2 0\n"}, "no query has a relevant document"),
    ],
)
def test_malformed_beir_is_told(tmp_path: Path, qrels: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        convert_beir(beir(tmp_path / "in", **qrels), tmp_path / "out")


def test_folder_that_is_no_beir_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing; a BEIR folder has"):
        convert_beir(tmp_path, tmp_path / "out")


TABLE = "Frage;Antwort;Datei;Stelle;Rest\nWie weit?;80 km;a.md;The range is 80 km.;x\nPreis?;;;;y\nWie alt?;9;b.md;It is 9.;z\n"
COLUMNS = {"Frage": "question", "Antwort": "answer", "Datei": "document", "Stelle": "quote"}


def test_table_with_columns_of_its_own_is_checked_against_the_documents(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("# Range\n\nThe *range* is\n80 km.\n", encoding="utf-8")
    (tmp_path / "t.csv").write_text(TABLE, encoding="utf-8")
    report = convert_csv(tmp_path / "t.csv", tmp_path / "out", columns=COLUMNS, documents=tmp_path / "docs", name="lib")
    assert (report.documents, report.questions, report.unanswerable) == (1, 2, 1)
    assert [why for _, why in report.skipped] == ["there is no document b.md"]
    questions, texts = imported(tmp_path / "out")
    assert questions[0].evidence[0].quote == "The *range* is\n80 km."  # as the document has it
    assert questions[0].evidence[0].quote in texts["a.md"]
    assert questions[0].evidence[0].document == "lib/a.md"
    again = convert_csv(
        tmp_path / "t.csv", tmp_path / "again", columns=COLUMNS, documents=tmp_path / "docs", name="lib"
    )
    assert again.questions == 2
    assert (tmp_path / "again" / "questions.jsonl").read_bytes() == (tmp_path / "out" / "questions.jsonl").read_bytes()


def test_table_with_a_bad_row_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("question,answer\nHow far?,80 km\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"t.csv:2: .*an answer without evidence"):
        convert_csv(tmp_path / "t.csv", tmp_path / "out")


def test_name_of_the_source_must_be_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be the name of a source"):
        convert_squad(squad_file(tmp_path / "s.json"), tmp_path / "out", name="My docs")
