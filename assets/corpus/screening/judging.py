"""Judging: from findings to a verdict by policy, and masking.

Belongs here: which action wins, the reason a person reads, and the masked form of a document.
Does not belong here: finding anything (the detectors), and storing (stage.py).
"""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from assets.corpus.headings import scan
from assets.corpus.parsing import ParsedDocument
from assets.corpus.screening.findings import IN_MARKUP, Finding
from assets.corpus.text import normalise
from resources.policy_config import DetectorRule, ScreeningPolicy

Action = Literal["allow", "mask", "quarantine"]
_RANK = {"ignore": -1, "allow": 0, "mask": 1, "quarantine": 2}
#: What invisible characters are replaced by: nothing, since nothing was to be seen.
_REMOVED = {"TAG_CHARACTERS", "VARIATION_SELECTORS", "BIDI_CONTROL", "ZERO_WIDTH"}

#: {detector: {entity: (number of findings at or above the threshold, what they lead to)}}
Summary = Mapping[str, Mapping[str, tuple[int, str]]]


@dataclass(frozen=True)
class Judgement:
    """What a policy makes of the findings in one document.

    Attributes:
        action: the worst of all findings.
        code: of the quarantine.
        reason: of the quarantine, without any text of the document.
        summary: what was found and what it leads to.
        masks: what has to be replaced; not empty only if the action is ``mask``.
    """

    action: Action
    code: str | None
    reason: str | None
    summary: Summary
    masks: tuple[Finding, ...] = ()


def judge(findings: Iterable[Finding], policy: ScreeningPolicy, *, released: bool = False) -> Judgement:
    """Judge a document by its findings.

    A finding in markup cannot be masked: where it should be, the document is refused instead.

    Args:
        released: a person let exactly this content in: nothing keeps it out, but what is to be masked still is.
    """
    counts: dict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
    masks = []
    for item in findings:
        action = _action(item, policy)
        if action == "ignore":
            continue
        if action == "mask" and item.start == IN_MARKUP:
            action = "quarantine"
        if action == "quarantine" and released:
            action = "allow"
        if action == "mask":
            masks.append(item)
        counts[item.detector][item.entity, action] += 1
    summary: dict[str, dict[str, tuple[int, str]]] = {}
    for detector in sorted(counts):
        entities: dict[str, tuple[int, str]] = {}
        for (entity, action), number in sorted(counts[detector].items()):
            before, worst = entities.get(entity, (0, action))
            entities[entity] = (before + number, max(worst, action, key=lambda name: _RANK[name]))
        summary[detector] = entities
    refused = {
        detector: {entity: number for entity, (number, action) in entities.items() if action == "quarantine"}
        for detector, entities in summary.items()
    }
    refused = {detector: entities for detector, entities in refused.items() if entities}
    if refused:
        first = min(refused, key=_position)
        listed = "; ".join(
            f"{detector}: {', '.join(f'{number} {entity}' for entity, number in entities.items())}"
            for detector, entities in sorted(refused.items(), key=lambda item: _position(item[0]))
        )
        reason = f"found {listed}; policies/screening.yaml says quarantine"
        return Judgement("quarantine", f"screening:{first}", reason, summary)
    return Judgement("mask" if masks else "allow", None, None, summary, tuple(masks))


def _action(item: Finding, policy: ScreeningPolicy) -> str:
    rule = getattr(policy, item.detector)
    if not rule.enabled:
        return "ignore"
    if not isinstance(rule, DetectorRule):
        return rule.action
    return rule.action_of(item.entity) if item.score >= rule.threshold else "ignore"


def _position(detector: str) -> int:
    return list(ScreeningPolicy.model_fields).index(detector)


def masked(
    document: ParsedDocument, masks: Sequence[Finding], strings: Sequence[tuple[str, Sequence[Finding]]]
) -> ParsedDocument:
    """The document with every mask replaced by ``[ENTITY]``; headings are found anew.

    Title and metadata are strings of their own: they are masked by what was found in them, and by the characters the
    text's own masks stand for.

    Args:
        masks: findings in the text that are to be masked.
        strings: title and strings of the metadata, with the findings in each that are to be masked.
    """
    hidden = {document.text[item.start : item.end]: _token(item) for item in masks}
    found = {string: [(item.start, item.end, _token(item)) for item in items] for string, items in strings}

    def clean(value: Any) -> Any:
        if isinstance(value, str):
            value = mask_ranges(value, found.get(value, ()))
            for secret, token in sorted(hidden.items(), key=lambda pair: (-len(pair[0]), pair[0])):
                value = value.replace(secret, token)
            return value
        if isinstance(value, dict):
            return {clean(key): clean(item) for key, item in value.items()}
        if isinstance(value, list):
            return [clean(item) for item in value]
        return value

    text = normalise(mask_ranges(document.text, [(item.start, item.end, _token(item)) for item in masks]))
    return replace(
        document,
        text=text or "[MASKED]",
        title=clean(document.title),
        headings=scan(text).headings if document.headings else (),
        metadata={**clean(document.metadata), **_moved_pages(document, masks)},
    )


def mask_ranges(text: str, ranges: Iterable[tuple[int, int, str]]) -> str:
    """Replace ranges of a text; overlapping ones become one, under the token of the first."""
    parts = []
    position = 0
    for start, end, token in sorted(ranges, key=lambda item: (item[0], -item[1])):
        if end <= position:
            continue
        if start >= position:
            parts += [text[position:start], token]
        position = end
    return "".join([*parts, text[position:]])


def _token(item: Finding) -> str:
    return "" if item.entity in _REMOVED else f"[{item.entity}]"


def _moved_pages(document: ParsedDocument, masks: Sequence[Finding]) -> dict[str, Any]:
    """The starts of pages, moved by what masking added or removed before them."""
    pages = document.metadata.get("pages")
    if not isinstance(pages, list) or not all(isinstance(page, list) and len(page) == 2 for page in pages):
        return {}
    ends: list[int] = []  # of what is replaced, with how much longer the text is from there on
    longer: list[int] = []
    position = total = 0
    for item in sorted(masks, key=lambda item: (item.start, -item.end)):
        if item.end <= position:
            continue
        total += (len(_token(item)) if item.start >= position else 0) - (item.end - max(item.start, position))
        position = item.end
        ends.append(item.end)
        longer.append(total)
    moved = []
    for number, start in pages:
        before = bisect_right(ends, start)
        moved.append([number, max(0, start + (longer[before - 1] if before else 0))])
    return {"pages": moved}
