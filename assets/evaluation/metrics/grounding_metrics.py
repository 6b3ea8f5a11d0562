"""Metrics of question, supplied chunks and answer against each other, as metrics: ids, definitions and inputs.

Belongs here: what they are called, which trials they apply to, and what they are fed. All are deterministic estimates of
what only a reader can judge, each with an id of its own beside that of a judge; docs/metrics.md says how far they agree
with people. Does not belong here: formulas (grounding.py, relevance.py).
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from assets.evaluation.metrics import grounding, relevance
from assets.evaluation.metrics.records import Group, MetricDefinition, Part, RetrievedChunk, TrialRecord

_NO_REFUSAL = "answers that are no refusal"
_ENTAILED = (
    "How likely a chunk entails a claim (a sentence) is a logistic regression, fitted on BEGIN, over words of the claim and "
    "their order in the best window of three sentences (with the chunk's headings), cut to a fifth when the window has not all "
    "of its numbers with their units and all of its names, negates differently, has an opposite, or swaps two names."
)


def _define(
    metric: str, title: str, definition: str, applies_to: str, looks_at: set[Part], **further: Any
) -> MetricDefinition:
    return MetricDefinition(
        metric, title, definition, applies_to, frozenset(looks_at), **{"estimator": "offline", **further}
    )


def texts_of(chunks: Sequence[RetrievedChunk]) -> list[str]:
    """The chunks as texts, each below its title and headings."""
    return ["\n".join([*(f"# {heading}" for heading in (hit.title, *hit.heading_path)), hit.text]) for hit in chunks]


def _texts(*names: str) -> Callable[[Any], dict[str, Any]]:
    """Arrow schema: lists of texts named in ``names``, ``predictions`` and ``question`` single texts."""

    def features(datasets: Any) -> dict[str, Any]:
        one, many = datasets.Value("string"), datasets.Sequence(datasets.Value("string"))
        return {name: one if name in ("predictions", "question") else many for name in names}

    return features


# --- the answer against the chunks ---------------------------------------------------------------------------


def _answer_row(record: TrialRecord) -> dict[str, Any] | None:
    if record.refused and not record.failed:
        return None
    return {"predictions": record.answer, "references": texts_of(record.read)}


def _assess(predictions: str, references: Sequence[str]) -> tuple[list[grounding.Assessed], int]:
    return grounding.assess(predictions, references), len(references)


def _groundedness(prepared: tuple[list[grounding.Assessed], int]) -> float | None:
    found, _ = prepared
    return math.fsum(one.probability for one in found) / len(found) if found else None


def _support(prepared: tuple[list[grounding.Assessed], int]) -> float | None:
    found, _ = prepared
    return math.fsum(one.share for one in found) / len(found) if found else None


def _utilization(prepared: tuple[list[grounding.Assessed], int]) -> float | None:
    found, chunks = prepared
    if not found or not chunks:
        return None
    used = [max(one.entailed[place] for one in found) >= grounding.ENTAILED for place in range(chunks)]
    return sum(used) / chunks


_ANSWER = Group(
    definitions=(
        _define(
            "genaiops.groundedness_lexical/2", "Groundedness (lexical)",
            f"Expected share of the answer's claims that the supplied chunks entail. {_ENTAILED} Undefined for refusals and "
            "answers without a claim.",
            _NO_REFUSAL, {"hits", "answer", "refusal"}, target=(0.8, 1.0),
        ),
        _define(
            "genaiops.support_lexical/1", "Support (lexical)",
            "Mean over the answer's claims of the weighted share of content words in the best window of three sentences of "
            "one supplied chunk; a word weighs ln(1 + (n + 1) ÷ (f + 0.5)), where f of n supplied sentences hold it. "
            "Numbers, names and negation do not count extra. Undefined as groundedness is.",
            _NO_REFUSAL, {"hits", "answer", "refusal"},
        ),
        _define(
            "msft.utilization_lexical/1", "Utilization (lexical)",
            f"Supplied chunks that entail a claim of the answer (probability at least one half) ÷ supplied chunks. {_ENTAILED}",
            _NO_REFUSAL, {"hits", "answer", "refusal"},
        ),
    ),
    row=_answer_row,
    features=_texts("predictions", "references"),
    prepare=_assess,
    formulas={
        "genaiops.groundedness_lexical/2": _groundedness,
        "genaiops.support_lexical/1": _support,
        "msft.utilization_lexical/1": _utilization,
    },
    libraries=("nltk",),
)  # fmt: skip


# --- citations -------------------------------------------------------------------------------------------------


def _citation_row(record: TrialRecord) -> dict[str, Any] | None:
    if record.refused and not record.failed:
        return None
    cited = {(one.document_id, one.start, one.end) for one in record.citations}
    return {"predictions": len(cited), "references": len(record.read)}


def _counts(datasets: Any) -> dict[str, Any]:
    return {"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}


def _both(predictions: int, references: int) -> tuple[int, int]:
    return predictions, references


def _citation_share(prepared: tuple[int, int]) -> float | None:
    cited, supplied = prepared
    return min(cited / supplied, 1.0) if supplied else None


_CITATIONS = Group(
    definitions=(
        _define(
            "genaiops.citation_share/1", "Citation share",
            "Supplied chunks that the answer cites ÷ supplied chunks. Undefined when nothing was supplied.",
            _NO_REFUSAL, {"hits", "citations", "refusal"}, estimator="exact",
        ),
    ),
    row=_citation_row,
    features=_counts,
    prepare=_both,
    formulas={"genaiops.citation_share/1": _citation_share},
)  # fmt: skip


# --- the question against the chunks ---------------------------------------------------------------------------


def _evidence(record: TrialRecord) -> bool:
    return record.answerable and any(span.stance == "supports" for span in record.gold)


def _question_row(wanted: Callable[[TrialRecord], bool], record: TrialRecord) -> dict[str, Any] | None:
    return {"question": record.question, "references": texts_of(record.hits)} if wanted(record) else None


def _unanswerable(record: TrialRecord) -> bool:
    return not record.answerable


def _answered(question: str, references: Sequence[str]) -> float:
    return relevance.answered_share(question, [grounding.analyse_chunk(text) for text in references])


def _squared(share: float) -> float:
    return share**2


_INTENT = (
    "An intent is a clause of the question; a chunk seems to answer it when a window of three sentences (with headings) holds "
    "60 % of its content words by weight and a number, time or name where the question asks for one."
)
_COMPLETENESS = Group(
    definitions=(
        _define(
            "msft.completeness_lexical/1", "Completeness (lexical)",
            f"(Intents of the question that the retrieved chunks seem to answer ÷ intents)². {_INTENT}",
            "answerable questions", {"question", "hits"},
        ),
    ),
    row=partial(_question_row, _evidence),
    features=_texts("question", "references"),
    prepare=_answered,
    formulas={"msft.completeness_lexical/1": _squared},
    libraries=("nltk",),
)  # fmt: skip
_FALSE_RETRIEVAL = Group(
    definitions=(
        _define(
            "genaiops.false_retrieval_lexical/1", "False retrieval (lexical)",
            f"Intents of an unanswerable question that the retrieved chunks seem to answer ÷ intents; 0 is best. {_INTENT}",
            "unanswerable questions", {"question", "hits"}, higher_is_better=False,
        ),
    ),
    row=partial(_question_row, _unanswerable),
    features=_texts("question", "references"),
    prepare=_answered,
    formulas={"genaiops.false_retrieval_lexical/1": float},
    libraries=("nltk",),
)  # fmt: skip


# --- the reference against the chunks --------------------------------------------------------------------------


def _context_row(record: TrialRecord) -> dict[str, Any] | None:
    if not record.answerable or not record.accepted:
        return None
    return {"question": record.question, "predictions": texts_of(record.hits), "references": record.accepted}


def _context_features(datasets: Any) -> dict[str, Any]:
    many = datasets.Sequence(datasets.Value("string"))
    return {"question": datasets.Value("string"), "predictions": many, "references": many}


def _attribute(question: str, predictions: Sequence[str], references: Sequence[str]) -> tuple[int, list[Any]]:
    chunks = [grounding.analyse_chunk(text) for text in predictions]
    return len(chunks), [relevance.attributed(question, reference, chunks) for reference in references]


def _context_precision(prepared: tuple[int, list[Any]]) -> float:
    chunks, held = prepared
    return max(relevance.context_precision(one, chunks) for one in held)


def _context_recall(prepared: tuple[int, list[Any]]) -> float:
    _, held = prepared
    return max(relevance.context_recall(one) or 0.0 for one in held)


_HELD = (
    f"{_ENTAILED} From one half on it counts. A reference of fewer than four content words counts where all of them stand in "
    "a window that has a fifth of the question's words. Of several accepted answers the best counts."
)
_CONTEXT = Group(
    definitions=(
        _define(
            "ragas.context_precision_lexical/1", "Context precision (lexical)",
            f"Σ(precision@k · v) ÷ Σv over the retrieved chunks, v being 1 for a chunk that holds a claim of the reference. {_HELD}",
            "answerable questions with a reference answer", {"question", "reference", "hits"},
        ),
        _define(
            "ragas.context_recall_lexical/1", "Context recall (lexical)",
            f"Claims of the reference that a retrieved chunk holds ÷ claims. {_HELD}",
            "answerable questions with a reference answer", {"question", "reference", "hits"},
        ),
    ),
    row=_context_row,
    features=_context_features,
    prepare=_attribute,
    formulas={
        "ragas.context_precision_lexical/1": _context_precision,
        "ragas.context_recall_lexical/1": _context_recall,
    },
    libraries=("nltk",),
)  # fmt: skip


# --- the question against the answer ---------------------------------------------------------------------------


def _relevance_row(record: TrialRecord) -> dict[str, Any] | None:
    if record.refused and not record.failed:
        return None
    return {"question": record.question, "predictions": record.answer}


def _pair(question: str, predictions: str) -> tuple[str, str]:
    return question, predictions


def _answer_relevance(prepared: tuple[str, str]) -> float:
    return relevance.answer_relevance(*prepared)


def _answer_relevancy(prepared: tuple[str, str]) -> float | None:
    return relevance.answer_relevancy(*prepared)


_FRAGMENT = "An answer of fewer than four content words is about the question when it has the number, time or name that is asked for."
_RELEVANCE = Group(
    definitions=(
        _define(
            "ragas.answer_relevance_lexical/1", "Answer relevance (ragas, lexical)",
            "Mean cosine, over words weighted by rarity, of the question with what the first three claims of the answer would "
            f"answer; 0 without a claim. {_FRAGMENT} Undefined for refusals, which answerability scores.",
            _NO_REFUSAL, {"question", "answer", "refusal"},
        ),
        _define(
            "deepeval.answer_relevancy_lexical/1", "Answer relevancy (deepeval, lexical)",
            "Statements about the question ÷ statements; a statement is about it with a fifth of its words by weight. "
            f"{_FRAGMENT} Undefined for refusals and answers without a statement.",
            _NO_REFUSAL, {"question", "answer", "refusal"},
        ),
    ),
    row=_relevance_row,
    features=_texts("question", "predictions"),
    prepare=_pair,
    formulas={
        "ragas.answer_relevance_lexical/1": _answer_relevance,
        "deepeval.answer_relevancy_lexical/1": _answer_relevancy,
    },
    libraries=("nltk",),
)  # fmt: skip

GROUPS = (_ANSWER, _CITATIONS, _COMPLETENESS, _FALSE_RETRIEVAL, _CONTEXT, _RELEVANCE)
