"""Where sentences begin, in many languages, and never because of an abbreviation."""

import time
from itertools import pairwise

import pytest

from assets.chunks.sentences import sentence_starts


def _sentences(text: str) -> list[str]:
    edges = [0, *sentence_starts(text, 0, len(text)), len(text)]
    return [text[start:end].strip() for start, end in pairwise(edges)]


@pytest.mark.parametrize(
    "sentences",
    [
        ["Dr. Smith went home.", 'He said: "Really?" and left.', "It cost 3.5 €.", "See Fig. 3 for more."],
        ["He said no.", "It was art.", "See No. 5 and Art. 3 of it.", "They lay in the sun.", "Then it rained."],
        ["J. R. R. Tolkien wrote it.", "Others read it!", "Did they?", "Yes."],
        ["It was built in 2019.", "The roof leaks, e.g. in spring.", "They sell nuts, bolts etc.", "Prices vary."],
        ["Wait... what?", "Nothing (really.)", "“Quoted.”", "After the quote."],
        ["Am 3. Oktober war es kalt.", "Das kam z.B. oft vor.", "Ende."],
        ["Elle habite au n° 5.", "M. Dupont est là.", "Vraiment ?", "Oui !"],
        ["¿Qué pasa?", "¡Nada!", "La Sra. López vino."],
        ["今天天气很好。", "我们去公园吧！", "「好。」", "他说。"],
        ["これはペンです。", "本当ですか？", "はい。"],
        ["هل هذا صحيح؟", "نعم.", "هذا صحيح."],
        ["यह वाक्य है।", "यह दूसरा है।"],
        ["Это было в 2019 г. в Москве.", "Потом всё изменилось."],
        ["Αυτό είναι.", "Κι αυτό."],
    ],
    ids=lambda sentences: sentences[0][:20],
)
def test_sentences_of_many_languages(sentences: list[str]) -> None:
    separator = "" if any(char in sentences[0] for char in "。！") else " "
    assert _sentences(separator.join(sentences)) == sentences


def test_lines_that_are_sentences_of_their_own() -> None:
    text = "An introduction\n- one item\n- another item\n\n1. First. Of two.\n2. Second\n\n> quoted\n\nwrapped\nline"
    assert _sentences(text) == [
        "An introduction", "- one item", "- another item", "1. First.", "Of two.", "2. Second", "> quoted",
        "wrapped\nline",
    ]  # fmt: skip


def test_a_heading_stays_with_the_sentence_below() -> None:
    assert _sentences("# Title\n\nFirst words. More.") == ["# Title\n\nFirst words.", "More."]


def test_only_the_given_range_is_read() -> None:
    text = "One. Two. Three. Four."
    assert sentence_starts(text, 5, 16) == [10]


@pytest.mark.parametrize("unit", [".", ". ", "\n", " \n", '."', "。", "a\n ", "A. ", '"', "?!", "(.) "])
def test_time_grows_with_the_length_only(unit: str) -> None:
    text = unit * (400_000 // len(unit))
    sentence_starts(text[:1000], 0, 1000)
    started = time.process_time()
    sentence_starts(text, 0, len(text))
    assert time.process_time() - started < 10  # quadratic work would take hours
