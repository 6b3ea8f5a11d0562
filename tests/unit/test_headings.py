"""The heading scan: Markdown and reStructuredText, without being fooled by code."""

import time

import pytest

from assets.corpus.headings import Heading, paths_at, plain, scan


def _found(text: str) -> list[tuple[int, str]]:
    return [(heading.level, heading.text) for heading in scan(text).headings]


def test_atx_headings_have_level_text_and_position() -> None:
    text = "# One\n\ntext\n\n### Three ###\n#hashtag\n"
    assert scan(text).headings == (Heading(1, "One", 0), Heading(3, "Three", 13))


@pytest.mark.parametrize(("markup", "text"), [("C#", "C#"), ("A ##", "A"), ("##", ""), ("", "")])
def test_closing_sequence_needs_a_space_before_it(markup: str, text: str) -> None:
    assert _found(f"## {markup}") == ([(2, text)] if text else [])


@pytest.mark.parametrize(
    "block",
    [
        "```bash\n# comment\n```",
        "~~~\n# comment\n~~~",
        "````\n```\n# comment\n```\n````",
        "<!--\n# comment\n-->",
        "<pre>\n# comment\n</pre>",
    ],
)
def test_comments_in_code_are_no_headings(block: str) -> None:
    text = f"# A\n\n{block}\n\n## B\n"
    outline = scan(text)
    assert [heading.text for heading in outline.headings] == ["A", "B"]
    assert [text[position : position + 9] for position in outline.not_headings] == ["# comment"]


def test_unclosed_fence_reaches_to_the_end() -> None:
    assert _found("# A\n\n```\n# b\n\n# c\n") == [(1, "A")]


def test_inline_code_in_triple_backticks_opens_no_fence() -> None:
    assert _found("```x``` is code\n\n# A\n") == [(1, "A")]


def test_setext_headings_beside_atx_have_fixed_levels() -> None:
    assert _found("Sub\n---\n\nTop\n===\n\n### Deep\n") == [(2, "Sub"), (1, "Top"), (3, "Deep")]


def test_rst_levels_follow_the_order_of_styles() -> None:
    text = "=====\nTitle\n=====\n\nOne\n---\n\nDeep\n~~~~\n\nTwo\n---\n"
    assert _found(text) == [(1, "Title"), (2, "One"), (3, "Deep"), (2, "Two")]
    assert scan(text).headings[0].start == 0


@pytest.mark.parametrize(
    "text",
    [
        "a | b\n--- | ---\n1 | 2\n",
        "- item\n---\n",
        "first line\nsecond line\n---\n",
        "text\n\n---\n\ntext\n",
        "====  ====\na     b\n====  ====\n",
        "   indented\n===========\n",
    ],
)
def test_tables_rules_and_lists_are_no_headings(text: str) -> None:
    assert _found(text) == []


def test_markup_is_removed_from_titles() -> None:
    assert plain("Using `Box<T>` and ``a `b` c``") == "Using Box<T> and a `b` c"
    assert plain("**Bold** [link](x.md) {#anchor}") == "Bold link"
    assert plain(":pep:`8` \\*not emphasis\\*") == "8 *not emphasis*"


def test_paths_hold_the_enclosing_sections() -> None:
    headings = scan("# A\n## B\n#### C\n## D\n# E\n").headings
    assert [path for _, path in paths_at(headings)] == [("A",), ("A", "B"), ("A", "B", "C"), ("A", "D"), ("E",)]


def test_a_long_line_of_spaces_is_scanned_in_linear_time() -> None:
    assert _found("# a" + " " * 200_000 + "b") == [(1, "a")]


def test_what_stands_in_a_block_is_passed_over_up_to_the_line_that_closes_it() -> None:
    text = "```\n# a\nx ```  \n# One\n<!-- b\n# c\n# d --> e\n# Two\n<Script>\n# f\n#</SCRIPT>\n# Three\n~~~\n# g"
    outline = scan(text)
    assert [heading.text for heading in outline.headings] == ["One", "Two", "Three"]
    assert [text[start : start + 3] for start in outline.not_headings] == ["# a", "# c", "# d", "# f", "#</", "# g"]


@pytest.mark.parametrize(
    "line", ["`" * 200_000, "=" * 200_000 + "x", " " * 200_000 + "<!-", "```" + " " * 200_000 + "x"]
)
def test_time_grows_with_the_length_of_odd_lines(line: str) -> None:
    started = time.process_time()
    scan(f"# Title\n```\n{line}a\n```\n{line}\n\n{line} y\n")
    assert time.process_time() - started < 2
