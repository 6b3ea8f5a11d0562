"""Readers: who has to find the answer of a draft again, in its evidence and in what a search finds.

Belongs here: the offline reader and the interface. Does not belong here: the model reader (model_writer.py), what follows
from a reading (filters.py).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from assets.evaluation.metrics.words import words
from assets.evaluation.synthesis.cloze import GAP
from assets.evaluation.synthesis.passages import Passage
from resources import offline_extractive
from resources.fingerprint import fingerprint

_QUOTED = re.compile(r"“([^“”]+)”")
_FRAME = re.compile(r"^What does “(.+)” say about (.+)\?$")  # its words are in no document
_REFUSAL = "The documents do not say."
#: A longer answer need not be given word for word; this SQuAD-like overlap will do.
_NEARLY = 0.6


@dataclass(frozen=True)
class Shown:
    """A text put before a reader, and the documents its words are from."""

    heading: str
    text: str
    document_id: int

    @classmethod
    def of(cls, passage: Passage) -> "Shown":
        """A whole passage."""
        return cls(passage.heading, passage.text, passage.document_id)


class Reader(Protocol):
    """Answers a question from texts alone.

    Attributes:
        quotes: it can only quote, and so does not tell well that something is not there.
        concurrency: how many questions it reads at once.
    """

    fingerprint: str
    concurrency: int
    quotes: bool

    def read(self, question: str, shown: Sequence[Shown], *, sentences: int, run_id: str) -> str | None:
        """The answer, at most so many sentences long; None when the texts do not hold one."""
        ...


class OfflineReader:
    """The extractive offline model: quotes the sentences that speak of what is asked.

    A question that quotes several statements is read one statement after the other, because no sentence speaks of all.
    """

    quotes: bool = True
    concurrency: int = 1

    def __init__(self) -> None:
        from resources.offline_models import CODE_VERSION

        self.fingerprint = fingerprint(["offline reader", CODE_VERSION])

    def read(self, question: str, shown: Sequence[Shown], *, sentences: int, run_id: str) -> str | None:
        """Sentences of the texts that answer, or None."""
        question = _FRAME.sub(r"\1: \2", question)
        parts = _QUOTED.findall(question)
        if len(parts) > 1:
            said = [self._read(part.replace(GAP, " "), shown, 1) for part in parts]
            return None if None in said else " ".join(filter(None, said))
        return self._read(question, shown, sentences)

    def _read(self, question: str, shown: Sequence[Shown], sentences: int) -> str | None:
        passages = "\n".join(
            f"[{number}] {one.heading}\n" + "\n".join(f"> {line}" for line in one.text.split("\n"))
            for number, one in enumerate(shown, start=1)
        )
        limit = f"Answer with at most {sentences} sentences."
        said = offline_extractive.answer(
            [
                {"role": "system", "content": f'{limit} If they do not say, reply exactly: "{_REFUSAL}"'},
                {"role": "user", "content": f"{passages}\nQuestion: {' '.join(question.split())}"},
            ]
        )
        return None if said == _REFUSAL else said


def agrees(answer: str, said: str) -> bool:
    """Whether what a reader said holds the answer, or, if that is long, most of its words."""
    wanted, given = words(answer), words(said)
    if not wanted or f" {' '.join(wanted)} " in f" {' '.join(given)} ":
        return bool(wanted)
    shared = sum(min(wanted.count(word), given.count(word)) for word in set(wanted))
    return len(wanted) > 3 and 2 * shared / (len(wanted) + len(given)) >= _NEARLY
