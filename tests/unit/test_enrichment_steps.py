"""Offline enrichment values: what each rule finds, within its bounds, the same every time."""

from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from assets.chunks.chunkers import chunk_text
from assets.chunks.enrichment import embedding_input, search_text, title_of
from assets.chunks.enrichment_steps import as_text, offline_value, sentences, value_problem
from resources.chunk_config import (
    STEP_CODE_VERSIONS,
    enrichment_fingerprint,
    step_fingerprint,
)
from resources.fingerprint import fingerprint
from resources.index_config import EnrichmentConfig, EnrichmentStep, MarkdownChunker, StepKind

BATTERY = (
    "The battery holds 750 Wh and weighs 3.4 kg. Charge it at 10 °C to 30 °C. The Otter 3 takes the battery BX-750-R "
    "since 12 March 2024; firmware v2.4.1 or later is needed. A spare battery costs € 549.00. Berlin Riders sells it."
)


def made(kind: StepKind, text: str, *path: str, **settings: Any) -> Any:
    return offline_value(EnrichmentStep(kind=kind, **settings), text, path)


def test_keywords_are_the_telling_words_of_the_chunk() -> None:
    found = made("keywords", BATTERY, count=4)
    assert found[0].lower() == "battery"
    assert len(found) == 4
    assert not {word.lower() for word in found} & {"the", "it", "and", "is", "at"}
    assert made("keywords", "It is what it is, and so on.") == []


def test_a_word_is_in_one_keyword_only() -> None:
    words = [word.lower() for keyword in made("keywords", BATTERY, count=20) for word in keyword.split()]
    assert len(words) == len(set(words))


def test_entities_are_dates_money_versions_measures_codes_and_names() -> None:
    found = {item["text"]: item["type"] for item in made("entities", BATTERY, count=20)}
    assert found == {
        "750 Wh": "measure", "3.4 kg": "measure", "10 °C": "measure", "30 °C": "measure", "Otter 3": "name",
        "BX-750-R": "code", "12 March 2024": "date", "v2.4.1": "version", "€ 549.00": "money", "Berlin Riders": "name",
    }  # fmt: skip


def test_the_first_word_of_a_sentence_is_no_name() -> None:
    assert made("entities", "Charge it. Remove the wheel. However, wait.") == []
    assert [item["text"] for item in made("entities", "Ask Anna. NASA agrees.")] == ["Anna", "NASA"]


def test_summary_is_a_sentence_of_the_chunk() -> None:
    text = "# Belts\n\nA belt lasts 20,000 km. The belt and the sprocket wear together. So it goes."
    assert made("summary", text) in [sentence for sentence in sentences(text) if sentence.endswith(".")]
    assert made("summary", "No full stop here") == "No full stop here"
    assert made("summary", "word " * 300, max_characters=50) == ("word " * 10).strip()


@pytest.mark.parametrize(
    ("text", "path", "questions"),
    [
        ("Nothing is defined.", ("Range",), ["What about Range?"]),
        ("-", ("Bike", "Charging the battery"), ["How does charging the battery work (Bike)?"]),
        ("-", ("How do I pair it?",), ["How do I pair it?"]),
        ("-", ("How to pair",), ["How to pair?"]),
        ("A sprocket is a toothed wheel.", (), ["What is a sprocket?"]),
        ("Brake pads are the parts that wear.", (), ["What are Brake pads?"]),
        ("It is a thing. This is a test.", (), []),
    ],
)
def test_questions_come_from_templates(text: str, path: tuple[str, ...], questions: list[str]) -> None:
    assert made("questions", text, *path) == questions


def test_language_of_a_chunk_and_und_where_it_cannot_be_told() -> None:
    assert made("language", "The battery is charged at night, and the bike is ridden by day.") == "en"
    assert made("language", "Der Akku wird nachts geladen, und das Rad wird am Tag gefahren.") == "de"
    assert made("language", "自転車のバッテリーは夜に充電します。") == "ja"
    assert made("language", "4711") == "und"


def test_values_of_real_chunks_are_within_bounds_and_repeatable(shared_data: Path) -> None:
    folder = shared_data / "chunking-eval" / "corpora"
    for path in sorted(folder.iterdir()):
        text = path.read_text(encoding="utf-8")[:20_000]
        for chunk in chunk_text(text, MarkdownChunker(size=150)):
            shown = text[chunk.start : chunk.end]
            for kind in get_args(StepKind):
                step = EnrichmentStep(kind=kind, count=3, max_characters=60)
                value = offline_value(step, shown, chunk.heading_path)
                assert value_problem(step, value) is None
                assert value == offline_value(step, shown, chunk.heading_path)


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=200), st.lists(st.text(min_size=1, max_size=30), max_size=3))
def test_any_text_has_values_that_fit(text: str, path: list[str]) -> None:
    for kind in ("clean", "keywords", "entities", "summary", "questions"):
        step = EnrichmentStep(kind=kind, max_characters=40)  # type: ignore[arg-type]
        assert value_problem(step, offline_value(step, text, path)) is None


@pytest.mark.parametrize(
    "unit", ["A", "A ", "1 ", "1-", "a.", "Aa-", "€ ", "1,", "x is a ", "Aa Bb of ", "- ", "\n", "(", "'"]
)
def test_steps_stay_fast_on_hostile_text(unit: str) -> None:
    import time

    for kind in ("keywords", "entities", "summary", "questions"):
        started = time.perf_counter()
        made(kind, unit * (30_000 // len(unit)))  # type: ignore[arg-type]
        assert time.perf_counter() - started < 3, kind


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("keywords", "word"),
        ("keywords", ["a"] * 6),
        ("keywords", ["x" * 401]),
        ("keywords", [" "]),
        ("entities", ["word"]),
        ("entities", [{"text": "a"}]),
        ("entities", [{"text": "", "type": "name"}]),
        ("summary", ["a"]),
        ("summary", "x" * 401),
        ("language", None),
    ],
)
def test_values_of_another_shape_or_length_are_refused(kind: StepKind, value: Any) -> None:
    assert value_problem(EnrichmentStep(kind=kind), value)


# --- configuration and composing -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kind": "clean", "method": "model", "model": "m"}, "no method model"),
        ({"kind": "summary", "method": "model"}, "needs the key model"),
        ({"kind": "summary", "model": "m"}, "say method: model"),
        ({"kind": "summary", "headings": True}, "cannot see headings"),
        ({"kind": "summary", "use": ["embed", "embed"]}, "at most once"),
        ({"kind": "abstract"}, "Input should be"),
    ],
)
def test_impossible_steps_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        EnrichmentStep(**settings)


def test_a_kind_of_step_stands_once() -> None:
    with pytest.raises(ValidationError, match="twice: clean"):
        EnrichmentConfig(steps=(EnrichmentStep(kind="clean"), EnrichmentStep(kind="clean")))


def test_fingerprints_of_existing_configurations_are_what_they_were() -> None:
    for context in ("none", "headings"):
        assert enrichment_fingerprint(EnrichmentConfig(context=context)) == fingerprint(  # type: ignore[arg-type]
            {"config": {"context": context}, "code": "1"}
        )


def test_fingerprints_cover_what_decides_a_value_and_only_that(monkeypatch: pytest.MonkeyPatch) -> None:
    base = EnrichmentStep(kind="keywords")
    same = [base.model_copy(update=change) for change in ({"use": ("embed",)}, {"tries": 9}, {"use": ()})]
    assert {step_fingerprint(step) for step in same} == {step_fingerprint(base)}
    seen = {step_fingerprint(base)}
    for change in ({"count": 6}, {"max_characters": 300}, {"kind": "questions"}, {"kind": "entities"}):
        seen.add(step_fingerprint(base.model_copy(update=change)))
    monkeypatch.setitem(STEP_CODE_VERSIONS, "keywords", "next")
    seen.add(step_fingerprint(base))
    monkeypatch.setattr("resources.query_cleaning.CODE_VERSION", "next")
    seen.add(step_fingerprint(base))
    assert len(seen) == 7


def test_enrichment_fingerprints_follow_what_is_composed() -> None:
    keywords, clean = EnrichmentStep(kind="keywords"), EnrichmentStep(kind="clean")
    configs = [
        EnrichmentConfig(),
        EnrichmentConfig(title=True),
        EnrichmentConfig(steps=(keywords,)),
        EnrichmentConfig(steps=(keywords.model_copy(update={"use": ("embed",)}),)),
        EnrichmentConfig(steps=(keywords, clean)),
        EnrichmentConfig(steps=(clean, keywords)),
    ]
    assert len({enrichment_fingerprint(config) for config in configs}) == len(configs)
    recorded = EnrichmentConfig(steps=(keywords.model_copy(update={"use": ()}),))
    assert enrichment_fingerprint(recorded) == enrichment_fingerprint(EnrichmentConfig())


def test_the_title_is_the_first_heading_of_the_text() -> None:
    assert title_of("Intro\n\n# The **Title**\n\n## Part") == "The Title"
    assert title_of("Title\n=====\n\ntext") == "Title"
    assert title_of("no heading") == ""
    assert title_of("word " * 3000 + "\n\n# Late") == ""


def test_title_is_added_where_the_headings_do_not_begin_with_it() -> None:
    both, alone = EnrichmentConfig(title=True), EnrichmentConfig(context="none", title=True)
    assert embedding_input(("T", "A"), "text", both, title="T") == "T > A\n\ntext"
    assert embedding_input(("A",), "text", both, title="T") == "T > A\n\ntext"
    assert embedding_input(("A",), "text", alone, title="T") == "T\n\ntext"
    assert embedding_input(("A",), "text", alone) == "text"
    assert search_text(("T", "A"), "text", both, title="T") is None
    assert search_text(("A",), "text", both, title="T") == "T A\ntext"
    assert search_text(("A",), "text", alone) is None


def test_values_stand_after_the_chunk_and_a_cleaned_one_in_its_place() -> None:
    config = EnrichmentConfig(
        steps=(
            EnrichmentStep(kind="keywords", use=("embed",)),
            EnrichmentStep(kind="clean"),
            EnrichmentStep(kind="questions", use=("search",)),
        )
    )
    values = [["a", "b c"], "plain", ["Why?", "How?"]]
    assert embedding_input(("H",), "**plain**", config, values=values) == "H\n\nplain\n\na, b c"
    assert search_text(("H",), "**plain**", config, values=values) == "H\nplain\nWhy?\nHow?"
    # a value that was given up, or that is empty, adds nothing
    assert embedding_input(("H",), "plain", config, values=[None, "plain", []]) == "H\n\nplain"
    assert search_text(("H",), "plain", config, values=[None, "plain", []]) is None


def test_values_as_text() -> None:
    assert as_text(None) == as_text([]) == as_text("") == ""
    assert as_text([{"text": "Otter 3", "type": "name"}, {"text": "5 kg", "type": "measure"}]) == "Otter 3, 5 kg"
