"""The memo of chat calls: a call with the same model, parameters and messages is paid once.

Belongs here: the one reader and writer of table ``generation``.
Does not belong here: what is asked (answerer.py, query_translation.py, rerankers.py) and the call itself (models.py).
"""

import contextlib
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from psycopg.types.json import Jsonb

from resources.erased_documents import erased_among
from resources.errors import ModelResponseError
from resources.fingerprint import fingerprint
from resources.models import Chat, ChatResult, Usage
from resources.postgres import Database
from resources.prompt_store import printable

#: How often a model is asked whose answer has not the form that was asked for.
FORM_TRIES = 3


def request_key(
    chat: Chat, messages: Sequence[Mapping[str, str]], extra: Mapping[str, Any] | None = None, draw: int = 0
) -> str:
    """Fingerprint of a request: all that can change its answer, and the number of the draw."""
    request: dict[str, Any] = {"model": chat.fingerprint, "messages": messages}
    request |= {"extra": dict(extra)} if extra else {}
    request |= {"draw": draw} if draw else {}
    return fingerprint(request)


class GenerationMemo:
    """Asks chat models and remembers what they said; safe to use from several threads."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._locks = _KeyedLocks()

    def complete(
        self,
        chat: Chat,
        messages: list[dict[str, str]],
        run_id: str,
        *,
        read: Callable[[str], Any] = lambda text: text,
        documents: Collection[int] = (),
        extra: Mapping[str, Any] | None = None,
        draw: int = 0,
        tries: int = FORM_TRIES,
    ) -> tuple[str, ChatResult]:
        """The answer to ``messages``, from the memo when it was ever given.

        Args:
            read: refuses an answer that has not the wanted form with ValueError; only what it accepts is remembered.
            documents: whose text is in the messages; if one is erased meanwhile, nothing is remembered.
            extra: parameters of this request alone; see ``Chat.complete``.
            draw: number of the answer wanted, from 0: the same question may be asked again to see how answers vary.
            tries: how often to ask when the answer has not the wanted form.

        Returns:
            Fingerprint of the row in table ``generation``, and the answer with the usage of the call really made.

        Raises:
            ModelResponseError: the answer had not the wanted form, ``tries`` times.
            GenaiopsError: the model did not answer; see ``Chat.complete``. Nothing is stored then.
        """
        key = request_key(chat, messages, extra, draw)
        with self._locks.hold(key):
            known = self._stored(key)
            if known is None:
                said = _ask(chat, messages, read, extra, tries)
                known = self._store(key, said, messages, chat.fingerprint, run_id, documents)
        return key, known

    def _stored(self, key: str) -> ChatResult | None:
        with self._database.connect() as connection:
            row = connection.execute(
                "SELECT text, usage, latency, model FROM generation WHERE fingerprint = %s", (key,)
            ).fetchone()
        if row is None:
            return None
        text, usage, latency, model = row
        return ChatResult(text, Usage(**usage), latency, model["reported"], model["finish_reason"])

    def _store(
        self,
        key: str,
        said: ChatResult,
        messages: Sequence[dict[str, str]],
        model_fingerprint: str,
        run_id: str,
        documents: Collection[int],
    ) -> ChatResult:
        model = {"fingerprint": model_fingerprint, "reported": said.model, "finish_reason": said.finish_reason}
        with self._database.connect() as connection:
            if erased_among(connection, documents):
                return said
            row = connection.execute(
                """INSERT INTO generation (fingerprint, model, messages, text, usage, latency, run_id)
                   VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING RETURNING 1""",
                (key, Jsonb(model), Jsonb(messages), said.text, Jsonb(said.usage.to_json()), said.latency, run_id),
            ).fetchone()
        if row is not None:
            return said
        # Another process was first: all must see the answer that is on record.
        return self._stored(key) or said


def _ask(
    chat: Chat,
    messages: Sequence[dict[str, str]],
    read: Callable[[str], Any],
    extra: Mapping[str, Any] | None,
    tries: int,
) -> ChatResult:
    used = Usage()
    problem = ""
    for _ in range(tries):
        said = chat.complete(messages, extra=extra)
        used = used + said.usage
        said = replace(said, text=printable(said.text), usage=used)
        try:
            read(said.text)
        except ValueError as error:
            problem = str(error)
            continue
        return said
    # Raised outside the except block: what the model said may quote a document and must not travel as the cause.
    raise ModelResponseError(
        f"chat model {chat.config.name!r}: unusable answer: {problem}; gave up after {tries} tries"
    )


class _KeyedLocks:
    """One lock per key in use, so that two threads never pay for the same call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[str, tuple[threading.Lock, int]] = {}

    @contextlib.contextmanager
    def hold(self, key: str) -> Iterator[None]:
        with self._lock:
            lock, users = self._held.get(key, (threading.Lock(), 0))
            self._held[key] = (lock, users + 1)
        try:
            with lock:
                yield
        finally:
            with self._lock:
                lock, users = self._held[key]
                if users == 1:
                    del self._held[key]
                else:
                    self._held[key] = (lock, users - 1)
