"""Failures: why a document may not enter.

Belongs here: the exception a parser raises about one document, and the codes of quarantine.
Does not belong here: deciding policy (quarantine.py).
"""


class ParseFailure(Exception):
    """A document cannot be read; the reason never contains its text.

    Attributes:
        code: ``parse_failed``, ``empty``, ``encoding`` or ``unsupported``.
        reason: one sentence for the person who has to mend the document.
    """

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
