"""Personal data: addresses, numbers and dates that stand for a person.

Belongs here: finding them by their form, their checksums and the words beside them.
Does not belong here: names of persons and places without a form of their own; that needs a language model, which this
project does not ship (docs/screening.md says what is missed).

Every search begins with a test that costs next to nothing on text without the thing: a character, a run of digits, a
word. What passes is checked as far as it can be: checksums, numbering plans (phonenumbers), and presidio's recognisers
where a number has a national format. presidio takes about two seconds to import (it brings spaCy along), so only a
candidate that already passed its checksum or its context makes it do so.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from functools import cache, partial
from hashlib import sha256
from importlib.metadata import version
from importlib.util import find_spec
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

from assets.corpus.screening.findings import Detector, Finding, View, at_literals, near, without_overlaps, words_of
from resources.fingerprint import fingerprint
from resources.policy_config import PersonalDataRule

VERSION = "1"
_NAME = "pii"

# A run that begins and ends with a digit (or + or parenthesis): phone, card and social security numbers, IPv4, dates.
_RUN = re.compile(r"[+(\d][\d ().\-/]{4,32}\d")
_DIGITS = re.compile(r"\d+")

_LOCAL_PART = re.compile(r"[\w.!#$%&'*+/=?^`{|}~-]{1,64}\Z")
_DOMAIN = re.compile(r"[^\W_](?:[\w-]{0,62})(?:\.[^\W_][\w-]{0,62}){1,8}")
#: RFC 2606 and RFC 6761: never anybody's.
_RESERVED_DOMAIN = re.compile(r"(?:^|\.)(?:example\.(?:com|net|org|edu)|example|invalid|localhost|test|local)$")
_ROLE = re.compile(
    r"(?:no-?reply|info|support|sales|admin|postmaster|webmaster|abuse|root|git|hostmaster|[\w-]+-(?:list|dev|help|announce))$"
)

_PHONE_CONTEXT = re.compile(
    r"\b(?:phone|telephone|tel|cell|mobile|call(?:ed|ing)?|fax|desk|office|hotline|whatsapp|sms|text me|contact|reach"
    r"|answering at|ring|dial|registered|telefon|handy|mobil|téléphone|portable|teléfono|móvil|telefone|telefono)\b",
    re.IGNORECASE,
)
_PHONE_SHAPE = re.compile(r"\+\d[\d ().\-/]{6,22}\d|\(\d{2,5}\)[ -]?\d{2,4}[ .-]\d{3,4}|\d{3}[.-]\d{3}[.-]\d{4}")
_PHONE_CONTEXT_AFTER = re.compile(r"[ \-–(,]{0,3}(?:office|desk|fax|mobile|cell|phone|home)\b", re.IGNORECASE)
_EXTENSION = re.compile(r" ?(?:x|ext\.?) ?\d{1,6}\b")
_DATE = re.compile(r"(?:\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.](?:\d{4}|\d\d))(?:[ T]\d\d?.*)?")
_CARD = re.compile(
    r"(?<!\d)(?:[2-6](?:\d{11,18}|\d{3}(?:[ -]\d{4}){2}[ -]\d{1,7}|\d{3}[ -]\d{6}[ -]\d{4,5})|1800\d{11})(?!\d)"
)
_CARD_CONTEXT = re.compile(
    r"\b(?:card|credit|debit|visa|master ?card|amex|american express|discover|diners|maestro|jcb|cc|pan|karte|carte|tarjeta)\b",
    re.IGNORECASE,
)
_VERSION_CONTEXT = re.compile(r"\b(?:version|release|ver|rev|v)[ .:=]*$", re.IGNORECASE)
_SSN = re.compile(r"\d{3}([- .])\d{2}\1\d{4}")
_SSN_CONTEXT = re.compile(r"\b(?:ssns?|social security|soc\.? sec)\b", re.IGNORECASE)
_IPV4 = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}")
_IPV6_HINT = re.compile(r"::|:[0-9A-Fa-f]{1,4}:")
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_IPV6 = re.compile(r"[0-9A-Fa-f:]{2,45}(?:\d{1,3}(?:\.\d{1,3}){3})?")

_IBAN = re.compile(r"[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]){11,30}")
_IBAN_AFTER_ITS_NAME = re.compile(
    r"\biban\b[^\n\w]{0,5}(?:is |no\.? |number )?[^\n\w]{0,3}([a-z]{2}\d{2}[a-z0-9]{11,30})\b", re.IGNORECASE
)
_CRYPTO = re.compile(r"[13][a-km-zA-HJ-NP-Z1-9]{25,34}|bc1[ac-hj-np-z02-9]{11,71}")
_LICENCE_CONTEXT = re.compile(
    r"driver'?s?[ -]licen[cs]e[^\n.]{0,30}?\b(?=[A-Z]{0,3}\d)|driving licen[cs]e[^\n.]{0,30}?\b(?=[A-Z]{0,3}\d)",
    re.IGNORECASE,
)
_LICENCE_NUMBER = re.compile(r"[A-Z]{0,3}\d[\dA-Z]{3,17}(?:-\d{2,4}){0,3}")

_BIRTH_WORDS = words_of(
    "born birth dob birthday birthdate geboren geburtsdatum naissance née nacimiento nacido nacida nascita nato nata"
)
_MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?"
    r"|nov(?:ember)?|dec(?:ember)?)"
)
_BIRTH_DATE = re.compile(
    r"(?:born|birth(?:day|date)?|dob|geboren|geburtsdatum|naissance|née?|nacimiento|nacid[oa]|nascita|nat[oa])\b"
    rf"[^\n.;]{{0,30}}?\b((?:\d{{4}}[-/.]\d\d?[-/.]\d\d?)|(?:\d\d?[-/.]\d\d?[-/.]\d{{2,4}})"
    rf"|(?:\d\d?(?:st|nd|rd|th)?\.? (?:of )?{_MONTH}\.?,? \d{{4}})|(?:{_MONTH}\.? \d\d?(?:st|nd|rd|th)?,? \d{{4}}))",
    re.IGNORECASE,
)

_STREET_WORDS = words_of(
    "street st avenue ave road rd boulevard blvd lane ln drive dr court ct square sq highway hwy parkway pkwy terrace"
    " place pl way circle cir"
)
_ROMANCE_WORDS = words_of("calle avenida via viale piazza ulica ul rua rúa")
_FRENCH_WORDS = words_of("rue avenue boulevard place chemin quai")
_UNIT_WORDS = words_of("box apt apartment suite")
_GERMANIC_ENDS = (
    "straße ",
    "strasse ",
    "straat ",
    "gatan ",
    "gata ",
    "gade ",
    "vej ",
    "weg ",
    "katu ",
    "laan ",
    "platz ",
    "str. ",
)
_PLACE_NAME = r"[A-ZÀ-Þ][\w'’.-]{0,30}"
_STREET = re.compile(
    rf"\d{{1,5}}[A-Za-z]?(?:,)?[ ](?:(?:[NSEW]|North|South|East|West)\.? )?(?:{_PLACE_NAME} |\d{{1,3}}(?:st|nd|rd|th) ){{1,4}}"
    r"(?:Street|St|Avenue|Ave|Road|Rd|Boulevard|Blvd|Lane|Ln|Drive|Dr|Court|Ct|Square|Sq|Highway|Hwy|Parkway|Pkwy|Terrace"
    r"|Place|Pl|Way|Circle|Cir)\b\.?(?:,? (?:Apt|Apartment|Suite|Ste|Unit|#)\.? ?\w{1,6})?"
)
_STREET_GERMANIC = re.compile(
    rf"\b{_PLACE_NAME}(?:stra(?:ss|ß)e|straat|gatan|gata|gade|vej|weg|katu|laan|platz|str\.) \d{{1,5}}[a-z]?\b"
)
_STREET_FRENCH = re.compile(
    rf"\d{{1,5}},? (?:bis |ter )?(?:rue|avenue|boulevard|place|chemin|quai) (?:de |du |des |la |le |l['’]){{0,3}}{_PLACE_NAME}(?: {_PLACE_NAME}){{0,3}}"
)
_STREET_ROMANCE = re.compile(
    rf"(?:Calle|Avenida|Via|Viale|Piazza|ulica|ul\.|Rua|rúa) (?:de |del |della |di |la |las |los ){{0,2}}{_PLACE_NAME}(?: {_PLACE_NAME}){{0,2}},? \d{{1,5}}\b"
)
_STREET_UNIT = re.compile(r"\b(?:P\.? ?O\.? Box \d{1,6}|(?:Apt|Apartment|Suite)\.? \d{1,5})\b")

_URL = re.compile(r"https?://[^\s<>\"'`)\]}]{3,500}")

#: Entity to the recogniser's class in presidio, and a cheap pattern its values have.
_NATIONAL: dict[str, tuple[str, re.Pattern[str]]] = {
    "AU_ABN": ("AuAbnRecognizer", re.compile(r"\d{2} ?\d{3} ?\d{3} ?\d{3}")),
    "AU_ACN": ("AuAcnRecognizer", re.compile(r"\d{3} ?\d{3} ?\d{3}")),
    "AU_MEDICARE": ("AuMedicareRecognizer", re.compile(r"[2-6]\d{3} ?\d{5} ?\d")),
    "AU_TFN": ("AuTfnRecognizer", re.compile(r"\d{3} ?\d{3} ?\d{3}")),
    "ES_NIE": ("EsNieRecognizer", re.compile(r"[X-Z]-?\d{7}-?[A-Z]")),
    "ES_NIF": ("EsNifRecognizer", re.compile(r"\d{7,8}-?[A-Z]")),
    "FI_PERSONAL_IDENTITY_CODE": ("FiPersonalIdentityCodeRecognizer", re.compile(r"\d{6}[+A-Y-]\d{3}[0-9A-Z]")),
    "IN_AADHAAR": ("InAadhaarRecognizer", re.compile(r"\d{4}[ -:]?\d{4}[ -:]?\d{4}")),
    "IN_PAN": ("InPanRecognizer", re.compile(r"[A-Za-z]{5}\d{4}[A-Za-z]")),
    "IT_FISCAL_CODE": ("ItFiscalCodeRecognizer", re.compile(r"[A-Za-z]{6}[\dA-Za-z]{2}[A-Za-z][\dA-Za-z]{2}[A-Za-z]")),
    "IT_VAT_CODE": ("ItVatCodeRecognizer", re.compile(r"\d{11}")),
    "PL_PESEL": ("PlPeselRecognizer", re.compile(r"\d{11}")),
    "SG_NRIC_FIN": ("SgFinRecognizer", re.compile(r"[STFGMstfgm]\d{7}[A-Za-z]")),
    "UK_NHS": ("NhsRecognizer", re.compile(r"\d{3}[- ]?\d{3}[- ]?\d{4}")),
    "UK_NINO": ("UkNinoRecognizer", re.compile(r"[A-Za-z]{2} ?\d{2} ?\d{2} ?\d{2} ?[A-Da-d]")),
    "US_ITIN": ("UsItinRecognizer", re.compile(r"9\d{2}[- ]?[5-9]\d[- ]?\d{4}")),
}


def detector(rule: PersonalDataRule) -> Detector:
    """The detector with the rule's settings."""
    urls = rule.action_of("URL") != "ignore"
    regions, identifiers = tuple(sorted(set(rule.regions))), tuple(sorted(set(rule.identifiers)))
    libraries = [f"{name} {version(name)}" for name in ("phonenumbers", "presidio-analyzer", "tldextract")]
    return Detector(
        _NAME,
        fingerprint([_NAME, VERSION, libraries, regions, identifiers, urls]),
        partial(find, regions=regions, identifiers=identifiers, urls=urls),
    )


def find(
    view: View, *, regions: Sequence[str] = ("US", "GB"), identifiers: Sequence[str] = (), urls: bool = False
) -> list[Finding]:
    """Personal data in a view.

    Args:
        regions: ISO codes of the countries that numbers without an international prefix are read for.
        identifiers: national identifiers to look for, as in the policy.
        urls: whether addresses of web pages are reported too.
    """
    text = view.text
    found = [*_emails(text), *_numbers(text, regions), *_ipv6(text), *_ibans(view)]
    if any(len(word) >= 14 and word.startswith(("1", "3", "bc1")) for word in view.words):
        found += _crypto(text)
    if not view.words.isdisjoint(_BIRTH_WORDS):
        births = at_literals(view, sorted(view.words & _BIRTH_WORDS), _BIRTH_DATE, after=100)
        found += [_finding("DATE_OF_BIRTH", match.start(1), match.end(1), 0.7) for match in births]
    found += _streets(view)
    if "driver" in view.words or "drivers" in view.words or "driving" in view.words:
        found += _driver_licences(text)
    for name in identifiers:
        found += _national(text, name)
    if urls:
        found += [_finding("URL", match.start(), match.end(), 0.6) for match in _URL.finditer(text)]
    return without_overlaps(_settle(found))


def _finding(entity: str, start: int, end: int, score: float) -> Finding:
    return Finding(start, end, _NAME, entity, score)


def _settle(found: list[Finding]) -> list[Finding]:
    """A number is one thing: a phone number that overlaps something better checked is not one."""
    numbers = [item for item in found if item.entity in ("CREDIT_CARD", "US_SSN", "IP_ADDRESS", "IBAN_CODE")]
    taken = {position for item in numbers if item.score >= 0.5 for position in (item.start, item.end - 1)}
    return (
        [
            item
            for item in found
            if item.entity != "PHONE_NUMBER" or not any(item.start <= position < item.end for position in taken)
        ]
        if taken
        else found
    )


# --- e-mail -----------------------------------------------------------------------------------------------


def _emails(text: str) -> Iterator[Finding]:
    position = text.find("@")
    while position >= 0:
        domain = _DOMAIN.match(text, position + 1, position + 255)
        if domain:
            local = _LOCAL_PART.search(text[max(0, position - 64) : position])
            name = domain[0].lower()
            if local and name.rpartition(".")[2] in _top_level_domains():
                start = position - len(local[0].lstrip("'`{|/=."))
                if start < position and text[start:position].strip("."):
                    yield _finding("EMAIL_ADDRESS", start, domain.end(), _email_score(text[start:position], name))
        position = text.find("@", domain.end() if domain else position + 1)


def _email_score(local: str, domain: str) -> float:
    if _RESERVED_DOMAIN.search(domain):
        return 0.1
    return 0.6 if _ROLE.match(local.lower()) else 0.95


@cache
def _top_level_domains() -> frozenset[str]:
    """The last labels a domain may have, from the public suffix list that tldextract ships; read without importing it."""
    spec = find_spec("tldextract")
    folder = Path(spec.origin).parent if spec and spec.origin else Path()
    lines = (folder / ".tld_set_snapshot").read_text(encoding="utf-8").splitlines()
    rules = (line.strip() for line in lines)
    return frozenset(rule.rpartition(".")[2].lower() for rule in rules if rule and not rule.startswith("//"))


# --- numbers ----------------------------------------------------------------------------------------------


def _numbers(text: str, regions: Sequence[str]) -> Iterator[Finding]:
    """Cards, social security numbers, IPv4 addresses and phone numbers, from one pass over runs of digits."""
    for match in _RUN.finditer(text):
        start, end = match.span()
        if start and (text[start - 1].isalnum() or text[start - 1] in "_.$£€#"):
            continue
        if end < len(text) and (text[end].isalnum() or text[end] == "_") and not _EXTENSION.match(text, end):
            continue
        run = match[0]
        digits = "".join(_DIGITS.findall(run))
        if len(digits) < 7:
            continue
        if run.count(".") == 3 and (address := _IPV4.search(run)):
            score = _ipv4_score(text, start + address.start(), address[0])
            if score is not None:
                yield _finding("IP_ADDRESS", start + address.start(), start + address.end(), score)
                continue
        if _DATE.fullmatch(run.strip("() ")):
            continue
        if len(digits) == 9 and _SSN.fullmatch(run):
            yield from _social_security(text, start, end)
            continue
        if 12 <= len(digits) <= 19 and (card := _card(text, start, run)):
            yield card
            continue
        yield from _phones(text, start, run, regions)


def _ipv4_score(text: str, start: int, address: str) -> float | None:
    try:
        parsed = IPv4Address(address)
    except AddressValueError:
        return None
    if _VERSION_CONTEXT.search(text[max(0, start - 12) : start]):
        return 0.2
    return 0.6 if parsed.is_global else 0.2


def _card(text: str, start: int, run: str) -> Finding | None:
    """A run of groups as cards have them, with a valid check digit (Luhn)."""
    found = _CARD.search(run)
    if not found:
        return None
    digits = found[0].replace(" ", "").replace("-", "")
    if not 12 <= len(digits) <= 19 or not _luhn(digits) or len(set(digits)) < 3:
        return None
    begin, end = start + found.start(), start + found.end()
    context = near(text, begin, end, _CARD_CONTEXT, before=60, after=30)
    issued = digits[0] in "3456" and len(digits) in (13, 14, 15, 16)
    if digits[0] == "1" and not context:
        return None
    return _finding("CREDIT_CARD", begin, end, 0.95 if context else 0.6 if issued else 0.4)


def _luhn(digits: str) -> bool:
    total = sum(int(digit) for digit in digits[-1::-2])
    total += sum(sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return total % 10 == 0


def _social_security(text: str, start: int, end: int) -> Iterator[Finding]:
    context = near(text, start, end, _SSN_CONTEXT, before=60)
    if not context and text[start + 3] != "-":
        return
    for begin, stop, score in _presidio("UsSsnRecognizer", "US_SSN", text, start, end):
        yield _finding("US_SSN", begin, stop, 0.9 if context else score)


def _phones(text: str, start: int, run: str, regions: Sequence[str]) -> Iterator[Finding]:
    shape = _PHONE_SHAPE.search(run)
    end = start + len(run)
    context = near(text, start, start, _PHONE_CONTEXT, before=40) or bool(_PHONE_CONTEXT_AFTER.match(text, end))
    if not shape and not context:
        return
    candidate = run if context and not shape else (shape[0] if shape else run)
    begin = start + run.index(candidate)
    candidate = candidate.rstrip(" -./(")
    digits = sum(map(str.isdigit, candidate))
    if not 7 <= digits <= 15 or (candidate.isdigit() and not context):
        return
    valid = _valid_phone(candidate, tuple(regions))
    score = 0.9 if valid and context else 0.7 if valid else 0.55 if context else 0.3
    stop = begin + len(candidate)
    extension = _EXTENSION.match(text, stop)
    yield _finding("PHONE_NUMBER", begin, extension.end() if extension else stop, score)


def _valid_phone(candidate: str, regions: tuple[str, ...]) -> bool:
    import phonenumbers

    for region in (None,) if candidate.startswith("+") else regions:
        try:
            if phonenumbers.is_valid_number(phonenumbers.parse(candidate, region)):
                return True
        except phonenumbers.NumberParseException:
            continue
    return False


def _ipv6(text: str) -> Iterator[Finding]:
    position = 0
    for hint in _IPV6_HINT.finditer(text):
        if hint.start() < position:
            continue
        begin = hint.start()
        while begin > position and hint.start() - begin < 40 and text[begin - 1] in "0123456789abcdefABCDEF:":
            begin -= 1
        match = _IPV6.match(text, begin)
        if not match or (begin and (text[begin - 1].isalnum() or text[begin - 1] in "_:")):
            continue
        end = match.end()
        if end < len(text) and (text[end].isalnum() or text[end] in "_:"):
            continue
        address = match[0].rstrip(":") if not match[0].endswith("::") else match[0]
        position = end
        if sum(character != ":" for character in address) < 3:
            continue
        try:
            parsed = IPv6Address(address)
        except AddressValueError:
            continue
        yield _finding("IP_ADDRESS", begin, begin + len(address), 0.7 if parsed.is_global else 0.3)


# --- codes ------------------------------------------------------------------------------------------------


def _ibans(view: View) -> Iterator[Finding]:
    text = view.text
    if not any(len(word) >= 4 and word[2:4].isdigit() and word[:2].isalpha() for word in view.words):
        return
    for match in _IBAN.finditer(text):
        start = match.start()
        if (start and text[start - 1].isalnum()) or not _has_iban_checksum(match[0]):
            continue
        for begin, end, score in _presidio("IbanRecognizer", "IBAN_CODE", text, start, match.end()):
            yield _finding("IBAN_CODE", begin, end, score)
    if "iban" in text:
        for match in _IBAN_AFTER_ITS_NAME.finditer(text):
            if match[1] != match[1].upper() and _has_iban_checksum(match[1]):
                yield _finding("IBAN_CODE", match.start(1), match.end(1), 0.9)


def _has_iban_checksum(candidate: str) -> bool:
    """Whether some beginning of it satisfies ISO 7064 mod 97-10."""
    code = candidate.replace(" ", "").replace("-", "")
    for length in range(15, len(code) + 1):
        moved = code[4:length] + code[:4]
        if int("".join(str(int(character, 36)) for character in moved)) % 97 == 1:
            return True
    return False


def _crypto(text: str) -> Iterator[Finding]:
    for match in _CRYPTO.finditer(text):
        start, end = match.span()
        if (start and (text[start - 1].isalnum() or text[start - 1] in "_/+=")) or (
            end < len(text) and (text[end].isalnum() or text[end] in "_/+=")
        ):
            continue
        if not match[0].startswith("bc1") and not _has_base58_checksum(match[0]):
            continue
        for begin, stop, score in _presidio("CryptoRecognizer", "CRYPTO", text, start, end):
            yield _finding("CRYPTO", begin, stop, score)


def _has_base58_checksum(address: str) -> bool:
    """Whether the last four bytes are the beginning of the doubled SHA-256 of the others (Base58Check)."""
    number = 0
    for character in address:
        number = number * 58 + _BASE58.index(character)
    data = number.to_bytes(26, "big")[-25:] if number < 1 << 200 else b""
    return bool(data) and sha256(sha256(data[:-4]).digest()).digest()[:4] == data[-4:]


def _driver_licences(text: str) -> Iterator[Finding]:
    for match in _LICENCE_CONTEXT.finditer(text):
        number = _LICENCE_NUMBER.match(text, match.end())
        if number and sum(map(str.isdigit, number[0])) >= 4:
            yield _finding("US_DRIVER_LICENSE", number.start(), number.end(), 0.6)


def _national(text: str, name: str) -> Iterator[Finding]:
    recognizer, pattern = _NATIONAL[name]
    for match in pattern.finditer(text):
        start, end = match.span()
        if (start and text[start - 1].isalnum()) or (
            end < len(text) and text[end].isalnum() and name != "IT_FISCAL_CODE"
        ):
            continue
        for begin, stop, score in _presidio(recognizer, name, text, start, end + 8):
            yield _finding(name, begin, stop, score)


def _at_capital(text: str, word: str, pattern: re.Pattern[str]) -> Iterator[re.Match[str]]:
    position = text.find(word)
    while position >= 0:
        match = pattern.search(text, max(0, position - 60), position + 40)
        if match:
            yield match
        position = text.find(word, position + len(word))


def _streets(view: View) -> Iterator[Finding]:
    text = view.text
    matches: list[tuple[re.Match[str], float]] = []
    for word in sorted(view.words & _STREET_WORDS):
        matches += [(match, 0.6) for match in _at_capital(text, f" {word.capitalize()}", _STREET)]
    if french := view.words & _FRENCH_WORDS:
        matches += [(match, 0.6) for match in at_literals(view, sorted(french), _STREET_FRENCH, before=14, after=120)]
    germanic = at_literals(view, _GERMANIC_ENDS, _STREET_GERMANIC, before=32, after=16, whole=False)
    matches += [(match, 0.6) for match in germanic]
    if romance := view.words & _ROMANCE_WORDS:
        matches += [(match, 0.6) for match in at_literals(view, sorted(romance), _STREET_ROMANCE)]
    if unit := view.words & _UNIT_WORDS:
        matches += [(match, 0.5) for match in at_literals(view, sorted(unit), _STREET_UNIT, before=8, after=24)]
    for match, score in matches:
        if not match.start() or not (text[match.start() - 1].isalnum() or text[match.start() - 1] in "_."):
            yield _finding("STREET_ADDRESS", match.start(), match.end(), score)


# --- presidio ---------------------------------------------------------------------------------------------


def _presidio(recognizer: str, entity: str, text: str, start: int, end: int) -> Iterator[tuple[int, int, float]]:
    """What a recogniser of presidio makes of a range, with a little around it: start, end, score."""
    begin = max(0, start - 2)
    for result in _recognizer(recognizer).analyze(text[begin : end + 2], [entity], None):
        yield begin + result.start, begin + result.end, round(float(result.score), 3)


@cache
def _recognizer(name: str) -> Any:
    """One recogniser by itself: no engine, so nothing loads or downloads a model."""
    # Its loggers write the text they fail on.
    for logger in ("presidio-analyzer", "presidio_analyzer"):
        logging.getLogger(logger).disabled = True
    from presidio_analyzer import predefined_recognizers

    return getattr(predefined_recognizers, name)()
