"""Dead letters: asking again about chunks for which a model gave no usable value.

Belongs here: taking back that they were given up, in the caches and in what indexes show.
Does not belong here: asking (the next refresh does), and deciding what is given up (assets/chunks/enrichment_models.py).
"""

from resources.platform import Platform
from resources.postgres import FOREVER


def retry_given_up(platform: Platform, source: str) -> int:
    """Forget that values of a source's live chunks were given up; returns how many the next refresh asks for again.

    The inputs composed without them go as well, and every document that shows such a chunk is marked to be written anew,
    so that its rows follow when the values are there. Until then readers keep what they have.
    """
    with platform.database.connect() as connection:
        # rows of texts, not of chunks: the inputs of a text are composed together
        connection.execute(
            """CREATE TEMP TABLE given_up ON COMMIT DROP AS
               SELECT DISTINCT v.step_id, v.chunk_hash, v.context_hash, c.chunker_id, c.text_hash
               FROM enrichment_value v
               JOIN enrichment_step s USING (step_id)
               JOIN chunk c ON c.chunk_hash = v.chunk_hash
                    AND v.context_hash IN ('\\x'::bytea, heading_context(c.heading_path))
               WHERE v.value IS NULL AND c.text_hash IN (
                   SELECT text_hash FROM document_version WHERE source = %s AND rev_to = %s)""",
            (source, FOREVER),
        )
        connection.execute(
            """UPDATE index_document d SET damaged_at = now()
               FROM index_build b, document_version v
               WHERE b.build_id = d.build_id AND b.state = 'ready' AND v.version_id = d.version_id
                 AND d.valid_to = %s AND d.damaged_at IS NULL
                 AND EXISTS (SELECT FROM given_up g JOIN chunker USING (chunker_id)
                             JOIN enrichment_part p ON p.step_id = g.step_id
                             JOIN enrichment e ON e.enrichment_id = p.enrichment_id
                             WHERE g.text_hash = v.text_hash AND chunker.fingerprint = b.config ->> 'chunker'
                               AND e.fingerprint = b.config ->> 'enrichment')""",
            (FOREVER,),
        )
        connection.execute(
            """DELETE FROM chunk_input i USING given_up g, enrichment_part p
               WHERE p.step_id = g.step_id AND i.enrichment_id = p.enrichment_id AND i.chunker_id = g.chunker_id
                 AND i.text_hash = g.text_hash"""
        )
        return connection.execute(
            """DELETE FROM enrichment_value v USING (SELECT DISTINCT step_id, chunk_hash, context_hash FROM given_up) g
               WHERE v.step_id = g.step_id AND v.chunk_hash = g.chunk_hash AND v.context_hash = g.context_hash"""
        ).rowcount
