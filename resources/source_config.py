"""The shape of ``sources.yaml``: where documents come from, and what is said about all documents of a place.

Belongs here: one model per kind of source. Does not belong here: reading a source (document_sources.py).
"""

from typing import Literal

from pydantic import Field, field_validator

from resources.config_base import Name, Strict, unique_names
from resources.fingerprint import fingerprint


class FolderSource(Strict):
    """A local folder of documents."""

    kind: Literal["folder"] = "folder"
    name: Name
    path: str = Field(description="Folder, relative to the data directory or absolute.")
    include: list[str] = Field(default=["**/*"], min_length=1, description="Glob patterns, relative to the folder.")
    exclude: list[str] = Field(default=[], description="Glob patterns that win over include.")
    licence: str | None = Field(default=None, description="Licence of documents that do not state their own.")
    owner: str | None = Field(default=None, description="Who is asked when a document is wrong.")
    language: str | None = Field(default=None, description="Language code where detection is not wanted.")
    follow_symlinks: bool = False

    def fingerprint(self) -> str:
        """Hash of the fields that can change a document; owner and description cannot."""
        return fingerprint(self.model_dump(mode="json", exclude={"owner"}))


SourceConfig = FolderSource


class SourcesFile(Strict):
    """``sources.yaml``."""

    sources: list[SourceConfig] = Field(min_length=1)

    @field_validator("sources")
    @classmethod
    def _unique(cls, value: list[SourceConfig]) -> list[SourceConfig]:
        return unique_names(value, "source")
