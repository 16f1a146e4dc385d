"""The mathematics of rotations: groups close, draws are Haar, grids cover."""

import math

import pytest
import roma
import torch

from pcequi.errors import ArgumentError, ShapeError
from pcequi.rotations import (
    cyclic_group,
    finite_group,
    geodesic_distance,
    icosahedral_group,
    octahedral_group,
    random_rotations,
    super_fibonacci,
    tetrahedral_group,
)

F64 = torch.float64
ORDERS = {"D1": 2, "D2": 4, "D5": 10, "C1": 1, "C2": 2, "C4": 4, "C7": 7, "T": 12, "O": 24, "I": 60}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def assert_rotations(matrices: torch.Tensor, tolerance: float = 1e-12) -> None:
    eye = torch.eye(3, dtype=matrices.dtype)
    assert (matrices @ matrices.mT - eye).abs().max() < tolerance
    assert (torch.linalg.det(matrices) - 1).abs().max() < tolerance


@pytest.mark.parametrize(("name", "order"), ORDERS.items())
def test_a_finite_group_closes_and_holds_its_inverses(name, order):
    group = finite_group(name, dtype=F64)
    assert group.shape == (order, 3, 3)
    assert_rotations(group)
    assert torch.equal(group[0], torch.eye(3, dtype=F64))
    products = (group[:, None] @ group[None]).reshape(-1, 1, 3, 3)
    # Each product meets exactly one element: closed, and no element twice.
    hits = (products - group).abs().amax(dim=(-1, -2)) < 1e-12
    assert (hits.sum(dim=1) == 1).all()
    inverses = (group.mT[:, None] - group).abs().amax(dim=(-1, -2)) < 1e-12
    assert (inverses.sum(dim=1) == 1).all()


@pytest.mark.parametrize("group", [octahedral_group, tetrahedral_group])
def test_polyhedral_groups_on_the_axes_have_exact_entries(group):
    assert set(group().unique().tolist()) == {-1.0, 0.0, 1.0}


def test_the_tetrahedral_group_lies_in_the_octahedral_one():
    larger = {tuple(m.flatten().tolist()) for m in octahedral_group()}
    assert all(tuple(m.flatten().tolist()) in larger for m in tetrahedral_group())


@pytest.mark.parametrize(("axis", "start", "end"), [("x", 1, 2), ("y", 2, 0), ("z", 0, 1)])
def test_cyclic_groups_turn_counter_clockwise_about_their_axis(axis, start, end):
    quarter = cyclic_group(4, axis)[1]
    unit = torch.eye(3)
    assert torch.equal(unit[[start]] @ quarter.T, unit[[end]])
    fixed = 3 - start - end
    assert torch.equal(unit[[fixed]] @ quarter.T, unit[[fixed]])


def test_cyclic_elements_compose_like_numbers():
    group = cyclic_group(5, dtype=F64)
    assert torch.allclose(group[2] @ group[4], group[1], atol=1e-15)


def test_the_dtype_is_the_one_asked_for():
    for dtype in (torch.float32, F64):
        for made in (
            finite_group("I", dtype=dtype),
            cyclic_group(3, dtype=dtype),
            super_fibonacci(4, dtype=dtype),
            random_rotations(4, dtype=dtype),
        ):
            assert made.dtype == dtype
    assert icosahedral_group().dtype == torch.float32


def test_the_grid_covers_better_as_it_grows():
    probes = random_rotations(2000, generator=seeded(), dtype=F64)
    radii = []
    for num in (8, 64, 512):
        grid = super_fibonacci(num, dtype=F64)
        assert_rotations(grid)
        nearest = geodesic_distance(probes[:, None], grid[None]).amin(dim=1)
        radii.append(float(nearest.max()))
    print("covering radius in degrees:", [round(math.degrees(r), 1) for r in radii])
    # Eight times the rotations should nearly halve the radius: dimension 3.
    assert radii[1] < 0.65 * radii[0]
    assert radii[2] < 0.65 * radii[1]
    # Better than as many independent draws.
    random = random_rotations(512, generator=seeded(1), dtype=F64)
    assert radii[2] < float(geodesic_distance(probes[:, None], random[None]).amin(dim=1).max())


def test_the_grid_is_the_published_one():
    # By hand from the paper's formula, for num = 1: s = t = 1/2.
    alpha, beta = math.pi / math.sqrt(2), math.pi / 1.533751168755204288118041
    half = math.sqrt(0.5)
    by_hand = torch.tensor(
        [math.sin(alpha), math.cos(alpha), math.sin(beta), math.cos(beta)], dtype=F64
    )
    expected = roma.unitquat_to_rotmat(half * by_hand)
    assert torch.allclose(super_fibonacci(1, dtype=F64)[0], expected, atol=1e-14)


def test_random_rotations_have_the_moments_of_haar():
    drawn = random_rotations(20000, generator=seeded(), dtype=F64)
    assert_rotations(drawn)
    # E[R] = 0, E[R_ij^2] = 1/3, E[tr R] = 0, E[tr(R)^2] = 1 (character of an
    # irreducible representation); mean angle pi/2 + 2/pi.
    assert drawn.mean(dim=0).abs().max() < 0.02
    assert ((drawn**2).mean(dim=0) - 1 / 3).abs().max() < 0.02
    trace = drawn.diagonal(dim1=-2, dim2=-1).sum(-1)
    assert abs(float(trace.mean())) < 0.03
    assert abs(float((trace**2).mean()) - 1) < 0.04
    angle = geodesic_distance(drawn, torch.eye(3, dtype=F64))
    assert abs(float(angle.mean()) - (math.pi / 2 + 2 / math.pi)) < 0.02


def test_a_generator_fixes_the_draw_and_none_uses_the_global_seed():
    first = random_rotations(5, generator=seeded(3))
    assert torch.equal(first, random_rotations(5, generator=seeded(3)))
    assert not torch.equal(first, random_rotations(5, generator=seeded(4)))
    assert torch.equal(first, random_rotations(5, generator=seeded(3), dtype=F64).float())
    torch.manual_seed(7)
    before = random_rotations(5)
    torch.manual_seed(7)
    random_rotations(5, generator=seeded(3))
    assert torch.equal(before, random_rotations(5)), "a generator must not touch the global state"
    assert random_rotations(0).shape == (0, 3, 3)


@pytest.mark.parametrize("angle", [0.0, 1e-12, 1e-9, 1e-4, 1.0, math.pi / 2, 1.8, 1.9, 3.0])
@pytest.mark.parametrize("from_pi", [False, True])
def test_distance_is_accurate_to_rounding_at_both_ends(angle, from_pi):
    angle = math.pi - angle if from_pi else angle
    axis = torch.nn.functional.normalize(torch.randn(20, 3, generator=seeded(), dtype=F64), dim=-1)
    a = random_rotations(20, generator=seeded(), dtype=F64)
    b = a @ roma.rotvec_to_rotmat(axis * angle)
    assert (geodesic_distance(a, b) - angle).abs().max() < 5e-15


def test_distance_is_a_bi_invariant_metric():
    a, b, c, q = random_rotations(4 * 200, generator=seeded(), dtype=F64).reshape(4, 200, 3, 3)
    distance = geodesic_distance(a, b)
    assert torch.equal(geodesic_distance(a, a), torch.zeros(200, dtype=F64))
    for other in (
        geodesic_distance(b, a),
        geodesic_distance(q @ a, q @ b),
        geodesic_distance(a @ q, b @ q),
    ):
        assert torch.allclose(distance, other, atol=1e-13)
    assert (distance <= geodesic_distance(a, c) + geodesic_distance(c, b) + 1e-13).all()
    assert distance.min() >= 0 and distance.max() <= math.pi
    assert geodesic_distance(a[:7, None], b[None, :5].float()).shape == (7, 5)


def test_distance_has_a_finite_and_correct_gradient():
    a, b = random_rotations(12, generator=seeded(2), dtype=F64).reshape(2, 6, 3, 3)
    assert torch.autograd.gradcheck(geodesic_distance, (a.requires_grad_(), b.requires_grad_()))
    same = torch.eye(3, dtype=F64).repeat(4, 1, 1)
    same[1], same[2] = torch.diag(torch.tensor([1.0, -1, -1])), cyclic_group(2, dtype=F64)[1]
    start = torch.eye(3, dtype=F64).requires_grad_()
    geodesic_distance(start, same).sum().backward()
    assert torch.isfinite(start.grad).all()


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: cyclic_group(0), ArgumentError, r"`n` \(=0\) must be a whole number, at least 1"),
        (lambda: cyclic_group(2.5), ArgumentError, r"`n` \(=2.5\)"),
        (lambda: cyclic_group(4, "w"), ArgumentError, r"`axis` \(='w'\) must be 'x', 'y' or 'z'"),
        (lambda: finite_group("Q8"), ArgumentError, r"`name` \(='Q8'\) must be 'T', 'O', 'I'"),
        (lambda: finite_group("C0"), ArgumentError, r"`name` \(='C0'\)"),
        (lambda: finite_group(4), ArgumentError, r"`name` \(=4\)"),
        (lambda: super_fibonacci(0), ArgumentError, r"`num` \(=0\)"),
        (lambda: random_rotations(-1), ArgumentError, r"`num` \(=-1\)"),
        (lambda: random_rotations(True), ArgumentError, r"`num` \(=True\)"),
        (lambda: geodesic_distance(torch.eye(3), torch.eye(2)), ShapeError, r"`b` \(=\[2, 2\]"),
        (lambda: geodesic_distance([1], torch.eye(3)), ShapeError, r"`a` \(=list\)"),
    ],
)
def test_errors_name_the_argument_and_its_value(call, error, words):
    with pytest.raises(error, match=words):
        call()
