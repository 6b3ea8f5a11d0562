"""Erasure: the right to be forgotten, carried out in one transaction and proven.

Belongs here: finding and removing everything derived from a document or a source, in tables and in files; the tombstone
and the proof; the search for traces.
Does not belong here: refusing the document when it is listed again (the corpus stage reads the tombstone), and ordinary
retention (each stage has its own).

What goes: every version, chunk, vector and cached text that no other document shares, evaluation questions that quote it,
trials, generations and interactions that retrieved or cited it, its rows in Parquet files, reports that name or quote it.
What stays: numbers (leaderboards, drift results) and, in drift results, single terms that at least three documents
shared. The user's own files, the database's backups and Dagster's event log (which holds no document text) are not
touched.
"""

import contextlib
import difflib
import hashlib
import html
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from psycopg import sql
from psycopg.types.json import Jsonb

from resources.errors import ConfigError, PermanentError
from resources.faults import crash_point
from resources.fingerprint import fingerprint
from resources.platform import Platform
from resources.postgres import FOREVER, Connection, Lease

#: So many consecutive words, found again elsewhere, count as a quotation.
QUOTED_WORDS = 8
_WORD = re.compile(r"\w+")
_TAG = re.compile(r"<[^>]*>")
_ROWS = 200  # rows of model messages read at a time
_TEXT_FILES = {".html", ".htm", ".md", ".txt", ".csv", ".json"}
_HALF_WRITTEN = {".tmp", ".partial"}
_LEASED_FOLDERS = {"evaluation", "experiments"}  # nothing writes there while the leases are held
_LINE_FILES = {".jsonl", ".ndjson"}


@dataclass(frozen=True)
class Erasure:
    """What was removed.

    Attributes:
        erasure_id: row in table ``erasure``; None when nothing was left to remove.
        selector: what was asked for, or its hash.
        proof: ``{table or file: rows removed}``, without any text.
        documents: how many documents were erased.
        user_files: the user's own files that still refer to the documents, and how often; erasing cannot edit them.
    """

    erasure_id: int | None
    selector: str
    proof: dict[str, int]
    documents: int
    user_files: dict[str, int] = field(default_factory=dict)


@dataclass
class _Target:
    """Everything that identifies what must go."""

    keys: set[tuple[str, str]]  # (source, path), every path the documents ever had
    documents: list[int]
    contents: list[bytes]  # hashes of raw bytes, of versions and of quarantined files
    texts: list[bytes] = field(default_factory=list)  # hashes of texts no other document shares
    quotations: set[int] = field(default_factory=set)  # hashes of runs of QUOTED_WORDS words of those texts
    trials: set[str] = field(default_factory=set)
    questions: set[tuple[str, str]] = field(default_factory=set)  # (dataset, question_id)

    @property
    def names(self) -> set[str]:
        """``source/path`` of every key."""
        return {f"{source}/{path}" for source, path in self.keys}


def forget(
    platform: Platform,
    *,
    document: str | None = None,
    source: str | None = None,
    by: str,
    hide_path: bool = False,
    wait_seconds: float = 600,
    holder_is_dead: Callable[[str], bool] = lambda holder: False,
) -> Erasure:
    """Erase one document (``source/path``) or all documents of a source, everywhere, and prove it.

    The leases of the source and of every index, dataset and experiment that shows it are held, so nothing that was
    read before is written after. All tables change in one transaction; files are rewritten before it commits, so that
    after a crash a repeated call finds whatever is left. Only a live answer in flight in that moment may still be
    recorded: a second call removes it too.

    Args:
        by: who asked, for the record.
        hide_path: record a hash of the selector instead of the path. The tombstone needs source and path as they are.

    Raises:
        ConfigError: neither or both of ``document`` and ``source`` were given, or ``document`` has no ``/``.
        PermanentError: there is no such document or source, and none was erased before.
        LeaseHeldError: another run still writes after ``wait_seconds``.
    """
    source, path = _selector(document, source)
    selector = f"document:{source}/{path}" if path is not None else f"source:{source}"
    if hide_path:
        selector = f"sha256:{hashlib.sha256(selector.encode()).hexdigest()}"
    holder = f"cli:{os.getpid()}"
    with contextlib.ExitStack() as stack:
        resources = _resources(platform, source)
        leases = [
            stack.enter_context(
                platform.database.lease(resource, holder, wait_seconds=wait_seconds, holder_is_dead=holder_is_dead)
            )
            for resource in resources
        ]
        return _forget(platform, leases, source, path, selector, by)


def _nearest(connection: Connection, source: str, path: str | None) -> str:
    """A hint at the document or source that may have been meant."""
    if path is None:
        rows = connection.execute("SELECT DISTINCT source FROM document_version").fetchall()
    else:
        rows = connection.execute("SELECT DISTINCT source || '/' || path FROM document_version").fetchall()
    close = difflib.get_close_matches(source if path is None else f"{source}/{path}", [row[0] for row in rows], n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _forget(
    platform: Platform, leases: Sequence[Lease], source: str, path: str | None, selector: str, by: str
) -> Erasure:
    with platform.database.connect() as connection:
        for lease in leases:
            lease.check(connection)
        target, tombstones = _find(connection, source, path)
        if not target.keys:
            raise PermanentError(
                f"nothing is known of {source if path is None else f'{source}/{path}'}; "
                f"`genaiops status` lists the sources, paths are as in the citations.{_nearest(connection, source, path)}"
            )
        proof: Counter[str] = Counter()
        _remove_evaluation(connection, target, proof)
        _remove_answers(connection, target, proof)
        _remove_index_rows(connection, target, proof)
        _remove_corpus(connection, target, proof)
        _clean_evidence(connection, target, proof)
        for name, removed in clean_files(platform.artifacts, target).items():
            proof[f"file:{name}"] += removed
        crash_point("governance.files_cleaned")
        proof = Counter({name: removed for name, removed in proof.items() if removed})
        user_files = _user_files(platform, target)
        if not proof:
            return Erasure(None, selector, {}, 0, user_files)
        row = connection.execute(
            "INSERT INTO erasure (requested_by, selector, proof) VALUES (%s, %s, %s) RETURNING erasure_id",
            (by, selector, Jsonb(dict(proof))),
        ).fetchone()
        assert row is not None
        with connection.cursor() as cursor:
            cursor.executemany(
                """INSERT INTO forgotten (source, path, content_hash, erasure_id) VALUES (%s, %s, %s, %s)
                   ON CONFLICT (source, path, content_hash) DO NOTHING""",
                [(*tombstone, row[0]) for tombstone in tombstones],
            )
        crash_point("governance.before_commit")
    return Erasure(row[0], selector, dict(proof), len(target.documents), user_files)


def _selector(document: str | None, source: str | None) -> tuple[str, str | None]:
    if (document is None) == (source is None):
        raise ConfigError("say either which document ('source/path') or which source to forget")
    if source is not None:
        return source, None
    name, slash, path = str(document).partition("/")
    if not (name and slash and path):
        raise ConfigError(f"{document!r} is not a document; write source/path, e.g. handbook/setup/unboxing.md")
    return name, path


def _resources(platform: Platform, source: str) -> list[str]:
    """What must not be written meanwhile, in the order the stages take their leases."""
    config = platform.config
    indexes = {index.name for index in config.indexes_of(source)} if source in config.sources else set()
    with platform.database.connect() as connection:
        built = connection.execute(
            """SELECT DISTINCT b.index_name FROM index_build b LEFT JOIN index_document d USING (build_id)
               WHERE b.state = 'loading' OR (b.state = 'ready' AND d.source = %s)""",
            (source,),
        ).fetchall()
    indexes |= {row[0] for row in built}
    return [
        f"source:{source}",
        *(f"index:{name}" for name in sorted(indexes)),
        *(f"dataset:{name}" for name, dataset in sorted(config.datasets.items()) if source in dataset.sources),
        *(f"experiment:{name}" for name, item in sorted(config.experiments.items()) if indexes & set(item.grid.index)),
    ]


# --- what must go ---------------------------------------------------------------------------------------


def _find(connection: Connection, source: str, path: str | None) -> tuple[_Target, set[tuple[str, str, bytes | None]]]:
    """Identify the documents, and the tombstones (source, path, content hash) that keep them out.

    A path a document had earlier and another one has now is not a name of it; its content is remembered under the
    path it had last.
    """
    last = dict(
        connection.execute(
            """SELECT document_id, path FROM (
                   SELECT DISTINCT ON (document_id) document_id, path FROM document_version
                   WHERE source = %s ORDER BY document_id, rev_from DESC, version_id DESC) latest
               WHERE %s::text IS NULL OR path = %s""",
            (source, path, path),
        ).fetchall()
    )
    documents = sorted(last)
    seen = connection.execute(
        """SELECT document_id, path, content_hash FROM document_version WHERE document_id = ANY(%(ids)s)
           UNION SELECT NULL, path, content_hash FROM quarantine
           WHERE source = %(source)s AND (%(path)s::text IS NULL OR path = %(path)s)""",
        {"ids": documents, "source": source, "path": path},
    ).fetchall()
    earlier = connection.execute(
        "SELECT path FROM forgotten WHERE source = %s AND (%s::text IS NULL OR path = %s)", (source, path, path)
    ).fetchall()
    others = {
        row[0]
        for row in connection.execute(
            "SELECT path FROM document_version WHERE source = %s AND path = ANY(%s) AND document_id <> ALL(%s)",
            (source, [row[1] for row in seen], documents),
        ).fetchall()
    } - set(last.values())
    contents = sorted({bytes(row[2]) for row in seen if row[2] is not None})
    shared = {
        bytes(row[0])
        for row in connection.execute(
            "SELECT content_hash FROM document_version WHERE content_hash = ANY(%s) AND document_id <> ALL(%s)",
            (contents, documents),
        ).fetchall()
    }
    target = _Target(
        keys={(source, row[1]) for row in seen if row[1] not in others} | {(source, row[0]) for row in earlier},
        documents=documents,
        contents=[content for content in contents if content not in shared],
    )
    target.texts = [
        bytes(row[0])
        for row in connection.execute(
            """(SELECT text_hash FROM document_version WHERE document_id = ANY(%(ids)s)
                UNION SELECT text_hash FROM parse_result WHERE content_hash = ANY(%(contents)s) AND text_hash IS NOT NULL)
               EXCEPT SELECT text_hash FROM document_version WHERE document_id <> ALL(%(ids)s)
               ORDER BY 1""",
            {"ids": documents, "contents": target.contents},
        ).fetchall()
    ]
    target.quotations = _own_quotations(connection, target)
    # Identical bytes that another document keeps must not be refused there: only the path is remembered then.
    tombstones = {
        (
            source,
            place if place not in others or document is None else last[document],
            bytes(content) if content is not None and bytes(content) not in shared else None,
        )
        for document, place, content in seen
    }
    return target, tombstones


def _own_quotations(connection: Connection, target: _Target) -> set[int]:
    """Quotations of the erased texts that no remaining document contains: boilerplate proves nothing."""
    own: set[int] = set()
    for text in target.texts:
        for row in connection.execute("SELECT text FROM document_text WHERE text_hash = %s", (text,)):
            own |= quotations(row[0])
    if own:
        with connection.cursor(name="remaining") as cursor:
            cursor.itersize = _ROWS
            cursor.execute(
                """SELECT text FROM document_text t WHERE EXISTS (
                       SELECT FROM document_version v WHERE v.text_hash = t.text_hash AND v.document_id <> ALL(%s))""",
                (target.documents,),
            )
            for row in cursor:
                own -= quotations(row[0])
    return own


def quotations(text: str) -> set[int]:
    """Hashes of every run of ``QUOTED_WORDS`` words of a text, whatever stands between the words; a shorter text counts whole."""
    words = _WORD.findall(text.casefold())
    if not words:
        return set()
    return {hash(tuple(words[i : i + QUOTED_WORDS])) for i in range(max(1, len(words) - QUOTED_WORDS + 1))}


def _mentions(value: Any, target: _Target, *, documents_matter: bool) -> bool:
    """Whether a JSON-like value names or quotes an erased document.

    Args:
        documents_matter: ``document_id`` fields are ids of this database.
    """
    if isinstance(value, dict):
        if documents_matter and value.get("document_id") in target.documents:
            return True
        if (value.get("source"), value.get("path")) in target.keys:
            return True
        return any(_mentions(item, target, documents_matter=documents_matter) for item in value.values())
    if isinstance(value, list | tuple):
        return any(_mentions(item, target, documents_matter=documents_matter) for item in value)
    if not isinstance(value, str) or not value:
        return False
    if value in target.names:
        return True
    if value[0] in "[{":
        with contextlib.suppress(json.JSONDecodeError):
            return _mentions(json.loads(value), target, documents_matter=documents_matter)
    return not target.quotations.isdisjoint(quotations(value))


# --- tables -----------------------------------------------------------------------------------------------

#: Whether a jsonb array of hits or citations holds an erased document, by id or by place.
_HITS = """EXISTS (SELECT FROM jsonb_array_elements({column}) hit WHERE (hit ->> 'document_id')::bigint = ANY(%(ids)s)
           OR (hit ->> 'source', hit ->> 'path') IN (SELECT * FROM unnest(%(sources)s::text[], %(paths)s::text[])))"""


def _places(target: _Target) -> dict[str, Any]:
    keys = sorted(target.keys)
    return {"ids": target.documents, "sources": [key[0] for key in keys], "paths": [key[1] for key in keys]}


def _remove_evaluation(connection: Connection, target: _Target, proof: Counter[str]) -> None:
    """Questions whose evidence is in an erased document go in every version, and so do their trials."""
    target.questions = {
        (row[0], row[1])
        for row in connection.execute(
            """SELECT DISTINCT dataset, question_id FROM evaluation_evidence
               WHERE document_id = ANY(%s) OR text_hash = ANY(%s)""",
            (target.documents, target.texts),
        ).fetchall()
    }
    pairs = sorted(target.questions)
    asked = {"datasets": [pair[0] for pair in pairs], "questions": [pair[1] for pair in pairs]}
    match = "(dataset, question_id) IN (SELECT * FROM unnest(%(datasets)s::text[], %(questions)s::text[]))"
    for table in ("evaluation_evidence", "evaluation_question"):
        query = sql.SQL("DELETE FROM {} WHERE " + match).format(sql.Identifier(table))  # pyright: ignore[reportArgumentType]
        proof[table] += connection.execute(query, asked).rowcount
    connection.execute(
        """UPDATE evaluation_dataset d SET counts = d.counts || (
               SELECT jsonb_build_object(
                   'questions', count(*),
                   'active', count(*) FILTER (WHERE status = 'active'),
                   'stale', count(*) FILTER (WHERE status = 'stale'),
                   'unanswerable', count(*) FILTER (WHERE status = 'active' AND answer IS NULL),
                   'splits', (SELECT coalesce(jsonb_object_agg(split, number), '{}') FROM (
                                  SELECT split, count(*) AS number FROM evaluation_question
                                  WHERE dataset = d.dataset AND version = d.version AND status = 'active' GROUP BY 1) s))
               FROM evaluation_question q WHERE q.dataset = d.dataset AND q.version = d.version)
           WHERE dataset = ANY(%s)""",
        (sorted({dataset for dataset, _ in target.questions}),),
    )


def _remove_answers(connection: Connection, target: _Target, proof: Counter[str]) -> None:
    """Trials, generations and interactions that retrieved, cited or quoted an erased document."""
    pairs = sorted(target.questions)
    parameters = {
        **_places(target),
        "datasets": [pair[0] for pair in pairs],
        "questions": [pair[1] for pair in pairs],
    }
    trials = connection.execute(
        f"""SELECT fingerprint, generation FROM trial WHERE {_HITS.format(column="retrieved")}
            OR {_HITS.format(column="citations")}
            OR (dataset, question_id) IN (SELECT * FROM unnest(%(datasets)s::text[], %(questions)s::text[]))""",
        parameters,
    ).fetchall()
    target.trials = {row[0] for row in trials}
    interactions = connection.execute(
        f"""DELETE FROM interaction WHERE {_HITS.format(column="retrieved")} OR {_HITS.format(column="citations")}
            RETURNING generation""",
        parameters,
    ).fetchall()
    proof["interaction"] += len(interactions)
    generations = {row[1] for row in trials if row[1] is not None} | {row[0] for row in interactions}
    generations |= _quoting_generations(connection, target)
    doomed = sorted(target.trials)
    proof["trial_score"] += connection.execute("DELETE FROM trial_score WHERE trial = ANY(%s)", (doomed,)).rowcount
    proof["trial"] += connection.execute("DELETE FROM trial WHERE fingerprint = ANY(%s)", (doomed,)).rowcount
    proof["generation"] += connection.execute(
        "DELETE FROM generation WHERE fingerprint = ANY(%s)", (sorted(generations),)
    ).rowcount


def _quoting_generations(connection: Connection, target: _Target) -> set[str]:
    """The memo of model calls keeps prompts without saying which documents they hold: find them by their words."""
    found: set[str] = set()
    if not target.quotations and not target.names:
        return found
    with connection.cursor(name="generations") as cursor:
        cursor.itersize = _ROWS
        cursor.execute("SELECT fingerprint, messages, text FROM generation")
        for key, messages, text in cursor:
            if _mentions([messages, text], target, documents_matter=False):
                found.add(key)
    return found


def _remove_index_rows(connection: Connection, target: _Target, proof: Counter[str]) -> None:
    """Rows of every build that still has its table, staged ones included; snapshot counts follow."""
    builds = connection.execute(
        "SELECT build_id, table_name FROM index_build WHERE state <> 'dropped' AND to_regclass(quote_ident(table_name)) IS NOT NULL"
    ).fetchall()
    for build_id, table in builds:
        query = sql.SQL(
            """WITH gone AS (DELETE FROM {} WHERE document_id = ANY(%s) RETURNING valid_to)
               SELECT count(*), count(*) FILTER (WHERE valid_to < %s) FROM gone"""
        ).format(sql.Identifier(table))
        row = connection.execute(query, (target.documents, FOREVER)).fetchone()
        assert row is not None
        proof[table] += row[0]
        connection.execute(
            "UPDATE index_build SET dead_rows = greatest(0, dead_rows - %s) WHERE build_id = %s", (row[1], build_id)
        )
    _adjust_counts(connection, target)
    proof["index_document"] += connection.execute(
        "DELETE FROM index_document WHERE document_id = ANY(%s)", (target.documents,)
    ).rowcount


def _adjust_counts(connection: Connection, target: _Target) -> None:
    """Take the erased documents off the counts of every snapshot that showed them, so that the audit still agrees.

    The fingerprint of a source's content changes too: what rests on it has to be built again.
    """
    rows = connection.execute(
        """SELECT s.index_name, s.snapshot, s.counts, d.source, count(*), sum(d.chunks), sum(d.lexemes)
           FROM index_snapshot s JOIN index_document d
                ON d.build_id = s.build_id AND d.valid_from <= s.snapshot AND d.valid_to > s.snapshot
           WHERE d.document_id = ANY(%s) GROUP BY s.index_name, s.snapshot, d.source""",
        (target.documents,),
    ).fetchall()
    for index, snapshot, counts, source, *totals in rows:
        gone = dict(zip(("documents", "chunks", "lexemes"), map(int, totals), strict=True))
        own = counts.get("by_source", {}).get(source, {})
        for part in (counts, own):
            part |= {key: part[key] - number for key, number in gone.items() if key in part}
        if "content" in own:
            own["content"] = fingerprint(["erased", own["content"], gone])
        connection.execute(
            "UPDATE index_snapshot SET counts = %s WHERE index_name = %s AND snapshot = %s",
            (Jsonb(counts), index, snapshot),
        )


def _clean_evidence(connection: Connection, target: _Target, proof: Counter[str]) -> None:
    """Evidence keeps what was expected and observed; tables of paths beside it go where they name an erased document."""
    for source, path in sorted(target.keys):
        proof["evidence"] += connection.execute(
            """UPDATE evidence SET details = jsonb_build_object(
                   'expected', details -> 'expected', 'observed', details -> 'observed')
               WHERE kind = 'documents' AND subject = %s AND position(%s IN details::text) > 0""",
            (source, json.dumps(path, ensure_ascii=False)[1:-1]),
        ).rowcount


def _remove_corpus(connection: Connection, target: _Target, proof: Counter[str]) -> None:
    """Versions and identities, then texts and what was computed from them, where no other document shares them."""

    def delete(table: str, condition: str, parameters: Any) -> None:
        query = sql.SQL("DELETE FROM {} WHERE " + condition).format(sql.Identifier(table))  # pyright: ignore[reportArgumentType]
        proof[table] += connection.execute(query, parameters).rowcount

    delete("document_version", "document_id = ANY(%s)", (target.documents,))
    delete("document", "document_id = ANY(%s)", (target.documents,))
    delete(
        "quarantine",
        "(source, path) IN (SELECT * FROM unnest(%(sources)s::text[], %(paths)s::text[]))",
        _places(target),
    )
    delete("parse_result", "content_hash = ANY(%s) OR text_hash = ANY(%s)", (target.contents, target.texts))
    inputs = [
        row[0]
        for row in connection.execute(
            """SELECT input_hash FROM chunk_input WHERE text_hash = ANY(%s)
               EXCEPT SELECT input_hash FROM chunk_input WHERE text_hash <> ALL(%s)""",
            (target.texts, target.texts),
        ).fetchall()
    ]
    for table in ("chunk_input", "chunk", "chunk_set", "document_text"):
        delete(table, "text_hash = ANY(%s)", (target.texts,))
    delete("embedding", "input_hash = ANY(%s)", (inputs,))


# --- files ------------------------------------------------------------------------------------------------


def clean_files(artifacts: Path, target: _Target) -> dict[str, int]:
    """Remove what names or quotes the target from every file under ``artifacts``; returns rows removed per file.

    Parquet and JSON-lines files are rewritten without the rows concerned; other text files (reports) are removed whole
    and count as one, like what a killed run left half written. Drift pages hold numbers and shared terms only; they stay.
    """
    removed: dict[str, int] = {}
    for path in sorted(artifacts.rglob("*")):
        relative = path.relative_to(artifacts)
        if not path.is_file() or relative.parts[0] == "drift":
            continue
        if path.suffix == ".parquet":
            count = _clean_parquet(path, relative, target)
        elif path.suffix in _LINE_FILES:
            count = _clean_lines(path, target)
        elif path.suffix in _TEXT_FILES:
            count = _clean_text(path, target)
        elif path.suffix in _HALF_WRITTEN and relative.parts[0] in _LEASED_FOLDERS:
            path.unlink()
            count = 1
        else:
            continue
        if count:
            removed[_file_name(relative, target)] = count
    return removed


def _file_name(relative: Path, target: _Target) -> str:
    """The file's name for the proof; hashed where it contains the path of what was erased."""
    name = relative.as_posix()
    if any(path in name for _, path in target.keys):
        return f"sha256:{hashlib.sha256(name.encode()).hexdigest()}"
    return name


def _row_is_concerned(row: dict[str, Any], target: _Target, dataset: str | None = None) -> bool:
    if (row.get("dataset", dataset), row.get("question_id")) in target.questions or row.get("trial") in target.trials:
        return True
    return _mentions(row, target, documents_matter=True)


def _clean_parquet(path: Path, relative: Path, target: _Target) -> int:
    """A file under ``evaluation/DATASET`` holds that dataset's questions; other files say their dataset in a column."""
    from resources.parquet_io import read_table, write_table

    table = read_table(path)
    dataset = relative.parts[1] if relative.parts[0] == "evaluation" and len(relative.parts) > 2 else None
    keep = [
        row
        for batch in table.to_batches(max_chunksize=_ROWS)
        for row in batch.to_pylist()
        if not _row_is_concerned(row, target, dataset)
    ]
    if len(keep) < table.num_rows:
        write_table(path, keep, table.schema)
    return table.num_rows - len(keep)


def _clean_lines(path: Path, target: _Target) -> int:
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    keep = [line for line in lines if not _line_is_concerned(line, target)]
    if len(keep) < len(lines):
        _replace(path, lambda temporary: temporary.write_text("".join(keep), encoding="utf-8"))
    return len(lines) - len(keep)


def _line_is_concerned(line: str, target: _Target) -> bool:
    with contextlib.suppress(json.JSONDecodeError):
        row = json.loads(line)
        if isinstance(row, dict):
            return _row_is_concerned(row, target)
    return _mentions(line, target, documents_matter=False)


def _clean_text(path: Path, target: _Target) -> int:
    text = path.read_text(encoding="utf-8", errors="replace")
    plain = html.unescape(_TAG.sub(" ", text)) if path.suffix in (".html", ".htm") else text
    named = any(name in plain for name in target.names)
    if not named and target.quotations.isdisjoint(quotations(plain)):
        return 0
    path.unlink()
    return 1


def _replace(path: Path, write: Callable[[Path], Any]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _user_files(platform: Platform, target: _Target) -> dict[str, int]:
    """Configured files that still name an erased document: the user has to edit them."""
    found: dict[str, int] = {}
    for path in sorted(platform.config.data_dir.rglob("*.jsonl")):
        count = sum(
            any(f'"{name}"' in line for name in target.names)
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines()
        )
        if count:
            found[path.relative_to(platform.config.data_dir).as_posix()] = count
    return found


# --- traces -----------------------------------------------------------------------------------------------


def find_traces(platform: Platform, needle: str) -> dict[str, int]:
    """Where a text is still found: ``{"table.column": rows, "file:path": occurrences}``; empty means nowhere.

    Searches every text, array and JSON column of the schema, table by table, and every file under the artifacts folder
    (Parquet cell by cell). In JSON the escaped form is searched as well.
    """
    escaped = json.dumps(needle, ensure_ascii=False)[1:-1]
    found: dict[str, int] = {}
    with platform.database.connect() as connection:
        columns = connection.execute(
            """SELECT c.table_name, c.column_name FROM information_schema.columns c
               JOIN information_schema.tables t USING (table_schema, table_name)
               WHERE c.table_schema = 'genaiops' AND t.table_type = 'BASE TABLE'
                 AND (c.data_type IN ('text', 'character varying', 'json', 'jsonb', 'ARRAY') OR c.udt_name = 'tsvector')
               ORDER BY 1, 2"""
        ).fetchall()
        for table, column in columns:
            query = sql.SQL(
                "SELECT count(*) FROM {} WHERE position(%s in {}::text) > 0 OR position(%s in {}::text) > 0"
            )
            name = sql.Identifier(column)
            row = connection.execute(
                query.format(sql.Identifier("genaiops", table), name, name), (needle, escaped)
            ).fetchone()
            if row and row[0]:
                found[f"{table}.{column}"] = row[0]
    for path in sorted(platform.artifacts.rglob("*")):
        if path.is_file() and (count := _occurrences(path, needle, escaped)):
            found[f"file:{path.relative_to(platform.artifacts).as_posix()}"] = count
    return found


def _occurrences(path: Path, needle: str, escaped: str) -> int:
    forms = {needle, escaped, json.dumps(needle)[1:-1], html.escape(needle), html.escape(needle, quote=False)}
    if path.suffix == ".parquet":
        return sum(any(form in cell for form in forms) for cell in _cells(path))
    data = path.read_bytes()
    return max(data.count(form.encode()) for form in forms)


def _cells(path: Path) -> Iterator[str]:
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    yield str(table.schema.metadata)
    for batch in table.to_batches(max_chunksize=_ROWS):
        for row in batch.to_pylist():
            for value in row.values():
                yield value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
