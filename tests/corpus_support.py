"""Refreshing a source in a test, without Dagster."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from assets.corpus.documents import CommittedRevision
from assets.corpus.refresh import RefreshPlan, commit, plan_refresh
from resources.platform import Platform

KINDS = ("added", "changed", "renamed", "deleted")


def write(folder: Path, files: Mapping[str, str | bytes | None]) -> None:
    """Write files (None: delete)."""
    for path, content in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            target.unlink()
        else:
            target.write_bytes(content if isinstance(content, bytes) else content.encode())


def refresh(platform: Platform, source: str = "docs", run_id: str = "run") -> tuple[RefreshPlan, CommittedRevision]:
    """Plan and commit, without checks."""
    with platform.database.lease(f"source:{source}", run_id) as lease:
        plan = plan_refresh(platform, source, run_id, lease)
        return plan, commit(platform, plan, lease)


def changes(revision: CommittedRevision) -> dict[str, int]:
    """The counts of changes that are not zero."""
    return {kind: revision.counts[kind] for kind in KINDS if revision.counts[kind]}


def corpus_content(platform: Platform) -> tuple[list[Any], list[Any]]:
    """Everything that describes the live documents and the quarantine, without ids, runs and times."""
    with platform.database.connect() as connection:
        documents = connection.execute(
            """SELECT source, path, content_hash, text_hash, text, title, headings, language, licence, origin_time,
                      bytes, media_type, metadata, parser_fingerprint
               FROM document_version JOIN document_text USING (text_hash)
               WHERE rev_to = 2147483647 ORDER BY 1, 2"""
        ).fetchall()
        refused = connection.execute(
            "SELECT source, path, code, reason, bytes, content_hash FROM quarantine ORDER BY 1, 2"
        ).fetchall()
    return documents, refused


def quarantined(platform: Platform) -> dict[str, str]:
    """Path to code of everything in quarantine."""
    with platform.database.connect() as connection:
        return dict(connection.execute("SELECT path, code FROM quarantine").fetchall())


def identities(platform: Platform) -> dict[str, int]:
    """Path to document id of the live documents."""
    with platform.database.connect() as connection:
        return dict(
            connection.execute("SELECT path, document_id FROM document_version WHERE rev_to = 2147483647").fetchall()
        )
