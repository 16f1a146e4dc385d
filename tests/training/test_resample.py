"""Resampled clouds: other clouds of the same shape, in a way that turns with it."""

import pytest
import torch

from pcequi.errors import ArgumentError
from pcequi.rotations import random_rotations
from pcequi.training.resample import resample, resampled_clouds


def drawn(seed):
    return torch.Generator().manual_seed(seed)


def cloud(num, seed):
    return torch.randn(num, 3, generator=drawn(seed))


@pytest.fixture
def box():
    """A point-symmetric cloud on the faces of a box of three different lengths."""
    x = torch.rand(600, 3, generator=drawn(1), dtype=torch.float64) * 2 - 1
    rows = torch.arange(600)
    x[rows, rows % 3] = 1.0
    return torch.cat([x, -x]) * torch.tensor([1.0, 0.7, 0.4], dtype=torch.float64)


def test_it_turns_with_the_cloud(box):
    turn = random_rotations(1, generator=drawn(2), dtype=torch.float64)[0]
    plain = resample(box, drawn(3), jitter=0.0)
    turned = resample(box @ turn.T + 5, drawn(3), jitter=0.0)
    torch.testing.assert_close(turned, plain @ turn.T, atol=1e-8, rtol=0)


def test_a_box_stays_a_box_of_other_proportions(box):
    made = resample(box, drawn(3), keep=1.0, jitter=0.0)
    lengths, before = made.abs().amax(0), box.abs().amax(0)
    ratio = lengths / before
    assert ratio.max() / ratio.min() > 1.05  # stretched ...
    assert ratio.max() / ratio.min() < 1.4**2  # ... within bounds ...
    on_a_face = (made.abs() > 0.97 * lengths).any(1)  # ... along its own edges
    assert on_a_face.all()


def test_points_are_kept_moved_or_left_as_asked():
    pos = cloud(200, 4)
    same = resample(pos, drawn(5), keep=1.0, stretch=1.0, jitter=0.0)
    assert same.dtype == pos.dtype and len(same) == 200
    whole = pos - pos.mean(0)
    whole = whole / whole.norm(dim=1).max()
    assert torch.cdist(same.double(), whole.double()).min(1).values.max() < 1e-5
    sizes = {len(resample(pos, drawn(seed))) for seed in range(20)}
    assert min(sizes) >= 160 and max(sizes) <= 200 and len(sizes) > 5
    moved = resample(pos, drawn(5), keep=1.0, stretch=1.0, jitter=0.1)
    assert 0.03 < torch.cdist(moved, whole).min(1).values.mean() < 0.4
    assert torch.isfinite(resample(pos[:1])).all() and torch.isfinite(resample(pos[:1] * 0)).all()


def test_a_cloud_depends_on_seed_number_and_place_alone():
    clouds = [cloud(50, number) for number in range(3)]
    first = resampled_clouds(clouds, 1, seed=7)
    assert torch.equal(first[0], resampled_clouds(clouds[:1], 1, seed=7)[0])
    shared = resampled_clouds([clouds[1]] * 300, 1, seed=7, first=1, workers=2)
    assert torch.equal(shared[0], first[1]) and len(shared) == 300
    for other in (resampled_clouds(clouds, 2, seed=7), resampled_clouds(clouds, 1, seed=8)):
        assert all(a.shape != b.shape or not torch.equal(a, b) for a, b in zip(first, other))


@pytest.mark.parametrize(
    "options",
    [{"keep": 0}, {"keep": 1.1}, {"stretch": 0.9}, {"jitter": -1}, {"stretch": float("nan")}],
)
def test_values_outside_their_range_are_named(options):
    (name,) = options
    with pytest.raises(ArgumentError, match=f"`{name}`"):
        resample(torch.rand(10, 3), **options)
