"""ScanObjectNN from files of the true layout; the files are made here."""

import json
import sys

import numpy as np
import pytest
import torch

from pcequi.cli import main
from pcequi.datasets import ScanObjectNN
from pcequi.datasets.scanobjectnn import SCANOBJECTNN_CLASSES, SCANOBJECTNN_VARIANTS
from pcequi.errors import ArgumentError, DataError, FileError, MissingPackageError
from pcequi.training.splits import load_split

h5py = pytest.importorskip("h5py")

POINTS = 64


def write(path, seed=0, each=2, **changes):
    """A file as the authors write them, but with few and small clouds."""
    rng = np.random.default_rng(seed)
    label = np.repeat(np.arange(15), each)
    data = rng.normal(size=(len(label), POINTS, 3)) * [0.5, 1.5, 0.5] + [0, 3, 0]
    arrays = {
        "data": data.astype(np.float32),
        "label": label.astype(np.int64),
        "mask": np.where(rng.random((len(label), POINTS)) < 0.3, -1, 4).astype(np.int32),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for key, value in (arrays | changes).items():
            if value is not None:
                file[key] = value
    return arrays


@pytest.fixture
def root(tmp_path):
    """``h5_files.zip`` as it unpacks, all variants."""
    for number, (ending, name) in enumerate(SCANOBJECTNN_VARIANTS.values()):
        folder = tmp_path / "h5_files" / f"main_split{ending}"
        write(folder / f"training_{name}", seed=2 * number)
        write(folder / f"test_{name}", seed=2 * number + 1, each=1)
    return tmp_path


def test_a_cloud_is_the_one_in_the_file(root):
    path = root / "h5_files" / "main_split" / "training_objectdataset_augmentedrot_scale75.h5"
    arrays = write(path, seed=7)
    data = ScanObjectNN(root, num_points=POINTS)
    assert len(data) == 30 and data.num_classes == 15 and data.classes == SCANOBJECTNN_CLASSES
    assert torch.cat([item.y for item in data]).tolist() == arrays["label"].tolist()
    item, raw = data[3], arrays["data"][3].astype(np.float64)
    assert item.pos.shape == (POINTS, 3) and item.foreground.dtype == torch.bool
    raw = raw[:, [0, 2, 1]] * [1, -1, 1]  # y was up, z is
    raw -= raw.mean(0)
    raw /= np.linalg.norm(raw, axis=1).max()
    distance = torch.cdist(item.pos.double(), torch.from_numpy(raw))
    assert distance.amin(1).max() < 1e-5, "the same points, shuffled"
    order = distance.argmin(1).numpy()
    assert not np.array_equal(order, np.arange(POINTS))
    assert item.foreground.tolist() == (arrays["mask"][3][order] != -1).tolist()
    assert item.pos[:, 2].std() > 2 * item.pos[:, 0].std(), "long axis upright"


def test_every_variant_reads_its_own_file(root):
    first = {}
    for variant in SCANOBJECTNN_VARIANTS:
        train = ScanObjectNN(root, variant, num_points=16)
        test = ScanObjectNN(root, variant, train=False, num_points=16)
        assert (len(train), len(test)) == (30, 15) and train[0].pos.shape == (16, 3)
        first[variant] = train[0].pos.flatten().tolist(), test[0].pos.flatten().tolist()
    every = [tuple(values) for pair in first.values() for values in pair]
    assert len(set(every)) == 12


def test_further_splits_and_another_source(root, tmp_path):
    write(root / "h5_files" / "split3" / "training_objectdataset.h5", each=3)
    assert len(ScanObjectNN(root, "OBJ_BG", fold="3", num_points=8)) == 45
    elsewhere = ScanObjectNN(tmp_path / "own", source=root / "h5_files", num_points=8)
    assert torch.equal(elsewhere[0].pos, ScanObjectNN(root, num_points=8)[0].pos)


def test_fewer_points_and_seeds(root):
    few, many = (ScanObjectNN(root, num_points=n) for n in (8, 32))
    other = ScanObjectNN(root, num_points=8, seed=1)
    assert few[0].pos.shape == (8, 3) and many[0].pos.shape == (32, 3)
    assert not torch.equal(few[0].pos, other[0].pos)


def test_a_file_without_a_mask(root):
    write(root / "h5_files/main_split_nobg/training_objectdataset.h5", mask=None)
    assert "foreground" not in ScanObjectNN(root, "OBJ_ONLY", num_points=8)[0]


def test_it_is_a_split_to_train_on(root):
    split = load_split("scanobjectnn", True, root=root, num_points=16, limit=1)
    assert len(split) == 15 and split.classes == SCANOBJECTNN_CLASSES
    other = load_split("scanobjectnn-obj-only", False, root=root, num_points=16)
    direct = ScanObjectNN(root, "OBJ_ONLY", train=False, num_points=16)
    assert torch.equal(other.clouds[2], direct[2].pos)


def test_the_command_trains_on_it(root, capsys):
    arguments = ["train", "--data", "scanobjectnn", "--root", str(root), "--preset", "small"]
    arguments += ["--num-points", "24", "--epochs", "1", "--workers", "1", "--limit", "1", "--json"]
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--run", str(root / "run"), "--cache", str(root / "cache")])
    assert end.value.code == 0
    report = json.loads(capsys.readouterr().out)
    assert report["data"] == "scanobjectnn" and report["classes"] == 15
    assert report["shapes"] == {"train": 15, "held_out": 0, "test": 15}


def test_what_is_missing_or_damaged_is_named(root, tmp_path):
    with pytest.raises(FileError, match=r"`root` .*holds none of main_split: agree to the terms"):
        ScanObjectNN(tmp_path / "empty")
    with pytest.raises(FileError, match=r"`source` .*holds none of split1"):
        ScanObjectNN(root, fold="1", source=root / "h5_files")
    path = root / "h5_files" / "main_split" / "training_objectdataset.h5"
    write(path, data=np.zeros((30, POINTS, 2)))
    with pytest.raises(DataError, match=r"must hold `data` \[N, points, 3\] and `label`"):
        ScanObjectNN(root, "OBJ_BG", num_points=8)
    write(path, label=None)
    with pytest.raises(DataError, match="must hold `data`"):
        ScanObjectNN(root, "OBJ_BG", num_points=8)
    write(path, mask=np.zeros((30, 3)))
    with pytest.raises(DataError, match=r"`mask` \(=\[30, 3\]\)"):
        ScanObjectNN(root, "OBJ_BG", num_points=8)
    write(path, label=np.full(30, 15))
    with pytest.raises(DataError, match=r"`label` \(=15\) of cloud 0 in .*outside the 15 classes"):
        ScanObjectNN(root, "OBJ_BG", num_points=8)
    path.write_bytes(b"no HDF5")
    with pytest.raises(FileError, match="is damaged"):
        ScanObjectNN(root, "OBJ_BG", num_points=8)
    path.unlink()
    with pytest.raises(FileError, match="training_objectdataset.h5' is missing"):
        ScanObjectNN(root, "OBJ_BG", num_points=8)


def _replace(root, key, make):
    """The training file of a variant with another thing in an array's place."""
    path = root / "h5_files" / "main_split" / "training_objectdataset.h5"
    write(path, **{key: None})
    with h5py.File(path, "a") as file:
        make(file)
    return path


def _view(file):
    layout = h5py.VirtualLayout((30, POINTS), "i4")
    layout[:] = h5py.VirtualSource("/etc/hosts", "mask", (30, POINTS))
    file.create_virtual_dataset("mask", layout)


HOSTILE = {
    "a link to nowhere": ("label", lambda file: file.__setitem__("label", h5py.SoftLink("/no"))),
    "a link to another file": (
        "data",
        lambda file: file.__setitem__("data", h5py.ExternalLink("/etc/hosts", "/data")),
    ),
    "the bytes of another file": (
        "mask",
        lambda file: file.create_dataset(
            "mask", (30, POINTS), "i1", external=[("/etc/hosts", 0, 30 * POINTS)]
        ),
    ),
    "a view of other arrays": ("mask", lambda file: _view(file)),
    "a folder": ("data", lambda file: file.create_group("data")),
    "words": ("label", lambda file: file.__setitem__("label", ["chair"] * 30)),
    "a bomb": (
        "data",
        lambda file: file.create_dataset("data", (1 << 34, 4, 3), "f4", chunks=(1, 4, 3)),
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_arrays_that_are_none_of_the_file_are_refused(root, name):
    path = _replace(root, *HOSTILE[name])
    with pytest.raises(FileError, match=f"{path.name}' is damaged .*fetch it again"):
        ScanObjectNN(root, "OBJ_BG", num_points=8)


@pytest.mark.parametrize("label", [np.full(30, np.nan), np.full(30, -1), np.full(30, 1 << 60)])
def test_labels_that_are_none_name_the_file(root, label):
    path = root / "h5_files" / "main_split" / "training_objectdataset.h5"
    write(path, label=label)
    with pytest.raises(DataError, match=f"`label` .*{path.name}"):
        ScanObjectNN(root, "OBJ_BG", num_points=8)


def test_a_file_without_clouds_is_refused(root):
    path = root / "h5_files" / "main_split" / "training_objectdataset.h5"
    write(path, data=np.zeros((0, 9, 3)), label=np.zeros(0, int), mask=None)
    with pytest.raises(DataError, match=f"{path.name}.*must hold `data`"):
        ScanObjectNN(root, "OBJ_BG", num_points=8)


def test_wrong_arguments_are_named(root):
    with pytest.raises(ArgumentError, match=r"`variant` \(='PB_T75'\) must be one of OBJ_ONLY"):
        ScanObjectNN(root, "PB_T75")
    with pytest.raises(ArgumentError, match=r"`fold` \(='5'\) must be one of main"):
        ScanObjectNN(root, fold="5")
    with pytest.raises(ArgumentError, match=r"`num_points` \(=65\) must be at most the 64 points"):
        ScanObjectNN(root, num_points=65)


def test_h5py_is_asked_for(root, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingPackageError, match="pip install h5py"):
        ScanObjectNN(root, num_points=8)
