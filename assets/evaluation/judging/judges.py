"""Judges: asking a model what it thinks of an answer, as often and in as many orders as configured.

Belongs here: a judge with its fingerprint, its requests and its judgement.
Does not belong here: what is asked (prompts.py), what follows from it (measures.py), whether it is to be believed
(calibration.py), and which trials are judged (assets/experiments/scores.py).
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from assets.evaluation.judging import measures, prompts, schemas
from assets.evaluation.judging.measures import Decided, Sheet
from assets.evaluation.judging.schemas import Item, Reply
from assets.evaluation.metrics.code_version import code_version
from assets.evaluation.metrics.records import TrialRecord
from resources.fingerprint import fingerprint
from resources.generation_memo import GenerationMemo
from resources.judge_config import JudgeConfig
from resources.models import Chat, Models

#: An answer that has not the form is asked for once more, and no oftener: each try is paid for.
FORM_TRIES = 2
#: First of the seeds that are sent where a judge is asked more than once.
_SEED = 7


@dataclass(frozen=True)
class Request:
    """One request to a judge.

    Attributes:
        extra: parameters of this request; ``draw``: its number, for the memo.
        counts: how many parts of each kind are shown.
        swapped: whether the lists are shown in reverse order.
    """

    messages: list[dict[str, str]]
    extra: Mapping[str, Any]
    draw: int
    counts: Mapping[str, int]
    swapped: bool


@dataclass(frozen=True)
class Judgement:
    """What a judge says of one trial.

    Attributes:
        value: 0 to 1; None where the measure is undefined.
        items: verdicts on parts, numbered as the trial has them.
        spread, unsteady, swapped: see ``measures.Vote``.
        generations: fingerprints of the remembered calls it rests on; none where nothing had to be asked.
        sheet: what was shown, in the plain order.
    """

    value: float | None
    items: tuple[Item, ...] = ()
    spread: float = 0.0
    unsteady: float = 0.0
    swapped: float | None = None
    generations: tuple[str, ...] = ()
    sheet: Sheet | None = None


@dataclass(frozen=True)
class Judge:
    """A judge that can be asked.

    Attributes:
        fingerprint: of all that can change a verdict: task, form, model, parameters, draws, order and code.
    """

    config: JudgeConfig
    chat: Chat
    fingerprint: str

    def requests(self, sheet: Sheet) -> list[Request]:
        """What has to be asked about a sheet: each draw, in each order in which it looks different."""
        words = prompts.task(self.config)
        orders = [(sheet, False)]
        if self.config.swap and (turned := sheet.swapped()) != sheet:
            orders.append((turned, True))
        return [
            Request(
                prompts.messages(self.config, words, shown.sections()), self._extra(draw), draw, shown.counts, swapped
            )
            for shown, swapped in orders
            for draw in range(self.config.draws)
        ]

    def _extra(self, draw: int) -> dict[str, Any]:
        extra: dict[str, Any] = dict(self.config.parameters)
        if self.config.form == "json_schema":
            schema = schemas.json_schema(self.config.measures)
            extra["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": self.config.measures, "strict": True, "schema": schema},
            }
        elif self.config.form == "json_object":
            extra["response_format"] = {"type": "json_object"}
        return extra | ({"seed": _SEED + draw} if self.config.draws > 1 else {})

    def judge(
        self, record: TrialRecord, memo: GenerationMemo, run_id: str, *, documents: Collection[int] | None = None
    ) -> Judgement:
        """Judge a trial.

        Args:
            documents: whose text is shown; those of the trial's chunks by default. If one is erased meanwhile, the
                memo keeps nothing.

        Raises:
            ModelResponseError: a reply had not the form that was asked for, twice.
            BudgetExceededError: the next request might cost more than the budget leaves.
            GenaiopsError: the model did not answer; see ``Chat.complete``.
        """
        sheet = measures.prepare(self.config, record)
        if isinstance(sheet, Decided):
            return Judgement(sheet.value)
        if documents is None:
            documents = {hit.document_id for hit in (*record.read, *record.hits)}
        plain, swapped, generations = self.ask(sheet, memo, run_id, documents)
        vote = measures.vote(self.config, plain, swapped)
        return Judgement(
            vote.value, vote.items, vote.spread, vote.unsteady, vote.swapped, tuple(dict.fromkeys(generations)), sheet
        )

    def ask(
        self, sheet: Sheet, memo: GenerationMemo, run_id: str, documents: Collection[int]
    ) -> tuple[list[Reply], list[Reply], list[str]]:
        """The replies to a sheet in the plain and in the other order, numbered as in the plain one, and their calls."""
        plain: list[Reply] = []
        swapped: list[Reply] = []
        generations: list[str] = []
        for request in self.requests(sheet):
            read = partial(
                schemas.read_reply,
                self.config.measures,
                counts=request.counts,
                passages=len(sheet.passages),
                scale=self.config.scale,
            )
            key, said = memo.complete(
                self.chat,
                request.messages,
                run_id,
                read=read,
                documents=documents,
                extra=request.extra,
                draw=request.draw,
                tries=FORM_TRIES,
            )
            reply = read(said.text)
            if request.swapped:
                swapped.append(measures.in_order(reply, request.counts, len(sheet.passages)))
            else:
                plain.append(reply)
            generations.append(key)
        return plain, swapped, generations


def build_judge(config: JudgeConfig, models: Models) -> Judge:
    """The judge of a configuration, asking through ``models``.

    Raises:
        ValueError: it is an estimator, which has no model.
        PermanentError: the key of its model is missing.
    """
    if config.model is None:
        raise ValueError(f"judge {config.name} is the estimator {config.estimator}; it is not asked")
    chat = models.chat(config.model)
    return Judge(config, chat, judge_fingerprint(config, chat.fingerprint))


def judge_fingerprint(config: JudgeConfig, model: str) -> str:
    """Hash of all that can change a verdict; ``model`` is the fingerprint of its chat model."""
    shown = {"name", "description", "model", "estimator", "instructions", "allow_same_model", "calibration"}
    return fingerprint(
        {
            "settings": config.model_dump(mode="json", exclude=shown),
            "task": prompts.task(config),
            "model": model,
            "code": _code(),
        }
    )


def _code() -> str:
    return code_version(
        measures.prepare,
        measures.vote,
        measures.in_order,
        prompts.messages,
        schemas.read_reply,
        Sheet,
        Judge,
        FORM_TRIES,
    )
