"""Slices: the comparison within the questions that share a tag, and which questions belong together.

Belongs here: choosing questions by tag, and comparing the variants on each choice.
Does not belong here: the comparison on all questions (leaderboard.py), and what follows (recommendation.py).

A slice is there to look at. Its p-values are adjusted over all slices and variants, apart from the main comparison, and
nothing is recommended because of one; a slice that must not get worse is made a guard.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any

from assets.evaluation.dataset import Question
from assets.experiments.statistics import holm, mean_intervals, sign_flip_p_values
from resources.experiment_config import ExperimentConfig

if TYPE_CHECKING:
    import numpy as np

#: Fewer questions, or fewer groups of them, say too little about a variant to print a number.
MINIMUM_QUESTIONS, MINIMUM_GROUPS = 20, 10


def tag_values(question: Question, key: str) -> list[str]:
    """The values of a tag; a question has none, one, or several (a list)."""
    value = question.tags.get(key)
    return [] if value is None else [str(one) for one in value] if isinstance(value, list) else [str(value)]


def groups_of(questions: Sequence[Question], cluster: str | None) -> list[Hashable] | None:
    """One label a question, equal for those that are no independent observations; None when all are.

    Args:
        cluster: the tag that says which belong together; by default the groups that the dataset declares do. A question
            without either is by itself.
    """
    labels: list[Hashable] = []
    for question in questions:
        together = [question.group] if cluster is None and question.group else tag_values(question, cluster or "")
        labels.append(("together", *together) if together else ("alone", question.question_id))
    return labels if any(label[0] == "together" for label in labels) else None  # type: ignore[index]


def positions_by_value(questions: Sequence[Question], key: str) -> dict[str, list[int]]:
    """Positions of the questions that have each value of a tag, values in alphabetical order."""
    found: dict[str, list[int]] = {}
    for position, question in enumerate(questions):
        for value in dict.fromkeys(tag_values(question, key)):
            found.setdefault(value, []).append(position)
    return dict(sorted(found.items()))


def compare(
    experiment: ExperimentConfig,
    questions: Sequence[Question],
    scores: np.ndarray,
    variants: Sequence[str],
    champion: int,
) -> list[dict[str, Any]]:
    """Compare every variant with the champion within each value of the tags named under ``slices``.

    Args:
        questions: those the decision metric has a value for; ``scores`` has shape (questions, variants).
        variants: names; ``champion`` is the position of one.

    Returns:
        JSON-able, one entry a value: ``tag``, ``value``, ``questions``, ``groups``, and ``variants``, which is empty where
        there are fewer than ``MINIMUM_QUESTIONS`` questions or ``MINIMUM_GROUPS`` groups; else {name: {mean, difference, p,
        p_adjusted}}, without the last three for the champion.
    """
    settings: dict[str, Any] = {"resamples": experiment.resamples, "seed": experiment.seed}
    found: list[dict[str, Any]] = []
    for tag in experiment.slices:
        for value, positions in positions_by_value(questions, tag).items():
            groups = groups_of([questions[position] for position in positions], experiment.cluster)
            count = len(positions) if groups is None else len(set(groups))
            entry: dict[str, Any] = {
                "tag": tag, "value": value, "questions": len(positions), "groups": count, "variants": {},
            }  # fmt: skip
            found.append(entry)
            if len(positions) < MINIMUM_QUESTIONS or count < MINIMUM_GROUPS:
                continue
            here = scores[positions]
            differences = here - here[:, [champion]]
            gaps = mean_intervals(differences, confidence=experiment.confidence, groups=groups, **settings)
            p_values = sign_flip_p_values(differences, groups=groups, **settings)
            for position, name in enumerate(variants):
                row: dict[str, Any] = {"mean": float(here[:, position].mean())}
                if position != champion:
                    row |= {"difference": gaps[position].to_json(), "p": p_values[position]}
                entry["variants"][name] = row
    rows = [row for entry in found for row in entry["variants"].values() if "p" in row]
    for row, adjusted in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["p_adjusted"] = adjusted
    return found
