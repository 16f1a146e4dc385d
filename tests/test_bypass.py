"""What a level sees of the level below past the sampling there: ``Level.bypass``."""

from dataclasses import replace

import pytest
import torch
from torch_geometric.data import Batch, Data

from pcequi.errors import ArgumentError
from pcequi.graph_device import DeviceGraphs
from pcequi.graph_store import GraphStore
from pcequi.kernels import kernel_points, space_basis
from pcequi.models import GroupConvClassifier, averaged_pooled, extract_features, online_graph
from pcequi.models.export import export_network, graph_tensors
from pcequi.models.orders import axis_orders, order_turns
from pcequi.pose_graph import Level, PoseGraph, build_pose_graph, build_pose_graphs
from pcequi.poses import ALIGNMENTS, CentroidPoses, GridPoses, NormalPoses, TangentPoses
from pcequi.rotations import random_rotations
from pcequi.sampling import FeatureSampler
from pcequi.transforms import BuildPoseGraph


def some_levels(num=6, bypass=(False, True, True), orbits=False, **first):
    grid, sampling = GridPoses("D2", "manhattan"), FeatureSampler(num=num, orbits=orbits)
    levels = [
        Level(0.6, grid, sampling, kernel_points=15, **first),
        Level(0.9, grid, sampling, kernel_points=7, **first),
        Level(1.5, CentroidPoses("D2", "manhattan"), kernel_points=15),
    ]
    return [replace(level, bypass=given) for level, given in zip(levels, bypass)]


def some_network(levels, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GroupConvClassifier(levels, 5, [6, 8, 10], head_channels=12).double().eval()
        for module in model.modules():  # no channel is constant
            if isinstance(module, torch.nn.BatchNorm1d):
                module.running_var.uniform_(0.01, 0.1)
                module.weight.data.normal_()
    return model


@pytest.mark.parametrize("num", [6, None])
def test_it_is_the_kernel_over_the_embeddings_of_all_poses(make_blob, num):
    pos, levels = make_blob(30), some_levels(num)
    graph, sampled = build_pose_graph(pos, levels, embeddings=True)
    for number in (1, 2):
        below, own, level = sampled[number - 1], graph.levels[number], levels[number]
        points, width = kernel_points(level.kernel_points)
        for row in range(own.num):
            offset = (below.poses.pos - own.pos[row]) @ own.rot[row] / level.radius
            value = space_basis(offset, points.double(), width)
            value = value / value.sum()
            # The frame that is nearest in rotation at every point: that of the same half turn.
            trace = torch.einsum("ij,nkij->nk", own.rot[row], below.poses.rot)
            read = below.embedding[torch.arange(len(value)), trace.argmax(1)]
            torch.testing.assert_close(own.bypass[row], (value.T @ read).flatten())


def test_it_does_not_depend_on_what_is_sampled_below(make_blob):
    pos = make_blob(30)
    few, many = (build_pose_graph(pos, some_levels(num)).levels[2] for num in (4, 16))
    torch.testing.assert_close(few.bypass, many.bypass)
    assert few.val.shape != many.val.shape


@pytest.mark.parametrize(
    "poses",
    [GridPoses("D2", "manhattan"), GridPoses("O", "principal"), TangentPoses(4), NormalPoses()],
    ids=str,
)
def test_a_network_is_invariant(symmetric_cloud, poses, generator):
    pairs = {"pairs": (3, 3, 3, 1)} if isinstance(poses, NormalPoses) else {}
    levels = [
        Level(0.6, poses, FeatureSampler(num=6), **pairs),
        Level(1.5, CentroidPoses("O"), bypass=True),
    ]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = GroupConvClassifier(levels, 5, [6, 8], head_channels=12).double().eval()
    turn = random_rotations(1, generator=generator, dtype=torch.float64)[0]
    order = torch.randperm(len(symmetric_cloud), generator=generator)
    before = model(build_pose_graph(symmetric_cloud, levels))
    after = model(build_pose_graph((symmetric_cloud @ turn.T)[order] + 1.0, levels))
    torch.testing.assert_close(after, before, rtol=1e-8, atol=1e-10)


def test_normals_and_numbers_of_points_are_part_of_it(make_blob, generator):
    pos, x = make_blob(30), torch.rand(30, 2, generator=generator, dtype=torch.float64)
    levels = some_levels(normals=True, in_channels=2)
    model = some_network(levels)
    graph = build_pose_graph(pos, levels, x=x)
    assert graph.levels[1].bypass.shape[1] == 7 * 15 * 6
    turn = random_rotations(1, generator=generator, dtype=torch.float64)[0]
    torch.testing.assert_close(model(build_pose_graph(pos @ turn.T, levels, x=x)), model(graph))
    assert not torch.allclose(model(build_pose_graph(pos, levels, x=x.flip(0))), model(graph))


@pytest.mark.parametrize("order", range(1, 6))
@pytest.mark.parametrize("channels", [0, 2])
def test_the_order_of_the_axes_is_exchanged_in_it_too(
    order, channels, make_blob, generator, monkeypatch
):
    pos, x = make_blob(40), None
    if channels:
        x = torch.rand(40, channels, generator=generator, dtype=torch.float64)
    levels = some_levels(num=12, orbits=True, in_channels=channels)
    model, turns = some_network(levels), order_turns(levels)
    graph = build_pose_graph(pos, levels, x=x)
    found = model.pooled(graph, [turn[order] for turn in turns])
    mean = averaged_pooled(model, graph)
    find = ALIGNMENTS["manhattan"]
    turn = axis_orders()[order]
    monkeypatch.setitem(ALIGNMENTS, "manhattan", lambda pos: find(pos) @ turn.to(pos))
    other = build_pose_graph(pos, levels, x=x)
    torch.testing.assert_close(model.pooled(other), found)
    torch.testing.assert_close(averaged_pooled(model, other), mean)
    assert not torch.allclose(graph.levels[2].bypass, other.levels[2].bypass)


def test_all_ways_of_running_have_it(make_blob, tmp_path):
    levels = some_levels()
    model = some_network(levels)
    clouds = [make_blob(size, seed) for seed, size in enumerate((30, 34, 40))]
    alone = torch.cat([model(build_pose_graph(cloud, levels)) for cloud in clouds])
    build = BuildPoseGraph(levels)
    batch = Batch.from_data_list([build(Data(pos=cloud)) for cloud in clouds])
    torch.testing.assert_close(model(batch), alone)
    torch.testing.assert_close(model(build_pose_graphs(clouds, levels)), alone)
    graph = PoseGraph.load(batch)
    torch.testing.assert_close(model(graph.take(torch.tensor([2, 0]))), alone[[2, 0]])
    features = [extract_features(model, cloud).logits for cloud in clouds]
    torch.testing.assert_close(torch.stack(features), alone)
    online = online_graph(model, clouds)
    assert torch.equal(online.levels[2].bypass, graph.levels[2].bypass)
    dense = model.with_budget()
    assert torch.equal(online_graph(dense, clouds).levels[2].bypass, graph.levels[2].bypass)
    single = model.float()
    store = GraphStore.build(tmp_path, clouds, levels, workers=1)
    kept = single(store.batch(range(3)))
    torch.testing.assert_close(kept, alone.float(), rtol=1e-2, atol=1e-2)  # of 16 bits
    device = DeviceGraphs.load(store, "cpu")
    on_device = single(device.batch(torch.arange(3)))
    torch.testing.assert_close(on_device, kept, rtol=1e-4, atol=1e-5)
    held = sum(t.numel() * t.element_size() for part in device._tensors for t in part.values())
    assert DeviceGraphs.bytes_needed(store) == held


def test_a_program_has_it(make_blob):
    levels = some_levels()
    model = some_network(levels)
    program = export_network(model, build_pose_graph(make_blob(30), levels)).module()
    other = build_pose_graph(make_blob(36, 1), levels)
    torch.testing.assert_close(program(graph_tensors(other)), model(other))


def test_it_learns_and_is_kept_with_the_network(make_blob):
    levels = some_levels()
    model = some_network(levels)
    model(build_pose_graph(make_blob(30), levels)).square().sum().backward()
    assert all(block.bypass[1].weight.grad.abs().max() > 0 for block in model.blocks)
    again = GroupConvClassifier.from_settings(model.settings).double().eval()
    again.load_state_dict(model.state_dict())
    graph = build_pose_graph(make_blob(30), again.levels)
    assert torch.equal(again(graph), model(graph))
    before = model.blocks[1].bypass[1].weight.detach().clone()
    model.reset_parameters()
    assert not torch.equal(model.blocks[1].bypass[1].weight, before)
    assert "bypass" not in some_levels(bypass=(False,) * 3)[1].to_dict()  # as files of before


def test_what_does_not_fit_is_refused(make_blob):
    pos = make_blob(20)
    with pytest.raises(ArgumentError, match=r"`levels\[0\].bypass`.*level below"):
        build_pose_graph(pos, some_levels(bypass=(True, False, False)))
    with pytest.raises(ArgumentError, match="`bypass`.*`pairs`"):
        Level(0.5, NormalPoses(), pairs=(3, 3, 3, 1), bypass=True)
    with_it, without = some_levels(), some_levels(bypass=(False,) * 3)
    for levels, other, word in ((with_it, without, "without"), (without, with_it, "with")):
        with pytest.raises(ArgumentError, match=f"graph {word} `bypass` on level 1"):
            some_network(levels)(build_pose_graph(pos, other))
        with pytest.raises(ArgumentError, match="bypass="):
            some_network(levels).with_levels(other)
