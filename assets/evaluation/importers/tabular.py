"""Tables: a CSV file of questions with columns of any name.

Belongs here: naming columns, giving ids and splits, and checking the quotes against the documents. Does not belong here:
the shape of our own CSV files (question_files.py), which need no import.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from assets.corpus.text import normalise
from assets.evaluation.anchoring import find_exact, find_normalised
from assets.evaluation.importers.writing import ImportReport, Target, halves
from assets.evaluation.question_files import RawQuestion, read_csv
from assets.evaluation.questions import QuestionSpec
from resources.errors import ConfigError


def convert_csv(
    source: Path,
    target: Path,
    *,
    name: str = "documents",
    columns: Mapping[str, str] | None = None,
    documents: Path | None = None,
) -> ImportReport:
    """Convert a table of questions to ``target/questions.jsonl``, with its text files to ``target/documents``.

    A question without an id gets one of its words; without a split it goes to dev or test by its document. Where the
    documents are given, evidence that is a quote must stand in them, and is written as they have it; a question whose
    quote does not stand there is skipped and reported.

    Args:
        columns: ``{name in the file: name of ours}``; columns that are named nowhere are left out.
        documents: folder of text files (``.md``, ``.txt``) that ``document`` names by path, with or without ``name/``.

    Raises:
        ConfigError: the table cannot be read, or a question is malformed: naming line and field, all at once.
    """
    try:
        text = source.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{source}: cannot be read as UTF-8 text") from error
    mistakes: list[str] = []
    raws = read_csv(source, text, mistakes, columns=dict(columns or {}))
    with Target(target, name, "csv", source) as out:
        texts: dict[str, str] = {}
        answered = True
        for file in sorted(documents.rglob("*")) if documents is not None else ():
            if file.suffix in (".md", ".txt") and file.is_file():
                path = file.relative_to(documents).as_posix() if documents else file.name
                texts[path] = out.document(path, file.read_text(encoding="utf-8-sig"))
        for raw in raws:
            fields = _completed(raw, name)
            try:
                spec = QuestionSpec.model_validate(fields)
            except ValidationError as error:
                first = error.errors()[0]
                field = ".".join(map(str, first["loc"])) or "(line)"
                mistakes.append(f"{raw.where}: {field}: {first['msg'].removeprefix('Value error, ')}")
                continue
            if documents is None or _anchored(fields, texts, name, spec.id, out):
                out.question(_plain(fields, spec))
                answered &= spec.answer is not None or not spec.is_answerable
        if mistakes:
            raise ConfigError("\n".join(mistakes))
        if not out.report.questions:
            raise ConfigError(f"{source}: no question could be taken over; are the columns named right?")
        out.header(
            task="rag" if answered else "retrieval",
            **({} if out.report.unanswerable else {"minimum_unanswerable_share": 0.0}),
        )
        return out.report


def _completed(raw: RawQuestion, name: str) -> dict[str, Any]:
    """The question with what the table need not say."""
    fields: dict[str, Any] = {"answer": None, **raw.fields}
    fields["question"] = " ".join(str(fields.get("question", "")).split())
    if "id" not in fields:
        fields["id"] = f"row-{hashlib.sha256(fields['question'].encode()).hexdigest()[:12]}"
    evidence = [
        {**one, "document": one["document"] if one["document"].startswith(f"{name}/") else f"{name}/{one['document']}"}
        if "document" in one
        else one
        for one in fields.get("evidence", [])
    ]
    fields["evidence"] = evidence
    if "split" not in fields:
        fields["split"] = halves(
            str(fields.get("group") or (evidence[0].get("document") if evidence else fields["id"]))
        )
    return fields


def _anchored(fields: dict[str, Any], texts: Mapping[str, str], name: str, identity: str, out: Target) -> bool:
    """Bring every quote to the words of its document; False when a document or quote is not there."""
    for one in fields["evidence"]:
        path = one["document"].removeprefix(f"{name}/")
        if path not in texts:
            out.skip(identity, f"there is no document {path}")
            return False
        if "quote" not in one:
            continue
        quote = normalise(one["quote"])
        anchor = find_exact(texts[path], quote) or find_normalised(texts[path], quote)
        if anchor is None:
            out.skip(identity, f"the quote is not in {path}")
            return False
        one["quote"] = texts[path][anchor.start : anchor.end]
    return True


def _plain(fields: Mapping[str, Any], spec: QuestionSpec) -> dict[str, Any]:
    """The line with numbers as numbers, and what the table said; quotes are those of the documents."""
    quotes = [one.get("quote") for one in fields["evidence"]]
    line = spec.model_dump(mode="json", exclude_unset=True)
    for one, quote in zip(line["evidence"], quotes, strict=True):
        if quote is not None:
            one["quote"] = quote
    return line
