"""Checks of shadow_comparison: does the candidate do worse on live questions, and were there enough of them?

Belongs here: the outcomes. Does not belong here: the comparison (comparing.py).
"""

from assets.experiments.slices import MINIMUM_QUESTIONS
from assets.monitoring.shadow.comparing import Shadow
from assets.outcomes import CheckOutcome

CHECKS = {
    "shadow_no_regression": "On live questions the candidate is not shown to be worse than the champion.",
    "shadow_enough_traffic": "There are enough live questions, with the conditions they were asked with, to compare on.",
}
#: Neither keeps anything from being made: a shadow informs, and a promotion asks for an experiment's evidence.
NOT_BLOCKING = tuple(CHECKS)


def shadow_checks(shadow: Shadow) -> list[CheckOutcome]:
    """All declared checks, in order."""
    traffic = shadow.traffic
    enough = len(traffic.questions) >= MINIMUM_QUESTIONS and shadow.verdict != "too little traffic"
    nothing = shadow.verdict == "no candidate"
    return [
        CheckOutcome(
            "shadow_no_regression",
            shadow.verdict in ("no candidate", "too little traffic", "no worse shown"),
            expected="a candidate that is not shown to be worse",
            observed=f"{shadow.verdict}: {shadow.reason}",
            blocking=False,
            severity="WARN",
            details={"metrics": [_row(row) for row in shadow.report["metrics"]]} if shadow.report else {},
        ),
        CheckOutcome(
            "shadow_enough_traffic",
            nothing or enough,
            expected=f"at least {MINIMUM_QUESTIONS} different live questions, if there is a candidate",
            observed=f"{len(traffic.questions)} questions; {traffic.repeated} were asked again, "
            f"{traffic.unknown} left out because their caller's conditions are not on record"
            + ("; no candidate" if nothing else ""),
            blocking=False,
            severity="WARN",
        ),
    ]


def _row(row: dict[str, object]) -> dict[str, object]:
    """A metric as a table shows it."""
    flat = {key: value for key, value in row.items() if key not in ("difference", "fingerprint")}
    difference = row.get("difference")
    if isinstance(difference, dict):
        flat |= {"difference": difference["estimate"], "low": difference["low"], "high": difference["high"]}
    return {key: round(value, 4) if isinstance(value, float) else value for key, value in flat.items()}
