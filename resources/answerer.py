"""The answerer: retrieve, build the prompt, ask the model, read the citations.

Belongs here: asking a prompt or a chain of prompts, and parsing citations and refusals.
Does not belong here: what a variant is (variants.py), retrieval (retrieval.py), what of it is shown (context.py),
templates (prompt_store.py), the memo of calls (generation_memo.py), the call itself (models.py), and comparing variants
(assets/experiments).
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from resources.config import ProjectConfig
from resources.context import Assembled, assemble
from resources.generation_memo import GenerationMemo
from resources.models import ChatResult, Models, Usage
from resources.postgres import Database
from resources.prompt_store import printable, render
from resources.variants import Restored, Variant, build_variant, narrowed, restore_variant

if TYPE_CHECKING:
    from resources.retrieval import Searcher
    from resources.vector_index import SearchFilter, SearchHit, SearchResult

__all__ = [
    "Answer", "Answerer", "Citation", "Restored", "Variant", "build_variant", "is_refusal", "no_search", "parse_citations",
    "restore_variant", "strip_citations",
]  # fmt: skip

_MARKER = re.compile(r"\[(\d{1,4}(?:\s*[,;–-]\s*\d{1,4})*)\]")


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
        refused: the model said that the documents do not hold the answer; never for a task without documents.
        citations: passages named by marks that exist and were shown, in order of first mention; empty when refused.
        messages: what was sent to the model, at the last step.
        usage: of the model calls that were really made, retrieval's included, also when they came from the memo.
        generation_latency: seconds, likewise.
        generation: fingerprint of the row in table ``generation``.
        retrieval: what was done to find the passages (``retrieval.Retriever``), with the usage of its model calls.
        supplied: what of the hits the prompt held, in ranges of their documents (``context.Assembled.to_json``).
        steps: like ``generation``, of the earlier steps of a chain.
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
    supplied: dict[str, Any] = field(default_factory=dict)
    steps: tuple[str, ...] = ()


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
        if variant.task is not None:
            return self.perform(variant, question, run_id=run_id)
        question = printable(question)
        options: dict[str, Any] = {**variant.search_options, "filters": narrowed(variant.filters, filters)}
        result = self.retriever.retrieve(
            variant.index,
            question,
            mode=variant.search_mode,
            k=variant.k,
            settings=variant.retrieval,
            snapshot=snapshot,
            run_id=run_id,
            **options,
        )
        return self.generate(variant, question, result, run_id=run_id)

    def perform(self, variant: Variant, text: str, *, run_id: str) -> Answer:
        """Give a text to a variant for a task without documents.

        Raises:
            ConfigError: the prompt's template is wrong.
            GenaiopsError: a model did not answer; see ``Chat.complete``.
        """
        return self.generate(variant, printable(text), no_search(), run_id=run_id)

    def generate(self, variant: Variant, question: str, result: "SearchResult", *, run_id: str) -> Answer:
        """Answer from what was retrieved; of a task without documents, from the input alone.

        Every call is memoised by the rendered messages, the model and its parameters, so it is paid once. The steps of a
        chain are asked one after the other; the answer of one is quoted in the prompts after it.

        Raises:
            ConfigError: the prompt's template is wrong.
            GenaiopsError: the model did not answer, at whichever step; see ``Chat.complete``. Nothing is stored of that
                step then; the answers of those before it are remembered.
        """
        shown = assemble(result.hits, variant.context, question=question, pool=variant.examples)
        documents = {hit.document_id for hit in result.hits} | {
            document for example in (*variant.prompt.examples, *shown.examples) for document in example.documents
        }
        said: dict[str, str] = {}
        steps: list[str] = []
        usage, latency = getattr(result, "usage", Usage()), 0.0
        for step in (*variant.prompt.chain, None):
            messages = render(
                variant.prompt, question, shown.passages,
                examples=shown.examples, step=step, said=said, task=variant.task,
            )  # fmt: skip
            key, generated = self._ask(variant, messages, run_id, documents)
            usage, latency = generated.usage + usage, latency + generated.latency
            if step is None:
                break
            said[step.name] = generated.text
            steps.append(key)
        # whoever asks for a label or a translation gets one or nothing; there are no documents that could not say
        refused = variant.task is None and is_refusal(generated.text, variant.prompt.refusal)
        return Answer(
            text=generated.text,
            refused=refused,
            citations=() if refused else parse_citations(generated.text, result.hits, shown=_numbers(shown)),
            hits=result.hits,
            messages=messages,
            usage=usage,
            retrieval_latency=result.latency,
            generation_latency=latency,
            snapshot=result.snapshot,
            generation=key,
            retrieval=getattr(result, "trace", {}),
            supplied=shown.to_json(),
            steps=tuple(steps),
        )

    def _ask(
        self, variant: Variant, messages: list[dict[str, str]], run_id: str, documents: Collection[int]
    ) -> tuple[str, ChatResult]:
        chat = self._models.chat(variant.model)
        return self._memo.complete(chat, messages, run_id, documents=documents, extra=variant.request_parameters)


def no_search() -> "SearchResult":
    """What a task without documents retrieves."""
    from resources.vector_index import SearchResult

    return SearchResult("", 0, "", (), 0.0)


def _numbers(shown: Assembled) -> set[int]:
    return {passage.number for passage in shown.passages}


def strip_citations(text: str) -> str:
    """The answer without its citation marks, as answers are compared with references."""
    return re.sub(r"\s*" + _MARKER.pattern, "", text).strip()


def is_refusal(text: str, refusal: str) -> bool:
    """Whether an answer is empty or says the refusal sentence, whatever its case, spacing, quotes or marks."""
    said, wanted = _plain(text), _plain(refusal)
    return not said or bool(wanted and wanted in said)


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", strip_citations(text).casefold()))


def parse_citations(
    text: str, hits: "Sequence[SearchHit]", *, shown: Collection[int] | None = None
) -> tuple[Citation, ...]:
    """Citations of an answer: marks such as ``[1]``, ``[1, 3]`` or ``[1-3]``, numbers without a passage left out.

    Args:
        shown: numbers of the hits the prompt held; None: all of them.
    """
    known = range(1, len(hits) + 1) if shown is None else shown
    numbers: list[int] = []
    for marker in _MARKER.finditer(text):
        for part in re.split(r"[,;]", marker[1]):
            ends = [int(number) for number in re.split(r"[–-]", part)]
            numbers.extend(range(ends[0], min(ends[-1], len(hits)) + 1))
    return tuple(_citation(number, hits[number - 1]) for number in dict.fromkeys(numbers) if number in known)


def _citation(number: int, hit: "SearchHit") -> Citation:
    return Citation(
        number, hit.document_id, hit.version_id, hit.source, hit.path, hit.start, hit.end, getattr(hit, "page", None)
    )
