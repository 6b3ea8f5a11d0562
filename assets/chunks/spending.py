"""Spending: what a refresh of a source would compute and cost, told before anything is spent, and the budget.

Belongs here: the preview (chunks, values, vectors, calls, tokens, money, time), and refusing what exceeds the policy.
Does not belong here: doing any of it (chunking.py, enriching.py, assets/index/embedding.py), prices (models.yaml).

A preview is computed as the refresh would work, by the same code and against the same caches, only that nothing is
written or sent: texts that are not chunked yet are cut in memory, offline values are made, model values are counted at
their longest. So counts are exact where no model is asked first, and tokens and money are what may be spent at most, up
to the retries of failing calls. A chunker that asks a model is rehearsed with the offline one: what it asks about is
exact, the number of its chunks is a guess. It speaks of the documents that were committed: documents that were not read
yet are not in it.
"""

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from assets.chunks.chunkers import Chunk, ChunkTools, chunk_text
from assets.chunks.enrichment import embedding_input, title_of
from assets.chunks.enrichment_cache import (
    StepRow,
    Subject,
    context_hash,
    cost_of_run,
    known_values,
    measured_seconds,
)
from assets.chunks.enrichment_models import messages_for
from assets.chunks.enrichment_steps import Value, offline_value
from assets.corpus.documents import last_revision
from resources.chunk_config import chunker_fingerprint, enrichment_fingerprint, step_fingerprint
from resources.chunker_config import embedders_of
from resources.errors import BudgetExceededError
from resources.fingerprint import text_hash
from resources.index_config import ChunkerConfig, EnrichmentConfig, EnrichmentStep, IndexConfig
from resources.model_config import EmbeddingModel, RateLimit
from resources.models import Budget, Embedder, Models, Usage
from resources.offline_models import LexicalHash, count_tokens
from resources.platform import Platform
from resources.postgres import Connection

if TYPE_CHECKING:
    import numpy as np

#: Stated rates, used where nothing was measured: seconds of one call, and items a second on one core.
CHAT_SECONDS = 2.0
EMBEDDING_SECONDS = 1.0
CHUNKS_PER_SECOND = 5_000.0
OFFLINE_STEP_RATES = {
    "clean": 6_000.0,
    "keywords": 2_000.0,
    "entities": 2_000.0,
    "summary": 2_000.0,
    "questions": 4_000.0,
    "language": 1_500.0,
}
OFFLINE_EMBEDDING_RATE = 2_500.0
LOCAL_EMBEDDING_RATE = 15.0
_BATCH_TEXTS = 200


@dataclass(frozen=True)
class Item:
    """One kind of work: what a chunker asks a model, the values of an enrichment step, the vectors of a model.

    Attributes:
        what: ``keywords (offline)``, ``vectors of openai-small``, ``cutting by openai-small``, ...
        needed: distinct values or vectors the live documents need; ``cached`` are there already. Of cutting: the
            windows of sentences of the texts that are to be cut, which are kept nowhere.
        calls: requests to a model; none for what is computed here.
        money: at the prices of models.yaml, in ``currency``.
        rate: whether ``seconds`` rest on calls this project made before, or on rates stated in spending.py.
    """

    what: str
    kind: Literal["cutting", "enrichment", "embedding"]
    indexes: tuple[str, ...]
    needed: int = 0
    cached: int = 0
    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    money: float = 0.0
    currency: str = "USD"
    seconds: float = 0.0
    rate: Literal["measured", "stated"] = "stated"

    @property
    def to_make(self) -> int:
        """Values or vectors to compute."""
        return self.needed - self.cached


@dataclass(frozen=True)
class Preview:
    """What a refresh of a source would do after its documents were read.

    Attributes:
        revision: of the source it speaks of; 0 when its documents were never read.
        documents, texts: live documents and their distinct texts.
        chunks: of the live texts, over all chunkers in use; ``chunks_to_make`` of them are to be cut.
        seconds: of all work, one kind after the other, chunking included.
    """

    source: str
    revision: int
    documents: int
    texts: int
    chunks: int
    chunks_to_make: int
    items: tuple[Item, ...]

    @property
    def calls(self) -> int:
        """Requests to models."""
        return sum(item.calls for item in self.items)

    @property
    def tokens(self) -> int:
        """Tokens sent to and received from models that are called."""
        return sum(item.input_tokens + item.output_tokens for item in self.items)

    @property
    def money(self) -> dict[str, float]:
        """Money by currency; empty when nothing costs any."""
        totals: dict[str, float] = {}
        for item in self.items:
            if item.money:
                totals[item.currency] = totals.get(item.currency, 0.0) + item.money
        return totals

    @property
    def seconds(self) -> float:
        """Wall time of all of it."""
        return self.chunks_to_make / CHUNKS_PER_SECOND + sum(item.seconds for item in self.items)

    def to_json(self) -> dict[str, Any]:
        """The fields and the totals as a JSON object."""
        items = [{**asdict(item), "indexes": list(item.indexes), "to_make": item.to_make} for item in self.items]
        totals = {"calls": self.calls, "tokens": self.tokens, "money": self.money, "seconds": round(self.seconds, 1)}
        return {**asdict(self), "items": items, **totals}


def preview(platform: Platform, source: str) -> Preview:
    """What the chunks, enrichment and embeddings of a source would take now; nothing is written, sent or spent.

    Raises:
        PermanentError: a model's key is missing or its name unknown, as the refresh itself would find.
    """
    return _Planner(platform, source).run()


def affordable_models(platform: Platform, source: str, run_id: str) -> Models:
    """The models, within what ``policies/enrichment.yaml`` lets this run still spend on the source.

    Without a limit these are simply the models. With one the whole of what is left to do, embedding included, must fit
    it before the first request is sent; and each request is charged to it, so that retries cannot pass it either.

    Raises:
        BudgetExceededError: what is left to do would cost more; nothing was sent.
    """
    policy = platform.config.policies.enrichment
    if policy.money_per_refresh is None and policy.calls_per_refresh is None:
        return platform.models
    planned = preview(platform, source)
    with platform.database.connect() as connection:
        spent = cost_of_run(connection, run_id) if run_id else Usage()
    if planned.calls:
        _refuse(planned, spent, policy.money_per_refresh, policy.calls_per_refresh, policy.currency)
    money = None if policy.money_per_refresh is None else max(0.0, policy.money_per_refresh - spent.cost)
    calls = None if policy.calls_per_refresh is None else max(0, policy.calls_per_refresh - spent.requests)
    if all(_is_free(item) for item in planned.items):
        return platform.models
    return platform.models.within(Budget(money=money, calls=calls, currency=policy.currency))


def _is_free(item: Item) -> bool:
    return not item.calls


def _refuse(planned: Preview, spent: Usage, money: float | None, calls: int | None, currency: str) -> None:
    file = "policies/enrichment.yaml"
    remedy = f"`genaiops preview {planned.source}` shows what for; raise it in {file}, or enrich and embed less"
    if money is not None:
        foreign = sorted(set(planned.money) - {currency})
        if foreign:
            raise BudgetExceededError(
                f"{file}: money_per_refresh is in {currency} but models are priced in {', '.join(foreign)}; use one currency"
            )
        asked = planned.money.get(currency, 0.0)
        if spent.cost + asked > money:
            raise BudgetExceededError(
                f"source {planned.source!r}: enriching and embedding would cost up to {asked:.4f} {currency}"
                f"{f' beside {spent.cost:.4f} spent already' if spent.cost else ''}, more than money_per_refresh "
                f"{money:.4f}. Nothing was sent: {remedy}"
            )
    if calls is not None and spent.requests + planned.calls > calls:
        raise BudgetExceededError(
            f"source {planned.source!r}: enriching and embedding would take {planned.calls} requests"
            f"{f' beside {spent.requests} sent already' if spent.requests else ''}, more than calls_per_refresh {calls}. "
            f"Nothing was sent: {remedy}"
        )


# --- planning ------------------------------------------------------------------------------------------------


@dataclass
class _Line:
    """One item while it is counted; ``number`` is its key in the temporary table."""

    number: int
    item: Item
    step: StepRow | None = None
    embedder: Embedder | None = None
    embedder_id: int | None = None


@dataclass
class _Recipe:
    """One chunker with one enrichment, the lines of its steps and of the embedding models it is embedded with."""

    chunker: ChunkerConfig
    chunker_id: int | None
    enrichment: EnrichmentConfig
    enrichment_id: int | None
    steps: list[_Line] = field(default_factory=list)
    embeddings: list[_Line] = field(default_factory=list)


class _Rehearsal(ChunkTools):
    """Lets chunkers cut with the vectors of the offline model, and counts what they would ask others.

    Attributes:
        asked: by model, how many windows of sentences and their tokens.
    """

    def __init__(self, models: Models) -> None:
        super().__init__(models)
        self.asked: dict[str, tuple[int, int]] = {}
        self._stand_in = LexicalHash(256)

    def embed(self, name: str, texts: Sequence[str]) -> "np.ndarray":
        """Vectors of shape (len(texts), dimensions); nothing is sent."""
        assert self.models is not None
        if self.models.embedder(name).offline:
            return super().embed(name, texts)
        windows, tokens = self.asked.get(name, (0, 0))
        self.asked[name] = (windows + len(texts), tokens + sum(map(count_tokens, texts)))
        return self._stand_in.embed(texts)


class _Planner:
    """Walks the live texts once per recipe and counts, in a temporary table, what each line needs."""

    def __init__(self, platform: Platform, source: str) -> None:
        self._platform = platform
        self._source = source
        self._models = platform.models
        self._lines: list[_Line] = []
        self._recipes: list[_Recipe] = []
        self._cut: dict[str, int] = {}  # chunks to make, by chunker
        self._tools = _Rehearsal(self._models)

    def run(self) -> Preview:
        with self._platform.database.connect() as connection:
            revision, _ = last_revision(connection, self._source)
            counts = connection.execute(
                """SELECT count(*), count(DISTINCT text_hash) FROM document_version
                   WHERE source = %s AND rev_to = 2147483647""",
                (self._source,),
            ).fetchone()
            assert counts is not None
            connection.execute(
                """CREATE TEMP TABLE planned (line integer, key bytea, context bytea, input_tokens integer,
                                              output_tokens integer) ON COMMIT DROP"""
            )
            self._resolve(connection, self._platform.config.indexes_of(self._source))
            chunks = 0
            for chunker in dict.fromkeys(chunker_fingerprint(item.chunker, self._models) for item in self._recipes):
                recipes = [r for r in self._recipes if chunker_fingerprint(r.chunker, self._models) == chunker]
                chunks += self._existing_chunks(connection, recipes[0])
                for number, recipe in enumerate(recipes):
                    self._plan(connection, recipe, counts_chunks=number == 0, chunker=chunker)
            items = (*self._cutting(), *(self._count(connection, line) for line in self._lines))
            connection.rollback()
        cut = sum(self._cut.values())
        return Preview(self._source, revision, counts[0], counts[1], chunks + cut, cut, items)

    def _cutting(self) -> list[Item]:
        """What chunkers would ask models other than the offline one."""
        items = []
        for name, (windows, tokens) in self._tools.asked.items():
            indexes = tuple(
                index.name
                for index in self._platform.config.indexes_of(self._source)
                if name in (embedder for _, embedder in embedders_of(index.chunker))
            )
            config = self._models.embedder(name).config
            kind = self._platform.config.models.providers[config.provider].kind
            items.append(_embedding_item(Item(f"cutting by {name}", "cutting", indexes, windows), config, kind, tokens))
        return items

    def _resolve(self, connection: Connection, indexes: Sequence[IndexConfig]) -> None:
        steps: dict[str, _Line] = {}
        embeddings: dict[str, _Line] = {}
        recipes: dict[tuple[str, str, tuple[str, ...]], _Recipe] = {}

        def add(known: dict[str, _Line], key: str, line: _Line, index: str) -> _Line:
            if key not in known:
                known[key] = replace(line, number=len(self._lines))
                self._lines.append(known[key])
            found = known[key]
            found.item = replace(found.item, indexes=tuple(dict.fromkeys([*found.item.indexes, index])))
            return found

        for index in indexes:
            chunker = chunker_fingerprint(index.chunker, self._models)
            enrichment = enrichment_fingerprint(index.enrichment, self._models)
            prints = tuple(step_fingerprint(step, self._models) for step in index.enrichment.steps)
            recipe = recipes.get((chunker, enrichment, prints))
            if recipe is None:
                recipe = recipes[chunker, enrichment, prints] = _Recipe(
                    index.chunker,
                    _id(connection, "chunker", chunker),
                    index.enrichment,
                    _id(connection, "enrichment", enrichment),
                )
            lines = []
            for step, key in zip(index.enrichment.steps, prints, strict=True):
                row = StepRow(_id(connection, "enrichment_step", key) or -1, step)
                by = step.model if step.method == "model" else "offline"
                line = _Line(0, Item(f"{step.kind} ({by})", "enrichment", ()), step=row)
                lines.append(add(steps, key, line, index.name))
            recipe.steps = lines
            embedder = self._models.embedder(index.embedder)
            line = _Line(
                0,
                Item(f"vectors of {index.embedder}", "embedding", ()),
                embedder=embedder,
                embedder_id=_id(connection, "embedder", embedder.fingerprint),
            )
            line = add(embeddings, embedder.fingerprint, line, index.name)
            if line not in recipe.embeddings:
                recipe.embeddings.append(line)
        self._recipes = list(recipes.values())

    def _existing_chunks(self, connection: Connection, recipe: _Recipe) -> int:
        row = connection.execute(
            """SELECT coalesce(sum(chunks), 0) FROM chunk_set WHERE chunker_id = %s AND text_hash IN (
                   SELECT text_hash FROM document_version WHERE source = %s AND rev_to = 2147483647)""",
            (recipe.chunker_id, self._source),
        ).fetchone()
        assert row is not None
        return int(row[0])

    def _plan(self, connection: Connection, recipe: _Recipe, *, counts_chunks: bool, chunker: str) -> None:
        self._plan_finished(connection, recipe)
        unfinished = connection.execute(
            """SELECT text_hash, EXISTS (SELECT FROM chunk_set s WHERE s.chunker_id = %(chunker)s
                                         AND s.text_hash = t.text_hash)
               FROM (SELECT DISTINCT text_hash FROM document_version
                     WHERE source = %(source)s AND rev_to = 2147483647) t
               WHERE NOT EXISTS (SELECT FROM chunk_input i WHERE i.enrichment_id = %(enrichment)s
                                 AND i.chunker_id = %(chunker)s AND i.text_hash = t.text_hash)
                 AND NOT EXISTS (SELECT FROM chunk_set s WHERE s.chunker_id = %(chunker)s
                                 AND s.text_hash = t.text_hash AND s.chunks = 0)
               ORDER BY text_hash""",
            {"source": self._source, "chunker": recipe.chunker_id, "enrichment": recipe.enrichment_id},
        ).fetchall()
        for first in range(0, len(unfinished), _BATCH_TEXTS):
            window = dict(unfinished[first : first + _BATCH_TEXTS])
            made = 0
            pieces: list[tuple[str, Subject]] = []
            for key, text, chunks in self._chunks(connection, recipe, window):
                title = title_of(text) if recipe.enrichment.title else ""
                made += 0 if window[key] else len(chunks)
                pieces += [
                    (title, Subject(bytes(piece), text[start:end], tuple(path))) for start, end, piece, path in chunks
                ]
            if counts_chunks:
                self._cut[chunker] = self._cut.get(chunker, 0) + made
            self._plan_chunks(connection, recipe, pieces)

    def _plan_finished(self, connection: Connection, recipe: _Recipe) -> None:
        """Count what texts need whose inputs are composed: from the tables alone, without reading a text."""
        live = """FROM (SELECT DISTINCT text_hash FROM document_version
                        WHERE source = %(source)s AND rev_to = 2147483647) t
                  CROSS JOIN LATERAL (SELECT input_hash, chunker_id, text_hash, ordinal FROM chunk_input
                                      WHERE enrichment_id = %(enrichment)s AND chunker_id = %(chunker)s
                                        AND text_hash = t.text_hash OFFSET 0) i
                  JOIN chunk c ON c.chunker_id = i.chunker_id AND c.text_hash = i.text_hash AND c.ordinal = i.ordinal"""
        names = {"source": self._source, "enrichment": recipe.enrichment_id, "chunker": recipe.chunker_id}
        size = "(c.end_char - c.start_char + length(array_to_string(c.heading_path, ' > ')) + %(added)s) / 4 + 1"
        longest = sum(
            step.max_characters
            for step in recipe.enrichment.steps_for("embed")
            if step.kind not in ("clean", "language")
        )
        for line in recipe.embeddings:
            connection.execute(
                f"INSERT INTO planned SELECT %(line)s, i.input_hash, '\\x'::bytea, {size}, 0 {live}",  # type: ignore[arg-type]
                {**names, "line": line.number, "added": longest},
            )
        for line in recipe.steps:
            assert line.step is not None
            step = line.step.step
            asked, answered = self._call_tokens(step, Subject(b"", ""))
            connection.execute(
                f"""INSERT INTO planned SELECT %(line)s, c.chunk_hash,
                        CASE WHEN %(context)s THEN heading_context(c.heading_path) ELSE '\\x'::bytea END,
                        {size}, %(answered)s {live}""",  # type: ignore[arg-type]
                {**names, "line": line.number, "added": 4 * asked, "context": step.sees_headings, "answered": answered},
            )

    def _chunks(
        self, connection: Connection, recipe: _Recipe, window: Mapping[bytes, bool]
    ) -> Iterator[tuple[bytes, str, list[tuple[int, int, bytes, Sequence[str]]]]]:
        """The texts of a window with their chunks as (start, end, hash, heading path), cut now where they are not yet."""
        texts = connection.execute(
            "SELECT text_hash, text FROM document_text WHERE text_hash = ANY(%s) ORDER BY 1", (list(window),)
        ).fetchall()
        rows = connection.execute(
            """SELECT text_hash, start_char, end_char, chunk_hash, heading_path FROM chunk
               WHERE chunker_id = %s AND text_hash = ANY(%s) ORDER BY text_hash, ordinal""",
            (recipe.chunker_id, [key for key, there in window.items() if there]),
        ).fetchall()
        stored: dict[bytes, list[tuple[int, int, bytes, Sequence[str]]]] = {}
        for key, *chunk in rows:
            stored.setdefault(key, []).append((chunk[0], chunk[1], chunk[2], chunk[3]))
        for key, text in texts:
            if window[key]:
                yield key, text, stored.get(key, [])
            else:
                yield key, text, [_piece(chunk) for chunk in self._cut_text(text, recipe.chunker)]

    def _cut_text(self, text: str, chunker: ChunkerConfig) -> list[Chunk]:
        return chunk_text(text, chunker, self._tools)

    def _plan_chunks(self, connection: Connection, recipe: _Recipe, pieces: Sequence[tuple[str, Subject]]) -> None:
        known: list[Mapping[tuple[bytes, bytes], Value | None]] = []
        for line in recipe.steps:
            assert line.step is not None
            row = line.step
            keys = [(subject.chunk_hash, context_hash(row.step, subject.heading_path)) for _, subject in pieces]
            known.append(known_values(connection, row, keys))
        with (
            connection.cursor() as cursor,
            cursor.copy("COPY planned FROM STDIN WITH (FORMAT BINARY)") as copy,
        ):
            copy.set_types(["int4", "bytea", "bytea", "int4", "int4"])
            for title, subject in pieces:
                for row in self._rows(recipe, title, subject, known):
                    copy.write_row(row)

    def _rows(
        self,
        recipe: _Recipe,
        title: str,
        subject: Subject,
        known: Sequence[Mapping[tuple[bytes, bytes], Value | None]],
    ) -> Iterable[tuple[int, bytes, bytes, int, int]]:
        values: list[Value | None] = []
        pending = 0  # characters a model may still add to what is embedded
        for line, there in zip(recipe.steps, known, strict=True):
            assert line.step is not None
            step = line.step.step
            key = (subject.chunk_hash, context_hash(step, subject.heading_path))
            asked, answered = self._call_tokens(step, subject)
            yield (line.number, *key, asked, answered)
            if key in there:
                values.append(there[key])
            elif step.method == "model":
                values.append(None)
                pending += step.max_characters if "embed" in step.use else 0
            else:
                used = "embed" in step.use
                values.append(offline_value(step, subject.text, subject.heading_path) if used else None)
        composed = embedding_input(subject.heading_path, subject.text, recipe.enrichment, title=title, values=values)
        # with a value still to come the input is another one than this, and surely new
        key = hashlib.sha256(composed.encode()).digest() if pending else text_hash(composed)
        for line in recipe.embeddings:
            yield (line.number, key, b"", count_tokens(composed) + -(-pending // 4), 0)

    def _call_tokens(self, step: EnrichmentStep, subject: Subject) -> tuple[int, int]:
        """Tokens sent and at most received for one value; none where no model is asked."""
        if step.method != "model":
            return 0, 0
        estimate = self._models.chat(step.model or "").estimate(messages_for(step, subject))
        return estimate.input_tokens, estimate.output_tokens

    def _count(self, connection: Connection, line: _Line) -> Item:
        cached = "FALSE"
        if line.step is not None:
            cached = """EXISTS (SELECT FROM enrichment_value v WHERE v.step_id = %(id)s AND v.chunk_hash = p.key
                                AND v.context_hash = p.context)"""
        elif line.embedder_id is not None:
            cached = "EXISTS (SELECT FROM embedding e WHERE e.embedder_id = %(id)s AND e.input_hash = p.key)"
        row = connection.execute(
            f"""SELECT count(*), count(*) FILTER (WHERE there), coalesce(sum(sent) FILTER (WHERE NOT there), 0),
                       coalesce(sum(received) FILTER (WHERE NOT there), 0)
                FROM (SELECT p.key, p.context, max(p.input_tokens) AS sent, max(p.output_tokens) AS received,
                             {cached} AS there
                      FROM planned p WHERE p.line = %(line)s GROUP BY p.key, p.context) distinct_keys""",  # type: ignore[arg-type]
            {"line": line.number, "id": line.step.key if line.step else line.embedder_id},
        ).fetchone()
        assert row is not None
        counted = replace(line.item, needed=row[0], cached=row[1])
        sent, received = int(row[2]), int(row[3])
        if line.embedder is not None:
            kind = self._platform.config.models.providers[line.embedder.config.provider].kind
            return _embedding_item(counted, line.embedder.config, kind, sent)
        assert line.step is not None
        return self._step_item(connection, counted, line.step, sent, received)

    def _step_item(self, connection: Connection, item: Item, row: StepRow, sent: int, received: int) -> Item:
        if row.step.method != "model":
            return replace(item, seconds=item.to_make / OFFLINE_STEP_RATES[row.step.kind])
        config = self._models.chat(row.step.model or "").config
        measured = measured_seconds(connection, row)
        price = config.price
        return replace(
            item,
            calls=item.to_make,
            input_tokens=sent,
            output_tokens=received,
            money=(sent * price.input_per_million + received * price.output_per_million) / 1e6,
            currency=price.currency,
            seconds=call_seconds(config.limits, item.to_make, sent + received, measured or CHAT_SECONDS),
            rate="measured" if measured else "stated",
        )


def _embedding_item(item: Item, config: EmbeddingModel, provider: str, tokens: int) -> Item:
    if provider != "openai":  # in this process: no calls, no money
        rate = OFFLINE_EMBEDDING_RATE if provider == "offline" else LOCAL_EMBEDDING_RATE
        return replace(item, seconds=item.to_make / rate)
    calls = math.ceil(item.to_make / config.batch_size)
    return replace(
        item,
        calls=calls,
        input_tokens=tokens,
        money=tokens * config.price.input_per_million / 1e6,
        currency=config.price.currency,
        seconds=call_seconds(config.limits, calls, tokens, EMBEDDING_SECONDS),
    )


def call_seconds(limits: RateLimit, calls: int, tokens: int, seconds_per_call: float) -> float:
    """Time of some calls: as many at once as allowed, and no faster than the promised rates."""
    return max(
        calls * seconds_per_call / min(limits.concurrency, max(1, calls)),
        60 * calls / limits.requests_per_minute if limits.requests_per_minute else 0.0,
        60 * tokens / limits.tokens_per_minute if limits.tokens_per_minute else 0.0,
    )


def _piece(chunk: Chunk) -> tuple[int, int, bytes, Sequence[str]]:
    return chunk.start, chunk.end, chunk.hash, chunk.heading_path


def _id(
    connection: Connection, table: Literal["chunker", "enrichment", "enrichment_step", "embedder"], key: str
) -> int | None:
    column = "step_id" if table == "enrichment_step" else f"{table}_id"
    row = connection.execute(f"SELECT {column} FROM {table} WHERE fingerprint = %s", (key,)).fetchone()  # type: ignore[arg-type]
    return row[0] if row else None
