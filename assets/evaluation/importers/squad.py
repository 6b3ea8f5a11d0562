"""SQuAD: question sets whose answers are ranges of paragraphs.

Belongs here: the official JSON of SQuAD 1 and 2 (and of sets that copy it, like XQuAD), and folders with
``questions.jsonl`` and ``paragraphs.jsonl``. Does not belong here: writing (writing.py).

Every accepted answer is kept; the evidence is the range of the first. Questions about one paragraph are a group and share
a split, because the unanswerable ones are rewordings of the others. There is no train split.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assets.corpus.text import normalise
from assets.evaluation.anchoring import find_exact
from assets.evaluation.importers.writing import ImportReport, Target, field_of, file_name, halves, json_lines
from resources.errors import ConfigError


@dataclass(frozen=True)
class _Paragraph:
    """Where a paragraph stands in its document, as the corpus will have it."""

    path: str
    text: str
    start: int
    end: int


def convert_squad(
    source: Path, target: Path, *, name: str = "documents", language: str | None = None, kind: str = "squad"
) -> ImportReport:
    """Convert a SQuAD file or folder to ``target/documents`` and ``target/questions.jsonl``.

    Args:
        source: the official JSON file (``data``, ``paragraphs``, ``qas``), or a folder with ``paragraphs.jsonl``
            (paragraph_id, article, and either document with char_start and char_end, or text) and ``questions.jsonl`` (id,
            question, paragraph_id, answers with start in the paragraph, is_impossible).
        name: name of the source the documents will be loaded as.
        language: only this one, of a set in several; noted as a tag. In the official JSON, whose ids are the same in every
            language, it is also appended to the ids.
        kind: tag ``type`` of the questions.

    Raises:
        ConfigError: it is no such set, naming file and field.
    """
    if source.is_file():
        return _official(source, target, name, language, kind)
    for needed in ("paragraphs.jsonl", "questions.jsonl"):
        if not (source / needed).exists():
            raise ConfigError(f"{source / needed}: missing; this is not a SQuAD 2.0 folder, nor the official JSON file")
    return _folder(source, target, name, language, kind)


# --- the official file --------------------------------------------------------------------------------------


def _official(source: Path, target: Path, name: str, language: str | None, kind: str) -> ImportReport:
    try:
        data = json.loads(source.read_text(encoding="utf-8-sig"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{source}: not valid JSON in UTF-8") from error
    if not isinstance(data, dict) or not isinstance(data.get("data"), list):
        raise ConfigError(f"{source}: no list 'data' at the top; this is not the JSON of SQuAD 1 or 2")
    with Target(target, name, "squad", source) as out:
        for number, article in enumerate(data["data"]):
            where = f"{source}: data.{number}"
            title = str(article.get("title") or f"article-{number:04}")
            path = file_name(title, ".md" if language is None else f".{language}.md")
            paragraphs = field_of(article, "paragraphs", where)
            contexts = [normalise(str(field_of(one, "context", where))) for one in paragraphs]
            head = f"# {normalise(title).replace('_', ' ')}\n\n"
            text = out.document(path, head + "\n\n".join(contexts))
            start = len(head)
            for place, (paragraph, context) in enumerate(zip(paragraphs, contexts, strict=True)):
                at = text.find(context, max(0, start - 2))  # titles and contexts may begin or end with blanks
                start = at + len(context)
                found = _Paragraph(path, text, at, start)
                group = f"{title}#{place:03}"
                for row in field_of(paragraph, "qas", where):
                    identity = str(field_of(row, "id", where))
                    answers = [
                        (str(one["text"]), int(one["answer_start"]))
                        for one in row.get("answers") or []
                        if one.get("text")
                    ]
                    _question(
                        out, found, row, answers,
                        identity=identity if language is None else f"{identity}.{language}",
                        impossible=bool(row.get("is_impossible", False)), group=group, where=where,
                        tags={"type": kind, "article": title, **({"language": language} if language else {})},
                    )  # fmt: skip
        return _finish(out)


# --- folders ------------------------------------------------------------------------------------------------


def _folder(source: Path, target: Path, name: str, language: str | None, kind: str) -> ImportReport:
    with Target(target, name, "squad", source) as out:
        places = dict(_paragraphs(source, out, language))
        for number, row in json_lines(source / "questions.jsonl"):
            where = f"{source / 'questions.jsonl'}:{number}"
            if language is not None and row.get("lang", language) != language:
                continue
            key = str(field_of(row, "paragraph_id", where))
            spoken = row.get("lang")
            tags = {"type": kind, "article": row.get("article", "")}
            _question(
                out,
                places.get(key),
                row,
                [(one["text"], one["start"]) for one in row.get("answers", [])],
                identity=str(field_of(row, "id", where)),
                impossible=bool(row.get("is_impossible", False)),
                group=key.removesuffix(f".{spoken}") if spoken else key,  # translations belong together
                where=where,
                tags={**tags, "language": spoken} if spoken else tags,
            )
        return _finish(out)


def _paragraphs(source: Path, out: Target, language: str | None) -> Iterator[tuple[str, _Paragraph]]:
    """Each paragraph by its id; documents that the folder has are copied, others are made of their paragraphs."""
    file = source / "paragraphs.jsonl"
    rows = [
        (number, row) for number, row in json_lines(file) if language is None or row.get("lang", language) == language
    ]
    if (source / "documents").is_dir():
        raw: dict[str, str] = {}
        texts: dict[str, str] = {}
        for path in sorted((source / "documents").glob("*.md")):
            key = f"documents/{path.name}"
            raw[key] = path.read_bytes().decode("utf-8")
            texts[key] = out.document(path.name, raw[key])
        for number, row in rows:
            where = f"{file}:{number}"
            document, start, end = (field_of(row, one, where) for one in ("document", "char_start", "char_end"))
            if document not in texts:
                raise ConfigError(f"{where}: document: there is no {document}")
            paragraph = normalise(raw[document][start:end])
            anchor = find_exact(texts[document], paragraph, start)
            if anchor is None:
                raise ConfigError(f"{where}: the paragraph is not in {document}")
            path = document.removeprefix("documents/")
            yield str(row["paragraph_id"]), _Paragraph(path, texts[document], anchor.start, anchor.end)
        return
    articles: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for number, row in rows:
        where = f"{file}:{number}"
        article, spoken = str(field_of(row, "article", where)), str(row.get("lang", ""))
        paragraph = (str(field_of(row, "paragraph_id", where)), normalise(str(field_of(row, "text", where))))
        articles.setdefault((spoken, article), []).append(paragraph)
    for (spoken, article), paragraphs in sorted(articles.items()):
        path = file_name(article, ".md")
        path = f"{spoken}/{path}" if spoken else path
        head = f"# {article.replace('_', ' ')}\n\n"
        text = out.document(path, head + "\n\n".join(context for _, context in paragraphs))
        start = 0
        for key, context in paragraphs:
            start = text.index(context, start)
            yield key, _Paragraph(path, text, start, start + len(context))
            start += len(context)


# --- both ---------------------------------------------------------------------------------------------------


def _question(
    out: Target,
    paragraph: _Paragraph | None,
    row: dict[str, Any],
    answers: Iterable[tuple[str, int]],
    *,
    identity: str,
    impossible: bool,
    group: str,
    where: str,
    tags: dict[str, Any],
) -> None:
    question = " ".join(normalise(str(field_of(row, "question", where))).split())
    if paragraph is None:
        out.skip(identity, "its paragraph is missing")
        return
    if not question:
        out.skip(identity, "the question is empty")
        return
    texts: list[str] = []
    evidence: list[dict[str, Any]] = []
    for text, start in () if impossible else answers:
        answer = normalise(text).strip()
        span = _span(paragraph, answer, start)
        if answer and span is not None:
            texts.append(answer)
            evidence.append({"document": out.place(paragraph.path), "start": span[0], "end": span[1]})
        else:
            out.skip(identity, "an answer is not in its paragraph")
    if not impossible and not evidence:
        out.skip(identity, "it is answerable, but no answer stands in its paragraph")
        return
    others = list(dict.fromkeys(texts))[1:]
    out.question(
        {
            "id": identity,
            "question": question,
            "answer": texts[0] if texts else None,
            **({"answers": others} if others else {}),
            "evidence": evidence[:1],
            "split": halves(group),
            "tags": tags,
            "group": group,
        }
    )


def _span(paragraph: _Paragraph, answer: str, start: int) -> tuple[int, int] | None:
    """The range of an answer: at ``start`` of its paragraph, or the nearest place in it where normalising moved it."""
    at = paragraph.start + start
    if answer and paragraph.text.startswith(answer, at) and at + len(answer) <= paragraph.end:
        return at, at + len(answer)
    anchor = find_exact(paragraph.text[paragraph.start : paragraph.end], answer, start) if answer else None
    return None if anchor is None else (paragraph.start + anchor.start, paragraph.start + anchor.end)


def _finish(out: Target) -> ImportReport:
    if not out.report.questions:
        raise ConfigError(f"{out.folder}: no question could be taken over; is the language right?")
    out.header(task="rag", minimum_unanswerable_share=0.1 if out.report.unanswerable else 0.0)
    return out.report
