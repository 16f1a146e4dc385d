"""A run leaves all that is needed to read, resume and use it."""

import csv
import json
import shutil
from dataclasses import replace

import pytest

from pcequi.errors import ArgumentError, DataError, FileError, PcequiError
from pcequi.models import presets
from pcequi.training import (
    FitSettings,
    RunSettings,
    load_checkpoint,
    runs,
    state,
    train_run,
    versions,
)
from pcequi.training.predict import predict_cloud, predict_files, trained_points
from pcequi.training.run_data import run_number, trained_on
from pcequi.training.run_settings import load_run_settings, load_run_split
from pcequi.training.versions import own_cache, precompute_train


@pytest.fixture
def settings(tiny, monkeypatch, tmp_path):
    monkeypatch.setitem(presets.PRESETS, "tiny", tiny.tiny_settings)
    return RunSettings(
        root=str(tmp_path / "data"), num_points=24, limit=2, also=("z/z",), preset="tiny",
        val_share=0.4, fit=FitSettings(epochs=2, batch_size=8),
    )  # fmt: skip


@pytest.fixture
def go(settings, tmp_path):
    def run(changed=settings, folder=tmp_path / "run", **options):
        cache = tmp_path / "cache"
        return train_run(changed, folder, cache=cache, workers=1, quiet=True, **options)

    return run


def test_a_run_from_shapes_to_prediction(go, tmp_path, settings):
    report = go()
    folder = tmp_path / "run"
    assert {path.name for path in folder.iterdir()} == {
        "settings.json", "data.json", "metrics.jsonl", "state.safetensors", "model.safetensors",
        "model.json", "report.json", "curves.png", "confusion.png", "hardest.json",
        "predictions.csv", "report.html",
    }  # fmt: skip
    assert json.loads((folder / "report.json").read_text()) == report
    assert set(report["accuracy"]) == set(report["per_class"]) == {"z/SO3", "z/z"}
    assert report["shapes"] == {"train": 16, "held_out": 16, "test": 32}
    assert 0 <= report["agreement"]["z/SO3, z/z"] <= 1
    assert (folder / "curves.png").read_bytes()[:4] == b"\x89PNG"
    assert load_run_settings(folder) == settings
    with (folder / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == [str(row) for row in range(32)] * 2  # without names
    for protocol, accuracy in report["accuracy"].items():
        own = [row for row in rows if row["protocol"] == protocol]
        right = sum(row["true class"] == row["predicted class"] for row in own)
        assert right / len(own) == pytest.approx(accuracy)
    checkpoint = load_checkpoint(folder)
    assert checkpoint.extra["protocol"] == "z/SO3" and checkpoint.extra["num_points"] == 24

    good, bad = tmp_path / "points.xyz", tmp_path / "bad.off"
    good.write_text("".join(f"{i % 5} {i % 7} {i % 3}\n" for i in range(100)))
    bad.write_text("not a mesh")
    first, second, third = predict_files(checkpoint, [bad, good, tmp_path / "none.ply"], top=2)
    assert "bad.off" in first["error"] and "none.ply" in third["error"]
    named = second["predictions"]
    assert len(named) == 2 and named[0]["probability"] >= named[1]["probability"]
    assert {entry["class"] for entry in named} <= set(checkpoint.classes)


def test_a_run_is_not_replaced_by_accident(go, settings):
    first = go()
    with pytest.raises(ArgumentError, match=r"`run` .*holds a run .*--resume.*--overwrite"):
        go()
    again = go(overwrite=True)
    assert again["accuracy"] == first["accuracy"]
    resumed = go(resume=True)
    assert resumed["last_epoch"] == again["last_epoch"]
    other = RunSettings.from_dict({**settings.to_dict(), "num_points": 25})
    with pytest.raises(ArgumentError, match=r"`resume` .*num_points was 24"):
        go(other, resume=True)


def test_an_interrupted_run_ends_the_same(go, tmp_path):
    whole = go()

    def interrupt(metrics):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go(folder=tmp_path / "second", on_epoch=interrupt)
    resumed = go(folder=tmp_path / "second", resume=True)
    weights = [tmp_path / name / "model.safetensors" for name in ("run", "second")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert resumed["accuracy"] == whole["accuracy"]


def test_epochs_take_turns_with_resampled_clouds(go, settings, tmp_path):
    settings = replace(settings, fit=replace(settings.fit, epochs=3))
    plain = go(settings)
    other = go(replace(settings, resamplings=1), tmp_path / "resampled")
    assert len(list((tmp_path / "cache").iterdir())) == 3  # one to train on, two to test on
    first, second = (
        [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (tmp_path / "run", tmp_path / "resampled")
    )
    assert first[0] == second[0] and first[1] != second[1]
    assert other["settings"]["resamplings"] == 1 and plain["shapes"] == other["shapes"]
    with pytest.raises(ArgumentError, match="resamplings was 1"):
        go(settings, tmp_path / "resampled", resume=True)


def test_settings_are_checked():
    with pytest.raises(ArgumentError, match=r"`test_share` \(=0.5\) does not apply to 'shapes'"):
        RunSettings(test_share=0.5)
    with pytest.raises(ArgumentError, match=r"`seed` \(=4294967296\) must be from 0 to 4294967295"):
        FitSettings(seed=2**32)
    with pytest.raises(ArgumentError, match="`resamplings`"):
        RunSettings(resamplings=-1)
    with pytest.raises(ArgumentError, match=r"`protocol` \(='x'\)"):
        RunSettings(protocol="x")
    with pytest.raises(ArgumentError, match=r"`also` \(='SO3/SO3'\) trains under other rotations"):
        RunSettings(protocol="z/SO3", also=("SO3/SO3",))
    assert RunSettings(also=("z/SO3", "z/z")).protocols == ("z/SO3", "z/z")


def test_an_unknown_preset_is_named(go, settings):
    with pytest.raises(ArgumentError, match=r"`preset` \(='huge'\) must be one of"):
        go(RunSettings.from_dict({**settings.to_dict(), "preset": "huge"}))


@pytest.mark.parametrize("content", [None, "{", "[]", '{"data": "shapes"}'])
def test_a_folder_that_is_no_run_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "settings.json").write_text(content)
    with pytest.raises(FileError, match="settings.json"):
        load_run_settings(tmp_path)


def test_predictions_do_not_depend_on_pose_place_and_size(tiny):
    import torch

    from pcequi.rotations import random_rotations
    from pcequi.training import Checkpoint

    checkpoint = Checkpoint(tiny.tiny_model().eval(), tiny.CLASSES)
    cloud = tiny.tiny_split(1).clouds[0].double()
    turn = random_rotations(1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)[0]
    assert predict_cloud(checkpoint, cloud) == predict_cloud(checkpoint, 3 * cloud @ turn.T + 5)
    with pytest.raises(ArgumentError, match=r"`top` \(=0\)"):
        predict_cloud(checkpoint, cloud, top=0)


def test_contradictory_words_are_refused_before_anything_is_lost(go, tmp_path):
    go()
    before = (tmp_path / "run" / "model.safetensors").read_bytes()
    with pytest.raises(ArgumentError, match=r"`resume` .* and `overwrite` .* give one"):
        go(resume=True, overwrite=True)
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == before


def test_a_refused_resume_names_each_setting_of_the_fit(go, settings):
    go()
    other = replace(settings, fit=replace(settings.fit, epochs=5))
    with pytest.raises(ArgumentError, match=r"epochs was 2, not 5; give the same"):
        go(other, resume=True)


def test_a_run_does_not_go_on_with_other_clouds(go, tmp_path, monkeypatch):
    go()
    kept = (tmp_path / "run" / "model.json").read_bytes()
    monkeypatch.setattr("pcequi.training.runs.load_run_split", renamed(load_run_split))
    with pytest.raises(DataError, match=r"`resume` .* began with \(classes changed\)"):
        go(resume=True)
    assert (tmp_path / "run" / "model.json").read_bytes() == kept
    go(overwrite=True)
    go(resume=True)


def renamed(load):
    """The same clouds, whose classes have other names."""

    def loaded(*args):
        split = load(*args)
        return replace(split, classes=[f"{name}s" for name in split.classes])

    return loaded


def test_a_damaged_note_of_the_data_is_named_and_can_be_thrown_away(go, tmp_path):
    go()
    (tmp_path / "run" / "data.json").write_text("{")
    with pytest.raises(FileError, match=r"data.json is damaged .*delete it"):
        go(resume=True)
    go(overwrite=True)


def test_runs_of_one_path_on_two_machines_keep_their_graphs_apart(go, tmp_path):
    numbers = []
    for _ in range(2):
        go(overwrite=True)
        numbers.append(json.loads((tmp_path / "run" / "data.json").read_text())["number"])
        go(resume=True)
        assert json.loads((tmp_path / "run" / "data.json").read_text())["number"] == numbers[-1]
    assert len({own_cache(tmp_path, number) for number in numbers}) == 2


def test_the_copy_of_a_run_keeps_graphs_of_its_own(go, settings, tmp_path):
    many = replace(settings, resamplings=2, fit=replace(settings.fit, epochs=3))

    def stop(metrics):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go(many, on_epoch=stop)
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    shutil.copytree(tmp_path / "run", tmp_path / "other")
    own = own_cache(tmp_path / "cache", run_number(tmp_path / "run"))
    (own / "graphs").mkdir(parents=True)
    go(many, tmp_path / "copy", resume=True)
    go(settings, tmp_path / "other", overwrite=True)
    assert (own / "graphs").exists()
    numbers = {run_number(tmp_path / name) for name in ("run", "copy", "other")}
    assert len(numbers) == 3 and None not in numbers
    go(many, resume=True)
    assert not own.exists()


def test_values_out_of_range_are_refused_before_anything_is_written(settings):
    with pytest.raises(ArgumentError, match=r"`val_share` \(=1.5\)"):
        replace(settings, val_share=1.5)
    with pytest.raises(ArgumentError, match=r"`data_seed` \(=1\) does not apply to 'modelnet40'"):
        replace(settings, data="modelnet40", data_seed=1)


def test_what_a_killed_run_left_is_removed(go, tmp_path):
    go()
    left = tmp_path / "run" / "state.safetensors.123-abc.part"
    for options in ({"resume": True}, {"overwrite": True}):
        left.write_bytes(b"half")
        go(**options)
        assert not left.exists()


def test_a_run_knows_the_clouds_that_it_was_trained_on(go, settings, tmp_path):
    report = go()
    train, test = (load_run_split(settings, part) for part in (True, False))
    assert report["shapes"]["held_out"] > 0
    assert trained_on(tmp_path / "run", train.clouds) == report["shapes"]["train"]
    assert trained_on(tmp_path / "run", test.clouds) == 0
    assert (
        trained_on(tmp_path / "run", [test.clouds[0], *train.clouds]) == report["shapes"]["train"]
    )
    assert trained_on(tmp_path / "none", train.clouds) is None


def test_clouds_that_look_wrong_are_counted_before_training(go, settings, monkeypatch):
    def spoilt(settings, train):
        split = load_run_split(settings, train)
        split.clouds[0] = split.clouds[0][:4]
        for cloud in split.clouds[1:3]:
            cloud[:9] = 0.5
        return split

    monkeypatch.setattr(runs, "load_run_split", spoilt)
    with pytest.warns(UserWarning) as caught:
        train_run(settings, settings.root + "/run", cache=settings.root, workers=1)
    said = [str(one.message) for one in caught]
    for kind in ("training", "test"):
        assert f"1 of 32 {kind} clouds have fewer than a quarter of the 24 points asked for" in said
        assert any(f"2 of 32 {kind} clouds have many points in one place" in one for one in said)


def test_a_network_is_said_to_be_trained_on_what_it_saw(go, settings, tmp_path):
    checkpoint = go(replace(settings, num_points=24)) and load_checkpoint(tmp_path / "run")
    assert trained_points(checkpoint) == checkpoint.extra["points_seen"] == 24
    del checkpoint.extra["points_seen"]  # as networks that come with pcequi
    assert trained_points(checkpoint) == 24


def test_a_run_that_is_thrown_away_leaves_no_graphs(go, settings, tmp_path):
    many = replace(settings, resamplings=2, fit=replace(settings.fit, epochs=3))

    def stop(metrics):
        if metrics["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go(many, on_epoch=stop)
    go(settings, overwrite=True)
    assert not list((tmp_path / "cache").glob("run-*"))


def test_settings_of_another_version_are_named(go, settings, tmp_path):
    (tmp_path / "run").mkdir()
    values = settings.to_dict()
    values["fit"]["tomorrow"] = None
    (tmp_path / "run" / "settings.json").write_text(json.dumps(values))
    named = r"settings.json .*`tomorrow` \(=None\) .*another version"
    with pytest.raises(FileError, match=named) as error:
        load_run_settings(tmp_path / "run")
    assert "damaged" not in str(error.value) and "train again" not in str(error.value)
    with pytest.raises(FileError, match="another version of pcequi"):
        go(resume=True)
    values = settings.to_dict() | {"colour": "red"}
    with pytest.raises(ArgumentError, match=r"`colour` \(='red'\) is a setting that this version"):
        RunSettings.from_dict(values)


def test_two_trainings_of_one_folder_are_noticed(go, tmp_path):
    seen = []

    def second(metrics):
        with pytest.raises(ArgumentError, match="is being trained by another process"):
            go(resume=True)
        seen.append(metrics["epoch"])

    go(on_epoch=second)
    assert seen == [1, 2]
    assert not (tmp_path / "run" / "run.lock").exists()


def test_versions_may_be_like_scans(go, settings, tmp_path):
    settings = replace(settings, fit=replace(settings.fit, epochs=3))
    plain = go(replace(settings, resamplings=1))
    scans = go(replace(settings, resamplings=1, resample_as="scan"), tmp_path / "scans")
    first, second = (
        [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (tmp_path / "run", tmp_path / "scans")
    )
    assert first[0] == second[0] and first[1] != second[1]
    assert (plain["settings"]["resample_as"], scans["settings"]["resample_as"]) == ("shape", "scan")
    with pytest.raises(ArgumentError, match=r"`resample_as` \(='scan'\) says what"):
        replace(settings, resample_as="scan")
    with pytest.raises(ArgumentError, match=r"`resample_as` \(='x'\)"):
        RunSettings(resamplings=1, resample_as="x")


def stores_in(cache):
    return sorted(path.parent for path in cache.glob("**/store.json"))


def test_versions_of_one_epoch_are_made_for_it_and_deleted(go, settings, tmp_path):
    three = replace(settings, resamplings=2, fit=replace(settings.fit, epochs=4))
    cache, seen = tmp_path / "cache", []
    lazy = go(three, on_epoch=lambda metrics: seen.append(len(stores_in(cache))))
    # Epochs 1 and 4 read the clouds themselves, 2 and 3 a version each.
    assert seen == [1, 1, 1, 1] and lazy["seconds"]["precompute_train"] > 0
    assert not list(cache.glob("run-*"))
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    made = ["precompute_seconds" in json.loads(line) for line in lines]
    assert made == [True, True, True, False]

    train, levels = load_run_split(three, True), presets.preset("tiny")["levels"]
    stores = list(precompute_train(train, levels, three, cache=cache, workers=1, quiet=True))
    assert len(stores) == 3
    kept = go(three, tmp_path / "kept")  # takes them from the cache and leaves them there
    assert kept["last_epoch"]["loss"] == lazy["last_epoch"]["loss"]
    assert len(stores_in(cache)) == 3 + len(kept["accuracy"])


def test_versions_of_several_epochs_are_kept(go, settings, tmp_path):
    two = replace(settings, resamplings=1, fit=replace(settings.fit, epochs=4))
    go(two)
    assert len(stores_in(tmp_path / "cache")) == 2 + 2


@pytest.mark.parametrize("where", ["build", "after", "save", "delete"])
def test_a_run_with_versions_that_is_killed_ends_the_same(
    go, settings, tmp_path, monkeypatch, where
):
    three = replace(settings, resamplings=2, fit=replace(settings.fit, epochs=3))
    cache, folder = tmp_path / "cache", tmp_path / "second"
    go(three)
    calls = []

    def second_time(name, owner, before):
        """Kill at the second call, before or after it did its work."""
        real = getattr(owner, name)

        def wrapped(*args, **options):
            calls.append(name)
            if before and len(calls) == 2:
                raise KeyboardInterrupt
            result = real(*args, **options)
            if not before and len(calls) == 2:
                raise KeyboardInterrupt
            return result

        return wrapped

    with monkeypatch.context() as patch:
        if where in ("build", "after"):
            target = (versions, "_precompute")
        elif where == "save":
            target = (state.TrainingState, "save")
        else:
            target = (versions.shutil, "rmtree")
        patch.setattr(*target, second_time(target[1], target[0], where != "after"))
        with pytest.raises(KeyboardInterrupt):
            go(three, folder)
    go(three, folder, resume=True)
    weights = [tmp_path / name / "model.safetensors" for name in ("run", "second")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert not list(cache.glob("run-*"))


def test_other_folders_of_a_run_stay(go, tmp_path):
    mine = tmp_path / "run" / "versions" / "mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    go()
    go(overwrite=True)
    assert mine.read_text() == "mine"


def test_a_training_that_fails_at_once_leaves_no_folder(go, settings, tmp_path):
    wrong = replace(settings, root=str(tmp_path / "nothing"), data="modelnet40")
    with pytest.raises(PcequiError):
        go(wrong, tmp_path / "empty")
    assert not (tmp_path / "empty").exists()
