"""The kernel that finds the canonical pose finds that of torch, or leaves it to torch."""

import math

import numpy as np
import pytest
import torch

from pcequi import canonical
from pcequi.canonical import canonical_pose
from pcequi.clouds import ONE_SPACE
from pcequi.rotations import random_rotations

kernels = pytest.importorskip("pcequi.ops.compiled.canonical")
if not canonical.HAS_NUMBA:
    pytest.skip("numba is turned off", allow_module_level=True)

F64 = torch.float64
SIZES = torch.tensor([3.0, 2.0, 1.0], dtype=F64)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def gaussian(num, seed=0):
    return torch.randn(num, 3, generator=seeded(seed), dtype=F64) * SIZES


def lattice(*sizes):
    return torch.cartesian_prod(*(torch.linspace(-s, s, s + 1, dtype=F64) for s in sizes))


def polygon(num):
    turn = torch.arange(num, dtype=F64) * (2 * math.pi / num)
    return torch.stack([turn.cos(), turn.sin(), 0 * turn], 1)


CLOUDS = {
    "generic": lambda: gaussian(300),
    "more than a block": lambda: gaussian(2600),
    "flat": lambda: gaussian(200) * SIZES.new_tensor([1.0, 1.0, 0.0]),
    "uneven lattice": lambda: torch.cat([lattice(6, 4, 2), SIZES[None] / 2]),
    "uneven flat lattice": lambda: torch.cat([lattice(9, 6, 1)[::2], 2 * SIZES[None]]),
    "repeated": lambda: gaussian(60).repeat(3, 1)[torch.randperm(180, generator=seeded(1))],
    "three points": lambda: torch.tensor([[2.0, 0.1, 0.3], [-1.5, 0.7, 0.1], [0.2, -0.4, 0.5]]),
    # Variances agree, or frames tie: these are left to torch.
    "box": lambda: lattice(6, 4, 2),
    "cube": lambda: lattice(1, 1, 1),
    "ring": lambda: polygon(30),
    "prism": lambda: torch.cat([polygon(6) + z * SIZES.new_tensor([0, 0, 1]) for z in (-2, 2)]),
    "line": lambda: lattice(40, 1, 1)[:1] * torch.linspace(-1, 1, 9, dtype=F64)[:, None],
    "one place": lambda: torch.ones(5, 3),
    "one point": lambda: torch.ones(1, 3),
    "two points": lambda: torch.eye(3)[:2],
}
LEFT = ("box", "cube", "ring", "prism", "line", "one place", "one point", "two points")


def copies(name):
    """A cloud as it is, then turned, shifted and shuffled; around the mean."""
    pos = CLOUDS[name]().double()
    turn = random_rotations(1, generator=seeded(3), dtype=F64)[0]
    order = torch.randperm(len(pos), generator=seeded(4))
    return [cloud - cloud.mean(0) for cloud in (pos, (pos @ turn.T + 7)[order])]


def own(pos, sure=canonical._SURE):
    fixed = canonical.orders_and_signs().numpy(), np.array(canonical.WAVES)
    phase = np.array(canonical.PHASE)
    return kernels.plain_pose(pos.numpy(), *fixed, phase, ONE_SPACE, sure, canonical.ORDER)


def same(found, wanted):
    assert torch.equal(found[1], wanted[1])
    for ours, plain in zip((found[0], found[2]), (wanted[0], wanted[2])):
        torch.testing.assert_close(ours, plain, atol=1e-12, rtol=1e-12)
    assert found[3:] == wanted[3:] == (None, None)


@pytest.mark.parametrize("name", CLOUDS)
def test_it_is_the_pose_of_torch(name, monkeypatch):
    for pos in copies(name):
        assert own(pos)[0] == (name not in LEFT)
        found = canonical_pose(pos, None)
        with monkeypatch.context() as patch:
            patch.setattr(canonical, "HAS_NUMBA", False)
            same(found, canonical_pose(pos, None))


@pytest.mark.parametrize("apart", [1e-3, 3e-5, 1e-5, 1e-7])
def test_frames_that_nearly_tie_are_left_to_torch(apart, monkeypatch):
    """Some of these scores are one, some are told apart by double precision alone."""
    for seed in range(8):
        pos = lattice(6, 4, 2) + apart * gaussian(105, seed)
        pos = pos - pos.mean(0)
        found = canonical_pose(pos, None)
        with monkeypatch.context() as patch:
            patch.setattr(canonical, "HAS_NUMBA", False)
            same(found, canonical_pose(pos, None))


@pytest.mark.parametrize("num", [3, 1024, 200_000])
def test_scores_are_off_by_less_than_what_is_sure(num):
    # Equal numbers are all rounded the same way, so that errors of sums add up.
    pos = gaussian(3).repeat(num // 3, 1)
    pos = pos / pos.norm(dim=1).max()
    frames = random_rotations(6, generator=seeded(), dtype=F64)
    waves, phase = np.array(canonical.WAVES), np.array(canonical.PHASE)
    columns = np.ascontiguousarray(pos.T.numpy().astype(np.float32))
    found = [kernels._score(columns, frame, waves, phase) for frame in frames.numpy()]
    wanted = canonical._score(pos, None, frames)
    torch.testing.assert_close(torch.tensor(found, dtype=F64), wanted, atol=1e-6, rtol=0)


def test_whole_numbers_are_sorted_by_all_their_bits():
    some = torch.tensor([0, 1, 2, 254, 255, 256, 257, 65534, 65535])
    part = some[torch.randint(9, (3, 2000), generator=seeded())]
    key = ((part[0] << 32) + (part[1] << 16) + part[2]).tolist()
    found = kernels._ascending(np.array(key)).tolist()
    assert found == sorted(range(2000), key=lambda row: (key[row], row))


def test_the_order_is_that_of_rounded_coordinates_and_rows():
    pos = torch.cat([lattice(6, 4, 2), SIZES[None] / 2]).repeat(2, 1)
    pos = pos + 1e-7 * gaussian(len(pos))  # which rounding takes away
    pos = pos - pos.mean(0)
    alone, frame, rows, turned = own(pos)
    step = float(pos.norm(dim=1).max()) * canonical.ORDER
    places = (pos @ torch.from_numpy(frame) / step).round().tolist()
    assert alone and rows.tolist() == sorted(range(len(pos)), key=lambda row: (*places[row], row))
    np.testing.assert_allclose(turned, pos.numpy()[rows] @ frame, atol=1e-14)


@pytest.mark.parametrize("scale", [1e-140, 1e-160, 1e-200, 1e150, 1e160])
def test_squares_that_leave_the_range_are_left_to_torch(scale):
    pos = gaussian(40) * scale
    assert own(pos)[0] == (scale in (1e-140, 1e150))
    assert not own(pos * math.nan)[0]


def test_sums_of_squares_that_overflow_together_are_left_to_torch():
    pos = torch.nn.functional.normalize(gaussian(40), dim=1) * torch.tensor([1.0, 0.9, 0.8])
    sums = pos.square().sum(0)
    pos = pos * math.sqrt(1.7976e308 / float(sums.sum()) * 1.2)
    assert pos.square().sum(0).isfinite().all() and pos.square().sum().isinf()
    assert not own(pos.double())[0]
