"""Labelled clouds for training and evaluation, from any of the data sets."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pcequi.datasets import FolderClouds, ModelNet, ScanObjectNN, ShapeNetPart, Shapes
from pcequi.datasets.folder_files import check_no_classes, first_of_each
from pcequi.errors import ArgumentError, DataError, check_count
from pcequi.files import expanded, user_cache
from pcequi.graph_store import GraphStore
from pcequi.pose_graph import Level
from pcequi.progress import progress_bar
from pcequi.ranks import ALONE, Ranks
from pcequi.training.protocols import protocol_rotations

__all__ = [
    "DATA",
    "Split",
    "check_data_name",
    "check_labels",
    "check_root",
    "default_cache",
    "load_split",
    "precompute",
    "precompute_shown",
]

# By name on the command line; PB_T50_RS is the usual benchmark.
_SCANOBJECTNN = {
    "scanobjectnn": "PB_T50_RS",
    "scanobjectnn-obj-only": "OBJ_ONLY",
    "scanobjectnn-obj-bg": "OBJ_BG",
    "scanobjectnn-pb-t25": "PB_T25",
    "scanobjectnn-pb-t25-r": "PB_T25_R",
    "scanobjectnn-pb-t50-r": "PB_T50_R",
}
_LOCAL = (*_SCANOBJECTNN, "shapenetpart")

#: Names of the data sets.
DATA = ("shapes", "modelnet10", "modelnet40", *_LOCAL, "folder")


@dataclass
class Split:
    """Labelled clouds.

    Attributes:
        name: of the data set.
        train: the training split, or the test split.
        clouds: each [N, 3], float32.
        labels: index into ``classes`` of each cloud [len(clouds)].
        classes: names.
        names: of the files of the clouds, where they come from files.

    **Equivariance:** clouds lie as they are stored.
    """

    name: str
    train: bool
    clouds: list[Tensor]
    labels: Tensor
    classes: list[str]
    names: list[str] | None = None

    def __len__(self) -> int:
        return len(self.clouds)


def check_labels(labels: Tensor, num_classes: int, name: str = "labels") -> Tensor:
    """Return the labels as a long tensor [n] if each is in [0, num_classes).

    Raises:
        DataError: one is not; the message says which.

    **Equivariance:** does not apply.
    """
    labels = torch.as_tensor(labels).long().flatten()
    bad = (labels < 0) | (labels >= num_classes)
    if bad.any():
        first = int(bad.int().argmax())
        raise DataError(
            f"`{name}` has the label {int(labels[first])} at cloud {first}, outside the "
            f"{num_classes} classes (0 to {num_classes - 1}); check the labels or `num_classes`"
        )
    return labels


def check_data_name(name: str) -> None:
    """Whether there is a data set of this name.

    Raises:
        ArgumentError: there is none.

    **Equivariance:** does not apply.
    """
    if name not in DATA:
        raise ArgumentError(f"`data` (={name!r}) must be one of {', '.join(DATA)}")


def check_root(name: str, root: str | Path | None) -> None:
    """Whether the shapes that are made would not lie among files of the user's own, as where
    ``"folder"`` was meant.

    Args:
        name: of the data set.
        root: its folder.

    Raises:
        ArgumentError: they would.

    **Equivariance:** does not apply.
    """
    if name == "shapes":
        check_no_classes(root, name)


def load_split(
    name: str,
    train: bool,
    *,
    root: str | Path | None = None,
    source: str | Path | None = None,
    num_points: int = 1024,
    limit: int | None = None,
    seed: int = 0,
    test_share: float = 0.2,
    test_list: str | Path | None = None,
) -> Split:
    """Load a split of a data set.

    Args:
        name: one of ``DATA``.
        train: the training split, or the test split.
        root: folder of the data set; by default ``datasets.roots.default_root``.
            With ``"folder"``, the one whose sub-folders are the classes.
        source: ModelNet: a packed file, an archive or a folder of OFF files;
            ScanObjectNN and ShapeNetPart: the unpacked folder, if not in ``root``.
        num_points: points of a cloud.
        limit: at most so many clouds of each class, the first ones.
        seed: of the clouds of ``shapes``; of the split and the samples of ``folder``.
        test_share, test_list: of ``folder``, see ``datasets.FolderClouds``.

    Raises:
        ArgumentError: there is no such data set, or ``limit`` is below 1, or shapes would be made
            in a folder of other files.
        FileError, DataError: the data are missing or damaged.

    **Equivariance:** clouds come in the pose in which they are stored.
    """
    check_data_name(name)
    check_root(name, root)
    check_count("limit", limit, none=True)
    if name != "folder" and test_list is not None:
        raise ArgumentError(
            f"`test_list` (={str(test_list)!r}) does not apply to {name!r}, which has a split of "
            "its own; drop it"
        )
    if name in ("shapes", "folder") and source is not None:
        raise ArgumentError(
            f"`source` (={str(source)!r}) does not apply to {name!r}; drop it, choose modelnet10 "
            "or modelnet40, or give your own files as `data` 'folder' with `root`"
        )
    if name == "folder":
        if root is None:
            raise ArgumentError(
                "`root` (=None) must be the folder whose sub-folders are the classes: give it "
                "(--root FOLDER)"
            )
        options = {"test_share": test_share, "test_list": test_list, "seed": seed, "limit": limit}
        dataset = FolderClouds(root, train, num_points=num_points, **options)
    elif name == "shapes":
        # Its clouds do not depend on how many are asked for.
        sizes = {} if limit is None else {"num_train": min(80, limit), "num_test": min(20, limit)}
        dataset = Shapes(root, train, num_points=num_points, seed=seed, **sizes)
    elif name in _LOCAL:
        if name in _SCANOBJECTNN:
            make = functools.partial(ScanObjectNN, root, _SCANOBJECTNN[name])
        else:
            make = functools.partial(ShapeNetPart, root)
        dataset = make(train=train, num_points=num_points, source=source)
    else:
        dataset = ModelNet(
            root,
            name=name.removeprefix("modelnet"),
            train=train,
            source=source,
            num_points=num_points,
        )
    items = [dataset[place] for place in range(len(dataset))]
    labels = check_labels(torch.cat([item.y for item in items]), dataset.num_classes, "y")
    kept = [row for row, _ in first_of_each(enumerate(labels.tolist()), limit)]
    clouds = [items[row].pos for row in kept]
    names = [items[row].name for row in kept] if "name" in items[0] else None
    return Split(name, train, clouds, labels[kept], list(dataset.classes), names)


def default_cache() -> Path:
    """Where precomputed graphs go: ``PCEQUI_CACHE``, or ``~/.cache/pcequi/graphs``.

    Raises:
        FileError: neither is known.

    **Equivariance:** does not apply.
    """
    chosen = os.environ.get("PCEQUI_CACHE")
    return expanded(chosen) if chosen else user_cache("PCEQUI_CACHE", "--cache") / "graphs"


def precompute(
    split: Split,
    levels: Sequence[Level],
    kind: str,
    *,
    seed: int = 0,
    cache: str | Path | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    ranks: Ranks = ALONE,
) -> GraphStore:
    """The graphs of a split whose clouds are turned by a protocol.

    Args:
        split: labelled clouds.
        levels: of the network.
        kind: ``"z"`` or ``"SO3"``, see ``protocols``.
        seed: of the rotations.
        cache: folder of all stores; by default ``default_cache()``.
        workers: processes; by default one a core.
        progress: called with (clouds done, clouds in all).
        ranks: processes that share the work, see ``GraphStore.build``.

    **Equivariance:** as ``build_pose_graph``, of the turned clouds.
    """
    turns = protocol_rotations(kind, len(split), train=split.train, seed=seed)
    folder = default_cache() if cache is None else expanded(cache)
    return GraphStore.build(
        folder,
        split.clouds,
        levels,
        rotations=turns,
        workers=workers,
        progress=progress,
        ranks=ranks,
    )


def precompute_shown(
    split: Split,
    levels: Sequence[Level],
    kind: str,
    what: str,
    *,
    quiet: bool = False,
    ranks: Ranks = ALONE,
    **options,
) -> GraphStore:
    """``precompute`` with its progress on standard error.

    Args:
        split, levels, kind: see ``precompute``.
        what: the clouds are, in words, such as "test clouds".
        quiet: show nothing.
        ranks: processes that share the work; the first one shows it.
        options: ``seed``, ``cache`` and ``workers`` of ``precompute``.

    **Equivariance:** as ``precompute``.
    """
    title = f"precomputing {len(split)} {what}, {kind}"
    with progress_bar(title, quiet=quiet or not ranks.first) as bar:
        return precompute(split, levels, kind, progress=bar, ranks=ranks, **options)
