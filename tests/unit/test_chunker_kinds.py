"""Every kind of chunker: the promises all of them keep, and what each one is for."""

import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from assets.chunks.chunkers import Chunk, ChunkTools, chunk_text, chunk_texts, length_in
from assets.chunks.problems import (
    coverage_problems,
    heading_problems,
    overlap_problems,
    parent_problems,
    size_problems,
)
from assets.chunks.tokens import TOKEN, Tokens, count_tokens
from assets.corpus.text import normalise
from resources.chunk_config import chunker_fingerprint
from resources.chunker_config import ChunkerConfig, chunker_config, without_models
from resources.errors import PermanentError
from resources.model_config import ModelsFile
from resources.models import Models
from tests.conftest import MODELS

KINDS: list[dict[str, Any]] = [
    {"kind": "fixed"},
    {"kind": "fixed", "overlap": 5},
    {"kind": "sentence"},
    {"kind": "sentence", "overlap_sentences": 2},
    {"kind": "recursive", "overlap": 4},
    {"kind": "markdown"},
    {"kind": "layout"},
    {"kind": "code"},
    {"kind": "code", "text": "code"},
    {"kind": "semantic", "minimum": 4},
]
CONFIGS = [
    chunker_config(**values, unit=unit, size=size)
    for values in KINDS
    for unit, size in (("tokens", 20), ("characters", 60))
]
CONFIGS += [
    chunker_config(kind="parent_child", parent={"kind": parent, "size": 60}, child={"kind": child, "size": 16, **more})
    for parent in ("layout", "markdown", "sentence")
    for child, more in (("sentence", {}), ("fixed", {"overlap": 4}), ("markdown", {}), ("semantic", {"minimum": 4}))
]
PIECES = [
    "word ", "longer words. ", "A sentence. ", "Dr. Who? ", "\n", "\n\n", "# Title\n\n", "### Sub\n", "Under\n=====\n\n", "- item\n",
    "  - inner\n", "1. first\n", "| a | b |\n|---|---|\n| 1 | 2 |\n| 3 | 4 |\n", "|x|\n", "```python\ndef f(x):\n    return x\n", "```\n",
    "# comment\n", "class A:\n    def b(self):\n        pass\n\n", "fn main() {\n}\n", "漢字かな交じり文。", "ภาษาไทยไม่มีช่องว่าง",
    "هذا نص عربي. ", "e\u0301\u0302", "👨‍👩‍👧", "x" * 40, "a_b-c/d", "\u00a0", "> quote\n", "+--+--+\n| a| b|\n+==+==+\n| 1| 2|\n+--+--+\n",
    '"""', "/* ", "*/ ", "def f():", "---\n", "***\n", "…", "; ", "{", "}",
]  # fmt: skip
texts = st.lists(st.sampled_from(PIECES), max_size=60).map("".join)


@pytest.fixture(scope="module")
def tools() -> ChunkTools:
    return _tools()


def _tools() -> ChunkTools:
    return ChunkTools(Models(ModelsFile.model_validate(MODELS)))


def _problems(text: str, chunks: list[Chunk], config: ChunkerConfig) -> list[str]:
    return [
        problem
        for measure in (coverage_problems, size_problems, overlap_problems, heading_problems, parent_problems)
        for problem in measure(text, chunks, config)
    ]


def _shown(text: str, **values: Any) -> list[str]:
    return [text[chunk.start : chunk.end] for chunk in chunk_text(text, chunker_config(**values), _tools())]


# --- what all kinds promise ---------------------------------------------------------------------------------


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@settings(max_examples=40, deadline=None)
@given(text=texts)
def test_any_text_is_covered_within_size_and_overlap(config: ChunkerConfig, text: str) -> None:
    for item in (text, normalise(text)):
        chunks = chunk_text(item, config, _TOOLS)
        assert _problems(item, chunks, config) == []
        assert bool(chunks) == bool(item.strip())
        assert [chunk.tokens for chunk in chunks] == [count_tokens(item[chunk.start : chunk.end]) for chunk in chunks]
        assert chunk_text(item, config, _TOOLS) == chunks


_TOOLS = _tools()


@settings(max_examples=300, deadline=None)
@given(text=st.text(max_size=80) | texts)
def test_positions_of_tokens_are_those_of_the_pattern(text: str) -> None:
    tokens = Tokens(text)
    assert list(zip(tokens.starts.tolist(), tokens.ends.tolist(), strict=True)) == [
        m.span() for m in TOKEN.finditer(text)
    ]
    assert count_tokens(tokens.shadow) == count_tokens(text) == len(tokens)
    assert len(tokens.shadow) == len(text)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_texts_together_are_cut_as_each_alone(config: ChunkerConfig, tools: ChunkTools) -> None:
    several = ["One. Two. Three. " * 20, "", "# A\n\nword", "No end " * 50]
    assert list(chunk_texts(several, config, tools)) == [chunk_text(text, config, tools) for text in several]


HARD = {
    "one word": "x" * 400_000,
    "no line ends": "word and more " * 30_000,
    "no spaces": "aB3/+" * 80_000,
    "headings": "".join(f"# h {number}\n" for number in range(20_000)),
    "sections": "".join(f"{'#' * (number % 6 + 1)} h\n\ntext {number}.\n\n" for number in range(15_000)),
    "nested lists": "".join(" " * (2 * (number % 300)) + "- item\n" for number in range(2_000)),
    "one table": "| a | b |\n|---|---|\n" + "| x y | 1.5 |\n" * 20_000,
    "one row": "| " + "cell value | " * 30_000,
    "chinese": "漢字かな交じり文" * 40_000,
    "thai": "ภาษาไทยไม่มีช่องว่าง" * 15_000,
    "arabic": "هذا نص عربي طويل جدا. " * 15_000,
    "accents": ("e" + "\u0301" * 400) * 700,
    "open fence": "```python\n" + "def f(x):\n    return x\n\n" * 12_000,
    "quotes": '"""\n' * 60_000,
    "pipes": "|" * 200_000,
    "underlines": "a\n---\n" * 30_000,
    "blank": "\n" * 300_000 + "x",
    "braces": "f(a(a(a({" * 30_000,
    "long signatures": ("a(" * 240 + "{\n") * 600,
    "dots": ". " * 150_000,
    "bidi": "‏‮אבג " * 60_000,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HARD)
def test_hard_texts_take_time_in_proportion_to_their_length(name: str) -> None:
    for values in ({"kind": "fixed", "overlap": 50}, {"kind": "sentence", "overlap_sentences": 2}, {"kind": "recursive", "overlap": 20},
                   {"kind": "markdown"}, {"kind": "layout"}, {"kind": "code"}, {"kind": "code", "text": "code"}):  # fmt: skip
        config = chunker_config(**values)
        started = time.process_time()
        chunks = chunk_text(HARD[name], config)
        seconds = time.process_time() - started
        assert _problems(HARD[name], chunks, config) == []
        assert seconds < 30, values  # quadratic work on these would take minutes or hours


@pytest.mark.slow
def test_real_documents_keep_all_promises(shared_data: Path, tools: ChunkTools) -> None:
    files = sorted((shared_data / "rust-book-history" / "base").rglob("*.md"))[::12]
    files += sorted((shared_data / "docx-book" / "gold").glob("*.md"))[::6]
    files += sorted((shared_data / "peps-history" / "base").rglob("*.rst"))[::120]
    for values in KINDS:
        config = chunker_config(**values, size=150)
        for path in files:
            text = normalise(path.read_text(encoding="utf-8"))
            assert _problems(text, chunk_text(text, config, tools), config) == [], (path.name, values)


# --- fixed --------------------------------------------------------------------------------------------------


def test_fixed_windows_have_the_size_and_the_overlap_exactly() -> None:
    text = " ".join(f"w{number}" for number in range(100))
    chunks = chunk_text(text, chunker_config(kind="fixed", size=20, overlap=5))
    assert {chunk.tokens for chunk in chunks[:-1]} == {20}
    for before, after in pairwise(chunks):
        assert count_tokens(text[after.start : before.end]) == 5


def test_fixed_windows_leave_letters_with_their_accents() -> None:
    text = "e\u0301" * 60  # no composed form would be used in a text that is not normalised
    assert all(not shown.startswith("\u0301") for shown in _shown(text, kind="fixed", size=17))


# --- sentence -----------------------------------------------------------------------------------------------


def test_sentences_stay_whole() -> None:
    text = "Dr. No came at 3.5 km/h. He left! " * 12
    assert all(shown.endswith(("h.", "!")) for shown in _shown(text, kind="sentence", size=30))


def test_overlap_repeats_whole_sentences() -> None:
    text = " ".join(f"Sentence number {number} stands here." for number in range(20))
    chunks = chunk_text(text, chunker_config(kind="sentence", size=30, overlap_sentences=1))
    for before, after in pairwise(chunks):
        shared = text[after.start : before.end]
        assert shared.startswith("Sentence")
        assert shared.count(".") == 1


def test_a_sentence_too_large_is_cut_at_its_clauses() -> None:
    text = (
        "First comes the red house, then the garden behind it with its trees, and then the blue pond; the end is near."
    )
    assert [shown[-1] for shown in _shown(text, kind="sentence", size=16)] == [",", "."]


# --- layout -------------------------------------------------------------------------------------------------

TABLE = "| Country | Capital |\n|---|---|\n" + "".join(f"| Land {n} | Town {n} |\n" for n in range(20))


def test_tables_are_cut_between_rows_and_their_header_goes_along() -> None:
    text = f"# Atlas\n\nSome words about towns.\n\n{TABLE}\nWords after the table."
    chunks = chunk_text(text, chunker_config(kind="layout", size=60))
    inside = [chunk for chunk in chunks if text[chunk.start : chunk.end].startswith("| Land")]
    assert len(inside) >= 2
    for chunk in inside:
        assert chunk.heading_path == ("Atlas", "Country | Capital")
        assert all(line.count("|") == 3 for line in text[chunk.start : chunk.end].splitlines() if line.startswith("|"))
    first = next(chunk for chunk in chunks if "Capital" in text[chunk.start : chunk.end])
    assert "| Land 0" in text[first.start : first.end]  # a header alone would say nothing
    assert first.heading_path == ("Atlas",)


def test_blocks_that_fit_stay_whole() -> None:
    items = "".join(f"- item number {number} of the list\n" for number in range(5))
    code = "```\n" + "let x = 1;\n" * 5 + "```\n"
    text = f"{'Words before. ' * 12}\n\n{items}\n{'Words between. ' * 12}\n\n{code}\n{'Words after. ' * 12}"
    shown = _shown(text, kind="layout", size=45)
    assert items.strip() in shown
    assert code.strip() in shown


def test_a_row_larger_than_a_chunk_is_cut_at_its_cells() -> None:
    row = "| " + " | ".join(f"cell number {number} with words" for number in range(12)) + " |"
    shown = _shown(f"| a |\n|---|\n| 1 |\n{row}\n", kind="layout", size=24)
    assert len(shown) > 2
    assert all(part.endswith("|") for part in shown)


def test_sections_are_preferred_by_level() -> None:
    text = "".join(f"# Part {n}\n\n{'Words here. ' * 4}\n\n## Sub {n}\n\n{'More words. ' * 4}\n\n" for n in range(4))
    assert [shown.split("\n")[0] for shown in _shown(text, kind="layout", size=40)] == [f"# Part {n}" for n in range(4)]


def test_a_heading_is_never_left_alone_at_the_end() -> None:
    text = "".join(f"## Head {n}\n\n{'Many words stand in this paragraph. ' * 9}\n\n" for n in range(4))
    assert all("\n" in shown or not shown.startswith("#") for shown in _shown(text, kind="layout", size=50))


# --- code ---------------------------------------------------------------------------------------------------

MODULE = "import os\n\n" + "".join(
    f"def function_{n}(value):\n    if value:\n        return os.path.join(value, 'x')\n    return None\n\n\n"
    for n in range(8)
)


def test_code_is_cut_between_functions_and_knows_their_names() -> None:
    chunks = chunk_text(MODULE, chunker_config(kind="code", size=70))
    assert all(MODULE[chunk.start : chunk.end].startswith(("import", "def ")) for chunk in chunks)
    assert chunks[-1].heading_path[0].startswith("def function_")


def test_a_chunk_inside_a_class_names_class_and_method() -> None:
    body = "".join(f"        self.value_{n} = compute(value, {n})\n" for n in range(30))
    text = f"class Store:\n    def fill(self, value):\n{body}\n    def empty(self):\n        pass\n"
    chunks = chunk_text(text, chunker_config(kind="code", size=60))
    assert chunks[1].heading_path == ("class Store", "def fill")
    assert chunks[-1].heading_path[:1] == ("class Store",)


def test_code_in_prose_is_cut_between_functions_too() -> None:
    text = f"# Use\n\nSome words.\n\n```python\n{MODULE}```\n\nMore words."
    starts = [shown.split("\n")[0] for shown in _shown(text, kind="code", size=70)]
    assert all(line.startswith(("# Use", "```", "def ", "More")) for line in starts), starts


def test_comments_of_code_are_no_sections() -> None:
    text = "# license\n# more\nimport os\n\n# helper\ndef f(x):\n    return x\n\ny = f(1)\nprint(y)\n"
    assert chunk_text(text, chunker_config(kind="code", size=20))[0].heading_path == ()
    assert chunk_text(text, chunker_config(kind="code", size=20, text="prose"))[0].heading_path == ("license",)


# --- semantic -----------------------------------------------------------------------------------------------

TOPICS = (
    "The violin is played with a bow. A violin has four strings. The bow of the violin is strung with hair. "
    "Players tune the strings of the violin. ",
    "The glacier moves down the valley. Ice of the glacier melts in summer. The valley is filled with ice. "
    "Snow feeds the glacier above the valley. ",
    "A compiler translates source code. The parser of the compiler reads code. Errors of source code stop the compiler. "
    "The compiler writes machine code. ",
)


def test_semantic_cuts_between_topics(tools: ChunkTools) -> None:
    text = "".join(TOPICS).strip()
    shown = [
        text[chunk.start : chunk.end]
        for chunk in chunk_text(text, chunker_config(kind="semantic", size=60, minimum=12), tools)
    ]
    assert shown == [topic.strip() for topic in TOPICS]


def test_semantic_embeds_each_window_once_for_all_texts_together(monkeypatch: pytest.MonkeyPatch) -> None:
    tools = _tools()
    calls: list[int] = []
    embed = tools.embed
    monkeypatch.setattr(tools, "embed", lambda name, texts: calls.append(len(texts)) or embed(name, texts))
    config = chunker_config(kind="semantic", window=3)
    several = [f"One {n}. Two {n}. Three {n}. Four {n}. Five {n}." for n in range(30)]
    list(chunk_texts(several, config, tools))
    # a window beginning at each of 5 sentences, and those that end before the second and the third
    assert calls == [30 * 7]
    assert tools.windows == 210
    assert tools.usage.requests > 0


def test_semantic_windows_are_no_larger_than_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    tools = _tools()
    seen: list[str] = []
    embed = tools.embed
    monkeypatch.setattr(tools, "embed", lambda name, texts: seen.extend(texts) or embed(name, texts))
    text = " ".join(["word " * 30 + "end."] * 6) + " " + "x" * 3000
    chunk_text(text, chunker_config(kind="semantic", size=40, minimum=4, window=5), tools)
    assert max(map(count_tokens, seen)) <= 40


def test_semantic_without_models_says_so() -> None:
    with pytest.raises(ValueError, match="needs the models"):
        chunk_text("One. Two. Three.", chunker_config(kind="semantic"))


# --- parent_child -------------------------------------------------------------------------------------------


def test_children_lie_in_parents_that_tile_the_text(tools: ChunkTools) -> None:
    text = f"# A\n\n{'Words of a sentence. ' * 30}\n\n## B\n\n{TABLE}"
    config = chunker_config(
        kind="parent_child", parent={"kind": "layout", "size": 100}, child={"kind": "sentence", "size": 25}
    )
    chunks = chunk_text(text, config, tools)
    parents = sorted({chunk.parent for chunk in chunks if chunk.parent})
    assert all(chunk.parent and chunk.parent[0] <= chunk.start < chunk.end <= chunk.parent[1] for chunk in chunks)
    assert [before[1] <= after[0] for before, after in pairwise(parents)] == [True] * (len(parents) - 1)
    assert "".join("".join(text[start:end].split()) for start, end in parents) == "".join(text.split())
    assert len(chunks) > len(parents) > 2
    late = [chunk for chunk in chunks if text[chunk.start : chunk.end].startswith("| Land 1")]
    assert late
    assert all(chunk.heading_path == ("A", "B", "Country | Capital") for chunk in late)


# --- configuration and fingerprints --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"kind": "fixed", "size": 20, "overlap": 20}, "must be smaller than size"),
        ({"kind": "sentence", "overlap": 1}, "Extra inputs"),
        ({"kind": "semantic", "size": 50, "minimum": 40}, "at most half"),
        ({"kind": "parent_child", "child": {"size": 800}}, "must be smaller than parent.size"),
        ({"kind": "parent_child", "parent": {"kind": "recursive", "size": 900, "overlap": 5}}, "must not overlap"),
        ({"kind": "parent_child", "child": {"kind": "custom", "function": "x", "partial": True}}, "partial"),
        ({"kind": "parent_child", "parent": {"kind": "parent_child"}}, "expected tags"),
        ({"kind": "magic"}, "expected tags"),
        ({"kind": "custom"}, "function"),
    ],
)
def test_settings_that_do_not_fit_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        chunker_config(**values)


def test_every_setting_is_in_the_fingerprint() -> None:
    models = Models(ModelsFile.model_validate(MODELS))
    small = {**MODELS, "embedding": [{**MODELS["embedding"][0], "dimensions": 64}]}
    others = Models(ModelsFile.model_validate(small))
    changes: list[dict[str, Any]] = [
        {"kind": "fixed"}, {"kind": "fixed", "overlap": 1}, {"kind": "sentence"}, {"kind": "sentence", "overlap_sentences": 1},
        {"kind": "layout"}, {"kind": "layout", "size": 100}, {"kind": "layout", "unit": "characters"}, {"kind": "code"},
        {"kind": "code", "text": "code"}, {"kind": "semantic"}, {"kind": "semantic", "window": 2}, {"kind": "semantic", "minimum": 9},
        {"kind": "semantic", "percentile": 50}, {"kind": "parent_child"}, {"kind": "parent_child", "child": {"size": 50}},
        {"kind": "parent_child", "parent": {"kind": "layout", "size": 700}}, {"kind": "parent_child", "child": {"kind": "semantic"}},
    ]  # fmt: skip
    seen = [chunker_fingerprint(chunker_config(**values), models) for values in changes]
    assert len(set(seen)) == len(seen)
    for kind in ("semantic", "parent_child"):
        config = chunker_config(kind=kind, **({"child": {"kind": "semantic"}} if kind == "parent_child" else {}))
        assert chunker_fingerprint(config, models) != chunker_fingerprint(config, others)


def test_the_name_of_an_embedding_model_decides_nothing() -> None:
    twins = {**MODELS, "embedding": [*MODELS["embedding"], {**MODELS["embedding"][0], "name": "twin"}]}
    models = Models(ModelsFile.model_validate(twins))
    one, two = chunker_config(kind="semantic"), chunker_config(kind="semantic", embedder="twin")
    assert chunker_fingerprint(one, models) == chunker_fingerprint(two, models)
    with pytest.raises(PermanentError, match="nowhere"):
        chunker_fingerprint(chunker_config(kind="semantic", embedder="nowhere"), models)


def test_a_preview_asks_no_model() -> None:
    text = "".join(TOPICS) * 5
    for values in (
        {"kind": "semantic"},
        {"kind": "parent_child", "child": {"kind": "semantic", "size": 50, "minimum": 9}},
    ):
        config = chunker_config(**values)
        guessed = len(chunk_text(text, without_models(config)))
        assert 0.4 < guessed / len(chunk_text(text, config, _tools())) < 2.5


def test_lengths_are_in_the_unit_of_the_child() -> None:
    config = chunker_config(kind="parent_child", child={"kind": "sentence", "unit": "characters", "size": 100})
    assert length_in(config, "two words") == 9
