"""A corpus made by SQL: what the index stage needs of the stages before it, without files and parsers."""

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import yaml
from psycopg.types.json import Jsonb

from assets.chunks.chunking import chunk_source
from assets.index.embedding import EmbeddingWork, embed_source
from assets.index.refreshing import IndexRefresh, refresh_index
from resources.config import load_config
from resources.fingerprint import content_hash, text_hash
from resources.platform import Platform
from resources.postgres import FOREVER, Database
from resources.vector_index import SearchResult, VectorIndex
from tests.conftest import MODELS


@contextmanager
def temporary_platform(server_url: str, folder: Path, **files: Any) -> Iterator[Platform]:
    """A platform on a database of its own with the small data directory of conftest; for fixtures of a whole module."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template_genaiops STRATEGY file_copy")  # type: ignore[arg-type]
    database = Database(server_url.replace("/postgres?", f"/{name}?"))
    (folder / "docs").mkdir()
    content: dict[str, Any] = {
        "sources.yaml": {"sources": [{"name": "docs", "path": str(folder / "docs")}]},
        "models.yaml": MODELS,
        "indexes/main.yaml": {
            "name": "main",
            "embedder": "lexical",
            "chunker": {"kind": "markdown", "unit": "characters", "size": 400},
        },
        **files,
    }
    for path, value in content.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(yaml.safe_dump(value), encoding="utf-8")
    try:
        yield Platform(config=load_config(folder), database=database, artifacts=folder / "artifacts")
    finally:
        database.close()
        with psycopg.connect(server_url, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")  # type: ignore[arg-type]


def commit(
    platform: Platform,
    source: str,
    texts: Mapping[str, str],
    *,
    renames: Mapping[str, str] | None = None,
    titles: Mapping[str, str] | None = None,
    languages: Mapping[str, str] | None = None,
) -> int:
    """Make ``texts`` ({path: text}) the whole content of a source; returns the revision, unchanged when nothing differs.

    ``renames`` ({old path: new path}) keep the document id.
    """
    renames, titles, languages = renames or {}, titles or {}, languages or {}
    with platform.database.connect() as connection:
        live = {
            path: (document_id, version_id, key, title)
            for path, document_id, version_id, key, title in connection.execute(
                """SELECT path, document_id, version_id, text_hash, title FROM document_version
                   WHERE source = %s AND rev_to = %s""",
                (source, FOREVER),
            )
        }
        previous = connection.execute(
            "SELECT coalesce(max(revision), 0) FROM source_revision WHERE source = %s", (source,)
        ).fetchone()
        assert previous is not None
        revision = previous[0] + 1
        origin = {new: old for old, new in renames.items()}
        changed = False
        for path in sorted(set(live) - set(texts)):
            connection.execute(
                "UPDATE document_version SET rev_to = %s WHERE version_id = %s", (revision, live[path][1])
            )
            changed = True
        for path, text in sorted(texts.items()):
            known = live.get(path) or live.get(origin.get(path, ""))
            title = titles.get(path, path)
            if known and path in live and known[2] == text_hash(text) and known[3] == title:
                continue
            changed = True
            connection.execute(
                "INSERT INTO document_text VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
                (text_hash(text), text, len(text)),
            )
            if known:
                connection.execute(
                    "UPDATE document_version SET rev_to = %s WHERE version_id = %s", (revision, known[1])
                )
                document_id = known[0]
            else:
                row = connection.execute(
                    "INSERT INTO document (source) VALUES (%s) RETURNING document_id", (source,)
                ).fetchone()
                assert row is not None
                document_id = row[0]
            connection.execute(
                """INSERT INTO document_version (document_id, source, path, content_hash, text_hash, parser_fingerprint,
                       title, headings, language, licence, bytes, media_type, metadata, run_id, rev_from)
                   VALUES (%s, %s, %s, %s, %s, 'p', %s, '[]', %s, 'CC0', %s, 'text/plain', '{}', 'test', %s)""",
                (
                    document_id,
                    source,
                    path,
                    content_hash(text.encode()),
                    text_hash(text),
                    title,
                    languages.get(path, "en"),
                    len(text),
                    revision,
                ),
            )
        if not changed and previous[0]:
            return previous[0]
        connection.execute(
            "INSERT INTO source_revision (source, revision, run_id, counts, data_version) VALUES (%s, %s, 'test', %s, %s)",
            (source, revision, Jsonb({}), f"{source}@{revision}"),
        )
        return revision


def prepare(platform: Platform, source: str, texts: Mapping[str, str], **options: Any) -> EmbeddingWork:
    """Commit, chunk and embed."""
    commit(platform, source, texts, **options)
    chunk_source(platform, source)
    return embed_source(platform, source, "test")


def refresh(
    platform: Platform, source: str, texts: Mapping[str, str], index: str = "main", **options: Any
) -> IndexRefresh:
    """Commit, chunk, embed and publish one index."""
    prepare(platform, source, texts, **options)
    return refresh_index(platform, index, source, "test")


def searcher(platform: Platform) -> VectorIndex:
    """The search interface of a platform."""
    return VectorIndex(platform.database, platform.config, platform.models)


def order(result: SearchResult) -> list[tuple[Any, ...]]:
    """What two equal indexes must agree on: everything but database ids and times."""
    return [
        (hit.rank, round(hit.score, 9), hit.source, hit.path, hit.title, hit.ordinal, hit.start, hit.end, hit.text)
        for hit in result.hits
    ]


def visible_rows(platform: Platform, index: str, snapshot: int | None = None) -> list[tuple[Any, ...]]:
    """Every row a snapshot shows, without database ids, in a stable order."""
    with platform.database.connect() as connection:
        row = connection.execute(
            """SELECT s.snapshot, s.build_id, b.table_name FROM index_state i JOIN index_snapshot s USING (index_name)
               JOIN index_build b USING (build_id)
               WHERE i.index_name = %s AND s.snapshot = coalesce(%s, i.head)""",
            (index, snapshot),
        ).fetchone()
        assert row is not None
        return connection.execute(
            f"""SELECT c.source, v.path, v.title, c.ordinal, c.start_char, c.end_char, c.chunk_hash, c.input_hash,
                       c.heading_path, c.content, c.tsv::text, c.embedding::text, c.digest
                FROM {row[2]} c
                JOIN index_document d ON d.build_id = %(build)s AND d.document_id = c.document_id
                     AND d.valid_from <= %(snapshot)s AND d.valid_to > %(snapshot)s
                JOIN document_version v USING (version_id)
                WHERE c.valid_from <= %(snapshot)s AND c.valid_to > %(snapshot)s ORDER BY 1, 2, 4""",  # type: ignore[arg-type]
            {"build": row[1], "snapshot": row[0]},
        ).fetchall()


def article(subject: str, paragraphs: int = 4, words: int = 40) -> str:
    """A deterministic text of some paragraphs about a subject, under headings."""
    parts = [f"# About {subject}\n"]
    for number in range(paragraphs):
        sentence = " ".join(
            f"{subject}{(number * 7 + word * 3) % 11}" if word % 3 else subject for word in range(words)
        )
        parts.append(f"## Part {number} of {subject}\n\n{sentence.capitalize()}.\n")
    return "\n".join(parts)
