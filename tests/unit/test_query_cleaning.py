"""Cleaning: words stay, markup and typography go, and a question is cleaned as the chunks were."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.chunks.chunkers import chunk_text
from resources.index_config import EnrichmentConfig, EnrichmentStep, MarkdownChunker
from resources.platform import Platform
from resources.query_cleaning import clean_query, clean_text
from tests.enrichment_support import index
from tests.index_world import order, refresh, searcher


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("The ﬁrst ﬂoor", "The first floor"),
        ("Ｆｕｌｌ width", "Full width"),
        ("10 m² and 10⁻³ and ½ stay", "10 m² and 10⁻³ and ½ stay"),
        ("“quoted” and ‘so’", "\"quoted\" and 'so'"),
        ("soft\u00adhyphen, zero\u200bwidth, \ufeffmark", "softhyphen, zerowidth, mark"),
        ("a fam-\nily of words", "a family of words"),
        ("a well-\nknown fact, as well-known as any", "a well-known fact, as well-known as any"),
        ("Spandau-\nBerlin", "Spandau-\nBerlin"),
        ("pages 3-\n7", "pages 3-\n7"),
        ("# Title #\n\n## C#", "Title\n\nC#"),
        ("- one\n* two\n• three\n> quoted\n- [x] done", "one\ntwo\nthree\nquoted\ndone"),
        ("**bold**, *em*, ***both***, ~~old~~, _em_, __bold__", "bold, em, both, old, em, bold"),
        ("snake_case and 2 * 3 * 4 and **", "snake_case and 2 * 3 * 4 and **"),
        ("`code` and ``a ` b``", "code and a ` b"),
        ('[text](https://e.org/a_(b) "title") and [ref][1]', "text and ref"),
        ("![a picture](p.png) [![badge](b.svg)](https://e.org)", "a picture badge"),
        ("See[^1].\n\n[^1]: note\n\n[1]: https://e.org", "See .\n\nnote"),
        ("<https://e.org/x_y_z> and <b>bold</b><br/>", "https://e.org/x_y_z and bold"),
        ("a <!-- hidden --> b", "a b"),
        ("5 < 6 and 7 > 4", "5 < 6 and 7 > 4"),
        ("fish &amp; chips &lt;fresh&gt;", "fish & chips <fresh>"),
        ("| A | B |\n| --- | :-: |\n| 1 | 2 |", "A, B\n1, 2"),
        ("```python\nx = a | b\n```\n\n---\n\nend", "x = a | b\n\nend"),
        ("1\\. not a list, \\*not em\\*", "1. not a list, *not em*"),
        ("many     blanks\t\tand\n\n\n\n\nlines", "many blanks and\n\nlines"),
        ("---", "---"),
        ("", ""),
    ],
)
def test_what_is_cleaned_and_what_stays(text: str, cleaned: str) -> None:
    assert clean_text(text) == cleaned


def test_case_and_words_stay_on_real_documents(shared_data: Path) -> None:
    text = (shared_data / "chunking-eval" / "corpora" / "wikitexts.md").read_text(encoding="utf-8")[:100_000]
    for chunk in chunk_text(text, MarkdownChunker(size=200)):
        raw = text[chunk.start : chunk.end]
        if not set("#*_[]|<>&`~\\-") & set(raw):
            assert clean_text(raw).split() == clean_text(raw.replace("’", "'")).split()
            assert len(clean_text(raw).split()) == len(raw.split())


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab #*_[]()|<>&`~\\-!\n\"'ﬁ“", max_size=80))
def test_any_text_is_cleaned_to_something_and_never_fails(text: str) -> None:
    assert clean_text(text) or not text.strip() or clean_text(text) == text


@pytest.mark.parametrize("unit", ["[", "*a", "`", "<a ", "_", " ", "|", "-", "(", "[a](", "<!--", "\\", "- ", "a-\n"])
def test_cleaning_stays_fast_on_hostile_text(unit: str) -> None:
    started = time.perf_counter()
    clean_text(unit * 20_000 + "x")
    assert time.perf_counter() - started < 2


def test_a_question_is_cleaned_only_where_the_chunks_were() -> None:
    question = "What is the **ﬁrst** gear?"
    both = EnrichmentConfig(steps=(EnrichmentStep(kind="clean"),))
    searched = EnrichmentConfig(steps=(EnrichmentStep(kind="clean", use=("search",)),))
    assert clean_query(question, EnrichmentConfig()) == question
    assert clean_query(question, both) == clean_query(question, both, "search") == "What is the first gear?"
    assert clean_query(question, searched) == question
    assert clean_query(question, searched, "search") == "What is the first gear?"


def test_each_snapshot_is_asked_with_the_cleaning_it_was_made_with(make_platform: Callable[..., Platform]) -> None:
    texts = {"a.md": "The \ufb01rst gear is for hills.", "b.md": "The last gear is for speed."}
    plain = make_platform(**{"indexes/main.yaml": index("main")})
    refresh(plain, "docs", texts)
    cleaned = make_platform(**{"indexes/main.yaml": index("main", [{"kind": "clean"}])})
    refresh(cleaned, "docs", texts)
    search = searcher(cleaned).search

    def paths(question: str, snapshot: int) -> list[str]:
        return [hit.path for hit in search("main", question, mode="full_text", snapshot=snapshot).hits]

    assert paths("ﬁrst", 2) == paths("first", 2) == ["a.md"]
    assert paths("first", 1) == []  # that snapshot knows the word with its ligature only
    assert paths("ﬁrst", 1) == ["a.md"]
    assert order(search("main", "ﬁrst gear", mode="vector")) == order(search("main", "first gear", mode="vector"))
    assert search("main", "first", mode="full_text").hits[0].text == texts["a.md"]
