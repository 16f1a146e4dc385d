"""Worker processes of this machine."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import connection, current_process, get_context, parent_process

import torch

from pcequi.errors import PcequiError
from pcequi.interrupts import leave_interrupts, uninterrupted
from pcequi.notices import OF_PYG, is_said, say_compiling

__all__ = ["one_thread", "safe_start", "worker_map"]

# Windows waits for no more processes at once.
_MOST = 61 if sys.platform == "win32" else 10_000
# Seconds that begun tasks have to finish where nobody waits for the rest: a chunk of graphs is
# done by then and kept, and nobody who pressed Ctrl-C waits for what is compiled for a minute.
_GRACE = 5.0
_SAFE = "PYTHONSAFEPATH"


@contextmanager
def worker_map(workers: int, setup: Callable | None = None, *given) -> Iterator[Callable]:
    """A ``map`` that several processes share; the plain one for a single process.

    Args:
        workers: processes, at least 1; no more than there are tasks, since all begin.
        setup: called by each of several processes, with what is ``given``, before its first task.
            It fits a pipe, 64 KB, see ``safe_start``.

    Raises:
        PcequiError: a worker died, or could not begin.

    **Equivariance:** does not apply.
    """
    if workers == 1:
        yield map
        return
    # Spawned, not forked: a fork would inherit the parent's threads' locks.
    context = get_context("spawn")
    ending, end = context.Pipe(duplex=False)  # workers end where it can be read
    with safe_start() as safe:  # what tracks its semaphores begins here
        pool = ProcessPoolExecutor(
            min(workers, _MOST),
            mp_context=context,
            initializer=_begin,
            initargs=(ending, safe, is_said(), setup, given),
        )
    # All begin at once, before anything looks after them: where one dies as another begins, Python
    # 3.11's pool falls apart. It does so by itself where processes are forked; no public way.
    pool._safe_to_dynamically_spawn_children = False
    with ExitStack() as leaving:
        leaving.callback(end.send, None)  # to those that the pool does not know of
        leaving.enter_context(pool)

        def apply(task, *tasks):
            # Processes begin as tasks are handed in, and would complain about Ctrl-C at length.
            with uninterrupted(), safe_start():
                try:
                    futures = [pool.submit(task, *each) for each in zip(*tasks)]
                except OSError as error:  # the system has no room for one
                    raise BrokenProcessPool(str(error)) from error
            if getattr(pool, "_broken", False):  # meanwhile: the last ones may wait for ever
                raise BrokenProcessPool("while tasks were handed in")
            return _results(futures[::-1])

        try:
            yield apply
        except BrokenProcessPool as error:
            with _patience(pool, end):
                pool.shutdown(cancel_futures=True)
            none = isinstance(error.__cause__, OSError)
            began = f" or did not begin ({error})" if none else ""
            raise PcequiError(
                f"a worker process died{began}. Out of memory? Run again with fewer `workers`; "
                "what is finished is kept. In a script of your own, which workers import, what "
                'starts them must stand below `if __name__ == "__main__":`; or take `workers=1`'
            ) from error
        except Exception:  # leaving waits for tasks, so for no more than have begun or are next
            pool.shutdown(cancel_futures=True)
            raise
        except BaseException:  # nobody waits for them any more
            with _patience(pool, end):
                pool.shutdown(cancel_futures=True)
            raise


def _results(futures: list[Future]) -> Iterator:
    """Of the last first. Unlike those of the pool's own ``map``, which cancels what is left where
    one fails: Python 3.11's pool, that may just do it as well, does not survive that."""
    while futures:
        yield futures.pop().result()


@contextmanager
def _patience(pool: ProcessPoolExecutor, end: connection.Connection) -> Iterator[None]:
    """Workers that are not done with the block in ``_GRACE`` seconds end where they are."""

    def give_up() -> None:
        # Else the pool may wait for ever for the rest of a message to or from the dead. Python has
        # no public way before 3.14. First, while the pool's own thread touches none of it.
        for queue, side in (("_call_queue", "_reader"), ("_result_queue", "_writer")):
            if (side := getattr(getattr(pool, queue, None), side, None)) is not None:
                side.close()
        end.send(None)

    timer = threading.Timer(_GRACE, give_up)
    timer.daemon = True
    with suppress(RuntimeError):  # there are as many threads as may be
        if not sys.is_finalizing():  # where none can begin
            timer.start()
    try:
        yield
    except BaseException:  # nobody waits for these seconds either
        give_up()
        raise
    finally:
        timer.cancel()


class _Start:
    """How many threads are inside ``safe_start``, and what was before the first of them."""

    lock, inside, before = threading.Lock(), 0, (None, [], [])


@contextmanager
def safe_start() -> Iterator[str | None]:
    """Pythons that this process spawns inside the block neither import from the working directory,
    where any file may have the name of a module (a worker takes its parent's path after that), nor
    are told the arguments of the command, which may be thousands of files: what they are told goes
    through a pipe, and who spawns them waits until they have read it, for ever where one died. Nor
    do they say once more what PyG gives rise to.

    Yields:
        What the environment variable PYTHONSAFEPATH is outside.

    **Equivariance:** does not apply.
    """
    with _Start.lock:
        if not _Start.inside:
            _Start.before = os.environ.get(_SAFE), sys.argv, sys.warnoptions
            os.environ[_SAFE], sys.argv = "1", sys.argv[:1]
            notices = [f"ignore:{notice}" for notice in OF_PYG]
            sys.warnoptions = [*sys.warnoptions, *notices]  # their options
        _Start.inside += 1
    try:
        yield _Start.before[0]
    finally:
        with _Start.lock:
            _Start.inside -= 1
            if not _Start.inside:
                safe, sys.argv, sys.warnoptions = _Start.before
                _set_safe(safe)


def _set_safe(value: str | None) -> None:
    if value is None:
        os.environ.pop(_SAFE, None)
    else:
        os.environ[_SAFE] = value


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch with one thread inside the block: small operations are slower with more.

    **Equivariance:** does not apply.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _begin(
    ending: connection.Connection,
    safe: str | None,
    said: bool,
    setup: Callable | None,
    given: tuple,
) -> None:
    _end_with_parent(ending)
    leave_interrupts()
    _set_safe(safe)
    if said and current_process().name.endswith("-1"):  # all compile the same
        say_compiling()
    if setup is not None:
        setup(*given)


def _end_with_parent(ending: connection.Connection) -> None:
    # A parent that was killed cannot stop its workers: they would wait for ever.
    def watch() -> None:
        connection.wait([ending, parent_process().sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
