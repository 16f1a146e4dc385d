"""Frames of whole clouds: what they find, and how they turn."""

import math

import pytest
import torch

from pcequi import frames
from pcequi import rotations as so3
from pcequi.errors import ArgumentError, DataError
from pcequi.frames import fourth_moments, manhattan_frame, principal_frame
from pcequi.ops import local_moments

F64 = torch.float64


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def box(size, count=600, seed=0):
    """Points on the faces of a box."""
    pos = (torch.rand(count, 3, generator=seeded(seed), dtype=F64) - 0.5) * torch.tensor(size)
    face = torch.randint(3, (count,), generator=seeded(seed + 2))
    side = torch.where(torch.rand(count, generator=seeded(seed + 1)) < 0.5, -0.5, 0.5).double()
    pos[torch.arange(count), face] = side * torch.tensor(size, dtype=F64)[face]
    return pos


def angle_between(a, b, group="O"):
    """Least angle between two frames, in any order and with any signs of axes."""
    turned = a @ so3.finite_group(group, dtype=F64)
    return so3.geodesic_distance(turned, b.expand_as(turned)).min()


def bent_box():
    """A box whose principal axes lie far from its edges: a slab with a diagonal bar."""
    slab = box((1.6, 1.0, 0.3))
    return slab[(slab[:, 0] + slab[:, 1] > -0.1) | (slab[:, 2] > 0.1)]


@pytest.mark.parametrize("size", [(1.0, 0.8, 0.6), (1.6, 1.0, 0.3), (1.0, 1.0, 1.0)])
def test_the_manhattan_frame_of_a_box_is_its_edges(size):
    turn = so3.random_rotations(1, generator=seeded(3), dtype=F64)[0]
    found = manhattan_frame(box(size) @ turn.T)
    assert angle_between(found, turn) < 0.05


def test_it_follows_the_faces_where_principal_axes_do_not():
    cloud = bent_box()
    eye = torch.eye(3, dtype=F64)
    assert angle_between(principal_frame(cloud), eye) > 0.1
    assert angle_between(manhattan_frame(cloud), eye) < 0.05


@pytest.mark.parametrize("cloud", ["box", "bent", "blob"])
def test_it_turns_with_the_cloud_up_to_signs(cloud):
    pos = {
        "box": box((1.0, 0.8, 0.6)),
        "bent": bent_box(),
        "blob": torch.randn(300, 3, generator=seeded(5), dtype=F64) * torch.tensor([3.0, 2.0, 1.0]),
    }[cloud]
    frame = manhattan_frame(pos)
    for turn in so3.random_rotations(4, generator=seeded(1), dtype=F64):
        moved = manhattan_frame(pos @ turn.T * 3 + 7)
        # The group D2 is every choice of signs of a right-handed frame.
        assert angle_between(turn @ frame, moved, "D2") < 1e-6


@pytest.mark.parametrize("seed", range(4))
def test_on_smooth_clouds_too(seed):
    """Where tops are flat, and signs of the principal axes make other starts."""
    draw = torch.randn(24, 500, 3, generator=seeded(seed), dtype=F64)
    size = 0.6 + 0.4 * torch.rand(24, 1, 3, generator=seeded(seed + 10), dtype=F64)
    turns = so3.random_rotations(24, generator=seeded(seed), dtype=F64)
    for pos, turn in zip(torch.nn.functional.normalize(draw, dim=2) * size, turns):
        frame, moved = manhattan_frame(pos, 0.5), manhattan_frame(pos @ turn.T, 0.5)
        assert angle_between(turn @ frame, moved, "O") < 1e-6


def test_it_is_right_handed_orthonormal_and_ordered_by_variance():
    pos = bent_box()
    frame = manhattan_frame(pos)
    torch.testing.assert_close(frame.T @ frame, torch.eye(3, dtype=F64))
    assert torch.det(frame) > 0
    variance = ((pos - pos.mean(0)) @ frame).var(0)
    assert (variance[:-1] >= variance[1:]).all()


@pytest.mark.parametrize(
    "pos",
    [
        torch.zeros(5, 3, dtype=F64),
        torch.tensor([[1.0, 2.0, 3.0]], dtype=F64),
        torch.linspace(-1, 1, 40, dtype=F64)[:, None] * torch.tensor([1.0, 2.0, 2.0], dtype=F64),
    ],
    ids=["equal", "one", "line"],
)
def test_a_cloud_with_no_flat_place_gets_its_principal_frame(pos):
    torch.testing.assert_close(manhattan_frame(pos), principal_frame(pos))


def test_a_large_cloud_is_thinned_not_refused():
    frame = manhattan_frame(box((1.0, 0.8, 0.6), count=9001))
    assert angle_between(frame, torch.eye(3, dtype=F64)) < 0.05


def test_bad_points_are_named():
    with pytest.raises(DataError, match="NaN or infinite"):
        manhattan_frame(torch.tensor([[0.0, float("nan"), 0.0]]))


@pytest.mark.parametrize("radius", [0.2, 0.5])
def test_local_moments_are_weighted_covariances(radius):
    pos = torch.rand(60, 3, generator=seeded(2), dtype=F64)
    got = local_moments(pos, radius)
    for row in (0, 17, 59):
        weight = (1 - (pos - pos[row]).square().sum(1) / radius**2).clamp_min(0) ** 2
        mean = (weight[:, None] * pos).sum(0) / weight.sum()
        expected = torch.einsum("n,ni,nj->ij", weight, pos - mean, pos - mean) / weight.sum()
        torch.testing.assert_close(got[row], expected)


def test_local_moments_need_a_positive_radius():
    with pytest.raises(ArgumentError, match=r"`radius` \(=0\)"):
        local_moments(torch.rand(4, 3), 0)


@pytest.mark.parametrize("cloud", ["box", "bent", "blob", "cylinder", "cube", "grid", "sphere"])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_the_compiled_frame_is_that_of_torch(cloud, dtype, named_cloud, monkeypatch):
    """Fourth moments and the frame; with symmetries too."""
    turn = 2 * math.pi * torch.rand(200, generator=seeded(4), dtype=F64)
    height = torch.rand(200, generator=seeded(6), dtype=F64)
    own = {
        "box": lambda: box((1.0, 0.8, 0.6)),
        "bent": bent_box,
        "cylinder": lambda: torch.stack([turn.cos(), turn.sin(), 3 * height], 1),
    }
    pos = (own[cloud]() if cloud in own else named_cloud(cloud)).to(dtype)
    if not frames.HAS_NUMBA:
        pytest.skip("numba is not installed")

    def found():
        centered = pos - pos.mean(0)
        share = torch.linspace(0.5, 1, len(pos) // 2, dtype=dtype)
        moments, flat = frames._face_moments(centered, 0.4, centered[: len(share)], share)
        share = torch.tensor(flat / len(pos), dtype=dtype)
        return moments, share, manhattan_frame(pos, 0.4)

    compiled = found()
    monkeypatch.setattr(frames, "HAS_NUMBA", False)
    monkeypatch.setattr("pcequi.ops.neighbors.HAS_NUMBA", False)
    exact = dtype == F64
    for ours, plain in zip(compiled[: 3 if exact else 2], found()):
        torch.testing.assert_close(ours, plain, atol=1e-8 if exact else 1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["any", "twice", "thrice", "flat", "line", "zero"])
def test_small_matrices(kind, generator):
    kernels = pytest.importorskip("pcequi.ops.compiled.matrices")
    turn = so3.random_rotations(1, generator=generator, dtype=F64)[0]
    value = {
        "any": [3.0, -1.0, 0.5], "twice": [2.0, 2.0, 1e-3], "thrice": [1.0, 1.0, 1.0],
        "flat": [1.0, 0.3, 0.0], "line": [1.0, 0.0, 0.0], "zero": [0.0, 0.0, 0.0],
    }[kind]  # fmt: skip
    matrix = turn @ torch.tensor(value, dtype=F64).diag() @ turn.T
    matrix = (matrix + matrix.T) / 2
    found, axes = torch.empty(3, dtype=F64), torch.empty(3, 3, dtype=F64)
    kernels.eigen(matrix.clone().numpy(), found.numpy(), axes.numpy())
    torch.testing.assert_close(
        found, torch.tensor(sorted(value), dtype=F64), atol=1e-15, rtol=1e-15
    )
    torch.testing.assert_close(axes.T @ axes, torch.eye(3, dtype=F64), atol=1e-14, rtol=0)
    torch.testing.assert_close(axes @ found.diag() @ axes.T, matrix, atol=1e-14, rtol=0)


@pytest.mark.parametrize("weak", [1.0, 1e-3, 1e-6])
@pytest.mark.parametrize("side", [1, -1])
def test_polar_parts_and_small_turns(weak, side, generator):
    kernels = pytest.importorskip("pcequi.ops.compiled.matrices")
    left, right = so3.random_rotations(2, generator=generator, dtype=F64)
    matrix = left @ torch.tensor([2.0, 0.7 * side, weak], dtype=F64).diag() @ right
    expected = left @ torch.tensor([1.0, side, 1.0], dtype=F64).diag() @ right
    kernels.polar((got := matrix.clone()).numpy())
    torch.testing.assert_close(got, expected, atol=1e-15 / weak + 1e-14, rtol=0)
    w = torch.tensor([0.06, -0.07, 0.03], dtype=F64)
    kernels.small_turn(w.numpy(), (got := torch.empty(3, 3, dtype=F64)).numpy())
    crossed = torch.linalg.cross(torch.eye(3, dtype=F64), w.expand(3, 3))
    torch.testing.assert_close(got, torch.linalg.matrix_exp(crossed), atol=1e-15, rtol=0)


@pytest.mark.parametrize("dim", [2, 3])
def test_fourth_moments_are_sums_over_points(dim, generator):
    direction = torch.randn(5, dim, dtype=torch.float64, generator=generator)
    pos = torch.randn(40, dim, dtype=torch.float64, generator=generator)
    expected = (direction @ pos.T).pow(4).sum(1)
    torch.testing.assert_close(fourth_moments(direction, pos), expected)
