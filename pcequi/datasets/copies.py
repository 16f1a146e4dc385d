"""Files that are copies of others, which a split or a label must not hide."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from pcequi.errors import FileError
from pcequi.files import write_bytes

__all__ = ["find_copies", "known_copies"]

File = tuple[Path, int]
Pair = tuple[Path, Path]

# Bytes of a file that are compared before the whole of it is read.
_HEAD = 1 << 14


def find_copies(files: Sequence[File], others: Sequence[File]) -> tuple[list[Pair], list[Pair]]:
    """Files that are the same, byte for byte, as another.

    Only files of one size and one beginning are read whole; what cannot be read is passed over.

    Args:
        files: path and label of each file of a split.
        others: those of the other split.

    Returns:
        Pairs of a file and its twin in the other split, and pairs of one content (of
        both splits) with two labels.

    **Equivariance:** does not apply.
    """
    groups = [[*files, *others]]
    for key in (_size, _digest, functools.partial(_digest, most=None)):
        groups = [alike for group in groups for alike in _alike(group, key)]
    own = {path for path, _ in files}
    twins, torn = [], []
    for group in groups:
        outside = [path for path, _ in group if path not in own]
        twins += [(path, outside[0]) for path, _ in group if outside and path in own]
        first, label = group[0]
        torn += [(first, path) for path, other in group if other != label]
    return twins, torn


def known_copies(
    note: Path, files: Sequence[File], others: Sequence[File], *, again: bool = False
) -> tuple[list[Pair], list[Pair]]:
    """What :func:`find_copies` finds, kept in a note for as long as no file changes.

    Args:
        note: JSON file, which is made where it is missing, damaged or of other files. One that
            cannot be written is done without.
        files: path and label of each file of a split.
        others: those of the other split.
        again: whether to look at the files whatever the note says.

    Returns:
        As ``find_copies``.

    **Equivariance:** does not apply.
    """
    both = [*files, *others]
    state = [_state(path, label) for path, label in both]
    made_of = hashlib.sha256(json.dumps([len(files), state]).encode()).hexdigest()
    if not again:
        # Rows of the list of files instead of names: whatever a note says, it says of these.
        with suppress(OSError, ValueError, LookupError, TypeError, RecursionError):
            kept = json.loads(note.read_bytes())
            if kept["files"] == made_of:
                twins, torn = (
                    [(both[first][0], both[second][0]) for first, second in kept[name]]
                    for name in ("twins", "torn")
                )
                return twins, torn
    twins, torn = find_copies(files, others)
    row = {path: place for place, (path, _) in enumerate(both)}
    kept = {
        name: [(row[first], row[second]) for first, second in pairs]
        for name, pairs in (("twins", twins), ("torn", torn))
    }
    with suppress(FileError):
        write_bytes(note, json.dumps({"files": made_of, **kept}).encode())
    return twins, torn


def _state(path: Path, label: int) -> list:
    """Everything that changes when a file does."""
    name = os.path.abspath(path)
    try:
        stat = path.stat()
    except OSError:  # whoever reads it says what is wrong
        return [name, label]
    return [name, label, stat.st_size, stat.st_mtime_ns]


def _alike(group: list[File], key: Callable[[Path], object]) -> list[list[File]]:
    found: dict[object, list[File]] = {}
    for file in group:
        with suppress(OSError):  # whoever reads it says what is wrong
            found.setdefault(key(file[0]), []).append(file)
    return [alike for alike in found.values() if len(alike) > 1]


def _size(path: Path) -> int:
    return path.stat().st_size


def _digest(path: Path, most: int | None = _HEAD) -> bytes:
    with path.open("rb") as file:
        if most is not None:
            return hashlib.sha256(file.read(most)).digest()
        return hashlib.file_digest(file, "sha256").digest()
