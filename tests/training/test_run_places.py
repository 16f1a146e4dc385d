"""Where a run may lie, and what is left of one that did not begin."""

import json
from dataclasses import replace

import numpy as np
import pytest

from pcequi.errors import ArgumentError, DataError, FileError
from pcequi.models import presets
from pcequi.training import FitSettings, RunSettings, runs, train_run

QUICK = ["--data", "folder", "--preset", "tiny", "--num-points", 24, "--epochs", 1]
QUICK += ["--batch-size", 4, "--workers", 1, "--threads", 1]


def clouds(place, first=0):
    for number, name in enumerate(("cup", "rod"), first):
        (place / name).mkdir(parents=True)
        for n in range(4):
            cloud = np.random.default_rng([number, n]).normal(size=(40, 3))
            np.save(place / name / f"{n}.npy", cloud)
    return place


@pytest.mark.parametrize("run", [[], ["--run", "mine"], ["--run", "cup/runs/mine"]])
def test_a_run_within_its_own_data_is_refused_before_anything_is_made(
    command, tmp_path, monkeypatch, run
):
    parts = clouds(tmp_path / "parts")
    monkeypatch.chdir(parts)
    before = sorted(tmp_path.rglob("*"))
    code, _, err = command("train", *QUICK, "--root", ".", *run)
    assert code == 1 and "is within the folder of the classes" in err and "--run elsewhere" in err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("run", [".runs/mine", "runs/mine"])
def test_where_no_class_is_looked_for_it_may_lie(command, tmp_path, monkeypatch, run):
    parts = tmp_path / "parts"
    clouds(parts / "train")
    clouds(parts / "Test", 2)
    monkeypatch.chdir(parts)
    code, out, err = command("train", *QUICK, "--root", ".", "--run", run, "--json")
    assert code == 0, err
    assert len(json.loads(out)["per_class"]["z/SO3"]) == 2
    code, _, err = command("train", *QUICK, "--root", ".", "--run", "train/mine")
    assert code == 1 and "is within the folder of the classes" in err


@pytest.fixture
def settings(tiny, monkeypatch, tmp_path):
    monkeypatch.setitem(presets.PRESETS, "tiny", tiny.tiny_settings)
    fit = FitSettings(epochs=1, batch_size=8)
    root = str(tmp_path / "data")
    return RunSettings(root=root, num_points=24, limit=2, preset="tiny", fit=fit)


def test_a_start_that_fails_leaves_no_folder(settings, tmp_path):
    (tmp_path / "parts").mkdir()
    wrong = replace(settings, data="folder", root=str(tmp_path / "parts"))
    with pytest.raises(DataError, match="has 0 classes"):
        train_run(wrong, tmp_path / "a" / "b" / "run", workers=1, quiet=True)
    assert not (tmp_path / "a").exists()


def test_a_start_that_failed_may_be_tried_again(settings, tmp_path, monkeypatch):
    def fail(*args, **options):
        raise FileError("the cache cannot be written")

    go = {"cache": tmp_path / "cache", "workers": 1, "quiet": True}
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(runs, "TrainVersions", fail)
        with pytest.raises(FileError, match="the cache cannot be written"):
            train_run(settings, folder, **go)
    assert (folder / "settings.json").exists()
    other = replace(settings, num_points=30)
    assert train_run(other, folder, **go)["num_points"] == 30
    with pytest.raises(ArgumentError, match="holds a run already"):
        train_run(settings, folder, **go)
