"""Where ties, thresholds and signs of the geometry end."""

import math

import numpy as np
import pytest
import torch

from pcequi import canonical
from pcequi.canonical import canonical_pose
from pcequi.datasets.meshes import sample_mesh
from pcequi.frames import manhattan_frame, principal_frame
from pcequi.normals import estimate_normals, following_axis
from pcequi.pair_kernel import pair_basis
from pcequi.rotations import finite_group, random_rotations


def test_a_second_function_decides_where_the_first_ties(make_blob, generator, monkeypatch):
    monkeypatch.setattr(canonical, "WAVES", ((0.0, 0.0, 0.0),) * 3)  # all frames tie
    pos = make_blob(30)
    first = canonical.canonical_pose(pos, None)[2]
    for turn in random_rotations(6, generator=generator, dtype=torch.float64):
        again = canonical.canonical_pose(pos @ turn.T, None)[2]
        torch.testing.assert_close(again, first, atol=1e-9, rtol=0)


def test_points_in_one_place_are_in_the_order_of_their_normals(make_blob, generator):
    pos = make_blob(20).repeat(2, 1)
    normal = torch.nn.functional.normalize(torch.randn(40, 3, generator=generator).double(), dim=1)
    wanted = canonical_pose(pos, None, normal)
    for turn in random_rotations(4, generator=generator, dtype=torch.float64):
        order = torch.randperm(40, generator=generator)
        found = canonical_pose((pos @ turn.T)[order], None, (normal @ turn.T)[order])
        torch.testing.assert_close(found[2], wanted[2], atol=1e-9, rtol=0)
        torch.testing.assert_close(found[3], wanted[3], atol=1e-9, rtol=0)


def test_degenerate_axes_below_the_first_follow_the_points(generator):
    corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0]).double()] * 3)
    pos = corners * torch.tensor([2.0, 1, 1])
    frame, group = principal_frame(pos), finite_group("O", dtype=torch.float64)
    for turn in random_rotations(10, generator=generator, dtype=torch.float64):
        found = principal_frame(pos @ turn.T)
        apart = turn @ frame @ group - found
        # A quarter turn about the long axis is a symmetry: order and signs alone may differ.
        assert apart.abs().amax((1, 2)).min() < 1e-6


def test_a_large_cloud_is_thinned_evenly(generator):
    def box(num):
        pos = torch.rand(num, 3, generator=generator, dtype=torch.float64) * 2 - 1
        side = torch.arange(num) % 3
        pos[torch.arange(num), side] = pos[torch.arange(num), side].sign()
        return pos * pos.new_tensor([1.0, 0.8, 0.6])

    turn = random_rotations(1, generator=generator, dtype=torch.float64)[0]
    frame = manhattan_frame(torch.cat([0.3 * box(4096) @ turn.T, box(9000)]))
    assert frame.abs().max(1).values.min() > 0.99


def test_normals_point_away_from_the_centroid_of_the_cloud():
    a, b = torch.cartesian_prod(*[torch.arange(40).double() * (math.pi / 20)] * 2).unbind(1)
    ring = 1 + 0.4 * b.cos()  # inside a torus the surface bends the other way
    pos = torch.stack([ring * a.cos(), ring * a.sin(), 0.4 * b.sin()], 1)
    out = ((pos - pos.mean(0)) * estimate_normals(pos)).sum(1)
    assert out.min() > -1e-9 and out.max() > 0.5


def test_an_axis_that_is_not_fixed_by_its_matrix_follows_what_fixes_it():
    variance = torch.tensor([[1.0, 1.0, 2.0], [1.0, 1.0005, 2.0], [1.0, 1.0, 1.0]]).double()
    matrices = torch.diag_embed(variance).requires_grad_()
    axis = torch.tensor([[1.0, 0, 0]]).double().expand(3, 3)
    found = following_axis(axis, matrices, variance, 5 * axis)
    (slope,) = torch.autograd.grad(found.sum(), matrices)
    assert torch.equal(found.detach(), axis)
    # The axis of largest variance leans over by C_xz / (2 - 1), and what is left of the direction
    # outwards leans back as much, whatever the two least do.
    assert slope[:2].abs().max() < 2 and (slope[2] == 0).all()
    torch.testing.assert_close(
        slope[:2, 0, 2] + slope[:2, 2, 0], -torch.ones(2).double(), rtol=1e-2, atol=0
    )


def test_hats_interpolate_what_they_are_along(generator):
    offset = torch.randn(50, 3, generator=generator).double()
    offset = offset / offset.norm(dim=1, keepdim=True) * torch.linspace(0.05, 0.9, 50)[:, None]
    axis = torch.nn.functional.normalize(torch.randn(50, 3, generator=generator).double(), dim=1)
    r = offset.norm(dim=1)
    wanted = (
        r,
        (offset[:, 2] / r).abs(),
        ((offset * axis).sum(1) / r).abs(),
        axis[:, 2].abs(),
    )
    for place, value in enumerate(wanted):
        pairs = [1, 1, 1, 1]
        pairs[place] = 3  # at 0, 1/2 and 1; of b at -1, 0 and 1
        basis = pair_basis(offset, axis, tuple(pairs))
        at = basis.new_tensor([1.0, 0, 1] if place == 2 else [0, 0.5, 1])
        torch.testing.assert_close((basis @ at) / (1 - r * r), value, atol=1e-4, rtol=0)


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_a_sample_does_not_know_the_unit_of_length(scale):
    vertices, faces = np.array([[0, 0, 0], [3, 0, 0], [0, 2, 1.0]]), np.array([[0, 1, 2]])
    wanted, found = (
        sample_mesh(v, faces, 20, np.random.default_rng(0)) for v in (vertices, vertices * scale)
    )
    np.testing.assert_allclose(found[0], wanted[0] * scale)
    np.testing.assert_allclose(found[1], wanted[1])
