"""Configuration errors name file, key, value, what is allowed and the nearest valid name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from resources.config import load_config
from resources.errors import ConfigError
from resources.index_config import IndexConfig

CHECKOUT_DATA = Path(__file__).resolve().parents[2] / "data"


def index(**changes: Any) -> dict[str, Any]:
    return {"name": "main", "embedder": "lexical", **changes}


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("indexes/main.yaml", index(embeder="lexical"), ["indexes/main.yaml", "embeder", "unknown key", "Did you mean 'embedder'"]),
        ("indexes/main.yaml", index(embedder="lexicl"), ["embedder", "'lexicl'", "allowed: lexical", "Did you mean 'lexical'"]),
        ("indexes/main.yaml", index(sources=["dox"]), ["sources", "'dox'", "allowed: docs", "Did you mean 'docs'"]),
        ("indexes/main.yaml", index(vector_type="halfvek"), ["vector_type", "'halfvek'", "Did you mean 'halfvec'"]),
        ("indexes/main.yaml", index(chunker={"size": 100, "overlap": 100}), ["chunker", "overlap 100 must be smaller than size 100"]),
        ("indexes/main.yaml", index(chunker={"sise": 100}), ["chunker.sise", "Did you mean 'size'"]),
        ("indexes/main.yaml", index(chunker={"kind": "sentence", "overlap": 1}), ["chunker.overlap: unknown key", "overlap_sentences"]),
        ("indexes/main.yaml", index(chunker={"kind": "sentense"}), ["chunker.kind", "'sentense'", "Did you mean 'sentence'"]),
        ("indexes/main.yaml", index(chunker={"kind": "semantic", "embedder": "lexikal"}), ["chunker.embedder", "Did you mean 'lexical'"]),
        ("indexes/main.yaml", index(chunker={"kind": "parent_child", "child": {"kind": "semantic", "size": 90, "embedder": "x"}}),
         ["chunker.child.embedder", "'x'"]),
        ("indexes/main.yaml", index(chunker={"kind": "parent_child", "child": {"kind": "fixed", "sise": 9}}), ["chunker.child.sise", "Did you mean 'size'"]),
        ("indexes/main.yaml", index(hnsw={"m": "many"}), ["hnsw.m", "'many'"]),
        ("indexes/main.yaml", index(hnsw={"m": 40}), ["ef_construction 64 must be at least 2 * m = 80"]),
        ("indexes/main.yaml", index(name="Main Index"), ["name", "'Main Index'"]),
        ("indexes/main.yaml", "name: [", ["indexes/main.yaml", "not valid YAML", "line 1"]),
        ("indexes/main.yaml", "- a\n- b\n", ["expected keys and values", "list"]),
        ("sources.yaml", {"sources": []}, ["sources.yaml", "sources"]),
        ("sources.yaml", {"sources": [{"name": "a", "path": "x"}, {"name": "a", "path": "y"}]}, ["must be unique", "twice: a"]),
        ("sources.yaml", {"sources": [{"name": "a"}]}, ["sources.0.path", "required"]),
        ("indexes/twin.yaml", index(), ["indexes/twin.yaml", "already used by", "main.yaml"]),
        ("policies/index.yaml", {"keep_snapshot": 3}, ["policies/index.yaml", "Did you mean 'keep_snapshots'"]),
        ("prompts/p.yaml", {"name": "p", "system": "s", "user": "{{ question }}"}, ["prompts/p.yaml", "never uses 'passages'"]),
        ("evaluation/e.yaml", {"name": "e", "questions": "none.jsonl", "sources": ["docs"]}, ["evaluation/e.yaml", "none.jsonl"]),
    ],
)  # fmt: skip
def test_error_names_file_key_and_remedy(
    make_data_dir: Callable[..., Path], file: str, content: Any, expected: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(make_data_dir(**{file: content}))
    for part in expected:
        assert part in str(caught.value)


def test_every_mistake_of_a_file_is_reported_at_once(make_data_dir: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(make_data_dir(**{"indexes/main.yaml": index(hnsw={"m": 0, "ef_search": 0})}))
    assert "hnsw.m" in str(caught.value)
    assert "hnsw.ef_search" in str(caught.value)


def test_missing_data_directory_names_the_variable(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="GENAIOPS_DATA_DIR"):
        load_config(tmp_path / "nowhere")


def test_every_field_counts_in_the_fingerprint() -> None:
    one = IndexConfig(name="main", embedder="lexical")
    assert one.fingerprint() != one.model_copy(update={"text_search": "german"}).fingerprint()


def test_the_shipped_configuration_is_valid() -> None:
    config = load_config(CHECKOUT_DATA)
    assert config.sources
    assert config.indexes
    assert config.experiments
