"""Measuring: two samples in, signals and the data of their figure out.

Belongs here: one method per kind of signal, shared by documents and questions.
Does not belong here: reading samples (documents.py, questions.py), the formulas (drift_statistics.py), verdicts (signals.py).

Sizes (PSI, Jensen-Shannon, terms) describe the current sample as a whole. Where it shares most of its units with the
reference, as two snapshots of one index do, significance is that of what ``arrived``: shared units are no independent
evidence, they make the two samples more alike than chance would, and a test of the whole would see almost nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from assets.monitoring.drift_statistics import (
    TermChange,
    bin_counts,
    category_test,
    js_divergence,
    ks_test,
    mmd_test,
    psi,
    quantile_edges,
    vocabulary_test,
)
from assets.monitoring.signals import MINIMUM_UNITS, Signal, not_measured

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CODE_VERSION = "1"

_HISTOGRAM_BINS = 24


@dataclass
class Measuring:
    """Collects the signals of one subject.

    Attributes:
        permutations: per test.
        rng: seeded by day and subject, so that a report can be repeated.
        signals, risen, fallen, figure: see ``signals.Comparison``.
    """

    permutations: int
    rng: np.random.Generator
    signals: list[Signal] = field(default_factory=list)
    risen: tuple[TermChange, ...] = ()
    fallen: tuple[TermChange, ...] = ()
    figure: dict[str, Any] = field(default_factory=dict)

    def scalar(
        self,
        name: str,
        title: str,
        unit: str,
        reference: Sequence[float],
        current: Sequence[float],
        *,
        arrived: Sequence[float] | None = None,
        why_not: str = "",
    ) -> None:
        """PSI and Jensen-Shannon on the reference's decile bins; significance by the permutation KS test."""

        import numpy as np

        tested = current if arrived is None else arrived
        if not self._enough(name, title, len(reference), len(tested), why_not):
            return
        edges = quantile_edges(reference)
        counts = bin_counts(reference, edges), bin_counts(current, edges)
        test = ks_test(reference, tested, permutations=self.permutations, rng=self.rng)
        self.signals.append(
            Signal(
                name,
                title,
                "PSI",
                psi(*counts),
                test.p_value,
                (len(reference), len(tested)),
                f"median {_number(np.median(reference))} → {_number(np.median(current))}{' ' + unit if unit else ''}",
                facts={"ks": test.statistic, "jensen_shannon": js_divergence(*counts), "bins": len(edges) + 1},
            )
        )
        if name == "length":
            pooled = np.concatenate([reference, current])
            grid = np.linspace(0, max(float(np.quantile(pooled, 0.98)), 1.0), _HISTOGRAM_BINS + 1)
            self.figure["length"] = {
                "title": f"{title} ({unit})",
                "edges": grid.tolist(),
                "reference": (np.histogram(np.minimum(reference, grid[-1]), grid)[0] / len(reference)).tolist(),
                "current": (np.histogram(np.minimum(current, grid[-1]), grid)[0] / len(current)).tolist(),
            }

    def shares(
        self,
        name: str,
        title: str,
        reference: Sequence[str],
        current: Sequence[str],
        *,
        arrived: Sequence[str] | None = None,
        why_not: str = "",
    ) -> None:
        """PSI and Jensen-Shannon of category shares; significance by permutation of the PSI."""
        tested = current if arrived is None else arrived
        if not self._enough(name, title, len(reference), len(tested), why_not):
            return
        test = category_test(reference, tested, permutations=self.permutations, rng=self.rng)
        before, after = Counter(reference), Counter(current)
        names = sorted({*before, *after}, key=lambda key: (-before[key] - after[key], key))
        counts = [before[key] for key in names], [after[key] for key in names]
        shares = [(key, before[key] / len(reference), after[key] / len(current)) for key in names]
        largest = max(shares, key=lambda share: (round(abs(share[2] - share[1]), 9), share[2] > share[1]))
        self.signals.append(
            Signal(
                name,
                title,
                "PSI",
                psi(*counts),
                test.p_value,
                (len(reference), len(tested)),
                f"share of '{largest[0]}' {largest[1]:.0%} → {largest[2]:.0%}",
                facts={"jensen_shannon": js_divergence(*counts)},
            )
        )
        self.figure["shares"] = {"title": title, "shares": [list(share) for share in shares[:8]]}

    def vocabulary(
        self,
        reference: Sequence[Mapping[str, int]],
        current: Sequence[Mapping[str, int]],
        *,
        arrived: Sequence[Mapping[str, int]] | None = None,
        why_not: str = "",
    ) -> None:
        """Jensen-Shannon divergence of token distributions, with the terms that rose and fell."""
        tested = current if arrived is None else arrived
        if not self._enough("vocabulary", "vocabulary", len(reference), len(tested), why_not):
            return
        shift = vocabulary_test(reference, tested, permutations=self.permutations, rng=self.rng)
        whole = shift if arrived is None else vocabulary_test(reference, current, permutations=1, rng=self.rng)
        self.risen, self.fallen = whole.risen, whole.fallen
        self.signals.append(
            Signal(
                "vocabulary",
                "vocabulary",
                "Jensen-Shannon",
                whole.test.statistic,
                shift.test.p_value,
                (len(reference), len(tested)),
                "other words are used",
            )
        )

    def vectors(
        self,
        name: str,
        title: str,
        reference: NDArray[np.float32],
        current: NDArray[np.float32],
        *,
        why_not: str = "",
    ) -> None:
        """Permutation MMD of two sets of vectors."""

        import numpy as np

        if not self._enough(name, title, len(reference), len(current), why_not):
            return
        result = mmd_test(reference, current, permutations=self.permutations, rng=self.rng)
        self.signals.append(
            Signal(
                name,
                title,
                "MMD²",
                result.test.statistic,
                result.test.p_value,
                (len(reference), len(current)),
                "distributed differently",
                facts={"bandwidth": result.bandwidth, "permutations": self.permutations, "estimate": "unbiased"},
            )
        )
        counts, grid = np.histogram(result.test.null, _HISTOGRAM_BINS)
        self.figure["mmd"] = {
            "title": f"{title} (MMD²)",
            "edges": grid.tolist(),
            "counts": counts.tolist(),
            "observed": result.test.statistic,
            "p_value": result.test.p_value,
        }

    def _enough(self, name: str, title: str, reference: int, current: int, why_not: str) -> bool:
        reason = why_not
        if not reason and min(reference, current) < MINIMUM_UNITS:
            reason = f"{current} against {reference}, at least {MINIMUM_UNITS} on each side are needed"
        if reason:
            self.signals.append(not_measured(name, title, reason, (reference, current)))
        return not reason


def _number(value: Any) -> str:
    return f"{float(value):,.0f}" if abs(float(value)) >= 10 else f"{float(value):.3g}"
