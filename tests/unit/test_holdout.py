"""Held-back questions: uses are counted by the questions seen, whatever the dataset is called."""

from collections.abc import Sequence

import pytest
from psycopg.types.json import Jsonb

from assets.evaluation.dataset import Question
from assets.evaluation.holdout import count_uses, list_uses, record_use
from resources.postgres import Database


def questions(*numbers: int, gold: tuple[int, int] = (0, 5)) -> list[Question]:
    from assets.evaluation.metrics.base import GoldSpan

    return [
        Question(
            f"q{number}", f"Question {number}?", "yes", True, "test", {}, "active", None, f"f{gold}",
            (GoldSpan(1, *gold),), ("yes", "yes indeed"),
        )
        for number in numbers
    ]  # fmt: skip


def use(
    database: Database, asked: Sequence[Question], challenger: str, *, dataset: str = "qa", champion: str = "old"
) -> int:
    with database.connect() as connection:
        return record_use(
            connection, dataset, asked, experiment="e", champion=champion, challenger=challenger, run_id="r"
        )


def uses(database: Database, asked: Sequence[Question], dataset: str = "qa") -> int:
    with database.connect() as connection:
        return count_uses(connection, dataset, asked)


def test_each_choice_is_one_use_however_often_it_is_repeated(database: Database) -> None:
    asked = questions(*range(10))
    assert [use(database, asked, name) for name in ("a", "b", "a", "b")] == [1, 2, 2, 2]
    assert use(database, asked, "a", champion="b") == 3


def test_an_edit_of_the_documents_makes_no_question_fresh(database: Database) -> None:
    use(database, questions(*range(10)), "a")
    assert use(database, questions(*range(10), gold=(90, 95)), "b") == 2


def test_another_name_of_the_dataset_makes_no_question_fresh(database: Database) -> None:
    use(database, questions(*range(10)), "a")
    assert use(database, questions(*range(10)), "b", dataset="copy") == 2


@pytest.mark.parametrize(("renewed", "expected"), [(0, 2), (1, 2), (5, 1), (10, 0)])
def test_renewed_questions_count_by_their_share_rounded_up(database: Database, renewed: int, expected: int) -> None:
    use(database, questions(*range(10)), "a")
    use(database, questions(*range(10)), "b")
    assert uses(database, questions(*range(renewed, 10 + renewed))) == expected


def test_a_choice_judged_by_a_part_and_then_by_all_is_one_use(database: Database) -> None:
    use(database, questions(*range(5)), "a")
    assert use(database, questions(*range(10)), "a") == 1


def test_no_questions_have_no_uses(database: Database) -> None:
    assert uses(database, []) == 0


def test_an_export_is_on_record_and_judges_nothing(database: Database) -> None:
    asked = questions(1, 2)
    with database.connect() as connection:
        for _ in range(2):
            record_use(connection, "qa", asked, experiment="", champion="", challenger="", purpose="export", run_id="r")
        assert count_uses(connection, "qa", asked) == 0
        assert [(one.purpose, one.questions) for one in list_uses(connection, "qa")] == [("export", 2)]


def test_confirmations_older_than_the_record_still_count_once(database: Database) -> None:
    with database.connect() as connection:
        for challenger in ("x", "x", "y"):
            confirmation = {"dataset": "qa", "champion": "old", "recommended": challenger}
            connection.execute(
                """INSERT INTO experiment_result (experiment, fingerprint, dataset_version, snapshots, leaderboard,
                       recommendation, run_id) VALUES ('e', 'f', 1, '{}', '{}', %s, 'r')""",
                (Jsonb({"confirmation": confirmation}),),
            )
    asked = questions(*range(4))
    assert uses(database, asked) == 2
    assert use(database, asked, "z") == 3
    assert use(database, asked, "x") == 3  # now on record with its questions
    assert uses(database, asked, "other") == 2  # by name only the results of that dataset


def test_no_word_of_a_question_is_kept(database: Database) -> None:
    use(database, questions(7), "a")
    with database.connect() as connection:
        assert "Question" not in str(connection.execute("SELECT * FROM holdout_use").fetchall())
