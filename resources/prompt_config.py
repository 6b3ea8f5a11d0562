"""Prompt configuration: the shape of ``prompts/*.yaml``.

Belongs here: a prompt as it is written. Does not belong here: versions and rendering (prompt_store.py), labels
(prompt_labels.py).
"""

import re
from typing import Annotated, Any, ClassVar

from pydantic import Field, field_validator, model_validator

from resources.config_base import Grown, Name, Strict

#: Parts of a request that are set elsewhere and no parameter may replace.
RESERVED_PARAMETERS = ("model", "messages", "stream", "n")
#: The system template of a prompt that gives its parts instead of one.
COMPOSED = """\
{% if persona %}
{{ persona }}
{% endif %}
{{ instructions }}
{% for constraint in constraints %}
- {{ constraint }}
{% endfor %}
"""

#: A use of the variable ``input`` in a template: in a tag, and not as the attribute of something else.
_INPUT = re.compile(r"\{[{%](?:(?!%\}|\}\}).)*?(?<![.\w'\"])input\b", re.DOTALL)

#: How a grid names a prompt: a file of prompts/, or a version on record by number or by label: ``concise@3``,
#: ``concise@production``.
PromptReference = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}(@([1-9][0-9]{0,8}|[a-z][a-z0-9_-]{0,62}))?$")]


def split_reference(reference: str) -> tuple[str, int | str | None]:
    """Name of the prompt, and the version's number or label; None: the file as it is now."""
    name, _, version = reference.partition("@")
    return name, int(version) if version.isdigit() else version or None


def names_label(reference: str) -> bool:
    """Whether a reference follows a label, which may be moved."""
    return isinstance(split_reference(reference)[1], str)


def check_parameters(parameters: dict[str, Any]) -> dict[str, Any]:
    """Refuse parameters of a request that are set elsewhere.

    Raises:
        ValueError: naming the parameter.
    """
    for reserved in RESERVED_PARAMETERS:
        if reserved in parameters:
            raise ValueError(f"parameters must not contain {reserved!r}; it is set elsewhere")
    return parameters


class FewShot(Grown):
    """One worked example shown to the model.

    Attributes:
        question: or the input, for a task without documents; such an example has no ``context``.
        documents: ids of the documents its words are from, so that an erasure finds it; filled in for examples that are
            drawn from the train questions of a dataset.
    """

    LATER: ClassVar[tuple[str, ...]] = ("documents",)

    question: str
    context: str = ""
    answer: str
    documents: tuple[int, ...] = ()


class ChainStep(Strict):
    """A prompt that is asked before the last one; later templates read its answer as ``steps.<name>``, as quoted lines."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")
    system: str = Field(min_length=1)
    user: str = Field(min_length=1)


class PromptConfig(Grown):
    """A prompt version: ``system`` and ``user`` are Jinja2 templates.

    Variables: ``question``, ``passages`` (list of {number, text, document, title, headings}), ``examples``,
    ``refusal`` (the sentence that means "the documents do not say"), ``persona``, ``instructions``, ``constraints``
    (list), and ``steps`` (answers of the chain so far).

    A prompt for a task without documents (docs/tasks.md) uses ``input`` in place of ``question`` and ``passages``: the text
    as quoted lines. Beside it there are ``labels``, ``fields`` and ``languages`` of the dataset's header; its examples have
    ``input`` and ``answer``.
    """

    LATER: ClassVar[tuple[str, ...]] = ("persona", "instructions", "constraints", "parameters", "chain")

    name: Name
    description: str = ""
    persona: str = Field(default="", description="Who answers, and for whom.")
    instructions: str = Field(default="", description="What to do.")
    constraints: list[str] = Field(default=[], description="What holds of every answer, one sentence each.")
    system: str = Field(default=COMPOSED, min_length=1, description="By default persona, instructions and constraints.")
    user: str = Field(min_length=1)
    refusal: str = "The documents do not say."
    examples: list[FewShot] = Field(default=[])
    parameters: dict[str, Any] = Field(
        default={}, description="Of the model, for every request of this prompt; they win over those of models.yaml."
    )
    chain: list[ChainStep] = Field(default=[], max_length=8, description="Prompts asked first, in this order.")

    @field_validator("user")
    @classmethod
    def _uses_variables(cls, value: str) -> str:
        missing = [variable for variable in ("question", "passages") if variable not in value]
        if missing and not _INPUT.search(value):
            raise ValueError(
                f"the user template never uses '{missing[0]}', so the model would not see it (nor 'input', the one "
                "variable of tasks without documents)"
            )
        return value

    @field_validator("parameters")
    @classmethod
    def _parameters(cls, value: dict[str, Any]) -> dict[str, Any]:
        return check_parameters(value)

    @model_validator(mode="after")
    def _every_part_is_used(self) -> "PromptConfig":
        if self.system == COMPOSED and not self.instructions:
            raise ValueError("give system, a template, or instructions (with persona and constraints) in place of it")
        if not self.performs and any("context" not in example.model_fields_set for example in self.examples):
            raise ValueError("examples: each needs its context, the passage that holds the answer")
        templates = self.system + self.user + "".join(step.system + step.user for step in self.chain)
        for part in ("persona", "instructions", "constraints"):
            if getattr(self, part) and part not in templates:
                raise ValueError(f"{part} is given, but no template uses '{part}', so the model would not see it")
        names = [step.name for step in self.chain]
        if len(set(names)) < len(names):
            raise ValueError("the names of the steps of a chain must differ")
        for number, step in enumerate(self.chain):
            later = "".join(one.system + one.user for one in self.chain[number + 1 :]) + self.system + self.user
            if not re.search(rf"\bsteps\s*(\.\s*{step.name}\b|\[\s*['\"]{step.name}['\"]\s*\])", later):
                raise ValueError(
                    f"chain step {step.name!r}: no later template uses 'steps.{step.name}', so its answer would be lost"
                )
        return self

    @property
    def performs(self) -> bool:
        """Whether it is for a task with one input instead of retrieved passages."""
        return bool(_INPUT.search(self.user))

    @property
    def shows_examples(self) -> bool:
        """Whether a template shows examples, if there are any."""
        return "examples" in self.system + self.user
