"""The answerer: retrieve, build the prompt, ask the model, read the citations.

Belongs here: what a variant is, the memo of model calls, parsing citations and refusals.
Does not belong here: search (vector_index.py), templates (prompt_store.py), the call itself (models.py), and
comparing variants (assets/experiments).
"""

import contextlib
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from psycopg.types.json import Jsonb

from resources.config import ProjectConfig, PromptConfig, VariantChoice
from resources.fingerprint import fingerprint
from resources.models import ChatResult, Models, Usage
from resources.postgres import Database
from resources.prompt_store import Passage, printable, prompt_fingerprint, render

if TYPE_CHECKING:
    from resources.vector_index import SearchFilter, SearchHit, SearchResult, VectorIndex

#: Covers how passages are numbered and answers are read; part of every variant fingerprint.
CODE_VERSION = "1"

_MARKER = re.compile(r"\[(\d{1,4}(?:\s*[,;–-]\s*\d{1,4})*)\]")


@dataclass(frozen=True)
class Variant:
    """A complete answerer configuration.

    Attributes:
        name: for people: ``index/prompt/search mode/k/model``.
        ef_search: breadth of the graph search; below ``exact_below`` rows search is exact.
    """

    name: str
    index: str
    index_fingerprint: str
    prompt: PromptConfig
    search_mode: str
    k: int
    model: str
    model_fingerprint: str
    ef_search: int = 0
    exact_below: int = 0

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything that can change an answer, and of the names of index, prompt and model."""
        return fingerprint(
            {
                "code": CODE_VERSION,
                "index": self.index,
                "index_fingerprint": self.index_fingerprint,
                "ef_search": self.ef_search,
                "exact_below": self.exact_below,
                "prompt": prompt_fingerprint(self.prompt),
                "search_mode": self.search_mode,
                "k": self.k,
                "model": self.model,
                "model_fingerprint": self.model_fingerprint,
            }
        )

    def to_json(self) -> dict[str, Any]:
        """The configuration as a JSON object, with its fingerprint."""
        return {
            "name": self.name,
            "fingerprint": self.fingerprint,
            "index": self.index,
            "index_fingerprint": self.index_fingerprint,
            "ef_search": self.ef_search,
            "exact_below": self.exact_below,
            "prompt": self.prompt.model_dump(mode="json"),
            "search_mode": self.search_mode,
            "k": self.k,
            "model": self.model,
            "model_fingerprint": self.model_fingerprint,
        }


def build_variant(config: ProjectConfig, models: Models, choice: VariantChoice) -> Variant:
    """The variant a choice of names stands for.

    Raises:
        PermanentError: a model's key is missing.
    """
    from resources.vector_index import index_fingerprint

    hnsw = config.indexes[choice.index].hnsw
    return Variant(
        name=f"{choice.index}/{choice.prompt}/{choice.search_mode}/k{choice.k}/{choice.model}",
        index=choice.index,
        index_fingerprint=index_fingerprint(config, models, choice.index),
        prompt=config.prompts[choice.prompt],
        search_mode=choice.search_mode,
        k=choice.k,
        model=choice.model,
        model_fingerprint=models.chat(choice.model).fingerprint,
        ef_search=hnsw.ef_search,
        exact_below=hnsw.exact_below,
    )


@dataclass(frozen=True)
class Citation:
    """A passage the answer names: characters ``start`` to ``end`` of a document version."""

    number: int
    document_id: int
    version_id: int
    source: str
    path: str
    start: int
    end: int


@dataclass(frozen=True)
class Answer:
    """One answer with everything it rests on.

    Attributes:
        text: as the model gave it, citation marks included (``strip_citations`` removes them).
        refused: the model said that the documents do not hold the answer.
        citations: passages named by marks that exist, in order of first mention; empty when refused.
        messages: what was sent to the model.
        usage: of the model call that was really made, also when this answer came from the memo.
        generation_latency: seconds, likewise.
        generation: fingerprint of the row in table ``generation``.
    """

    text: str
    refused: bool
    citations: tuple[Citation, ...]
    hits: "tuple[SearchHit, ...]"
    messages: list[dict[str, str]]
    usage: Usage
    retrieval_latency: float
    generation_latency: float
    snapshot: int
    generation: str


class Answerer:
    """Answers questions with any variant; safe to use from several threads."""

    def __init__(self, database: Database, config: ProjectConfig, models: Models, index: "VectorIndex") -> None:
        self._database = database
        self._config = config
        self._models = models
        self._index = index
        self._locks = _KeyedLocks()

    def answer(
        self,
        variant: Variant,
        question: str,
        *,
        snapshot: int | None = None,
        filters: "SearchFilter | None" = None,
        run_id: str,
    ) -> Answer:
        """Retrieve and answer, from the serving snapshot unless one is given.

        Raises:
            SnapshotNotFoundError: nothing is published, or the snapshot is not retained.
            GenaiopsError: the model did not answer; see ``Chat.complete``.
        """
        question = printable(question)
        mode: Any = variant.search_mode
        result = self._index.search(variant.index, question, mode=mode, k=variant.k, snapshot=snapshot, filters=filters)
        return self.generate(variant, question, result, run_id=run_id)

    def generate(self, variant: Variant, question: str, result: "SearchResult", *, run_id: str) -> Answer:
        """Answer from what was retrieved.

        The call is memoised by the rendered messages, the model and its parameters, so it is paid once.

        Raises:
            ConfigError: the prompt's template is wrong.
            GenaiopsError: the model did not answer; see ``Chat.complete``. Nothing is stored then.
        """
        passages = [_passage(number, hit) for number, hit in enumerate(result.hits, start=1)]
        messages = render(variant.prompt, question, passages)
        key, generated = self._generate(variant, messages, run_id)
        refused = is_refusal(generated.text, variant.prompt.refusal)
        return Answer(
            text=generated.text,
            refused=refused,
            citations=() if refused else parse_citations(generated.text, result.hits),
            hits=result.hits,
            messages=messages,
            usage=generated.usage,
            retrieval_latency=result.latency,
            generation_latency=generated.latency,
            snapshot=result.snapshot,
            generation=key,
        )

    def _generate(self, variant: Variant, messages: list[dict[str, str]], run_id: str) -> tuple[str, ChatResult]:
        chat = self._models.chat(variant.model)
        key = fingerprint({"model": chat.fingerprint, "messages": messages})
        with self._locks.hold(key):
            known = self._stored(key)
            if known is None:
                said = chat.complete(messages)
                known = self._store(key, replace(said, text=printable(said.text)), messages, chat.fingerprint, run_id)
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
        self, key: str, said: ChatResult, messages: list[dict[str, str]], model_fingerprint: str, run_id: str
    ) -> ChatResult:
        model = {"fingerprint": model_fingerprint, "reported": said.model, "finish_reason": said.finish_reason}
        with self._database.connect() as connection:
            row = connection.execute(
                """INSERT INTO generation (fingerprint, model, messages, text, usage, latency, run_id)
                   VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING RETURNING 1""",
                (key, Jsonb(model), Jsonb(messages), said.text, Jsonb(said.usage.to_json()), said.latency, run_id),
            ).fetchone()
        if row is not None:
            return said
        # Another process was first: all must see the answer that is on record.
        return self._stored(key) or said


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


def _passage(number: int, hit: "SearchHit") -> Passage:
    return Passage(
        number=number,
        text=hit.text,
        document=f"{hit.source}/{hit.path}",
        title=hit.title,
        headings=tuple(hit.heading_path),
    )


def strip_citations(text: str) -> str:
    """The answer without its citation marks, as answers are compared with references."""
    return re.sub(r"\s*" + _MARKER.pattern, "", text).strip()


def is_refusal(text: str, refusal: str) -> bool:
    """Whether an answer is empty or says the refusal sentence, whatever its case, spacing, quotes or marks."""
    said, wanted = _plain(text), _plain(refusal)
    return not said or bool(wanted and wanted in said)


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", strip_citations(text).casefold()))


def parse_citations(text: str, hits: "Sequence[SearchHit]") -> tuple[Citation, ...]:
    """Citations of an answer: marks such as ``[1]``, ``[1, 3]`` or ``[1-3]``, numbers without a passage left out."""
    numbers: list[int] = []
    for marker in _MARKER.finditer(text):
        for part in re.split(r"[,;]", marker[1]):
            ends = [int(number) for number in re.split(r"[–-]", part)]
            numbers.extend(range(ends[0], min(ends[-1], len(hits)) + 1))
    return tuple(_citation(number, hits[number - 1]) for number in dict.fromkeys(numbers) if 1 <= number <= len(hits))


def _citation(number: int, hit: "SearchHit") -> Citation:
    return Citation(number, hit.document_id, hit.version_id, hit.source, hit.path, hit.start, hit.end)
