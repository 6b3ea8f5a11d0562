"""BEIR: retrieval sets of a corpus, queries, and judgements of which documents are relevant, in grades.

Belongs here: reading them. Does not belong here: writing (writing.py).

Evidence is whole documents: nobody said where in them. There are no answers, so the header's task is retrieval.
"""

import csv
from pathlib import Path
from typing import Any

from assets.evaluation.importers.writing import ImportReport, Target, field_of, file_name, halves, json_lines
from resources.errors import ConfigError

#: Names of splits in the wild.
_SPLITS = {"train": "train", "dev": "dev", "validation": "dev", "valid": "dev", "test": "test"}


def convert_beir(source: Path, target: Path, *, name: str = "documents") -> ImportReport:
    """Convert a BEIR folder to ``target/documents`` and ``target/questions.jsonl``.

    Judgements of 0 or less mean "not relevant" and are not evidence. ``qrels/train.tsv``, ``dev.tsv`` and ``test.tsv`` give
    the splits; without a dev file, test queries are halved into dev and test by their first relevant document, since
    experiments compare on dev.

    Args:
        source: folder with ``corpus.jsonl`` (_id, title, text), ``queries.jsonl`` (_id, text) and ``qrels/SPLIT.tsv`` or
            ``qrels.tsv`` (query-id, corpus-id, score; tab separated, with or without a head).
        name: name of the source the documents will be loaded as.

    Raises:
        ConfigError: a file is missing or malformed, naming file, line and field.
    """
    files = sorted((source / "qrels").glob("*.tsv")) or [source / "qrels.tsv"]
    splits = {_split(file): file for file in files}
    if len(splits) < len(files):
        raise ConfigError(f"{source / 'qrels'}: two files are of one split: {', '.join(file.name for file in files)}")
    judged: dict[str, tuple[str, dict[str, int]]] = {}
    for split, file in splits.items():
        for query, document, grade in _judgements(file):
            known, grades = judged.setdefault(query, (split, {}))
            if known != split:
                raise ConfigError(f"{file}: query {query} is in two splits: {known} and {split}")
            grades[document] = max(grade, grades.get(document, grade))
    with Target(target, name, "beir", source) as out:
        paths = _corpus(source / "corpus.jsonl", out)
        halve = "dev" not in splits
        texts: dict[str, str] = {}
        for number, row in json_lines(source / "queries.jsonl"):
            where = f"{source / 'queries.jsonl'}:{number}"
            texts[str(field_of(row, "_id", where))] = " ".join(str(field_of(row, "text", where)).split())
        for query, (split, grades) in judged.items():
            if not texts.get(query):
                out.skip(query, "the query is missing or empty")
                continue
            evidence: list[dict[str, Any]] = []
            for document, grade in sorted(grades.items()):
                if grade > 0 and document in paths:
                    place: dict[str, Any] = {"document": out.place(paths[document]), "kind": "document"}
                    evidence.append(place if grade == 1 else {**place, "grade": grade})
                elif grade > 0:
                    out.skip(query, f"document {document} is not in the corpus")
            if not evidence:
                out.skip(query, "no document is relevant")
                continue
            if split == "test" and halve:
                split = halves(evidence[0]["document"])
            out.question(
                {
                    "id": query if not any(map(str.isspace, query)) else file_name(query, ""),
                    "question": texts[query],
                    "answer": None,
                    "answerable": True,
                    "evidence": evidence,
                    "split": split,
                    "tags": {"type": "beir"},
                }
            )
        if not out.report.questions:
            raise ConfigError(f"{source}: no query has a relevant document in the corpus")
        out.header(task="retrieval")
        return out.report


def _split(file: Path) -> str:
    stem = file.stem.lower()
    if stem == "qrels":
        return "test"
    if stem not in _SPLITS:
        raise ConfigError(f"{file}: the name of the file must be a split: {', '.join(_SPLITS)}")
    return _SPLITS[stem]


def _judgements(file: Path) -> list[tuple[str, str, int]]:
    found: list[tuple[str, str, int]] = []
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            for number, cells in enumerate(csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE), start=1):
                if not cells or (number == 1 and cells[-1].strip().lower() == "score"):
                    continue
                cells = [cells[0], *cells[2:]] if len(cells) == 4 else cells  # TREC has an unused second column
                try:
                    query, document, score = cells
                    found.append((query, document, int(score)))
                except ValueError as error:
                    raise ConfigError(
                        f"{file}:{number}: expected query-id, corpus-id and a whole number, separated by tabs"
                    ) from error
    except FileNotFoundError as error:
        raise ConfigError(
            f"{file}: missing; a BEIR folder has corpus.jsonl, queries.jsonl and qrels/SPLIT.tsv"
        ) from error
    return found


def _corpus(file: Path, out: Target) -> dict[str, str]:
    """Write every document; its file by its id."""
    paths: dict[str, str] = {}
    for number, row in json_lines(file):
        where = f"{file}:{number}"
        identity = str(field_of(row, "_id", where))
        title, text = " ".join(str(row.get("title") or "").split()), str(field_of(row, "text", where))
        if identity in paths:
            out.skip(identity, "the document is there twice")
            continue
        if not text.strip() and not title:
            out.skip(identity, "the document is empty")
            continue
        paths[identity] = file_name(identity, ".md" if title else ".txt")
        out.document(paths[identity], f"# {title}\n\n{text}" if title else text)
    return paths
