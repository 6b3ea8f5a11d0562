"""The answerer: prompt in, memoised answer with citations out; variants cover what can change an answer."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import pytest

from resources.answerer import Answer, Answerer, Variant, build_variant, is_refusal, parse_citations, strip_citations
from resources.config import ProjectConfig
from resources.errors import TransientError
from resources.experiment_config import VariantChoice
from resources.models import Models
from resources.platform import Platform
from resources.vector_index import SearchFilter, SearchHit, SearchResult, VectorIndex
from tests.fake_openai import FakeOpenAI, FastClock, Status

USER = "{% for p in passages %}[{{ p.number }}] {{ p.document }}\n{{ p.text }}\n{% endfor %}Question: {{ question }}"
FILES: dict[str, Any] = {
    "models.yaml": {
        "providers": {"offline": {"kind": "offline"}, "openai": {"kind": "openai"}},
        "embedding": [{"name": "lexical", "provider": "offline", "model": "lexical-hash", "dimensions": 64}],
        "chat": [
            {"name": "extractive", "provider": "offline", "model": "extractive"},
            {"name": "mini", "provider": "openai", "model": "chat-1", "limits": {"max_tries": 2}},
        ],
    },
    "prompts/p.yaml": {
        "name": "p",
        "system": 'Answer in one sentence or reply exactly: "{{ refusal }}"',
        "user": USER,
        "refusal": "The documents do not say.",
    },
    "prompts/q.yaml": {"name": "q", "system": "Answer.", "user": USER},
}


def hit(rank: int, text: str, **changes: Any) -> SearchHit:
    fields: dict[str, Any] = {
        "rank": rank,
        "score": 1 / rank,
        "document_id": 10 * rank,
        "version_id": 100 * rank,
        "source": "docs",
        "path": f"{rank}.md",
        "title": "T",
        "ordinal": 0,
        "start": rank,
        "end": rank + len(text),
        "text": text,
        "heading_path": ("H",),
        "vector_rank": rank,
        "text_rank": None,
    }
    return SearchHit(**{**fields, **changes})


class FakeIndex:
    """Finds the same hits for every question and remembers how it was asked."""

    def __init__(self, *texts: str) -> None:
        self.hits = tuple(hit(rank, text) for rank, text in enumerate(texts, start=1))
        self.calls: list[tuple[Any, ...]] = []

    def search_many(self, index: str, questions: Sequence[str], **how: Any) -> list[SearchResult]:
        self.calls.append((index, *questions, how))
        found = SearchResult(index=index, snapshot=how["snapshot"] or 7, mode=how["mode"], hits=self.hits, latency=0.25)
        return [found] * len(questions)


TEXTS = ("Oil the chain every 200 km.", "A belt lasts about 30 000 km.")


@pytest.fixture
def platform(make_platform: Callable[..., Platform]) -> Platform:
    platform = make_platform(**FILES)
    with platform.database.connect() as connection:  # an answer is only remembered while its documents exist
        connection.execute(
            "INSERT INTO document (document_id, source) OVERRIDING SYSTEM VALUE SELECT 10 * n, 'docs' FROM generate_series(1, 9) n"
        )
    return platform


def choice(**changes: Any) -> VariantChoice:
    fields = {"index": "main", "prompt": "p", "search_mode": "hybrid", "k": 5, "model": "extractive"}
    return VariantChoice.model_validate({**fields, **changes})


def answerer(platform: Platform, index: FakeIndex, models: Models | None = None) -> Answerer:
    return Answerer(platform.database, platform.config, models or platform.models, cast(VectorIndex, index))


def ask(platform: Platform, question: str = "How long does a belt last?", *texts: str, **changes: Any) -> Answer:
    index = FakeIndex(*(texts or TEXTS))
    variant = build_variant(platform.config, platform.models, choice(**changes))
    return answerer(platform, index).answer(variant, question, run_id="run")


def stored(platform: Platform) -> list[tuple[Any, ...]]:
    with platform.database.connect() as connection:
        return connection.execute("SELECT fingerprint, text, run_id, latency FROM generation").fetchall()


def openai(platform: Platform, server: FakeOpenAI) -> tuple[Models, Variant]:
    models = Models(platform.config.models, environment=server.environment(), clock=FastClock())
    return models, build_variant(platform.config, models, choice(model="mini"))


# --- answers --------------------------------------------------------------------------------------------


def test_an_answer_carries_what_it_rests_on(platform: Platform) -> None:
    answer = ask(platform)
    assert answer.text == "A belt lasts about 30 000 km. [2]"
    assert not answer.refused
    (citation,) = answer.citations
    assert (citation.number, citation.document_id, citation.version_id, citation.source, citation.path) == (
        2, 20, 200, "docs", "2.md",
    )  # fmt: skip
    assert (citation.start, citation.end) == (2, 2 + len(TEXTS[1]))
    assert [one.text for one in answer.hits] == list(TEXTS)
    assert "> A belt lasts" in answer.messages[1]["content"]
    assert (answer.snapshot, answer.retrieval_latency) == (7, 0.25)
    assert answer.usage.input_tokens > 0
    assert answer.generation_latency > 0
    assert stored(platform) == [(answer.generation, answer.text, "run", answer.generation_latency)]


def test_the_search_is_asked_as_the_variant_says(platform: Platform) -> None:
    index, filters = FakeIndex(*TEXTS), SearchFilter(sources=("docs",))
    variant = build_variant(platform.config, platform.models, choice(search_mode="full_text", k=3))
    answer = answerer(platform, index).answer(variant, "belt\x00?", snapshot=4, filters=filters, run_id="r")
    how = {"mode": "full_text", "k": 3, "snapshot": 4, "filters": filters, "fusion": None, "depth": 50}
    assert index.calls == [("main", "belt\ufffd?", how)]
    assert answer.snapshot == 4


def test_a_refusal_is_recognised_and_cites_nothing(platform: Platform) -> None:
    answer = ask(platform, "Who insures the company?")
    assert answer.text == "The documents do not say."
    assert answer.refused
    assert answer.citations == ()


def test_without_any_hit_the_model_is_still_asked(platform: Platform) -> None:
    variant = build_variant(platform.config, platform.models, choice())
    assert answerer(platform, FakeIndex()).answer(variant, "Anything?", run_id="r").refused


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("The documents do not say.", True),
        ('"the documents  do not say" [1]', True),
        ("Sorry. The documents do not say. Ask support.", True),
        ("", True),
        (" [1] ", True),
        ("The documents say nothing about it.", False),
        ("30 km [1]", False),
    ],
)
def test_refusals_are_recognised_by_their_words(text: str, refused: bool) -> None:
    assert is_refusal(text, "The documents do not say.") is refused


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("One [2]. Two [1][2].", [2, 1]),
        ("Both [1, 3], or [2;3].", [1, 3, 2]),
        ("All [1-3].", [1, 2, 3]),
        ("All [1–9999].", [1, 2, 3]),
        ("None: [0], [4], [99], [x], [], (1), [1 of 2], [-1].", []),
        ("Text of a document: [ 2 ].", []),
    ],
)
def test_only_marks_of_passages_that_exist_are_citations(text: str, numbers: list[int]) -> None:
    hits = [hit(rank, "text") for rank in (1, 2, 3)]
    assert [citation.number for citation in parse_citations(text, hits)] == numbers


def test_marks_are_stripped_for_comparison_with_references() -> None:
    assert strip_citations("Up to 60 W [1], or 80 W. [2, 3]") == "Up to 60 W, or 80 W."


# --- the memo -------------------------------------------------------------------------------------------


def test_the_same_messages_are_paid_once_and_keep_their_latency(platform: Platform) -> None:
    with FakeOpenAI() as server:
        models, variant = openai(platform, server)
        first = answerer(platform, FakeIndex(*TEXTS), models).answer(variant, "belt?", run_id="run-1")
        again = answerer(platform, FakeIndex(*TEXTS), models).answer(variant, "belt?", run_id="run-2")
        assert len(server.requests) == 1
    assert again == first
    assert again.usage == first.usage
    assert again.usage.output_tokens == 7


def test_anything_the_model_sees_is_part_of_the_key(platform: Platform) -> None:
    with FakeOpenAI() as server:
        models, variant = openai(platform, server)
        other_text = (TEXTS[0], TEXTS[1] + " Or more.")
        answerer(platform, FakeIndex(*TEXTS), models).answer(variant, "belt?", run_id="r")
        answerer(platform, FakeIndex(*TEXTS), models).answer(variant, "chain?", run_id="r")
        answerer(platform, FakeIndex(*other_text), models).answer(variant, "belt?", run_id="r")
        answerer(platform, FakeIndex(*reversed(TEXTS)), models).answer(variant, "belt?", run_id="r")
        changed = replace(variant, prompt=variant.prompt.model_copy(update={"system": "Answer."}))
        answerer(platform, FakeIndex(*TEXTS), models).answer(changed, "belt?", run_id="r")
        hotter = platform.config.models.model_copy(
            update={
                "chat": [model.model_copy(update={"parameters": {"seed": 2}}) for model in platform.config.models.chat]
            }
        )
        others = Models(hotter, environment=server.environment())
        answerer(platform, FakeIndex(*TEXTS), others).answer(variant, "belt?", run_id="r")
        assert len(server.requests) == 6
    assert len(stored(platform)) == 6


def test_threads_that_ask_the_same_at_once_share_one_call(platform: Platform) -> None:
    answers: list[Answer] = []
    with FakeOpenAI() as server:
        models, variant = openai(platform, server)
        shared = answerer(platform, FakeIndex(*TEXTS), models)

        def work() -> None:
            answers.append(shared.answer(variant, "belt?", run_id="r"))

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(server.requests) == 1
    assert len(answers) == 8
    assert len({answer.text for answer in answers}) == 1


def test_processes_that_answer_at_once_all_see_the_answer_on_record(platform: Platform) -> None:
    index = FakeIndex(*TEXTS)
    with FakeOpenAI() as server:
        models, variant = openai(platform, server)
        second = answerer(platform, index, models)

        def overtaken(body: dict[str, Any]) -> str:
            if len(server.requests) == 1:
                second.answer(variant, "belt?", run_id="other")  # the other process asks and stores first
                return "too late [1]"
            return "on record [1]"

        server._answer = overtaken
        assert answerer(platform, index, models).answer(variant, "belt?", run_id="r").text == "on record [1]"
    assert [row[1:3] for row in stored(platform)] == [("on record [1]", "other")]


def test_a_model_that_fails_raises_and_stores_nothing(platform: Platform) -> None:
    with FakeOpenAI(fault=lambda request: Status(500)) as server:
        models, variant = openai(platform, server)
        with pytest.raises(TransientError, match="chat model 'mini'"):
            answerer(platform, FakeIndex(*TEXTS), models).answer(variant, "belt?", run_id="r")
        assert len(server.requests) == 2
    assert stored(platform) == []


def test_an_answer_with_characters_postgres_refuses_is_stored_without_them(platform: Platform) -> None:
    with FakeOpenAI(answer="a\x00b [1]") as server:
        models, variant = openai(platform, server)
        one = answerer(platform, FakeIndex(*TEXTS), models).answer(variant, "belt?", run_id="r")
    assert one.text == "a\ufffdb [1]"
    assert stored(platform)[0][1] == "a\ufffdb [1]"


# --- variants -------------------------------------------------------------------------------------------


def test_a_variant_is_named_after_its_parts(platform: Platform) -> None:
    variant = build_variant(platform.config, platform.models, choice())
    assert variant.name == "main/p/hybrid/k5/extractive"
    assert variant.to_json()["fingerprint"] == variant.fingerprint


def test_the_fingerprint_changes_with_everything_that_can_change_an_answer(
    make_platform: Callable[..., Platform],
) -> None:
    def of(files: dict[str, Any] | None = None, **changes: Any) -> str:
        made = make_platform(**{**FILES, **(files or {})})
        config: ProjectConfig = made.config
        models = Models(config.models, environment={"OPENAI_API_KEY": "k"})
        return build_variant(config, models, choice(**changes)).fingerprint

    def models_with(kind: str, **changes: Any) -> dict[str, Any]:
        file = FILES["models.yaml"]
        return {"models.yaml": {**file, kind: [{**file[kind][0], **changes}, *file[kind][1:]]}}

    def index_with(**changes: Any) -> dict[str, Any]:
        return {"indexes/main.yaml": {"name": "main", "embedder": "lexical", **changes}}

    base = of()
    assert base == of()
    assert base == of(models_with("chat", limits={"max_tries": 1}))
    others = [
        of(k=6),
        of(search_mode="vector"),
        of(prompt="q"),
        of(model="mini"),
        of(models_with("chat", parameters={"seed": 1})),
        of(models_with("embedding", dimensions=65)),
        of(index_with(chunker={"kind": "recursive", "size": 50})),
        of(index_with(chunker={"kind": "recursive", "size": 50}, hnsw={"ef_search": 81})),
        of({"prompts/p.yaml": {**FILES["prompts/p.yaml"], "refusal": "No."}}),
    ]
    assert len({base, *others}) == len(others) + 1
