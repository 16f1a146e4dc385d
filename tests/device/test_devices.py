"""The paths of a GPU keep to one device, on a GPU that is only pretended."""

import contextlib
import importlib
import weakref

import pytest
import torch
from pretend import MixedDevices, PretendGPU, Waits, no_waiting, side

from pcequi.errors import PcequiError, ShapeError
from pcequi.graph_device import DeviceGraphs
from pcequi.graph_store import GraphStore
from pcequi.kernels import SE3Kernel
from pcequi.models import GroupConvClassifier, extract_features, forward_online, preset
from pcequi.nn import GroupConv
from pcequi.nn.checks import check_features, check_level, check_turn
from pcequi.ops import dense
from pcequi.pose_graph import Level, PoseGraph, build_pose_graph, build_pose_graphs
from pcequi.poses import GridPoses, PairPoses, TangentPoses
from pcequi.sampling import FeatureSampler
from pcequi.testing import check_equivariance
from pcequi.training import epoch, step
from pcequi.training.fit import FitSettings, fit, predict_logits

fit_module = importlib.import_module("pcequi.training.fit")  # the name is the function's, too
NAMES = ("default", "pairs", "large")


@pytest.fixture(autouse=True)
def pretended(monkeypatch):
    monkeypatch.setenv("PCEQUI_NO_CUDA_GRAPHS", "1")  # replaying is for a GPU itself
    for module in (epoch, fit_module):  # what is pretended is so in one thread
        monkeypatch.setattr(module, "prefetch", lambda function, items: map(function, items))
    autocast = torch.autocast
    monkeypatch.setattr(torch, "autocast", lambda device, *a, **k: autocast("cpu", *a, **k))
    monkeypatch.setattr(torch.cuda, "Stream", lambda device=None: None)
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device=None: None)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device=None: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (2**40, 2**40))
    monkeypatch.setattr(dense, "has_triton", lambda: False)  # kernels are for a GPU itself


@pytest.fixture
def clouds(generator):
    return [torch.randn(n, 3, generator=generator).double() / 3 for n in (150, 180, 160, 170)]


def sides(graph):
    tensors = [v for level in graph.levels for v in vars(level).values()]
    return {side(v) for v in tensors if isinstance(v, torch.Tensor)}


def test_what_a_gpu_would_refuse_is_refused(generator):
    with PretendGPU():
        here = torch.randn(3, 3, generator=generator)
        there = here.to("cuda")
        assert there.is_cuda and there.device.type == "cuda" and not here.is_cuda
        assert side(there @ there.T) == side(torch.zeros(3, device="cuda")) == "cuda"
        assert side(there.cpu()) == side(torch.zeros(3)) == "cpu"
        assert side(there * here[0, 0]) == "cuda"  # a number may come from the CPU
        for wrong in (
            lambda: there @ here,
            lambda: torch.cat([there, here]),
            lambda: there.index_select(0, torch.arange(2)),
            lambda: there.numpy(),
        ):
            with pytest.raises(MixedDevices):
                wrong()


@pytest.mark.parametrize("name", NAMES)
def test_graphs_built_on_a_gpu_are_those_of_the_cpu(name, generator):
    levels = preset(name)["levels"]
    pos = torch.randn(560, 3, generator=generator).double() / 3
    here = build_pose_graph(pos, levels)
    with PretendGPU():
        single = build_pose_graph(pos.cuda(), levels)
        batch = build_pose_graphs([pos.cuda()], levels)
        assert sides(single) == sides(batch) == {"cuda"}
    for found in (single, batch):
        for one, two in zip(here.levels, found.levels, strict=True):
            torch.testing.assert_close(one.weight, two.weight)
            torch.testing.assert_close(one.rot, two.rot)


@pytest.mark.parametrize("poses", [TangentPoses(4), PairPoses(4), GridPoses("T")], ids=str)
@pytest.mark.parametrize("center, blend", [("medoid", 1), ("mean", 1), ("mean", 4)])
def test_other_poses(poses, center, blend, levels_of, make_blob, network):
    levels = levels_of(poses, num=20, refine=1, center=center, blend=blend)
    pos, model = make_blob(50), network(levels)
    expected = model(build_pose_graph(pos, levels))
    with PretendGPU():
        graph = build_pose_graph(pos.to("cuda"), levels)
        assert sides(graph) == {"cuda"}
        torch.testing.assert_close(model.to("cuda")(graph).cpu(), expected)


@pytest.mark.parametrize("blend", [1, 4])
def test_fitted_rows_of_orbits(blend, make_blob, network):
    grid = GridPoses("D2", "manhattan")
    sampling = FeatureSampler(num=16, refine=1, center="mean", blend=blend, orbits=True)
    levels = [Level(radius, grid, sampling, num_points=20) for radius in (0.5, 0.9)]
    pos, model = make_blob(50), network(levels)
    expected = model(build_pose_graph(pos, levels))
    with PretendGPU():
        for build in (build_pose_graph, lambda pos, levels: build_pose_graphs([pos], levels)):
            graph = build(pos.to("cuda"), levels)
            assert sides(graph) == {"cuda"}
            torch.testing.assert_close(model.to("cuda")(graph).cpu(), expected)


@pytest.mark.parametrize(
    "name, precision, held",
    [
        ("default", "bfloat16", True),
        ("pairs", "float32", True),
        ("small", "float32", False),
        ("small", "bfloat16", False),
    ],
)
def test_training(name, precision, held, clouds, tmp_path, monkeypatch):
    torch.manual_seed(0)
    model = GroupConvClassifier.from_preset(name, num_classes=2)
    store = GraphStore.build(tmp_path / "graphs", clouds, model.levels, workers=1)
    labels = torch.tensor([0, 1, 0, 1])
    settings = FitSettings(epochs=2, batch_size=2, mixup=0.3, precision=precision)
    if not held:  # from the store, batch by batch
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (0, 0))
    with PretendGPU():
        history = fit(
            model, store, labels, settings, device="cuda", quiet=True, folder=tmp_path / "run",
            val_rows=torch.tensor([3]),
        )  # fmt: skip
        assert {side(p) for p in model.parameters()} == {"cuda"}
        logits = predict_logits(model, store, device="cuda")
        assert side(logits) == "cpu"
    assert len(history) == 2 and torch.isfinite(logits).all()


@pytest.mark.parametrize("device, most", [("cpu", 64), ("cuda", 256)])
def test_more_clouds_are_asked_together_on_a_gpu(device, most, clouds, tmp_path, monkeypatch):
    torch.manual_seed(0)
    model = GroupConvClassifier.from_preset("small", num_classes=2)
    store = GraphStore.build(tmp_path, clouds, model.levels, workers=1)
    sizes, rows = [], torch.arange(300) % len(clouds)
    load = fit_module.load_batch

    def noted(model, store, rows, **options):
        sizes.append(len(rows))
        return load(model, store, rows, **options)

    monkeypatch.setattr(fit_module, "load_batch", noted)
    with PretendGPU():
        logits = predict_logits(model.to(device), store, rows, device=device)
    assert max(sizes) == most and sum(sizes) == 300
    assert torch.allclose(logits, logits[rows], atol=1e-5)


def test_blocks_are_made_where_they_pay(clouds, tmp_path):
    model = GroupConvClassifier.from_preset("default", num_classes=2).double().eval()
    store = GraphStore.build(tmp_path, clouds, model.levels, workers=1)
    expected = model(store.batch([0, 2]).to(torch.float64))
    with PretendGPU():
        model.to("cuda")
        given = model(store.batch([0, 2]).to("cuda", torch.float64))
        held = DeviceGraphs.load(store, "cuda", torch.float64)
        lying = model(held.batch(torch.tensor([0, 2], device="cuda")))
        assert side(given) == side(lying) == "cuda"
    torch.testing.assert_close(given, expected)
    torch.testing.assert_close(lying, expected)


def test_online_features_and_the_layer_alone(levels_of, make_blob, network, generator):
    model, cloud = network(levels_of(num=20)), make_blob(40)
    conv = GroupConv(3, 4, SE3Kernel(num_points=7)).double()
    x = torch.randn(9, 3, generator=generator).double()
    edges = torch.randint(9, (2, 30), generator=generator)
    offset = torch.randn(30, 3, generator=generator).double() * 0.3
    with PretendGPU():
        model.to("cuda"), conv.to("cuda")
        assert side(forward_online(model, [cloud.to("cuda")])) == "cuda"
        found = extract_features(model, cloud.to("cuda"))
        assert side(found.levels[1].per_point()) == "cuda"
        assert side(conv(x.to("cuda"), edges.to("cuda"), (offset.to("cuda"), None))) == "cuda"


def test_graphs_of_different_sizes(clouds, levels_of, network):
    levels = levels_of(TangentPoses(4), num=None, tolerance=0.4)
    model = network(levels)
    graph = PoseGraph.batch([build_pose_graph(cloud, levels) for cloud in clouds[:3]])
    expected = model(graph)
    with PretendGPU():
        found = model.to("cuda")(graph.to("cuda"))
        assert side(found) == "cuda"
    torch.testing.assert_close(found, expected)


class Recorded:
    """What a CUDA graph is to a step: captured once without being run, run at every replay."""

    def replay(self):
        steps, graphs, *rest = self.call
        with no_waiting():
            TAKE(steps, graphs(), *rest)

    def pool(self):
        return self.memory


TAKE = step.GraphedSteps._step


class Pool:
    """Memory of captured steps, which ends with the last of them."""

    def __init__(self):
        self.steps = weakref.WeakSet()


@contextlib.contextmanager
def recording(graph, pool, stream):
    if pool is not None and not pool.steps:
        raise RuntimeError("use_count > 0 INTERNAL ASSERT FAILED")  # as torch has it
    graph.memory = pool or Pool()
    graph.memory.steps.add(graph)

    def record(steps, graphs, *rest):  # what is read is not kept alive
        graph.call = steps, weakref.ref(graphs), *rest

    step.GraphedSteps._step = record
    try:
        yield
    finally:
        step.GraphedSteps._step = TAKE


class NoStream:
    def __init__(self, device):
        pass

    def wait_stream(self, other):
        pass


LOOKS = {
    "item": lambda x: x[0].item(),
    "bool": lambda x: bool(x[0]),
    "float": lambda x: float(x[0]),
    "a place": lambda x: [1, 2, 3][x[0].long()],
    "nonzero": torch.nonzero,
    "where": torch.where,
    "unique": torch.unique,
    "bincount": lambda x: torch.bincount(x.long()),
    "equal": lambda x: torch.equal(x, x),
    "a mask": lambda x: x[x > 0],
    "writing by a mask": lambda x: x.__setitem__(x > 0, 1.0),
    "repeats": lambda x: x.repeat_interleave(x.long()),
    "a constant": lambda x: x + torch.tensor([1.0, 2.0, 3.0]),
    "a constant of its kind": lambda x: x + x.new_tensor([1.0, 2.0, 3.0]),
}


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_what_a_capture_would_refuse_is_noticed(look):
    with PretendGPU():
        x = torch.ones(3, device="cuda")
        with no_waiting():
            x.sum() + torch.where(x > 0, x, 0).cumsum(0).max()
            with pytest.raises(Waits):
                look(x)


@pytest.fixture
def captures(monkeypatch):
    """Steps are replayed by what stands for CUDA graphs."""
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Recorded)
    monkeypatch.setattr(torch.cuda, "graph", recording)
    monkeypatch.setattr(torch.cuda, "Stream", NoStream)
    monkeypatch.setattr(torch.cuda, "current_stream", NoStream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setenv("PCEQUI_NO_CUDA_GRAPHS", "0")


LABELS = torch.tensor([0, 1, 0, 1, 1])
SETTINGS = FitSettings(epochs=6, batch_size=3, lr=1e-3, mixup=0.3)  # batches of 3 and of 2


def trained(clouds, cache, **options):
    """A small network, and the losses of its epochs."""
    torch.manual_seed(0)
    model = GroupConvClassifier.from_preset("small", num_classes=2).double()
    store = GraphStore.build(cache, [*clouds, clouds[0] * 1.1], model.levels, workers=1)
    with PretendGPU():
        history = fit(model, store, LABELS, SETTINGS, device="cuda", quiet=True, **options)
    return [metrics["loss"] for metrics in history], model.state_dict()


def assert_equal(found, other):
    assert found[0] == other[0]
    for one, two in zip(found[1].values(), other[1].values(), strict=True):
        assert torch.equal(one, two)


def test_replayed_steps_are_the_steps(clouds, tmp_path, monkeypatch, captures):
    replayed = trained(clouds, tmp_path)
    monkeypatch.setenv("PCEQUI_NO_CUDA_GRAPHS", "1")
    assert_equal(replayed, trained(clouds, tmp_path))


@pytest.mark.parametrize("epochs, shared", [(3, [False] * 3), (4, [False, True, True])])
def test_versions_share_the_memory_of_their_steps(
    epochs, shared, clouds, tmp_path, monkeypatch, captures
):
    """And of three epochs each version takes one, so that its steps are gone before the next."""
    found = []
    monkeypatch.setattr(
        torch.cuda,
        "graph",
        lambda graph, pool, stream: (
            found.append(pool is not None) or recording(graph, pool, stream)
        ),
    )
    model = GroupConvClassifier.from_preset("small", num_classes=2)
    stores = [
        GraphStore.build(tmp_path / f"{n}", [c * (1 + n / 9) for c in clouds * 2], model.levels)
        for n in range(3)
    ]
    settings = FitSettings(epochs=epochs, batch_size=2, lr=1e-3)
    with PretendGPU():
        fit(model, stores, torch.arange(8) % 2, settings, device="cuda", quiet=True)
    assert found == shared


def test_a_step_that_cannot_be_captured_stops_with_a_way_on(
    clouds, tmp_path, monkeypatch, captures
):
    @contextlib.contextmanager
    def refused(graph, pool, stream):
        raise RuntimeError("operation not permitted when stream is capturing")
        yield

    monkeypatch.setattr(torch.cuda, "graph", refused)
    kept = {"folder": tmp_path / "run", "resume": True}
    with pytest.raises(PcequiError, match="not permitted .*PCEQUI_NO_CUDA_GRAPHS=1.* resume"):
        trained(clouds, tmp_path, **kept)
    monkeypatch.setenv("PCEQUI_NO_CUDA_GRAPHS", "1")
    assert_equal(trained(clouds, tmp_path, **kept), trained(clouds, tmp_path))


@pytest.mark.parametrize(
    "cause, raised, message",
    [
        (torch.OutOfMemoryError("no room"), torch.OutOfMemoryError, "no room"),
        (RuntimeError("a look at values"), PcequiError, "a look at values"),
    ],
)
def test_the_first_error_of_a_capture_is_named(
    cause, raised, message, clouds, tmp_path, monkeypatch, captures
):
    @contextlib.contextmanager
    def ends_badly(graph, pool, stream):
        try:
            raise cause
        finally:
            raise RuntimeError("error during capture")
        yield

    monkeypatch.setattr(torch.cuda, "graph", ends_badly)
    with pytest.raises(raised, match=message):
        trained(clouds, tmp_path)


def test_a_function_is_checked_where_its_weights_or_the_clouds_are(generator):
    class Layer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(1, 4)

        def forward(self, pos):
            return self.linear((pos - pos.mean(0)).norm(dim=1).mean()[None])

    with PretendGPU():
        cloud, seen = torch.randn(30, 3, generator=generator), set()

        def spread(pos):
            seen.add(side(pos))
            return (pos - pos.mean(0)).norm(dim=1).sort().values

        assert check_equivariance(spread, [cloud.cuda()], num=2).ok and seen == {"cuda"}
        assert check_equivariance(lambda pos: spread(pos)[:3] * pos[0], cloud.cuda(), num=2).cause
        for pos in (None, cloud, cloud.cuda()):
            assert check_equivariance(Layer().to("cuda").eval(), pos, num=2).ok


def test_no_gpu_waits_for_a_look_at_what_a_layer_is_given(levels_of, make_blob):
    levels = levels_of(num=10)
    conv = GroupConv(3, 4, levels[1].kernel())
    with PretendGPU():
        below, level, _ = build_pose_graph(make_blob(20).to("cuda"), levels).levels
        x, turn = torch.zeros(10, 3, device="cuda"), torch.arange(28, device="cuda")
        with no_waiting():
            check_level(level, conv.kernel.num)
            check_features(x, level, below.count, 3)
            check_turn(turn, conv.kernel.num)
            with pytest.raises(ShapeError, match="`sources`"):
                check_features(x, level, turn, 3)
        with pytest.raises(Waits), no_waiting():
            int(below.count.sum())
