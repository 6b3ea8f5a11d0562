"""Semantic metrics: an answer against the accepted answers by the vectors of a model that models.yaml names for it.

Belongs here: their ids and definitions, the formulas, and which of them are configured. Does not belong here: the models
(resources/models.py, resources/local_models.py), metrics that need none (answer_metrics.py), keeping scores
(assets/experiments/scores.py).

They are no part of the catalogue's built-in metrics, because a value means something only together with its model: that is in the
fingerprint its score is kept under, so that another model never shares a score.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from assets.evaluation.metrics.code_version import code_version
from assets.evaluation.metrics.records import TEXT_TASKS, MetricDefinition, Part, TrialRecord
from resources.fingerprint import fingerprint

if TYPE_CHECKING:
    import numpy as np

    from resources.model_config import ModelsFile
    from resources.models import Models

COSINE = "genaiops.answer_cosine/1"
BERTSCORE = "bertscore.f1/1"
_LOOKS_AT: frozenset[Part] = frozenset({"question", "reference", "answer", "refusal"})
_APPLIES_TO = "answerable questions with a reference answer"
_RULES = " Of several accepted answers the best counts. A refusal scores 0."

DEFINITIONS: Mapping[str, MetricDefinition] = {
    one.id: one
    for one in (
        MetricDefinition(
            COSINE,
            "Cosine",
            "Cosine of the vectors of answer and reference answer by the embedding model of models.yaml: evaluation.embedder; "
            "0 where it is negative." + _RULES,
            _APPLIES_TO,
            _LOOKS_AT,
            estimator="offline",
            tasks=TEXT_TASKS,
        ),
        MetricDefinition(
            BERTSCORE,
            "BERTScore F1",
            "Each token of the answer takes the most alike token of the reference, and the other way round, by the cosine of "
            "the contextual vectors of models.yaml: evaluation.bertscore; F1 of the two means (Zhang et al. 2020, without idf "
            "weights, without rescaling, without the marks of begin and end); 0 where it is negative." + _RULES,
            _APPLIES_TO,
            _LOOKS_AT,
            estimator="offline",
            tasks=TEXT_TASKS,
        ),
    )
}
#: Texts whose token vectors are held at once.
_HELD = 256


class TokenEmbedder(Protocol):
    """What BERTScore needs of a model."""

    def tokens(self, texts: Sequence[str]) -> list[np.ndarray]:
        """For each text the vectors of its tokens, of shape (tokens, width)."""
        ...


@dataclass(frozen=True)
class SemanticMetric:
    """A metric with the model it is computed by.

    Attributes:
        fingerprint: of id, code and model.
        score: values of trials, in their order; None where it is undefined.
    """

    definition: MetricDefinition
    fingerprint: str
    score: Callable[[Sequence[TrialRecord]], list[float | None]]


def is_semantic(metric: str) -> bool:
    """Whether the id is one of these metrics."""
    return metric in DEFINITIONS


def configured(models: ModelsFile) -> dict[str, MetricDefinition]:
    """The definitions of those that models.yaml names a model for."""
    named = {COSINE: models.evaluation.embedder, BERTSCORE: models.evaluation.bertscore}
    return {metric: DEFINITIONS[metric] for metric, model in named.items() if model}


def semantic_metrics(models: Models) -> dict[str, SemanticMetric]:
    """Those that models.yaml names a model for, ready to score; nothing is loaded yet.

    Raises:
        ConfigError: a local model is named and its extra or its folder is missing.
        PermanentError: the key of a provider is missing.
    """
    found = {}
    if name := models.config.evaluation.embedder:
        embedder = models.embedder(name)

        def embed(texts: Sequence[str]) -> np.ndarray:
            return embedder.embed(texts).vectors

        found[COSINE] = _metric(COSINE, embedder.fingerprint, partial(answer_cosines, embed=embed), answer_cosines)
    if name := models.config.evaluation.bertscore:
        tokens = models.token_embedder(name)
        found[BERTSCORE] = _metric(
            BERTSCORE, tokens.fingerprint, partial(bert_scores, embedder=tokens), bert_scores, greedy_f1
        )
    return found


def semantic_fingerprints(models: Models) -> dict[str, str]:
    """What the scores of each are kept under."""
    return {metric: one.fingerprint for metric, one in semantic_metrics(models).items()}


def _metric(metric: str, model: str, score: Any, *used: Callable[..., Any]) -> SemanticMetric:
    definition = DEFINITIONS[metric]
    key = fingerprint({"id": metric, "code": [definition.code, code_version(*used)], "model": model})
    return SemanticMetric(definition, key, score)


# --- formulas -----------------------------------------------------------------------------------------------


def answer_cosines(
    records: Sequence[TrialRecord], *, embed: Callable[[Sequence[str]], np.ndarray]
) -> list[float | None]:
    """Best cosine of each answer with one of its accepted answers, at least 0.

    Args:
        embed: vectors of distinct texts, of shape (texts, dimensions).
    """
    import numpy as np

    texts = list(dict.fromkeys(text for record in records for text in _compared(record)))
    places = {text: place for place, text in enumerate(texts)}
    vectors = np.asarray(embed(texts), np.float64) if texts else np.zeros((0, 1))
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors = vectors / np.where(norms > 0, norms, 1)

    def compare(answer: str, reference: str) -> float:
        return float(vectors[places[answer]] @ vectors[places[reference]])

    return [_best(record, compare) for record in records]


def bert_scores(records: Sequence[TrialRecord], *, embedder: TokenEmbedder) -> list[float | None]:
    """Best BERTScore F1 of each answer with one of its accepted answers."""
    scores: list[float | None] = []
    for part in _parts(records):
        texts = list(dict.fromkeys(text for record in part for text in _compared(record)))
        tokens = dict(zip(texts, embedder.tokens(texts) if texts else [], strict=True))
        scores += [
            _best(record, lambda answer, reference, tokens=tokens: greedy_f1(tokens[answer], tokens[reference]))
            for record in part
        ]
    return scores


def greedy_f1(answer: np.ndarray, reference: np.ndarray) -> float:
    """F1 of greedy matching: precision is the mean over the answer's tokens of their best cosine, recall the reference's.

    Args:
        answer, reference: vectors of tokens, of shape (tokens, width); of any length.
    """
    import numpy as np

    if not len(answer) or not len(reference):
        return 0.0
    answer, reference = (
        np.asarray(one, np.float64) / np.maximum(np.linalg.norm(one, axis=1, keepdims=True), 1e-12)
        for one in (answer, reference)
    )
    alike = answer @ reference.T
    precision, recall = float(alike.max(axis=1).mean()), float(alike.max(axis=0).mean())
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


def _compared(record: TrialRecord) -> list[str]:
    """The texts a record needs vectors of; none where its value is known without."""
    return [record.answer, *_references(record)] if _says_something(record) and _references(record) else []


def _references(record: TrialRecord) -> list[str]:
    return [text for text in record.accepted if text.strip()]


def _says_something(record: TrialRecord) -> bool:
    return not record.failed and not record.refused and bool(record.answer.strip())


def _best(record: TrialRecord, compare: Callable[[str, str], float]) -> float | None:
    """The best value over the accepted answers; None where the metric is undefined, 0 for an answer that says nothing."""
    if record.task not in TEXT_TASKS or not record.answerable or not record.accepted:
        return None
    if not _compared(record):
        return 0.0
    return min(1.0, max(0.0, *(compare(record.answer, text) for text in _references(record))))


def _parts(records: Sequence[TrialRecord]) -> Iterator[Sequence[TrialRecord]]:
    """Records whose texts are held at once."""
    start = texts = 0
    for at, record in enumerate(records):
        texts += len(_compared(record))
        if texts >= _HELD:
            yield records[start : at + 1]
            start, texts = at + 1, 0
    if start < len(records):
        yield records[start:]
