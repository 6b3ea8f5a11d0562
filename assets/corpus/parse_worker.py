"""The parser process: reads one document after the other and can be killed at any moment.

Belongs here: the life of the process (who it dies with, what it may use) and the messages on its two pipes.
Does not belong here: when it is started, limited and killed (parse_pool.py), and parsing (parsing.py).

A request is a length, a JSON header, and the bytes of the document; an answer is a length and JSON. Nothing is pickled:
what comes back from a process that reads hostile files is data, never code. Standard output leads nowhere; of standard
error the pool looks at the last words of the allocator only.
"""

import contextlib
import errno
import importlib
import json
import os
import select
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, BinaryIO

#: Length of the JSON that follows, and of the bytes after it.
HEADER = struct.Struct("!QQ")

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38

#: Turns the header and the bytes of a request into the JSON-able body of an answer.
Handler = Callable[[dict[str, Any], bytes], dict[str, Any]]


def main(requests: int, responses: int, parent: int, target: str) -> None:
    """Serve requests until the pipe closes.

    Args:
        requests: file descriptor to read from.
        responses: file descriptor to write to.
        parent: process id that this process must not outlive.
        target: ``module:function`` of the handler.
    """
    _die_with(parent, requests)
    _confine()
    module, _, name = target.partition(":")
    handler: Handler = getattr(importlib.import_module(module), name)
    with os.fdopen(requests, "rb", buffering=1 << 16) as source, os.fdopen(responses, "wb") as sink:
        _answer(sink, {"ready": True})
        while (request := _read(source)) is not None:
            header, data = request
            _limit_memory(header.get("memory_bytes"))
            started = time.perf_counter()
            try:
                body = handler(header, data)
            except MemoryError:
                body = {"memory": True}
            except RecursionError:
                body = {"failed": ["damaged", "nested too deeply"]}
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):  # says something about this machine, not the document
                    body = {"disk_full": os.strerror(error.errno)}
                else:
                    body = {"failed": ["parse_failed", f"the parser failed with {type(error).__name__}"]}
            except Exception as error:  # any parser may raise anything; its message may quote the document
                body = {"failed": ["parse_failed", f"the parser failed with {type(error).__name__}"]}
            _limit_memory(None)
            _answer(sink, {**body, "seconds": time.perf_counter() - started})


def _read(source: BinaryIO) -> tuple[dict[str, Any], bytes] | None:
    lengths = source.read(HEADER.size)
    if len(lengths) < HEADER.size:
        return None
    header_length, data_length = HEADER.unpack(lengths)
    header = json.loads(source.read(header_length))
    data = source.read(data_length)
    return (header, data) if len(data) == data_length else None


def _answer(sink: BinaryIO, body: dict[str, Any]) -> None:
    encoded = json.dumps(body, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")
    sink.write(HEADER.pack(len(encoded), 0))
    sink.write(encoded)
    sink.flush()


def _die_with(parent: int, requests: int) -> None:
    """Make sure that this process never outlives its parent, whatever it is busy with.

    The kernel kills it where it can be asked to (Linux); elsewhere a thread sees the pipe close.
    """
    if sys.platform == "linux":
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the kernel was asked
        os._exit(1)
    if sys.platform != "linux":

        def watch() -> None:
            poll = select.poll()
            poll.register(requests, select.POLLHUP)
            poll.poll()
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()


def _confine() -> None:
    """Give up what parsing does not need, and be the first that a machine without memory kills."""
    with contextlib.suppress(OSError, ValueError, ImportError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold the document
    if sys.platform == "linux":
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write("900")


def _prctl(option: int, value: int) -> None:
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(option, ctypes.c_ulong(value), 0, 0, 0)


def _limit_memory(size: int | None) -> None:
    """Let the address space grow by at most ``size`` bytes from here; None: without bound.

    It backs up the watch on resident memory: one allocation of many gigabytes fails at once instead of thrashing.
    """
    with contextlib.suppress(OSError, ValueError, ImportError):
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        soft = resource.RLIM_INFINITY
        if size is not None:
            with open("/proc/self/statm", encoding="ascii") as file:
                soft = int(file.read().split()[0]) * resource.getpagesize() + size
        resource.setrlimit(resource.RLIMIT_AS, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))
