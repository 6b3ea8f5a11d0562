"""Answer metrics: an answer against its accepted answers.

Belongs here: exact match and token F1 of SQuAD, BLEU, chrF, ROUGE, METEOR and answer quality; pure functions of texts.
Does not belong here: whether a trial is scored at all (answer_metrics.py), correctness by claims (correctness.py),
grounding in the retrieved chunks (grounding.py).

A refused answer arrives here as the empty text, an unanswerable question as an empty list of references.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

from assets.evaluation.metrics.words import stem, words

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_METEOR_TOKEN = re.compile(r"\w+|[^\w\s]+")


def squad_normalise(text: str) -> str:
    """Lower text without punctuation, English articles and extra whitespace; SQuAD 2.0 ``normalize_answer``."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(answer: str, references: Sequence[str]) -> float:
    """1 if the answer equals a reference after normalisation; SQuAD 2.0 ``compute_exact``, best reference."""
    normalised = squad_normalise(answer)
    return float(any(squad_normalise(reference) == normalised for reference in _gold(references)))


def token_f1(answer: str, references: Sequence[str]) -> float:
    """F1 of shared normalised tokens; SQuAD 2.0 ``compute_f1``, best reference."""
    said = squad_normalise(answer).split()
    return max(_f1(said, squad_normalise(reference).split()) for reference in _gold(references))


def squad(answer: str, references: Sequence[str]) -> tuple[float, float]:
    """Exact match and token F1 at once; the texts are normalised once."""
    said = squad_normalise(answer)
    gold = [text for reference in references if (text := squad_normalise(reference))] or [""]
    return float(said in gold), max(_f1(said.split(), text.split()) for text in gold)


def _gold(references: Sequence[str]) -> Sequence[str]:
    return [reference for reference in references if squad_normalise(reference)] or [""]


def _f1(said: list[str], gold: list[str]) -> float:
    if not said or not gold:
        return float(said == gold)
    same = sum((Counter(said) & Counter(gold)).values())
    return 2 * same / (len(said) + len(gold))


def answer_quality(answer: str, references: Sequence[str], refused: bool) -> float:
    """Answerable: token F1, 0 if refused. Unanswerable (no references): 1 if refused, else 0."""
    if not references:
        return float(refused)
    return 0.0 if refused else token_f1(answer, references)


def bleu(answer: str, references: Sequence[str]) -> float:
    """Sentence BLEU with effective order, 0 to 1."""
    return _fraction(_bleu().sentence_score(answer, list(references)).score)


def chrf(answer: str, references: Sequence[str]) -> float:
    """Sentence chrF2, 0 to 1."""
    return _fraction(_chrf().sentence_score(answer, list(references)).score)


def rouge(kind: str, answer: str, references: Sequence[str]) -> float:
    """F-measure of ``rouge1``, ``rouge2`` or ``rougeL``, best reference."""
    return max(_rouge_f(kind, answer, reference) for reference in references)


def _rouge_f(kind: str, answer: str, reference: str) -> float:
    length = len(words(reference))
    if length == 0:  # only symbols: nothing to count
        return float(answer.strip() == reference.strip())
    if length == 1 and kind == "rouge2":  # no pair: rouge-score would give the right answer 0
        kind = "rouge1"
    return _rouge(kind).score(reference, answer)[kind].fmeasure


def meteor(answer: str, references: Sequence[str]) -> float:
    """METEOR with exact and stem matches only, best reference."""
    from nltk.translate.meteor_score import single_meteor_score

    said = _METEOR_TOKEN.findall(answer)
    return max(
        float(single_meteor_score(_METEOR_TOKEN.findall(reference), said, stemmer=_Stemmer(), wordnet=_NoSynonyms()))  # pyright: ignore[reportArgumentType]
        for reference in references
    )


def _fraction(score: float) -> float:
    return min(max(score / 100, 0.0), 1.0)  # sacrebleu gives 100.00000000000004 for identical texts


@cache
def _bleu() -> Any:
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(effective_order=True)  # without it identical texts of fewer than four words score 0


@cache
def _chrf() -> Any:
    from sacrebleu.metrics.chrf import CHRF

    return CHRF()


@cache
def _rouge(kind: str) -> Any:
    from rouge_score import rouge_scorer

    return rouge_scorer.RougeScorer([kind], tokenizer=_RougeWords())


class _RougeWords:
    """rouge-score's own tokenizer knows ASCII only; on ASCII this one gives the same tokens, four times as fast."""

    def tokenize(self, text: str) -> list[str]:
        return [stem(word) if len(word) > 3 else word for word in words(text)]


class _Stemmer:
    def stem(self, word: str) -> str:
        return stem(word)


class _NoSynonyms:
    """Stands in for WordNet, which would have to be downloaded."""

    def synsets(self, word: str, pos: str | None = None, lang: str = "eng") -> list[Any]:
        return []
