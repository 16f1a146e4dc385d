"""The mean over the orders of a frame's axes: of which order the frame has, nothing is left."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from torch_geometric.data import Batch, Data

from pcequi.errors import ArgumentError
from pcequi.graph_device import DeviceGraphs
from pcequi.graph_store import GraphStore
from pcequi.models import (
    GroupConvClassifier,
    averaged_logits,
    averaged_pooled,
    online_graph,
    preset,
)
from pcequi.models.orders import axis_orders, order_shares, order_turns
from pcequi.pose_graph import Level, PoseGraph, build_pose_graph
from pcequi.poses import ALIGNMENTS, CentroidPoses, GridPoses
from pcequi.rotations import finite_group, random_rotations
from pcequi.sampling import FeatureSampler
from pcequi.transforms import BuildPoseGraph


def some_levels(align="manhattan", group="D2", **sampling):
    budget = {"num": 24, "blend": 4, "orbits": True} | sampling
    grid = GridPoses(group, align)
    return [
        Level(0.5, grid, FeatureSampler(**budget), kernel_points=15),
        Level(0.8, grid, FeatureSampler(**budget), kernel_points=27),
        Level(1.5, CentroidPoses(group, align), kernel_points=33),
    ]


def some_network(levels, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GroupConvClassifier(levels, 5, [6, 8, 10], head_channels=12).double().eval()
        for module in model.modules():  # no constant of any channel
            if isinstance(module, torch.nn.BatchNorm1d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2.0)
                module.weight.data.normal_()
    return model


def brick(generator, stretch=(1.0, 0.9, 0.8), size=60):
    cloud = torch.rand(size, 3, generator=generator, dtype=torch.float64) - 0.5
    cloud = cloud * torch.tensor(stretch, dtype=torch.float64)
    return (cloud - cloud.mean(0)) / cloud.norm(dim=1).max()


def numbered_anew(monkeypatch, align, turn):
    """Frames whose axes are numbered in another order than by variance."""
    find = ALIGNMENTS[align]
    monkeypatch.setitem(ALIGNMENTS, align, lambda pos: find(pos) @ turn.to(pos))


def test_the_six_orders_are_rotations_that_half_turns_make_the_octahedral_group():
    orders, half = axis_orders(), finite_group("D2", dtype=torch.float64)
    torch.testing.assert_close(torch.linalg.det(orders), torch.ones(6, dtype=torch.float64))
    assert torch.equal(orders[0], torch.eye(3, dtype=torch.float64))
    every = (orders[:, None] @ half).flatten(0, 1).flatten(1)
    whole = finite_group("O", dtype=torch.float64).flatten(1)
    assert torch.equal(torch.cdist(every, whole).argmin(1).sort().values, torch.arange(24))


@pytest.mark.parametrize("align", ["manhattan", "principal"])
@pytest.mark.parametrize("order", range(1, 6))
@pytest.mark.parametrize("sampling", [{}, {"blend": 1}, {"num": None}])
def test_a_network_with_exchanged_functions_sees_the_cloud_with_exchanged_axes(
    align, order, sampling, generator, monkeypatch
):
    levels, cloud = some_levels(align, **sampling), brick(generator)
    model = some_network(levels)
    graph, turns = build_pose_graph(cloud, levels), order_turns(levels)
    found = model.pooled(graph, [turn[order] for turn in turns])
    before, mean = model.pooled(graph), averaged_pooled(model, graph)
    numbered_anew(monkeypatch, align, axis_orders()[order])
    other = build_pose_graph(cloud, levels)
    torch.testing.assert_close(found, model.pooled(other))
    assert (found - before).abs().max() > 1e-3 * before.abs().max()  # it makes a difference
    torch.testing.assert_close(averaged_pooled(model, other), mean)  # and none for the mean


def test_nothing_jumps_where_two_variances_cross(generator):
    levels, cloud = some_levels(num=None), brick(generator, size=300)
    model = some_network(levels)
    side = torch.arange(300) % 6  # on the faces, whose directions the frame finds
    cloud[torch.arange(300), side // 2] = (side % 2).double() - 0.5
    for _ in range(10):  # until the variances along the frame's axes are these
        cloud = cloud @ ALIGNMENTS["manhattan"](cloud)
        cloud = cloud * torch.tensor([0.4, 0.3, 0.3]).double() / cloud.std(0)
    plain, mean = [], []
    for change in (-1e-3, 1e-3):
        graph = build_pose_graph(cloud * torch.tensor([1.0, 1.0, 1.0 + change]).double(), levels)
        plain.append(model.pooled(graph))
        mean.append(averaged_pooled(model, graph))
    jump = (plain[1] - plain[0]).abs().max()
    assert jump > 0.1
    assert (mean[1] - mean[0]).abs().max() < 0.02 * jump


def test_shares_do_not_depend_on_what_is_sampled(generator):
    cloud = brick(generator, size=100)
    wanted = order_shares(build_pose_graph(cloud, some_levels(num=None)))
    assert 0 < wanted[0, 0] < 0.9
    other = {"num": 8}, {"num": 40, "orbits": False, "blend": 1}, {"num": 40, "seeds": 50}
    graphs = [build_pose_graph(cloud, some_levels(**sampling)) for sampling in other]
    few = [replace(level, num_points=30) for level in some_levels()]
    model = some_network(some_levels())
    for graph in (*graphs, build_pose_graph(cloud, few), online_graph(model, [cloud])):
        assert torch.equal(order_shares(graph), wanted)


def test_shares_are_the_formula_and_add_up_to_one(generator):
    levels, cloud = some_levels(num=8), brick(generator)
    found = order_shares(build_pose_graph(cloud, levels))
    local = (cloud - cloud.mean(0)) @ ALIGNMENTS["manhattan"](cloud)
    score = local.square().mean(0) ** (1 / 0.3)
    wanted = []
    for turn in axis_orders():
        a, b, c = score @ turn.abs()
        wanted.append((a / (a + b + c) * b / (b + c) - 0.1).clamp_min(0))
    wanted = torch.stack(wanted)
    torch.testing.assert_close(found[0], wanted / wanted.sum())
    assert (found[0] > 0).sum() > 1 and found.argmax() == 0


def test_shares_of_odd_clouds(make_blob):
    levels = some_levels(num=None)
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 3)
    clouds = [corners, torch.zeros(1, 3).double(), corners * torch.tensor([1.0, 0, 0])]
    shares = order_shares(PoseGraph.batch([build_pose_graph(c, levels) for c in clouds]))
    torch.testing.assert_close(shares.sum(1), torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(shares[:2], torch.full((2, 6), 1 / 6, dtype=torch.float64))
    # Of a line the two axes across it are alike.
    torch.testing.assert_close(shares[2, :2], torch.full((2,), 0.5, dtype=torch.float64))
    graph = DeviceGraphs.collect([build_pose_graph(make_blob(60), levels)], levels, 1)
    for level in graph.batch(torch.tensor([0])).levels:
        assert level.pos is None and level.rot is None
    without = build_pose_graph(make_blob(60), levels)
    without.levels[0].spread = None
    with pytest.raises(ArgumentError, match="`graph`.*`spread`"):
        order_shares(without)


def test_means_are_invariant(symmetric_cloud, generator):
    levels = some_levels()
    model = some_network(levels)
    turn = random_rotations(1, generator=generator, dtype=torch.float64)[0]
    shuffled = torch.randperm(len(symmetric_cloud), generator=generator)
    moved = (symmetric_cloud @ turn.T)[shuffled] + 1.0
    before = averaged_logits(model, build_pose_graph(symmetric_cloud, levels))
    after = averaged_logits(model, build_pose_graph(moved, levels))
    torch.testing.assert_close(after, before, rtol=1e-8, atol=1e-10)


def test_a_cloud_alone_is_the_same_in_a_batch_however_its_matrices_are_kept(generator, tmp_path):
    levels = some_levels()
    model = some_network(levels).float()
    stretches = [(1, 0.95, 0.9), (1, 0.2, 0.02), (1, 0.9, 0.3), (1, 0.5, 0.49), (1, 1, 1)]
    clouds = [brick(generator, stretch) for stretch in stretches]
    build = BuildPoseGraph(levels)
    parts = [build(Data(pos=cloud.float())) for cloud in clouds]
    alone = torch.cat([averaged_logits(model, part) for part in parts])
    assert (order_shares(PoseGraph.load(parts[1])) > 0).sum() == 1  # nothing is in doubt
    together = averaged_logits(model, Batch.from_data_list(parts))
    torch.testing.assert_close(together, alone)
    store = GraphStore.build(tmp_path, clouds, levels, workers=1)
    kept = averaged_logits(model, store.batch(range(5)))
    blocks = averaged_logits(model, store.batch(range(5), blocks=torch.float32))
    device = averaged_logits(model, DeviceGraphs.load(store, "cpu").batch(torch.arange(5)))
    torch.testing.assert_close(kept, alone, rtol=1e-2, atol=1e-2)  # the store keeps 16 bits
    torch.testing.assert_close(blocks, kept, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(device, blocks, rtol=1e-4, atol=1e-5)


def test_threads_share_a_network(generator):
    levels = some_levels()
    model = some_network(levels)
    graphs = [build_pose_graph(brick(generator, (1, 0.95, 0.9)), levels) for _ in range(4)]
    with torch.no_grad():
        wanted = [(averaged_logits(model, graph), model(graph)) for graph in graphs]
        with ThreadPoolExecutor(4) as pool:
            mean = pool.map(lambda n: averaged_logits(model, graphs[n % 4]), range(40))
            plain = pool.map(lambda n: model(graphs[n % 4]), range(40))
            for number, found in enumerate(zip(mean, plain)):
                assert all(map(torch.equal, found, wanted[number % 4]))


def test_gradients_are_those_of_the_mean(generator):
    levels = some_levels(num=8)
    model = some_network(levels)
    graph = build_pose_graph(brick(generator), levels)
    name = dict(model.named_parameters())["blocks.1.conv.weight"]
    averaged_logits(model, graph)[0, 1].backward()
    step, found = (
        1e-6 * torch.randn(name.shape, generator=generator, dtype=torch.float64),
        name.grad,
    )
    with torch.no_grad():
        name += step
        more = averaged_logits(model, graph)[0, 1]
        name -= 2 * step
        less = averaged_logits(model, graph)[0, 1]
    torch.testing.assert_close((found * step).sum(), (more - less) / 2, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize(
    "change",
    [
        {"poses": GridPoses("O", "manhattan")},
        {"poses": GridPoses("D2", "principal")},
        {"poses": GridPoses("D2", "none")},
        {"normals": True},
        {"kernel_rotations": 2},
        {"kernel_points": 17},
    ],
)
def test_networks_without_such_orders_are_left_as_they_are(change, generator):
    levels = some_levels()
    levels[1] = replace(levels[1], **change)
    assert order_turns(some_levels()) is not None and order_turns(levels) is None
    model = some_network(levels)
    graph = build_pose_graph(brick(generator), levels)
    assert torch.equal(averaged_logits(model, graph), model(graph))
    assert order_turns(preset("pairs")["levels"]) is None


def test_training_and_online_sampling(generator):
    levels = some_levels()
    model = some_network(levels)
    clouds = [brick(generator, (1.0, 0.9, 0.8)), brick(generator, (1.0, 0.9, 0.8))]
    graph = online_graph(model, clouds)
    torch.testing.assert_close(averaged_pooled(model, graph.take(torch.tensor([1]))),
                               averaged_pooled(model, graph)[1:])  # fmt: skip
    assert not torch.equal(averaged_pooled(model, graph), model.pooled(graph))
    model.train()
    with torch.no_grad():
        assert torch.equal(averaged_pooled(model, graph), model.pooled(graph))
