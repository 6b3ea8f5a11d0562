"""Erased documents: what is written of a document while, or after, it is erased.

Belongs here: the one question a late writer has to ask. Does not belong here: the erasure (assets/governance/erasure.py).
"""

from collections.abc import Iterable

from resources.postgres import Connection

#: Stands where words were.
ERASED = "(erased on request)"


def erased_among(connection: Connection, documents: Iterable[int]) -> set[int]:
    """Which of these documents were erased; the others cannot be erased before this transaction has ended.

    An answer takes seconds from retrieval to the moment it is written down, and its documents may be erased meanwhile.
    The erasure locks the documents first and looks for traces of them then: a writer that was first is seen, and one
    that comes later waits here and finds them gone. Nothing but an erasure removes a row of table ``document``.
    """
    wanted = sorted(set(documents))
    if not wanted:
        return set()
    rows = connection.execute(
        "SELECT document_id FROM document WHERE document_id = ANY(%s) ORDER BY document_id FOR KEY SHARE", (wanted,)
    ).fetchall()
    return set(wanted) - {row[0] for row in rows}
