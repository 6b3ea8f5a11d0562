"""Checks of evaluation_dataset: each one fails on the bad data it is there for."""

from collections.abc import Sequence
from typing import Any

import pytest

from assets.evaluation.checks import (
    CHECKS,
    dataset_size,
    duplicate_questions,
    evaluate_checks,
    few_shot_leakage,
    groups_in_one_split,
    leakage_key,
    provenance_complete,
    questions_suite,
    split_balance,
    stale_share,
    unanswerable_share,
)
from assets.evaluation.dataset import Evidence, ResolvedDataset, ResolvedQuestion
from assets.evaluation.leakage import Item, content_words, duplicates, leaks, overlapping
from assets.evaluation.questions import QuestionSpec
from assets.outcomes import blocked
from resources.dataset_config import DatasetConfig
from resources.prompt_config import FewShot, PromptConfig

TOPICS = ("battery", "brake", "belt", "saddle", "trailer", "lamp", "lock", "tyre", "pedal", "chain", "bell", "frame")
CONFIG = DatasetConfig(
    name="qa", questions="qa.jsonl", sources=["docs"], minimum_questions=8, minimum_unanswerable_share=0.25
)


def question(number: int, text: str, answer: str | None = "yes", **further: Any) -> ResolvedQuestion:
    evidence = [{"document": "docs/a.md", "quote": "It is so."}] if answer else []
    spec = QuestionSpec.model_validate(
        {
            "id": f"q{number}",
            "question": text,
            "answer": answer,
            "evidence": evidence,
            "split": further.pop("split", "dev"),
        }
    )
    found = tuple(Evidence(one.fingerprint(), 1, b"t", 0, 9, "It is so.") for one in spec.evidence)
    return ResolvedQuestion(spec, "stale" if further else "active", further.get("reason"), found)


def dataset(*more: ResolvedQuestion, topics: Sequence[str] = TOPICS) -> ResolvedDataset:
    """A good dataset (a third unanswerable, both splits), with ``more`` questions added."""
    good = [
        question(
            number, f"What about the {topic}?", None if number % 3 == 0 else "yes", split=("dev", "test")[number % 2]
        )
        for number, topic in enumerate(topics)
    ]
    return ResolvedDataset("qa", (*good, *more), {"docs": 1})


def prompt(*examples: FewShot) -> dict[str, PromptConfig]:
    return {"p": PromptConfig(name="p", system="s", user="question passages", examples=list(examples))}


def test_good_dataset_passes_every_declared_check() -> None:
    outcomes = evaluate_checks(dataset(), CONFIG, prompt())
    assert [outcome.name for outcome in outcomes] == list(CHECKS)
    assert all(outcome.passed for outcome in outcomes)


def test_too_few_active_questions_block() -> None:
    assert blocked([dataset_size(dataset(topics=TOPICS[:7]), CONFIG)])
    assert blocked([dataset_size(ResolvedDataset("qa", (), {}), CONFIG)])


def test_too_few_unanswerable_questions_block() -> None:
    answerable = [question(100 + number, f"Question {number} on {topic}?") for number, topic in enumerate(TOPICS)]
    assert blocked([unanswerable_share(dataset(*answerable), CONFIG)])


def test_too_many_stale_questions_block_and_are_named_with_their_reason() -> None:
    stale = [question(100 + number, f"Old question {number}?", reason="gone") for number in range(4)]
    outcome = stale_share(dataset(*stale), CONFIG)
    assert blocked([outcome])
    assert outcome.details["stale"][0] == {"question": "q100", "reason": "gone"}
    assert not blocked([stale_share(dataset(*stale[:3]), CONFIG)])


@pytest.mark.parametrize("text", ["What about the battery?", "what about THE battery", "And what about the batteries?"])
def test_repeated_question_blocks(text: str) -> None:
    outcome = duplicate_questions(dataset(question(100, text, None)))
    assert blocked([outcome])
    assert outcome.details["pairs"] == [{"question": "q0", "repeated_by": "q100"}]


def test_rephrasing_with_another_answer_is_no_duplicate() -> None:
    assert duplicates([Item("a", "Who founded it in 1923?", "Ada"), Item("b", "Founded in 1923?", "yes")]) == []


@pytest.mark.parametrize(
    "example",
    [
        FewShot(question="What about the brake?", context="c", answer="a"),
        FewShot(question="What of the brakes?", context="c", answer="a"),
        FewShot(question="Other?", context="About the brake: yes.", answer="a"),
    ],
)
def test_worked_example_that_gives_a_scored_question_away_blocks(example: FewShot) -> None:
    outcome = few_shot_leakage(dataset(), prompt(FewShot(question="Fine?", context="c", answer="a"), example))
    assert blocked([outcome])
    assert outcome.details["leaks"][0]["question"] == "q1"
    assert outcome.details["leaks"][0]["by"] == "example 2 of prompt p"


def test_train_question_that_repeats_a_scored_one_blocks() -> None:
    assert blocked([few_shot_leakage(dataset(question(100, "What about a brake?", split="train")), prompt())])


def test_worked_example_of_a_train_question_is_allowed() -> None:
    resolved = dataset(question(100, "How heavy is the gearbox?", split="train"))
    example = FewShot(question="How heavy is the gearbox?", context="It is so.", answer="yes")
    assert few_shot_leakage(resolved, prompt(example)).passed


def test_unanswerable_question_is_not_leaked_by_its_words_alone() -> None:
    scored = [Item("q", "How heavy is the gearbox of the Otter?", None)]
    shown = [Item("e", "Other question?", "x")]
    assert leaks(scored, shown, {"e": "The gearbox of the Otter is heavy."}) == []


def test_split_without_unanswerable_questions_warns_but_does_not_block() -> None:
    outcome = split_balance(dataset(question(100, "Which way?", split="train")))
    assert not outcome.passed
    assert "train: one kind only" in outcome.observed
    assert not blocked([outcome])
    assert "test: no questions" in split_balance(ResolvedDataset("qa", (question(1, "A b c?"),), {})).observed


def test_balance_asks_for_no_unanswerable_questions_where_only_retrieval_is_scored() -> None:
    answerable = ResolvedDataset("qa", (question(1, "A b c?"), question(2, "D e f?", split="test")), {})
    retrieval = CONFIG.model_copy(update={"task": "retrieval"})
    assert split_balance(answerable, retrieval).passed
    assert not split_balance(answerable, CONFIG).passed


def with_fields(item: ResolvedQuestion, **fields: Any) -> ResolvedQuestion:
    return ResolvedQuestion(item.spec.model_copy(update=fields), item.status, item.reason, item.evidence)


def test_group_in_two_splits_blocks_also_when_one_of_it_is_stale() -> None:
    ours = with_fields(question(100, "One way?"), group="g")
    same = with_fields(question(101, "Same way?"), group="g")
    torn = with_fields(question(102, "Other way?", split="test", reason="gone"), group="g")
    assert groups_in_one_split(dataset(ours, same)).passed
    outcome = groups_in_one_split(dataset(ours, same, torn))
    assert blocked([outcome])
    assert outcome.details["groups"] == [{"group": "g", "splits": "dev, test"}]


@pytest.mark.parametrize(
    ("provenance", "missing"),
    [
        ({"kind": "written", "author": "ada"}, None),
        ({"kind": "import", "format": "squad"}, "from"),
        ({"author": "ada"}, "kind, one of written, import, production, synthetic"),
        ({"kind": "production", "interaction": "i", "promoted_by": "", "promoted_at": "t"}, "promoted_by, reason"),
    ],
)
def test_incomplete_provenance_warns_and_blocks_nothing(provenance: dict[str, Any], missing: str | None) -> None:
    outcome = provenance_complete(dataset(with_fields(question(100, "Which way?"), provenance=provenance)))
    assert outcome.passed == (missing is None)
    assert outcome.details["incomplete"] == ([{"question": "q100", "missing": missing}] if missing else [])
    assert not blocked([outcome])


def test_promoted_question_without_its_origin_warns() -> None:
    assert provenance_complete(dataset(), {"q999"}).passed
    assert not provenance_complete(dataset(), {"q1"}).passed


def test_unanswerable_is_what_is_said_not_what_lacks_an_answer() -> None:
    whole = [{"document": "docs/a.md", "kind": "document"}]
    spec = QuestionSpec.model_validate(
        {"id": "r", "question": "Which way?", "answer": None, "answerable": True, "evidence": whole, "split": "dev"}
    )
    found = Evidence("d", 1, b"t", 0, 900, "", "document")
    resolved = ResolvedDataset("qa", (ResolvedQuestion(spec, "active", None, (found,)),), {})
    assert blocked([unanswerable_share(resolved, CONFIG)])
    assert resolved.counts()["unanswerable"] == 0
    assert questions_suite(resolved).passed


def test_suite_fails_on_each_malformed_row() -> None:
    good = question(1, "Which way?")
    bad = {
        "unique": [good, good],
        "row_count": [],
        "question_characters": [question(1, "x" * 3000)],
        "evidence_fits_answer": [ResolvedQuestion(good.spec, "active", None, ())],
        "spans_fit_quotes": [ResolvedQuestion(good.spec, "active", None, (Evidence("d", 1, b"t", 5, 5, "It"),))],
        "stale_has_reason": [ResolvedQuestion(good.spec, "stale", None, ())],
    }
    for what, questions in bad.items():
        outcome = questions_suite(ResolvedDataset("qa", tuple(questions), {}))
        assert blocked([outcome]), what
        assert what in outcome.observed


def test_outcomes_show_no_question_texts() -> None:
    secret = "zanzibar"
    resolved = dataset(
        question(100, f"Where is {secret}?"), question(101, f"Where is {secret}?", split="train"), question(102, "x?", reason="gone")
    )  # fmt: skip
    for outcome in evaluate_checks(
        resolved, CONFIG, prompt(FewShot(question=f"Where is {secret}?", context="c", answer="a"))
    ):
        assert secret not in repr(outcome)


def test_no_overlapping_pair_is_missed() -> None:
    """The rare-word filter finds exactly what comparing every pair would."""
    import random

    chance = random.Random(5)
    sets = [frozenset(chance.choices("abcdefgh", k=chance.randint(1, 7))) for _ in range(60)]
    for share in (0.5, 0.8, 1.0):
        slow = {
            (i, j, len(left & right))
            for i, left in enumerate(sets)
            for j, right in enumerate(sets)
            if len(left & right) >= share * len(left) - 1e-9
        }
        assert set(overlapping(sets, sets, share)) == slow


def test_question_of_function_words_still_has_words() -> None:
    assert content_words("Who was it?") == content_words("who WAS it")
    assert content_words("Who was it?")


def test_standing_evidence_replaces_only_the_checks_it_is_about() -> None:
    outcomes = evaluate_checks(dataset(), CONFIG, prompt(), standing={"questions_suite", "dataset_size"})
    standing = [outcome.name for outcome in outcomes if "stands" in str(outcome.observed)]
    assert [outcome.name for outcome in outcomes] == list(CHECKS)
    assert standing == ["questions_suite"]


def test_evidence_on_leakage_does_not_outlive_the_worked_examples() -> None:
    example = FewShot(question="What about the brake?", context="The brake is so.", answer="yes")
    assert leakage_key(dataset(), prompt()) == leakage_key(dataset(), prompt())
    assert leakage_key(dataset(), prompt()) != leakage_key(dataset(), prompt(example))
