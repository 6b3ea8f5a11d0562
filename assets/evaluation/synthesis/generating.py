"""Generating: as many drafts of each kind as are asked for, that pass every filter; a killed run goes on where it was.

Belongs here: the order of it all, setting drafts aside whose documents or settings have changed, the report.
Does not belong here: making (offline_writer.py, model_writer.py), judging (filters.py), storing (store.py), review.

Kinds are made one after the other, each in the seeded order of its tasks, until enough passed. So what comes of it does not
depend on how often it was interrupted, and nothing is asked of a model twice.
"""

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

from assets.evaluation.leakage import Item, KnownQuestions, worked_examples
from assets.evaluation.questions import load_questions
from assets.evaluation.synthesis import store
from assets.evaluation.synthesis.drafts import Draft, Made, Task
from assets.evaluation.synthesis.filters import FILTERS, Bench, item_of
from assets.evaluation.synthesis.model_writer import ModelReader, ModelWriter
from assets.evaluation.synthesis.offline_writer import OfflineWriter
from assets.evaluation.synthesis.passages import Material, check_chunking, read_material, seeded
from assets.evaluation.synthesis.readers import OfflineReader, Reader
from assets.evaluation.synthesis.store import StoredDraft
from resources.chunk_config import chunker_fingerprint
from resources.config import ProjectConfig
from resources.errors import PermanentError
from resources.faults import crash_point
from resources.fingerprint import fingerprint
from resources.generation_memo import GenerationMemo
from resources.models import Budget, Models, Usage
from resources.platform import Platform
from resources.postgres import FOREVER, Connection, Lease
from resources.synthesis_config import OFFLINE, QuestionKind, SynthesisConfig

#: Drafts stored in one transaction; a kill of an offline run loses no more than so many.
_BATCH = 20
_KEPT_TEXTS = 16
#: So many tasks of a kind are tried in any case, however few drafts are wanted.
_LEAST_TASKS = 20


class Writer(Protocol):
    """Makes drafts.

    Attributes:
        fingerprint: of everything that decides what it writes.
        window: how many tasks are carried out before what came of them is stored.
        patience: it gives up on a kind after so many tasks for each draft wanted; None: when there are no more.
    """

    fingerprint: str
    window: int
    patience: int | None

    def prepare(self, material: Material) -> None: ...

    def tasks(self, kind: QuestionKind, material: Material) -> Iterator[Task]: ...

    def write(self, tasks: Sequence[Task], run_id: str) -> Iterator[Made]: ...


@dataclass
class Generated:
    """What a run did, and what there is.

    Attributes:
        recipe: fingerprint of writer, seed and chunking; drafts of another one do not count.
        wanted, delivered: by kind; delivered ones passed every filter.
        made: drafts made in this run.
        filters: for each filter how many drafts of the recipe reached it, and how many it rejected.
        states: drafts of the recipe by state.
        stale, superseded: drafts set aside in this run because their documents, or the settings, have changed.
        passages, documents, left_out: what was read of the documents.
        usage: of the models asked in this run.
    """

    dataset: str
    recipe: str
    wanted: dict[str, int]
    delivered: dict[str, int] = field(default_factory=dict)
    made: int = 0
    filters: list[dict[str, Any]] = field(default_factory=list)
    generators: list[dict[str, Any]] = field(default_factory=list)
    states: dict[str, int] = field(default_factory=dict)
    stale: int = 0
    superseded: int = 0
    documents: int = 0
    passages: int = 0
    left_out: int = 0
    usage: Usage = field(default_factory=Usage)
    seconds: float = 0.0

    @property
    def missing(self) -> dict[str, int]:
        """How many of each kind could not be made."""
        short = {kind: count - self.delivered.get(kind, 0) for kind, count in self.wanted.items()}
        return {kind: count for kind, count in short.items() if count > 0}


def synthesis_of(config: ProjectConfig, dataset: str) -> SynthesisConfig:
    """The ``synthetic:`` block of a dataset.

    Raises:
        PermanentError: it has none.
    """
    found = config.datasets[dataset].synthetic
    if found is None:
        raise PermanentError(
            f"dataset {dataset} makes no questions; add 'synthetic: {{}}' to its header in data/evaluation "
            "(docs/synthetic-questions.md)"
        )
    return found


def recipe_of(config: ProjectConfig, dataset: str, models: Models) -> str:
    """Fingerprint of how a dataset's questions are made: the writer, its seed and model, and the chunking."""
    synthesis = synthesis_of(config, dataset)
    return _recipe(_writer(synthesis, models, None), synthesis, models)


def _recipe(writer: Writer, synthesis: SynthesisConfig, models: Models) -> str:
    return fingerprint([writer.fingerprint, chunker_fingerprint(synthesis.chunker, models)])


def _writer(synthesis: SynthesisConfig, models: Models, memo: GenerationMemo | None) -> Writer:
    if synthesis.writer == OFFLINE:
        return OfflineWriter(synthesis.seed)
    return ModelWriter(models.chat(synthesis.writer), memo, synthesis.seed, synthesis.response_format)


def _reader(synthesis: SynthesisConfig, models: Models, memo: GenerationMemo) -> Reader:
    if synthesis.reader == OFFLINE:
        return OfflineReader()
    return ModelReader(models.chat(synthesis.reader), memo, synthesis.response_format)


def generate(platform: Platform, dataset: str, *, run_id: str, lease: Lease) -> Generated:
    """Make drafts for a dataset until each kind has as many as its header asks for, or no more can be made.

    Raises:
        ConfigError: the passages would be cut as an index under test is; or a question file is wrong.
        PermanentError: the dataset makes no questions, or its documents were never loaded.
        BudgetExceededError: models would cost more than ``budget``; what was made is kept, the next run goes on.
        TransientError, PermanentError: a model did not answer, or refused for good. Likewise.
    """
    started = time.perf_counter()
    config = platform.config
    synthesis = synthesis_of(config, dataset)
    check_chunking(config, dataset, platform.models)
    budget = Budget(money=synthesis.budget, currency=synthesis.currency)
    models = platform.models.within(budget)
    memo = GenerationMemo(platform.database)
    writer, reader = _writer(synthesis, models, memo), _reader(synthesis, models, memo)
    work = Generated(
        dataset, _recipe(writer, synthesis, models), {str(kind): count for kind, count in synthesis.wanted.items()}
    )
    with platform.database.connect() as connection:
        _loaded(connection, config, dataset)
        material = read_material(connection, config, dataset, models)
    writer.prepare(material)
    work.documents, work.passages, work.left_out = material.documents, len(material.everything), material.left_out
    with closing(_Texts(platform)) as texts:
        with platform.database.connect() as connection:
            bench = _bench(connection, config, dataset, material, reader, texts.of, synthesis.k, run_id)
            lease.check(connection)
            work.superseded = _set_superseded_aside(connection, dataset, work.recipe)
            work.stale = _set_stale_aside(connection, dataset, config.datasets[dataset].sources, bench)
            for draft in store.read(connection, dataset, states=("filtered", "queued", "accepted", "edited")):
                bench.known.add(item_of(draft))
        crash_point("evaluation.synthesis_prepared")
        run = _Run(platform, dataset, synthesis, writer, bench, work, run_id, lease)
        for kind, count in synthesis.wanted.items():
            run.fill(kind, count, material)
    with platform.database.connect() as connection:
        summarise(connection, work)
    work.usage = budget.spent
    work.seconds = time.perf_counter() - started
    return work


def _loaded(connection: Connection, config: ProjectConfig, dataset: str) -> None:
    sources = config.datasets[dataset].sources
    known = connection.execute(
        "SELECT DISTINCT source FROM source_revision WHERE source = ANY(%s)", (sources,)
    ).fetchall()
    if missing := sorted(set(sources) - {row[0] for row in known}):
        raise PermanentError(
            f"dataset {dataset}: source {', '.join(missing)} was never loaded; materialize raw_documents for it first"
        )


class _Texts:
    """Live texts by document; those read last are kept."""

    def __init__(self, platform: Platform) -> None:
        self._scope = platform.database.connect()
        self._connection = self._scope.__enter__()
        self._kept: OrderedDict[int, str | None] = OrderedDict()

    def close(self) -> None:
        self._scope.__exit__(None, None, None)

    def of(self, document: int) -> str | None:
        if document not in self._kept:
            row = self._connection.execute(
                """SELECT text FROM document_version JOIN document_text USING (text_hash)
                   WHERE document_id = %s AND rev_to = %s""",
                (document, FOREVER),
            ).fetchone()
            self._connection.commit()
            self._kept[document] = row[0] if row else None
        self._kept.move_to_end(document)
        if len(self._kept) > _KEPT_TEXTS:
            self._kept.popitem(last=False)
        return self._kept[document]


def _bench(
    connection: Connection,
    config: ProjectConfig,
    dataset: str,
    material: Material,
    reader: Reader,
    text: Callable[[int], str | None],
    k: int,
    run_id: str,
) -> Bench:
    existing = load_questions(config.question_files(dataset), config.datasets[dataset])
    shown, contexts = worked_examples(config.prompts.values())
    for name, prompt in config.prompts.items():
        steps = "".join(f"\n{step.system}\n{step.user}" for step in prompt.chain)
        shown.append(Item(f"prompt {name}", f"{prompt.system}\n{prompt.user}{steps}", None))
    shown += [Item(f"train question {one.id}", one.question, one.answer) for one in existing if one.split == "train"]
    # drafts that were accepted are compared once, whether they are in a question file already or not
    drafts = {
        row[0]
        for row in connection.execute(
            "SELECT question_id FROM question_draft WHERE dataset = %s", (dataset,)
        ).fetchall()
    }
    known = KnownQuestions(Item(one.id, one.question, one.answer) for one in existing if one.id not in drafts)
    return Bench(material, text, known, shown, contexts, reader, k, run_id)


# --- setting aside ------------------------------------------------------------------------------------------


def _set_superseded_aside(connection: Connection, dataset: str, recipe: str) -> int:
    """Drafts of other settings that nobody has decided about make room for those of today's."""
    return connection.execute(
        """UPDATE question_draft SET state = 'rejected', decided_by = %s, decided_at = now(),
               reason = 'the settings it was made with have changed'
           WHERE dataset = %s AND generator_fingerprint <> %s AND state = ANY(%s)""",
        (store.SUPERSEDED, dataset, recipe, list(store.PENDING)),
    ).rowcount


def _set_stale_aside(connection: Connection, dataset: str, sources: Sequence[str], bench: Bench) -> int:
    """Drafts that nobody has decided about whose document has changed, or that the documents can answer by now."""
    live = {
        row[0]: bytes(row[1])
        for row in connection.execute(
            "SELECT document_id, text_hash FROM document_version WHERE source = ANY(%s) AND rev_to = %s",
            (list(sources), FOREVER),
        ).fetchall()
    }
    stale = 0
    for draft in store.read(connection, dataset, states=store.PENDING):
        changed = any(live.get(one) != text for one, text in zip(draft.document_ids, draft.text_hashes, strict=True))
        if changed or (draft.state != "generated" and bench.is_answerable_now(draft)):
            reason = "its document has changed" if changed else "the documents may answer it by now"
            store.judged(connection, draft.draft_id, failed="stale", reason=reason, scores={})
            stale += 1
    return stale


# --- making -------------------------------------------------------------------------------------------------


@dataclass
class _Run:
    platform: Platform
    dataset: str
    synthesis: SynthesisConfig
    writer: Writer
    bench: Bench
    work: Generated
    run_id: str
    lease: Lease

    def fill(self, kind: QuestionKind, count: int, material: Material) -> None:
        """Make and judge drafts of a kind until ``count`` passed."""
        with self.platform.database.connect() as connection:
            known = store.known_keys(connection, self.dataset)
            left = store.read(connection, self.dataset, states=("generated",), recipe=self.work.recipe, kind=kind)
        passed = self._judge(left)
        with self.platform.database.connect() as connection:
            passed = store.delivered(connection, self.dataset, self.work.recipe).get(kind, 0)
        tasks = (task for task in self.writer.tasks(kind, material) if task.key(self.writer.fingerprint) not in known)
        patience = self.writer.patience
        limit = None if patience is None else max(_LEAST_TASKS, patience * count)
        tried = 0
        while passed < count and (limit is None or tried < limit):
            made, carried_out = self._make(tasks, count - passed, None if limit is None else limit - tried)
            tried += carried_out
            if not carried_out:
                return
            passed += self._judge(made)

    def _make(self, tasks: Iterator[Task], wanted: int, most: int | None) -> tuple[list[StoredDraft], int]:
        """Carry out tasks until so many drafts are made, or ``most`` were tried.

        Returns the drafts as stored, and how many tasks it took.
        """
        drafts: list[StoredDraft] = []
        carried_out = 0
        while len(drafts) < wanted and (most is None or carried_out < most):
            window = list(islice(tasks, max(1, min(self.writer.window, wanted - len(drafts)))))
            if not window:
                break
            carried_out += len(window)
            batch: list[tuple[Task, Draft | str]] = []
            for task, draft in self.writer.write(window, self.run_id):
                if draft is not None:
                    batch.append((task, draft))
                if len(batch) >= _BATCH:
                    drafts += self._store(batch)
                    batch = []
            drafts += self._store(batch)
        return drafts, carried_out

    def _store(self, batch: list[tuple[Task, Draft | str]]) -> list[StoredDraft]:
        if not batch:
            return []
        keys = [task.key(self.writer.fingerprint) for task, _ in batch]
        with self.platform.database.connect() as connection:
            self.lease.check(connection)
            self.work.made += store.add(
                connection,
                self.dataset,
                batch,
                writer=self.writer.fingerprint,
                recipe=self.work.recipe,
                chunker=chunker_fingerprint(self.synthesis.chunker, self.platform.models),
                run_id=self.run_id,
            )
            rows = connection.execute(
                "SELECT draft_id FROM question_draft WHERE dataset = %s AND content_hash = ANY(%s)",
                (self.dataset, keys),
            ).fetchall()
            stored = store.read(connection, self.dataset, states=("generated",), ids=[row[0] for row in rows])
        crash_point("evaluation.drafts_stored")
        return stored

    def _judge(self, drafts: Sequence[StoredDraft]) -> int:
        """Judge drafts in their order; returns how many passed."""
        passed = 0
        for start in range(0, len(drafts), _BATCH):
            batch = drafts[start : start + _BATCH]
            verdicts = self.bench.judge(batch)
            with self.platform.database.connect() as connection:
                self.lease.check(connection)
                for draft, verdict in zip(batch, verdicts, strict=True):
                    store.judged(
                        connection,
                        draft.draft_id,
                        failed=verdict.failed,
                        reason=verdict.reason,
                        scores=verdict.scores,
                        queued=self._is_queued(draft),
                    )
            passed += sum(verdict.failed is None for verdict in verdicts)
            crash_point("evaluation.drafts_judged")
        return passed

    def _is_queued(self, draft: StoredDraft) -> bool:
        """Whether a draft that passes is put before a person: a seeded share, whatever else was made."""
        place = int.from_bytes(seeded(self.synthesis.seed, ["review", draft.question_id])) / 2**64
        return place < self.synthesis.review_share


# --- the report ---------------------------------------------------------------------------------------------


def summarise(connection: Connection, work: Generated) -> None:
    """Fill in what there is of the recipe: by state, by generator, and how many each filter let pass."""
    work.delivered = store.delivered(connection, work.dataset, work.recipe)
    states: Counter[str] = Counter()
    rejected: Counter[str] = Counter()
    by_generator: dict[tuple[str, str], Counter[str]] = {}
    for kind, generator, recipe, state, decided, number in store.counts(connection, work.dataset):
        if recipe != work.recipe:
            continue
        own = by_generator.setdefault((kind, generator), Counter())
        name = decided.removeprefix(store.FILTER) if decided.startswith(store.FILTER) else ""
        states["stale" if name in ("stale", "superseded") else state if not name else "filtered out"] += number
        if name in FILTERS:
            rejected[name] += number
            own["filtered out"] += number
        elif not name and state != "generated":
            own["passed"] += number
            own["in review"] += number * (state == "queued")
    work.states = dict(sorted(states.items()))
    work.generators = [
        {"type": kind, "generator": generator, "passed": own["passed"], "filtered out": own["filtered out"], "in review": own["in review"]}
        for (kind, generator), own in sorted(by_generator.items())
    ]  # fmt: skip
    reached = sum(own["passed"] + own["filtered out"] for own in by_generator.values())
    work.filters = []
    for name in FILTERS:
        share = rejected[name] / reached if reached else 0.0
        work.filters.append({"filter": name, "reached": reached, "rejected": rejected[name], "share": round(share, 4)})
        reached -= rejected[name]
