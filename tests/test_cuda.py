"""What a GPU computes is what the CPU computes. Skipped where there is none."""

import pytest
import torch

from pcequi.graph_device import DeviceGraphs
from pcequi.graph_store import GraphStore
from pcequi.models import GroupConvClassifier
from pcequi.pose_graph import PoseGraph, build_pose_graph
from pcequi.training.fit import FitSettings, fit, predict_logits

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]


@pytest.fixture(scope="module")
def clouds():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(n, 3, generator=generator) / 3 for n in range(150, 190, 4)]


def network(name, **options):
    torch.manual_seed(0)
    return GroupConvClassifier.from_preset(name, num_classes=3).to(**options)


@pytest.fixture
def store(request, clouds, tmp_path):
    return GraphStore.build(tmp_path, clouds, network(request.param).levels, workers=1)


NAMES = pytest.mark.parametrize(
    "store, name", [(n, n) for n in ("default", "pairs", "large")], indirect=["store"]
)


@NAMES
def test_logits_and_gradients(store, name):
    rows, found = torch.tensor([4, 0, 7]), []
    for device, form in (("cpu", "store"), ("cuda", "store"), ("cuda", "device")):
        model = network(name, dtype=torch.float64, device=device)
        model.head[3].p = 0.0
        if form == "store":
            graph = store.batch(rows).to(device, torch.float64)
        else:
            graph = DeviceGraphs.load(store, device, torch.float64).batch(rows.to(device))
        logits = model(graph)
        logits.square().sum().backward()
        found.append([logits.detach().cpu(), *(p.grad.cpu() for p in model.parameters())])
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            torch.testing.assert_close(one, two, atol=1e-8, rtol=1e-6)


@pytest.mark.parametrize("name", ["default", "pairs"])
def test_a_graph_built_on_a_gpu(clouds, name):
    levels = network(name).levels
    for cloud in clouds[:2]:
        here, there = (build_pose_graph(c.double(), levels) for c in (cloud, cloud.cuda()))
        for one, two in zip(here.levels, there.levels, strict=True):
            assert two.weight.is_cuda
            torch.testing.assert_close(one.weight, two.weight.cpu(), atol=1e-6, rtol=1e-6)
    model = network(name, dtype=torch.float64).eval()
    expected = model(here)
    torch.testing.assert_close(model.cuda()(there).cpu(), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("store", ["small"], indirect=True)
def test_captured_steps_take_the_steps_that_are_not(store, monkeypatch):
    labels = torch.arange(10) % 3
    settings = FitSettings(epochs=6, batch_size=5, lr=1e-3, mixup=0.3)
    found = []
    for switch in ("0", "1"):
        monkeypatch.setenv("PCEQUI_NO_CUDA_GRAPHS", switch)
        model = network("small", dtype=torch.float64)
        model.head[3].p = 0.0
        history = fit(model, store, labels, settings, device="cuda", quiet=True)
        found.append((history, predict_logits(model, store, device="cuda")))
    for one, two in zip(found[0][0], found[1][0], strict=True):
        assert one["loss"] == pytest.approx(two["loss"], rel=1e-6)
    torch.testing.assert_close(found[0][1], found[1][1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("store", ["small"], indirect=True)
def test_it_learns_in_bfloat16_and_resumes(store, tmp_path):
    labels = torch.arange(10) % 3
    settings = FitSettings(epochs=30, batch_size=5, lr=5e-3, precision="bfloat16")

    class Stop(Exception):
        pass

    def stop(metrics):
        if metrics["epoch"] == 10:
            raise Stop

    folder = tmp_path / "run"
    with pytest.raises(Stop):
        fit(
            network("small"), store, labels, settings, device="cuda", quiet=True, folder=folder,
            on_epoch=stop,
        )  # fmt: skip
    model = network("small")
    history = fit(
        model, store, labels, settings, device="cuda", quiet=True, folder=folder, resume=True
    )
    assert len(history) == 30 and history[-1]["loss"] < 0.7 * history[0]["loss"]


def test_a_batch_of_graphs_of_different_sizes(clouds):
    from pcequi.pose_graph import Level
    from pcequi.poses import TangentPoses
    from pcequi.sampling import FeatureSampler

    sampler = FeatureSampler(tolerance=0.4, num=60)
    levels = [Level(0.5, TangentPoses(4), sampler), Level(0.9, TangentPoses(4), sampler)]
    torch.manual_seed(0)
    model = GroupConvClassifier(levels, 3, [4, 6]).double().eval()
    graph = PoseGraph.batch([build_pose_graph(c.double(), levels) for c in clouds[:3]])
    expected = model(graph)
    torch.testing.assert_close(model.cuda()(graph.to("cuda")).cpu(), expected)
