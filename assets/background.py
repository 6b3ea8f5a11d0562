"""Background: one piece of work in a thread of its own, while this thread does something else.

Belongs here: the thread and its outcome. Does not belong here: what is worth doing at the same time: what waits for the
database beside what computes, since two threads that compute take turns.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def in_background(work: Callable[[], T]) -> "Future[T]":
    """Start ``work`` now; the future has its result or its exception.

    The thread does not keep the interpreter from ending: an interrupted run must not wait for it.
    """
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # whoever asks for the result has to hear of it, whatever it is
            future.set_exception(error)

    threading.Thread(target=run, name="background", daemon=True).start()
    return future
