"""Groundedness without a judge: are the claims of an answer found in the retrieved chunks?

Belongs here: splitting an answer into claims and deciding by words, numbers, names and negation whether a chunk entails
one; pure and deterministic.
Does not belong here: groundedness as a judge model sees it; that is another metric with another id.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from assets.evaluation.metrics.words import NEGATIONS, STOP_WORDS, sentences, stem

#: Weighted share of a claim's content words that one window must hold.
SUPPORT_THRESHOLD = 0.6
#: Neighbouring sentences that may support one claim together.
WINDOW = 3
#: What is left of a claim's support when a number, a name or a negation does not agree; below the threshold.
_CONTRADICTED = 0.5
#: Words before the matched passage in which a negation still counts as its own.
_NEGATION_REACH = 3

_CODE = re.compile(r"(?=[^\W_]*\d)(?=[^\W_]*[^\W\d_])[^\W_]+")  # letters and digits together: B500, 3a
_TOKEN = re.compile(
    r"\d+(?:[.,]\d+)+|(?<![^\W_])\d+(?=(?:k?wh?|km|kg|cm|mm|nm|ms|min|[kmg]b|[mghlsv])\b)|[^\W_]+(?:'[^\W\d_]+)?|[%€$£°]",
    re.IGNORECASE,
)
_CURRENCIES = frozenset("€$£")
_ORDINAL = re.compile(r"(\d+)(?:st|nd|rd|th)", re.IGNORECASE)
_INTERJECTION = re.compile(
    r"^\W*(?:(?:yes|yeah|yep|no|nope|not really|sure|ok|okay|well|absolutely|ja|nein)\b\s*[,.!;:]+\s*)+", re.IGNORECASE
)
_NUMBER_WORDS = {
    word: str(number)
    for names in (
        ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
        ("zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun", "zehn", "elf", "zwölf"),
    )
    for number, word in enumerate(names, start=2)
}  # "one" is left out: it is a pronoun more often than a number
_CITATION = re.compile(r"\s*\[\d+(?:\s*,\s*\d+)*\]")
_MARKUP = re.compile(r"^\s*(?:[#>\-*+•|]+|\d+[.)])\s+|[*`|]+")

_UNITS = {
    alias: unit
    for unit, aliases in {
        "%": "% percent prozent", "€": "€ eur euro euros", "$": "$ usd dollar dollars", "£": "£ gbp pound pounds",
        "km": "km kilometre kilometres kilometer kilometers", "m": "m metre metres meter meters",
        "cm": "cm centimetre centimetres centimeter centimeters", "mm": "mm millimetre millimetres millimeter millimeters",
        "kg": "kg kilogram kilograms kilo kilos", "g": "g gram grams", "l": "l litre litres liter liters",
        "kw": "kw kilowatt kilowatts", "w": "w watt watts", "wh": "wh", "kwh": "kwh", "v": "v volt volts",
        "a": "amp amps ampere amperes", "nm": "nm", "°": "° degree degrees grad", "kb": "kb", "mb": "mb", "gb": "gb",
        "ms": "ms millisecond milliseconds", "s": "s sec second seconds sekunde sekunden",
        "min": "min minute minutes minuten", "h": "h hr hour hours stunde stunden", "d": "day days tag tage tagen",
        "week": "week weeks woche wochen", "month": "month months monat monate monaten",
        "year": "year years jahr jahre jahren", "bar": "bar", "psi": "psi",
        "thousand": "thousand", "million": "million millionen", "billion": "billion",
    }.items()
    for alias in aliases.split()
}  # fmt: skip


@dataclass(frozen=True)
class Sentence:
    """What is compared of one sentence.

    Attributes:
        stems: all its words in order, stemmed; numbers as written without thousands separators.
        content: the stems that carry content, numbers included.
        numbers: numbers with their unit ("" without one).
        names: stems of capitalised words that do not begin the sentence, and of codes such as "B500".
        negations: positions in ``stems`` of negating words.
    """

    stems: tuple[str, ...]
    content: frozenset[str]
    numbers: frozenset[tuple[str, str]]
    names: frozenset[str]
    negations: tuple[int, ...]


@dataclass(frozen=True)
class Chunk:
    """A supplied chunk: its sentences, and the words of its headings, which belong to each of them."""

    sentences: tuple[Sentence, ...]
    headings: Sentence


def groundedness(answer: str, chunks: Sequence[str]) -> float | None:
    """Entailed claims ÷ claims; ``None`` when the answer makes no claim.

    Args:
        answer: the answer; citation marks such as ``[1]`` are ignored.
        chunks: texts supplied to the model; lines that begin with ``#`` are headings.
    """
    found = claims(answer)
    if not found:
        return None
    supplied = [analyse_chunk(chunk) for chunk in chunks]
    return sum(support(claim, supplied) >= SUPPORT_THRESHOLD for claim in found) / len(found)


def claims(answer: str) -> list[Sentence]:
    """The sentences of an answer that say something."""
    texts = (_INTERJECTION.sub("", text) for text in sentences(_CITATION.sub("", answer)))
    return [claim for text in texts if (claim := analyse(text)).content]


def support(claim: Sentence, chunks: Sequence[Chunk]) -> float:
    """Weighted share of the claim's content words in the window that holds most of them, 0 to 1.

    A word weighs ln(1 + (n + 1) ÷ (f + 0.5)), where f of the n supplied sentences hold it. A window without one of the
    claim's numbers (with its unit) or names, or that negates differently, counts half, which is never enough.
    """
    shared = [[claim.content & sentence.content for sentence in chunk.sentences] for chunk in chunks]
    frequency = Counter(word for chunk in shared for words in chunk for word in words)
    supplied = sum(len(chunk.sentences) for chunk in chunks)
    weights = {word: math.log(1 + (supplied + 1) / (frequency[word] + 0.5)) for word in claim.content}
    total = math.fsum(weights.values())  # exact, so that the order of a set does not show
    best = 0.0
    for chunk, words in zip(chunks, shared, strict=True):
        in_headings = claim.content & chunk.headings.content
        for first in range(len(words)):
            held = in_headings.union(*words[first : first + WINDOW])
            share = math.fsum(weights[word] for word in held) / total
            if share > best:
                window = [*chunk.sentences[first : first + WINDOW], chunk.headings]
                best = max(best, share if _consistent(claim, window) else _CONTRADICTED * share)
    return best


def _consistent(claim: Sentence, window: Sequence[Sentence]) -> bool:
    present = frozenset[str]().union(*(sentence.content for sentence in window))
    numbers = frozenset[tuple[str, str]]().union(*(sentence.numbers for sentence in window))
    bare = {number for number, _ in numbers}
    if any((number, unit) not in numbers if unit else number not in bare for number, unit in claim.numbers):
        return False
    if not claim.names <= present:
        return False
    closest = max(window, key=lambda sentence: len(claim.content & sentence.content))
    return bool(claim.negations) == _negates(closest, claim.content)


def _negates(sentence: Sentence, content: frozenset[str]) -> bool:
    """Whether a negation stands within, or shortly before, the words the sentence shares with the claim."""
    shared = [position for position, word in enumerate(sentence.stems) if word in content]
    if not shared:
        return bool(sentence.negations)
    return any(shared[0] - _NEGATION_REACH <= position <= shared[-1] + 1 for position in sentence.negations)


@lru_cache(maxsize=20_000)
def analyse_chunk(text: str) -> Chunk:
    """Split a chunk into sentences and headings."""
    headings = [line for line in text.splitlines() if line.lstrip().startswith("#")]
    body = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    return Chunk(tuple(analyse(sentence) for sentence in sentences(body)), analyse(" ".join(headings)))


def analyse(text: str) -> Sentence:
    """Take a sentence apart into what is compared."""
    tokens = _TOKEN.findall(_MARKUP.sub("", text).replace("’", "'"))
    stems: list[str] = []
    content: set[str] = set()
    numbers: set[tuple[str, str]] = set()
    names: set[str] = set()
    negations: list[int] = []
    for position, token in enumerate(tokens):
        lower = token.lower()
        number = _number(lower)
        if number is not None:
            word = number
            numbers.add((word, _unit(tokens, position)))
            content.add(word)
        elif lower in NEGATIONS or lower.endswith("n't"):
            word = lower
            negations.append(len(stems))
        else:
            word = _UNITS.get(lower) or stem(lower.removesuffix("'s"))
            if lower not in STOP_WORDS and not (lower in _UNITS and len(lower) == 1):
                content.add(word)
                if (token[0].isupper() and position > 0) or _CODE.fullmatch(token):
                    names.add(word)
        stems.append(word)
    return Sentence(tuple(stems), frozenset(content), frozenset(numbers), frozenset(names), tuple(negations))


def _number(token: str) -> str | None:
    if token in _NUMBER_WORDS:
        return _NUMBER_WORDS[token]
    if ordinal := _ORDINAL.fullmatch(token):
        return ordinal[1]
    if not token[0].isdigit() or _CODE.fullmatch(token):
        return None
    return re.sub(r"[.,](?=\d{3}(?:\D|$))", "", token).replace(",", ".")


def _unit(tokens: Sequence[str], position: int) -> str:
    after = _UNITS.get(tokens[position + 1].lower(), "") if position + 1 < len(tokens) else ""
    before = tokens[position - 1] if position else ""
    return after or (before if before in _CURRENCIES else "")
