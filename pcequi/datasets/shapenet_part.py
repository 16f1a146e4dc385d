"""ShapeNetPart: 16 classes of CAD shapes whose points know their part."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from pcequi.datasets.archives import brief
from pcequi.datasets.base import Cloud, CloudDataset
from pcequi.datasets.meshes import normalize_cloud
from pcequi.datasets.places import find_place, fingerprint, z_up
from pcequi.datasets.roots import default_root
from pcequi.errors import DataError, FileError, check_count
from pcequi.files import expanded

__all__ = ["SHAPENET_PART_CLASSES", "SHAPENET_PARTS", "ShapeNetPart"]

#: Names of the classes in the order of their labels.
SHAPENET_PART_CLASSES = (
    "Airplane Bag Cap Car Chair Earphone Guitar Knife Lamp Laptop Motorbike Mug Pistol Rocket "
    "Skateboard Table"
).split()
_PARTS_OF_EACH = (4, 2, 2, 4, 4, 3, 3, 2, 4, 2, 6, 2, 3, 3, 3, 3)

#: Labels of the parts of each class, of 50 in all.
SHAPENET_PARTS = {
    name: list(range(sum(_PARTS_OF_EACH[:place]), sum(_PARTS_OF_EACH[: place + 1])))
    for place, name in enumerate(SHAPENET_PART_CLASSES)
}
_FOLDER = "shapenetcore_partanno_segmentation_benchmark_v0_normal"
_CATEGORIES = "synsetoffset2category.txt"
_REMEDY = (
    "fetch https://shapenet.cs.stanford.edu/media/"
    f"{_FOLDER}.zip under ShapeNet's terms, and unpack it there"
)


class ShapeNetPart(CloudDataset):
    """Clouds of CAD shapes in 16 classes; every point has a part, of 50 in all.

    Yi et al., "A Scalable Active Framework for Region Annotation in 3D Shape
    Collections", SIGGRAPH Asia 2016, in the form with normals that goes with
    PointNet++. ShapeNet asks users to agree to terms, so nothing is downloaded:
    unpack the archive into ``root`` (or anywhere, and give it as ``source``), so
    that it holds ``synsetoffset2category.txt``, ``train_test_split/`` and a
    folder a class. Files that are changed are noticed, and read again.

    Each ``Data`` has ``pos`` and ``normal`` float32 ``[N, 3]``, ``y`` long ``[1]``
    (the class), ``part`` long ``[N]`` and ``name``. N is ``num_points``, or fewer
    where a shape has fewer. Clouds have zero mean and unit radius; the files'
    y axis, which is up, becomes z.

    Args:
        root: Folder of the set; ``default_root() / "ShapeNetPart"`` by default.
        train: The training split, or the test split.
        transform: Called on every access.
        pre_transform: Called once, before saving.
        pre_filter: Called once; keeps a cloud if true.
        num_points: The most points to keep of a cloud.
        validation: Whether the training split includes that for validation, as
            published figures do.
        source: The unpacked folder, if it is not in ``root``.
        seed: Decides which points are kept.
        force_reload: Whether to process again.

    Raises:
        ArgumentError: An argument is out of range.
        FileError: A file is missing or damaged.
        DataError: Classes or parts are not those of the set.

    **Equivariance:** canonical pose, z up; rotate with a transform.
    """

    def __init__(
        self,
        root: str | Path | None = None,
        train: bool = True,
        transform: Callable | None = None,
        pre_transform: Callable | None = None,
        pre_filter: Callable | None = None,
        *,
        num_points: int = 1024,
        validation: bool = True,
        source: str | Path | None = None,
        seed: int = 0,
        force_reload: bool = False,
    ) -> None:
        self.num_points = check_count("num_points", num_points)
        self.seed = check_count("seed", seed, least=0)
        root = expanded(default_root() / "ShapeNetPart" if root is None else root)
        self.source = find_place(source, root, (_FOLDER,), (_CATEGORIES,), _REMEDY)
        splits = (("train", "val") if validation else ("train",)) if train else ("test",)
        self.lists = [
            self.source / "train_test_split" / f"shuffled_{split}_file_list.json"
            for split in splits
        ]
        for path in self.lists:
            if not path.is_file():
                raise FileError(f"{str(path)!r} is missing: {_REMEDY}")
        self._shapes = self._list_shapes()
        files = [self.source / _CATEGORIES, *self.lists]
        files += [self._file(folder, name) for folder, name, _ in self._shapes]
        settings = {
            "num_points": self.num_points,
            "seed": self.seed,
            "source": str(self.source.resolve()),
            "files": fingerprint(files, self.source),
        }
        super().__init__(
            root,
            "train" if train else "test",
            settings,
            SHAPENET_PART_CLASSES,
            transform,
            pre_transform,
            pre_filter,
            force_reload,
        )

    def _clouds(self) -> tuple[int, Iterable[Cloud]]:
        return len(self._shapes), self._each()

    def _file(self, folder: str, name: str) -> Path:
        path = self.source / folder / f"{name}.txt"
        if not path.is_file():
            raise FileError(f"{str(path)!r} is missing: {_REMEDY}")
        return path

    def _list_shapes(self) -> list[tuple[str, str, int]]:
        """Folder, name and label of every shape of the lists."""
        label_of = self._labels()
        names = []
        for path in self.lists:
            try:
                listed = json.loads(path.read_text())
                if not isinstance(listed, list) or not listed:
                    raise ValueError("it is no list of shapes, or an empty one")
                listed = [PurePosixPath(str(name)) for name in listed]
            except (OSError, ValueError, TypeError, RecursionError) as error:
                raise _damaged(path, error) from error
            names += [(name.parent.name, name.name) for name in listed]
        for folder, _ in names:
            if folder not in label_of:
                raise DataError(
                    f"the class {folder!r} of {self.lists[0].parent.name} is not in {_CATEGORIES} "
                    f"of {str(self.source)!r}: {_REMEDY}"
                )
        return [(folder, name, label_of[folder]) for folder, name in names]

    def _labels(self) -> dict[str, int]:
        """Label of each class's folder, from the file that names them."""
        path = self.source / _CATEGORIES
        try:
            text = path.read_text()
        except (OSError, ValueError) as error:
            raise _damaged(path, error) from error
        pairs = [line.split() for line in text.splitlines() if line.strip()]
        found = {pair[1]: pair[0] for pair in pairs if len(pair) == 2}
        wrong = sorted(set(found.values()) ^ set(SHAPENET_PART_CLASSES))
        if wrong or len(found) != len(pairs):
            count = len(SHAPENET_PART_CLASSES)
            raise DataError(
                f"{_CATEGORIES} of {str(self.source)!r} must name the {count} classes "
                f"of ShapeNetPart, a line each with their folder ({', '.join(wrong)}): {_REMEDY}"
            )
        return {folder: SHAPENET_PART_CLASSES.index(name) for folder, name in found.items()}

    def _each(self) -> Iterator[Cloud]:
        for folder, name, label in self._shapes:
            rows = _read(self._file(folder, name))
            allowed = SHAPENET_PARTS[self.classes[label]]
            part = rows[:, 6].astype(np.int64)
            if not np.isin(part, allowed).all():
                raise DataError(
                    f"`part` (={int(part[~np.isin(part, allowed)][0])}) in {folder}/{name}.txt is "
                    f"none of {self.classes[label]} ({allowed[0]} to {allowed[-1]}): {_REMEDY}"
                )
            # By the file's name: it does not depend on which others there are.
            entropy = [self.seed, zlib.crc32(name.encode())]
            rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))
            order = rng.permutation(len(rows))[: self.num_points]
            points = normalize_cloud(z_up(rows[order, :3]), f"{folder}/{name}.txt")
            normals = z_up(rows[order, 3:6])
            length = np.linalg.norm(normals, axis=1, keepdims=True)
            normals = np.divide(normals, length, out=np.zeros_like(normals), where=length > 0)
            yield points, normals, label, f"{folder}/{name}", {"part": part[order]}


def _damaged(path: Path, error: Exception) -> FileError:
    return FileError(f"{str(path)!r} is damaged ({brief(error)}): {_REMEDY}")


def _read(path: Path) -> np.ndarray:
    """Rows of x y z nx ny nz part, float64 [N, 7]."""
    if path.stat().st_size == 0:
        raise FileError(f"{str(path)!r} is empty: {_REMEDY}")
    try:
        rows = np.loadtxt(path, dtype=np.float64, ndmin=2)
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error
    if rows.shape[1] != 7:
        raise FileError(
            f"{str(path)!r} has {rows.shape[1]} numbers a line and must have x y z nx ny nz part: "
            f"{_REMEDY}"
        )
    return rows
