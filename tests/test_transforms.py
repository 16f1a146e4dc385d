"""The transform attaches what PyG's own loader can batch."""

import pytest
import torch
from torch_geometric.data import Batch, Data
from torch_geometric.loader import DataLoader

from pcequi.errors import ArgumentError, DataError
from pcequi.pose_graph import TENSORS, PoseGraph, build_pose_graph
from pcequi.transforms import BuildPoseGraph, DropOutliers


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
