"""The blocks of a network: gradients, and the constant channel."""

import torch

from pcequi.kernels import SE3Kernel
from pcequi.nn import GroupConvBlock, LiftBlock
from pcequi.pose_graph import PoseGraph, build_pose_graph


def test_gradcheck_of_the_lifting_block():
    torch.manual_seed(0)
    block = LiftBlock(6, 3).double().eval()
    x = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(block, (x,))


def test_gradcheck_of_the_convolution_block(make_blob, levels_of):
    torch.manual_seed(0)
    graph = build_pose_graph(make_blob(12), levels_of(num=6))
    block = GroupConvBlock(2, 3, SE3Kernel(7, 4)).double().eval()
    x = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda x: block(x, graph.levels[1], graph.levels[0].count), (x,), fast_mode=True
    )


def test_a_block_sees_geometry_where_features_are_zero(make_blob, levels_of):
    torch.manual_seed(0)
    graph = build_pose_graph(make_blob(12), levels_of(num=6))
    block = GroupConvBlock(2, 8, SE3Kernel(7, 4)).double().eval()
    out = block(torch.zeros(6, 2, dtype=torch.float64), graph.levels[1], graph.levels[0].count)
    assert out.std(0).max() > 1e-3


def test_clouds_of_a_batch_do_not_touch(make_blob, levels_of):
    torch.manual_seed(0)
    graphs = [build_pose_graph(make_blob(n, n), levels_of(num=6)) for n in (12, 9)]
    both = PoseGraph.batch(graphs)
    block = GroupConvBlock(2, 3, SE3Kernel(7, 4)).double().eval()
    x = torch.randn(12, 2, dtype=torch.float64)
    together = block(x, both.levels[1], both.levels[0].count)
    parts = [
        block(x[6 * i : 6 * i + 6], graph.levels[1], graph.levels[0].count)
        for i, graph in enumerate(graphs)
    ]
    torch.testing.assert_close(together, torch.cat(parts))
