"""What a server and its clients do and hold while a benchmark runs: statements by part, memory, disk, write-ahead log.

Belongs here: observing from outside, so that the code measured is the code as it is.
Does not belong here: what is run. Memory needs Linux (``/proc``); elsewhere it is reported as nothing.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from resources.postgres import Connection

MB = 1024 * 1024
#: Seconds between looks at the statements, and at memory.
LOOK, WEIGH = 0.1, 1.0
#: Name under which client processes connect; what they ask is no part of a build.
CLIENT = "genaiops-client"
#: Parts of a build by the statement that is running; the first that fits.
PARTS: tuple[tuple[str, str], ...] = (
    ("graph", r"USING hnsw"),
    ("GIN", r"USING gin"),
    ("keys", r"ADD PRIMARY KEY|ADD CONSTRAINT|CREATE (UNIQUE )?INDEX"),
    ("words", r"ts_stat|INSERT INTO \"?words_|INTO \"?words_\d|COPY \"?words_"),
    ("rows", r"INSERT INTO \"?chunks_|COPY \"?(genaiops\.)?\"?chunks_"),
    ("texts sent", r"COPY \"?cut\b|cut_chunks"),
    ("what is wanted", r"TEMP(ORARY)? TABLE \"?(change|wanted|cut)|ANALYZE \"?(change|wanted|cut)"),
    ("searches of the checks", r"<=>"),
    ("documents, counts, checks", r"index_document"),
    ("statistics", r"^\s*ANALYZE"),
    ("vectors into the cache", r"arrived|INTO embedding"),
    ("coverage", r"WITH shown AS \(SELECT text_hash"),
)


@dataclass
class Watched:
    """What was seen in one phase.

    Attributes:
        seconds: wall time.
        parts: seconds by what the server was running for writers; parts at once share the time.
        client: peak resident MB of this process; server: of all processes of the server, what they share counted once
            (PSS); child: of the largest process this one started.
        log_mb: write-ahead log written; temporary_mb: temporary files.
    """

    seconds: float = 0.0
    parts: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    client: float | None = None
    server: float | None = None
    child: float | None = None
    log_mb: float = 0.0
    temporary_mb: float = 0.0


@contextmanager
def watching(url: str) -> Iterator[Watched]:
    """Watch the server at ``url`` and this process until the block ends."""
    watched, stop = Watched(), threading.Event()
    with psycopg.connect(url, autocommit=True) as connection:
        before = _written(connection)
        thread = threading.Thread(target=_watch, args=(url, watched, stop), daemon=True)
        thread.start()
        started = time.perf_counter()
        try:
            yield watched
        finally:
            watched.seconds = time.perf_counter() - started
            stop.set()
            thread.join(10)
            after = _written(connection)
            watched.log_mb, watched.temporary_mb = ((b - a) / MB for a, b in zip(before, after, strict=True))


def _written(connection: Connection) -> tuple[float, float]:
    row = connection.execute(
        """SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0'),
                  (SELECT temp_bytes FROM pg_stat_database WHERE datname = current_database())"""
    ).fetchone()
    assert row is not None
    return float(row[0]), float(row[1])


def _watch(url: str, watched: Watched, stop: threading.Event) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        server = int(_status(connection.info.backend_pid).get("PPid", "0"))
        last, weighed = time.perf_counter(), 0.0
        while not stop.wait(LOOK):
            running = connection.execute(
                """SELECT query FROM pg_stat_activity
                   WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
                     AND state = 'active' AND (wait_event_type IS DISTINCT FROM 'Client' OR query ~ '^COPY')
                     AND application_name <> %s""",
                (CLIENT,),
            ).fetchall()
            now = time.perf_counter()
            for (query,) in running:
                watched.parts[_part(query)] += (now - last) / len(running)
            if not running:
                watched.parts["(client, or nothing)"] += now - last
            last = now
            if now - weighed > WEIGH:
                weighed = now
                _weigh(watched, server)


def _part(query: str) -> str:
    for name, pattern in PARTS:
        if re.search(pattern, query):
            return name
    return "other: " + " ".join(query.split())[:30]


# --- memory ------------------------------------------------------------------------------------------------------


def _weigh(watched: Watched, server: int) -> None:
    if not Path("/proc/self/status").exists():
        return
    processes = _processes()
    watched.client = max(watched.client or 0.0, _resident(os.getpid()))
    family = [pid for pid, parent in processes.items() if parent == server and server > 1]
    if server > 1:
        watched.server = max(watched.server or 0.0, sum(map(_proportional, [server, *family])))
    ours = [pid for pid, parent in processes.items() if parent == os.getpid()]
    watched.child = max(watched.child or 0.0, *map(_resident, ours), 0.0)


def _processes() -> dict[int, int]:
    """Parents of all processes."""
    found = {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit() and (parent := _status(int(path.name)).get("PPid")):
            found[int(path.name)] = int(parent)
    return found


def _status(pid: int) -> dict[str, str]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _resident(pid: int) -> float:
    return int(_status(pid).get("VmRSS", "0 kB").split()[0]) / 1024


def _proportional(pid: int) -> float:
    """PSS in MB; where it may not be read, what the process alone holds."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return int(_status(pid).get("RssAnon", "0 kB").split()[0]) / 1024


# --- disk --------------------------------------------------------------------------------------------------------

CACHES = ("document_text", "document_version", "chunk_set", "chunk", "chunk_input", "embedding", "index_document")


def build_sizes(connection: Connection, table: str) -> dict[str, int]:
    """Bytes of a build by part: rows, what lies outside of them (toast), each index, the words with their key."""
    found: dict[str, int] = {}
    for name, relation, kind in connection.execute(
        """SELECT 'rows', c.oid, 'table' FROM pg_class c WHERE c.oid = ('genaiops.' || %(table)s::text)::regclass
           UNION ALL SELECT 'outside the rows (toast)', c.reltoastrelid, 'whole' FROM pg_class c
                     WHERE c.oid = ('genaiops.' || %(table)s::text)::regclass AND c.reltoastrelid <> 0
           UNION ALL SELECT CASE a.amname WHEN 'hnsw' THEN 'graph' WHEN 'gin' THEN 'GIN' ELSE 'keys' END, i.indexrelid,
                            'table'
                     FROM pg_index i JOIN pg_class k ON k.oid = i.indexrelid JOIN pg_am a ON a.oid = k.relam
                     WHERE i.indrelid = ('genaiops.' || %(table)s::text)::regclass
           UNION ALL SELECT 'words', ('genaiops.' || %(words)s::text)::regclass, 'whole'""",
        {"table": table, "words": table.replace("chunks_", "words_", 1)},
    ).fetchall():
        measure = "pg_total_relation_size" if kind == "whole" else "pg_relation_size"
        row: Any = connection.execute(f"SELECT {measure}(%s::oid::regclass)", (relation,)).fetchone()  # type: ignore[arg-type]
        found[name] = found.get(name, 0) + row[0]
    return found


def cache_sizes(connection: Connection) -> dict[str, int]:
    """Bytes of the tables the stages before an index keep, indexes and toast included."""
    found: dict[str, int] = {}
    for table in CACHES:
        row: Any = connection.execute(
            "SELECT pg_total_relation_size(('genaiops.' || %s::text)::regclass)", (table,)
        ).fetchone()
        found[table] = row[0]
    return found
