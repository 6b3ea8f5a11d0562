"""Questions made from headings, for a folder that comes without any.

Belongs here: a deterministic smoke set. It shows that retrieval, answering and refusing work at all on these documents.
Does not belong here: anything that could replace questions of real users: these ask in the documents' own words, so
they are easier than real ones, and what is good on them need not be good.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assets.evaluation.anchoring import fold
from assets.evaluation.leakage import content_words
from assets.evaluation.metrics.words import sentences, words
from resources.config import ProjectConfig
from resources.postgres import FOREVER, Connection
from resources.sharding import source_of

LIMIT = 60
UNANSWERABLE_SHARE = 0.25
TYPE = "synthetic-heading"
GENERATOR = "offline-heading/1"

_MINIMUM_WORDS = 5
_MAXIMUM_CHARACTERS = 400
_NO_PROSE = re.compile(r"\s*(?:[|<>!`~]|[-*+]\s|\d+[.)]\s|\[[^\]]*\]:)")

#: Topics of unanswerable questions; used only where none of their words occurs in the documents.
OFF_TOPIC = (
    "volcanic eruptions", "violin tuning", "medieval heraldry", "penguin breeding", "sourdough fermentation",
    "orbital mechanics", "opera librettos", "coral bleaching", "chess openings", "glacier retreat", "beekeeping",
    "haiku metre", "tectonic faults", "falconry", "calligraphy brushes", "vineyard pruning", "sumo wrestling",
    "asteroid mining", "mushroom foraging", "baroque counterpoint", "yak husbandry", "origami cranes", "whale migration",
    "cuneiform tablets", "ballet choreography", "truffle hunting", "papyrus conservation", "monsoon forecasting",
    "samurai armour", "dinosaur taxonomy",
)  # fmt: skip


@dataclass(frozen=True)
class SectionedDocument:
    """A live document: ``headings`` are ``{level, text, start}`` with ``start`` the position of the heading."""

    source: str
    path: str
    title: str
    text: str
    headings: Sequence[dict[str, Any]]


def generate(connection: Connection, config: ProjectConfig, dataset: str, path: Path) -> int:
    """Write a smoke set for the live documents of a dataset's sources to ``path``; return the number of questions."""
    lines = make_questions(_live_documents(connection, config.datasets[dataset].sources))
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    os.replace(temporary, path)
    return len(lines)


def make_questions(documents: Iterable[SectionedDocument], limit: int = LIMIT) -> list[dict[str, Any]]:
    """Lines of a question file, at most ``limit``; the same documents give the same lines.

    Answerable: "What does “title” say about heading?", answered by the first sentence of that section. Unanswerable:
    the same with a topic none of whose content words occurs in any document. Documents take turns, so that a long one
    does not crowd out the others; order and split follow hashes.
    """
    topics = {topic: content_words(topic) for topic in OFF_TOPIC}
    candidates: list[tuple[int, bytes, dict[str, Any]]] = []
    titles: set[str] = set()
    for document in documents:
        present = content_words(f"{document.title} {document.text}")
        topics = {topic: asked for topic, asked in topics.items() if not asked & present}
        titles.add(document.title)
        own = sorted(((_digest(line["question"]), line) for line in _of_document(document)), key=lambda item: item[0])
        candidates += [(turn, digest, line) for turn, (digest, line) in enumerate(own)]
        if len(candidates) > 50 * limit:
            candidates = sorted(candidates, key=lambda item: item[:2])[: 10 * limit]
    answerable: dict[str, dict[str, Any]] = {}
    for _, _, line in sorted(candidates, key=lambda item: item[:2]):
        answerable.setdefault(line["question"].lower(), line)
    wanted = min(round(limit * UNANSWERABLE_SHARE), len(answerable) // 3 + 1)
    chosen = list(answerable.values())[: limit - min(wanted, len(topics))]
    named = sorted(titles, key=_digest)
    chosen += [
        _line(question_about(named[position % len(named)], topic), None, [])
        for position, topic in enumerate(sorted(topics, key=_digest)[:wanted])
        if named
    ]
    return sorted(chosen, key=lambda line: line["id"])


def _live_documents(connection: Connection, sources: Sequence[str]) -> Iterator[SectionedDocument]:
    with connection.cursor(name="heading_questions") as cursor:
        cursor.itersize = 50
        cursor.execute(
            """SELECT source, path, title, text, headings FROM document_version JOIN document_text USING (text_hash)
               WHERE source = ANY(%s) AND rev_to = %s ORDER BY source, path COLLATE "C" """,
            (list(sources), FOREVER),
        )
        for row in cursor:
            yield SectionedDocument(*row)


def sections(document: SectionedDocument) -> Iterator[tuple[str, str]]:
    """(heading, first sentence of its section) where that is prose and stands in the document once."""
    text = document.text
    starts = [heading["start"] for heading in document.headings] + [len(text)]
    for heading, following in zip(document.headings, starts[1:], strict=True):
        name = fold(heading["text"]).text
        body = text.find("\n", heading["start"]) + 1
        if not words(name) or name == document.title or not 0 < body < following:
            continue
        sentence = _first_sentence(text[body:following])
        if sentence is not None and text.count(sentence) == 1:
            yield name, sentence


def _of_document(document: SectionedDocument) -> Iterator[dict[str, Any]]:
    for name, sentence in sections(document):
        evidence = [{"document": f"{source_of(document.source)}/{document.path}", "quote": sentence}]
        yield _line(question_about(document.title, name), fold(sentence).text, evidence)


def _first_sentence(body: str) -> str | None:
    for paragraph in re.split(r"\n\s*\n", body):
        if paragraph.strip() and not _NO_PROSE.match(paragraph):
            first = sentences(paragraph)[0]
            fits = len(words(first)) >= _MINIMUM_WORDS and len(first) <= _MAXIMUM_CHARACTERS
            return first if fits else None
    return None


def question_about(title: str, heading: str) -> str:
    """The question what a document says of a heading or topic."""
    return f"What does “{title}” say about {heading}?"


def _line(question: str, answer: str | None, evidence: list[dict[str, str]]) -> dict[str, Any]:
    digest = _digest(question)
    return {
        "id": f"heading-{digest.hex()[:10]}",
        "question": question,
        "answer": answer,
        "evidence": evidence,
        "split": "dev" if digest[-1] % 2 else "test",  # none for training: they are no model for worked examples
        "tags": {"type": TYPE, "generator": GENERATOR},
        "provenance": {"kind": "synthetic", "generator": GENERATOR},
    }


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
