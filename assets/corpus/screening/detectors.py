"""Detectors: which of them look at a document under a policy, and how a document is looked at.

Belongs here: the list of detectors, and running them over one document.
Does not belong here: what each looks for (one module per detector), policy (judging.py), storing (stage.py).
"""

import time
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from assets.corpus.screening import (
    ai_markers,
    credentials,
    hidden_text,
    injection,
    languages,
    pii,
    rights,
    toxicity,
)
from assets.corpus.screening.findings import Detector, Finding, View
from resources.policy_config import ScreeningPolicy

#: Of one kind of finding so many are listed with their positions; all are counted.
LISTED = 500


@dataclass(frozen=True)
class Inspection:
    """What detectors found in one document.

    Attributes:
        findings: in order of position.
        detectors: name to fingerprint of those that looked.
        seconds: by detector.
        failed: name to the type of the error, of detectors that could not finish.
    """

    findings: tuple[Finding, ...]
    detectors: dict[str, str]
    seconds: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """{detector: {entity: findings}}."""
        counted: dict[str, Counter[str]] = defaultdict(Counter)
        for item in self.findings:
            counted[item.detector][item.entity] += 1
        return {name: dict(sorted(counter.items())) for name, counter in sorted(counted.items())}

    def listed(self) -> tuple[list[list[object]], bool]:
        """The findings as rows of JSON, the first ``LISTED`` of each kind, and whether these are all."""
        rows: list[list[object]] = []
        seen: Counter[tuple[str, str]] = Counter()
        for item in self.findings:
            seen[item.detector, item.entity] += 1
            if seen[item.detector, item.entity] <= LISTED:
                rows.append([item.detector, item.entity, item.start, item.end, item.score])
        return rows, len(rows) == len(self.findings)


def detectors_of(policy: ScreeningPolicy) -> dict[str, Detector]:
    """The detectors that are switched on, by name; near duplicates are not among them, they need the whole corpus."""
    made = {
        "pii": lambda: pii.detector(policy.pii),
        "secrets": lambda: credentials.detector(policy.secrets),
        "prompt_injection": lambda: injection.detector(policy.prompt_injection),
        "hidden_text": lambda: hidden_text.detector(policy.hidden_text),
        "licence": lambda: rights.detector(policy.licence),
        "toxicity": lambda: toxicity.detector(policy.toxicity),
        "ai_generated": lambda: ai_markers.detector(policy.ai_generated),
        "language": lambda: languages.detector(policy.language),
    }
    return {name: make() for name, make in made.items() if getattr(policy, name).enabled}


def inspect(view: View, detectors: Collection[Detector]) -> Inspection:
    """Have every detector look at a document; one that fails is noted and does not keep the others from looking."""
    findings: list[Finding] = []
    seconds: dict[str, float] = {}
    failed: dict[str, str] = {}
    for detector in detectors:
        started = time.perf_counter()
        try:
            findings += detector.find(view)
        except MemoryError:
            raise  # says something about this machine, not about the document
        except Exception as error:  # the text may be hostile; the error's message may quote it
            failed[detector.name] = type(error).__name__
        seconds[detector.name] = time.perf_counter() - started
    return Inspection(
        tuple(sorted(findings)),
        {detector.name: detector.fingerprint for detector in detectors if detector.name not in failed},
        seconds,
        failed,
    )


def joined(new: Inspection, kept: Sequence[Finding], detectors: dict[str, str]) -> Inspection:
    """An inspection together with what other detectors had found before."""
    return Inspection(tuple(sorted([*new.findings, *kept])), {**detectors, **new.detectors}, new.seconds, new.failed)
