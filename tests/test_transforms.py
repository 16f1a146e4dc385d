"""The transform attaches what PyG's own loader can batch."""

import pytest
import torch
import torch_geometric.transforms as of_pyg
from torch_geometric.data import Batch, Data, HeteroData
from torch_geometric.loader import DataLoader

from pcequi.errors import ArgumentError, DataError, ShapeError
from pcequi.models import GroupConvClassifier, extract_features
from pcequi.pose_graph import TENSORS, PoseGraph, build_pose_graph
from pcequi.poses import GridPoses, TangentPoses
from pcequi.rotations import random_rotations
from pcequi.transforms import BuildPoseGraph, DropOutliers, NormalizeRadius, RandomRotation


def test_loader_batches_as_pose_graph_does(make_blob, levels_of, network):
    levels = levels_of(num=10)
    clouds = [make_blob(n, n) for n in (15, 22, 9)]
    transform = BuildPoseGraph(levels)
    data = [transform(Data(pos=pos, y=torch.tensor([i]))) for i, pos in enumerate(clouds)]
    batch = next(iter(DataLoader(data, batch_size=3)))
    graph = PoseGraph.batch([build_pose_graph(pos, levels) for pos in clouds])
    for a, b in zip(PoseGraph.load(batch).levels, graph.levels, strict=True):
        for name in TENSORS:
            x, y = getattr(a, name), getattr(b, name)
            assert (x is None and y is None) or torch.equal(x, y), name
    model = network(levels)
    torch.testing.assert_close(model(batch), model(graph))
    assert batch.y.tolist() == [0, 1, 2] and batch.num_graphs == 3


def test_normals_of_the_data_are_used(make_blob, levels_of):
    from dataclasses import replace

    levels = [replace(level, normals=True) for level in levels_of(num=8)]
    pos = make_blob(15)
    plain = BuildPoseGraph(levels)(Data(pos=pos))
    given = BuildPoseGraph(levels)(Data(pos=pos, normal=pos.flip(1)))
    assert not torch.equal(plain.graph0_lift, given.graph0_lift)


def test_data_without_points_is_refused(levels_of):
    transform = BuildPoseGraph(levels_of())
    with pytest.raises(DataError, match=r"`data.pos` \(=None\) is needed"):
        transform(Data())


def test_the_name_of_a_transform_tells_its_settings(levels_of):
    # PyG compares names to warn of a data set that was processed otherwise.
    name = repr(BuildPoseGraph(levels_of(num=8)))
    assert name == repr(BuildPoseGraph(levels_of(num=8)))
    assert name != repr(BuildPoseGraph(levels_of(num=9)))
    assert name != repr(BuildPoseGraph(levels_of(num=8), seed=1))


def test_a_graph_takes_the_place_of_the_old_one(make_blob, levels_of, network):
    levels = levels_of(num=10)
    data = BuildPoseGraph([*levels, levels[-1]])(Data(pos=make_blob(15)))
    data = BuildPoseGraph(levels)(data)
    assert len(PoseGraph.load(data).levels) == len(levels)
    fresh = BuildPoseGraph(levels)(Data(pos=make_blob(15)))
    assert torch.equal(network(levels)(data), network(levels)(fresh))


@pytest.mark.parametrize("size", [15, 4, 1])
def test_a_graph_that_was_cut_with_the_points_is_refused(make_blob, levels_of, network, size):
    # As many representatives as points: PyG takes the graph for attributes of points.
    levels = levels_of(num=size)
    data = BuildPoseGraph(levels)(Data(pos=make_blob(15)[:size]))
    assert data.is_node_attr("graph0_weight") == (len(data.graph0_weight) == size)
    cut = data.subgraph(torch.arange(size) < size - 1)
    with pytest.raises(ArgumentError, match="apply BuildPoseGraph after all transforms"):
        network(levels)(cut)


def test_random_levels_give_the_same_graph_again(make_blob, levels_of):
    from dataclasses import replace

    def graph(seed):
        levels = [
            replace(level, sampling=replace(level.sampling, method="random", num=6))
            for level in levels_of(num=6)
        ]
        return BuildPoseGraph(levels, seed=seed)(Data(pos=make_blob(30))).graph0_pos

    assert torch.equal(graph(0), graph(0)) and not torch.equal(graph(0), graph(1))


@pytest.mark.parametrize(
    "make", [lambda levels: BuildPoseGraph(levels), lambda levels: DropOutliers()]
)
def test_a_batch_of_clouds_is_refused_and_a_batch_of_one_is_not(make_blob, levels_of, make):
    transform = make(levels_of(num=10))
    clouds = [Data(pos=make_blob(n, n)) for n in (15, 22)]
    with pytest.raises(DataError, match=r"`data.batch` names 2 clouds.*before a DataLoader"):
        transform(Batch.from_data_list(clouds))
    one = transform(Batch.from_data_list(clouds[:1]))
    assert torch.equal(one.pos, transform(clouds[0]).pos)


def test_no_levels_are_refused_and_one_is_taken(make_blob, levels_of):
    with pytest.raises(ArgumentError, match=r"`levels` \(=\[\]\)"):
        BuildPoseGraph([])
    (level, *_) = levels_of(num=10)
    one, same = (BuildPoseGraph(given)(Data(pos=make_blob(15, 1))) for given in (level, [level]))
    assert torch.equal(one.graph0_lift, same.graph0_lift)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 250.0])
def test_clouds_of_any_size_come_to_unit_radius(make_blob, scale):
    pos = make_blob(40) * scale + 7.0
    found = NormalizeRadius()(Data(pos=pos.float(), y=torch.tensor([2])))
    assert found.pos.dtype == torch.float32 and found.y.item() == 2
    assert found.pos.norm(dim=1).max().item() == pytest.approx(1, abs=1e-6)
    centered = pos - pos.mean(0)
    wanted = centered / centered.norm(dim=1).max()
    torch.testing.assert_close(found.pos, wanted.float(), atol=2e-2 / scale + 1e-6, rtol=0)


def test_copies_of_one_point_have_no_size(generator):
    place = torch.rand(1, 3, generator=generator).expand(7, 3)
    assert NormalizeRadius()(Data(pos=place)).pos.abs().max() == 0


def test_a_cloud_too_large_for_squares_is_refused():
    with pytest.raises(DataError, match="too far for squares"):
        NormalizeRadius()(Data(pos=torch.tensor([[1e200, 0, 0], [0, 0, 0]], dtype=torch.float64)))


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_a_cloud_of_another_scale_is_told(make_blob, levels_of, scale):
    data = Data(pos=make_blob(60) * scale)
    with pytest.warns(UserWarning, match="scale clouds first"):
        BuildPoseGraph(levels_of(num=8))(data.clone())
    BuildPoseGraph(levels_of(num=8))(NormalizeRadius()(data))


@pytest.mark.parametrize("factor", [0.05, 4.0])
def test_a_cloud_that_the_last_level_cannot_be_meant_for_is_told(make_blob, factor):
    levels = GroupConvClassifier.from_preset("small", num_classes=2).levels
    data = NormalizeRadius()(Data(pos=make_blob(60)))
    BuildPoseGraph(levels)(data.clone())  # warnings are errors
    data.pos = data.pos * factor
    with pytest.warns(UserWarning, match=r"does not fit the radii .*0.25, 0.5, 1.4"):
        BuildPoseGraph(levels)(data)


def test_points_read_what_the_features_of_a_cloud_say(make_blob, levels_of, network):
    for poses in (GridPoses("D2", "principal"), TangentPoses(3)):
        model = network(levels_of(poses, num=9, blend=3))
        clouds = [make_blob(n, n) for n in (40, 1, 26)]
        build = BuildPoseGraph(model.levels, points=True)
        graph = PoseGraph.load(Batch.from_data_list([build(Data(pos=pos)) for pos in clouds]))
        assert torch.equal(model(graph), model(graph))
        for number, x in enumerate(model.level_features(graph)):
            alone = [extract_features(model, pos).levels[number].per_point() for pos in clouds]
            torch.testing.assert_close(graph.to_points(x, number), torch.cat(alone))
        half = graph.to(torch.float32)
        assert half.levels[0].points.val.dtype == torch.float32


def test_features_of_points_move_with_the_points(make_blob, levels_of, network, generator):
    model = network(levels_of(num=9))
    pos, order = make_blob(40), torch.randperm(40, generator=generator)
    turn = random_rotations(1, generator=generator, dtype=torch.float64)[0]
    here, there = (
        build_pose_graph(cloud, model.levels, points=True)
        for cloud in (pos, (pos @ turn.T + 2.0)[order])
    )
    for number in range(len(model.levels)):
        one, other = (g.to_points(model.level_features(g)[number], number) for g in (here, there))
        torch.testing.assert_close(one[order], other)


def test_points_in_another_order_are_noticed(make_blob, levels_of, network, generator):
    levels = levels_of(num=9)
    data = BuildPoseGraph(levels, points=True)(Data(pos=make_blob(20)))
    with pytest.raises(ArgumentError, match="drop or reorder points"):
        network(levels)(data.subgraph(torch.randperm(20, generator=generator)))


def test_a_graph_without_points_says_so(make_blob, levels_of):
    graph = build_pose_graph(make_blob(20), levels_of(num=6))
    with pytest.raises(ShapeError, match=r"`x` \(=\[5, 2\]\) must be .*level 0 \(=6\)"):
        graph.to_points(torch.zeros(5, 2), 0)
    with pytest.raises(ArgumentError, match="build it with `points=True`"):
        graph.to_points(torch.zeros(6, 2), 0)
    with pytest.raises(ArgumentError, match=r"`level` \(=3\) must be 0 to 2, counted from 0"):
        graph.to_points(torch.zeros(6, 2), 3)


def test_gradients_flow_from_points(make_blob, levels_of):
    graph = build_pose_graph(make_blob(12), levels_of(num=5), points=True)
    x = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: graph.to_points(x, 1), (x,))


def test_strays_of_a_mesh_and_other_kinds_of_data_are_refused(make_blob, levels_of):
    pos = torch.cat([make_blob(80), torch.full((1, 3), 9.0)])
    face = torch.tensor([[0], [1], [80]])
    with pytest.raises(DataError, match="`data.face`"):
        DropOutliers()(Data(pos=pos, face=face))
    hetero = HeteroData()
    hetero["point"].pos = pos
    for transform in (DropOutliers(), NormalizeRadius(), BuildPoseGraph(levels_of())):
        with pytest.raises(DataError, match=r"`data` \(=HeteroData\)"):
            transform(hetero)


@pytest.mark.parametrize("transform", [NormalizeRadius(), DropOutliers(), RandomRotation()])
def test_points_of_a_graph_are_not_changed_behind_its_back(transform, make_blob, levels_of):
    data = BuildPoseGraph(levels_of(num=6))(Data(pos=make_blob(40)))
    with pytest.raises(DataError, match="`data` has a pose graph already.* BuildPoseGraph last"):
        transform(data)


def test_a_graph_goes_where_another_tensor_is(make_blob, levels_of):
    graph = build_pose_graph(make_blob(20), levels_of())
    moved = graph.to(torch.zeros(1, dtype=torch.float32))
    for level in moved.levels:
        assert level.count.dtype == torch.int64 and level.weight.dtype == torch.float32
    assert moved.levels[1].col.dtype == graph.levels[1].col.dtype


WITHOUT_EFFECT = [
    of_pyg.RandomJitter(0.1), of_pyg.RandomScale((0.5, 0.6)), of_pyg.RandomShear(0.3),
    of_pyg.RandomFlip(0, p=1.0), of_pyg.RandomRotate(180), of_pyg.Center(),
    of_pyg.LinearTransformation(torch.eye(3, dtype=torch.float64).roll(1, 0) + 0.1),
    of_pyg.NormalizeScale(), of_pyg.NormalizeRotation(),
]  # fmt: skip


@pytest.mark.parametrize("transform", WITHOUT_EFFECT, ids=lambda one: type(one).__name__)
def test_what_has_no_effect_after_a_graph(transform, make_blob, levels_of, network):
    # As the FAQ and the docstring of BuildPoseGraph say.
    levels = levels_of(num=8)
    data = BuildPoseGraph(levels, points=True)(Data(pos=make_blob(30) + 1.0))
    moved = transform(data.clone())
    assert not torch.equal(moved.pos, data.pos)
    assert torch.equal(network(levels)(moved), network(levels)(data))
    assert type(transform).__name__ in BuildPoseGraph.__doc__


def test_points_that_are_drawn_after_a_graph(make_blob, levels_of, network):
    levels, draw = levels_of(num=8), of_pyg.FixedPoints(20, replace=False)
    plain, pointed = (
        BuildPoseGraph(levels, points=points)(Data(pos=make_blob(30))) for points in (False, True)
    )
    assert torch.equal(network(levels)(draw(plain.clone())), network(levels)(plain))
    with pytest.raises(ArgumentError, match="drop or reorder points"):
        network(levels)(draw(pointed))
