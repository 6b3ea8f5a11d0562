"""Correctness without a judge: how much of an accepted answer is said, how much else, and what is said otherwise.

Belongs here: comparing an answer with its references by words, and by claims where they disagree; pure functions.
Does not belong here: correctness as a judge model sees it; that is another metric with another id.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from assets.evaluation.metrics.answers import token_f1
from assets.evaluation.metrics.grounding import WINDOW, Sentence, analyse, claims, contradicts, without_citations
from assets.evaluation.metrics.words import sentences

#: A claim is about what a window of the reference says when they share this much of the claim's content by rarity.
_SAME_SUBJECT = 0.5
#: What a claim that says otherwise takes from its share of the value: names, negation and opposites may be put in other
#: words in a long answer; another number of the same unit may not.
_WRONG, _WRONG_NUMBER = 0.25, 0.5

DEFINITION = (
    "Mean of two agreements with the accepted answer, SQuAD token F1 and the F1 of stemmed content words weighted by "
    "rarity, less the share of claims that speak of the same but say otherwise: half of it for another number of "
    "the same unit, a quarter for another name, unit, negation or opposite."
)


@dataclass(frozen=True, eq=False)
class _Text:
    """A text taken apart."""

    text: str
    content: dict[str, float]
    sentences: tuple[Sentence, ...]
    claims: tuple[Sentence, ...]


def correctness(answer: str, references: Sequence[str]) -> float:
    """Agreement with the best reference, 0 to 1; measured on ragchecker-human-pref (docs/metrics.md)."""
    said = _take_apart(answer)
    return max(_agreement(said, _take_apart(reference)) for reference in references)


def _agreement(said: _Text, wanted: _Text) -> float:
    if not said.content or not wanted.content:
        return float(said.text.split() == wanted.text.split())
    similar = (token_f1(said.text, [wanted.text]) + _weighted_f1(said.content, wanted.content)) / 2
    if not said.claims or not wanted.sentences:
        return similar
    wrong = math.fsum(_says_otherwise(claim, wanted.sentences) for claim in said.claims)
    return similar * (1 - wrong / len(said.claims))


def _weighted_f1(said: dict[str, float], wanted: dict[str, float]) -> float:
    shared = math.fsum(weight for word, weight in wanted.items() if word in said)
    return 2 * shared / (math.fsum(wanted.values()) + math.fsum(said.values()))


def _says_otherwise(claim: Sentence, reference: Sequence[Sentence]) -> float:
    """How far the part of the reference that the claim shares most with contradicts it."""
    needed = _SAME_SUBJECT * math.fsum(claim.rarity.values())
    best, closest = 0.0, None
    for first in range(len(reference)):
        window = reference[first : first + WINDOW]
        held = claim.content & frozenset[str]().union(*(one.content for one in window))
        share = math.fsum(claim.rarity[word] for word in held)
        if share > best:
            best, closest = share, window
    if closest is None or best < needed:
        return 0.0
    if _another_number(claim, closest):
        return _WRONG_NUMBER
    return _WRONG if contradicts(claim, closest) else 0.0


def _another_number(claim: Sentence, window: Sequence[Sentence]) -> bool:
    """Whether the claim has a number where the window has only others of the same unit."""
    known = frozenset[tuple[str, str]]().union(*(one.numbers for one in window))
    said, wanted = claim.numbers - known, known - claim.numbers
    return bool({unit for _, unit in said} & {unit for _, unit in wanted})


@lru_cache(maxsize=20_000)
def _take_apart(text: str) -> _Text:
    found = tuple(analyse(sentence) for sentence in sentences(without_citations(text)))
    content: dict[str, float] = {}
    for one in found:
        content |= one.rarity
    return _Text(text, content, found, tuple(claims(text)))
