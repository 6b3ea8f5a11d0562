"""Answer metrics as metrics: an answer against the accepted answers; their ids, definitions and inputs.

Belongs here: what they are called, which trials they apply to, and that the best accepted answer counts.
Does not belong here: formulas (answers.py, correctness.py).

A refused answer is compared as the empty text, an unanswerable question as an empty list of references.
"""

from collections.abc import Iterable
from functools import partial
from typing import Any

from assets.evaluation.metrics import answers, correctness
from assets.evaluation.metrics.records import TEXT_TASKS, Group, MetricDefinition, Part, TrialRecord

LOOKS_AT: frozenset[Part] = frozenset({"question", "reference", "answer", "refusal"})
_REFERENCE = "answerable questions with a reference answer"
_KNOWN = "questions whose right answer is known"
_BEST = " Of several accepted answers the best counts."
_REFUSAL_IS_EMPTY = "A refusal scores as the empty answer."


def _squad() -> Iterable[MetricDefinition]:
    rule = (
        " Normalisation of the official SQuAD script: lower case, no punctuation, no English articles."
        f"{_BEST} {_REFUSAL_IS_EMPTY} As in SQuAD 2.0 an unanswerable question scores 1 for the empty answer, otherwise 0."
    )
    quality = (
        "Answerable question: SQuAD token F1 of the answer, 0 if refused. Unanswerable question: 1 if refused, else 0."
        + _BEST
    )
    rows = [
        ("genaiops.answer_quality/1", "Answer quality", quality),
        ("squad.exact_match/1", "Exact match", "1 if the normalised answer equals an accepted answer." + rule),
        ("squad.f1/1", "Token F1", "F1 of the normalised tokens shared with an accepted answer." + rule),
    ]
    for metric, title, definition in rows:
        yield MetricDefinition(metric, title, definition, _KNOWN, LOOKS_AT, tasks=TEXT_TASKS)


def _similarity() -> Iterable[MetricDefinition]:
    stemmed = " Words are lower-cased; those longer than three letters are reduced by the Porter stemmer."
    rows = [
        (
            "sacrebleu.bleu/1", "BLEU",
            "Sentence BLEU (sacrebleu, 13a tokens, effective order) ÷ 100; several accepted answers are its references.",
        ),
        ("sacrebleu.chrf/1", "chrF", f"Sentence chrF2 (sacrebleu) ÷ 100.{_BEST}"),
        ("rouge.rouge1/1", "ROUGE-1", f"F1 of shared words (rouge-score).{stemmed}{_BEST}"),
        (
            "rouge.rouge2/1", "ROUGE-2",
            f"F1 of shared word pairs (rouge-score); of words where the reference has one word.{stemmed}{_BEST}",
        ),
        ("rouge.rougeL/1", "ROUGE-L", f"F1 of the longest common subsequence of words (rouge-score).{stemmed}{_BEST}"),
        (
            "nltk.meteor_exact_stem/1", "METEOR (exact and stem)",
            "METEOR (nltk; alpha 0.9, beta 3, gamma 0.5) matching equal words and equal Porter stems, without the synonyms "
            f"of WordNet. n words repeated exactly score 1 - 0.5 ÷ n³.{_BEST}",
        ),
    ]  # fmt: skip
    for metric, title, definition in rows:
        yield MetricDefinition(
            metric, title, f"{definition} {_REFUSAL_IS_EMPTY}", _REFERENCE, LOOKS_AT, tasks=TEXT_TASKS
        )
    yield MetricDefinition(
        "genaiops.correctness_lexical/1",
        "Correctness (lexical)",
        correctness.DEFINITION + _BEST + f" {_REFUSAL_IS_EMPTY}",
        _REFERENCE,
        LOOKS_AT,
        estimator="offline",
        tasks=TEXT_TASKS,
    )


def _said(record: TrialRecord) -> str:
    return "" if record.refused or record.failed else record.answer


def _reference_row(record: TrialRecord) -> dict[str, Any] | None:
    if not record.answerable or not record.accepted:
        return None
    return {"predictions": _said(record), "references": record.accepted}


def _squad_row(record: TrialRecord) -> dict[str, Any] | None:
    row = _reference_row(record) if record.answerable else {"predictions": _said(record), "references": []}
    return row and {**row, "refused": record.refused}


def _texts(datasets: Any) -> dict[str, Any]:
    return {"predictions": datasets.Value("string"), "references": datasets.Sequence(datasets.Value("string"))}


def _squad_features(datasets: Any) -> dict[str, Any]:
    return {**_texts(datasets), "refused": datasets.Value("bool")}


def _prepare(predictions: str, references: Any) -> tuple[str, list[str]]:
    return predictions, list(references)


def _prepare_squad(predictions: str, references: Any, refused: bool = False) -> tuple[float, float, float]:
    """Exact match, token F1 and answer quality, which share their tokens."""
    exact, f1 = answers.squad(predictions, references)
    quality = float(refused) if not len(references) else 0.0 if refused else f1
    return exact, f1, quality


def _nth(number: int, prepared: tuple[float, ...]) -> float:
    return prepared[number]


def _of_pair(function: Any, prepared: tuple[str, list[str]]) -> float:
    return function(*prepared)


GROUPS = (
    Group(
        definitions=tuple(_squad()),
        row=_squad_row,
        features=_squad_features,
        prepare=_prepare_squad,
        formulas={
            "squad.exact_match/1": partial(_nth, 0),
            "squad.f1/1": partial(_nth, 1),
            "genaiops.answer_quality/1": partial(_nth, 2),
        },
    ),
    Group(
        definitions=tuple(_similarity()),
        row=_reference_row,
        features=_texts,
        prepare=_prepare,
        formulas={
            "sacrebleu.bleu/1": partial(_of_pair, answers.bleu),
            "sacrebleu.chrf/1": partial(_of_pair, answers.chrf),
            "rouge.rouge1/1": partial(_of_pair, partial(answers.rouge, "rouge1")),
            "rouge.rouge2/1": partial(_of_pair, partial(answers.rouge, "rouge2")),
            "rouge.rougeL/1": partial(_of_pair, partial(answers.rouge, "rougeL")),
            "nltk.meteor_exact_stem/1": partial(_of_pair, answers.meteor),
            "genaiops.correctness_lexical/1": partial(_of_pair, correctness.correctness),
        },
        libraries=("sacrebleu", "rouge-score", "nltk"),
    ),
)
