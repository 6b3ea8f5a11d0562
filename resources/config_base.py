"""What every configuration model shares: strictness, names, fingerprints.

Belongs here: the base model and the types used by several files. Does not belong here: any file's own shape.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from resources.fingerprint import fingerprint

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
SearchMode = Literal["vector", "full_text", "hybrid"]


class Strict(BaseModel):
    """Base of all configuration models: immutable, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def fingerprint(self) -> str:
        """Hash of every field of this configuration."""
        return fingerprint(self.model_dump(mode="json"))


def unique_names(items: list[Any], what: str) -> list[Any]:
    names = [item.name for item in items]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{what} names must be unique; twice: {', '.join(twice)}")
    return items
