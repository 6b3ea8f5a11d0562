"""Relevance without a judge: does the retrieved text answer the question, and does the answer address it?

Belongs here: the intents of a question, what each asks for (a number, a time, a name), whether a passage seems to answer
one, and how far the sentences of an answer are about the question; pure and deterministic.
Does not belong here: ids, definitions and inputs (grounding_metrics.py), whether a claim is true of a text (grounding.py).
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from assets.evaluation.metrics.grounding import (
    ENTAILED,
    WINDOW,
    Chunk,
    Sentence,
    analyse,
    assess_claim,
    claims,
    contradicts,
)
from assets.evaluation.metrics.words import word_list

#: Weighted share of an intent's content words that a passage which answers it holds.
ANSWERS_INTENT = 0.6
#: An answer of fewer content words is a fragment: it need not repeat the question to answer it.
FRAGMENT_WORDS = 4
#: Weighted share of the question's words that a statement about it has at least.
ABOUT = 0.2

Asked = Literal["number", "time", "name", "anything"]
_ASKS: tuple[tuple[Asked, re.Pattern[str]], ...] = (
    ("time", re.compile(r"\b(?:when|(?:what|which|in which) (?:year|day|date|month|century)|wann)\b", re.IGNORECASE)),
    (
        "number",
        re.compile(
            r"\bhow (?:many|much|long|old|far|tall|high|deep|wide|big|large|heavy|fast|often)\b"
            r"|\b(?:what|which) (?:percentage|percent|number|share|amount)\b|\bwie (?:viele?|lange|alt|weit|hoch|oft)\b",
            re.IGNORECASE,
        ),
    ),
    ("name", re.compile(r"\b(?:who|whom|whose|wer|wem|wen|wessen)\b", re.IGNORECASE)),
)
_NEXT_INTENT = re.compile(
    r"\?\s+|;\s+|,?\s+(?:and|und)\s+(?=(?:what|which|who|whom|whose|when|where|why|how|is|are|was|were|do|does|did|can|could"
    r"|should|will|was|wer|wann|wo|warum|wie|ist|sind|kann)\b)",
    re.IGNORECASE,
)
_TIMES = word_list(
    """januari februari march april may june juli august septemb octob novemb decemb januar februar märz mai juni oktob
    dezemb monday tuesday wednesday thursday friday saturday sunday centuri"""
)
_NOT_SOUGHT = frozenset({"many", "mani", "much", "kind", "type", "mean", "name"})


@dataclass(frozen=True)
class Intent:
    """One thing a question wants to know."""

    words: Sentence
    asked: Asked


@lru_cache(maxsize=20_000)
def intents(question: str) -> tuple[Intent, ...]:
    """What a question wants to know, one for each of its clauses; at least one."""
    parts = [part for part in _NEXT_INTENT.split(question) if part.strip(" ?.!\n")]
    found = [Intent(analyse(part), _asked(part)) for part in parts or [question]]
    return tuple(found)


def _asked(question: str) -> Asked:
    for asked, pattern in _ASKS:
        if pattern.search(question):
            return asked
    return "anything"


def answered_share(question: str, chunks: Sequence[Chunk]) -> float:
    """Intents that some passage seems to answer ÷ intents."""
    found = intents(question)
    return sum(any(_answers(intent, chunk) for chunk in chunks) for intent in found) / len(found)


def _answers(intent: Intent, chunk: Chunk) -> bool:
    """Whether a window of the chunk holds enough of the intent's words and something of the kind it asks for."""
    weights = _weights(intent.words)
    total = math.fsum(weights.values())
    if not total:
        return bool(chunk.sentences)
    headings = chunk.headings.content & set(weights)
    for first in range(len(chunk.sentences)):
        window = chunk.sentences[first : first + WINDOW]
        held = headings.union(*(set(weights) & one.content for one in window))
        if math.fsum(weights[word] for word in held) >= ANSWERS_INTENT * total and any(
            has_asked(one, intent) for one in window
        ):
            return True
    return False


def has_asked(sentence: Sentence, intent: Intent) -> bool:
    """Whether a sentence has something of the kind that is asked for, beside what the question says itself."""
    if intent.asked == "number":
        return bool(sentence.numbers - intent.words.numbers)
    if intent.asked == "time":
        return bool(sentence.numbers - intent.words.numbers) or bool(_TIMES & sentence.content - intent.words.content)
    if intent.asked == "name":
        return bool(sentence.names - intent.words.content) or _begins_with_name(sentence, intent)
    return True


def _begins_with_name(sentence: Sentence, intent: Intent) -> bool:
    """A name that begins a sentence shows no case of its own: a rare first word passes for one."""
    first = sentence.stems[0] if sentence.stems else ""
    return first in sentence.content and first not in intent.words.content


def _weights(words: Sentence) -> dict[str, float]:
    return {word: weight for word, weight in words.rarity.items() if word not in _NOT_SOUGHT}


# --- reference against chunks -------------------------------------------------------------------------------


def attributed(question: str, reference: str, chunks: Sequence[Chunk]) -> list[tuple[bool, ...]]:
    """For each claim of a reference, whether each chunk holds it.

    A fragment such as "80 km" is held where all of its words stand in a window about the question.
    """
    found: list[tuple[bool, ...]] = []
    for claim in claims(reference):
        if len(claim.content) < FRAGMENT_WORDS:
            found.append(tuple(_holds_fragment(question, claim, chunk) for chunk in chunks))
        else:
            found.append(tuple(value >= ENTAILED for value in assess_claim(claim, chunks).entailed))
    return found


def _holds_fragment(question: str, claim: Sentence, chunk: Chunk) -> bool:
    if not claim.content <= chunk.content:
        return False
    wanted = {word: weight for intent in intents(question) for word, weight in _weights(intent.words).items()}
    wanted = {word: weight for word, weight in wanted.items() if word not in claim.content}
    total = math.fsum(wanted.values())
    for first in range(len(chunk.sentences)):
        window = (*chunk.sentences[first : first + WINDOW], chunk.headings)
        present = frozenset[str]().union(*(one.content for one in window))
        about = math.fsum(wanted[word] for word in present & wanted.keys()) >= ABOUT * total
        if about and claim.content <= present and not contradicts(claim, window):
            return True
    return False


def context_precision(held: Sequence[Sequence[bool]], chunks: int) -> float:
    """Mean of precision@k over the chunks k that hold a claim; 0 without one (ragas)."""
    useful = [any(claim[place] for claim in held) for place in range(chunks)]
    if not any(useful):
        return 0.0
    return math.fsum(sum(useful[:place]) / place for place, hit in enumerate(useful, 1) if hit) / sum(useful)


def context_recall(held: Sequence[Sequence[bool]]) -> float | None:
    """Claims that some chunk holds ÷ claims; undefined without claims (ragas)."""
    return sum(any(claim) for claim in held) / len(held) if held else None


# --- question against answer --------------------------------------------------------------------------------


def answer_relevance(question: str, answer: str) -> float:
    """Mean cosine of the question with the questions that the first three claims would answer (after ragas).

    The question a claim would answer has the content words of the claim; a fragment of the kind that is asked for
    would answer the question itself. 0 without a claim.
    """
    found = [_cosine(question, claim) for claim in list(claims(answer))[:3]]
    return math.fsum(found) / len(found) if found else 0.0


def answer_relevancy(question: str, answer: str) -> float | None:
    """Statements about the question ÷ statements (after deepeval); undefined without a statement."""
    found = [_about(question, claim) for claim in claims(answer)]
    return sum(found) / len(found) if found else None


def _asked_words(question: str) -> dict[str, float]:
    return {word: weight for intent in intents(question) for word, weight in intent.words.rarity.items()}


def _fits(question: str, claim: Sentence) -> bool | None:
    """Whether a fragment is of a kind asked for; None for a whole sentence."""
    if len(claim.content) >= FRAGMENT_WORDS:
        return None
    return any(
        has_asked(claim, intent) or (intent.asked == "name" and bool(claim.content)) for intent in intents(question)
    )


def _cosine(question: str, claim: Sentence) -> float:
    fits = _fits(question, claim)
    if fits is not None:
        return float(fits)
    asked = _asked_words(question)
    shared = math.fsum(weight * claim.rarity[word] for word, weight in asked.items() if word in claim.rarity)
    norms = math.fsum(weight**2 for weight in asked.values()) * math.fsum(weight**2 for weight in claim.rarity.values())
    return min(shared / math.sqrt(norms), 1.0) if norms else 0.0


def _about(question: str, claim: Sentence) -> bool:
    fits = _fits(question, claim)
    if fits is not None:
        return fits
    asked = _asked_words(question)
    total = math.fsum(asked.values())
    return math.fsum(weight for word, weight in asked.items() if word in claim.content) >= ABOUT * total
