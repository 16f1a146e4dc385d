"""The graph of some clouds of a batch."""

import pytest
import torch

from pcequi.errors import ArgumentError
from pcequi.graph_store import GraphStore
from pcequi.models.presets import preset
from pcequi.pose_graph import TENSORS, PoseGraph, build_pose_graph


def same(one, other):
    for a, b in zip(one.levels, other.levels, strict=True):
        for name in TENSORS:
            left, right = getattr(a, name), getattr(b, name)
            assert (left is None) == (right is None)
            if left is not None:
                torch.testing.assert_close(left, right, rtol=0, atol=0)
        assert a.basis == b.basis and a.each == b.each


@pytest.mark.parametrize("which", [[0], [2, 0], [1, 1, 2], [0, 1, 2]])
def test_it_is_that_of_the_clouds_alone(which, levels_of, make_blob):
    levels = levels_of(num=7)
    clouds = [make_blob(n, n) for n in (5, 30, 12)]  # of different numbers of representatives
    graphs = [build_pose_graph(cloud, levels, points=True) for cloud in clouds]
    found = PoseGraph.batch(graphs).take(torch.tensor(which))
    same(found, PoseGraph.batch([graphs[cloud] for cloud in which]))
    assert all(level.points is None for level in found.levels)


@pytest.mark.parametrize("name", ["small", "pairs"])
def test_dense_blocks_go_along(name, make_blob, tmp_path):
    levels = [level.with_budget(num=16) for level in preset(name)["levels"][:2]]
    store = GraphStore.build(tmp_path, [make_blob(40, n) for n in range(3)], levels, workers=1)
    found = store.batch(range(3), blocks=torch.float32).take(torch.tensor([2, 1]))
    wanted = store.batch([2, 1], blocks=torch.float32)
    same(found, wanted)
    blocks = found.levels[1].blocks
    assert blocks is not None and torch.equal(blocks, wanted.levels[1].blocks)
    assert (found.levels[1].characters is None) == (wanted.levels[1].characters is None)


@pytest.mark.parametrize(
    "clouds",
    [torch.tensor([2]), torch.tensor([-1]), torch.tensor([]).long(), torch.tensor(0), [0],
     torch.tensor([0.0]), torch.tensor([True, False])],
)  # fmt: skip
def test_what_names_no_clouds_is_an_error(clouds, levels_of, make_blob):
    graph = build_pose_graph(make_blob(9), levels_of(num=4))
    with pytest.raises(ArgumentError, match=r"`clouds`.*from 0 to 1"):
        PoseGraph.batch([graph, graph]).take(clouds)
