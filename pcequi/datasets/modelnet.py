"""ModelNet10 and ModelNet40 as point clouds."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from pcequi.datasets.archives import brief, verify_archive
from pcequi.datasets.base import Cloud, CloudDataset, broken_files, read_each
from pcequi.datasets.downloads import download
from pcequi.datasets.meshes import normalize_cloud, parse_off, read_off, sample_mesh
from pcequi.datasets.packed import read_packed
from pcequi.datasets.places import fingerprint
from pcequi.datasets.roots import default_root
from pcequi.errors import ArgumentError, DataError, FileError, check_count
from pcequi.files import expanded, sha256_of

__all__ = ["MODELNET_CLASSES", "ModelNet"]

_FORTY = (
    "airplane bathtub bed bench bookshelf bottle bowl car chair cone cup curtain desk door dresser "
    "flower_pot glass_box guitar keyboard lamp laptop mantel monitor night_stand person piano "
    "plant radio range_hood sink sofa stairs stool table tent toilet tv_stand vase wardrobe xbox"
)
_TEN = "bathtub bed chair desk dresser monitor night_stand sofa table toilet"

#: Names of the classes of each set, in the order of their labels.
MODELNET_CLASSES = {"10": _TEN.split(), "40": _FORTY.split()}

# Address, SHA-256 (None: not published by the authors, so trusted on first use),
# and the number of shapes to train and to test on.
_ARCHIVES = {
    "10": (
        "http://3dvision.princeton.edu/projects/2014/3DShapeNets/ModelNet10.zip",
        None,
        {"train": 3991, "test": 908},
    ),
    "40": ("http://modelnet.cs.princeton.edu/ModelNet40.zip", None, {"train": 9843, "test": 2468}),
}
_PACKED_NAMES = ("modelnet40_1024.npz.xz", "modelnet40_1024.npz")

# Bytes of one OFF file, unpacked. The largest of ModelNet40 stays well below;
# a member that announces more is a bomb or a mistake.
_LARGEST = 1 << 29


class ModelNet(CloudDataset):
    """ModelNet10 or ModelNet40, sampled at the surface.

    3D CAD models in the official split (Wu et al., "3D ShapeNets: A Deep
    Representation for Volumetric Shapes", CVPR 2015). Clouds have zero mean and
    unit radius. For research only: the models belong to their authors.

    Where the shapes come from is decided by ``source``:

    - a folder of ``CLASS/train/*.off`` and ``CLASS/test/*.off``. Files that are
      added, removed or changed are noticed and read;
    - an official archive ``ModelNet10.zip`` or ``ModelNet40.zip``, whose members
      are read in place: nothing is unpacked to disk, so no member can write
      outside. Classes and counts must be those of the set;
    - a packed file ``.npz`` or ``.npz.xz`` (see ``pcequi.datasets.packed``);
    - a folder in which one of these lies, called ``ModelNet40/`` (or 10),
      ``ModelNet40.zip`` or ``modelnet40_1024.npz.xz``;
    - None: whichever lies so in ``root/raw`` or in ``root``; failing that, the
      archive is downloaded to ``root/raw``.
      The authors publish no checksum, so an archive is trusted on first use: all
      its members are tested, its SHA-256 is recorded beside it, and later uses
      must match the record.

    ModelNet10 can be taken from the shapes of ModelNet40: its classes are picked
    by name. (In the official ModelNet10 shapes are also aligned by hand.)

    Meshes are sampled by area; the points of a packed cloud, stored along a
    space-filling curve, are shuffled, so that the first few are a fair sample.

    Each ``Data`` has ``pos`` float32 ``[num_points, 3]`` and ``y`` long ``[1]``.

    Args:
        root: Folder of the set; ``default_root() / "ModelNet"`` by default.
        name: ``"10"`` or ``"40"``.
        train: The training split, or the test split.
        transform: Called on every access.
        pre_transform: Called once, before saving.
        pre_filter: Called once; keeps a cloud if true.
        num_points: Points of a cloud; a packed file limits it to what it holds.
        source: Where the shapes come from.
        seed: Decides samples and shuffles.
        force_reload: Whether to process again.

    Raises:
        ArgumentError: An argument is out of range, or ``source`` is of no known
            kind.
        FileError: A file is missing or damaged, or cannot be downloaded; of a folder
            the message names all that are damaged.
        DataError: Classes, counts or labels are not those of the set.

    **Equivariance:** canonical pose, z up; rotate with a transform.
    """

    def __init__(
        self,
        root: str | Path | None = None,
        name: str = "40",
        train: bool = True,
        transform: Callable | None = None,
        pre_transform: Callable | None = None,
        pre_filter: Callable | None = None,
        *,
        num_points: int = 1024,
        source: str | Path | None = None,
        seed: int = 0,
        force_reload: bool = False,
    ) -> None:
        if name not in MODELNET_CLASSES:
            raise ArgumentError(f"`name` (={name!r}) must be '10' or '40'")
        self.name = name
        self.num_points = check_count("num_points", num_points)
        self.seed = check_count("seed", seed, least=0)
        root = expanded(default_root() / "ModelNet" if root is None else root)
        self.source = _find(root, name) if source is None else _check(source, name)
        split = "train" if train else "test"
        self._files = self._list_files(split) if self.source.is_dir() else []
        settings = {
            "name": name,
            "num_points": self.num_points,
            "seed": self.seed,
            "source": _identity(self.source, self._files),
        }
        super().__init__(
            root,
            split,
            settings,
            MODELNET_CLASSES[name],
            transform,
            pre_transform,
            pre_filter,
            force_reload,
        )

    def _list_files(self, split: str) -> list[tuple[Path, int]]:
        files = _off_files(self.source, self.name, split)
        found = {label for _, label in files}
        for label, name in enumerate(MODELNET_CLASSES[self.name]):
            if label not in found:
                raise DataError(
                    f"`source` (={str(self.source)!r}) has no file {name}/{split}/*.off: it must "
                    f"hold all {len(MODELNET_CLASSES[self.name])} classes of "
                    f"ModelNet{self.name}, or a folder ModelNet{self.name} that does"
                )
        return files

    def _stem(self) -> str:
        return f"modelnet{self.name}"

    def _clouds(self) -> tuple[int, Iterable[Cloud]]:
        if self.source.is_dir():
            return len(self._files), self._each()
        if self.source.suffix == ".zip":
            return self._from_archive()
        return self._from_packed()

    def _rng(self, key: str) -> np.random.Generator:
        # By the file's name, so that a sample does not depend on which other
        # files are there.
        entropy = [self.seed, zlib.crc32(key.encode())]
        return np.random.Generator(np.random.PCG64(np.random.SeedSequence(entropy)))

    def _sample(self, mesh: tuple[np.ndarray, np.ndarray], key: str, label: int) -> Cloud:
        points, _ = sample_mesh(*mesh, self.num_points, self._rng(key))
        return normalize_cloud(points, name=key), None, label

    def _each(self) -> Iterator[Cloud]:
        other = "test" if self.split == "train" else "train"
        others = _off_files(self.source, self.name, other)
        broken = yield from read_each(self._read, self._files, others)
        if broken:
            total = len(self._files) + len(others)
            raise FileError(broken_files("source", self.source, broken, total))

    def _read(self, path: Path, label: int) -> Cloud:
        return self._sample(read_off(path), path.name, label)

    def _from_archive(self) -> tuple[int, Iterator[Cloud]]:
        _, checksum, counts = _ARCHIVES[self.name]
        # A ModelNet40 archive may serve for ModelNet10: then neither applies.
        official = self.source.name == f"ModelNet{self.name}.zip"
        verify_archive(self.source, checksum if official else None)
        # Anchored on both sides: a member such as ../x.off is no match.
        pattern = re.compile(rf"[^/\\.]+/([^/\\.]+)/{self.split}/[^/\\]+\.off", re.IGNORECASE)
        with zipfile.ZipFile(self.source) as archive:
            members = []
            for info in sorted(archive.infolist(), key=lambda info: info.filename):
                match = pattern.fullmatch(info.filename)
                # __MACOSX holds copies of the names with other content.
                if match is None or info.filename.startswith("__") or match[1] not in self.classes:
                    continue
                members.append((info, self.classes.index(match[1])))
        missing = set(range(len(self.classes))) - {label for _, label in members}
        if missing:
            names = ", ".join(self.classes[label] for label in sorted(missing))
            raise DataError(
                f"`source` (={str(self.source)!r}) has no {self.split} shapes of {names}: "
                f"it is not an archive of ModelNet{self.name}"
            )
        if official and len(members) != counts[self.split]:
            raise DataError(
                f"`source` (={str(self.source)!r}) has {len(members)} {self.split} shapes, and "
                f"ModelNet{self.name} has {counts[self.split]}: fetch it again"
            )
        return len(members), self._read_members(members)

    def _read_members(self, members: list[tuple[zipfile.ZipInfo, int]]) -> Iterator[Cloud]:
        with zipfile.ZipFile(self.source) as archive:
            for info, label in members:
                if info.file_size > _LARGEST:
                    raise FileError(
                        f"`source` (={str(self.source)!r}) has a member {info.filename!r} of "
                        f"{info.file_size} bytes, more than {_LARGEST}: fetch it again"
                    )
                try:
                    content = archive.read(info)
                except Exception as error:  # zipfile and its decompressors fail in many ways
                    raise FileError(
                        f"`source` (={str(self.source)!r}) is damaged at member "
                        f"{info.filename!r} ({brief(error)}): fetch it again"
                    ) from error
                mesh = parse_off(content, name=info.filename)
                yield self._sample(mesh, info.filename.rsplit("/", 1)[1], label)

    def _from_packed(self) -> tuple[int, Iterator[Cloud]]:
        grid, labels, names = read_packed(self.source, self.split)
        missing = [name for name in self.classes if name not in names]
        if missing:
            raise DataError(
                f"`source` (={str(self.source)!r}) lacks the classes {', '.join(missing)} of "
                f"ModelNet{self.name}"
            )
        if self.num_points > grid.shape[1]:
            raise ArgumentError(
                f"`num_points` (={self.num_points}) must be at most the {grid.shape[1]} points "
                "that the packed file holds of each cloud; sample OFF files for more"
            )
        own = {names.index(name): label for label, name in enumerate(self.classes)}
        kept = [place for place, label in enumerate(labels.tolist()) if label in own]
        clouds = (self._unpack(grid[place], place, own[int(labels[place])]) for place in kept)
        return len(kept), clouds

    def _unpack(self, cloud: np.ndarray, place: int, label: int) -> Cloud:
        order = self._rng(f"{self.split}/{place}").permutation(len(cloud))[: self.num_points]
        points = cloud[order] / 4095 * 2 - 1
        return normalize_cloud(points), None, label


def _check(source: str | Path, name: str) -> Path:
    path = expanded(source)
    if not path.exists():
        raise FileError(f"`source` (={str(source)!r}) does not exist: check the path")
    if path.is_dir():
        classes = any((path / kind).is_dir() for kind in MODELNET_CLASSES[name])
        return path if classes else _inside(path, name) or path
    if path.name.lower().endswith((".zip", ".npz", ".npz.xz")):
        return path
    raise ArgumentError(
        f"`source` (={str(source)!r}) must be a folder of OFF files, a .zip archive, or a packed "
        ".npz or .npz.xz file"
    )


def _inside(folder: Path, name: str) -> Path | None:
    """The unpacked set, the archive or the packed file that lies in a folder, if one does."""
    names = (f"ModelNet{name}", f"ModelNet{name}.zip", *_PACKED_NAMES)
    return next((folder / each for each in names if (folder / each).exists()), None)


def _find(root: Path, name: str) -> Path:
    """What lies in ``root/raw`` or ``root``, or a fresh download."""
    found = _inside(root / "raw", name) or _inside(root, name)
    if found:
        return found
    url, checksum, _ = _ARCHIVES[name]
    path = root / "raw" / f"ModelNet{name}.zip"
    download(url, path, checksum=checksum)
    try:
        verify_archive(path, checksum)
    except FileError:
        path.unlink()  # or the next run would find it, and stop there
        raise
    return path


def _off_files(source: Path, name: str, split: str) -> list[tuple[Path, int]]:
    """Path and label of every OFF file of a split; classes without one add nothing."""
    return [
        (path, label)
        for label, kind in enumerate(MODELNET_CLASSES[name])
        for path in sorted((source / kind / split).glob("*.[oO][fF][fF]"))
    ]


def _identity(source: Path, files: list[tuple[Path, int]]) -> str:
    """What tells one source from another in the name of a processed file."""
    if source.is_dir():
        digest = fingerprint((path for path, _ in files), source)
        return f"{source.resolve()} {digest}"
    if source.suffix == ".zip":
        # 2 GB take seconds to hash: size and time do until the file is read.
        status = source.stat()
        return f"{source.name} {status.st_size} {status.st_mtime_ns}"
    return sha256_of(source)
