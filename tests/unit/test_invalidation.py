"""Invalidation: an edit repeats exactly what used what was edited, and nothing else.

One world is run once; each case copies it, makes one edit and counts what the next run searches, asks and scores.
"""

import json
import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest
import yaml

from assets.evaluation.metrics import catalogue
from assets.evaluation.metrics.base import METRICS
from assets.experiments import leaderboard, planning, recommendation, retrievals, running
from resources.config import load_config
from resources.platform import Platform
from resources.postgres import Database
from resources.prompt_config import PromptConfig
from resources.prompt_labels import save, set_label
from tests.conftest import MODELS
from tests.experiment_support import ELSEWHERE, GUARDED, PRODUCTS, USER, sentence, write_documents
from tests.lifecycle import build_dataset, refresh

METRIC = "squad.f1/1"
DEV = 6
POINT = {"index": "main", "prompt": "plain", "search_mode": "hybrid", "k": 1, "model": "extractive"}
#: What each variant differs in from the first.
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "brief": {"prompt": "brief"},
    "pinned": {"prompt": "pinned@stable"},
    "second": {"model": "second"},
    "warm": {"model": {"name": "extractive", "parameters": {"seed": 1}}},
    "short": {"context": "short"},
    "shown": {"context": "shown"},
    "two": {"k": 2},
    "tuned": {"retrieval": "tuned"},
    "some": {"filters": "some"},
    "side": {"index": "side"},
}
#: Search settings: the first is shared by all that only differ in what is done with the passages.
SETTINGS = 5
OWN = ("two", "tuned", "some", "side")


def content(folder: Path) -> dict[str, Any]:
    """The files of the data directory."""
    main = {"embedder": "lexical", "chunker": {"kind": "markdown", "unit": "characters", "size": 400}}
    prompt = {"system": GUARDED, "user": "{% for example in examples %}{{ example.answer }}{% endfor %}" + USER}
    named = {
        "index": ["main", "side"],
        "prompt": ["plain", "brief", "pinned@stable"],
        "search_mode": ["hybrid"],
        "k": [1, 2],
    }
    return {
        "sources.yaml": {"sources": [{"name": "docs", "path": str(folder / "docs")}]},
        "models.yaml": {
            **MODELS,
            "embedding": [*MODELS["embedding"], {**MODELS["embedding"][0], "name": "small", "dimensions": 256}],
            "chat": [*MODELS["chat"], {"name": "second", "provider": "offline", "model": "extractive", "parameters": {"top_p": 1}}],
        },
        "indexes/main.yaml": {"name": "main", **main},
        "indexes/side.yaml": {"name": "side", **main, "chunker": {"kind": "markdown", "unit": "characters", "size": 300}},
        "prompts/plain.yaml": {"name": "plain", **prompt},
        "prompts/brief.yaml": {"name": "brief", **prompt, "system": f"Be brief. {GUARDED}"},
        "prompts/pinned.yaml": {"name": "pinned", **prompt, "system": f"Take care. {GUARDED}"},
        "evaluation/products.yaml": {
            "name": "products", "questions": "products.jsonl", "sources": ["docs"], "minimum_questions": 5,
        },
        "evaluation/products.jsonl": questions(),
        "experiments/catalogue.yaml": {
            "name": "catalogue",
            "dataset": "products",
            "grid": {
                **named,
                "model": ["extractive", "second", VARIANTS["warm"]["model"]],
                "retrieval": [{"name": "own"}, {"name": "tuned", "rerank": {"kind": "lexical", "candidates": 10}}],
                "filters": [{"name": "any"}, {"name": "some", "path_prefix": "c"}],
                "context": [{"name": "all"}, {"name": "short", "max_tokens": 40}, {"name": "shown", "examples": 1}],
            },
            "variants": [{**POINT, **one} for one in VARIANTS.values()],
            "baseline": POINT,
            "resamples": 1000,
        },
    }  # fmt: skip


def questions() -> str:
    """Four dev questions with an answer, two without; three to draw worked examples from."""
    lines = [_weight(number, "dev" if number < 4 else "train") for number in range(7)]
    lines += [
        {"id": f"else-{n}", "question": ELSEWHERE[n], "answer": None, "evidence": [], "split": "dev"} for n in range(2)
    ]
    return "".join(json.dumps(line) + "\n" for line in lines)  # fmt: skip


def _weight(number: int, split: str) -> dict[str, Any]:
    product = PRODUCTS[number]
    return {
        "id": f"weight-{product}",
        "question": f"How many kilograms does the {product} weigh?",
        "answer": f"{10 + number} kilograms",
        "evidence": [{"document": f"docs/{product}.md", "quote": sentence(product)}],
        "split": split,
    }


@dataclass
class World:
    """A data directory with its database."""

    folder: Path
    database: Database

    @property
    def platform(self) -> Platform:
        """On the files as they are now."""
        return Platform(config=load_config(self.folder / "data"), database=self.database, artifacts=self.folder / "out")

    def write(self, files: dict[str, Any]) -> None:
        for name, value in files.items():
            path = self.folder / "data" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            text = value if isinstance(value, str) else yaml.safe_dump(value, sort_keys=False)
            path.write_text(text, encoding="utf-8")

    def edit(self, name: str, change: Callable[[Any], Any]) -> None:
        """Change a YAML file in place."""
        path = self.folder / "data" / name
        value = yaml.safe_load(path.read_text("utf-8"))
        self.write({name: change(value) or value})

    def line(self, name: str, /, **changed: Any) -> None:
        """Change a question."""
        path = self.folder / "data" / "evaluation" / "products.jsonl"
        lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        edited = [{**line, **changed} if line["id"] == name else line for line in lines]
        path.write_text("".join(json.dumps(line) + "\n" for line in edited), encoding="utf-8")

    def rebuild(self, *, corpus: bool = True) -> None:
        """Bring index and dataset up to date with the files."""
        with dg.DagsterInstance.ephemeral() as instance:
            if corpus:
                refresh(self.platform, "docs", instance)
            build_dataset(self.platform, "products", instance)

    def run(self) -> "Work":
        """Measure the experiment, and say what that took."""
        platform, run_id = self.platform, uuid.uuid4().hex
        with (
            platform.database.lease("experiment:catalogue", run_id) as lease,
            running.prepared(platform, "catalogue", run_id, lease) as experiment,
        ):
            found = running.measure(experiment)
            result = running._result_fingerprint(experiment, found, {})
        assert found.work.failed == 0
        return Work(found.plan.searches, found.work.run, found.work.generations, found.scores.computed, result)


@dataclass(frozen=True)
class Work:
    """What a run took: questions searched for, trials run, model calls made, (trial, metric) pairs computed."""

    searches: int
    trials: int
    calls: int
    scores: int
    result: str


@dataclass(frozen=True)
class Base:
    """The world after its first run, to be copied."""

    folder: Path
    url: str
    name: str
    work: Work


@pytest.fixture(scope="module")
def base(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Base]:
    folder, name = tmp_path_factory.mktemp("base"), f"test_{uuid.uuid4().hex[:12]}"
    _copy_database(server_url, "template_genaiops", name)
    database = Database(server_url.replace("/postgres?", f"/{name}?"))
    try:
        world = World(folder, database)
        write_documents(folder / "docs")
        world.write(content(folder))
        with database.connect() as connection:
            for number, system in enumerate((GUARDED + " Take care.", GUARDED + " Take great care."), 1):
                prompt = PromptConfig(name="pinned", system=system, user=USER)
                assert save(connection, prompt, rationale=f"try {number}", author="t") == number
            set_label(connection, "pinned", "stable", 1, by="t", reason="first")
        world.rebuild()
        work = world.run()
        assert world.run() == replace(work, searches=0, trials=0, calls=0, scores=0)
        database.close()
        _close_to_others(server_url, name)
        yield Base(folder, server_url, name, work)
    finally:
        database.close()
        _drop(server_url, name)


@pytest.fixture
def world(base: Base, tmp_path: Path) -> Iterator[World]:
    name = f"test_{uuid.uuid4().hex[:12]}"
    _copy_database(base.url, base.name, name)
    # the folder of documents stays where it is configured, unless a case edits it
    shutil.copytree(base.folder / "data", tmp_path / "data")
    database = Database(base.url.replace("/postgres?", f"/{name}?"))
    try:
        yield World(tmp_path, database)
    finally:
        database.close()
        _drop(base.url, name)


def _copy_database(url: str, template: str, name: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")  # type: ignore[arg-type]


def _close_to_others(url: str, name: str) -> None:
    """A database can only be copied while nobody, autovacuum included, is connected to it."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")  # type: ignore[arg-type]
        connection.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s", (name,))


def _drop(url: str, name: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")  # type: ignore[arg-type]


def test_first_run_makes_everything_once(base: Base) -> None:
    trials = len(VARIANTS) * DEV
    assert (base.work.searches, base.work.trials, base.work.scores) == (SETTINGS * DEV, trials, trials * len(METRICS))
    # tuned and side find what plain finds, and so ask the same; the six others ask for themselves, and so do filters
    # where they let something else through
    assert len(VARIANTS) * DEV - 2 * DEV >= base.work.calls >= 7 * DEV


# --- edits of files ----------------------------------------------------------------------------------------------------


def _experiment(change: Callable[[Any], Any]) -> Callable[[World], None]:
    return lambda world: world.edit("experiments/catalogue.yaml", change)


def _patch(axis: str, **settings: Any) -> Callable[[World], None]:
    """Edit the last entry of an axis of patches."""
    return _experiment(lambda value: value["grid"][axis][-1].update(settings))


def _variant(name: str, **changed: Any) -> Callable[[Any], None]:
    def change(value: Any) -> None:
        at = list(VARIANTS).index(name)
        value["variants"][at] |= changed
        value["grid"]["k"] = sorted({one["k"] for one in value["variants"]})
        models = [one["model"] for one in value["variants"]]
        value["grid"]["model"] = [model for at, model in enumerate(models) if model not in models[:at]]

    return change


def _index(rebuild: bool = True, **settings: Any) -> Callable[[World], None]:
    def change(world: World) -> None:
        world.edit("indexes/side.yaml", lambda value: value | settings)
        if rebuild:
            world.rebuild()

    return change


def _question(name: str, /, **changed: Any) -> Callable[[World], None]:
    def change(world: World) -> None:
        world.line(name, **changed)
        world.rebuild(corpus=False)

    return change


def _model(**changed: Any) -> Callable[[World], None]:
    return lambda world: world.edit("models.yaml", lambda value: value["chat"][-1].update(changed))


def _prompt(name: str, **changed: Any) -> Callable[[World], None]:
    return lambda world: world.edit(f"prompts/{name}.yaml", lambda value: value | changed)


def _label(world: World) -> None:
    with world.database.connect() as connection:
        set_label(connection, "pinned", "stable", 2, by="t", reason="second")


def _document(name: str, text: str | None) -> Callable[[World], None]:
    def change(world: World) -> None:
        write_documents(world.folder / "docs")
        world.edit("sources.yaml", lambda value: value["sources"][0].update(path=str(world.folder / "docs")))
        if text is None:
            (world.folder / "docs" / name).unlink()
        else:
            (world.folder / "docs" / name).write_text(text, encoding="utf-8")
        world.rebuild()

    return change


_EVERY = len(VARIANTS)
_EDITED = f"# Anvil\n\n{sentence('anvil')} It was cast in one piece.\n"
_FOREIGN = "# Xylophone\n\nQuokkas juggle.\n"


@dataclass(frozen=True)
class Case:
    """An edit, and what it must cost: questions searched for, trials, most and least calls; whether the result is another."""

    edit: Callable[[World], None]
    searches: int = 0
    trials: int = 0
    calls: int | tuple[int, int] = 0
    new: bool = True


CASES: dict[str, Case] = {
    "nothing": Case(lambda world: None, new=False),
    "a description and a budget": Case(_experiment(lambda value: value | {"description": "Other", "budget": 9}), new=False),
    # what is asked
    "prompt text": Case(_prompt("brief", system=f"Be very brief. {GUARDED}"), 0, DEV, DEV),
    "prompt refusal": Case(_prompt("brief", refusal="That is not said."), 0, DEV, DEV),
    "prompt parameters": Case(_prompt("brief", parameters={"seed": 3}), 0, DEV, DEV),
    "prompt of the most variants": Case(_prompt("plain", system=f"Please. {GUARDED}"), 0, 9 * DEV, (5 * DEV, 9 * DEV)),
    "file behind a label": Case(_prompt("pinned", system="Say anything."), new=False),
    "move of a label": Case(_label, 0, DEV, DEV),
    "model parameters": Case(_model(parameters={"top_p": 0.9}), 0, DEV, DEV),
    "price and limits of a model": Case(_model(price={"input_per_million": 1.0}, limits={"concurrency": 2}), new=False),
    "parameters of a variant": Case(
        _experiment(_variant("warm", model={"name": "extractive", "parameters": {"seed": 2}})), 0, DEV, DEV
    ),
    # what the model is shown
    "context budget": Case(
        _experiment(lambda value: value["grid"]["context"][1].update(max_tokens=16)), 0, DEV, (1, DEV)
    ),
    "context order": Case(_experiment(lambda value: value["grid"]["context"][1].update(order="best_last")), 0, DEV, (0, DEV)),
    "context compression": Case(
        _experiment(lambda value: value["grid"]["context"][1].update(compression="deduplicate")), 0, DEV, (0, DEV)
    ),
    "number of examples": Case(_patch("context", examples=2), 0, DEV, DEV),
    "an example": Case(_question(f"weight-{PRODUCTS[4]}", answer="14 kilograms in all"), 0, DEV, DEV),
    # what is searched
    "k": Case(_experiment(_variant("two", k=3)), DEV, DEV, DEV),
    "filters": Case(_patch("filters", path_prefix="a"), DEV, DEV, (1, DEV)),
    "fusion": Case(_patch("retrieval", fusion={"method": "rrf"}), DEV, DEV, (0, 2)),
    "rerank": Case(_patch("retrieval", rerank={"kind": "lexical", "candidates": 5}), DEV, DEV, (0, 2)),
    "translate": Case(_patch("retrieval", translate={"decompose": "rules"}), DEV, DEV, (0, 2)),
    "ef_search of a variant": Case(_patch("retrieval", ef_search=77), DEV, DEV, (0, 2)),
    "one more variant": Case(
        _experiment(lambda value: value["variants"].append({**POINT, "prompt": "brief", "k": 2})), 0, DEV, DEV
    ),
    "one variant less": Case(_experiment(lambda value: value["variants"].__delitem__(-1)), 0, 0, 0),
    # an index
    "chunker": Case(_index(chunker={"kind": "markdown", "unit": "characters", "size": 60}), DEV, DEV, (0, DEV)),
    "enrichment": Case(_index(enrichment={"title": True}), DEV, DEV, (0, DEV)),
    "embedder": Case(_index(embedder="small"), DEV, DEV, (0, DEV)),
    "hnsw": Case(_index(hnsw={"m": 8}), DEV, DEV, (0, DEV)),
    "breadth of the index": Case(_index(rebuild=False, hnsw={"ef_search": 99}), DEV, DEV, 0),
    # questions
    "question text": Case(
        _question("weight-anvil", question="What does the anvil weigh, in kilograms?"), SETTINGS, _EVERY, (7, _EVERY)
    ),
    "gold": Case(
        _question("weight-anvil", evidence=[{"document": "docs/anvil.md", "quote": "The anvil weighs 10 kilograms"}]),
        0, _EVERY, 0,
    ),
    "answer": Case(_question("weight-anvil", answer="10 kg"), 0, _EVERY, 0),
    "further answers": Case(_question("weight-anvil", answers=["10 kg"]), 0, _EVERY, 0),
    "tags": Case(_question("weight-anvil", tags={"topic": "metal"}), 0, 0, 0),
    "a question less": Case(_question("weight-anvil", split="test"), 0, 0, 0),
    "unanswerable question": Case(_question("else-0", question=ELSEWHERE[5]), SETTINGS, _EVERY, (7, _EVERY)),
    # documents: everything is searched again, and what is found decides the rest
    "a document nobody asks about": Case(_document("zither.md", _FOREIGN), SETTINGS * DEV, 0, 0),
    # one more: with k 2 another question finds it as well
    "a document that is found": Case(_document("anvil.md", _EDITED), SETTINGS * DEV, _EVERY + 1, (7, _EVERY + 1)),
    # statistics
    "resamples": Case(_experiment(lambda value: value | {"resamples": 2000})),
    "confidence": Case(_experiment(lambda value: value | {"confidence": 0.9})),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_edit_repeats_exactly_what_used_it(world: World, base: Base, name: str) -> None:
    case = CASES[name]
    case.edit(world)
    found = world.run()
    assert (found.searches, found.trials, found.scores) == (case.searches, case.trials, case.trials * len(METRICS))
    least, most = case.calls if isinstance(case.calls, tuple) else (case.calls, case.calls)
    assert least <= found.calls <= most
    assert (found.result != base.work.result) == case.new
    assert world.run() == replace(found, searches=0, trials=0, calls=0, scores=0)


# --- edits of code -----------------------------------------------------------------------------------------------------


def test_edited_metric_computes_its_own_scores_again(world: World, base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METRICS, METRIC, replace(METRICS[METRIC], code="another"))
    catalogue.metric_fingerprint.cache_clear()
    try:
        found = world.run()
    finally:
        catalogue.metric_fingerprint.cache_clear()
    assert (found.searches, found.trials, found.calls, found.scores) == (0, 0, 0, len(VARIANTS) * DEV)
    assert found.result != base.work.result


@pytest.mark.parametrize(
    ("module", "searches", "trials"),
    [
        (leaderboard, 0, 0),
        (recommendation, 0, 0),
        (retrievals, SETTINGS * DEV, 0),
        (planning, 0, len(VARIANTS) * DEV),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_edited_code_repeats_its_own_step_and_asks_no_model(
    world: World, base: Base, monkeypatch: pytest.MonkeyPatch, module: Any, searches: int, trials: int
) -> None:
    monkeypatch.setattr(module, "CODE_VERSION", "another")
    found = world.run()
    assert (found.searches, found.trials, found.calls) == (searches, trials, 0)  # answers are remembered by the request
    assert found.scores == trials * len(METRICS)
    assert (found.result != base.work.result) == (module is not retrievals)
