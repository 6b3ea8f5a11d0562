"""Spending: what an experiment would ask of models and what that costs, told before anything is spent.

Belongs here: the preview (calls, tokens, money, minutes), the pilot, and refusing what exceeds the budget up front.
Does not belong here: doing any of it (running.py), prices (models.yaml), and the limit on each request (resources/models.py).

A preview rehearses the run by its own code with a memo that looks calls up and, where they are not on record, counts them
instead of making them. What is retrieved is really retrieved wherever that costs nothing, and remembered for the run. Where
a model stands between question and passages, or embeds the question, passages are taken that full-text search finds, so that
prompts have about the right length.

Tokens sent are counted by us and corrected by what the provider reported for the same model before; tokens received are
guessed from what the same prompt, or else the same model, has answered before, and otherwise from the length of the reference
answers. Each figure is a range, which is narrower the more calls of the model there are on record; a pilot makes some.
"""

import math
import os
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, cast

from assets.chunks.spending import CHAT_SECONDS, EMBEDDING_SECONDS, call_seconds
from assets.evaluation.judging import measures
from assets.evaluation.metrics.catalogue import metrics_of
from assets.experiments.champion import current_champion, experiment_config
from assets.experiments.checks import decided_questions
from assets.experiments.judged import judges_of
from assets.experiments.planning import Plan, Trial, derive, plan_trials
from assets.experiments.records import TrialOutcome, read_outcomes, record_of
from assets.experiments.retrievals import remembered, retrieve
from assets.experiments.scope import Scope, resolve_scope
from assets.experiments.strategies import round_sizes
from assets.experiments.trials import MAXIMUM_ATTEMPTS, MAXIMUM_TRIES, OnRecord, TrialWork, on_record, run_trials
from assets.experiments.variants import expand, register_variants
from resources import query_translation, rerankers
from resources.answerer import Answerer
from resources.errors import BudgetExceededError, ModelResponseError
from resources.experiment_config import ExperimentConfig, SearchConfig
from resources.generation_memo import GenerationMemo, request_key
from resources.model_config import ChatModel, EmbeddingModel
from resources.models import ANSWER_TOKENS, Budget, Chat, ChatResult, Usage
from resources.offline_models import count_tokens
from resources.platform import Platform
from resources.postgres import Database, Lease
from resources.retrieval import Retriever
from resources.variants import Variant
from resources.vector_index import SearchResult, VectorIndex

Kind = Literal["answers", "retrieval", "question vectors", "judges", "confirmation"]
#: Calls on record from which a mean is taken to be that of a prompt or a model.
ENOUGH_OF_PROMPT, ENOUGH_OF_MODEL = 20, 10
#: Newest calls of a model that are looked at.
_LOOKED_AT = 400
#: Share of the spread of answers' lengths that the lengths of prompts must explain to be taken into account.
_LEAST_EXPLAINED = 0.2
#: How long a preview waits for a run of the experiment to end.
LEASE_SECONDS = 10.0
#: Stated where nothing is on record. Of what the provider counts for one token of ours: a range that the tokenizers of the
#: large providers lie in. Of answers: times the reference; of the rest: tokens.
_UNKNOWN_RATIO = (0.75, 1.0, 1.4)
_REFERENCE_FACTOR = (0.5, 1.3, 4.0)
_STATED_OUTPUT = {"retrieval": 100.0, "judges": 150.0}


@dataclass(frozen=True)
class Range:
    """An amount that is not known yet: most likely ``likely``, hardly below ``low`` or above ``high``."""

    low: float = 0.0
    likely: float = 0.0
    high: float = 0.0

    def __add__(self, other: "Range") -> "Range":
        """Add two; the ends are added too, which makes the sum rather too wide than too narrow."""
        return Range(self.low + other.low, self.likely + other.likely, self.high + other.high)

    def times(self, factor: "float | Range") -> "Range":
        """Multiply by a number or by another range."""
        by = factor if isinstance(factor, Range) else Range(factor, factor, factor)
        return Range(self.low * by.low, self.likely * by.likely, self.high * by.high)


@dataclass(frozen=True)
class Item:
    """One kind of calls to one model.

    Attributes:
        needed: calls that all of it takes; ``cached`` are on record, ``calls`` are to be made. A model that computes in this
            process is not called: it has ``needed`` and ``cached`` only.
        certain: made in every run; a confirmation only follows a recommendation.
        share: of the calls that the strategy of the experiment is likely to make; 1 for a grid.
        basis: what the tokens rest on, in words.
    """

    what: str
    kind: Kind
    model: str
    needed: int
    cached: int
    calls: int
    input_tokens: Range = Range()
    output_tokens: Range = Range()
    money: Range = Range()
    currency: str = "USD"
    seconds: float = 0.0
    certain: bool = True
    share: Range = Range(1.0, 1.0, 1.0)
    basis: str = ""


@dataclass(frozen=True)
class ExperimentPreview:
    """What a run of an experiment would ask of models.

    Attributes:
        trials: variants times questions; ``on_record`` of them are answered or given up.
        worst_tries: most requests one answer may take, in one run and over all of them, when everything fails.
        budget: of the experiment file, in its currency; None: no limit.
    """

    experiment: str
    variants: int
    questions: int
    trials: int
    on_record: int
    items: tuple[Item, ...]
    budget: float | None
    worst_tries: tuple[int, int]

    @property
    def calls(self) -> int:
        """Likely requests of what is certain."""
        return round(sum(item.calls * item.share.likely for item in self.items if item.certain))

    @property
    def cached(self) -> int:
        """Calls of what is certain that are on record."""
        return sum(item.cached for item in self.items if item.certain)

    @property
    def tokens(self) -> Range:
        """Tokens sent and received; what is not certain is in the high end alone."""
        return self._total(lambda item: item.input_tokens + item.output_tokens)

    @property
    def money(self) -> dict[str, Range]:
        """Money by currency, likewise."""
        currencies = sorted({item.currency for item in self.items if item.money.high})
        return {
            one: self._total(lambda item, one=one: item.money if item.currency == one else Range())
            for one in currencies
        }

    @property
    def seconds(self) -> float:
        """Likely wall time of the calls, one kind after the other."""
        return sum(item.seconds * item.share.likely for item in self.items if item.certain)

    def _total(self, amount: Callable[[Item], Range]) -> Range:
        total = Range()
        for item in self.items:
            found = amount(item).times(item.share)
            total += found if item.certain else Range(0.0, 0.0, found.high)
        return total

    def to_json(self) -> dict[str, Any]:
        """The fields and the totals as a JSON object."""
        totals = {
            "calls": self.calls,
            "cached": self.cached,
            "tokens": asdict(self.tokens),
            "money": {currency: asdict(amount) for currency, amount in self.money.items()},
            "minutes": round(self.seconds / 60, 2),
        }
        return {**asdict(self), "worst_tries": list(self.worst_tries), **totals}


def preview_experiment(platform: Platform, name: str, *, lease: Lease | None = None) -> ExperimentPreview:
    """What a run of an experiment would ask of models now; nothing is sent or spent.

    Searches that cost nothing are made and remembered, for which the lease of the experiment is needed.

    Args:
        lease: when the caller holds it already.

    Raises:
        PermanentError: the experiment cannot be run as it is configured.
        LeaseHeldError: it is running.
    """
    with _held(platform, name, lease) as held:
        return _Previewer(platform, name, held).run()


def refuse_beyond_budget(platform: Platform, name: str, lease: Lease) -> ExperimentPreview | None:
    """Refuse a run that would likely cost more than its budget, before anything is sent.

    Returns:
        The preview the decision rests on; None where there is no budget or no model costs anything.

    Raises:
        BudgetExceededError: what is certain to be asked would likely cost more.
    """
    experiment = experiment_config(platform.config, name)
    if experiment.budget is None or not _costs(platform, experiment):
        return None
    found = preview_experiment(platform, name, lease=lease)
    likely = {currency: amount.likely for currency, amount in found.money.items()}
    spent = sum(likely.values())
    if spent > experiment.budget:
        told = ", ".join(f"{amount:.4f} {currency}" for currency, amount in likely.items())
        raise BudgetExceededError(
            f"experiment {name}: the run would likely cost {told}, more than the budget of {experiment.budget:.4f} in "
            f"experiments/{name}.yaml. Nothing was sent: `genaiops evaluate {name} --preview` shows what for; raise the "
            "budget, or ask less (fewer variants, a strategy, fewer judges). What is on record costs nothing again."
        )
    return found


def pilot(platform: Platform, name: str, trials: int, run_id: str, *, lease: Lease | None = None) -> TrialWork:
    """Run some trials of an experiment, evenly spread over its variants and questions, so that a preview has a basis.

    They are trials like any other: the run finds them on record.

    Raises:
        ValueError: less than one trial is asked for.
        PermanentError, LeaseHeldError: as ``preview_experiment``.
    """
    if trials < 1:
        raise ValueError("a pilot needs at least one trial")
    with _held(platform, name, lease) as held:
        return _Previewer(platform, name, held).pilot(trials, run_id)


@contextmanager
def _held(platform: Platform, name: str, lease: Lease | None) -> Iterator[Lease]:
    experiment_config(platform.config, name)
    if lease is not None:
        yield lease
        return
    with platform.database.lease(f"experiment:{name}", f"preview:{os.getpid()}", wait_seconds=LEASE_SECONDS) as own:
        yield own


def _costs(platform: Platform, experiment: ExperimentConfig) -> bool:
    """Whether any model that might be asked has a price."""
    config = platform.config
    names = {*experiment.model_names}
    for index in experiment.index_names:
        names |= {model for _, model in config.indexes[index].retrieval.chat_models()}
    names |= {model for patch in experiment.grid.retrieval for model in _patch_models(patch)}
    names |= {model for judge in _judge_names(experiment) if (model := config.judges[judge].model)}
    priced = [model.price for model in config.models.chat if model.name in names]
    embedders = {config.indexes[index].embedder for index in experiment.index_names}
    priced += [model.price for model in config.models.embedding if model.name in embedders]
    return any(price.input_per_million or price.output_per_million for price in priced)


def _patch_models(patch: Any) -> list[str]:
    found = [patch.translate.model if patch.translate else None, patch.rerank.model if patch.rerank else None]
    return [model for model in found if model]


def _judge_names(experiment: ExperimentConfig) -> list[str]:
    return list(getattr(experiment, "judges", []))


def halving_share(variants: int, questions: int, decided: int, search: SearchConfig) -> Range:
    """The share of the trials of a full grid that ``strategies.halving`` asks when no search setting is beaten beforehand.

    The first round asks all variants, the last one at most the finalists and the champion. Between them scores decide: at
    least one in ``eta`` stays, at most all do because none is shown to be worse. Likely half of those that may leave do: more
    leave where variants differ much, fewer where they are alike, and the high end is what is asked when they are all alike.
    Finalists are asked the questions that do not decide too.

    Args:
        questions: of the split; ``decided`` of them have a value of the decision metric and are asked in rounds.
    """
    if not decided:
        return Range(1.0, 1.0, 1.0)
    sizes = round_sizes(decided, search.minimum_questions, search.eta)

    def share(staying: Callable[[float], float]) -> float:
        alive, before, asked = float(variants), 0, 0.0
        for number, size in enumerate(sizes, 1):
            if number > 1:
                alive = staying(alive)
            if 1 < number == len(sizes):
                alive = min(alive, search.finalists + 1)
            asked += alive * (size - before)
            before = size
        return min(1.0, (asked + alive * (questions - decided)) / (variants * questions))

    def least(alive: float) -> float:
        return math.ceil(alive / search.eta)

    return Range(share(least), share(lambda alive: (alive + least(alive)) / 2), share(lambda alive: alive))


# --- rehearsing ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Call:
    """A call that would be made."""

    chat: Chat
    system: str
    sent: int  # tokens, counted by us
    limit: int  # most tokens of the answer
    reference: float  # tokens of the reference answer, 0 where there is none


class _Meter(GenerationMemo):
    """Looks calls up and counts those that are not on record; nothing is sent.

    Attributes:
        calls: by kind, what would be made.
        met: by kind and model, the keys of all calls, on record or not.
    """

    def __init__(self, database: Database, history: "_History") -> None:
        super().__init__(database)
        self.kind: Kind = "answers"
        self.calls: dict[Kind, dict[str, _Call]] = defaultdict(dict)
        self.met: dict[tuple[Kind, str], set[str]] = defaultdict(set)
        self.stand_in = ""
        self.reference = 0.0
        self._history = history
        self._guard = threading.Lock()

    def complete(
        self, chat: Chat, messages: list[dict[str, str]], run_id: str, **options: Any
    ) -> tuple[str, ChatResult]:  # type: ignore[override]
        """The answer on record, or a stand-in for it."""
        extra, draw = options.get("extra"), options.get("draw", 0)
        key = request_key(chat, messages, extra, draw)
        with self._guard:
            self.met[self.kind, chat.config.name].add(key)
        if key in self._history.keys(chat) and (known := self._stored(key)) is not None:
            return key, known
        estimate = chat.estimate(messages, extra=extra)
        call = _Call(chat, messages[0]["content"], estimate.input_tokens, estimate.output_tokens, self.reference)
        with self._guard:
            self.calls[self.kind].setdefault(key, call)
        read = options.get("read", lambda text: text)
        return key, ChatResult(_acceptable(self.stand_in, read), Usage(), 0.0, chat.config.model, "stop")


def _acceptable(stand_in: str, read: Callable[[str], Any]) -> str:
    """A text that has the form that was asked for: any for an answer, JSON for the steps of retrieval."""
    grades = ('{"grades": {' + ", ".join(f'"{at}": 5' for at in range(1, count + 1)) + "}}" for count in range(1, 101))
    for text in (stand_in, '{"queries": []}', f'{{"passage": "{"words " * 60}"}}', *grades):
        try:
            read(text)
        except ValueError:
            continue
        return text
    raise ModelResponseError("no stand-in has the form of the answer")


class _FreeSearch:
    """Searches without a question being embedded by a model that is paid: full text stands in for vectors then.

    Attributes:
        texts: by embedding model, the questions it would embed.
    """

    def __init__(self, index: VectorIndex, platform: Platform) -> None:
        self._index, self._platform = index, platform
        self.texts: dict[str, set[str]] = defaultdict(set)

    def search_many(self, index: str, questions: Sequence[str], *, mode: Any, **options: Any) -> list[SearchResult]:
        """As ``VectorIndex.search_many``."""
        embedder = self._platform.config.indexes[index].embedder
        if mode == "full_text" or _in_process(self._platform, embedder):
            return self._index.search_many(index, questions, mode=mode, **options)
        self.texts[embedder].update(questions)
        return self._index.search_many(index, questions, mode="full_text", **{**options, "fusion": None})


class _Rehearsal(Answerer):
    """Answers from a meter instead of models."""

    def __init__(self, platform: Platform, meter: _Meter, search: _FreeSearch) -> None:
        super().__init__(platform.database, platform.config, platform.models, search)  # type: ignore[arg-type]
        self._memo = meter
        self.retriever = Retriever(platform.database, platform.models, search, meter)  # type: ignore[arg-type]


def _in_process(platform: Platform, embedder: str) -> bool:
    config = platform.config.models
    provider = next(model.provider for model in config.embedding if model.name == embedder)
    return config.providers[provider].kind != "openai"


def _is_called(platform: Platform, chat: str) -> bool:
    config = platform.config
    return config.models.providers[config.chat_model(chat).provider].kind == "openai"


# --- what is on record of a model --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Made:
    """Calls of one model that were made."""

    system: str
    counted: int
    sent: int
    received: int
    latency: float
    answer: bool


@dataclass
class _History:
    """Past calls, by model."""

    database: Database
    _made: dict[str, list[_Made]] = field(default_factory=dict)
    _keys: dict[str, frozenset[str]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def keys(self, chat: Chat) -> frozenset[str]:
        """Fingerprints of all calls of a model that are on record."""
        with self._lock:
            if chat.fingerprint not in self._keys:
                with self.database.connect() as connection:
                    rows = connection.execute(
                        "SELECT fingerprint FROM generation WHERE model ->> 'fingerprint' = %s", (chat.fingerprint,)
                    ).fetchall()
                self._keys[chat.fingerprint] = frozenset(row[0] for row in rows)
            return self._keys[chat.fingerprint]

    def made(self, chat: Chat) -> list[_Made]:
        """The newest calls of a model that took one request each."""
        if chat.fingerprint not in self._made:
            with self.database.connect() as connection:
                rows = connection.execute(
                    """SELECT messages, usage, latency, EXISTS (SELECT FROM trial WHERE generation = g.fingerprint)
                       FROM generation g WHERE model ->> 'fingerprint' = %s AND (usage ->> 'requests')::int = 1
                       ORDER BY created_at DESC, fingerprint LIMIT %s""",
                    (chat.fingerprint, _LOOKED_AT),
                ).fetchall()
            self._made[chat.fingerprint] = [
                _Made(
                    messages[0]["content"],
                    chat.estimate(messages).input_tokens,
                    usage["input_tokens"],
                    usage["output_tokens"],
                    latency,
                    answer,
                )
                for messages, usage, latency, answer in rows
            ]
        return self._made[chat.fingerprint]

    def ratio(self, chat: Chat) -> tuple[Range, int]:
        """What the provider counts for a token of ours, and the number of calls it rests on."""
        made = [one for one in self.made(chat) if one.counted and one.sent]
        if len(made) < ENOUGH_OF_MODEL:
            return Range(*_UNKNOWN_RATIO), 0
        ratio = sum(one.sent for one in made) / sum(one.counted for one in made)
        spread = max(0.02, 2 * _deviation([one.sent / one.counted / ratio for one in made]) / math.sqrt(len(made)))
        return Range(ratio * (1 - spread), ratio, ratio * (1 + spread)), len(made)

    def output(self, call: _Call, kind: Kind) -> tuple[Range, str]:
        """Tokens of one answer, and what they rest on."""
        made = self.made(call.chat)
        alone = [one for one in made if one.system == call.system]
        same = [one.received for one in alone]
        if len(same) >= ENOUGH_OF_PROMPT:
            return _mean(same, call.limit).times(_growth(alone, call.sent)), "past calls of the same prompt"
        alike = [one.received for one in made if one.answer == (kind == "answers")]
        if len(alike) >= ENOUGH_OF_MODEL:
            # as if as many calls of the model as are enough had been of this prompt
            whole = sum(alike) / len(alike)
            mean = (sum(same) + ENOUGH_OF_MODEL * whole) / (len(same) + ENOUGH_OF_MODEL)
            found = _mean(alike, call.limit)
            return found.times(mean / whole if whole else 1.0), "past calls of the model"
        if call.reference:
            low, likely, high = (min(call.limit, call.reference * factor) for factor in _REFERENCE_FACTOR)
            return Range(low, likely, max(high, likely)), "the reference answers"
        stated = _STATED_OUTPUT.get(kind)
        if stated is not None:
            return Range(min(call.limit, stated / 3), min(call.limit, stated), float(call.limit)), "stated lengths"
        return Range(1.0, call.limit / 4, float(call.limit)), "the limit of the model"

    def latency(self, chat: Chat) -> float | None:
        """Mean seconds of a call; None where none was made."""
        made = self.made(chat)
        return sum(one.latency for one in made) / len(made) if made else None


def _growth(made: Sequence[_Made], sent: int) -> float:
    """How much longer than on average the answer to a prompt of ``sent`` tokens (ours) is, by a line through past calls.

    1 where length of prompt and answer have little to do with each other, and never beyond half or three times the mean.
    """
    x, y = [float(one.counted) for one in made], [float(one.received) for one in made]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    var_x, var_y = sum((one - mean_x) ** 2 for one in x), sum((one - mean_y) ** 2 for one in y)
    if not var_x or not var_y:
        return 1.0
    shared = sum((one - mean_x) * (other - mean_y) for one, other in zip(x, y, strict=True))
    if shared**2 / (var_x * var_y) < _LEAST_EXPLAINED:
        return 1.0
    return min(3.0, max(0.5, 1 + shared / var_x * (sent - mean_x) / mean_y))


def _mean(values: Sequence[int], limit: int) -> Range:
    mean = sum(values) / len(values)
    spread = max(0.03, 2 * _deviation([value / mean for value in values]) / math.sqrt(len(values))) if mean else 0.0
    return Range(mean * (1 - spread), mean, min(float(max(limit, mean)), mean * (1 + spread)))


def _deviation(values: Sequence[float]) -> float:
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / max(1, len(values) - 1))


# --- planning --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Part:
    """Trials with what they retrieve; ``rehearsed`` are settings whose passages are stand-ins."""

    scope: Scope
    trials: tuple[Trial, ...]
    record: OnRecord
    rehearsed: frozenset[str]

    @property
    def open(self) -> list[Trial]:
        """The trials that would be run."""
        done = self.record.answered | self.record.given_up
        return [trial for trial in self.trials if trial.fingerprint not in done]


class _Previewer:
    def __init__(self, platform: Platform, name: str, lease: Lease) -> None:
        self._platform, self._lease = platform, lease
        self._config = experiment_config(platform.config, name)
        self._history = _History(platform.database)
        index = VectorIndex(platform.database, platform.config, platform.models)
        with platform.database.connect() as connection:
            self._variants = expand(platform.config, platform.models, self._config, connection)
            self._champion = current_champion(connection, platform.config, platform.models, self._config).variant
        self._snapshots = {one: index.serving(one) for one in self._config.index_names}
        self._index = index

    def run(self) -> ExperimentPreview:
        meter, search = self._instruments()
        part = self._part(self._variants, self._scope(), meter, search)
        items = self._rehearse(part, meter, search, self._strategy())
        items += self._confirmation(part)
        steps = max((1 + len(variant.prompt.chain) for variant in self._variants), default=1)
        return ExperimentPreview(
            experiment=self._config.name,
            variants=len(self._variants),
            questions=len(part.scope.questions),
            trials=len(part.trials),
            on_record=len(part.trials) - len(part.open),
            items=tuple(items),
            budget=self._config.budget,
            worst_tries=worst_tries(self._platform, self._config, steps),
        )

    def pilot(self, trials: int, run_id: str) -> TrialWork:
        scope = self._scope()
        width = max(1, -(-trials // len(self._variants)))
        stride = max(1, len(scope.questions) // width)
        asked = scope.questions[::stride][:width]
        budget = Budget(self._config.budget, currency=self._currency())
        models = self._platform.models.within(budget)
        index = VectorIndex(self._platform.database, self._platform.config, models)
        answerer = Answerer(self._platform.database, self._platform.config, models, index)
        with self._platform.database.connect() as connection:
            self._lease.check(connection)
            register_variants(connection, self._variants, run_id)
        sample = replace(scope, questions=asked)
        plan = plan_trials(
            self._platform.database, answerer.retriever, self._variants, sample, run_id=run_id, lease=self._lease
        )
        # question by question, so that a number that the variants do not divide leaves out some of the last one
        ordered = sorted(enumerate(plan.trials), key=lambda one: (one[0] % max(1, len(asked)), one[0]))
        chosen = replace(plan, trials=tuple(trial for _, trial in ordered[:trials]))
        return run_trials(
            self._platform.database,
            answerer,
            self._platform.config,
            self._config,
            sample,
            chosen,
            run_id=run_id,
            lease=self._lease,
        )

    def _currency(self) -> str:
        found = {self._platform.config.chat_model(model).price.currency for model in self._config.model_names}
        return min(found) if len(found) == 1 else "USD"

    def _instruments(self) -> tuple[_Meter, _FreeSearch]:
        return _Meter(self._platform.database, self._history), _FreeSearch(self._index, self._platform)

    def _scope(self, split: str | None = None) -> Scope:
        with self._platform.database.connect() as connection:
            return resolve_scope(connection, self._platform.config, self._config, self._snapshots, split=split)

    def _part(self, variants: Sequence[Variant], scope: Scope, meter: _Meter, search: _FreeSearch) -> _Part:
        """Retrieve for every setting, for real where that costs nothing or is on record."""
        questions = [question.question for question in scope.questions]
        database, models = self._platform.database, self._platform.models
        real = Retriever(database, models, self._index, GenerationMemo(database))
        rehearsal = _Rehearsal(self._platform, meter, search).retriever
        results: dict[str, Sequence[SearchResult]] = {}
        rehearsed: set[str] = set()
        meter.kind = "retrieval"
        for setting, variant in {variant.searching: variant for variant in variants}.items():
            snapshot = self._snapshots.get(variant.index, 0)
            if self._is_free(variant):
                results[setting] = retrieve(
                    self._platform.database, real, variant, questions, snapshot, run_id=self._lease.holder,
                    lease=self._lease,
                ).results  # fmt: skip
                continue
            known = remembered(self._platform.database, variant, questions, snapshot)
            missing = [question for question, found in zip(questions, known, strict=True) if found is None]
            if missing:
                rehearsed.add(setting)
                made = iter(
                    rehearsal.retrieve_many(
                        variant.index, missing, mode=variant.search_mode, k=variant.k, settings=variant.retrieval,
                        snapshot=snapshot, run_id=self._lease.holder, **variant.search_options,
                    )
                )  # fmt: skip
                known = [next(made) if found is None else found for found in known]
            results[setting] = _filled([found for found in known if found is not None], variant.k)
        trials = derive(self._platform.database, variants, scope, results)
        record = on_record(self._platform.database, list({trial.fingerprint for trial in trials}))
        return _Part(scope, trials, record, frozenset(rehearsed))

    def _is_free(self, variant: Variant) -> bool:
        """Whether searching asks no model that is called over the network."""
        if variant.task is not None:
            return True
        asked = [model for _, model in variant.retrieval.chat_models()]
        embedder = self._platform.config.indexes[variant.index].embedder
        return not any(_is_called(self._platform, model) for model in asked) and (
            variant.search_mode == "full_text" or _in_process(self._platform, embedder)
        )

    def _rehearse(self, part: _Part, meter: _Meter, search: _FreeSearch, share: Range) -> list[Item]:
        """All that a part would ask, answers first."""
        answers = self._answers(part, meter, share)
        judges = self._judges(part, meter, share)
        steps = [
            self._item(what, "retrieval", model, calls, len(meter.met["retrieval", model]), share)
            for (what, model), calls in _by_step(meter.calls["retrieval"]).items()
        ]
        vectors = [self._vectors(name, texts) for name, texts in sorted(search.texts.items())]
        return [*answers, *judges, *steps, *vectors]

    def _answers(self, part: _Part, meter: _Meter, share: Range) -> list[Item]:
        meter.kind = "answers"
        rehearsal = _Rehearsal(self._platform, meter, cast(_FreeSearch, self._index))
        groups: dict[tuple[str, str], Trial] = {}
        needed: dict[str, set[str]] = defaultdict(set)
        for trial in part.trials:
            needed[trial.variant.model].add(trial.prompt_key)
        for trial in part.open:
            if getattr(trial.result, "error", None) is None:
                groups.setdefault((trial.variant.model, trial.prompt_key), trial)
        steps: dict[str, int] = defaultdict(int)
        for trial in {(trial.variant.model, trial.prompt_key): trial for trial in part.trials}.values():
            steps[trial.variant.model] += 1 + len(trial.variant.prompt.chain)
        open_groups: dict[str, int] = defaultdict(int)
        for (model, _), trial in groups.items():
            open_groups[model] += 1 + len(trial.variant.prompt.chain)
            if _is_called(self._platform, model):
                meter.reference = _reference(trial)
                meter.stand_in = _stand_in(trial)
                rehearsal.generate(trial.variant, trial.question.question, trial.result, run_id=self._lease.holder)
        items = []
        for model in sorted(needed):
            if _is_called(self._platform, model):
                calls = [call for call in meter.calls["answers"].values() if call.chat.config.name == model]
                items.append(self._item(f"answers of {model}", "answers", model, calls, steps[model], share))
                continue
            latency = self._history.latency(self._platform.models.chat(model)) or 0.0
            config = self._platform.config.chat_model(model)
            items.append(
                Item(
                    f"answers of {model} (offline)",
                    "answers",
                    model,
                    needed=steps[model],
                    cached=steps[model] - open_groups[model],
                    calls=0,
                    seconds=open_groups[model] * latency,
                    currency=config.price.currency,
                    share=share,
                    basis="computed in this process",
                )
            )
        return items

    def _judges(self, part: _Part, meter: _Meter, share: Range) -> list[Item]:
        """What the judges would ask of the answers; of one that is not there yet, of a text of about its length."""
        names = _judge_names(self._config)
        if not names:
            return []
        judges = judges_of(self._platform.config, self._platform.models, self._config)
        plan = Plan(part.trials, 0, 0.0)
        outcomes = read_outcomes(self._platform.database, plan)
        items = []
        for name, judge in judges.items():
            if judge.config.name not in names and name not in names:
                continue
            model = judge.chat.config.name
            meter.kind, meter.calls["judges"] = "judges", {}
            meter.met["judges", model] = set()
            for trial in part.trials:
                outcome = outcomes.get(trial.fingerprint) or _expected(trial)
                if outcome.failed:
                    continue
                record = record_of(trial.question, trial.result.hits, outcome)
                sheet = measures.prepare(judge.config, record)
                if isinstance(sheet, measures.Decided):
                    continue
                for request in judge.requests(sheet):
                    meter.reference, meter.stand_in = 0.0, ""
                    meter.complete(
                        judge.chat, request.messages, self._lease.holder, extra=request.extra, draw=request.draw
                    )
            calls = list(meter.calls["judges"].values())
            met = len(meter.met["judges", model])
            items.append(self._item(f"judge {judge.config.name}, asking {model}", "judges", model, calls, met, share))
        return items

    def _confirmation(self, part: _Part) -> list[Item]:
        """What asking champion and recommended variant the held-back questions would take: the dearest two, at most."""
        if self._config.split != "dev":
            return []
        scope = self._scope("test")
        metrics = metrics_of(self._platform.config, self._config)
        if not decided_questions(self._config.decision_metric, scope.questions, metrics):
            return []
        others = [variant for variant in self._variants if variant.fingerprint != self._champion.fingerprint]
        if not others or not any(_is_called(self._platform, variant.model) for variant in self._variants):
            return []
        dearest = max(others, key=lambda variant: (self._expense(variant, part), variant.name))
        meter, search = self._instruments()
        pair = self._part([self._champion, dearest], scope, meter, search)
        items = self._rehearse(pair, meter, search, Range(1.0, 1.0, 1.0))
        return [
            replace(item, what=f"confirmation: {item.what}", kind="confirmation", certain=False)
            for item in items
            if item.calls
        ]

    def _expense(self, variant: Variant, part: _Part) -> float:
        """What a question of a variant costs, roughly: its tokens at the price of its model."""
        price = self._platform.config.chat_model(variant.model).price
        trials = [trial for trial in part.trials if trial.variant.fingerprint == variant.fingerprint][:20]
        tokens = sum(count_tokens(hit.text) for trial in trials for hit in trial.result.hits) / max(1, len(trials))
        return (1 + len(variant.prompt.chain)) * (
            tokens * price.input_per_million + ANSWER_TOKENS / 8 * price.output_per_million
        )

    def _strategy(self) -> Range:
        """The share of the full grid that the strategy asks: at least, likely, and at most."""
        search = getattr(self._config, "search", None)
        variants = len(self._variants)
        questions = self._scope().questions
        if search is None or search.strategy == "grid" or variants < 2 or not questions:
            return Range(1.0, 1.0, 1.0)
        if search.strategy == "bayes":
            share = min(1.0, search.trials / variants)
            return Range(share, share, min(1.0, share + 1 / variants))
        metrics = metrics_of(self._platform.config, self._config)
        decided = len(decided_questions(self._config.decision_metric, questions, metrics))
        return halving_share(variants, len(questions), decided, search)

    def _item(self, what: str, kind: Kind, model: str, calls: Sequence[_Call], needed: int, share: Range) -> Item:
        chat = self._platform.models.chat(model)
        config: ChatModel = chat.config
        ratio, known = self._history.ratio(chat)
        received, bases = Range(), set()
        for call in calls:
            found, basis = self._history.output(call, kind)
            received += found
            bases.add(basis)
        sent = ratio.times(float(sum(call.sent for call in calls)))
        money = _money(sent, config.price.input_per_million) + _money(received, config.price.output_per_million)
        counted = f"tokens sent corrected by {known} past calls" if known else "tokens sent as we count them"
        return Item(
            what=what,
            kind=kind,
            model=model,
            needed=max(needed, len(calls)),
            cached=max(0, needed - len(calls)),
            calls=len(calls),
            input_tokens=sent,
            output_tokens=received,
            money=money,
            currency=config.price.currency,
            seconds=call_seconds(
                config.limits,
                len(calls),
                round(sent.likely + received.likely),
                self._history.latency(chat) or CHAT_SECONDS,
            ),
            share=share,
            basis="; ".join([counted, *(f"received by {basis}" for basis in sorted(bases))]) if calls else "",
        )

    def _vectors(self, name: str, texts: set[str]) -> Item:
        config: EmbeddingModel = self._platform.models.embedder(name).config
        tokens = Range(*_UNKNOWN_RATIO).times(float(sum(map(count_tokens, texts))))
        calls = math.ceil(len(texts) / config.batch_size)
        return Item(
            what=f"questions embedded by {name}",
            kind="question vectors",
            model=name,
            needed=len(texts),
            cached=0,
            calls=calls,
            input_tokens=tokens,
            money=_money(tokens, config.price.input_per_million),
            currency=config.price.currency,
            seconds=call_seconds(config.limits, calls, round(tokens.likely), EMBEDDING_SECONDS),
            basis="tokens sent as we count them",
        )


def worst_tries(platform: Platform, experiment: ExperimentConfig, steps: int = 1) -> tuple[int, int]:
    """Most requests that one trial may send in one run, and over all runs, when everything that can fail does.

    A trial is tried so often, each of its steps by so many requests of the endpoint; an answer has any form, so that it is
    never asked again for its form.
    """
    tries = max(platform.config.chat_model(model).limits.max_tries for model in experiment.model_names)
    return MAXIMUM_TRIES * steps * tries, MAXIMUM_ATTEMPTS * steps * tries


def _money(tokens: Range, price: float) -> Range:
    return tokens.times(price / 1e6)


def _by_step(calls: Mapping[str, _Call]) -> dict[tuple[str, str], list[_Call]]:
    """Calls of retrieval by what they are for and whom they ask."""
    found: dict[tuple[str, str], list[_Call]] = defaultdict(list)
    for call in calls.values():
        name = call.chat.config.name
        reranks = call.system[:60] == rerankers.MODEL_PROMPT.system[:60]
        makes_up = call.system[:90] == query_translation.HYDE.system[:90]
        what = "reranking" if reranks else "passages made up (HyDE)" if makes_up else "query translation"
        found[f"{what} by {name}", name].append(call)
    return dict(sorted(found.items()))


def _filled(results: Sequence[SearchResult], k: int) -> list[SearchResult]:
    """Results of a stand-in search, those with too few hits filled up from others, so that prompts have their length."""
    pool = [hit for result in results for hit in result.hits]
    return [
        replace(result, hits=(*result.hits, *pool[: k - len(result.hits)])) if len(result.hits) < k else result
        for result in results
    ]


def _reference(trial: Trial) -> float:
    """Tokens of the reference answer, or of the refusal where there is none."""
    return float(count_tokens(trial.question.answer or trial.variant.prompt.refusal))


def _stand_in(trial: Trial) -> str:
    """A text such as the model might answer: the reference, or what is found first."""
    if trial.question.answer:
        return trial.question.answer
    return trial.variant.prompt.refusal if trial.question.answerable is False else "An answer."


def _expected(trial: Trial) -> TrialOutcome:
    """What a trial that was not run might come to, as far as judges look at it."""
    refused = not trial.question.answerable
    text = _stand_in(trial)
    if not refused and trial.result.hits:  # answers are longer than references: a sentence of the best passage as well
        text = f"{text}. {trial.result.hits[0].text[:200]}"
    return TrialOutcome("ok", None, 1, text, refused, (), {}, None, None)
