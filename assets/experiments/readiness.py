"""Readiness: whether the indexes an experiment searches have been built.

Belongs here: which source is missing from which index. Does not belong here: building them (assets/index).
"""

from collections.abc import Mapping, Sequence

from resources.config import ProjectConfig
from resources.errors import GenaiopsError, SnapshotNotFoundError
from resources.fingerprint import fingerprint
from resources.platform import Platform
from resources.postgres import Connection
from resources.sharding import source_of

#: {index: partitions of sources that its newest snapshot does not show}.
Missing = dict[str, list[str]]


def missing_sources(connection: Connection, platform: Platform, indexes: Sequence[str]) -> Missing:
    """What the newest snapshots of some indexes lack of the sources they cover and that were ever loaded.

    An index that was never published, or was built with other settings than it has now, lacks all of them, also those that
    were never loaded.
    """
    config = platform.config
    shown: dict[str, dict[str, int]] = {
        name: sources
        for name, sources, built_as in connection.execute(
            """SELECT i.index_name, s.sources, b.fingerprint FROM index_state i
               JOIN index_snapshot s ON s.index_name = i.index_name AND s.snapshot = i.head
               JOIN index_build b USING (build_id)
               WHERE i.index_name = ANY(%s)""",
            (list(indexes),),
        )
        if built_as == _configured_as(platform, name, built_as)
    }
    loaded = {source for (source,) in connection.execute("SELECT DISTINCT source FROM source_revision")}
    missing: Missing = {}
    for index in dict.fromkeys(indexes):
        covered = config.index_sources(index)
        lacking = [one for one in covered if index not in shown or (one in loaded and one not in shown[index])]
        if lacking:
            missing[index] = lacking
    return missing


def _configured_as(platform: Platform, index: str, built_as: str) -> str:
    """Fingerprint of the index as it is configured; what it was built as, where that cannot be told (a key is missing)."""
    from resources.vector_index import index_fingerprint

    try:
        return index_fingerprint(platform.config, platform.models, index)
    except GenaiopsError:
        return built_as


def refuse_unbuilt(connection: Connection, platform: Platform, experiment: str, indexes: Sequence[str]) -> None:
    """Make sure that an experiment compares indexes of the same documents.

    An index that lacks a source which another one of the experiment shows has not been built completely: compared as it is, it
    would have less to find and less to be confused by. One that was built with other settings would be taken for what it is not.

    Raises:
        SnapshotNotFoundError: naming the indexes, what they lack, and how to build them.
    """
    config = platform.config
    missing = missing_sources(connection, platform, indexes)
    unbuilt = {
        name: lacking for name, lacking in missing.items() if _is_uneven(name, lacking, config, indexes, missing)
    }
    if not unbuilt:
        return
    told = "; ".join(
        f"{name}{_derived(config, name)} as it is configured lacks {', '.join(lacking)}"
        for name, lacking in unbuilt.items()
    )
    sources = list(dict.fromkeys(source_of(one) for lacking in unbuilt.values() for one in lacking))
    raise SnapshotNotFoundError(
        f"experiment {experiment}: not all of its indexes are built: {told}; run genaiops refresh {' '.join(sources)}, or "
        "genaiops evaluate, which does that first (in Dagster: materialize search_index of these sources)"
    )


def _is_uneven(
    name: str,
    lacking: Sequence[str],
    config: ProjectConfig,
    indexes: Sequence[str],
    missing: Mapping[str, Sequence[str]],
) -> bool:
    if len(lacking) == len(config.index_sources(name)):
        return True  # never built, or not as it is configured
    others = [one for one in indexes if one != name]
    return any(
        source in config.index_sources(other) and source not in missing.get(other, ())
        for source in lacking
        for other in others
    )


def _derived(config: ProjectConfig, name: str) -> str:
    return f" (derived from {config.derived[name]})" if name in config.derived else ""


def unbuilt_sources(connection: Connection, platform: Platform, experiments: Sequence[str]) -> dict[str, str]:
    """Partitions to refresh before some experiments can run: {partition: state}, in the order of the configuration.

    Args:
        experiments: names.

    Returns:
        With each partition a hash of what it is missing from, with the settings of these indexes: one that cannot be built as it
        is configured is a reason to ask once, not for ever.
    """
    config = platform.config
    indexes = [index for name in experiments for index in config.experiments[name].index_names]
    missing = missing_sources(connection, platform, indexes)
    wanted: dict[str, str] = {}
    for source in config.sources:
        lacking = sorted(name for name, sources in missing.items() if source in sources)
        if lacking:
            wanted[source] = fingerprint([[name, config.indexes[name].fingerprint()] for name in lacking])
    return wanted
