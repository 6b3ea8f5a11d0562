"""Questions as a person writes them: one JSON object per line.

Belongs here: the shape of a line and error messages that name file, line, field and remedy.
Does not belong here: finding the evidence in the documents (anchoring.py, dataset.py).
"""

import json
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from resources.errors import ConfigError
from resources.fingerprint import fingerprint

Split = Literal["train", "dev", "test"]


class EvidenceSpec(BaseModel):
    """Where an answer stands: a quote of a document, or the character range of one.

    Attributes:
        document: ``<source>/<path inside the source>``.
        quote: text copied from the document.
        start, end: instead of the quote, characters ``[start, end)`` of the document's text at the time of writing.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    document: str = Field(pattern=r"^[^/]+/.+$")
    quote: str | None = None
    start: int | None = Field(default=None, ge=0)
    end: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _quote_or_range(self) -> "EvidenceSpec":
        has_range = self.start is not None and self.end is not None
        if (self.quote is None) == (not has_range) or (self.start is None) != (self.end is None):
            raise ValueError("give either 'quote', or both 'start' and 'end'")
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
        """Hash of the evidence as written."""
        return fingerprint(self.model_dump(mode="json"))


class QuestionSpec(BaseModel):
    """One line of a question file. Unanswerable: ``answer`` null and no evidence."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(pattern=r"^\S{1,128}$")
    question: str
    answer: str | None
    evidence: tuple[EvidenceSpec, ...] = ()
    split: Split
    tags: dict[str, Any] = {}

    @field_validator("question", "answer")
    @classmethod
    def _not_blank(cls, value: str | None) -> str | None:
        if value is not None and not value.strip():
            raise ValueError("the text is empty")
        if value is not None and "\x00" in value:
            raise ValueError("the text contains a NUL character; remove it")
        return value

    @model_validator(mode="after")
    def _answer_and_evidence(self) -> "QuestionSpec":
        if self.answer is None and self.evidence:
            raise ValueError("evidence without an answer; give the answer, or remove the evidence if there is none")
        if self.answer is not None and not self.evidence:
            raise ValueError("an answer without evidence; quote where it stands, or set the answer to null")
        return self


def load_questions(path: Path) -> list[QuestionSpec]:
    """Read a question file (JSON lines, UTF-8), in its order; blank lines are skipped.

    Raises:
        ConfigError: naming file, line, field, what is wrong and how to mend it; all bad lines at once.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: the file is missing; write one question per line as JSON") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text at byte {error.start}; save the file as UTF-8") from error
    questions: list[QuestionSpec] = []
    mistakes: list[str] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            question = QuestionSpec.model_validate(json.loads(line))
        except json.JSONDecodeError as error:
            mistakes.append(
                f"{path}:{number}: not valid JSON at column {error.colno}: {error.msg}; one object per line"
            )
        except ValidationError as error:
            mistakes += [f"{path}:{number}: {_explain(detail)}" for detail in error.errors()]
        else:
            if question.id in seen:
                mistakes.append(f"{path}:{number}: id: {question.id!r} is already used in line {seen[question.id]}")
            seen.setdefault(question.id, number)
            questions.append(question)
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return questions


def _explain(detail: Any) -> str:
    field = ".".join(str(part) for part in detail["loc"]) or "(line)"
    kind = detail["type"]
    if kind == "missing":
        remedy = " (null if the documents do not answer the question)" if field == "answer" else ""
        return f"{field}: this field is required{remedy}"
    if kind == "extra_forbidden":
        model = EvidenceSpec if detail["loc"][0] == "evidence" else QuestionSpec
        return f"{field}: unknown field; allowed: {', '.join(model.model_fields)}"
    if field == "split":
        return f"{field}: must be one of {', '.join(get_args(Split))}"
    if field.endswith("document"):
        return f"{field}: must be <source>/<path of the document inside the source>"
    return f"{field}: {detail['msg'].removeprefix('Value error, ')}"
