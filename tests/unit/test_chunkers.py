"""Cutting one text: exact ranges, nothing lost, sizes kept, headings right."""

import random
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.chunks.chunkers import chunk_text, count_tokens, length_in
from assets.chunks.problems import coverage_problems, size_problems
from assets.chunks.tokens import TOKEN
from assets.corpus.text import normalise
from resources.chunker_config import ChunkerConfig, chunker_config
from resources.fingerprint import text_hash

CONFIGS = [
    chunker_config(kind=kind, unit=unit, size=size, overlap=overlap)
    for kind in ("markdown", "recursive")
    for unit in ("characters", "tokens")
    for size, overlap in ((40, 0), (40, 12), (200, 30))
]
MARKDOWN = """# Title

Intro with some words.

## Install

```bash
# not a heading
make install
# neither is this
```

After the code block.

### Linux

- one item
- another item

## Use

Words at the end.
"""


def _config(**values: object) -> ChunkerConfig:
    return chunker_config(**{"kind": "markdown", "unit": "characters", "size": 60, **values})


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_chunks_cover_every_character_within_their_size(config: ChunkerConfig) -> None:
    text = normalise(MARKDOWN * 5)
    chunks = chunk_text(text, config)
    assert coverage_problems(text, chunks) == []
    assert size_problems(text, chunks, config) == []
    assert all(chunk.hash == text_hash(text[chunk.start : chunk.end]) for chunk in chunks)
    assert [chunk.start for chunk in chunks] == sorted({chunk.start for chunk in chunks})


@settings(max_examples=150, deadline=None)
@given(
    text=st.text(alphabet=st.sampled_from(list("ab #`~-=\n\t.é漢_")), max_size=400),
    config=st.sampled_from([_config(size=16), _config(unit="tokens", size=16, overlap=5), _config(kind="recursive")]),
)
def test_any_text_is_covered(text: str, config: ChunkerConfig) -> None:
    text = normalise(text)
    chunks = chunk_text(text, config)
    assert coverage_problems(text, chunks) == []
    assert size_problems(text, chunks, config) == []
    assert bool(chunks) == bool(text.strip())


def test_chunks_are_shown_without_white_space_at_their_ends() -> None:
    text = normalise(MARKDOWN)
    for chunk in chunk_text(text, _config()):
        shown = text[chunk.start : chunk.end]
        assert shown == shown.strip() != ""


def test_chunks_know_the_sections_they_begin_in() -> None:
    text = normalise(MARKDOWN)
    paths = {text[c.start : c.end].split("\n")[0]: c.heading_path for c in chunk_text(text, _config(size=30))}
    assert paths["# Title"] == ("Title",)
    assert paths["## Install"] == ("Title", "Install")
    assert paths["make install"] == ("Title", "Install")
    assert paths["- one item"] == ("Title", "Install", "Linux")
    assert paths["## Use"] == ("Title", "Use")


def test_text_before_the_first_heading_has_no_path() -> None:
    assert chunk_text("Preface of words.\n\n# A", _config(size=18))[0].heading_path == ()


def test_markdown_chunks_begin_at_headings_but_not_at_comments_in_code() -> None:
    code = "\n".join(f"line{number}\n# comment {number}" for number in range(4))
    text = f"# A\n\nwords and words\n\n## B\n\n```\n{code}\n```"
    starts = [text[chunk.start :].split("\n")[0] for chunk in chunk_text(text, _config(size=90))]
    assert starts == ["# A", "## B"]


def test_overlap_repeats_whole_words_of_the_chunk_before() -> None:
    text = " ".join(f"word{number:02}" for number in range(40))
    plain, overlapping = _config(size=50, kind="recursive"), _config(size=50, overlap=15, kind="recursive")
    chunks = chunk_text(text, overlapping)
    assert len(chunks) >= len(chunk_text(text, plain))
    for before, after in pairwise(chunks):
        shared = text[after.start : before.end]
        assert 0 < len(shared) <= 15
        assert shared.startswith("word")


def test_overlap_takes_the_path_of_what_is_new() -> None:
    text = "# A\n\nsome words here\n\n# B\n\nother words there"
    chunks = chunk_text(text, _config(size=40, overlap=12))
    assert text[chunks[1].start : chunks[1].end].startswith("words here")
    assert chunks[1].heading_path == ("B",)


@pytest.mark.parametrize("text", ["", "\n\n", "   "])
def test_text_without_words_has_no_chunks(text: str) -> None:
    assert chunk_text(text, _config()) == []


def test_headings_alone_make_a_chunk() -> None:
    assert len(chunk_text("# A\n\n## B", _config())) == 1


def test_unclosed_fence_does_not_make_a_giant_chunk() -> None:
    text = "# A\n\n```\n" + "code line\n" * 100
    assert all(chunk.end - chunk.start <= 60 for chunk in chunk_text(normalise(text), _config()))


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("two words", 2),
        ("it's 3.5 €", 7),
        ("snake_case", 3),
        ("x" * 33, 3),
        ("größe", 1),
        ("漢字かな", 4),
        ("a漢b", 3),
    ],
)
def test_tokens_are_words_marks_and_characters_of_unspaced_scripts(text: str, tokens: int) -> None:
    assert count_tokens(text) == tokens


def test_fast_token_count_equals_the_pattern() -> None:
    choose = random.Random(3)
    alphabet = [chr(code) for code in range(128)] + list("éß漢_ ab") + ["w" * 17]
    for _ in range(3000):
        text = "".join(choose.choice(alphabet) for _ in range(choose.randint(0, 14)))
        assert count_tokens(text) == len(TOKEN.findall(text)), repr(text)


def test_same_text_gives_the_same_chunks() -> None:
    assert chunk_text(MARKDOWN, _config()) == chunk_text(MARKDOWN, _config())


@pytest.mark.slow
def test_real_documents_are_covered_exactly(shared_data: Path) -> None:
    files = sorted((shared_data / "rust-book-history" / "base").rglob("*.md"))[::4]
    files += sorted((shared_data / "peps-history" / "base").rglob("*.rst"))[::40]
    for config in (CONFIGS[0], CONFIGS[5], CONFIGS[10]):
        for path in files:
            text = normalise(path.read_text(encoding="utf-8"))
            chunks = chunk_text(text, config)
            assert coverage_problems(text, chunks) == [], path.name
            assert all(length_in(config, text[c.start : c.end]) <= config.size for c in chunks), path.name
