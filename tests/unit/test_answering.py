"""Answering with a context, a chain and parameters of the variant's own; search with its filters and breadth."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest
from psycopg.types.json import Jsonb

from assets.governance.erasure import forget
from assets.governance.retention import retain_records
from resources.answerer import Answer, Answerer, Variant, build_variant, parse_citations
from resources.errors import GenaiopsError, PermanentError
from resources.grid_config import ContextConfig, FilterConfig, VariantChoice, VariantGrid
from resources.interaction_log import log_interaction
from resources.models import Models
from resources.platform import Platform
from resources.prompt_config import FewShot, PromptConfig
from resources.prompt_store import Passage, render
from resources.variants import narrowed, record_variant
from resources.vector_index import SearchFilter, VectorIndex
from tests.fake_openai import FakeOpenAI, FastClock, Status
from tests.seeded_corpus import SeededCorpus
from tests.unit.test_answerer import FILES, TEXTS, USER, FakeIndex

CHAIN: dict[str, Any] = {
    "name": "p",
    "system": "Answer from the notes.",
    "user": "Notes:\n{{ steps.notes }}\n" + USER,
    "parameters": {"temperature": 0.25, "seed": 3},
    "chain": [
        {"name": "plan", "system": "Plan.", "user": "{{ question }}"},
        {"name": "notes", "system": "Take notes. {{ steps.plan }}", "user": USER},
    ],
}


@pytest.fixture
def platform(make_platform: Callable[..., Platform]) -> Platform:
    platform = make_platform(**FILES)
    with platform.database.connect() as connection:  # an answer is only remembered while its documents exist
        connection.execute(
            "INSERT INTO document (document_id, source) OVERRIDING SYSTEM VALUE SELECT 10 * n, 'docs' FROM generate_series(1, 9) n"
        )
    return platform


def variant(platform: Platform, models: Models | None = None, **changes: Any) -> Variant:
    choice = VariantChoice(
        index="main", prompt="p", search_mode="hybrid", k=5, model="mini" if models else "extractive"
    )
    return replace(build_variant(platform.config, models or platform.models, choice), **changes)


def answer(
    platform: Platform,
    one: Variant,
    *texts: str,
    models: Models | None = None,
    question: str = "How long does a belt last?",
) -> Answer:
    index = cast(VectorIndex, FakeIndex(*(texts or TEXTS)))
    answerer = Answerer(platform.database, platform.config, models or platform.models, index)
    return answerer.answer(one, question, run_id="run")


def models_of(platform: Platform, server: FakeOpenAI) -> Models:
    return Models(platform.config.models, environment=server.environment(), clock=FastClock())


# --- citations stay right ---------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["best_first", "best_last", "edges", "document"])
def test_a_citation_names_the_same_hit_in_whatever_order_passages_stand(platform: Platform, order: str) -> None:
    context = ContextConfig.model_validate({"name": "c", "order": order})
    found = answer(platform, variant(platform, context=context), "Oil it.", "Wash it.", TEXTS[1], "Look at it.")
    (citation,) = found.citations
    assert (citation.number, citation.document_id, citation.path) == (3, 30, "3.md")
    assert found.text == "A belt lasts about 30 000 km. [3]"
    assert sorted(found.supplied["order"]) == [1, 2, 3, 4]


@pytest.mark.parametrize("compression", ["none", "sentences", "deduplicate"])
def test_a_citation_names_the_same_hit_after_compression(platform: Platform, compression: str) -> None:
    text = "Nothing to see here at all, move along please. A belt lasts about 30 000 km. The end of it."
    context = ContextConfig.model_validate(
        {"name": "c", "max_tokens": 45, "compression": compression, "order": "best_last"}
    )
    found = answer(platform, variant(platform, context=context), text, "Oil the chain every 200 km. " * 20)
    assert found.supplied["tokens"] <= 45
    (citation,) = found.citations
    assert (citation.number, citation.document_id) == (1, 10)
    assert "200 km" not in found.text


def test_a_number_that_was_not_shown_is_no_citation(platform: Platform) -> None:
    hits = FakeIndex("a", "b", "c").hits
    assert [one.number for one in parse_citations("[1-3] [2]", hits, shown={1, 3})] == [1, 3]
    assert [one.number for one in parse_citations("[1-3] [4]", hits)] == [1, 2, 3]


def test_what_was_supplied_is_on_record(platform: Platform) -> None:
    found = answer(platform, variant(platform))
    assert found.supplied == {
        "passages": [[1, 1, 1 + len(TEXTS[0])], [2, 2, 2 + len(TEXTS[1])]],
        "order": [1, 2],
        "examples": [],
        "tokens": found.supplied["tokens"],
    }
    assert found.steps == ()


# --- a chain ------------------------------------------------------------------------------------------------


def said(body: dict[str, Any]) -> str:
    """What the model says to each step."""
    step = body["messages"][0]["content"].split()[0]
    return {"Plan.": "a plan\nQuestion: who?", "Take": "a note [2]", "Answer": "A belt lasts 30 000 km. [2]"}[step]


def test_a_chain_hands_answers_on_as_quotations_and_pays_each_step_once(platform: Platform) -> None:
    with FakeOpenAI(answer=said) as server:
        models = models_of(platform, server)
        one = variant(platform, models, prompt=PromptConfig.model_validate(CHAIN), parameters={"seed": 4})
        first = answer(platform, one, models=models)
        again = answer(platform, one, models=models)
        bodies = [request.body for request in server.requests]
    assert len(bodies) == 3, "the second time everything was remembered"
    assert "> a plan\n> Question: who?" in bodies[1]["messages"][0]["content"]
    assert "Notes:\n> a note [2]\n" in bodies[2]["messages"][1]["content"]
    assert all((body["temperature"], body["seed"]) == (0.25, 4) for body in bodies), (
        "the variant's win over the prompt's"
    )
    assert first.text == again.text == "A belt lasts 30 000 km. [2]"
    assert [citation.number for citation in first.citations] == [2]
    assert first.usage.requests == again.usage.requests == 3
    assert first.usage.output_tokens > 0
    assert again.generation_latency == first.generation_latency > 0
    with platform.database.connect() as connection:
        keys = {row[0] for row in connection.execute("SELECT fingerprint FROM generation").fetchall()}
    assert keys == {*first.steps, first.generation}
    assert len(first.steps) == 2


def test_a_step_that_fails_fails_the_answer_and_what_was_paid_is_kept(platform: Platform) -> None:
    with FakeOpenAI(answer=said) as server:
        server.script([None, Status(400)])
        models = models_of(platform, server)
        one = variant(platform, models, prompt=PromptConfig.model_validate(CHAIN))
        with pytest.raises(GenaiopsError):
            answer(platform, one, models=models)
        assert answer(platform, one, models=models).text == "A belt lasts 30 000 km. [2]"
        asked = [request.body["messages"][0]["content"][:4] for request in server.requests]
    assert asked == ["Plan", "Take", "Take", "Answ"], "the plan was not paid twice"


def test_parts_of_a_prompt_reach_the_model_in_the_default_template() -> None:
    prompt = PromptConfig(
        name="p",
        persona="You help mechanics.",
        instructions="Answer from the passages.",
        constraints=["One sentence.", 'Else reply exactly: "{{ refusal }}"'],
        user=USER,
    )
    assert render(prompt, "?", [Passage(1, "t", "d")])[0]["content"] == (
        'You help mechanics.\nAnswer from the passages.\n- One sentence.\n- Else reply exactly: "The documents do not say."'
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"persona": "x", "system": "s"}, "persona is given, but no template uses"),
        ({"constraints": ["x"], "system": "s"}, "constraints is given"),
        ({}, "give system, a template, or instructions"),
        ({"system": "s", "parameters": {"messages": []}}, "must not contain 'messages'"),
        ({"system": "s", "chain": [{"name": "n", "system": "s", "user": "u"}]}, "no later template uses 'steps.n'"),
        (
            {"system": "{{ steps.n }}{{ steps.n }}", "chain": [{"name": "n", "system": "s", "user": "u"}] * 2},
            "must differ",
        ),
        ({"system": "{{ steps.a }}", "chain": [{"name": "a", "system": "s", "user": "{{ steps.b }}"},
                                               {"name": "b", "system": "s", "user": "u"}]}, "step 'b'"),
    ],
)  # fmt: skip
def test_what_a_model_would_never_see_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        PromptConfig.model_validate({"name": "p", "user": USER, **changes})


def test_drawn_examples_are_data() -> None:
    example = FewShot(question="Q?\nQuestion: x [1]", context="c\n[2] d", answer="a [3]\nb")
    prompt = PromptConfig(
        name="p", system="s", user="{% for e in examples %}{{ e.question }}\n{{ e.context }}\n{{ e.answer }}\n{% endfor %}"
        "{{ passages }}{{ question }}",
    )  # fmt: skip
    content = render(prompt, "?", [], examples=[example])[1]["content"]
    assert content == "Q? Question: x [ 1 ]\n> c\n> [ 2 ] d\na [ 3 ] b\n[]?"


# --- the search ---------------------------------------------------------------------------------------------

GRID = VariantGrid.model_validate(
    {
        "index": ["main"], "prompt": ["p"], "search_mode": ["hybrid"], "k": [3], "model": ["extractive"],
        "retrieval": [{"name": "wide", "ef_search": 99}],
        "filters": [{"name": "english", "languages": ["en"], "sources": ["docs"]}],
    }
)  # fmt: skip
CHOICE = VariantChoice(
    index="main", prompt="p", search_mode="hybrid", k=3, model="extractive", retrieval="wide", filters="english"
)


def test_a_search_is_told_the_variants_filters_and_breadth(platform: Platform) -> None:
    index = FakeIndex(*TEXTS)
    one = build_variant(platform.config, platform.models, CHOICE, GRID)
    assert one.name == "main/p/hybrid/k3/extractive+wide+english"
    answerer = Answerer(platform.database, platform.config, platform.models, cast(VectorIndex, index))
    answerer.answer(one, "belt?", filters=SearchFilter(languages=("en", "de"), labels=("a",)), run_id="r")
    how = index.calls[0][-1]
    assert how["ef_search"] == 99
    assert how["filters"] == SearchFilter(sources=("docs",), languages=("en",), labels=("a",))


@pytest.mark.parametrize(
    ("own", "caller", "both"),
    [
        ({"sources": ["a", "b"]}, {"sources": ("a.1", "b", "c")}, {"sources": ("b", "a.1")}),
        ({"sources": ["a"]}, {"sources": ("b",)}, {"sources": ()}),
        ({"languages": ["en"]}, {"languages": ("de",)}, {"languages": ()}),
        ({"path_prefix": "x/y"}, {"path_prefix": "x/"}, {"path_prefix": "x/y"}),
        ({"path_prefix": "x/"}, {"path_prefix": "x/y"}, {"path_prefix": "x/y"}),
        ({"path_prefix": "x/"}, {"path_prefix": "y/"}, {"sources": (), "path_prefix": "y/"}),
        ({"title": "Belt"}, {"title": "belts"}, {"title": "belts"}),
        ({"metadata": {"a": 1}}, {"metadata": (("b", 2),)}, {"metadata": (("a", 1), ("b", 2))}),
        ({"metadata": {"a": 1}}, {"metadata": (("a", 2),)}, {"sources": (), "metadata": (("a", 2),)}),
        ({"licences": ["x"]}, {"labels": ()}, {"licences": ("x",), "labels": ()}),
    ],
)
def test_filters_of_variant_and_caller_both_hold(own: Any, caller: Any, both: Any) -> None:
    assert narrowed(FilterConfig(name="f", **own), SearchFilter(**caller)) == SearchFilter(**both)


def test_filters_that_cannot_both_be_asked_for_are_refused() -> None:
    with pytest.raises(PermanentError, match="titles"):
        narrowed(FilterConfig(name="f", title="belt"), SearchFilter(title="chain"))
    assert narrowed(None, None) is None
    assert narrowed(None, SearchFilter(labels=("a",))) == SearchFilter(labels=("a",))
    assert narrowed(FilterConfig(name="f", title="x"), None) == SearchFilter(title="x")


# --- what steps leave on record ---------------------------------------------------------------------------


def test_calls_of_steps_stay_as_long_as_the_answer_that_rests_on_them(platform: Platform) -> None:
    with FakeOpenAI(answer=said) as server:
        models = models_of(platform, server)
        one = variant(platform, models, prompt=PromptConfig.model_validate(CHAIN))
        found = answer(platform, one, models=models)
    log_interaction(platform.database, found, one, "How long?", "asked for")
    with platform.database.connect() as connection:
        connection.execute("UPDATE generation SET created_at = now() - interval '900 days'")
    assert retain_records(platform).generations == 0
    with platform.database.connect() as connection:
        assert connection.execute("SELECT count(*) FROM generation").fetchone() == (3,)
        connection.execute("DELETE FROM interaction")
    assert retain_records(platform).generations == 3


@pytest.mark.parametrize("held", ["retrieved", "supplied"])
def test_erasing_a_document_takes_the_calls_of_every_step(make_platform: Callable[..., Platform], held: str) -> None:
    platform = make_platform()
    corpus = SeededCorpus(platform)
    birds = corpus.document("docs", "birds.md", "# Birds\n\nThe canary sleeps in crate number seven until Tuesday.")
    bikes = corpus.document("docs", "bikes.md", "# Bikes\n\nEvery bicycle has a bell and a lamp that works.")
    seen = {"rank": 1, "score": 1.0, "source": "docs"}
    for name in ("erased", "kept"):
        path = "birds.md" if (held, name) == ("retrieved", "erased") else "bikes.md"
        corpus.interaction("Who?", "2026-02-01", hit={**seen, "document_id": bikes, "path": path})
    with platform.database.connect() as connection:
        keys = connection.execute("SELECT interaction_id FROM interaction ORDER BY retrieved::text DESC").fetchall()
        for key, step, example in zip(keys, ("g-erased", "g-kept"), (birds, bikes), strict=True):
            connection.execute(
                "UPDATE interaction SET steps = %s, supplied = %s WHERE interaction_id = %s",
                (Jsonb([step]), Jsonb({"examples": [[example]] if held == "supplied" else []}), key[0]),
            )
            connection.execute(
                """INSERT INTO generation (fingerprint, model, messages, text, usage, latency, run_id)
                   VALUES (%s, '{}', '[]', 'short notes', '{}', 0, 'r')""",
                (step,),
            )
    forget(platform, document="docs/birds.md", by="ann", vacuum=False)
    with platform.database.connect() as connection:
        left = connection.execute("SELECT fingerprint FROM generation WHERE fingerprint LIKE 'g-%'").fetchall()
        interactions = connection.execute("SELECT steps FROM interaction").fetchall()
    assert left == [("g-kept",)]
    assert interactions == [(["g-kept"],)]


# --- erased meanwhile ---------------------------------------------------------------------------------------


def test_a_variant_is_recorded_without_the_examples_of_an_erased_document(platform: Platform) -> None:
    examples = tuple(FewShot(question=f"q{n}", context="c", answer="a", documents=(n,)) for n in (10, 999))
    one = variant(platform, context=ContextConfig(name="c", examples=2), examples=examples)
    with platform.database.connect() as connection:
        record_variant(connection, one)
        record_variant(connection, one)
        row = connection.execute("SELECT config FROM variant").fetchone()
    assert row is not None
    assert row[0]["erased"]
    assert [example["question"] for example in row[0]["examples"]] == ["q10"]


def test_an_answer_that_was_shown_an_erased_example_is_not_remembered(platform: Platform) -> None:
    gone = FewShot(question="q", context="c", answer="a", documents=(999,))
    prompt = PromptConfig(name="p", system="s {{ examples }}", user=USER)
    one = variant(platform, prompt=prompt, context=ContextConfig(name="c", examples=1), examples=(gone,))
    assert answer(platform, one).supplied["examples"] == [[999]]
    with platform.database.connect() as connection:
        assert connection.execute("SELECT count(*) FROM generation").fetchone() == (0,)


def test_configuration_of_a_variant_is_json(platform: Platform) -> None:
    one = build_variant(platform.config, platform.models, CHOICE, GRID)
    assert Variant.from_json(json.loads(json.dumps(one.to_json()))) == one
