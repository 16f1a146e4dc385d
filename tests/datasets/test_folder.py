"""A folder of files as a data set: classes, splits, files of any size."""

import os
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from pcequi.datasets import FolderClouds
from pcequi.datasets.base import broken_files
from pcequi.datasets.folder_files import split_files
from pcequi.errors import ArgumentError, DataError, FileError
from pcequi.training.splits import load_split

FORMATS = [".off", ".obj", ".ply", ".stl", ".glb", ".npy", ".xyz"]


def put(path, size=1.0, points=60):
    """A box as a mesh, or its corners' neighbourhood as a cloud; no file is like another."""
    path.parent.mkdir(parents=True, exist_ok=True)
    size *= 1 + zlib.crc32(os.fsencode(path)) / 2**40
    if path.suffix in (".npy", ".xyz"):
        table = np.random.default_rng(points).normal(size=(points, 3)) * [size, 1, 1]
        np.save(path, table) if path.suffix == ".npy" else np.savetxt(path, table)
    else:
        trimesh.creation.box((size, 1, 1)).export(path)
    return path


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("PCEQUI_DATASETS", str(tmp_path / "store"))
    return tmp_path / "store"


@pytest.fixture
def folder(tmp_path, store):
    """Two classes of ten files, in every format."""
    root = tmp_path / "parts"
    for kind, size in (("cube", 1.0), ("rod", 8.0)):
        for n in range(10):
            put(root / kind / f"{n}{FORMATS[n % len(FORMATS)]}", size, 40 + n)
        (root / kind / "notes.md").write_text("passed over")
        (root / kind / ".hidden.off").write_text("passed over")
    (root / ".git").mkdir()
    return root


def names(dataset):
    return [item.name for item in dataset]


def test_a_seeded_share_of_each_class_is_tested_on(folder):
    train, test = (FolderClouds(folder, part, num_points=50) for part in (True, False))
    assert train.classes == test.classes == ["cube", "rod"]
    assert len(train) == 16 and len(test) == 4
    assert not set(names(train)) & set(names(test))
    assert torch.bincount(test.y).tolist() == [2, 2]
    assert all(item.name.startswith(train.classes[int(item.y)]) for item in train)
    assert names(FolderClouds(folder, False, num_points=50)) == names(test)
    drawn = {tuple(names(FolderClouds(folder, False, num_points=50, seed=s))) for s in range(4)}
    assert len(drawn) > 1
    assert len(FolderClouds(folder, False, num_points=50, test_share=0.5)) == 10
    # Nothing is written beside the files.
    assert sorted(path.name for path in folder.iterdir()) == [".git", "cube", "rod"]


def test_a_file_more_moves_at_most_one_other(folder):
    def tested():
        return {p.name for p, kind, part in split_files(folder) if (kind, part) == ("rod", "test")}

    before = tested()
    for n in range(10, 14):
        put(folder / "rod" / f"{n}.off")
        assert len(before - tested()) <= 1
        before = tested()


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5, 0.9])
def test_files_of_one_stem_fall_on_one_side(tmp_path, share):
    for kind in ("a", "b"):
        for n in range(20):
            for ending in [".off", ".stl", ".obj"][: 1 + n % 3]:
                path = tmp_path / kind / f"{n}{ending}"
                path.parent.mkdir(exist_ok=True)
                path.write_text(str(path))
    for seed in range(5):
        side = {}
        for path, kind, part in split_files(tmp_path, test_share=share, seed=seed):
            side.setdefault((kind, path.stem), []).append(part)
        assert all(len(set(parts)) == 1 for parts in side.values())
        for kind in ("a", "b"):
            found = [part for key, parts in side.items() if key[0] == kind for part in parts]
            assert abs(found.count("test") / len(found) - share) < 2 / len(found)


@pytest.mark.parametrize("share", [0.01, 0.2, 0.5, 0.99])
def test_each_side_has_a_shape_of_each_class_that_has_two(tmp_path, share):
    for kind, number in (("a", 2), ("b", 3), ("c", 1)):
        for n in range(number):
            for ending in (".stl", ".obj"):
                put(tmp_path / kind / f"{n}{ending}")
    found = {(kind, part) for _, kind, part in split_files(tmp_path, test_share=share)}
    assert found == {(kind, part) for kind in "abc" for part in ("train", "test")} - {("c", "test")}


def test_the_split_is_that_of_the_names_whatever_the_format(folder):
    def tested():
        return {path.stem for path, _, part in split_files(folder) if part == "test"}

    before = tested()
    for path, _, _ in split_files(folder):
        path.rename(path.with_suffix(".stl"))
    assert tested() == before


def test_clouds_are_sampled_by_name_and_of_any_size(folder):
    train = FolderClouds(folder, num_points=44)
    for item in train:
        assert item.pos.norm(dim=1).max() == pytest.approx(1, abs=1e-5)
        if item.name.endswith((".npy", ".xyz")):
            assert len(item.pos) == min(44, 40 + int(item.name.split("/")[1].split(".")[0]))
        else:
            assert len(item.pos) == 44
    kept = {item.name: item.pos for item in train}
    (folder / "cube" / "0.off").unlink()
    for item in FolderClouds(folder, num_points=44):
        assert item.name not in kept or torch.equal(item.pos, kept[item.name])
    other = FolderClouds(folder, num_points=44, seed=1)
    assert not all(torch.equal(item.pos, kept.get(item.name, item.pos)) for item in other)


def test_a_changed_file_is_read_again(folder):
    before = {item.name: item.pos for item in FolderClouds(folder, num_points=30)}
    name = next(iter(before))
    put(folder / name, 3.0, 33)
    after = {item.name: item.pos for item in FolderClouds(folder, num_points=30)}
    assert [key for key in before if not torch.equal(before[key], after[key])] == [name]


@pytest.mark.parametrize("parts", [("train", "test"), ("Train", "TEST")])
@pytest.mark.parametrize("below", [True, False])
def test_folders_train_and_test_say_the_split(tmp_path, store, below, parts):
    root = tmp_path / "parts"
    for kind in ("a", "b"):
        for part, count in zip(parts, (3, 2)):
            for n in range(count):
                place = root / kind / part if below else root / part / kind
                put(place / "deeper" / f"{part.lower()}{n}.off")
    for train, count in ((True, 6), (False, 4)):
        found = FolderClouds(root, train, num_points=10)
        assert len(found) == count and found.classes == ["a", "b"]
        assert all(("train" if train else "test") in name for name in names(found))
    with pytest.raises(ArgumentError, match=r"`test_list` .* and folders train and test"):
        FolderClouds(root, test_list=tmp_path / "list.txt")


@pytest.mark.parametrize(
    ("parts", "named"),
    [
        (("train", "val", "test"), r"a folder 'val' beside 'test', and splits are called train"),
        (("Train", "Validation"), "a folder 'Validation' beside 'Train'"),
        (("training", "testing"), "a folder 'testing' beside 'training'"),
        (("train", "valid", "test"), "'valid' beside 'test'.*rename it, move its files into"),
        (("train", "Train", "test"), "the folders 'Train' and 'train' for the train split: join"),
    ],
)
@pytest.mark.parametrize("below", [True, False])
def test_folders_that_are_nearly_splits_are_not_passed_over(tmp_path, store, below, parts, named):
    root = tmp_path / "parts"
    for kind in ("a", "b"):
        for part in parts:
            put((root / kind / part if below else root / part / kind) / "1.off")
    if len({path.name for path in root.rglob("*") if path.is_dir()}) < 2 + len(parts):
        pytest.skip("this file system does not tell capital letters from small ones")
    with pytest.raises(DataError, match=named):
        FolderClouds(root, num_points=10)


def test_a_class_may_be_called_like_a_split_where_nothing_else_is(tmp_path, store):
    for n in range(2):
        put(tmp_path / "parts" / "valid" / "testing" / f"{n}.off")
        put(tmp_path / "parts" / "broken" / f"{n}.off")
    assert FolderClouds(tmp_path / "parts", num_points=10).classes == ["broken", "valid"]


def test_a_list_says_the_split(folder, tmp_path):
    chosen = ["cube/3.stl", "./rod/0.off", "rod\\4.glb", ""]
    test_list = tmp_path / "list.txt"
    test_list.write_text("\n".join(chosen))
    found = FolderClouds(folder, False, num_points=10, test_list=test_list)
    assert names(found) == ["cube/3.stl", "rod/0.off", "rod/4.glb"]
    assert len(FolderClouds(folder, True, num_points=10, test_list=test_list)) == 17
    test_list.write_text("cube/99.stl\n")
    with pytest.raises(DataError, match=r"names 'cube/99.stl', which is no usable file"):
        FolderClouds(folder, test_list=test_list)
    with pytest.raises(FileError, match=r"`test_list` .*gone.txt.* cannot be read"):
        FolderClouds(folder, test_list=tmp_path / "gone.txt")
    test_list.write_text("")
    with pytest.raises(DataError, match="no file for the test split"):
        FolderClouds(folder, test_list=test_list)
    test_list.write_text("\n".join(f"rod/{p.name}" for p in (folder / "rod").glob("[0-9]*")))
    with pytest.raises(DataError, match="no training file of class 'rod'"):
        FolderClouds(folder, test_list=test_list)


def test_a_list_may_be_saved_by_an_editor_of_windows(folder, tmp_path):
    put(folder / "cube" / "ü.stl")
    test_list = tmp_path / "list.txt"
    test_list.write_bytes("cube/ü.stl\r\nrod/0.off\r\n".encode("utf-8-sig"))
    found = FolderClouds(folder, False, num_points=10, test_list=test_list)
    assert names(found) == ["cube/ü.stl", "rod/0.off"]


def test_names_need_not_be_text(folder):
    try:
        put(folder / "cube" / os.fsdecode(b"St\xfchl.npy"))
    except OSError:
        pytest.skip("this file system asks for names in UTF-8")
    assert (
        len(FolderClouds(folder, num_points=10)) + len(FolderClouds(folder, False, num_points=10))
        == 21
    )


def test_links_to_folders_are_followed_but_not_in_circles(folder, tmp_path):
    put(tmp_path / "elsewhere" / "a.stl")
    (folder / "cube" / "more").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (folder / "cube" / "again").symlink_to(folder / "cube", target_is_directory=True)
    put(folder / "rod" / "v1" / "b.stl")
    (folder / "rod" / "latest").symlink_to(folder / "rod" / "v1", target_is_directory=True)
    found = [path.relative_to(folder).as_posix() for path, _, _ in split_files(folder)]
    # Nothing twice: one of the two could be trained and the other tested on.
    assert {"cube/more/a.stl", "rod/v1/b.stl"} <= set(found) and len(found) == 22


def test_hidden_folders_and_those_of_macos_hold_no_clouds(folder):
    expected = split_files(folder)
    for place in ("cube/.ipynb_checkpoints", "rod/new/.stversions/old", "__MACOSX", "rod/__MACOSX"):
        put(folder / place / "0-checkpoint.stl")
    assert split_files(folder) == expected


def test_classes_without_a_file_to_test_on_are_named_at_every_load_of_the_test_split(folder):
    for kind in ("ball", "bar", "cap", "cone"):
        for ending in (".stl", ".npy"):
            put(folder / kind / f"1{ending}")
    for _ in range(2):
        with pytest.warns(UserWarning) as told:
            found = FolderClouds(folder, False, num_points=10)
        assert found.classes == ["ball", "bar", "cap", "cone", "cube", "rod"]
        (said,) = (str(warning.message) for warning in told)
        assert "4 of the 6 classes" in said and "('ball', 'bar', 'cap' and more)" in said
    # To training it does no harm.
    assert len(FolderClouds(folder, num_points=10)) == 24


def test_normals_where_they_are_asked_for(tmp_path, store):
    root = tmp_path / "parts"
    for kind in ("a", "b"):
        for n in range(3):
            put(root / kind / f"{n}.off")
    item = FolderClouds(root, num_points=20, with_normals=True)[0]
    assert torch.allclose(item.normal.norm(dim=1), torch.ones(20))
    assert "normal" not in FolderClouds(root, num_points=20)[0]
    for kind in ("a", "b"):
        for n in range(3):
            put(root / kind / f"{n}.xyz")
    with pytest.raises(DataError, match="has no normals"):
        FolderClouds(root, num_points=20, with_normals=True)


def test_all_broken_files_are_named_at_once(folder):
    train = names(FolderClouds(folder, num_points=10))
    for name in train[:7]:
        (folder / name).write_bytes(b"broken")
    with pytest.raises(DataError, match=r"7 of 20 files that cannot be used") as error:
        FolderClouds(folder, num_points=10)
    assert all(name in str(error.value) for name in train[:7])
    told = broken_files("folder", folder, [f"file {n}" for n in range(60)], 80)
    assert "file 49" in told and "file 50" not in told and told.endswith("and 10 more")


@pytest.mark.parametrize("train", [True, False])
def test_broken_files_of_both_splits_are_named_at_once(folder, train):
    broken = [names(FolderClouds(folder, part, num_points=10))[0] for part in (True, False)]
    for name in broken:
        (folder / name).write_bytes(b"broken")
    with pytest.raises(DataError, match=r"2 of 20 files that cannot be used") as error:
        FolderClouds(folder, train, num_points=10)
    assert all(name in str(error.value) for name in broken)


def test_files_of_the_other_split_are_not_read_without_need(folder):
    (folder / names(FolderClouds(folder, False, num_points=10))[0]).write_bytes(b"broken")
    assert len(FolderClouds(folder, True, num_points=11)) == 16


def test_folders_that_are_no_data_set(tmp_path, store):
    root = tmp_path / "parts"
    with pytest.raises(FileError, match=r"`folder` .* is no folder: give one whose sub-folders"):
        FolderClouds(root)
    put(root / "only" / "1.off")
    put(root / "only" / "2.off")
    with pytest.raises(DataError, match="has 1 classes, and at least two are needed"):
        FolderClouds(root)
    (root / "empty").mkdir()
    with pytest.raises(DataError, match=r"class 'empty' without files: add some that end in \.off"):
        FolderClouds(root)
    put(root / "empty" / "train" / "1.off")
    with pytest.raises(DataError, match=r"a file outside of them, 'only/1.off': move it"):
        FolderClouds(root)
    put(root / "train" / "a" / "1.off")
    with pytest.raises(DataError, match=r"a folder 'train' and not its partner"):
        FolderClouds(root)


def test_a_root_that_cannot_be_made_is_named(folder, tmp_path):
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(
            FileError,
            match=r"`root` \(=.*file.*\) will not do: .* cannot be made \(.*\); check the fold",
        ):
            FolderClouds(folder, num_points=10, root=root)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"test_share": 0}, r"`test_share` \(=0\) must be above 0 and below 1"),
        ({"test_share": 1.0}, r"`test_share` \(=1.0\)"),
        ({"num_points": 0}, r"`num_points` \(=0\)"),
        ({"seed": -1}, r"`seed` \(=-1\)"),
    ],
)
def test_arguments_out_of_range(folder, options, message):
    with pytest.raises(ArgumentError, match=message):
        FolderClouds(folder, **options)


def test_as_a_split_for_training(folder):
    split = load_split("folder", False, root=folder, num_points=20, test_share=0.3)
    assert len(split) == 6 and split.classes == ["cube", "rod"]
    assert split.names == names(FolderClouds(folder, False, num_points=20, test_share=0.3))
    assert len(load_split("folder", True, root=folder, num_points=20, limit=2)) == 4
    with pytest.raises(ArgumentError, match=r"`root` \(=None\) must be the folder whose"):
        load_split("folder", True)
    with pytest.raises(ArgumentError, match=r"`source` .* does not apply to 'folder'"):
        load_split("folder", True, root=folder, source="x")
    with pytest.raises(ArgumentError, match=r"`test_list` .* does not apply to 'shapes'"):
        load_split("shapes", True, test_list="x")


def test_of_a_limit_no_more_is_read(folder):
    whole = load_split("folder", True, root=folder, num_points=20)
    (folder / "rod" / "9.off").write_text("no mesh")
    (folder / "cube" / "9.off").write_text("no mesh")
    part = load_split("folder", True, root=folder, num_points=20, limit=2)
    assert part.labels.tolist() == [0, 0, 1, 1]
    first = [name for kind in ("cube", "rod") for name in whole.names if kind in name]
    assert part.names == [*first[:2], *[name for name in first if "rod" in name][:2]]
    for name, cloud in zip(part.names, part.clouds, strict=True):
        assert torch.equal(cloud, whole.clouds[whole.names.index(name)])
    with pytest.raises(ArgumentError, match=r"`limit` \(=0\)"):
        FolderClouds(folder, limit=0)


def test_a_save_that_fails_leaves_nothing(folder, store, monkeypatch):
    def full(data, path):
        Path(path).write_bytes(b"half")
        raise RuntimeError("unexpected pos 64 vs 0")  # as torch says that a disk is full

    monkeypatch.setattr(FolderClouds, "save", staticmethod(full))
    with pytest.raises(FileError, match=r"cannot be written .*free some space.*`root`"):
        FolderClouds(folder, num_points=10)
    assert not list(store.rglob("*.part"))
