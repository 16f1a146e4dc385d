"""Odd geometry from the points to the logits: finite, or refused with a reason."""

import logging

import pytest
import torch
from torch_geometric.data import Batch, Data

from pcequi.errors import DataError, PcequiError, ShapeError
from pcequi.graph_store import GraphStore
from pcequi.models import GroupConvClassifier
from pcequi.pose_graph import PoseGraph, build_pose_graph
from pcequi.training import Checkpoint, FitSettings, fit
from pcequi.training.predict import predict_cloud
from pcequi.transforms import BuildPoseGraph


def _line(num):
    return torch.linspace(-1, 1, num, dtype=torch.float64)[:, None]


CLOUDS = {
    "one point": torch.tensor([[0.3, -2.0, 5.0]], dtype=torch.float64),
    "two points": torch.eye(3, dtype=torch.float64)[:2],
    "all points equal": torch.full((50, 3), 0.7, dtype=torch.float64),
    "two places": torch.eye(3, dtype=torch.float64)[:2].repeat(20, 1),
    "collinear": _line(40) * torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64),
    "coplanar": torch.cartesian_prod(_line(7)[:, 0], _line(5)[:, 0], torch.zeros(1).double()),
}


@pytest.fixture(scope="module")
def model():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return GroupConvClassifier.from_preset("small", 5).eval()


@pytest.fixture(scope="module")
def logits(model):
    @torch.no_grad()
    def of(*clouds):
        graphs = [build_pose_graph(cloud, model.levels, dtype=torch.float32) for cloud in clouds]
        return model(PoseGraph.batch(graphs))

    return of


@pytest.fixture
def cloud(make_blob):
    return make_blob(60)


@pytest.mark.filterwarnings("ignore:the size of a cloud does not fit:UserWarning")
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("name", CLOUDS)
def test_degenerate_clouds_have_finite_logits(logits, name, scale):
    for dtype in (torch.float32, torch.float64):
        out = logits((scale * CLOUDS[name]).to(dtype))
        assert out.shape == (1, 5) and torch.isfinite(out).all()


@pytest.mark.parametrize("name", CLOUDS)
def test_degenerate_clouds_are_alike_in_a_batch_and_alone(logits, cloud, name):
    both = logits(cloud, CLOUDS[name], cloud)
    torch.testing.assert_close(both[1:2], logits(CLOUDS[name]))
    torch.testing.assert_close(both[0], both[2])


# A shift takes away the digits that a small cloud is written in.
@pytest.mark.parametrize(
    ("scale", "shift"),
    [(1e-30, 0.0), (1e-6, 0.0), (1e6, 0.0), (1e30, 0.0), (1.0, 1e6), (1e6, 1e6), (1e30, 1e6)],
)
def test_predictions_do_not_depend_on_units(model, cloud, scale, shift):
    checkpoint = Checkpoint(model, list("abcde"))
    expected = predict_cloud(checkpoint, cloud, top=5)
    found = predict_cloud(checkpoint, cloud * scale + shift, top=5)
    assert [p["class"] for p in found] == [p["class"] for p in expected]
    for a, b in zip(found, expected, strict=True):
        assert a["probability"] == pytest.approx(b["probability"], abs=1e-4)


def test_float16_and_float64_clouds_give_what_float32_gives(logits, cloud):
    half = cloud.half()
    expected = logits(half.float())
    assert torch.equal(logits(half.double()), expected)
    assert torch.equal(logits(half), expected)


@pytest.mark.parametrize(
    ("points", "kind", "message"),
    [
        (torch.zeros(0, 3), DataError, "has no points|empty|at least one point"),
        (torch.zeros(4, 2), ShapeError, r"`pos`.*\[4, 2\]"),
        (torch.zeros(4, 3, dtype=torch.long), ShapeError, "`pos`.*int64"),
        (torch.tensor([[0.0, 0, torch.nan]]), DataError, "1 points that are NaN or infinite"),
        (torch.tensor([[0.0, 0, torch.inf]]), DataError, "1 points that are NaN or infinite"),
    ],
)
def test_what_is_no_cloud_is_refused(logits, points, kind, message):
    with pytest.raises(kind, match=message):
        logits(points)


def test_a_set_with_degenerate_clouds_trains(model, tmp_path, caplog):
    clouds = [cloud.float() for cloud in CLOUDS.values()]
    with caplog.at_level(logging.WARNING):
        store = GraphStore.build(tmp_path / "graphs", clouds, model.levels, workers=1)
    store.verify()
    assert not caplog.records
    network = GroupConvClassifier.from_preset("small", 2)
    labels = torch.arange(len(clouds)) % 2
    history = fit(network, store, labels, FitSettings(epochs=2, batch_size=3), quiet=True)
    assert all(torch.isfinite(torch.tensor(metrics["loss"])) for metrics in history)
    assert all(torch.isfinite(value).all() for value in network.state_dict().values())


def test_a_training_that_diverges_stops_and_says_where(model, tmp_path, make_blob):
    clouds = [make_blob(30, seed).float() for seed in range(6)]
    store = GraphStore.build(tmp_path / "graphs", clouds, model.levels, workers=1)
    network = GroupConvClassifier.from_preset("small", 2)
    settings = FitSettings(epochs=3, batch_size=3)
    folder = tmp_path / "run"

    def poison(metrics):
        if metrics["epoch"] == 2:
            torch.nn.init.constant_(network.head[-1].weight, torch.inf)

    with pytest.raises(PcequiError, match=r"not finite at epoch 3, step 5 of 6 .*lower `lr`"):
        fit(network, store, torch.arange(6) % 2, settings, folder=folder, quiet=True,
            on_epoch=poison)  # fmt: skip
    # The epochs before it are kept.
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 2


def test_one_point_and_two_hundred_thousand_in_one_batch(model):
    generator = torch.Generator().manual_seed(0)
    many = torch.nn.functional.normalize(torch.randn(200_000, 3, generator=generator), dim=1)
    many = many * torch.tensor([1.0, 0.7, 0.4])
    build = BuildPoseGraph(model.levels)
    clouds = [build(Data(pos=pos)) for pos in (many, torch.zeros(1, 3), many[:500])]
    with torch.no_grad():
        out = model(Batch.from_data_list(clouds))
    assert out.shape == (3, 5) and torch.isfinite(out).all()
