"""What lies in a cache of precomputed graphs, and how it goes."""

from __future__ import annotations

import os
import re
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pcequi.errors import ArgumentError, FileError
from pcequi.files import check_reach, expanded
from pcequi.graph_store import GraphStore

__all__ = ["CachedGraphs", "cached_graphs", "remove_graphs"]

# Names that stores have, their files, and folders of graphs that a run alone reads.
_STORE, _OF_RUN = re.compile(r"[0-9a-f]{16}"), re.compile(r"run-[0-9a-f]{16}")
_FILE = re.compile(
    r"(store\.json|chunk-\d+\.safetensors)(\.[0-9a-f-]+\.part)?|(store|chunk-\d+)\.lock"
)
_DAY = 86400.0


@dataclass(frozen=True)
class CachedGraphs:
    """A folder of a cache.

    Attributes:
        folder: where it is.
        shapes: clouds of a finished store; None of one that was only begun, and of the graphs
            that an interrupted run alone reads.
        representatives: of each level, of a finished store; None: all poses.
        size: bytes.
        days: since a file of it was last written.

    **Equivariance:** does not apply.
    """

    folder: Path
    shapes: int | None
    representatives: list[int | None] | None
    size: int
    days: float


def cached_graphs(cache: str | Path) -> list[CachedGraphs]:
    """What a cache holds, the newest first. Other files and folders in it are passed over, and so
    are links, and folders that hold anything else.

    Raises:
        FileError: a folder above the cache may not be entered.

    **Equivariance:** does not apply.
    """
    cache, found = expanded(cache), []
    check_reach(cache, "cache")
    for folder in sorted(cache.iterdir()) if os.path.isdir(cache) else []:
        if not _is_ours(folder):
            continue
        shapes = representatives = None
        with suppress(FileError):
            store = GraphStore(folder)
            shapes, representatives = len(store), [lv.sampling.num for lv in store.levels]
        stats = []
        for path in folder.rglob("*"):
            with suppress(OSError):  # gone meanwhile
                stats.append(path.stat())
        newest = max((stat.st_mtime for stat in stats), default=folder.stat().st_mtime)
        size = sum(stat.st_size for stat in stats)
        days = max(0.0, time.time() - newest) / _DAY
        found.append(CachedGraphs(folder, shapes, representatives, size, days))
    return sorted(found, key=lambda one: one.days)


def remove_graphs(found: list[CachedGraphs], older: float = 0.0) -> list[CachedGraphs]:
    """Delete folders of a cache; what needs them makes them again.

    Args:
        found: from ``cached_graphs``.
        older: days since something was written there, at least.

    Returns:
        Those that were deleted.

    Raises:
        ArgumentError: ``older`` is negative.
        FileError: folders cannot be deleted; the others are.

    **Equivariance:** does not apply.
    """
    if not older >= 0:
        raise ArgumentError(f"`older` (={older}) must be a number of days, 0 or more")
    gone, failed = [], []
    for one in found:
        if one.days < older:
            continue
        try:
            # First what says that it is whole: nobody takes half of it for all.
            (one.folder / "store.json").unlink(missing_ok=True)
            shutil.rmtree(one.folder)
            gone.append(one)
        except OSError as error:
            failed.append(f"{one.folder} ({error.strerror or error})")
    if failed:
        raise FileError(
            f"{len(failed)} folders cannot be deleted: {', '.join(failed)}; allow it, or do it "
            "yourself"
        )
    return gone


def _is_ours(folder: Path) -> bool:
    if os.path.islink(folder) or not os.path.isdir(folder):
        return False
    if _OF_RUN.fullmatch(folder.name):
        return all(_STORE.fullmatch(path.name) and _is_ours(path) for path in folder.iterdir())
    if not _STORE.fullmatch(folder.name):
        return False
    return all(
        _FILE.fullmatch(path.name) and not os.path.islink(path) and os.path.isfile(path)
        for path in folder.iterdir()
    )
