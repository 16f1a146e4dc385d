"""The kernels of frames find what torch does, or leave it to torch."""

import math

import pytest
import torch

from pcequi import frames
from pcequi import rotations as so3
from pcequi.clouds import GENERIC, ONE_SPACE
from pcequi.frames import manhattan_frame, principal_frame

kernels = pytest.importorskip("pcequi.ops.compiled.frames")
if not frames.HAS_NUMBA:
    pytest.skip("numba is turned off", allow_module_level=True)

F64 = torch.float64
SIZES = torch.tensor([3.0, 2.0, 1.0], dtype=F64)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def gaussian(num=300):
    return torch.randn(num, 3, generator=seeded(), dtype=F64) * SIZES


def box(*size, num=600):
    """Points on the faces of a box."""
    pos = torch.rand(num, 3, generator=seeded(1), dtype=F64) * 2 - 1
    face = torch.arange(num) % 3
    pos[torch.arange(num), face] = pos[torch.arange(num), face].sign()
    return pos * pos.new_tensor(size)


def polygon(num, *heights):
    turn = torch.arange(num, dtype=F64) * (2 * math.pi / num)
    level = torch.stack([turn.cos(), turn.sin(), 0 * turn], 1)
    return torch.cat([level + z * SIZES.new_tensor([0, 0, 1]) for z in heights])


# Of those that come first the variances differ.
PLAIN = {
    "generic": gaussian,
    "flat": lambda: gaussian() * SIZES.new_tensor([1.0, 1.0, 0.0]),
    "box": lambda: box(1.6, 1.0, 0.7),
    "corners": lambda: torch.cartesian_prod(*torch.stack([-SIZES, SIZES], 1)),
    "repeated": lambda: box(1.6, 1.0, 0.7, num=90).repeat(3, 1),
    "more than are asked": lambda: box(1.6, 1.0, 0.7, num=5000),
}
CLOUDS = {
    **PLAIN,
    "cube": lambda: torch.cartesian_prod(*torch.tensor([[-1.0, 1.0]] * 3, dtype=F64)),
    "ring": lambda: polygon(30, 0.0),
    "prism": lambda: polygon(6, -2.0, 2.0),
    "tube": lambda: polygon(40, *torch.linspace(-2, 2, 12).tolist()),
    "line": lambda: torch.linspace(-1, 1, 40, dtype=F64)[:, None] * SIZES,
    "one place": lambda: SIZES.repeat(6, 1),
    "one point": lambda: SIZES[None],
    "two points": lambda: torch.eye(3, dtype=F64)[:2],
}


def copies(name):
    pos = CLOUDS[name]()
    turn = so3.random_rotations(1, generator=seeded(3), dtype=F64)[0]
    return [pos, pos @ turn.T * 3 + 7]


@pytest.mark.parametrize("name", CLOUDS)
def test_frames_are_those_of_torch(name, monkeypatch):
    for pos in copies(name):
        differ, *_ = kernels.plain_frame(pos.numpy(), torch.tensor(GENERIC).numpy(), ONE_SPACE)
        assert differ == (name in PLAIN)
        found = principal_frame(pos), manhattan_frame(pos, 0.4)
        with monkeypatch.context() as patch:
            patch.setattr(frames, "HAS_NUMBA", False)
            patch.setattr("pcequi.ops.neighbors.HAS_NUMBA", False)
            wanted = principal_frame(pos), manhattan_frame(pos, 0.4)
        torch.testing.assert_close(found[0], wanted[0], atol=1e-11, rtol=0)
        torch.testing.assert_close(found[1], wanted[1], atol=1e-8, rtol=0)


def test_the_cloud_is_around_its_mean_in_units_of_its_size():
    pos = gaussian() + 5
    _, scaled = frames._principal_frame(pos)
    wanted = pos - pos.mean(0)
    torch.testing.assert_close(scaled, wanted / wanted.norm(dim=1).max(), atol=1e-14, rtol=0)
    assert frames._principal_frame(SIZES.repeat(4, 1))[1] is None


def moments_of(pos):
    """Fourth moments of some directions, as if they were normals."""
    outer = (pos[:, :, None] * pos[:, None]).flatten(1)
    return outer.T @ outer / len(pos)


@pytest.mark.parametrize("name", ["generic", "box", "cube", "tube", "line"])
def test_climbs_end_where_those_of_torch_do(name):
    moments, turns = (
        moments_of(torch.nn.functional.normalize(CLOUDS[name](), dim=1)),
        frames._starts(),
    )
    found = kernels.climb(
        moments.numpy(), turns.numpy(), frames._STEPS, frames._NEWTON, frames._LEAST_BEND
    )
    for ours, plain in zip(found, frames._climb(moments, turns)):
        torch.testing.assert_close(torch.from_numpy(ours), plain, atol=1e-8, rtol=0)


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0), (2, 1, 0), (0, 2, 1)])
def test_the_highest_end_has_its_axes_by_variance(order, monkeypatch):
    """Also where two variances agree, but for rounding: there axes keep their order."""
    moments = moments_of(torch.eye(3, dtype=F64) * SIZES.new_tensor([1.0, 1.1, 1.2]))
    turns = frames._starts()
    for sizes in (SIZES, SIZES.new_tensor([2, 2, 1]), SIZES.new_tensor([1, 1 + 1e-7, 1])):
        pos = torch.cat([torch.eye(3, dtype=F64), -torch.eye(3, dtype=F64)]) * sizes[list(order)]
        found = frames._highest(moments, turns, pos)
        with monkeypatch.context() as patch:
            patch.setattr(frames, "HAS_NUMBA", False)
            wanted = frames._highest(moments, turns, pos)
        torch.testing.assert_close(found, wanted, atol=1e-10, rtol=0)
        torch.testing.assert_close(torch.linalg.det(found), torch.ones((), dtype=F64))
        variance = (pos @ found).square().sum(0)
        assert (variance[:-1] >= variance[1:] * (1 - 1e-3)).all()


# Of nearly all sets of normals the ascents from all starts end at one place.
@pytest.mark.parametrize(("num", "seed"), [(3, 37), (4, 37), (4, 175), (12, 10)])
def test_of_several_ends_the_highest_is_taken(num, seed, monkeypatch):
    normal = torch.randn(num, 3, generator=seeded(seed), dtype=F64)
    moments = moments_of(torch.nn.functional.normalize(normal, dim=1))
    score = frames._climb(moments, frames._starts())[1]
    assert score[0] < score.max() * (1 - frames._TIE)
    found = frames._highest(moments, frames._starts(), normal)
    monkeypatch.setattr(frames, "HAS_NUMBA", False)
    wanted = frames._highest(moments, frames._starts(), normal)
    torch.testing.assert_close(found, wanted, atol=1e-8, rtol=0)


def test_transforms_of_functions_get_the_frame_of_torch():
    """They wrap tensors, which have no memory that a kernel could read."""
    pos = gaussian(40)

    def size(pos):
        return (pos @ principal_frame(pos)).square().sum()

    torch.testing.assert_close(torch.func.grad(size)(pos), 2 * pos)
