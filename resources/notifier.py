"""Notifier: hands a message to the places people read.

Belongs here: the targets of ``GENAIOPS_NOTIFY_URLS`` (apprise URLs) and the log file used when there are none.
Does not belong here: what is worth telling, to whom it was told already, and when to try again (pipelines/alerts.py).
"""

import json
import logging
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Protocol

#: Environment variable with the apprise URLs, separated by blanks or commas. They hold secrets.
URLS_VARIABLE = "GENAIOPS_NOTIFY_URLS"
LOG_FILE = "alerts.log"

_SEPARATOR = re.compile(r"\s+|,(?=\s*[A-Za-z][A-Za-z0-9+.-]*://)")
_CONNECT_SECONDS, _READ_SECONDS, _DEADLINE_SECONDS = 3, 5, 10.0


@dataclass(frozen=True)
class Message:
    """One message.

    Attributes:
        kind: ``failure`` or ``recovered``.
        title: one line.
        body: plain text; may contain links.
        keys: the alert keys it is about.
    """

    kind: Literal["failure", "recovered"]
    title: str
    body: str
    keys: tuple[str, ...] = ()


class Target(Protocol):
    """One place messages go to."""

    @property
    def label(self) -> str:
        """Name without secrets, stable across restarts."""
        ...

    def send(self, message: Message) -> bool:
        """Deliver; True only when the target accepted the message. Never raises and never waits for long."""
        ...


@dataclass
class LogFile:
    """A file with one JSON object per message; the default when no URL is configured."""

    path: Path
    label: str = "log file"

    def send(self, message: Message) -> bool:
        """Append the message; False when the file cannot be written."""
        line = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "kind": message.kind,
            "title": message.title,
            "body": message.body,
            "keys": list(message.keys),
        }
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as handle:
                handle.write(json.dumps(line, ensure_ascii=False) + "\n")
        except OSError as error:
            logging.getLogger(__name__).warning("alerts: cannot write %s: %s", self.path, error.strerror)
            return False
        return True


@dataclass
class AppriseTarget:
    """One apprise URL. Only scheme and host are ever shown."""

    url: str = field(repr=False)
    label: str
    _running: threading.Thread | None = field(default=None, repr=False)

    def send(self, message: Message) -> bool:
        """Deliver within ten seconds; a service still hanging on an earlier message is not asked again meanwhile."""
        if self._running and self._running.is_alive():
            return False
        accepted: list[bool] = []
        # Time-outs of a service count from byte to byte; only a thread bounds the whole of a dripping answer.
        self._running = threading.Thread(target=self._notify, args=(message, accepted), daemon=True)
        self._running.start()
        self._running.join(_DEADLINE_SECONDS)
        return accepted == [True]

    def _notify(self, message: Message, accepted: list[bool]) -> None:
        apprise = _quiet_apprise()
        service = apprise.Apprise()
        service.add(_with_timeouts(self.url))
        kind = apprise.NotifyType.FAILURE if message.kind == "failure" else apprise.NotifyType.SUCCESS
        try:
            accepted.append(bool(service.notify(title=message.title, body=message.body, notify_type=kind)))
        except Exception as error:  # a plugin's own defect must not stop the other targets
            logging.getLogger(__name__).warning("alerts: %s failed with %s", self.label, type(error).__name__)


@dataclass(frozen=True)
class Notifier:
    """All targets, and what is wrong with the configured URLs (in words without secrets)."""

    targets: tuple[Target, ...]
    problems: tuple[str, ...] = ()


def build_notifier(artifacts: Path, environment: Mapping[str, str]) -> Notifier:
    """Build the targets from ``GENAIOPS_NOTIFY_URLS``.

    A URL that apprise does not understand becomes a problem, not an error: the other targets still work. With no
    usable URL, messages go to ``alerts.log`` in the artifacts folder.
    """
    targets: list[Target] = []
    problems: list[str] = []
    seen: dict[str, int] = {}
    for position, url in enumerate(filter(None, _SEPARATOR.split(environment.get(URLS_VARIABLE, ""))), start=1):
        url = url.strip(",")
        place = _place(url)
        if not _understood(url):
            problems.append(
                f"{URLS_VARIABLE}: entry {position} ({place}) is no URL apprise understands; see https://appriseit.com"
            )
            continue
        seen[place] = seen.get(place, 0) + 1
        targets.append(AppriseTarget(url, place if seen[place] == 1 else f"{place}#{seen[place]}"))
    if not targets:
        targets.append(LogFile(artifacts / LOG_FILE))
    return Notifier(tuple(targets), tuple(problems))


def _understood(url: str) -> bool:
    return bool(_quiet_apprise().Apprise().add(url))


def _quiet_apprise() -> Any:
    """The library, with everything silenced that may quote a URL and so a secret."""
    import apprise

    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.INFO)  # at DEBUG it writes paths, and with them tokens
    return apprise


def _place(url: str) -> str:
    """Scheme and host of a URL. In many schemes (``slack://TOKEN/...``) the host is itself the secret: then scheme only."""
    scheme, separator, rest = url.partition("://")
    if not separator or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        return "not a URL"
    host = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")[2]
    plain = scheme.lower() in {"json", "jsons", "xml", "xmls", "form", "forms", "http", "https", "mailto", "mailtos"}
    shown = host if plain and re.fullmatch(r"[A-Za-z0-9.-]+(:\d+)?", host) else "…"
    return f"{scheme.lower()}://{shown}"


def _with_timeouts(url: str) -> str:
    missing = [
        f"{name}={seconds}"
        for name, seconds in (("cto", _CONNECT_SECONDS), ("rto", _READ_SECONDS))
        if not re.search(rf"[?&]{name}=", url)
    ]
    return url + ("&" if "?" in url else "?") + "&".join(missing) if missing else url
