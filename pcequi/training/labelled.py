"""New files of known classes, to measure a trained network on."""

from __future__ import annotations

import os
import zlib
from collections.abc import Sequence
from pathlib import Path

import torch

from pcequi.datasets.base import broken_files, read_each
from pcequi.datasets.folder_files import find_files, first_of_each
from pcequi.datasets.passed_over import say_passed_over
from pcequi.datasets.readers import read_points
from pcequi.errors import ArgumentError, DataError, check_count
from pcequi.files import expanded
from pcequi.progress import track
from pcequi.training.splits import Split

__all__ = ["load_labelled"]

# Classes that an error names.
_SHOWN = 5


def load_labelled(
    folder: str | Path,
    classes: Sequence[str],
    *,
    num_points: int = 1024,
    seed: int = 0,
    limit: int | None = None,
) -> Split:
    """All files of a folder, whose sub-folders are classes that a network knows, as a test split.

    Files are read as ``datasets.FolderClouds`` reads them; whatever its folders ``train`` and
    ``test`` say, all are tested on.

    Args:
        folder: a sub-folder a class; of the classes, some may be absent.
        classes: those of the network, in its order.
        num_points: points of a mesh's sample; the most to keep of a cloud.
        seed: of the samples.
        limit: the most files of a class, the first ones.

    Returns:
        The clouds [N, 3] of zero mean and unit radius, with labels into ``classes`` and the
        paths within ``folder`` as names.

    Raises:
        ArgumentError: ``folder`` has a class that is none of ``classes``, or a number is out of
            range.
        FileError, DataError: ``folder`` is missing or has no files, or files that cannot be
            used; the message names them.

    **Equivariance:** clouds are in the pose of their files.
    """
    check_count("num_points", num_points)
    folder = expanded(folder)
    found = find_files(folder, least=1)
    unknown = sorted({name for _, name, _ in found} - set(classes))
    if unknown:
        raise ArgumentError(
            f"`folder` (={str(folder)!r}) has {_named(unknown)}, which the network does not know: "
            f"its classes are {', '.join(classes)}; rename sub-folders to these, or move the "
            "others elsewhere"
        )
    say_passed_over(folder, found)
    files = [(path, list(classes).index(name)) for path, name, _ in found]
    files = first_of_each(files, limit)
    names = [path.relative_to(folder).as_posix() for path, _ in files]

    def read(path: Path, name: str):
        sample = zlib.crc32(os.fsencode(f"{seed}:{name}"))  # as ``FolderClouds`` draws it
        return read_points(path, num_points, sample).pos

    clouds, broken = [], []

    def each():
        pairs = [(path, name) for (path, _), name in zip(files, names, strict=True)]
        broken.extend((yield from read_each(read, pairs, [])))

    clouds.extend(track(each(), f"reading {len(files)} files", len(files)))
    if broken:
        raise DataError(broken_files("folder", folder, broken, len(files)))
    labels = torch.tensor([label for _, label in files])
    return Split("folder", False, clouds, labels, list(classes), names)


def _named(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    kind = "the class" if len(names) == 1 else "the classes"
    return f"{kind} {', '.join(map(repr, names[:_SHOWN]))}{more}"
