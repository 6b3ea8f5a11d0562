"""Markers of generated text: what chat models leave behind when their answers are pasted into a document.

Belongs here: formulas and artefacts that only such models write. Does not belong here: guessing from style who wrote a
text; no such guess is reliable, and a text without markers may well be generated.
"""

import re

from assets.corpus.screening.findings import Detector, Finding, View, at_literals, words_of
from resources.fingerprint import fingerprint
from resources.policy_config import AiMarkersRule

VERSION = "1"
_NAME = "ai_generated"

_BOILERPLATE = re.compile(
    r"\bas an? (?:ai|artificial intelligence)(?: language)? (?:model|assistant)\b|\bas a large language model\b"
    r"|\bi(?:'|’)m (?:sorry|unable)[^.\n]{0,40}\b(?:fulfil|fulfill|assist with|comply with) (?:that|this|your)\b"
    r"|\bi (?:cannot|can(?:'|’)t|am unable to) (?:fulfil|fulfill|comply with|assist with) (?:that|this|your) request\b"
    r"|\bmy (?:knowledge|training) (?:cutoff|cut-off|data (?:only )?(?:goes|extends))\b|\bas of my last (?:knowledge )?(?:update|training)\b"
    r"|\bi hope this (?:email|message) finds you well[^\n]{0,40}\[(?:your )?name\]|\bcertainly! here(?:(?:'|’)s| is| are) (?:a|an|the|your|some)\b"
    r"|\b(?:sure|of course)[!,] here(?:'|’)s (?:a|an|the|your)\b|\bis there anything else (?:i can|you(?:'|’)d like me to) (?:help|assist)\b"
    r"|\bwould you like me to (?:expand|refine|adjust|rewrite|tailor)\b|\bregenerate response\b",
    re.IGNORECASE,
)
_ARTEFACT = re.compile(
    r"utm_source=(?:chatgpt\.com|openai|copilot\.com|perplexity)|【\d{1,3}(?::\d{1,3})?†[^】\n]{0,60}】|:?contentReference\[oaicite:\d{1,3}\]"
    r"|oaicite:\d|oai_citation|\ue200(?:cite|turn)|\bturn\d{1,2}(?:search|view|news|image|fetch)\d{1,2}\b|attributableIndex|grok_card"
    r"|<\|(?:im_end|endoftext|eot_id)\|>|\[(?:insert|your) (?:name|company|date)(?: here)?\]",
    re.IGNORECASE,
)
_WORDS = words_of(
    "ai intelligence large fulfil fulfill comply assist unable knowledge cutoff training update certainly sure course regenerate anything like hope"
)
_STRONG = ("language model", "ai model", "ai assistant", "ai language", "artificial intelligence", "your request", "this request", "that request", "knowledge cut", "my training", "my last", "certainly!", "regenerate response", "sure! here", "sure, here", "of course! here", "of course, here", "anything else", "would you like me", "your name]", "fulfil", "comply with", "assist with")  # fmt: skip
_ARTEFACT_HINTS = ("utm_source=", "†", "oaicite", "oai_citation", "\ue200", "turn0", "turn1", "turn2", "attributableindex", "grok_card", "<|im_end", "<|endoftext", "<|eot_id", "[insert", "[your ")  # fmt: skip


def detector(rule: AiMarkersRule) -> Detector:
    """The detector; its rule has no settings that change what it finds."""
    return Detector(_NAME, fingerprint([_NAME, VERSION]), find)


def find(view: View) -> list[Finding]:
    """Markers in a view."""
    found = []
    lower = view.lower
    if not view.words.isdisjoint(_WORDS):
        matches = at_literals(view, _STRONG, _BOILERPLATE, before=120, after=120)
        found += [_finding("CHAT_BOILERPLATE", match, 0.8) for match in matches]
    if any(hint in lower for hint in _ARTEFACT_HINTS):
        found += [_finding("CHAT_ARTEFACT", match, 0.9) for match in _ARTEFACT.finditer(view.text)]
    return sorted(found)


def _finding(entity: str, match: re.Match[str], score: float) -> Finding:
    return Finding(match.start(), match.end(), _NAME, entity, score)
