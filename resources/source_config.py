"""The shape of ``sources.yaml``: where documents come from, and what is said about all documents of a place.

Belongs here: the file as a whole. Does not belong here: the settings of a kind (its module in resources/sources/).
"""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, field_validator

from resources.config_base import Strict, unique_names
from resources.sources.base import SourceSettings
from resources.sources.folder import FolderSource
from resources.sources.registry import read_settings

__all__ = ["FolderSource", "SourceConfig", "SourceSettings", "SourcesFile"]

#: Settings of a source of any kind.
SourceConfig = SourceSettings


class SourcesFile(Strict):
    """``sources.yaml``."""

    sources: list[Annotated[SourceSettings, BeforeValidator(read_settings)]] = Field(min_length=1)

    @field_validator("sources")
    @classmethod
    def _unique(cls, value: list[Any]) -> list[Any]:
        return unique_names(value, "source")
