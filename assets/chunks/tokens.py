"""Tokens: the units that sizes are counted in, and where in a text they are.

Belongs here: what a token is, counting, positions. Does not belong here: where to cut (the other modules of this stage).

A token is a run of up to 16 letters or digits, or one other character that is no white space; characters of scripts
written without spaces (Chinese, Japanese, Korean, Thai) are tokens of their own. Deterministic, offline and
independent of a model; a model's own tokenizer gives about 1.3 tokens for each of these in English.
"""

import re
import unicodedata
from collections.abc import Sequence
from functools import cache, cached_property, lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

_UNSPACED = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_UNSPACED_RANGES = ((0xE00, 0xE7F), (0x3040, 0x30FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xAC00, 0xD7AF), (0xF900, 0xFAFF))  # fmt: skip
TOKEN = re.compile(rf"(?:(?![{_UNSPACED}])[^\W_]){{1,16}}|\S")
#: Letters of a token at most.
LONGEST = 16
_WORD, _SPACE, _MARK = ord("w"), ord(" "), ord(".")
_ASCII_CLASSES = bytes(
    _WORD if chr(code).isalnum() else _SPACE if chr(code).isspace() else _MARK for code in range(128)
).ljust(256)
_LONG_WORD = b"w" * (LONGEST + 1)
_BLOCK = 1_000_000
# Below this many characters the pattern is faster.
_SHORT = 100
_ZERO_WIDTH_JOINER = 0x200D


def count_tokens(text: str) -> int:
    """Number of tokens of a text; see the definition above."""
    if text.isascii():
        # Counting is what chunking by tokens costs: this is ten times as fast as the pattern, with the same result.
        count = _count_classes(text.encode("ascii").translate(_ASCII_CLASSES))
        if count is not None:
            return count
    elif len(text) > _SHORT:
        count = _count_classes(_classes(text).tobytes())
        if count is not None:
            return count
    return len(TOKEN.findall(text))


def _count_classes(classes: bytes) -> int | None:
    """Tokens of a text given as the classes of its characters; None when it has a word of several tokens."""
    if _LONG_WORD in classes:
        return None
    return classes.count(b".") + classes.count(b" w") + classes.count(b".w") + classes.startswith(b"w")


@lru_cache(maxsize=32_768)
def count_short(text: str) -> int:
    """``count_tokens`` for texts of a few characters, which repeat."""
    return count_tokens(text)


class Tokens:
    """Where the tokens of a text are: token ``k`` is ``text[starts[k]:ends[k]]``.

    Attributes:
        classes: per character a byte: ``w`` for a letter or digit, a blank for white space, ``.`` for anything else,
            the characters of unspaced scripts among them.
        starts: first character of each token; int64 (looking up a number costs a copy of any other type), increasing.
        ends: one after its last character.
    """

    def __init__(self, text: str) -> None:
        import numpy as np

        self.text = text
        self.classes = _classes(text)
        word = self.classes == _WORD
        before = np.empty_like(word)
        before[:1] = False
        before[1:] = word[:-1]
        runs = np.flatnonzero(word & ~before)
        after = np.empty_like(word)
        after[-1:] = False
        after[:-1] = word[1:]
        run_ends = np.flatnonzero(word & ~after) + 1
        marks = np.flatnonzero(self.classes == _MARK)
        pieces = -(-(run_ends - runs) // LONGEST)
        if pieces.size and pieces.max() > 1:
            first = np.cumsum(pieces) - pieces
            within = np.arange(int(pieces.sum())) - np.repeat(first, pieces)
            runs = np.repeat(runs, pieces) + within * LONGEST
            run_ends = np.minimum(np.repeat(run_ends, pieces), runs + LONGEST)
        starts = np.concatenate([runs, marks])
        ends = np.concatenate([run_ends, marks + 1])
        order = np.argsort(starts, kind="stable")
        self.starts: np.ndarray = starts[order]
        self.ends: np.ndarray = ends[order]

    def __len__(self) -> int:
        return len(self.starts)

    def at(self, position: int) -> int:
        """The first token that begins at or after a character position."""
        return int(self.starts.searchsorted(position))

    def span(self, first: int, last: int) -> tuple[int, int]:
        """Characters [start, end) of tokens [first, last)."""
        return int(self.starts[first]), int(self.ends[last - 1])

    def whole(self, start: int, end: int) -> bool:
        """Whether characters [start, end) hold whole tokens."""
        first, last = self.at(start), self.at(end)
        return (first == 0 or int(self.ends[first - 1]) <= start) and (last == 0 or int(self.ends[last - 1]) <= end)

    def counts(self, starts: Sequence[int], ends: Sequence[int]) -> list[int | None]:
        """Tokens of each range of characters; None for a range that begins or ends inside of a token."""
        import numpy as np

        if not len(starts):
            return []
        begin, stop = np.asarray(starts, np.int64), np.asarray(ends, np.int64)
        first, last = self.starts.searchsorted(begin), self.starts.searchsorted(stop)
        padded = np.concatenate([[0], self.ends])
        inside = (padded[first] > begin) | (padded[last] > stop)
        counts = (last - first).tolist()
        if not inside.any():
            return counts
        return [None if cut else count for cut, count in zip(inside.tolist(), counts, strict=True)]

    @cached_property
    def after_space(self) -> "np.ndarray":
        """Per token whether it follows white space."""
        import numpy as np

        result = np.zeros(len(self), bool)
        result[1:] = self.starts[1:] > self.ends[:-1]
        return result

    def joined(self, first: int, last: int) -> "np.ndarray":
        """For tokens [first, last) whether a reader would see them torn off: accents, vowel signs, joined emoji."""
        import numpy as np

        if last <= first:
            return np.zeros(0, bool)
        start, end = self.span(first, last)
        if self.text.isascii():
            return np.zeros(last - first, bool)
        codes = _codes(self.text[max(start - 1, 0) : end])
        offset = min(start, 1)
        at = self.starts[first:last] - start + offset
        own, previous = codes[at], codes[np.maximum(at - 1, 0)]
        distinct = np.unique(own)
        marks = np.array([code for code in distinct if _joins(int(code))], np.uint32)
        return (np.isin(own, marks) | (previous == _ZERO_WIDTH_JOINER)) & ~self.after_space[first:last]

    @cached_property
    def shadow(self) -> str:
        """An ASCII text of the same length with the same tokens, where spaces and ASCII marks are what they were.

        It splits at the same places and is much faster to count in.
        """
        if self.text.isascii():
            return self.text
        import numpy as np

        shadow = np.empty(len(self.text), np.uint8)
        for start in range(0, len(self.text), _BLOCK):
            codes = _codes(self.text[start : start + _BLOCK])
            # a tab: white space, but none that a splitter looks for
            other = np.where(
                self.classes[start : start + _BLOCK] == _SPACE, ord("\t"), self.classes[start : start + _BLOCK]
            )
            shadow[start : start + _BLOCK] = np.where(codes < 128, codes, other)
        return shadow.tobytes().decode("ascii")


def _codes(text: str) -> "np.ndarray":
    import numpy as np

    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def _classes(text: str) -> "np.ndarray":
    import numpy as np

    if text.isascii():
        return np.frombuffer(text.encode("ascii").translate(_ASCII_CLASSES), np.uint8)
    table = _class_table()
    classes = np.empty(len(text), np.uint8)
    for start in range(0, len(text), _BLOCK):
        codes = _codes(text[start : start + _BLOCK])
        found = table[codes]
        if not found.all():
            fresh = np.unique(codes[found == 0])
            table[fresh] = [_class(code) for code in fresh.tolist()]
            found = table[codes]
        classes[start : start + _BLOCK] = found
    return classes


@cache
def _class_table() -> "np.ndarray":
    """The class of every character met so far, by code; 0: not met. There are too many to look at each beforehand."""
    import numpy as np

    return np.zeros(0x110000, np.uint8)


def _class(code: int) -> int:
    character = chr(code)
    if character.isspace():
        return _SPACE
    unspaced = any(first <= code <= last for first, last in _UNSPACED_RANGES)
    return _WORD if character.isalnum() and not unspaced else _MARK


@cache
def _joins(code: int) -> bool:
    return unicodedata.category(chr(code)).startswith("M") or code == _ZERO_WIDTH_JOINER or 0x1F3FB <= code <= 0x1F3FF
