"""Exports: what is written reads back the same, as our lines by content hash; held-back questions count as used."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from assets.evaluation.dataset import newest_version, resolve, write_dataset
from assets.evaluation.exporters import export_dataset
from assets.evaluation.holdout import list_uses
from assets.evaluation.importers.beir import convert_beir
from assets.evaluation.importers.squad import convert_squad
from assets.evaluation.questions import load_questions
from resources.config import load_config
from resources.errors import PermanentError
from resources.parquet_io import read_metadata, read_table
from resources.platform import Platform
from tests.evaluation_support import dataset_files, delete_document, line, put_document

Make = Callable[..., Platform]
TEXT = "# Range\n\nThe battery lasts 80 km. It is *blue*. It is *blue*.\n"
LINES = [
    line("q1", "How far?", "80 km", quote="The battery lasts 80 km.", answers=["eighty km"], group="range"),
    line("q2", "Colour?", "blue", evidence=[{"document": "docs/a.md", "start": 48, "end": 61}], tags={"topic": "look"}),
    line("q3", "Markup?", "blue", quote="It is blue."),
    line(
        "q4", "Which?", "both",
        evidence=[
            {"document": "docs/b.md", "quote": "Ninety km."},
            {"document": "docs/a.md", "quote": "80 km", "stance": "conflicts"},
            {"document": "docs/b.md", "kind": "document", "grade": 3},
        ],
        provenance={"kind": "written", "author": "ada"},
    ),
    line("u1", "Price?", split="test"),
]  # fmt: skip


def build(platform: Platform, dataset: str = "qa") -> str:
    with platform.database.lease(f"dataset:{dataset}", "run") as lease, platform.database.connect() as connection:
        resolved = resolve(connection, platform.config, dataset, newest_version(connection, dataset))
        write_dataset(connection, resolved, artifacts=platform.artifacts, run_id="run", lease=lease)
        return resolved.content_hash


def export(platform: Platform, folder: Path, format: str, **more: Any) -> Any:
    return export_dataset(platform, "qa", folder, format, run_id="cli", **more)  # type: ignore[arg-type]


@pytest.fixture
def platform(make_platform: Make) -> Platform:
    platform = make_platform(**dataset_files(*LINES))
    with platform.database.connect() as connection:
        put_document(connection, "a.md", TEXT)
        put_document(connection, "b.md", "Ninety km.\n")
    return platform


def test_lines_import_to_the_same_content_hash(platform: Platform, tmp_path: Path) -> None:
    before = build(platform)
    done = export(platform, tmp_path / "out", "jsonl")
    assert (done.questions, done.version, done.left_out, done.held_back) == (5, 1, 0, 1)
    exported = {row["id"]: row for row in map(json.loads, done.files[0].read_text(encoding="utf-8").splitlines())}
    assert exported["q1"] == LINES[0]
    assert exported["q2"] == LINES[1]
    assert exported["q3"]["evidence"] == [{"document": "docs/a.md", "start": 34, "end": 47}]  # quoted with other markup
    assert exported["q4"] == LINES[3]
    exported["q3"] = LINES[2]
    platform.config.questions_path("qa").write_text(
        "".join(json.dumps(exported[one["id"]], ensure_ascii=False) + "\n" for one in LINES), encoding="utf-8"
    )
    assert build(platform) == before


def test_version_before_an_edit_is_exported_with_the_names_of_then(platform: Platform, tmp_path: Path) -> None:
    build(platform)
    with platform.database.connect() as connection:
        row = connection.execute("SELECT document_id FROM document_version WHERE path = 'a.md'").fetchone()
        assert row is not None
        put_document(connection, "moved/a.md", "A line above.\n\n" + TEXT, document_id=row[0])
        put_document(connection, "b.md", "Ninety km.\n\nAnd more.\n")
    build(platform)

    def evidence(version: int) -> list[dict[str, Any]]:
        file = export(platform, tmp_path / str(version), "jsonl", version=version).files[0]
        return [
            row["evidence"][0]
            for row in map(json.loads, file.read_text(encoding="utf-8").splitlines())
            if row["evidence"]
        ]

    assert [one["document"] for one in evidence(1)] == ["docs/a.md", "docs/a.md", "docs/a.md", "docs/b.md"]
    after = evidence(2)
    assert [one["document"] for one in after][:2] == ["docs/moved/a.md", "docs/moved/a.md"]
    assert after[1] == {"document": "docs/moved/a.md", "start": 49, "end": 62}  # the nearer of two


def test_parquet_holds_everything_and_where_it_is_from(platform: Platform, tmp_path: Path) -> None:
    content_hash = build(platform)
    done = export(platform, tmp_path, "parquet", splits=["dev"])
    rows = {row["question_id"]: row for row in read_table(done.files[0]).to_pylist()}
    assert list(rows) == ["q1", "q2", "q3", "q4"]
    assert rows["q1"]["answers"] == ["80 km", "eighty km"]
    assert [(one["document"], one["kind"], one["grade"], one["stance"]) for one in rows["q4"]["evidence"]] == [
        ("docs/b.md", "span", 1, "supports"), ("docs/a.md", "span", 1, "conflicts"), ("docs/b.md", "document", 3, "supports"),
    ]  # fmt: skip
    assert read_metadata(done.files[0])["content_hash"] == content_hash
    assert done.held_back == 0
    with platform.database.connect() as connection:
        assert list_uses(connection, "qa") == []


def test_hugging_face_reads_a_table_per_split_without_a_network(platform: Platform, tmp_path: Path) -> None:
    build(platform)
    done = export(platform, tmp_path, "hf")
    from datasets import DatasetDict, load_from_disk

    read = load_from_disk(str(done.files[0]))
    assert isinstance(read, DatasetDict)
    assert {name: len(table) for name, table in read.items()} == {"dev": 4, "test": 1}
    assert read["dev"][0]["answers"] == ["80 km", "eighty km"]
    assert read["dev"][3]["evidence"][2]["grade"] == 3
    assert read["test"][0]["answerable"] is False
    again = export(platform, tmp_path, "hf", splits=["test"])
    assert set(load_from_disk(str(again.files[0]))) == {"test"}


def test_beir_has_the_best_grade_of_each_document_and_no_conflicts(platform: Platform, tmp_path: Path) -> None:
    build(platform)
    done = export(platform, tmp_path / "beir", "beir")
    assert (done.documents, [path.name for path in done.files]) == (2, ["corpus.jsonl", "queries.jsonl", "dev.tsv"])
    assert (tmp_path / "beir" / "qrels" / "dev.tsv").read_text(encoding="utf-8").splitlines() == [
        "query-id\tcorpus-id\tscore", "q1\tdocs/a.md\t1", "q2\tdocs/a.md\t1", "q3\tdocs/a.md\t1", "q4\tdocs/b.md\t3",
    ]  # fmt: skip
    report = convert_beir(tmp_path / "beir", tmp_path / "again")
    assert (report.documents, report.questions, report.evidence, report.skipped) == (2, 4, 4, [])


def test_stale_questions_are_left_out_unless_asked_for(platform: Platform, tmp_path: Path) -> None:
    build(platform)
    with platform.database.connect() as connection:
        row = connection.execute("SELECT document_id FROM document_version WHERE path = 'b.md'").fetchone()
        assert row is not None
        delete_document(connection, row[0])
    build(platform)
    assert export(platform, tmp_path / "a", "jsonl").questions == 4
    done = export(platform, tmp_path / "b", "jsonl", include_stale=True)
    assert (done.questions, done.left_out) == (5, 0)
    last = json.loads(done.files[0].read_text(encoding="utf-8").splitlines()[3])
    assert last["evidence"] == LINES[3]["evidence"]  # where it stood last


def test_held_back_questions_count_as_used_when_exported(platform: Platform, tmp_path: Path) -> None:
    build(platform)
    export(platform, tmp_path, "jsonl")
    with platform.database.connect() as connection:
        assert [(use.purpose, use.questions) for use in list_uses(connection, "qa")] == [("export", 1)]


def test_nothing_is_written_into_the_platforms_own_folder_or_without_questions(
    platform: Platform, tmp_path: Path
) -> None:
    build(platform)
    with pytest.raises(PermanentError, match="choose a folder outside"):
        export(platform, platform.artifacts / "mine", "jsonl")
    with pytest.raises(PermanentError, match="has no such questions"):
        export(platform, tmp_path / "none", "jsonl", splits=["train"])
    with pytest.raises(PermanentError, match="has no version 9"):
        export(platform, tmp_path / "none", "jsonl", version=9)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("kind", ["squad2", "scifact"])
def test_real_set_imported_exported_and_imported_again_is_the_same_version(
    kind: str, shared_data: Path, tmp_path: Path, make_data_dir: Callable[..., Path], database: Any
) -> None:
    convert = {"squad2": convert_squad, "scifact": convert_beir}[kind]
    report = convert(shared_data / kind, tmp_path / "in", name="docs")
    header = yaml.safe_load((tmp_path / "in" / "dataset.yaml").read_text(encoding="utf-8"))
    header |= {"name": "qa", "questions": "qa.jsonl"}
    questions = (tmp_path / "in" / "questions.jsonl").read_text(encoding="utf-8")
    data = make_data_dir(**{"evaluation/qa.yaml": header, "evaluation/qa.jsonl": questions})
    platform = Platform(config=load_config(data), database=database, artifacts=tmp_path / "artifacts")
    used = {one.path for item in load_questions(tmp_path / "in" / "questions.jsonl") for one in item.evidence}
    with platform.database.connect() as connection:
        for path in sorted(used):  # as the corpus has them: without the line end
            put_document(
                connection, path, (tmp_path / "in" / "documents" / path).read_text(encoding="utf-8").strip("\n")
            )
    before = build(platform)
    with platform.database.connect() as connection:
        counts = connection.execute("SELECT counts FROM evaluation_dataset").fetchone()
    assert counts is not None
    assert (counts[0]["active"], counts[0]["stale"]) == (report.questions, 0)
    assert (counts[0]["unanswerable"], counts[0]["evidence"]) == (report.unanswerable, {"exact": report.evidence})
    done = export(platform, tmp_path / "out", "jsonl")
    assert (done.questions, done.left_out) == (report.questions, 0)
    order = [json.loads(row)["id"] for row in questions.splitlines()]
    exported = {json.loads(row)["id"]: row for row in done.files[0].read_text(encoding="utf-8").splitlines()}
    platform.config.questions_path("qa").write_text("\n".join(exported[key] for key in order), encoding="utf-8")
    assert build(platform) == before
