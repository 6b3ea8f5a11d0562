"""Audit: finds rows of the served index that were lost or altered behind our back.

Belongs here: the one query that compares rows with what was written, and marking the damage.
Does not belong here: the repair; the next stage writes marked documents anew (staging.py).
"""

from dataclasses import dataclass

from psycopg import sql

from assets.index.staging import Head, read_head
from assets.index.tables import miscounted_words, row_digest
from resources.platform import Platform
from resources.postgres import Connection


@dataclass(frozen=True)
class Damage:
    """One document whose rows are not what was written.

    Attributes:
        source: empty when the document is unknown to the index.
        expected_chunks: as written; ``found_chunks``: rows there are. Equal numbers mean that a row was altered.
        repair: ``document`` is written anew by the next refresh; ``build`` means that the whole index is, because rows
            belong to no document, a document is gone from the list of documents, or words are miscounted (document 0).
    """

    document_id: int
    source: str
    expected_chunks: int
    found_chunks: int
    repair: str


def audit(platform: Platform, index: str) -> list[Damage]:
    """Compare every visible row of the head with what was written, and mark what differs for repair.

    One statement reads all rows; contents, positions, words and vectors enter the digest. An index without a published
    snapshot has nothing to damage.
    """
    with platform.database.connect() as connection:
        head = read_head(connection, index)
        if head.build_id is None:
            return []
        vector_type, layout = head.config["index"]["vector_type"], head.config.get("layout", 1)
        rows = connection.execute(
            sql.SQL(
                """WITH rows AS (SELECT c.document_id, count(*) AS chunks, sum({digest}) AS digest FROM {table} c
                                 WHERE c.valid_from <= %(head)s AND c.valid_to > %(head)s GROUP BY 1),
                        shown AS (SELECT * FROM index_document
                                  WHERE build_id = %(build)s AND valid_from <= %(head)s AND valid_to > %(head)s)
                   SELECT coalesce(shown.document_id, rows.document_id), coalesce(shown.source, ''),
                          coalesce(shown.chunks, 0), coalesce(rows.chunks, 0),
                          CASE WHEN shown.document_id IS NULL THEN 'build' ELSE 'document' END
                   FROM shown FULL JOIN rows USING (document_id)
                   WHERE shown.document_id IS NULL OR shown.chunks <> coalesce(rows.chunks, 0)
                      OR shown.digest <> coalesce(rows.digest, 0)
                   ORDER BY 1"""
            ).format(table=sql.Identifier(head.table), digest=row_digest("c", vector_type, layout)),
            {"head": head.snapshot, "build": head.build_id},
        ).fetchall()
        damage = [Damage(*row) for row in rows]
        damage += [
            Damage(document, source, 0, 0, "build")
            for document, source in connection.execute(  # documents the list of shown documents has lost
                """SELECT v.document_id, v.source
                   FROM index_state i JOIN index_snapshot s ON s.index_name = i.index_name AND s.snapshot = i.head
                   CROSS JOIN LATERAL jsonb_each_text(s.sources) r (source, revision)
                   JOIN document_version v ON v.source = r.source
                        AND v.rev_from <= r.revision::integer AND v.rev_to > r.revision::integer
                   WHERE i.index_name = %s AND NOT EXISTS (
                       SELECT 1 FROM index_document d WHERE d.build_id = s.build_id AND d.document_id = v.document_id
                         AND d.valid_from <= s.snapshot AND d.valid_to > s.snapshot)
                   ORDER BY 1""",
                (index,),
            )
        ]
        if not damage and miscounted_words(connection, head.table, head.snapshot):
            damage.append(Damage(0, "", 0, 0, "build"))
        _mark(connection, head, damage)
    return damage


def _mark(connection: Connection, head: Head, damage: list[Damage]) -> None:
    """Mark documents; for damage no document of the index carries, the build, and one document so that it is seen."""
    names = {
        "build": head.build_id,
        "head": head.snapshot,
        "documents": [item.document_id for item in damage if item.repair == "document"],
    }
    if any(item.repair == "build" for item in damage):
        connection.execute(
            "UPDATE index_build SET damaged_at = now() WHERE build_id = %(build)s AND damaged_at IS NULL", names
        )
        names["documents"] += [
            document
            for (document,) in connection.execute(
                """SELECT min(document_id) FROM index_document
                   WHERE build_id = %(build)s AND valid_from <= %(head)s AND valid_to > %(head)s HAVING count(*) > 0""",
                names,
            )
        ]
    connection.execute(
        """UPDATE index_document SET damaged_at = now()
           WHERE build_id = %(build)s AND valid_from <= %(head)s AND valid_to > %(head)s
             AND document_id = ANY(%(documents)s) AND damaged_at IS NULL""",
        names,
    )
