"""ShapeNetPart from a folder of the true layout; the files are made here."""

import json

import numpy as np
import pytest
import torch

from pcequi.cli import main
from pcequi.datasets import ShapeNetPart
from pcequi.datasets.shapenet_part import SHAPENET_PART_CLASSES, SHAPENET_PARTS
from pcequi.errors import DataError, FileError
from pcequi.training.splits import load_split

FOLDERS = dict(
    zip(
        SHAPENET_PART_CLASSES,
        "02691156 02773838 02954340 02958343 03001627 03261776 03467517 03624134 03636649 03642806 "
        "03790512 03797390 03948459 04099429 04225987 04379243".split(),
        strict=True,
    )
)
COUNTS = {"train": 2, "val": 1, "test": 1}


def rows(name, rng, num=40):
    points = rng.normal(size=(num, 3)) * [0.2, 0.6, 0.2] + [0, 1, 0]
    normals = rng.normal(size=(num, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    parts = rng.choice(SHAPENET_PARTS[name], size=(num, 1))
    return np.concatenate([points, normals, parts], 1)


@pytest.fixture
def root(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "shapenetcore_partanno_segmentation_benchmark_v0_normal"
    lists = {split: [] for split in COUNTS}
    for name, number in FOLDERS.items():
        (folder / number).mkdir(parents=True)
        for split, count in COUNTS.items():
            for place in range(count):
                shape = f"{split}{place}{number}"
                np.savetxt(folder / number / f"{shape}.txt", rows(name, rng), fmt="%.6f")
                lists[split].append(f"shape_data/{number}/{shape}")
    lines = [f"{name}\t{number}" for name, number in FOLDERS.items()]
    (folder / "synsetoffset2category.txt").write_text("\n".join(lines) + "\n")
    (folder / "train_test_split").mkdir()
    for split, names in lists.items():
        path = folder / "train_test_split" / f"shuffled_{split}_file_list.json"
        path.write_text(json.dumps(names))
    return tmp_path


def file_of(root, item):
    folder = root / "shapenetcore_partanno_segmentation_benchmark_v0_normal"
    return folder / f"{item.name}.txt"


def test_a_shape_is_the_one_in_its_file(root):
    data = ShapeNetPart(root, num_points=40)
    assert len(data) == 48 and data.num_classes == 16 and data.classes == SHAPENET_PART_CLASSES
    assert data[4].y.tolist() == [2], "in the order of the lists: two shapes of each class"
    item = data[4]
    raw = np.loadtxt(file_of(root, item))
    place = raw[:, [0, 2, 1]] * [1, -1, 1]
    place = place - place.mean(0)
    place /= np.linalg.norm(place, axis=1).max()
    distance = torch.cdist(item.pos.double(), torch.from_numpy(place))
    assert distance.amin(1).max() < 1e-5
    order = distance.argmin(1).numpy()
    assert item.part.dtype == torch.long and item.part.tolist() == raw[order, 6].tolist()
    normals = raw[order, 3:6][:, [0, 2, 1]] * [1, -1, 1]
    assert np.abs(item.normal.numpy() - normals).max() < 1e-5
    assert item.pos[:, 2].std() > 1.5 * item.pos[:, 0].std(), "long axis upright"


def test_parts_belong_to_classes(root):
    assert sorted(sum(SHAPENET_PARTS.values(), [])) == list(range(50))
    assert SHAPENET_PARTS["Motorbike"] == [30, 31, 32, 33, 34, 35]
    for item in ShapeNetPart(root, train=False, num_points=8):
        name = SHAPENET_PART_CLASSES[int(item.y)]
        assert set(item.part.tolist()) <= set(SHAPENET_PARTS[name]) and item.pos.shape == (8, 3)


def test_splits_are_those_of_the_lists(root):
    sizes = {
        "with validation": len(ShapeNetPart(root)),
        "without": len(ShapeNetPart(root, validation=False)),
        "test": len(ShapeNetPart(root, train=False)),
    }
    assert sizes == {"with validation": 48, "without": 32, "test": 16}
    names = [{item.name for item in ShapeNetPart(root, train=train)} for train in (True, False)]
    assert not names[0] & names[1]


def test_a_changed_file_is_read_again(root):
    before = ShapeNetPart(root, num_points=12)
    path = file_of(root, before[4])
    np.savetxt(path, rows("Cap", np.random.default_rng(9), num=33), fmt="%.6f")
    after = ShapeNetPart(root, num_points=12)
    assert [i for i in range(48) if not torch.equal(before[i].pos, after[i].pos)] == [4]
    files = len(list(root.rglob("train.pt")))
    ShapeNetPart(root, num_points=12)
    assert len(list(root.rglob("train.pt"))) == files, "unchanged files are not read again"


def test_shapes_with_few_points_are_kept_whole(root):
    assert ShapeNetPart(root, num_points=1024)[0].pos.shape == (40, 3)


def test_it_is_a_split_to_train_on(root):
    split = load_split("shapenetpart", False, root=root, num_points=16)
    assert len(split) == 16 and split.names[0].startswith("02691156/test0")
    folder = root / "shapenetcore_partanno_segmentation_benchmark_v0_normal"
    elsewhere = load_split("shapenetpart", False, root=root / "own", source=folder, num_points=16)
    assert torch.equal(elsewhere.clouds[3], split.clouds[3])


def test_the_command_reads_it(root, capsys):
    arguments = ["precompute", "--data", "shapenetpart", "--root", str(root), "--preset", "small"]
    arguments += ["--num-points", "24", "--limit", "1", "--workers", "1", "--json"]
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--cache", str(root / "cache")])
    assert end.value.code == 0
    found = json.loads(capsys.readouterr().out)
    assert [store["clouds"] for store in found["stores"]] == [16, 16]


def test_what_is_missing_or_damaged_is_named(root, tmp_path):
    with pytest.raises(FileError, match="holds none of synsetoffset2category.txt: fetch https"):
        ShapeNetPart(tmp_path / "empty")
    folder = root / "shapenetcore_partanno_segmentation_benchmark_v0_normal"
    path = folder / "02691156" / "train002691156.txt"
    good = path.read_text()
    for content, message in (
        ("1 2 3\n", "has 3 numbers a line"),
        ("a b c\n", "is damaged"),
        ("", "is empty"),
        ("0 0 0 0 0 1 9\n0 1 0 0 0 1 9\n", r"`part` \(=9\) in 02691156/.* none of Airplane"),
    ):
        path.write_text(content)
        with pytest.raises((FileError, DataError), match=message):
            ShapeNetPart(root, num_points=9)
    path.unlink()
    with pytest.raises(FileError, match="train002691156.txt' is missing"):
        ShapeNetPart(root, num_points=9)
    path.write_text(good)
    lists = folder / "train_test_split" / "shuffled_train_file_list.json"
    lists.write_text("[")
    with pytest.raises(FileError, match="is damaged"):
        ShapeNetPart(root, num_points=9)
    lists.write_text('["shape_data/../../../etc/passwd"]')
    with pytest.raises(DataError, match="the class 'etc'"):
        ShapeNetPart(root, num_points=9)
    for content in ("{}", "[]", '{"a": 1}'):
        lists.write_text(content)
        with pytest.raises(FileError, match="shuffled_train_file_list.json' is damaged .*no list"):
            ShapeNetPart(root, num_points=9)
    lists.write_text("[" * 100_000)
    with pytest.raises(FileError, match="shuffled_train_file_list.json' is damaged"):
        ShapeNetPart(root, num_points=9)
    lists.unlink()
    with pytest.raises(FileError, match="shuffled_train_file_list.json' is missing"):
        ShapeNetPart(root, num_points=9)
    categories = folder / "synsetoffset2category.txt"
    categories.write_text(categories.read_text().replace("Airplane", "Boat"))
    with pytest.raises(DataError, match=r"must name the 16 classes .*\(Airplane, Boat\)"):
        ShapeNetPart(root, train=False, num_points=9)
    categories.write_bytes(b"Airplane\xff 02691156")
    with pytest.raises(FileError, match="synsetoffset2category.txt' is damaged"):
        ShapeNetPart(root, train=False, num_points=9)
