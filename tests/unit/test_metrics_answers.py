"""Answer metrics against the official SQuAD script's rules, sacrebleu, rouge-score and nltk."""

import random
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.evaluation.metrics.answers import (
    answer_quality,
    bleu,
    chrf,
    exact_match,
    meteor,
    rouge,
    squad_normalise,
    token_f1,
)
from assets.evaluation.metrics.base import METRICS, score
from tests.unit.metric_records import record

#: References are met to nine places.
approx = partial(pytest.approx, rel=0, abs=1e-9)

PAIRS = [
    ("The battery lasts about 80 km on flat ground.", "about 80 km"),
    ("Charging takes four and a half hours", "It takes four and a half hours to charge the battery fully."),
    ("They were running and jumping quickly", "he runs and jumps quick"),
    ("yes", "yes"),
    ("completely different words", "nothing in common here"),
]
ANSWER_IDS = [
    metric
    for metric, definition in METRICS.items()
    if {"answer", "reference"} <= definition.looks_at and "rag" in definition.tasks
]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Eiffel-Tower, in Paris!", "eiffeltower in paris"),
        ("  a  an the A ", ""),
        ("an answer's theme", "answers theme"),
    ],
)
def test_normalisation_is_that_of_squad(text: str, expected: str) -> None:
    assert squad_normalise(text) == expected


def test_squad_values_of_hand_computed_answers() -> None:
    assert exact_match("the 80 km.", ["80 km"]) == 1
    assert exact_match("80 kilometres", ["80 km"]) == 0
    assert token_f1("about 80 km on flat ground", ["80 km"]) == approx(2 * 2 / (6 + 2))
    assert token_f1("red red blue", ["red green"]) == approx(2 * 1 / (3 + 2))
    assert token_f1("x", ["80 km", "an x"]) == 1  # the best reference counts
    assert token_f1("", ["80 km"]) == 0


def test_squad_scores_the_empty_answer_on_unanswerable_questions() -> None:
    assert (exact_match("", []), token_f1("", [])) == (1, 1)
    assert (exact_match("80 km", []), token_f1("80 km", [])) == (0, 0)


def test_answer_quality_rewards_answers_and_refusals_where_they_belong() -> None:
    assert answer_quality("80 km", ["80 km"], refused=False) == 1
    assert answer_quality("80 km", ["80 km"], refused=True) == 0
    assert answer_quality("", [], refused=True) == 1
    assert answer_quality("anything", [], refused=False) == 0


@pytest.mark.parametrize(("answer", "reference"), PAIRS)
def test_sacrebleu_metrics_equal_sacrebleu(answer: str, reference: str) -> None:
    import sacrebleu

    direct = sacrebleu.sentence_bleu(answer, [reference], use_effective_order=True).score
    assert bleu(answer, [reference]) == approx(min(direct, 100) / 100)
    assert chrf(answer, [reference]) == approx(sacrebleu.sentence_chrf(answer, [reference]).score / 100)


@pytest.mark.parametrize("kind", ["rouge1", "rouge2", "rougeL"])
def test_rouge_equals_rouge_score_with_its_own_stemmer(kind: str) -> None:
    from rouge_score import rouge_scorer

    scorer = rouge_scorer.RougeScorer([kind], use_stemmer=True)
    vocabulary = [
        "The",
        "batteries",
        "were",
        "charging,",
        "quickly;",
        "chargers",
        "don't",
        "stop",
        "80-percent",
        "running",
        "runs",
        "C4",
        "relational",
    ]
    chance = random.Random(3)
    texts = [" ".join(chance.choices(vocabulary, k=12)) for _ in range(40)]
    pairs = [*PAIRS, *zip(texts[:20], texts[20:], strict=True)]
    for answer, reference in pairs:
        if kind == "rouge2" and " " not in reference:
            continue  # see the next test
        assert rouge(kind, answer, [reference]) == approx(scorer.score(reference, answer)[kind].fmeasure)


def test_one_word_references_have_a_rouge_2() -> None:
    assert rouge("rouge2", "yes", ["yes"]) == 1
    assert rouge("rouge2", "no", ["yes"]) == 0
    assert rouge("rouge1", "€", ["€"]) == 1


def test_rouge_sees_words_of_other_alphabets() -> None:
    assert rouge("rouge1", "größe über 日本", ["größe über 日本"]) == 1
    assert rouge("rouge1", "größe", ["größer"]) == 0


def test_meteor_matches_stems_and_follows_its_formula() -> None:
    assert meteor("the batteries charge", ["the battery charges"]) == approx(1 - 0.5 * (1 / 3) ** 3)
    assert meteor("one two three four", ["one two three four"]) == approx(1 - 0.5 * (1 / 4) ** 3)
    assert meteor("alpha", ["beta"]) == 0
    # precision 1/2, recall 1: F = 10PR / (R + 9P); one chunk of one match
    assert meteor("alpha beta", ["alpha"]) == approx((10 * 0.5 / (1 + 4.5)) * 0.5)


def test_meteor_equals_nltk_with_its_own_stemmer() -> None:
    from nltk.stem.porter import PorterStemmer
    from nltk.translate.meteor_score import single_meteor_score

    class NoWordNet:
        def synsets(self, *_: object, **__: object) -> list[object]:
            return []

    for answer, reference in PAIRS:
        if not any(character in answer + reference for character in ".,'"):
            direct = single_meteor_score(
                reference.split(),
                answer.split(),
                stemmer=PorterStemmer(),
                wordnet=NoWordNet(),  # type: ignore[arg-type]
            )
            assert meteor(answer, [reference]) == approx(direct)


WORDS = st.text(alphabet="abc é日.,'%\n", max_size=25)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(WORDS, WORDS.filter(str.strip), st.booleans(), st.booleans(), st.booleans()), max_size=4))
def test_values_lie_between_0_and_1_and_are_never_nan(rows: list[tuple[str, str, bool, bool, bool]]) -> None:
    records = [
        record(answer, reference if answerable else None, refused=refused, failed=failed)
        for answer, reference, answerable, refused, failed in rows
    ]
    for metric, values in score(records, ANSWER_IDS).items():
        assert len(values) == len(records)
        for value in values:
            assert value is None or 0 <= value <= 1, metric


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.sampled_from(["battery", "80", "km", "größe", "x9", "charging"]), min_size=1, max_size=9).map(" ".join)
)
def test_identical_answer_scores_the_maximum(text: str) -> None:
    for metric, values in score([record(text, text)], ANSWER_IDS).items():
        expected = 1 - 0.5 / len(text.split()) ** 3 if "meteor" in metric else 1
        assert values == [approx(expected)], metric


def test_refusal_scores_as_the_empty_answer_and_failure_the_worst() -> None:
    records = [
        record("The documents do not say.", "80 km", refused=True),
        record("The documents do not say.", None, refused=True),
        record("80 km", None),
        record("", "80 km", failed=True),
        record("", None, failed=True),
    ]
    values = score(records, ANSWER_IDS)
    for metric in ("genaiops.answer_quality/1", "squad.f1/1", "squad.exact_match/1"):
        assert values[metric] == [0, 1, 0, 0, 0], metric
    for metric in set(ANSWER_IDS) - {"genaiops.answer_quality/1", "squad.f1/1", "squad.exact_match/1"}:
        assert values[metric] == [0, None, None, 0, None], metric
