"""Questions as a person writes them: one object per question, in JSON lines, YAML or CSV.

Belongs here: the shape of a question, checking it, and error messages that name file, line, field and remedy.
Does not belong here: reading the formats (question_files.py), finding the evidence in the documents (anchoring.py,
dataset.py).
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from assets.evaluation.question_files import RawQuestion, read_question_file
from resources.dataset_config import DatasetConfig
from resources.errors import ConfigError
from resources.fingerprint import canonical_json, fingerprint
from resources.task_config import TaskSpec

Split = Literal["train", "dev", "test"]
EvidenceKind = Literal["span", "document"]
Stance = Literal["supports", "conflicts"]


class EvidenceSpec(BaseModel):
    """Where an answer stands: a quote of a document, the character range of one, or the document as a whole.

    Attributes:
        document: ``<source>/<path inside the source>``.
        quote: text copied from the document.
        start, end: instead of the quote, characters ``[start, end)`` of the document's text at the time of writing.
        kind: ``document``: the whole of it is relevant, without saying where; then neither quote nor range is given.
        grade: how relevant it is, where that was judged in grades; 1 is relevant, more is better.
        stance: ``conflicts``: it contradicts the answer. It is found and shown, but nobody has to retrieve it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    document: str = Field(pattern=r"^[^/]+/.+$")
    quote: str | None = None
    start: int | None = Field(default=None, ge=0)
    end: int | None = Field(default=None, ge=1)
    kind: EvidenceKind = "span"
    grade: int = Field(default=1, ge=1, le=1000)
    stance: Stance = "supports"

    @model_validator(mode="after")
    def _one_place(self) -> "EvidenceSpec":
        if self.kind == "document":
            if self.quote is not None or self.start is not None or self.end is not None:
                raise ValueError("kind 'document' means all of it; remove quote, start and end, or the kind")
            return self
        has_range = self.start is not None and self.end is not None
        if (self.quote is None) == (not has_range) or (self.start is None) != (self.end is None):
            raise ValueError("give either 'quote', or both 'start' and 'end'; for a whole document set kind: document")
        if self.quote is not None and not self.quote.strip():
            raise ValueError("the quote is empty; copy the sentence that holds the answer")
        if self.start is not None and self.end is not None and self.start >= self.end:
            raise ValueError(f"start {self.start} must be smaller than end {self.end}")
        return self

    @property
    def source(self) -> str:
        """Name of the source the document belongs to."""
        return self.document.partition("/")[0]

    @property
    def path(self) -> str:
        """Path of the document inside its source."""
        return self.document.partition("/")[2]

    def fingerprint(self) -> str:
        """Hash of the place as written. By it the evidence is known again, so grade and stance are not in it."""
        place: dict[str, Any] = self.model_dump(mode="json", include={"document", "quote", "start", "end"})
        return fingerprint(place if self.kind == "span" else {**place, "kind": self.kind})


class QuestionSpec(BaseModel):
    """One question of a question file, or one input of a task without documents (docs/tasks.md).

    Validated with ``context={"task": TaskSpec}``, it is such an input: it has an answer that fits the task, and no evidence.

    Attributes:
        question: or the input of a task.
        answer: what is expected; null where the documents hold no answer, or where only the passage is known.
        answers: other wordings that are as good; an answer is scored against the best of all.
        answerable: whether the documents answer it; by default whether there is an ``answer``. Unanswerable questions
            have no evidence.
        group: questions of one group (rewordings, one paragraph, translations) belong into one split, and are no
            independent observations.
        provenance: where the question comes from; see docs/datasets.md.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(pattern=r"^\S{1,128}$")
    question: str
    answer: str | None
    answers: tuple[str, ...] = ()
    answerable: bool | None = None
    evidence: tuple[EvidenceSpec, ...] = ()
    split: Split
    tags: dict[str, Any] = {}
    group: str | None = Field(default=None, min_length=1, max_length=256)
    provenance: dict[str, Any] = {}

    @field_validator("question", "answer")
    @classmethod
    def _not_blank(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise ValueError("the text is empty")
        if value is not None and "\x00" in value:
            raise ValueError("the text contains a NUL character; remove it")
        return value

    @field_validator("answers")
    @classmethod
    def _none_blank(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            cls._not_blank(value)
        return values

    @field_validator("tags", "provenance")
    @classmethod
    def _plain(cls, value: dict[str, Any]) -> dict[str, Any]:
        try:
            canonical_json(value)
        except (TypeError, ValueError):
            raise ValueError("only texts, finite numbers, true, false, lists and objects are allowed") from None
        return value

    @model_validator(mode="after")
    def _answer_and_evidence(self, info: ValidationInfo) -> "QuestionSpec":
        if self.answers and self.answer is None:
            raise ValueError("'answers' without an answer; move the best of them to 'answer'")
        task = (info.context or {}).get("task")
        if task is not None:
            self._fits_task(task)
            return self
        if self.answerable is False and self.answer is not None:
            raise ValueError("answerable is false, but there is an answer; remove one of them")
        if not self.is_answerable and self.evidence:
            raise ValueError(
                "evidence without an answer; give the answer, or remove the evidence if there is none, or set "
                "answerable to true if only the passage is known"
            )
        if self.answer is not None and not self.evidence:
            raise ValueError("an answer without evidence; quote where it stands, or set the answer to null")
        if self.is_answerable and not any(one.stance == "supports" for one in self.evidence):
            raise ValueError("an answerable question needs evidence that supports its answer")
        return self

    def _fits_task(self, task: TaskSpec) -> None:
        if self.evidence:
            raise ValueError(f"evidence: {task.kind} has no documents; remove it")
        if self.answer is None or self.answerable is False:
            raise ValueError(f"answer: every input of {task.kind} needs one; give it, and remove 'answerable'")
        for answer in (self.answer, *self.answers):
            if task.kind == "classification" and answer not in task.labels:
                raise ValueError(f"answer: {answer!r} is not among the labels of the header: {', '.join(task.labels)}")
            if task.kind == "extraction":
                _check_fields(answer, task.fields)

    @property
    def is_answerable(self) -> bool:
        """Whether the documents answer it."""
        return self.answer is not None if self.answerable is None else self.answerable

    @property
    def references(self) -> tuple[str, ...]:
        """Every accepted answer once, the one to show first."""
        return tuple(dict.fromkeys([] if self.answer is None else [self.answer, *self.answers]))


def _check_fields(answer: str, fields: Sequence[str]) -> None:
    """Refuse an answer that is no object of exactly these fields.

    Raises:
        ValueError: naming the field.
    """
    try:
        value = json.loads(answer)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ValueError(f"answer: must be an object with the fields {', '.join(fields)}")
    if missing := [field for field in fields if field not in value]:
        raise ValueError(f"answer: field {missing[0]!r} is missing; set it to null if the input does not say")
    if unknown := [key for key in value if key not in fields]:
        raise ValueError(f"answer: {unknown[0]!r} is not among the fields of the header: {', '.join(fields)}")
    for field, item in value.items():
        several = item if isinstance(item, list) else [item]
        if not all(one is None or isinstance(one, str | int | float) for one in several):
            raise ValueError(f"answer: field {field!r} must be a text, a number, true, false, null, or a list of these")


def _as_texts(fields: Any, task: TaskSpec | None) -> Any:
    """Objects as answers of an extraction become JSON texts, with the fields in the order of the header."""
    if task is None or task.kind != "extraction" or not isinstance(fields, dict):
        return fields

    def text(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        keys = [*(field for field in task.fields if field in value), *(key for key in value if key not in task.fields)]
        return json.dumps({key: value[key] for key in keys}, ensure_ascii=False)

    changed = dict(fields)
    if "answer" in fields:
        changed["answer"] = text(fields["answer"])
    if isinstance(fields.get("answers"), list | tuple):
        changed["answers"] = [text(value) for value in fields["answers"]]
    return changed


def load_questions(paths: Path | Sequence[Path], header: DatasetConfig | None = None) -> list[QuestionSpec]:
    """Read question files in their order; each line is checked, and ids are unique over all files.

    Args:
        header: of the dataset; it says how lines without a split get one, and whether answers are needed.

    Raises:
        ConfigError: naming file, line, field, what is wrong and how to mend it; all bad lines at once.
    """
    task = header.task_spec if header is not None else None
    raws: list[RawQuestion] = []
    mistakes: list[str] = []
    for path in [paths] if isinstance(paths, Path) else paths:
        raws += read_question_file(path, mistakes)
    if header is not None and header.split_by is not None:
        raws = _with_splits(raws, dict(header.split_shares.items()))
    questions: list[QuestionSpec] = []
    seen: dict[str, RawQuestion] = {}
    for raw in raws:
        try:
            question = QuestionSpec.model_validate(_as_texts(raw.fields, task), context={"task": task})
        except ValidationError as error:
            mistakes += [f"{raw.where}: {_explain(detail, task)}" for detail in error.errors()]
            continue
        if question.id in seen:
            first = seen[question.id]
            where = f"line {first.line}" if first.path == raw.path else first.where
            mistakes.append(f"{raw.where}: id: {question.id!r} is already used in {where}")
        seen.setdefault(question.id, raw)
        if header is not None and header.task == "rag" and question.is_answerable and question.answer is None:
            mistakes.append(
                f"{raw.where}: answer: an answerable question needs a reference answer; give it, or set task: retrieval "
                f"in the header of {header.name}, which scores only what is found"
            )
        questions.append(question)
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return questions


def split_of(key: str, shares: Mapping[str, float]) -> str:
    """The split of everything under ``key``: always the same, whatever else is in the dataset.

    The first 8 bytes of the key's BLAKE2b as a number from 0 to 1, laid on the shares of train, dev and test in this order.
    """
    place = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest()) / 2**64
    total = sum(shares.values())
    reached = 0.0
    for name in get_args(Split):
        reached += shares.get(name, 0.0) / total
        if place < reached:
            return name
    return next(name for name in reversed(get_args(Split)) if shares.get(name, 0.0) > 0)  # rounding


def _with_splits(raws: Sequence[RawQuestion], shares: Mapping[str, float]) -> list[RawQuestion]:
    """Lines without a split get that of their group, or one by the hash of group, evidence document or id."""
    declared: dict[Any, set[Any]] = {}
    for raw in raws:
        if isinstance(raw.fields, dict) and raw.fields.get("group") and raw.fields.get("split"):
            declared.setdefault(str(raw.fields["group"]), set()).add(raw.fields["split"])
    result: list[RawQuestion] = []
    for raw in raws:
        fields = raw.fields
        if isinstance(fields, dict) and fields.get("split") is None:
            group = fields.get("group")
            own = declared.get(str(group), set()) if group else set()
            split = next(iter(own)) if len(own) == 1 else split_of(_split_key(fields), shares)
            raw = RawQuestion(raw.path, raw.line, {**fields, "split": split})
        result.append(raw)
    return result


def _split_key(fields: Mapping[str, Any]) -> str:
    if fields.get("group"):
        return f"group {fields['group']}"
    evidence = fields.get("evidence")
    if isinstance(evidence, list) and evidence and isinstance(evidence[0], dict) and evidence[0].get("document"):
        return f"document {evidence[0]['document']}"
    return f"question {fields.get('id')}"


def _explain(detail: Any, task: TaskSpec | None = None) -> str:
    field = ".".join(str(part) for part in detail["loc"]) or "(line)"
    kind = detail["type"]
    if kind == "missing":
        remedy = {
            "answer": " (null if the documents do not answer the question)" if task is None else "",
            "split": " (train, dev or test; or set split_by: group in the header)",
        }.get(field, "")
        return f"{field}: this field is required{remedy}"
    if kind == "extra_forbidden":
        model = EvidenceSpec if detail["loc"][0] == "evidence" else QuestionSpec
        return f"{field}: unknown field; allowed: {', '.join(model.model_fields)}"
    if field == "split":
        return f"{field}: must be one of {', '.join(get_args(Split))}"
    if field.endswith("document"):
        return f"{field}: must be <source>/<path of the document inside the source>"
    message = detail["msg"].removeprefix("Value error, ")
    if task is not None and field == "(line)":
        return message
    return f"{field}: {message}" + ("; in YAML put it in quotes" if kind == "string_type" else "")
