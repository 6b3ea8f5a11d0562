"""What every configuration model shares: strictness, names, fingerprints.

Belongs here: the base model and the types used by several files. Does not belong here: any file's own shape.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from resources.fingerprint import fingerprint

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
SearchMode = Literal["vector", "full_text", "hybrid"]


class Strict(BaseModel):
    """Base of all configuration models: immutable, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def fingerprint(self) -> str:
        """Hash of every field of this configuration."""
        return fingerprint(self.model_dump(mode="json"))


class Grown(Strict):
    """A configuration model that got keys later.

    A key of ``LATER`` that stands at its default does not show when the model is dumped, so that fingerprints of files
    that were written before the key existed stay as they were.
    """

    LATER: ClassVar[tuple[str, ...]] = ()

    @model_serializer(mode="wrap")
    def _without_later_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = type(self).model_fields
        unset = {
            key
            for key in self.LATER
            if getattr(self, key) == fields[key].get_default(call_default_factory=True, validated_data={})
        }
        return {key: value for key, value in handler(self).items() if key not in unset}


def unique_names(items: list[Any], what: str) -> list[Any]:
    names = [item.name for item in items]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{what} names must be unique; twice: {', '.join(twice)}")
    return items
