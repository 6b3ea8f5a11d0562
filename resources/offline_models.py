"""Offline models: deterministic, in this process, without download or network.

Belongs here: the lexical-hash embedder, and the in-process transport that lets the ``openai`` client reach it, the
extractive answerer (offline_extractive.py) and the models of other tasks (offline_tasks.py). Does not belong here:
retries, batching, usage and prices; models.py treats these models like any other.

``lexical-hash`` turns a text into a unit vector of any dimension: stemmed words and their character 4-grams, common
words weighted down, sub-linear counts, signed feature hashing by BLAKE2b. Texts that share rare words are close; it
knows no synonyms.
"""

from __future__ import annotations

import base64
import difflib
import functools
import hashlib
import json
import math
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from resources.errors import PermanentError
from resources.offline_text import commonness_weight, count_tokens, stem, words

if TYPE_CHECKING:
    import numpy as np

__all__ = ["CODE_VERSION", "LexicalHash", "check_model", "count_tokens", "transport"]

#: Covers this module, offline_text.py and offline_words.py; part of the fingerprint of the embedder.
CODE_VERSION = "1"

EMBEDDING_MODEL = "lexical-hash"
CHAT_MODEL = "extractive"

_WORD_HASHES = 2
_GRAM = 4
_GRAM_SHARE = 0.8
_BLOCK = 256
_CACHED_WORDS = 200_000


def check_model(what: str, name: str, model: str) -> None:
    """Refuse a model name this module does not have.

    Raises:
        PermanentError: naming the entry of models.yaml and the models that exist.
    """
    from resources import offline_tasks

    known = [EMBEDDING_MODEL] if what == "embedding" else [CHAT_MODEL, *offline_tasks.MODELS]
    if model not in known:
        close = difflib.get_close_matches(model, known, n=1, cutoff=0.5)
        near = (" Did you mean it?" if len(known) == 1 else f" Did you mean {close[0]!r}?") if close else ""
        raise PermanentError(
            f"models.yaml: {what} model {name!r}: the offline provider has no model {model!r}; it has "
            f"{', '.join(map(repr, known))}.{near}"
        )


def code_version(model: str) -> str:
    """Of the code behind a model name; part of the model's fingerprint."""
    from resources import offline_extractive, offline_tasks

    if model == CHAT_MODEL:
        return f"extractive-{offline_extractive.CODE_VERSION}"
    return f"tasks-{offline_tasks.CODE_VERSION}" if model in offline_tasks.MODELS else CODE_VERSION


class LexicalHash:
    """The embedder for one dimension; thread-safe.

    Args:
        dimensions: length of the vectors.
    """

    def __init__(self, dimensions: int) -> None:
        self.dimensions = dimensions
        self._cache: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self._lock = threading.Lock()

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Unit vectors, float32 of shape (len(texts), dimensions); a text without words gets a fixed vector."""

        import numpy as np

        vectors = np.empty((len(texts), self.dimensions), np.float32)
        with self._lock:
            for start in range(0, len(texts), _BLOCK):
                block = texts[start : start + _BLOCK]
                vectors[start : start + len(block)] = self._embed_block(block)
        return vectors

    def _embed_block(self, texts: Sequence[str]) -> np.ndarray:
        import numpy as np

        indices: list[np.ndarray] = []
        weights: list[np.ndarray] = []
        lengths: list[int] = []
        counts: list[float] = []
        rows: list[int] = []
        for row, text in enumerate(texts):
            for word, count in Counter(words(text) or [""]).items():
                index, weight = self._cache.get(word) or self._add(word)
                indices.append(index)
                weights.append(weight)
                lengths.append(len(index))
                counts.append(1 + math.log(count))
                rows.append(row)
        flat = np.repeat(np.array(rows) * self.dimensions, lengths) + np.concatenate(indices)
        values = np.concatenate(weights) * np.repeat(counts, lengths)
        sums = np.bincount(flat, values, minlength=len(texts) * self.dimensions).reshape(len(texts), -1)
        norms = np.linalg.norm(sums, axis=1, keepdims=True)
        # In few dimensions the signed features of a text can cancel out; a vector of zeros has no direction.
        sums[norms[:, 0] < 1e-9, 0] = 1.0
        return sums / np.where(norms < 1e-9, 1.0, norms)

    def _add(self, word: str) -> tuple[np.ndarray, np.ndarray]:
        import numpy as np

        if len(self._cache) >= _CACHED_WORDS:
            self._cache.clear()
        index, weight = zip(*_features(word), strict=True)
        entry = (np.array(index, np.int64) % self.dimensions, np.array(weight))
        self._cache[word] = entry
        return entry


def _features(word: str) -> Iterator[tuple[int, float]]:
    """Hashed features of a word: (unsigned hash, signed weight)."""
    stemmed = stem(word)
    weight = commonness_weight(stemmed)
    for value in _hashes(f"w:{stemmed}", _WORD_HASHES):
        yield value >> 1, math.copysign(weight / math.sqrt(_WORD_HASHES), (value & 1) - 0.5)
    if len(stemmed) > 2 and weight > 0.35:
        # Scripts that set no spaces give long "words": pairs of characters are their words.
        size = _GRAM if stemmed.isascii() or len(stemmed) < 3 or ord(max(stemmed)) < 0x0E00 else 2
        padded = f"<{stemmed}>" if size == _GRAM else stemmed
        grams = [padded[at : at + size] for at in range(len(padded) - size + 1)]
        share = weight * _GRAM_SHARE / math.sqrt(len(grams))
        if size == 2:
            share = 1.0
        for gram in grams:
            (value,) = _hashes(f"g:{gram}", 1)
            yield value >> 1, math.copysign(share, (value & 1) - 0.5)


def _hashes(feature: str, count: int) -> list[int]:
    digest = hashlib.blake2b(feature.encode("utf-8", "surrogatepass"), digest_size=4 * count).digest()
    return [int.from_bytes(digest[at : at + 4], "little") for at in range(0, 4 * count, 4)]


@functools.lru_cache(maxsize=16)
def _embedder(dimensions: int) -> LexicalHash:
    return LexicalHash(dimensions)


# --- the in-process server ------------------------------------------------------------------------------


def transport(dimensions: int) -> Any:
    """An HTTP transport that answers ``/embeddings`` and ``/chat/completions`` in this process.

    Args:
        dimensions: length of the vectors when a request does not say.
    """
    import httpx2

    class Offline(httpx2.BaseTransport):
        def handle_request(self, request: httpx2.Request) -> httpx2.Response:
            body = json.loads(request.read())
            if request.url.path.endswith("/embeddings"):
                answer = _answer_embeddings(body, dimensions)
            else:
                answer = _answer_chat(body)
            return httpx2.Response(200, json=answer, request=request)

    return Offline()


def _answer_embeddings(body: dict[str, Any], dimensions: int) -> dict[str, Any]:
    texts = body["input"]
    vectors = _embedder(body.get("dimensions", dimensions)).embed(texts).astype("<f4")
    tokens = sum(map(count_tokens, texts))
    return {
        "object": "list",
        "model": f"{EMBEDDING_MODEL} (offline)",
        "data": [
            {"object": "embedding", "index": index, "embedding": base64.b64encode(vector.tobytes()).decode()}
            for index, vector in enumerate(vectors)
        ],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _answer_chat(body: dict[str, Any]) -> dict[str, Any]:
    model = body.get("model", CHAT_MODEL)
    from resources import offline_extractive, offline_tasks

    if model in offline_tasks.MODELS:
        text = offline_tasks.answer(model, body["messages"])
    else:
        model, text = CHAT_MODEL, offline_extractive.answer(body["messages"])
    sent = sum(count_tokens(message["content"]) for message in body["messages"])
    received = count_tokens(text)
    return {
        "id": "offline",
        "object": "chat.completion",
        "created": 0,
        "model": f"{model} (offline)",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
        "usage": {"prompt_tokens": sent, "completion_tokens": received, "total_tokens": sent + received},
    }
