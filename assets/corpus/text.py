"""Text: from bytes to the one normal form that positions refer to, and what can be told from it alone.

Belongs here: decoding, repair of wrong decoding, normalisation, language detection.
Does not belong here: file formats (parsing.py) and headings (headings.py).
"""

import codecs
import re
import unicodedata
from collections import Counter
from functools import cache
from typing import Any

from assets.corpus.failures import ParseFailure

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16: its mark begins with that of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# Allowed of the C0 and C1 controls: tab and line feed. Surrogates and U+FFFE/U+FFFF are no characters at all.
_FORBIDDEN = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufffe\uffff]")
_LINE_ENDS = re.compile("\r\n?|[\x0b\x0c\x85]")
#: In UTF-8, bytes that are one of these characters by themselves, and bytes that others of them contain.
_ODD = bytes([*range(9), *range(0x0B, 0x20), 0x7F])
_PERHAPS_ODD = (b"\xc2", b"\xed", b"\xef\xbf")
#: ASCII capitals to small letters, and what is no letter to blanks.
_ASCII_WORDS = bytes(code | 32 if chr(code).isalpha() and code < 128 else 32 for code in range(256))
#: A lead byte of UTF-8 and a following byte, both read as Windows-1252.
_MOJIBAKE = re.compile("[ÂÃâåæçðèéìÐÑØÙ][\x80-\xbf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]")
_HIGH_RUN = re.compile("[\x80-\U0010ffff]{5,}")
_WORD = re.compile(r"[^\W\d_]+")
#: More forbidden controls than this share of the characters: the bytes are no text.
_BINARY_SHARE = 0.3
#: The language model sees this much of a text, and is asked only about a text of at least so many words and letters.
_MODEL_CHARACTERS, _MODEL_WORDS, _MODEL_LETTERS = 2_000, 4, 20
_MODEL_PROBABILITY = 0.5
#: Latin and constructed languages that short texts in others are mistaken for.
_NOT_SPOKEN = frozenset({"la", "eo", "ia", "ie", "io", "vo"})


def decode(data: bytes, declared: str | None = None) -> tuple[str, str]:
    """Decode bytes to text.

    In this order: a byte order mark, UTF-8, the declared encoding, UTF-16 without a mark, Windows-1252 where what
    comes out reads like a western language.

    Args:
        data: raw bytes.
        declared: what the document itself says, e.g. in ``<meta charset>``.

    Returns:
        The text and the name of the encoding.

    Raises:
        ParseFailure: ``encoding``: none of these fits.
    """
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return _strictly(data[len(mark) :], encoding), encoding
    guess = _utf16_without_mark(data)
    if guess:
        return _strictly(data, guess), guess
    try:
        return _refuse_binary(data.decode("utf-8")), "utf-8"
    except UnicodeDecodeError as error:
        position = error.start
    if declared and (codec := _known(declared)) not in (None, "utf-8"):
        assert codec is not None
        return _strictly(data, codec), codec
    try:
        text = data.decode("cp1252")
    except UnicodeDecodeError:
        text = ""
    # Western text has few accented letters in a row; other 8-bit and multi-byte encodings show up as long runs.
    high = sum(1 for character in text if character > "\x7f")
    if not text or high > 0.3 * len(text) or _HIGH_RUN.search(text):
        raise ParseFailure("encoding", f"not UTF-8 (byte {position}) and no other encoding fits; save it as UTF-8")
    return _refuse_binary(text), "cp1252"


def normalise(text: str) -> str:
    """Bring a text into its normal form.

    Unicode NFC; line ends are ``\\n``; NUL, other controls and lone surrogates are removed; no white space at the end
    of a line, no empty lines at either end. Normalising twice changes nothing.
    """
    text = text.removeprefix("\ufeff")
    if _may_be_odd(text):
        text = _FORBIDDEN.sub("", _LINE_ENDS.sub("\n", text))
    if text.isascii() and not (" \n" in text or "\t\n" in text or text.endswith((" ", "\t"))):
        return text.strip("\n")
    if not unicodedata.is_normalized("NFC", text):
        text = unicodedata.normalize("NFC", text)
    return "\n".join([line.rstrip() for line in text.split("\n")]).strip("\n")


def _may_be_odd(text: str) -> bool:
    """Whether a text holds characters that normalising replaces, as far as that can be told at the speed of memory."""
    data = text.encode("utf-8", "surrogatepass")
    if len(data.translate(None, _ODD)) < len(data):
        return True
    return len(data) > len(text) and any(part in data for part in _PERHAPS_ODD)


def mend(text: str) -> str:
    """Repair mojibake: text that some program before us decoded with the wrong encoding (``cafÃ©`` for ``café``).

    Only where a telling pair of characters occurs, and only what ftfy is sure of; everything else stays as it is.
    """
    if not _MOJIBAKE.search(text):
        return text
    import ftfy

    return ftfy.fix_encoding(text)


def detect_language(text: str) -> str | None:
    """Tell the language of a text: by its most frequent words, by its script, else by a statistical model.

    Words and scripts decide most texts of en, de, fr, es, it, pt, nl, sv, el, he, ja, zh and ko in microseconds. What
    they leave open, and scripts that several languages share, goes to py3langid (97 languages, its model is inside the
    package), which costs a second to load once per process; docs/parsing.md has the accuracy of both.

    Deterministic. None when the text is too short or no language, as a list of part numbers.
    """
    beginning = text[:20_000]
    if beginning.isascii():
        words = beginning.encode("ascii").translate(_ASCII_WORDS).decode("ascii").split()
    else:
        words = _WORD.findall(beginning.lower())
    letters = "".join(words)[:4_000]
    if not letters:
        return None
    script = _script(letters)
    if script and script not in _SHARED_SCRIPTS:
        return script
    if script is None and len(words) >= 20:
        seen = Counter(words)
        counts = {
            language: sum(seen[word] for word in known & seen.keys()) for language, known in _FUNCTION_WORDS.items()
        }
        (best, most), (_, second) = sorted(counts.items(), key=lambda item: -item[1])[:2]
        if most >= 0.12 * len(words) and most >= 1.5 * second:
            return best
    return _by_model(" ".join(words)[:_MODEL_CHARACTERS], len(words), script)


def _by_model(text: str, words: int, script: str | None) -> str | None:
    """The most probable language where the model is sure of it; the usual one of a script where it is not."""
    if script is None and (words < _MODEL_WORDS or len(text) < _MODEL_LETTERS):
        return None
    language, probability = _identifier().classify(text)
    if len(language) == 2 and language not in _NOT_SPOKEN and probability >= _MODEL_PROBABILITY:
        return language
    return script


@cache
def _identifier() -> Any:
    """The language model of py3langid, with probabilities."""
    import logging

    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    logging.getLogger("py3langid").setLevel(logging.WARNING)
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def language_code(tag: str | None) -> str | None:
    """The primary subtag of a language tag in lower case (``de`` for ``de-AT`` or ``de_AT``), or None."""
    primary = re.split("[-_]", (tag or "").strip().lower())[0]
    return primary if re.fullmatch("[a-z]{2,3}", primary) else None


def _strictly(data: bytes, encoding: str) -> str:
    try:
        return _refuse_binary(data.decode(encoding))
    except UnicodeDecodeError as error:
        raise ParseFailure("encoding", f"says it is {encoding} but is not, at byte {error.start}") from error


def _refuse_binary(text: str) -> str:
    controls = len(_FORBIDDEN.findall(text)) if _may_be_odd(text) else 0
    if controls > _BINARY_SHARE * len(text):
        raise ParseFailure("encoding", f"{controls} of {len(text)} characters are controls: not a text")
    return text


def _utf16_without_mark(data: bytes) -> str | None:
    """UTF-16 of mostly Latin text has a NUL in every second byte."""
    sample = data[:4096]
    half = len(sample) // 2
    if half < 2:
        return None
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    if odd > 0.7 * half and even < 0.1 * half:
        return "utf-16-le"
    if even > 0.7 * half and odd < 0.1 * half:
        return "utf-16-be"
    return None


def _known(encoding: str) -> str | None:
    try:
        return codecs.lookup(encoding).name
    except (LookupError, ValueError):
        return None


def _script(letters: str) -> str | None:
    if letters.isascii():
        return None
    counts = {language: len(script.findall(letters)) for language, script in _SCRIPTS.items()}
    if counts["ja"] > 0.1 * len(letters):
        return "ja"  # kana among Chinese characters
    language = max(counts, key=lambda key: counts[key])
    return language if counts[language] > 0.5 * len(letters) else None


_SCRIPTS = {
    "ru": re.compile("[\u0400-\u04ff]"),
    "el": re.compile("[\u0370-\u03ff]"),
    "he": re.compile("[\u0590-\u05ff]"),
    "ar": re.compile("[\u0600-\u06ff]"),
    "ja": re.compile("[\u3040-\u30ff]"),
    "zh": re.compile("[\u4e00-\u9fff]"),
    "ko": re.compile("[\uac00-\ud7af]"),
    "hi": re.compile("[\u0900-\u097f]"),
}
#: Scripts of several languages, by the one most written in them.
_SHARED_SCRIPTS = frozenset({"ru", "ar", "hi"})
_FUNCTION_WORDS = {
    language: frozenset(words.split())
    for language, words in {
        "en": "the of and to a in is that it for as with be are this on by not or from an you can if will",
        "de": "der die das und ist nicht ein eine zu den von mit für auf im des dem sie es wird auch als bei oder",
        "fr": "le la les des et est un une du que dans pour par sur pas vous avec au sont ce qui ou aux ne plus",
        "es": "el los las de la que y en un una por con para es del se no su al lo como más o está este",
        "it": "il di che la e un una per non con del della sono è in si da al le gli dei nel alla più anche",
        "pt": "o os de que e do da em um uma para com não por se na no dos das ao mais são como você está",
        "nl": "de het een van en is dat in op te voor met niet zijn aan er of om ook als bij door wordt naar uw",
        "sv": "och att det som en är på av för med den till inte om ett har kan de vid eller från du ska din",
    }.items()
}
