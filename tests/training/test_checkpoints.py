"""A checkpoint gives back the same network; anything else is refused with a remedy."""

import json

import pytest
import torch

from pcequi.errors import ArgumentError, FileError, PcequiError
from pcequi.kernels import kernel_points
from pcequi.report import peak_memory
from pcequi.training import load_checkpoint, save_checkpoint
from pcequi.training.predict import predict_files


@pytest.fixture
def saved(tiny, tmp_path):
    model = tiny.tiny_model()
    save_checkpoint(tmp_path / "run", model, tiny.CLASSES, {"seed": 3})
    return model.eval(), tmp_path / "run"


@pytest.mark.parametrize("name", ["", "model.safetensors", "model.json"])
def test_a_network_comes_back_the_same(saved, store, name):
    model, folder = saved
    checkpoint = load_checkpoint(folder / name)
    assert checkpoint.classes == ["ball", "plate", "rod"] and checkpoint.extra == {"seed": 3}
    assert not checkpoint.model.training
    graph = store.batch([0, 4])
    with torch.no_grad():
        assert torch.equal(model(graph), checkpoint.model(graph))


def test_other_names_and_types_work(tiny, tmp_path):
    model = tiny.tiny_model().double()
    path = save_checkpoint(tmp_path / "best.safetensors", model, tiny.CLASSES)
    assert path.name == "best.safetensors" and (tmp_path / "best.json").exists()
    assert load_checkpoint(path).model.head[0].weight.dtype == torch.float64


def test_classes_must_be_as_many_as_the_logits(tiny, tmp_path):
    with pytest.raises(ArgumentError, match=r"`classes` \(=2 names\).*\(=3\)"):
        save_checkpoint(tmp_path, tiny.tiny_model(), ["a", "b"])


def test_nothing_there(tmp_path):
    with pytest.raises(FileError, match=r"`path` .*holds no checkpoint.*pcequi train"):
        load_checkpoint(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["model.safetensors", "model.json"])
def test_a_missing_or_damaged_file_is_named(saved, name):
    _, folder = saved
    path = folder / name
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(FileError, match=rf"{name} is damaged .*train again"):
        load_checkpoint(folder)
    path.unlink()
    with pytest.raises(FileError, match=rf"{name} (is missing|cannot be read).*train again"):
        load_checkpoint(folder)


def change(folder, **values):
    path = folder / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_another_version_is_named(saved):
    change(saved[1], version=99)
    with pytest.raises(FileError, match=r"has version 99.*reads version 1: install"):
        load_checkpoint(saved[1])


@pytest.mark.parametrize(
    "values", [{"settings": {"levels": []}}, {"settings": None}, {"classes": 3}, {"extra": 5}]
)
def test_settings_that_make_no_network_are_refused(saved, values):
    change(saved[1], **values)
    with pytest.raises(FileError, match="describes no network that fits"):
        load_checkpoint(saved[1])


def test_settings_of_a_huge_network_beside_small_weights_allocate_nothing(saved):
    header = json.loads((saved[1] / "model.json").read_text())
    for key, value in (("channels", [1 << 18] * 2), ("head_channels", 1 << 40)):
        change(saved[1], settings=header["settings"] | {key: value})
        before = peak_memory()["process"]
        with pytest.raises(FileError, match="model.json describes no network that fits"):
            load_checkpoint(saved[1])
        # 2^18 channels squared are more than 256 GB.
        assert peak_memory()["process"] < before + 100


def test_constants_are_real_after_the_weights_were_compared(saved):
    kernel_points.cache_clear()
    model = load_checkpoint(saved[1]).model
    assert kernel_points(7)[0].device.type == "cpu"
    assert {value.device.type for value in model.state_dict().values()} == {"cpu"}


@pytest.mark.parametrize("num_points", ["many", [1], -3, 2.5])
def test_a_number_of_points_that_is_none_is_named(saved, num_points, tmp_path):
    change(saved[1], extra={"num_points": num_points})
    with pytest.raises(PcequiError, match="`num_points`"):
        predict_files(load_checkpoint(saved[1]), [tmp_path / "cloud.npy"])


def test_other_classes_are_refused(saved):
    change(saved[1], classes=["one"])
    with pytest.raises(FileError, match="names 1 classes"):
        load_checkpoint(saved[1])


def test_another_file_in_its_place_is_refused(saved):
    change(saved[1], format="something else")
    with pytest.raises(FileError, match="not a checkpoint of pcequi"):
        load_checkpoint(saved[1])


def test_weights_of_another_run_are_refused(saved, tiny, tmp_path):
    save_checkpoint(tmp_path / "other", tiny.tiny_model(seed=1), tiny.CLASSES)
    weights = tmp_path / "other" / "model.safetensors"
    weights.replace(saved[1] / "model.safetensors")
    with pytest.raises(FileError, match="does not belong to model.json"):
        load_checkpoint(saved[1])


def test_an_exchanged_layer_is_refused_when_it_is_saved(tiny, tmp_path):
    model = tiny.tiny_model()
    model.head[-1] = torch.nn.Linear(model.head[-1].in_features, 7)
    with pytest.raises(ArgumentError, match=r"`model` has other layers .*num_classes"):
        save_checkpoint(tmp_path, model, tiny.tiny_split().classes)
    assert not list(tmp_path.iterdir())


def test_folders_of_other_kinds_are_named(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FileError, match=r"is a folder of `save_pretrained`"):
        load_checkpoint(tmp_path)
    (tmp_path / "config.json").rename(tmp_path / "state.safetensors")
    with pytest.raises(FileError, match=r"has not ended; end it with `pcequi train --resume --run"):
        load_checkpoint(tmp_path)
