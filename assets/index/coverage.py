"""Coverage: whether the caches hold everything an index needs of a source at a revision.

Belongs here: counting what is missing. Does not belong here: making it (chunks, embedding.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from assets.index.specification import CacheIds, Specification
from resources.postgres import Connection


@dataclass(frozen=True)
class Coverage:
    """What one source at one revision has in the caches for one specification.

    Attributes:
        documents: documents of the revision.
        chunks: chunks of its distinct texts.
        texts_without_chunks: distinct texts that were not chunked or not prepared for embedding.
        chunks_without_embedding: chunks whose embedding input has no vector.
        inputs_without_embedding: distinct inputs of these.
    """

    documents: int = 0
    chunks: int = 0
    texts_without_chunks: int = 0
    chunks_without_embedding: int = 0
    inputs_without_embedding: int = 0

    @property
    def complete(self) -> bool:
        """Whether the revision can be staged."""
        return self.texts_without_chunks == 0 and self.inputs_without_embedding == 0


def measure_coverage(connection: Connection, ids: CacheIds, source: str, revision: int, *, since: int = 0) -> Coverage:
    """Count what ``source`` at ``revision`` has and lacks; one statement.

    ``LATERAL ... OFFSET 0``, here and in the other queries over chunks, makes the server look up the chunks of each
    text by their key. Left free, right after a first load and without statistics, it reads all chunks for each text.

    Args:
        since: a revision known to lack nothing (``known_revision``): only texts that came later are looked at for what
            they lack, so that the work follows the change.
    """
    row = connection.execute(
        """WITH shown AS (SELECT text_hash, rev_from FROM document_version
                          WHERE source = %(source)s AND rev_from <= %(revision)s AND rev_to > %(revision)s),
                texts AS (SELECT DISTINCT text_hash FROM shown WHERE rev_from > %(since)s),
                sets AS (SELECT t.text_hash, s.chunks,
                                (SELECT count(*) FROM chunk_input i WHERE i.enrichment_id = %(enrichment)s
                                 AND i.chunker_id = %(chunker)s AND i.text_hash = t.text_hash) AS inputs
                         FROM texts t LEFT JOIN chunk_set s
                              ON s.chunker_id = %(chunker)s AND s.text_hash = t.text_hash),
                lacking AS (SELECT i.input_hash FROM texts t CROSS JOIN LATERAL (
                                SELECT input_hash FROM chunk_input
                                WHERE enrichment_id = %(enrichment)s AND chunker_id = %(chunker)s
                                  AND text_hash = t.text_hash OFFSET 0) i
                            WHERE NOT EXISTS (SELECT 1 FROM embedding e
                                              WHERE e.embedder_id = %(embedder)s AND e.input_hash = i.input_hash))
           SELECT (SELECT count(*) FROM shown),
                  (SELECT coalesce(sum(s.chunks), 0) FROM (SELECT DISTINCT text_hash FROM shown) t
                   JOIN chunk_set s ON s.chunker_id = %(chunker)s AND s.text_hash = t.text_hash),
                  (SELECT count(*) FROM sets WHERE chunks IS DISTINCT FROM inputs),
                  count(*), count(DISTINCT input_hash)
           FROM lacking""",
        {
            "source": source,
            "revision": revision,
            "since": since,
            "chunker": ids.chunker,
            "enrichment": ids.enrichment,
            "embedder": ids.embedder,
        },
    ).fetchone()
    assert row is not None
    return Coverage(*map(int, row))


def known_revision(connection: Connection, indexes: Sequence[str], specification: Specification, source: str) -> int:
    """The newest revision of a source that the head of one of the indexes shows as they are configured; 0 for none.

    Nothing was missing when it was staged, and what a head shows stays in the caches.

    Args:
        indexes: names of indexes with the chunker, enrichment and embedder of ``specification``.
    """
    row = connection.execute(
        """SELECT coalesce(max((s.sources ->> %(source)s)::integer), 0)
           FROM index_state i JOIN index_snapshot s ON s.index_name = i.index_name AND s.snapshot = i.head
           JOIN index_build b USING (build_id)
           WHERE i.index_name = ANY(%(indexes)s) AND b.config ->> 'chunker' = %(chunker)s
             AND b.config ->> 'enrichment' = %(enrichment)s AND b.config -> 'embedder' ->> 'fingerprint' = %(embedder)s""",
        {
            "source": source,
            "indexes": list(indexes),
            "chunker": specification.chunker,
            "enrichment": specification.enrichment,
            "embedder": specification.embedder,
        },
    ).fetchone()
    return row[0] if row else 0


def newest_revision(connection: Connection, source: str) -> int:
    """The newest committed revision of a source, 0 when it was never committed."""
    row = connection.execute(
        "SELECT coalesce(max(revision), 0) FROM source_revision WHERE source = %s", (source,)
    ).fetchone()
    assert row is not None
    return row[0]
