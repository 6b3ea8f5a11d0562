"""Metrics: what is measured on a trial, under which id, and when it is undefined.

Belongs here: the trial as metrics see it, the catalogue of metrics, and scoring trials by them.
Does not belong here: how one value is computed (retrieval.py, answers.py, refusals.py, grounding.py), and statistics
over variants (assets/experiments).

Every value lies between 0 and 1, also where the original tool reports 0 to 100 (BLEU, chrF). A value is either a
finite number or ``None``, which means "undefined for this trial" and is never averaged as a number. A trial that
failed (no answer because of an error) scores the worst value wherever the metric applies to its question.
"""

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Family = Literal["retrieval", "answer", "refusal", "grounding"]

#: Depths at which retrieval is measured beside the variant's own k, so that variants of different k can be compared.
FIXED_DEPTHS = (1, 3, 5, 10)
#: A gold span counts as covered when at least this share of its characters lies inside retrieved chunks.
COVERED_SHARE = 0.5
WORST = 0.0


class RetrievedChunk(Protocol):
    """What metrics need of a search hit: the character range of a document that is read, its text and its headings."""

    @property
    def document_id(self) -> int: ...
    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...
    @property
    def text(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def heading_path(self) -> tuple[str, ...]: ...


class CitedPassage(Protocol):
    """What metrics need of a citation: the cited character range."""

    @property
    def document_id(self) -> int: ...
    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...


@dataclass(frozen=True)
class GoldSpan:
    """Evidence of an answer: characters ``[start, end)`` of a document's current text."""

    document_id: int
    start: int
    end: int


@dataclass(frozen=True)
class TrialRecord:
    """One variant on one question, as metrics see it.

    Attributes:
        answerable: whether the documents hold an answer; false for questions that must be refused.
        reference: the expected answer; ``None`` for unanswerable questions.
        gold: evidence spans; empty for unanswerable questions.
        hits: retrieved chunks, best first, each with the range that is read of it.
        answer: what the variant said.
        refused: whether it said that the documents do not tell.
        failed: an error kept the variant from answering.
    """

    question_id: str
    question: str
    answerable: bool
    reference: str | None
    gold: tuple[GoldSpan, ...]
    hits: tuple[RetrievedChunk, ...]
    answer: str
    refused: bool
    citations: tuple[CitedPassage, ...] = ()
    failed: bool = False


@dataclass(frozen=True)
class MetricDefinition:
    """A metric as people read it.

    Attributes:
        id: namespaced and versioned; a changed definition gets a new version.
        definition: the formula in words, with its source and when it is undefined.
        applies_to: the trials it is defined for, in words.
        aggregation: how values become one number: their mean, or the F1 of hits and errors (see ``aggregate``).
        depth: number of leading chunks looked at; ``None``: all the variant retrieved.
    """

    id: str
    title: str
    definition: str
    applies_to: str
    higher_is_better: bool
    family: Family
    aggregation: Literal["mean", "f1"] = "mean"
    depth: int | None = None


#: Version 1 looked at the chunks that were found, also where the model read more around them.
_READ = "A chunk counts with all that is read of it: where retrieval expands it, the range it was expanded to."
_RELEVANT = "A chunk is relevant when it shares at least one character with a gold span of its document."
_COVERED = "A span is covered when at least half of its characters lie inside the chunks retrieved so far."
_ANSWERABLE = "answerable questions"
_REFERENCE = "answerable questions with a reference answer"
_REFUSAL_IS_EMPTY = "A refusal scores as the empty answer."


def _retrieval() -> Iterable[MetricDefinition]:
    described = {
        "precision": ("Precision", f"Relevant chunks ÷ chunks. {_RELEVANT} 0 when nothing was retrieved.", True),
        "recall": ("Recall", f"Covered gold spans ÷ gold spans. {_COVERED}", True),
        "mrr": ("Reciprocal rank", f"1 ÷ rank of the first relevant chunk, 0 without one. {_RELEVANT}", False),
        "map": (
            "Average precision",
            "Mean over gold spans of the precision at the rank where the span became covered, 0 for a span that never "
            f"is. With one chunk per span this is classic average precision. {_RELEVANT} {_COVERED}",
            False,
        ),
        "ndcg": (
            "nDCG",
            "Sum over covered gold spans of 1 ÷ log2(1 + rank where it became covered), ÷ the sum of an ideal ranking "
            f"with one span per rank; at most 1. With one chunk per span this is classic binary nDCG. {_COVERED}",
            True,
        ),
        "iou": (
            "Character IoU",
            "Gold characters retrieved (each once) ÷ (characters of all retrieved chunks, overlaps counted every time, "
            "+ gold characters missed); as in the chunking evaluation of Smith and Troynikov (2024).",
            False,
        ),
    }
    for name, (title, formula, at_depths) in described.items():
        definition = f"{formula} {_READ}"
        yield MetricDefinition(f"genaiops.{name}/2", title, definition, _ANSWERABLE, True, "retrieval")
        for depth in FIXED_DEPTHS if at_depths else ():
            missing = f" Over the first {depth} chunks; ranks a variant does not fill count as not relevant."
            yield MetricDefinition(
                f"genaiops.{name}@{depth}/2", f"{title}@{depth}", definition + missing, _ANSWERABLE, True, "retrieval",
                depth=depth,
            )  # fmt: skip


def _answers() -> Iterable[MetricDefinition]:
    squad = (
        " Normalisation of the official SQuAD script: lower case, no punctuation, no English articles. "
        f"{_REFUSAL_IS_EMPTY} As in SQuAD 2.0 an unanswerable question scores 1 for the empty answer, otherwise 0."
    )
    quality = (
        "Answerable question: SQuAD token F1 of the answer, 0 if refused. Unanswerable question: 1 if refused, else 0."
    )
    stemmed = " Words are lower-cased; those longer than three letters are reduced by the Porter stemmer."
    rows = [
        ("genaiops.answer_quality/1", "Answer quality", quality, "all questions"),
        ("squad.exact_match/1", "Exact match", "1 if the normalised answer equals the reference." + squad, "all questions"),
        ("squad.f1/1", "Token F1", "F1 of the normalised tokens shared with the reference." + squad, "all questions"),
        (
            "sacrebleu.bleu/1", "BLEU",
            f"Sentence BLEU (sacrebleu, 13a tokens, effective order) ÷ 100. {_REFUSAL_IS_EMPTY}", _REFERENCE,
        ),
        ("sacrebleu.chrf/1", "chrF", f"Sentence chrF2 (sacrebleu) ÷ 100. {_REFUSAL_IS_EMPTY}", _REFERENCE),
        ("rouge.rouge1/1", "ROUGE-1", f"F1 of shared words (rouge-score).{stemmed} {_REFUSAL_IS_EMPTY}", _REFERENCE),
        ("rouge.rouge2/1", "ROUGE-2", f"F1 of shared word pairs (rouge-score); of words where the reference has one word.{stemmed} {_REFUSAL_IS_EMPTY}", _REFERENCE),
        (
            "rouge.rougeL/1", "ROUGE-L",
            f"F1 of the longest common subsequence of words (rouge-score).{stemmed} {_REFUSAL_IS_EMPTY}", _REFERENCE,
        ),
        (
            "nltk.meteor_exact_stem/1", "METEOR (exact and stem)",
            "METEOR (nltk; alpha 0.9, beta 3, gamma 0.5) matching equal words and equal Porter stems, without the synonyms "
            f"of WordNet. n words repeated exactly score 1 - 0.5 ÷ n³. {_REFUSAL_IS_EMPTY}", _REFERENCE,
        ),
    ]  # fmt: skip
    for metric_id, title, definition, applies_to in rows:
        yield MetricDefinition(metric_id, title, definition, applies_to, True, "answer")


def _refusals() -> Iterable[MetricDefinition]:
    failed = " A failed trial counts as an error."
    yield MetricDefinition(
        "genaiops.refusal_accuracy/1",
        "Refusal accuracy",
        "1 if an unanswerable question was refused or an answerable one was answered, else 0." + failed,
        "all questions",
        True,
        "refusal",
    )
    yield MetricDefinition(
        "genaiops.refusal_precision/1",
        "Refusal precision",
        "Of the refusals, the share that was right: 1 if the question is unanswerable, else 0." + failed,
        "refused trials",
        True,
        "refusal",
    )
    yield MetricDefinition(
        "genaiops.refusal_recall/1",
        "Refusal recall",
        "Of the unanswerable questions, the share that was refused." + failed,
        "unanswerable questions",
        True,
        "refusal",
    )
    yield MetricDefinition(
        "genaiops.refusal_f1/1",
        "Refusal F1",
        "F1 of refusing the unanswerable. Per trial: 1 for a right refusal, 0 for a wrong or a missing one, undefined for "
        "an answered answerable question; over trials 2·right ÷ (2·right + wrong + missing), which is no mean."
        + failed,
        "refused trials and unanswerable questions",
        True,
        "refusal",
        aggregation="f1",
    )


def _grounding() -> Iterable[MetricDefinition]:
    yield MetricDefinition(
        "genaiops.groundedness_lexical/1",
        "Groundedness (lexical)",
        "Claims of the answer entailed by the retrieved chunks ÷ claims; a claim is a sentence. Deterministic estimate, no "
        "judge: a claim is entailed when one window of neighbouring sentences of one chunk (with its headings) holds enough "
        "of its content words by weight, all of its numbers with their units and all of its names, and neither side "
        "negates what the other affirms. Undefined for refusals and answers without a claim.",
        "answers that are no refusal",
        True,
        "grounding",
    )


METRICS: dict[str, MetricDefinition] = {
    definition.id: definition
    for definitions in (_retrieval(), _answers(), _refusals(), _grounding())
    for definition in definitions
}


def score(records: Sequence[TrialRecord], metrics: Sequence[str] | None = None) -> dict[str, list[float | None]]:
    """Score trials by metrics, each through one ``evaluate.Metric.compute`` over all trials it applies to.

    Args:
        records: the trials; values come back in this order.
        metrics: ids of ``METRICS``; all of them by default.

    Returns:
        For each metric one value per record, in [0, 1], or ``None`` where the metric is undefined.

    Raises:
        ValueError: an id is not in ``METRICS``; the message names the nearest one.
    """
    from assets.evaluation.metrics.hugging_face import compute

    wanted = list(dict.fromkeys(METRICS if metrics is None else metrics))
    for metric in wanted:
        definition_of(metric)
    return {metric: compute(METRICS[metric], records) for metric in wanted}


def aggregate(metric: str, values: Iterable[float | None]) -> float | None:
    """Combine per-trial values of a metric into one number; ``None`` when none of them is defined.

    The mean, except for metrics whose ``aggregation`` is ``f1``: there 2·ones ÷ (2·ones + zeros).
    """
    defined = [value for value in values if value is not None]
    if not defined:
        return None
    total = float(sum(defined))
    if definition_of(metric).aggregation == "f1":
        return 2 * total / (total + len(defined))
    return total / len(defined)


def definition_of(metric: str) -> MetricDefinition:
    """The definition of a metric id.

    Raises:
        ValueError: there is no such metric; the message names the nearest one.
    """
    definition = METRICS.get(metric)
    if definition is None:
        close = difflib.get_close_matches(metric, METRICS, n=1, cutoff=0.4)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"there is no metric {metric!r}; allowed: {', '.join(METRICS)}.{hint}")
    return definition
