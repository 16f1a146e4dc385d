"""Ctrl-C and the like, where several processes meet them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

__all__ = ["leave_interrupts", "uninterrupted"]

_ENDING = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C and the like wait, where the system can make them.

    Blocking them is what processes inherit that begin here. It is not enough for this one:
    the system hands a signal to any thread that does not block it, NumPy's for one, and Python
    then interrupts the main thread all the same. So they are noted, and come in the end.

    **Equivariance:** does not apply.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    handlers, noted = {}, {}
    if threading.current_thread() is threading.main_thread():  # no other one is interrupted
        handlers = {one: signal.getsignal(one) for one in _ENDING}
        handlers = {one: handler for one, handler in handlers.items() if callable(handler)}
    with ExitStack() as end:  # which does all, whatever raises meanwhile
        end.callback(_handle, handlers, noted)
        for one, handler in handlers.items():
            end.callback(signal.signal, one, handler)
        end.callback(signal.pthread_sigmask, signal.SIG_SETMASK, before)
        for one in handlers:
            signal.signal(one, noted.setdefault)
        signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
        yield


def _handle(handlers: dict, noted: dict) -> None:
    """Give each signal, with the frame in which it came, to its handler."""
    with ExitStack() as each:
        for number, frame in reversed(noted.items()):
            each.callback(handlers[number], number, frame)


def leave_interrupts() -> None:
    """Of a worker: Ctrl-C, which reaches all processes, is for the first one, which ends the
    others. What ``uninterrupted`` blocked as this one began is not blocked any more.

    **Equivariance:** does not apply.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
