"""What the point-cloud data sets share: keys of processed files, labels."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import secrets
import types
from collections.abc import Callable, Iterable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch_geometric.data import Data, InMemoryDataset

from pcequi.datasets.progress import track
from pcequi.errors import ArgumentError, DataError, FileError

__all__ = ["CloudDataset", "Cloud", "check_count"]

# Points, their normals where there are any, the label, and perhaps a name and a
# dictionary of arrays with a row a point.
Cloud = tuple[Any, ...]


def check_count(name: str, value: int, least: int = 1) -> int:
    """Check that an argument is an integer of at least ``least``.

    Args:
        name: What the argument is called.
        value: What was given.
        least: The smallest value that works.

    Returns:
        The value.

    Raises:
        ArgumentError: It is none, or too small.

    **Equivariance:** does not apply.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ArgumentError(f"`{name}` (={value!r}) must be an integer of at least {least}")
    return int(value)


def _describe(thing: Any, depth: int = 0) -> str:
    """A text that tells one transform from another, and is the same next time.

    Attributes rather than ``repr``, which often leaves out what matters: a
    transform with other settings must not read the old one's file.
    """
    if isinstance(thing, functools.partial):
        thing = ["partial", thing.func, thing.args, thing.keywords]
    if isinstance(thing, types.MethodType):
        thing = ["method", thing.__func__, thing.__self__]
    if isinstance(thing, torch.Tensor):
        thing = thing.detach().cpu().numpy()
    if isinstance(thing, np.ndarray):
        digest = hashlib.sha256(np.ascontiguousarray(thing).tobytes()).hexdigest()
        return f"array({thing.shape}, {thing.dtype}, {digest})"
    # Deeper than any sensible setting: objects that refer back to themselves.
    if depth < 8:
        if isinstance(thing, dict):
            pairs = sorted((str(key), _describe(value, depth + 1)) for key, value in thing.items())
            return f"{{{', '.join(f'{key}: {value}' for key, value in pairs)}}}"
        if isinstance(thing, (list, tuple)):
            return f"[{', '.join(_describe(item, depth + 1) for item in thing)}]"
        kind = type(thing)
        if not hasattr(thing, "__qualname__") and getattr(thing, "__dict__", None):
            return f"{kind.__module__}.{kind.__qualname__}{_describe(vars(thing), depth + 1)}"
    # A plain function's repr holds nothing but its name and its address.
    name = getattr(thing, "__qualname__", None)
    text = f"{thing.__module__}.{name}" if name else repr(thing)
    return re.sub(r" at 0x[0-9a-fA-F]+", "", text)


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
            attributes (a plain function by its name): after changing its code,
            pass ``force_reload=True``.
        pre_filter: Called once, before ``pre_transform``; keeps a cloud if true.
        force_reload: Whether to process again.

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
            "transform": _describe(pre_transform),
            "filter": _describe(pre_filter),
        }
        digest = hashlib.sha256(json.dumps(made_by, sort_keys=True).encode()).hexdigest()
        self._key = digest[:12]
        super().__init__(
            str(Path(root).expanduser()),
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
                f"`pre_filter` (={_describe(self.pre_filter)}) leaves no cloud of "
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
        self.save(made, str(part))
        part.replace(target)
