"""Inputs: a CSV file of texts with labels, summaries, translations or fields, for a task without documents.

Belongs here: naming columns, collecting labels or fields for the header, giving ids and splits. Does not belong here: questions
about documents (tabular.py), and the shape of our own CSV files (question_files.py), which need no import.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from assets.evaluation.importers.writing import ImportReport, Target
from assets.evaluation.question_files import RawQuestion, read_csv
from assets.evaluation.questions import QuestionSpec, split_of
from resources.dataset_config import DatasetConfig
from resources.errors import ConfigError
from resources.task_config import TaskKind, TaskSpec

#: Shares of the splits of lines that name none: train for worked examples, dev to compare on, test held back.
SHARES: dict[str, float] = {"train": 0.3, "dev": 0.4, "test": 0.3}


def convert_inputs(
    source: Path,
    target: Path,
    *,
    name: str,
    task: TaskKind,
    columns: Mapping[str, str] | None = None,
    languages: Mapping[str, str] | None = None,
) -> ImportReport:
    """Convert a table with ``input`` and ``answer`` to ``target/questions.jsonl`` with a header beside it.

    The labels of the header are the answers, in the order in which they first appear; its fields are the keys of the answers,
    which are JSON objects. A row without a split gets one by the hash of its input, and one without an id a name made of it; an
    input that is there twice is skipped and reported.

    Args:
        columns: ``{name in the file: name of ours}``; ``input`` is the input, as ``question`` is. Columns that are named nowhere
            are left out.
        languages: ``from`` and ``to`` of a translation.

    Raises:
        ConfigError: the table cannot be read, or a row does not fit the task: naming line and field, all at once.
    """
    try:
        text = source.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{source}: cannot be read as UTF-8 text") from error
    mistakes: list[str] = []
    raws = read_csv(source, text, mistakes, columns={"input": "question", **(columns or {})})
    rows = [_completed(raw, mistakes) for raw in raws]
    header = _header(name, task, rows, languages, source)
    with Target(target, name, "csv", source) as out:
        seen: dict[str, str] = {}
        for raw, fields in zip(raws, rows, strict=True):
            try:
                spec = QuestionSpec.model_validate(fields, context={"task": header})
            except ValidationError as error:
                first = error.errors()[0]
                where = ".".join(map(str, first["loc"]))
                message = first["msg"].removeprefix("Value error, ")
                mistakes.append(f"{raw.where}: {f'{where}: ' if where else ''}{message}")
                continue
            if (before := seen.setdefault(spec.question, spec.id)) != spec.id:
                out.skip(spec.id, f"its input is that of {before}")
                continue
            out.question({**spec.model_dump(mode="json", exclude_unset=True), "evidence": []})
        out.report.unanswerable = 0
        if mistakes:
            raise ConfigError("\n".join(mistakes))
        if not out.report.questions:
            raise ConfigError(f"{source}: no row could be taken over; are the columns named right?")
        out.header(
            task=task,
            sources=[],
            **({"labels": list(header.labels)} if header.labels else {}),
            **({"fields": list(header.fields)} if header.fields else {}),
            **({"languages": dict(header.languages)} if header.languages else {}),
        )
        (target / "documents").rmdir()  # there are none
        return out.report


def _completed(raw: RawQuestion, mistakes: list[str]) -> dict[str, Any]:
    """The row with what a table need not say."""
    fields: dict[str, Any] = dict(raw.fields)
    if "question" not in fields or "answer" not in fields or fields["answer"] is None:
        mistakes.append(
            f"{raw.where}: {'answer' if 'question' in fields else 'input'}: this cell is empty, or there is no such column"
        )
        fields = {"question": "?", "answer": "?", **{key: value for key, value in fields.items() if value is not None}}
    digest = hashlib.sha256(str(fields["question"]).encode()).hexdigest()
    fields.setdefault("id", f"row-{digest[:12]}")
    fields.setdefault("split", split_of(f"question {fields['question']}", SHARES))
    fields.pop("evidence", None)
    return fields


def _header(
    name: str, task: TaskKind, rows: list[dict[str, Any]], languages: Mapping[str, str] | None, source: Path
) -> TaskSpec:
    """What the table says of the task.

    Raises:
        ConfigError: it does not say enough.
    """
    answers = [str(answer) for row in rows for answer in (row["answer"], *row.get("answers", ()))]
    found: dict[str, Any] = {}
    if task == "classification":
        found["labels"] = list(dict.fromkeys(answers))
    if task == "extraction":
        found["fields"] = list(dict.fromkeys(key for answer in answers for key in _keys(answer)))
    if task == "translation":
        found["languages"] = dict(languages or {})
    try:
        header = DatasetConfig.model_validate(
            {"name": name, "questions": "questions.jsonl", "sources": [], "task": task, **found}
        ).task_spec
    except ValidationError as error:
        message = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise ConfigError(f"{source}: {message}") from None
    assert header is not None
    return header


def _keys(answer: str) -> list[str]:
    try:
        value = json.loads(answer)
    except ValueError:
        return []
    return list(value) if isinstance(value, dict) else []
