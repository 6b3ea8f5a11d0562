"""Cloze: a statement of a document with one fact taken out, as a question.

Belongs here: which parts of a sentence can be asked for, and how; by rules, for any language, best in English.
Does not belong here: questions of several statements, or changed ones (templates.py).

These ask in the documents' own words. They are easier to find than questions of users, and are labelled as what they are.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from assets.evaluation.metrics.words import STOP_WORDS, word_list, words
from assets.evaluation.synthesis.drafts import Quote
from assets.evaluation.synthesis.passages import Passage
from resources.offline_text import commonness_weight
from resources.offline_text import stem as common_stem

Asks = Literal["subject", "year", "number", "share", "name", "term"]
GAP = "____"
LEAST_WORDS, MOST_WORDS = 7, 30
_MOST_CHARACTERS = 400
#: Content words a statement must have beside what is asked for.
_LEAST_CONTEXT = 4

_ANAPHORA = word_list(
    """it its this that these those they them their he him his she her hers we our us i my you your such here there however but and
    also then thus therefore so or yet nor both each another other others one some many most several few all neither either
    although though while when where if as because since which who whom whose what how why similarly additionally furthermore
    moreover nevertheless instead otherwise meanwhile later finally hence still further likewise again unlike like despite
    no yes sure ok
    der die das dies diese dieser dieses es sie er ihr ihre sein seine damit dazu dabei dafür auch aber und doch deshalb
    daher dann hier dort so ja nein"""
)
_MARKUP = re.compile(r"[|<>{}\[\]`~\\_*#]|https?:|\.{3}|…|\n\s*\n|^\W")
_NUMBERED = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?"
_YEAR = re.compile(r"\b[Ii]n\s+((?:1[0-9]|20)\d\d)\b(?![-–/.,]?\d|\s*(?:km|m|kg|people|metres|meters)\b)")
_SHARE = re.compile(rf"(?<![\w.,/-])((?:{_NUMBERED})\s?(?:%|percent\b|per cent\b))")
_NUMBER = re.compile(rf"(?<![\w.,€$£/:-])({_NUMBERED})(?=\s+[a-z]{{3,}})(?!\s+(?:percent|per)\b)")
_CAPITAL = r"[A-ZÀ-ÖØ-Þ][\w'’-]*[\w]"
_NAME = re.compile(
    rf"\b{_CAPITAL}(?:\s+(?:of|de|von|van|du|la|and)\s+(?={_CAPITAL})|\s+(?={_CAPITAL})|{_CAPITAL})*(?<=\w)"
)
_GERMAN_NAME = re.compile(rf"\b{_CAPITAL}(?:\s+(?={_CAPITAL})|{_CAPITAL})*(?<=\w)")  # "von" joins any two nouns
_VERB = re.compile(
    r"\s+(?:is|was|has|had|became|began|built|brought|came|contains|gave|grew|held|includes|kept|led|left|lost|made|means|met|"
    r"runs|ran|said|saw|sent|serves|set|took|uses|went|won|wrote|consists|weighs|costs|needs|takes|lasts|holds|allows|[a-z]{3,}ed)\b"
)
_CALENDAR = word_list(
    """january february march april may june july august september october november december monday tuesday wednesday thursday
    friday saturday sunday"""
)


@dataclass(frozen=True)
class Blank:
    """A part of a statement that can be asked for: characters ``[start, end)`` of its text."""

    start: int
    end: int
    answer: str
    asks: Asks


def statements(passage: Passage) -> list[Quote]:
    """The sentences of a passage that can be understood alone."""
    found = [Quote(passage, start, end) for start, end in passage.statements]
    return [one for one in found if stands_alone(one.text)]


def stands_alone(text: str) -> bool:
    """Whether a sentence is plain prose that does not lean on the one before it."""
    tokens = words(text)
    return (
        len(text) <= _MOST_CHARACTERS
        and LEAST_WORDS <= len(tokens) <= MOST_WORDS
        and "\n" not in text.strip()
        and text[0].isupper()
        and text.rstrip("\"'”’)")[-1:] in (".", "!")
        and tokens[0] not in _ANAPHORA
        and not _MARKUP.search(text)
        and text.count("(") == text.count(")")
        and text.count('"') % 2 == 0
        and text.count("“") == text.count("”")
    )


def blanks(statement: Quote) -> list[Blank]:
    """What can be asked for, each answer standing in the statement once and neither in title nor headings."""
    text, passage = statement.text, statement.passage
    known = f" {' '.join(words(' '.join([passage.title, *passage.headings])))} "
    content = {word for word in words(text) if word not in STOP_WORDS}
    found: list[Blank] = []
    for blank in _candidates(text, passage.language):
        asked = words(blank.answer)
        plain = " ".join(asked)
        if not asked or f" {plain} " in known or f" {' '.join(words(text))} ".count(f" {plain} ") != 1:
            continue
        if blank.asks in ("name", "subject", "term") and any(f" {word} " in known for word in asked):
            continue
        if len(content - set(asked)) >= _LEAST_CONTEXT:
            found.append(blank)
    return found


def _candidates(text: str, language: str) -> Iterator[Blank]:
    for pattern, asks in ((_YEAR, "year"), (_SHARE, "share"), (_NUMBER, "number")):
        for match in pattern.finditer(text):
            if (
                asks == "number"
                and (
                    re.fullmatch(r"(?:1[0-9]|20)\d\d", match[1])  # it may be a year
                    or re.search(r"\b[A-ZÀ-Þ][\w-]*\s+$", text[1 : match.start()])  # or a part of a name: Model 3
                )
            ):
                continue
            yield Blank(match.start(1), match.end(1), match[1], asks)  # type: ignore[arg-type]
    yield from _names(text, language)
    terms = [
        match for match in re.finditer(r"\b[a-zà-öø-ÿ]{6,}\b", text) if commonness_weight(common_stem(match[0])) == 1.0
    ]
    for match in sorted(terms, key=lambda one: (-len(one[0]), one.start()))[:1]:
        if (
            not match[0].endswith(("ly", "ing", "ed"))
            and "-" not in text[match.start() - 1 : match.end() + 1 : len(match[0]) + 1]
        ):
            yield Blank(match.start(), match.end(), match[0], "term")


def names(text: str, language: str = "en") -> list[str]:
    """Names in a sentence, without those that only begin it."""
    return [blank.answer for blank in _names(text, language)]


def _names(text: str, language: str) -> Iterator[Blank]:
    for match in (_GERMAN_NAME if language == "de" else _NAME).finditer(text):
        start, end = match.span()
        tokens = match[0].split()
        if tokens[0].lower() in STOP_WORDS or tokens[0].lower() in _ANAPHORA:
            if len(tokens) == 1:
                continue
            start += len(tokens[0]) + (len(match[0][len(tokens[0]) :]) - len(match[0][len(tokens[0]) :].lstrip()))
            tokens = tokens[1:]
            if tokens[0][0].islower():
                continue
        name = text[start:end]
        if any(token.lower() in _CALENDAR for token in tokens) or len(name) < 3 or len(tokens) > 6:
            continue
        if name.endswith(("'s", "’s")) or text[start - 1 : start] in ("-", ".") or text[end : end + 1] == "-":
            continue
        if start == 0:
            if (
                len(tokens) > 1
                and all(token[0].isupper() or token in ("of", "de", "von", "van") for token in tokens)
                and _VERB.match(text, end)
            ):
                yield Blank(start, end, name, "subject")
            continue
        if language == "de" and len(tokens) == 1:
            continue  # every noun has a capital
        yield Blank(start, end, name, "name")


def ask(text: str, blank: Blank, language: str = "en", *, gap_only: bool = False) -> str:
    """The question for a blank of a statement.

    Args:
        gap_only: always a gap, never a question in the statement's words.
    """
    before, after = text[: blank.start], text[blank.end :].rstrip().rstrip(".!")
    if language != "de" and not gap_only:
        match blank.asks:
            case "subject":
                return f"Who or what{after}?"
            case "year":
                return f"{before}which year{after}?".replace("In which year,", "In which year:")
            case "number":
                return f"{before}how many{after}?"
            case "share":
                return f"{before.removesuffix('some ')}what percentage{after}?"
    gap = f"{before}{GAP}{after}".strip()
    if language == "de":
        return f"Was gehört in die Lücke: „{gap}“?"
    what = {"subject": "name", "name": "name", "term": "word", "year": "year", "share": "percentage"}.get(
        blank.asks, "number"
    )
    return f"Which {what} fills the gap: “{gap}”?"
