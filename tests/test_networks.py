"""The trained networks that come with pcequi: small, described, invariant, and right."""

import json

import numpy as np
import pytest
import torch

from pcequi.cli import main
from pcequi.datasets.modelnet import MODELNET_CLASSES
from pcequi.datasets.readers import read_points
from pcequi.errors import ArgumentError, FileError
from pcequi.models import GroupConvClassifier
from pcequi.networks import (
    FOLDER,
    FOR_SCANS,
    TOGETHER,
    find_network,
    load_network,
    network_card,
    network_names,
)
from pcequi.rotations import random_rotations
from pcequi.training.checkpoints import save_checkpoint
from pcequi.training.predict import predict_cloud

NAMES = network_names()


def test_all_are_there():
    assert NAMES == [
        "modelnet40",
        "modelnet40-large",
        "modelnet40-large-scan",
        "modelnet40-pairs",
        "modelnet40-scan",
        "modelnet40-small",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_files_are_small_and_the_card_is_about_these_weights(name):
    assert (FOLDER / f"{name}.safetensors").stat().st_size < 5 * 2**20
    checkpoint, card = load_network(name), network_card(name)
    assert checkpoint.classes == MODELNET_CLASSES["40"] and checkpoint.extra["num_points"] == 1024
    assert all(f"| {label} |" in card for label in checkpoint.classes)
    assert f"{sum(p.numel() for p in checkpoint.model.parameters()):,} parameters" in card
    for word in ("Limits", "Licence", checkpoint.extra["protocol"], "last epoch"):
        assert word in card


@pytest.mark.parametrize("name", NAMES)
def test_the_weights_fit_the_code_that_makes_graphs(name):
    """Shapes that the networks never saw, made here: a cone, a wooden table, a chair."""
    checkpoint = load_network(name)
    for label, cloud in (("cone", cone()), ("table", table()), ("chair", chair())):
        turn = random_rotations(1, generator=torch.Generator().manual_seed(3))[0].to(cloud)
        plain, turned = (predict_cloud(checkpoint, x) for x in (cloud, cloud @ turn.T))
        assert plain[0]["class"] == label
        for one, other in zip(plain, turned):
            assert one["class"] == other["class"]
            assert one["probability"] == pytest.approx(other["probability"], abs=1e-3)


def test_a_network_by_name():
    model = GroupConvClassifier.from_preset("modelnet40-small")
    assert model.settings["num_classes"] == 40 and model.head[0].weight.dtype == torch.float32
    with pytest.raises(ArgumentError, match="`num_classes`"):
        GroupConvClassifier.from_preset("small")
    with pytest.raises(ArgumentError, match="`name`"):
        load_network("modelnet41")


def test_a_network_is_found_by_name_or_by_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    named = find_network("modelnet40-small")
    assert named.classes == MODELNET_CLASSES["40"]
    other = GroupConvClassifier.from_preset("small", 2)
    save_checkpoint("modelnet40-small", other, ["a", "b"])  # a folder of that name comes first
    assert find_network(tmp_path / "modelnet40-small").classes == ["a", "b"]
    assert find_network("modelnet40-small").classes == ["a", "b"]
    with pytest.raises(FileError, match="nowhere"):
        find_network("nowhere")


def test_files_are_classified_without_a_run(tmp_path, capsys):
    path = tmp_path / "cone.xyz"
    path.write_text("\n".join(" ".join(map(str, row)) for row in cone().tolist()))
    with pytest.raises(SystemExit) as stop:
        main(["predict", str(path), "--json", "--threads", "1"])
    found = json.loads(capsys.readouterr().out)
    assert stop.value.code == 0 and found["network"] == list(TOGETHER)
    together = found["files"][0]["predictions"]
    alone = []
    for name in TOGETHER:
        with pytest.raises(SystemExit) as stop:
            main(["predict", str(path), "--network", name, "--json", "--threads", "1"])
        found = json.loads(capsys.readouterr().out)
        assert stop.value.code == 0 and found["network"] == name
        alone.append(found["files"][0]["predictions"][0])
    assert [p["class"] for p in (together[0], *alone)] == ["cone"] * 4
    mean = sum(p["probability"] for p in alone) / len(alone)
    assert together[0]["probability"] == pytest.approx(mean, abs=2e-6)
    with pytest.raises(SystemExit) as stop:
        main(["predict", str(tmp_path), "--json", "--threads", "1"])
    found = json.loads(capsys.readouterr().out)
    assert stop.value.code == 0 and found["files"] == [{"file": str(path), "predictions": together}]


def test_two_that_learned_from_scans_are_asked_for_scans(tmp_path, capsys):
    np.save(tmp_path / "chair.npy", chair().numpy())
    with pytest.raises(SystemExit, match="^0$"):
        main(["predict", str(tmp_path / "chair.npy"), "--scans", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["network"] == list(FOR_SCANS)
    for name in FOR_SCANS:
        assert load_network(name).extra["resample_as"] == "scan"
    pos = read_points(tmp_path / "chair.npy", 1024).pos
    expected = predict_cloud([load_network(name) for name in FOR_SCANS], pos)
    assert found["files"][0]["predictions"] == expected


def draw(num, seed=0):
    return torch.rand(num, 3, generator=torch.Generator().manual_seed(seed))


def cone():
    x = draw(1024)
    height = 1 - x[:, 0].sqrt()
    angle = 6.283185307 * x[:, 1]
    return torch.stack([(1 - height) * angle.cos(), (1 - height) * angle.sin(), 2.5 * height], 1)


def boxes(*places):
    """Points over the faces of boxes (centre, half sides), by area."""
    parts = [(torch.tensor(c), torch.tensor(h)) for c, h in places]
    areas = [float(h[0] * h[1] + h[1] * h[2] + h[2] * h[0]) for _, h in parts]
    made = []
    for seed, ((centre, half), area) in enumerate(zip(parts, areas, strict=True)):
        num = max(16, round(1024 * area / sum(areas)))
        x, pick = 2 * draw(num, seed) - 1, draw(num, 99 + seed)
        faces = torch.stack([half[1] * half[2], half[2] * half[0], half[0] * half[1]])
        side = torch.multinomial(faces, num, True, generator=torch.Generator().manual_seed(seed))
        x[torch.arange(num), side] = (pick[:, 0] < 0.5).float() * 2 - 1
        made.append(centre + half * x)
    return torch.cat(made)


def legs(x, y, height, thick=0.04):
    return [((a, b, -height), (thick, thick, height)) for a in (-x, x) for b in (-y, y)]


def table():
    return boxes(((0.0, 0.0, 0.0), (1.0, 0.6, 0.04)), *legs(0.92, 0.52, 0.4))


def chair():
    back = ((0.0, 0.45, 0.55), (0.45, 0.04, 0.5))
    return boxes(((0.0, 0.0, 0.0), (0.45, 0.45, 0.05)), back, *legs(0.4, 0.4, 0.3))


def test_a_trained_network_for_other_classes_keeps_what_it_has_learned():
    trained = load_network("modelnet40-small").model
    own = GroupConvClassifier.from_preset("modelnet40-small", num_classes=3)
    assert own.settings["num_classes"] == 3 and own.head[-1].out_features == 3
    same = {
        name: torch.equal(value, trained.state_dict()[name])
        for name, value in own.state_dict().items()
        if not name.startswith("head.4.")
    }
    assert same and all(same.values())
