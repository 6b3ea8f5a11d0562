"""Exporters: a stored version of a dataset as files that other tools read, and that can be imported again.

Belongs here: our lines, Parquet, Hugging Face ``datasets`` and BEIR. Does not belong here: the file every version has
in the artifacts folder (dataset.py), and foreign formats coming in (importers/).

An export is the caller's own: erasing a document cleans the artifacts folder, not exports. So none is written there.
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from assets.evaluation.dataset import EvaluationDataset, Question, read_dataset
from assets.evaluation.holdout import record_use
from assets.evaluation.questions import EvidenceSpec
from resources.errors import PermanentError
from resources.fingerprint import canonical_json
from resources.platform import Platform
from resources.postgres import Connection
from resources.sharding import source_of

Format = Literal["jsonl", "parquet", "hf", "beir"]


@dataclass(frozen=True)
class Export:
    """What was written.

    Attributes:
        files: the files, or the one folder of ``hf``.
        left_out: questions that could not be written, because no document of their evidence is known by a name any more.
        held_back: questions of the test split among them; writing them counts as a use.
    """

    dataset: str
    version: int
    files: tuple[Path, ...]
    questions: int
    documents: int = 0
    left_out: int = 0
    held_back: int = 0


def export_dataset(
    platform: Platform,
    dataset: str,
    folder: Path,
    format: Format,
    *,
    version: int | None = None,
    splits: Sequence[str] = (),
    include_stale: bool = False,
    run_id: str,
) -> Export:
    """Write a version of a dataset, by default the newest, into a folder.

    ``jsonl``: ``DATASET.jsonl``, lines of ours, with evidence as it was declared where it still stands so, otherwise as
    the quote or range that was found; importing them against the same documents gives the same content hash.
    ``parquet``: ``DATASET.parquet``, one row per question. ``hf``: a folder ``DATASET`` for
    ``datasets.load_from_disk``, a table per split. ``beir``: ``corpus.jsonl`` (every document the dataset's sources had at
    that version), ``queries.jsonl`` and ``qrels/SPLIT.tsv`` with the best grade of each document; evidence that
    conflicts with the answer is not relevant there, and unanswerable questions have no row.

    Args:
        splits: only these.
        include_stale: also questions whose evidence vanished, where it stood last (not for ``beir``).

    Raises:
        PermanentError: there is no such version; nothing would be written; the folder belongs to the platform.
    """
    target = folder.resolve()
    if target.is_relative_to(platform.artifacts.resolve()):
        raise PermanentError(f"{folder} is kept by the platform; choose a folder outside {platform.artifacts}")
    with platform.database.connect() as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")  # one state of questions and documents
        read = read_dataset(connection, dataset, version)
        if read.task is not None and format == "beir":
            raise PermanentError(
                f"{dataset} is for {read.task.kind} and has no documents; BEIR is for datasets that search some"
            )
        chosen = [
            item
            for item in read.questions
            if (item.status == "active" or (include_stale and format != "beir"))
            and (not splits or item.split in splits)
        ]
        if not chosen:
            raise PermanentError(f"version {read.version} of {dataset} has no such questions; nothing was written")
        rows = list(_rows(connection, read, chosen))
        target.mkdir(parents=True, exist_ok=True)
        documents = 0
        match format:
            case "jsonl":
                files = (_write_lines(target / f"{dataset}.jsonl", (_line(row) for row in rows)),)
            case "parquet":
                files = (_write_parquet(target / f"{dataset}.parquet", read, rows),)
            case "hf":
                files = (_write_hugging_face(target / dataset, rows),)
            case "beir":
                files, documents = _write_beir(connection, target, read, rows)
    held_back = [item for item in chosen if item.split == "test" and item.status == "active"]
    if held_back:
        with platform.database.connect() as connection:
            record_use(
                connection, dataset, held_back,
                experiment="", champion="", challenger="", purpose="export", run_id=run_id,
            )  # fmt: skip
    return Export(dataset, read.version, files, len(rows), documents, len(chosen) - len(rows), len(held_back))


def _rows(connection: Connection, read: EvaluationDataset, chosen: Sequence[Question]) -> Iterator[dict[str, Any]]:
    """Questions with their evidence by the names documents had at that version."""
    names = _names(connection, read)
    evidence: dict[str, list[dict[str, Any]]] = {}
    nameless: set[str] = set()
    for question_id, declared, document_id, start, end, quote, kind, grade, stance, occurrences in connection.execute(
        """SELECT question_id, declared, document_id, start_char, end_char, quote, kind, grade, stance,
                  CASE WHEN quote = '' THEN 0 ELSE (characters - length(replace(text, quote, ''))) / length(quote) END
           FROM evaluation_evidence LEFT JOIN document_text USING (text_hash)
           WHERE dataset = %s AND version = %s ORDER BY question_id, ordinal""",
        (read.dataset, read.version),
    ):
        if document_id not in names:
            nameless.add(question_id)
            continue
        evidence.setdefault(question_id, []).append(
            {
                "document": names[document_id],
                "document_id": document_id,
                "start": start,
                "end": end,
                "quote": quote,
                "kind": kind,
                "grade": grade,
                "stance": stance,
                "written": _as_written(names[document_id], declared, start, end, quote, kind, occurrences == 1),
            }
        )
    for item in chosen:
        if item.question_id not in nameless:
            yield {
                "dataset": read.dataset,
                "version": read.version,
                "question_id": item.question_id,
                "question": item.question,
                "answer": item.answer,
                "answers": list(item.references),
                "answerable": item.answerable,
                "split": item.split,
                "status": item.status,
                "reason": item.reason,
                "tags": item.tags,
                "group": item.group,
                "provenance": dict(item.provenance),
                "fingerprint": item.fingerprint,
                "evidence": evidence.get(item.question_id, []),
            }


def _names(connection: Connection, read: EvaluationDataset) -> dict[int, str]:
    """``source/path`` of the evidence documents at the revisions the version was resolved against, else their last."""
    rows = connection.execute(
        """SELECT DISTINCT ON (document_id) document_id, source, path
           FROM document_version v LEFT JOIN jsonb_each_text(%s::jsonb) at ON at.key = v.source
           WHERE document_id IN (SELECT document_id FROM evaluation_evidence WHERE dataset = %s AND version = %s)
           ORDER BY document_id, coalesce(rev_from <= at.value::integer AND rev_to > at.value::integer, false) DESC,
                    rev_from DESC, version_id DESC""",
        (canonical_json(read.corpus), read.dataset, read.version),
    ).fetchall()
    return {document_id: f"{source_of(source)}/{path}" for document_id, source, path in rows}


def _as_written(
    document: str, declared: str, start: int, end: int, quote: str, kind: str, unique: bool
) -> dict[str, Any]:
    """The evidence as the question file had it, if that still says where it is; else a form that does."""
    if kind == "document":
        return {"document": document, "kind": "document"}
    by_quote, by_range = {"document": document, "quote": quote}, {"document": document, "start": start, "end": end}
    if EvidenceSpec.model_validate(by_range).fingerprint() == declared:
        return by_range
    if unique or (quote.strip() and EvidenceSpec.model_validate(by_quote).fingerprint() == declared):
        return by_quote
    return by_range


def _line(row: dict[str, Any]) -> dict[str, Any]:
    """A line of a question file; what is at its default is left out."""
    line: dict[str, Any] = {"id": row["question_id"], "question": row["question"], "answer": row["answer"]}
    if len(row["answers"]) > 1:
        line["answers"] = row["answers"][1:]
    if row["answerable"] != (row["answer"] is not None):
        line["answerable"] = row["answerable"]
    line["evidence"] = [
        {
            **piece["written"],
            **({"grade": piece["grade"]} if piece["grade"] != 1 else {}),
            **({"stance": piece["stance"]} if piece["stance"] != "supports" else {}),
        }
        for piece in row["evidence"]
    ]
    line["split"] = row["split"]
    return line | {name: row[name] for name in ("tags", "group", "provenance") if row[name]}


def _write_lines(path: Path, lines: Iterator[dict[str, Any]]) -> Path:
    """JSON lines; the file is there when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            for line in lines:
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _schema() -> Any:
    import pyarrow as pa

    evidence = pa.struct(
        [
            ("document", pa.string()), ("document_id", pa.int64()), ("start", pa.int32()), ("end", pa.int32()),
            ("quote", pa.string()), ("kind", pa.string()), ("grade", pa.int32()), ("stance", pa.string()),
        ]
    )  # fmt: skip
    texts = (
        "question_id",
        "question",
        "answer",
        "split",
        "status",
        "reason",
        "tags",
        "group",
        "provenance",
        "fingerprint",
    )
    return pa.schema(
        [
            ("dataset", pa.string()),
            ("version", pa.int32()),
            *((name, pa.string()) for name in texts),
            ("answers", pa.list_(pa.string())),
            ("answerable", pa.bool_()),
            ("evidence", pa.list_(evidence)),
        ]
    )


def _record(row: dict[str, Any]) -> dict[str, Any]:
    evidence = [{name: piece[name] for name in piece if name != "written"} for piece in row["evidence"]]
    texts = {name: canonical_json(row[name]) for name in ("tags", "provenance")}
    return {**row, **texts, "evidence": evidence}


def _write_parquet(path: Path, read: EvaluationDataset, rows: Sequence[dict[str, Any]]) -> Path:
    from resources.parquet_io import write_table

    about = {"dataset": read.dataset, "version": read.version, "content_hash": read.content_hash, "corpus": read.corpus}
    write_table(path, map(_record, rows), _schema(), about)
    return path


def _write_hugging_face(folder: Path, rows: Sequence[dict[str, Any]]) -> Path:
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        os.environ.setdefault(name, "1")  # read when the library is imported; nothing here needs a network
    import pyarrow as pa
    from datasets import Dataset, DatasetDict, disable_progress_bars
    from datasets.table import InMemoryTable

    disable_progress_bars()
    schema = _schema()
    tables = {
        split: pa.Table.from_pylist([_record(row) for row in rows if row["split"] == split], schema=schema)
        for split in ("train", "dev", "test")
    }
    whole = DatasetDict({name: Dataset(InMemoryTable(table)) for name, table in tables.items() if table.num_rows})
    whole.save_to_disk(str(folder))
    return folder


def _write_beir(
    connection: Connection, folder: Path, read: EvaluationDataset, rows: Sequence[dict[str, Any]]
) -> tuple[tuple[Path, ...], int]:
    judged = [row for row in rows if row["answerable"]]
    count = 0

    def corpus() -> Iterator[dict[str, Any]]:
        nonlocal count
        with connection.cursor(name="beir_corpus") as cursor:
            cursor.itersize = 200
            cursor.execute(
                """SELECT v.source, v.path, v.title, t.text
                   FROM jsonb_each_text(%s::jsonb) at JOIN document_version v ON v.source = at.key
                        AND v.rev_from <= at.value::integer AND v.rev_to > at.value::integer
                   JOIN document_text t USING (text_hash) ORDER BY v.source, v.path COLLATE "C" """,
                (canonical_json(read.corpus),),
            )
            for source, path, title, text in cursor:
                count += 1
                yield {"_id": f"{source_of(source)}/{path}", "title": title, "text": text}

    files = [_write_lines(folder / "corpus.jsonl", corpus())]
    queries = ({"_id": row["question_id"], "text": row["question"]} for row in judged)
    files.append(_write_lines(folder / "queries.jsonl", queries))
    (folder / "qrels").mkdir(exist_ok=True)
    for split in ("train", "dev", "test"):
        path = folder / "qrels" / f"{split}.tsv"
        lines = [
            f"{row['question_id']}\t{document}\t{grade}\n"
            for row in judged
            if row["split"] == split
            for document, grade in _grades(row["evidence"]).items()
        ]
        path.unlink(missing_ok=True)
        if lines:
            path.write_text("query-id\tcorpus-id\tscore\n" + "".join(lines), encoding="utf-8", newline="\n")
            files.append(path)
    return tuple(files), count


def _grades(evidence: Sequence[dict[str, Any]]) -> dict[str, int]:
    """The best grade of each document that supports the answer."""
    grades: dict[str, int] = {}
    for piece in evidence:
        if piece["stance"] == "supports":
            grades[piece["document"]] = max(grades.get(piece["document"], 0), piece["grade"])
    return grades


FORMATS: tuple[str, ...] = get_args(Format)
