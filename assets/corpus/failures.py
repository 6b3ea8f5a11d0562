"""Failures: why a document may not enter.

Belongs here: the exception a parser raises about one document, the codes of quarantine, and the limits of parsing.
Does not belong here: deciding policy (quarantine.py), and keeping the limits (parse_pool.py).
"""

from dataclasses import dataclass, field
from typing import Any

#: Every code a parser may give, with what it means and what helps.
FAILURES: dict[str, str] = {
    "empty": "there is no text in the file, and nothing that could be recognised as text",
    "no_text": "pages or pictures but no text, as in a scan: switch a recogniser on, or supply the text",
    "password": "encrypted: supply a copy without a password",
    "damaged": "not readable as the format its name or its first bytes say: save or export it again",
    "encoding": "not text in any encoding that fits: save it as UTF-8",
    "unsupported": "no parser for this kind of content: convert or exclude it",
    "too_large_inside": "unpacks to more than allowed: split it",
    "unsafe_archive": "a compressed file with entries no honest program writes: repack it",
    "timeout": "parsing took longer than the time limit: split the file or raise timeout_seconds of the source",
    "memory": "parsing took more memory than allowed: split the file",
    "crashed": "the parser process died on it",
    "parse_failed": "the parser gave up for another reason",
}


@dataclass(frozen=True)
class ParseLimits:
    """What one document may cost.

    Attributes:
        timeout_seconds: wall time of parsing.
        memory_bytes: resident memory of the process that parses it.
    """

    timeout_seconds: float = 60.0
    memory_bytes: int = 2 << 30


class ParseFailure(Exception):
    """A document cannot be read; the reason never contains its text.

    Attributes:
        code: one of ``FAILURES``.
        reason: one sentence for the person who has to mend the document.
    """

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@dataclass(frozen=True)
class KilledParse:
    """A parse that was stopped or died, as the pool saw it.

    Attributes:
        code: ``timeout``, ``memory`` or ``crashed``.
        reason: one sentence.
        limit: name and value of the limit that was met, so that a raised limit is a reason to try again.
        transient: it says something about this machine rather than about the document.
    """

    code: str
    reason: str
    limit: dict[str, Any] = field(default_factory=dict)
    transient: bool = False
