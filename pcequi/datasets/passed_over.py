"""What of a folder is not read, in one line: a slip in an ending should not go unnoticed."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from pcequi.datasets.folder_files import all_files

__all__ = ["passed_over", "passed_over_within", "say_passed_over"]

# What systems leave beside files, which nobody misses.
_SYSTEM = ("thumbs.db", "desktop.ini", "ehthumbs.db", "icon\r")
# Endings that the line names.
_SHOWN = 4


def passed_over(folder: Path, files: Sequence[tuple[Path, str, str]]) -> str:
    """How many files of a folder are passed over, by their endings, and how many of them lie
    outside the classes; empty where none is.

    Args:
        folder: Whose sub-folders are the classes.
        files: Path, class and split of those that are read, of ``folder_files``.

    **Equivariance:** does not apply: no file is opened.
    """
    read = {path for path, _, _ in files}
    places = [(path.relative_to(folder).parts, name) for path, name, _ in files]
    kinds = {parts[: 1 if parts[0] == name else 2] for parts, name in places}
    within, outside = Counter(), 0
    for path in _missed(folder, read):
        parts = path.relative_to(folder).parts
        if any(parts[:depth] in kinds for depth in range(1, len(parts))):
            within[_ending(path)] += 1
        else:
            outside += 1
    told = [_counted(within)] if within else []
    if outside:
        told.append(f"{outside if told else _files(outside)} outside the classes")
    return ", ".join(told)


def passed_over_within(folder: Path, files: Sequence[Path]) -> str:
    """How many files of a folder without classes are passed over; empty where none is.

    Args:
        folder: The folder.
        files: Those of its files that are read.

    **Equivariance:** does not apply: no file is opened.
    """
    within = Counter(map(_ending, _missed(folder, set(files))))
    return _counted(within) if within else ""


def _missed(folder: Path, read: set[Path]) -> Iterator[Path]:
    for path in all_files(folder, dangling=True):
        hidden = path.name.startswith((".", "~$")) or path.name.lower() in _SYSTEM
        if path not in read and not hidden:
            yield path


def _ending(path: Path) -> str:
    return path.suffix.lower() if os.path.isfile(path) else "links to nothing"


def _counted(within: Counter) -> str:
    counts = within.most_common()
    shown = ", ".join(f"{ending or 'no ending'} {n}" for ending, n in counts[:_SHOWN])
    more = ", ..." if len(counts) > _SHOWN else ""
    return f"{_files(within.total())} passed over ({shown}{more})"


def say_passed_over(folder: Path, files: Sequence[tuple[Path, str, str]]) -> None:
    """Print ``passed_over`` on standard error, unless it is empty.

    **Equivariance:** does not apply.
    """
    if line := passed_over(folder, files):
        print(f"{folder}: {line}", file=sys.stderr)


def _files(number: int) -> str:
    return f"{number} file{'s' * (number != 1)}"
