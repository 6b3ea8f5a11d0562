"""Secrets: credentials that were left in a text.

Belongs here: which of detect-secrets' plugins are asked, when, and what makes a hit a placeholder instead.
Does not belong here: personal data (pii.py).

A plugin sees only lines that hold a literal its secrets cannot be without. None of them verifies anything over a
network: their patterns are used, not their verification. Documentation is full of examples, so a value that calls
itself one (``EXAMPLE``, ``your-token``, ``xxxx``) scores below any sensible threshold.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.metadata import version
from typing import Any

from assets.corpus.screening.findings import Detector, Finding, View, at_literals, without_overlaps
from resources.fingerprint import fingerprint
from resources.policy_config import SecretsRule

VERSION = "1"
_NAME = "secrets"

#: Entity, plugin module and class, words its text has one of, shortest longest word, literals of its lines, score.
_PLUGINS: tuple[tuple[str, str, str, tuple[str, ...], int, tuple[str, ...], float], ...] = (
    ("AWS_KEY", "aws", "AWSKeyDetector", (), 20, ("AKIA", "ASIA", "ABIA", "ACCA", "aws_", "AWS_"), 0.9),
    ("AZURE_STORAGE_KEY", "azure_storage_key", "AzureStorageKeyDetector", ("accountkey",), 0, ("AccountKey=",), 0.9),
    ("GITHUB_TOKEN", "github_token", "GitHubTokenDetector", ("ghp", "gho", "ghu", "ghs", "ghr"), 0, ("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), 0.95),
    ("GITLAB_TOKEN", "gitlab_token", "GitLabTokenDetector", ("glpat", "gldt", "glft", "glsoat", "glrt", "glcbt", "glptt", "glagent", "gloas"), 0, ("glpat-", "gldt-", "glft-", "glsoat-", "glrt-", "glcbt-", "glptt-", "glagent-", "gloas-"), 0.9),
    ("SLACK_TOKEN", "slack", "SlackDetector", ("xoxa", "xoxb", "xoxp", "xoxo", "xoxs", "xoxr", "slack"), 0, ("xox", "hooks.slack.com"), 0.9),
    ("STRIPE_KEY", "stripe", "StripeDetector", ("live",), 0, ("k_live_",), 0.9),
    ("SENDGRID_KEY", "sendgrid", "SendGridDetector", ("sg",), 0, ("SG.",), 0.9),
    ("OPENAI_KEY", "openai", "OpenAIDetector", (), 20, ("T3BlbkFJ",), 0.95),
    ("NPM_TOKEN", "npm", "NpmDetector", ("authtoken",), 0, (":_authToken",), 0.8),
    ("PYPI_TOKEN", "pypi_token", "PypiTokenDetector", ("pypi",), 0, ("pypi-Ag",), 0.95),
    ("SQUARE_TOKEN", "square_oauth", "SquareOAuthDetector", ("sq0csp",), 0, ("sq0csp-",), 0.9),
    ("JSON_WEB_TOKEN", "jwt", "JwtTokenDetector", (), 10, ("eyJ",), 0.8),
    ("BASIC_AUTH", "basic_auth", "BasicAuthDetector", (), 0, ("://",), 0.7),
)  # fmt: skip
#: As above, but their form alone is too common: the word has to stand nearby.
_IN_CONTEXT: tuple[tuple[str, str, str, re.Pattern[str], str, float], ...] = (
    ("TWILIO_KEY", "twilio", "TwilioKeyDetector", re.compile(r"\b(?:AC|SK)[a-z0-9]{32}\b"), "twilio", 0.8),
    ("MAILCHIMP_KEY", "mailchimp", "MailchimpDetector", re.compile(r"-us\d"), "mailchimp", 0.8),
    ("DISCORD_TOKEN", "discord", "DiscordBotTokenDetector", re.compile(r"[\w-]\.[\w-]{6}\.[\w-]"), "discord", 0.8),
    ("TELEGRAM_TOKEN", "telegram_token", "TelegramBotTokenDetector", re.compile(r"\d{8}:[\w-]"), "telegram", 0.8),
)
_SIGNATURE = re.compile(r"[\w-]{1,1000}")
_WINDOW = 600  # characters on either side of a hint that count as its line

_KEY_BEGIN = re.compile(r"-----BEGIN ((?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?)-----|PuTTY-User-Key-File-[23]")
_KEY_BODY = re.compile(r"[A-Za-z0-9+/=]{40,}")
_PLACEHOLDER = re.compile(
    r"example|sample|dummy|placeholder|change.?me|your|redacted|x{4,}|\*{3,}|\.{3}|<|>|\$|\{|%|foo|bar|hunter2|1234567|abcdef"
    r"|^(?:pass(?:word|wd)?|secret|pwd|token|user|none|null|true|false|test\w*|p4ssw0rd|pass\d{0,4}|s3cr3t)$",
    re.IGNORECASE,
)
_LOCAL_HOST = re.compile(
    r"@(?:localhost|127\.0\.0\.1|[\w.-]*\.?example(?:\.(?:com|org|net))?|host(?:name)?|[\w.-]*\.(?:local|test|invalid))\b"
)
_ASSIGNED = re.compile(
    r"(?:pass(?:word|wd|phrase)|pwd|secret|api[_-]?key|access[_-]?key|auth[_-]?token|access[_-]?token|client[_-]?secret)"
    r"[\w-]{0,20}[\"'\]]{0,2} {0,3}(?::=|=>|=|:| is ) {0,3}(@?[\"'`]?)([^\s\"'`,;()\[\]]{8,128})\1",
    re.IGNORECASE,
)
_STEMS = ("passw", "passphrase", "pwd", "secret", "apikey", "authtoken", "accesstoken")
_NAMES = ("api_key", "api-key", "access_key", "access-key", "auth_token", "auth-token", "access_token", "access-token")


def detector(rule: SecretsRule) -> Detector:
    """The detector; its rule has no settings that change what it finds."""
    return Detector(_NAME, fingerprint([_NAME, VERSION, f"detect-secrets {version('detect-secrets')}"]), find)


def find(view: View) -> list[Finding]:
    """Credentials in a view."""
    text = view.text
    found = list(_private_keys(text))
    for entity, module, plugin, words, shortest, literals, score in _PLUGINS:
        if words and view.words.isdisjoint(words):
            continue
        if view.longest_word < shortest:
            continue
        for start, end in _windows(text, literals, "@" if entity == "BASIC_AUTH" else None):
            found += _ask(entity, _plugin(module, plugin), text, start, end, score)
    for entity, module, plugin, shape, word, score in _IN_CONTEXT:
        if word in view.words:
            for match in shape.finditer(text):
                start, end = _line(text, match.start(), match.end())
                found += _ask(entity, _plugin(module, plugin), text, start, end, score)
    found += _passwords(view)
    return without_overlaps(list(dict.fromkeys(found)))


def _finding(entity: str, start: int, end: int, score: float) -> Finding:
    return Finding(start, end, _NAME, entity, score)


def _windows(text: str, literals: tuple[str, ...], also: str | None) -> Iterator[tuple[int, int]]:
    """Lines with one of some literals, in order and without overlap; long lines are cut around it."""
    for literal in literals:
        done = 0
        position = text.find(literal)
        while position >= 0:
            start, end = _line(text, position, position + len(literal))
            start = max(start, done)
            if also is None or text.find(also, position, end) >= 0:
                yield start, end
            done = end
            position = text.find(literal, max(end, position + len(literal)))


def _line(text: str, start: int, end: int) -> tuple[int, int]:
    begin = text.rfind("\n", max(0, start - _WINDOW), start) + 1 or max(0, start - _WINDOW)
    stop = text.find("\n", end, end + _WINDOW)
    return begin, stop if stop >= 0 else min(len(text), end + _WINDOW)


def _ask(entity: str, plugin: Any, text: str, start: int, end: int, score: float) -> Iterator[Finding]:
    """What a plugin's patterns match in a line; whether it is a placeholder is judged by the value."""
    for pattern in plugin.denylist:
        for match in pattern.finditer(text, start, end):
            # Of these the pattern's group is the secret; of others a group is only a part of it.
            begin, stop = match.span(match.lastindex or 0) if entity in ("BASIC_AUTH", "AWS_KEY") else match.span()
            if entity == "JSON_WEB_TOKEN":
                if not plugin.is_formally_valid(match[0]):
                    continue
                signature = _SIGNATURE.match(text, stop, end)
                stop = signature.end() if signature else stop
            secret = text[begin:stop]
            placeholder = _PLACEHOLDER.search(secret) or (
                entity == "BASIC_AUTH" and _unlikely_login(text, stop, secret)
            )
            yield _finding(entity, begin, stop, 0.2 if placeholder else score)


def _unlikely_login(text: str, end: int, secret: str) -> bool:
    return bool(_LOCAL_HOST.match(text, end)) or _entropy(secret) < 2.0 or "/" in secret


def _private_keys(text: str) -> Iterator[Finding]:
    """Whole keys; a mere mention of the marker scores low."""
    if "PRIVATE KEY" not in text and "PuTTY-User-Key" not in text:
        return
    for match in _KEY_BEGIN.finditer(text):
        stop = text.find(f"-----END {match[1]}-----", match.end(), match.end() + 20_000) if match[1] else -1
        end = stop + len(f"-----END {match[1]}-----") if stop >= 0 else match.end()
        body = text[match.end() : end if stop >= 0 else match.end() + 400]
        real = sum(len(part) for part in _KEY_BODY.findall(body)) >= 80 and _entropy(body) > 4.0
        if real and stop < 0:
            end = match.end() + max(part.end() for part in _KEY_BODY.finditer(body))
        yield _finding("PRIVATE_KEY", match.start(), end, 0.95 if real else 0.3)


def _passwords(view: View) -> Iterator[Finding]:
    """Values assigned to a name that says secret, if they look random; names of variables and prose do not."""
    for match in (*at_literals(view, _STEMS, _ASSIGNED, whole=False), *at_literals(view, _NAMES, _ASSIGNED)):
        value = match[2]
        if _PLACEHOLDER.search(value) or "(" in value or value.endswith((".", ":")):
            continue
        quoted = bool(match[1].strip("@"))
        classes = sum(bool(re.search(kind, value)) for kind in ("[a-z]", "[A-Z]", r"\d", r"[^\w\s]"))
        if not re.search(r"\d", value) or classes < (2 if quoted else 3):
            continue
        if re.fullmatch(r"[a-z]+(?:[_.-][a-z]+)*\d{0,2}", value, re.IGNORECASE) and not quoted:
            continue
        entropy = _entropy(value)
        if entropy < 2.8:
            continue
        yield _finding("PASSWORD", match.start(2), match.end(2), 0.8 if entropy >= 3.5 and quoted else 0.6)


def _entropy(value: str) -> float:
    """Shannon entropy of the characters, in bits each."""
    counts = Counter(value)
    return -sum(number / len(value) * math.log2(number / len(value)) for number in counts.values()) if value else 0.0


@cache
def _plugin(module: str, name: str) -> Any:
    return getattr(import_module(f"detect_secrets.plugins.{module}"), name)()
