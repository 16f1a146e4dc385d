"""The graph of some clouds of a batch."""

import pytest
import torch

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
