"""Question lines of the second kind, YAML and CSV files, several files, splits by group; old lines stay what they were."""

import json
from pathlib import Path
from typing import Any

import pytest

from assets.evaluation.dataset import Evidence, ResolvedDataset, ResolvedQuestion
from assets.evaluation.questions import QuestionSpec, load_questions, split_of
from resources.config import load_config
from resources.dataset_config import DatasetConfig
from resources.errors import ConfigError
from tests.evaluation_support import jsonl, line

DATA = Path(__file__).resolve().parents[2] / "data"
ASKED = line("q1", "How far?", "80 km", quote="80 km on flat ground")


def header(**settings: Any) -> DatasetConfig:
    return DatasetConfig.model_validate({"name": "qa", "questions": "qa.jsonl", "sources": ["docs"], **settings})


def resolved(questions: list[QuestionSpec]) -> ResolvedDataset:
    """As if every quote stood at character 3 of document 7."""
    return ResolvedDataset(
        "d",
        tuple(
            ResolvedQuestion(
                question, "active", None,
                tuple(
                    Evidence(
                        one.fingerprint(), 7, b"t" * 16, 3, 3 + len(one.quote or "x"), one.quote or "x",
                        one.kind, one.grade, one.stance,
                    )
                    for one in question.evidence
                ),
            )
            for question in questions
        ),
        {"docs": 1},
    )  # fmt: skip


# --- what was there before ------------------------------------------------------------------------------


def test_fingerprints_of_the_handbook_are_those_of_before_the_new_fields() -> None:
    """Values taken before the second kind of lines existed: versions, trials and champions rest on them."""
    config = load_config(DATA)
    questions = load_questions(config.question_files("handbook"), config.datasets["handbook"])
    dataset = resolved(questions)
    assert config.datasets["handbook"].fingerprint() == "1dbcbebe643c87428a2d3fd02947b728"
    assert dataset.content_hash == "17cdbc4eee3d25a7297c84190fbd8a97"
    assert questions[0].evidence[0].fingerprint() == "d7249cadd6eaf6e5868188314e535160"
    assert [dataset.questions[place].fingerprint for place in (0, 2)] == [
        "70fc5a43e984dc910d699e6d841c5d09",
        "b6500163c576fb48a4226cb2dc1adbd1",
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"answers": ["eighty km"]},
        {"evidence": [{**ASKED["evidence"][0], "grade": 2}]},
        {
            "evidence": [
                ASKED["evidence"][0],
                {"document": "docs/b.md", "quote": "60 km on flat ground", "stance": "conflicts"},
            ]
        },
    ],
)
def test_every_new_field_that_can_change_a_score_changes_the_question(change: dict[str, Any]) -> None:
    before, after = (resolved([QuestionSpec.model_validate(one)]) for one in (ASKED, {**ASKED, **change}))
    assert before.questions[0].fingerprint != after.questions[0].fingerprint
    assert before.content_hash != after.content_hash


@pytest.mark.parametrize("change", [{"group": "range"}, {"provenance": {"kind": "written", "author": "ada"}}])
def test_group_and_origin_change_the_version_but_no_trial(change: dict[str, Any]) -> None:
    before, after = (resolved([QuestionSpec.model_validate(one)]) for one in (ASKED, {**ASKED, **change}))
    assert before.questions[0].fingerprint == after.questions[0].fingerprint
    assert before.content_hash != after.content_hash


def test_fields_at_their_defaults_change_nothing() -> None:
    explicit = {
        **ASKED, "answers": ["80 km"], "answerable": True, "group": None, "provenance": {},
        "evidence": [{**ASKED["evidence"][0], "kind": "span", "grade": 1, "stance": "supports"}],
    }  # fmt: skip
    before, after = (resolved([QuestionSpec.model_validate(one)]) for one in (ASKED, explicit))
    assert before.content_hash == after.content_hash


def test_whole_document_is_the_same_evidence_however_long_it_is() -> None:
    short, long = (Evidence("d", 7, b"t", 0, length, "", "document") for length in (5, 900))
    assert short.place == long.place != Evidence("d", 8, b"t", 0, 5, "", "document").place


# --- lines ----------------------------------------------------------------------------------------------


def test_accepted_answers_come_once_with_the_shown_one_first() -> None:
    spec = QuestionSpec.model_validate({**ASKED, "answers": ["eighty km", "80 km", "eighty km"]})
    assert spec.references == ("80 km", "eighty km")
    assert QuestionSpec.model_validate(line("u", "Price?")).references == ()


def test_question_is_answerable_without_a_reference_answer() -> None:
    whole = [{"document": "docs/a.md", "kind": "document", "grade": 2}]
    spec = QuestionSpec.model_validate(line("q", "Range?", evidence=whole, answerable=True))
    assert spec.is_answerable
    assert spec.references == ()
    assert not QuestionSpec.model_validate(line("u", "Price?")).is_answerable


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": None, "answers": ["x"]}, "'answers' without an answer"),
        ({"answerable": False}, "answerable is false, but there is an answer"),
        ({"answer": None}, "evidence without an answer.*set answerable to true"),
        ({"answers": [" "]}, "the text is empty"),
        ({"evidence": [{**ASKED["evidence"][0], "stance": "conflicts"}]}, "needs evidence that supports"),
        ({"evidence": [{**ASKED["evidence"][0], "kind": "document"}]}, "kind 'document' means all of it"),
        ({"evidence": [{**ASKED["evidence"][0], "grade": 0}]}, "evidence.0.grade: .*greater than or equal to 1"),
        ({"evidence": [{"document": "docs/a.md"}]}, "for a whole document set kind: document"),
        ({"answer": None, "answerable": True, "evidence": []}, "needs evidence that supports"),
        ({"tags": {"weight": float("nan")}}, "tags: only texts, finite numbers"),
    ],
)
def test_contradictions_are_told(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text(json.dumps({**ASKED, **change}), encoding="utf-8")
    with pytest.raises(ConfigError, match=f"q.jsonl:1: .*{message}"):
        load_questions(path)


def test_dataset_that_scores_answers_wants_reference_answers(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text(jsonl(ASKED, {**ASKED, "id": "q2", "answer": None, "answerable": True}), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"q.jsonl:2: answer: .*set task: retrieval in the header of qa"):
        load_questions(path, header())
    assert len(load_questions(path, header(task="retrieval"))) == 2


# --- YAML and CSV ---------------------------------------------------------------------------------------

YAML = """\
# The range
- id: q1
  question: How far?
  answer: "80 km"
  answers: [eighty km]
  evidence:
    - {document: docs/a.md, quote: 80 km on flat ground}
  split: dev
  tags: {since: 2024-05-01, hard: true}

- id: u1
  question: Price?
  answer: null
  split: test
"""
CSV = """\
id,question,answer,answers,document,quote,grade,stance,split,tags.topic
q1,How far?,80 km,eighty km | 80 kilometres,docs/a.md,"80 km, on flat
ground",2,,dev,range
q1,,,,docs/b.md,60 km,,conflicts,,

u1,Price?,,,,,,,test,
"""


def test_yaml_holds_the_same_questions(tmp_path: Path) -> None:
    path = tmp_path / "q.yaml"
    path.write_text(YAML, encoding="utf-8")
    first, second = load_questions(path)
    assert first.references == ("80 km", "eighty km")
    assert first.tags == {"since": "2024-05-01", "hard": True}  # a date stays the characters it is
    assert (second.answer, second.split) == (None, "test")


def test_rows_of_a_table_with_one_id_are_one_question_with_several_pieces_of_evidence(tmp_path: Path) -> None:
    path = tmp_path / "q.csv"
    path.write_text(CSV, encoding="utf-8-sig")
    first, second = load_questions(path)
    assert first.references == ("80 km", "eighty km", "80 kilometres")
    assert [(one.document, one.quote, one.grade, one.stance) for one in first.evidence] == [
        ("docs/a.md", "80 km, on flat\nground", 2, "supports"),
        ("docs/b.md", "60 km", 1, "conflicts"),
    ]
    assert first.tags == {"topic": "range"}
    assert (second.answer, second.evidence) == (None, ())


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("q.yaml", "- id: q1\n  question: [", "q.yaml: not valid YAML at line"),
        ("q.yaml", "id: q1", "q.yaml: expected a list of questions"),
        ("q.yaml", YAML.replace('"80 km"', "80"), "q.yaml:2: answer: .*valid string; in YAML put it in quotes"),
        ("q.yaml", YAML.replace("split: test", "split: tset"), "q.yaml:11: split: must be one of train, dev, test"),
        ("q.csv", "id,qestion\n", "q.csv:1: unknown column 'qestion'; allowed: id, question"),
        ("q.csv", "id,id\n", "q.csv:1: column 'id' is there twice"),
        ("q.csv", "", "q.csv: the first line must name the columns"),
        ("q.csv", "id,question,answer,split\nq1,a,b\n", "q.csv:2: 3 columns, the head has 4"),
        ("q.csv", "id,question,split\nq1,a,dev\n", "q.csv:2: answer: this field is required"),
        ("q.csv", CSV.replace("q1,,,,docs/b.md", "q1,Other?,,,docs/b.md"), "q.csv:4: question: differs from line 2"),
        ("q.csv", CSV + "u1,,,,,,,,,\n", "q.csv:7: id: 'u1' is already used in line 6"),
        ("q.csv", 'id,question\nq1,"open', "q.csv:2: not a valid table"),
    ],
)
def test_mistakes_are_told_with_file_and_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        load_questions(path)


def test_ids_are_unique_over_all_files(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(jsonl(ASKED), encoding="utf-8")
    (tmp_path / "b.yaml").write_text(YAML, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"b.yaml:2: id: 'q1' is already used in .*a.jsonl:1"):
        load_questions([tmp_path / "a.jsonl", tmp_path / "b.yaml"])


# --- splits by group ------------------------------------------------------------------------------------


def test_shares_are_met_and_a_key_stays_where_it_is() -> None:
    shares = {"train": 0.2, "dev": 0.5, "test": 0.3}
    splits = {f"key {number}": split_of(f"key {number}", shares) for number in range(4000)}
    found = list(splits.values())
    assert {name: round(found.count(name) / 4000, 2) for name in shares} == pytest.approx(shares, abs=0.03)
    more_train = {"train": 0.4, "dev": 0.3, "test": 0.3}
    assert all(split_of(key, more_train) == "train" for key, split in splits.items() if split == "train")
    assert split_of("key", {"train": 0.0, "dev": 0.0, "test": 7.0}) == "test"


def test_lines_without_a_split_get_one_and_groups_stay_together(tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = []
    for number in range(60):
        one = line(f"q{number}", f"Question {number}?", "80 km", quote="80 km", document=f"docs/{number % 20}.md")
        del one["split"]
        lines.append({**one, "group": f"g{number % 10}"} if number < 30 else one)
    path = tmp_path / "q.jsonl"
    path.write_text(jsonl(*lines), encoding="utf-8")
    settings = header(split_by="group", split_shares={"dev": 0.6, "test": 0.4})
    first = {item.id: item.split for item in load_questions(path, settings)}
    assert set(first.values()) == {"dev", "test"}
    together: dict[str, set[str]] = {}
    for item in load_questions(path, settings):
        together.setdefault(item.group or item.evidence[0].document, set()).add(item.split)
    assert len(together) == 10 + 20
    assert all(len(splits) == 1 for splits in together.values())
    path.write_text(jsonl(*lines[::3]), encoding="utf-8")  # questions that go move no other
    assert all(first[item.id] == item.split for item in load_questions(path, settings))


def test_group_with_a_stated_split_takes_its_other_lines_along(tmp_path: Path) -> None:
    free = {key: value for key, value in ASKED.items() if key != "split"}
    lines = [{**free, "id": f"q{number}", "group": f"g{number}"} for number in range(12)]
    stated = [{**ASKED, "id": f"s{number}", "group": f"g{number}", "split": "train"} for number in range(12)]
    path = tmp_path / "q.jsonl"
    path.write_text(jsonl(*lines, *stated), encoding="utf-8")
    assert {item.split for item in load_questions(path, header(split_by="group"))} == {"train"}


def test_without_split_by_every_line_states_its_split(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text(jsonl({key: value for key, value in ASKED.items() if key != "split"}), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"split: this field is required .*split_by: group"):
        load_questions(path, header())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"questions": []}, "at least one file"),
        ({"questions": ["a.jsonl", "a.jsonl"]}, "named twice"),
        ({"split_by": "group", "split_shares": {"dev": 0}}, "at least one share"),
        ({"split_shares": {"dev": 1}}, "only with split_by"),
        ({"split_by": "group", "split_shares": {"deev": 1}}, "split_shares"),
        ({"task": "rga"}, "task"),
    ],
)
def test_header_refuses_what_makes_no_sense(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        header(**settings)


def test_retrieval_asks_for_no_unanswerable_questions_unless_told() -> None:
    assert header().minimum_unanswerable_share == 0.1
    assert header(task="retrieval").minimum_unanswerable_share == 0
    assert header(task="retrieval", minimum_unanswerable_share=0.3).minimum_unanswerable_share == 0.3


def test_header_names_files_that_exist(make_data_dir: Any) -> None:
    files = {
        "evaluation/qa.yaml": {"name": "qa", "questions": ["a.jsonl", "b.csv"], "sources": ["docs"]},
        "evaluation/a.jsonl": jsonl(ASKED),
    }
    with pytest.raises(ConfigError, match=r"qa.yaml: questions: no file .*b.csv"):
        load_config(make_data_dir(**files))
    stray = make_data_dir(**files, **{"evaluation/b.csv": "id\n", "evaluation/stray.yaml": "# questions\n\n- id: q1\n"})
    with pytest.raises(ConfigError, match=r"stray.yaml: a list of questions that no dataset names"):
        load_config(stray)
    (stray / "evaluation" / "stray.yaml").unlink()
    data = make_data_dir(**files, **{"evaluation/b.csv": "id,question,answer,split\n"})
    config = load_config(data)
    assert [path.name for path in config.question_files("qa")] == ["a.jsonl", "b.csv"]
    (data / "evaluation" / "qa.promoted.jsonl").write_text("", encoding="utf-8")
    assert [path.name for path in config.question_files("qa")] == ["a.jsonl", "b.csv", "qa.promoted.jsonl"]
