"""Signals and verdicts: from measured differences to "none", "warn" or "alert", in words.

Belongs here: the shape of a signal and of a comparison, the Holm correction over one report, the rules of the verdict.
Does not belong here: measuring (drift_statistics.py), reading the samples (documents.py, questions.py), drawing (report.py).
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from assets.monitoring.drift_statistics import TermChange, holm
from resources.fingerprint import fingerprint
from resources.policy_config import DriftPolicy

CODE_VERSION = "1"

Verdict = Literal["none", "warn", "alert", "not enough data"]

#: Tests a comparison of documents or of questions makes at most; the number of permutations is planned with it.
TESTS_PER_SUBJECT = 5
#: Fewer units than this on one side, and a test is not made.
MINIMUM_UNITS = 20
#: Words and meaning that moved together are an alert when at least this share of the units is new.
MATERIAL_SHARE = 0.1


@dataclass(frozen=True)
class Signal:
    """One measured difference.

    Attributes:
        name: stable key, e.g. ``length``.
        title: for people, e.g. ``document length``.
        measure: what ``effect`` is: ``PSI``, ``Jensen-Shannon``, ``MMD²`` or ``change``.
        effect: size of the difference; None when it could not be measured.
        p_value: of the permutation test; None when the signal is judged without one.
        p_adjusted: Holm-adjusted over all tests of the report.
        samples: units of the reference and of the tested sample.
        statement: what moved, in words, without a judgement.
        verdict: of this signal alone.
        facts: further numbers.
    """

    name: str
    title: str
    measure: str
    effect: float | None
    p_value: float | None
    samples: tuple[int, int]
    statement: str
    verdict: Verdict = "not enough data"
    p_adjusted: float | None = None
    facts: dict[str, Any] = field(default_factory=dict)


def not_measured(name: str, title: str, reason: str, samples: tuple[int, int] = (0, 0)) -> Signal:
    """A signal that could not be measured, with the reason."""
    return Signal(name, title, "", None, None, samples, reason)


@dataclass(frozen=True)
class Comparison:
    """Everything one report says about one subject.

    Attributes:
        subject: ``documents:INDEX`` or ``questions:DATASET``.
        reference: what it was compared with, in words.
        current: what was compared, in words.
        inputs: JSON-able identity of the data read; equal inputs give an equal report.
        reason: why nothing was measured; empty otherwise.
        unchanged: nothing was measured because both sides are the same state.
        risen, fallen: terms that gained and lost most.
        figure: JSON-able data of the figure.
        new_share: share of the current units that the reference does not hold, 0..1.
    """

    subject: str
    reference: str
    current: str
    inputs: dict[str, Any]
    signals: tuple[Signal, ...] = ()
    reason: str = ""
    unchanged: bool = False
    risen: tuple[TermChange, ...] = ()
    fallen: tuple[TermChange, ...] = ()
    figure: dict[str, Any] = field(default_factory=dict)
    new_share: float = 1.0
    verdict: Verdict = "not enough data"
    words: str = ""

    def details(self) -> dict[str, Any]:
        """The JSON stored in ``drift_result.details``; numbers and single terms only."""
        return {**asdict(self), "code_version": CODE_VERSION}


def planned_permutations(policy: DriftPolicy, subjects: int) -> int:
    """Permutations per test: enough that the smallest p-value, 1 / (m + 1), survives the Holm correction.

    With 500 permutations and 26 tests nothing could ever be significant at 5 %; twice the needed number is used.
    """
    return max(policy.permutations, math.ceil(2 * subjects * TESTS_PER_SUBJECT / policy.alpha) - 1)


def rng_seed(*parts: str) -> int:
    """Seed of a random generator: the same day and subject draw the same numbers in every run."""
    return int(fingerprint([CODE_VERSION, *parts]), 16)


def judge(comparisons: Sequence[Comparison], policy: DriftPolicy) -> list[Comparison]:
    """Give every signal and every comparison its verdict.

    The tests of all comparisons are one family: if nothing moved, at most ``alpha`` of the reports raise any of them.
    """
    tested = [signal for comparison in comparisons for signal in comparison.signals if signal.p_value is not None]
    adjusted = iter(holm([signal.p_value for signal in tested if signal.p_value is not None]))
    judged = []
    for comparison in comparisons:
        signals = tuple(
            _judge_signal(replace(signal, p_adjusted=next(adjusted)), policy) if signal.p_value is not None else signal
            for signal in comparison.signals
        )
        verdict = _verdict(comparison, signals)
        judged.append(replace(comparison, signals=signals, verdict=verdict, words=_words(comparison, signals, verdict)))
    return judged


def _judge_signal(signal: Signal, policy: DriftPolicy) -> Signal:
    """PSI needs size and significance; a distribution test alone can say that something moved, not how bad it is."""
    assert signal.p_adjusted is not None
    assert signal.effect is not None
    verdict: Verdict = "none"
    if signal.p_adjusted <= policy.alpha:
        if signal.measure != "PSI":
            verdict = "warn"
        elif signal.effect >= policy.psi_alert:
            verdict = "alert"
        elif signal.effect >= policy.psi_warn:
            verdict = "warn"
    return replace(signal, verdict=verdict)


def _verdict(comparison: Comparison, signals: Sequence[Signal]) -> Verdict:
    if comparison.unchanged:
        return "none"
    measured = {signal.name: signal.verdict for signal in signals if signal.verdict != "not enough data"}
    if comparison.reason or not measured:
        return "not enough data"
    moved_twice = measured.get("vocabulary") == measured.get("embedding") == "warn"
    material = moved_twice and comparison.new_share >= MATERIAL_SHARE
    if "alert" in measured.values() or material:
        return "alert"
    return "warn" if "warn" in measured.values() else "none"


def _words(comparison: Comparison, signals: Sequence[Signal], verdict: Verdict) -> str:
    if comparison.reason:
        return comparison.reason
    moved = [signal for signal in signals if signal.verdict in ("warn", "alert")]
    skipped = [f"{signal.title} ({signal.statement})" for signal in signals if signal.verdict == "not enough data"]
    measured = len(signals) - len(skipped)
    if verdict == "not enough data":
        text = f"Nothing could be measured: {'; '.join(skipped)}."
    elif moved:
        text = " ".join(f"{signal.title.capitalize()}: {signal.statement}{_evidence(signal)}." for signal in moved)
        text += "".join(
            f" {label}: {', '.join(change.term for change in changes[:5])}."
            for label, changes in (("More of", comparison.risen), ("Less of", comparison.fallen))
            if changes and any(signal.name == "vocabulary" for signal in moved)
        )
    else:
        text = f"Nothing moved in {measured} signal{'s' if measured != 1 else ''}."
    if skipped and verdict != "not enough data":
        text += f" Not measured: {'; '.join(skipped)}."
    return text


def _evidence(signal: Signal) -> str:
    if signal.p_adjusted is None:
        return ""
    return f" ({signal.measure} {signal.effect:.3g}, adjusted p {signal.p_adjusted:.3g})"
