"""Files of the data sets that are copied by hand, and lists; for ``fuzz_readers``."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from pcequi.datasets import ScanObjectNN, ShapeNetPart
from pcequi.datasets.folder_files import split_files
from pcequi.datasets.shapenet_part import SHAPENET_PART_CLASSES, SHAPENET_PARTS

#: What an error may call the file of a target.
SET_NAMES = {
    "scanobjectnn.h5": ("test_objectdataset",),
    "part.txt": ("one.txt",),
    "part-list.json": ("file_list.json", "train_test_split", "of_list", ".txt"),
    "part-classes.txt": ("synsetoffset2category.txt",),
    "test-list.txt": ("test.txt", "own-folder"),
}


def _hdf5(**changes) -> bytes:
    rng = np.random.default_rng(0)
    arrays = {
        "data": rng.normal(size=(3, 8, 3)).astype(np.float32),
        "label": np.arange(3),
        "mask": np.where(rng.random((3, 8)) < 0.3, -1, 4).astype(np.int32),
    }
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        for key, value in (arrays | changes).items():
            if value is not None:
                file[key] = value
    return content.getvalue()


def _hdf5_packed() -> bytes:
    content = io.BytesIO()
    with h5py.File(content, "w", libver="latest") as file:
        file.create_dataset("data", data=np.eye(3)[None].repeat(2, 0), compression="gzip")
        file.create_dataset("label", data=np.zeros((2, 1), np.uint8), chunks=(1, 1))
        # Much is announced and nothing is held.
        file.create_dataset("mask", (2, 3), "i2", chunks=(1, 1))
    return content.getvalue()


def _part_text() -> str:
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.normal(size=(6, 6)), rng.integers(0, 4, (6, 1))], 1)
    return "\n".join(" ".join(f"{value:.5g}" for value in row) for row in rows) + "\n"


def _make_shapenet(root: Path) -> None:
    """A folder of the true layout, with a shape of one class."""
    folders = {name: f"0{n:07d}" for n, name in enumerate(SHAPENET_PART_CLASSES)}
    place = root / folders["Airplane"]
    place.mkdir(parents=True)
    assert SHAPENET_PARTS["Airplane"] == [0, 1, 2, 3]
    (place / "one.txt").write_text(_part_text())
    (root / "synsetoffset2category.txt").write_text(
        "".join(f"{name}\t{number}\n" for name, number in folders.items())
    )
    (root / "train_test_split").mkdir()
    names = json.dumps([f"shape_data/{folders['Airplane']}/one"])
    (root / "train_test_split" / "shuffled_test_file_list.json").write_text(names)


def set_targets(folder: Path, into: Callable) -> dict[str, tuple[list[bytes], Callable]]:
    """For each kind of file valid examples, and what reads one given its bytes."""
    targets: dict[str, tuple[list[bytes], Callable]] = {}
    made = folder / "made"

    def scans(path: Path) -> None:
        shutil.rmtree(made, ignore_errors=True)
        ScanObjectNN(made, "OBJ_BG", False, source=path.parents[1], num_points=8)

    examples = [_hdf5(), _hdf5(mask=None), _hdf5(label=np.zeros((3, 1))), _hdf5_packed()]
    name = "scans/main_split/test_objectdataset.h5"
    targets["scanobjectnn.h5"] = (examples, into(name, scans))

    def parts(path: Path) -> None:
        shutil.rmtree(made, ignore_errors=True)
        root = next(place for place in path.parents if place.name.startswith("parts-"))
        ShapeNetPart(made, False, source=root, num_points=5)

    files = {
        "part.txt": "00000000/one.txt",
        "part-list.json": "train_test_split/shuffled_test_file_list.json",
        "part-classes.txt": "synsetoffset2category.txt",
    }
    for kind, place in files.items():
        root = folder / f"parts-{kind.rpartition('.')[0]}"
        _make_shapenet(root)
        content = (root / place).read_bytes()
        targets[kind] = ([content], into(f"{root.name}/{place}", parts))
    own = folder / "own-folder"
    for name in ("a/1.off", "a/2.off", "b/1.off", "b/2.off"):
        (own / name).parent.mkdir(parents=True, exist_ok=True)
        (own / name).touch()
    targets["test-list.txt"] = (
        [b"a/1.off\nb/1.off\n", b".\\a\\2.off\r\nb/2.off"],
        into("test.txt", lambda path: split_files(own, test_list=path)),
    )
    return targets
