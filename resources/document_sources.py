"""Document sources: opening a configured place that documents come from.

Belongs here: from a name to something that can be listed. Does not belong here: the interface and the kinds
(resources/sources/), parsing, policies, and the comparison with what is already known (assets/corpus).
"""

import os
from collections.abc import Mapping
from pathlib import Path

from resources.config import ProjectConfig
from resources.errors import ConfigError
from resources.sharding import Shard, source_of
from resources.sources.base import (
    DocumentRefusedError,
    DocumentSource,
    DocumentTooLargeError,
    DocumentUnreadableError,
    DocumentVanishedError,
    Listing,
    RefusedEntry,
    SourceContext,
    SourceEntry,
)
from resources.sources.folder import LocalFolder
from resources.sources.registry import find_kind

__all__ = [
    "DocumentRefusedError",
    "DocumentSource",
    "DocumentTooLargeError",
    "DocumentUnreadableError",
    "DocumentVanishedError",
    "Listing",
    "LocalFolder",
    "RefusedEntry",
    "SourceEntry",
    "open_source",
    "state_folder",
]


def state_folder(config: ProjectConfig, environment: Mapping[str, str] = os.environ) -> Path:
    """Where kinds keep what they could make again, below ``sources/NAME``."""
    state = environment.get("GENAIOPS_STATE_DIR") or config.data_dir.parent / ".genaiops"
    return Path(state).expanduser().absolute()


def open_source(config: ProjectConfig, source: str, environment: Mapping[str, str] = os.environ) -> DocumentSource:
    """Open a configured source, or one shard of it, by name.

    Args:
        environment: where the variables that the configuration names are looked up.

    Raises:
        ConfigError: no source of that name is configured.
    """
    parts = [source] if source in config.sources else config.expand_sources([source])
    if not parts:
        raise ConfigError(f"there is no source named {source!r}; configured: {', '.join(config.sources)}")
    name = source_of(source)
    settings = config.sources[parts[0]].model_copy(update={"name": name})
    context = SourceContext(config.data_dir, state_folder(config, environment), environment)
    opened = find_kind(settings.kind).open(context, settings)
    return opened if name == source else Shard(opened, int(source.removeprefix(f"{name}.")), settings.shards)
