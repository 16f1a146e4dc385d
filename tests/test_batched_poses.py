"""Poses of a batch of clouds are those of each cloud alone."""

import pytest
import torch

from pcequi.batched_poses import batched_poses
from pcequi.errors import DataError, ShapeError
from pcequi.poses import CentroidPoses, GridPoses, NormalPoses, PairPoses, TangentPoses

SAMPLERS = [
    GridPoses("O"), GridPoses(5), GridPoses("D2", "principal"), GridPoses("D2", "manhattan"),
    TangentPoses(3), PairPoses(2), NormalPoses(0.5), CentroidPoses("O"),
    CentroidPoses("D2", "none"),
]  # fmt: skip


@pytest.fixture
def clouds(make_blob, named_cloud):
    return make_blob(30), named_cloud("one point"), make_blob(20, 1) + 5.0, named_cloud("cube")


def joined(clouds):
    sizes = torch.tensor([len(cloud) for cloud in clouds])
    return torch.cat(clouds), torch.arange(len(clouds)).repeat_interleave(sizes)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
@pytest.mark.parametrize("given", [True, False])
def test_each_cloud_has_the_poses_that_it_has_alone(sampler, given, clouds):
    pos, batch = joined(clouds)
    normal = pos.roll(1, 1) + 0.1 if given else None
    poses = batched_poses(sampler, pos, batch, normal)
    ends = torch.bincount(batch).cumsum(0).tolist()
    for number, (cloud, end) in enumerate(zip(clouds, ends)):
        there = slice(end - len(cloud), end)
        alone = sampler(cloud, None if normal is None else normal[there])
        if isinstance(sampler, CentroidPoses):
            there = slice(number, number + 1)
        assert torch.equal(poses.pos[there], alone.pos)
        assert torch.equal(poses.rot[there], alone.rot)
    assert poses.axial == alone.axial and (poses.group is None) == (alone.group is None)
    if poses.group is not None:
        torch.testing.assert_close(poses.rot[:, :1] @ poses.group, poses.rot + 0)
    fixed = getattr(sampler, "align", "") == "none"
    assert poses.shared == fixed  # kept once in memory


def test_without_the_batch_the_clouds_are_taken_for_one(clouds):
    pos, batch = joined(clouds)
    sampler = TangentPoses(1)
    apart = batched_poses(sampler, pos, batch).rot - sampler(pos).rot
    assert (apart.flatten(1).norm(dim=1) > 0.1).double().mean() > 0.5
    assert torch.equal(batched_poses(sampler, pos, None).rot, sampler(pos).rot)


def test_frames_of_a_batch_may_be_functions_of_the_points(clouds):
    pos, batch = joined(clouds[::2])
    pos.requires_grad_()
    rot = batched_poses(TangentPoses(1), pos, batch, differentiable=True).rot
    (gradient,) = torch.autograd.grad(rot[:30, 0, 0].sum(), pos)
    assert gradient[:30].abs().max() > 0.1 and gradient[30:].abs().max() == 0


@pytest.mark.parametrize(
    ("batch", "error", "message"),
    [
        ([0, 1, 0, 1], DataError, "`batch` is not sorted from 0 on; sort the points"),
        ([-1, 0, 0, 1], DataError, "`batch` is not sorted from 0 on; sort the points"),
        ([0, 0, 2, 2], DataError, "`batch` skips cloud 1; every cloud needs at least one point"),
        ([0, 0, 0], ShapeError, r"`batch` \(=\[3\], torch.int64\) must be .* \(=\[4\]\)"),
        ([0.0, 0.0, 1.0, 1.0], ShapeError, r"`batch` \(=\[4\], torch.float32\) must be whole"),
    ],
)
def test_batches_of_other_points_are_refused(batch, error, message):
    with pytest.raises(error, match=message):
        batched_poses(TangentPoses(1), torch.rand(4, 3), torch.tensor(batch))


def test_normals_of_other_points_are_refused():
    with pytest.raises(ShapeError, match=r"`normal` \(=\[5, 3\]\) must match `pos`"):
        batched_poses(
            TangentPoses(1), torch.rand(4, 3), torch.tensor([0, 0, 1, 1]), torch.rand(5, 3)
        )
