"""Resampled clouds: other clouds of the same shape, in a way that turns with it."""

import pytest
import torch

from pcequi.errors import ArgumentError, DataError
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
    [
        {"keep": 0},
        {"keep": 1.1},
        {"stretch": 0.9},
        {"jitter": -1},
        {"stretch": float("nan")},
        {"hidden": 1.0},
        {"hidden": -0.1},
        {"uneven": -1},
        {"uneven": 11},
    ],
)
def test_values_outside_their_range_are_named(options):
    (name,) = options
    with pytest.raises(ArgumentError, match=f"`{name}`"):
        resample(torch.rand(10, 3), **options)


@pytest.fixture
def ball():
    return torch.nn.functional.normalize(cloud(3000, 6).double(), dim=1)


def off_centre(pos):
    """Length of the mean direction from the centre of the sphere on which points lie."""
    pos = pos.double()
    ones = torch.ones(len(pos), 1, dtype=pos.dtype)
    fit = torch.linalg.lstsq(torch.cat([2 * pos, ones], 1), pos.square().sum(1)).solution
    return float(torch.nn.functional.normalize(pos - fit[:3], dim=1).mean(0).norm())


def test_a_hidden_side_is_a_cap(ball):
    """The mean direction of a sphere without a cap is as long as the cap's share is large."""
    sizes = []
    for seed in range(12):
        pos = resample(ball, drawn(seed), keep=1.0, stretch=1.0, jitter=0.0, hidden=0.5)
        sizes.append(len(pos))
        assert off_centre(pos) == pytest.approx(1 - len(pos) / len(ball), abs=0.04)
    assert min(sizes) >= 1500 and max(sizes) < 3000 and len(set(sizes)) > 6


def test_uneven_clouds_lean_to_one_side(ball):
    even, uneven = (
        [resample(ball, drawn(s), keep=0.5, stretch=1.0, jitter=0.0, uneven=u) for s in range(12)]
        for u in (0.0, 1.0)
    )
    assert max(map(off_centre, even)) < 0.06
    assert max(map(off_centre, uneven)) > 0.2
    assert all(len(pos) >= 1500 for pos in uneven)


def test_versions_like_scans_lose_points_as_announced(box):
    made = resampled_clouds([box.float()] * 3, 1, kind="scan")
    assert len({len(pos) for pos in made}) > 1
    assert all(0.3 * len(box) <= len(pos) <= len(box) for pos in made)
    assert all(abs(float(pos.norm(dim=1).max()) - 1) < 1e-5 for pos in made)
    with pytest.raises(ArgumentError, match=r"`kind` \(='x'\)"):
        resampled_clouds([box], 1, kind="x")


def test_an_unusable_cloud_is_named():
    bad = torch.rand(9, 3)
    bad[4, 1] = torch.nan
    with pytest.raises(DataError, match=r"cloud 12: .*`pos`"):
        resampled_clouds([torch.rand(9, 3), torch.rand(9, 3), bad], 1, first=10)


def test_draws_do_not_depend_on_the_default_device(box):
    def made():
        one = resample(box, drawn(1), hidden=0.3, uneven=0.5)
        return [one, *(resampled_clouds([box], 1, kind=kind)[0] for kind in ("shape", "scan"))]

    wanted = made()
    with torch.device("meta"):  # as any other device but the generator's
        assert all(map(torch.equal, made(), wanted))
        assert resample(box).device.type == "cpu"
