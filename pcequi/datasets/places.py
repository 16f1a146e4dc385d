"""Where a data set that the user fetched lies: tried places, and y-up to z-up."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from pcequi.errors import FileError
from pcequi.files import expanded

__all__ = ["find_place", "fingerprint", "z_up"]


def find_place(
    source: str | Path | None, root: Path, inner: Iterable[str], marks: Iterable[str], remedy: str
) -> Path:
    """The folder that holds a data set.

    Args:
        source: Where the user says it is; None: in ``root`` or ``root/raw``.
        root: Folder of the data set.
        inner: Folders that the archive may have unpacked to.
        marks: Files or folders one of which tells the right folder.
        remedy: What to do if it is nowhere, for the error.

    Raises:
        FileError: It is nowhere.

    **Equivariance:** does not apply.
    """
    bases = [root, root / "raw"] if source is None else [expanded(source)]
    for base in bases:
        for folder in (base, *(base / name for name in inner)):
            if any((folder / mark).exists() for mark in marks):
                return folder
    name, value = ("root", root) if source is None else ("source", source)
    raise FileError(f"`{name}` (={str(value)!r}) holds none of {', '.join(marks)}: {remedy}")


def fingerprint(paths: Iterable[Path], base: Path) -> str:
    """One digest of the paths below ``base``, sizes and times of files, which tells when one was
    changed; none is opened.

    Raises:
        FileError: One is missing, or lies where it may not be looked at.

    **Equivariance:** does not apply.
    """
    digest = hashlib.sha256()
    for path in paths:
        try:
            stat = path.stat()
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise FileError(f"{str(path)!r} is missing ({reason}): put it there again") from error
        name = path.relative_to(base).as_posix()
        digest.update(f"{name} {stat.st_size} {stat.st_mtime_ns}\n".encode(errors="replace"))
    return digest.hexdigest()


def z_up(vectors: np.ndarray) -> np.ndarray:
    """A quarter turn about x that stands a y-up cloud upright in z.

    Args:
        vectors: Points or normals, ``[N, 3]``.

    **Equivariance:** a fixed rotation.
    """
    return np.stack([vectors[:, 0], -vectors[:, 2], vectors[:, 1]], axis=1)
