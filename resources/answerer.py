"""The answerer: retrieve, build the prompt, ask the model, read the citations.

Belongs here: what a variant is, also one that is only on record, and parsing citations and refusals.
Does not belong here: retrieval (retrieval.py), templates (prompt_store.py), the memo of calls (generation_memo.py), the
call itself (models.py), and comparing variants (assets/experiments).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from resources.config import ProjectConfig
from resources.errors import GenaiopsError, PermanentError
from resources.experiment_config import VariantChoice
from resources.fingerprint import fingerprint
from resources.generation_memo import GenerationMemo
from resources.index_config import RetrievalConfig
from resources.models import Models, Usage
from resources.postgres import Connection, Database
from resources.prompt_config import PromptConfig
from resources.prompt_store import Passage, printable, prompt_fingerprint, render

if TYPE_CHECKING:
    from resources.retrieval import Searcher
    from resources.vector_index import SearchFilter, SearchHit, SearchResult

#: Covers how passages are numbered and answers are read; part of every variant fingerprint.
CODE_VERSION = "1"

_MARKER = re.compile(r"\[(\d{1,4}(?:\s*[,;–-]\s*\d{1,4})*)\]")


@dataclass(frozen=True)
class Variant:
    """A complete answerer configuration.

    Attributes:
        name: for people: ``index/prompt/search mode/k/model``.
        ef_search: breadth of the graph search; below ``exact_below`` rows search is exact.
        retrieval: the steps between question and passages, with the weights of the fusion written out.
        retrieval_fingerprint: of these steps with their prompts and models (retrieval.py).
    """

    name: str
    index: str
    index_fingerprint: str
    prompt: PromptConfig
    search_mode: str
    k: int
    model: str
    model_fingerprint: str
    ef_search: int | str = 0
    exact_below: int = 0
    retrieval: RetrievalConfig = field(default_factory=RetrievalConfig)
    retrieval_fingerprint: str = ""

    @cached_property
    def fingerprint(self) -> str:
        """Hash of everything that can change an answer, and of the names of index, prompt and model."""
        return fingerprint(
            {
                "code": CODE_VERSION,
                "index": self.index,
                "index_fingerprint": self.index_fingerprint,
                "ef_search": self.ef_search,
                "exact_below": self.exact_below,
                "prompt": prompt_fingerprint(self.prompt),
                "search_mode": self.search_mode,
                "k": self.k,
                "model": self.model,
                "model_fingerprint": self.model_fingerprint,
                "retrieval": self.retrieval_fingerprint,
            }
        )

    def to_json(self) -> dict[str, Any]:
        """The configuration as a JSON object, with its fingerprint."""
        return {
            "name": self.name,
            "fingerprint": self.fingerprint,
            "index": self.index,
            "index_fingerprint": self.index_fingerprint,
            "ef_search": self.ef_search,
            "exact_below": self.exact_below,
            "prompt": self.prompt.model_dump(mode="json"),
            "search_mode": self.search_mode,
            "k": self.k,
            "model": self.model,
            "model_fingerprint": self.model_fingerprint,
            "retrieval": self.retrieval.model_dump(mode="json"),
            "retrieval_fingerprint": self.retrieval_fingerprint,
        }


def build_variant(config: ProjectConfig, models: Models, choice: VariantChoice) -> Variant:
    """The variant a choice of names stands for.

    Raises:
        PermanentError: a model's key is missing.
    """
    from resources.retrieval import resolved, retrieval_fingerprint
    from resources.vector_index import index_fingerprint

    index = config.indexes[choice.index]
    hnsw = index.hnsw
    retrieval = resolved(index.retrieval, lexical=models.embedder(index.embedder).offline)
    return Variant(
        name=f"{choice.index}/{choice.prompt}/{choice.search_mode}/k{choice.k}/{choice.model}",
        index=choice.index,
        index_fingerprint=index_fingerprint(config, models, choice.index),
        prompt=config.prompts[choice.prompt],
        search_mode=choice.search_mode,
        k=choice.k,
        model=choice.model,
        model_fingerprint=models.chat(choice.model).fingerprint,
        ef_search=hnsw.ef_search,
        exact_below=hnsw.exact_below,
        retrieval=retrieval,
        retrieval_fingerprint=retrieval_fingerprint(retrieval, models),
    )


@dataclass(frozen=True)
class Restored:
    """A variant as it is on record.

    Attributes:
        snapshot: the retained snapshot that fits it when the serving one does not; None: the serving one fits.
    """

    variant: Variant
    snapshot: int | None


def restore_variant(
    connection: Connection, config: ProjectConfig, models: Models, stored: Mapping[str, Any]
) -> Restored:
    """Build a variant from what was put on record, whatever the configuration says now, so that it answers as it did.

    Args:
        stored: column ``config`` of table ``variant``.

    Raises:
        PermanentError: it cannot answer as it did; the message says what is gone, to follow the variant's name.
    """
    from resources.retrieval import retrieval_fingerprint

    if "retrieval" not in stored:
        raise PermanentError("was put on record by an earlier version of the code")
    try:
        variant = Variant(
            **{key: value for key, value in stored.items() if key not in ("fingerprint", "prompt", "retrieval")},
            prompt=PromptConfig.model_validate(stored["prompt"]),
            retrieval=RetrievalConfig.model_validate(stored["retrieval"]),
        )
    except (ValidationError, TypeError):
        variant = None
    if variant is None or variant.fingerprint != stored["fingerprint"]:
        raise PermanentError("was put on record by another version of the code")
    try:
        model = models.chat(variant.model).fingerprint
    except GenaiopsError:
        raise PermanentError(f"needs the chat model {variant.model!r}, which models.yaml no longer has") from None
    if model != variant.model_fingerprint:
        raise PermanentError(f"needs the chat model {variant.model!r} as it was; models.yaml has changed it")
    try:
        retrieval = retrieval_fingerprint(variant.retrieval, models)
    except GenaiopsError:
        retrieval = None
    if retrieval != variant.retrieval_fingerprint:
        raise PermanentError("needs a model or prompt for retrieval that has changed since")
    hnsw = config.indexes[variant.index].hnsw if variant.index in config.indexes else None
    if hnsw is None or (hnsw.ef_search, hnsw.exact_below) != (variant.ef_search, variant.exact_below):
        raise PermanentError(f"searches index {variant.index!r} with another ef_search or exact_below")
    row = connection.execute(
        """SELECT s.snapshot, s.snapshot = i.serving FROM index_state i JOIN index_snapshot s USING (index_name)
           JOIN index_build b USING (build_id)
           WHERE i.index_name = %s AND b.fingerprint = %s ORDER BY s.snapshot = i.serving DESC, s.snapshot DESC LIMIT 1""",
        (variant.index, variant.index_fingerprint),
    ).fetchone()
    if row is None:
        raise PermanentError(f"needs index {variant.index!r} as it was, and no such snapshot is retained")
    return Restored(variant, None if row[1] else row[0])


@dataclass(frozen=True)
class Citation:
    """A passage the answer names: characters ``start`` to ``end`` of a document version, on ``page`` if it has pages."""

    number: int
    document_id: int
    version_id: int
    source: str
    path: str
    start: int
    end: int
    page: int | None = None


@dataclass(frozen=True)
class Answer:
    """One answer with everything it rests on.

    Attributes:
        text: as the model gave it, citation marks included (``strip_citations`` removes them).
        refused: the model said that the documents do not hold the answer.
        citations: passages named by marks that exist, in order of first mention; empty when refused.
        messages: what was sent to the model.
        usage: of the model calls that were really made, retrieval's included, also when they came from the memo.
        generation_latency: seconds, likewise.
        generation: fingerprint of the row in table ``generation``.
        retrieval: what was done to find the passages (``retrieval.Retriever``), with the usage of its model calls.
    """

    text: str
    refused: bool
    citations: tuple[Citation, ...]
    hits: "tuple[SearchHit, ...]"
    messages: list[dict[str, str]]
    usage: Usage
    retrieval_latency: float
    generation_latency: float
    snapshot: int
    generation: str
    retrieval: dict[str, Any] = field(default_factory=dict)


class Answerer:
    """Answers questions with any variant; safe to use from several threads."""

    def __init__(self, database: Database, config: ProjectConfig, models: Models, index: "Searcher") -> None:
        from resources.retrieval import Retriever

        self._models = models
        self._memo = GenerationMemo(database)
        self.retriever = Retriever(database, models, index, self._memo)

    def answer(
        self,
        variant: Variant,
        question: str,
        *,
        snapshot: int | None = None,
        filters: "SearchFilter | None" = None,
        run_id: str,
    ) -> Answer:
        """Retrieve and answer, from the serving snapshot unless one is given.

        Raises:
            SnapshotNotFoundError: nothing is published, or the snapshot is not retained.
            GenaiopsError: a model did not answer; see ``Chat.complete``.
        """
        question = printable(question)
        result = self.retriever.retrieve(
            variant.index,
            question,
            mode=variant.search_mode,
            k=variant.k,
            settings=variant.retrieval,
            snapshot=snapshot,
            filters=filters,
            run_id=run_id,
        )
        return self.generate(variant, question, result, run_id=run_id)

    def generate(self, variant: Variant, question: str, result: "SearchResult", *, run_id: str) -> Answer:
        """Answer from what was retrieved.

        The call is memoised by the rendered messages, the model and its parameters, so it is paid once.

        Raises:
            ConfigError: the prompt's template is wrong.
            GenaiopsError: the model did not answer; see ``Chat.complete``. Nothing is stored then.
        """
        passages = [_passage(number, hit) for number, hit in enumerate(result.hits, start=1)]
        messages = render(variant.prompt, question, passages)
        documents = {hit.document_id for hit in result.hits}
        key, generated = self._memo.complete(self._models.chat(variant.model), messages, run_id, documents=documents)
        refused = is_refusal(generated.text, variant.prompt.refusal)
        return Answer(
            text=generated.text,
            refused=refused,
            citations=() if refused else parse_citations(generated.text, result.hits),
            hits=result.hits,
            messages=messages,
            usage=generated.usage + getattr(result, "usage", Usage()),
            retrieval_latency=result.latency,
            generation_latency=generated.latency,
            snapshot=result.snapshot,
            generation=key,
            retrieval=getattr(result, "trace", {}),
        )


def _passage(number: int, hit: "SearchHit") -> Passage:
    return Passage(
        number=number,
        text=hit.text,
        document=f"{hit.source}/{hit.path}",
        title=hit.title,
        headings=tuple(hit.heading_path),
        page=getattr(hit, "page", None),
    )


def strip_citations(text: str) -> str:
    """The answer without its citation marks, as answers are compared with references."""
    return re.sub(r"\s*" + _MARKER.pattern, "", text).strip()


def is_refusal(text: str, refusal: str) -> bool:
    """Whether an answer is empty or says the refusal sentence, whatever its case, spacing, quotes or marks."""
    said, wanted = _plain(text), _plain(refusal)
    return not said or bool(wanted and wanted in said)


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", strip_citations(text).casefold()))


def parse_citations(text: str, hits: "Sequence[SearchHit]") -> tuple[Citation, ...]:
    """Citations of an answer: marks such as ``[1]``, ``[1, 3]`` or ``[1-3]``, numbers without a passage left out."""
    numbers: list[int] = []
    for marker in _MARKER.finditer(text):
        for part in re.split(r"[,;]", marker[1]):
            ends = [int(number) for number in re.split(r"[–-]", part)]
            numbers.extend(range(ends[0], min(ends[-1], len(hits)) + 1))
    return tuple(_citation(number, hits[number - 1]) for number in dict.fromkeys(numbers) if 1 <= number <= len(hits))


def _citation(number: int, hit: "SearchHit") -> Citation:
    return Citation(
        number, hit.document_id, hit.version_id, hit.source, hit.path, hit.start, hit.end, getattr(hit, "page", None)
    )
