"""The pool of parser processes: whatever a document does to its parser, it costs that document alone.

Belongs here: starting, limiting, replacing and ending parser processes, and telling why one died.
Does not belong here: what they do (parse_worker.py, parsing.py), and what is kept of a result (parse_cache.py).

A process is started when there is work and ends after some seconds without any. Each has a thread here that feeds it
and watches time and memory. Workers are plain programs rather than children of ``multiprocessing``: they start the same
way in a Dagster step, a test and the command line, take nothing with them from the parent, and import no main module.
"""

import atexit
import contextlib
import json
import os
import re
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from assets.corpus.failures import KilledParse, ParseLimits
from assets.corpus.parse_worker import HEADER
from resources.disk import REMEDY
from resources.errors import DiskFullError, TransientError
from resources.faults import CRASH_VARIABLE, PAUSE_VARIABLE

TARGET = "assets.corpus.parsing:answer"
#: Where more is waiting than this, another process is worth what it costs to start (a quarter of a second).
_WAITING_BYTES, _WAITING_FILES = 400_000, 16
_IDLE_SECONDS = 5.0
_WATCH_SECONDS = 0.05
_START_SECONDS = 60.0
#: A process whose memory has grown beyond this is replaced before it gets the next document.
_RETIRE_BYTES = 768 << 20
_RETIRE_TASKS = 2_000
#: More processes than this only compete for memory.
_MOST_PROCESSES = 8
#: An answer larger than this is not read.
_ANSWER_BYTES = 1 << 30
_ALLOCATION = re.compile(rb"memory allocation of \d+ bytes failed|bad_alloc|[Cc]annot allocate memory|[Oo]ut of memory")
#: All of the environment that a parser gets: no address, no key, no token.
_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "SYSTEMROOT", CRASH_VARIABLE, PAUSE_VARIABLE)


@dataclass(frozen=True)
class Task:
    """A document for a parser.

    Attributes:
        header: JSON-able; what the handler needs to know beside the bytes.
        data: the document.
        limits: what it may cost.
        trusting: the process gets the whole environment, as a recogniser with a service behind it needs.
    """

    header: Mapping[str, Any]
    data: bytes = field(repr=False)
    limits: ParseLimits = field(default_factory=ParseLimits)
    trusting: bool = False


#: The handler's answer, or how its process ended.
Outcome = dict[str, Any] | KilledParse


class ParsePool:
    """Processes that each do one task at a time.

    Args:
        target: ``module:function`` that each process calls for a task.
        size: how many processes at most; by default one for each processor this process may use.
        idle_seconds: a process without work ends after this time.
    """

    def __init__(self, target: str = TARGET, size: int | None = None, idle_seconds: float = _IDLE_SECONDS) -> None:
        self._target = target
        self._size = size or min(_MOST_PROCESSES, _processors())
        self._idle_seconds = idle_seconds
        self._queue: deque[tuple[Task, Future[Outcome]]] = deque()
        self._changed = threading.Condition()
        self._slots = 0
        self._idle = 0
        self._closed = False
        self._processes: set[subprocess.Popen[bytes]] = set()

    def submit(self, task: Task) -> "Future[Outcome]":
        """Queue a task; the future holds its outcome, or TransientError when no process can be started, or
        DiskFullError when it found no room for its temporary files."""
        future: Future[Outcome] = Future()
        with self._changed:
            if self._closed:
                raise TransientError("the pool of parser processes is closed")
            self._queue.append((task, future))
            waiting = len(self._queue) - self._idle
            if waiting > 0 and self._slots < self._size and (not self._slots or self._worth_another()):
                self._slots += 1
                threading.Thread(target=self._serve, name="parser", daemon=True).start()
            self._changed.notify()
        return future

    @property
    def process_ids(self) -> list[int]:
        """Processes alive now."""
        with self._changed:
            return sorted(process.pid for process in self._processes)

    def close(self) -> None:
        """End all processes at once; what still waits fails with TransientError."""
        with self._changed:
            self._closed = True
            waiting = list(self._queue)
            self._queue.clear()
            processes = list(self._processes)
            self._changed.notify_all()
        for process in processes:
            with contextlib.suppress(OSError):
                process.kill()
        for _, future in waiting:
            future.set_exception(TransientError("the pool of parser processes was closed"))

    def _worth_another(self) -> bool:
        return len(self._queue) > _WAITING_FILES or sum(len(task.data) for task, _ in self._queue) > _WAITING_BYTES

    def _next(self) -> "tuple[Task, Future[Outcome]] | None":
        with self._changed:
            deadline = time.monotonic() + self._idle_seconds
            while not self._queue:
                left = deadline - time.monotonic()
                if self._closed or left <= 0:
                    self._slots -= 1
                    return None
                self._idle += 1
                self._changed.wait(left)
                self._idle -= 1
            return self._queue.popleft()

    def _serve(self) -> None:
        """The thread of one process. It outlives the process, which the kernel ends together with it."""
        worker: _Worker | None = None
        while (item := self._next()) is not None:
            task, future = item
            try:
                if worker is not None and (worker.is_worn() or worker.trusting != task.trusting):
                    self._end(worker)
                    worker = None
                outcome: Outcome | None = None
                for attempt in (1, 2):
                    if worker is None:
                        worker = self._start(task.trusting)
                    fresh = worker.tasks == 0
                    outcome = worker.run(task, bounded=attempt == 1)
                    if not isinstance(outcome, KilledParse):
                        break
                    self._end(worker)
                    worker = None
                    # What the process did before may be the cause of its end, or something outside, or an allocation
                    # that native code took badly: a fresh one, watched only, decides.
                    again = outcome.code == "crashed" or (outcome.code == "memory" and not fresh)
                    if self._closed or not again:
                        break
                assert outcome is not None
                if self._closed and isinstance(outcome, KilledParse):
                    raise TransientError("the pool of parser processes was closed")
                future.set_result(outcome)
            except BaseException as error:  # the caller has to hear of it, whatever it is
                if worker is not None:
                    self._end(worker)
                    worker = None
                future.set_exception(error)
        if worker is not None:
            self._end(worker)

    def _start(self, trusting: bool) -> "_Worker":
        worker = _Worker(self._target, trusting)
        with self._changed:
            self._processes.add(worker.process)
            closed = self._closed
        if closed:
            self._end(worker)
            raise TransientError("the pool of parser processes was closed")
        try:
            worker.await_start()
        except BaseException:
            self._end(worker)
            raise
        return worker

    def _end(self, worker: "_Worker") -> None:
        worker.end()
        with self._changed:
            self._processes.discard(worker.process)


class _Worker:
    """One process and its pipes; used by one thread."""

    def __init__(self, target: str, trusting: bool) -> None:
        self.tasks = 0
        self.trusting = trusting
        self._last_words = b""
        self._resident = 0
        request_read, self._requests = os.pipe()
        self._responses, response_write = os.pipe()
        program = (
            "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from assets.corpus.parse_worker import main; "
            "main(int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])"
        )
        arguments = [json.dumps(sys.path), str(request_read), str(response_write), str(os.getpid()), target]
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-c", program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=(request_read, response_write),
                env=_environment(trusting),
                start_new_session=True,  # an interrupt from the terminal is the parent's business
            )
        except OSError as error:
            os.close(self._requests)
            os.close(self._responses)
            raise TransientError(f"no parser process could be started: {error.strerror}") from error
        finally:
            os.close(request_read)
            os.close(response_write)
        for descriptor in (self._requests, self._responses, self._stderr):
            os.set_blocking(descriptor, False)

    @property
    def _stderr(self) -> int:
        assert self.process.stderr is not None
        return self.process.stderr.fileno()

    def await_start(self) -> None:
        """Wait until the process has imported what it needs.

        Raises:
            TransientError: it died or took too long.
        """
        answer = self._exchange(b"", ParseLimits(_START_SECONDS, 1 << 62))
        if isinstance(answer, KilledParse):
            raise TransientError(f"no parser process could be started: {answer.reason}")

    def is_worn(self) -> bool:
        """Whether it should be replaced before the next task."""
        return self.process.poll() is not None or self.tasks >= _RETIRE_TASKS or self._resident > _RETIRE_BYTES

    def run(self, task: Task, *, bounded: bool = True) -> Outcome:
        """Do a task; after a KilledParse this worker is of no more use.

        Args:
            task: what to do.
            bounded: limit what the process may allocate, beside watching what it uses.
        """
        self.tasks += 1
        bound = {"memory_bytes": task.limits.memory_bytes} if bounded else {}
        header = json.dumps({**task.header, **bound}).encode()
        request = HEADER.pack(len(header), len(task.data)) + header
        answer = self._exchange(request, task.limits, task.data)
        if isinstance(answer, dict) and answer.get("memory"):
            return _out_of_memory(task.limits)
        if isinstance(answer, dict) and "disk_full" in answer:
            raise DiskFullError(
                f"the disk with the temporary files of parsers is full ({answer['disk_full']}). {REMEDY}"
            )
        return answer

    def end(self) -> None:
        """Kill the process and close the pipes."""
        with contextlib.suppress(OSError):
            self.process.kill()
        self.process.wait()
        for descriptor in (self._requests, self._responses):
            with contextlib.suppress(OSError):
                os.close(descriptor)
        assert self.process.stderr is not None
        self.process.stderr.close()

    def _exchange(self, request: bytes, limits: ParseLimits, data: bytes = b"") -> Outcome:
        """Send a request, if any, and read one answer, within the limits."""
        deadline = time.monotonic() + limits.timeout_seconds
        pending = deque(memoryview(part) for part in (request, data) if part)
        answer = bytearray()
        wanted = HEADER.size
        memory = _memory_of(self.process.pid)
        next_look = 0.0
        with selectors.DefaultSelector() as selector:
            selector.register(self._responses, selectors.EVENT_READ)
            selector.register(self._stderr, selectors.EVENT_READ)
            if pending:
                selector.register(self._requests, selectors.EVENT_WRITE)
            while len(answer) < wanted:
                now = time.monotonic()
                if now >= deadline:
                    return KilledParse(
                        "timeout",
                        f"not parsed within {limits.timeout_seconds:g} seconds",
                        {"timeout_seconds": limits.timeout_seconds},
                    )
                if now >= next_look:
                    next_look = now + _WATCH_SECONDS
                    self._resident = memory()
                    if self._resident > limits.memory_bytes:
                        return _out_of_memory(limits)
                for key, _ in selector.select(min(_WATCH_SECONDS, deadline - now)):
                    if key.fd == self._requests:
                        if not self._write(pending):
                            selector.unregister(self._requests)
                    elif key.fd == self._stderr:
                        chunk = os.read(self._stderr, 65_536)
                        if chunk:
                            self._last_words = (self._last_words + chunk)[-500:]
                        else:
                            selector.unregister(self._stderr)
                    else:
                        chunk = os.read(self._responses, 1 << 20)
                        if not chunk:
                            return self._post_mortem(limits)
                        answer += chunk
                        if wanted == HEADER.size and len(answer) >= wanted:
                            wanted += HEADER.unpack_from(answer)[0]
                            if wanted > _ANSWER_BYTES:
                                return KilledParse(
                                    "too_large_inside", f"its text is larger than {_ANSWER_BYTES >> 20:,} MiB"
                                )
        self._resident = memory()
        return json.loads(memoryview(answer)[HEADER.size :].tobytes())

    def _write(self, pending: "deque[memoryview]") -> bool:
        """Write what the pipe takes; whether more is left."""
        try:
            written = os.write(self._requests, pending[0][: 1 << 20])
        except BlockingIOError:
            return True
        except BrokenPipeError:
            return False  # the other pipe will say why
        pending[0] = pending[0][written:]
        if not pending[0]:
            pending.popleft()
        return bool(pending)

    def _post_mortem(self, limits: ParseLimits) -> KilledParse:
        """Why the process closed its pipe."""
        try:
            code = self.process.wait(5)
        except subprocess.TimeoutExpired:
            return KilledParse("crashed", "the parser process closed its pipe")
        with contextlib.suppress(OSError):  # the last words may have come after the last look
            while chunk := os.read(self._stderr, 65_536):
                self._last_words = (self._last_words + chunk)[-500:]
        if code == -signal.SIGABRT and _ALLOCATION.search(self._last_words):
            return _out_of_memory(limits)
        if code == -signal.SIGKILL:
            reason = "its parser process was killed from outside, as when the machine has no memory left"
            return KilledParse("crashed", reason, transient=True)
        if code < 0:
            return KilledParse("crashed", f"the parser process died of {_signal_name(-code)}")
        return KilledParse("crashed", f"the parser process ended with status {code}")


def shared_pool() -> ParsePool:
    """The pool of this process; it holds no processes while there is nothing to do."""
    global _shared
    with _shared_lock:
        if _shared is None or _shared[0] != os.getpid() or _shared[1]._closed:
            _shared = (os.getpid(), ParsePool())
            atexit.register(_shared[1].close)
        return _shared[1]


_shared: tuple[int, ParsePool] | None = None
_shared_lock = threading.Lock()


def _out_of_memory(limits: ParseLimits) -> KilledParse:
    size = limits.memory_bytes
    return KilledParse("memory", f"parsing took more than {size >> 20:,} MiB of memory", {"memory_bytes": size})


def _environment(trusting: bool) -> dict[str, str]:
    kept = dict(os.environ) if trusting else {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    return kept | {
        "PYTHONHASHSEED": "0",  # equal bytes give equal text, also where a library walks through a set
        "PYTHONDONTWRITEBYTECODE": "1",
        "MALLOC_ARENA_MAX": "2",  # an arena for each native thread would count against the limit of memory
        "OMP_NUM_THREADS": "1",
        "RAYON_NUM_THREADS": "1",
        "TOKIO_WORKER_THREADS": "1",
    }


def _processors() -> int:
    with contextlib.suppress(AttributeError, OSError):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def _memory_of(pid: int) -> "Any":
    """A function that tells the resident memory of a process in bytes; 0 when it is gone."""
    import psutil

    try:
        process = psutil.Process(pid)
    except psutil.Error:
        return lambda: 0

    def look() -> int:
        try:
            return process.memory_info().rss
        except psutil.Error:
            return 0

    return look


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
