"""The diagnosis: where to look next for a variant, from what is low and what is high.

Belongs here: the table of symptoms, with its thresholds and the estimators it reads. Pure functions of a leaderboard row.
Does not belong here: whether a variant is recommended (recommendation.py), and computing any metric.

The thresholds are rough on purpose: a diagnosis points to where to look, and decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from assets.experiments.leaderboard import COMPLETENESS, CORRECTNESS, GROUNDEDNESS, SIMILARITY, UTILIZATION

Level = Literal["low", "high"]
#: By what is looked at: below the first number is low, from the second on is high.
THRESHOLDS: dict[str, tuple[float, float]] = {
    "completeness": (0.64, 0.64),  # a squared share: four fifths of what the question asks for
    "utilization": (0.5, 0.5),
    "groundedness": (0.8, 0.8),
    "correctness": (0.5, 0.5),
    "similarity": (0.5, 0.5),
}
#: The metric each is read from, over answerable questions.
ESTIMATORS: dict[str, str] = {
    "completeness": COMPLETENESS,
    "utilization": UTILIZATION,
    "groundedness": GROUNDEDNESS,
    "correctness": CORRECTNESS,
    "similarity": SIMILARITY,
}


@dataclass(frozen=True)
class Symptom:
    """A row of the table: levels that occur together, what they mean, and the change of the experiment file to try."""

    levels: Mapping[str, Level]
    meaning: str
    advice: str
    change: str


TABLE = (
    Symptom(
        {"completeness": "low", "utilization": "high"},
        "retrieval misses evidence, and what it finds is used",
        "more or better chunks are needed: raise k, or change the search mode or the chunking",
        "grid.k: add {more}; grid.search_mode: add {modes}; grid.index: add one with other chunks",
    ),
    Symptom(
        {"completeness": "high", "utilization": "low"},
        "retrieval finds the evidence, and much beside it that is not used",
        "less would do: lower k, or make chunks smaller",
        "grid.k: add {fewer}; grid.index: add one with smaller chunks",
    ),
    Symptom(
        {"groundedness": "high", "correctness": "low"},
        "answers are supported by the passages, yet not the expected ones",
        "the source is wrong, or the model picks or infers the wrong part of it",
        "read the worst questions with `genaiops compare`, correct the source or the question; grid.model: add another",
    ),
    Symptom(
        {"groundedness": "high", "utilization": "high", "similarity": "low"},
        "answers are supported and use their passages, but are worded differently",
        "the prompt makes the model paraphrase: ask for the wording of the documents",
        "grid.prompt: add one that asks for the exact words",
    ),
    Symptom(
        {"groundedness": "low"},
        "statements are not supported by the passages",
        "the model adds what the documents do not say: ask it to answer from the passages alone, and to refuse otherwise",
        "grid.prompt: add one with a refusal and the rule to quote; grid.model: add another",
    ),
)


def estimates(row: Mapping[str, Any]) -> dict[str, float | None]:
    """What the table reads of a row, by name; None where it was not measured."""
    found = {
        name: (row["metrics"].get(metric) or {}).get("answerable") for name, metric in ESTIMATORS.items() if metric
    }
    if not UTILIZATION:
        found["utilization"] = row["utilization"]
    return {name: found.get(name) for name in ESTIMATORS}


def diagnose(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The symptoms of one variant, each with the numbers it rests on.

    Returns:
        JSON-able: ``variant``, ``symptom`` and ``advice`` in words, ``change`` of the experiment file, and ``because``:
        {name: {value, level, threshold, estimator}}. Answers that are wrong are not called paraphrases.
    """
    values = estimates(row)
    levels = {name: _level(name, value) for name, value in values.items()}
    found: list[dict[str, Any]] = []
    for symptom in TABLE:
        if any(levels[name] != level for name, level in symptom.levels.items()):
            continue
        if "similarity" in symptom.levels and levels["correctness"] == "low":
            continue
        shown = ", ".join(f"{name} {values[name]:.2f} is {level}" for name, level in symptom.levels.items())
        found.append(
            {
                "variant": row["variant"],
                "symptom": f"{symptom.meaning} ({shown})",
                "advice": symptom.advice,
                "change": symptom.change.format(**_settings(row)),
                "because": {
                    name: {
                        "value": values[name],
                        "level": level,
                        "threshold": THRESHOLDS[name][level == "high"],
                        "estimator": ESTIMATORS[name] or "share of the supplied chunks that are cited",
                    }
                    for name, level in symptom.levels.items()
                },
            }
        )
    return found


def _level(name: str, value: float | None) -> Level | None:
    low, high = THRESHOLDS[name]
    return None if value is None else "low" if value < low else "high" if value >= high else None


def _settings(row: Mapping[str, Any]) -> dict[str, str]:
    k, mode = row.get("k") or 5, row.get("search_mode")
    others = [one for one in ("hybrid", "vector", "full_text") if one != mode]
    return {"more": str(2 * k), "fewer": str(max(1, k // 2)), "modes": " and ".join(others)}
