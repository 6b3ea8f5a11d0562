"""Drafts: a question as a generator made it, and the line it would be in a question file.

Belongs here: the types that generators, filters and the store share. Does not belong here: making one (cloze.py,
templates.py, model_writer.py) and judging one (filters.py).
"""

from dataclasses import dataclass
from typing import Any

from assets.evaluation.questions import split_of
from assets.evaluation.synthesis.passages import Passage
from resources.fingerprint import canonical_json, fingerprint, text_hash
from resources.synthesis_config import QuestionKind

#: No train split: what rules or models wrote is no model for worked examples.
_SHARES = {"dev": 0.5, "test": 0.5}


@dataclass(frozen=True)
class Task:
    """One question to be made.

    Attributes:
        passages: what it is made from, the one that holds the answer first.
        detail: what else tells this task from others on the same passages.
    """

    kind: QuestionKind
    generator: str
    passages: tuple[Passage, ...]
    detail: str = ""

    def key(self, writer: str) -> bytes:
        """What is asked, of what and by whom: the same is not made twice."""
        places = [passage.place for passage in self.passages]
        return text_hash(canonical_json([writer, self.kind, self.generator, places, self.detail]))


@dataclass(frozen=True)
class Quote:
    """A sentence or piece of evidence: characters ``[start, end)`` of a document."""

    passage: Passage
    start: int
    end: int

    @property
    def text(self) -> str:
        """The characters."""
        return self.passage.part(self.start, self.end)


@dataclass(frozen=True)
class Apart:
    """A name and words that no place of the documents may hold together."""

    name: str
    words: tuple[str, ...]


@dataclass(frozen=True)
class Draft:
    """A question before it was judged.

    Attributes:
        answer: None: the documents do not tell.
        evidence: where the answer stands; empty for unanswerable ones.
        absent: words that must stand nowhere in the documents, for the question to be unanswerable.
        apart: or a name that must not stand near other words of the question.
        section: heading of the section the evidence is from, where the question names it.
    """

    task: Task
    question: str
    answer: str | None
    evidence: tuple[Quote, ...] = ()
    absent: tuple[str, ...] = ()
    apart: Apart | None = None
    section: str = ""

    @property
    def documents(self) -> list[tuple[int, bytes]]:
        """Ids and texts of the documents its words are from, each once."""
        return list(dict.fromkeys((passage.document_id, passage.text_hash) for passage in self.task.passages))

    def line(self, recipe: str) -> dict[str, Any]:
        """The line of a question file. Nothing in it depends on this database."""
        first = self.task.passages[0]
        named = [passage.document for passage in self.task.passages]
        return {
            "id": f"synthetic-{fingerprint([self.task.kind, self.question, self.answer, named])[:12]}",
            "question": self.question,
            "answer": self.answer,
            "evidence": [{"document": quote.passage.document, "quote": quote.text} for quote in self.evidence],
            "split": split_of(f"document {first.document}", _SHARES),
            "tags": {"type": f"synthetic-{self.task.kind}", "generator": self.task.generator},
            "group": f"{first.document}#{first.ordinal}",
            "provenance": {
                "kind": "synthetic",
                "generator": self.task.generator,
                "recipe": recipe,
                "documents": list(dict.fromkeys(named)),
            },
        }

    def checked_by(self) -> dict[str, Any]:
        """What the filters have to know beside the line; it is stored with the draft."""
        return {
            "passages": [
                {
                    "document_id": one.document_id,
                    "document": one.document,
                    "heading": " > ".join(filter(None, (one.heading, self.section))),
                    "start": one.start,
                    "end": one.end,
                }
                for one in self.task.passages
            ],
            "spans": [[quote.start, quote.end] for quote in self.evidence],
            **({"absent": list(self.absent)} if self.absent else {}),
            **({"apart": {"name": self.apart.name, "words": list(self.apart.words)}} if self.apart else {}),
        }


#: What became of a task: nothing to ask, or words why what came cannot be used.
Made = tuple[Task, Draft | str | None]
