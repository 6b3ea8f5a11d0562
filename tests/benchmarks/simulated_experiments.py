"""Simulated experiments: scores with known true means, and what the statistics make of them.

Belongs here: drawing scores, and how often a test errs or finds what is there. Does not belong here: assertions.

``python -m tests.benchmarks.simulated_experiments docs/images/power-curve.png`` draws the figure of docs/statistics.md.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from assets.experiments.leaderboard import compare
from assets.experiments.recommendation import recommend
from assets.experiments.statistics import (
    Groups,
    deviations,
    equivalence,
    mean_intervals,
    non_inferiority,
    power_of,
    sign_flip_p_values,
)
from resources.experiment_config import ExperimentConfig

Floats = NDArray[np.float64]
Shape = Literal["normal", "right or wrong", "skewed"]
SHAPES: tuple[Shape, ...] = ("normal", "right or wrong", "skewed")
#: True mean of the champion in every simulation.
MEAN = 0.6
#: Correlation of the scores of one group's questions.
CORRELATION = 0.3
#: Experiments that share resamples: few enough that their errors do not move together.
BATCH = 250
#: Questions and how many of them make a group.
SIZES = ((30, 1), (100, 1), (400, 1), (30, 3), (100, 4), (400, 4))


def groups_of(questions: int, size: int) -> Groups:
    """Labels of groups of ``size`` neighbours; None for single questions."""
    return None if size == 1 else [number // size for number in range(questions)]


def draw(
    generator: np.random.Generator, shape: Shape, role: Literal["champion", "challenger"], mean: float, questions: int,
    size: int, columns: int,
) -> Floats:  # fmt: skip
    """Scores between 0 and 1 with this true mean, shape (questions, columns); those of a group are correlated.

    ``skewed`` is like token F1: the champion's lie around the mean, the challenger's are 0 or high, so that their
    difference is far from symmetric even when the means are equal.
    """
    from scipy.special import betaincinv, ndtr

    own = generator.standard_normal((questions, columns))
    if size > 1:
        shared = generator.standard_normal((-(-questions // size), columns)).repeat(size, axis=0)[:questions]
        own = np.sqrt(CORRELATION) * shared + np.sqrt(1 - CORRELATION) * own
    if shape == "normal":
        return np.clip(mean + 0.08 * own, 0, 1)
    level = ndtr(own)
    if shape == "right or wrong":
        return (level < mean).astype(float)
    if role == "champion":
        return betaincinv(10 * mean, 10 * (1 - mean), level)
    right = mean / 0.8
    return np.where(
        level < 1 - right, 0.0, betaincinv(8.0, 2.0, np.clip((level - 1 + right) / right, 1e-12, 1 - 1e-12))
    )


def differences(shape: Shape, gap: float, questions: int, size: int, experiments: int, seed: int) -> Iterator[Floats]:
    """Differences of a challenger whose true mean is ``gap`` above the champion's, ``BATCH`` experiments at a time."""
    for batch in range(0, experiments, BATCH):
        generator = np.random.default_rng([seed, questions, size, batch])
        columns = min(BATCH, experiments - batch)
        champion = draw(generator, shape, "champion", MEAN, questions, size, columns)
        yield draw(generator, shape, "challenger", MEAN + gap, questions, size, columns) - champion


@dataclass(frozen=True)
class Rates:
    """Shares of experiments, with a nominal level of 5 %.

    Attributes:
        alarm: equal means called different; ``ignoring_groups`` likewise, when every question is taken for independent.
        coverage: 95 % BCa intervals that hold the true difference.
        no_worse: a loss of exactly the margin called no worse; ``equal``: called equal.
    """

    shape: Shape
    questions: int
    size: int
    alarm: float
    ignoring_groups: float
    coverage: float
    no_worse: float
    equal: float


def error_rates(
    shape: Shape,
    questions: int,
    size: int,
    *,
    experiments: int,
    resamples: int = 1999,
    margin: float = 0.05,
    seed: int = 1,
) -> Rates:
    """How often the tests err at a nominal 5 %."""
    groups = groups_of(questions, size)
    alarm, ignoring, covered, no_worse, equal = 0, 0, 0, 0, 0
    for number, batch in enumerate(differences(shape, 0.0, questions, size, experiments, seed)):
        settings: dict[str, Any] = {"resamples": resamples, "seed": number}
        alarm += sum(p <= 0.05 for p in sign_flip_p_values(batch, groups=groups, **settings))
        ignoring += sum(p <= 0.05 for p in sign_flip_p_values(batch, **settings)) if size > 1 else 0
        covered += sum(
            one.low <= 0 <= one.high for one in mean_intervals(batch, confidence=0.95, groups=groups, **settings)
        )
    for batch in differences(shape, -margin, questions, size, experiments, seed + 1):
        no_worse += sum(one.p <= 0.05 for one in non_inferiority(batch, margin, alpha=0.05, groups=groups))
        equal += sum(one.estimate <= 0.05 for one in equivalence(batch, margin, alpha=0.05, groups=groups))
    counts = (alarm, ignoring if size > 1 else alarm, covered, no_worse, equal)
    return Rates(shape, questions, size, *(count / experiments for count in counts))


def decide(scores: Floats, groups: Groups, config: ExperimentConfig, *, tokens: list[float]) -> dict[str, Any]:
    """The recommendation on scores of shape (questions, variants), the first of them the champion's."""
    order = sorted(range(scores.shape[1]), key=lambda at: (-round(float(scores[:, at].mean()), 12), at))
    found = compare(config, scores[:, order], order.index(0), groups)
    rows = [
        {
            **one, "variant": str(at), "fingerprint": str(at), "model": "m", "offline": False, "champion": at == 0,
            "guards": [], "metrics": {}, "utilization": None, "failed": 0, "k": 3, "search_mode": "hybrid",
            "cost_per_1000": 0.0, "tokens_per_answer": tokens[at], "currency": "USD", "latency_median": None,
            "latency_p95": None,
        }
        for one, at in zip(found, order, strict=True)
    ]  # fmt: skip
    count = len(scores) if groups is None else len(set(groups))
    return recommend(
        {
            "experiment": config.name, "dataset": config.dataset, "split": "dev", "decision_metric": config.decision_metric,
            "confidence": config.confidence, "comparisons": scores.shape[1] - 1, "margins": config.margins.model_dump(),
            "questions": {"answerable": len(scores), "unanswerable": 0, "compared": len(scores), "groups": count, "stale": 0},
            "cluster": None if groups is None else "group", "slices": [], "rows": rows,
        }
    )  # fmt: skip


def configured(**settings: Any) -> ExperimentConfig:
    """An experiment as its file would have it; no index or prompt of it is ever asked."""
    choice = {"index": "i", "prompt": "p", "search_mode": "hybrid", "k": 3, "model": "m"}
    grid = {axis: [value] for axis, value in choice.items()}
    return ExperimentConfig(
        **{"name": "simulated", "dataset": "d", "grid": grid, "baseline": choice, "resamples": 1000, **settings}
    )


def verdicts(
    shape: Shape, gap: float, questions: int, size: int, *, challengers: int, experiments: int, tokens: float = 100.0,
    seed: int = 1, **settings: Any,
) -> dict[str, float]:  # fmt: skip
    """Shares of the verdicts over experiments in which every challenger's true mean lies ``gap`` above the champion's.

    Args:
        tokens: per answer of a challenger; the champion takes 100.
    """
    groups, found = groups_of(questions, size), {}
    for number in range(experiments):
        generator = np.random.default_rng([seed, questions, size, number])
        scores = np.concatenate(
            [
                draw(generator, shape, "champion", MEAN, questions, size, 1),
                draw(generator, shape, "challenger", MEAN + gap, questions, size, challengers),
            ],
            axis=1,
        )
        config = configured(seed=number, **settings)
        verdict = decide(scores, groups, config, tokens=[100.0, *[tokens] * challengers])["verdict"]
        found[verdict] = found.get(verdict, 0) + 1
    return {verdict: count / experiments for verdict, count in sorted(found.items())}


def power(
    shape: Shape, gap: float, questions: int, size: int, *, experiments: int, resamples: int = 1999, seed: int = 1
) -> tuple[float, float]:
    """How often one comparison shows a true difference, and how often the formula says it would."""
    groups, shown, spread = groups_of(questions, size), 0, []
    for number, batch in enumerate(differences(shape, gap, questions, size, experiments, seed)):
        shown += sum(p <= 0.05 for p in sign_flip_p_values(batch, resamples=resamples, seed=number, groups=groups))
        spread += deviations(batch, groups)
    predicted = power_of(gap, float(np.sqrt(np.mean(np.square(spread)))), questions, alpha=0.05)
    return shown / experiments, predicted


EFFECTS = (0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15)
CURVES = ((100, 1), (200, 1), (400, 1), (1600, 1), (400, 4))


def power_table(shape: Shape, experiments: int) -> dict[tuple[int, int], list[tuple[float, float]]]:
    """Measured and predicted power by (questions, group size) over ``EFFECTS``."""
    return {
        (questions, size): [power(shape, gap, questions, size, experiments=experiments) for gap in EFFECTS]
        for questions, size in CURVES
    }


def draw_power(table: dict[tuple[int, int], list[tuple[float, float]]], path: Path) -> None:
    """Write the power curves as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    picture = Figure(figsize=(7.5, 4.2), dpi=110, layout="constrained")
    axes = picture.add_subplot()
    for (questions, size), found in table.items():
        label = f"{questions} questions" + (f" in {questions // size} groups" if size > 1 else "")
        (line,) = axes.plot(EFFECTS, [one for one, _ in found], marker="o", markersize=4, label=label)
        axes.plot(EFFECTS, [one for _, one in found], linestyle=":", color=line.get_color(), linewidth=1)
    axes.axhline(0.8, color="#8a94a1", linewidth=1)
    axes.set_xlabel("true difference of the means (scores are right or wrong)")
    axes.set_ylabel("probability that it is shown")
    axes.legend(fontsize=8, title="dotted: by the formula", title_fontsize=8)
    axes.grid(color="#e3e8ee")
    FigureCanvasAgg(picture).print_png(str(path))


if __name__ == "__main__":
    draw_power(power_table("right or wrong", 2000), Path(sys.argv[1]))
