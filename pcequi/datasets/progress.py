"""A progress bar that stays out of the way of short jobs."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["track"]

Item = TypeVar("Item")


def track(
    items: Iterable[Item],
    description: str,
    total: int,
    after: float = 2.0,
    console: Console | None = None,
) -> Iterator[Item]:
    """Go through ``items``, with a bar on a terminal once it takes long.

    Args:
        items: What to go through.
        description: Words beside the bar.
        total: How many items there are.
        after: Seconds before the bar appears.
        console: Where it appears; standard error by default.

    Yields:
        The items, in order.

    **Equivariance:** does not apply.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    console = console or Console(stderr=True)
    progress = Progress(*columns, console=console, transient=True)
    task = progress.add_task(description, total=total)
    start, shown = time.monotonic(), False
    try:
        for done, item in enumerate(items):
            if not shown and console.is_terminal and time.monotonic() - start > after:
                progress.start()
                shown = True
            if shown:
                progress.update(task, completed=done)
            yield item
    finally:
        if shown:
            progress.stop()
