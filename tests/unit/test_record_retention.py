"""Retention of records: what is old goes, what a kept result, a snapshot or an interaction refers to never does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from psycopg.types.json import Jsonb

from assets.experiments.champion import promote
from assets.governance import erasure_files, retention
from assets.governance.retention import RecordRetention, finish_erasure, retain_records
from pipelines.maintenance import build_maintenance
from resources.answerer import Answerer
from resources.errors import PermanentError
from resources.platform import Platform
from resources.vector_index import VectorIndex
from tests import experiment_support
from tests.experiment_support import load, write_documents
from tests.lifecycle import run_experiment
from tests.unit.experiment_world import World, files

OLD = 400  # days


@pytest.fixture
def platform(make_platform: Callable[..., Platform]) -> Platform:
    return make_platform(**files())


def execute(platform: Platform, statement: str, *values: Any) -> None:
    with platform.database.connect() as connection:
        connection.execute(statement, values)  # type: ignore[call-overload]


def rows(platform: Platform, query: str) -> list[Any]:
    with platform.database.connect() as connection:
        return connection.execute(query).fetchall()  # type: ignore[call-overload]


def names(platform: Platform, query: str) -> set[Any]:
    return {row[0] for row in rows(platform, query)}


def age(platform: Platform, *tables: str, days: int = OLD, where: str = "true") -> None:
    """Let everything in these tables be so many days older."""
    for table in tables:
        execute(platform, f"UPDATE {table} SET created_at = created_at - make_interval(days => {days}) WHERE {where}")


def add_trial(platform: Platform, key: str, *, generation: str | None = None, variant: str = "v", **more: Any) -> None:
    execute(
        platform,
        "INSERT INTO variant (fingerprint, name, config) VALUES (%s, 'v', '{}') ON CONFLICT DO NOTHING",
        variant,
    )
    execute(
        platform,
        """INSERT INTO trial (fingerprint, experiment, variant, index_name, snapshot, dataset, dataset_version, question_id,
               status, retrieved, generation, retrieval, run_id)
           VALUES (%s, 'trial-run', %s, 'main', 1, 'facts', 1, 'q', 'ok', '[]', %s, %s, 'r')""",
        key, variant, generation, Jsonb(more.get("retrieval", {})),
    )  # fmt: skip
    execute(platform, "INSERT INTO trial_score (trial, metric, value) VALUES (%s, 'm', 1)", key)


def add_result(
    platform: Platform,
    experiment: str,
    *trials: str,
    version: int = 1,
    variants: tuple[str, ...] = (),
    link: bool = True,
) -> int:
    leaderboard = {"dataset": "facts", "rows": [{"fingerprint": name} for name in variants]}
    with platform.database.connect() as connection:
        row = connection.execute(
            """INSERT INTO experiment_result
                   (experiment, fingerprint, dataset_version, snapshots, leaderboard, recommendation, run_id)
               VALUES (%s, gen_random_uuid()::text, %s, '{}', %s, '{}', 'r') RETURNING result_id, fingerprint""",
            (experiment, version, Jsonb(leaderboard)),
        ).fetchone()
        assert row is not None
        for trial in trials if link else ():
            connection.execute("INSERT INTO result_trial VALUES (%s, %s)", (row[0], trial))
        connection.execute(
            """INSERT INTO evidence (kind, subject, fingerprint, check_name, passed, blocking, details, run_id)
               VALUES ('experiment', %s, %s, 'trials_complete', true, true, '{}', 'r')""",
            (experiment, row[1]),
        )
    return row[0]


def add_generation(platform: Platform, key: str) -> None:
    execute(
        platform,
        """INSERT INTO generation (fingerprint, model, messages, text, usage, latency, run_id)
           VALUES (%s, '{}', '[]', 'text', '{}', 0, 'r')""",
        key,
    )


def add_evidence(platform: Platform, kind: str, subject: str, key: str, check: str = "c") -> None:
    execute(
        platform,
        """INSERT INTO evidence (kind, subject, fingerprint, check_name, passed, blocking, details, run_id)
           VALUES (%s, %s, %s, %s, true, true, '{}', 'r')""",
        kind, subject, key, check,
    )  # fmt: skip


# --- trials and results


def test_trials_go_with_the_last_result_that_rests_on_them(platform: Platform) -> None:
    for name in ("first", "promoted", "shared", "newest", "other", "nobody"):
        add_trial(platform, name)
    add_result(platform, "trial-run", "first", "shared")
    promoted = add_result(platform, "trial-run", "promoted")
    add_result(platform, "trial-run", "newest", "shared")
    add_result(platform, "elsewhere", "other")
    execute(
        platform,
        "INSERT INTO champion (experiment, variant, result_id, reason, set_by) VALUES ('trial-run', 'v', %s, 'r', 'ann')",
        promoted,
    )
    assert retain_records(platform) == RecordRetention(), "nothing is old"
    age(platform, "trial", "experiment_result")
    add_trial(platform, "young")
    kept = retain_records(platform)
    assert kept.trials == 2
    assert names(platform, "SELECT fingerprint FROM trial") == {"promoted", "shared", "newest", "other", "young"}
    assert names(platform, "SELECT trial FROM trial_score") == names(platform, "SELECT fingerprint FROM trial")
    assert len(rows(platform, "SELECT FROM experiment_result")) == 4, "results are numbers, and counted"
    assert retain_records(platform) == RecordRetention()


def test_result_younger_than_its_trials_keeps_them(platform: Platform) -> None:
    add_trial(platform, "old")
    add_result(platform, "trial-run", "old")
    add_result(platform, "trial-run")
    age(platform, "trial")
    assert retain_records(platform).trials == 0
    age(platform, "experiment_result")
    assert retain_records(platform).trials == 1


def test_result_that_did_not_write_down_its_trials_keeps_those_of_its_variants(platform: Platform) -> None:
    add_trial(platform, "its own", variant="v1")
    add_trial(platform, "another", variant="v2")
    add_result(platform, "trial-run", variants=("v1",), link=False)
    age(platform, "trial", "experiment_result")
    assert retain_records(platform).trials == 1
    assert names(platform, "SELECT fingerprint FROM trial") == {"its own"}


def test_many_rows_go_in_batches(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH_ROWS", 7)
    for number in range(30):
        add_trial(platform, f"t{number}")
    age(platform, "trial")
    assert retain_records(platform).trials == 30


def test_what_does_not_fit_into_one_night_is_left_for_the_next(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        add_trial(platform, f"t{number}", generation=f"g{number}")
        add_generation(platform, f"g{number}")
    age(platform, "trial", "generation")
    monkeypatch.setattr(retention, "MAXIMUM_SECONDS", -1.0)
    assert retain_records(platform) == RecordRetention(unfinished=True)
    monkeypatch.undo()
    kept = retain_records(platform)
    assert (kept.trials, kept.generations, kept.unfinished) == (5, 5, False)


def test_kill_between_two_steps_leaves_a_state_the_next_night_finishes(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_trial(platform, "old")
    age(platform, "trial")

    class Killed(Exception):
        pass

    def die(name: str) -> None:
        raise Killed

    monkeypatch.setattr(retention, "crash_point", die)
    with pytest.raises(Killed):
        retain_records(platform)
    monkeypatch.undo()
    assert names(platform, "SELECT fingerprint FROM trial") == set()
    assert retain_records(platform) == RecordRetention()


@pytest.mark.parametrize("resource", ["experiment:trial-run", "dataset:facts", "erasure"])
def test_nothing_is_removed_while_somebody_writes(platform: Platform, resource: str) -> None:
    add_trial(platform, "old")
    age(platform, "trial")
    with platform.database.lease(resource, "a run"):
        kept = retain_records(platform, wait_seconds=0)
    assert "a run" in kept.skipped
    assert names(platform, "SELECT fingerprint FROM trial") == {"old"}
    assert retain_records(platform).trials == 1


# --- model calls and searches


def test_model_calls_stay_while_anything_refers_to_them(platform: Platform) -> None:
    world = World(platform)
    world.write("bell.md", "the bell is red")
    world.publish()
    for name in (
        "of a trial",
        "reworded",
        "reranked",
        "asked",
        "asked reworded",
        "of a search",
        "nobody",
        "of a gone trial",
    ):
        add_generation(platform, name)
    steps = {"queries": [{"generation": "reworded"}, {"generation": None}], "steps": [{"generations": ["reranked"]}]}
    add_trial(platform, "t", generation="of a trial", retrieval=steps)
    add_trial(platform, "gone", generation="of a gone trial")
    add_result(platform, "trial-run", "t")
    execute(
        platform,
        """INSERT INTO interaction (interaction_id, question, answer, refused, citations, retrieved, index_name, snapshot,
               variant, variant_reason, generation, usage, latency, retrieval)
           VALUES (gen_random_uuid(), 'q', 'a', false, '[]', '[]', 'main', 1, 'v', 'r', 'asked', '{}', 0, %s)""",
        Jsonb({"queries": [{"generation": "asked reworded"}]}),
    )
    execute(
        platform,
        """INSERT INTO retrieval (key, index_name, snapshot, hits, trace, latency, run_id)
           VALUES ('k', 'main', 1, '[]', %s, 0, 'r')""",
        Jsonb({"queries": [{"generation": "of a search"}]}),
    )
    age(platform, "generation", "trial", "experiment_result")
    add_generation(platform, "young")
    kept = retain_records(platform)
    assert (kept.trials, kept.generations, kept.searches) == (1, 2, 0)
    assert names(platform, "SELECT fingerprint FROM generation") == {
        "of a trial", "reworded", "reranked", "asked", "asked reworded", "of a search", "young",
    }  # fmt: skip
    age(platform, "retrieval")
    kept = retain_records(platform)
    assert (kept.searches, kept.generations) == (1, 1)
    assert "of a search" not in names(platform, "SELECT fingerprint FROM generation")


# --- results of checks


def test_evidence_that_decides_something_stays(platform: Platform) -> None:
    world = World(platform)
    world.publish()
    add_evidence(platform, "documents", "docs", "former")
    add_evidence(platform, "documents", "docs", "present")
    add_evidence(platform, "evaluation_dataset", "facts", "content", "suite")
    add_evidence(platform, "evaluation_dataset", "facts", "content", "suite")  # the same again, another night
    add_evidence(platform, "evaluation_dataset", "facts", "prompts", "few_shot_leakage")
    add_evidence(platform, "index_stage", "main@1", "published")
    add_evidence(platform, "index_stage", "main@99", "was not published")
    for _ in range(3):
        add_result(platform, "trial-run")
    execute(
        platform,
        """INSERT INTO variant (fingerprint, name, config) VALUES ('v', 'v', '{}');
           INSERT INTO champion (experiment, variant, result_id, reason, set_by)
           SELECT 'trial-run', 'v', min(result_id), 'r', 'ann' FROM experiment_result""",
    )
    assert retain_records(platform).evidence == 0
    age(platform, "evidence", "experiment_result")
    assert retain_records(platform).evidence == 4
    left = rows(platform, "SELECT kind, subject, fingerprint FROM evidence WHERE kind <> 'experiment' ORDER BY 1, 2, 3")
    assert left == [
        ("documents", "docs", "present"),
        ("evaluation_dataset", "facts", "content"),
        ("evaluation_dataset", "facts", "prompts"),
        ("index_stage", "main@1", "published"),
    ]
    results = rows(platform, "SELECT fingerprint FROM experiment_result ORDER BY result_id")
    assert names(platform, "SELECT fingerprint FROM evidence WHERE kind = 'experiment'") == {
        results[0][0],
        results[2][0],
    }


# --- versions of datasets


def test_old_versions_of_a_dataset_go_with_their_files(make_platform: Callable[..., Platform]) -> None:
    platform = make_platform(**files(), **{"policies/retention.yaml": {"keep_dataset_versions": 2}})
    world = World(platform)
    world.write("bell.md", "the bell is red")
    for _ in range(6):
        world.ask({"which colour has the bell?": ("red", "bell.md")})
    folder = platform.artifacts / "evaluation" / "facts"
    folder.mkdir(parents=True)
    for version in range(1, 8):  # 7: a run that has not committed yet
        (folder / f"v{version}.parquet").write_bytes(b"")
    (folder / "notes.txt").write_text("the user's own")
    add_result(platform, "trial-run", version=2)
    assert retain_records(platform) == RecordRetention()
    age(platform, "evaluation_dataset", "experiment_result")
    kept = retain_records(platform)
    assert (kept.dataset_versions, kept.files) == (3, 3)
    for table in ("evaluation_dataset", "evaluation_question", "evaluation_evidence"):
        assert names(platform, f"SELECT version FROM {table}") == {2, 5, 6}
    assert {path.name for path in folder.iterdir()} == {
        "v2.parquet", "v5.parquet", "v6.parquet", "v7.parquet", "notes.txt",
    }  # fmt: skip
    (folder / "v1.parquet").write_bytes(b"")  # what a kill after the tables leaves
    assert retain_records(platform).files == 1


# --- the whole lifecycle, long afterwards

TABLES = ("trial", "experiment_result", "generation", "evidence", "evaluation_dataset", "retrieval")


def test_everything_still_works_a_year_later(make_platform: Callable[..., Platform], tmp_path: Path) -> None:
    instance = dg.DagsterInstance.ephemeral()
    write_documents(tmp_path / "docs")
    data = experiment_support.files()
    platform = make_platform(**data, **{"policies/retention.yaml": {"keep_dataset_versions": 1}})
    load(platform, instance)
    run_experiment(platform, "catalogue", instance)
    text = tmp_path / "docs" / "anvil.md"
    text.write_text(text.read_text() + "\nIt is forged in one piece.\n")
    load(platform, instance)
    newest = run_experiment(platform, "catalogue", instance)["scored_variants"]
    old = names(platform, "SELECT trial FROM result_trial WHERE result_id = 1") - names(
        platform, f"SELECT trial FROM result_trial WHERE result_id = {newest['result']}"
    )
    assert old, "the first result has trials of its own"
    age(platform, *TABLES)
    folder = platform.artifacts / "experiments" / "catalogue"
    (folder / "compare").mkdir()
    for page in ("1-aa-bb.html", "2-aa-bb.html"):
        (folder / "compare" / page).write_text("side by side", encoding="utf-8")

    result = build_maintenance(platform.config)[0].execute_in_process(
        resources={"platform": platform}, instance=instance
    )
    assert result.success
    assert not old & names(platform, "SELECT fingerprint FROM trial")
    assert {path.name for path in folder.iterdir()} == {"1.html", "2.html", "2.parquet", "compare"}
    assert [path.name for path in (folder / "compare").iterdir()] == ["2-aa-bb.html"]
    assert names(platform, "SELECT count(*) FROM retrieval") == {0}
    assert names(platform, "SELECT version FROM evaluation_dataset") == {2}

    ((variant,),) = rows(
        platform, "SELECT recommendation->>'recommended' FROM experiment_result ORDER BY result_id DESC LIMIT 1"
    )
    champion = promote(platform, "catalogue", variant, by="ann", reason="proven long ago")
    assert champion.proven
    answerer = Answerer(
        platform.database,
        platform.config,
        platform.models,
        VectorIndex(platform.database, platform.config, platform.models),
    )
    answer = answerer.answer(champion.variant, "How many kilograms does the drum weigh?", run_id="ask")
    assert answer.text == "13 [1]"
    again = run_experiment(platform, "catalogue", instance)["scored_variants"]
    assert (again["trials_run"], again["generations_paid"], again["trials_reused"]) == (
        0,
        0,
        newest["dagster/row_count"],
    )
    assert again["searches"] > 0, "remembered searches went by age"
    with pytest.raises(PermanentError, match="does not recommend it"):
        promote(platform, "catalogue", "main/unguarded/hybrid/k1/extractive", by="ann", reason="back")


# --- an erasure that was killed


def test_maintenance_finishes_an_erasure_whose_files_wait(platform: Platform) -> None:
    artifacts = platform.artifacts
    file, copy = artifacts / "experiments" / "out.jsonl", artifacts / "experiments" / ".out.jsonl.forget"
    file.parent.mkdir(parents=True)
    file.write_text('{"text": "secret"}\n')
    copy.write_text("")
    execute(platform, "INSERT INTO erasure (requested_by, selector, proof) VALUES ('ops', 's', '{}')")
    ((number,),) = rows(platform, "SELECT erasure_id FROM erasure")
    cleaned = erasure_files.CleanedFiles({"experiments/out.jsonl": 1}, [(file, copy)])
    erasure_files.write_journal(artifacts, number, cleaned)
    with platform.database.lease("erasure", "somebody"):
        assert "somebody" in finish_erasure(platform, wait_seconds=0)["skipped"]
    assert "secret" in file.read_text(), "the erasure that runs does it itself"
    result = build_maintenance(platform.config)[0].execute_in_process(
        resources={"platform": platform}, instance=dg.DagsterInstance.ephemeral()
    )
    assert result.success
    assert file.read_text() == ""
    assert not copy.exists()
    assert not (artifacts / erasure_files.JOURNAL).exists()
    assert finish_erasure(platform) == {"erasure_finished": None, "skipped": ""}


def test_copies_of_an_erasure_that_never_committed_are_thrown_away(platform: Platform) -> None:
    artifacts = platform.artifacts
    artifacts.mkdir(parents=True, exist_ok=True)
    file, copy = artifacts / "out.jsonl", artifacts / ".out.jsonl.forget"
    file.write_text("kept\n")
    copy.write_text("")
    erasure_files.write_journal(artifacts, 77, erasure_files.CleanedFiles({}, [(file, copy)]))
    assert finish_erasure(platform)["erasure_finished"] is None
    assert (file.read_text(), copy.exists()) == ("kept\n", False)
