"""Gradients of frames where the points are too few for an axis of least variance."""

import pytest
import torch

from pcequi.normals import estimate_normals, following_axis
from pcequi.poses import NormalPoses, PairPoses, TangentPoses

F64 = torch.float64
SAMPLERS = [TangentPoses(1), PairPoses(), NormalPoses(1.2)]


def few(num, seed):
    generator = torch.Generator().manual_seed(100 * num + seed)
    return torch.randn(num, 3, generator=generator, dtype=F64)


def energy_of(sampler):
    """An invariant function of points that tells all axes apart that mean something."""
    axes = slice(2, None) if isinstance(sampler, NormalPoses) else slice(None)

    def energy(pos):
        frame = sampler(pos, differentiable=True).rot[:, 0, :, axes]
        weight = pos.new_tensor([0.3, -0.7, 1.1])[axes]
        seen = torch.einsum("nai,nma->nmi", frame, pos - pos[:, None])
        turns = torch.einsum("nai,mai->nmi", frame, frame)
        return ((seen * weight).sum(2).sin() + 0.2 * (turns * weight.flip(0)).sum(2).cos()).sum()

    return energy


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("num", [3, 4, 5])
@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_an_invariant_energy_of_few_points_has_no_torque(sampler, num, seed):
    energy, pos = energy_of(sampler), few(num, seed).requires_grad_()
    (gradient,) = torch.autograd.grad(energy(pos), pos)
    with torch.no_grad():
        for row in range(num):
            for axis in range(3):
                step = torch.zeros_like(pos)
                step[row, axis] = 1e-6
                slope = (energy(pos + step) - energy(pos - step)) / 2e-6
                assert float(gradient[row, axis]) == pytest.approx(float(slope), abs=1e-6, rel=1e-5)
    size = gradient.norm()
    assert size > 0.1 and gradient.sum(0).norm() < 1e-10 * size
    assert torch.linalg.cross(pos, gradient).sum(0).norm() < 1e-10 * size


@pytest.mark.parametrize("num", [2, 3, 4, 5])
def test_two_derivatives_of_their_normals_are_those_of_differences(num):
    def normals(pos):
        return estimate_normals(pos, differentiable=True)

    pos = few(num, 7).requires_grad_()
    assert torch.equal(normals(pos), estimate_normals(pos))
    assert torch.autograd.gradcheck(normals, (pos,))
    assert torch.autograd.gradgradcheck(normals, (pos,))


def test_where_all_variances_agree_the_normal_follows_the_point():
    pos = few(7, 0)
    axis = pos / pos.norm(dim=1, keepdim=True)
    moving = pos.clone().requires_grad_()
    eye = torch.eye(3, dtype=F64).expand(7, 3, 3)
    found = following_axis(axis, eye, torch.ones(7, 3, dtype=F64), moving)
    torch.testing.assert_close(found, axis)
    spin = torch.tensor([0.3, -0.5, 0.8], dtype=F64)
    for row in range(7):
        (gradient,) = torch.autograd.grad(found[row] @ spin, moving, retain_graph=True)
        wanted = (spin - (spin @ axis[row]) * axis[row]) / pos[row].norm()
        torch.testing.assert_close(gradient[row], wanted)
