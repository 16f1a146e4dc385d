"""Timing of several things side by side, and the memory that one of them takes."""

from __future__ import annotations

import ctypes
import gc
import mmap
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["Timing", "interleaved", "peak_bytes", "summary"]

Timing = dict[str, list[float]]


def interleaved(functions: dict[str, Callable[[], object]], rounds: int, warmup: int = 1) -> Timing:
    """Seconds of each function in each round, one after the other in turn.

    What disturbs the machine for a while then disturbs all of them alike.

    Args:
        functions: by name.
        rounds: measured.
        warmup: rounds before them: compilation, allocation, caches.

    **Equivariance:** does not apply.
    """
    seconds: Timing = {name: [] for name in functions}
    for number in range(warmup + rounds):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if number >= warmup:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def summary(values: list[float], scale: float = 1.0) -> dict[str, float]:
    """Median and spread (least and largest) of some values.

    **Equivariance:** does not apply.
    """
    scaled = [value * scale for value in values]
    return {
        "median": statistics.median(scaled),
        "least": min(scaled),
        "largest": max(scaled),
        "rounds": len(scaled),
    }


def peak_bytes(function: Callable[[], object]) -> int | None:
    """Resident memory that a call takes at its peak, above what was there before.

    Read every millisecond from the kernel while the call runs; None where the
    system does not tell (only Linux does).

    **Equivariance:** does not apply.
    """
    status = Path("/proc/self/statm")
    if not status.exists():
        return None
    page = mmap.PAGESIZE

    def resident() -> int:
        return int(status.read_text().split()[1]) * page

    gc.collect()
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)  # else what earlier calls freed would hide what this one takes
    before = highest = resident()
    done = threading.Event()

    def watch() -> None:
        nonlocal highest
        while not done.wait(0.001):
            highest = max(highest, resident())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        function()
        highest = max(highest, resident())
    finally:
        done.set()
        watcher.join()
    return highest - before
