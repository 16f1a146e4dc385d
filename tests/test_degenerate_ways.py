"""Odd geometry by every way in: caches, the transform, the online network, `pcequi predict`."""

import json

import numpy as np
import pytest
import torch
from torch_geometric.data import Batch, Data

from pcequi.cli import main
from pcequi.graph_store import GraphStore
from pcequi.models import GroupConvClassifier
from pcequi.models.online import forward_online
from pcequi.pose_graph import build_pose_graph
from pcequi.training import save_checkpoint
from pcequi.transforms import BuildPoseGraph

NAMES = ("one point", "one place", "collinear", "coplanar", "cube", "grid", "sphere", "prism")
#: Units and places: what float32 holds of a cloud that lies 1e6 away is a thousandth of nothing.
PLACES = {
    "as it is": (1.0, 0.0),
    "tiny": (1e-6, 0.0),
    "huge": (1e6, 0.0),
    "far away": (1.0, 1e6),
    "huge and far": (1e6, 1e6),
}


@pytest.fixture(scope="module")
def model():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return GroupConvClassifier.from_preset("small", 3).eval()


def by_store(model, clouds, folder):
    store = GraphStore.build(folder, clouds, model.levels, workers=1)
    store.verify()
    return model(store.batch(range(len(clouds))))


def by_transform(model, clouds, folder):
    build = BuildPoseGraph(model.levels)
    return model(Batch.from_data_list([build(Data(pos=pos)) for pos in clouds]))


def online(model, clouds, folder):
    return forward_online(model, clouds)


def directly(model, clouds):
    graphs = [build_pose_graph(pos, model.levels, dtype=torch.float32) for pos in clouds]
    return torch.cat([model(graph) for graph in graphs])


WAYS = {"store": by_store, "transform": by_transform, "online": online}


@pytest.mark.filterwarnings("ignore:the size of a cloud does not fit:UserWarning")
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("way", WAYS)
@torch.no_grad()
def test_logits_are_finite_or_the_reason_is_given(
    model, named_cloud, tmp_path, way, place, dtype, caplog
):
    scale, shift = PLACES[place]
    clouds = [(named_cloud(name) * scale + shift).to(dtype) for name in NAMES]
    if not all(torch.isfinite(cloud).all() for cloud in clouds):
        # Half precision ends at 65,504.
        with pytest.raises(ValueError, match="NaN or infinite"):
            WAYS[way](model, clouds, tmp_path)
        return
    logits = WAYS[way](model, clouds, tmp_path)
    assert logits.shape == (len(NAMES), 3) and torch.isfinite(logits).all()
    assert not caplog.records
    # Sampled online, the deeper levels choose by features: another network run.
    if way != "online":
        tolerance = 2e-2 if way == "store" else 1e-4
        torch.testing.assert_close(logits, directly(model, clouds), atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("kind", ["f2", "f4", "f8"])
def test_the_command_answers_for_each_or_names_it(model, named_cloud, tmp_path, capsys, kind):
    save_checkpoint(tmp_path / "run", model, ["a", "b", "c"], {"num_points": 300})
    files, bad = [], []
    for place, (scale, shift) in PLACES.items():
        for name in NAMES:
            path = tmp_path / f"{place} {name}.npy"
            with np.errstate(over="ignore"):
                values = (named_cloud(name) * scale + shift).numpy().astype(kind)
            np.save(path, values)
            files.append(path)
            if not np.isfinite(values).all():
                bad.append(str(path))
    arguments = ["predict", str(tmp_path / "run"), *map(str, files), "--json", "--threads", "1"]
    with pytest.raises(SystemExit) as end:
        main(arguments)
    found = json.loads(capsys.readouterr().out)["files"]
    assert end.value.code == bool(bad)
    assert [one["file"] for one in found if "error" in one] == bad
    by_name = {}
    for path, one in zip(files, found, strict=True):
        if "error" in one:
            assert str(path) in one["error"] and "NaN or infinite" in one["error"]
            continue
        shares = {p["class"]: p["probability"] for p in one["predictions"]}
        assert sum(shares.values()) == pytest.approx(1, abs=1e-4)
        if kind == "f8":
            name = next(name for name in NAMES if path.stem.endswith(name))
            by_name.setdefault(name, []).append(shares)
    # In double precision nothing is lost: the answer does not depend on units or place.
    for answers in by_name.values():
        for answer in answers[1:]:
            assert answer == pytest.approx(answers[0], abs=1e-3)
