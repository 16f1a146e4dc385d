"""Relative changes, and the clouds that functions are checked on."""

import math

import pytest
import torch

from pcequi.errors import ArgumentError, ShapeError
from pcequi.testing import generic_clouds, relative_change, symmetric_clouds


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_relative_change_is_one_of_differences():
    before = torch.tensor([101.0, 99.0])
    assert relative_change(before, before) == 0
    assert relative_change(before, torch.tensor([101.0, 101.0])) == pytest.approx(2 / math.sqrt(2))
    assert relative_change(torch.ones(2), torch.tensor([1.0, 2.0])) == math.inf
    assert math.isnan(relative_change(before, before * math.nan))
    with pytest.raises(ShapeError, match=r"`after` \(=\[3\]\)"):
        relative_change(before, torch.ones(3))


def test_numbers_of_points_are_checked():
    with pytest.raises(ArgumentError, match=r"`least` \(=9\)"):
        generic_clouds(1, least=9, most=5)


def test_generic_clouds_are_normalised():
    made = generic_clouds(6, least=1, most=50, generator=seeded(1))
    for cloud in made:
        assert cloud.dtype == torch.float64 and 1 <= len(cloud) <= 50
        assert cloud.mean(0).abs().max() < 1e-12
        assert len(cloud) == 1 or float(cloud.norm(dim=1).max()) == pytest.approx(1)


def test_symmetric_clouds_are_symmetric():
    shapes = symmetric_clouds()
    assert {name: len(cloud) for name, cloud in shapes.items()} == {
        "cube": 386, "grid": 125, "sphere": 512,
    }  # fmt: skip
    quarter = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]], dtype=torch.float64)
    for name in ("cube", "grid"):
        distance = torch.cdist(shapes[name] @ quarter.T, shapes[name]).amin(1)
        assert distance.max() < 1e-6
