"""Graphs in a device's memory compute what those of the store compute."""

from dataclasses import replace

import pytest
import torch

from pcequi.errors import ArgumentError, FileError, ShapeError
from pcequi.graph_device import DeviceGraphs
from pcequi.graph_store import GraphStore
from pcequi.models import GroupConvClassifier, preset
from pcequi.pose_graph import Level, PoseGraph, build_pose_graph, build_pose_graphs
from pcequi.pose_graph.batched import build
from pcequi.pose_graph.batched import levels as batched_levels
from pcequi.poses import CentroidPoses, GridPoses, TangentPoses
from pcequi.sampling import FeatureSampler
from pcequi.training import epoch, rows
from pcequi.training.fit import FitSettings, fit, predict_logits


@pytest.fixture(scope="module")
def clouds():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(n, 3, generator=generator) / 3 for n in (150, 180, 160, 170, 150, 190)]


@pytest.fixture(scope="module", params=["default", "pairs", "large"])
def network(request):
    torch.manual_seed(0)
    return GroupConvClassifier.from_preset(request.param, num_classes=3).double()


@pytest.fixture
def store(clouds, network, tmp_path):
    return GraphStore.build(tmp_path, clouds, network.levels, workers=1)


def test_logits_and_gradients_are_those_of_the_store(network, store):
    graphs = DeviceGraphs.load(store, "cpu", torch.float64)
    rows = torch.tensor([4, 0, 5])
    network.head[3].p = 0.0
    network.train()
    found = []
    for graph in (store.batch(rows).to(torch.float64), graphs.batch(rows)):
        network.zero_grad()
        logits = network(graph)
        logits.square().sum().backward()
        found.append([logits.detach(), *(p.grad for p in network.parameters())])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-8, rtol=1e-6)


def test_memory_is_known_before_it_is_taken(store):
    for dtype in (torch.float32, torch.bfloat16):
        graphs = DeviceGraphs.load(store, "cpu", dtype)
        taken = sum(t.nbytes for level in graphs._tensors for t in level.values())
        assert taken == DeviceGraphs.bytes_needed(store, dtype)


def test_training_on_it_is_training_on_the_store(clouds, tmp_path):
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    settings = FitSettings(epochs=2, batch_size=3, lr=1e-3, mixup=0.3)
    found = []
    for source in ("store", "device"):
        torch.manual_seed(0)
        model = GroupConvClassifier.from_preset("small", num_classes=3).double()
        graphs = store = GraphStore.build(tmp_path, clouds, model.levels, workers=1)
        if source == "device":
            graphs = DeviceGraphs.load(store, "cpu", torch.float64)
        history = fit(model, graphs, labels, settings, quiet=True)
        found.append((history[-1]["loss"], predict_logits(model, graphs)))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    torch.testing.assert_close(found[0][1], found[1][1], atol=1e-6, rtol=1e-5)


def test_clouds_of_different_sizes_are_told(tmp_path, levels_of, make_blob):
    from pcequi.poses import TangentPoses

    levels = levels_of(TangentPoses(4), num=None, tolerance=0.3)
    store = GraphStore.build(tmp_path, [make_blob(40), make_blob(70)], levels, workers=1)
    with pytest.raises(ArgumentError, match=r"`graphs` .*different numbers of representatives"):
        DeviceGraphs.load(store, "cpu")


def test_damage_is_told_before_it_is_used(store, monkeypatch):
    whole = GraphStore.packed

    def damaged(self, rows):
        levels = whole(self, rows)
        if len(rows) > 1:
            levels[1]["col"][0] = 3000
        return levels

    monkeypatch.setattr(GraphStore, "packed", damaged)
    with pytest.raises(FileError, match="is damaged .*precompute again"):
        DeviceGraphs.load(store, "cpu")


def test_graphs_that_were_just_made_are_those_of_the_store(network, clouds):
    built = [build_pose_graph(cloud.double(), network.levels) for cloud in clouds]
    halves = [PoseGraph.batch(built[:4]), PoseGraph.batch(built[4:])]
    graphs = DeviceGraphs.collect(halves, network.levels, 6, torch.float64)
    network.eval()
    rows = torch.tensor([5, 1, 3])
    expected = network(PoseGraph.batch([built[row] for row in rows]))
    # Weights and what is lifted are single.
    torch.testing.assert_close(network(graphs.batch(rows)), expected, atol=1e-5, rtol=1e-5)


def test_blocks_of_a_batch_are_its_rows(network, store):
    rows = torch.tensor([2, 5, 0])
    network.eval()
    expected = network(store.batch(rows).to(torch.float64))
    graph = store.batch(rows, blocks=torch.float64)
    assert all(level.val is None and level.blocks is not None for level in graph.levels[1:])
    torch.testing.assert_close(network(graph.to(torch.float64)), expected, atol=1e-9, rtol=1e-9)


def test_levels_that_are_hardly_filled_keep_their_entries(network, store):
    """The more representatives, the emptier A: blocks of a dense network would be mostly zeros."""
    batch = torch.tensor([2, 5, 0])
    network.eval()
    plain = store.batch(batch)
    expected = network(plain.to(torch.float64))
    shares = [  # entries a cell; characters leave a K-th of the cells
        (1 if characters is None else characters.size)
        * len(level.val)
        / (3 * int(level.count[0]) * level.basis * int(below.count[0]))
        for below, level, characters in zip(plain.levels, plain.levels[1:], store.characters[1:])
    ]
    for least in (min(shares), (min(shares) + max(shares)) / 2, 1.01):
        graph = store.batch(batch, torch.float64, least_fill=least)
        kept = [level.blocks is None for level in graph.levels[1:]]
        assert kept == [share < least for share in shares]
        torch.testing.assert_close(network(graph.to(torch.float64)), expected, atol=1e-9, rtol=1e-9)
    dense = [level.with_budget() for level in network.levels]
    few = [torch.randn(60, 3, generator=torch.Generator().manual_seed(1)) / 3 for _ in range(2)]
    graph = rows.load_batch(
        network.float(),
        GraphStore.build(store.folder.parent / "dense", few, dense, workers=1),
        torch.tensor([0, 1]),
        "cpu",
        torch.bfloat16,
    )
    assert graph.levels[1].blocks is None
    network.double()


@pytest.mark.skipif(rows.fast_blocks("bfloat16", "cpu") is None, reason="no bfloat16 in this CPU")
def test_training_in_bfloat16_takes_blocks_and_goes_as_with_entries(clouds, tmp_path, monkeypatch):
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    settings = FitSettings(epochs=8, batch_size=3, lr=2e-3, precision="bfloat16")
    losses = []
    for blocks in (True, False):
        if not blocks:
            monkeypatch.setattr(epoch, "fast_blocks", lambda precision, device: None)
        torch.manual_seed(0)
        model = GroupConvClassifier.from_preset("small", num_classes=3)
        model.head[3].p = 0.0
        store = GraphStore.build(tmp_path, clouds, model.levels, workers=1)
        history = fit(model, store, labels, settings, quiet=True)
        losses.append(torch.tensor([metrics["loss"] for metrics in history]))
    # Both round to eight bits, at different places.
    assert (losses[0] - losses[1]).abs().max() < 0.1 * losses[1][0]
    assert not torch.equal(*losses)


def orbits(rotations, align="manhattan"):
    """Three levels with orbits of a group; the characters of C4 are not real."""
    sampler = FeatureSampler(num=24, refine=2, seeds=30, orbits=True, blend=6)
    poses = GridPoses(rotations, align)
    return [
        Level(0.5, poses, sampler, num_points=40, kernel_points=15),
        Level(0.8, poses, sampler, num_points=24, kernel_points=7),
        Level(1.5, CentroidPoses(rotations, align), kernel_points=33),
    ]


SETTINGS = {
    "D2": orbits("D2"),
    "C2": orbits("C2"),
    "C4": orbits("C4"),
    "free": [replace(lv, sampling=replace(lv.sampling, orbits=False)) for lv in orbits("D2")[:2]],
    "octahedral": [
        replace(lv, sampling=FeatureSampler(num=60)) for lv in orbits("O", "principal")[:2]
    ],
    "pairs": [level.with_budget(num=16) for level in preset("pairs")["levels"]],
    "one by one": [Level(0.5, TangentPoses(4), FeatureSampler(num=8))] * 2,
}


@pytest.fixture
def odd_clouds(generator):
    """Clouds of different sizes, two of which are built one by one."""
    cube = torch.cartesian_prod(*[torch.linspace(-0.5, 0.5, 4, dtype=torch.float64)] * 3)
    sizes = (90, 70, 80, 64, 85)
    plain = [torch.randn(n, 3, generator=generator).double() / 3 for n in sizes]
    return [plain[0], cube, *plain[1:4], cube * 1.2, plain[4]]


@pytest.mark.parametrize("dtype, close", [(torch.float64, 1e-6), (torch.bfloat16, 1e-2)], ids=str)
@pytest.mark.parametrize("levels", SETTINGS.values(), ids=SETTINGS)
def test_graphs_built_at_once_are_those_of_each_cloud(
    levels, dtype, close, odd_clouds, monkeypatch
):
    each, told = [build_pose_graph(cloud, levels) for cloud in odd_clouds], []
    wanted = DeviceGraphs.collect(each, levels, len(each), dtype)
    for most, chunk in ((None, None), (3 * 90 * 90, 4000)):  # then in several turns
        if most:
            monkeypatch.setattr(build, "_MOST", most)
            monkeypatch.setattr(batched_levels, "CHUNK", chunk)
        told.clear()
        found = DeviceGraphs.build(
            odd_clouds, levels, "cpu", dtype, lambda *done: told.append(done)
        )
        assert len(found) == 7 and [done for done, _ in told] == sorted({d for d, _ in told})
        assert told[-1] == (7, 7)
        for one, other in zip(found._tensors, wanted._tensors, strict=True):
            assert one.keys() == other.keys()
            for name, value in one.items():
                assert value.dtype == other[name].dtype
                torch.testing.assert_close(value, other[name], rtol=0, atol=close)


def test_blocks_built_at_once_have_no_entries_between(odd_clouds, monkeypatch):
    monkeypatch.setattr(batched_levels, "to_csr", None)
    plain = [odd_clouds[0], *odd_clouds[2:5]]
    graphs = DeviceGraphs.build(plain, SETTINGS["D2"], "cpu", torch.bfloat16)
    assert graphs.batch(torch.tensor([3, 0])).levels[1].blocks.dtype == torch.bfloat16


def test_some_of_a_batch_are_taken_without_a_look_at_sizes(odd_clouds, monkeypatch):
    graphs = DeviceGraphs.build(odd_clouds, SETTINGS["D2"], "cpu", torch.float64)
    batch, which = graphs.batch(torch.tensor([6, 1, 4, 0])), torch.tensor([2, 0, 2])
    wanted = graphs.batch(torch.tensor([4, 6, 4]))
    monkeypatch.setattr(torch.Tensor, "tolist", None)
    found = batch.take(which)
    for one, other in zip(found.levels, wanted.levels, strict=True):
        for name, value in vars(other).items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(getattr(one, name), value), name
        assert one.each == other.each and one.characters is other.characters


def test_what_cannot_be_built_is_told(odd_clouds, levels_of):
    with pytest.raises(ArgumentError, match=r"`clouds` \(=\[\]\)"):
        DeviceGraphs.build([], SETTINGS["D2"], "cpu")
    with pytest.raises(ShapeError, match="points, 3"):
        DeviceGraphs.build([odd_clouds[0], odd_clouds[1][:, :2]], SETTINGS["D2"], "cpu")
    few = levels_of(TangentPoses(4), num=None, tolerance=0.3)
    with pytest.raises(ArgumentError, match=r"`clouds` .*representatives \(\d+ and \d+\).*`num`"):
        DeviceGraphs.build(odd_clouds[:2], few, "cpu")


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64, "float32"])
def test_types_that_hold_no_geometry_are_refused(odd_clouds, tmp_path, dtype):
    levels, said = SETTINGS["D2"], r"`{}` \(=.*\) must be a floating type"
    store = GraphStore.build(tmp_path, odd_clouds[:2], levels, workers=1)
    for call in (
        lambda: DeviceGraphs.build(odd_clouds, levels, "cpu", dtype),
        lambda: DeviceGraphs.load(store, "cpu", dtype),
        lambda: DeviceGraphs.collect([], levels, 2, dtype),
        lambda: build_pose_graph(odd_clouds[0], levels, dtype=dtype),
        lambda: build_pose_graphs(odd_clouds, levels, dtype=dtype),
    ):
        with pytest.raises(ArgumentError, match=said.format("dtype")):
            call()
    with pytest.raises(ArgumentError, match=said.format("blocks")):
        store.batch([0], blocks=dtype)
    graph = store.batch([0, 1])
    if isinstance(dtype, str):
        return
    for one in (graph, graph.levels[1]):
        for given in ((dtype,), ("cpu", dtype), (torch.ones(1).to(dtype),)):
            with pytest.raises(ArgumentError, match=said.format("dtype")):
                one.to(*given)
        with pytest.raises(ArgumentError, match=said.format("dtype")):
            one.to(dtype=dtype)
