"""A trained network is measured on a folder of new files of its classes."""

import json
import shutil

import numpy as np
import pytest

from pcequi.errors import ArgumentError, DataError, FileError
from pcequi.training.labelled import load_labelled

CLASSES = ["cup", "rod", "table"]


def put(folder, kind, count, first=0):
    (folder / kind).mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        points = np.random.default_rng([number, *kind.encode()]).normal(size=(60, 3))
        np.save(folder / kind / f"{number}.npy", points)


@pytest.fixture
def new(tmp_path):
    """Four files of two of the classes."""
    put(tmp_path / "new", "table", 3, 100)
    put(tmp_path / "new", "cup", 1, 200)
    return tmp_path / "new"


@pytest.fixture
def trained(command, tmp_path):
    for kind in CLASSES:
        put(tmp_path / "parts", kind, 3)
    options = ["--data", "folder", "--root", "parts", "--preset", "tiny", "--num-points", 24]
    options += ["--epochs", 1, "--batch-size", 4, "--workers", 1, "--threads", 1]
    code, _, err = command("train", *options, "--run", "own", "--json")
    assert code == 0, err
    return tmp_path / "own"


def test_files_get_the_labels_of_their_folders(new):
    split = load_labelled(new, CLASSES, num_points=24)
    assert split.names == ["cup/200.npy", "table/100.npy", "table/101.npy", "table/102.npy"]
    assert split.labels.tolist() == [0, 2, 2, 2] and split.classes == CLASSES
    assert all(cloud.shape == (24, 3) for cloud in split.clouds)
    assert len(load_labelled(new, CLASSES, num_points=24, limit=1)) == 2
    shutil.rmtree(new / "cup")
    assert load_labelled(new, CLASSES).labels.tolist() == [2, 2, 2]


def test_what_cannot_be_tested_on_is_named(new, tmp_path):
    with pytest.raises(ArgumentError, match=r"has the class 'table', which the network does not"):
        load_labelled(new, ["cup", "rod"])
    (new / "table" / "bad.npy").write_text("no points")
    with pytest.raises(DataError, match=r"1 of 5 files that cannot be used.*\n.*bad.npy"):
        load_labelled(new, CLASSES)
    with pytest.raises(FileError, match="is no folder"):
        load_labelled(tmp_path / "nowhere", CLASSES)
    (tmp_path / "flat").mkdir()
    with pytest.raises(DataError, match="has 0 classes, and at least one is needed"):
        load_labelled(tmp_path / "flat", CLASSES)


@pytest.mark.filterwarnings("default::UserWarning")
def test_a_run_is_measured_on_them(command, trained, new, tmp_path):
    quick = ["--workers", 1, "--threads", 1]
    code, out, err = command(
        "evaluate", "own", "--files", "new", "--protocol", "z/z", "--json", *quick
    )
    assert code == 0 and "Warning" not in err, err
    found = json.loads(out)
    assert found["shapes"] == 4 and found["classes"] == ["cup", "table"]
    assert found["files"] == "new" and found["trained_on"] == {"own": 0}
    assert found["protocols"]["z/z"]["per_class"]["rod"] is None
    code, out, _ = command("evaluate", "own", "--files", "new", *quick)
    assert code == 0 and "own, 4 files of new, 2 of 3 classes" in out

    # A copy of a file that was trained on, under another name, with which its sample is another.
    rows = set(json.loads((trained / "data.json").read_text())["trained_files"])
    assert len(rows) == 6
    for path in sorted((tmp_path / "parts" / "rod").iterdir()):
        (new / "rod").mkdir(exist_ok=True)
        shutil.copy(path, new / "rod" / f"copy-{path.name}")
    code, out, err = command("evaluate", "own", "--files", "new", "--json", *quick)
    assert json.loads(out)["trained_on"] == {"own": 2}
    assert "Warning: 2 of 7 files of new were trained on by own" in err and "leave them out" in err

    code, _, err = command("evaluate", "own", "--files", "new", "--root", "parts")
    assert code == 1 and "`--root`" in err and "leave one out" in err
    put(new, "sofa", 1)
    code, _, err = command("evaluate", "own", "--files", "new", *quick)
    assert code == 1 and "'sofa'" in err and "cup, rod, table" in err


def test_a_network_that_comes_with_pcequi_is_measured_on_them(command, new):
    shutil.rmtree(new / "table")
    options = ["--files", "new", "--protocol", "z/z", "--workers", 1, "--threads", 1, "--json"]
    code, out, err = command("evaluate", "modelnet40-small", *options)
    assert code == 0, err
    found = json.loads(out)
    assert found["classes"] == ["cup"] and found["trained_on"] == {"modelnet40-small": None}


@pytest.mark.parametrize("kinds", [["rod"], ["cup", "table"], ["cup", "rod", "table", "sofa"]])
def test_data_of_other_classes_name_what_can_be_done(command, trained, tmp_path, kinds):
    for kind in kinds:
        put(tmp_path / "few", kind, 2, 300)
    quick = ["--workers", 1, "--threads", 1, "--json"]
    code, out, err = command("evaluate", "own", "--root", "few", *quick)
    assert code == 1 and json.loads(out)["error"]["type"] == "ArgumentError"
    assert f"few' have {', '.join(sorted(kinds))}: give data of its classes by `--root`" in err
    assert ("or `--files" in err) == ("sofa" not in kinds)
    if "sofa" not in kinds:
        code, out, err = command("evaluate", "own", "--files", "few", *quick)
        assert code == 0 and json.loads(out)["classes"] == kinds


def test_files_are_turned_and_read_as_the_run_says_however_it_is_named(command, trained, new):
    quick = ["--files", "new", "--workers", 1, "--threads", 1, "--json"]
    settings = json.loads((trained / "settings.json").read_text())
    settings["fit"]["seed"], settings["protocol"] = 7, "SO3/SO3"
    (trained / "settings.json").write_text(json.dumps(settings))
    for name in ("own", "own/model.safetensors", "own/model.json"):
        code, out, err = command("evaluate", name, *quick)
        found = json.loads(out)
        assert code == 0 and found["seed"] == 7 and list(found["protocols"]) == ["SO3/SO3"], err
