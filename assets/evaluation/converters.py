"""Converters: public question-answering data sets as a folder of documents and a question file of ours.

Belongs here: reading foreign formats. Does not belong here: downloading them.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from assets.corpus.text import normalise
from assets.evaluation.anchoring import find_exact
from resources.errors import ConfigError


def convert_squad2(source: Path, target: Path, *, name: str = "documents") -> dict[str, int]:
    """Convert SQuAD 2.0 to ``target/documents/ARTICLE.md`` and ``target/questions.jsonl``.

    Evidence is the exact character range of the first answer; the unanswerable half has none. Questions about one
    paragraph share a split, because the unanswerable ones are rewordings of the others. There is no train split.

    Args:
        source: folder with ``documents/ARTICLE.md``, ``paragraphs.jsonl`` (paragraph_id, document, char_start,
            char_end) and ``questions.jsonl`` (id, question, answers with start in the paragraph, is_impossible).
        name: name of the source the documents will be loaded as.

    Returns:
        How many documents, questions and unanswerable questions were written.

    Raises:
        ConfigError: a file is missing, or an answer does not stand where the data set says.
    """
    for needed in ("documents", "paragraphs.jsonl", "questions.jsonl"):
        if not (source / needed).exists():
            raise ConfigError(f"{source / needed}: missing; this is not a SQuAD 2.0 folder")
    documents = target / "documents"
    documents.mkdir(parents=True, exist_ok=True)
    raw: dict[str, str] = {}
    texts: dict[str, str] = {}
    for path in sorted((source / "documents").glob("*.md")):
        key = f"documents/{path.name}"
        raw[key] = path.read_bytes().decode("utf-8")
        texts[key] = normalise(raw[key])  # positions must hold in the text as the corpus will have it
        (documents / path.name).write_text(texts[key] + "\n", encoding="utf-8", newline="\n")
    places: dict[str, tuple[str, int]] = {}
    for row in _rows(source / "paragraphs.jsonl"):
        paragraph = raw[row["document"]][row["char_start"] : row["char_end"]]
        anchor = find_exact(texts[row["document"]], normalise(paragraph), row["char_start"])
        if anchor is None:
            raise ConfigError(f"{source}: paragraph {row['paragraph_id']} is not in {row['document']}")
        places[row["paragraph_id"]] = (row["document"], anchor.start)
    count = unanswerable = 0
    with (target / "questions.jsonl").open("w", encoding="utf-8", newline="\n") as file:
        for row in _rows(source / "questions.jsonl"):
            line = _squad_line(row, places[row["paragraph_id"]], texts, name)
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            count += 1
            unanswerable += line["answer"] is None
    return {"documents": len(texts), "questions": count, "unanswerable": unanswerable}


def _squad_line(row: dict[str, Any], place: tuple[str, int], texts: dict[str, str], name: str) -> dict[str, Any]:
    document, paragraph = place
    answer, evidence = None, []
    if not row["is_impossible"]:
        first = row["answers"][0]
        answer = normalise(first["text"])
        anchor = find_exact(texts[document], answer, paragraph + first["start"])
        if anchor is None:
            raise ConfigError(f"question {row['id']}: its answer is not in {document}")
        path = document.removeprefix("documents/")
        evidence = [{"document": f"{name}/{path}", "start": anchor.start, "end": anchor.end}]
    return {
        "id": row["id"],
        "question": " ".join(row["question"].split()),
        "answer": answer,
        "evidence": evidence,
        "split": "dev" if hashlib.sha256(row["paragraph_id"].encode()).digest()[0] % 2 else "test",
        "tags": {"type": "squad2", "article": row["article"]},
    }


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    lines: Iterable[str] = path.read_text(encoding="utf-8").split("\n")
    return (json.loads(line) for line in lines if line.strip())
