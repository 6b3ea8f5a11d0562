"""The Pareto front: the variants that no other one beats in everything at once.

Belongs here: dominance over quality, cost, latency and energy. Does not belong here: measuring them, and choosing one.

It is about the numbers that were measured, without their uncertainty: a way to look at what is to be had, no decision.
Energy counts between models that state theirs (models.yaml); it is never estimated, as a figure made up from tokens would
repeat the cost.
"""

from collections.abc import Sequence
from dataclasses import dataclass

#: Latencies this close are one latency: they differ as much from one run to the next.
SAME_LATENCY_SHARE, SAME_LATENCY_SECONDS = 0.1, 0.005


@dataclass(frozen=True)
class Point:
    """A variant: quality (more is better), cost in any unit, seconds and watt hours (less is better, None: unknown)."""

    name: str
    quality: float
    cost: float
    latency: float | None
    energy: float | None = None


def dominated_by(points: Sequence[Point]) -> dict[str, str | None]:
    """For each variant the best of those that are nowhere worse and somewhere better; None on the front."""
    best_first = sorted(points, key=lambda point: (-point.quality, point.cost, point.name))
    return {
        point.name: next((other.name for other in best_first if _dominates(other, point)), None) for point in points
    }


def _dominates(one: Point, other: Point) -> bool:
    quicker, slower = _quicker(one, other), _quicker(other, one)
    thriftier, wasteful = _thriftier(one, other), _thriftier(other, one)
    return (
        one.quality >= other.quality
        and one.cost <= other.cost
        and not slower
        and not wasteful
        and (one.quality > other.quality or one.cost < other.cost or quicker or thriftier)
    )


def _thriftier(one: Point, other: Point) -> bool:
    return one.energy is not None and other.energy is not None and one.energy < other.energy


def _quicker(one: Point, other: Point) -> bool:
    if one.latency is None or other.latency is None:
        return False
    return one.latency < other.latency * (1 - SAME_LATENCY_SHARE) - SAME_LATENCY_SECONDS
