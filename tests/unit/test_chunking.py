"""Chunking a source: once per distinct text and chunker, idempotent, never writing what is wrong."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest

from assets.chunks import chunking
from assets.chunks.chunkers import Chunk, chunk_text, count_tokens
from assets.chunks.chunking import chunk_source, coverage_problems, data_version, size_problems
from assets.chunks.enrichment import embedding_input
from resources.chunk_config import chunker_fingerprint, chunker_id, enrichment_fingerprint, enrichment_id
from resources.chunker_config import ChunkerConfig, MarkdownChunker, chunker_config
from resources.fingerprint import text_hash
from resources.index_config import EnrichmentConfig
from resources.platform import Platform
from tests.corpus_support import refresh, write

TEXT = "# Bike\n\nA bike has two wheels.\n\n## Brakes\n\nBrakes slow the bike down."


def _index(name: str, size: int = 40, context: str = "headings", **chunker: Any) -> dict[str, Any]:
    return {
        "name": name,
        "embedder": "lexical",
        "chunker": {"kind": "markdown", "unit": "characters", "size": size, **chunker},
        "enrichment": {"context": context},
    }


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    return tmp_path / "docs"


def _each(cut: Callable[[str, ChunkerConfig], list[Chunk]]) -> Callable[..., Iterator[list[Chunk]]]:
    """A stand-in for ``chunk_texts``."""
    return lambda texts, config, tools: (cut(text, config) for text in texts)


def _rows(platform: Platform, query: LiteralString) -> list[Any]:
    with platform.database.connect() as connection:
        return connection.execute(query).fetchall()


def test_stored_ranges_hashes_and_inputs_reproduce_the_text(make_platform: Callable[..., Platform], docs: Path) -> None:
    platform = make_platform(**{"indexes/main.yaml": _index("main")})
    write(docs, {"a.md": TEXT})
    refresh(platform)
    work = chunk_source(platform, "docs")
    rows = _rows(
        platform,
        """SELECT start_char, end_char, chunk_hash, heading_path, input_hash, text FROM chunk
           JOIN chunk_input USING (chunker_id, text_hash, ordinal) JOIN document_text USING (text_hash) ORDER BY ordinal""",
    )
    assert len(rows) == work.chunks == work.chunks_written == work.inputs_written > 1
    for start, end, chunk_hash, path, input_hash, text in rows:
        assert chunk_hash == text_hash(text[start:end])
        assert input_hash == text_hash(embedding_input(path, text[start:end], EnrichmentConfig()))
    assert rows[-1][3] == ["Bike", "Brakes"]


def test_second_run_does_nothing(make_platform: Callable[..., Platform], docs: Path) -> None:
    platform = make_platform()
    write(docs, {"a.md": TEXT, "b.md": "# B"})
    refresh(platform)
    first = chunk_source(platform, "docs")
    second = chunk_source(platform, "docs")
    assert (first.texts_chunked, first.reused, first.missing) == (2, 0, 0)
    assert (second.texts_chunked, second.chunks_written, second.inputs_written, second.reused) == (0, 0, 0, 2)
    assert second.data_version == first.data_version
    assert second.chunks == first.chunks


def test_only_the_edited_text_is_chunked(make_platform: Callable[..., Platform], docs: Path) -> None:
    platform = make_platform()
    write(docs, {"a.md": TEXT, "b.md": "# B", "copy.md": TEXT})
    refresh(platform)
    assert chunk_source(platform, "docs").texts_chunked == 2
    write(docs, {"b.md": "# B, edited"})
    refresh(platform)
    work = chunk_source(platform, "docs")
    assert (work.texts_chunked, work.reused) == (1, 1)


def test_indexes_with_the_same_chunker_share_its_chunks(make_platform: Callable[..., Platform], docs: Path) -> None:
    platform = make_platform(
        **{
            "indexes/main.yaml": _index("main"),
            "indexes/plain.yaml": _index("plain", context="none"),
            "indexes/wide.yaml": _index("wide", size=400),
        }
    )
    write(docs, {"a.md": TEXT})
    refresh(platform)
    work = chunk_source(platform, "docs")
    assert len(work.chunkers) == 2
    assert work.texts_chunked == 2
    inputs = _rows(platform, "SELECT count(DISTINCT enrichment_id), count(*) FROM chunk_input")
    small = _rows(platform, "SELECT chunks FROM chunk_set ORDER BY chunks DESC")[0][0]
    assert inputs == [(2, work.chunks_written + small)]  # the small chunks are embedded with and without headings


def test_enrichment_added_later_gets_inputs_without_chunking_again(
    make_platform: Callable[..., Platform], docs: Path
) -> None:
    platform = make_platform(**{"indexes/main.yaml": _index("main", context="none")})
    write(docs, {"a.md": TEXT, "b.md": "# B\n\nwords"})
    refresh(platform)
    before = chunk_source(platform, "docs")
    later = make_platform(**{"indexes/main.yaml": _index("main")})
    work = chunk_source(later, "docs")
    assert before.inputs_written == before.chunks_written
    assert (work.texts_chunked, work.inputs_written) == (0, before.chunks_written)
    assert chunk_source(later, "docs").inputs_written == 0
    fresh = {
        tuple(row)
        for row in _rows(
            platform,
            """SELECT text_hash, ordinal, input_hash FROM chunk_input
               WHERE enrichment_id = (SELECT max(enrichment_id) FROM chunk_input)""",
        )
    }
    expected = set()
    for text in (TEXT, "# B\n\nwords"):
        for chunk in chunk_text(text, later.config.indexes["main"].chunker):
            shown = embedding_input(chunk.heading_path, text[chunk.start : chunk.end], EnrichmentConfig())
            expected.add((text_hash(text), chunk.ordinal, text_hash(shown)))
    assert fresh == expected


def test_batches_are_bounded_by_characters_and_by_texts(
    make_platform: Callable[..., Platform], docs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = make_platform()
    write(docs, {f"{number}.md": f"# Number {number}\n\n{'word ' * 20}" for number in range(7)})
    refresh(platform)
    sizes: list[int] = []
    monkeypatch.setattr(chunking, "BATCH_TEXTS", 3)
    chunk_source(platform, "docs", gate=lambda batch: sizes.append(len(batch.texts)) or True)
    assert sizes == [3, 3, 1]
    assert next(chunking._batches([(b"a", 3_000_000), (b"b", 2_000_000), (b"c", 1)])) == [b"a", b"b"]


def test_chunks_that_do_not_reproduce_their_text_are_not_written(
    make_platform: Callable[..., Platform], docs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lossy(text: str, config: ChunkerConfig) -> list[Chunk]:
        return chunk_text(text, config)[:-1]

    platform = make_platform(**{"indexes/main.yaml": _index("main")})
    write(docs, {"a.md": TEXT})
    refresh(platform)
    with monkeypatch.context() as patch:
        patch.setattr(chunking, "chunk_texts", _each(lossy))
        work = chunk_source(platform, "docs")
    assert (work.refused, work.missing) == (True, 1)
    assert _rows(platform, "SELECT count(*) FROM chunk_set") == [(0,)]
    assert chunk_source(platform, "docs").missing == 0


def test_parents_are_stored_and_can_be_read_by_one_join(make_platform: Callable[..., Platform], docs: Path) -> None:
    nested = {
        "kind": "parent_child",
        "parent": {"kind": "layout", "size": 40},
        "child": {"kind": "sentence", "size": 16},
    }
    index = {"name": "main", "embedder": "lexical", "chunker": nested}
    platform = make_platform(**{"indexes/main.yaml": index, "indexes/flat.yaml": _index("flat")})
    write(docs, {"a.md": TEXT * 4})
    refresh(platform)
    work = chunk_source(platform, "docs")
    assert (work.refused, work.missing) == (False, 0)
    rows = _rows(
        platform,
        """SELECT substr(t.text, c.start_char + 1, c.end_char - c.start_char),
                  substr(t.text, c.parent_start + 1, c.parent_end - c.parent_start)
           FROM chunk c JOIN document_text t USING (text_hash) JOIN chunker USING (chunker_id)
           WHERE chunker.config ->> 'kind' = 'parent_child' ORDER BY c.ordinal""",
    )
    assert len({parent for _, parent in rows}) > 1
    assert all(shown in parent and count_tokens(parent) <= 40 for shown, parent in rows)
    others = """SELECT DISTINCT parent_start, parent_end FROM chunk JOIN chunker USING (chunker_id)
                WHERE chunker.config ->> 'kind' = 'markdown'"""
    assert _rows(platform, others) == [(None, None)]


@pytest.mark.parametrize("parent", ["(0, NULL)", "(NULL, 9)", "(1, 9)", "(0, 4)"])
def test_the_database_refuses_a_parent_that_does_not_hold_its_chunk(
    make_platform: Callable[..., Platform], docs: Path, parent: str
) -> None:
    platform = make_platform()
    write(docs, {"a.md": "# Bike"})
    refresh(platform)
    chunk_source(platform, "docs")
    with platform.database.connect() as connection, pytest.raises(psycopg.errors.CheckViolation):
        connection.execute(f"UPDATE chunk SET (parent_start, parent_end) = {parent}")  # type: ignore[arg-type]


def test_semantic_chunks_are_made_with_the_models_of_the_platform(
    make_platform: Callable[..., Platform], docs: Path
) -> None:
    index = {"name": "main", "embedder": "lexical", "chunker": {"kind": "semantic", "size": 40, "minimum": 8}}
    platform = make_platform(**{"indexes/main.yaml": index})
    write(
        docs,
        {f"{number}.md": f"# Bike {number}\n\n" + "A bike has two wheels. It has brakes. " * 5 for number in range(3)},
    )
    refresh(platform)
    work = chunk_source(platform, "docs")
    assert (work.refused, work.missing) == (False, 0)
    assert work.windows > 30
    assert work.windows_usage.requests == 1  # the texts share a batch
    again = chunk_source(platform, "docs")
    assert (again.windows, again.texts_chunked, again.missing) == (0, 0, 0)


def test_a_source_that_no_index_covers_needs_no_chunks(make_platform: Callable[..., Platform], docs: Path) -> None:
    two = {"sources": [{"name": "docs", "path": str(docs)}, {"name": "other", "path": str(docs)}]}
    platform = make_platform(**{"sources.yaml": two, "indexes/main.yaml": {**_index("main"), "sources": ["other"]}})
    write(docs, {"a.md": TEXT})
    refresh(platform)
    work = chunk_source(platform, "docs")
    assert (work.chunkers, work.chunks, work.missing) == ([], 0, 0)


def test_coverage_names_every_kind_of_damage() -> None:
    config = chunker_config(unit="characters", size=40)
    good = chunk_text(TEXT, config)
    assert coverage_problems(TEXT, good) == []
    damaged = {
        "are in no chunk": good[1:],
        "its hash is not that": [replace(good[0], hash=b"x" * 16), *good[1:]],
        "is not inside the text": [*good[:-1], replace(good[-1], end=len(TEXT) + 1)],
        "has ordinal": good[::-1],
    }
    for words, chunks in damaged.items():
        assert any(words in problem for problem in coverage_problems(TEXT, chunks)), words
    blank = replace(good[0], start=6, end=8, hash=text_hash("\n\n"))
    assert any(
        "white space only" in problem for problem in coverage_problems(TEXT, [good[0], replace(blank, ordinal=1)])
    )


def test_sizes_are_measured_in_the_unit_of_the_chunker() -> None:
    chunk = Chunk(0, 0, 30, text_hash("a" * 30), (), 2)
    assert size_problems("a" * 30, [chunk], chunker_config(unit="tokens", size=16)) == []
    assert len(size_problems("a" * 30, [chunk], chunker_config(unit="characters", size=16))) == 1


def test_fingerprints_cover_every_parameter_and_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    base = MarkdownChunker()
    seen = {chunker_fingerprint(base)}
    for change in ({"kind": "recursive"}, {"unit": "characters"}, {"size": 201}, {"overlap": 1}):
        seen.add(chunker_fingerprint(chunker_config(**change)))
    monkeypatch.setattr("resources.chunk_config.CHUNKER_CODE_VERSION", "next")
    seen.add(chunker_fingerprint(base))
    assert len(seen) == 6
    assert enrichment_fingerprint(EnrichmentConfig(context="none")) != enrichment_fingerprint(EnrichmentConfig())


def test_rows_of_chunker_and_enrichment_are_made_once(make_platform: Callable[..., Platform]) -> None:
    platform = make_platform()
    for _ in range(2):
        with platform.database.connect() as connection:
            assert chunker_id(connection, MarkdownChunker()) == 1
            assert enrichment_id(connection, EnrichmentConfig()) == 1


def test_data_version_moves_with_the_documents_and_the_recipes(make_platform: Callable[..., Platform]) -> None:
    one = list(make_platform(**{"indexes/main.yaml": _index("main")}).config.indexes.values())
    two = list(make_platform(**{"indexes/main.yaml": _index("main", size=41)}).config.indexes.values())
    three = list(make_platform(**{"indexes/main.yaml": _index("main", context="none")}).config.indexes.values())
    assert len({data_version("a", one), data_version("b", one), data_version("a", two), data_version("a", three)}) == 4


def test_input_is_the_chunk_under_its_headings() -> None:
    assert embedding_input(("A", "B"), "text", EnrichmentConfig()) == "A > B\n\ntext"
    assert embedding_input((), "text", EnrichmentConfig()) == "text"
    assert embedding_input(("A",), "text", EnrichmentConfig(context="none")) == "text"


def test_a_batch_that_cannot_be_written_ends_the_work_with_its_error(
    make_platform: Callable[..., Platform], docs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = make_platform(**{"indexes/main.yaml": _index("main")})
    write(docs, {f"{number}.md": f"# Page {number}\n\nText." for number in range(6)})
    refresh(platform)
    monkeypatch.setattr(chunking, "BATCH_TEXTS", 2)
    copy: Any = chunking._copy
    calls: list[str] = []

    def failing(connection: Any, table: str, *arguments: Any) -> None:
        calls.append(table)
        if calls.count("chunk_input") == 2:
            raise psycopg.OperationalError("the connection is lost")
        copy(connection, table, *arguments)

    monkeypatch.setattr(chunking, "_copy", failing)
    with pytest.raises(psycopg.OperationalError, match="the connection is lost"):
        chunk_source(platform, "docs")
    counts = "SELECT (SELECT count(*) FROM chunk_set), (SELECT count(DISTINCT text_hash) FROM chunk)"
    assert _rows(platform, counts) == [(2, 2)], "a batch is written as a whole or not at all"
    monkeypatch.setattr(chunking, "_copy", copy)
    assert (chunk_source(platform, "docs").texts_chunked, _rows(platform, counts)) == (4, [(6, 6)])


def test_a_refused_batch_leaves_the_one_before_it_written(
    make_platform: Callable[..., Platform], docs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = make_platform(**{"indexes/main.yaml": _index("main")})
    write(docs, {f"{number}.md": f"# Page {number}\n\nText." for number in range(6)})
    refresh(platform)
    monkeypatch.setattr(chunking, "BATCH_TEXTS", 2)
    answers = iter([True, False])
    work = chunk_source(platform, "docs", gate=lambda batch: next(answers))
    assert (work.refused, work.texts_chunked, work.missing) == (True, 2, 4)
    assert _rows(platform, "SELECT count(*) FROM chunk_set") == [(2,)]
