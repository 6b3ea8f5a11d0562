"""Shards: one large source as several partitions, so that several machines can work on it at once.

Belongs here: which partition a document is in, and a source reduced to one shard.
Does not belong here: how many shards a source has (sources.yaml) and where its runs go (dagster.yaml).

A partition is a source to everything else: it has its own revisions, lease and runs. Changing the number of shards
moves documents between partitions; what was parsed, chunked and embedded is found again by content.
"""

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resources.document_sources import DocumentSource, Listing


def partitions(source: str, shards: int) -> list[str]:
    """Names of a source's partitions: its own, or ``docs.0``, ``docs.1`` and so on."""
    return [source] if shards == 1 else [f"{source}.{number}" for number in range(shards)]


def source_of(partition: str) -> str:
    """The source a partition belongs to; names of sources hold no dot."""
    return partition.partition(".")[0]


def shard_of(path: str, shards: int) -> int:
    """The shard of a document by its path: the first 8 bytes of its BLAKE2b, modulo the number of shards."""
    return int.from_bytes(hashlib.blake2b(path.encode(), digest_size=8).digest()) % shards


class Shard:
    """One shard of a source. The place is listed in full; only what belongs to the shard is kept and read."""

    def __init__(self, source: "DocumentSource", number: int, shards: int) -> None:
        self._source = source
        self._number = number
        self._shards = shards

    def list(self) -> "Listing":
        """See ``DocumentSource.list``."""
        whole = self._source.list()
        return replace(
            whole,
            entries=[entry for entry in whole.entries if self._has(entry.path)],
            refused=[entry for entry in whole.refused if self._has(entry.path)],
        )

    def fingerprint(self) -> str:
        """Of the whole source: a change anywhere makes every shard look, and all but one find nothing."""
        return self._source.fingerprint()

    def _has(self, path: str) -> bool:
        return shard_of(path, self._shards) == self._number
