"""Language: documents in another language than their source is expected to be in.

Belongs here: telling the language where parsing could not, and comparing it with what the policy expects.
Does not belong here: the language a document states or parsing detects (text.py).
"""

from functools import cache, partial
from importlib.metadata import version
from typing import Any

from assets.corpus.screening.findings import Detector, Finding, View
from resources.fingerprint import fingerprint
from resources.policy_config import LanguageRule

VERSION = "1"
_NAME = "language"
#: A shorter text is in no language for sure.
_MINIMUM_WORDS = 20
_SAMPLE = 5_000  # characters


def detector(rule: LanguageRule) -> Detector:
    """The detector for the languages a policy expects."""
    expected = tuple(sorted(rule.expected)) if rule.expected != "any" else ()
    library = f"py3langid {version('py3langid')}" if expected else ""
    return Detector(_NAME, fingerprint([_NAME, VERSION, expected, library]), partial(find, expected=expected))


def find(view: View, *, expected: tuple[str, ...] = ()) -> list[Finding]:
    """One finding over the whole text where its language is another than expected; none when nothing is expected."""
    if not expected or view.language in expected:
        return []
    score = 0.9
    if view.language is None:
        if len(view.word_list) < _MINIMUM_WORDS:
            return []
        language, score = _identify(view.text[:_SAMPLE])
        if language in expected:
            return []
    return [Finding(0, len(view.text), _NAME, "UNEXPECTED_LANGUAGE", round(score, 3))]


def _identify(text: str) -> tuple[str, float]:
    language, probability = _identifier().classify(text)
    return str(language), float(probability)


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
