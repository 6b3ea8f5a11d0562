"""Context: what fits is shown, what is shown is recorded, and numbers stay those of the hits."""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from resources.context import (
    GAP,
    assemble,
    choose_examples,
    example_tokens,
    passage_tokens,
    sentences,
)
from resources.grid_config import ContextConfig
from resources.offline_text import count_tokens
from resources.prompt_config import FewShot, PromptConfig
from resources.prompt_store import render
from resources.vector_index import SearchHit

BELT = "A belt lasts about 30 000 km. Replace it when it frays. Never use oil on it."
CHAIN = "Oil the chain every 200 km.\nClean it first.\n\nA dry chain squeaks; a wet one collects dust."
GEAR = "The gearbox weighs 2.5 kg. A belt drives it."
TEMPLATE = PromptConfig(
    name="p",
    system="Answer.",
    user="{% for e in examples %}{{ e.question }}\n{{ e.context }}\n{{ e.answer }}\n{% endfor %}"
    "{% for p in passages %}[{{ p.number }}] {{ p.document }} {{ p.title }} {{ p.headings | join(' ') }}\n{{ p.text }}\n"
    "{% endfor %}Question: {{ question }}",
)


def hits(*texts: str, **changes: Any) -> list[SearchHit]:
    return [
        SearchHit(
            rank=rank, score=1 / rank, document_id=10 * rank, version_id=100 * rank, source="docs", path=f"{rank}.md",
            title="T", ordinal=0, start=1000 * rank, end=1000 * rank + len(text), text=text, heading_path=("H",),
            vector_rank=rank, text_rank=None, **changes,
        )
        for rank, text in enumerate(texts, 1)
    ]  # fmt: skip


def context(**settings: Any) -> ContextConfig:
    return ContextConfig.model_validate({"name": "c", **settings})


def shown_text(found: Sequence[SearchHit], supplied: Any) -> list[str]:
    """What the record says was shown, read from the hits."""
    return [found[one.number - 1].text[one.start - 1000 * one.number : one.end - 1000 * one.number] for one in supplied]


def test_by_default_every_passage_is_shown_whole_and_best_first() -> None:
    found = hits(BELT, CHAIN, GEAR)
    result = assemble(found, ContextConfig(), question="How long does a belt last?")
    assert [passage.number for passage in result.passages] == [1, 2, 3]
    assert [passage.text for passage in result.passages] == [BELT, CHAIN, GEAR] == shown_text(found, result.supplied)
    assert result.tokens == sum(map(passage_tokens, result.passages))
    assert result.to_json()["passages"] == [
        [1, 1000, 1000 + len(BELT)],
        [2, 2000, 2000 + len(CHAIN)],
        [3, 3000, 3000 + len(GEAR)],
    ]


def test_a_widened_hit_is_recorded_by_what_was_read_of_it() -> None:
    (hit,) = hits(BELT)
    wide = replace(hit, start=1010, end=1020, read_start=1000, read_end=1000 + len(BELT))
    result = assemble([wide], ContextConfig(), question="?")
    assert [(one.start, one.end) for one in result.supplied] == [(1000, 1000 + len(BELT))]


@pytest.mark.parametrize(
    ("order", "numbers"),
    [("best_first", [1, 2, 3, 4, 5]), ("best_last", [5, 4, 3, 2, 1]), ("edges", [1, 3, 5, 4, 2])],
)
def test_order_moves_passages_but_not_their_numbers(order: str, numbers: list[int]) -> None:
    found = hits("one.", "two.", "three.", "four.", "five.")
    result = assemble(found, context(order=order), question="?")
    assert [passage.number for passage in result.passages] == numbers
    assert [passage.text for passage in result.passages] == [found[number - 1].text for number in numbers]
    assert result.to_json()["order"] == numbers
    assert [one.number for one in result.supplied] == [1, 2, 3, 4, 5], "the record stands in the order of the hits"


def test_order_of_documents_keeps_the_passages_of_one_together_as_they_stand_there() -> None:
    found = hits("late.", "other.", "early.")
    found[2] = replace(found[2], document_id=10, start=5)
    result = assemble(found, context(order="document"), question="?")
    assert [passage.number for passage in result.passages] == [3, 1, 2]


def test_the_budget_leaves_out_what_does_not_fit_and_takes_the_smaller_one_after_it() -> None:
    found = hits(BELT, CHAIN * 5, GEAR)
    room = sum(
        passage_tokens(assemble([hit], ContextConfig(), question="?").passages[0]) for hit in (found[0], found[2])
    )
    result = assemble(found, context(max_tokens=room), question="?")
    assert [passage.number for passage in result.passages] == [1, 3]
    assert result.tokens == room


def test_if_nothing_fits_the_best_is_shortened_to_whole_sentences_then_to_whole_words() -> None:
    found = hits(BELT * 20)
    result = assemble(found, context(max_tokens=30), question="?")
    (passage,) = result.passages
    assert passage.text.startswith("A belt lasts about 30 000 km.")
    assert passage.text.endswith(GAP)
    assert result.tokens <= 30
    long = hits("word " * 500)
    (passage,) = assemble(long, context(max_tokens=20), question="?").passages
    assert set(passage.text.split()) == {"word"}
    assert shown_text(long, assemble(long, context(max_tokens=20), question="?").supplied) == [passage.text]


def test_sentences_that_share_most_with_the_question_stay_in_their_order_and_gaps_are_marked() -> None:
    found = hits(CHAIN, BELT, GEAR)
    result = assemble(found, context(max_tokens=28, compression="sentences"), question="How long does a belt last?")
    assert result.tokens <= 28
    texts = {passage.number: passage.text for passage in result.passages}
    assert texts[2].startswith("A belt lasts about 30 000 km.")
    assert GAP in texts[2]
    assert 1 not in texts, "nothing of the chain answers it"
    recorded = shown_text(found, [one for one in result.supplied if one.number == 2])
    assert len(recorded) > 1
    assert all(text in texts[2] and GAP not in text for text in recorded)


def test_compression_leaves_everything_when_everything_fits() -> None:
    found = hits(BELT, CHAIN)
    result = assemble(found, context(max_tokens=5000, compression="sentences"), question="belt?")
    assert [passage.text for passage in result.passages] == [BELT, CHAIN]


def test_a_sentence_a_better_passage_has_is_not_shown_again() -> None:
    found = hits("First. Shared  sentence here. Last.", "Other.\nShared sentence HERE. More.", "First. Last.")
    result = assemble(found, context(compression="deduplicate"), question="?")
    assert [(one.number, one.text) for one in result.passages] == [
        (1, found[0].text),
        (2, f"Other. {GAP} More."),
    ]
    assert shown_text(found, result.supplied) == [found[0].text, "Other.", "More."]


@pytest.mark.parametrize("seed", range(40))
def test_the_budget_holds_for_whatever_is_asked_of_it(seed: int) -> None:
    """By our own count of what a template can show, and by the count of the messages it is really shown in."""
    chance = random.Random(seed)
    vocabulary = ["belt", "chain", "gearbox", "Öl", "维护", "—", "x" * 30, "a", "30 000", "[2]"]
    found = hits(*(_text(chance, vocabulary) for _ in range(chance.randint(0, 8))))
    pool = [
        FewShot(question=_text(chance, vocabulary), context=_text(chance, vocabulary), answer="belt", documents=(n,))
        for n in range(chance.randint(0, 5))
    ]
    settings = context(
        max_tokens=chance.choice([16, 40, 100, 400]),
        order=chance.choice(["best_first", "best_last", "edges", "document"]),
        compression=chance.choice(["none", "sentences", "deduplicate"]),
        **({"examples": chance.randint(1, 3), "select": chance.choice(["fixed", "similar"])} if pool else {}),
        example_share=chance.choice([0.1, 0.5, 0.9]),
    )
    result = assemble(found, settings, question="Which belt?", pool=pool)
    assert settings.max_tokens is not None
    counted = sum(map(passage_tokens, result.passages)) + sum(map(example_tokens, result.examples))
    assert result.tokens == counted <= settings.max_tokens
    assert sum(map(example_tokens, result.examples)) <= settings.example_share * settings.max_tokens
    messages = render(TEMPLATE, "Which belt?", result.passages, examples=result.examples)
    bare = render(TEMPLATE, "Which belt?", [])
    # of the template itself: "[n] " and the line breaks of a passage or an example
    frame = 6 * (len(result.passages) + len(result.examples))
    assert count_tokens(messages[1]["content"]) <= counted + count_tokens(bare[1]["content"]) + frame
    for one, text in zip(result.supplied, shown_text(found, result.supplied), strict=True):
        passage = next(passage for passage in result.passages if passage.number == one.number)
        assert text in passage.text
        assert passage.document == f"docs/{one.number}.md"
    assert assemble(found, settings, question="Which belt?", pool=pool) == result


def _text(chance: random.Random, vocabulary: list[str]) -> str:
    return "".join(
        chance.choice(vocabulary) + chance.choice([" ", ". ", "\n\n", "! "]) for _ in range(chance.randint(1, 60))
    )


def test_sentences_are_cut_at_marks_paragraphs_and_items_and_lose_nothing() -> None:
    text = 'One is 2.5 kg. Two "ends." Three\nruns on!\n\n- item a\n- item b\n维护。之后'
    cut = [text[start:end] for start, end in sentences(text)]
    assert cut == ["One is 2.5 kg.", 'Two "ends."', "Three\nruns on!", "- item a", "- item b\n维护。", "之后"]
    assert sentences("") == [(0, 0)]
    assert sentences("  \n ") == [(0, 4)]


# --- examples -----------------------------------------------------------------------------------------------

POOL = [
    FewShot(question="How heavy is the gearbox?", context="2.5 kg.", answer="2.5 kg", documents=(1,)),
    FewShot(question="How long does a chain last?", context="Long.", answer="long", documents=(2,)),
    FewShot(question="Who insures the company?", context="Nobody.", answer="nobody", documents=(3,)),
]


def test_fixed_examples_are_the_first_of_the_pool() -> None:
    assert choose_examples(POOL, context(examples=2), "How long does a belt last?", None) == tuple(POOL[:2])


def test_similar_examples_are_the_nearest_and_the_nearest_stands_last() -> None:
    chosen = choose_examples(POOL, context(examples=2, select="similar"), "How long does a belt last?", None)
    assert chosen[-1].question == "How long does a chain last?"
    assert len(chosen) == 2


def test_an_example_that_does_not_fit_is_passed_over_and_what_they_leave_goes_to_passages() -> None:
    big = FewShot(question="How long?", context="word " * 500, answer="x", documents=(4,))
    found = hits(BELT)
    result = assemble(found, context(max_tokens=60, examples=1), question="?", pool=[big, POOL[0]])
    assert result.examples == (POOL[0],)
    assert result.to_json()["examples"] == [[1]]
    none = assemble(found, context(max_tokens=60, examples=1), question="?", pool=[big])
    assert none.examples == ()
    assert none.passages
