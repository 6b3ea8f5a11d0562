"""Judged metrics: a judge's verdicts as a metric of the catalogue.

Belongs here: id, title and definition of the metric that a judge of the configuration makes.
Does not belong here: computing it (judges.py), and whether it may decide anything (assets/experiments/judged.py).
"""

from collections.abc import Mapping
from typing import get_args

from assets.evaluation.judging.measures import OF_PASSAGES, applies_to
from assets.evaluation.metrics.records import MetricDefinition, Part, Task
from resources.judge_config import RATINGS, JudgeConfig, Measure

_PREFIX = "judge."
_DEFINED: Mapping[Measure, tuple[str, frozenset[Part]]] = {
    "groundedness": (
        "Claims of the answer (its sentences) that the supplied chunks entail ÷ claims.",
        frozenset({"hits", "answer", "refusal"}),
    ),
    "completeness": (
        "(Intents of the question that the retrieved chunks answer ÷ intents)².",
        frozenset({"question", "gold", "hits"}),
    ),
    "utilization": (
        "Supplied chunks that entail part of the answer ÷ supplied chunks.",
        frozenset({"hits", "answer", "refusal"}),
    ),
    "relevance": (
        "Statements of the answer that help to answer the question ÷ statements (after deepeval).",
        frozenset({"question", "answer", "refusal"}),
    ),
    "correctness": (
        "F1 of the claims of the answer that the reference confirms and the claims of the reference that the answer covers. "
        "A refusal scores 0.",
        frozenset({"question", "reference", "answer", "refusal"}),
    ),
    "coherence": ("How well the sentences belong together.", frozenset({"answer", "refusal"})),
    "fluency": ("How well it is written.", frozenset({"answer", "refusal"})),
    "context_precision": (
        "Σ(precision@k · v) ÷ Σv over the retrieved chunks, v being 1 for a chunk that helps to arrive at the reference (ragas).",
        frozenset({"question", "reference", "hits"}),
    ),
    "context_recall": (
        "Claims of the reference that the retrieved chunks say ÷ claims (ragas).",
        frozenset({"question", "reference", "hits"}),
    ),
    "custom": ("", frozenset({"question", "reference", "hits", "answer", "refusal"})),
}


def is_judged(metric: str) -> bool:
    """Whether the id is one of a judge's."""
    return metric.startswith(_PREFIX)


def judge_of(metric: str) -> str:
    """Name of the judge of a judged metric."""
    return metric.removeprefix(_PREFIX).rpartition("/")[0]


def definition(judge: JudgeConfig) -> MetricDefinition:
    """The metric of a judge that scores trials."""
    words, looks_at = _DEFINED[judge.measures]
    rated = f" A rating from 1 to {judge.scale}, mapped to 0 to 1." if judge.measures in RATINGS else ""
    asked = f" Judged by {judge.model}" + (f", the majority of {judge.draws} draws" if judge.draws > 1 else "")
    both = ", in both orders." if judge.swap else "."
    named = judge.name if judge.measures == "custom" else judge.measures.replace("_", " ").capitalize()
    return MetricDefinition(
        id=judge.metric,
        title=f"{named} (judge {judge.name})",
        definition=f"{words}{f' {judge.description.strip()}' if judge.description else ''}{rated}{asked}{both}".strip(),
        applies_to=applies_to(judge),
        looks_at=looks_at,
        estimator="judge",
        tasks=frozenset({"rag"}) if judge.measures in OF_PASSAGES else frozenset(get_args(Task)),
    )
