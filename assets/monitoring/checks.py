"""Checks on a drift report: was it computed, and did anything move?

Belongs here: the outcomes of the checks. Does not belong here: the verdicts themselves (signals.py).
"""

import math
from collections.abc import Sequence
from typing import Any

from assets.monitoring.signals import Comparison, Verdict
from assets.outcomes import CheckOutcome

CHECKS = {
    "drift_computed": "Every configured index and evaluation dataset has a finite result, or a stated reason why not.",
    "document_drift": "What the indexes serve resembles what they served earlier.",
    "question_drift": "What people ask resembles what the evaluation datasets test.",
}
NOT_BLOCKING = ("document_drift", "question_drift")


def drift_computed(comparisons: Sequence[Comparison], expected: Sequence[str]) -> CheckOutcome:
    """Every expected subject has one result; "not enough data" has a reason, and every number is finite."""
    found = [comparison.subject for comparison in comparisons]
    problems = {subject: "no result" for subject in expected if subject not in found}
    problems |= {subject: "more than one result" for subject in found if found.count(subject) > 1}
    for comparison in comparisons:
        silent = [s.name for s in comparison.signals if s.verdict == "not enough data" and not s.statement]
        broken = [
            s.name
            for s in comparison.signals
            if any(v is not None and not math.isfinite(v) for v in (s.effect, s.p_value))
        ]
        if comparison.verdict == "not enough data" and not comparison.words:
            problems.setdefault(comparison.subject, "no verdict and no reason")
        if silent:
            problems.setdefault(comparison.subject, f"not measured without a reason: {', '.join(silent)}")
        if broken:
            problems.setdefault(comparison.subject, f"not a finite number: {', '.join(broken)}")
    return CheckOutcome(
        "drift_computed",
        not problems,
        expected=f"{len(expected)} subjects with a result or a reason",
        observed="; ".join(f"{subject}: {what}" for subject, what in sorted(problems.items()))
        or f"{len(found)} subjects",
    )


def drift_outcome(name: str, prefix: str, comparisons: Sequence[Comparison]) -> CheckOutcome:
    """WARN when a subject of this kind warns, ERROR when one alerts; never blocking, for drift is news, not damage."""
    own = [comparison for comparison in comparisons if comparison.subject.startswith(prefix)]
    verdicts: set[Verdict] = {comparison.verdict for comparison in own}
    moved = [comparison for comparison in own if comparison.verdict in ("warn", "alert")]
    details: dict[str, Any] = {
        "subjects": [{"subject": c.subject, "verdict": c.verdict, "words": c.words} for c in own],
    }
    return CheckOutcome(
        name,
        not moved,
        expected="no subject moved",
        observed=" ".join(f"{c.subject} ({c.verdict}): {c.words}" for c in moved)
        or "; ".join(sorted(verdicts))
        or "none",
        blocking=False,
        severity="ERROR" if "alert" in verdicts else "WARN",
        details=details,
    )


def drift_checks(comparisons: Sequence[Comparison], expected: Sequence[str]) -> list[CheckOutcome]:
    """All declared checks, in order."""
    return [
        drift_computed(comparisons, expected),
        drift_outcome("document_drift", "documents:", comparisons),
        drift_outcome("question_drift", "questions:", comparisons),
    ]
