"""Progress on standard error: a bar on a terminal, plain lines in a log."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

__all__ = ["Task", "progress_bar", "track"]

Item = TypeVar("Item")


class Task:
    """A running piece of work; call it with (done, total) as it goes on.

    **Equivariance:** does not apply.
    """

    def __init__(self, progress: Progress | None, task: int | None):
        self._progress, self._task, self._begun = progress, task, 0

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Show that ``done`` of ``total`` are done, with a remark."""
        if self._progress is not None:
            self._progress.update(self._task, completed=done, total=total, note=note)

    def begin(self, part: str) -> None:
        """Show that the next part begins, and those before are done."""
        if self._progress is not None:
            self._progress.update(self._task, completed=self._begun, note=part)
        self._begun += 1

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Without the bar: another one may stand in its place meanwhile."""
        if self._progress is not None:
            self._progress.stop()
        yield
        if self._progress is not None:
            self._progress.start()

    def line(self, text: str) -> None:
        """Print a line above the bar."""
        if self._progress is not None:
            self._progress.console.print(text, highlight=False, markup=False)


@contextmanager
def progress_bar(title: str, total: int = 1, *, quiet: bool = False) -> Iterator[Task]:
    """A bar with the time left, on standard error.

    Args:
        title: what is done.
        total: steps, corrected by later calls of the task.
        quiet: show nothing.

    Yields:
        A ``Task``.

    **Equivariance:** does not apply.
    """
    if quiet:
        yield Task(None, None)
        return
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    start = time.perf_counter()
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        yield Task(progress, progress.add_task(title, total=total, note=""))
    seconds = time.perf_counter() - start
    if seconds >= 0.5:
        console.print(f"{title}: {seconds:.1f} s", highlight=False, markup=False)


def track(items: Iterable[Item], title: str, total: int) -> Iterator[Item]:
    """Go through ``items``, with a bar.

    Args:
        items: what to go through.
        title: what is done.
        total: how many items there are.

    Yields:
        The items, in order.

    **Equivariance:** does not apply.
    """
    with progress_bar(title, total) as bar:
        for done, item in enumerate(items):
            bar(done, total)
            yield item
