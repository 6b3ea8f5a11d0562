"""Two-sample statistics of drift: how far a current sample lies from a reference, and whether chance explains it.

Belongs here: PSI, Jensen-Shannon divergence, and the permutation tests (Kolmogorov-Smirnov, categories, vocabulary, MMD).
Does not belong here: reading documents or questions (documents.py, questions.py) and verdicts (signals.py).

Every test is calibrated by permutation: the pooled units (documents or questions) are dealt anew into two groups of
the same sizes, everything else about a statistic (bins, bandwidth, vocabulary) depends on the pooled sample alone, and
p = (b + 1) / (m + 1) where b of m permuted statistics reach the observed one. Such a test is exact for any sample size
(Phipson & Smyth 2010, "Permutation p-values should never be zero").
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


CODE_VERSION = "1"

#: Observations added to every bin, so that an empty one does not make PSI infinite (additive or Laplace smoothing).
SMOOTHING = 0.5
#: A term that fewer documents or questions than this contain is never shown: it could point at one of them.
MINIMUM_TERM_UNITS = 3
_BLOCK = 256  # permutations evaluated in one matrix product
_TERM = re.compile(r"[^\W\d_](?:[\w'’-]*\w)?")


@dataclass(frozen=True)
class PermutationTest:
    """Outcome of a permutation test.

    Attributes:
        statistic: of the sample as it is.
        p_value: (b + 1) / (m + 1).
        null: the m permuted statistics, float64 (m,).
    """

    statistic: float
    p_value: float
    null: Floats = field(repr=False)


@dataclass(frozen=True)
class TermChange:
    """A term and its share of all tokens (0..1) in the reference and in the current sample."""

    term: str
    reference: float
    current: float


@dataclass(frozen=True)
class VocabularyShift:
    """Jensen-Shannon divergence of two vocabularies with the terms that contribute most to it."""

    test: PermutationTest
    risen: tuple[TermChange, ...]
    fallen: tuple[TermChange, ...]


@dataclass(frozen=True)
class MmdResult:
    """Maximum mean discrepancy: the unbiased estimate of its square, tested by permutation.

    Attributes:
        bandwidth: sigma of the kernel exp(-d^2 / (2 sigma^2)), with 2 sigma^2 = median squared distance.
    """

    test: PermutationTest
    bandwidth: float


def quantile_edges(reference: Sequence[float] | Floats, bins: int = 10) -> Floats:
    """Inner edges of up to ``bins`` bins that hold equal shares of the reference; repeated values merge bins."""

    import numpy as np

    return np.unique(np.quantile(np.asarray(reference, dtype=float), np.linspace(0, 1, bins + 1)[1:-1]))


def bin_counts(values: Sequence[float] | Floats, edges: Floats) -> NDArray[np.int64]:
    """Counts per bin; bin i holds edges[i-1] < value <= edges[i], the outer bins are open."""

    import numpy as np

    places = np.searchsorted(edges, np.asarray(values, dtype=float), side="left")
    return np.bincount(places, minlength=len(edges) + 1)


def psi(reference: Sequence[int] | NDArray, current: Sequence[int] | NDArray) -> float:
    """Population stability index of two vectors of bin counts, smoothed.

    PSI = sum_i (q_i - p_i) ln(q_i / p_i) with p_i = (n_i + a) / (n + a B), a = ``SMOOTHING``, B bins: the symmetrised
    Kullback-Leibler divergence in nats (Siddiqi 2006, "Credit Risk Scorecards"). Without drift its expectation is about
    (B - 1)(1/n + 1/m), so a threshold alone cries wolf on small samples (Yurdakul & Naranjo 2020).
    """

    import numpy as np

    p, q = (
        (counts + SMOOTHING) / (counts.sum() + SMOOTHING * len(counts))
        for counts in (np.asarray(reference, dtype=float), np.asarray(current, dtype=float))
    )
    return float(np.sum((q - p) * np.log(q / p)))


def js_divergence(reference: Sequence[float] | NDArray, current: Sequence[float] | NDArray) -> float:
    """Jensen-Shannon divergence of two vectors of counts or shares, in bits: 0 same, 1 disjoint (Lin 1991)."""

    import numpy as np

    p, q = np.asarray(reference, dtype=float), np.asarray(current, dtype=float)
    return float(_js_terms(p / p.sum(), q / q.sum()).sum())


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm-adjusted p-values in the order given; rejecting those <= alpha keeps the family-wise error at alpha."""
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, position in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[position]))
        adjusted[position] = running
    return adjusted


def ks_test(
    reference: Sequence[float] | Floats,
    current: Sequence[float] | Floats,
    *,
    permutations: int,
    rng: np.random.Generator,
) -> PermutationTest:
    """Two-sample Kolmogorov-Smirnov test of a scalar: D = max |F_reference - F_current|, ties handled exactly."""

    import numpy as np

    pooled = np.concatenate([np.asarray(reference, dtype=float), np.asarray(current, dtype=float)])
    size = len(reference)
    order = np.argsort(pooled, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(pooled[order]) > 0, True))

    def statistic(labels: NDArray[np.float32]) -> Floats:
        below = np.cumsum(labels[:, order], axis=1, dtype=np.float64)[:, ends]
        return np.abs(below / size - (ends + 1 - below) / (len(pooled) - size)).max(axis=1)

    return _permute(statistic, size, len(pooled), permutations, rng)


def category_test(
    reference: Sequence[str], current: Sequence[str], *, permutations: int, rng: np.random.Generator
) -> PermutationTest:
    """Test of category shares; the statistic is the smoothed PSI over the categories of the pooled sample."""

    import numpy as np

    names = sorted({*reference, *current})
    places = {name: place for place, name in enumerate(names)}
    one_hot = np.zeros((len(reference) + len(current), len(names)), dtype=np.float32)
    one_hot[np.arange(len(one_hot)), [places[name] for name in (*reference, *current)]] = 1
    total = one_hot.sum(axis=0, dtype=np.float64)

    def statistic(labels: NDArray[np.float32]) -> Floats:
        first = (labels @ one_hot).astype(np.float64)
        p = (first + SMOOTHING) / (len(reference) + SMOOTHING * len(names))
        q = (total - first + SMOOTHING) / (len(current) + SMOOTHING * len(names))
        return np.sum((q - p) * np.log(q / p), axis=1)

    return _permute(statistic, len(reference), len(one_hot), permutations, rng)


def term_counts(text: str) -> Counter[str]:
    """Count the terms of a text: words that start with a letter, case folded."""
    return Counter(_TERM.findall(text.casefold()))


def vocabulary_test(
    reference: Sequence[Mapping[str, int]],
    current: Sequence[Mapping[str, int]],
    *,
    permutations: int,
    rng: np.random.Generator,
    terms: int = 500,
    shown: int = 10,
) -> VocabularyShift:
    """Compare token distributions over the ``terms`` most frequent terms of the pooled sample (the rest is one bin).

    Args:
        reference: term counts of each unit (document or question); units, not tokens, are permuted.
        current: likewise.
        shown: how many risen and fallen terms to return, by contribution to the divergence.
    """

    import numpy as np

    units = [*reference, *current]
    pooled: Counter[str] = Counter()
    for unit in units:
        pooled.update(unit)
    names = [name for name, _ in sorted(pooled.items(), key=lambda item: (-item[1], item[0]))[:terms]]
    places = {name: place for place, name in enumerate(names)}
    counts = np.zeros((len(units), len(names) + 1), dtype=np.float32)
    for row, unit in enumerate(units):
        for name, count in unit.items():
            counts[row, places.get(name, len(names))] += count
    total = counts.sum(axis=0, dtype=np.float64)

    def statistic(labels: NDArray[np.float32]) -> Floats:
        first = (labels @ counts).astype(np.float64)
        second = np.maximum(total - first, 0)
        p = first / np.maximum(first.sum(axis=1, keepdims=True), 1)
        q = second / np.maximum(second.sum(axis=1, keepdims=True), 1)
        return _js_terms(p, q).sum(axis=1)

    test = _permute(statistic, len(reference), len(units), permutations, rng)
    first = counts[: len(reference)].sum(axis=0, dtype=np.float64)
    second = total - first
    p, q = first / max(first.sum(), 1), second / max(second.sum(), 1)
    contribution = _js_terms(p, q)[: len(names)]
    spread = (counts[:, : len(names)] > 0).sum(axis=0)
    order = np.argsort(-contribution, kind="stable")
    eligible = [i for i in order if spread[i] >= MINIMUM_TERM_UNITS and contribution[i] > 0 and len(names[i]) > 1]
    changes = [TermChange(names[i], float(p[i]), float(q[i])) for i in eligible]
    return VocabularyShift(
        test,
        risen=tuple(change for change in changes if change.current > change.reference)[:shown],
        fallen=tuple(change for change in changes if change.current < change.reference)[:shown],
    )


def mmd_test(
    reference: NDArray[np.float32], current: NDArray[np.float32], *, permutations: int, rng: np.random.Generator
) -> MmdResult:
    """Kernel two-sample test of vectors (Gretton et al. 2012, "A Kernel Two-Sample Test", eq. 3).

    Kernel exp(-d^2 / median d^2) over the pooled sample; the statistic is the unbiased estimate of MMD^2, which is
    near 0, and may be negative, when nothing moved. One Gram matrix serves all permutations: their sums are matrix
    products. Time grows with (n + m)^2 x permutations.

    Args:
        reference: float32 (n, dimensions), n >= 2.
        current: float32 (m, dimensions), m >= 2.
    """

    import numpy as np

    pooled = np.concatenate([reference, current]).astype(np.float32)
    pooled = pooled - pooled.mean(axis=0)  # distances stay the same, rounding shrinks
    n, m, size = len(reference), len(current), len(pooled)
    squares = np.einsum("ij,ij->i", pooled, pooled)
    gram = pooled @ pooled.T
    gram *= -2
    gram += squares[:, None]
    gram += squares[None, :]
    np.maximum(gram, 0, out=gram)
    scale = _median_distance(gram)
    if scale == 0:  # all vectors are equal: nothing can have moved
        return MmdResult(PermutationTest(0.0, 1.0, np.zeros(permutations)), 0.0)
    gram /= -scale
    np.exp(gram, out=gram)
    # The unbiased estimate leaves the diagonal out and does not change when a constant is taken off every other
    # entry; centring keeps the float32 sums accurate.
    np.fill_diagonal(gram, 0)
    gram -= np.float32(gram.sum(dtype=np.float64) / (size * (size - 1)))
    np.fill_diagonal(gram, 0)
    rows = gram.sum(axis=1, dtype=np.float64)
    total = rows.sum()

    def statistic(labels: NDArray[np.float32]) -> Floats:
        inside = np.einsum("ij,ij->i", labels @ gram, labels, dtype=np.float64)
        first = labels.astype(np.float64) @ rows
        across = first - inside
        other = total - 2 * first + inside
        return inside / (n * (n - 1)) + other / (m * (m - 1)) - 2 * across / (n * m)

    return MmdResult(_permute(statistic, n, size, permutations, rng), float(np.sqrt(scale / 2)))


def _median_distance(squared: NDArray[np.float32]) -> float:
    """Median of the squared distances of distinct pairs; when more than half are 0, the mean of the others."""

    import numpy as np

    upper = squared[np.triu_indices(len(squared), 1)]
    median = float(np.median(upper))
    if median > 0:
        return median
    positive = upper[upper > 0]
    return float(positive.mean()) if len(positive) else 0.0


def _js_terms(p: Floats, q: Floats) -> Floats:
    import numpy as np

    middle = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        left = np.where(p > 0, p * np.log2(p / middle), 0.0)
        right = np.where(q > 0, q * np.log2(q / middle), 0.0)
    return (left + right) / 2


def _permute(statistic, first: int, size: int, permutations: int, rng: np.random.Generator) -> PermutationTest:
    """Run a statistic of label matrices (1 marks the first group) on the sample as it is and on permutations of it."""

    import numpy as np

    identity = np.zeros((1, size), dtype=np.float32)
    identity[0, :first] = 1
    observed = float(statistic(identity)[0])
    null = np.concatenate([statistic(labels) for labels in _labels(identity, permutations, rng)])
    tolerance = 1e-6 * float(null.std()) + 1e-12  # equal statistics must count as equal in spite of rounding
    reached = int(np.count_nonzero(null >= observed - tolerance))
    return PermutationTest(observed, (reached + 1) / (permutations + 1), null)


def _labels(
    identity: NDArray[np.float32], permutations: int, rng: np.random.Generator
) -> Iterator[NDArray[np.float32]]:
    import numpy as np

    for start in range(0, permutations, _BLOCK):
        block = np.repeat(identity, min(_BLOCK, permutations - start), axis=0)
        yield rng.permuted(block, axis=1)
