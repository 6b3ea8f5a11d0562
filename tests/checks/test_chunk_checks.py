"""Every check of chunks fails on bad data, and then no bad chunk is stored."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from assets.chunks import chunking
from assets.chunks.assets import build_assets as build_chunks
from assets.chunks.checks import CHECKS, chunk_sets_complete, validate_chunks
from assets.chunks.chunkers import Chunk, chunk_text
from assets.chunks.chunking import ChunkWork
from assets.corpus.assets import build_assets as build_corpus
from assets.dagster_support import source_partitions
from resources.chunker_config import ChunkerConfig
from resources.fingerprint import text_hash
from resources.platform import Platform
from tests.corpus_support import write

GOOD = {
    "id": ["a/0", "a/1"],
    "ordinal": [0, 1],
    "start": [0, 8],
    "end": [7, 20],
    "characters": [7, 12],
    "tokens": [2, 3],
    "chunk_hash": ["0" * 32, "1" * 32],
}


def test_good_chunks_pass_the_suite() -> None:
    assert validate_chunks(pd.DataFrame(GOOD)).passed


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("id", ["a/0", "a/0"]),
        ("id", ["a/0", None]),
        ("ordinal", [-1, 1]),
        ("start", [-1, 8]),
        ("characters", [7, 0]),
        ("tokens", [0, 3]),
        ("chunk_hash", ["0" * 32, "x"]),
    ],
)
def test_each_expectation_fails_on_bad_chunks(column: str, values: Any) -> None:
    assert not validate_chunks(pd.DataFrame({**GOOD, column: values})).passed


def test_no_chunks_at_all_fail_the_suite() -> None:
    assert not validate_chunks(pd.DataFrame(GOOD).iloc[:0]).passed


def test_chunk_sets_complete() -> None:
    assert chunk_sets_complete(ChunkWork("docs", 1, "", texts=2, chunkers=["a"])).passed
    assert not chunk_sets_complete(ChunkWork("docs", 1, "", texts=2, chunkers=["a"], missing=1)).passed
    assert not chunk_sets_complete(ChunkWork("docs", 0, "")).passed


def _each(cut: Callable[[str, ChunkerConfig], list[Chunk]]) -> Callable[..., Iterator[list[Chunk]]]:
    """A stand-in for ``chunk_texts``."""
    return lambda texts, config, tools: (cut(text, config) for text in texts)


def _lossy(text: str, config: ChunkerConfig) -> list[Chunk]:
    return chunk_text(text, config)[:-1]


def _shifted(text: str, config: ChunkerConfig) -> list[Chunk]:
    first, *rest = chunk_text(text, config)
    return [replace(first, hash=text_hash("something else")), *rest]


def _whole(text: str, config: ChunkerConfig) -> list[Chunk]:
    return [Chunk(0, 0, len(text), text_hash(text), ("A",), 9)]


def _overlapping(text: str, config: ChunkerConfig) -> list[Chunk]:
    *others, before, last = chunk_text(text, config)
    start = text.index(" ", before.end - 20) + 1
    return [*others, before, replace(last, start=start, hash=text_hash(text[start : last.end]))]


def _astray(text: str, config: ChunkerConfig) -> list[Chunk]:
    return [replace(chunk, heading_path=("Elsewhere",)) for chunk in chunk_text(text, config)]


def _adopted(text: str, config: ChunkerConfig) -> list[Chunk]:
    return [replace(chunk, parent=(0, len(text))) for chunk in chunk_text(text, config)]


def _negative(text: str, config: ChunkerConfig) -> list[Chunk]:
    return [replace(chunk, tokens=0) for chunk in chunk_text(text, config)]


@pytest.mark.parametrize(
    ("chunker", "failed"),
    [
        (_lossy, "coverage"),
        (_shifted, "coverage"),
        (_whole, "size_limits"),
        (_negative, "chunks_suite"),
        (_overlapping, "overlap"),
        (_astray, "heading_paths"),
        (_adopted, "parents"),
    ],
)
def test_bad_chunks_are_not_stored_and_stop_what_depends_on_them(
    make_platform: Callable[..., Platform],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    chunker: Callable[[str, ChunkerConfig], list[Chunk]],
    failed: str,
) -> None:
    platform = make_platform()
    write(tmp_path / "docs", {"a.md": "# A\n\n" + "Some words. " * 60})
    ran = []

    @dg.asset(deps=["chunks"], partitions_def=source_partitions(platform.config))
    def downstream() -> None:
        ran.append(True)

    def run() -> Any:
        return dg.materialize(
            [*build_corpus(platform.config), *build_chunks(platform.config), downstream],
            resources={"platform": platform},
            instance=dg.DagsterInstance.ephemeral(),
            partition_key="docs",
            raise_on_error=False,
        )

    with monkeypatch.context() as patch:
        patch.setattr(chunking, "chunk_texts", _each(chunker))
        result = run()
    evaluated = [item for item in result.get_asset_check_evaluations() if item.asset_key.path == ["chunks"]]
    assert not result.success
    assert ran == []
    assert {item.check_name for item in evaluated if not item.passed} == {failed, "chunk_sets_complete"}
    assert [item.check_name for item in evaluated] == list(CHECKS)
    with platform.database.connect() as connection:
        assert connection.execute("SELECT count(*) FROM chunk_set").fetchone() == (0,)
    assert run().success
    assert ran == [True]
