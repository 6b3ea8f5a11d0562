"""Retrievals of experiments: searched for once, found again by everything that could change them, and never stale."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from assets.evaluation.dataset import Question
from assets.evaluation.metrics.base import GoldSpan, score
from assets.experiments import retrievals
from assets.experiments.planning import Trial
from assets.experiments.records import TrialOutcome, to_record
from assets.experiments.retrievals import Found, retrieve
from assets.experiments.scores import score_trials
from resources.errors import StaleLeaseError
from resources.models import Usage
from resources.platform import Platform
from resources.retrieval import Retrieved
from resources.vector_index import SearchHit, SearchResult
from tests.unit.experiment_world import FakeSearch, ScriptedAnswerer, World, files, variant

QUESTIONS = {
    "which colour has the bell?": ("red", "bell.md"),
    "which colour has the saddle?": ("black", "saddle.md"),
    "who invented the wheel?": (None, None),
}
ASKED = list(QUESTIONS)


@pytest.fixture
def world(make_platform: Callable[..., Platform]) -> World:
    world = World(make_platform(**files(maximum_failed_share=1.0)))
    world.write("bell.md", "the bell is red")
    world.write("saddle.md", "the saddle is black")
    world.publish()
    world.ask(QUESTIONS)
    return world


def find(world: World, searcher: Any, one: Any = None, asked: Sequence[str] = ASKED, **options: Any) -> Found:
    with world.database.lease("experiment:trial-run", "run") as lease:
        return retrieve(
            world.database, searcher, one or variant(), asked, world.snapshot, run_id="run", lease=lease, **options
        )


def stored(world: World) -> int:
    with world.database.connect() as connection:
        row = connection.execute("SELECT count(*) FROM retrieval").fetchone()
    assert row is not None
    return row[0]


class Changed(FakeSearch):
    """A search whose results are passed through a function."""

    change: Callable[[SearchResult], SearchResult]

    def _search(self, *arguments: Any) -> SearchResult:
        return self.change(super()._search(*arguments))


def changing(world: World, change: Callable[[SearchResult], SearchResult]) -> Changed:
    search = Changed(world)
    search.change = change
    return search


def test_what_was_found_is_not_searched_again_and_is_the_same(world: World) -> None:
    first = find(world, FakeSearch(world))
    again_with = FakeSearch(world)
    again = find(world, again_with)
    assert (first.searched, again.searched, again_with.searches) == (3, 0, [])
    assert [one.hits for one in again.results] == [one.hits for one in first.results]
    assert [one.latency for one in again.results] == [one.latency for one in first.results]
    assert {one.snapshot for one in again.results} == {1}


def test_text_is_not_kept_twice(world: World) -> None:
    find(world, FakeSearch(world))
    with world.database.connect() as connection:
        rows = connection.execute("SELECT hits::text FROM retrieval").fetchall()
    assert not any("bell is red" in text for (text,) in rows)


def test_only_new_questions_are_searched(world: World) -> None:
    find(world, FakeSearch(world), asked=ASKED[:1])
    assert find(world, FakeSearch(world)).searched == 2


def test_same_question_twice_is_searched_once(world: World) -> None:
    found = find(world, FakeSearch(world), asked=[ASKED[0], ASKED[0]])
    assert (found.searched, found.results[0]) == (1, found.results[1])


@pytest.mark.parametrize(
    "other",
    [
        variant(k=2),
        variant(mode="full_text"),
        replace(variant(), retrieval_fingerprint="other steps"),
        replace(variant(), index_fingerprint="other index"),
        replace(variant(), ef_search=200),
        replace(variant(), exact_below=1),
    ],
    ids=["k", "mode", "steps", "index", "ef_search", "exact_below"],
)
def test_everything_that_decides_what_is_found_is_in_the_key(world: World, other: Any) -> None:
    find(world, FakeSearch(world))
    assert find(world, FakeSearch(world), other).searched == 3


def test_prompt_and_model_are_not_in_the_key(world: World) -> None:
    find(world, FakeSearch(world))
    assert find(world, FakeSearch(world), variant("strict", prompt="Else.", model="m2")).searched == 0


@pytest.mark.parametrize(
    "change",
    [
        """UPDATE index_snapshot SET counts = '{"by_source": {"docs": {"content": "after an erasure"}}}'""",
        "UPDATE index_build SET fingerprint = 'other'",
        """UPDATE index_build SET config = '{"index": {"distance": "l2"}}'""",
    ],
    ids=["content", "build", "configuration"],
)
def test_snapshot_that_changed_is_searched_again(world: World, change: str) -> None:
    find(world, FakeSearch(world))
    with world.database.connect() as connection:
        connection.execute(change)  # type: ignore[call-overload]
    assert find(world, FakeSearch(world)).searched == 3


def test_other_code_searches_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    find(world, FakeSearch(world))
    monkeypatch.setattr(retrievals, "CODE_VERSION", "2")
    assert find(world, FakeSearch(world)).searched == 3


def test_next_snapshot_is_searched_and_only_what_found_something_else_is_run(world: World) -> None:
    """A new chunk may enter any list, so that nothing less than a search tells; scoring what is the same is waste."""
    answerer = ScriptedAnswerer(world.database)
    plan, work = world.run([variant()], answerer)
    assert (plan.searches, plan.remembered, work.run) == (3, 0, 3)
    world.write("saddle.md", "the saddle is black now")
    world.publish()
    world.ask(QUESTIONS)
    plan, work = world.run([variant()], answerer)
    assert (plan.searches, plan.remembered, work.run, work.reused) == (3, 0, 1, 2)
    plan, work = world.run([variant()], answerer)
    assert (plan.searches, plan.remembered, work.run, work.reused) == (0, 3, 0, 3)


def test_text_that_is_gone_or_other_is_searched_again(world: World) -> None:
    def hashed(result: SearchResult) -> SearchResult:
        return replace(result, hits=tuple(replace(hit, chunk_hash="0" * 32) for hit in result.hits))

    find(world, changing(world, hashed))
    assert find(world, FakeSearch(world)).searched == 3, "the text is not the one that was found"
    find(world, FakeSearch(world))
    with world.database.connect() as connection:
        connection.execute("DELETE FROM document_version WHERE path = 'saddle.md'")
    left = find(world, FakeSearch(world))
    assert left.searched == 1
    assert all(hit.text for one in left.results for hit in one.hits)


def test_steps_usage_and_widened_text_come_back(world: World) -> None:
    trace = {
        "mode": "vector",
        "queries": [{"text": "q"}],
        "steps": [{"step": "expand", "kind": "parent"}],
        "documents": [],
        "usage": Usage(1, 10, 5, 0.25, "EUR").to_json(),
    }

    def widened(result: SearchResult) -> SearchResult:
        hits = tuple(
            replace(hit, start=4, end=8, read_start=0, read_end=len(hit.text), score=1 / 3) for hit in result.hits
        )
        usage = Usage(**trace["usage"])  # type: ignore[arg-type]
        return Retrieved("main", result.snapshot, result.mode, hits, 0.5, usage, trace)

    first = find(world, changing(world, widened))
    again = find(world, FakeSearch(world))
    assert again.searched == 0
    assert again.results == first.results


@pytest.mark.parametrize(
    "trouble",
    [{"error": "TransientError"}, {"trace": {"steps": [{"step": "rerank", "skipped": "TransientError"}]}}],
    ids=["failed", "a step was skipped"],
)
def test_trouble_is_not_remembered(world: World, trouble: dict[str, Any]) -> None:
    def troubled(result: SearchResult) -> SearchResult:
        return Retrieved(
            "main", result.snapshot, result.mode, () if "error" in trouble else result.hits, 0.5, **trouble
        )

    find(world, changing(world, troubled))
    assert stored(world) == 0
    assert find(world, FakeSearch(world)).searched == 3


def test_erased_document_is_not_remembered(world: World) -> None:
    """The document is erased between the search and the moment it is written down."""

    def erased(result: SearchResult) -> SearchResult:
        return replace(result, hits=tuple(replace(hit, document_id=-1) for hit in result.hits))

    find(world, changing(world, erased))
    assert stored(world) == 0


def test_run_that_was_taken_over_remembers_nothing(world: World) -> None:
    def lose_lease(result: SearchResult) -> SearchResult:
        with world.database.connect() as connection:
            connection.execute("UPDATE lease SET token = token + 1, holder = 'other'")
        return result

    with pytest.raises(StaleLeaseError):
        find(world, changing(world, lose_lease))
    assert stored(world) == 0


def test_removed_snapshot_takes_its_retrievals_along(world: World) -> None:
    find(world, FakeSearch(world))
    world.publish()
    with world.database.connect() as connection:
        connection.execute("DELETE FROM index_snapshot WHERE snapshot = 1")
    assert stored(world) == 0


# --- what is read is what is scored


def widened_trial(read: tuple[int, int] | None) -> tuple[Trial, TrialOutcome]:
    """A trial whose chunk lies beside its gold span; what is read of it holds the span."""
    start, end = read or (None, None)
    hit = SearchHit(
        1, 1.0, 7, 7, "docs", "a.md", "a", 0, 100, 150, "words of the chunk", (), 1, None, read_start=start, read_end=end
    )  # fmt: skip
    question = Question("q", "question", "answer", True, "dev", {}, "active", None, "f", (GoldSpan(7, 0, 50),))
    result = SearchResult("main", 1, "vector", (hit,), 0.0)
    outcome = TrialOutcome("ok", None, 1, "answer", False, (), {}, 0.1, "g")
    return Trial(f"trial {read}", variant(), question, result, "p"), outcome


@pytest.mark.parametrize(("read", "recall", "iou"), [(None, 0.0, 0.0), ((0, 200), 1.0, 0.25)])
def test_metrics_score_what_is_read(read: tuple[int, int] | None, recall: float, iou: float) -> None:
    values = score([to_record(*widened_trial(read))], ["genaiops.recall/2", "genaiops.iou/2", "genaiops.mrr/2"])
    assert (values["genaiops.recall/2"], values["genaiops.mrr/2"]) == ([recall], [recall])
    assert values["genaiops.iou/2"] == [iou]


def test_trials_that_differ_only_in_what_is_read_are_scored_apart(world: World) -> None:
    from assets.experiments.planning import Plan

    found = [widened_trial(None), widened_trial((0, 200))]
    outcomes = {trial.fingerprint: outcome for trial, outcome in found}
    with world.database.connect() as connection:
        connection.execute("INSERT INTO variant (fingerprint, name, config) VALUES ('v', 'v', '{}')")
        for key in outcomes:
            connection.execute(
                """INSERT INTO trial (fingerprint, experiment, variant, index_name, snapshot, dataset, dataset_version,
                       question_id, status, retrieved, run_id)
                   VALUES (%s, 'e', 'v', 'main', 1, 'facts', 1, 'q', 'ok', '[]', 'r')""",
                (key,),
            )
    plan = Plan(tuple(trial for trial, _ in found), 0, 0.0)
    scores = score_trials(world.database, plan, outcomes, ["genaiops.recall/2"])
    assert [scores.values[key]["genaiops.recall/2"] for key in outcomes] == [0.0, 1.0]
