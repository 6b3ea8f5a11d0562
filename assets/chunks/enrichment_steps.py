"""Enrichment steps, offline: the value of a step for one chunk, by rules that need no model and no network.

Belongs here: pure functions from a chunk (and its headings) to a value, and what a value looks like as text.
Does not belong here: model calls (enrichment_models.py), the cache (enrichment_cache.py), where a value goes
(enrichment.py).

Every value is a function of the chunk's own characters, for ``questions`` also of the headings above it, and of
nothing else: no statistics of the corpus, so that a value never changes because another document did. What these rules
know is modest, and English where it is about words; docs/enrichment.md says what they are worth.

A value is JSON: a list of strings for keywords and questions, of ``{"text", "type"}`` for entities, a string for the
others.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any

from resources.index_config import EnrichmentStep, StepKind
from resources.offline_text import commonness_weight, stem
from resources.query_cleaning import clean_text

Value = str | list[Any]

#: What stands for a language that cannot be told, as in ISO 639-3.
UNDETERMINED = "und"
_LANGUAGE_CONFIDENCE = 0.3
_LANGUAGE_CHARACTERS = 2_000

_SENTENCE_END = re.compile(r"(?<=[.!?。！？])[\"')\]]*\s+(?=[\"'(\[]?[^\W_a-z])|(?<=[。！？])|\n{2,}|(?<=[;:])\n")
_STOPS = (".", "!", "?", "。", "！", "？", '."', ".)")
_WORD = re.compile(r"[^\W_]+(?:['’&./+-][^\W_]+)*")
_CONTENT_WEIGHT = 0.45
_PHRASE_WORDS = 3
_PHRASE_BREAK = re.compile(r"[^\w\s'’&/+-]|_|\.(?!\d)|\n")

_MONTH = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?|Oct(?:ober)?"
    r"|Nov(?:ember)?|Dec(?:ember)?)"
)
_UNIT = (
    r"(?:km/h|mph|m/s|kWh|Wh|mAh|Ah|kW|MW|Nm|kN|psi|bar|kPa|MPa|Hz|kHz|MHz|GHz|kB|KB|MB|GB|TB|Mbit/s|Gbit/s|dB"
    r"|km|cm|mm|kg|mg|ml|cl|°C|°F|lbs?|oz|ft|rpm|miles?|metres?|meters?|hours?|minutes?|seconds?|days?|weeks?|months?"
    r"|years?|percent|per cent|inch(?:es)?|litres?|liters?|[mgstVAWNJK](?![\w/]))"
)
#: Bounded, so that no run of digits makes a pattern slow.
_NUMBER = r"\d{1,12}(?:[.,]\d{1,6}){0,4}"
#: In this order: what an earlier pattern took, a later one does not see.
_PATTERNS: tuple[tuple[str, re.Pattern[str]], ...] = (
    (
        "date",
        re.compile(
            rf"\b(?:\d{{4}}-\d{{2}}-\d{{2}}|\d{{1,2}}(?:st|nd|rd|th)? {_MONTH}\.? \d{{4}}|{_MONTH}\.? \d{{1,2}}(?:st|nd|rd|th)?,? \d{{4}}"
            rf"|{_MONTH} \d{{4}}|\d{{1,2}}[./]\d{{1,2}}[./]\d{{2,4}})\b"
        ),
    ),
    (
        "money",
        re.compile(
            rf"(?:[€$£¥]|\b(?:USD|EUR|GBP|CHF|JPY)\b) ?{_NUMBER}(?: ?(?:million|billion|bn|m|k)\b)?"
            rf"|(?<![\w.,]){_NUMBER} ?(?:€|\$|£|EUR|USD|GBP|CHF|euros?|dollars?|pounds?)(?!\w)"
        ),
    ),
    ("version", re.compile(
        r"\b[vV]\d{1,6}(?:\.\d{1,6}){0,4}[a-z]?\b|(?<![\w.])\d{1,6}\.\d{1,6}\.\d{1,6}(?:[-+.]\w{1,20})?\b"
        r"|\b[Vv]ersion \d{1,6}(?:\.\d{1,6}){0,4}\b")),
    (
        "measure",
        re.compile(rf"(?<![\w.,-])[-+±]?{_NUMBER}(?: ?(?:-|–|to|x|×) ?{_NUMBER})? ?(?:%|{_UNIT})(?!\w)"),
    ),
    ("code", re.compile(
        r"(?<![\w-])(?=[A-Z0-9-]{0,55}[A-Z])(?=[A-Z0-9-]{0,55}\d)[A-Z0-9]{1,10}(?:-[A-Z0-9]{1,10}){0,4}(?![\w-])")),
)  # fmt: skip
_CAPITALISED = re.compile(
    r"[A-ZÀ-ÖØ-Þ][\w&'’-]*(?: (?:(?:of|the|and|de|la|von|van|der|du|del|for) )?[A-ZÀ-ÖØ-Þ0-9][\w&'’-]*){0,5}"
)
_SENTENCE_START = re.compile(r"(?:\A|[.!?:;]['\")\]]*\s+|\n\s*|[\"'(\[])\Z")

_DEFINITION = re.compile(
    r"^(?P<term>(?:(?:An?|The) )?[A-Za-z][\w/-]*(?: [\w/-]+){0,3}) "
    r"(?P<verb>is|are|means|refers to|denotes) (?:an? |the |any |one of )",
)
_COLON_DEFINITION = re.compile(r"^(?P<term>[A-Z][\w/-]*(?: [\w/-]+){0,3}): (?=[A-Za-z])")
_NOT_TERMS = frozenset(
    ("it", "this", "that", "these", "those", "there", "here", "he", "she", "they", "we", "you", "i", "what", "which",
     "who", "note", "example", "see", "warning", "caution", "tip")
)  # fmt: skip
_QUESTION_WORD = re.compile(
    r"(?:how|what|when|where|why|who|which|can|do|does|is|are|should|may|will)\b", re.IGNORECASE
)
_GERUND = re.compile(r"([a-z]{2,}ing)\b", re.IGNORECASE)
_NOT_GERUNDS = frozenset(
    ("string", "thing", "nothing", "anything", "everything", "king", "ring", "spring", "wing", "bring", "bearing",
     "ceiling")
)  # fmt: skip


def offline_value(step: EnrichmentStep, text: str, heading_path: Sequence[str]) -> Value:
    """The value of an offline step for a chunk; empty where there is nothing to find."""
    return _OFFLINE[step.kind](step, text, heading_path)


def as_text(value: Value | None) -> str:
    """A value as it is added to what is embedded or searched: without labels, which would only be more words."""
    if not value:
        return ""
    if isinstance(value, str):
        return value
    items = [item["text"] if isinstance(item, dict) else item for item in value]
    return ("\n" if any(item.endswith(("?", "？")) for item in items) else ", ").join(items)


def value_problem(step: EnrichmentStep, value: Any) -> str | None:
    """What is wrong with a value, without quoting it; None when it has the right shape and length."""
    if step.kind in ("clean", "summary", "language"):
        if not isinstance(value, str):
            return "it is no string"
    elif not isinstance(value, list):
        return "it is no list"
    elif len(value) > step.count:
        return f"{len(value)} items, allowed are {step.count}"
    elif step.kind == "entities":
        if not all(isinstance(item, dict) and set(item) == {"text", "type"} for item in value):
            return "an item is not an object of text and type"
        if not all(isinstance(part, str) and part.strip() for item in value for part in item.values()):
            return "an item has no text or no type"
    elif not all(isinstance(item, str) and item.strip() for item in value):
        return "an item is not a text"
    if step.kind != "clean" and len(as_text(value)) > step.max_characters:
        return f"{len(as_text(value))} characters, allowed are {step.max_characters}"
    return None


def within(items: Sequence[Any], step: EnrichmentStep) -> list[Any]:
    """The first items that fit the count and the length of a step together."""
    kept: list[Any] = []
    for item in items[: step.count]:
        if len(as_text([*kept, item])) > step.max_characters:
            break
        kept.append(item)
    return kept


# --- sentences and words -----------------------------------------------------------------------------------


def sentences(text: str) -> list[str]:
    """Sentences of a cleaned text, white space within them normalised; a heading or a list item is one of its own."""
    found = (" ".join(part.split()) for part in _SENTENCE_END.split(text))
    return [part for part in found if part]


def _words(text: str) -> list[str]:
    return _WORD.findall(text)


@lru_cache(maxsize=200_000)
def _weight(word: str) -> float:
    """How much a lower-cased word tells: 0 for numbers and single letters, else as the offline embedder weighs it."""
    if len(word) < 2 or word.isdigit():
        return 0.0
    return commonness_weight(stem(word))


def _cut(text: str, limit: int) -> str:
    """At most ``limit`` characters, ending at a word."""
    if len(text) <= limit:
        return text
    kept = text[:limit]
    return (kept[: kept.rfind(" ")] if " " in kept else kept).rstrip(" ,;:-")


# --- the steps ---------------------------------------------------------------------------------------------


def _clean(step: EnrichmentStep, text: str, heading_path: Sequence[str]) -> str:
    return clean_text(text)


def _keywords(step: EnrichmentStep, text: str, heading_path: Sequence[str]) -> list[str]:
    """Telling words and phrases of up to three words, best first.

    Candidates are runs of telling words, as in RAKE (Rose et al. 2010). A word scores (1 + ln of its occurrences) times
    how rare it is in English, a little more where it stands early (as in YAKE, Campos et al. 2020); a phrase scores the
    mean of its words times (1 + ln of its occurrences) times the square root of its length. A phrase whose words
    are all in a better one is left out.
    """
    cleaned = clean_text(text)
    runs: list[list[str]] = []
    counts: Counter[str] = Counter()
    first: dict[str, int] = {}
    position = 0
    for part in _PHRASE_BREAK.split(cleaned):
        run: list[str] = []
        for word in _words(part):
            low = word.lower()
            position += 1
            if _weight(low) < _CONTENT_WEIGHT:
                runs.append(run)
                run = []
                continue
            stemmed = stem(low)
            counts[stemmed] += 1
            first.setdefault(stemmed, position)
            run.append(word)
        runs.append(run)
    scores = {
        word: (1 + math.log(count)) * commonness_weight(word) * (1 + 1 / (1 + math.log(first[word] + 1)))
        for word, count in counts.items()
    }
    phrases: Counter[tuple[str, ...]] = Counter()
    shown: dict[tuple[str, ...], str] = {}
    for run in runs:
        stems = [stem(word.lower()) for word in run]
        for size in range(1, _PHRASE_WORDS + 1):
            for at in range(len(run) - size + 1):
                key = tuple(stems[at : at + size])
                if len(set(key)) == size:
                    phrases[key] += 1
                    shown.setdefault(key, " ".join(run[at : at + size]))
    ranked = sorted(
        phrases,
        key=lambda key: (
            -sum(scores[word] for word in key) / len(key) * (1 + math.log(phrases[key])) * math.sqrt(len(key)),
            min(first[word] for word in key),
            key,
        ),
    )
    chosen: list[tuple[str, ...]] = []
    for key in ranked:
        if len(chosen) == step.count:
            break
        if not any(set(key) & set(other) for other in chosen):
            chosen.append(key)
    return within([_cut(shown[key], step.max_characters) for key in chosen], step)


def _entities(step: EnrichmentStep, text: str, heading_path: Sequence[str]) -> list[dict[str, str]]:
    """Dates, amounts of money, versions, measures, product codes and capitalised names, in order of appearance.

    Found by patterns, not by a model of names: a capitalised word counts as a name where it cannot be capitalised
    merely because a sentence begins.
    """
    cleaned = clean_text(text)
    found: list[tuple[int, str, str]] = []
    rest = cleaned
    for kind, pattern in _PATTERNS:
        for match in pattern.finditer(rest):
            found.append((match.start(), " ".join(match[0].split()), kind))
        rest = pattern.sub(lambda match: "\x00" * len(match[0]), rest)
    found += _names(rest)
    kept: dict[str, tuple[str, str]] = {}
    for _, name, kind in sorted(found):
        kept.setdefault(name.casefold(), (name, kind))
    items = [{"text": _cut(name, step.max_characters), "type": kind} for name, kind in kept.values()]
    return within(items, step)


def _names(text: str) -> list[tuple[int, str, str]]:
    names = []
    for match in _CAPITALISED.finditer(text):
        name, start = match[0], match.start()
        if start and (text[start - 1].isalnum() or text[start - 1] == "_"):
            continue
        name = name.rstrip("-'’&").removesuffix("'s").removesuffix("’s")
        if _SENTENCE_START.search(text[max(0, start - 4) : start]) or start == 0:
            # the first word of a sentence tells nothing, unless it is a name of several words or in capitals
            head, _, tail = name.partition(" ")
            if (_weight(head.lower()) < 1.0 or not tail) and not (head.isupper() and len(head) > 1):
                start, name = start + len(head) + 1, tail
        name = re.sub(r"^(?:(?:of|the|and|de|la|von|van|der|du|del|for) )+", "", name)
        words = name.split()
        if len(name) < 2 or not name[0].isupper():
            continue
        if len(words) == 1 and (_weight(name.lower()) < _CONTENT_WEIGHT):
            continue
        names.append((start, name, "name"))
    return names


def _summary(step: EnrichmentStep, text: str, heading_path: Sequence[str]) -> str:
    """The sentence that has most in common with the whole chunk, as it stands in it; earlier ones win ties.

    Cosine between weighted stems of the sentence and of the chunk (a centroid, as in Radev et al. 2004), times 1.1 for
    the first sentence. Lines that end without a full stop, such as headings, and sentences of fewer than four words
    count only where there is nothing else.
    """
    found = sentences(clean_text(text))
    found = [sentence for sentence in found if sentence.endswith(_STOPS)] or found
    if not found:
        return ""
    bags = [_bag(sentence) for sentence in found]
    whole: Counter[str] = Counter()
    for bag in bags:
        whole.update(bag)
    centroid = {word: (1 + math.log(count)) * commonness_weight(word) for word, count in whole.items()}
    norm = math.sqrt(sum(value * value for value in centroid.values())) or 1.0
    best, best_score = 0, -1.0
    longest = max(len(bag) for bag in bags)
    for number, bag in enumerate(bags):
        if len(bag) < min(4, longest):
            continue
        weights = {word: (1 + math.log(count)) * commonness_weight(word) for word, count in bag.items()}
        length = math.sqrt(sum(value * value for value in weights.values())) or 1.0
        score = sum(value * centroid[word] for word, value in weights.items()) / (length * norm)
        score *= 1.1 if number == 0 else 1.0
        if score > best_score + 1e-12:
            best, best_score = number, score
    return _cut(found[best], step.max_characters)


def _bag(sentence: str) -> Counter[str]:
    return Counter(stem(word.lower()) for word in _words(sentence) if len(word) > 1)


def _questions(step: EnrichmentStep, text: str, heading_path: Sequence[str]) -> list[str]:
    """Questions by template: one from the innermost heading, one for each definition. Crude English, and labelled so.

    A heading that is a question stays one; ``Charging the battery`` gives "How ... charging the battery?"; others give
    "What about ...?" with the heading above for context.
    """
    made: list[str] = []
    if heading_path:
        made.append(_from_heading(heading_path))
    for sentence in sentences(clean_text(text)):
        match = _DEFINITION.match(sentence) or _COLON_DEFINITION.match(sentence)
        if not match:
            continue
        term = match["term"]
        bare = re.sub(r"^(?:An?|The) ", "", term)
        if bare.split()[0].lower() in _NOT_TERMS or not any(
            _weight(word.lower()) >= _CONTENT_WEIGHT for word in _words(bare)
        ):
            continue
        verb = "are" if match.groupdict().get("verb") == "are" else "is"
        made.append(f"What {verb} {term[0].lower() + term[1:] if bare != term else term}?")
    unique = dict.fromkeys(item for item in made if len(item) <= step.max_characters)
    return within(list(unique), step)


def _from_heading(heading_path: Sequence[str]) -> str:
    last = heading_path[-1].strip().rstrip(".:")
    if last.endswith(("?", "？")) or _QUESTION_WORD.match(last):
        return last if last.endswith(("?", "？")) else f"{last}?"
    about = f" ({heading_path[-2]})" if len(heading_path) > 1 else ""
    gerund = _GERUND.match(last)
    if gerund and gerund[1].lower() not in _NOT_GERUNDS:
        return f"How does {last[0].lower() + last[1:]} work{about}?"
    return f"What about {last}{about}?"


def _language(step: EnrichmentStep, text: str, heading_path: Sequence[str]) -> str:
    """ISO code of the chunk's language, or ``und`` where the identifier is not at least 30 % sure."""
    return identify_language(clean_text(text)[:_LANGUAGE_CHARACTERS])


def identify_language(text: str) -> str:
    """ISO code of a text's language by the packaged n-gram model, or ``und``."""
    code, confidence = _identifier().classify(text)
    return str(code) if confidence >= _LANGUAGE_CONFIDENCE else UNDETERMINED


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


_OFFLINE: dict[StepKind, Callable[[EnrichmentStep, str, Sequence[str]], Value]] = {
    "clean": _clean,
    "keywords": _keywords,
    "entities": _entities,
    "summary": _summary,
    "questions": _questions,
    "language": _language,
}
