"""A folder of your own files as a data set."""

from __future__ import annotations

import os
import unicodedata
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from pcequi.datasets.base import Cloud, CloudDataset, broken_files, read_each
from pcequi.datasets.copies import known_copies
from pcequi.datasets.folder_files import SPLITS, first_of_each, split_files
from pcequi.datasets.passed_over import say_passed_over
from pcequi.datasets.readers import read_points
from pcequi.datasets.roots import default_root
from pcequi.errors import DataError, check_count
from pcequi.files import expanded

__all__ = ["FolderClouds"]

# Classes that a warning names.
_SHOWN = 3
# Raised when files are read or split in another way.
_VERSION = 3


class FolderClouds(CloudDataset):
    """Meshes and point clouds of your own: a sub-folder a class.

    Files end as :func:`~pcequi.datasets.readers.read_points` wants them, others
    are passed over, and counted in a line on standard error when the clouds to train on are
    made; folders within that of a class are searched too, but for hidden ones
    (``.name``) and ``__MACOSX``. Which files are tested on is decided by the first that applies:

    - folders ``train`` and ``test``, in small or capital letters, above the classes
      (``train/CLASS/...``) or below each (``CLASS/train/...``). A folder ``val``,
      ``valid``, ``validation``, ``training`` or ``testing`` beside one of them, or
      beside one another, is an error: its files would be passed over;
    - ``test_list``, a text file that names the files to test on, a line each;
    - a share of each class, drawn by ``seed`` from the names of the files: a
      file that is added later moves hardly any other. Files of one folder that differ in
      their ending alone (``bolt.stl``, ``bolt.obj``) fall on one side.

    Meshes are sampled by area; clouds are thinned to ``num_points`` where they
    have more, and kept whole where they have fewer. The sample of a file depends
    on its name and ``seed`` alone. Clouds have zero mean and unit radius.

    Each ``Data`` has ``pos`` float32 ``[N, 3]``, ``y`` long ``[1]``, ``name``, the
    path within the folder, and ``normal`` float32 ``[N, 3]`` where asked for.

    A warning says so where a file of the test split is a copy of one to train on, where two
    classes have the same file, where a class has no file to test on, and where names of classes
    differ in capital letters alone.

    Args:
        folder: Whose sub-folders are the classes; nothing is written into it.
        train: The training split, or the test split.
        transform: Called on every access.
        pre_transform: Called once, before saving.
        pre_filter: Called once; keeps a cloud if true.
        num_points: Points of a mesh's sample; the most to keep of a cloud.
        test_share: Share of each class to test on, in (0, 1).
        test_list: File of the names to test on, relative to ``folder``.
        limit: The most files of a class to read, the first ones, to try out.
        seed: Decides the split and the samples.
        with_normals: Whether to read normals (those of the faces for a mesh),
            for levels that ask for them.
        root: Where the processed clouds go; by default
            ``default_root() / "FolderClouds"``.
        force_reload: Whether to read the files again. They are read again without
            it when one is added, removed or changed.

    Raises:
        ArgumentError: An argument is out of range.
        FileError: ``folder`` or ``test_list`` is missing.
        DataError: Fewer than two classes, a class without files, a split without
            clouds, a folder ``val`` beside ``train``, or files that cannot be used,
            of whichever split; the message names them.

    **Equivariance:** clouds are in the pose of their files.
    """

    def __init__(
        self,
        folder: str | Path,
        train: bool = True,
        transform: Callable | None = None,
        pre_transform: Callable | None = None,
        pre_filter: Callable | None = None,
        *,
        num_points: int = 1024,
        test_share: float = 0.2,
        test_list: str | Path | None = None,
        limit: int | None = None,
        seed: int = 0,
        with_normals: bool = False,
        root: str | Path | None = None,
        force_reload: bool = False,
    ) -> None:
        self.num_points = check_count("num_points", num_points)
        self.seed = check_count("seed", seed, least=0)
        self.folder = expanded(folder)
        self.with_normals = bool(with_normals)
        files = split_files(self.folder, test_share=test_share, test_list=test_list, seed=self.seed)
        self._found = files
        classes = sorted({name for _, name, _ in files})
        split = SPLITS[not train]
        label_of = {name: label for label, name in enumerate(classes)}
        labelled = [(path, label_of[name], part) for path, name, part in files]
        own = [(path, label) for path, label, part in labelled if part == split]
        others = [(path, label) for path, label, part in labelled if part != split]
        self.files, self._others = first_of_each(own, limit), first_of_each(others, limit)
        settings = {
            "version": _VERSION,
            "num_points": self.num_points,
            "seed": self.seed,
            "with_normals": self.with_normals,
            "folder": str(self.folder.resolve()),
            # Everything that changes when a file does.
            "files": [
                [str(path.relative_to(self.folder)), label, stat.st_size, stat.st_mtime_ns]
                for path, label in self.files
                for stat in [path.stat()]
            ],
        }
        root = default_root() / "FolderClouds" if root is None else root
        super().__init__(
            root, split, settings, classes, transform, pre_transform, pre_filter, force_reload
        )
        self._warn_of_copies(again=force_reload)
        self._warn_of_classes()

    def _stem(self) -> str:
        # Beside those of other folders.
        return "".join(c if c.isalnum() else "-" for c in self.folder.resolve().name.lower())[:40]

    def _clouds(self) -> tuple[int, Iterable[Cloud]]:
        if self.split == "train":  # once, where both splits are made
            say_passed_over(self.folder, self._found)
        return len(self.files), self._each()

    def _each(self) -> Iterator[Cloud]:
        broken = yield from read_each(self._read, self.files, self._others)
        if broken:
            total = len(self.files) + len(self._others)
            raise DataError(broken_files("folder", self.folder, broken, total))

    def _warn_of_copies(self, again: bool) -> None:
        note = Path(self.processed_dir) / f"{self.split}-copies.json"
        twins, torn = known_copies(note, self.files, self._others, again=again)
        if self.split == "test":
            self._warn(twins, "both tested and trained on, so accuracy says less about new shapes")
        else:
            self._warn(torn, "the same in two classes, one of which is wrong")

    def _warn_of_classes(self) -> None:
        if self.split == "test":
            self._warn_of_likeness()
        tested = {label for _, label in self.files}
        untested = [name for label, name in enumerate(self.classes) if label not in tested]
        if self.split == "test" and untested:
            more = " and more" if len(untested) > _SHOWN else ""
            warnings.warn(
                f"{len(untested)} of the {len(self.classes)} classes of {str(self.folder)!r} "
                f"({', '.join(map(repr, untested[:_SHOWN]))}{more}) have no file to test on, so "
                "accuracy says nothing about them: add files, or test on others (`test_list`)",
                stacklevel=3,
            )

    def _warn_of_likeness(self) -> None:
        of_name: dict[str, list[str]] = {}
        for name in self.classes:
            of_name.setdefault(unicodedata.normalize("NFC", name).casefold(), []).append(name)
        alike = [names for names in of_name.values() if len(names) > 1]
        if alike:
            more = ", and others," if len(alike) > 1 else ""
            warnings.warn(
                f"the classes {' and '.join(map(ascii, alike[0]))}{more} of {str(self.folder)!r} "
                "differ in capital letters alone, or in how accents are stored: if they are one "
                "class, put its files into one folder",
                stacklevel=4,
            )

    def _warn(self, pairs: list[tuple[Path, Path]], what: str) -> None:
        if pairs:
            first, second = map(self._name, pairs[0])
            warnings.warn(
                f"the content of {len(pairs)} of {len(self.files) + len(self._others)} files of "
                f"{str(self.folder)!r} is {what}: remove one of {first} and {second}"
                f"{', and the like' if len(pairs) > 1 else ''}",
                stacklevel=4,
            )

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def _read(self, path: Path, label: int) -> Cloud:
        name = self._name(path)
        seed = zlib.crc32(os.fsencode(f"{self.seed}:{name}"))
        data = read_points(path, self.num_points, seed, with_normals=self.with_normals)
        normals = data.normal.numpy() if self.with_normals else None
        return data.pos.numpy(), normals, label, name
