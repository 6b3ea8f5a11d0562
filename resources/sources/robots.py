"""Politeness: what a site allows a crawler, and how often it may be asked.

Belongs here: robots.txt and the pace of requests. Does not belong here: what a single page says (web_pages.py).
"""

import random
import threading
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from resources.errors import TransientError
from resources.network import RefusedUrlError, Response, ResponseError, shown

#: RFC 9309 asks a crawler to read at least 500 KiB.
ROBOTS_BYTES = 500 * 1024


class Pace:
    """At most so many requests a second to each host, over all threads; time and sleep can be replaced in tests."""

    def __init__(
        self,
        requests_per_second: float,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._interval = 1 / requests_per_second
        self._longer: dict[str, float] = {}
        self._next: dict[str, float] = {}
        self._lock = threading.Lock()
        self._monotonic = monotonic
        self._sleep = sleep

    def slow_down(self, host: str, seconds: float) -> None:
        """Leave at least so long between two requests to a host."""
        with self._lock:
            self._longer[host] = max(seconds, self._longer.get(host, 0.0))

    def wait(self, host: str) -> None:
        """Wait for this host's next turn."""
        with self._lock:
            now = self._monotonic()
            turn = max(now, self._next.get(host, now))
            self._next[host] = turn + max(self._interval, self._longer.get(host, 0.0))
        if turn > now:
            self._sleep(turn - now)

    def pause(self, tries: int, wanted: float | None) -> None:
        """Wait before another try: as long as the server asked for, else twice as long each time, with some chance."""
        self._sleep(wanted if wanted is not None else 0.5 * 2**tries * (1 + random.random()))


class Robots:
    """robots.txt of every origin, read once: RFC 9309.

    Args:
        get: fetches a URL at the pace of its host.
        agent: the name rules are addressed to.
        pace: slowed down where a site states a crawl delay.
    """

    def __init__(self, get: Callable[[str], Response], agent: str, pace: Pace) -> None:
        self._get = get
        self._agent = agent
        self._pace = pace
        self._rules: dict[str, Any] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def allows(self, url: str) -> bool:
        """Whether this crawler may fetch a URL.

        Raises:
            TransientError: robots.txt cannot be had just now, so nothing may be fetched.
        """
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        with self._lock:
            lock = self._locks.setdefault(origin, threading.Lock())
        with lock:
            if origin not in self._rules:
                self._rules[origin] = self._read(origin)
        rules = self._rules[origin]
        return rules is None or rules.can_fetch(url, self._agent)

    def _read(self, origin: str) -> Any:
        """Its rules; None where there are none: not found, or forbidden, means that nothing is forbidden."""
        from protego import Protego

        url = f"{origin}/robots.txt"
        try:
            response = self._get(url)
        except (RefusedUrlError, ResponseError) as error:
            raise TransientError(f"{url} cannot be used, so nothing of this site may be fetched: {error}") from error
        if response.status >= 500 or response.status == 429:
            raise TransientError(
                f"{shown(url)} answers {response.status}, so nothing of this site may be fetched just now"
            )
        if response.status != 200:
            return None
        rules = Protego.parse(response.content.decode("utf-8-sig", "replace"))
        delay = rules.crawl_delay(self._agent)
        if delay:
            self._pace.slow_down(urlsplit(url).netloc, float(delay))
        return rules
