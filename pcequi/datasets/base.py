"""What the point-cloud data sets share: keys of processed files, labels."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch_geometric.data import Data, InMemoryDataset

from pcequi.datasets.describe import describe, without_addresses
from pcequi.errors import DataError, FileError
from pcequi.files import expanded, make_folder
from pcequi.progress import track

__all__ = ["Cloud", "CloudDataset", "broken_files", "read_each"]

# Points, their normals where there are any, the label, and perhaps a name and a
# dictionary of arrays with a row a point.
Cloud = tuple[Any, ...]


def broken_files(argument: str, value: object, broken: list[str], total: int) -> str:
    """The words of an error about files of a folder: the first fifty, and how many more.

    **Equivariance:** does not apply.
    """
    shown = "".join(f"\n  {reason}" for reason in broken[:50])
    rest = f"\n  and {len(broken) - 50} more" if len(broken) > 50 else ""
    return (
        f"`{argument}` (={str(value)!r}) has {len(broken)} of {total} files that cannot be used; "
        f"repair or remove them:{shown}{rest}"
    )


def read_each(
    read: Callable[..., Cloud], files: Sequence[tuple], others: Sequence[tuple]
) -> Generator[Cloud, None, list[str]]:
    """Read files one by one; with many, one error should name all that are broken.

    Args:
        read: Makes a cloud of a file; its errors are collected.
        files: Arguments of ``read`` for the files of this split.
        others: Those of the other split, read only once a file is broken.

    Yields:
        The clouds of ``files`` up to the first that is broken.

    Returns:
        What is wrong with each broken file.

    **Equivariance:** does not apply.
    """
    broken = []
    for place, file in enumerate([*files, *others]):
        if place >= len(files) and not broken:
            break
        try:
            cloud = read(*file)
        except (FileError, DataError) as error:
            broken.append(str(error))
            continue
        if not broken:
            yield cloud
    return broken


class CloudDataset(InMemoryDataset):
    """Base of the data sets of labelled clouds.

    A processed file is named after everything that made it: the arguments, the
    source, and the settings of ``pre_transform`` and ``pre_filter``. So other
    arguments never read stale data, and one split is made without the other.

    Args:
        root: Folder of the data set.
        split: ``"train"`` or ``"test"``.
        settings: Everything that decides the content, as JSON can write it.
        classes: Names of the classes; a label is an index into them.
        transform: Called on every access.
        pre_transform: Called once, before saving. It is told apart by its
            attributes, a function by its code, defaults and closure. After a change
            of its class's code, or of what it calls by a global name, pass
            ``force_reload=True``.
        pre_filter: Called once, before ``pre_transform``; keeps a cloud if true.
        force_reload: Whether to process again.

    Raises:
        FileError: The folder cannot be made, or the processed file is damaged.
        DataError: A label is outside the classes, or no cloud is left.

    **Equivariance:** clouds come in the pose in which they are stored.
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        settings: dict[str, Any],
        classes: list[str],
        transform: Callable | None = None,
        pre_transform: Callable | None = None,
        pre_filter: Callable | None = None,
        force_reload: bool = False,
    ) -> None:
        self.split = split
        self.classes = list(classes)
        made_by = {
            **settings,
            "transform": describe(pre_transform),
            "filter": describe(pre_filter),
        }
        digest = hashlib.sha256(json.dumps(made_by, sort_keys=True).encode()).hexdigest()
        self._key = digest[:12]
        self.root = str(expanded(root))
        # Before PyG makes it, which fails without a word about what to do.
        try:
            make_folder(Path(self.processed_dir))
        except FileError as error:
            raise FileError(f"`root` (={str(root)!r}) will not do: {error}") from error
        super().__init__(
            self.root,
            transform,
            pre_transform,
            pre_filter,
            log=False,
            force_reload=force_reload,
        )
        path = self.processed_paths[0]
        try:
            self.load(path)
        except (OSError, RuntimeError, EOFError, ValueError, AssertionError, UnpicklingError) as e:
            # Without torch's own words, which advise to load without safety.
            raise FileError(
                f"the processed file {path!r} is damaged: pass force_reload=True to make it again"
            ) from e

    @property
    def processed_dir(self) -> str:
        """One folder for each way of making the data."""
        return str(Path(self.root) / "processed" / f"{self._stem()}-{self._key}")

    def _stem(self) -> str:
        return type(self).__name__.lower()

    @property
    def raw_file_names(self) -> list[str]:
        """None by default: nothing to download."""
        return []

    @property
    def processed_file_names(self) -> list[str]:
        """The file of this split."""
        return [f"{self.split}.pt"]

    @property
    def num_classes(self) -> int:
        """Number of classes, whether or not each has a cloud in this split."""
        return len(self.classes)

    def _clouds(self) -> tuple[int, Iterable[Cloud]]:
        """How many clouds there are, and the clouds."""
        raise NotImplementedError

    def process(self) -> None:
        """Make the split, filter and transform it, and save it."""
        total, clouds = self._clouds()
        made = []
        for points, normals, label, *more in track(clouds, f"{self._stem()} {self.split}", total):
            if not 0 <= label < len(self.classes):
                raise DataError(
                    f"`y` (={label}) of cloud {len(made)} is outside the {len(self.classes)} "
                    "classes: check the labels of the source"
                )
            data = Data(pos=torch.from_numpy(points.astype(np.float32)), y=torch.tensor([label]))
            if normals is not None:
                data.normal = torch.from_numpy(normals.astype(np.float32))
            for part in more:
                if isinstance(part, str):
                    data.name = part
                else:
                    for key, value in part.items():
                        data[key] = torch.from_numpy(value)
            made.append(data)
        if self.pre_filter is not None:
            made = [data for data in made if self.pre_filter(data)]
        if not made:
            raise DataError(
                f"`pre_filter` (={without_addresses(repr(self.pre_filter))}) leaves no cloud of "
                f"{self._stem()} {self.split}: loosen it"
            )
        if self.pre_transform is not None:
            title = f"transforming {self._stem()} {self.split}"
            made = [self.pre_transform(data) for data in track(made, title, len(made))]
        # Written aside and moved, so that a run that is cut off leaves no half
        # of a file that the next one would read.
        target = Path(self.processed_paths[0])
        # Under a name of its own: another process may be making the same file.
        part = target.with_name(f"{target.name}.{os.getpid()}-{secrets.token_hex(3)}.part")
        try:
            self.save(made, str(part))
            part.replace(target)
        except BaseException as error:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            # torch has errors of its own for a disk that is full.
            if isinstance(error, (OSError, RuntimeError)):
                raise FileError(
                    f"{target} cannot be written ({error}); free some space, check the folder, or "
                    "choose another place with `root`"
                ) from error
            raise
