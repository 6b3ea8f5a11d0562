"""Text tools of the offline models: words, stems, how much a word tells, token counts.

Belongs here: small deterministic functions on strings. Does not belong here: anything that scores or answers.
"""

import math
import re
from functools import cache, lru_cache

from resources.offline_words import COMMON_WORDS

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")
_BYTES_PER_TOKEN = 4
_VOWELS = frozenset("aeiouy")
_LEAST_WEIGHT = 0.05
_MOST_COMMON = 20

_SUFFIX_LIST = (
    "ational:ate ization:ize isation:ize fulness:ful ousness:ous iveness:ive tional:tion biliti:ble aliti:al "
    "iviti:ive ation: ator: alli:al ousli:ous entli:ent ment: ness: icate:ic ical:ic ful: li: ise:ize able: "
    "ible: ance: ence: ant: ent: ion: iti: ive: ize: ous: al: er: ic: ate:"
)
#: Suffixes and what replaces them, tried in order; without a replacement at least four letters must stay.
_SUFFIXES = tuple(tuple(pair.split(":")) for pair in _SUFFIX_LIST.split())


def count_tokens(text: str) -> int:
    """Estimate the tokens of a text: a quarter of its UTF-8 bytes, at least one for each word.

    Deterministic, without tables to download, and cheap enough to run on every chunk; near common tokenizers on
    prose, up to a third too low on code.
    """
    return max(len(text.split()), -(-len(text.encode("utf-8", "surrogatepass")) // _BYTES_PER_TOKEN))


def words(text: str) -> list[str]:
    """Lower-cased words of any script, in order."""
    return _WORD.findall(text.lower())


@lru_cache(maxsize=200_000)
def stem(word: str) -> str:
    """Strip English inflection and common suffixes from a lower-cased word; other scripts stay as they are."""
    word = word.replace("’", "'").removesuffix("'s").replace("'", "")
    if len(word) <= 3 or not (word.isascii() and word.isalpha()):
        return word
    word = _strip_tense(_strip_plural(word))
    if word.endswith("y") and len(word) > 3 and word[-2] not in _VOWELS:
        word = word[:-1] + "i"
    for suffix, replacement in _SUFFIXES:
        if word.endswith(suffix):
            rest = word[: -len(suffix)]
            if len(rest) >= (3 if replacement else 4):
                word = rest + replacement
            break
    return word[:-1] if word.endswith("e") and len(word) > 4 else word


def _strip_plural(word: str) -> str:
    if word.endswith("sses"):
        return word[:-2]
    if word.endswith("ies"):
        return word[:-3] + ("i" if len(word) > 4 else "ie")
    if word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word


def _strip_tense(word: str) -> str:
    if word.endswith("eed"):
        return word[:-1] if len(word) > 4 else word
    for suffix in ("ingly", "edly", "ing", "ed"):
        if word.endswith(suffix):
            rest = word[: -len(suffix)]
            if len(rest) >= 3 and not _VOWELS.isdisjoint(rest):
                if rest.endswith(("at", "bl", "iz")):
                    return rest + "e"
                return rest[:-1] if rest[-1] == rest[-2] and rest[-1] not in "lsz" else rest
            break
    return word


@cache
def _ranks() -> dict[str, int]:
    ranks: dict[str, int] = {}
    for word in COMMON_WORDS:
        ranks.setdefault(stem(word), len(ranks))
    return ranks


def commonness_weight(stemmed: str) -> float:
    """How much a stem tells, from 0.05 (``the``) to 1 (a word that is not common), by its rank in English."""
    ranks = _ranks()
    rank = ranks.get(stemmed)
    if rank is None:
        return 1.0
    if rank < _MOST_COMMON:
        return _LEAST_WEIGHT
    return _LEAST_WEIGHT + (1 - _LEAST_WEIGHT) * math.log((rank + 1) / _MOST_COMMON) / math.log(
        len(ranks) / _MOST_COMMON
    )
