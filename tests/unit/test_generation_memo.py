"""The memo of chat calls: equal requests are paid once, other draws and parameters are other requests."""

import pytest

from resources.errors import ModelResponseError
from resources.generation_memo import GenerationMemo
from resources.postgres import Database
from tests.fake_openai import FakeOpenAI
from tests.unit.test_models import QUESTION, models


def test_draws_and_parameters_are_requests_of_their_own(database: Database) -> None:
    memo = GenerationMemo(database)
    with FakeOpenAI() as server:
        chat = models(server).chat("c")

        def ask(**how: object) -> str:
            return memo.complete(chat, QUESTION, "run", **how)[0]  # type: ignore[arg-type]

        keys = [ask(), ask(draw=1), ask(draw=2), ask(extra={"seed": 1}), ask(extra={"seed": 1}, draw=1)]
        assert len(set(keys)) == 5
        assert len(server.requests) == 5
        assert [ask(), ask(draw=0), ask(extra={}), ask(draw=2), ask(extra={"seed": 1})] == [
            keys[0], keys[0], keys[0], keys[2], keys[3],
        ]  # fmt: skip
        assert len(server.requests) == 5
        assert [request.body.get("seed") for request in server.requests] == [None, None, None, 1, 1]


@pytest.mark.parametrize("tries", [1, 2])
def test_an_unusable_answer_is_asked_for_as_often_as_wanted_and_not_kept(database: Database, tries: int) -> None:
    def refuse(text: str) -> None:
        raise ValueError("no number in it")

    with FakeOpenAI() as server:
        chat = models(server).chat("c")
        with pytest.raises(ModelResponseError, match=rf"no number in it; gave up after {tries} tries"):
            GenerationMemo(database).complete(chat, QUESTION, "run", read=refuse, tries=tries)
        assert len(server.requests) == tries
    with database.connect() as connection:
        assert connection.execute("SELECT count(*) FROM generation").fetchone() == (0,)
