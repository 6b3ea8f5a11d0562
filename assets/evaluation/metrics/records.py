"""Records: the trial as metrics see it, and the metric as people read it.

Belongs here: the types every metric shares, and the rules of evidence that retrieval metrics rest on.
Does not belong here: formulas, and the list of metrics (catalogue.py).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Aggregation = Literal["mean", "f1"]
#: ``exact``: the value is what it says; ``offline``: a deterministic estimate of what only a reader can judge;
#: ``judge``: a model's judgement.
Estimator = Literal["exact", "offline", "judge"]
#: What of a trial a metric looks at: two trials that are equal in it have the same value. The task is always among it.
Part = Literal["question", "gold", "hits", "answer", "reference", "refusal", "citations"]
Task = Literal["rag", "classification", "summarization", "translation", "extraction"]
#: Tasks whose answer is a text that is compared with reference texts.
TEXT_TASKS: frozenset[Task] = frozenset({"rag", "summarization", "translation"})

#: Depths at which retrieval is measured beside the variant's own k, so that variants of different k can be compared.
FIXED_DEPTHS = (1, 3, 5, 10)
#: A gold span counts as covered when at least this share of its characters lies inside retrieved chunks.
COVERED_SHARE = 0.5


class CitedPassage(Protocol):
    """What metrics need of a citation: the cited character range."""

    @property
    def document_id(self) -> int: ...
    @property
    def start(self) -> int: ...
    @property
    def end(self) -> int: ...


class RetrievedChunk(CitedPassage, Protocol):
    """What metrics need of a search hit: the character range of a document that is read, its text and its headings."""

    @property
    def text(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def heading_path(self) -> tuple[str, ...]: ...


@dataclass(frozen=True)
class GoldSpan:
    """Evidence of an answer: characters ``[start, end)`` of a document's current text.

    Attributes:
        kind: ``document`` when the whole document is the evidence, as in relevance judgements: any chunk of it finds
            it, and the range is not looked at.
        grade: how relevant, from 1; nDCG weighs by it.
        stance: evidence that ``conflicts`` with the answer is neither asked for nor relevant.
    """

    document_id: int
    start: int
    end: int
    kind: Literal["span", "document"] = "span"
    grade: int = 1
    stance: Literal["supports", "conflicts"] = "supports"


@dataclass(frozen=True)
class TrialRecord:
    """One variant on one question, as metrics see it.

    Attributes:
        answerable: whether the documents hold an answer; false for questions that must be refused.
        reference: the expected answer; ``None`` for unanswerable questions, and where no answer was written down.
        gold: evidence spans; empty for unanswerable questions.
        hits: retrieved chunks, best first, each with the range that is read of it.
        answer: what the variant said, without citation marks.
        refused: whether it said that the documents do not tell.
        failed: an error kept the variant from answering.
        references: further accepted answers; the best of all counts.
        supplied: the chunks as the prompt held them, when a budget or compression made them others than ``hits``.
        task: what was asked for; all but ``rag`` have no documents, and ``question`` is the input.
        labels: of a classification, from the header of its dataset.
        fields: of an extraction, likewise.
    """

    question_id: str
    question: str
    answerable: bool
    reference: str | None
    gold: tuple[GoldSpan, ...]
    hits: tuple[RetrievedChunk, ...]
    answer: str
    refused: bool
    citations: tuple[CitedPassage, ...] = ()
    failed: bool = False
    references: tuple[str, ...] = ()
    supplied: tuple[RetrievedChunk, ...] | None = None
    task: Task = "rag"
    labels: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()

    @property
    def accepted(self) -> list[str]:
        """Every accepted answer once, the reference first; empty when none is known."""
        return list(dict.fromkeys([*([] if self.reference is None else [self.reference]), *self.references]))

    @property
    def read(self) -> tuple[RetrievedChunk, ...]:
        """What the model was shown."""
        return self.hits if self.supplied is None else self.supplied


@dataclass(frozen=True)
class MetricDefinition:
    """A metric as people read it.

    Attributes:
        id: namespaced and versioned; a changed definition gets a new version.
        definition: the formula in words, with its source and when it is undefined.
        applies_to: the trials it is defined for, in words.
        aggregation: how values become one number: their mean, or the F1 of hits and errors (see ``aggregate``).
        depth: number of leading chunks looked at; ``None``: all the variant retrieved.
        looks_at: all of a trial that can change the value.
        range: smallest and largest value; a failed trial gets the worse of the two.
        target: where a good system's mean lies, if that can be said in general: an interval, as generation varies.
        code: raised by hand when values change for a reason that the code of this package does not show.
        tasks: for which it is defined at all; the metrics of a group have the same.
    """

    id: str
    title: str
    definition: str
    applies_to: str
    looks_at: frozenset[Part]
    higher_is_better: bool = True
    estimator: Estimator = "exact"
    aggregation: Aggregation = "mean"
    depth: int | None = None
    range: tuple[float, float] = (0.0, 1.0)
    target: tuple[float, float] | None = None
    code: str = "1"
    tasks: frozenset[Task] = frozenset({"rag"})

    @property
    def worst(self) -> float:
        """The value of a failed trial."""
        return self.range[0] if self.higher_is_better else self.range[1]


@dataclass(frozen=True)
class Group:
    """Metrics that are computed from the same inputs, so that what they share is worked out once per trial.

    Attributes:
        row: what one trial contributes, by input; ``None`` when the metrics do not apply to its question or answer.
        features: the Arrow schema of such a row; builds on the ``datasets`` module it is given.
        prepare: what the metrics share, from the values of a row.
        formulas: by metric id, the value from what ``prepare`` made; ``None``: undefined.
        libraries: packages whose version can change a value.
        failed_row: whether a failed trial is valued by its row instead of by the worst value.
    """

    definitions: tuple[MetricDefinition, ...]
    row: Callable[[TrialRecord], dict[str, Any] | None]
    features: Callable[[Any], dict[str, Any]]
    prepare: Callable[..., Any]
    formulas: Mapping[str, Callable[[Any], float | None]]
    libraries: tuple[str, ...] = ()
    failed_row: bool = False
