"""Prompt configuration: the shape of ``prompts/*.yaml``.

Belongs here: a prompt as it is written. Does not belong here: versions and rendering (prompt_store.py).
"""

from pydantic import Field, field_validator

from resources.config_base import Name, Strict


class FewShot(Strict):
    """One worked example shown to the model."""

    question: str
    context: str
    answer: str


class PromptConfig(Strict):
    """A prompt version: ``system`` and ``user`` are Jinja2 templates.

    Variables: ``question``, ``passages`` (list of {number, text, document, title, headings}), ``examples``,
    ``refusal`` (the sentence that means "the documents do not say").
    """

    name: Name
    description: str = ""
    system: str = Field(min_length=1)
    user: str = Field(min_length=1)
    refusal: str = "The documents do not say."
    examples: list[FewShot] = Field(default=[])

    @field_validator("user")
    @classmethod
    def _uses_variables(cls, value: str) -> str:
        for variable in ("question", "passages"):
            if variable not in value:
                raise ValueError(f"the user template never uses '{variable}', so the model would not see it")
        return value
