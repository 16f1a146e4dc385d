"""What of a folder is not read, in one line: a slip in an ending should not go unnoticed."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pcequi.datasets.folder_files import all_files

__all__ = ["passed_over", "say_passed_over"]

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
    for path in all_files(folder, dangling=True):
        if path in read or path.name.startswith((".", "~$")) or path.name.lower() in _SYSTEM:
            continue
        parts = path.relative_to(folder).parts
        if any(parts[:depth] in kinds for depth in range(1, len(parts))):
            within[path.suffix.lower() if path.is_file() else "links to nothing"] += 1
        else:
            outside += 1
    told = []
    if within:
        counts = within.most_common()
        shown = ", ".join(f"{ending or 'no ending'} {n}" for ending, n in counts[:_SHOWN])
        more = ", ..." if len(counts) > _SHOWN else ""
        told.append(f"{_files(within.total())} passed over ({shown}{more})")
    if outside:
        told.append(f"{outside if told else _files(outside)} outside the classes")
    return ", ".join(told)


def say_passed_over(folder: Path, files: Sequence[tuple[Path, str, str]]) -> None:
    """Print ``passed_over`` on standard error, unless it is empty.

    **Equivariance:** does not apply.
    """
    if line := passed_over(folder, files):
        print(f"{folder}: {line}", file=sys.stderr)


def _files(number: int) -> str:
    return f"{number} file{'s' * (number != 1)}"
