"""Stray points are found, wherever the cloud lies; what is whole stays whole."""

import pytest
import torch
from torch_geometric.data import Data

from pcequi.errors import ArgumentError, DataError, ShapeError
from pcequi.outliers import kept_points
from pcequi.rotations import random_rotations
from pcequi.transforms import DropOutliers


@pytest.fixture
def scan(generator):
    """A sphere of 600 points and 30 strays outside it, in random order."""
    unit = torch.nn.functional.normalize(torch.randn(630, 3, generator=generator).double(), dim=1)
    stray = torch.arange(630) >= 600
    order = torch.randperm(630, generator=generator)
    length = 2 + 3 * torch.rand(30, 1, generator=generator).double()
    unit[stray] = unit[stray] * length
    return unit[order], stray[order]


def test_strays_go_and_the_surface_stays(scan):
    pos, stray = scan
    kept = torch.zeros(len(pos), dtype=torch.bool)
    kept[kept_points(pos)] = True
    assert not kept[stray].any()
    assert kept[~stray].double().mean() > 0.98


def test_the_choice_follows_the_points(scan, generator):
    pos, _ = scan
    kept = kept_points(pos)
    turn = random_rotations(1, generator=generator, dtype=torch.float64)[0]
    assert torch.equal(kept_points(3 * pos @ turn.T + 5), kept)
    order = torch.randperm(len(pos), generator=generator)
    assert torch.equal(order[kept_points(pos[order])].sort().values, kept)


@pytest.mark.parametrize("name", ["one point", "two points", "one place", "cube", "corners"])
def test_small_and_symmetric_clouds_stay_whole(name, named_cloud):
    pos = named_cloud(name)
    assert len(kept_points(pos)) == len(pos)


def test_points_that_coincide_do_not_make_the_others_strays(generator):
    pos = torch.randn(40, 3, generator=generator)
    copies = pos[:1].repeat(60, 1)
    assert len(kept_points(torch.cat([copies, pos]), factor=5.0)) >= 95


def test_at_least_half_is_kept(generator):
    pos = torch.randn(200, 3, generator=generator).exp()
    assert len(kept_points(pos, factor=1.0001)) >= 100


def test_the_transform_takes_everything_of_a_point_along(scan):
    pos, _ = scan
    row = torch.arange(len(pos))
    data = Data(pos=pos, normal=pos.flip(1), row=row, y=torch.tensor([3]))
    found = DropOutliers()(data)
    assert torch.equal(found.row, kept_points(pos))
    assert torch.equal(found.normal, data.normal[found.row]) and found.y.tolist() == [3]
    assert len(data.pos) == len(pos)  # what was given is left as it was
    assert repr(DropOutliers(5)) == "DropOutliers(neighbors=5, factor=3.0)"


def test_errors():
    pos = torch.randn(9, 3)
    with pytest.raises(ArgumentError, match=r"`neighbors` \(=0\)"):
        kept_points(pos, neighbors=0)
    with pytest.raises(ArgumentError, match=r"`factor` \(=1.0\)"):
        kept_points(pos, factor=1.0)
    with pytest.raises(ShapeError, match="`pos`"):
        kept_points(torch.randn(9, 2))
    with pytest.raises(DataError, match="`pos` has 1 points that are NaN"):
        kept_points(torch.cat([pos, torch.full((1, 3), torch.nan)]))
    with pytest.raises(DataError, match=r"`data.pos` \(=None\)"):
        DropOutliers()(Data())


def test_a_point_at_the_limit_stays_in_every_copy(generator):
    # The third neighbour of the last point is exactly three times as far as the median's.
    line = torch.arange(12.0, dtype=torch.float64)
    pos = torch.zeros(13, 3, dtype=torch.float64)
    pos[:12, 0], pos[12, 0] = line, 11 + 4.0
    distance = torch.cdist(pos, pos).sort(1).values[:, 3]
    factor = float(distance[12] / distance.median())
    for turn in random_rotations(20, generator=generator, dtype=torch.float64):
        assert 12 in kept_points(pos @ turn.T, 3, factor).tolist()
