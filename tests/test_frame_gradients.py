"""Frames as functions of the points: equal to the constant ones, with their true derivatives."""

import pytest
import torch

from pcequi.kernels import SE3Kernel
from pcequi.nn import GroupConv
from pcequi.normals import estimate_normals
from pcequi.ops import pairs_within
from pcequi.pair_kernel import PairKernel
from pcequi.poses import NormalPoses, PairPoses, TangentPoses
from pcequi.rotations import cyclic_group

SAMPLERS = [TangentPoses(2, 10), PairPoses(2, 9), NormalPoses(1.0)]
WIDE = 0.9


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_values_are_those_of_the_constant_frames(sampler, solid_cloud):
    for dtype in (torch.float32, torch.float64):
        pos = solid_cloud.to(dtype)
        moving = sampler(pos.clone().requires_grad_(), differentiable=True).rot
        assert moving.requires_grad and torch.equal(moving, sampler(pos).rot)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_two_derivatives_are_those_of_differences(sampler, make_blob, generator):
    weight = torch.randn(12, sampler(make_blob(12)).num_rotations, 3, 3, generator=generator)

    def frames(pos):
        return sampler(pos, differentiable=True).rot

    def some(pos):
        return (frames(pos) * weight).sum((1, 2, 3))[::4]

    pos = make_blob(12).requires_grad_()
    assert torch.autograd.gradcheck(frames, (pos,))
    assert torch.autograd.gradgradcheck(some, (pos,))


def energy_of(sampler, kernel):
    torch.manual_seed(0)
    layers = GroupConv(1, 6, kernel).double(), GroupConv(6, 1, kernel).double()

    def energy(pos, differentiable=True):
        frame = sampler(pos, differentiable=differentiable).rot[:, 0]
        target, source = pairs_within(pos.detach(), pos.detach(), WIDE)
        to_frame = frame[target].mT
        offset = (to_frame @ (pos[source] - pos[target])[:, :, None])[:, :, 0] / WIDE
        edges = torch.stack([source, target]), (offset, to_frame @ frame[source])
        return layers[1](layers[0](pos.new_ones(len(pos), 1), *edges).tanh(), *edges).sum()

    return energy


@pytest.mark.parametrize(
    ("sampler", "kernel"),
    [(TangentPoses(1), SE3Kernel(15, 4, 1.5)), (PairPoses(1, 12), SE3Kernel(7, 12, 1.5))]
    + [(NormalPoses(0.8), PairKernel())],
    ids=str,
)
def test_forces_of_an_invariant_energy(sampler, kernel, make_blob, generator):
    energy, pos = energy_of(sampler, kernel), make_blob(40)
    step = torch.randn(40, 3, generator=generator, dtype=torch.float64)

    def gradient(differentiable):
        moving = pos.clone().requires_grad_()
        return torch.autograd.grad(energy(moving, differentiable), moving)[0]

    def torque(found):
        return torch.linalg.cross(pos, found).sum(0).norm()

    with torch.no_grad():
        ends = [energy(pos + h * step) for h in (1e-6, -1e-6)]
    slope = float(ends[0] - ends[1]) / 2e-6
    found, fixed = gradient(True), gradient(False)
    assert float((found * step).sum()) == pytest.approx(slope, rel=1e-5)
    size = found.norm()
    assert size > 0.1 and found.sum(0).norm() < 1e-12 * size and torque(found) < 1e-12 * size
    # With frames held fixed it is another vector, which the documentation says.
    assert abs(float((fixed * step).sum()) - slope) > 0.01 * abs(slope)
    assert torque(fixed) > 0.01 * size


@pytest.mark.parametrize("name", ["blob", "cube", "sphere", "prism"])
def test_normals_turn_to_first_order_where_the_larger_variances_agree(name, named_cloud):
    # On a face of a cube the two do, and derivatives of all eigenvectors would be NaN.
    pos, axis = named_cloud(name), torch.tensor([0.3, -0.5, 0.8], dtype=torch.float64)
    spin = axis.expand_as(pos)
    normal, change = torch.autograd.functional.jvp(
        lambda pos: estimate_normals(pos, 9, differentiable=True),
        pos,
        torch.linalg.cross(spin, pos),
    )
    wanted = torch.linalg.cross(spin, normal)
    follows = (change - wanted).norm(dim=1) < 1e-9
    held = change.norm(dim=1) == 0
    assert (follows | held).all() and follows.double().mean() > 0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_gradients_are_finite_where_clouds_fix_no_direction(sampler, dtype, degenerate_cloud):
    pos = degenerate_cloud.to(dtype).clone().requires_grad_()
    rot = sampler(pos, differentiable=True).rot
    if rot.requires_grad:
        (gradient,) = torch.autograd.grad(rot[..., :2].square().sum() + rot.sum(), pos)
        assert torch.isfinite(gradient).all()


def test_the_gradient_does_not_know_the_unit_of_length(make_blob):
    pos = make_blob(20)
    for scale in (1e-6, 1e4):
        found = []
        for size in (1.0, scale):
            moving = (size * pos).requires_grad_()
            out = estimate_normals(moving, 9, differentiable=True).sum()
            found.append(size * torch.autograd.grad(out, moving)[0])
        torch.testing.assert_close(*found, rtol=1e-8, atol=1e-10)


def test_gradients_flow_to_given_normals(make_blob):
    pos, normal = make_blob(8), estimate_normals(make_blob(8)).requires_grad_()
    for sampler in (TangentPoses(3), PairPoses(2, 5), NormalPoses()):
        assert not sampler(pos, normal).rot.requires_grad
        assert torch.autograd.gradcheck(
            lambda normal, sampler=sampler: sampler(pos, normal, differentiable=True).rot, normal
        )
    turns = TangentPoses(3)(pos, normal, differentiable=True)
    group = cyclic_group(3, dtype=torch.float64)
    torch.testing.assert_close(turns.rot, turns.rot[:, :1] @ group)
