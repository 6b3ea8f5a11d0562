"""Mail: the readable text of a message, its facts, and what is attached.

Belongs here: parts and headers of RFC 5322 messages.
Does not belong here: reading what is attached (parsing.py).
"""

import codecs
import email
import email.policy
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import getaddresses

from assets.corpus.failures import ParseFailure
from assets.corpus.text import decode

_SHOWN = ("Subject", "From", "To", "Cc", "Date")
_HEADER = re.compile(rb"^[A-Za-z][A-Za-z0-9-]{1,60}:", re.MULTILINE)
_MOST_PARTS = 500


@dataclass(frozen=True)
class Attachment:
    """A file in a message."""

    name: str
    media_type: str
    data: bytes = field(repr=False)


@dataclass(frozen=True)
class Mail:
    """A message.

    Attributes:
        headers: the shown ones, by name, in order.
        plain: text of its plain parts, or None.
        html: its first HTML part, or None.
        attachments: files in it.
    """

    headers: dict[str, str]
    plain: str | None = field(repr=False)
    html: str | None = field(repr=False)
    attachments: list[Attachment] = field(repr=False)


def read_mail(data: bytes) -> Mail:
    """Read a message.

    Raises:
        ParseFailure: ``damaged``: it has no headers; ``password``: its body is encrypted; ``empty``; ``encoding``.
    """
    if data.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\x00" in data[:64]:
        data = decode(data)[0].encode("utf-8", "replace")  # saved by an editor rather than by a mail program
    if not data.strip():
        raise ParseFailure("empty", "the file holds no text")
    if not _HEADER.search(data[:65_536]):
        raise ParseFailure("damaged", "no headers of a mail message")
    message = email.message_from_bytes(data, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    headers = {name: value for name in _SHOWN if (value := _header(message, name))}
    if message.get_content_type() == "multipart/encrypted":
        raise ParseFailure("password", "the message is encrypted")
    plain, pages, attachments = [], [], []
    for number, part in enumerate(_leaves(message)):
        if number >= _MOST_PARTS:
            break
        kind, name = part.get_content_type(), _filename(part)
        disposition = part.get_content_disposition()
        if kind in ("text/plain", "text/html") and disposition != "attachment" and not name:
            (plain if kind == "text/plain" else pages).append(_text(part))
        elif kind == "message/rfc822":
            continue  # its own parts follow
        else:
            payload = part.get_payload(decode=True)
            if isinstance(payload, bytes) and payload:
                attachments.append(Attachment(name or f"part {number + 1}", kind, payload))
    return Mail(
        headers,
        "\n\n".join(text for text in plain if text.strip()) or None,
        next((page for page in pages if page.strip()), None),
        attachments,
    )


def _leaves(message: EmailMessage) -> Iterator[EmailMessage]:
    for part in message.walk():
        if not part.is_multipart():
            assert isinstance(part, EmailMessage)
            yield part


def _header(message: EmailMessage, name: str) -> str:
    """A header on one line; addresses as ``Name <address>``. What cannot be parsed is read as it stands."""
    try:
        value = str(message.get(name) or "")
    except Exception:  # the library raises all kinds of errors on damaged headers
        value = next((str(raw) for key, raw in message._headers if key.lower() == name.lower()), "")  # type: ignore[attr-defined]
    value = " ".join(value.split())[:2_000]
    if name in ("From", "To", "Cc"):
        pairs = [(person, address) for person, address in getaddresses([value]) if person or address]
        value = ", ".join(
            f"{person} <{address}>" if person and address else person or address for person, address in pairs
        )
    return value


def _filename(part: EmailMessage) -> str | None:
    try:
        name = part.get_filename()
    except Exception:
        return "attachment"
    return " ".join(name.replace("\\", "/").rpartition("/")[2].split())[:200] if name else None


def _text(part: EmailMessage) -> str:
    """Decoded text: by the declared charset, else as any other text is decoded."""
    payload = part.get_payload(decode=True)
    if not isinstance(payload, bytes):
        return ""
    declared = part.get_param("charset")
    try:
        return decode(payload, declared if isinstance(declared, str) else None)[0]
    except ParseFailure:
        return payload.decode("ascii", "ignore")
