"""Coverage: whether the caches hold everything an index needs of a source at a revision.

Belongs here: counting what is missing. Does not belong here: making it (chunks, embedding.py).
"""

from dataclasses import dataclass

from assets.index.specification import CacheIds
from resources.postgres import Connection


@dataclass(frozen=True)
class Coverage:
    """What one source at one revision has in the caches for one specification.

    Attributes:
        documents: documents of the revision.
        texts_without_chunks: distinct texts that were not chunked or not prepared for embedding.
        inputs: distinct embedding inputs of the texts that were.
        inputs_without_embedding: how many of them have no vector.
    """

    documents: int = 0
    texts_without_chunks: int = 0
    inputs: int = 0
    inputs_without_embedding: int = 0

    @property
    def complete(self) -> bool:
        """Whether the revision can be staged."""
        return self.texts_without_chunks == 0 and self.inputs_without_embedding == 0


def measure_coverage(connection: Connection, ids: CacheIds, source: str, revision: int) -> Coverage:
    """Count what ``source`` at ``revision`` has and lacks; one statement.

    ``LATERAL ... OFFSET 0``, here and in the other queries over chunks, makes the server look up the chunks of each
    text by their key. Left free, right after a first load and without statistics, it reads all chunks for each text.
    """
    row = connection.execute(
        """WITH shown AS (SELECT text_hash FROM document_version
                          WHERE source = %(source)s AND rev_from <= %(revision)s AND rev_to > %(revision)s),
                texts AS (SELECT DISTINCT text_hash FROM shown),
                sets AS (SELECT t.text_hash, s.chunks,
                                (SELECT count(*) FROM chunk_input i WHERE i.enrichment_id = %(enrichment)s
                                 AND i.chunker_id = %(chunker)s AND i.text_hash = t.text_hash) AS inputs
                         FROM texts t LEFT JOIN chunk_set s
                              ON s.chunker_id = %(chunker)s AND s.text_hash = t.text_hash),
                inputs AS (SELECT DISTINCT i.input_hash FROM texts t CROSS JOIN LATERAL (
                               SELECT input_hash FROM chunk_input
                               WHERE enrichment_id = %(enrichment)s AND chunker_id = %(chunker)s
                                 AND text_hash = t.text_hash OFFSET 0) i)
           SELECT (SELECT count(*) FROM shown),
                  (SELECT count(*) FROM sets WHERE chunks IS DISTINCT FROM inputs),
                  count(*), count(*) FILTER (WHERE e.input_hash IS NULL)
           FROM inputs LEFT JOIN embedding e ON e.embedder_id = %(embedder)s AND e.input_hash = inputs.input_hash""",
        {
            "source": source,
            "revision": revision,
            "chunker": ids.chunker,
            "enrichment": ids.enrichment,
            "embedder": ids.embedder,
        },
    ).fetchone()
    assert row is not None
    return Coverage(*row)


def newest_revision(connection: Connection, source: str) -> int:
    """The newest committed revision of a source, 0 when it was never committed."""
    row = connection.execute(
        "SELECT coalesce(max(revision), 0) FROM source_revision WHERE source = %s", (source,)
    ).fetchone()
    assert row is not None
    return row[0]
