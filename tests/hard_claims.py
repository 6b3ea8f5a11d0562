"""Hard claims: sentences of real paragraphs reworded, and the same with one fact changed.

Belongs here: making them, always the same ones. Does not belong here: any estimator, which must not be fitted on them.

A true claim is a sentence of its paragraph with other function words, synonyms, spellings of numbers and with words left
out. A false one is a sentence with one number, unit, name or opposite changed, a negation put in or taken out, or two
names exchanged, and reworded less. So a false claim shares nearly as many words with its paragraph as a true one, which
is what word overlap cannot tell.
"""

import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from assets.evaluation.metrics.words import sentences

KINDS = ("number", "unit", "entity", "negation", "opposite", "swap")

_SYNONYMS = {
    "use": "employ", "used": "employed", "show": "demonstrate", "shows": "demonstrates", "began": "started",
    "called": "named", "known": "famous", "many": "numerous", "often": "frequently", "made": "created",
    "however": "nevertheless", "also": "additionally", "because": "since", "during": "throughout", "including": "such as",
    "became": "turned into", "important": "significant", "main": "principal", "area": "region", "built": "constructed",
    "large": "sizeable", "people": "persons", "several": "various", "found": "discovered", "gave": "provided",
    "about": "approximately", "nearly": "almost", "usually": "normally", "received": "obtained", "while": "whereas",
    "located": "situated", "such": "this kind of", "therefore": "thus", "common": "widespread", "developed": "evolved",
    "part": "portion", "major": "chief", "created": "established", "wrote": "penned", "helped": "assisted",
}  # fmt: skip
_UNITS = (
    ("kilometres", "miles"), ("km", "miles"), ("miles", "kilometres"), ("metres", "feet"), ("feet", "metres"), ("percent", "degrees"),
    ("%", " kg"), ("years", "months"), ("months", "years"), ("days", "weeks"), ("weeks", "days"), ("hours", "minutes"),
    ("minutes", "hours"), ("million", "billion"), ("billion", "million"), ("thousand", "million"),
)  # fmt: skip
_OPPOSITES = (
    ("more", "less"), ("first", "last"), ("before", "after"), ("after", "before"), ("largest", "smallest"), ("most", "fewest"),
    ("higher", "lower"), ("lower", "higher"), ("north", "south"), ("south", "north"), ("east", "west"), ("west", "east"),
    ("early", "late"), ("late", "early"), ("increased", "decreased"), ("all", "few"), ("above", "below"), ("northern", "southern"),
    ("southern", "northern"), ("eastern", "western"), ("western", "eastern"), ("new", "old"), ("old", "new"), ("large", "small"),
    ("small", "large"), ("high", "low"), ("low", "high"), ("began", "ended"), ("won", "lost"), ("lost", "won"),
    ("maximum", "minimum"), ("public", "private"), ("private", "public"), ("increase", "decrease"), ("same", "different"),
)  # fmt: skip
_AUXILIARY = re.compile(r"\b(is|are|was|were|can|could|will|would|should|must|has|have|had)\b(?! not|n't)")
_NAME = re.compile(r"(?<=[a-z,] )[A-Z][a-z]{3,}(?: [A-Z][a-z]{3,})*")
_NUMBER = re.compile(r"(?<![\w.,])\d{1,4}(?:\.\d+)?(?![\w.,]*\d)")


@dataclass(frozen=True)
class HardClaim:
    """A claim about a paragraph; ``group`` is the paragraph, ``kind`` what was changed, "" for a true claim."""

    claim: str
    context: str
    grounded: bool
    kind: str
    group: str


def hard_claims(data: Path, each: int = 150, seed: int = 5) -> list[HardClaim]:
    """``each`` false claims of every kind and as many true ones, from paragraphs of squad2."""
    chance = random.Random(seed)
    lines = (data / "squad2" / "paragraphs.jsonl").read_text(encoding="utf-8").splitlines()
    paragraphs = [json.loads(line) for line in lines]
    chance.shuffle(paragraphs)
    names = sorted({name for one in paragraphs for name in _NAME.findall(one["text"])})
    change: dict[str, Callable[[str, str], str | None]] = {
        "number": lambda text, _: _number(text, chance),
        "unit": lambda text, _: _replaced(text, _UNITS, chance),
        "entity": lambda text, context: _entity(text, context, names, chance),
        "negation": lambda text, _: _negation(text, chance),
        "opposite": lambda text, _: _replaced(text, _OPPOSITES, chance),
        "swap": lambda text, _: _swap(text),
    }
    counts = dict.fromkeys(KINDS, 0)
    true_ones, found = 0, []
    for paragraph in paragraphs:
        context = paragraph["text"]
        usable = [one for one in sentences(context) if 10 <= len(one.split()) <= 32]
        chance.shuffle(usable)
        for place, sentence in enumerate(usable[:2]):
            if place == 0 and true_ones < each * len(KINDS):
                found.append(HardClaim(_reworded(sentence, chance, 3), context, True, "", paragraph["paragraph_id"]))
                true_ones += 1
            if place == 0 and len(usable) > 1:
                continue
            for kind in sorted(KINDS, key=lambda kind: (counts[kind], kind)):
                changed = change[kind](sentence, context) if counts[kind] < each else None
                if changed is not None and changed != sentence:
                    claim = _reworded(changed, chance, 2)
                    found.append(HardClaim(claim, context, False, kind, paragraph["paragraph_id"]))
                    counts[kind] += 1
                    break
    return found


def _reworded(text: str, chance: random.Random, drops: int) -> str:
    """Synonyms, and up to ``drops`` plain lower-case words left out; numbers, names and negations stay."""
    out: list[str] = []
    words = text.split()
    plain = [
        place
        for place, word in enumerate(words)
        if word.isalpha() and word.islower() and len(word) > 5 and word not in _SYNONYMS and place > 0
        and not any(word in pair for pair in (*_OPPOSITES, *_UNITS))
    ]  # fmt: skip
    gone = set(chance.sample(plain, min(len(plain), chance.randint(0, drops))))
    for place, word in enumerate(words):
        if place in gone:
            continue
        out.append(_SYNONYMS.get(word, word) if chance.random() < 0.7 else word)
    return " ".join(out)


def _number(text: str, chance: random.Random) -> str | None:
    places = list(_NUMBER.finditer(text))
    if not places:
        return None
    one = chance.choice(places)
    changed = str(int(float(one[0])) + chance.choice([1, 2, 3, 7, 10, 20]))
    return text[: one.start()] + changed + text[one.end() :]


def _replaced(text: str, pairs: tuple[tuple[str, str], ...], chance: random.Random) -> str | None:
    fitting = [(a, b) for a, b in pairs if re.search(rf"(?<!\w){re.escape(a)}(?!\w)", text)]
    if not fitting:
        return None
    a, b = chance.choice(fitting)
    return re.sub(rf"(?<!\w){re.escape(a)}(?!\w)", b, text, count=1)


def _entity(text: str, context: str, names: list[str], chance: random.Random) -> str | None:
    places = list(_NAME.finditer(text))
    if not places:
        return None
    one = chance.choice(places)
    other = chance.choice([name for name in chance.sample(names, 50) if name not in context])
    return text[: one.start()] + other + text[one.end() :]


def _negation(text: str, chance: random.Random) -> str | None:
    if re.search(r"\bnot\b ", text):
        return re.sub(r"\bnot\b ", "", text, count=1)
    places = list(_AUXILIARY.finditer(text))
    if not places:
        return None
    one = chance.choice(places)
    return f"{text[: one.end()]} not{text[one.end() :]}"


def _swap(text: str) -> str | None:
    places = list(_NAME.finditer(text))
    if len(places) < 2:
        return None
    first, last = places[0], places[-1]
    between = text[first.end() : last.start()]
    if first[0] == last[0] or len(between.split()) < 2:
        return None
    return text[: first.start()] + last[0] + between + first[0] + text[last.end() :]
