"""The kinds of sources there are: our own, and those that other packages bring as entry points.

Belongs here: finding a kind by its name, and reading a source's settings by its kind.
Does not belong here: what a kind is (base.py).

Nothing is imported before a configuration names it: neither a plugin, nor a kind of our own.
"""

import difflib
import importlib
import importlib.util
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

from resources.errors import ConfigError
from resources.sources.base import SourceKind, SourceSettings

#: Entry points of this group each name a ``SourceKind``; the entry point's name is the kind's.
GROUP = "genaiops.sources"
DEFAULT_KIND = "folder"
#: Each of these modules has a constant ``KIND``.
_OWN = {
    "folder": "resources.sources.folder",
    "git": "resources.sources.git",
    "http": "resources.sources.http",
    "remote": "resources.sources.remote",
    "sql": "resources.sources.sql",
    "table": "resources.sources.table",
}


def known_kinds() -> list[str]:
    """Names of all kinds, in order; imports none of them."""
    own = [kind for kind, module in _OWN.items() if importlib.util.find_spec(module)]
    return sorted({*own, *(point.name for point in entry_points(group=GROUP))})


def find_kind(kind: str) -> SourceKind:
    """Import a kind.

    Raises:
        ConfigError: there is none of that name, or its plugin does not work.
    """
    if kind in _OWN and importlib.util.find_spec(_OWN[kind]):
        return importlib.import_module(_OWN[kind]).KIND
    points = list({point.value: point for point in entry_points(group=GROUP, name=kind)}.values())
    if not points:
        known = known_kinds()
        close = difflib.get_close_matches(kind, known, n=1, cutoff=0.5)
        hint = f". Did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"there is no kind of source named {kind!r}; known: {', '.join(known)}{hint}")
    if len(points) > 1:
        values = ", ".join(sorted(point.value for point in points))
        raise ConfigError(f"the kind {kind!r} is brought by several packages ({values}); uninstall all but one")
    return _load(points[0])


@cache
def _load(point: EntryPoint) -> SourceKind:
    try:
        found = point.load()
    except Exception as error:  # a plugin may fail in any way
        raise ConfigError(
            f"the kind {point.name!r} cannot be loaded from {point.value}: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(found, SourceKind) or not issubclass(found.settings, SourceSettings):
        raise ConfigError(
            f"the kind {point.name!r}: {point.value} is not a SourceKind whose settings derive from SourceSettings"
        )
    return found


def settings_model(value: Any) -> type[SourceSettings]:
    """The model that reads one entry of ``sources.yaml``, by its kind; the base model where the kind is not known."""
    try:
        return find_kind(_kind_of(value)).settings
    except ConfigError:
        return SourceSettings


def read_settings(value: Any) -> SourceSettings:
    """Validate one entry of ``sources.yaml`` by its kind.

    Raises:
        ValidationError: as pydantic does; an unknown kind is an error of the key ``kind``.
    """
    if isinstance(value, SourceSettings):
        return value
    try:
        model = find_kind(_kind_of(value)).settings
    except ConfigError as error:
        # the message would be read as a template
        detail = PydanticCustomError("source_kind", "{message}", {"message": str(error)})
        raise ValidationError.from_exception_data(
            "source", [InitErrorDetails(type=detail, loc=("kind",), input=value.get("kind"))]
        ) from error
    return model.model_validate(value)


def _kind_of(value: Any) -> str:
    kind = value.get("kind", DEFAULT_KIND) if isinstance(value, Mapping) else DEFAULT_KIND
    return kind if isinstance(kind, str) else repr(kind)
