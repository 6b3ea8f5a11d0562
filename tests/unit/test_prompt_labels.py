"""The prompt store: versions with their reasons, labels that only ever gain moves, differences, and the commands."""

from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner, Result
from psycopg.types.json import Jsonb

from assets.experiments.champion import answering_champion
from assets.experiments.variants import baseline, expand, register_variants
from pipelines.cli import main
from pipelines.commands import prompts as commands
from resources.errors import ConfigError, PermanentError
from resources.platform import Platform
from resources.postgres import Connection, Database
from resources.prompt_config import PromptConfig
from resources.prompt_labels import (
    current_labels,
    difference,
    find_prompt,
    find_version,
    label_moves,
    roll_back,
    save,
    set_label,
    versions,
)
from tests.unit.experiment_world import EXPERIMENT, PROMPT, files


def prompt(system: str, **changes: Any) -> PromptConfig:
    return PromptConfig.model_validate({"name": "plain", **PROMPT, "system": system, **changes})


@pytest.fixture
def three(database: Database) -> Database:
    """Three versions of prompt plain."""
    with database.connect() as connection:
        for number in (1, 2, 3):
            assert save(connection, prompt(f"Text {number}."), rationale=f"reason {number}", author="ann") == number
    return database


def put(connection: Connection, version: int, label: str = "production") -> Any:
    return set_label(connection, "plain", label, version, by="ann", reason="better")


def back(connection: Connection, label: str = "production") -> int:
    return roll_back(connection, "plain", label, by="ann", reason="worse").version


# --- versions -----------------------------------------------------------------------------------------------


def test_a_version_keeps_its_text_reason_and_author(three: Database) -> None:
    with three.connect() as connection:
        assert save(connection, prompt("Text 2."), rationale="reason 2", author="bob") == 2, "saved again: the same"
        with pytest.raises(PermanentError, match="version 2 of prompt plain, saved by ann with another reason"):
            save(connection, prompt("Text 2."), rationale="another", author="bob")
    with three.connect() as connection:
        with pytest.raises(PermanentError, match="rationale must not be empty"):
            save(connection, prompt("Text 4."), rationale=" ", author="bob")
        known = versions(connection, "plain")
    assert [(one.version, one.rationale, one.author) for one in known] == [
        (number, f"reason {number}", "ann") for number in (3, 2, 1)
    ]
    assert known[0].prompt == prompt("Text 3.")


def test_a_version_an_experiment_recorded_gets_its_reason_later(make_platform: Callable[..., Platform]) -> None:
    platform = make_platform(**files())
    variants = expand(platform.config, platform.models, platform.config.experiments["trial-run"])
    with platform.database.connect() as connection:
        register_variants(connection, variants, "run-1")
        assert versions(connection, "plain")[0].rationale is None
        assert save(connection, platform.config.prompts["plain"], rationale="first try", author="ann") == 1
        (version,) = versions(connection, "plain")
    assert (version.rationale, version.author, version.run_id) == ("first try", "ann", "run-1")


def test_what_is_not_there_is_said_with_what_there_is(three: Database) -> None:
    with three.connect() as connection:
        for name, version, words in (
            ("plan", None, "Did you mean 'plain'"),
            ("plain", 9, "it has 1 to 3"),
            ("plain", "production", "no label 'production'; it has none"),
        ):
            with pytest.raises(PermanentError, match=words):
                find_version(connection, name, version)
        assert find_version(connection, "plain", None).version == 3
        assert find_prompt(connection, {}, "plain@2") == prompt("Text 2.")
        assert find_prompt(connection, {"plain": prompt("The file.")}, "plain") == prompt("The file.")


def test_difference_names_the_parts_that_differ(three: Database) -> None:
    changed = prompt("Text 3.", refusal="No.", parameters={"temperature": 0.5}, user=PROMPT["user"] + "\nPlease.")
    with three.connect() as connection:
        save(connection, changed, rationale="r", author="ann")
        third, fourth = find_version(connection, "plain", 3), find_version(connection, "plain", 4)
    text = difference(third, fourth)
    assert "--- plain@3 refusal\n+++ plain@4 refusal" in text
    assert "-The documents do not say.\n+No." in text
    assert "+Please." in text
    assert "+temperature: 0.5" in text
    assert "system" not in text
    assert difference(third, third) == ""


def test_results_of_a_version_are_the_newest_of_each_experiment(three: Database) -> None:
    def row(version: int, variant: str, mean: float) -> dict[str, Any]:
        return {
            "prompt": "plain",
            "prompt_version": version,
            "variant": variant,
            "n": 7,
            "decision": {"estimate": mean},
        }

    with three.connect() as connection:
        for experiment, rows in (
            ("a", [row(1, "x", 0.5)]),
            ("a", [row(1, "y", 0.25), row(1, "z", 0.75), row(2, "w", 0.125), {"variant": "of an older version"}]),
            ("b", [row(1, "v", 0.0)]),
        ):
            connection.execute(
                """INSERT INTO experiment_result
                       (experiment, fingerprint, dataset_version, snapshots, leaderboard, recommendation, run_id)
                   VALUES (%s, gen_random_uuid()::text, 1, '{}', %s, '{}', 'r')""",
                (experiment, Jsonb({"decision_metric": "m/1", "rows": rows})),
            )
        found = {one.version: one.results for one in versions(connection, "plain")}
    assert [(one["experiment"], one["variant"], one["mean"]) for one in found[1]] == [("a", "z", 0.75), ("b", "v", 0.0)]
    assert found[2][0] == {
        "experiment": "a", "result": 2, "variant": "w", "metric": "m/1", "mean": 0.125, "questions": 7,
    }  # fmt: skip
    assert found[3] == ()


# --- labels -------------------------------------------------------------------------------------------------


def test_a_label_is_a_pointer_whose_moves_all_stay(three: Database) -> None:
    with three.connect() as connection:
        assert put(connection, 1) is not None
        assert put(connection, 1) is None, "it is there already"
        put(connection, 3)
        put(connection, 2, "candidate")
        assert current_labels(connection, "plain") == {"production": 3, "candidate": 2}
        assert [one.labels for one in versions(connection, "plain")] == [("production",), ("candidate",), ()]
        assert find_version(connection, "plain", "production").version == 3
        moves = label_moves(connection, "plain", "production")
    assert [(move.version, move.kind, move.set_by, move.reason) for move in moves] == [
        (1, "set", "ann", "better"),
        (3, "set", "ann", "better"),
    ]


def test_rollback_goes_back_step_by_step_and_never_in_a_circle(three: Database) -> None:
    with three.connect() as connection:
        for version in (1, 2, 3):
            put(connection, version)
        assert [back(connection), back(connection)] == [2, 1]
        put(connection, 3)
        assert back(connection) == 1
        kinds = [move.kind for move in label_moves(connection, "plain")]
        assert kinds == ["set", "set", "set", "rollback", "rollback", "set", "rollback"]
        with pytest.raises(PermanentError, match="names version 1 and never named another"):
            back(connection)
        with pytest.raises(PermanentError, match="'candidate' of prompt plain was never put"):
            back(connection, "candidate")


@pytest.mark.parametrize(
    ("label", "version", "reason", "words"),
    [("Production", 1, "r", "is no label"), ("x", 4, "r", "no version 4"), ("x", 1, "", "reason must not be empty")],
)
def test_a_wrong_move_is_refused(three: Database, label: str, version: int, reason: str, words: str) -> None:
    with three.connect() as connection, pytest.raises(PermanentError, match=words):
        set_label(connection, "plain", label, version, by="ann", reason=reason)


# --- grids follow versions and labels; answers do not -------------------------------------------------------


def grid(**changes: Any) -> dict[str, Any]:
    return {**EXPERIMENT["grid"], "prompt": ["plain", "plain@1", "plain@production"], "k": [1], **changes}


def test_a_grid_names_versions_and_labels(make_platform: Callable[..., Platform]) -> None:
    platform = make_platform(**files(grid=grid()))
    experiment = platform.config.experiments["trial-run"]
    with pytest.raises(PermanentError, match="on record in the database"):
        expand(platform.config, platform.models, experiment)
    with platform.database.connect() as connection:
        with pytest.raises(PermanentError, match="no version of a prompt 'plain' is on record"):
            expand(platform.config, platform.models, experiment, connection)
        save(connection, prompt("Old."), rationale="r", author="ann")
        save(connection, platform.config.prompts["plain"], rationale="r", author="ann")
        put(connection, 1)
        before = expand(platform.config, platform.models, experiment, connection)
        versions_of = register_variants(connection, before, "run")
        put(connection, 2)
        after = expand(platform.config, platform.models, experiment, connection)
    assert [one.name.split("/")[1] for one in before] == ["plain", "plain@1", "plain@production"]
    assert [one.prompt.system for one in before] == [PROMPT["system"], "Old.", "Old."]
    assert before[1].fingerprint == before[2].fingerprint, "equal content shares its trials"
    assert versions_of == {"plain": 2, "plain@1": 1, "plain@production": 1}
    moved = [one.name for one, other in zip(before, after, strict=True) if one.fingerprint != other.fingerprint]
    assert moved == ["main/plain@production/vector/k1/extractive"], "only what follows the label"


def test_the_baseline_cannot_follow_a_label(make_platform: Callable[..., Platform]) -> None:
    with pytest.raises(ConfigError, match="moving a label must not change who answers"):
        make_platform(**files(grid=grid(), baseline={**EXPERIMENT["baseline"], "prompt": "plain@production"}))
    platform = make_platform(**files(grid=grid(), baseline={**EXPERIMENT["baseline"], "prompt": "plain@1"}))
    with platform.database.connect() as connection:
        save(connection, prompt("Old."), rationale="r", author="ann")
        experiment = platform.config.experiments["trial-run"]
        assert baseline(platform.config, platform.models, experiment, connection).prompt.system == "Old."


def test_moving_a_label_never_changes_who_answers(make_platform: Callable[..., Platform]) -> None:
    platform = make_platform(**files(grid=grid()))
    experiment = platform.config.experiments["trial-run"]

    def answering(connection: Connection) -> tuple[str, str]:
        champion = answering_champion(connection, platform.config, platform.models, experiment)
        return champion.variant.prompt.system, champion.reason

    with platform.database.connect() as connection:
        save(connection, prompt("Old."), rationale="r", author="ann")
        save(connection, prompt("New."), rationale="r", author="ann")
        put(connection, 1)
        assert answering(connection)[0] == PROMPT["system"], "the baseline, whatever the labels say"
        promoted = next(
            one for one in expand(platform.config, platform.models, experiment, connection) if "@production" in one.name
        )
        register_variants(connection, [promoted], "r")
        connection.execute(
            "INSERT INTO champion (experiment, variant, reason, set_by) VALUES ('trial-run', %s, 'proven', 'ann')",
            (promoted.fingerprint,),
        )
        build = connection.execute(
            """INSERT INTO index_build (index_name, fingerprint, config, table_name, run_id, state)
               VALUES ('main', %s, '{}', 't', 'r', 'ready') RETURNING build_id""",
            (promoted.index_fingerprint,),
        ).fetchone()
        assert build is not None
        connection.execute(
            """INSERT INTO index_snapshot (index_name, snapshot, build_id, run_id, counts, sources, evidence)
               VALUES ('main', 1, %s, 'r', '{}', '{}', '{}')""",
            build,
        )
        connection.execute("INSERT INTO index_state (index_name, head, serving) VALUES ('main', 1, 1)")
        assert answering(connection) == ("Old.", "proven")
        put(connection, 2)
        assert answering(connection)[0] == "Old."
        back(connection)
        put(connection, 2)
        # the grid names a version that does not exist: the promoted one needs nothing of it
        broken = make_platform(**files(grid=grid(prompt=["plain", "plain@99"])))
        champion = answering_champion(connection, broken.config, broken.models, broken.config.experiments["trial-run"])
        assert champion.variant.prompt.system == "Old."
        assert "cannot be had: prompt plain has no version 99" in champion.reason
        # it cannot be had any more as it was: then the baseline answers, not what the label names by now
        connection.execute("UPDATE variant SET config = config || '{\"erased\": true}'")
        system, reason = answering(connection)
    assert system == PROMPT["system"]
    assert reason.startswith("baseline of trial-run: the promoted one cannot answer: it was shown worked examples")


# --- commands -----------------------------------------------------------------------------------------------


@pytest.fixture
def shell(make_platform: Callable[..., Platform], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    platform = make_platform(**files())
    monkeypatch.setattr(commands, "open_platform", lambda: platform)
    return lambda *arguments: CliRunner().invoke(main, ["prompts", *arguments])


def test_commands_save_label_roll_back_and_show(shell: Callable[..., Result]) -> None:
    assert "No prompt is on record yet" in shell("list").output
    assert shell("save", "plain", "--rationale", "first try", "--author", "ann").output == "saved as plain@1\n"
    assert shell("save", "strict", "--rationale", "stricter").exit_code == 0
    moved = shell("label", "plain", "1", "production", "--reason", "good enough")
    assert moved.output.startswith("production names plain@1 now. Who answers stays as it is")
    assert "already" in shell("label", "plain", "1", "production", "--reason", "again").output
    listed = shell("list").output.splitlines()
    assert len(listed) == 2
    assert listed[0].startswith("plain@1  ")
    assert listed[0].endswith("[production]  first try")
    assert shell("list", "strict").output.startswith("strict@1")
    shown = shell("show", "plain@production").output
    assert "by ann\n" in shown
    assert "system: Answer from the passages.\n" in shown
    assert "production put" in shown
    assert "do not differ" in shell("diff", "plain", "plain@1").output
    text = shell("diff", "plain", "strict").output
    assert "--- plain@1 system\n+++ strict@1 system" in text
    for arguments, words in (
        (("rollback", "plain", "production", "--reason", "r"), "nothing to go back to"),
        (("show", "plan"), "Did you mean 'plain'"),
        (("save", "plan", "--rationale", "r"), "Did you mean 'plain'"),
    ):
        result = shell(*arguments)
        assert result.exit_code != 0
        assert words in " ".join(result.output.split())
