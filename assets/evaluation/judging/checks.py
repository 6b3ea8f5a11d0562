"""Checks of judge_calibration: whether a judge agrees with people well enough for anything to rest on it.

Belongs here: the names shown in the UI, and each check as a pure function of measures and limits.
Does not belong here: measuring (calibration.py, calibrating.py).

A limit is held against the end of the interval that speaks against the judge: that it agrees has to be shown, not hoped.
"""

from collections.abc import Mapping
from typing import Any

from assets.outcomes import CheckOutcome
from resources.judge_config import CalibrationConfig, JudgeConfig

CHECKS: dict[str, str] = {
    "judge_agrees": "The judge agrees with people as far as its file asks for, on enough labelled answers.",
    "judge_unbiased": "The judge's scores lie neither above nor below what people say.",
    "judge_consistent": "The judge says the same whatever the order of what it is shown, and when it is asked again.",
}
NOT_BLOCKING = ("judge_unbiased", "judge_consistent")

Measures = Mapping[str, Any]


def evaluate(judge: JudgeConfig, settings: CalibrationConfig, measures: Measures) -> list[CheckOutcome]:
    """All checks; only a judge that passes every one may decide anything."""
    return [
        judge_agrees(settings, measures),
        judge_unbiased(settings, measures),
        judge_consistent(judge, settings, measures),
    ]


def judge_agrees(settings: CalibrationConfig, measures: Measures) -> CheckOutcome:
    """Enough items, few of them failed, and every agreement asked for above its limit."""
    wanted = {
        "kappa": settings.minimum_kappa,
        "auc": settings.minimum_auc,
        "spearman": settings.minimum_spearman,
    }
    limits = {name: limit for name, limit in wanted.items() if limit is not None}
    failed = sum(measures["failed"].values())
    few_failed = failed <= settings.maximum_failed_share * measures["items"]
    reached = all(_low(measures[name]) >= limit for name, limit in limits.items())
    asked = ", ".join(f"{name} at least {limit:g}" for name, limit in limits.items()) or "no agreement in particular"
    found = ", ".join(f"{name} {_shown(measures[name])}" for name in wanted)
    return CheckOutcome(
        "judge_agrees",
        bool(limits) and reached and few_failed and measures["n"] >= settings.minimum_items,
        expected=f"{asked} (lower end of the 95 % interval) on at least {settings.minimum_items} items, at most "
        f"{settings.maximum_failed_share:.0%} of {measures['items']} failed",
        observed=f"{found} on {measures['n']} items in {measures['groups']} groups; {failed} failed",
        details={
            "by_class": measures["by_class"],
            "threshold": measures["threshold"],
            "failed": measures["failed"],
            "undefined": measures["undefined"],
            **({"two_people": measures["ceiling"]} if measures["ceiling"] else {}),
            **({} if limits else {"remedy": "set minimum_kappa, minimum_auc or minimum_spearman in calibration"}),
        },
    )


def judge_unbiased(settings: CalibrationConfig, measures: Measures) -> CheckOutcome:
    """The whole interval of the bias lies within its limit."""
    bias: Mapping[str, Any] = measures["bias"] or {"low": None}
    what = (
        "how much oftener it prefers the second answer than people do"
        if measures["pairs"]
        else "mean score less mean label"
    )
    return CheckOutcome(
        "judge_unbiased",
        bias["low"] is not None and max(-bias["low"], bias["high"]) <= settings.maximum_bias,
        expected=f"{what} within ±{settings.maximum_bias:g}, the whole 95 % interval",
        observed=_shown(measures["bias"]),
        blocking=False,
    )


def judge_consistent(judge: JudgeConfig, settings: CalibrationConfig, measures: Measures) -> CheckOutcome:
    """Few verdicts change with the order or between draws; one that was asked once, in one order, shows nothing."""
    rates = {"order": measures["swap"], "draw": measures["draws"]}
    tried = {name: rate for name, rate in rates.items() if rate is not None}
    steady = all(rate["high"] is not None and rate["high"] <= settings.maximum_inconsistency for rate in tried.values())
    observed = "; ".join(f"by {name} {_shown(rate)} of the verdicts, {rate['n']} items" for name, rate in tried.items())
    if measures["deterministic"]:
        observed, steady = "an estimator without chance or order", True
    remedy = {"remedy": f"set draws: 3 (or swap: true) in judges/{judge.name}.yaml"}
    return CheckOutcome(
        "judge_consistent",
        steady and bool(tried or measures["deterministic"]),
        expected=f"at most {settings.maximum_inconsistency:.0%} of the verdicts change (upper end of the 95 % interval)",
        observed=observed or "asked once, in one order: not measured",
        blocking=False,
        details={} if observed else remedy,
    )


def _low(estimate: Mapping[str, float | None] | None) -> float:
    low = None if estimate is None else estimate["low"]
    return -2.0 if low is None else low


def _shown(estimate: Mapping[str, Any] | None) -> str:
    if estimate is None:
        return "undefined"
    if estimate["low"] is None:
        return f"{estimate['estimate']:.3f} (too few groups for an interval)"
    return f"{estimate['estimate']:.3f} [{estimate['low']:.3f}, {estimate['high']:.3f}]"
