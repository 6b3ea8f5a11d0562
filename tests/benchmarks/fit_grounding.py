"""Fits the coefficients of lexical groundedness on BEGIN (development split), and says how well they do out of fold.

Run: ``python -m tests.benchmarks.fit_grounding ../shared/data``. Nothing here runs in a test or in the product; it prints
what stands as constants in assets/evaluation/metrics/grounding.py, and the figures of docs/metrics.md.

Each claim of a labelled answer is a row with the features of its best window and the label of its answer, weighing one
over the number of claims. A logistic regression with an L2 penalty on standardised features and *signs held as they must
be* (more shared words never count against a claim) keeps what 767 answers can teach apart from their chance. Folds hold
out whole groups (one knowledge passage each).
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from assets.evaluation.metrics import grounding

PENALTY = 1.0
FOLDS = 10
#: The direction in which each feature may count; 0 leaves it free.
SIGNS = {"plain": 1, "rare": 1, "pairs": 1, "missing": -1, "length": 0, "personal": -1}


def read(data: Path) -> list[dict[str, Any]]:
    """Labelled answers; the 79 generic ones have no label."""
    lines = (data / "begin-dev" / "examples.jsonl").read_text(encoding="utf-8").splitlines()
    return [row for row in map(json.loads, lines) if row["grounded"] is not None]


def looks(row: dict[str, Any]) -> list[list[tuple[tuple[float, ...], bool]]]:
    """For each claim, the features and the contradiction of each window that is looked at closely."""
    seen: list[list[tuple[tuple[float, ...], bool]]] = []
    original, veto = grounding._probability, grounding.contradicts
    current: list[tuple[float, ...]] = []
    vetoes: list[bool] = []

    def watch(values: Sequence[float]) -> float:
        current.append(tuple(values))
        return original(values)

    def contradicts(*arguments: Any) -> bool:
        vetoes.append(veto(*arguments))
        return vetoes[-1]

    grounding._probability, grounding.contradicts = watch, contradicts
    try:
        chunks = [grounding.analyse_chunk(row["context"])]
        for claim in grounding.claims(row["answer"]):
            current.clear()
            vetoes.clear()
            grounding.assess_claim(claim, chunks)
            seen.append(list(zip(current, vetoes, strict=True)) or [((0.0,) * len(grounding.FEATURES), True)])
    finally:
        grounding._probability, grounding.contradicts = original, veto
    return seen


def fit(rows: Sequence[list[Any]], labels: np.ndarray, chosen: Sequence[str] = grounding.FEATURES) -> np.ndarray:
    """Intercept and coefficients (of all features, zero for those left out)."""
    from scipy.optimize import minimize

    places = [grounding.FEATURES.index(name) for name in chosen]
    matrix = np.array([claim[0][0] for row in rows for claim in row])[:, places]
    target = np.repeat(labels, [len(row) for row in rows]).astype(float)
    weight = np.repeat([1 / max(1, len(row)) for row in rows], [len(row) for row in rows])
    mean, scale = matrix.mean(0), matrix.std(0) + 1e-9
    scaled = (matrix - mean) / scale

    def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
        z = theta[0] + scaled @ theta[1:]
        p = 1 / (1 + np.exp(-z))
        value = np.sum(weight * (np.logaddexp(0, z) - target * z)) + PENALTY / 2 * np.sum(theta[1:] ** 2)
        rest = weight * (p - target)
        return float(value), np.concatenate([[rest.sum()], scaled.T @ rest + PENALTY * theta[1:]])

    bounds = [(None, None)] + [{1: (0, None), -1: (None, 0), 0: (None, None)}[SIGNS[name]] for name in chosen]
    theta = minimize(loss, np.zeros(len(places) + 1), jac=True, method="L-BFGS-B", bounds=bounds).x
    result = np.zeros(len(grounding.FEATURES) + 1)
    result[[place + 1 for place in places]] = theta[1:] / scale
    result[0] = theta[0] - float(np.sum(theta[1:] * mean / scale))
    return result


def value(row: Sequence[Any], theta: np.ndarray) -> float:
    """The metric as delivered, with these coefficients."""
    found = []
    for claim in row:
        best = 0.0
        for features, veto in claim:
            p = 1 / (1 + np.exp(-(theta[0] + float(np.dot(theta[1:], features)))))
            best = max(best, p * (grounding._CONTRADICTED if veto else 1))
        found.append(best)
    return float(np.mean(found)) if found else 0.0


def folds(groups: Sequence[str], seed: int) -> np.ndarray:
    """The fold of each row; a group is in one."""
    names = sorted(set(groups))
    order = np.random.default_rng(seed).permutation(len(names))
    of_group = {names[place]: number % FOLDS for number, place in enumerate(order)}
    return np.array([of_group[group] for group in groups])


def out_of_fold(
    rows: Sequence[list[Any]], labels: np.ndarray, groups: Sequence[str], chosen: Sequence[str], seed: int
) -> np.ndarray:
    """Values of rows by coefficients that have not seen their group."""
    fold = folds(groups, seed)
    values = np.zeros(len(rows))
    for number in range(FOLDS):
        train = [row for row, mine in zip(rows, fold, strict=True) if mine != number]
        theta = fit(train, labels[fold != number], chosen)
        for place in np.flatnonzero(fold == number):
            values[place] = value(rows[int(place)], theta)
    return values


def interval(values: np.ndarray, labels: np.ndarray, groups: Sequence[str]) -> tuple[float, float]:
    """95 % percentile bootstrap interval of the AUC over groups."""
    from sklearn.metrics import roc_auc_score

    random = np.random.default_rng(1)
    places: dict[str, list[int]] = {}
    for place, group in enumerate(groups):
        places.setdefault(group, []).append(place)
    members = list(places.values())
    found = []
    for _ in range(1000):
        drawn = np.concatenate([members[number] for number in random.integers(0, len(members), len(members))])
        found.append(roc_auc_score(labels[drawn], values[drawn]))
    return tuple(np.percentile(found, [2.5, 97.5]))  # pyright: ignore[reportReturnType]


def main() -> None:
    """Print figures and constants."""
    from sklearn.metrics import roc_auc_score

    examples = read(Path(sys.argv[1]))
    rows = [looks(row) for row in examples]
    labels = np.array([row["grounded"] for row in examples])
    groups = [row["group"] for row in examples]
    chosen = sys.argv[2].split(",") if len(sys.argv) > 2 else grounding.FEATURES
    values = [out_of_fold(rows, labels, groups, chosen, seed) for seed in range(5)]
    aucs = [roc_auc_score(labels, one) for one in values]
    low, high = interval(values[0], labels, groups)
    print(
        f"out of fold AUC: {np.mean(aucs):.4f} (5 divisions: {min(aucs):.4f} to {max(aucs):.4f}); 95 % {low:.4f} to {high:.4f}"
    )
    theta = fit(rows, labels, chosen)
    print(f"in sample {roc_auc_score(labels, [value(row, theta) for row in rows]):.4f}")
    print(f"INTERCEPT = {theta[0]:.3f}")
    for name, one in zip(grounding.FEATURES, theta[1:], strict=True):
        print(f"  {name:10s} {one:.3f}")
    print("COEFFICIENTS = (" + ", ".join(f"{one:.3f}" for one in theta[1:]) + ")")


if __name__ == "__main__":
    main()
