"""Words: splitting text into sentences and words, and stemming them once each.

Belongs here: what more than one metric or check asks of a text's words, in any alphabet.
Does not belong here: the tokenizers that belong to one metric's definition (SQuAD, sacrebleu).
"""

import re
import unicodedata
from functools import cache, lru_cache
from typing import Any

_WORD = re.compile(r"[^\W_]+")
_SENTENCE_END = re.compile(
    r"(?<=[.!?…])[\"'”’)\]]*\s+(?=[^\s])|\n\s*\n|\n(?=\s*(?:[-*+•#>|]|\d+[.)])\s?)|(?<=[。！？])"
)
_ABBREVIATION = re.compile(
    r"(?:\b(?:e\.g|i\.e|etc|vs|cf|approx|no|nr|fig|dr|mr|mrs|ms|st|z\.B|bzw|ca)|\b\w)\.$", re.IGNORECASE
)


def word_list(text: str) -> frozenset[str]:
    """The words of a text as a set."""
    return frozenset(text.split())


#: Function words of English and German; those that are content in the other language ("die", "war") are left out.
STOP_WORDS = word_list(
    """a about after all also am an and any are as at be because been before being between both but by can could did do
    does doing during each for from further had has have having he her here hers him his how i if in into is it its itself
    just me more most my of off on once only or other our out over own s same she should so some such t than that the
    their theirs them then there these they this those through to too under until up very was we were what when where
    which while who whom why will with would you your yours
    der das den dem des ein eine einen einem einer eines und oder aber ist sind wird werden wurde mit von zu zum zur im
    auf für bei aus nach vor über unter als wie auch es er sie wir ihr ich sich dass daß wenn noch nur"""
)
#: Words that turn a statement into its opposite; "n't" stands for all that end so.
NEGATIONS = word_list(
    """not no never none neither nor without cannot nothing nobody nowhere nicht kein keine keinen keinem keiner keines nie
    niemals ohne weder n't"""
)


def words(text: str) -> list[str]:
    """Lower-cased runs of letters and digits, in any alphabet, compatibility forms unified."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).lower())


def sentences(text: str) -> list[str]:
    """The sentences of a text; list items, headings, table rows and paragraphs end one too."""
    found: list[str] = []
    start = 0
    for match in _SENTENCE_END.finditer(text):
        if text[match.start() - 1 : match.start()] == "." and _ABBREVIATION.search(text[start : match.start()]):
            continue
        found.append(text[start : match.end()])
        start = match.end()
    found.append(text[start:])
    return [sentence.strip() for sentence in found if sentence.strip()]


@lru_cache(maxsize=200_000)
def stem(word: str) -> str:
    """The Porter stem of a lower-cased word (nltk's extended variant, as rouge-score and METEOR use it)."""
    return _porter().stem(word)


@cache
def _porter() -> Any:
    from nltk.stem.porter import PorterStemmer

    return PorterStemmer()
