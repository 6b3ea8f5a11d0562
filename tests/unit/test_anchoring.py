"""Anchoring: a quote is found again after edits, at exact positions, and never somewhere else."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.evaluation.anchoring import find_edited, find_exact, find_normalised, fold


def found(text: str, anchor: object) -> str | None:
    return None if anchor is None else text[anchor.start : anchor.end]  # type: ignore[attr-defined]


def test_unique_quote_is_exact() -> None:
    text = "One. The battery lasts 80 km. Three."
    anchor = find_exact(text, "The battery lasts 80 km.")
    assert anchor is not None
    assert (anchor.how, found(text, anchor)) == ("exact", "The battery lasts 80 km.")


@pytest.mark.parametrize(("near", "start"), [(None, 0), (0, 0), (21, 20), (99, 40)])
def test_repeated_quote_takes_the_place_nearest_to_where_it_stood(near: int | None, start: int) -> None:
    text = "same words          same words          same words"
    anchor = find_exact(text, "same words", near)
    assert anchor is not None
    assert (anchor.start, anchor.how) == (start, "ambiguous")


@pytest.mark.parametrize(
    ("quote", "text", "expected"),
    [
        ("a b c", "x a\n  b\tc y", "a\n  b\tc"),
        ('say "yes" now', "Please say “yes” now.", "say “yes” now"),
        ("80-100 km", "It is 80–100 km far", "80–100 km"),
        ("press the button twice", "Then press the **button** _twice_.", "press the **button** _twice"),
        ("see the guide first", "Please see [the guide](a/b.md) first.", "see [the guide](a/b.md) first"),
        ("Weight 42 kg", "| Weight | 42 kg |", "Weight | 42 kg"),
        ("one step\ntwo steps", "1. one step\n2. two steps\n", "one step\n2. two steps"),
        ("café au lait", "Un cafe\u0301 au lait", "cafe\u0301 au lait"),
        ("soft hyphen", "A soft hy\u00adphen.", "soft hy\u00adphen"),
        ("`set_mode` on", "Use set_mode on.", "set_mode on"),
        ("*Compound types* group values", "x _Compound types_ group values", "_Compound types_ group values"),
    ],
)
def test_markup_and_whitespace_do_not_matter_and_positions_are_exact(quote: str, text: str, expected: str) -> None:
    assert find_exact(text, quote) is None
    anchor = find_normalised(text, quote)
    assert anchor is not None
    assert (anchor.how, found(text, anchor)) == ("normalised", expected)


def test_case_and_words_do_matter_to_normalised_search() -> None:
    assert find_normalised("The Battery lasts.", "the battery lasts") is None
    assert find_normalised("nothing here", "* *") is None


@pytest.mark.parametrize(
    ("quote", "text", "expected"),
    [
        (
            "The battery lasts about 80 km on flat ground.",
            "Intro. The battery lasts about 80 km on level ground. End.",
            "The battery lasts about 80 km on level ground.",
        ),
        (
            "After five wrong attempts the PIN entry is blocked.",
            "x. After five wrong attempts, the PIN entry is then blocked. y",
            "After five wrong attempts, the PIN entry is then blocked.",
        ),
        ("Charge it to forty percent for winter storage", "Please charge it to forty percent for winter storage", "charge it to forty percent for winter storage"),
        (
            "Replace the chain after 3000 km of riding at most.",
            "Intro. Renew the chain after 3000 km of riding at most. End.",
            "Renew the chain after 3000 km of riding at most.",
        ),
    ],
)  # fmt: skip
def test_small_edit_is_followed(quote: str, text: str, expected: str) -> None:
    anchor = find_edited(text, quote)
    assert anchor is not None
    assert (anchor.how, found(text, anchor)) == ("re-anchored", expected)
    assert 0.85 <= anchor.similarity < 1


def test_rewritten_or_missing_passage_is_not_found() -> None:
    quote = "The battery lasts about 80 km on flat ground."
    assert find_edited("Range depends on wind, load and how you ride; expect less in winter.", quote) is None
    assert find_edited("The battery is heavy. It lasts. About 80 people live on flat ground.", quote) is None
    assert find_edited("", quote) is None
    assert find_edited("!!!", "???") is None


def test_of_equally_similar_passages_the_nearest_is_taken() -> None:
    passage = "The pedal sensor is checked every 500 kilometres."
    text = passage + " filler" * 200 + " " + passage
    quote = "The pedal sensor is tested every 500 kilometres."
    near = find_edited(text, quote, len(text))
    assert near is not None
    assert near.start == text.rindex(passage)
    first = find_edited(text, quote)
    assert first is not None
    assert first.start == 0


def test_long_document_with_common_words_is_searched_to_its_end() -> None:
    filler = "The rider of the bike and the owner of the bike read the manual of the bike. " * 2000
    passage = "The belt of the bike is renewed after 20 000 km."
    anchor = find_edited(filler + passage + filler, "The belt of the bike gets renewed after 20 000 km.")
    assert anchor is not None
    assert anchor.start == len(filler)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab *_|\n“”–-\u200b[](x).é\u0301ﬁ", max_size=60), st.data())
def test_any_slice_of_a_text_is_found_by_normalised_search(text: str, data: st.DataObject) -> None:
    folded = fold(text)
    if not folded.text:
        return
    start = data.draw(st.integers(0, len(folded.text) - 1))
    end = data.draw(st.integers(start + 1, len(folded.text)))
    low, high = folded.span(start, end)
    assert 0 <= low < high <= len(text)
    quote = folded.text[start:end].strip()
    if quote and fold(quote).text == quote:
        anchor = find_normalised(text, quote)
        assert anchor is not None
        assert quote.strip() in fold(text).text
        assert 0 <= anchor.start < anchor.end <= len(text)
