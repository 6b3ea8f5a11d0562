"""Every filter refuses what was planted to be refused, and lets a good draft pass."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from assets.evaluation.leakage import Item, KnownQuestions
from assets.evaluation.synthesis.filters import FILTERS, Bench, Verdict
from assets.evaluation.synthesis.passages import LiveDocument, Material, cut
from assets.evaluation.synthesis.readers import OfflineReader, Shown, agrees
from assets.evaluation.synthesis.search import PassageIndex
from assets.evaluation.synthesis.store import StoredDraft
from resources.chunker_config import FixedChunker

SADDLE = "The saddle of the Ibis model is stitched by hand from 3 layers of wool."
HERON = (
    "The Heron cargo bicycle was built in 1998 by the Kestrel workshop in Lund. Its battery lasts for 80 kilometres on one "
    "charge. The frame of the Heron is made of recycled steel from the harbour of Malmo.\n\n"
    "A second battery can be ordered from every dealer. The lamp of the Heron has 60 lux. " + SADDLE
)
OTTER = (
    "The Otter trailer weighs 14 kilograms without its cover. Marta Lindqvist designed the Otter trailer in 2004. "
    "Dealers in Oslo repair the Otter free of charge. Dealers in Oslo repair the Otter free of charge."
)
TEXTS = {1: HERON, 2: OTTER}
FACT = "The Heron cargo bicycle was built in 1998 by the Kestrel workshop in Lund."
DESIGN = "Marta Lindqvist designed the Otter trailer in 2004."


def document(number: int, text: str) -> LiveDocument:
    name = {1: "heron", 2: "otter"}.get(number, f"filler{number}")
    return LiveDocument(number, "docs", f"{name}.md", name.title(), "en", [], bytes([number]), text)


@pytest.fixture(scope="module")
def material() -> Material:
    """The two documents, among others of other things."""
    found = Material([], PassageIndex())
    filler = {
        number: f"Paragraph {number} is about {word} and nothing else of note."
        for number, word in enumerate(("gardens", "violins", "harbours", "bread", "rivers", "clocks", "chess"), start=3)
    }
    decoy = "The saddle of the Ibis model: stitched by hand from layers of wool. Ibis saddle, stitched by hand, layers of wool."
    filler |= dict.fromkeys(range(20, 24), decoy)
    for number, text in {**TEXTS, **filler}.items():
        for passage in cut(document(number, text), FixedChunker(unit="characters", size=300)):
            found.index.add(f"{passage.title} {passage.text}")
            found.everything.append(passage)
    return found


@pytest.fixture
def bench(material: Material) -> Bench:
    return Bench(
        material=material,
        text=TEXTS.get,
        known=KnownQuestions([Item("q1", "How heavy is the Otter trailer without its cover?", "14 kilograms")]),
        shown=[
            Item("example 1 of prompt plain", "What is the lamp of the Heron like in lux?", "60 lux"),
            Item("prompt plain", "You know that Marta Lindqvist designed the Otter trailer in the year 2004.", None),
        ],
        contexts={"example 1 of prompt plain": "The lamp of the Heron has 60 lux."},
        reader=OfflineReader(),
        k=3,
    )


def draft(
    question: str = "The Heron cargo bicycle was built by the Kestrel workshop in which year?",
    answer: str | None = "1998",
    quotes: tuple[tuple[int, str], ...] = ((1, FACT),),
    kind: str = "fact",
    *,
    spans: Any = None,
    **checked_by: Any,
) -> StoredDraft:
    names = {1: "docs/heron.md", 2: "docs/otter.md"}
    places = [
        {
            "document_id": number,
            "document": names[number],
            "heading": names[number],
            "start": 0,
            "end": len(TEXTS[number]),
        }
        for number in sorted({one for one, _ in quotes} or {1})
    ]
    found = [[at := TEXTS[number].find(quote), at + len(quote)] for number, quote in quotes]
    content = {
        "id": "synthetic-0", "question": question, "answer": answer, "split": "dev", "group": "docs/heron.md#0",
        "evidence": [{"document": names[number], "quote": quote} for number, quote in quotes],
        "tags": {}, "provenance": {"kind": "synthetic", "generator": "g"},
    }  # fmt: skip
    return StoredDraft(
        1, "synthetic-0", content, {"passages": places, "spans": spans or found, **checked_by}, kind, "g", "r", (1,),
        (b"",), {}, "generated", None, None, None,
    )  # fmt: skip


def judge(bench: Bench, one: StoredDraft) -> Verdict:
    (verdict,) = bench.judge([one])
    return verdict


GOOD: dict[str, Callable[[], StoredDraft]] = {
    "fact": draft,
    "gap": lambda: draft(
        "Which name fills the gap: “The frame of the Heron is made of recycled steel from the harbour of ____”?", "Malmo",
        ((1, "The frame of the Heron is made of recycled steel from the harbour of Malmo."),),
    ),
    "number": lambda: draft(
        "Its battery lasts for how many kilometres on one charge?", "80",
        ((1, "Its battery lasts for 80 kilometres on one charge."),), "paraphrase",
    ),
    "comparison": lambda: draft(
        "Which year is earlier: the one missing in “The Heron cargo bicycle was built in ____ by the Kestrel workshop in Lund”, "
        "or the one missing in “Marta Lindqvist designed the Otter trailer in ____”?",
        "1998", ((1, FACT), (2, DESIGN)), "comparison",
    ),
    "invented": lambda: draft(
        "The Brackwater bicycle was built by the Kestrel workshop in which year?", None, (), "unanswerable",
        absent=["brackwater"],
    ),
    "swapped": lambda: draft(
        "Marta Lindqvist built the cargo bicycle in the harbour of Malmo in which year?", None, (), "unanswerable",
        apart={"name": "Marta Lindqvist", "words": ["built", "cargo", "bicycl", "harbour", "malmo", "year"]},
    ),
}  # fmt: skip

BAD: dict[str, tuple[str, Callable[[], StoredDraft], str]] = {
    "too short": ("form", lambda: draft("Why so?"), "too short"),
    "no question": ("form", lambda: draft("The Heron cargo bicycle was built in some year."), "does not end as a question"),
    "points nowhere": ("form", lambda: draft("When was the bicycle of the passage built, and where?"), "does not see"),
    "markup": ("form", lambda: draft("When was the [Heron](heron.md) built by the Kestrel workshop?"), "markup"),
    "two gaps": ("form", lambda: draft("Which year: “The ____ bicycle was built in ____ by Kestrel”?"), "more gaps"),
    "no content": ("form", lambda: draft("What is it and who was it then?"), "too few words"),
    "open quotation": ("form", lambda: draft("When was “the Heron bicycle built by the workshop?"), "not closed"),
    "no answer": ("form", lambda: draft(answer=None, quotes=()), "no answer"),
    "one place for two": ("form", lambda: draft(kind="multi_hop"), "evidence of one"),
    "edited quote": ("span", lambda: draft(quotes=((1, FACT.replace("Lund", "Ystad")),)), "does not stand where"),
    "moved span": ("span", lambda: draft(spans=[[1, 1 + len(FACT)]]), "does not stand where"),
    "twice in the document": (
        "span",
        lambda: draft("Dealers in which city repair the Otter free of charge?", "Oslo",
                      ((2, "Dealers in Oslo repair the Otter free of charge."),)),
        "more than once",
    ),
    "answer not in evidence": ("span", lambda: draft(answer="1999"), "no piece of its evidence holds the answer"),
    "answer in question": (
        "leak", lambda: draft("Was the Heron cargo bicycle really built in 1998 by the Kestrel workshop?"), "holds its answer",
    ),
    "worked example": (
        "leak",
        lambda: draft("What has the lamp of the Heron in lux?", "60", ((1, "The lamp of the Heron has 60 lux."),)),
        "given away by example 1 of prompt plain",
    ),
    "prompt": (
        "leak",
        lambda: draft("Marta Lindqvist designed the Otter trailer in which year?", "2004", ((2, DESIGN),)),
        "given away by prompt plain",
    ),
    "not of the evidence": (
        "answerable", lambda: draft("Who sells umbrellas to the penguins of the southern islands?"), "finds no answer in the evidence",
    ),
    "known word": (
        "answerable",
        lambda: draft("The Otter trailer was designed by the Kestrel workshop in which year?", None, (), "unanswerable",
                      absent=["kestrel"]),
        "the documents hold the words",
    ),
    "word not asked for": (
        "answerable", lambda: draft("When was the Heron bicycle built?", None, (), "unanswerable", absent=["brackwater"]),
        "are not in the question",
    ),
    "combination is there": (
        "answerable",
        lambda: draft("Marta Lindqvist designed which trailer of the Otter kind?", None, (), "unanswerable",
                      apart={"name": "Marta Lindqvist", "words": ["design", "trailer", "otter", "kind"]}),
        "speak of all of it in one place",
    ),
    "unverified": ("answerable", lambda: draft("When was the Heron bicycle sold by the workshop?", None, (), "unanswerable"), "nothing says"),
    "not found": (
        "round_trip",
        lambda: draft("The saddle of the Ibis model is stitched by hand from how many layers of wool?", "3", ((1, SADDLE),)),
        "does not find its evidence",
    ),
    "asked already": (
        "duplicate",
        lambda: draft("How heavy is the Otter trailer, without its cover?", "14 kilograms",
                      ((2, "The Otter trailer weighs 14 kilograms without its cover."),)),
        "nearly the same question: q1",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_good_drafts_pass(bench: Bench, name: str) -> None:
    verdict = judge(bench, GOOD[name]())
    assert (verdict.failed, verdict.reason) == (None, None)


@pytest.mark.parametrize("name", BAD)
def test_planted_drafts_are_refused_by_the_filter_meant_for_them(bench: Bench, name: str) -> None:
    filter, make, reason = BAD[name]
    verdict = judge(bench, make())
    assert verdict.failed == filter == verdict.scores["filter"]
    assert reason in str(verdict.reason)


def test_a_model_that_answers_the_unanswerable_refuses_it(bench: Bench) -> None:
    class Model(OfflineReader):
        quotes = False

        def read(self, question: str, shown: Sequence[Shown], *, sentences: int, run_id: str) -> str | None:
            return "1998"

    verdict = judge(replace(bench, reader=Model()), GOOD["invented"]())
    assert (verdict.failed, verdict.reason) == ("round_trip", "a reader answers it from what a search finds")
    assert judge(bench, GOOD["invented"]()).scores["refused"] in (True, False), "of the offline reader it is only noted"


def test_every_filter_is_shown_to_refuse() -> None:
    assert {filter for filter, _, _ in BAD.values()} == set(FILTERS)


def test_reasons_and_scores_quote_nothing(bench: Bench) -> None:
    for filter, make, _ in BAD.values():
        bad = make()
        verdict = judge(bench, bad)
        said = f"{verdict.reason} {verdict.scores}"
        assert filter in said
        assert bad.line["question"] not in said
        assert not any(piece["quote"] in said for piece in bad.line["evidence"])


def test_a_draft_is_not_asked_twice_in_one_batch_or_later(bench: Bench) -> None:
    again = draft("In which year was the Heron cargo bicycle built by the Kestrel workshop?")
    twice = [draft(), replace(again, draft_id=2)]
    assert [one.failed for one in bench.judge(twice)] == [None, "duplicate"]
    assert judge(bench, replace(again, draft_id=3)).failed == "duplicate"


def test_known_questions_are_compared_in_both_directions() -> None:
    known = KnownQuestions([Item("short", "When was Nikola Tesla born?", "1856")])
    long = Item(
        "d", "Which year fills the gap: “In ____ the inventor Nikola Tesla was born in the village of Smiljan”?", "1856"
    )
    assert known.like(long) == ("short", "one holds the words and the answer of the other")
    assert known.like(Item("d", long.question, "Smiljan, Lika")) is None
    assert known.like(Item("d", "nikola TESLA born when?", None)) == ("short", "nearly the same question")
    assert known.like(Item("d", "Who repairs bicycles in the harbour?", "1856")) is None


@pytest.mark.parametrize(
    ("answer", "said", "agreed"),
    [
        ("1998", "It was built in 1998. [1]", True),
        ("1998", "It was built in 19980.", False),
        ("the red lamp of the bicycle shines", "the red lamp of a bicycle shines", True),
        ("80", "eighty", False),
        ("", "anything", False),
    ],
)
def test_readers_agree_word_for_word_or_nearly(answer: str, said: str, agreed: bool) -> None:
    assert agrees(answer, said) is agreed
