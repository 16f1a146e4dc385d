"""ScanObjectNN: objects cut out of scans of rooms."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

from pcequi.datasets.archives import brief
from pcequi.datasets.base import Cloud, CloudDataset
from pcequi.datasets.meshes import normalize_cloud
from pcequi.datasets.places import find_place, fingerprint, z_up
from pcequi.datasets.roots import default_root
from pcequi.errors import ArgumentError, DataError, FileError, MissingPackageError, check_count
from pcequi.files import expanded

__all__ = ["SCANOBJECTNN_CLASSES", "SCANOBJECTNN_VARIANTS", "ScanObjectNN"]

#: Names of the classes in the order of their labels.
SCANOBJECTNN_CLASSES = (
    "bag bin box cabinet chair desk display door shelf table bed pillow sink sofa toilet"
).split()

#: Folder (less its ``main_split`` or ``split1`` to ``split4``) and end of the
#: file name of each variant.
SCANOBJECTNN_VARIANTS = {
    "OBJ_ONLY": ("_nobg", "objectdataset.h5"),
    "OBJ_BG": ("", "objectdataset.h5"),
    "PB_T25": ("", "objectdataset_augmented25_norot.h5"),
    "PB_T25_R": ("", "objectdataset_augmented25rot.h5"),
    "PB_T50_R": ("", "objectdataset_augmentedrot.h5"),
    "PB_T50_RS": ("", "objectdataset_augmentedrot_scale75.h5"),
}
# Of what is unpacked: bytes that any file may have, and share of a larger file's own.
_SMALL, _LARGEST_SHARE = 1 << 28, 200
_FOLDS = ("main", "1", "2", "3", "4")
_REMEDY = (
    "agree to the terms at https://hkust-vgd.github.io/scanobjectnn/, fetch h5_files.zip, and "
    "unpack it there"
)


class ScanObjectNN(CloudDataset):
    """Objects from scans of rooms, with holes, clutter and background.

    Uy et al., "Revisiting Point Cloud Classification: A New Benchmark Dataset and
    Classification Model on Real-World Data", ICCV 2019. The authors ask users to
    agree to terms, so nothing is downloaded: unpack their ``h5_files.zip`` into
    ``root`` (or anywhere, and give it as ``source``), so that it holds
    ``main_split/``, ``main_split_nobg/`` and so on.

    ==========  =============================================================
    OBJ_ONLY    the points of the object alone
    OBJ_BG      the object and what is around it in its box
    PB_T25      boxes moved by up to 25 % of their size (five copies each)
    PB_T25_R    and turned about the vertical
    PB_T50_R    boxes moved by up to 50 %, and turned
    PB_T50_RS   and scaled: the hardest, and the usual benchmark
    ==========  =============================================================

    Each ``Data`` has ``pos`` float32 ``[num_points, 3]``, ``y`` long ``[1]``, and
    ``foreground`` bool ``[num_points]``, whether a point is of the object, where
    the file has a mask. Points of a cloud are shuffled, so that the first few are
    a fair sample. Clouds have zero mean and unit radius; the files' y axis, which
    is up, becomes z.

    Args:
        root: Folder of the set; ``default_root() / "ScanObjectNN"`` by default.
        variant: One of the above.
        train: The training split, or the test split.
        transform: Called on every access.
        pre_transform: Called once, before saving.
        pre_filter: Called once; keeps a cloud if true.
        num_points: Points of a cloud, at most the 2,048 of the files.
        fold: ``"main"``, or ``"1"`` to ``"4"``, the authors' further splits.
        source: The unpacked folder, if it is not in ``root``.
        seed: Decides the shuffles.
        force_reload: Whether to process again.

    Raises:
        ArgumentError: An argument is out of range.
        MissingPackageError: h5py is missing.
        FileError: A file is missing or damaged.
        DataError: A file is not of the layout ``data``, ``label``.

    **Equivariance:** as scanned, z up; rotate with a transform.
    """

    def __init__(
        self,
        root: str | Path | None = None,
        variant: str = "PB_T50_RS",
        train: bool = True,
        transform: Callable | None = None,
        pre_transform: Callable | None = None,
        pre_filter: Callable | None = None,
        *,
        num_points: int = 1024,
        fold: str = "main",
        source: str | Path | None = None,
        seed: int = 0,
        force_reload: bool = False,
    ) -> None:
        if variant not in SCANOBJECTNN_VARIANTS:
            names = ", ".join(SCANOBJECTNN_VARIANTS)
            raise ArgumentError(f"`variant` (={variant!r}) must be one of {names}")
        if str(fold) not in _FOLDS:
            raise ArgumentError(f"`fold` (={fold!r}) must be one of {', '.join(_FOLDS)}")
        self.variant, self.fold = variant, str(fold)
        self.num_points = check_count("num_points", num_points)
        self.seed = check_count("seed", seed, least=0)
        root = expanded(default_root() / "ScanObjectNN" if root is None else root)
        ending, name = SCANOBJECTNN_VARIANTS[variant]
        part = ("main_split" if self.fold == "main" else f"split{self.fold}") + ending
        place = find_place(source, root, ("h5_files",), (part,), _REMEDY)
        self.file = place / part / f"{'training' if train else 'test'}_{name}"
        if not self.file.is_file():
            raise FileError(f"{str(self.file)!r} is missing: {_REMEDY}")
        settings = {
            "variant": variant,
            "fold": self.fold,
            "num_points": self.num_points,
            "seed": self.seed,
            "file": fingerprint([self.file], place),
        }
        super().__init__(
            root,
            "train" if train else "test",
            settings,
            SCANOBJECTNN_CLASSES,
            transform,
            pre_transform,
            pre_filter,
            force_reload,
        )

    def _stem(self) -> str:
        return f"scanobjectnn-{self.variant.lower()}"

    def _clouds(self) -> tuple[int, Iterable[Cloud]]:
        data, label, mask = _read(self.file)
        if self.num_points > data.shape[1]:
            raise ArgumentError(
                f"`num_points` (={self.num_points}) must be at most the {data.shape[1]} points of "
                f"each cloud in {self.file.name}"
            )
        return len(data), self._each(data, label, mask)

    def _each(self, data: np.ndarray, label: np.ndarray, mask) -> Iterator[Cloud]:
        for place, cloud in enumerate(data):
            # By the cloud's place: it does not depend on which others are read.
            rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([self.seed, place])))
            order = rng.permutation(len(cloud))[: self.num_points]
            points = normalize_cloud(z_up(cloud[order]), f"cloud {place} of {self.file.name}")
            # -1 is background; other numbers are the object or its parts.
            more = [] if mask is None else [{"foreground": mask[place][order] != -1}]
            yield points, None, int(label[place]), *more


def _read(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Points, labels, and the mask where there is one."""
    try:
        import h5py
    except ImportError as error:
        raise MissingPackageError(
            "ScanObjectNN's files are HDF5, for which h5py is needed: pip install h5py"
        ) from error
    try:
        with h5py.File(path, "r") as file:
            most = max(_SMALL, _LARGEST_SHARE * path.stat().st_size)
            found = {
                key: _array(file, key, most) for key in ("data", "label", "mask") if key in file
            }
    except Exception as error:  # the library fails in its own ways, and so do its filters
        raise FileError(
            f"{str(path)!r} is damaged ({brief(error)}): fetch it again, or {_REMEDY}"
        ) from error
    data, label, mask = (found.get(key) for key in ("data", "label", "mask"))
    fits = data is not None and data.ndim == 3 and data.shape[2] == 3 and data.size > 0
    if not fits or label is None or label.size != len(data):
        shapes = {key: list(value.shape) for key, value in found.items()}
        raise DataError(
            f"{str(path)!r} (={shapes}) must hold `data` [N, points, 3] and `label` [N]: {_REMEDY}"
        )
    if mask is not None and mask.shape != data.shape[:2]:
        raise DataError(
            f"`mask` (={list(mask.shape)}) in {str(path)!r} must be {list(data.shape[:2])}: fetch "
            "the file again"
        )
    label = label.reshape(-1)
    bad = ~((label >= 0) & (label < len(SCANOBJECTNN_CLASSES)))
    if bad.any():
        raise DataError(
            f"`label` (={label[bad][0]}) of cloud {int(bad.argmax())} in {str(path)!r} is outside "
            f"the {len(SCANOBJECTNN_CLASSES)} classes: fetch the file again"
        )
    return data, label, mask


def _array(file, key: str, most: int) -> np.ndarray:
    """Numbers that the file itself holds, and no more of them than a sensible one does."""
    import h5py

    if not isinstance(file.get(key, getlink=True), h5py.HardLink):
        raise ValueError(f"{key!r} refers to another place")
    found = file[key]
    if not isinstance(found, h5py.Dataset) or found.is_virtual or found.external:
        raise ValueError(f"{key!r} holds no array of its own")
    if found.dtype.kind not in "fiu" or found.shape is None:
        raise ValueError(f"{key!r} is of type {found.dtype}, not numbers")
    if found.nbytes > most:
        raise ValueError(f"{key!r} would unpack to {found.nbytes} bytes, more than {most}")
    return found[()]
