"""Findings: what a detector reports, and the view of a document that detectors share.

Belongs here: the types every detector uses, and the work on a text that several of them need (done once, when asked).
Does not belong here: what is looked for (one module per detector), and what follows from it (judging.py).
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property

#: ``start`` of a finding that stands in the markup of a document and not in its text.
IN_MARKUP = -1
_NOT_A_WORD = re.compile(r"[\W_]+")
_ASCII_PUNCTUATION = {code: " " for code in range(128) if not chr(code).isalnum()}


def words_of(text: str) -> frozenset[str]:
    """A set of words, written as a sentence."""
    return frozenset(text.split())


@dataclass(frozen=True, order=True, slots=True)
class Finding:
    """One thing found; it never holds the characters it is about.

    Attributes:
        start: position of its first character in the text, or ``IN_MARKUP``.
        end: position after its last character, or ``IN_MARKUP``.
        detector: which one found it.
        entity: kind of finding, as in the policy.
        score: from 0 to 1, how sure the detector is. Not a probability: scores of detectors do not compare.
    """

    start: int
    end: int
    detector: str
    entity: str
    score: float


class View:
    """A parsed document as detectors see it.

    Args:
        text: normalised text; positions count its characters.
        raw: the bytes it was parsed from, where they are at hand.
        media_type: of these bytes.
        language: as parsing told it.
        licence: as the document states it, or its source's.
    """

    def __init__(
        self,
        text: str,
        *,
        raw: bytes = b"",
        media_type: str = "text/plain",
        language: str | None = None,
        licence: str | None = None,
    ) -> None:
        self.text = text
        self.raw = raw
        self.media_type = media_type
        self.language = language
        self.licence = licence

    @cached_property
    def lower(self) -> str:
        """The text in lower case: to look whether something occurs, not where (its length may differ)."""
        return self.text.lower()

    @cached_property
    def aligned(self) -> str:
        """The text in lower case at unchanged positions: the few letters that grow are left as they are."""
        if len(self.lower) == len(self.text):
            return self.lower
        return "".join(low if len(low := character.lower()) == 1 else character for character in self.text)

    @cached_property
    def word_list(self) -> list[str]:
        """Its words in lower case, in order: runs of letters and digits."""
        if self.text.isascii():
            return self.lower.translate(_ASCII_PUNCTUATION).split()
        return _NOT_A_WORD.sub(" ", self.lower).split()

    @cached_property
    def longest_word(self) -> int:
        """Length of its longest word."""
        return max(map(len, self.words), default=0)

    @cached_property
    def words(self) -> frozenset[str]:
        """Its distinct words in lower case."""
        return frozenset(self.word_list)


@dataclass(frozen=True)
class Detector:
    """A detector with its settings.

    Attributes:
        name: as in the policy.
        fingerprint: of everything that can change what it finds.
        find: pure; the findings of a view, in any order.
    """

    name: str
    fingerprint: str
    find: Callable[[View], list[Finding]]


def near(text: str, start: int, end: int, pattern: re.Pattern[str], *, before: int = 50, after: int = 0) -> bool:
    """Whether a pattern occurs in the neighbourhood of a range."""
    return bool(pattern.search(text, max(0, start - before), min(len(text), end + after)))


def at_literals(
    view: View,
    literals: Iterable[str],
    pattern: re.Pattern[str],
    *,
    before: int = 0,
    after: int = 200,
    whole: bool = True,
) -> Iterator[re.Match[str]]:
    """Matches of a pattern where some lower-case literals occur; the rest of the text is not searched.

    Args:
        before: how many characters before the literal the pattern may begin; 0: it begins with it.
        after: how many characters from the beginning of the literal it may reach.
        whole: the literals begin with a whole word, so that those whose word does not occur need no search.
    """
    lower, text = view.aligned, view.text
    if whole:
        literals = [literal for literal in literals if (first := _first_word(literal)) is None or first in view.words]
    done = -1
    for position in sorted({position for literal in literals for position in _positions(lower, literal)}):
        if position < done:
            continue
        if before:
            match = pattern.search(text, max(0, position - before, done), position + after)
        else:
            match = pattern.match(text, position, position + after)
        if match:
            done = match.end()
            yield match


@cache
def _first_word(literal: str) -> str | None:
    match = re.match(r"[^\W_]+(?=[\W_]|$)", literal)
    return match[0] if match else None


def _positions(text: str, literal: str) -> Iterator[int]:
    position = text.find(literal)
    while position >= 0:
        yield position
        position = text.find(literal, position + len(literal))


def without_overlaps(findings: list[Finding]) -> list[Finding]:
    """Of overlapping findings of one kind the best, then the longest, then the first one."""
    kept: list[Finding] = []
    taken: dict[str, list[tuple[int, int]]] = {}
    for item in sorted(findings, key=lambda item: (-item.score, item.start - item.end, item.start)):
        ranges = taken.setdefault(item.entity, [])
        if all(item.end <= start or item.start >= end for start, end in ranges[-64:]):
            ranges.append((item.start, item.end))
            kept.append(item)
    return sorted(kept)
