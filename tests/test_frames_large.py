"""Manhattan frames of clouds of more points than are asked for their normals."""

import pytest
import torch

from pcequi import frames
from pcequi import rotations as so3
from pcequi.canonical import canonical_pose
from pcequi.frames import manhattan_frame, principal_frame
from pcequi.ops import local_moments

F64 = torch.float64


def gaussian(num, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num, 3, generator=generator, dtype=F64) * torch.tensor([1.0, 0.85, 0.7])


def bent_box(num, generator):
    """A slab with a diagonal bar."""
    size, count = torch.tensor([1.6, 1.0, 0.3], dtype=F64), 3 * num
    pos = torch.rand(count, 3, generator=generator, dtype=F64) - 0.5
    face = torch.randint(3, (count,), generator=generator)
    pos[torch.arange(count), face] = pos[torch.arange(count), face].sign() / 2
    pos = pos * size
    return pos[(pos[:, 0] + pos[:, 1] > -0.1) | (pos[:, 2] > 0.1)][:num]


def in_world(pos):
    """The frame as pose graphs find it, in canonical pose and order."""
    frame, _, turned, *_ = canonical_pose(pos - pos.mean(0), None)
    return frame @ manhattan_frame(turned)


def angle_between(a, b):
    """Least angle between two frames, with any order and signs of axes."""
    turned = a @ so3.finite_group("O", dtype=F64)
    return so3.geodesic_distance(turned, b.expand_as(turned)).min()


@pytest.mark.parametrize("num", [6000, 8000, 12000, 20000])
def test_rounding_moves_it_no_further_than_the_points(num, generator):
    for seed in range(4):
        pos = gaussian(num, seed)
        turn = so3.random_rotations(1, generator=generator, dtype=F64)[0]
        copy = (pos @ turn.T)[torch.randperm(num, generator=generator)]
        expected = turn @ in_world(pos)
        assert angle_between(in_world(copy), expected) < 1e-10
        # Every n-th point of an order was up to 0.06 off: rounding made it other points.
        assert angle_between(in_world(copy.float().double()), expected) < 3e-5


def test_it_is_about_that_from_all_points(generator, monkeypatch):
    pos = bent_box(9000, generator)
    found = manhattan_frame(pos)
    monkeypatch.setattr(frames, "_MOST", len(pos))
    assert angle_between(found, manhattan_frame(pos)) < 0.01


def test_what_points_count_for_is_continuous_and_knows_no_signs():
    pos = gaussian(9000, 0)
    pos = (pos - pos.mean(0)) / pos.norm(dim=1).max()
    frame = principal_frame(pos)

    def counts(pos, frame):
        chosen, share = frames._chosen(pos, frame)
        rows = (pos[:, None, 0] == chosen[:, 0]).int().argmax(0)
        return torch.zeros(len(pos), dtype=F64).index_add(0, rows, share)

    found = counts(pos, frame)
    assert 0 < (found > 0).sum() < frames._MOST and found.max() == 1 and found.min() == 0
    noise = 1e-7 * gaussian(9000, 1)
    assert (counts(pos + noise, frame) - found).abs().max() < 1e-3
    turned = counts(pos, frame * pos.new_tensor([1.0, -1.0, -1.0]))
    torch.testing.assert_close(turned, found, atol=1e-12, rtol=0)


def test_small_clouds_are_asked_everywhere():
    pos = gaussian(frames._MOST, 0)
    chosen, share = frames._chosen(pos, torch.eye(3, dtype=F64))
    assert chosen is pos and (share == 1).all()


@pytest.mark.parametrize("places", [1, 2, 3])
def test_many_points_at_few_places_have_a_frame(places):
    pos = torch.eye(3, dtype=F64)[:places].repeat(3000, 1)
    frame = manhattan_frame(torch.cat([pos] * (3 // places)))
    torch.testing.assert_close(frame.T @ frame, torch.eye(3, dtype=F64))


def test_moments_around_some_points_are_those_around_all(monkeypatch):
    pos = gaussian(200, 0)
    for compiled in (True, False):
        monkeypatch.setattr("pcequi.ops.neighbors.HAS_NUMBA", compiled and frames.HAS_NUMBA)
        some = local_moments(pos, 0.7, center=pos[30:50])
        torch.testing.assert_close(some, local_moments(pos, 0.7)[30:50])


def test_the_compiled_frame_is_that_of_torch(generator, monkeypatch):
    if not frames.HAS_NUMBA:
        pytest.skip("numba is not installed")
    pos = bent_box(5000, generator)
    compiled = manhattan_frame(pos)
    monkeypatch.setattr(frames, "HAS_NUMBA", False)
    monkeypatch.setattr("pcequi.ops.neighbors.HAS_NUMBA", False)
    torch.testing.assert_close(manhattan_frame(pos), compiled, atol=1e-8, rtol=0)
