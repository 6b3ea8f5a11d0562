"""Search for passages: a search setting of its own, under no test, by which a question must find its passage again.

Belongs here: BM25 over the passages questions are made from. Does not belong here: searching indexes (resources/).

The passages are cut as no index under test cuts, they are searched in this process, and nothing is learned from it: so
that a question is found says nothing for any index.
"""

import heapq
import math
from array import array
from collections import Counter
from functools import lru_cache

from assets.evaluation.metrics.words import STOP_WORDS, stem, words

#: As in Lucene's usual baseline for passages.
_K1 = 0.9
_B = 0.4


class PassageIndex:
    """BM25 over stemmed words without function words; numbers count the texts from 0 in the order they were added."""

    def __init__(self) -> None:
        self._postings: dict[str, array[int]] = {}  # passage, occurrences, passage, occurrences, …
        self._lengths: array[int] = array("I")
        self._total = 0

    def __len__(self) -> int:
        return len(self._lengths)

    def add(self, text: str) -> int:
        """Add a text and return its number."""
        number = len(self._lengths)
        counts = Counter(terms(text))
        for word, count in counts.items():
            postings = self._postings.get(word)
            if postings is None:
                postings = self._postings[word] = array("I")
            postings.extend((number, count))
        length = sum(counts.values())
        self._lengths.append(length)
        self._total += length
        return number

    def frequency(self, word: str) -> int:
        """How many texts hold a stemmed word."""
        return len(self._postings.get(word, ())) // 2

    def holding(self, name: str) -> list[int]:
        """Numbers of the texts that hold the rarest word of a name; none where a word of it is in no text."""
        wanted = sorted(dict.fromkeys(terms(name)), key=lambda word: (self.frequency(word), word))
        if not wanted or not self.frequency(wanted[0]):
            return []
        return list(self._postings[wanted[0]][::2])

    def search(self, question: str, k: int) -> list[int]:
        """Numbers of the ``k`` best texts, best first; ties in the order they were added."""
        if not self._lengths:
            return []
        average = self._total / len(self._lengths) or 1.0
        scores: dict[int, float] = {}
        for word in dict.fromkeys(terms(question)):
            postings = self._postings.get(word)
            if postings is None:
                continue
            count = len(postings) // 2
            weight = math.log(1 + (len(self._lengths) - count + 0.5) / (count + 0.5))
            for place in range(0, len(postings), 2):
                number, occurrences = postings[place], postings[place + 1]
                norm = _K1 * (1 - _B + _B * self._lengths[number] / average)
                scores[number] = scores.get(number, 0.0) + weight * occurrences * (_K1 + 1) / (occurrences + norm)
        return [number for number, _ in heapq.nsmallest(k, scores.items(), key=lambda item: (-item[1], item[0]))]


def terms(text: str) -> list[str]:
    """Stemmed words without function words, in order."""
    return [stem(word) for word in words(text) if word not in STOP_WORDS]


@lru_cache(maxsize=20_000)
def term_set(text: str) -> frozenset[str]:
    """``terms`` as a set."""
    return frozenset(terms(text))
