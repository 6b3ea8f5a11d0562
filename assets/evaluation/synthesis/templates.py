"""Templates: questions of two statements, and statements changed on purpose; by rules and a seed alone.

Belongs here: bridging, comparing, swapping names, rewording, misspelling.
Does not belong here: taking a fact out of a statement (cloze.py), and whether what came of it is any good (filters.py).
"""

import random
import re
from collections.abc import Sequence

from assets.evaluation.metrics.words import STOP_WORDS, word_list, words
from assets.evaluation.synthesis.cloze import GAP, Blank, ask, names
from assets.evaluation.synthesis.drafts import Quote
from assets.evaluation.synthesis.search import terms

PLACEHOLDER = "[X]"
#: Invented names. Those that a document knows after all are not used.
INVENTED = (
    "Torvald Ellingham", "Maribel Quonsett", "Ansgar Veltrino", "Odile Brackwater", "Castellane Institute", "Port Halvane",
    "Lake Ombrity", "Saint Ferrowick", "Gideon Marlsbury", "Tessaly Norrgard", "Verholt Foundation", "Mount Kessendra",
    "Ilka Drummowen", "Bastian Orlovane", "Harrowmere", "Quintessa Baldrane", "Wexcombe Abbey", "Dorrin Valley",
    "Pellworth Society", "Lucan Fairhollow", "Zephrine Tollard", "Ostermoor", "Calvessa", "Rodrick Penhallow-Voss",
)  # fmt: skip

#: Words that may stand for each other in most sentences; each line one set, of which any may replace another.
_SYNONYMS = (
    ("began", "started"), ("begins", "starts"), ("begin", "start"), ("built", "constructed"), ("build", "construct"),
    ("large", "big"), ("larger", "bigger"), ("largest", "biggest"), ("famous", "well-known"), ("located", "situated"),
    ("near", "close to"), ("many", "numerous"), ("used", "employed"), ("uses", "employs"), ("called", "named"),
    ("helped", "assisted"), ("helps", "assists"), ("help", "assist"), ("shows", "demonstrates"), ("showed", "demonstrated"),
    ("created", "produced"), ("creates", "produces"), ("important", "significant"), ("often", "frequently"),
    ("usually", "normally"), ("approximately", "roughly"), ("about", "around"), ("almost", "nearly"), ("major", "main"),
    ("ended", "finished"), ("buy", "purchase"), ("bought", "purchased"), ("required", "needed"), ("requires", "needs"),
    ("people", "persons"), ("obtained", "got"), ("received", "got"), ("allow", "permit"), ("allows", "permits"),
    ("allowed", "permitted"), ("entire", "whole"), ("increase", "rise"), ("increased", "rose"), ("decreased", "fell"),
    ("founded", "established"), ("leading", "foremost"), ("various", "different"), ("several", "a number of"),
    ("common", "widespread"), ("main", "chief"), ("following", "after"), ("became", "turned into"), ("old", "aged"),
    ("include", "comprise"), ("includes", "comprises"), ("included", "comprised"), ("contains", "holds"),
    ("provide", "supply"), ("provides", "supplies"), ("provided", "supplied"), ("difficult", "hard"), ("quickly", "fast"),
    ("believed", "thought"), ("believe", "think"), ("considered", "regarded as"), ("particularly", "especially"),
    ("primarily", "mainly"), ("typically", "as a rule"), ("currently", "at present"), ("must", "has to"), ("wide", "broad"),
    ("remove", "take off"), ("removed", "took away"), ("fix", "repair"), ("replace", "exchange"), ("replaced", "exchanged"),
    ("whole", "entire"), ("powerful", "strong"), ("led", "headed"), ("killed", "slain"), ("attack", "assault"),
)  # fmt: skip
_SYNONYM: dict[str, str] = {}
for _one, _other in _SYNONYMS:
    _SYNONYM.setdefault(_one, _other)
    if " " not in _other:
        _SYNONYM.setdefault(_other, _one)

_MULTIPLES = frozenset({"hundr", "hundred", "thousand", "million", "billion", "trillion"})
#: Parts of names that say nothing alone.
_KINDS_OF_PLACES = word_list("institute port lake saint foundation mount abbey valley society")

_GERMAN_GAP = re.compile(r"Was gehört in die Lücke: „(.+)“\?")

#: How hurried people begin and end a question.
_GREETINGS = ("hi, ", "hello all, ", "quick question: ", "hey ", "pls help, ", "anyone know: ", "")
_ENDINGS = ("??", " ?", "", " thx", "? thanks", " pls")


def bridge(first: Quote, second: Quote, name: str, blank: Blank) -> str | None:
    """A question that needs both: the first says of whom, the second what. None when the name shows through."""
    described = _masked(first.text, name)
    masked = second.text[: blank.start] + GAP + second.text[blank.end :]
    asked = _masked(masked, name)
    if described is None or asked is None or GAP not in asked:
        return None
    what = {"year": "year", "share": "percentage", "number": "number", "term": "word"}.get(blank.asks, "name")
    described, asked = described.rstrip(".! "), asked.rstrip(".! ")
    return f"The documents say of something, called {PLACEHOLDER} here: “{described}”. Which {what} fills the gap in “{asked}”?"


def _masked(text: str, name: str) -> str | None:
    """The text with a placeholder for a name; None when a part of the name stands elsewhere too."""
    masked = re.sub(rf"(?<!\w){re.escape(name)}(?:['’]s)?(?!\w)", PLACEHOLDER, text)
    left = set(words(masked))
    if PLACEHOLDER not in masked or any(word in left for word in words(name) if word not in STOP_WORDS):
        return None
    return masked


def compare(first: Quote, second: Quote, one: Blank, other: Blank) -> tuple[str, str] | None:
    """(question, answer): which of two years is earlier, or of two numbers of the same thing larger."""
    left, right = (value.answer.replace(",", "") for value in (one, other))
    if float(left) == float(right):
        return None
    gaps = [
        (statement.text[: blank.start] + GAP + statement.text[blank.end :]).rstrip(".! ")
        for statement, blank in ((first, one), (second, other))
    ]
    both = f"the one missing in “{gaps[0]}”, or the one missing in “{gaps[1]}”"
    if one.asks == "year":
        return f"Which year is earlier: {both}?", (one if float(left) < float(right) else other).answer
    return f"Which number is larger: {both}?", (one if float(left) > float(right) else other).answer


def counted_thing(text: str, blank: Blank) -> str:
    """Stem of the word after a number: what is counted."""
    after = terms(text[blank.end :][:40])
    return after[0] if after and after[0] not in _MULTIPLES else ""


def swap(statement: Quote, blank: Blank, name: str, other: str) -> str | None:
    """The question of a blank with a name replaced by another; None when it would not change."""
    text = statement.text
    place = re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text)
    if place is None or (place.start() < blank.end and blank.start < place.end()):
        return None
    shift = len(other) - len(name) if place.end() <= blank.start else 0
    changed = text[: place.start()] + other + text[place.end() :]
    moved = Blank(blank.start + shift, blank.end + shift, blank.answer, blank.asks)
    # a subject is asked for with the beginning of the sentence
    return ask(changed, moved, statement.passage.language)


def swappable(statement: Quote, blank: Blank) -> list[str]:
    """Names of a statement that stand outside of the blank, once."""
    text, inside = statement.text, set(words(blank.answer))
    return [
        name
        for name in dict.fromkeys(names(text, statement.passage.language))
        if text.count(name) == 1 and inside.isdisjoint(words(name))
    ]


def reword(question: str, chance: random.Random) -> str | None:
    """The question in other words: words that may stand for others, and a leading phrase moved to its end.

    None when nothing could be changed.
    """
    changed = 0

    def other(match: re.Match[str]) -> str:
        nonlocal changed
        word = match[0]
        found = _SYNONYM.get(word.lower())
        if found is None or question[: match.start()].lower().endswith("how "):
            return word
        changed += 1
        return found.capitalize() if word[0].isupper() else found

    reworded = re.sub(r"[A-Za-z-]+", other, question)
    opening = re.match(r"((?:In|At|During|After|Before|By|Since|For|On|Under) [^,“”?:]{3,60}), (?=\S)(.+)\?$", reworded)
    if opening and "which" not in opening[1] and "how many" not in opening[1]:
        first = opening[2]
        reworded = f"{first[0].upper()}{first[1:]}, {opening[1][0].lower()}{opening[1][1:]}?"
        changed += 1
    reworded = re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", reworded)
    reworded = re.sub(r"\b([Aa])n (?=[bcdfgjklmnpqrstvwxyz])", r"\1 ", reworded)
    gap = re.fullmatch(r"Which (\w+) fills the gap: “(.+)”\?", reworded)
    if gap:
        form = chance.choice(
            (
                "“{0}”: which {1} is left out here?",
                "What is the missing {1} in “{0}”?",
                "Say which {1} belongs here: “{0}”?",
            )
        )
        reworded = form.format(gap[2], gap[1])
    return reworded if changed else None


def keywords(question: str) -> str:
    """The question as people type it into a search box: without function words."""
    gap = re.fullmatch(r"Which (\w+) fills the gap: “(.+)”\?", question)
    german = _GERMAN_GAP.fullmatch(question)
    body = gap[2] if gap else german[1] if german else question.rstrip("?")
    kept = [
        token
        for token in re.findall(r"____|[\w'’.,%-]*\w%?", body)
        if token.lower() not in STOP_WORDS or token.lower() in ("how", "many", "which", "who", "what")
    ]
    said = " ".join(token for token in kept if token != GAP)
    return f"{said}: which {gap[1]}?" if gap else f"{said}: was fehlt?" if german else f"{said}?"


def misspell(question: str, chance: random.Random, *, errors: int = 2) -> str:
    """The question with typing errors in longer words, without capitals, as hurried people send it."""
    tokens = re.split(r"(\W+)", re.sub("[“”„]", "", question).lower())
    places = [
        number for number, token in enumerate(tokens) if len(token) > 4 and token.isalpha() and token not in STOP_WORDS
    ]
    for number in sorted(chance.sample(places, min(errors, len(places)))):
        tokens[number] = _typo(tokens[number], chance)
    body = "".join(tokens).strip().rstrip("?").replace(GAP.lower(), "...")
    return f"{chance.choice(_GREETINGS)}{' '.join(body.split())}{chance.choice(_ENDINGS)}"


def _typo(word: str, chance: random.Random) -> str:
    at = chance.randrange(1, len(word) - 1)
    match chance.randrange(3):
        case 0:
            return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
        case 1:
            return word[:at] + word[at + 1 :]
        case _:
            return word[:at] + word[at] + word[at:]


def telling(name: str) -> tuple[str, ...]:
    """The words of a name or topic, each of which must stand nowhere for it to be unknown."""
    return tuple(word for word in words(name) if word not in STOP_WORDS and word not in _KINDS_OF_PLACES)


def content(question: str, leave_out: Sequence[str] = ()) -> tuple[str, ...]:
    """Distinct content stems of a question in order, without those of some names."""
    without = {term for name in leave_out for term in terms(name)}
    return tuple(dict.fromkeys(term for term in terms(question) if term not in without))
