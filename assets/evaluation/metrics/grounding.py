"""Groundedness without a judge: are the claims of an answer found in the supplied chunks?

Belongs here: splitting an answer into claims, and how likely a chunk entails one by its words and their order, numbers
with units, names, negation and opposites; pure and deterministic.
Does not belong here: ids, definitions and inputs (grounding_metrics.py), and groundedness as a judge model sees it, which
is another metric with another id.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from itertools import pairwise

from assets.evaluation.metrics.words import NEGATIONS, STOP_WORDS, sentences, stem
from resources.offline_text import commonness_weight
from resources.offline_text import stem as common_stem

#: A claim counts as entailed from this probability on, where yes or no is asked.
ENTAILED = 0.5
#: Neighbouring sentences that may support one claim together.
WINDOW = 3
#: What is left of the probability when a number, a name, a negation, an opposite or the order of names disagrees.
_CONTRADICTED = 0.2
#: Windows of one chunk that are looked at closely, those with most shared words first.
_CLOSE_LOOKS = 2
#: Names of a claim whose order is compared.
_MOST_NAMES = 5
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


#: Words that cannot both be true of the same thing, each line two sides.
_OPPOSITES = (
    ("all every each always", "some few several sometimes rarely seldom"),
    ("more greater higher larger bigger", "less fewer lower smaller"),
    ("most highest largest biggest greatest maximum", "least fewest lowest smallest minimum"),
    ("before prior earlier", "after later following"),
    ("above over", "below under beneath"),
    ("first", "last second third"),
    ("increase rise grow gain grew rose", "decrease fall shrink decline drop lose loss fell"),
    ("open", "close closed shut"),
    ("allow permit allowed permitted", "forbid prohibit ban deny forbidden prohibited banned"),
    ("accept approve", "reject refuse deny"),
    ("win won victory", "lose lost defeat"),
    ("start begin began", "end stop finish cease"),
    ("north northern", "south southern"),
    ("east eastern", "west western"),
    ("left", "right"),
    ("male men man", "female women woman"),
    ("early", "late"),
    ("old older oldest", "new newer newest young younger youngest"),
    ("high", "low"),
    ("large big", "small little"),
    ("long longer longest", "short shorter shortest"),
    ("hot warm", "cold cool"),
    ("fast faster fastest", "slow slower slowest"),
    ("strong stronger", "weak weaker"),
    ("rich", "poor"),
    ("possible", "impossible"),
    ("legal", "illegal"),
    ("public", "private"),
    ("domestic", "foreign"),
    ("import", "export"),
    ("buy", "sell"),
    ("include including", "exclude excluding"),
    ("with", "without"),
    ("success succeed successful", "failure fail failed unsuccessful"),
    ("true", "false"),
    ("same", "different"),
    ("minimum", "maximum"),
    ("immer alle jede jeder jedes", "manchmal einige selten"),
    ("mehr größer höher", "weniger kleiner niedriger"),
    ("vorher", "nachher danach"),
    ("erlaubt", "verboten"),
)
#: Compared as opposites; the words of the statement are others.
_QUANTIFIERS = frozenset({"every", "always", "sometimes", "several", "jede", "jeder", "jedes", "alle", "immer"})
_PERSONAL = frozenset({"i", "me", "my", "mine", "i'm", "i've", "i'd", "i'll", "we", "our", "us", "you", "your"})


@cache
def _opposites() -> dict[str, frozenset[str]]:
    """For each stem, those that cannot be true of the same thing."""
    found: dict[str, set[str]] = {}
    for one, other in _OPPOSITES:
        left, right = {stem(word) for word in one.split()}, {stem(word) for word in other.split()}
        for word in left:
            found.setdefault(word, set()).update(right - left)
        for word in right:
            found.setdefault(word, set()).update(left - right)
    return {word: frozenset(others) for word, others in found.items()}


@dataclass(frozen=True, eq=False)
class Sentence:
    """What is compared of one sentence.

    Attributes:
        stems: all its words in order, stemmed; numbers as written without thousands separators.
        content: the stems that carry content, numbers included.
        numbers: numbers with their unit ("" without one).
        names: stems of capitalised words that do not begin the sentence, and of codes such as "B500".
        negations: positions in ``stems`` of negating words.
        pairs: neighbouring stems.
        rarity: how much each content word tells, 0.05 to 1, whatever the supplied text.
        personal: it has a word such as "I" or "you".
    """

    stems: tuple[str, ...]
    content: frozenset[str]
    numbers: frozenset[tuple[str, str]]
    names: frozenset[str]
    negations: tuple[int, ...]
    pairs: frozenset[tuple[str, ...]]
    rarity: dict[str, float]
    personal: bool


@dataclass(frozen=True, eq=False)
class Chunk:
    """A supplied chunk: its sentences, and the words of its headings, which belong to each of them."""

    sentences: tuple[Sentence, ...]
    headings: Sentence

    @cached_property
    def content(self) -> frozenset[str]:
        """Content words of all of it."""
        return self.headings.content.union(*(one.content for one in self.sentences))


@dataclass(frozen=True)
class Assessed:
    """One claim against every supplied chunk.

    Attributes:
        share: weighted share of the claim's content words in the window that holds most of them, 0 to 1.
        entailed: for each chunk, how likely it entails the claim, 0 to 1.
    """

    share: float
    entailed: tuple[float, ...]

    @property
    def probability(self) -> float:
        """How likely some chunk entails the claim."""
        return max(self.entailed, default=0.0)


def groundedness(answer: str, chunks: Sequence[str]) -> float | None:
    """Expected share of the claims that are entailed; ``None`` when the answer makes no claim.

    Args:
        answer: the answer; citation marks such as ``[1]`` are ignored.
        chunks: texts supplied to the model; lines that begin with ``#`` are headings.
    """
    found = assess(answer, chunks)
    return math.fsum(one.probability for one in found) / len(found) if found else None


def assess(answer: str, chunks: Sequence[str]) -> list[Assessed]:
    """Every claim of the answer against every chunk."""
    found = claims(answer)
    supplied = [analyse_chunk(chunk) for chunk in chunks] if found else []
    return [assess_claim(claim, supplied) for claim in found]


def claims(answer: str) -> list[Sentence]:
    """The sentences of an answer that say something."""
    texts = (_INTERJECTION.sub("", text) for text in sentences(without_citations(answer)))
    return [claim for text in texts if (claim := analyse(text)).content]


def without_citations(text: str) -> str:
    """The text without marks such as ``[1, 2]``, whose numbers are no part of what it says."""
    return _CITATION.sub("", text)


def support(claim: Sentence, chunks: Sequence[Chunk]) -> float:
    """Weighted share of the claim's content words in the window that holds most of them, 0 to 1."""
    return assess_claim(claim, chunks).share


def assess_claim(claim: Sentence, chunks: Sequence[Chunk]) -> Assessed:
    """One claim against every chunk.

    A word weighs ln(1 + (n + 1) ÷ (f + 0.5)), where f of the n supplied sentences hold it.
    """
    shared = [[claim.content & sentence.content for sentence in chunk.sentences] for chunk in chunks]
    frequency = Counter(word for chunk in shared for words in chunk for word in words)
    supplied = sum(len(chunk.sentences) for chunk in chunks)
    weights = {word: math.log(1 + (supplied + 1) / (frequency[word] + 0.5)) for word in claim.content}
    total = math.fsum(weights.values())  # exact, so that the order of a set does not show
    best = 0.0
    entailed = []
    for chunk, words in zip(chunks, shared, strict=True):
        in_headings = claim.content & chunk.headings.content
        windows = []
        for first in range(len(words)):
            held = in_headings.union(*words[first : first + WINDOW])
            if held:
                windows.append((-math.fsum(weights[word] for word in held) / total, first, held))
        windows.sort(key=lambda one: one[:2])
        probability = 0.0
        for share, first, held in windows[:_CLOSE_LOOKS]:
            best = max(best, -share)
            window = [*chunk.sentences[first : first + WINDOW], chunk.headings]
            found = _probability(features(claim, window, held))
            if contradicts(claim, window):
                found *= _CONTRADICTED
            probability = max(probability, found)
        entailed.append(probability)
    return Assessed(best, tuple(entailed))


#: Features of a claim and a window, in the order of ``features``.
FEATURES = ("plain", "rare", "pairs", "missing", "length", "personal")
#: Logistic regression on begin-dev; made by ``tests/benchmarks/fit_grounding.py``, which also has the figures.
INTERCEPT = -4.387
COEFFICIENTS = (3.123, 1.373, 1.900, -0.768, 0.239, -2.089)


def features(claim: Sentence, window: Sequence[Sentence], held: frozenset[str]) -> tuple[float, ...]:
    """What the probability is computed from.

    Args:
        held: the claim's content words that the window has.

    Returns:
        Share of the claim's content words that are held; the same by rarity; share of its pairs of neighbouring words
        (function words too) that stand so in the window; ln(1 + rarity of what is missing, summed); ln(1 + number of
        content words); 1 if it speaks of "I" or "you" and the window does not.
    """
    missing = math.fsum(claim.rarity[word] for word in claim.content - held)
    plain = len(held) / len(claim.content)
    pairs = len(claim.pairs & frozenset[tuple[str, ...]]().union(*(one.pairs for one in window)))
    return (
        plain,
        1 - missing / math.fsum(claim.rarity.values()),
        pairs / len(claim.pairs) if claim.pairs else plain,
        math.log1p(missing),
        math.log1p(len(claim.content)),
        float(claim.personal and not any(one.personal for one in window)),
    )


def _probability(values: Sequence[float]) -> float:
    score = INTERCEPT + math.fsum(weight * value for weight, value in zip(COEFFICIENTS, values, strict=True))
    return 1 / (1 + math.exp(-score))


def contradicts(claim: Sentence, window: Sequence[Sentence]) -> bool:
    """Whether a number, unit, name, negation, opposite or the order of names of the claim disagrees with the window."""
    present = frozenset[str]().union(*(sentence.content for sentence in window))
    numbers = frozenset[tuple[str, str]]().union(*(sentence.numbers for sentence in window))
    bare = {number for number, _ in numbers}
    if any((number, unit) not in numbers if unit else number not in bare for number, unit in claim.numbers):
        return True
    if not claim.names <= present:
        return True
    closest = max(window, key=lambda sentence: len(claim.content & sentence.content))
    if bool(claim.negations) != _negates(closest, claim.content):
        return True
    return _opposes(claim, closest) or _swaps(claim, closest)


def _negates(sentence: Sentence, content: frozenset[str]) -> bool:
    """Whether a negation stands within, or shortly before, the words the sentence shares with the claim."""
    shared = [position for position, word in enumerate(sentence.stems) if word in content]
    if not shared:
        return bool(sentence.negations)
    return any(shared[0] - _NEGATION_REACH <= position <= shared[-1] + 1 for position in sentence.negations)


def _opposes(claim: Sentence, sentence: Sentence) -> bool:
    """Whether the claim has a word of which the sentence only has an opposite, in the same place.

    The same place: next to a word that both share.
    """
    said, opposites = set(sentence.stems), _opposites()
    for position, word in enumerate(claim.stems):
        others = opposites.get(word)
        if others is None or word in said or not others & said:
            continue
        around = {*claim.stems[max(0, position - 2) : position], *claim.stems[position + 1 : position + 3]} & said
        for place, other in enumerate(sentence.stems):
            if other in others and around & {*sentence.stems[max(0, place - 2) : place + 3]}:
                return True
    return False


def _swaps(claim: Sentence, sentence: Sentence) -> bool:
    """Whether two names change places around the same word, without the passive that would make up for it."""
    either = (claim.names | sentence.names) & claim.content & sentence.content  # one of them may begin a sentence
    names = [word for word in dict.fromkeys(claim.stems) if word in either][:_MOST_NAMES]
    if len(names) < 2 or ("by" in claim.stems) != ("by" in sentence.stems):
        return False
    for place, first in enumerate(names):
        for last in names[place + 1 :]:
            here, there = _between(claim, first, last, either), _between(sentence, last, first, either)
            if here and there and 2 * len(here & there) >= len(here | there):
                return True
    return False


def _between(sentence: Sentence, first: str, last: str, names: frozenset[str]) -> set[str]:
    """Content words, but names, between the first place of one word and the last place of another."""
    start = sentence.stems.index(first)
    end = len(sentence.stems) - 1 - sentence.stems[::-1].index(last)
    return {word for word in sentence.stems[start + 1 : end] if word in sentence.content and word not in names}


@lru_cache(maxsize=20_000)
def analyse_chunk(text: str) -> Chunk:
    """Split a chunk into sentences and headings."""
    headings = [line for line in text.splitlines() if line.lstrip().startswith("#")]
    body = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    return Chunk(tuple(analyse(sentence) for sentence in sentences(body)), analyse(" ".join(headings)))


@lru_cache(maxsize=50_000)
def analyse(text: str) -> Sentence:
    """Take a sentence apart into what is compared."""
    tokens = _TOKEN.findall(_MARKUP.sub("", text).replace("’", "'"))
    stems: list[str] = []
    rarity: dict[str, float] = {}
    numbers: set[tuple[str, str]] = set()
    names: set[str] = set()
    negations: list[int] = []
    personal = False
    for position, token in enumerate(tokens):
        lower = token.lower()
        number = _number(lower)
        if number is not None:
            word = number
            numbers.add((word, _unit(tokens, position)))
            rarity[word] = 1.0
        elif lower in NEGATIONS or lower.endswith("n't"):
            word = lower
            negations.append(len(stems))
        else:
            word = _UNITS.get(lower) or stem(lower.removesuffix("'s"))
            personal = personal or lower in _PERSONAL
            if lower not in STOP_WORDS and lower not in _QUANTIFIERS and not (lower in _UNITS and len(lower) == 1):
                rarity[word] = _rarity(lower)
                if (token[0].isupper() and position > 0) or _CODE.fullmatch(token):
                    names.add(word)
        stems.append(word)
    return Sentence(
        stems=tuple(stems),
        content=frozenset(rarity),
        numbers=frozenset(numbers),
        names=frozenset(names),
        negations=tuple(negations),
        pairs=frozenset(pairwise(stems)),
        rarity=rarity,
        personal=personal,
    )


@lru_cache(maxsize=200_000)
def _rarity(word: str) -> float:
    return commonness_weight(common_stem(word))


def _number(token: str) -> str | None:
    if not token[0].isdigit():
        return _NUMBER_WORDS.get(token)
    if ordinal := _ORDINAL.fullmatch(token):
        return ordinal[1]
    if _CODE.fullmatch(token):
        return None
    return re.sub(r"[.,](?=\d{3}(?:\D|$))", "", token).replace(",", ".")


def _unit(tokens: Sequence[str], position: int) -> str:
    after = _UNITS.get(tokens[position + 1].lower(), "") if position + 1 < len(tokens) else ""
    before = tokens[position - 1] if position else ""
    return after or (before if before in _CURRENCIES else "")
