"""Explicit edges between poses: with GroupConv they are the compressed layer."""

import pytest
import torch

from pcequi.errors import ArgumentError, ShapeError
from pcequi.kernels import SE3Kernel
from pcequi.nn import GroupConv
from pcequi.pose_graph import Level, build_pose_graph, pose_edges
from pcequi.poses import GridPoses, NormalPoses, PairPoses, Poses, TangentPoses


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(
    ("sampler", "anchors", "width"),
    [(TangentPoses(4), 1, 3.0), (TangentPoses(4), 4, 3.0), (TangentPoses(3), 8, 1.5)]
    + [(GridPoses("O", "principal"), 12, 1.5), (PairPoses(3), 4, 1.5), (NormalPoses(0.5), 4, 2.0)],
    ids=str,
)
def test_edges_of_every_anchor_give_the_compressed_layer(
    sampler, anchors, width, normalize, make_blob, generator
):
    level = Level(0.7, sampler, kernel_points=7, kernel_rotations=anchors, rotation_width=width)
    graph, sampled = build_pose_graph(make_blob(20), [Level(0.5, sampler), level], embeddings=True)
    poses = sampled[1].poses
    torch.manual_seed(0)
    conv = GroupConv(5, 3, level.kernel(), bias=False, normalize=normalize).double()
    x = torch.randn(poses.num, 5, dtype=torch.float64, generator=generator)
    compressed = conv.compressed(x, graph.levels[1], graph.levels[0].count)
    found = pose_edges(*poses.at(torch.arange(poses.num)), poses, level)
    if not normalize:  # which the compressed operator always does
        mass = conv.kernel.mass(found.offset) / anchors
        total = mass.new_zeros(poses.num).index_add_(0, found.edge_index[1], mass)
        compressed = compressed * total[:, None]
    assert compressed.abs().max() > 0.1
    for offset in (found.offset, found.offset.clone().requires_grad_()):  # rows, and messages
        found.offset = offset
        explicit = conv(x, found.edge_index, found.relative_pose)
        torch.testing.assert_close(explicit, compressed, atol=1e-12, rtol=1e-9)


def test_edges_of_a_batch_stay_in_their_clouds(make_blob):
    level, clouds = Level(0.9, TangentPoses(2), kernel_rotations=2), (make_blob(9), make_blob(7, 1))
    pos, rot = torch.cat(clouds), torch.cat([level.poses(cloud).rot for cloud in clouds])
    batch = torch.tensor([0] * 9 + [1] * 7)
    found = pose_edges(pos, rot[:, 0], Poses(pos, rot), level, batch, batch)
    source, target = found.edge_index
    assert torch.equal(batch[source // 2], batch[target])
    alone = pose_edges(clouds[1], rot[9:, 0], level.poses(clouds[1]), level)
    there = batch[target] == 1
    torch.testing.assert_close(found.offset[there], alone.offset)
    torch.testing.assert_close(found.rotation[there], alone.rotation)
    assert torch.equal(found.edge_index[:, there] - torch.tensor([[18], [9]]), alone.edge_index)
    with pytest.raises(ArgumentError, match=r"`batch_source` \(=None\) is needed"):
        pose_edges(pos, rot[:, 0], Poses(pos, rot), level, batch)


def test_anchors_of_another_kernel_are_refused(make_blob):
    pos, level = make_blob(12), Level(0.9, TangentPoses(2), kernel_rotations=4)
    poses = level.poses(pos)
    found = pose_edges(*poses.at(torch.arange(24)), poses, level)
    x = torch.ones(24, 2, dtype=torch.float64)
    for fewer in (1, 2):
        conv = GroupConv(2, 3, SE3Kernel(15, fewer)).double()
        with pytest.raises(ShapeError, match=rf"\[2\]` \(from 0 to 3\) .* 0 to {fewer - 1}; take"):
            conv(x, found.edge_index, found.relative_pose)
    conv = GroupConv(2, 3, level.kernel()).double()
    with pytest.raises(ShapeError, match=r"`relative_pose\[2\]` \(=\[3\]\) must be \[edges\]"):
        conv(x, found.edge_index, (found.offset, found.rotation, found.anchor[:3]))


def test_an_energy_along_edges_of_several_poses_has_no_torque(make_blob, generator):
    level = Level(0.9, TangentPoses(3, 12), kernel_points=7)
    torch.manual_seed(0)
    conv = GroupConv(2, 1, level.kernel()).double()
    x = torch.randn(90, 2, dtype=torch.float64, generator=generator)
    step = torch.randn(30, 3, dtype=torch.float64, generator=generator)

    def energy(pos):
        poses = level.poses(pos, differentiable=True)
        found = pose_edges(*poses.at(torch.arange(90)), poses, level)
        return conv(x, found.edge_index, found.relative_pose).tanh().sum()

    pos = make_blob(30).requires_grad_()
    (found,) = torch.autograd.grad(energy(pos), pos)
    with torch.no_grad():
        slope = float(energy(pos + 1e-6 * step) - energy(pos - 1e-6 * step)) / 2e-6
    assert float((found * step).sum()) == pytest.approx(slope, rel=1e-5)
    assert torch.linalg.cross(pos.detach(), found).sum(0).norm() < 1e-12 * found.norm()
