"""What several evaluation tests share: documents put into the corpus tables, and question files."""

import json
from pathlib import Path
from typing import Any

from psycopg.types.json import Jsonb

from resources.fingerprint import content_hash, text_hash
from resources.postgres import Connection


def put_document(
    connection: Connection,
    path: str,
    text: str,
    *,
    source: str = "docs",
    document_id: int | None = None,
    headings: Any = (),
) -> int:
    """Make ``text`` the live version at ``path``, as one committed revision of the source; return the document's id."""
    revision = _next_revision(connection, source)
    connection.execute(
        "INSERT INTO document_text VALUES (%s, %s, %s) ON CONFLICT DO NOTHING", (text_hash(text), text, len(text))
    )
    live = connection.execute(
        "SELECT document_id FROM document_version WHERE source = %s AND path = %s AND rev_to = 2147483647",
        (source, path),
    ).fetchone()
    identity: int | None = document_id or (live[0] if live else None)
    if identity is None:
        row = connection.execute(
            "INSERT INTO document (source) VALUES (%s) RETURNING document_id", (source,)
        ).fetchone()
        assert row
        identity = int(row[0])
    close_document(connection, identity, revision)
    connection.execute(
        """INSERT INTO document_version (document_id, source, path, content_hash, text_hash, parser_fingerprint, title,
               headings, bytes, media_type, metadata, run_id, rev_from)
           VALUES (%s, %s, %s, %s, %s, 'p', %s, %s, %s, 'text/markdown', '{}', 'r', %s)""",
        (
            identity, source, path, content_hash(text.encode()), text_hash(text), Path(path).stem.title(),
            Jsonb(list(headings)), len(text.encode()), revision,
        ),
    )  # fmt: skip
    return identity


def delete_document(connection: Connection, document_id: int, *, source: str = "docs") -> None:
    """Delete a document, as one committed revision of the source."""
    close_document(connection, document_id, _next_revision(connection, source))


def close_document(connection: Connection, document_id: int, revision: int) -> None:
    connection.execute(
        "UPDATE document_version SET rev_to = %s WHERE document_id = %s AND rev_to = 2147483647",
        (revision, document_id),
    )


def _next_revision(connection: Connection, source: str) -> int:
    row = connection.execute(
        """INSERT INTO source_revision (source, revision, run_id, counts, data_version)
           SELECT %s, coalesce(max(revision), 0) + 1, 'r', '{}', 'v' FROM source_revision WHERE source = %s
           RETURNING revision""",
        (source, source),
    ).fetchone()
    assert row
    return row[0]


def line(question_id: str, question: str, answer: str | None = None, **further: Any) -> dict[str, Any]:
    """One line of a question file; ``quote=`` (with ``document=``) is short for one piece of evidence."""
    evidence = further.pop("evidence", [])
    if "quote" in further:
        evidence = [{"document": further.pop("document", "docs/a.md"), "quote": further.pop("quote")}]
    return {"id": question_id, "question": question, "answer": answer, "evidence": evidence, "split": "dev", **further}


def jsonl(*lines: dict[str, Any]) -> str:
    """A question file."""
    return "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in lines)


def dataset_files(*lines: dict[str, Any], **header: Any) -> dict[str, Any]:
    """Files for ``make_platform``: dataset ``qa`` over source ``docs`` with these questions."""
    return {
        "evaluation/qa.yaml": {"name": "qa", "questions": "qa.jsonl", "sources": ["docs"], **header},
        "evaluation/qa.jsonl": jsonl(*lines),
    }
