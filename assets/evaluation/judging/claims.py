"""Claims: where in a text they stand.

Belongs here: the character ranges of the sentences of an answer or a reference that say something.
Does not belong here: what makes a sentence a claim (metrics/grounding.py), judging one.
"""

from dataclasses import dataclass

from assets.evaluation.metrics import grounding
from assets.evaluation.metrics.words import sentences


@dataclass(frozen=True)
class Claim:
    """Characters ``[start, end)`` of a text that say something."""

    start: int
    end: int
    text: str


def located_claims(text: str) -> list[Claim]:
    """The claims of a text in their order, as ``grounding.claims`` counts them; none when it says nothing."""
    found: list[Claim] = []
    at = 0
    for sentence in sentences(text):
        start = text.find(sentence, at)
        if start < 0:  # cannot be: a sentence is a stripped part of the text
            continue
        at = start + len(sentence)
        if grounding.claims(sentence):
            found.append(Claim(start, at, sentence))
    return found


def claims_or_whole(text: str) -> list[Claim]:
    """Like ``located_claims``; a text that says something, but nothing of content ("No."), is one claim."""
    if found := located_claims(text):
        return found
    start = len(text) - len(text.lstrip())
    return [Claim(start, len(text.rstrip()), text.strip())] if text.strip() else []
