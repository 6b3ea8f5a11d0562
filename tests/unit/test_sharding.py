"""Shards: documents are spread by a stable hash, and readers never get a part of a source."""

from collections.abc import Callable
from pathlib import Path

import pytest

from assets.chunks.chunking import chunk_source
from assets.corpus.refresh import commit, plan_refresh
from assets.index.embedding import embed_source
from assets.index.refreshing import IndexRefresh, refresh_index
from resources.config import load_config
from resources.errors import ConfigError, SnapshotNotFoundError
from resources.platform import Platform
from resources.sharding import partitions, shard_of, source_of
from resources.vector_index import SearchFilter, VectorIndex

DOCUMENTS = {
    f"part{number}/note{number}.md": f"# Note {number}\n\nThe colour of box {number} is grey.\n" for number in range(12)
}


def sources(shards: int) -> str:
    return f"sources:\n  - {{name: docs, path: ../docs, shards: {shards}}}\n"


def index(name: str = "main") -> str:
    return f"name: {name}\nembedder: lexical\nsources: [docs]\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for path, text in DOCUMENTS.items():
        (tmp_path / "docs" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "docs" / path).write_text(text, encoding="utf-8")
    return tmp_path / "docs"


def prepare(platform: Platform, partition: str) -> None:
    with platform.database.lease(f"source:{partition}", "run") as lease:
        commit(platform, plan_refresh(platform, partition, "run", lease), lease)
    chunk_source(platform, partition, gate=lambda batch: True)
    embed_source(platform, partition, "run")


def load(platform: Platform, partition: str) -> IndexRefresh:
    prepare(platform, partition)
    return refresh_index(platform, "main", partition, "run")


def found(platform: Platform, source: str | None = None) -> set[str]:
    filters = SearchFilter(sources=tuple(platform.config.expand_sources([source]))) if source else None
    search = VectorIndex(platform.database, platform.config, platform.models).search
    return {hit.path for hit in search("main", "colour of the box", k=20, mode="full_text", filters=filters).hits}


def test_a_path_is_in_one_shard_for_ever() -> None:
    # The hash is part of the state of every sharded source: it may never change.
    assert [shard_of(path, 4) for path in ("a.md", "b/c.md", "ü.md")] == [1, 2, 2]
    spread = [shard_of(f"document {number}", 8) for number in range(8000)]
    assert min(map(spread.count, range(8))) > 900
    assert partitions("docs", 1) == ["docs"]
    assert [source_of(name) for name in partitions("docs", 2)] == ["docs", "docs"]


def test_configuration_names_the_source_and_gets_its_shards(make_data_dir: Callable[..., Path], folder: Path) -> None:
    config = load_config(make_data_dir(**{"sources.yaml": sources(3), "indexes/main.yaml": index()}))
    assert list(config.sources) == ["docs.0", "docs.1", "docs.2"]
    assert config.source_names == ["docs"]
    assert config.index_sources("main") == ["docs.0", "docs.1", "docs.2"]
    assert config.partition_of("docs", "a.md") == f"docs.{shard_of('a.md', 3)}"
    assert config.partition_of("docs.1", "a.md") == "docs.1"
    assert config.partition_of("unknown", "a.md") == "unknown"


def test_an_index_cannot_name_one_shard(make_data_dir: Callable[..., Path], folder: Path) -> None:
    broken = index().replace("[docs]", '["docs.1"]')
    with pytest.raises(ConfigError, match="sources"):
        load_config(make_data_dir(**{"sources.yaml": sources(3), "indexes/main.yaml": broken}))


def test_readers_get_a_source_when_all_its_shards_are_there(
    make_platform: Callable[..., Platform], folder: Path
) -> None:
    platform = make_platform(**{"sources.yaml": sources(3), "indexes/main.yaml": index()})
    first, second = load(platform, "docs.0"), load(platform, "docs.1")
    assert first.stage is not None
    assert second.stage is not None
    assert (first.stage.strategy, first.stage.waiting_for) == ("waiting", ("docs.1", "docs.2"))
    assert not first.failed
    with pytest.raises(SnapshotNotFoundError):
        found(platform)
    third = load(platform, "docs.2")
    assert third.publication is not None
    assert found(platform) == found(platform, "docs") == set(DOCUMENTS)


def test_another_number_of_shards_is_shown_at_once_or_not_at_all(
    make_platform: Callable[..., Platform], make_data_dir: Callable[..., Path], folder: Path
) -> None:
    before = make_platform(**{"sources.yaml": sources(2), "indexes/main.yaml": index()})
    for part in before.config.sources:
        load(before, part)
    data = make_data_dir(**{"sources.yaml": sources(3), "indexes/main.yaml": index()})
    after = Platform(load_config(data), before.database, before.artifacts)
    for part in ("docs.0", "docs.1"):
        refresh = load(after, part)
        assert refresh.publication is None
        assert found(after) == set(DOCUMENTS)
    assert load(after, "docs.2").publication is not None
    assert found(after) == set(DOCUMENTS)
    with after.database.connect() as connection:
        row = connection.execute("SELECT count(*), count(DISTINCT input_hash) FROM embedding").fetchone()
    assert row == (12, 12)  # documents moved between partitions; nothing was embedded again
