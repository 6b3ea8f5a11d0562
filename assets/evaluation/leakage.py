"""Leakage and duplicates: texts that are nearly the same question, found by their words alone.

Belongs here: comparing questions with each other and with the worked examples of prompts; exact at any size.
Does not belong here: what follows from a finding (checks.py).

Two questions are nearly equal when the Jaccard similarity of their content words (stemmed, without function words) is
at least ``NEARLY_EQUAL``. Candidates come from the rarest words only: of two sets that share a share t of the first,
one must hold one of its |A| - ⌈t·|A|⌉ + 1 rarest words, so that nothing is missed and few pairs are compared.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from assets.evaluation.metrics.words import STOP_WORDS, stem, words
from resources.prompt_config import PromptConfig

NEARLY_EQUAL = 0.8
#: Near-duplicates inside a dataset must also have the same answer; rephrasings with another answer are wanted.
DUPLICATE = 0.9


@dataclass(frozen=True)
class Leak:
    """A question that shall be scored, and the material shown to the model that gives it away."""

    question_id: str
    leaked_by: str
    how: str


@dataclass(frozen=True)
class Item:
    """A question with its answer (``None``: unanswerable) under a name that may be shown."""

    name: str
    question: str
    answer: str | None


def content_words(text: str) -> frozenset[str]:
    """Stemmed words without function words; all stemmed words of a text that has only function words."""
    every = words(text)
    return frozenset(stem(word) for word in every if word not in STOP_WORDS) or frozenset(stem(word) for word in every)


def duplicates(items: Sequence[Item]) -> list[tuple[str, str]]:
    """Pairs of names that ask the same: equal up to case and punctuation, or nearly equal with the same answer."""
    plain = [" ".join(words(item.question)) for item in items]
    answers = [None if item.answer is None else " ".join(words(item.answer)) for item in items]
    sets = [content_words(item.question) for item in items]
    pairs = {
        (min(left, right), max(left, right))
        for left, right, shared in overlapping(sets, sets, DUPLICATE)
        if left != right
        and (
            plain[left] == plain[right]
            or (answers[left] == answers[right] and _jaccard(sets[left], sets[right], shared) >= DUPLICATE)
        )
    }
    return [(items[left].name, items[right].name) for left, right in sorted(pairs)]


def worked_examples(prompts: Iterable[PromptConfig]) -> tuple[list[Item], dict[str, str]]:
    """The worked examples of prompts as ``shown`` items, and the passage of each by its name: arguments of ``leaks``."""
    shown: list[Item] = []
    contexts: dict[str, str] = {}
    for prompt in prompts:
        for number, example in enumerate(prompt.examples, start=1):
            item = Item(f"example {number} of prompt {prompt.name}", example.question, example.answer)
            shown.append(item)
            contexts[item.name] = example.context
    return shown, contexts


def leaks(scored: Sequence[Item], shown: Sequence[Item], contexts: Mapping[str, str]) -> list[Leak]:
    """Scored questions that shown material gives away: a nearly equal question, or its words together with its answer.

    Args:
        scored: questions of the dev and test splits.
        shown: worked examples and train questions.
        contexts: further text shown with an item, by its name (the passage of a worked example).
    """
    asked = [content_words(item.question) for item in scored]
    found: dict[tuple[int, int], str] = {}
    questions = [content_words(item.question) for item in shown]
    for left, right, shared in overlapping(asked, questions, NEARLY_EQUAL):
        if _jaccard(asked[left], questions[right], shared) >= NEARLY_EQUAL:
            found[left, right] = "nearly the same question"
    texts = [" ".join([item.question, item.answer or "", contexts.get(item.name, "")]) for item in shown]
    plain = [f" {' '.join(words(text))} " for text in texts]
    for left, right, _ in overlapping(asked, [content_words(text) for text in texts], NEARLY_EQUAL):
        answer = " ".join(words(scored[left].answer or ""))
        if answer and f" {answer} " in plain[right]:
            found.setdefault((left, right), "holds its words and its answer")
    return [Leak(scored[left].name, shown[right].name, how) for (left, right), how in sorted(found.items())]


class KnownQuestions:
    """Questions that are there already, each new one compared with all of them as ``leaks`` compares: in both directions."""

    def __init__(self, items: Iterable[Item] = ()) -> None:
        self._items: list[Item] = []
        self._sets: list[tuple[frozenset[str], frozenset[str]]] = []
        self._holding: dict[str, list[int]] = {}
        for item in items:
            self.add(item)

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: Item) -> None:
        """Take a question in."""
        asked, text = _words_of(item)
        for word in text:
            self._holding.setdefault(word, []).append(len(self._items))
        self._items.append(item)
        self._sets.append((asked, text))

    def like(self, item: Item) -> tuple[str, str] | None:
        """(name, how) of the first known question that asks nearly the same: nearly its words, or its words and answer."""
        asked, text = _words_of(item)
        shared = Counter(number for word in text for number in self._holding.get(word, ()))
        for number in sorted(shared):
            known = self._items[number]
            theirs, their_text = self._sets[number]
            if shared[number] < NEARLY_EQUAL * min(len(asked), len(theirs)):
                continue
            if _jaccard(asked, theirs, len(asked & theirs)) >= NEARLY_EQUAL:
                return known.name, "nearly the same question"
            if _gives_away(asked, item.answer, their_text, known) or _gives_away(theirs, known.answer, text, item):
                return known.name, "one holds the words and the answer of the other"
        return None


def _words_of(item: Item) -> tuple[frozenset[str], frozenset[str]]:
    return content_words(item.question), content_words(f"{item.question} {item.answer or ''}")


def _gives_away(asked: frozenset[str], answer: str | None, text: frozenset[str], item: Item) -> bool:
    """Whether ``item``, with these words, holds nearly all words of a question and its answer."""
    plain = " ".join(words(answer or ""))
    if not plain or len(asked & text) < NEARLY_EQUAL * len(asked):
        return False
    return f" {plain} " in f" {' '.join(words(f'{item.question} {item.answer or str()}'))} "


def overlapping(
    queries: Sequence[frozenset[str]], documents: Sequence[frozenset[str]], share: float
) -> Iterator[tuple[int, int, int]]:
    """All (query, document, shared words) with at least ``share`` of the query's words in the document."""
    frequency = Counter(word for document in documents for word in document)
    holding: dict[str, list[int]] = {}
    for position, document in enumerate(documents):
        for word in document:
            holding.setdefault(word, []).append(position)
    for position, query in enumerate(queries):
        needed = max(1, math.ceil(share * len(query) - 1e-9))
        rarest = sorted(query, key=lambda word: (frequency[word], word))[: len(query) - needed + 1]
        for candidate in sorted({document for word in rarest for document in holding.get(word, ())}):
            shared = len(query & documents[candidate])
            if shared >= needed:
                yield position, candidate, shared


def _jaccard(left: frozenset[str], right: frozenset[str], shared: int) -> float:
    return shared / (len(left) + len(right) - shared)
