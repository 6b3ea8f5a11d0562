"""shadow_comparison through Dagster on the real stages: live questions asked again, and nothing left of those that are gone."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, LiteralString

import dagster as dg
import pytest

from assets.experiments.champion import promote
from assets.governance.erasure import forget
from assets.governance.retention import retain_records
from assets.monitoring.interactions import purge
from assets.monitoring.shadow import comparing
from assets.monitoring.shadow.assets import build_assets
from pipelines.asking import answer_question
from resources.config import load_config
from resources.errors import PermanentError
from resources.platform import Platform
from resources.prompt_config import PromptConfig
from resources.prompt_labels import CANDIDATE, save, set_label
from tests.experiment_support import ELSEWHERE, PRODUCTS, UNGUARDED, USER, files, load, write_documents
from tests.lifecycle import refresh, run_experiment

BEST = "main/guarded/hybrid/k1/extractive"
CHAMPION = "main/unguarded/hybrid/k1/extractive"
MUTE = 'If the passages do not contain the answer, reply exactly: "{{ refusal }}"'
#: Shows no passage, so that there is nothing to answer from.
BLIND = "{% for passage in passages if false %}{{ passage.text }}{% endfor %}Question: {{ question }}"


@pytest.fixture
def instance() -> dg.DagsterInstance:
    return dg.DagsterInstance.ephemeral()


@pytest.fixture
def platform(make_platform: Callable[..., Platform], tmp_path: Path, instance: dg.DagsterInstance) -> Platform:
    write_documents(tmp_path / "docs")
    platform = make_platform(**files())
    load(platform, instance)
    return platform


def ask(platform: Platform, questions: list[str], **options: Any) -> list[str]:
    return [
        answer_question(platform, question, experiment="catalogue", **options).interaction for question in questions
    ]


def live(count: int = len(PRODUCTS)) -> list[str]:
    """Questions that are in no dataset."""
    return [f"In which shade is the {product} painted?" for product in PRODUCTS[:count]] + [
        f"How heavy is the {product} in kilograms?" for product in PRODUCTS[:count]
    ]


def shadow(platform: Platform, instance: dg.DagsterInstance) -> tuple[dict[str, Any], dict[str, Any]]:
    """The metadata of a real materialization, and the result of each check."""
    result = dg.materialize(
        build_assets(platform.config), partition_key="catalogue", resources={"platform": platform}, instance=instance
    )
    (event,) = result.get_asset_materialization_events()
    told = {key: getattr(value, "value", value) for key, value in event.materialization.metadata.items()}
    return told, {one.check_name: one for one in result.get_asset_check_evaluations()}


def rows(platform: Platform, query: LiteralString) -> list[Any]:
    with platform.database.connect() as connection:
        return connection.execute(query).fetchall()


def label_candidate(platform: Platform, system: str) -> None:
    """Make a version of the champion's prompt the candidate."""
    with platform.database.connect() as connection:
        prompt = PromptConfig(name="unguarded", system=system, user=BLIND if system == MUTE else USER)
        version = save(connection, prompt, rationale="to be tried on live questions", author="tester")
        set_label(connection, "unguarded", CANDIDATE, version, by="tester", reason="shadow")


def test_without_a_candidate_nothing_is_asked_and_the_checks_say_so(
    platform: Platform, instance: dg.DagsterInstance
) -> None:
    ask(platform, live()[:3])
    told, checks = shadow(platform, instance)
    assert (told["verdict"], told["candidate"], told["trials_run"]) == ("no candidate", "none", 0)
    assert checks["shadow_no_regression"].passed
    assert checks["shadow_enough_traffic"].passed
    assert rows(platform, "SELECT count(*) FROM trial WHERE starts_with(dataset, 'interactions:')") == [(0,)]


def test_the_recommended_variant_is_compared_on_live_questions_and_nothing_is_logged(
    platform: Platform, instance: dg.DagsterInstance
) -> None:
    run_experiment(platform, "catalogue", instance)
    ask(platform, [*live(), *ELSEWHERE])
    before = rows(platform, "SELECT count(*) FROM interaction")
    told, checks = shadow(platform, instance)
    assert (told["champion"], told["candidate"]) == (CHAMPION, BEST)
    assert told["verdict"] == "no worse shown", told["reason"]
    assert told["questions"] == 48
    assert told["trials_run"] == 96
    assert told["generations_paid"] <= 48, "the champion's live answers are in the memo"
    assert checks["shadow_no_regression"].passed
    assert checks["shadow_enough_traffic"].passed
    assert rows(platform, "SELECT count(*) FROM interaction") == before
    ((champion, count, report),) = rows(platform, "SELECT champion, interactions, report FROM shadow_result")
    assert (len(champion), count) == (32, 48)
    assert {row["metric"] for row in report["metrics"] if row["deciding"]} == {
        "answered", "genaiops.groundedness_lexical/2", "ragas.answer_relevance_lexical/1",
    }  # fmt: skip
    by_name = {row["metric"]: row for row in report["metrics"]}
    assert by_name["answered"]["questions"] == 32, "refusing what the documents do not hold is no loss"


def test_a_second_run_repeats_nothing_and_records_nothing_new(platform: Platform, instance: dg.DagsterInstance) -> None:
    run_experiment(platform, "catalogue", instance)
    ask(platform, live())
    shadow(platform, instance)
    told, _ = shadow(platform, instance)
    assert (told["trials_run"], told["trials_reused"], told["generations_paid"]) == (0, 64, 0)
    assert rows(platform, "SELECT count(*) FROM shadow_result") == [(1,)]
    ask(platform, ["How many kilograms has the anvil?"])
    told, _ = shadow(platform, instance)
    assert (told["trials_run"], told["trials_reused"]) == (2, 64)
    with platform.database.connect() as connection:
        connection.execute("UPDATE shadow_result SET created_at = now() - interval '400 days'")
    assert rows(platform, "SELECT count(*) FROM shadow_result") == [(2,)]
    retain_records(platform)
    assert rows(platform, "SELECT interactions FROM shadow_result") == [(33,)], "the newest stays"


def test_a_candidate_that_stops_answering_is_shown_to_be_worse(
    platform: Platform, instance: dg.DagsterInstance
) -> None:
    ask(platform, live())
    label_candidate(platform, MUTE)
    told, checks = shadow(platform, instance)
    assert told["candidate"] == "main/unguarded@candidate/hybrid/k1/extractive"
    assert told["verdict"] == "worse"
    assert not checks["shadow_no_regression"].passed
    assert checks["shadow_no_regression"].severity == dg.AssetCheckSeverity.WARN
    assert not checks["shadow_no_regression"].blocking
    with pytest.raises(PermanentError):  # and whatever a shadow finds promotes nobody
        promote(platform, "catalogue", BEST, by="tester", reason="it looked good in the shadow")


def test_a_candidate_label_on_what_answers_already_is_no_candidate(
    platform: Platform, instance: dg.DagsterInstance
) -> None:
    ask(platform, live()[:2])
    label_candidate(platform, UNGUARDED)
    told, _ = shadow(platform, instance)
    assert told["verdict"] == "no candidate"
    assert "answers already" in told["reason"]


def test_few_questions_are_told_and_decide_nothing(platform: Platform, instance: dg.DagsterInstance) -> None:
    ask(platform, live()[:5])
    label_candidate(platform, MUTE)
    told, checks = shadow(platform, instance)
    assert told["verdict"] == "too little traffic"
    assert checks["shadow_no_regression"].passed
    assert not checks["shadow_enough_traffic"].passed
    assert rows(platform, "SELECT count(*) FROM shadow_result") == [(0,)]


def test_the_same_question_is_asked_once_for_each_caller(platform: Platform) -> None:
    ask(platform, ["How heavy is the drum?", "how  heavy is the DRUM?", "How heavy is the oven?"])
    newest = ask(platform, ["How heavy is the drum? "])
    ask(platform, ["How heavy is the drum?"], labels=())
    with platform.database.connect() as connection:
        traffic = comparing.read_traffic(connection, ["main"])
        some = comparing.read_traffic(connection, ["main"], limit=2)
    assert len(traffic.questions) == 3
    assert traffic.repeated == 2
    assert newest[0] in {one.interaction_id for one in traffic.questions}
    assert {one.caller.labels for one in traffic.questions} == {None, ()}
    assert [one.interaction_id for one in some.questions] == [one.interaction_id for one in traffic.questions][:2]


def test_interactions_of_before_their_conditions_were_written_down_are_left_out_and_counted(
    platform: Platform, instance: dg.DagsterInstance
) -> None:
    ask(platform, live()[:4])
    with platform.database.connect() as connection:
        connection.execute("UPDATE interaction SET filters = NULL WHERE question LIKE '%anvil%'")
    label_candidate(platform, MUTE)
    told, checks = shadow(platform, instance)
    assert (told["questions"], told["left_out"]) == (3, 1)
    assert "1 left out" in str(checks["shadow_enough_traffic"].description)


def test_a_caller_without_labels_is_shown_no_labelled_document_in_the_shadow_either(
    make_platform: Callable[..., Platform], tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    write_documents(tmp_path / "docs")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "anvil.md").write_text("# Anvil\n\nThe anvil is painted in the secret shade vermilion.\n")
    platform = make_platform(
        **files(),
        **{
            "sources.yaml": {
                "sources": [
                    {"name": "docs", "path": str(tmp_path / "docs")},
                    {"name": "secret", "path": str(tmp_path / "secret"), "label": "staff"},
                ]
            }
        },
    )
    load(platform, instance)
    refresh(platform, "secret", instance)
    question = "In which secret shade is the anvil painted?"
    (public,) = ask(platform, [question], labels=())
    (staff,) = ask(platform, [question], labels=("staff",))
    (operator,) = ask(platform, [question])
    label_candidate(platform, MUTE)
    shadow(platform, instance)
    sources: dict[str, set[str]] = {}
    for interaction, source in rows(
        platform,
        """SELECT question_id, hit ->> 'source' FROM trial CROSS JOIN jsonb_array_elements(retrieved) hit
           WHERE starts_with(dataset, 'interactions:')""",
    ):
        sources.setdefault(interaction, set()).add(source)
    assert sources[public] == {"docs"}
    assert sources[staff] == {"secret"}
    assert sources[operator] == {"secret"}


def test_a_purged_interaction_leaves_no_trial_no_score_and_no_call(
    platform: Platform, instance: dg.DagsterInstance
) -> None:
    ask(platform, live())
    label_candidate(platform, MUTE)
    shadow(platform, instance)
    question = live()[0]
    (kept,) = rows(platform, "SELECT count(*) FROM trial WHERE starts_with(dataset, 'interactions:')")
    assert kept == (64,)
    with platform.database.connect() as connection:
        connection.execute(
            "UPDATE interaction SET asked_at = now() - interval '400 days' WHERE question = %s", (question,)
        )
    assert purge(platform.database, 365, now=datetime.now(UTC) + timedelta(days=1)) == 1
    assert rows(platform, "SELECT count(*) FROM trial WHERE starts_with(dataset, 'interactions:')") == [(62,)]
    with platform.database.connect() as connection:
        left = connection.execute(
            """SELECT count(*) FROM generation WHERE messages::text LIKE %s AND run_id <> 'cli:ask'""",
            (f"%{question}%",),
        ).fetchone()
    assert left == (0,)
    told, _ = shadow(platform, instance)
    assert told["questions"] == 31


def test_an_erased_interaction_leaves_nothing_of_its_second_answers(
    platform: Platform, instance: dg.DagsterInstance
) -> None:
    secret = "My name is Ottilie Quandt: how heavy is the anvil in kilograms?"
    ask(platform, [*live(), secret])
    label_candidate(platform, MUTE)
    shadow(platform, instance)
    assert rows(platform, "SELECT count(*) FROM trial WHERE starts_with(dataset, 'interactions:')") == [(66,)]
    proof = forget(platform, text="Ottilie Quandt", by="tester").proof
    assert proof["interaction"] == 1
    assert rows(platform, "SELECT count(*) FROM trial WHERE starts_with(dataset, 'interactions:')") == [(64,)]
    for table, column in (("generation", "messages"), ("trial", "retrieval"), ("interaction", "question")):
        query: Any = f"SELECT count(*) FROM {table} WHERE {column}::text LIKE '%Quandt%'"
        assert rows(platform, query) == [(0,)], table
    assert rows(platform, "SELECT count(*) FROM shadow_result WHERE report::text LIKE '%Quandt%'") == [(0,)]


def test_an_erased_document_takes_the_second_answers_that_used_it_along(
    platform: Platform, instance: dg.DagsterInstance
) -> None:
    ask(platform, live())
    label_candidate(platform, MUTE)
    shadow(platform, instance)
    forget(platform, document="docs/anvil.md", by="tester")
    left = rows(platform, "SELECT retrieved::text FROM trial WHERE starts_with(dataset, 'interactions:')")
    assert 0 < len(left) < 64
    assert not [text for (text,) in left if "anvil.md" in text]


def test_an_experiment_without_documents_has_no_shadow(make_data_dir: Callable[..., Path]) -> None:
    config = load_config(make_data_dir())
    assert build_assets(config) == []
