"""An experiment with every axis: examples drawn from train questions, filters, retrieval, budget; promoted, asked, erased."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from assets.experiments.champion import answering_champion, promote
from assets.experiments.examples import draw, passage_around
from assets.experiments.variants import expand, shown_prompts
from assets.governance.erasure import find_traces, forget
from assets.governance.retention import retain_records
from pipelines.asking import answer_question
from resources.errors import PermanentError
from resources.grid_config import ContextConfig
from resources.platform import Platform
from resources.prompt_labels import current_labels, label_moves
from resources.vector_index import VectorIndex
from tests.experiment_support import GUARDED, USER, files, load, questions, write_documents
from tests.lifecycle import run_experiment

ZITHER = "The zither in the hall was built by Anselm Rauchfuss in the winter of 1901."
VIOLA = "A viola stands in the vault, and its strings were last changed in spring."
EXAMPLES = "{% for e in examples %}Example: {{ e.question }}\n{{ e.context }}\nAnswer: {{ e.answer }}\n{% endfor %}"
#: The templates of a model that reads examples; the offline model looks at quotations below numbered lines only.
GRID: dict[str, Any] = {
    "index": ["main"],
    "prompt": ["guarded", "unguarded"],
    "search_mode": ["hybrid"],
    "k": [2],
    "model": ["extractive", {"name": "extractive", "parameters": {"temperature": 0.5}}],
    "retrieval": [{"name": "plain"}, {"name": "lexical", "rerank": {"kind": "lexical"}}],
    "filters": [{"name": "docs", "sources": ["docs"]}],
    "context": [{"name": "shots", "max_tokens": 200, "order": "best_last", "examples": 2, "select": "similar"}],
}
BASELINE = {
    "index": "main", "prompt": "unguarded", "search_mode": "hybrid", "k": 2, "model": "extractive",
    "retrieval": "plain", "filters": "docs", "context": "shots",
}  # fmt: skip


def train(name: str, question: str, answer: str, quote: str) -> str:
    line = {
        "id": name, "question": question, "answer": answer, "split": "train",
        "evidence": [{"document": f"docs/{name}.md", "quote": quote}],
    }  # fmt: skip
    return json.dumps(line) + "\n"


TRAIN = train("zither", "Who built the zither in the hall?", "Anselm Rauchfuss", ZITHER) + train(
    "viola", "When did the viola get its strings?", "in spring", VIOLA
)


@pytest.fixture
def instance() -> dg.DagsterInstance:
    return dg.DagsterInstance.ephemeral()


@pytest.fixture
def platform(make_platform: Callable[..., Platform], tmp_path: Path, instance: dg.DagsterInstance) -> Platform:
    write_documents(tmp_path / "docs")
    for name, text in (("zither", ZITHER), ("viola", VIOLA)):
        (tmp_path / "docs" / f"{name}.md").write_text(f"# {name.title()}\n\n{text}\n\nUnrelated.\n", encoding="utf-8")
    settings = files(grid=GRID, baseline=BASELINE)
    settings["evaluation/products.jsonl"] = questions() + TRAIN
    for name in ("guarded", "unguarded"):
        settings[f"prompts/{name}.yaml"]["user"] = EXAMPLES + USER
    settings["prompts/guarded.yaml"] = {
        "name": "guarded", "persona": "You keep the stock.", "instructions": GUARDED, "user": EXAMPLES + USER,
    }  # fmt: skip
    platform = make_platform(**settings)
    load(platform, instance)
    return platform


def rows(platform: Platform, query: str) -> list[Any]:
    with platform.database.connect() as connection:
        return connection.execute(query).fetchall()  # type: ignore[call-overload]


def test_the_whole_life_of_a_variant_with_drawn_examples(platform: Platform, instance: dg.DagsterInstance) -> None:
    experiment = platform.config.experiments["catalogue"]
    told = run_experiment(platform, "catalogue", instance)["scored_variants"]
    assert told["verdict"] == "promote"
    ((best,),) = rows(platform, "SELECT recommendation->>'recommended' FROM experiment_result")
    assert best.startswith("main/guarded/hybrid/k2/extractive")
    assert "+docs+shots" in best
    # eight variants; with the offline model parameters change no words, but they are another request
    assert rows(platform, "SELECT count(*), count(DISTINCT name) FROM variant") == [(8, 8)]
    supplied = [row[0] for row in rows(platform, "SELECT supplied FROM trial WHERE status = 'ok'")]
    assert all(0 < one["tokens"] <= 200 for one in supplied)
    documents = dict(rows(platform, "SELECT path, document_id FROM document_version"))
    drawn = {documents["zither.md"], documents["viola.md"]}
    assert {document for one in supplied for example in one["examples"] for document in example} == drawn
    assert any(one["order"] == [2, 1] for one in supplied)
    assert run_experiment(platform, "catalogue", instance)["scored_variants"]["trials_run"] == 0
    # labels follow what was decided
    with platform.database.connect() as connection:
        assert current_labels(connection, "guarded") == {"candidate": 1}
    champion = promote(platform, "catalogue", best, by="ann", reason="refuses when it should")
    with platform.database.connect() as connection:
        assert current_labels(connection, "guarded") == {"candidate": 1, "production": 1}
        assert label_moves(connection, "guarded")[-1].reason.startswith(
            f"{best} became champion {champion.champion_id}"
        )
        assert current_labels(connection, "unguarded") == {}
    # a live answer is made by the same code
    reply = answer_question(platform, "How many kilograms does the anvil weigh?")
    assert (reply.variant.fingerprint, reply.answer.text[:2]) == (champion.variant.fingerprint, "10")
    assert "Example: Who built the zither" in reply.answer.messages[1]["content"]
    assert rows(platform, "SELECT supplied->'tokens' FROM interaction") == [(reply.answer.supplied["tokens"],)]
    # retention keeps what is referred to
    with platform.database.connect() as connection:
        connection.execute("UPDATE generation SET created_at = created_at - interval '900 days'")
    retain_records(platform)
    assert rows(platform, "SELECT count(*) FROM variant") == [(8,)]
    # and erasing the document of an example takes it out of everything
    erasure = forget(platform, document="docs/zither.md", by="ann", vacuum=False)
    assert erasure.proof["variant"] == 8
    for table, column in (
        ("variant", "config"),
        ("generation", "messages"),
        ("trial", "answer"),
        ("interaction", "answer"),
    ):
        found = rows(platform, f"SELECT count(*) FROM {table} WHERE {column}::text ILIKE '%rauchfuss%'")
        assert found == [(0,)], table
    assert rows(platform, "SELECT count(*) FROM interaction") == [(0,)]
    assert not find_traces(platform, "Rauchfuss")
    assert {len(row[0]) for row in rows(platform, "SELECT config->'examples' FROM variant")} == {1}
    with (
        platform.database.connect() as connection,
        pytest.raises(PermanentError, match=r"1 answerable train questions.* was shown worked"),
    ):
        answering_champion(connection, platform.config, platform.models, experiment)
    left = {tuple(map(tuple, row[0])) for row in rows(platform, "SELECT supplied->'examples' FROM trial")}
    assert left <= {(), ((documents["viola.md"],),)}, "trials that were shown the erased example are gone"
    # when nothing but a promotion refers to variants any more, the examples of the others go
    with platform.database.connect() as connection:
        connection.execute("DELETE FROM trial")
    retain_records(platform)
    assert rows(platform, "SELECT name FROM variant") == [(best,)]


def test_examples_are_drawn_the_same_way_every_time_and_know_their_documents(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    with platform.database.connect() as connection:
        one = draw(connection, "products", ContextConfig(name="c", examples=1))
        both = draw(connection, "products", ContextConfig(name="c", examples=1, select="similar"))
        assert both[:1] == one
        assert len(both) == 2
        assert {example.context for example in both} == {ZITHER, VIOLA}, "the paragraph, not what stands around it"
        assert all(len(example.documents) == 1 for example in both)
        assert draw(connection, "products", ContextConfig(name="c", examples=1, select="similar")) == both
        with pytest.raises(PermanentError, match="wants 3 worked examples, but dataset products has 2"):
            draw(connection, "products", ContextConfig(name="c", examples=3))
        variants = expand(platform.config, platform.models, platform.config.experiments["catalogue"], connection)
    shown = shown_prompts(variants)
    assert {name: len(prompt.examples) for name, prompt in shown.items()} == {"guarded": 2, "unguarded": 2}
    assert not platform.config.prompts["guarded"].examples
    # and a breadth of a variant's own reaches the statement
    index = VectorIndex(platform.database, platform.config, platform.models)
    plan, planned = index._plan, []
    monkeypatch.setattr(index, "_plan", lambda *how: planned.append(plan(*how)) or planned[-1])
    for breadth in (321, None):
        index.search_many("main", ["anvil"], mode="vector", k=2, ef_search=breadth)
    assert planned[0].settings["hnsw.ef_search"] == "321" != planned[-1].settings["hnsw.ef_search"]


def test_the_passage_of_an_example_is_its_paragraph_in_whole_words() -> None:
    text = "Title\n\n" + "before " * 100 + "EVIDENCE" + " after" * 100 + "\n\nNext."
    start = text.index("EVIDENCE")
    passage = passage_around(text, start, start + 8)
    assert passage.startswith("before ")
    assert passage.endswith(" after")
    assert "EVIDENCE" in passage
    assert len(passage) <= 8 + 2 * 400
    assert passage_around("A b.\n\nC d e.\n\nF.", 7, 8) == "C d e."
    assert passage_around("C d e.", 0, 6) == "C d e."
