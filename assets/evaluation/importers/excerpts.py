"""Excerpts: question sets that mark several exact ranges of long documents and hold no answers.

Belongs here: the layout of the chunking evaluation of Smith and Troynikov (2024). Does not belong here: writing
(writing.py).
"""

from pathlib import Path
from typing import Any

from assets.corpus.text import normalise
from assets.evaluation.anchoring import find_exact
from assets.evaluation.importers.writing import ImportReport, Target, field_of, halves, json_lines
from resources.errors import ConfigError


def convert_excerpts(source: Path, target: Path, *, name: str = "documents") -> ImportReport:
    """Convert excerpts to ``target/documents`` and ``target/questions.jsonl``; every excerpt is a piece of evidence.

    Args:
        source: folder with ``corpora/NAME.md`` and ``questions.jsonl`` (id, question, corpus_id, references with content,
            start_index and end_index in characters).
        name: name of the source the documents will be loaded as.

    Raises:
        ConfigError: a file or field is missing.
    """
    if not (source / "corpora").is_dir():
        raise ConfigError(f"{source / 'corpora'}: missing; this is no folder of excerpts")
    with Target(target, name, "excerpts", source) as out:
        raw = {path.stem: path.read_bytes().decode("utf-8") for path in sorted((source / "corpora").glob("*.md"))}
        texts = {stem: out.document(f"{stem}.md", text) for stem, text in raw.items()}
        for number, row in json_lines(source / "questions.jsonl"):
            where = f"{source / 'questions.jsonl'}:{number}"
            identity, corpus = str(field_of(row, "id", where)), str(field_of(row, "corpus_id", where))
            if corpus not in texts:
                out.skip(identity, f"there is no document {corpus}")
                continue
            evidence: list[dict[str, Any]] = []
            for one in field_of(row, "references", where):
                start, end = int(one["start_index"]), int(one["end_index"])
                excerpt = normalise(raw[corpus][start:end]).strip()
                anchor = find_exact(texts[corpus], excerpt, start) if excerpt else None
                if anchor is None:
                    out.skip(identity, "an excerpt is not in its document")
                else:
                    place = {"document": out.place(f"{corpus}.md"), "start": anchor.start, "end": anchor.end}
                    if place not in evidence:
                        evidence.append(place)
            if not evidence:
                out.skip(identity, "no excerpt is in its document")
                continue
            out.question(
                {
                    "id": identity,
                    "question": " ".join(str(field_of(row, "question", where)).split()),
                    "answer": None,
                    "answerable": True,
                    "evidence": evidence,
                    "split": halves(identity),
                    "tags": {"type": "excerpts", "corpus": corpus},
                }
            )
        if not out.report.questions:
            raise ConfigError(f"{source}: no question could be taken over")
        out.header(task="retrieval")
        return out.report
