"""What points bring beside their places: `Level.in_channels` and `x`."""

from dataclasses import replace

import pytest
import torch
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader

from pcequi import embedding
from pcequi.align import align_clouds
from pcequi.canonical import canonical_pose
from pcequi.embedding import geometric_embedding
from pcequi.errors import ArgumentError, DataError, ShapeError
from pcequi.graph_store import GraphStore
from pcequi.kernels import kernel_points, space_basis
from pcequi.models import (
    GroupConvClassifier,
    averaged_pooled,
    extract_features,
    forward_online,
    online_graph,
    preset,
)
from pcequi.models.orders import axis_orders, order_turns
from pcequi.pose_graph import Level, PoseGraph, build_pose_graph, build_pose_graphs
from pcequi.pose_graph.batched.covered import levels_covered
from pcequi.poses import ALIGNMENTS, CentroidPoses, GridPoses, NormalPoses, TangentPoses
from pcequi.rotations import random_rotations
from pcequi.sampling import FeatureSampler
from pcequi.training.checkpoints import Checkpoint
from pcequi.training.predict import predict_cloud, predict_each
from pcequi.transforms import BuildPoseGraph
from pcequi.viz.levels import sample_level

WAYS = {
    "half turns": (GridPoses("D2", "manhattan"), {"orbits": True, "blend": 4}),
    "octahedral": (GridPoses("O", "principal"), {}),
    "tangent": (TangentPoses(4), {"center": "mean", "refine": 1}),
}


def levels_of(way="half turns", num=24, channels=2, **more):
    poses, sampling = WAYS[way]
    sampler = FeatureSampler(num=num, **sampling)
    group, align = ("D2", "manhattan") if way == "half turns" else ("O", "principal")
    return [
        Level(0.6, poses, sampler, kernel_points=15, in_channels=channels, **more),
        Level(0.9, poses, sampler, kernel_points=7, in_channels=channels),
        Level(1.5, CentroidPoses(group, align), kernel_points=7),
    ]


def network(levels):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = GroupConvClassifier(levels, 4, [6, 8, 10], head_channels=12).double().eval()
        for module in model.modules():  # as after some training: no constant of any channel
            if isinstance(module, torch.nn.BatchNorm1d):
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.01, 0.1)
    return model


def numbers(size, generator, channels=2):
    return torch.rand(size, channels, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("normals", [False, True])
def test_logits_do_not_depend_on_how_a_coloured_cloud_lies(way, normals, solid_cloud, generator):
    levels = levels_of(way, normals=normals)
    model, x = network(levels), numbers(len(solid_cloud), generator)
    before = model(build_pose_graph(solid_cloud, levels, x=x))
    for turn in random_rotations(4, generator=generator, dtype=torch.float64):
        order = torch.randperm(len(solid_cloud), generator=generator)
        copy = (solid_cloud @ turn.T)[order] + 2.0
        after = model(build_pose_graph(copy, levels, x=x[order]))
        torch.testing.assert_close(after, before, rtol=1e-7, atol=1e-9)
    other = model(build_pose_graph(solid_cloud, levels, x=x.square()))
    assert (other - before).abs().max() > 1e-3 * before.abs().max()


def test_the_embedding_is_its_formula_compiled_or_not(make_blob, generator, monkeypatch):
    pos, radius = make_blob(40), 0.7
    poses, x = GridPoses("D2", "principal")(pos), numbers(40, generator, 3)
    found = geometric_embedding(poses, pos, radius, 15, x=x).view(40, 4, 15, 4)
    points, width = kernel_points(15)
    offset = (pos[None] - pos[:, None]) / radius
    local = torch.einsum("nkij,nmi->nkmj", poses.rot, offset)  # [N, K, S, 3]
    phi = space_basis(local.flatten(0, 2), points.to(pos), width).view(40, 4, 40, 15)
    phi = phi * (offset.norm(dim=2) < 1)[:, None, :, None]
    every = torch.cat([torch.ones_like(x[:, :1]), x], 1)
    expected = torch.einsum("nksb,sf->nkbf", phi, every) / phi.sum((2, 3))[..., None, None]
    torch.testing.assert_close(found, expected)
    monkeypatch.setattr(embedding, "HAS_NUMBA", False)
    plain = geometric_embedding(poses, pos, radius, 15, x=x)
    torch.testing.assert_close(plain, found.flatten(2))


def test_with_normals_each_has_its_columns(make_blob, generator):
    pos = make_blob(30)
    poses, x = GridPoses("O", "principal")(pos), numbers(30, generator)
    normal = torch.nn.functional.normalize(pos, dim=1)
    size = (30, 24, 7, -1)
    both = geometric_embedding(poses, pos, 0.8, 7, normal, x).view(size)
    torch.testing.assert_close(
        both[..., :4], geometric_embedding(poses, pos, 0.8, 7, normal).view(size)
    )
    torch.testing.assert_close(
        both[..., 4:], geometric_embedding(poses, pos, 0.8, 7, x=x).view(size)[..., 1:]
    )


def test_representatives_follow_what_poses_see(make_blob):
    """Two equal pieces, far apart: they share representatives until a colour tells them apart."""
    piece = make_blob(30) * 0.2
    pos = torch.cat([piece - 0.8, piece + 0.8])
    piece_of = torch.arange(60) // 30
    level = Level(0.4, GridPoses("D2", "principal"), FeatureSampler(num=12), kernel_points=7)
    shared = []
    for x in (None, piece_of[:, None].double()):
        own = replace(level, in_channels=0 if x is None else 1)
        graph, (sampled,) = build_pose_graph(pos, [own], x=x, embeddings=True)
        assert graph.levels[0].lift.shape == (12, own.lift_channels)
        chosen = sampled.chosen
        home = piece_of[sampled.points][chosen.index // 4]  # of each representative
        mine = piece_of[sampled.points].repeat_interleave(4)
        shared.append(float((home[chosen.assignment] != mine).double().mean()))
    assert shared[0] > 0.2 and shared[1] == 0


@pytest.mark.parametrize("way", WAYS)
def test_dense_is_all_poses_and_a_cloud_alone_that_in_a_batch(way, make_blob, generator):
    clouds = [make_blob(30, seed) for seed in range(2)]
    xs = [numbers(30, generator) for _ in clouds]
    dense = levels_of(way, num=None)
    model = network(dense)
    every = [*(level.with_budget(num=10_000) for level in dense[:2]), dense[2]]
    alone = [model(build_pose_graph(p, dense, x=x)) for p, x in zip(clouds, xs, strict=True)]
    if way != "tangent":  # a mean of clusters is no pose
        full = [model(build_pose_graph(p, every, x=x)) for p, x in zip(clouds, xs, strict=True)]
        torch.testing.assert_close(full, alone)
    build = BuildPoseGraph(dense)
    data = [build(Data(pos=p, x=x)) for p, x in zip(clouds, xs, strict=True)]
    (batch,) = DataLoader(data, batch_size=2)
    torch.testing.assert_close(model(batch), torch.cat(alone))
    torch.testing.assert_close(extract_features(model, clouds[0], x=xs[0]).logits[None], alone[0])


def test_online_reads_them_of_a_batch(make_blob, generator):
    levels = levels_of()
    model = network(levels)
    data = [Data(pos=make_blob(30, s), x=numbers(30, generator)) for s in range(2)]
    batch = Batch.from_data_list(data)
    logits = forward_online(model, batch)
    torch.testing.assert_close(model(online_graph(model, batch)), logits)
    torch.testing.assert_close(forward_online(model, data[1]), logits[1:])
    dense = network(levels_of(num=None))
    graphs = [build_pose_graph(d.pos, dense.levels, x=d.x) for d in data]
    torch.testing.assert_close(forward_online(dense, batch), dense(PoseGraph.batch(graphs)))
    batch.x = batch.x.flip(0)
    assert not torch.allclose(forward_online(model, batch), logits, rtol=1e-3)


def test_the_mean_over_orders_exchanges_them_with_the_functions(make_blob, generator, monkeypatch):
    levels, pos, x = levels_of(), make_blob(60), numbers(60, generator)
    model, turns = network(levels), order_turns(levels)
    graph = build_pose_graph(pos, levels, x=x)
    mean = averaged_pooled(model, graph)
    find = ALIGNMENTS["manhattan"]
    for order in range(1, 6):
        turn = axis_orders()[order]
        found = model.pooled(graph, [one[order] for one in turns])
        with monkeypatch.context() as patch:
            patch.setitem(ALIGNMENTS, "manhattan", lambda pos, turn=turn: find(pos) @ turn.to(pos))
            other = build_pose_graph(pos, levels, x=x)
        torch.testing.assert_close(found, model.pooled(other))
        torch.testing.assert_close(averaged_pooled(model, other), mean)


# Of the corners of a cube: what must tell them apart, in ways that a sum of columns would miss.
MARKS = {
    "random": lambda g: torch.rand(8, 1, generator=g, dtype=torch.float64),
    "far from zero": lambda g: 1e4 + (torch.arange(8) == 3).double()[:, None],
    "a small column": lambda g: torch.stack(
        [1e5 * (torch.arange(8) % 2), (torch.arange(8) == 3) * 1.0], 1
    ).double(),
    "columns alike in sum": lambda g: torch.where(
        torch.tensor([True, False, False, True, True, False, True, False])[:, None],
        torch.tensor([1, 0, 0, 1, 0, 0, 0, 0, 0]),  # the roots of 1 and 4 add up to that of 9
        torch.tensor([0, 0, 0, 0, 0, 0, 0, 0, 1]),
    ).double(),
    "columns exchanged": lambda g: torch.eye(2, dtype=torch.float64)[
        torch.tensor([0, 1, 1, 1, 0, 0, 1, 0])
    ],
}


@pytest.mark.parametrize("mark", MARKS)
def test_numbers_decide_where_points_do_not(mark, named_cloud, generator):
    pos, x = named_cloud("corners"), MARKS[mark](generator)
    _, _, first, _, values = canonical_pose(pos, None, x=x)
    for turn in random_rotations(6, generator=generator, dtype=torch.float64):
        order = torch.randperm(8, generator=generator)
        _, _, again, _, own = canonical_pose((pos @ turn.T)[order], None, x=x[order])
        torch.testing.assert_close(again, first, atol=1e-9, rtol=0)
        assert torch.equal(own, values)


def test_points_in_one_place_are_in_the_order_of_their_numbers(named_cloud, generator):
    pos, x = named_cloud("corners").repeat(2, 1), numbers(16, generator, 1)
    *_, values = canonical_pose(pos, None, x=x)
    for _ in range(3):
        order = torch.randperm(16, generator=generator)
        assert torch.equal(canonical_pose(pos[order], None, x=x[order])[-1], values)


def test_a_constant_says_nothing_of_the_pose(named_cloud):
    pos = named_cloud("sphere")
    plain = canonical_pose(pos, None)[2]
    for constant in (0.5, 7.0, 1e9):
        x = torch.full((len(pos), 2), constant, dtype=torch.float64)
        assert torch.equal(canonical_pose(pos, None, x=x)[2], plain)


def test_many_clouds_at_once_are_not_built_without_them(make_blob):
    plain = preset("small")["levels"]
    levels = [replace(level, in_channels=3) for level in plain]
    assert levels_covered(plain) and not levels_covered(levels)
    with pytest.raises(ArgumentError, match=r"`x` \(=None\)"):
        build_pose_graphs([make_blob(600)], levels)


def test_what_brings_points_alone_says_so(make_blob, tmp_path):
    levels, pos = levels_of(), make_blob(30)
    model = network(levels)
    checkpoint = Checkpoint(model, list("abcd"), {})
    for ask in (
        lambda: predict_cloud(checkpoint, pos),
        lambda: predict_each(checkpoint, ["a.xyz"]),
        lambda: align_clouds(model, pos, pos),
        lambda: sample_level(pos, levels),
        lambda: GraphStore.build(tmp_path, [pos], levels),
    ):
        with pytest.raises(ArgumentError, match=r"in_channels=2.*bring none"):
            ask()


def test_levels_of_as_many_numbers_that_see_other_things_are_refused():
    colored, normals = levels_of(channels=3), levels_of(channels=0, normals=True)
    assert colored[0].lift_channels == normals[0].lift_channels
    with pytest.raises(ArgumentError, match="normals=True, in_channels=0.*normals=False, in_ch"):
        network(colored).with_levels(normals)


def test_settings_say_so_only_where_there_are_any():
    with_it, without = Level(0.5, in_channels=3), Level(0.5)
    assert "in_channels" not in without.to_dict()
    for level in (with_it, without):
        assert Level.from_dict(level.to_dict()) == level
    assert with_it.lift_channels == 15 * 4 and replace(with_it, normals=True).lift_channels == 105


def test_errors_name_what_is_missing(make_blob, generator):
    pos, x, levels = make_blob(30), numbers(30, generator), levels_of()
    for wrong in (x[:-1], x[:, :1], x.tolist()):
        with pytest.raises(ShapeError, match=r"`x`.*\[30, 2\]"):
            build_pose_graph(pos, levels, x=wrong)
    with pytest.raises(DataError, match="`x` has entries that are NaN"):
        build_pose_graph(pos, levels, x=x * float("nan"))
    with pytest.raises(DataError, match="`x` reaches 1e\\+16.*scale it"):
        build_pose_graph(pos, levels, x=torch.full_like(x, 1e16))
    for wrong in (x.to(torch.complex64), x.to_sparse()):
        with pytest.raises(ShapeError, match="dense tensor of real numbers"):
            build_pose_graph(pos, levels, x=wrong)
    batch = Batch.from_data_list([Data(pos=pos, x=x)] * 2)
    for wrong in (x.repeat(2, 1).numpy(), torch.tensor(3.0), x):
        batch.x = wrong
        with pytest.raises(ShapeError, match="`clouds.x`.*a row for each of the points"):
            forward_online(network(levels), batch)
    with pytest.raises(ArgumentError, match=r"`x` \(=None\).*2 numbers of each point"):
        BuildPoseGraph(levels)(Data(pos=pos))
    with pytest.raises(ArgumentError, match=r"`x` \(=None\)"):
        forward_online(network(levels), [pos])
    with pytest.raises(ArgumentError, match=r"`x` \(=None\)"):
        build_pose_graphs([pos], levels)
    with pytest.raises(ArgumentError, match=r"`x` \(=given\) is taken by no level"):
        build_pose_graph(pos, levels_of(channels=0), x=x)
    uneven = [levels[0], replace(levels[1], in_channels=3), levels[2]]
    with pytest.raises(ArgumentError, match=r"`levels` take \[2, 3\] numbers"):
        build_pose_graph(pos, uneven, x=x)
    with pytest.raises(ArgumentError, match=r"`in_channels` \(=-1\)"):
        Level(0.5, in_channels=-1)
    with pytest.raises(ArgumentError, match=r"`in_channels` \(=2\) is for kernel points"):
        Level(0.5, NormalPoses(), pairs=(2, 2, 3, 1), in_channels=2)


def test_a_data_without_use_for_its_x_keeps_it_out(make_blob, generator):
    pos, levels = make_blob(30), levels_of(channels=0)
    model = network(levels)
    plain = model(BuildPoseGraph(levels)(Data(pos=pos)))
    torch.testing.assert_close(
        model(BuildPoseGraph(levels)(Data(pos=pos, x=numbers(30, generator)))), plain
    )
