"""Erasure: the right to be forgotten, carried out in one transaction and proven.

Belongs here: finding and removing everything derived from a document, a source or a pattern, in tables and in files;
the tombstone and the proof; the search for traces.
Does not belong here: which columns hold words (holdings.py), running a pattern (matching.py), rewriting files
(erasure_files.py), refusing the document when it is listed again (the corpus stage reads the tombstone), and ordinary
retention (each stage has its own).

What goes: every version, chunk, vector and cached text that no other document shares, evaluation questions that quote it,
trials, generations and interactions that retrieved or cited it, its rows in Parquet files, reports that name or quote it.
What stays: numbers (leaderboards, drift results) and, in drift results, single terms that at least three documents
shared. The user's own files, the database's backups and Dagster's event log (which holds no document text) are not
touched. docs/erasure.md tells it in full.
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

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from assets.governance import erasure_files
from assets.governance.erasure_files import CleanedFiles, clean_files
from assets.governance.erasure_tables import remove_from_tables
from assets.governance.erasure_targets import (
    OF_SOURCE,
    PATTERN_SECONDS,
    Selector,
    Target,
    find,
    last_places,
    make_selector,
    make_target,
    mentions,
    quotations,
)
from assets.governance.holdings import HOLDINGS
from assets.governance.matching import Matcher, scalars
from resources.document_sources import state_folder
from resources.errors import PermanentError
from resources.faults import crash_point
from resources.platform import Platform
from resources.postgres import Connection, Lease
from resources.sharding import source_of

_ROWS = 200  # rows of a file read at a time
#: A table somebody else works on is left to autovacuum.
_VACUUM_WAIT = "10s"


@dataclass(frozen=True)
class Erasure:
    """What was removed.

    Attributes:
        erasure_id: row in table ``erasure``; None when nothing was left to remove.
        selector: what was asked for, or its hash.
        proof: ``{table or file: rows removed}``, without any text.
        documents: how many documents were erased.
        user_files: the user's own files that still refer to the documents, and how often; erasing cannot edit them.
        completed: an earlier erasure that was interrupted after its commit and whose files are cleaned now.
        not_vacuumed: tables whose freed space could not be cleared at once; autovacuum will.
    """

    erasure_id: int | None
    selector: str
    proof: dict[str, int]
    documents: int
    user_files: dict[str, int] = field(default_factory=dict)
    completed: int | None = None
    not_vacuumed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Preview:
    """What an erasure would begin with; everything derived from it goes as well.

    Attributes:
        documents: ``source/path`` of each, sorted; of a document that left the corpus, its last path.
        rows: rows that match on their own, by table: questions, answers and so on.
    """

    documents: tuple[str, ...]
    rows: dict[str, int]


def preview(platform: Platform, selector: Selector) -> Preview:
    """What an erasure would begin with; changes nothing.

    Raises:
        ConfigError, PermanentError: like ``forget``.
    """
    with platform.database.connect() as connection:
        found = find(connection, selector)
        names = {f"{source}/{path}" for source, path in last_places(connection, found.documents).values()}
        names |= {f"{source}/{path}" for source, path in found.places}
        return Preview(tuple(sorted(names)), {table: len(keys) for table, keys in found.rows.items() if keys})


def forget(
    platform: Platform,
    *,
    document: str | None = None,
    source: str | None = None,
    pattern: str | None = None,
    text: str | None = None,
    by: str,
    hide_path: bool = False,
    show_pattern: bool = False,
    pattern_seconds: float = PATTERN_SECONDS,
    vacuum: bool = True,
    wait_seconds: float = 600,
    holder_is_dead: Callable[[str], bool] = lambda holder: False,
) -> Erasure:
    """Erase a document (``source/path``), a source, or everything a pattern fits, everywhere, and prove it.

    The leases of the sources and of every index, dataset and experiment that shows them are held, so nothing that was
    read before is written after; a live answer in flight finds its documents gone (resources/erased_documents.py). All
    tables change in one transaction; cleaned copies of files wait beside them and take their places right after it. A
    crash leaves everything as it was, or a committed erasure whose files the next call puts in place.

    Args:
        pattern: a PostgreSQL regular expression. Every document of which any version fits goes whole; without
            ``source`` so does every question, answer, trial and model message that fits on its own, and the words that
            fit are replaced in records that have to stay (prompt versions, check details, alerts, reasons).
        text: literal words instead of a pattern.
        by: who asked, for the record.
        hide_path: record a hash of the selector instead of the path. The tombstone needs source and path as they are.
        show_pattern: record the pattern as it is, instead of a salted hash.
        pattern_seconds: for each statement that runs the pattern.
        vacuum: clear the space the rows had at once; see docs/erasure.md.

    Raises:
        ConfigError: it is not clear what is meant, or the pattern is not valid or fits everything.
        PermanentError: there is no such document or source, and none was erased before; or the pattern takes too long.
        LeaseHeldError: another run still writes after ``wait_seconds``.
    """
    selector = make_selector(document=document, source=source, pattern=pattern, text=text, seconds=pattern_seconds)
    words = selector.shown if show_pattern else selector.words
    if hide_path and selector.pattern is None:
        words = f"sha256:{hashlib.sha256(words.encode()).hexdigest()}"
    holder = f"cli:{os.getpid()}"
    with contextlib.ExitStack() as stack:
        leases: list[Lease] = []
        for resource in _resources(platform, selector):
            lease = platform.database.lease(resource, holder, wait_seconds=wait_seconds, holder_is_dead=holder_is_dead)
            leases.append(stack.enter_context(lease))
        with platform.database.connect() as connection:
            completed = erasure_files.settle_journal(platform.artifacts, connection)
        erasure, cleaned = _forget(platform, leases, selector, words, by)
        crash_point("governance.committed")
        erasure_files.put_in_place(cleaned)
        (platform.artifacts / erasure_files.JOURNAL).unlink(missing_ok=True)
    left = _vacuum(platform, erasure.proof) if vacuum else ()
    return Erasure(
        erasure.erasure_id, erasure.selector, erasure.proof, erasure.documents, erasure.user_files, completed, left
    )


def _forget(
    platform: Platform, leases: Sequence[Lease], selector: Selector, words: str, by: str
) -> tuple[Erasure, CleanedFiles]:
    with platform.database.connect() as connection:
        for lease in leases:
            lease.check(connection)
        found = find(connection, selector)
        crash_point("governance.found")
        if selector.pattern is None and not (found.documents or found.places):
            asked = selector.words.partition(":")[2]
            raise PermanentError(
                f"nothing is known of {asked}; `genaiops status` lists the sources, paths are as in the citations."
                f"{_nearest(connection, str(selector.source), selector.path)}"
            )
        # Whoever is about to log an answer from one of them waits here, or was first and is found below.
        connection.execute(
            "SELECT 1 FROM document WHERE document_id = ANY(%s) ORDER BY document_id FOR UPDATE",
            (sorted(found.documents),),
        )
        target, tombstones = make_target(connection, found)
        matcher = _everywhere(connection, selector)
        proof: Counter[str] = Counter()
        remove_from_tables(connection, target, proof)
        pages = _scrub(connection, matcher, proof) if matcher else set[str]()
        crash_point("governance.tables_cleaned")
        cleaned = _clean_files(platform, target, matcher, pages)
        for name, removed in cleaned.removed.items():
            proof[f"file:{_file_name(name, target, matcher)}"] += removed
        for folder in cleaned.folders:
            proof[f"file:sources/{folder.name}"] += 1
        proof = Counter({name: removed for name, removed in proof.items() if removed})
        user_files = _user_files(platform, target, matcher)
        if not proof:
            return Erasure(None, words, {}, 0, user_files), CleanedFiles()
        row = connection.execute("SELECT nextval(pg_get_serial_sequence('genaiops.erasure', 'erasure_id'))").fetchone()
        assert row is not None
        number = int(row[0])
        connection.execute(
            """INSERT INTO erasure (erasure_id, requested_by, selector, proof) OVERRIDING SYSTEM VALUE
               VALUES (%s, %s, %s, %s)""",
            (number, by, words, Jsonb(dict(proof))),
        )
        with connection.cursor() as cursor:
            cursor.executemany(
                """INSERT INTO forgotten (source, path, content_hash, erasure_id) VALUES (%s, %s, %s, %s)
                   ON CONFLICT (source, path, content_hash) DO NOTHING""",
                [(*tombstone, number) for tombstone in sorted(tombstones, key=repr)],
            )
        erasure_files.write_journal(platform.artifacts, number, cleaned)
        crash_point("governance.before_commit")
    return Erasure(number, words, dict(proof), len(target.documents), user_files), cleaned


def _scrub(connection: Connection, matcher: Matcher, proof: Counter[str]) -> set[str]:
    """Replace matching words in records that stay; returns the drift pages that show such words, in text or in a figure."""
    drift = HOLDINGS["drift_result"]
    pages = {key[0] for key in matcher.rows("drift_result", drift.words, ("file",)) if key[0]}
    for table, holding in HOLDINGS.items():
        if holding.action == "scrub":
            proof[table] += matcher.scrub(table)
    connection.execute("UPDATE drift_result SET file = NULL WHERE file = ANY(%s)", (sorted(pages),))
    return pages


def _nearest(connection: Connection, source: str, path: str | None) -> str:
    """A hint at the document or source that may have been meant."""
    if path is None:
        rows = connection.execute("SELECT DISTINCT split_part(source, '.', 1) FROM document_version").fetchall()
    else:
        rows = connection.execute(
            "SELECT DISTINCT split_part(source, '.', 1) || '/' || path FROM document_version"
        ).fetchall()
    close = difflib.get_close_matches(source if path is None else f"{source}/{path}", [row[0] for row in rows], n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _resources(platform: Platform, selector: Selector) -> list[str]:
    """What must not be written meanwhile, in the order the stages take their leases."""
    config = platform.config
    with platform.database.connect() as connection:
        known = connection.execute(
            f"SELECT DISTINCT source FROM document_version WHERE {OF_SOURCE}",  # pyright: ignore[reportArgumentType]
            {"source": selector.source},
        ).fetchall()
        sources = {row[0] for row in known}
        sources |= set(config.sources if selector.source is None else config.expand_sources([selector.source]))
        if selector.source is not None:
            sources.add(selector.source)
        everything = selector.pattern is not None and selector.source is None
        drifts = connection.execute(
            """SELECT resource FROM lease WHERE resource LIKE 'drift:%' AND acquired_at > now() - interval '2 days'
               ORDER BY resource"""
        ).fetchall()  # a report that was begun before would quote what is erased meanwhile
        built = connection.execute(
            """SELECT DISTINCT b.index_name FROM index_build b LEFT JOIN index_document d USING (build_id)
               WHERE b.state = 'loading' OR (b.state = 'ready' AND d.source = ANY(%s))""",
            (sorted(sources),),
        ).fetchall()
    indexes = {index.name for source in sources if source in config.sources for index in config.indexes_of(source)}
    indexes |= {row[0] for row in built}
    datasets = {name for name, item in config.datasets.items() if everything or sources & set(item.sources)}
    experiments = {name for name, item in config.experiments.items() if everything or indexes & set(item.index_names)}
    return [
        "erasure",
        *(f"source:{name}" for name in sorted(sources)),
        *(f"index:{name}" for name in sorted(indexes)),
        *(f"dataset:{name}" for name in sorted(datasets)),
        *(f"experiment:{name}" for name in sorted(experiments)),
        *(row[0] for row in drifts),
    ]


def _everywhere(connection: Connection, selector: Selector) -> Matcher | None:
    """For records and files, which say nothing of sources: only a pattern that is meant for everything is run on them."""
    if selector.pattern is None or selector.source is not None:
        return None
    return Matcher(connection, selector.pattern, selector.seconds)


# --- files ------------------------------------------------------------------------------------------------


def _clean_files(platform: Platform, target: Target, matcher: Matcher | None, pages: set[str]) -> CleanedFiles:
    """Cleaned copies of everything under the artifacts folder; ``pages`` are drift pages that go whole."""

    def judge_rows(rows: Sequence[dict[str, Any]], dataset: str | None) -> list[bool]:
        concerned = [_row_is_concerned(row, target, dataset) for row in rows]
        if matcher is None:
            return concerned
        fitting = matcher.fits(["\n".join(scalars(row)) for row in rows])
        return [one or other for one, other in zip(concerned, fitting, strict=True)]

    def judge_texts(texts: Sequence[str]) -> list[bool]:
        named = [
            any(name in text for name in target.names) or not target.quotations.isdisjoint(quotations(text))
            for text in texts
        ]
        if matcher is None:
            return named
        return [one or other for one, other in zip(named, matcher.fits(texts), strict=True)]

    cleaned = clean_files(platform.artifacts, judge_rows, judge_texts, drift_pages=matcher.fits if matcher else None)
    for page in sorted(pages):
        path = platform.artifacts / page
        if path.is_file() and page not in cleaned.removed:
            cleaned.removed[page] = 1
            cleaned.changes.append((path, None))
    cleaned.folders = _state_folders(platform, target)
    return cleaned


def _row_is_concerned(row: dict[str, Any], target: Target, dataset: str | None = None) -> bool:
    if (row.get("dataset", dataset), row.get("question_id")) in target.questions or row.get("trial") in target.trials:
        return True
    return mentions(row, target, documents_matter=True)


def _file_name(name: str, target: Target, matcher: Matcher | None) -> str:
    """A file's name for the proof; hashed where it holds the path of what was erased, or fits the pattern."""
    if any(path in name for _, path in target.keys) or (matcher is not None and matcher.fits([name])[0]):
        return f"sha256:{hashlib.sha256(name.encode()).hexdigest()}"
    return name


def _state_folders(platform: Platform, target: Target) -> list[Path]:
    """What kinds of sources keep between refreshes, e.g. a clone: it holds the documents and can be made again."""
    root = state_folder(platform.config) / "sources"
    folders = [root / name for name in sorted({source_of(source) for source, _ in target.keys})]
    return [folder for folder in folders if folder.is_dir()]


def _user_files(platform: Platform, target: Target, matcher: Matcher | None) -> dict[str, int]:
    """Configured files that still name an erased document, or fit the pattern: the user has to edit them."""
    found: dict[str, int] = {}
    suffixes = {".jsonl", ".yaml", ".yml", ".csv", ".tsv"}
    names = "|".join(re.escape(name) for name in sorted(target.names | target.promoted))
    named = re.compile(rf"(?<![\w/.-])(?:{names})(?![\w/-]|\.\w)") if names else None
    for path in sorted(platform.config.data_dir.rglob("*")):
        if path.suffix not in suffixes or not path.is_file():
            continue
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        marked = [named is not None and named.search(line) is not None for line in lines]
        if matcher is not None:
            marked = [one or other for one, other in zip(marked, matcher.fits(lines), strict=True)]
        if any(marked):
            found[path.relative_to(platform.config.data_dir).as_posix()] = sum(marked)
    return found


def _vacuum(platform: Platform, proof: dict[str, int]) -> tuple[str, ...]:
    """Clear the space deleted rows had; returns the tables that somebody else held.

    Until a table is vacuumed its deleted rows, and vectors in a graph, are still in its pages, where no query sees them.
    """
    left: list[str] = []
    with platform.database.dedicated() as connection:
        connection.execute(sql.SQL("SET lock_timeout = {}").format(sql.Literal(_VACUUM_WAIT)))
        rows = connection.execute(
            "SELECT relname FROM pg_stat_user_tables WHERE schemaname = 'genaiops' AND (relname = ANY(%s) OR %s) ORDER BY 1",
            (list(proof), not proof),  # nothing left to remove: perhaps a call that was killed before it got here
        ).fetchall()
        for (table,) in rows:
            try:
                connection.execute(sql.SQL("VACUUM {}").format(sql.Identifier("genaiops", table)))
            except (psycopg.errors.LockNotAvailable, psycopg.errors.UndefinedTable):
                left.append(table)
    return tuple(left)


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
