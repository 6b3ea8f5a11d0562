"""Anchoring: the character span of a quote in a document that may have been edited since.

Belongs here: finding a quote exactly, up to whitespace and markup, or up to small edits; pure functions of texts.
Does not belong here: which document is searched and what a lost quote means for its question (dataset.py).
"""

import bisect
import difflib
import re
import unicodedata
from array import array
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

#: A passage at least this similar to the quote (difflib ratio over folded characters) is the quote after an edit.
MINIMUM_SIMILARITY = 0.85
#: Passages that are compared in full when a quote was edited.
_CANDIDATES = 12

_WORD = re.compile(r"\w+")
_DROPPED = re.compile(
    r"""
      (?P<link>!?\[(?=[^\]\n]*\]\([^)\n]*\)))      # the opening of [text](address)
    | (?P<address>(?<=\S)\]\([^)\n]*\))            # its end
    | (?m:^[ \t]*(?:\#{1,6}|>|[-+]|\d+[.)])(?=[ \t]))  # heading, quotation and list marks
    | (?m:^[ \t]*\|?[ \t]*:?-{3,}[-:| \t]*$)       # the rule below a table's head
    | [*_`~\\]                                     # emphasis, code, escapes
    """,
    re.VERBOSE,
)
_RUN = re.compile(r"(?P<plain>[!-{}]+)|(?P<space>\s+)|(?P<other>.)", re.DOTALL)  # plain: ASCII but for the pipe
_SAME = str.maketrans(
    {**dict.fromkeys("‘’‚‛′´", "'"), **dict.fromkeys("“”„‟″«»", '"'), **dict.fromkeys("‐‑‒–—―−", "-"), "|": " "}
)
_MARKS = frozenset("*_`~")
_INVISIBLE = frozenset("\u00ad\u200b\u200c\u200d\u2060\ufeff")

How = Literal["exact", "ambiguous", "normalised", "re-anchored"]


@dataclass(frozen=True)
class Anchor:
    """Where a quote was found.

    Attributes:
        start, end: characters ``[start, end)`` of the text.
        how: exact; ambiguous (exact, in several places); normalised (up to whitespace and markup); re-anchored (edited).
        similarity: 1 unless re-anchored.
    """

    start: int
    end: int
    how: How
    similarity: float = 1.0


@dataclass(frozen=True)
class Folded:
    """A text without markup and runs of whitespace; ``origin[i]`` is where its character ``i`` stands in the text."""

    text: str
    origin: "array[int]"

    def span(self, start: int, end: int) -> tuple[int, int]:
        """The range of the original text that folded characters ``[start, end)`` come from."""
        return self.origin[start], self.origin[end - 1] + 1


def find_exact(text: str, quote: str, near: int | None = None) -> Anchor | None:
    """Find ``quote`` as it is.

    Args:
        near: where it stood before; of several places the nearest one is taken, without it the first.
    """
    places = list(_places(text, quote))
    if not places:
        return None
    start = _nearest(places, near)
    return Anchor(start, start + len(quote), "exact" if len(places) == 1 else "ambiguous")


def find_normalised(text: str, quote: str, near: int | None = None) -> Anchor | None:
    """Find ``quote`` where whitespace, quotation marks, dashes, Markdown emphasis, links or table pipes differ."""
    quote = quote.strip()
    wanted = fold(quote).text
    folded = _fold_document(text)
    places = list(_places(folded.text, wanted)) if wanted else []
    if not places:
        return None
    place = _nearest(places, None if near is None else bisect.bisect_left(folded.origin, near))
    start, end = folded.span(place, place + len(wanted))
    # marks around the quote were dropped like all others; take back those it was quoted with
    while quote[0] in _MARKS and start > 0 and text[start - 1] in _MARKS:
        start -= 1
    while quote[-1] in _MARKS and end < len(text) and text[end] in _MARKS:
        end += 1
    return Anchor(start, end, "normalised")


def find_edited(text: str, quote: str, near: int | None = None) -> Anchor | None:
    """Find the passage most similar to ``quote``, at least ``MINIMUM_SIMILARITY``; of equals the nearest to ``near``.

    Places are proposed by shared words, weighted by rarity, that stand in the same order and distance; only the best
    few are compared character by character.
    """
    folded, wanted = _fold_document(text), fold(quote).text
    theirs = [(match.start(), match.end()) for match in _WORD.finditer(folded.text)]
    ours = [match.group().lower() for match in _WORD.finditer(wanted)]
    if not theirs or not ours:
        return None
    positions: dict[str, list[int]] = {}
    for position, (start, end) in enumerate(theirs):
        positions.setdefault(folded.text[start:end].lower(), []).append(position)
    votes: defaultdict[int, float] = defaultdict(float)
    for offset, word in enumerate(ours):
        for position in positions.get(word, ()):
            for shift in (-1, 0, 1):  # an inserted or removed word moves the rest by one
                votes[position - offset + shift] += (2 - abs(shift)) / len(positions[word])
    goal = None if near is None else bisect.bisect_left(folded.origin, near)
    best: tuple[float, float, int, int] | None = None
    for first, _ in sorted(votes.items(), key=lambda item: (-item[1], item[0]))[:_CANDIDATES]:
        margin = 2 + len(ours) // 5
        low, high = max(0, first - margin), min(len(theirs), first + len(ours) + margin)
        if low >= high:
            continue
        start, end = _align(folded.text, theirs[low:high], wanted)
        similarity = difflib.SequenceMatcher(None, wanted, folded.text[start:end], autojunk=False).ratio()
        distance = abs(start - goal) if goal is not None else start
        if best is None or (similarity, -distance) > (best[0], -best[1]):
            best = (similarity, distance, start, end)
    if best is None or best[0] < MINIMUM_SIMILARITY:
        return None
    return Anchor(*folded.span(best[2], best[3]), "re-anchored", round(best[0], 4))


def _align(text: str, window: list[tuple[int, int]], wanted: str) -> tuple[int, int]:
    """The part of ``window`` (words as ranges of ``text``) that matches ``wanted``, from first to last shared word."""
    words = [text[start:end].lower() for start, end in window]
    ours = [match.group().lower() for match in _WORD.finditer(wanted)]
    blocks = [
        block
        for block in difflib.SequenceMatcher(None, words, ours, autojunk=False).get_matching_blocks()
        if block.size
    ]
    if not blocks:
        return window[0][0], window[-1][1]
    # words of the quote before the first and after the last shared one were replaced: take as many here
    first = max(0, blocks[0].a - blocks[0].b)
    last = min(len(words), blocks[-1].a + len(ours) - blocks[-1].b)
    end = window[last - 1][1]
    tail = re.search(r"\W+$", wanted)
    if tail and text.startswith(tail.group(), end):
        end += len(tail.group())
    return window[first][0], end


def fold(text: str) -> Folded:
    """Drop markup and invisible characters, unify quotation marks, dashes and compatibility forms, collapse whitespace."""
    parts: list[str] = []
    origin = array("l")
    ends_in_space = True  # so that the result does not begin with one
    position = 0
    for dropped_from, dropped_to in [*(match.span() for match in _DROPPED.finditer(text)), (len(text), len(text))]:
        for match in _RUN.finditer(text, position, dropped_from):
            start, run = match.start(), match.group()
            if match.lastgroup == "plain":
                parts.append(run)
                origin.extend(range(start, match.end()))
                ends_in_space = False
                continue
            for character in "" if run in _INVISIBLE else unicodedata.normalize("NFKD", run[0]).translate(_SAME):
                if character.isspace():
                    if ends_in_space:
                        continue
                    character = " "
                ends_in_space = character == " "
                parts.append(character)
                origin.append(start)
        position = dropped_to
    if parts and ends_in_space:
        parts.pop()
        origin.pop()
    return Folded("".join(parts), origin)


@lru_cache(maxsize=8)
def _fold_document(text: str) -> Folded:
    return fold(text)


def _places(text: str, part: str) -> Iterator[int]:
    start = text.find(part)
    while start >= 0:
        yield start
        start = text.find(part, start + 1)


def _nearest(places: list[int], near: int | None) -> int:
    return places[0] if near is None else min(places, key=lambda place: (abs(place - near), place))
