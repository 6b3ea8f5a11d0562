"""Rights: licences, copyright lines and marks of confidentiality that stand in a text.

Belongs here: finding the statements. Does not belong here: whether a licence is allowed (quarantine.py judges by the
licence that parsing took from the document, as ever; a finding here is evidence beside it).
"""

import re

from assets.corpus.screening.findings import Detector, Finding, View, at_literals, words_of
from resources.fingerprint import fingerprint
from resources.policy_config import RightsRule

VERSION = "1"
_NAME = "licence"

_SPDX = re.compile(r"SPDX-License-Identifier:[ \t]{0,8}[\w.+-]{1,60}")
_COPYRIGHT = re.compile(
    r"(?:copyright[ \t]{0,3}(?:\(c\)|©)?|\(c\)[ \t]{0,3}copyright|©)[ \t]{0,3}(?:\d{4}|by [A-Z])[^\n]{0,80}",
    re.IGNORECASE,
)
_RESERVED = re.compile(
    r"\ball rights reserved\b|\balle rechte vorbehalten\b|\btous droits réservés\b|\btodos los derechos reservados\b",
    re.IGNORECASE,
)
#: A mark, not the word: in capitals, alone on its line, or in one of the usual formulas.
_CONFIDENTIAL_MARK = re.compile(
    r"^[ \t>*_#|-]{0,12}(?:(?:strictly|highly|company|commercial(?:ly)? in)[ -]{1,3})?(?:CONFIDENTIAL|PROPRIETARY|INTERNAL USE ONLY|RESTRICTED|TOP SECRET|VERTRAULICH|CONFIDENTIEL|CONFIDENCIAL)"
    r"(?:[ \t]{0,3}(?:AND|&|-|–|/)[ \t]{0,3}(?:CONFIDENTIAL|PROPRIETARY|PRIVILEGED))?[ \t*_.!|-]{0,12}$",
    re.MULTILINE,
)
_CONFIDENTIAL_FORMULA = re.compile(
    r"\b(?:do not (?:distribute|circulate|forward|disclose|copy or distribute)|not for (?:distribution|public release|circulation|disclosure)"
    r"|for internal use only|internal use only|company confidential|strictly confidential|privileged (?:and|&) confidential"
    r"|confidential (?:and|&) (?:proprietary|privileged)|contains confidential information|nur für den internen gebrauch"
    r"|proprietary and confidential|nicht zur weitergabe|diffusion restreinte)\b",
    re.IGNORECASE,
)
_CONFIDENTIAL_WORDS = words_of(
    "distribute circulate disclose forward distribution release circulation disclosure internal confidential privileged weitergabe diffusion internen"
)
_RIGHTS_WORDS = words_of("reserved vorbehalten réservés reservados")


def detector(rule: RightsRule) -> Detector:
    """The detector; its rule has no settings that change what it finds."""
    return Detector(_NAME, fingerprint([_NAME, VERSION]), find)


def find(view: View) -> list[Finding]:
    """Statements of rights in a view."""
    text, words = view.text, view.words
    found = []
    if "spdx" in words:
        found += [_finding("SPDX_LICENCE", match, 0.95) for match in _SPDX.finditer(text)]
    if "copyright" in words or "©" in text:
        found += [
            _finding("COPYRIGHT", match, 0.8) for match in at_literals(view, ("copyright", "©"), _COPYRIGHT, before=6)
        ]
    if not words.isdisjoint(_RIGHTS_WORDS):
        found += [
            _finding("ALL_RIGHTS_RESERVED", match, 0.9)
            for match in at_literals(view, _RIGHTS_WORDS, _RESERVED, before=24, after=20)
        ]
    if not words.isdisjoint(_CONFIDENTIAL_WORDS):
        found += [
            # In the middle of a sentence it is mostly said of something else: "a header for internal use only".
            _finding("CONFIDENTIAL", match, 0.7 if match[0][:1].isupper() else 0.4)
            for match in at_literals(
                view, sorted(words & _CONFIDENTIAL_WORDS), _CONFIDENTIAL_FORMULA, before=30, after=40
            )
        ]
    if any(
        mark in text
        for mark in (
            "CONFIDENTI",
            "PROPRIETARY",
            "INTERNAL USE",
            "RESTRICTED",
            "TOP SECRET",
            "VERTRAULICH",
            "CONFIDENCIAL",
        )
    ):
        found += [_finding("CONFIDENTIAL", match, 0.8) for match in _CONFIDENTIAL_MARK.finditer(text)]
    return sorted(set(found))


def _finding(entity: str, match: re.Match[str], score: float) -> Finding:
    return Finding(match.start(), match.end(), _NAME, entity, score)
