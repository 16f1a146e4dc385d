"""A network may begin with the weights of another."""

import shutil
from dataclasses import replace

import pytest
import torch

from pcequi.errors import ArgumentError, FileError
from pcequi.models import GroupConvClassifier, presets
from pcequi.training import FitSettings, RunSettings, load_checkpoint, save_checkpoint, train_run
from pcequi.training.start import start_from


def weights_of(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.fixture
def trained(tiny, tmp_path):
    save_checkpoint(tmp_path / "trained", tiny.tiny_model(seed=1), tiny.CLASSES)
    return tmp_path / "trained"


def test_all_weights_are_taken_where_classes_are_the_same(tiny, trained):
    model = tiny.tiny_model(seed=2)
    assert start_from(model, tiny.CLASSES, trained)
    wanted = tiny.tiny_model(seed=1).state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("classes", [["a", "b"], ["rod", "plate", "ball"]], ids=str)
def test_other_classes_keep_their_last_layer(classes, tiny, trained):
    model = tiny.tiny_model(seed=2, num_classes=len(classes))
    before, wanted = weights_of(model), tiny.tiny_model(seed=1).state_dict()
    assert not start_from(model, classes, trained)
    for name, value in model.state_dict().items():
        same = before if name.startswith("head.4.") else wanted
        assert torch.equal(value, same[name]), name


def test_budgets_may_differ(tiny, trained):
    first, *rest = tiny.tiny_levels()
    levels = [replace(first, sampling=replace(first.sampling, num=5)), *rest]
    model = GroupConvClassifier(levels, 3, [6, 8], head_channels=16)
    assert start_from(model, tiny.CLASSES, trained)


def test_other_layers_are_refused_and_nothing_is_changed(tiny, trained):
    model = GroupConvClassifier(tiny.tiny_levels(), 3, [6, 9], head_channels=16)
    before = weights_of(model)
    with pytest.raises(ArgumentError, match=r"`start` .*its weight blocks\.0\..*: no preset"):
        start_from(model, tiny.CLASSES, trained)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with pytest.raises(ArgumentError, match="layers like its own have: large$"):
        start_from(model, tiny.CLASSES, "modelnet40-large")
    with pytest.raises(FileError, match="holds no checkpoint"):
        start_from(model, tiny.CLASSES, trained / "none")


def test_a_run_starts_from_another_and_resumes_without_it(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(presets.PRESETS, "tiny", tiny.tiny_settings)
    fit = FitSettings(epochs=1, batch_size=8)
    settings = RunSettings(
        root=str(tmp_path / "data"), num_points=24, limit=2, preset="tiny", fit=fit
    )
    options = {"cache": tmp_path / "cache", "workers": 1, "quiet": True}
    train_run(settings, tmp_path / "first", **options)
    # Steps of nothing leave weights where they started; statistics of batch norms move.
    idle = replace(fit, lr=1e-30, weight_decay=0.0, epochs=2)
    second = replace(settings, start=str(tmp_path / "first"), fit=idle)

    def stop(metrics):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_run(second, tmp_path / "second", on_epoch=stop, **options)
    wanted = load_checkpoint(tmp_path / "first").model
    shutil.rmtree(tmp_path / "first")
    train_run(second, tmp_path / "second", resume=True, **options)
    found = load_checkpoint(tmp_path / "second")
    assert found.extra["start"] == second.start
    for (name, value), same in zip(found.model.named_parameters(), wanted.parameters()):
        torch.testing.assert_close(value, same, msg=name)
