"""Kernel bases: local, smooth at the edge, closed under their symmetry."""

import math

import pytest
import torch

from pcequi.errors import ArgumentError
from pcequi.kernels import (
    LAYOUTS,
    SE3Kernel,
    anchor_rotations,
    kernel_points,
    rotation_basis,
    space_basis,
)
from pcequi.rotations import finite_group, geodesic_distance, random_rotations

RINGS = (17, 25)


@pytest.mark.parametrize("num", sorted(LAYOUTS))
def test_layouts_fit_in_the_unit_ball_and_are_closed_under_their_group(num):
    points, width = kernel_points(num)
    assert points.shape == (num, 3) and len(points.unique(dim=0)) == num
    assert float(points.norm(dim=1).max()) + width <= 1 + 1e-12
    if num in RINGS:
        turn = torch.tensor(math.pi / 4, dtype=torch.float64)
        c, s = turn.cos(), turn.sin()
        group = torch.tensor([[c, -s, 0], [s, c, 0], [0, 0, 1]], dtype=torch.float64)[None]
    else:
        group = finite_group("O", dtype=torch.float64)
    distance = torch.cdist(points @ group.transpose(1, 2), points.expand(len(group), -1, -1))
    assert distance.amin(2).max() < 1e-6


def test_space_basis_is_the_formula_and_vanishes_outside(generator):
    points, width = kernel_points(15)
    offset = torch.randn(200, 3, dtype=torch.float64, generator=generator)
    value = space_basis(offset, points, width)
    square = (offset[:, None] - points).square().sum(2)
    expected = (1 - square / width**2).clamp_min(0).square()
    torch.testing.assert_close(value, expected, atol=1e-12, rtol=0)
    assert (value[square > width**2] == 0).all() and (value > 0).any()
    assert (space_basis(torch.nn.functional.normalize(offset, dim=1), points, width) < 1e-20).all()


def test_space_basis_has_no_slope_at_its_edge():
    point = torch.zeros(1, 3, dtype=torch.float64)
    edge = torch.tensor([[1.0 - 1e-6, 0, 0]], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(space_basis(edge, point, 1.0).sum(), edge)
    assert slope.abs().max() < 1e-5


@pytest.mark.parametrize("width", [0.5, 2.0, math.pi])
def test_rotation_basis_is_a_falling_function_of_the_angle(width, generator):
    rotation = random_rotations(100, generator=generator, dtype=torch.float64)
    anchors = anchor_rotations(12)
    value = rotation_basis(rotation, anchors, width)
    angle = geodesic_distance(rotation[:, None], anchors)
    order = angle.flatten().argsort()
    assert (value.flatten()[order].diff() <= 1e-12).all()
    assert (value[angle > width] == 0).all()
    torch.testing.assert_close(
        rotation_basis(anchors, anchors, width).diagonal(), torch.ones(12, dtype=torch.float64)
    )


def test_rotation_basis_is_unchanged_by_a_common_factor(generator):
    rotation = random_rotations(20, generator=generator, dtype=torch.float64)
    factor, anchors = rotation[0], anchor_rotations(8)
    value = rotation_basis(rotation, anchors, 2.0)
    torch.testing.assert_close(rotation_basis(factor @ rotation, factor @ anchors, 2.0), value)
    torch.testing.assert_close(rotation_basis(rotation @ factor, anchors @ factor, 2.0), value)


@pytest.mark.parametrize("num", [1, 2, 4, 8, 12, 24, 60])
def test_anchors_are_a_group_with_the_identity_first(num):
    anchors = anchor_rotations(num)
    torch.testing.assert_close(anchors[0], torch.eye(3, dtype=torch.float64))
    products = (anchors[:, None] @ anchors).reshape(-1, 9)
    assert torch.cdist(products, anchors.reshape(-1, 9)).amin(1).max() < 1e-6


def test_kernel_is_the_product_of_its_factors(generator):
    kernel = SE3Kernel(7, 4, rotation_width=2.0)
    offset = 0.5 * torch.randn(30, 3, dtype=torch.float64, generator=generator)
    rotation = random_rotations(30, generator=generator, dtype=torch.float64)
    value = kernel(offset, rotation).view(30, 7, 4)
    space = space_basis(offset, *kernel_points(7))
    turn = rotation_basis(rotation, anchor_rotations(4), 2.0)
    torch.testing.assert_close(value, space[:, :, None] * turn[:, None], atol=1e-6, rtol=0)
    assert value.dtype == torch.float64 and kernel.num == 28
    eye = torch.eye(3, dtype=torch.float64).expand(30, 3, 3)
    assert torch.equal(kernel(offset), kernel(offset, eye))


def test_buffers_are_not_saved():
    assert SE3Kernel(7, 4).state_dict() == {}
    assert "num_points=7, num_rotations=4" in repr(SE3Kernel(7, 4))


def test_bad_arguments():
    with pytest.raises(ArgumentError, match=r"`num` \(=16\) must be one of \[1, 7"):
        kernel_points(16)
    with pytest.raises(ArgumentError, match=r"`num_rotations` \(=3\) must be 1, 2, 4, 8, 12"):
        anchor_rotations(3)
    for width in (0.0, 4.0):
        with pytest.raises(ArgumentError, match=rf"`rotation_width` \(={width}\) must be in"):
            SE3Kernel(7, 1, width)


@pytest.mark.parametrize(
    ("num", "affine"), [(1, 1), (2, 2), (4, 3), (8, 3), (12, 10), (24, 10), (60, 10)]
)
def test_anchors_are_independent_at_a_quarter_turn_and_few_at_half_a_turn(num, affine, generator):
    turns = random_rotations(1000, generator=generator, dtype=torch.float64)
    ranks = []
    for width in (math.pi, math.pi / 2):
        values = rotation_basis(turns, anchor_rotations(num), width)
        ranks.append(int(torch.linalg.matrix_rank(values, rtol=1e-9)))
    assert ranks == [affine, num]
